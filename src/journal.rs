//! The sidecar's own journal: what it acknowledged, on a local disk, for a bounded time.
//!
//! Not the ledger's journal, which is the tenant's history in the store: this one belongs to one process and
//! is there for the time when the store is not. It does two things.
//!
//! * **It remembers what the ledger has done** ([`Done`]): grants and denials, answers, extensions, ends,
//!   purchases, recharges, each with its key and the call as stored. Nobody waits for it: the ledger has
//!   it already. It is written and synced within [`store::COMMIT_WITHIN`] and one sync.
//! * **It keeps what the ledger has to do** ([`Command`]): settles and releases that are answered
//!   `ACCEPTED` while the ledger is out of reach, and the records of emergency and free calls that were
//!   decided without it. These are waited for: once [`Journal::keep`] returns they survive kill -9 and a
//!   power cut. They are done in order for each call, by whoever asks [`Journal::next`], and their
//!   outcomes are written too.
//!
//! **Why a file and no embedded store.** What is needed is appending, reading everything once at the start,
//! and forgetting the oldest. A checksummed file does each with the least between an acknowledgement and
//! the disk: one write and one fdatasync for all that wait (redb commits a copy-on-write tree by two syncs, one batch at a
//! time; fjall adds a tree and compaction behind the same kind of log). Segments make forgetting an unlink.
//! And what is wrong with a damaged file is told by offset, and costs the damaged entries alone.
//!
//! Knows the ledger's port for its commands and values; does not know how commands are carried out, nor
//! gRPC or Redis.

pub mod entry;
mod segment;
pub mod store;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};

use crate::charging::ids::{CallId, TenantId};
use crate::charging::units::Millis;
use crate::journal::entry::{Accepted, Command, Done, Effect, Outcome, encode};
use crate::journal::segment::Kind;
use crate::journal::store::{Disk, Job, Medium, Queue, Writer};
use crate::ledger::marks::Mark;

/// Most entries that the ledger has to do at a time: they are kept in memory too, with less than 1 KB each
/// as a rule. What comes beyond is not accepted.
pub const MAX_TODO: usize = 200_000;

/// Where the journal is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A directory of its own, made where there is none.
    pub folder: PathBuf,
    /// How long entries are kept; longer while the ledger has to do them.
    pub keep: Duration,
    /// Most bytes on disk; the oldest entries go first, never one that the ledger has to do.
    pub most_bytes: u64,
}

/// Why something is not in the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal {folder} is used by another process; each needs a directory of its own",
        folder = .0.display())]
    Locked(PathBuf),
    /// The directory cannot be made, read or locked.
    #[error("the journal {folder} cannot be used: {error}", folder = .0.display(), error = .1)]
    Unusable(PathBuf, std::io::Error),
    /// It has all that it may have, and the ledger has to do all of it.
    #[error("the journal is full")]
    Full,
    /// The disk does not take it.
    #[error("the journal cannot be written: {0}")]
    Unwritable(String),
    /// No request is that long.
    #[error("an entry is too long for the journal")]
    TooLong,
}

impl PartialEq for JournalError {
    fn eq(&self, other: &JournalError) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Bytes of the journal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// Where in it.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.segment, self.offset, self.what)
    }
}

/// Something that the ledger has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    /// Of its entry.
    pub sequence: u64,
    /// When it was accepted, by the clock of this machine.
    pub at: Millis,
    /// What to do.
    pub command: Command,
}

/// How the journal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Entries that the ledger has to do.
    pub todo: usize,
    /// Entries written since the start.
    pub appended: u64,
    /// Syncs since the start; entries that came together share one.
    pub syncs: u64,
    /// What the ledger has done and the journal could not take: too much waited, or the disk failed.
    pub missed: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Why nothing can be accepted now; `None` where it can.
    pub trouble: Option<String>,
}

/// An open journal; see the module.
pub struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Instead of a thread, of one that is written in place.
    in_place: Option<Mutex<Option<Writer>>>,
    folder: PathBuf,
    sidecar: String,
    /// What had been acknowledged when it was opened.
    marks: HashMap<TenantId, Mark>,
}

/// What the writer and everybody else know of.
#[derive(Default)]
pub(crate) struct Shared {
    queue: Queue,
    todo: Mutex<TodoList>,
    /// Length of the list, to be read without its lock.
    waiting: AtomicUsize,
    appended: AtomicU64,
    syncs: AtomicU64,
    missed: AtomicU64,
    /// Entries of what the ledger has done that were taken, and those of them that are on the disk or missed.
    noted: AtomicU64,
    handled: AtomicU64,
    bytes: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// There is something to do.
    added: Notify,
    /// Something was done.
    progressed: Notify,
    /// Whether whoever does it found the ledger out of reach.
    stalled: AtomicBool,
}

/// What the ledger has to do, oldest first, and by call.
#[derive(Default)]
struct TodoList {
    by_sequence: BTreeMap<u64, Arc<Todo>>,
    by_call: HashMap<(TenantId, CallId), VecDeque<u64>>,
    /// What failed: how often, and until when it is left alone.
    deferred: HashMap<u64, (u32, Instant)>,
}

impl Journal {
    /// Opens it: takes its lock, reads what is still to be done, cuts a torn end, and starts the thread that
    /// writes. Reads the whole journal, so that it is no work for a thread that serves calls.
    pub fn open(settings: &Settings) -> Result<Journal, JournalError> {
        Journal::open_on(settings, Box::new(Disk))
    }

    /// One without a thread, which is written by whoever adds to it, and not synced: for simulations, in which
    /// nothing happens beside their own steps. Does not survive a power cut, nor wait for a disk.
    pub fn open_in_place(settings: &Settings) -> Result<Journal, JournalError> {
        Journal::open_as(settings, Box::new(store::Unsynced), true)
    }

    fn open_on(settings: &Settings, medium: Box<dyn Medium>) -> Result<Journal, JournalError> {
        Journal::open_as(settings, medium, false)
    }

    fn open_as(
        settings: &Settings,
        medium: Box<dyn Medium>,
        in_place: bool,
    ) -> Result<Journal, JournalError> {
        let unusable = |error| JournalError::Unusable(settings.folder.clone(), error);
        let lock = store::lock(&settings.folder)?;
        let name = store::sidecar(&settings.folder);
        let mut opened = store::open(&settings.folder, name.as_ref()).map_err(unusable)?;
        let last = opened.next_sequence - 1;
        let name = name.unwrap_or_else(|| store::name_sidecar(&settings.folder, last));
        let sidecar = name.name;
        for damage in &opened.damage {
            tracing::error!(%damage, "a part of the journal cannot be read and is left aside");
        }
        let shared = Arc::new(Shared::default());
        for todo in std::mem::take(&mut opened.todo) {
            shared.add(todo);
        }
        let marks = std::mem::take(&mut opened.marks);
        let writer = Writer::new(settings, medium, lock, &mut opened, shared.clone());
        let folder = settings.folder.clone();
        if in_place {
            let (in_place, writer) = (Some(Mutex::new(Some(writer))), Mutex::default());
            return Ok(Journal { shared, writer, in_place, folder, sidecar, marks });
        }
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(unusable)?;
        let writer = Mutex::new(Some(writer));
        Ok(Journal { shared, writer, in_place: None, folder, sidecar, marks })
    }

    /// Whether it has no thread: see [`Journal::open_in_place`].
    pub fn is_in_place(&self) -> bool {
        self.in_place.is_some()
    }

    /// Adds to what is to be written; `false`, and nothing, where too much waits already, or it is closed.
    fn put(&self, job: Job) -> bool {
        let taken = self.shared.queue.put(job);
        if let Some(writer) = &self.in_place
            && let Some(writer) = &mut *writer.lock().unwrap_or_else(PoisonError::into_inner)
        {
            writer.append(self.shared.queue.take_now());
        }
        taken
    }

    /// Remembers what the ledger has done; does not wait for the disk. Where the journal is behind by
    /// megabytes or cannot be written, the entry is missed, and counted.
    ///
    /// `mark` is the highest that was acknowledged of the tenant, this included.
    pub fn note(&self, tenant: &TenantId, now: Millis, mark: Mark, effect: Effect<'_>) {
        let done = Done { tenant: tenant.clone(), now, effect, mark };
        let job = encode(&done).map(|payload| Job { kind: Kind::Done, payload, accepted: None });
        self.shared.noted.fetch_add(1, Ordering::Relaxed);
        if !job.is_some_and(|job| self.put(job)) {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
            self.shared.handled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The name of the sidecar that it is of, which lasts as long as its directory.
    pub fn sidecar(&self) -> &str {
        &self.sidecar
    }

    /// The highest that had been acknowledged of each tenant when it was opened.
    pub fn marks(&self) -> &HashMap<TenantId, Mark> {
        &self.marks
    }

    /// Waits until everything is on the disk that was noted before, or is missed; `false` where time ran out
    /// first.
    pub async fn written(&self, limit: Duration) -> bool {
        let noted = self.shared.noted.load(Ordering::Relaxed);
        let until = tokio::time::Instant::now() + limit;
        while self.shared.handled.load(Ordering::Relaxed) < noted {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(store::COMMIT_WITHIN / 2).await;
        }
        true
    }

    /// Reads what the ledger has done, oldest first, with the sequence of each entry; one segment in memory
    /// at a time. Blocks. Parts that cannot be read are skipped, as at the start; how many there are.
    pub fn read_done(&self, mut each: impl FnMut(u64, Done<'_>)) -> std::io::Result<usize> {
        let (damage, _) = store::read(&self.folder, &[Kind::Done], false, |sequence, entry| {
            if let store::Read::Done(done) = entry {
                each(sequence, *done);
            }
        })?;
        Ok(damage.len())
    }

    /// Keeps what the ledger has to do: once this returns well, it survives kill -9 and a power cut. An
    /// error leaves it open whether it will be done; it was not accepted.
    pub async fn keep(&self, command: Command) -> Result<(), JournalError> {
        if self.shared.waiting.load(Ordering::Acquire) >= MAX_TODO {
            let full = format!("the journal is full: {MAX_TODO} entries wait for the ledger");
            self.shared.set_trouble(Some(full));
            return Err(JournalError::Full);
        }
        let accepted = Accepted { at: local_now(), command };
        let payload = encode(&accepted).ok_or(JournalError::TooLong)?;
        let (waits, kept) = oneshot::channel();
        let job = Job { kind: Kind::Todo, payload, accepted: Some((accepted, waits)) };
        if !self.put(job) {
            return Err(JournalError::Full);
        }
        let gone = |_| Err(JournalError::Unwritable("its thread has ended".to_owned()));
        kept.await.unwrap_or_else(gone)
    }

    /// Whether the ledger has to do something for the call: what comes after it must wait its turn.
    pub fn awaits(&self, tenant: &TenantId, call: &CallId) -> bool {
        self.shared.waiting.load(Ordering::Acquire) > 0
            && self.shared.todo().by_call.contains_key(&(tenant.clone(), call.clone()))
    }

    /// Whether the journal holds it already, durably.
    pub fn holds(&self, command: &Command) -> bool {
        if self.shared.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let todo = self.shared.todo();
        let key = (command.tenant().clone(), command.call().clone());
        let of_call = todo.by_call.get(&key).into_iter().flatten();
        let mut found = of_call.filter_map(|sequence| todo.by_sequence.get(sequence));
        found.any(|held| held.command.repeats(command))
    }

    /// The oldest entries to do, at most one a call and `most` in all.
    pub fn next(&self, most: usize) -> Vec<Arc<Todo>> {
        let todo = self.shared.todo();
        let now = Instant::now();
        let is_next = |entry: &&Arc<Todo>| {
            let key = (entry.command.tenant().clone(), entry.command.call().clone());
            let first = todo.by_call.get(&key).and_then(VecDeque::front);
            let deferred = todo.deferred.get(&entry.sequence);
            first == Some(&entry.sequence) && deferred.is_none_or(|(_, until)| *until <= now)
        };
        todo.by_sequence.values().filter(is_next).take(most).cloned().collect()
    }

    /// Everything to do, oldest first.
    pub fn todos(&self) -> Vec<Arc<Todo>> {
        self.shared.todo().by_sequence.values().cloned().collect()
    }

    /// An entry failed for a reason of its own: it, and what comes behind it for the same call, is left
    /// alone for a while: a second, twice as long each time, a minute at most. How often it has failed.
    pub fn defer(&self, todo: &Todo) -> u32 {
        let mut list = self.shared.todo();
        let (times, until) = list.deferred.entry(todo.sequence).or_insert((0, Instant::now()));
        let pause = Duration::from_secs(1u64 << (*times).min(6)).min(Duration::from_secs(60));
        (*times, *until) = (*times + 1, Instant::now() + pause);
        *times
    }

    /// An entry is done, or will never be: it is not asked for again. Not waited for: an outcome that a
    /// crash takes with it has the entry done once more, which changes nothing.
    pub fn done(&self, todo: &Todo, result: &str, refused: bool) {
        let result = result.to_owned();
        let outcome = Outcome { of: todo.sequence, at: local_now(), result, refused };
        let job =
            encode(&outcome).map(|payload| Job { kind: Kind::Outcome, payload, accepted: None });
        if !job.is_some_and(|job| self.put(job)) {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.remove(todo);
    }

    /// Waits until there is something to do.
    pub async fn added(&self) {
        loop {
            let added = self.shared.added.notified();
            if self.shared.waiting.load(Ordering::Acquire) > 0 {
                return;
            }
            added.await;
        }
    }

    /// Whether the ledger was found out of reach when something was last to be done.
    pub fn is_stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::Acquire)
    }

    /// Tells everybody that the ledger was found out of reach, or in reach again.
    pub fn set_stalled(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Ordering::Release);
    }

    /// Waits until nothing is to be done for the call, or at all; `false` where time ran out first.
    pub async fn drained(&self, call: Option<(&TenantId, &CallId)>, limit: Duration) -> bool {
        let empty = || match call {
            Some((tenant, call)) => !self.awaits(tenant, call),
            None => self.shared.waiting.load(Ordering::Acquire) == 0,
        };
        let all = async {
            loop {
                let mut progressed = std::pin::pin!(self.shared.progressed.notified());
                progressed.as_mut().enable();
                if empty() {
                    return;
                }
                progressed.await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// When the oldest entry that the ledger has to do was accepted, by the clock of this machine.
    pub fn oldest_todo(&self) -> Option<Millis> {
        self.shared.todo().by_sequence.values().next().map(|todo| todo.at)
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Status {
            todo: shared.waiting.load(Ordering::Acquire),
            appended: count(&shared.appended),
            syncs: count(&shared.syncs),
            missed: count(&shared.missed),
            bytes: count(&shared.bytes),
            trouble: shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Journal {
    /// Takes nothing any more, and returns once what it took is on the disk and its lock is free. Blocks.
    pub fn close(&self) {
        self.shared.queue.close();
        if let Some(writer) = &self.in_place {
            drop(writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It says itself what went wrong.
            let _ = writer.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn add(&self, todo: Todo) {
        let key = (todo.command.tenant().clone(), todo.command.call().clone());
        let mut list = self.todo();
        list.by_call.entry(key).or_default().push_back(todo.sequence);
        list.by_sequence.insert(todo.sequence, Arc::new(todo));
        self.waiting.store(list.by_sequence.len(), Ordering::Release);
        drop(list);
        self.added.notify_one();
    }

    fn remove(&self, todo: &Todo) {
        let key = (todo.command.tenant().clone(), todo.command.call().clone());
        let mut list = self.todo();
        list.by_sequence.remove(&todo.sequence);
        list.deferred.remove(&todo.sequence);
        if let Some(of_call) = list.by_call.get_mut(&key) {
            of_call.retain(|sequence| *sequence != todo.sequence);
            if of_call.is_empty() {
                list.by_call.remove(&key);
            }
        }
        self.waiting.store(list.by_sequence.len(), Ordering::Release);
        drop(list);
        self.progressed.notify_waiters();
    }

    fn has_todo(&self, first: u64, last: u64) -> bool {
        self.todo().by_sequence.range(first..=last).next().is_some()
    }

    fn todo(&self) -> MutexGuard<'_, TodoList> {
        // Nothing that is done under the lock leaves the list half changed.
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why nothing can be accepted, or that it can; says so once.
    fn set_trouble(&self, now: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *trouble == now {
            return;
        }
        match &now {
            Some(why) => {
                tracing::error!(
                    why,
                    "the journal takes nothing: settles are UNAVAILABLE while the ledger is away"
                );
            }
            None => tracing::info!("the journal is written again"),
        }
        *trouble = now;
    }
}

/// What somebody who does not write finds in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What the ledger still has to do, oldest first.
    pub todo: Vec<Todo>,
    /// What the ledger did not do as it was accepted, with what it said.
    pub refused: Vec<(Todo, Outcome)>,
    /// Entries of what the ledger has done.
    pub done: u64,
    /// Entries of outcomes.
    pub outcomes: u64,
    /// What cannot be read.
    pub damage: Vec<Damage>,
}

/// Reads a journal, whether or not a server has it open; `each` is told what the ledger has done, oldest
/// first, with the sequence of its entry.
pub fn read(folder: &Path, mut each: impl FnMut(u64, Done<'_>)) -> std::io::Result<Contents> {
    let mut contents = Contents::default();
    let mut todo = BTreeMap::new();
    let mut outcomes = vec![];
    let all = [Kind::Done, Kind::Todo, Kind::Outcome];
    let (damage, _) = store::read(folder, &all, false, |sequence, entry| match entry {
        store::Read::Done(done) => {
            contents.done += 1;
            each(sequence, *done);
        }
        store::Read::Todo(Accepted { at, command }) => {
            todo.insert(sequence, Todo { sequence, at, command });
        }
        store::Read::Outcome(outcome) => outcomes.push(outcome),
        store::Read::Head(_) => {}
    })?;
    contents.outcomes = outcomes.len() as u64;
    for outcome in outcomes {
        if let Some(todo) = todo.remove(&outcome.of)
            && outcome.refused
        {
            contents.refused.push((todo, outcome));
        }
    }
    contents.refused.sort_by_key(|(todo, _)| todo.sequence);
    contents.todo = todo.into_values().collect();
    contents.damage = damage;
    Ok(contents)
}

/// The clock of this machine; for people and for forgetting, never for money.
fn local_now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or_default())
}

/// What a fuzzer is let loose on: a segment, and each of its entries.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let scan = segment::scan(bytes, 0);
    assert!(scan.end <= bytes.len());
    for frame in &scan.frames {
        fuzzed_entry(frame.payload);
    }
    fuzzed_entry(bytes);
}

#[cfg(any(test, fuzzing))]
fn fuzzed_entry(bytes: &[u8]) {
    if let Ok(done) = entry::decode::<Done<'_>>(bytes) {
        let written = encode(&done).expect("an entry that was read");
        assert_eq!(entry::decode::<Done<'_>>(&written), Ok(done));
    }
    if let Ok(accepted) = entry::decode::<Accepted>(bytes) {
        let written = encode(&accepted).expect("an entry that was read");
        assert_eq!(entry::decode::<Accepted>(&written), Ok(accepted));
    }
    if let Ok(outcome) = entry::decode::<Outcome>(bytes) {
        let written = encode(&outcome).expect("an entry that was read");
        assert_eq!(entry::decode::<Outcome>(&written), Ok(outcome));
    }
}
