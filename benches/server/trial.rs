//! One trial: a load on a subject for a while, with what everybody spent on it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::cli::loadtest::drive::{Pace, Scene, start};
use tollgate::cli::loadtest::measure::{Kind, Measured, Outcome, median};
use tollgate::cli::loadtest::process::cpu_nanos;

use crate::subject::Started;

/// Most masters of a cluster that are measured.
pub const MOST_MASTERS: usize = 3;

/// What a trial came to. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trial {
    pub per_second: u64,
    pub p50: u64,
    pub p99: u64,
    /// CPU time a request.
    pub server: u64,
    pub redis: u64,
    pub client: u64,
    /// Of the collector of telemetry, where there is one.
    pub collector: u64,
    /// Of each master of a cluster, or of the only Redis; they sum up to `redis`.
    pub masters: [u64; MOST_MASTERS],
    /// p50 of authorize, extend, settle; 0 where there were none.
    pub kinds: [u64; 3],
    /// Of the machine's CPU, what processes took that have nothing to do with this, in percent.
    pub others: u64,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// Runs one. Panics when something was refused or failed: then it measured something else.
pub fn run<S: Scene>(scene: S, started: &Started, pace: Pace, time: Time) -> Trial {
    let driven = start(&Arc::new(scene), pace, 1).expect("the subject listens");
    std::thread::sleep(time.warm_up);
    let mut all = driven.take();
    let own = std::process::id();
    let mut pids = [None; 3 + MOST_MASTERS];
    pids[..3].copy_from_slice(&[started.server_pid(), Some(own), started.collector_pid()]);
    for (place, master) in pids[3..].iter_mut().zip(&started.redis) {
        *place = Some(master.pid());
    }
    let spent = || pids.map(|pid| pid.and_then(cpu_nanos).unwrap_or_default());
    let (before, busy, began) = (spent(), machine(), Instant::now());
    std::thread::sleep(time.measured);
    let measured = driven.take();
    let (after, busy_after, took) = (spent(), machine(), began.elapsed());
    all.add(&driven.finish(Duration::from_secs(20)));
    all.add(&measured);
    refuse_refusals(&all);
    let answered = measured.all_answered().max(1);
    let spent: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
    let [p50, _, p99, ..] = measured.all_quantiles();
    let whole = (busy_after.1 - busy.1).max(1);
    let ours = spent.iter().sum::<u64>() / 10_000_000;
    Trial {
        per_second: u64::try_from(u128::from(answered) * 1_000_000_000 / u128::from(nanos))
            .unwrap_or(u64::MAX),
        p50,
        p99,
        server: spent[0] / answered,
        redis: spent[3..].iter().sum::<u64>() / answered,
        client: spent[1] / answered,
        collector: spent[2] / answered,
        masters: std::array::from_fn(|nth| spent[3 + nth] / answered),
        kinds: Kind::ALL.map(|kind| measured.quantiles(kind)[0]),
        others: (busy_after.0 - busy.0).saturating_sub(ours) * 100 / whole,
    }
}

fn refuse_refusals(all: &Measured) {
    let wrong = |(_, outcome): &(Kind, Outcome)| *outcome != Outcome::Done;
    let wrong: Vec<_> = all.outcomes.iter().filter(|(what, _)| wrong(what)).collect();
    assert!(wrong.is_empty(), "not everything was granted: {wrong:?}");
}

/// Busy ticks of the machine, and all ticks.
fn machine() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user.
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

/// The medians of each figure.
pub fn medians(trials: &[Trial]) -> Trial {
    let of = |figure: &dyn Fn(&Trial) -> u64| median(trials.iter().map(figure).collect());
    Trial {
        per_second: of(&|t| t.per_second),
        p50: of(&|t| t.p50),
        p99: of(&|t| t.p99),
        server: of(&|t| t.server),
        redis: of(&|t| t.redis),
        client: of(&|t| t.client),
        collector: of(&|t| t.collector),
        masters: std::array::from_fn(|nth| of(&|t| t.masters[nth])),
        kinds: [0, 1, 2].map(|kind: usize| of(&|t| t.kinds[kind])),
        others: of(&|t| t.others),
    }
}
