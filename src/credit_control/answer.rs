//! From a call as the ledger keeps it to what a client is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::charging::decision::{Decision, Response, sip_phrase};
use crate::charging::entitlement::{CallType, Classification, Step};
use crate::charging::ids::LotId;
use crate::charging::profile::TenantProfile;
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::state::{Call, nuance_of};

/// What travels with a call through the ledger, unread: what answers and records repeat.
///
/// It is stored with a call and with each of its entries, and each byte is paid for in Redis several times a
/// request: so names are a letter each, and inner values arrays. Whole names are read too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// Names the decision.
    #[serde(rename = "d", alias = "decision_id")]
    pub decision_id: String,
    /// What the client asked for.
    #[serde(rename = "t", alias = "call_type")]
    pub call_type: CallType,
    /// As presented; may be empty.
    #[serde(
        rename = "f",
        alias = "calling_number",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub calling_number: String,
    /// As dialled.
    #[serde(
        rename = "n",
        alias = "called_number",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub called_number: String,
    /// As dialled before the SBC rewrote it.
    #[serde(
        rename = "o",
        alias = "original_called_number",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub original_called_number: String,
    /// The called number, as far as it was classified.
    #[serde(
        rename = "k",
        alias = "classification",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "classification_in_order"
    )]
    pub classification: Option<Classification>,
    /// Destination of the deck's row.
    #[serde(
        rename = "l",
        alias = "destination",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub destination: String,
    /// Version of the deck that was looked at.
    #[serde(
        rename = "v",
        alias = "deck_version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub deck_version: String,
    /// At which money pays, frozen; `None` where it may not pay.
    #[serde(
        rename = "p",
        alias = "tariff",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "tariff_in_order"
    )]
    pub tariff: Option<Tariff>,
    /// ISO 4217 code of the tenant.
    #[serde(rename = "c", alias = "currency", default, skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// For the operator: why it was refused, or could not be paid with money.
    #[serde(rename = "x", alias = "detail", default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// For the client.
    #[serde(rename = "w", alias = "warnings", default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// For whoever reads the record.
    #[serde(rename = "g", alias = "flags", default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// How the call came about; empty for a direct one.
    #[serde(rename = "r", alias = "origin", default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Who had it made.
    #[serde(
        rename = "b",
        alias = "on_behalf_of",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub on_behalf_of: String,
    /// The conference.
    #[serde(
        rename = "m",
        alias = "conference_id",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub conference_id: String,
    /// The SIP Call-ID.
    #[serde(
        rename = "s",
        alias = "sip_call_id",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub sip_call_id: String,
    /// The client's own.
    #[serde(rename = "a", alias = "labels", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The fields in order, as reading takes them beside names.
fn classification_in_order<S: Serializer>(
    value: &Option<Classification>,
    to: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|c| (&c.class, &c.country, &c.number_type, &c.e164)).serialize(to)
}

/// Likewise.
fn tariff_in_order<S: Serializer>(value: &Option<Tariff>, to: S) -> Result<S::Ok, S::Error> {
    let fields =
        |t: Tariff| (t.rate_per_minute, t.connection_fee, t.initial_increment, t.increment);
    value.map(fields).serialize(to)
}

impl CallContext {
    /// As the ledger keeps it.
    pub fn encode(&self) -> Vec<u8> {
        // Most are shorter: it need not grow.
        let mut bytes = Vec::with_capacity(256);
        // Only a map key that is no text, or a writer that fails, could make this fail.
        match rmp_serde::encode::write_named(&mut bytes, self) {
            Ok(()) => bytes,
            Err(_) => vec![],
        }
    }

    /// Of a call that was authorized; `None` where there is none, or it was written by another release
    /// in a way that cannot be read.
    pub fn decode(bytes: &[u8]) -> Option<CallContext> {
        rmp_serde::from_slice(bytes).ok()
    }
}

/// What a client reports with the end of a call, unread by the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReport {
    /// Q.850 cause; 0 where none was given.
    #[serde(default)]
    pub q850_cause: u32,
    /// When the client says it was answered.
    #[serde(default)]
    pub answered_at: Option<Millis>,
    /// When the client says it ended.
    #[serde(default)]
    pub ended_at: Option<Millis>,
    /// The client's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Why the client's token was not believed; empty where it was not needed, or was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token_fault: String,
    /// The operator who ended it; empty where nobody did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ended_by: String,
    /// Why the operator ended it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The trunk of a call that an operator ended, whose switch is to be told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trunk: String,
}

impl EndReport {
    /// As the ledger keeps it.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Of an end that a client reported; says nothing where none did, or it cannot be read.
    pub fn decode(bytes: &[u8]) -> EndReport {
        rmp_serde::from_slice(bytes).unwrap_or_default()
    }
}

/// What travels with a correction through the ledger, unread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentReport {
    /// The correction's key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub operator: String,
    /// Of a settled call: its usage before.
    #[serde(default)]
    pub used_before: Seconds,
    /// Of a settled call: the money that it was charged before.
    #[serde(default)]
    pub money_before: Micros,
    /// Of a settled call: the bucket that paid for its last part before, as postings name it; may be empty.
    #[serde(default)]
    pub paid_by: String,
}

impl AdjustmentReport {
    /// As the ledger keeps it.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Of a correction; says nothing where it cannot be read.
    pub fn decode(bytes: &[u8]) -> AdjustmentReport {
        rmp_serde::from_slice(bytes).unwrap_or_default()
    }
}

/// Which kind of source a funding line draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FundingSource {
    /// Nothing to pay.
    Free,
    /// Plan minutes.
    Pool,
    /// The wallet.
    Credits,
    /// Post-paid (rule 42).
    Overage,
}

impl FundingSource {
    /// Of a lot.
    pub fn of_lot(lot: &LotId) -> FundingSource {
        if lot.is_overage() { FundingSource::Overage } else { FundingSource::Credits }
    }
}

/// A part of a grant or of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingLine {
    /// Which kind of source.
    pub source: FundingSource,
    /// The pool or the lot; empty for free.
    pub bucket: String,
    /// Billed length that the line pays for. Of several lots, the first one carries the length of all.
    pub duration: Seconds,
    /// Money that the line holds or charges; zero for pools.
    pub money: Micros,
    /// Price of a minute; zero for pools.
    pub rate_per_minute: Micros,
    /// When the hold lapses; zero once charged.
    pub expires_at: Millis,
}

/// Permission to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Hard stop, from answer, cumulative.
    pub granted: Seconds,
    /// When to extend, from answer.
    pub refresh_after: Seconds,
    /// How long the called party may ring.
    pub ringing_timeout: Seconds,
    /// How long the hold lives from now without a further message.
    pub hold_timeout: Seconds,
    /// No more funds are to be had.
    pub final_grant: bool,
    /// Whether the talking parties may be told before the end.
    pub announce: bool,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Equal to the decision.
    pub reason: Decision,
    /// What the SIP side is told.
    pub response: Response,
    /// When a new call may do better; zero where time alone changes nothing.
    pub retry_after: Seconds,
    /// For the operator, never for the caller.
    pub detail: String,
}

/// The answer to an authorize, an extension, a reported answer or a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was decided.
    pub decision: Decision,
    /// Repeats an earlier answer.
    pub replayed: bool,
    /// Present when allowed.
    pub grant: Option<Grant>,
    /// Present when not.
    pub denial: Option<Denial>,
    /// The called number, as far as it was classified.
    pub classification: Option<Classification>,
    /// Who pays.
    pub funding: Vec<FundingLine>,
    /// Names the decision.
    pub decision_id: String,
    /// Version of the deck that was looked at; empty where none was.
    pub deck_version: String,
    /// ISO 4217 code; empty where the tenant is unknown.
    pub currency: String,
    /// For the client.
    pub warnings: Vec<String>,
    /// Of a quote: every check, in order.
    pub steps: Vec<Step>,
    /// The grant, signed; empty where there is none, or nothing to sign it with.
    pub token: String,
}

/// The answer to a settle or release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What became of the call.
    pub result: crate::ledger::EndResult,
    /// Repeats an earlier answer.
    pub replayed: bool,
    /// Billed length, by pools and money.
    pub charged_duration: Seconds,
    /// Money charged.
    pub charged_money: Micros,
    /// Who paid.
    pub funding: Vec<FundingLine>,
    /// Usage that nothing paid for.
    pub shortfall_duration: Seconds,
    /// Its price.
    pub shortfall_money: Micros,
    /// Usage that counts.
    pub recorded_duration: Seconds,
    /// ISO 4217 code.
    pub currency: String,
}

impl Answer {
    /// A decision with what was said about its call, and nothing granted or refused yet.
    fn new(decision: Decision, context: Option<CallContext>) -> Answer {
        let mut answer = Answer {
            decision,
            replayed: false,
            grant: None,
            denial: None,
            classification: None,
            funding: vec![],
            decision_id: String::new(),
            deck_version: String::new(),
            currency: String::new(),
            warnings: vec![],
            steps: vec![],
            token: String::new(),
        };
        if let Some(context) = context {
            answer.classification = context.classification;
            answer.decision_id = context.decision_id;
            answer.deck_version = context.deck_version;
            answer.currency = context.currency;
            answer.warnings = context.warnings;
        }
        answer
    }

    /// A refusal with nothing known but its reason.
    pub fn refused(denial: Denial, context: Option<CallContext>) -> Answer {
        let decision = denial.reason;
        Answer { denial: Some(denial), ..Answer::new(decision, context) }
    }

    /// What a call that is denied, ringing or answered stands at.
    pub fn of(call: &Call, tenant: Option<&TenantProfile>, now: Millis, replayed: bool) -> Answer {
        let context = CallContext::decode(&call.context);
        Answer::with(call, context, tenant, now, replayed)
    }

    /// The same of a call whose context is at hand.
    pub fn with(
        call: &Call,
        context: Option<CallContext>,
        tenant: Option<&TenantProfile>,
        now: Millis,
        replayed: bool,
    ) -> Answer {
        let decision = call.decision.unwrap_or(Decision::CallAlreadyEnded);
        if !decision.allowed() {
            let detail = detail(decision, context.as_ref());
            let nuance = nuance_of(call.nuance);
            let denial = denial(decision, nuance, detail, trunk(tenant, &call.trunk));
            return Answer { replayed, ..Answer::refused(denial, context) };
        }
        let inbound = context.as_ref().is_some_and(|context| {
            !matches!(context.call_type, CallType::UserOutbound | CallType::ConferenceDialOut)
        });
        let last = call.granted.minus_or_zero(call.granted_from);
        let wait = Seconds(last.0 * 4 / 5).min(last.minus_or_zero(Seconds(15)));
        let grant = Grant {
            granted: call.granted,
            // Usage may overshoot a hard stop; nothing is asked for after it.
            refresh_after: (call.granted_from + wait).min(call.granted),
            ringing_timeout: call.terms.ringing,
            hold_timeout: call.deadline.seconds_since(now),
            final_grant: call.final_grant(),
            announce: call.final_grant() && !inbound,
        };
        let funding = funding_held(call);
        Answer { replayed, grant: Some(grant), funding, ..Answer::new(decision, context) }
    }
}

/// The parts of what a call holds and has been charged, in funding order.
pub fn funding_held(call: &Call) -> Vec<FundingLine> {
    let pools = call.pools.iter().map(|line| (line.pool.as_str(), line.held + line.spent));
    let lots = call
        .money
        .iter()
        .flat_map(|money| money.lots.iter().map(|lot| (&lot.lot, lot.held + lot.spent)));
    let pool_seconds: Seconds = call.pools.iter().map(|line| line.held + line.spent).sum();
    let by_money = call.granted.minus_or_zero(pool_seconds);
    lines(call, pools, lots, by_money, call.deadline)
}

/// The parts of what a call was charged, in funding order.
pub fn funding_charged(call: &Call) -> Vec<FundingLine> {
    let pools = call.pools.iter().map(|line| (line.pool.as_str(), line.spent));
    let lots =
        call.money.iter().flat_map(|money| money.lots.iter().map(|lot| (&lot.lot, lot.spent)));
    lines(call, pools, lots, call.money_duration, Millis::ZERO)
}

fn lines<'a>(
    call: &Call,
    pools: impl Iterator<Item = (&'a str, Seconds)>,
    lots: impl Iterator<Item = (&'a LotId, Micros)>,
    by_money: Seconds,
    expires_at: Millis,
) -> Vec<FundingLine> {
    let line = |source, bucket: &str, duration, money, rate_per_minute| FundingLine {
        source,
        bucket: bucket.to_owned(),
        duration,
        money,
        rate_per_minute,
        expires_at,
    };
    let zero = Micros::ZERO;
    if call.terms.free {
        let talked = if call.state.is_open() { call.granted } else { call.charged_usage() };
        return vec![line(FundingSource::Free, "", talked, zero, zero)];
    }
    let mut lines: Vec<FundingLine> = pools
        .filter(|(_, seconds)| seconds.is_positive())
        .map(|(pool, seconds)| line(FundingSource::Pool, pool, seconds, zero, zero))
        .collect();
    let Some(money) = &call.money else { return lines };
    let rate = money.tariff.rate_per_minute;
    let mut duration = by_money;
    for (lot, amount) in lots.filter(|(_, amount)| amount.is_positive()) {
        lines.push(line(FundingSource::of_lot(lot), lot.as_str(), duration, amount, rate));
        duration = Seconds::ZERO;
    }
    if duration.is_positive() && rate == zero {
        lines.push(line(FundingSource::Credits, "", duration, zero, rate));
    }
    lines
}

/// What the SIP side is told, with the trunk's own answers where it has any.
pub fn denial(
    reason: Decision,
    nuance: crate::charging::decision::Nuance,
    detail: String,
    trunk: Option<&crate::charging::profile::Trunk>,
) -> Denial {
    let mut response = reason.response(nuance).unwrap_or(Response {
        sip_status: 403,
        sip_phrase: "Forbidden",
        q850_cause: Some(21),
        reroute_allowed: false,
    });
    if let Some(own) = trunk.and_then(|trunk| trunk.responses.get(&reason)) {
        if let Some(status) = own.sip_status {
            response.sip_status = status;
            response.sip_phrase = sip_phrase(status);
        }
        response.q850_cause = own.q850_cause.or(response.q850_cause);
    }
    let retry_after = match reason {
        Decision::RateLimited | Decision::LedgerUnavailable => Seconds(1),
        Decision::ConcurrencyLimit => Seconds(5),
        _ => Seconds::ZERO,
    };
    Denial { reason, response, retry_after, detail }
}

/// The trunk of that name, if the tenant has it.
pub fn trunk<'a>(
    tenant: Option<&'a TenantProfile>,
    id: &str,
) -> Option<&'a crate::charging::profile::Trunk> {
    tenant.and_then(|tenant| tenant.trunk(id))
}

/// A refusal in a sentence for the operator; empty if allowed, except that an emergency call of nobody
/// known says there who it claimed to be.
pub fn detail(decision: Decision, context: Option<&CallContext>) -> String {
    let found = context.map_or("", |context| context.detail.as_str());
    match decision {
        Decision::AllowedEmergency => found.to_owned(),
        _ if decision.allowed() => String::new(),
        // What is found of such a call is why credits cannot pay.
        Decision::PoolExhausted if !found.is_empty() => {
            format!("the plan minutes are used up; {found}")
        }
        _ if !found.is_empty() => found.to_owned(),
        // A block has said whose.
        Decision::FraudSuspected => SPEND_VELOCITY.to_owned(),
        _ => explain(decision).to_owned(),
    }
}

const SPEND_VELOCITY: &str = "the tenant's spend velocity is used up: its calls have committed as much \
    money as they may in so short a time";

/// A refusal in a sentence, where the decision found no better one.
pub fn explain(decision: Decision) -> &'static str {
    match decision {
        Decision::KeyConflict => "this call_id was used with other numbers, payer or duration",
        Decision::CallAlreadyEnded => "the call of this call_id is over",
        Decision::NumberInvalid => "the called number cannot be read",
        Decision::PayerUnknown => "no such tenant or payer",
        Decision::TenantSuspended => "the tenant is suspended",
        Decision::FraudSuspected => "the payer is blocked",
        Decision::PolicyDenied => "the outbound policy forbids the call",
        Decision::DestinationBlocked => "the destination may not be called",
        Decision::NotEntitled => "the payer holds no licence for this type of call",
        Decision::RateLimited => "the tenant's calls per second are used up",
        Decision::ConcurrencyLimit => "too many calls at a time",
        Decision::PoolExhausted => {
            "the plan minutes are used up; the credits, or the payer's spend limit, do not cover the \
             connection fee and the first increment"
        }
        Decision::CreditsNotLicensed => "the payer holds no Communications Credits licence",
        Decision::DestinationUnrated => "the deck has no price for the number",
        Decision::PriceAboveLimit => "the price is above the tenant's limit",
        Decision::SpendLimitReached => "the payer's spend limit for the month is reached",
        Decision::InsufficientCredits => {
            "the credits do not cover the connection fee and the first increment"
        }
        Decision::TollFreeUnfunded => {
            "the credits, or the tenant's spend velocity, do not cover a call to the toll-free number"
        }
        Decision::LedgerUnavailable => "the ledger is out of reach",
        Decision::AllowedEmergency
        | Decision::Allowed
        | Decision::AllowedFree
        | Decision::AllowedDegraded => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::entitlement::CallClass;

    /// A context as an earlier release wrote it: without the fields that came later.
    #[derive(Serialize)]
    struct Earlier {
        decision_id: &'static str,
        call_type: CallType,
        called_number: &'static str,
        classification: Option<Classification>,
        tariff: Option<Tariff>,
    }

    #[test]
    fn a_context_of_an_earlier_release_can_still_be_read() {
        let classification = Classification {
            class: CallClass::Domestic,
            country: None,
            number_type: None,
            e164: "+12065550100".to_owned(),
        };
        let tariff = Tariff {
            rate_per_minute: Micros(100_000),
            connection_fee: Micros(50_000),
            initial_increment: Seconds(60),
            increment: Seconds(60),
        };
        let earlier = Earlier {
            decision_id: "d",
            call_type: CallType::UserOutbound,
            called_number: "2065550100",
            classification: Some(classification.clone()),
            tariff: Some(tariff),
        };
        let named = rmp_serde::to_vec_named(&earlier).expect("MessagePack");
        let context = CallContext::decode(&named).expect("a context");
        assert_eq!(context.decision_id, "d");
        assert_eq!(context.called_number, "2065550100");
        assert_eq!(context.classification, Some(classification));
        assert_eq!(context.tariff, Some(tariff));
        let stored = context.encode();
        assert!(2 * stored.len() < named.len(), "{} of {}", stored.len(), named.len());
        assert_eq!(CallContext::decode(&stored), Some(context));
    }

    #[test]
    fn a_report_that_nobody_made_says_nothing() {
        assert_eq!(EndReport::decode(b""), EndReport::default());
        assert_eq!(EndReport::decode(b"bye"), EndReport::default());
        let report = EndReport { ended_at: Some(Millis(7)), ..EndReport::default() };
        assert_eq!(EndReport::decode(&report.encode()), report);
    }

    #[test]
    fn a_refusal_says_why_and_a_permission_says_nothing() {
        let context = |detail: &str| CallContext {
            decision_id: String::new(),
            call_type: CallType::UserOutbound,
            calling_number: String::new(),
            called_number: String::new(),
            original_called_number: String::new(),
            classification: None,
            destination: String::new(),
            deck_version: String::new(),
            tariff: None,
            currency: String::new(),
            detail: detail.to_owned(),
            warnings: vec![],
            flags: vec![],
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            labels: Default::default(),
        };
        let unlicensed = "alice holds no Communications Credits licence";
        let found = context(unlicensed);
        assert_eq!(detail(Decision::Allowed, Some(&found)), "");
        assert_eq!(detail(Decision::CreditsNotLicensed, Some(&found)), unlicensed);
        let exhausted = format!("the plan minutes are used up; {unlicensed}");
        assert_eq!(detail(Decision::PoolExhausted, Some(&found)), exhausted);
        for nothing in [None, Some(&context(""))] {
            let expected = explain(Decision::PoolExhausted);
            assert_eq!(detail(Decision::PoolExhausted, nothing), expected);
        }
    }
}
