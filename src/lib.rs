//! Tollgate: real-time call authorization for session border controllers.
//!
//! The map, in reading order: [`charging`] decides who pays, without knowing how anything is stored;
//! [`ledger`] is the port behind which balances, holds and calls live, [`journal`] what one process keeps of
//! it on its own disk; [`credit_control`] joins the two into the use cases of a call, [`administration`] into
//! those of an operator; of the ledger's journal [`records`] makes usage records, [`events`] tells what it means, and
//! [`notices`] sends that on. [`grpc`] and [`cli`] are the edges, [`proto`] their wire types, [`transcoding`] puts
//! JSON before the first, [`organisation`] is the document that an operator writes. [`security`] says who may ask
//! for what. [`config`] and [`ops`] are the server around them, [`metrics`] what it tells of itself; [`app`]
//! builds it.

pub mod administration;
pub mod app;
pub mod charging;
pub mod cli;
pub mod config;
pub mod credit_control;
pub mod duration;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod grpc;
pub mod journal;
pub mod ledger;
pub mod metrics;
pub mod notices;
pub mod ops;
pub mod organisation;
pub mod proto;
pub mod records;
pub mod security;
pub mod transcoding;
