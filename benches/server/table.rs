//! What was found, as a table of goals.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::collector::Received;
use crate::disk::Disk;
use crate::plot;
use crate::subject::{Ledger, Subject};
use crate::telemetry::{Ratio, Telemetry};
use crate::trial::{MOST_MASTERS, Trial};
use crate::{ALL, AUTHORIZE, OnCluster, SETTLE};

/// Throughput of limitador and of the naive reference on two threads, as published together.
const LIMITADOR: (u64, u64) = (24_000, 49_300);

pub struct Found {
    pub closed: BTreeMap<(Subject, usize), Trial>,
    pub open: BTreeMap<(Subject, u64), Trial>,
    /// Of the machine's CPU, what processes took that have nothing to do with this, in percent.
    pub others: u64,
    pub pure_nanos: u64,
    pub sizes: Sizes,
    pub telemetry: Telemetry,
    pub clusters: Vec<(OnCluster, Trial)>,
    /// Under ledgers in files.
    pub disk: Disk,
    pub start_millis: u64,
}

pub struct Sizes {
    pub costs: Vec<(String, Trial)>,
    /// On Redis, and embedded.
    pub resident_kib: [u64; 2],
    pub apply_time: Duration,
    pub apply_client_kib: u64,
    pub apply_server_kib: u64,
}

const TOLLGATE: Subject = Subject::Tollgate(Ledger::Redis, AUTHORIZE);
const EMBEDDED: Subject = Subject::Tollgate(Ledger::Memory, AUTHORIZE);

fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other.max(1) as f64
}

fn micros(nanos: u64) -> String {
    format!("{:.1}", nanos as f64 / 1_000.0)
}

fn mib(kib: u64) -> u64 {
    kib.div_ceil(1_024)
}

fn met(met: bool) -> &'static str {
    if met { "yes" } else { "**no**" }
}

impl Found {
    fn at(&self, subject: Subject, concurrency: usize) -> Trial {
        self.closed[&(subject, concurrency)]
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut row = |figure: &str, goal: &str, found: String, is_met: bool| {
            let _ = writeln!(text, "| {figure} | {goal} | {found} | {} |", met(is_met));
        };
        let (tollgate, naive) = (self.at(TOLLGATE, 64), self.at(Subject::Naive(2), 64));
        let (script, bare) = (self.at(Subject::Script, 64), self.at(Subject::Bare(2), 64));
        let mut at_least = |figure: &str, goal: f64, one: u64, other: u64| {
            let found = ratio(one, other);
            row(figure, &format!("at least {goal}"), format!("{found:.2}"), found >= goal);
        };
        let limitador = naive.per_second * LIMITADOR.0 / LIMITADOR.1;
        at_least(
            "AuthorizeCall at concurrency 64, against limitador, scaled by the naive reference",
            2.5,
            tollgate.per_second,
            limitador,
        );
        at_least(
            "the same, against the naive reference of the same runtime",
            1.0,
            tollgate.per_second,
            naive.per_second,
        );
        at_least(
            "the same, against the script alone",
            0.65,
            tollgate.per_second,
            script.per_second,
        );
        let embedded = self.at(EMBEDDED, 64);
        at_least(
            "the same, embedded ledger against Redis",
            2.0,
            embedded.per_second,
            tollgate.per_second,
        );
        let mut at_most = |figure: &str, goal: f64, one: u64, other: u64| {
            let found = ratio(one, other);
            row(figure, &format!("at most {goal}"), format!("{found:.2}"), found <= goal);
        };
        at_most(
            "server CPU a request, against bare tonic of the same runtime",
            2.0,
            tollgate.server,
            bare.server,
        );
        at_most("Redis CPU a request, against the naive script", 1.5, tollgate.redis, naive.redis);
        let (alone, naive_alone) = (self.at(TOLLGATE, 1), self.at(Subject::Naive(2), 1));
        at_most(
            "latency at concurrency 1, p50, against the naive reference",
            1.3,
            alone.p50,
            naive_alone.p50,
        );
        at_most(
            "latency at concurrency 1, p99, against the naive reference",
            1.3,
            alone.p99,
            naive_alone.p99,
        );
        let (half, script_half) = (self.open[&(TOLLGATE, 50)], self.open[&(Subject::Script, 50)]);
        at_most(
            "p99 at half of the highest throughput, open loop, against the script alone at that load",
            2.0,
            half.p99,
            script_half.p99,
        );
        let all = self.at(Subject::Tollgate(Ledger::Redis, ALL), 64);
        at_most(
            "SettleCall, p50 in a mix of all three, against AuthorizeCall",
            1.0,
            all.kinds[2],
            all.kinds[0],
        );
        at_most("ExtendCall, likewise", 1.0, all.kinds[1], all.kinds[0]);
        let cost = |trial: &Trial| trial.server + trial.redis;
        let base = self.sizes.costs[0].1;
        for (name, trial) in &self.sizes.costs[1..] {
            at_most(
                &format!("CPU of a call, server and Redis: {name}, against 5 users"),
                1.15,
                cost(trial),
                cost(&base),
            );
            at_most(&format!("p50 of a call: {name}, against 5 users"), 1.15, trial.p50, base.p50);
        }
        let on = |load: OnCluster| {
            let found = self.clusters.iter().find(|(on, _)| *on == load);
            cost(&found.expect("all are measured").1)
        };
        for masters in 2..=MOST_MASTERS {
            at_most(
                &format!(
                    "CPU of a call, server and all masters: {masters} masters with {masters} times the load, against 1"
                ),
                1.15,
                on(OnCluster::Grown { masters }),
                on(OnCluster::Grown { masters: 1 }),
            );
        }
        for masters in 2..=MOST_MASTERS {
            at_most(
                &format!("the same: {masters} masters with the same load, closed loop, against 1"),
                1.15,
                on(OnCluster::Same { masters }),
                on(OnCluster::Same { masters: 1 }),
            );
        }
        let found = |Ratio { low, middle, high }| format!("{middle:.2} ({low:.2} to {high:.2})");
        let Telemetry { throughput, cpu, .. } = &self.telemetry;
        row(
            "throughput at concurrency 64, telemetry on against off, half of the pairs within",
            "at least 0.95",
            found(*throughput),
            throughput.middle >= 0.95,
        );
        row("server CPU a request, likewise", "at most 1.05", found(*cpu), cpu.middle <= 1.05);
        row(
            "classify, rate and fund, without a ledger",
            "below 2 µs",
            format!("{} µs", micros(self.pure_nanos)),
            self.pure_nanos < 2_000,
        );
        for (kib, ledger) in self.sizes.resident_kib.into_iter().zip(["on Redis", "embedded"]) {
            row(
                &format!("resident memory, 50,000 users and 100,000 open holds, {ledger}"),
                "below 150 MiB",
                format!("{} MiB", mib(kib)),
                mib(kib) < 150,
            );
        }
        row(
            "start to first answer",
            "below 300 ms",
            format!("{} ms", self.start_millis),
            self.start_millis < 300,
        );
        let mut page = "| figure | goal | found | met |\n|---|---|---|---|\n".to_owned() + &text;
        self.add_measured(&mut page);
        page
    }

    fn add_measured(&self, page: &mut String) {
        page.push_str("\n| closed loop, medians | concurrency | req/s | p50 µs | p99 µs | server CPU µs | Redis CPU µs | client CPU µs |\n|---|---|---|---|---|---|---|---|\n");
        for ((subject, concurrency), trial) in &self.closed {
            line(page, &format!("{} | {concurrency}", subject.name()), trial);
        }
        page.push_str("\n| open loop, medians | % of Tollgate's highest | req/s | p50 µs | p99 µs | server CPU µs | Redis CPU µs | client CPU µs |\n|---|---|---|---|---|---|---|---|\n");
        for ((subject, percent), trial) in &self.open {
            line(page, &format!("{} | {percent}", subject.name()), trial);
        }
        page.push_str("\n| size, mix 1:0:1 on Redis | concurrency | req/s | p50 µs | p99 µs | server CPU µs | Redis CPU µs | client CPU µs |\n|---|---|---|---|---|---|---|---|\n");
        for (name, trial) in &self.sizes.costs {
            line(page, &format!("{name} | 64"), trial);
        }
        self.add_clusters(page);
        self.add_telemetry(page);
        page.push_str("\n| mix | ledger | AuthorizeCall p50 µs | ExtendCall p50 µs | SettleCall p50 µs |\n|---|---|---|---|---|\n");
        for (ledger, name) in
            [(Ledger::Redis, "redis"), (Ledger::File, "file"), (Ledger::Memory, "memory")]
        {
            for mix in [SETTLE, ALL] {
                let kinds = self.at(Subject::Tollgate(ledger, mix), 64).kinds;
                let (authorize, extend, settle) = mix;
                let [first, second, third] = kinds.map(micros);
                let _ = writeln!(
                    page,
                    "| {authorize}:{extend}:{settle} | {name} | {first} | {second} | {third} |"
                );
            }
        }
        let Sizes { apply_time, apply_client_kib, apply_server_kib, .. } = &self.sizes;
        let _ = writeln!(
            page,
            "\n`tollgate apply` of an organisation of 50,000 users: {:.1} s, {} MiB at most in the program, {} MiB more at most in the server.",
            apply_time.as_secs_f64(),
            mib(*apply_client_kib),
            mib(*apply_server_kib),
        );
        let _ = writeln!(
            page,
            "Ledgers in files were on {}, where 4 KiB written and synced take {} µs at the median.",
            self.disk.name,
            micros(self.disk.sync_nanos),
        );
        let _ = writeln!(
            page,
            "Other processes took {} % of the machine's CPU during the open loops, at the median.",
            self.others
        );
    }

    fn add_clusters(&self, page: &mut String) {
        page.push_str("\n| masters of a Redis Cluster, mix 1:0:1 | load | req/s | p50 µs | p99 µs | server CPU µs | Redis CPU µs | client CPU µs | Redis CPU µs of each master |\n|---|---|---|---|---|---|---|---|---|\n");
        for (on, trial) in &self.clusters {
            let each = trial.masters.iter().take(on.masters()).map(|nanos| micros(*nanos));
            let each = each.collect::<Vec<_>>().join(" + ");
            wider_line(page, &format!("{} | {}", on.masters(), on.name()), trial, &each);
        }
    }

    fn add_telemetry(&self, page: &mut String) {
        let Telemetry { off, on, received, .. } = &self.telemetry;
        page.push_str("\n| telemetry, authorize only on Redis | concurrency | req/s | p50 µs | p99 µs | server CPU µs | Redis CPU µs | client CPU µs | collector CPU µs, mean |\n|---|---|---|---|---|---|---|---|---|\n");
        for (name, trial) in [("off", off), ("on", on)] {
            wider_line(page, &format!("{name} | 64"), trial, &micros(trial.collector));
        }
        let Received { spans, reports, pages } = received;
        let _ = writeln!(
            page,
            "\nThe collector received {spans} spans and {reports} reports of all figures, and read the page of figures {pages} times."
        );
    }

    /// p99 by load, one line a subject.
    pub fn latency_plot(&self) -> String {
        let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for ((subject, _), trial) in &self.open {
            let points = lines.entry(subject.name()).or_default();
            points.push((trial.per_second as f64 / 1_000.0, trial.p99 as f64 / 1_000.0));
        }
        let lines = lines.into_iter().collect::<Vec<_>>();
        plot::lines("p99 by load, open loop", "thousand requests a second", "µs", &lines)
    }

    /// CPU of a call by size.
    pub fn size_plot(&self) -> String {
        let bars = self.sizes.costs.iter().map(|(name, trial)| {
            let [server, redis] = [trial.server, trial.redis].map(|nanos| nanos as f64 / 1_000.0);
            (name.clone(), vec![("server", server), ("redis", redis)])
        });
        plot::bars("CPU of a request by size, mix 1:0:1", "µs", &bars.collect::<Vec<_>>())
    }
}

fn line(page: &mut String, what: &str, trial: &Trial) {
    let _ = writeln!(page, "{}", cells(what, trial));
}

/// With one more cell.
fn wider_line(page: &mut String, what: &str, trial: &Trial, more: &str) {
    let _ = writeln!(page, "{} {more} |", cells(what, trial));
}

fn cells(what: &str, trial: &Trial) -> String {
    format!(
        "| {what} | {} | {} | {} | {} | {} | {} |",
        trial.per_second,
        micros(trial.p50),
        micros(trial.p99),
        micros(trial.server),
        micros(trial.redis),
        micros(trial.client),
    )
}
