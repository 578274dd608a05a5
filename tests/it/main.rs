//! Integration tests: one binary, one file per subject.

mod redis_ledger;
mod support;
