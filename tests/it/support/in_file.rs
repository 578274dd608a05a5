//! The ledger in a file, and what another process would find there.

use tempfile::TempDir;
use tollgate::charging::ids::TenantId;
use tollgate::ledger::file;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::{Entry, Reader, Upkeep};
use tollgate::ledger::{ClockOffset, Ledger, Snapshot, TenantRecord};

use crate::support::Stage;

/// The ledger in the file of this folder.
pub fn open(folder: &TempDir, clock: ClockOffset) -> MemoryLedger {
    file::open(&folder.path().join("ledger"), clock).expect("a ledger file")
}

/// Everything of a tenant.
#[derive(Debug, PartialEq)]
pub struct Seen {
    tenant: TenantId,
    snapshot: Snapshot,
    version: u64,
    record: Option<TenantRecord>,
    numbers: Vec<String>,
    payers: Vec<String>,
    readers: Vec<(String, Reader)>,
    upkeep: Upkeep,
    history: Vec<(String, Entry)>,
}

/// Everything of all tenants, and of this one, which may have had no document yet. Who rewrites a journal is
/// left out: that ends with a process.
pub async fn everything<L: Ledger>(ledger: &L, one: &TenantId) -> Vec<Seen> {
    let mut tenants = ledger.tenants().await.unwrap();
    tenants.push(one.clone());
    let mut all = vec![];
    for tenant in tenants {
        let snapshot = ledger.snapshot(&tenant).await.unwrap().outcome;
        let view = ledger.tenant(&tenant).await.unwrap().outcome;
        let mut numbers: Vec<_> = view.numbers.into_iter().collect();
        numbers.sort();
        let ids: Vec<_> = snapshot.payers.iter().map(|(id, _)| id.clone()).collect();
        let payers = ledger.payers(&tenant, &ids).await.unwrap().outcome;
        let upkeep = ledger.upkeep(&tenant).await.unwrap().outcome;
        all.push(Seen {
            snapshot,
            version: view.version,
            record: view.record,
            numbers,
            payers: payers.iter().map(|payer| format!("{payer:?}")).collect(),
            readers: ledger.readers(&tenant).await.unwrap().outcome,
            upkeep: Upkeep { token: String::new(), lease_ends: Default::default(), ..upkeep },
            history: ledger.history(&tenant, None, usize::MAX).await.unwrap().items,
            tenant,
        });
    }
    all
}

/// Closes the ledger and opens its file again: everything must be there.
pub async fn assert_kept(stage: Stage<MemoryLedger>) {
    let Stage { ledger, clock, tenant, keep } = stage;
    let folder = keep.downcast::<TempDir>().expect("a ledger in a file");
    let before = everything(&ledger, &tenant).await;
    drop(ledger);
    let again = open(&folder, clock);
    assert_eq!(everything(&again, &tenant).await, before);
}
