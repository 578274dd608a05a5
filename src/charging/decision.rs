//! The answers: every decision by name, and what a SIP network is told for each refusal.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! decisions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The outcome of an authorize, in the contract's order of precedence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Decision {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Decision {
            /// Every decision, in order of precedence.
            pub const ALL: &[Decision] = &[$(Decision::$variant,)*];

            /// Its name in the contract.
            pub fn name(self) -> &'static str {
                match self { $(Decision::$variant => $name,)* }
            }
        }
    };
}

decisions! {
    /// An emergency call, decided before everything else (contract rule 13).
    AllowedEmergency = "ALLOWED_EMERGENCY",
    /// The key was used with another payload: a fault of the client.
    KeyConflict = "KEY_CONFLICT",
    /// The call of this key is over.
    CallAlreadyEnded = "CALL_ALREADY_ENDED",
    /// The dialled text is no telephone number.
    NumberInvalid = "NUMBER_INVALID",
    /// No such payer, or no such tenant.
    PayerUnknown = "PAYER_UNKNOWN",
    /// The tenant's calls are stopped.
    TenantSuspended = "TENANT_SUSPENDED",
    /// The payer is blocked, or the tenant's spend velocity is used up.
    FraudSuspected = "FRAUD_SUSPECTED",
    /// The outbound policy forbids the call (rules 21 and 67).
    PolicyDenied = "POLICY_DENIED",
    /// The destination is not on the list, premium, or blocked (rules 22 and 23, D13, D21).
    DestinationBlocked = "DESTINATION_BLOCKED",
    /// No licence of any kind for this type of call.
    NotEntitled = "NOT_ENTITLED",
    /// Too many calls per second; never stored as an answer.
    RateLimited = "RATE_LIMITED",
    /// Too many open calls, of the user or of the tenant.
    ConcurrencyLimit = "CONCURRENCY_LIMIT",
    /// A pool covers this kind of call but is empty, and credits cannot pay.
    PoolExhausted = "POOL_EXHAUSTED",
    /// Money must pay and the payer holds no credits licence (rule 33).
    CreditsNotLicensed = "CREDITS_NOT_LICENSED",
    /// Money must pay and the deck has no row (D28).
    DestinationUnrated = "DESTINATION_UNRATED",
    /// The price is above the tenant's maximum.
    PriceAboveLimit = "PRICE_ABOVE_LIMIT",
    /// The payer's monthly spend limit is used up (D15).
    SpendLimitReached = "SPEND_LIMIT_REACHED",
    /// The wallet does not cover the connection fee and the first increment (D6).
    InsufficientCredits = "INSUFFICIENT_CREDITS",
    /// An inbound toll-free call that the wallet cannot pay (rule 36).
    TollFreeUnfunded = "TOLL_FREE_UNFUNDED",
    /// The ledger is out of reach and the failure handling says no (D20).
    LedgerUnavailable = "LEDGER_UNAVAILABLE",
    /// Granted and funded.
    Allowed = "ALLOWED",
    /// Granted; nothing to pay.
    AllowedFree = "ALLOWED_FREE",
    /// Granted from a lease while the ledger is out of reach.
    AllowedDegraded = "ALLOWED_DEGRADED",
}

/// What a refused call is answered with on the SIP side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// SIP status code.
    pub sip_status: u16,
    /// Its reason phrase (RFC 3261 section 21).
    pub sip_phrase: &'static str,
    /// Q.850 cause value for the Reason header; `None` where there is none.
    pub q850_cause: Option<u8>,
    /// Whether another route may be tried: only when the fault is ours.
    pub reroute_allowed: bool,
}

/// Details that change the response of one decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nuance {
    /// Nothing more to say.
    #[default]
    None,
    /// `NUMBER_INVALID`: too short to be a number.
    TooShort,
    /// `CONCURRENCY_LIMIT`: the tenant's, not the user's.
    OfTenant,
}

impl Decision {
    /// The decision of that name.
    pub fn parse(name: &str) -> Option<Decision> {
        Decision::ALL.iter().copied().find(|decision| decision.name() == name)
    }

    /// Whether the call may go on.
    pub fn allowed(self) -> bool {
        matches!(
            self,
            Decision::AllowedEmergency
                | Decision::Allowed
                | Decision::AllowedFree
                | Decision::AllowedDegraded
        )
    }

    /// The default row of the contract's table; `None` for a grant.
    ///
    /// No refusal is a 503 but the one that is our own failure: a 503 marks the route dead upstream,
    /// and one empty wallet would become many attempts.
    pub fn response(self, nuance: Nuance) -> Option<Response> {
        let (sip_status, q850_cause) = match (self, nuance) {
            (d, _) if d.allowed() => return None,
            (Decision::CallAlreadyEnded, _) => (487, None),
            (Decision::NumberInvalid, Nuance::TooShort) => (484, Some(28)),
            (Decision::NumberInvalid, _) => (404, Some(1)),
            (Decision::FraudSuspected, _) => (603, Some(21)),
            (Decision::RateLimited | Decision::TollFreeUnfunded, _)
            | (Decision::ConcurrencyLimit, Nuance::OfTenant) => (480, Some(31)),
            (Decision::ConcurrencyLimit, _) => (486, Some(17)),
            (Decision::InsufficientCredits, _) => (402, Some(21)),
            (Decision::LedgerUnavailable, _) => (503, Some(41)),
            _ => (403, Some(21)),
        };
        let reroute_allowed = self == Decision::LedgerUnavailable;
        Some(Response {
            sip_status,
            sip_phrase: sip_phrase(sip_status),
            q850_cause,
            reroute_allowed,
        })
    }
}

/// The reason phrase of a SIP status (RFC 3261 section 21); "Call Refused" for one that has none here.
pub fn sip_phrase(status: u16) -> &'static str {
    match status {
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        480 => "Temporarily Unavailable",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        503 => "Service Unavailable",
        603 => "Decline",
        _ => "Call Refused",
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_failure_is_a_503_and_may_be_rerouted() {
        for &decision in Decision::ALL {
            for nuance in [Nuance::None, Nuance::TooShort, Nuance::OfTenant] {
                let Some(response) = decision.response(nuance) else {
                    assert!(decision.allowed());
                    continue;
                };
                let ours = decision == Decision::LedgerUnavailable;
                assert_eq!(response.sip_status == 503, ours, "{decision}");
                assert_eq!(response.reroute_allowed, ours, "{decision}");
                assert_ne!(response.sip_phrase, "Call Refused", "{decision}");
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for &decision in Decision::ALL {
            assert_eq!(Decision::parse(decision.name()), Some(decision));
        }
        assert_eq!(Decision::parse("NOPE"), None);
    }
}
