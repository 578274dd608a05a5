//! What every ledger promises its callers, one case a sentence; each runs on every ledger.

use tollgate::charging::decision::{Decision, Nuance};
use tollgate::charging::ids::TenantId;
use tollgate::charging::month::{Month, parse_zone};
use tollgate::charging::profile::{PayerState, SpendVelocity, TenantState};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::state::{
    Block, BlockNote, BlockedBy, Bucket, Call, CallState, Entry, EntryKind, Reader, nuance_code,
};
use tollgate::ledger::{
    Adjusted, Applied, Authorized, BlockSet, CallLimits, End, EndResult, Ended, Ending, Extended,
    Ledger, LedgerError, MoneyOffer, MoveReader, Moved, Page, PayerUpdate, Purchased, Restore,
    Restored, SetBlock, Snapshot, TakeReader, Taken, Versions, pool_id,
};

use crate::support::{
    DAY, DENIED_RETENTION, DOMESTIC, ENDED_RETENTION, INTERNATIONAL, NOON, Request, Stage, UNIT,
    call_id, credits, is_alert, lost_call, month_at, payer, payer_profile, request,
};

crate::on_every_ledger! {
    a_call_goes_from_its_pool_to_credits_at_a_minute_boundary
    a_pool_that_pays_whole_needs_no_credits
    a_pool_without_credits_ends_with_a_final_grant
    one_minute_of_two_calls_is_charged_once_each
    a_pool_is_shared_fairly_among_open_calls
    a_share_is_never_below_one_increment
    credits_follow_only_when_the_last_increment_of_the_pool_is_held
    a_call_never_goes_back_to_a_pool_it_has_left
    credits_are_shared_fairly_too
    an_extension_on_credits_does_not_share_with_itself
    a_call_needs_the_fee_and_the_first_increment
    a_spend_limit_gives_what_is_left_and_then_refuses
    a_spend_limit_counts_holds_and_starts_anew_each_month
    an_old_call_spends_nothing_beyond_its_month_s_limit
    lots_are_drawn_soonest_bought_first
    a_lot_that_lapses_while_held_settles_and_loses_its_rest
    a_purchase_in_the_future_pays_for_nothing_yet
    a_purchase_is_applied_once
    a_stale_version_or_month_decides_nothing
    a_stale_month_creates_or_resizes_no_pool
    calls_per_second_are_limited_and_never_stored
    concurrency_is_limited_by_payer_then_by_tenant
    concurrency_returns_with_every_end
    a_refusal_is_kept_for_retries_and_then_forgotten
    an_ended_call_is_forgotten_after_its_retention
    a_retry_gets_the_grant_in_force
    another_payload_conflicts_and_changes_nothing
    authorize_expires_due_holds_for_itself
    a_sweep_takes_no_more_than_it_is_asked
    a_call_that_asks_for_nothing_is_granted_nothing
    a_silent_ringing_call_gives_all_back
    a_silent_answered_call_is_charged_what_it_proved
    a_lost_settle_may_be_charged_as_granted
    a_settle_behind_an_expiry_as_granted_charges_what_was_used
    a_call_that_expired_as_granted_goes_on_from_its_proven_usage
    a_release_gives_all_back_and_a_late_settle_still_pays
    a_late_settle_after_expiry_charges_the_difference
    a_settle_below_the_proven_usage_charges_the_proven_usage
    usage_above_the_hold_takes_what_is_left_then_falls_short
    what_no_money_can_pay_is_a_shortfall_at_the_frozen_price
    a_call_over_the_month_s_end_stays_on_its_pool
    a_month_moved_by_a_new_time_zone_keeps_its_pool_valid
    a_resize_adds_at_once_and_shrinks_as_holds_return
    a_counter_that_is_used_up_closes_the_other
    a_free_call_is_counted_and_never_charged
    an_emergency_is_recorded_whatever_the_state_of_its_payer
    an_emergency_whose_end_came_first_is_recorded_with_its_usage
    an_emergency_on_a_used_key_leaves_the_other_call_alone
    an_open_call_of_an_unknown_payer_is_counted_when_the_payer_appears
    a_suspended_tenant_gets_no_extension_but_its_usage_is_kept
    a_blocked_payer_gets_no_extension
    a_block_stands_until_it_is_lifted_whatever_is_applied
    a_block_moves_the_version_so_that_nobody_decides_by_what_is_remembered
    blocks_are_listed_by_payer_a_page_at_a_time
    an_old_sequence_repeats_the_grant_and_keeps_the_usage
    usage_reported_out_of_order_before_the_answer_is_not_released_for_nothing
    a_call_without_new_funds_keeps_its_last_hard_stop
    an_expired_call_holds_again_and_counts_again
    a_reopened_call_has_no_charge_until_it_ends_again
    a_late_settle_below_the_proven_usage_is_known_again
    lots_that_nobody_used_go_back_whole
    ending_all_charges_what_was_proven_and_only_open_calls
    two_open_calls_return_what_they_should
    parked_usage_counts_once_whatever_is_repeated
    every_decision_leaves_one_record
    open_calls_and_the_journal_come_in_pages
    history_goes_on_where_a_reader_stopped
    a_pool_tells_once_that_it_is_nearly_and_wholly_spent
    a_wallet_tells_that_nothing_is_left
    history_begins_at_an_instant_without_missing_anything
    tenants_are_strangers_to_each_other
    decks_are_kept_by_version_and_name
    numbers_reach_every_sidecar_with_the_tenant
    a_position_shows_what_a_call_would_find
    a_lot_is_corrected_up_and_down_and_never_below_zero
    a_lot_that_was_empty_is_drawn_in_its_turn_again
    a_wallet_that_is_corrected_to_nothing_tells_so
    a_lapsed_or_unknown_lot_is_not_corrected
    a_wallet_is_corrected_up_to_its_limit
    a_pool_is_corrected_before_and_after_its_first_call
    a_pool_of_another_month_is_not_corrected
    a_pool_that_grows_by_a_correction_tells_again
    a_correction_is_applied_once_by_its_key
    a_settled_call_is_corrected_upwards_from_what_is_left
    a_settled_call_is_corrected_downwards_the_way_it_was_paid
    a_correction_downwards_never_collects_a_shortfall
    what_a_lapsed_lot_gets_back_by_a_correction_has_expired
    a_correction_frees_the_month_s_spend_limit_and_no_other
    a_corrected_call_answers_its_settle_again_from_the_record
    only_a_settled_call_is_corrected
    a_correction_rests_on_the_call_that_its_maker_saw
    a_reader_is_one_s_until_its_lease_is_over
    a_tenant_s_record_is_read_without_its_payers
    a_post_paid_call_uses_what_was_bought_and_goes_on_as_overage
    overage_that_is_held_and_not_used_was_never_funded
    a_post_paid_call_is_never_short
    overage_belongs_to_the_month_of_the_call
    overage_is_nobodys_purchase
    nobody_shares_what_is_followed_by_overage
    a_spend_limit_counts_overage
    an_expired_overage_call_is_charged_and_goes_on
    a_tenant_commits_no_more_money_than_its_spend_velocity
    what_pools_pay_whole_has_no_velocity
    what_is_given_back_may_be_committed_again
    a_long_call_gives_nothing_of_others_back
    what_only_gives_back_drops_what_is_too_old
    no_window_of_any_place_exceeds_the_spend_velocity
    overage_has_a_spend_velocity_too
    a_changed_spend_velocity_forgets_nothing
    usage_beyond_the_hold_counts_for_the_velocity
    overage_itself_is_not_corrected
    a_corrected_post_paid_call_charges_overage_and_gives_it_back_first
    a_correction_counts_for_the_spend_velocity_as_a_settle_does
    a_lost_call_is_put_back_as_it_was_granted
    what_is_gone_of_a_lost_call_s_funds_falls_short
    a_lost_call_goes_on_as_far_as_funds_allow
    a_lost_call_that_nobody_ends_expires
    a_lost_pool_is_opened_with_its_call
    a_lost_call_s_key_is_known_again
    what_a_lease_holds_is_there_for_the_calls_granted_out_of_it
    a_lease_of_money_lends_and_holds_the_rest
    a_refusal_gives_way_to_a_grant_out_of_a_lease
    a_smaller_grant_gives_way_to_one_out_of_a_lease
    a_lease_that_is_over_lends_nothing
    a_known_call_is_never_put_back
    a_grant_that_is_too_old_puts_nothing_back
    nothing_is_put_back_of_an_unknown_tenant
    a_lost_free_call_is_put_back_and_costs_nothing
    a_lost_post_paid_call_is_charged_as_overage
    usage_of_an_unknown_call_waits_for_its_grant
}

fn at_most(limit: i64) -> MoneyOffer {
    MoneyOffer { spend_limit: Some(Micros(limit)), ..credits() }
}

#[track_caller]
fn check_charge(call: &Call, pool: i64, money: i64, short: (i64, i64)) {
    let found = (
        call.pool_spent().0,
        call.money_spent().0,
        (call.shortfall_duration.0, call.shortfall_money.0),
    );
    assert_eq!(found, (pool, money, short), "{call:#?}");
}

// Funding.

async fn a_call_goes_from_its_pool_to_credits_at_a_minute_boundary<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 150).await;
    stage.buy("po-1", UNIT).await;
    let call = stage.grant("c", request().pool(DOMESTIC).money(credits()).lasting(240)).await;
    assert_eq!(call.granted, Seconds(240));
    assert_eq!(call.pools[0].held, Seconds(120), "whole minutes only");
    assert_eq!(call.money.as_ref().unwrap().held(), Micros(250_000));
    assert!(!call.final_grant());
    stage.answer("c").await;
    let call = stage.settled("c", 121).await;
    check_charge(&call, 120, 150_000, (0, 0));
    assert_eq!(call.money_duration, Seconds(60));
    assert_eq!(stage.pool(DOMESTIC).await.available(), 30);
    assert_eq!(stage.lot("po-1").await.available(), UNIT - 150_000);
}

async fn a_pool_that_pays_whole_needs_no_credits<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let call = stage.grant("c", request().pool(DOMESTIC).money(credits())).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(300), false));
    check_charge(&stage.settled("c", 61).await, 120, 0, (0, 0));
}

async fn a_pool_without_credits_ends_with_a_final_grant<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 120).await;
    let call = stage.grant("c", request().pool(DOMESTIC)).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(120), true));
    assert_eq!(stage.refusal("d", request().pool(DOMESTIC)).await, Decision::PoolExhausted);
    stage.released("c").await;
    assert_eq!(stage.pool(DOMESTIC).await.available(), 120);
}

async fn one_minute_of_two_calls_is_charged_once_each<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 3600).await;
    for call in ["c", "d"] {
        stage.grant(call, request().pool(DOMESTIC)).await;
        stage.settled(call, 5).await;
        assert!(matches!(stage.settle(call, 5).await, Ended::Done { replayed: true, .. }));
    }
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.spent, pool.held, pool.holds), (120, 0, 0));
}

async fn a_pool_is_shared_fairly_among_open_calls<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 1200).await;
    let ask = || request().pool(DOMESTIC).lasting(600);
    assert_eq!(stage.grant("c1", ask()).await.granted, Seconds(600));
    // 600 left, one other holds: 300 each, and neither is told that it is the end.
    let second = stage.grant("c2", ask()).await;
    assert_eq!((second.granted, second.final_grant()), (Seconds(300), false));
    // 300 left, two others hold: 100, cut to the minute.
    assert_eq!(stage.grant("c3", ask()).await.granted, Seconds(60));
    // A call that asks for no more than its share gets what it asks for.
    assert_eq!(stage.grant("c4", ask().lasting(60)).await.granted, Seconds(60));
    // An extension shares with the three others: 180 / 4 is below a minute, so it is one minute.
    assert_eq!(stage.extended("c3", 10, 600).await.granted, Seconds(120));
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.held, pool.holds), (1080, 4));
}

async fn a_share_is_never_below_one_increment<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 240).await;
    for call in ["c1", "c2", "c3", "c4"] {
        let granted = stage.grant(call, request().pool(DOMESTIC).lasting(60)).await.granted;
        assert_eq!(granted, Seconds(60));
    }
    assert_eq!(stage.refusal("c5", request().pool(DOMESTIC)).await, Decision::PoolExhausted);
}

async fn credits_follow_only_when_the_last_increment_of_the_pool_is_held<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.set_pool(DOMESTIC, 300).await;
    stage.buy("po-1", 10 * UNIT).await;
    let ask = || request().pool(DOMESTIC).money(credits()).lasting(600);
    let first = stage.grant("c1", ask().lasting(60)).await;
    assert_eq!(first.pools[0].held, Seconds(60));
    let second = stage.grant("c2", ask()).await;
    assert_eq!(second.granted, Seconds(120), "its share of the pool, no credits yet");
    assert_eq!(second.money.as_ref().unwrap().held(), Micros::ZERO);
    let third = stage.grant("c3", ask()).await;
    assert_eq!(third.granted, Seconds(60));
    let fourth = stage.grant("c4", ask()).await;
    assert_eq!((fourth.granted, fourth.pools[0].held), (Seconds(600), Seconds(60)));
    assert_eq!(fourth.money.as_ref().unwrap().held(), Micros(950_000));
    // Once on credits a call never goes back to the pool.
    stage.released("c2").await;
    let fourth = stage.extended("c4", 600, 60).await;
    assert_eq!((fourth.granted, fourth.pools[0].held), (Seconds(660), Seconds(60)));
    assert_eq!(fourth.money.as_ref().unwrap().held(), Micros(1_050_000));
}

async fn credits_are_shared_fairly_too<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 2 * UNIT).await;
    let ask = || request().money(credits()).lasting(600);
    assert_eq!(stage.grant("c1", ask()).await.money.unwrap().held(), Micros(1_050_000));
    // 0.95 left, one other: 0.475 pays the fee and four minutes.
    let second = stage.grant("c2", ask()).await;
    assert_eq!((second.granted, second.final_grant()), (Seconds(240), false));
    assert_eq!(stage.snapshot().await.wallet.holds, 2);
}

async fn a_call_never_goes_back_to_a_pool_it_has_left<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.set_pool(INTERNATIONAL, 600).await;
    let ask = request().pool(DOMESTIC).pool(INTERNATIONAL).lasting(180);
    stage.grant("c", ask).await;
    stage.set_pool(DOMESTIC, 6000).await;
    let call = stage.extended("c", 100, 200).await;
    let held: Vec<_> = call.pools.iter().map(|line| line.held.0).collect();
    assert_eq!(held, [60, 240]);
    check_charge(&stage.settled("c", 400).await, 420, 0, (0, 0));
    assert_eq!(stage.pool(DOMESTIC).await.spent, 60);
}

async fn an_extension_on_credits_does_not_share_with_itself<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 2_100_000).await;
    let ask = || request().money(credits()).lasting(60);
    stage.grant("c1", ask()).await;
    stage.grant("c2", ask()).await;
    // 1.80 left, one other: 0.90 pays nine minutes more.
    let call = stage.extended("c1", 60, 3600).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(600), false));
}

async fn a_call_needs_the_fee_and_the_first_increment<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 149_999).await;
    let poor = |mut ask: Request| {
        ask.offer.when_exhausted = Decision::InsufficientCredits;
        ask
    };
    let ask = || poor(request().money(credits()));
    assert_eq!(stage.refusal("c1", ask()).await, Decision::InsufficientCredits);
    stage.buy("po-2", 1).await;
    let call = stage.grant("c2", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(60), true));
    check_charge(&stage.settled("c2", 1).await, 0, 150_000, (0, 0));
}

async fn a_spend_limit_gives_what_is_left_and_then_refuses<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(at_most(350_000)).lasting(600);
    let call = stage.grant("c1", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(180), true));
    assert_eq!(stage.refusal("c2", ask()).await, Decision::SpendLimitReached);
    assert_eq!(stage.grant("c3", ask().of("bob")).await.granted, Seconds(180));
    stage.settled("c1", 61).await;
    // 0.25 of 0.35 spent: not enough for another fee and minute.
    assert_eq!(stage.refusal("c4", ask()).await, Decision::SpendLimitReached);
}

async fn a_spend_limit_counts_holds_and_starts_anew_each_month<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(at_most(400_000)).lasting(60);
    stage.grant("c1", ask()).await;
    stage.grant("c2", ask()).await;
    assert_eq!(stage.refusal("c3", ask()).await, Decision::SpendLimitReached);
    stage.pass_to_next_month();
    stage.sweep().await;
    stage.grant("c4", ask()).await;
    stage.grant("c5", ask()).await;
    assert_eq!(stage.refusal("c6", ask()).await, Decision::SpendLimitReached);
}

async fn an_old_call_spends_nothing_beyond_its_month_s_limit<L: Ledger>(stage: &Stage<L>) {
    near_the_end_of_the_month(stage);
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(at_most(1_000_000)).lasting(180);
    stage.grant("c1", ask()).await;
    stage.settled("c1", 180).await;
    stage.grant("c2", ask()).await;
    stage.extended("c2", 0, 180).await;
    stage.pass_to_next_month();
    // From here on the new month is counted: what the old one had left is no longer known.
    stage.grant("c3", ask()).await;
    let old = stage.extended("c2", 180, 6000).await;
    assert_eq!(old.money.as_ref().unwrap().held(), Micros(350_000));
    assert_eq!((old.granted, old.final_grant()), (Seconds(180), true));
}

/// 30 s before the month of the stage ends.
fn near_the_end_of_the_month<L: Ledger>(stage: &Stage<L>) {
    stage.clock.freeze_at(stage.month().ends);
    stage.pass(-30);
}

async fn lots_are_drawn_soonest_bought_first<L: Ledger>(stage: &Stage<L>) {
    let earlier = Millis(NOON.0 - 5 * 86_400_000);
    stage.buy("later", UNIT).await;
    stage.buy_at("earlier", 200_000, earlier).await;
    let call = stage.grant("c", request().money(credits())).await;
    let held: Vec<_> =
        call.money.unwrap().lots.iter().map(|l| (l.lot.as_str().to_owned(), l.held.0)).collect();
    assert_eq!(held, [("earlier".to_owned(), 200_000), ("later".to_owned(), 350_000)]);
    check_charge(&stage.settled("c", 130).await, 0, 350_000, (0, 0));
    assert_eq!(stage.lot("earlier").await.available(), 0);
    assert_eq!(stage.lot("later").await.available(), UNIT - 150_000);
    let live = stage.snapshot().await.wallet.live;
    assert_eq!(live.len(), 1, "an empty lot is not drawn any more");
}

async fn a_lot_that_lapses_while_held_settles_and_loses_its_rest<L: Ledger>(stage: &Stage<L>) {
    stage.buy_at("old", UNIT, Millis(NOON.0 - 365 * 86_400_000 + 1000)).await;
    stage.grant("c", request().money(credits())).await;
    stage.pass(1);
    assert_eq!(stage.refusal("d", request().money(credits())).await, Decision::PoolExhausted);
    assert_eq!(stage.sweep().await.lapsed, 1);
    let lot = stage.lot("old").await;
    assert_eq!((lot.expired, lot.held, lot.available()), (450_000, 550_000, 0));
    check_charge(&stage.settled("c", 60).await, 0, 150_000, (0, 0));
    let lot = stage.lot("old").await;
    assert_eq!((lot.expired, lot.held, lot.spent), (850_000, 0, 150_000));
    assert_eq!(stage.sweep().await.lapsed, 0);
}

async fn a_purchase_in_the_future_pays_for_nothing_yet<L: Ledger>(stage: &Stage<L>) {
    let tomorrow = stage.now().after(DAY);
    stage.buy_at("po-1", UNIT, tomorrow).await;
    assert_eq!(stage.refusal("c", request().money(credits())).await, Decision::PoolExhausted);
    stage.pass(DAY.0);
    stage.grant("d", request().money(credits())).await;
}

async fn a_purchase_is_applied_once<L: Ledger>(stage: &Stage<L>) {
    assert_eq!(stage.buy("po-1", UNIT).await, Purchased::Applied);
    stage.grant("c", request().money(credits())).await;
    assert_eq!(stage.buy("po-1", UNIT).await, Purchased::Replayed);
    assert_eq!(stage.buy("po-1", 2 * UNIT).await, Purchased::Conflict);
    let yesterday = Millis(NOON.0 - 86_400_000);
    assert_eq!(stage.buy_at("po-1", UNIT, yesterday).await, Purchased::Conflict);
    assert_eq!(stage.lot("po-1").await.funded, UNIT);
    assert_eq!(stage.lot("po-1").await.held, 550_000);
}

// Staleness and limits.

async fn a_stale_version_or_month_decides_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let known = stage.versions(&payer("alice")).await;
    let before = stage.snapshot().await;
    for wrong in [
        Versions { tenant: known.tenant + 1, ..known },
        Versions { payer: known.payer - 1, ..known },
        Versions::default(),
    ] {
        let mut ask = request().pool(DOMESTIC);
        ask.versions = Some(wrong);
        assert_eq!(stage.authorize("c", ask.clone()).await, Authorized::Stale);
        let refused = ask.refused(Decision::NotEntitled);
        assert_eq!(stage.authorize("c", refused).await, Authorized::Stale);
    }
    let mut ask = request().pool(DOMESTIC);
    ask.month = Some(month_at(stage.month().ends));
    assert_eq!(stage.authorize("c", ask).await, Authorized::Stale);
    assert_eq!(stage.snapshot().await, before);
    // The answer of a known key rests on nothing that could be stale.
    stage.grant("c", request().pool(DOMESTIC)).await;
    let mut ask = request().pool(DOMESTIC);
    ask.versions = Some(Versions::default());
    assert!(matches!(stage.authorize("c", ask).await, Authorized::Replayed(_)));
}

async fn a_stale_month_creates_or_resizes_no_pool<L: Ledger>(stage: &Stage<L>) {
    let next = month_at(stage.month().ends);
    let applied = stage.ledger.apply_payers(&stage.tenant, &next, &[]).await.unwrap();
    assert_eq!(applied.outcome, Applied::Stale);
}

fn limits(payer: Option<u32>, tenant: Option<u32>, second: Option<u32>) -> CallLimits {
    CallLimits { payer_calls: payer, tenant_calls: tenant, calls_per_second: second }
}

async fn calls_per_second_are_limited_and_never_stored<L: Ledger>(stage: &Stage<L>) {
    let ask = || request().free().limits(limits(None, None, Some(2)));
    stage.grant("c1", ask()).await;
    stage.grant("c2", ask()).await;
    assert_eq!(stage.authorize("c3", ask()).await, Authorized::RateLimited);
    assert!(matches!(stage.authorize("c2", ask()).await, Authorized::Replayed(_)));
    assert_eq!(stage.call("c3").await, None);
    stage.pass(1);
    stage.grant("c3", ask()).await;
}

async fn concurrency_is_limited_by_payer_then_by_tenant<L: Ledger>(stage: &Stage<L>) {
    let ask = || request().free().limits(limits(Some(1), Some(2), None));
    let nuance = async |call: &str| stage.call(call).await.unwrap().nuance;
    stage.grant("a1", ask()).await;
    assert_eq!(stage.refusal("a2", ask()).await, Decision::ConcurrencyLimit);
    assert_eq!(nuance("a2").await, nuance_code(Nuance::None));
    stage.grant("b1", ask().of("bob")).await;
    stage.set_payer("carol", PayerState::Active, &[]).await;
    assert_eq!(stage.refusal("c1", ask().of("carol")).await, Decision::ConcurrencyLimit);
    assert_eq!(nuance("c1").await, nuance_code(Nuance::OfTenant));
    assert_eq!(stage.refusal("a3", ask()).await, Decision::ConcurrencyLimit);
    assert_eq!(nuance("a3").await, nuance_code(Nuance::None), "the payer's limit is told first");
}

async fn concurrency_returns_with_every_end<L: Ledger>(stage: &Stage<L>) {
    let ask = || request().free();
    for call in ["settle", "release", "expire", "proven"] {
        stage.grant(call, ask()).await;
    }
    assert_eq!(stage.snapshot().await.tenant.open, 4);
    stage.settled("settle", 9).await;
    stage.released("release").await;
    stage.ended("proven", Ending::Proven, EndResult::Released).await;
    stage.pass(1000);
    assert_eq!(stage.sweep().await.expired, 1);
    let snapshot = stage.snapshot().await;
    assert_eq!(snapshot.tenant.open, 0);
    assert!(snapshot.payers.iter().all(|(_, account)| account.open == 0));
}

// Keys.

async fn a_refusal_is_kept_for_retries_and_then_forgotten<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 0).await;
    let ask = || request().pool(DOMESTIC);
    assert_eq!(stage.refusal("c", ask()).await, Decision::PoolExhausted);
    stage.set_pool(DOMESTIC, 600).await;
    stage.pass(DENIED_RETENTION.0 - 1);
    match stage.authorize("c", ask()).await {
        Authorized::Replayed(call) => assert_eq!(call.decision, Some(Decision::PoolExhausted)),
        other => panic!("{other:?}"),
    }
    stage.pass(1);
    stage.grant("c", ask()).await;
}

async fn an_ended_call_is_forgotten_after_its_retention<L: Ledger>(stage: &Stage<L>) {
    stage.grant("c", request().free()).await;
    stage.settled("c", 10).await;
    stage.pass(ENDED_RETENTION.0 - 1);
    assert_eq!(stage.sweep().await.forgotten, 0);
    assert_eq!(stage.authorize("c", request().free()).await, Authorized::Ended);
    stage.pass(1);
    assert_eq!(stage.sweep().await.forgotten, 1);
    assert_eq!(stage.call("c").await, None);
    stage.grant("c", request().free()).await;
}

async fn a_retry_gets_the_grant_in_force<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    let first = stage.grant("c", request().pool(DOMESTIC)).await;
    assert_eq!(stage.authorize("c", request().pool(DOMESTIC)).await, Authorized::Replayed(first));
    let extended = stage.extended("c", 200, 300).await;
    assert_eq!(extended.granted, Seconds(500));
    let again = stage.authorize("c", request().pool(DOMESTIC)).await;
    assert_eq!(again, Authorized::Replayed(extended));
    assert_eq!(stage.pool(DOMESTIC).await.held, 540);
}

async fn another_payload_conflicts_and_changes_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    let first = stage.grant("c", request().pool(DOMESTIC)).await;
    let other = request().pool(DOMESTIC).lasting(600).other_payload();
    assert_eq!(stage.authorize("c", other).await, Authorized::Conflict);
    assert_eq!(stage.call("c").await, Some(first));
    assert_eq!(stage.pool(DOMESTIC).await.held, 300);
}

// Expiry.

async fn authorize_expires_due_holds_for_itself<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.pass(59);
    assert_eq!(stage.refusal("d", request().pool(DOMESTIC)).await, Decision::PoolExhausted);
    stage.pass(1);
    stage.grant("e", request().pool(DOMESTIC)).await;
    assert_eq!(stage.call("c").await.unwrap().state, CallState::Expired);
}

async fn a_call_that_asks_for_nothing_is_granted_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    stage.grant("c", request().pool(DOMESTIC).lasting(60)).await;
    let refusal = stage.refusal("none", request().pool(DOMESTIC).lasting(0)).await;
    assert_eq!(refusal, Decision::PoolExhausted);
    assert_eq!(stage.pool(DOMESTIC).await.held, 60);
}

async fn a_sweep_takes_no_more_than_it_is_asked<L: Ledger>(stage: &Stage<L>) {
    for call in ["c1", "c2", "c3"] {
        stage.grant(call, request().free()).await;
    }
    stage.pass(60);
    let swept = stage.ledger.sweep(&stage.tenant, 2, ENDED_RETENTION).await.unwrap().outcome;
    assert_eq!((swept.expired, swept.forgotten), (2, 0));
    assert_eq!(stage.sweep().await.expired, 1);
}

async fn a_silent_ringing_call_gives_all_back<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    stage.grant("reports", request().pool(DOMESTIC)).await;
    stage.grant("silent", request().pool(DOMESTIC).terms(|t| t.reports_answer = false)).await;
    stage.pass(60);
    assert_eq!(stage.sweep().await.expired, 1, "its ringing expiry");
    stage.pass(300 + 29);
    assert_eq!(stage.sweep().await.expired, 0);
    stage.pass(1);
    assert_eq!(stage.sweep().await.expired, 1, "ringing + granted + grace");
    assert_eq!(stage.pool(DOMESTIC).await.available(), 6000);
}

async fn a_silent_answered_call_is_charged_what_it_proved<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.answer("c").await;
    stage.grant("d", request().pool(DOMESTIC)).await;
    stage.extended("d", 100, 300).await;
    stage.pass(330);
    assert_eq!(stage.sweep().await.expired, 2);
    check_charge(&stage.call("c").await.unwrap(), 60, 0, (0, 0));
    check_charge(&stage.call("d").await.unwrap(), 120, 0, (0, 0));
    assert_eq!(stage.pool(DOMESTIC).await.available(), 6000 - 180);
}

async fn a_lost_settle_may_be_charged_as_granted<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    let ask = || request().pool(DOMESTIC).terms(|t| t.charge_granted_when_lost = true);
    stage.grant("answered", ask()).await;
    stage.answer("answered").await;
    stage.grant("ringing", ask()).await;
    stage.pass(1000);
    stage.sweep().await;
    check_charge(&stage.call("answered").await.unwrap(), 300, 0, (0, 0));
    check_charge(&stage.call("ringing").await.unwrap(), 0, 0, (0, 0));
}

async fn a_settle_behind_an_expiry_as_granted_charges_what_was_used<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.buy("po-1", 1_000_000).await;
    let ask = || {
        let paid = request().pool(DOMESTIC).money(credits());
        paid.terms(|t| t.charge_granted_when_lost = true)
    };
    stage.grant("c", ask()).await;
    stage.extended("c", 30, 270).await;
    stage.pass(1000);
    stage.sweep().await;
    let expired = stage.call("c").await.unwrap();
    assert_eq!((expired.used, expired.presumed), (Seconds(30), Seconds(300)));
    check_charge(&expired, 60, 450_000, (0, 0));
    let told = stage.of_calls().await.last().unwrap().clone();
    let told = (told.kind, told.used, told.granted);
    assert_eq!(told, (EntryKind::ExpiredAsGranted, Seconds(30), Seconds(300)));

    // What the pool has got since is not drawn on.
    stage.set_pool(DOMESTIC, 600).await;
    let call = stage.settled("c", 70).await;
    check_charge(&call, 60, 150_000, (0, 0));
    assert_eq!((call.used, call.presumed), (Seconds(70), Seconds(0)));
    assert_eq!(stage.lot("po-1").await.available(), 850_000);
    let again = stage.settle("c", 70).await;
    assert!(matches!(again, Ended::Done { result: EndResult::Settled, replayed: true, .. }));

    // Never below what is proven.
    stage.grant("d", ask()).await;
    stage.extended("d", 30, 270).await;
    stage.pass(1000);
    stage.sweep().await;
    check_charge(&stage.settled("d", 10).await, 60, 0, (0, 0));
    stage.grant("e", ask()).await;
    stage.answer("e").await;
    stage.pass(1000);
    stage.sweep().await;
    let nothing = stage.settled("e", 0).await;
    assert_eq!((nothing.used, nothing.state), (Seconds(1), CallState::Settled));
    check_charge(&nothing, 60, 0, (0, 0));
    assert_eq!(stage.pool(DOMESTIC).await.spent, 60 + 60 + 60);
}

async fn a_call_that_expired_as_granted_goes_on_from_its_proven_usage<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let ask = || request().pool(DOMESTIC).terms(|t| t.charge_granted_when_lost = true);
    stage.grant("c", ask()).await;
    stage.extended("c", 61, 239).await;
    stage.pass(1000);
    stage.sweep().await;
    check_charge(&stage.call("c").await.unwrap(), 300, 0, (0, 0));
    let call = stage.extended("c", 100, 60).await;
    assert_eq!(
        (call.used, call.presumed, call.state),
        (Seconds(100), Seconds(0), CallState::Answered)
    );
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.spent, pool.held), (120, 60));
    check_charge(&stage.settled("c", 130).await, 180, 0, (0, 0));
    assert_eq!(stage.pool(DOMESTIC).await.available(), 600 - 180);
}

async fn a_release_gives_all_back_and_a_late_settle_still_pays<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.buy("po-1", 200_000).await;
    stage.grant("c", request().pool(DOMESTIC).money(credits())).await;
    stage.released("c").await;
    assert_eq!(stage.pool(DOMESTIC).await.available(), 60);
    assert_eq!(stage.lot("po-1").await.available(), 200_000);
    // What is left, in funding order; the rest is a shortfall: 0.25 for two minutes, 0.20 is there.
    let call = stage.settled("c", 180).await;
    check_charge(&call, 60, 200_000, (60, 50_000));
    assert_eq!(stage.of_calls().await.last().unwrap().kind, EntryKind::SettledLate);
    let again = stage.settle("c", 180).await;
    assert!(matches!(again, Ended::Done { result: EndResult::Settled, replayed: true, .. }));
}

async fn a_late_settle_after_expiry_charges_the_difference<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.extended("c", 61, 300).await;
    stage.pass(1000);
    stage.sweep().await;
    check_charge(&stage.call("c").await.unwrap(), 120, 0, (0, 0));
    check_charge(&stage.settled("c", 200).await, 240, 0, (0, 0));
    assert_eq!(stage.pool(DOMESTIC).await.spent, 240);
    let last = stage.snapshot().await.journal.last().unwrap().clone();
    assert_eq!((last.kind, last.postings[0].spent), (EntryKind::SettledLate, 120));
}

async fn a_settle_below_the_proven_usage_charges_the_proven_usage<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.extended("c", 130, 300).await;
    let call = stage.settled("c", 50).await;
    assert_eq!(call.used, Seconds(130));
    check_charge(&call, 180, 0, (0, 0));
    for repeat in [50, 130, 0] {
        let again = stage.settle("c", repeat).await;
        assert!(matches!(again, Ended::Done { result: EndResult::Settled, replayed: true, .. }));
    }
    let other = stage.settle("c", 51).await;
    assert!(matches!(other, Ended::Done { result: EndResult::AlreadySettled, replayed: true, .. }));
}

async fn usage_above_the_hold_takes_what_is_left_then_falls_short<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 180).await;
    stage.grant("c", request().pool(DOMESTIC).lasting(60)).await;
    stage.grant("other", request().pool(DOMESTIC).lasting(60)).await;
    check_charge(&stage.settled("c", 200).await, 120, 0, (80, 0));
    assert_eq!(stage.audit().await.listed.shortfall_duration, Seconds(80));
    check_charge(&stage.settled("other", 60).await, 60, 0, (0, 0));
}

async fn what_no_money_can_pay_is_a_shortfall_at_the_frozen_price<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 160_000).await;
    stage.grant("c", request().money(credits())).await;
    // Ten minutes cost 1.05; the fee, one minute and a hundredth are there, and all of it is taken.
    let call = stage.settled("c", 600).await;
    check_charge(&call, 0, 160_000, (540, 890_000));
    assert_eq!(call.money_duration, Seconds(60));
    assert_eq!(stage.lot("po-1").await.available(), 0);
}

async fn a_call_over_the_month_s_end_stays_on_its_pool<L: Ledger>(stage: &Stage<L>) {
    near_the_end_of_the_month(stage);
    stage.set_pool(DOMESTIC, 600).await;
    let old_month = stage.month().key;
    stage.grant("c", request().pool(DOMESTIC).lasting(120)).await;
    stage.grant("late", request().pool(DOMESTIC).lasting(120)).await;
    stage.released("late").await;
    stage.pass_to_next_month();
    stage.grant("new", request().pool(DOMESTIC).lasting(60)).await;
    assert_eq!(stage.extended("c", 100, 200).await.granted, Seconds(300));
    check_charge(&stage.settled("c", 290).await, 300, 0, (0, 0));
    check_charge(&stage.settled("late", 400).await, 300, 0, (100, 0));
    let old = stage.pool_of(DOMESTIC, &old_month).await;
    assert_eq!((old.spent, old.held, old.available()), (600, 0, 0));
    let new = stage.pool(DOMESTIC).await;
    assert_eq!((new.spent, new.held, new.funded), (0, 60, 600));
}

async fn a_month_moved_by_a_new_time_zone_keeps_its_pool_valid<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("utc", request().pool(DOMESTIC).lasting(60)).await;
    stage.pass_to_next_month();
    stage.pass(3600);
    stage.sweep().await;
    // The tenant has moved to Los Angeles, where November goes on for seven hours.
    let here = parse_zone("America/Los_Angeles").unwrap();
    let mut ask = request().pool(DOMESTIC).lasting(60);
    ask.month = Some(Month::containing(stage.now(), &here));
    stage.grant("here", ask).await;
    let pool = stage.pool_of(DOMESTIC, "2026-11").await;
    assert_eq!(
        (pool.starts, pool.ends),
        (month_at(NOON).starts, Month::containing(NOON, &here).ends)
    );
    assert_eq!((pool.funded, pool.held), (600, 60));
}

async fn a_resize_adds_at_once_and_shrinks_as_holds_return<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 300).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    assert_eq!(stage.refusal("d", request().pool(DOMESTIC)).await, Decision::PoolExhausted);
    stage.set_pool(DOMESTIC, 360).await;
    assert_eq!(stage.pool(DOMESTIC).await.available(), 60);
    stage.set_pool(DOMESTIC, 120).await;
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.funded, pool.held, pool.available()), (120, 300, 0));
    check_charge(&stage.settled("c", 250).await, 300, 0, (0, 0));
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.held, pool.spent, pool.available()), (0, 300, 0));
    assert_eq!(stage.refusal("e", request().pool(DOMESTIC)).await, Decision::PoolExhausted);
    // The shrink is forgiven at the month's end.
    stage.pass_to_next_month();
    stage.grant("f", request().pool(DOMESTIC)).await;
    assert_eq!(stage.pool(DOMESTIC).await.funded, 120);
}

async fn a_counter_that_is_used_up_closes_the_other<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.set_pool(INTERNATIONAL, 60).await;
    let domestic = || request().pool(DOMESTIC).closed_by(INTERNATIONAL).lasting(60);
    let abroad = || request().pool(INTERNATIONAL).closed_by(DOMESTIC).lasting(60);
    stage.grant("d1", domestic()).await;
    stage.grant("i1", abroad()).await;
    stage.grant("d2", domestic()).await;
    stage.settled("i1", 60).await;
    assert_eq!(stage.refusal("d3", domestic()).await, Decision::PoolExhausted);
    // What is held may still be spent, but no more than that.
    let call = stage.extended("d2", 30, 300).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(60), true));
    check_charge(&stage.settled("d2", 90).await, 60, 0, (30, 0));
    check_charge(&stage.settled("d1", 60).await, 60, 0, (0, 0));
    stage.pass_to_next_month();
    stage.grant("d4", domestic()).await;
}

// Free calls and records.

async fn a_free_call_is_counted_and_never_charged<L: Ledger>(stage: &Stage<L>) {
    let call = stage.grant("c", request().free().lasting(14_400)).await;
    assert_eq!(call.granted, Seconds(14_400));
    assert_eq!(stage.snapshot().await.tenant.open, 1);
    assert_eq!(stage.extended("c", 14_000, 3600).await.granted, Seconds(17_600));
    check_charge(&stage.settled("c", 17_000).await, 0, 0, (0, 0));
}

async fn an_emergency_is_recorded_whatever_the_state_of_its_payer<L: Ledger>(stage: &Stage<L>) {
    stage.set_tenant(TenantState::Suspended).await;
    let full = limits(Some(0), Some(0), Some(0));
    let mut ask = request().emergency().of("nobody").limits(full);
    ask.versions = Some(Versions::default());
    ask.month = Some(month_at(stage.month().ends));
    let call = stage.grant("c", ask).await;
    assert_eq!(call.decision, Some(Decision::AllowedEmergency));
    assert_eq!(stage.snapshot().await.tenant.open, 0);
    check_charge(&stage.settled("c", 500).await, 0, 0, (0, 0));
}

async fn an_emergency_whose_end_came_first_is_recorded_with_its_usage<L: Ledger>(stage: &Stage<L>) {
    stage.ended("c", Ending::Settle(Seconds(77)), EndResult::Parked).await;
    assert_eq!(stage.audit().await.listed.parked, Seconds(77));
    match stage.authorize("c", request().emergency()).await {
        Authorized::Decided(call) => {
            assert_eq!((call.state, call.used), (CallState::Settled, Seconds(77)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.audit().await.listed.parked, Seconds(0));
    stage.ended("d", Ending::Release, EndResult::Released).await;
    match stage.authorize("d", request().emergency()).await {
        Authorized::Decided(call) => assert_eq!(call.state, CallState::Released),
        other => panic!("{other:?}"),
    }
    assert!(matches!(stage.authorize("c", request().emergency()).await, Authorized::Replayed(_)));
}

async fn an_emergency_on_a_used_key_leaves_the_other_call_alone<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let call = stage.grant("c", request().pool(DOMESTIC)).await;
    let ask = request().emergency().other_payload();
    assert_eq!(stage.authorize("c", ask).await, Authorized::Conflict);
    assert_eq!(stage.call("c").await, Some(call));
    assert_eq!(stage.snapshot().await.tenant.decisions, 2);
}

async fn an_open_call_of_an_unknown_payer_is_counted_when_the_payer_appears<L: Ledger>(
    stage: &Stage<L>,
) {
    let mut ask = request().free().of("carol");
    ask.record = true;
    stage.grant("c", ask).await;
    stage.set_payer("carol", PayerState::Active, &[]).await;
    let account = |snapshot: Snapshot| {
        let mut payers = snapshot.payers.into_iter();
        payers.find(|(id, _)| id.as_str() == "carol").unwrap().1
    };
    assert_eq!(account(stage.snapshot().await).open, 1);
    stage.settled("c", 10).await;
    assert_eq!(account(stage.snapshot().await).open, 0);
}

// Extensions.

async fn a_suspended_tenant_gets_no_extension_but_its_usage_is_kept<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.set_tenant(TenantState::Suspended).await;
    match stage.extend("c", 130, Some(1), 600).await {
        Extended::Stopped(call, Decision::TenantSuspended) => {
            assert_eq!((call.used, call.granted), (Seconds(130), Seconds(300)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.pool(DOMESTIC).await.held, 300);
    check_charge(&stage.settled("c", 10).await, 180, 0, (0, 0));
}

async fn a_blocked_payer_gets_no_extension<L: Ledger>(stage: &Stage<L>) {
    stage.grant("c", request().free()).await;
    stage.set_payer("alice", PayerState::Blocked, &[]).await;
    let answer = stage.extend("c", 5, None, 60).await;
    assert!(matches!(answer, Extended::Stopped(_, Decision::FraudSuspected)), "{answer:?}");
    stage.set_payer("alice", PayerState::Active, &[]).await;
    stage.extended("c", 6, 60).await;
}

fn blocking(tenant: &TenantId, name: &str, blocked: bool, reason: &str) -> SetBlock {
    let note = BlockNote { reason: reason.to_owned(), operator: "olga".to_owned() };
    SetBlock { tenant: tenant.clone(), payer: payer(name), blocked, note }
}

async fn set_block<L: Ledger>(stage: &Stage<L>, name: &str, blocked: bool) -> BlockSet {
    let command = blocking(&stage.tenant, name, blocked, "premium calls");
    stage.ledger.set_block(&command).await.unwrap().outcome
}

async fn a_block_stands_until_it_is_lifted_whatever_is_applied<L: Ledger>(stage: &Stage<L>) {
    assert_eq!(set_block(stage, "nobody", true).await, BlockSet::Unknown);
    assert_eq!(set_block(stage, "alice", false).await, BlockSet::NotBlocked);
    stage.grant("c", request().free()).await;
    let block = Block {
        since: stage.now(),
        reason: "premium calls".to_owned(),
        operator: "olga".to_owned(),
    };
    assert_eq!(set_block(stage, "alice", true).await, BlockSet::Blocked(block.clone()));
    stage.pass(5);
    let again = blocking(&stage.tenant, "alice", true, "another reason");
    let again = stage.ledger.set_block(&again).await.unwrap().outcome;
    assert_eq!(again, BlockSet::Standing(block.clone()));
    let answer = stage.extend("c", 5, None, 60).await;
    assert!(matches!(answer, Extended::Stopped(_, Decision::FraudSuspected)), "{answer:?}");
    // The file's own block is set and lifted beside it.
    stage.set_payer("alice", PayerState::Blocked, &[]).await;
    let of_file = Block { since: stage.now(), reason: String::new(), operator: String::new() };
    let both = stage.ledger.blocks(&stage.tenant, None, 10).await.unwrap();
    let alice = payer("alice");
    let expected = vec![
        (alice.clone(), BlockedBy::File, of_file),
        (alice.clone(), BlockedBy::Operator, block.clone()),
    ];
    assert_eq!((both.items, both.next), (expected, None));
    stage.set_payer("alice", PayerState::Active, &[("US:X:DOMESTIC", 60)]).await;
    assert!(stage.ledger.payer(&stage.tenant, &alice).await.unwrap().outcome.barred);
    let answer = stage.extend("c", 5, None, 60).await;
    assert!(matches!(answer, Extended::Stopped(_, Decision::FraudSuspected)), "{answer:?}");
    assert_eq!(set_block(stage, "alice", false).await, BlockSet::Lifted(block));
    assert_eq!(set_block(stage, "alice", false).await, BlockSet::NotBlocked);
    assert!(!stage.ledger.payer(&stage.tenant, &alice).await.unwrap().outcome.barred);
    stage.extended("c", 6, 60).await;
    let told: Vec<(EntryKind, String, BlockNote)> = stage
        .snapshot()
        .await
        .journal
        .into_iter()
        .filter(|entry| matches!(entry.kind, EntryKind::PayerBlocked | EntryKind::PayerUnblocked))
        .map(|entry| (entry.kind, entry.subject, BlockNote::decode(&entry.context)))
        .collect();
    let note = blocking(&stage.tenant, "alice", true, "premium calls").note;
    let none = BlockNote::default();
    assert_eq!(
        told,
        [
            (EntryKind::PayerBlocked, "operator".to_owned(), note.clone()),
            (EntryKind::PayerBlocked, "file".to_owned(), none.clone()),
            (EntryKind::PayerUnblocked, "file".to_owned(), none),
            (EntryKind::PayerUnblocked, "operator".to_owned(), note),
        ]
    );
}

async fn a_block_moves_the_version_so_that_nobody_decides_by_what_is_remembered<L: Ledger>(
    stage: &Stage<L>,
) {
    let alice = payer("alice");
    let version = async || stage.ledger.payer(&stage.tenant, &alice).await.unwrap().outcome.version;
    let mut remembered = version().await;
    for (blocked, moves) in [(true, 1), (true, 0), (false, 1), (false, 0)] {
        set_block(stage, "alice", blocked).await;
        assert_eq!(version().await, remembered + moves);
        remembered += moves;
    }
    set_block(stage, "alice", true).await;
    let mut command = stage.command("c", request().free()).await;
    command.versions.payer -= 1;
    let stale = stage.ledger.authorize(&command).await.unwrap().outcome;
    assert_eq!(stale, Authorized::Stale);
}

async fn blocks_are_listed_by_payer_a_page_at_a_time<L: Ledger>(stage: &Stage<L>) {
    for name in ["zoe", "Bob", "carol", "alice"] {
        stage.set_payer(name, PayerState::Active, &[]).await;
        set_block(stage, name, true).await;
    }
    let mut found = vec![];
    let mut cursor: Option<String> = None;
    loop {
        let page = stage.ledger.blocks(&stage.tenant, cursor.as_deref(), 3).await.unwrap();
        found.extend(page.items.into_iter().map(|(payer, ..)| payer.as_str().to_owned()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["Bob", "alice", "carol", "zoe"]);
    for odd in ["", "alice", "alice:x", "::"] {
        let page = stage.ledger.blocks(&stage.tenant, Some(odd), 3).await;
        assert_eq!(page, Err(LedgerError::BadCursor(odd.to_owned())));
    }
}

async fn an_old_sequence_repeats_the_grant_and_keeps_the_usage<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    let first = match stage.extend("c", 100, Some(5), 300).await {
        Extended::Granted { call, replayed: false } => call,
        other => panic!("{other:?}"),
    };
    for (sequence, used) in [(5, 90), (4, 150)] {
        match stage.extend("c", used, Some(sequence), 3000).await {
            Extended::Granted { call, replayed: true } => {
                assert_eq!((call.granted, call.deadline), (first.granted, first.deadline));
                assert_eq!(call.used, Seconds(used.max(100)));
            }
            other => panic!("{other:?}"),
        }
    }
    let Extended::Granted { call, replayed: false } = stage.extend("c", 160, Some(6), 300).await
    else {
        panic!("a new sequence extends");
    };
    assert_eq!(call.granted, Seconds(460));
}

async fn usage_reported_out_of_order_before_the_answer_is_not_released_for_nothing<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.extend("c", 50, Some(-1), 300).await;
    let answer = stage.release("c").await;
    assert!(matches!(answer, Ended::AnsweredAlready(_)), "{answer:?}");
    check_charge(&stage.settled("c", 0).await, 60, 0, (0, 0));
}

async fn a_call_without_new_funds_keeps_its_last_hard_stop<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 300).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    let call = stage.extended("c", 200, 300).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(300), true));
    // A shorter request never moves the hard stop back.
    let call = stage.extended("c", 210, 10).await;
    assert_eq!(call.granted, Seconds(300));
    stage.set_pool(DOMESTIC, 600).await;
    let call = stage.extended("c", 220, 300).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(520), false));
}

async fn an_expired_call_holds_again_and_counts_again<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.extended("c", 61, 300).await;
    stage.pass(1000);
    stage.sweep().await;
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.spent, pool.held, pool.holds), (120, 0, 0));
    let call = stage.extended("c", 200, 100).await;
    assert_eq!((call.state, call.granted), (CallState::Answered, Seconds(361)));
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.spent, pool.held, pool.holds), (120, 180, 1));
    assert_eq!(stage.snapshot().await.tenant.open, 1);
    check_charge(&stage.settled("c", 250).await, 300, 0, (0, 0));
    assert_eq!(stage.snapshot().await.tenant.open, 0);
}

async fn a_reopened_call_has_no_charge_until_it_ends_again<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 250_000).await;
    stage.grant("c", request().money(credits()).lasting(60)).await;
    stage.extended("c", 150, 60).await;
    stage.pass(1000);
    stage.sweep().await;
    let call = stage.call("c").await.unwrap();
    check_charge(&call, 0, 250_000, (30, 100_000));
    assert_eq!(call.money_duration, Seconds(120));
    stage.buy("po-2", 100_000).await;
    let call = stage.extended("c", 160, 20).await;
    check_charge(&call, 0, 250_000, (0, 0));
    assert_eq!(call.money_duration, Seconds::ZERO);
    assert_eq!(stage.audit().await.listed.shortfalls, 0);
    // The fee is not taken twice: three minutes cost 0.35 in all.
    let call = stage.settled("c", 180).await;
    check_charge(&call, 0, 350_000, (0, 0));
    assert_eq!(call.money_duration, Seconds(180));
}

async fn a_late_settle_below_the_proven_usage_is_known_again<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.extended("c", 61, 60).await;
    stage.pass(1000);
    stage.sweep().await;
    check_charge(&stage.settled("c", 30).await, 120, 0, (0, 0));
    for (used, result) in [(30, EndResult::Settled), (31, EndResult::AlreadySettled)] {
        match stage.settle("c", used).await {
            Ended::Done { result: found, replayed: true, .. } => assert_eq!(found, result),
            other => panic!("{other:?}"),
        }
    }
}

async fn lots_that_nobody_used_go_back_whole<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 200_000).await;
    stage.buy("po-2", 800_000).await;
    stage.grant("c", request().money(credits()).lasting(540)).await;
    stage.released("c").await;
    assert_eq!(stage.lot("po-1").await.available(), 200_000);
    assert_eq!(stage.lot("po-2").await.available(), 800_000);
    assert_eq!(stage.snapshot().await.wallet.live.len(), 2);
}

async fn ending_all_charges_what_was_proven_and_only_open_calls<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6000).await;
    stage.grant("ringing", request().pool(DOMESTIC)).await;
    stage.grant("running", request().pool(DOMESTIC)).await;
    stage.extended("running", 61, 300).await;
    assert_eq!(stage.end("none", Ending::Proven).await, Ended::NotOpen);
    let call = stage.ended("ringing", Ending::Proven, EndResult::Released).await;
    check_charge(&call, 0, 0, (0, 0));
    let call = stage.ended("running", Ending::Proven, EndResult::Settled).await;
    check_charge(&call, 120, 0, (0, 0));
    assert_eq!(stage.end("running", Ending::Proven).await, Ended::NotOpen);
    assert_eq!(stage.call("none").await, None, "nothing is remembered of a call never seen");
}

async fn two_open_calls_return_what_they_should<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 300).await;
    stage.buy("po-1", UNIT).await;
    let ask = || request().pool(DOMESTIC).money(credits());
    stage.grant("c1", ask()).await;
    stage.grant("c2", ask()).await;
    assert_eq!(stage.lot("po-1").await.held, 550_000);
    check_charge(&stage.settled("c2", 61).await, 0, 250_000, (0, 0));
    check_charge(&stage.settled("c1", 61).await, 120, 0, (0, 0));
    let (pool, lot) = (stage.pool(DOMESTIC).await, stage.lot("po-1").await);
    assert_eq!((pool.held, pool.holds, pool.available()), (0, 0, 180));
    assert_eq!((lot.held, lot.holds, lot.available()), (0, 0, 750_000));
    assert_eq!(stage.snapshot().await.wallet.holds, 0);
}

// Records.

async fn parked_usage_counts_once_whatever_is_repeated<L: Ledger>(stage: &Stage<L>) {
    stage.refusal("denied", request().refused(Decision::NotEntitled)).await;
    for used in [20, 10, 20] {
        assert!(matches!(stage.extend("denied", used, None, 60).await, Extended::Denied(_)));
    }
    for (call, used, replayed) in [
        ("denied", 20, true),
        ("denied", 25, false),
        ("denied", 25, true),
        ("unknown", 40, false),
        ("unknown", 40, true),
        ("unknown", 30, true),
    ] {
        match stage.settle(call, used).await {
            Ended::Done { result: EndResult::Parked, replayed: found, .. } => {
                assert_eq!(found, replayed, "{call} {used}");
            }
            other => panic!("{other:?}"),
        }
    }
    let listed = stage.audit().await.listed;
    assert_eq!((listed.parked_calls, listed.parked), (2, Seconds(65)));
}

async fn every_decision_leaves_one_record<L: Ledger>(stage: &Stage<L>) {
    let fast = || request().free().limits(limits(None, None, Some(2)));
    stage.grant("c1", fast()).await;
    stage.authorize("c1", fast()).await;
    stage.authorize("c1", fast().other_payload()).await;
    stage.refusal("c2", request().refused(Decision::NotEntitled)).await;
    stage.authorize("c2", request().refused(Decision::NotEntitled)).await;
    stage.grant("c3", fast()).await;
    stage.authorize("c4", fast()).await;
    stage.release("c5").await;
    stage.authorize("c5", fast()).await;
    stage.settle("c1", 5).await;
    stage.authorize("c1", fast()).await;
    let snapshot = stage.snapshot().await;
    let decided: Vec<_> = snapshot
        .journal
        .iter()
        .filter(|e| matches!(e.kind, EntryKind::Authorized | EntryKind::Refused))
        .map(|e| (e.subject.as_str(), e.decision.unwrap()))
        .collect();
    assert_eq!(
        decided,
        [
            ("c1", Decision::AllowedFree),
            ("c1", Decision::KeyConflict),
            ("c2", Decision::NotEntitled),
            ("c3", Decision::AllowedFree),
            ("c4", Decision::RateLimited),
            ("c5", Decision::CallAlreadyEnded),
            ("c1", Decision::CallAlreadyEnded),
        ]
    );
    assert_eq!(snapshot.tenant.decisions, 7);
    assert!(snapshot.journal.iter().any(|entry| entry.report == b"bye"));
}

async fn open_calls_and_the_journal_come_in_pages<L: Ledger>(stage: &Stage<L>) {
    for call in ["c-1", "c-2", "c-3", "c-4", "c-5"] {
        stage.grant(call, request().free()).await;
        stage.pass(1);
    }
    let (mut found, mut cursor) = (vec![], None);
    loop {
        let page = stage.ledger.open_calls(&stage.tenant, cursor.as_deref(), 2).await.unwrap();
        found.extend(page.items.into_iter().map(|(id, _)| id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["c-1", "c-2", "c-3", "c-4", "c-5"].map(call_id));
    let (mut subjects, mut cursor) = (vec![], None);
    loop {
        let page = stage.ledger.journal(&stage.tenant, cursor.as_deref(), 2).await.unwrap();
        subjects.extend(page.items.into_iter().map(|entry| entry.subject));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(subjects, ["c-5", "c-4", "c-3", "c-2", "c-1"]);
    for bad in ["", "nonsense", "12-", "-"] {
        let page = stage.ledger.open_calls(&stage.tenant, Some(bad), 2).await;
        assert!(matches!(page, Err(LedgerError::BadCursor(_))), "{bad:?} {page:?}");
        if bad != "12-" {
            let page = stage.ledger.journal(&stage.tenant, Some(bad), 2).await;
            assert!(matches!(page, Err(LedgerError::BadCursor(_))), "{bad:?} {page:?}");
        }
    }
}

/// Subjects and kinds of the alerts so far.
async fn alerts<L: Ledger>(stage: &Stage<L>) -> Vec<(String, EntryKind)> {
    let journal = stage.snapshot().await.journal;
    let alerts = journal.into_iter().filter(|entry| is_alert(entry.kind));
    alerts.map(|entry| (entry.subject, entry.kind)).collect()
}

async fn a_pool_tells_once_that_it_is_nearly_and_wholly_spent<L: Ledger>(stage: &Stage<L>) {
    use EntryKind::{PoolExhausted, PoolThreshold};
    stage.set_pool(DOMESTIC, 600).await;
    let pool = pool_id(DOMESTIC, &stage.month().key);
    let told = |kind| (pool.clone(), kind);
    stage.grant("a", request().pool(DOMESTIC)).await;
    stage.settled("a", 420).await;
    assert_eq!(alerts(stage).await, []);
    // What is held is not spent.
    stage.grant("b", request().pool(DOMESTIC)).await;
    assert_eq!(alerts(stage).await, []);
    stage.settled("b", 60).await;
    assert_eq!(alerts(stage).await, [told(PoolThreshold)]);
    stage.grant("c", request().pool(DOMESTIC)).await;
    stage.settled("c", 120).await;
    let mut expected = vec![told(PoolThreshold), told(PoolExhausted)];
    assert_eq!(alerts(stage).await, expected);
    // Growth below a threshold arms it again; a jump over both tells both, the lower first.
    stage.set_pool(DOMESTIC, 1200).await;
    stage.grant("d", request().pool(DOMESTIC).lasting(600)).await;
    stage.settled("d", 600).await;
    expected.extend([told(PoolThreshold), told(PoolExhausted)]);
    assert_eq!(alerts(stage).await, expected);
    // The cause stands before what it caused.
    let journal = stage.snapshot().await.journal;
    let kinds: Vec<EntryKind> = journal.iter().rev().take(3).map(|entry| entry.kind).collect();
    assert_eq!(kinds, [PoolExhausted, PoolThreshold, EntryKind::Settled]);
}

async fn a_wallet_tells_that_nothing_is_left<L: Ledger>(stage: &Stage<L>) {
    let depleted = (String::new(), EntryKind::CreditsDepleted);
    stage.buy("po-1", 250_000).await;
    stage.grant("a", request().money(credits()).lasting(120)).await;
    // Held is not gone.
    assert_eq!(alerts(stage).await, []);
    stage.settled("a", 120).await;
    assert_eq!(alerts(stage).await, std::slice::from_ref(&depleted));
    stage.buy("po-2", 250_000).await;
    stage.pass(400 * DAY.0);
    stage.sweep().await;
    assert_eq!(alerts(stage).await, [depleted.clone(), depleted]);
}

async fn history_goes_on_where_a_reader_stopped<L: Ledger>(stage: &Stage<L>) {
    for call in ["c-1", "c-2", "c-3"] {
        stage.grant(call, request().free()).await;
    }
    let read = |after: Option<String>, most| async move {
        stage.ledger.history(&stage.tenant, after.as_deref(), most).await.unwrap()
    };
    let subjects = |page: &Page<(String, Entry)>| -> Vec<String> {
        page.items.iter().map(|(_, entry)| entry.subject.clone()).collect()
    };
    let first = read(None, 2).await;
    assert_eq!(subjects(&first), ["c-1", "c-2"]);
    assert_eq!(first.next.as_ref(), first.items.last().map(|(cursor, _)| cursor));
    let second = read(first.next, 2).await;
    assert_eq!((subjects(&second), second.next), (vec!["c-3".to_owned()], None));
    let end = second.items.last().map(|(cursor, _)| cursor.clone());
    assert_eq!(read(end.clone(), 2).await.items, []);
    stage.grant("c-4", request().free()).await;
    assert_eq!(subjects(&read(end, 2).await), ["c-4"]);
    for bad in ["", "nonsense", "-"] {
        let page = stage.ledger.history(&stage.tenant, Some(bad), 2).await;
        assert!(matches!(page, Err(LedgerError::BadCursor(_))), "{bad:?} {page:?}");
    }
}

async fn history_begins_at_an_instant_without_missing_anything<L: Ledger>(stage: &Stage<L>) {
    let since = |at| async move {
        let cursor = stage.ledger.history_since(&stage.tenant, at).await.unwrap();
        let page = stage.ledger.history(&stage.tenant, cursor.as_deref(), 100).await.unwrap();
        let subjects = page.items.into_iter().map(|(_, entry)| entry.subject);
        subjects.collect::<Vec<_>>()
    };
    assert_eq!(since(stage.now()).await, Vec::<String>::new());
    let mut made = vec![];
    // A clock that runs, then one that is a day further.
    for (call, shift) in [("today", 0), ("tomorrow", DAY.0 * 1000)] {
        stage.clock.set_millis(shift);
        let command = stage.command(call, request().emergency()).await;
        made.push((call, stage.ledger.authorize(&command).await.unwrap().now));
    }
    for (call, at) in &made {
        assert!(since(*at).await.contains(&(*call).to_owned()), "{call}");
    }
    let last = made[1].1;
    assert_eq!(since(last.after(DAY)).await, Vec::<String>::new(), "nothing is that late");
    stage.clock.freeze_at(last);
    assert!(since(last).await.contains(&"tomorrow".to_owned()));
}

async fn tenants_are_strangers_to_each_other<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant("c", request().pool(DOMESTIC)).await;
    let mut command = stage.command("c", request().pool(DOMESTIC)).await;
    command.tenant = TenantId::new(&format!("{}-x", stage.tenant)).unwrap();
    let stranger = command.tenant.clone();
    let outcome = stage.ledger.authorize(&command).await.unwrap().outcome;
    assert_eq!(outcome, Authorized::Stale);
    assert_eq!(stage.ledger.call(&stranger, &call_id("c")).await.unwrap(), None);
    assert_eq!(stage.ledger.snapshot(&stranger).await.unwrap().outcome, Default::default());
    let tenants = stage.ledger.tenants().await.unwrap();
    assert!(tenants.contains(&stage.tenant) && !tenants.contains(&stranger));
}

async fn decks_are_kept_by_version_and_name<L: Ledger>(stage: &Stage<L>) {
    let (name, one, two) =
        (stage.tenant.as_str(), format!("{}-1", stage.tenant), format!("{}-2", stage.tenant));
    assert_eq!(stage.ledger.named_deck(name).await.unwrap(), None);
    assert_eq!(stage.ledger.deck(&one).await.unwrap(), None);
    stage.ledger.put_deck(&one, b"prefix\n1").await.unwrap();
    stage.ledger.put_deck(&two, b"").await.unwrap();
    for version in [&one, &two] {
        stage.ledger.name_deck(name, version).await.unwrap();
        assert_eq!(stage.ledger.named_deck(name).await.unwrap().as_ref(), Some(version));
    }
    assert_eq!(stage.ledger.deck(&one).await.unwrap().unwrap(), b"prefix\n1");
    assert_eq!(stage.ledger.deck(&two).await.unwrap().unwrap(), b"");
    stage.ledger.ping().await.unwrap();
}

async fn numbers_reach_every_sidecar_with_the_tenant<L: Ledger>(stage: &Stage<L>) {
    let before = stage.ledger.tenant(&stage.tenant).await.unwrap().outcome;
    assert!(!stage.set_tenant(TenantState::Active).await, "applying it twice changes nothing");
    let apply = async |state, numbers: &[&str]| {
        let mut profile = payer_profile("alice", state);
        profile.numbers = numbers.iter().map(|n| (*n).to_owned()).collect();
        let update = PayerUpdate { profile, seats: vec![] };
        stage.ledger.apply_payers(&stage.tenant, &stage.month(), &[update]).await.unwrap().outcome
    };
    let numbers = ["+14255550100"];
    assert_eq!(apply(PayerState::Active, &numbers).await, Applied::Changed(1));
    let view = stage.ledger.tenant(&stage.tenant).await.unwrap().outcome;
    assert!(view.version > before.version && view.numbers.contains(numbers[0]));
    assert_eq!(apply(PayerState::Active, &numbers).await, Applied::Changed(0));
    let again = stage.ledger.tenant(&stage.tenant).await.unwrap().outcome;
    assert_eq!(again.version, view.version);
    assert_eq!(apply(PayerState::Removed, &numbers).await, Applied::Changed(1));
    let gone = stage.ledger.tenant(&stage.tenant).await.unwrap().outcome;
    assert!(gone.numbers.is_empty() && gone.version > view.version);
    let view = stage.ledger.payer(&stage.tenant, &payer("alice")).await.unwrap().outcome;
    assert_eq!(view.profile.unwrap().state, PayerState::Removed);
    let nobody = stage.ledger.payer(&stage.tenant, &payer("nobody")).await.unwrap().outcome;
    assert_eq!((nobody.version, nobody.profile), (0, None));
}

async fn a_position_shows_what_a_call_would_find<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.buy("po-1", UNIT).await;
    let families = [DOMESTIC.to_owned(), INTERNATIONAL.to_owned()];
    let look = async || {
        let (alice, c) = (payer("alice"), call_id("c"));
        let month = stage.month();
        stage.ledger.position(&stage.tenant, &alice, &c, &month, &families).await.unwrap().outcome
    };
    let before = look().await;
    assert_eq!((before.pools[0].funded, before.pools[1].funded), (600, 0));
    assert_eq!((before.credits, before.call), (Micros(UNIT), None));
    assert!(stage.snapshot().await.pools.is_empty(), "a look creates nothing");
    stage.grant("c", request().pool(DOMESTIC).money(credits()).lasting(660)).await;
    let after = look().await;
    assert_eq!((after.pools[0].held, after.pools[0].holds), (600, 1));
    assert_eq!((after.credits, after.wallet_holds), (Micros(UNIT - 150_000), 1));
    assert_eq!((after.payer.open, after.payer.held), (1, Micros(150_000)));
    assert_eq!(after.call.unwrap().state, CallState::Ringing);
}

// Corrections (D19).

#[track_caller]
fn moved(adjusted: Adjusted) -> Vec<(String, i64, i64, i64)> {
    let Adjusted::Applied(entry) = adjusted else { panic!("expected a correction: {adjusted:?}") };
    assert_eq!(entry.kind, EntryKind::Adjusted);
    let moved = |p: tollgate::ledger::state::Posting| (p.bucket, p.adjusted, p.spent, p.expired);
    entry.postings.into_iter().map(moved).collect()
}

async fn a_lot_is_corrected_up_and_down_and_never_below_zero<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    stage.grant("c", request().money(credits()).lasting(60)).await;
    let up = stage.adjust_lot("a-1", "po-1", 500_000).await;
    assert_eq!(moved(up), [("l:po-1".to_owned(), 500_000, 0, 0)]);
    assert_eq!(stage.lot("po-1").await.available(), 1_350_000, "0.15 are held");
    assert_eq!(stage.adjust_lot("a-2", "po-1", -1_350_001).await, Adjusted::Short(1_350_000));
    moved(stage.adjust_lot("a-2", "po-1", -1_350_000).await);
    let lot = stage.lot("po-1").await;
    assert_eq!((lot.available(), lot.adjusted, lot.funded), (0, -850_000, UNIT));
    let call = stage.settled("c", 60).await;
    check_charge(&call, 0, 150_000, (0, 0));
}

async fn a_lot_that_was_empty_is_drawn_in_its_turn_again<L: Ledger>(stage: &Stage<L>) {
    stage.buy_at("first", 150_000, Millis(NOON.0 - 2_000)).await;
    stage.buy_at("second", UNIT, Millis(NOON.0 - 1_000)).await;
    stage.grant("a", request().money(credits()).lasting(60)).await;
    stage.settled("a", 60).await;
    assert_eq!(stage.snapshot().await.wallet.live.len(), 1);
    moved(stage.adjust_lot("a-1", "first", 150_000).await);
    let live = stage.snapshot().await.wallet.live;
    assert_eq!(live.iter().map(|lot| lot.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    stage.grant("b", request().money(credits()).lasting(60)).await;
    stage.settled("b", 60).await;
    assert_eq!(stage.lot("first").await.spent, 300_000);
}

async fn a_wallet_that_is_corrected_to_nothing_tells_so<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    moved(stage.adjust_lot("a-1", "po-1", -UNIT).await);
    assert_eq!(alerts(stage).await, [(String::new(), EntryKind::CreditsDepleted)]);
    assert_eq!(stage.refusal("c", request().money(credits())).await, Decision::PoolExhausted);
    moved(stage.adjust_lot("a-2", "po-1", UNIT).await);
    stage.grant("d", request().money(credits())).await;
}

async fn a_lapsed_or_unknown_lot_is_not_corrected<L: Ledger>(stage: &Stage<L>) {
    stage.buy_at("old", UNIT, Millis(NOON.0 - 365 * 86_400_000 + 1_000)).await;
    assert_eq!(stage.adjust_lot("a-1", "new", 1).await, Adjusted::NotFound);
    moved(stage.adjust_lot("a-1", "old", 1).await);
    stage.pass(1);
    assert_eq!(stage.adjust_lot("a-2", "old", 1).await, Adjusted::Over);
    assert_eq!(stage.adjust_lot("a-2", "old", -1).await, Adjusted::Over);
}

async fn a_wallet_is_corrected_up_to_its_limit<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 600 * UNIT).await;
    stage.buy("po-2", 300 * UNIT).await;
    assert_eq!(stage.adjust_lot("a-1", "po-2", 101 * UNIT).await, Adjusted::Full(100 * UNIT));
    moved(stage.adjust_lot("a-1", "po-2", 100 * UNIT).await);
    assert_eq!(stage.adjust_lot("a-2", "po-2", 1).await, Adjusted::Full(0));
}

async fn a_pool_is_corrected_before_and_after_its_first_call<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 120).await;
    let up = stage.adjust_pool("a-1", DOMESTIC, 60).await;
    let id = pool_id(DOMESTIC, &stage.month().key);
    assert_eq!(moved(up), [(format!("p:{id}"), 60, 0, 0)]);
    let call = stage.grant("c", request().pool(DOMESTIC).lasting(600)).await;
    assert_eq!(call.granted, Seconds(180));
    assert_eq!(stage.adjust_pool("a-2", DOMESTIC, -1).await, Adjusted::Short(0));
    stage.settled("c", 60).await;
    assert_eq!(stage.adjust_pool("a-2", DOMESTIC, -121).await, Adjusted::Short(120));
    moved(stage.adjust_pool("a-2", DOMESTIC, -120).await);
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.funded, pool.adjusted, pool.spent, pool.available()), (120, -60, 60, 0));
    // A resize leaves the correction as it is, and next month begins without it.
    stage.set_pool(DOMESTIC, 300).await;
    assert_eq!(stage.pool(DOMESTIC).await.available(), 180);
    stage.pass_to_next_month();
    let call = stage.grant("d", request().pool(DOMESTIC).lasting(600)).await;
    assert_eq!(call.granted, Seconds(300));
    assert_eq!(
        stage.adjust_pool("a-3", DOMESTIC, 1_000_000).await,
        Adjusted::Full(1_000_000 - 300)
    );
}

async fn a_pool_of_another_month_is_not_corrected<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 120).await;
    moved(stage.adjust_pool("a-1", DOMESTIC, 60).await);
    let (now, past) = (stage.month(), stage.now());
    assert_eq!(stage.adjust_pool("a-2", INTERNATIONAL, 60).await, Adjusted::NotFound);
    assert_eq!(stage.adjust_pool_of("a-2", DOMESTIC, "2026-12", 60).await, Adjusted::NotFound);
    stage.pass_to_next_month();
    let old = stage.adjust_pool_of("a-2", DOMESTIC, &now.key, 60).await;
    assert_eq!(old, Adjusted::Over);
    // Its repeat is known nevertheless.
    let again = stage.adjust_pool_of("a-1", DOMESTIC, &now.key, 60).await;
    assert!(matches!(again, Adjusted::Replayed(entry) if entry.at == past));
    let correction = tollgate::ledger::Correction::Pool {
        pool: tollgate::charging::ids::PoolId::of(DOMESTIC, &now.key),
        amount: Seconds(60),
        month: now,
        most: Seconds(1_000),
    };
    assert_eq!(stage.adjust("a-2", "stale", correction).await, Adjusted::Stale);
}

async fn a_pool_that_grows_by_a_correction_tells_again<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 120).await;
    stage.grant("a", request().pool(DOMESTIC)).await;
    stage.settled("a", 120).await;
    let told = alerts(stage).await;
    assert_eq!(told.len(), 2, "80 and 100 %: {told:?}");
    moved(stage.adjust_pool("a-1", DOMESTIC, 480).await);
    stage.grant("b", request().pool(DOMESTIC).lasting(480)).await;
    stage.settled("b", 360).await;
    assert_eq!(alerts(stage).await.len(), 3, "80 % again");
    // Seconds that a settled call gives back arm it again, too.
    stage.adjusted("a-2", "b", 60).await;
    assert_eq!(alerts(stage).await.len(), 3);
    stage.adjusted("a-3", "b", 400).await;
    assert_eq!(alerts(stage).await.len(), 4);
}

async fn a_correction_is_applied_once_by_its_key<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    let Adjusted::Applied(entry) = stage.adjust_lot("a-1", "po-1", 7).await else {
        panic!("expected a correction")
    };
    assert_eq!(stage.adjust_lot("a-1", "po-1", 7).await, Adjusted::Replayed(entry.clone()));
    assert_eq!(stage.adjust_lot("a-1", "po-1", 8).await, Adjusted::Conflict);
    stage.grant("c", request().money(credits())).await;
    stage.settled("c", 60).await;
    assert_eq!(stage.adjust_call("a-1", "c", 100).await, Adjusted::Conflict);
    assert_eq!(stage.lot("po-1").await.adjusted, 7);
    let call = stage.adjusted("a-2", "c", 61).await;
    assert_eq!(call.used, Seconds(61));
    let again = stage.adjust_call("a-2", "c", 61).await;
    assert!(matches!(again, Adjusted::Replayed(entry) if entry.used == Seconds(61)));
    // For ever: long after the call and the lot are forgotten.
    stage.pass(400 * 86_400);
    stage.sweep().await;
    assert!(matches!(stage.adjust_call("a-2", "c", 61).await, Adjusted::Replayed(_)));
    assert_eq!(stage.adjust_lot("a-1", "po-1", 7).await, Adjusted::Replayed(entry));
    let snapshot = stage.snapshot().await;
    assert_eq!(snapshot.adjustments.len(), 2);
    assert_eq!(stage.audit().await.listed.adjustments, 2);
}

async fn a_settled_call_is_corrected_upwards_from_what_is_left<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 120).await;
    stage.buy("po-1", 300_000).await;
    stage.grant("c", request().pool(DOMESTIC).money(credits()).lasting(60)).await;
    stage.settled("c", 50).await;
    let call = stage.adjusted("a-1", "c", 130).await;
    check_charge(&call, 120, 150_000, (0, 0));
    let entry = stage.of_calls().await.pop().unwrap();
    assert_eq!(
        (entry.kind, entry.used, entry.subject.as_str()),
        (EntryKind::Adjusted, Seconds(130), "c")
    );
    assert_eq!((entry.context, entry.report), (b"why".to_vec(), b"a-1".to_vec()));
    // Beyond what is left it falls short.
    let call = stage.adjusted("a-2", "c", 300).await;
    check_charge(&call, 120, 300_000, (60, 50_000));
    assert_eq!(call.money_duration, Seconds(120));
    assert_eq!(stage.audit().await.listed.shortfall_money, Micros(50_000));
    assert_eq!(alerts(stage).await.last().unwrap().1, EntryKind::CreditsDepleted);
    // Up after late settles as well.
    stage.buy("po-2", UNIT).await;
    stage.grant("late", request().money(credits())).await;
    stage.released("late").await;
    stage.settled("late", 60).await;
    check_charge(&stage.adjusted("a-3", "late", 61).await, 0, 250_000, (0, 0));
}

async fn a_settled_call_is_corrected_downwards_the_way_it_was_paid<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.buy_at("first", 200_000, Millis(NOON.0 - 2_000)).await;
    stage.buy_at("second", 150_000, Millis(NOON.0 - 1_000)).await;
    stage.grant("c", request().pool(DOMESTIC).money(credits()).lasting(240)).await;
    stage.settled("c", 240).await;
    assert!(stage.snapshot().await.wallet.live.is_empty());
    let down = stage.adjust_call("a-1", "c", 180).await;
    assert_eq!(moved(down), [("l:second".to_owned(), 0, -100_000, 0)]);
    check_charge(&stage.call("c").await.unwrap(), 60, 250_000, (0, 0));
    let down = stage.adjust_call("a-2", "c", 50).await;
    let expected = [("l:second".to_owned(), 0, -50_000, 0), ("l:first".to_owned(), 0, -200_000, 0)];
    assert_eq!(moved(down), expected);
    let live = stage.snapshot().await.wallet.live;
    assert_eq!(live.iter().map(|lot| lot.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    let call = stage.adjusted("a-3", "c", 0).await;
    check_charge(&call, 0, 0, (0, 0));
    assert_eq!((call.state, call.used), (CallState::Settled, Seconds::ZERO));
    assert_eq!(stage.pool(DOMESTIC).await.available(), 60);
    // And up again: the pool first.
    let call = stage.adjusted("a-4", "c", 61).await;
    check_charge(&call, 60, 150_000, (0, 0));
}

async fn a_correction_downwards_never_collects_a_shortfall<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 150_000).await;
    stage.grant("c", request().money(credits()).lasting(60)).await;
    let call = stage.settled("c", 300).await;
    check_charge(&call, 0, 150_000, (240, 400_000));
    stage.buy("po-2", UNIT).await;
    let down = stage.adjust_call("a-1", "c", 180).await;
    assert_eq!(moved(down), []);
    check_charge(&stage.call("c").await.unwrap(), 0, 150_000, (120, 200_000));
    assert_eq!(stage.lot("po-2").await.available(), UNIT);
}

async fn what_a_lapsed_lot_gets_back_by_a_correction_has_expired<L: Ledger>(stage: &Stage<L>) {
    stage.buy_at("old", 250_000, Millis(NOON.0 - 365 * 86_400_000 + 1_000)).await;
    stage.buy("new", UNIT).await;
    stage.grant("c", request().money(credits()).lasting(180)).await;
    stage.settled("c", 180).await;
    stage.pass(1);
    let down = stage.adjust_call("a-1", "c", 60).await;
    let expected =
        [("l:new".to_owned(), 0, -100_000, 0), ("l:old".to_owned(), 0, -100_000, 100_000)];
    assert_eq!(moved(down), expected);
    let old = stage.lot("old").await;
    assert_eq!((old.available(), old.expired, old.spent), (0, 100_000, 150_000));
    assert_eq!(stage.snapshot().await.wallet.live.len(), 1);
}

async fn a_correction_frees_the_month_s_spend_limit_and_no_other<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 10 * UNIT).await;
    near_the_end_of_the_month(stage);
    let ask = || request().money(at_most(250_000)).lasting(120);
    stage.grant("a", ask()).await;
    stage.settled("a", 120).await;
    assert_eq!(stage.refusal("b", ask()).await, Decision::SpendLimitReached);
    stage.adjusted("a-1", "a", 0).await;
    stage.grant("c", ask()).await;
    stage.settled("c", 120).await;
    stage.pass_to_next_month();
    stage.grant("d", ask()).await;
    stage.settled("d", 120).await;
    // What last month's call gives back is not this month's.
    stage.adjusted("a-2", "c", 60).await;
    assert_eq!(stage.refusal("e", ask()).await, Decision::SpendLimitReached);
}

async fn a_corrected_call_answers_its_settle_again_from_the_record<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    stage.grant("c", request().money(credits())).await;
    stage.settled("c", 200).await;
    stage.adjusted("a-1", "c", 60).await;
    for (used, result) in [
        (200, EndResult::Settled),
        (60, EndResult::Settled),
        (0, EndResult::Settled),
        (100, EndResult::AlreadySettled),
    ] {
        let Ended::Done { result: found, call, replayed: true } = stage.settle("c", used).await
        else {
            panic!("expected a repeat")
        };
        assert_eq!(found, result, "{used}");
        check_charge(&call, 0, 150_000, (0, 0));
        assert_eq!((call.used, call.settle_used), (Seconds(60), 200));
    }
}

async fn only_a_settled_call_is_corrected<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 6_000).await;
    let ask = || request().pool(DOMESTIC).lasting(60);
    assert_eq!(stage.adjust_call("a", "none", 5).await, Adjusted::NotFound);
    stage.grant("ringing", ask()).await;
    stage.grant("answered", ask()).await;
    stage.answer("answered").await;
    stage.refusal("denied", ask().refused(Decision::NotEntitled)).await;
    stage.settle("ended", 30).await;
    stage.grant("released", ask()).await;
    stage.released("released").await;
    stage.grant("expired", ask()).await;
    stage.extended("expired", 30, 60).await;
    stage.ended("expired", Ending::Proven, EndResult::Settled).await;
    for (call, state) in [
        ("ringing", CallState::Ringing),
        ("answered", CallState::Answered),
        ("denied", CallState::Denied),
        ("ended", CallState::Ended),
        ("released", CallState::Released),
        ("expired", CallState::Expired),
    ] {
        assert_eq!(stage.adjust_call("a", call, 5).await, Adjusted::NotSettled(state));
    }
    stage.grant("settled", ask()).await;
    stage.settled("settled", 60).await;
    assert_eq!(stage.adjust_call("a", "settled", 60).await, Adjusted::Unchanged);
    stage.adjusted("a", "settled", 90).await;
    stage.grant("free", request().free()).await;
    stage.settled("free", 60).await;
    check_charge(&stage.adjusted("b", "free", 90).await, 0, 0, (0, 0));
    stage.pass(ENDED_RETENTION.0);
    stage.sweep().await;
    assert_eq!(stage.adjust_call("c", "settled", 60).await, Adjusted::NotFound);
}

async fn a_correction_rests_on_the_call_that_its_maker_saw<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    stage.grant("c", request().money(credits())).await;
    stage.settled("c", 60).await;
    for over in [(Seconds(59), Micros(150_000)), (Seconds(60), Micros(149_999))] {
        let command = tollgate::ledger::AdjustSettlement {
            tenant: stage.tenant.clone(),
            key: tollgate::charging::ids::AdjustmentId::new("a").unwrap(),
            fingerprint: "f".to_owned(),
            call: call_id("c"),
            used: Seconds(120),
            over,
            report: vec![],
        };
        let adjusted = stage.ledger.adjust_settlement(&command).await.unwrap().outcome;
        assert_eq!(adjusted, Adjusted::Stale);
    }
    check_charge(&stage.call("c").await.unwrap(), 0, 150_000, (0, 0));
}

async fn a_reader_is_one_s_until_its_lease_is_over<L: Ledger>(stage: &Stage<L>) {
    let start = stage.now();
    let take = async |owner: &str| {
        let command = TakeReader {
            tenant: stage.tenant.clone(),
            reader: "mail".to_owned(),
            owner: owner.to_owned(),
            lease: Seconds(30),
            since: stage.now(),
        };
        stage.ledger.take_reader(&command).await.unwrap().outcome
    };
    let go = async |owner: &str, cursor: &str, lease| {
        let command = MoveReader {
            tenant: stage.tenant.clone(),
            reader: "mail".to_owned(),
            owner: owner.to_owned(),
            cursor: cursor.to_owned(),
            lease: Seconds(lease),
        };
        stage.ledger.move_reader(&command).await.unwrap().outcome
    };
    let stands = |owner: &str, ends: i64, cursor: &str| Reader {
        owner: owner.to_owned(),
        ends: start.after(Seconds(ends)),
        since: start,
        cursor: cursor.to_owned(),
    };
    assert_eq!(go("one", "1-0", 30).await, Moved::Lost, "nobody has taken it");
    assert_eq!(take("one").await, Taken::Taken(stands("one", 30, "")));
    assert_eq!(take("other").await, Taken::Busy(stands("one", 30, "")));
    stage.pass(20);
    assert_eq!(go("one", "1-0", 30).await, Moved::Moved);
    stage.pass(29);
    assert_eq!(take("other").await, Taken::Busy(stands("one", 50, "1-0")));
    assert_eq!(go("other", "7-0", 30).await, Moved::Lost);
    assert_eq!(take("one").await, Taken::Taken(stands("one", 79, "1-0")));
    stage.pass(30);
    // Nobody else has taken it yet.
    assert_eq!(go("one", "2-0", 1).await, Moved::Moved);
    stage.pass(1);
    assert_eq!(take("other").await, Taken::Taken(stands("other", 110, "2-0")));
    assert_eq!(go("one", "3-0", 30).await, Moved::Lost);
    // Given up, it is anybody's at once.
    assert_eq!(go("other", "3-0", 0).await, Moved::Moved);
    assert_eq!(take("one").await, Taken::Taken(stands("one", 110, "3-0")));
    // It is no part of what is audited.
    stage.audit().await;
}

async fn a_tenant_s_record_is_read_without_its_payers<L: Ledger>(stage: &Stage<L>) {
    let found = stage.ledger.record(&stage.tenant).await.unwrap();
    assert_eq!(found.outcome, stage.ledger.tenant(&stage.tenant).await.unwrap().outcome.record);
    assert_eq!(found.now, stage.now());
    let nobody = TenantId::new("nobody").unwrap();
    assert_eq!(stage.ledger.record(&nobody).await.unwrap().outcome, None);
}

// Overage (rules 42 and 43).

fn post_paid() -> MoneyOffer {
    MoneyOffer { overage: true, ..credits() }
}

/// The overage of the month in which the stage's clock stands: funded, held, spent, holds.
async fn overage<L: Ledger>(stage: &Stage<L>) -> (i64, i64, i64, i64) {
    let balance = stage.ledger.balance(&stage.tenant).await.unwrap().outcome;
    let month = stage.month().key;
    let found = balance.overage.iter().find(|lot| lot.key.overage_month() == month);
    let Bucket { funded, held, spent, holds, .. } = found.unwrap().bucket;
    (funded, held, spent, holds)
}

/// The lots of a call's money in the order held: name, held, spent.
fn parts(call: &Call) -> Vec<(&str, i64, i64)> {
    let lots = call.money.iter().flat_map(|money| &money.lots);
    lots.map(|lot| (lot.lot.as_str(), lot.held.0, lot.spent.0)).collect()
}

async fn a_post_paid_call_uses_what_was_bought_and_goes_on_as_overage<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 60).await;
    stage.buy("po-1", 150_000).await;
    let call = stage.grant("c", request().pool(DOMESTIC).money(post_paid()).lasting(300)).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(300), false));
    assert_eq!(call.pools[0].held, Seconds(60));
    assert_eq!(parts(&call), [("po-1", 150_000, 0), ("overage:2026-11", 300_000, 0)]);
    assert_eq!(overage(stage).await, (300_000, 300_000, 0, 1));
    let call = stage.settled("c", 121).await;
    check_charge(&call, 60, 250_000, (0, 0));
    assert_eq!(parts(&call), [("po-1", 0, 150_000), ("overage:2026-11", 0, 100_000)]);
    assert_eq!(overage(stage).await, (100_000, 0, 100_000, 0));
    // Without the switch the next call has nothing.
    let ask = request().money(credits());
    assert_eq!(stage.refusal("d", ask).await, Decision::PoolExhausted);
    // Lots are told of apart.
    let balance = stage.ledger.balance(&stage.tenant).await.unwrap().outcome;
    assert_eq!((balance.lots.len(), balance.overage.len()), (1, 1));
}

async fn overage_that_is_held_and_not_used_was_never_funded<L: Ledger>(stage: &Stage<L>) {
    stage.grant("c", request().money(post_paid())).await;
    stage.released("c").await;
    assert_eq!(overage(stage).await, (0, 0, 0, 0));
    stage.grant("d", request().money(post_paid())).await;
    stage.pass(100);
    stage.sweep().await;
    assert_eq!(overage(stage).await, (0, 0, 0, 0));
    let wallet = stage.snapshot().await.wallet;
    assert_eq!((wallet.holds, wallet.live.len()), (0, 0));
    // It never lapses, and nothing of it is ever left to lapse.
    stage.pass(500 * 86_400);
    assert_eq!(stage.sweep().await.lapsed, 0);
}

async fn a_post_paid_call_is_never_short<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 200_000).await;
    stage.grant("c", request().money(post_paid()).lasting(60)).await;
    // Another call has taken what was left meanwhile.
    stage.grant("d", request().money(post_paid()).lasting(60)).await;
    let call = stage.settled("c", 6_000).await;
    check_charge(&call, 0, 10_050_000, (0, 0));
    assert_eq!(parts(&call), [("po-1", 0, 150_000), ("overage:2026-11", 0, 9_900_000)]);
    let call = stage.settled("d", 61).await;
    assert_eq!(parts(&call), [("po-1", 0, 50_000), ("overage:2026-11", 0, 200_000)]);
}

async fn overage_belongs_to_the_month_of_the_call<L: Ledger>(stage: &Stage<L>) {
    near_the_end_of_the_month(stage);
    stage.grant("c", request().money(post_paid()).lasting(60)).await;
    stage.answer("c").await;
    stage.pass_to_next_month();
    stage.grant("d", request().money(post_paid()).lasting(60)).await;
    let call = stage.extended("c", 59, 60).await;
    assert_eq!(parts(&call), [("overage:2026-11", 250_000, 0)]);
    stage.settled("c", 100).await;
    stage.settled("d", 10).await;
    assert_eq!(overage(stage).await, (150_000, 0, 150_000, 0));
    let balance = stage.ledger.balance(&stage.tenant).await.unwrap().outcome;
    let spent: Vec<_> =
        balance.overage.iter().map(|lot| (lot.key.as_str(), lot.bucket.spent)).collect();
    assert_eq!(spent, [("overage:2026-11", 250_000), ("overage:2026-12", 150_000)]);
}

async fn overage_is_nobodys_purchase<L: Ledger>(stage: &Stage<L>) {
    assert_eq!(stage.buy("overage:2026-11", 0).await, Purchased::Conflict);
    stage.grant("c", request().money(post_paid())).await;
    assert_eq!(stage.buy("overage:2026-11", 450_000).await, Purchased::Conflict);
    assert_eq!(stage.buy("po:2026-11", UNIT).await, Purchased::Applied);
    // What is bought meanwhile is used first, whatever was held first.
    let call = stage.extended("c", 300, 60).await;
    assert_eq!(parts(&call), [("po:2026-11", 100_000, 0), ("overage:2026-11", 550_000, 0)]);
    let call = stage.settled("c", 60).await;
    assert_eq!(parts(&call), [("po:2026-11", 0, 100_000), ("overage:2026-11", 0, 450_000)]);
}

async fn nobody_shares_what_is_followed_by_overage<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 2 * UNIT).await;
    for call in ["c1", "c2", "c3"] {
        let granted = stage.grant(call, request().money(post_paid()).lasting(14_400)).await;
        assert_eq!((granted.granted, granted.final_grant()), (Seconds(14_400), false));
    }
    assert_eq!(overage(stage).await.3, 3);
}

async fn a_spend_limit_counts_overage<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 200_000).await;
    let ask = || request().money(MoneyOffer { overage: true, ..at_most(350_000) }).lasting(600);
    let call = stage.grant("c1", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(180), true));
    assert_eq!(parts(&call), [("po-1", 200_000, 0), ("overage:2026-11", 150_000, 0)]);
    assert_eq!(stage.refusal("c2", ask()).await, Decision::SpendLimitReached);
    assert_eq!(stage.grant("c3", ask().of("bob")).await.granted, Seconds(180));
}

async fn an_expired_overage_call_is_charged_and_goes_on<L: Ledger>(stage: &Stage<L>) {
    stage.grant("c", request().money(post_paid()).lasting(60)).await;
    stage.extended("c", 30, 60).await;
    stage.pass(1_000);
    stage.sweep().await;
    assert_eq!(overage(stage).await, (150_000, 0, 150_000, 0));
    let call = stage.extended("c", 90, 30).await;
    assert_eq!(parts(&call), [("overage:2026-11", 100_000, 150_000)]);
    assert_eq!(overage(stage).await, (250_000, 100_000, 150_000, 1));
    check_charge(&stage.settled("c", 121).await, 0, 350_000, (0, 0));
}

// Spend velocity.

fn velocity(amount: i64, per: i64) -> MoneyOffer {
    let velocity = SpendVelocity { amount: Micros(amount), per: Seconds(per) };
    MoneyOffer { velocity: Some(velocity), ..credits() }
}

/// What counts for the velocity now, whatever its place in time.
async fn committed<L: Ledger>(stage: &Stage<L>) -> i64 {
    stage.snapshot().await.ring.total().0
}

async fn a_tenant_commits_no_more_money_than_its_spend_velocity<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(500_000, 3_600)).terms(|t| t.reports_answer = false);
    // 0.45 of 0.50; then nothing is left, whoever asks.
    assert_eq!(stage.grant("c1", ask()).await.granted, Seconds(240));
    assert!(stage.call("c1").await.unwrap().final_grant(), "0.10 of a minute more is not left");
    assert_eq!(stage.refusal("c2", ask().of("bob")).await, Decision::FraudSuspected);
    let extended = stage.extended("c1", 200, 300).await;
    assert_eq!((extended.granted, extended.final_grant()), (Seconds(240), true));
    // Before any other reason.
    let poor =
        || request().money(MoneyOffer { spend_limit: Some(Micros(0)), ..velocity(500_000, 3_600) });
    assert_eq!(stage.refusal("c3", poor()).await, Decision::FraudSuspected);
    // The window passes.
    stage.pass(3_600 + 300);
    assert_eq!(stage.grant("c4", ask().lasting(60)).await.granted, Seconds(60));
}

async fn what_pools_pay_whole_has_no_velocity<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 360).await;
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().pool(DOMESTIC).money(velocity(100_000, 60));
    let call = stage.grant("c", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(300), false));
    let call = stage.grant("d", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(60), true), "the pool's last minute");
    assert_eq!(committed(stage).await, 0);
    assert_eq!(stage.refusal("e", ask()).await, Decision::FraudSuspected);
    assert_eq!(stage.snapshot().await.ring, Default::default());
}

async fn what_is_given_back_may_be_committed_again<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(550_000, 3_600)).lasting(300);
    stage.grant("c", ask()).await;
    assert_eq!(committed(stage).await, 550_000);
    stage.settled("c", 60).await;
    assert_eq!(committed(stage).await, 150_000);
    // 0.40 are left: a fee and three minutes.
    assert_eq!(stage.grant("d", ask()).await.granted, Seconds(180));
    stage.released("d").await;
    assert_eq!(committed(stage).await, 150_000);
}

async fn a_long_call_gives_nothing_of_others_back<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(UNIT, 600)).terms(|t| t.reports_answer = false);
    stage.grant("long", ask().lasting(540)).await;
    stage.answer("long").await;
    stage.extended("long", 10, 5_000).await;
    stage.pass(800);
    // The long call's money has left the window; the other's has not.
    stage.grant("other", ask().lasting(540)).await;
    stage.settled("long", 60).await;
    assert_eq!(committed(stage).await, 950_000);
    assert_eq!(stage.refusal("more", ask()).await, Decision::FraudSuspected);
}

async fn what_only_gives_back_drops_what_is_too_old<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(UNIT, 720)).lasting(60);
    stage.grant("old", ask()).await;
    stage.settled("old", 60).await;
    stage.pass(620);
    stage.grant("young", ask()).await;
    stage.grant("ringing", ask()).await;
    stage.pass(170);
    assert_eq!(committed(stage).await, 450_000);
    // The old call's slot leaves the window, and no other is added.
    stage.released("ringing").await;
    assert_eq!(committed(stage).await, 150_000);
    stage.assert_audit_clean().await;
}

async fn no_window_of_any_place_exceeds_the_spend_velocity<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 10_000 * UNIT).await;
    let mut granted = vec![];
    for step in 0..240 {
        let id = format!("c{step}");
        let ask = request().money(velocity(2 * UNIT, 600)).lasting(60 + 60 * (step % 5));
        let ask = ask.terms(|terms| terms.ringing = Seconds(100_000));
        match stage.authorize(&id, ask).await {
            Authorized::Decided(call) if call.state == CallState::Ringing => {
                granted.push((stage.now().0, id));
            }
            Authorized::Decided(call) => assert_eq!(call.decision, Some(Decision::FraudSuspected)),
            other => panic!("{other:?}"),
        }
        // Some give back soon, some late, some never; some all and some a part of it.
        if step % 3 > 0 {
            let ended = format!("c{}", step - (step * 7) % 29);
            stage.settle(&ended, 60 * (step % 2)).await;
        }
        stage.pass(1 + (step * 37) % 53);
    }
    assert!(granted.len() > 40, "{granted:?}");
    let mut kept = vec![];
    for (at, id) in granted {
        let money = stage.call(&id).await.unwrap().money.unwrap();
        kept.push((at, (money.held() + money.spent()).0));
    }
    let mut most = 0;
    for &(start, _) in &kept {
        let within = kept.iter().filter(|(at, _)| (start..=start + 600_000).contains(at));
        most = most.max(within.map(|(_, money)| money).sum());
    }
    assert!((1_500_000..=2 * UNIT).contains(&most), "{most} within 600 s");
}

async fn overage_has_a_spend_velocity_too<L: Ledger>(stage: &Stage<L>) {
    let ask = || request().money(MoneyOffer { overage: true, ..velocity(200_000, 3_600) });
    let call = stage.grant("c", ask()).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(60), true));
    let stranger = |mut asked: Request| {
        asked.offer.when_velocity_limited = Decision::TollFreeUnfunded;
        asked
    };
    assert_eq!(stage.refusal("d", stranger(ask())).await, Decision::TollFreeUnfunded);
}

async fn a_changed_spend_velocity_forgets_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = |amount, per| request().money(velocity(amount, per)).lasting(300);
    stage.grant("c", ask(2 * UNIT, 600)).await;
    stage.pass(10);
    assert_eq!(stage.refusal("d", ask(600_000, 3_600)).await, Decision::FraudSuspected);
    assert_eq!(stage.grant("e", ask(UNIT, 3_600)).await.granted, Seconds(240));
    // What the older call gives back counts on: its slots are gone.
    stage.released("c").await;
    assert_eq!(committed(stage).await, UNIT);
    stage.released("e").await;
    assert_eq!(committed(stage).await, 550_000);
    stage.pass(3_900);
    assert_eq!(stage.grant("f", ask(550_000, 3_600)).await.granted, Seconds(300));
}

async fn usage_beyond_the_hold_counts_for_the_velocity<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(UNIT, 3_600)).lasting(60);
    stage.grant("c", ask()).await;
    check_charge(&stage.settled("c", 1_200).await, 0, 2_050_000, (0, 0));
    assert_eq!(committed(stage).await, 2_050_000);
    assert_eq!(stage.refusal("d", ask()).await, Decision::FraudSuspected);
}

async fn overage_itself_is_not_corrected<L: Ledger>(stage: &Stage<L>) {
    let refused = async || {
        for amount in [-1, 1, UNIT] {
            let adjusted = stage.adjust_lot("a", "overage:2026-11", amount).await;
            assert_eq!(adjusted, Adjusted::PostPaid, "{amount}");
        }
    };
    refused().await;
    stage.grant("c", request().money(post_paid()).lasting(60)).await;
    refused().await;
    stage.settled("c", 60).await;
    refused().await;
    assert_eq!(overage(stage).await, (150_000, 0, 150_000, 0));
}

async fn a_corrected_post_paid_call_charges_overage_and_gives_it_back_first<L: Ledger>(
    stage: &Stage<L>,
) {
    stage.buy("po-1", 150_000).await;
    stage.grant("c", request().money(post_paid()).lasting(300)).await;
    stage.settled("c", 61).await;
    let up = moved(stage.adjust_call("a-1", "c", 200).await);
    assert_eq!(up, [("l:overage:2026-11".to_owned(), 0, 200_000, 0)]);
    let call = stage.call("c").await.unwrap();
    check_charge(&call, 0, 450_000, (0, 0));
    assert_eq!(overage(stage).await, (300_000, 0, 300_000, 0));
    // What is bought meanwhile is used first.
    stage.buy("po-2", 100_000).await;
    let call = stage.adjusted("a-2", "c", 300).await;
    let lines = [("po-1", 0, 150_000), ("po-2", 0, 100_000), ("overage:2026-11", 0, 300_000)];
    assert_eq!(parts(&call), lines);
    // Overage that is given back was never funded; lots are filled again only after it.
    let down = moved(stage.adjust_call("a-3", "c", 30).await);
    let back = |bucket: &str, spent| (bucket.to_owned(), 0, spent, 0);
    assert_eq!(down, [back("l:overage:2026-11", -300_000), back("l:po-2", -100_000)]);
    assert_eq!(overage(stage).await, (0, 0, 0, 0));
    let snapshot = stage.snapshot().await;
    assert_eq!(snapshot.wallet.live.iter().map(|lot| lot.as_str()).collect::<Vec<_>>(), ["po-2"]);
    check_charge(&stage.call("c").await.unwrap(), 0, 150_000, (0, 0));
}

async fn a_correction_counts_for_the_spend_velocity_as_a_settle_does<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", 100 * UNIT).await;
    let ask = || request().money(velocity(450_000, 3_600)).lasting(60);
    stage.grant("c", ask()).await;
    stage.settled("c", 60).await;
    assert_eq!(committed(stage).await, 150_000);
    stage.adjusted("a-1", "c", 300).await;
    assert_eq!(committed(stage).await, 550_000);
    assert_eq!(stage.refusal("d", ask()).await, Decision::FraudSuspected);
    stage.adjusted("a-2", "c", 0).await;
    assert_eq!(committed(stage).await, 0);
    stage.grant("e", ask()).await;
    // What has left the window is not given back to it.
    stage.settled("e", 60).await;
    stage.pass(2 * 3_600);
    stage.grant("f", ask()).await;
    stage.adjusted("a-3", "e", 0).await;
    assert_eq!(committed(stage).await, 150_000);
}

// Signed grants: the ledger has no memory of a call that was granted.

/// A call whose five minutes are on two of the pool's and the wallet, granted, extended and forgotten. The
/// ledger is as it was before, but for the journal.
async fn lost<L: Ledger>(stage: &Stage<L>) -> Call {
    stage.set_pool(DOMESTIC, 120).await;
    stage.buy("po-1", 10 * UNIT).await;
    stage.grant("c", request().pool(DOMESTIC).money(credits())).await;
    let granted = stage.extended("c", 30, 270).await;
    check_held(&granted, 120, 350_000);
    stage.ended("c", Ending::Proven, EndResult::Settled).await;
    assert_eq!(stage.pool(DOMESTIC).await.spent, 60);
    granted
}

#[track_caller]
fn check_held(call: &Call, seconds: i64, money: i64) {
    let held: i64 = call.pools.iter().map(|line| line.held.0).sum();
    let found = call.money.as_ref().map_or(0, |money| money.held().0);
    assert_eq!((held, found), (seconds, money), "{call:?}");
}

async fn a_lost_call_is_put_back_as_it_was_granted<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    stage.set_pool(DOMESTIC, 600).await;
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let call = stage.call("lost").await.unwrap();
    assert_eq!(call, Call { deadline: call.deadline, ..granted.clone() });
    assert_eq!(call.deadline, granted.deadline.max(stage.now().after(call.terms.grace)));
    let entry = stage.of_calls().await.pop().unwrap();
    assert_eq!((entry.kind, entry.used), (EntryKind::Restored, Seconds(30)));
    assert_eq!((entry.payer, entry.context), (granted.payer.clone(), granted.context.clone()));
    assert_eq!(stage.snapshot().await.tenant.open, 1);
    // The pool has more by now; the call was granted two minutes of it, and money for the rest.
    let call = stage.settled("lost", 300).await;
    check_charge(&call, 120, 350_000, (0, 0));
    for (used, result) in [(300, EndResult::Settled), (299, EndResult::AlreadySettled)] {
        let again = stage.settle("lost", used).await;
        assert!(matches!(again, Ended::Done { result: r, replayed: true, .. } if r == result));
    }
    assert_eq!(stage.restore("lost", &granted).await, Restored::Known);
    assert_eq!(stage.lot("po-1").await.spent, 350_000);
}

async fn what_is_gone_of_a_lost_call_s_funds_falls_short<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    // Of two minutes one is left; of the money, the fee and two minutes.
    let rest = request().money(credits()).lasting(97 * 60);
    stage.grant("other", rest).await;
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    check_held(&stage.call("lost").await.unwrap(), 60, 250_000);
    check_charge(&stage.settled("lost", 300).await, 60, 250_000, (120, 200_000));
}

async fn a_lost_call_goes_on_as_far_as_funds_allow<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let call = stage.extended("lost", 290, 600).await;
    assert_eq!((call.granted, call.final_grant()), (Seconds(890), false));
    check_charge(&stage.settled("lost", 890).await, 60, 1_450_000, (0, 0));
    // Where nothing is left the client keeps its hard stop.
    let all = request().money(credits()).lasting(10_000);
    stage.grant("other", all).await;
    assert_eq!(stage.restore("late", &granted).await, Restored::Restored);
    let call = stage.extended("late", 290, 600).await;
    assert_eq!((call.granted, call.final_grant()), (granted.granted, true));
    stage.released("other").await;
    check_charge(&stage.settled("late", 300).await, 0, 550_000, (0, 0));
}

async fn a_lost_call_that_nobody_ends_expires<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    stage.pass(4_000);
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    stage.pass(granted.terms.grace.0);
    assert_eq!(stage.sweep().await.expired, 1);
    check_charge(&stage.call("lost").await.unwrap(), 60, 0, (0, 0));
    check_charge(&stage.settled("lost", 100).await, 60, 150_000, (0, 0));
}

async fn a_lost_pool_is_opened_with_its_call<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    let offer = request().pool(DOMESTIC).pool(INTERNATIONAL).closed_by(DOMESTIC).offer;
    let granted = lost_call(&offer, stage.now(), Seconds(240), Micros::ZERO);
    assert!(stage.snapshot().await.pools.is_empty());
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.funded, pool.held, pool.ends), (600, 240, stage.month().ends));
    assert_eq!(stage.pool(INTERNATIONAL).await.funded, 0);
    check_charge(&stage.settled("lost", 200).await, 240, 0, (0, 0));
    // A month that has not begun has no pools yet, and one of another month is left alone.
    let next = month_at(stage.month().ends);
    let mut offer = request().pool(DOMESTIC).offer;
    offer.month = next.clone();
    let early = lost_call(&offer, stage.now(), Seconds(60), Micros::ZERO);
    assert_eq!(stage.restore("early", &early).await, Restored::Restored);
    let command = Restore {
        tenant: stage.tenant.clone(),
        call: call_id("earlier"),
        until: stage.now().after(DAY),
        granted: early,
        month: next,
        leases: vec![],
    };
    let put_back = stage.ledger.restore(&command).await.unwrap().outcome;
    assert_eq!(put_back, Restored::Restored);
    assert_eq!(stage.snapshot().await.pools.len(), 2);
    check_charge(&stage.settled("earlier", 60).await, 0, 0, (60, 0));
}

async fn a_lost_call_s_key_is_known_again<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let again = || request().pool(DOMESTIC).money(credits());
    match stage.authorize("lost", again()).await {
        Authorized::Replayed(call) => assert_eq!(call.granted, granted.granted),
        other => panic!("{other:?}"),
    }
    let other = stage.authorize("lost", again().other_payload()).await;
    assert_eq!(other, Authorized::Conflict);
    stage.settled("lost", 300).await;
    assert_eq!(stage.authorize("lost", again()).await, Authorized::Ended);
    assert_eq!(stage.authorize("lost", again().other_payload()).await, Authorized::Conflict);
}

const LEASE: &str = "lease:test/1";

async fn what_a_lease_holds_is_there_for_the_calls_granted_out_of_it<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 900).await;
    stage.grant(LEASE, request().pool(DOMESTIC).lasting(900)).await;
    stage.refusal("other", request().pool(DOMESTIC)).await;
    let offer = request().pool(DOMESTIC).offer;
    let granted = lost_call(&offer, stage.now(), Seconds(600), Micros::ZERO);
    for (call, held, left) in [("one", 600, 300), ("two", 300, 0), ("three", 0, 0)] {
        let leases = [LEASE, "unknown", LEASE];
        assert_eq!(stage.restore_from(call, &granted, &leases).await, Restored::Restored);
        check_held(&stage.call(call).await.unwrap(), held, 0);
        check_held(&stage.call(LEASE).await.unwrap(), left, 0);
        let pool = stage.pool(DOMESTIC).await;
        assert_eq!((pool.held, pool.available()), (900, 0));
    }
    assert_eq!(stage.restore_from("one", &granted, &[LEASE]).await, Restored::Known);
    check_charge(&stage.settled("one", 600).await, 600, 0, (0, 0));
    check_charge(&stage.settled("two", 61).await, 120, 0, (0, 0));
    stage.released(LEASE).await;
    stage.released("three").await;
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.held, pool.spent), (0, 720));
}

async fn a_lease_of_money_lends_and_holds_the_rest<L: Ledger>(stage: &Stage<L>) {
    stage.buy("po-1", UNIT).await;
    stage.buy("po-2", UNIT).await;
    stage.grant(LEASE, request().money(credits()).lasting(19 * 60)).await;
    check_held(&stage.call(LEASE).await.unwrap(), 0, 1_950_000);
    let offer = request().money(credits()).offer;
    let granted = lost_call(&offer, stage.now(), Seconds::ZERO, Micros(1_050_000));
    assert_eq!(stage.restore_from("one", &granted, &[LEASE]).await, Restored::Restored);
    check_held(&stage.call("one").await.unwrap(), 0, 1_050_000);
    check_held(&stage.call(LEASE).await.unwrap(), 0, 900_000);
    assert_eq!(stage.snapshot().await.wallet.holds, 2);
    let lent = stage.of_calls().await.pop().unwrap();
    assert_eq!((lent.kind, lent.subject.as_str()), (EntryKind::Extended, LEASE));
    check_charge(&stage.settled("one", 600).await, 0, 1_050_000, (0, 0));
    // What nobody gives back comes back by itself.
    stage.pass(60);
    assert_eq!(stage.sweep().await.expired, 1);
    assert_eq!(stage.lot("po-1").await.available() + stage.lot("po-2").await.available(), 950_000);
}

async fn a_refusal_gives_way_to_a_grant_out_of_a_lease<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 300).await;
    stage.grant(LEASE, request().pool(DOMESTIC)).await;
    // The ledger refused what nobody heard of: the lease had all of the pool.
    stage.refusal("c", request().pool(DOMESTIC)).await;
    let mut granted =
        lost_call(&request().pool(DOMESTIC).offer, stage.now(), Seconds(300), Micros::ZERO);
    assert_eq!(stage.restore_from("c", &granted, &[LEASE]).await, Restored::Known);
    granted.fingerprint = stage.call("c").await.unwrap().fingerprint;
    assert_eq!(stage.restore_from("c", &granted, &[]).await, Restored::Known);
    assert_eq!(stage.restore_from("c", &granted, &[LEASE]).await, Restored::Restored);
    check_charge(&stage.settled("c", 300).await, 300, 0, (0, 0));
}

async fn a_smaller_grant_gives_way_to_one_out_of_a_lease<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 360).await;
    stage.grant(LEASE, request().pool(DOMESTIC)).await;
    let small = stage.grant("c", request().pool(DOMESTIC)).await;
    check_held(&small, 60, 0);
    let mut granted =
        lost_call(&request().pool(DOMESTIC).offer, stage.now(), Seconds(300), Micros::ZERO);
    granted.fingerprint = small.fingerprint;
    assert_eq!(stage.restore_from("c", &granted, &[LEASE]).await, Restored::Restored);
    check_held(&stage.call("c").await.unwrap(), 300, 0);
    assert_eq!(stage.snapshot().await.tenant.open, 2);
    // It holds as much now: what came first stands.
    assert_eq!(stage.restore_from("c", &granted, &[LEASE]).await, Restored::Known);
    check_charge(&stage.settled("c", 300).await, 300, 0, (0, 0));
}

async fn a_lease_that_is_over_lends_nothing<L: Ledger>(stage: &Stage<L>) {
    stage.set_pool(DOMESTIC, 600).await;
    stage.grant(LEASE, request().pool(DOMESTIC).lasting(600)).await;
    stage.pass(60);
    assert_eq!(stage.sweep().await.expired, 1);
    stage.grant("other", request().pool(DOMESTIC).lasting(480)).await;
    let granted =
        lost_call(&request().pool(DOMESTIC).offer, stage.now(), Seconds(300), Micros::ZERO);
    assert_eq!(stage.restore_from("c", &granted, &[LEASE]).await, Restored::Restored);
    check_held(&stage.call("c").await.unwrap(), 120, 0);
    check_charge(&stage.settled("c", 300).await, 120, 0, (180, 0));
}

async fn a_known_call_is_never_put_back<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    stage.refusal("denied", request().refused(Decision::NotEntitled)).await;
    stage.grant("ringing", request().money(credits())).await;
    stage.grant("answered", request().money(credits())).await;
    stage.answer("answered").await;
    stage.grant("settled", request().money(credits())).await;
    stage.settled("settled", 60).await;
    stage.grant("released", request().money(credits())).await;
    stage.released("released").await;
    stage.release("ended").await;
    stage.settle("parked", 60).await;
    let before = stage.snapshot().await;
    for call in ["c", "denied", "ringing", "answered", "settled", "released", "ended", "parked"] {
        assert_eq!(stage.restore(call, &granted).await, Restored::Known, "{call}");
    }
    assert_eq!(stage.snapshot().await, before);
}

async fn a_grant_that_is_too_old_puts_nothing_back<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    // The call ended when the grant was made: nothing can be forgotten sooner.
    let until = stage.now().after(ENDED_RETENTION - Seconds(60));
    for _ in 0..24 * 60 - 2 {
        stage.pass(60);
        stage.sweep().await;
        assert_eq!(stage.restore_until("c", &granted, until).await, Restored::Known);
    }
    let before = stage.snapshot().await;
    for _ in 0..60 {
        stage.pass(60);
        assert_ne!(stage.restore_until("c", &granted, until).await, Restored::Restored);
        assert_eq!(stage.restore_until("d", &granted, until).await, Restored::TooLate);
    }
    assert_eq!(stage.snapshot().await, before);
    stage.sweep().await;
    assert_eq!(stage.call("c").await, None);
    assert_eq!(stage.restore_until("c", &granted, until).await, Restored::TooLate);
    assert_eq!(stage.pool(DOMESTIC).await.spent, 60);
}

async fn nothing_is_put_back_of_an_unknown_tenant<L: Ledger>(stage: &Stage<L>) {
    let granted = lost(stage).await;
    let stranger = TenantId::new(&format!("{}-stranger", stage.tenant)).unwrap();
    let command = Restore {
        tenant: stranger.clone(),
        call: call_id("lost"),
        until: stage.now().after(DAY),
        granted,
        month: stage.month(),
        leases: vec![],
    };
    let put_back = stage.ledger.restore(&command).await.unwrap().outcome;
    assert_eq!(put_back, Restored::NoTenant);
    let nothing = stage.ledger.snapshot(&stranger).await.unwrap().outcome;
    assert_eq!(nothing, Snapshot::default());
}

async fn a_lost_free_call_is_put_back_and_costs_nothing<L: Ledger>(stage: &Stage<L>) {
    let granted = lost_call(&request().free().offer, stage.now(), Seconds::ZERO, Micros::ZERO);
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let call = stage.settled("lost", 61).await;
    check_charge(&call, 0, 0, (0, 0));
    assert_eq!(call.decision, Some(Decision::AllowedFree));
}

async fn a_lost_post_paid_call_is_charged_as_overage<L: Ledger>(stage: &Stage<L>) {
    let velocity = SpendVelocity { amount: Micros(UNIT), per: Seconds(600) };
    let money = MoneyOffer { overage: true, velocity: Some(velocity), ..credits() };
    let offer = request().money(money).offer;
    let granted = lost_call(&offer, stage.now(), Seconds::ZERO, Micros(550_000));
    stage.buy("po-1", 200_000).await;
    assert_eq!(stage.restore("lost", &granted).await, Restored::Restored);
    let lots: Vec<_> = stage.call("lost").await.unwrap().money.unwrap().lots;
    let lots: Vec<_> = lots.iter().map(|line| (line.lot.is_overage(), line.held.0)).collect();
    assert_eq!(lots, [(false, 200_000), (true, 350_000)]);
    // It was granted, so it counts for the velocity, and is not limited by it.
    assert_eq!(stage.snapshot().await.ring.total(), Micros(550_000));
    check_charge(&stage.settled("lost", 1_200).await, 0, 2_050_000, (0, 0));
}

async fn usage_of_an_unknown_call_waits_for_its_grant<L: Ledger>(stage: &Stage<L>) {
    let mut command = End {
        tenant: stage.tenant.clone(),
        call: call_id("lost"),
        how: Ending::Settle(Seconds(60)),
        report: b"bye".to_vec(),
        ended_retention: ENDED_RETENTION,
        has_grant: true,
    };
    let before = stage.snapshot().await;
    assert_eq!(stage.ledger.end(&command).await.unwrap().outcome, Ended::Unknown);
    assert_eq!(stage.snapshot().await, before);
    // What is released may be used after all, and is not to be a stranger's call then.
    let unused =
        End { call: call_id("unused"), how: Ending::Settle(Seconds::ZERO), ..command.clone() };
    assert_eq!(stage.ledger.end(&unused).await.unwrap().outcome, Ended::Unknown);
    let proven = End { call: call_id("proven"), how: Ending::Proven, ..command.clone() };
    assert_eq!(stage.ledger.end(&proven).await.unwrap().outcome, Ended::NotOpen);
    command.has_grant = false;
    let parked = stage.ledger.end(&command).await.unwrap().outcome;
    assert!(matches!(parked, Ended::Done { result: EndResult::Parked, replayed: false, .. }));
    let entry = stage.of_calls().await.pop().unwrap();
    assert_eq!((entry.kind, entry.report), (EntryKind::Parked, b"bye".to_vec()));
    command.has_grant = true;
    let again = stage.ledger.end(&command).await.unwrap().outcome;
    assert!(matches!(again, Ended::Done { result: EndResult::Parked, replayed: true, .. }));
}
