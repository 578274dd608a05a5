//! A Redis Cluster of the measurement's own: masters that share the slots evenly, without replicas.

use std::path::Path;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value, cmd};

use crate::redis_server::{RedisServer, free_port};

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// They take 2 s before they serve, whatever happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts so many masters, which keep what they know of each other in that folder; they serve.
pub fn start(masters: usize, folder: &Path) -> Vec<RedisServer> {
    let node = |nth: usize| {
        let bus = free_port().to_string();
        let config = format!("nodes-{nth}.conf");
        let folder = folder.to_string_lossy();
        let server = RedisServer::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-config-file",
            &config,
            "--dir",
            &folder,
        ]);
        (server, bus)
    };
    let nodes: Vec<(RedisServer, String)> = (0..masters).map(node).collect();
    for (nth, (server, _)) in nodes.iter().enumerate() {
        let [first, end] = [nth, nth + 1].map(|nth| SLOTS * nth / masters);
        let _: Value = ask(server, &["SET-CONFIG-EPOCH", &(nth + 1).to_string()]);
        let last = (end - 1).to_string();
        let _: Value = ask(server, &["ADDSLOTSRANGE", &first.to_string(), &last]);
    }
    for (other, bus) in &nodes[1..] {
        let port = other.port().to_string();
        let _: Value = ask(&nodes[0].0, &["MEET", "127.0.0.1", &port, bus]);
    }
    let patience = Instant::now() + PATIENCE;
    let known = format!("cluster_known_nodes:{masters}\r");
    for (server, _) in &nodes {
        loop {
            let info: String = ask(server, &["INFO"]);
            if info.contains("cluster_state:ok") && info.contains(&known) {
                break;
            }
            assert!(Instant::now() < patience, "the cluster does not serve: {info}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    nodes.into_iter().map(|(server, _)| server).collect()
}

/// What `tollgate serve --ledger` takes.
pub fn url(masters: &[RedisServer]) -> String {
    let places: Vec<String> =
        masters.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
    format!("redis+cluster://{}", places.join(","))
}

/// Runs a command of CLUSTER.
fn ask<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut connection = server.client().get_connection().expect("redis answers");
    let answer = cmd("CLUSTER").arg(words).query(&mut connection);
    answer.unwrap_or_else(|error| panic!("CLUSTER {words:?}: {error}"))
}
