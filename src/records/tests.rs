//! What an entry becomes: every type of call, every capability, masking, and a golden day.

use std::collections::BTreeMap;

use super::csv::CsvWriter;
use super::*;
use crate::charging::entitlement::Classification;
use crate::charging::ids::{PayerId, TenantId};
use crate::charging::number::NumberType;
use crate::charging::profile::{
    Billing, FailureHandling, NoticeTargets, OnLostSettle, OutboundPolicy, PayerState,
    TenantLimits, TenantState,
};
use crate::charging::rating::Tariff;
use crate::ledger::state::Posting;

/// 2026-11-10T12:00:00Z.
const NOON: Millis = Millis(1_794_312_000_000);

pub(super) fn tenant() -> TenantProfile {
    TenantProfile {
        id: TenantId::literal("contoso"),
        currency: "USD".to_owned(),
        country: None,
        time_zone: "UTC".to_owned(),
        state: TenantState::Active,
        billing: Billing::Prepaid,
        overage: false,
        rate_deck: "default".to_owned(),
        outbound_policy: OutboundPolicy::default(),
        failure_handling: FailureHandling::default(),
        on_lost_settle: OnLostSettle::Proven,
        limits: TenantLimits::default(),
        spend_velocity: None,
        blocked_prefixes: vec![],
        auto_recharge: None,
        trunks: vec![],
        notices: NoticeTargets::default(),
        international_cap: Default::default(),
        allow_unlisted_destinations: false,
        pool_increments: Default::default(),
        deduct_shortfall: false,
        retention: Default::default(),
    }
}

fn payer(kind: PayerKind, licences: &[Licence]) -> PayerProfile {
    PayerProfile {
        id: PayerId::literal("alice"),
        kind,
        state: PayerState::Active,
        usage_location: CountryCode::US,
        licences: licences.to_vec(),
        numbers: vec![],
        user_policy: None,
        conference_policy: None,
        spend_limit: None,
        concurrent_calls: None,
        upn: "alice@contoso.example".to_owned(),
        display_name: "Example, Alice".to_owned(),
        object_id: "5f1f0d2e-7c0e-4d0a-9a57-1d5c2f0b7a11".to_owned(),
    }
}

fn user() -> PayerProfile {
    payer(PayerKind::User, &[])
}

fn context(call_type: CallType, class: CallClass, called: &str) -> CallContext {
    CallContext {
        decision_id: "d".to_owned(),
        call_type,
        calling_number: "+14255550100".to_owned(),
        called_number: called.to_owned(),
        original_called_number: String::new(),
        classification: Some(Classification {
            class,
            country: CountryCode::parse("FR"),
            number_type: Some(NumberType::FixedLine),
            e164: called.to_owned(),
        }),
        destination: String::new(),
        deck_version: String::new(),
        tariff: None,
        currency: "USD".to_owned(),
        detail: String::new(),
        warnings: vec![],
        flags: vec![],
        origin: String::new(),
        on_behalf_of: String::new(),
        conference_id: String::new(),
        sip_call_id: String::new(),
        labels: BTreeMap::new(),
    }
}

fn abroad() -> CallContext {
    context(CallType::UserOutbound, CallClass::International, "+33123456789")
}

fn tariff() -> Tariff {
    Tariff {
        rate_per_minute: Micros(100_000),
        connection_fee: Micros(50_000),
        initial_increment: Seconds(60),
        increment: Seconds(60),
    }
}

fn priced() -> CallContext {
    CallContext { tariff: Some(tariff()), ..abroad() }
}

fn entry(kind: EntryKind, used: i64, postings: &[(&str, i64)], context: &CallContext) -> Entry {
    Entry {
        kind,
        at: NOON,
        subject: "leg-1".to_owned(),
        payer: "alice".to_owned(),
        decision: Some(Decision::Allowed),
        used: Seconds(used),
        granted: Seconds(300),
        shortfall_duration: Seconds::ZERO,
        shortfall_money: Micros::ZERO,
        postings: postings
            .iter()
            .map(|(bucket, spent)| Posting {
                bucket: (*bucket).to_owned(),
                funded: 0,
                held: -300,
                spent: *spent,
                expired: 0,
                adjusted: 0,
            })
            .collect(),
        context: context.encode(),
        report: vec![],
    }
}

fn recorder() -> Recorder {
    Recorder::new(&tenant(), Seconds(86_400))
}

fn only(entry: &Entry, payer: Option<&PayerProfile>) -> UsageRecord {
    recorder().record("7-0", entry, payer).expect("a record")
}

/// Any record.
pub(super) fn record() -> UsageRecord {
    only(&entry(EntryKind::Settled, 61, &[("l:po-1", 250_000)], &priced()), Some(&user()))
}

#[test]
fn call_types_are_those_of_rule_87() {
    use CallType::*;
    use PayerKind::*;
    #[track_caller]
    fn check(of: CallType, origin: &str, payer: Option<PayerKind>, expected: &str) {
        assert_eq!(call_type(of, origin, payer, false), expected);
    }
    check(UserOutbound, "", Some(User), "user_out");
    check(UserOutbound, "ON_BEHALF", Some(User), "user_out");
    check(UserOutbound, "TRANSFER", Some(User), "user_out_transfer");
    check(UserOutbound, "FORWARD", Some(User), "user_out_forwarding");
    check(UserOutbound, "ADD_PARTY", Some(User), "user_out_conf");
    check(UserOutbound, "", None, "user_out");
    for origin in ["", "TRANSFER", "FORWARD", "ADD_PARTY", "ON_BEHALF"] {
        check(UserOutbound, origin, Some(ResourceAccount), "ucap_out");
        check(ConferenceDialOut, origin, Some(User), "conf_out");
    }
    check(UserInbound, "", Some(User), "user_in");
    check(UserInbound, "", Some(ResourceAccount), "ucap_in");
    check(UserInbound, "", None, "unassigned_in");
    check(ConferenceDialIn, "", Some(User), "conf_in");
    check(ConferenceDialIn, "", Some(TollNumber), "conf_in");
    check(TollFreeInbound, "", Some(TollFreeNumber), "ucap_in");
    assert_eq!(call_type(TollFreeInbound, "", Some(TollFreeNumber), true), "conf_in");
}

#[track_caller]
fn check_capability(entry: &Entry, payer: &PayerProfile, expected: &str) {
    assert_eq!(only(entry, Some(payer)).capability, expected);
}

#[test]
fn the_capability_names_what_paid() {
    let settled = |postings: &[(&str, i64)], context: &CallContext| {
        entry(EntryKind::Settled, 61, postings, context)
    };
    for plan in ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5", "MCOPSTN6", "MCOPSTN8", "MCOPSTN9"] {
        let bucket = format!("p:US:{plan}:DOMESTIC:2026-11");
        check_capability(&settled(&[(&bucket, 120)], &abroad()), &user(), plan);
    }
    let conference = context(CallType::ConferenceDialOut, CallClass::International, "+33123456789");
    let pool = "p:ALL:MCOMEETADD:CONFERENCE:2026-11";
    check_capability(&settled(&[(pool, 120)], &conference), &user(), "MCOMEETADD");
    check_capability(&settled(&[("l:po-1", 250_000)], &priced()), &user(), "MCOPSTNPP");
    // It crossed from minutes to credits.
    let both = [("p:US:MCOPSTN2:INTERNATIONAL:2026-11", 60), ("l:po-1", 150_000)];
    check_capability(&settled(&both, &priced()), &user(), "MCOPSTNPP");
    // The first pool had nothing left.
    let second = [("p:US:MCOPSTN1:DOMESTIC:2026-11", 0), ("p:US:MCOPSTN5:DOMESTIC:2026-11", 60)];
    check_capability(&settled(&second, &abroad()), &user(), "MCOPSTN5");
    let per_minute = payer(PayerKind::User, &[Licence::ConferencingPerMinute]);
    let priced_conference = CallContext { tariff: Some(tariff()), ..conference };
    let paid = settled(&[("l:po-1", 250_000)], &priced_conference);
    check_capability(&paid, &per_minute, "MCOMEETACPEA");
    check_capability(&paid, &user(), "MCOPSTNPP");
    // A price of nothing is a price; no price at all is rule 40.
    check_capability(&settled(&[], &priced()), &user(), "MCOPSTNPP");
    check_capability(&settled(&[], &abroad()), &user(), "FREECALL");
    let mut unpaid = settled(&[], &abroad());
    unpaid.shortfall_duration = Seconds(61);
    check_capability(&unpaid, &user(), "");
}

#[test]
fn what_is_free_is_under_the_phone_system() {
    let free = |decision, call_type, class| Entry {
        decision: Some(decision),
        ..entry(EntryKind::Settled, 61, &[], &context(call_type, class, "+14255550177"))
    };
    let bot = payer(PayerKind::ResourceAccount, &[]);
    let on_net = free(Decision::AllowedFree, CallType::UserOutbound, CallClass::OnNet);
    check_capability(&on_net, &user(), "MCOEV");
    check_capability(&on_net, &bot, "MCOEV_VIRTUALUSER");
    let emergency = free(Decision::AllowedEmergency, CallType::UserOutbound, CallClass::Emergency);
    check_capability(&emergency, &user(), "MCOEV");
    check_capability(&emergency, &bot, "MCOEV_VIRTUALUSER");
    let dial_in = free(Decision::AllowedFree, CallType::ConferenceDialIn, CallClass::Inbound);
    check_capability(&dial_in, &user(), "MCOMEETADD");
    let extended = payer(PayerKind::User, &[Licence::AudioConferencing, Licence::ExtendedDialOut]);
    let dial_out = |class| free(Decision::AllowedFree, CallType::ConferenceDialOut, class);
    check_capability(&dial_out(CallClass::Domestic), &extended, "MCOMEETADD_DIALOUT_US");
    check_capability(&dial_out(CallClass::OnNet), &extended, "MCOMEETADD");
    check_capability(&dial_in, &extended, "MCOMEETADD");
    // A pool that is one user's own.
    let own = [("p:US:MCOPSTN8:DOMESTIC:alice:2026-11", 120)];
    check_capability(&entry(EntryKind::Settled, 61, &own, &abroad()), &user(), "MCOPSTN8");
}

#[test]
fn a_refusal_has_a_record_of_nothing() {
    let mut refused = entry(EntryKind::Refused, 0, &[], &priced());
    refused.decision = Some(Decision::PoolExhausted);
    let record = only(&refused, Some(&user()));
    assert_eq!((record.duration, record.charge), (Seconds::ZERO, Micros::ZERO));
    assert_eq!((record.start, record.end), (NOON, NOON));
    assert_eq!((record.capability.as_str(), record.decision), ("", refused.decision));
    assert_eq!(record.call_type, "user_out");

    // Of a payer that nobody knows, and a context of which nothing can be read.
    let unknown = only(&refused, None);
    assert_eq!((unknown.upn.as_str(), unknown.user_location.as_str()), ("", ""));
    refused.context = b"why".to_vec();
    assert_eq!(only(&refused, None).call_type, "");
}

#[test]
fn what_leaves_no_usage_leaves_no_record() {
    for kind in [
        EntryKind::Authorized,
        EntryKind::Extended,
        EntryKind::Reopened,
        EntryKind::Released,
        EntryKind::Parked,
        EntryKind::Purchased,
        EntryKind::LotExpired,
    ] {
        let entry = entry(kind, 61, &[], &abroad());
        assert!(recorder().record("7-0", &entry, Some(&user())).is_none(), "{kind:?}");
    }
    let expired = entry(EntryKind::Expired, 0, &[], &abroad());
    assert!(recorder().record("7-0", &expired, Some(&user())).is_none());
}

#[test]
fn what_is_charged_later_is_a_record_of_the_difference() {
    let mut recorder = recorder();
    let (context, user) = (priced(), user());
    let mut show = |cursor: &str, kind, used, money| {
        let entry = entry(kind, used, &[("l:po-1", money)], &context);
        let made = recorder.record(cursor, &entry, Some(&user))?;
        assert_eq!(made.usage_id, format!("contoso/{cursor}"));
        Some((made.duration.0, made.connection_fee.0, made.charge.0))
    };
    assert_eq!(show("1", EntryKind::Authorized, 0, 0), None);
    assert_eq!(show("2", EntryKind::Expired, 60, 150_000), Some((60, 50_000, 150_000)));
    assert_eq!(show("3", EntryKind::Reopened, 60, 0), None);
    assert_eq!(show("4", EntryKind::Expired, 100, 100_000), Some((40, 0, 100_000)));
    assert_eq!(show("5", EntryKind::SettledLate, 130, 100_000), Some((30, 0, 100_000)));
    // The name is used again, by another call that expires unanswered and is settled late.
    assert_eq!(show("6", EntryKind::Authorized, 0, 0), None);
    assert_eq!(show("7", EntryKind::Expired, 0, 0), None);
    assert_eq!(show("8", EntryKind::SettledLate, 61, 250_000), Some((61, 50_000, 250_000)));
    // Nothing was talked after the expiry.
    assert_eq!(show("9", EntryKind::Expired, 60, 150_000), Some((60, 50_000, 150_000)));
    assert_eq!(show("10", EntryKind::Settled, 60, 0), None);
}

#[test]
fn what_an_expiry_charged_as_granted_goes_back_in_a_record_of_its_own() {
    let mut recorder = recorder();
    let (context, user) = (priced(), user());
    let mut show = |cursor: &str, kind, used, money| {
        let granted = Seconds(300);
        let entry = Entry { granted, ..entry(kind, used, &[("l:po-1", money)], &context) };
        let made = recorder.record(cursor, &entry, Some(&user))?;
        assert!(made.start <= made.end, "{made:?}");
        Some((made.duration.0, made.connection_fee.0, made.charge.0))
    };
    let as_granted = Some((300, 50_000, 550_000));
    assert_eq!(show("1", EntryKind::ExpiredAsGranted, 30, 550_000), as_granted);
    assert_eq!(show("2", EntryKind::SettledLate, 70, -300_000), Some((-230, 0, -300_000)));
    // All of it, and the fee with it.
    assert_eq!(show("3", EntryKind::ExpiredAsGranted, 30, 550_000), as_granted);
    assert_eq!(show("4", EntryKind::SettledLate, 30, -550_000), Some((-270, -50_000, -550_000)));
    // One that goes on after it: what comes behind is a difference to what is proven.
    assert_eq!(show("5", EntryKind::ExpiredAsGranted, 30, 550_000), as_granted);
    assert_eq!(show("6", EntryKind::Reopened, 100, -250_000), Some((-200, 0, -250_000)));
    assert_eq!(show("7", EntryKind::Settled, 130, 100_000), Some((30, 0, 100_000)));
}

#[test]
fn a_correction_of_a_call_is_a_record_of_the_difference_below_zero_too() {
    let context = priced();
    let corrected = |before: (i64, i64), paid_by: &str, used, postings: &[(&str, i64)]| {
        let report = AdjustmentReport {
            used_before: Seconds(before.0),
            money_before: Micros(before.1),
            paid_by: paid_by.to_owned(),
            ..AdjustmentReport::default()
        };
        let report = report.encode();
        let of_call = entry(EntryKind::Adjusted, used, postings, &context);
        only(&Entry { report, ..of_call }, Some(&user()))
    };
    let check = |record: &UsageRecord, duration, fee, charge, capability: &str| {
        let found = (record.duration.0, record.connection_fee.0, record.charge.0);
        assert_eq!((found, record.capability.as_str()), ((duration, fee, charge), capability));
        assert_eq!((record.start, record.end, record.call_id.as_str()), (NOON, NOON, "leg-1"));
    };
    let pool = "p:US:MCOPSTN1:DOMESTIC:2026-11";
    let down = corrected((121, 350_000), "l:po-1", 61, &[("l:po-1", -100_000)]);
    check(&down, -60, 0, -100_000, "MCOPSTNPP");
    let to_minutes = corrected((121, 150_000), "l:po-1", 50, &[(pool, 0), ("l:po-1", -150_000)]);
    check(&to_minutes, -71, -50_000, -150_000, "MCOPSTNPP");
    let minutes = corrected((121, 0), pool, 50, &[(pool, -120)]);
    check(&minutes, -71, 0, 0, "MCOPSTN1");
    // Within the same started minute nothing moves.
    check(&corrected((50, 0), pool, 60, &[]), 10, 0, 0, "MCOPSTN1");
    check(&corrected((121, 150_000), "l:po-1", 122, &[]), 1, 0, 0, "MCOPSTNPP");
    let up = corrected((60, 0), pool, 61, &[("l:po-1", 150_000)]);
    check(&up, 1, 50_000, 150_000, "MCOPSTNPP");
    let mut csv = vec![];
    let mut writer = CsvWriter::new(&mut csv).expect("a header");
    writer.write(&to_minutes).expect("a row");
    writer.finish().expect("a file");
    let text = String::from_utf8(csv).expect("UTF-8");
    assert!(text.contains(",-71,-0.05,-0.15,USD,MCOPSTNPP"), "{text}");
    // A correction of a balance is no usage.
    let balance = Entry { decision: None, ..entry(EntryKind::Adjusted, 0, &[], &context) };
    assert!(recorder().record("7-0", &balance, None).is_none());
}

#[test]
fn expired_calls_are_remembered_only_as_long_as_they_can_be_settled() {
    let mut recorder = recorder();
    let expired = entry(EntryKind::Expired, 60, &[], &abroad());
    for second in 0..200_000 {
        let at = NOON.after(Seconds(second * 60));
        let expired = Entry { at, subject: format!("leg-{second}"), ..expired.clone() };
        recorder.record("7-0", &expired, None);
    }
    // One a minute, each kept for a day: 1,440, and what has come since the last look.
    assert!(recorder.charged.len() <= 2 * 1_441, "{}", recorder.charged.len());
}

#[track_caller]
fn check_mask(number: &str, digits: u8, expected: &str) {
    assert_eq!(masked(number, digits), expected);
}

#[test]
fn the_last_digits_are_masked() {
    check_mask("+123 456789123", 3, "+123 456789***");
    check_mask("+33123456789", 4, "+3312345****");
    check_mask("+33123456789", 0, "+33123456789");
    check_mask("12", 4, "**");
    check_mask("+1 (425) 555-0100", 4, "+1 (425) 555-****");
    check_mask("anonymous", 4, "anonymous");
    check_mask("sip:+4930123456@10.0.0.1", 3, "sip:+4930123***@10.0.0.1");
    check_mask("", 4, "");
}

#[test]
fn only_the_outside_number_is_masked_and_only_for_some_organisations() {
    let settled = |context: &CallContext| entry(EntryKind::Settled, 61, &[], context);
    let numbers = |country: &str, context: &CallContext| {
        let tenant = TenantProfile { country: CountryCode::parse(country), ..tenant() };
        let mut recorder = Recorder::new(&tenant, Seconds(0));
        let made = recorder.record("1", &settled(context), Some(&user())).expect("a record");
        (made.caller_id, made.destination_number)
    };
    let pair = |caller: &str, called: &str| (caller.to_owned(), called.to_owned());
    for country in ["BE", "DE", "DK", "ES", "FI", "IT", "NL", "NO", "SE"] {
        assert_eq!(numbers(country, &abroad()), pair("+14255550100", "+33123456***"), "{country}");
    }
    for country in ["FR", "CH"] {
        assert_eq!(numbers(country, &abroad()), pair("+14255550100", "+3312345****"), "{country}");
    }
    assert_eq!(numbers("US", &abroad()), pair("+14255550100", "+33123456789"));
    let inbound = context(CallType::UserInbound, CallClass::Inbound, "+33123456789");
    assert_eq!(numbers("FR", &inbound), pair("+1425555****", "+33123456789"));
    let on_net = context(CallType::UserOutbound, CallClass::OnNet, "+33123456789");
    assert_eq!(numbers("FR", &on_net), pair("+14255550100", "+33123456789"));
    let mut emergency = context(CallType::UserOutbound, CallClass::Emergency, "112");
    emergency.classification = Some(Classification::without_number(CallClass::Emergency));
    assert_eq!(numbers("FR", &emergency), pair("+14255550100", "112"));
}

#[test]
fn user_fields_are_empty_for_bots() {
    let settled = entry(EntryKind::Settled, 61, &[], &abroad());
    let of_user = only(&settled, Some(&user()));
    assert_eq!(of_user.upn, "alice@contoso.example");
    let of_bot = only(&settled, Some(&payer(PayerKind::ResourceAccount, &[])));
    assert_eq!(of_bot.call_type, "ucap_out");
    assert_eq!([of_bot.object_id, of_bot.upn, of_bot.display_name], ["", "", ""]);
    assert_eq!([of_bot.user_location, of_bot.number_type], ["US", "Service"]);
}

#[track_caller]
fn check_times(answered: Option<i64>, ended: Option<i64>, expected: (i64, i64)) {
    let after_noon = |seconds| NOON.after(Seconds(seconds));
    let report = EndReport {
        answered_at: answered.map(after_noon),
        ended_at: ended.map(after_noon),
        ..EndReport::default()
    };
    let settled = entry(EntryKind::Settled, 60, &[], &abroad());
    let made = only(&Entry { report: report.encode(), ..settled }, None);
    assert_eq!((made.start, made.end), (after_noon(expected.0), after_noon(expected.1)));
}

#[test]
fn times_are_the_clients_where_it_said_them() {
    check_times(None, None, (-60, 0));
    check_times(None, Some(-5), (-65, -5));
    check_times(Some(-70), None, (-70, -10));
    check_times(Some(-70), Some(-9), (-70, -9));
    // A clock that contradicts itself.
    check_times(Some(-5), Some(-70), (-130, -70));
}

#[test]
fn domestic_and_international_are_seen_from_the_payer() {
    let seen = |context: &CallContext| {
        only(&entry(EntryKind::Settled, 1, &[], context), Some(&user())).reach
    };
    assert_eq!(seen(&abroad()), "International");
    let class = |call_type, class| context(call_type, class, "+33123456789");
    assert_eq!(seen(&class(CallType::UserOutbound, CallClass::Domestic)), "Domestic");
    assert_eq!(seen(&class(CallType::UserOutbound, CallClass::Premium)), "International");
    assert_eq!(seen(&class(CallType::UserOutbound, CallClass::Emergency)), "Domestic");
    let inbound = class(CallType::UserInbound, CallClass::Inbound);
    assert_eq!(seen(&inbound), "Domestic");
    let from_france = CallContext { calling_number: "+33123456789".to_owned(), ..inbound.clone() };
    assert_eq!(seen(&from_france), "International");
    let anonymous = CallContext { calling_number: String::new(), ..inbound };
    assert_eq!(seen(&anonymous), "");
}

#[test]
fn a_small_day_is_this_file() {
    let mut csv = vec![];
    let mut writer = CsvWriter::new(&mut csv).expect("a header");
    let tenant = TenantProfile { country: CountryCode::parse("FR"), ..tenant() };
    let mut recorder = Recorder::new(&tenant, Seconds(86_400));
    let bot = payer(PayerKind::ResourceAccount, &[]);
    let toll_free = CallContext {
        calling_number: "=cmd|' /C calc'!A0".to_owned(),
        conference_id: "meeting \"7\", room\n2".to_owned(),
        tariff: Some(tariff()),
        ..context(CallType::TollFreeInbound, CallClass::TollFreeInbound, "+33800123456")
    };
    let day: [(Entry, PayerProfile); 4] = [
        (entry(EntryKind::Settled, 61, &[("l:po-1", 250_000)], &priced()), user()),
        (
            entry(EntryKind::Expired, 5, &[("p:US:MCOPSTN2:INTERNATIONAL:2026-11", 60)], &abroad()),
            user(),
        ),
        (
            Entry {
                decision: Some(Decision::InsufficientCredits),
                ..entry(EntryKind::Refused, 0, &[], &priced())
            },
            bot,
        ),
        (
            entry(EntryKind::SettledLate, 3_600, &[("l:po-1", 6_050_000)], &toll_free),
            payer(PayerKind::TollFreeNumber, &[]),
        ),
    ];
    for (number, (mut entry, payer)) in (1..).zip(day) {
        entry.subject = format!("leg-{number}");
        entry.at = NOON.after(Seconds(number * 3_600));
        let record = recorder.record(&format!("{number}-0"), &entry, Some(&payer));
        writer.write(&record.expect("a record")).expect("a row");
    }
    writer.finish().expect("a file");
    let expected = include_str!("golden_day.csv").replace('\n', "\r\n").replace("\\n\r\n", "\n");
    assert_eq!(String::from_utf8(csv).expect("UTF-8"), expected);
}
