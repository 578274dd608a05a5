//! The figures that Prometheus reads: one set for the process, found without a lookup on the way of a call.
//!
//! Every series has labels of a fixed list: RPCs, codes, decisions, classes, commands. What a client sends
//! never names one, so that nobody can make series. A counter of a combination begins to exist with its
//! first count; its place is an index, not a hash.
//!
//! Knows the words of a decision, and nothing of calls, money, ledgers or servers: they tell it.

mod survey;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::charging::decision::Decision;
use crate::charging::entitlement::{CallClass, CallType};
pub use crate::metrics::survey::{AGES, Survey, SurveyCell};

/// What the page is: a text that Prometheus 2.5 and later read.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of a series.
pub type Labels = Vec<(&'static str, &'static str)>;

/// The trace that an observation belongs to, as an exemplar.
pub type Exemplar = [(&'static str, String); 1];

/// Most different verbs of the ledger's scripts.
const MOST_VERBS: usize = 64;

/// The codes of gRPC by number.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Declares a fixed list of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// As labels say it.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// Who decides.
    Decider {
        /// A new call.
        Authorize = "AuthorizeCall",
        /// A running one.
        Extend = "ExtendCall",
        /// Nobody: a question.
        Quote = "QuoteCall",
    }
}

words! {
    /// What the ledger is asked for.
    Command {
        /// Hold what a call may cost.
        Authorize = "authorize",
        /// Note the answer.
        Answer = "answer",
        /// Lengthen a grant.
        Extend = "extend",
        /// Settle, release, or end as proven.
        End = "end",
        /// Put back a call that a token proves.
        Restore = "restore",
        /// Look what a call would find.
        Position = "position",
        /// List open calls.
        OpenCalls = "open_calls",
        /// Read a tenant, payer or deck that is not remembered.
        Directory = "directory",
        /// Expire what is due.
        Sweep = "sweep",
        /// Is it there.
        Ping = "ping",
    }
}

words! {
    /// How the ledger failed.
    LedgerFault {
        /// It was not asked, or refused.
        Unavailable = "unavailable",
        /// It may have done it: no answer in time.
        Indeterminate = "indeterminate",
        /// It holds what cannot be read.
        Corrupt = "corrupt",
        /// It was asked for what is no place in it.
        BadCursor = "bad_cursor",
    }
}

words! {
    /// What became of an ended call.
    Settled {
        /// Charged.
        Settled = "SETTLED",
        /// Charged before, otherwise.
        AlreadySettled = "ALREADY_SETTLED",
        /// Given back.
        Released = "RELEASED",
        /// Without a grant: noted, not charged.
        Parked = "PARKED",
        /// In the journal, to be charged.
        Accepted = "ACCEPTED",
    }
}

words! {
    /// Why a request was turned away at the door.
    Shed {
        /// Too many at a time.
        InFlight = "in_flight",
        /// The end has begun.
        Draining = "draining",
    }
}

words! {
    /// What became of a call that the ledger gave no answer to.
    Degraded {
        /// LEDGER_UNAVAILABLE.
        Refused = "refused",
        /// Allowed by local rules, recorded later.
        Recorded = "recorded",
        /// Granted out of a lease.
        Granted = "granted",
    }
}

words! {
    /// What became of something that the ledger had lost.
    Replayed {
        /// A call, as it was acknowledged last.
        Call = "call",
        /// A purchase, a recharge, a correction or a block.
        Other = "other",
        /// It cannot be replayed any more; the log says what it was.
        Missed = "missed",
    }
}

words! {
    /// What is remembered of the ledger.
    Entry {
        /// A tenant.
        Tenant = "tenant",
        /// A payer.
        Payer = "payer",
        /// A rate deck.
        Deck = "deck",
    }
}

words! {
    /// Why a request was refused for who asks it; in the order of `security::Reason`.
    Refused {
        /// Neither token nor certificate.
        NoCredential = "no_credential",
        /// Nobody's token.
        UnknownToken = "unknown_token",
        /// A token after its time.
        ExpiredToken = "expired_token",
        /// Nobody's certificate.
        UnknownCertificate = "unknown_certificate",
        /// Not for this role.
        Role = "role",
        /// Another tenant.
        Tenant = "tenant",
        /// Too many a second.
        Rate = "rate",
        /// Too many at a time.
        InFlight = "in_flight",
        /// Too large.
        MessageSize = "message_size",
        /// Too many emergency calls of nobody.
        Strangers = "strangers",
        /// No TLS.
        Handshake = "handshake",
    }
}

words! {
    /// What is read again while the process runs.
    Reloaded {
        /// Who may ask for what.
        Identities = "identities",
        /// Of TLS.
        Certificates = "certificates",
        /// The settings.
        Settings = "settings",
    }
}

/// Series by index, each made at its first use.
struct Table<M> {
    family: Family<Labels, M>,
    cells: Box<[OnceLock<M>]>,
}

impl<M: Clone> Table<M> {
    fn new(family: &Family<Labels, M>, cells: usize) -> Self {
        let cells = (0..cells).map(|_| OnceLock::new()).collect();
        Table { family: family.clone(), cells }
    }

    /// Calls with the series at `index`, if there may be one.
    fn with(&self, index: usize, labels: impl FnOnce() -> Labels, tell: impl FnOnce(&M)) {
        if let Some(cell) = self.cells.get(index) {
            tell(cell.get_or_init(|| self.family.get_or_create_owned(&labels())));
        }
    }
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<Labels, HistogramWithExemplars<Exemplar>>,
    in_flight: Family<Labels, Gauge>,
    decisions: Table<Counter>,
    replays: [Counter; Decider::ALL.len()],
    settles: [Counter; Settled::ALL.len()],
    shortfalls: Counter,
    shed: [Counter; Shed::ALL.len()],
    degraded: [Counter; Degraded::ALL.len()],
    commands: [Histogram; Command::ALL.len()],
    faults: [[Counter; LedgerFault::ALL.len()]; Command::ALL.len()],
    runs: Table<Histogram>,
    hits: [Counter; Entry::ALL.len()],
    misses: [Counter; Entry::ALL.len()],
    expired: Counter,
    survey_failures: Counter,
    ledger_up: Gauge,
    ready: Gauge,
    journal: Journal,
    survey: SurveyCell,
    refused: [Counter; Refused::ALL.len()],
    reloads: [[Counter; 2]; Reloaded::ALL.len()],
    stale: [Gauge; Reloaded::ALL.len()],
    regressed: Counter,
    replayed: [Counter; Replayed::ALL.len()],
}

/// The journal's figures.
#[derive(Default)]
struct Journal {
    enabled: Gauge,
    todo: Gauge,
    oldest: Gauge,
    bytes: Gauge,
    trouble: Gauge,
    appended: Counter,
    syncs: Counter,
    missed: Counter,
}

/// How the journal stands, as far as figures tell it.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalFigures {
    /// Entries that the ledger has to do.
    pub todo: usize,
    /// Age of the oldest of them, in seconds.
    pub oldest_seconds: i64,
    /// On disk.
    pub bytes: u64,
    /// Whether nothing can be accepted now.
    pub trouble: bool,
    /// Entries since the start.
    pub appended: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// What could not be taken since the start.
    pub missed: u64,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Those of this process.
pub fn get() -> &'static Metrics {
    &METRICS
}

/// From a tenth of a millisecond to five seconds.
fn of_requests() -> HistogramWithExemplars<Exemplar> {
    HistogramWithExemplars::new(BUCKETS.into_iter())
}

fn of_commands() -> Histogram {
    Histogram::new(BUCKETS)
}

fn of_runs() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
}

fn label(name: &'static str, value: &'static str) -> Labels {
    vec![(name, value)]
}

impl Metrics {
    fn new() -> Metrics {
        let mut registry = Registry::with_prefix("tollgate");
        let requests = Family::<Labels, Counter>::default();
        let durations = Family::<Labels, _>::new_with_constructor(of_requests as fn() -> _);
        let in_flight = Family::<Labels, Gauge>::default();
        let decisions = Family::<Labels, Counter>::default();
        let replays = Family::<Labels, Counter>::default();
        let settles = Family::<Labels, Counter>::default();
        let shed = Family::<Labels, Counter>::default();
        let degraded = Family::<Labels, Counter>::default();
        let commands = Family::<Labels, _>::new_with_constructor(of_commands as fn() -> _);
        let faults = Family::<Labels, Counter>::default();
        let runs = Family::<Labels, _>::new_with_constructor(of_runs as fn() -> _);
        let lookups = Family::<Labels, Counter>::default();
        let (shortfalls, expired, survey_failures) =
            (Counter::default(), Counter::default(), Counter::default());
        let (ledger_up, ready, journal) = (Gauge::default(), Gauge::default(), Journal::default());
        let survey = SurveyCell::default();

        let version = label("version", env!("CARGO_PKG_VERSION"));
        registry.register("build", "The program that runs", Info::new(version));
        let mut add = Adding(&mut registry);
        add.of("rpc_requests", "Requests answered, by RPC and code", &requests);
        add.of("rpc_duration_seconds", "Time from headers to answer", &durations);
        add.of("rpc_in_flight", "Requests that wait for their answer", &in_flight);
        add.of("requests_shed", "Requests turned away before they were looked at", &shed);
        add.of("decisions", "Decisions made, repeats apart", &decisions);
        add.of("decisions_replayed", "Decisions repeated to a retry", &replays);
        add.of("settles", "Calls that were ended by a client, repeats apart", &settles);
        add.of("settles_short", "Calls whose usage was not paid for in full", &shortfalls);
        add.of(
            "decisions_without_ledger",
            "New calls that the ledger gave no answer to",
            &degraded,
        );
        add.of(
            "ledger_command_duration_seconds",
            "Time until the ledger answered, or was given up",
            &commands,
        );
        add.of("ledger_errors", "Commands that the ledger gave no outcome to", &faults);
        add.of("ledger_run_commands", "Commands of a script run on Redis", &runs);
        add.of("ledger_up", "1 while the ledger answers", &ledger_up);
        add.of("ready", "1 while calls should be sent here", &ready);
        add.of("directory_lookups", "Looks for a tenant, payer or deck in memory", &lookups);
        add.of("holds_expired", "Holds that this process let expire", &expired);
        add.of("journal_enabled", "1 where there is a journal", &journal.enabled);
        add.of("journal_todo_entries", "Entries that the ledger has to do", &journal.todo);
        add.of("journal_oldest_todo_seconds", "Age of the oldest of them", &journal.oldest);
        add.of("journal_bytes", "Size on disk", &journal.bytes);
        add.of("journal_trouble", "1 while the journal can take nothing", &journal.trouble);
        add.of("journal_appended", "Entries written", &journal.appended);
        add.of("journal_syncs", "Syncs to disk", &journal.syncs);
        add.of("journal_missed", "Entries that could not be written", &journal.missed);
        let (regressed, replayed) = (Counter::default(), Family::<Labels, Counter>::default());
        add.of("ledger_regressed", "Losses of what this sidecar was acknowledged", &regressed);
        add.of("ledger_replayed", "What was lost, by what became of it", &replayed);
        add.of(
            "survey_failures",
            "Looks at the ledger's holds and funds that failed",
            &survey_failures,
        );
        let (refused, reloads) = <(Family<Labels, Counter>, Family<Labels, Counter>)>::default();
        let stale = Family::<Labels, Gauge>::default();
        add.of("requests_refused", "Requests refused for who asks them, by reason", &refused);
        add.of("reloads", "Files read again, by what and how it went", &reloads);
        add.of("reload_failed", "1 while a changed file cannot be used and the old stays", &stale);
        registry.register_collector(Box::new(survey.clone()));

        let of = |family: &Family<Labels, Counter>, labels| family.get_or_create_owned(&labels);
        let each =
            |family, name, words: &[&'static str], n: usize| of(family, label(name, words[n]));
        let deciders = words_of(Decider::ALL, Decider::word);
        let ended = words_of(Settled::ALL, Settled::word);
        let sheds = words_of(Shed::ALL, Shed::word);
        let outcomes = words_of(Degraded::ALL, Degraded::word);
        let asked = words_of(Command::ALL, Command::word);
        let kinds = words_of(LedgerFault::ALL, LedgerFault::word);
        let entries = words_of(Entry::ALL, Entry::word);
        let reasons = words_of(Refused::ALL, Refused::word);
        let files = words_of(Reloaded::ALL, Reloaded::word);
        let reload = |n: usize, how: usize| {
            of(&reloads, vec![("what", files[n]), ("result", ["failed", "ok"][how])])
        };
        let replayables = words_of(Replayed::ALL, Replayed::word);
        let looked =
            |n: usize, result| of(&lookups, vec![("entry", entries[n]), ("result", result)]);
        let fault =
            |c: usize, k: usize| of(&faults, vec![("command", asked[c]), ("kind", kinds[k])]);
        let cells =
            Decider::ALL.len() * Decision::ALL.len() * (CLASSES.len() + 1) * (TYPES.len() + 1);
        Metrics {
            decisions: Table::new(&decisions, cells),
            replays: std::array::from_fn(|n| each(&replays, "rpc", &deciders, n)),
            settles: std::array::from_fn(|n| each(&settles, "result", &ended, n)),
            shed: std::array::from_fn(|n| each(&shed, "reason", &sheds, n)),
            degraded: std::array::from_fn(|n| each(&degraded, "outcome", &outcomes, n)),
            commands: std::array::from_fn(|n| {
                commands.get_or_create_owned(&label("command", asked[n]))
            }),
            faults: std::array::from_fn(|c| std::array::from_fn(|k| fault(c, k))),
            runs: Table::new(&runs, MOST_VERBS),
            hits: std::array::from_fn(|n| looked(n, "hit")),
            misses: std::array::from_fn(|n| looked(n, "miss")),
            shortfalls,
            expired,
            survey_failures,
            ledger_up,
            ready,
            journal,
            survey,
            refused: std::array::from_fn(|n| each(&refused, "reason", &reasons, n)),
            reloads: std::array::from_fn(|n| std::array::from_fn(|how| reload(n, how))),
            stale: std::array::from_fn(|n| stale.get_or_create_owned(&label("what", files[n]))),
            regressed,
            replayed: std::array::from_fn(|n| each(&replayed, "what", &replayables, n)),
            requests,
            durations,
            in_flight,
            registry,
        }
    }

    /// The series of an RPC, to be kept by who serves it.
    pub fn rpc(&self, name: &'static str) -> Rpc {
        let requests = Table::new(&self.requests, CODES.len());
        let rpc = Rpc {
            name,
            requests,
            duration: self.durations.get_or_create_owned(&label("rpc", name)),
            in_flight: self.in_flight.get_or_create_owned(&label("rpc", name)),
        };
        rpc.requests.with(0, || rpc.labels(0), |_| {});
        rpc
    }

    /// A decision was made; `replayed`: was repeated.
    pub fn decided(
        &self,
        by: Decider,
        decision: Decision,
        class: Option<CallClass>,
        call_type: Option<CallType>,
        replayed: bool,
    ) {
        if replayed {
            self.replays[by as usize].inc();
            return;
        }
        let class_at = class.map_or(0, |class| class as usize + 1);
        let type_at = call_type.map_or(0, |call_type| call_type as usize + 1);
        let index = by as usize * Decision::ALL.len() + decision as usize;
        let index = (index * (CLASSES.len() + 1) + class_at) * (TYPES.len() + 1) + type_at;
        let labels = || {
            vec![
                ("rpc", by.word()),
                ("decision", decision.name()),
                ("class", class.map_or("", CallClass::name)),
                ("call_type", call_type.map_or("", CallType::name)),
            ]
        };
        self.decisions.with(index, labels, |counter| {
            counter.inc();
        });
    }

    /// A call was ended; `short`: something of it was not paid for.
    pub fn settled(&self, result: Settled, short: bool) {
        self.settles[result as usize].inc();
        if short {
            self.shortfalls.inc();
        }
    }

    /// A request was turned away.
    pub fn shed(&self, why: Shed) {
        self.shed[why as usize].inc();
    }

    /// A request was refused for who asks it, for the reason of that place in [`Refused`].
    pub fn refused(&self, reason: usize) {
        if let Some(counter) = self.refused.get(reason) {
            counter.inc();
        }
    }

    /// A file that had changed was read again; or it cannot be used, and the old one stays.
    pub fn reloaded(&self, what: Reloaded, ok: bool) {
        self.reloads[what as usize][usize::from(ok)].inc();
        self.stale[what as usize].set((!ok).into());
    }

    /// The ledger was found behind what this sidecar was acknowledged.
    pub fn regressed(&self) {
        self.regressed.inc();
    }

    /// Something that was lost was replayed, or cannot be.
    pub fn replayed(&self, what: Replayed) {
        self.replayed[what as usize].inc();
    }

    /// A new call was answered without the ledger.
    pub fn degraded(&self, outcome: Degraded) {
        self.degraded[outcome as usize].inc();
    }

    /// The ledger answered, or failed, after so long.
    pub fn asked(&self, command: Command, took: Duration, fault: Option<LedgerFault>) {
        self.commands[command as usize].observe(took.as_secs_f64());
        if let Some(fault) = fault {
            self.faults[command as usize][fault as usize].inc();
        }
    }

    /// So many commands travel as one run of a script, which is the `verb`th, of that name.
    pub fn run(&self, verb: usize, name: &'static str, commands: usize) {
        let commands = u32::try_from(commands).unwrap_or(u32::MAX);
        self.runs.with(verb, || label("command", name), |runs| runs.observe(commands.into()));
    }

    /// An entry was looked for in memory.
    pub fn looked_up(&self, entry: Entry, found: bool) {
        let counters = if found { &self.hits } else { &self.misses };
        counters[entry as usize].inc();
    }

    /// So many holds expired.
    pub fn expired(&self, holds: u32) {
        self.expired.inc_by(holds.into());
    }

    /// Whether the ledger answers.
    pub fn set_ledger_up(&self, up: bool) {
        self.ledger_up.set(up.into());
    }

    /// Whether calls should be sent here.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// How the journal stands; `None` where there is none.
    pub fn set_journal(&self, figures: Option<JournalFigures>) {
        let journal = &self.journal;
        journal.enabled.set(figures.is_some().into());
        let figures = figures.unwrap_or_default();
        journal.todo.set(i64::try_from(figures.todo).unwrap_or(i64::MAX));
        journal.oldest.set(figures.oldest_seconds);
        journal.bytes.set(i64::try_from(figures.bytes).unwrap_or(i64::MAX));
        journal.trouble.set(figures.trouble.into());
        for (counter, now) in [
            (&journal.appended, figures.appended),
            (&journal.syncs, figures.syncs),
            (&journal.missed, figures.missed),
        ] {
            // They count for themselves; here they are only told.
            let counted: &AtomicU64 = counter.inner();
            counted.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What the ledger was last seen to hold; `None` where it could not be seen.
    pub fn set_survey(&self, survey: Option<Survey>) {
        match survey {
            Some(survey) => self.survey.set(survey),
            None => {
                self.survey_failures.inc();
            }
        }
    }

    /// All of it, as [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Only a writer that fails makes this fail, and a string does not.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn words_of<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|&one| word(one)).collect()
}

/// Classes and types, to be counted.
const CLASSES: [CallClass; 8] = [
    CallClass::Emergency,
    CallClass::OnNet,
    CallClass::Domestic,
    CallClass::International,
    CallClass::TollFreeOutbound,
    CallClass::TollFreeInbound,
    CallClass::Premium,
    CallClass::Inbound,
];
const TYPES: [CallType; 5] = [
    CallType::UserOutbound,
    CallType::ConferenceDialOut,
    CallType::ConferenceDialIn,
    CallType::TollFreeInbound,
    CallType::UserInbound,
];

/// Registers what stays with whoever counts.
struct Adding<'a>(&'a mut Registry);

impl Adding<'_> {
    fn of<M: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static>(
        &mut self,
        name: &str,
        help: &str,
        metric: &M,
    ) {
        self.0.register(name, help, metric.clone());
    }
}

/// The series of one RPC.
pub struct Rpc {
    name: &'static str,
    requests: Table<Counter>,
    duration: HistogramWithExemplars<Exemplar>,
    in_flight: Gauge,
}

impl Rpc {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn labels(&self, code: usize) -> Labels {
        vec![("rpc", self.name), ("code", CODES[code])]
    }

    /// A request has begun; it ends with this value, as CANCELLED where nobody said otherwise.
    pub fn begin(&'static self) -> Begun {
        self.in_flight.inc();
        Begun { rpc: self, at: Instant::now(), code: CANCELLED, trace: None }
    }
}

const CANCELLED: usize = 1;

/// A request that is under way.
pub struct Begun {
    rpc: &'static Rpc,
    at: Instant,
    code: usize,
    trace: Option<String>,
}

impl Begun {
    /// It was answered with that code; as a part of a trace, where it is one that is kept.
    pub fn answered(&mut self, code: usize, trace: Option<String>) {
        // Codes that gRPC does not know are UNKNOWN.
        self.code = if code < CODES.len() { code } else { 2 };
        self.trace = trace;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Begun { rpc, at, code, .. } = self;
        rpc.in_flight.dec();
        rpc.requests.with(
            *code,
            || rpc.labels(*code),
            |counter| {
                counter.inc();
            },
        );
        let exemplar = self.trace.take().map(|trace| [("trace_id", trace)]);
        rpc.duration.observe(at.elapsed().as_secs_f64(), exemplar, None);
    }
}

/// Upper bounds in seconds, dense where a decision usually falls.
const BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
