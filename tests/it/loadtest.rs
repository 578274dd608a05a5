//! The load test, for a moment, against real servers: what it counts is what the ledger says.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::process::{Files, Sidecar, parsed, run, tollgate, wait_until};
use crate::support::redis::RedisServer;

/// A run so short that it says nothing about speed.
const MOMENT: [&str; 8] =
    ["--warm-up", "50ms", "--duration", "200ms", "--rounds", "2", "--users", "50"];

const SETUP: [&str; 5] = ["--setup", "--minutes", "3000000", "--deck-prefixes", "50"];

fn seconds(value: &Value) -> u64 {
    let text = value.as_str().expect("a duration");
    text.trim_end_matches('s').parse().expect("whole seconds")
}

/// Seconds spent and held of all pools of a tenant.
fn spent_and_held(sidecar: &Sidecar, tenant: &str) -> (u64, u64) {
    let balance = sidecar.json(&["balance", "--tenant", tenant]);
    let pools = balance["pools"].as_array().expect("pools");
    let sum = |field| pools.iter().map(|pool| seconds(&pool[field])).sum();
    (sum("spent"), sum("held"))
}

#[track_caller]
fn counts_add_up(sidecar: &Sidecar, arguments: &[&str]) {
    let arguments = [&["loadtest"], &MOMENT[..], &SETUP[..], arguments].concat();
    let (spent_before, held_before) = spent_and_held_if_known(sidecar);
    let report = sidecar.json(&arguments);
    assert_eq!(report["rounds"], 2);
    let whole = &report["whole_run"];
    let ok = |rpc: &str| whole["outcomes"][rpc]["ok"].as_u64().unwrap_or_default();
    for (rpc, outcomes) in whole["outcomes"].as_object().expect("outcomes") {
        assert_eq!(outcomes.as_object().expect("outcomes").len(), 1, "{rpc}: {outcomes}");
    }
    let (authorized, settled) = (ok("AuthorizeCall"), ok("SettleCall"));
    assert!(authorized > 0 && settled > 0, "{report}");
    let charged = whole["charged_seconds"].as_u64().expect("a number");
    assert_eq!(charged, settled * 60, "45 s are a minute");
    let (spent, held) = spent_and_held(sidecar, "loadtest-1");
    assert_eq!(spent - spent_before, charged);
    // Nothing was extended: each open call holds a minute.
    assert_eq!(held - held_before, (authorized - settled) * 60);
    sidecar.client(&["audit"]).succeeded();
}

fn spent_and_held_if_known(sidecar: &Sidecar) -> (u64, u64) {
    let known = sidecar.client(&["balance", "--tenant", "loadtest-1"]).status.success();
    if known { spent_and_held(sidecar, "loadtest-1") } else { (0, 0) }
}

#[test]
fn what_a_closed_loop_counts_is_what_redis_says() {
    let redis = RedisServer::started();
    let sidecar = Sidecar::on(&redis.url());
    counts_add_up(&sidecar, &["--mix", "3:0:2", "--concurrency", "8"]);
    // Set up again, on what the first left.
    counts_add_up(&sidecar, &["--mix", "1:0:1", "--concurrency", "3", "--zipf", "0"]);
}

#[test]
fn what_an_open_loop_counts_is_what_the_embedded_ledger_says() {
    let sidecar = Sidecar::on("memory");
    counts_add_up(&sidecar, &["--mix", "2:0:1", "--rate", "300"]);
}

#[test]
fn calls_are_extended_and_every_rpc_has_its_latencies() {
    let sidecar = Sidecar::on("memory");
    let mix = ["--mix", "1:2:1", "--tenants", "2", "--concurrency", "4"];
    let cpu = ["--cpu-of", "tollgate", "--output", "table"];
    let table = sidecar.client(&[&["loadtest"], &MOMENT[..], &SETUP, &mix, &cpu].concat());
    let table = table.succeeded();
    for name in ["AuthorizeCall", "ExtendCall", "SettleCall", "loadtest", "tollgate", "p99.9"] {
        assert!(table.contains(name), "{name} is not in {table}");
    }
    assert!(!table.contains("denied") && !table.contains("error"), "{table}");
    let events = sidecar.json(&["balance", "--tenant", "loadtest-2"]);
    assert!(seconds(&events["pools"][0]["spent"]) > 0, "both tenants are called for: {events}");
}

#[test]
fn a_tenant_that_it_did_not_make_is_left_alone() {
    let sidecar = Sidecar::on("memory");
    sidecar.set_up(
        "tenants: [{ id: loadtest-2, currency: USD, users: [{ id: user-1, usage_location: US, licences: [MCOEV, MCOPSTN1] }] }]",
    );
    let before = sidecar.json(&["balance", "--tenant", "loadtest-2"]);
    let arguments = [&["loadtest", "--tenants", "2"], &MOMENT[..], &SETUP].concat();
    let said = sidecar.client(&arguments).failed(1);
    assert!(said.contains("tenant loadtest-2 exists and was not made by a load test"), "{said}");
    assert_eq!(sidecar.json(&["balance", "--tenant", "loadtest-2"]), before);
    let first = sidecar.client(&["balance", "--tenant", "loadtest-1"]).failed(1);
    assert!(first.contains("NOT_FOUND"), "nothing else was made either: {first}");
}

#[test]
fn refusals_are_told_by_reason_with_the_remedy() {
    let sidecar = Sidecar::on("memory");
    let finished = sidecar.client(&[&["loadtest", "--concurrency", "2"], &MOMENT[..]].concat());
    assert!(finished.stderr.contains("run it with --setup once"), "{finished:?}");
    assert!(finished.succeeded().contains("denied PAYER_UNKNOWN"));
}

#[test]
fn a_server_that_does_not_run_and_arguments_that_cannot_be_are_said() {
    let command = |arguments: &[&str]| {
        let mut command = tollgate();
        command.arg("loadtest").args(arguments);
        run(command)
    };
    let nowhere = format!("unix:{}", Files::default().path("no.sock"));
    let said = command(&["--endpoint", &nowhere]).failed(1);
    assert!(said.contains("nothing listens on unix:"), "{said}");
    let said = command(&["--threads", "200", "--connections", "200"]).failed(1);
    assert!(said.contains("at most one of the --threads a core"), "{said}");
    let said = command(&["--cpu-of", "no-such-program"]).failed(1);
    assert!(said.contains("no process is named no-such-program"), "{said}");
    for wrong in [["--mix", "0:1:1"], ["--zipf", "5"], ["--rate", "0"], ["--duration", "long"]] {
        command(&wrong).failed(64);
    }
}

#[test]
fn what_was_measured_until_an_interrupt_is_printed() {
    let sidecar = Sidecar::on("memory");
    let mut command = tollgate();
    command.args(["loadtest", "--output", "json", "--duration", "1h", "--warm-up", "1ms"]);
    command.args(SETUP).args(["--users", "5", "--endpoint", &format!("http://{}", sidecar.calls)]);
    command.args(["--admin-endpoint", &format!("http://{}", sidecar.administration)]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    let spent = || spent_and_held_if_known(&sidecar).0;
    wait_until("calling", spent, |spent| *spent > 0);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let report = parsed(&String::from_utf8(output.stdout).expect("text"));
    assert_eq!(report["stopped_early"], true);
    assert!(report["whole_run"]["outcomes"]["SettleCall"]["ok"].as_u64() > Some(0), "{report}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("the last is cut short"), "{said}");
}
