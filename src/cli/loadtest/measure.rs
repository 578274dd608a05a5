//! What was measured: latencies by RPC, outcomes by reason, and the medians over rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cli::loadtest::wire::Fault;

/// The quantiles that are told, by name.
pub const QUANTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// Shortest and longest latency that is told apart, in nanoseconds, to three digits.
const BOUNDS: (u64, u64) = (1_000, 600_000_000_000);
const DIGITS: u8 = 3;

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// AuthorizeCall.
    Authorize,
    /// ExtendCall.
    Extend,
    /// SettleCall.
    Settle,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Authorize, Kind::Extend, Kind::Settle];

    /// Its RPC.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Authorize => "AuthorizeCall",
            Kind::Extend => "ExtendCall",
            Kind::Settle => "SettleCall",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Allowed, or charged.
    Done,
    /// An answer that refuses, by the number of its Decision.
    Refused(i32),
    /// An answer that charges nothing, by the number of its SettleResult.
    Uncharged(i32),
    /// No answer.
    Failed(Fault),
}

/// One request as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which request.
    pub kind: Kind,
    /// What became of it.
    pub outcome: Outcome,
    /// Seconds that the answer charges.
    pub charged_seconds: u64,
}

/// The requests of a span of time.
#[derive(Clone, Debug)]
pub struct Measured {
    latencies: [Histogram<u64>; 3],
    /// How often each outcome was met.
    pub outcomes: BTreeMap<(Kind, Outcome), u64>,
    /// Seconds charged in all.
    pub charged_seconds: u64,
}

impl Default for Measured {
    fn default() -> Measured {
        let histogram = || {
            // The bounds are valid: the lowest is above 0 and below half of the highest.
            Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, DIGITS).unwrap_or_else(|_| none())
        };
        let latencies = [histogram(), histogram(), histogram()];
        Measured { latencies, outcomes: BTreeMap::new(), charged_seconds: 0 }
    }
}

fn none() -> Histogram<u64> {
    // One digit is always possible.
    let made = Histogram::new(1);
    made.unwrap_or_else(|_| unreachable!("a histogram of one digit"))
}

impl Measured {
    /// Notes a request; only one with an answer has a latency.
    pub fn note(&mut self, step: Step, latency: Duration) {
        *self.outcomes.entry((step.kind, step.outcome)).or_default() += 1;
        self.charged_seconds += step.charged_seconds;
        if !matches!(step.outcome, Outcome::Failed(_)) {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.latencies[step.kind as usize].saturating_record(nanos);
        }
    }

    /// Adds what was measured elsewhere.
    pub fn add(&mut self, other: &Measured) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            // Both have the same bounds.
            let _ = mine.add(theirs);
        }
        for (what, times) in &other.outcomes {
            *self.outcomes.entry(*what).or_default() += times;
        }
        self.charged_seconds += other.charged_seconds;
    }

    /// Requests with an answer, of one kind.
    pub fn answered(&self, kind: Kind) -> u64 {
        self.latencies[kind as usize].len()
    }

    /// Requests with an answer.
    pub fn all_answered(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    /// Latencies of one kind in nanoseconds, in the order of [`QUANTILES`].
    pub fn quantiles(&self, kind: Kind) -> [u64; 5] {
        quantiles(&self.latencies[kind as usize])
    }

    /// Latencies of all kinds together.
    pub fn all_quantiles(&self) -> [u64; 5] {
        let [first, rest @ ..] = &self.latencies;
        let mut all = first.clone();
        for other in rest {
            // All have the same bounds.
            let _ = all.add(other);
        }
        quantiles(&all)
    }
}

fn quantiles(latencies: &Histogram<u64>) -> [u64; 5] {
    let at = |quantile| latencies.value_at_quantile(quantile);
    [at(0.5), at(0.9), at(0.99), at(0.999), latencies.max()]
}

/// The middle one; of two in the middle the mean, of nothing 0.
pub fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let middle = values.len() / 2;
    match values.len() {
        0 => 0,
        odd if odd % 2 == 1 => values[middle],
        _ => values[middle - 1].midpoint(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(outcome: Outcome) -> Step {
        Step { kind: Kind::Settle, outcome, charged_seconds: 60 }
    }

    #[test]
    fn answers_have_latencies_and_failures_are_only_counted() {
        let mut measured = Measured::default();
        for micros in 1..=100 {
            measured.note(step(Outcome::Done), Duration::from_micros(micros));
        }
        let fault = Outcome::Failed(Fault::Status(8));
        measured.note(Step { charged_seconds: 0, ..step(fault) }, Duration::from_secs(9));
        assert_eq!(measured.answered(Kind::Settle), 100);
        assert_eq!(measured.all_answered(), 100);
        assert_eq!(measured.outcomes[&(Kind::Settle, fault)], 1);
        assert_eq!(measured.charged_seconds, 6_000);
        let [p50, _, p99, _, max] = measured.quantiles(Kind::Settle);
        assert_eq!([p50 / 1_000, p99 / 1_000, max / 1_000], [50, 99, 100]);
        let mut twice = measured.clone();
        twice.add(&measured);
        assert_eq!(twice.all_answered(), 200);
        assert_eq!(twice.all_quantiles(), measured.all_quantiles());
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![5]), 5);
        assert_eq!(median(vec![9, 1, 5]), 5);
        assert_eq!(median(vec![9, 1]), 5);
    }
}
