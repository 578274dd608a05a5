//! The audit can fail: one thing is changed in a good snapshot, and just that invariant is found.

use std::collections::BTreeSet;

use tollgate::charging::decision::Decision;
use tollgate::charging::ids::LotId;
use tollgate::charging::profile::{PayerState, SpendVelocity};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::audit::{Report, audit};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::{BlockNote, BlockedBy, Bucket, Call, Entry, EntryKind, PayerAccount};
use tollgate::ledger::{Ledger, MoneyOffer, SetBlock, Snapshot};

use crate::support::{DAY, DOMESTIC, NOON, Stage, credits, memory, payer, request};

/// A tenant with a call in every state, two lots (one lapsed while held), a pool, a shortfall, and
/// parked usage.
async fn good() -> (Stage<MemoryLedger>, Snapshot) {
    let stage = Stage::open(memory).await;
    stage.set_pool(DOMESTIC, 600).await;
    stage.buy_at("old", 300_000, Millis(NOON.0 - 365 * 86_400_000 + 1_000)).await;
    stage.buy("new", 5_000_000).await;
    let ask = || request().pool(DOMESTIC).money(credits());
    stage.grant("settled", ask().money(credits()).lasting(120)).await;
    stage.settled("settled", 61).await;
    stage.grant("pays", request().money(credits()).lasting(120)).await;
    stage.pass(2);
    stage.settled("pays", 50).await;
    stage.adjust_lot("goodwill", "new", 1_000).await;
    stage.adjusted("misread", "pays", 61).await;
    stage.adjusted("rounded", "settled", 70).await;
    stage.sweep().await;
    stage.grant("released", ask()).await;
    stage.released("released").await;
    stage.grant("expired", ask()).await;
    stage.extended("expired", 30, 60).await;
    stage.pass(400);
    stage.sweep().await;
    stage.refusal("denied", ask().refused(Decision::NotEntitled)).await;
    stage.settle("denied", 20).await;
    stage.settle("unknown", 30).await;
    stage.grant("short", request().pool(DOMESTIC).lasting(60)).await;
    stage.settled("short", 10_000).await;
    stage.grant("ringing", ask().of("bob").lasting(60)).await;
    stage.grant("answered", ask().lasting(120)).await;
    stage.extended("answered", 61, 120).await;
    let snapshot = stage.snapshot().await;
    (stage, snapshot)
}

fn judge(stage: &Stage<MemoryLedger>, snapshot: &Snapshot) -> Report {
    audit(&stage.tenant, stage.now(), DAY, snapshot)
}

/// Exactly the invariant `expected` is found broken by `tamper`.
#[track_caller]
fn check(
    expected: u8,
    (stage, good): &(Stage<MemoryLedger>, Snapshot),
    tamper: impl FnOnce(&mut Snapshot),
) {
    let mut bad = good.clone();
    tamper(&mut bad);
    assert_ne!(bad, *good, "nothing was changed");
    let findings = judge(stage, &bad).findings;
    let found: BTreeSet<u8> = findings.iter().map(|finding| finding.invariant).collect();
    assert_eq!(found, BTreeSet::from([expected]), "{findings:#?}");
}

fn call<'a>(snapshot: &'a mut Snapshot, id: &str) -> &'a mut Call {
    &mut snapshot.calls.iter_mut().find(|(key, _)| key.as_str() == id).unwrap().1
}

fn lot<'a>(snapshot: &'a mut Snapshot, key: &str) -> &'a mut Bucket {
    &mut snapshot.lots.iter_mut().find(|lot| lot.key.as_str() == key).unwrap().bucket
}

fn pool(snapshot: &mut Snapshot) -> &mut Bucket {
    &mut snapshot.pools[0].1
}

fn entry<'a>(snapshot: &'a mut Snapshot, kind: EntryKind, subject: &str) -> &'a mut Entry {
    let mut journal = snapshot.journal.iter_mut();
    journal.find(|entry| entry.kind == kind && entry.subject == subject).unwrap()
}

#[tokio::test]
async fn a_good_ledger_has_no_findings_and_lists_what_was_not_paid() {
    let (stage, snapshot) = good().await;
    let report = judge(&stage, &snapshot);
    assert_eq!(report.findings, []);
    assert_eq!(report.checked.calls, snapshot.calls.len());
    assert_eq!((report.checked.buckets, report.checked.payers), (3, 3));
    assert_eq!((report.listed.shortfalls, report.listed.parked_calls), (1, 2));
    assert_eq!(report.listed.parked, Seconds(50));
    assert!(report.listed.shortfall_duration > Seconds(9_000));
}

#[tokio::test]
async fn invariant_1_no_term_is_negative_and_pools_do_not_lapse() {
    let good = good().await;
    check(1, &good, |s| lot(s, "new").adjusted = -4_999_999);
    check(1, &good, |s| pool(s).funded = -1);
    // A pool may shrink below what is held and spent, and grow again (D9).
    let mut shrunk = good.1.clone();
    pool(&mut shrunk).funded = 0;
    assert_eq!(judge(&good.0, &shrunk).findings, []);
}

/// A post-paid tenant with a spend velocity, with an open call and a settled one.
async fn post_paid() -> (Stage<MemoryLedger>, Snapshot) {
    let stage = Stage::open(memory).await;
    let velocity = SpendVelocity { amount: Micros(5_000_000), per: Seconds(3_600) };
    let money = MoneyOffer { overage: true, velocity: Some(velocity), ..credits() };
    stage.buy("po-1", 200_000).await;
    stage.grant("settled", request().money(money)).await;
    stage.settled("settled", 61).await;
    stage.grant("open", request().money(money)).await;
    let snapshot = stage.snapshot().await;
    (stage, snapshot)
}

#[tokio::test]
async fn overage_is_funded_by_what_it_pays_and_pays_where_it_may() {
    let good = post_paid().await;
    assert_eq!(judge(&good.0, &good.1).findings, []);
    let month = "overage:2026-11";
    check(17, &good, |s| {
        lot(s, month).funded += 5;
        lot(s, month).adjusted -= 5;
    });
    check(17, &good, |s| s.wallet.live.insert(0, LotId::overage("2026-11")));
    check(4, &good, |s| call(s, "open").money.as_mut().unwrap().overage = false);
    check(4, &good, |s| call(s, "settled").money.as_mut().unwrap().lots.reverse());
    check(1, &good, |s| {
        let mut postings = s.journal.iter_mut().flat_map(|entry| &mut entry.postings);
        let opened = postings.find(|posting| posting.bucket == format!("l:{month}")).unwrap();
        opened.funded += 5;
        let mut postings = s.journal.iter_mut().rev().flat_map(|entry| &mut entry.postings);
        let last = postings.find(|posting| posting.bucket == format!("l:{month}")).unwrap();
        last.funded -= 5;
    });
}

#[tokio::test]
async fn the_spend_velocity_counts_its_calls_and_no_more_than_the_journal() {
    let good = post_paid().await;
    let slot = |s: &mut Snapshot, by: i64| s.ring.slots[0].money += Micros(by);
    check(1, &good, |s| slot(s, -1));
    // A forgotten call may have committed it, as long as the journal shows so much.
    let mut forgotten = good.1.clone();
    slot(&mut forgotten, 1);
    assert_eq!(judge(&good.0, &forgotten).findings, []);
    check(17, &good, |s| slot(s, 1_000_000));
    check(17, &good, |s| s.ring.slots.insert(0, s.ring.slots[0]));
    check(1, &good, |s| {
        let line = call(s, "open").money.as_mut().unwrap().velocity.as_mut().unwrap();
        line.slots[0].money = Micros(-1);
    });
}

#[tokio::test]
async fn invariant_2_held_is_the_sum_of_the_open_holds() {
    let good = good().await;
    check(2, &good, |s| pool(s).held += 60);
    check(2, &good, |s| pool(s).holds += 1);
    check(2, &good, |s| lot(s, "new").holds += 1);
    check(2, &good, |s| s.wallet.holds += 1);
    check(2, &good, |s| call(s, "ringing").pools[0].held += Seconds(60));
    check(2, &good, |s| {
        let (_, alice) = s.payers.iter_mut().find(|(id, _)| id.as_str() == "alice").unwrap();
        alice.held += Micros(1);
    });
}

#[tokio::test]
async fn invariant_3_spent_is_the_sum_of_the_charges() {
    let good = good().await;
    check(3, &good, |s| pool(s).spent += 60);
    check(3, &good, |s| lot(s, "new").spent += 1);
    check(3, &good, |s| {
        let (_, alice) = s.payers.iter_mut().find(|(id, _)| id.as_str() == "alice").unwrap();
        alice.spent = Micros::ZERO;
    });
}

#[tokio::test]
async fn invariant_4_nothing_is_held_outside_a_bucket_s_validity() {
    let good = good().await;
    let before = good.0.month().starts.0 - 1;
    check(4, &good, |s| entry(s, EntryKind::Authorized, "settled").at = Millis(before));
    let after = good.0.month().ends;
    check(4, &good, |s| entry(s, EntryKind::Authorized, "settled").at = after);
    // An extension of an old call on last month's pool is lawful (D3); one on a lapsed lot is not.
    let mut late = good.1.clone();
    entry(&mut late, EntryKind::Extended, "answered").at = after;
    assert_eq!(judge(&good.0, &late).findings, []);
    check(4, &good, |s| entry(s, EntryKind::Settled, "pays").at = NOON);
    check(4, &good, |s| entry(s, EntryKind::LotExpired, "old").at = NOON);
    check(4, &good, |s| entry(s, EntryKind::Authorized, "pays").at = NOON.after(Seconds(1)));
}

#[tokio::test]
async fn invariant_6_a_call_ends_once() {
    let good = good().await;
    for kind in [EntryKind::Settled, EntryKind::SettledLate, EntryKind::Released] {
        check(6, &good, |s| {
            let mut again = entry(s, EntryKind::Settled, "settled").clone();
            again.kind = kind;
            again.postings.clear();
            s.journal.push(again);
        });
    }
}

#[tokio::test]
async fn invariant_7_a_charge_is_what_the_frozen_rate_and_the_usage_make_it() {
    let good = good().await;
    check(7, &good, |s| call(s, "pays").money_duration += Seconds(60));
    check(7, &good, |s| {
        call(s, "pays").money.as_mut().unwrap().tariff.rate_per_minute = Micros(100_001);
    });
    check(7, &good, |s| call(s, "settled").used = Seconds(500));
    check(7, &good, |s| call(s, "settled").pools[0].increment = Seconds(90));
    check(7, &good, |s| call(s, "settled").terms.free = true);
}

#[tokio::test]
async fn invariant_9_a_call_never_answered_is_not_charged() {
    let good = good().await;
    check(9, &good, |s| call(s, "released").money_duration = Seconds(60));
    // Charged without a fault anywhere else: the pool, the line and the journal agree.
    check(9, &good, |s| {
        pool(s).spent += 60;
        call(s, "released").pools[0].spent += Seconds(60);
        entry(s, EntryKind::Released, "released").postings[0].spent += 60;
    });
}

#[tokio::test]
async fn invariant_10_usage_never_falls() {
    let good = good().await;
    check(10, &good, |s| call(s, "answered").used = Seconds(60));
    check(10, &good, |s| entry(s, EntryKind::Extended, "expired").used = Seconds(31));
}

#[tokio::test]
async fn invariant_11_states_move_along_the_table() {
    let good = good().await;
    check(11, &good, |s| {
        let mut extended = entry(s, EntryKind::Extended, "answered").clone();
        extended.subject = "settled".to_owned();
        extended.postings.clear();
        s.journal.push(extended);
    });
    check(11, &good, |s| {
        s.calls.retain(|(id, _)| id.as_str() != "settled");
        s.journal.retain(|e| !(e.subject == "released" && e.kind == EntryKind::Authorized));
        s.tenant.decisions -= 1;
        // Without its authorize the release has nothing to give back.
        for e in &mut s.journal {
            if e.subject == "released" {
                e.postings.clear();
            }
        }
    });
    check(11, &good, |s| {
        call(s, "settled").state = tollgate::ledger::state::CallState::Expired;
    });
}

#[tokio::test]
async fn invariant_12_every_open_call_has_a_deadline_that_is_kept() {
    let good = good().await;
    check(12, &good, |s| {
        s.deadlines.pop();
    });
    check(12, &good, |s| s.deadlines[0].1 = Millis(1));
    check(12, &good, |s| {
        let ghost = (crate::support::call_id("ghost"), NOON);
        s.deadlines.push(ghost);
    });
    let late = audit(&good.0.tenant, good.0.now().after(DAY), Seconds(60), &good.1);
    assert!(late.findings.iter().all(|finding| finding.invariant == 12));
    assert_eq!(late.findings.len(), 2, "{:#?}", late.findings);
}

#[tokio::test]
async fn invariant_13_concurrency_is_the_number_of_open_holds() {
    let good = good().await;
    check(13, &good, |s| s.tenant.open += 1);
    check(13, &good, |s| s.payers[0].1.open -= 1);
    check(13, &good, |s| call(s, "ringing").terms.counted = false);
}

#[tokio::test]
async fn invariant_14_every_decision_has_a_record() {
    let good = good().await;
    check(14, &good, |s| s.tenant.decisions += 1);
}

#[tokio::test]
async fn invariant_15_a_decision_never_changes() {
    let good = good().await;
    check(15, &good, |s| call(s, "settled").decision = Some(Decision::AllowedFree));
    check(15, &good, |s| call(s, "denied").decision = Some(Decision::PolicyDenied));
}

#[tokio::test]
async fn invariant_16_a_purchase_is_applied_once() {
    let good = good().await;
    check(16, &good, |s| {
        let again = entry(s, EntryKind::Purchased, "new").clone();
        s.journal.push(again);
    });
}

#[tokio::test]
async fn invariant_17_the_journal_replayed_gives_the_live_state() {
    let good = good().await;
    check(17, &good, |s| lot(s, "new").funded += 1);
    check(17, &good, |s| lot(s, "old").expired -= 1);
    check(17, &good, |s| s.wallet.live.clear());
    check(17, &good, |s| s.wallet.live.push(LotId::new("ghost").unwrap()));
    check(17, &good, |s| s.wallet.live.push(LotId::new("new").unwrap()));
    check(17, &good, |s| s.wallet.live.insert(0, LotId::new("old").unwrap()));
}

#[tokio::test]
async fn invariant_18_shortfalls_and_parked_usage_reconcile() {
    let good = good().await;
    check(18, &good, |s| call(s, "denied").parked += Seconds(1));
    check(18, &good, |s| call(s, "unknown").parked += Seconds(1));
    check(18, &good, |s| entry(s, EntryKind::Settled, "short").shortfall_money = Micros(5));
}

#[tokio::test]
async fn corrections_are_told_once_refer_to_a_settled_call_and_move_what_they_name() {
    let good = good().await;
    assert_eq!(judge(&good.0, &good.1).listed.adjustments, 3);
    check(17, &good, |s| lot(s, "new").adjusted += 1);
    check(18, &good, |s| {
        let place = s.journal.iter().position(|entry| entry.subject == "l:new").unwrap();
        s.journal.remove(place);
        lot(s, "new").adjusted = 0;
    });
    check(16, &good, |s| drop(s.adjustments.remove(0)));
    check(16, &good, |s| s.adjustments.retain(|(key, _)| key.as_str() != "misread"));
    // Before the call was settled.
    check(6, &good, |s| {
        let place = |s: &Snapshot, kind| {
            s.journal.iter().position(|e| e.kind == kind && e.subject == "settled").unwrap()
        };
        let (settled, adjusted) = (place(s, EntryKind::Settled), place(s, EntryKind::Adjusted));
        let entry = s.journal.remove(adjusted);
        assert_eq!(entry.postings, [], "one more second of the same minute");
        s.journal.insert(settled, entry);
        s.journal[settled + 1].used = Seconds(70);
    });
    // A correction of a balance moves nothing but `adjusted`.
    check(1, &good, |s| {
        let entry = entry(s, EntryKind::Adjusted, "l:new");
        let known = entry.clone();
        entry.subject = "l:old".to_owned();
        let told = entry.clone();
        s.adjustments
            .iter_mut()
            .filter(|(_, a)| a.entry == known)
            .for_each(|(_, a)| a.entry = told.clone());
    });
}

#[tokio::test]
async fn invariant_17_the_blocks_that_stand_are_those_that_the_journal_tells() {
    let (stage, _) = good().await;
    let set = async |name: &str, blocked| {
        let note = BlockNote { reason: "premium calls".to_owned(), operator: "olga".to_owned() };
        let tenant = stage.tenant.clone();
        let command = SetBlock { tenant, payer: payer(name), blocked, note };
        stage.ledger.set_block(&command).await.unwrap();
    };
    set("alice", true).await;
    set("alice", false).await;
    set("alice", true).await;
    stage.set_payer("bob", PayerState::Blocked, &[]).await;
    let snapshot = stage.snapshot().await;
    let good = (stage, snapshot);
    assert_eq!(judge(&good.0, &good.1).findings, []);
    assert_eq!(good.1.blocks.len(), 2);
    fn account<'a>(snapshot: &'a mut Snapshot, name: &str) -> &'a mut PayerAccount {
        &mut snapshot.payers.iter_mut().find(|(id, _)| id.as_str() == name).unwrap().1
    }
    check(17, &good, |s| s.blocks[0].2.since.0 += 1);
    check(17, &good, |s| s.blocks[0].2.reason.clear());
    check(17, &good, |s| s.blocks.truncate(1));
    check(17, &good, |s| s.blocks[1].1 = BlockedBy::Operator);
    check(17, &good, |s| account(s, "alice").barred = false);
    check(17, &good, |s| account(s, "alice").blocked = true);
    check(17, &good, |s| account(s, "bob").blocked = false);
    check(17, &good, |s| {
        s.journal.retain(|entry| entry.kind != EntryKind::PayerUnblocked);
    });
    check(17, &good, |s| {
        let block = s.journal.iter().find(|e| e.kind == EntryKind::PayerUnblocked).unwrap().clone();
        s.journal.push(block);
    });
}
