//! One channel of one tenant: reads the journal behind its reader, sends, moves the reader.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::charging::ids::TenantId;
use crate::charging::units::{Millis, Seconds};
use crate::events::{Event, events_of};
use crate::ledger::{Ledger, LedgerError, MoveReader, Moved, TakeReader, Taken};
use crate::notices::kinds::{self, Kinds};
use crate::notices::{Attempt, Channel, Shared, Target, To, mail, notice_id};

/// Entries that are read at a time.
const PAGE: usize = 128;

/// Longest wait for the ledger, which is not told how long to take.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Follower<L> {
    shared: Arc<Shared<L>>,
    tenant: TenantId,
    channel: Channel,
    target: watch::Receiver<Target>,
    /// Where a reader that is not there yet begins.
    since: Millis,
    held: Option<Held>,
    /// While the receiver fails: the pauses to come.
    pauses: Option<ExponentialBackoff>,
    /// Ids of the events of the entry at hand that are done with.
    told: Vec<String>,
    /// Addresses that have the mail of the event at hand.
    reached: Vec<String>,
}

/// The reader, as this process has it.
struct Held {
    /// As the ledger has it.
    cursor: String,
    since: Millis,
    /// When the lease last began, by the clock of this process and by the ledger's.
    taken: Instant,
    now: Millis,
}

/// What a round came to.
enum Round {
    /// There may be more to read.
    More,
    /// Nothing more is there yet.
    AtEnd,
    /// Another process has the reader; its lease lasts so long.
    Busy(Duration),
    /// The receiver fails: wait.
    Failed(Duration),
}

impl<L: Ledger> Follower<L> {
    pub(super) fn new(
        shared: Arc<Shared<L>>,
        tenant: TenantId,
        channel: Channel,
        target: watch::Receiver<Target>,
        since: Millis,
    ) -> Follower<L> {
        Follower {
            shared,
            tenant,
            channel,
            target,
            since,
            held: None,
            pauses: None,
            told: vec![],
            reached: vec![],
        }
    }

    /// Follows until `stopped`, then gives the reader up.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.follow() => {}
        }
        if let Some(held) = self.held.take() {
            // Where this fails the others wait for the end of the lease.
            let _ = self.moved(held.cursor, Seconds::ZERO).await;
        }
    }

    async fn follow(&mut self) {
        let interval = self.shared.settings.interval;
        loop {
            match self.round().await {
                Ok(Round::More) => tokio::task::yield_now().await,
                Ok(Round::AtEnd) => sleep(interval).await,
                // Looked at again soon enough, should the other give it up.
                Ok(Round::Busy(rest)) => sleep(rest.clamp(interval, interval * 5)).await,
                Ok(Round::Failed(pause)) => self.pause(pause).await,
                Err(error) => {
                    let (tenant, channel) = (&self.tenant, self.channel.name());
                    tracing::warn!(%tenant, channel, %error, "notices wait for the ledger");
                    self.held = None;
                    sleep(interval * 5).await;
                }
            }
        }
    }

    /// Reads one page and sends what is in it, until the receiver fails or others wait for their turn.
    async fn round(&mut self) -> Result<Round, LedgerError> {
        let shared = self.shared.clone();
        let at_work = match self.channel {
            Channel::Webhook => &shared.webhooks_at_work,
            Channel::Mail => &shared.mails_at_work,
        };
        // It is never closed.
        let _turn = at_work.acquire().await;
        if let Some(busy) = self.hold().await? {
            return Ok(busy);
        }
        let Some(held) = &self.held else { return Ok(Round::More) };
        let (since, mut before) = (held.since, Some(held.cursor.clone()));
        if held.cursor.is_empty() {
            before = within(shared.ledger.history_since(&self.tenant, since)).await?;
        }
        let page = within(shared.ledger.history(&self.tenant, before.as_deref(), PAGE)).await?;
        let begun = Instant::now();
        let mut moved = false;
        for (cursor, entry) in page.items {
            let mut sent = false;
            for event in events_of(before.as_deref(), &cursor, &entry) {
                if entry.at < since || !self.kinds().contains(event.kind) {
                    continue;
                }
                sent = true;
                if let Some(pause) = self.tell(event).await? {
                    if moved {
                        self.keep(before.unwrap_or_default()).await?;
                    }
                    return Ok(Round::Failed(pause));
                }
            }
            self.told.clear();
            (moved, before) = (true, Some(cursor));
            // What was sent is kept at once, what was passed over with the page.
            if sent {
                self.keep(before.clone().unwrap_or_default()).await?;
                moved = false;
            }
            if self.held.is_none() || begun.elapsed() > shared.settings.timeout {
                break;
            }
        }
        if moved {
            self.keep(before.unwrap_or_default()).await?;
        }
        let at_end = page.next.is_none() && begun.elapsed() <= shared.settings.timeout;
        Ok(if at_end { Round::AtEnd } else { Round::More })
    }

    /// Sends one event, unless it was; how long to wait where the receiver does not take it.
    async fn tell(&mut self, event: Event) -> Result<Option<Duration>, LedgerError> {
        if self.told.contains(&event.id) {
            return Ok(None);
        }
        // An attempt must end within the lease.
        if let Some(busy) = self.hold().await? {
            return Ok(Some(match busy {
                Round::Busy(rest) => rest,
                _ => Duration::ZERO,
            }));
        }
        let (id, kind, at) = (event.id.clone(), kinds::name(event.kind), event.entry.at);
        let (tenant, channel) = (self.tenant.clone(), self.channel.name());
        let longest = self.shared.settings.timeout;
        if !self.is_given_up(at) {
            let attempt = timeout(longest, self.attempt(event)).await;
            let late = || Attempt::Later(format!("no answer within {longest:?}"));
            match attempt.unwrap_or_else(|_| late()) {
                Attempt::Done => {
                    if self.pauses.take().is_some() {
                        tracing::info!(%tenant, channel, event = id, "notices are taken again");
                    }
                }
                Attempt::Later(reason) => {
                    let pause = self.next_pause();
                    tracing::warn!(
                        %tenant, channel, event = id, kind, reason, ?pause,
                        "a notice was not taken; it is sent again"
                    );
                    return Ok(Some(pause));
                }
                Attempt::Refused(reason) => {
                    self.next_pause();
                    let pause = self.shared.settings.longest_pause;
                    tracing::error!(
                        %tenant, channel, event = id, kind, reason, ?pause,
                        "a notice is REFUSED; the receiver or the settings must be mended"
                    );
                    return Ok(Some(pause));
                }
            }
        } else {
            tracing::error!(
                %tenant, channel, event = id, kind, made_at = at.0,
                "a notice is GIVEN UP: its receiver has failed for too long"
            );
        }
        self.told.push(id);
        self.reached.clear();
        Ok(None)
    }

    /// Whether an event is too old to be tried again. While the receiver works none is.
    fn is_given_up(&self, at: Millis) -> bool {
        let now = self.held.as_ref().map_or(Millis::ZERO, |held| held.now);
        self.pauses.is_some() && now > at.after(self.shared.settings.keep)
    }

    async fn attempt(&mut self, event: Event) -> Attempt {
        let target = self.target.borrow_and_update().clone();
        let id = notice_id(&self.tenant, &event);
        let shared = self.shared.clone();
        match (&target.to, &shared.webhooks, &shared.mails) {
            (To::Webhook(receiver), Some(webhooks), _) => {
                match (shared.print)(event, &self.tenant, &target.currency) {
                    Ok(body) => webhooks.post(receiver, &self.tenant, &id, body).await,
                    Err(reason) => Attempt::Refused(reason),
                }
            }
            (To::Mail(emails), _, Some(mails)) => {
                let text = mail::text(&event, &self.tenant, &target.currency);
                mails.send(&text, &id, emails, &mut self.reached).await
            }
            // Nobody is a target of a channel that is not there.
            _ => Attempt::Refused("the channel is not set up".to_owned()),
        }
    }

    fn next_pause(&mut self) -> Duration {
        let (first, longest) =
            (self.shared.settings.first_pause, self.shared.settings.longest_pause);
        self.pauses.get_or_insert_with(|| pauses(first, longest)).next().unwrap_or(longest)
    }

    /// Waits, keeping the reader; no longer when somebody else is to be told.
    async fn pause(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let step = self.a_third_of_the_lease();
        while Instant::now() < end {
            let rest = end.saturating_duration_since(Instant::now()).min(step);
            let changed = async {
                if self.target.changed().await.is_err() {
                    // This follower is about to be stopped.
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = sleep(rest) => {}
                () = changed => {
                    self.pauses = None;
                    return;
                }
            }
            // What fails here fails again in the next round, which tells it.
            if !matches!(self.hold().await, Ok(None)) {
                return;
            }
        }
    }

    /// Takes the reader, or keeps it where its lease has begun long ago or the instant matters.
    async fn hold(&mut self) -> Result<Option<Round>, LedgerError> {
        let fresh = |held: &Held| held.taken.elapsed() < self.a_third_of_the_lease();
        if self.pauses.is_none() && self.held.as_ref().is_some_and(fresh) {
            return Ok(None);
        }
        let settings = &self.shared.settings;
        let command = TakeReader {
            tenant: self.tenant.clone(),
            reader: self.channel.name().to_owned(),
            owner: self.shared.owner.clone(),
            lease: settings.lease,
            since: self.since,
        };
        let taken = Instant::now();
        let reply = within(self.shared.ledger.take_reader(&command)).await?;
        match reply.outcome {
            Taken::Taken(reader) => {
                let (cursor, since) = (reader.cursor, reader.since);
                self.held = Some(Held { cursor, since, taken, now: reply.now });
                Ok(None)
            }
            Taken::Busy(reader) => {
                self.lose();
                let rest = u64::try_from(reader.ends.0 - reply.now.0).unwrap_or_default();
                Ok(Some(Round::Busy(Duration::from_millis(rest))))
            }
        }
    }

    /// Tells the ledger how far this reader is.
    async fn keep(&mut self, cursor: String) -> Result<(), LedgerError> {
        let taken = Instant::now();
        match self.moved(cursor.clone(), self.shared.settings.lease).await? {
            Moved::Moved => {
                if let Some(held) = &mut self.held {
                    (held.cursor, held.taken) = (cursor, taken);
                }
            }
            Moved::Lost => self.lose(),
        }
        Ok(())
    }

    async fn moved(&self, cursor: String, lease: Seconds) -> Result<Moved, LedgerError> {
        let command = MoveReader {
            tenant: self.tenant.clone(),
            reader: self.channel.name().to_owned(),
            owner: self.shared.owner.clone(),
            cursor,
            lease,
        };
        Ok(within(self.shared.ledger.move_reader(&command)).await?.outcome)
    }

    /// Another process goes on.
    fn lose(&mut self) {
        self.held = None;
        self.pauses = None;
        self.told.clear();
        self.reached.clear();
    }

    fn kinds(&self) -> &Kinds {
        let settings = &self.shared.settings;
        match (self.channel, &settings.webhooks, &settings.mails) {
            (Channel::Webhook, Some(set), _) => &set.kinds,
            (Channel::Mail, _, Some(set)) => &set.kinds,
            _ => &NO_KINDS,
        }
    }

    fn a_third_of_the_lease(&self) -> Duration {
        let millis = u64::try_from(self.shared.settings.lease.0 * 1000 / 3).unwrap_or_default();
        Duration::from_millis(millis)
    }
}

/// Each twice as long as the one before, up to the longest, and up to twice that by chance: receivers that
/// fail together are not tried together.
fn pauses(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Of a channel that is not there.
static NO_KINDS: Kinds = Kinds::NONE;

async fn within<T>(
    command: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let late = || LedgerError::Indeterminate(format!("no answer within {LEDGER_TIMEOUT:?}"));
    timeout(LEDGER_TIMEOUT, command).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_never_end_and_are_not_those_of_another() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(300));
        let some: Vec<Duration> = pauses(first, longest).take(100).collect();
        assert!(some[0] >= first && some[0] <= 2 * first, "{some:?}");
        assert!(some.iter().all(|pause| *pause <= 2 * longest), "{some:?}");
        assert!(some.len() == 100 && some[99] >= longest, "{some:?}");
        let others: Vec<Duration> = pauses(first, longest).take(100).collect();
        assert_ne!(some, others);
    }
}
