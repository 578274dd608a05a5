//! Rules 57 to 69: dial-out and dial-in of Audio Conferencing.

use tollgate::proto::v1::{AuthorizeCallRequest, CallType, Decision, EventType, FundingSource};

use crate::rules::numbers::{LISTED, PREMIUM, ZONE_A};
use crate::rules::wallet::{subject, town_with_mail};
use crate::rules::{
    HARARE, LONDON, PARIS, SEATTLE, SUPPORT, TEN, TORONTO, Town, amount, call, charged, crowd,
    dial_out, inbound, named, sources, toll_free, user, users, whole_world,
};

on_every_ledger! {
    rule_57_a_subscription_gives_sixty_minutes_to_zone_a
    rule_58_the_dial_out_pool_is_one_per_tenant
    rule_59_the_dial_out_pool_counts_assigned_licences
    rule_60_zone_a_uses_the_pool_and_then_the_organisers_credits
    rule_61_the_rate_of_a_dial_out_depends_only_on_the_destination
    rule_62_organisers_in_ru_kr_and_tw_keep_nine_hundred_minutes
    rule_63_pay_per_minute_conferencing_has_no_minutes
    rule_64_with_a_subscription_toll_dial_in_is_included
    rule_65_extended_dial_out_uses_neither_pool_nor_credits
    rule_66_eighty_and_a_hundred_percent_of_the_dial_out_pool_are_told
}

on_any_ledger! {
    rule_67_the_policy_has_two_independent_settings
    rule_68_dial_out_is_off_for_organisations_in_china
    rule_69_conferencing_knows_zone_a_or_per_minute
}

use FundingSource::{Credits, Pool};

const POOL: &str = "ALL:MCOMEETADD:CONFERENCE";

fn in_zone_a(country: &str) -> bool {
    ZONE_A.split_whitespace().any(|found| found == country)
}

async fn rule_57_a_subscription_gives_sixty_minutes_to_zone_a(town: Town) {
    assert_eq!(ZONE_A.split_whitespace().count(), 44);
    town.apply(&users([user("olga", "US", "MCOMEETADD")])).await;
    assert_eq!(town.pool(POOL).await, (60, 0));
    let mut found = 0;
    for (country, called) in LISTED.iter().filter(|(country, _)| in_zone_a(country)) {
        let quote = town.quote(dial_out("olga", called)).await;
        let paid = (quote.decision(), sources(&quote.funding));
        assert_eq!(paid, (Decision::Allowed, vec![Pool]), "{country}");
        found += 1;
    }
    assert_eq!(found, 44);
    // Premium numbers are refused, also those that a user of the country may call.
    town.apply(&users([user("fred", "FR", "MCOMEETADD"), user("anna", "AT", "MCOMEETADD")])).await;
    for (country, called) in PREMIUM {
        for organiser in ["olga", "fred", "anna"] {
            let decision = town.quote(dial_out(organiser, called)).await.decision();
            assert_eq!(decision, Decision::DestinationBlocked, "{organiser} to {country}");
        }
    }
    town.talk(dial_out("olga", PARIS), 61).await;
    assert_eq!(town.pool(POOL).await, (180, 2));
    town.at("2026-12-01T00:00:00Z");
    assert_eq!(town.pool(POOL).await, (180, 0));
}

async fn rule_58_the_dial_out_pool_is_one_per_tenant(town: Town) {
    let mut all = crowd("us", 10, "US", "MCOMEETADD");
    all.extend(crowd("uk", 100, "GB", "MCOMEETADD"));
    all.extend(crowd("zw", 5, "ZW", "MCOMEETADD"));
    town.apply(&users(all)).await;
    for organiser in ["us-0", "uk-0", "zw-0"] {
        town.talk(dial_out(organiser, SEATTLE), 60).await;
    }
    assert_eq!(town.pools().await, [(POOL.to_owned(), 6_900, 3)]);
}

async fn rule_59_the_dial_out_pool_counts_assigned_licences(town: Town) {
    // 100 were bought, 20 are assigned.
    let mut all = crowd("with", 20, "CA", "MCOMEETADD");
    all.extend(crowd("without", 80, "CA", "MCOEV"));
    town.apply(&users(all)).await;
    assert_eq!(town.pool(POOL).await, (1_200, 0));
}

async fn rule_60_zone_a_uses_the_pool_and_then_the_organisers_credits(town: Town) {
    let all = users([
        user("zoe", "ZW", "MCOMEETADD, MCOPSTNPP"),
        user("cook", "CK", "MCOMEETADD"),
        user("plan", "US", "MCOEV, MCOPSTN2, MCOMEETADD"),
    ]);
    town.apply(&format!("{TEN}{all}")).await;
    for (organiser, called, expected) in
        [("zoe", SEATTLE, Pool), ("zoe", HARARE, Credits), ("cook", LONDON, Pool)]
    {
        let answer = town.quote(dial_out(organiser, called)).await;
        assert_eq!(sources(&answer.funding), [expected], "{organiser} to {called}");
    }
    let unlicensed = town.decision(dial_out("cook", HARARE)).await;
    assert_eq!(unlicensed, Decision::CreditsNotLicensed);
    town.talk(dial_out("cook", LONDON), 180 * 60).await;
    assert_eq!(sources(&town.ask(dial_out("zoe", LONDON)).await.funding), [Credits]);
    // The others have no licence for credits, and a calling plan does not step in (C16).
    for organiser in ["cook", "plan"] {
        let decision = town.decision(dial_out(organiser, LONDON)).await;
        assert_eq!(decision, Decision::PoolExhausted, "{organiser}");
    }
    assert_eq!(town.pool("US:MCOPSTN2:INTERNATIONAL").await, (600, 0));
}

async fn rule_61_the_rate_of_a_dial_out_depends_only_on_the_destination(town: Town) {
    let of = |country: &str| user(country, country, "MCOMEETACPEA");
    town.apply(&format!("{TEN}{}", users(["US", "FR", "ZW"].map(of)))).await;
    for organiser in ["US", "FR", "ZW"] {
        for calling in ["", SEATTLE, HARARE] {
            let of = AuthorizeCallRequest {
                calling_number: calling.to_owned(),
                ..dial_out(organiser, PARIS)
            };
            let quote = town.quote(of).await;
            assert_eq!(amount(&quote.funding[0].rate_per_minute), "0.1", "{organiser} {calling}");
        }
        let settled = town.talk(dial_out(organiser, PARIS), 60).await;
        assert_eq!(charged(&settled), (60, "0.15"), "{organiser}");
    }
}

async fn rule_62_organisers_in_ru_kr_and_tw_keep_nine_hundred_minutes(town: Town) {
    let mut all = crowd("kr", 115, "KR", "MCOMEETADD");
    all.push(user("ru", "RU", "MCOMEETADD"));
    all.push(user("tw", "TW", "MCOMEETADD"));
    all.push(user("us", "US", "MCOMEETADD"));
    town.apply(&users(all)).await;
    let expected = [
        (POOL, 60),
        ("KR:MCOMEETADD:CONFERENCE", 103_500),
        ("RU:MCOMEETADD:CONFERENCE", 900),
        ("TW:MCOMEETADD:CONFERENCE", 900),
    ];
    assert_eq!(town.pools().await, expected.map(|(name, size)| (name.to_owned(), size, 0)));
    town.talk(dial_out("ru", SEATTLE), 60).await;
    assert_eq!(town.pool("RU:MCOMEETADD:CONFERENCE").await, (900, 1));
    assert_eq!(town.decision(dial_out("ru", HARARE)).await, Decision::CreditsNotLicensed);
}

async fn rule_63_pay_per_minute_conferencing_has_no_minutes(town: Town) {
    town.apply(&format!("{TEN}{SUPPORT}{}", users([user("pete", "US", "MCOMEETACPEA")]))).await;
    assert_eq!(town.pools().await, []);
    // Each telephone participant is a leg of its own: two that dial in are charged twice.
    for _ in 0..2 {
        let of = inbound(CallType::ConferenceDialIn, "pete", SEATTLE);
        assert_eq!(charged(&town.talk(of, 60).await), (60, "0.03"), "toll dial-in");
    }
    assert_eq!(
        charged(&town.talk(toll_free(SEATTLE), 60).await),
        (60, "0.02"),
        "toll-free dial-in"
    );
    assert_eq!(charged(&town.talk(dial_out("pete", SEATTLE), 60).await), (60, "0.01"), "dial-out");
    assert_eq!(town.available().await, "9.91");
}

async fn rule_64_with_a_subscription_toll_dial_in_is_included(town: Town) {
    let all = users([user("olga", "US", "MCOMEETADD"), user("nobody", "US", "MCOEV")]);
    town.apply(&format!("{TEN}{all}")).await;
    let of = named(inbound(CallType::ConferenceDialIn, "olga", PARIS), "in");
    assert_eq!(town.ask(of).await.decision(), Decision::AllowedFree);
    assert_eq!(charged(&town.settle("in", 3_600).await), (0, "0"));
    assert_eq!((town.pool(POOL).await, &*town.available().await), ((60, 0), "10"));
    let of = inbound(CallType::ConferenceDialIn, "nobody", PARIS);
    assert_eq!(town.decision(of).await, Decision::NotEntitled);
}

async fn rule_65_extended_dial_out_uses_neither_pool_nor_credits(town: Town) {
    let olga = user("olga", "US", "MCOMEETADD, MCOMEETADD_DIALOUT_US, MCOPSTNPP");
    town.apply(&format!("{TEN}{}", users([olga]))).await;
    for called in [SEATTLE, TORONTO] {
        let of = named(dial_out("olga", called), called);
        assert_eq!(town.ask(of).await.decision(), Decision::AllowedFree, "{called}");
        assert_eq!(charged(&town.settle(called, 7_200).await), (0, "0"), "{called}");
    }
    assert_eq!((town.pool(POOL).await, &*town.available().await), ((60, 0), "10"));
    assert_eq!(sources(&town.ask(dial_out("olga", PARIS)).await.funding), [Pool]);
    let faults = town.faults(&users([user("eve", "US", "MCOMEETADD_DIALOUT_US")])).await;
    let expected = "users[0].licences[0]: MCOMEETADD_DIALOUT_US needs MCOMEETADD (rule 65)";
    assert_eq!(faults, [expected]);
}

async fn rule_66_eighty_and_a_hundred_percent_of_the_dial_out_pool_are_told(town: Town) {
    let all = crowd("olga", 115, "GB", "MCOMEETADD");
    town.apply(&users(all)).await;
    let kinds = [EventType::PoolThreshold, EventType::PoolExhausted];
    let told = async || -> Vec<EventType> {
        let events = town.events(&kinds).await;
        assert!(events.iter().all(|event| event.bucket_id.contains(POOL)), "{events:?}");
        events.iter().map(|event| event.r#type()).collect()
    };
    town.talk(dial_out("olga-0", SEATTLE), 5_519 * 60).await;
    assert_eq!(told().await, []);
    town.talk(dial_out("olga-1", SEATTLE), 60).await;
    assert_eq!(told().await, [EventType::PoolThreshold], "5,520 of 6,900");
    town.talk(dial_out("olga-2", SEATTLE), 1_379 * 60).await;
    assert_eq!(told().await.len(), 1);
    town.talk(dial_out("olga-3", SEATTLE), 60).await;
    assert_eq!(told().await, kinds, "6,900 of 6,900");
}

#[tokio::test]
async fn rule_66_administrators_are_mailed_at_eighty_and_a_hundred_percent() {
    let (town, mut mails) = town_with_mail().await;
    let olga = users([user("olga", "GB", "MCOMEETADD")]);
    town.apply(&format!("notices: {{ emails: [ops@example.com] }}, {olga}")).await;
    for minutes in [48, 12] {
        town.talk(dial_out("olga", SEATTLE), minutes * 60).await;
        let subject = subject(&mut mails).await;
        assert!(subject.contains("fabrikam"), "{subject}");
        let eighty = subject.contains("80");
        assert_eq!(eighty, minutes == 48, "{subject}");
    }
}

async fn rule_67_the_policy_has_two_independent_settings(town: Town) {
    let licences = "MCOEV, MCOPSTN2, MCOMEETADD, MCOPSTNPP";
    let policy = |c: &str, u: &str| format!("outbound_policy: {{ conference: {c}, user: {u} }}");
    // Of Seattle, Toronto and Harare: the own country, elsewhere in Zone A, and outside it.
    let conferences = [
        ("any", [true, true, true]),
        ("same_country", [true, false, false]),
        ("zone_a", [true, true, false]),
        ("disabled", [false, false, false]),
    ];
    let calls = [
        ("international", [true, true, true]),
        ("domestic", [true, false, false]),
        ("none", [false, false, false]),
    ];
    for (conference, dial_outs) in conferences {
        for (of_user, outs) in calls {
            // Of the tenant for alice; bob has his own, against a tenant that says the opposite.
            let (first, second) = (policy(conference, of_user), policy("any", "international"));
            let opposite =
                if conference == "disabled" { &second } else { &policy("disabled", "none") };
            for (of_tenant, payer, own) in [(&first, "alice", ""), (opposite, "bob", &*first)] {
                let own = if own.is_empty() { String::new() } else { format!(", {own}") };
                town.apply(&format!(
                    "{TEN}{of_tenant}, users: [{{ id: {payer}, usage_location: US, licences: \
                     [{licences}]{own} }}]"
                ))
                .await;
                for (n, called) in [SEATTLE, TORONTO, HARARE].into_iter().enumerate() {
                    for (of, may) in
                        [(dial_out(payer, called), dial_outs[n]), (call(payer, called), outs[n])]
                    {
                        let expected = if may { Decision::Allowed } else { Decision::PolicyDenied };
                        let (quote, first) = (town.quote(of).await, &first);
                        assert_eq!(quote.decision(), expected, "{payer} to {called}: {first}");
                    }
                }
            }
        }
    }
}

async fn rule_68_dial_out_is_off_for_organisations_in_china(town: Town) {
    let olga = users([user("olga", "US", "MCOEV, MCOPSTN1, MCOMEETADD")]);
    for (country, expected) in [("CN", Decision::PolicyDenied), ("HK", Decision::Allowed)] {
        town.apply(&format!("country: {country}, {olga}")).await;
        assert_eq!(town.decision(dial_out("olga", SEATTLE)).await, expected, "{country}");
        assert_eq!(town.decision(call("olga", SEATTLE)).await, Decision::Allowed, "{country}");
        let of = inbound(CallType::ConferenceDialIn, "olga", SEATTLE);
        assert_eq!(town.decision(of).await, Decision::AllowedFree, "{country}");
    }
}

async fn rule_69_conferencing_knows_zone_a_or_per_minute(town: Town) {
    town.deck(&whole_world()).await;
    let olga = users([user("olga", "US", "MCOMEETADD, MCOPSTNPP")]);
    town.apply(&format!("{TEN}{olga}")).await;
    for (country, called) in LISTED {
        let quote = town.quote(dial_out("olga", called)).await;
        let expected = if in_zone_a(country) { Pool } else { Credits };
        assert_eq!(sources(&quote.funding), [expected], "{country}");
    }
}
