//! The Redis ledger: its arithmetic and commands against Rust's, and what it says when Redis fails.

mod arithmetic;
mod faults;
mod lockstep;
mod together;
