//! What a length of money-funded usage costs under one frozen tariff.
//!
//! Exact integer arithmetic, rounded up once to the micro-unit (rule 39, D14). The same arithmetic
//! stands in `ledger/redis/scripts/lib.lua`; the two are compared exhaustively by the tests.

use serde::{Deserialize, Serialize};

use crate::charging::units::{Micros, Seconds};

/// Dearest rate per minute that a deck may hold: 10,000 currency units.
///
/// With [`MAX_USAGE`] it keeps `rate * seconds` below 2^53, so that Lua computes it exactly.
pub const MAX_RATE: Micros = Micros(10_000_000_000);

/// Longest usage that a report may claim, seven days; longer is a malformed request.
pub const MAX_USAGE: Seconds = Seconds(7 * 86_400);

/// A price per minute with its charging increments, frozen for a call at authorize (contract rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tariff {
    /// Price of one minute, 0 to [`MAX_RATE`].
    pub rate_per_minute: Micros,
    /// Charged once, when any second of the call is paid with money; 0 to [`MAX_RATE`].
    pub connection_fee: Micros,
    /// Shortest billed length, 1 to 3600 s.
    pub initial_increment: Seconds,
    /// Step of every further billed length, 1 to 3600 s.
    pub increment: Seconds,
}

impl Tariff {
    /// `used` rounded up to what is billed; zero stays zero.
    pub fn billed(&self, used: Seconds) -> Seconds {
        if !used.is_positive() {
            Seconds::ZERO
        } else if used <= self.initial_increment {
            self.initial_increment
        } else {
            self.initial_increment + (used - self.initial_increment).round_up(self.increment)
        }
    }

    /// The price of `used` seconds, connection fee included; zero seconds cost nothing.
    pub fn cost(&self, used: Seconds) -> Micros {
        let billed = self.billed(used);
        if billed == Seconds::ZERO {
            return Micros::ZERO;
        }
        self.connection_fee + Micros((self.rate_per_minute.0 * billed.0 + 59) / 60)
    }

    /// The longest billed length whose price is at most `budget`, or zero; never above `wanted` billed.
    pub fn affordable(&self, budget: Micros, wanted: Seconds) -> Seconds {
        let wanted = self.billed(wanted);
        if self.cost(wanted) <= budget {
            return wanted;
        }
        if self.cost(self.initial_increment) > budget {
            return Seconds::ZERO;
        }
        // cost(b) <= budget  <=>  rate * b <= 60 * (budget - fee); the rate is not zero here.
        let longest = Seconds((budget - self.connection_fee).0 * 60 / self.rate_per_minute.0);
        self.initial_increment + (longest - self.initial_increment).round_down(self.increment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tariff(rate: i64, fee: i64, initial: i64, increment: i64) -> Tariff {
        Tariff {
            rate_per_minute: Micros(rate),
            connection_fee: Micros(fee),
            initial_increment: Seconds(initial),
            increment: Seconds(increment),
        }
    }

    #[test]
    fn sixty_one_seconds_at_ten_cents_with_a_fee_of_five_cost_twenty_five_cents() {
        assert_eq!(tariff(100_000, 50_000, 60, 60).cost(Seconds(61)), Micros(250_000));
    }

    #[test]
    fn unanswered_costs_nothing_even_with_a_fee() {
        assert_eq!(tariff(100_000, 50_000, 60, 60).cost(Seconds::ZERO), Micros::ZERO);
    }

    #[test]
    fn affordable_is_the_largest_length_that_the_budget_covers() {
        for rate in [0, 1, 7, 59, 60, 61, 100] {
            for fee in [0, 5] {
                for (initial, increment) in [(60, 60), (30, 6), (1, 1), (6, 10)] {
                    let t = tariff(rate, fee, initial, increment);
                    for budget in 0..200 {
                        let found = t.affordable(Micros(budget), Seconds(150));
                        let best = (0..=150)
                            .map(Seconds)
                            .filter(|&s| t.cost(s) <= Micros(budget))
                            .map(|s| t.billed(s))
                            .max()
                            .unwrap_or_default();
                        assert_eq!(found, best, "{t:?} budget {budget}");
                    }
                }
            }
        }
    }
}
