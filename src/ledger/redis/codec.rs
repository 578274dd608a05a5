//! How commands, stored values and answers are written as bytes: MessagePack arrays in field order.
//!
//! Lua reads and writes the same arrays by `cmsgpack`; they hold no nil. It knows texts and no
//! binaries: bytes that are no text travel to a script beside its command, and come back as a text
//! that may be none. Reading never panics: bytes that are not what was asked for are
//! [`LedgerError::Corrupt`].

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::batch::{Command, Told};
use super::keys::payer;
use super::scripts::CallVerb;
use super::stored::{Shape, read_call, write_call_behind_instants, write_entry_behind_instant};
use crate::charging::decision::Decision;
use crate::charging::month::Month;
use crate::charging::profile::{PayerProfile, PayerState};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::recharge::{Recharge, RechargeRequest, RechargeTerms};
use crate::ledger::state::{
    Block, Bucket, Call, CallState, Entry, EntryKind, MoneyLine, PayerAccount, PoolLine, Posting,
    Reader, SpendRing, TenantAccount, at_most_one,
};
use crate::ledger::{
    AdjustBalance, AdjustSettlement, Authorize, Correction, End, Ending, Extend, LedgerError,
    Offer, PayerUpdate, Proposal, RechargeOutcome, ReportRecharge, Restore, SWEPT_PER_AUTHORIZE,
    lot_bucket, pool_bucket, pool_id,
};

/// The bytes of a command or value.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LedgerError> {
    // Most commands are shorter.
    let mut bytes = Vec::with_capacity(192);
    encode_behind(&mut bytes, value)?;
    Ok(bytes)
}

fn encode_behind<T: Serialize>(bytes: &mut Vec<u8>, value: &T) -> Result<(), LedgerError> {
    rmp_serde::encode::write(bytes, value)
        .map_err(|error| LedgerError::Corrupt(format!("unwritable: {error}")))
}

/// The value of all of the bytes.
pub(super) fn decode<'a, T: Deserialize<'a>>(
    what: &str,
    bytes: &'a [u8],
) -> Result<T, LedgerError> {
    let corrupt = |why: String| LedgerError::Corrupt(format!("{what}: {why}"));
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    let value = T::deserialize(&mut reader).map_err(|error| corrupt(error.to_string()))?;
    match IgnoredAny::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(corrupt("bytes after the value".to_owned())),
    }
}

/// The value of a JSON text.
pub(super) fn decode_json<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, LedgerError> {
    serde_json::from_slice(text).map_err(|error| LedgerError::Corrupt(format!("{what}: {error}")))
}

/// The JSON text of a value.
pub(super) fn encode_json<T: Serialize>(value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value)
        .map_err(|error| LedgerError::Corrupt(format!("unwritable: {error}")))
}

// Commands. The scripts' headers have tables of the same names and fields.

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AuthorizeArgs<'a> {
    call: &'a str,
    payer: &'a str,
    payer_version: u64,
}

/// What many calls have in common, whoever makes them.
#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct BasisArgs<'a> {
    tenant_version: u64,
    denied_retention: Seconds,
    ended_retention: Seconds,
    swept: u32,
    proposal: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct OfferArgs<'a> {
    decision: &'a str,
    month_starts: Millis,
    month_ends: Millis,
    requested: Seconds,
    /// Of the pools of the shape, in the same order.
    #[serde(borrow)]
    families: Vec<&'a str>,
    /// -1 is no limit, here and in the two that follow.
    payer_calls: i64,
    tenant_calls: i64,
    calls_per_second: i64,
    when_exhausted: &'a str,
    when_spend_limited: &'a str,
    when_velocity_limited: &'a str,
}

impl<'a> AuthorizeArgs<'a> {
    /// The command, as a script is told it; with the call as it is proposed.
    pub(super) fn told(command: &'a Authorize, proposed: &Call) -> Result<Command, LedgerError> {
        let payer = payer(&proposed.payer);
        let (call, payer_version) = (command.call.as_str(), command.versions.payer);
        let args = encode(&AuthorizeArgs { call, payer: &payer, payer_version })?;
        let (shared, shape) = BasisArgs::bytes_of(command, proposed)?;
        let arguments = vec![
            args,
            command.context.clone(),
            shared,
            write_call_behind_instants(proposed, shape)?,
            write_entry_behind_instant(&decided(command, proposed))?,
        ];
        Ok(Command { verb: CallVerb::Authorize, arguments })
    }
}

/// The entry of a call that is decided as it is proposed, without its instant and its context.
fn decided(command: &Authorize, proposed: &Call) -> Entry {
    let posting = |line: &PoolLine| Posting {
        bucket: pool_bucket(line.pool.as_str()),
        funded: 0,
        held: line.held.0,
        spent: 0,
        expired: 0,
        adjusted: 0,
    };
    Entry {
        kind: match &command.proposal {
            Proposal::Refuse(..) => EntryKind::Refused,
            Proposal::Grant(_) | Proposal::Record(_) => EntryKind::Authorized,
        },
        at: Millis::ZERO,
        subject: command.call.as_str().to_owned(),
        payer: proposed.payer.clone(),
        decision: proposed.decision,
        used: Seconds::ZERO,
        granted: proposed.granted,
        shortfall_duration: Seconds::ZERO,
        shortfall_money: Micros::ZERO,
        postings: proposed
            .pools
            .iter()
            .filter(|line| line.held.is_positive())
            .map(posting)
            .collect(),
        context: vec![],
        report: vec![],
    }
}

impl<'a> BasisArgs<'a> {
    fn of(command: &'a Authorize) -> Self {
        BasisArgs {
            tenant_version: command.versions.tenant,
            denied_retention: command.denied_retention,
            ended_retention: command.ended_retention,
            swept: SWEPT_PER_AUTHORIZE,
            proposal: match &command.proposal {
                Proposal::Refuse(..) => "refuse",
                Proposal::Grant(_) => "grant",
                Proposal::Record(_) => "record",
            },
        }
    }

    /// These fields, and behind them the shape of the call and the offer; with how many bytes the shape has. Commands have
    /// few different ones, so that a script unpacks each of them once.
    fn bytes_of(command: &'a Authorize, proposed: &Call) -> Result<(Vec<u8>, usize), LedgerError> {
        let mut bytes = Vec::with_capacity(384);
        encode_behind(&mut bytes, &BasisArgs::of(command))?;
        let before = bytes.len();
        let mut shape = 0;
        if let Proposal::Grant(offer) | Proposal::Record(offer) = &command.proposal {
            encode_behind(&mut bytes, &Shape::of_call(proposed))?;
            shape = bytes.len() - before;
            encode_behind(&mut bytes, &OfferArgs::of(offer))?;
        }
        Ok((bytes, shape))
    }
}

impl<'a> OfferArgs<'a> {
    fn of(offer: &'a Offer) -> Self {
        let at_most = |limit: Option<u32>| limit.map_or(-1, i64::from);
        OfferArgs {
            decision: offer.decision.name(),
            month_starts: offer.month.starts,
            month_ends: offer.month.ends,
            requested: offer.requested,
            families: offer.pools.iter().map(|pool| pool.family.as_str()).collect(),
            payer_calls: at_most(offer.limits.payer_calls),
            tenant_calls: at_most(offer.limits.tenant_calls),
            calls_per_second: at_most(offer.limits.calls_per_second),
            when_exhausted: offer.when_exhausted.name(),
            when_spend_limited: offer.when_spend_limited.name(),
            when_velocity_limited: offer.when_velocity_limited.name(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AnswerArgs<'a> {
    pub(super) call: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ExtendArgs<'a> {
    call: &'a str,
    used: Seconds,
    /// Nothing or one.
    sequence: Vec<i64>,
    requested: Seconds,
}

impl<'a> ExtendArgs<'a> {
    pub(super) fn of(command: &'a Extend) -> Self {
        ExtendArgs {
            call: command.call.as_str(),
            used: command.used,
            sequence: command.sequence.into_iter().collect(),
            requested: command.requested,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct EndArgs<'a> {
    call: &'a str,
    how: &'a str,
    used: Seconds,
    ended_retention: Seconds,
    has_grant: bool,
}

impl<'a> EndArgs<'a> {
    pub(super) fn of(command: &'a End) -> Self {
        let (how, used) = match command.how {
            Ending::Settle(used) => ("settle", used),
            Ending::Release => ("release", Seconds::ZERO),
            Ending::Proven => ("proven", Seconds::ZERO),
        };
        EndArgs {
            call: command.call.as_str(),
            how,
            used,
            ended_retention: command.ended_retention,
            has_grant: command.has_grant,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct RestoreArgs<'a> {
    call: &'a str,
    too_late: Millis,
    state: u8,
    fingerprint: &'a str,
    decision: &'a str,
    payer: &'a str,
    trunk: &'a str,
    authorized_at: Millis,
    answered_at: Millis,
    deadline: Millis,
    sequence: i64,
    used: Seconds,
    granted: Seconds,
    granted_from: Seconds,
    reach: u8,
    month_starts: Millis,
    month_ends: Millis,
    /// Of the pools of the shape, in the same order.
    #[serde(borrow)]
    pools: Vec<RestoredPoolArgs<'a>>,
    /// Money held or charged.
    money: Micros,
    #[serde(borrow)]
    leases: Vec<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct RegressedArgs<'a> {
    pub(super) sidecar: &'a str,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    /// Whether it will replay what is missing.
    pub(super) keeps: bool,
    /// For the journal's entry.
    pub(super) about: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ReplayedArgs<'a> {
    pub(super) sidecar: &'a str,
    pub(super) lost: &'a str,
}

/// Where a ledger stands that was found to have gone back: [tag, now, [epoch, above, last]].
#[derive(Deserialize)]
pub(super) struct MarkReply<'a> {
    #[serde(borrow)]
    pub(super) tag: &'a str,
    #[allow(dead_code)]
    pub(super) now: Millis,
    pub(super) mark: (u64, u64, u64),
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct RestoredPoolArgs<'a> {
    /// Empty where the pool is not to be opened.
    family: &'a str,
    taken: Seconds,
}

impl<'a> RestoreArgs<'a> {
    /// The command, as a script is told it.
    pub(super) fn told(command: &'a Restore) -> Result<Command, LedgerError> {
        let shared = encode(&Shape::of_call(&command.granted))?;
        let args = encode(&RestoreArgs::of(command))?;
        let arguments = vec![args, command.granted.context.clone(), shared];
        Ok(Command { verb: CallVerb::Restore, arguments })
    }

    fn of(command: &'a Restore) -> Self {
        let Restore { granted, month, .. } = command;
        let ringing = granted.state == CallState::Ringing;
        let pool = |line: &'a PoolLine| RestoredPoolArgs {
            family: command.family(&line.pool).unwrap_or_default(),
            taken: line.held + line.spent,
        };
        let money = |money: &MoneyLine| money.held() + money.spent();
        RestoreArgs {
            call: command.call.as_str(),
            too_late: command.until,
            state: if ringing { CallState::Ringing } else { CallState::Answered }.into(),
            fingerprint: &granted.fingerprint,
            decision: granted.decision.map(Decision::name).unwrap_or_default(),
            payer: &granted.payer,
            trunk: &granted.trunk,
            authorized_at: granted.authorized_at,
            answered_at: granted.answered_at,
            deadline: granted.deadline,
            sequence: granted.sequence,
            used: granted.used,
            granted: granted.granted,
            granted_from: granted.granted_from,
            reach: granted.reach,
            month_starts: month.starts,
            month_ends: month.ends,
            pools: granted.pools.iter().map(pool).collect(),
            money: granted.money.as_ref().map(money).unwrap_or_default(),
            leases: command.leases.iter().map(|lease| lease.as_str()).collect(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct SweepArgs {
    pub(super) most: u32,
    pub(super) ended_retention: Seconds,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct PurchaseArgs<'a> {
    pub(super) lot: &'a str,
    pub(super) amount: Micros,
    pub(super) purchased_at: Millis,
    pub(super) expires_at: Millis,
    pub(super) context: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct TakeReaderArgs<'a> {
    pub(super) reader: &'a str,
    pub(super) owner: &'a str,
    pub(super) lease: Seconds,
    pub(super) since: Millis,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct MoveReaderArgs<'a> {
    pub(super) reader: &'a str,
    pub(super) owner: &'a str,
    pub(super) cursor: &'a str,
    pub(super) lease: Seconds,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ReportRechargeArgs<'a> {
    key: &'a str,
    succeeded: bool,
    reason: &'a str,
    bought_at: Millis,
    expires_at: Millis,
}

impl<'a> ReportRechargeArgs<'a> {
    pub(super) fn of(report: &'a ReportRecharge) -> Self {
        let key = report.key.as_str();
        match &report.outcome {
            RechargeOutcome::Succeeded { bought_at, expires_at } => ReportRechargeArgs {
                key,
                succeeded: true,
                reason: "",
                bought_at: *bought_at,
                expires_at: *expires_at,
            },
            RechargeOutcome::Failed(reason) => ReportRechargeArgs {
                key,
                succeeded: false,
                reason,
                bought_at: Millis::ZERO,
                expires_at: Millis::ZERO,
            },
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ApplyTenantArgs<'a> {
    pub(super) record: &'a str,
    pub(super) suspended: bool,
    /// Nothing or one.
    pub(super) over: Vec<u64>,
    /// Nothing or one.
    pub(super) recharge: Vec<RechargeTerms>,
    pub(super) deduct_shortfall: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ApplyPayersArgs<'a> {
    month: &'a str,
    month_starts: Millis,
    month_ends: Millis,
    #[serde(borrow)]
    updates: Vec<PayerUpdateArgs<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct PayerUpdateArgs<'a> {
    payer: &'a str,
    stored: StoredPayer,
}

/// What the profiles keep of a payer.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPayer {
    /// JSON.
    profile: String,
    /// The profile's state, for Lua.
    state: String,
    seats: Vec<(String, Seconds)>,
    /// The profile's numbers, for Lua.
    numbers: Vec<String>,
}

impl StoredPayer {
    pub(super) fn profile(&self) -> Result<PayerProfile, LedgerError> {
        decode_json("payer profile", self.profile.as_bytes())
    }
}

impl<'a> ApplyPayersArgs<'a> {
    pub(super) fn of(month: &'a Month, updates: &'a [PayerUpdate]) -> Result<Self, LedgerError> {
        let update = |update: &'a PayerUpdate| {
            let profile = &update.profile;
            let stored = StoredPayer {
                profile: encode_json(profile)?,
                state: state_name(profile.state).to_owned(),
                seats: update.seats.clone(),
                numbers: profile.numbers.clone(),
            };
            Ok(PayerUpdateArgs { payer: profile.id.as_str(), stored })
        };
        Ok(ApplyPayersArgs {
            month: &month.key,
            month_starts: month.starts,
            month_ends: month.ends,
            updates: updates.iter().map(update).collect::<Result<_, LedgerError>>()?,
        })
    }
}

fn state_name(state: PayerState) -> &'static str {
    match state {
        PayerState::Active => "active",
        PayerState::Blocked => "blocked",
        PayerState::Removed => "removed",
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct PositionArgs<'a> {
    payer: &'a str,
    call: &'a str,
    month_starts: Millis,
    month_ends: Millis,
    #[serde(borrow)]
    pools: Vec<PoolNameArgs<'a>>,
    month: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct PoolNameArgs<'a> {
    family: &'a str,
    pool: String,
}

impl<'a> PositionArgs<'a> {
    pub(super) fn of(
        payer: &'a str,
        call: &'a str,
        month: &'a Month,
        families: &'a [String],
    ) -> Self {
        let pools = families
            .iter()
            .map(|family| PoolNameArgs { family, pool: pool_id(family, &month.key) })
            .collect();
        PositionArgs {
            payer,
            call,
            month_starts: month.starts,
            month_ends: month.ends,
            pools,
            month: &month.key,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct SetBlockArgs<'a> {
    pub(super) payer: &'a str,
    pub(super) blocked: bool,
    pub(super) reason: &'a str,
    pub(super) operator: &'a str,
    /// The two, as the journal keeps them.
    pub(super) context: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct BalanceArgs {}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AdjustBalanceArgs<'a> {
    key: &'a str,
    fingerprint: &'a str,
    /// As postings name it.
    bucket: String,
    amount: i64,
    most: i64,
    /// Nothing or one.
    #[serde(borrow)]
    pool: Vec<PoolOfMonthArgs<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct PoolOfMonthArgs<'a> {
    pool: &'a str,
    family: &'a str,
    /// Whether its month is the one that follows.
    is_current: bool,
    month_starts: Millis,
    month_ends: Millis,
}

impl<'a> AdjustBalanceArgs<'a> {
    pub(super) fn of(command: &'a AdjustBalance) -> Self {
        let (bucket, amount, most, pool) = match &command.correction {
            Correction::Lot { lot, amount, most } => {
                (lot_bucket(lot.as_str()), amount.0, most.0, None)
            }
            Correction::Pool { pool, amount, month, most } => {
                let of_month = PoolOfMonthArgs {
                    pool: pool.as_str(),
                    family: pool.family(),
                    is_current: pool.month() == month.key,
                    month_starts: month.starts,
                    month_ends: month.ends,
                };
                (pool_bucket(pool.as_str()), amount.0, most.0, Some(of_month))
            }
        };
        let (key, fingerprint) = (command.key.as_str(), command.fingerprint.as_str());
        let pool = pool.into_iter().collect();
        AdjustBalanceArgs { key, fingerprint, bucket, amount, most, pool }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AdjustSettlementArgs<'a> {
    key: &'a str,
    fingerprint: &'a str,
    call: &'a str,
    used: Seconds,
    over_used: Seconds,
    over_money: Micros,
}

impl<'a> AdjustSettlementArgs<'a> {
    pub(super) fn of(command: &'a AdjustSettlement) -> Self {
        AdjustSettlementArgs {
            key: command.key.as_str(),
            fingerprint: &command.fingerprint,
            call: command.call.as_str(),
            used: command.used,
            over_used: command.over.0,
            over_money: command.over.1,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct BeginRewriteArgs<'a> {
    pub(super) token: &'a str,
    pub(super) lease: Seconds,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AddRewrittenArgs<'a> {
    pub(super) token: &'a str,
    pub(super) lease: Seconds,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct FinishRewriteArgs<'a> {
    pub(super) token: &'a str,
    /// Empty where nothing was read.
    pub(super) read_until: &'a str,
    pub(super) written: u64,
    /// Most entries to copy.
    pub(super) copied: usize,
    pub(super) trimmed: Millis,
    pub(super) erased: Millis,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct AbandonRewriteArgs<'a> {
    pub(super) token: &'a str,
    pub(super) trimmed: Millis,
    pub(super) erased: Millis,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub(super) struct ReplaceContextArgs<'a> {
    pub(super) call: &'a str,
}

// Answers.

/// What the scripts of corrections answer: `[tag, now, entries, number]`.
#[derive(Deserialize)]
pub(super) struct AdjustReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    /// Nothing or one.
    entries: Vec<Entry>,
    /// What there is, or the room that is left.
    pub(super) number: i64,
}

impl AdjustReply<'_> {
    /// The entry of the correction.
    pub(super) fn entry(self) -> Result<Entry, LedgerError> {
        let missing = || LedgerError::Corrupt("a correction without its entry".to_owned());
        self.entries.into_iter().next().ok_or_else(missing)
    }

    /// Where the call stands.
    pub(super) fn state(&self) -> Result<CallState, LedgerError> {
        let code = u8::try_from(self.number).unwrap_or(u8::MAX);
        CallState::try_from(code).map_err(LedgerError::Corrupt)
    }
}

/// What the scripts of calls answer: `[tag, now, detail]`, and the call beside it.
pub(super) struct CallReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    detail: &'a str,
    call: &'a [u8],
}

impl<'a> CallReply<'a> {
    pub(super) fn of(told: &'a Told) -> Result<Self, LedgerError> {
        let Told { now, said, call } = told;
        let unreadable = |_| LedgerError::Corrupt("answer: a text that is not UTF-8".to_owned());
        let said = std::str::from_utf8(said).map_err(unreadable)?;
        let (tag, detail) = said.split_once(' ').unwrap_or((said, ""));
        Ok(CallReply { tag, now: *now, detail, call })
    }

    pub(super) fn call(&self) -> Result<Call, LedgerError> {
        read_call(self.call)
    }

    /// The decision that stopped the call.
    pub(super) fn decision(&self) -> Result<Decision, LedgerError> {
        let unknown = || LedgerError::Corrupt(format!("unknown decision {:?}", self.detail));
        Decision::parse(self.detail).ok_or_else(unknown)
    }
}

/// `[tag, now, count]`.
#[derive(Deserialize)]
pub(super) struct CountReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    pub(super) count: usize,
}

/// `[tag, now, reader]`.
#[derive(Deserialize)]
pub(super) struct ReaderReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    pub(super) reader: Reader,
}

/// `[tag, now, expired, forgotten, lapsed]`.
#[derive(Deserialize)]
pub(super) struct SweepReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    pub(super) expired: u32,
    pub(super) forgotten: u32,
    pub(super) lapsed: u32,
}

/// See `block.lua`.
#[derive(Deserialize)]
pub(super) struct BlockReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    /// One where there is one to tell of.
    pub(super) block: Vec<Block>,
}

/// See `position.lua`.
#[derive(Deserialize)]
pub(super) struct PositionReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    pub(super) tenant: TenantAccount,
    pub(super) payer: PayerAccount,
    pub(super) pools: Vec<Bucket>,
    pub(super) credits: Micros,
    pub(super) wallet_holds: i64,
    pub(super) call: ByteBuf,
    pub(super) overage: Bucket,
    pub(super) ring: SpendRing,
}

/// See `balance.lua`.
#[derive(Deserialize)]
pub(super) struct BalanceReply<'a> {
    pub(super) tag: &'a str,
    pub(super) now: Millis,
    pub(super) sizes: Vec<(String, Seconds)>,
    pub(super) pools: Vec<(String, Bucket)>,
    pub(super) lots: Vec<(String, Bucket)>,
    pub(super) wallet_holds: i64,
    #[serde(with = "at_most_one")]
    pub(super) recharge: Option<Recharge>,
    #[serde(with = "at_most_one")]
    pub(super) in_flight: Option<RechargeRequest>,
    pub(super) owed: Micros,
}

/// An answer whose tag no script gives.
pub(super) fn unknown_tag(script: &str, tag: &str) -> LedgerError {
    LedgerError::Corrupt(format!("{script} answered {tag:?}"))
}

/// What a fuzzer is let loose on: stored values and answers, of which the first byte chooses one. What can be
/// read is written as the same value.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed(bytes: &[u8]) {
    use super::stored::{self, read_entry};
    use crate::ledger::state::{Adjustment, Upkeep, Wallet};
    fn read_and_written<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
        bytes: &[u8],
    ) {
        if let Ok(value) = decode::<T>("value", bytes) {
            let again = encode(&value).and_then(|bytes| decode::<T>("value", &bytes));
            assert_eq!(again, Ok(value));
        }
    }
    fn stored_json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = decode_json::<T>("value", bytes) {
            let again = encode_json(&value).and_then(|text| decode_json("value", text.as_bytes()));
            assert_eq!(again, Ok(value));
        }
    }
    let [which, bytes @ ..] = bytes else { return };
    match which % 18 {
        0 => {
            if let Ok(call) = read_call(bytes) {
                let again = stored::write_call(&call).and_then(|bytes| read_call(&bytes));
                assert_eq!(again, Ok(call));
            }
        }
        1 => {
            if let Ok(entry) = read_entry(bytes, None, None) {
                let again = stored::write_entry(&entry);
                assert_eq!(again.and_then(|bytes| read_entry(&bytes, None, None)), Ok(entry));
            }
        }
        2 => read_and_written::<Wallet>(bytes),
        3 => read_and_written::<Bucket>(bytes),
        4 => read_and_written::<TenantAccount>(bytes),
        5 => read_and_written::<PayerAccount>(bytes),
        6 => read_and_written::<RechargeRequest>(bytes),
        7 => read_and_written::<SpendRing>(bytes),
        8 => read_and_written::<Adjustment>(bytes),
        9 => read_and_written::<Reader>(bytes),
        10 => read_and_written::<Upkeep>(bytes),
        11 => read_and_written::<Block>(bytes),
        12 => {
            let told = Told { said: bytes.to_vec(), call: bytes.to_vec(), ..Told::default() };
            drop(CallReply::of(&told).map(|reply| (reply.call(), reply.decision())));
        }
        13 => drop(decode::<AdjustReply<'_>>("answer", bytes).map(|reply| reply.state())),
        14 => drop(decode::<PositionReply<'_>>("answer", bytes)),
        15 => drop(decode::<BalanceReply<'_>>("answer", bytes)),
        16 => stored_json::<PayerProfile>(bytes),
        _ => stored_json::<crate::ledger::TenantRecord>(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::stored::read_entry;
    use super::*;
    use crate::ledger::state::Wallet;

    #[track_caller]
    fn is_corrupt<T>(outcome: Result<T, LedgerError>) {
        assert!(matches!(outcome, Err(LedgerError::Corrupt(_))));
    }

    #[test]
    fn a_value_is_read_back_whole_or_not_at_all() {
        let bucket = Bucket { funded: 1 << 52, held: -1, starts: Millis(5), ..Bucket::default() };
        let bytes = encode(&bucket).expect("bytes");
        assert_eq!(decode("bucket", &bytes), Ok(bucket));
        for end in 0..bytes.len() {
            is_corrupt(decode::<Bucket>("bucket", &bytes[..end]));
        }
        is_corrupt(decode::<Bucket>("bucket", &[&bytes[..], &[0]].concat()));
        is_corrupt(decode::<Bucket>("bucket", &[&bytes[..], &[0xd9]].concat()));
        is_corrupt(decode::<Wallet>("wallet", &bytes));
    }

    #[test]
    fn garbage_is_corrupt_and_never_a_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            // Most begin as an array of the right length, so that the fields are reached.
            if let Some(first) = bytes.first_mut().filter(|_| random.u8(..4) > 0) {
                *first = 0x90 | random.u8(..16);
            }
            let _ = read_call(&bytes);
            let _ = read_entry(&bytes, None, None);
            let _ = decode::<Wallet>("wallet", &bytes);
            let _ = decode::<RechargeRequest>("recharge", &bytes);
            let _ = decode::<PositionReply<'_>>("answer", &bytes);
            let told = Told { said: bytes.clone(), call: bytes.clone(), ..Told::default() };
            let _ = CallReply::of(&told).map(|reply| reply.call());
            let _ = decode::<AdjustReply<'_>>("answer", &bytes).map(|reply| reply.state());
            let _ = decode_json::<PayerProfile>("profile", &bytes);
        }
    }

    #[test]
    fn an_enormous_length_is_corrupt_and_costs_no_memory() {
        is_corrupt(decode::<Wallet>("wallet", b"\x92\x00\xdd\xff\xff\xff\xff"));
        is_corrupt(decode::<ByteBuf>("bytes", b"\xc6\xff\xff\xff\xff"));
        is_corrupt(decode::<String>("text", b"\xdb\xff\xff\xff\xff"));
    }
}
