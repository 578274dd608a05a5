//! What Prometheus is told by the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use serde_json::Value;
use tollgate::config::Listen;
use tollgate::proto::v1::AuthorizeCallRequest;
use tonic::Code;

use crate::server::{channel, organisation};
use crate::support::messages::{authorize, extend, settle};
use crate::support::process::{Files, PATIENCE, Sidecar, run, wait_until};
use crate::support::redis::RedisServer;

/// A scrape: series with their values, as they are written, and the types of the families.
#[derive(Debug)]
struct Scrape {
    series: BTreeMap<String, String>,
    types: BTreeMap<String, String>,
    text: String,
}

/// What an HTTP server answers: head and body.
pub fn get(address: SocketAddr, path: &str) -> (String, String) {
    http(address, "GET", path, "Accept: */*", "")
}

/// The same of any method, with a line of headers and a body.
pub fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn scrape(sidecar: &Sidecar) -> Scrape {
    let (head, text) = get(sidecar.http, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let mut scrape = Scrape { series: BTreeMap::new(), types: BTreeMap::new(), text };
    assert!(scrape.text.ends_with("# EOF\n"), "{}", scrape.text);
    for line in scrape.text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(line) => {
                let (name, kind) = line.split_once(' ').expect("a type");
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is told twice");
            }
            None if line.starts_with('#') => {}
            None => {
                let line = line.split(" # ").next().unwrap();
                let (series, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let before = scrape.series.insert(series.to_owned(), value.to_owned());
                assert_eq!(before, None, "{series} is told twice");
            }
        }
    }
    scrape
}

impl Scrape {
    /// The sum of the series of that name that have all of these labels, such as `code="OK"`.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |series: &&String| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| rest.contains(label))
        };
        let found = self.series.iter().filter(|(series, _)| of(series));
        found.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// The names that Prometheus stores: `_total` of a counter, the parts of a histogram.
    fn names(&self) -> BTreeSet<String> {
        let named = |series: &String| series.split('{').next().unwrap().to_owned();
        self.series.keys().map(named).collect()
    }

    /// What documents call them: of a histogram the name without its parts.
    fn families(&self) -> BTreeSet<String> {
        let family = |(name, kind): (&String, &String)| match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        self.types.iter().map(family).collect()
    }
}

/// One with an organisation on Redis, which looks at holds and funds all the time.
fn sidecar(redis: &RedisServer, flags: &[&str]) -> Sidecar {
    let url = redis.url();
    let all = [&["--ledger", &url, "--ledger-timeout", "10s", "--metrics-survey", "20ms"], flags];
    let sidecar = Sidecar::ready(&all.concat());
    sidecar.set_up(&organisation());
    sidecar
}

#[tokio::test]
async fn figures_move_as_calls_do() {
    let redis = RedisServer::started();
    let sidecar = sidecar(&redis, &["--metrics-tenants", "1"]);
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    calls.authorize_call(authorize("b", "dave", "+12065550100")).await.unwrap();
    calls.authorize_call(authorize("c", "carol", "+12065550100")).await.unwrap();
    calls.extend_call(extend("a", 10, 1)).await.unwrap();
    let unknown = calls.extend_call(extend("nobody", 5, 1)).await.expect_err("nobody knows it");
    assert_eq!(unknown.code(), Code::NotFound);

    // Alice's call: 10 s used and 300 s more, in whole minutes.
    let pool_held = |s: &Scrape| s.sum("tollgate_pool_held_seconds", &["tenant=\"contoso\""]);
    let is_held = |s: &Scrape| s.sum("tollgate_open_holds", &[]) == 2.0 && pool_held(s) == 360.0;
    let now = wait_until("two holds are told", || scrape(&sidecar), is_held);
    let requests = |rpc: &str, code: &str| {
        let labels = [&*format!("rpc=\"{rpc}\""), &*format!("code=\"{code}\"")];
        now.sum("tollgate_rpc_requests_total", &labels)
    };
    assert_eq!(requests("AuthorizeCall", "OK"), 4.0, "{}", now.text);
    assert_eq!(requests("ExtendCall", "OK"), 1.0);
    assert_eq!((requests("ExtendCall", "NOT_FOUND"), requests("SettleCall", "OK")), (1.0, 0.0));
    let of_authorize = ["rpc=\"AuthorizeCall\""];
    assert_eq!(now.sum("tollgate_rpc_duration_seconds_count", &of_authorize), 4.0);
    assert_eq!(now.sum("tollgate_rpc_in_flight", &of_authorize), 0.0);
    let decided = |decision: &str| {
        let labels = [
            &*format!("decision=\"{decision}\""),
            "rpc=\"AuthorizeCall\"",
            "call_type=\"USER_OUTBOUND\"",
        ];
        now.sum("tollgate_decisions_total", &labels)
    };
    assert_eq!((decided("ALLOWED"), decided("NOT_ENTITLED")), (2.0, 1.0), "{}", now.text);
    assert_eq!(now.sum("tollgate_decisions_total", &["class=\"DOMESTIC\"", "rpc=\"Auth"]), 2.0);
    assert_eq!(now.sum("tollgate_decisions_replayed_total", &of_authorize), 1.0);
    let asked =
        now.sum("tollgate_ledger_command_duration_seconds_count", &["command=\"authorize\""]);
    // One more where the survey read the tenant before it was set up whole.
    assert!([4.0, 5.0].contains(&asked), "{asked}");
    // All of these one by one, and none of them ends a call.
    let ran = |command: &str| {
        let labels = [&*format!("command=\"{command}\"")];
        now.sum("tollgate_ledger_run_commands_sum", &labels)
    };
    let of_calls = ["authorize", "answer", "extend"].map(|command| {
        let labels = [&*format!("command=\"{command}\"")];
        now.sum("tollgate_ledger_command_duration_seconds_count", &labels)
    });
    assert_eq!((ran("calls"), ran("ends")), (of_calls.iter().sum(), 0.0), "{}", now.text);
    assert_eq!(now.sum("tollgate_ledger_errors_total", &[]), 0.0);
    assert_eq!(now.sum("tollgate_ledger_up", &[]), 1.0);
    assert_eq!(now.sum("tollgate_ready", &[]), 1.0);
    assert!(
        now.sum("tollgate_directory_lookups_total", &["result=\"hit\"", "entry=\"payer\""]) > 0.0
    );
    // Carol's call of five minutes: a fee of 0.05 and 0.10 a minute, of 10 USD.
    let of_contoso = ["tenant=\"contoso\"", "currency=\"USD\""];
    assert_eq!(now.sum("tollgate_money_held", &of_contoso), 0.55);
    assert_eq!(now.sum("tollgate_money_available", &of_contoso), 9.45);
    assert_eq!(now.sum("tollgate_sweeper_lag_seconds", &[]), 0.0);

    calls.settle_call(settle("a", 15)).await.unwrap();
    calls.settle_call(settle("a", 15)).await.unwrap();
    calls.settle_call(settle("c", 3000)).await.unwrap();
    let none = |s: &Scrape| s.sum("tollgate_open_holds", &[]) == 0.0;
    let then = wait_until("no hold is told", || scrape(&sidecar), none);
    assert_eq!(then.sum("tollgate_settles_total", &["result=\"SETTLED\""]), 2.0);
    assert_eq!(
        then.sum("tollgate_rpc_requests_total", &["rpc=\"SettleCall\"", "code=\"OK\""]),
        3.0
    );
    for (series, value) in &now.series {
        let counts = series.contains("_total") || series.contains("_bucket");
        let later = then.series[series].parse::<f64>().unwrap();
        assert!(!counts || later >= value.parse().unwrap(), "{series} went back");
    }
}

#[tokio::test]
async fn nobody_makes_series_by_what_he_sends() {
    let sidecar = Sidecar::ready(&["--metrics-survey", "20ms"]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    let hostile = |n: usize| AuthorizeCallRequest {
        tenant_id: format!("tenant-{n}"),
        call_type: i32::try_from(n).unwrap(),
        ..authorize(&format!("h{n}"), &format!("payer-{n}"), &format!("+1206555{n:04}"))
    };
    let mut ask = async |from: usize| {
        for n in from..from + 20 {
            // Refused one way or the other.
            let _ = calls.authorize_call(hostile(n)).await;
            let channel = channel(&Listen::Tcp(sidecar.calls)).await;
            let mut any = tonic::client::Grpc::new(channel);
            any.ready().await.unwrap();
            let path = format!("/tollgate.v1.CallAuthorizationService/Method{n}");
            let codec = tollgate::proto::codec::StrictCodec::<
                AuthorizeCallRequest,
                AuthorizeCallRequest,
            >::default();
            let asked = tonic::Request::new(hostile(n));
            let refused = any.unary(asked, path.parse().unwrap(), codec).await;
            assert_eq!(refused.expect_err("there is no such method").code(), Code::Unimplemented);
            get(sidecar.http, &format!("/path-{n}"));
        }
    };
    ask(0).await;
    let names = |s: &Scrape| s.series.keys().cloned().collect::<BTreeSet<_>>();
    let before = names(&scrape(&sidecar));
    ask(100).await;
    let after = scrape(&sidecar);
    assert_eq!(names(&after).difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(after.sum("tollgate_rpc_requests_total", &["rpc=\"other\"", "UNIMPLEMENTED"]), 40.0);
    assert!(!after.text.contains("tenant-") && !after.text.contains("Method"), "{}", after.text);
    assert!(!after.text.contains("contoso"), "no tenant is named unless it is asked for");
}

#[tokio::test]
async fn a_ledger_that_is_away_shows() {
    let redis = RedisServer::started();
    let folder = Files::default();
    let journal = folder.path("journal");
    let sidecar = sidecar(&redis, &["--journal", &journal]);
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    redis.kill();
    calls.authorize_call(authorize("b", "alice", "+12065550100")).await.unwrap();
    calls.settle_call(settle("a", 5)).await.unwrap();
    let is_down = |s: &Scrape| s.sum("tollgate_ledger_up", &[]) == 0.0;
    let now = wait_until("the ledger is told as down", || scrape(&sidecar), is_down);
    assert_eq!(now.sum("tollgate_ready", &[]), 1.0, "it is ready all the same");
    let unavailable = ["decision=\"LEDGER_UNAVAILABLE\"", "rpc=\"AuthorizeCall\""];
    assert_eq!(now.sum("tollgate_decisions_total", &unavailable), 1.0, "{}", now.text);
    assert_eq!(now.sum("tollgate_decisions_without_ledger_total", &["refused"]), 1.0);
    assert!(now.sum("tollgate_ledger_errors_total", &["command=\"authorize\""]) >= 1.0);
    assert_eq!(now.sum("tollgate_settles_total", &["result=\"ACCEPTED\""]), 1.0);
    assert_eq!(now.sum("tollgate_journal_enabled", &[]), 1.0);
    assert_eq!(now.sum("tollgate_journal_todo_entries", &[]), 1.0);
    assert!(now.sum("tollgate_journal_bytes", &[]) > 0.0);
    assert!(now.sum("tollgate_journal_appended_total", &[]) >= 1.0);
}

/// Debian's server, which ends with this value.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_prometheus_reads_it() {
    let sidecar = Sidecar::ready(&["--metrics-survey", "20ms"]);
    sidecar.set_up(&organisation());
    sidecar.calls().await.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    let files = Files::default();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/prometheus/tollgate.rules.yaml");
    let settings = format!(
        "global: {{ scrape_interval: 100ms }}\nrule_files: [{rules:?}]\nscrape_configs:\n\
         - {{ job_name: tollgate, static_configs: [{{ targets: ['{}'] }}] }}\n",
        sidecar.http
    );
    let settings = files.write("prometheus.yml", &settings);
    // Prometheus does not say which port the system chose: one that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Command::new("prometheus")
        .args([format!("--config.file={settings}"), format!("--web.listen-address={port}")])
        .arg(format!("--storage.tsdb.path={}", files.path("data")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is installed (make test installs it)");
    let _server = Prometheus(server);
    let answers = || TcpStream::connect(port).is_ok();
    wait_until("prometheus listens", answers, |up| *up);
    let query = "/api/v1/query?query=tollgate_rpc_requests_total%7Brpc%3D%22AuthorizeCall%22%7D";
    let ask = || {
        let (_, body) = get(port, query);
        let found: Value = serde_json::from_str(&body).unwrap_or_default();
        found["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    let value = wait_until("the counter is stored", ask, Option::is_some);
    assert_eq!(value.as_deref(), Some("1"));
    let (_, targets) = get(port, "/api/v1/targets");
    assert!(
        targets.contains("\"health\":\"up\"") && targets.contains("\"lastError\":\"\""),
        "{targets}"
    );
}

fn root(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every name of a figure in a text.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|w| w.starts_with("tollgate_")).map(str::to_owned).collect()
}

/// A program of which every figure has been told once.
async fn told() -> Scrape {
    let redis = RedisServer::started();
    let sidecar = sidecar(&redis, &[]);
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    wait_until("a survey", || scrape(&sidecar), |s| s.sum("tollgate_open_holds", &[]) == 1.0)
}

#[tokio::test]
async fn the_operations_page_and_the_program_name_the_same_figures() {
    let page = root("docs/OPERATIONS.md");
    let table = page.split_once("\n## Metrics\n").expect("a chapter").1;
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `tollgate_"));
    let rows: Vec<_> =
        rows.map(|row| format!("tollgate_{}", row.split('`').next().unwrap())).collect();
    let documented: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), documented.len(), "a figure has two rows");
    assert_eq!(documented, told().await.families());
}

#[tokio::test]
async fn the_dashboard_and_the_rules_name_figures_that_there_are() {
    let known = told().await.names();
    let dashboard = root("ops/grafana/tollgate.json");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    let mut shown = vec![];
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            shown.push(target["expr"].as_str().expect("an expression").to_owned());
        }
    }
    assert!(shown.len() > 10, "{shown:?}");
    let rules: Value = serde_saphyr::from_str(&root("ops/prometheus/tollgate.rules.yaml")).unwrap();
    let mut alerts = vec![];
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            alerts.extend(rule["alert"].as_str().map(str::to_owned));
            shown.push(rule["expr"].as_str().expect("an expression").to_owned());
        }
    }
    for expression in shown {
        let unknown: Vec<_> = named(&expression).difference(&known).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{expression}");
    }
    let page = root("docs/OPERATIONS.md");
    let chapter = page.split_once("\n## Alerts\n").expect("a chapter").1;
    let chapter = chapter.split("\n## ").next().unwrap();
    let documented = chapter.lines().filter_map(|line| line.strip_prefix("| `Tollgate"));
    let documented: Vec<_> =
        documented.map(|row| format!("Tollgate{}", row.split('`').next().unwrap())).collect();
    assert_eq!(documented, alerts, "the alerts in the order of the rules");
}

#[test]
fn the_alert_rules_are_sound_and_fire_when_they_should() {
    for arguments in [
        ["check", "rules", "ops/prometheus/tollgate.rules.yaml"],
        ["test", "rules", "ops/prometheus/tollgate.test.yaml"],
    ] {
        let mut promtool = Command::new("promtool");
        promtool.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
        let finished = run(promtool);
        assert!(finished.status.success(), "{finished:#?}");
    }
    assert_eq!(
        root("helm/tollgate/rules/tollgate.rules.yaml"),
        root("ops/prometheus/tollgate.rules.yaml"),
        "the chart brings the same rules: copy the second over the first"
    );
}

/// What a body could be is not asked for.
#[test]
fn the_page_of_figures_takes_no_body() {
    let sidecar = Sidecar::start(&["--metrics-survey", "0s"]);
    let (head, _) = get(sidecar.http, "/metrics?match=x");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut stream = TcpStream::connect(sidecar.http).unwrap();
    let body = Bytes::from_static(
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}
