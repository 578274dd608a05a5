//! Usage records: one for each settled leg and each refusal, with the twenty columns of rule 82.
//!
//! Made from the journal alone, in its order, and from what is set up for the payer and the tenant now.
//! [`export`] reads a window of a tenant's journal, [`csv`] and [`xlsx`] write files. Nothing here knows
//! gRPC or a particular ledger.
//!
//! - A call is one record, written when it is charged: settled, expired with proven usage or as granted,
//!   or settled late. What is charged to a call that was charged before (an expiry that was reopened, or
//!   settled after all) is a record of its own, of the difference, with a usage id of its own: sums stay
//!   right and no record ever changes. It is below zero where an expiry had charged more than was used.
//! - A correction of a settled call is a record of the difference, too, as a credit note is: below zero
//!   where less was used than was charged. A correction of a balance is no usage, and has none.
//! - A refusal is a record of no duration, no charge and no capability. A call that was never answered has
//!   none, nor has usage without a grant, which is charged to nobody.
//! - The capability names what paid. A call that crossed from minutes to credits is one record: its
//!   capability is that of the credits, so that the charges of one capability sum up to what it cost.

pub mod cdr;
pub mod csv;
pub mod export;
pub mod reconcile;
pub mod xlsx;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::charging::catalogue::{self, CountryCode, Licence};
use crate::charging::decision::Decision;
use crate::charging::entitlement::{CallClass, CallType};
use crate::charging::ids::names_lease;
use crate::charging::number;
use crate::charging::plans::Family;
use crate::charging::profile::{PayerKind, PayerProfile, TenantProfile};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::{AdjustmentReport, CallContext, EndReport};
use crate::ledger::state::{Entry, EntryKind};

/// Capability of a call that could not be priced when it ended (rule 40, D28).
const FREECALL: &str = "FREECALL";

/// The columns of an export, in the order of rule 82.
pub const COLUMNS: [&str; 20] = [
    "UsageId",
    "Call ID",
    "Conference ID",
    "User Location",
    "AAD ObjectId",
    "UPN",
    "User Display Name",
    "Caller ID",
    "Call Type",
    "Number Type",
    "Domestic/International",
    "Destination Dialed",
    "Destination Number",
    "Start Time",
    "End Time",
    "Duration Seconds",
    "Connection Fee",
    "Charge",
    "Currency",
    "Capability",
];

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Names the record, and no other: the tenant and the place of its entry in the journal.
    pub usage_id: String,
    /// The call leg, as the client named it; not unique (rule 83).
    pub call_id: String,
    /// May be empty.
    pub conference_id: String,
    /// Usage location of the payer; empty where the payer is unknown.
    pub user_location: String,
    /// Directory object id of the user; empty for bots (rule 84).
    pub object_id: String,
    /// User principal name: of a conference's call, the organiser's (rule 89); empty for bots.
    pub upn: String,
    /// Empty for bots.
    pub display_name: String,
    /// The caller's number in E.164, else as presented; masked where it is the outside one (rule 86).
    pub caller_id: String,
    /// See rule 87; empty where it cannot be told.
    pub call_type: String,
    /// The payer's kind of number: `Subscriber`, `Service` or `TollFree`.
    pub number_type: String,
    /// `Domestic` or `International`, seen from the payer; empty where it cannot be told.
    pub reach: String,
    /// Country that was called; empty where it cannot be told.
    pub destination: String,
    /// The called number in E.164, else as dialled; masked where it is the outside one (rule 86).
    pub destination_number: String,
    /// When it was answered, as far as the client said; else the end less the duration. Of a
    /// correction: when it was made.
    pub start: Millis,
    /// When it ended, as far as the client said; else when the ledger was told, also of a correction.
    pub end: Millis,
    /// Used, not rounded up to what was billed; below zero where a correction lowers it.
    pub duration: Seconds,
    /// The part of the charge that is the connection fee.
    pub connection_fee: Micros,
    /// Money charged; below zero where a correction gives it back.
    pub charge: Micros,
    /// ISO 4217 code of the tenant.
    pub currency: String,
    /// What paid, by its licence code (rule 88); empty for a refusal.
    pub capability: String,
    /// What was decided; no column, but what tells a refusal's reason.
    pub decision: Option<Decision>,
    /// SIP Call-ID, as the client named it; may be empty. No column.
    pub sip_call_id: String,
}

/// One value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// As it is.
    Text(&'a str),
    /// An instant, written in UTC.
    Instant(Millis),
    /// A length of time.
    Length(Seconds),
    /// Money.
    Amount(Micros),
}

impl UsageRecord {
    /// The values of [`COLUMNS`].
    pub fn cells(&self) -> [Cell<'_>; 20] {
        [
            Cell::Text(&self.usage_id),
            Cell::Text(&self.call_id),
            Cell::Text(&self.conference_id),
            Cell::Text(&self.user_location),
            Cell::Text(&self.object_id),
            Cell::Text(&self.upn),
            Cell::Text(&self.display_name),
            Cell::Text(&self.caller_id),
            Cell::Text(&self.call_type),
            Cell::Text(&self.number_type),
            Cell::Text(&self.reach),
            Cell::Text(&self.destination),
            Cell::Text(&self.destination_number),
            Cell::Instant(self.start),
            Cell::Instant(self.end),
            Cell::Length(self.duration),
            Cell::Amount(self.connection_fee),
            Cell::Amount(self.charge),
            Cell::Text(&self.currency),
            Cell::Text(&self.capability),
        ]
    }
}

/// ISO 8601 in UTC, cut to seconds; empty where no calendar reaches.
pub fn instant(at: Millis) -> String {
    let seconds = Timestamp::from_second(at.0.div_euclid(1000));
    seconds.map(|instant| instant.to_string()).unwrap_or_default()
}

/// Makes the records of one tenant from its journal, oldest entry first.
pub struct Recorder {
    tenant: String,
    currency: String,
    masked_digits: u8,
    /// How long after an expiry a call may still be settled or go on.
    retention: Seconds,
    /// Calls that were charged when they expired, in case more is charged to them.
    charged: HashMap<String, Charged>,
    /// At how many of them those that nobody can settle any more are forgotten.
    crowded: usize,
}

/// What an expired call was charged for.
#[derive(Clone, Copy, Debug, Default)]
struct Charged {
    used: Seconds,
    money: Micros,
    at: Millis,
    /// Went on after that: it may end at any time.
    reopened: bool,
}

impl Recorder {
    /// Of a tenant as it is now, whose ended calls are kept so long.
    pub fn new(tenant: &TenantProfile, retention: Seconds) -> Recorder {
        let country = tenant.country.and_then(catalogue::country);
        Recorder {
            tenant: tenant.id.as_str().to_owned(),
            currency: tenant.currency.clone(),
            masked_digits: country.map_or(0, |country| country.masked_digits),
            retention,
            charged: HashMap::new(),
            crowded: 1024,
        }
    }

    /// Whether [`Recorder::record`] can make a record of such an entry.
    pub fn is_recorded(kind: EntryKind) -> bool {
        use EntryKind::{
            Adjusted, Expired, ExpiredAsGranted, Refused, Reopened, Settled, SettledLate,
        };
        matches!(
            kind,
            Refused | Settled | SettledLate | Expired | ExpiredAsGranted | Reopened | Adjusted
        )
    }

    /// The record that an entry makes, if it makes one. Every entry must be shown, in order: what is
    /// charged late is told apart from what was charged before.
    pub fn record(
        &mut self,
        cursor: &str,
        entry: &Entry,
        payer: Option<&PayerProfile>,
    ) -> Option<UsageRecord> {
        if names_lease(&entry.subject) {
            return None;
        }
        let before = match entry.kind {
            EntryKind::Refused => None,
            EntryKind::Authorized | EntryKind::Restored => {
                // A name that is used again is another call.
                self.charged.remove(&entry.subject);
                return None;
            }
            EntryKind::Reopened => {
                let known = self.charged.get_mut(&entry.subject)?;
                let before = *known;
                known.reopened = true;
                if entry.used >= before.used {
                    return None;
                }
                known.used = entry.used;
                known.money += paid(entry).1;
                Some(before)
            }
            EntryKind::Expired if !entry.used.is_positive() => return None,
            EntryKind::Expired | EntryKind::ExpiredAsGranted => self.expire(entry),
            EntryKind::Settled | EntryKind::SettledLate => self.charged.remove(&entry.subject),
            EntryKind::Adjusted if entry.is_of_call() => {
                return Some(Leg::corrected(entry, payer).record(cursor, self));
            }
            _ => return None,
        };
        let leg = Leg::of(entry, before.unwrap_or_default(), payer);
        let nothing_more = leg.duration == Seconds::ZERO && leg.charge == Micros::ZERO;
        if before.is_some() && nothing_more {
            return None;
        }
        Some(leg.record(cursor, self))
    }

    /// Notes what an expired call was charged for by now; what it had been charged for before.
    fn expire(&mut self, entry: &Entry) -> Option<Charged> {
        if self.charged.len() >= self.crowded {
            let (now, retention) = (entry.at, self.retention);
            self.charged.retain(|_, old| old.reopened || old.at.after(retention) > now);
            self.crowded = 1024.max(self.charged.len() * 2);
        }
        let before = self.charged.get(&entry.subject).copied();
        let money = before.unwrap_or_default().money + paid(entry).1;
        let now = Charged { used: entry.charged_usage(), money, at: entry.at, reopened: false };
        self.charged.insert(entry.subject.clone(), now);
        before
    }
}

/// Seconds that pools paid for at an entry, and money.
fn paid(entry: &Entry) -> (Seconds, Micros) {
    let mut paid = (Seconds::ZERO, Micros::ZERO);
    for posting in &entry.postings {
        match posting.bucket.starts_with("p:") {
            true => paid.0 += Seconds(posting.spent),
            false => paid.1 += Micros(posting.spent),
        }
    }
    paid
}

/// An entry with everything that a record is made of.
struct Leg<'a> {
    entry: &'a Entry,
    payer: Option<&'a PayerProfile>,
    context: Option<CallContext>,
    report: EndReport,
    duration: Seconds,
    /// Seconds that pools paid for.
    minutes: Seconds,
    charge: Micros,
    /// Money that it was charged before.
    money_before: Micros,
    /// What was said about a correction.
    correction: Option<AdjustmentReport>,
}

impl<'a> Leg<'a> {
    fn of(entry: &'a Entry, before: Charged, payer: Option<&'a PayerProfile>) -> Leg<'a> {
        let (minutes, charge) = paid(entry);
        let refused = entry.kind == EntryKind::Refused;
        let duration = if refused { Seconds::ZERO } else { entry.charged_usage() - before.used };
        Leg {
            entry,
            payer,
            context: CallContext::decode(&entry.context),
            report: EndReport::decode(&entry.report),
            duration,
            minutes,
            charge,
            money_before: before.money,
            correction: None,
        }
    }

    /// The difference that a correction of a settled call makes.
    fn corrected(entry: &'a Entry, payer: Option<&'a PayerProfile>) -> Leg<'a> {
        let correction = AdjustmentReport::decode(&entry.report);
        Leg {
            duration: entry.used - correction.used_before,
            report: EndReport::default(),
            money_before: correction.money_before,
            correction: Some(correction),
            ..Leg::of(entry, Charged::default(), payer)
        }
    }

    fn record(self, cursor: &str, of: &Recorder) -> UsageRecord {
        let call_type = self.call_type();
        let (start, end) = self.times();
        let (caller_id, destination_number) = self.numbers(of.masked_digits);
        let text = |of: &str| of.to_owned();
        let user = self.payer.filter(|payer| payer.kind == PayerKind::User);
        let location = self.payer.map(|payer| payer.usage_location);
        UsageRecord {
            usage_id: format!("{}/{cursor}", of.tenant),
            call_id: self.entry.subject.clone(),
            conference_id: self.context.as_ref().map_or("", |c| &c.conference_id).to_owned(),
            user_location: location.as_ref().map_or("", CountryCode::as_str).to_owned(),
            object_id: user.map_or("", |user| &user.object_id).to_owned(),
            upn: user.map_or("", |user| &user.upn).to_owned(),
            display_name: user.map_or("", |user| &user.display_name).to_owned(),
            caller_id,
            call_type: text(call_type),
            number_type: text(self.number_type()),
            reach: text(self.reach()),
            destination: text(self.called_country().map_or("", |country| &country.name)),
            destination_number,
            start,
            end,
            duration: self.duration,
            connection_fee: self.connection_fee(),
            charge: self.charge,
            currency: of.currency.clone(),
            capability: text(self.capability()),
            decision: self.entry.decision,
            sip_call_id: self.context.as_ref().map_or("", |c| &c.sip_call_id).to_owned(),
        }
    }

    /// Rule 87.
    fn call_type(&self) -> &'static str {
        let Some(context) = &self.context else { return "" };
        call_type(
            context.call_type,
            &context.origin,
            self.payer.map(|payer| payer.kind),
            !context.conference_id.is_empty(),
        )
    }

    fn number_type(&self) -> &'static str {
        match self.payer.map(|payer| payer.kind) {
            None => "",
            Some(PayerKind::User) => "Subscriber",
            Some(PayerKind::TollFreeNumber) => "TollFree",
            Some(PayerKind::TollNumber | PayerKind::ResourceAccount) => "Service",
        }
    }

    fn class(&self) -> Option<CallClass> {
        self.context.as_ref()?.classification.as_ref().map(|found| found.class)
    }

    fn is_inbound(&self) -> bool {
        let call_type = self.context.as_ref().map(|context| context.call_type);
        use CallType::{ConferenceDialIn, TollFreeInbound, UserInbound};
        matches!(call_type, Some(ConferenceDialIn | TollFreeInbound | UserInbound))
    }

    fn called_country(&self) -> Option<&'static catalogue::Country> {
        let context = self.context.as_ref()?;
        let country = match self.is_inbound() {
            true => number::read(&context.called_number, self.home()).ok()?.country,
            false => context.classification.as_ref()?.country,
        };
        country.and_then(catalogue::country)
    }

    fn home(&self) -> CountryCode {
        self.payer.map_or(CountryCode::US, |payer| payer.usage_location)
    }

    /// Domestic or international, as minutes count it (rules 18 to 20).
    fn reach(&self) -> &'static str {
        let (Some(context), Some(payer)) = (&self.context, self.payer) else { return "" };
        let other = match self.class() {
            None => return "",
            Some(CallClass::Domestic | CallClass::Emergency) => return "Domestic",
            Some(CallClass::International) => return "International",
            Some(_) if self.is_inbound() => {
                let caller = number::read(&context.calling_number, payer.usage_location);
                caller.ok().and_then(|caller| caller.country)
            }
            Some(_) => self.called_country().map(|country| country.code),
        };
        match other {
            None => "",
            Some(other) if catalogue::is_domestic_for_minutes(payer.usage_location, other) => {
                "Domestic"
            }
            Some(_) => "International",
        }
    }

    /// The caller's number and the called one, the outside one of them masked (rule 86).
    fn numbers(&self, masked_digits: u8) -> (String, String) {
        let Some(context) = &self.context else { return (String::new(), String::new()) };
        let read = |number: &str| match number::read(number, self.home()) {
            Ok(read) => read.e164(),
            Err(_) => number.to_owned(),
        };
        let caller = read(&context.calling_number);
        if self.is_inbound() {
            // Classified by its caller: the called number is the organisation's own.
            return (masked(&caller, masked_digits), read(&context.called_number));
        }
        let called = context.classification.as_ref().map_or("", |found| &found.e164);
        let called = match called {
            "" => context.called_number.clone(),
            e164 => e164.to_owned(),
        };
        match self.class() {
            // The one is nobody's, the other the organisation's own.
            Some(CallClass::Emergency | CallClass::OnNet) => (caller, called),
            _ => (caller, masked(&called, masked_digits)),
        }
    }

    /// Start and end. The client's clock is believed as long as it does not contradict itself.
    fn times(&self) -> (Millis, Millis) {
        let before = |end: Millis| Millis(end.0 - self.duration.0 * 1000);
        if self.correction.is_some() || self.duration < Seconds::ZERO {
            return (self.entry.at, self.entry.at);
        }
        let EndReport { answered_at, ended_at, .. } = self.report;
        match (answered_at, ended_at) {
            // A difference is the last part of a call.
            (Some(start), Some(end)) if start <= end && self.duration == self.entry.used => {
                (start, end)
            }
            (Some(start), None) if self.duration == self.entry.used => {
                (start, start.after(self.duration))
            }
            (_, Some(end)) => (before(end), end),
            _ => (before(self.entry.at), self.entry.at),
        }
    }

    /// The fee comes with the first second that money pays for (invariant 9); it goes back last.
    fn connection_fee(&self) -> Micros {
        let tariff = self.context.as_ref().and_then(|context| context.tariff);
        let Some(tariff) = tariff else { return Micros::ZERO };
        let fee = |paid: Micros| tariff.connection_fee.min(paid);
        fee(self.money_before + self.charge) - fee(self.money_before)
    }

    /// What includes a conference's call (rules 64 and 65).
    fn free_conference(&self) -> Licence {
        let call_type = self.context.as_ref().map(|context| context.call_type);
        let rated = matches!(self.class(), Some(CallClass::Domestic | CallClass::International));
        let extended = self.payer.is_some_and(|payer| payer.holds(Licence::ExtendedDialOut));
        match call_type == Some(CallType::ConferenceDialOut) && rated && extended {
            true => Licence::ExtendedDialOut,
            false => Licence::AudioConferencing,
        }
    }

    /// Rule 88.
    fn capability(&self) -> &str {
        let call_type = self.context.as_ref().map(|context| context.call_type);
        let conference =
            matches!(call_type, Some(CallType::ConferenceDialOut | CallType::ConferenceDialIn));
        match self.entry.decision {
            _ if self.entry.kind == EntryKind::Refused => return "",
            Some(Decision::AllowedFree) if conference => return self.free_conference().code(),
            Some(Decision::AllowedFree | Decision::AllowedEmergency) => {
                let bot = self.payer.is_some_and(|payer| payer.kind != PayerKind::User);
                let free = if bot { Licence::ResourceAccount } else { Licence::PhoneSystem };
                return free.code();
            }
            _ => {}
        }
        let per_minute = conference
            && self.payer.is_some_and(|payer| {
                payer.holds(Licence::ConferencingPerMinute)
                    && !payer.holds(Licence::AudioConferencing)
            });
        let credits = match per_minute {
            true => Licence::ConferencingPerMinute.code(),
            false => Licence::CommunicationsCredits.code(),
        };
        if self.charge != Micros::ZERO {
            return credits;
        }
        let pools =
            || self.entry.postings.iter().filter(|posting| posting.bucket.starts_with("p:"));
        let paying = match self.minutes == Seconds::ZERO {
            false => pools().find(|posting| posting.spent != 0),
            // Nothing paid: what was to pay is named.
            true => pools().next(),
        };
        // A correction that moves nothing is of what had paid before.
        let before = self.correction.as_ref().and_then(|of| of.paid_by.split_once(':'));
        match before {
            Some(("l", _)) if self.minutes == Seconds::ZERO => return credits,
            Some(("p", pool)) if paying.is_none() => return Family::of(pool).plan,
            _ => {}
        }
        let tariff = self.context.as_ref().and_then(|context| context.tariff);
        match (paying, tariff) {
            (Some(posting), _) => Family::of(&posting.bucket[2..]).plan,
            (None, Some(_)) => credits,
            (None, None) if self.entry.shortfall_duration.is_positive() => "",
            (None, None) => FREECALL,
        }
    }
}

/// Rule 87: the type of a call by what the client asked for, how it came about and who pays. A payer that
/// is a bot makes it a bot's call; an inbound call to nobody's number is an unassigned one.
fn call_type(
    of: CallType,
    origin: &str,
    payer: Option<PayerKind>,
    conference: bool,
) -> &'static str {
    let bot = payer.is_some_and(|kind| kind != PayerKind::User);
    match of {
        CallType::ConferenceDialOut => "conf_out",
        CallType::ConferenceDialIn => "conf_in",
        CallType::TollFreeInbound if conference => "conf_in",
        CallType::TollFreeInbound => "ucap_in",
        CallType::UserInbound if payer.is_none() => "unassigned_in",
        CallType::UserInbound if bot => "ucap_in",
        CallType::UserInbound => "user_in",
        CallType::UserOutbound if bot => "ucap_out",
        CallType::UserOutbound => match origin {
            "TRANSFER" => "user_out_transfer",
            "FORWARD" => "user_out_forwarding",
            "ADD_PARTY" => "user_out_conf",
            _ => "user_out",
        },
    }
}

/// A number with its last digits as asterisks; what follows an `@` is no part of a number.
fn masked(number: &str, digits: u8) -> String {
    let end = number.find('@').unwrap_or(number.len());
    let (number, rest) = number.split_at(end);
    let mut left = digits;
    let mut characters: Vec<char> = number.chars().collect();
    for character in characters.iter_mut().rev() {
        if left == 0 {
            break;
        }
        if character.is_ascii_digit() {
            *character = '*';
            left -= 1;
        }
    }
    characters.into_iter().chain(rest.chars()).collect()
}

#[cfg(test)]
mod tests;
