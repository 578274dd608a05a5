//! Auto-recharge (rules 49 and 50, D16) and the shortfall that a purchase pays (D7): on every ledger, by
//! many callers at once, through gRPC.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tollgate::charging::ids::LotId;
use tollgate::charging::profile::{AutoRecharge, Billing, RechargeOn, TenantState};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::audit::audit;
use tollgate::ledger::state::{EntryKind, MAX_MONEY};
use tollgate::ledger::{
    End, Ending, Ledger, Purchased, RechargeReported, Reply, Snapshot, TenantRecord,
};
use tollgate::proto::v1::report_recharge_request::Outcome;
use tollgate::proto::v1::{
    ApplyRequest, AutoRecharge as AutoRechargeMessage, CreditPurchase, Event, EventType,
    GetBalanceRequest, GetBalanceResponse, Money, Organisation, PurchaseCreditsRequest,
    RechargeFailed, RechargeSucceeded, ReportRechargeRequest, Tenant, WatchEventsRequest,
};
use tonic::Code;

use crate::server::Server;
use crate::support::process::Sidecar;
use crate::support::{
    DAY, ENDED_RETENTION, NOON, Stage, UNIT, call_id, credits, memory, request, tenant_record,
};

crate::on_every_ledger! {
    at_the_trigger_nothing_is_asked_for_and_below_it_once
    held_money_counts_unless_what_is_available_alone_is_judged
    a_failed_recharge_is_waited_out_longer_each_time
    a_day_of_utc_asks_for_no_more_than_its_cap
    a_success_adds_its_lot_once_and_a_late_one_too
    a_success_that_is_not_enough_asks_again
    a_request_is_answered_whatever_becomes_of_the_setting
    nobody_pays_ahead_for_calls_that_cannot_be_made
    a_lot_that_lapses_and_a_new_setting_ask_too
    a_success_beyond_what_can_be_counted_is_told_and_may_be_repeated
    the_next_purchase_pays_what_settled_calls_fell_short_of
    a_recharge_pays_what_is_owed_and_an_expired_call_owes_nothing
    a_setting_that_is_off_counts_what_is_owed_and_collects_nothing
    a_correction_changes_what_is_owed_and_what_is_paid_stays_paid
    a_correction_that_crosses_the_trigger_asks_for_money
}

/// 0.15 a call of a minute.
const CALL: i64 = 150_000;

fn recharge(trigger: i64, amount: i64, daily_cap: Option<i64>) -> AutoRecharge {
    AutoRecharge {
        trigger: Micros(trigger),
        amount: Micros(amount),
        daily_cap: daily_cap.map(Micros),
        recharge_on: RechargeOn::Spent,
    }
}

/// Subjects of the journal's entries of a kind.
async fn told<L: Ledger>(stage: &Stage<L>, kind: EntryKind) -> Vec<String> {
    let journal = stage.snapshot().await.journal;
    journal.into_iter().filter(|entry| entry.kind == kind).map(|entry| entry.subject).collect()
}

async fn asked<L: Ledger>(stage: &Stage<L>) -> Vec<String> {
    told(stage, EntryKind::RechargeRequested).await
}

async fn spend<L: Ledger>(stage: &Stage<L>, call: &str) {
    stage.grant(call, request().money(credits()).lasting(60)).await;
    stage.settled(call, 60).await;
}

async fn available<L: Ledger>(stage: &Stage<L>) -> i64 {
    let balance = stage.ledger.balance(&stage.tenant).await.unwrap().outcome;
    balance.lots.iter().map(|lot| lot.bucket.available()).sum()
}

async fn at_the_trigger_nothing_is_asked_for_and_below_it_once<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT + CALL).await;
    stage.set_recharge(Some(recharge(100 * UNIT, 200 * UNIT, None)), false).await;
    spend(stage, "a").await;
    assert_eq!(available(stage).await, 100 * UNIT);
    assert_eq!(asked(stage).await, Vec::<String>::new(), "exactly the trigger is not below it");
    spend(stage, "b").await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
    let journal = stage.snapshot().await.journal;
    let [cause, request] = &journal[journal.len() - 2..] else { panic!("two entries") };
    assert_eq!((cause.kind, cause.at), (EntryKind::Settled, request.at));
    assert_eq!(request.recharge_amount(), Some(Micros(200 * UNIT)));
    spend(stage, "c").await;
    stage.pass(10 * DAY.0);
    stage.sweep().await;
    assert_eq!(asked(stage).await.len(), 1, "none while one is in flight");
    assert_eq!(stage.report("recharge.1", Ok(())).await, RechargeReported::Applied);
    assert_eq!(available(stage).await, 300 * UNIT - 2 * CALL);
    let lot = stage.lot("recharge.1").await;
    assert_eq!((lot.funded, lot.starts), (200 * UNIT, stage.now()));
    stage.sweep().await;
    assert_eq!(asked(stage).await.len(), 1, "the balance is above the trigger again");
}

async fn held_money_counts_unless_what_is_available_alone_is_judged<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    stage.set_recharge(Some(recharge(UNIT, UNIT, None)), false).await;
    stage.grant("a", request().money(credits()).lasting(60)).await;
    stage.sweep().await;
    assert_eq!(asked(stage).await, Vec::<String>::new());
    let on_available = AutoRecharge {
        recharge_on: RechargeOn::Available,
        ..recharge(UNIT - 2 * CALL, UNIT, None)
    };
    stage.set_recharge(Some(on_available), false).await;
    stage.grant("b", request().money(credits()).lasting(60)).await;
    assert_eq!(asked(stage).await, Vec::<String>::new(), "exactly the trigger");
    stage.grant("c", request().money(credits()).lasting(60)).await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
    for call in ["a", "b", "c"] {
        stage.released(call).await;
    }
}

async fn a_failed_recharge_is_waited_out_longer_each_time<L: Ledger>(stage: &Stage<L>) {
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), false).await;
    for (n, minutes) in [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440].into_iter().enumerate() {
        let key = format!("recharge.{}", n + 1);
        assert_eq!(asked(stage).await.last(), Some(&key));
        assert_eq!(stage.report(&key, Err("card expired")).await, RechargeReported::Applied);
        let state = stage.ledger.balance(&stage.tenant).await.unwrap().outcome.recharge.unwrap();
        assert_eq!(state.not_before, stage.now().after(Seconds(minutes * 60)));
        stage.pass(minutes * 60 - 1);
        stage.sweep().await;
        assert_eq!(asked(stage).await.len(), n + 1, "{minutes} min");
        stage.pass(1);
        stage.sweep().await;
        assert_eq!(asked(stage).await.len(), n + 2, "{minutes} min");
    }
    let failed = stage.snapshot().await.journal;
    let failed = failed.iter().find(|entry| entry.kind == EntryKind::RechargeFailed).unwrap();
    assert_eq!(failed.report, b"card expired");
    // A success ends the row of failures: the next wait is the first again.
    stage.report("recharge.10", Ok(())).await;
    stage.buy("po-1", CALL).await;
    stage.grant("a", request().money(credits()).lasting(18 * 60)).await;
    stage.settled("a", 18 * 60).await;
    assert_eq!(asked(stage).await.len(), 11);
    stage.report("recharge.11", Err("")).await;
    stage.pass(15 * 60);
    // Not only the sweep looks, any movement of money does.
    spend(stage, "b").await;
    assert_eq!(asked(stage).await.len(), 12);
}

async fn a_day_of_utc_asks_for_no_more_than_its_cap<L: Ledger>(stage: &Stage<L>) {
    let ask = async |n: usize| {
        stage.sweep().await;
        assert_eq!(asked(stage).await.len(), n);
    };
    stage.set_recharge(Some(recharge(1_000 * UNIT, 10 * UNIT, Some(25 * UNIT))), false).await;
    ask(1).await;
    stage.report("recharge.1", Ok(())).await;
    ask(2).await;
    stage.report("recharge.2", Ok(())).await;
    // 20 of 25 are asked for; still below the trigger, but 30 would pass the cap.
    ask(2).await;
    stage.pass(12 * 3600 - 1);
    ask(2).await;
    stage.pass(1);
    ask(3).await;
    // A failure gives its part back.
    stage.report("recharge.3", Err("no")).await;
    stage.pass(900);
    ask(4).await;
    stage.report("recharge.4", Ok(())).await;
    ask(5).await;
    stage.report("recharge.5", Ok(())).await;
    ask(5).await;
    let state = stage.ledger.balance(&stage.tenant).await.unwrap().outcome.recharge.unwrap();
    assert_eq!(state.requested_today(stage.now()), Micros(20 * UNIT));
    // What arrives after all counts again.
    stage.report("recharge.3", Ok(())).await;
    let state = stage.ledger.balance(&stage.tenant).await.unwrap().outcome.recharge.unwrap();
    assert_eq!(state.requested_today(stage.now()), Micros(30 * UNIT));
    ask(5).await;
}

async fn a_success_adds_its_lot_once_and_a_late_one_too<L: Ledger>(stage: &Stage<L>) {
    use RechargeReported::{Applied, NotFound, Replayed, SucceededBefore};
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), false).await;
    stage.buy("po-1", 5 * UNIT).await;
    assert_eq!(stage.report("recharge.2", Ok(())).await, NotFound);
    assert_eq!(stage.report("recharge.2", Err("no")).await, NotFound);
    assert_eq!(stage.report("po-1", Ok(())).await, NotFound, "a purchase is no recharge");
    assert_eq!(stage.report("recharge.1", Err("declined")).await, Applied);
    assert_eq!(stage.report("recharge.1", Err("other words")).await, Replayed);
    assert_eq!(told(stage, EntryKind::RechargeFailed).await, ["recharge.1"]);
    // Money that arrived is never lost.
    assert_eq!(stage.report("recharge.1", Ok(())).await, Applied);
    stage.pass(5);
    assert_eq!(stage.report("recharge.1", Ok(())).await, Replayed);
    assert_eq!(stage.report("recharge.1", Err("after all")).await, SucceededBefore);
    assert_eq!(told(stage, EntryKind::RechargeSucceeded).await, ["recharge.1"]);
    assert_eq!(available(stage).await, 7 * UNIT);
    assert!(stage.snapshot().await.recharges.is_empty());
}

async fn a_success_that_is_not_enough_asks_again<L: Ledger>(stage: &Stage<L>) {
    stage.set_recharge(Some(recharge(5 * UNIT, 2 * UNIT, None)), false).await;
    for n in 1..=3 {
        assert_eq!(asked(stage).await.len(), n);
        stage.report(&format!("recharge.{n}"), Ok(())).await;
    }
    assert_eq!(available(stage).await, 6 * UNIT);
    assert_eq!(asked(stage).await.len(), 3);
}

async fn a_request_is_answered_whatever_becomes_of_the_setting<L: Ledger>(stage: &Stage<L>) {
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), false).await;
    stage.set_recharge(Some(recharge(9 * UNIT, 7 * UNIT, None)), false).await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
    stage.set_recharge(None, false).await;
    assert_eq!(stage.report("recharge.1", Ok(())).await, RechargeReported::Applied);
    assert_eq!(available(stage).await, 2 * UNIT, "what was asked for, not what is set now");
    stage.sweep().await;
    assert_eq!(asked(stage).await.len(), 1);
    stage.set_recharge(Some(recharge(9 * UNIT, 7 * UNIT, None)), false).await;
    assert_eq!(asked(stage).await, ["recharge.1", "recharge.2"], "a key is never used again");
}

async fn nobody_pays_ahead_for_calls_that_cannot_be_made<L: Ledger>(stage: &Stage<L>) {
    let apply = async |state, billing| {
        let mut record: TenantRecord = tenant_record(&stage.tenant, state);
        record.profile.auto_recharge = Some(recharge(UNIT, UNIT, None));
        record.profile.billing = billing;
        stage.ledger.apply_tenant(&stage.tenant, &record, None).await.unwrap();
        stage.sweep().await;
    };
    apply(TenantState::Active, Billing::Postpaid).await;
    apply(TenantState::Suspended, Billing::Prepaid).await;
    apply(TenantState::Removed, Billing::Prepaid).await;
    assert_eq!(stage.snapshot().await.wallet.recharge, None);
    apply(TenantState::Active, Billing::Prepaid).await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
}

async fn a_lot_that_lapses_and_a_new_setting_ask_too<L: Ledger>(stage: &Stage<L>) {
    stage.buy_at("old", 5 * UNIT, Millis(NOON.0 - 364 * 86_400_000)).await;
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), false).await;
    assert_eq!(asked(stage).await, Vec::<String>::new());
    stage.pass(2 * DAY.0);
    stage.sweep().await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
    let journal = stage.snapshot().await.journal;
    let kinds: Vec<_> = journal.iter().rev().take(3).map(|entry| entry.kind).collect();
    use EntryKind::{CreditsDepleted, LotExpired, RechargeRequested};
    assert_eq!(kinds, [RechargeRequested, CreditsDepleted, LotExpired]);
}

async fn a_success_beyond_what_can_be_counted_is_told_and_may_be_repeated<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), false).await;
    stage.buy("po-1", MAX_MONEY.0 - UNIT).await;
    assert_eq!(stage.report("recharge.1", Ok(())).await, RechargeReported::WalletFull);
    assert_eq!(told(stage, EntryKind::RechargeSucceeded).await, Vec::<String>::new());
    stage.grant("a", request().money(credits()).lasting(3600)).await;
    stage.settled("a", 3600).await;
    assert_eq!(stage.report("recharge.1", Ok(())).await, RechargeReported::Applied);
}

/// A call that falls short of `minutes` at 0.10 each.
async fn fall_short<L: Ledger>(stage: &Stage<L>, call: &str, minutes: i64) {
    stage.buy(&format!("for-{call}"), CALL).await;
    stage.grant(call, request().money(credits()).lasting(60)).await;
    let ended = stage.settled(call, 60 + 60 * minutes).await;
    assert_eq!(ended.shortfall_money, Micros(100_000 * minutes));
}

async fn owed<L: Ledger>(stage: &Stage<L>) -> i64 {
    stage.ledger.balance(&stage.tenant).await.unwrap().outcome.owed.0
}

async fn the_next_purchase_pays_what_settled_calls_fell_short_of<L: Ledger>(stage: &Stage<L>) {
    stage.set_recharge(None, true).await;
    fall_short(stage, "a", 7).await;
    assert_eq!(owed(stage).await, 700_000);
    // A purchase that is less than what is owed pays all of itself, and is no live lot.
    assert_eq!(stage.buy("small", 300_000).await, Purchased::Applied);
    assert_eq!((owed(stage).await, available(stage).await), (400_000, 0));
    assert!(stage.snapshot().await.wallet.live.is_empty());
    stage.buy("large", UNIT).await;
    assert_eq!((owed(stage).await, stage.lot("large").await.spent), (0, 400_000));
    assert_eq!(stage.buy("large", UNIT).await, Purchased::Replayed);
    assert_eq!(stage.buy("next", UNIT).await, Purchased::Applied);
    assert_eq!(available(stage).await, 2 * UNIT - 400_000);
    assert_eq!(told(stage, EntryKind::ShortfallCollected).await, ["small", "large"]);
    // A lot whose year is over has nothing to pay with.
    stage.buy_at("lapsed", UNIT, Millis(NOON.0 - 400 * 86_400_000)).await;
    assert_eq!(stage.lot("lapsed").await.spent, 0);
}

async fn a_recharge_pays_what_is_owed_and_an_expired_call_owes_nothing<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.buy("po-1", CALL).await;
    let lost = request().money(credits()).lasting(60);
    stage.grant("a", lost).await;
    stage.extend("a", 180, None, 60).await;
    stage.pass(1_000);
    stage.sweep().await;
    let expired = stage.call("a").await.unwrap();
    assert!(expired.shortfall_money.is_positive());
    assert_eq!(owed(stage).await, 0, "a late report may still change its charge");
    stage.set_recharge(Some(recharge(UNIT, 5 * UNIT, None)), true).await;
    let late = stage.settled("a", 240).await;
    assert_eq!(late.shortfall_money, Micros(300_000));
    assert_eq!(owed(stage).await, 300_000);
    stage.report("recharge.1", Ok(())).await;
    assert_eq!((owed(stage).await, available(stage).await), (0, 5 * UNIT - 300_000));
    let journal = stage.snapshot().await.journal;
    let kinds: Vec<_> = journal.iter().rev().take(2).map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ShortfallCollected, EntryKind::RechargeSucceeded]);
}

async fn a_setting_that_is_off_counts_what_is_owed_and_collects_nothing<L: Ledger>(
    stage: &Stage<L>,
) {
    fall_short(stage, "a", 2).await;
    stage.buy("po-1", UNIT).await;
    assert_eq!((owed(stage).await, available(stage).await), (200_000, UNIT));
    stage.set_recharge(None, true).await;
    assert_eq!(available(stage).await, UNIT, "what is bought already pays nothing");
    stage.buy("po-2", UNIT).await;
    assert_eq!((owed(stage).await, available(stage).await), (0, 2 * UNIT - 200_000));
}

async fn a_correction_changes_what_is_owed_and_what_is_paid_stays_paid<L: Ledger>(
    stage: &Stage<L>,
) {
    fall_short(stage, "a", 7).await;
    // "a" was settled at 480 s, of which one minute was covered.
    stage.adjusted("up", "a", 540).await;
    assert_eq!(owed(stage).await, 800_000);
    stage.adjusted("down", "a", 360).await;
    assert_eq!(owed(stage).await, 500_000);
    stage.set_recharge(None, true).await;
    stage.buy("po-2", 300_000).await;
    assert_eq!(owed(stage).await, 200_000);
    stage.adjusted("less", "a", 60).await;
    assert_eq!(owed(stage).await, 0);
    assert_eq!(stage.lot("po-2").await.spent, 300_000);
}

async fn a_correction_that_crosses_the_trigger_asks_for_money<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 3 * UNIT).await;
    stage.set_recharge(Some(recharge(2 * UNIT, 5 * UNIT, None)), false).await;
    stage.adjust_lot("a-1", "po-1", -UNIT).await;
    assert_eq!(told(stage, EntryKind::RechargeRequested).await, [""; 0]);
    stage.adjust_lot("a-2", "po-1", -1).await;
    assert_eq!(told(stage, EntryKind::RechargeRequested).await, ["recharge.1"]);
}

/// Calls that hold all that is above the trigger end at once; one of them crosses it, whichever comes first.
async fn ends_at_once<L: Ledger>(ledgers: Vec<L>, stage: &Stage<L>) {
    const CALLS: usize = 24;
    stage.buy("po-1", 10 * UNIT + 3 * CALL).await;
    stage.set_recharge(Some(recharge(10 * UNIT, 2 * UNIT, None)), false).await;
    for n in 0..CALLS {
        stage.grant(&format!("c-{n}"), request().money(credits()).lasting(60)).await;
    }
    let (ledgers, together) = (Arc::new(ledgers), Arc::new(Barrier::new(CALLS)));
    let mut ends = JoinSet::new();
    for n in 0..CALLS {
        let (ledgers, together) = (ledgers.clone(), together.clone());
        let end = End {
            tenant: stage.tenant.clone(),
            call: call_id(&format!("c-{n}")),
            how: Ending::Settle(Seconds(60)),
            report: vec![],
            ended_retention: ENDED_RETENTION,
            has_grant: false,
        };
        ends.spawn(async move {
            together.wait().await;
            ledgers[n % ledgers.len()].end(&end).await.unwrap();
        });
    }
    ends.join_all().await;
    assert_eq!(asked(stage).await, ["recharge.1"]);
    assert_eq!(available(stage).await, 10 * UNIT + 3 * CALL - 24 * CALL);
    stage.assert_audit_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_calls_that_end_at_once_one_asks_for_a_recharge() {
    for _ in 0..10 {
        let stage = Stage::open(crate::support::redis).await;
        let mut ledgers = vec![];
        for _ in 0..4 {
            ledgers.push(crate::support::redis(stage.clock.clone()).await.ledger);
        }
        ends_at_once(ledgers, &stage).await;
    }
}

/// Exactly these invariants are found broken by `tamper`.
async fn check_audit(expected: u8, tamper: impl FnOnce(&mut Snapshot)) {
    let stage = Stage::open(memory).await;
    fall_short(&stage, "a", 9).await;
    stage.set_recharge(Some(recharge(UNIT, 2 * UNIT, None)), true).await;
    stage.report("recharge.1", Err("no")).await;
    stage.pass(900);
    stage.sweep().await;
    stage.report("recharge.2", Ok(())).await;
    stage.grant("b", request().money(credits()).lasting(60)).await;
    assert!(stage.settled("b", 1_800).await.shortfall_money.is_positive());
    let Reply { now, outcome: good } = stage.ledger.snapshot(&stage.tenant).await.unwrap();
    assert_eq!(audit(&stage.tenant, now, DAY, &good).findings, []);
    let mut bad = good.clone();
    tamper(&mut bad);
    assert_ne!(bad, good, "nothing was changed");
    let findings = audit(&stage.tenant, now, DAY, &bad).findings;
    let found: BTreeSet<u8> = findings.iter().map(|finding| finding.invariant).collect();
    assert_eq!(found, BTreeSet::from([expected]), "{findings:#?}");
}

#[tokio::test]
async fn the_audit_replays_recharges_and_what_is_owed() {
    let entry = |s: &Snapshot, kind| s.journal.iter().position(|e| e.kind == kind).unwrap();
    check_audit(18, |s| s.wallet.owed += Micros(1)).await;
    check_audit(17, |s| s.wallet.recharge.as_mut().unwrap().failures += 1).await;
    check_audit(17, |s| s.wallet.recharge.as_mut().unwrap().in_flight = false).await;
    check_audit(17, |s| s.recharges[0].1.amount += Micros(1)).await;
    check_audit(17, |s| s.recharges.clear()).await;
    check_audit(16, |s| {
        let again = s.journal[entry(s, EntryKind::RechargeSucceeded)].clone();
        s.journal.push(again);
    })
    .await;
}

// Through gRPC.

fn usd(amount: &str) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), amount: amount.to_owned() })
}

fn fabrikam(credits: Vec<CreditPurchase>) -> ApplyRequest {
    let tenant = Tenant {
        id: "fabrikam".to_owned(),
        currency: "USD".to_owned(),
        auto_recharge: Some(AutoRechargeMessage {
            trigger: "100".to_owned(),
            amount: "200".to_owned(),
            daily_cap: Some("1000".to_owned()),
            recharge_on: "available".to_owned(),
        }),
        deduct_shortfall: true,
        credits,
        ..Tenant::default()
    };
    ApplyRequest { organisation: Some(Organisation { tenants: vec![tenant] }) }
}

fn report(key: &str, outcome: Option<Outcome>) -> ReportRechargeRequest {
    ReportRechargeRequest { tenant_id: "fabrikam".to_owned(), key: key.to_owned(), outcome }
}

fn failed(reason: &str) -> Option<Outcome> {
    Some(Outcome::Failed(RechargeFailed { reason: reason.to_owned() }))
}

fn succeeded() -> Option<Outcome> {
    Some(Outcome::Succeeded(RechargeSucceeded {}))
}

async fn events(server: &Server) -> Vec<Event> {
    let request = WatchEventsRequest {
        tenant_id: "fabrikam".to_owned(),
        until_now: true,
        ..WatchEventsRequest::default()
    };
    let mut stream = server.account().await.watch_events(request).await.unwrap().into_inner();
    let mut events = vec![];
    while let Some(message) = stream.message().await.unwrap() {
        events.push(message.event.unwrap());
    }
    events
}

async fn balance(server: &Server) -> GetBalanceResponse {
    let request = GetBalanceRequest { tenant_id: "fabrikam".to_owned() };
    server.account().await.get_balance(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_payment_system_hears_a_request_and_answers_it() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let applied = account.apply(fabrikam(vec![])).await.unwrap().into_inner();
    assert!(!applied.warnings.iter().any(|w| w.contains("auto_recharge")), "{applied:?}");
    let heard = events(&server).await;
    let asked = &heard[0];
    assert_eq!((asked.r#type(), &asked.amount), (EventType::RechargeRequested, &usd("200")));
    let key = asked.bucket_id.clone();
    assert_eq!((key.as_str(), asked.call_id.as_str()), ("recharge.1", ""));
    let state = balance(&server).await.recharge.unwrap();
    assert!(state.enabled && state.requested_at.is_some());
    assert_eq!((state.in_flight_key, state.in_flight_amount), (key.clone(), usd("200")));
    assert_eq!((state.requested_today, state.daily_cap), (usd("200"), usd("1000")));

    for replayed in [false, true] {
        let answer = account.report_recharge(report(&key, failed("card expired"))).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!((answer.replayed, &answer.lot), (replayed, &None));
        let state = answer.recharge.unwrap();
        assert_eq!((state.failure_count, state.requested_today), (1, usd("0")));
        assert!(state.next_attempt_at.is_some() && state.in_flight_key.is_empty());
    }
    for replayed in [false, true] {
        let answer = account.report_recharge(report(&key, succeeded())).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.replayed, replayed);
        assert_eq!(answer.lot.unwrap().amount, usd("200"));
        let credits = answer.credits.unwrap();
        assert_eq!((credits.available, credits.owed), (usd("200"), usd("0")));
    }
    let status = account.report_recharge(report(&key, failed("no"))).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let status = account.report_recharge(report("recharge.2", succeeded())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    for bad in [report(&key, None), report("", succeeded()), report(&key, failed("a\nb"))] {
        let status = account.report_recharge(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let heard = events(&server).await;
    let told: Vec<_> =
        heard.iter().map(|e| (e.r#type(), e.amount.clone(), e.reason.as_str())).collect();
    let expected = [
        (EventType::RechargeRequested, usd("200"), ""),
        (EventType::RechargeFailed, usd("200"), "card expired"),
        (EventType::RechargeSucceeded, usd("200"), ""),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn the_keys_of_recharges_are_not_for_purchases_by_hand() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let purchase = PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: "recharge.7".to_owned(),
        amount: usd("5"),
        ..PurchaseCreditsRequest::default()
    };
    let status = account.purchase_credits(purchase).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ReportRecharge"), "{status}");
    let bought = |key: &str| CreditPurchase {
        key: key.to_owned(),
        amount: "500".to_owned(),
        purchased_at: Some(std::time::SystemTime::now().into()),
        payment: None,
    };
    let status = account.apply(fabrikam(vec![bought("recharge.7")])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("credits[0].key"), "{status}");
    // A document that brings its own credits asks for no more.
    account.apply(fabrikam(vec![bought("recharge.x")])).await.unwrap();
    assert_eq!(events(&server).await, []);
    assert!(balance(&server).await.recharge.unwrap().in_flight_key.is_empty());
    assert!(LotId::new("recharge.7").unwrap().is_recharge());
}

#[test]
fn a_recharge_is_reported_from_the_command_line() {
    let sidecar = Sidecar::ready(&[]);
    sidecar.set_up(
        "tenants:\n  - id: fabrikam\n    currency: USD\n    auto_recharge: { trigger: 5, amount: 20 }\n",
    );
    let tenant = ["--tenant", "fabrikam"];
    let events = sidecar.client(&[&["events"][..], &tenant].concat()).succeeded();
    assert!(events.contains("RECHARGE_REQUESTED  recharge.1  20 USD"), "{events}");
    let balance = sidecar.client(&[&["balance"][..], &tenant].concat()).succeeded();
    assert!(balance.contains("recharge.1: 20 USD since "), "{balance}");
    let key = ["recharge", "--tenant", "fabrikam", "--key", "recharge.1"];
    let failed = sidecar.client(&[&key[..], &["--failed", "card expired"]].concat()).succeeded();
    assert!(failed.contains("1 in a row; next attempt at "), "{failed}");
    let said = sidecar.client(&[&key[..], &["--succeeded"]].concat()).succeeded();
    assert!(said.starts_with("recorded\n") && said.contains("recharge.1"), "{said}");
    let again = sidecar.json(&[&key[..], &["--succeeded"]].concat());
    assert_eq!(again["replayed"], true, "{again:#}");
    assert_eq!(again["credits"]["available"]["amount"], "20", "{again:#}");
    sidecar.client(&["audit"]).succeeded();
}
