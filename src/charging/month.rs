//! Calendar months in a tenant's time zone (being written).

use crate::charging::units::Millis;

/// One calendar month of one time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Month {
    /// Such as `2026-11`.
    pub key: String,
    /// First instant.
    pub starts: Millis,
    /// First instant of the next month.
    pub ends: Millis,
}
