//! Everything that is tested from outside the library, as one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod grpc_account;
mod grpc_calls;
mod server;
