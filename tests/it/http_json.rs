//! HTTP and JSON beside gRPC, as a switch with an HTTP client speaks it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use tollgate::config::Listen;
use tollgate::proto::v1::GetCallRequest;

use crate::server::{Server, config, organisation};
use crate::stock_client::tool;
use crate::support::messages::authorize;
use crate::support::process::{Files, PATIENCE, Sidecar, run};

const CALLS: &str = "/v1/tenants/contoso/calls";

/// A connection of HTTP/1.1 that is kept.
struct Client(Box<dyn Stream>);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer: status, headers in lower case, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
    /// The body as it came.
    text: String,
}

impl Client {
    fn to(address: &Listen) -> Client {
        match address {
            Listen::Tcp(address) => {
                let stream = TcpStream::connect(address).expect("the server accepts");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                Client(Box::new(stream))
            }
            Listen::Unix(path) => {
                let stream = UnixStream::connect(path).expect("the server accepts");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                Client(Box::new(stream))
            }
        }
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: tollgate\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        // The server may close before all is sent: what it answered is read then.
        let _ = self.0.write_all(&[head.as_bytes(), body].concat());
    }

    #[track_caller]
    fn receive(&mut self) -> Answer {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).expect("a body");
        let status = head[9..12].parse().unwrap();
        let text = String::from_utf8(body).expect("UTF-8");
        let body = serde_json::from_str(&text).expect("every answer is JSON");
        assert!(head.contains("content-type: application/json"), "{head}");
        Answer { status, head, body, text }
    }

    #[track_caller]
    fn raw(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(method, path, headers, body);
        self.receive()
    }

    #[track_caller]
    fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.raw("POST", path, &[("Content-Type", "application/json")], body.as_ref())
    }

    #[track_caller]
    fn ask(&mut self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body.to_string());
        assert_eq!(answer.status, 200, "{path} {body}: {answer:#?}");
        answer.body
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Value {
        let answer = self.raw("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:#?}");
        answer.body
    }

    /// The status, and the fields that it names.
    #[track_caller]
    fn refused(&mut self, path: &str, body: impl AsRef<[u8]>) -> (u16, Vec<String>) {
        let answer = self.post(path, body);
        assert_eq!(answer.body["code"], 3, "{answer:#?}");
        let violations = answer.body["details"][0]["fieldViolations"].as_array();
        let fields = violations.into_iter().flatten().map(|v| v["field"].as_str().unwrap());
        (answer.status, fields.map(str::to_owned).collect())
    }
}

/// A call of carol, who has credits only.
fn call(id: &str) -> Value {
    json!({
        "callId": id, "payerId": "carol", "callType": "CALL_TYPE_USER_OUTBOUND",
        "calledNumber": "011 44 7700 900123", "requestedDuration": "60s",
    })
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn on_unix_sockets(files: &Files) -> tollgate::config::Config {
    let socket = |name| Listen::Unix(files.path(name).into());
    let (listen, admin_listen) = (socket("calls.sock"), socket("administration.sock"));
    tollgate::config::Config { listen, admin_listen, ..config() }
}

#[track_caller]
fn plays_a_call(server: &Server) {
    let mut client = Client::to(&server.running.addresses().calls);
    let authorize = format!("{CALLS}:authorize");
    let answer = client.ask(&authorize, &with(call("a"), "reportsAnswer", json!(true)));
    assert_eq!(answer["decision"], "DECISION_ALLOWED", "{answer:#}");
    assert_eq!((&answer["allowed"], &answer["replayed"]), (&json!(true), &json!(false)));
    assert_eq!(answer["grant"]["grantedDuration"], "60s");
    assert_eq!(answer["funding"][0]["money"], json!({ "currencyCode": "USD", "amount": "0.15" }));

    let again = client.ask(&authorize, &with(call("a"), "reportsAnswer", json!(true)));
    assert_eq!((&again["replayed"], &again["decisionId"]), (&json!(true), &answer["decisionId"]));

    let answered = client.ask(&format!("{CALLS}/a:reportAnswer"), &json!({}));
    assert_eq!(answered["allowed"], true, "{answered:#}");
    let wish = json!({ "usedDuration": "45s", "sequence": 1, "requestedDuration": "60s" });
    let extended = client.ask(&format!("{CALLS}/a:extend"), &wish);
    assert_eq!(extended["grant"]["grantedDuration"], "105s", "{extended:#}");

    let used = json!({ "usedDuration": "61.5s", "q850Cause": 16 });
    let settled = client.ask(&format!("{CALLS}/a:settle"), &used);
    assert_eq!(settled["result"], "SETTLE_RESULT_SETTLED", "{settled:#}");
    assert_eq!(settled["chargedMoney"], json!({ "currencyCode": "USD", "amount": "0.25" }));
    // The names of the protobuf files are understood too, and a call named in the body.
    let used = json!({ "call_id": "a", "used_duration": "61.5s", "q850_cause": 16 });
    let again = client.ask(&format!("{CALLS}:settle"), &used);
    assert_eq!(
        (&again["replayed"], &again["chargedMoney"]),
        (&json!(true), &settled["chargedMoney"])
    );

    let over = client.ask(&authorize, &with(call("a"), "reportsAnswer", json!(true)));
    assert_eq!(over["decision"], "DECISION_CALL_ALREADY_ENDED", "{over:#}");
    assert_eq!((&over["allowed"], &over["denial"]["sipStatus"]), (&json!(false), &json!(487)));

    client.ask(&authorize, &call("b"));
    // A release needs no body.
    let released = client.raw("POST", &format!("{CALLS}/b:release"), &[], b"");
    assert_eq!(released.body["result"], "SETTLE_RESULT_RELEASED", "{released:#?}");

    let quote = client.ask(&format!("{CALLS}:quote"), &with(call(""), "callId", Value::Null));
    assert!(quote["allowed"] == true && !quote["steps"].as_array().unwrap().is_empty());

    client.ask(&authorize, &with(call("c"), "trunkId", json!("sbc-de")));
    let restarted = json!({ "trunkId": "sbc-de", "startedBefore": "2100-01-01T00:00:00Z" });
    let ended = client.ask(&format!("{CALLS}:end"), &restarted);
    assert_eq!((&ended["endedCalls"], &ended["callIds"]), (&json!(1), &json!(["c"])), "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_lives_on_one_connection() {
    plays_a_call(&Server::start().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_lives_on_a_unix_socket_and_so_does_administration() {
    let files = Files::default();
    let server = Server::start_with(on_unix_sockets(&files)).await;
    plays_a_call(&server);
    let mut operator = Client::to(&server.running.addresses().administration);
    let ended = operator.get("/v1/tenants/contoso/calls/a");
    assert_eq!(ended["call"]["callId"], "a", "{ended:#}");
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_an_answer() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let authorize = format!("{CALLS}:authorize");
    let london = with(call("d"), "calledNumber", json!("+442079460958"));
    let poor = client.ask(&authorize, &with(london, "payerId", json!("dave")));
    assert_eq!(poor["allowed"], false, "{poor:#}");
    assert_eq!(poor["denial"]["sipStatus"], 403, "{poor:#}");
    client.ask(&authorize, &call("k"));
    let other = client.ask(&authorize, &with(call("k"), "calledNumber", json!("+12065550100")));
    assert_eq!(other["decision"], "DECISION_KEY_CONFLICT", "{other:#}");
    // No decision: an error, with the status of HTTP that goes with its code.
    let unknown = client.post(&format!("{CALLS}/x:extend"), "{}");
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!(5)), "{unknown:#?}");
    let talked = format!("{CALLS}/k:extend");
    client.ask(&talked, &json!({ "usedDuration": "5s" }));
    let release = client.post(&format!("{CALLS}/k:release"), "{}");
    assert_eq!((release.status, &release.body["code"]), (400, &json!(9)), "{release:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_named_field_by_field() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let authorize = format!("{CALLS}:authorize");
    let settle = format!("{CALLS}/a:settle");
    let mut check = |path: &str, body: &[u8], fields: &[&str]| {
        let (status, named) = client.refused(path, body);
        let body = String::from_utf8_lossy(body);
        assert_eq!(
            (status, named),
            (400, fields.iter().map(|&f| f.to_owned()).collect()),
            "{body}"
        );
    };
    // What JSON cannot say, and then what the service refuses.
    let wrong = br#"{"requested_duration": "soon", "callType": "CALL_TYPE_NOBODY", "colour": 7,
                     "calledNumber": 12065550100, "payer_id": "no name!", "callId": "a"}"#;
    check(
        &authorize,
        wrong,
        &["requested_duration", "call_type", "colour", "called_number", "payer_id"],
    );
    check("/v1/tenants/not%20a%20tenant/calls/a:settle", b"{}", &["tenant_id", "used_duration"]);
    check(&settle, br#"{"usedDuration": "1s", "usedDuration": "2s"}"#, &["used_duration"]);
    check(&settle, br#"{"usedDuration": "1s", "used_duration": "1s"}"#, &["used_duration"]);
    check(&settle, br#"{"usedDuration": "1s", "labels": {"a": "1", "\u0061": "2"}}"#, &["labels"]);
    check(&settle, br#"{"usedDuration": "1s", "sequence": 1e999}"#, &["sequence"]);
    check(&settle, br#"{"usedDuration": "1s", "sequence": 18446744073709551616}"#, &["sequence"]);
    check(&settle, br#"{"usedDuration": "1s", "q850Cause": -1}"#, &["q850_cause"]);
    check(&settle, br#"{"usedDuration": "1s", "q850Cause": 16.5}"#, &["q850_cause"]);
    check(&settle, b"{\"usedDuration\": \"1s\", \"token\": \"caf\xe9\"}", &["token"]);
    check(&settle, br#"{"usedDuration": "1s", "token": "\ud800"}"#, &["token"]);
    check(&settle, br#"{"usedDuration": "1s", "callId": "b"}"#, &["call_id"]);
    check(&format!("{CALLS}/%FF:settle"), br#"{"usedDuration": "1s"}"#, &["call_id"]);
    check(&format!("{CALLS}/%4:settle"), br#"{"usedDuration": "1s"}"#, &["call_id"]);
    check(&format!("{settle}?sequence=1"), br#"{"usedDuration": "1s"}"#, &["sequence"]);
    check(
        &settle,
        br#"{"usedDuration": "1s",  "answeredAt": "2026-13-01T00:00:00Z"}"#,
        &["answered_at"],
    );
    // What is no object at all has no fields.
    for body in
        ["[]", "7", "{", "{\"a\":1,}", "{} {}", "{\"usedDuration\": \"1s\"", "\u{feff}{}", "null"]
    {
        check(&settle, body.as_bytes(), &[]);
    }
    let deep = format!("{{\"labels\": {}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    check(&settle, deep.as_bytes(), &["labels"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_brings_the_server_down() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let mut random = fastrand::Rng::with_seed(11);
    let whole = with(call("r"), "labels", json!({ "é": ["x", { "y": null }] })).to_string();
    for _ in 0..2000 {
        let mut body = whole.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            match random.u8(..3) {
                0 => body[at] = random.u8(..),
                1 => body.truncate(at.max(1)),
                _ => body.insert(at, *random.choice(b"{}[]\",:\\\xff%0").unwrap()),
            }
        }
        let answer = client.post(&format!("{CALLS}:authorize"), &body);
        assert!(
            [200, 400].contains(&answer.status),
            "{}: {answer:?}",
            String::from_utf8_lossy(&body)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_is_decided_beside_anything() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let authorize = format!("{CALLS}:authorize");
    for (path, body) in [
        (authorize.as_str(), &br#"{"calledNumber": "911"}"#[..]),
        ("/v1/calls:authorize", br#"{"called_number": "911"}"#),
        ("/v1/tenants/%FF%zz/calls:authorize?a=b", br#"{"called_number": "911"}"#),
        (&authorize, br#"{"requestedDuration": 1e999, "x": [{}], "calledNumber": "911"}"#),
        (&authorize, br#"{"callId": {"a": 1}, "callType": "NONE", "calledNumber": "911"}"#),
        (&authorize, br#"{"calledNumber": "911", "tenantId": "fabrikam", "tenant_id": 5}"#),
        (&authorize, b"{\"callingNumber\": \"Ren\xe9\", \"labels\": 9, \"calledNumber\": \"911\"}"),
    ] {
        let answer = client.post(path, body);
        let said = String::from_utf8_lossy(body);
        assert_eq!(answer.status, 200, "{said}: {answer:#?}");
        assert_eq!(answer.body["decision"], "DECISION_ALLOWED_EMERGENCY", "{said}: {answer:#?}");
        assert!(!answer.body["warnings"].as_array().unwrap().is_empty(), "{said}");
    }
    let odd = br#"{"colour": 7, "callType": "CALL_TYPE_NOBODY", "calledNumber": "911"}"#;
    let answer = client.post(&authorize, odd);
    let warnings = answer.body["warnings"].to_string();
    for word in ["colour: ", "call_type: ", "payer_id: "] {
        assert_eq!(warnings.matches(word).count(), 1, "{word} in {warnings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_id_may_hold_anything() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let mut account = server.account().await;
    let printable: String = (0x20..0x7f).map(char::from).collect();
    for id in ["realm|abc@10.0.0.1:5060|tag-1|leg", "a/b?c#d%2F", "..", "ü:settle", &printable] {
        let allowed = client.ask(&format!("{CALLS}:authorize"), &call(id));
        assert_eq!(allowed["decision"], "DECISION_ALLOWED", "{id}: {allowed:#}");
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let used = json!({ "usedDuration": "60s" });
        client.ask(&format!("{CALLS}/{encoded}:settle"), &used);
        let request = GetCallRequest { tenant_id: "contoso".into(), call_id: id.into() };
        let stored = account.get_call(request).await.unwrap().into_inner().call.unwrap();
        assert_eq!((stored.call_id.as_str(), stored.used_duration.unwrap().seconds), (id, 60));
    }
    // Only the last colon belongs to us; the rest needs no encoding.
    client.ask(&format!("{CALLS}:authorize"), &call("a:b@c:5060"));
    let charged = client.ask(&format!("{CALLS}/a:b@c:5060:settle"), &json!({"usedDuration": "1s"}));
    assert_eq!(charged["result"], "SETTLE_RESULT_SETTLED", "{charged:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_sent_ahead_and_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let json = [("Content-Type", "application/json; charset=UTF-8")];
    for id in 0..20 {
        let body = call(&format!("p{id}")).to_string();
        client.send("POST", &format!("{CALLS}:authorize"), &json, body.as_bytes());
        client.send("POST", &format!("{CALLS}/p{id}:settle"), &json, br#"{"usedDuration":"1s"}"#);
    }
    for id in 0..20 {
        assert_eq!(client.receive().body["decision"], "DECISION_ALLOWED", "{id}");
        assert_eq!(client.receive().body["result"], "SETTLE_RESULT_SETTLED", "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_has_its_own_paths_and_methods() {
    let server = Server::start().await;
    let addresses = server.running.addresses();
    let (mut calls, mut operator) =
        (Client::to(&addresses.calls), Client::to(&addresses.administration));
    let mut check = |administration: bool, method: &str, path: &str, status: u16| {
        let client = if administration { &mut operator } else { &mut calls };
        let answer = client.raw(method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}: {answer:#?}");
        answer
    };
    check(false, "GET", "/v1/tenants/contoso/balance", 404);
    check(true, "GET", "/v1/tenants/contoso/balance", 200);
    check(false, "GET", "/v1/tenants/contoso/calls/a", 404);
    check(false, "POST", "/v1/organisation:apply", 404);
    check(true, "POST", &format!("{CALLS}:authorize"), 404);
    check(false, "POST", "/v1/tenants/contoso/calls", 404);
    check(false, "POST", "/", 404);
    // gRPC itself needs HTTP/2.
    check(false, "POST", "/tollgate.v1.CallAuthorizationService/AuthorizeCall", 404);
    let refused = check(false, "GET", &format!("{CALLS}:authorize"), 405);
    assert!(refused.head.contains("allow: post\r\n"), "{refused:?}");
    let refused = check(true, "DELETE", "/v1/tenants/contoso/balance", 405);
    assert!(refused.head.contains("allow: get\r\n"), "{refused:?}");
    check(false, "PUT", "/openapi.json", 405);

    let body = call("a").to_string();
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let mut client = Client::to(&addresses.calls);
        client.raw("POST", &format!("{CALLS}:authorize"), headers, body)
    };
    let json = ("Content-Type", "application/json");
    assert_eq!(post(&[], body.as_bytes()).status, 415);
    assert_eq!(post(&[("Content-Type", "text/plain")], body.as_bytes()).status, 415);
    let latin_1 = [("Content-Type", "application/json; charset=iso-8859-1")];
    assert_eq!(post(&latin_1, body.as_bytes()).status, 415);
    // A page in an operator's browser.
    let browser = post(&[json, ("Origin", "http://evil.example")], body.as_bytes());
    assert_eq!((browser.status, &browser.body["code"]), (403, &json!(7)));
    assert_eq!(post(&[json], &vec![b' '; (64 << 10) + 1]).status, 413);
    for late in ["0m", "1n"] {
        let late = post(&[json, ("grpc-timeout", late)], body.as_bytes());
        assert_eq!((late.status, &late.body["code"]), (504, &json!(4)), "{late:?}");
    }
    let in_time = post(&[json, ("grpc-timeout", "10S")], body.as_bytes());
    assert_eq!(in_time.body["decision"], "DECISION_ALLOWED", "{in_time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_provisions_buys_and_looks() {
    let server = Server::start().await;
    let mut operator = Client::to(&server.running.addresses().administration);
    let amount = json!({ "currencyCode": "USD", "amount": "25" });
    let bought = json!({ "key": "po-9", "amount": amount });
    let lot = operator.ask("/v1/tenants/contoso/credits:purchase", &bought);
    assert_eq!((&lot["replayed"], &lot["lot"]["key"]), (&json!(false), &json!("po-9")), "{lot:#}");
    assert_eq!(operator.ask("/v1/tenants/contoso/credits:purchase", &bought)["replayed"], true);
    let other = json!({ "key": "po-9", "amount": { "currencyCode": "USD", "amount": "26" } });
    let refused = operator.post("/v1/tenants/contoso/credits:purchase", other.to_string());
    assert_eq!((refused.status, &refused.body["code"]), (400, &json!(9)), "{refused:#?}");
    assert_eq!(
        refused.body["details"][0]["@type"], "type.googleapis.com/google.rpc.PreconditionFailure",
        "{refused:#?}"
    );
    let both = r#"{"succeeded": {}, "failed": {}}"#;
    let path = "/v1/tenants/contoso/recharges/recharge.7:report";
    assert_eq!(operator.refused(path, both), (400, vec!["failed".to_owned()]));
    assert_eq!(operator.post(path, r#"{"succeeded": {}}"#).status, 404);

    for n in 0..3 {
        let mut calls = server.calls().await;
        calls.authorize_call(authorize(&format!("o{n}"), "alice", "+12065550100")).await.unwrap();
    }
    let page = operator.get("/v1/tenants/contoso/openCalls?page_size=2");
    assert_eq!(page["calls"].as_array().unwrap().len(), 2, "{page:#}");
    let token = page["nextPageToken"].as_str().unwrap();
    let path = format!("/v1/tenants/contoso/openCalls?pageSize=2&pageToken={token}");
    assert_eq!(operator.get(&path)["calls"].as_array().unwrap().len(), 1);
    let bad = operator.raw("GET", "/v1/tenants/contoso/openCalls?page_size=many&x=1", &[], b"");
    assert_eq!(bad.status, 400, "{bad:#?}");
    assert_eq!(operator.ask("/v1/tenants/contoso:audit", &json!({}))["clean"], true);
    assert_eq!(operator.ask("/v1/tenants:audit", &json!({}))["clean"], true);
    let organisation =
        json!({ "organisation": { "tenants": [{ "id": "fabrikam", "colour": 1 }] } });
    let fields = operator.refused("/v1/organisation:apply", organisation.to_string());
    assert_eq!(fields, (400, vec!["organisation".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_speaks_json_too() {
    let server = Server::start().await;
    let Listen::Tcp(address) = server.running.addresses().calls else { panic!("expected TCP") };
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post(format!("http://tollgate{CALLS}:authorize"))
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let (answer, mut body) = send.send_request(request, false).unwrap();
    body.send_data(call("h2").to_string().into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut text) = (answer.into_body(), vec![]);
    while let Some(data) = body.data().await {
        text.extend(data.unwrap());
    }
    let answer: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(answer["decision"], "DECISION_ALLOWED", "{answer:#}");
    // What nobody serves is told as its sender understands it.
    for (content, status) in [("application/json", 404), ("application/grpc", 200)] {
        let mut ready = send.clone().ready().await.unwrap();
        let request = http::Request::post("http://tollgate/v1/other")
            .header("content-type", content)
            .body(())
            .unwrap();
        let answer = ready.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), status, "{content}");
        let grpc_status = answer.headers().get("grpc-status").map(|code| code.as_bytes());
        assert_eq!(grpc_status, (status == 200).then_some(&b"12"[..]), "{content}");
    }
    connection.abort();
}

/// Without members that are null: how some print what is absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn the_json_is_what_grpcurl_and_the_program_print() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let mut client = Client::to(&Listen::Tcp(server.calls));
    let authorize = format!("{CALLS}:authorize");
    client.ask(&authorize, &call("same"));
    let answer = client.ask(&authorize, &call("same"));
    let mut command = Command::new(tool("grpcurl"));
    let message = with(call("same"), "tenantId", json!("contoso")).to_string();
    command.args(["-plaintext", "-emit-defaults", "-d", &message, &server.calls.to_string()]);
    command.arg("tollgate.v1.CallAuthorizationService/AuthorizeCall");
    let printed: Value = serde_json::from_str(&run(command).succeeded()).unwrap();
    assert_eq!(without_nulls(printed), answer);

    let mut operator = Client::to(&Listen::Tcp(server.administration));
    let balance = operator.get("/v1/tenants/contoso/balance");
    assert_eq!(balance, server.json(&["balance", "--tenant", "contoso"]));
}

#[test]
fn the_openapi_documents_are_valid_and_served() {
    let server = Sidecar::ready(&[]);
    let files = Files::default();
    for (address, listener, path) in [
        (server.calls, "calls", "/v1/tenants/{tenant_id}/calls/{call_id}:settle"),
        (server.administration, "administration", "/v1/tenants/{tenant_id}/balance"),
    ] {
        let document = Client::to(&Listen::Tcp(address)).get("/openapi.json");
        let printed = server.client(&["openapi", listener]).succeeded();
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), document);
        assert!(document["paths"][path].is_object(), "{path}");
        let mut command = Command::new(tool("openapi-spec-validator"));
        command.args(["--schema", "3.1", &files.write(listener, &document.to_string())]);
        let said = run(command).succeeded();
        assert!(said.contains("OK"), "{said}");

        // Everything says what it is.
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.len() > 10);
        for (name, schema) in schemas {
            assert_ne!(schema["description"], "", "{name}");
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                assert_ne!(property["description"], "", "{name}.{field}");
            }
        }
    }
}

/// What is between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    let parts = text.split(open).skip(1);
    parts.map(|part| part.split(close).next().unwrap_or_default()).collect()
}

/// The page's part on JSON, and in it the block of code, or the table, that has this.
fn recipe<'a>(page: &'a str, mark: &str) -> &'a str {
    let part = page.split_once("\n## HTTP and JSON").expect("a part on JSON").1;
    let part = part.split("\n## ").next().unwrap();
    let blocks = part.split("```").skip(1).step_by(2);
    let tables = part.split("\n\n").filter(|text| text.starts_with('|'));
    let found: Vec<_> = blocks.chain(tables).filter(|text| text.contains(mark)).collect();
    let [found] = found[..] else { panic!("expected {mark} once, found {}", found.len()) };
    found
}

/// What a recipe sends, and which fields of the answer it reads.
struct Recipe {
    path: String,
    /// Field, and the expression that the switch evaluates.
    fields: Vec<(String, String)>,
    reads: Vec<String>,
    timeout: Option<String>,
}

impl Recipe {
    /// Its request, of a call of this payer.
    fn body(&self, call: &str, payer: &str) -> Value {
        let mut body = json!({});
        for (name, expression) in &self.fields {
            let literal = expression.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            body[name] = match (name.as_str(), literal) {
                ("callId", _) => call.into(),
                ("payerId", None) => payer.into(),
                ("calledNumber", None) => "+447700900123".into(),
                (_, Some(literal)) if !literal.contains('"') => literal.into(),
                _ => panic!("what is {name} = {expression}?"),
            };
        }
        body
    }
}

fn path_in(text: &str) -> String {
    let paths = between(text, "v1/tenants/", '"');
    let path = paths[0].split([' ', '\'', '`']).next().unwrap();
    format!("/v1/tenants/{path}")
}

fn recipes(page: &str) -> Vec<(&'static str, Recipe)> {
    let text = |text: &str| text.to_owned();
    let opensips = recipe(page, "rest_post");
    let sets = |set: &&str| set.split_once(") = ").map(|(name, value)| (text(name), text(value)));
    let opensips = Recipe {
        path: path_in(opensips),
        fields: between(opensips, "$json(ask/", ';').iter().filter_map(sets).collect(),
        reads: between(opensips, "json(said/", ')').iter().map(|f| f.replace('/', ".")).collect(),
        timeout: None,
    };
    let kamailio = recipe(page, "http_client_query");
    let sets = |set: &&str| {
        let (name, rest) = set.split_once("\", ").expect("a name and a value");
        let value = rest.rsplit_once(", \"$var(ask)").expect("where to").0;
        (text(name), text(value))
    };
    let kamailio = Recipe {
        path: path_in(kamailio),
        fields: between(kamailio, "jansson_set(\"string\", \"", ';').iter().map(sets).collect(),
        reads: between(kamailio, "jansson_get(\"", '"').into_iter().map(text).collect(),
        timeout: Some(text(between(kamailio, "grpc-timeout: ", '"')[0])),
    };
    let freeswitch = recipe(page, "cjson");
    let sets = |set: &str| {
        set.trim().split_once(" = ").map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let field = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
    };
    let encoded = between(freeswitch, "cjson.encode{", '}')[0];
    let freeswitch = Recipe {
        path: path_in(freeswitch),
        fields: encoded.split(',').filter_map(sets).collect(),
        reads: freeswitch.split("said.").skip(1).map(field).collect(),
        timeout: None,
    };
    vec![("OpenSIPS", opensips), ("Kamailio", kamailio), ("FreeSWITCH", freeswitch)]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_integration_page_are_answered_with_what_they_read() {
    let page = include_str!("../../docs/INTEGRATION.md");
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    for (name, recipe) in recipes(page) {
        let fields: Vec<&str> = recipe.fields.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["callId", "payerId", "callType", "calledNumber"], "{name}");
        assert!(recipe.reads.contains(&"allowed".to_owned()), "{name}: {:?}", recipe.reads);
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(recipe.timeout.as_deref().map(|timeout| ("grpc-timeout", timeout)));
        let mut ask = |payer: &str| {
            let body = recipe.body(&format!("{name}|{payer}"), payer).to_string();
            let answer = client.raw("POST", &recipe.path, &headers, body.as_bytes());
            assert_eq!(answer.status, 200, "{name}: {answer:#?}");
            answer.body
        };
        let (allowed, denied) = (ask("carol"), ask("nobody"));
        assert_eq!(allowed["allowed"], true, "{name}: {allowed:#}");
        assert_eq!(denied["allowed"], false, "{name}: {denied:#}");
        for field in &recipe.reads {
            let answer = if field.starts_with("denial") { &denied } else { &allowed };
            let found = answer.pointer(&format!("/{}", field.replace('.', "/")));
            let found = found.unwrap_or_else(|| panic!("{name} reads {field}: {answer:#}"));
            assert!(!found.is_null(), "{name} reads {field}: {answer:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_for_audiocodes_are_answered_with_the_text_that_they_look_for() {
    let page = include_str!("../../docs/INTEGRATION.md");
    let rules = recipe(page, "Http.Request.Body");
    let template = between(rules, "Modify, `'{", '`')[0];
    let server = Server::start().await;
    let mut client = Client::to(&server.running.addresses().calls);
    let sought = between(rules, "Body contains '", '\'')[0];
    for (payer, allowed) in [("carol", true), ("nobody", false)] {
        let mut body = "{".to_owned();
        for (nth, part) in template.trim_end_matches('\'').split('\'').enumerate() {
            body += match part.trim_matches('+') {
                _ if nth % 2 == 0 => part,
                "Header.Call-ID.ID" => payer,
                "Param.Call.Src.User" => payer,
                "Param.Call.Dst.User" => "+447700900123",
                other => panic!("what is {other}?"),
            };
        }
        let answer = client.post(&path_in(rules), &body);
        assert_eq!(answer.status, 200, "{body}: {answer:#?}");
        assert_eq!(answer.body["allowed"], allowed, "{answer:#?}");
        assert_eq!(answer.text.contains(sought), allowed, "{sought} in {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_curl_on_the_integration_page_are_answered() {
    let page = include_str!("../../docs/INTEGRATION.md");
    let server = Server::start().await;
    let addresses = server.running.addresses();
    let commands = recipe(page, "curl -s ").replace("\\\n", " ");
    let (mut calls, mut administration) =
        (Client::to(&addresses.calls), Client::to(&addresses.administration));
    let mut played = 0;
    for command in commands.split("curl -s ").skip(1) {
        let url = command.split("http://").nth(1).expect("an address");
        let url = url.split([' ', '\'', '\n']).next().unwrap();
        let (host, path) = url.split_once('/').expect("a path");
        let client = if host.ends_with(":7602") { &mut administration } else { &mut calls };
        let path = format!("/{path}");
        let answer = match between(command, "-d '", '\'').first() {
            Some(body) => client.post(&path, body.replace("alice", "carol")),
            None => client.raw("GET", &path, &[], b""),
        };
        assert_eq!(answer.status, 200, "{command}: {answer:#?}");
        let refused = answer.body.get("allowed") == Some(&json!(false));
        assert!(!refused, "{command}: {answer:#?}");
        played += 1;
    }
    assert_eq!(played, 4);
}
