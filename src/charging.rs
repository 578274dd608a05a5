//! The charging core: who pays for a call, how much, and why not.
//!
//! Pure: standard library and value crates only. No async, no clock, no environment, no logging,
//! no wire types; every instant and every balance is an argument.

pub mod catalogue;
pub mod decision;
pub mod deck;
pub mod entitlement;
pub mod funding;
pub mod ids;
pub mod licensing;
pub mod money;
pub mod month;
pub mod number;
pub mod plans;
pub mod profile;
pub mod rating;
pub mod short;
pub mod units;
