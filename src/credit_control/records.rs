//! Records of calls that were decided without the ledger, on their way to it (contract rule 13).
//!
//! A bounded queue and one task: what the ledger cannot take now it is offered again until it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::charging::units::Millis;
use crate::ledger::state::Call;
use crate::ledger::{Authorize, Ledger, LedgerError};

/// Most records that wait for the ledger; one more is dropped, with an error in the log that repeats it.
pub const MAX_WAITING: usize = 10_000;

/// First and longest pause between two offers of the same record.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Longest wait for the ledger to take one record.
const OFFER_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub struct Records {
    queue: mpsc::Sender<Authorize>,
    waiting: Arc<AtomicUsize>,
}

impl Records {
    /// Starts the task.
    pub fn start<L: Ledger>(ledger: Arc<L>) -> Records {
        let (queue, mut records) = mpsc::channel::<Authorize>(MAX_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        tokio::spawn(async move {
            while let Some(record) = records.recv().await {
                deliver(&*ledger, &record).await;
                left.fetch_sub(1, Ordering::AcqRel);
            }
        });
        Records { queue, waiting }
    }

    /// Queues a record.
    pub fn keep(&self, record: Authorize) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if let Err(refused) = self.queue.try_send(record) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            let record = refused.into_inner();
            tracing::error!(tenant = %record.tenant, call = %record.call, payer = %record.payer,
                "the record of a call decided without the ledger is lost: too many wait");
        }
    }

    /// Waits until nothing waits for the ledger; `false` where time ran out first.
    pub async fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.waiting.load(Ordering::Acquire) > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

async fn deliver<L: Ledger>(ledger: &L, record: &Authorize) {
    let mut pause = PAUSES.0;
    loop {
        let late = LedgerError::Indeterminate("no answer within the time limit".to_owned());
        let offered = tokio::time::timeout(OFFER_TIMEOUT, ledger.authorize(record)).await;
        match offered.unwrap_or(Err(late)) {
            Ok(_) => return,
            Err(LedgerError::Corrupt(what)) => {
                tracing::error!(tenant = %record.tenant, call = %record.call, what,
                    "the ledger cannot take a record");
                return;
            }
            Err(error) => tracing::warn!(%error, "a record waits for the ledger"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The call as the ledger will hold it once it has the record.
pub fn granted_call(record: &Authorize, now: Millis) -> Call {
    let mut call = record.proposed();
    record.date(&mut call, now);
    call
}
