//! Integer units: seconds of usage, micro-units of money, instants of the store's clock.
//!
//! All are below 2^53, so that the same arithmetic is exact in Rust, in Lua and in JSON.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// The largest integer that every part of the system (Lua numbers are doubles) holds exactly.
pub const MAX_EXACT: i64 = 9_007_199_254_740_991;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// The smaller of the two.
            pub fn min(self, other: Self) -> Self {
                Self(self.0.min(other.0))
            }

            /// The larger of the two.
            pub fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }

            /// This much less `other`, never below zero.
            pub fn minus_or_zero(self, other: Self) -> Self {
                Self((self.0 - other.0).max(0))
            }

            /// Whether it is more than zero.
            pub fn is_positive(self) -> bool {
                self.0 > 0
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }

        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit! {
    /// A length of usage in whole seconds (contract rule 9).
    Seconds
}

unit! {
    /// Money in millionths of the tenant's currency unit (contract rule 9): 0.25 USD is 250,000.
    Micros
}

unit! {
    /// An instant in milliseconds since 1970-01-01T00:00:00Z.
    ///
    /// Instants that decide anything come from the store's clock (contract rule 7).
    Millis
}

impl Seconds {
    /// Rounded up to a whole number of `increment`s; `increment` must be positive.
    pub fn round_up(self, increment: Seconds) -> Seconds {
        Seconds((self.0 + increment.0 - 1) / increment.0 * increment.0)
    }

    /// Rounded down to a whole number of `increment`s; `increment` must be positive.
    pub fn round_down(self, increment: Seconds) -> Seconds {
        Seconds(self.0 / increment.0 * increment.0)
    }
}

impl Millis {
    /// The instant `length` later.
    pub fn after(self, length: Seconds) -> Millis {
        Millis(self.0 + length.0 * 1000)
    }

    /// Whole seconds from `earlier` to here, cut, never negative.
    pub fn seconds_since(self, earlier: Millis) -> Seconds {
        Seconds((self.0 - earlier.0).max(0) / 1000)
    }
}
