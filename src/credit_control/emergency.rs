//! Emergency calls: decided first, from local data, whatever else is wrong (contract rule 13).

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::charging::catalogue::CountryCode;
use crate::charging::decision::Decision;
use crate::charging::entitlement::{CallClass, CallType, Classification, Explain};
use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::number;
use crate::charging::profile::PayerState;
use crate::charging::units::Seconds;
use crate::credit_control::CreditControl;
use crate::credit_control::answer::{Answer, CallContext};
use crate::credit_control::directory::Tenant;
use crate::credit_control::records::granted_call;
use crate::ledger::state::Terms;
use crate::ledger::{Authorize, CallLimits, Ledger, Offer, Proposal, Versions};
use crate::metrics::Command as Asked;

/// Where the record of an emergency call goes that names no tenant, or none that exists.
pub const UNATTRIBUTED: &str = "unattributed";

/// How long an emergency call may last: nobody hangs up on it, but no timer may be endless.
const EMERGENCY_GRANT: Seconds = Seconds(24 * 3600);

/// How long when only the number before the SBC's rewriting is an emergency number.
const REWRITTEN_GRANT: Seconds = Seconds(4 * 3600);

/// A request as it came, nothing in it checked.
#[derive(Clone, Copy, Debug)]
pub struct RawRequest<'a> {
    /// May be malformed or unknown.
    pub tenant: &'a str,
    /// May be malformed.
    pub call: &'a str,
    /// `None` where the request says nothing known.
    pub call_type: Option<CallType>,
    /// May be malformed or unknown.
    pub payer: &'a str,
    /// As presented.
    pub calling_number: &'a str,
    /// As dialled.
    pub called_number: &'a str,
    /// As dialled before the SBC rewrote it.
    pub original_called_number: &'a str,
    /// May be malformed or unknown.
    pub trunk: &'a str,
    /// Whether the answer will be reported.
    pub reports_answer: bool,
    /// Why nobody vouches for the tenant; empty where somebody does. The call is then decided all the same, by
    /// whoever it says that it is of, and recorded with this flag under [`UNATTRIBUTED`].
    pub unvouched: &'a str,
}

impl<L: Ledger> CreditControl<L> {
    /// The grant if this is an emergency call, else `None`.
    ///
    /// The ledger is asked at most for the payer's country, and only when the number is an emergency
    /// number somewhere; where it does not answer, somewhere is enough.
    pub async fn authorize_emergency(
        &self,
        raw: &RawRequest<'_>,
        deadline: Instant,
    ) -> Option<Answer> {
        if !may_be_emergency(raw) {
            return None;
        }
        // Boxed: it is rare and large, and every call would carry it along.
        Box::pin(self.grant_emergency(raw, deadline)).await
    }

    async fn grant_emergency(&self, raw: &RawRequest<'_>, deadline: Instant) -> Option<Answer> {
        let (kind, tenant) = self.emergency(raw, deadline).await?;
        let tenant = tenant.as_deref();
        let command = self.emergency_command(raw, kind, tenant);
        let answer = self.decide_locally(command, tenant.and_then(Tenant::profile)).await;
        tracing::info!(
            tenant = raw.tenant.escape_debug().to_string(),
            decision_id = answer.decision_id,
            rewritten = kind == Emergency::Rewritten,
            "emergency call"
        );
        Some(answer)
    }

    /// What [`CreditControl::authorize_emergency`] would answer; records nothing.
    pub(super) async fn quote_emergency(
        &self,
        raw: &RawRequest<'_>,
        deadline: Instant,
    ) -> Option<Answer> {
        let (kind, tenant) = self.emergency(raw, deadline).await?;
        let now = self.now();
        let call = granted_call(&self.emergency_command(raw, kind, tenant.as_deref()), now);
        let mut steps = vec![];
        let number = match kind {
            Emergency::Dialled => "called_number",
            Emergency::Rewritten => "original_called_number",
        };
        let detail = format_args!("{number} is an emergency number: free, and never refused");
        steps.step("EMERGENCY", true, "D22", detail);
        Some(Answer { steps, ..Answer::of(&call, None, now, false) })
    }

    /// Which number makes it an emergency call, if one does; and the tenant, where the ledger could say.
    async fn emergency(
        &self,
        raw: &RawRequest<'_>,
        deadline: Instant,
    ) -> Option<(Emergency, Option<Arc<Tenant>>)> {
        if !may_be_emergency(raw) {
            return None;
        }
        let (country, tenant) = self.emergency_country(raw, deadline).await;
        let is_emergency = |number: &str| match country {
            Country::Known(country) => number::is_emergency(number, Some(country)),
            Country::Unknown(fallback) => {
                number::is_emergency(number, None)
                    || fallback.is_some_and(|country| number::is_emergency(number, Some(country)))
            }
            Country::Unreachable => number::is_emergency_anywhere(number),
        };
        if is_emergency(raw.called_number) {
            return Some((Emergency::Dialled, tenant));
        }
        is_emergency(raw.original_called_number).then_some((Emergency::Rewritten, tenant))
    }

    /// Whose emergency numbers count; and the tenant, unknown or not, where the ledger could say.
    async fn emergency_country(
        &self,
        raw: &RawRequest<'_>,
        deadline: Instant,
    ) -> (Country, Option<Arc<Tenant>>) {
        let default = self.settings().emergency_country;
        let Ok(tenant_id) = TenantId::new(raw.tenant) else {
            return (Country::Unknown(default), None);
        };
        let payer_id = PayerId::new(raw.payer);
        let found = match &payer_id {
            Ok(payer) => self.look_up(&tenant_id, payer, deadline).await,
            Err(_) => {
                let tenant = self.directory().tenant(self.ledger(), &tenant_id);
                self.within(Asked::Directory, deadline, tenant)
                    .await
                    .map(|tenant| (tenant, Default::default()))
            }
        };
        let Ok((tenant, payer)) = found else { return (Country::Unreachable, None) };
        let known = payer.profile.as_ref().filter(|payer| payer.state != PayerState::Removed);
        let country = match known {
            Some(payer) => Country::Known(payer.usage_location),
            None => {
                let trunk = tenant.profile().and_then(|tenant| tenant.trunk(raw.trunk));
                Country::Unknown(trunk.and_then(|trunk| trunk.emergency_country).or(default))
            }
        };
        (country, Some(tenant))
    }

    fn emergency_command(
        &self,
        raw: &RawRequest<'_>,
        kind: Emergency,
        found: Option<&Tenant>,
    ) -> Authorize {
        let decision_id = emergency_id(raw);
        let mut warnings = vec![];
        let mut warn = |what: &str| {
            warnings.push(format!("{what} is malformed; the emergency call goes on"));
        };
        let tenant = TenantId::new(raw.tenant).unwrap_or_else(|_| {
            warn("tenant_id");
            TenantId::literal(UNATTRIBUTED)
        });
        let call = CallId::of_client(raw.call).or_else(|_| {
            warn("call_id");
            CallId::new(&decision_id)
        });
        // Nobody sweeps or lists a tenant that does not exist. Under the common name call ids may meet
        // that have nothing to do with each other.
        let known =
            raw.unvouched.is_empty() && found.is_none_or(|tenant| tenant.profile().is_some());
        let (tenant, call) = match known && tenant.as_str() != UNATTRIBUTED {
            true => (tenant, call),
            false => (TenantId::literal(UNATTRIBUTED), CallId::new(&decision_id)),
        };
        let detail = match tenant.as_str() {
            UNATTRIBUTED => {
                format!("tenant {:?}, call {:?}", bounded(raw.tenant), bounded(raw.call))
            }
            _ => String::new(),
        };
        let profile = found.and_then(Tenant::profile);
        let payer = PayerId::new(raw.payer).unwrap_or_else(|_| {
            warn("payer_id");
            PayerId::literal(UNATTRIBUTED)
        });
        if raw.call_type.is_none() {
            warn("call_type");
        }
        let (requested, mut flags) = match kind {
            Emergency::Dialled => (EMERGENCY_GRANT, vec![]),
            Emergency::Rewritten => {
                (REWRITTEN_GRANT, vec!["ORIGINAL_NUMBER_IS_EMERGENCY".to_owned()])
            }
        };
        if !raw.unvouched.is_empty() {
            flags.push(raw.unvouched.to_owned());
        }
        let context = CallContext {
            decision_id: decision_id.clone(),
            call_type: raw.call_type.unwrap_or(CallType::UserOutbound),
            calling_number: bounded(raw.calling_number),
            called_number: bounded(raw.called_number),
            original_called_number: bounded(raw.original_called_number),
            classification: Some(Classification::without_number(CallClass::Emergency)),
            destination: String::new(),
            deck_version: String::new(),
            tariff: None,
            currency: profile.map(|tenant| tenant.currency.clone()).unwrap_or_default(),
            detail,
            warnings,
            flags,
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            labels: Default::default(),
        };
        let now = self.now();
        let month = crate::charging::month::Month::containing(now, &jiff::tz::TimeZone::UTC);
        let offer = Offer {
            decision: Decision::AllowedEmergency,
            month,
            terms: Terms {
                counted: false,
                longest: requested,
                ..self.terms(raw.reports_answer, true, None)
            },
            requested,
            pools: vec![],
            money: None,
            limits: CallLimits::default(),
            when_exhausted: Decision::AllowedEmergency,
            when_spend_limited: Decision::AllowedEmergency,
            when_velocity_limited: Decision::AllowedEmergency,
        };
        Authorize {
            tenant,
            call: call.unwrap_or_else(|_| CallId::literal(UNATTRIBUTED)),
            fingerprint: decision_id,
            payer,
            trunk: bounded(raw.trunk),
            versions: Versions::default(),
            context: context.encode(),
            proposal: Proposal::Record(offer),
            denied_retention: self.settings().denied_retention,
            ended_retention: self.settings().ended_retention,
        }
    }
}

/// Whether a number is an emergency number somewhere, and the call one that somebody makes.
pub fn may_be_emergency(raw: &RawRequest<'_>) -> bool {
    let dialled = [raw.called_number, raw.original_called_number];
    dialled.iter().any(|number| number::is_emergency_anywhere(number))
        && !raw.call_type.is_some_and(|of| {
            matches!(
                of,
                CallType::UserInbound | CallType::TollFreeInbound | CallType::ConferenceDialIn
            )
        })
}

/// Which number makes it an emergency call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Emergency {
    /// The one that was called.
    Dialled,
    /// Only the one before the SBC's rewriting.
    Rewritten,
}

enum Country {
    /// The payer's.
    Known(CountryCode),
    /// The payer is unknown: that of the trunk or the server, where there is one.
    Unknown(Option<CountryCode>),
    /// The ledger does not say who the payer is.
    Unreachable,
}

/// A UUID (version 8) that is the same for every repeat of a request, so that its record is kept once.
fn emergency_id(raw: &RawRequest<'_>) -> String {
    let mut digest = Sha256::new();
    for field in [raw.tenant, raw.call, raw.called_number, raw.original_called_number] {
        digest.update(field.len().to_be_bytes());
        digest.update(field.as_bytes());
    }
    if raw.call.is_empty() {
        // Nothing tells two such calls apart: each is a decision of its own.
        digest.update(uuid::Uuid::now_v7().as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// A text as a record may keep it: at most 256 characters, none of them a control.
fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_of_an_emergency_call_has_one_uuid_however_often_it_is_asked_for() {
        let raw = RawRequest {
            tenant: "contoso",
            call: "leg-1",
            call_type: None,
            payer: "alice",
            calling_number: "",
            called_number: "911",
            original_called_number: "",
            trunk: "",
            reports_answer: false,
            unvouched: "",
        };
        let id = emergency_id(&raw);
        assert_eq!(uuid::Uuid::parse_str(&id).map(|id| id.get_version_num()), Ok(8), "{id}");
        assert_eq!(id.len(), 36, "hyphenated: {id}");
        assert_eq!(emergency_id(&raw), id);
        assert_ne!(emergency_id(&RawRequest { call: "leg-2", ..raw }), id);
    }
}
