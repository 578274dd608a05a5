//! Everything that is tested from outside the library, as one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod architecture;
mod audit_under_load;
mod billing;
mod cli;
mod demo;
mod docs;
mod events;
mod grpc_account;
mod grpc_calls;
mod hostile_bytes;
mod killed;
mod ledger_audit;
mod ledger_contract;
mod ledger_model;
mod one_unit_left;
mod order_of_checks;
mod redis_away;
mod redis_ledger;
mod retention;
mod server;
mod state_table;
mod stock_client;
mod support;
mod usage;
mod use_cases;
