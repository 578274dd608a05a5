//! The embedded ledger in a file: what it has answered survives the process and the machine.
//!
//! The books are those of [`memory`](crate::ledger::memory), so that both behave the same. Here is where
//! they are kept: a transactional store (redb) with a row for every call, bucket, account and journal entry.
//! The rows that a command changed are committed before it is answered; commands that come while a commit is
//! under way share the next one. Nothing is answered, not even a reading, before everything that it rests on
//! is on disk.
//!
//! Rows and no log of commands: a start reads them and computes nothing anew, so no later release can come to
//! another charge than the one that was answered, and nobody waits for checkpoints.
//!
//! A commit that fails ends the writing: what waits for it is indeterminate, what comes after is refused, and
//! the next start goes on from the last commit that is whole. What the disk holds after a failed sync nobody
//! knows; only reading it again tells.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition, TableError,
};
use tokio::sync::watch;

use crate::ledger::memory::rows::{Kind, Row};
use crate::ledger::memory::{Books, MemoryLedger};
use crate::ledger::{ClockOffset, LedgerError};

/// Of the rows; another release may have another.
const FORMAT: u64 = 1;

/// Tenant, kind and key. Decks have no tenant.
const ROWS: TableDefinition<(&str, u8, &[u8]), &[u8]> = TableDefinition::new("rows");

/// The format of the rows.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("tollgate");

/// Of pages that the store keeps in memory. It reads them at the start only: the books are in memory.
const CACHE_BYTES: usize = 32 << 20;

/// Most bytes of rows that wait for a disk; beyond that nothing is accepted.
const MOST_WAITING: usize = 64 << 20;

/// Why a ledger file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody makes it, since a wrong path would begin an empty ledger.
    #[error("the folder of the ledger file {} does not exist", .0.display())]
    NoFolder(PathBuf),
    /// The file cannot be read, made, or written.
    #[error("cannot use the ledger file {}: {}", .0.display(), .1)]
    Unusable(PathBuf, io::Error),
    /// Two that write the same balances would each overwrite the other's.
    #[error("the ledger file {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It may hold anything.
    #[error("{} is no ledger file of Tollgate", .0.display())]
    Foreign(PathBuf),
    /// Of an earlier or a later release.
    #[error("the ledger file {} has format {found}; this release reads format {FORMAT}", .path.display())]
    OtherFormat {
        /// Of the file.
        path: PathBuf,
        /// What it has.
        found: u64,
    },
    /// Nothing is guessed: the balances are to be had from a backup.
    #[error("the ledger file {} is damaged: {}", .0.display(), .1)]
    Damaged(PathBuf, String),
}

/// Opens the ledger in the file, which is made where there is none; its folder must be there. Blocks until
/// all of it is read.
pub fn open(path: &Path, offset: ClockOffset) -> Result<MemoryLedger, OpenError> {
    let unusable = |error| OpenError::Unusable(path.to_owned(), error);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(path.to_owned()));
    }
    if !path.exists() {
        make(path, folder)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(unusable)?;
    let backend = FileBackend::new(file).map_err(|error| refused(path, error))?;
    open_on(backend, path, offset)
}

/// Makes an empty ledger and gives it its name once it is whole: a file that was being made when the power went
/// is not taken for one that is damaged.
fn make(path: &Path, folder: &Path) -> Result<(), OpenError> {
    let unusable = |error| OpenError::Unusable(path.to_owned(), error);
    let mut name = path.as_os_str().to_owned();
    // Its own, so that nobody names what another has not finished.
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let gone = fs::remove_file(&new);
    gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(unusable)?;
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&new).map_err(unusable)?;
    let backend = FileBackend::new(file).map_err(|error| refused(path, error))?;
    drop(Store::open(backend, path)?);
    // Fails where another process was faster, whose file stays.
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
        _ => fs::remove_file(&new).map_err(unusable)?,
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)
}

fn open_on(
    backend: impl StorageBackend,
    path: &Path,
    offset: ClockOffset,
) -> Result<MemoryLedger, OpenError> {
    // The store may panic on pages that it has never written.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(backend, path)?;
        let books = store.books(path)?;
        Ok((store, books))
    }));
    let damaged = |_| OpenError::Damaged(path.to_owned(), "it cannot be read".to_owned());
    let (store, books) = opened.map_err(damaged)??;
    let keeper = Keeper::start(store, path);
    Ok(MemoryLedger::kept(
        offset,
        books,
        keeper.map_err(|e| OpenError::Unusable(path.to_owned(), e))?,
    ))
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            OpenError::Foreign(path)
        }
        DatabaseError::Storage(StorageError::Io(error)) => OpenError::Unusable(path, error),
        error => OpenError::Damaged(path, error.to_string()),
    }
}

/// The file.
struct Store {
    database: Database,
}

impl Store {
    fn open(backend: impl StorageBackend, path: &Path) -> Result<Store, OpenError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database =
            builder.create_with_backend(backend).map_err(|error| refused(path, error))?;
        let store = Store { database };
        let damaged = |error: redb::Error| refused_later(path, error);
        match store.format().map_err(damaged)? {
            Found::Nothing => store.begin().map_err(damaged)?,
            Found::Foreign => return Err(OpenError::Foreign(path.to_owned())),
            Found::Format(FORMAT) => {}
            Found::Format(found) => {
                return Err(OpenError::OtherFormat { path: path.to_owned(), found });
            }
        }
        Ok(store)
    }

    fn format(&self) -> Result<Found, redb::Error> {
        let reading = self.database.begin_read()?;
        let about = match reading.open_table(ABOUT) {
            Ok(about) => about,
            // Made, and stopped before the first commit.
            Err(TableError::TableDoesNotExist(_)) if reading.list_tables()?.next().is_none() => {
                return Ok(Found::Nothing);
            }
            Err(TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Ok(Found::Foreign),
        };
        Ok(about.get("format")?.map_or(Found::Foreign, |format| Found::Format(format.value())))
    }

    fn begin(&self) -> Result<(), redb::Error> {
        let writing = self.database.begin_write()?;
        writing.open_table(ABOUT)?.insert("format", FORMAT)?;
        writing.open_table(ROWS)?;
        Ok(writing.commit()?)
    }

    /// Everything that is in it.
    fn books(&self, path: &Path) -> Result<Books, OpenError> {
        let damaged = |error: redb::Error| refused_later(path, error);
        let reading = self.database.begin_read().map_err(|error| damaged(error.into()))?;
        let rows = reading.open_table(ROWS).map_err(|error| damaged(error.into()))?;
        let mut books = Books::default();
        for row in rows.iter().map_err(|error| damaged(error.into()))? {
            let (key, value) = row.map_err(|error| damaged(error.into()))?;
            let (tenant, number, key) = key.value();
            let taken = Kind::of(number).ok_or_else(|| "of no known kind".to_owned());
            let taken = taken.and_then(|kind| books.load(tenant, kind, key, value.value()));
            taken.map_err(|why| {
                let key = String::from_utf8_lossy(key);
                let row = format!("row {number} {key:?} of {tenant:?} cannot be understood: {why}");
                OpenError::Damaged(path.to_owned(), row)
            })?;
        }
        books.loaded().map_err(|why| OpenError::Damaged(path.to_owned(), why))?;
        Ok(books)
    }

    /// Writes the rows and returns once they are on disk.
    fn commit(&self, rows: &Rows) -> Result<(), redb::Error> {
        let writing = self.database.begin_write()?;
        let mut table = writing.open_table(ROWS)?;
        for ((tenant, kind, key), value) in rows {
            let key = (tenant.as_str(), *kind as u8, key.as_slice());
            match value {
                Some(value) => table.insert(key, value.as_slice())?,
                None => table.remove(key)?,
            };
        }
        drop(table);
        Ok(writing.commit()?)
    }
}

enum Found {
    Nothing,
    Foreign,
    Format(u64),
}

fn refused_later(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(error) => OpenError::Unusable(path.to_owned(), error),
        error => OpenError::Damaged(path.to_owned(), error.to_string()),
    }
}

/// The newest value of each row that waits.
type Rows = BTreeMap<(String, Kind, Vec<u8>), Option<Vec<u8>>>;

#[derive(Default)]
struct Waiting {
    rows: Rows,
    bytes: usize,
    /// The commit that they will be in, from 1.
    commit: u64,
    closed: bool,
}

/// How far the file is.
#[derive(Clone, Default)]
struct Progress {
    /// The last commit that is on disk.
    kept: u64,
    /// Why there will be no other.
    failed: Option<Arc<str>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done under the lock leaves it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of the next commit, and its number; `None` at the end.
    fn take(&self) -> Option<(u64, Rows)> {
        let waiting = self.waiting();
        let idle = |waiting: &mut Waiting| waiting.rows.is_empty() && !waiting.closed;
        let mut waiting =
            self.arrived.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        if waiting.rows.is_empty() {
            return None;
        }
        let commit = waiting.commit;
        waiting.commit += 1;
        waiting.bytes = 0;
        Some((commit, std::mem::take(&mut waiting.rows)))
    }

    fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_one();
    }
}

/// Keeps what changes: the way from the books to the thread that writes the file.
pub(in crate::ledger) struct Keeper {
    queue: Arc<Queue>,
    told: watch::Sender<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(store: Store, path: &Path) -> io::Result<Keeper> {
        let queue = Arc::new(Queue::default());
        queue.waiting().commit = 1;
        let told = watch::Sender::new(Progress::default());
        let writer =
            Writer { store, queue: queue.clone(), told: told.clone(), path: path.to_owned() };
        let thread = thread::Builder::new().name("ledger-file".to_owned());
        let thread = Some(thread.spawn(move || writer.run())?);
        Ok(Keeper { queue, told, thread })
    }

    /// Whether a command may be carried out.
    pub(in crate::ledger) fn admit(&self) -> Result<(), LedgerError> {
        if let Some(why) = &self.told.borrow().failed {
            return Err(LedgerError::Unavailable(why.to_string()));
        }
        if self.queue.waiting().bytes > MOST_WAITING {
            let why = "too much waits to be written to the ledger file".to_owned();
            return Err(LedgerError::Unavailable(why));
        }
        Ok(())
    }

    /// Takes rows to be written, those of one tenant in the order of its commands; the number of the commit
    /// that they will be in.
    pub(in crate::ledger) fn put(&self, tenant: &str, rows: Vec<Row>) -> u64 {
        let mut waiting = self.queue.waiting();
        let commit = waiting.commit;
        // After a failure there is no other commit, and nobody is told that there was.
        if waiting.closed {
            return commit;
        }
        let wakes = waiting.rows.is_empty();
        for Row { kind, key, value } in rows {
            waiting.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            waiting.rows.insert((tenant.to_owned(), kind, key), value);
        }
        drop(waiting);
        if wakes {
            self.queue.arrived.notify_one();
        }
        commit
    }

    /// Ends the writing, since what changed cannot be written; the number of a commit that never comes.
    pub(in crate::ledger) fn give_up(&self, why: String) -> u64 {
        self.told.send_modify(|told| told.failed = Some(why.into()));
        self.queue.close();
        u64::MAX
    }

    /// Returns once a commit is on disk; why it will never be.
    pub(in crate::ledger) async fn kept(&self, commit: u64) -> Result<(), String> {
        if self.told.borrow().kept >= commit {
            return Ok(());
        }
        let mut progress = self.told.subscribe();
        let arrived = progress.wait_for(|told| told.kept >= commit || told.failed.is_some()).await;
        let ended = || "the thread that writes the ledger file has ended".to_owned();
        let told = arrived.map_err(|_| ended())?;
        match &told.failed {
            Some(why) if told.kept < commit => Err(why.to_string()),
            _ => Ok(()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread that writes.
struct Writer {
    store: Store,
    queue: Arc<Queue>,
    told: watch::Sender<Progress>,
    path: PathBuf,
}

impl Writer {
    fn run(self) {
        while let Some((commit, rows)) = self.queue.take() {
            let written = catch_unwind(AssertUnwindSafe(|| self.store.commit(&rows)));
            let failed = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the store panicked".to_owned()),
            };
            let Some(why) = failed else {
                self.told.send_modify(|told| told.kept = commit);
                continue;
            };
            let file = self.path.display();
            tracing::error!(%file, why,
                "the ledger file cannot be written; nothing is accepted until this process is started anew");
            let why = format!("the ledger file {file} cannot be written: {why}");
            self.told.send_modify(|told| told.failed = Some(why.into()));
            self.queue.close();
            break;
        }
    }
}

/// What a fuzzer is let loose on: a row as it is read from the file; the first byte is its kind.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let [number, bytes @ ..] = bytes else { return };
    let Some(kind) = Kind::of(*number) else { return };
    let mut books = Books::default();
    let key: &[u8] = if kind == Kind::Entry { &[0; 8] } else { b"alice:file" };
    if books.load("contoso", kind, key, bytes).is_ok() {
        let _ = books.loaded();
    }
}
