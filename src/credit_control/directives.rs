//! Directives for running calls: what a switch is to do before its next extension would tell it.
//!
//! One reader for each tenant that is watched, shared by all streams of this process, follows the tenant's
//! journal, and looks now and then whether the tenant is suspended, or its pools have grown by licences, which
//! are no entries of the journal. What it reads are causes; from them and the open calls come directives, each of one call. A stream is first sent
//! whatever applies when it is opened, so that one that was lost has harmed nothing; there is no cursor.
//!
//! What is kept is bounded: the batches that wait for a slow stream, which is then cut off, and the calls that
//! operators ended lately.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::sleep;

use crate::charging::decision::Decision;
use crate::charging::funding::Reach;
use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::profile::{PayerState, TenantState};
use crate::charging::units::{Millis, Seconds};
use crate::credit_control::answer::EndReport;
use crate::ledger::state::{Call, Entry, EntryKind, reach_of};
use crate::ledger::{Balance, Ledger, LedgerError};

/// What is bounded, and how often it is looked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most streams at a time.
    pub streams: usize,
    /// How often a tenant's journal is looked at.
    pub interval: Duration,
    /// Longest wait until a client takes a directive.
    pub patience: Duration,
    /// Directives that wait in a stream for its client.
    pub ahead: usize,
    /// Batches, of at most [`PAGE`] directives each, that wait for a stream.
    pub batches: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams: 1024,
            interval: Duration::from_millis(500),
            patience: Duration::from_secs(10),
            ahead: 64,
            batches: 256,
        }
    }
}

/// Open calls, and entries of the journal, that are read at a time.
pub const PAGE: usize = 500;

/// The tenant is looked at once in so many looks at its journal.
const TENANT_EVERY: u32 = 2;

/// The sizes of the tenant's pools are looked at once in so many looks: licences that are added are no entry
/// of the journal either, and change seldom.
const SIZES_EVERY: u32 = 10;

/// For how long a call that an operator ended is told to streams that are opened later, in milliseconds.
const REMEMBERED_FOR: i64 = 10 * 60 * 1000;

/// Most such calls of one tenant.
const MOST_REMEMBERED: usize = 10_000;

/// Most entries that are read for them when the first stream of a tenant is opened.
const LOOKED_BACK: usize = 20_000;

/// How often calls are told, at most, that the spend velocity is reached, in milliseconds.
const VELOCITY_EVERY: i64 = 60_000;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ask for an extension now.
    Refresh,
    /// Hang up.
    EndNow,
    /// No further grant is to be expected.
    Warn,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something was put into a source of the call.
    FundsArrived,
    /// The tenant is suspended.
    TenantSuspended,
    /// The payer is blocked.
    PayerBlocked,
    /// The tenant's spend velocity is reached.
    FraudSuspected,
    /// An operator ended the call.
    Operator,
    /// The call's pool, or every lot, is used up.
    FundsEnding,
}

/// What a switch is to do about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// The call leg.
    pub call: String,
    /// The same for each delivery of the same directive.
    pub id: String,
    /// Who pays.
    pub payer: String,
    /// The SBC trunk; may be empty.
    pub trunk: String,
    /// When it was made, by the ledger's clock.
    pub at: Millis,
    /// For the operator.
    pub detail: String,
}

impl Directive {
    /// `mark` tells one cause from another of the same reason.
    fn of(
        kind: Kind,
        reason: Reason,
        mark: &str,
        (id, call): (&CallId, &Call),
        at: Millis,
    ) -> Self {
        let detail = match reason {
            Reason::FundsArrived => "funds arrived for a call whose grant was cut short",
            Reason::TenantSuspended => "the tenant is suspended",
            Reason::PayerBlocked => "the payer is blocked",
            Reason::FraudSuspected => "the tenant spends money faster than its spend velocity",
            Reason::Operator => "an operator ended the call",
            Reason::FundsEnding => "what pays for the call is used up",
        };
        Directive {
            kind,
            reason,
            call: id.as_str().to_owned(),
            id: name(kind, reason, mark, id.as_str()),
            payer: call.payer.clone(),
            trunk: call.trunk.clone(),
            at,
            detail: detail.to_owned(),
        }
    }
}

fn name(kind: Kind, reason: Reason, mark: &str, call: &str) -> String {
    format!("{kind:?}.{reason:?}.{mark}.{call}")
}

/// What a stream is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Do this.
    Directive(Directive),
    /// What applied when the stream was opened has been told.
    CaughtUp,
    /// Nothing more comes.
    Cut(Cut),
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its client does not take what it is sent.
    TooSlow,
    /// The server drains.
    Draining,
}

/// Why a stream is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// There are as many as there may be.
    #[error("expected at most {0} streams of directives")]
    TooMany(usize),
    /// Nobody knows the tenant.
    #[error("no such tenant")]
    NoSuchTenant,
    /// The ledger gave no outcome.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// All streams of a process.
pub struct Directives<L> {
    ledger: Arc<L>,
    /// Where the readers run: never where calls are served.
    runtime: Handle,
    rooms: Mutex<HashMap<TenantId, Arc<Room>>>,
    streams: Arc<Semaphore>,
    limits: Limits,
    draining: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Those who watch one tenant.
struct Room {
    watchers: Mutex<Vec<mpsc::Sender<Batch>>>,
    /// Whether its reader has its place in the journal: what happens from then on is told.
    ready: watch::Sender<bool>,
    /// Of calls that operators ended, oldest first.
    ended: Mutex<VecDeque<Directive>>,
}

#[derive(Clone)]
enum Batch {
    Of(Arc<[Directive]>),
    Draining,
}

impl<L: Ledger> Directives<L> {
    /// Readers run where this is called. `draining` says whether streams are to be sent on.
    pub fn new(
        ledger: Arc<L>,
        limits: Limits,
        draining: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Directives {
            ledger,
            runtime: Handle::current(),
            rooms: Mutex::default(),
            streams: Arc::new(Semaphore::new(limits.streams)),
            limits,
            draining: Box::new(draining),
        })
    }

    /// Opens a stream on the calls of a tenant, or of one trunk of it where `trunk` is not empty. It ends with
    /// its receiver.
    pub async fn watch(
        self: &Arc<Self>,
        tenant: &TenantId,
        trunk: &str,
    ) -> Result<mpsc::Receiver<Told>, WatchError> {
        let too_many = |_| WatchError::TooMany(self.limits.streams);
        let permit = self.streams.clone().try_acquire_owned().map_err(too_many)?;
        if self.ledger.record(tenant).await?.outcome.is_none() {
            return Err(WatchError::NoSuchTenant);
        }
        let (sender, batches) = mpsc::channel(self.limits.batches);
        let room = self.enter(tenant, sender);
        let (sender, told) = mpsc::channel(self.limits.ahead + 1);
        let stream = Stream { room, batches, sender, trunk: trunk.to_owned(), _permit: permit };
        let (this, tenant) = (self.clone(), tenant.clone());
        self.runtime.spawn(async move { stream.run(&this, &tenant).await });
        Ok(told)
    }

    /// Joins the room of the tenant; its first watcher opens it.
    fn enter(self: &Arc<Self>, tenant: &TenantId, watcher: mpsc::Sender<Batch>) -> Arc<Room> {
        let mut rooms = locked(&self.rooms);
        if let Some(room) = rooms.get(tenant) {
            locked(&room.watchers).push(watcher);
            return room.clone();
        }
        let room = Arc::new(Room {
            watchers: Mutex::new(vec![watcher]),
            ready: watch::channel(false).0,
            ended: Mutex::default(),
        });
        rooms.insert(tenant.clone(), room.clone());
        let reader = Reader {
            all: self.clone(),
            tenant: tenant.clone(),
            room: room.clone(),
            after: None,
            suspended: false,
            sizes: HashMap::new(),
            now: Millis::ZERO,
            velocity_told: Millis::ZERO,
        };
        self.runtime.spawn(reader.run());
        room
    }

    /// Whether nobody watches the tenant any more; its room is closed then.
    fn leave(&self, tenant: &TenantId, room: &Room) -> bool {
        let mut rooms = locked(&self.rooms);
        let mut watchers = locked(&room.watchers);
        watchers.retain(|watcher| !watcher.is_closed());
        let empty = watchers.is_empty();
        if empty {
            rooms.remove(tenant);
        }
        empty
    }

    /// The directives for one page of open calls, and where the next begins.
    async fn page(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        look: &Look,
    ) -> Result<(Vec<Directive>, Option<String>), LedgerError> {
        let page = self.ledger.open_calls(tenant, cursor, PAGE).await?;
        // An emergency call is nobody's to end.
        let is_told = |call: &Call| call.decision != Some(Decision::AllowedEmergency);
        let calls: Vec<_> = page.items.into_iter().filter(|(_, call)| is_told(call)).collect();
        let asked: BTreeSet<&str> = calls
            .iter()
            .map(|(_, call)| call.payer.as_str())
            .filter(|payer| !look.suspended && look.of_payers.contains(payer))
            .collect();
        let asked: Vec<_> =
            asked.into_iter().filter_map(|payer| PayerId::new(payer).ok()).collect();
        let blocked = self.blocked(tenant, &asked).await?;
        let directives =
            calls.iter().filter_map(|(id, call)| look.judge((id, call), &blocked)).collect();
        Ok((directives, page.next))
    }

    /// Which of these payers are blocked.
    async fn blocked(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Result<BTreeSet<String>, LedgerError> {
        if payers.is_empty() {
            return Ok(BTreeSet::new());
        }
        let views = self.ledger.payers(tenant, payers).await?.outcome;
        let is_blocked = |view: &crate::ledger::PayerView| {
            let profile = view.profile.as_ref();
            view.barred || profile.is_some_and(|payer| payer.state == PayerState::Blocked)
        };
        let found = payers.iter().zip(&views).filter(|(_, view)| is_blocked(view));
        Ok(found.map(|(payer, _)| payer.as_str().to_owned()).collect())
    }
}

/// What to look for among the open calls.
struct Look {
    now: Millis,
    suspended: bool,
    of_payers: Of,
    /// Whether grants that were only cut to a fair share are told of too.
    shared_too: bool,
    /// Where funds may have arrived.
    balance: Option<Balance>,
    /// A call was refused by the spend velocity.
    velocity: bool,
    /// Pools that are used up.
    exhausted: BTreeSet<String>,
    /// Whether every lot is.
    depleted: bool,
}

/// Some payers, or all.
enum Of {
    All,
    These(BTreeSet<String>),
}

impl Of {
    fn contains(&self, payer: &str) -> bool {
        match self {
            Of::All => true,
            Of::These(payers) => payers.contains(payer),
        }
    }
}

impl Look {
    /// What the call's switch is to do, at most one thing: the gravest.
    fn judge(&self, (id, call): (&CallId, &Call), blocked: &BTreeSet<String>) -> Option<Directive> {
        let told =
            |kind, reason, mark: &str| Directive::of(kind, reason, mark, (id, call), self.now);
        if self.suspended {
            return Some(told(Kind::EndNow, Reason::TenantSuspended, ""));
        }
        if blocked.contains(&call.payer) {
            return Some(told(Kind::EndNow, Reason::PayerBlocked, ""));
        }
        let reach = reach_of(call.reach);
        if self.velocity && call.money.is_some() {
            let kind = if reach == Some(Reach::Velocity) { Kind::EndNow } else { Kind::Warn };
            let mark = (self.now.0 / VELOCITY_EVERY).to_string();
            return Some(told(kind, Reason::FraudSuspected, &mark));
        }
        let is_short =
            reach == Some(Reach::Exhausted) || self.shared_too && reach == Some(Reach::Shared);
        if is_short
            && let Some(mark) = self.balance.as_ref().and_then(|balance| arrived(balance, call))
        {
            let mark = format!("{}-{mark}", call.granted);
            return Some(told(Kind::Refresh, Reason::FundsArrived, &mark));
        }
        let of_pool = call.pools.iter().any(|line| self.exhausted.contains(line.pool.as_str()));
        let pays = call.money.is_some();
        if of_pool && !pays || self.depleted && pays {
            let mark = call.granted.to_string();
            return Some(told(Kind::Warn, Reason::FundsEnding, &mark));
        }
        None
    }
}

/// What was ever put into the sources of a call, where one of them has something left; tells one arrival of
/// funds from another.
fn arrived(balance: &Balance, call: &Call) -> Option<String> {
    let pools = balance.pools.iter().filter(|(pool, _)| call.pools.iter().any(|l| l.pool == *pool));
    let lots = balance.lots.iter().filter(|_| call.money.is_some());
    let buckets: Vec<_> =
        pools.map(|(_, bucket)| bucket).chain(lots.map(|lot| &lot.bucket)).collect();
    let put_in: i64 = buckets.iter().map(|bucket| bucket.funded + bucket.adjusted).sum();
    buckets.iter().any(|bucket| bucket.available() > 0).then(|| put_in.to_string())
}

/// What entries of the journal mean for running calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Causes {
    funds: bool,
    blocked: BTreeSet<String>,
    /// Payers of calls that were refused for fraud: by a block, or by the spend velocity.
    refused: BTreeSet<String>,
    exhausted: BTreeSet<String>,
    depleted: bool,
    suspended: bool,
    ended: Vec<Directive>,
}

impl Causes {
    fn is_empty(&self) -> bool {
        *self == Causes::default()
    }

    fn add(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::Purchased | EntryKind::RechargeSucceeded => self.funds = true,
            EntryKind::Adjusted if entry.decision.is_none() => {
                self.funds |= entry.postings.iter().any(|posting| posting.adjusted > 0);
            }
            EntryKind::PayerBlocked => {
                self.blocked.insert(entry.payer.clone());
            }
            EntryKind::Refused if entry.decision == Some(Decision::FraudSuspected) => {
                self.refused.insert(entry.payer.clone());
            }
            EntryKind::PoolExhausted => {
                self.exhausted.insert(entry.subject.clone());
            }
            EntryKind::CreditsDepleted => self.depleted = true,
            EntryKind::Expired | EntryKind::Released => self.ended.extend(ended_by_operator(entry)),
            _ => {}
        }
    }
}

/// The directive about a call that an operator ended.
fn ended_by_operator(entry: &Entry) -> Option<Directive> {
    if entry.report.is_empty() {
        return None;
    }
    let EndReport { ended_by, reason, trunk, .. } = EndReport::decode(&entry.report);
    if ended_by.is_empty() {
        return None;
    }
    let (kind, why) = (Kind::EndNow, Reason::Operator);
    Some(Directive {
        kind,
        reason: why,
        call: entry.subject.clone(),
        id: name(kind, why, &entry.at.0.to_string(), &entry.subject),
        payer: entry.payer.clone(),
        trunk,
        at: entry.at,
        detail: format!("{ended_by} ended the call: {reason}"),
    })
}

/// Reads one tenant's journal, for all who watch it.
struct Reader<L> {
    all: Arc<Directives<L>>,
    tenant: TenantId,
    room: Arc<Room>,
    after: Option<String>,
    suspended: bool,
    /// Of the pools, by family.
    sizes: HashMap<String, Seconds>,
    now: Millis,
    velocity_told: Millis,
}

impl<L: Ledger> Reader<L> {
    /// Reads until nobody watches any more, or the server drains.
    async fn run(mut self) {
        let interval = self.all.limits.interval;
        while let Err(error) = self.begin().await {
            tracing::warn!(tenant = %self.tenant, %error, "directives wait for the ledger");
            sleep(interval * 2).await;
            if self.is_over() {
                return;
            }
        }
        self.room.ready.send_replace(true);
        let (mut causes, mut rounds, mut away) = (Causes::default(), 0_u32, false);
        loop {
            if self.is_over() {
                return;
            }
            match self.round(&mut causes, rounds).await {
                Ok(()) => away = false,
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(tenant = %self.tenant, %error, "directives wait for the ledger");
                }
                Err(_) => {}
            }
            rounds = rounds.wrapping_add(1);
            sleep(interval).await;
        }
    }

    fn is_over(&self) -> bool {
        if (self.all.draining)() {
            let watchers = std::mem::take(&mut *locked(&self.room.watchers));
            for watcher in watchers {
                // Who has no room for it learns that it was too slow, and opens another stream likewise.
                let _ = watcher.try_send(Batch::Draining);
            }
        }
        self.all.leave(&self.tenant, &self.room)
    }

    /// Finds its place in the journal, and the calls that operators ended lately.
    async fn begin(&mut self) -> Result<(), LedgerError> {
        let ledger = &self.all.ledger;
        let found = ledger.record(&self.tenant).await?;
        self.now = found.now;
        if let Some(balance) = readable_balance(ledger, &self.tenant).await? {
            self.sizes = balance.sizes.into_iter().collect();
        }
        // A ledger knows the place of an instant only about: what came before is no cause any more, since
        // streams begin with what applies.
        self.after = ledger.history_since(&self.tenant, self.now).await?;
        loop {
            let page = ledger.history(&self.tenant, self.after.as_deref(), PAGE).await?;
            self.after = page.items.last().map(|(cursor, _)| cursor.clone()).or(self.after.take());
            if page.next.is_none() {
                break;
            }
        }
        let oldest = Millis(self.now.0 - REMEMBERED_FOR);
        let (mut before, mut read) = (None::<String>, 0);
        let mut ended = VecDeque::new();
        loop {
            let page = ledger.journal(&self.tenant, before.as_deref(), PAGE).await?;
            read += page.items.len();
            let is_old = page.items.last().is_none_or(|entry| entry.at < oldest);
            let lately = page.items.iter().filter(|entry| entry.at >= oldest);
            for directive in lately.filter_map(ended_by_operator) {
                ended.push_front(directive);
            }
            before = page.next;
            if is_old || before.is_none() || read >= LOOKED_BACK || ended.len() >= MOST_REMEMBERED {
                break;
            }
        }
        *locked(&self.room.ended) = ended;
        Ok(())
    }

    /// One look: what is read stays a cause until its directives are on their way.
    async fn round(&mut self, causes: &mut Causes, number: u32) -> Result<(), LedgerError> {
        let ledger = self.all.ledger.clone();
        if number.is_multiple_of(TENANT_EVERY) {
            let found = ledger.record(&self.tenant).await?;
            self.now = found.now;
            let state = found.outcome.map(|record| record.profile.state);
            let suspended = state == Some(TenantState::Suspended);
            causes.suspended |= suspended && !self.suspended;
            self.suspended = suspended;
        }
        if number.is_multiple_of(SIZES_EVERY) {
            let sizes = readable_balance(&ledger, &self.tenant)
                .await?
                .map(|balance| balance.sizes)
                .unwrap_or_default();
            let known = |family: &str| self.sizes.get(family).copied().unwrap_or_default();
            causes.funds |= sizes.iter().any(|(family, size)| *size > known(family));
            self.sizes.extend(sizes);
        }
        loop {
            let page = ledger.history(&self.tenant, self.after.as_deref(), PAGE).await?;
            let at_end = page.next.is_none();
            for (cursor, entry) in page.items {
                causes.add(&entry);
                self.after = Some(cursor);
            }
            if at_end {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.remember(std::mem::take(&mut causes.ended));
        if causes.is_empty() {
            return Ok(());
        }
        let look = self.look(causes).await?;
        let mut cursor = None;
        while look.is_for_calls() {
            let (directives, next) = self.all.page(&self.tenant, cursor.as_deref(), &look).await?;
            self.publish(directives);
            cursor = next;
            if cursor.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if look.velocity {
            self.velocity_told = self.now;
        }
        *causes = Causes::default();
        Ok(())
    }

    async fn look(&self, causes: &Causes) -> Result<Look, LedgerError> {
        let balance = match causes.funds {
            true => readable_balance(&self.all.ledger, &self.tenant).await?,
            false => None,
        };
        let is_due = self.now.0 - self.velocity_told.0 >= VELOCITY_EVERY;
        let refused: Vec<_> = causes
            .refused
            .iter()
            .filter(|payer| is_due && !causes.blocked.contains(*payer))
            .filter_map(|payer| PayerId::new(payer).ok())
            .collect();
        // Who is not blocked was refused by the velocity.
        let blocked = self.all.blocked(&self.tenant, &refused).await?;
        Ok(Look {
            now: self.now,
            suspended: causes.suspended && self.suspended,
            of_payers: Of::These(causes.blocked.clone()),
            shared_too: true,
            balance,
            velocity: refused.len() > blocked.len(),
            exhausted: causes.exhausted.clone(),
            depleted: causes.depleted,
        })
    }

    fn remember(&self, mut ended: Vec<Directive>) {
        if ended.is_empty() {
            return;
        }
        let oldest = self.now.0 - REMEMBERED_FOR;
        let mut remembered = locked(&self.room.ended);
        // What came while the reader began was read twice.
        let known: HashSet<&str> = remembered.iter().map(|known| known.id.as_str()).collect();
        ended.retain(|directive| !known.contains(directive.id.as_str()));
        remembered.extend(ended.iter().cloned());
        while remembered.len() > MOST_REMEMBERED
            || remembered.front().is_some_and(|first| first.at.0 < oldest)
        {
            remembered.pop_front();
        }
        drop(remembered);
        for batch in ended.chunks(PAGE) {
            self.publish(batch.to_vec());
        }
    }

    /// To everybody who watches; who has no room for it is let go.
    fn publish(&self, directives: Vec<Directive>) {
        if directives.is_empty() {
            return;
        }
        let batch: Arc<[Directive]> = directives.into();
        locked(&self.room.watchers)
            .retain(|watcher| watcher.try_send(Batch::Of(batch.clone())).is_ok());
    }
}

impl Look {
    /// Whether any open call may be told something.
    fn is_for_calls(&self) -> bool {
        let of_nobody = matches!(&self.of_payers, Of::These(payers) if payers.is_empty());
        let of_funds = self.balance.is_some() || self.depleted || !self.exhausted.is_empty();
        self.suspended || !of_nobody || self.velocity || of_funds
    }
}

/// One client's.
struct Stream {
    room: Arc<Room>,
    batches: mpsc::Receiver<Batch>,
    sender: mpsc::Sender<Told>,
    trunk: String,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    async fn run<L: Ledger>(mut self, all: &Arc<Directives<L>>, tenant: &TenantId) {
        let sender = self.sender.clone();
        // A place for the last word, however slow the client is. None: it has left already.
        let Ok(place) = sender.clone().reserve_owned().await else { return };
        tokio::select! {
            cut = self.tell(all, tenant) => {
                place.send(Told::Cut(cut));
            }
            () = sender.closed() => {}
        }
    }

    /// Until it ends: why.
    async fn tell<L: Ledger>(&mut self, all: &Arc<Directives<L>>, tenant: &TenantId) -> Cut {
        let mut ready = self.room.ready.subscribe();
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => {}
            // Directives come later: it can only be that the server drains.
            _ = self.batches.recv() => return Cut::Draining,
        }
        if let Err(cut) = self.tell_standing(all, tenant).await {
            return cut;
        }
        loop {
            let batch = match self.batches.recv().await {
                Some(Batch::Of(batch)) => batch,
                Some(Batch::Draining) => return Cut::Draining,
                None => return Cut::TooSlow,
            };
            for directive in batch.iter() {
                if let Err(cut) = self.send(all, directive.clone()).await {
                    return cut;
                }
            }
        }
    }

    /// Everything that applies now.
    async fn tell_standing<L: Ledger>(
        &self,
        all: &Arc<Directives<L>>,
        tenant: &TenantId,
    ) -> Result<(), Cut> {
        let look = loop {
            match standing(all, tenant).await {
                Ok(look) => break look,
                Err(_) => self.wait(all).await?,
            }
        };
        let ended: Vec<_> = locked(&self.room.ended).iter().cloned().collect();
        for directive in ended {
            self.send(all, directive).await?;
        }
        let mut cursor = None;
        loop {
            match all.page(tenant, cursor.as_deref(), &look).await {
                Ok((directives, next)) => {
                    for directive in directives {
                        self.send(all, directive).await?;
                    }
                    cursor = next;
                    if cursor.is_none() {
                        break;
                    }
                }
                Err(_) => self.wait(all).await?,
            }
        }
        self.put(all, Told::CaughtUp).await
    }

    /// The ledger is away: a moment later it is asked again.
    async fn wait<L: Ledger>(&self, all: &Directives<L>) -> Result<(), Cut> {
        if (all.draining)() {
            return Err(Cut::Draining);
        }
        sleep(all.limits.interval * 2).await;
        Ok(())
    }

    async fn send<L: Ledger>(&self, all: &Directives<L>, directive: Directive) -> Result<(), Cut> {
        if !self.trunk.is_empty() && directive.trunk != self.trunk {
            return Ok(());
        }
        self.put(all, Told::Directive(directive)).await
    }

    async fn put<L>(&self, all: &Directives<L>, told: Told) -> Result<(), Cut> {
        let sent = self.sender.send_timeout(told, all.limits.patience).await;
        sent.map_err(|_| Cut::TooSlow)
    }
}

/// What to look for when a stream is opened.
async fn standing<L: Ledger>(all: &Directives<L>, tenant: &TenantId) -> Result<Look, LedgerError> {
    let found = all.ledger.record(tenant).await?;
    let state = found.outcome.map(|record| record.profile.state);
    let balance = readable_balance(&all.ledger, tenant).await?;
    Ok(Look {
        now: found.now,
        suspended: state == Some(TenantState::Suspended),
        of_payers: Of::All,
        shared_too: false,
        balance,
        velocity: false,
        exhausted: BTreeSet::new(),
        depleted: false,
    })
}

/// What there is to spend, where it can be read: it only tells that funds have come, and no END_NOW waits for that.
async fn readable_balance<L: Ledger>(
    ledger: &Arc<L>,
    tenant: &TenantId,
) -> Result<Option<Balance>, LedgerError> {
    match ledger.balance(tenant).await {
        Ok(found) => Ok(Some(found.outcome)),
        Err(LedgerError::Corrupt(what)) => {
            tracing::warn!(%tenant, what, "no directive can tell that funds have come");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::ids::PoolId;
    use crate::charging::rating::Tariff;
    use crate::charging::units::Micros;
    use crate::ledger::state::{Bucket, MoneyLine, PoolLine, Posting, reach_code};

    fn entry(kind: EntryKind, subject: &str) -> Entry {
        Entry {
            kind,
            at: Millis(7),
            subject: subject.to_owned(),
            payer: "alice".to_owned(),
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

    fn causes(entry: &Entry) -> Causes {
        let mut causes = Causes::default();
        causes.add(entry);
        causes
    }

    fn pool() -> PoolId {
        PoolId::of("US:MCOPSTN1:DOMESTIC", "2026-11")
    }

    fn paid_by_pool(reach: Reach) -> Call {
        let line = PoolLine {
            pool: pool(),
            closed_by: String::new(),
            increment: Seconds(60),
            held: Seconds(60),
            spent: Seconds::ZERO,
        };
        Call {
            payer: "alice".to_owned(),
            granted: Seconds(60),
            reach: reach_code(reach),
            pools: vec![line],
            ..Call::new(crate::ledger::state::CallState::Answered, Millis(1))
        }
    }

    fn paid_by_money(reach: Reach) -> Call {
        let tariff = Tariff {
            rate_per_minute: Micros(100_000),
            connection_fee: Micros::ZERO,
            initial_increment: Seconds(60),
            increment: Seconds(60),
        };
        let money = MoneyLine {
            tariff,
            spend_limit: -1,
            month: "2026-11".to_owned(),
            lots: vec![],
            overage: false,
            velocity: None,
        };
        Call { pools: vec![], money: Some(money), ..paid_by_pool(reach) }
    }

    fn look() -> Look {
        Look {
            now: Millis(9),
            suspended: false,
            of_payers: Of::These(BTreeSet::new()),
            shared_too: false,
            balance: None,
            velocity: false,
            exhausted: BTreeSet::new(),
            depleted: false,
        }
    }

    #[track_caller]
    fn check(look: &Look, call: &Call, expected: Option<(Kind, Reason)>) {
        let id = CallId::new("c").expect("an id");
        let told = look.judge((&id, call), &BTreeSet::new());
        assert_eq!(told.map(|directive| (directive.kind, directive.reason)), expected);
    }

    #[test]
    fn what_puts_funds_in_is_a_cause_and_what_takes_them_is_none() {
        for kind in [EntryKind::Purchased, EntryKind::RechargeSucceeded] {
            assert!(causes(&entry(kind, "po-1")).funds);
        }
        let corrected = |by| {
            let posting = Posting {
                bucket: "l:po-1".to_owned(),
                funded: 0,
                held: 0,
                spent: 0,
                expired: 0,
                adjusted: by,
            };
            causes(&Entry { postings: vec![posting], ..entry(EntryKind::Adjusted, "l:po-1") })
        };
        assert!(corrected(1).funds);
        assert!(corrected(-1).is_empty());
        for kind in [EntryKind::Authorized, EntryKind::Extended, EntryKind::Settled] {
            assert!(causes(&entry(kind, "c")).is_empty());
        }
    }

    #[test]
    fn an_expiry_is_no_word_of_an_operator() {
        assert!(causes(&entry(EntryKind::Expired, "c")).is_empty());
        let report = EndReport { q850_cause: 16, ..EndReport::default() };
        let settled = Entry { report: report.encode(), ..entry(EntryKind::Released, "c") };
        assert!(causes(&settled).is_empty());
        let report = EndReport {
            ended_by: "olga".to_owned(),
            trunk: "sbc-1".to_owned(),
            ..EndReport::default()
        };
        let ended = Entry { report: report.encode(), ..entry(EntryKind::Expired, "c") };
        let [directive] = &causes(&ended).ended[..] else { panic!("expected one directive") };
        assert_eq!((directive.call.as_str(), directive.trunk.as_str()), ("c", "sbc-1"));
    }

    #[test]
    fn funds_that_end_are_told_to_calls_that_nothing_else_pays() {
        let warned = Some((Kind::Warn, Reason::FundsEnding));
        let exhausted = Look { exhausted: BTreeSet::from([pool().to_string()]), ..look() };
        check(&exhausted, &paid_by_pool(Reach::Full), warned);
        let both = Call { money: paid_by_money(Reach::Full).money, ..paid_by_pool(Reach::Full) };
        check(&exhausted, &both, None);
        let depleted = Look { depleted: true, ..look() };
        check(&depleted, &paid_by_money(Reach::Full), warned);
        check(&depleted, &paid_by_pool(Reach::Full), None);
    }

    #[test]
    fn funds_that_arrive_are_told_to_calls_that_they_can_pay() {
        let bucket = |funded| Bucket { funded, ..Bucket::default() };
        let with = |left| {
            let balance = Balance { pools: vec![(pool(), bucket(left))], ..Balance::default() };
            Look { balance: Some(balance), ..look() }
        };
        let refreshed = Some((Kind::Refresh, Reason::FundsArrived));
        check(&with(60), &paid_by_pool(Reach::Exhausted), refreshed);
        check(&with(0), &paid_by_pool(Reach::Exhausted), None);
        check(&with(60), &paid_by_money(Reach::Exhausted), None);
        check(&with(60), &paid_by_pool(Reach::Full), None);
        check(&with(60), &paid_by_pool(Reach::Shared), None);
        let live = Look { shared_too: true, ..with(60) };
        check(&live, &paid_by_pool(Reach::Shared), refreshed);
        check(&live, &paid_by_pool(Reach::SpendLimit), None);
    }
}
