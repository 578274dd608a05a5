//! Which minutes a payer's licences give, and which of them cover a call (rules 1 to 17, 57 to 65).

use crate::charging::catalogue::{self, CountryCode, Licence, PaygZone};
use crate::charging::entitlement::Explain;
use crate::charging::profile::{
    InternationalCap, PayerKind, PayerProfile, PayerState, TenantProfile,
};
use crate::charging::units::Seconds;

/// Minutes that one Audio Conferencing subscription adds to the tenant's dial-out pool (rule 57).
const CONFERENCE_SECONDS: Seconds = Seconds(60 * 60);

/// The old allowance of a subscription where there are no credits (rule 62).
const OLD_CONFERENCE_SECONDS: Seconds = Seconds(900 * 60);

/// Where the old allowance stays (rule 62).
const OLD_ALLOWANCE: [CountryCode; 3] =
    [CountryCode::literal("RU"), CountryCode::literal("KR"), CountryCode::literal("TW")];

/// Where extended dial-out reaches (rule 65).
const EXTENDED: [CountryCode; 2] = [CountryCode::US, CountryCode::literal("CA")];

/// Plans with minutes, in the order in which a user with several draws on them (D10): all are reset with
/// the calendar month, so the catalogue's order decides.
const PLANS: [Licence; 6] = [
    Licence::Domestic,
    Licence::DomesticAndInternational,
    Licence::Domestic120,
    Licence::Domestic240,
    Licence::Domestic120PerUser,
    Licence::International,
];

/// In the place of the country, in the name of the pool that all usage locations share (rule 58).
const ALL_COUNTRIES: &str = "ALL";

/// Whether a licence has minutes, whose charging increment can be set (D1).
pub fn has_minutes(licence: Licence) -> bool {
    PLANS.contains(&licence) || licence == Licence::AudioConferencing
}

/// A pool that covers a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveringPool {
    /// The pool without its month: `<country>:<plan>:<counter>`, and `:<user>` where it is one user's.
    pub family: String,
    /// The counter that closes this one when it is used up (rule 9, D11); empty where there is none.
    pub closed_by: String,
    /// In which its minutes are charged (D1).
    pub increment: Seconds,
}

/// A pool family taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family<'a> {
    /// Whose users share it; empty for the tenant-wide pool.
    pub country: &'a str,
    /// Licence code.
    pub plan: &'a str,
    /// `DOMESTIC`, `INTERNATIONAL` or `CONFERENCE`.
    pub counter: &'a str,
    /// The user, where it is one user's (rule 7); else empty.
    pub user: &'a str,
}

impl<'a> Family<'a> {
    /// The parts of a family's name.
    pub fn of(name: &'a str) -> Self {
        let mut parts = name.splitn(4, ':');
        let mut next = || parts.next().unwrap_or_default();
        let country = Some(next()).filter(|country| *country != ALL_COUNTRIES).unwrap_or_default();
        Family { country, plan: next(), counter: next(), user: next() }
    }
}

/// Seconds per month that a payer's licences add to each pool family (rules 1 to 3, 6 to 8, 57, 58, 62).
pub fn seats(payer: &PayerProfile) -> Vec<(String, Seconds)> {
    let mut seats = vec![];
    if payer.state == PayerState::Removed {
        return seats;
    }
    for plan in plans_of(payer) {
        let Some(minutes) = plan.plan_minutes(payer.usage_location) else { continue };
        if minutes.domestic.is_positive() {
            seats.push((family(payer, plan, "DOMESTIC"), minutes.domestic));
        }
        if let Some(international) = minutes.international {
            seats.push((family(payer, plan, "INTERNATIONAL"), international));
        }
    }
    if payer.holds(Licence::AudioConferencing) {
        let seconds = match has_old_allowance(payer) {
            true => OLD_CONFERENCE_SECONDS,
            false => CONFERENCE_SECONDS,
        };
        seats.push((conference_family(payer), seconds));
    }
    seats
}

/// Whether the payer may call the outside at all by a plan: one with minutes, or pay-as-you-go in its
/// zone (rules 12 and 13, D25).
pub fn has_plan(payer: &PayerProfile) -> bool {
    has_pay_as_you_go(payer)
        || plans_of(payer).any(|plan| plan.plan_minutes(payer.usage_location).is_some())
}

/// Whether a pay-as-you-go licence is valid where its holder is (rule 13, D25).
pub fn has_pay_as_you_go(payer: &PayerProfile) -> bool {
    let zone = catalogue::country(payer.usage_location).and_then(|country| country.payg_zone);
    match zone {
        Some(PaygZone::One) => payer.holds(Licence::PayAsYouGo1),
        Some(PaygZone::Two) => payer.holds(Licence::PayAsYouGo2),
        // A country that stands alone has a licence of its own, which has no code here.
        Some(PaygZone::Own) | None => false,
    }
}

/// Whether extended dial-out makes a dial-out to `to` free under fair use (rule 65).
pub fn has_extended_dial_out(payer: &PayerProfile, to: Option<CountryCode>) -> bool {
    payer.holds(Licence::ExtendedDialOut) && to.is_some_and(|to| EXTENDED.contains(&to))
}

/// Pools that cover a call of a user, in funding order (rules 27, 30, 31; D10).
pub fn covering_user(
    tenant: &TenantProfile,
    payer: &PayerProfile,
    to: Option<CountryCode>,
    explain: &mut impl Explain,
) -> Vec<CoveringPool> {
    let home = payer.usage_location;
    let domestic = to.is_some_and(|to| catalogue::is_domestic_for_minutes(home, to));
    let mut pools = vec![];
    for plan in plans_of(payer) {
        let Some(minutes) = plan.plan_minutes(home) else {
            explain.step("POOL", false, "8", format_args!("{plan} has no minutes in {home}"));
            continue;
        };
        let has_domestic = minutes.domestic.is_positive();
        let has_international = minutes.international.is_some();
        let (counter, other, covers) = match domestic {
            true => ("DOMESTIC", "INTERNATIONAL", has_domestic),
            false => ("INTERNATIONAL", "DOMESTIC", has_international),
        };
        if !covers {
            let kind = counter.to_lowercase();
            explain.step("POOL", false, "30", format_args!("{plan} has no {kind} minutes"));
            continue;
        }
        let family_of = |counter| family(payer, plan, counter);
        let family = family_of(counter);
        let check = format_args!("POOL {family}");
        explain.step(check, true, "27", format_args!("covers the call"));
        let two_counters = has_domestic && has_international;
        let closes = two_counters && tenant.international_cap == InternationalCap::Either;
        let closed_by = if closes { family_of(other) } else { String::new() };
        pools.push(CoveringPool { family, closed_by, increment: tenant.pool_increment(plan) });
    }
    pools
}

/// The pool that covers a dial-out of a conference (rules 58, 60, 62).
pub fn covering_conference(
    tenant: &TenantProfile,
    organiser: &PayerProfile,
    to: Option<CountryCode>,
    explain: &mut impl Explain,
) -> Vec<CoveringPool> {
    if !organiser.holds(Licence::AudioConferencing) {
        let detail = format_args!("a pay-per-minute licence has no minutes");
        explain.step("POOL MCOMEETADD", false, "63", detail);
        return vec![];
    }
    if !to.and_then(catalogue::country).is_some_and(|country| country.zone_a) {
        let detail = format_args!("the destination is not in Zone A: credits on all calls");
        explain.step("POOL MCOMEETADD", false, "60", detail);
        return vec![];
    }
    let family = conference_family(organiser);
    let detail = format_args!("the destination is in Zone A");
    explain.step(format_args!("POOL {family}"), true, "60", detail);
    let increment = tenant.pool_increment(Licence::AudioConferencing);
    vec![CoveringPool { family, closed_by: String::new(), increment }]
}

fn plans_of(payer: &PayerProfile) -> impl Iterator<Item = Licence> {
    PLANS.into_iter().filter(|plan| payer.holds(*plan))
}

fn has_old_allowance(payer: &PayerProfile) -> bool {
    OLD_ALLOWANCE.contains(&payer.usage_location)
}

/// Users of one country and plan share (rule 1), US and PR as one (rule 6); MCOPSTN8 is each user's own
/// (rule 7).
fn family(payer: &PayerProfile, plan: Licence, counter: &str) -> String {
    let home = payer.usage_location;
    let group = catalogue::country(home).map_or(home, |country| country.pool_group);
    match plan {
        Licence::Domestic120PerUser => format!("{group}:{plan}:{counter}:{}", payer.id),
        _ => [group.as_str(), ":", plan.code(), ":", counter].concat(),
    }
}

/// One pool a tenant, across all usage locations (rule 58); the old allowance is a country's own.
fn conference_family(organiser: &PayerProfile) -> String {
    let plan = Licence::AudioConferencing;
    match has_old_allowance(organiser) {
        true => format!("{}:{plan}:CONFERENCE", organiser.usage_location),
        false => format!("{ALL_COUNTRIES}:{plan}:CONFERENCE"),
    }
}

/// Whether a payer's ordinary plan pays for a call: a resource account's pays only for what a caller has
/// it transfer or forward (rules 70 and 73).
pub fn ordinary_plans_pay(payer: &PayerProfile, transferred: bool) -> bool {
    payer.kind != PayerKind::ResourceAccount || transferred
}
