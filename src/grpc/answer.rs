//! Answers of the use cases as messages.

use crate::charging::decision::Decision;
use crate::charging::entitlement::{CallClass, CallType, Classification, Step};
use crate::charging::number::NumberType;
use crate::charging::units::{Millis, Seconds};
use crate::credit_control::EndedCalls;
use crate::credit_control::answer::{Answer, Charge, Denial, FundingLine, FundingSource, Grant};
use crate::grpc::convert::{to_duration, to_money, to_timestamp};
use crate::ledger::EndResult;
use crate::proto::v1;

/// Most calls that an EndCalls answer names.
const MAX_NAMED_CALLS: usize = 1000;

/// A message with the fields that every answer about a call has.
macro_rules! answer_message {
    ($message:ident, $answer:expr $(, $more:ident: $value:expr)?) => {{
        let answer: Answer = $answer;
        v1::$message {
            decision: decision(answer.decision).into(),
            allowed: answer.grant.is_some(),
            replayed: answer.replayed,
            funding: funding(&answer.funding, &answer.currency),
            grant: answer.grant.as_ref().map(|of| grant(of, answer.token)),
            denial: answer.denial.map(denial),
            classification: answer.classification.as_ref().map(classification),
            decision_id: answer.decision_id,
            deck_version: answer.deck_version,
            warnings: answer.warnings,
            $($more: $value,)?
        }
    }};
}

/// A message with the fields that every end of a call has.
macro_rules! charge_message {
    ($message:ident, $charge:expr) => {{
        let charge: Charge = $charge;
        v1::$message {
            result: result(charge.result).into(),
            replayed: charge.replayed,
            charged_duration: to_duration(charge.charged_duration),
            charged_money: to_money(charge.charged_money, &charge.currency),
            funding: funding(&charge.funding, &charge.currency),
            shortfall_duration: to_duration(charge.shortfall_duration),
            shortfall_money: to_money(charge.shortfall_money, &charge.currency),
            recorded_duration: to_duration(charge.recorded_duration),
        }
    }};
}

/// The answer to AuthorizeCall.
pub fn authorized(answer: Answer) -> v1::AuthorizeCallResponse {
    answer_message!(AuthorizeCallResponse, answer)
}

/// The answer to ReportAnswer.
pub fn answer_reported(answer: Answer) -> v1::ReportAnswerResponse {
    answer_message!(ReportAnswerResponse, answer)
}

/// The answer to ExtendCall.
pub fn extended(answer: Answer) -> v1::ExtendCallResponse {
    answer_message!(ExtendCallResponse, answer)
}

/// The answer to QuoteCall.
pub fn quoted(mut answer: Answer) -> v1::QuoteCallResponse {
    let steps = std::mem::take(&mut answer.steps).into_iter().map(step).collect();
    answer_message!(QuoteCallResponse, answer, steps: steps)
}

/// The answer to SettleCall.
pub fn settled(charge: Charge) -> v1::SettleCallResponse {
    charge_message!(SettleCallResponse, charge)
}

/// The answer to ReleaseCall.
pub fn released(charge: Charge) -> v1::ReleaseCallResponse {
    charge_message!(ReleaseCallResponse, charge)
}

/// The answer to EndCalls.
pub fn ended(ended: &EndedCalls) -> v1::EndCallsResponse {
    let named = ended.calls.iter().take(MAX_NAMED_CALLS);
    v1::EndCallsResponse {
        ended_calls: u32::try_from(ended.calls.len()).unwrap_or(u32::MAX),
        released_calls: ended.released,
        charged_duration: to_duration(ended.calls.iter().map(|(_, duration, _)| *duration).sum()),
        charged_money: to_money(
            ended.calls.iter().map(|(_, _, money)| *money).sum(),
            &ended.currency,
        ),
        call_ids: named.map(|(call, _, _)| call.as_str().to_owned()).collect(),
    }
}

/// Funding lines; their money is in the tenant's currency.
pub fn funding(lines: &[FundingLine], currency: &str) -> Vec<v1::FundingLine> {
    let message = |line: &FundingLine| v1::FundingLine {
        source: match line.source {
            FundingSource::Free => v1::FundingSource::Free,
            FundingSource::Pool => v1::FundingSource::Pool,
            FundingSource::Credits => v1::FundingSource::Credits,
            FundingSource::Overage => v1::FundingSource::Overage,
        }
        .into(),
        bucket_id: line.bucket.clone(),
        duration: to_duration(line.duration),
        money: to_money(line.money, currency),
        rate_per_minute: to_money(line.rate_per_minute, currency),
        expires_at: (line.expires_at > Millis::ZERO)
            .then(|| to_timestamp(line.expires_at))
            .flatten(),
    };
    lines.iter().map(message).collect()
}

/// What the numbers of a call say.
pub fn classification(of: &Classification) -> v1::Classification {
    let number_type = match (of.class, of.number_type) {
        (CallClass::Emergency, _) => v1::NumberType::Emergency,
        (_, Some(number_type)) => self::number_type(number_type),
        (_, None) => v1::NumberType::Unspecified,
    };
    v1::Classification {
        call_class: call_class(of.class).into(),
        country: of.country.map(|country| country.as_str().to_owned()).unwrap_or_default(),
        number_type: number_type.into(),
        e164: of.e164.clone(),
    }
}

fn grant(grant: &Grant, token: String) -> v1::Grant {
    // A hold that lapses this very moment may be past by the time it is told.
    let at_least_zero = |seconds: Seconds| to_duration(seconds.max(Seconds::ZERO));
    v1::Grant {
        granted_duration: to_duration(grant.granted),
        refresh_after: at_least_zero(grant.refresh_after),
        ringing_timeout: to_duration(grant.ringing_timeout),
        hold_timeout: at_least_zero(grant.hold_timeout),
        final_grant: grant.final_grant,
        final_action: match (grant.final_grant, grant.announce) {
            (false, _) => v1::FinalAction::Unspecified,
            (true, false) => v1::FinalAction::Terminate,
            (true, true) => v1::FinalAction::AnnounceThenEnd,
        }
        .into(),
        token,
    }
}

fn denial(denial: Denial) -> v1::Denial {
    v1::Denial {
        reason: decision(denial.reason).into(),
        sip_status: denial.response.sip_status.into(),
        sip_phrase: denial.response.sip_phrase.to_owned(),
        q850_cause: denial.response.q850_cause.map_or(0, u32::from),
        reroute_allowed: denial.response.reroute_allowed,
        retry_after: to_duration(denial.retry_after),
        detail: denial.detail,
    }
}

fn step(step: Step) -> v1::QuoteStep {
    v1::QuoteStep {
        check: step.check,
        passed: step.passed,
        detail: step.detail,
        rule: step.rule.to_owned(),
    }
}

fn result(result: EndResult) -> v1::SettleResult {
    match result {
        EndResult::Settled => v1::SettleResult::Settled,
        EndResult::AlreadySettled => v1::SettleResult::AlreadySettled,
        EndResult::Released => v1::SettleResult::Released,
        EndResult::Parked => v1::SettleResult::Parked,
        EndResult::Accepted => v1::SettleResult::Accepted,
    }
}

/// A decision.
pub fn decision(decision: Decision) -> v1::Decision {
    match decision {
        Decision::AllowedEmergency => v1::Decision::AllowedEmergency,
        Decision::KeyConflict => v1::Decision::KeyConflict,
        Decision::CallAlreadyEnded => v1::Decision::CallAlreadyEnded,
        Decision::NumberInvalid => v1::Decision::NumberInvalid,
        Decision::PayerUnknown => v1::Decision::PayerUnknown,
        Decision::TenantSuspended => v1::Decision::TenantSuspended,
        Decision::FraudSuspected => v1::Decision::FraudSuspected,
        Decision::PolicyDenied => v1::Decision::PolicyDenied,
        Decision::DestinationBlocked => v1::Decision::DestinationBlocked,
        Decision::NotEntitled => v1::Decision::NotEntitled,
        Decision::RateLimited => v1::Decision::RateLimited,
        Decision::ConcurrencyLimit => v1::Decision::ConcurrencyLimit,
        Decision::PoolExhausted => v1::Decision::PoolExhausted,
        Decision::CreditsNotLicensed => v1::Decision::CreditsNotLicensed,
        Decision::DestinationUnrated => v1::Decision::DestinationUnrated,
        Decision::PriceAboveLimit => v1::Decision::PriceAboveLimit,
        Decision::SpendLimitReached => v1::Decision::SpendLimitReached,
        Decision::InsufficientCredits => v1::Decision::InsufficientCredits,
        Decision::TollFreeUnfunded => v1::Decision::TollFreeUnfunded,
        Decision::LedgerUnavailable => v1::Decision::LedgerUnavailable,
        Decision::Allowed => v1::Decision::Allowed,
        Decision::AllowedFree => v1::Decision::AllowedFree,
        Decision::AllowedDegraded => v1::Decision::AllowedDegraded,
    }
}

/// A type of call that a client may ask for; `None` for UNSPECIFIED.
pub fn from_call_type(of: v1::CallType) -> Option<CallType> {
    match of {
        v1::CallType::Unspecified => None,
        v1::CallType::UserOutbound => Some(CallType::UserOutbound),
        v1::CallType::ConferenceDialOut => Some(CallType::ConferenceDialOut),
        v1::CallType::ConferenceDialIn => Some(CallType::ConferenceDialIn),
        v1::CallType::TollFreeInbound => Some(CallType::TollFreeInbound),
        v1::CallType::UserInbound => Some(CallType::UserInbound),
    }
}

/// A type of call.
pub fn call_type(of: CallType) -> v1::CallType {
    match of {
        CallType::UserOutbound => v1::CallType::UserOutbound,
        CallType::ConferenceDialOut => v1::CallType::ConferenceDialOut,
        CallType::ConferenceDialIn => v1::CallType::ConferenceDialIn,
        CallType::TollFreeInbound => v1::CallType::TollFreeInbound,
        CallType::UserInbound => v1::CallType::UserInbound,
    }
}

/// How a call came about, as its context says it: nothing for a direct one.
pub fn origin(of: &str) -> v1::CallOrigin {
    v1::CallOrigin::from_str_name(&format!("CALL_ORIGIN_{of}")).unwrap_or(v1::CallOrigin::Direct)
}

fn call_class(of: CallClass) -> v1::CallClass {
    match of {
        CallClass::Emergency => v1::CallClass::Emergency,
        CallClass::OnNet => v1::CallClass::OnNet,
        CallClass::Domestic => v1::CallClass::Domestic,
        CallClass::International => v1::CallClass::International,
        CallClass::TollFreeOutbound => v1::CallClass::TollFreeOutbound,
        CallClass::TollFreeInbound => v1::CallClass::TollFreeInbound,
        CallClass::Premium => v1::CallClass::Premium,
        CallClass::Inbound => v1::CallClass::Inbound,
    }
}

fn number_type(of: NumberType) -> v1::NumberType {
    match of {
        NumberType::FixedLine => v1::NumberType::FixedLine,
        NumberType::Mobile => v1::NumberType::Mobile,
        NumberType::FixedLineOrMobile => v1::NumberType::FixedLineOrMobile,
        NumberType::TollFree => v1::NumberType::TollFree,
        NumberType::PremiumRate => v1::NumberType::PremiumRate,
        NumberType::SharedCost => v1::NumberType::SharedCost,
        NumberType::Voip => v1::NumberType::Voip,
        NumberType::PersonalNumber => v1::NumberType::PersonalNumber,
        NumberType::Pager => v1::NumberType::Pager,
        NumberType::Uan => v1::NumberType::Uan,
        NumberType::Voicemail => v1::NumberType::Voicemail,
        NumberType::Unknown => v1::NumberType::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_keeps_its_name() {
        for &of in Decision::ALL {
            assert_eq!(decision(of).as_str_name(), format!("DECISION_{of}"));
        }
    }

    #[test]
    fn every_type_of_call_comes_back_as_it_went() {
        for value in 1..=5 {
            let wire = v1::CallType::try_from(value).expect("a listed value");
            let of = from_call_type(wire).expect("a type of call");
            assert_eq!(call_type(of), wire);
            assert_eq!(wire.as_str_name(), format!("CALL_TYPE_{}", of.name()));
        }
        assert_eq!(from_call_type(v1::CallType::Unspecified), None);
    }
}
