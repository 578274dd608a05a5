//! Balances as an operator reads them, from what the ledger keeps.

use std::collections::BTreeMap;

use crate::charging::ids::{LotId, PoolId};
use crate::charging::month::Month;
use crate::charging::plans::Family;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::recharge::RechargeRequest;
use crate::ledger::state::{Bucket, Lot};
use crate::ledger::{Balance, pool_id};

/// A pool as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolBalance {
    /// Its name, month included.
    pub id: PoolId,
    /// Country whose users share it; empty for the tenant-wide pool.
    pub country: String,
    /// Licence code.
    pub plan: String,
    /// `DOMESTIC`, `INTERNATIONAL` or `CONFERENCE`.
    pub counter: String,
    /// The user, where it is one user's; else empty.
    pub user: String,
    /// Key of its month.
    pub month: String,
    /// Its size with its corrections, never less than held and spent (D9).
    pub granted: Seconds,
    /// Held by open calls.
    pub held: Seconds,
    /// Charged.
    pub spent: Seconds,
    /// What new calls may take.
    pub available: Seconds,
}

/// The wallet as an operator reads it, by the ledger's clock: a lot past its expiry counts as expired
/// even before a sweep has come by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credits {
    /// All purchases.
    pub funded: Micros,
    /// Sum of the corrections; may be below zero.
    pub adjusted: Micros,
    /// Held by open calls.
    pub held: Micros,
    /// Charged.
    pub spent: Micros,
    /// Lost by expiry.
    pub expired: Micros,
    /// What new calls may take.
    pub available: Micros,
    /// Lots with something left or held, in drawing order.
    pub lots: Vec<CreditLot>,
    /// What is post-paid this month; no part of the sums above.
    pub overage: Overage,
    /// What was post-paid in earlier months, latest first.
    pub past_overage: Vec<Overage>,
    /// What settled calls fell short of and no purchase has paid.
    pub owed: Micros,
}

/// Auto-recharge as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RechargeState {
    /// Whether recharges are asked for.
    pub enabled: bool,
    /// Key of the request in flight, and the request.
    pub in_flight: Option<(LotId, RechargeRequest)>,
    /// Failures since the last success.
    pub failures: i64,
    /// No request before this instant; zero where no failure is waited out.
    pub next_attempt_at: Millis,
    /// Asked for on the current day of UTC, less what failed.
    pub requested_today: Micros,
    /// Most of that; `None` where there is no cap.
    pub daily_cap: Option<Micros>,
}

/// What is post-paid in one month (rule 42).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overage {
    /// Key of the month.
    pub month: String,
    /// Held by open calls.
    pub held: Micros,
    /// Charged.
    pub spent: Micros,
}

/// Most earlier months whose overage is listed: two years, so that an answer stays small.
const PAST_MONTHS: usize = 24;

/// A lot as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditLot {
    /// Key of the purchase.
    pub key: LotId,
    /// When it was bought.
    pub purchased_at: Millis,
    /// When what is left is lost.
    pub expires_at: Millis,
    /// What was bought.
    pub amount: Micros,
    /// Sum of its corrections; may be below zero.
    pub adjusted: Micros,
    /// Neither held, spent nor expired.
    pub remaining: Micros,
}

/// A tenant's balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantBalance {
    /// ISO 4217 code.
    pub currency: String,
    /// Pools of the current month, by id.
    pub pools: Vec<PoolBalance>,
    /// The wallet.
    pub credits: Credits,
    /// Auto-recharge; `None` where it was never set up.
    pub recharge: Option<RechargeState>,
}

/// What may still be spent of a tenant's wallet, holds included.
pub(super) fn wallet(balance: &Balance, now: Millis) -> Micros {
    let lots = balance.lots.iter().map(|lot| &lot.bucket);
    let left = |bucket: &Bucket| match bucket.ends <= now {
        true => bucket.held,
        false => bucket.held + bucket.available(),
    };
    Micros(lots.map(left).sum())
}

pub(super) fn pools(balance: &Balance, month: &Month) -> Vec<PoolBalance> {
    let known: BTreeMap<&str, &Bucket> =
        balance.pools.iter().map(|(id, bucket)| (id.as_str(), bucket)).collect();
    let mut pools: Vec<PoolBalance> = balance
        .sizes
        .iter()
        .filter_map(|(family, size)| {
            let unused = Bucket { funded: size.0, ..Bucket::default() };
            let bucket = known.get(pool_id(family, &month.key).as_str()).copied();
            let bucket = bucket.unwrap_or(&unused);
            let granted = (bucket.funded + bucket.adjusted).max(bucket.held + bucket.spent);
            if granted == 0 {
                return None;
            }
            let Family { country, plan, counter, user } = Family::of(family);
            Some(PoolBalance {
                id: PoolId::of(family, &month.key),
                country: country.to_owned(),
                plan: plan.to_owned(),
                counter: counter.to_owned(),
                user: user.to_owned(),
                month: month.key.clone(),
                granted: Seconds(granted),
                held: Seconds(bucket.held),
                spent: Seconds(bucket.spent),
                available: Seconds(bucket.available()),
            })
        })
        .collect();
    pools.sort_by(|a, b| a.id.cmp(&b.id));
    pools
}

pub(super) fn credits(balance: &Balance, now: Millis, month: &Month) -> Credits {
    let mut credits = Credits { owed: balance.owed, ..Credits::default() };
    let overage = |lot: &Lot| Overage {
        month: lot.key.overage_month().to_owned(),
        held: Micros(lot.bucket.held),
        spent: Micros(lot.bucket.spent),
    };
    let (this, mut past): (Vec<_>, Vec<_>) =
        balance.overage.iter().map(overage).partition(|overage| overage.month == month.key);
    let nothing = || Overage { month: month.key.clone(), ..Overage::default() };
    credits.overage = this.into_iter().next().unwrap_or_else(nothing);
    past.sort_by(|a, b| b.month.cmp(&a.month));
    past.truncate(PAST_MONTHS);
    credits.past_overage = past;
    for lot in &balance.lots {
        let bucket = &lot.bucket;
        let lapsed = if bucket.ends <= now { bucket.available() } else { 0 };
        credits.funded += Micros(bucket.funded);
        credits.adjusted += Micros(bucket.adjusted);
        credits.held += Micros(bucket.held);
        credits.spent += Micros(bucket.spent);
        credits.expired += Micros(bucket.expired + lapsed);
        credits.available += Micros(bucket.available() - lapsed);
        let lot = credit_lot(lot, now);
        if lot.remaining.is_positive() || bucket.held > 0 {
            credits.lots.push(lot);
        }
    }
    credits
}

pub(super) fn recharge(balance: &Balance, now: Millis) -> Option<RechargeState> {
    let recharge = balance.recharge?;
    let daily_cap = recharge.terms.filter(|terms| terms.daily_cap >= 0);
    Some(RechargeState {
        enabled: recharge.terms.is_some(),
        in_flight: balance.in_flight.map(|request| (recharge.last(), request)),
        failures: recharge.failures,
        next_attempt_at: if now < recharge.not_before { recharge.not_before } else { Millis::ZERO },
        requested_today: recharge.requested_today(now),
        daily_cap: daily_cap.map(|terms| Micros(terms.daily_cap)),
    })
}

pub(super) fn credit_lot(lot: &Lot, now: Millis) -> CreditLot {
    let lapsed = lot.bucket.ends <= now;
    CreditLot {
        key: lot.key.clone(),
        purchased_at: lot.bucket.starts,
        expires_at: lot.bucket.ends,
        amount: Micros(lot.bucket.funded),
        adjusted: Micros(lot.bucket.adjusted),
        remaining: Micros(if lapsed { 0 } else { lot.bucket.available() }),
    }
}
