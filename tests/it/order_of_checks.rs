//! The contract's order of precedence: a call that deserves two refusals gets the earlier one.
//!
//! Every call here deserves its own refusal and all that come after it, as far as they can meet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::charging::catalogue::Licence;
use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::TenantId;
use tollgate::charging::profile::{PayerKind, PayerState, TenantDocument, TenantState, UserPolicy};
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::{Answer, EndReport};
use tollgate::credit_control::{AuthorizeRequest, CreditControl, EndRequest, Settings};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::{ClockOffset, Ending};
use tollgate::organisation;

use crate::support::{call_id, payer, payer_profile};

/// France has a price, Germany has none.
const DECK: &str = "\
prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,effective_from,effective_to,direction
33,France,0.10,0.05,60,60,USD,2020-01-01,,outbound
1,North America,0.10,0.05,60,60,USD,2020-01-01,,outbound
33,France,0.10,0.05,60,60,USD,2020-01-01,,toll_free_inbound
";

const FRANCE: &str = "+33140000000";
const GERMANY: &str = "+4930123456";
const SEATTLE: &str = "+12065550100";

/// Everything wrong that can be wrong; the tests put right what comes before.
struct World {
    document: TenantDocument,
    control: Arc<CreditControl<MemoryLedger>>,
    administration: Administration<MemoryLedger>,
}

impl World {
    async fn open() -> World {
        let ledger = Arc::new(MemoryLedger::new(ClockOffset::default()));
        let settings = Settings {
            default_grant: Seconds(300),
            max_grant: Seconds(4 * 3600),
            ringing_timeout: Seconds(180),
            grace: Seconds(60),
            denied_retention: Seconds(600),
            ended_retention: Seconds(86_400),
            ledger_timeout: Duration::from_secs(20),
            emergency_country: None,
            token_keys: None,
            degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
        };
        let control = Arc::new(CreditControl::new(ledger, settings));
        let administration = Administration::new(control.clone(), Seconds(10));
        administration.activate_deck("default", DECK.as_bytes()).await.unwrap();
        let text = "tenants: [{ id: contoso, currency: USD }]";
        let mut document =
            organisation::check(&organisation::read(text).unwrap()).unwrap().remove(0);
        let profile = &mut document.profile;
        profile.state = TenantState::Suspended;
        profile.outbound_policy.user = UserPolicy::None;
        profile.blocked_prefixes = ["33", "49", "1206"].map(str::to_owned).to_vec();
        profile.limits.calls_per_second = Some(0);
        profile.limits.concurrent_calls = Some(0);
        profile.limits.max_rate_per_minute = Some(Micros(1));
        let mut alice = payer_profile("alice", PayerState::Blocked);
        alice.concurrent_calls = Some(0);
        alice.spend_limit = Some(Micros(0));
        let mut support = payer_profile("support", PayerState::Blocked);
        support.kind = PayerKind::TollNumber;
        document.payers = vec![alice, support];
        let world = World { document, control, administration };
        world.apply().await;
        world
    }

    async fn apply(&self) {
        self.administration.apply(std::slice::from_ref(&self.document)).await.unwrap();
    }

    /// Puts something right.
    async fn put_right(&mut self, what: impl FnOnce(&mut TenantDocument)) {
        what(&mut self.document);
        self.apply().await;
    }

    async fn authorize(&self, request: &AuthorizeRequest) -> Answer {
        self.control.authorize(request, Instant::now() + Duration::from_secs(20)).await
    }

    #[track_caller]
    fn expect(
        &self,
        call: &str,
        called: &str,
        expected: Decision,
        sip_status: u16,
    ) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let request = request(call, called);
        async move {
            let answer = self.authorize(&request).await;
            let sip = answer.denial.as_ref().map_or(0, |denial| denial.response.sip_status);
            assert_eq!((answer.decision, sip), (expected, sip_status), "{caller}");
        }
    }

    async fn settle(&self, call: &str, used: i64) {
        let settle = EndRequest {
            tenant: TenantId::new("contoso").unwrap(),
            call: call_id(call),
            how: Ending::Settle(Seconds(used)),
            report: EndReport::default(),
            token: String::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        self.control.end(settle, deadline).await.unwrap();
    }

    async fn buy(&self, key: &str, amount: i64) {
        let tenant = TenantId::new("contoso").unwrap();
        let key = tollgate::charging::ids::LotId::new(key).unwrap();
        let bought =
            self.administration.purchase(&tenant, key, Micros(amount), "USD", None, [].into());
        bought.await.unwrap();
    }
}

fn request(call: &str, called: &str) -> AuthorizeRequest {
    AuthorizeRequest {
        tenant: TenantId::new("contoso").unwrap(),
        call: call_id(call),
        call_type: CallType::UserOutbound,
        payer: payer("alice"),
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
async fn each_refusal_comes_before_all_that_follow_it_in_the_contract() {
    let mut world = World::open().await;

    // The state of the key comes before everything about the call.
    world.expect("a", "+1", Decision::NumberInvalid, 484).await;
    world.expect("a", "+3", Decision::KeyConflict, 403).await;
    world.settle("b", 0).await;
    world.expect("b", "+1", Decision::CallAlreadyEnded, 487).await;

    let mut stranger = request("c", "+1");
    stranger.payer = payer("nobody");
    assert_eq!(world.authorize(&stranger).await.decision, Decision::NumberInvalid);
    stranger.call = call_id("d");
    stranger.called_number = GERMANY.to_owned();
    assert_eq!(world.authorize(&stranger).await.decision, Decision::PayerUnknown);
    // In his own country's form nothing can be read: the payer is at fault, not the number.
    stranger.call = call_id("e");
    stranger.called_number = "030 123456".to_owned();
    assert_eq!(world.authorize(&stranger).await.decision, Decision::PayerUnknown);

    world.expect("f", GERMANY, Decision::TenantSuspended, 403).await;
    world.put_right(|of| of.profile.state = TenantState::Active).await;
    world.expect("g", GERMANY, Decision::FraudSuspected, 603).await;
    world.put_right(|of| of.payers[0].state = PayerState::Active).await;
    world.expect("h", GERMANY, Decision::PolicyDenied, 403).await;
    world.put_right(|of| of.profile.outbound_policy.user = UserPolicy::International).await;
    world.expect("i", GERMANY, Decision::DestinationBlocked, 403).await;
    world.put_right(|of| of.profile.blocked_prefixes = vec![]).await;
    world.expect("j", GERMANY, Decision::NotEntitled, 403).await;
    world.put_right(|of| of.payers[0].licences = vec![Licence::Domestic120]).await;
    world.expect("k", GERMANY, Decision::RateLimited, 480).await;
    world.put_right(|of| of.profile.limits.calls_per_second = None).await;
    world.expect("l", GERMANY, Decision::ConcurrencyLimit, 486).await;
    world.put_right(|of| of.payers[0].concurrent_calls = None).await;
    world.expect("m", GERMANY, Decision::ConcurrencyLimit, 480).await;
    world.put_right(|of| of.profile.limits.concurrent_calls = None).await;

    // A pool covers it: one reason, whatever the cause for which credits cannot pay.
    let all = AuthorizeRequest { requested: Some(Seconds(7200)), ..request("all", SEATTLE) };
    assert_eq!(world.authorize(&all).await.decision, Decision::Allowed);
    world.expect("n1", SEATTLE, Decision::PoolExhausted, 403).await;

    // No pool covers it.
    world.expect("o", GERMANY, Decision::CreditsNotLicensed, 403).await;
    let both = vec![Licence::Domestic120, Licence::CommunicationsCredits];
    world.put_right(|of| of.payers[0].licences = both).await;
    world.expect("n2", SEATTLE, Decision::PoolExhausted, 403).await;
    world.expect("p", GERMANY, Decision::DestinationUnrated, 403).await;
    world.expect("q", FRANCE, Decision::PriceAboveLimit, 403).await;
    world.put_right(|of| of.profile.limits.max_rate_per_minute = None).await;
    world.expect("n3", SEATTLE, Decision::PoolExhausted, 403).await;
    world.expect("r", FRANCE, Decision::SpendLimitReached, 403).await;
    world.buy("po-1", 149_999).await;
    world.expect("s", FRANCE, Decision::SpendLimitReached, 403).await;
    world.expect("n4", SEATTLE, Decision::PoolExhausted, 403).await;
    world.put_right(|of| of.payers[0].spend_limit = None).await;
    world.expect("t", FRANCE, Decision::InsufficientCredits, 402).await;
    world.expect("n5", SEATTLE, Decision::PoolExhausted, 403).await;
    world.buy("po-2", 1).await;
    world.expect("u", FRANCE, Decision::Allowed, 0).await;
}

#[tokio::test]
async fn a_stranger_who_calls_a_toll_free_number_is_told_nothing_of_funds() {
    let mut world = World::open().await;
    let mut calls = 0;
    let mut call = |calling: &str| {
        calls += 1;
        AuthorizeRequest {
            call_type: CallType::TollFreeInbound,
            payer: payer("support"),
            calling_number: calling.to_owned(),
            ..request(&format!("c{calls}"), "+18005550199")
        }
    };
    let unrated = "+4930123456";
    let (suspended, blocked) = (Decision::TenantSuspended, Decision::FraudSuspected);
    assert_eq!(world.authorize(&call(unrated)).await.decision, suspended);
    world.put_right(|of| of.profile.state = TenantState::Active).await;
    assert_eq!(world.authorize(&call(unrated)).await.decision, blocked);
    world.put_right(|of| of.payers[1].state = PayerState::Active).await;
    assert_eq!(world.authorize(&call(unrated)).await.decision, Decision::NotEntitled);
    world.put_right(|of| of.payers[1].kind = PayerKind::TollFreeNumber).await;
    assert_eq!(world.authorize(&call(unrated)).await.decision, Decision::RateLimited);
    world.put_right(|of| of.profile.limits.calls_per_second = None).await;
    assert_eq!(world.authorize(&call(unrated)).await.decision, Decision::ConcurrencyLimit);
    world.put_right(|of| of.profile.limits.concurrent_calls = None).await;
    // Without a price, above the limit, without credits: one answer.
    for calling in [unrated, FRANCE, FRANCE] {
        let answer = world.authorize(&call(calling)).await;
        let sip = answer.denial.unwrap().response.sip_status;
        assert_eq!((answer.decision, sip), (Decision::TollFreeUnfunded, 480));
        world.put_right(|of| of.profile.limits.max_rate_per_minute = None).await;
    }
    world.buy("po-1", 150_000).await;
    assert_eq!(world.authorize(&call(FRANCE)).await.decision, Decision::Allowed);
}

#[tokio::test]
async fn free_calls_stop_before_the_pool_but_not_before_the_limits() {
    let mut world = World::open().await;
    let inbound = |call: &str| AuthorizeRequest {
        call_type: CallType::UserInbound,
        ..request(call, "+14255550100")
    };
    world.put_right(|of| of.profile.state = TenantState::Active).await;
    world.put_right(|of| of.payers[0].state = PayerState::Active).await;
    assert_eq!(world.authorize(&inbound("a")).await.decision, Decision::RateLimited);
    world.put_right(|of| of.profile.limits.calls_per_second = None).await;
    assert_eq!(world.authorize(&inbound("b")).await.decision, Decision::ConcurrencyLimit);
    world.put_right(|of| of.payers[0].concurrent_calls = Some(1)).await;
    world.put_right(|of| of.profile.limits.concurrent_calls = None).await;
    assert_eq!(world.authorize(&inbound("c")).await.decision, Decision::AllowedFree);
    // Its hold of nothing counts.
    assert_eq!(world.authorize(&inbound("d")).await.decision, Decision::ConcurrencyLimit);
}
