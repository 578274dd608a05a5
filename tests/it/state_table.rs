//! The contract's table "Message against state": every cell, on every ledger, by its name.
//!
//! `MESSAGE_on_STATE_is_OUTCOME`. The call under test holds five minutes of a pool of a hundred; where
//! it was answered, it has proved 61 s with sequence 5 and may run to 361 s.

use tollgate::charging::decision::Decision;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::ledger::state::{Call, CallState, EntryKind};
use tollgate::ledger::{Answered, Authorized, EndResult, Ended, Ending, Extended, Ledger, Swept};

use crate::support::{DOMESTIC, ENDED_RETENTION, NOON, Request, Stage, request};

crate::on_every_ledger! {
    authorize_same_on_none_decides
    authorize_same_on_denied_is_the_same_denial
    authorize_same_on_ringing_is_the_grant_in_force
    authorize_same_on_answered_is_the_grant_in_force
    authorize_same_on_settled_is_call_already_ended
    authorize_same_on_released_is_call_already_ended
    authorize_same_on_expired_is_call_already_ended
    authorize_same_on_ended_is_call_already_ended
    authorize_other_on_none_decides
    authorize_other_on_denied_is_a_key_conflict
    authorize_other_on_ringing_is_a_key_conflict
    authorize_other_on_answered_is_a_key_conflict
    authorize_other_on_settled_is_a_key_conflict
    authorize_other_on_released_is_a_key_conflict
    authorize_other_on_expired_is_a_key_conflict
    authorize_other_on_ended_is_call_already_ended
    answer_on_none_is_not_found
    answer_on_denied_is_the_denial
    answer_on_ringing_is_answered
    answer_on_answered_keeps_the_earliest
    answer_on_settled_is_no_change
    answer_on_released_is_no_change
    answer_on_expired_holds_again
    answer_on_expired_without_funds_keeps_the_hard_stop
    answer_on_ended_is_no_change
    extend_new_on_none_is_not_found
    extend_new_on_denied_is_the_denial_and_parks_the_usage
    extend_new_on_ringing_is_answered_with_a_new_grant
    extend_new_on_answered_is_the_highest_usage_with_a_new_grant
    extend_new_on_settled_is_call_already_ended
    extend_new_on_released_is_call_already_ended
    extend_new_on_expired_holds_again
    extend_new_on_expired_without_funds_is_a_final_grant
    extend_new_on_ended_is_call_already_ended
    extend_old_on_none_is_not_found
    extend_old_on_denied_is_the_denial
    extend_old_on_ringing_is_the_last_grant_again
    extend_old_on_answered_is_the_last_grant_again
    extend_old_on_settled_is_call_already_ended
    extend_old_on_released_is_call_already_ended
    extend_old_on_expired_is_as_new
    extend_old_on_ended_is_call_already_ended
    settle_used_on_none_is_parked_and_ends_the_call
    settle_used_on_denied_is_parked
    settle_used_on_ringing_is_charged
    settle_used_on_answered_is_charged
    settle_used_on_settled_with_the_same_usage_is_a_replay
    settle_used_on_settled_with_another_usage_is_already_settled
    settle_used_on_released_is_a_late_settle
    settle_used_on_expired_charges_the_difference
    settle_used_on_ended_is_parked
    settle_used_on_ended_again_is_a_replay
    settle_zero_on_none_is_remembered_as_ended
    settle_zero_on_denied_is_no_change
    settle_zero_on_ringing_gives_all_back
    settle_zero_on_answered_charges_the_proven_usage
    settle_zero_on_settled_is_a_replay
    settle_zero_on_released_is_a_replay
    settle_zero_on_expired_is_a_replay
    settle_zero_on_ended_is_a_replay
    release_on_none_is_remembered_as_ended
    release_on_denied_is_no_change
    release_on_ringing_gives_all_back
    release_on_answered_fails
    release_on_settled_is_a_replay
    release_on_released_is_a_replay
    release_on_expired_is_a_replay
    release_on_ended_is_a_replay
    expiry_on_none_is_nothing
    expiry_on_denied_forgets_it
    expiry_on_ringing_gives_all_back
    expiry_on_answered_charges_the_proven_usage
    expiry_on_settled_forgets_it
    expiry_on_released_forgets_it
    expiry_on_expired_forgets_it
    expiry_on_ended_forgets_it
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    Denied,
    Ringing,
    Answered,
    Settled,
    Released,
    Expired,
    Ended,
}

const C: &str = "c";
const POOL: i64 = 6000;

fn ask() -> Request {
    request().pool(DOMESTIC)
}

/// The payload that the call was authorized with: refused where the state is denied.
fn same(state: State) -> Request {
    if state == State::Denied { ask().refused(Decision::NotEntitled) } else { ask() }
}

/// Brings the call into a state, and says what is known of it there.
async fn bring<L: Ledger>(stage: &Stage<L>, state: State) -> Option<Call> {
    stage.set_pool(DOMESTIC, POOL).await;
    match state {
        State::None => {}
        State::Denied => {
            stage.refusal(C, same(state)).await;
        }
        State::Ringing => {
            stage.grant(C, ask()).await;
        }
        State::Answered => answered(stage).await,
        State::Settled => {
            answered(stage).await;
            stage.settled(C, 100).await;
        }
        State::Released => {
            stage.grant(C, ask()).await;
            stage.released(C).await;
        }
        State::Expired => {
            answered(stage).await;
            stage.pass(1000);
            assert_eq!(stage.sweep().await.expired, 1);
        }
        State::Ended => {
            stage.released(C).await;
        }
    }
    stage.call(C).await
}

async fn answered<L: Ledger>(stage: &Stage<L>) {
    stage.grant(C, ask()).await;
    let answer = stage.extend(C, 61, Some(5), 300).await;
    assert!(matches!(answer, Extended::Granted { replayed: false, .. }), "{answer:?}");
}

#[derive(Debug, PartialEq, Eq)]
struct Money {
    call: Option<Call>,
    pools: Vec<i64>,
    entries: usize,
}

/// All that must stay the same where the table says "no change".
async fn money<L: Ledger>(stage: &Stage<L>) -> Money {
    let snapshot = stage.snapshot().await;
    let pools = snapshot.pools.iter().flat_map(|(_, b)| [b.held, b.spent, b.holds]).collect();
    let moved = snapshot.journal.iter().filter(|entry| !entry.postings.is_empty());
    Money { call: stage.call(C).await, pools, entries: moved.count() }
}

async fn pool<L: Ledger>(stage: &Stage<L>) -> (i64, i64, i64) {
    let bucket = stage.pool(DOMESTIC).await;
    (bucket.held, bucket.spent, bucket.holds)
}

async fn last_entry<L: Ledger>(stage: &Stage<L>) -> EntryKind {
    stage.of_calls().await.last().unwrap().kind
}

// Authorize.

async fn replays<L: Ledger>(stage: &Stage<L>, state: State) {
    let call = bring(stage, state).await.unwrap();
    let before = money(stage).await;
    assert_eq!(stage.authorize(C, same(state)).await, Authorized::Replayed(call));
    assert_eq!(money(stage).await, before);
}

async fn is_over<L: Ledger>(stage: &Stage<L>, state: State, ask: Request) {
    bring(stage, state).await;
    let before = money(stage).await;
    assert_eq!(stage.authorize(C, ask).await, Authorized::Ended);
    assert_eq!(money(stage).await, before);
    let last = stage.snapshot().await.journal.last().unwrap().clone();
    assert_eq!(last.decision, Some(Decision::CallAlreadyEnded));
}

async fn conflicts<L: Ledger>(stage: &Stage<L>, state: State) {
    bring(stage, state).await;
    let before = money(stage).await;
    assert_eq!(stage.authorize(C, ask().other_payload()).await, Authorized::Conflict);
    assert_eq!(money(stage).await, before);
    let last = stage.snapshot().await.journal.last().unwrap().clone();
    assert_eq!(last.decision, Some(Decision::KeyConflict));
}

async fn authorize_same_on_none_decides<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    assert_eq!(stage.grant(C, ask()).await.granted, Seconds(300));
    assert_eq!(pool(stage).await, (300, 0, 1));
}

async fn authorize_same_on_denied_is_the_same_denial<L: Ledger>(stage: &Stage<L>) {
    replays(stage, State::Denied).await;
}

async fn authorize_same_on_ringing_is_the_grant_in_force<L: Ledger>(stage: &Stage<L>) {
    replays(stage, State::Ringing).await;
}

async fn authorize_same_on_answered_is_the_grant_in_force<L: Ledger>(stage: &Stage<L>) {
    replays(stage, State::Answered).await;
    assert_eq!(stage.call(C).await.unwrap().granted, Seconds(361));
}

async fn authorize_same_on_settled_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    is_over(stage, State::Settled, ask()).await;
}

async fn authorize_same_on_released_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    is_over(stage, State::Released, ask()).await;
}

async fn authorize_same_on_expired_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    is_over(stage, State::Expired, ask()).await;
}

async fn authorize_same_on_ended_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    is_over(stage, State::Ended, ask()).await;
}

async fn authorize_other_on_none_decides<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    assert_eq!(stage.grant(C, ask().other_payload()).await.granted, Seconds(300));
}

async fn authorize_other_on_denied_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Denied).await;
}

async fn authorize_other_on_ringing_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Ringing).await;
}

async fn authorize_other_on_answered_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Answered).await;
}

async fn authorize_other_on_settled_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Settled).await;
}

async fn authorize_other_on_released_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Released).await;
}

async fn authorize_other_on_expired_is_a_key_conflict<L: Ledger>(stage: &Stage<L>) {
    conflicts(stage, State::Expired).await;
}

async fn authorize_other_on_ended_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    is_over(stage, State::Ended, ask().other_payload()).await;
}

// ReportAnswer.

async fn answer_changes_nothing<L: Ledger>(stage: &Stage<L>, state: State) {
    let call = bring(stage, state).await.unwrap();
    let before = money(stage).await;
    stage.pass(7);
    assert_eq!(stage.answer(C).await, Answered::Standing(call));
    assert_eq!(money(stage).await, before);
}

async fn answer_on_none_is_not_found<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    assert_eq!(stage.answer(C).await, Answered::NotFound);
    assert_eq!(stage.call(C).await, None);
}

async fn answer_on_denied_is_the_denial<L: Ledger>(stage: &Stage<L>) {
    let call = bring(stage, State::Denied).await.unwrap();
    assert_eq!(stage.answer(C).await, Answered::Denied(call));
}

async fn answer_on_ringing_is_answered<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ringing).await;
    stage.pass(40);
    let Answered::Standing(call) = stage.answer(C).await else { panic!("the call stands") };
    assert_eq!((call.state, call.used), (CallState::Answered, Seconds(1)));
    assert_eq!(call.answered_at, NOON.after(Seconds(40)));
    assert_eq!(call.deadline, NOON.after(Seconds(40 + 299 + 30)), "hard stop and grace");
    assert_eq!(pool(stage).await, (300, 0, 1));
}

async fn answer_on_answered_keeps_the_earliest<L: Ledger>(stage: &Stage<L>) {
    answer_changes_nothing(stage, State::Answered).await;
    assert_eq!(stage.call(C).await.unwrap().answered_at, NOON);
}

async fn answer_on_settled_is_no_change<L: Ledger>(stage: &Stage<L>) {
    answer_changes_nothing(stage, State::Settled).await;
}

async fn answer_on_released_is_no_change<L: Ledger>(stage: &Stage<L>) {
    answer_changes_nothing(stage, State::Released).await;
}

async fn answer_on_expired_holds_again<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    let Answered::Standing(call) = stage.answer(C).await else { panic!("the call stands") };
    assert_eq!((call.state, call.granted), (CallState::Answered, Seconds(361)));
    assert_eq!(pool(stage).await, (300, 120, 1));
}

async fn answer_on_expired_without_funds_keeps_the_hard_stop<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    stage.set_pool(DOMESTIC, 120).await;
    let Answered::Standing(call) = stage.answer(C).await else { panic!("the call stands") };
    assert_eq!((call.granted, call.final_grant()), (Seconds(361), true));
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn answer_on_ended_is_no_change<L: Ledger>(stage: &Stage<L>) {
    answer_changes_nothing(stage, State::Ended).await;
}

// ExtendCall.

const NEW: Option<i64> = Some(6);
const OLD: Option<i64> = Some(4);

async fn extend_is_over<L: Ledger>(stage: &Stage<L>, state: State, sequence: Option<i64>) {
    let call = bring(stage, state).await.unwrap();
    let before = money(stage).await;
    assert_eq!(stage.extend(C, 200, sequence, 300).await, Extended::Ended(call));
    assert_eq!(money(stage).await, before);
}

async fn extend_new_on_none_is_not_found<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    assert_eq!(stage.extend(C, 10, NEW, 300).await, Extended::NotFound);
    assert_eq!(stage.call(C).await, None);
}

async fn extend_new_on_denied_is_the_denial_and_parks_the_usage<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Denied).await;
    let answer = stage.extend(C, 10, NEW, 300).await;
    let Extended::Denied(call) = answer else { panic!("{answer:?}") };
    assert_eq!((call.state, call.parked), (CallState::Denied, Seconds(10)));
    assert_eq!(last_entry(stage).await, EntryKind::Parked);
}

async fn extend_new_on_ringing_is_answered_with_a_new_grant<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ringing).await;
    let answer = stage.extend(C, 10, NEW, 300).await;
    let Extended::Granted { call, replayed: false } = answer else { panic!("{answer:?}") };
    assert_eq!((call.state, call.granted), (CallState::Answered, Seconds(310)));
    assert_eq!((call.used, call.sequence), (Seconds(10), 6));
    assert_eq!(pool(stage).await, (360, 0, 1));
}

async fn extend_new_on_answered_is_the_highest_usage_with_a_new_grant<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Answered).await;
    let answer = stage.extend(C, 30, NEW, 600).await;
    let Extended::Granted { call, replayed: false } = answer else { panic!("{answer:?}") };
    assert_eq!((call.used, call.granted), (Seconds(61), Seconds(661)));
}

async fn extend_new_on_settled_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Settled, NEW).await;
}

async fn extend_new_on_released_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Released, NEW).await;
}

async fn extend_new_on_expired_holds_again<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    let answer = stage.extend(C, 200, NEW, 300).await;
    let Extended::Granted { call, replayed: false } = answer else { panic!("{answer:?}") };
    assert_eq!((call.state, call.granted), (CallState::Answered, Seconds(500)));
    assert_eq!((call.ended_at, call.final_grant()), (Millis::ZERO, false));
    assert_eq!(pool(stage).await, (420, 120, 1));
    assert_eq!(last_entry(stage).await, EntryKind::Reopened);
}

async fn extend_new_on_expired_without_funds_is_a_final_grant<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    stage.set_pool(DOMESTIC, 120).await;
    let answer = stage.extend(C, 200, NEW, 300).await;
    let Extended::Granted { call, replayed: false } = answer else { panic!("{answer:?}") };
    assert_eq!((call.state, call.granted), (CallState::Answered, Seconds(361)));
    assert!(call.final_grant());
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn extend_new_on_ended_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Ended, NEW).await;
}

async fn extend_old_on_none_is_not_found<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    assert_eq!(stage.extend(C, 10, OLD, 300).await, Extended::NotFound);
}

async fn extend_old_on_denied_is_the_denial<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Denied).await;
    stage.extend(C, 20, NEW, 300).await;
    let answer = stage.extend(C, 10, OLD, 300).await;
    let Extended::Denied(call) = answer else { panic!("{answer:?}") };
    assert_eq!(call.parked, Seconds(20));
}

async fn extend_old_on_ringing_is_the_last_grant_again<L: Ledger>(stage: &Stage<L>) {
    let ringing = bring(stage, State::Ringing).await.unwrap();
    let before = pool(stage).await;
    let answer = stage.extend(C, 0, Some(-1), 600).await;
    assert_eq!(answer, Extended::Granted { call: ringing, replayed: true });
    assert_eq!(pool(stage).await, before);
}

async fn extend_old_on_answered_is_the_last_grant_again<L: Ledger>(stage: &Stage<L>) {
    let known = bring(stage, State::Answered).await.unwrap();
    for sequence in [OLD, Some(5)] {
        let answer = stage.extend(C, 40, sequence, 900).await;
        assert_eq!(answer, Extended::Granted { call: known.clone(), replayed: true });
    }
    assert_eq!(pool(stage).await, (420, 0, 1));
}

async fn extend_old_on_settled_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Settled, OLD).await;
}

async fn extend_old_on_released_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Released, OLD).await;
}

async fn extend_old_on_expired_is_as_new<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    let answer = stage.extend(C, 200, OLD, 300).await;
    let Extended::Granted { call, replayed: false } = answer else { panic!("{answer:?}") };
    assert_eq!((call.state, call.granted, call.sequence), (CallState::Answered, Seconds(500), 5));
}

async fn extend_old_on_ended_is_call_already_ended<L: Ledger>(stage: &Stage<L>) {
    extend_is_over(stage, State::Ended, OLD).await;
}

// SettleCall, used > 0.

async fn settle_used_on_none_is_parked_and_ends_the_call<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    let call = stage.ended(C, Ending::Settle(Seconds(90)), EndResult::Parked).await;
    assert_eq!((call.state, call.parked), (CallState::Ended, Seconds(90)));
    assert_eq!(stage.authorize(C, ask()).await, Authorized::Ended);
    assert!(stage.snapshot().await.pools.iter().all(|(_, b)| b.held == 0 && b.spent == 0));
}

async fn settle_used_on_denied_is_parked<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Denied).await;
    let call = stage.ended(C, Ending::Settle(Seconds(90)), EndResult::Parked).await;
    assert_eq!((call.state, call.parked), (CallState::Denied, Seconds(90)));
    assert_eq!(last_entry(stage).await, EntryKind::Parked);
}

async fn settle_used_on_ringing_is_charged<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ringing).await;
    stage.settled(C, 61).await;
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn settle_used_on_answered_is_charged<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Answered).await;
    stage.settled(C, 121).await;
    assert_eq!(pool(stage).await, (0, 180, 0));
}

async fn settle_used_on_settled_with_the_same_usage_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Settled, Ending::Settle(Seconds(100)), EndResult::Settled).await;
}

async fn settle_used_on_settled_with_another_usage_is_already_settled<L: Ledger>(stage: &Stage<L>) {
    let how = Ending::Settle(Seconds(500));
    replayed_end(stage, State::Settled, how, EndResult::AlreadySettled).await;
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn settle_used_on_released_is_a_late_settle<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Released).await;
    stage.set_pool(DOMESTIC, 60).await;
    let call = stage.settled(C, 90).await;
    assert_eq!((call.state, call.shortfall_duration), (CallState::Settled, Seconds(30)));
    assert_eq!(pool(stage).await, (0, 60, 0));
    assert_eq!(last_entry(stage).await, EntryKind::SettledLate);
}

async fn settle_used_on_expired_charges_the_difference<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Expired).await;
    assert_eq!(pool(stage).await, (0, 120, 0));
    stage.settled(C, 301).await;
    assert_eq!(pool(stage).await, (0, 360, 0));
    assert_eq!(last_entry(stage).await, EntryKind::SettledLate);
}

async fn settle_used_on_ended_is_parked<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ended).await;
    let call = stage.ended(C, Ending::Settle(Seconds(90)), EndResult::Parked).await;
    assert_eq!((call.state, call.parked), (CallState::Ended, Seconds(90)));
}

async fn settle_used_on_ended_again_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ended).await;
    let call = stage.ended(C, Ending::Settle(Seconds(90)), EndResult::Parked).await;
    let before = money(stage).await;
    let again = stage.settle(C, 90).await;
    assert_eq!(again, Ended::Done { result: EndResult::Parked, call, replayed: true });
    assert_eq!(money(stage).await, before);
}

// SettleCall, used = 0, and ReleaseCall.

const ZERO: Ending = Ending::Settle(Seconds::ZERO);

async fn replayed_end<L: Ledger>(stage: &Stage<L>, state: State, how: Ending, result: EndResult) {
    let call = bring(stage, state).await.unwrap();
    let before = (money(stage).await, stage.snapshot().await.journal.len());
    assert_eq!(stage.end(C, how).await, Ended::Done { result, call, replayed: true });
    assert_eq!((money(stage).await, stage.snapshot().await.journal.len()), before);
}

async fn is_remembered_as_ended<L: Ledger>(stage: &Stage<L>, how: Ending) {
    bring(stage, State::None).await;
    let call = stage.ended(C, how, EndResult::Released).await;
    assert_eq!(call.state, CallState::Ended);
    assert_eq!(stage.authorize(C, ask()).await, Authorized::Ended);
    assert!(stage.snapshot().await.pools.is_empty(), "a late authorize holds nothing");
}

async fn gives_all_back<L: Ledger>(stage: &Stage<L>, how: Ending) {
    bring(stage, State::Ringing).await;
    assert_eq!(pool(stage).await, (300, 0, 1));
    let call = stage.ended(C, how, EndResult::Released).await;
    assert_eq!(call.state, CallState::Released);
    assert_eq!(pool(stage).await, (0, 0, 0));
}

async fn settle_zero_on_none_is_remembered_as_ended<L: Ledger>(stage: &Stage<L>) {
    is_remembered_as_ended(stage, ZERO).await;
}

async fn settle_zero_on_denied_is_no_change<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Denied, ZERO, EndResult::Released).await;
}

async fn settle_zero_on_ringing_gives_all_back<L: Ledger>(stage: &Stage<L>) {
    gives_all_back(stage, ZERO).await;
}

async fn settle_zero_on_answered_charges_the_proven_usage<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Answered).await;
    let call = stage.ended(C, ZERO, EndResult::Settled).await;
    assert_eq!((call.state, call.used), (CallState::Settled, Seconds(61)));
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn settle_zero_on_settled_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Settled, ZERO, EndResult::Settled).await;
}

async fn settle_zero_on_released_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Released, ZERO, EndResult::Released).await;
}

async fn settle_zero_on_expired_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Expired, ZERO, EndResult::Settled).await;
}

async fn settle_zero_on_ended_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Ended, ZERO, EndResult::Released).await;
}

async fn release_on_none_is_remembered_as_ended<L: Ledger>(stage: &Stage<L>) {
    is_remembered_as_ended(stage, Ending::Release).await;
}

async fn release_on_denied_is_no_change<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Denied, Ending::Release, EndResult::Released).await;
}

async fn release_on_ringing_gives_all_back<L: Ledger>(stage: &Stage<L>) {
    gives_all_back(stage, Ending::Release).await;
}

async fn release_on_answered_fails<L: Ledger>(stage: &Stage<L>) {
    let call = bring(stage, State::Answered).await.unwrap();
    let before = money(stage).await;
    assert_eq!(stage.release(C).await, Ended::AnsweredAlready(call));
    assert_eq!(money(stage).await, before);
}

async fn release_on_settled_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Settled, Ending::Release, EndResult::Settled).await;
}

async fn release_on_released_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Released, Ending::Release, EndResult::Released).await;
}

async fn release_on_expired_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Expired, Ending::Release, EndResult::Settled).await;
}

async fn release_on_ended_is_a_replay<L: Ledger>(stage: &Stage<L>) {
    replayed_end(stage, State::Ended, Ending::Release, EndResult::Released).await;
}

// Expiry.

async fn is_forgotten<L: Ledger>(stage: &Stage<L>, state: State) {
    bring(stage, state).await;
    stage.pass(ENDED_RETENTION.0);
    assert_eq!(stage.sweep().await.forgotten, 1);
    assert_eq!(stage.call(C).await, None);
}

async fn expiry_on_none_is_nothing<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::None).await;
    stage.pass(1_000_000);
    assert_eq!(stage.sweep().await, Swept::default());
}

async fn expiry_on_denied_forgets_it<L: Ledger>(stage: &Stage<L>) {
    is_forgotten(stage, State::Denied).await;
}

async fn expiry_on_ringing_gives_all_back<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Ringing).await;
    stage.pass(60);
    assert_eq!(stage.sweep().await.expired, 1);
    let call = stage.call(C).await.unwrap();
    assert_eq!((call.state, call.used), (CallState::Expired, Seconds::ZERO));
    assert_eq!(pool(stage).await, (0, 0, 0));
    assert_eq!(last_entry(stage).await, EntryKind::Expired);
}

async fn expiry_on_answered_charges_the_proven_usage<L: Ledger>(stage: &Stage<L>) {
    bring(stage, State::Answered).await;
    stage.pass(300 + 30 - 1);
    assert_eq!(stage.sweep().await.expired, 0);
    stage.pass(1);
    assert_eq!(stage.sweep().await.expired, 1);
    assert_eq!(pool(stage).await, (0, 120, 0));
}

async fn expiry_on_settled_forgets_it<L: Ledger>(stage: &Stage<L>) {
    is_forgotten(stage, State::Settled).await;
}

async fn expiry_on_released_forgets_it<L: Ledger>(stage: &Stage<L>) {
    is_forgotten(stage, State::Released).await;
}

async fn expiry_on_expired_forgets_it<L: Ledger>(stage: &Stage<L>) {
    is_forgotten(stage, State::Expired).await;
}

async fn expiry_on_ended_forgets_it<L: Ledger>(stage: &Stage<L>) {
    is_forgotten(stage, State::Ended).await;
}
