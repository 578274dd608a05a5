//! The gRPC edge: wire types become domain types and back, errors become a `Status`.
//!
//! Wire types stop here: nothing below knows prost or tonic.

pub mod account;
pub mod answer;
pub mod call_authorization;
pub mod convert;
pub mod deadline;
pub mod gate;
pub mod measured;
pub mod organisation;
pub mod status;
pub mod watch;
