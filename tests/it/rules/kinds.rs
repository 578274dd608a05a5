//! Rules 18 to 26: what kind of call it is.

use tollgate::proto::v1::{
    AuthorizeCallRequest, CallClass, CallOrigin, CallType, Decision, FundingSource, NumberType,
};

use crate::rules::numbers::{LISTED, PREMIUM};
use crate::rules::{
    LONDON, PARIS, SAN_JUAN, SEATTLE, TEN, TORONTO, TUNIS, Town, call, charged, dial_out, named,
    sources, user, users, whole_world,
};

on_every_ledger! {
    rule_19_for_minutes_us_and_ca_are_domestic_to_each_other
    rule_24_emergency_calls_are_possible_under_every_policy
    rule_25_a_transfer_a_forward_and_an_added_party_are_calls_of_their_own
    rule_26_a_dial_out_to_a_toll_free_number_is_warned_of
}

on_any_ledger! {
    rule_18_a_call_is_domestic_where_it_goes_to_the_payers_country
    rule_20_us_domestic_covers_fifty_states_and_puerto_rico
    rule_21_the_policy_domestic_ignores_rule_19
    rule_22_international_calls_go_to_the_destinations_of_the_list
    rule_23_premium_numbers_depend_on_the_users_country
}

async fn class(town: &Town, of: AuthorizeCallRequest) -> CallClass {
    town.quote(of).await.classification.expect("a classification").call_class()
}

async fn rule_18_a_call_is_domestic_where_it_goes_to_the_payers_country(town: Town) {
    let plan = "MCOEV, MCOPSTN2, MCOMEETADD";
    let of = |country: &str| user(country, country, plan);
    town.apply(&users(["US", "FR", "GB"].map(of))).await;
    use CallClass::{Domestic, International};
    for (payer, called, expected) in [
        ("US", SEATTLE, Domestic),
        ("US", PARIS, International),
        ("US", LONDON, International),
        ("FR", PARIS, Domestic),
        ("FR", SEATTLE, International),
        ("GB", LONDON, Domestic),
        ("GB", PARIS, International),
    ] {
        assert_eq!(class(&town, call(payer, called)).await, expected, "{payer} to {called}");
        // Of a conference the organiser's location counts, whoever is shown as the caller.
        let shown =
            AuthorizeCallRequest { calling_number: TORONTO.to_owned(), ..dial_out(payer, called) };
        assert_eq!(class(&town, shown).await, expected, "conference of {payer} to {called}");
    }
    // As dialled at home.
    assert_eq!(class(&town, call("GB", "020 7946 0000")).await, Domestic);
    assert_eq!(class(&town, call("US", "011 44 20 7946 0000")).await, International);
}

async fn rule_19_for_minutes_us_and_ca_are_domestic_to_each_other(town: Town) {
    let plan = "MCOEV, MCOPSTN2";
    town.apply(&users([user("us", "US", plan), user("ca", "CA", plan)])).await;
    for (payer, called, pool) in
        [("us", TORONTO, "US:MCOPSTN2:DOMESTIC"), ("ca", SEATTLE, "CA:MCOPSTN2:DOMESTIC")]
    {
        assert_eq!(class(&town, call(payer, called)).await, CallClass::Domestic);
        town.talk(call(payer, called), 60).await;
        assert_eq!(town.pool(pool).await, (3_000, 1));
    }
}

/// An area code of each of the 50 states.
const STATES: &str = "205 907 602 501 213 303 203 302 305 404 808 208 312 317 515 316 502 504 207 301 617 \
                      313 612 601 314 406 402 702 603 201 505 212 704 701 216 405 503 215 401 803 605 615 \
                      214 801 802 703 206 304 414 307";

async fn rule_20_us_domestic_covers_fifty_states_and_puerto_rico(town: Town) {
    let plan = "MCOEV, MCOPSTN1";
    town.apply(&users([user("us", "US", plan), user("ca", "CA", plan), user("pr", "PR", plan)]))
        .await;
    let states: Vec<_> = STATES.split_whitespace().map(|area| format!("+1{area}5550142")).collect();
    assert_eq!(states.len(), 50);
    for payer in ["us", "ca", "pr"] {
        for called in states.iter().map(String::as_str).chain([SAN_JUAN, "+19395550142", TORONTO]) {
            let found = class(&town, call(payer, called)).await;
            assert_eq!(found, CallClass::Domestic, "{payer} to {called}");
        }
        // The same calling code makes no domestic call: the Dominican Republic, Jamaica, Guam.
        for called in ["+18092345678", "+18765230123", "+16713001234"] {
            let found = class(&town, call(payer, called)).await;
            assert_eq!(found, CallClass::International, "{payer} to {called}");
        }
    }
}

async fn rule_21_the_policy_domestic_ignores_rule_19(town: Town) {
    let plan = "MCOEV, MCOPSTN1";
    let all = users([user("us", "US", plan), user("ca", "CA", plan)]);
    town.apply(&format!("outbound_policy: {{ user: domestic }}, {all}")).await;
    for (payer, called, expected) in [
        ("us", TORONTO, Decision::PolicyDenied),
        ("ca", SEATTLE, Decision::PolicyDenied),
        ("us", SEATTLE, Decision::Allowed),
        ("ca", TORONTO, Decision::Allowed),
    ] {
        assert_eq!(town.decision(call(payer, called)).await, expected, "{payer} to {called}");
    }
}

async fn rule_22_international_calls_go_to_the_destinations_of_the_list(town: Town) {
    town.deck(&whole_world()).await;
    let all = users([
        user("plan", "US", "MCOEV, MCOPSTN2"),
        user("payg", "US", "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP"),
    ]);
    town.apply(&format!("{TEN}{all}")).await;
    assert_eq!(LISTED.len(), 198);
    for (country, called) in LISTED {
        for payer in ["plan", "payg"] {
            let quote = town.quote(call(payer, called)).await;
            assert_eq!(quote.decision(), Decision::Allowed, "{payer} to {country}");
        }
    }
    let unlisted =
        [("TN", TUNIS), ("CK", "+68221234"), ("CU", "+5371234567"), ("KP", "+85021234567")];
    for (country, called) in unlisted {
        for payer in ["plan", "payg"] {
            let quote = town.quote(call(payer, called)).await;
            assert_eq!(quote.decision(), Decision::DestinationBlocked, "{payer} to {country}");
            assert_eq!(quote.steps.last().unwrap().rule, "22", "{country}");
        }
    }
}

async fn rule_23_premium_numbers_depend_on_the_users_country(town: Town) {
    town.deck(&whole_world()).await;
    let plan = "MCOEV, MCOPSTN1, MCOPSTNPP";
    let all = users(PREMIUM.map(|(country, _)| user(country, country, plan)));
    town.apply(&format!("{TEN}{all}")).await;
    for (country, called) in PREMIUM {
        let answer = town.quote(call(country, called)).await;
        let found = answer.classification.as_ref().unwrap();
        assert_eq!(found.call_class(), CallClass::Premium, "{country}");
        assert_eq!(found.number_type(), NumberType::PremiumRate, "{country}");
        let expected: &[FundingSource] = match country {
            "FR" => &[FundingSource::Credits],
            "AT" => &[FundingSource::Pool],
            _ => &[],
        };
        assert_eq!(sources(&answer.funding), expected, "{country}");
        if expected.is_empty() {
            assert_eq!(answer.decision(), Decision::DestinationBlocked, "{country}");
        }
    }
    for prefix in ["44843", "44844", "44845", "44870", "44871", "44872"] {
        let answer = town.quote(call("GB", &format!("+{prefix}1234567"))).await;
        assert_eq!(sources(&answer.funding), [FundingSource::Credits], "{prefix}");
    }
    for called in ["+449012345678", "+449098790123", "+448731234567"] {
        assert_eq!(town.decision(call("GB", called)).await, Decision::DestinationBlocked);
    }
}

async fn rule_24_emergency_calls_are_possible_under_every_policy(town: Town) {
    for (conference, user) in
        [("any", "international"), ("any", "domestic"), ("disabled", "none"), ("zone_a", "none")]
    {
        let policy = format!("{{ conference: {conference}, user: {user} }}");
        let alice = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }";
        let gina = format!("{{ id: gina, usage_location: GB, outbound_policy: {policy} }}");
        town.apply(&format!("outbound_policy: {policy}, users: [{alice}, {gina}]")).await;
        for (payer, called) in [("alice", "911"), ("alice", "112"), ("gina", "999")] {
            let decision = town.ask(call(payer, called)).await.decision();
            assert_eq!(decision, Decision::AllowedEmergency, "{payer}, {policy}");
        }
        let expected = if user == "none" { Decision::PolicyDenied } else { Decision::Allowed };
        assert_eq!(town.decision(call("alice", SEATTLE)).await, expected, "{policy}");
    }
}

async fn rule_25_a_transfer_a_forward_and_an_added_party_are_calls_of_their_own(town: Town) {
    // Each leg is decided, charged and recorded by itself.
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN1")])).await;
    let legs = [
        (CallOrigin::Direct, "user_out"),
        (CallOrigin::Transfer, "user_out_transfer"),
        (CallOrigin::Forward, "user_out_forwarding"),
        (CallOrigin::AddParty, "user_out_conf"),
    ];
    for (origin, name) in legs {
        let of = AuthorizeCallRequest {
            origin: origin.into(),
            sip_call_id: "one-dialog".to_owned(),
            ..named(call("alice", SEATTLE), name)
        };
        assert_eq!(town.ask(of).await.decision(), Decision::Allowed, "{name}");
    }
    for (spent, (_, name)) in [2, 4, 6, 8].into_iter().zip(legs) {
        assert_eq!(charged(&town.settle(name, 61).await), (120, "0"), "{name}");
        assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, spent));
    }
    let found: Vec<_> = town.usage().await.into_iter().map(|r| (r.call_id, r.call_type)).collect();
    assert_eq!(found, legs.map(|(_, name)| (name.to_owned(), name.to_owned())));
}

async fn rule_26_a_dial_out_to_a_toll_free_number_is_warned_of(town: Town) {
    // A Brazilian toll-free number from the US.
    let alice = user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP, MCOMEETADD");
    town.apply(&format!("{TEN}{}", users([alice]))).await;
    for call_type in [CallType::UserOutbound, CallType::ConferenceDialOut] {
        let of =
            AuthorizeCallRequest { call_type: call_type.into(), ..call("alice", "+558001234567") };
        let answer = town.ask(of).await;
        assert_eq!(answer.decision(), Decision::Allowed);
        let found = answer.classification.unwrap();
        assert_eq!(found.call_class(), CallClass::TollFreeOutbound);
        assert!(answer.warnings[0].contains("(rule 26)"), "{:?}", answer.warnings);
        assert_eq!(sources(&answer.funding), [FundingSource::Credits]);
    }
    assert!(town.ask(call("alice", PARIS)).await.warnings.is_empty());
}
