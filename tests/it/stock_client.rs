//! Clients that no one here wrote call the running program, with nothing but its reflection.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::server::organisation;
use crate::support::process::{Sidecar, parsed, run};

const SERVICE: &str = "tollgate.v1.CallAuthorizationService";

/// Where `make tools` put it.
pub fn tool(name: &str) -> PathBuf {
    let tools = match std::env::var_os("TOLLGATE_TEST_TOOLS") {
        Some(tools) => PathBuf::from(tools),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools/bin"),
    };
    let path = tools.join(name);
    assert!(path.exists(), "expected {}: run `make tools`", path.display());
    path
}

/// As in the README; grpcurl knows reflection v1alpha.
#[track_caller]
fn grpcurl(server: &Sidecar, method: &str, message: &Value) -> Value {
    let mut command = Command::new(tool("grpcurl"));
    command.args(["-plaintext", "-emit-defaults", "-d", &message.to_string()]);
    command.args([server.calls.to_string(), format!("{SERVICE}/{method}")]);
    parsed(&run(command).succeeded())
}

/// buf knows reflection v1.
#[track_caller]
fn buf_curl(server: &Sidecar, method: &str, message: &Value) -> Value {
    let mut command = Command::new(tool("buf"));
    command.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--emit-defaults"]);
    command.args(["--data", &message.to_string()]);
    command.arg(format!("http://{}/{SERVICE}/{method}", server.calls));
    parsed(&run(command).succeeded())
}

fn authorize(call: &str) -> Value {
    json!({
        "tenant_id": "contoso", "call_id": call, "payer_id": "carol",
        "call_type": "CALL_TYPE_USER_OUTBOUND", "called_number": "011 44 7700 900123",
        "requested_duration": "60s",
    })
}

fn used(call: &str, seconds: u32) -> Value {
    json!({ "tenant_id": "contoso", "call_id": call, "used_duration": format!("{seconds}s") })
}

#[track_caller]
fn is_granted(answer: &Value, seconds: &str, money: &str) {
    assert_eq!(answer["decision"], "DECISION_ALLOWED", "{answer:#}");
    assert_eq!(answer["allowed"], true, "{answer:#}");
    assert_eq!(answer["grant"]["grantedDuration"], seconds, "{answer:#}");
    let line = &answer["funding"][0];
    assert_eq!(line["source"], "FUNDING_SOURCE_CREDITS", "{answer:#}");
    assert_eq!(line["money"], json!({ "currencyCode": "USD", "amount": money }), "{answer:#}");
}

#[track_caller]
fn is_charged(charge: &Value, seconds: &str, money: &str) {
    assert_eq!(charge["result"], "SETTLE_RESULT_SETTLED", "{charge:#}");
    assert_eq!(charge["chargedDuration"], seconds, "{charge:#}");
    assert_eq!(charge["chargedMoney"], json!({ "currencyCode": "USD", "amount": money }));
}

#[test]
fn grpcurl_authorizes_extends_and_settles() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let answer = grpcurl(&server, "AuthorizeCall", &authorize("a"));
    is_granted(&answer, "60s", "0.15");
    assert_eq!(answer["replayed"], false);
    assert_eq!(answer["classification"]["country"], "GB");
    assert_eq!(answer["classification"]["e164"], "+447700900123");
    assert_eq!(grpcurl(&server, "AuthorizeCall", &authorize("a"))["replayed"], true);

    let mut extend = used("a", 45);
    extend["sequence"] = json!(1);
    extend["requested_duration"] = json!("60s");
    is_granted(&grpcurl(&server, "ExtendCall", &extend), "105s", "0.25");

    is_charged(&grpcurl(&server, "SettleCall", &used("a", 61)), "120s", "0.25");
    let denied = grpcurl(&server, "AuthorizeCall", &authorize("a"));
    assert_eq!(denied["decision"], "DECISION_CALL_ALREADY_ENDED", "{denied:#}");
    assert_eq!(denied["denial"]["sipStatus"], 487, "{denied:#}");
}

#[test]
fn grpcurl_lists_both_services_and_health_on_both_listeners() {
    let server = Sidecar::ready(&[]);
    for (address, service) in
        [(server.calls, SERVICE), (server.administration, "tollgate.v1.AccountService")]
    {
        let mut list = Command::new(tool("grpcurl"));
        list.args(["-plaintext", &address.to_string(), "list"]);
        let listed = run(list).succeeded();
        for name in [service, "grpc.health.v1.Health"] {
            assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
        }
        let mut check = Command::new(tool("grpcurl"));
        check.args(["-plaintext", "-d", &json!({ "service": service }).to_string()]);
        check.args([&address.to_string(), "grpc.health.v1.Health/Check"]);
        assert_eq!(parsed(&run(check).succeeded())["status"], "SERVING");
    }
}

#[test]
fn grpcurl_shows_every_field_that_is_wrong() {
    let server = Sidecar::ready(&[]);
    let mut command = Command::new(tool("grpcurl"));
    let message = json!({ "tenant_id": "contoso", "called_number": "+1206\n5550100" });
    command.args(["-plaintext", "-d", &message.to_string(), &server.calls.to_string()]);
    command.arg(format!("{SERVICE}/AuthorizeCall"));
    let finished = run(command);
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("InvalidArgument"), "{finished:?}");
    for field in ["call_id", "payer_id", "call_type", "called_number"] {
        assert!(finished.stderr.contains(field), "{field}: {finished:?}");
    }
}

#[test]
fn buf_curl_authorizes_and_settles() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    is_granted(&buf_curl(&server, "AuthorizeCall", &authorize("b")), "60s", "0.15");
    is_charged(&buf_curl(&server, "SettleCall", &used("b", 60)), "60s", "0.15");
    let again = buf_curl(&server, "SettleCall", &used("b", 60));
    is_charged(&again, "60s", "0.15");
    assert_eq!(again["replayed"], true);
}
