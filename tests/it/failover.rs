//! The running program on a Redis that sentinels guard: the master is killed under load, another takes over.

use std::time::{Duration, Instant};

use redis::Value;

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
