//! The embedded ledger in a file: what was answered is there after whatever ends the process.
//!
//! The cases of every ledger run on it too, and after each the file must hold everything
//! ([`crate::on_every_ledger`]). `TOLLGATE_KILLS` is how often the process is killed under load.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::Millis;
use tollgate::ledger::audit::audit;
use tollgate::ledger::file::{OpenError, open};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::{ClockOffset, Ledger};
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, Decision, GetBalanceRequest, Grant, SettleResult,
};
use tonic::transport::Channel;

use crate::ledger_model::commands::{Command, Dealer, play};
use crate::support::messages::{authorize, length, settle, usd};
use crate::support::process::{Files, Sidecar, run, tollgate, wait_until};
use crate::support::traffic::tenants;
use crate::support::{NEVER_OVERDUE, NOON, in_file};

#[tokio::test]
async fn random_commands_are_answered_as_in_memory_through_every_reopening() {
    for seed in 0..4 {
        let clock = ClockOffset::default();
        clock.freeze_at(NOON);
        let mut random = fastrand::Rng::with_seed(seed);
        let memory = MemoryLedger::new(clock.clone());
        let mut folder = TempDir::new().unwrap();
        let mut file = in_file::open(&folder, clock.clone());
        let tenants = ["one", "two"].map(|name| TenantId::new(name).unwrap()).to_vec();
        let mut dealer = Dealer::new(seed, tenants.clone());
        for step in 0..1_500 {
            let now = clock.reading().at(Millis::ZERO);
            let command = dealer.deal(now, &memory).await;
            if let Command::Pass(length) = command {
                clock.advance(length);
                continue;
            }
            let (expected, found) = (play(&memory, &command).await, play(&file, &command).await);
            assert_eq!(found, expected, "seed {seed}, step {step}: {command:#?}");
            if random.u8(..40) > 0 {
                continue;
            }
            if random.bool() {
                drop(file);
            } else {
                // As a kill leaves it: copied while it is open.
                let image = TempDir::new().unwrap();
                fs::copy(folder.path().join("ledger"), image.path().join("ledger")).unwrap();
                drop(file);
                folder = image;
            }
            file = in_file::open(&folder, clock.clone());
            let found = in_file::everything(&file, &tenants[0]).await;
            let expected = in_file::everything(&memory, &tenants[0]).await;
            assert_eq!(found, expected, "seed {seed}, step {step}");
            let snapshot = file.snapshot(&tenants[0]).await.unwrap().outcome;
            assert_eq!(audit(&tenants[0], now, NEVER_OVERDUE, &snapshot).findings, []);
        }
    }
}

type Client = CallAuthorizationServiceClient<Channel>;

fn asked(call: &str) -> AuthorizeCallRequest {
    let requested_duration = length(60);
    AuthorizeCallRequest { requested_duration, ..authorize(call, "carol", "+12065550100") }
}

/// A call as its SBC knows it.
enum Known {
    /// Nobody has answered.
    Asked(String),
    /// Allowed like this, and settled without an answer, or not yet.
    Allowed(String, Box<AuthorizeCallResponse>),
    /// Charged.
    Settled(String),
}

/// Calls, one after another, until nobody answers.
async fn calls(mut client: Client, name: String, ended: Arc<AtomicUsize>) -> Vec<Known> {
    let mut known = vec![];
    for number in 0.. {
        let call = format!("{name}-{number}");
        let Ok(answer) = client.authorize_call(asked(&call)).await else {
            known.push(Known::Asked(call));
            break;
        };
        let answer = answer.into_inner();
        assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
        let Ok(charge) = client.settle_call(settle(&call, 60)).await else {
            known.push(Known::Allowed(call, Box::new(answer)));
            break;
        };
        assert_eq!(charge.into_inner().charged_money, usd("0.15"));
        ended.fetch_add(1, Ordering::Relaxed);
        known.push(Known::Settled(call));
    }
    known
}

async fn charged(client: &mut Client, call: &str) -> bool {
    let charge = client.settle_call(settle(call, 60)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.15")));
    charge.replayed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_under_load_has_kept_every_answer() {
    let kills: u32 = std::env::var("TOLLGATE_KILLS").map_or(5, |n| n.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(9);
    let files = Files::default();
    let ledger = format!("file:{}", files.path("ledger"));
    let mut sidecar = Sidecar::on(&ledger);
    sidecar.set_up(&tenants(&["contoso"]));
    let (mut settled, mut lost, mut longest) = (vec![], 0, Duration::ZERO);
    for kill in 0..kills {
        let (ended, mut callers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for caller in 0..6 {
            let name = format!("call-{kill}-{caller}");
            callers.spawn(calls(sidecar.calls().await, name, ended.clone()));
        }
        let enough = random.usize(1..60);
        wait_until("in use", || ended.load(Ordering::Relaxed), |ended| *ended >= enough);
        tokio::time::sleep(Duration::from_micros(random.u64(..5_000))).await;
        sidecar.kill();
        // Its lock ends with it, which takes a moment.
        wait_until("gone", || sidecar.runs(), |runs| !runs);
        let began = Instant::now();
        sidecar = Sidecar::on(&ledger);
        longest = longest.max(began.elapsed());
        let mut client = sidecar.calls().await;
        for known in callers.join_all().await.into_iter().flatten() {
            match known {
                Known::Settled(call) => {
                    lost += usize::from(!charged(&mut client, &call).await);
                    settled.push(call);
                }
                Known::Allowed(call, before) => {
                    let again = client.authorize_call(asked(&call)).await.unwrap().into_inner();
                    // Its settle may have been carried out.
                    if again.decision() != Decision::CallAlreadyEnded {
                        assert!(again.replayed, "{again:?}");
                        assert_eq!(again.decision(), before.decision());
                        // How long the hold lasts is told from now.
                        let grant = |answer: &AuthorizeCallResponse| {
                            let grant = answer.grant.clone();
                            grant.map(|grant| Grant { hold_timeout: None, ..grant })
                        };
                        assert_eq!(grant(&again), grant(&before));
                        assert_eq!(again.funding, before.funding);
                    }
                    charged(&mut client, &call).await;
                    settled.push(call);
                }
                Known::Asked(call) => {
                    let answer = client.settle_call(settle(&call, 0)).await.unwrap().into_inner();
                    assert_eq!(answer.result(), SettleResult::Released);
                }
            }
        }
        let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
        let balance = sidecar.account().await.get_balance(request).await.unwrap().into_inner();
        let credits = balance.credits.unwrap();
        let cents = settled.len() * 15;
        let spent = format!("{}.{:02}", cents / 100, cents % 100);
        let spent = spent.trim_end_matches('0').trim_end_matches('.');
        assert_eq!((credits.spent, credits.held), (usd(spent), usd("0")), "charged twice or never");
        sidecar.client(&["audit"]).succeeded();
    }
    eprintln!(
        "file: {kills} kills, {} calls, acknowledged settles lost {lost}, ready again after {longest:?}",
        settled.len()
    );
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_grow_acknowledges_nothing_that_it_does_not_hold() {
    let files = Files::default();
    let ledger = format!("file:{}", files.path("ledger"));
    drop(Sidecar::on(&ledger));
    let room = fs::metadata(files.path("ledger")).unwrap().len() / 1024;
    let mut limited = std::process::Command::new("bash");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            limited.env_remove(name);
        }
    }
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {room}; exec \"$0\" \"$@\"")]);
    limited.arg(env!("CARGO_BIN_EXE_tollgate")).arg("serve");
    let sidecar = Sidecar::ready_as(limited, &["--ledger", &ledger]);
    sidecar.set_up(&tenants(&["contoso"]));
    let mut client = sidecar.calls().await;
    let told = |answer: &Option<(u16, String)>| {
        answer.as_ref().is_some_and(|(_, text)| text.contains("the ledger does not answer"))
    };
    let mut kept = vec![];
    for number in 0..20_000 {
        let call = format!("call-{number}-{}", "x".repeat(90));
        let answer = client.authorize_call(asked(&call)).await;
        match answer.map(|answer| answer.into_inner().decision()) {
            Ok(Decision::Allowed) => {}
            other => {
                assert!(
                    !matches!(other, Ok(ref d) if *d != Decision::LedgerUnavailable),
                    "{other:?}"
                );
                // A slow disk says so, too.
                if told(&sidecar.readyz()) {
                    break;
                }
                continue;
            }
        }
        match client.settle_call(settle(&call, 60)).await {
            Ok(_) => kept.push(call),
            Err(error) => {
                assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
                if told(&sidecar.readyz()) {
                    break;
                }
            }
        }
    }
    assert!(kept.len() < 20_000, "the file never was full");
    wait_until("told", || sidecar.readyz(), told);
    sidecar.wait_for_log("the ledger file cannot be written");
    // An emergency call never needs a ledger.
    let emergency = client.authorize_call(authorize("sos", "carol", "911")).await.unwrap();
    assert_eq!(emergency.into_inner().decision(), Decision::AllowedEmergency);
    drop(sidecar);

    let sidecar = Sidecar::on(&ledger);
    let mut client = sidecar.calls().await;
    for call in &kept {
        assert!(charged(&mut client, call).await, "{call} was acknowledged");
    }
    sidecar.client(&["audit"]).succeeded();
}

#[test]
fn a_second_process_on_a_ledger_file_says_so_and_leaves_it_alone() {
    let files = Files::default();
    let ledger = format!("file:{}", files.path("ledger"));
    let mut first = Sidecar::on(&ledger);
    let mut second = tollgate();
    second.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    second.args(["--http-listen", "127.0.0.1:0", "--ledger", &ledger]);
    let said = run(second).failed(1);
    assert!(said.contains("is in use by another process"), "{said}");
    first.set_up(&tenants(&["contoso"]));
    assert!(first.stop().success());
    // In order, it is free at once.
    let third = Sidecar::on(&ledger);
    third.client(&["balance", "--tenant", "contoso"]).succeeded();
}

#[test]
fn memory_says_at_the_start_that_its_balances_end_with_the_process() {
    let sidecar = Sidecar::start(&["--ledger", "memory"]);
    let log = sidecar.log();
    assert!(log.contains("tenants, balances and calls end with this process"), "{log}");
    assert!(log.contains("--ledger file:PATH keeps them"), "{log}");
}

fn refused(path: &Path) -> OpenError {
    match open(path, ClockOffset::default()) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[test]
fn files_that_are_no_ledger_of_this_release_are_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger");
    let nowhere = folder.path().join("none").join("ledger");
    assert!(matches!(refused(&nowhere), OpenError::NoFolder(_)), "{}", refused(&nowhere));
    assert!(
        matches!(refused(folder.path()), OpenError::Unusable(..)),
        "{}",
        refused(folder.path())
    );
    for foreign in [b"accounts: []\n".repeat(1000), vec![0xff; 4096], b"redb".to_vec()] {
        fs::write(&path, &foreign).unwrap();
        let error = refused(&path);
        assert!(matches!(error, OpenError::Foreign(_) | OpenError::Damaged(..)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
    fs::remove_file(&path).unwrap();

    // Another program's store, and another release's ledger.
    let names: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("names");
    let about: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("tollgate");
    for (table, expected) in [(names, "is no ledger file"), (about, "has format 9")] {
        let store = redb::Database::create(&path).unwrap();
        let writing = store.begin_write().unwrap();
        writing.open_table(table).unwrap().insert("format", 9).unwrap();
        writing.commit().unwrap();
        drop(store);
        let error = refused(&path).to_string();
        assert!(error.contains(expected), "{error}");
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_is_named_and_nothing_is_served() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger");
    drop(open(&path, ClockOffset::default()).unwrap());
    let rows: redb::TableDefinition<(&str, u8, &[u8]), &[u8]> = redb::TableDefinition::new("rows");
    let value: &[u8] = b"\x91\xc0";
    for (tenant, kind, key) in [("contoso", 9, "call-1"), ("contoso", 77, ""), ("a b", 9, "c")] {
        let store = redb::Database::create(&path).unwrap();
        let writing = store.begin_write().unwrap();
        let mut table = writing.open_table(rows).unwrap();
        table.insert((tenant, kind, key.as_bytes()), value).unwrap();
        drop(table);
        writing.commit().unwrap();
        drop(store);
        let error = refused(&path);
        assert!(matches!(error, OpenError::Damaged(..)), "{error}");
        assert!(error.to_string().contains(tenant), "{error}");
        let store = redb::Database::create(&path).unwrap();
        let writing = store.begin_write().unwrap();
        writing.open_table(rows).unwrap().remove((tenant, kind, key.as_bytes())).unwrap();
        writing.commit().unwrap();
    }
    let ledger = open(&path, ClockOffset::default()).unwrap();
    assert_eq!(ledger.tenants().await, Ok(vec![]));
}
