//! The report of a test: what each round measured, and the medians over them.

use std::collections::BTreeMap;

use serde::Serialize;
use tonic::Code;

use crate::cli::loadtest::measure::{Kind, Measured, Outcome, QUANTILES, median};
use crate::cli::loadtest::wire::Fault;
use crate::cli::output::{Word, lines, rows};
use crate::proto::v1::{Decision, SettleResult};

/// One round.
pub struct Round {
    /// How long it was, in nanoseconds.
    pub nanos: u64,
    /// Its requests.
    pub measured: Measured,
    /// CPU time of each watched process in nanoseconds; `None` where it has ended.
    pub cpu_nanos: Vec<Option<u64>>,
}

/// Everything that is told. Latencies and CPU times are whole nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Rounds that were measured whole.
    pub rounds: usize,
    /// Whether it was stopped before its end.
    pub stopped_early: bool,
    /// How requests followed each other: `closed, 64 callers` or `open, 10000 a second`.
    pub pace: String,
    /// `AUTHORIZE:EXTEND:SETTLE`.
    pub mix: String,
    /// Answers a second: the median over rounds, and each round.
    pub requests_per_second: Series,
    /// All requests together.
    pub all: Latency,
    /// By RPC.
    pub rpcs: BTreeMap<&'static str, Latency>,
    /// CPU time per answered request by process, in nanoseconds, medians over rounds.
    pub cpu_nanos_per_request: BTreeMap<String, Option<u64>>,
    /// All rounds: by RPC, how often each outcome was met.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// From the first request to the last, warm-up included: for comparing with balances.
    pub whole_run: WholeRun,
}

/// A figure over rounds.
#[derive(Debug, Serialize)]
pub struct Series {
    /// The middle one.
    pub median: u64,
    /// In order.
    pub rounds: Vec<u64>,
}

/// Latencies of answered requests, medians over rounds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Answers in all rounds.
    pub answered: u64,
    /// In nanoseconds, by the name of the quantile.
    pub nanos: BTreeMap<&'static str, u64>,
}

/// Sums over everything that was sent.
#[derive(Debug, Default, Serialize)]
pub struct WholeRun {
    /// By RPC, how often each outcome was met.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Seconds that the settles charged, pool and money.
    pub charged_seconds: u64,
}

impl Report {
    /// Of these rounds, and of `whole`, everything that was sent.
    pub fn of(
        rounds: &[Round],
        whole: &Measured,
        watched: &[String],
        stopped_early: bool,
        (pace, mix): (String, String),
    ) -> Report {
        let mut all = Measured::default();
        rounds.iter().for_each(|round| all.add(&round.measured));
        let per_second: Vec<u64> = rounds.iter().map(Round::per_second).collect();
        let latency = |answered, of: &dyn Fn(&Measured) -> [u64; 5]| {
            let found: Vec<[u64; 5]> = rounds.iter().map(|round| of(&round.measured)).collect();
            let nth = |n: usize| median(found.iter().map(|quantiles| quantiles[n]).collect());
            let nanos = QUANTILES.into_iter().enumerate().map(|(n, name)| (name, nth(n))).collect();
            Latency { answered, nanos }
        };
        let rpcs = Kind::ALL.into_iter().filter(|kind| all.answered(*kind) > 0);
        let cpu = |nth: usize| {
            let of = |round: &Round| {
                let spent = round.cpu_nanos.get(nth).copied().flatten()?;
                spent.checked_div(round.measured.all_answered())
            };
            rounds.iter().map(of).collect::<Option<Vec<u64>>>().map(median)
        };
        Report {
            rounds: rounds.len(),
            stopped_early,
            pace,
            mix,
            requests_per_second: Series { median: median(per_second.clone()), rounds: per_second },
            all: latency(all.all_answered(), &Measured::all_quantiles),
            rpcs: rpcs
                .map(|kind| (kind.name(), latency(all.answered(kind), &|m| m.quantiles(kind))))
                .collect(),
            cpu_nanos_per_request: watched
                .iter()
                .enumerate()
                .map(|(nth, name)| (name.clone(), cpu(nth)))
                .collect(),
            outcomes: outcomes(&all),
            whole_run: WholeRun {
                outcomes: outcomes(whole),
                charged_seconds: whole.charged_seconds,
            },
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let micros = |latency: &Latency, name| micros(latency.nanos.get(name).copied());
        let row = |name: &str, latency: &Latency| {
            let [p50, p90, p99, p999, max] = QUANTILES.map(|q| micros(latency, q));
            [name.to_owned(), latency.answered.to_string(), p50, p90, p99, p999, max]
        };
        let mut latencies: Vec<_> =
            self.rpcs.iter().map(|(name, latency)| row(name, latency)).collect();
        if latencies.len() > 1 {
            latencies.push(row("all", &self.all));
        }
        let header = ["µs", ">answered", ">p50", ">p90", ">p99", ">p99.9", ">max"];
        let mut seen: Vec<[String; 3]> = vec![];
        for (rpc, outcomes) in &self.outcomes {
            seen.extend(
                outcomes
                    .iter()
                    .map(|(what, times)| [(*rpc).to_owned(), what.clone(), times.to_string()]),
            );
        }
        let spent = self.cpu_nanos_per_request.iter();
        let spent: Vec<_> = spent.map(|(name, cpu)| [name.clone(), self::micros(*cpu)]).collect();
        let rounds: Vec<_> = self.requests_per_second.rounds.iter().map(u64::to_string).collect();
        let Series { median, .. } = self.requests_per_second;
        let first = [
            ["requests a second".to_owned(), format!("{median}  (rounds: {})", rounds.join(" "))],
            ["load".to_owned(), format!("{}, mix {}", self.pace, self.mix)],
        ];
        [
            lines(first.to_vec()),
            rows(header, latencies),
            rows(["RPC", "OUTCOME", ">TIMES"], seen),
            rows(["PROCESS", ">CPU µs/request"], spent),
        ]
        .join("\n")
    }

    /// Whether anything was answered.
    pub fn has_answers(&self) -> bool {
        self.whole_run.outcomes.values().flatten().any(|(what, _)| !what.starts_with("error "))
    }

    /// How often everything was refused because nobody knows the payer.
    pub fn knows_nobody(&self) -> bool {
        let unknown = name(Outcome::Refused(Decision::PayerUnknown.into()));
        let seen = self.whole_run.outcomes.get(Kind::Authorize.name());
        seen.is_some_and(|seen| seen.keys().all(|what| *what == unknown))
    }
}

impl Round {
    fn per_second(&self) -> u64 {
        let answered = u128::from(self.measured.all_answered());
        let rate = answered * 1_000_000_000 / u128::from(self.nanos.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

fn outcomes(measured: &Measured) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
    let mut named: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for ((kind, outcome), times) in &measured.outcomes {
        *named.entry(kind.name()).or_default().entry(name(*outcome)).or_default() += times;
    }
    named
}

fn name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "ok".to_owned(),
        Outcome::Refused(decision) => match Decision::try_from(decision) {
            Ok(decision) => format!("denied {}", decision.word()),
            Err(_) => format!("denied, decision {decision}"),
        },
        Outcome::Uncharged(result) => match SettleResult::try_from(result) {
            Ok(result) => format!("settle {}", result.word()),
            Err(_) => format!("settle, result {result}"),
        },
        Outcome::Failed(Fault::Connection) => "error connection lost".to_owned(),
        Outcome::Failed(Fault::Malformed) => "error malformed answer".to_owned(),
        Outcome::Failed(Fault::Status(code)) => {
            format!("error {:?}", Code::from_i32(i32::from(code)))
        }
    }
}

/// Nanoseconds as microseconds with one decimal.
fn micros(nanos: Option<u64>) -> String {
    match nanos {
        None => "-".to_owned(),
        Some(nanos) => format!("{}.{}", nanos / 1_000, nanos / 100 % 10),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::loadtest::measure::Step;

    fn round(requests: u32, latency: u64) -> Round {
        let mut measured = Measured::default();
        for _ in 0..requests {
            let step = Step { kind: Kind::Authorize, outcome: Outcome::Done, charged_seconds: 0 };
            measured.note(step, Duration::from_micros(latency));
        }
        Round { nanos: 500_000_000, measured, cpu_nanos: vec![Some(1_000_000)] }
    }

    #[test]
    fn a_report_tells_medians_over_rounds() {
        let rounds = [round(100, 10), round(300, 30), round(200, 20)];
        let whole = round(700, 20).measured;
        let names = ["server".to_owned()];
        let told = ("closed".to_owned(), "1:0:0".to_owned());
        let report = Report::of(&rounds, &whole, &names, false, told);
        assert_eq!(report.requests_per_second.median, 400);
        assert_eq!(report.requests_per_second.rounds, [200, 600, 400]);
        assert_eq!(report.all.nanos["p50"] / 1_000, 20);
        assert_eq!(report.cpu_nanos_per_request["server"], Some(5_000));
        assert_eq!(report.outcomes["AuthorizeCall"]["ok"], 600);
        assert_eq!(report.whole_run.outcomes["AuthorizeCall"]["ok"], 700);
        let table = report.table();
        assert!(table.contains("400  (rounds: 200 600 400)"), "{table}");
        assert!(table.contains("5.0"), "{table}");
    }

    #[test]
    fn outcomes_have_names() {
        let refused = Outcome::Refused(Decision::InsufficientCredits.into());
        assert_eq!(name(refused), "denied INSUFFICIENT_CREDITS");
        assert_eq!(name(Outcome::Failed(Fault::Status(8))), "error ResourceExhausted");
        assert_eq!(name(Outcome::Uncharged(SettleResult::Parked.into())), "settle PARKED");
        assert_eq!(micros(Some(12_345)), "12.3");
    }
}
