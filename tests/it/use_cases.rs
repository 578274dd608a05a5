//! The use cases on a ledger that is slow, changes under them, or is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::app;
use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{LotId, TenantId};
use tollgate::charging::profile::TenantState;
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::{Answer, EndReport};
use tollgate::credit_control::emergency::RawRequest;
use tollgate::credit_control::{AuthorizeRequest, CreditControl, EndRequest, Settings};
use tollgate::ledger::state::CallState;
use tollgate::ledger::{Ending, Ledger, TenantRecord};
use tollgate::organisation;

use crate::server::{DECK, config};
use crate::support::watched::Watched;
use crate::support::{call_id, payer};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Desk {
    ledger: Arc<Watched>,
    control: Arc<CreditControl<Watched>>,
    administration: Arc<Administration<Watched>>,
}

fn settings(ledger_timeout: Duration) -> Settings {
    Settings {
        default_grant: Seconds(300),
        max_grant: Seconds(4 * 3600),
        ringing_timeout: Seconds(180),
        grace: Seconds(60),
        denied_retention: Seconds(600),
        ended_retention: Seconds(86_400),
        ledger_timeout,
        emergency_country: None,
        token_keys: None,
        degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
    }
}

impl Desk {
    async fn open(ledger_timeout: Duration) -> Desk {
        let ledger = Arc::new(Watched::default());
        let control = Arc::new(CreditControl::new(ledger.clone(), settings(ledger_timeout)));
        let administration = Arc::new(Administration::new(control.clone(), Seconds(10)));
        administration.activate_deck("default", DECK.as_bytes()).await.unwrap();
        let desk = Desk { ledger, control, administration };
        desk.apply("{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }").await;
        desk
    }

    /// Another sidecar on the same ledger.
    fn another(&self, ledger_timeout: Duration) -> Arc<CreditControl<Watched>> {
        Arc::new(CreditControl::new(self.ledger.clone(), settings(ledger_timeout)))
    }

    async fn apply(&self, user: &str) {
        self.apply_tenant(&format!("users: [{user}]")).await;
    }

    async fn apply_tenant(&self, rest: &str) {
        let text = format!("tenants: [{{ id: contoso, currency: USD, {rest} }}]");
        let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
        self.administration.apply(&document).await.unwrap();
    }

    async fn record(&self) -> TenantRecord {
        let tenant = TenantId::new("contoso").unwrap();
        self.ledger.inner.tenant(&tenant).await.unwrap().outcome.record.unwrap()
    }

    /// The next change of a tenant is read for and decided now, but arrives late.
    fn delay_next_apply(&self) {
        *self.ledger.next_apply_takes.lock().unwrap() = Duration::from_millis(200);
    }

    /// Waits until the delayed change is on its way.
    async fn delayed(&self) {
        while !self.ledger.next_apply_takes.lock().unwrap().is_zero() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// As the gRPC service does it.
    async fn call(&self, call: &str, name: &str, called: &str) -> Answer {
        call_on(&self.control, &request(call, name, called)).await
    }
}

async fn call_on(control: &CreditControl<Watched>, request: &AuthorizeRequest) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    let raw = RawRequest {
        tenant: request.tenant.as_str(),
        call: request.call.as_str(),
        call_type: Some(request.call_type),
        payer: request.payer.as_str(),
        calling_number: "",
        called_number: &request.called_number,
        original_called_number: "",
        trunk: "",
        reports_answer: false,
        unvouched: "",
    };
    match control.authorize_emergency(&raw, deadline).await {
        Some(answer) => answer,
        None => control.authorize(request, deadline).await,
    }
}

fn request(call: &str, name: &str, called: &str) -> AuthorizeRequest {
    AuthorizeRequest {
        tenant: TenantId::new("contoso").unwrap(),
        call: call_id(call),
        call_type: CallType::UserOutbound,
        payer: payer(name),
        calling_number: String::new(),
        called_number: called.to_owned(),
        original_called_number: String::new(),
        requested: None,
        origin: String::new(),
        on_behalf_of: String::new(),
        conference_id: String::new(),
        sip_call_id: String::new(),
        trunk: String::new(),
        reports_answer: false,
        labels: Default::default(),
    }
}

#[tokio::test]
async fn an_emergency_number_of_the_country_that_a_payer_has_moved_to_is_one_at_once() {
    let desk = Desk::open(PATIENCE).await;
    assert_eq!(desk.call("a", "alice", "999").await.decision, Decision::NumberInvalid);
    desk.apply("{ id: alice, usage_location: GB, licences: [MCOEV, MCOPSTN1] }").await;
    assert_eq!(desk.call("b", "alice", "999").await.decision, Decision::AllowedEmergency);
}

#[tokio::test]
async fn an_emergency_call_of_a_payer_who_was_unknown_a_moment_ago_is_one() {
    let desk = Desk::open(PATIENCE).await;
    assert_eq!(desk.call("a", "bob", "+442079460000").await.decision, Decision::PayerUnknown);
    desk.apply("{ id: bob, usage_location: GB, licences: [MCOEV, MCOPSTN1] }").await;
    assert_eq!(desk.call("b", "bob", "999").await.decision, Decision::AllowedEmergency);
}

#[tokio::test]
async fn an_emergency_call_of_a_remembered_payer_asks_the_ledger_nothing() {
    let desk = Desk::open(PATIENCE).await;
    assert_eq!(desk.call("a", "alice", "+12065550100").await.decision, Decision::Allowed);
    *desk.ledger.hangs.lock().unwrap() = true;
    let soon = Duration::from_secs(5);
    let answer = tokio::time::timeout(soon, desk.call("b", "alice", "911")).await.unwrap();
    assert_eq!(answer.decision, Decision::AllowedEmergency);
}

#[tokio::test]
async fn an_emergency_call_of_a_stranger_waits_for_the_ledger_no_longer_than_set() {
    let desk = Desk::open(Duration::from_millis(50)).await;
    *desk.ledger.hangs.lock().unwrap() = true;
    let soon = Duration::from_secs(5);
    let answer = tokio::time::timeout(soon, desk.call("a", "bob", "999")).await.unwrap();
    assert_eq!(answer.decision, Decision::AllowedEmergency);
}

#[tokio::test]
async fn a_crowd_of_calls_reads_a_tenant_that_has_changed_once() {
    let desk = Desk::open(PATIENCE).await;
    assert_eq!(desk.call("first", "alice", "+12065550100").await.decision, Decision::Allowed);
    desk.apply_tenant("blocked_prefixes: [\"+882\"]").await;
    *desk.ledger.tenant_takes.lock().unwrap() = Duration::from_millis(50);
    let before = desk.ledger.tenants_read.load(Ordering::SeqCst);
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..200 {
        let control = desk.control.clone();
        let request = request(&format!("c{n}"), "alice", "+12065550100");
        crowd.spawn(async move { call_on(&control, &request).await.decision });
    }
    for decision in crowd.join_all().await {
        assert_eq!(decision, Decision::Allowed);
    }
    let read = desk.ledger.tenants_read.load(Ordering::SeqCst) - before;
    assert_eq!(read, 1, "readings of the tenant");
}

#[tokio::test]
async fn a_deck_that_takes_longer_than_a_call_may_wait_is_there_for_later_calls() {
    let desk = Desk::open(PATIENCE).await;
    let sidecar = desk.another(Duration::from_millis(100));
    *desk.ledger.deck_takes.lock().unwrap() = Duration::from_millis(400);
    let mut decision = Decision::LedgerUnavailable;
    let mut calls = 0;
    while decision == Decision::LedgerUnavailable && calls < 50 {
        let call = request(&format!("c{calls}"), "alice", "+12065550100");
        decision = call_on(&sidecar, &call).await.decision;
        calls += 1;
    }
    assert_eq!(decision, Decision::Allowed);
}

#[tokio::test]
async fn a_settle_is_carried_out_although_its_client_has_no_more_time() {
    let desk = Desk::open(PATIENCE).await;
    assert_eq!(desk.call("a", "alice", "+12065550100").await.decision, Decision::Allowed);
    *desk.ledger.end_takes.lock().unwrap() = Duration::from_millis(100);
    let tenant = TenantId::new("contoso").unwrap();
    let settle = EndRequest {
        tenant: tenant.clone(),
        call: call_id("a"),
        how: Ending::Settle(Seconds(61)),
        report: EndReport::default(),
        token: String::new(),
    };
    let deadline = Instant::now() + Duration::from_millis(10);
    desk.control.end(settle, deadline).await.expect_err("the deadline comes first");
    let until = Instant::now() + PATIENCE;
    loop {
        let call = desk.ledger.inner.call(&tenant, &call_id("a")).await.unwrap().unwrap();
        if call.state == CallState::Settled {
            assert_eq!((call.used, call.pool_spent()), (Seconds(61), Seconds(120)));
            return;
        }
        assert!(Instant::now() < until, "the call is {}", call.state);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_quote_is_never_given_from_what_is_no_longer_so() {
    let desk = Desk::open(PATIENCE).await;
    let deadline = Instant::now() + PATIENCE;
    let national = request("q", "alice", "+12065550100");
    let quote = desk.control.quote(&national, deadline).await.unwrap();
    assert_eq!(quote.decision, Decision::Allowed);
    let sidecar = desk.another(PATIENCE);
    assert_eq!(sidecar.quote(&national, deadline).await.unwrap().decision, Decision::Allowed);
    desk.apply("{ id: alice, usage_location: US }").await;
    let quote = sidecar.quote(&national, deadline).await.unwrap();
    assert_eq!(quote.decision, Decision::NotEntitled);
    desk.apply("{ id: alice, usage_location: GB, licences: [MCOEV, MCOPSTN1] }").await;
    let quote = sidecar.quote(&request("q", "alice", "999"), deadline).await.unwrap();
    assert_eq!(quote.decision, Decision::AllowedEmergency);
}

#[tokio::test]
async fn a_call_of_an_unknown_tenant_is_refused_by_the_same_order_of_checks() {
    let desk = Desk::open(PATIENCE).await;
    let deadline = Instant::now() + PATIENCE;
    for (called, expected) in
        [("+1", Decision::NumberInvalid), ("+12065550100", Decision::PayerUnknown)]
    {
        let mut request = request("a", "alice", called);
        request.tenant = TenantId::new("fabrikam").unwrap();
        assert_eq!(desk.control.authorize(&request, deadline).await.decision, expected);
        let quote = desk.control.quote(&request, deadline).await.unwrap();
        assert_eq!(quote.decision, expected);
    }
}

/// Another deck than [`DECK`].
fn dearer_deck() -> String {
    DECK.replace("0.10", "0.20")
}

#[tokio::test]
async fn activating_a_deck_undoes_no_change_that_came_between() {
    let desk = Desk::open(PATIENCE).await;
    desk.delay_next_apply();
    let administration = desk.administration.clone();
    let activation = tokio::spawn(async move {
        administration.activate_deck("default", dearer_deck().as_bytes()).await
    });
    desk.delayed().await;
    desk.apply_tenant("state: suspended").await;
    let activated = activation.await.unwrap().unwrap();
    let record = desk.record().await;
    assert_eq!(record.profile.state, TenantState::Suspended);
    assert_eq!(record.deck, Some(activated.version));
}

#[tokio::test]
async fn applying_a_tenant_misses_no_deck_that_is_activated_meanwhile() {
    for tenant_is_new in [false, true] {
        let desk = Desk::open(PATIENCE).await;
        let id = if tenant_is_new { "fabrikam" } else { "contoso" };
        desk.delay_next_apply();
        let administration = desk.administration.clone();
        let apply = tokio::spawn(async move {
            let text = format!("tenants: [{{ id: {id}, currency: USD, country: US }}]");
            let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
            administration.apply(&document).await
        });
        desk.delayed().await;
        let deck = dearer_deck();
        let activated = desk.administration.activate_deck("default", deck.as_bytes()).await;
        apply.await.unwrap().unwrap();
        let tenant = TenantId::new(id).unwrap();
        let found = desk.ledger.inner.tenant(&tenant).await.unwrap().outcome.record.unwrap();
        assert_eq!(found.deck, Some(activated.unwrap().version), "{id}");
        assert!(found.profile.country.is_some());
    }
}

#[tokio::test]
async fn a_purchase_repeated_before_its_answer_is_the_same_purchase() {
    let desk = Desk::open(PATIENCE).await;
    *desk.ledger.balance_takes.lock().unwrap() = Duration::from_millis(50);
    let buy = |amount: i64, wait: u64| {
        let administration = desk.administration.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let (tenant, key) = (TenantId::new("contoso").unwrap(), LotId::new("po-1").unwrap());
            administration.purchase(&tenant, key, Micros(amount), "USD", None, [].into()).await
        }
    };
    let (first, second, other) = tokio::join!(buy(5, 0), buy(5, 10), buy(6, 20));
    assert!(!first.unwrap().replayed);
    let second = second.unwrap();
    assert!(second.replayed);
    assert_eq!(second.credits.funded, Micros(5));
    other.expect_err("the key stands for another amount");
}

#[tokio::test]
async fn a_tenant_that_cannot_be_swept_keeps_no_other_tenants_holds() {
    let desk = Desk::open(PATIENCE).await;
    let first = "tenants: [{ id: adatum, currency: USD }]";
    let document = organisation::check(&organisation::read(first).unwrap()).unwrap();
    desk.administration.apply(&document).await.unwrap();
    *desk.ledger.never_swept.lock().unwrap() = Some(TenantId::new("adatum").unwrap());
    let settings =
        Settings { ringing_timeout: Seconds(0), grace: Seconds(0), ..settings(PATIENCE) };
    let control = CreditControl::new(desk.ledger.clone(), settings);
    let request =
        AuthorizeRequest { reports_answer: true, ..request("a", "alice", "+12065550100") };
    assert_eq!(
        control.authorize(&request, Instant::now() + PATIENCE).await.decision,
        Decision::Allowed
    );
    let running = app::start(desk.ledger.clone(), &config()).await.unwrap();
    let (tenant, until) = (TenantId::new("contoso").unwrap(), Instant::now() + PATIENCE);
    loop {
        let call = desk.ledger.inner.call(&tenant, &call_id("a")).await.unwrap().unwrap();
        if call.state == CallState::Expired {
            break;
        }
        assert!(Instant::now() < until, "the call is {}", call.state);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.shutdown().await.unwrap();
}
