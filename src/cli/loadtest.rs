//! `tollgate loadtest`: measures an installation with real calls over gRPC.
//!
//! One thread, or a few, make requests on a client that costs little ([`wire`]), in a closed or an open
//! loop ([`drive`]); what is measured is told as medians over rounds ([`report`]). It changes balances:
//! its calls are real ones. Made for tenants of its own ([`setup`]).

pub mod args;
pub mod drive;
pub mod measure;
pub mod play;
pub mod process;
pub mod random;
pub mod report;
pub mod setup;
pub mod wire;

use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::FAILURE;
use crate::cli::args::Output;
use crate::cli::loadtest::args::LoadtestArgs;
use crate::cli::loadtest::drive::{Driven, Pace};
use crate::cli::loadtest::measure::Measured;
use crate::cli::loadtest::play::{CallPlan, Calls};
use crate::cli::loadtest::process::Watched;
use crate::cli::loadtest::report::{Report, Round};
use crate::cli::loadtest::wire::Shown;
use crate::cli::output::{Failure, Outcome, counted, print, warn};

/// How often the progress is shown, and Ctrl-C looked for.
const GLANCE: Duration = Duration::from_millis(50);

/// Shortest round and longest test: below the one nothing is measured, the other is a mistake.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most users of all tenants together.
const MAX_USERS: u32 = 10_000_000;

/// Runs a test.
pub fn run(args: &LoadtestArgs, form: Output) -> Outcome {
    check(args)?;
    let mut watched = vec![Watched::this()];
    for named in &args.cpu_of {
        watched.push(Watched::find(named).map_err(Failure::new)?);
    }
    if args.setup {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let made = runtime.block_on(setup::make(args))?;
        let (tenants, users) = (counted(made.tenants, "tenant"), counted(made.users, "user"));
        warn(format!("{tenants} with {users} in all are set up"));
    }
    let stop = on_interrupt()?;
    let report = play(args, &watched, &stop)?;
    if report.knows_nobody() {
        warn("nobody knows the payers: run it with --setup once, with the same names and numbers");
    }
    match form {
        Output::Table => print(report.table().trim_end())?,
        Output::Json => {
            print(
                &serde_json::to_string_pretty(&report).map_err(|e| Failure::new(e.to_string()))?,
            )?;
        }
    }
    Ok(match report.has_answers() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILURE),
    })
}

/// What clap cannot see in single arguments.
fn check(args: &LoadtestArgs) -> Result<(), Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let whole = args.duration.saturating_mul(args.rounds).saturating_add(args.warm_up);
    let wrong = match () {
        () if args.tenants.saturating_mul(args.users) > MAX_USERS => {
            format!("expected at most {MAX_USERS} users of all tenants together")
        }
        () if args.threads as usize > cores => {
            format!("expected at most one of the --threads a core: {cores} here")
        }
        () if args.connections < args.threads => {
            "expected at least as many --connections as --threads".to_owned()
        }
        () if args.duration < SHORTEST => format!("expected a --duration of at least {SHORTEST:?}"),
        () if whole > LONGEST => "expected a test of at most 7 days".to_owned(),
        () if args.requested.as_secs() == 0 || args.requested > Duration::from_secs(86_400) => {
            "expected a --requested length from 1s to 24h".to_owned()
        }
        () if args.used.as_secs() == 0 || args.used > Duration::from_secs(7 * 86_400) => {
            "expected a --used length from 1s to 7 days".to_owned()
        }
        () => return Ok(()),
    };
    Err(Failure::new(wrong))
}

/// Set by the first Ctrl-C; the second ends the program.
fn on_interrupt() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut asked = 0;
            while tokio::signal::ctrl_c().await.is_ok() {
                told.store(true, Ordering::Relaxed);
                asked += 1;
                if asked > 1 {
                    std::process::exit(i32::from(FAILURE));
                }
            }
        });
    })?;
    Ok(stop)
}

fn play(args: &LoadtestArgs, watched: &[Watched], stop: &AtomicBool) -> Result<Report, Failure> {
    let plan = CallPlan {
        mix: args.mix,
        tenants: args.tenants,
        prefix: args.prefix.clone(),
        users: args.users,
        zipf_hundredths: args.zipf,
        requested_seconds: i64::try_from(args.requested.as_secs()).unwrap_or(i64::MAX),
        used_seconds: i64::try_from(args.used.as_secs()).unwrap_or(i64::MAX),
    };
    let (pace, paced) = pace(args);
    let wires = args.connections.div_ceil(args.threads) as usize;
    let endpoint = &args.server.endpoint;
    let shown = Shown::of(endpoint, &args.server.trust)?;
    let calls = Calls::new(endpoint, shown, args.server.timeout, wires, plan)?;
    let driven = drive::start(&Arc::new(calls), pace, args.threads as usize)
        .map_err(|error| unreachable(endpoint, &error))?;

    let bar = progress(args);
    let mut whole = Measured::default();
    let mut rounds = vec![];
    let mut stopped = !wait(args.warm_up, &driven, &bar, stop);
    whole.add(&driven.take());
    while !stopped && rounds.len() < args.rounds as usize {
        let spent: Vec<_> = watched.iter().map(Watched::cpu_nanos).collect();
        let began = Instant::now();
        stopped = !wait(args.duration, &driven, &bar, stop);
        let measured = driven.take();
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let cpu = watched.iter().zip(spent);
        let cpu = cpu.map(|(process, before)| process.cpu_nanos()?.checked_sub(before?));
        whole.add(&measured);
        rounds.push(Round { nanos, measured, cpu_nanos: cpu.collect() });
    }
    whole.add(&driven.finish(args.server.timeout.saturating_add(Duration::from_secs(1))));
    bar.finish_and_clear();
    if stopped {
        let rounds = counted(rounds.len() as u64, "round");
        warn(format!("stopped: {rounds} of {} begun; the last is cut short", args.rounds));
    }
    let names: Vec<String> = watched.iter().map(|process| process.name.clone()).collect();
    Ok(Report::of(&rounds, &whole, &names, stopped, (paced, args.mix.to_string())))
}

fn pace(args: &LoadtestArgs) -> (Pace, String) {
    match args.rate {
        Some(per_second) => {
            let most_in_flight = args.max_in_flight as usize;
            let told = format!("open, {per_second} a second");
            (Pace::Open { per_second, most_in_flight }, told)
        }
        None => {
            let concurrency = args.concurrency as usize;
            (
                Pace::Closed { concurrency },
                format!("closed, {}", counted(args.concurrency, "caller")),
            )
        }
    }
}

/// Shows progress for a while; whether it may go on.
fn wait(time: Duration, driven: &Driven, bar: &ProgressBar, stop: &AtomicBool) -> bool {
    let began = Instant::now();
    let before = bar.position();
    loop {
        let passed = began.elapsed();
        bar.set_position(before + u64::try_from(passed.min(time).as_millis()).unwrap_or(u64::MAX));
        if !bar.is_hidden() {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
            bar.set_message(format!("{} a second", driven.answered() * 1_000 / millis));
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let Some(left) = time.checked_sub(passed).filter(|left| !left.is_zero()) else {
            return true;
        };
        thread::sleep(left.min(GLANCE));
    }
}

/// Hidden where standard error is no terminal.
fn progress(args: &LoadtestArgs) -> ProgressBar {
    let whole = args.duration.saturating_mul(args.rounds).saturating_add(args.warm_up);
    let bar = ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta} left  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn unreachable(endpoint: &crate::cli::args::Endpoint, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            Failure::new(format!("nothing listens on {endpoint}; start it with `tollgate serve`"))
        }
        _ => Failure::new(format!("cannot reach {endpoint}: {error}")),
    }
}
