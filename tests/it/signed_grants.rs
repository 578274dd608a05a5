//! Signed grants: a call that the ledger has forgotten is charged by its token, as granted and once; no
//! other token charges anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::{Answer, Charge, EndReport};
use tollgate::credit_control::signed_grant::{RESTORED, TokenKeys};
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, ExtendRequest, Settings, UseCaseError,
};
use tollgate::ledger::audit::audit;
use tollgate::ledger::state::{Entry, EntryKind};
use tollgate::ledger::{ClockOffset, EndResult, Ending, Ledger, LedgerError};
use tollgate::organisation;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, Decision, EventType, ExportUsageRequest,
    ExtendCallRequest, ListDecisionsRequest, SettleCallRequest, SettleCallResponse, SettleResult,
    WatchEventsRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::server::{DECK, organisation};
use crate::support::messages::{authorize, extend, length, settle, usd};
use crate::support::process::{Files, PATIENCE, Sidecar, run, tollgate, wait_until};
use crate::support::redis::RedisServer;
use crate::support::{ENDED_RETENTION, NEVER_OVERDUE, NOON, Opened, call_id, payer};

const K1: &str = "k1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const K2: &str = "k2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

// The running program on a Redis that loses its memory.

fn sidecar(redis: &RedisServer, keys: &str) -> Sidecar {
    let files = Files::default();
    let file = files.write("keys", keys);
    let flags = ["--ledger-timeout", "10s", "--token-keys-file", &file];
    Sidecar::ready(&[&["--ledger", &redis.url()], &flags[..]].concat())
}

/// Keeps what Redis holds now, for its next start.
fn keep(redis: &RedisServer) {
    let mut connection = redis.client().get_connection().unwrap();
    ::redis::cmd("SAVE").exec(&mut connection).unwrap();
}

/// Starts Redis again with what was kept: everything since is lost.
fn roll_back(redis: &RedisServer) {
    redis.kill();
    redis.start();
}

/// Once the connection of administration has found Redis again.
#[track_caller]
fn audited(sidecar: &Sidecar) {
    wait_until("a clean audit", || sidecar.client(&["audit"]), |audit| audit.status.success());
}

type Calls = CallAuthorizationServiceClient<Channel>;

/// Repeats a request until the sidecar has found Redis again.
async fn answered<T, F: Future<Output = Result<T, Status>>>(ask: impl Fn() -> F) -> T {
    let asked = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(status) => panic!("{status}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer")
}

async fn settled(calls: &Calls, request: SettleCallRequest) -> SettleCallResponse {
    let ask = || {
        let (mut calls, request) = (calls.clone(), request.clone());
        async move { calls.settle_call(request).await }
    };
    answered(ask).await.into_inner()
}

async fn authorized(calls: &Calls, request: AuthorizeCallRequest) -> AuthorizeCallResponse {
    calls.clone().authorize_call(request).await.unwrap().into_inner()
}

/// Authorizes five minutes of carol's money; the token.
async fn granted(calls: &Calls, call: &str) -> String {
    let answer = authorized(calls, authorize(call, "carol", "+12065550100")).await;
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let token = answer.grant.unwrap().token;
    assert!((200..2_000).contains(&token.len()), "{} bytes", token.len());
    token
}

fn with_token(request: SettleCallRequest, token: &str) -> SettleCallRequest {
    SettleCallRequest { token: token.to_owned(), ..request }
}

#[tokio::test]
async fn a_call_lost_with_an_older_redis_is_charged_once_by_its_token() {
    let redis = RedisServer::started();
    let sidecar = sidecar(&redis, K1);
    sidecar.set_up(&organisation());
    keep(&redis);
    let mut calls = sidecar.calls().await;
    granted(&calls, "a").await;
    let extended = calls.extend_call(extend("a", 100, 1)).await.unwrap().into_inner();
    let token = extended.grant.unwrap().token;
    let goes_on = granted(&calls, "b").await;
    roll_back(&redis);

    let charge = settled(&calls, with_token(settle("a", 301), &token)).await;
    assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, false), "{charge:?}");
    assert_eq!(
        (charge.charged_money.clone(), charge.recorded_duration),
        (usd("0.65"), length(301))
    );
    for token in [&*token, "", "nonsense"] {
        let again = settled(&calls, with_token(settle("a", 301), token)).await;
        assert_eq!((again.result(), again.replayed), (SettleResult::Settled, true));
        let other = settled(&calls, with_token(settle("a", 400), token)).await;
        assert_eq!(other.result(), SettleResult::AlreadySettled);
        assert_eq!(other.recorded_duration, length(301));
    }
    let again = authorized(&calls, authorize("a", "carol", "+12065550100")).await;
    assert_eq!(again.decision(), Decision::CallAlreadyEnded);
    let other = authorized(&calls, authorize("a", "carol", "+12065550101")).await;
    assert_eq!(other.decision(), Decision::KeyConflict);

    // The other one goes on, and its next token is as good.
    let more = ExtendCallRequest { token: goes_on, ..extend("b", 240, 1) };
    let extended = calls.extend_call(more).await.unwrap().into_inner();
    assert!(extended.allowed && extended.warnings.iter().any(|w| w.contains("no memory")));
    assert_eq!(extended.grant.as_ref().unwrap().granted_duration, length(540));
    let charge = settled(&calls, settle("b", 500)).await;
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.95")));
    audited(&sidecar);

    // Both have a complete record, and say how it came about.
    let mut account = sidecar.account().await;
    let tenant_id = "contoso".to_owned();
    let request = ListDecisionsRequest { tenant_id, ..ListDecisionsRequest::default() };
    let decisions = account.list_decisions(request).await.unwrap().into_inner().decisions;
    let of = |call: &str| {
        decisions.iter().find(|d| d.call_id == call && d.decision() == Decision::Allowed)
    };
    for call in ["a", "b"] {
        let record = of(call).unwrap();
        assert_eq!(
            (record.flags.as_slice(), &*record.called_number),
            (&[RESTORED.to_owned()][..], "+12065550100")
        );
    }
    let tenant_id = "contoso".to_owned();
    let window = ExportUsageRequest { tenant_id, ..ExportUsageRequest::default() };
    let mut records = account.export_usage(window).await.unwrap().into_inner();
    let mut found = BTreeSet::new();
    while let Some(response) = records.message().await.unwrap() {
        let record = response.record.unwrap();
        if record.charge.is_some() && !record.destination_number.is_empty() {
            found.insert(record.call_id);
        }
    }
    assert!(found.contains("a") && found.contains("b"), "{found:?}");
}

#[tokio::test]
async fn a_call_lost_with_all_of_redis_waits_for_its_tenant() {
    let redis = RedisServer::started();
    let sidecar = sidecar(&redis, K1);
    sidecar.set_up(&organisation());
    let calls = sidecar.calls().await;
    let token = granted(&calls, "a").await;
    let mut connection = redis.client().get_connection().unwrap();
    ::redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    let request = || with_token(settle("a", 61), &token);
    // Nothing is lost, and nothing charged, while nobody knows what the tenant has.
    let early = calls.clone().settle_call(request()).await.expect_err("no tenant");
    assert_eq!(early.code(), Code::Unavailable, "{early}");
    sidecar.set_up(&organisation());
    let charge = settled(&calls, request()).await;
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.25")));
    audited(&sidecar);
}

#[tokio::test]
async fn a_forged_or_foreign_token_charges_nothing_and_is_on_record() {
    let redis = RedisServer::started();
    let sidecar = sidecar(&redis, K1);
    sidecar.set_up(&organisation());
    keep(&redis);
    let calls = sidecar.calls().await;
    let (token, other) = (granted(&calls, "a").await, granted(&calls, "b").await);
    roll_back(&redis);
    settled(&calls, settle("wait", 0)).await;
    audited(&sidecar);

    for i in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[i] = if forged[i] == b'A' { b'B' } else { b'A' };
        let token = String::from_utf8(forged).unwrap();
        let request = ExtendCallRequest { token, ..extend("a", 60, 1) };
        let refused = calls.clone().extend_call(request).await.expect_err("a forged token");
        assert_eq!(refused.code(), Code::NotFound, "byte {i}");
    }
    sidecar.wait_for_log("forged");
    sidecar.wait_for_log("malformed");
    let other_end = if token.ends_with("AAAA") { "BBBB" } else { "AAAA" };
    let forged = format!("{}{other_end}", &token[..token.len() - 4]);
    for (call, token, fault) in [
        ("a", &*forged, "token forged"),
        ("c", &*other, "token foreign"),
        ("d", "bye", "token malformed"),
        ("e", "", ""),
    ] {
        let charge = settled(&calls, with_token(settle(call, 60), token)).await;
        assert_eq!(charge.result(), SettleResult::Parked, "{call}");
        assert_eq!(charge.charged_money, usd("0"));
        let request =
            WatchEventsRequest { tenant_id: "contoso".to_owned(), ..WatchEventsRequest::default() };
        let mut events = sidecar.account().await.watch_events(request).await.unwrap().into_inner();
        let found = loop {
            let event = events.message().await.unwrap().unwrap();
            let event = event.event.unwrap_or_default();
            if event.call_id == call {
                break event;
            }
        };
        assert_eq!(
            (found.r#type(), &*found.reason),
            (EventType::UnauthorizedUsage, fault),
            "{call}"
        );
    }
    // What is parked stays so, whatever token comes later.
    let late = settled(&calls, with_token(settle("a", 60), &token)).await;
    assert_eq!((late.result(), late.replayed), (SettleResult::Parked, true));
    let balance = sidecar.json(&["balance", "--tenant", "contoso"]);
    assert_eq!(balance["credits"]["spent"]["amount"], "0", "{balance}");
    audited(&sidecar);
}

#[tokio::test]
async fn keys_rotate_from_sidecar_to_sidecar() {
    let redis = RedisServer::started();
    let old = sidecar(&redis, K1);
    old.set_up(&organisation());
    keep(&redis);
    let both = sidecar(&redis, &format!("# in, then out\n{K2}\n{K1}\n"));
    let new = sidecar(&redis, K2);
    let (first, second, third) = (old.calls().await, both.calls().await, new.calls().await);
    let tokens = [("a", granted(&first, "a").await), ("b", granted(&second, "b").await)];
    let late = granted(&first, "c").await;
    let unsigned = Sidecar::on(&redis.url());
    let answer = authorized(&unsigned.calls().await, authorize("u", "carol", "+12065550100")).await;
    assert_eq!(answer.grant.unwrap().token, "");
    assert_eq!(unsigned.log().matches("grants are not signed").count(), 1);
    assert!(!old.log().contains("grants are not signed"));
    roll_back(&redis);

    for ((call, token), calls) in tokens.iter().zip([&second, &third]) {
        let charge = settled(calls, with_token(settle(call, 60), token)).await;
        assert_eq!(charge.result(), SettleResult::Settled, "{call}");
    }
    let charge = settled(&third, with_token(settle("c", 60), &late)).await;
    assert_eq!(charge.result(), SettleResult::Parked);
    new.wait_for_log("unknown_key");
    let charge = settled(&unsigned.calls().await, with_token(settle("d", 60), &late)).await;
    assert_eq!(charge.result(), SettleResult::Parked);
    unsigned.wait_for_log("no_keys");
}

#[test]
fn keys_that_cannot_be_used_stop_the_start_and_are_not_printed() {
    let files = Files::default();
    let file = files.write("keys", "k1 c2hvcnQgc2VjcmV0");
    let mut command = tollgate();
    command.args(["serve", "--token-keys-file", &file]);
    let said = run(command).failed(64);
    assert!(said.contains("32 to 128 bytes in base64") && !said.contains("c2hvcnQ"), "{said}");
}

// The use cases by a stepped clock, on both ledgers.

struct Desk<L> {
    ledger: Arc<L>,
    control: Arc<CreditControl<L>>,
    clock: ClockOffset,
    tenant: TenantId,
    _keep: Box<dyn std::any::Any + Send + Sync>,
}

impl<L: Ledger> Desk<L> {
    /// With a ledger that knows the tenant, and nothing of its calls.
    async fn open<F: Future<Output = Opened<L>>>(make: impl FnOnce(ClockOffset) -> F) -> Desk<L> {
        static DESKS: AtomicU32 = AtomicU32::new(0);
        let number = DESKS.fetch_add(1, Ordering::Relaxed);
        let tenant = format!("signed-{}-{number}", std::process::id());
        Desk::of(make, &tenant).await
    }

    async fn of<F: Future<Output = Opened<L>>>(
        make: impl FnOnce(ClockOffset) -> F,
        tenant: &str,
    ) -> Desk<L> {
        let clock = ClockOffset::default();
        clock.freeze_at(NOON);
        let Opened { ledger, keep } = make(clock.clone()).await;
        let ledger = Arc::new(ledger);
        let settings = Settings {
            default_grant: Seconds(300),
            max_grant: Seconds(4 * 3600),
            ringing_timeout: Seconds(180),
            grace: Seconds(60),
            denied_retention: Seconds(600),
            ended_retention: ENDED_RETENTION,
            ledger_timeout: PATIENCE,
            emergency_country: None,
            token_keys: Some(TokenKeys::parse(K1).unwrap()),
            degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
        };
        let control = Arc::new(CreditControl::new(ledger.clone(), settings));
        let administration = Administration::new(control.clone(), Seconds(10));
        administration.activate_deck(tenant, DECK.as_bytes()).await.unwrap();
        let text = format!(
            "tenants: [{{ id: {tenant}, currency: USD, rate_deck: {tenant}, \
             credits: [{{ key: po-1, amount: \"10\", purchased_at: 2026-11-01T00:00:00Z }}], users: [\
             {{ id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1] }}] }}]"
        );
        let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
        administration.apply(&document).await.unwrap();
        let tenant = TenantId::new(tenant).unwrap();
        Desk { ledger, control, clock, tenant, _keep: keep }
    }

    async fn authorize(&self, call: &str) -> Answer {
        let request = AuthorizeRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            call_type: CallType::UserOutbound,
            payer: payer("carol"),
            calling_number: String::new(),
            called_number: "+12065550100".to_owned(),
            original_called_number: String::new(),
            requested: Some(Seconds(300)),
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: String::new(),
            reports_answer: true,
            labels: Default::default(),
        };
        self.control.authorize(&request, Instant::now() + PATIENCE).await
    }

    async fn extend(&self, call: &str, used: i64, token: &str) -> Result<Answer, UseCaseError> {
        let request = ExtendRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            used: Seconds(used),
            sequence: None,
            requested: Some(Seconds(300)),
            token: token.to_owned(),
        };
        self.control.extend(&request, Instant::now() + PATIENCE).await
    }

    async fn settle(&self, call: &str, used: i64, token: &str) -> Result<Charge, UseCaseError> {
        let request = EndRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            how: Ending::Settle(Seconds(used)),
            report: EndReport::default(),
            token: token.to_owned(),
        };
        self.control.end(request, Instant::now() + PATIENCE).await
    }

    async fn sweep(&self) {
        self.ledger.sweep(&self.tenant, 1000, ENDED_RETENTION).await.unwrap();
    }

    async fn journal(&self) -> Vec<Entry> {
        let reply = self.ledger.snapshot(&self.tenant).await.unwrap();
        let report = audit(&self.tenant, reply.now, NEVER_OVERDUE, &reply.outcome);
        assert_eq!(report.findings, []);
        reply.outcome.journal
    }

    async fn spent(&self) -> i64 {
        let balance = self.ledger.balance(&self.tenant).await.unwrap().outcome;
        balance.lots.iter().map(|lot| lot.bucket.spent).sum()
    }
}

/// A token may be used for as long as its call is remembered, however soon that ended, and no longer: at
/// no instant is there a second charge.
async fn a_call_that_is_charged_and_forgotten_stays_charged_once<L: Ledger>(desk: &Desk<L>) {
    let token = desk.authorize("c").await.token;
    let charge = desk.settle("c", 60, &token).await.unwrap();
    assert_eq!((charge.result, charge.charged_money), (EndResult::Settled, Micros(150_000)));
    // Somebody repeats the settle each quarter of an hour, and the extension, for two days.
    for _ in 0..2 * 24 * 4 {
        desk.clock.advance(Seconds(900));
        desk.sweep().await;
        let again = desk.settle("c", 60, &token).await.unwrap();
        let known = matches!(again.result, EndResult::Settled | EndResult::Parked);
        assert!(known && desk.spent().await == 150_000, "{again:?}");
        if let Ok(answer) = desk.extend("c", 60, &token).await {
            assert_eq!(answer.grant, None);
        }
    }
    let journal = desk.journal().await;
    let parked: Vec<_> = journal.iter().filter(|e| e.kind == EntryKind::Parked).collect();
    assert!(!parked.is_empty() && journal.iter().all(|e| e.kind != EntryKind::Restored));
    assert_eq!(EndReport::decode(&parked[0].report).token_fault, "expired");
}

/// Of the last minute before a call is forgotten nothing is believed, from the first instant after it
/// neither.
async fn a_forgotten_call_is_not_put_back_to_the_millisecond<L: Ledger>(desk: &Desk<L>) {
    let token = desk.authorize("c").await.token;
    desk.settle("c", 60, &token).await.unwrap();
    let kept = ENDED_RETENTION.0 * 1000;
    for after in [kept - 60_001, kept - 60_000, kept - 1, kept, kept + 1] {
        desk.clock.freeze_at(tollgate::charging::units::Millis(NOON.0 + after));
        desk.sweep().await;
        let extended = desk.extend("c", 60, &token).await;
        assert!(extended.map_or(true, |answer| answer.grant.is_none()), "{after}");
        assert_eq!(desk.spent().await, 150_000, "{after}");
    }
    assert_eq!(desk.extend("c", 60, &token).await, Err(UseCaseError::NoSuchCall));
}

/// Every answer with a grant has a token of its own, which tells what is proven by then.
async fn each_grant_is_signed_as_it_stands<L: Ledger, M: Ledger>(desk: &Desk<L>, forgot: &Desk<M>) {
    let first = desk.authorize("c").await.token;
    let again = desk.authorize("c").await;
    assert!(again.replayed && again.token == first);
    desk.clock.advance(Seconds(5));
    let deadline = Instant::now() + PATIENCE;
    let answered = desk.control.report_answer(&desk.tenant, &call_id("c"), deadline).await.unwrap();
    let last = desk.extend("c", 200, &answered.token).await.unwrap().token;
    let tokens = BTreeSet::from([first, answered.token, last.clone()]);
    assert!(tokens.len() == 3 && !tokens.contains(""));
    // A settle below what the last grant proves is charged what that proves.
    forgot.clock.advance(Seconds(5));
    let charge = forgot.settle("c", 61, &last).await.unwrap();
    assert_eq!((charge.recorded_duration, charge.charged_money), (Seconds(200), Micros(450_000)));
    forgot.journal().await;
}

/// Never answered: there is nothing to charge, and a late authorize holds nothing.
async fn a_lost_call_that_was_never_answered_is_over<L: Ledger>(desk: &Desk<L>, forgot: &Desk<L>) {
    let token = desk.authorize("c").await.token;
    let charge = forgot.settle("c", 0, &token).await.unwrap();
    assert_eq!((charge.result, charge.replayed), (EndResult::Released, false));
    let late = forgot.authorize("c").await;
    assert!(late.grant.is_none() && late.token.is_empty(), "{late:?}");
    assert_eq!(forgot.spent().await, 0);
}

/// The same token at many sidecars at once: one charge.
async fn a_token_that_is_sent_many_times_at_once_charges_once<L: Ledger>(
    desk: &Desk<L>,
    forgot: &Desk<L>,
) {
    let token = desk.authorize("c").await.token;
    let all = (0..20).map(|_| forgot.settle("c", 60, &token));
    let mut fresh = 0;
    for charge in futures_in_turn(all).await {
        let charge = charge.unwrap();
        assert_eq!(charge.result, EndResult::Settled);
        fresh += u32::from(!charge.replayed);
    }
    assert_eq!((fresh, forgot.spent().await), (1, 150_000));
    let journal = forgot.journal().await;
    assert_eq!(journal.iter().filter(|e| e.kind == EntryKind::Restored).count(), 1);
}

/// All futures polled side by side on this task.
async fn futures_in_turn<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(found) = future.as_mut().poll(context)
            {
                *done = Some(found);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

macro_rules! on_both {
    ($($ledger:ident)*) => {
        $(mod $ledger {
            use super::Desk;
            use crate::support::$ledger as make;

            #[tokio::test]
            async fn a_call_that_is_charged_and_forgotten_stays_charged_once() {
                let desk = Desk::open(make).await;
                super::a_call_that_is_charged_and_forgotten_stays_charged_once(&desk).await;
            }

            #[tokio::test]
            async fn a_forgotten_call_is_not_put_back_to_the_millisecond() {
                let desk = Desk::open(make).await;
                super::a_forgotten_call_is_not_put_back_to_the_millisecond(&desk).await;
            }

            #[tokio::test]
            async fn each_grant_is_signed_as_it_stands() {
                let desk = Desk::open(make).await;
                let forgot = Desk::of(crate::support::memory, desk.tenant.as_str()).await;
                super::each_grant_is_signed_as_it_stands(&desk, &forgot).await;
            }
        })*
    };
}

on_both! { memory redis }

async fn two() -> [Desk<tollgate::ledger::memory::MemoryLedger>; 2] {
    let desk = Desk::open(crate::support::memory).await;
    let forgot = Desk::of(crate::support::memory, desk.tenant.as_str()).await;
    [desk, forgot]
}

#[tokio::test]
async fn a_lost_call_that_was_never_answered_ends_for_nothing() {
    let [desk, forgot] = two().await;
    a_lost_call_that_was_never_answered_is_over(&desk, &forgot).await;
}

#[tokio::test]
async fn one_token_sent_many_times_is_one_charge() {
    let [desk, forgot] = two().await;
    a_token_that_is_sent_many_times_at_once_charges_once(&desk, &forgot).await;
}

#[tokio::test]
async fn a_token_of_another_tenant_is_foreign_and_a_tenant_that_is_gone_is_awaited() {
    let [desk, forgot] = two().await;
    let token = desk.authorize("c").await.token;
    let other = Desk::open(crate::support::memory).await;
    let charge = other.settle("c", 60, &token).await.unwrap();
    assert_eq!(charge.result, EndResult::Parked);
    let entry = other.journal().await.pop().unwrap();
    assert_eq!(EndReport::decode(&entry.report).token_fault, "foreign");
    // A tenant that nobody has applied yet has no calls.
    let stranger = Desk { tenant: TenantId::new("nobody").unwrap(), ..forgot };
    let refused = stranger.settle("c", 60, &token).await;
    assert!(
        matches!(
            refused,
            Err(UseCaseError::NoSuchCall | UseCaseError::Ledger(LedgerError::Unavailable(_)))
        ),
        "{refused:?}"
    );
}
