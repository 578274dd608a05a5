//! Who may ask for what: roles, tenants, tokens, certificates, limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tollgate::config::{Config, HttpTls, Listen};
use tollgate::proto::v1;
use tollgate::proto::v1::account_service_client::AccountServiceClient;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::security::Reason;
use tollgate::security::roles::{self, RPCS};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::{Server, channel, config, organisation};
use crate::support::messages::{authorize, extend, settle};
use crate::support::process::{Files, PATIENCE, Sidecar, run, tollgate, wait_until};
use crate::support::redis_group::{Guarded, Process, Shards};

const CALLS: &str = "/tollgate.v1.CallAuthorizationService/";
const ACCOUNT: &str = "/tollgate.v1.AccountService/";
const ROLES: [&str; 5] = ["sbc", "conferencing", "admin", "viewer", "probe"];

/// What the documents promise: each RPC with the roles that may ask for it.
const PROMISED: &[(&str, &str, &str)] = &[
    (CALLS, "AuthorizeCall", "sbc conferencing"),
    (CALLS, "ReportAnswer", "sbc conferencing"),
    (CALLS, "ExtendCall", "sbc conferencing"),
    (CALLS, "SettleCall", "sbc conferencing"),
    (CALLS, "ReleaseCall", "sbc conferencing"),
    (CALLS, "QuoteCall", "sbc conferencing admin viewer"),
    (CALLS, "EndCalls", "sbc"),
    (CALLS, "WatchCalls", "sbc conferencing"),
    (ACCOUNT, "Apply", "admin"),
    (ACCOUNT, "PurchaseCredits", "admin"),
    (ACCOUNT, "ReportRecharge", "admin"),
    (ACCOUNT, "GetBalance", "admin viewer"),
    (ACCOUNT, "GetCall", "admin viewer"),
    (ACCOUNT, "ListOpenCalls", "admin viewer"),
    (ACCOUNT, "ListDecisions", "admin viewer"),
    (ACCOUNT, "ExportUsage", "admin viewer"),
    (ACCOUNT, "WatchEvents", "admin viewer"),
    (ACCOUNT, "EraseNumbers", "admin"),
    (ACCOUNT, "CheckDeck", "admin viewer"),
    (ACCOUNT, "ActivateDeck", "admin"),
    (ACCOUNT, "RunAudit", "admin"),
    (ACCOUNT, "AdjustBalance", "admin"),
    (ACCOUNT, "AdjustSettlement", "admin"),
    (ACCOUNT, "ListAdjustments", "admin viewer"),
    (ACCOUNT, "BlockUser", "admin"),
    (ACCOUNT, "UnblockUser", "admin"),
    (ACCOUNT, "ListBlockedUsers", "admin viewer"),
    (ACCOUNT, "EndOpenCalls", "admin"),
    ("/grpc.health.v1.Health/", "Check", "sbc conferencing admin viewer probe"),
    ("/grpc.health.v1.Health/", "List", "sbc conferencing admin viewer probe"),
    ("/grpc.health.v1.Health/", "Watch", "sbc conferencing admin viewer probe"),
    (
        "/grpc.reflection.v1.ServerReflection/",
        "ServerReflectionInfo",
        "sbc conferencing admin viewer",
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/",
        "ServerReflectionInfo",
        "sbc conferencing admin viewer",
    ),
];

#[test]
fn the_operations_page_has_the_same_table_of_roles() {
    let page = include_str!("../../docs/OPERATIONS.md");
    let chapter = page.split_once("\n### Roles\n").expect("a chapter").1;
    let chapter = chapter.split("\n### ").next().unwrap();
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<(String, Vec<&str>)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), ROLES.len() + 2, "{row}");
            let name = cells[0].trim_matches('`').to_owned();
            let roles = ROLES.into_iter().zip(&cells[1..]);
            (name, roles.filter(|(_, cell)| **cell == "yes").map(|(role, _)| role).collect())
        })
        .collect();
    let promised = PROMISED.iter().map(|(service, rpc, roles)| {
        let path = format!("{}{rpc}", service.trim_start_matches('/'));
        let name = path.strip_prefix(&CALLS[1..]).or(path.strip_prefix(&ACCOUNT[1..]));
        (name.unwrap_or(&path).to_owned(), roles.split(' ').collect::<Vec<_>>())
    });
    let sorted = |mut rows: Vec<(String, Vec<&'static str>)>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(told), sorted(promised.collect()));
    let header = format!("| RPC | {} | whose tenant |", ROLES.join(" | "));
    assert!(chapter.contains(&header), "{header}");
}

#[test]
fn every_reason_of_a_refusal_is_documented_and_counted_by_its_own_name() {
    let words = tollgate::metrics::Refused::ALL.iter().map(|reason| reason.word());
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(words.collect::<Vec<_>>(), names, "in the same order");
    let page = include_str!("../../docs/OPERATIONS.md");
    let chapter = page.split_once("\n### Refusals\n").expect("a chapter").1;
    for name in names {
        assert!(chapter.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_sample_of_callers_is_right() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/identities.toml");
    let text = std::fs::read_to_string(sample).unwrap();
    let known = tollgate::security::identities::Identities::parse(sample.as_ref(), &text, None);
    assert_eq!(known.expect("the sample is right").len(), ROLES.len(), "one of each role");
}

/// A caller whose token is its name.
fn caller(name: &str, role: &str, tenants: &[&str], more: &str) -> String {
    let sha256 = hex::encode(Sha256::digest(name));
    format!(
        "[[callers]]\nname = {name:?}\nrole = {role:?}\ntenants = {tenants:?}\n\
         tokens = [{{ sha256 = \"{sha256}\" }}]\n{more}\n"
    )
}

/// One caller of each role for contoso, an administrator of all, and one whose token has expired.
fn callers() -> String {
    let mut file: String = ROLES.map(|role| caller(role, role, &["contoso"], "")).concat();
    file += &caller("root", "admin", &["*"], "");
    file += &caller("any-sbc", "sbc", &["*"], "");
    file += &caller("stranger", "sbc", &["fabrikam"], "");
    file += &caller("stranger-to-be", "sbc", &["contoso"], "");
    let sha256 = hex::encode(Sha256::digest("late"));
    file += &format!(
        "[[callers]]\nname = \"late\"\nrole = \"sbc\"\ntenants = [\"contoso\"]\n\
         tokens = [{{ sha256 = \"{sha256}\", expires_at = \"2020-01-01T00:00:00Z\" }}]\n"
    );
    file
}

/// A server with these callers.
async fn guarded(files: &Files, callers: &str) -> Server {
    let identities_file = Some(files.write("callers.toml", callers).into());
    Server::start_with(Config { identities_file, ..config() }).await
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

/// The code of a refusal before the answer; OK for whatever else is answered.
async fn code(channel: &mut Channel, path: &str, headers: HeaderMap, message: &[u8]) -> Code {
    let mut request = Request::new(Body::new(Full::new(framed(message))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path.parse().unwrap();
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap();
    Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code())
}

fn of_tenant(tenant: &str) -> Vec<u8> {
    v1::GetBalanceRequest { tenant_id: tenant.to_owned() }.encode_to_vec()
}

fn of_document(tenants: &[&str]) -> Vec<u8> {
    let tenant = |id: &&str| v1::Tenant { id: (*id).to_owned(), ..v1::Tenant::default() };
    let organisation = v1::Organisation { tenants: tenants.iter().map(tenant).collect() };
    v1::ApplyRequest { organisation: Some(organisation) }.encode_to_vec()
}

/// A message of the RPC that is about contoso.
fn message(path: &str) -> Vec<u8> {
    match path.rsplit('/').next().unwrap() {
        "Apply" => of_document(&["contoso"]),
        "CheckDeck" | "ActivateDeck" | "Check" | "List" | "Watch" | "ServerReflectionInfo" => {
            vec![]
        }
        _ => of_tenant("contoso"),
    }
}

/// A request with a token, over the clients that are generated.
fn with<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

#[tokio::test]
async fn each_role_may_ask_for_what_the_table_says_and_for_nothing_else() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let addresses = server.running.addresses();
    let mut calls = channel(&addresses.calls).await;
    let mut account = channel(&addresses.administration).await;
    assert_eq!(PROMISED.len(), RPCS.len());
    let mut refused = 0;
    for (service, rpc, allowed) in PROMISED {
        let path = format!("{service}{rpc}");
        let channel = if *service == ACCOUNT { &mut account } else { &mut calls };
        for role in ROLES {
            // A deck is everybody's: its administrator is that of all tenants.
            let token = if (*rpc, role) == ("ActivateDeck", "admin") { "root" } else { role };
            let code = code(channel, &path, bearer(token), &message(&path)).await;
            let is_refused = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            let expected = !allowed.split(' ').any(|of| of == role);
            assert_eq!(is_refused, expected, "{path} of {role}: {code:?}");
            assert!(!is_refused || code == Code::PermissionDenied, "{path} of {role}");
            // The library that serves health has no answer to this one.
            let is_served = path != "/grpc.health.v1.Health/List";
            assert!(!is_served || code != Code::Unimplemented, "{path} of {role}");
            refused += u64::from(is_refused);
        }
        let nobody = code(channel, &path, HeaderMap::new(), &message(&path)).await;
        assert_eq!(nobody, Code::Unauthenticated, "{path} of nobody");
    }
    let refusals = server.running.security().refusals();
    assert_eq!(refusals.count(Reason::Role), refused);
    assert_eq!(refusals.count(Reason::NoCredential), PROMISED.len() as u64);
    // Administration is never on the listener for calls, whoever asks; and what nobody knows is denied.
    let path = format!("{ACCOUNT}GetBalance");
    let there = code(&mut calls, &path, bearer("root"), &of_tenant("contoso")).await;
    assert_eq!(there, Code::Unimplemented);
    let unknown = code(&mut calls, &format!("{CALLS}Other"), bearer("sbc"), &[]).await;
    assert_eq!(unknown, Code::PermissionDenied);
}

#[tokio::test]
async fn a_caller_reaches_its_own_tenants_alone() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let addresses = server.running.addresses();
    let mut calls = channel(&addresses.calls).await;
    let mut account = channel(&addresses.administration).await;
    for rpc in RPCS.iter().filter(|rpc| rpc.path.starts_with("/tollgate.")) {
        if matches!(rpc.path.rsplit('/').next(), Some("Apply" | "CheckDeck" | "ActivateDeck")) {
            continue;
        }
        let on_calls = rpc.path.starts_with(CALLS);
        let (channel, token) = if on_calls { (&mut calls, "sbc") } else { (&mut account, "admin") };
        for tenant in ["fabrikam", "", "contoso2", "Contoso", "contoso\n"] {
            // Without a tenant an audit is of all.
            let code = code(channel, rpc.path, bearer(token), &of_tenant(tenant)).await;
            assert_eq!(code, Code::PermissionDenied, "{} of {tenant:?}", rpc.path);
        }
        // Who names two is judged by the one that is served.
        let twice = [of_tenant("contoso"), of_tenant("fabrikam")].concat();
        let code = code(channel, rpc.path, bearer(token), &twice).await;
        assert_eq!(code, Code::PermissionDenied, "{} of two", rpc.path);
    }
    let mut admin = async |path: &str, token: &str, message: &[u8]| {
        code(&mut account, &format!("{ACCOUNT}{path}"), bearer(token), message).await
    };
    let both = of_document(&["contoso", "fabrikam"]);
    assert_eq!(admin("Apply", "admin", &both).await, Code::PermissionDenied);
    assert_eq!(admin("Apply", "root", &both).await, Code::InvalidArgument);
    assert_eq!(admin("ActivateDeck", "admin", &[]).await, Code::PermissionDenied);
    assert_eq!(admin("RunAudit", "root", &[]).await, Code::Ok);

    // A tenant that does not exist is refused as one of somebody else, not told as unknown.
    let mut calls = server.calls().await;
    let mut unknown = authorize("a", "alice", "+12065550100");
    unknown.tenant_id = "nobody".to_owned();
    let status = calls.authorize_call(with("any-sbc", unknown)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let known = calls.authorize_call(with("any-sbc", authorize("a", "nobody", "+12065550100")));
    assert_eq!(known.await.unwrap().into_inner().decision(), v1::Decision::PayerUnknown);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_recorded() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let mut calls = channel(&server.running.addresses().calls).await;
    let path = format!("{CALLS}SettleCall");
    let refusals = server.running.security().refusals();
    let raw = |value: &'static str| {
        HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static(value))])
    };
    let mut twice = bearer("sbc");
    twice.append(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer sbc"));
    for (headers, reason) in [
        (HeaderMap::new(), Reason::NoCredential),
        (bearer("late"), Reason::ExpiredToken),
        (bearer("SBC"), Reason::UnknownToken),
        (raw("Basic c2JjOg=="), Reason::UnknownToken),
        (raw("Bearer "), Reason::UnknownToken),
        (raw(""), Reason::UnknownToken),
        (twice, Reason::UnknownToken),
    ] {
        let before = refusals.count(reason);
        let code = code(&mut calls, &path, headers, &of_tenant("contoso")).await;
        assert_eq!((code, refusals.count(reason)), (Code::Unauthenticated, before + 1));
    }
}

#[tokio::test]
async fn an_emergency_call_passes_whoever_asks_and_is_recorded_under_nobodys_name() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let mut calls = server.calls().await;
    for (token, flag) in [
        ("", "CALLER_NOT_AUTHENTICATED"),
        ("late", "CALLER_NOT_AUTHENTICATED"),
        ("unknown", "CALLER_NOT_AUTHENTICATED"),
        ("viewer", "CALLER_NOT_ALLOWED"),
        ("stranger", "TENANT_NOT_THE_CALLERS"),
    ] {
        let call = format!("help-{token}");
        let request = with(token, authorize(&call, "alice", "911"));
        let answer = calls.authorize_call(request).await.unwrap().into_inner();
        assert_eq!(answer.decision(), v1::Decision::AllowedEmergency, "{token}");
        assert!(server.running.flush_records(PATIENCE).await);
        let list = |tenant: &str| v1::ListDecisionsRequest {
            tenant_id: tenant.to_owned(),
            ..v1::ListDecisionsRequest::default()
        };
        let mut account = server.account().await;
        let nobodys = account.list_decisions(with("root", list("unattributed"))).await.unwrap();
        let record = nobodys.into_inner().decisions.remove(0);
        assert_eq!((record.decision_id, record.flags), (answer.decision_id, vec![flag.to_owned()]));
        let contoso = account.list_decisions(with("root", list("contoso"))).await.unwrap();
        assert_eq!(contoso.into_inner().decisions, [], "nobody writes into another's records");
        // Only the emergency passes.
        let other = authorize(&call, "alice", "+12065550100");
        calls.authorize_call(with(token, other)).await.expect_err("it is no emergency");
    }
    let own = calls.authorize_call(with("sbc", authorize("own", "alice", "911"))).await.unwrap();
    assert_eq!(own.into_inner().decision(), v1::Decision::AllowedEmergency);
    let mut empty = authorize("empty", "alice", "911");
    empty.tenant_id.clear();
    let empty = calls.authorize_call(with("sbc", empty)).await.unwrap();
    assert_eq!(empty.into_inner().decision(), v1::Decision::AllowedEmergency);
}

#[tokio::test]
async fn a_flood_of_emergency_calls_of_nobody_is_bounded_and_those_of_callers_are_not() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let mut calls = server.calls().await;
    let mut shed = 0_u64;
    for n in 0..2000 {
        let request = with("", authorize(&format!("flood-{n}"), "alice", "911"));
        match calls.authorize_call(request).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated);
                shed += 1;
            }
        }
        if shed > 0 {
            break;
        }
    }
    // On a machine too slow to flood there is nothing to shed.
    assert_eq!(server.running.security().refusals().count(Reason::Strangers), shed);
    for n in 0..20 {
        let request = with("sbc", authorize(&format!("own-{n}"), "alice", "911"));
        let answer = calls.authorize_call(request).await.expect("a caller that is known");
        assert_eq!(answer.into_inner().decision(), v1::Decision::AllowedEmergency);
    }
}

#[tokio::test]
async fn who_is_taken_out_of_the_file_is_refused_and_a_bad_file_changes_nothing() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let security = server.running.security();
    let mut calls = channel(&server.running.addresses().calls).await;
    let path = format!("{CALLS}SettleCall");
    let mut asked = async |token: &str| {
        let code = code(&mut calls, &path, bearer(token), &of_tenant("contoso")).await;
        code != Code::Unauthenticated
    };
    assert!(asked("sbc").await && !asked("new").await);
    for bad in ["callers = [", "", "callers = []", "[[callers]]\nname = \"x\""] {
        files.write("callers.toml", bad);
        security.reload().await;
        assert!(asked("sbc").await, "{bad:?}");
    }
    files.write("callers.toml", &caller("new", "sbc", &["contoso"], ""));
    security.reload().await;
    assert!(!asked("sbc").await && asked("new").await);
    std::fs::remove_file(files.path("callers.toml")).unwrap();
    security.reload().await;
    assert!(asked("new").await && !asked("sbc").await, "a file that is gone lets nobody in");
}

#[tokio::test]
async fn streams_end_as_soon_as_their_caller_may_not_ask_for_them() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let security = server.running.security();
    let addresses = server.running.addresses();
    let calls = CallAuthorizationServiceClient::new(channel(&addresses.calls).await);
    let account = AccountServiceClient::new(channel(&addresses.administration).await);
    let directives = async |token: &str| {
        let of = v1::WatchCallsRequest { tenant_id: "contoso".into(), ..Default::default() };
        let mut stream = calls.clone().watch_calls(with(token, of)).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().unwrap().caught_up);
        stream
    };
    let mut gone = directives("sbc").await;
    let mut stays = directives("any-sbc").await;
    let mut expires = directives("stranger-to-be").await;
    let of = v1::WatchEventsRequest { tenant_id: "contoso".into(), ..Default::default() };
    let mut viewer = account.clone().watch_events(with("viewer", of)).await.unwrap().into_inner();

    // The first is taken out, the second's token expires, the third has another tenant.
    let sha256 = hex::encode(Sha256::digest("stranger-to-be"));
    let late = format!(
        "[[callers]]\nname = \"stranger-to-be\"\nrole = \"sbc\"\ntenants = [\"contoso\"]\n\
         tokens = [{{ sha256 = \"{sha256}\", expires_at = \"2020-01-01T00:00:00Z\" }}]\n"
    );
    let file = caller("any-sbc", "sbc", &["*"], "")
        + &caller("root", "admin", &["*"], "")
        + &caller("viewer", "viewer", &["fabrikam"], "")
        + &late;
    files.write("callers.toml", &file);
    security.reload().await;
    async fn end<T>(stream: &mut tonic::Streaming<T>) -> Code {
        let ended = async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("an end")
    }
    assert_eq!(end(&mut gone).await, Code::Unauthenticated);
    assert_eq!(end(&mut expires).await, Code::Unauthenticated);
    assert_eq!(end(&mut viewer).await, Code::PermissionDenied);
    let refusals = security.refusals();
    for reason in [Reason::UnknownToken, Reason::ExpiredToken, Reason::Tenant] {
        assert_eq!(refusals.count(reason), 1, "{reason:?}");
    }
    // Who may still ask is told as before.
    let ask = with("any-sbc", authorize("a", "alice", "+12065550100"));
    let answer = calls.clone().authorize_call(ask).await.unwrap();
    assert_eq!(answer.into_inner().decision(), v1::Decision::Allowed);
    let block = v1::BlockUserRequest {
        tenant_id: "contoso".into(),
        user_id: "alice".into(),
        reason: "r".into(),
        operator: "o".into(),
    };
    account.clone().block_user(with("root", block)).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, stays.message()).await.expect("in time");
    assert_eq!(told.unwrap().unwrap().directive.unwrap().call_id, "a");
}

/// Every RPC whose answer is a stream ends with the rights of its caller.
#[test]
fn the_streams_that_are_judged_again_are_all_there_are() {
    let files = prost_types::FileDescriptorSet::decode(tollgate::proto::FILE_DESCRIPTOR_SET);
    for file in files.unwrap().file {
        for service in &file.service {
            for rpc in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), rpc.name());
                assert_eq!(roles::goes_on(&path), rpc.server_streaming(), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_above_the_limits_of_a_caller_is_shed_with_when_to_come_again() {
    let files = Files::default();
    let file = caller("slow", "sbc", &["contoso"], "requests_per_second = 1")
        + &caller("small", "sbc", &["contoso"], "message_size = 200")
        + &caller("watcher", "viewer", &["contoso"], "requests_in_flight = 1");
    let server = guarded(&files, &file).await;
    let mut calls = server.calls().await;
    let mut shed = None;
    for n in 0..50 {
        let request = with("slow", authorize(&format!("c{n}"), "carol", "+12065550100"));
        if let Err(status) = calls.authorize_call(request).await {
            shed = Some(status);
            break;
        }
    }
    let shed = shed.expect("fifty in a second");
    assert_eq!(shed.code(), Code::ResourceExhausted, "{shed}");
    let wait = shed.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    for n in 0..5 {
        let request = with("slow", authorize(&format!("help{n}"), "alice", "911"));
        let answer = calls.authorize_call(request).await.expect("no limit holds for emergencies");
        assert_eq!(answer.into_inner().decision(), v1::Decision::AllowedEmergency);
    }
    // It is the caller's own call, recorded under its tenant.
    assert!(server.running.flush_records(PATIENCE).await);

    let mut large = authorize("large", "alice", "+12065550100");
    large.conference_id = "x".repeat(200);
    let status = calls.authorize_call(with("small", large.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    large.called_number = "911".to_owned();
    assert!(calls.authorize_call(with("small", large)).await.is_ok());

    let mut account = server.account().await;
    let watch = || v1::WatchEventsRequest {
        tenant_id: "contoso".to_owned(),
        ..v1::WatchEventsRequest::default()
    };
    let watching = account.watch_events(with("watcher", watch())).await.unwrap();
    let second = account.watch_events(with("watcher", watch())).await.unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted);
    drop(watching);
    let refusals = server.running.security().refusals();
    assert_eq!(
        [Reason::InFlight, Reason::MessageSize].map(|reason| refusals.count(reason)),
        [1, 1]
    );
    loop {
        // The server learns a moment later that the first has gone.
        if account.watch_events(with("watcher", watch())).await.is_ok() {
            break;
        }
    }
}

/// A request of HTTP/1.1 with JSON; status and body.
fn post(address: &Listen, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let Listen::Tcp(address) = address else { panic!("expected TCP") };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_in_json_is_judged_alike() {
    let files = Files::default();
    let server = guarded(&files, &callers()).await;
    let calls = server.running.addresses().calls.clone();
    let call = |number: &str| {
        format!(
            r#"{{"callId":"j{number}","callType":"CALL_TYPE_USER_OUTBOUND","payerId":"alice","calledNumber":"{number}"}}"#
        )
    };
    let ask = |tenant: &str, verb: &str, token: Option<&str>, body: &str| {
        post(&calls, &format!("/v1/tenants/{tenant}/calls{verb}"), token, body)
    };
    let usual = call("+12065550100");
    for (tenant, token, expected) in [
        ("contoso", Some("sbc"), 200),
        ("contoso", Some("conferencing"), 200),
        ("contoso", Some("admin"), 403),
        ("contoso", Some("viewer"), 403),
        ("contoso", Some("probe"), 403),
        ("contoso", Some("late"), 401),
        ("contoso", None, 401),
        ("fabrikam", Some("sbc"), 403),
    ] {
        let (status, body) = ask(tenant, ":authorize", token, &usual);
        assert_eq!(status, expected, "{tenant} {token:?}: {body}");
    }
    assert_eq!(ask("contoso", ":quote", Some("viewer"), &usual).0, 200);
    assert_eq!(ask("contoso", ":quote", Some("probe"), &usual).0, 403);
    let (status, body) = ask("fabrikam", ":authorize", None, &call("911"));
    assert_eq!((status, &body["decision"]), (200, &"DECISION_ALLOWED_EMERGENCY".into()), "{body}");
}

#[tokio::test]
async fn health_is_open_on_the_grpc_listeners_only_where_it_is_set_so() {
    let files = Files::default();
    let path = "/grpc.health.v1.Health/Check";
    for (open_health, expected) in [(false, Code::Unauthenticated), (true, Code::Ok)] {
        let identities_file = Some(files.write("callers.toml", &callers()).into());
        let config = Config { identities_file, open_health, ..config() };
        let server = Server::start_with(config).await;
        let addresses = server.running.addresses();
        let mut calls = channel(&addresses.calls).await;
        assert_eq!(code(&mut calls, path, HeaderMap::new(), &[]).await, expected);
        let mut http = channel(&addresses.http).await;
        assert_eq!(code(&mut http, path, HeaderMap::new(), &[]).await, Code::Ok);
    }
}

/// An authority, and what it has signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM for these names; those with `://` are URIs.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let (uris, dns): (Vec<&str>, Vec<&str>) = names.iter().partition(|n| n.contains("://"));
        let dns: Vec<String> = dns.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server with TLS by this authority, and callers that are known by certificates of `clients`.
fn encrypted(files: &Files, authority: &Authority, clients: Option<&Authority>) -> Config {
    let (certificate, key) = authority.sign(&["tollgate.test"]);
    let callers = caller("sbc-1", "sbc", &["contoso"], "certificates = [\"DNS:sbc-1.test\"]")
        + &caller("sbc-2", "sbc", &["contoso"], "certificates = [\"URI:spiffe://test/sbc-2\"]")
        + &caller("viewer", "viewer", &["contoso"], "certificates = [\"DNS:viewer.test\"]");
    Config {
        identities_file: Some(files.write("callers.toml", &callers).into()),
        tls_cert: Some(files.write("tls.crt", &certificate).into()),
        tls_key: Some(files.write("tls.key", &key).into()),
        tls_client_ca: clients.map(|ca| files.write("clients.crt", &ca.pem).into()),
        ..config()
    }
}

fn tcp(address: &Listen) -> SocketAddr {
    let Listen::Tcp(address) = address else { panic!("expected TCP") };
    *address
}

/// A client that trusts this authority and shows that certificate.
async fn secure(
    address: &Listen,
    trusted: &Authority,
    own: Option<(String, String)>,
) -> Result<CallAuthorizationServiceClient<Channel>, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&trusted.pem))
        .domain_name("tollgate.test");
    if let Some((certificate, key)) = own {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::try_from(format!("https://{}", tcp(address))).unwrap();
    let endpoint = endpoint.connect_timeout(PATIENCE).tls_config(tls)?;
    Ok(CallAuthorizationServiceClient::new(endpoint.connect().await?))
}

/// What comes of one call by such a client; `None`: not even a connection.
async fn outcome(
    address: &Listen,
    trusted: &Authority,
    own: Option<(String, String)>,
) -> Option<Result<v1::Decision, Code>> {
    let mut client = secure(address, trusted, own).await.ok()?;
    match client.authorize_call(authorize("tls", "alice", "+12065550100")).await {
        Ok(answer) => Some(Ok(answer.into_inner().decision())),
        // The alert of the server arrives after the client has finished its part of TLS 1.3.
        Err(status)
            if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
        {
            None
        }
        Err(status) => Some(Err(status.code())),
    }
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate_and_no_other_connects() {
    let files = Files::default();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start_with(encrypted(&files, &ours, Some(&ours))).await;
    let calls = &server.running.addresses().calls;
    for (own, expected) in [
        (Some(ours.sign(&["sbc-1.test"])), Some(Ok(v1::Decision::Allowed))),
        (Some(ours.sign(&["SBC-1.test", "other.test"])), Some(Ok(v1::Decision::Allowed))),
        (Some(ours.sign(&["spiffe://test/sbc-2"])), Some(Ok(v1::Decision::Allowed))),
        (Some(ours.sign(&["viewer.test"])), Some(Err(Code::PermissionDenied))),
        (Some(ours.sign(&["other.test"])), Some(Err(Code::Unauthenticated))),
        (Some(ours.sign(&["sbc-1.test", "viewer.test"])), Some(Err(Code::Unauthenticated))),
        (Some(theirs.sign(&["sbc-1.test"])), None),
        (None, None),
    ] {
        assert_eq!(outcome(calls, &ours, own).await, expected);
    }
    // Who expects another server does not talk to this one.
    assert!(secure(calls, &theirs, Some(ours.sign(&["sbc-1.test"]))).await.is_err());
    let refusals = server.running.security().refusals();
    assert_eq!(refusals.count(Reason::UnknownCertificate), 2);
    wait_until("counted", || refusals.count(Reason::Handshake), |count| *count >= 3);
}

#[tokio::test]
async fn certificates_are_replaced_while_calls_run() {
    let files = Files::default();
    let (old, new) = (Authority::new(), Authority::new());
    let config = Config { tls_http: HttpTls::On, ..encrypted(&files, &old, None) };
    let server = Server::start_with(config).await;
    let addresses = server.running.addresses();
    let mut running = secure(&addresses.calls, &old, None).await.expect("the old certificate");
    running.authorize_call(with("sbc-1", authorize("a", "alice", "+12065550100"))).await.unwrap();
    // A key that does not fit is not taken.
    let (certificate, key) = new.sign(&["tollgate.test"]);
    files.write("tls.crt", &certificate);
    server.running.security().reload().await;
    assert!(secure(&addresses.calls, &new, None).await.is_err());
    assert!(secure(&addresses.calls, &old, None).await.is_ok());

    files.write("tls.key", &key);
    server.running.security().reload().await;
    running.extend_call(with("sbc-1", extend("a", 60, 1))).await.expect("the connection goes on");
    assert!(secure(&addresses.calls, &old, None).await.is_err());
    let mut next = secure(&addresses.calls, &new, None).await.expect("the new certificate");
    next.settle_call(with("sbc-1", settle("a", 90))).await.expect("the same call");
    // The listeners for administration and for HTTP have it too.
    assert!(secure(&addresses.administration, &new, None).await.is_ok());
    assert!(secure(&addresses.http, &new, None).await.is_ok());
    assert!(secure(&addresses.http, &old, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_and_slow_handshakes_hold_nobody() {
    let files = Files::default();
    let ours = Authority::new();
    let server = Server::start_with(encrypted(&files, &ours, None)).await;
    let calls = &server.running.addresses().calls;
    let slow: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(tcp(calls)).expect("it accepts")).collect();
    let mut client = secure(calls, &ours, None).await.expect("the slow hold nobody");
    let answer = client.authorize_call(with("sbc-1", authorize("a", "alice", "+12065550100")));
    assert_eq!(answer.await.unwrap().into_inner().decision(), v1::Decision::Allowed);

    let mut plain = TcpStream::connect(tcp(calls)).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = vec![];
    // The server may reset the connection.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // The slow ones are closed in the end.
    let refusals = server.running.security().refusals();
    wait_until("closed", || refusals.count(Reason::Handshake), |count| *count >= 101);
    drop(slow);
}

/// A client command of the program over TLS.
fn client(sidecar: &Sidecar, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = tollgate();
    command.args(arguments);
    let at = |address: SocketAddr| format!("https://localhost:{}", address.port());
    command.env("TOLLGATE_ENDPOINT", at(sidecar.calls));
    command.env("TOLLGATE_ADMIN_ENDPOINT", at(sidecar.administration));
    command.envs(environment.iter().copied());
    command
}

/// A sidecar with these callers, which asks for their certificates.
fn secured(files: &Files, ours: &Authority, callers: &str, more: &[&str]) -> Sidecar {
    let (certificate, key) = ours.sign(&["localhost"]);
    let named = [
        ("--identities-file", files.write("callers.toml", callers)),
        ("--tls-cert", files.write("tls.crt", &certificate)),
        ("--tls-key", files.write("tls.key", &key)),
        ("--tls-client-ca", files.write("ca.crt", &ours.pem)),
    ];
    let flags: Vec<&str> = named.iter().flat_map(|(flag, file)| [*flag, file]).collect();
    Sidecar::ready(&[&flags, more].concat())
}

#[test]
fn the_program_shows_certificate_and_token_and_its_log_tells_refusals_without_secrets_or_numbers() {
    let files = Files::default();
    let ours = Authority::new();
    let (own, own_key) = ours.sign(&["client.test"]);
    let write = |name: &str, text: &str| files.write(name, text);
    let ca = write("ca.crt", &ours.pem);
    let token = "root-token-that-nobody-may-read";
    let callers = caller(token, "admin", &["*"], "").replacen(token, "root", 1)
        + &caller("sbc-token", "sbc", &["*"], "certificates = [\"DNS:client.test\"]");
    let more = ["--reload-interval", "100ms", "--log-filter", "info,tollgate=debug"];
    let sidecar = secured(&files, &ours, &callers, &more);
    let (own, own_key) = (write("own.crt", &own), write("own.key", &own_key));
    let token = (write("token", &format!("{token}\n")), token);
    let shown = [
        ("TOLLGATE_CLIENT_TLS_CA", ca.as_str()),
        ("TOLLGATE_CLIENT_TLS_CERT", &own),
        ("TOLLGATE_CLIENT_TLS_KEY", &own_key),
    ];
    let organisation = write("org.yaml", &organisation());
    let apply = ["apply", "--file", &organisation, "--token-file", &token.0];
    run(client(&sidecar, &apply, &shown)).succeeded();
    // Without the token it is the SBC of its certificate, which administers nothing.
    let said = run(client(&sidecar, &["apply", "--file", &organisation], &shown)).failed(1);
    assert!(said.contains("PERMISSION_DENIED"), "{said}");
    // Without an authority to trust it does not connect.
    let said = run(client(&sidecar, &["balance", "--tenant", "contoso"], &shown[1..])).failed(1);
    assert!(said.contains("cannot reach"), "{said}");
    let call = |called: &str, environment: &[(&str, &str)]| {
        let call = format!("log-{called}");
        run(client(
            &sidecar,
            &[
                "authorize",
                "--tenant",
                "contoso",
                "--call-id",
                &call.replace('+', ""),
                "--payer",
                "alice",
                "--calling",
                "+14255550100",
                "--called",
                called,
            ],
            environment,
        ))
    };
    let _ = call("+12065557788", &shown);
    let _ = call("911", &shown);
    let wrong = write("wrong", "secret-that-is-wrong");
    let mut hostile = client(
        &sidecar,
        &["settle", "--tenant", "contoso", "--call-id", "x", "--used", "5s"],
        &shown,
    );
    hostile.env("TOLLGATE_CLIENT_TOKEN_FILE", &wrong);
    let said = run(hostile).failed(1);
    assert!(said.contains("UNAUTHENTICATED"), "{said}");

    let log = wait_until("told", || sidecar.log(), |log| log.contains("unknown_token"));
    let lines: Vec<Value> = log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let refused = |reason: &str| {
        let line = lines.iter().find(|line| line["reason"] == reason);
        line.unwrap_or_else(|| panic!("no {reason} in {log}"))
    };
    let role = refused("role");
    assert_eq!((&role["level"], &role["message"]), (&"WARN".into(), &"refused".into()));
    assert_eq!(role["caller"], "\"sbc-token\"");
    assert_eq!(role["rpc"], format!("\"{ACCOUNT}Apply\""));
    assert!(role["peer"].as_str().unwrap().contains("127.0.0.1:"), "{role}");
    assert_eq!(refused("unknown_token")["caller"], "\"\"");
    assert!(!log.contains("NO IDENTITIES"), "{log}");
    for secret in [token.1, "secret-that-is-wrong", "12065557788", "2065557788", "14255550100"] {
        // The call id is the caller's own text: it is hashed by whoever does not want it told.
        let told = log.replace("log-12065557788", "");
        assert!(!told.contains(secret), "{secret} in {log}");
    }
    assert!(!log.contains("PRIVATE KEY"));
    let page = crate::metrics::get(sidecar.http, "/metrics").1;
    for reason in ["role", "unknown_token"] {
        let counted = format!("tollgate_requests_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(page.contains(&counted), "{counted}: {page}");
    }

    // The process looks by itself for what has changed.
    files.write("callers.toml", &caller("other", "sbc", &["*"], ""));
    wait_until("revoked", || sidecar.log(), |log| log.contains("the identities are read again"));
    let said = run(client(&sidecar, &apply, &shown)).failed(1);
    assert!(said.contains("UNAUTHENTICATED"), "{said}");
}

#[test]
fn a_load_test_and_a_switch_of_one_tenant_are_known_by_token_and_certificate() {
    let files = Files::default();
    let ours = Authority::new();
    let (own, own_key) = ours.sign(&["switch.test"]);
    let write = |name: &str, text: &str| files.write(name, text);
    let ca = write("ca.crt", &ours.pem);
    let callers = caller("root", "admin", &["*"], "")
        + &caller("load", "sbc", &["loadtest-1"], "certificates = [\"DNS:switch.test\"]");
    let sidecar = secured(&files, &ours, &callers, &[]);
    let (own, own_key) = (write("own.crt", &own), write("own.key", &own_key));
    let (root, load) = (write("root", "root\n"), write("load", "load\n"));
    let shown = [
        ("TOLLGATE_CLIENT_TLS_CA", ca.as_str()),
        ("TOLLGATE_CLIENT_TLS_CERT", &own),
        ("TOLLGATE_CLIENT_TLS_KEY", &own_key),
    ];
    let moment = ["loadtest", "--warm-up", "50ms", "--duration", "200ms", "--rounds", "1"];
    // So few that each ends calls, however slow the machine is.
    let moment =
        [&moment[..], &["--users", "50", "--concurrency", "2", "--output", "json"]].concat();
    let set_up = ["--setup", "--minutes", "1000", "--deck-prefixes", "50"];
    let set_up = [&moment[..], &set_up, &["--setup-token-file", &root]].concat();
    // By the certificate alone, then by a token beside it.
    for more in [&[][..], &["--token-file", &load]] {
        let done = run(client(&sidecar, &[&set_up[..], more].concat(), &shown)).succeeded();
        let report: Value = serde_json::from_str(&done).expect("JSON");
        let outcomes = report["whole_run"]["outcomes"].as_object().expect("outcomes");
        assert_eq!(outcomes.len(), 3, "{report}");
        for (rpc, outcomes) in outcomes {
            let all = outcomes.as_object().expect("outcomes");
            assert!(all.len() == 1 && all.contains_key("ok"), "{rpc}: {outcomes}");
        }
    }
    // Who is known to nobody, or trusts nobody, measures nothing.
    let wrong = write("wrong", "unknown");
    let refused = [&moment[..], &["--token-file", &wrong]].concat();
    run(client(&sidecar, &refused, &shown)).failed(1);
    let said = run(client(&sidecar, &moment, &shown[1..])).failed(1);
    assert!(said.contains("cannot reach"), "{said}");
    let bad = [shown[0], ("TOLLGATE_CLIENT_TLS_CERT", &ca), shown[2]];
    let said = run(client(&sidecar, &moment, &bad)).failed(1);
    assert!(said.contains(&ca), "{said}");
    // Its tenant is its own: others are refused as the calls of an SBC are.
    let other = [&moment[..], &["--prefix", "another"]].concat();
    run(client(&sidecar, &other, &shown)).failed(1);
}

#[test]
fn a_server_without_identities_says_so_loudly_and_bad_files_stop_the_start() {
    let sidecar = Sidecar::start(&[]);
    sidecar.wait_for_log("NO IDENTITIES ARE CONFIGURED");
    let files = Files::default();
    let bad = files.write("callers.toml", "callers = 1\n");
    let gone = files.path("gone.pem");
    for (flags, expected) in [
        (vec!["--identities-file", &bad], "line 1: "),
        (vec!["--tls-cert", &gone, "--tls-key", &gone], "cannot be read"),
        (vec!["--tls-cert", &gone], "expected tls_key with it"),
        (vec!["--tls-client-ca", &gone], "expected tls_cert with it"),
        (vec!["--tls-http", "mutual"], "expected tls_client_ca with it"),
    ] {
        let mut command = tollgate();
        command.arg("serve").args(&flags);
        let said = run(command).failed(64);
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
}

/// The rights that the operations page has, with a password.
fn documented_rights() -> Vec<String> {
    let page = include_str!("../../docs/OPERATIONS.md");
    let line = page.split("`ACL SETUSER ").nth(1).expect("the page has it");
    let rights = line.split('`').next().unwrap().replace("PASSWORD", "secret");
    rights.split(' ').map(str::to_owned).collect()
}

fn permit(server: &Process, rights: &[&str]) {
    let _: redis::Value = server.ask(&[&["ACL", "SETUSER"], rights].concat());
}

/// What sidecars and operators do all day, by a Redis user who may do no more than it takes.
async fn a_day(sidecar: &Sidecar, call: &str) {
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize(call, "alice", "+12065550100")).await.unwrap();
    calls.extend_call(extend(call, 10, 1)).await.unwrap();
    calls.settle_call(settle(call, 20)).await.unwrap();
    for line in [
        "users block carol --tenant contoso --reason r",
        "balance --tenant contoso",
        "decisions --tenant contoso",
        "usage --tenant contoso",
        "records erase --tenant contoso --number +12065550100",
        "audit",
    ] {
        sidecar.client(&line.split(' ').collect::<Vec<_>>()).succeeded();
    }
    assert!(!sidecar.log().contains("NOPERM"), "{}", sidecar.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_of_redis_goes_with_the_master_that_sentinels_name() {
    let guarded = Guarded::start(&[]);
    let rights = documented_rights();
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    // Redis does not copy users to replicas.
    for server in [&guarded.master, &guarded.replicas[0], &guarded.replicas[1]] {
        permit(server, &rights);
    }
    let mut of_sentinels = vec!["finder", "on", ">hush"];
    of_sentinels.extend(["-@all", "+@connection", "+sentinel"]);
    guarded.sentinels.iter().for_each(|sentinel| permit(sentinel, &of_sentinels));
    let url = guarded.url().replace("://", "://tollgate:secret@");
    let url = format!("{url}?replicas=1&sentinel_user=finder&sentinel_password=hush");
    let sidecar = Sidecar::on(&url);
    sidecar.set_up(&organisation());
    a_day(&sidecar, "a").await;
    guarded.master.kill();
    wait_until("failed over", || guarded.named(), |port| *port != guarded.master.port);
    let balance = ["balance", "--tenant", "contoso"];
    wait_until("found", || sidecar.client(&balance), |balance| balance.status.success());
    let mut calls = sidecar.calls().await;
    // The connection of the calls finds it a little later, and the other replica its master.
    let settled = async {
        loop {
            match calls.settle_call(settle("a", 20)).await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer.unwrap().into_inner().result(),
            }
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await.expect("found in time");
    assert_eq!(settled, v1::SettleResult::Settled, "it is where it was");
    assert!(!sidecar.log().contains("NOPERM"), "{}", sidecar.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_of_redis_and_one_right_more_serve_on_a_cluster() {
    let shards = Shards::start(&[]);
    let rights = documented_rights();
    let mut rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    rights.push("+cluster");
    shards.masters.iter().for_each(|node| permit(node, &rights));
    let sidecar = Sidecar::on(&shards.url().replace("://", "://tollgate:secret@"));
    sidecar.set_up(&organisation());
    a_day(&sidecar, "a").await;
}

#[tokio::test]
async fn the_documented_user_of_redis_can_do_what_it_takes_and_no_more() {
    let redis = crate::support::redis::RedisServer::started();
    let mut connection = redis.client().get_connection().unwrap();
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg(documented_rights());
    set.exec(&mut connection).expect("the rights are known");

    let url = format!("{}?user=tollgate&pass=secret", redis.url());
    let mut sidecar = Sidecar::on(&url);
    sidecar.set_up(&organisation());
    a_day(&sidecar, "a").await;
    assert!(sidecar.stop().success());
    assert!(!sidecar.log().contains("NOPERM"), "{}", sidecar.log());

    let client = redis::Client::open(url).unwrap();
    let mut own = client.get_connection().unwrap();
    for forbidden in ["FLUSHALL", "FLUSHDB", "CONFIG GET *", "ACL LIST", "SET other 1", "KEYS *"] {
        let mut words = forbidden.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        let said = command.arg(words.collect::<Vec<_>>()).exec(&mut own).unwrap_err();
        assert_eq!(said.code(), Some("NOPERM"), "{forbidden}: {said}");
    }
}
