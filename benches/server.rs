//! Tollgate as a whole against what it is held against, in one run, on this machine.
//!
//! `make bench`, or `QUICK=1 make bench`; see docs/PERFORMANCE.md for the method. Without `--bench`, so
//! in `cargo test`, everything runs once, for a moment, to see that it runs. Nothing is asserted about
//! speed. Prints the table, and writes it with plots under target/bench.
#![allow(clippy::unwrap_used, clippy::float_arithmetic, missing_docs)]

#[path = "server/cluster.rs"]
mod cluster;
#[path = "server/collector.rs"]
mod collector;
#[path = "parts/decision.rs"]
mod decision;
#[path = "server/disk.rs"]
mod disk;
#[path = "server/plot.rs"]
mod plot;
#[path = "server/redis_server.rs"]
mod redis_server;
#[path = "server/reference.rs"]
mod reference;
#[path = "server/subject.rs"]
mod subject;
#[path = "server/table.rs"]
mod table;
#[path = "server/telemetry.rs"]
mod telemetry;
#[path = "server/trial.rs"]
mod trial;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tollgate::cli::loadtest::drive::{Pace, start};
use tollgate::cli::loadtest::measure::median;
use tollgate::cli::loadtest::process::memory_kib;
use tollgate::cli::loadtest::wire::{Connection, Rpc, Shown, framed};
use tollgate::proto::v1;

use crate::decision::Decision;
use crate::subject::{Ledger, Process, SMALL, Size, Started, Subject, timed, tollgate};
use crate::table::{Found, Sizes};
use crate::trial::{MOST_MASTERS, Time, Trial, medians, run};

const AUTHORIZE: (usize, usize, usize) = (1, 0, 0);
const SETTLE: (usize, usize, usize) = (1, 0, 1);
const ALL: (usize, usize, usize) = (1, 1, 1);

const CLOSED: [usize; 2] = [1, 64];

/// Shares of the highest throughput at which the open loops run, in percent.
const LOADS: [u64; 4] = [25, 50, 75, 90];

/// How much is measured.
struct Scale {
    rounds: usize,
    time: Time,
    /// Turns of each, with telemetry and without, in a round; and how long each is.
    turns: usize,
    turn: Time,
    /// Times the masters: tenants on the clusters.
    tenants_of_a_master: u32,
    on_clusters: Time,
    /// Writes to the disk.
    syncs: usize,
    loads: &'static [u64],
    users: u32,
    open_holds: usize,
    deck: u32,
    resident_holds: usize,
    starts: usize,
}

const TINY: Scale = Scale {
    rounds: 1,
    time: Time { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) },
    turns: 1,
    turn: Time { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) },
    tenants_of_a_master: 2,
    on_clusters: Time { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) },
    syncs: 3,
    loads: &[50],
    users: 200,
    open_holds: 200,
    deck: 2_000,
    resident_holds: 100,
    starts: 1,
};

const QUICK: Scale = Scale {
    rounds: 3,
    time: Time { warm_up: Duration::from_millis(200), measured: Duration::from_millis(600) },
    turns: 2,
    turn: Time { warm_up: Duration::from_millis(200), measured: Duration::from_secs(1) },
    tenants_of_a_master: 10,
    on_clusters: Time { warm_up: Duration::from_millis(200), measured: Duration::from_secs(1) },
    syncs: 100,
    loads: &[50],
    users: 50_000,
    open_holds: 100_000,
    deck: 100_000,
    resident_holds: 100_000,
    starts: 3,
};

const FULL: Scale = Scale {
    rounds: 5,
    time: Time { warm_up: Duration::from_millis(500), measured: Duration::from_secs(2) },
    turns: 4,
    turn: Time { warm_up: Duration::from_millis(300), measured: Duration::from_secs(1) },
    tenants_of_a_master: 10,
    on_clusters: Time { warm_up: Duration::from_millis(300), measured: Duration::from_secs(2) },
    syncs: 500,
    loads: &LOADS,
    users: 50_000,
    open_holds: 1_000_000,
    deck: 100_000,
    resident_holds: 100_000,
    starts: 9,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--serve-reference") {
        let threads = arguments[1].parse().expect("a number of threads");
        return reference::serve(threads, arguments.get(2).map(String::as_str)).expect("serves");
    }
    if arguments.first().is_some_and(|first| first == "--serve-collector") {
        return collector::serve().expect("serves");
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    let real = arguments.iter().any(|argument| argument == "--bench");
    let quick = std::env::var_os("QUICK").is_some_and(|quick| quick != "0" && !quick.is_empty());
    let scale = match (real, quick) {
        (false, _) => TINY,
        (true, true) => QUICK,
        (true, false) => FULL,
    };
    let began = Instant::now();
    let found = measure(&scale);
    if !real {
        return println!("server: everything ran once");
    }
    let text = found.markdown();
    println!("\n{text}\nmeasured in {} s", began.elapsed().as_secs());
    let directory = std::env::var("BENCH_OUT").unwrap_or("target/bench".to_owned());
    std::fs::create_dir_all(&directory).expect("a directory for the results");
    let write = |name: &str, text: &str| {
        std::fs::write(format!("{directory}/{name}"), text).expect("the results can be written");
    };
    write("server.md", &text);
    write("latency-against-load.svg", &found.latency_plot());
    write("cost-against-size.svg", &found.size_plot());
}

fn measure(scale: &Scale) -> Found {
    let closed = closed(scale);
    let highest = closed[&(Subject::Tollgate(Ledger::Redis, AUTHORIZE), 64)].per_second;
    let (open, open_all) = open(scale, highest);
    Found {
        closed,
        open,
        others: open_all,
        pure_nanos: pure(scale),
        sizes: sizes(scale),
        telemetry: telemetry::measure(scale),
        clusters: clusters(scale, highest),
        disk: disk::measure(scale.syncs),
        start_millis: starts(scale),
    }
}

fn say(what: &str, trial: &Trial) {
    let Trial { per_second, p50, p99, server, redis, client, others, .. } = trial;
    let mut line = format!("{what:<44} {per_second:>8}/s");
    for (name, nanos) in
        [("p50", p50), ("p99", p99), ("server", server), ("redis", redis), ("client", client)]
    {
        let _ = write!(line, "  {name} {}.{}", nanos / 1_000, nanos / 100 % 10);
    }
    eprintln!("{line}  others {others} %");
}

/// Closed loops; the order is turned by one each round.
fn closed(scale: &Scale) -> BTreeMap<(Subject, usize), Trial> {
    let mut subjects = vec![
        Subject::Bare(1),
        Subject::Bare(2),
        Subject::Script,
        Subject::Naive(1),
        Subject::Naive(2),
    ];
    for ledger in [Ledger::Memory, Ledger::File, Ledger::Redis] {
        subjects.extend([AUTHORIZE, SETTLE, ALL].map(|mix| Subject::Tollgate(ledger, mix)));
    }
    let mut trials: BTreeMap<(Subject, usize), Vec<Trial>> = BTreeMap::new();
    for _ in 0..scale.rounds {
        for subject in &subjects {
            let started = Started::of(*subject, SMALL);
            for concurrency in CLOSED {
                let trial = play(*subject, &started, Pace::Closed { concurrency }, scale.time);
                say(&format!("{}, concurrency {concurrency}", subject.name()), &trial);
                trials.entry((*subject, concurrency)).or_default().push(trial);
            }
        }
        subjects.rotate_left(1);
    }
    trials.into_iter().map(|(what, trials)| (what, medians(&trials))).collect()
}

fn play(subject: Subject, started: &Started, pace: Pace, time: Time) -> Trial {
    match subject {
        Subject::Script => {
            let client = started.redis.first().expect("a redis").client();
            run(reference::Alone::new(client, SMALL.users), started, pace, time)
        }
        Subject::Tollgate(_, mix) => run(started.calls(mix, 60, 100), started, pace, time),
        Subject::Bare(_) | Subject::Naive(_) => {
            run(started.calls(AUTHORIZE, 60, 100), started, pace, time)
        }
    }
}

type Open = BTreeMap<(Subject, u64), Trial>;

/// Open loops at shares of Tollgate's highest throughput; and what other processes took, at the median.
fn open(scale: &Scale, highest: u64) -> (Open, u64) {
    let tollgate = Subject::Tollgate(Ledger::Redis, AUTHORIZE);
    let mut subjects = vec![Subject::Script, Subject::Naive(2), tollgate];
    let mut trials: BTreeMap<(Subject, u64), Vec<Trial>> = BTreeMap::new();
    for _ in 0..scale.rounds {
        for subject in &subjects {
            let started = Started::of(*subject, SMALL);
            for percent in scale.loads {
                let per_second = (highest * percent / 100).max(1);
                let pace = Pace::Open { per_second, most_in_flight: 1_000 };
                let trial = play(*subject, &started, pace, scale.time);
                say(&format!("{}, open, {percent} %", subject.name()), &trial);
                trials.entry((*subject, *percent)).or_default().push(trial);
            }
        }
        subjects.rotate_left(1);
    }
    let others = median(trials.values().flatten().map(|trial| trial.others).collect());
    (trials.into_iter().map(|(what, trials)| (what, medians(&trials))).collect(), others)
}

/// Nanoseconds of a decision that needs no ledger.
fn pure(scale: &Scale) -> u64 {
    let decision = Decision::default();
    let batch = |_| {
        let began = Instant::now();
        for _ in 0..1_000 {
            std::hint::black_box(decision.make());
        }
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / 1_000
    };
    median((0..scale.rounds * 20).map(batch).collect())
}

/// What a call costs with few and many users, holds and prefixes; all stand ready at once, and take
/// turns. And what applying a large organisation takes.
fn sizes(scale: &Scale) -> Sizes {
    let subject = Subject::Tollgate(Ledger::Redis, SETTLE);
    let few = Size { users: 5, ..SMALL };
    let many = Started::of(subject, few);
    let (apply, server_before) = (large_organisation(scale.users), resident(&many).1);
    let mut command = tollgate();
    let administration = many.administration.as_ref().expect("a server").to_string();
    command.args(["apply", "--timeout", "10m", "--admin-endpoint", &administration, "--file"]);
    command.arg(apply.path());
    let (apply_time, apply_client_kib) = timed(command);
    let apply_server_kib = resident(&many).1.saturating_sub(server_before);
    // The same users again, as the load test names them.
    drop(many);

    let many_size = Size { users: scale.users, ..SMALL };
    let many = Started::of(subject, many_size);
    let holds = Started::of(subject, few);
    authorize(&holds, scale.open_holds, 100);
    let deck = Started::of(subject, Size { deck_prefixes: scale.deck, ..few });
    let base = Started::of(subject, few);
    let names = [
        "5 users".to_owned(),
        format!("{} users", scale.users),
        format!("{} open holds", scale.open_holds),
        format!("{} prefixes", scale.deck),
    ];
    let stages = [base, many, holds, deck];
    let mut order = vec![0, 1, 2, 3];
    let mut trials = [const { Vec::new() }; 4];
    for _ in 0..scale.rounds {
        for &nth in &order {
            let pace = Pace::Closed { concurrency: 64 };
            let trial = play(subject, &stages[nth], pace, scale.time);
            say(&names[nth], &trial);
            trials[nth].push(trial);
        }
        order.rotate_left(1);
    }
    let costs = names.into_iter().zip(trials).map(|(name, trials)| (name, medians(&trials)));
    let costs = costs.collect();
    drop(stages);

    let resident_kib = [Ledger::Redis, Ledger::Memory].map(|ledger| {
        let started = Started::of(Subject::Tollgate(ledger, AUTHORIZE), many_size);
        authorize(&started, scale.resident_holds, 0);
        resident(&started).0
    });
    Sizes { costs, resident_kib, apply_time, apply_client_kib, apply_server_kib }
}

/// A load on a Redis Cluster of so many masters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCluster {
    /// The same for any number: all tenants, a closed loop.
    Same { masters: usize },
    /// As an installation grows: as many more tenants and requests a second as masters, an open loop.
    Grown { masters: usize },
}

impl OnCluster {
    pub fn masters(self) -> usize {
        match self {
            OnCluster::Same { masters } | OnCluster::Grown { masters } => masters,
        }
    }

    pub fn name(self) -> String {
        match self {
            OnCluster::Same { .. } => format!("closed, {IN_FLIGHT_ON_CLUSTERS} in flight"),
            OnCluster::Grown { masters } => {
                format!("open, {} % of Tollgate's highest", OF_A_MASTER * masters as u64)
            }
        }
    }
}

/// As many for each of three masters as elsewhere for one Redis.
const IN_FLIGHT_ON_CLUSTERS: usize = 64 * MOST_MASTERS;

/// Of Tollgate's highest throughput, what each master gets in an open loop, in percent. Calls that come one
/// by one cost several times what they do in a crowd: two cores carry no more for three without a queue.
const OF_A_MASTER: u64 = 5;

/// What a call costs on clusters of one master and more. All stand ready at once, and take turns.
fn clusters(scale: &Scale, highest: u64) -> Vec<(OnCluster, Trial)> {
    let tenants = scale.tenants_of_a_master;
    let most = tenants * MOST_MASTERS as u32;
    let size = Size { tenants: most, users: 100, minutes: 300_000, ..SMALL };
    let stages: Vec<Started> = thread::scope(|scope| {
        let start = |masters| {
            let subject = Subject::Tollgate(Ledger::Cluster(masters), SETTLE);
            scope.spawn(move || Started::of(subject, size))
        };
        // Each takes seconds before it serves.
        let starting: Vec<_> = (1..=MOST_MASTERS).map(start).collect();
        starting.into_iter().map(|one| one.join().expect("it starts")).collect()
    });
    let of = |masters| [OnCluster::Same { masters }, OnCluster::Grown { masters }];
    let loads: Vec<OnCluster> = (1..=MOST_MASTERS).flat_map(of).collect();
    let mut order: Vec<usize> = (0..loads.len()).collect();
    let mut trials = vec![vec![]; loads.len()];
    for _ in 0..scale.rounds {
        for &nth in &order {
            let load = loads[nth];
            let started = &stages[load.masters() - 1];
            let (tenants, pace) = match load {
                OnCluster::Same { .. } => {
                    (most, Pace::Closed { concurrency: IN_FLIGHT_ON_CLUSTERS })
                }
                OnCluster::Grown { masters } => {
                    let per_second = (highest * OF_A_MASTER * masters as u64 / 100).max(1);
                    let pace = Pace::Open { per_second, most_in_flight: 1_000 };
                    (tenants * masters as u32, pace)
                }
            };
            // Evenly: a tenant that has most of the calls would leave the other masters idle.
            let calls = started.calls_of(tenants, SETTLE, 60, 0);
            let trial = run(calls, started, pace, scale.on_clusters);
            say(&format!("masters: {}, {}", load.masters(), load.name()), &trial);
            trials[nth].push(trial);
        }
        order.rotate_left(1);
    }
    loads.into_iter().zip(trials).map(|(load, trials)| (load, medians(&trials))).collect()
}

fn resident(started: &Started) -> (u64, u64) {
    started.server_pid().and_then(memory_kib).unwrap_or_default()
}

/// Opens so many holds, which stay until long after the measurement.
fn authorize(started: &Started, holds: usize, zipf: u32) {
    let calls = Arc::new(started.calls(AUTHORIZE, 600, zipf));
    let driven = start(&calls, Pace::Closed { concurrency: 64 }, 1).expect("the server listens");
    while driven.answered() < holds as u64 {
        std::thread::sleep(Duration::from_millis(5));
    }
    driven.finish(Duration::from_secs(20));
}

/// An organisation file of so many users.
fn large_organisation(users: u32) -> tempfile::NamedTempFile {
    let mut yaml = "tenants:\n  - id: large\n    currency: USD\n    users:\n".to_owned();
    for user in 1..=users {
        let number = 2_065_550_000_u64 + u64::from(user);
        let _ = writeln!(
            yaml,
            "      - {{ id: user-{user}, usage_location: US, licences: [MCOEV, MCOPSTN1], numbers: [\"+1{number}\"] }}"
        );
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), yaml).expect("the file is writable");
    file
}

/// Milliseconds from starting the program to its first answer, where an organisation stands in Redis.
fn starts(scale: &Scale) -> u64 {
    let started = Started::of(Subject::Tollgate(Ledger::Redis, AUTHORIZE), SMALL);
    let url = started.redis.first().expect("a redis").url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let nth = |nth: usize| {
        let began = Instant::now();
        let (process, _) = Process::tollgate(&url, &[]);
        let request = v1::AuthorizeCallRequest {
            tenant_id: "loadtest-1".to_owned(),
            call_id: format!("start-{nth}-{}", process.pid()),
            call_type: v1::CallType::UserOutbound.into(),
            payer_id: "user-1".to_owned(),
            called_number: "+12065550142".to_owned(),
            ..Default::default()
        };
        runtime.block_on(async {
            let patience = Duration::from_secs(10);
            let shown = Shown::default();
            let connection = Connection::open(&process.calls, patience, &shown).await.unwrap();
            let path = "/tollgate.v1.CallAuthorizationService/AuthorizeCall";
            let rpc = Rpc::of(&process.calls, path).unwrap();
            connection.call(&rpc, framed(&request)).await.unwrap();
        });
        u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
    };
    median((0..scale.starts).map(nth).collect())
}
