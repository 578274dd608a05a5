//! A seeded, deterministic simulation of SBCs, sidecars, an operator and bad luck on the embedded ledger.
//!
//! Everything runs on one thread of a runtime whose clock stands still until everybody waits; no real
//! clock, socket or order of a hash table decides anything. After each run the audit must be clean, and
//! what the SBCs and the operator sent and were told must be what the balances and calls say.
//!
//! As a test it plays a fixed set of seeds. `cargo test --test simulate -- --seconds 60 --seed 7` plays
//! seeds from 7 on for a minute, `--seeds 10000` so many; a single seed (`--seeds 1`) shows its steps.
#![allow(clippy::unwrap_used, missing_docs)]

mod judge;
mod operator;
mod places;
mod sbc;
mod tally;
mod wire;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::charging::number;

use crate::world::{World, locked};

/// Seeds that a test run plays.
const FIXED: u64 = 300;

/// Of them, so many are played twice, to see that they go the same way.
const REPEATED: u64 = 10;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

struct Outcome {
    findings: Vec<String>,
    trace: Vec<String>,
    steps: (u64, u64),
    points: BTreeMap<String, u64>,
    calls: usize,
}

fn play(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    PANICS.set(0);
    // What pauses are drawn by.
    fastrand::seed(seed);
    let world = runtime.block_on(async {
        let world = World::new(seed);
        judge::run(&world).await;
        world
    });
    drop(runtime);
    world.stop();
    let mut findings = world.findings();
    if PANICS.get() > 0 {
        findings.push(format!("{} panics", PANICS.get()));
    }
    Outcome {
        findings,
        trace: world.trace(),
        steps: world.steps(),
        points: world.points(),
        calls: locked(&world.tally).calls.len(),
    }
}

struct Arguments {
    seed: u64,
    seeds: Option<u64>,
    seconds: Option<u64>,
    points: bool,
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments { seed: 0, seeds: None, seconds: None, points: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok());
        match word.as_str() {
            "--seed" => found.seed = number()?,
            "--seeds" => found.seeds = Some(number()?),
            "--seconds" => found.seconds = Some(number()?),
            "--points" => found.points = true,
            // What `cargo test` passes to every test: a part of a name, or a flag that means nothing here.
            word if !word.starts_with('-') && !"simulate".contains(word) => return None,
            _ => {}
        }
    }
    Some(found)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else { return ExitCode::SUCCESS };
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        usual(panic);
    }));
    number::warm_up();
    let began = Instant::now();
    let most = match (arguments.seeds, arguments.seconds) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => u64::MAX,
        (None, None) => FIXED,
    };
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((0, 0, 0, BTreeMap::<String, u64>::new()));
    let failures = Mutex::new(BTreeMap::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let over = |limit| began.elapsed() >= Duration::from_secs(limit);
            if number >= most || arguments.seconds.is_some_and(over) {
                return;
            }
            let seed = arguments.seed.wrapping_add(number);
            let mut outcome = play(seed);
            if number < REPEATED && play(seed).steps != outcome.steps {
                outcome.findings.push("it goes another way when it is played again".to_owned());
            }
            {
                let mut total = locked(&total);
                total.0 += 1;
                total.1 += outcome.steps.0;
                total.2 += outcome.calls;
                for (point, count) in &outcome.points {
                    *total.3.entry(point.clone()).or_default() += count;
                }
            }
            if !outcome.findings.is_empty() || most == 1 {
                stop.store(!outcome.findings.is_empty(), Ordering::Relaxed);
                locked(&failures).insert(seed, outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut failed = false;
    for (seed, outcome) in locked(&failures).iter() {
        println!("seed {seed}, the last {} of {} steps:", outcome.trace.len(), outcome.steps.0);
        outcome.trace.iter().for_each(|step| println!("  {step}"));
        outcome.findings.iter().for_each(|found| println!("seed {seed}: {found}"));
        if !outcome.findings.is_empty() {
            failed = true;
            println!("again: make simulate SEED={seed} SEEDS=1");
        }
    }
    let (runs, steps, calls, points) = &*locked(&total);
    if arguments.points || arguments.seconds.is_some() {
        println!("fault points, and how often each was met:");
        points.iter().for_each(|(point, count)| println!("  {count:>9}  {point}"));
    }
    let took = began.elapsed().as_secs();
    println!(
        "{runs} seeds from {} on, {calls} calls, {steps} steps, {} fault points, {took} s: {}",
        arguments.seed,
        points.len(),
        if failed { "FAILED" } else { "clean" }
    );
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
