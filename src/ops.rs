//! Running the program: listeners, health, shutdown and the log.
//!
//! Knows nothing of calls and money.

pub mod health;
pub mod listener;
pub mod report;
pub mod shutdown;
pub mod telemetry;
pub mod traces;
