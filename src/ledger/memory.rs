//! The embedded ledger: everything in this process, gone with it, unless a [`file`](crate::ledger::file)
//! keeps what changes.
//!
//! It is the default, so that the program runs with nothing installed, and the model that judges the
//! Redis ledger. One lock a tenant; no command waits for anything but that, and the file.

mod book;
mod journal;
mod packed;
pub(in crate::ledger) mod rows;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::month::Month;
use crate::charging::profile::Purchase;
use crate::charging::units::{Millis, Seconds};
use crate::ledger::file::Keeper;
use crate::ledger::marks::{Lost, Marks, Regression, is_run_before};
use crate::ledger::memory::book::Book;
use crate::ledger::memory::rows::{Kind, Row};
use crate::ledger::state::{Block, BlockedBy, Call, Entry, Reader, Upkeep};
use crate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    Balance, BlockSet, ClockOffset, End, Ended, Extend, Extended, FinishRewrite, FinishedRewrite,
    Ledger, LedgerError, MoveReader, Moved, Page, PayerUpdate, PayerView, Position, Purchased,
    RechargeReported, Reply, ReportRecharge, Restore, Restored, SetBlock, Snapshot, Swept,
    TakeReader, Taken, TenantRecord, TenantView, block_cursor, read_block_cursor,
};

/// See the module.
#[derive(Default)]
pub struct MemoryLedger {
    offset: ClockOffset,
    marks: Arc<Marks>,
    books: Arc<RwLock<HashMap<TenantId, Arc<Mutex<Book>>>>>,
    decks: Arc<Mutex<Decks>>,
    /// Where what changes is kept, if anywhere.
    keeper: Option<Keeper>,
}

#[derive(Default)]
struct Decks {
    by_version: HashMap<String, Vec<u8>>,
    by_name: HashMap<String, String>,
    /// The commit that holds the newest change.
    last_commit: u64,
}

/// What was kept, while it is read.
#[derive(Default)]
pub(in crate::ledger) struct Books {
    by_tenant: HashMap<TenantId, Book>,
    decks: Decks,
}

impl Books {
    /// Takes a row in, as it was kept.
    pub(in crate::ledger) fn load(
        &mut self,
        tenant: &str,
        kind: Kind,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        if !matches!(kind, Kind::Deck | Kind::DeckName) {
            let tenant = TenantId::new(tenant).map_err(|error| error.to_string())?;
            let book = self.by_tenant.entry(tenant).or_insert_with(Book::noting);
            return book.load(kind, key, value);
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string());
        if kind == Kind::Deck {
            self.decks.by_version.insert(text(key)?, value.to_vec());
        } else {
            self.decks.by_name.insert(text(key)?, text(value)?);
        }
        Ok(())
    }

    /// After the last row.
    pub(in crate::ledger) fn loaded(&mut self) -> Result<(), String> {
        for (tenant, book) in &mut self.by_tenant {
            book.loaded().map_err(|why| format!("the rows of {tenant} do not agree: {why}"))?;
        }
        Ok(())
    }
}

impl MemoryLedger {
    /// An empty ledger whose clock is the system's, moved by `offset`.
    pub fn new(offset: ClockOffset) -> Self {
        MemoryLedger { offset, ..MemoryLedger::default() }
    }

    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let real = Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 4));
        self.offset.reading().at(real)
    }

    /// A ledger that begins with what was kept, and keeps what changes.
    pub(in crate::ledger) fn kept(offset: ClockOffset, books: Books, keeper: Keeper) -> Self {
        let shared = |(tenant, book)| (tenant, Arc::new(Mutex::new(book)));
        MemoryLedger {
            offset,
            marks: Arc::default(),
            books: Arc::new(RwLock::new(books.by_tenant.into_iter().map(shared).collect())),
            decks: Arc::new(Mutex::new(books.decks)),
            keeper: Some(keeper),
        }
    }

    /// Looks at a tenant's book at one instant; at an empty one where the tenant has none. What is seen is
    /// kept before it is told.
    async fn read<T: Send>(
        &self,
        tenant: &TenantId,
        look: impl FnOnce(&Book, Millis) -> T + Send,
    ) -> Result<Reply<T>, LedgerError> {
        let known = locked(self.books.read()).get(tenant).cloned();
        let book = known.unwrap_or_default();
        let (reply, commit) = {
            let book: MutexGuard<'_, Book> = locked(book.lock());
            let now = self.now();
            (Reply { now, outcome: look(&book, now) }, book.last_commit())
        };
        self.wait(commit).await.map_err(LedgerError::Unavailable)?;
        Ok(reply)
    }

    /// A tenant's book, made where there is none.
    fn book(&self, tenant: &TenantId) -> Arc<Mutex<Book>> {
        let known = locked(self.books.read()).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let new = || if self.keeper.is_some() { Book::noting() } else { Book::default() };
            let mut books = locked(self.books.write());
            books.entry(tenant.clone()).or_insert_with(|| Arc::new(Mutex::new(new()))).clone()
        })
    }

    /// Runs one command on a tenant's book, alone, at one instant, and returns once what it rests on is kept.
    async fn on<T: Send>(
        &self,
        tenant: &TenantId,
        command: impl FnOnce(&mut Book, Millis) -> T + Send,
    ) -> Result<Reply<T>, LedgerError> {
        self.admit()?;
        let book = self.book(tenant);
        let (reply, commit) = {
            let mut book: MutexGuard<'_, Book> = locked(book.lock());
            let now = self.now();
            let outcome = command(&mut book, now);
            if let Some(keeper) = &self.keeper {
                // Under the lock, so that rows are kept in the order of the commands.
                match book.take_changes() {
                    Ok(rows) if rows.is_empty() => {}
                    Ok(rows) => book.changed_in(keeper.put(tenant.as_str(), rows)),
                    Err(why) => book.changed_in(keeper.give_up(why)),
                }
            }
            (Reply { now, outcome }, book.last_commit())
        };
        self.wait(commit).await.map_err(LedgerError::Indeterminate)?;
        Ok(reply)
    }

    /// Changes the decks; likewise.
    async fn on_decks(&self, row: Row, change: impl FnOnce(&mut Decks)) -> Result<(), LedgerError> {
        self.admit()?;
        let commit = {
            let mut decks = locked(self.decks.lock());
            change(&mut decks);
            if let Some(keeper) = &self.keeper {
                decks.last_commit = keeper.put("", vec![row]);
            }
            decks.last_commit
        };
        self.wait(commit).await.map_err(LedgerError::Indeterminate)
    }

    async fn read_decks<T: Send>(
        &self,
        look: impl FnOnce(&Decks) -> T + Send,
    ) -> Result<T, LedgerError> {
        let (found, commit) = {
            let decks = locked(self.decks.lock());
            (look(&decks), decks.last_commit)
        };
        self.wait(commit).await.map_err(LedgerError::Unavailable)?;
        Ok(found)
    }

    fn admit(&self) -> Result<(), LedgerError> {
        self.keeper.as_ref().map_or(Ok(()), Keeper::admit)
    }

    async fn wait(&self, commit: u64) -> Result<(), String> {
        match &self.keeper {
            Some(keeper) => keeper.kept(commit).await,
            None => Ok(()),
        }
    }
}

/// One tenant's ledger as it once stood.
pub struct Earlier(Book);

impl MemoryLedger {
    /// What [`MemoryLedger::roll_back`] takes; for tests alone, since this ledger loses nothing by itself.
    pub fn keep(&self, tenant: &TenantId) -> Earlier {
        let book = self.book(tenant);
        let copy = locked(book.lock()).clone();
        Earlier(copy)
    }

    /// Forgets everything since.
    pub fn roll_back(&self, tenant: &TenantId, Earlier(before): &Earlier) {
        *locked(self.book(tenant).lock()) = before.clone();
    }

    /// The same books as another sidecar has them, with what that one was acknowledged; for tests alone, since
    /// one process has this ledger.
    pub fn of_another_sidecar(&self) -> MemoryLedger {
        let (books, decks) = (self.books.clone(), self.decks.clone());
        MemoryLedger {
            offset: self.offset.clone(),
            marks: Arc::default(),
            books,
            decks,
            keeper: None,
        }
    }

    /// Runs one command that is counted for this sidecar (ledger/marks.rs).
    async fn counted<T: Send>(
        &self,
        tenant: &TenantId,
        command: impl FnOnce(&mut Book, Millis) -> T + Send,
    ) -> Result<Reply<T>, LedgerError> {
        let counted = |book: &mut Book, now| {
            let (mut sidecar, known) = self.marks.sent(tenant);
            let mark = book.sequences.count(&sidecar, known).unwrap_or_else(|found| {
                self.regressed(tenant, book, now, Regression { known, found });
                let (again, known) = self.marks.sent(tenant);
                sidecar = again;
                book.sequences.count(&sidecar, known).unwrap_or(known)
            });
            ((sidecar, mark), command(book, now))
        };
        let Reply { now, outcome: ((sidecar, mark), outcome) } = self.on(tenant, counted).await?;
        // Once it is kept: what a crash takes with it was acknowledged to nobody, and is no loss.
        self.marks.acknowledge(tenant, &sidecar, mark);
        Ok(Reply { now, outcome })
    }

    fn regressed(&self, tenant: &TenantId, book: &mut Book, now: Millis, found: Regression) {
        let (about, keeps) = (self.marks.tell(&found), self.marks.replays());
        let sidecar = self.marks.sidecar();
        let raised = book.regressed(now, &sidecar, found.known, keeps, &about);
        self.marks.acknowledge(tenant, &sidecar, raised.0);
        if let Some(lost) = raised.1 {
            self.marks.lose(tenant, lost);
        }
    }
}

/// A command that panicked left its book as whole as any other: each is written by one thread, and
/// refusing every later call would harm more.
fn locked<T>(lock: Result<T, PoisonError<T>>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}

impl Ledger for MemoryLedger {
    async fn tenant(&self, tenant: &TenantId) -> Result<Reply<TenantView>, LedgerError> {
        self.read(tenant, |book, _| book.view()).await
    }

    async fn payers(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Result<Reply<Vec<PayerView>>, LedgerError> {
        self.read(tenant, |book, _| payers.iter().map(|id| book.payer_view(id)).collect()).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, LedgerError> {
        let (mut tenants, mut commit) = (vec![], 0);
        for (tenant, book) in locked(self.books.read()).iter() {
            let book = locked(book.lock());
            if book.is_known() {
                tenants.push(tenant.clone());
                commit = commit.max(book.last_commit());
            }
        }
        self.wait(commit).await.map_err(LedgerError::Unavailable)?;
        tenants.sort();
        Ok(tenants)
    }

    async fn authorize(&self, command: &Authorize) -> Result<Reply<Authorized>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.authorize(now, command)).await
    }

    async fn answer(&self, command: &Answer) -> Result<Reply<Answered>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.answer(now, &command.call)).await
    }

    async fn extend(&self, command: &Extend) -> Result<Reply<Extended>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.extend(now, command)).await
    }

    async fn end(&self, command: &End) -> Result<Reply<Ended>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.end(now, command)).await
    }

    async fn restore(&self, command: &Restore) -> Result<Reply<Restored>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.restore(now, command)).await
    }

    async fn sweep(
        &self,
        tenant: &TenantId,
        most: u32,
        ended_retention: Seconds,
    ) -> Result<Reply<Swept>, LedgerError> {
        self.on(tenant, |book, now| {
            let swept = book.sweep(now, most, ended_retention);
            Swept { lapsed: book.lapse(now), ..swept }
        })
        .await
    }

    async fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Result<Reply<Applied>, LedgerError> {
        self.counted(tenant, |book, now| book.apply_tenant(now, record, over)).await
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Result<Reply<Applied>, LedgerError> {
        self.counted(tenant, |book, now| book.apply_payers(now, month, updates)).await
    }

    async fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> Result<Reply<Purchased>, LedgerError> {
        let context = serde_json::to_vec(&purchase.payment).unwrap_or_default();
        self.counted(tenant, |book, now| book.purchase(now, purchase, expires_at, context)).await
    }

    async fn report_recharge(
        &self,
        report: &ReportRecharge,
    ) -> Result<Reply<RechargeReported>, LedgerError> {
        self.counted(&report.tenant, |book, now| {
            book.report_recharge(now, &report.key, &report.outcome)
        })
        .await
    }

    async fn put_deck(&self, version: &str, csv: &[u8]) -> Result<(), LedgerError> {
        let key = version.as_bytes().to_vec();
        let row = Row { kind: Kind::Deck, key, value: Some(csv.to_vec()) };
        self.on_decks(row, |decks| {
            decks.by_version.insert(version.to_owned(), csv.to_vec());
        })
        .await
    }

    async fn deck(&self, version: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.read_decks(|decks| decks.by_version.get(version).cloned()).await
    }

    async fn name_deck(&self, name: &str, version: &str) -> Result<(), LedgerError> {
        let (key, value) = (name.as_bytes().to_vec(), version.as_bytes().to_vec());
        let row = Row { kind: Kind::DeckName, key, value: Some(value) };
        self.on_decks(row, |decks| {
            decks.by_name.insert(name.to_owned(), version.to_owned());
        })
        .await
    }

    async fn named_deck(&self, name: &str) -> Result<Option<String>, LedgerError> {
        self.read_decks(|decks| decks.by_name.get(name).cloned()).await
    }

    async fn balance(&self, tenant: &TenantId) -> Result<Reply<Balance>, LedgerError> {
        self.read(tenant, |book, _| book.balance()).await
    }

    async fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Result<Reply<Position>, LedgerError> {
        self.read(tenant, |book, now| book.position(now, payer, call, month, families)).await
    }

    async fn call(&self, tenant: &TenantId, call: &CallId) -> Result<Option<Call>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.call(call)).await?.outcome)
    }

    async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<Page<(CallId, Call)>, LedgerError> {
        let start = cursor.map(read_open_cursor).transpose()?;
        Ok(self
            .read(tenant, |book, _| {
                let mut open = book.open_calls(start.as_ref());
                let mut last = None;
                let mut items = vec![];
                for (key, call) in open.by_ref().take(most) {
                    last = Some(format!("{}-{}", key.0, key.1));
                    items.push((key.1.clone(), call));
                }
                Page { items, next: open.next().and(last) }
            })
            .await?
            .outcome)
    }

    async fn journal(
        &self,
        tenant: &TenantId,
        before: Option<&str>,
        most: usize,
    ) -> Result<Page<Entry>, LedgerError> {
        let before = before.map(read_cursor).transpose()?;
        Ok(self
            .read(tenant, |book, _| {
                let all = book.journal();
                let end = before.map_or(all.len(), |before| all.first(|n, _| n >= before));
                let page = all.range(end.saturating_sub(most)..end);
                let mut oldest = None;
                let newest_first = page.rev().map(|(number, entry)| {
                    oldest = Some(number.to_string());
                    entry.open()
                });
                let items = newest_first.collect();
                Page { items, next: oldest.filter(|_| end > most) }
            })
            .await?
            .outcome)
    }

    async fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<(String, Entry)>, LedgerError> {
        let after = after.map(read_cursor).transpose()?.unwrap_or_default();
        Ok(self
            .read(tenant, |book, _| {
                let all = book.journal();
                let start = all.after(after);
                let end = start.saturating_add(most).min(all.len());
                let page = all.range(start..end);
                let items: Vec<_> = page.map(|(n, entry)| (n.to_string(), entry.open())).collect();
                let last = items.last().map(|(cursor, _)| cursor.clone());
                Page { items, next: last.filter(|_| end < all.len()) }
            })
            .await?
            .outcome)
    }

    async fn history_since(
        &self,
        tenant: &TenantId,
        at: Millis,
    ) -> Result<Option<String>, LedgerError> {
        // Entries stand in the order of their instants, as long as the clock was not set back.
        let before = |book: &Book| {
            let all = book.journal();
            let place = all.first(|_, entry| entry.open().at >= at);
            let (number, _) = all.range(place.checked_sub(1)?..place).next()?;
            Some(number.to_string())
        };
        Ok(self.read(tenant, |book, _| before(book)).await?.outcome)
    }

    async fn calls(
        &self,
        tenant: &TenantId,
        _cursor: Option<&str>,
        _most: usize,
    ) -> Result<Page<(CallId, Call)>, LedgerError> {
        let items = self.read(tenant, |book, _| book.calls().collect()).await?.outcome;
        Ok(Page { items, next: None })
    }

    async fn are_kept(
        &self,
        tenant: &TenantId,
        calls: &[CallId],
    ) -> Result<Vec<bool>, LedgerError> {
        let are = |book: &Book| calls.iter().map(|call| book.is_kept(call)).collect();
        Ok(self.read(tenant, |book, _| are(book)).await?.outcome)
    }

    async fn upkeep(&self, tenant: &TenantId) -> Result<Reply<Upkeep>, LedgerError> {
        self.read(tenant, |book, _| book.upkeep()).await
    }

    async fn begin_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
    ) -> Result<Reply<bool>, LedgerError> {
        self.on(tenant, |book, now| book.begin_rewrite(now, token)).await
    }

    async fn add_rewritten(
        &self,
        tenant: &TenantId,
        token: &str,
        entries: &[(String, Entry)],
    ) -> Result<bool, LedgerError> {
        let read = |(cursor, entry): &(String, Entry)| Ok((read_cursor(cursor)?, entry.clone()));
        let entries = entries.iter().map(read).collect::<Result<Vec<_>, LedgerError>>()?;
        let add = |book: &mut Book, now| book.add_rewritten(now, token, entries.into_iter());
        Ok(self.on(tenant, add).await?.outcome)
    }

    async fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> Result<Reply<FinishedRewrite>, LedgerError> {
        let until = finish.read_until.as_deref().map(read_cursor).transpose()?.unwrap_or_default();
        self.counted(tenant, |book, now| book.finish_rewrite(now, finish, until)).await
    }

    async fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> Result<(), LedgerError> {
        let abandon = |book: &mut Book, _| book.abandon_rewrite(token, trimmed, erased);
        self.on(tenant, abandon).await?;
        Ok(())
    }

    async fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> Result<bool, LedgerError> {
        Ok(self.on(tenant, |book, _| book.replace_context(call, from, to)).await?.outcome)
    }

    async fn record(&self, tenant: &TenantId) -> Result<Reply<Option<TenantRecord>>, LedgerError> {
        self.read(tenant, |book, _| book.record()).await
    }

    async fn take_reader(&self, command: &TakeReader) -> Result<Reply<Taken>, LedgerError> {
        self.on(&command.tenant, |book, now| book.take_reader(now, command)).await
    }

    async fn move_reader(&self, command: &MoveReader) -> Result<Reply<Moved>, LedgerError> {
        self.on(&command.tenant, |book, now| book.move_reader(now, command)).await
    }

    async fn readers(
        &self,
        tenant: &TenantId,
    ) -> Result<Reply<Vec<(String, Reader)>>, LedgerError> {
        self.read(tenant, |book, _| book.readers()).await
    }

    async fn snapshot(&self, tenant: &TenantId) -> Result<Reply<Snapshot>, LedgerError> {
        self.read(tenant, |book, _| book.snapshot()).await
    }

    async fn set_block(&self, command: &SetBlock) -> Result<Reply<BlockSet>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.set_block(now, command)).await
    }

    async fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<(PayerId, BlockedBy, Block)>, LedgerError> {
        let after = after.map(read_block_cursor).transpose()?;
        Ok(self
            .read(tenant, |book, _| {
                let mut blocks = book.blocks(after.as_ref());
                let items: Vec<_> = blocks.by_ref().take(most).collect();
                let last = items.last().map(|(payer, by, _)| block_cursor(payer, *by));
                Page { items, next: blocks.next().and(last) }
            })
            .await?
            .outcome)
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.admit()
    }

    fn marks(&self) -> Arc<Marks> {
        self.marks.clone()
    }

    async fn lost(&self, tenant: &TenantId) -> Result<Option<Lost>, LedgerError> {
        let look = |book: &mut Book, now| {
            let (sidecar, known) = self.marks.sent(tenant);
            let (found, missing) = book.sequences.of(&sidecar);
            if found.is_behind(known) {
                self.regressed(tenant, book, now, Regression { known, found });
            } else if let Some(lost) = missing {
                self.marks.lose(tenant, lost);
            }
        };
        self.on(tenant, look).await?;
        let losses = self.marks.losses();
        Ok(losses.into_iter().find(|(of, _)| of == tenant).map(|(_, lost)| lost))
    }

    async fn replayed(&self, tenant: &TenantId, lost: Lost) -> Result<(), LedgerError> {
        self.on(tenant, |book, _| book.sequences.replayed(&self.marks.sidecar(), lost)).await?;
        self.marks.replayed(tenant, lost);
        Ok(())
    }

    async fn forget_runs(&self, tenant: &TenantId, before: Millis) -> Result<usize, LedgerError> {
        let forget =
            |book: &mut Book, _| book.sequences.forget(|sidecar| is_run_before(sidecar, before));
        Ok(self.on(tenant, forget).await?.outcome)
    }

    async fn adjust_balance(
        &self,
        command: &AdjustBalance,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.adjust_balance(now, command)).await
    }

    async fn adjust_settlement(
        &self,
        command: &AdjustSettlement,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        self.counted(&command.tenant, |book, now| book.adjust_settlement(now, command)).await
    }
}

fn read_open_cursor(cursor: &str) -> Result<(Millis, CallId), LedgerError> {
    let parts = cursor
        .split_once('-')
        .and_then(|(at, call)| Some((Millis(at.parse().ok()?), CallId::new(call).ok()?)));
    parts.ok_or_else(|| bad_cursor(cursor))
}

fn read_cursor(cursor: &str) -> Result<u64, LedgerError> {
    cursor.parse().map_err(|_| bad_cursor(cursor))
}

fn bad_cursor(cursor: &str) -> LedgerError {
    LedgerError::BadCursor(cursor.to_owned())
}
