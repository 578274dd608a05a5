//! The Redis ledger: one Lua script a command, one round trip, all keys of a tenant in one hash slot.
//!
//! The scripts are `memory/book.rs` said again in Lua; the model test compares the two. This module
//! knows nothing about calls or money: it packs commands, sends them, and unpacks answers. Needs
//! Redis 7.0 or newer.

mod address;
mod batch;
mod cluster;
mod codec;
mod connection;
mod keys;
mod money;
mod node;
mod scripts;
mod sentinels;
mod stored;

#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzzed;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::streams::{StreamId, StreamRangeReply};
use redis::{cmd, pipe};
use serde::Serialize;

use self::stored::{read_call, write_entry};
use crate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId, TenantId};
use crate::charging::month::Month;
use crate::charging::profile::{Purchase, TenantState};
use crate::charging::units::{Millis, Seconds};
use crate::ledger::marks::{Lost, Mark, Marks, Regression, is_run_before};
use crate::ledger::recharge::RechargeTerms;
use crate::ledger::redis::address::Address;
use crate::ledger::redis::batch::{Command, Sender, Told};
use crate::ledger::redis::cluster::Slot;
use crate::ledger::redis::codec::{
    AbandonRewriteArgs, AddRewrittenArgs, AdjustBalanceArgs, AdjustReply, AdjustSettlementArgs,
    AnswerArgs, ApplyPayersArgs, ApplyTenantArgs, AuthorizeArgs, BalanceArgs, BalanceReply,
    BeginRewriteArgs, BlockReply, CallReply, CountReply, EndArgs, ExtendArgs, FinishRewriteArgs,
    MarkReply, MoveReaderArgs, PositionArgs, PositionReply, PurchaseArgs, ReaderReply,
    ReplaceContextArgs, ReplayedArgs, ReportRechargeArgs, RestoreArgs, SetBlockArgs, StoredPayer,
    SweepArgs, SweepReply, TakeReaderArgs, decode, decode_json, encode, encode_json, unknown_tag,
};
use crate::ledger::redis::connection::Connection;
use crate::ledger::redis::keys::Key;
use crate::ledger::redis::scripts::{CallVerb, Verb};
use crate::ledger::state::{
    Block, BlockedBy, Bucket, Call, Entry, Lot, PayerAccount, Reader, TenantAccount, Upkeep, Wallet,
};
use crate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    Balance, BlockSet, COPIED_AT_FINISH, ClockOffset, ClockReading, End, EndResult, Ended, Extend,
    Extended, FinishRewrite, FinishedRewrite, Ledger, LedgerError, MoveReader, Moved, Page,
    PayerUpdate, PayerView, Position, Purchased, REWRITE_LEASE, RechargeReported, Reply,
    ReportRecharge, Restore, Restored, SetBlock, Snapshot, Swept, TakeReader, Taken, TenantRecord,
    TenantView, apart_from_overage, block_cursor, read_block_cursor,
};

/// How often a snapshot is begun anew because the journal was replaced under it.
const SNAPSHOT_ATTEMPTS: usize = 10;

/// Entries that a snapshot reads at a time.
const JOURNAL_CHUNK: usize = 1_000;

/// Names of sidecars that are forgotten by one command.
const FORGOTTEN_AT_ONCE: usize = 500;

/// How far the id of a journal entry may be from the instant in it: a script reads the time after Redis
/// has noted its own.
const ID_SLACK: Seconds = Seconds(60);

/// Where Redis is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis+unix://`, `redis+sentinel://` or `redis+cluster://`.
    pub url: String,
    /// Longest wait for the answer to one command.
    pub response_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// For ledgers of a thread: when half of this has passed without an answer, Redis is asked whether it
    /// lives; when that is not answered within this either, commands fail at once until it answers again.
    /// Others, whose answers may be long, have `response_timeout` in its place.
    pub probe_timeout: Duration,
}

/// A URL that names no Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster:// and an \
     address: {0}"
)]
pub struct BadRedisUrl(String);

/// Judges a URL without asking anybody; the error does not repeat it, as it may hold a password.
pub fn check_url(url: &str) -> Result<(), BadRedisUrl> {
    Address::parse(url).map(|_| ())
}

/// See the module.
pub struct RedisLedger {
    sender: Arc<Sender>,
    settings: RedisSettings,
    offset: ClockOffset,
}

impl RedisLedger {
    /// Connects to Redis, or starts trying to; [`Ledger::ping`] tells whether it has.
    ///
    /// Its clock is the store's, moved by `offset`.
    pub async fn connect(
        settings: &RedisSettings,
        offset: ClockOffset,
    ) -> Result<RedisLedger, BadRedisUrl> {
        // What rediss:// encrypts with; an error says that the program has chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let patient =
            RedisSettings { probe_timeout: settings.response_timeout, ..settings.clone() };
        let connection = Connection::open(&patient).await?;
        let sender = Sender::new(connection, offset.clone(), Arc::default());
        Ok(RedisLedger { sender, settings: settings.clone(), offset })
    }

    /// Runs a script that takes one command; its answer.
    async fn run(
        &self,
        verb: Verb,
        tenant: &TenantId,
        args: &impl Serialize,
    ) -> Result<Vec<u8>, LedgerError> {
        self.sender.run(verb, tenant, &encode(args)?, &[]).await
    }

    /// The same, with bytes that the script keeps and does not read.
    async fn run_with(
        &self,
        verb: Verb,
        tenant: &TenantId,
        args: &impl Serialize,
        opaque: &[&[u8]],
    ) -> Result<Vec<u8>, LedgerError> {
        self.sender.run(verb, tenant, &encode(args)?, opaque).await
    }

    /// Carries out a command of a call, with bytes that are kept and not read; the answer.
    async fn run_with_others(
        &self,
        verb: CallVerb,
        tenant: &TenantId,
        args: &impl Serialize,
        opaque: &[u8],
    ) -> Result<Told, LedgerError> {
        let arguments = vec![encode(args)?, opaque.to_vec()];
        self.sender.run_with_others(tenant, Command { verb, arguments }).await
    }

    fn connection(&self) -> &Connection {
        self.sender.connection()
    }

    async fn count(
        &self,
        verb: Verb,
        tenant: &TenantId,
        args: &impl Serialize,
        tags: &[&'static str],
    ) -> Result<Reply<(&'static str, usize)>, LedgerError> {
        self.count_with(verb, tenant, args, &[], tags).await
    }

    async fn count_with(
        &self,
        verb: Verb,
        tenant: &TenantId,
        args: &impl Serialize,
        opaque: &[&[u8]],
        tags: &[&'static str],
    ) -> Result<Reply<(&'static str, usize)>, LedgerError> {
        let bytes = self.run_with(verb, tenant, args, opaque).await?;
        let reply: CountReply<'_> = decode("answer", &bytes)?;
        let known = tags.iter().find(|tag| **tag == reply.tag);
        let tag = known.ok_or_else(|| unknown_tag(verb.script().name, reply.tag))?;
        Ok(Reply { now: reply.now, outcome: (tag, reply.count) })
    }

    /// The ledger's instant, given Redis' answer to TIME.
    fn instant(&self, (seconds, micros): (i64, i64)) -> Millis {
        self.sender.clock().at(Millis(seconds * 1000 + micros / 1000))
    }
}

impl Ledger for RedisLedger {
    async fn on_this_thread(self: &Arc<Self>) -> Result<Arc<Self>, LedgerError> {
        let (settings, offset) = (self.settings.clone(), self.offset.clone());
        let opened = Connection::open(&settings).await;
        let connection = opened.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let sender = Sender::new(connection, offset.clone(), self.sender.marks().clone());
        Ok(Arc::new(RedisLedger { sender, settings, offset }))
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Reply<TenantView>, LedgerError> {
        type Found = ((i64, i64), Option<Vec<u8>>, Option<Vec<u8>>, HashSet<String>);
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        commands.cmd("HGET").arg(Key::Accounts.of(tenant)).arg(keys::TENANT);
        commands.cmd("HGET").arg(Key::Profiles.of(tenant)).arg(keys::TENANT);
        commands.cmd("HKEYS").arg(Key::Numbers.of(tenant));
        let found: Found = self.connection().query_all(slot_of(tenant), &commands).await?;
        let (time, account, record, numbers) = found;
        let account: Option<TenantAccount> = decode_if("tenant account", account.as_deref())?;
        let record = record.map(|text| decode_json("tenant record", &text)).transpose()?;
        let version = account.map_or(0, |account| account.version);
        let outcome = TenantView { version, record, numbers };
        Ok(Reply { now: self.instant(time), outcome })
    }

    async fn payers(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Result<Reply<Vec<PayerView>>, LedgerError> {
        type Found = ((i64, i64), Vec<Option<Vec<u8>>>, Vec<Option<Vec<u8>>>);
        let fields: Vec<String> = payers.iter().map(|payer| keys::payer(payer.as_str())).collect();
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        commands.cmd("HMGET").arg(Key::Accounts.of(tenant)).arg(&fields);
        commands.cmd("HMGET").arg(Key::Profiles.of(tenant)).arg(&fields);
        let (time, accounts, profiles): Found =
            self.connection().query_all(slot_of(tenant), &commands).await?;
        let view = |(account, stored): (Option<Vec<u8>>, Option<Vec<u8>>)| {
            let account: Option<PayerAccount> = decode_if("payer account", account.as_deref())?;
            let stored: Option<StoredPayer> = decode_if("payer", stored.as_deref())?;
            let barred = account.as_ref().is_some_and(|account| account.barred);
            Ok(PayerView {
                version: account.map_or(0, |account| account.version),
                profile: stored.map(|stored| stored.profile()).transpose()?.map(Arc::new),
                barred,
            })
        };
        let views: Result<_, LedgerError> = accounts.into_iter().zip(profiles).map(view).collect();
        Ok(Reply { now: self.instant(time), outcome: views? })
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, LedgerError> {
        let names: Vec<String> = self
            .connection()
            .query(Slot::of(keys::TENANTS), cmd("SMEMBERS").arg(keys::TENANTS))
            .await?;
        let mut tenants = read_ids(names, TenantId::new)?;
        tenants.sort();
        Ok(tenants)
    }

    async fn authorize(&self, command: &Authorize) -> Result<Reply<Authorized>, LedgerError> {
        let mut proposed = command.proposed();
        let told = AuthorizeArgs::told(command, &proposed)?;
        let (verb, told) = (told.verb, self.sender.run_with_others(&command.tenant, told).await?);
        let reply = CallReply::of(&told)?;
        let outcome = match reply.tag {
            "as_proposed" => {
                command.date(&mut proposed, reply.now);
                Authorized::Decided(proposed)
            }
            "decided" => Authorized::Decided(reply.call()?),
            "replayed" => Authorized::Replayed(reply.call()?),
            "conflict" => Authorized::Conflict,
            "ended" => Authorized::Ended,
            "rate_limited" => Authorized::RateLimited,
            "stale" => Authorized::Stale,
            tag => return Err(unknown_tag(verb.name(), tag)),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn answer(&self, command: &Answer) -> Result<Reply<Answered>, LedgerError> {
        let verb = CallVerb::Answer;
        let args = AnswerArgs { call: command.call.as_str() };
        let told = self.run_with_others(verb, &command.tenant, &args, &[]).await?;
        let reply = CallReply::of(&told)?;
        let outcome = match reply.tag {
            "not_found" => Answered::NotFound,
            "denied" => Answered::Denied(reply.call()?),
            "standing" => Answered::Standing(reply.call()?),
            "repeated" => Answered::Repeated(reply.call()?),
            tag => return Err(unknown_tag(verb.name(), tag)),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn extend(&self, command: &Extend) -> Result<Reply<Extended>, LedgerError> {
        let verb = CallVerb::Extend;
        let args = ExtendArgs::of(command);
        let told = self.run_with_others(verb, &command.tenant, &args, &[]).await?;
        let reply = CallReply::of(&told)?;
        let outcome = match reply.tag {
            "not_found" => Extended::NotFound,
            "denied" => Extended::Denied(reply.call()?),
            "ended" => Extended::Ended(reply.call()?),
            "granted" => Extended::Granted { call: reply.call()?, replayed: false },
            "repeated" => Extended::Granted { call: reply.call()?, replayed: true },
            "stopped" => Extended::Stopped(reply.call()?, reply.decision()?),
            tag => return Err(unknown_tag(verb.name(), tag)),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn end(&self, command: &End) -> Result<Reply<Ended>, LedgerError> {
        let verb = CallVerb::End;
        let args = EndArgs::of(command);
        let told = self.run_with_others(verb, &command.tenant, &args, &command.report).await?;
        let reply = CallReply::of(&told)?;
        let done =
            |result, replayed| reply.call().map(|call| Ended::Done { result, call, replayed });
        let outcome = match reply.tag {
            "settled" => done(EndResult::Settled, false)?,
            "settled_again" => done(EndResult::Settled, true)?,
            "already_settled_again" => done(EndResult::AlreadySettled, true)?,
            "released" => done(EndResult::Released, false)?,
            "released_again" => done(EndResult::Released, true)?,
            "parked" => done(EndResult::Parked, false)?,
            "parked_again" => done(EndResult::Parked, true)?,
            "answered_already" => Ended::AnsweredAlready(reply.call()?),
            "not_open" => Ended::NotOpen,
            "unknown" => Ended::Unknown,
            tag => return Err(unknown_tag(verb.name(), tag)),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn restore(&self, command: &Restore) -> Result<Reply<Restored>, LedgerError> {
        let told = RestoreArgs::told(command)?;
        let (verb, told) = (told.verb, self.sender.run_with_others(&command.tenant, told).await?);
        let reply = CallReply::of(&told)?;
        let outcome = match reply.tag {
            "restored" => Restored::Restored,
            "known" => Restored::Known,
            "too_late" => Restored::TooLate,
            "no_tenant" => Restored::NoTenant,
            tag => return Err(unknown_tag(verb.name(), tag)),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn sweep(
        &self,
        tenant: &TenantId,
        most: u32,
        ended_retention: Seconds,
    ) -> Result<Reply<Swept>, LedgerError> {
        let verb = Verb::Sweep;
        let bytes = self.run(verb, tenant, &SweepArgs { most, ended_retention }).await?;
        let reply: SweepReply<'_> = decode("answer", &bytes)?;
        let SweepReply { expired, forgotten, lapsed, .. } = reply;
        match reply.tag {
            "swept" => Ok(Reply { now: reply.now, outcome: Swept { expired, forgotten, lapsed } }),
            tag => Err(unknown_tag(verb.script().name, tag)),
        }
    }

    async fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Result<Reply<Applied>, LedgerError> {
        // Listed first: a tenant that is listed and not applied does no harm, one that is applied
        // and not listed would never be swept.
        let mut list = cmd("SADD");
        let _: i64 = self
            .connection()
            .query(Slot::of(keys::TENANTS), list.arg(keys::TENANTS).arg(tenant.as_str()))
            .await?;
        let record_json = encode_json(record)?;
        let suspended = record.profile.state == TenantState::Suspended;
        let over = over.into_iter().collect();
        let args = ApplyTenantArgs {
            record: &record_json,
            suspended,
            over,
            recharge: RechargeTerms::of(&record.profile).into_iter().collect(),
            deduct_shortfall: record.profile.deduct_shortfall,
        };
        let tags = ["changed", "unchanged", "stale"];
        let reply = self.count(Verb::ApplyTenant, tenant, &args, &tags).await?;
        let outcome = match reply.outcome.0 {
            "stale" => Applied::Stale,
            tag => Applied::Changed(usize::from(tag == "changed")),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Result<Reply<Applied>, LedgerError> {
        let args = ApplyPayersArgs::of(month, updates)?;
        let reply = self.count(Verb::ApplyPayers, tenant, &args, &["changed", "stale"]).await?;
        let outcome = match reply.outcome {
            ("stale", _) => Applied::Stale,
            (_, changed) => Applied::Changed(changed),
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> Result<Reply<Purchased>, LedgerError> {
        let context = encode_json(&purchase.payment)?;
        let args = PurchaseArgs {
            lot: purchase.key.as_str(),
            amount: purchase.amount,
            purchased_at: purchase.purchased_at,
            expires_at,
            context: &context,
        };
        let tags = ["applied", "replayed", "conflict"];
        let reply = self.count(Verb::Purchase, tenant, &args, &tags).await?;
        let outcome = match reply.outcome.0 {
            "applied" => Purchased::Applied,
            "replayed" => Purchased::Replayed,
            _ => Purchased::Conflict,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn report_recharge(
        &self,
        report: &ReportRecharge,
    ) -> Result<Reply<RechargeReported>, LedgerError> {
        let args = ReportRechargeArgs::of(report);
        let tags = ["applied", "replayed", "succeeded_before", "not_found", "wallet_full"];
        let reply = self.count(Verb::ReportRecharge, &report.tenant, &args, &tags).await?;
        let outcome = match reply.outcome.0 {
            "applied" => RechargeReported::Applied,
            "replayed" => RechargeReported::Replayed,
            "succeeded_before" => RechargeReported::SucceededBefore,
            "not_found" => RechargeReported::NotFound,
            _ => RechargeReported::WalletFull,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn put_deck(&self, version: &str, csv: &[u8]) -> Result<(), LedgerError> {
        self.connection()
            .query(Slot::of(&keys::deck(version)), cmd("SET").arg(keys::deck(version)).arg(csv))
            .await
    }

    async fn deck(&self, version: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.connection()
            .query(Slot::of(&keys::deck(version)), cmd("GET").arg(keys::deck(version)))
            .await
    }

    async fn name_deck(&self, name: &str, version: &str) -> Result<(), LedgerError> {
        let mut command = cmd("HSET");
        let _: i64 = self
            .connection()
            .query(Slot::of(keys::DECKS), command.arg(keys::DECKS).arg(name).arg(version))
            .await?;
        Ok(())
    }

    async fn named_deck(&self, name: &str) -> Result<Option<String>, LedgerError> {
        self.connection().query(Slot::of(keys::DECKS), cmd("HGET").arg(keys::DECKS).arg(name)).await
    }

    async fn balance(&self, tenant: &TenantId) -> Result<Reply<Balance>, LedgerError> {
        let verb = Verb::Balance;
        let bytes = self.run(verb, tenant, &BalanceArgs {}).await?;
        let mut reply: BalanceReply<'_> = decode("answer", &bytes)?;
        if reply.tag != "found" {
            return Err(unknown_tag(verb.script().name, reply.tag));
        }
        reply.sizes.sort();
        let (lots, overage) = apart_from_overage(read_lots(reply.lots)?);
        let outcome = Balance {
            sizes: reply.sizes,
            pools: read_pools(reply.pools)?,
            lots,
            wallet_holds: reply.wallet_holds,
            overage,
            recharge: reply.recharge,
            in_flight: reply.in_flight,
            owed: reply.owed,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Result<Reply<Position>, LedgerError> {
        let verb = Verb::Position;
        let args = PositionArgs::of(payer.as_str(), call.as_str(), month, families);
        let bytes = self.run(verb, tenant, &args).await?;
        let reply: PositionReply<'_> = decode("answer", &bytes)?;
        if reply.tag != "found" {
            return Err(unknown_tag(verb.script().name, reply.tag));
        }
        let call = Some(reply.call).filter(|call| !call.is_empty());
        let outcome = Position {
            tenant: reply.tenant,
            payer: reply.payer,
            pools: reply.pools,
            credits: reply.credits,
            wallet_holds: reply.wallet_holds,
            call: call.as_deref().map(|bytes| read_call(bytes)).transpose()?,
            overage: reply.overage,
            ring: reply.ring,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn call(&self, tenant: &TenantId, call: &CallId) -> Result<Option<Call>, LedgerError> {
        let mut command = cmd("HGET");
        command.arg(Key::Calls.of(tenant)).arg(call.as_str());
        let found: Option<Vec<u8>> = self.connection().query(slot_of(tenant), &command).await?;
        found.as_deref().map(read_call).transpose()
    }

    async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<Page<(CallId, Call)>, LedgerError> {
        let start = cursor.map(read_open_cursor).transpose()?;
        // One more than the page tells whether another follows.
        let mut listed = self.listed_after(tenant, start.as_ref(), most + 1).await?;
        let more = listed.len() > most;
        listed.truncate(most);
        let last = listed.last().map(|(at, id)| format!("{at}-{id}"));
        let mut items = vec![];
        if !listed.is_empty() {
            let mut command = cmd("HMGET");
            command.arg(Key::Calls.of(tenant));
            for (_, id) in &listed {
                command.arg(id.as_str());
            }
            let found: Vec<Option<Vec<u8>>> =
                self.connection().query(slot_of(tenant), &command).await?;
            for ((_, id), bytes) in listed.into_iter().zip(found) {
                let call = bytes.as_deref().map(read_call).transpose()?;
                // It may have ended since it was listed.
                items.extend(call.filter(|call| call.state.is_open()).map(|call| (id, call)));
            }
        }
        Ok(Page { items, next: last.filter(|_| more) })
    }

    async fn journal(
        &self,
        tenant: &TenantId,
        before: Option<&str>,
        most: usize,
    ) -> Result<Page<Entry>, LedgerError> {
        let newest = match before {
            None => "+".to_owned(),
            Some(cursor) if is_stream_id(cursor) => format!("({cursor}"),
            Some(cursor) => return Err(LedgerError::BadCursor(cursor.to_owned())),
        };
        let mut command = cmd("XREVRANGE");
        command.arg(Key::Journal.of(tenant)).arg(newest).arg("-").arg("COUNT").arg(most + 1);
        let mut found: StreamRangeReply =
            self.connection().query(slot_of(tenant), &command).await?;
        let more = found.ids.len() > most;
        found.ids.truncate(most);
        let next = found.ids.last().map(|last| last.id.clone()).filter(|_| more);
        let items = found.ids.iter().map(read_entry).collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }

    async fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<(String, Entry)>, LedgerError> {
        let oldest = match after {
            None => "-".to_owned(),
            Some(cursor) if is_stream_id(cursor) => format!("({cursor}"),
            Some(cursor) => return Err(LedgerError::BadCursor(cursor.to_owned())),
        };
        let mut command = cmd("XRANGE");
        command.arg(Key::Journal.of(tenant)).arg(oldest).arg("+").arg("COUNT").arg(most + 1);
        let mut found: StreamRangeReply =
            self.connection().query(slot_of(tenant), &command).await?;
        let more = found.ids.len() > most;
        found.ids.truncate(most);
        let next = found.ids.last().map(|last| last.id.clone()).filter(|_| more);
        let read = |found: &StreamId| Ok((found.id.clone(), read_entry(found)?));
        Ok(Page { items: found.ids.iter().map(read).collect::<Result<_, LedgerError>>()?, next })
    }

    async fn history_since(
        &self,
        _tenant: &TenantId,
        at: Millis,
    ) -> Result<Option<String>, LedgerError> {
        // Ids of the journal are Redis's own time, which only a moved clock tells apart from `at`.
        let ClockReading::Shifted(by) = self.sender.clock() else { return Ok(None) };
        let earliest = at.0 - by - ID_SLACK.0 * 1000;
        Ok((earliest > 0).then(|| format!("{earliest}-0")))
    }

    async fn calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<Page<(CallId, Call)>, LedgerError> {
        let from = cursor.unwrap_or("0");
        if from.parse::<u64>().is_err() {
            return Err(LedgerError::BadCursor(from.to_owned()));
        }
        let mut command = cmd("HSCAN");
        command.arg(Key::Calls.of(tenant)).arg(from).arg("COUNT").arg(most);
        let found: (String, Vec<(String, Vec<u8>)>) =
            self.connection().query(slot_of(tenant), &command).await?;
        let (next, found) = found;
        let read = |(id, bytes): (String, Vec<u8>)| {
            Ok((CallId::new(&id).map_err(|_| stray(&id))?, read_call(&bytes)?))
        };
        let items = found.into_iter().map(read).collect::<Result<_, LedgerError>>()?;
        Ok(Page { items, next: Some(next).filter(|next| next != "0") })
    }

    async fn are_kept(
        &self,
        tenant: &TenantId,
        calls: &[CallId],
    ) -> Result<Vec<bool>, LedgerError> {
        let mut commands = pipe();
        for call in calls {
            commands.cmd("HEXISTS").arg(Key::Calls.of(tenant)).arg(call.as_str());
        }
        if calls.is_empty() {
            return Ok(vec![]);
        }
        self.connection().query_all(slot_of(tenant), &commands).await
    }

    async fn upkeep(&self, tenant: &TenantId) -> Result<Reply<Upkeep>, LedgerError> {
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        commands.cmd("HGET").arg(Key::Upkeep.of(tenant)).arg(keys::UPKEEP);
        let found: ((i64, i64), Option<Vec<u8>>) =
            self.connection().query_all(slot_of(tenant), &commands).await?;
        let (time, bytes) = found;
        let outcome = decode_if("upkeep", bytes.as_deref())?.unwrap_or_default();
        Ok(Reply { now: self.instant(time), outcome })
    }

    async fn begin_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
    ) -> Result<Reply<bool>, LedgerError> {
        let args = BeginRewriteArgs { token, lease: REWRITE_LEASE };
        let reply = self.count(Verb::BeginRewrite, tenant, &args, &["begun", "busy"]).await?;
        Ok(Reply { now: reply.now, outcome: reply.outcome.0 == "begun" })
    }

    async fn add_rewritten(
        &self,
        tenant: &TenantId,
        token: &str,
        entries: &[(String, Entry)],
    ) -> Result<bool, LedgerError> {
        let args = AddRewrittenArgs { token, lease: REWRITE_LEASE };
        let written = entries.iter().map(|(_, entry)| write_entry(entry));
        let written = written.collect::<Result<Vec<_>, LedgerError>>()?;
        let opaque: Vec<&[u8]> = entries
            .iter()
            .zip(&written)
            .flat_map(|((id, entry), bytes)| {
                [id.as_bytes(), bytes.as_slice(), &entry.context, &entry.report]
            })
            .collect();
        let (verb, tags) = (Verb::AddRewritten, ["added", "lost"]);
        let reply = self.count_with(verb, tenant, &args, &opaque, &tags).await?;
        Ok(reply.outcome.0 == "added")
    }

    async fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> Result<Reply<FinishedRewrite>, LedgerError> {
        let args = FinishRewriteArgs {
            token: &finish.token,
            read_until: finish.read_until.as_deref().unwrap_or_default(),
            written: finish.written,
            copied: COPIED_AT_FINISH,
            trimmed: finish.trimmed,
            erased: finish.erased,
        };
        let note = finish.note.as_deref().unwrap_or_default();
        let (verb, tags) = (Verb::FinishRewrite, ["done", "behind", "lost"]);
        let reply = self.count_with(verb, tenant, &args, &[note], &tags).await?;
        let outcome = match reply.outcome.0 {
            "done" => FinishedRewrite::Done,
            "behind" => FinishedRewrite::Behind,
            _ => FinishedRewrite::Lost,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn record(&self, tenant: &TenantId) -> Result<Reply<Option<TenantRecord>>, LedgerError> {
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        commands.cmd("HGET").arg(Key::Profiles.of(tenant)).arg(keys::TENANT);
        let found: ((i64, i64), Option<Vec<u8>>) =
            self.connection().query_all(slot_of(tenant), &commands).await?;
        let record = found.1.map(|text| decode_json("tenant record", &text)).transpose()?;
        Ok(Reply { now: self.instant(found.0), outcome: record })
    }

    async fn take_reader(&self, command: &TakeReader) -> Result<Reply<Taken>, LedgerError> {
        let verb = Verb::TakeReader;
        let TakeReader { tenant, reader, owner, lease, since } = command;
        let args = TakeReaderArgs { reader, owner, lease: *lease, since: *since };
        let bytes = self.run(verb, tenant, &args).await?;
        let ReaderReply { tag, now, reader } = decode("answer", &bytes)?;
        let outcome = match tag {
            "taken" => Taken::Taken(reader),
            "busy" => Taken::Busy(reader),
            tag => return Err(unknown_tag(verb.script().name, tag)),
        };
        Ok(Reply { now, outcome })
    }

    async fn move_reader(&self, command: &MoveReader) -> Result<Reply<Moved>, LedgerError> {
        let MoveReader { tenant, reader, owner, cursor, lease } = command;
        let args = MoveReaderArgs { reader, owner, cursor, lease: *lease };
        let reply = self.count(Verb::MoveReader, tenant, &args, &["moved", "lost"]).await?;
        let outcome = match reply.outcome.0 {
            "moved" => Moved::Moved,
            _ => Moved::Lost,
        };
        Ok(Reply { now: reply.now, outcome })
    }

    async fn readers(
        &self,
        tenant: &TenantId,
    ) -> Result<Reply<Vec<(String, Reader)>>, LedgerError> {
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        commands.cmd("HGETALL").arg(Key::Readers.of(tenant));
        type Found = ((i64, i64), Vec<(String, Vec<u8>)>);
        let (time, found): Found = self.connection().query_all(slot_of(tenant), &commands).await?;
        let read = |(name, bytes): (String, Vec<u8>)| Ok((name, decode("reader", &bytes)?));
        let readers = found.into_iter().map(read).collect::<Result<Vec<_>, LedgerError>>();
        let mut readers: Vec<(String, Reader)> = readers?;
        readers.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Reply { now: self.instant(time), outcome: readers })
    }

    async fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> Result<(), LedgerError> {
        let args = AbandonRewriteArgs { token, trimmed, erased };
        let tags = ["abandoned", "lost"];
        self.count(Verb::AbandonRewrite, tenant, &args, &tags).await?;
        Ok(())
    }

    async fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> Result<bool, LedgerError> {
        let args = ReplaceContextArgs { call: call.as_str() };
        let (verb, tags) = (Verb::ReplaceContext, ["replaced", "moved"]);
        let reply = self.count_with(verb, tenant, &args, &[from, to], &tags).await?;
        Ok(reply.outcome.0 == "replaced")
    }

    async fn snapshot(&self, tenant: &TenantId) -> Result<Reply<Snapshot>, LedgerError> {
        for _ in 0..SNAPSHOT_ATTEMPTS {
            if let Some(snapshot) = self.try_snapshot(tenant).await? {
                return Ok(snapshot);
            }
        }
        let reason = format!("the journal of tenant {tenant} is replaced all the time");
        Err(LedgerError::Unavailable(reason))
    }

    async fn set_block(&self, command: &SetBlock) -> Result<Reply<BlockSet>, LedgerError> {
        let verb = Verb::Block;
        let context = command.note.encode();
        let args = SetBlockArgs {
            payer: command.payer.as_str(),
            blocked: command.blocked,
            reason: &command.note.reason,
            operator: &command.note.operator,
            context: &context,
        };
        let bytes = self.run(verb, &command.tenant, &args).await?;
        let BlockReply { tag, now, block } = decode("answer", &bytes)?;
        let missing = || LedgerError::Corrupt("block answered without a block".to_owned());
        let block = block.into_iter().next().ok_or_else(missing);
        let outcome = match tag {
            "blocked" => BlockSet::Blocked(block?),
            "standing" => BlockSet::Standing(block?),
            "lifted" => BlockSet::Lifted(block?),
            "not_blocked" => BlockSet::NotBlocked,
            "unknown" => BlockSet::Unknown,
            tag => return Err(unknown_tag(verb.script().name, tag)),
        };
        Ok(Reply { now, outcome })
    }

    async fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<(PayerId, BlockedBy, Block)>, LedgerError> {
        let after = after.map(read_block_cursor).transpose()?;
        let fields: Vec<String> = self
            .connection()
            .query(slot_of(tenant), cmd("HKEYS").arg(Key::Blocks.of(tenant)))
            .await?;
        let known = |field: &String| keys::blocked(field).ok_or_else(|| stray(field));
        let mut listed = fields.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        listed.retain(|key| after.as_ref().is_none_or(|after| key > after));
        listed.sort();
        let more = listed.len() > most;
        listed.truncate(most);
        let last = listed.last().map(|(payer, by)| block_cursor(payer, *by));
        let mut items = vec![];
        if !listed.is_empty() {
            let mut command = cmd("HMGET");
            command.arg(Key::Blocks.of(tenant));
            for (payer, by) in &listed {
                command.arg(keys::block(payer.as_str(), *by));
            }
            let found: Vec<Option<Vec<u8>>> =
                self.connection().query(slot_of(tenant), &command).await?;
            for ((payer, by), bytes) in listed.into_iter().zip(found) {
                // It may have been lifted since it was listed.
                let block: Option<Block> = decode_if("block", bytes.as_deref())?;
                items.extend(block.map(|block| (payer, by, block)));
            }
        }
        Ok(Page { items, next: last.filter(|_| more) })
    }

    async fn adjust_balance(
        &self,
        command: &AdjustBalance,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        let (verb, args) = (Verb::AdjustBalance, AdjustBalanceArgs::of(command));
        adjusted(verb, &self.run_with(verb, &command.tenant, &args, &[&command.report]).await?)
    }

    async fn adjust_settlement(
        &self,
        command: &AdjustSettlement,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        let (verb, args) = (Verb::AdjustSettlement, AdjustSettlementArgs::of(command));
        adjusted(verb, &self.run_with(verb, &command.tenant, &args, &[&command.report]).await?)
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.connection().ping().await
    }

    fn marks(&self) -> Arc<Marks> {
        self.sender.marks().clone()
    }

    async fn lost(&self, tenant: &TenantId) -> Result<Option<Lost>, LedgerError> {
        // Before the ledger is asked: what is acknowledged meanwhile it may not have seen.
        let (sidecar, known) = self.sender.marks().sent(tenant);
        let mut command = cmd("HMGET");
        command.arg(Key::Sequence.of(tenant)).arg(keys::mark(&sidecar));
        command.arg(keys::missing(&sidecar));
        let (mark, missing): (Option<u64>, Option<String>) =
            self.connection().query(slot_of(tenant), &command).await?;
        let found = Mark::unpacked(mark.unwrap_or_default());
        if found.is_behind(known) {
            self.sender.regressed(tenant, Regression { known, found }).await?;
        } else if let Some(missing) = missing {
            let lost = Lost::decode(&missing).ok_or_else(|| stray(&missing))?;
            self.sender.marks().lose(tenant, lost);
            return Ok(Some(lost));
        }
        let losses = self.sender.marks().losses();
        Ok(losses.into_iter().find(|(of, _)| of == tenant).map(|(_, lost)| lost))
    }

    async fn replayed(&self, tenant: &TenantId, lost: Lost) -> Result<(), LedgerError> {
        let (marks, text) = (self.sender.marks(), lost.encode());
        let args = ReplayedArgs { sidecar: &marks.sidecar(), lost: &text };
        self.count(Verb::Replayed, tenant, &args, &["cleared", "moved"]).await?;
        marks.replayed(tenant, lost);
        Ok(())
    }

    async fn forget_runs(&self, tenant: &TenantId, before: Millis) -> Result<usize, LedgerError> {
        let key = Key::Sequence.of(tenant);
        let fields: Vec<String> =
            self.connection().query(slot_of(tenant), cmd("HKEYS").arg(&key)).await?;
        let is_over = |field: &&String| {
            keys::sidecar(field).is_some_and(|sidecar| is_run_before(sidecar, before))
        };
        let over: Vec<&String> = fields.iter().filter(is_over).collect();
        let mut forgotten = 0;
        for some in over.chunks(FORGOTTEN_AT_ONCE) {
            let gone: usize =
                self.connection().query(slot_of(tenant), cmd("HDEL").arg(&key).arg(some)).await?;
            forgotten += gone;
        }
        Ok(forgotten)
    }
}

impl RedisLedger {
    /// Everything at one instant; `None` where the journal was replaced while it was read in parts.
    async fn try_snapshot(
        &self,
        tenant: &TenantId,
    ) -> Result<Option<Reply<Snapshot>>, LedgerError> {
        let before = self.upkeep(tenant).await?.outcome.rewrites;
        type Fields = Vec<(String, Vec<u8>)>;
        type Found = (
            (i64, i64),
            Fields,
            Fields,
            Fields,
            Fields,
            Fields,
            Fields,
            Vec<(String, i64)>,
            StreamRangeReply,
        );
        let mut commands = pipe();
        commands.atomic().cmd("TIME");
        for key in [Key::Accounts, Key::Sizes, Key::Lots, Key::Calls, Key::Adjustments, Key::Blocks]
        {
            commands.cmd("HGETALL").arg(key.of(tenant));
        }
        commands.cmd("ZRANGE").arg(Key::Deadlines.of(tenant)).arg(0).arg(-1).arg("WITHSCORES");
        commands.cmd("XREVRANGE").arg(Key::Journal.of(tenant)).arg("+").arg("-");
        commands.arg("COUNT").arg(1);
        let found: Found = self.connection().query_all(slot_of(tenant), &commands).await?;
        let (time, accounts, sizes, lots, calls, adjustments, blocks, deadlines, last) = found;
        let mut snapshot = Snapshot::default();
        let mut pools: Vec<(String, Bucket)> = vec![];
        for (field, bytes) in accounts {
            match field.split_once(':') {
                None if field == keys::LONG => {}
                None => snapshot.tenant = decode("tenant account", &bytes)?,
                Some(("u", payer)) => {
                    let payer = PayerId::new(payer).map_err(|_| stray(&field))?;
                    snapshot.payers.push((payer, decode("payer account", &bytes)?));
                }
                Some(("p", pool)) => pools.push((pool.to_owned(), decode("pool", &bytes)?)),
                Some(_) => return Err(stray(&field)),
            }
        }
        snapshot.payers.sort_by(|a, b| a.0.cmp(&b.0));
        snapshot.pools = read_pools(pools)?;
        for (family, bytes) in sizes {
            snapshot.sizes.push((family, decode("size", &bytes)?));
        }
        snapshot.sizes.sort();
        let mut buckets = vec![];
        for (field, bytes) in lots {
            match field.split_once(':') {
                Some(("l", lot)) => buckets.push((lot.to_owned(), decode("lot", &bytes)?)),
                Some(("r", key)) => {
                    let key = LotId::new(key).map_err(|_| stray(&field))?;
                    snapshot.recharges.push((key, decode("recharge", &bytes)?));
                }
                None if field == keys::WALLET => {
                    snapshot.wallet = decode::<Wallet>("wallet", &bytes)?;
                }
                None if field == keys::RING => snapshot.ring = decode("spend velocity", &bytes)?,
                _ => return Err(stray(&field)),
            }
        }
        snapshot.recharges.sort_by(|a, b| a.0.cmp(&b.0));
        snapshot.lots = read_lots(buckets)?;
        for (id, bytes) in calls {
            let id = CallId::new(&id).map_err(|_| stray(&id))?;
            snapshot.calls.push((id, read_call(&bytes)?));
        }
        snapshot.calls.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, bytes) in adjustments {
            let key = AdjustmentId::new(&key).map_err(|_| stray(&key))?;
            snapshot.adjustments.push((key, decode("adjustment", &bytes)?));
        }
        snapshot.adjustments.sort_by(|a, b| a.0.cmp(&b.0));
        for (id, at) in deadlines {
            snapshot.deadlines.push((CallId::new(&id).map_err(|_| stray(&id))?, Millis(at)));
        }
        snapshot.deadlines.sort();
        for (field, bytes) in blocks {
            let (payer, by) = keys::blocked(&field).ok_or_else(|| stray(&field))?;
            snapshot.blocks.push((payer, by, decode("block", &bytes)?));
        }
        snapshot.blocks.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        if let Some(last) = last.ids.first() {
            snapshot.journal = self.journal_until(tenant, &last.id).await?;
        }
        let same = self.upkeep(tenant).await?.outcome.rewrites == before;
        Ok(same.then(|| Reply { now: self.instant(time), outcome: snapshot }))
    }

    /// The first open calls after a place in the order of deadlines, at most `most`.
    async fn listed_after(
        &self,
        tenant: &TenantId,
        start: Option<&(Millis, CallId)>,
        most: usize,
    ) -> Result<Vec<(Millis, CallId)>, LedgerError> {
        let from = start.map_or("-inf".to_owned(), |(at, _)| at.to_string());
        let mut listed = vec![];
        let mut skipped = 0;
        loop {
            let mut command = cmd("ZRANGE");
            command.arg(Key::Deadlines.of(tenant)).arg(&from).arg("+inf").arg("BYSCORE");
            command.arg("LIMIT").arg(skipped).arg(most).arg("WITHSCORES");
            let found: Vec<(String, i64)> =
                self.connection().query(slot_of(tenant), &command).await?;
            let ended = found.len() < most;
            skipped += found.len();
            for (id, at) in found {
                let key = (Millis(at), CallId::new(&id).map_err(|_| stray(&id))?);
                // Calls of one deadline stand in the order of their ids, here as in Redis.
                if start.is_none_or(|start| key > *start) && listed.len() < most {
                    listed.push(key);
                }
            }
            if ended || listed.len() == most {
                return Ok(listed);
            }
        }
    }

    /// The journal up to an entry, oldest first.
    async fn journal_until(
        &self,
        tenant: &TenantId,
        last: &str,
    ) -> Result<Vec<Entry>, LedgerError> {
        let mut journal = vec![];
        let mut from = "-".to_owned();
        loop {
            let mut command = cmd("XRANGE");
            command.arg(Key::Journal.of(tenant)).arg(&from).arg(last);
            command.arg("COUNT").arg(JOURNAL_CHUNK);
            let chunk: StreamRangeReply =
                self.connection().query(slot_of(tenant), &command).await?;
            for found in &chunk.ids {
                journal.push(read_entry(found)?);
            }
            match chunk.ids.last() {
                Some(found) if chunk.ids.len() == JOURNAL_CHUNK => from = format!("({}", found.id),
                _ => return Ok(journal),
            }
        }
    }
}

/// What the script about a regression answered: whether this sidecar was the first to find it, whether
/// something is missing, how far the ledger has come now, and what is missing.
fn read_regressed(bytes: &[u8]) -> Result<(bool, bool, Mark, Lost), LedgerError> {
    let MarkReply { tag, mark: (epoch, above, last), .. } = decode("answer", bytes)?;
    let (is_first, is_missing) = match tag {
        "raised" => (true, true),
        "known" => (false, true),
        "standing" => (false, false),
        tag => return Err(unknown_tag(Verb::Regressed.script().name, tag)),
    };
    Ok((is_first, is_missing, Mark { epoch, sequence: last }, Lost { above, last }))
}

/// Where all keys of a tenant are, whose hash tag is its id.
fn slot_of(tenant: &TenantId) -> Slot {
    Slot::of(tenant.as_str())
}

/// What a script of corrections answered.
fn adjusted(verb: Verb, bytes: &[u8]) -> Result<Reply<Adjusted>, LedgerError> {
    let reply: AdjustReply<'_> = decode("answer", bytes)?;
    let now = reply.now;
    let outcome = match reply.tag {
        "applied" => Adjusted::Applied(reply.entry()?),
        "replayed" => Adjusted::Replayed(reply.entry()?),
        "conflict" => Adjusted::Conflict,
        "not_found" => Adjusted::NotFound,
        "over" => Adjusted::Over,
        "post_paid" => Adjusted::PostPaid,
        "short" => Adjusted::Short(reply.number),
        "full" => Adjusted::Full(reply.number),
        "not_settled" => Adjusted::NotSettled(reply.state()?),
        "unchanged" => Adjusted::Unchanged,
        "stale" => Adjusted::Stale,
        tag => return Err(unknown_tag(verb.script().name, tag)),
    };
    Ok(Reply { now, outcome })
}

fn decode_if<'a, T: serde::Deserialize<'a>>(
    what: &str,
    bytes: Option<&'a [u8]>,
) -> Result<Option<T>, LedgerError> {
    bytes.map(|bytes| decode(what, bytes)).transpose()
}

fn read_ids<T, E>(
    names: Vec<String>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, LedgerError> {
    names.iter().map(|name| read(name).map_err(|_| stray(name))).collect()
}

fn read_pools(found: Vec<(String, Bucket)>) -> Result<Vec<(PoolId, Bucket)>, LedgerError> {
    let read =
        |(id, bucket): (String, Bucket)| Ok((PoolId::new(&id).map_err(|_| stray(&id))?, bucket));
    let mut pools = found.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    pools.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(pools)
}

fn read_lots(found: Vec<(String, Bucket)>) -> Result<Vec<Lot>, LedgerError> {
    let read = |(key, bucket): (String, Bucket)| {
        Ok(Lot { key: LotId::new(&key).map_err(|_| stray(&key))?, bucket })
    };
    let mut lots = found.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    lots.sort_by(|a, b| (a.bucket.starts, &a.key).cmp(&(b.bucket.starts, &b.key)));
    Ok(lots)
}

fn read_entry(found: &StreamId) -> Result<Entry, LedgerError> {
    let field = |name: &str| match found.map.get(name) {
        Some(redis::Value::BulkString(bytes)) => Some(bytes.as_slice()),
        _ => None,
    };
    let entry = field(keys::ENTRY).ok_or_else(|| stray(&found.id))?;
    stored::read_entry(entry, field(keys::CONTEXT), field(keys::REPORT))
}

fn stray(name: &str) -> LedgerError {
    LedgerError::Corrupt(format!("{name:?} does not belong here"))
}

fn read_open_cursor(cursor: &str) -> Result<(Millis, CallId), LedgerError> {
    let parts = cursor
        .split_once('-')
        .and_then(|(at, call)| Some((Millis(at.parse().ok()?), CallId::new(call).ok()?)));
    parts.ok_or_else(|| LedgerError::BadCursor(cursor.to_owned()))
}

fn is_stream_id(text: &str) -> bool {
    let parts = text.split_once('-');
    parts.is_some_and(|(at, n)| at.parse::<u64>().is_ok() && n.parse::<u64>().is_ok())
}
