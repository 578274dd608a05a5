//! The use cases with a journal: what is remembered, what is accepted while the ledger is out of reach, and
//! how that is brought to it later.
//!
//! Without a journal none of this does anything: the ledger's absence is told to the client, as
//! UNAVAILABLE.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde_bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::charging::ids::{CallId, TenantId};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::Charge;
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::credit_control::{CreditControl, EndRequest, UseCaseError};
use crate::journal::entry::{Command, Effect};
use crate::journal::{Journal, Todo};
use crate::ledger::state::{Call, CallState};
use crate::ledger::{
    Authorize, Authorized, End, EndResult, Ended, Ending, Ledger, LedgerError, Reply, Restore,
    Restored,
};

/// Entries that are brought to the ledger at a time, each of another call.
const AT_A_TIME: usize = 64;

/// Longest wait for the ledger to do one.
const DO_TIMEOUT: Duration = Duration::from_secs(2);

/// Pauses while the ledger is out of reach: from the first, doubling, to the second; with jitter up to twice
/// as long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(2));

/// How often an entry may fail for a reason of its own before it is given up, with an error in the log and in
/// `tollgate journal list`: for about an hour.
const MOST_TIMES: u32 = 64;

/// Longest wait of an emergency or free call for its record to be on the disk: a disk that hangs must not
/// keep anybody from calling for help.
const RECORD_TIMEOUT: Duration = Duration::from_millis(100);

/// What is left of a client's patience for the journal, once the ledger has not answered.
const JOURNAL_SHARE: u32 = 4;

impl<L: Ledger> CreditControl<L> {
    /// Remembers what the ledger has done, where there is a journal.
    pub(crate) fn note<'a>(
        &self,
        tenant: &TenantId,
        now: Millis,
        effect: impl FnOnce() -> Effect<'a>,
    ) {
        if let Some(journal) = &self.journal {
            journal.note(tenant, now, self.marks.known(tenant), effect());
        }
    }

    /// An end that was done before, too: whoever had it done may never have heard of that, nor noted it.
    pub(super) fn note_end(&self, command: &End, reply: &Reply<Ended>) {
        if let Ended::Done { call, replayed, .. } = &reply.outcome {
            // It is forgotten so long after its end, not after the repeat: a replay must know.
            let now = if *replayed { since_ended(call, reply.now) } else { reply.now };
            self.note(&command.tenant, now, || Effect::Ended {
                id: command.call.clone(),
                how: if *replayed { as_recorded(call, command.how) } else { command.how },
                report: Cow::Borrowed(Bytes::new(&command.report)),
                call: Cow::Borrowed(call),
            });
        }
    }

    /// Notes where a call stands that was decided or answered before: whoever had that done may never have
    /// heard of it, nor noted it, and the client is told now.
    pub(super) fn note_standing(&self, tenant: &TenantId, now: Millis, id: &CallId, call: &Call) {
        self.note(tenant, now, || {
            let (id, found) = (id.clone(), Cow::Borrowed(call));
            match call.state == CallState::Answered || call.parked.is_positive() {
                true => Effect::Extended { id, used: call.used.max(call.parked), call: found },
                false => Effect::Authorized { id, call: found, leases: vec![] },
            }
        });
    }

    /// Ends a call by the ledger; or accepts that it is to be ended, where there is a journal and the ledger
    /// is out of reach or has something to do for the call first.
    pub(super) async fn try_end(
        &self,
        request: EndRequest,
        patience: Instant,
    ) -> Result<Charge, UseCaseError> {
        let command = End {
            tenant: request.tenant,
            call: request.call,
            how: request.how,
            report: request.report.encode(),
            ended_retention: self.settings.ended_retention,
            // One that the ledger has lost may be in the journal, too.
            has_grant: !request.token.is_empty() || self.journal.is_some(),
        };
        let token = request.token;
        // The caller's patience ends the answer, not the settle.
        let begun = Instant::now();
        let mut deadline = begun + 2 * self.settings.ledger_timeout;
        let Some(journal) = &self.journal else {
            return self.end_in_ledger(&command, &token, deadline).await;
        };
        deadline = deadline.min(patience - patience.duration_since(begun) / JOURNAL_SHARE);
        if journal.awaits(&command.tenant, &command.call) {
            let limit = match journal.is_stalled() {
                true => Duration::ZERO,
                false => deadline.duration_since(begun).min(self.settings.ledger_timeout),
            };
            let of_call = Some((&command.tenant, &command.call));
            if !journal.drained(of_call, limit).await {
                let behind = "earlier messages about the call wait for it".to_owned();
                let command = Command::End { end: command, token };
                let error = LedgerError::Unavailable(behind);
                return Box::pin(self.accept(journal, command, error)).await;
            }
        }
        match self.end_in_ledger(&command, &token, deadline).await {
            Err(UseCaseError::Ledger(
                error @ (LedgerError::Unavailable(_) | LedgerError::Indeterminate(_)),
            )) => self.accept(journal, Command::End { end: command, token }, error).await,
            ended => ended,
        }
    }

    /// ACCEPTED once it is durable; where it cannot be, the error that the ledger had.
    async fn accept(
        &self,
        journal: &Journal,
        command: Command,
        error: LedgerError,
    ) -> Result<Charge, UseCaseError> {
        let (tenant_id, call) = (command.tenant().clone(), command.call().clone());
        let tenant = self.directory.known(&tenant_id);
        let profile = tenant.as_ref().and_then(|tenant| tenant.profile());
        let currency = profile.map(|tenant| tenant.currency.clone()).unwrap_or_default();
        let recorded_duration = command.used().unwrap_or_default();
        let replayed = journal.holds(&command);
        if !replayed && let Err(refused) = journal.keep(command).await {
            tracing::debug!(%refused, "a settle is not accepted");
            return Err(error.into());
        }
        self.leases.ended(&tenant_id, &call);
        Ok(Charge {
            result: EndResult::Accepted,
            replayed,
            charged_duration: Seconds::ZERO,
            charged_money: Micros::ZERO,
            funding: vec![],
            shortfall_duration: Seconds::ZERO,
            shortfall_money: Micros::ZERO,
            recorded_duration,
            currency,
        })
    }

    /// Keeps the record of a call that was decided without the ledger: in the journal, or, where there is
    /// none or it takes nothing, in memory.
    pub(super) async fn keep_record(&self, record: Authorize) {
        let Some(journal) = self.journal.clone() else { return self.records.keep(record) };
        let command = Command::Record(Box::new(record.clone()));
        if journal.holds(&command) {
            return;
        }
        let records = self.records.clone();
        let kept = tokio::spawn(async move {
            if journal.keep(command).await.is_err() {
                records.keep(record);
            }
        });
        if tokio::time::timeout(RECORD_TIMEOUT, kept).await.is_err() {
            tracing::warn!(
                "the record of an emergency or free call is not on the disk yet: the journal is slow"
            );
        }
    }

    /// Brings what the journal holds to the ledger, for ever: what it finds at the start, and what comes.
    pub async fn drain(self: Arc<Self>) {
        let Some(journal) = self.journal.clone() else { return };
        let waiting = journal.status().todo;
        if waiting > 0 {
            tracing::info!(
                waiting,
                "the journal holds what the ledger has to do from before the start"
            );
        }
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter()
            .without_max_times();
        let mut pause = pauses.build();
        loop {
            journal.added().await;
            // While the ledger is out of reach one asks for all.
            let most = if journal.is_stalled() { 1 } else { AT_A_TIME };
            let todos = journal.next(most);
            if todos.is_empty() {
                // All of them failed for reasons of their own a moment ago.
                tokio::time::sleep(PAUSES.1).await;
                continue;
            }
            let mut round = JoinSet::new();
            for todo in todos {
                let (control, journal) = (self.clone(), journal.clone());
                round.spawn(async move { control.do_one(&journal, &todo).await });
            }
            let reached = round.join_all().await.into_iter().all(|reached| reached);
            if journal.is_stalled() == reached {
                match reached {
                    true => tracing::info!(
                        waiting = journal.status().todo,
                        "the ledger is in reach again: what was accepted is brought to it"
                    ),
                    false => tracing::warn!(
                        waiting = journal.status().todo,
                        "what was accepted waits for the ledger"
                    ),
                }
            }
            journal.set_stalled(!reached);
            if reached {
                pause = pauses.build();
            } else {
                tokio::time::sleep(pause.next().unwrap_or(PAUSES.1)).await;
            }
        }
    }

    /// Has the ledger do one entry; whether it was in reach.
    async fn do_one(&self, journal: &Journal, todo: &Todo) -> bool {
        let asked = tokio::time::timeout(DO_TIMEOUT, async {
            match &todo.command {
                Command::Record(record) => self.do_record(record).await,
                Command::End { end, token } => self.do_end(end, token).await,
                Command::Restore(restore) => self.do_restore(restore).await,
            }
        });
        let late = LedgerError::Indeterminate("no answer within the time limit".to_owned());
        let (result, refused) = match asked.await.unwrap_or(Err(late)) {
            Ok(result) => result,
            // It may be any error that the store has a word for, and the store may get over it.
            Err(LedgerError::Corrupt(what)) => {
                let times = journal.defer(todo);
                tracing::error!(
                    what, times, tenant = %todo.command.tenant(), call = %todo.command.call(),
                    "the ledger cannot do what was accepted: {}", todo.command.name()
                );
                if times < MOST_TIMES {
                    return true;
                }
                ("CORRUPT", true)
            }
            Err(_) => return false,
        };
        if refused {
            tracing::warn!(
                tenant = %todo.command.tenant(), call = %todo.command.call(), result,
                used = todo.command.used().map(|used| used.0), accepted_at = %todo.at,
                "the ledger did not do what was accepted: {}", todo.command.name()
            );
        }
        journal.done(todo, result, refused);
        if let Command::Restore(restore) = &todo.command {
            self.leases.forget(&restore.tenant, &restore.call);
        }
        true
    }

    /// What became of it, by the contract's names, and whether somebody should look.
    async fn do_record(&self, record: &Authorize) -> Result<(&'static str, bool), LedgerError> {
        let reply = self.ledger.authorize(record).await?;
        Ok(match reply.outcome {
            // Whoever is told that it was decided before may not have heard of it then.
            Authorized::Decided(call) | Authorized::Replayed(call) => {
                let now = since_ended(&call, reply.now);
                self.note(&record.tenant, now, || Effect::Authorized {
                    id: record.call.clone(),
                    call: Cow::Borrowed(&call),
                    leases: vec![],
                });
                ("RECORDED", false)
            }
            // The decision is on record, beside another call of the same key.
            Authorized::Conflict => ("KEY_CONFLICT", true),
            Authorized::Ended => ("CALL_ALREADY_ENDED", true),
            Authorized::RateLimited => ("RATE_LIMITED", true),
            Authorized::Stale => ("STALE", true),
        })
    }

    /// Where the ledger knows the call, it was granted there too, or put back by its token: the lease keeps
    /// what it has, and gives it back.
    async fn do_restore(&self, restore: &Restore) -> Result<(&'static str, bool), LedgerError> {
        let reply = self.ledger.restore(restore).await?;
        if matches!(reply.outcome, Restored::Restored | Restored::Known) {
            // Known it may be from an attempt that nobody heard the answer of, and may have ended since.
            let now = match reply.outcome {
                Restored::Known => restore.granted.authorized_at,
                _ => reply.now,
            };
            self.note(&restore.tenant, now, || Effect::Authorized {
                id: restore.call.clone(),
                call: Cow::Borrowed(&restore.granted),
                leases: restore.leases.clone(),
            });
        }
        Ok(match reply.outcome {
            Restored::Restored => ("GRANTED", false),
            Restored::Known => ("KNOWN", false),
            Restored::TooLate => ("TOO_LATE", true),
            Restored::NoTenant => ("NOT_FOUND", true),
        })
    }

    async fn do_end(&self, end: &End, token: &str) -> Result<(&'static str, bool), LedgerError> {
        // Not as `known_tenant` does it, which reads the deck too: no end needs one.
        let known = end.tenant.as_str() == UNATTRIBUTED
            || self.directory.known(&end.tenant).is_some()
            || self.ledger.record(&end.tenant).await?.outcome.is_some();
        if !known {
            return Ok(("NOT_FOUND", true));
        }
        let reply = self.end_with(end, token, Instant::now() + DO_TIMEOUT).await?;
        self.note_end(end, &reply);
        Ok(match reply.outcome {
            Ended::Done { result, .. } => match result {
                EndResult::Settled | EndResult::Accepted => ("SETTLED", false),
                EndResult::Released => ("RELEASED", false),
                EndResult::AlreadySettled => ("ALREADY_SETTLED", true),
                EndResult::Parked => ("PARKED", true),
            },
            Ended::AnsweredAlready(_) => ("ANSWERED_ALREADY", true),
            Ended::NotOpen | Ended::Unknown => ("NOT_FOUND", true),
        })
    }
}

/// When a call ended, by the store's clock; `now` where that is not known.
fn since_ended(call: &Call, now: Millis) -> Millis {
    if call.ended_at > Millis::ZERO { call.ended_at } else { now }
}

/// How a call was ended that is asked to end once more, perhaps in another way.
fn as_recorded(call: &Call, asked: Ending) -> Ending {
    match call.state {
        CallState::Settled => Ending::Settle(Seconds(call.settle_used.max(0))),
        CallState::Expired => Ending::Proven,
        CallState::Denied | CallState::Ended if call.parked.is_positive() => {
            Ending::Settle(call.parked)
        }
        _ => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_repeated_is_noted_as_it_is_recorded() {
        let call = |state, settle_used, parked| Call {
            settle_used,
            parked: Seconds(parked),
            ..Call::new(state, Millis(1))
        };
        let asked = Ending::Settle(Seconds(90));
        let settled = call(CallState::Settled, 60, 0);
        assert_eq!(as_recorded(&settled, asked), Ending::Settle(Seconds(60)));
        assert_eq!(as_recorded(&call(CallState::Expired, -1, 0), asked), Ending::Proven);
        let parked = call(CallState::Ended, -1, 70);
        assert_eq!(as_recorded(&parked, asked), Ending::Settle(Seconds(70)));
        let earlier = Call { ended_at: Millis(7), ..settled };
        assert_eq!(since_ended(&earlier, Millis(9)), Millis(7));
        assert_eq!(since_ended(&parked, Millis(9)), Millis(9));
        let released = call(CallState::Released, 0, 0);
        assert_eq!(as_recorded(&released, Ending::Release), Ending::Release);
    }
}
