//! What the ledger has lost of what this sidecar was acknowledged is brought back, from its journal.
//!
//! Which runs are lost is known by their sequences ([`marks`](crate::ledger::marks)), and each entry of the
//! journal has the highest sequence that was acknowledged when it was written. So the entries above what the
//! ledger still had are read, and of each call the last one is done again: put back as its grant was, then
//! answered, extended or ended as it had been. Purchases, reports of recharges, corrections and blocks are
//! done again by their keys, in their place among the calls; numbers are erased again behind them. All of this is idempotent, so that a replay
//! that was cut off begins anew, and that what another sidecar has done meanwhile is found done.
//!
//! Calls go on meanwhile. What is asked about a call that the ledger does not know then may come back at any
//! moment: its end is accepted by the journal, behind the replay, and anything else is UNAVAILABLE.
//!
//! **Nobody is charged twice.** A call that the ledger knows is never put back. One that was lost, and that
//! somebody has put back and ended since by its signed grant, is known for as long as ended calls are kept.
//! The loss cannot have been before the last acknowledgement; so no call is put back once that is as long
//! ago as ended calls are kept. Nor one whose own entry is as old: it may have ended and be forgotten, where
//! only the sequences are lost, or the sidecar's name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::charging::catalogue::CountryCode;
use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::units::{Millis, Seconds};
use crate::credit_control::answer::CallContext;
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::credit_control::erasing::erase_effect;
use crate::credit_control::erasure::{ErasureNote, Wanted, Whose};
use crate::credit_control::signed_grant::lasting;
use crate::credit_control::{CreditControl, MAX_DECISIONS};
use crate::journal::Journal;
use crate::journal::entry::{Done, Effect};
use crate::ledger::marks::Lost;
use crate::ledger::rewriting::RewriteError;
use crate::ledger::state::{Call, CallState, nuance_of};
use crate::ledger::{
    Adjusted, Answer, Authorize, Authorized, BlockSet, CallLimits, End, Ending, Extend, Ledger,
    LedgerError, Offer, Proposal, Purchased, RechargeOutcome, RechargeReported, Restore, Restored,
    Versions,
};
use crate::metrics::{self, Replayed};

/// What the record of a call is flagged with that was lost and comes from a journal.
pub const REPLAYED: &str = "REPLAYED_FROM_JOURNAL";

/// Calls that are put back at a time.
const AT_A_TIME: usize = 64;

/// How often ledgers are asked whether they went back: those of tenants that nothing is asked about, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tenants that are asked about at a time.
const LOOKED_AT: usize = 50;

/// Longest wait for one answer of the ledger.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a replay waits for answers of before the loss that are being noted.
const STRAGGLERS: Duration = Duration::from_millis(300);

/// Longest wait for the disk to take what was noted before.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// Pauses before a replay that is not done is tried again, for each tenant: from the first, doubling, to the
/// second; to the third where the ledger was out of reach, which it may be again any moment.
const PAUSES: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(4));

/// How often an entry is offered that the ledger has an error of its own for, before it is missed: for about
/// four minutes.
pub const MOST_PASSES: u32 = 10;

/// What became of the entries of one loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that are there again.
    pub calls: usize,
    /// Purchases, recharges, corrections, blocks and erasures that are.
    pub others: usize,
    /// What cannot be replayed; the log says what it was.
    pub missed: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.others += other.others;
        self.missed += other.missed;
    }
}

/// Replays that are not done yet.
#[derive(Default)]
pub struct Replays(HashMap<TenantId, Attempts>);

/// How those of a tenant went so far.
struct Attempts {
    lost: Lost,
    not_before: Instant,
    pause: Duration,
    tally: Tally,
    /// What the ledger had an error of its own for, and how often: the rest is done. `None` while not even
    /// that is known.
    refused: Option<HashMap<String, u32>>,
    /// What was said of it last: it is said once.
    told: Option<&'static str>,
}

/// How far a replay came.
enum Pass {
    /// To its end.
    Done,
    /// To its end, but for these.
    Refused(HashMap<String, u32>),
    /// Nowhere: the ledger does not know the tenant.
    Unknown,
}

/// A call to be put back.
struct Found {
    /// The store's clock when it was last told of, or at the last acknowledgement, whichever is earlier.
    at: Millis,
    effect: Effect<'static>,
    /// Out of which it was granted.
    leases: Vec<CallId>,
}

/// Entries that the ledger had an error of its own for, each with what it said.
type Refusals = Vec<(Effect<'static>, String)>;

/// How far a call had come: used, ended, granted, answered. Usage comes first, since it never falls, and a
/// call that has expired goes on when its client reports more. A replay notes anew what it has done, perhaps
/// behind what was acknowledged meanwhile, so that the order of entries alone does not tell.
type Progress = (Seconds, bool, Seconds, bool);

/// Entries to be done again: by the sequences of the journal, those that are no call's and of each call the
/// one in which it had come farthest, the last of several; about 130 bytes a call.
#[derive(Default)]
struct Index {
    last: HashMap<CallId, (Progress, u64)>,
    others: HashMap<String, u64>,
    /// The store's clock at the last acknowledgement before the loss was found.
    acknowledged: Millis,
    /// Of calls that were granted without the ledger: out of which leases.
    leases: HashMap<CallId, Vec<CallId>>,
    /// Numbers that were erased, whether that is lost or not: those seen before an instant.
    erasures: Vec<(Millis, Whose)>,
    unreadable: usize,
}

impl Index {
    /// The entry without the numbers that were erased since: what is put back must not bring them back.
    fn erased(&self, mut effect: Effect<'static>) -> Effect<'static> {
        let Some(at) = effect.call().map(|(_, call)| call.authorized_at) else { return effect };
        for (_, whose) in self.erasures.iter().filter(|(before, _)| at < *before) {
            erase_effect(&mut effect, whose);
        }
        effect
    }

    /// Without what is done already.
    fn keep(&mut self, names: &HashMap<String, u32>) {
        self.last.retain(|id, _| names.contains_key(&call_name(id)));
        self.others.retain(|name, _| names.contains_key(name));
    }
}

impl<L: Ledger> CreditControl<L> {
    /// Looks for losses and replays them, for ever.
    pub async fn replay_losses(self: Arc<Self>) {
        let (mut place, mut replays) = (0, Replays::default());
        loop {
            tokio::select! {
                // What is found is replayed before anything else is looked for, and not by chance.
                biased;
                () = self.marks.lost() => {}
                () = tokio::time::sleep(LOOK_EVERY) => place = self.look_for_losses(place).await,
            }
            self.replay_due(&mut replays, Instant::now()).await;
        }
    }

    /// One round of it, of those whose pause is over; what became of those that are done with it.
    pub async fn replay_due(self: &Arc<Self>, replays: &mut Replays, now: Instant) -> Tally {
        let losses = self.marks.losses();
        let is_lost =
            |of: &TenantId, lost: Lost| losses.iter().any(|one| (&one.0, one.1) == (of, lost));
        // What is lost besides begins anew.
        replays.0.retain(|of, attempts| is_lost(of, attempts.lost));
        let mut done = Tally::default();
        for (tenant, lost) in losses {
            let attempts = replays.0.entry(tenant.clone()).or_insert_with(|| Attempts {
                lost,
                not_before: now,
                pause: PAUSES.0,
                tally: Tally::default(),
                refused: None,
                told: None,
            });
            if now < attempts.not_before {
                continue;
            }
            let passed = self.replay(&tenant, attempts).await;
            let (why, most) = match &passed {
                Ok(Pass::Done) => {
                    let Tally { calls, others, missed } = attempts.tally;
                    tracing::warn!(%tenant, calls, others, missed,
                        "what the ledger had lost is replayed");
                    done.add(attempts.tally);
                    replays.0.remove(&tenant);
                    continue;
                }
                Ok(Pass::Refused(_)) => ("the ledger has errors for a part of it", PAUSES.1),
                Ok(Pass::Unknown) => {
                    ("the ledger does not know the tenant any more: apply it again", PAUSES.1)
                }
                Err(LedgerError::Corrupt(_)) => ("the ledger holds what cannot be read", PAUSES.1),
                Err(_) => ("the ledger or the journal is out of reach", PAUSES.2),
            };
            // Each reason once: it may stand for as long as nobody does anything.
            if attempts.told != Some(why) {
                let error = passed.as_ref().err().map(ToString::to_string);
                tracing::warn!(%tenant, why, error, "what the ledger has lost waits to be replayed");
                attempts.told = Some(why);
            }
            if let Ok(Pass::Refused(refused)) = passed {
                attempts.refused = Some(refused);
            }
            attempts.not_before = now.max(Instant::now()) + attempts.pause.min(most);
            attempts.pause = (attempts.pause * 2).min(most);
        }
        done
    }

    /// Asks about some tenants from a place in their order; where to go on.
    async fn look_for_losses(&self, place: usize) -> usize {
        let tenants = self.marks.tenants();
        let from = if place < tenants.len() { place } else { 0 };
        let some = tenants.iter().skip(from).take(LOOKED_AT);
        let mut at = from;
        for tenant in some {
            let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ledger.lost(tenant)).await;
            match asked {
                Ok(Ok(_)) => at += 1,
                Ok(Err(LedgerError::Corrupt(what))) => {
                    tracing::error!(%tenant, what, "whether the ledger went back is not known");
                    at += 1;
                }
                // It is out of reach: the same ones again.
                Ok(Err(_)) | Err(_) => return from,
            }
        }
        at
    }

    async fn replay(
        self: &Arc<Self>,
        tenant: &TenantId,
        attempts: &mut Attempts,
    ) -> Result<Pass, LedgerError> {
        let Attempts { lost, tally, refused: before, .. } = attempts;
        let lost = *lost;
        let Some(journal) = self.journal.clone() else { return Ok(Pass::Done) };
        let record = self.within_time(self.ledger.record(tenant));
        if tenant.as_str() != UNATTRIBUTED && record.await?.outcome.is_none() {
            return Ok(Pass::Unknown);
        }
        // What was remembered of the tenant may be from before; leases may be lost, or held once more.
        self.directory.forget_tenant(tenant);
        self.leases.doubt(tenant);
        let known = self.directory.tenant(&self.ledger, tenant).await?;
        let country = known.profile().and_then(|profile| profile.country);
        tokio::time::sleep(STRAGGLERS).await;
        if !journal.written(WRITTEN_WITHIN).await {
            tracing::error!(%tenant, "the journal is behind: what it has not written is not replayed");
        }
        let in_place = journal.is_in_place();
        let index = in_background(in_place, {
            let (journal, tenant) = (journal.clone(), tenant.clone());
            move || index(&journal, &tenant, lost, country)
        });
        let mut index = index.await?;
        if before.is_none() {
            *tally = Tally::default();
        }
        if let Some(refused) = before {
            index.keep(refused);
        }
        let index = Arc::new(index);
        if index.unreadable > 0 {
            tracing::error!(%tenant, parts = index.unreadable,
                "parts of the journal cannot be read, and are not replayed");
        }
        let room = if in_place { index.last.len() + index.others.len() } else { 4 * AT_A_TIME };
        let (found, mut entries) = mpsc::channel(room.max(1));
        let reading = in_background(in_place, {
            let (journal, tenant, index) = (journal.clone(), tenant.clone(), index.clone());
            // Whoever does not listen any more begins anew.
            let hand_over = move |entry| match in_place {
                true => drop(found.try_send(entry)),
                false => drop(found.blocking_send(entry)),
            };
            move || pick(&journal, &tenant, lost, &index, hand_over)
        });
        let reading = tokio::spawn(reading);
        let (mut late, mut erasures) = (vec![], vec![]);
        let (mut calls, mut refused) = (vec![], Refusals::new());
        loop {
            let next = entries.recv().await;
            let is_call = next.as_ref().is_some_and(|(_, effect)| effect.call().is_some());
            // Calls side by side, whatever else is between them in its place.
            if !is_call || calls.len() >= AT_A_TIME {
                let some = std::mem::take(&mut calls);
                self.put_all_back(tenant, some, tally, &mut refused).await?;
            }
            match next {
                Some((at, effect)) if is_call => {
                    let leases = effect.call().and_then(|(id, _)| index.leases.get(id));
                    let leases = leases.cloned().unwrap_or_default();
                    let at = at.min(index.acknowledged);
                    calls.push(Found { at, effect: index.erased(effect), leases });
                }
                Some((_, effect @ Effect::NumbersErased { .. })) => erasures.push(effect),
                Some((_, effect)) => match self.do_again(tenant, &effect).await {
                    Ok(Some(true)) => tally.others += 1,
                    Ok(Some(false)) => tally.missed += 1,
                    Ok(None) => late.push(effect),
                    Err(LedgerError::Corrupt(what)) => refused.push((effect, what)),
                    Err(error) => return Err(error),
                },
                None => break,
            }
        }
        // Recharges that are asked for again only once the calls behind them are charged, and corrections
        // whose calls came behind them.
        for effect in late {
            match self.do_again(tenant, &effect).await {
                Ok(Some(true)) => tally.others += 1,
                Ok(Some(false)) => tally.missed += 1,
                // What it waits for may be refused for now.
                Ok(None) if !refused.is_empty() => {
                    refused.push((effect, "what comes before it is refused".to_owned()));
                }
                Ok(None) => {
                    let why = match effect {
                        Effect::Recharged { .. } => "the ledger has not asked for it again",
                        _ => "what it corrected is not there, or not settled",
                    };
                    self.missed(tenant, &effect, why);
                    tally.missed += 1;
                }
                Err(LedgerError::Corrupt(what)) => refused.push((effect, what)),
                Err(error) => return Err(error),
            }
        }
        // These take longest and move nothing. One that meets a rewriting waits alone, for as long as that takes: what
        // came before it is done, and is not noted anew.
        let mut waiting = vec![];
        for effect in erasures {
            match self.erase_again(tenant, &effect).await {
                Ok(true) => tally.others += 1,
                Ok(false) => tally.missed += 1,
                Err(RewriteError::Busy(_)) => waiting.push(name(&effect)),
                Err(RewriteError::Ledger(LedgerError::Corrupt(what))) => {
                    refused.push((effect, what));
                }
                Err(RewriteError::Ledger(error)) => return Err(error),
            }
        }
        reading.await.map_err(|error| LedgerError::Unavailable(error.to_string()))??;
        let mut again = self.give_up(tenant, refused, before, tally).await?;
        for name in waiting {
            let times = before.as_ref().and_then(|before| before.get(&name)).copied();
            again.insert(name, times.unwrap_or_default());
        }
        if !again.is_empty() {
            return Ok(Pass::Refused(again));
        }
        self.within_time(self.ledger.replayed(tenant, lost)).await?;
        Ok(Pass::Done)
    }

    /// Those of the refused that are tried again, and how often they were refused by now; the others are
    /// missed.
    async fn give_up(
        &self,
        tenant: &TenantId,
        refused: Refusals,
        before: &Option<HashMap<String, u32>>,
        tally: &mut Tally,
    ) -> Result<HashMap<String, u32>, LedgerError> {
        let mut again = HashMap::new();
        if refused.is_empty() {
            return Ok(again);
        }
        // Where the tenant's balances cannot be read either, it is no matter of these entries: nothing of it
        // is given up.
        self.within_time(self.ledger.balance(tenant)).await?;
        for (effect, error) in refused {
            let name = name(&effect);
            let times = before.as_ref().and_then(|before| before.get(&name)).map_or(1, |n| n + 1);
            if times < MOST_PASSES {
                tracing::warn!(%tenant, what = name, error, times, "the ledger refuses a replay");
                again.insert(name, times);
            } else {
                self.missed(tenant, &effect, &format!("refused {times} times: {error}"));
                tally.missed += 1;
            }
        }
        Ok(again)
    }

    async fn put_all_back(
        self: &Arc<Self>,
        tenant: &TenantId,
        calls: Vec<Found>,
        tally: &mut Tally,
        refused: &mut Refusals,
    ) -> Result<(), LedgerError> {
        let mut all = JoinSet::new();
        for found in calls {
            let (control, tenant) = (self.clone(), tenant.clone());
            all.spawn(async move { (control.put_back(&tenant, &found).await, found.effect) });
        }
        while let Some(done) = all.join_next().await {
            let lost = |error: tokio::task::JoinError| LedgerError::Unavailable(error.to_string());
            match done.map_err(lost)? {
                (Ok(true), _) => tally.calls += 1,
                (Ok(false), _) => tally.missed += 1,
                (Err(LedgerError::Corrupt(what)), effect) => refused.push((effect, what)),
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    /// Brings a call to where it was acknowledged last; whether it is there.
    async fn put_back(&self, tenant: &TenantId, found: &Found) -> Result<bool, LedgerError> {
        let Found { at, effect, leases } = found;
        let at = *at;
        let Some((id, call)) = effect.call() else { return Ok(true) };
        let until = at.after(lasting(self.settings.ended_retention));
        let is_there = match call.state {
            CallState::Denied => self.refuse_again(tenant, id, call).await?,
            // Usage of a call that was never granted: it is parked again, or its key closed again.
            CallState::Ended => None,
            _ => self.restore_again(tenant, (id, call), leases, until).await?,
        };
        if let Some(missed) = is_there {
            self.missed(tenant, effect, missed);
            return Ok(false);
        }
        self.bring_forward(tenant, id, call, effect).await?;
        metrics::get().replayed(Replayed::Call);
        // It stands under a later sequence now, by which it is found where that is lost, too; with its own
        // instant: it may have been known, and is forgotten so long after its end.
        self.note(tenant, at, || effect.clone());
        Ok(true)
    }

    /// Why the call cannot be put back, if it cannot.
    async fn restore_again(
        &self,
        tenant: &TenantId,
        (id, call): (&CallId, &Call),
        leases: &[CallId],
        until: Millis,
    ) -> Result<Option<&'static str>, LedgerError> {
        let known = self.directory.tenant(&self.ledger, tenant).await?;
        let mut command = Restore {
            tenant: tenant.clone(),
            call: id.clone(),
            until,
            granted: as_granted(call),
            month: known.month(call.authorized_at).as_ref().clone(),
            leases: vec![],
        };
        let found = || self.within_time(self.ledger.call(tenant, id));
        // What lent to it may stand there as it was before, with the call's part: the call takes that.
        if !leases.is_empty() && found().await?.is_none() {
            command.leases = leases.to_vec();
        }
        let mut outcome = self.within_time(self.ledger.restore(&command)).await?.outcome;
        let there = if outcome == Restored::Known { found().await? } else { None };
        if let Some(there) = there {
            let is_told = |of: &Call| !of.fingerprint.is_empty();
            if is_told(&there) && is_told(call) && there.fingerprint != call.fingerprint {
                return Ok(Some("its key is another call's by now"));
            }
            if there.state == CallState::Denied {
                // Decided anew after the loss, of which nobody knew: a grant that was told before stands. Without
                // a lease, the name of none, so that the refusal gives way.
                command.leases = match leases {
                    [] => vec![CallId::lease("replay", 0)],
                    leases => leases.to_vec(),
                };
                outcome = self.within_time(self.ledger.restore(&command)).await?.outcome;
                if outcome == Restored::Known {
                    return Ok(Some("it was refused since, and its usage is parked"));
                }
            }
        }
        Ok(match outcome {
            Restored::Restored | Restored::Known => None,
            Restored::TooLate => Some("it may have ended since, and be forgotten"),
            Restored::NoTenant if call.terms.free => {
                let record = self.record_of(tenant, id, call, &command);
                match record {
                    Some(record) => {
                        self.within_time(self.ledger.authorize(&record)).await?;
                        None
                    }
                    None => Some("it has no decision or no payer"),
                }
            }
            Restored::NoTenant => {
                let gone = "the ledger does not know the tenant any more: apply it again";
                return Err(LedgerError::Unavailable(gone.to_owned()));
            }
        })
    }

    /// The record of a call that needs no ledger, as it was kept when it was decided.
    fn record_of(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
        restore: &Restore,
    ) -> Option<Authorize> {
        let decision = call.decision?;
        let offer = Offer {
            decision,
            month: restore.month.clone(),
            terms: call.terms,
            requested: call.granted,
            pools: vec![],
            money: None,
            limits: CallLimits::default(),
            when_exhausted: decision,
            when_spend_limited: decision,
            when_velocity_limited: decision,
        };
        let command = self.again(tenant, id, call, Proposal::Record(offer))?;
        Some(Authorize { context: restore.granted.context.clone(), ..command })
    }

    fn again(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
        proposal: Proposal,
    ) -> Option<Authorize> {
        Some(Authorize {
            tenant: tenant.clone(),
            call: id.clone(),
            fingerprint: call.fingerprint.clone(),
            payer: PayerId::new(&call.payer).ok()?,
            trunk: call.trunk.clone(),
            versions: Versions::default(),
            context: flagged(&call.context),
            proposal,
            denied_retention: self.settings.denied_retention,
            ended_retention: self.settings.ended_retention,
        })
    }

    /// Why the refusal cannot be recorded again, if it cannot.
    async fn refuse_again(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
    ) -> Result<Option<&'static str>, LedgerError> {
        let Some(decision) = call.decision else { return Ok(Some("it has no decision")) };
        let proposal = Proposal::Refuse(decision, nuance_of(call.nuance));
        let Some(mut command) = self.again(tenant, id, call, proposal) else {
            return Ok(Some("it has no payer"));
        };
        for _ in 0..MAX_DECISIONS {
            let known = self.directory.tenant(&self.ledger, tenant).await?;
            let payer = self.directory.payer(&self.ledger, tenant, &command.payer).await?;
            command.versions = Versions { tenant: known.view.version, payer: payer.version };
            let reply = self.within_time(self.ledger.authorize(&command)).await?;
            if reply.outcome != Authorized::Stale {
                return Ok(None);
            }
            let stale = command.versions;
            self.directory.refresh(&self.ledger, tenant, &command.payer, stale).await?;
        }
        Err(LedgerError::Unavailable(format!("{MAX_DECISIONS} decisions in a row were stale")))
    }

    /// A call that the ledger knows, perhaps from before: answers, extends or ends it as it was.
    async fn bring_forward(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
        effect: &Effect<'_>,
    ) -> Result<(), LedgerError> {
        let (tenant, id) = (tenant.clone(), id.clone());
        if let Effect::Ended { how, report, .. } = effect {
            let named = if let Ending::Settle(used) = how { *used } else { Seconds::ZERO };
            if call.used > named {
                self.prove_again(&tenant, &id, call).await?;
            }
            let command = End {
                tenant,
                call: id,
                how: *how,
                report: report.to_vec(),
                ended_retention: self.settings.ended_retention,
                has_grant: false,
            };
            self.within_time(self.ledger.end(&command)).await?;
            return Ok(());
        }
        if matches!(effect, Effect::Authorized { .. }) {
            return Ok(());
        }
        let Some(now) = self.within_time(self.ledger.call(&tenant, &id)).await? else {
            return Ok(());
        };
        // Where its answer is lost it may have expired as one that only rang; it holds again.
        let only_rang = now.state == CallState::Ringing
            || (now.state == CallState::Expired && now.answered_at == Millis::ZERO);
        if call.state == CallState::Answered && only_rang {
            let command = Answer { tenant: tenant.clone(), call: id.clone() };
            self.within_time(self.ledger.answer(&command)).await?;
        }
        let is_behind =
            now.granted < call.granted || now.used < call.used || now.parked < call.parked;
        if is_behind && matches!(effect, Effect::Extended { .. }) {
            let used = call.used.max(call.parked);
            let command = Extend {
                tenant,
                call: id,
                used,
                sequence: (call.sequence >= 0).then_some(call.sequence),
                requested: call.granted.minus_or_zero(used),
            };
            self.within_time(self.ledger.extend(&command)).await?;
        }
        Ok(())
    }

    /// Reports the usage that an end charged although it named less: what had proven it is lost, too.
    async fn prove_again(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
    ) -> Result<(), LedgerError> {
        let now = self.within_time(self.ledger.call(tenant, id)).await?;
        let may_go_on = |now: &Call| now.state.is_open() || now.state == CallState::Expired;
        if now.is_some_and(|now| may_go_on(&now) && now.used < call.used) {
            let command = Extend {
                tenant: tenant.clone(),
                call: id.clone(),
                used: call.used,
                sequence: (call.sequence >= 0).then_some(call.sequence),
                requested: Seconds::ZERO,
            };
            self.within_time(self.ledger.extend(&command)).await?;
        }
        Ok(())
    }

    /// Whether it is done, or cannot be; `None` where it may be later.
    async fn do_again(
        &self,
        tenant: &TenantId,
        effect: &Effect<'_>,
    ) -> Result<Option<bool>, LedgerError> {
        let missed = match effect {
            Effect::Purchased { purchase, expires_at } => {
                let bought = self.ledger.purchase(tenant, purchase, *expires_at);
                match self.within_time(bought).await?.outcome {
                    Purchased::Applied | Purchased::Replayed => None,
                    Purchased::Conflict => Some("its key was used for another purchase since"),
                }
            }
            Effect::Recharged { report, .. } => {
                match self.within_time(self.ledger.report_recharge(report)).await?.outcome {
                    RechargeReported::NotFound => return Ok(None),
                    RechargeReported::WalletFull => Some("the wallet is full"),
                    _ => None,
                }
            }
            Effect::BalanceAdjusted { command } => {
                adjusted(&self.within_time(self.ledger.adjust_balance(command)).await?.outcome)
            }
            Effect::SettlementAdjusted { command } => {
                let command = command.as_ref().clone();
                let known = self.within_time(self.ledger.call(tenant, &command.call)).await?;
                let over = known.map(|call| (call.used, call.money_spent())).unwrap_or_default();
                let command = crate::ledger::AdjustSettlement { over, ..command };
                let done = self.within_time(self.ledger.adjust_settlement(&command)).await?;
                match done.outcome {
                    // Its call may be behind it, noted anew by a replay that was cut off.
                    Adjusted::NotFound | Adjusted::NotSettled(_) => return Ok(None),
                    outcome => adjusted(&outcome),
                }
            }
            Effect::BlockSet { command } => {
                match self.within_time(self.ledger.set_block(command)).await?.outcome {
                    BlockSet::Unknown => Some("the payer is not known any more"),
                    _ => None,
                }
            }
            _ => None,
        };
        Ok(Some(self.is_done_again(tenant, effect, missed)))
    }

    /// Whether numbers are erased once more.
    async fn erase_again(
        &self,
        tenant: &TenantId,
        effect: &Effect<'_>,
    ) -> Result<bool, RewriteError> {
        let Effect::NumbersErased { number, before, reason, operator, .. } = effect else {
            return Ok(true);
        };
        let known = self.directory.tenant(&self.ledger, tenant).await?;
        let country = known.profile().and_then(|profile| profile.country);
        let note = ErasureNote {
            before: *before,
            reason: reason.clone(),
            operator: operator.clone(),
            ..ErasureNote::default()
        };
        let missed = match whose(number.as_deref(), country) {
            // It leaves an entry only where it finds something: a replay may be repeated.
            Some(whose) => {
                self.erase_numbers(tenant, &whose, *before, &note, false).await?;
                None
            }
            None => Some("it names no number"),
        };
        Ok(self.is_done_again(tenant, effect, missed))
    }

    /// Notes anew what was replayed, or tells why it cannot be; whether it was.
    fn is_done_again(&self, tenant: &TenantId, effect: &Effect<'_>, missed: Option<&str>) -> bool {
        if let Some(why) = missed {
            self.missed(tenant, effect, why);
            return false;
        }
        metrics::get().replayed(Replayed::Other);
        self.note(tenant, self.now(), || effect.clone());
        true
    }

    fn missed(&self, tenant: &TenantId, effect: &Effect<'_>, why: &str) {
        metrics::get().replayed(Replayed::Missed);
        let what = name(effect);
        tracing::error!(%tenant, what, why, "the ledger has lost it, and it cannot be replayed");
    }

    async fn within_time<T>(
        &self,
        asked: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let late = || LedgerError::Indeterminate("no answer within the time limit".to_owned());
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A thread that may wait for the disk; none where the journal has none either.
async fn in_background<T: Send + 'static>(
    in_place: bool,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, LedgerError> {
    let unread = |error: &dyn std::fmt::Display| {
        LedgerError::Unavailable(format!("the journal cannot be read: {error}"))
    };
    let done = match in_place {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.map_err(|error| unread(&error))?,
    };
    done.map_err(|error| unread(&error))
}

fn is_lost(done: &Done<'_>, tenant: &TenantId, lost: Lost) -> bool {
    done.tenant == *tenant && done.mark.sequence > lost.above
}

/// What is done, for people, and so that it is done once.
fn name(effect: &Effect<'_>) -> String {
    match effect {
        Effect::Purchased { purchase, .. } => format!("purchase {}", purchase.key),
        Effect::Recharged { report, amount } => match report.outcome {
            RechargeOutcome::Succeeded { .. } => {
                format!("recharge {} of {amount} micro-units", report.key)
            }
            RechargeOutcome::Failed(_) => format!("failed recharge {}", report.key),
        },
        Effect::BalanceAdjusted { command } => format!("correction {}", command.key),
        Effect::SettlementAdjusted { command } => format!("correction {}", command.key),
        Effect::BlockSet { command } => format!("block of {}", command.payer),
        Effect::NumbersErased { key, .. } => format!("erasure {key}"),
        _ => effect.call().map(|(id, _)| call_name(id)).unwrap_or_default(),
    }
}

fn call_name(id: &CallId) -> String {
    format!("call {id}")
}

/// Whose numbers an erasure is about; `None` where it names none.
fn whose(number: Option<&str>, country: Option<CountryCode>) -> Option<Whose> {
    match number {
        Some(number) => Wanted::new(number, country).map(Whose::Of),
        None => Some(Whose::Everybodys),
    }
}

/// The first pass: what is to be done again, of a tenant of that country.
fn index(
    journal: &Journal,
    tenant: &TenantId,
    lost: Lost,
    country: Option<CountryCode>,
) -> std::io::Result<Index> {
    let mut index = Index::default();
    let mut earliest = None;
    index.unreadable = journal.read_done(|sequence, done| {
        match &done.effect {
            Effect::Authorized { id, leases, .. }
                if done.tenant == *tenant && !leases.is_empty() =>
            {
                index.leases.insert(id.clone(), leases.clone());
            }
            Effect::NumbersErased { at, number, before, .. } if done.tenant == *tenant => {
                let whose = whose(number.as_deref(), country);
                // One that began in the same instant may be among those that were looked at.
                let until = before.unwrap_or(Millis(at.0 + 1));
                index.erasures.extend(whose.map(|whose| (until, whose)));
            }
            _ => {}
        }
        if !is_lost(&done, tenant, lost) {
            return;
        }
        earliest = earliest.or(Some(done.now));
        if done.mark.sequence <= lost.last {
            index.acknowledged = index.acknowledged.max(done.now);
        }
        match done.effect.call() {
            Some((id, call)) => {
                let progress = progress(&done.effect, call);
                let before = index.last.get(id);
                if before.is_none_or(|(before, _)| *before <= progress) {
                    index.last.insert(id.clone(), (progress, sequence));
                }
            }
            // Each once: a replay notes anew what it has done, and may be cut off and begin anew.
            None => match done.effect {
                // Of a payer's blocks the last says how it is.
                Effect::BlockSet { .. } => {
                    index.others.insert(name(&done.effect), sequence);
                }
                // Anything else has a key, and is done in its first place.
                _ => {
                    index.others.entry(name(&done.effect)).or_insert(sequence);
                }
            },
        }
    })?;
    if index.acknowledged == Millis::ZERO {
        index.acknowledged = earliest.unwrap_or_default();
    }
    Ok(index)
}

fn progress(effect: &Effect<'_>, call: &Call) -> Progress {
    let is_ended = matches!(effect, Effect::Ended { .. });
    (call.used.max(call.parked), is_ended, call.granted, call.answered_at > Millis::ZERO)
}

/// The second pass: hands over what the first has found, in its order.
fn pick(
    journal: &Journal,
    tenant: &TenantId,
    lost: Lost,
    index: &Index,
    hand_over: impl Fn((Millis, Effect<'static>)),
) -> std::io::Result<()> {
    journal.read_done(|sequence, done| {
        if !is_lost(&done, tenant, lost) {
            return;
        }
        let is_wanted = match done.effect.call() {
            Some((id, _)) => index.last.get(id).is_some_and(|(_, last)| *last == sequence),
            None => index.others.get(&name(&done.effect)) == Some(&sequence),
        };
        if is_wanted {
            hand_over((done.now, done.effect.into_owned()));
        }
    })?;
    Ok(())
}

/// The call as it was before it ended, holding what it was charged.
fn as_granted(call: &Call) -> Call {
    let state = match call.state {
        CallState::Ringing | CallState::Answered => call.state,
        _ if call.answered_at > Millis::ZERO => CallState::Answered,
        _ => CallState::Ringing,
    };
    // Of an ended call it is when it is forgotten.
    let deadline = if call.state.is_open() { call.deadline } else { Millis::ZERO };
    Call { state, deadline, context: flagged(&call.context), ..call.clone() }
}

/// So that its record says how it came about.
fn flagged(context: &[u8]) -> Vec<u8> {
    match CallContext::decode(context) {
        Some(mut known) => {
            if !known.flags.iter().any(|flag| flag == REPLAYED) {
                known.flags.push(REPLAYED.to_owned());
            }
            known.encode()
        }
        None => context.to_vec(),
    }
}

/// Why a correction is not there, if it is not.
fn adjusted(outcome: &Adjusted) -> Option<&'static str> {
    match outcome {
        Adjusted::Applied(_) | Adjusted::Replayed(_) | Adjusted::Unchanged => None,
        Adjusted::Conflict => Some("its key was used for another correction since"),
        Adjusted::NotFound => Some("what it corrected is not known any more"),
        Adjusted::Over => Some("the lot has lapsed, or the month of the pool is over"),
        Adjusted::PostPaid | Adjusted::NotSettled(_) => Some("it is no settled call or lot now"),
        Adjusted::Short(_) => Some("less is available now than it takes away"),
        Adjusted::Full(_) => Some("the limits leave no room for it now"),
        Adjusted::Stale => Some("the month of the pool is over, or the call was charged again"),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::charging::ids::LotId;
    use crate::charging::profile::Purchase;
    use crate::charging::units::Micros;
    use crate::journal::Settings;
    use crate::ledger::SetBlock;
    use crate::ledger::marks::Mark;
    use crate::ledger::state::BlockNote;

    const LOST: Lost = Lost { above: 0, last: 9 };

    /// What a replay is given of these entries, in its order.
    async fn picked(effects: Vec<Effect<'_>>) -> Vec<Effect<'static>> {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            folder: folder.path().join("journal"),
            keep: Duration::from_secs(3600),
            most_bytes: 1 << 20,
        };
        let journal = Journal::open(&settings).expect("a journal");
        let tenant = TenantId::literal("contoso");
        for effect in effects {
            journal.note(&tenant, Millis(5), Mark { epoch: 0, sequence: 1 }, effect);
        }
        assert!(journal.written(WRITTEN_WITHIN).await);
        let index = index(&journal, &tenant, LOST, None).expect("it can be read");
        let (found, mut entries) = mpsc::channel(100);
        let picking = tokio::task::spawn_blocking(move || {
            let hand_over = |entry| drop(found.blocking_send(entry));
            pick(&journal, &tenant, LOST, &index, hand_over).expect("it can be read");
        });
        picking.await.expect("it does not panic");
        let mut picked = vec![];
        while let Some((_, effect)) = entries.recv().await {
            picked.push(effect);
        }
        picked
    }

    fn bought(key: &'static str) -> Effect<'static> {
        let purchase = Purchase {
            key: LotId::literal(key),
            amount: Micros(5),
            purchased_at: Millis(1),
            payment: Default::default(),
        };
        Effect::Purchased { purchase: Cow::Owned(purchase), expires_at: Millis(8) }
    }

    fn block(blocked: bool) -> Effect<'static> {
        let note = BlockNote { reason: "fraud".to_owned(), operator: "op".to_owned() };
        let (tenant, payer) = (TenantId::literal("contoso"), PayerId::literal("alice"));
        Effect::BlockSet { command: Cow::Owned(SetBlock { tenant, payer, blocked, note }) }
    }

    /// A call that was ended as it stood (`EndCalls`), and that has reported more since.
    #[tokio::test]
    async fn a_call_that_went_on_after_its_end_is_not_ended() {
        let id = CallId::literal("call");
        let call = |state, used| {
            let (used, answered_at) = (Seconds(used), Millis(2));
            Cow::Owned(Call { used, answered_at, ..Call::new(state, Millis(1)) })
        };
        let ended = Effect::Ended {
            id: id.clone(),
            how: Ending::Proven,
            report: Cow::Borrowed(serde_bytes::Bytes::new(b"")),
            call: call(CallState::Expired, 60),
        };
        let used = Seconds(300);
        let went_on = Effect::Extended { id, used, call: call(CallState::Answered, 300) };
        assert_eq!(picked(vec![ended, went_on.clone()]).await, [went_on]);
    }

    /// A replay that is cut off has noted some of it anew: it must not grow with each attempt, nor bring
    /// back a block that was lifted.
    #[tokio::test]
    async fn what_was_noted_twice_is_done_once() {
        let entries =
            vec![bought("po-1"), block(true), bought("po-2"), block(false), bought("po-1")];
        assert_eq!(picked(entries).await, [bought("po-1"), bought("po-2"), block(false)]);
    }
}
