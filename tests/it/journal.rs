//! The sidecar's own journal: what is accepted while the ledger is away is charged once, whatever dies.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::Seconds;
use tollgate::credit_control::answer::{Charge, EndReport};
use tollgate::credit_control::emergency::RawRequest;
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, Settings, UseCaseError,
};
use tollgate::journal::{self, Journal};
use tollgate::ledger::state::CallState;
use tollgate::ledger::{EndResult, Ending, Ledger, LedgerError};
use tollgate::organisation;
use tollgate::proto::v1::{
    AuthorizeCallRequest, Decision, GetBalanceRequest, SettleCallResponse, SettleResult,
};
use tonic::Code;

use crate::server::{DECK, organisation};
use crate::support::call_id;
use crate::support::messages::{authorize, length, release, settle, usd};
use crate::support::process::{Files, PATIENCE, Sidecar, parsed, run, tollgate, wait_until};
use crate::support::redis::RedisServer;
use crate::support::watched::Watched;

// The running program.

/// What `tollgate journal list` shows: call and state, oldest first.
fn listed(journal: &str) -> Vec<(String, String)> {
    let mut command = tollgate();
    command.args(["journal", "list", "--journal", journal, "--output", "json"]);
    let all = parsed(&run(command).succeeded());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let rows = all.as_array().unwrap().iter();
    rows.map(|row| (text(&row["callId"]), text(&row["state"]))).collect()
}

#[track_caller]
fn wait_until_drained(journal: &str) {
    let is_done = |rows: &Vec<(String, String)>| rows.iter().all(|(_, state)| state != "PENDING");
    wait_until("drained", || listed(journal), is_done);
}

fn verified(journal: &str) {
    let mut command = tollgate();
    command.args(["journal", "verify", "--journal", journal]);
    run(command).succeeded();
}

fn with_journal(redis: &RedisServer, journal: &str) -> Sidecar {
    let flags = ["--ledger-timeout", "150ms", "--shutdown-grace", "0s", "--journal", journal];
    Sidecar::start(&[&["--ledger", &redis.url()], &flags[..]].concat())
}

async fn allowed(sidecar: &Sidecar, call: &str) {
    let request = AuthorizeCallRequest {
        requested_duration: length(60),
        ..authorize(call, "carol", "+12065550100")
    };
    let mut calls = sidecar.calls().await;
    let patience = Instant::now() + PATIENCE;
    loop {
        let answer = calls.authorize_call(request.clone()).await.unwrap().into_inner();
        if answer.decision() == Decision::Allowed {
            return;
        }
        // A busy machine may take longer than --ledger-timeout.
        assert_eq!(answer.decision(), Decision::LedgerUnavailable, "{answer:?}");
        assert!(Instant::now() < patience, "{answer:?}");
    }
}

/// Settles again and again until the ledger itself has answered.
async fn settled(sidecar: &Sidecar, call: &str) -> SettleCallResponse {
    let mut calls = sidecar.calls().await;
    let patience = Instant::now() + PATIENCE;
    loop {
        match calls.settle_call(settle(call, 60)).await {
            Ok(answer) if answer.get_ref().result() != SettleResult::Accepted => {
                return answer.into_inner();
            }
            other => assert!(Instant::now() < patience, "{other:?}"),
        }
    }
}

async fn assert_spent(sidecar: &Sidecar, money: &str) {
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let balance = sidecar.account().await.get_balance(request).await.unwrap().into_inner();
    let credits = balance.credits.unwrap();
    assert_eq!((credits.held, credits.spent), (usd("0"), usd(money)));
    sidecar.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn settles_accepted_while_redis_hangs_are_charged_once_whenever_the_sidecar_is_killed() {
    const ROUNDS: usize = 20;
    const CALLS: usize = 8;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (redis, files) = (RedisServer::started(), Files::default());
    let journal = files.path("journal");
    let mut sidecar = with_journal(&redis, &journal);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation().replace("\"10\"", "\"1000\""));
    let mut accepted_in_all = 0;
    for round in 0..ROUNDS {
        let names: Vec<String> = (0..CALLS).map(|call| format!("call-{round}-{call}")).collect();
        for name in &names {
            allowed(&sidecar, name).await;
        }
        let calls = sidecar.calls().await;
        redis.signal("STOP");
        let mut ends = JoinSet::new();
        for name in names.clone() {
            let mut calls = calls.clone();
            ends.spawn(async move {
                let answer = calls.settle_call(settle(&name, 60)).await;
                let accepted = answer.is_ok_and(|a| a.get_ref().result() == SettleResult::Accepted);
                accepted.then_some(name)
            });
        }
        let mut accepted = vec![];
        for _ in 0..random.usize(..=CALLS) {
            accepted.extend(ends.join_next().await.expect("more calls").expect("no panic"));
        }
        sidecar.kill();
        accepted.extend(ends.join_all().await.into_iter().flatten());
        // What hangs in its socket is carried out now: some of what was accepted, and some that was not.
        redis.signal("CONT");
        sidecar = with_journal(&redis, &journal);
        sidecar.wait_until_ready();
        wait_until_drained(&journal);
        for name in &names {
            let charge = settled(&sidecar, name).await;
            assert_eq!(charge.result(), SettleResult::Settled, "{name}: {charge:?}");
            assert_eq!(charge.charged_money, usd("0.15"), "{name}: {charge:?}");
            assert!(charge.replayed || !accepted.contains(name), "{name} was accepted and lost");
        }
        accepted_in_all += accepted.len();
    }
    assert!(accepted_in_all > ROUNDS, "{accepted_in_all} were accepted");
    assert_spent(&sidecar, "24").await;
    verified(&journal);
}

#[tokio::test]
async fn what_was_accepted_while_redis_was_down_outlives_the_sidecar_and_is_done_in_order() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    let files = Files::default();
    let journal = files.path("journal");
    let mut sidecar = with_journal(&redis, &journal);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation());
    for call in ["talked", "rang"] {
        allowed(&sidecar, call).await;
    }
    redis.kill();

    let mut calls = sidecar.calls().await;
    let answer = calls.settle_call(settle("talked", 30)).await.unwrap().into_inner();
    assert_eq!((answer.result(), answer.replayed), (SettleResult::Accepted, false));
    assert_eq!((answer.recorded_duration, answer.charged_money), (length(30), usd("0")));
    let again = calls.settle_call(settle("talked", 30)).await.unwrap().into_inner();
    assert_eq!((again.result(), again.replayed), (SettleResult::Accepted, true));
    let other = calls.settle_call(settle("talked", 90)).await.unwrap().into_inner();
    assert_eq!((other.result(), other.replayed), (SettleResult::Accepted, false));
    let answer = calls.release_call(release("rang")).await.unwrap().into_inner();
    assert_eq!(answer.result(), SettleResult::Accepted);
    let help = calls.authorize_call(authorize("help", "alice", "911")).await.unwrap();
    assert_eq!(help.get_ref().decision(), Decision::AllowedEmergency);
    let answer = calls.settle_call(settle("help", 45)).await.unwrap().into_inner();
    assert_eq!(answer.result(), SettleResult::Accepted);
    calls.settle_call(settle("stranger", 5)).await.unwrap();
    // Malformed is malformed, and nothing else is accepted.
    let malformed = calls.settle_call(settle("", 5)).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    sidecar.kill();

    let pending = ["talked", "talked", "rang", "help", "help", "stranger"]
        .map(|call| (call.to_owned(), "PENDING".to_owned()));
    assert_eq!(listed(&journal), pending);
    let mut sidecar = with_journal(&redis, &journal);
    let mut calls = sidecar.calls().await;
    let again = calls.settle_call(settle("talked", 30)).await.unwrap().into_inner();
    assert_eq!((again.result(), again.replayed), (SettleResult::Accepted, true));
    assert!(sidecar.stop().success());
    sidecar.wait_for_log("until the next start");
    assert_eq!(listed(&journal), pending);

    let sidecar = with_journal(&redis, &journal);
    redis.start();
    sidecar.wait_until_ready();
    wait_until_drained(&journal);
    let refused = [("talked", "ALREADY_SETTLED"), ("stranger", "PARKED")]
        .map(|(call, state)| (call.to_owned(), state.to_owned()));
    assert_eq!(listed(&journal), refused);
    let mut calls = sidecar.calls().await;
    for (call, used, money) in [("talked", 30, "0.15"), ("help", 45, "0")] {
        let charge = calls.settle_call(settle(call, used)).await.unwrap().into_inner();
        assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, true), "{call}");
        assert_eq!(charge.charged_money, usd(money), "{call}");
    }
    let charge = calls.settle_call(settle("rang", 0)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.replayed), (SettleResult::Released, true));
    let decisions = sidecar.client(&["decisions", "--tenant", "contoso", "--call-id", "help"]);
    assert_eq!(decisions.succeeded().matches("ALLOWED_EMERGENCY").count(), 1);
    assert_spent(&sidecar, "0.15").await;
    verified(&journal);
}

/// As when a StatefulSet is scaled down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_told_to_end_brings_its_journal_to_redis_first() {
    let (redis, files) = (RedisServer::started(), Files::default());
    let journal = files.path("journal");
    let flags = ["--ledger-timeout", "150ms", "--shutdown-grace", "30s", "--journal", &journal];
    let mut sidecar = Sidecar::ready(&[&["--ledger", &redis.url()], &flags[..]].concat());
    sidecar.set_up(&organisation());
    allowed(&sidecar, "a").await;
    redis.signal("STOP");
    let settled = sidecar.calls().await.settle_call(settle("a", 60)).await.unwrap();
    assert_eq!(settled.into_inner().result(), SettleResult::Accepted);
    assert_eq!(listed(&journal), [("a".to_owned(), "PENDING".to_owned())]);
    sidecar.signal("TERM");
    wait_until("draining", || sidecar.log(), |log| log.contains("\"draining\""));
    assert!(sidecar.runs(), "it waits: {}", sidecar.log());
    redis.signal("CONT");
    wait_until("ended", || sidecar.runs(), |runs| !runs);
    sidecar.wait_for_log("\"stopped\"");
    assert!(listed(&journal).is_empty(), "{:?}", listed(&journal));
    assert_spent(&Sidecar::on(&redis.url()), "0.15").await;
}

#[tokio::test]
async fn records_of_calls_decided_without_redis_outlive_a_killed_sidecar() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    let files = Files::default();
    let journal = files.path("journal");
    let mut sidecar = with_journal(&redis, &journal);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation());
    allowed(&sidecar, "known").await;
    redis.kill();
    let mut calls = sidecar.calls().await;
    let free = authorize("free", "carol", "+18005550100");
    let names: Vec<String> = (0..30).map(|number| format!("help-{number}")).collect();
    for name in &names {
        let answer = calls.authorize_call(authorize(name, "alice", "911")).await.unwrap();
        assert_eq!(answer.get_ref().decision(), Decision::AllowedEmergency);
    }
    // A repeat is the same decision.
    calls.authorize_call(authorize("help-0", "alice", "911")).await.unwrap();
    let answer = calls.authorize_call(free).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedFree, "{answer:?}");
    sidecar.kill();
    assert_eq!(listed(&journal).len(), names.len() + 1);

    redis.start();
    let sidecar = with_journal(&redis, &journal);
    sidecar.wait_until_ready();
    wait_until_drained(&journal);
    let recorded = sidecar.client(&["decisions", "--tenant", "contoso"]).succeeded();
    assert_eq!(recorded.matches("ALLOWED_EMERGENCY").count(), names.len(), "{recorded}");
    assert_eq!(recorded.matches("ALLOWED_FREE").count(), 1, "{recorded}");
    sidecar.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn everything_that_was_acknowledged_is_in_the_journal() {
    let (redis, files) = (RedisServer::started(), Files::default());
    let journal = files.path("journal");
    let mut sidecar = with_journal(&redis, &journal);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation());
    allowed(&sidecar, "call").await;
    let mut calls = sidecar.calls().await;
    calls.extend_call(crate::support::messages::extend("call", 30, 1)).await.unwrap();
    settled(&sidecar, "call").await;
    let denied = authorize("denied", "dave", "+12065550100");
    let denied = calls.authorize_call(denied).await.unwrap().into_inner();
    assert!(!denied.allowed);
    assert!(sidecar.stop().success());
    let mut effects = vec![];
    let contents = journal::read(journal.as_ref(), |_, done| {
        let text = format!("{:?}", done.effect);
        effects.push(text.split([' ', '{']).next().unwrap().to_owned());
    });
    assert_eq!(contents.unwrap().todo, []);
    assert_eq!(effects, ["Purchased", "Authorized", "Extended", "Ended", "Authorized"]);
}

#[test]
fn a_second_server_on_a_journal_says_so_and_exits() {
    let files = Files::default();
    let journal = files.path("journal");
    let _first = Sidecar::start(&["--journal", &journal]);
    let mut serve = tollgate();
    serve.args(["serve", "--journal", &journal]);
    for flag in ["--listen", "--admin-listen", "--http-listen"] {
        serve.args([flag, "127.0.0.1:0"]);
    }
    let said = run(serve).failed(1);
    assert!(said.contains("is used by another process"), "{said}");
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_accepts_nothing_and_says_so() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    let files = Files::default();
    Sidecar::on(&redis.url()).set_up(&organisation());
    redis.kill();
    // The limit that a shell can set stands for a disk that is full: no file may grow.
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]);
    full.args([env!("CARGO_BIN_EXE_tollgate"), "serve"]);
    let journal = files.path("journal");
    let flags = ["--ledger", &redis.url(), "--ledger-timeout", "150ms", "--journal", &journal];
    let sidecar = Sidecar::start_as(full, &flags);
    let mut calls = sidecar.calls().await;
    for _ in 0..3 {
        let refused = calls.settle_call(settle("call", 60)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    let help = calls.authorize_call(authorize("help", "alice", "911")).await.unwrap();
    assert_eq!(help.get_ref().decision(), Decision::AllowedEmergency);
    let told = |answer: &Option<(u16, String)>| {
        answer.as_ref().is_some_and(|(_, text)| text.contains("the journal cannot be written"))
    };
    wait_until("told", || sidecar.readyz(), told);
    let said = sidecar.log();
    assert_eq!(said.matches("the journal takes nothing").count(), 1, "{said}");
    assert!(listed(&journal).is_empty(), "{:?}", listed(&journal));
    // The record is kept in memory, as without a journal.
    redis.start();
    sidecar.wait_until_ready();
    let recorded = || {
        let found = sidecar.client(&["decisions", "--tenant", "contoso", "--call-id", "help"]);
        found.stdout.matches("ALLOWED_EMERGENCY").count()
    };
    wait_until("recorded", recorded, |count| *count == 1);
}

// The use cases, on a ledger that is held.

struct Desk {
    ledger: Arc<Watched>,
    control: Arc<CreditControl<Watched>>,
    journal: Option<Arc<Journal>>,
    _folder: TempDir,
}

impl Desk {
    async fn open(most_bytes: Option<u64>) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let journal = most_bytes.map(|most_bytes| {
            let settings = journal::Settings {
                folder: folder.path().join("journal"),
                keep: PATIENCE,
                most_bytes,
            };
            Arc::new(Journal::open(&settings).unwrap())
        });
        let settings = Settings {
            default_grant: Seconds(300),
            max_grant: Seconds(4 * 3600),
            ringing_timeout: Seconds(180),
            grace: Seconds(60),
            denied_retention: Seconds(600),
            ended_retention: Seconds(86_400),
            ledger_timeout: Duration::from_millis(20),
            emergency_country: None,
            token_keys: None,
            degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
        };
        let ledger = Arc::new(Watched::default());
        let control = CreditControl::with_journal(ledger.clone(), settings, journal.clone());
        let control = Arc::new(control);
        let administration = Administration::new(control.clone(), Seconds(10));
        administration.activate_deck("default", DECK.as_bytes()).await.unwrap();
        let document = organisation::check(&organisation::read(&organisation()).unwrap()).unwrap();
        administration.apply(&document).await.unwrap();
        Desk { ledger, control, journal, _folder: folder }
    }

    fn hang(&self, hangs: bool) {
        *self.ledger.hangs.lock().unwrap() = hangs;
    }

    async fn authorize(&self, call: &str) {
        let request = AuthorizeRequest {
            tenant: tenant(),
            call: call_id(call),
            call_type: tollgate::charging::entitlement::CallType::UserOutbound,
            payer: crate::support::payer("carol"),
            calling_number: String::new(),
            called_number: "+12065550100".to_owned(),
            original_called_number: String::new(),
            requested: None,
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: String::new(),
            reports_answer: false,
            labels: Default::default(),
        };
        let answer = self.control.authorize(&request, Instant::now() + PATIENCE).await;
        assert!(answer.grant.is_some(), "{answer:?}");
    }

    async fn end(&self, call: &str, how: Ending) -> Result<Charge, UseCaseError> {
        let report = EndReport::default();
        let token = String::new();
        let request = EndRequest { tenant: tenant(), call: call_id(call), how, report, token };
        self.control.end(request, Instant::now() + PATIENCE).await
    }

    async fn settle(&self, call: &str, used: i64) -> Result<Charge, UseCaseError> {
        self.end(call, Ending::Settle(Seconds(used))).await
    }
}

fn tenant() -> TenantId {
    TenantId::new("contoso").unwrap()
}

#[track_caller]
fn is_unavailable(charge: &Result<Charge, UseCaseError>) {
    assert!(
        matches!(
            charge,
            Err(UseCaseError::Ledger(LedgerError::Unavailable(_) | LedgerError::Indeterminate(_)))
        ),
        "{charge:?}"
    );
}

#[tokio::test]
async fn without_a_journal_a_settle_is_unavailable_while_the_ledger_is_away() {
    let desk = Desk::open(None).await;
    desk.authorize("a").await;
    desk.hang(true);
    is_unavailable(&desk.settle("a", 60).await);
}

#[tokio::test]
async fn a_full_journal_accepts_nothing_until_the_ledger_has_made_room() {
    let desk = Desk::open(Some(8 << 10)).await;
    let journal = desk.journal.as_ref().unwrap();
    desk.hang(true);
    let mut accepted = 0;
    let refused = loop {
        match desk.settle(&format!("call-{accepted}"), 60).await {
            Ok(charge) => assert_eq!(charge.result, EndResult::Accepted),
            refused => break refused,
        }
        accepted += 1;
    };
    is_unavailable(&refused);
    assert!(accepted > 5, "{accepted} were accepted");
    assert!(journal.status().trouble.unwrap().contains("full"));
    // What it has, it has.
    assert!(desk.settle("call-0", 60).await.unwrap().replayed);
    assert_eq!(journal.status().todo, accepted);
    desk.hang(false);
    let drain = tokio::spawn(desk.control.clone().drain());
    assert!(journal.drained(None, PATIENCE).await);
    drain.abort();
    desk.hang(true);
    assert_eq!(desk.settle("again", 60).await.unwrap().result, EndResult::Accepted);
    assert_eq!(journal.status().trouble, None);
}

#[tokio::test]
async fn messages_about_a_call_wait_behind_what_the_journal_holds_of_it() {
    let desk = Desk::open(Some(1 << 20)).await;
    let journal = desk.journal.as_ref().unwrap();
    for call in ["a", "b"] {
        desk.authorize(call).await;
    }
    desk.hang(true);
    assert_eq!(desk.settle("a", 61).await.unwrap().result, EndResult::Accepted);
    desk.hang(false);
    // Nobody has brought it to the ledger yet: a later message does not overtake it.
    let later = desk.settle("a", 200).await.unwrap();
    assert_eq!((later.result, later.replayed), (EndResult::Accepted, false));
    assert_eq!(desk.end("b", Ending::Release).await.unwrap().result, EndResult::Released);
    let drain = tokio::spawn(desk.control.clone().drain());
    assert!(journal.drained(None, PATIENCE).await);
    let charge = desk.settle("a", 61).await.unwrap();
    assert_eq!((charge.result, charge.replayed), (EndResult::Settled, true));
    assert_eq!(charge.recorded_duration, Seconds(61));
    drain.abort();
}

#[tokio::test]
async fn an_emergency_call_and_its_end_reach_the_ledger_in_order() {
    let desk = Desk::open(Some(1 << 20)).await;
    let journal = desk.journal.as_ref().unwrap();
    desk.hang(true);
    let raw = RawRequest {
        tenant: "contoso",
        call: "help",
        call_type: None,
        payer: "carol",
        calling_number: "",
        called_number: "112",
        original_called_number: "",
        trunk: "",
        reports_answer: false,
        unvouched: "",
    };
    for _ in 0..2 {
        let answer = desk.control.authorize_emergency(&raw, Instant::now() + PATIENCE).await;
        assert!(answer.unwrap().grant.is_some());
    }
    desk.settle("help", 30).await.unwrap();
    assert_eq!(journal.status().todo, 2, "the record once, and the end");
    desk.hang(false);
    let drain = tokio::spawn(desk.control.clone().drain());
    assert!(journal.drained(None, PATIENCE).await);
    let call = desk.ledger.inner.call(&tenant(), &call_id("help")).await.unwrap().unwrap();
    assert_eq!(
        (call.state, call.used, call.parked),
        (CallState::Settled, Seconds(30), Seconds::ZERO)
    );
    drain.abort();
}
