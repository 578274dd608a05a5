//! The running program on a Redis cluster: tenants on several nodes, a slot that moves under load, a replica
//! that is promoted.

use std::time::{Duration, Instant};

use redis::Value;

use crate::support::process::Sidecar;
use crate::support::redis_group::{Process, Shards};
use crate::support::traffic::{Traffic, tenants};

/// Each is of another master.
const TENANTS: [&str; 3] = ["contoso", "tailspin", "northwind"];

/// Master of contoso, whose slot is 6250.
const OF_CONTOSO: usize = 1;

const BOUND: Duration = Duration::from_secs(10);

fn on(ledger: &str) -> Sidecar {
    let sidecar = Sidecar::ready(&["--ledger", ledger, "--ledger-timeout", "500ms"]);
    sidecar.set_up(&tenants(&TENANTS));
    sidecar
}

/// Moves a slot as `redis-cli --cluster reshard` does, key by key.
fn migrate(shards: &Shards, slot: u16, from: &Process, to: &Process) -> Duration {
    let begun = Instant::now();
    let slot = slot.to_string();
    let [from_id, to_id] = [from, to].map(|node| node.ask::<String>(&["CLUSTER", "MYID"]));
    let _: Value = to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    let _: Value = from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let port = to.port.to_string();
    loop {
        let keys: Vec<String> = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
        let [key] = &keys[..] else { break };
        let moved = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
        let _: Value = from.ask(&moved);
    }
    for node in [to, from].into_iter().chain(&shards.masters) {
        let _: Value = node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_loses_nothing_and_charges_nobody_twice() {
    let shards = Shards::start(&[]);
    let places = TENANTS.map(|tenant| Shards::master_of(shards.slot(tenant)));
    assert_eq!(places.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{places:?}");
    let sidecar = on(&shards.url());
    let mut traffic = vec![];
    for tenant in TENANTS {
        traffic.push(Traffic::start(&sidecar, tenant).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (slot, here, there) = (shards.slot("contoso"), places[0], places[1]);
    // It must be loaded by those who arrive.
    let _: Value = shards.masters[there].ask(&["FUNCTION", "FLUSH"]);
    let mut took = vec![];
    for (from, to) in [(here, there), (there, here)] {
        took.push(migrate(&shards, slot, &shards.masters[from], &shards.masters[to]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for (tenant, traffic) in TENANTS.into_iter().zip(traffic) {
        let outcome = traffic.end(Duration::from_millis(200)).await;
        let lost = outcome.lost(&sidecar, tenant).await;
        eprintln!(
            "slot of contoso moved twice, within {took:?}: {tenant}: {} calls, {} answers to \
             repeat, outage {:?}, lost {lost}, forgotten {}",
            outcome.done.len(),
            outcome.refused,
            outcome.outage(),
            outcome.forgotten
        );
        assert_eq!((lost, outcome.forgotten), (0, 0));
        assert!(outcome.outage() < BOUND, "{:?}", outcome.outage());
    }
    // What concerns all tenants reaches all nodes.
    sidecar.client(&["audit"]).succeeded();
    let asked: Vec<String> =
        shards.masters.iter().map(|node| node.ask(&["INFO", "errorstats"])).collect();
    let met = |code: &str| asked.iter().any(|stats| stats.contains(&format!("errorstat_{code}:")));
    // Which of the two is met while the keys move depends on how many are there when a command comes.
    assert!(met("MOVED") && (met("ASK") || met("TRYAGAIN")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_in_the_cluster_that_is_promoted_under_load_has_what_it_confirmed() {
    let shards = Shards::start(&[OF_CONTOSO; 2]);
    let place = Shards::master_of(shards.slot("contoso"));
    assert_eq!(place, OF_CONTOSO);
    let sidecar = Sidecar::ready(&[
        "--ledger",
        &format!("{}?replicas=1", shards.url()),
        "--ledger-timeout",
        "500ms",
    ]);
    sidecar.set_up(&tenants(&["contoso"]));
    let traffic = Traffic::start(&sidecar, "contoso").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    shards.masters[place].kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    shards.wait_until_ok();
    let healed = killed.elapsed();
    let outcome = traffic.end(Duration::from_secs(1)).await;
    let lost = outcome.lost(&sidecar, "contoso").await;
    eprintln!(
        "promotion in a cluster, replicas=1: {} calls, {} answers to repeat, cluster ok within \
         {healed:?}, outage {:?}, lost {lost}, forgotten {}",
        outcome.done.len(),
        outcome.refused,
        outcome.outage(),
        outcome.forgotten
    );
    assert_eq!((lost, outcome.forgotten), (0, 0));
    assert!(outcome.outage() < BOUND, "{:?}", outcome.outage());
}
