//! One simulated world: a plan drawn from the seed, a stepped clock, a ledger, sidecars, and the network
//! between them and the SBCs.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tollgate::administration::Administration;
use tollgate::charging::deck::Deck;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::credit_control::{CreditControl, Settings};
use tollgate::journal::{self, Journal};
use tollgate::ledger::memory::{Earlier, MemoryLedger};
use tollgate::ledger::{ClockOffset, Ledger, LedgerError};

use crate::places::{DECKS, MONTH_ENDS, MonthEnd, deck_csv};
use crate::tally::Tally;
use crate::wire::{Fault, Wire};

/// Steps that a failure shows.
const SHOWN: usize = 80;

/// Longest that an SBC waits for an answer to one message.
const PATIENCE: Duration = Duration::from_millis(2_600);

/// How much later than its deadline a sidecar may answer.
const SLACK: Duration = Duration::from_millis(2);

pub const RINGING: Seconds = Seconds(180);
pub const GRACE: Seconds = Seconds(60);
pub const ENDED_RETENTION: Seconds = Seconds(24 * 3600);

/// What the seed decides for a whole run.
pub struct Plan {
    pub month: &'static MonthEnd,
    /// When the run begins, some time before the month ends.
    pub begins: Millis,
    /// How long calls are placed and things happen.
    pub window: Seconds,
    /// Of a thousand commands to the ledger, and messages to a sidecar, so many meet a fault.
    pub ledger_faults: u32,
    pub client_faults: u32,
    pub sidecars: usize,
    pub sbcs: usize,
    pub calls_per_sbc: usize,
    /// `on_lost_settle: granted`.
    pub charges_granted: bool,
    pub deducts_shortfall: bool,
    pub retries: bool,
    pub velocity: bool,
    pub recharge: bool,
    pub recharge_on_available: bool,
    /// Money that is bought at the start, in units.
    pub credits: i64,
    /// Each sidecar has a journal.
    pub journals: bool,
    /// The ledger goes back now and then; the one sidecar has a journal.
    pub goes_back: bool,
}

impl Plan {
    fn draw(dice: &mut Rng) -> Plan {
        let month = &MONTH_ENDS[dice.usize(..MONTH_ENDS.len())];
        let window = Seconds(dice.i64(40 * 60..150 * 60));
        let faults = [0, 30, 100, 300];
        let sidecars = dice.usize(1..4);
        let journals = dice.u8(..3) == 0;
        let goes_back = journals && dice.bool();
        Plan {
            month,
            begins: Millis(month.at - dice.i64(0..window.0) * 1000 - dice.i64(0..1000)),
            window,
            ledger_faults: faults[dice.usize(..4)],
            client_faults: faults[dice.usize(..4)],
            // Another one would park the usage of a call that is not replayed yet: nobody sends grants here.
            sidecars: if goes_back { 1 } else { sidecars },
            sbcs: dice.usize(2..5),
            calls_per_sbc: dice.usize(6..16),
            charges_granted: dice.u8(..4) == 0,
            deducts_shortfall: dice.bool(),
            retries: dice.bool(),
            velocity: dice.u8(..4) == 0,
            // A recharge whose request is lost comes back only as the ledger asks anew.
            recharge: dice.bool() && !goes_back,
            recharge_on_available: dice.bool(),
            credits: dice.i64(0..15),
            journals,
            goes_back,
        }
    }
}

/// Whether the ledger can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    No,
    Refuses,
    Hangs,
}

/// A sidecar, from its start to its crash.
pub struct Sidecar {
    /// Of all that were ever started.
    pub number: u64,
    pub control: Arc<CreditControl<Wire>>,
    pub administration: Administration<Wire>,
    wire: Arc<Wire>,
    alive: AtomicBool,
    running: Mutex<Vec<AbortHandle>>,
    /// What it does by itself: bringing what its journal holds to the ledger.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// How long a sidecar looks for losses once there may be one: in truth it does so always.
const LOOKS: Duration = Duration::from_secs(300);

impl Sidecar {
    fn start(world: &Arc<World>, slot: usize, number: u64) -> Arc<Sidecar> {
        let wire = Arc::new(Wire::new(world));
        let settings = Settings {
            default_grant: Seconds(300),
            max_grant: Seconds(4 * 3600),
            ringing_timeout: RINGING,
            grace: GRACE,
            denied_retention: Seconds(600),
            ended_retention: ENDED_RETENTION,
            ledger_timeout: Duration::from_millis(500),
            emergency_country: None,
            token_keys: None,
            degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
        };
        let journal = world.plan.journals.then(|| Arc::new(world.open_journal(slot)));
        let control = CreditControl::with_journal(wire.clone(), settings, journal.clone());
        let control = Arc::new(control);
        for deck in &world.decks {
            control.directory().keep_deck(deck.clone());
        }
        let administration = Administration::new(control.clone(), Seconds(120));
        let sidecar = Arc::new(Sidecar {
            number,
            control: control.clone(),
            administration,
            wire,
            alive: AtomicBool::new(true),
            running: Mutex::default(),
            tasks: Mutex::default(),
        });
        if journal.is_some() {
            let drain = tokio::spawn(control.drain());
            locked(&sidecar.tasks).push(drain.abort_handle());
        }
        if world.plan.goes_back {
            sidecar.look_for_losses();
        }
        sidecar
    }

    /// Looks for what the ledger has lost, and replays it.
    pub fn look_for_losses(&self) {
        let looks = tokio::spawn(timeout(LOOKS, self.control.clone().replay_losses()));
        locked(&self.tasks).push(looks.abort_handle());
    }

    /// Whether everything that it was acknowledged is there, as the ledger says.
    pub async fn is_whole(&self, tenants: &[TenantId]) -> bool {
        for tenant in tenants {
            if self.wire.store().lost(tenant).await != Ok(None) {
                return false;
            }
        }
        true
    }

    /// Until the ledger has done what the journal holds.
    pub async fn drained(&self, limit: Duration) -> bool {
        match self.control.journal() {
            Some(journal) => journal.drained(None, limit).await,
            None => true,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Drops everything it remembers and does, at once.
    fn crash(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.wire.cut();
        for task in locked(&self.running).drain(..).chain(locked(&self.tasks).drain(..)) {
            task.abort();
        }
        if let Some(journal) = self.control.journal() {
            journal.close();
        }
    }
}

/// See the module.
pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub store: MemoryLedger,
    pub tally: Mutex<Tally>,
    decks: Vec<Arc<Deck>>,
    store_clock: ClockOffset,
    started: Instant,
    dice: Mutex<Rng>,
    away: Mutex<Away>,
    /// When something last went wrong between a sidecar and the ledger.
    trouble: Mutex<Option<Instant>>,
    calm: AtomicBool,
    sidecars: Mutex<Vec<Option<Arc<Sidecar>>>>,
    starts: AtomicU64,
    trace: Mutex<VecDeque<String>>,
    steps: Mutex<(u64, u64)>,
    points: Mutex<BTreeMap<String, u64>>,
    findings: Mutex<Vec<String>>,
    journals: TempDir,
    /// How often the ledger went back, and when it last did.
    eras: AtomicU64,
    went_back: Mutex<Option<Instant>>,
    /// How often an operator has begun or ended to apply something, which is in no journal.
    pub applied: AtomicU64,
}

pub fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In memory, where the system has such a place.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A use case as an SBC or an operator asks for it, on whichever sidecar the message reaches.
pub type Handle<T> =
    Arc<dyn Fn(Arc<Sidecar>, Instant) -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

impl World {
    pub fn new(seed: u64) -> Arc<World> {
        let mut dice = Rng::with_seed(seed);
        let plan = Plan::draw(&mut dice);
        let store_clock = ClockOffset::default();
        store_clock.freeze_at(plan.begins);
        let decks = (0..DECKS).map(|number| Deck::parse(deck_csv(number).as_bytes()).unwrap());
        Arc::new(World {
            seed,
            store: MemoryLedger::new(store_clock.clone()),
            tally: Mutex::default(),
            decks: decks.map(Arc::new).collect(),
            store_clock,
            started: Instant::now(),
            dice: Mutex::new(dice.fork()),
            away: Mutex::new(Away::No),
            trouble: Mutex::default(),
            calm: AtomicBool::new(true),
            sidecars: Mutex::new(vec![None; plan.sidecars]),
            starts: AtomicU64::new(0),
            plan,
            trace: Mutex::default(),
            steps: Mutex::default(),
            points: Mutex::default(),
            findings: Mutex::default(),
            journals: folder(),
            eras: AtomicU64::new(0),
            went_back: Mutex::default(),
            applied: AtomicU64::new(0),
        })
    }

    /// The journal of the sidecar of that slot, as the last one there has left it.
    fn open_journal(&self, slot: usize) -> Journal {
        let folder = self.journals.path().join(slot.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        // Not drawn by chance.
        std::fs::write(folder.join("SIDECAR"), format!("{:032x}", slot + 1)).unwrap();
        let keep = Duration::from_secs(10 * 365 * 86_400);
        Journal::open_in_place(&journal::Settings { folder, keep, most_bytes: 1 << 30 }).unwrap()
    }

    /// Dice of somebody's own, so that what one does shifts nobody else's luck.
    pub fn dice(&self, of: u64) -> Rng {
        Rng::with_seed(self.seed ^ (of + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn now(&self) -> Millis {
        let since = self.started.elapsed().as_millis();
        Millis(self.plan.begins.0 + i64::try_from(since).unwrap())
    }

    pub fn set_store_clock(&self) {
        self.store_clock.freeze_at(self.now());
    }

    // What happened.

    /// One step of the trace.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let since = self.started.elapsed();
        let line = format!("{:>9.3} s  {}", since.as_secs_f64(), what());
        let mut steps = locked(&self.steps);
        steps.0 += 1;
        for byte in line.bytes() {
            steps.1 = (steps.1 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let mut trace = locked(&self.trace);
        if trace.len() == SHOWN {
            trace.pop_front();
        }
        trace.push_back(line);
    }

    /// Something that must not be.
    pub fn find(&self, what: String) {
        self.note(|| format!("FOUND {what}"));
        locked(&self.findings).push(what);
    }

    pub fn point(&self, name: &str, at: &str) {
        *locked(&self.points).entry(format!("{name}: {at}")).or_default() += 1;
    }

    pub fn findings(&self) -> Vec<String> {
        locked(&self.findings).clone()
    }

    pub fn trace(&self) -> Vec<String> {
        locked(&self.trace).iter().cloned().collect()
    }

    /// How many steps there were, and a digest of all of them.
    pub fn steps(&self) -> (u64, u64) {
        *locked(&self.steps)
    }

    /// How often a command of a verb was delivered to the ledger when nobody waited for it.
    pub fn strays(&self, verb: &str) -> u64 {
        let points = locked(&self.points);
        let of = |fault: Fault| points.get(&format!("{}: {verb}", fault.name())).copied();
        let never = Duration::ZERO;
        [Fault::Late(never), Fault::Twice(never)].into_iter().filter_map(of).sum()
    }

    pub fn points(&self) -> BTreeMap<String, u64> {
        locked(&self.points).clone()
    }

    // Faults.

    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
        if calm {
            self.set_away(Away::No);
        }
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn away(&self) -> Away {
        *locked(&self.away)
    }

    /// Whether nothing has gone wrong between a sidecar and the ledger for some time.
    pub fn is_quiet(&self) -> bool {
        let last = *locked(&self.trouble);
        last.is_none_or(|at| at.elapsed() > Duration::from_secs(10))
    }

    pub fn set_away(&self, away: Away) {
        *locked(&self.trouble) = Some(Instant::now());
        *locked(&self.away) = away;
    }

    /// The fault that the next command to the ledger meets; `keyed`: whether it may arrive late and twice.
    pub fn fault(&self, verb: &'static str, keyed: bool) -> Fault {
        let fault = self.draw_fault(keyed);
        let away = self.away();
        if away != Away::No || fault != Fault::None {
            *locked(&self.trouble) = Some(Instant::now());
        }
        if away != Away::No {
            self.point(if away == Away::Hangs { "ledger hangs" } else { "ledger away" }, verb);
        }
        if fault != Fault::None {
            self.point(fault.name(), verb);
            self.note(|| format!("ledger {verb}: {}", fault.name()));
        }
        fault
    }

    fn draw_fault(&self, keyed: bool) -> Fault {
        let mut dice = locked(&self.dice);
        if self.is_calm() || dice.u32(..1000) >= self.plan.ledger_faults {
            return Fault::None;
        }
        match dice.u8(..if keyed { 7 } else { 4 }) {
            0 => Fault::Refused,
            1 => Fault::LostRequest,
            2 => Fault::LostReply,
            3 | 4 => Fault::Slow(
                Duration::from_millis(dice.u64(1..900)),
                Duration::from_millis(dice.u64(0..200)),
            ),
            5 => Fault::Late(Duration::from_millis(dice.u64(1..40_000))),
            _ => Fault::Twice(Duration::from_millis(dice.u64(1..40_000))),
        }
    }

    fn client_fault(&self, verb: &'static str) -> Fault {
        let fault = {
            let mut dice = locked(&self.dice);
            if self.is_calm() || dice.u32(..1000) >= self.plan.client_faults {
                return Fault::None;
            }
            match dice.u8(..5) {
                0 => Fault::LostRequest,
                1 => Fault::LostReply,
                2 => Fault::Slow(Duration::from_millis(dice.u64(1..1_000)), Duration::ZERO),
                3 => Fault::Late(Duration::from_millis(dice.u64(3_000..60_000))),
                _ => Fault::Twice(Duration::from_millis(dice.u64(1..60_000))),
            }
        };
        self.point(fault.name(), &format!("{verb} to the sidecar"));
        self.note(|| format!("{verb} to the sidecar: {}", fault.name()));
        fault
    }

    // A ledger that goes back.

    /// As it stands now.
    pub fn keep(&self, tenants: &[TenantId]) -> Vec<Earlier> {
        tenants.iter().map(|tenant| self.store.keep(tenant)).collect()
    }

    /// Everything since is lost, and so is what is on its way.
    pub fn roll_back(&self, tenants: &[TenantId], kept: &[Earlier]) {
        self.eras.fetch_add(1, Ordering::Relaxed);
        for (tenant, earlier) in tenants.iter().zip(kept) {
            self.store.roll_back(tenant, earlier);
        }
        *locked(&self.trouble) = Some(Instant::now());
        *locked(&self.went_back) = Some(Instant::now());
        for sidecar in locked(&self.sidecars).iter().flatten() {
            sidecar.look_for_losses();
        }
    }

    pub fn era(&self) -> u64 {
        self.eras.load(Ordering::Relaxed)
    }

    pub fn is_of_this(&self, era: u64) -> Result<(), LedgerError> {
        match self.era() == era {
            true => Ok(()),
            false => Err(LedgerError::Indeterminate("the connection broke".to_owned())),
        }
    }

    /// Whether it went back so lately that something may not be there again.
    pub fn may_be_torn(&self) -> bool {
        let at = *locked(&self.went_back);
        at.is_some_and(|at| at.elapsed() < Duration::from_secs(1_800))
    }

    // Sidecars.

    pub fn start_sidecars(self: &Arc<Self>) {
        for slot in 0..self.plan.sidecars {
            self.start_sidecar(slot);
        }
    }

    pub fn start_sidecar(self: &Arc<Self>, slot: usize) {
        if locked(&self.sidecars)[slot].is_none() {
            let number = self.starts.fetch_add(1, Ordering::Relaxed);
            let sidecar = Sidecar::start(self, slot, number);
            locked(&self.sidecars)[slot] = Some(sidecar);
            self.note(|| format!("sidecar-{slot} starts"));
        }
    }

    pub fn crash_sidecar(&self, slot: usize) {
        let sidecar = locked(&self.sidecars)[slot].take();
        if let Some(sidecar) = sidecar {
            let under_way = locked(&sidecar.running).iter().filter(|t| !t.is_finished()).count();
            self.point("sidecar crashes", if under_way > 0 { "in a request" } else { "idle" });
            self.note(|| format!("sidecar-{slot} crashes, {under_way} requests under way"));
            if !self.plan.journals {
                locked(&self.tally).emergencies.retain(|(of, _), _| *of != sidecar.number);
            }
            sidecar.crash();
        }
    }

    pub fn sidecar(&self, slot: usize) -> Option<Arc<Sidecar>> {
        locked(&self.sidecars)[slot].clone()
    }

    /// Lets go of the sidecars, whose wires hold the world.
    pub fn stop(&self) {
        locked(&self.sidecars).clear();
    }

    fn any_sidecar(&self) -> Option<Arc<Sidecar>> {
        let up: Vec<_> = locked(&self.sidecars).iter().flatten().cloned().collect();
        let chosen = locked(&self.dice).usize(..up.len().max(1));
        up.get(chosen).cloned()
    }

    /// One message to whichever sidecar; `None` where no answer came in time.
    pub async fn message<T: Send + 'static>(
        self: &Arc<Self>,
        verb: &'static str,
        handle: Handle<T>,
    ) -> Option<T> {
        let fault = self.client_fault(verb);
        let delay = match fault {
            Fault::LostRequest => {
                sleep(PATIENCE).await;
                return None;
            }
            Fault::Slow(delay, _) | Fault::Late(delay) => delay,
            _ => Duration::ZERO,
        };
        if let Fault::Twice(after) = fault {
            let (again, _) = oneshot::channel();
            self.deliver(verb, handle.clone(), after, again);
        }
        let (answer, answered) = oneshot::channel();
        if !self.deliver(verb, handle, delay, answer) {
            self.point("no sidecar up", verb);
            sleep(Duration::from_millis(100)).await;
            return None;
        }
        let answered = timeout(PATIENCE, answered).await.ok()?.ok()?;
        (fault != Fault::LostReply).then_some(answered)
    }

    /// Delivers a message after a while, to a sidecar that is up now; whether there is one.
    fn deliver<T: Send + 'static>(
        self: &Arc<Self>,
        verb: &'static str,
        handle: Handle<T>,
        after: Duration,
        answer: oneshot::Sender<T>,
    ) -> bool {
        let Some(sidecar) = self.any_sidecar() else { return false };
        let (world, at) = (self.clone(), sidecar.clone());
        let limit = Duration::from_millis(locked(&self.dice).u64(600..2_500));
        let task = tokio::spawn(async move {
            sleep(after).await;
            if !at.is_alive() {
                return;
            }
            let deadline = Instant::now() + limit;
            let done = handle(at.clone(), deadline).await;
            let over = Instant::now().saturating_duration_since(deadline);
            if over > SLACK {
                world.find(format!("{verb} was answered {over:?} after its deadline"));
            }
            // Nobody may be waiting any more.
            let _ = answer.send(done);
        });
        locked(&sidecar.running).push(task.abort_handle());
        true
    }

    /// One act of administration, by a connection that is closed before it is tried again: it does not
    /// arrive late. `None` where its answer was not heard.
    pub async fn administer<T: Send + 'static>(
        self: &Arc<Self>,
        verb: &'static str,
        handle: Handle<T>,
    ) -> Option<T> {
        let fault = match self.client_fault(verb) {
            Fault::LostRequest => return None,
            fault => fault,
        };
        let sidecar = self.any_sidecar()?;
        let task = tokio::spawn(handle(sidecar.clone(), Instant::now()));
        locked(&sidecar.running).push(task.abort_handle());
        let done = task.await.ok()?;
        (fault != Fault::LostReply).then_some(done)
    }
}
