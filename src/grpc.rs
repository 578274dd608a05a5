//! The gRPC edge: wire types become domain types and back, errors become a `Status`.
//!
//! Wire types stop here: nothing below knows prost or tonic.

pub mod convert;
pub mod status;
