//! Who may call whom, and which sources may pay, in the rule book's order of checks.
//!
//! No balance is looked at here: the answer is either a refusal that no balance can change, or the
//! sources that the ledger may draw on, in funding order. Each check is told to an [`Explain`], so that
//! a quote prints exactly what an authorize does.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::charging::catalogue::{self, CountryCode, Licence, PremiumRule};
use crate::charging::decision::{Decision, Nuance};
use crate::charging::deck::{Deck, Direction, Rate};
use crate::charging::money::format_micros;
use crate::charging::number::{self, Number, NumberError, NumberType};
use crate::charging::plans::{self, CoveringPool};
use crate::charging::profile::{
    ConferencePolicy, PayerKind, PayerProfile, PayerState, TenantProfile, TenantState, UserPolicy,
};
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis};

/// Where dial-out is off for customers who bought the service there (rule 68).
const CHINA: CountryCode = CountryCode::literal("CN");

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallType {
    /// A user calls the outside.
    UserOutbound,
    /// A conference calls a participant; the organiser pays.
    ConferenceDialOut,
    /// A participant calls a conference.
    ConferenceDialIn,
    /// Somebody calls a toll-free service number, which pays.
    TollFreeInbound,
    /// The outside calls a user.
    UserInbound,
}

/// What kind of call it turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallClass {
    /// To an emergency service.
    Emergency,
    /// To a number of the same tenant (rule 17).
    OnNet,
    /// Domestic for minutes (rules 18 to 20).
    Domestic,
    /// Everything else outbound.
    International,
    /// To a toll-free number.
    TollFreeOutbound,
    /// To a toll-free service number of the tenant.
    TollFreeInbound,
    /// To a premium-rate number (rule 23).
    Premium,
    /// To a user, or toll dial-in to a conference.
    Inbound,
}

impl CallType {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            CallType::UserOutbound => "USER_OUTBOUND",
            CallType::ConferenceDialOut => "CONFERENCE_DIAL_OUT",
            CallType::ConferenceDialIn => "CONFERENCE_DIAL_IN",
            CallType::TollFreeInbound => "TOLL_FREE_INBOUND",
            CallType::UserInbound => "USER_INBOUND",
        }
    }
}

impl CallClass {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            CallClass::Emergency => "EMERGENCY",
            CallClass::OnNet => "ON_NET",
            CallClass::Domestic => "DOMESTIC",
            CallClass::International => "INTERNATIONAL",
            CallClass::TollFreeOutbound => "TOLL_FREE_OUTBOUND",
            CallClass::TollFreeInbound => "TOLL_FREE_INBOUND",
            CallClass::Premium => "PREMIUM",
            CallClass::Inbound => "INBOUND",
        }
    }
}

impl fmt::Display for CallClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What kind of call it is, and the outside number: the one that was called, of an inbound call the
/// caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classification {
    /// What kind of call.
    pub class: CallClass,
    /// Country of the outside number; `None` for numbers of the world, and where it cannot be told.
    pub country: Option<CountryCode>,
    /// What kind of number; `None` where it cannot be told.
    pub number_type: Option<NumberType>,
    /// With its leading plus; empty where it cannot be told, or the caller withholds it.
    pub e164: String,
}

impl Classification {
    /// Of a number.
    pub fn of(class: CallClass, number: &Number) -> Self {
        Classification {
            class,
            country: number.country,
            number_type: Some(number.number_type),
            e164: number.e164(),
        }
    }

    /// Where there is no E.164 number, such as for 112.
    pub fn without_number(class: CallClass) -> Self {
        Classification { class, country: None, number_type: None, e164: String::new() }
    }
}

/// A call as far as entitlement looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What the client asks for.
    pub call_type: CallType,
    /// As presented; may be empty.
    pub calling_number: &'a str,
    /// As dialled.
    pub called_number: &'a str,
    /// Whether a caller has the payer transfer or forward the call.
    pub transferred: bool,
    /// Whether somebody else calls out by the payer, as users of shared calling do by a resource account.
    pub on_behalf: bool,
    /// When, by the store's clock; picks the deck's row.
    pub at: Millis,
}

/// Everything set up that the decision rests on; `None` where it is unknown.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The tenant.
    pub tenant: Option<&'a TenantProfile>,
    /// Every number of the tenant.
    pub numbers: &'a HashSet<String>,
    /// Who is to pay.
    pub payer: Option<&'a PayerProfile>,
    /// Whether an operator has blocked the payer, whatever its profile says.
    pub barred: bool,
    /// The tenant's active deck.
    pub deck: Option<&'a Deck>,
}

/// What a call is entitled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// Refused, whatever the balances are.
    Refused(Decision, Nuance),
    /// Nothing to pay.
    Free,
    /// To be paid by these sources, in order.
    Funded {
        /// Pools first.
        pools: Vec<CoveringPool>,
        /// Then credits, or why they cannot pay.
        credits: Result<Tariff, Decision>,
        /// The refusal when no source has a first increment left.
        when_exhausted: Decision,
        /// The refusal when the payer's spend limit forbids it.
        when_spend_limited: Decision,
        /// The refusal when the tenant's spend velocity forbids it.
        when_velocity_limited: Decision,
    },
}

/// What is known about a call after the rules were asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of call, as far as it was found out.
    pub classification: Option<Classification>,
    /// What it is entitled to.
    pub entitlement: Entitlement,
    /// Destination of the deck's row; empty where none was looked up.
    pub destination: String,
    /// For the operator: the refusal in a sentence; empty otherwise.
    pub detail: String,
    /// Things that the caller should know about a granted call.
    pub warnings: Vec<&'static str>,
}

/// Somebody who wants to know why.
pub trait Explain {
    /// `check` was `passed`, says `rule` (a number of the rule book, or `D` and the number of a decision).
    fn step(
        &mut self,
        check: impl fmt::Display,
        passed: bool,
        rule: &'static str,
        detail: fmt::Arguments<'_>,
    );
}

/// Nobody: what an authorize passes.
impl Explain for () {
    fn step(&mut self, _: impl fmt::Display, _: bool, _: &'static str, _: fmt::Arguments<'_>) {}
}

/// One check of a decision, for a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was checked, such as `PAYER` or `POOL US:MCOPSTN1:DOMESTIC`.
    pub check: String,
    /// Whether the call went on past it; for a source, whether it may pay.
    pub passed: bool,
    /// A number of the rule book, or `D` and the number of a decision; empty where neither fits.
    pub rule: &'static str,
    /// A sentence.
    pub detail: String,
}

impl Explain for Vec<Step> {
    fn step(
        &mut self,
        check: impl fmt::Display,
        passed: bool,
        rule: &'static str,
        detail: fmt::Arguments<'_>,
    ) {
        self.push(Step { check: check.to_string(), passed, rule, detail: detail.to_string() });
    }
}

/// Decides a call as far as it can be decided without balances.
pub fn decide(attempt: &Attempt<'_>, setup: &Setup<'_>, explain: &mut impl Explain) -> Verdict {
    let mut verdict = Verdict {
        classification: None,
        entitlement: Entitlement::Free,
        destination: String::new(),
        detail: String::new(),
        warnings: vec![],
    };
    verdict.entitlement = match check(attempt, setup, &mut verdict, explain) {
        Ok(entitlement) => entitlement,
        Err(Refusal { decision, nuance, detail }) => {
            verdict.detail = detail;
            Entitlement::Refused(decision, nuance)
        }
    };
    verdict
}

struct Refusal {
    decision: Decision,
    nuance: Nuance,
    detail: String,
}

/// Tells the explainer that a check failed, and makes the refusal of it.
fn refuse(
    explain: &mut impl Explain,
    check: &str,
    rule: &'static str,
    decision: Decision,
    detail: fmt::Arguments<'_>,
) -> Refusal {
    explain.step(check, false, rule, detail);
    Refusal { decision, nuance: Nuance::None, detail: detail.to_string() }
}

fn check(
    attempt: &Attempt<'_>,
    setup: &Setup<'_>,
    verdict: &mut Verdict,
    explain: &mut impl Explain,
) -> Result<Entitlement, Refusal> {
    let called = check_number(attempt, setup, explain)?;
    let (tenant, payer) = check_payer(setup, explain)?;
    let inbound = |class, verdict: &mut Verdict| {
        verdict.classification = Some(caller(attempt, payer, class));
        let strange = |called: &Number| !setup.numbers.contains(called.e164().as_str());
        if !payer.numbers.is_empty() && called.as_ref().is_some_and(strange) {
            // No refusal: numbers are ported, and switches rewrite them.
            verdict.warnings.push("called_number is not a number of the tenant");
        }
    };
    match attempt.call_type {
        CallType::UserOutbound | CallType::ConferenceDialOut => {
            // `check_number` gives every outbound call of a known payer its number.
            let Some(called) = called else {
                let detail = format_args!("the called number cannot be read");
                return Err(refuse(explain, "NUMBER", "", Decision::NumberInvalid, detail));
            };
            let call = Outbound { attempt, setup, tenant, payer, called: &called };
            call.check(verdict, explain)
        }
        CallType::TollFreeInbound => {
            inbound(CallClass::TollFreeInbound, verdict);
            // A service number pays, nobody's licence counts (rule 36, D24).
            if payer.kind != PayerKind::TollFreeNumber {
                let detail = format_args!("{} is not a toll-free service number", payer.id);
                return Err(refuse(explain, "LICENCE", "36", Decision::NotEntitled, detail));
            }
            let rated = Inbound { direction: Direction::TollFreeInbound, rule: "36" };
            Ok(rated.fund(attempt, setup, tenant, payer, verdict, explain))
        }
        CallType::UserInbound => {
            inbound(CallClass::Inbound, verdict);
            explain.step("INBOUND", true, "16", format_args!("inbound calls to a user are free"));
            Ok(Entitlement::Free)
        }
        CallType::ConferenceDialIn => {
            inbound(CallClass::Inbound, verdict);
            if payer.holds(Licence::AudioConferencing) || payer.kind == PayerKind::TollNumber {
                explain.step("INBOUND", true, "64", format_args!("toll dial-in is included"));
                return Ok(Entitlement::Free);
            }
            if !payer.holds(Licence::ConferencingPerMinute) {
                let detail = format_args!("{} holds no conferencing licence", payer.id);
                return Err(refuse(explain, "LICENCE", "64", Decision::NotEntitled, detail));
            }
            let rated = Inbound { direction: Direction::TollInbound, rule: "63" };
            Ok(rated.fund(attempt, setup, tenant, payer, verdict, explain))
        }
    }
}

/// The called number; `None` where it need not be one (inbound), or cannot be read without knowing the
/// payer's country.
fn check_number(
    attempt: &Attempt<'_>,
    setup: &Setup<'_>,
    explain: &mut impl Explain,
) -> Result<Option<Number>, Refusal> {
    let outbound =
        matches!(attempt.call_type, CallType::UserOutbound | CallType::ConferenceDialOut);
    let payer_country = setup.payer.map(|payer| payer.usage_location);
    let country = payer_country.or(setup.tenant.and_then(|tenant| tenant.country));
    let context = country.unwrap_or(CountryCode::US);
    match number::read(attempt.called_number, context) {
        Ok(number) => {
            let country = number.country.as_ref().map_or("no country", CountryCode::as_str);
            let (digits, kind) = (number.digits(), number.number_type);
            explain.step("NUMBER", true, "18", format_args!("+{digits}, {country}, {kind}"));
            Ok(Some(number))
        }
        Err(_) if !outbound => Ok(None),
        // Without the payer's country a national form says nothing: the payer is the fault.
        Err(_) if payer_country.is_none() && !attempt.called_number.starts_with('+') => Ok(None),
        Err(error) => {
            let detail = format_args!("{error}, dialled in {context}");
            let mut refusal = refuse(explain, "NUMBER", "", Decision::NumberInvalid, detail);
            if error == NumberError::TooShort {
                refusal.nuance = Nuance::TooShort;
            }
            Err(refusal)
        }
    }
}

fn check_payer<'a>(
    setup: &Setup<'a>,
    explain: &mut impl Explain,
) -> Result<(&'a TenantProfile, &'a PayerProfile), Refusal> {
    let Some(tenant) = setup.tenant.filter(|tenant| tenant.state != TenantState::Removed) else {
        let detail = format_args!("no such tenant");
        return Err(refuse(explain, "PAYER", "", Decision::PayerUnknown, detail));
    };
    let Some(payer) = setup.payer.filter(|payer| payer.state != PayerState::Removed) else {
        let detail = format_args!("tenant {} has no such payer", tenant.id);
        return Err(refuse(explain, "PAYER", "", Decision::PayerUnknown, detail));
    };
    if tenant.state == TenantState::Suspended {
        let detail = format_args!("tenant {} is suspended", tenant.id);
        return Err(refuse(explain, "PAYER", "", Decision::TenantSuspended, detail));
    }
    if payer.state == PayerState::Blocked || setup.barred {
        let detail = format_args!("{} is blocked", payer.id);
        return Err(refuse(explain, "PAYER", "91", Decision::FraudSuspected, detail));
    }
    let (id, location) = (&payer.id, payer.usage_location);
    explain.step("PAYER", true, "5", format_args!("{id}, usage location {location}"));
    Ok((tenant, payer))
}

/// An outbound call of a known payer to a number that was read.
struct Outbound<'a> {
    attempt: &'a Attempt<'a>,
    setup: &'a Setup<'a>,
    tenant: &'a TenantProfile,
    payer: &'a PayerProfile,
    called: &'a Number,
}

impl Outbound<'_> {
    fn check(
        &self,
        verdict: &mut Verdict,
        explain: &mut impl Explain,
    ) -> Result<Entitlement, Refusal> {
        let class = self.class();
        verdict.classification = Some(Classification::of(class, self.called));
        explain.step("CLASS", true, "18", format_args!("{class}"));
        if class == CallClass::OnNet {
            let detail = format_args!("the number is the tenant's own: free");
            explain.step("ON_NET", true, "17", detail);
            return Ok(Entitlement::Free);
        }
        self.check_policy(explain)?;
        let minutes_may_pay = self.check_destination(class, explain)?;
        self.check_licence(explain)?;
        if class == CallClass::TollFreeOutbound {
            verdict.warnings.push("toll-free numbers may not be reachable from here (rule 26)");
            if number::toll_free_of_own_plan(self.called, self.payer.usage_location) {
                let detail = format_args!("toll-free of the payer's own numbering plan: free");
                explain.step("TOLL_FREE", true, "D29", detail);
                return Ok(Entitlement::Free);
            }
        }
        if self.attempt.call_type == CallType::ConferenceDialOut
            && plans::has_extended_dial_out(self.payer, self.called.country)
        {
            let detail = format_args!("extended dial-out to the US and Canada is unlimited");
            explain.step("EXTENDED DIAL-OUT", true, "65", detail);
            return Ok(Entitlement::Free);
        }
        let by_minutes = class != CallClass::TollFreeOutbound && minutes_may_pay;
        let pools = if by_minutes { self.pools(explain) } else { vec![] };
        let credits = self.credits(verdict, explain);
        let when_exhausted = match credits {
            _ if !pools.is_empty() => Decision::PoolExhausted,
            Ok(_) => Decision::InsufficientCredits,
            Err(reason) => reason,
        };
        let when_spend_limited = match pools.is_empty() {
            true => Decision::SpendLimitReached,
            false => Decision::PoolExhausted,
        };
        // Comes before POOL_EXHAUSTED in the contract's order.
        let when_velocity_limited = Decision::FraudSuspected;
        Ok(Entitlement::Funded {
            pools,
            credits,
            when_exhausted,
            when_spend_limited,
            when_velocity_limited,
        })
    }

    fn class(&self) -> CallClass {
        let home = self.payer.usage_location;
        if self.setup.numbers.contains(self.called.e164().as_str()) {
            CallClass::OnNet
        } else if self.called.is_premium() {
            CallClass::Premium
        } else if self.called.number_type == NumberType::TollFree {
            CallClass::TollFreeOutbound
        } else if self.called.country.is_some_and(|to| is_domestic(home, to)) {
            CallClass::Domestic
        } else {
            CallClass::International
        }
    }

    /// The outbound policy, the payer's before the tenant's (rule 67).
    fn check_policy(&self, explain: &mut impl Explain) -> Result<(), Refusal> {
        let home = self.payer.usage_location;
        let to = self.called.country;
        let same_country = to.is_some_and(|to| catalogue::is_domestic_for_policy(home, to));
        let of_tenant = &self.tenant.outbound_policy;
        let (name, allowed) = match self.attempt.call_type {
            CallType::ConferenceDialOut if self.tenant.country == Some(CHINA) => {
                ("conference: off for organisations in China (rule 68)", false)
            }
            CallType::ConferenceDialOut => {
                match self.payer.conference_policy.unwrap_or(of_tenant.conference) {
                    ConferencePolicy::Any => ("conference: any", true),
                    ConferencePolicy::SameCountry => ("conference: same_country", same_country),
                    ConferencePolicy::ZoneA => ("conference: zone_a", self.is_zone_a()),
                    ConferencePolicy::Disabled => ("conference: disabled", false),
                }
            }
            _ => match self.payer.user_policy.unwrap_or(of_tenant.user) {
                UserPolicy::International => ("user: international", true),
                UserPolicy::Domestic => ("user: domestic", same_country),
                UserPolicy::None => ("user: none", false),
            },
        };
        if !allowed {
            let detail = format_args!("the outbound policy is {name}");
            return Err(refuse(explain, "POLICY", "67", Decision::PolicyDenied, detail));
        }
        explain.step("POLICY", true, "67", format_args!("the outbound policy is {name}"));
        Ok(())
    }

    /// Blocked prefixes, premium numbers (rule 23), the list of destinations (rule 22); whether minutes may
    /// pay, or only credits.
    fn check_destination(
        &self,
        class: CallClass,
        explain: &mut impl Explain,
    ) -> Result<bool, Refusal> {
        const CHECK: &str = "DESTINATION";
        let blocked = Decision::DestinationBlocked;
        let digits = self.called.digits();
        let prefixes = &self.tenant.blocked_prefixes;
        if let Some(prefix) = prefixes.iter().find(|p| digits.starts_with(p.as_str())) {
            let detail = format_args!("the tenant blocks +{prefix}");
            return Err(refuse(explain, CHECK, "", blocked, detail));
        }
        if class == CallClass::Premium {
            let home = self.payer.usage_location;
            let rule = match self.attempt.call_type {
                CallType::ConferenceDialOut => PremiumRule::Refused,
                _ => catalogue::country(home)
                    .map_or(PremiumRule::Refused, |country| country.premium_rule(digits)),
            };
            if rule == PremiumRule::Refused {
                let detail = format_args!("premium-rate numbers cannot be called from {home}");
                return Err(refuse(explain, CHECK, "23", blocked, detail));
            }
            explain.step(CHECK, true, "23", format_args!("this premium number may be called"));
            return Ok(self.check_listed(class, explain)? && rule != PremiumRule::CreditsOnly);
        }
        let listed = self.check_listed(class, explain)?;
        if listed {
            explain.step(CHECK, true, "22", format_args!("the destination may be called"));
        }
        Ok(listed)
    }

    /// The list of destinations, for what is neither domestic nor toll-free of the payer's own plan. A
    /// universal toll-free number has no country that could be listed (D29). False where the tenant allows
    /// it all the same because the deck prices it (D13): plans have no minutes for it, credits pay.
    fn check_listed(&self, class: CallClass, explain: &mut impl Explain) -> Result<bool, Refusal> {
        let home = self.payer.usage_location;
        let near = self.called.country.is_some_and(|to| is_domestic(home, to))
            || number::toll_free_of_own_plan(self.called, home)
            || (class == CallClass::TollFreeOutbound && self.called.country.is_none());
        let to = self.called.country.and_then(catalogue::country);
        if near || to.is_some_and(|country| country.outbound_listed) {
            return Ok(true);
        }
        let name = to.map_or("a number of no country", |country| &country.name);
        if self.tenant.allow_unlisted_destinations && self.rate().is_some() {
            let detail =
                format_args!("{name} is not on the list; the tenant allows what the deck prices");
            explain.step("DESTINATION", true, "D13", detail);
            return Ok(false);
        }
        let detail = format_args!("{name} is not on the list of destinations");
        Err(refuse(explain, "DESTINATION", "22", Decision::DestinationBlocked, detail))
    }

    /// Whether any licence is for this type of call at all.
    fn check_licence(&self, explain: &mut impl Explain) -> Result<(), Refusal> {
        let payer = self.payer;
        let (entitled, rule) = match (self.attempt.call_type, payer.kind) {
            (CallType::ConferenceDialOut, _) => {
                let subscribed = payer.holds(Licence::AudioConferencing);
                (subscribed || payer.holds(Licence::ConferencingPerMinute), "57")
            }
            // What a caller has it transfer goes on credits when the plan is gone (rule 70); for what it
            // starts itself it needs pay-as-you-go.
            (_, PayerKind::ResourceAccount) => {
                (self.attempt.transferred || plans::has_pay_as_you_go(payer), "73")
            }
            // Credits only open the wallet (rule 35): they are no plan, and without one calling stops (rule
            // 79, D25).
            _ => (plans::has_plan(payer), "75"),
        };
        let id = &payer.id;
        if !entitled {
            let detail = format_args!("{id} holds no licence for this type of call");
            return Err(refuse(explain, "LICENCE", rule, Decision::NotEntitled, detail));
        }
        explain.step("LICENCE", true, rule, format_args!("{id} is licensed for such calls"));
        Ok(())
    }

    fn pools(&self, explain: &mut impl Explain) -> Vec<CoveringPool> {
        let to = self.called.country;
        match self.attempt.call_type {
            CallType::ConferenceDialOut => {
                plans::covering_conference(self.tenant, self.payer, to, explain)
            }
            _ if plans::ordinary_plans_pay(self.payer, self.attempt.transferred) => {
                plans::covering_user(self.tenant, self.payer, to, explain)
            }
            _ => {
                let detail = format_args!("only pay-as-you-go pays for what a bot starts itself");
                explain.step("POOL", false, "73", detail);
                vec![]
            }
        }
    }

    /// The tariff at which credits pay, or why they cannot (rules 33, 60, 70, 72; D28).
    fn credits(
        &self,
        verdict: &mut Verdict,
        explain: &mut impl Explain,
    ) -> Result<Tariff, Decision> {
        const CHECK: &str = "CREDITS";
        let id = &self.payer.id;
        // What a bot sends on or starts needs no licence, shared calling does.
        let is_bot = self.payer.kind == PayerKind::ResourceAccount;
        let licensed = (is_bot && !self.attempt.on_behalf)
            || self.payer.holds(Licence::CommunicationsCredits)
            || self.pays_per_minute();
        if !licensed {
            let detail = format_args!("{id} holds no Communications Credits licence");
            explain.step(CHECK, false, if is_bot { "72" } else { "33" }, detail);
            verdict.detail = detail.to_string();
            return Err(Decision::CreditsNotLicensed);
        }
        let Some(rate) = self.rate() else {
            let name = &self.tenant.rate_deck;
            let detail = format_args!("deck {name} has no row for this number");
            explain.step(CHECK, false, "D28", detail);
            verdict.detail = detail.to_string();
            return Err(Decision::DestinationUnrated);
        };
        verdict.destination = rate.destination.to_owned();
        let price = Price(&rate);
        if is_too_dear(self.tenant, &rate) {
            let detail = format_args!("{price} is above the tenant's limit");
            explain.step(CHECK, false, "", detail);
            verdict.detail = detail.to_string();
            return Err(Decision::PriceAboveLimit);
        }
        explain.step(CHECK, true, "27", format_args!("{price}"));
        Ok(rate.tariff)
    }

    /// The deck's row for the number.
    fn rate(&self) -> Option<Rate<'_>> {
        let (digits, at) = (self.called.digits(), self.attempt.at);
        self.setup.deck.and_then(|deck| deck.rate(Direction::Outbound, digits, at))
    }

    /// Pay-per-minute conferencing needs no credits licence of its own (C11).
    fn pays_per_minute(&self) -> bool {
        self.attempt.call_type == CallType::ConferenceDialOut
            && self.payer.holds(Licence::ConferencingPerMinute)
            && !self.payer.holds(Licence::AudioConferencing)
    }

    fn is_zone_a(&self) -> bool {
        let to = self.called.country.and_then(catalogue::country);
        to.is_some_and(|country| country.zone_a)
    }
}

fn is_domestic(from: CountryCode, to: CountryCode) -> bool {
    catalogue::is_domestic_for_minutes(from, to)
}

/// An inbound call: the outside number is the caller's, who may withhold it.
fn caller(attempt: &Attempt<'_>, payer: &PayerProfile, class: CallClass) -> Classification {
    match number::read(attempt.calling_number, payer.usage_location) {
        Ok(number) => Classification::of(class, &number),
        Err(_) => Classification::without_number(class),
    }
}

/// An inbound call that only credits pay, by the caller's origin.
struct Inbound {
    /// Which rows of the deck price it.
    direction: Direction,
    /// The rule that says so.
    rule: &'static str,
}

impl Inbound {
    /// The refusal never tells of funds: the caller is a stranger.
    fn fund(
        &self,
        attempt: &Attempt<'_>,
        setup: &Setup<'_>,
        tenant: &TenantProfile,
        payer: &PayerProfile,
        verdict: &mut Verdict,
        explain: &mut impl Explain,
    ) -> Entitlement {
        let refused = Decision::TollFreeUnfunded;
        let rate = setup.deck.and_then(|deck| self.rate(attempt, payer, deck));
        let credits = match &rate {
            None => {
                let detail = format_args!("the deck has no row for callers from there");
                explain.step("CREDITS", false, "D28", detail);
                verdict.detail = detail.to_string();
                Err(refused)
            }
            Some(rate) if is_too_dear(tenant, rate) => {
                let detail = format_args!("{} is above the tenant's limit", Price(rate));
                explain.step("CREDITS", false, "", detail);
                verdict.detail = detail.to_string();
                Err(refused)
            }
            Some(rate) => {
                explain.step("CREDITS", true, self.rule, format_args!("{}", Price(rate)));
                Ok(rate.tariff)
            }
        };
        verdict.destination = rate.map(|rate| rate.destination.to_owned()).unwrap_or_default();
        Entitlement::Funded {
            pools: vec![],
            credits,
            when_exhausted: refused,
            when_spend_limited: refused,
            when_velocity_limited: refused,
        }
    }

    /// The rate by the caller's origin (rule 38); a caller without a usable number takes the deck's
    /// default row, else the dearest row of the service number's country (D24).
    fn rate<'d>(
        &self,
        attempt: &Attempt<'_>,
        payer: &PayerProfile,
        deck: &'d Deck,
    ) -> Option<Rate<'d>> {
        let home = payer.usage_location;
        if let Ok(caller) = number::read(attempt.calling_number, home) {
            return deck.rate(self.direction, caller.digits(), attempt.at);
        }
        deck.default_rate(self.direction, attempt.at).or_else(|| {
            let code = catalogue::country(home)?.calling_code.to_string();
            deck.dearest(self.direction, &code, attempt.at)
        })
    }
}

/// Whether the tenant's limits forbid that money pays so much, outbound and inbound alike.
fn is_too_dear(tenant: &TenantProfile, rate: &Rate<'_>) -> bool {
    let limits = &tenant.limits;
    let over = |limit: Option<Micros>, price: Micros| limit.is_some_and(|most| price > most);
    over(limits.max_rate_per_minute, rate.tariff.rate_per_minute)
        || over(limits.max_connection_fee, rate.tariff.connection_fee)
}

/// In a sentence, which is made only where somebody reads it.
struct Price<'a>(&'a Rate<'a>);

impl fmt::Display for Price<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { destination, tariff, .. } = self.0;
        let per_minute = format_micros(tariff.rate_per_minute);
        let fee = format_micros(tariff.connection_fee);
        write!(f, "{destination}: {per_minute} per minute, connection fee {fee}")
    }
}

#[cfg(test)]
mod tests;
