//! CallAuthorizationService as a client sees it.

use prost::Message;
use prost_types::{Duration, Timestamp};
use tollgate::charging::ids::{CallId, TenantId};
use tollgate::charging::units::Seconds;
use tollgate::ledger::Ledger;
use tollgate::ledger::state::CallState;
use tollgate::proto::codec::StrictCodec;
use tollgate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, CallClass, CallType, Decision, EndCallsRequest,
    ExtendCallRequest, FundingSource, ListDecisionsRequest, ListOpenCallsRequest, NumberType,
    QuoteCallRequest, SettleCallRequest, SettleResult,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::{Server, channel, config};
use crate::support::messages::{authorize, extend, length, release, report_answer, settle, usd};

const SERVICE: &str = "tollgate.v1.CallAuthorizationService";

/// The fields that an INVALID_ARGUMENT names.
#[track_caller]
fn violations(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_details_bad_request().expect("field violations");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn a_call_is_authorized_extended_and_settled() {
    let server = Server::start().await;
    let mut calls = server.calls().await;

    let answer = calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!((answer.decision(), answer.allowed), (Decision::Allowed, true), "{answer:?}");
    assert!(answer.denial.is_none() && !answer.replayed && !answer.decision_id.is_empty());
    let numbers = answer.classification.as_ref().unwrap();
    assert_eq!(numbers.call_class(), CallClass::Domestic);
    assert_eq!((numbers.country.as_str(), numbers.e164.as_str()), ("US", "+12065550100"));
    let grant = answer.grant.as_ref().unwrap();
    assert_eq!(grant.granted_duration, length(300));
    assert_eq!(grant.refresh_after, length(240));
    assert_eq!(grant.ringing_timeout, length(180));
    let line = &answer.funding[0];
    assert_eq!((line.source(), line.duration), (FundingSource::Pool, length(300)));
    assert!(line.bucket_id.starts_with("US:MCOPSTN1:DOMESTIC:"), "{}", line.bucket_id);
    assert_eq!((line.money.clone(), line.rate_per_minute.clone()), (usd("0"), usd("0")));

    let again = calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    let again = again.into_inner();
    assert!(again.replayed && again.decision_id == answer.decision_id);

    let extended = calls.extend_call(extend("a", 240, 1)).await.unwrap().into_inner();
    assert_eq!(extended.grant.unwrap().granted_duration, length(540));
    // Zero asks for nothing more, it only reports.
    let report = ExtendCallRequest { requested_duration: length(0), ..extend("a", 250, 2) };
    let reported = calls.extend_call(report).await.unwrap().into_inner();
    assert_eq!(reported.grant.unwrap().granted_duration, length(540));

    let charge = calls.settle_call(settle("a", 301)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, false));
    assert_eq!((charge.charged_duration, charge.charged_money.clone()), (length(360), usd("0")));
    assert_eq!((charge.shortfall_duration, charge.shortfall_money.clone()), (length(0), usd("0")));
    assert_eq!(charge.recorded_duration, length(301));
    let replay = calls.settle_call(settle("a", 301)).await.unwrap().into_inner();
    assert_eq!((replay.result(), replay.replayed), (SettleResult::Settled, true));
    let late = calls.settle_call(settle("a", 400)).await.unwrap().into_inner();
    assert_eq!((late.result(), late.replayed), (SettleResult::AlreadySettled, false));
    assert_eq!(late.recorded_duration, length(301));
}

#[tokio::test]
async fn money_pays_with_the_fee_once() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    let answer = calls.authorize_call(authorize("a", "carol", "+33123456789")).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let line = &answer.funding[0];
    assert_eq!((line.source(), line.bucket_id.as_str()), (FundingSource::Credits, "po-1"));
    assert_eq!((line.money.clone(), line.rate_per_minute.clone()), (usd("0.55"), usd("0.1")));
    assert!(!answer.deck_version.is_empty());
    let charge = calls.settle_call(settle("a", 61)).await.unwrap().into_inner();
    assert_eq!((charge.charged_duration, charge.charged_money), (length(120), usd("0.25")));
}

#[tokio::test]
async fn a_denial_is_an_answer() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    for (payer, called, decision, status, cause) in [
        ("nobody", "+12065550100", Decision::PayerUnknown, 403, 21),
        ("alice", "12", Decision::NumberInvalid, 484, 28),
        ("dave", "+4930654321", Decision::NotEntitled, 403, 21),
    ] {
        let request = authorize(&format!("to {payer}"), payer, called);
        let answer = calls.authorize_call(request).await.unwrap().into_inner();
        assert_eq!((answer.decision(), answer.allowed), (decision, false));
        assert!(answer.grant.is_none() && answer.funding.is_empty());
        let denial = answer.denial.unwrap();
        assert_eq!(denial.reason(), decision);
        assert_eq!((denial.sip_status, denial.q850_cause), (status, cause), "{decision:?}");
        assert_eq!(denial.retry_after, length(0));
        assert!(!denial.reroute_allowed && !denial.detail.is_empty());
    }
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    let request = AuthorizeCallRequest {
        tenant_id: "-contoso".to_owned(),
        call_id: "x".repeat(129),
        call_type: 99,
        payer_id: String::new(),
        calling_number: "1".repeat(10_000),
        called_number: "+1206\u{7}5550100".to_owned(),
        original_called_number: "1".repeat(257),
        requested_duration: length(-1),
        origin: -1,
        on_behalf_of: "x".repeat(129),
        conference_id: "\0".to_owned(),
        sip_call_id: "x".repeat(257),
        trunk_id: "x\n".to_owned(),
        labels: [(String::new(), String::new())].into(),
        ..AuthorizeCallRequest::default()
    };
    let status = calls.authorize_call(request).await.unwrap_err();
    let mut fields = violations(&status);
    fields.sort();
    let expected = [
        "call_id",
        "call_type",
        "called_number",
        "calling_number",
        "conference_id",
        "labels",
        "on_behalf_of",
        "origin",
        "original_called_number",
        "payer_id",
        "requested_duration",
        "sip_call_id",
        "tenant_id",
        "trunk_id",
    ];
    assert_eq!(fields, expected);

    for (seconds, nanos) in [(86_401, 0), (86_400, 1), (0, -1), (1, -1), (i64::MAX, 0)] {
        let requested_duration = Some(Duration { seconds, nanos });
        let request = AuthorizeCallRequest { requested_duration, ..authorize("a", "alice", "1") };
        let status = calls.authorize_call(request).await.unwrap_err();
        assert_eq!(violations(&status), ["requested_duration"], "{seconds} {nanos}");
    }
    let request = AuthorizeCallRequest { call_type: 0, ..authorize("a", "alice", "1") };
    let status = calls.authorize_call(request).await.unwrap_err();
    assert_eq!(violations(&status), ["call_type"]);

    let request = ExtendCallRequest { sequence: Some(1 << 53), ..extend("", -1, 0) };
    let status = calls.extend_call(request).await.unwrap_err();
    assert_eq!(violations(&status), ["call_id", "used_duration", "sequence"]);

    let absurd = SettleCallRequest {
        used_duration: None,
        q850_cause: 128,
        answered_at: Some(Timestamp { seconds: -1, nanos: 0 }),
        token: "x".repeat(4097),
        ..settle("a", 0)
    };
    let status = calls.settle_call(absurd).await.unwrap_err();
    assert_eq!(violations(&status), ["used_duration", "q850_cause", "answered_at", "token"]);
    let status = calls.settle_call(settle("a", 7 * 86_400 + 1)).await.unwrap_err();
    assert_eq!(violations(&status), ["used_duration"]);
    let status = calls.end_calls(EndCallsRequest::default()).await.unwrap_err();
    assert_eq!(violations(&status), ["tenant_id", "trunk_id", "started_before"]);
}

#[tokio::test]
async fn a_length_above_the_longest_grant_is_cut_with_a_warning_and_zero_is_none() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    let long = AuthorizeCallRequest {
        requested_duration: length(5 * 3600),
        ..authorize("long", "alice", "+12065550100")
    };
    let answer = calls.authorize_call(long).await.unwrap().into_inner();
    assert_eq!(answer.grant.unwrap().granted_duration, length(4 * 3600));
    assert_eq!(answer.warnings.len(), 1, "{:?}", answer.warnings);

    let zero = AuthorizeCallRequest {
        requested_duration: length(0),
        ..authorize("zero", "alice", "+12065550100")
    };
    let answer = calls.authorize_call(zero).await.unwrap().into_inner();
    assert_eq!(answer.grant.unwrap().granted_duration, length(300));
}

/// An emergency call in which everything else is missing or garbage.
async fn assert_emergency_calls_are_answered(server: &Server) {
    let mut calls = server.calls().await;
    for (tenant, call, payer, call_type, trunk) in [
        ("", "", "", 0, ""),
        ("contoso", "e", "alice", 1, "sbc-1"),
        ("contoso", "e2", "nobody", 1, ""),
        ("nobody", "e3", "nobody", 2, "x"),
        ("\0bad", "\0bad", "-bad", 99, "\0bad"),
    ] {
        let request = AuthorizeCallRequest {
            tenant_id: tenant.to_owned(),
            call_id: call.to_owned(),
            call_type,
            payer_id: payer.to_owned(),
            called_number: "112".to_owned(),
            calling_number: "\u{1b}".repeat(300),
            trunk_id: trunk.to_owned(),
            origin: 77,
            requested_duration: length(-5),
            labels: [("k".repeat(100), String::new())].into(),
            ..AuthorizeCallRequest::default()
        };
        let answer = calls.authorize_call(request).await.expect("an answer").into_inner();
        assert_eq!(answer.decision(), Decision::AllowedEmergency, "{tenant:?} {call:?}");
        assert!(answer.allowed && answer.grant.is_some());
        for field in ["calling_number: ", "origin: ", "requested_duration: ", "labels: "] {
            assert!(answer.warnings.iter().any(|w| w.starts_with(field)), "{:?}", answer.warnings);
        }
        let numbers = answer.classification.unwrap();
        assert_eq!(numbers.call_class(), CallClass::Emergency);
        assert_eq!(numbers.number_type(), NumberType::Emergency);
    }
}

#[tokio::test]
async fn an_emergency_call_is_answered_whatever_else_is_wrong() {
    let server = Server::start().await;
    assert_emergency_calls_are_answered(&server).await;
    let mut calls = server.calls().await;
    // 110 is the police of dave's country, and of no use to alice.
    let request = AuthorizeCallRequest { call_id: "d".to_owned(), ..authorize("", "dave", "110") };
    let answer = calls.authorize_call(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency);
    let answer = calls.authorize_call(authorize("n", "alice", "110")).await.unwrap().into_inner();
    assert!(!answer.allowed, "{answer:?}");
}

#[tokio::test]
async fn emergency_calls_of_nobody_are_on_record_and_expire_like_others() {
    let server = Server::start().await;
    assert_emergency_calls_are_answered(&server).await;
    assert!(server.running.flush_records(std::time::Duration::from_secs(5)).await);
    let mut account = server.account().await;
    let mut decisions = async |tenant: &str| {
        let request = ListDecisionsRequest { tenant_id: tenant.to_owned(), ..Default::default() };
        account.list_decisions(request).await.unwrap().into_inner().decisions
    };
    assert_eq!(decisions("contoso").await.len(), 2);
    let nobodys = decisions("unattributed").await;
    assert_eq!(nobodys.len(), 3);
    assert!(nobodys.iter().any(|record| record.detail.contains("\"nobody\", call \"e3\"")));
    assert!(nobodys.iter().all(|record| record.decision() == Decision::AllowedEmergency));

    server.clock.advance(Seconds(2 * 86_400));
    let tenant = TenantId::new("unattributed").unwrap();
    for _ in 0..500 {
        let ledger = server.running.control().ledger();
        if ledger.open_calls(&tenant, None, 10).await.unwrap().items.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the sweeper never came");
}

#[tokio::test]
async fn above_the_limit_requests_are_shed_and_emergency_calls_are_not() {
    let server = Server::start_with({
        let mut config = config();
        config.max_requests_in_flight = 0;
        config
    })
    .await;
    let mut calls = server.calls().await;
    let request = authorize("a", "alice", "+12065550100");
    let status = calls.authorize_call(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let status = calls.settle_call(settle("a", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_emergency_calls_are_answered(&server).await;
}

#[tokio::test]
async fn while_draining_running_calls_go_on_and_emergency_calls_begin() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    for call in ["settled", "released"] {
        let answer = calls.authorize_call(authorize(call, "alice", "+12065550100")).await;
        assert!(answer.unwrap().into_inner().allowed);
    }
    server.running.drain().await;
    let status = calls.authorize_call(authorize("b", "alice", "+12065550100")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let extended = calls.extend_call(extend("settled", 100, 1)).await.unwrap().into_inner();
    assert_eq!(extended.grant.unwrap().granted_duration, length(400));
    let charge = calls.settle_call(settle("settled", 100)).await.unwrap().into_inner();
    assert_eq!(charge.result(), SettleResult::Settled);
    let charge = calls.release_call(release("released")).await.unwrap().into_inner();
    assert_eq!(charge.result(), SettleResult::Released);
    assert_emergency_calls_are_answered(&server).await;
    server.running.shutdown().await.expect("it ends well");
}

#[tokio::test]
async fn what_the_state_of_the_call_forbids_has_its_own_code() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    // No such call: nothing to extend, but what was used must not be lost.
    let status = calls.extend_call(extend("x", 10, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = calls.report_answer(report_answer("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let parked = calls.settle_call(settle("x", 10)).await.unwrap().into_inner();
    assert_eq!((parked.result(), parked.replayed), (SettleResult::Parked, false));
    assert_eq!((parked.charged_duration, parked.charged_money), (length(0), usd("0")));
    assert_eq!(parked.recorded_duration, length(10));
    let late = calls.authorize_call(authorize("x", "alice", "+12065550100")).await.unwrap();
    let late = late.into_inner();
    assert_eq!(late.decision(), Decision::CallAlreadyEnded);
    assert_eq!(late.denial.unwrap().q850_cause, 0);
    let unknown = SettleCallRequest { tenant_id: "nobody".to_owned(), ..settle("x", 10) };
    assert_eq!(calls.settle_call(unknown).await.unwrap_err().code(), Code::NotFound);

    let request =
        AuthorizeCallRequest { reports_answer: true, ..authorize("a", "alice", "+12065550100") };
    calls.authorize_call(request).await.unwrap();
    let answer = calls.report_answer(report_answer("a")).await.unwrap().into_inner();
    assert!(answer.allowed && answer.grant.is_some());
    let status = calls.release_call(release("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let charge = calls.settle_call(settle("a", 0)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.charged_duration), (SettleResult::Settled, length(60)));

    let other = authorize("a", "alice", "+12065550199");
    let answer = calls.authorize_call(other).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::KeyConflict);
}

#[tokio::test]
async fn a_quote_explains_and_holds_nothing() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    let request = QuoteCallRequest {
        tenant_id: "contoso".to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: "carol".to_owned(),
        called_number: "+33123456789".to_owned(),
        ..QuoteCallRequest::default()
    };
    for _ in 0..2 {
        let quote = calls.quote_call(request.clone()).await.unwrap().into_inner();
        assert_eq!((quote.decision(), quote.allowed), (Decision::Allowed, true), "{quote:?}");
        assert!(quote.decision_id.is_empty() && !quote.replayed);
        let credits = quote.steps.iter().find(|step| step.check == "CREDITS BALANCE").unwrap();
        assert!(credits.passed && credits.detail.contains("10 available"), "{}", credits.detail);
    }
}

#[tokio::test]
async fn a_quote_of_a_free_call_holds_as_long_as_the_call_would() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    // To a number of the same tenant.
    let request = authorize("free", "alice", "+14255550101");
    let quote = QuoteCallRequest {
        tenant_id: request.tenant_id.clone(),
        call_type: request.call_type,
        payer_id: request.payer_id.clone(),
        called_number: request.called_number.clone(),
        ..QuoteCallRequest::default()
    };
    let quoted = calls.quote_call(quote).await.unwrap().into_inner();
    assert_eq!(quoted.decision(), Decision::AllowedFree);
    let number = quoted.steps.iter().find(|step| step.check == "NUMBER").unwrap();
    assert!(number.detail.ends_with("fixed line or mobile"), "{number:?}");
    let allowed = calls.authorize_call(request).await.unwrap().into_inner();
    let hold = |grant: Option<tollgate::proto::v1::Grant>| grant.unwrap().hold_timeout.unwrap();
    let (quoted, allowed) = (hold(quoted.grant).seconds, hold(allowed.grant).seconds);
    assert!(quoted > 180 && (quoted - allowed).abs() <= 1, "{quoted} s, {allowed} s");
}

#[tokio::test]
async fn a_quote_of_an_emergency_number_says_that_it_is_never_refused() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    for (tenant, called, original) in
        [("contoso", "911", ""), ("nobody", "112", ""), ("contoso", "+33123456789", "911")]
    {
        let request = QuoteCallRequest {
            tenant_id: tenant.to_owned(),
            call_type: CallType::UserOutbound.into(),
            payer_id: "carol".to_owned(),
            called_number: called.to_owned(),
            original_called_number: original.to_owned(),
            ..QuoteCallRequest::default()
        };
        let quote = calls.quote_call(request).await.unwrap().into_inner();
        assert_eq!(quote.decision(), Decision::AllowedEmergency, "{quote:?}");
        assert_eq!((quote.steps.len(), quote.steps[0].check.as_str()), (1, "EMERGENCY"));
        assert!(quote.decision_id.is_empty());
    }
}

#[tokio::test]
async fn a_restarted_switch_ends_its_calls() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    for call in ["rang", "talked"] {
        calls.authorize_call(authorize(call, "alice", "+12065550100")).await.unwrap();
    }
    calls.extend_call(extend("talked", 61, 1)).await.unwrap();
    server.clock.advance(Seconds(1));
    let restarted = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    let request = EndCallsRequest {
        tenant_id: "contoso".to_owned(),
        trunk_id: "sbc-1".to_owned(),
        started_before: Some(restarted.into()),
    };
    let ended = calls.end_calls(request.clone()).await.unwrap().into_inner();
    assert_eq!((ended.ended_calls, ended.released_calls), (2, 1));
    assert_eq!((ended.charged_duration, ended.charged_money), (length(120), usd("0")));
    assert_eq!(ended.call_ids.len(), 2);
    let again = calls.end_calls(request).await.unwrap().into_inner();
    assert_eq!((again.ended_calls, again.charged_duration), (0, length(0)));
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    let request = authorize("a", "alice", &"1".repeat(64 * 1024));
    let status = calls.authorize_call(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let request = authorize("a", "alice", &"1".repeat(60 * 1024));
    let status = calls.authorize_call(request).await.unwrap_err();
    assert_eq!(violations(&status), ["called_number"]);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_senders_fault() {
    let server = Server::start().await;
    let channel = channel(&server.running.addresses().calls).await;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    // Its page_size is a number where AuthorizeCallRequest has the text call_id.
    let other = ListOpenCallsRequest { page_size: 1, ..ListOpenCallsRequest::default() };
    let path = "/tollgate.v1.CallAuthorizationService/AuthorizeCall".parse().unwrap();
    let codec = StrictCodec::<ListOpenCallsRequest, AuthorizeCallResponse>::default();
    let status = client.unary(tonic::Request::new(other), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

/// Sends what need not be a message to AuthorizeCall.
async fn authorize_bytes(server: &Server, bytes: Vec<u8>) -> Result<AuthorizeCallResponse, Status> {
    use bytes::BufMut;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

    struct Raw;
    struct RawEncoder;
    struct Answers;
    impl Codec for Raw {
        type Encode = Vec<u8>;
        type Decode = AuthorizeCallResponse;
        type Encoder = RawEncoder;
        type Decoder = Answers;
        fn encoder(&mut self) -> RawEncoder {
            RawEncoder
        }
        fn decoder(&mut self) -> Answers {
            Answers
        }
    }
    impl Encoder for RawEncoder {
        type Item = Vec<u8>;
        type Error = Status;
        fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
            to.put_slice(&bytes);
            Ok(())
        }
    }
    impl Decoder for Answers {
        type Item = AuthorizeCallResponse;
        type Error = Status;
        fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
            let answer = AuthorizeCallResponse::decode(from);
            answer.map(Some).map_err(|error| Status::internal(error.to_string()))
        }
    }

    let channel = channel(&server.running.addresses().calls).await;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = "/tollgate.v1.CallAuthorizationService/AuthorizeCall".parse().unwrap();
    client.unary(tonic::Request::new(bytes), path, Raw).await.map(tonic::Response::into_inner)
}

/// The request with bytes that are no UTF-8 where its calling number is.
fn from_latin_1(request: AuthorizeCallRequest) -> Vec<u8> {
    let request = AuthorizeCallRequest { calling_number: "<>".to_owned(), ..request };
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(2).position(|pair| pair == b"<>").unwrap();
    bytes[at..at + 2].copy_from_slice(b"\xff\xfe");
    bytes
}

#[tokio::test]
async fn a_text_that_is_no_utf8_refuses_no_emergency_call() {
    let server = Server::start().await;
    let bytes = from_latin_1(authorize("latin-911", "alice", "911"));
    let answer = authorize_bytes(&server, bytes).await.unwrap();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    assert!(answer.warnings.iter().any(|w| w.contains("calling_number")), "{answer:?}");

    let bytes = from_latin_1(authorize("latin", "alice", "+12065550100"));
    let status = authorize_bytes(&server, bytes.clone()).await.unwrap_err();
    assert_eq!(violations(&status), ["calling_number"]);
    let cut = bytes[..bytes.len() - 3].to_vec();
    let status = authorize_bytes(&server, cut).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn the_record_of_a_rewritten_emergency_number_is_flagged() {
    let server = Server::start().await;
    let request = AuthorizeCallRequest {
        original_called_number: "9 1 1".to_owned(),
        ..authorize("rewritten-911", "alice", "+12065550100")
    };
    let answer = server.calls().await.authorize_call(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    assert!(server.running.flush_records(std::time::Duration::from_secs(5)).await);
    let request =
        ListDecisionsRequest { tenant_id: "contoso".to_owned(), ..ListDecisionsRequest::default() };
    let records = server.account().await.list_decisions(request).await.unwrap().into_inner();
    let record = records.decisions.iter().find(|r| r.decision_id == answer.decision_id).unwrap();
    assert_eq!(record.flags, ["ORIGINAL_NUMBER_IS_EMERGENCY"]);
}

#[tokio::test]
async fn health_and_reflection_answer_on_both_listeners() {
    use tokio_stream::{StreamExt, once};
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::{v1, v1alpha};

    let server = Server::start().await;
    let addresses = server.running.addresses().clone();
    const ACCOUNT: &str = "tollgate.v1.AccountService";
    for (address, own, other) in
        [(addresses.calls, SERVICE, ACCOUNT), (addresses.administration, ACCOUNT, SERVICE)]
    {
        let channel = channel(&address).await;
        let mut health = HealthClient::new(channel.clone());
        for service in ["", SERVICE] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let status = health.check(request).await.unwrap().into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{service:?}");
        }

        let mut reflection =
            v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
        let request =
            v1::ServerReflectionRequest { message_request: Some(list), ..Default::default() };
        let mut answers =
            reflection.server_reflection_info(once(request)).await.unwrap().into_inner();
        let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
        for service in [own, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
            assert!(answer.contains(service), "{answer}");
        }
        assert!(!answer.contains(other), "{answer}");

        let mut reflection =
            v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let symbol = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            SERVICE.to_owned(),
        );
        let request = v1alpha::ServerReflectionRequest {
            message_request: Some(symbol),
            ..Default::default()
        };
        let mut answers =
            reflection.server_reflection_info(once(request)).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
        use v1alpha::server_reflection_response::MessageResponse;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    }
    server.running.drain().await;
    let mut health = HealthClient::new(channel(&server.running.addresses().calls).await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn unix_sockets_are_served_like_ports() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("calls.sock");
    let server = Server::start_with({
        let mut config = config();
        config.listen = tollgate::config::Listen::Unix(path.clone());
        config
    })
    .await;
    let mut calls = server.calls().await;
    let answer = calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    assert!(answer.into_inner().allowed);
    drop(calls);
    server.running.shutdown().await.expect("it ends well");
    assert!(!path.exists());
}

#[tokio::test]
async fn the_sweeper_expires_what_nobody_ends() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    server.clock.advance(Seconds(3600));
    let ledger = server.running.control().ledger();
    let (tenant, call) = (TenantId::new("contoso").unwrap(), CallId::new("a").unwrap());
    // The sweeper runs by the real clock: nothing tells when it has been here.
    for _ in 0..500 {
        let call = ledger.call(&tenant, &call).await.unwrap();
        if call.expect("it is kept").state == CallState::Expired {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the sweeper never came");
}
