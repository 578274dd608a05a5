//! Rules 82 to 91: records and reports.

use std::collections::HashSet;

use tollgate::proto::v1::{
    AdjustSettlementRequest, AuthorizeCallRequest, BlockUserRequest, CallOrigin, CallType,
    ExportUsageRequest, ListBlockedUsersRequest, UnblockUserRequest,
};
use tonic::Code;

use crate::rules::{
    PARIS, SEATTLE, SUPPORT, TEN, Town, call, dial_out, inbound, length, named, timestamp,
    toll_free, user, users,
};

on_every_ledger! {
    rule_82_the_export_has_twenty_columns_in_order
    rule_83_the_usage_id_is_unique_and_the_call_id_is_not
    rule_84_user_fields_are_empty_for_bots
    rule_85_the_export_is_rfc_4180_in_utc_and_a_year_back
    rule_87_call_types_have_their_names
    rule_88_the_capability_names_what_paid
    rule_89_the_user_of_a_conference_dial_out_is_its_organiser
    rule_90_the_pool_report_shows_total_used_and_available_as_they_are
    rule_91_the_report_of_blocked_users_shows_reason_and_time
}

on_any_ledger! {
    rule_86_the_last_digits_of_the_outside_number_are_masked
}

const WINDOW: [&str; 4] = ["--from", "2026-11-01T00:00:00Z", "--to", "2026-12-01T00:00:00Z"];

async fn csv(town: &Town) -> String {
    town.printed(&[&["usage", "--format", "csv"][..], &WINDOW].concat()).await
}

async fn rule_82_the_export_has_twenty_columns_in_order(town: Town) {
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN1")])).await;
    town.talk(call("alice", SEATTLE), 61).await;
    let text = csv(&town).await;
    let header = "UsageId,Call ID,Conference ID,User Location,AAD ObjectId,UPN,User Display Name,\
                  Caller ID,Call Type,Number Type,Domestic/International,Destination Dialed,\
                  Destination Number,Start Time,End Time,Duration Seconds,Connection Fee,Charge,\
                  Currency,Capability";
    assert_eq!(text.lines().next(), Some(header));
    let row: Vec<_> = text.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(row.len(), 20);
    assert_eq!(row[3], "US");
    assert_eq!(row[8..11], ["user_out", "Subscriber", "Domestic"]);
    assert_eq!(row[12], SEATTLE);
    assert_eq!(row[15..], ["61", "0", "0", "USD", "MCOPSTN1"]);
}

async fn rule_83_the_usage_id_is_unique_and_the_call_id_is_not(town: Town) {
    town.apply(&users([user("alice", "US", "MCOEV, MCOPSTN1")])).await;
    town.talk(named(call("alice", SEATTLE), "corrected"), 61).await;
    let correction = AdjustSettlementRequest {
        tenant_id: town.tenant.clone(),
        key: "s-1".to_owned(),
        call_id: "corrected".to_owned(),
        used_duration: length(181),
        reason: "the meter stood".to_owned(),
        operator: "olivia".to_owned(),
    };
    town.account.clone().adjust_settlement(correction).await.unwrap();
    let records = town.usage().await;
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.call_id == "corrected"));
    let ids: HashSet<_> = records.iter().map(|record| &record.usage_id).collect();
    assert_eq!(ids.len(), 2);
}

async fn rule_84_user_fields_are_empty_for_bots(town: Town) {
    let alice = "{ id: alice, usage_location: US, upn: alice@example.com, display_name: Alice, \
                 object_id: o-1, licences: [MCOEV, MCOPSTN1], numbers: [\"+14255550100\"] }";
    let bot = "{ id: bot, usage_location: US, licences: [MCOEV_VIRTUALUSER, MCOPSTN_PAYG_1] }";
    town.apply(&format!("{TEN}{SUPPORT}users: [{alice}], resource_accounts: [{bot}]")).await;
    town.talk(call("alice", SEATTLE), 60).await;
    town.talk(call("bot", SEATTLE), 60).await;
    town.talk(toll_free(PARIS), 60).await;
    let told: Vec<_> = town.usage().await;
    let told: Vec<_> = told
        .iter()
        .map(|r| (&*r.call_type, &*r.upn, &*r.user_display_name, &*r.aad_object_id))
        .collect();
    assert_eq!(
        told,
        [
            ("user_out", "alice@example.com", "Alice", "o-1"),
            ("ucap_out", "", "", ""),
            ("ucap_in", "", "", ""),
        ]
    );
}

async fn rule_85_the_export_is_rfc_4180_in_utc_and_a_year_back(town: Town) {
    let alice = "{ id: alice, usage_location: US, display_name: 'Doe, \"Al\"', \
                 licences: [MCOEV, MCOPSTN1] }";
    town.apply(&format!("time_zone: Asia/Kolkata, users: [{alice}]")).await;
    town.talk(call("alice", SEATTLE), 60).await;
    let text = csv(&town).await;
    assert!(text.starts_with("UsageId,") && text.ends_with("\r\n"), "{text}");
    assert_eq!(text.matches("\r\n").count(), 2, "a row of names and a record");
    assert!(text.contains(",\"Doe, \"\"Al\"\"\","), "{text}");
    assert!(text.contains(",2026-11-10T11:59:00Z,2026-11-10T12:00:00Z,60,"), "{text}");
    let of = |from: &str| ExportUsageRequest {
        tenant_id: town.tenant.clone(),
        from: timestamp(from),
        to: timestamp("2026-11-11T00:00:00Z"),
    };
    let mut account = town.account.clone();
    account.export_usage(of("2025-11-10T12:00:00Z")).await.unwrap();
    let refused = account.export_usage(of("2025-11-10T11:59:59Z")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

async fn rule_86_the_last_digits_of_the_outside_number_are_masked(town: Town) {
    let alice = "users: [{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }]";
    town.apply(alice).await;
    let of = AuthorizeCallRequest {
        calling_number: "+14255550100".to_owned(),
        ..call("alice", SEATTLE)
    };
    town.talk(of, 60).await;
    let of = inbound(CallType::UserInbound, "alice", PARIS);
    town.talk(of, 60).await;
    let three = ["BE", "DE", "DK", "ES", "FI", "IT", "NL", "NO", "SE"];
    let none = ["US", "GB", "CA", "AT", "IE", "PL", "JP"];
    let countries = ["FR", "CH"].map(|country| (country, 4)).into_iter();
    let countries = countries.chain(three.map(|c| (c, 3))).chain(none.map(|c| (c, 0)));
    for (country, digits) in countries {
        town.apply(&format!("country: {country}, {alice}")).await;
        let records = town.usage().await;
        let masked = |number: &str| {
            let (shown, hidden) = number.split_at(number.len() - digits);
            format!("{shown}{}", "*".repeat(hidden.len()))
        };
        let out = (&*records[0].caller_id, &*records[0].destination_number);
        assert_eq!(out, ("+14255550100", &*masked(SEATTLE)), "{country}");
        let inside = (&*records[1].caller_id, &*records[1].destination_number);
        assert_eq!(inside, (&*masked(PARIS), "+14255550100"), "{country}");
        assert_eq!(records[1].destination_dialed, "United States (U.S.)", "{country}");
    }
}

async fn rule_87_call_types_have_their_names(town: Town) {
    let alice = user("alice", "US", "MCOEV, MCOPSTN1, MCOMEETADD");
    let bot = "{ id: bot, usage_location: US, licences: [MCOEV_VIRTUALUSER, MCOPSTN_PAYG_1] }";
    town.apply(&format!("{TEN}{SUPPORT}{}, resource_accounts: [{bot}]", users([alice]))).await;
    let with = |origin: CallOrigin| AuthorizeCallRequest {
        origin: origin.into(),
        ..call("alice", SEATTLE)
    };
    let legs = [
        ("user_in", inbound(CallType::UserInbound, "alice", PARIS)),
        ("user_out", with(CallOrigin::Direct)),
        ("user_out_conf", with(CallOrigin::AddParty)),
        ("user_out_transfer", with(CallOrigin::Transfer)),
        ("user_out_forwarding", with(CallOrigin::Forward)),
        ("conf_in", inbound(CallType::ConferenceDialIn, "alice", PARIS)),
        ("conf_out", dial_out("alice", SEATTLE)),
        ("ucap_in", toll_free(SEATTLE)),
        ("ucap_out", call("bot", SEATTLE)),
    ];
    for (_, of) in &legs {
        town.talk(of.clone(), 60).await;
    }
    // To a number that is nobody's: refused, and recorded.
    let unassigned = town.ask(inbound(CallType::UserInbound, "nobody", PARIS)).await;
    assert!(!unassigned.allowed);
    let found: Vec<_> = town.usage().await.into_iter().map(|record| record.call_type).collect();
    let expected: Vec<_> = legs.iter().map(|(name, _)| *name).chain(["unassigned_in"]).collect();
    assert_eq!(found, expected);
}

async fn rule_88_the_capability_names_what_paid(town: Town) {
    let of = |plan: &str| user(plan, "US", &format!("MCOEV, {plan}"));
    let mut all: Vec<_> =
        ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5", "MCOPSTN6", "MCOPSTN8"].map(of).into();
    all.push(user("MCOPSTN9", "US", "MCOEV, MCOPSTN5, MCOPSTN9"));
    all.push(user("credits", "US", "MCOEV, MCOPSTN1, MCOPSTNPP"));
    all.push(user("conf", "US", "MCOMEETADD, MCOMEETADD_DIALOUT_US"));
    all.push(user("minute", "US", "MCOMEETACPEA"));
    all.push(user("free", "US", "MCOEV"));
    let bot = "resource_accounts: [{ id: bot, usage_location: US, licences: [MCOEV_VIRTUALUSER] }]";
    town.apply(&format!("{TEN}{bot}, {}", users(all))).await;
    let legs = [
        ("MCOPSTN1", call("MCOPSTN1", SEATTLE)),
        ("MCOPSTN2", call("MCOPSTN2", PARIS)),
        ("MCOPSTN5", call("MCOPSTN5", SEATTLE)),
        ("MCOPSTN6", call("MCOPSTN6", SEATTLE)),
        ("MCOPSTN8", call("MCOPSTN8", SEATTLE)),
        ("MCOPSTN9", call("MCOPSTN9", PARIS)),
        ("MCOPSTNPP", call("credits", PARIS)),
        ("MCOMEETADD", dial_out("conf", PARIS)),
        ("MCOMEETADD_DIALOUT_US", dial_out("conf", SEATTLE)),
        ("MCOMEETACPEA", dial_out("minute", SEATTLE)),
        ("MCOEV", inbound(CallType::UserInbound, "free", PARIS)),
        ("MCOEV_VIRTUALUSER", inbound(CallType::UserInbound, "bot", PARIS)),
    ];
    for (_, of) in &legs {
        town.talk(of.clone(), 60).await;
    }
    let found: Vec<_> = town.usage().await.into_iter().map(|record| record.capability).collect();
    assert_eq!(found, legs.map(|(capability, _)| capability.to_owned()));
}

async fn rule_89_the_user_of_a_conference_dial_out_is_its_organiser(town: Town) {
    let user = |id, licences, number| {
        format!(
            "{{ id: {id}, usage_location: US, upn: {id}@example.com, display_name: {id}, \
             licences: [{licences}], numbers: [\"{number}\"] }}"
        )
    };
    let olga = user("olga", "MCOMEETADD", "+14255550150");
    let pete = user("pete", "MCOEV, MCOPSTN1", "+14255550151");
    town.apply(&users([olga, pete])).await;
    // Pete presses dial.
    let of = AuthorizeCallRequest {
        calling_number: "+14255550151".to_owned(),
        on_behalf_of: "pete".to_owned(),
        conference_id: "standup".to_owned(),
        ..dial_out("olga", SEATTLE)
    };
    town.talk(of, 60).await;
    let record = town.usage().await.remove(0);
    assert_eq!((&*record.call_type, &*record.upn), ("conf_out", "olga@example.com"));
    assert_eq!((&*record.user_display_name, &*record.conference_id), ("olga", "standup"));
}

async fn rule_90_the_pool_report_shows_total_used_and_available_as_they_are(town: Town) {
    let plan = "MCOEV, MCOPSTN5";
    town.apply(&users([user("us", "US", plan), user("pr", "PR", plan), user("fr", "FR", plan)]))
        .await;
    town.talk(call("us", SEATTLE), 61).await;
    let report = town.printed(&["pools"]).await;
    let row = |country: &str| {
        let found = report.lines().find(|line| line.split_whitespace().any(|cell| cell == country));
        found.unwrap_or_else(|| panic!("no {country} in {report}")).to_owned()
    };
    let has = |row: &str, cells: &[&str]| {
        let found: Vec<_> = row.split_whitespace().collect();
        assert!(cells.iter().all(|cell| found.contains(cell)), "{cells:?} in {row}\n{report}");
    };
    has(&row("US"), &["MCOPSTN5", "4h0m0s", "2m0s", "3h58m0s"]);
    has(&row("FR"), &["MCOPSTN5", "2h0m0s", "0s"]);
    // At once, not a day or two later.
    town.talk(call("fr", PARIS), 60).await;
    assert_eq!(town.pool("FR:MCOPSTN5:DOMESTIC").await, (120, 1));
}

async fn rule_91_the_report_of_blocked_users_shows_reason_and_time(town: Town) {
    let alice = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], \
                 numbers: [\"+14255550100\"] }";
    town.apply(&format!("time_zone: Asia/Kolkata, users: [{alice}]")).await;
    let mut account = town.account.clone();
    let block = BlockUserRequest {
        tenant_id: town.tenant.clone(),
        user_id: "alice".to_owned(),
        reason: "calls at night".to_owned(),
        operator: "olga".to_owned(),
    };
    account.block_user(block).await.unwrap();
    town.at("2026-11-11T08:00:00Z");
    let unblock = UnblockUserRequest {
        tenant_id: town.tenant.clone(),
        user_id: "alice".to_owned(),
        reason: "it was the cat".to_owned(),
        operator: "otto".to_owned(),
    };
    account.unblock_user(unblock).await.unwrap();
    let of = ListBlockedUsersRequest {
        tenant_id: town.tenant.clone(),
        include_unblocked: true,
        ..ListBlockedUsersRequest::default()
    };
    let mut blocks = account.list_blocked_users(of).await.unwrap().into_inner().blocks;
    blocks.sort_by_key(|block| block.occurred_at.unwrap().seconds);
    let told: Vec<_> = blocks
        .iter()
        .map(|b| (&*b.user_id, &*b.numbers[0], &*b.reason, b.blocked, b.occurred_at))
        .collect();
    assert_eq!(
        told,
        [
            ("alice", "+14255550100", "calls at night", true, timestamp("2026-11-10T12:00:00Z")),
            ("alice", "+14255550100", "it was the cat", false, timestamp("2026-11-11T08:00:00Z")),
        ]
    );
}
