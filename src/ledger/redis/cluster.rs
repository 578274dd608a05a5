//! The nodes of a cluster, and which of them has a tenant.
//!
//! A tenant is one hash slot, and each node has a connection of its own, kept as that of a single Redis
//! is. A node that refuses a command says where the slot is; nothing was applied then, and the command
//! goes on from there.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    Value, cmd,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ledger::LedgerError;
use crate::ledger::redis::node::{Node, Place, Request, Treatment};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Longest way of one command from node to node, waits for a slot that is being moved included.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pauses before a refused command is sent again: from the first, doubling, to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// How often the cluster is asked for its slots, while all is well and while a node is missing.
const ASKED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));

/// Longest wait for a node that is asked for them.
const LIMIT: Duration = Duration::from_millis(500);

/// A hash slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

impl Slot {
    /// That of a hash tag, or of a key without one.
    pub(super) fn of(tag: &str) -> Slot {
        let mut sum: u16 = 0;
        for byte in tag.bytes() {
            sum ^= u16::from(byte) << 8;
            for _ in 0..8 {
                sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            }
        }
        Slot(sum % SLOTS)
    }
}

/// See the module.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

struct Shared {
    seeds: Vec<ConnectionInfo>,
    redis: RedisConnectionInfo,
    treatment: Treatment,
    slots: ArcSwap<Slots>,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    /// Wakes the keeper: somebody was refused.
    doubted: Notify,
}

/// Which node has a slot.
#[derive(Clone, Default)]
struct Slots {
    /// First, last, host and port; by the first.
    ranges: Vec<(u16, u16, Arc<str>)>,
    /// What nodes have said since.
    moved: HashMap<u16, Arc<str>>,
}

/// Where else a command must go.
enum Elsewhere {
    Moved(String),
    Ask(String),
    Wait,
}

impl Cluster {
    /// Finds the nodes and connects to them, or starts trying to.
    pub(super) async fn open(
        seeds: Vec<ConnectionInfo>,
        redis: RedisConnectionInfo,
        treatment: Treatment,
    ) -> Cluster {
        let shared = Arc::new(Shared {
            seeds,
            redis,
            treatment,
            slots: ArcSwap::default(),
            nodes: Mutex::default(),
            doubted: Notify::new(),
        });
        shared.refresh().await;
        let keeper = tokio::spawn(keep(shared.clone()));
        Cluster { shared, keeper }
    }

    /// Sends a request to the node that has the slot, wherever that is by now.
    pub(super) async fn send(
        &self,
        slot: Slot,
        request: Request<'_>,
    ) -> Result<Result<Value, RedisError>, LedgerError> {
        let shared = &self.shared;
        let until = Instant::now() + PATIENCE;
        let (mut asked, mut pause, mut hops) = (None, PAUSES.0, 0);
        loop {
            let (address, asking) = match asked.take() {
                Some(address) => (address, true),
                None => (shared.owner(slot)?, false),
            };
            let node = shared.node(&address).await?;
            let error = match node.send(request, asking).await {
                Ok(Ok(answer)) => return Ok(Ok(answer)),
                Ok(Err(error)) => error,
                Err(error) => {
                    shared.doubted.notify_one();
                    return Err(error);
                }
            };
            let Some(elsewhere) = elsewhere(&error, &address) else { return Ok(Err(error)) };
            if Instant::now() > until {
                return Ok(Err(error));
            }
            hops += 1;
            let waits = matches!(elsewhere, Elsewhere::Wait) || hops > 4;
            match elsewhere {
                Elsewhere::Moved(to) => shared.moved(slot, &to),
                Elsewhere::Ask(to) => asked = Some(to),
                Elsewhere::Wait => {}
            }
            if waits {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }

    /// Whether every slot has a node that answers.
    pub(super) async fn ping(&self) -> Result<(), LedgerError> {
        let slots = self.shared.slots.load_full();
        if !slots.are_all_there() {
            self.shared.doubted.notify_one();
            return Err(LedgerError::Unavailable("slots of the cluster have no node".to_owned()));
        }
        let ping = cmd("PING");
        let asked = slots.nodes().into_iter().map(async |address| {
            let node = self.shared.node(&address).await?;
            node.send(Request::Command(&ping), false).await
        });
        for answer in join_all(asked).await {
            answer
                .inspect_err(|_| self.shared.doubted.notify_one())?
                .map_err(super::connection::fault)?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn owner(&self, slot: Slot) -> Result<String, LedgerError> {
        let owner = self.slots.load().owner(slot).map(|owner| owner.to_string());
        owner.ok_or_else(|| {
            self.doubted.notify_one();
            LedgerError::Unavailable(format!("no node of the cluster has slot {}", slot.0))
        })
    }

    /// The node at an address, connected to now if it is new.
    async fn node(&self, address: &str) -> Result<Arc<Node>, LedgerError> {
        if let Some(node) = self.nodes().get(address) {
            return Ok(node.clone());
        }
        let unknown = || LedgerError::Unavailable(format!("{address:?} is no address of a node"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let port = port.parse().map_err(|_| unknown())?;
        let place = ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info();
        let place = place.map_err(|_| unknown())?.set_redis_settings(self.redis.clone());
        let node = Arc::new(Node::open(Place::At(Box::new(place)), self.treatment.clone()).await);
        Ok(self.nodes().entry(address.to_owned()).or_insert(node).clone())
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, slot: Slot, to: &str) {
        self.slots.rcu(|slots| {
            let mut slots = Slots::clone(slots);
            slots.moved.insert(slot.0, to.into());
            slots
        });
        self.doubted.notify_one();
    }

    /// Asks for the slots: a node that is connected, else those that the URL names.
    async fn refresh(&self) {
        let connected: Vec<(String, Arc<Node>)> = {
            let nodes = self.nodes();
            let live = nodes.iter().filter(|(_, node)| node.is_live());
            live.map(|(address, node)| (address.clone(), node.clone())).collect()
        };
        let mut command = cmd("CLUSTER");
        command.arg("SLOTS");
        for (address, node) in connected {
            let asked = node.send(Request::Command(&command), false);
            if let Ok(Ok(Ok(answer))) = tokio::time::timeout(LIMIT, asked).await
                && self.learn(&answer, &address).await
            {
                return;
            }
        }
        for seed in &self.seeds {
            let ConnectionAddr::Tcp(host, port) = seed.addr() else { continue };
            let asked = async {
                let client = Client::open(seed.clone())?;
                let mut connection = client.get_multiplexed_async_connection().await?;
                command.query_async::<Value>(&mut connection).await
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(LIMIT, asked).await
                && self.learn(&answer, &format!("{host}:{port}")).await
            {
                return;
            }
        }
    }

    /// Takes over what a node said of the slots, and connects to the nodes; `false` where it said nothing.
    async fn learn(&self, answer: &Value, said_by: &str) -> bool {
        let slots = Slots::read(answer, said_by);
        if slots.ranges.is_empty() {
            return false;
        }
        let nodes = slots.nodes();
        self.slots.store(Arc::new(slots));
        join_all(nodes.iter().map(|address| self.node(address))).await;
        self.nodes().retain(|address, _| nodes.contains(address));
        true
    }

    fn is_whole(&self) -> bool {
        let slots = self.slots.load();
        let nodes = self.nodes();
        let is_live = |address: &String| nodes.get(address).is_some_and(|node| node.is_live());
        slots.are_all_there() && slots.nodes().iter().all(is_live)
    }
}

impl Slots {
    /// From what CLUSTER SLOTS answered.
    fn read(answer: &Value, said_by: &str) -> Slots {
        let range = |range: &Value| {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return None;
            };
            let [host, Value::Int(port), ..] = &master[..] else { return None };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                _ => "",
            };
            let address = completed(&format!("{host}:{port}"), said_by);
            Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address.into()))
        };
        let Value::Array(ranges) = answer else { return Slots::default() };
        let mut ranges: Vec<(u16, u16, Arc<str>)> = ranges.iter().filter_map(range).collect();
        ranges.sort();
        Slots { ranges, moved: HashMap::new() }
    }

    fn owner(&self, slot: Slot) -> Option<&Arc<str>> {
        if let Some(owner) = self.moved.get(&slot.0) {
            return Some(owner);
        }
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot.0);
        let (_, last, owner) = self.ranges.get(after.checked_sub(1)?)?;
        (*last >= slot.0).then_some(owner)
    }

    fn nodes(&self) -> BTreeSet<String> {
        let owners = self.ranges.iter().map(|(_, _, owner)| owner).chain(self.moved.values());
        owners.map(|owner| owner.to_string()).collect()
    }

    fn are_all_there(&self) -> bool {
        let covered: u32 =
            self.ranges.iter().map(|(first, last, _)| u32::from(last - first) + 1).sum();
        covered == u32::from(SLOTS)
    }
}

/// A node may leave out its own host, which is then the one it was asked at.
fn completed(address: &str, said_by: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "?", port)) => {
            let host = said_by.rsplit_once(':').map_or(said_by, |(host, _)| host);
            format!("{host}:{port}")
        }
        _ => address.to_owned(),
    }
}

/// Where a refused command belongs, if a cluster refused it for that.
fn elsewhere(error: &RedisError, said_by: &str) -> Option<Elsewhere> {
    let node = || error.redirect_node().map(|(address, _)| completed(address, said_by));
    match error.code()? {
        "MOVED" => node().map(Elsewhere::Moved),
        "ASK" => node().map(Elsewhere::Ask),
        "TRYAGAIN" => Some(Elsewhere::Wait),
        _ => None,
    }
}

async fn keep(shared: Arc<Shared>) {
    loop {
        let pause = if shared.is_whole() { ASKED.0 } else { ASKED.1 };
        let _ = tokio::time::timeout(pause, shared.doubted.notified()).await;
        shared.refresh().await;
        // However many are refused meanwhile, it asks this often at most.
        tokio::time::sleep(PAUSES.1).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_what_redis_says_it_is() {
        // CLUSTER KEYSLOT of {contoso}:x, {fabrikam}:x, tg:tenants and 123456789.
        assert_eq!(Slot::of("123456789").0, 0x31c3);
        assert_eq!(Slot::of("foo").0, 12182);
        assert_eq!(Slot::of("").0, 0);
    }

    #[test]
    fn the_slots_that_a_node_names_are_found_and_its_own_host_is_filled_in() {
        let master = |host: &[u8], port| {
            Value::Array(vec![Value::BulkString(host.to_vec()), Value::Int(port)])
        };
        let answer = Value::Array(vec![
            Value::Array(vec![Value::Int(8000), Value::Int(16_383), master(b"", 2)]),
            Value::Array(vec![Value::Int(0), Value::Int(7998), master(b"h", 1)]),
        ]);
        let mut slots = Slots::read(&answer, "me:9");
        assert!(!slots.are_all_there());
        let owner = |slots: &Slots, slot| slots.owner(Slot(slot)).map(|owner| owner.to_string());
        assert_eq!(owner(&slots, 7998).as_deref(), Some("h:1"));
        assert_eq!(owner(&slots, 7999), None);
        assert_eq!(owner(&slots, 8000).as_deref(), Some("me:2"));
        slots.moved.insert(8000, "x:3".into());
        assert_eq!(owner(&slots, 8000).as_deref(), Some("x:3"));
    }
}
