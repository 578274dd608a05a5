//! Rules 75 to 81: licences, and what `apply` refuses.

use tollgate::proto::v1::Decision;

use crate::rules::{SEATTLE, Town, call, charged, named, user, users};

on_every_ledger! {
    rule_77_each_user_may_have_a_different_plan
    rule_79_without_the_plan_calling_stops
}

on_any_ledger! {
    rule_75_a_calling_plan_requires_phone_system
    rule_78_a_plan_user_without_a_number_or_an_address_is_warned_of
    rule_80_the_partners_plans_have_no_minutes_here
    every_wrong_combination_is_refused_with_the_rule_that_it_breaks
}

const PLANS: [&str; 8] = [
    "MCOPSTN1",
    "MCOPSTN2",
    "MCOPSTN5",
    "MCOPSTN6",
    "MCOPSTN8",
    "MCOPSTN_PAYG_1",
    "MCOPSTN_PAYG_2",
    "MCOPSTN9",
];

async fn rule_75_a_calling_plan_requires_phone_system(town: Town) {
    for plan in PLANS {
        let faults = town.faults(&users([user("alice", "US", plan)])).await;
        let expected = format!("users[0].licences[0]: {plan} needs MCOEV (rule 75)");
        assert_eq!(faults[0], expected);
        let bot = format!("{{ id: bot, usage_location: US, licences: [{plan}, MCOEV] }}");
        let faults = town.faults(&format!("resource_accounts: [{bot}]")).await;
        assert!(faults[0].ends_with("needs MCOEV_VIRTUALUSER (rule 75)"), "{faults:?}");
    }
    let right = PLANS[..7].iter().map(|plan| user(plan, "US", &format!("MCOEV, {plan}")));
    town.apply(&users(right)).await;
}

async fn rule_77_each_user_may_have_a_different_plan(town: Town) {
    let plans = ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5", "MCOPSTN6"];
    town.apply(&users(plans.map(|plan| user(plan, "US", &format!("MCOEV, {plan}"))))).await;
    for (minutes, plan) in (1..).zip(plans) {
        town.talk(call(plan, SEATTLE), minutes * 60).await;
    }
    for (minutes, plan) in (1..).zip(plans) {
        let (_, spent) = town.pool(&format!("US:{plan}:DOMESTIC")).await;
        assert_eq!(spent, minutes, "{plan}");
    }
}

async fn rule_78_a_plan_user_without_a_number_or_an_address_is_warned_of(town: Town) {
    for plan in &PLANS[..6] {
        let without = user("alice", "US", &format!("MCOEV, {plan}"));
        let warnings = town.apply(&users([without])).await.warnings;
        assert_eq!(warnings, [format!("user alice holds {plan} but has no number")]);
    }
    let with = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], \
                numbers: [\"+14255550100\"] }";
    let address = "users with a number but no emergency_address (rule 78): alice";
    assert_eq!(town.apply(&format!("users: [{with}]")).await.warnings, [address]);
    let whole = with.replace(" }", ", emergency_address: \"1 Main Street\" }");
    assert_eq!(town.apply(&format!("users: [{whole}]")).await.warnings, Vec::<String>::new());
    // A service number is nobody's: the same number cannot be both.
    let service = "service_numbers: [{ id: line, e164: \"+14255550100\", kind: toll }]";
    let faults = town.faults(&format!("users: [{with}], {service}")).await;
    assert!(faults[0].starts_with("service_numbers[0].e164: number"), "{faults:?}");
}

async fn rule_79_without_the_plan_calling_stops(town: Town) {
    let rich = "credits: [{ key: po-1, amount: 10, purchased_at: 2026-11-01T00:00:00Z }], ";
    let with = "MCOEV, MCOPSTN1, MCOMEETADD, MCOPSTNPP";
    town.apply(&format!("{rich}{}", users([user("alice", "US", with)]))).await;
    assert!(town.ask(named(call("alice", SEATTLE), "running")).await.allowed);
    // Credits are no plan, and neither is conferencing.
    let without = "MCOEV, MCOMEETADD, MCOPSTNPP";
    town.apply(&format!("{rich}{}", users([user("alice", "US", without)]))).await;
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::NotEntitled);
    assert_eq!(
        charged(&town.settle("running", 60).await),
        (60, "0"),
        "open calls keep their grants"
    );
}

async fn rule_80_the_partners_plans_have_no_minutes_here(town: Town) {
    for country in ["AU", "JP"] {
        for plan in ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5", "MCOPSTN6", "MCOPSTN8"] {
            let faults = town.faults(&users([user("u", country, &format!("MCOEV, {plan}"))])).await;
            let expected =
                format!("users[0].licences[1]: {plan} is not sold in {country} (rule 8)");
            assert_eq!(faults, [expected]);
        }
        town.apply(&users([user("u", country, "MCOEV")])).await;
        assert_eq!(town.pools().await, []);
        assert_eq!(town.decision(call("u", SEATTLE)).await, Decision::NotEntitled);
    }
}

async fn every_wrong_combination_is_refused_with_the_rule_that_it_breaks(town: Town) {
    for (country, licences, place, rule) in [
        ("US", "MCOPSTN1", 0, 75),
        ("US", "MCOEV, MCOMEETADD, MCOPSTN5, MCOPSTN9, MCOPSTNPP, MCOMEETADD_DIALOUT_US", 9, 0),
        ("US", "MCOPSTNPP", 0, 34),
        ("US", "MCOEV, MCOPSTNPP", 1, 34),
        ("US", "MCOPSTNPP, MCOMEETACPEA", 0, 34),
        ("UA", "MCOMEETADD, MCOPSTNPP", 1, 55),
        ("ZW", "MCOEV, MCOPSTN1", 1, 8),
        ("BR", "MCOEV, MCOPSTN2", 1, 8),
        ("MX", "MCOEV, MCOPSTN6", 1, 8),
        ("JP", "MCOEV, MCOPSTN1", 1, 8),
        ("US", "MCOEV, MCOPSTN9", 1, 14),
        ("US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTN9", 2, 14),
        ("US", "MCOMEETADD_DIALOUT_US", 0, 65),
        ("US", "MCOMEETACPEA, MCOMEETADD_DIALOUT_US", 1, 65),
    ] {
        let of = users([user("fine", "US", "MCOEV"), user("u", country, licences)]);
        if rule == 0 {
            town.apply(&of).await;
            continue;
        }
        let faults = town.faults(&of).await;
        assert_eq!(faults.len(), 1, "{licences}: {faults:?}");
        assert!(faults[0].starts_with(&format!("users[1].licences[{place}]: ")), "{faults:?}");
        assert!(faults[0].ends_with(&format!("(rule {rule})")), "{faults:?}");
    }
    // All that is wrong is told at once, and nothing of the document is applied.
    let two = [user("new", "US", "MCOPSTN1, MCOPSTNPP"), user("other", "CN", "MCOPSTNPP")];
    assert_eq!(town.faults(&users(two)).await.len(), 4);
    assert_eq!(town.decision(call("new", SEATTLE)).await, Decision::PayerUnknown);
}
