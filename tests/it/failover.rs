//! The running program on a Redis that sentinels guard: the master is killed under load, another takes over.

use std::time::{Duration, Instant};

use redis::Value;
use tollgate::proto::v1::{Decision, PurchaseCreditsRequest};
use tonic::Code;

use crate::server::organisation;
use crate::support::messages::{authorize, settle, usd};
use crate::support::process::{Sidecar, wait_until};
use crate::support::redis_group::Guarded;
use crate::support::traffic::{Traffic, tenants};

/// Longest time without an answer that this machine may need: half a second until the sentinels are sure,
/// their election, the promotion, and the way there.
const BOUND: Duration = Duration::from_secs(10);

fn on(ledger: &str) -> Sidecar {
    let sidecar = Sidecar::ready(&["--ledger", ledger, "--ledger-timeout", "500ms"]);
    sidecar.set_up(&tenants(&["contoso"]));
    sidecar
}

/// Kills the master under load: how many acknowledged settles are lost, and how many calls were forgotten
/// before they were settled.
async fn lost_at_failover(guarded: &Guarded, sidecar: &Sidecar, what: &str) -> (usize, usize) {
    let traffic = Traffic::start(sidecar, "contoso").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    guarded.master.kill();
    wait_until("failed over", || guarded.named(), |port| *port != guarded.master.port);
    let promoted = killed.elapsed();
    let outcome = traffic.end(Duration::from_millis(1500)).await;
    let outage = outcome.outage();
    let lost = outcome.lost(sidecar, "contoso").await;
    eprintln!(
        "{what}: {} calls, {} answers to repeat, promoted after {promoted:?}, outage {outage:?}, \
         acknowledged settles lost {lost}, calls forgotten {}",
        outcome.done.len(),
        outcome.refused,
        outcome.forgotten,
    );
    assert!(outage < BOUND, "{outage:?}");
    (lost, outcome.forgotten)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_loses_nothing_that_a_replica_had_to_confirm() {
    let guarded = Guarded::start(&["--min-replicas-to-write", "1"]);
    let sidecar = on(&format!("{}?replicas=1", guarded.url()));
    let lost = lost_at_failover(&guarded, &sidecar, "failover, replicas=1").await;
    assert_eq!(lost, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_charges_nobody_twice_and_loses_the_last_moment_at_most() {
    let guarded = Guarded::start(&[]);
    let sidecar = on(&guarded.url());
    let (lost, forgotten) = lost_at_failover(&guarded, &sidecar, "failover, asynchronous").await;
    // Not promised: it is what was on its way to the replicas, one call of each worker at most.
    assert!(lost + forgotten <= 12, "{lost} lost, {forgotten} forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_made_a_replica_is_left_for_the_one_that_the_sentinels_name() {
    let guarded = Guarded::start(&[]);
    let sidecar = on(&guarded.url());
    let traffic = Traffic::start(&sidecar, "contoso").await;
    // Sentinels do not stop the old master at once when they are told to fail over.
    let _: Value = guarded.master.ask(&["CLIENT", "PAUSE", "5000", "WRITE"]);
    let _: Value = guarded.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"]);
    wait_until("failed over", || guarded.named(), |port| *port != guarded.master.port);
    // What the promoted one does not have is loaded there.
    let promoted = guarded.replicas.iter().find(|one| one.port == guarded.named()).unwrap();
    let _: Value = promoted.ask(&["FUNCTION", "FLUSH"]);
    let outcome = traffic.end(Duration::from_millis(1500)).await;
    let lost = outcome.lost(&sidecar, "contoso").await;
    eprintln!("ordered failover: outage {:?}, lost {lost}", outcome.outage());
    assert!(outcome.outage() < BOUND, "{:?}", outcome.outage());
    assert_eq!(lost + outcome.forgotten, 0);
    assert_ne!(promoted.ask::<Vec<Value>>(&["FUNCTION", "LIST"]), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_money_is_moved_by_waits_for_replicas_where_that_is_asked_for() {
    const SEATTLE: &str = "+12065550100";
    let guarded = Guarded::start(&[]);
    let url = format!("{}?replicas=2&replicas_for=money", guarded.url());
    let sidecar = Sidecar::ready(&["--ledger", &url, "--ledger-timeout", "500ms"]);
    sidecar.set_up(&organisation());
    let waits = || guarded.master.count("wait");
    let mut calls = sidecar.calls().await;
    let before = waits();
    assert!(before > 0, "credits were bought");
    for call in ["m1", "m2", "m3"] {
        let answer = calls.authorize_call(authorize(call, "alice", SEATTLE)).await.unwrap();
        assert_eq!(answer.get_ref().decision(), Decision::Allowed, "{answer:?}");
        calls.settle_call(settle(call, 30)).await.unwrap();
    }
    assert_eq!(waits(), before, "minutes wait for nobody");
    for (number, call) in (1..).zip(["c1", "c2"]) {
        let answer = calls.authorize_call(authorize(call, "carol", SEATTLE)).await.unwrap();
        assert_eq!(answer.get_ref().decision(), Decision::Allowed, "{answer:?}");
        calls.settle_call(settle(call, 30)).await.unwrap();
        assert_eq!(waits(), before + 2 * number, "{call}: once by each of the two");
    }
    // What travels together waits once.
    let (before, runs) = (waits(), guarded.master.count("fcall"));
    let together = (0..40).map(|n| {
        let mut calls = calls.clone();
        async move {
            let request = authorize(&format!("t{n}"), "carol", SEATTLE);
            calls.authorize_call(request).await.unwrap().into_inner().decision()
        }
    });
    for decision in futures_util::future::join_all(together).await {
        assert_ne!(decision, Decision::LedgerUnavailable);
    }
    let (waited, ran) = (waits() - before, guarded.master.count("fcall") - runs);
    assert!(waited > 0 && waited <= ran && ran < 40, "{waited} of {ran}");
    for n in 0..40 {
        let _ = calls.settle_call(settle(&format!("t{n}"), 0)).await;
    }

    for replica in &guarded.replicas {
        replica.signal("STOP");
    }
    let answer = calls.authorize_call(authorize("m4", "alice", SEATTLE)).await.unwrap();
    assert_eq!(answer.get_ref().decision(), Decision::Allowed, "{answer:?}");
    let answer = calls.authorize_call(authorize("c3", "carol", SEATTLE)).await.unwrap();
    assert_eq!(answer.get_ref().decision(), Decision::LedgerUnavailable, "{answer:?}");
    let mut account = sidecar.account().await;
    let purchase = || PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: "po-2".to_owned(),
        amount: usd("5"),
        ..PurchaseCreditsRequest::default()
    };
    let refused = account.purchase_credits(purchase()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded), "{refused}");
    for replica in &guarded.replicas {
        replica.signal("CONT");
    }
    // Each is there once, and its repeat is answered once the replicas have it.
    let began = Instant::now();
    loop {
        let answer = calls.authorize_call(authorize("c3", "carol", SEATTLE)).await.unwrap();
        if answer.get_ref().decision() == Decision::Allowed {
            assert!(answer.get_ref().replayed);
            break;
        }
        assert!(began.elapsed() < BOUND, "{answer:?}");
    }
    while let Err(error) = account.purchase_credits(purchase()).await {
        assert!(began.elapsed() < BOUND, "{error}");
    }
    sidecar.client(&["audit"]).succeeded();
}

/// Calls of each sort and round, and callers at a time.
const MEASURED: (usize, usize) = (160, 16);

/// How long so many whole calls take.
async fn calls_take(sidecar: &Sidecar, payer: &str, name: &str) -> f64 {
    let client = sidecar.calls().await;
    let began = Instant::now();
    let callers = (0..MEASURED.1).map(|caller| {
        let mut calls = client.clone();
        async move {
            for n in 0..MEASURED.0 / MEASURED.1 {
                let call = format!("{name}-{caller}-{n}");
                let request = authorize(&call, payer, "+12065550100");
                let answer = calls.authorize_call(request).await.unwrap();
                assert_eq!(answer.get_ref().decision(), Decision::Allowed, "{answer:?}");
                calls.settle_call(settle(&call, 30)).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(callers).await;
    began.elapsed().as_secs_f64()
}

/// Prints by how much waiting for a replica lengthens calls, against a sidecar that does not wait, side by side
/// on the same Redis. `TOLLGATE_ROUNDS` for the figure in docs/RELIABILITY.md; nothing is asserted of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waiting_for_replicas_costs() {
    let rounds = std::env::var("TOLLGATE_ROUNDS").ok().and_then(|text| text.parse().ok());
    let guarded = Guarded::start(&[]);
    let modes = ["", "?replicas=1&replicas_for=money", "?replicas=1"];
    let sidecars = modes.map(|mode| {
        let url = format!("{}{mode}", guarded.url());
        Sidecar::ready(&["--ledger", &url, "--ledger-timeout", "2s"])
    });
    let mut document = tenants(&["contoso"]);
    for n in 0..40 {
        let licensed = "usage_location: US, licences: [MCOEV, MCOPSTN1]";
        document.push_str(&format!("      - {{ id: user-{n}, {licensed} }}\n"));
    }
    sidecars[0].set_up(&document);
    let payers = [("money", "carol"), ("minutes", "user-0")];
    // By payer and mode, the ratios to the first mode.
    let mut ratios: [[Vec<f64>; 3]; 2] = Default::default();
    for round in 0..rounds.unwrap_or(1) {
        for ((what, payer), ratios) in payers.iter().zip(&mut ratios) {
            let mut took = [0.0; 3];
            for n in 0..3 {
                let mode = (round + n) % 3;
                let name = format!("{what}-{round}-{mode}");
                took[mode] = calls_take(&sidecars[mode], payer, &name).await;
            }
            for mode in 0..3 {
                ratios[mode].push(took[mode] / took[0]);
            }
        }
    }
    for ((what, _), ratios) in payers.iter().zip(&mut ratios) {
        for (mode, ratios) in modes.iter().zip(ratios).skip(1) {
            ratios.sort_by(f64::total_cmp);
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            let median = ratios[ratios.len() / 2];
            eprintln!(
                "{mode}: a call of {what} takes {median:.2} times as long ({least:.2} to {most:.2})"
            );
        }
    }
}
