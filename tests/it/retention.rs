//! Retention and erasure: what every ledger keeps when its journal is rewritten, and what the program says.

use std::sync::Arc;
use std::time::Instant;

use tollgate::administration::Administration;
use tollgate::charging::decision::Decision;
use tollgate::charging::profile::{AutoRecharge, PayerState, RechargeOn, SpendVelocity};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::credit_control::answer::CallContext;
use tollgate::credit_control::erasure::{ErasureNote, Whose, erase_entry};
use tollgate::ledger::audit::audit;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::rewriting::{
    Plan, READERS_WAITED_FOR, RewriteError, Rewritten, rewrite, unread_since,
};
use tollgate::ledger::state::{BlockNote, BlockedBy, Entry, EntryKind, Opening};
use tollgate::ledger::{
    Adjusted, BlockSet, ClockOffset, Ending, FinishRewrite, FinishedRewrite, Ledger, MoneyOffer,
    MoveReader, Moved, Purchased, RechargeReported, SetBlock, Snapshot, TakeReader,
};
use tollgate::organisation;
use tollgate::proto::v1::{
    AdjustSettlementRequest, BlockUserRequest, EraseNumbersRequest, ExportUsageRequest,
    ListAdjustmentsRequest, ListBlockedUsersRequest, ListDecisionsRequest, WatchEventsRequest,
};
use tonic::Code;

use crate::server::Server;
use crate::support::messages::{authorize, settle};
use crate::support::redis::RedisServer;
use crate::support::{
    self, DAY, DOMESTIC, ENDED_RETENTION, NEVER_OVERDUE, Opened, Stage, UNIT, credits, request,
};

crate::on_every_ledger! {
    trimmed_entries_are_replaced_by_openings_that_add_up_to_the_same
    what_is_trimmed_twice_is_counted_once
    a_call_that_goes_on_is_trimmed_whole_or_not_at_all
    a_reader_who_missed_entries_meets_an_opening_and_goes_on
    one_rewriting_at_a_time_and_an_abandoned_one_is_taken_over
    an_erased_call_is_replayed_and_leaves_nothing_behind
    an_empty_journal_can_be_erased
    overage_is_trimmed_to_sums_like_everything_else
    what_counted_for_the_spend_velocity_is_known_after_trimming
    recharges_and_what_is_owed_go_on_after_trimming
    an_earlier_cut_after_a_later_one_trims_nothing
    readers_need_the_journal_from_where_they_are_until_they_are_abandoned
    corrections_are_known_once_their_entries_are_trimmed
    a_correction_after_the_cut_keeps_its_call
    a_correction_long_after_the_end_of_its_call_is_counted_with_it
    what_is_owed_is_right_where_a_corrected_call_stays_between_what_is_trimmed
    blocks_stand_on_once_their_entries_are_trimmed
    more_blocks_than_an_opening_has_are_shared_among_several
    erasing_keeps_corrections_and_blocks
}

type Trimming = Plan<fn(&mut Entry) -> bool, fn(u64) -> Vec<u8>>;

fn trimming(before: Millis) -> Trimming {
    Plan {
        token: "trimmer".to_owned(),
        trim: Some(before),
        erase: |_: &mut Entry| false,
        erase_within: Some((Millis::ZERO, Millis::ZERO)),
        note: |_| vec![1],
        always: false,
    }
}

async fn trim<L: Ledger>(stage: &Stage<L>, before: Millis) -> Rewritten {
    rewrite(&stage.ledger, &stage.tenant, trimming(before)).await.unwrap()
}

fn openings(journal: &[Entry]) -> Vec<Opening> {
    let openings = journal.iter().filter(|entry| entry.kind == EntryKind::Opening);
    openings.map(|entry| Opening::decode(&entry.context).unwrap()).collect()
}

/// Calls with every kind of end, of which nothing is kept but the journal.
async fn some_past<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.buy("po-1", 10 * UNIT).await;
    stage.buy("nothing", 0).await;
    stage.grant("settled", request().pool(DOMESTIC).money(credits())).await;
    stage.settled("settled", 61).await;
    stage.grant("released", request().money(credits())).await;
    stage.released("released").await;
    stage.grant("expired", request().pool(DOMESTIC)).await;
    stage.extended("expired", 30, 60).await;
    stage.settle("unknown", 30).await;
    stage.grant("short", request().pool(DOMESTIC).lasting(60)).await;
    stage.settled("short", 10_000).await;
    stage.pass(400);
    stage.sweep().await;
    stage.pass(2 * DAY.0);
    stage.sweep().await;
}

async fn trimmed_entries_are_replaced_by_openings_that_add_up_to_the_same<L: Ledger>(
    stage: &Stage<L>,
) {
    some_past(stage).await;
    let before = stage.snapshot().await;
    let listed = stage.audit().await.listed;
    let done = trim(stage, stage.now()).await;
    let entries = before.journal.len() as u64;
    assert_eq!(done, Rewritten { trimmed: entries, openings: 1, erased: 0 });
    let after = stage.snapshot().await;
    let opening = openings(&after.journal)[0].clone();
    let counts = (opening.until, opening.entries as u64, opening.decisions);
    assert_eq!(counts, (stage.now(), entries, before.tenant.decisions));
    assert_eq!((after.pools, after.lots), (before.pools, before.lots));
    let report = stage.audit().await;
    assert_eq!((report.findings, report.listed), (vec![], listed));
    assert_eq!((listed.shortfalls, listed.parked_calls), (1, 1));
    // A purchase is still known to have been applied, also one of nothing.
    for lot in ["po-1", "nothing"] {
        let mut again = stage.snapshot().await;
        let purchase = Entry { kind: EntryKind::Purchased, ..again.journal[0].clone() };
        again.journal.push(Entry { subject: lot.to_owned(), postings: vec![], ..purchase });
        let found = audit(&stage.tenant, stage.now(), NEVER_OVERDUE, &again).findings;
        assert!(found.iter().any(|f| f.invariant == 16 && f.key == lot), "{found:?}");
    }
    // A wrong sum is found.
    let mut wrong = stage.snapshot().await;
    wrong.journal[0].postings[0].spent += 1;
    let found = audit(&stage.tenant, stage.now(), NEVER_OVERDUE, &wrong).findings;
    assert!(!found.is_empty());
    stage.grant("next", request().pool(DOMESTIC).money(credits())).await;
    stage.settled("next", 61).await;
}

async fn what_is_trimmed_twice_is_counted_once<L: Ledger>(stage: &Stage<L>) {
    some_past(stage).await;
    let listed = stage.audit().await.listed;
    trim(stage, stage.now()).await;
    assert_eq!(
        trim(stage, stage.now()).await,
        Rewritten::default(),
        "nothing new is to be trimmed"
    );
    stage.pass(60);
    stage.grant("short too", request().money(credits()).lasting(60)).await;
    stage.settled("short too", 10_000).await;
    stage.pass(2 * DAY.0);
    stage.sweep().await;
    let all = stage.snapshot().await.tenant.decisions;
    trim(stage, stage.now()).await;
    let journal = stage.snapshot().await.journal;
    assert_eq!((journal.len(), openings(&journal)[0].decisions), (1, all));
    assert_eq!(stage.audit().await.listed.shortfalls, listed.shortfalls + 1);
    let upkeep = stage.ledger.upkeep(&stage.tenant).await.unwrap().outcome;
    assert_eq!((upkeep.trimmed, upkeep.token.as_str()), (stage.now(), ""));
}

async fn a_call_that_goes_on_is_trimmed_whole_or_not_at_all<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 36_000).await;
    for call in ["across", "kept", "open", "gone"] {
        stage.grant(call, request().pool(DOMESTIC).lasting(3_600)).await;
        stage.extended(call, 10, 3_600).await;
    }
    stage.settled("gone", 20).await;
    stage.pass(60);
    let cut = stage.now();
    stage.settled("across", 70).await;
    stage.ended("kept", Ending::Proven, tollgate::ledger::EndResult::Settled).await;
    stage.pass(ENDED_RETENTION.0 - 5);
    stage.extended("open", 100, 14_400).await;
    stage.settled("kept", 80).await;
    stage.pass(10);
    stage.sweep().await;
    assert!(stage.call("across").await.is_none() && stage.call("kept").await.is_some());
    trim(stage, cut).await;
    let journal = stage.snapshot().await.journal;
    let of = |call: &str| journal.iter().filter(|entry| entry.subject == call).count();
    // Extended and opened, and what came after the cut; nothing of the one that was over.
    assert_eq!((of("gone"), of("across"), of("kept")), (0, 3, 4));
    stage.assert_audit_clean().await;
    // A call that is kept may still be charged late.
    trim(stage, stage.now().after(Seconds(1))).await;
    stage.settle("open", 5_000).await;
}

async fn a_reader_who_missed_entries_meets_an_opening_and_goes_on<L: Ledger>(stage: &Stage<L>) {
    for call in ["c-1", "c-2", "c-3", "c-4"] {
        stage.grant(call, request().free()).await;
        stage.released(call).await;
    }
    let cursors = stage.ledger.history(&stage.tenant, None, 100).await.unwrap().items;
    stage.pass(2 * DAY.0);
    stage.sweep().await;
    let cut = stage.now();
    stage.grant("c-5", request().free()).await;
    trim(stage, cut).await;
    let read = |after: String| async move {
        let page = stage.ledger.history(&stage.tenant, Some(&after), 100).await.unwrap();
        page.items.into_iter().map(|(_, entry)| (entry.kind, entry.subject)).collect::<Vec<_>>()
    };
    let next = (EntryKind::Authorized, "c-5".to_owned());
    let missed = vec![(EntryKind::Opening, String::new()), next.clone()];
    for (cursor, _) in &cursors[..cursors.len() - 1] {
        assert_eq!(read(cursor.clone()).await, missed);
    }
    // Who had read everything has missed nothing.
    assert_eq!(read(cursors.last().unwrap().0.clone()).await, [next]);
    let last = stage.ledger.history(&stage.tenant, None, 100).await.unwrap().items;
    let last = last.last().unwrap().0.clone();
    // Also when all is trimmed, the ids that were given are not given again.
    stage.released("c-5").await;
    stage.pass(2 * DAY.0);
    stage.sweep().await;
    trim(stage, stage.now()).await;
    stage.grant("c-6", request().free()).await;
    let found = read(last).await;
    assert_eq!(found.last(), Some(&(EntryKind::Authorized, "c-6".to_owned())));
}

async fn one_rewriting_at_a_time_and_an_abandoned_one_is_taken_over<L: Ledger>(stage: &Stage<L>) {
    some_past(stage).await;
    let (ledger, tenant) = (&stage.ledger, &stage.tenant);
    let begin = |token: &'static str| async move {
        ledger.begin_rewrite(tenant, token).await.unwrap().outcome
    };
    assert!(begin("a").await);
    let page = ledger.history(tenant, None, 2).await.unwrap().items;
    assert_eq!(ledger.add_rewritten(tenant, "a", &page).await, Ok(true));
    assert!(!begin("b").await);
    assert_eq!(
        rewrite(ledger, tenant, trimming(stage.now())).await,
        Err(RewriteError::Busy(tenant.clone()))
    );
    // It says nothing more: another takes over, from nothing.
    stage.pass(121);
    assert!(begin("b").await);
    assert_eq!(ledger.add_rewritten(tenant, "a", &page).await, Ok(false));
    let finish = |token: &str, written| FinishRewrite {
        token: token.to_owned(),
        read_until: Some(page[1].0.clone()),
        written,
        trimmed: Millis::ZERO,
        erased: Millis::ZERO,
        note: None,
    };
    let before = stage.snapshot().await;
    for wrong in [finish("a", 2), finish("b", 2)] {
        let found = ledger.finish_rewrite(tenant, &wrong).await.unwrap().outcome;
        assert_eq!(found, FinishedRewrite::Lost);
    }
    assert_eq!(stage.snapshot().await, before, "nothing was replaced");
    assert_eq!(ledger.add_rewritten(tenant, "b", &page).await, Ok(true));
    let found = ledger.finish_rewrite(tenant, &finish("b", 2)).await.unwrap().outcome;
    assert_eq!(found, FinishedRewrite::Done);
    assert_eq!(stage.snapshot().await, before, "the rewritten journal is the same");
    assert!(begin("c").await);
    ledger.abandon_rewrite(tenant, "b", Millis::ZERO, Millis::ZERO).await.unwrap();
    assert!(!begin("d").await, "only who has it gives it up");
    ledger.abandon_rewrite(tenant, "c", Millis(5), Millis(6)).await.unwrap();
    let upkeep = ledger.upkeep(tenant).await.unwrap().outcome;
    assert_eq!((upkeep.trimmed, upkeep.erased, upkeep.rewrites), (Millis(5), Millis(6), 1));
    assert!(begin("d").await);
}

async fn an_erased_call_is_replayed_and_leaves_nothing_behind<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let call = stage.grant("c", request().pool(DOMESTIC)).await;
    let (ledger, tenant, id) = (&stage.ledger, &stage.tenant, support::call_id("c"));
    assert_eq!(ledger.replace_context(tenant, &id, b"else", b"x").await, Ok(false));
    assert_eq!(ledger.replace_context(tenant, &id, &call.context, b"erased").await, Ok(true));
    let plan = Plan {
        token: "eraser".to_owned(),
        trim: None,
        erase: |entry: &mut Entry| {
            let erased = entry.context == b"why";
            if erased {
                entry.context = b"erased".to_vec();
            }
            erased
        },
        erase_within: None,
        note: |entries: u64| entries.to_string().into_bytes(),
        always: true,
    };
    assert_eq!(rewrite(ledger, tenant, plan).await.unwrap().erased, 1);
    let again = stage.authorize("c", request().pool(DOMESTIC)).await;
    let tollgate::ledger::Authorized::Replayed(again) = again else { panic!("{again:?}") };
    assert_eq!(again.granted, call.granted);
    stage.settled("c", 30).await;
    let journal = stage.snapshot().await.journal;
    assert!(journal.iter().all(|entry| entry.context != b"why"), "{journal:#?}");
    let note = journal.iter().find(|entry| entry.kind == EntryKind::NumbersErased).unwrap();
    assert_eq!((note.at, note.context.as_slice()), (stage.now(), &b"1"[..]));
}

async fn an_empty_journal_can_be_erased<L: Ledger>(stage: &Stage<L>) {
    let plan = Plan { always: true, ..trimming(stage.now()) };
    assert_eq!(rewrite(&stage.ledger, &stage.tenant, plan).await.unwrap(), Rewritten::default());
    assert_eq!(stage.snapshot().await.journal.len(), 1);
    stage.grant("c", request().free()).await;
}

fn post_paid() -> MoneyOffer {
    MoneyOffer { overage: true, ..credits() }
}

async fn forget_all<L: Ledger>(stage: &Stage<L>) {
    stage.pass(2 * DAY.0);
    stage.sweep().await;
}

async fn overage_is_trimmed_to_sums_like_everything_else<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 150_000).await;
    stage.grant("lot and overage", request().money(post_paid()).lasting(300)).await;
    stage.settled("lot and overage", 121).await;
    stage.grant("released", request().money(post_paid()).lasting(600)).await;
    stage.released("released").await;
    stage.grant("expired", request().money(post_paid()).lasting(60)).await;
    stage.extended("expired", 30, 60).await;
    stage.pass(1_000);
    stage.sweep().await;
    stage.pass_to_next_month();
    stage.grant("next month", request().money(post_paid()).lasting(60)).await;
    stage.settled("next month", 61).await;
    forget_all(stage).await;
    stage.grant("open", request().money(post_paid()).lasting(60)).await;
    stage.extended("open", 10, 14_400).await;
    let cut = stage.now().after(Seconds(1));
    let before = stage.snapshot().await;
    let gives_back = |entry: &Entry| entry.postings.iter().any(|posting| posting.funded < 0);
    assert!(before.journal.iter().filter(|entry| gives_back(entry)).count() >= 3);
    stage.pass(1);
    let done = trim(stage, cut).await;
    assert_eq!((done.openings, done.trimmed), (1, before.journal.len() as u64 - 2));
    let after = stage.snapshot().await;
    assert_eq!((&after.lots, &after.ring), (&before.lots, &before.ring));
    let overage: Vec<_> = after.journal[0]
        .postings
        .iter()
        .filter(|posting| posting.bucket.starts_with("l:overage:"))
        .map(|posting| (posting.bucket.as_str(), posting.funded, posting.held, posting.spent))
        .collect();
    let (november, december) = ("l:overage:2026-11", "l:overage:2026-12");
    assert_eq!(overage, [(november, 350_000, 0, 350_000), (december, 250_000, 0, 250_000)]);
    stage.assert_audit_clean().await;
    for place in 0..after.journal[0].postings.len() {
        let mut wrong = stage.snapshot().await;
        wrong.journal[0].postings[place].funded -= 1;
        let found = audit(&stage.tenant, stage.now(), NEVER_OVERDUE, &wrong).findings;
        assert!(!found.is_empty(), "{:?}", after.journal[0].postings[place]);
    }
    // What goes on, and is trimmed later, adds up with what was trimmed first.
    stage.settled("open", 61).await;
    stage.grant("later", request().money(post_paid()).lasting(60)).await;
    stage.released("later").await;
    stage.assert_audit_clean().await;
    forget_all(stage).await;
    trim(stage, stage.now()).await;
    assert_eq!(stage.snapshot().await.journal.len(), 1);
    stage.assert_audit_clean().await;
}

async fn what_counted_for_the_spend_velocity_is_known_after_trimming<L: Ledger>(stage: &Stage<L>) {
    let bounded = |per| {
        let velocity = SpendVelocity { amount: Micros(10 * UNIT), per: Seconds(per) };
        request().money(MoneyOffer { velocity: Some(velocity), ..credits() }).lasting(60)
    };
    stage.buy("po-1", 10 * UNIT).await;
    stage.grant("c", bounded(3_600)).await;
    // The setting changes: what "c" gives back is not known to be of a slot any more, and counts on.
    stage.grant("d", bounded(7_200)).await;
    for call in ["c", "d"] {
        stage.released(call).await;
    }
    forget_all(stage).await;
    for _ in 0..2 {
        trim(stage, stage.now()).await;
        let snapshot = stage.snapshot().await;
        assert_eq!(snapshot.ring.total(), Micros(150_000));
        assert_eq!(openings(&snapshot.journal)[0].committed, Micros(300_000));
        stage.assert_audit_clean().await;
        stage.grant("free", request().free()).await;
        stage.released("free").await;
        forget_all(stage).await;
    }
}

async fn recharges_and_what_is_owed_go_on_after_trimming<L: Ledger>(stage: &Stage<L>) {
    let recharge = AutoRecharge {
        trigger: Micros(UNIT),
        amount: Micros(UNIT),
        daily_cap: None,
        recharge_on: RechargeOn::Spent,
    };
    let wallet = async || {
        let snapshot = stage.snapshot().await;
        (snapshot.wallet, snapshot.recharges)
    };
    stage.buy("po-1", UNIT).await;
    stage.set_recharge(Some(recharge), true).await;
    stage.grant("short", request().money(credits()).lasting(60)).await;
    // The first fails, the second is on its way when all before it is trimmed.
    stage.settled("short", 6_000).await;
    assert_eq!(stage.report("recharge.1", Err("card expired")).await, RechargeReported::Applied);
    forget_all(stage).await;
    stage.pass(1);
    let before = wallet().await;
    assert_eq!((before.0.owed, before.1.len()), (Micros(9_050_000), 2));
    for _ in 0..2 {
        trim(stage, stage.now()).await;
        assert_eq!(stage.snapshot().await.journal.len(), 1);
        assert_eq!(wallet().await, before);
        stage.assert_audit_clean().await;
        stage.grant("free", request().free()).await;
        stage.released("free").await;
        forget_all(stage).await;
    }
    // Both succeed after all; each lot pays what is owed.
    for key in ["recharge.1", "recharge.2"] {
        assert_eq!(stage.report(key, Ok(())).await, RechargeReported::Applied);
        stage.assert_audit_clean().await;
    }
    assert_eq!(wallet().await.0.owed, Micros(7_050_000));
    forget_all(stage).await;
    trim(stage, stage.now()).await;
    stage.assert_audit_clean().await;
    assert_eq!(stage.buy("po-2", 10 * UNIT).await, Purchased::Applied);
    assert_eq!(wallet().await.0.owed, Micros::ZERO);
    stage.assert_audit_clean().await;
    assert_eq!(stage.report("recharge.1", Ok(())).await, RechargeReported::Replayed);
}

async fn an_earlier_cut_after_a_later_one_trims_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 10 * UNIT).await;
    stage.grant("kept", request().money(credits())).await;
    stage.settled("kept", 61).await;
    stage.pass(1);
    let early = stage.now();
    stage.refusal("refused", request().refused(Decision::NotEntitled)).await;
    stage.pass(3_600);
    stage.sweep().await;
    // The opening stands after the entries of "kept".
    assert_eq!(trim(stage, stage.now()).await.openings, 1);
    forget_all(stage).await;
    assert_eq!(trim(stage, early).await, Rewritten::default());
    stage.assert_audit_clean().await;
    assert_eq!(trim(stage, stage.now()).await.trimmed, 3);
    stage.assert_audit_clean().await;
}

async fn readers_need_the_journal_from_where_they_are_until_they_are_abandoned<L: Ledger>(
    stage: &Stage<L>,
) {
    let (ledger, tenant) = (&stage.ledger, &stage.tenant);
    let unread = async || unread_since(ledger, tenant).await.unwrap();
    let take = async |reader: &str, since| {
        let (reader, owner) = (reader.to_owned(), "one".to_owned());
        let (tenant, lease) = (tenant.clone(), Seconds(30));
        let command = TakeReader { tenant, reader, owner, lease, since };
        ledger.take_reader(&command).await.unwrap();
    };
    let go = async |reader: &str, cursor: &str| {
        let (reader, owner) = (reader.to_owned(), "one".to_owned());
        let (tenant, cursor, lease) = (tenant.clone(), cursor.to_owned(), Seconds(0));
        let command = MoveReader { tenant, reader, owner, cursor, lease };
        assert_eq!(ledger.move_reader(&command).await.unwrap().outcome, Moved::Moved);
    };
    assert_eq!(unread().await, None);
    let start = stage.now();
    for call in ["c-1", "c-2"] {
        stage.pass(10);
        stage.grant(call, request().free()).await;
    }
    let cursors = ledger.history(tenant, None, 10).await.unwrap().items;
    take("mail", start).await;
    take("webhook", stage.now()).await;
    assert_eq!(unread().await, Some(start), "the oldest of both");
    go("mail", &cursors[0].0).await;
    assert_eq!(unread().await, Some(start.after(Seconds(20))), "what it is not done with");
    go("mail", &cursors[1].0).await;
    go("webhook", &cursors[0].0).await;
    assert_eq!(unread().await, Some(start.after(Seconds(20))));
    go("webhook", &cursors[1].0).await;
    assert_eq!(unread().await, None, "both are at the end");
    stage.pass(10);
    stage.grant("c-3", request().free()).await;
    let third = Some(stage.now());
    assert_eq!(unread().await, third);
    // Three days after both were given up, nobody waits for them; one that is taken again is waited for.
    stage.pass(READERS_WAITED_FOR.0 - 11);
    assert_eq!(unread().await, third);
    stage.pass(1);
    assert_eq!(unread().await, None);
    take("mail", stage.now()).await;
    assert_eq!(unread().await, third);
    let names = ledger.readers(tenant).await.unwrap().outcome.into_iter().map(|(name, _)| name);
    assert_eq!(names.collect::<Vec<_>>(), ["mail", "webhook"]);
}

fn findings<L: Ledger>(stage: &Stage<L>, snapshot: &Snapshot) -> Vec<(u8, String)> {
    let found = audit(&stage.tenant, stage.now(), NEVER_OVERDUE, snapshot).findings;
    found.into_iter().map(|finding| (finding.invariant, finding.key)).collect()
}

/// Every way in which what the ledger remembers may differ from what it did is found.
async fn tampering_with_corrections_is_found<L: Ledger>(stage: &Stage<L>) {
    let good = stage.snapshot().await;
    assert_eq!(findings(stage, &good), []);
    for place in 0..good.adjustments.len() {
        let wrong = |change: &dyn Fn(&mut Snapshot)| {
            let mut wrong = good.clone();
            change(&mut wrong);
            let found = findings(stage, &wrong);
            assert!(found.contains(&(18, "adjustments".to_owned())), "{place}: {found:?}");
        };
        wrong(&|s| drop(s.adjustments.remove(place)));
        wrong(&|s| s.adjustments.push(s.adjustments[place].clone()));
        wrong(&|s| s.adjustments[place].1.entry.report.push(b'!'));
        wrong(&|s| s.adjustments[place].1.entry.used += Seconds(1));
        wrong(&|s| s.adjustments[place].1.entry.subject.push('!'));
        wrong(&|s| s.adjustments[place].1.entry.at.0 -= 1);
        if !good.adjustments[place].1.entry.postings.is_empty() {
            wrong(&|s| s.adjustments[place].1.entry.postings[0].adjusted += 1);
        }
    }
}

async fn corrections_are_known_once_their_entries_are_trimmed<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.buy("po-1", 10 * UNIT).await;
    stage.grant("c", request().pool(DOMESTIC).money(credits())).await;
    stage.settled("c", 61).await;
    assert!(matches!(stage.adjust_lot("lot", "po-1", -UNIT).await, Adjusted::Applied(_)));
    assert!(matches!(stage.adjust_pool("pool", DOMESTIC, 60).await, Adjusted::Applied(_)));
    let call = stage.adjust_call("call", "c", 1_000).await;
    let Adjusted::Applied(entry) = call else { panic!("{call:?}") };
    assert_eq!(entry.context, b"", "no numbers are remembered");
    forget_all(stage).await;
    let before = stage.snapshot().await;
    trim(stage, stage.now()).await;
    let after = stage.snapshot().await;
    assert_eq!((after.journal.len(), openings(&after.journal)[0].corrections.count), (1, 3));
    assert_eq!((&after.pools, &after.lots), (&before.pools, &before.lots));
    assert_eq!(after.adjustments, before.adjustments);
    assert_eq!(stage.audit().await.listed.adjustments, 3);
    tampering_with_corrections_is_found(stage).await;
    // What was applied is applied once; the call can be corrected no more.
    assert!(matches!(stage.adjust_lot("lot", "po-1", -UNIT).await, Adjusted::Replayed(_)));
    assert_eq!(stage.adjust_lot("lot", "po-1", UNIT).await, Adjusted::Conflict);
    assert_eq!(stage.adjust_call("call", "c", 1_000).await, Adjusted::Replayed(entry));
    assert_eq!(stage.adjust_call("again", "c", 900).await, Adjusted::NotFound);
    // Another one is trimmed later; meanwhile both kinds are known.
    assert!(matches!(stage.adjust_lot("later", "po-1", 7).await, Adjusted::Applied(_)));
    let mut wrong = stage.snapshot().await;
    wrong.adjustments.retain(|(key, _)| key.as_str() != "later");
    assert_eq!(findings(stage, &wrong), [(16, "l:po-1".to_owned())]);
    forget_all(stage).await;
    trim(stage, stage.now()).await;
    assert_eq!(openings(&stage.snapshot().await.journal)[0].corrections.count, 4);
    assert_eq!(stage.audit().await.listed.adjustments, 4);
    tampering_with_corrections_is_found(stage).await;
}

async fn a_correction_after_the_cut_keeps_its_call<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    for call in ["corrected", "not corrected"] {
        stage.grant(call, request().pool(DOMESTIC)).await;
        stage.settled(call, 61).await;
    }
    stage.pass(60);
    let cut = stage.now();
    stage.adjusted("fix", "corrected", 121).await;
    forget_all(stage).await;
    assert!(stage.call("corrected").await.is_none());
    trim(stage, cut).await;
    let journal = stage.snapshot().await.journal;
    let of = |call: &str| journal.iter().filter(|entry| entry.subject == call).count();
    assert_eq!((of("corrected"), of("not corrected")), (3, 0));
    assert_eq!(openings(&journal)[0].corrections.count, 0);
    assert_eq!(stage.audit().await.listed.adjustments, 1);
    stage.assert_audit_clean().await;
    // It is not forgotten that it is over: it is charged no more.
    assert_eq!(stage.adjust_call("again", "corrected", 61).await, Adjusted::NotFound);
    trim(stage, stage.now()).await;
    assert_eq!(stage.snapshot().await.journal.len(), 1);
    tampering_with_corrections_is_found(stage).await;
}

async fn a_correction_long_after_the_end_of_its_call_is_counted_with_it<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.buy("po-1", UNIT).await;
    for call in ["less", "more"] {
        stage.grant(call, request().money(credits()).lasting(60)).await;
    }
    for call in ["less", "more"] {
        stage.settled(call, 600).await;
    }
    // More entries than are read at a time.
    for n in 0..130 {
        let call = format!("between-{n}");
        stage.grant(&call, request().free()).await;
        stage.released(&call).await;
    }
    stage.adjusted("less", "less", 10).await;
    stage.adjusted("more", "more", 1_200).await;
    forget_all(stage).await;
    let listed = stage.audit().await.listed;
    let owed = stage.snapshot().await.wallet.owed;
    assert!(listed.shortfalls == 1 && owed.is_positive());
    trim(stage, stage.now()).await;
    assert_eq!(stage.snapshot().await.journal.len(), 1);
    assert_eq!(stage.audit().await.listed, listed);
    stage.assert_audit_clean().await;
}

async fn what_is_owed_is_right_where_a_corrected_call_stays_between_what_is_trimmed<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.set_recharge(None, true).await;
    stage.grant("gone", request().free()).await;
    stage.released("gone").await;
    forget_all(stage).await;
    stage.buy("po-1", 150_000).await;
    stage.grant("stays", request().money(credits()).lasting(60)).await;
    stage.settled("stays", 600).await;
    let owed = stage.snapshot().await.wallet.owed;
    // A lot pays all of it, and it stays paid when the call turns out to have cost nothing.
    stage.buy("po-2", owed.0).await;
    stage.adjusted("fix", "stays", 0).await;
    stage.refusal("last", request().refused(Decision::NotEntitled)).await;
    assert_eq!(stage.snapshot().await.wallet.owed, Micros::ZERO);
    stage.assert_audit_clean().await;
    stage.pass(3_600);
    stage.sweep().await;
    let done = trim(stage, stage.now()).await;
    let journal = stage.snapshot().await.journal;
    assert_eq!((done.openings, journal.len()), (1, 4), "{journal:#?}");
    assert_eq!(journal[3].kind, EntryKind::Opening);
    stage.assert_audit_clean().await;
    // What is owed goes on from there, and so does the call.
    stage.adjusted("again", "stays", 600).await;
    assert!(stage.snapshot().await.wallet.owed.is_positive());
    stage.assert_audit_clean().await;
    forget_all(stage).await;
    trim(stage, stage.now()).await;
    assert_eq!(stage.snapshot().await.journal.len(), 1);
    stage.assert_audit_clean().await;
}

async fn set_block<L: Ledger>(stage: &Stage<L>, name: &str, blocked: bool) -> BlockSet {
    let note = BlockNote { reason: "premium calls".to_owned(), operator: "olga".to_owned() };
    let (tenant, payer) = (stage.tenant.clone(), support::payer(name));
    let command = SetBlock { tenant, payer, blocked, note };
    stage.ledger.set_block(&command).await.unwrap().outcome
}

async fn blocks_stand_on_once_their_entries_are_trimmed<L: Ledger>(stage: &Stage<L>) {
    for name in ["alice", "bob", "carol"] {
        stage.set_payer(name, PayerState::Active, &[]).await;
    }
    for (name, blocked) in [("alice", true), ("bob", true), ("bob", false)] {
        set_block(stage, name, blocked).await;
    }
    stage.set_payer("carol", PayerState::Blocked, &[]).await;
    let blocks = stage.snapshot().await.blocks;
    assert_eq!(blocks.len(), 2);
    let told = |journal: &[Entry]| {
        let of = |opening: Opening| opening.blocks.into_iter().map(|stood| (stood.payer, stood.by));
        openings(journal).into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let of = |name: &str, by: &str| (name.to_owned(), by.to_owned());
    stage.pass(60);
    // Twice: what was trimmed before goes on.
    for _ in 0..2 {
        trim(stage, stage.now()).await;
        let good = stage.snapshot().await;
        assert_eq!((good.journal.len(), &good.blocks), (1, &blocks));
        assert_eq!(told(&good.journal), [of("alice", "operator"), of("carol", "file")]);
        assert_eq!(findings(stage, &good), []);
        for change in [
            (|s| s.blocks[0].2.since.0 += 1) as fn(&mut Snapshot),
            |s| s.blocks[0].2.reason.clear(),
            |s| s.blocks[0].2.operator.clear(),
            |s| drop(s.blocks.remove(1)),
            |s| s.blocks.clear(),
            |s| s.blocks[1].1 = BlockedBy::Operator,
            |s| s.payers[0].1.barred = false,
        ] {
            let mut wrong = good.clone();
            change(&mut wrong);
            let found = findings(stage, &wrong);
            assert!(found.iter().any(|(invariant, _)| *invariant == 17), "{found:?}");
        }
        stage.refusal("later", request().refused(Decision::NotEntitled)).await;
        forget_all(stage).await;
    }
    // A block that is trimmed is lifted and set like any other.
    assert!(matches!(set_block(stage, "alice", true).await, BlockSet::Standing(_)));
    assert!(matches!(set_block(stage, "alice", false).await, BlockSet::Lifted(_)));
    assert!(matches!(set_block(stage, "bob", true).await, BlockSet::Blocked(_)));
    stage.assert_audit_clean().await;
    stage.pass(60);
    trim(stage, stage.now()).await;
    let journal = stage.snapshot().await.journal;
    assert_eq!(told(&journal), [of("bob", "operator"), of("carol", "file")]);
    stage.assert_audit_clean().await;
    set_block(stage, "bob", false).await;
    stage.set_payer("carol", PayerState::Active, &[]).await;
    stage.pass(60);
    trim(stage, stage.now()).await;
    assert_eq!(told(&stage.snapshot().await.journal), []);
    stage.assert_audit_clean().await;
}

async fn more_blocks_than_an_opening_has_are_shared_among_several<L: Ledger>(stage: &Stage<L>) {
    for n in 0..501 {
        stage.set_payer(&format!("user-{n}"), PayerState::Active, &[]).await;
        set_block(stage, &format!("user-{n}"), true).await;
    }
    stage.pass(60);
    assert_eq!(trim(stage, stage.now()).await.openings, 2);
    let found = openings(&stage.snapshot().await.journal);
    let counts: Vec<_> = found.iter().map(|o| (o.blocks.len(), o.entries)).collect();
    assert_eq!(counts, [(500, 0), (1, 501)]);
    stage.assert_audit_clean().await;
}

async fn erasing_keeps_corrections_and_blocks<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.settled("c", 61).await;
    stage.adjusted("call", "c", 121).await;
    stage.adjust_pool("pool", DOMESTIC, 60).await;
    stage.set_payer("alice", PayerState::Active, &[]).await;
    set_block(stage, "alice", true).await;
    let before = stage.snapshot().await;
    let (ledger, tenant) = (&stage.ledger, &stage.tenant);
    let plan = || Plan {
        token: "eraser".to_owned(),
        trim: None,
        erase: |entry: &mut Entry| erase_entry(entry, &Whose::Everybodys),
        erase_within: None,
        note: |_| vec![1],
        always: false,
    };
    assert_eq!(rewrite(ledger, tenant, plan()).await.unwrap().erased, 3);
    let after = stage.snapshot().await;
    assert_eq!((&after.adjustments, &after.blocks), (&before.adjustments, &before.blocks));
    for (was, is) in before.journal.iter().zip(&after.journal) {
        let context = if was.is_of_call() { vec![] } else { was.context.clone() };
        let report = if was.kind == EntryKind::Settled { &is.report } else { &was.report };
        let expected = Entry { context, report: report.clone(), ..was.clone() };
        assert_eq!(*is, expected);
    }
    assert!(after.adjustments.iter().all(|(_, known)| known.entry.context.is_empty()));
    stage.assert_audit_clean().await;
    assert!(matches!(stage.adjust_call("call", "c", 121).await, Adjusted::Replayed(_)));
    // Nothing is left to be erased, and all of it can be trimmed.
    assert_eq!(rewrite(ledger, tenant, plan()).await.unwrap(), Rewritten::default());
    forget_all(stage).await;
    trim(stage, stage.now()).await;
    tampering_with_corrections_is_found(stage).await;
}

// By age, on the clock of the ledger.

async fn retain(server: &Server, retention: &str) -> Administration<MemoryLedger> {
    let administration = Administration::new(server.running.control().clone(), Seconds(10));
    let text = crate::server::organisation() + &format!("    retention: {{ {retention} }}\n");
    let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
    administration.apply(&document).await.unwrap();
    administration
}

async fn contexts(server: &Server) -> Vec<CallContext> {
    let ledger = server.running.control().ledger();
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    let journal = ledger.snapshot(&tenant).await.unwrap().outcome.journal;
    journal.iter().filter_map(|entry| CallContext::decode(&entry.context)).collect()
}

async fn journal(server: &Server) -> Vec<Entry> {
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    server.running.control().ledger().snapshot(&tenant).await.unwrap().outcome.journal
}

#[tokio::test]
async fn retention_erases_numbers_and_trims_records_when_they_are_due() {
    let server = Server::start().await;
    let administration = retain(&server, "numbers: 90d, records: 400d").await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("paid", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("paid", 61)).await.unwrap();
    administration.keep_records().await.unwrap();
    server.clock.advance(Seconds(89 * DAY.0));
    administration.keep_records().await.unwrap();
    assert!(contexts(&server).await.iter().all(|c| c.called_number == "+12065550100"));
    server.clock.advance(Seconds(2 * DAY.0));
    administration.keep_records().await.unwrap();
    let found = contexts(&server).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().all(|c| c.called_number == "+1**********"), "{found:#?}");
    let note = |entry: &Entry| ErasureNote::decode(&entry.context);
    let notes: Vec<_> = journal(&server).await;
    let notes: Vec<_> =
        notes.iter().filter(|e| e.kind == EntryKind::NumbersErased).filter_map(note).collect();
    assert_eq!((notes.len(), notes[0].entries, notes[0].operator.as_str()), (1, 2, ""));
    // The same day nothing more is done, whoever asks.
    let before = journal(&server).await;
    administration.keep_records().await.unwrap();
    assert_eq!(journal(&server).await, before);

    let mut account = server.account().await;
    server.clock.advance(Seconds(310 * DAY.0));
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    let swept = server.running.control().ledger().sweep(&tenant, 100, DAY).await;
    assert!(swept.is_ok());
    administration.keep_records().await.unwrap();
    let left = journal(&server).await;
    let kinds: Vec<_> = left.iter().map(|entry| entry.kind).collect();
    assert!(kinds.starts_with(&[EntryKind::Opening]) && contexts(&server).await.is_empty());
    let contoso = || "contoso".to_owned();
    let request = ListDecisionsRequest { tenant_id: contoso(), ..Default::default() };
    let page = account.list_decisions(request).await.unwrap().into_inner();
    assert!(page.decisions.is_empty() && page.records_kept_since.is_some());
    let request =
        WatchEventsRequest { tenant_id: contoso(), until_now: true, ..Default::default() };
    let mut stream = account.watch_events(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.event.is_none() && first.records_kept_since.is_some(), "{first:?}");
    let report = administration.audit(None).await.unwrap();
    assert_eq!(report[0].1.findings, []);
}

#[tokio::test]
async fn notices_that_are_not_yet_sent_are_not_trimmed() {
    let server = Server::start().await;
    let administration = retain(&server, "records: 31d").await;
    let ledger = server.running.control().ledger().clone();
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    let take = async |since| {
        let (reader, owner) = ("webhook".to_owned(), "one".to_owned());
        let (tenant, lease) = (tenant.clone(), Seconds(30));
        let command = TakeReader { tenant, reader, owner, lease, since };
        ledger.take_reader(&command).await.unwrap();
    };
    take(ledger.upkeep(&tenant).await.unwrap().now).await;
    let mut calls = server.calls().await;
    let trimmed_after = async |days: i64| {
        server.clock.advance(Seconds(days * DAY.0));
        ledger.sweep(&tenant, 100, DAY).await.unwrap();
        administration.keep_records().await.unwrap();
        journal(&server).await.iter().all(|entry| entry.subject != "first")
    };
    calls.authorize_call(authorize("first", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("first", 61)).await.unwrap();
    // Its receiver fails, and trimming waits for it for three days.
    for days in [30, 2] {
        take(Millis::ZERO).await;
        assert!(!trimmed_after(days).await);
    }
    take(Millis::ZERO).await;
    assert!(trimmed_after(3).await);
    // Nobody sends any more: that is waited for no longer either.
    calls.authorize_call(authorize("second", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("second", 61)).await.unwrap();
    let second = journal(&server).await;
    assert!(second.iter().any(|entry| entry.subject == "second"));
    assert!(trimmed_after(32).await);
    assert!(journal(&server).await.iter().all(|entry| entry.subject != "second"));
    assert_eq!(administration.audit(None).await.unwrap()[0].1.findings, []);
}

#[tokio::test]
async fn an_export_says_since_when_records_are_kept() {
    let server = Server::start().await;
    let administration = retain(&server, "records: 31d").await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("old", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("old", 61)).await.unwrap();
    server.clock.advance(Seconds(40 * DAY.0));
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    assert!(server.running.control().ledger().sweep(&tenant, 100, DAY).await.is_ok());
    calls.authorize_call(authorize("new", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("new", 61)).await.unwrap();
    administration.keep_records().await.unwrap();
    let now = jiff::Timestamp::now().as_second() + 40 * DAY.0;
    for (days, told) in [(60, true), (5, false)] {
        let from = Some(prost_types::Timestamp { seconds: now - days * DAY.0, nanos: 0 });
        let to = Some(prost_types::Timestamp { seconds: now + DAY.0, nanos: 0 });
        let request = ExportUsageRequest { tenant_id: "contoso".to_owned(), from, to };
        let stream = server.account().await.export_usage(request).await;
        let mut stream = stream.unwrap().into_inner();
        let (mut since, mut records) = (vec![], vec![]);
        while let Some(message) = stream.message().await.unwrap() {
            since.extend(message.records_kept_since);
            records.extend(message.record.map(|record| record.call_id));
        }
        assert_eq!((since.len(), records), (usize::from(told), vec!["new".to_owned()]));
    }
}

#[tokio::test]
async fn corrections_and_blocks_are_listed_with_the_instant_since_when_all_are_kept() {
    let server = Server::start().await;
    let administration = retain(&server, "records: 31d").await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("old", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("old", 61)).await.unwrap();
    let mut account = server.account().await;
    let correct = |key: &str| AdjustSettlementRequest {
        tenant_id: "contoso".to_owned(),
        key: key.to_owned(),
        call_id: "old".to_owned(),
        used_duration: Some(prost_types::Duration { seconds: 121, nanos: 0 }),
        reason: "misread".to_owned(),
        operator: "olivia".to_owned(),
    };
    let first = account.adjust_settlement(correct("t-1")).await.unwrap().into_inner();
    assert!(!first.replayed);
    let block = BlockUserRequest {
        tenant_id: "contoso".to_owned(),
        user_id: "carol".to_owned(),
        reason: "premium calls".to_owned(),
        operator: "olivia".to_owned(),
    };
    account.block_user(block).await.unwrap();
    let list = || ListAdjustmentsRequest { tenant_id: "contoso".to_owned(), ..Default::default() };
    let listed = account.list_adjustments(list()).await.unwrap().into_inner();
    assert_eq!((listed.adjustments.len(), listed.records_kept_since), (1, None));
    server.clock.advance(Seconds(60 * DAY.0));
    let tenant = tollgate::charging::ids::TenantId::new("contoso").unwrap();
    assert!(server.running.control().ledger().sweep(&tenant, 100, DAY).await.is_ok());
    administration.keep_records().await.unwrap();
    assert_eq!(journal(&server).await.len(), 1);

    let listed = account.list_adjustments(list()).await.unwrap().into_inner();
    assert_eq!((listed.adjustments.len(), listed.records_kept_since.is_some()), (0, true));
    let blocked = |include_unblocked, days: i64| ListBlockedUsersRequest {
        tenant_id: "contoso".to_owned(),
        include_unblocked,
        from: include_unblocked.then(|| prost_types::Timestamp {
            seconds: jiff::Timestamp::now().as_second() + (60 - days) * DAY.0,
            nanos: 0,
        }),
        ..Default::default()
    };
    for (include_unblocked, days, rows, told) in
        [(false, 0, 1, false), (true, 70, 0, true), (true, 5, 0, false)]
    {
        let page = account.list_blocked_users(blocked(include_unblocked, days)).await;
        let page = page.unwrap().into_inner();
        let found = (page.blocks.len(), page.records_kept_since.is_some());
        assert_eq!(found, (rows, told), "{include_unblocked} {days}");
    }
    // The call is trimmed: it is not corrected again, and the correction is applied once as ever.
    let again = account.adjust_settlement(correct("t-1")).await.unwrap().into_inner();
    assert!(again.replayed && again.call.is_none());
    assert_eq!(again.adjustment, first.adjustment);
    let refused = account.adjust_settlement(correct("t-2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert_eq!(administration.audit(None).await.unwrap()[0].1.findings, []);
}

// On request.

#[tokio::test]
async fn the_numbers_of_one_person_are_erased_on_request() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    for (call, calling, called) in [
        ("to her", "+14255550101", "011 49 30 901820"),
        ("of her", "+4930901820", "+12065550100"),
        ("of others", "+14255550101", "+12065550100"),
    ] {
        let mut request = authorize(call, "carol", called);
        request.calling_number = calling.to_owned();
        request.sip_call_id = "sip".to_owned();
        calls.authorize_call(request).await.unwrap();
        if call != "to her" {
            calls.settle_call(settle(call, 30)).await.unwrap();
        }
    }
    let mut account = server.account().await;
    let request = || EraseNumbersRequest {
        tenant_id: "contoso".to_owned(),
        number: "+4930901820".to_owned(),
        reason: "her request of May".to_owned(),
        operator: "dpo".to_owned(),
        ..EraseNumbersRequest::default()
    };
    let erased = account.erase_numbers(request()).await.unwrap().into_inner();
    assert_eq!((erased.entry_count, erased.call_count, erased.call_id_count), (3, 2, 0));
    // Her open call is repeated as it was, and ends without her number.
    let mut again = authorize("to her", "carol", "011 49 30 901820");
    again.calling_number = "+14255550101".to_owned();
    let answer = calls.authorize_call(again).await.unwrap().into_inner();
    assert!(answer.replayed && answer.allowed, "{answer:?}");
    calls.settle_call(settle("to her", 30)).await.unwrap();
    let all = format!("{:?}", contexts(&server).await);
    assert!(!all.contains("901820") && all.contains("+49********"), "{all}");
    assert!(all.contains("+14255550101") && all.contains("sip_call_id: \"sip\""), "{all}");
    let notes = journal(&server).await;
    let note = notes.iter().find(|entry| entry.kind == EntryKind::NumbersErased).unwrap();
    let note = ErasureNote::decode(&note.context).unwrap();
    assert_eq!((note.entries, note.calls, note.operator.as_str()), (3, 2, "dpo"));
    assert!(!format!("{note:?}").contains("901820"));
    let repeated = account.erase_numbers(request()).await.unwrap().into_inner();
    assert_eq!((repeated.entry_count, repeated.call_count), (0, 0));

    let now = jiff::Timestamp::now().as_second();
    let before = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    for (number, before, code) in [
        ("", None, Code::InvalidArgument),
        ("12345678", None, Code::InvalidArgument),
        ("+4930901820", before(5), Code::InvalidArgument),
        ("", before(now), Code::FailedPrecondition),
    ] {
        let request = EraseNumbersRequest { number: number.to_owned(), before, ..request() };
        let status = account.erase_numbers(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{number} {before:?}: {status}");
    }
    server.clock.advance(Seconds(2 * DAY.0));
    let request =
        EraseNumbersRequest { number: String::new(), before: before(now + DAY.0), ..request() };
    let erased = account.erase_numbers(request).await.unwrap().into_inner();
    assert_eq!(erased.entry_count, 6);
    let all = format!("{:?}", contexts(&server).await);
    assert!(!all.contains("5550"), "{all}");
}

// How long it takes; `TOLLGATE_RETENTION_ENTRIES` is how long the journal is.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_journal_is_erased_and_trimmed_in_short_steps() {
    let entries: usize =
        std::env::var("TOLLGATE_RETENTION_ENTRIES").map_or(2_000, |n| n.parse().unwrap());
    let server = Arc::new(RedisServer::started());
    let mut plain = server.client().get_connection().unwrap();
    let () = ::redis::cmd("CONFIG")
        .arg(&["SET", "slowlog-log-slower-than", "100"])
        .arg(&["slowlog-max-len", "100000"])
        .query(&mut plain)
        .unwrap();
    let own = async |clock: ClockOffset| Opened {
        ledger: server.ledger(&clock).await,
        keep: Box::new(server.clone()),
    };
    let stage = Arc::new(Stage::open(own).await);
    stage.set_pool(DOMESTIC, 1_000_000_000).await;
    stage.buy("po-1", 1_000 * UNIT).await;
    let mut waiting = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let stage = stage.clone();
        waiting.spawn(async move {
            for n in 0..entries / 16 {
                let call = format!("call-{worker}-{n}");
                let mut command = stage.command(&call, request().pool(DOMESTIC)).await;
                command.context = vec![b'x'; 400];
                stage.ledger.authorize(&command).await.unwrap();
                stage.settle(&call, 61).await;
            }
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
    // Half is forgotten.
    stage.pass(2 * DAY.0);
    while stage.sweep().await.forgotten > 0 {}
    let before = stage.snapshot().await;
    for (what, trim) in [("erasing", None), ("trimming", Some(stage.now()))] {
        let () = ::redis::cmd("SLOWLOG").arg("RESET").query(&mut plain).unwrap();
        let plan = Plan {
            token: what.to_owned(),
            trim,
            erase: |entry: &mut Entry| {
                let erased = trim.is_none() && entry.context.len() == 400;
                if erased {
                    entry.context = vec![b'*'; 400];
                }
                erased
            },
            erase_within: None,
            note: |_| vec![1],
            always: false,
        };
        let began = Instant::now();
        let found = rewrite(&stage.ledger, &stage.tenant, plan).await.unwrap();
        let took = began.elapsed();
        // What one command or script took of Redis, in microseconds.
        type Slow = (i64, i64, i64, Vec<Vec<u8>>, String, String);
        let slow: Vec<Slow> = ::redis::cmd("SLOWLOG").arg("GET").arg(-1).query(&mut plain).unwrap();
        // The log's own commands are no part of it.
        let steps = slow.iter().filter(|entry| entry.3[0] != b"SLOWLOG");
        let mut took_of_redis: Vec<i64> = steps.map(|entry| entry.2).collect();
        took_of_redis.sort_unstable_by(|a, b| b.cmp(a));
        took_of_redis.truncate(5);
        println!(
            "{what}: {found:?} in {took:?}; the longest steps in Redis, us: {took_of_redis:?}"
        );
        assert!(found.trimmed + found.erased > 0);
    }
    let after = stage.snapshot().await;
    assert_eq!((after.pools, after.lots), (before.pools, before.lots));
    let spent: i64 = after.journal.iter().flat_map(|e| &e.postings).map(|p| p.spent).sum();
    assert_eq!(Micros(spent).0, (entries / 16 * 8 * 120) as i64);
    stage.assert_audit_clean().await;
}
