//! `tollgate reconcile` as an operator runs it: somebody else's records against a running server.

use serde_json::Value;

use crate::server::{Server, organisation};
use crate::support::process::{Files, Finished, Sidecar};
use crate::usage::{a_day, tollgate};

const HEADER: &str = "call_id,sip_call_id,called,start_time,duration,charge,currency\n";

struct Desk {
    server: Sidecar,
    files: Files,
}

impl Desk {
    /// A server with a day of calls that the carrier knows too.
    fn open() -> Desk {
        let server = Sidecar::ready(&[]);
        server.set_up(&organisation());
        let desk = Desk { server, files: Files::default() };
        desk.call("a", "s-1@sbc", "carol", "+33123456789", 61);
        desk.call("b", "s-2@sbc", "alice", "+12065550142", 30);
        desk.call("c", "s-3@sbc", "carol", "+442079460958", 120);
        // Refused, and never answered.
        desk.authorize("r", "", "dave", "+33123456789");
        desk.authorize("n", "", "alice", "+12065550142");
        desk.ask(&["release", "--tenant", "contoso", "--call-id", "n"]);
        desk
    }

    fn ask(&self, arguments: &[&str]) {
        self.server.client(arguments).succeeded();
    }

    fn authorize(&self, call: &str, sip: &str, payer: &str, called: &str) {
        let these = ["--call-id", call, "--sip-call-id", sip, "--payer", payer, "--called", called];
        self.ask(&[&["authorize", "--tenant", "contoso"], &these[..]].concat());
    }

    fn call(&self, call: &str, sip: &str, payer: &str, called: &str, seconds: i64) {
        self.authorize(call, sip, payer, called);
        let (answered, ended) = (start(), start() + seconds);
        let at = |second| jiff::Timestamp::from_second(second).unwrap().to_string();
        let (answered, ended) = (at(answered), at(ended));
        let used = format!("{seconds}s");
        let times = ["--used", &used, "--answered-at", &answered, "--ended-at", &ended];
        self.ask(&[&["settle", "--tenant", "contoso", "--call-id", call], &times[..]].concat());
    }

    fn reconcile(&self, cdr: &str, more: &[&str]) -> Finished {
        let file = self.files.write("cdr.csv", cdr);
        let from = jiff::Timestamp::from_second(start() - 3600).unwrap().to_string();
        let to = jiff::Timestamp::from_second(start() + 3600).unwrap().to_string();
        let window = ["reconcile", "--tenant", "contoso", "--from", &from, "--to", &to, &file];
        self.server.client(&[&window[..], more].concat())
    }
}

/// The same for all tests of this process: an hour before they began.
fn start() -> i64 {
    static START: std::sync::LazyLock<i64> =
        std::sync::LazyLock::new(|| jiff::Timestamp::now().as_second() - 3600);
    *START
}

#[test]
fn records_that_agree_are_no_difference_by_whatever_they_are_matched() {
    let desk = Desk::open();
    let now = start();
    for (cdr, more) in [
        // By our call id, a sip call id, and a number as dialled.
        (
            format!(
                "{HEADER}a,,,{now},61,0.25,USD\n,s-2@sbc,,{now},31,,\n,,00442079460958,{now},120,0.25,\n"
            ),
            &[][..],
        ),
        (
            format!(
                "Call-ID;B party;Connect Time;billsec\ns-1@sbc;+33123456789;{now};61.2\n\
                 s-2@sbc;2065550142;{now};30\ns-3@sbc;+442079460958;{now};120\n"
            ),
            &["--delimiter", ";", "--sip-call-id-column", "Call-ID", "--called-column", "B party"],
        ),
    ] {
        let table = desk.reconcile(&cdr, more).succeeded();
        assert!(table.starts_with("nothing differs"), "{table}");
        assert!(
            table.contains("ours                3 calls, 211s") || table.contains("3 calls, 211s")
        );
        assert!(table.contains("charged: ours 0.5 USD"), "{table}");
        let report: Value = serde_json::from_str(
            &desk.reconcile(&cdr, &[more, &["--output", "json"]].concat()).succeeded(),
        )
        .unwrap();
        assert_eq!(report["differences"], Value::Array(vec![]), "{report:#}");
        assert_eq!(report["totals"]["matched"], 3, "{report:#}");
    }
}

#[test]
fn every_difference_is_listed_in_every_form() {
    let desk = Desk::open();
    let now = start();
    let cdr = format!(
        "{HEADER}a,,,{now},70,0.3,USD\nb,,,{now},30,,\nb,,,{now},30,,\nr,,,{now},600,,\n\
         x,,+882123456,{now},3600,90,USD\ny,,+33123456789,{now},0,,\n"
    );
    let table = desk.reconcile(&cdr, &[]);
    assert_eq!(table.status.code(), Some(1), "{table:#?}");
    for expected in [
        "only in theirs: calls that nobody asked us about: 1 call",
        "refused by us, and carried: 1 call",
        "only in ours: 1 call",
        "the duration differs: 1 call",
        "the charge differs: 1 call",
        "twice in theirs: 1 call",
        "4 as 3",
        "charged: ours 0.5 USD, theirs 90.3 USD",
    ] {
        assert!(table.stdout.contains(expected), "{expected}: {}", table.stdout);
    }

    let json = desk.reconcile(&cdr, &["--output", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let told: Vec<_> = report["differences"].as_array().unwrap().iter().collect();
    let told: Vec<_> = told
        .iter()
        .map(|of| (of["kind"].as_str().unwrap(), of["callId"].as_str().unwrap_or_default()))
        .collect();
    let expected = [
        ("ONLY_IN_THEIRS", "x"),
        ("REFUSED_BUT_CARRIED", "r"),
        ("ONLY_IN_OURS", "c"),
        ("DURATION_DIFFERS", "a"),
        ("CHARGE_DIFFERS", "a"),
        ("DUPLICATE_IN_THEIRS", "b"),
    ];
    assert_eq!(told, expected, "{report:#}");
    let duration = &report["differences"][3];
    assert_eq!(
        (&duration["ours"]["duration"], &duration["theirs"]["duration"], &duration["difference"]),
        (&"61s".into(), &"70s".into(), &"9s".into())
    );
    assert_eq!(report["differences"][4]["ours"]["charge"]["amount"], "0.25");
    assert_eq!(
        (&report["totals"]["matched"], &report["totals"]["unanswered"]),
        (&2.into(), &1.into())
    );

    let csv = desk.reconcile(&cdr, &["--format", "csv"]);
    assert_eq!(csv.status.code(), Some(1));
    let mut reader = csv::Reader::from_reader(csv.stdout.as_bytes());
    let kinds: Vec<String> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(kinds, expected.map(|(kind, _)| kind));
    assert!(csv.stderr.contains("matched"), "{}", csv.stderr);

    // As much apart as is allowed.
    let near = format!("{HEADER}a,,,{now},70,0.3,USD\nb,,,{now},30,,\nc,,,{now},120,,\n");
    let loose = ["--tolerance", "9s", "--charge-tolerance", "0.05"];
    assert!(desk.reconcile(&near, &loose).succeeded().starts_with("nothing differs"));
}

#[test]
fn what_cannot_be_compared_has_an_exit_code_of_its_own() {
    let desk = Desk::open();
    let now = start();
    let bad = format!("{HEADER}a,,,{now},61,,\nb,,,yesterday,30,,\nc,,,{now},-3,,\n");
    let said = desk.reconcile(&bad, &[]).failed(2);
    assert!(said.contains("cdr.csv: line 3, column start_time: expected an instant"), "{said}");
    assert!(said.contains("cdr.csv: line 4, column duration: expected seconds"), "{said}");
    assert!(said.contains("2 bad lines in all; nothing was compared"), "{said}");
    let said = desk.reconcile("who,when\n", &[]).failed(2);
    assert!(said.contains("line 1: expected a column with the start of the call"), "{said}");
    let said = desk.reconcile(&format!("{HEADER}a,,,{now},61,,\n"), &["--tenant", "nobody"]);
    assert_eq!(said.status.code(), Some(64), "--tenant twice: {said:#?}");
    let file = desk.files.write("one.csv", &format!("{HEADER}a,,,{now},61,,\n"));
    let said = desk.server.client(&["reconcile", "--tenant", "nobody", &file]).failed(2);
    assert!(said.contains("NOT_FOUND"), "{said}");
    let said = desk.server.client(&["reconcile", "--tenant", "contoso", "/no/such/file"]).failed(2);
    assert!(said.contains("/no/such/file"), "{said}");
    let nobody = ["--admin-endpoint", "http://127.0.0.1:1"];
    let said = desk.reconcile(&format!("{HEADER}a,,,{now},61,,\n"), &nobody).failed(2);
    assert!(said.contains("nothing listens"), "{said}");
}

#[test]
fn without_a_window_the_calls_around_theirs_are_compared() {
    let desk = Desk::open();
    let now = start();
    let run = |name: &str, calls: &str| {
        let file = desk.files.write(name, &format!("{HEADER}{calls}"));
        desk.server.client(&["reconcile", "--tenant", "contoso", &file]).succeeded()
    };
    let whole = run("cdr.csv", &format!("a,,,{now},61,,\nb,,,{now},30,,\nc,,,{now},120,,\n"));
    assert!(whole.starts_with("nothing differs") && whole.contains("3 calls, 211s"), "{whole}");
    // b and c began after the last of theirs.
    let earlier = now - 600;
    let part = run("early.csv", &format!("a,,,{earlier},61,,\n"));
    assert!(part.starts_with("nothing differs") && part.contains("1 call, 61s"), "{part}");
}

#[tokio::test]
async fn a_call_that_is_charged_late_is_one_call() {
    let server = Server::start().await;
    a_day(&server).await;
    // "lost" was charged when it expired, and the rest when it was settled.
    let now = jiff::Timestamp::now().as_second();
    let files = Files::default();
    let theirs = format!(
        "{HEADER}minutes,,,{now},61,,\ncredits,,,1790000000,90,0.25,\nlost,,,{now},61,0.25,USD\n\
         emergency,,,{now},30,,\n"
    );
    let file = files.write("cdr.csv", &theirs);
    let at = |second| jiff::Timestamp::from_second(second).unwrap().to_string();
    let (from, to) = (at(now - 86_400), at(now + 86_400));
    let command = ["reconcile", "--tenant", "contoso", "--from", &from, "--to", &to, &file];
    let output = tollgate(&server, &command).await;
    let said = String::from_utf8(output.stdout).unwrap();
    // The start of "credits", as its client told it, is outside.
    assert!(said.contains("nothing differs") && said.contains("3 calls, 152s"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}
