//! Corrections of balances and of settled calls: each by a key, with a reason and an operator (D19).

use std::borrow::Cow;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::administration::balance::{credits, pools};
use crate::administration::{
    Administration, AdministrationError, Credits, MAX_ATTEMPTS, MAX_WALLET, PoolBalance, kept_since,
};
use crate::charging::ids::{AdjustmentId, CallId, LotId, PoolId, TenantId};
use crate::charging::money::format_micros;
use crate::charging::month::{Month, parse_zone};
use crate::charging::profile::TenantProfile;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::AdjustmentReport;
use crate::journal::entry::Effect;
use crate::ledger::state::{Call, CallState, Entry, EntryKind};
use crate::ledger::{AdjustBalance, AdjustSettlement, Adjusted, Correction, Ledger, Page};

/// Largest that a pool may become by corrections, some 31,000 years of talk: sums stay exact.
pub const MAX_POOL: Seconds = Seconds(1_000_000_000_000);

/// Entries of the journal that one page of adjustments looks through at most.
const MAX_SCANNED: usize = 20_000;

/// Who corrects, why, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Names the correction: it is applied once.
    pub key: AdjustmentId,
    /// Why.
    pub reason: String,
    /// Who.
    pub operator: String,
}

/// What is to be added to a bucket; negative is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// To a lot, in the currency of that code.
    Money(Micros, String),
    /// To a pool of the month.
    Minutes(Seconds),
}

/// A correction as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdjustmentRecord {
    /// The journal's entry.
    pub entry: Entry,
    /// What was said about it.
    pub report: AdjustmentReport,
}

impl AdjustmentRecord {
    fn of(entry: Entry) -> AdjustmentRecord {
        let report = AdjustmentReport::decode(&entry.report);
        AdjustmentRecord { entry, report }
    }
}

/// A correction of a balance, and the balances after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceAdjustment {
    /// Applied before.
    pub replayed: bool,
    /// The correction.
    pub adjustment: AdjustmentRecord,
    /// The pool as it is now, where one of this month was corrected.
    pub pool: Option<PoolBalance>,
    /// The wallet now.
    pub credits: Credits,
    /// ISO 4217 code.
    pub currency: String,
}

/// A correction of a settled call, and the call after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettlementAdjustment {
    /// Applied before.
    pub replayed: bool,
    /// The correction.
    pub adjustment: AdjustmentRecord,
    /// The call as it is now; `None` where it is forgotten.
    pub call: Option<Call>,
    /// ISO 4217 code.
    pub currency: String,
}

impl<L: Ledger> Administration<L> {
    /// Corrects a lot, or a pool of this month.
    pub async fn adjust_balance(
        &self,
        tenant: &TenantId,
        bucket: &str,
        amount: &Amount,
        authority: &Authority,
    ) -> Result<BalanceAdjustment, AdministrationError> {
        let profile = self.tenant_profile(tenant).await?;
        let missing = || AdministrationError::NoSuchBucket(tenant.clone(), bucket.to_owned());
        let (kind, number) = match amount {
            Amount::Money(_, currency) if *currency != profile.currency => {
                let reason =
                    format!("the tenant's currency is {}, not {currency}", profile.currency);
                return Err(refused("money.currency_code", reason));
            }
            Amount::Money(amount, _) => ("money", amount.0),
            Amount::Minutes(amount) => ("duration", amount.0),
        };
        let fingerprint = fingerprint(authority, &["balance", bucket, kind, &number.to_string()]);
        for _ in 0..MAX_ATTEMPTS {
            let correction = match amount {
                Amount::Money(amount, _) => {
                    let lot = LotId::new(bucket).map_err(|_| missing())?;
                    Correction::Lot { lot, amount: *amount, most: MAX_WALLET }
                }
                Amount::Minutes(amount) => {
                    let pool = PoolId::new(bucket).map_err(|_| missing())?;
                    // Read afresh, like the clock: the time zone decides which month it is.
                    let found = self.ledger().tenant(tenant).await?;
                    let record = found.outcome.record.ok_or_else(|| self.no_such(tenant))?;
                    let zone = parse_zone(&record.profile.time_zone).unwrap_or(TimeZone::UTC);
                    let month = Month::containing(found.now, &zone);
                    Correction::Pool { pool, amount: *amount, month, most: MAX_POOL }
                }
            };
            let command = AdjustBalance {
                tenant: tenant.clone(),
                key: authority.key.clone(),
                fingerprint: fingerprint.clone(),
                correction,
                report: report(authority).encode(),
            };
            let of_pool = matches!(amount, Amount::Minutes(_));
            let reply = self.ledger().adjust_balance(&command).await?;
            if matches!(reply.outcome, Adjusted::Applied(_) | Adjusted::Replayed(_)) {
                // A repeat too: nobody may have heard of the first attempt, nor noted it.
                let command = Cow::Borrowed(&command);
                self.control.note(tenant, reply.now, || Effect::BalanceAdjusted { command });
            }
            let (replayed, entry) = match reply.outcome {
                Adjusted::Applied(entry) => (false, entry),
                Adjusted::Replayed(entry) => (true, entry),
                Adjusted::Stale => continue,
                Adjusted::NotFound => return Err(missing()),
                Adjusted::Conflict => return Err(conflict(authority)),
                Adjusted::Over if of_pool => {
                    let reason = "the month of the pool is over; its minutes are gone with it";
                    return Err(refused("bucket_id", reason.to_owned()));
                }
                Adjusted::Over => {
                    let reason = "the lot has lapsed; what is owed can be given as a purchase";
                    return Err(refused("bucket_id", reason.to_owned()));
                }
                Adjusted::PostPaid => {
                    let reason = "overage is what its calls were charged; correct those calls";
                    return Err(refused("bucket_id", reason.to_owned()));
                }
                Adjusted::Short(left) => {
                    let left = told(left, of_pool, &profile);
                    return Err(refused(kind, format!("only {left} can be taken away")));
                }
                Adjusted::Full(room) => {
                    let room = told(room, of_pool, &profile);
                    let reason = format!("only {room} can be added before the limit is reached");
                    return Err(refused(kind, reason));
                }
                other @ (Adjusted::NotSettled(_) | Adjusted::Unchanged) => {
                    return Err(unforeseen(&other));
                }
            };
            let after = self.ledger().balance(tenant).await?;
            let month = self.known_tenant(tenant).await?.month(after.now);
            let mut pools = pools(&after.outcome, &month).into_iter();
            return Ok(BalanceAdjustment {
                replayed,
                adjustment: AdjustmentRecord::of(entry),
                pool: pools.find(|pool| of_pool && pool.id.as_str() == bucket),
                credits: credits(&after.outcome, after.now, &month),
                currency: profile.currency,
            });
        }
        Err(self.contended(tenant))
    }

    /// Corrects the usage of a settled call, and charges or gives back the difference.
    pub async fn adjust_settlement(
        &self,
        tenant: &TenantId,
        call: &CallId,
        used: Seconds,
        authority: &Authority,
    ) -> Result<SettlementAdjustment, AdministrationError> {
        let profile = self.tenant_profile(tenant).await?;
        let asked = ["settlement", call.as_str(), &used.to_string()];
        let fingerprint = fingerprint(authority, &asked);
        for _ in 0..MAX_ATTEMPTS {
            let known = self.ledger().call(tenant, call).await?;
            let over = known.as_ref().map(|call| (call.used, call.money_spent()));
            let over = over.unwrap_or_default();
            let report = AdjustmentReport {
                used_before: over.0,
                money_before: over.1,
                paid_by: known.as_ref().map(paid_by).unwrap_or_default(),
                ..report(authority)
            };
            let command = AdjustSettlement {
                tenant: tenant.clone(),
                key: authority.key.clone(),
                fingerprint: fingerprint.clone(),
                call: call.clone(),
                used,
                over,
                report: report.encode(),
            };
            let reply = self.ledger().adjust_settlement(&command).await?;
            if matches!(reply.outcome, Adjusted::Applied(_) | Adjusted::Replayed(_)) {
                // A repeat too: nobody may have heard of the first attempt, nor noted it.
                let command = Cow::Borrowed(&command);
                self.control.note(tenant, reply.now, || Effect::SettlementAdjusted { command });
            }
            let (replayed, entry) = match reply.outcome {
                Adjusted::Applied(entry) => (false, entry),
                Adjusted::Replayed(entry) => (true, entry),
                Adjusted::Stale => continue,
                Adjusted::NotFound => {
                    return Err(AdministrationError::CallForgotten(tenant.clone(), call.clone()));
                }
                Adjusted::Conflict => return Err(conflict(authority)),
                Adjusted::NotSettled(state) => return Err(refused("call_id", unsettled(state))),
                Adjusted::Unchanged => {
                    let reason = format!("the call is recorded with {used}s already");
                    return Err(refused("used_duration", reason));
                }
                other @ (Adjusted::Over
                | Adjusted::PostPaid
                | Adjusted::Short(_)
                | Adjusted::Full(_)) => {
                    return Err(unforeseen(&other));
                }
            };
            return Ok(SettlementAdjustment {
                replayed,
                adjustment: AdjustmentRecord::of(entry),
                call: self.ledger().call(tenant, call).await?,
                currency: profile.currency,
            });
        }
        Err(self.contended(tenant))
    }

    /// Corrections, newest first, since when all are kept, where these reach back to what is trimmed, and
    /// the tenant's currency. A page may have fewer than asked for, or none, before the last: the journal
    /// is looked through, a limited part of it for each page.
    pub async fn adjustments(
        &self,
        tenant: &TenantId,
        mut before: Option<String>,
        most: usize,
    ) -> Result<(Page<AdjustmentRecord>, Option<Millis>, String), AdministrationError> {
        let profile = self.tenant_profile(tenant).await?;
        let mut scanned = 0;
        let mut since = None;
        loop {
            let page = self.ledger().journal(tenant, before.as_deref(), most).await?;
            scanned += page.items.len();
            since = since.or(kept_since(page.items.iter()));
            let adjusted = page.items.into_iter().filter(|e| e.kind == EntryKind::Adjusted);
            let items: Vec<_> = adjusted.map(AdjustmentRecord::of).collect();
            before = page.next;
            if !items.is_empty() || before.is_none() || scanned >= MAX_SCANNED {
                return Ok((Page { items, next: before }, since, profile.currency));
            }
        }
    }

    async fn tenant_profile(
        &self,
        tenant: &TenantId,
    ) -> Result<TenantProfile, AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        Ok(known.profile().ok_or_else(|| self.no_such(tenant))?.clone())
    }
}

fn report(authority: &Authority) -> AdjustmentReport {
    AdjustmentReport {
        key: authority.key.as_str().to_owned(),
        reason: authority.reason.clone(),
        operator: authority.operator.clone(),
        ..AdjustmentReport::default()
    }
}

/// The bucket that paid for the last part of a call; empty where none did.
fn paid_by(call: &Call) -> String {
    let lots = call.money.iter().flat_map(|money| &money.lots);
    let lot = lots.rev().find(|line| line.spent.is_positive());
    let pool = || call.pools.iter().rev().find(|line| line.spent.is_positive());
    match lot {
        Some(line) => crate::ledger::lot_bucket(line.lot.as_str()),
        None => {
            pool().map(|line| crate::ledger::pool_bucket(line.pool.as_str())).unwrap_or_default()
        }
    }
}

/// Digest of all that is asked for, 128 bits as hex.
fn fingerprint(authority: &Authority, asked: &[&str]) -> String {
    let mut digest = Sha256::new();
    for field in asked.iter().chain(&[authority.reason.as_str(), authority.operator.as_str()]) {
        digest.update(field.len().to_be_bytes());
        digest.update(field.as_bytes());
    }
    hex::encode(&digest.finalize()[..16])
}

fn refused(field: &str, reason: String) -> AdministrationError {
    AdministrationError::Refused { field: field.to_owned(), reason }
}

fn conflict(authority: &Authority) -> AdministrationError {
    let reason = format!(
        "adjustment {} was applied before with another bucket, call, amount, reason or operator",
        authority.key
    );
    refused("key", reason)
}

fn told(number: i64, of_pool: bool, profile: &TenantProfile) -> String {
    match of_pool {
        true => format!("{number}s"),
        false => format!("{} {}", format_micros(Micros(number)), profile.currency),
    }
}

fn unsettled(state: CallState) -> String {
    let what = match state {
        CallState::Ringing | CallState::Answered => {
            return format!("the call is {state}: SettleCall ends it with what was used");
        }
        CallState::Released | CallState::Expired => {
            return format!(
                "the call is {state}: a SettleCall with the usage charges the difference; what was \
                 charged too much is given back by AdjustBalance"
            );
        }
        CallState::Denied => "was refused",
        CallState::Ended => "ended before it was authorized",
        CallState::Settled => "is settled",
    };
    format!("the call {what}: it was charged nothing; correct a balance by AdjustBalance")
}

fn unforeseen(outcome: &Adjusted) -> AdministrationError {
    crate::ledger::LedgerError::Corrupt(format!("a correction is answered {outcome:?}")).into()
}
