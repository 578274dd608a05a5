//! Settings before a start and after it: `check-config`, and what a running server takes over.

use base64::Engine;
use serde_json::Value;
use tonic::Code;

use crate::metrics::{get, http};
use crate::server::organisation;
use crate::support::messages::{authorize, settle};
use crate::support::process::{Files, Finished, Sidecar, parsed, run, tollgate, wait_until};
use crate::support::redis::RedisServer;

fn check(arguments: &[&str]) -> Finished {
    let mut command = tollgate();
    command.arg("check-config").args(arguments);
    run(command)
}

#[test]
fn settings_are_checked_without_a_server_and_every_mistake_has_its_place() {
    let files = Files::default();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/tollgate.toml");
    let right = check(&["--config", sample]);
    assert!(right.stderr.contains("warning: identities_file: none"), "{right:?}");
    assert_eq!(right.succeeded(), "the settings are right\n");

    let callers = files.write("callers.toml", "[[callers]]\nname = 'a'\nrole = 'king'\n");
    let keys = files.write("keys", "2026 tooshort\n");
    let file = format!(
        "grace = \"30s\"\nlisten = \"0.0.0.0:7601\"\nidentities_file = {callers:?}\n\
         tls_cert = \"/gone.pem\"\ntls_key = \"/gone.key\"\ntoken_keys_file = {keys:?}\nnonsense = 1\n"
    );
    let file = files.write("tollgate.toml", &file);
    // Settings that cannot be read at all keep the others from being compared.
    let wrong = check(&["--config", &file, "--sweep-batch", "0"]);
    let said = wrong.failed(64);
    for place in [
        &format!("{file} line 6: token_keys_file: expected a name and 32 to 128 bytes"),
        &format!("{file} line 7: nonsense: unknown key"),
        "--sweep-batch or TOLLGATE_SWEEP_BATCH: expected a whole number from 1 to 10000",
    ] {
        assert!(said.contains(&format!("tollgate: {place}")), "{place}: {said}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("nonsense = 1\n", "").replace("token_keys_file", "# token_keys_file");
    files.write("tollgate.toml", &text);
    let said = check(&["--config", &file, "--output", "json"]);
    assert_eq!(said.status.code(), Some(64));
    let said: Value = parsed(&said.stdout);
    assert_eq!(said["valid"], false);
    let problem = |n: usize| said["problems"][n].clone();
    assert_eq!(problem(0)["place"], format!("{file} line 3: identities_file"), "{said:#}");
    let message = problem(0)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("line 3: unknown variant `king`"), "{said:#}");
    assert_eq!(problem(1)["place"], format!("{file} line 4: tls_cert"), "{said:#}");
    assert_eq!(problem(2), Value::Null);
    let none = check(&["--config", "/does/not/exist"]).failed(64);
    assert!(none.starts_with("tollgate: /does/not/exist: cannot be read"), "{none}");
}

/// How many lines of the log say this.
fn told(sidecar: &Sidecar, text: &str) -> usize {
    sidecar.log().lines().filter(|line| line.contains(text)).count()
}

fn figure(sidecar: &Sidecar, series: &str) -> String {
    let page = get(sidecar.http, "/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_limits_change_while_calls_run_and_bad_settings_change_nothing() {
    let redis = RedisServer::started();
    let files = Files::default();
    let usual = "log_decisions = 1\nreload_interval = \"100ms\"\nledger_timeout = \"10s\"\n";
    let file = files.write("tollgate.toml", usual);
    let sidecar = Sidecar::ready(&["--config", &file, "--ledger", &redis.url()]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    let mut other = sidecar.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    wait_until("the decision is told", || told(&sidecar, "\"ALLOWED\""), |lines| *lines == 1);

    // What is wrong is told, with its line, and nothing of that file is taken.
    files.write("tollgate.toml", &format!("{usual}log_filter = \"error\"\ngraze = 1\n"));
    let bad = "line 5: graze: unknown key";
    wait_until("the mistake is told", || told(&sidecar, bad), |lines| *lines > 0);
    let failed = "tollgate_reload_failed{what=\"settings\"}";
    assert_eq!(figure(&sidecar, failed), "1");
    calls.authorize_call(authorize("b", "alice", "+12065550100")).await.unwrap();
    wait_until("told as before", || told(&sidecar, "\"ALLOWED\""), |lines| *lines == 2);

    // What cannot change in a running server is named.
    files.write("tollgate.toml", &format!("{usual}log_filter = \"warn\"\ngrace = \"30s\"\n"));
    let later = || told(&sidecar, "need a restart");
    wait_until("the restart is told", later, |lines| *lines == 1);
    assert_eq!(told(&sidecar, "\"settings\":\"grace\""), 1, "{}", sidecar.log());
    assert_eq!(figure(&sidecar, failed), "0");
    calls.authorize_call(authorize("c", "alice", "+12065550100")).await.unwrap();
    calls.settle_call(settle("c", 5)).await.unwrap();
    assert_eq!(told(&sidecar, "\"ALLOWED\""), 2, "{}", sidecar.log());

    // The limit of all requests: the second finds the first inside, waiting for a Redis that hangs.
    files.write("tollgate.toml", &format!("{usual}max_requests_in_flight = 1\n"));
    let limited = "\"changed\":\"max_requests_in_flight, log_filter\"";
    wait_until("reloaded", || told(&sidecar, limited), |lines| *lines == 1);
    redis.signal("STOP");
    let waits =
        tokio::spawn(
            async move { calls.authorize_call(authorize("d", "alice", "+12065550100")).await },
        );
    let inside = "tollgate_rpc_in_flight{rpc=\"AuthorizeCall\"}";
    wait_until("the first is inside", || figure(&sidecar, inside), |count| count == "1");
    let shed = other.settle_call(settle("e", 5)).await.expect_err("there is no room");
    assert_eq!(shed.code(), Code::ResourceExhausted, "{shed}");
    redis.signal("CONT");
    waits.await.unwrap().expect("it was inside");

    // Asked by a signal, it looks at once, and says so where nothing has changed too.
    files.write("tollgate.toml", &usual.replace("100ms", "24h"));
    let wide = "\"changed\":\"max_requests_in_flight, reload_interval\"";
    wait_until("reloaded", || told(&sidecar, wide), |lines| *lines == 1);
    files.write("tollgate.toml", &usual.replace("log_decisions = 1", "log_decisions = 0"));
    sidecar.signal("HUP");
    wait_until("asked", || told(&sidecar, "\"changed\":\"reload_interval, log_d"), |l| *l == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_grants_and_the_largest_message_change_while_calls_run() {
    const K1: &str = "k1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    const K2: &str = "k2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n";
    let files = Files::default();
    let keys = files.write("keys", K1);
    let usual = format!("reload_interval = \"100ms\"\ntoken_keys_file = {keys:?}\n");
    let file = files.write("tollgate.toml", &usual);
    let sidecar = Sidecar::ready(&["--config", &file]);
    sidecar.set_up(&organisation());
    let calls = sidecar.calls().await;
    let signer = async |call: &str| {
        let asked = calls.clone().authorize_call(authorize(call, "alice", "+12065550100")).await;
        let token = asked.unwrap().into_inner().grant.unwrap().token;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).unwrap();
        // Behind the version, the length of its name, and its name.
        String::from_utf8(bytes[2..][..usize::from(bytes[1])].to_vec()).unwrap()
    };
    assert_eq!(signer("a").await, "k1");
    // Keys that cannot be used change nothing, and are not printed.
    files.write("keys", "k3 c2hvcnQ=\n");
    let failed = "tollgate_reload_failed{what=\"settings\"}";
    wait_until("told", || figure(&sidecar, failed), |figure| figure == "1");
    assert!(!sidecar.log().contains("c2hvcnQ"), "{}", sidecar.log());
    assert_eq!(signer("b").await, "k1");
    files.write("keys", &format!("{K2}{K1}"));
    let signed = "grants are signed by the first";
    wait_until("taken over", || told(&sidecar, signed), |lines| *lines == 1);
    assert_eq!(signer("c").await, "k2");
    files.write("tollgate.toml", &usual.replace("token_keys_file", "# token_keys_file"));
    wait_until("none", || told(&sidecar, signed), |lines| *lines == 2);
    let unsigned = calls.clone().authorize_call(authorize("d", "alice", "+12065550100")).await;
    assert_eq!(unsigned.unwrap().into_inner().grant.unwrap().token, "");

    // A message of 5 KiB is read, as far as what is in it may be; then it is too large.
    let large = async || {
        let mut request = settle("a", 5);
        request.call_id = "x".repeat(5000);
        calls.clone().settle_call(request).await.expect_err("no such call").code()
    };
    assert_eq!(large().await, Code::InvalidArgument);
    let path = "/v1/tenants/contoso/calls/a:settle";
    let body = format!("{{\"usedDuration\":\"5s\",\"sipCallId\":\"{}\"}}", "x".repeat(5000));
    let json = || http(sidecar.calls, "POST", path, "Content-Type: application/json", &body).0;
    assert!(json().starts_with("HTTP/1.1 400"), "{}", json());
    files.write("tollgate.toml", &format!("{usual}max_message_size = \"4KiB\"\n"));
    let smaller = "\"changed\":\"max_message_size, token_keys_file\"";
    wait_until("smaller", || told(&sidecar, smaller), |lines| *lines == 1);
    assert_eq!(large().await, Code::OutOfRange);
    assert!(json().starts_with("HTTP/1.1 413"), "{}", json());
    assert_eq!(told(&sidecar, "need a restart"), 0, "{}", sidecar.log());
}

#[test]
fn addresses_of_sentinels_and_clusters_are_checked_and_asked_on_demand() {
    let files = Files::default();
    for bad in [
        "redis+sentinel://one:1",
        "redis+sentinel://me:hidden@one:1/main?password=hidden",
        "redis+cluster://one:1/2",
        "redis+cluster://",
    ] {
        let file = files.write("tollgate.toml", &format!("ledger = {bad:?}\n"));
        let said = check(&["--config", &file]).failed(64);
        assert!(said.contains(&format!("{file} line 1: ledger: expected")), "{bad}: {said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    // Nobody is asked unless that is wanted.
    let sentinels = "redis+sentinel://me:hidden@127.0.0.1:1,127.0.0.1:2/main?replicas=1";
    check(&["--ledger", sentinels]).succeeded();
    for away in [sentinels, "redis+cluster://:hidden@127.0.0.1:1", "redis://:hidden@127.0.0.1:1"] {
        let said = check(&["--ledger", away, "--ask-ledger"]).failed(1);
        assert!(said.contains("ledger: redis") && said.contains("does not answer"), "{said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    let redis = RedisServer::started();
    check(&["--ledger", &redis.url(), "--ask-ledger"]).succeeded();
    check(&["--ledger", "memory", "--ask-ledger"]).succeeded();
}

#[test]
fn colours_and_progress_are_for_terminals_alone() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    // `script` lets a command believe that it has a terminal.
    let on_terminal = |command: &str| {
        let mut script = std::process::Command::new("script");
        let program = tollgate().get_program().to_string_lossy().into_owned();
        script.args(["-q", "-c", &format!("{program} {command}"), "/dev/null"]);
        script.env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{}", server.administration));
        script.stdin(std::process::Stdio::null());
        run(script).stdout
    };
    let audit = on_terminal("audit");
    assert!(audit.contains("auditing") && audit.contains("clean: 1 tenant"), "{audit:?}");
    let piped = server.client(&["audit"]);
    assert!(!piped.stderr.contains("auditing") && !piped.stderr.contains('\x1b'), "{piped:?}");
    assert!(!piped.succeeded().contains('\x1b'));
    // Results have no colours on a terminal either.
    let balance = on_terminal("balance --tenant contoso");
    assert!(balance.contains("AVAILABLE") && !balance.contains('\x1b'), "{balance:?}");
    // A server that ends at once, after its first lines of the log.
    let ports = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0";
    let away = "--require-ledger-at-start true --ledger redis://127.0.0.1:1 --ledger-timeout 1s";
    let command = format!("serve {ports} {away} --log-format text");
    let log = on_terminal(&command);
    assert!(log.contains("grants are not signed") && log.contains("\x1b["), "{log:?}");
    let mut serve = tollgate();
    serve.args(command.split(' '));
    let log = run(serve).stderr;
    assert!(log.contains("grants are not signed") && !log.contains('\x1b'), "{log:?}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let said = |arguments: &[&str]| {
        let mut command = tollgate();
        command.args(arguments);
        run(command).succeeded()
    };
    for (shell, begins) in [("bash", "_tollgate()"), ("zsh", "#compdef tollgate"), ("fish", "#")] {
        let script = said(&["completions", shell]);
        assert!(script.starts_with(begins), "{shell}");
        for word in ["authorize", "check-config", "identities-file", "blocked"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(said(&["man"]).contains(".TH tollgate 1"));
    let files = Files::default();
    said(&["man", "--directory", &files.path("man")]);
    for page in ["tollgate.1", "tollgate-serve.1", "tollgate-calls-show.1"] {
        let path = std::path::PathBuf::from(files.path("man")).join(page);
        assert!(std::fs::read_to_string(&path).is_ok_and(|text| text.contains(".TH")), "{page}");
    }
}

#[test]
fn open_calls_are_listed_again_and_again_and_a_reader_who_goes_ends_it() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let call = ["--tenant", "contoso", "--payer", "alice", "--called", "+12065550100"];
    server.client(&[&["authorize", "--call-id", "watched"][..], &call].concat()).succeeded();
    let mut watch = tollgate();
    watch.args(["calls", "--tenant", "contoso", "--watch", "200ms", "--output", "json"]);
    watch.env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{}", server.administration));
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = parsed(&lines.next().unwrap().unwrap());
        assert_eq!(line["calls"][0]["callId"], "watched", "{line}");
    }
    drop(lines);
    assert!(child.wait().unwrap().success());
    let mut watch = tollgate();
    watch.args(["calls", "--tenant", "contoso", "--watch", "1ms"]);
    assert!(run(watch).failed(64).contains("at least 200ms"));
}
