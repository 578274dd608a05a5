//! The segments on disk: read when the journal is opened, then written by one thread.
//!
//! Appending is one write and one fdatasync for everything that waits, however much: while a sync is under
//! way the next batch gathers. An append that failed leaves its segment: after a failed sync nobody knows
//! what the disk holds of it, so the next batch begins another one.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::charging::ids::TenantId;
use crate::charging::units::Millis;
use crate::journal::entry::{Accepted, Done, Head, Outcome, decode};
use crate::journal::segment::{self, Kind};
use crate::journal::{Damage, JournalError, Shared, Todo, local_now};
use crate::ledger::marks::Mark;

/// What is not waited for is written and synced at the latest so much later, and the time of one sync that
/// is under way.
pub const COMMIT_WITHIN: Duration = Duration::from_millis(10);

/// Most bytes that wait to be written; beyond that nothing is accepted, and what the ledger has done is
/// missed.
const MAX_QUEUED: usize = 16 << 20;

/// How often segments are looked at that may have become too old.
const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// A journal has about so many segments when it is full.
const SEGMENTS: u64 = 16;

/// How bytes get onto a disk: a real one, or one that fails when a test wants it to.
pub(super) trait Medium: Send + 'static {
    /// A new file, with its name on disk.
    fn create(&mut self, path: &Path) -> io::Result<File>;
    /// All of the bytes, at the end of the file.
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Returns once what was written survives a power cut.
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

/// A real one.
pub(super) struct Disk;

impl Medium for Disk {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        sync_folder_of(path)?;
        Ok(file)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// A real one that nobody waits for: see [`crate::journal::Journal::open_in_place`].
pub(super) struct Unsynced;

impl Medium for Unsynced {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A segment that nothing is added to any more.
#[derive(Debug)]
struct Closed {
    path: PathBuf,
    bytes: u64,
    /// Its sequences; none where it has no frame.
    first: u64,
    last: u64,
    /// When its last entry was written, by the clock of this machine.
    newest: Millis,
}

/// What the directory held when it was opened.
pub(super) struct Opened {
    closed: VecDeque<Closed>,
    next_number: u64,
    pub(super) next_sequence: u64,
    pub(super) todo: Vec<Todo>,
    pub(super) damage: Vec<Damage>,
    /// The highest that was acknowledged of each tenant.
    pub(super) marks: HashMap<TenantId, Mark>,
}

/// An entry as it was read.
pub(super) enum Read<'a> {
    Done(Box<Done<'a>>),
    Head(Head),
    Todo(Accepted),
    Outcome(Outcome),
}

/// Makes the directory where there is none, and takes its lock, which lasts as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, JournalError> {
    let unusable = |error| JournalError::Unusable(folder.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(folder.join("LOCK")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::Locked(folder.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The name of the sidecar that the journal is of: the ledger counts by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    /// The last entry before the sidecar had it: up to there the ledger has counted by another name.
    after: u64,
}

/// The name; `None` where it is lost, or there never was one.
pub(super) fn sidecar(folder: &Path) -> Option<Name> {
    let path = folder.join("SIDECAR");
    let text = match fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the sidecar's name cannot be read");
            }
            return None;
        }
    };
    let mut words = text.split_whitespace();
    let name = words.next().filter(|name| is_name(name)).map(str::to_owned);
    let after =
        words.next().map_or(Some(0), |after| after.parse().ok().filter(|n: &u64| *n < 1 << 53));
    let read = name.zip(after).filter(|_| words.next().is_none());
    if read.is_none() {
        tracing::warn!(path = %path.display(), "holds no name of a sidecar");
    }
    read.map(|(name, after)| Name { name, after })
}

/// Gives the sidecar a name, where the journal ends with that entry. By its number nothing that the ledger
/// has counted by another name is missed under this one.
pub(super) fn name_sidecar(folder: &Path, after: u64) -> Name {
    let name = uuid::Uuid::now_v7().simple().to_string();
    if after > 0 {
        tracing::warn!(
            name,
            "the journal gets a new name in the ledger: what the ledger lost while this \
            sidecar was down is not noticed"
        );
    }
    let name = Name { name, after };
    // A disk that takes nothing more is told of later: a name that lasts until the next start will do.
    if let Err(error) = keep_name(folder, &name) {
        tracing::warn!(%error, "the name of the sidecar cannot be kept in the journal");
    }
    name
}

fn keep_name(folder: &Path, Name { name, after }: &Name) -> io::Result<()> {
    let path = folder.join("SIDECAR");
    let text = if *after > 0 { format!("{name} {after}") } else { name.clone() };
    let beside = folder.join("SIDECAR.new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    sync_folder_of(&path)
}

fn is_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The segments of the directory, oldest first, each with its number.
fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".journal").and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Reads every entry, oldest first, one segment in memory at a time; what is wrong with them.
///
/// The torn end of the last segment is no damage: it was never acknowledged.
pub(super) fn read(
    folder: &Path,
    decoded: &[Kind],
    heads: bool,
    mut each: impl FnMut(u64, Read<'_>),
) -> io::Result<(Vec<Damage>, Opened)> {
    let mut damage = vec![];
    let mut opened = Opened {
        closed: VecDeque::new(),
        next_number: 1,
        next_sequence: 1,
        todo: vec![],
        damage: vec![],
        marks: HashMap::new(),
    };
    let found = segments(folder)?;
    let newest_number = found.last().map(|(number, _)| *number);
    for (number, path) in found {
        let bytes = match fs::read(&path) {
            // A server may have removed what it kept long enough while somebody else reads along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let name = path.display().to_string();
        let mut hurt = |offset: usize, what: String| {
            damage.push(Damage { segment: name.clone(), offset, what });
        };
        let scan = segment::scan(&bytes, opened.next_sequence - 1);
        let begins = bytes.starts_with(segment::MAGIC) || segment::MAGIC.starts_with(&bytes);
        if !begins {
            hurt(0, "does not begin like a journal of this release".to_owned());
        }
        for range in scan.damaged.iter().filter(|range| begins || range.start > 0) {
            hurt(range.start, format!("{} bytes cannot be read; skipped", range.len()));
        }
        let torn = bytes.len() - scan.end;
        if torn > 0 && Some(number) != newest_number {
            hurt(scan.end, format!("{torn} bytes at the end cannot be read; skipped"));
        }
        let mut newest = Millis::ZERO;
        for frame in &scan.frames {
            if !decoded.contains(&frame.kind) {
                continue;
            }
            let read = match frame.kind {
                Kind::Done if heads => decode(frame.payload).map(Read::Head),
                Kind::Done => decode(frame.payload).map(|done| Read::Done(Box::new(done))),
                Kind::Todo => decode(frame.payload).map(Read::Todo),
                Kind::Outcome => decode(frame.payload).map(Read::Outcome),
            };
            match read {
                Ok(read) => {
                    match &read {
                        Read::Todo(entry) => newest = newest.max(entry.at),
                        Read::Outcome(entry) => newest = newest.max(entry.at),
                        Read::Done(_) | Read::Head(_) => {}
                    }
                    each(frame.sequence, read);
                }
                Err(why) => {
                    hurt(0, format!("entry {} cannot be understood: {why}", frame.sequence));
                }
            }
        }
        if let Ok(modified) = fs::metadata(&path).and_then(|about| about.modified()) {
            let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            newest = newest.max(Millis(i64::try_from(since.as_millis()).unwrap_or_default()));
        }
        let first = scan.frames.first().map_or(0, |frame| frame.sequence);
        let last = scan.frames.last().map_or(0, |frame| frame.sequence);
        opened.next_sequence = opened.next_sequence.max(last + 1);
        opened.next_number = number + 1;
        let whole = if Some(number) == newest_number { scan.end } else { bytes.len() };
        let bytes = whole as u64;
        opened.closed.push_back(Closed { path, bytes, first, last, newest });
    }
    Ok((damage, opened))
}

/// Reads what is still to be done, and cuts the torn end of the last segment. What was acknowledged to a
/// sidecar of another name is left out.
pub(super) fn open(folder: &Path, name: Option<&Name>) -> io::Result<Opened> {
    let mut todo = std::collections::BTreeMap::new();
    let mut outcomes = vec![];
    let mut marks = HashMap::<TenantId, Mark>::new();
    let all = [Kind::Done, Kind::Todo, Kind::Outcome];
    let (damage, mut opened) = read(folder, &all, true, |sequence, entry| match entry {
        Read::Todo(accepted) => {
            todo.insert(sequence, accepted);
        }
        Read::Outcome(outcome) => outcomes.push(outcome.of),
        Read::Head(Head { tenant, mark }) if name.is_some_and(|name| sequence > name.after) => {
            let highest = marks.entry(tenant).or_default();
            *highest = highest.max(mark);
        }
        Read::Done(_) | Read::Head(_) => {}
    })?;
    // Where everything from before is gone, numbers go on from there all the same.
    opened.next_sequence = opened.next_sequence.max(name.map_or(1, |name| name.after + 1));
    opened.marks = marks;
    for of in outcomes {
        todo.remove(&of);
    }
    if let Some(last) = opened.closed.back() {
        cut(last)?;
    }
    opened.damage = damage;
    opened.todo = todo
        .into_iter()
        .map(|(sequence, Accepted { at, command })| Todo { sequence, at, command })
        .collect();
    Ok(opened)
}

fn cut(last: &Closed) -> io::Result<()> {
    let length = fs::metadata(&last.path)?.len();
    // What does not begin as it should may be of a later release: it is left alone.
    let known = fs::read(&last.path)?.starts_with(segment::MAGIC);
    if known && length > last.bytes {
        let torn = length - last.bytes;
        tracing::warn!(segment = %last.path.display(), torn,
            "the journal was being written when the process or the machine stopped: its end is cut");
        let file = OpenOptions::new().write(true).open(&last.path)?;
        file.set_len(last.bytes)?;
        file.sync_all()?;
    }
    Ok(())
}

/// An entry on its way to the disk.
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    /// Of a [`Kind::Todo`]: the entry, and who waits for it.
    pub(super) accepted: Option<(Accepted, oneshot::Sender<Result<(), JournalError>>)>,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    bytes: usize,
    /// Somebody waits for one of them.
    urgent: bool,
    closed: bool,
}

impl Queue {
    /// Adds one; `false`, and nothing, where too much waits already.
    pub(super) fn put(&self, job: Job) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.bytes + job.payload.len() > MAX_QUEUED {
            return false;
        }
        let urgent = job.accepted.is_some();
        // Who writes is woken as seldom as may be: by the first, and by the first that somebody waits for.
        let wakes = waiting.jobs.is_empty() || (urgent && !waiting.urgent);
        waiting.bytes += job.payload.len();
        waiting.urgent |= urgent;
        waiting.jobs.push(job);
        drop(waiting);
        if wakes {
            self.arrived.notify_one();
        }
        true
    }

    /// Nothing is added any more; what waits is written.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_one();
    }

    /// The next batch, at the latest after `patience` empty; `None` at the end.
    fn take(&self, patience: Duration) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        if waiting.jobs.is_empty() && !waiting.closed {
            (waiting, _) = self
                .arrived
                .wait_timeout_while(waiting, patience, |w| w.jobs.is_empty() && !w.closed)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + COMMIT_WITHIN;
        while !waiting.jobs.is_empty() && !waiting.urgent && !waiting.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            (waiting, _) =
                self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.jobs.is_empty() && waiting.closed {
            return None;
        }
        waiting.urgent = false;
        waiting.bytes = 0;
        Some(std::mem::take(&mut waiting.jobs))
    }

    /// Everything that waits.
    pub(super) fn take_now(&self) -> Vec<Job> {
        let mut waiting = self.waiting();
        waiting.urgent = false;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.jobs)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done under the lock leaves it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The segment that is written.
struct Current {
    file: File,
    about: Closed,
}

/// The thread that writes.
pub(super) struct Writer {
    medium: Box<dyn Medium>,
    folder: PathBuf,
    shared: Arc<Shared>,
    /// Most bytes of all segments.
    most: u64,
    /// In milliseconds.
    keep: i64,
    closed: VecDeque<Closed>,
    current: Option<Current>,
    next_number: u64,
    next_sequence: u64,
    /// Kept while the journal is open.
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        settings: &super::Settings,
        medium: Box<dyn Medium>,
        lock: File,
        opened: &mut Opened,
        shared: Arc<Shared>,
    ) -> Writer {
        Writer {
            medium,
            folder: settings.folder.clone(),
            shared,
            most: settings.most_bytes,
            keep: i64::try_from(settings.keep.as_millis()).unwrap_or(i64::MAX),
            closed: std::mem::take(&mut opened.closed),
            current: None,
            next_number: opened.next_number,
            next_sequence: opened.next_sequence,
            _lock: lock,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        self.retain(local_now());
        let mut retained = Instant::now();
        while let Some(jobs) = self.shared.queue.take(RETAIN_EVERY) {
            self.append(jobs);
            if retained.elapsed() >= RETAIN_EVERY {
                self.retain(local_now());
                retained = Instant::now();
            }
        }
    }

    /// Writes and syncs a batch, a segment at a time where it is larger than one; whoever waits is told.
    pub(super) fn append(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            self.append_some(&mut jobs);
        }
    }

    fn append_some(&mut self, jobs: &mut impl Iterator<Item = Job>) {
        let segment = self.most / SEGMENTS;
        if self.current.as_ref().is_some_and(|current| current.about.bytes >= segment) {
            self.leave();
            self.retain(local_now());
        }
        let mut bytes = vec![];
        let mut framed = vec![];
        while (bytes.len() as u64) < segment
            && let Some(job) = jobs.next()
        {
            let length = segment::frame_length(job.payload.len()) as u64;
            if !self.has_room(bytes.len() as u64 + length, job.kind) {
                self.refuse(job, JournalError::Full);
            } else if segment::put_frame(&mut bytes, self.next_sequence, job.kind, &job.payload) {
                framed.push((self.next_sequence, job));
                self.next_sequence += 1;
            } else {
                self.refuse(job, JournalError::TooLong);
            }
        }
        if framed.is_empty() {
            return;
        }
        match self.write(&bytes) {
            Ok(()) => self.written(framed, bytes.len() as u64),
            Err(error) => self.failed(framed, &error),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let path = self.folder.join(format!("{:010}.journal", self.next_number));
                // A name is used once, whatever becomes of the file.
                self.next_number += 1;
                let mut file = self.medium.create(&path)?;
                let about = Closed { path, bytes: 0, first: 0, last: 0, newest: Millis::ZERO };
                if let Err(error) = self.medium.write(&mut file, segment::MAGIC) {
                    let _ = fs::remove_file(&about.path);
                    return Err(error);
                }
                let about = Closed { bytes: segment::MAGIC.len() as u64, ..about };
                self.current.insert(Current { file, about })
            }
        };
        self.medium.write(&mut current.file, bytes)?;
        self.medium.sync(&current.file)?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn written(&mut self, framed: Vec<(u64, Job)>, bytes: u64) {
        if let (Some(current), Some((first, _)), Some((last, _))) =
            (&mut self.current, framed.first(), framed.last())
        {
            let about = &mut current.about;
            about.bytes += bytes;
            about.first = if about.first == 0 { *first } else { about.first };
            about.last = *last;
            about.newest = local_now();
        }
        self.shared.appended.fetch_add(framed.len() as u64, Ordering::Relaxed);
        self.shared.bytes.store(self.total(), Ordering::Relaxed);
        self.shared.set_trouble(None);
        let mut told = vec![];
        for (sequence, job) in framed {
            self.handle(job.kind);
            if let Some((Accepted { at, command }, waits)) = job.accepted {
                self.shared.add(Todo { sequence, at, command });
                told.push(waits);
            }
        }
        for waits in told {
            // Who does not wait any more repeats the request: it is the same entry again.
            let _ = waits.send(Ok(()));
        }
    }

    fn failed(&mut self, framed: Vec<(u64, Job)>, error: &io::Error) {
        self.shared.set_trouble(Some(format!("the journal cannot be written: {error}")));
        if let Some(current) = &self.current {
            // Half a frame would be damage in the middle of the journal; where this fails too it is told
            // at the next start, and skipped.
            let _ = current.file.set_len(current.about.bytes);
        }
        self.leave();
        for (_, job) in framed {
            self.refuse(job, JournalError::Unwritable(error.to_string()));
        }
    }

    /// One more that need not be waited for.
    fn handle(&self, kind: Kind) {
        if kind == Kind::Done {
            self.shared.handled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refuse(&self, job: Job, why: JournalError) {
        self.handle(job.kind);
        if why == JournalError::Full {
            let full = "the journal is full of what the ledger has to do".to_owned();
            self.shared.set_trouble(Some(full));
        }
        match job.accepted {
            Some((_, waits)) => {
                let _ = waits.send(Err(why));
            }
            None => {
                self.shared.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The current segment is added to no more.
    fn leave(&mut self) {
        let Some(Current { about, .. }) = self.current.take() else { return };
        match about.first {
            0 => drop(fs::remove_file(&about.path)),
            _ => self.closed.push_back(about),
        }
    }

    fn total(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.about.bytes);
        self.closed.iter().map(|closed| closed.bytes).sum::<u64>() + current
    }

    /// Whether so many bytes more fit, once what may go has gone. Outcomes may go one segment beyond the
    /// bound: they are what makes room.
    fn has_room(&mut self, more: u64, kind: Kind) -> bool {
        let reserve = if kind == Kind::Outcome { self.most / SEGMENTS } else { 0 };
        while self.total() + more > self.most + reserve {
            if !self.remove_oldest() {
                return false;
            }
        }
        true
    }

    /// Removes segments that are kept long enough.
    fn retain(&mut self, now: Millis) {
        while self.closed.front().is_some_and(|oldest| oldest.newest.0 < now.0 - self.keep) {
            if !self.remove_oldest() {
                break;
            }
        }
        self.shared.bytes.store(self.total(), Ordering::Relaxed);
    }

    /// Removes the oldest segment; not one with something to do, and so none behind it either, where an
    /// outcome may stand that makes sure that nothing is done again long after.
    fn remove_oldest(&mut self) -> bool {
        let Some(oldest) = self.closed.front() else { return false };
        if self.shared.has_todo(oldest.first, oldest.last) {
            return false;
        }
        if let Err(error) = fs::remove_file(&oldest.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(segment = %oldest.path.display(), %error, "cannot be removed");
            return false;
        }
        self.closed.pop_front();
        true
    }
}

#[cfg(test)]
mod tests;
