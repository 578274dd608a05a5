//! How a length of usage is spread over the sources that may pay for it, in order.
//!
//! Two questions, both answered here and nowhere else in Rust: [`reserve`] (how much more may a call
//! hold, so that it can run to a target?) and [`charge`] (what does a usage cost each source?). A call
//! draws on its pools in order, then on credits; once it has gone on to a later source it never goes
//! back (contract rule 5), so that a charge does not depend on how often the call was extended.
//!
//! `ledger/redis/scripts/lib.lua` holds the same two functions in Lua; the model test and an
//! exhaustive comparison keep them equal.

use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Seconds};

/// A pool as one call sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSide {
    /// Seconds that the call has on the pool already, held or spent.
    pub taken: Seconds,
    /// Seconds that anybody may still take; zero where the pool is closed to the call.
    pub available: Seconds,
    /// Other open holds on the pool, for the fair share (D5).
    pub others: i64,
    /// Charging increment, 60 s unless the plan says otherwise (D1).
    pub increment: Seconds,
}

/// The wallet as one call sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditSide {
    /// Money that the call has on the wallet already, held or spent.
    pub taken: Micros,
    /// Money in lots that are not expired and that nobody holds.
    pub available: Micros,
    /// Other open holds with a money line, for the fair share (D5).
    pub others: i64,
    /// What the payer's spend limit leaves for this call on top of `taken` (D15).
    pub limit: Option<Micros>,
    /// The frozen tariff.
    pub tariff: Tariff,
    /// What the tenant's spend velocity leaves for this call on top of `taken`.
    pub velocity: Option<Micros>,
}

/// Why a reservation ends where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The target is covered.
    Full,
    /// Shortened to the call's fair share; more may be had at the next extension (D5).
    Shared,
    /// Nothing more is left in any source.
    Exhausted,
    /// Nothing more may be spent by this payer this month (D15).
    SpendLimit,
    /// Nothing more may be spent by this tenant in the window of its spend velocity.
    Velocity,
}

/// What [`reserve`] adds to a call's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Seconds to add to each pool, in order.
    pub pools: Vec<Seconds>,
    /// Money to add to the wallet line.
    pub money: Micros,
    /// Usage since answer, up to the target, that all lines together now pay for.
    pub covered: Seconds,
    /// Why it ends there.
    pub reach: Reach,
}

/// What a usage costs each source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Seconds charged to each pool in all, whole increments, in order.
    pub pools: Vec<Seconds>,
    /// Money charged in all.
    pub money: Micros,
    /// Billed seconds that `money` pays for.
    pub money_duration: Seconds,
    /// Used seconds that nothing pays for (contract rule 11).
    pub shortfall_duration: Seconds,
    /// Price of them at the frozen tariff; zero where the call has none.
    pub shortfall_money: Micros,
}

/// Index of the source that the call draws on now: pools count from 0, the wallet comes last.
fn current_source(pools: &[PoolSide], credits: Option<&CreditSide>) -> usize {
    if credits.is_some_and(|c| c.taken.is_positive()) {
        return pools.len();
    }
    pools.iter().rposition(|p| p.taken.is_positive()).unwrap_or(0)
}

/// How much more each source must hold so that the call can run for `target` since answer.
///
/// Shortens to the fair share `available / (others + 1)` where more than that is asked for, rounded
/// down to the increment, never below one increment (D5); goes on to the next source only when a
/// pool's last increment is held (D4, D5).
pub fn reserve(target: Seconds, pools: &[PoolSide], credits: Option<&CreditSide>) -> Reservation {
    let current = current_source(pools, credits);
    let mut reservation = Reservation {
        pools: vec![Seconds::ZERO; pools.len()],
        money: Micros::ZERO,
        covered: Seconds::ZERO,
        reach: Reach::Full,
    };
    let mut rest = target;
    for (i, pool) in pools.iter().enumerate() {
        let mut taken = pool.taken;
        if i >= current {
            let wanted = rest.max(Seconds::ZERO).round_up(pool.increment).minus_or_zero(taken);
            let left = pool.available.max(Seconds::ZERO).round_down(pool.increment);
            let share = Seconds(pool.available.max(Seconds::ZERO).0 / (pool.others + 1))
                .round_down(pool.increment)
                .max(pool.increment);
            let added = wanted.min(share).min(left);
            reservation.pools[i] = added;
            taken += added;
            if added < wanted && added < left {
                reservation.covered += taken;
                reservation.reach = Reach::Shared;
                return reservation;
            }
        }
        reservation.covered += taken;
        rest -= taken;
    }
    match credits {
        Some(credits) if rest.is_positive() => {
            let (added, reach) = reserve_money(rest, credits);
            reservation.money = added;
            reservation.covered += credits.tariff.affordable(credits.taken + added, rest);
            reservation.reach = reach;
        }
        None if rest.is_positive() => reservation.reach = Reach::Exhausted,
        _ => {}
    }
    reservation
}

/// Money to add so that the line pays for `rest` seconds, with the same share rule as a pool.
fn reserve_money(rest: Seconds, credits: &CreditSide) -> (Micros, Reach) {
    let CreditSide { taken, tariff, .. } = *credits;
    let wanted = tariff.cost(rest).minus_or_zero(taken);
    let available = credits.available.max(Micros::ZERO);
    let limit = credits.limit.unwrap_or(available).max(Micros::ZERO);
    let velocity = credits.velocity.unwrap_or(available).max(Micros::ZERO);
    let left = available.min(limit).min(velocity);
    let share = Micros(available.0 / (credits.others + 1)).min(left);
    if wanted <= share {
        return (wanted, Reach::Full);
    }
    // Price of one increment more than `held` pays for, on top of `held`.
    let next = |held: Micros| tariff.cost(tariff.affordable(held, rest) + Seconds(1)) - held;
    let fair = tariff.cost(tariff.affordable(taken + share, rest)).minus_or_zero(taken);
    let added = if fair.is_positive() {
        fair
    } else if next(taken) <= left {
        next(taken)
    } else {
        Micros::ZERO
    };
    let reach = if added >= wanted {
        Reach::Full
    } else if next(taken + added) <= left - added {
        Reach::Shared
    } else if credits.velocity.is_some_and(|_| next(taken + added) > velocity - added) {
        // Told before any other cause: a sign of fraud (the contract's order of decisions).
        Reach::Velocity
    } else if credits.limit.is_some_and(|_| next(taken + added) > limit - added) {
        Reach::SpendLimit
    } else {
        Reach::Exhausted
    };
    (added, reach)
}

/// What `used` seconds cost each source: first what the call holds, in the order held, then what is
/// left in funding order; the rest is an explicit shortfall (contract rules 5 and 11).
pub fn charge(used: Seconds, pools: &[PoolSide], credits: Option<&CreditSide>) -> Charge {
    let current = current_source(pools, credits);
    let mut charge = Charge {
        pools: vec![Seconds::ZERO; pools.len()],
        money: Micros::ZERO,
        money_duration: Seconds::ZERO,
        shortfall_duration: Seconds::ZERO,
        shortfall_money: Micros::ZERO,
    };
    let mut rest = used;
    for (i, pool) in pools.iter().enumerate() {
        let mut capacity = pool.taken;
        if i >= current {
            capacity += pool.available.max(Seconds::ZERO).round_down(pool.increment);
        }
        let paid = rest.max(Seconds::ZERO).round_up(pool.increment).min(capacity);
        charge.pools[i] = paid;
        rest -= paid;
    }
    if !rest.is_positive() {
        return charge;
    }
    let Some(credits) = credits else {
        charge.shortfall_duration = rest;
        return charge;
    };
    let price = credits.tariff.cost(rest);
    let capacity = credits.taken + credits.available.max(Micros::ZERO);
    charge.money = price.min(capacity);
    charge.shortfall_money = price - charge.money;
    charge.money_duration = credits.tariff.affordable(charge.money, rest);
    charge.shortfall_duration = rest.minus_or_zero(charge.money_duration);
    charge
}
