//! Rules 27 to 45: who pays, in which order, and when nobody does; and the settings that come before.

use prost_types::Duration;
use tollgate::charging::units::Seconds;
use tollgate::proto::v1::{
    AuthorizeCallRequest, CallClass, Decision, ExtendCallResponse, FundingSource,
};
use tonic::Code;

use crate::rules::{
    DECK, HARARE, PARIS, SEATTLE, SUPPORT, TEN, Town, call, charged, crowd, lasting, named,
    sources, toll_free, user, users,
};

on_every_ledger! {
    rule_27_a_domestic_call_uses_the_pool_and_then_credits
    rule_28_minutes_above_the_pool_are_billed_per_minute
    rule_29_without_pool_and_credits_calls_are_refused_until_next_month
    rule_30_without_an_international_plan_calls_abroad_go_straight_to_credits
    rule_31_international_minutes_come_before_credits
    rule_32_running_out_of_minutes_ends_calls_unless_credits_are_set_up
    rule_33_credits_are_spent_only_with_a_credits_licence
    rule_35_any_number_of_credits_licences_opens_the_one_balance
    rule_36_inbound_toll_free_is_charged_to_credits_and_stops_at_zero
    rule_37_without_credits_toll_free_numbers_cannot_be_used
    rule_38_the_toll_free_rate_depends_on_the_callers_origin
    rule_39_started_minutes_count_in_full_and_the_fee_once
    rule_40_no_granted_call_ends_without_a_price
    rule_41_a_spend_limit_caps_what_a_user_spends
    rule_42_the_overage_switch_decides_whether_post_paid_calls_go_on
    rule_43_post_paid_tenants_buy_no_credits_and_use_left_over_ones_first
    rule_44_the_billing_account_decides_the_model
    prices_above_the_tenants_limits_are_refused
    a_suspended_tenant_and_a_blocked_user_call_nobody_but_emergencies
    a_spend_velocity_is_not_exceeded
}

on_any_ledger! {
    rule_34_a_credits_licence_requires_something_to_pay_for
    blocked_prefixes_are_refused_whatever_could_pay
}

use FundingSource::{Credits, Overage, Pool};

/// The hard stop, and whether it is the last one.
fn grant(of: &ExtendCallResponse) -> (i64, bool) {
    let grant = of.grant.as_ref().unwrap();
    (grant.granted_duration.unwrap().seconds, grant.final_grant)
}

async fn rule_27_a_domestic_call_uses_the_pool_and_then_credits(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    assert_eq!(sources(&town.ask(named(call("alice", SEATTLE), "a")).await.funding), [Pool]);
    assert_eq!(charged(&town.settle("a", 120 * 60).await), (7_200, "0"));
    let answer = town.ask(named(call("alice", SEATTLE), "b")).await;
    assert_eq!((answer.decision(), sources(&answer.funding)), (Decision::Allowed, vec![Credits]));
    assert_eq!(charged(&town.settle("b", 60).await), (60, "0.01"));
    assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (120, 120));
}

async fn rule_28_minutes_above_the_pool_are_billed_per_minute(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    town.talk(call("alice", SEATTLE), 118 * 60).await;
    // Two minutes of the pool, three of credits.
    let settled = town.talk(lasting(call("alice", SEATTLE), 300), 300).await;
    assert_eq!(charged(&settled), (300, "0.03"));
    assert_eq!(sources(&settled.funding), [Pool, Credits]);
    let settled = town.talk(call("alice", SEATTLE), 61).await;
    assert_eq!(charged(&settled), (120, "0.02"));
}

async fn rule_29_without_pool_and_credits_calls_are_refused_until_next_month(town: Town) {
    // There is money, that alice has no licence for, and none that bob could use.
    let all =
        [user("alice", "US", "MCOEV, MCOPSTN5"), user("bob", "CA", "MCOEV, MCOPSTN5, MCOPSTNPP")];
    town.apply(&users(all)).await;
    town.talk(call("alice", SEATTLE), 7_200).await;
    town.talk(call("bob", SEATTLE), 7_200).await;
    for instant in ["2026-11-10T13:00:00Z", "2026-11-30T23:59:59Z"] {
        town.at(instant);
        for payer in ["alice", "bob"] {
            let decision = town.decision(call(payer, SEATTLE)).await;
            assert_eq!(decision, Decision::PoolExhausted, "{payer} at {instant}");
        }
    }
    town.at("2026-12-01T00:00:00Z");
    for payer in ["alice", "bob"] {
        assert_eq!(town.decision(call(payer, SEATTLE)).await, Decision::Allowed, "{payer}");
    }
}

async fn rule_30_without_an_international_plan_calls_abroad_go_straight_to_credits(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    let settled = town.talk(call("alice", PARIS), 60).await;
    assert_eq!((charged(&settled), sources(&settled.funding)), ((60, "0.15"), vec![Credits]));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn rule_31_international_minutes_come_before_credits(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN2, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    town.talk(call("alice", PARIS), 599 * 60).await;
    let settled = town.talk(lasting(call("alice", PARIS), 120), 120).await;
    assert_eq!(sources(&settled.funding), [Pool, Credits]);
    assert_eq!(charged(&settled), (120, "0.15"));
    assert_eq!(town.pool("US:MCOPSTN2:INTERNATIONAL").await, (600, 600));
    assert_eq!(town.pool("US:MCOPSTN2:DOMESTIC").await, (3_000, 0));
}

async fn rule_32_running_out_of_minutes_ends_calls_unless_credits_are_set_up(town: Town) {
    let all =
        [user("alice", "US", "MCOEV, MCOPSTN5"), user("bob", "CA", "MCOEV, MCOPSTN5, MCOPSTNPP")];
    town.apply(&format!("{TEN}{}", users(all))).await;
    for payer in ["alice", "bob"] {
        town.talk(call(payer, SEATTLE), 118 * 60).await;
        town.ask(named(lasting(call(payer, SEATTLE), 60), payer)).await;
    }
    town.clock.advance(Seconds(50));
    assert_eq!(grant(&town.extend("alice", 50, 300).await), (120, true), "two minutes were left");
    assert_eq!(grant(&town.extend("bob", 50, 300).await), (350, false), "credits go on");
    // It runs to its hard stop and no further, and nobody begins another.
    town.clock.advance(Seconds(60));
    assert_eq!(grant(&town.extend("alice", 110, 300).await), (120, true));
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::PoolExhausted);
    assert_eq!(charged(&town.settle("alice", 120).await), (120, "0"));
}

async fn rule_33_credits_are_spent_only_with_a_credits_licence(town: Town) {
    let rich = "credits: [{ key: po-1, amount: 500, purchased_at: 2026-11-01T00:00:00Z }], ";
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOMEETADD")]);
    town.apply(&format!("{rich}{alice}")).await;
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::CreditsNotLicensed);
    town.talk(call("alice", SEATTLE), 7_200).await;
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::PoolExhausted);
    assert_eq!(town.available().await, "500");
    let licensed = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOMEETADD, MCOPSTNPP")]);
    town.apply(&format!("{rich}{licensed}")).await;
    for called in [PARIS, SEATTLE] {
        assert_eq!(town.decision(call("alice", called)).await, Decision::Allowed, "{called}");
    }
}

async fn rule_34_a_credits_licence_requires_something_to_pay_for(town: Town) {
    for licences in ["MCOPSTNPP", "MCOPSTNPP, MCOEV"] {
        let faults = town.faults(&users([user("alice", "US", licences)])).await;
        let expected = "users[0].licences[0]: MCOPSTNPP needs MCOMEETADD, or MCOEV and a calling \
                        plan (rule 34)";
        assert_eq!(faults, [expected], "{licences}");
    }
    let right = ["MCOPSTNPP, MCOMEETADD", "MCOPSTNPP, MCOEV, MCOPSTN5"];
    town.apply(&users(right.map(|licences| user(&licences.len().to_string(), "US", licences))))
        .await;
}

async fn rule_35_any_number_of_credits_licences_opens_the_one_balance(town: Town) {
    let all = users(crowd("user", 80, "US", "MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1"));
    town.apply(&format!("{TEN}{all}")).await;
    for n in 0..66 {
        let settled = town.talk(call(&format!("user-{n}"), PARIS), 30).await;
        assert_eq!(charged(&settled), (60, "0.15"));
    }
    // 66 calls of 0.15 leave 0.10 of the 10, too little for whoever comes next.
    assert_eq!(town.available().await, "0.1");
    assert_eq!(town.decision(call("user-79", PARIS)).await, Decision::InsufficientCredits);
}

async fn rule_36_inbound_toll_free_is_charged_to_credits_and_stops_at_zero(town: Town) {
    let little = "credits: [{ key: po-1, amount: \"0.05\", purchased_at: 2026-11-01T00:00:00Z }], ";
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1")]);
    town.apply(&format!("{little}{SUPPORT}{alice}")).await;
    let answer = town.ask(lasting(named(toll_free(SEATTLE), "in"), 600)).await;
    assert_eq!(answer.classification.unwrap().call_class(), CallClass::TollFreeInbound);
    assert_eq!(sources(&answer.funding), [Credits]);
    // Two minutes of 0.02 and no third.
    let grant = answer.grant.unwrap();
    assert_eq!((grant.granted_duration.unwrap().seconds, grant.final_grant), (120, true));
    assert_eq!(charged(&town.settle("in", 120).await), (120, "0.04"));
    assert_eq!(town.decision(toll_free(SEATTLE)).await, Decision::TollFreeUnfunded);
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn rule_37_without_credits_toll_free_numbers_cannot_be_used(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    town.apply(&format!("{SUPPORT}{alice}")).await;
    let answer = town.ask(toll_free(SEATTLE)).await;
    assert_eq!(answer.decision(), Decision::TollFreeUnfunded);
    let denial = answer.denial.unwrap();
    assert_eq!((denial.sip_status, denial.q850_cause), (480, 31), "a stranger is told nothing");
    town.buy("po-1", "10").await.unwrap();
    assert_eq!(town.decision(toll_free(SEATTLE)).await, Decision::Allowed);
}

async fn rule_38_the_toll_free_rate_depends_on_the_callers_origin(town: Town) {
    town.apply(&format!("{TEN}{SUPPORT}")).await;
    for (calling, expected) in
        [(SEATTLE, "0.02"), ("+14165550142", "0.025"), ("+17875550142", "0.03"), (PARIS, "0.4")]
    {
        let settled = town.talk(toll_free(calling), 60).await;
        assert_eq!(charged(&settled), (60, expected), "from {calling}");
    }
    // Toll-free codes of +1 are these, and only these.
    let number = |code: &str| format!("+1{code}5550142");
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN1")])).await;
    for code in ["800", "833", "844", "855", "866", "877", "888"] {
        let found = town.quote(call("alice", &number(code))).await.classification.unwrap();
        assert_eq!(found.call_class(), CallClass::TollFreeOutbound, "{code}");
    }
    let found = town.quote(call("alice", &number("808"))).await.classification.unwrap();
    assert_eq!(found.call_class(), CallClass::Domestic);
}

async fn rule_39_started_minutes_count_in_full_and_the_fee_once(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    for (used, pool, money) in
        [(0, 0, "0"), (1, 60, "0.15"), (60, 60, "0.15"), (61, 120, "0.25"), (121, 180, "0.35")]
    {
        let settled = town.talk(call("alice", SEATTLE), used).await;
        assert_eq!(charged(&settled), (pool, "0"), "{used} s");
        let settled = town.talk(lasting(call("alice", PARIS), 180), used).await;
        assert_eq!(charged(&settled), (pool, money), "{used} s");
    }
}

async fn rule_40_no_granted_call_ends_without_a_price(town: Town) {
    // The rate is frozen when the call is authorized: what becomes of the deck meanwhile changes nothing, so
    // that none is free for want of a price (D28).
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{alice}")).await;
    town.ask(named(lasting(call("alice", PARIS), 300), "running")).await;
    let without: Vec<_> = DECK.lines().filter(|line| !line.starts_with("33")).collect();
    town.deck(&(without.join("\n") + "\n")).await;
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::DestinationUnrated);
    assert!(town.extend("running", 290, 300).await.allowed);
    assert_eq!(charged(&town.settle("running", 330).await), (360, "0.65"));
    let records = town.usage().await;
    assert!(records.iter().all(|record| record.capability != "FREECALL"), "{records:?}");
    assert_eq!(records.last().unwrap().capability, "MCOPSTNPP");
}

async fn rule_41_a_spend_limit_caps_what_a_user_spends(town: Town) {
    let limited = |limit| {
        format!(
            "{TEN}users: [{{ id: alice, usage_location: US, spend_limit: \"{limit}\", \
             licences: [MCOEV, MCOPSTN5, MCOPSTNPP] }}]"
        )
    };
    for wrong in ["0", "-1", "much"] {
        let faults = town.faults(&limited(wrong)).await;
        assert!(faults[0].starts_with("users[0].spend_limit: "), "{faults:?}");
    }
    town.apply(&limited("0.35")).await;
    let answer = town.ask(named(lasting(call("alice", PARIS), 300), "a")).await;
    let grant = answer.grant.unwrap();
    assert_eq!((grant.granted_duration.unwrap().seconds, grant.final_grant), (180, true));
    assert_eq!(charged(&town.settle("a", 180).await), (180, "0.35"));
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::SpendLimitReached);
    assert_eq!(
        town.decision(call("alice", SEATTLE)).await,
        Decision::Allowed,
        "minutes are no spending"
    );
    town.at("2026-12-01T00:00:00Z");
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::Allowed, "a new month");
}

async fn rule_42_the_overage_switch_decides_whether_post_paid_calls_go_on(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    town.apply(&format!("billing: postpaid, {alice}")).await;
    town.talk(call("alice", SEATTLE), 7_200).await;
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::PoolExhausted, "off");
    town.at("2026-12-01T00:00:00Z");
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed, "the next period");
    town.talk(call("alice", SEATTLE), 7_200).await;
    town.apply(&format!("billing: postpaid, overage: true, {alice}")).await;
    let settled = town.talk(call("alice", SEATTLE), 60).await;
    assert_eq!((charged(&settled), sources(&settled.funding)), ((60, "0.01"), vec![Overage]));
    assert_eq!(town.credits().await.overage_spent.unwrap().amount, "0.01");
    let faults = town.faults(&format!("overage: true, {alice}")).await;
    assert_eq!(faults, ["overage: expected false, since billing is prepaid"]);
}

async fn rule_43_post_paid_tenants_buy_no_credits_and_use_left_over_ones_first(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    let little = "credits: [{ key: po-1, amount: \"0.25\", purchased_at: 2026-11-01T00:00:00Z }]";
    town.apply(&format!("{little}, {alice}")).await;
    let post_paid = format!("billing: postpaid, overage: true, {little}, {alice}");
    town.apply(&post_paid).await;
    let refused = town.buy("po-2", "10").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let recharge = format!("auto_recharge: {{ trigger: 1, amount: 2 }}, {post_paid}");
    let faults = town.faults(&recharge).await;
    assert!(faults[0].starts_with("auto_recharge: ") && faults[0].ends_with("(rule 43)"));
    let settled = town.talk(lasting(call("alice", PARIS), 300), 300).await;
    assert_eq!(sources(&settled.funding), [Credits, Overage]);
    assert_eq!(charged(&settled), (300, "0.55"));
    let credits = town.credits().await;
    assert_eq!(credits.available.unwrap().amount, "0");
    assert_eq!(credits.overage_spent.unwrap().amount, "0.3");
}

async fn rule_44_the_billing_account_decides_the_model(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    town.apply(&alice).await;
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::InsufficientCredits);
    town.apply(&format!("billing: postpaid, overage: true, {alice}")).await;
    assert_eq!(sources(&town.ask(call("alice", PARIS)).await.funding), [Overage]);
    town.apply(&format!("billing: prepaid, {alice}")).await;
    town.buy("po-1", "10").await.unwrap();
    assert_eq!(sources(&town.ask(call("alice", PARIS)).await.funding), [Credits]);
    let faults = town.faults(&format!("billing: monthly, {alice}")).await;
    assert!(faults[0].starts_with("billing: expected"), "{faults:?}");
}

async fn blocked_prefixes_are_refused_whatever_could_pay(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN2, MCOPSTNPP")]);
    let blocked = format!("{TEN}blocked_prefixes: [\"+33\", \"+1206\"], {alice}");
    town.apply(&blocked).await;
    for (called, expected) in [
        (PARIS, Decision::DestinationBlocked),
        (SEATTLE, Decision::DestinationBlocked),
        ("206 555 0142", Decision::DestinationBlocked),
        ("+12535550142", Decision::Allowed),
        ("911", Decision::AllowedEmergency),
    ] {
        assert_eq!(town.ask(call("alice", called)).await.decision(), expected, "{called}");
    }
    let faults = town.faults("blocked_prefixes: [\"33\", \"+\"]").await;
    assert!(faults[0].starts_with("blocked_prefixes[0]: ") && faults.len() == 2, "{faults:?}");
}

async fn prices_above_the_tenants_limits_are_refused(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP")]);
    for (limits, to_harare, to_paris) in [
        ("max_rate_per_minute: \"0.49\"", Decision::PriceAboveLimit, Decision::Allowed),
        ("max_rate_per_minute: \"0.50\"", Decision::Allowed, Decision::Allowed),
        ("max_connection_fee: \"0.04\"", Decision::Allowed, Decision::PriceAboveLimit),
        ("max_connection_fee: \"0.05\"", Decision::Allowed, Decision::Allowed),
    ] {
        town.apply(&format!("{TEN}limits: {{ {limits} }}, {alice}")).await;
        assert_eq!(town.decision(call("alice", HARARE)).await, to_harare, "{limits}");
        assert_eq!(town.decision(call("alice", PARIS)).await, to_paris, "{limits}");
        assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed, "{limits}");
    }
}

async fn a_suspended_tenant_and_a_blocked_user_call_nobody_but_emergencies(town: Town) {
    let all = |state| {
        format!(
            "users: [{{ id: alice, usage_location: US, state: {state}, licences: [MCOEV, MCOPSTN1] }}, \
             {{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTN1] }}]"
        )
    };
    town.apply(&all("active")).await;
    town.ask(named(call("alice", SEATTLE), "running")).await;
    for (settings, alice, bob, goes_on) in [
        (all("blocked"), Decision::FraudSuspected, Decision::Allowed, false),
        (all("removed"), Decision::PayerUnknown, Decision::Allowed, true),
        (all("active"), Decision::Allowed, Decision::Allowed, true),
        (
            format!("state: suspended, {}", all("active")),
            Decision::TenantSuspended,
            Decision::TenantSuspended,
            false,
        ),
    ] {
        town.apply(&settings).await;
        assert_eq!(town.decision(call("alice", SEATTLE)).await, alice, "{settings}");
        assert_eq!(town.decision(call("bob", SEATTLE)).await, bob, "{settings}");
        assert_eq!(town.ask(call("alice", "911")).await.decision(), Decision::AllowedEmergency);
        let extended = town.extend("running", 30, 60).await;
        assert_eq!(extended.allowed, goes_on, "{settings}: {extended:?}");
    }
    assert_eq!(charged(&town.settle("running", 30).await), (60, "0"), "what was used is charged");
}

async fn a_spend_velocity_is_not_exceeded(town: Town) {
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTNPP")]);
    let settings = format!("{TEN}spend_velocity: {{ amount: \"0.30\", per: 1h }}, {alice}");
    town.apply(&settings).await;
    for _ in 0..2 {
        assert_eq!(charged(&town.talk(call("alice", PARIS), 60).await), (60, "0.15"));
    }
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::FraudSuspected);
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed, "minutes go on");
    town.clock.advance(Seconds(3 * 3_600));
    let of = AuthorizeCallRequest {
        requested_duration: Some(Duration { seconds: 60, nanos: 0 }),
        ..call("alice", PARIS)
    };
    assert_eq!(town.decision(of).await, Decision::Allowed);
}
