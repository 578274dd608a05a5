//! The embedded ledger: everything in this process, gone with it.
//!
//! It is the default, so that the program runs with nothing installed, and the model that judges the
//! Redis ledger. One lock a tenant; no command waits for anything but that.

mod book;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::month::Month;
use crate::charging::profile::Purchase;
use crate::charging::units::{Millis, Seconds};
use crate::ledger::marks::{Lost, Marks, Regression};
use crate::ledger::memory::book::Book;
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
    books: RwLock<HashMap<TenantId, Arc<Mutex<Book>>>>,
    decks: Mutex<Decks>,
}

#[derive(Default)]
struct Decks {
    by_version: HashMap<String, Vec<u8>>,
    by_name: HashMap<String, String>,
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

    /// Looks at a tenant's book at one instant; at an empty one where the tenant has none.
    fn read<T>(&self, tenant: &TenantId, look: impl FnOnce(&Book, Millis) -> T) -> Reply<T> {
        let known = locked(self.books.read()).get(tenant).cloned();
        let book = known.unwrap_or_default();
        let book: MutexGuard<'_, Book> = locked(book.lock());
        let now = self.now();
        Reply { now, outcome: look(&book, now) }
    }

    /// Runs one command on a tenant's book, alone, at one instant.
    fn on<T>(&self, tenant: &TenantId, command: impl FnOnce(&mut Book, Millis) -> T) -> Reply<T> {
        let known = locked(self.books.read()).get(tenant).cloned();
        let book = known.unwrap_or_else(|| {
            locked(self.books.write()).entry(tenant.clone()).or_default().clone()
        });
        let mut book: MutexGuard<'_, Book> = locked(book.lock());
        let now = self.now();
        Reply { now, outcome: command(&mut book, now) }
    }
}

/// One tenant's ledger as it once stood.
pub struct Kept(Book);

impl MemoryLedger {
    /// What [`MemoryLedger::roll_back`] takes; for tests alone, since this ledger loses nothing by itself.
    pub fn keep(&self, tenant: &TenantId) -> Kept {
        self.read(tenant, |book, _| Kept(book.clone())).outcome
    }

    /// Forgets everything since.
    pub fn roll_back(&self, tenant: &TenantId, Kept(before): &Kept) {
        self.on(tenant, |book, _| *book = before.clone());
    }

    /// Runs one command that is counted for this sidecar (ledger/marks.rs).
    fn counted<T>(
        &self,
        tenant: &TenantId,
        command: impl FnOnce(&mut Book, Millis) -> T,
    ) -> Reply<T> {
        self.on(tenant, |book, now| {
            let (sidecar, known) = self.marks.sent(tenant);
            let mark = book.sequences.count(&sidecar, known).unwrap_or_else(|found| {
                self.regressed(tenant, book, now, Regression { known, found });
                let (sidecar, known) = self.marks.sent(tenant);
                book.sequences.count(&sidecar, known).unwrap_or(known)
            });
            self.marks.acknowledge(tenant, mark);
            command(book, now)
        })
    }

    fn regressed(&self, tenant: &TenantId, book: &mut Book, now: Millis, found: Regression) {
        let (about, keeps) = (self.marks.tell(&found), self.marks.replays());
        let raised = book.regressed(now, &self.marks.sidecar(), found.known, keeps, &about);
        self.marks.acknowledge(tenant, raised.0);
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
        Ok(self.read(tenant, |book, _| book.view()))
    }

    async fn payers(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Result<Reply<Vec<PayerView>>, LedgerError> {
        Ok(self.read(tenant, |book, _| payers.iter().map(|id| book.payer_view(id)).collect()))
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, LedgerError> {
        let books = locked(self.books.read());
        let known = books.iter().filter(|(_, book)| locked(book.lock()).is_known());
        let mut tenants: Vec<_> = known.map(|(tenant, _)| tenant.clone()).collect();
        tenants.sort();
        Ok(tenants)
    }

    async fn authorize(&self, command: &Authorize) -> Result<Reply<Authorized>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.authorize(now, command)))
    }

    async fn answer(&self, command: &Answer) -> Result<Reply<Answered>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.answer(now, &command.call)))
    }

    async fn extend(&self, command: &Extend) -> Result<Reply<Extended>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.extend(now, command)))
    }

    async fn end(&self, command: &End) -> Result<Reply<Ended>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.end(now, command)))
    }

    async fn restore(&self, command: &Restore) -> Result<Reply<Restored>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.restore(now, command)))
    }

    async fn sweep(
        &self,
        tenant: &TenantId,
        most: u32,
        ended_retention: Seconds,
    ) -> Result<Reply<Swept>, LedgerError> {
        Ok(self.on(tenant, |book, now| {
            let swept = book.sweep(now, most, ended_retention);
            Swept { lapsed: book.lapse(now), ..swept }
        }))
    }

    async fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Result<Reply<Applied>, LedgerError> {
        Ok(self.counted(tenant, |book, now| book.apply_tenant(now, record, over)))
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Result<Reply<Applied>, LedgerError> {
        Ok(self.counted(tenant, |book, now| book.apply_payers(now, month, updates)))
    }

    async fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> Result<Reply<Purchased>, LedgerError> {
        let context = serde_json::to_vec(&purchase.payment).unwrap_or_default();
        Ok(self.counted(tenant, |book, now| book.purchase(now, purchase, expires_at, context)))
    }

    async fn report_recharge(
        &self,
        report: &ReportRecharge,
    ) -> Result<Reply<RechargeReported>, LedgerError> {
        Ok(self.counted(&report.tenant, |book, now| {
            book.report_recharge(now, &report.key, &report.outcome)
        }))
    }

    async fn put_deck(&self, version: &str, csv: &[u8]) -> Result<(), LedgerError> {
        locked(self.decks.lock()).by_version.insert(version.to_owned(), csv.to_vec());
        Ok(())
    }

    async fn deck(&self, version: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(locked(self.decks.lock()).by_version.get(version).cloned())
    }

    async fn name_deck(&self, name: &str, version: &str) -> Result<(), LedgerError> {
        locked(self.decks.lock()).by_name.insert(name.to_owned(), version.to_owned());
        Ok(())
    }

    async fn named_deck(&self, name: &str) -> Result<Option<String>, LedgerError> {
        Ok(locked(self.decks.lock()).by_name.get(name).cloned())
    }

    async fn balance(&self, tenant: &TenantId) -> Result<Reply<Balance>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.balance()))
    }

    async fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Result<Reply<Position>, LedgerError> {
        Ok(self.read(tenant, |book, now| book.position(now, payer, call, month, families)))
    }

    async fn call(&self, tenant: &TenantId, call: &CallId) -> Result<Option<Call>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.call(call)).outcome)
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
                let mut open = book
                    .open_calls()
                    .skip_while(|(key, _)| start.as_ref().is_some_and(|s| *key <= s));
                let mut last = None;
                let mut items = vec![];
                for (key, call) in open.by_ref().take(most) {
                    last = Some(format!("{}-{}", key.0, key.1));
                    items.push((key.1.clone(), call.clone()));
                }
                Page { items, next: open.next().and(last) }
            })
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
                let end = before.map_or(all.len(), |b| all.partition_point(|(n, _)| *n < b));
                let page = &all[end.saturating_sub(most)..end];
                Page {
                    items: page.iter().rev().map(|(_, entry)| entry.clone()).collect(),
                    next: page.first().filter(|_| end > most).map(|(n, _)| n.to_string()),
                }
            })
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
                let start = all.partition_point(|(n, _)| *n <= after);
                let page = &all[start..start.saturating_add(most).min(all.len())];
                let more = start + page.len() < all.len();
                Page {
                    items: page.iter().map(|(n, entry)| (n.to_string(), entry.clone())).collect(),
                    next: page.last().filter(|_| more).map(|(n, _)| n.to_string()),
                }
            })
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
            let place = all.partition_point(|(_, entry)| entry.at < at);
            Some(all.get(place.checked_sub(1)?)?.0.to_string())
        };
        Ok(self.read(tenant, |book, _| before(book)).outcome)
    }

    async fn calls(
        &self,
        tenant: &TenantId,
        _cursor: Option<&str>,
        _most: usize,
    ) -> Result<Page<(CallId, Call)>, LedgerError> {
        let all = |book: &Book| book.calls().map(|(id, call)| (id.clone(), call.clone())).collect();
        let items = self.read(tenant, |book, _| all(book)).outcome;
        Ok(Page { items, next: None })
    }

    async fn are_kept(
        &self,
        tenant: &TenantId,
        calls: &[CallId],
    ) -> Result<Vec<bool>, LedgerError> {
        let are = |book: &Book| calls.iter().map(|call| book.is_kept(call)).collect();
        Ok(self.read(tenant, |book, _| are(book)).outcome)
    }

    async fn upkeep(&self, tenant: &TenantId) -> Result<Reply<Upkeep>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.upkeep()))
    }

    async fn begin_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
    ) -> Result<Reply<bool>, LedgerError> {
        Ok(self.on(tenant, |book, now| book.begin_rewrite(now, token)))
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
        Ok(self.on(tenant, add).outcome)
    }

    async fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> Result<Reply<FinishedRewrite>, LedgerError> {
        let until = finish.read_until.as_deref().map(read_cursor).transpose()?.unwrap_or_default();
        Ok(self.on(tenant, |book, now| book.finish_rewrite(now, finish, until)))
    }

    async fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> Result<(), LedgerError> {
        self.on(tenant, |book, _| book.abandon_rewrite(token, trimmed, erased));
        Ok(())
    }

    async fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> Result<bool, LedgerError> {
        Ok(self.on(tenant, |book, _| book.replace_context(call, from, to)).outcome)
    }

    async fn record(&self, tenant: &TenantId) -> Result<Reply<Option<TenantRecord>>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.record()))
    }

    async fn take_reader(&self, command: &TakeReader) -> Result<Reply<Taken>, LedgerError> {
        Ok(self.on(&command.tenant, |book, now| book.take_reader(now, command)))
    }

    async fn move_reader(&self, command: &MoveReader) -> Result<Reply<Moved>, LedgerError> {
        Ok(self.on(&command.tenant, |book, now| book.move_reader(now, command)))
    }

    async fn readers(
        &self,
        tenant: &TenantId,
    ) -> Result<Reply<Vec<(String, Reader)>>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.readers()))
    }

    async fn snapshot(&self, tenant: &TenantId) -> Result<Reply<Snapshot>, LedgerError> {
        Ok(self.read(tenant, |book, _| book.snapshot()))
    }

    async fn set_block(&self, command: &SetBlock) -> Result<Reply<BlockSet>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.set_block(now, command)))
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
            .outcome)
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        Ok(())
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
        self.on(tenant, look);
        let losses = self.marks.losses();
        Ok(losses.into_iter().find(|(of, _)| of == tenant).map(|(_, lost)| lost))
    }

    async fn replayed(&self, tenant: &TenantId, lost: Lost) -> Result<(), LedgerError> {
        self.on(tenant, |book, _| book.sequences.replayed(&self.marks.sidecar(), lost));
        self.marks.replayed(tenant, lost);
        Ok(())
    }

    async fn adjust_balance(
        &self,
        command: &AdjustBalance,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.adjust_balance(now, command)))
    }

    async fn adjust_settlement(
        &self,
        command: &AdjustSettlement,
    ) -> Result<Reply<Adjusted>, LedgerError> {
        Ok(self.counted(&command.tenant, |book, now| book.adjust_settlement(now, command)))
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
