//! What a sidecar was acknowledged, so that it sees a ledger that went back.
//!
//! A store that replicates asynchronously, or that is restored from an older copy, forgets what it has
//! acknowledged. So each tenant's ledger carries an *epoch*, and for each sidecar a *sequence*: both only
//! grow. Every run of commands that changes something counts one up for the sidecar that sent it, and says
//! so in its answer. The sidecar sends the highest numbers that it was told along with its next run, and the
//! ledger compares before it does anything: a number below what was acknowledged means that it has lost
//! something, and it does nothing.
//!
//! **Why a sequence for each sidecar.** One that all share would hide a loss: others, who do not know of it,
//! count it up again until nothing seems to be missing. What only its owner counts can only fall short of
//! what its owner knows by a loss. Nor is there a false alarm: numbers are compared when a run is carried
//! out, and whatever was acknowledged before that run was sent has been counted before.
//!
//! Who finds a loss first raises the epoch, atomically, which leaves one entry `ledger_regressed` in the
//! tenant's journal; the others find the epoch raised, and only say what they miss. What is missing stands
//! in the ledger until it is replayed, so that a sidecar that dies meanwhile goes on after its start.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::charging::ids::TenantId;
use crate::charging::units::Millis;

/// What names begin with under which sidecars without a journal are counted: each for one run of it, or a part
/// of a long one. A UUID follows that says when it began.
const RUN: &str = "run.";

/// A run that lasts longer goes on by another name, in milliseconds: 30 days.
const RUN_RENAMED: i64 = 30 * 86_400_000;

/// Names older than this are of runs that have ended, in milliseconds: 90 days.
const RUN_FORGOTTEN: i64 = 90 * 86_400_000;

/// Epochs and sequences share one integer below 2^53: sequences are below this.
const SEQUENCES: u64 = 1 << 40;

/// How far a tenant's ledger has come, as one sidecar was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How often a loss was found, by whomever; below 8192.
    pub epoch: u64,
    /// Runs of this sidecar; below 2^40.
    pub sequence: u64,
}

impl Mark {
    /// Both numbers, of one as they are stored.
    pub(crate) fn unpacked(number: u64) -> Mark {
        Mark { epoch: number / SEQUENCES, sequence: number % SEQUENCES }
    }

    /// Both numbers in one, as they are stored.
    pub(crate) fn packed(self) -> u64 {
        self.epoch * SEQUENCES + self.sequence
    }

    /// Whether a ledger that stands here has lost something that was acknowledged up to `known`.
    pub(crate) fn is_behind(self, known: Mark) -> bool {
        self.epoch < known.epoch || self.sequence < known.sequence
    }

    /// The higher of each.
    pub(crate) fn max(self, other: Mark) -> Mark {
        Mark { epoch: self.epoch.max(other.epoch), sequence: self.sequence.max(other.sequence) }
    }
}

/// Acknowledged runs of one sidecar that a ledger has lost: those with a sequence above the one and not
/// above the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What the ledger had.
    pub above: u64,
    /// What was acknowledged.
    pub last: u64,
}

impl Lost {
    /// Both, where there was a loss before that is not replayed yet.
    pub(crate) fn and(self, other: Lost) -> Lost {
        Lost { above: self.above.min(other.above), last: self.last.max(other.last) }
    }

    /// As it is stored.
    pub(crate) fn encode(self) -> String {
        format!("{}:{}", self.above, self.last)
    }

    /// The other way round.
    pub(crate) fn decode(text: &str) -> Option<Lost> {
        let (above, last) = text.split_once(':')?;
        Some(Lost { above: above.parse().ok()?, last: last.parse().ok()? })
    }
}

/// A ledger was found behind what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regression {
    /// What was acknowledged.
    pub known: Mark,
    /// What the ledger has.
    pub found: Mark,
}

/// What one sidecar was acknowledged of all its tenants; shared by its threads. See the module.
pub struct Marks {
    inner: Mutex<Inner>,
    /// Tenants with something to replay, to be read without the lock.
    losses: AtomicUsize,
    found: Notify,
}

struct Inner {
    sidecar: Arc<str>,
    replays: bool,
    known: HashMap<TenantId, Mark>,
    lost: BTreeMap<TenantId, Lost>,
}

impl Default for Marks {
    /// Of a sidecar that nobody knows yet, and that has nothing to replay from.
    fn default() -> Marks {
        let sidecar = run_name(uuid::Uuid::now_v7());
        let inner = Inner { sidecar, replays: false, known: HashMap::new(), lost: BTreeMap::new() };
        Marks { inner: Mutex::new(inner), losses: AtomicUsize::new(0), found: Notify::new() }
    }
}

impl Marks {
    /// Goes on as the sidecar that a journal is of, with what that was acknowledged.
    pub fn adopt(&self, sidecar: &str, known: impl IntoIterator<Item = (TenantId, Mark)>) {
        let mut inner = self.inner();
        if *inner.sidecar != *sidecar {
            inner.known.clear();
        }
        inner.sidecar = sidecar.into();
        inner.replays = true;
        for (tenant, mark) in known {
            let entry = inner.known.entry(tenant).or_default();
            *entry = entry.max(mark);
        }
    }

    /// Takes another name where this one is of a run, and old by this machine's clock, so that names can be
    /// forgotten by their age. Returns the instant before which names of runs are nobody's any more.
    pub(crate) fn rename_old_run(&self, now: Millis) -> Millis {
        let mut inner = self.inner();
        if is_run_before(&inner.sidecar, Millis(now.0 - RUN_RENAMED)) {
            inner.sidecar = run_name(uuid::Uuid::now_v7());
            // What was acknowledged was counted by the other.
            inner.known.clear();
        }
        Millis(now.0 - RUN_FORGOTTEN)
    }

    /// The name by which the ledger counts this sidecar.
    pub fn sidecar(&self) -> Arc<str> {
        self.inner().sidecar.clone()
    }

    /// The highest that was acknowledged of a tenant.
    pub fn known(&self, tenant: &TenantId) -> Mark {
        self.inner().known.get(tenant).copied().unwrap_or_default()
    }

    /// Every tenant that something was acknowledged of, in their order.
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<TenantId> = self.inner().known.keys().cloned().collect();
        tenants.sort();
        tenants
    }

    /// What a run sends along: the name and the highest that was acknowledged.
    pub(crate) fn sent(&self, tenant: &TenantId) -> (Arc<str>, Mark) {
        let inner = self.inner();
        (inner.sidecar.clone(), inner.known.get(tenant).copied().unwrap_or_default())
    }

    /// A run was acknowledged that was counted by this name; answers may overtake each other.
    pub(crate) fn acknowledge(&self, tenant: &TenantId, sidecar: &str, mark: Mark) {
        let mut inner = self.inner();
        if *inner.sidecar != *sidecar {
            return;
        }
        match inner.known.get_mut(tenant) {
            Some(known) => *known = known.max(mark),
            None => drop(inner.known.insert(tenant.clone(), mark)),
        }
    }

    /// Whether there is something to replay from.
    pub(crate) fn replays(&self) -> bool {
        self.inner().replays
    }

    /// Something is to be replayed.
    pub(crate) fn lose(&self, tenant: &TenantId, lost: Lost) {
        let mut inner = self.inner();
        if inner.replays {
            let both = inner.lost.get(tenant).map_or(lost, |before| before.and(lost));
            inner.lost.insert(tenant.clone(), both);
            self.losses.store(inner.lost.len(), Ordering::Release);
            drop(inner);
            self.found.notify_one();
        }
    }

    /// Whether something is to be replayed for a tenant: what its ledger does not know, it may soon.
    pub fn is_replaying(&self, tenant: &TenantId) -> bool {
        self.losses.load(Ordering::Acquire) > 0 && self.inner().lost.contains_key(tenant)
    }

    /// All that is to be replayed.
    pub fn losses(&self) -> Vec<(TenantId, Lost)> {
        self.inner().lost.iter().map(|(tenant, lost)| (tenant.clone(), *lost)).collect()
    }

    /// So much is replayed; what was lost besides meanwhile stays.
    pub fn replayed(&self, tenant: &TenantId, lost: Lost) {
        let mut inner = self.inner();
        if inner.lost.get(tenant) == Some(&lost) {
            inner.lost.remove(tenant);
        }
        self.losses.store(inner.lost.len(), Ordering::Release);
    }

    /// Waits until something is lost that was not before.
    pub async fn lost(&self) {
        self.found.notified().await;
    }

    /// What the journal's entry and the event say of a loss.
    pub(crate) fn tell(&self, Regression { known, found }: &Regression) -> String {
        let inner = self.inner();
        let then = match inner.replays {
            true => "what it was acknowledged is replayed from its journal",
            false => "it has no journal: what it was acknowledged since cannot be replayed",
        };
        format!(
            "sidecar {} was acknowledged {} of epoch {} and finds {} of epoch {}; {then}",
            inner.sidecar, known.sequence, known.epoch, found.sequence, found.epoch
        )
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing that is done under the lock leaves it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run_name(uuid: uuid::Uuid) -> Arc<str> {
    format!("{RUN}{}", uuid.simple()).into()
}

/// Whether a name is that of a run.
pub(crate) fn is_run(name: &str) -> bool {
    name.starts_with(RUN)
}

/// Whether a name is that of a run that began before an instant.
pub(crate) fn is_run_before(name: &str, before: Millis) -> bool {
    let uuid = name.strip_prefix(RUN).and_then(|uuid| uuid::Uuid::try_parse(uuid).ok());
    uuid.and_then(|uuid| uuid.get_timestamp()).is_some_and(|begun| {
        let (seconds, nanos) = begun.to_unix();
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 1000);
        seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000)) < before.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_goes_on_by_another_name_and_what_was_counted_by_the_old_one_is_not_its_own() {
        let (marks, tenant) = (Marks::default(), TenantId::literal("contoso"));
        let name = marks.sidecar();
        marks.acknowledge(&tenant, &name, Mark { epoch: 1, sequence: 7 });
        let now = uuid::Uuid::now_v7().get_timestamp().expect("an instant").to_unix().0;
        let day = |n: i64| Millis((i64::try_from(now).expect("now") + n * 86_400) * 1000);
        marks.rename_old_run(day(29));
        assert_eq!(marks.sidecar(), name);
        let forgotten = marks.rename_old_run(day(31));
        assert_ne!(marks.sidecar(), name);
        // An answer that was on its way.
        marks.acknowledge(&tenant, &name, Mark { epoch: 1, sequence: 8 });
        assert_eq!(marks.known(&tenant), Mark::default());
        assert!(!is_run_before(&name, forgotten) && is_run_before(&name, day(91)));
        // That of a journal lasts as long as the journal.
        marks.adopt(&"0".repeat(32), []);
        marks.rename_old_run(day(10_000));
        assert_eq!(*marks.sidecar(), *"0".repeat(32));
        assert!(!is_run_before(&marks.sidecar(), day(10_000)) && !is_run_before("run.x", day(1)));
    }

    #[test]
    fn answers_that_overtake_each_other_leave_the_highest() {
        let (marks, tenant) = (Marks::default(), TenantId::literal("contoso"));
        for sequence in [3, 7, 5] {
            marks.acknowledge(&tenant, &marks.sidecar(), Mark { epoch: 0, sequence });
        }
        marks.acknowledge(&tenant, &marks.sidecar(), Mark { epoch: 1, sequence: 6 });
        assert_eq!(marks.known(&tenant), Mark { epoch: 1, sequence: 7 });
        assert_eq!(marks.known(&TenantId::literal("other")), Mark::default());
    }

    #[test]
    fn what_is_lost_twice_is_replayed_from_the_lower_one() {
        let (marks, tenant) = (Marks::default(), TenantId::literal("contoso"));
        let (first, second) = (Lost { above: 5, last: 9 }, Lost { above: 3, last: 12 });
        marks.lose(&tenant, first);
        assert!(!marks.is_replaying(&tenant), "there is nothing to replay from");
        marks.adopt("sidecar", []);
        marks.lose(&tenant, first);
        marks.lose(&tenant, second);
        marks.replayed(&tenant, first);
        assert_eq!(marks.losses(), [(tenant.clone(), Lost { above: 3, last: 12 })]);
        marks.replayed(&tenant, Lost { above: 3, last: 12 });
        assert!(!marks.is_replaying(&tenant));
    }

    #[test]
    fn marks_come_back_as_they_were_stored() {
        let mark = Mark { epoch: 8191, sequence: SEQUENCES - 1 };
        assert_eq!(Mark::unpacked((1 << 53) - 1), mark);
        let lost = Lost { above: 5, last: SEQUENCES };
        assert_eq!(Lost::decode(&lost.encode()), Some(lost));
        assert_eq!(Lost::decode("nonsense"), None);
    }
}
