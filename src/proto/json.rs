//! Messages as canonical protobuf JSON, the way any other protobuf library prints them.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde_json::Serializer;

use crate::proto::FILE_DESCRIPTOR_SET;

/// Why a message cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The descriptors that were built in cannot be read.
    #[error("expected readable descriptors of tollgate.v1")]
    Descriptors(#[source] DescriptorError),
    /// Not a message of `tollgate.v1`.
    #[error("expected a message of tollgate.v1, found {0}")]
    UnknownMessage(String),
    /// The encoded message does not fit its descriptor.
    #[error("expected a message that fits its descriptor")]
    Message(#[from] prost::DecodeError),
    /// A value that JSON cannot express, such as a timestamp in the year 10000.
    #[error("expected a message that JSON can express")]
    Value(#[from] serde_json::Error),
}

/// The descriptors of all messages: those of `tollgate.v1`, and of what errors are made of.
pub fn descriptors() -> Result<&'static DescriptorPool, JsonError> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let mut pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(JsonError::Descriptors)?;
    // What errors are made of.
    let known = |file: &FileDescriptorProto| pool.get_file_by_name(file.name()).is_some();
    let mut errors = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?.file;
    errors.retain(|file| !known(file));
    pool.add_file_descriptor_protos(errors).map_err(JsonError::Descriptors)?;
    Ok(POOL.get_or_init(|| pool))
}

/// The message as indented JSON, without a line feed at its end.
///
/// Fields are in the order of their numbers; scalars, enums and lists are printed when they have their
/// default value too ("allowed": false), absent messages are not.
pub fn to_json<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let mut json = Vec::new();
    serialize(message, &mut Serializer::pretty(&mut json))?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// The same on one line: for one message of many.
pub fn to_json_line<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let mut json = Vec::new();
    serialize(message, &mut Serializer::new(&mut json))?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// The same of a message whose type is known only by its descriptor.
pub fn dynamic_to_json(message: &DynamicMessage) -> Result<Vec<u8>, JsonError> {
    let mut json = Vec::new();
    serialize_dynamic(message, &mut Serializer::new(&mut json))?;
    Ok(json)
}

fn serialize<M: Message + Name, S: serde::Serializer<Error = serde_json::Error>>(
    message: &M,
    to: S,
) -> Result<(), JsonError> {
    let encoded = message.encode_to_vec();
    serialize_dynamic(&DynamicMessage::decode(descriptor(&M::full_name())?, &*encoded)?, to)
}

fn serialize_dynamic<S: serde::Serializer<Error = serde_json::Error>>(
    message: &DynamicMessage,
    to: S,
) -> Result<(), JsonError> {
    message.serialize_with_options(to, &SerializeOptions::new().skip_default_fields(false))?;
    Ok(())
}

/// The descriptor of the message with this full name.
pub fn descriptor(name: &str) -> Result<MessageDescriptor, JsonError> {
    let found = descriptors()?.get_message_by_name(name);
    found.ok_or_else(|| JsonError::UnknownMessage(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{
        AuthorizeCallResponse, Decision, Denial, ExtendCallRequest, Money, SettleCallResponse,
    };

    #[track_caller]
    fn check<M: Message + Name>(message: &M, expected: &str) {
        let json: serde_json::Value =
            serde_json::from_str(&to_json(message).expect("printable")).expect("JSON");
        let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
        assert_eq!(json, expected);
    }

    #[test]
    fn a_denial_prints_its_defaults_and_no_grant() {
        check(
            &AuthorizeCallResponse {
                decision: Decision::PoolExhausted.into(),
                denial: Some(Denial {
                    reason: Decision::PoolExhausted.into(),
                    sip_status: 403,
                    retry_after: Some(prost_types::Duration::default()),
                    ..Denial::default()
                }),
                ..AuthorizeCallResponse::default()
            },
            r#"{
                "decision": "DECISION_POOL_EXHAUSTED", "allowed": false, "replayed": false,
                "denial": {
                    "reason": "DECISION_POOL_EXHAUSTED", "sipStatus": 403, "sipPhrase": "",
                    "q850Cause": 0, "rerouteAllowed": false, "retryAfter": "0s", "detail": ""
                },
                "funding": [], "decisionId": "", "deckVersion": "", "warnings": []
            }"#,
        );
    }

    #[test]
    fn durations_and_moneys_print_when_zero_too() {
        check(
            &SettleCallResponse {
                charged_duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                charged_money: Some(Money { currency_code: "USD".into(), amount: "0".into() }),
                shortfall_duration: Some(prost_types::Duration::default()),
                ..SettleCallResponse::default()
            },
            r#"{
                "result": "SETTLE_RESULT_UNSPECIFIED", "replayed": false,
                "chargedDuration": "60s", "chargedMoney": {"currencyCode": "USD", "amount": "0"},
                "funding": [], "shortfallDuration": "0s"
            }"#,
        );
    }

    #[test]
    fn an_absent_sequence_is_not_printed_and_a_zero_one_is() {
        let mut request = ExtendCallRequest::default();
        let absent = to_json(&request).expect("printable");
        assert!(!absent.contains("sequence"), "{absent}");
        request.sequence = Some(0);
        let zero = to_json(&request).expect("printable");
        assert!(zero.contains(r#""sequence": "0""#), "{zero}");
    }

    #[test]
    fn fields_are_in_the_order_of_their_numbers() {
        let json = to_json(&SettleCallResponse::default()).expect("printable");
        let places = ["result", "replayed", "funding"].map(|name| json.find(name));
        assert!(places.is_sorted() && places[0].is_some(), "{json}");
    }
}
