//! The organisation document: from text to profiles that can be trusted.
//!
//! [`read`] turns YAML into the raw document, [`check()`] the raw document (also made from an `Apply`
//! message) into what the ledger is given. Both name every fault they find, with line and field, and
//! yield nothing when there is one. Pure; must not know the ledger, the clock or the wire.

mod check;
mod faults;
mod raw;
mod values;

use std::fmt;

pub use check::check;
pub use raw::{
    Entries, RawAutoRecharge, RawFailureHandling, RawNotices, RawOrganisation, RawOutboundPolicy,
    RawPayment, RawPurchase, RawResourceAccount, RawResponse, RawRetention, RawServiceNumber,
    RawSpendVelocity, RawTenant, RawTenantLimits, RawTrunk, RawUser, RawUserLimits, Text,
};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Options};

use crate::charging::short::Short;

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The most keys and values that are read: 200,000 users with every key need 7 million.
const MAX_NODES: usize = 10_000_000;

/// The deepest nesting that is read; the format has 6 levels.
const MAX_DEPTH: usize = 16;

/// The most faults, and the most warnings of one tenant, that are listed one by one.
pub const MAX_LISTED: usize = 1000;

/// Something wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1; absent when the document did not come from a file.
    pub line: Option<u64>,
    /// Such as `tenants[0].users[3].licences[1]`; empty when the text could not be read that far.
    pub field: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Reads YAML, every scalar as text.
///
/// Text that is not YAML, or has a list where the format has a mapping, is one fault: nothing behind
/// it can be trusted. Everything else is left to [`check()`]. Anchors may be used; their expansion is
/// bounded, so that a small file cannot fill the memory.
pub fn read(yaml: &str) -> Result<RawOrganisation, Vec<Fault>> {
    if yaml.len() > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes, found {}", yaml.len());
        return Err(vec![Fault { line: None, field: String::new(), message }]);
    }
    serde_saphyr::from_str_with_options(yaml, options())
        .map_err(|error| vec![unreadable(yaml, &error)])
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 3 * MAX_NODES,
            max_nodes: MAX_NODES,
            max_total_scalar_bytes: MAX_BYTES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_anchors: 1000,
            max_aliases: 10_000,
            max_merge_keys: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn unreadable(yaml: &str, error: &serde_saphyr::Error) -> Fault {
    let line = error.location().map(|location| location.line()).filter(|&line| line > 0);
    let text = plainly(error);
    let near = line
        .and_then(|line| yaml.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?))
        .map(str::trim)
        .filter(|near| !near.is_empty());
    let message = match near {
        Some(near) => format!("{text}, in {}", Short(near)),
        None => text,
    };
    Fault { line, field: String::new(), message }
}

/// The library's words are for programmers; an operator sees YAML.
fn plainly(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate key {key}"),
        Error::Unexpected { expected: "sequence start", .. } => "expected a list".to_owned(),
        Error::Unexpected { expected: "mapping start", .. } => "expected a mapping".to_owned(),
        Error::Unexpected { expected: "string scalar", .. } => "expected text".to_owned(),
        Error::NullIntoString { .. } => "expected text, found nothing".to_owned(),
        Error::TaggedScalarCannotDeserializeIntoString { .. } => {
            "expected text without a tag".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "expected one document".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("expected at most {MAX_DEPTH} levels")
        }
        Error::Budget {
            breach: BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. }, ..
        } => {
            format!("expected at most {MAX_NODES} values and keys")
        }
        // The position is said once, at the front.
        error => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests;
