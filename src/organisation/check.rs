//! The raw document judged: every fault listed, profiles only when there is none.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::charging::catalogue::{CountryCode, Licence};
use crate::charging::ids::{LotId, PayerId, TenantId};
use crate::charging::licensing::{Misassigned, misassigned};
use crate::charging::number;
use crate::charging::plans::has_pay_as_you_go;
use crate::charging::profile::{
    AutoRecharge, Billing, ConferencePolicy, FailureHandling, InternationalCap, NoticeTargets,
    OnFailure, OnLostSettle, OutboundPolicy, PayerKind, PayerProfile, PayerState, Purchase,
    RechargeOn, ResponseOverride, Retention, SpendVelocity, TenantDocument, TenantLimits,
    TenantProfile, TenantState, Trunk, UserPolicy,
};
use crate::charging::units::Seconds;
use crate::organisation::faults::{At, Faults};
use crate::organisation::raw::{
    RawAutoRecharge, RawFailureHandling, RawNotices, RawOrganisation, RawOutboundPolicy,
    RawPayment, RawPurchase, RawResourceAccount, RawResponse, RawRetention, RawServiceNumber,
    RawSpendVelocity, RawTenant, RawTenantLimits, RawTrunk, RawUser, RawUserLimits, Text,
};
use crate::organisation::values::{
    amount, boolean, count, country, currency, deck_name, email, id, instant, licence,
    numbers_kept, plan_with_minutes, pool_increment, positive_amount, prefix, q850_cause,
    records_kept, refusal, sip_status, span, telephone_number, text, time_zone, webhook, word,
};
use crate::organisation::{Fault, MAX_LISTED};

/// Most mail addresses of one tenant: each is sent a mail of its own.
const MAX_EMAILS: usize = 20;

/// Judges a document: all of its tenants, or everything that is wrong with it.
///
/// At most [`MAX_LISTED`] faults are listed; a last one says when there may be more.
pub fn check(raw: &RawOrganisation) -> Result<Vec<TenantDocument>, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.unknown(&At::ROOT, RawOrganisation::KEYS, &raw.unknown);
    let tenants_at = At::ROOT.key("tenants");
    if raw.tenants.is_empty() {
        faults.add(&tenants_at, raw.line, "expected at least one tenant".to_owned());
    }
    let mut seen = Seen::new("tenant id");
    let mut documents = Vec::with_capacity(raw.tenants.len());
    for (index, tenant) in raw.tenants.iter().enumerate() {
        let at = tenants_at.index(index);
        seen.once(&mut faults, &at.key("id"), tenant.id.as_ref());
        documents.extend(check_tenant(&mut faults, &at, tenant));
    }
    faults.none_or_all(documents)
}

fn check_tenant(f: &mut Faults, at: &At<'_>, raw: &RawTenant) -> Option<TenantDocument> {
    f.unknown(at, RawTenant::KEYS, &raw.unknown);
    let country = f.optional(&at.key("country"), raw.country.as_ref(), country);
    let id = f.required(&at.key("id"), raw.line, raw.id.as_ref(), id(TenantId::new));
    let currency = f.required(&at.key("currency"), raw.line, raw.currency.as_ref(), currency);
    let zone = f.optional(&at.key("time_zone"), raw.time_zone.as_ref(), time_zone);
    let state = f.optional(&at.key("state"), raw.state.as_ref(), word(TENANT_STATES));
    let billing = f.optional(&at.key("billing"), raw.billing.as_ref(), word(BILLINGS));
    let overage = f.optional(&at.key("overage"), raw.overage.as_ref(), boolean).unwrap_or(false);
    let billing = billing.unwrap_or_default();
    if overage && billing != Billing::Postpaid {
        let line = raw.overage.as_ref().and_then(|text| text.line);
        f.add(&at.key("overage"), line, "expected false, since billing is prepaid".to_owned());
    }
    let rate_deck = f.optional(&at.key("rate_deck"), raw.rate_deck.as_ref(), deck_name);
    let (user, conference) = check_policy(f, &at.key("outbound_policy"), &raw.outbound_policy);
    let handling = check_handling(f, &at.key("failure_handling"), &raw.failure_handling);
    let lost = f.optional(&at.key("on_lost_settle"), raw.on_lost_settle.as_ref(), word(LOST));
    let limits = check_tenant_limits(f, &at.key("limits"), &raw.limits);
    let velocity =
        raw.spend_velocity.as_ref().map(|raw| check_velocity(f, &at.key("spend_velocity"), raw));
    let blocked_prefixes = f.each(&at.key("blocked_prefixes"), &raw.blocked_prefixes, prefix);
    let recharge =
        raw.auto_recharge.as_ref().map(|raw| check_recharge(f, &at.key("auto_recharge"), raw));
    if let (Billing::Postpaid, Some(raw)) = (billing, &raw.auto_recharge) {
        let message = "expected none, since billing is postpaid: a post-paid tenant buys no credits \
                       (rule 43)";
        f.add(&at.key("auto_recharge"), raw.line, message.to_owned());
    }
    let deduct = f.optional(&at.key("deduct_shortfall"), raw.deduct_shortfall.as_ref(), boolean);
    let trunks = check_trunks(f, &at.key("trunks"), &raw.trunks);
    let retention = check_retention(f, &at.key("retention"), &raw.retention);
    let notices = check_notices(f, &at.key("notices"), &raw.notices);
    let cap = f.optional(&at.key("international_cap"), raw.international_cap.as_ref(), word(CAPS));
    let unlisted = raw.allow_unlisted_destinations.as_ref();
    let unlisted = f.optional(&at.key("allow_unlisted_destinations"), unlisted, boolean);
    let pool_increments = check_increments(f, &at.key("pool_increments"), &raw.pool_increments.0);
    let purchases = check_purchases(f, &at.key("credits"), &raw.credits);
    let payers = check_payers(f, at, raw);

    let profile = TenantProfile {
        id: id?,
        currency: currency?,
        country,
        time_zone: zone.unwrap_or_else(|| "UTC".to_owned()),
        state: state.unwrap_or_default(),
        billing,
        overage,
        rate_deck: rate_deck.unwrap_or_else(|| "default".to_owned()),
        outbound_policy: OutboundPolicy {
            conference: conference.unwrap_or_default(),
            user: user.unwrap_or_default(),
        },
        failure_handling: handling,
        on_lost_settle: lost.unwrap_or_default(),
        limits,
        spend_velocity: velocity.flatten(),
        blocked_prefixes,
        auto_recharge: recharge.flatten(),
        trunks,
        retention,
        notices,
        international_cap: cap.unwrap_or_default(),
        allow_unlisted_destinations: unlisted.unwrap_or(false),
        pool_increments,
        deduct_shortfall: deduct.unwrap_or(false),
    };
    let mut warnings = warnings(&payers);
    warnings.extend(without_address(&raw.users, &payers));
    Some(TenantDocument {
        profile,
        names_deck: raw.rate_deck.is_some(),
        payers,
        purchases,
        warnings,
    })
}

const TENANT_STATES: &[(&str, TenantState)] = &[
    ("active", TenantState::Active),
    ("suspended", TenantState::Suspended),
    ("removed", TenantState::Removed),
];

const BILLINGS: &[(&str, Billing)] =
    &[("prepaid", Billing::Prepaid), ("postpaid", Billing::Postpaid)];

const LOST: &[(&str, OnLostSettle)] =
    &[("proven", OnLostSettle::Proven), ("granted", OnLostSettle::Granted)];

const CAPS: &[(&str, InternationalCap)] =
    &[("either", InternationalCap::Either), ("each", InternationalCap::Each)];
const RECHARGE_ON: &[(&str, RechargeOn)] =
    &[("spent", RechargeOn::Spent), ("available", RechargeOn::Available)];

const CONFERENCE_POLICIES: &[(&str, ConferencePolicy)] = &[
    ("any", ConferencePolicy::Any),
    ("same_country", ConferencePolicy::SameCountry),
    ("zone_a", ConferencePolicy::ZoneA),
    ("disabled", ConferencePolicy::Disabled),
];

const USER_POLICIES: &[(&str, UserPolicy)] = &[
    ("international", UserPolicy::International),
    ("domestic", UserPolicy::Domestic),
    ("none", UserPolicy::None),
];

const ON_FAILURE: &[(&str, OnFailure)] = &[
    ("terminate", OnFailure::Terminate),
    ("continue_capped", OnFailure::ContinueCapped),
    ("retry_then_terminate", OnFailure::RetryThenTerminate),
];

const USER_STATES: &[(&str, PayerState)] = &[
    ("active", PayerState::Active),
    ("blocked", PayerState::Blocked),
    ("removed", PayerState::Removed),
];

/// Only persons are blocked.
const OTHER_STATES: &[(&str, PayerState)] =
    &[("active", PayerState::Active), ("removed", PayerState::Removed)];

const SERVICE_KINDS: &[(&str, PayerKind)] =
    &[("toll", PayerKind::TollNumber), ("toll_free", PayerKind::TollFreeNumber)];

fn check_policy(
    f: &mut Faults,
    at: &At<'_>,
    raw: &RawOutboundPolicy,
) -> (Option<UserPolicy>, Option<ConferencePolicy>) {
    f.unknown(at, RawOutboundPolicy::KEYS, &raw.unknown);
    let user = f.optional(&at.key("user"), raw.user.as_ref(), word(USER_POLICIES));
    let conference =
        f.optional(&at.key("conference"), raw.conference.as_ref(), word(CONFERENCE_POLICIES));
    (user, conference)
}

fn check_handling(f: &mut Faults, at: &At<'_>, raw: &RawFailureHandling) -> FailureHandling {
    f.unknown(at, RawFailureHandling::KEYS, &raw.unknown);
    let mut read = |key, text: &Option<Text>| {
        f.optional(&at.key(key), text.as_ref(), word(ON_FAILURE)).unwrap_or_default()
    };
    FailureHandling {
        user_outbound: read("user_outbound", &raw.user_outbound),
        conference_dial_out: read("conference_dial_out", &raw.conference_dial_out),
        toll_free_inbound: read("toll_free_inbound", &raw.toll_free_inbound),
    }
}

fn check_tenant_limits(f: &mut Faults, at: &At<'_>, raw: &RawTenantLimits) -> TenantLimits {
    f.unknown(at, RawTenantLimits::KEYS, &raw.unknown);
    let rate = raw.max_rate_per_minute.as_ref();
    let fee = raw.max_connection_fee.as_ref();
    TenantLimits {
        concurrent_calls: f.optional(
            &at.key("concurrent_calls"),
            raw.concurrent_calls.as_ref(),
            count,
        ),
        calls_per_second: f.optional(
            &at.key("calls_per_second"),
            raw.calls_per_second.as_ref(),
            count,
        ),
        max_rate_per_minute: f.optional(&at.key("max_rate_per_minute"), rate, amount),
        max_connection_fee: f.optional(&at.key("max_connection_fee"), fee, amount),
    }
}

fn check_velocity(f: &mut Faults, at: &At<'_>, raw: &RawSpendVelocity) -> Option<SpendVelocity> {
    f.unknown(at, RawSpendVelocity::KEYS, &raw.unknown);
    let amount = f.required(&at.key("amount"), raw.line, raw.amount.as_ref(), positive_amount);
    let per = f.required(&at.key("per"), raw.line, raw.per.as_ref(), span);
    Some(SpendVelocity { amount: amount?, per: per? })
}

fn check_recharge(f: &mut Faults, at: &At<'_>, raw: &RawAutoRecharge) -> Option<AutoRecharge> {
    f.unknown(at, RawAutoRecharge::KEYS, &raw.unknown);
    let trigger = f.required(&at.key("trigger"), raw.line, raw.trigger.as_ref(), positive_amount);
    let amount = f.required(&at.key("amount"), raw.line, raw.amount.as_ref(), positive_amount);
    let daily_cap = f.optional(&at.key("daily_cap"), raw.daily_cap.as_ref(), positive_amount);
    let on = f.optional(&at.key("recharge_on"), raw.recharge_on.as_ref(), word(RECHARGE_ON));
    let (trigger, amount) = (trigger?, amount?);
    if daily_cap.is_some_and(|cap| cap < amount) {
        let line = raw.daily_cap.as_ref().and_then(|text| text.line);
        let message = "expected at least the amount of one recharge".to_owned();
        f.add(&at.key("daily_cap"), line, message);
    }
    Some(AutoRecharge { trigger, amount, daily_cap, recharge_on: on.unwrap_or_default() })
}

/// Numbers that outlive their records would never be erased.
fn check_retention(f: &mut Faults, at: &At<'_>, raw: &RawRetention) -> Retention {
    f.unknown(at, RawRetention::KEYS, &raw.unknown);
    let numbers = f.optional(&at.key("numbers"), raw.numbers.as_ref(), numbers_kept);
    let records = f.optional(&at.key("records"), raw.records.as_ref(), records_kept);
    if numbers.zip(records).is_some_and(|(numbers, records)| numbers > records) {
        let line = raw.numbers.as_ref().and_then(|text| text.line);
        f.add(&at.key("numbers"), line, "expected at most as long as records".to_owned());
    }
    Retention { numbers, records }
}

/// Charging increments by plan (D1).
fn check_increments(
    f: &mut Faults,
    at: &At<'_>,
    raw: &[(Text, Text)],
) -> BTreeMap<Licence, Seconds> {
    let mut increments = BTreeMap::new();
    for (plan, length) in raw {
        let at = at.key(&plan.value);
        let of = f.optional(&at, Some(plan), plan_with_minutes);
        let increment = f.optional(&at, Some(length), pool_increment);
        increments.extend(of.zip(increment));
    }
    increments
}

fn check_trunks(f: &mut Faults, at: &At<'_>, raw: &[RawTrunk]) -> Vec<Trunk> {
    let mut seen = Seen::new("trunk id");
    let mut trunks = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let at = at.index(index);
        f.unknown(&at, RawTrunk::KEYS, &raw.unknown);
        seen.once(f, &at.key("id"), raw.id.as_ref());
        let id = f.required(&at.key("id"), raw.line, raw.id.as_ref(), id(PayerId::new));
        let emergency_country =
            f.optional(&at.key("emergency_country"), raw.emergency_country.as_ref(), country);
        let responses_at = at.key("responses");
        let mut responses = BTreeMap::new();
        for (name, response) in &raw.responses.0 {
            let at = responses_at.key(&name.value);
            let of = f.optional(&at, Some(name), refusal);
            let response = check_response(f, &at, response, name.line);
            responses.extend(of.zip(response));
        }
        trunks.extend(id.map(|id| Trunk { id, emergency_country, responses }));
    }
    trunks
}

fn check_response(
    f: &mut Faults,
    at: &At<'_>,
    raw: &RawResponse,
    line: Option<u64>,
) -> Option<ResponseOverride> {
    f.unknown(at, RawResponse::KEYS, &raw.unknown);
    if raw.sip_status.is_none() && raw.q850_cause.is_none() {
        f.add(at, line, "expected sip_status, q850_cause or both".to_owned());
        return None;
    }
    Some(ResponseOverride {
        sip_status: f.optional(&at.key("sip_status"), raw.sip_status.as_ref(), sip_status),
        q850_cause: f.optional(&at.key("q850_cause"), raw.q850_cause.as_ref(), q850_cause),
    })
}

fn check_notices(f: &mut Faults, at: &At<'_>, raw: &RawNotices) -> NoticeTargets {
    f.unknown(at, RawNotices::KEYS, &raw.unknown);
    let emails_at = at.key("emails");
    Seen::new("address").once_each(f, &emails_at, &raw.emails);
    if let Some(first_too_many) = raw.emails.get(MAX_EMAILS) {
        let message = format!("expected at most {MAX_EMAILS} addresses");
        f.add(&emails_at.index(MAX_EMAILS), first_too_many.line, message);
    }
    NoticeTargets {
        emails: f.each(&emails_at, &raw.emails, email),
        webhook: f.optional(&at.key("webhook"), raw.webhook.as_ref(), webhook),
    }
}

fn check_purchases(f: &mut Faults, at: &At<'_>, raw: &[RawPurchase]) -> Vec<Purchase> {
    let mut seen = Seen::new("purchase key");
    let mut purchases = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let at = at.index(index);
        seen.once(f, &at.key("key"), raw.key.as_ref());
        purchases.extend(check_purchase(f, &at, raw));
    }
    purchases
}

fn check_purchase(f: &mut Faults, at: &At<'_>, raw: &RawPurchase) -> Option<Purchase> {
    f.unknown(at, RawPurchase::KEYS, &raw.unknown);
    let key = f.required(&at.key("key"), raw.line, raw.key.as_ref(), id(LotId::of_purchase));
    let amount = f.required(&at.key("amount"), raw.line, raw.amount.as_ref(), positive_amount);
    let bought = raw.purchased_at.as_ref();
    let purchased_at = f.required(&at.key("purchased_at"), raw.line, bought, instant);
    let paid_at = at.key("payment");
    f.unknown(&paid_at, RawPayment::KEYS, &raw.payment.unknown);
    let mut payment = BTreeMap::new();
    for (key, value) in
        [("agreement", &raw.payment.agreement), ("purchase_order", &raw.payment.purchase_order)]
    {
        let value = f.optional(&paid_at.key(key), value.as_ref(), text);
        payment.extend(value.map(|value| (key.to_owned(), value)));
    }
    Some(Purchase { key: key?, amount: amount?, purchased_at: purchased_at?, payment })
}

/// Users, service numbers and resource accounts share one space of ids and one of numbers.
fn check_payers(f: &mut Faults, at: &At<'_>, raw: &RawTenant) -> Vec<PayerProfile> {
    let mut ids = Seen::new("id");
    let mut numbers = Seen::new("number");
    let mut payers = Vec::with_capacity(
        raw.users.len() + raw.service_numbers.len() + raw.resource_accounts.len(),
    );
    let list = at.key("users");
    for (index, user) in raw.users.iter().enumerate() {
        let at = list.index(index);
        ids.once(f, &at.key("id"), user.id.as_ref());
        numbers.once_each(f, &at.key("numbers"), &user.numbers);
        payers.extend(check_user(f, &at, user));
    }
    let list = at.key("service_numbers");
    for (index, service) in raw.service_numbers.iter().enumerate() {
        let at = list.index(index);
        ids.once(f, &at.key("id"), service.id.as_ref());
        numbers.once(f, &at.key("e164"), service.e164.as_ref());
        payers.extend(check_service_number(f, &at, service, raw.country.as_ref()));
    }
    let list = at.key("resource_accounts");
    for (index, account) in raw.resource_accounts.iter().enumerate() {
        let at = list.index(index);
        ids.once(f, &at.key("id"), account.id.as_ref());
        numbers.once_each(f, &at.key("numbers"), &account.numbers);
        payers.extend(check_resource_account(f, &at, account));
    }
    payers
}

fn check_user(f: &mut Faults, at: &At<'_>, raw: &RawUser) -> Option<PayerProfile> {
    f.unknown(at, RawUser::KEYS, &raw.unknown);
    let location = raw.usage_location.as_ref();
    let id = f.required(&at.key("id"), raw.line, raw.id.as_ref(), id(PayerId::new));
    let usage_location = f.required(&at.key("usage_location"), raw.line, location, country);
    let state = f.optional(&at.key("state"), raw.state.as_ref(), word(USER_STATES));
    let upn = f.optional(&at.key("upn"), raw.upn.as_ref(), text);
    let display_name = f.optional(&at.key("display_name"), raw.display_name.as_ref(), text);
    let object_id = f.optional(&at.key("object_id"), raw.object_id.as_ref(), text);
    f.optional(&at.key("emergency_address"), raw.emergency_address.as_ref(), text);
    let licences = check_licences(f, &at.key("licences"), &raw.licences);
    if let (Some(location), false) = (usage_location, state == Some(PayerState::Removed)) {
        check_assignment(f, at, &raw.licences, &licences, PayerKind::User, location);
    }
    let numbers = f.each(&at.key("numbers"), &raw.numbers, telephone_number);
    let (user_policy, conference_policy) =
        check_policy(f, &at.key("outbound_policy"), &raw.outbound_policy);
    let spend_limit = f.optional(&at.key("spend_limit"), raw.spend_limit.as_ref(), positive_amount);
    let limits_at = at.key("limits");
    f.unknown(&limits_at, RawUserLimits::KEYS, &raw.limits.unknown);
    let concurrent = raw.limits.concurrent_calls.as_ref();
    let concurrent_calls = f.optional(&limits_at.key("concurrent_calls"), concurrent, count);
    Some(PayerProfile {
        id: id?,
        kind: PayerKind::User,
        state: state.unwrap_or_default(),
        usage_location: usage_location?,
        licences,
        numbers,
        user_policy,
        conference_policy,
        spend_limit,
        concurrent_calls,
        upn: upn.unwrap_or_default(),
        display_name: display_name.unwrap_or_default(),
        object_id: object_id.unwrap_or_default(),
    })
}

fn check_service_number(
    f: &mut Faults,
    at: &At<'_>,
    raw: &RawServiceNumber,
    tenant_country: Option<&Text>,
) -> Option<PayerProfile> {
    f.unknown(at, RawServiceNumber::KEYS, &raw.unknown);
    let number_at = at.key("e164");
    let id = f.required(&at.key("id"), raw.line, raw.id.as_ref(), id(PayerId::new));
    let state = f.optional(&at.key("state"), raw.state.as_ref(), word(OTHER_STATES));
    let kind = f.required(&at.key("kind"), raw.line, raw.kind.as_ref(), word(SERVICE_KINDS));
    let number = f.required(&number_at, raw.line, raw.e164.as_ref(), telephone_number)?;
    // Of a number that no country owns, such as +800, the organisation's country is the nearest.
    let home = tenant_country.and_then(|text| country(&text.value).ok());
    let read = number::read(&number, home.unwrap_or(CountryCode::US));
    let usage_location = read.ok().and_then(|number| number.country).or(home);
    if usage_location.is_none() {
        let message = format!(
            "expected a number of one country, or a country on the tenant, found {number:?}"
        );
        f.add(&number_at, raw.e164.as_ref().and_then(|text| text.line), message);
    }
    Some(PayerProfile {
        id: id?,
        kind: kind?,
        state: state.unwrap_or_default(),
        usage_location: usage_location?,
        licences: Vec::new(),
        numbers: vec![number],
        user_policy: None,
        conference_policy: None,
        spend_limit: None,
        concurrent_calls: None,
        upn: String::new(),
        display_name: String::new(),
        object_id: String::new(),
    })
}

fn check_resource_account(
    f: &mut Faults,
    at: &At<'_>,
    raw: &RawResourceAccount,
) -> Option<PayerProfile> {
    f.unknown(at, RawResourceAccount::KEYS, &raw.unknown);
    let location = raw.usage_location.as_ref();
    let id = f.required(&at.key("id"), raw.line, raw.id.as_ref(), id(PayerId::new));
    let usage_location = f.required(&at.key("usage_location"), raw.line, location, country);
    let state = f.optional(&at.key("state"), raw.state.as_ref(), word(OTHER_STATES));
    let licences = check_licences(f, &at.key("licences"), &raw.licences);
    if let (Some(location), false) = (usage_location, state == Some(PayerState::Removed)) {
        check_assignment(f, at, &raw.licences, &licences, PayerKind::ResourceAccount, location);
    }
    let numbers = f.each(&at.key("numbers"), &raw.numbers, telephone_number);
    Some(PayerProfile {
        id: id?,
        kind: PayerKind::ResourceAccount,
        state: state.unwrap_or_default(),
        usage_location: usage_location?,
        licences,
        numbers,
        user_policy: None,
        conference_policy: None,
        spend_limit: None,
        concurrent_calls: None,
        upn: String::new(),
        display_name: String::new(),
        object_id: String::new(),
    })
}

fn check_licences(f: &mut Faults, at: &At<'_>, raw: &[Text]) -> Vec<Licence> {
    let mut seen = Seen::new("licence");
    seen.once_each(f, at, raw);
    let mut licences = f.each(at, raw, licence);
    licences.sort_unstable();
    licences
}

/// Licences that may not stand as they do, each told at its own place (rules 14, 34, 55, 65, 75).
fn check_assignment(
    f: &mut Faults,
    at: &At<'_>,
    raw: &[Text],
    licences: &[Licence],
    kind: PayerKind,
    usage_location: CountryCode,
) {
    let list = at.key("licences");
    for Misassigned { licence, reason } in misassigned(kind, usage_location, licences) {
        let index = raw.iter().position(|text| text.value == licence.code()).unwrap_or_default();
        f.add(&list.index(index), raw.get(index).and_then(|text| text.line), reason);
    }
}

/// Texts that may occur once, with the place of the first.
struct Seen<'a> {
    what: &'static str,
    first: HashMap<&'a str, String>,
}

impl<'a> Seen<'a> {
    fn new(what: &'static str) -> Self {
        Seen { what, first: HashMap::new() }
    }

    fn once(&mut self, f: &mut Faults, at: &At<'_>, text: Option<&'a Text>) {
        let Some(text) = text.filter(|_| !f.are_enough()) else { return };
        if let Some(first) = self.first.get(text.value.as_str()) {
            let message = format!("{} {:?} is already used by {first}", self.what, text.value);
            f.add(at, text.line, message);
        } else {
            self.first.insert(&text.value, at.to_string());
        }
    }

    fn once_each(&mut self, f: &mut Faults, at: &At<'_>, texts: &'a [Text]) {
        for (index, text) in texts.iter().enumerate() {
            self.once(f, &at.index(index), Some(text));
        }
    }
}

/// What is allowed but probably not meant, and what this version does not act on yet.
fn warnings(payers: &[PayerProfile]) -> Vec<String> {
    let mut warnings = vec![];
    let mut more = 0;
    for payer in payers.iter().filter(|payer| payer.state != PayerState::Removed) {
        for warning in payer_warnings(payer) {
            if warnings.len() < MAX_LISTED {
                warnings.push(warning);
            } else {
                more += 1;
            }
        }
    }
    if more > 0 {
        warnings.push(format!("and {more} more"));
    }
    warnings
}

/// Rule 78: a user with a calling plan and a number needs an emergency address. One warning for all.
fn without_address(raw: &[RawUser], payers: &[PayerProfile]) -> Option<String> {
    /// Users that the warning names.
    const NAMED: usize = 5;
    let given = raw.iter().filter(|user| user.emergency_address.is_some());
    let given: HashSet<&str> =
        given.filter_map(|user| Some(user.id.as_ref()?.value.as_str())).collect();
    let without = payers.iter().filter(|payer| {
        payer.kind == PayerKind::User
            && payer.state != PayerState::Removed
            && calling_plan(payer).is_some()
            && !payer.numbers.is_empty()
            && !given.contains(payer.id.as_str())
    });
    let without: Vec<&str> = without.map(|payer| payer.id.as_str()).collect();
    let mut named = without.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if let more @ 1.. = without.len().saturating_sub(NAMED) {
        named += &format!(" and {more} more");
    }
    let warning = format!("users with a number but no emergency_address (rule 78): {named}");
    (!without.is_empty()).then_some(warning)
}

/// The code of a licence that is for calling out, where there is one.
fn calling_plan(payer: &PayerProfile) -> Option<&'static str> {
    payer.licences.iter().map(|licence| licence.code()).find(|code| {
        matches!(
            *code,
            "MCOPSTN1"
                | "MCOPSTN2"
                | "MCOPSTN5"
                | "MCOPSTN6"
                | "MCOPSTN8"
                | "MCOPSTN9"
                | "MCOPSTN_PAYG_1"
                | "MCOPSTN_PAYG_2"
        )
    })
}

/// Rule 78: a calling plan is of no use without a number.
fn payer_warnings(payer: &PayerProfile) -> Vec<String> {
    let mut warnings = Vec::new();
    let plan = calling_plan(payer);
    if let (PayerKind::User, Some(plan), []) = (payer.kind, plan, payer.numbers.as_slice()) {
        warnings.push(format!("user {} holds {plan} but has no number", payer.id));
    }
    let pay_as_you_go = [Licence::PayAsYouGo1, Licence::PayAsYouGo2];
    if let Some(licence) = payer.licences.iter().find(|licence| pay_as_you_go.contains(licence))
        && !has_pay_as_you_go(payer)
    {
        let (id, location) = (&payer.id, payer.usage_location);
        warnings.push(format!("{licence} of {id} opens nothing in {location} (rule 13)"));
    }
    warnings
}
