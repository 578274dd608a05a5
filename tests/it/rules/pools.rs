//! Rules 1 to 17: minute pools.

use tollgate::charging::units::Seconds;
use tollgate::proto::v1::{CallClass, CallType, Decision, FundingSource};

use crate::rules::{
    LONDON, PARIS, SEATTLE, TEN, TORONTO, Town, call, charged, crowd, inbound, sources, user, users,
};

on_every_ledger! {
    rule_01_a_pool_belongs_to_one_tenant_country_and_plan
    rule_02_minutes_of_two_plans_never_combine
    rule_03_the_size_of_a_pool_is_assigned_licences_times_minutes
    rule_04_minutes_never_move_between_countries
    rule_05_the_country_is_the_usage_location_of_the_licence
    rule_06_us_and_pr_form_one_pool_and_ca_has_its_own
    rule_07_mcopstn8_is_each_users_own
    rule_08_minutes_by_plan_and_country
    rule_09_either_counter_used_up_closes_the_international_plan
    rule_10_a_new_month_has_the_full_pool_and_nothing_carried_over
    rule_11_a_call_is_deducted_from_the_pool_of_the_user_who_calls
    rule_12_pay_as_you_go_has_no_minutes_and_charges_every_call
    rule_16_inbound_calls_cost_nothing_under_every_plan
    rule_17_calls_within_the_service_are_free
}

on_any_ledger! {
    rule_13_pay_as_you_go_is_valid_in_its_zone_and_needs_funds
    rule_14_the_international_plan_requires_a_domestic_one
}

async fn rule_01_a_pool_belongs_to_one_tenant_country_and_plan(town: Town) {
    let mut all = crowd("us", 100, "US", "MCOEV, MCOPSTN5");
    all.push(user("brit", "GB", "MCOEV, MCOPSTN5"));
    all.push(user("other", "US", "MCOEV, MCOPSTN1"));
    town.apply(&users(all)).await;
    town.talk(call("us-0", SEATTLE), 60).await;
    town.talk(call("us-99", SEATTLE), 120).await;
    assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (12_000, 3), "100 users x 120 minutes");
    assert_eq!(town.pool("GB:MCOPSTN5:DOMESTIC").await, (120, 0));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn rule_02_minutes_of_two_plans_never_combine(town: Town) {
    let mut all = crowd("small", 10, "FR", "MCOEV, MCOPSTN5");
    all.extend(crowd("large", 10, "FR", "MCOEV, MCOPSTN1"));
    town.apply(&users(all)).await;
    town.talk(call("small-0", PARIS), 1_200 * 60).await;
    assert_eq!(town.pool("FR:MCOPSTN5:DOMESTIC").await, (1_200, 1_200));
    assert_eq!(town.pool("FR:MCOPSTN1:DOMESTIC").await, (12_000, 0));
    assert_eq!(town.decision(call("small-1", PARIS)).await, Decision::PoolExhausted);
    assert_eq!(town.decision(call("large-1", PARIS)).await, Decision::Allowed);
}

async fn rule_03_the_size_of_a_pool_is_assigned_licences_times_minutes(town: Town) {
    // Ten were bought; three are assigned, to the other seven users none is.
    let mut all = crowd("with", 3, "CA", "MCOEV, MCOPSTN1");
    all.extend(crowd("without", 7, "CA", "MCOEV"));
    town.apply(&users(all)).await;
    assert_eq!(town.pools().await, [("CA:MCOPSTN1:DOMESTIC".to_owned(), 9_000, 0)]);
}

async fn rule_04_minutes_never_move_between_countries(town: Town) {
    let plan = "MCOEV, MCOPSTN5";
    town.apply(&users([user("fr", "FR", plan), user("gb", "GB", plan)])).await;
    town.talk(call("fr", PARIS), 120 * 60).await;
    assert_eq!(town.decision(call("fr", PARIS)).await, Decision::PoolExhausted);
    assert_eq!(town.decision(call("gb", LONDON)).await, Decision::Allowed);
    assert_eq!(town.pool("GB:MCOPSTN5:DOMESTIC").await, (120, 0));
}

async fn rule_05_the_country_is_the_usage_location_of_the_licence(town: Town) {
    // An organisation billed in France, and a user of the US who is in Zimbabwe.
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1")]);
    town.apply(&format!("country: FR, {alice}")).await;
    let mut from_abroad = call("alice", SEATTLE);
    from_abroad.calling_number = "+263242700000".to_owned();
    let answer = town.ask(from_abroad).await;
    assert_eq!(answer.classification.unwrap().call_class(), CallClass::Domestic);
    assert_eq!(sources(&answer.funding), [FundingSource::Pool]);
    let french = town.quote(call("alice", PARIS)).await;
    assert_eq!(french.classification.unwrap().call_class(), CallClass::International);
    assert_eq!(town.pools().await, [("US:MCOPSTN1:DOMESTIC".to_owned(), 3_000, 0)]);
}

async fn rule_06_us_and_pr_form_one_pool_and_ca_has_its_own(town: Town) {
    let plan = "MCOEV, MCOPSTN1";
    let mut all = crowd("us", 5, "US", plan);
    all.extend(crowd("pr", 2, "PR", plan));
    all.extend(crowd("ca", 1, "CA", plan));
    town.apply(&users(all)).await;
    for (payer, minutes) in [("us-0", 1), ("pr-0", 2), ("ca-0", 4)] {
        town.talk(call(payer, SEATTLE), minutes * 60).await;
    }
    let expected = [("CA:MCOPSTN1:DOMESTIC", 3_000, 4), ("US:MCOPSTN1:DOMESTIC", 21_000, 3)];
    assert_eq!(town.pools().await, expected.map(|(name, size, spent)| (name.into(), size, spent)));
}

async fn rule_07_mcopstn8_is_each_users_own(town: Town) {
    let plan = "MCOEV, MCOPSTN8";
    town.apply(&users([user("alice", "US", plan), user("bob", "US", plan)])).await;
    town.talk(call("alice", SEATTLE), 120 * 60).await;
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::PoolExhausted);
    assert_eq!(town.decision(call("bob", SEATTLE)).await, Decision::Allowed);
    assert_eq!(town.pool("US:MCOPSTN8:DOMESTIC:alice").await, (120, 120));
    assert_eq!(town.pool("US:MCOPSTN8:DOMESTIC:bob").await, (120, 0));
}

/// The 33 countries with plans, but for PR, which has no pool of its own (rule 6), and MX, which has no
/// small plans.
const PLAN_COUNTRIES: &str = "AT BE CA HR CZ DK EE FI FR DE HU IE IT LV LT LU NL NZ NO PL PT RO SG SK SI \
                              ZA ES SE CH GB US";

async fn rule_08_minutes_by_plan_and_country(town: Town) {
    let mut all = vec![];
    let mut expected = vec![];
    let mut expect = |name: String, minutes: i64| expected.push((name, minutes, 0));
    for country in PLAN_COUNTRIES.split_whitespace().chain(["MX"]) {
        let standard = if ["US", "CA", "GB"].contains(&country) { 3_000 } else { 1_200 };
        let mut plans = vec![("MCOPSTN1", standard), ("MCOPSTN2", standard)];
        if country != "MX" {
            plans.extend([("MCOPSTN5", 120), ("MCOPSTN6", 240)]);
        }
        for (plan, minutes) in plans {
            all.push(user(&format!("{country}-{plan}"), country, &format!("MCOEV, {plan}")));
            expect(format!("{country}:{plan}:DOMESTIC"), minutes);
        }
        expect(format!("{country}:MCOPSTN2:INTERNATIONAL"), 600);
    }
    town.apply(&users(all)).await;
    expected.sort();
    assert_eq!(town.pools().await, expected);
    // PR adds as many to the pool of the US.
    town.apply(&users([user("PR-MCOPSTN1", "PR", "MCOEV, MCOPSTN1")])).await;
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (6_000, 0));
    for plan in ["MCOPSTN5", "MCOPSTN6", "MCOPSTN8"] {
        let faults = town.faults(&users([user("mx", "MX", &format!("MCOEV, {plan}"))])).await;
        assert_eq!(faults, [format!("users[0].licences[1]: {plan} is not sold in MX (rule 8)")]);
    }
}

async fn rule_09_either_counter_used_up_closes_the_international_plan(town: Town) {
    let plan = "MCOEV, MCOPSTN2";
    town.apply(&users([user("alice", "US", plan), user("carl", "CA", plan)])).await;
    town.talk(call("alice", PARIS), 600 * 60).await;
    town.talk(call("carl", TORONTO), 3_000 * 60).await;
    for payer in ["alice", "carl"] {
        for called in [TORONTO, PARIS] {
            let decision = town.decision(call(payer, called)).await;
            assert_eq!(decision, Decision::PoolExhausted, "{payer} to {called}");
        }
    }
    assert_eq!(town.pool("US:MCOPSTN2:DOMESTIC").await, (3_000, 0));
    assert_eq!(town.pool("CA:MCOPSTN2:INTERNATIONAL").await, (600, 0));
}

async fn rule_10_a_new_month_has_the_full_pool_and_nothing_carried_over(town: Town) {
    town.apply(&users([
        user("alice", "US", "MCOEV, MCOPSTN2"),
        user("fr", "FR", "MCOEV, MCOPSTN5"),
    ]))
    .await;
    town.talk(call("alice", SEATTLE), 60).await;
    town.talk(call("fr", PARIS), 120 * 60).await;
    assert_eq!(town.decision(call("fr", PARIS)).await, Decision::PoolExhausted);
    town.at("2026-11-30T23:59:59Z");
    assert_eq!(town.decision(call("fr", PARIS)).await, Decision::PoolExhausted);
    town.at("2026-12-01T00:00:00Z");
    let full = [
        ("FR:MCOPSTN5:DOMESTIC", 120),
        ("US:MCOPSTN2:DOMESTIC", 3_000),
        ("US:MCOPSTN2:INTERNATIONAL", 600),
    ];
    assert_eq!(town.pools().await, full.map(|(name, size)| (name.to_owned(), size, 0)));
    assert_eq!(town.decision(call("fr", PARIS)).await, Decision::Allowed);
}

async fn rule_11_a_call_is_deducted_from_the_pool_of_the_user_who_calls(town: Town) {
    let plan = "MCOEV, MCOPSTN1";
    town.apply(&users([user("alice", "US", plan), user("gina", "GB", plan)])).await;
    town.talk(call("gina", LONDON), 61).await;
    assert_eq!(town.pool("GB:MCOPSTN1:DOMESTIC").await, (3_000, 2));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn rule_12_pay_as_you_go_has_no_minutes_and_charges_every_call(town: Town) {
    let all = users([
        user("alice", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP"),
        user("fred", "FR", "MCOEV, MCOPSTN_PAYG_2, MCOPSTNPP"),
    ]);
    town.apply(&format!("{TEN}{all}")).await;
    assert_eq!(town.pools().await, []);
    for (payer, called, expected) in [
        ("alice", SEATTLE, "0.01"),
        ("alice", PARIS, "0.15"),
        ("fred", PARIS, "0.15"),
        ("fred", SEATTLE, "0.01"),
    ] {
        let settled = town.talk(call(payer, called), 60).await;
        assert_eq!(charged(&settled), (60, expected), "{payer} to {called}");
    }
}

async fn rule_13_pay_as_you_go_is_valid_in_its_zone_and_needs_funds(town: Town) {
    let zone_1 = ["US", "PR", "CA", "GB"];
    let zone_2 = "AT BE HR CZ DK EE FI FR DE HU IE IT LV LT LU NL NZ NO PL PT RO SG SK SI ES SE CH";
    let zone_2: Vec<_> = zone_2.split(' ').collect();
    assert_eq!(zone_2.len(), 27);
    // Mexico has a licence of its own; South Africa is in no zone (C18), Zimbabwe has no plans.
    let nowhere = ["MX", "ZA", "ZW"];
    let countries: Vec<_> = [&zone_1[..], &zone_2, &nowhere].concat();
    let both = |country: &&str| {
        [1, 2].map(|zone| {
            let plan = format!("MCOEV, MCOPSTN_PAYG_{zone}, MCOPSTNPP");
            user(&format!("{country}-{zone}"), country, &plan)
        })
    };
    let all = users(countries.iter().flat_map(both));
    let applied = town.apply(&all).await;
    let first = town.decision(call("US-1", SEATTLE)).await;
    assert_eq!(first, Decision::InsufficientCredits, "without funds");
    town.apply(&format!("{TEN}{all}")).await;
    for country in countries {
        for (zone, valid) in [(1, zone_1.contains(&country)), (2, zone_2.contains(&country))] {
            let payer = format!("{country}-{zone}");
            let quote = town.quote(call(&payer, SEATTLE)).await;
            let expected = if valid { Decision::Allowed } else { Decision::NotEntitled };
            assert_eq!(quote.decision(), expected, "{payer}");
            let warning =
                format!("MCOPSTN_PAYG_{zone} of {payer} opens nothing in {country} (rule 13)");
            assert_eq!(applied.warnings.contains(&warning), !valid, "{payer}");
        }
    }
}

async fn rule_14_the_international_plan_requires_a_domestic_one(town: Town) {
    let faults = town.faults(&users([user("alice", "US", "MCOEV, MCOPSTN9")])).await;
    assert_eq!(faults, ["users[0].licences[1]: MCOPSTN9 needs a domestic plan (rule 14)"]);
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN5, MCOPSTN9")])).await;
    town.talk(call("alice", PARIS), 60).await;
    assert_eq!(town.pool("US:MCOPSTN9:INTERNATIONAL").await, (600, 1));
    assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (120, 0));
}

async fn rule_16_inbound_calls_cost_nothing_under_every_plan(town: Town) {
    let plans = [
        "MCOPSTN1",
        "MCOPSTN2",
        "MCOPSTN5",
        "MCOPSTN6",
        "MCOPSTN8",
        "MCOPSTN1, MCOPSTN9",
        "MCOPSTN_PAYG_1",
    ];
    let all = plans.iter().enumerate();
    let all = all.map(|(n, plan)| user(&format!("user-{n}"), "US", &format!("MCOEV, {plan}")));
    town.apply(&format!("{TEN}{}", users(all))).await;
    for (n, plan) in plans.iter().enumerate() {
        let of = inbound(CallType::UserInbound, &format!("user-{n}"), PARIS);
        let call_id = of.call_id.clone();
        assert_eq!(town.ask(of).await.decision(), Decision::AllowedFree, "{plan}");
        assert_eq!(charged(&town.settle(&call_id, 3_600).await), (0, "0"), "{plan}");
    }
    assert!(town.pools().await.iter().all(|(_, _, spent)| *spent == 0));
    assert_eq!(town.available().await, "10");
}

async fn rule_17_calls_within_the_service_are_free(town: Town) {
    let alice = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }";
    let bob = "{ id: bob, usage_location: FR, numbers: [\"+33123456700\"] }";
    town.apply(&format!("{TEN}users: [{alice}, {bob}]")).await;
    let answer = town.ask(crate::rules::named(call("alice", "+33123456700"), "within")).await;
    assert_eq!(answer.decision(), Decision::AllowedFree);
    assert_eq!(answer.classification.unwrap().call_class(), CallClass::OnNet);
    town.clock.advance(Seconds(600));
    assert_eq!(charged(&town.settle("within", 600).await), (0, "0"));
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
    assert_eq!(town.available().await, "10");
}
