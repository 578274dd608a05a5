//! The ledger port: the commands that change balances, and what they answer.
//!
//! A ledger keeps every tenant's buckets, calls and journal, and applies each command atomically by
//! its own clock. It decides nothing about entitlement or price: the caller says what may be taken
//! ([`Offer`]), the ledger whether it is still there, and takes it. Two implementations stand behind
//! the port, `memory` and `redis`; one contract suite and one model test judge both.
//!
//! Commands that can be serialised are kept in the journals of sidecars, as maps by field name: a field that
//! is added to one of them has `#[serde(default)]`, or a sidecar that was upgraded cannot read what it
//! accepted before.

pub mod audit;
pub mod file;
pub mod marks;
pub mod memory;
pub mod recharge;
pub mod redis;
pub mod rewriting;
pub mod state;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

use crate::charging::decision::{Decision, Nuance};
use crate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId, TenantId};
use crate::charging::month::Month;
use crate::charging::profile::{PayerProfile, Purchase, SpendVelocity, TenantProfile};
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::marks::{Lost, Marks};
use crate::ledger::recharge::{Recharge, RechargeRequest};
use crate::ledger::state::{
    Adjustment, Block, BlockNote, BlockedBy, Bucket, Call, CallState, Entry, Lot, MoneyLine,
    PayerAccount, PoolLine, Reader, SpendRing, TenantAccount, Terms, Upkeep, VelocityLine, Wallet,
    nuance_code,
};
use crate::metrics::LedgerFault;

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The command never arrived; it may be sent again.
    #[error("the ledger is out of reach: {0}")]
    Unavailable(String),
    /// The command may have been applied; send it again with the same key.
    #[error("the ledger did not answer in time; the command may have been applied: {0}")]
    Indeterminate(String),
    /// What is stored cannot be read: an alarm, not a retry.
    #[error("the ledger holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// A page was asked for with a cursor that no page ever gave.
    #[error("expected a cursor from an earlier page, found {0:?}")]
    BadCursor(String),
}

impl LedgerError {
    /// As figures tell it.
    pub fn fault(&self) -> LedgerFault {
        match self {
            LedgerError::Unavailable(_) => LedgerFault::Unavailable,
            LedgerError::Indeterminate(_) => LedgerFault::Indeterminate,
            LedgerError::Corrupt(_) => LedgerFault::Corrupt,
            LedgerError::BadCursor(_) => LedgerFault::BadCursor,
        }
    }
}

/// An outcome with the instant of the store's clock at which it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// The store's clock.
    pub now: Millis,
    /// What happened.
    pub outcome: T,
}

/// What a caller knew when it made a proposal; the ledger answers stale when it has moved on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of the tenant; 0 where it is unknown.
    pub tenant: u64,
    /// Of the payer; 0 where it is unknown.
    pub payer: u64,
}

/// Decide a call, and hold what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorize {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// Digest of the fields that change money (contract rule 3).
    pub fingerprint: String,
    /// Who pays; need not exist when the proposal is a refusal.
    pub payer: PayerId,
    /// The SBC trunk; may be empty.
    pub trunk: String,
    /// What the proposal rests on.
    pub versions: Versions,
    /// Kept with the call and its journal entry, never read.
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
    /// What the rules say, as far as they can say it without balances.
    pub proposal: Proposal,
    /// How long a refusal is kept for retries.
    pub denied_retention: Seconds,
    /// How long holds that expire on the way are kept for late reports.
    pub ended_retention: Seconds,
}

impl Authorize {
    /// The call, with nothing held.
    pub(crate) fn new_call(&self, now: Millis, state: CallState, decision: Decision) -> Call {
        Call {
            fingerprint: self.fingerprint.clone(),
            decision: Some(decision),
            payer: self.payer.as_str().to_owned(),
            trunk: self.trunk.clone(),
            context: self.context.clone(),
            ..Call::new(state, now)
        }
    }

    /// The call as it stands if it is decided as proposed, and its first pool has all that it asks for; without its
    /// two instants.
    pub(crate) fn proposed(&self) -> Call {
        let offer = match &self.proposal {
            Proposal::Refuse(decision, nuance) => {
                let mut call = self.new_call(Millis::ZERO, CallState::Denied, *decision);
                call.nuance = nuance_code(*nuance);
                return call;
            }
            Proposal::Grant(offer) | Proposal::Record(offer) => offer,
        };
        let mut call = self.new_call(Millis::ZERO, CallState::Ringing, offer.decision);
        offer.shape(&mut call);
        call.granted = offer.requested;
        if let ([first, ..], false) = (&mut call.pools[..], offer.terms.free) {
            first.held = offer.requested.round_up(first.increment);
        }
        call
    }

    /// Gives a call that was decided now as proposed its two instants.
    pub(crate) fn date(&self, call: &mut Call, now: Millis) {
        (call.authorized_at, call.deadline) = (now, self.first_deadline(now, call));
    }

    /// When the call that was decided now expires or is forgotten, if nothing more is heard of it.
    pub(crate) fn first_deadline(&self, now: Millis, call: &Call) -> Millis {
        let terms = &call.terms;
        now.after(match (call.state, terms.reports_answer) {
            (CallState::Denied, _) => self.denied_retention,
            (_, true) => terms.ringing,
            (_, false) => terms.ringing + call.granted + terms.grace,
        })
    }
}

/// What the rules say before balances are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    /// Refused, whatever the balances are.
    Refuse(Decision, Nuance),
    /// To be granted if limits and balances allow.
    Grant(Offer),
    /// Granted already, without the ledger (contract rule 13): no version, limit or balance is
    /// looked at, only the record is kept.
    Record(Offer),
}

/// What a call may take, in funding order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The decision if it is granted.
    pub decision: Decision,
    /// The month that the caller believes it is; the ledger answers stale outside it.
    pub month: Month,
    /// Frozen terms.
    pub terms: Terms,
    /// How long the call asks for.
    pub requested: Seconds,
    /// Pools that cover the call, in funding order.
    pub pools: Vec<PoolOffer>,
    /// Whether and how credits may pay.
    pub money: Option<MoneyOffer>,
    /// Limits to check before funding.
    pub limits: CallLimits,
    /// The refusal when no source has a first increment left.
    pub when_exhausted: Decision,
    /// The refusal when the spend limit forbids the first increment.
    pub when_spend_limited: Decision,
    /// The refusal when the tenant's spend velocity forbids it.
    pub when_velocity_limited: Decision,
}

impl Offer {
    /// Gives a call what never changes of it.
    pub(crate) fn shape(&self, call: &mut Call) {
        let month = &self.month.key;
        let line = |pool: &PoolOffer| PoolLine {
            pool: PoolId::of(&pool.family, month),
            closed_by: match pool.closed_by.as_str() {
                "" => String::new(),
                family => pool_id(family, month),
            },
            increment: pool.increment,
            held: Seconds::ZERO,
            spent: Seconds::ZERO,
        };
        call.terms = self.terms;
        call.pools = self.pools.iter().map(line).collect();
        call.money = self.money.map(|money| money.line(month));
    }
}

/// A pool that covers a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolOffer {
    /// The pool without its month, such as `US:MCOPSTN1:DOMESTIC`.
    pub family: String,
    /// The family of a counter that closes this one when used up (D11); empty where there is none.
    pub closed_by: String,
    /// Charging increment (D1).
    pub increment: Seconds,
}

/// Credits for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyOffer {
    /// To be frozen.
    pub tariff: Tariff,
    /// The payer's monthly spend limit.
    pub spend_limit: Option<Micros>,
    /// Whether the call goes on post-paid once every lot is used (rule 42).
    pub overage: bool,
    /// Most money that all calls of the tenant may commit in a length of time.
    pub velocity: Option<SpendVelocity>,
}

impl MoneyOffer {
    /// The line of a call that has taken nothing yet.
    pub fn line(&self, month: &str) -> MoneyLine {
        MoneyLine {
            tariff: self.tariff,
            spend_limit: self.spend_limit.map_or(-1, |limit| limit.0),
            month: month.to_owned(),
            lots: vec![],
            overage: self.overage,
            velocity: self.velocity.as_ref().map(VelocityLine::new),
        }
    }
}

/// Limits on the number of calls; absent means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// The payer's open calls.
    pub payer_calls: Option<u32>,
    /// The tenant's open calls.
    pub tenant_calls: Option<u32>,
    /// The tenant's decisions in one second of the store's clock.
    pub calls_per_second: Option<u32>,
}

/// The answer to [`Authorize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorized {
    /// Decided now: the call is ringing or denied.
    Decided(Call),
    /// Decided before, with the same payload: denied, ringing or answered.
    Replayed(Call),
    /// The key was used with another payload; nothing changed.
    Conflict,
    /// The call of this key is over; nothing changed.
    Ended,
    /// Too many calls this second; nothing is stored as an answer.
    RateLimited,
    /// A version or the month moved on: decide again from fresh data.
    Stale,
}

/// The call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
}

/// The answer to [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// No such call.
    NotFound,
    /// The call was refused.
    Denied(Call),
    /// Where it stands now.
    Standing(Call),
    /// Where it stands; the answer was reported or implied before.
    Repeated(Call),
}

/// Report usage, ask for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extend {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// Usage since answer.
    pub used: Seconds,
    /// Number of the report; absent means newer than any before.
    pub sequence: Option<i64>,
    /// How long beyond `used` the call asks for.
    pub requested: Seconds,
}

/// The answer to [`Extend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// No such call.
    NotFound,
    /// The call was refused; the usage is recorded as unauthorized.
    Denied(Call),
    /// The call is over.
    Ended(Call),
    /// The grant in force; `replayed` when the report was an old one.
    Granted {
        /// The call after it.
        call: Call,
        /// Whether this repeats an earlier answer.
        replayed: bool,
    },
    /// Usage is recorded, nothing is granted: the tenant is suspended or the payer blocked.
    Stopped(Call, Decision),
}

/// End a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// How it ended.
    pub how: Ending,
    /// Kept with the journal entry, never read.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
    /// How long the ended call is kept for repeats and late reports.
    pub ended_retention: Seconds,
    /// Whether the ledger may have lost the call, since there is a signed grant of it or a journal: one that it does
    /// not know is then [`Ended::Unknown`], neither parked nor remembered as ended, and [`Restore`] may follow.
    #[serde(default)]
    pub has_grant: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// After so much usage; zero is never answered.
    Settle(Seconds),
    /// Never answered; refused after an answer.
    Release,
    /// Ended by an operator or a restarted SBC: the proven usage is charged as if the hold had run
    /// out, so that a true report that comes later is charged the difference.
    Proven,
}

/// The answer to [`End`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The call as it is recorded now.
    Done {
        /// What became of it.
        result: EndResult,
        /// The call after it.
        call: Call,
        /// Whether this repeats an earlier end.
        replayed: bool,
    },
    /// A release after the answer; nothing changed.
    AnsweredAlready(Call),
    /// [`Ending::Proven`] only: no such open call.
    NotOpen,
    /// No known call, and it may be a lost one ([`End::has_grant`]); nothing changed.
    Unknown,
}

/// Put back a call that the ledger has no memory of, as its signed grant tells it: with its frozen terms
/// and rate, and what is still there of what it held. The message that brought the grant then finds a
/// call like any other.
///
/// A call that was granted out of a lease while the ledger was away is brought to it the same way: what the
/// leases hold is given back, the call takes its part of it, and they take the rest again, at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// From this instant of the store's clock the grant is not believed: what has ended since it was made
    /// may be forgotten.
    pub until: Millis,
    /// The call as it was when the grant was made, `deadline` and all. What its lines hold is what they
    /// are to hold again.
    pub granted: Call,
    /// The month of its pools, which are opened where the ledger has no memory of them either.
    pub month: Month,
    /// Calls that ring and hold what it takes first; those that are over lend nothing. With any of them a
    /// refusal, or a smaller grant, of the same request gives way: see [`Restore::replaces`].
    #[serde(default)]
    pub leases: Vec<CallId>,
}

impl Restore {
    /// The call before it holds anything.
    pub fn unfunded(&self) -> Call {
        let granted = &self.granted;
        let empty = |line: &PoolLine| PoolLine {
            held: Seconds::ZERO,
            spent: Seconds::ZERO,
            ..line.clone()
        };
        let money = granted.money.as_ref().map(|money| MoneyLine {
            lots: vec![],
            velocity: money
                .velocity
                .as_ref()
                .map(|line| VelocityLine { slots: vec![], ..line.clone() }),
            ..money.clone()
        });
        let ringing = granted.state == CallState::Ringing;
        Call {
            state: if ringing { CallState::Ringing } else { CallState::Answered },
            pools: granted.pools.iter().map(empty).collect(),
            money,
            ..granted.clone()
        }
    }

    /// Whether a call that the ledger knows gives way: a refusal, or a ringing call that holds less. The
    /// client has been told of this grant, and not of what the ledger decided on the same request.
    pub fn replaces(&self, known: &Call) -> bool {
        let holds = |call: &Call| {
            let money = call.money.as_ref().map_or(Micros::ZERO, MoneyLine::held);
            (call.pools.iter().map(|line| line.held).sum::<Seconds>(), money)
        };
        let (seconds, money) = holds(known);
        let (more_seconds, more_money) = holds(&self.granted);
        let gives_way = match known.state {
            CallState::Denied => !known.parked.is_positive(),
            CallState::Ringing => seconds < more_seconds || money < more_money,
            _ => false,
        };
        gives_way && !self.leases.is_empty() && known.fingerprint == self.granted.fingerprint
    }

    /// What is left of a pool's id without the month; `None` where it is a pool of another month.
    pub fn family<'a>(&self, pool: &'a PoolId) -> Option<&'a str> {
        (pool.month() == self.month.key).then(|| pool.family())
    }
}

/// The answer to [`Restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The call is open again.
    Restored,
    /// The ledger knows the call; nothing changed, whatever the grant says.
    Known,
    /// The grant is too old; nothing changed.
    TooLate,
    /// The ledger knows no such tenant; nothing changed.
    NoTenant,
}

/// What became of an ended call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndResult {
    /// Charged.
    Settled,
    /// Charged before, with another usage; the recorded values stand.
    AlreadySettled,
    /// Nothing charged, everything given back.
    Released,
    /// Usage without a grant is recorded, nothing charged.
    Parked,
    /// In the journal of a sidecar, to be charged when the ledger is back; no ledger answers this.
    Accepted,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Holds that ran out.
    pub expired: u32,
    /// Ended calls and refusals forgotten.
    pub forgotten: u32,
    /// Lots that lapsed.
    pub lapsed: u32,
}

/// The answer to a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purchased {
    /// The lot is in the wallet.
    Applied,
    /// The same purchase was applied before.
    Replayed,
    /// The key was used for another amount or instant, or is overage's; nothing changed.
    Conflict,
}

/// Correct a lot, or a pool of the month (D19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustBalance {
    /// Whose ledger.
    pub tenant: TenantId,
    /// Names the correction: it is applied once.
    pub key: AdjustmentId,
    /// Digest of what is asked for.
    pub fingerprint: String,
    /// What is corrected, and by how much.
    pub correction: Correction,
    /// Kept with the journal entry, never read.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

/// What [`AdjustBalance`] corrects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Correction {
    /// A lot that has not lapsed.
    Lot {
        /// Which one.
        lot: LotId,
        /// To be added; negative is taken away.
        amount: Micros,
        /// Most that the wallet may hold after it, available and held, and that may ever have been put
        /// into one lot.
        most: Micros,
    },
    /// A pool of the month, opened with its size where no call has opened it.
    Pool {
        /// Which one.
        pool: PoolId,
        /// To be added; negative is taken away.
        amount: Seconds,
        /// The month that the caller believes it is; the ledger answers stale outside it.
        month: Month,
        /// Largest that the pool may become.
        most: Seconds,
    },
}

/// Correct the usage of a settled call, and with it what it was charged (D19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustSettlement {
    /// Whose ledger.
    pub tenant: TenantId,
    /// Names the correction: it is applied once.
    pub key: AdjustmentId,
    /// Digest of what is asked for.
    pub fingerprint: String,
    /// The call leg.
    pub call: CallId,
    /// The corrected usage since answer.
    pub used: Seconds,
    /// The usage and the charge of money that the caller has seen; the ledger answers stale where the
    /// call has others.
    pub over: (Seconds, Micros),
    /// Kept with the journal entry, never read.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

/// The answer to [`AdjustBalance`] and [`AdjustSettlement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adjusted {
    /// Applied now, with this entry in the journal; here it is without its context, and below.
    Applied(Entry),
    /// The same correction was applied before, with this entry, which may be trimmed by now.
    Replayed(Entry),
    /// The key was used for another correction; nothing changed, here and below.
    Conflict,
    /// No such lot, pool or call.
    NotFound,
    /// The lot has lapsed, the month of the pool is over.
    Over,
    /// Overage is what was held and spent of it: there is nothing to correct but its calls.
    PostPaid,
    /// More would be taken away than the bucket has available, which is so much.
    Short(i64),
    /// More would be added than the limits leave room for, which is so much.
    Full(i64),
    /// The call is not settled.
    NotSettled(CallState),
    /// The call is recorded with that usage already.
    Unchanged,
    /// The month or the call moved on: send it again with what stands.
    Stale,
}

/// Block a payer apart from what was applied, or lift that block (rule 91).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBlock {
    /// Whose ledger.
    pub tenant: TenantId,
    /// Who is not to call any more, or is to again.
    pub payer: PayerId,
    /// Whether to block; else to lift.
    pub blocked: bool,
    /// Why, and who says so.
    pub note: BlockNote,
}

/// The answer to [`SetBlock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSet {
    /// No payer of that name was ever applied; nothing changed.
    Unknown,
    /// Blocked now.
    Blocked(Block),
    /// Blocked before: this block stands, nothing changed.
    Standing(Block),
    /// This block is lifted.
    Lifted(Block),
    /// There was none to lift; nothing changed.
    NotBlocked,
}

/// What the payment system says of a requested recharge (D16).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecharge {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The key of the request.
    pub key: LotId,
    /// What became of it.
    pub outcome: RechargeOutcome,
}

/// What became of a requested recharge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RechargeOutcome {
    /// The money has arrived: it makes a lot.
    Succeeded {
        /// The store's clock as last read.
        bought_at: Millis,
        /// 12 calendar months later (D17).
        expires_at: Millis,
    },
    /// It has not, and why.
    Failed(String),
}

/// The answer to [`ReportRecharge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RechargeReported {
    /// Recorded now; of a success, the lot is in the wallet.
    Applied,
    /// The same was reported before; nothing changed.
    Replayed,
    /// A failure of a recharge that has succeeded; nothing changed.
    SucceededBefore,
    /// No such request.
    NotFound,
    /// A success that would bring the wallet above [`state::MAX_MONEY`]; nothing changed, and it may be
    /// reported again.
    WalletFull,
}

/// A tenant as it is stored: what was applied, and the deck in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// What was applied.
    pub profile: TenantProfile,
    /// Version of the active deck named by the profile.
    pub deck: Option<String>,
}

/// A tenant as a sidecar caches it.
#[derive(Clone, Debug, Default)]
pub struct TenantView {
    /// Checked by the ledger at every authorize; 0 where the tenant is unknown.
    pub version: u64,
    /// `None` where the tenant is unknown.
    pub record: Option<TenantRecord>,
    /// Every number of the tenant's payers, for on-net calls.
    pub numbers: std::collections::HashSet<String>,
}

/// A payer as a sidecar caches it.
#[derive(Clone, Debug, Default)]
pub struct PayerView {
    /// Checked by the ledger at every authorize; 0 where the payer is unknown.
    pub version: u64,
    /// `None` where the payer is unknown. Shared: a sidecar remembers it beside an embedded ledger that has it.
    pub profile: Option<Arc<PayerProfile>>,
    /// Blocked apart from the profile.
    pub barred: bool,
}

/// A payer to create or update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayerUpdate {
    /// The new profile.
    pub profile: PayerProfile,
    /// Seconds that the payer's licences add to each pool family per month (rule 3).
    pub seats: Vec<(String, Seconds)>,
}

/// The answer to an update of a tenant or of payers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// So many were not as they already stood.
    Changed(usize),
    /// The month or the version moved on: send it again with the right one.
    Stale,
}

/// Balances of one tenant at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Seconds per month of every pool family.
    pub sizes: Vec<(String, Seconds)>,
    /// Every pool of every month on record.
    pub pools: Vec<(PoolId, Bucket)>,
    /// Every lot, soonest bought first.
    pub lots: Vec<Lot>,
    /// Open calls that hold money.
    pub wallet_holds: i64,
    /// How auto-recharge stands; none where it was never set up.
    pub recharge: Option<Recharge>,
    /// The request in flight.
    pub in_flight: Option<RechargeRequest>,
    /// What settled calls fell short of and no purchase has paid.
    pub owed: Micros,
    /// The overage of every month that has any, soonest first.
    pub overage: Vec<Lot>,
}

/// What one call would find; for quotes, which hold nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The tenant's counters.
    pub tenant: TenantAccount,
    /// The payer's counters.
    pub payer: PayerAccount,
    /// The pools asked for, in order; as they would be created where they do not exist yet.
    pub pools: Vec<Bucket>,
    /// Money that anybody may take now.
    pub credits: Micros,
    /// Open calls that hold money.
    pub wallet_holds: i64,
    /// The call of that key, where there is one.
    pub call: Option<Call>,
    /// The overage of the month; as it would be opened where there is none yet.
    pub overage: Bucket,
    /// What counts for the spend velocity.
    pub ring: SpendRing,
}

/// Everything of one tenant at one instant, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The tenant's counters.
    pub tenant: TenantAccount,
    /// Every payer's counters.
    pub payers: Vec<(PayerId, PayerAccount)>,
    /// Seconds per month of every pool family.
    pub sizes: Vec<(String, Seconds)>,
    /// Every pool of every month on record.
    pub pools: Vec<(PoolId, Bucket)>,
    /// Every lot, and the overage of every month.
    pub lots: Vec<Lot>,
    /// The drawing order.
    pub wallet: Wallet,
    /// Every call that is not forgotten.
    pub calls: Vec<(CallId, Call)>,
    /// The deadlines of the open calls.
    pub deadlines: Vec<(CallId, Millis)>,
    /// Everything that happened, oldest first.
    pub journal: Vec<Entry>,
    /// Every block that stands, in the order of payers.
    pub blocks: Vec<(PayerId, BlockedBy, Block)>,
    /// Every correction that was ever applied, by its key.
    pub adjustments: Vec<(AdjustmentId, Adjustment)>,
    /// What counts for the spend velocity.
    pub ring: SpendRing,
    /// Requests for recharges that are in flight or failed.
    pub recharges: Vec<(LotId, RechargeRequest)>,
}

/// Take a reader of the journal, or keep the one that is had: its lease begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeReader {
    /// Whose journal.
    pub tenant: TenantId,
    /// Name of the reader; made where there is none.
    pub reader: String,
    /// Who takes it.
    pub owner: String,
    /// How long nobody else may.
    pub lease: Seconds,
    /// Where a new one begins.
    pub since: Millis,
}

/// The answer to [`TakeReader`]: the reader as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The owner has it.
    Taken(Reader),
    /// Another has it, and its lease lasts; nothing changed.
    Busy(Reader),
}

/// An entry is done with: the next owner goes on after it. The lease begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveReader {
    /// Whose journal.
    pub tenant: TenantId,
    /// Name of the reader.
    pub reader: String,
    /// Who has it.
    pub owner: String,
    /// Of the entry.
    pub cursor: String,
    /// How long nobody else may have it; zero gives it up.
    pub lease: Seconds,
}

/// The answer to [`MoveReader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It stands there.
    Moved,
    /// Another has taken it; nothing changed.
    Lost,
}

/// Put a rewritten journal in the place of the one that it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishRewrite {
    /// Who rewrites.
    pub token: String,
    /// Cursor of the last entry that was read; what came after it is copied as it is. `None`: none was.
    pub read_until: Option<String>,
    /// How many entries were written, by which one that is not whole is known.
    pub written: u64,
    /// Entries before this instant are trimmed now; zero leaves what is noted as it is.
    pub trimmed: Millis,
    /// Numbers in entries before this instant are erased now; likewise.
    pub erased: Millis,
    /// Context of the [`NumbersErased`] entry to be left behind it; `None` or nothing leaves none.
    ///
    /// [`NumbersErased`]: state::EntryKind::NumbersErased
    pub note: Option<Vec<u8>>,
}

/// The answer to [`FinishRewrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishedRewrite {
    /// The journal is the rewritten one.
    Done,
    /// More than [`COPIED_AT_FINISH`] entries came meanwhile: read on, and finish again.
    Behind,
    /// Somebody else rewrites, or what was written is not whole; nothing changed.
    Lost,
}

/// Entries that came during a rewriting, and are copied while nothing else can happen.
pub const COPIED_AT_FINISH: usize = 250;

/// How long a rewriting is believed to go on after its last step.
pub const REWRITE_LEASE: Seconds = Seconds(120);

/// A page of a list and the cursor of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// A store of balances, calls and journals that applies each command atomically.
///
/// Commands are idempotent by their key, so that [`LedgerError::Indeterminate`] may be repeated.
pub trait Ledger: Send + Sync + 'static {
    /// The same ledger for the thread that this is called on: with a connection of its own, where there
    /// is one, so that no command waits for another thread.
    fn on_this_thread(self: &Arc<Self>) -> impl Fallible<Arc<Self>> {
        let shared = self.clone();
        async move { Ok(shared) }
    }
    /// The tenant, its active deck and numbers.
    fn tenant(&self, tenant: &TenantId) -> impl Fallible<Reply<TenantView>>;
    /// Several payers at one instant, in the order asked for.
    fn payers(&self, tenant: &TenantId, payers: &[PayerId])
    -> impl Fallible<Reply<Vec<PayerView>>>;
    /// One payer.
    fn payer(&self, tenant: &TenantId, payer: &PayerId) -> impl Fallible<Reply<PayerView>> {
        async move {
            let Reply { now, outcome } = self.payers(tenant, std::slice::from_ref(payer)).await?;
            Ok(Reply { now, outcome: outcome.into_iter().next().unwrap_or_default() })
        }
    }
    /// Every tenant that was ever applied.
    fn tenants(&self) -> impl Fallible<Vec<TenantId>>;

    /// See [`Authorize`].
    fn authorize(&self, command: &Authorize) -> impl Fallible<Reply<Authorized>>;
    /// See [`Answer`].
    fn answer(&self, command: &Answer) -> impl Fallible<Reply<Answered>>;
    /// See [`Extend`].
    fn extend(&self, command: &Extend) -> impl Fallible<Reply<Extended>>;
    /// See [`End`].
    fn end(&self, command: &End) -> impl Fallible<Reply<Ended>>;
    /// See [`Restore`].
    fn restore(&self, command: &Restore) -> impl Fallible<Reply<Restored>>;
    /// Expires at most `most` due holds, forgets at most `most` ended calls, lapses due lots.
    fn sweep(
        &self,
        tenant: &TenantId,
        most: u32,
        ended_retention: Seconds,
    ) -> impl Fallible<Reply<Swept>>;

    /// Creates or updates the tenant; with `over`, only where it still has that version (0: where it is
    /// unknown), so that who has read it and changed a part undoes nobody's change of another.
    fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> impl Fallible<Reply<Applied>>;
    /// Creates or updates payers, and resizes the pools of `month` at once (D9).
    fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> impl Fallible<Reply<Applied>>;
    /// Adds a lot, once per key.
    fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> impl Fallible<Reply<Purchased>>;

    /// See [`ReportRecharge`].
    fn report_recharge(&self, report: &ReportRecharge) -> impl Fallible<Reply<RechargeReported>>;

    /// Keeps the text of a deck under its version.
    fn put_deck(&self, version: &str, csv: &[u8]) -> impl Fallible<()>;
    /// The text of a deck.
    fn deck(&self, version: &str) -> impl Fallible<Option<Vec<u8>>>;
    /// Makes `version` the one that tenants naming `name` get.
    fn name_deck(&self, name: &str, version: &str) -> impl Fallible<()>;
    /// The version that tenants naming `name` get.
    fn named_deck(&self, name: &str) -> impl Fallible<Option<String>>;

    /// All balances.
    fn balance(&self, tenant: &TenantId) -> impl Fallible<Reply<Balance>>;
    /// What a call of `payer` would find in `pools` of `month`.
    fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> impl Fallible<Reply<Position>>;
    /// One call.
    fn call(&self, tenant: &TenantId, call: &CallId) -> impl Fallible<Option<Call>>;
    /// Open calls by deadline, at most `most` from the cursor.
    fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> impl Fallible<Page<(CallId, Call)>>;
    /// Journal entries, newest first, at most `most` before the cursor.
    fn journal(
        &self,
        tenant: &TenantId,
        before: Option<&str>,
        most: usize,
    ) -> impl Fallible<Page<Entry>>;
    /// Journal entries with their cursors, oldest first, at most `most` after the cursor. The cursor of
    /// an entry never changes, so that a reader can go on where it stopped.
    fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> impl Fallible<Page<(String, Entry)>>;
    /// A cursor for [`Ledger::history`] after which every entry stands that was made at `at` or later,
    /// and as few others as the ledger can tell apart without reading them; `None` is the beginning.
    fn history_since(&self, tenant: &TenantId, at: Millis) -> impl Fallible<Option<String>>;
    /// What was applied of a tenant, without its payers and numbers; `None` where it is unknown.
    fn record(&self, tenant: &TenantId) -> impl Fallible<Reply<Option<TenantRecord>>>;
    /// See [`TakeReader`].
    fn take_reader(&self, command: &TakeReader) -> impl Fallible<Reply<Taken>>;
    /// See [`MoveReader`].
    fn move_reader(&self, command: &MoveReader) -> impl Fallible<Reply<Moved>>;
    /// All readers of the journal, in the order of their names.
    fn readers(&self, tenant: &TenantId) -> impl Fallible<Reply<Vec<(String, Reader)>>>;
    /// Calls that are not forgotten, in any order, some twice; at most about `most` from the cursor.
    fn calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> impl Fallible<Page<(CallId, Call)>>;
    /// Which of these calls are not forgotten, in the order asked for.
    fn are_kept(&self, tenant: &TenantId, calls: &[CallId]) -> impl Fallible<Vec<bool>>;
    /// How far the journal was trimmed and erased, and who rewrites it now.
    fn upkeep(&self, tenant: &TenantId) -> impl Fallible<Reply<Upkeep>>;
    /// Begins to rewrite the journal aside, under a token of its own; `false` while somebody else does.
    /// What another left behind is thrown away.
    fn begin_rewrite(&self, tenant: &TenantId, token: &str) -> impl Fallible<Reply<bool>>;
    /// Writes the next entries, with ids that the journal has or had, each later than the one before;
    /// `false` where somebody else rewrites by now. Without entries it only says that it goes on.
    fn add_rewritten(
        &self,
        tenant: &TenantId,
        token: &str,
        entries: &[(String, Entry)],
    ) -> impl Fallible<bool>;
    /// See [`FinishRewrite`]. Every entry keeps its cursor.
    fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> impl Fallible<Reply<FinishedRewrite>>;
    /// Throws away what was written, if nobody else rewrites by now. Where there was nothing to be done,
    /// `trimmed` and `erased` are noted as by [`FinishRewrite`].
    fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> impl Fallible<()>;
    /// Replaces the context of a call that is not forgotten, where it still is `from`; whether it was.
    fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> impl Fallible<bool>;
    /// Everything, at one instant.
    fn snapshot(&self, tenant: &TenantId) -> impl Fallible<Reply<Snapshot>>;
    /// See [`SetBlock`].
    fn set_block(&self, command: &SetBlock) -> impl Fallible<Reply<BlockSet>>;
    /// Blocks that stand, those of the file too, in the order of payers, at most `most` from the cursor.
    fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> impl Fallible<Page<(PayerId, BlockedBy, Block)>>;
    /// Whether the store answers.
    fn ping(&self) -> impl Fallible<()>;
    /// See [`AdjustBalance`].
    fn adjust_balance(&self, command: &AdjustBalance) -> impl Fallible<Reply<Adjusted>>;
    /// See [`AdjustSettlement`].
    fn adjust_settlement(&self, command: &AdjustSettlement) -> impl Fallible<Reply<Adjusted>>;

    /// What this sidecar was acknowledged; every thread has the same.
    fn marks(&self) -> Arc<Marks> {
        Arc::default()
    }
    /// What the ledger has lost of what this sidecar was acknowledged, and is not [`Ledger::replayed`] yet;
    /// the first to find a loss raises the epoch.
    fn lost(&self, _tenant: &TenantId) -> impl Fallible<Option<Lost>> {
        async { Ok(None) }
    }
    /// What was lost is there again, as far as it can be.
    fn replayed(&self, _tenant: &TenantId, _lost: Lost) -> impl Fallible<()> {
        async { Ok(()) }
    }
    /// Forgets how far sidecars without a journal were told that the ledger has come, those that began before
    /// an instant of their clock; how many. None of them may run any more.
    fn forget_runs(&self, _tenant: &TenantId, _before: Millis) -> impl Fallible<usize> {
        async { Ok(0) }
    }
}

/// A future of a ledger's outcome, shorthand for the signatures of [`Ledger`].
pub trait Fallible<T>: Future<Output = Result<T, LedgerError>> + Send {}

impl<T, F: Future<Output = Result<T, LedgerError>> + Send> Fallible<T> for F {}

/// How a ledger's clock stands to the real one; tests and the demo move it, nobody else does.
///
/// One number, so that it is read whole: twice the milliseconds, plus one where the clock is frozen.
#[derive(Clone, Debug, Default)]
pub struct ClockOffset(Arc<AtomicI64>);

/// One look at a [`ClockOffset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockReading {
    /// The real clock plus so many milliseconds.
    Shifted(i64),
    /// Always this instant.
    Frozen(Millis),
}

impl ClockOffset {
    /// Moves the clock forward, a frozen one too.
    pub fn advance(&self, by: Seconds) {
        self.0.fetch_add(by.0 * 2000, Ordering::Relaxed);
    }

    /// Stops the clock at an instant; it moves by [`ClockOffset::advance`] alone from here.
    pub fn freeze_at(&self, instant: Millis) {
        self.0.store(instant.0 * 2 + 1, Ordering::Relaxed);
    }

    /// Sets the distance from the real clock in milliseconds; a frozen clock runs again.
    pub fn set_millis(&self, millis: i64) {
        self.0.store(millis * 2, Ordering::Relaxed);
    }

    /// Where the clock stands.
    pub fn reading(&self) -> ClockReading {
        let word = self.0.load(Ordering::Relaxed);
        match word & 1 {
            0 => ClockReading::Shifted(word >> 1),
            _ => ClockReading::Frozen(Millis(word >> 1)),
        }
    }
}

impl ClockReading {
    /// The ledger's instant, given the real one.
    pub fn at(self, real: Millis) -> Millis {
        match self {
            ClockReading::Shifted(millis) => Millis(real.0 + millis),
            ClockReading::Frozen(instant) => instant,
        }
    }
}

/// Due holds that one authorize expires where its call is known, is refused by a limit on calls, or would get less than
/// it asks for, so that what they give back is seen at once; the sweep of each second has the others.
pub const SWEPT_PER_AUTHORIZE: u32 = 2;

/// Names a bucket in postings.
pub fn pool_bucket(pool: &str) -> String {
    format!("p:{pool}")
}

/// Names a bucket in postings.
pub fn lot_bucket(lot: &str) -> String {
    format!("l:{lot}")
}

/// The lots that were bought, and the overage of months, which is kept among them.
pub fn apart_from_overage(lots: Vec<Lot>) -> (Vec<Lot>, Vec<Lot>) {
    lots.into_iter().partition(|lot| !lot.key.is_overage())
}

/// The cursor after a block.
fn block_cursor(payer: &PayerId, by: BlockedBy) -> String {
    format!("{payer}:{}", by.name())
}

fn read_block_cursor(cursor: &str) -> Result<(PayerId, BlockedBy), LedgerError> {
    let parts = cursor.split_once(':');
    let read = parts.and_then(|(id, by)| Some((PayerId::new(id).ok()?, BlockedBy::parse(by)?)));
    read.ok_or_else(|| LedgerError::BadCursor(cursor.to_owned()))
}

/// The pool of `family` in a month.
pub fn pool_id(family: &str, month: &str) -> String {
    format!("{family}:{month}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_clock_moves_by_steps_alone() {
        let clock = ClockOffset::default();
        clock.advance(Seconds(2));
        assert_eq!(clock.reading().at(Millis(500)), Millis(2_500));
        clock.freeze_at(Millis(1_001));
        clock.advance(Seconds(3));
        assert_eq!(clock.reading().at(Millis(77)), Millis(4_001));
        clock.set_millis(-1_001);
        assert_eq!(clock.reading().at(Millis(2_000)), Millis(999));
    }
}
