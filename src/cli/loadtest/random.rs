//! Random numbers, and what is drawn with them: users by Zipf's law, arrivals by Poisson's.
//!
//! In integers: logarithms and powers are fixed-point, exact to about one in ten million, which no
//! measurement sees.

/// Fractional bits of a logarithm.
const LOG_BITS: u32 = 24;

/// One in fixed point with 63 fractional bits.
const ONE: u64 = 1 << 63;

/// Natural logarithm of 2, in millionths of a millionth.
const LN_2: u128 = 693_147_180_560;

/// A stream of random numbers (SplitMix64): the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// Time from one arrival to the next in nanoseconds, where `per_second` arrive at random: 1 to 10^9.
    pub fn gap_nanos(&mut self, per_second: u64) -> u64 {
        // -ln(U) of a U in (0, 1].
        let log = log2(self.number() | 1);
        let halvings = u128::from((64_u64 << LOG_BITS).saturating_sub(log));
        let nanos = halvings * LN_2 / 1_000 / u128::from(per_second.max(1));
        (nanos >> LOG_BITS) as u64
    }
}

/// Ranks drawn by Zipf's law: the first is the most frequent, the n-th is drawn 1/n^s times as often.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// The sum of the weights up to each rank.
    sums: Vec<u64>,
}

impl Zipf {
    /// Over `ranks` ranks, at least 1 and below 2^24, with an exponent in hundredths: 0 draws evenly.
    pub fn new(ranks: u32, exponent_hundredths: u32) -> Zipf {
        let mut sum = 0;
        let weight = |rank: u32| {
            let log = log2(u64::from(rank)) * u64::from(exponent_hundredths) / 100;
            // At least 1, so that every rank can be drawn; 2^24 ranks of 2^39 fit.
            (two_to_minus(log) >> 24).max(1)
        };
        let sums = (1..=ranks.max(1)).map(|rank| {
            sum += weight(rank);
            sum
        });
        Zipf { sums: sums.collect() }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let all = self.sums.last().copied().unwrap_or(1);
        let at = random.below(all);
        self.sums.partition_point(|sum| *sum <= at)
    }
}

/// log2 in fixed point; of at least 1.
fn log2(value: u64) -> u64 {
    let whole = 63 - value.max(1).leading_zeros();
    let mut rest = u128::from(value.max(1)) << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..LOG_BITS {
        rest = (rest * rest) >> 63;
        let bit = u64::from(rest >= u128::from(ONE) * 2);
        rest >>= bit;
        log = (log << 1) | bit;
    }
    log
}

/// 2 to the power of minus a logarithm, with 63 fractional bits.
fn two_to_minus(log: u64) -> u64 {
    let halvings = (log >> LOG_BITS).min(63);
    let mut power = u128::from(ONE) >> halvings;
    let mut root = u128::from(ONE) / 2;
    for bit in (0..LOG_BITS).rev() {
        root = (root << 63).isqrt();
        if log >> bit & 1 == 1 {
            power = (power * root) >> 63;
        }
    }
    power as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_and_powers_are_each_others_inverse() {
        for value in [1, 2, 3, 10, 1_000, 50_000, u64::from(u32::MAX)] {
            let back = u128::from(two_to_minus(log2(value))) * u128::from(value);
            let off = back.abs_diff(u128::from(ONE));
            assert!(off < u128::from(ONE) / 100_000, "{value}: off by {off}");
        }
        assert_eq!(log2(8), 3 << LOG_BITS);
    }

    #[test]
    fn zipf_draws_the_second_half_as_often_as_the_first() {
        let (zipf, mut random) = (Zipf::new(1_000, 100), Random::new(7));
        let mut drawn = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            drawn[zipf.draw(&mut random)] += 1;
        }
        let ratio = drawn[0] * 100 / drawn[1];
        assert!((190..=210).contains(&ratio), "1 : 2 is {ratio} %");
        let ratio = drawn[0] * 100 / drawn[9];
        assert!((900..=1_100).contains(&ratio), "1 : 10 is {ratio} %");
    }

    #[test]
    fn an_exponent_of_nothing_draws_evenly() {
        let (zipf, mut random) = (Zipf::new(4, 0), Random::new(7));
        let mut drawn = [0_u32; 4];
        for _ in 0..40_000 {
            drawn[zipf.draw(&mut random)] += 1;
        }
        assert!(drawn.iter().all(|times| (9_500..10_500).contains(times)), "{drawn:?}");
        assert_eq!(Zipf::new(1, 100).draw(&mut random), 0);
    }

    #[test]
    fn arrivals_come_at_the_rate_asked_for_and_irregularly() {
        let mut random = Random::new(7);
        let gaps: Vec<u64> = (0..100_000).map(|_| random.gap_nanos(10_000)).collect();
        let mean = gaps.iter().sum::<u64>() / 100_000;
        assert!((98_000..102_000).contains(&mean), "mean gap {mean} ns");
        // Of an exponential law, 63.2 % are below the mean.
        let below = gaps.iter().filter(|gap| **gap < 100_000).count();
        assert!((62_500..64_000).contains(&below), "{below} below the mean");
    }
}
