//! Directives for running calls, on both ledgers and through the running program.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tollgate::administration::Administration;
use tollgate::app::{self, Running};
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::Seconds;
use tollgate::credit_control::directives::{Cut, Directives, Limits, Told, WatchError};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::{ClockOffset, Ledger};
use tollgate::organisation;
use tollgate::proto::v1::account_service_client::AccountServiceClient;
use tollgate::proto::v1::adjust_balance_request::Amount;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::end_open_calls_request::Calls;
use tollgate::proto::v1::{
    AdjustBalanceRequest, AuthorizeCallRequest, BlockUserRequest, Decision, Directive,
    DirectiveReason, DirectiveType, EndOpenCallsRequest, EndOpenCallsResponse, GetBalanceRequest,
    Pool, PoolCounter, PurchaseCreditsRequest, RunAuditRequest, SettleResult, WatchCallsRequest,
    WatchCallsResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::server::{DECK, bought_today, channel, config};
use crate::support::messages::{authorize, extend, length, settle, usd};
use crate::support::process::{PATIENCE, Sidecar};
use crate::support::redis::RedisServer;

use DirectiveReason as Why;
use DirectiveType as Kind;

/// Makes one test per case and ledger.
macro_rules! on_both_ledgers {
    ($($case:ident)*) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $case() {
                    let ledger = super::MemoryLedger::new(super::ClockOffset::default());
                    let desk = super::Desk::open(ledger).await;
                    super::$case(&desk).await;
                    desk.audit().await;
                }
            )*
        }
        mod redis {
            $(
                #[tokio::test]
                async fn $case() {
                    let server = super::RedisServer::started();
                    let ledger = server.ledger(&super::ClockOffset::default()).await;
                    let desk = super::Desk::open(ledger).await;
                    super::$case(&desk).await;
                    desk.audit().await;
                }
            )*
        }
    };
}

on_both_ledgers! {
    a_purchase_during_a_final_grant_lengthens_the_call_by_its_next_extension
    calls_of_a_suspended_tenant_are_to_end_but_emergency_calls
    calls_of_a_blocked_user_are_to_end_and_nobody_elses
    an_operator_ends_calls_and_each_switch_is_told_of_its_own
    calls_that_the_spend_velocity_cuts_short_are_to_end_when_another_is_refused
    licences_that_are_added_lengthen_a_call_that_its_pool_cut_short
}

/// A server on a ledger.
struct Desk<L> {
    running: Running<L>,
    calls: CallAuthorizationServiceClient<Channel>,
    account: AccountServiceClient<Channel>,
}

/// contoso with so much credit; alice has minutes, carol only credits.
fn document(credit: &str, settings: &str) -> String {
    let text = format!(
        "tenants: [{{ id: contoso, currency: USD, country: US, {settings} \
         credits: [{{ key: po-1, amount: \"{credit}\", purchased_at: TODAY }}], users: [\
         {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }}, \
         {{ id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1] }}] }}]"
    );
    bought_today(&text)
}

impl<L: Ledger> Desk<L> {
    async fn open(ledger: L) -> Desk<L> {
        let running = app::start(Arc::new(ledger), &config()).await.expect("the server starts");
        let addresses = running.addresses().clone();
        let administration = Administration::new(running.control().clone(), Seconds(10));
        administration.activate_deck("default", DECK.as_bytes()).await.expect("the deck is right");
        let calls = CallAuthorizationServiceClient::new(channel(&addresses.calls).await);
        let account = AccountServiceClient::new(channel(&addresses.administration).await);
        Desk { running, calls, account }
    }

    async fn apply(&self, document: &str) {
        let administration = Administration::new(self.running.control().clone(), Seconds(10));
        let document = organisation::check(&organisation::read(document).unwrap()).unwrap();
        administration.apply(&document).await.expect("the document is applied");
    }

    async fn authorize(&self, call: &str, payer: &str, trunk: &str) -> Decision {
        self.ask(AuthorizeCallRequest {
            trunk_id: trunk.to_owned(),
            ..authorize(call, payer, "+12065550100")
        })
        .await
    }

    async fn ask(&self, request: AuthorizeCallRequest) -> Decision {
        self.calls.clone().authorize_call(request).await.unwrap().into_inner().decision()
    }

    async fn extend(&self, call: &str, used: i64, sequence: u64) -> (bool, i64) {
        let answer = self.calls.clone().extend_call(extend(call, used, sequence)).await.unwrap();
        let answer = answer.into_inner();
        (answer.allowed, answer.grant.map_or(0, |g| g.granted_duration.unwrap().seconds))
    }

    async fn purchase(&self, key: &str, amount: &str) {
        let request = PurchaseCreditsRequest {
            tenant_id: "contoso".to_owned(),
            key: key.to_owned(),
            amount: usd(amount),
            ..PurchaseCreditsRequest::default()
        };
        self.account.clone().purchase_credits(request).await.unwrap();
    }

    async fn block(&self, user: &str) {
        let request = BlockUserRequest {
            tenant_id: "contoso".to_owned(),
            user_id: user.to_owned(),
            reason: "premium calls at night".to_owned(),
            operator: "olga".to_owned(),
        };
        self.account.clone().block_user(request).await.unwrap();
    }

    async fn end(&self, calls: Calls) -> EndOpenCallsResponse {
        let request = EndOpenCallsRequest {
            tenant_id: "contoso".to_owned(),
            calls: Some(calls),
            reason: "test".to_owned(),
            operator: "olga".to_owned(),
        };
        self.account.clone().end_open_calls(request).await.unwrap().into_inner()
    }

    /// A stream, and what it begins with.
    async fn watch(&self, trunk: &str) -> (Watching, Vec<Directive>) {
        Watching::open(&self.calls, trunk).await
    }

    async fn audit(&self) {
        let report = self.account.clone().run_audit(RunAuditRequest::default()).await.unwrap();
        let report = report.into_inner();
        assert!(report.clean, "{report:?}");
    }
}

/// A stream of directives, and what it has told: it may tell a thing twice.
struct Watching(Streaming<WatchCallsResponse>, HashSet<String>);

impl Watching {
    async fn open(
        calls: &CallAuthorizationServiceClient<Channel>,
        trunk: &str,
    ) -> (Watching, Vec<Directive>) {
        let request =
            WatchCallsRequest { tenant_id: "contoso".to_owned(), trunk_id: trunk.to_owned() };
        let stream = calls.clone().watch_calls(request).await.unwrap().into_inner();
        let mut watching = Watching(stream, HashSet::new());
        let mut standing = vec![];
        loop {
            let message = watching.message().await;
            match message.directive {
                Some(directive) => {
                    watching.1.insert(directive.directive_id.clone());
                    standing.push(directive);
                }
                None => {
                    assert!(message.caught_up);
                    return (watching, standing);
                }
            }
        }
    }

    async fn message(&mut self) -> WatchCallsResponse {
        let next = tokio::time::timeout(PATIENCE, self.0.message()).await;
        next.expect("a directive in time").unwrap().expect("no end")
    }

    async fn next(&mut self) -> Directive {
        loop {
            let directive = self.message().await.directive.expect("a directive");
            if self.1.insert(directive.directive_id.clone()) {
                return directive;
            }
        }
    }

    async fn some(&mut self, count: usize) -> Vec<Directive> {
        let mut found = vec![];
        while found.len() < count {
            found.push(self.next().await);
        }
        found
    }
}

/// Call, what to do and why, in the order of calls.
fn told(directives: &[Directive]) -> Vec<(&str, Kind, Why)> {
    let mut told: Vec<_> =
        directives.iter().map(|d| (d.call_id.as_str(), d.r#type(), d.reason())).collect();
    told.sort_by_key(|(call, ..)| *call);
    told
}

async fn a_purchase_during_a_final_grant_lengthens_the_call_by_its_next_extension<L: Ledger>(
    desk: &Desk<L>,
) {
    desk.apply(&document("0.25", "")).await;
    assert_eq!(desk.authorize("paid", "carol", "sbc-1").await, Decision::Allowed);
    assert_eq!(desk.authorize("pooled", "alice", "sbc-1").await, Decision::Allowed);
    assert_eq!(desk.extend("paid", 10, 1).await, (true, 120));
    let (mut watching, standing) = desk.watch("sbc-1").await;
    assert_eq!(told(&standing), []);

    desk.purchase("po-2", "10").await;
    let first = watching.next().await;
    let expected = ("paid", Kind::Refresh, Why::FundsArrived);
    assert_eq!(told(std::slice::from_ref(&first)), [expected]);
    assert_eq!((first.payer_id.as_str(), first.trunk_id.as_str()), ("carol", "sbc-1"));
    assert!(first.issued_at.is_some());
    // Who was away meanwhile is told the same, with the same id.
    let (_, standing) = desk.watch("sbc-1").await;
    assert_eq!(told(&standing), [expected]);
    assert_eq!(standing[0].directive_id, first.directive_id);

    let (allowed, granted) = desk.extend("paid", 20, 2).await;
    assert!(allowed && granted > 120, "{granted}");
    // Nothing is short any more.
    let (_, standing) = desk.watch("").await;
    assert_eq!(told(&standing), []);
    desk.purchase("po-3", "10").await;
    desk.block("alice").await;
    assert_eq!(told(&[watching.next().await]), [("pooled", Kind::EndNow, Why::PayerBlocked)]);
}

async fn licences_that_are_added_lengthen_a_call_that_its_pool_cut_short<L: Ledger>(
    desk: &Desk<L>,
) {
    desk.apply(&document("10", "")).await;
    // All but the last minutes of alice's pool are gone.
    let mut account = desk.account.clone();
    let whose = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let pools = account.get_balance(whose).await.unwrap().into_inner().pools;
    let domestic = |pool: &&Pool| pool.counter() == PoolCounter::Domestic;
    let pool = pools.iter().find(domestic).expect("a pool");
    let minutes = pool.available.unwrap().seconds / 60;
    let adjust = AdjustBalanceRequest {
        tenant_id: "contoso".to_owned(),
        key: "empty".to_owned(),
        bucket_id: pool.pool_id.clone(),
        reason: "test".to_owned(),
        operator: "olga".to_owned(),
        amount: Some(Amount::Duration(prost_types::Duration {
            seconds: -(minutes - 2) * 60,
            nanos: 0,
        })),
    };
    account.adjust_balance(adjust).await.unwrap();
    assert_eq!(desk.authorize("pooled", "alice", "sbc-1").await, Decision::Allowed);
    let (allowed, granted) = desk.extend("pooled", 10, 1).await;
    assert!(allowed && granted <= 120, "{granted}");
    let (mut watching, standing) = desk.watch("sbc-1").await;
    assert_eq!(told(&standing), []);
    // A colleague brings minutes of his own to the pool.
    let more = document("10", "").replace(
        "{ id: carol",
        "{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTN1] }, { id: carol",
    );
    desk.apply(&more).await;
    assert_eq!(told(&[watching.next().await]), [("pooled", Kind::Refresh, Why::FundsArrived)]);
    let (allowed, longer) = desk.extend("pooled", 20, 2).await;
    assert!(allowed && longer > granted, "{longer} after {granted}");
}

async fn calls_of_a_suspended_tenant_are_to_end_but_emergency_calls<L: Ledger>(desk: &Desk<L>) {
    desk.apply(&document("10", "")).await;
    desk.authorize("a", "alice", "sbc-1").await;
    desk.authorize("b", "carol", "sbc-2").await;
    desk.ask(authorize("help", "alice", "911")).await;
    let (mut all, _) = desk.watch("").await;
    let (mut second, _) = desk.watch("sbc-2").await;
    desk.apply(&document("10", "state: suspended,")).await;
    let (a, b) =
        (("a", Kind::EndNow, Why::TenantSuspended), ("b", Kind::EndNow, Why::TenantSuspended));
    assert_eq!(told(&all.some(2).await), [a, b]);
    assert_eq!(told(&[second.next().await]), [b]);
    // It still applies to who asks again, and the next extension says the same.
    let (_, standing) = desk.watch("").await;
    assert_eq!(told(&standing), [a, b]);
    assert!(!desk.extend("a", 5, 1).await.0);
    desk.calls.clone().settle_call(settle("a", 5)).await.unwrap();
    let (_, standing) = desk.watch("").await;
    assert_eq!(told(&standing), [b]);
}

async fn calls_of_a_blocked_user_are_to_end_and_nobody_elses<L: Ledger>(desk: &Desk<L>) {
    desk.apply(&document("10", "")).await;
    for (call, payer) in [("a1", "alice"), ("a2", "alice"), ("c1", "carol")] {
        desk.authorize(call, payer, "sbc-1").await;
    }
    let (mut watching, _) = desk.watch("sbc-1").await;
    desk.block("alice").await;
    let expected =
        [("a1", Kind::EndNow, Why::PayerBlocked), ("a2", Kind::EndNow, Why::PayerBlocked)];
    assert_eq!(told(&watching.some(2).await), expected);
    // The file blocks as well as an operator.
    let blocked = document("10", "").replace("id: carol,", "id: carol, state: blocked,");
    desk.apply(&blocked).await;
    let c1 = ("c1", Kind::EndNow, Why::PayerBlocked);
    assert_eq!(told(&[watching.next().await]), [c1]);
    let (_, standing) = desk.watch("").await;
    assert_eq!(told(&standing), [expected[0], expected[1], c1]);
}

async fn an_operator_ends_calls_and_each_switch_is_told_of_its_own<L: Ledger>(desk: &Desk<L>) {
    desk.apply(&document("10", "")).await;
    for (call, payer, trunk) in [
        ("a1", "alice", "sbc-1"),
        ("a2", "alice", "sbc-2"),
        ("c1", "carol", "sbc-1"),
        ("c2", "carol", "sbc-2"),
        ("c3", "carol", "sbc-3"),
    ] {
        desk.authorize(call, payer, trunk).await;
        desk.extend(call, 30, 1).await;
    }
    desk.ask(authorize("help", "alice", "911")).await;
    let (mut first, _) = desk.watch("sbc-1").await;
    let (mut second, _) = desk.watch("sbc-2").await;
    let by_operator = |call| (call, Kind::EndNow, Why::Operator);

    let ended = desk.end(Calls::CallId("a1".to_owned())).await;
    assert_eq!((ended.ended_calls, ended.charged_duration), (1, length(60)));
    let directive = first.next().await;
    assert_eq!(told(std::slice::from_ref(&directive)), [by_operator("a1")]);
    assert_eq!(directive.detail, "olga ended the call: test");
    // The switch hangs up, and what was used is charged, once.
    let settled = desk.calls.clone().settle_call(settle("a1", 90)).await.unwrap().into_inner();
    assert_eq!(settled.result(), SettleResult::Settled);
    assert_eq!(settled.charged_duration, length(120));

    assert_eq!(desk.end(Calls::PayerId("alice".to_owned())).await.call_ids, ["a2"]);
    assert_eq!(told(&[second.next().await]), [by_operator("a2")]);
    assert_eq!(desk.end(Calls::TrunkId("sbc-1".to_owned())).await.call_ids, ["c1"]);
    assert_eq!(told(&[first.next().await]), [by_operator("c1")]);
    assert_eq!(desk.end(Calls::All(true)).await.ended_calls, 2);
    assert_eq!(told(&[second.next().await]), [by_operator("c2")]);
    // Who was away is told for ten minutes, on a server that nobody was connected to as well.
    let (_, standing) = desk.watch("sbc-3").await;
    assert_eq!(told(&standing), [by_operator("c3")]);

    let gone = EndOpenCallsRequest {
        tenant_id: "contoso".to_owned(),
        calls: Some(Calls::CallId("a1".to_owned())),
        reason: "test".to_owned(),
        operator: "olga".to_owned(),
    };
    let mut account = desk.account.clone();
    let status = account.end_open_calls(gone.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    for wrong in [
        EndOpenCallsRequest { calls: None, ..gone.clone() },
        EndOpenCallsRequest { calls: Some(Calls::All(false)), ..gone.clone() },
        EndOpenCallsRequest { reason: String::new(), ..gone.clone() },
        EndOpenCallsRequest { operator: String::new(), ..gone.clone() },
    ] {
        let status = account.end_open_calls(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // An emergency call only by its name.
    assert_eq!(desk.end(Calls::CallId("help".to_owned())).await.ended_calls, 1);
}

async fn calls_that_the_spend_velocity_cuts_short_are_to_end_when_another_is_refused<L: Ledger>(
    desk: &Desk<L>,
) {
    desk.apply(&document("10", "spend_velocity: { amount: \"0.60\", per: 1h },")).await;
    let minute = AuthorizeCallRequest {
        requested_duration: length(60),
        ..authorize("whole", "carol", "+12065550100")
    };
    assert_eq!(desk.ask(minute).await, Decision::Allowed);
    assert_eq!(desk.authorize("short", "carol", "sbc-1").await, Decision::Allowed);
    desk.authorize("pooled", "alice", "sbc-1").await;
    let (mut watching, standing) = desk.watch("").await;
    assert_eq!(told(&standing), []);
    assert_eq!(desk.authorize("refused", "carol", "sbc-1").await, Decision::FraudSuspected);
    let expected =
        [("short", Kind::EndNow, Why::FraudSuspected), ("whole", Kind::Warn, Why::FraudSuspected)];
    assert_eq!(told(&watching.some(2).await), expected);
}

async fn memory_desk() -> Desk<MemoryLedger> {
    let desk = Desk::open(MemoryLedger::new(ClockOffset::default())).await;
    desk.apply(&document("10", "")).await;
    desk
}

#[tokio::test]
async fn a_thousand_open_calls_are_told_at_once() {
    const MANY: usize = 1_200;
    let desk = memory_desk().await;
    for n in 0..MANY {
        let called = AuthorizeCallRequest {
            requested_duration: length(1),
            ..authorize(&format!("call-{n:04}"), "alice", "+12065550100")
        };
        assert_eq!(desk.ask(called).await, Decision::Allowed);
    }
    let (mut watching, _) = desk.watch("sbc-1").await;
    desk.block("alice").await;
    let mut calls: Vec<_> =
        watching.some(MANY).await.into_iter().map(|directive| directive.call_id).collect();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), MANY);
    let (_, standing) = desk.watch("sbc-1").await;
    assert_eq!(standing.len(), MANY);
}

#[tokio::test]
async fn who_does_not_take_directives_is_cut_off_and_told_again() {
    let desk = memory_desk().await;
    for n in 0..10 {
        desk.authorize(&format!("call-{n}"), "alice", "sbc-1").await;
    }
    let limits = Limits {
        streams: 2,
        interval: Duration::from_millis(5),
        patience: Duration::from_millis(50),
        ahead: 2,
        batches: 2,
    };
    let ledger = desk.running.control().ledger().clone();
    let directives = Directives::new(ledger, limits, || false);
    let tenant = TenantId::new("contoso").unwrap();
    let mut slow = directives.watch(&tenant, "").await.unwrap();
    let mut quick = directives.watch(&tenant, "").await.unwrap();
    assert_eq!(directives.watch(&tenant, "").await.unwrap_err(), WatchError::TooMany(2));
    assert_eq!(slow.recv().await, Some(Told::CaughtUp));
    assert_eq!(quick.recv().await, Some(Told::CaughtUp));
    desk.block("alice").await;
    for _ in 0..10 {
        assert!(matches!(quick.recv().await, Some(Told::Directive(_))));
    }
    // The slow one has not looked for longer than the server waits.
    while !slow.is_closed() {
        tokio::time::sleep(limits.interval).await;
    }
    assert!(matches!(slow.recv().await, Some(Told::Directive(_))));
    assert!(matches!(slow.recv().await, Some(Told::Directive(_))));
    assert_eq!(slow.recv().await, Some(Told::Cut(Cut::TooSlow)));
    assert_eq!(slow.recv().await, None);
    // Its place is free again, and everything that applies is told.
    let mut again = directives.watch(&tenant, "").await.unwrap();
    for _ in 0..10 {
        assert!(matches!(again.recv().await, Some(Told::Directive(_))));
    }
    assert_eq!(again.recv().await, Some(Told::CaughtUp));
    let nobody = TenantId::new("nobody").unwrap();
    drop(quick);
    while let Err(WatchError::TooMany(_)) = directives.watch(&nobody, "").await {
        tokio::time::sleep(limits.interval).await;
    }
    assert_eq!(directives.watch(&nobody, "").await.unwrap_err(), WatchError::NoSuchTenant);
}

#[tokio::test]
async fn a_stream_is_sent_on_when_the_server_drains() {
    let desk = memory_desk().await;
    let (mut watching, _) = desk.watch("").await;
    desk.running.drain().await;
    let ended = watching.0.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let request = |tenant: &str| WatchCallsRequest {
        tenant_id: tenant.to_owned(),
        ..WatchCallsRequest::default()
    };
    let status = desk.calls.clone().watch_calls(request("contoso")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn a_stream_is_only_for_tenants_that_are_known() {
    let desk = memory_desk().await;
    let request = |tenant: &str, trunk: &str| WatchCallsRequest {
        tenant_id: tenant.to_owned(),
        trunk_id: trunk.to_owned(),
    };
    for (request, code) in [
        (request("nobody", ""), Code::NotFound),
        (request("", ""), Code::InvalidArgument),
        (request("contoso", "a\nb"), Code::InvalidArgument),
    ] {
        let status = desk.calls.clone().watch_calls(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
}

/// What it tells of funds waits for nobody; what ends calls does not wait for that.
#[tokio::test]
async fn calls_are_ended_although_the_balance_cannot_be_read() {
    let server = RedisServer::started();
    let desk = Desk::open(server.ledger(&ClockOffset::default()).await).await;
    desk.apply(&document("10", "")).await;
    desk.authorize("a1", "alice", "sbc-1").await;
    let mut plain = server.client().get_connection().expect("redis");
    let _: () = ::redis::Commands::hset(&mut plain, "tg:{contoso}:lots", "l:broken", b"\xc1")
        .expect("a broken lot");
    let (mut watching, _) = desk.watch("sbc-1").await;
    desk.block("alice").await;
    assert_eq!(told(&[watching.next().await]), [("a1", Kind::EndNow, Why::PayerBlocked)]);
}

#[tokio::test]
async fn a_directive_reaches_whichever_sidecar_the_switch_is_connected_to() {
    let redis = RedisServer::started();
    let ours = Sidecar::on(&redis.url());
    let other = Sidecar::on(&redis.url());
    ours.set_up(&document("0.25", ""));
    let mut calls = ours.calls().await;
    for call in ["a", "b"] {
        let request = authorize(call, if call == "a" { "carol" } else { "alice" }, "+12065550100");
        assert!(calls.authorize_call(request).await.unwrap().into_inner().allowed);
        calls.extend_call(extend(call, 5, 1)).await.unwrap();
    }
    let (mut watching, _) = Watching::open(&calls, "sbc-1").await;
    let contoso = ["--tenant", "contoso"];
    let purchase = PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: "po-2".to_owned(),
        amount: usd("5"),
        ..PurchaseCreditsRequest::default()
    };
    other.account().await.purchase_credits(purchase).await.unwrap();
    assert_eq!(told(&[watching.next().await]), [("a", Kind::Refresh, Why::FundsArrived)]);
    let by = ["--reason", "test", "--operator", "olga"];
    let ended = other.json(&[&["calls", "end", "--call-id", "b"][..], &contoso, &by].concat());
    assert_eq!(ended["endedCalls"], 1);
    let end_b = ("b", Kind::EndNow, Why::Operator);
    assert_eq!(told(&[watching.next().await]), [end_b]);

    // The stream is lost with its sidecar; the next one tells what still applies.
    drop(ours);
    let mut calls = other.calls().await;
    let (mut watching, standing) = Watching::open(&calls, "sbc-1").await;
    assert_eq!(told(&standing), [("a", Kind::Refresh, Why::FundsArrived), end_b]);
    let extended = calls.extend_call(extend("a", 10, 2)).await.unwrap().into_inner();
    assert!(extended.grant.unwrap().granted_duration.unwrap().seconds > 120);
    other.json(&[&["calls", "end", "--all"][..], &contoso, &by].concat());
    assert_eq!(told(&[watching.next().await]), [("a", Kind::EndNow, Why::Operator)]);
    calls.settle_call(settle("a", 30)).await.unwrap();
    calls.settle_call(settle("b", 30)).await.unwrap();
    other.client(&["audit"]).succeeded();
}
