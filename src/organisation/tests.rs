//! Documents and what is wrong with them, through [`check`] and [`faults`].

use super::*;
use crate::charging::catalogue::Licence;
use crate::charging::decision::Decision;
use crate::charging::profile::*;
use crate::charging::units::{Micros, Millis, Seconds};

const SAMPLE: &str = include_str!("../../samples/organisation.yaml");

/// Reads and judges; the faults as an operator sees them.
#[track_caller]
fn read_and_check(yaml: &str) -> Result<Vec<TenantDocument>, Vec<String>> {
    read(yaml)
        .and_then(|raw| super::check(&raw))
        .map_err(|faults| faults.iter().map(Fault::to_string).collect())
}

#[track_caller]
fn faults(yaml: &str) -> Vec<String> {
    read_and_check(yaml).expect_err("the document has a fault")
}

/// A tenant that is right, with `lines` added: they begin on line 4.
fn tenant_with(lines: &str) -> String {
    format!("tenants:\n  - id: contoso\n    currency: USD\n{lines}")
}

/// A tenant with one user that is right, with `lines` added: they begin on line 7.
fn user_with(lines: &str) -> String {
    tenant_with(&format!("    users:\n      - id: alice\n        usage_location: US\n{lines}"))
}

/// Exactly one fault, which is `expected`.
#[track_caller]
fn check(yaml: &str, expected: &str) {
    assert_eq!(faults(yaml), [expected], "{yaml}");
}

/// One key of the tenant is at fault, on line 4.
#[track_caller]
fn check_tenant(line: &str, expected: &str) {
    check(&tenant_with(&format!("    {line}\n")), &format!("line 4: tenants[0].{expected}"));
}

/// One key of the user is at fault, on line 7.
#[track_caller]
fn check_user(line: &str, expected: &str) {
    check(
        &user_with(&format!("        {line}\n")),
        &format!("line 7: tenants[0].users[0].{expected}"),
    );
}

#[track_caller]
fn one(yaml: &str) -> TenantDocument {
    let mut documents = read_and_check(yaml).expect("the document is right");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

#[test]
fn the_sample_is_read_whole() {
    let contoso = one(SAMPLE);
    let profile = &contoso.profile;
    assert_eq!(profile.id.as_str(), "contoso");
    assert_eq!(profile.currency, "USD");
    assert_eq!(profile.time_zone, "America/Los_Angeles");
    assert_eq!(profile.state, TenantState::Active);
    assert!(contoso.names_deck);
    assert_eq!(profile.limits.concurrent_calls, Some(500));
    assert_eq!(profile.limits.calls_per_second, Some(50));
    assert_eq!(profile.limits.max_rate_per_minute, Some(Micros(2_500_000)));
    assert_eq!(profile.limits.max_connection_fee, Some(Micros(1_000_000)));
    assert_eq!(
        profile.spend_velocity,
        Some(SpendVelocity { amount: Micros(200_000_000), per: Seconds(3600) })
    );
    assert_eq!(profile.blocked_prefixes, ["882"]);
    assert_eq!(profile.international_cap, InternationalCap::Either);
    assert!(!profile.allow_unlisted_destinations);
    assert_eq!(profile.pool_increment(Licence::Domestic120PerUser), Seconds(1));
    assert_eq!(profile.pool_increment(Licence::Domestic), Seconds(60));
    let recharge = profile.auto_recharge.expect("auto_recharge is set");
    assert_eq!(recharge.daily_cap, Some(Micros(1_000_000_000)));
    assert_eq!(recharge.recharge_on, RechargeOn::Spent);
    let trunk = profile.trunk("sbc-1").expect("the trunk is there");
    assert_eq!(
        trunk.responses.get(&Decision::InsufficientCredits),
        Some(&ResponseOverride { sip_status: Some(403), q850_cause: Some(21) })
    );

    assert_eq!(profile.notices.emails, ["ops@contoso.example"]);
    assert_eq!(profile.notices.webhook.as_deref(), Some("https://contoso.example/tollgate"));

    let purchase = &contoso.purchases[0];
    assert_eq!((purchase.key.as_str(), purchase.amount), ("po-0001", Micros(500_000_000)));
    assert_eq!(purchase.purchased_at, Millis(1_768_003_200_000));
    assert_eq!(purchase.payment["agreement"], "EA-77");

    let [alice, support, attendant] = contoso.payers.as_slice() else { panic!("three payers") };
    assert_eq!(alice.kind, PayerKind::User);
    assert_eq!(alice.user_policy, Some(UserPolicy::Domestic));
    assert_eq!(alice.conference_policy, None);
    assert_eq!(alice.spend_limit, Some(Micros(150_000_000)));
    assert_eq!(alice.concurrent_calls, Some(2));
    assert_eq!(alice.display_name, "Alice Example");
    let codes: Vec<&str> = alice.licences.iter().map(|licence| licence.code()).collect();
    assert_eq!(codes, ["MCOEV", "MCOPSTN1", "MCOPSTNPP", "MCOMEETADD"]);
    assert_eq!(support.kind, PayerKind::TollFreeNumber);
    assert_eq!(support.usage_location.as_str(), "US");
    assert_eq!(support.numbers, ["+18005550199"]);
    assert_eq!(attendant.kind, PayerKind::ResourceAccount);
}

#[test]
fn what_is_absent_has_the_documented_default() {
    let contoso = one(&user_with(""));
    let profile = &contoso.profile;
    assert_eq!(profile.country, None);
    assert_eq!(profile.time_zone, "UTC");
    assert_eq!(profile.billing, Billing::Prepaid);
    assert_eq!((profile.rate_deck.as_str(), contoso.names_deck), ("default", false));
    assert_eq!(profile.outbound_policy, OutboundPolicy::default());
    assert_eq!(profile.failure_handling, FailureHandling::default());
    assert_eq!(profile.on_lost_settle, OnLostSettle::Proven);
    assert_eq!(profile.limits, TenantLimits::default());
    assert_eq!(profile.notices, NoticeTargets::default());
    assert_eq!(contoso.payers[0].state, PayerState::Active);
    assert_eq!(contoso.warnings, [""; 0]);
    // A key without a value is absent.
    assert_eq!(
        one(&tenant_with("    country:\n    users:\n    limits: ~\n")).profile,
        one(&tenant_with("")).profile
    );
}

#[test]
fn every_scalar_is_text() {
    let yaml = tenant_with(
        "    rate_deck: 0123\n    overage: false\n    users:\n      - {id: 0x1F, usage_location: NO, display_name: true}\n      - {id: 1e3, usage_location: NO, upn: 2026-01-01}\n",
    );
    let contoso = one(&yaml);
    assert_eq!(contoso.profile.rate_deck, "0123");
    assert_eq!(contoso.payers[0].id.as_str(), "0x1F");
    assert_eq!(contoso.payers[0].usage_location.as_str(), "NO");
    assert_eq!(contoso.payers[0].display_name, "true");
    assert_eq!(contoso.payers[1].id.as_str(), "1e3");
    assert_eq!(contoso.payers[1].upn, "2026-01-01");
}

#[test]
fn states_are_read() {
    let yaml = tenant_with(
        "    state: suspended\n    users:\n      - {id: a, usage_location: US, state: blocked}\n      - {id: b, usage_location: US, state: removed}\n    service_numbers:\n      - {id: c, e164: \"+442079460000\", kind: toll, state: removed}\n",
    );
    let contoso = one(&yaml);
    assert_eq!(contoso.profile.state, TenantState::Suspended);
    let states: Vec<PayerState> = contoso.payers.iter().map(|payer| payer.state).collect();
    assert_eq!(states, [PayerState::Blocked, PayerState::Removed, PayerState::Removed]);
    assert_eq!(contoso.payers[2].usage_location.as_str(), "GB");
}

#[test]
fn a_required_key_that_is_missing_is_named_where_its_mapping_begins() {
    let required = "expected a value, the key is required";
    assert_eq!(
        faults("tenants:\n  - country: US\n    users:\n      - upn: x\n"),
        [
            format!("line 2: tenants[0].id: {required}"),
            format!("line 2: tenants[0].currency: {required}"),
            format!("line 4: tenants[0].users[0].id: {required}"),
            format!("line 4: tenants[0].users[0].usage_location: {required}"),
        ]
    );
    for (line, missing) in [
        ("spend_velocity: { per: 1h }", "spend_velocity.amount"),
        ("spend_velocity: { amount: 5 }", "spend_velocity.per"),
        ("auto_recharge: { amount: 5 }", "auto_recharge.trigger"),
        ("auto_recharge: { trigger: 5 }", "auto_recharge.amount"),
        ("credits: [{ amount: 5, purchased_at: 2026-01-10T00:00:00Z }]", "credits[0].key"),
        ("credits: [{ key: a, purchased_at: 2026-01-10T00:00:00Z }]", "credits[0].amount"),
        ("credits: [{ key: a, amount: 5 }]", "credits[0].purchased_at"),
        ("service_numbers: [{ id: a, kind: toll }]", "service_numbers[0].e164"),
        ("service_numbers: [{ id: a, e164: +18005550199 }]", "service_numbers[0].kind"),
        ("resource_accounts: [{ id: a }]", "resource_accounts[0].usage_location"),
        ("trunks: [{ emergency_country: US }]", "trunks[0].id"),
    ] {
        check_tenant(line, &format!("{missing}: {required}"));
    }
    check("", "tenants: expected at least one tenant");
    check("tenants: []\n", "line 1: tenants: expected at least one tenant");
}

#[test]
fn unknown_keys_are_named_at_every_level_all_at_once() {
    let yaml = "\
tenant: x
tenants:
  - id: contoso
    currency: USD
    curency: EUR
    outbound_policy: { usr: none }
    failure_handling: { inbound: terminate }
    limits: { calls: 1 }
    spend_velocity: { amount: 1, per: 1h, pro: 1 }
    auto_recharge: { trigger: 1, amount: 1, cap: 5 }
    credits:
      - { key: a, amount: 1, purchased_at: 2026-01-10T00:00:00Z, payment: { card: 1 }, paid: y }
    users:
      - id: alice
        usage_location: US
        licenses: [MCOEV]
        limits: { concurrent: 2 }
    service_numbers:
      - { id: b, e164: +18005550199, kind: toll, licences: [] }
    resource_accounts:
      - { id: c, usage_location: US, upn: x }
    trunks:
      - { id: d, responses: { NOT_ENTITLED: { sip: 403, sip_status: 404 } }, host: y }
";
    let faults = faults(yaml);
    let places: Vec<&str> = faults
        .iter()
        .map(|fault| fault.split_once(": unknown key, expected one of ").expect("an unknown key").0)
        .collect();
    assert_eq!(
        places,
        [
            "line 1: tenant",
            "line 5: tenants[0].curency",
            "line 6: tenants[0].outbound_policy.usr",
            "line 7: tenants[0].failure_handling.inbound",
            "line 8: tenants[0].limits.calls",
            "line 9: tenants[0].spend_velocity.pro",
            "line 10: tenants[0].auto_recharge.cap",
            "line 12: tenants[0].credits[0].paid",
            "line 12: tenants[0].credits[0].payment.card",
            "line 16: tenants[0].users[0].licenses",
            "line 17: tenants[0].users[0].limits.concurrent",
            "line 19: tenants[0].service_numbers[0].licences",
            "line 21: tenants[0].resource_accounts[0].upn",
            "line 23: tenants[0].trunks[0].host",
            "line 23: tenants[0].trunks[0].responses.NOT_ENTITLED.sip",
        ]
    );
    assert!(faults[0].ends_with("expected one of tenants"));
}

#[test]
fn values_of_a_tenant_say_what_was_expected() {
    let country = "expected an ISO 3166-1 alpha-2 country code such as US";
    check_tenant("country: USA", &format!("country: {country}, found \"USA\""));
    check_tenant("country: us", &format!("country: {country}, found \"us\""));
    check_tenant(
        "time_zone: Mars/Olympus",
        "time_zone: expected an IANA time zone such as Europe/Paris, found \"Mars/Olympus\"",
    );
    check_tenant(
        "state: gone",
        "state: expected one of active, suspended, removed, found \"gone\"",
    );
    check_tenant("billing: free", "billing: expected one of prepaid, postpaid, found \"free\"");
    check_tenant("overage: yes", "overage: expected one of true, false, found \"yes\"");
    check_tenant("overage: true", "overage: expected false, since billing is prepaid");
    let bought = "expected another beginning than overage:, which names what is post-paid";
    check_tenant(
        "credits: [{ key: \"overage:2026-11\", amount: 5, purchased_at: 2026-01-10T00:00:00Z }]",
        &format!("credits[0].key: {bought}, found \"overage:2026-11\""),
    );
    check_tenant(
        "rate_deck: my deck",
        "rate_deck: expected 1 to 128 of A-Z a-z 0-9 . _ @ -, the first a letter or digit, found \"my deck\"",
    );
    check_tenant(
        "outbound_policy: { conference: all }",
        "outbound_policy.conference: expected one of any, same_country, zone_a, disabled, found \"all\"",
    );
    check_tenant(
        "failure_handling: { user_outbound: go }",
        "failure_handling.user_outbound: expected one of terminate, continue_capped, retry_then_terminate, found \"go\"",
    );
    check_tenant(
        "on_lost_settle: all",
        "on_lost_settle: expected one of proven, granted, found \"all\"",
    );
    check_tenant(
        "blocked_prefixes: [\"+882\", 883]",
        "blocked_prefixes[1]: expected a prefix of E.164 numbers, + and 1 to 15 digits, found \"883\"",
    );
    check(
        "tenants:\n  - id: -x\n    currency: USD\n",
        "line 2: tenants[0].id: expected 1 to 128 of A-Z a-z 0-9 . _ @ -, the first a letter or digit, found \"-x\"",
    );
}

#[test]
fn amounts_counts_and_spans_are_in_range() {
    let whole = "expected a whole number from 1 to 1000000000";
    for text in ["0", "-1", "1.5", "ten", "1000000001", "99999999999999999999", "+1"] {
        check_tenant(
            &format!("limits: {{ concurrent_calls: \"{text}\" }}"),
            &format!("limits.concurrent_calls: {whole}, found \"{text}\""),
        );
    }
    check_tenant(
        "limits: { max_rate_per_minute: 1e3 }",
        "limits.max_rate_per_minute: expected a plain decimal number such as 12.5, found \"1e3\"",
    );
    check_tenant(
        "limits: { max_connection_fee: 0.0000001 }",
        "limits.max_connection_fee: expected at most 6 decimals, found \"0.0000001\"",
    );
    check_tenant(
        "auto_recharge: { trigger: 0, amount: 5 }",
        "auto_recharge.trigger: expected an amount above 0, found \"0\"",
    );
    check_tenant(
        "auto_recharge: { trigger: 5, amount: 100000001 }",
        "auto_recharge.amount: expected an amount from 0 to 100000000, found \"100000001\"",
    );
    check_tenant(
        "auto_recharge: { trigger: 5, amount: 10, daily_cap: 9 }",
        "auto_recharge.daily_cap: expected at least the amount of one recharge",
    );
    check_tenant(
        "auto_recharge: { trigger: 5, amount: 10, recharge_on: held }",
        "auto_recharge.recharge_on: expected one of spent, available, found \"held\"",
    );
    check_tenant(
        "deduct_shortfall: maybe",
        "deduct_shortfall: expected one of true, false, found \"maybe\"",
    );
    check_tenant(
        "credits: [{ key: recharge.7, amount: 5, purchased_at: 2026-01-10T00:00:00Z }]",
        "credits[0].key: keys of the form recharge.<number> are those of auto-recharges, which \
         ReportRecharge answers; expected another key, found \"recharge.7\"",
    );
    for text in ["1", "0s", "500ms", "32d", "-1h", "1 fortnight"] {
        check_tenant(
            &format!("spend_velocity: {{ amount: 5, per: {text} }}"),
            &format!(
                "spend_velocity.per: expected a length of time from 1s to 31d such as 1h or 1h30m, found \"{text}\""
            ),
        );
    }
    let length = "expected a length of time from";
    for (text, least, found) in [
        ("numbers: 23h", "numbers", "1d to 3660d such as 90d, found \"23h\""),
        ("numbers: 3661d", "numbers", "1d to 3660d such as 90d, found \"3661d\""),
        ("records: 30d", "records", "31d to 3660d such as 90d, found \"30d\""),
    ] {
        check_tenant(
            &format!("retention: {{ {text} }}"),
            &format!("retention.{least}: {length} {found}"),
        );
    }
    check_tenant(
        "retention: { numbers: 90d, records: 60d }",
        "retention.numbers: expected at most as long as records",
    );
    check_user("spend_limit: 0", "spend_limit: expected an amount above 0, found \"0\"");
    check_user(
        "limits: { concurrent_calls: 0 }",
        &format!("limits.concurrent_calls: {whole}, found \"0\""),
    );
}

#[test]
fn purchases_are_checked() {
    let when = "expected an RFC 3339 date and time from 1970 such as 2026-01-10T00:00:00Z";
    for text in ["2026-01-10", "yesterday", "2026-13-01T00:00:00Z", "1969-12-31T00:00:00Z"] {
        check_tenant(
            &format!("credits: [{{ key: a, amount: 5, purchased_at: {text} }}]"),
            &format!("credits[0].purchased_at: {when}, found \"{text}\""),
        );
    }
    check_tenant(
        "credits: [{ key: \"a\\nb\", amount: 5, purchased_at: 2026-01-10T00:00:00Z }]",
        "credits[0].key: expected no control characters, found \"a\\nb\"",
    );
    check_tenant(
        "credits: [{ key: a, amount: 0, purchased_at: 2026-01-10T00:00:00Z }]",
        "credits[0].amount: expected an amount above 0, found \"0\"",
    );
}

#[test]
fn values_of_a_user_say_what_was_expected() {
    check_user(
        "state: suspended",
        "state: expected one of active, blocked, removed, found \"suspended\"",
    );
    check_user(
        "licences: [MCOEV, MCOPSTN7]",
        "licences[1]: expected a licence code, one of MCOEV, MCOPSTN1, MCOPSTN2, MCOPSTN5, MCOPSTN6, MCOPSTN8, MCOPSTN9, MCOPSTN_PAYG_1, MCOPSTN_PAYG_2, MCOPSTNPP, MCOMEETADD, MCOMEETADD_DIALOUT_US, MCOMEETACPEA, MCOEV_VIRTUALUSER, found \"MCOPSTN7\"",
    );
    for text in ["14255550100", "+12", "+1234567890123456", "+0425555", "+1425555010a", "+1 425"] {
        check_user(
            &format!("numbers: [\"{text}\"]"),
            &format!(
                "numbers[0]: expected an E.164 number, + and 3 to 15 digits, such as +14255550100, found \"{text}\""
            ),
        );
    }
    check_user(
        "outbound_policy: { user: abroad }",
        "outbound_policy.user: expected one of international, domestic, none, found \"abroad\"",
    );
    check_user(
        "display_name: \"bell\\a\"",
        "display_name: expected at most 256 bytes without control characters, found \"bell\\u{7}\"",
    );
    let long = "x".repeat(257);
    check_user(
        &format!("upn: {long}"),
        &format!(
            "upn: expected at most 256 bytes without control characters, found \"{}…\"",
            &long[..64]
        ),
    );
}

#[test]
fn a_trunk_changes_refusals_only_and_never_to_503() {
    let response = |text: &str| format!("trunks: [{{ id: a, responses: {{ {text} }} }}]");
    for status in ["503", "399", "700", "4O3"] {
        check_tenant(
            &response(&format!("NOT_ENTITLED: {{ sip_status: {status} }}")),
            &format!(
                "trunks[0].responses.NOT_ENTITLED.sip_status: expected a SIP status from 400 to 699 other than 503, found \"{status}\""
            ),
        );
    }
    check_tenant(
        &response("NOT_ENTITLED: { q850_cause: 128 }"),
        "trunks[0].responses.NOT_ENTITLED.q850_cause: expected a whole number from 1 to 127, found \"128\"",
    );
    check_tenant(
        &response("NOT_ENTITLED: {}"),
        "trunks[0].responses.NOT_ENTITLED: expected sip_status, q850_cause or both",
    );
    for name in ["ALLOWED", "ALLOWED_EMERGENCY", "DENIED"] {
        let yaml =
            tenant_with(&format!("    {}\n", response(&format!("{name}: {{ sip_status: 403 }}"))));
        let faults = faults(&yaml);
        let start = format!(
            "line 4: tenants[0].trunks[0].responses.{name}: expected a refusal, one of KEY_CONFLICT, "
        );
        assert!(faults[0].starts_with(&start), "{faults:?}");
        assert_eq!(faults.len(), 1);
    }
}

#[test]
fn nothing_is_named_twice() {
    check(
        "tenants:\n  - {id: a, currency: USD}\n  - {id: a, currency: EUR}\n",
        "line 3: tenants[1].id: tenant id \"a\" is already used by tenants[0].id",
    );
    check(
        &user_with("    resource_accounts:\n      - {id: alice, usage_location: US}\n"),
        "line 8: tenants[0].resource_accounts[0].id: id \"alice\" is already used by tenants[0].users[0].id",
    );
    check(
        &user_with(
            "        numbers: [+18005550199]\n    service_numbers:\n      - {id: b, e164: +18005550199, kind: toll}\n",
        ),
        "line 9: tenants[0].service_numbers[0].e164: number \"+18005550199\" is already used by tenants[0].users[0].numbers[0]",
    );
    check_user(
        "numbers: [+18005550199, +18005550199]",
        "numbers[1]: number \"+18005550199\" is already used by tenants[0].users[0].numbers[0]",
    );
    check_user(
        "licences: [MCOEV, MCOEV]",
        "licences[1]: licence \"MCOEV\" is already used by tenants[0].users[0].licences[0]",
    );
    let bought = "amount: 5, purchased_at: 2026-01-10T00:00:00Z";
    check_tenant(
        &format!("credits: [{{ key: a, {bought} }}, {{ key: a, {bought} }}]"),
        "credits[1].key: purchase key \"a\" is already used by tenants[0].credits[0].key",
    );
    check_tenant(
        "trunks: [{ id: a }, { id: a }]",
        "trunks[1].id: trunk id \"a\" is already used by tenants[0].trunks[0].id",
    );
    // Two tenants may share payer ids and numbers.
    let user = "users: [{id: a, usage_location: US, numbers: [+18005550199]}]";
    let both = format!(
        "tenants:\n  - {{id: a, currency: USD, {user}}}\n  - {{id: b, currency: USD, {user}}}\n"
    );
    assert_eq!(read_and_check(&both).expect("both are right").len(), 2);
}

#[test]
fn a_number_of_no_country_takes_the_tenants() {
    let number = "    service_numbers: [{id: a, e164: +80012345678, kind: toll_free}]\n";
    check(
        &tenant_with(number),
        "line 4: tenants[0].service_numbers[0].e164: expected a number of one country, or a country on the tenant, found \"+80012345678\"",
    );
    let contoso = one(&tenant_with(&format!("    country: DE\n{number}")));
    assert_eq!(contoso.payers[0].usage_location.as_str(), "DE");
    // Toll-free numbers of North America belong to no country of it.
    let number = number.replace("+80012345678", "+18005550199");
    for (home, expected) in [("CA", "CA"), ("DE", "US")] {
        let contoso = one(&tenant_with(&format!("    country: {home}\n{number}")));
        assert_eq!(contoso.payers[0].usage_location.as_str(), expected, "{home}");
    }
}

#[test]
fn all_faults_are_listed_in_the_order_of_the_file_and_nothing_is_applied() {
    let yaml = "tenants:\n  - {id: good, currency: USD}\n  - id: bad\n    trunks: [{id: ' '}]\n    currency: NOPE\n    users:\n      - {id: x, usage_location: 1}\n";
    let lines: Vec<String> =
        faults(yaml).iter().map(|fault| fault.chars().take(7).collect()).collect();
    assert_eq!(lines, ["line 4:", "line 5:", "line 7:"]);

    let many = format!("    blocked_prefixes: [{}]\n", "x, ".repeat(MAX_LISTED + 234));
    let faults = faults(&tenant_with(&many));
    assert_eq!(faults.len(), MAX_LISTED + 1);
    assert_eq!(faults.last().map(String::as_str), Some("only the first 1000 faults are listed"));
}

#[test]
fn a_document_made_from_a_message_has_faults_without_lines() {
    let raw = RawOrganisation {
        tenants: vec![RawTenant {
            id: Some("contoso".into()),
            currency: Some("EURO".into()),
            ..RawTenant::default()
        }],
        ..RawOrganisation::default()
    };
    let faults = super::check(&raw).expect_err("EURO is no currency");
    assert_eq!(
        faults[0].to_string(),
        "tenants[0].currency: expected an ISO 4217 currency code such as EUR, found \"EURO\""
    );
}

#[test]
fn text_of_another_shape_is_one_fault_with_its_line() {
    check("tenants: x\n", "line 1: expected a list, in \"tenants: x\"");
    check("[1, 2]", "line 1: expected a mapping, in \"[1, 2]\"");
    check(&tenant_with("    users: 5\n"), "line 4: expected a list, in \"users: 5\"");
    check(&tenant_with("    country: [US]\n"), "line 4: expected text, in \"country: [US]\"");
    check(
        &tenant_with("    blocked_prefixes: [~]\n"),
        "line 4: expected text, found nothing, in \"blocked_prefixes: [~]\"",
    );
    check(
        &tenant_with("    country: !!int 5\n"),
        "line 4: expected text without a tag, in \"country: !!int 5\"",
    );
    check(
        &tenant_with("    country: US\n    country: CA\n"),
        "line 5: duplicate key country, in \"country: CA\"",
    );
    check("tenants: []\n---\ntenants: []\n", "line 2: expected one document, in \"---\"");
    check("\u{0}", "line 1: unexpected character: `\\u{0}', in \"\\0\"");
}

#[test]
fn anchors_are_bounded() {
    let shared = "tenants:\n  - &a {id: a, currency: EUR, limits: &l {concurrent_calls: 5}}\n  - {id: b, currency: EUR, limits: *l}\n";
    let documents = read_and_check(shared).expect("anchors may be used");
    assert_eq!(documents[1].profile.limits.concurrent_calls, Some(5));

    let mut bomb = "x0: &x0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let uses = format!("*x{}, ", level - 1).repeat(10);
        bomb += &format!("x{level}: &x{level} [{uses}]\n");
    }
    let faults = faults(&bomb);
    assert!(faults[0].contains("alias replay limit exceeded"), "{faults:?}");
    check(
        &format!("x: {}{}", "[".repeat(20), "]".repeat(20)),
        "line 1: expected at most 16 levels, in \"x: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]\"",
    );
    let deep = format!("x: {}", "[".repeat(100_000));
    assert_eq!(read_and_check(&deep).expect_err("too deep").len(), 1);
}

#[test]
fn a_post_paid_tenant_has_no_auto_recharge() {
    check(
        &tenant_with("    billing: postpaid\n    auto_recharge: { trigger: 5, amount: 5 }\n"),
        "line 5: tenants[0].auto_recharge: expected none, since billing is postpaid: a post-paid tenant \
         buys no credits (rule 43)",
    );
    one(&tenant_with("    billing: prepaid\n    auto_recharge: { trigger: 5, amount: 5 }\n"));
}

#[test]
fn a_plan_without_a_number_is_a_warning() {
    let contoso = one(&user_with(
        "        licences: [MCOEV, MCOPSTN1, MCOMEETADD, MCOPSTN9, MCOMEETACPEA]\n      - {id: gone, usage_location: US, state: removed, licences: [MCOPSTN1]}\n    billing: postpaid\n    overage: true\n    spend_velocity: {amount: 5, per: 1h}\n    failure_handling: {user_outbound: continue_capped}\n",
    ));
    assert_eq!(contoso.warnings, ["user alice holds MCOPSTN1 but has no number"]);
}

/// A tenth of a large organisation; with --nocapture it prints how long that takes.
#[test]
fn five_thousand_users_are_read() {
    let mut yaml = tenant_with("    users:\n");
    for n in 0..5_000 {
        yaml += &format!(
            "      - id: user{n}\n        upn: user{n}@contoso.example\n        display_name: User {n}\n        usage_location: US\n        licences: [MCOEV, MCOPSTN1, MCOPSTNPP]\n        numbers: [\"+1425{n:07}\"]\n        outbound_policy: {{ user: domestic }}\n        limits: {{ concurrent_calls: 2 }}\n",
        );
    }
    let started = std::time::Instant::now();
    let raw = read(&yaml).expect("it is well formed");
    let read_in = started.elapsed();
    let documents = super::check(&raw).expect("it is right");
    println!("{} bytes: read in {read_in:?}, all in {:?}", yaml.len(), started.elapsed());
    assert_eq!(documents[0].payers.len(), 5_000);
}

#[test]
fn licences_that_may_not_stand_together_are_refused_with_the_rule() {
    check_user("licences: [MCOPSTN1]", "licences[0]: MCOPSTN1 needs MCOEV (rule 75)");
    check_user(
        "licences: [MCOPSTNPP, MCOEV]",
        "licences[0]: MCOPSTNPP needs MCOMEETADD, or MCOEV and a calling plan (rule 34)",
    );
    // A removed user keeps whatever it had.
    one(&user_with("        state: removed\n        licences: [MCOPSTN1]\n"));
}

#[test]
fn retention_is_for_ever_unless_it_is_named() {
    let day = |days: i64| Some(Seconds(days * 86_400));
    for (text, numbers, records) in [
        ("", None, None),
        ("    retention: { numbers: 90d }\n", day(90), None),
        ("    retention: { numbers: 1d, records: 400d }\n", day(1), day(400)),
    ] {
        let found = one(&format!("tenants:\n  - id: contoso\n    currency: USD\n{text}"));
        let retention = found.profile.retention;
        assert_eq!((retention.numbers, retention.records), (numbers, records), "{text}");
    }
}

#[test]
fn those_who_are_told_can_be_reached_by_mail_and_by_a_url() {
    for (address, place) in [
        ("nobody", "emails[0]"),
        ("a b@contoso.example", "emails[0]"),
        ("\"Ops <ops@contoso.example>\"", "emails[0]"),
        ("\"ops@contoso.example\\r\\nBcc: thief@example.com\"", "emails[0]"),
    ] {
        let faults = faults(&tenant_with(&format!("    notices: {{ emails: [{address}] }}\n")));
        let begin = format!(
            "line 4: tenants[0].notices.{place}: expected a mail address such as ops@contoso.example"
        );
        assert!(faults.len() == 1 && faults[0].starts_with(&begin), "{faults:?}");
    }
    check_tenant(
        "notices: { emails: [a@b.example, a@b.example] }",
        "notices.emails[1]: address \"a@b.example\" is already used by tenants[0].notices.emails[0]",
    );
    check_tenant(
        "notices: { mails: [] }",
        "notices.mails: unknown key, expected one of emails, webhook",
    );
    for url in [
        "contoso.example",
        "ftp://contoso.example",
        "file:///etc/passwd",
        "https://me:hidden@contoso.example",
        "https://contoso.example/#part",
        "\"https://contoso.example/ x\"",
        "https://",
    ] {
        let faults = faults(&tenant_with(&format!("    notices: {{ webhook: {url} }}\n")));
        let begin = "line 4: tenants[0].notices.webhook: expected a URL of https:// with a host";
        assert!(faults.len() == 1 && faults[0].starts_with(begin), "{url}: {faults:?}");
    }
    let many = (0..21).map(|n| format!("a{n}@contoso.example")).collect::<Vec<_>>().join(", ");
    check_tenant(
        &format!("notices: {{ emails: [{many}] }}"),
        "notices.emails[20]: expected at most 20 addresses",
    );
}

#[test]
fn the_settings_of_the_rules_are_read_and_their_faults_named() {
    let lines = "    international_cap: each\n    allow_unlisted_destinations: true\n    \
                 pool_increments: { MCOPSTN1: 1s, MCOMEETADD: 30s }\n";
    let profile = one(&tenant_with(lines)).profile;
    assert_eq!(profile.international_cap, InternationalCap::Each);
    assert!(profile.allow_unlisted_destinations);
    assert_eq!(profile.pool_increment(Licence::Domestic), Seconds(1));
    assert_eq!(profile.pool_increment(Licence::AudioConferencing), Seconds(30));
    let text = serde_json::to_string(&profile).expect("JSON");
    assert_eq!(serde_json::from_str::<TenantProfile>(&text).expect("a profile"), profile);
    check_tenant(
        "international_cap: both",
        "international_cap: expected one of either, each, found \"both\"",
    );
    check_tenant(
        "allow_unlisted_destinations: yes",
        "allow_unlisted_destinations: expected one of true, false, found \"yes\"",
    );
    for length in ["0s", "7s", "61s", "2m", "1h", "500ms", "-1s", "60"] {
        let expected = format!(
            "pool_increments.MCOPSTN1: expected a whole part of a minute from 1s to 1m such as 6s, found \
             {length:?}"
        );
        check_tenant(&format!("pool_increments: {{ MCOPSTN1: {length} }}"), &expected);
    }
    check_tenant(
        "pool_increments: { MCOPSTNPP: 1s }",
        "pool_increments.MCOPSTNPP: expected a plan with minutes, one of MCOPSTN1, MCOPSTN2, \
         MCOPSTN5, MCOPSTN6, MCOPSTN8, MCOPSTN9, MCOMEETADD, found \"MCOPSTNPP\"",
    );
}
