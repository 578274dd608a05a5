//! Identifiers as validated text: once a value has one of these types, it is well formed.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[A-Za-z0-9][A-Za-z0-9._@-]{0,127}`.
    #[error("expected 1 to 128 of A-Z a-z 0-9 . _ @ -, the first a letter or digit")]
    Name,
    /// A call id, or the key of a purchase, that is empty or too long.
    #[error("expected 1 to 128 bytes, not {0}")]
    Length(usize),
    /// One with a control character.
    #[error("expected no control characters")]
    ControlCharacter,
    /// A purchase that is named like the overage of a month.
    #[error("expected another beginning than overage:, which names what is post-paid")]
    Reserved,
    /// A call that is named like a lease.
    #[error(
        "expected another beginning than lease:, which names what is held for calls without the ledger"
    )]
    Lease,
    /// A purchase by hand that is named like a recharge.
    #[error(
        "keys of the form recharge.<number> are those of auto-recharges, which ReportRecharge answers; \
         expected another key"
    )]
    OfRecharge,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps `text`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// A text of our own, known to be well formed when the program is written.
            #[allow(dead_code, reason = "not every kind of id has texts of our own")]
            pub(crate) fn literal(text: &'static str) -> Self {
                debug_assert!($check(text).is_ok());
                Self(Arc::from(text))
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn check_name(text: &str) -> Result<(), IdError> {
    let bytes = text.as_bytes();
    let well_formed = (1..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(b));
    if well_formed { Ok(()) } else { Err(IdError::Name) }
}

fn check_call_id(text: &str) -> Result<(), IdError> {
    if !(1..=128).contains(&text.len()) {
        Err(IdError::Length(text.len()))
    } else if text.chars().any(char::is_control) {
        Err(IdError::ControlCharacter)
    } else {
        Ok(())
    }
}

fn any_text(_: &str) -> Result<(), IdError> {
    Ok(())
}

text_id! {
    /// An organisation; every balance belongs to exactly one.
    TenantId, check_name
}

text_id! {
    /// Who pays: a user, a meeting organiser, a service number or a resource account.
    PayerId, check_name
}

text_id! {
    /// One call leg, named by the client (contract rule 1); opaque.
    CallId, check_call_id
}

/// What the names of leases begin with, and those of no call.
const LEASE: &str = "lease:";

impl CallId {
    /// The id of a call that a client names: anything but a lease's.
    pub fn of_client(text: &str) -> Result<CallId, IdError> {
        let id = CallId::new(text)?;
        if id.is_lease() { Err(IdError::Lease) } else { Ok(id) }
    }

    /// The `number`th lease of a process.
    pub(crate) fn lease(process: &str, number: u64) -> CallId {
        CallId(Arc::from(format!("{LEASE}{process}/{number}")))
    }

    /// Whether it is no call but a lease: a hold for calls without the ledger (D20).
    pub fn is_lease(&self) -> bool {
        names_lease(&self.0)
    }
}

/// Whether a text names a lease, and not a call.
pub fn names_lease(id: &str) -> bool {
    id.starts_with(LEASE)
}

text_id! {
    /// A monthly pool of minutes, such as `US:MCOPSTN1:DOMESTIC:2026-11`. Made by
    /// [`crate::charging::entitlement`], never by a client.
    PoolId, any_text
}

impl PoolId {
    /// The pool of `family` (such as `US:MCOPSTN1:DOMESTIC`) in the month of that key.
    pub fn of(family: &str, month: &str) -> PoolId {
        PoolId(Arc::from(format!("{family}:{month}")))
    }

    /// The pool without its month.
    pub fn family(&self) -> &str {
        self.0.rsplit_once(':').map_or(&*self.0, |(family, _)| family)
    }

    /// The key of its month.
    pub fn month(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(_, month)| month)
    }
}

text_id! {
    /// A lot of the wallet: the key of the purchase that made it; or the overage of a month.
    LotId, check_call_id
}

text_id! {
    /// A correction of a balance or of a settled call: applied once, and remembered for ever.
    AdjustmentId, check_call_id
}

/// What the keys of recharges begin with; a number follows.
const RECHARGE: &str = "recharge.";

/// How the overage of a month is named, before the key of the month. A purchase may have any other text
/// as its key, colons too, so that this beginning is kept from purchases ([`LotId::of_purchase`]).
const OVERAGE: &str = "overage:";

impl LotId {
    /// The key of a purchase by hand: any lot's name but those of overage and of recharges.
    pub fn of_purchase(text: &str) -> Result<LotId, IdError> {
        let key = LotId::new(text)?;
        match key {
            key if key.is_overage() => Err(IdError::Reserved),
            key if key.is_recharge() => Err(IdError::OfRecharge),
            key => Ok(key),
        }
    }

    /// What is post-paid in the month of that key (rule 42).
    pub fn overage(month: &str) -> LotId {
        LotId(Arc::from(format!("{OVERAGE}{month}")))
    }

    /// Whether this is no purchase but the overage of a month.
    pub fn is_overage(&self) -> bool {
        self.0.starts_with(OVERAGE)
    }

    /// The key of the month whose overage this is; empty of a purchase.
    pub fn overage_month(&self) -> &str {
        self.0.strip_prefix(OVERAGE).unwrap_or_default()
    }

    /// The key of a tenant's recharge of that number, from 1.
    pub fn recharge(number: i64) -> LotId {
        LotId(Arc::from(format!("{RECHARGE}{number}")))
    }

    /// Whether only a recharge may have it, so that no purchase by hand takes its place.
    pub fn is_recharge(&self) -> bool {
        self.0.strip_prefix(RECHARGE).is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_that_is_none_says_which_limit_it_breaks() {
        let fault = |text: &str| CallId::new(text).expect_err("no call id").to_string();
        assert_eq!(fault(""), "expected 1 to 128 bytes, not 0");
        assert_eq!(fault(&"é".repeat(65)), "expected 1 to 128 bytes, not 130");
        assert_eq!(fault("a\tb"), "expected no control characters");
        assert!(CallId::new(&"é".repeat(64)).is_ok());
    }

    #[test]
    fn no_purchase_is_named_like_the_overage_of_a_month() {
        let overage = LotId::overage("2026-11");
        assert_eq!((overage.as_str(), overage.is_overage()), ("overage:2026-11", true));
        assert_eq!(overage.overage_month(), "2026-11");
        assert_eq!(LotId::of_purchase("overage:2026-11"), Err(IdError::Reserved));
        for key in ["po:1", "overage", "Overage:2026-11"] {
            let lot = LotId::of_purchase(key).expect("a key");
            assert!(!lot.is_overage() && lot.overage_month().is_empty(), "{key}");
        }
    }

    #[test]
    fn only_the_word_and_a_number_are_the_key_of_a_recharge() {
        assert!(LotId::recharge(7).is_recharge());
        assert_eq!(LotId::of_purchase("recharge.7"), Err(IdError::OfRecharge));
        for other in ["recharge.", "recharge.x1", "recharge.1 ", "Recharge.1", "po-1", "recharge"] {
            assert!(!LotId::new(other).expect("a key").is_recharge(), "{other}");
        }
    }
}
