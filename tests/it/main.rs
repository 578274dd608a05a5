//! Everything that is tested from outside the library, as one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod architecture;
mod audit_under_load;
mod grpc_account;
mod grpc_calls;
mod ledger_audit;
mod ledger_contract;
mod ledger_model;
mod order_of_checks;
mod redis_ledger;
mod server;
mod state_table;
mod support;
mod use_cases;
