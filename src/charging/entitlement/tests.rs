use super::*;
use crate::charging::ids::{PayerId, TenantId};
use crate::charging::profile::{
    Billing, FailureHandling, InternationalCap, NoticeTargets, OnLostSettle, OutboundPolicy,
    TenantLimits,
};
use crate::charging::units::Seconds;

const DECK: &str = "\
prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,effective_from,effective_to,direction
1,North America,0.01,0,60,60,USD,2020-01-01,,outbound
33,France,0.05,0,60,60,USD,2020-01-01,,outbound
3389,France premium,1.50,0.20,60,60,USD,2020-01-01,,outbound
44,United Kingdom,0.04,0,60,60,USD,2020-01-01,,outbound
43,Austria,0.06,0,60,60,USD,2020-01-01,,outbound
216,Tunisia,0.90,0,60,60,USD,2020-01-01,,outbound
1,North America,0.02,0,60,60,USD,2020-01-01,,toll_free_inbound
33,France,0.30,0.10,60,60,USD,2020-01-01,,toll_free_inbound
*,Anywhere,0.03,0,60,60,USD,2020-01-01,,toll_inbound
";

/// 2026-11-10T12:00:00Z.
const NOON: Millis = Millis(1_794_312_000_000);

/// A call and what it is decided by.
struct Case {
    call_type: CallType,
    called: &'static str,
    calling: &'static str,
    deck: bool,
    transferred: bool,
    on_behalf: bool,
    numbers: HashSet<String>,
    tenant: TenantProfile,
    payer: PayerProfile,
}

/// A user of a country with a plan, credits and Phone System, who calls somebody.
fn user(country: &str, licences: &[Licence]) -> Case {
    Case {
        call_type: CallType::UserOutbound,
        called: "+14255550123",
        calling: "",
        deck: true,
        transferred: false,
        on_behalf: false,
        numbers: ["+14255550100".to_owned()].into(),
        tenant: TenantProfile {
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
        },
        payer: PayerProfile {
            id: PayerId::literal("alice"),
            kind: PayerKind::User,
            state: PayerState::Active,
            usage_location: CountryCode::parse(country).expect("a country"),
            licences: licences.to_vec(),
            numbers: vec![],
            user_policy: None,
            conference_policy: None,
            spend_limit: None,
            concurrent_calls: None,
            upn: String::new(),
            display_name: String::new(),
            object_id: String::new(),
        },
    }
}

fn organiser(country: &str, licences: &[Licence]) -> Case {
    Case { call_type: CallType::ConferenceDialOut, ..user(country, licences) }
}

fn service_number(calling: &'static str) -> Case {
    let mut case = user("US", &[]);
    case.call_type = CallType::TollFreeInbound;
    case.called = "+18005550199";
    case.calling = calling;
    case.payer.kind = PayerKind::TollFreeNumber;
    case
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Case)) -> Case {
        change(&mut self);
        self
    }

    /// `FREE`, `REFUSED reason`, or the pools, the price per minute or why credits cannot pay, and what an
    /// empty ledger answers.
    fn outcome(&self) -> String {
        match self.verdict(&mut ()).entitlement {
            Entitlement::Refused(decision, _) => format!("REFUSED {decision}"),
            Entitlement::Free => "FREE".to_owned(),
            Entitlement::Funded { pools, credits, when_exhausted, .. } => {
                let mut parts: Vec<String> = pools.into_iter().map(|pool| pool.family).collect();
                parts.push(match credits {
                    Ok(tariff) => format_micros(tariff.rate_per_minute),
                    Err(reason) => reason.to_string(),
                });
                format!("{}, else {when_exhausted}", parts.join(" + "))
            }
        }
    }

    fn verdict(&self, explain: &mut impl Explain) -> Verdict {
        let deck = Deck::parse(DECK.as_bytes()).expect("the deck is right");
        let setup = Setup {
            tenant: Some(&self.tenant),
            numbers: &self.numbers,
            payer: Some(&self.payer),
            barred: false,
            deck: self.deck.then_some(&deck),
        };
        let attempt = Attempt {
            transferred: self.transferred,
            on_behalf: self.on_behalf,
            call_type: self.call_type,
            calling_number: self.calling,
            called_number: self.called,
            at: NOON,
        };
        decide(&attempt, &setup, explain)
    }
}

#[track_caller]
fn check(case: Case, called: &'static str, expected: &str) {
    let call_type = case.call_type;
    let outcome = case.with(|case| case.called = called).outcome();
    assert_eq!(outcome, expected, "{call_type:?} to {called}");
}

use Licence::{
    AudioConferencing as Conf, CommunicationsCredits as Credits, Domestic as Dom,
    DomesticAndInternational as Both, PhoneSystem as Phone,
};

#[test]
fn domestic_calls_use_the_pool_and_then_credits() {
    // Rules 18, 19, 20, 27, 29, 33.
    let us = || user("US", &[Phone, Dom, Credits]);
    check(us(), "+12065550100", "US:MCOPSTN1:DOMESTIC + 0.01, else POOL_EXHAUSTED");
    check(us(), "+14165550100", "US:MCOPSTN1:DOMESTIC + 0.01, else POOL_EXHAUSTED");
    check(us(), "+17875550100", "US:MCOPSTN1:DOMESTIC + 0.01, else POOL_EXHAUSTED");
    let unlicensed = || user("US", &[Phone, Dom]);
    let expected = "US:MCOPSTN1:DOMESTIC + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(unlicensed(), "+12065550100", expected);
    // Rule 6: PR draws on the US pool.
    check(
        user("PR", &[Phone, Dom]),
        "+17875550100",
        "US:MCOPSTN1:DOMESTIC + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED",
    );
}

#[test]
fn international_calls_use_credits_or_the_international_counter() {
    // Rules 30, 31, 33; D28.
    check(user("US", &[Phone, Dom, Credits]), "+33140000000", "0.05, else INSUFFICIENT_CREDITS");
    check(
        user("US", &[Phone, Both, Credits]),
        "+33140000000",
        "US:MCOPSTN2:INTERNATIONAL + 0.05, else POOL_EXHAUSTED",
    );
    check(
        user("US", &[Phone, Dom]),
        "+33140000000",
        "CREDITS_NOT_LICENSED, else CREDITS_NOT_LICENSED",
    );
    check(
        user("US", &[Phone, Dom, Credits]),
        "+4930123456",
        "DESTINATION_UNRATED, else DESTINATION_UNRATED",
    );
}

#[test]
fn only_listed_destinations_are_called_whatever_their_numbers_are() {
    // Rules 22 and 23, D13, D27.
    check(user("US", &[Phone, Dom, Credits]), "+21671000000", "REFUSED DESTINATION_BLOCKED");
    // A premium and a toll-free number of a country that is not listed.
    check(user("FR", &[Phone, Dom, Credits]), "+21688100000", "REFUSED DESTINATION_BLOCKED");
    check(user("US", &[Phone, Dom, Credits]), "+21680100000", "REFUSED DESTINATION_BLOCKED");
    // Guernsey takes the entry of the United Kingdom, and is domestic to nobody else.
    let gb = "0.04, else INSUFFICIENT_CREDITS";
    check(user("GB", &[Phone, Dom, Credits]), "+441481720000", gb);
    // At home nobody asks for the list.
    let at_home = organiser("TN", &[Conf, Credits]);
    check(at_home, "+21671000000", "0.9, else INSUFFICIENT_CREDITS");
    // Credits are no plan (rules 35 and 79).
    check(user("TN", &[Phone, Credits]), "+21671000000", "REFUSED NOT_ENTITLED");
}

#[test]
fn premium_numbers_depend_on_the_payers_country() {
    // Rule 23, D21; never from a conference (rule 57).
    check(user("FR", &[Phone, Dom, Credits]), "+33899000000", "1.5, else INSUFFICIENT_CREDITS");
    check(user("US", &[Phone, Dom, Credits]), "+19005550100", "REFUSED DESTINATION_BLOCKED");
    check(user("GB", &[Phone, Dom, Credits]), "+448434567890", "0.04, else INSUFFICIENT_CREDITS");
    check(user("GB", &[Phone, Dom, Credits]), "+449098790000", "REFUSED DESTINATION_BLOCKED");
    check(
        user("AT", &[Phone, Dom, Credits]),
        "+43900123456",
        "AT:MCOPSTN1:DOMESTIC + 0.06, else POOL_EXHAUSTED",
    );
    check(organiser("FR", &[Conf, Credits]), "+33899000000", "REFUSED DESTINATION_BLOCKED");
}

#[test]
fn toll_free_of_the_own_plan_is_free_and_any_other_has_the_decks_price() {
    // Rule 26, D29.
    check(user("US", &[Phone, Dom]), "+18005550123", "FREE");
    check(user("CA", &[Phone, Dom]), "+18885550123", "FREE");
    check(user("GB", &[Phone, Dom]), "+448001111", "FREE");
    check(user("US", &[Phone, Dom, Credits]), "+33800000000", "0.05, else INSUFFICIENT_CREDITS");
    let unrated = "DESTINATION_UNRATED, else DESTINATION_UNRATED";
    check(user("US", &[Phone, Dom, Credits]), "+80012345678", unrated);
    check(user("US", &[]), "+18005550123", "REFUSED NOT_ENTITLED");
}

#[test]
fn calls_within_the_tenant_and_inbound_calls_are_free() {
    // Rules 16, 17, 64.
    let own = |case: Case| check(case, "+14255550100", "FREE");
    own(user("US", &[]));
    own(user("US", &[]).with(|case| case.tenant.outbound_policy.user = UserPolicy::None));
    own(user("US", &[]).with(|case| case.call_type = CallType::UserInbound));
    let dial_in =
        |licences| user("US", licences).with(|c| c.call_type = CallType::ConferenceDialIn);
    check(dial_in(&[Conf]), "+14255550199", "FREE");
    check(dial_in(&[]), "+14255550199", "REFUSED NOT_ENTITLED");
}

#[test]
fn the_policy_domestic_is_strict_and_the_payers_own_wins() {
    // Rules 21 and 67, D12.
    let domestic = |country| {
        user(country, &[Phone, Dom]).with(|c| c.tenant.outbound_policy.user = UserPolicy::Domestic)
    };
    check(domestic("US"), "+14165550100", "REFUSED POLICY_DENIED");
    check(domestic("CA"), "+12065550100", "REFUSED POLICY_DENIED");
    let pool = "US:MCOPSTN1:DOMESTIC + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(domestic("US"), "+17875550100", pool);
    check(domestic("US"), "+80012345678", "REFUSED POLICY_DENIED");
    let own = domestic("US").with(|c| c.payer.user_policy = Some(UserPolicy::International));
    check(own, "+14165550100", pool);
    let none = domestic("US").with(|c| c.payer.user_policy = Some(UserPolicy::None));
    check(none, "+12065550100", "REFUSED POLICY_DENIED");
}

#[test]
fn conferences_dial_zone_a_from_their_pool_and_the_rest_on_credits() {
    // Rules 57, 58, 60, 67.
    let pool = "ALL:MCOMEETADD:CONFERENCE";
    check(
        organiser("ZW", &[Conf]),
        "+12065550100",
        &format!("{pool} + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED"),
    );
    check(
        organiser("CK", &[Conf, Credits]),
        "+442079460000",
        &format!("{pool} + 0.04, else POOL_EXHAUSTED"),
    );
    let unlicensed = "CREDITS_NOT_LICENSED, else CREDITS_NOT_LICENSED";
    check(organiser("ZW", &[Conf]), "+263242700000", unlicensed);
    // No fall-back on the organiser's calling plan (C16), nor from a plan on the conference's.
    check(organiser("US", &[Phone, Dom, Credits]), "+12065550100", "REFUSED NOT_ENTITLED");
    let policy =
        |policy| organiser("US", &[Conf]).with(|c| c.tenant.outbound_policy.conference = policy);
    check(policy(ConferencePolicy::Disabled), "+12065550100", "REFUSED POLICY_DENIED");
    check(policy(ConferencePolicy::SameCountry), "+14165550100", "REFUSED POLICY_DENIED");
    check(policy(ConferencePolicy::ZoneA), "+263242700000", "REFUSED POLICY_DENIED");
    check(
        policy(ConferencePolicy::ZoneA),
        "+14165550100",
        &format!("{pool} + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED"),
    );
}

#[test]
fn calls_to_a_toll_free_number_are_on_credits_at_the_callers_rate() {
    // Rules 36 and 38, D24: no licence, no pool, and nothing of funds is told.
    let funded = |calling, expected: &str| {
        assert_eq!(service_number(calling).outcome(), expected, "{calling:?}");
    };
    funded("+12065550100", "0.02, else TOLL_FREE_UNFUNDED");
    funded("+33140000000", "0.3, else TOLL_FREE_UNFUNDED");
    // A caller without a usable number has the dearest rate of the service number's country.
    funded("anonymous", "0.02, else TOLL_FREE_UNFUNDED");
    funded("", "0.02, else TOLL_FREE_UNFUNDED");
    funded("+4930123456", "TOLL_FREE_UNFUNDED, else TOLL_FREE_UNFUNDED");
    let person = service_number("+12065550100").with(|c| c.payer.kind = PayerKind::User);
    assert_eq!(person.outcome(), "REFUSED NOT_ENTITLED");
}

#[test]
fn the_tenants_price_limits_hold_for_inbound_calls_too() {
    let limited = |calling, rate: Option<i64>, fee: Option<i64>| {
        service_number(calling).with(|case| {
            case.tenant.limits.max_rate_per_minute = rate.map(Micros);
            case.tenant.limits.max_connection_fee = fee.map(Micros);
        })
    };
    let unfunded = "TOLL_FREE_UNFUNDED, else TOLL_FREE_UNFUNDED";
    assert_eq!(limited("+33140000000", Some(299_999), None).outcome(), unfunded);
    assert_eq!(limited("+33140000000", None, Some(99_999)).outcome(), unfunded);
    let at_the_limit = limited("+33140000000", Some(300_000), Some(100_000)).outcome();
    assert_eq!(at_the_limit, "0.3, else TOLL_FREE_UNFUNDED");
}

#[test]
fn a_toll_free_call_without_a_price_still_meets_the_limits_first() {
    // TOLL_FREE_UNFUNDED comes after RATE_LIMITED and CONCURRENCY_LIMIT, which the ledger judges.
    let unrated = service_number("+12065550100").with(|case| case.deck = false);
    assert_eq!(unrated.outcome(), "TOLL_FREE_UNFUNDED, else TOLL_FREE_UNFUNDED");
}

#[test]
fn a_plan_of_one_user_is_nobody_elses() {
    // Rule 7.
    let own = "US:MCOPSTN8:DOMESTIC:alice + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(user("US", &[Phone, Licence::Domestic120PerUser]), "+12065550100", own);
}

#[test]
fn the_international_plan_adds_minutes_abroad_to_a_domestic_one() {
    // Rule 14, C7: counters of their own, so that neither closes the other.
    let both = || user("US", &[Phone, Dom, Licence::International]);
    let abroad = "US:MCOPSTN9:INTERNATIONAL + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(both(), "+33140000000", abroad);
    let home = "US:MCOPSTN1:DOMESTIC + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(both(), "+12065550100", home);
}

#[test]
fn pay_as_you_go_opens_calls_in_its_zone_and_money_pays_all_of_them() {
    // Rules 12 and 13, D25.
    let zone_1 = Licence::PayAsYouGo1;
    let paid = "0.01, else INSUFFICIENT_CREDITS";
    check(user("US", &[Phone, zone_1, Credits]), "+12065550100", paid);
    let unlicensed = "CREDITS_NOT_LICENSED, else CREDITS_NOT_LICENSED";
    check(user("US", &[Phone, zone_1]), "+12065550100", unlicensed);
    check(user("FR", &[Phone, zone_1]), "+33140000000", "REFUSED NOT_ENTITLED");
    check(user("FR", &[Phone, Licence::PayAsYouGo2]), "+33140000000", unlicensed);
    check(user("MX", &[Phone, Licence::PayAsYouGo2]), "+12065550100", "REFUSED NOT_ENTITLED");
}

#[test]
fn a_bot_pays_by_its_plan_for_transfers_and_by_pay_as_you_go_for_its_own_calls() {
    // Rules 70 and 73: credits need no licence.
    let bot = |licences: &[Licence], transferred| {
        user("US", licences).with(|case| {
            case.payer.kind = PayerKind::ResourceAccount;
            case.transferred = transferred;
        })
    };
    let plan = "US:MCOPSTN1:DOMESTIC + 0.01, else POOL_EXHAUSTED";
    check(bot(&[Licence::ResourceAccount, Dom], true), "+12065550100", plan);
    let credits = "0.01, else INSUFFICIENT_CREDITS";
    check(bot(&[Licence::ResourceAccount], true), "+12065550100", credits);
    check(bot(&[Licence::ResourceAccount, Dom], false), "+12065550100", "REFUSED NOT_ENTITLED");
    let payg = [Licence::ResourceAccount, Licence::PayAsYouGo1];
    check(bot(&payg, false), "+12065550100", credits);
    // Rule 72: shared calling needs the licence, too.
    let shared = |licences| bot(licences, false).with(|case| case.on_behalf = true);
    let unlicensed = "CREDITS_NOT_LICENSED, else CREDITS_NOT_LICENSED";
    check(shared(&payg), "+12065550100", unlicensed);
    let licensed = [&payg[..], &[Credits]].concat();
    check(shared(&licensed), "+12065550100", credits);
}

#[test]
fn extended_dial_out_is_free_to_the_us_and_canada() {
    // Rule 65.
    let extended = || organiser("US", &[Conf, Licence::ExtendedDialOut]);
    check(extended(), "+12065550100", "FREE");
    check(extended(), "+14165550100", "FREE");
    let pool = "ALL:MCOMEETADD:CONFERENCE + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(extended(), "+442079460000", pool);
}

#[test]
fn organisers_where_there_are_no_credits_keep_the_old_allowance() {
    // Rule 62, D23.
    let pool = "KR:MCOMEETADD:CONFERENCE + CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(organiser("KR", &[Conf]), "+12065550100", pool);
    let seats = plans::seats(&organiser("KR", &[Conf]).payer);
    assert_eq!(seats, [("KR:MCOMEETADD:CONFERENCE".to_owned(), Seconds(900 * 60))]);
    let seats = plans::seats(&organiser("US", &[Conf]).payer);
    assert_eq!(seats, [("ALL:MCOMEETADD:CONFERENCE".to_owned(), Seconds(60 * 60))]);
}

#[test]
fn pay_per_minute_conferencing_charges_everything_without_a_credits_licence() {
    // Rule 63, C11.
    let per_minute = [Licence::ConferencingPerMinute];
    let paid = "0.01, else INSUFFICIENT_CREDITS";
    check(organiser("US", &per_minute), "+12065550100", paid);
    let dial_in = user("US", &per_minute).with(|c| c.call_type = CallType::ConferenceDialIn);
    check(dial_in, "+14255550199", "0.03, else TOLL_FREE_UNFUNDED");
}

#[test]
fn conferences_of_organisations_in_china_do_not_dial_out() {
    // Rule 68.
    let china = organiser("US", &[Conf]).with(|c| c.tenant.country = Some(CHINA));
    check(china, "+12065550100", "REFUSED POLICY_DENIED");
}

#[test]
fn an_inbound_call_is_classified_by_its_caller() {
    let own = ["+14255550100".to_owned()];
    for (call_type, class) in [
        (CallType::UserInbound, CallClass::Inbound),
        (CallType::ConferenceDialIn, CallClass::Inbound),
        (CallType::TollFreeInbound, CallClass::TollFreeInbound),
    ] {
        let caller = |calling| {
            let case = user("US", &[]).with(|case| {
                (case.call_type, case.calling) = (call_type, calling);
                (case.called, case.payer.numbers) = ("+14255550100", own.to_vec());
            });
            let verdict = case.verdict(&mut ());
            assert!(verdict.warnings.is_empty(), "{:?}", verdict.warnings);
            verdict.classification.expect("a classification")
        };
        let french = caller("+33123456789");
        assert_eq!((french.class, french.e164.as_str()), (class, "+33123456789"));
        assert_eq!(french.country, CountryCode::parse("FR"));
        assert_eq!(french.number_type, Some(NumberType::FixedLine));
        assert_eq!(caller("206 555 0100").e164, "+12065550100");
        for withheld in ["", "anonymous", "sip:anonymous@anonymous.invalid"] {
            assert_eq!(caller(withheld), Classification::without_number(class));
        }
    }
}

#[test]
fn an_inbound_call_to_a_number_that_nobody_has_is_warned_of() {
    let warnings = |called, numbers: &[&str]| {
        let numbers = numbers.iter().map(|&number| number.to_owned()).collect();
        let case = user("US", &[]).with(|case| {
            (case.call_type, case.called) = (CallType::UserInbound, called);
            case.payer.numbers = numbers;
        });
        let verdict = case.verdict(&mut ());
        assert_eq!(verdict.entitlement, Entitlement::Free);
        verdict.warnings
    };
    let warned = vec!["called_number is not a number of the tenant"];
    assert_eq!(warnings("+14255550123", &["+14255550100"]), warned);
    assert!(warnings("(425) 555-0100", &["+14255550100"]).is_empty());
    assert!(warnings("4711", &["+14255550100"]).is_empty(), "no number to be compared");
    assert!(warnings("+14255550123", &[]).is_empty(), "nothing to compare with");
}

#[test]
fn a_user_with_several_plans_draws_on_them_in_the_order_of_the_catalogue() {
    // D10: all counters are reset with the month. The order of assignment says nothing.
    let plans = [Licence::Domestic240, Licence::Domestic120, Dom, Phone];
    let expected = "US:MCOPSTN1:DOMESTIC + US:MCOPSTN5:DOMESTIC + US:MCOPSTN6:DOMESTIC + \
                    CREDITS_NOT_LICENSED, else POOL_EXHAUSTED";
    check(user("US", &plans), "+12065550100", expected);
    let both = [Licence::International, Licence::DomesticAndInternational];
    let expected = "US:MCOPSTN2:INTERNATIONAL + US:MCOPSTN9:INTERNATIONAL + CREDITS_NOT_LICENSED, \
                    else POOL_EXHAUSTED";
    check(user("US", &both), "+33140000000", expected);
}

#[test]
fn the_rate_of_a_dial_out_depends_only_on_its_destination() {
    // Rule 61: wherever the organiser is, whoever is shown as the caller, and whatever pays per minute.
    for country in ["US", "FR", "ZW", "CK"] {
        let subscribed = "ALL:MCOMEETADD:CONFERENCE + 0.05, else POOL_EXHAUSTED";
        check(organiser(country, &[Conf, Credits]), "+33140000000", subscribed);
        let dearer = "0.9, else INSUFFICIENT_CREDITS";
        for calling in ["", "+12065550100", "+21671000000"] {
            let case = organiser(country, &[Licence::ConferencingPerMinute]);
            let case = case.with(|c| {
                c.calling = calling;
                c.tenant.allow_unlisted_destinations = true;
            });
            check(case, "+21671000001", dearer);
        }
    }
}

fn closers(cap: InternationalCap, licences: &[Licence], called: &'static str) -> Vec<String> {
    let case = user("US", licences).with(|case| {
        case.tenant.international_cap = cap;
        case.called = called;
    });
    match case.verdict(&mut ()).entitlement {
        Entitlement::Funded { pools, .. } => pools.into_iter().map(|pool| pool.closed_by).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_tenant_chooses_whether_one_counter_of_the_international_plan_closes_the_other() {
    // D11.
    let plan = [Phone, Licence::DomesticAndInternational];
    let (home, abroad) = ("+12065550100", "+33140000000");
    let either = InternationalCap::Either;
    assert_eq!(closers(either, &plan, home), ["US:MCOPSTN2:INTERNATIONAL"]);
    assert_eq!(closers(either, &plan, abroad), ["US:MCOPSTN2:DOMESTIC"]);
    for called in [home, abroad] {
        assert_eq!(closers(InternationalCap::Each, &plan, called), [""]);
    }
    // A plan with one counter has nothing to close.
    assert_eq!(closers(either, &[Phone, Dom], home), [""]);
}

#[test]
fn an_unlisted_destination_that_the_deck_prices_is_paid_by_credits_where_the_tenant_allows_it() {
    // D13: never by minutes.
    let allowed = |licences: &[Licence]| {
        user("US", licences).with(|case| case.tenant.allow_unlisted_destinations = true)
    };
    let international = [Phone, Licence::DomesticAndInternational, Credits];
    check(allowed(&international), "+21671000000", "0.9, else INSUFFICIENT_CREDITS");
    let unlicensed = "CREDITS_NOT_LICENSED, else CREDITS_NOT_LICENSED";
    check(allowed(&[Phone, Dom]), "+21671000000", unlicensed);
    // Cuba has no row in the deck, and without a deck nothing has.
    check(allowed(&international), "+5371234567", "REFUSED DESTINATION_BLOCKED");
    let without = allowed(&international).with(|case| case.deck = false);
    check(without, "+21671000000", "REFUSED DESTINATION_BLOCKED");
    // Premium numbers stay refused, and what is listed is paid as ever.
    check(allowed(&international), "+19005550100", "REFUSED DESTINATION_BLOCKED");
    let listed = "US:MCOPSTN2:INTERNATIONAL + 0.05, else POOL_EXHAUSTED";
    check(allowed(&international), "+33140000000", listed);
    let blocked = allowed(&international).with(|c| c.tenant.blocked_prefixes = vec!["216".into()]);
    check(blocked, "+21671000000", "REFUSED DESTINATION_BLOCKED");
}
