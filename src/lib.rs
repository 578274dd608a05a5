//! Tollgate: real-time call authorization for session border controllers.
//!
//! The map, in reading order: [`charging`] decides who pays, without knowing how anything is stored;
//! [`ledger`] is the port behind which balances, holds and calls live; [`credit_control`] joins the two
//! into the use cases; [`grpc`] and [`cli`] are the edges, [`proto`] their wire types; [`app`] builds the
//! parts.

pub mod app;
pub mod charging;
pub mod cli;
pub mod config;
pub mod credit_control;
pub mod duration;
pub mod grpc;
pub mod ledger;
pub mod ops;
pub mod organisation;
pub mod proto;
