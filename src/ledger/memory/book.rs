//! One tenant's ledger as a plain state machine: every command, by an instant that is given.
//!
//! This is the model that the Lua scripts must equal, so it is written to be read.

mod adjust;
mod kept;
mod sequences;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::charging::decision::{Decision, Nuance};
use crate::charging::funding::{CreditSide, Reach, Reservation, charge, reserve};
use crate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId};
use crate::charging::month::Month;
use crate::charging::profile::{PayerProfile, PayerState, Purchase, TenantState};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::memory::book::kept::{Kept, differing};
use crate::ledger::memory::book::sequences::Sequences;
use crate::ledger::memory::journal::Journal;
use crate::ledger::memory::packed::Packed;
use crate::ledger::memory::rows::Rows;
use crate::ledger::memory::table::Table;
use crate::ledger::recharge::{Recharge, RechargeRequest, RechargeTerms, unspent};
use crate::ledger::state::{
    Adjustment, Block, BlockNote, BlockedBy, Bucket, Call, CallState, Entry, EntryKind, Funds, Lot,
    LotLine, MAX_MONEY, MoneyLine, PayerAccount, Posting, Reader, SpendRing, TenantAccount, Upkeep,
    Wallet, credit_side, nuance_code, pool_sides, reach_code,
};
use crate::ledger::{
    Answered, Applied, Authorize, Authorized, Balance, BlockSet, COPIED_AT_FINISH, CallLimits, End,
    EndResult, Ended, Ending, Extend, Extended, FinishRewrite, FinishedRewrite, MoveReader, Moved,
    Offer, PayerUpdate, PayerView, Position, Proposal, Purchased, REWRITE_LEASE, RechargeOutcome,
    RechargeReported, Restore, Restored, SWEPT_PER_AUTHORIZE, SetBlock, Snapshot, Swept,
    TakeReader, Taken, TenantRecord, TenantView, Versions, apart_from_overage, lot_bucket,
    pool_bucket, pool_id,
};

/// One tenant's balances, calls and journal.
#[derive(Clone, Default)]
pub(super) struct Book {
    tenant: TenantAccount,
    record: Option<TenantRecord>,
    /// Boxed, since a table has room for more than it holds.
    payers: Rows<HashMap<PayerId, Box<Payer>>>,
    sizes: Rows<BTreeMap<String, Seconds>>,
    pools: Rows<BTreeMap<String, Bucket>>,
    lots: Rows<BTreeMap<LotId, Bucket>>,
    wallet: Wallet,
    /// In flight or failed.
    recharges: Rows<BTreeMap<LotId, RechargeRequest>>,
    calls: Rows<Table<Packed<Call>>>,
    /// Open calls by expiry.
    deadlines: BTreeSet<(Millis, CallId)>,
    /// All other calls, by the instant at which they are forgotten.
    retained: BTreeSet<(Millis, CallId)>,
    journal: Journal,
    /// The last number that was given.
    numbered: u64,
    /// A journal that is rewritten aside.
    rewritten: Journal,
    upkeep: Upkeep,
    /// What the next entry brings with it: noted after it.
    alerts: Vec<Entry>,
    /// Every correction that was ever applied.
    adjustments: Rows<BTreeMap<AdjustmentId, Adjustment>>,
    readers: Rows<BTreeMap<String, Reader>>,
    ring: SpendRing,
    blocks: Rows<BTreeMap<(PayerId, BlockedBy), Block>>,
    pub(super) sequences: Sequences,
    /// Where rows are kept of it all.
    kept: Option<Kept>,
}

/// A lease while a call takes its part of it.
struct Lender {
    id: CallId,
    /// As it was.
    held: Call,
    /// Without what it held.
    lease: Call,
    /// What it gave back.
    postings: Vec<Posting>,
}

#[derive(Clone, Default)]
struct Payer {
    account: PayerAccount,
    profile: Option<Arc<PayerProfile>>,
    /// Shared with others who were applied with it and have the same.
    seats: Arc<[(String, Seconds)]>,
    /// Version of the account with which the two above were kept.
    kept_version: u64,
}

impl Book {
    pub(super) fn authorize(&mut self, now: Millis, command: &Authorize) -> Authorized {
        let mut due = Some(command.ended_retention);
        if self.is_kept(&command.call) {
            self.expire_due(now, &mut due);
        }
        if let Some(call) = self.call(&command.call) {
            return self.authorize_again(now, command, call);
        }
        let offer = match &command.proposal {
            Proposal::Record(offer) => {
                let call = command.new_call(now, CallState::Ringing, offer.decision);
                return self.grant(now, command, offer, call, due);
            }
            _ if self.versions(&command.payer) != command.versions => return Authorized::Stale,
            Proposal::Refuse(decision, nuance) => {
                return self.deny(now, command, *decision, *nuance);
            }
            Proposal::Grant(offer) => offer,
        };
        if now < offer.month.starts || now >= offer.month.ends {
            return Authorized::Stale;
        }
        if offer.limits.calls_per_second.is_some_and(|most| self.is_too_fast(now, most)) {
            self.note_refusal(now, command, Decision::RateLimited);
            return Authorized::RateLimited;
        }
        let mut nuance = self.too_many_calls(&command.payer, &offer.limits);
        if nuance.is_some() && self.expire_due(now, &mut due) {
            nuance = self.too_many_calls(&command.payer, &offer.limits);
        }
        if let Some(nuance) = nuance {
            return self.deny(now, command, Decision::ConcurrencyLimit, nuance);
        }
        let call = command.new_call(now, CallState::Ringing, offer.decision);
        self.grant(now, command, offer, call, due)
    }

    /// Expires what is due, so that what it holds is seen: once a command (`due` is its retention until then), and
    /// only where that matters. Whether that may change anything.
    fn expire_due(&mut self, now: Millis, due: &mut Option<Seconds>) -> bool {
        due.take()
            .is_some_and(|retention| self.sweep(now, SWEPT_PER_AUTHORIZE, retention).expired > 0)
    }

    fn authorize_again(&mut self, now: Millis, command: &Authorize, call: Call) -> Authorized {
        if let Proposal::Record(offer) = &command.proposal {
            return self.record_again(now, command, offer, call);
        }
        if call.state == CallState::Ended {
            self.note_refusal(now, command, Decision::CallAlreadyEnded);
            return Authorized::Ended;
        }
        if call.fingerprint != command.fingerprint {
            self.note_refusal(now, command, Decision::KeyConflict);
            return Authorized::Conflict;
        }
        match call.state {
            CallState::Denied | CallState::Ringing | CallState::Answered => {
                Authorized::Replayed(call)
            }
            _ => {
                self.note_refusal(now, command, Decision::CallAlreadyEnded);
                Authorized::Ended
            }
        }
    }

    /// A call that was granted without the ledger, and whose key the ledger knows: its repeat, or its
    /// end that overtook it. Anything else keeps the record and leaves the call as it is.
    fn record_again(
        &mut self,
        now: Millis,
        command: &Authorize,
        offer: &Offer,
        mut call: Call,
    ) -> Authorized {
        if call.state != CallState::Ended {
            let same = call.fingerprint == command.fingerprint;
            if same && call.decision == Some(offer.decision) {
                return Authorized::Replayed(call);
            }
            if same && call.state == CallState::Denied {
                // A refusal that came too late to be told: the client has the grant.
                self.unlist(&command.call, &call);
                let call = command.new_call(now, CallState::Ringing, offer.decision);
                return self.grant(now, command, offer, call, None);
            }
            let unknown = command.new_call(now, CallState::Ringing, offer.decision);
            self.note_call(now, EntryKind::Authorized, &unknown, &command.call, vec![]);
            self.tenant.decisions += 1;
            return Authorized::Conflict;
        }
        let was = call;
        call = command.new_call(now, CallState::Released, offer.decision);
        offer.shape(&mut call);
        call.granted = offer.requested;
        call.ended_at = was.ended_at;
        call.deadline = was.deadline;
        call.used = was.parked;
        call.settle_used = was.parked.0;
        self.note_call(now, EntryKind::Authorized, &call, &command.call, vec![]);
        self.tenant.decisions += 1;
        let kind = if was.parked.is_positive() {
            call.state = CallState::Settled;
            EntryKind::Settled
        } else {
            EntryKind::Released
        };
        self.note_call(now, kind, &call, &command.call, vec![]);
        self.keep(&command.call, &mut call);
        Authorized::Decided(call)
    }

    /// Counts the call towards those of this second; whether there are too many.
    fn is_too_fast(&mut self, now: Millis, most: u32) -> bool {
        let second = now.0 / 1000;
        if self.tenant.second != second {
            self.tenant.second = second;
            self.tenant.calls_in_second = 0;
        }
        if self.tenant.calls_in_second >= i64::from(most) {
            return true;
        }
        self.tenant.calls_in_second += 1;
        false
    }

    /// The nuance by which the payer or the tenant has too many calls; `None` where neither has.
    fn too_many_calls(&self, payer: &PayerId, limits: &CallLimits) -> Option<Nuance> {
        let of_payer = self.payers.get(payer).map_or(0, |payer| payer.account.open);
        if limits.payer_calls.is_some_and(|most| of_payer >= i64::from(most)) {
            return Some(Nuance::None);
        }
        let is_full = |most| self.tenant.open >= i64::from(most);
        limits.tenant_calls.is_some_and(is_full).then_some(Nuance::OfTenant)
    }

    fn grant(
        &mut self,
        now: Millis,
        command: &Authorize,
        offer: &Offer,
        mut call: Call,
        mut due: Option<Seconds>,
    ) -> Authorized {
        offer.shape(&mut call);
        let mut postings = vec![];
        if offer.terms.free {
            call.granted = offer.requested;
        } else {
            let mut reservation = self.plan(now, &call, offer.requested, Some(offer));
            if reservation.reach != Reach::Full && self.expire_due(now, &mut due) {
                reservation = self.plan(now, &call, offer.requested, Some(offer));
            }
            if !reservation.covered.is_positive() {
                let decision = match reservation.reach {
                    Reach::SpendLimit => offer.when_spend_limited,
                    Reach::Velocity => offer.when_velocity_limited,
                    _ => offer.when_exhausted,
                };
                return self.deny(now, command, decision, Nuance::None);
            }
            for pool in &offer.pools {
                self.open_pool(&pool.family, &offer.month);
            }
            call.granted = reservation.covered.min(offer.requested);
            call.reach = reach_code(reservation.reach);
            postings = self.hold(now, &mut call, &reservation);
        }
        let deadline = command.first_deadline(now, &call);
        self.open(&command.call, &mut call, deadline);
        self.note_call(now, EntryKind::Authorized, &call, &command.call, postings);
        self.tenant.decisions += 1;
        Authorized::Decided(call)
    }

    fn deny(
        &mut self,
        now: Millis,
        command: &Authorize,
        decision: Decision,
        nuance: Nuance,
    ) -> Authorized {
        let mut call = command.new_call(now, CallState::Denied, decision);
        call.nuance = nuance_code(nuance);
        let deadline = command.first_deadline(now, &call);
        self.retain(&command.call, &mut call, deadline);
        self.note_call(now, EntryKind::Refused, &call, &command.call, vec![]);
        self.tenant.decisions += 1;
        Authorized::Decided(call)
    }

    pub(super) fn answer(&mut self, now: Millis, id: &CallId) -> Answered {
        let Some(mut call) = self.call(id) else { return Answered::NotFound };
        match call.state {
            CallState::Denied => return Answered::Denied(call),
            CallState::Answered => return Answered::Repeated(call),
            CallState::Settled | CallState::Released | CallState::Ended => {
                return Answered::Standing(call);
            }
            CallState::Ringing => {}
            CallState::Expired => {
                let target = call.granted;
                self.reopen(now, id, &mut call, target);
            }
        }
        self.mark_answered(now, &mut call);
        call.used = call.used.max(Seconds(1));
        let deadline = self.in_call_deadline(now, &call);
        self.open_again_at(id, &mut call, deadline);
        Answered::Standing(call)
    }

    pub(super) fn extend(&mut self, now: Millis, command: &Extend) -> Extended {
        let Some(mut call) = self.call(&command.call) else {
            return Extended::NotFound;
        };
        match call.state {
            CallState::Denied => {
                self.park(now, &command.call, &mut call, command.used, &[]);
                return Extended::Denied(call);
            }
            CallState::Settled | CallState::Released | CallState::Ended => {
                return Extended::Ended(call);
            }
            CallState::Ringing | CallState::Answered | CallState::Expired => {}
        }
        let old = command.sequence.is_some_and(|sequence| sequence <= call.sequence);
        if old && call.state.is_open() {
            call.used = call.used.max(command.used);
            if call.state == CallState::Ringing && call.used.is_positive() {
                self.mark_answered(now, &mut call);
                let deadline = self.in_call_deadline(now, &call);
                self.open_again_at(&command.call, &mut call, deadline);
            }
            self.keep(&command.call, &mut call);
            return Extended::Granted { call, replayed: true };
        }
        let stop = self.stopped(&call);
        if let Some(stop) = stop
            && !call.state.is_open()
        {
            return Extended::Stopped(call, stop);
        }
        call.sequence = call.sequence.max(command.sequence.unwrap_or(-1));
        call.used = call.used.max(command.used);
        if let Some(stop) = stop {
            self.mark_answered(now, &mut call);
            self.keep(&command.call, &mut call);
            return Extended::Stopped(call, stop);
        }
        let target = call.used + command.requested;
        if call.state == CallState::Expired {
            self.reopen(now, &command.call, &mut call, target);
        } else {
            let postings = self.lengthen(now, &mut call, target);
            self.note_call(now, EntryKind::Extended, &call, &command.call, postings);
        }
        self.mark_answered(now, &mut call);
        let deadline = self.in_call_deadline(now, &call);
        self.open_again_at(&command.call, &mut call, deadline);
        Extended::Granted { call, replayed: false }
    }

    pub(super) fn end(&mut self, now: Millis, command: &End) -> Ended {
        let done = |result, call, replayed| Ended::Done { result, call, replayed };
        let keep = now.after(command.ended_retention);
        let reported = match command.how {
            Ending::Settle(used) => used,
            Ending::Release | Ending::Proven => Seconds::ZERO,
        };
        let is_settle = matches!(command.how, Ending::Settle(_));
        let Some(mut call) = self.call(&command.call) else {
            if command.how == Ending::Proven {
                return Ended::NotOpen;
            }
            if command.has_grant {
                return Ended::Unknown;
            }
            let mut call = Call::new(CallState::Ended, now);
            self.retain(&command.call, &mut call, keep);
            if reported.is_positive() {
                self.park(now, &command.call, &mut call, reported, &command.report);
                return done(EndResult::Parked, call, false);
            }
            return done(EndResult::Released, call, false);
        };
        if command.how == Ending::Proven && !call.state.is_open() {
            return Ended::NotOpen;
        }
        match call.state {
            // What was parked before the authorize is repeated as it was first told.
            CallState::Ended if call.parked.is_positive() => done(EndResult::Parked, call, true),
            CallState::Denied | CallState::Ended if reported.is_positive() => {
                let replayed = reported <= call.parked;
                if !replayed {
                    self.unlist(&command.call, &call);
                    self.retain(&command.call, &mut call, keep);
                    self.park(now, &command.call, &mut call, reported, &command.report);
                }
                done(EndResult::Parked, call, replayed)
            }
            CallState::Denied | CallState::Ended => done(EndResult::Released, call, true),
            CallState::Answered if command.how == Ending::Release => Ended::AnsweredAlready(call),
            CallState::Ringing if !reported.is_positive() => {
                let postings = self.settle_lines(now, &mut call, Seconds::ZERO);
                call.settle_used = 0;
                self.close(&command.call, &mut call, CallState::Released, now, keep);
                self.note_end(now, EntryKind::Released, &call, command, postings);
                done(EndResult::Released, call, false)
            }
            CallState::Ringing | CallState::Answered if command.how == Ending::Proven => {
                // As an expiry: a true report that comes later is charged the difference.
                let usage = call.used;
                let postings = self.settle_lines(now, &mut call, usage);
                self.close(&command.call, &mut call, CallState::Expired, now, keep);
                self.note_end(now, EntryKind::Expired, &call, command, postings);
                done(EndResult::Settled, call, false)
            }
            CallState::Ringing | CallState::Answered => {
                call.used = call.used.max(reported);
                call.settle_used = reported.0;
                let usage = call.used;
                let postings = self.settle_lines(now, &mut call, usage);
                self.owe(call.shortfall_money);
                self.close(&command.call, &mut call, CallState::Settled, now, keep);
                self.note_end(now, EntryKind::Settled, &call, command, postings);
                done(EndResult::Settled, call, false)
            }
            CallState::Settled => {
                let same = !reported.is_positive()
                    || reported == call.used
                    || reported.0 == call.settle_used;
                let result = if same { EndResult::Settled } else { EndResult::AlreadySettled };
                done(result, call, true)
            }
            CallState::Released | CallState::Expired
                if reported.is_positive() || (is_settle && call.presumed.is_positive()) =>
            {
                call.used = call.used.max(reported);
                call.settle_used = reported.0;
                let usage = call.used;
                let postings = match self.take_back_presumed(now, &mut call) {
                    Some(postings) => postings,
                    None => self.settle_lines(now, &mut call, usage),
                };
                self.unlist(&command.call, &call);
                self.owe(call.shortfall_money);
                call.state = CallState::Settled;
                call.ended_at = now;
                self.retain(&command.call, &mut call, keep);
                self.note_end(now, EntryKind::SettledLate, &call, command, postings);
                done(EndResult::Settled, call, false)
            }
            CallState::Released => done(EndResult::Released, call, true),
            CallState::Expired => {
                let charged = call.charged_usage().is_positive();
                let result = if charged { EndResult::Settled } else { EndResult::Released };
                done(result, call, true)
            }
        }
    }

    pub(super) fn restore(&mut self, now: Millis, command: &Restore) -> Restored {
        let known = self.call(&command.call);
        if known.as_ref().is_some_and(|known| !command.replaces(known)) {
            return Restored::Known;
        }
        if now >= command.until {
            return Restored::TooLate;
        }
        if self.tenant.version == 0 {
            return Restored::NoTenant;
        }
        if let Some(mut known) = known {
            if known.state == CallState::Ringing {
                let postings = self.settle_lines(now, &mut known, Seconds::ZERO);
                self.close(&command.call, &mut known, CallState::Released, now, now);
                self.note_call(now, EntryKind::Released, &known, &command.call, postings);
            }
            self.unlist(&command.call, &known);
        }
        let granted = &command.granted;
        let mut call = command.unfunded();
        let mut postings = vec![];
        let mut lenders = vec![];
        if !call.terms.free {
            lenders = self.call_in(now, &command.leases);
            for line in &call.pools {
                if let Some(family) = command.family(&line.pool)
                    && command.month.starts <= now
                {
                    self.open_pool(family, &command.month);
                }
            }
            let again = self.still_there(now, &call, granted);
            postings = self.hold(now, &mut call, &again);
        }
        let deadline = granted.deadline.max(now.after(call.terms.grace));
        self.open(&command.call, &mut call, deadline);
        self.note_call(now, EntryKind::Restored, &call, &command.call, postings);
        self.tenant.decisions += 1;
        self.lend_again(now, lenders, call);
        Restored::Restored
    }

    /// Has leases give back everything that they hold, for this instant.
    fn call_in(&mut self, now: Millis, leases: &[CallId]) -> Vec<Lender> {
        let mut lenders: Vec<Lender> = vec![];
        for id in leases {
            let Some(mut lease) = self.call(id) else { continue };
            if lease.state != CallState::Ringing || lenders.iter().any(|other| other.id == *id) {
                continue;
            }
            let held = lease.clone();
            let postings = self.settle_lines(now, &mut lease, Seconds::ZERO);
            lenders.push(Lender { id: id.clone(), held, lease, postings });
        }
        lenders
    }

    /// Has leases hold again what they held, without what `taken` holds now.
    fn lend_again(&mut self, now: Millis, lenders: Vec<Lender>, mut taken: Call) {
        for Lender { id, mut held, mut lease, mut postings } in lenders {
            for line in &mut held.pools {
                let of_pool = taken.pools.iter_mut().filter(|other| other.pool == line.pool);
                for other in of_pool {
                    let part = line.held.min(other.held);
                    line.held -= part;
                    other.held -= part;
                }
            }
            let parts = held.money.iter_mut().flat_map(|money| &mut money.lots);
            for line in parts {
                for other in taken.money.iter_mut().flat_map(|money| &mut money.lots) {
                    let part = line.held.min(other.held);
                    line.held -= part;
                    other.held -= part;
                }
            }
            let again = self.still_there(now, &lease, &held);
            postings.extend(self.hold(now, &mut lease, &again));
            self.keep(&id, &mut lease);
            self.note_call(now, EntryKind::Extended, &lease, &id, postings);
        }
    }

    /// What the lines of `granted` held and had spent, as far as it is still there.
    fn still_there(&self, now: Millis, call: &Call, granted: &Call) -> Reservation {
        let sides = pool_sides(call, |pool| self.pools.get(pool).copied());
        let pools = sides.iter().zip(&granted.pools).map(|(side, line)| {
            let most = (line.held + line.spent).min(side.available);
            most.round_down(side.increment)
        });
        let wanted = granted.money.as_ref().map(|money| money.held() + money.spent());
        let money = match (wanted, self.credit_side(now, call)) {
            (Some(wanted), Some(side)) => wanted.min(side.available),
            _ => Micros::ZERO,
        };
        let (covered, reach) = (granted.granted, Reach::Full);
        Reservation { pools: pools.collect(), money, covered, reach }
    }

    pub(super) fn sweep(&mut self, now: Millis, most: u32, ended_retention: Seconds) -> Swept {
        let mut swept = Swept::default();
        while swept.expired < most {
            let Some((deadline, id)) = self.deadlines.first().cloned() else { break };
            if deadline > now {
                break;
            }
            self.expire(now, &id, now.after(ended_retention));
            swept.expired += 1;
        }
        while swept.forgotten < most {
            let Some((deadline, id)) = self.retained.first().cloned() else { break };
            if deadline > now {
                break;
            }
            self.retained.remove(&(deadline, id.clone()));
            self.calls.remove(&id);
            swept.forgotten += 1;
        }
        swept
    }

    fn expire(&mut self, now: Millis, id: &CallId, keep: Millis) {
        let Some(mut call) = self.call(id) else { return };
        let lost = call.state == CallState::Answered && call.terms.charge_granted_when_lost;
        let kind = match lost && call.granted > call.used {
            true => EntryKind::ExpiredAsGranted,
            false => EntryKind::Expired,
        };
        if kind == EntryKind::ExpiredAsGranted {
            call.presumed = call.granted;
        }
        let usage = call.charged_usage();
        let postings = self.settle_lines(now, &mut call, usage);
        self.close(id, &mut call, CallState::Expired, now, keep);
        self.note_call(now, kind, &call, id, postings);
    }

    /// Charges the proven usage in the place of a higher one that was presumed, once somebody has reported what
    /// it was; nothing where nothing is to be given back.
    fn take_back_presumed(&mut self, now: Millis, call: &mut Call) -> Option<Vec<Posting>> {
        let presumed = std::mem::take(&mut call.presumed);
        let usage = call.used;
        (usage < presumed).then(|| self.charge_lines(now, call, usage, true))
    }

    /// Moves what nobody holds of a lapsed lot to `expired` (rule 47); how many lots that were.
    pub(super) fn lapse(&mut self, now: Millis) -> u32 {
        let mut lapsed = 0;
        for lot in self.wallet.live.clone() {
            let Some(bucket) = self.lots.get_mut(&lot) else { continue };
            let rest = bucket.available();
            if bucket.ends > now || rest == 0 {
                continue;
            }
            bucket.expired += rest;
            lapsed += 1;
            let posting = Posting { expired: rest, ..posting(lot_bucket(lot.as_str())) };
            self.note(Entry {
                subject: lot.as_str().to_owned(),
                postings: vec![posting],
                ..entry(now, EntryKind::LotExpired)
            });
        }
        self.drop_empty_lots(now);
        self.judge_recharge(now);
        self.note_alerts();
        lapsed
    }

    // Holds.

    /// What the call may additionally hold to run for `target`; `offer` while its pools may not exist.
    fn plan(
        &self,
        now: Millis,
        call: &Call,
        target: Seconds,
        offer: Option<&Offer>,
    ) -> Reservation {
        let pools = pool_sides(call, |pool| {
            let new = || {
                let offer = offer?;
                let found =
                    offer.pools.iter().find(|p| pool_id(&p.family, &offer.month.key) == pool);
                found.map(|p| self.new_pool(&p.family, &offer.month))
            };
            self.pools.get(pool).copied().or_else(new)
        });
        reserve(target, &pools, self.credit_side(now, call).as_ref())
    }

    fn credit_side(&self, now: Millis, call: &Call) -> Option<CreditSide> {
        let money = call.money.as_ref()?;
        let funds = Funds {
            credits: self.credits(now),
            overage: self.overage(&money.month),
            holds: self.wallet.holds,
            ring: &self.ring,
            now,
        };
        Some(credit_side(money, &funds, &self.payer_account(&call.payer)))
    }

    /// Takes a reservation out of the buckets and adds it to the call's lines.
    fn hold(&mut self, now: Millis, call: &mut Call, reservation: &Reservation) -> Vec<Posting> {
        let mut postings = vec![];
        for (line, &added) in call.pools.iter_mut().zip(&reservation.pools) {
            if !added.is_positive() {
                continue;
            }
            let bucket = self.pools.or_insert_with(line.pool.as_str().to_owned(), Bucket::default);
            bucket.held += added.0;
            bucket.holds += i64::from(!line.held.is_positive());
            line.held += added;
            postings.push(Posting { held: added.0, ..posting(pool_bucket(line.pool.as_str())) });
        }
        let Some(money) = call.money.as_mut().filter(|_| reservation.money.is_positive()) else {
            return postings;
        };
        self.wallet.holds += i64::from(!money.held().is_positive());
        let mut rest = reservation.money;
        for lot in self.valid_lots(now) {
            let Some(bucket) = self.lots.get_mut(&lot) else { continue };
            let taken = rest.min(Micros(bucket.available()));
            if !taken.is_positive() {
                continue;
            }
            let line = lot_line(money, &lot);
            bucket.held += taken.0;
            bucket.holds += i64::from(!line.held.is_positive());
            line.held += taken;
            rest -= taken;
            postings.push(Posting { held: taken.0, ..posting(lot_bucket(lot.as_str())) });
        }
        if rest.is_positive() && money.overage {
            let lot = LotId::overage(&money.month);
            let bucket = self.lots.or_insert_with(lot.clone(), Bucket::overage);
            let line = lot_line(money, &lot);
            bucket.funded += rest.0;
            bucket.held += rest.0;
            bucket.holds += i64::from(!line.held.is_positive());
            line.held += rest;
            let moved = posting(lot_bucket(lot.as_str()));
            postings.push(Posting { funded: rest.0, held: rest.0, ..moved });
        }
        count_velocity(&mut self.ring, now, money, reservation.money);
        let month = money.month.clone();
        self.count_money(&call.payer, &month, reservation.money, Micros::ZERO);
        // What is held is not spent, but it is not available any more.
        let judged = |recharge: &Recharge| recharge.terms.is_some_and(|terms| terms.on_available);
        if self.wallet.recharge.as_ref().is_some_and(judged) {
            self.judge_recharge(now);
        }
        postings
    }

    /// Charges `used` to the call's lines and gives back everything else that they hold.
    fn settle_lines(&mut self, now: Millis, call: &mut Call, used: Seconds) -> Vec<Posting> {
        self.charge_lines(now, call, used, false)
    }

    /// The same; where less is charged than before, which takes nothing that the lines do not have.
    fn charge_lines(
        &mut self,
        now: Millis,
        call: &mut Call,
        used: Seconds,
        gives_back: bool,
    ) -> Vec<Posting> {
        if call.terms.free {
            return vec![];
        }
        let mut pools = pool_sides(call, |pool| self.pools.get(pool).copied());
        let mut credits = self.credit_side(now, call);
        if gives_back {
            pools.iter_mut().for_each(|pool| pool.available = Seconds::ZERO);
            credits.iter_mut().for_each(|credits| credits.available = Micros::ZERO);
        }
        let charge = charge(used, &pools, credits.as_ref());
        call.money_duration = charge.money_duration;
        call.shortfall_duration = charge.shortfall_duration;
        call.shortfall_money = charge.shortfall_money;
        let mut postings = vec![];
        for (line, &charged) in call.pools.iter_mut().zip(&charge.pools) {
            let (held, spent) = (-line.held.0, (charged - line.spent).0);
            if held == 0 && spent == 0 {
                continue;
            }
            let bucket = self.pools.or_insert_with(line.pool.as_str().to_owned(), Bucket::default);
            bucket.held += held;
            bucket.spent += spent;
            bucket.holds -= i64::from(line.held.is_positive());
            self.alerts.extend(alerts(now, line.pool.as_str(), bucket));
            if gives_back {
                bucket.alerted = bucket.alerted.min(bucket.alert_due());
            }
            line.held = Seconds::ZERO;
            line.spent = charged;
            postings.push(Posting { held, spent, ..posting(pool_bucket(line.pool.as_str())) });
        }
        let Some(mut money) = call.money.take() else { return postings };
        let (held, before) = (money.held(), money.spent());
        if charge.money < before {
            self.give_back(now, &mut money, before - charge.money, &mut postings);
        } else {
            self.charge_lots(now, &mut money, charge.money - before, &mut postings);
        }
        count_velocity(&mut self.ring, now, &mut money, charge.money - before - held);
        self.wallet.holds -= i64::from(held.is_positive());
        self.count_money(&call.payer, &money.month, Micros(-held.0), charge.money - before);
        call.money = Some(money);
        self.drop_empty_lots(now);
        if held.is_positive() || charge.money > before {
            self.judge_recharge(now);
        }
        postings
    }

    /// Charges `owed` to the lots: first what the call holds, in the order held, then what is left,
    /// soonest bought first, then overage where it may pay. What a lapsed lot gets back has expired (D17),
    /// what overage gets back was never funded.
    fn charge_lots(
        &mut self,
        now: Millis,
        money: &mut MoneyLine,
        owed: Micros,
        postings: &mut Vec<Posting>,
    ) {
        let mut rest = owed;
        for line in &mut money.lots {
            if !line.held.is_positive() {
                continue;
            }
            let Some(bucket) = self.lots.get_mut(&line.lot) else { continue };
            let paid = rest.min(line.held);
            rest -= paid;
            let unused = line.held - paid;
            let is_overage = line.lot.is_overage();
            let lapsed = if !is_overage && bucket.ends <= now { unused.0 } else { 0 };
            let unfunded = if is_overage { unused.0 } else { 0 };
            bucket.funded -= unfunded;
            bucket.held -= line.held.0;
            bucket.spent += paid.0;
            bucket.expired += lapsed;
            bucket.holds -= 1;
            postings.push(Posting {
                funded: -unfunded,
                held: -line.held.0,
                spent: paid.0,
                expired: lapsed,
                ..posting(lot_bucket(line.lot.as_str()))
            });
            line.held = Micros::ZERO;
            line.spent += paid;
        }
        for lot in self.valid_lots(now) {
            let Some(bucket) = self.lots.get_mut(&lot) else { continue };
            let paid = rest.min(Micros(bucket.available()));
            if !paid.is_positive() {
                continue;
            }
            rest -= paid;
            bucket.spent += paid.0;
            lot_line(money, &lot).spent += paid;
            postings.push(Posting { spent: paid.0, ..posting(lot_bucket(lot.as_str())) });
        }
        if rest.is_positive() && money.overage {
            let lot = LotId::overage(&money.month);
            let bucket = self.lots.or_insert_with(lot.clone(), Bucket::overage);
            bucket.funded += rest.0;
            bucket.spent += rest.0;
            lot_line(money, &lot).spent += rest;
            let moved = posting(lot_bucket(lot.as_str()));
            postings.push(Posting { funded: rest.0, spent: rest.0, ..moved });
        }
    }

    /// Gives money back to the lots that were charged, the last one first. What a lapsed lot gets back
    /// has expired (D17), what overage gets back was never funded.
    fn give_back(
        &mut self,
        now: Millis,
        money: &mut MoneyLine,
        owed: Micros,
        postings: &mut Vec<Posting>,
    ) {
        let mut rest = owed;
        for line in money.lots.iter_mut().rev() {
            let back = rest.min(line.spent);
            if !back.is_positive() {
                continue;
            }
            let Some(bucket) = self.lots.get_mut(&line.lot) else { continue };
            rest -= back;
            let is_overage = line.lot.is_overage();
            let lapsed = if !is_overage && bucket.ends <= now { back.0 } else { 0 };
            let unfunded = if is_overage { back.0 } else { 0 };
            bucket.funded -= unfunded;
            bucket.spent -= back.0;
            bucket.expired += lapsed;
            line.spent -= back;
            postings.push(Posting {
                funded: -unfunded,
                spent: -back.0,
                expired: lapsed,
                ..posting(lot_bucket(line.lot.as_str()))
            });
            if !is_overage && lapsed == 0 {
                self.enlist_lot(&line.lot);
            }
        }
    }

    /// Holds more, so that the call can run to `target`, and lengthens the grant; never shortens it.
    fn lengthen(&mut self, now: Millis, call: &mut Call, target: Seconds) -> Vec<Posting> {
        let longest = call.terms.longest;
        let (target, mut reach) = match longest.is_positive() && target > longest {
            true => (longest, Reach::Exhausted),
            false => (target, Reach::Full),
        };
        let mut covered = target;
        let mut postings = vec![];
        if !call.terms.free {
            let reservation = self.plan(now, call, target, None);
            if reservation.reach != Reach::Full {
                reach = reservation.reach;
            }
            covered = reservation.covered.min(target);
            postings = self.hold(now, call, &reservation);
        }
        call.reach = reach_code(reach);
        call.granted = call.granted.max(covered);
        call.granted_from = call.used;
        postings
    }

    fn reopen(&mut self, now: Millis, id: &CallId, call: &mut Call, target: Seconds) {
        let mut postings = self.take_back_presumed(now, call).unwrap_or_default();
        self.unlist(id, call);
        call.state = CallState::Answered;
        call.ended_at = Millis::ZERO;
        call.money_duration = Seconds::ZERO;
        call.shortfall_duration = Seconds::ZERO;
        call.shortfall_money = Micros::ZERO;
        postings.extend(self.lengthen(now, call, target));
        let deadline = self.in_call_deadline(now, call);
        self.open(id, call, deadline);
        self.note_call(now, EntryKind::Reopened, call, id, postings);
    }

    // Calls and their deadlines.

    fn mark_answered(&self, now: Millis, call: &mut Call) {
        call.state = CallState::Answered;
        if call.answered_at == Millis::ZERO {
            call.answered_at = now;
        }
    }

    fn in_call_deadline(&self, now: Millis, call: &Call) -> Millis {
        now.after(call.granted.minus_or_zero(call.used) + call.terms.grace)
    }

    fn open(&mut self, id: &CallId, call: &mut Call, deadline: Millis) {
        if call.terms.counted {
            self.tenant.open += 1;
            self.payer_mut(&call.payer.clone(), |payer| payer.open += 1);
        }
        call.deadline = deadline;
        self.deadlines.insert((deadline, id.clone()));
        self.keep(id, call);
    }

    fn open_again_at(&mut self, id: &CallId, call: &mut Call, deadline: Millis) {
        self.deadlines.remove(&(call.deadline, id.clone()));
        call.deadline = deadline;
        self.deadlines.insert((deadline, id.clone()));
        self.keep(id, call);
    }

    fn close(&mut self, id: &CallId, call: &mut Call, state: CallState, now: Millis, keep: Millis) {
        if call.terms.counted {
            self.tenant.open -= 1;
            self.payer_mut(&call.payer.clone(), |payer| payer.open -= 1);
        }
        self.unlist(id, call);
        call.state = state;
        call.ended_at = now;
        self.retain(id, call, keep);
    }

    /// Keeps the call as it is now.
    fn keep(&mut self, id: &CallId, call: &mut Call) {
        let packed = Packed::of(call, self.calls.get(id.as_str()).map(Packed::context));
        self.calls.insert(id.clone(), packed);
    }

    fn unlist(&mut self, id: &CallId, call: &Call) {
        self.deadlines.remove(&(call.deadline, id.clone()));
        self.retained.remove(&(call.deadline, id.clone()));
    }

    fn retain(&mut self, id: &CallId, call: &mut Call, until: Millis) {
        call.deadline = until;
        self.retained.insert((until, id.clone()));
        self.keep(id, call);
    }

    /// Records usage that nothing was granted for.
    fn park(&mut self, now: Millis, id: &CallId, call: &mut Call, used: Seconds, report: &[u8]) {
        if used <= call.parked {
            return;
        }
        call.parked = used;
        self.keep(id, call);
        let parked = call_entry(now, EntryKind::Parked, call, id, vec![]);
        self.note(Entry { report: report.to_vec(), ..parked });
    }

    fn stopped(&self, call: &Call) -> Option<Decision> {
        if self.tenant.suspended {
            Some(Decision::TenantSuspended)
        } else {
            let payer = self.payer_account(&call.payer);
            (payer.blocked || payer.barred).then_some(Decision::FraudSuspected)
        }
    }

    // Accounts and buckets.

    fn versions(&self, payer: &PayerId) -> Versions {
        Versions {
            tenant: self.tenant.version,
            payer: self.payers.get(payer).map_or(0, |payer| payer.account.version),
        }
    }

    fn payer_account(&self, payer: &str) -> PayerAccount {
        self.payers.get(payer).map(|payer| payer.account.clone()).unwrap_or_default()
    }

    /// A payer that is not applied yet has an account from its first counted call on, so that what
    /// is counted up before it is applied can be counted down after.
    fn payer_mut(&mut self, payer: &str, change: impl FnOnce(&mut PayerAccount)) {
        if let Ok(id) = PayerId::new(payer) {
            change(&mut self.payers.or_insert_with(id, Box::default).account);
        }
    }

    /// Counts money towards the payer's spend limit of `month`; an older month no longer counts.
    fn count_money(&mut self, payer: &str, month: &str, held: Micros, spent: Micros) {
        if held == Micros::ZERO && spent == Micros::ZERO {
            return;
        }
        self.payer_mut(payer, |account| {
            if account.month.as_str() < month {
                account.month = month.to_owned();
                account.held = Micros::ZERO;
                account.spent = Micros::ZERO;
            }
            if account.month == month {
                account.held += held;
                account.spent += spent;
            }
        });
    }

    fn new_pool(&self, family: &str, month: &Month) -> Bucket {
        let funded = self.sizes.get(family).copied().unwrap_or_default().0;
        Bucket { funded, starts: month.starts, ends: month.ends, ..Bucket::default() }
    }

    /// Makes sure of a pool that is valid throughout the month, also where a new time zone of the
    /// tenant has moved the month's ends since it was made.
    fn open_pool(&mut self, family: &str, month: &Month) {
        let new = self.new_pool(family, month);
        let pool = self.pools.or_insert_with(pool_id(family, &month.key), || new);
        pool.starts = pool.starts.min(month.starts);
        pool.ends = pool.ends.max(month.ends);
    }

    fn valid_lots(&self, now: Millis) -> Vec<LotId> {
        let valid = |lot: &&LotId| {
            self.lots.get(*lot).is_some_and(|bucket| bucket.starts <= now && now < bucket.ends)
        };
        self.wallet.live.iter().filter(valid).cloned().collect()
    }

    fn credits(&self, now: Millis) -> Micros {
        let lots = self.valid_lots(now);
        Micros(lots.iter().filter_map(|lot| self.lots.get(lot)).map(Bucket::available).sum())
    }

    /// Puts a lot that has money into the drawing order, if it is not there.
    fn enlist_lot(&mut self, lot: &LotId) {
        if self.wallet.live.contains(lot) {
            return;
        }
        self.wallet.live.push(lot.clone());
        let lots = &self.lots;
        self.wallet.live.sort_by_key(|lot| {
            (lots.get(lot).map_or(Millis::ZERO, |bucket| bucket.starts), lot.clone())
        });
    }

    fn overage(&self, month: &str) -> Bucket {
        self.lots.get(&LotId::overage(month)).copied().unwrap_or_else(Bucket::overage)
    }

    fn drop_empty_lots(&mut self, now: Millis) {
        let lots = &self.lots;
        let was_empty = self.wallet.live.is_empty();
        self.wallet.live.retain(|lot| {
            lots.get(lot).is_some_and(|bucket| bucket.available() > 0 || bucket.held > 0)
        });
        if self.wallet.live.is_empty() && !was_empty {
            self.alerts.push(entry(now, EntryKind::CreditsDepleted));
        }
    }

    /// Asks for a recharge where the balance is below the trigger and nothing stands against it (D16);
    /// noted after the next entry.
    fn judge_recharge(&mut self, now: Millis) {
        let Some(recharge) = &mut self.wallet.recharge else { return };
        let Some(terms) = recharge.may_ask(now) else { return };
        let lots = self.wallet.live.iter().filter_map(|lot| self.lots.get(lot));
        if terms.balance(now, lots) >= terms.trigger {
            return;
        }
        let request = recharge.ask(now, terms.amount);
        let key = recharge.last();
        self.alerts.push(recharge_entry(now, EntryKind::RechargeRequested, &key, request.amount));
        self.recharges.insert(key, request);
    }

    /// Counts what a settled call fell short of, or less where a correction lowers that; of an expired one
    /// it may still change. What a lot has paid of it stays paid.
    fn owe(&mut self, more: Micros) {
        self.wallet.owed = (self.wallet.owed + more).clamp(Micros::ZERO, MAX_MONEY);
    }

    // The journal.

    fn note(&mut self, entry: Entry) {
        self.push(entry);
        self.note_alerts();
    }

    fn note_alerts(&mut self) {
        for entry in std::mem::take(&mut self.alerts) {
            self.push(entry);
        }
    }

    /// An entry of a call shares what the call keeps.
    fn pack(&self, mut entry: Entry) -> Packed<Entry> {
        let call = self.calls.get(entry.subject.as_str());
        Packed::of(&mut entry, call.map(Packed::context))
    }

    fn push(&mut self, entry: Entry) {
        self.numbered += 1;
        self.journal.push(self.numbered, self.pack(entry));
        if let Some(kept) = &mut self.kept {
            kept.entries.push(self.numbered);
        }
    }

    fn note_call(
        &mut self,
        now: Millis,
        kind: EntryKind,
        call: &Call,
        id: &CallId,
        postings: Vec<Posting>,
    ) {
        self.note(call_entry(now, kind, call, id, postings));
    }

    fn note_end(
        &mut self,
        now: Millis,
        kind: EntryKind,
        call: &Call,
        command: &End,
        postings: Vec<Posting>,
    ) {
        let report = command.report.clone();
        self.note(Entry { report, ..call_entry(now, kind, call, &command.call, postings) });
    }

    /// A decision that leaves the call of its key as it is.
    fn note_refusal(&mut self, now: Millis, command: &Authorize, decision: Decision) {
        let call = command.new_call(now, CallState::Denied, decision);
        self.note_call(now, EntryKind::Refused, &call, &command.call, vec![]);
        self.tenant.decisions += 1;
    }

    // Rewriting the journal.

    pub(super) fn upkeep(&self) -> Upkeep {
        self.upkeep.clone()
    }

    pub(super) fn begin_rewrite(&mut self, now: Millis, token: &str) -> bool {
        if !self.upkeep.token.is_empty() && self.upkeep.lease_ends > now {
            return false;
        }
        self.rewritten = Journal::default();
        self.upkeep.token = token.to_owned();
        self.upkeep.lease_ends = now.after(REWRITE_LEASE);
        true
    }

    pub(super) fn add_rewritten(
        &mut self,
        now: Millis,
        token: &str,
        entries: impl Iterator<Item = (u64, Entry)>,
    ) -> bool {
        if self.upkeep.token != token {
            return false;
        }
        self.upkeep.lease_ends = now.after(REWRITE_LEASE);
        for (number, entry) in entries {
            self.rewritten.push(number, self.pack(entry));
        }
        true
    }

    pub(super) fn finish_rewrite(
        &mut self,
        now: Millis,
        finish: &FinishRewrite,
        read_until: u64,
    ) -> FinishedRewrite {
        if self.upkeep.token != finish.token || self.rewritten.len() as u64 != finish.written {
            return FinishedRewrite::Lost;
        }
        let copied = self.journal.after(read_until)..self.journal.len();
        if copied.len() > COPIED_AT_FINISH {
            return FinishedRewrite::Behind;
        }
        for (number, entry) in self.journal.range(copied) {
            self.rewritten.push(*number, entry.clone());
        }
        let old = std::mem::replace(&mut self.journal, std::mem::take(&mut self.rewritten));
        if let Some(kept) = &mut self.kept {
            kept.entries.extend(differing(&old, &self.journal));
        }
        self.upkeep = Upkeep {
            token: String::new(),
            lease_ends: Millis::ZERO,
            trimmed: self.upkeep.trimmed.max(finish.trimmed),
            erased: self.upkeep.erased.max(finish.erased),
            rewrites: self.upkeep.rewrites + 1,
        };
        if let Some(note) = finish.note.as_ref().filter(|note| !note.is_empty()) {
            self.note(Entry { context: note.clone(), ..entry(now, EntryKind::NumbersErased) });
        }
        FinishedRewrite::Done
    }

    pub(super) fn abandon_rewrite(&mut self, token: &str, trimmed: Millis, erased: Millis) {
        if self.upkeep.token == token {
            self.rewritten = Journal::default();
            self.upkeep.trimmed = self.upkeep.trimmed.max(trimmed);
            self.upkeep.erased = self.upkeep.erased.max(erased);
            self.upkeep.token = String::new();
            self.upkeep.lease_ends = Millis::ZERO;
        }
    }

    pub(super) fn replace_context(&mut self, id: &CallId, from: &[u8], to: &[u8]) -> bool {
        match self.call(id).filter(|call| call.context == from) {
            Some(call) => {
                self.keep(id, &mut Call { context: to.to_vec(), ..call });
                true
            }
            None => false,
        }
    }

    // Provisioning.

    pub(super) fn record(&self) -> Option<TenantRecord> {
        self.record.clone()
    }

    pub(super) fn take_reader(&mut self, now: Millis, command: &TakeReader) -> Taken {
        let new = Reader { since: command.since, ..Reader::default() };
        let reader = self.readers.or_insert_with(command.reader.clone(), || new);
        if reader.owner != command.owner && reader.ends > now {
            return Taken::Busy(reader.clone());
        }
        reader.owner.clone_from(&command.owner);
        reader.ends = now.after(command.lease);
        Taken::Taken(reader.clone())
    }

    pub(super) fn readers(&self) -> Vec<(String, Reader)> {
        self.readers.iter().map(|(name, reader)| (name.clone(), reader.clone())).collect()
    }

    pub(super) fn move_reader(&mut self, now: Millis, command: &MoveReader) -> Moved {
        // A lease that has run out does no harm as long as nobody else has taken it.
        match self.readers.get_mut(&command.reader) {
            Some(reader) if reader.owner == command.owner => {
                reader.cursor.clone_from(&command.cursor);
                reader.ends = now.after(command.lease);
                Moved::Moved
            }
            _ => Moved::Lost,
        }
    }

    pub(super) fn view(&self) -> TenantView {
        let profiles = self.payers.values().filter_map(|payer| payer.profile.as_ref());
        let numbers = profiles
            .filter(|profile| profile.state != PayerState::Removed)
            .flat_map(|profile| profile.numbers.iter().cloned())
            .collect();
        TenantView { version: self.tenant.version, record: self.record.clone(), numbers }
    }

    pub(super) fn payer_view(&self, payer: &PayerId) -> PayerView {
        let Some(payer) = self.payers.get(payer) else { return PayerView::default() };
        PayerView {
            version: payer.account.version,
            profile: payer.profile.clone(),
            barred: payer.account.barred,
        }
    }

    pub(super) fn apply_tenant(
        &mut self,
        now: Millis,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Applied {
        if self.record.as_ref() == Some(record) {
            return Applied::Changed(0);
        }
        if over.is_some_and(|version| version != self.tenant.version) {
            return Applied::Stale;
        }
        self.tenant.version += 1;
        self.tenant.suspended = record.profile.state == TenantState::Suspended;
        self.record = Some(record.clone());
        let terms = RechargeTerms::of(&record.profile);
        match (&mut self.wallet.recharge, terms) {
            (Some(recharge), terms) => recharge.terms = terms,
            (None, None) => {}
            (none, terms) => *none = Some(Recharge { terms, ..Recharge::default() }),
        }
        self.wallet.deduct_shortfall = record.profile.deduct_shortfall;
        self.judge_recharge(now);
        self.note_alerts();
        Applied::Changed(1)
    }

    pub(super) fn apply_payers(
        &mut self,
        now: Millis,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Applied {
        if now < month.starts || now >= month.ends {
            return Applied::Stale;
        }
        let mut changed = 0;
        let mut numbers_changed = false;
        let mut file_blocks = vec![];
        let mut known_seats: HashMap<&Vec<(String, Seconds)>, Arc<[_]>> = HashMap::new();
        for PayerUpdate { profile, seats } in updates {
            let stands = |payer: &Payer| payer.profile.as_deref() == Some(profile);
            let known = self.payers.get(&profile.id);
            if known.is_some_and(|payer| stands(payer) && *payer.seats == **seats) {
                continue;
            }
            let payer = self.payers.or_insert_with(profile.id.clone(), Box::default);
            let known = payer.profile.as_ref();
            changed += 1;
            numbers_changed |= known.map_or(&[][..], |old| &old.numbers) != profile.numbers
                || known.map(|old| old.state) != Some(profile.state);
            payer.account.version += 1;
            let blocked = profile.state == PayerState::Blocked;
            if blocked != payer.account.blocked {
                payer.account.blocked = blocked;
                file_blocks.push((profile.id.clone(), blocked));
            }
            payer.profile = Some(Arc::new(profile.clone()));
            let shared = known_seats.entry(seats).or_insert_with(|| Arc::from(seats.as_slice()));
            let old = std::mem::replace(&mut payer.seats, shared.clone());
            for (sign, changes) in [(-1, &*old), (1, seats)] {
                for (family, seconds) in changes {
                    let size = self.sizes.or_insert_with(family.clone(), || Seconds::ZERO);
                    *size += Seconds(sign * seconds.0);
                }
            }
            for (family, _) in old.iter().chain(seats) {
                let size = self.sizes.get(family).copied().unwrap_or_default();
                if let Some(bucket) = self.pools.get_mut(&pool_id(family, &month.key)) {
                    bucket.funded = size.0;
                    bucket.alerted = bucket.alerted.min(bucket.alert_due());
                }
            }
        }
        if numbers_changed {
            self.tenant.version += 1;
        }
        for (payer, blocked) in file_blocks {
            let note = BlockNote::default();
            self.keep_block(now, payer, BlockedBy::File, blocked.then_some(note), String::new());
        }
        Applied::Changed(changed)
    }

    pub(super) fn set_block(&mut self, now: Millis, command: &SetBlock) -> BlockSet {
        let known = self.payers.get_mut(&command.payer);
        let Some(payer) = known.filter(|payer| payer.account.version > 0) else {
            return BlockSet::Unknown;
        };
        let by = BlockedBy::Operator;
        let standing = self.blocks.get(&(command.payer.clone(), by)).cloned();
        match (standing, command.blocked) {
            (Some(block), true) => return BlockSet::Standing(block),
            (None, false) => return BlockSet::NotBlocked,
            _ => {}
        }
        payer.account.version += 1;
        payer.account.barred = command.blocked;
        let note = command.blocked.then(|| command.note.clone());
        let block = self.keep_block(now, command.payer.clone(), by, note, command.note.encode());
        if command.blocked { BlockSet::Blocked(block) } else { BlockSet::Lifted(block) }
    }

    /// Sets the block that the note tells of, or lifts the one that stands; that block.
    fn keep_block(
        &mut self,
        now: Millis,
        payer: PayerId,
        by: BlockedBy,
        set: Option<BlockNote>,
        context: String,
    ) -> Block {
        let key = (payer.clone(), by);
        let (kind, block) = match set {
            Some(BlockNote { reason, operator }) => {
                let block = Block { since: now, reason, operator };
                self.blocks.insert(key, block.clone());
                (EntryKind::PayerBlocked, block)
            }
            None => {
                let none = Block { since: now, reason: String::new(), operator: String::new() };
                (EntryKind::PayerUnblocked, self.blocks.remove(&key).unwrap_or(none))
            }
        };
        self.note(Entry {
            subject: by.name().to_owned(),
            payer: payer.into(),
            context: context.into_bytes(),
            ..entry(now, kind)
        });
        block
    }

    pub(super) fn purchase(
        &mut self,
        now: Millis,
        purchase: &Purchase,
        expires_at: Millis,
        context: Vec<u8>,
    ) -> Purchased {
        if purchase.key.is_overage() {
            return Purchased::Conflict;
        }
        if let Some(known) = self.lots.get(&purchase.key) {
            let same = known.funded == purchase.amount.0 && known.starts == purchase.purchased_at;
            return if same { Purchased::Replayed } else { Purchased::Conflict };
        }
        self.add_lot(
            &purchase.key,
            Bucket {
                funded: purchase.amount.0,
                starts: purchase.purchased_at,
                ends: expires_at,
                ..Bucket::default()
            },
            Entry { context, ..entry(now, EntryKind::Purchased) },
        );
        Purchased::Applied
    }

    /// Adds a lot in its place in the drawing order, told by `bought`, and collects from it what earlier
    /// calls fell short of, where the tenant says so (D7).
    fn add_lot(&mut self, key: &LotId, mut bucket: Bucket, bought: Entry) {
        let now = bought.at;
        let collects = self.wallet.deduct_shortfall && now < bucket.ends;
        let paid =
            if collects { self.wallet.owed.min(Micros(bucket.funded)) } else { Micros::ZERO };
        let funded = bucket.funded;
        bucket.spent = paid.0;
        self.wallet.owed -= paid;
        self.lots.insert(key.clone(), bucket);
        if bucket.available() > 0 {
            self.enlist_lot(key);
        }
        let subject = || key.as_str().to_owned();
        let posted = Posting { funded, ..posting(lot_bucket(key.as_str())) };
        self.note(Entry { subject: subject(), postings: vec![posted], ..bought });
        if paid.is_positive() {
            let posted = Posting { spent: paid.0, ..posting(lot_bucket(key.as_str())) };
            let collected = entry(now, EntryKind::ShortfallCollected);
            self.note(Entry { subject: subject(), postings: vec![posted], ..collected });
        }
    }

    pub(super) fn report_recharge(
        &mut self,
        now: Millis,
        key: &LotId,
        outcome: &RechargeOutcome,
    ) -> RechargeReported {
        let request = self.recharges.get(key).copied();
        let (Some(request), Some(recharge)) = (request, &mut self.wallet.recharge) else {
            return match outcome {
                _ if !key.is_recharge() || !self.lots.contains_key(key) => {
                    RechargeReported::NotFound
                }
                RechargeOutcome::Succeeded { .. } => RechargeReported::Replayed,
                RechargeOutcome::Failed(_) => RechargeReported::SucceededBefore,
            };
        };
        match outcome {
            RechargeOutcome::Failed(_) if request.failed => return RechargeReported::Replayed,
            RechargeOutcome::Failed(reason) => {
                recharge.fail(now, &request);
                self.recharges.insert(key.clone(), RechargeRequest { failed: true, ..request });
                let failed = recharge_entry(now, EntryKind::RechargeFailed, key, request.amount);
                self.note(Entry { report: reason.as_bytes().to_vec(), ..failed });
            }
            RechargeOutcome::Succeeded { bought_at, expires_at } => {
                let live = self.wallet.live.iter().filter_map(|lot| self.lots.get(lot));
                if unspent(now, live, true) + request.amount > MAX_MONEY {
                    return RechargeReported::WalletFull;
                }
                recharge.succeed(&request);
                self.recharges.remove(key);
                let bucket = Bucket {
                    funded: request.amount.0,
                    starts: *bought_at,
                    ends: *expires_at,
                    ..Bucket::default()
                };
                let kind = EntryKind::RechargeSucceeded;
                self.add_lot(key, bucket, recharge_entry(now, kind, key, request.amount));
                // Still below: that is another crossing.
                self.judge_recharge(now);
                self.note_alerts();
            }
        }
        RechargeReported::Applied
    }

    // Reading.

    pub(super) fn is_known(&self) -> bool {
        self.record.is_some()
    }

    pub(super) fn balance(&self) -> Balance {
        let (lots, overage) = apart_from_overage(self.lot_list());
        Balance {
            sizes: self.sizes.iter().map(|(family, size)| (family.clone(), *size)).collect(),
            pools: self.pool_list(),
            lots,
            wallet_holds: self.wallet.holds,
            overage,
            recharge: self.wallet.recharge,
            in_flight: self.in_flight(),
            owed: self.wallet.owed,
        }
    }

    fn in_flight(&self) -> Option<RechargeRequest> {
        let recharge = self.wallet.recharge.filter(|recharge| recharge.in_flight)?;
        self.recharges.get(&recharge.last()).copied()
    }

    pub(super) fn position(
        &self,
        now: Millis,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Position {
        let pool = |family: &String| {
            let known = self.pools.get(&pool_id(family, &month.key)).copied();
            known.unwrap_or_else(|| self.new_pool(family, month))
        };
        Position {
            tenant: self.tenant,
            payer: self.payer_account(payer.as_str()),
            pools: families.iter().map(pool).collect(),
            credits: self.credits(now),
            wallet_holds: self.wallet.holds,
            call: self.call(call),
            overage: self.overage(&month.key),
            ring: self.ring.clone(),
        }
    }

    pub(super) fn call(&self, id: &CallId) -> Option<Call> {
        self.calls.get(id.as_str()).map(Packed::open)
    }

    pub(super) fn open_calls(
        &self,
        after: Option<&(Millis, CallId)>,
    ) -> impl Iterator<Item = (&(Millis, CallId), Call)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.deadlines.range::<(Millis, CallId), _>((after, Bound::Unbounded));
        found.filter_map(|key| Some((key, self.call(&key.1)?)))
    }

    pub(super) fn blocks(
        &self,
        after: Option<&(PayerId, BlockedBy)>,
    ) -> impl Iterator<Item = (PayerId, BlockedBy, Block)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.blocks.range::<(PayerId, BlockedBy), _>((after, Bound::Unbounded));
        found.map(|((payer, by), block)| (payer.clone(), *by, block.clone()))
    }

    pub(super) fn is_kept(&self, id: &CallId) -> bool {
        self.calls.contains_key(id.as_str())
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = (CallId, Call)> {
        self.calls.iter().map(|(id, call)| (id.clone(), call.open()))
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut payers: Vec<_> =
            self.payers.iter().map(|(id, payer)| (id.clone(), payer.account.clone())).collect();
        payers.sort_by(|a, b| a.0.cmp(&b.0));
        let mut calls: Vec<_> = self.calls().collect();
        calls.sort_by(|a, b| a.0.cmp(&b.0));
        let mut deadlines: Vec<_> =
            self.deadlines.iter().map(|(at, id)| (id.clone(), *at)).collect();
        deadlines.sort();
        Snapshot {
            tenant: self.tenant,
            payers,
            sizes: self.sizes.iter().map(|(family, size)| (family.clone(), *size)).collect(),
            pools: self.pool_list(),
            lots: self.lot_list(),
            wallet: self.wallet.clone(),
            calls,
            deadlines,
            journal: self.journal.iter().map(|(_, entry)| entry.open()).collect(),
            adjustments: self.adjustments.iter().map(|(k, a)| (k.clone(), a.clone())).collect(),
            ring: self.ring.clone(),
            blocks: self.blocks(None).collect(),
            recharges: self
                .recharges
                .iter()
                .map(|(key, request)| (key.clone(), *request))
                .collect(),
        }
    }

    fn pool_list(&self) -> Vec<(PoolId, Bucket)> {
        let ids = self.pools.iter();
        ids.filter_map(|(id, bucket)| Some((PoolId::new(id).ok()?, *bucket))).collect()
    }

    fn lot_list(&self) -> Vec<Lot> {
        let mut lots: Vec<Lot> = self
            .lots
            .iter()
            .map(|(key, bucket)| Lot { key: key.clone(), bucket: *bucket })
            .collect();
        lots.sort_by(|a, b| (a.bucket.starts, &a.key).cmp(&(b.bucket.starts, &b.key)));
        lots
    }
}

fn lot_line<'a>(money: &'a mut MoneyLine, lot: &LotId) -> &'a mut LotLine {
    let index = match money.lots.iter().position(|line| line.lot == *lot) {
        Some(index) => index,
        None => {
            let new = LotLine { lot: lot.clone(), held: Micros::ZERO, spent: Micros::ZERO };
            // What was bought is used before anything is post-paid (rule 43).
            let last = money.lots.last().is_some_and(|line| line.lot.is_overage());
            let index = money.lots.len() - usize::from(last);
            money.lots.insert(index, new);
            index
        }
    };
    &mut money.lots[index]
}

/// Counts towards the tenant's spend velocity what a call holds or is charged more than before; less than
/// zero is given back.
fn count_velocity(ring: &mut SpendRing, now: Millis, money: &mut MoneyLine, by: Micros) {
    let Some(line) = money.velocity.as_mut().filter(|_| by != Micros::ZERO) else { return };
    *ring = ring.seen_by(line, now);
    if by.is_positive() {
        ring.add(line, now, by);
    } else {
        ring.give_back(line, Micros(-by.0));
    }
}

fn call_entry(
    now: Millis,
    kind: EntryKind,
    call: &Call,
    id: &CallId,
    postings: Vec<Posting>,
) -> Entry {
    Entry {
        subject: id.as_str().to_owned(),
        payer: call.payer.clone(),
        decision: call.decision,
        used: if kind == EntryKind::Parked { call.parked } else { call.used },
        granted: call.granted,
        shortfall_duration: call.shortfall_duration,
        shortfall_money: call.shortfall_money,
        postings,
        context: call.context.clone(),
        ..entry(now, kind)
    }
}

/// What a pool's spending makes worth telling, once each (D18).
fn alerts(now: Millis, pool: &str, bucket: &mut Bucket) -> Vec<Entry> {
    let due = bucket.alert_due();
    let told = bucket.alerted;
    bucket.alerted = told.max(due);
    [(80, EntryKind::PoolThreshold), (100, EntryKind::PoolExhausted)]
        .into_iter()
        .filter(|&(share, _)| told < share && share <= due)
        .map(|(_, kind)| Entry { subject: pool.to_owned(), ..entry(now, kind) })
        .collect()
}

fn recharge_entry(now: Millis, kind: EntryKind, key: &LotId, amount: Micros) -> Entry {
    let (subject, context) = (key.as_str().to_owned(), amount.0.to_string().into_bytes());
    Entry { subject, context, ..entry(now, kind) }
}

fn posting(bucket: String) -> Posting {
    Posting { bucket, funded: 0, held: 0, spent: 0, expired: 0, adjusted: 0 }
}

pub(super) fn entry(now: Millis, kind: EntryKind) -> Entry {
    Entry {
        kind,
        at: now,
        subject: String::new(),
        payer: String::new(),
        decision: None,
        used: Seconds::ZERO,
        granted: Seconds::ZERO,
        shortfall_duration: Seconds::ZERO,
        shortfall_money: Micros::ZERO,
        postings: vec![],
        context: vec![],
        report: vec![],
    }
}
