//! What several subjects need.

pub mod redis;
