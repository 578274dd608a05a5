//! Everything that is tested from outside the library, as one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod architecture;
mod grpc_account;
mod grpc_calls;
mod ledger_audit;
mod ledger_contract;
mod ledger_model;
mod redis_ledger;
mod server;
mod state_table;
mod support;
mod usage;
