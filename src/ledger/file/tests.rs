//! A disk that stops, tears, refuses and waits, under the ledger file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use fastrand::Rng;

use super::*;
use crate::charging::ids::{LotId, TenantId};
use crate::charging::profile::Purchase;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::audit::audit;
use crate::ledger::marks::Mark;
use crate::ledger::{Ledger, Purchased};

/// What a power cut cannot tear: sectors.
const SECTOR: usize = 512;

/// A disk in memory that knows what was synced.
#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Written since the last sync, in order.
    loose: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Writes and syncs that are still carried out; then all fail. `usize::MAX` is no limit.
    left: Arc<AtomicUsize>,
    syncs: Arc<AtomicUsize>,
    /// Whether syncs wait.
    stuck: Arc<AtomicBool>,
}

impl Disk {
    fn new(left: usize) -> Disk {
        let disk = Disk::default();
        disk.left.store(left, Ordering::SeqCst);
        disk
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().expect("no panic while it is held")
    }

    fn spend(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            0 => None,
            usize::MAX => Some(left),
            _ => Some(left - 1),
        });
        spent.map(drop).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
    }

    /// What a power cut leaves: all that was synced, and of what was not any part, sector by sector.
    fn after_a_cut(&self, random: &mut Rng) -> Disk {
        let platter = self.platter();
        let mut bytes = platter.synced.clone();
        let keeps = random.u8(0..=100);
        for (at, data) in &platter.loose {
            for (n, sector) in data.chunks(SECTOR).enumerate() {
                if random.u8(0..100) < keeps {
                    let at = at + n * SECTOR;
                    if bytes.len() < at + sector.len() {
                        bytes.resize(at + sector.len(), 0);
                    }
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        drop(platter);
        let disk = Disk::new(usize::MAX);
        *disk.platter() = Platter { synced: bytes.clone(), bytes, loose: vec![] };
        disk
    }

    /// What a kill leaves: all that was written.
    fn after_a_kill(&self) -> Disk {
        let bytes = self.platter().bytes.clone();
        let disk = Disk::new(usize::MAX);
        *disk.platter() = Platter { synced: bytes.clone(), bytes, loose: vec![] };
        disk
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let found = platter.bytes.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut platter = self.platter();
        platter.bytes.resize(len, 0);
        // The length is metadata, which file systems keep in order.
        platter.synced.resize(len, 0);
        platter.loose.retain(|(at, data)| at + data.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        while self.stuck.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        self.spend()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let platter = &mut *self.platter();
        platter.synced.clone_from(&platter.bytes);
        platter.loose.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.spend()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut platter = self.platter();
        platter.bytes[at..at + data.len()].copy_from_slice(data);
        platter.loose.push((at, data.to_vec()));
        Ok(())
    }
}

fn opened(disk: &Disk) -> Result<MemoryLedger, OpenError> {
    let clock = ClockOffset::default();
    clock.freeze_at(Millis(1_794_312_000_000));
    open_on(disk.clone(), Path::new("ledger"), clock)
}

fn tenant() -> TenantId {
    TenantId::new("contoso").expect("a name")
}

async fn buy(ledger: &MemoryLedger, number: usize) -> Result<Purchased, LedgerError> {
    let purchase = Purchase {
        key: LotId::new(&format!("po-{number}")).expect("any text"),
        amount: Micros(1 + number as i64),
        purchased_at: Millis(1_794_312_000_000),
        payment: BTreeMap::from([("purchase_order".to_owned(), "x".repeat(number % 700))]),
    };
    let bought = ledger.purchase(&tenant(), &purchase, Millis(1_894_312_000_000)).await;
    bought.map(|reply| reply.outcome)
}

/// Numbers of the purchases that a ledger has; its audit must be clean.
async fn bought(ledger: &MemoryLedger) -> Vec<usize> {
    let snapshot = ledger.snapshot(&tenant()).await.expect("a reading").outcome;
    let report = audit(&tenant(), Millis(1_794_312_000_000), Seconds::ZERO, &snapshot);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let number = |name: &str| name.strip_prefix("po-").and_then(|number| number.parse().ok());
    let mut found: Vec<_> = snapshot.lots.iter().filter_map(|l| number(l.key.as_str())).collect();
    found.sort_unstable();
    found
}

/// Buys until the disk has had enough; how many were acknowledged.
async fn buy_until_it_ends(ledger: &MemoryLedger, from: usize, most: usize) -> usize {
    for number in from..from + most {
        match buy(ledger, number).await {
            Ok(outcome) => assert_eq!(outcome, Purchased::Applied),
            Err(error) => {
                assert!(matches!(error, LedgerError::Indeterminate(_)), "{error}");
                let again = buy(ledger, number).await;
                assert!(matches!(again, Err(LedgerError::Unavailable(_))), "{again:?}");
                assert!(matches!(ledger.ping().await, Err(LedgerError::Unavailable(_))));
                return number - from;
            }
        }
    }
    most
}

#[tokio::test]
async fn a_disk_that_stops_anywhere_loses_nothing_that_was_acknowledged() {
    let (mut stopped, mut acknowledged, mut cuts) = (0, 0, 0);
    for seed in 0..150 {
        let mut random = Rng::with_seed(seed);
        let mut disk = Disk::new(random.usize(0..400));
        let mut known = 0;
        for round in 0..4 {
            let had = match opened(&disk) {
                Ok(ledger) => {
                    let had = bought(&ledger).await;
                    let next = had.len();
                    let more = buy_until_it_ends(&ledger, next, 40).await;
                    known = next + more;
                    had
                }
                // It ended while it was opened.
                Err(OpenError::Unusable(..)) => {
                    stopped += 1;
                    (0..known).collect()
                }
                Err(error) => panic!("seed {seed}, round {round}: {error}"),
            };
            assert_eq!(had, (0..had.len()).collect::<Vec<_>>(), "seed {seed}");
            acknowledged += known - had.len().min(known);
            let cut = random.bool();
            cuts += usize::from(cut);
            disk = if cut { disk.after_a_cut(&mut random) } else { disk.after_a_kill() };
            let found = match opened(&disk) {
                Ok(ledger) => bought(&ledger).await,
                // It ended while it was made. A file gets its name after that: see `make`.
                Err(OpenError::Foreign(_)) if known == 0 => {
                    disk = Disk::new(usize::MAX);
                    vec![]
                }
                Err(error) => panic!("seed {seed}: {error}"),
            };
            // One more may have been written and not acknowledged.
            assert!((known..=known + 1).contains(&found.len()), "seed {seed}: {known}, {found:?}");
            disk.left.store(random.usize(0..400), Ordering::SeqCst);
        }
    }
    assert!(stopped > 10 && cuts > 100 && acknowledged > 1000, "{stopped} {cuts} {acknowledged}");
}

#[tokio::test]
async fn a_failed_commit_ends_the_writing_and_what_is_kept_is_still_read() {
    let disk = Disk::new(usize::MAX);
    let ledger = opened(&disk).expect("a new ledger");
    assert_eq!(buy_until_it_ends(&ledger, 0, 5).await, 5);
    let other = TenantId::new("fabrikam").expect("a name");
    disk.left.store(0, Ordering::SeqCst);
    assert_eq!(buy_until_it_ends(&ledger, 5, 5).await, 0);
    // Of this tenant something was seen that is not kept; of another one nothing.
    let unkept = ledger.balance(&tenant()).await;
    assert!(matches!(unkept, Err(LedgerError::Unavailable(_))), "{unkept:?}");
    assert!(ledger.balance(&other).await.is_ok());
    // Room again does not help: what the disk holds, only reading it tells.
    disk.left.store(usize::MAX, Ordering::SeqCst);
    assert!(buy(&ledger, 9).await.is_err());
    drop(ledger);
    let again = opened(&disk).expect("the file is whole");
    assert_eq!(bought(&again).await, [0, 1, 2, 3, 4]);
    assert_eq!(buy(&again, 5).await, Ok(Purchased::Applied));
}

#[tokio::test]
async fn what_is_not_kept_is_not_acknowledged() {
    let disk = Disk::new(usize::MAX);
    let ledger = opened(&disk).expect("a new ledger");
    ledger.marks().adopt(&"0".repeat(32), []);
    assert_eq!(buy(&ledger, 0).await, Ok(Purchased::Applied));
    let known = ledger.marks().known(&tenant());
    disk.left.store(0, Ordering::SeqCst);
    assert!(buy(&ledger, 1).await.is_err());
    assert_eq!(ledger.marks().known(&tenant()), known);
    // The next start finds no loss.
    let sidecar = ledger.marks().sidecar();
    disk.left.store(usize::MAX, Ordering::SeqCst);
    drop(ledger);
    let again = opened(&disk).expect("the file is whole");
    again.marks().adopt(&sidecar, [(tenant(), known)]);
    assert_eq!(again.lost(&tenant()).await, Ok(None));
}

#[tokio::test]
async fn names_of_runs_without_a_journal_end_with_them() {
    let disk = Disk::new(usize::MAX);
    let journal = "0".repeat(32);
    for number in 0..3 {
        let ledger = opened(&disk).expect("a ledger");
        let run = ledger.marks().sidecar();
        assert_eq!(buy(&ledger, 2 * number).await, Ok(Purchased::Applied));
        ledger.marks().adopt(&journal, []);
        assert_eq!(buy(&ledger, 2 * number + 1).await, Ok(Purchased::Applied));
        // No other is left.
        assert_eq!(ledger.forget_runs(&tenant(), Millis(i64::MAX)).await, Ok(1), "{run}");
        ledger.marks().adopt(&run, []);
        assert_eq!(buy(&ledger, 100 + number).await, Ok(Purchased::Applied));
    }
    let ledger = opened(&disk).expect("a ledger");
    assert_eq!(ledger.forget_runs(&tenant(), Millis(i64::MAX)).await, Ok(0));
    ledger.marks().adopt(&journal, [(tenant(), Mark { epoch: 0, sequence: 3 })]);
    assert_eq!(ledger.lost(&tenant()).await, Ok(None));
}

#[tokio::test]
async fn commands_that_come_during_a_commit_share_the_next_one() {
    let disk = Disk::new(usize::MAX);
    let ledger = opened(&disk).expect("a new ledger");
    disk.stuck.store(true, Ordering::SeqCst);
    let syncs = disk.syncs.load(Ordering::SeqCst);
    let mut buying: Vec<_> = (0..200).map(|number| Box::pin(buy(&ledger, number))).collect();
    let contoso = tenant();
    let mut reading = Box::pin(ledger.balance(&contoso));
    let mut nobody = Context::from_waker(Waker::noop());
    for one in &mut buying {
        assert!(one.as_mut().poll(&mut nobody).is_pending(), "nothing is acknowledged yet");
    }
    assert!(reading.as_mut().poll(&mut nobody).is_pending(), "nor told");
    disk.stuck.store(false, Ordering::SeqCst);
    for one in buying {
        assert_eq!(one.await, Ok(Purchased::Applied));
    }
    assert_eq!(reading.await.expect("a balance").outcome.lots.len(), 200);
    let syncs = disk.syncs.load(Ordering::SeqCst) - syncs;
    assert!(syncs <= 4, "{syncs} syncs");
}

#[tokio::test]
async fn a_flipped_byte_is_found_or_does_no_harm() {
    let disk = Disk::new(usize::MAX);
    let ledger = opened(&disk).expect("a new ledger");
    assert_eq!(buy_until_it_ends(&ledger, 0, 40).await, 40);
    drop(ledger);
    let whole = disk.platter().bytes.clone();
    let mut random = Rng::with_seed(7);
    let used: Vec<_> = whole.iter().enumerate().filter(|(_, b)| **b != 0).map(|(n, _)| n).collect();
    let mut found = 0;
    for _ in 0..300 {
        let disk = disk.after_a_kill();
        let place = used[random.usize(..used.len())];
        disk.platter().bytes[place] ^= 1 << random.u8(..8);
        match opened(&disk) {
            Err(_) => found += 1,
            Ok(ledger) => assert_eq!(bought(&ledger).await.len(), 40, "byte {place}"),
        }
    }
    assert!(found > 50, "{found}");
}
