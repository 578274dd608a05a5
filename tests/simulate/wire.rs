//! What lies between a sidecar and its ledger: a wire that loses, delays, repeats and reorders.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tollgate::charging::ids::{CallId, PayerId, TenantId};
use tollgate::charging::month::Month;
use tollgate::charging::profile::Purchase;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::ledger::marks::{Lost, Marks};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::{Block, BlockedBy, Call, Entry, Reader, Upkeep};
use tollgate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    Balance, BlockSet, End, Ended, Extend, Extended, FinishRewrite, FinishedRewrite, Ledger,
    LedgerError, MoveReader, Moved, Page, PayerUpdate, PayerView, Position, Purchased,
    RechargeReported, Reply, ReportRecharge, Restore, Restored, SetBlock, Snapshot, Swept,
    TakeReader, Taken, TenantRecord, TenantView,
};

use crate::world::{Away, World};

type Answers<T> = Result<T, LedgerError>;
type Running<T> = Pin<Box<dyn Future<Output = Answers<T>> + Send>>;

/// How long a ledger's own client waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What befalls one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Refused at once: it never arrived, and the sidecar knows.
    Refused,
    /// It never arrived, and nobody knows.
    LostRequest,
    /// It was carried out, and nobody knows.
    LostReply,
    /// It takes so long to arrive, and its answer so long to return.
    Slow(Duration, Duration),
    /// It is given up, and carried out after that.
    Late(Duration),
    /// It is carried out now and once more.
    Twice(Duration),
}

impl Fault {
    /// Its name in the list of fault points.
    pub fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Refused => "connection refused",
            Fault::LostRequest => "request lost",
            Fault::LostReply => "reply lost",
            Fault::Slow(..) => "slow, overtaken",
            Fault::Late(_) => "late, given up before",
            Fault::Twice(_) => "delivered twice",
        }
    }
}

/// A sidecar's connection to the ledger; see the module.
pub struct Wire {
    world: Arc<World>,
    /// The books, as this sidecar knows them.
    store: Arc<MemoryLedger>,
    alive: AtomicBool,
}

impl Wire {
    pub fn new(world: &Arc<World>) -> Wire {
        let store = Arc::new(world.store.of_another_sidecar());
        Wire { world: world.clone(), store, alive: AtomicBool::new(true) }
    }

    /// Where everything is found that this sidecar was acknowledged.
    pub fn store(&self) -> &Arc<MemoryLedger> {
        &self.store
    }

    /// The sidecar is killed: nothing leaves it any more. What has left it still arrives.
    pub fn cut(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn check(&self) -> Answers<()> {
        match self.alive.load(Ordering::Relaxed) {
            true => Ok(()),
            // Not to be tried again: ends the tasks of a sidecar that is no more.
            false => Err(LedgerError::Corrupt("the sidecar is no more".to_owned())),
        }
    }

    /// A command that arrives while it is waited for, or not at all.
    async fn ask<T>(
        &self,
        verb: &'static str,
        command: impl Future<Output = Answers<T>> + Send,
    ) -> Answers<T> {
        self.check()?;
        let era = self.world.era();
        match self.world.fault(verb, false) {
            Fault::Refused => Err(unreachable()),
            Fault::LostRequest => silence().await,
            Fault::LostReply => {
                let done = self.world.arrive(command).await;
                done.and(silence().await)
            }
            Fault::Slow(there, back) => {
                sleep(there).await;
                self.check()?;
                self.world.is_of_this(era)?;
                let done = self.world.arrive(command).await;
                sleep(back).await;
                done
            }
            Fault::None | Fault::Late(_) | Fault::Twice(_) => self.world.arrive(command).await,
        }
    }

    /// A command with a key: it may also arrive when nobody waits for it any more, and twice.
    async fn send<C: Clone + Send + 'static, T: Send + 'static>(
        &self,
        verb: &'static str,
        command: &C,
        carry_out: fn(Arc<MemoryLedger>, C) -> Running<T>,
    ) -> Answers<T> {
        self.check()?;
        let era = self.world.era();
        let deliver = |after: Duration| {
            let (world, store, command) = (self.world.clone(), self.store.clone(), command.clone());
            tokio::spawn(async move {
                sleep(after).await;
                // What was on its way to a ledger that went back has not arrived anywhere.
                world.is_of_this(era)?;
                world.arrive(carry_out(store, command)).await
            })
        };
        let now = |command: &C| {
            self.world.clone().arrive_owned(carry_out(self.store.clone(), command.clone()))
        };
        match self.world.fault(verb, true) {
            Fault::None => now(command).await,
            Fault::Refused => Err(unreachable()),
            Fault::LostRequest => silence().await,
            Fault::LostReply => {
                let done = now(command).await;
                done.and(silence().await)
            }
            Fault::Slow(there, back) => {
                let done = deliver(there).await.unwrap_or_else(|_| Err(unreachable()));
                sleep(back).await;
                done
            }
            Fault::Late(after) => {
                drop(deliver(after));
                Err(LedgerError::Indeterminate("the connection broke".to_owned()))
            }
            Fault::Twice(after) => {
                drop(deliver(after));
                now(command).await
            }
        }
    }
}

async fn silence<T>() -> Answers<T> {
    sleep(PATIENCE).await;
    Err(LedgerError::Indeterminate("no answer".to_owned()))
}

fn unreachable() -> LedgerError {
    LedgerError::Unavailable("refused".to_owned())
}

impl World {
    /// Carries a command out, unless the ledger is away.
    async fn arrive<T>(&self, command: impl Future<Output = Answers<T>>) -> Answers<T> {
        match self.away() {
            Away::No => {
                self.set_store_clock();
                command.await
            }
            Away::Refuses => Err(unreachable()),
            Away::Hangs => silence().await,
        }
    }

    async fn arrive_owned<T>(self: Arc<Self>, command: Running<T>) -> Answers<T> {
        self.arrive(command).await
    }
}

/// Sends a command with a key by the verb of that name.
macro_rules! send {
    ($wire:ident, $verb:ident, $command:expr) => {
        $wire
            .send(stringify!($verb), $command, |store, command| {
                Box::pin(async move { store.$verb(&command).await })
            })
            .await
    };
}

/// Asks by the verb of that name.
macro_rules! ask {
    ($wire:ident, $verb:ident $(, $argument:expr)*) => {
        $wire.ask(stringify!($verb), $wire.store.$verb($($argument),*)).await
    };
}

impl Ledger for Wire {
    async fn authorize(&self, command: &Authorize) -> Answers<Reply<Authorized>> {
        send!(self, authorize, command)
    }

    async fn answer(&self, command: &Answer) -> Answers<Reply<Answered>> {
        send!(self, answer, command)
    }

    async fn extend(&self, command: &Extend) -> Answers<Reply<Extended>> {
        send!(self, extend, command)
    }

    async fn end(&self, command: &End) -> Answers<Reply<Ended>> {
        send!(self, end, command)
    }

    async fn report_recharge(&self, report: &ReportRecharge) -> Answers<Reply<RechargeReported>> {
        send!(self, report_recharge, report)
    }

    async fn adjust_balance(&self, command: &AdjustBalance) -> Answers<Reply<Adjusted>> {
        send!(self, adjust_balance, command)
    }

    async fn adjust_settlement(&self, command: &AdjustSettlement) -> Answers<Reply<Adjusted>> {
        send!(self, adjust_settlement, command)
    }

    async fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> Answers<Reply<Purchased>> {
        let command = (tenant.clone(), purchase.clone(), expires_at);
        self.send("purchase", &command, |store, (tenant, purchase, expires_at)| {
            Box::pin(async move { store.purchase(&tenant, &purchase, expires_at).await })
        })
        .await
    }

    async fn tenant(&self, tenant: &TenantId) -> Answers<Reply<TenantView>> {
        ask!(self, tenant, tenant)
    }

    async fn payers(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Answers<Reply<Vec<PayerView>>> {
        ask!(self, payers, tenant, payers)
    }

    async fn tenants(&self) -> Answers<Vec<TenantId>> {
        ask!(self, tenants)
    }

    async fn sweep(&self, tenant: &TenantId, most: u32, keep: Seconds) -> Answers<Reply<Swept>> {
        ask!(self, sweep, tenant, most, keep)
    }

    async fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Answers<Reply<Applied>> {
        ask!(self, apply_tenant, tenant, record, over)
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Answers<Reply<Applied>> {
        ask!(self, apply_payers, tenant, month, updates)
    }

    async fn put_deck(&self, version: &str, csv: &[u8]) -> Answers<()> {
        ask!(self, put_deck, version, csv)
    }

    async fn deck(&self, version: &str) -> Answers<Option<Vec<u8>>> {
        ask!(self, deck, version)
    }

    async fn name_deck(&self, name: &str, version: &str) -> Answers<()> {
        ask!(self, name_deck, name, version)
    }

    async fn named_deck(&self, name: &str) -> Answers<Option<String>> {
        ask!(self, named_deck, name)
    }

    async fn balance(&self, tenant: &TenantId) -> Answers<Reply<Balance>> {
        ask!(self, balance, tenant)
    }

    async fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Answers<Reply<Position>> {
        ask!(self, position, tenant, payer, call, month, families)
    }

    async fn call(&self, tenant: &TenantId, call: &CallId) -> Answers<Option<Call>> {
        ask!(self, call, tenant, call)
    }

    async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Answers<Page<(CallId, Call)>> {
        ask!(self, open_calls, tenant, cursor, most)
    }

    async fn journal(
        &self,
        tenant: &TenantId,
        before: Option<&str>,
        most: usize,
    ) -> Answers<Page<Entry>> {
        ask!(self, journal, tenant, before, most)
    }

    async fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Answers<Page<(String, Entry)>> {
        ask!(self, history, tenant, after, most)
    }

    async fn history_since(&self, tenant: &TenantId, at: Millis) -> Answers<Option<String>> {
        ask!(self, history_since, tenant, at)
    }

    async fn record(&self, tenant: &TenantId) -> Answers<Reply<Option<TenantRecord>>> {
        ask!(self, record, tenant)
    }

    async fn take_reader(&self, command: &TakeReader) -> Answers<Reply<Taken>> {
        ask!(self, take_reader, command)
    }

    async fn move_reader(&self, command: &MoveReader) -> Answers<Reply<Moved>> {
        ask!(self, move_reader, command)
    }

    async fn snapshot(&self, tenant: &TenantId) -> Answers<Reply<Snapshot>> {
        ask!(self, snapshot, tenant)
    }

    async fn set_block(&self, command: &SetBlock) -> Answers<Reply<BlockSet>> {
        ask!(self, set_block, command)
    }

    async fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Answers<Page<(PayerId, BlockedBy, Block)>> {
        ask!(self, blocks, tenant, after, most)
    }

    async fn restore(&self, command: &Restore) -> Answers<Reply<Restored>> {
        send!(self, restore, command)
    }

    async fn readers(&self, tenant: &TenantId) -> Answers<Reply<Vec<(String, Reader)>>> {
        ask!(self, readers, tenant)
    }

    async fn calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Answers<Page<(CallId, Call)>> {
        ask!(self, calls, tenant, cursor, most)
    }

    async fn are_kept(&self, tenant: &TenantId, calls: &[CallId]) -> Answers<Vec<bool>> {
        ask!(self, are_kept, tenant, calls)
    }

    async fn upkeep(&self, tenant: &TenantId) -> Answers<Reply<Upkeep>> {
        ask!(self, upkeep, tenant)
    }

    async fn begin_rewrite(&self, tenant: &TenantId, token: &str) -> Answers<Reply<bool>> {
        ask!(self, begin_rewrite, tenant, token)
    }

    async fn add_rewritten(
        &self,
        tenant: &TenantId,
        token: &str,
        entries: &[(String, Entry)],
    ) -> Answers<bool> {
        ask!(self, add_rewritten, tenant, token, entries)
    }

    async fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> Answers<Reply<FinishedRewrite>> {
        ask!(self, finish_rewrite, tenant, finish)
    }

    async fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> Answers<()> {
        ask!(self, abandon_rewrite, tenant, token, trimmed, erased)
    }

    async fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> Answers<bool> {
        ask!(self, replace_context, tenant, call, from, to)
    }

    async fn ping(&self) -> Answers<()> {
        ask!(self, ping)
    }

    fn marks(&self) -> Arc<Marks> {
        self.store.marks()
    }

    async fn lost(&self, tenant: &TenantId) -> Answers<Option<Lost>> {
        ask!(self, lost, tenant)
    }

    async fn replayed(&self, tenant: &TenantId, lost: Lost) -> Answers<()> {
        ask!(self, replayed, tenant, lost)
    }
}
