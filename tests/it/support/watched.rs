//! A ledger that counts what is asked of it and answers as slowly as it is told.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

type Answers<T> = Result<T, LedgerError>;

/// See the module.
#[derive(Default)]
pub struct Watched {
    pub inner: MemoryLedger,
    /// Every question of any kind.
    pub asked: AtomicU32,
    /// Of them, for a tenant.
    pub tenants_read: AtomicU32,
    /// How long a tenant, a balance, a deck and the end of a call take.
    pub tenant_takes: Mutex<Duration>,
    pub balance_takes: Mutex<Duration>,
    pub deck_takes: Mutex<Duration>,
    pub end_takes: Mutex<Duration>,
    /// How long the next change of a tenant takes to arrive, and only that.
    pub next_apply_takes: Mutex<Duration>,
    /// A tenant whose sweeps are never answered.
    pub never_swept: Mutex<Option<TenantId>>,
    /// Whether nothing is answered at all.
    pub hangs: Mutex<bool>,
}

impl Watched {
    async fn ask<T>(&self, answer: impl Future<Output = Answers<T>>) -> Answers<T> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        answer.await
    }
}

async fn pause(length: &Mutex<Duration>) {
    let length = *length.lock().unwrap();
    if !length.is_zero() {
        tokio::time::sleep(length).await;
    }
}

macro_rules! passed_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl Ledger for Watched {
            async fn tenant(&self, tenant: &TenantId) -> Answers<Reply<TenantView>> {
                self.tenants_read.fetch_add(1, Ordering::SeqCst);
                let found = self.ask(self.inner.tenant(tenant)).await;
                pause(&self.tenant_takes).await;
                found
            }

            async fn deck(&self, version: &str) -> Answers<Option<Vec<u8>>> {
                pause(&self.deck_takes).await;
                self.ask(self.inner.deck(version)).await
            }

            async fn apply_tenant(
                &self,
                tenant: &TenantId,
                record: &TenantRecord,
                over: Option<u64>,
            ) -> Answers<Reply<Applied>> {
                let takes = std::mem::take(&mut *self.next_apply_takes.lock().unwrap());
                pause(&Mutex::new(takes)).await;
                self.ask(self.inner.apply_tenant(tenant, record, over)).await
            }

            async fn sweep(
                &self,
                tenant: &TenantId,
                most: u32,
                keep: Seconds,
            ) -> Answers<Reply<Swept>> {
                if self.never_swept.lock().unwrap().as_ref() == Some(tenant) {
                    return Err(LedgerError::Indeterminate("it takes too long".to_owned()));
                }
                self.ask(self.inner.sweep(tenant, most, keep)).await
            }

            fn marks(&self) -> Arc<Marks> {
                self.inner.marks()
            }

            async fn balance(&self, tenant: &TenantId) -> Answers<Reply<Balance>> {
                let found = self.ask(self.inner.balance(tenant)).await;
                pause(&self.balance_takes).await;
                found
            }

            async fn restore(&self, command: &Restore) -> Answers<Reply<Restored>> {
        self.ask(self.inner.restore(command)).await
    }

    async fn end(&self, command: &End) -> Answers<Reply<Ended>> {
                pause(&self.end_takes).await;
                self.ask(self.inner.end(command)).await
            }

            $(
                async fn $name(&self, $($argument: $type),*) -> Answers<$answer> {
                    self.ask(self.inner.$name($($argument),*)).await
                }
            )*
        }
    };
}

passed_on! {
    payers(tenant: &TenantId, payers: &[PayerId]) -> Reply<Vec<PayerView>>;
    tenants() -> Vec<TenantId>;
    authorize(command: &Authorize) -> Reply<Authorized>;
    answer(command: &Answer) -> Reply<Answered>;
    extend(command: &Extend) -> Reply<Extended>;
    apply_payers(tenant: &TenantId, month: &Month, updates: &[PayerUpdate]) -> Reply<Applied>;
    purchase(tenant: &TenantId, purchase: &Purchase, expires_at: Millis) -> Reply<Purchased>;
    report_recharge(report: &ReportRecharge) -> Reply<RechargeReported>;
    put_deck(version: &str, csv: &[u8]) -> ();
    name_deck(name: &str, version: &str) -> ();
    named_deck(name: &str) -> Option<String>;
    position(tenant: &TenantId, payer: &PayerId, call: &CallId, month: &Month, families: &[String])
        -> Reply<Position>;
    call(tenant: &TenantId, call: &CallId) -> Option<Call>;
    open_calls(tenant: &TenantId, cursor: Option<&str>, most: usize) -> Page<(CallId, Call)>;
    journal(tenant: &TenantId, before: Option<&str>, most: usize) -> Page<Entry>;
    snapshot(tenant: &TenantId) -> Reply<Snapshot>;
    history(tenant: &TenantId, after: Option<&str>, most: usize) -> Page<(String, Entry)>;
    history_since(tenant: &TenantId, at: Millis) -> Option<String>;
    set_block(command: &SetBlock) -> Reply<BlockSet>;
    blocks(tenant: &TenantId, after: Option<&str>, most: usize)
        -> Page<(PayerId, BlockedBy, Block)>;
    ping() -> ();
    adjust_balance(command: &AdjustBalance) -> Reply<Adjusted>;
    adjust_settlement(command: &AdjustSettlement) -> Reply<Adjusted>;
    record(tenant: &TenantId) -> Reply<Option<TenantRecord>>;
    take_reader(command: &TakeReader) -> Reply<Taken>;
    move_reader(command: &MoveReader) -> Reply<Moved>;
    readers(tenant: &TenantId) -> Reply<Vec<(String, Reader)>>;
    calls(tenant: &TenantId, cursor: Option<&str>, most: usize) -> Page<(CallId, Call)>;
    are_kept(tenant: &TenantId, calls: &[CallId]) -> Vec<bool>;
    upkeep(tenant: &TenantId) -> Reply<Upkeep>;
    begin_rewrite(tenant: &TenantId, token: &str) -> Reply<bool>;
    add_rewritten(tenant: &TenantId, token: &str, entries: &[(String, Entry)]) -> bool;
    finish_rewrite(tenant: &TenantId, finish: &FinishRewrite) -> Reply<FinishedRewrite>;
    abandon_rewrite(tenant: &TenantId, token: &str, trimmed: Millis, erased: Millis) -> ();
    replace_context(tenant: &TenantId, call: &CallId, from: &[u8], to: &[u8]) -> bool;
    lost(tenant: &TenantId) -> Option<Lost>;
    replayed(tenant: &TenantId, lost: Lost) -> ();
    forget_runs(tenant: &TenantId, before: Millis) -> usize;
}
