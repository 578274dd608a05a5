//! D1 to D29: what was decided where the rules are silent.

use tollgate::charging::units::Seconds;
use tollgate::config::Config;
use tollgate::proto::v1::report_recharge_request::Outcome;
use tollgate::proto::v1::{
    ActivateDeckRequest, AdjustBalanceRequest, AdjustSettlementRequest, AuthorizeCallRequest,
    CallClass, Decision, EventType, FundingSource, ListAdjustmentsRequest, ListDecisionsRequest,
    Money, PurchaseCreditsRequest, RechargeFailed, ReportRechargeRequest, SettleResult,
    adjust_balance_request::Amount,
};
use tonic::Code;

use crate::rules::{
    DECK, HARARE, LONDON, PARIS, SAN_JUAN, SEATTLE, SUPPORT, TEN, TORONTO, TUNIS, Town, amount,
    call, charged, crowd, dial_out, instant, lasting, length, named, sources, toll_free, usd, user,
    users, whole_world,
};
use crate::server::config;
use crate::support::redis::RedisServer;

on_every_ledger! {
    d01_pool_time_is_charged_in_whole_started_minutes_unless_set
    d02_the_month_is_that_of_the_tenants_zone
    d03_a_call_is_paid_from_the_month_in_which_it_was_authorized
    d04_a_call_crosses_from_pool_to_credits_at_a_minute_boundary
    d05_grants_are_five_minutes_and_a_pool_is_shared_fairly
    d06_a_call_on_credits_needs_the_fee_and_the_first_increment
    d07_what_a_settle_cannot_collect_is_a_shortfall
    d08_a_running_call_at_zero_gets_its_hard_stop
    d09_a_licence_change_resizes_the_pool_at_once
    d10_several_plans_are_drawn_on_in_the_order_of_the_catalogue
    d11_the_international_cap_closes_both_counters_or_each_its_own
    d13_unlisted_destinations_are_refused_unless_priced_and_allowed
    d14_money_is_rounded_up_once_to_the_micro_unit
    d15_spend_limits_count_held_amounts_and_give_what_is_left
    d16_a_recharge_is_asked_for_once_and_backs_off_after_a_failure
    d17_a_lot_expires_a_year_after_the_instant_of_its_purchase
    d18_alerts_are_told_once_and_armed_again_by_growth
    d19_corrections_are_adjustments_and_never_a_second_settle
    d22_emergency_calls_are_free_counted_nowhere_and_recorded
    d23_an_organiser_without_credits_is_refused_when_the_minutes_are_used_up
    d24_an_anonymous_toll_free_caller_is_rated_and_never_refused_for_it
    d25_pay_as_you_go_outside_its_zone_gives_no_entitlement
    d26_all_amounts_of_a_tenant_are_in_one_currency
    d28_a_call_that_money_must_pay_and_nobody_priced_is_unrated
    d29_toll_free_of_the_own_plan_is_free_and_any_other_is_priced
}

on_any_ledger! {
    d12_under_the_policy_domestic_us_and_pr_are_one_country
    d21_premium_prefixes_outside_the_documented_countries_are_refused
    d27_a_territory_takes_the_list_entry_of_its_parent
}

use FundingSource::{Credits, Pool};

async fn d01_pool_time_is_charged_in_whole_started_minutes_unless_set(town: Town) {
    let all = users([user("alice", "US", "MCOEV, MCOPSTN1"), user("bob", "US", "MCOEV, MCOPSTN5")]);
    town.apply(&format!("pool_increments: {{ MCOPSTN1: 1s }}, {all}")).await;
    for (payer, used, expected) in
        [("alice", 61, 61), ("bob", 61, 120), ("alice", 0, 0), ("bob", 0, 0), ("bob", 1, 60)]
    {
        let settled = town.talk(call(payer, SEATTLE), used).await;
        assert_eq!(charged(&settled), (expected, "0"), "{payer}, {used} s");
    }
    // A running call keeps the increment that it began with.
    town.ask(named(call("alice", SEATTLE), "running")).await;
    let applied = town.apply(&format!("pool_increments: {{ MCOPSTN1: 6s }}, {all}")).await;
    assert_eq!((applied.updated, applied.unchanged), (1, 2));
    town.ask(named(call("alice", SEATTLE), "later")).await;
    assert_eq!(charged(&town.settle("running", 61).await).0, 61);
    assert_eq!(charged(&town.settle("later", 61).await).0, 66);
    let faults = town.faults(&format!("pool_increments: {{ MCOPSTN1: 7s }}, {all}")).await;
    assert!(faults[0].starts_with("pool_increments.MCOPSTN1: "), "{faults:?}");
}

async fn d02_the_month_is_that_of_the_tenants_zone(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5")]);
    for (zone, last, first) in [
        ("America/Los_Angeles", "2026-12-01T07:59:59Z", "2026-12-01T08:00:00Z"),
        ("Asia/Kolkata", "2027-01-31T18:29:59Z", "2027-01-31T18:30:00Z"),
        ("Pacific/Auckland", "2027-03-31T10:59:59Z", "2027-03-31T11:00:00Z"),
        ("UTC", "2027-05-31T23:59:59Z", "2027-06-01T00:00:00Z"),
    ] {
        town.at(last);
        town.apply(&format!("time_zone: {zone}, {alice}")).await;
        town.talk(call("alice", SEATTLE), 7_200).await;
        assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::PoolExhausted, "{zone}");
        town.at(first);
        assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed, "{zone}");
        assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (120, 0), "{zone}");
    }
    let faults = town.faults("time_zone: Mars/Olympus").await;
    assert!(faults[0].starts_with("time_zone: "), "{faults:?}");
}

async fn d03_a_call_is_paid_from_the_month_in_which_it_was_authorized(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    town.talk(call("alice", SEATTLE), 119 * 60).await;
    town.at("2026-11-30T23:59:30Z");
    town.ask(named(call("alice", SEATTLE), "across")).await;
    town.clock.advance(Seconds(50));
    // A minute of the old month is left; then credits, though the new month has a full pool.
    let extended = town.extend("across", 50, 120).await;
    assert_eq!(sources(&extended.funding), [Pool, Credits]);
    assert_eq!(charged(&town.settle("across", 170).await), (180, "0.02"));
    assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (120, 0));
}

async fn d04_a_call_crosses_from_pool_to_credits_at_a_minute_boundary(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    town.talk(call("alice", SEATTLE), 118 * 60).await;
    let answer = town.ask(named(lasting(call("alice", SEATTLE), 300), "a")).await;
    let told: Vec<_> = answer
        .funding
        .iter()
        .map(|line| (line.source(), line.duration.unwrap().seconds, amount(&line.money)))
        .collect();
    assert_eq!(told, [(Pool, 120, "0"), (Credits, 180, "0.03")]);
    assert_eq!(charged(&town.settle("a", 121).await), (180, "0.01"));
}

async fn d05_grants_are_five_minutes_and_a_pool_is_shared_fairly(town: Town) {
    let unsaid = |of| AuthorizeCallRequest { requested_duration: None, ..of };
    town.apply(&users(crowd("u", 10, "US", "MCOEV, MCOPSTN5"))).await;
    let granted = async |of: AuthorizeCallRequest| {
        let answer = town.ask(of).await;
        let grant = answer.grant.expect("a grant");
        (grant.granted_duration.unwrap().seconds, grant.final_grant, answer.warnings.len())
    };
    assert_eq!(granted(unsaid(call("u-0", SEATTLE))).await, (300, false, 0));
    let long = named(lasting(call("u-1", SEATTLE), 5 * 3_600), "long");
    assert_eq!(granted(long).await, (4 * 3_600, false, 1), "clamped, with a warning");
    town.settle("long", 1).await;
    // 1,200 minutes less one and the five that are held: six are left after this.
    town.talk(call("u-2", SEATTLE), 1_188 * 60).await;
    // Six minutes by two, the open hold and this one.
    let first = granted(lasting(call("u-3", SEATTLE), 3_600)).await;
    assert_eq!(first, (180, false, 0), "a short grant, not a final one");
    assert_eq!(granted(lasting(call("u-4", SEATTLE), 3_600)).await, (60, false, 0));
    assert_eq!(granted(lasting(call("u-5", SEATTLE), 60)).await.0, 60, "as much as it asks for");
}

async fn d06_a_call_on_credits_needs_the_fee_and_the_first_increment(town: Town) {
    let payg = users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&payg).await;
    town.buy("po-1", "0.149999").await.unwrap();
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::InsufficientCredits);
    town.buy("po-2", "0.000001").await.unwrap();
    assert_eq!(charged(&town.talk(call("alice", PARIS), 60).await), (60, "0.15"));
}

async fn d07_what_a_settle_cannot_collect_is_a_shortfall(town: Town) {
    let payg = users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&payg).await;
    town.buy("po-1", "0.50").await.unwrap();
    // Two minutes at 0.50 each, of which one can be paid.
    let settled = town.talk(call("alice", HARARE), 120).await;
    assert_eq!(amount(&settled.charged_money), "0.5");
    assert_eq!(amount(&settled.shortfall_money), "0.5");
    assert_eq!(town.available().await, "0");
    assert_eq!(town.events(&[EventType::Shortfall]).await.len(), 1, "listed");
    town.buy("po-2", "1").await.unwrap();
    assert_eq!(town.available().await, "1", "not deducted unless the tenant says so");
    town.apply(&format!("deduct_shortfall: true, {payg}")).await;
    town.talk(call("alice", HARARE), 180).await;
    assert_eq!(town.available().await, "0");
    // 0.50 of the first call, and of the second that used 1.50 and found 1.
    assert_eq!(amount(&town.credits().await.owed), "1");
    town.buy("po-3", "10").await.unwrap();
    assert_eq!(town.available().await, "9");
    town.assert_audits_clean().await;
}

async fn d08_a_running_call_at_zero_gets_its_hard_stop(town: Town) {
    let payg = users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&payg).await;
    town.buy("po-1", "1").await.unwrap();
    let answer = town.ask(named(lasting(call("alice", HARARE), 300), "a")).await;
    let grant = answer.grant.unwrap();
    assert_eq!((grant.granted_duration.unwrap().seconds, grant.final_grant), (120, true));
    town.clock.advance(Seconds(90));
    let extended = town.extend("a", 90, 300).await;
    let grant = extended.grant.unwrap();
    assert!(extended.allowed);
    assert_eq!((grant.granted_duration.unwrap().seconds, grant.final_grant), (120, true));
    assert_eq!(charged(&town.settle("a", 120).await), (120, "1"));
}

async fn d09_a_licence_change_resizes_the_pool_at_once(town: Town) {
    let with = |n| users(crowd("u", n, "US", "MCOEV, MCOPSTN5"));
    let pool = async || {
        let pool = town.balance().await.pools.remove(0);
        [pool.granted, pool.held, pool.spent, pool.available].map(|d| d.unwrap().seconds / 60)
    };
    town.apply(&with(1)).await;
    town.apply(&with(2)).await;
    assert_eq!(pool().await, [240, 0, 0, 240]);
    town.ask(named(lasting(call("u-0", SEATTLE), 4 * 3_600), "a")).await;
    assert_eq!(pool().await, [240, 240, 0, 0]);
    // One licence goes: its minutes are held, and go when they come back.
    town.apply(&users([user("u-1", "US", "MCOEV")])).await;
    assert_eq!(pool().await, [240, 240, 0, 0], "never less than held and spent");
    town.settle("a", 60).await;
    assert_eq!(pool().await, [120, 0, 1, 119]);
    town.assert_audits_clean().await;
}

async fn d10_several_plans_are_drawn_on_in_the_order_of_the_catalogue(town: Town) {
    town.apply(&users([user("alice", "US", "MCOPSTN6, MCOPSTN5, MCOPSTN1, MCOEV")])).await;
    let answer = town.quote(call("alice", SEATTLE)).await;
    let covering: Vec<_> = answer
        .steps
        .iter()
        .filter_map(|step| {
            step.check.strip_prefix("POOL ").filter(|_| step.detail == "covers the call")
        })
        .collect();
    let expected = ["US:MCOPSTN1:DOMESTIC", "US:MCOPSTN5:DOMESTIC", "US:MCOPSTN6:DOMESTIC"];
    assert_eq!(covering, expected);
    town.talk(call("alice", SEATTLE), 3_060 * 60).await;
    let spent: Vec<_> = town.pools().await.into_iter().map(|(_, _, spent)| spent).collect();
    assert_eq!(spent, [3_000, 60, 0]);
}

async fn d11_the_international_cap_closes_both_counters_or_each_its_own(town: Town) {
    let payers = [("either", "US", Decision::PoolExhausted), ("each", "CA", Decision::Allowed)];
    for (cap, country, at_home) in payers {
        let payer = users([user(country, country, "MCOEV, MCOPSTN2")]);
        let settings = format!("international_cap: {cap}, {payer}");
        town.apply(&settings).await;
        assert_eq!(town.apply(&settings).await.unchanged, 2);
        town.talk(call(country, PARIS), 36_000).await;
        assert_eq!(town.decision(call(country, PARIS)).await, Decision::PoolExhausted, "{cap}");
        assert_eq!(town.decision(call(country, SEATTLE)).await, at_home, "{cap}");
    }
}

async fn d12_under_the_policy_domestic_us_and_pr_are_one_country(town: Town) {
    let plan = "MCOEV, MCOPSTN1";
    let all = users(["US", "PR", "CA"].map(|country| user(country, country, plan)));
    town.apply(&format!("outbound_policy: {{ user: domestic }}, {all}")).await;
    for (payer, called, expected) in [
        ("US", SAN_JUAN, Decision::Allowed),
        ("PR", SEATTLE, Decision::Allowed),
        ("US", TORONTO, Decision::PolicyDenied),
        ("PR", TORONTO, Decision::PolicyDenied),
        ("CA", SEATTLE, Decision::PolicyDenied),
        ("CA", SAN_JUAN, Decision::PolicyDenied),
    ] {
        assert_eq!(town.decision(call(payer, called)).await, expected, "{payer} to {called}");
    }
}

async fn d13_unlisted_destinations_are_refused_unless_priced_and_allowed(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN2, MCOPSTNPP")]);
    let allow = |allow| format!("{TEN}allow_unlisted_destinations: {allow}, {alice}");
    town.apply(&allow(false)).await;
    assert_eq!(town.decision(call("alice", TUNIS)).await, Decision::DestinationBlocked);
    assert_eq!(town.apply(&allow(true)).await.updated, 1);
    let settled = town.talk(call("alice", TUNIS), 30).await;
    assert_eq!((charged(&settled), sources(&settled.funding)), ((60, "0.9"), vec![Credits]));
    assert_eq!(town.pool("US:MCOPSTN2:INTERNATIONAL").await, (600, 0));
    // Cuba has no price.
    assert_eq!(town.decision(call("alice", "+5371234567")).await, Decision::DestinationBlocked);
}

async fn d14_money_is_rounded_up_once_to_the_micro_unit(town: Town) {
    // A second costs 0.0001666…
    let by_second = DECK.replace(
        "1,North America,0.01,0,60,60,USD,2020-01-01,,outbound",
        "1,North America,0.01,0,1,1,USD,2020-01-01,,outbound",
    );
    town.deck(&by_second).await;
    let payg = users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{payg}")).await;
    assert_eq!(charged(&town.talk(call("alice", SEATTLE), 1).await), (1, "0.000167"));
    // 100 extensions do not round 100 times: 0.016666… is 0.016667.
    town.ask(named(lasting(call("alice", SEATTLE), 1), "a")).await;
    for second in 1..100 {
        town.extend("a", second, 1).await;
    }
    assert_eq!(charged(&town.settle("a", 100).await), (100, "0.016667"));
    // The deck that ships is a deck, and says that it is a sample.
    town.deck(include_str!("../../../samples/sample-deck.csv")).await;
    let readme = include_str!("../../../samples/README.md");
    assert!(readme.contains("sample"), "{readme}");
}

async fn d15_spend_limits_count_held_amounts_and_give_what_is_left(town: Town) {
    let alice = "users: [{ id: alice, usage_location: US, spend_limit: \"1\", licences: \
                 [MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP] }]";
    town.apply(&format!("{TEN}time_zone: America/Los_Angeles, {alice}")).await;
    town.ask(named(call("alice", HARARE), "held")).await;
    let answer = town.ask(named(lasting(call("alice", HARARE), 300), "rest")).await;
    let grant = answer.grant.unwrap();
    let left = (grant.granted_duration.unwrap().seconds, grant.final_grant);
    assert_eq!(left, (60, true), "0.50 is held, and 0.50 is left");
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::SpendLimitReached);
    town.settle("held", 60).await;
    town.settle("rest", 60).await;
    for (at, expected) in [
        ("2026-12-01T07:59:59Z", Decision::SpendLimitReached),
        ("2026-12-01T08:00:00Z", Decision::Allowed),
    ] {
        town.at(at);
        assert_eq!(town.decision(call("alice", PARIS)).await, expected, "{at}");
    }
}

async fn d16_a_recharge_is_asked_for_once_and_backs_off_after_a_failure(town: Town) {
    let recharge = "auto_recharge: { trigger: 10, amount: 20, daily_cap: 40 }, ";
    let payg = users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{recharge}{payg}")).await;
    let requests = async || town.events(&[EventType::RechargeRequested]).await.len();
    // Held money still counts.
    town.ask(named(call("alice", HARARE), "a")).await;
    assert_eq!(requests().await, 0);
    town.settle("a", 60).await;
    town.talk(call("alice", HARARE), 60).await;
    assert_eq!(requests().await, 1, "one for each crossing, none while one is in flight");
    let fail = async || {
        let of = ReportRechargeRequest {
            tenant_id: town.tenant.clone(),
            key: town.balance().await.recharge.unwrap().in_flight_key,
            outcome: Some(Outcome::Failed(RechargeFailed { reason: "expired".to_owned() })),
        };
        let state = town.account.clone().report_recharge(of).await.unwrap().into_inner();
        state.recharge.unwrap().next_attempt_at.unwrap().seconds
    };
    for minutes in [15, 30] {
        let next = fail().await;
        let now = town.clock.reading().at(instant("2026-11-10T12:00:00Z")).0 / 1000;
        assert_eq!(next - now, minutes * 60);
        let so_far = requests().await;
        town.clock.advance(Seconds(minutes * 60 - 1));
        town.talk(call("alice", SEATTLE), 60).await;
        assert_eq!(requests().await, so_far, "too early");
        town.clock.advance(Seconds(1));
        town.talk(call("alice", SEATTLE), 60).await;
        assert_eq!(requests().await, so_far + 1);
    }
    town.assert_audits_clean().await;
}

async fn d17_a_lot_expires_a_year_after_the_instant_of_its_purchase(town: Town) {
    town.at("2028-02-29T10:00:00Z");
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")])).await;
    town.buy("leap", "10").await.unwrap();
    let lot = town.credits().await.lots.remove(0);
    let expected = instant("2029-02-28T10:00:00Z").0 / 1000;
    assert_eq!(lot.expires_at.unwrap().seconds, expected);
    // What is held may still settle; its rest expires.
    town.at("2029-02-28T09:59:30Z");
    town.ask(named(lasting(call("alice", HARARE), 600), "across")).await;
    town.at("2029-02-28T10:00:30Z");
    assert_eq!(town.decision(call("alice", HARARE)).await, Decision::InsufficientCredits);
    assert_eq!(charged(&town.settle("across", 60).await), (60, "0.5"));
    let credits = town.credits().await;
    assert_eq!((amount(&credits.expired), amount(&credits.available)), ("9.5", "0"));
}

async fn d18_alerts_are_told_once_and_armed_again_by_growth(town: Town) {
    let with = |n| users(crowd("u", n, "US", "MCOEV, MCOPSTN5"));
    let kinds = [EventType::PoolThreshold, EventType::PoolExhausted];
    let told = async || {
        let events = town.events(&kinds).await;
        events.iter().map(|event| event.r#type()).collect::<Vec<_>>()
    };
    town.apply(&with(1)).await;
    // What is held is not spent.
    town.ask(named(lasting(call("u-0", SEATTLE), 7_200), "a")).await;
    assert_eq!(told().await, []);
    town.settle("a", 96 * 60).await;
    town.talk(call("u-0", SEATTLE), 60).await;
    assert_eq!(told().await, [EventType::PoolThreshold], "once");
    town.apply(&with(2)).await;
    town.talk(call("u-1", SEATTLE), 95 * 60).await;
    assert_eq!(told().await, [EventType::PoolThreshold; 2], "armed again");
    town.talk(call("u-1", SEATTLE), 48 * 60).await;
    assert_eq!(told().await.last(), Some(&EventType::PoolExhausted));
    assert_eq!(told().await.len(), 3);
}

async fn d19_corrections_are_adjustments_and_never_a_second_settle(town: Town) {
    town.apply(&format!("{TEN}{}", users([user("alice", "US", "MCOEV, MCOPSTN1")]))).await;
    town.talk(named(call("alice", SEATTLE), "a"), 61).await;
    let again = town.settle("a", 600).await;
    assert_eq!((again.result(), charged(&again)), (SettleResult::AlreadySettled, (120, "0")));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 2));
    let mut account = town.account.clone();
    let settlement = |key: &str, reason: &str, operator: &str| AdjustSettlementRequest {
        tenant_id: town.tenant.clone(),
        key: key.to_owned(),
        call_id: "a".to_owned(),
        used_duration: length(600),
        reason: reason.to_owned(),
        operator: operator.to_owned(),
    };
    for wrong in [settlement("", "r", "o"), settlement("k", "", "o"), settlement("k", "r", "")] {
        let refused = account.adjust_settlement(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    for replayed in [false, true] {
        let of = settlement("s-1", "the meter stood", "olivia");
        let adjusted = account.adjust_settlement(of).await.unwrap().into_inner();
        assert_eq!(adjusted.replayed, replayed);
    }
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 10));
    let balance = AdjustBalanceRequest {
        tenant_id: town.tenant.clone(),
        key: "b-1".to_owned(),
        bucket_id: town.credits().await.lots[0].key.clone(),
        amount: Some(Amount::Money(usd("2").unwrap())),
        reason: "goodwill".to_owned(),
        operator: "olivia".to_owned(),
    };
    account.adjust_balance(balance).await.unwrap();
    assert_eq!(town.available().await, "12");
    let of = ListAdjustmentsRequest { tenant_id: town.tenant.clone(), ..Default::default() };
    let listed = account.list_adjustments(of).await.unwrap().into_inner().adjustments;
    let mut told: Vec<_> = listed.iter().map(|a| (&*a.key, &*a.reason, &*a.operator)).collect();
    told.sort_unstable();
    assert_eq!(told, [("b-1", "goodwill", "olivia"), ("s-1", "the meter stood", "olivia")]);
    town.assert_audits_clean().await;
}

#[tokio::test]
async fn d20_out_of_reach_of_the_ledger_only_emergency_and_free_calls_go_through() {
    let town = Town::on_redis().await;
    let alice = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], \
                 numbers: [\"+14255550100\"] }";
    let handling = "failure_handling: { user_outbound: retry_then_terminate }, ";
    town.apply(&format!("{handling}users: [{alice}]")).await;
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed);
    town.redis.as_ref().unwrap().kill();
    let answer = town.ask(call("alice", SEATTLE)).await;
    assert_eq!(answer.decision(), Decision::LedgerUnavailable);
    let denial = answer.denial.unwrap();
    assert_eq!((denial.sip_status, denial.q850_cause, denial.reroute_allowed), (503, 41, true));
    for (called, expected) in
        [("911", Decision::AllowedEmergency), ("+14255550100", Decision::AllowedFree)]
    {
        assert_eq!(town.ask(call("alice", called)).await.decision(), expected, "{called}");
    }
}

#[tokio::test]
async fn d20_continue_capped_goes_on_out_of_a_lease() {
    let clock = Town::stopped();
    let redis = RedisServer::started();
    let ledger = redis.ledger(&clock).await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { journal: Some(folder.path().join("journal")), ..config() };
    let town = Town::open(ledger, clock, Some(redis), config).await;
    let alice = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], \
                 numbers: [\"+14255550100\"] }";
    let handling = "failure_handling: { user_outbound: continue_capped }, ";
    let applied = town.apply(&format!("{handling}users: [{alice}]")).await;
    let warns = |warning: &String| warning.starts_with("failure_handling");
    assert!(!applied.warnings.iter().any(warns), "{:?}", applied.warnings);
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed);
    while !(town.journal)().await.iter().any(|entry| entry.subject.starts_with("lease:")) {
        tokio::task::yield_now().await;
    }
    // The answer to the lease is on its way to the sidecar.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    town.redis.as_ref().unwrap().kill();
    let granted = call("alice", SEATTLE);
    let answer = town.ask(granted.clone()).await;
    assert_eq!(answer.decision(), Decision::AllowedDegraded, "{answer:?}");
    assert!(town.ask(granted).await.replayed);
    for (called, expected) in [
        ("911", Decision::AllowedEmergency),
        ("+14255550100", Decision::AllowedFree),
        ("+442071234567", Decision::LedgerUnavailable),
    ] {
        assert_eq!(town.ask(call("alice", called)).await.decision(), expected, "{called}");
    }
}

async fn d21_premium_prefixes_outside_the_documented_countries_are_refused(town: Town) {
    town.deck(&whole_world()).await;
    let plan = "MCOEV, MCOPSTN2, MCOPSTNPP";
    let all = users(["US", "DE", "GB"].map(|country| user(country, country, plan)));
    town.apply(&format!("{TEN}allow_unlisted_destinations: true, {all}")).await;
    for payer in ["US", "DE", "GB"] {
        for called in ["+19002345678", "+499001234567", "+33891123456", "+449012345678"] {
            let decision = town.decision(call(payer, called)).await;
            assert_eq!(decision, Decision::DestinationBlocked, "{payer} to {called}");
        }
    }
    let answer = town.quote(call("DE", "+448431234567")).await;
    assert_eq!(answer.decision(), Decision::DestinationBlocked, "GB's prefixes are for GB");
}

async fn d22_emergency_calls_are_free_counted_nowhere_and_recorded(town: Town) {
    let limits = "limits: { concurrent_calls: 1, calls_per_second: 2 }, ";
    town.apply(&format!("{limits}{}", users([user("alice", "US", "MCOEV, MCOPSTN1")]))).await;
    for n in 0..5 {
        let of = named(call("alice", "911"), &format!("sos-{n}"));
        assert_eq!(town.ask(of).await.decision(), Decision::AllowedEmergency);
    }
    assert_eq!(town.ask(named(call("alice", SEATTLE), "a")).await.decision(), Decision::Allowed);
    assert_eq!(town.ask(call("alice", SEATTLE)).await.decision(), Decision::ConcurrencyLimit);
    assert_eq!(town.ask(call("alice", "911")).await.decision(), Decision::AllowedEmergency);
    assert_eq!(town.ask(call("nobody", "911")).await.decision(), Decision::AllowedEmergency);
    // Records reach the ledger behind the calls.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let of = ListDecisionsRequest { tenant_id: town.tenant.clone(), ..Default::default() };
        let listed = town.account.clone().list_decisions(of).await.unwrap().into_inner().decisions;
        let emergencies =
            listed.iter().filter(|record| record.decision() == Decision::AllowedEmergency);
        if emergencies.count() == 7 {
            break;
        }
        assert!(std::time::Instant::now() < patience, "{listed:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(charged(&town.settle("sos-0", 3_600).await), (0, "0"));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn d23_an_organiser_without_credits_is_refused_when_the_minutes_are_used_up(town: Town) {
    let organisers = ["RU", "KR", "TW"];
    let all = users(organisers.map(|country| user(country, country, "MCOMEETADD")));
    town.apply(&format!("{TEN}{all}")).await;
    for organiser in organisers {
        town.talk(dial_out(organiser, LONDON), 899 * 60).await;
        assert_eq!(town.decision(dial_out(organiser, LONDON)).await, Decision::Allowed);
        town.talk(dial_out(organiser, LONDON), 60).await;
        let decision = town.decision(dial_out(organiser, LONDON)).await;
        assert_eq!(decision, Decision::PoolExhausted, "{organiser}");
    }
}

async fn d24_an_anonymous_toll_free_caller_is_rated_and_never_refused_for_it(town: Town) {
    town.apply(&format!("{TEN}{SUPPORT}")).await;
    let anonymous = ["", "anonymous", "sip:anonymous@anonymous.invalid", "Restricted", "42"];
    // Without a default row it is the dearest of the service number's calling code.
    for calling in anonymous {
        let settled = town.talk(toll_free(calling), 60).await;
        assert_eq!(charged(&settled), (60, "0.03"), "{calling:?}");
    }
    town.deck(&format!("{DECK}*,Anywhere,0.01,0,60,60,USD,2020-01-01,,toll_free_inbound\n")).await;
    for calling in anonymous {
        let settled = town.talk(toll_free(calling), 60).await;
        assert_eq!(charged(&settled), (60, "0.01"), "{calling:?}");
    }
    // The tenant's limits of price are another matter.
    town.apply(&format!("{TEN}limits: {{ max_rate_per_minute: \"0.005\" }}")).await;
    assert_eq!(town.decision(toll_free("")).await, Decision::TollFreeUnfunded);
}

async fn d25_pay_as_you_go_outside_its_zone_gives_no_entitlement(town: Town) {
    let all = users([
        user("fr", "FR", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP"),
        user("mx", "MX", "MCOEV, MCOPSTN_PAYG_2, MCOPSTNPP"),
        user("us", "US", "MCOEV, MCOPSTN_PAYG_2, MCOPSTNPP"),
        user("right", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP"),
    ]);
    let applied = town.apply(&format!("{TEN}{all}")).await;
    for (payer, expected) in [
        ("fr", Decision::NotEntitled),
        ("mx", Decision::NotEntitled),
        ("us", Decision::NotEntitled),
        ("right", Decision::Allowed),
    ] {
        assert_eq!(town.decision(call(payer, SEATTLE)).await, expected, "{payer}");
    }
    let warned = applied.warnings.iter().filter(|warning| warning.ends_with("(rule 13)"));
    assert_eq!(warned.count(), 3, "{:?}", applied.warnings);
}

async fn d26_all_amounts_of_a_tenant_are_in_one_currency(town: Town) {
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")])).await;
    let euros = Money { currency_code: "EUR".to_owned(), amount: "10".to_owned() };
    let of = PurchaseCreditsRequest {
        tenant_id: town.tenant.clone(),
        key: "po-1".to_owned(),
        amount: Some(euros),
        ..PurchaseCreditsRequest::default()
    };
    assert!(town.account.clone().purchase_credits(of).await.is_err());
    let csv = DECK.replace(",USD,", ",EUR,").into_bytes().into();
    let of = ActivateDeckRequest { deck: "default".to_owned(), csv };
    let refused = town.account.clone().activate_deck(of).await.unwrap_err();
    assert!(refused.message().contains("fabrikam"), "{refused}");
    let mixed = DECK.replacen(",USD,", ",EUR,", 1).into_bytes().into();
    let of = ActivateDeckRequest { deck: "default".to_owned(), csv: mixed };
    assert!(town.account.clone().activate_deck(of).await.is_err());
    town.buy("po-1", "10").await.unwrap();
    assert_eq!(
        charged(&town.talk(call("alice", PARIS), 60).await),
        (60, "0.15"),
        "the deck before"
    );
}

async fn d27_a_territory_takes_the_list_entry_of_its_parent(town: Town) {
    town.deck(&whole_world()).await;
    let plan = "MCOEV, MCOPSTN2";
    let all = ["GB", "FI", "NO", "FR", "US"];
    town.apply(&users(all.map(|country| user(country, country, plan)))).await;
    // Guernsey, Jersey and the Isle of Man; Aland; Svalbard; Saint Barthelemy or Saint Martin, which share
    // the numbers of Guadeloupe.
    for (payer, called, country) in [
        ("GB", "+441481720000", "GG"),
        ("GB", "+441534440000", "JE"),
        ("GB", "+441624670000", "IM"),
        ("FI", "+35818123456", "AX"),
        ("NO", "+4779021234", "SJ"),
    ] {
        let quote = town.quote(call(payer, called)).await;
        let found = quote.classification.clone().unwrap();
        assert_eq!(found.country, country);
        assert_eq!(found.call_class(), CallClass::International, "{country}: never domestic");
        assert_eq!(quote.decision(), Decision::Allowed, "{country}");
        let bucket = &quote.funding[0].bucket_id;
        assert!(bucket.contains(":INTERNATIONAL"), "{country}: {bucket}");
    }
    let caribbean = town.quote(call("FR", "+590590271234")).await;
    assert_eq!(caribbean.classification.unwrap().call_class(), CallClass::International);
    assert_eq!(caribbean.decision.try_into(), Ok(Decision::Allowed));
    // A place with a code of its own that the list leaves out has no parent.
    for called in ["+50021234", "+68221234"] {
        let decision = town.quote(call("US", called)).await.decision();
        assert_eq!(decision, Decision::DestinationBlocked, "{called}");
    }
    // The price is the deck's.
    town.deck(&format!("{DECK}441481,Guernsey,0.70,0,60,60,USD,2020-01-01,,outbound\n")).await;
    let payg = users([user("payg", "GB", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{payg}")).await;
    assert_eq!(charged(&town.talk(call("payg", "+441481720000"), 60).await), (60, "0.7"));
}

async fn d28_a_call_that_money_must_pay_and_nobody_priced_is_unrated(town: Town) {
    let all = users([
        user("money", "US", "MCOEV, MCOPSTN1, MCOPSTNPP"),
        user("minutes", "US", "MCOEV, MCOPSTN2, MCOPSTNPP"),
    ]);
    town.apply(&format!("{TEN}{all}")).await;
    let tokyo = "+81312345678";
    assert_eq!(town.decision(call("money", tokyo)).await, Decision::DestinationUnrated);
    // A pool that pays whole needs no price; the grant ends with it.
    town.talk(call("minutes", tokyo), 599 * 60).await;
    let answer = town.ask(named(lasting(call("minutes", tokyo), 300), "last")).await;
    let grant = answer.grant.unwrap();
    assert_eq!((grant.granted_duration.unwrap().seconds, grant.final_grant), (60, true));
    town.settle("last", 60).await;
    assert_eq!(town.decision(call("minutes", tokyo)).await, Decision::PoolExhausted);
    assert!(town.usage().await.iter().all(|record| record.capability != "FREECALL"));
}

async fn d29_toll_free_of_the_own_plan_is_free_and_any_other_is_priced(town: Town) {
    let plan = "MCOEV, MCOPSTN1, MCOPSTNPP";
    let all = users(["US", "CA", "GB"].map(|country| user(country, country, plan)));
    town.apply(&format!("{TEN}{all}")).await;
    for (payer, called, expected) in [
        ("US", "+18005550123", Decision::AllowedFree),
        ("CA", "+18885550123", Decision::AllowedFree),
        ("GB", "+448001111", Decision::AllowedFree),
        ("US", "+448001111", Decision::Allowed),
        ("US", "+558001234567", Decision::Allowed),
        ("US", "+80012345678", Decision::DestinationUnrated),
    ] {
        let answer = town.ask(call(payer, called)).await;
        assert_eq!(answer.decision(), expected, "{payer} to {called}");
        assert!(answer.warnings[0].contains("rule 26"), "{called}: {:?}", answer.warnings);
        if expected == Decision::Allowed {
            assert_eq!(sources(&answer.funding), [Credits], "{called}: no minutes");
        }
    }
    // Under the policy Domestic too, where it is one's own.
    town.apply(&format!("{TEN}outbound_policy: {{ user: domestic }}, {all}")).await;
    assert_eq!(town.decision(call("US", "+18005550123")).await, Decision::AllowedFree);
    assert_eq!(town.decision(call("US", "+448001111")).await, Decision::PolicyDenied);
}
