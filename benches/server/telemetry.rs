//! What telemetry costs: the same load on a server that tells everything and on one that tells nothing.

use tollgate::cli::loadtest::drive::Pace;

use crate::collector::Received;
use crate::subject::{Ledger, SMALL, Started, Subject};
use crate::trial::{Trial, medians};
use crate::{AUTHORIZE, Scale, play, say};

/// Most requests for each span that came: one request in a hundred is sampled, and half of these may be lost.
const REQUESTS_OF_A_SPAN: u64 = 200;

/// Of fewer requests it may be that none was sampled.
const ENOUGH: u64 = 10_000;

/// What was found.
pub struct Telemetry {
    pub off: Trial,
    pub on: Trial,
    /// Requests a second, on against off.
    pub throughput: Ratio,
    /// CPU a request of the server, on against off.
    pub cpu: Ratio,
    pub received: Received,
}

/// Quartiles of the ratios of pairs that were measured one right after the other.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

impl Ratio {
    fn of(pairs: impl Iterator<Item = (u64, u64)>) -> Ratio {
        let mut ratios: Vec<f64> =
            pairs.map(|(one, other)| one as f64 / other.max(1) as f64).collect();
        ratios.sort_by(f64::total_cmp);
        let last = ratios.len() - 1;
        let middle = f64::midpoint(ratios[last / 2], ratios[last.div_ceil(2)]);
        Ratio { low: ratios[last / 4], middle, high: ratios[last - last / 4] }
    }
}

/// Both stand ready in each round, made anew, and take turns a few times: what is looked for is
/// smaller than what changes from second to second, so that neighbours are compared.
pub fn measure(scale: &Scale) -> Telemetry {
    let subject = Subject::Tollgate(Ledger::Redis, AUTHORIZE);
    let (mut off, mut on) = (vec![], vec![]);
    let mut received = Received::default();
    for round in 0..scale.rounds {
        let stages = [Started::of(subject, SMALL), Started::observed(subject, SMALL)];
        for turn in 0..scale.turns {
            let first = (round + turn) % 2;
            for nth in [first, 1 - first] {
                let pace = Pace::Closed { concurrency: 64 };
                let trial = play(subject, &stages[nth], pace, scale.turn);
                let (trials, name) =
                    [(&mut off, "off"), (&mut on, "on")].into_iter().nth(nth).unwrap();
                say(&format!("telemetry {name}"), &trial);
                trials.push(trial);
            }
        }
        let [_, observed] = stages;
        received.add(observed.end());
    }
    let seconds = scale.turn.measured.as_secs_f64();
    let answered: f64 = on.iter().map(|trial| trial.per_second as f64 * seconds).sum();
    let answered = answered as u64;
    // Where nothing came, something else was measured.
    assert!(
        answered < ENOUGH || received.spans >= answered / REQUESTS_OF_A_SPAN,
        "{received:?} of {answered} requests and more"
    );
    // Less than a tick in most turns.
    let collector = on.iter().map(|trial| trial.collector).sum::<u64>() / on.len().max(1) as u64;
    let pairs = |figure: fn(&Trial) -> u64| {
        Ratio::of(on.iter().zip(&off).map(|(on, off)| (figure(on), figure(off))))
    };
    Telemetry {
        throughput: pairs(|trial| trial.per_second),
        cpu: pairs(|trial| trial.server),
        off: medians(&off),
        on: Trial { collector, ..medians(&on) },
        received,
    }
}
