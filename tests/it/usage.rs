//! The usage export: through gRPC, through the program, and in bounded memory.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use prost_types::Timestamp;
use tollgate::config::Listen;
use tollgate::proto::v1::{
    AuthorizeCallRequest, CallOrigin, CallType, Decision, ExportUsageRequest, ReleaseCallRequest,
    ReportAnswerRequest, SettleCallRequest, UsageRecord,
};
use tollgate::records::COLUMNS;
use tonic::Code;
use tonic_types::StatusExt;

use crate::server::{DECK, Server, organisation};
use crate::support::redis::RedisServer;

const DAY: i64 = 86_400;

/// Seconds since 1970 by this machine, which the ledgers here go by.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn timestamp(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn length(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn authorize(call: &str, payer: &str, called: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        calling_number: "+14255550100".to_owned(),
        called_number: called.to_owned(),
        ..AuthorizeCallRequest::default()
    }
}

fn settle(call: &str, used: i64) -> SettleCallRequest {
    SettleCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        used_duration: length(used),
        ..SettleCallRequest::default()
    }
}

/// From a day ago to a day ahead, whatever the month is.
fn window() -> ExportUsageRequest {
    ExportUsageRequest {
        tenant_id: "contoso".to_owned(),
        from: timestamp(now() - DAY),
        to: timestamp(now() + DAY),
    }
}

async fn exported(server: &Server, request: ExportUsageRequest) -> Vec<UsageRecord> {
    let mut stream = server.account().await.export_usage(request).await.unwrap().into_inner();
    let mut records = vec![];
    while let Some(message) = stream.message().await.unwrap() {
        records.push(message.record.unwrap());
    }
    records
}

/// Runs the program against a server, apart from the tests' own tasks.
pub async fn tollgate(server: &Server, arguments: &[&str]) -> Output {
    let Listen::Tcp(address) = server.running.addresses().administration.clone() else {
        panic!("expected a TCP listener")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{address}"));
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A settled call of each source, one that expired and was settled late, one that was never answered, a
/// refusal and an emergency.
pub async fn a_day(server: &Server) {
    let mut calls = server.calls().await;
    let transfer = AuthorizeCallRequest {
        origin: CallOrigin::Transfer.into(),
        ..authorize("minutes", "alice", "+12065550142")
    };
    calls.authorize_call(transfer).await.unwrap();
    calls.settle_call(settle("minutes", 61)).await.unwrap();
    calls.authorize_call(authorize("credits", "carol", "+33123456789")).await.unwrap();
    let ended = SettleCallRequest {
        answered_at: timestamp(1_790_000_000),
        ended_at: timestamp(1_790_000_090),
        ..settle("credits", 90)
    };
    calls.settle_call(ended).await.unwrap();
    calls.authorize_call(authorize("refused", "dave", "+33123456789")).await.unwrap();
    calls.authorize_call(authorize("unanswered", "alice", "+12065550142")).await.unwrap();
    let release = ReleaseCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "unanswered".to_owned(),
        ..ReleaseCallRequest::default()
    };
    calls.release_call(release).await.unwrap();

    let lost =
        AuthorizeCallRequest { reports_answer: true, ..authorize("lost", "carol", "+33123456789") };
    calls.authorize_call(lost).await.unwrap();
    let answered = ReportAnswerRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "lost".to_owned(),
        ..ReportAnswerRequest::default()
    };
    calls.report_answer(answered).await.unwrap();
    server.clock.advance(tollgate::charging::units::Seconds(3_600));
    let patience = Instant::now() + Duration::from_secs(10);
    while exported(server, window()).await.len() < 4 {
        assert!(Instant::now() < patience, "the call did not expire");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls.settle_call(settle("lost", 61)).await.unwrap();
    calls.authorize_call(authorize("emergency", "alice", "911")).await.unwrap();
    // Its record reaches the ledger a little later, before which the call is not known there.
    while calls.settle_call(settle("emergency", 30)).await.unwrap().into_inner().result != 1 {
        assert!(Instant::now() < patience, "the emergency call is not known");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_settled_leg_and_every_refusal_is_a_record() {
    let server = Server::start().await;
    a_day(&server).await;
    let records = exported(&server, window()).await;
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let fee = record.connection_fee.as_ref().unwrap().amount.as_str();
            let charge = record.charge.as_ref().unwrap().amount.as_str();
            let seconds = record.duration.unwrap().seconds;
            (record.call_id.as_str(), record.call_type.as_str(), seconds, fee, charge)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("minutes", "user_out_transfer", 61, "0", "0"),
            ("credits", "user_out", 90, "0.05", "0.25"),
            ("refused", "user_out", 0, "0", "0"),
            ("lost", "user_out", 1, "0.05", "0.15"),
            ("lost", "user_out", 60, "0", "0.1"),
            ("emergency", "user_out", 30, "0", "0"),
        ]
    );
    let paid_by: Vec<_> = records.iter().map(|record| record.capability.as_str()).collect();
    assert_eq!(paid_by, ["MCOPSTN1", "MCOPSTNPP", "", "MCOPSTNPP", "MCOPSTNPP", "MCOEV"]);
    assert_eq!(records[2].decision(), Decision::NotEntitled);
    let ids: HashSet<_> = records.iter().map(|record| &record.usage_id).collect();
    assert_eq!(ids.len(), 6);
    let credits = &records[1];
    let times = (credits.start_time, credits.end_time);
    assert_eq!(times, (timestamp(1_790_000_000), timestamp(1_790_000_090)));
    assert_eq!((credits.currency.as_str(), credits.user_location.as_str()), ("USD", "US"));
    assert_eq!(credits.destination_dialed, "France");

    // The same in every export, also where a part of a call lies before the window.
    let late = &records[4];
    let from = late.end_time;
    let again = exported(&server, ExportUsageRequest { from, ..window() }).await;
    assert_eq!(again, records[4..]);
    let to = records[3].end_time.map(|at| Timestamp { nanos: 0, ..at });
    let earlier = exported(&server, ExportUsageRequest { to, ..window() }).await;
    assert_eq!(earlier, records[..3]);
}

#[tokio::test]
async fn a_window_that_cannot_be_is_refused() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let long_ago = ExportUsageRequest { from: timestamp(now() - 367 * DAY), ..window() };
    let status = account.export_usage(long_ago).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let wrong = status.get_details_bad_request().unwrap().field_violations;
    assert!(wrong[0].field == "from" && wrong[0].description.contains("12 months"), "{wrong:?}");
    let turned = ExportUsageRequest { to: timestamp(now() - 2 * DAY), ..window() };
    let status = account.export_usage(turned).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "to");
    let unknown = ExportUsageRequest { tenant_id: "nobody".to_owned(), ..window() };
    assert_eq!(account.export_usage(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        exported(&server, ExportUsageRequest { from: None, to: None, ..window() }).await,
        []
    );

    let output =
        tollgate(&server, &["usage", "--tenant", "contoso", "--from", "2020-01-01T00:00:00Z"]);
    let output = output.await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("from: expected an instant of the last 12 months"), "{said}");
}

#[tokio::test]
async fn the_program_writes_every_form() {
    let server = Server::start().await;
    a_day(&server).await;
    let records = exported(&server, window()).await;
    let instant = |at: Option<Timestamp>| {
        jiff::Timestamp::from_second(at.unwrap().seconds).unwrap().to_string()
    };
    let (from, to) = (instant(window().from), instant(window().to));
    let usage = |more: &[&str]| {
        let these = ["usage", "--tenant", "contoso", "--from", &from, "--to", &to];
        these.iter().chain(more).map(|s| (*s).to_owned()).collect::<Vec<_>>()
    };
    let run = |more: Vec<String>| {
        let server = &server;
        async move {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            text(&tollgate(server, &more).await)
        }
    };

    let csv = run(usage(&["--format", "csv"])).await;
    assert_eq!(csv.matches("\r\n").count(), 7);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), COLUMNS);
    let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
    for (row, record) in rows.iter().zip(&records) {
        assert_eq!((&row[0], &row[19]), (record.usage_id.as_str(), record.capability.as_str()));
        assert_eq!(
            (&row[13], &row[14]),
            (&*instant(record.start_time), &*instant(record.end_time))
        );
    }
    assert_eq!((rows.len(), &rows[1][15], &rows[1][16], &rows[1][17]), (6, "90", "0.05", "0.25"));

    let json = run(usage(&["--output", "json"])).await;
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[2]["record"]["decision"]),
        (6, &"DECISION_NOT_ENTITLED".into())
    );

    let table = run(usage(&[])).await;
    assert!(table.lines().count() == 7 && table.contains("user_out_transfer"), "{table}");

    let folder = tempfile::tempdir().unwrap();
    for (name, begins_with) in [("usage.csv", &b"UsageId,"[..]), ("usage.xlsx", b"PK")] {
        let path = folder.path().join(name);
        let said = run(usage(&["--output-file", path.to_str().unwrap()])).await;
        assert_eq!(said, format!("6 records in {}\n", path.display()));
        assert!(std::fs::read(&path).unwrap().starts_with(begins_with), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
}

#[tokio::test]
async fn a_fifth_export_waits_for_one_of_four_to_end() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    // More than what travels ahead of a client that does not read.
    for call in 0..2_000 {
        calls
            .authorize_call(authorize(&format!("c-{call}"), "dave", "+33123456789"))
            .await
            .unwrap();
    }
    let mut slow = vec![];
    for _ in 0..4 {
        slow.push(server.account().await.export_usage(window()).await.unwrap());
    }
    let mut account = server.account().await;
    let status = account.export_usage(window()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // A client that leaves makes room.
    slow.pop();
    let patience = Instant::now() + Duration::from_secs(10);
    while account.export_usage(window()).await.is_err() {
        assert!(Instant::now() < patience, "the export of a client that left goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(slow);
    assert_eq!(exported(&server, window()).await.len(), 2_000);
}

/// The program as a server of its own, on sockets in a folder.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of a running process's `/proc/PID/status`, in KiB.
fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()
}

fn on_sockets(folder: &Path, arguments: &[&str]) -> Command {
    let socket = |name: &str| format!("unix:{}", folder.join(name).display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments);
    for (variable, name) in
        [("LISTEN", "calls"), ("ADMIN_LISTEN", "admin"), ("HTTP_LISTEN", "http")]
    {
        command.env(format!("TOLLGATE_{variable}"), socket(name));
    }
    command.env("TOLLGATE_ENDPOINT", socket("calls"));
    command.env("TOLLGATE_ADMIN_ENDPOINT", socket("admin"));
    command
}

#[test]
fn two_hundred_thousand_records_need_no_more_memory_than_a_few() {
    const RECORDS: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::started();
    let serve = on_sockets(folder.path(), &["serve", "--ledger", &redis.url()])
        .stderr(Stdio::null())
        .spawn();
    let server = Process(serve.unwrap());
    let run = |arguments: &[&str]| on_sockets(folder.path(), arguments).output().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (deck, organisation) = (file("deck.csv", DECK), file("org.yaml", &organisation()));
    let patience = Instant::now() + Duration::from_secs(20);
    while !run(&["rates", "activate", &deck]).status.success() {
        assert!(Instant::now() < patience, "the server does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    text(&run(&["apply", "-f", &organisation]));
    let leg = ["--tenant", "contoso", "--call-id", "leg"];
    let call = ["--payer", "carol", "--called", "+33123456789"];
    text(&run(&[&["authorize"][..], &leg, &call].concat()));
    text(&run(&[&["settle"][..], &leg, &["--used", "61s"]].concat()));
    // The last entry, again and again, is as long a journal as any.
    let copied = redis::Script::new(
        "local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2]
         for _ = 2, ARGV[1] do redis.call('XADD', KEYS[1], '*', unpack(last)) end
         return redis.call('XLEN', KEYS[1])",
    )
    .key("tg:{contoso}:journal")
    .arg(RECORDS)
    .invoke::<usize>(&mut redis.client().get_connection().unwrap());
    assert!(copied.unwrap() > RECORDS);

    // The highest so far was reached while the deck and the organisation were read: count anew.
    std::fs::write(format!("/proc/{}/clear_refs", server.0.id()), "5").unwrap();
    let before = memory(server.0.id(), "VmRSS").unwrap();
    let yesterday = jiff::Timestamp::from_second(now() - DAY).unwrap().to_string();
    for name in ["usage.csv", "usage.xlsx"] {
        let path = folder.path().join(name);
        let began = Instant::now();
        let window = ["usage", "--tenant", "contoso", "--from", &yesterday];
        let arguments = [&window[..], &["--output-file", path.to_str().unwrap()]].concat();
        let mut client =
            on_sockets(folder.path(), &arguments).stdout(Stdio::null()).spawn().unwrap();
        let mut most = 0;
        let status = loop {
            most = most.max(memory(client.id(), "VmHWM").unwrap_or_default());
            match client.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(status.success(), "{name}: {status}");
        let length = std::fs::metadata(&path).unwrap().len() >> 10;
        println!(
            "{name}: {RECORDS} records, {length} KiB in {:?}, client {most} KiB",
            began.elapsed()
        );
        assert!(most < 96 << 10, "{name}: the client needed {most} KiB");
    }
    let after = memory(server.0.id(), "VmHWM").unwrap();
    println!("server {before} KiB before, {after} KiB at most");
    assert!(after < before + (48 << 10), "the server grew from {before} KiB to {after} KiB");

    let csv = std::fs::File::open(folder.path().join("usage.csv")).unwrap();
    let mut ids = HashSet::new();
    for row in csv::Reader::from_reader(csv).into_records() {
        assert!(ids.insert(row.unwrap()[0].to_owned()), "a usage id occurs twice");
    }
    assert_eq!(ids.len(), RECORDS);
}
