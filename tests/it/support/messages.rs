//! The messages of a client, for contoso.

use prost_types::Duration;
use tollgate::proto::v1::{
    AuthorizeCallRequest, CallType, ExtendCallRequest, Money, ReleaseCallRequest,
    ReportAnswerRequest, SettleCallRequest,
};

/// A call out of a user of contoso.
pub fn authorize(call: &str, payer: &str, called: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        called_number: called.to_owned(),
        trunk_id: "sbc-1".to_owned(),
        ..AuthorizeCallRequest::default()
    }
}

pub fn extend(call: &str, used: i64, sequence: u64) -> ExtendCallRequest {
    ExtendCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        used_duration: length(used),
        sequence: Some(sequence),
        ..ExtendCallRequest::default()
    }
}

pub fn settle(call: &str, used: i64) -> SettleCallRequest {
    SettleCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        used_duration: length(used),
        ..SettleCallRequest::default()
    }
}

pub fn release(call: &str) -> ReleaseCallRequest {
    ReleaseCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        ..ReleaseCallRequest::default()
    }
}

pub fn report_answer(call: &str) -> ReportAnswerRequest {
    ReportAnswerRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        ..ReportAnswerRequest::default()
    }
}

pub fn length(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub fn usd(amount: &str) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), amount: amount.to_owned() })
}
