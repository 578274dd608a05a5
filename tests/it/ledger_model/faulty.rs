//! Ledgers that are wrong on purpose, to show that the harness would notice.

use tollgate::charging::ids::{CallId, PayerId, TenantId};
use tollgate::charging::month::Month;
use tollgate::charging::profile::Purchase;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::{Block, BlockedBy, Call, Entry, Reader, Upkeep};
use tollgate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    Balance, BlockSet, End, Ended, Ending, Extend, Extended, FinishRewrite, FinishedRewrite,
    Ledger, LedgerError, MoveReader, Moved, Page, PayerUpdate, PayerView, Position, Purchased,
    RechargeReported, Reply, ReportRecharge, Restore, Restored, SetBlock, Snapshot, Swept,
    TakeReader, Taken, TenantRecord, TenantView,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ChargesASecondMore,
    LosesReleases,
    ForgetsSequences,
}

pub struct Faulty {
    pub inner: MemoryLedger,
    pub fault: Fault,
}

type Answers<T> = Result<T, LedgerError>;

impl Ledger for Faulty {
    async fn extend(&self, command: &Extend) -> Answers<Reply<Extended>> {
        let mut command = command.clone();
        if self.fault == Fault::ForgetsSequences {
            command.sequence = None;
        }
        self.inner.extend(&command).await
    }

    async fn end(&self, command: &End) -> Answers<Reply<Ended>> {
        let mut command = command.clone();
        command.how = match (self.fault, command.how) {
            (Fault::ChargesASecondMore, Ending::Settle(used)) if used.is_positive() => {
                Ending::Settle(used + Seconds(1))
            }
            (Fault::LosesReleases, Ending::Release) => Ending::Proven,
            (_, how) => how,
        };
        self.inner.end(&command).await
    }

    async fn restore(&self, command: &Restore) -> Answers<Reply<Restored>> {
        self.inner.restore(command).await
    }

    async fn tenant(&self, tenant: &TenantId) -> Answers<Reply<TenantView>> {
        self.inner.tenant(tenant).await
    }

    async fn payers(
        &self,
        tenant: &TenantId,
        payers: &[PayerId],
    ) -> Answers<Reply<Vec<PayerView>>> {
        self.inner.payers(tenant, payers).await
    }

    async fn tenants(&self) -> Answers<Vec<TenantId>> {
        self.inner.tenants().await
    }

    async fn authorize(&self, command: &Authorize) -> Answers<Reply<Authorized>> {
        self.inner.authorize(command).await
    }

    async fn answer(&self, command: &Answer) -> Answers<Reply<Answered>> {
        self.inner.answer(command).await
    }

    async fn sweep(&self, tenant: &TenantId, most: u32, keep: Seconds) -> Answers<Reply<Swept>> {
        self.inner.sweep(tenant, most, keep).await
    }

    async fn apply_tenant(
        &self,
        tenant: &TenantId,
        record: &TenantRecord,
        over: Option<u64>,
    ) -> Answers<Reply<Applied>> {
        self.inner.apply_tenant(tenant, record, over).await
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        month: &Month,
        updates: &[PayerUpdate],
    ) -> Answers<Reply<Applied>> {
        self.inner.apply_payers(tenant, month, updates).await
    }

    async fn purchase(
        &self,
        tenant: &TenantId,
        purchase: &Purchase,
        expires_at: Millis,
    ) -> Answers<Reply<Purchased>> {
        self.inner.purchase(tenant, purchase, expires_at).await
    }

    async fn report_recharge(&self, report: &ReportRecharge) -> Answers<Reply<RechargeReported>> {
        self.inner.report_recharge(report).await
    }

    async fn put_deck(&self, version: &str, csv: &[u8]) -> Answers<()> {
        self.inner.put_deck(version, csv).await
    }

    async fn deck(&self, version: &str) -> Answers<Option<Vec<u8>>> {
        self.inner.deck(version).await
    }

    async fn name_deck(&self, name: &str, version: &str) -> Answers<()> {
        self.inner.name_deck(name, version).await
    }

    async fn named_deck(&self, name: &str) -> Answers<Option<String>> {
        self.inner.named_deck(name).await
    }

    async fn balance(&self, tenant: &TenantId) -> Answers<Reply<Balance>> {
        self.inner.balance(tenant).await
    }

    async fn position(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        call: &CallId,
        month: &Month,
        families: &[String],
    ) -> Answers<Reply<Position>> {
        self.inner.position(tenant, payer, call, month, families).await
    }

    async fn call(&self, tenant: &TenantId, call: &CallId) -> Answers<Option<Call>> {
        self.inner.call(tenant, call).await
    }

    async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Answers<Page<(CallId, Call)>> {
        self.inner.open_calls(tenant, cursor, most).await
    }

    async fn journal(
        &self,
        tenant: &TenantId,
        before: Option<&str>,
        most: usize,
    ) -> Answers<Page<Entry>> {
        self.inner.journal(tenant, before, most).await
    }

    async fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Answers<Page<(String, Entry)>> {
        self.inner.history(tenant, after, most).await
    }

    async fn history_since(
        &self,
        tenant: &TenantId,
        at: Millis,
    ) -> Result<Option<String>, LedgerError> {
        self.inner.history_since(tenant, at).await
    }

    async fn calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Answers<Page<(CallId, Call)>> {
        self.inner.calls(tenant, cursor, most).await
    }

    async fn are_kept(&self, tenant: &TenantId, calls: &[CallId]) -> Answers<Vec<bool>> {
        self.inner.are_kept(tenant, calls).await
    }

    async fn upkeep(&self, tenant: &TenantId) -> Answers<Reply<Upkeep>> {
        self.inner.upkeep(tenant).await
    }

    async fn begin_rewrite(&self, tenant: &TenantId, token: &str) -> Answers<Reply<bool>> {
        self.inner.begin_rewrite(tenant, token).await
    }

    async fn add_rewritten(
        &self,
        tenant: &TenantId,
        token: &str,
        entries: &[(String, Entry)],
    ) -> Answers<bool> {
        self.inner.add_rewritten(tenant, token, entries).await
    }

    async fn finish_rewrite(
        &self,
        tenant: &TenantId,
        finish: &FinishRewrite,
    ) -> Answers<Reply<FinishedRewrite>> {
        self.inner.finish_rewrite(tenant, finish).await
    }

    async fn abandon_rewrite(
        &self,
        tenant: &TenantId,
        token: &str,
        trimmed: Millis,
        erased: Millis,
    ) -> Answers<()> {
        self.inner.abandon_rewrite(tenant, token, trimmed, erased).await
    }

    async fn replace_context(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &[u8],
        to: &[u8],
    ) -> Answers<bool> {
        self.inner.replace_context(tenant, call, from, to).await
    }

    async fn record(&self, tenant: &TenantId) -> Answers<Reply<Option<TenantRecord>>> {
        self.inner.record(tenant).await
    }

    async fn take_reader(&self, command: &TakeReader) -> Answers<Reply<Taken>> {
        self.inner.take_reader(command).await
    }

    async fn move_reader(&self, command: &MoveReader) -> Answers<Reply<Moved>> {
        self.inner.move_reader(command).await
    }

    async fn readers(&self, tenant: &TenantId) -> Answers<Reply<Vec<(String, Reader)>>> {
        self.inner.readers(tenant).await
    }

    async fn snapshot(&self, tenant: &TenantId) -> Answers<Reply<Snapshot>> {
        self.inner.snapshot(tenant).await
    }

    async fn set_block(&self, command: &SetBlock) -> Answers<Reply<BlockSet>> {
        self.inner.set_block(command).await
    }

    async fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Answers<Page<(PayerId, BlockedBy, Block)>> {
        self.inner.blocks(tenant, after, most).await
    }

    async fn ping(&self) -> Answers<()> {
        self.inner.ping().await
    }

    async fn adjust_balance(&self, command: &AdjustBalance) -> Answers<Reply<Adjusted>> {
        self.inner.adjust_balance(command).await
    }

    async fn adjust_settlement(&self, command: &AdjustSettlement) -> Answers<Reply<Adjusted>> {
        self.inner.adjust_settlement(command).await
    }
}
