//! The way to Redis: one connection, or one to each node of a cluster.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, cmd, from_redis_value};

use crate::ledger::LedgerError;
use crate::ledger::redis::address::Address;
use crate::ledger::redis::cluster::{Cluster, Slot};
use crate::ledger::redis::node::{Node, Place, Request, Treatment};
use crate::ledger::redis::scripts::Verb;
use crate::ledger::redis::sentinels::Sentinels;
use crate::ledger::redis::{BadRedisUrl, RedisSettings};

/// Longest wait for one sentinel.
const SENTINEL_LIMIT: Duration = Duration::from_millis(500);

/// See the module.
pub(super) enum Connection {
    One(Node),
    Cluster(Cluster),
}

impl Connection {
    /// Connects, or starts trying to.
    pub(super) async fn open(settings: &RedisSettings) -> Result<Connection, BadRedisUrl> {
        let (address, replicas) = Address::parse(&settings.url)?;
        let of_cluster = matches!(address, Address::Cluster { .. });
        let treatment = Treatment { settings: settings.clone(), replicas, of_cluster };
        Ok(match address {
            Address::One(place) => {
                Connection::One(Node::open(Place::At(Box::new(place)), treatment).await)
            }
            Address::Sentinels { sentinels, master, redis } => {
                let limit = settings.connect_timeout.min(SENTINEL_LIMIT);
                let sentinels = Sentinels::new(sentinels, master, redis, limit);
                let sentinels = sentinels.map_err(|error| BadRedisUrl(error.to_string()))?;
                let place = Place::Named(Arc::new(sentinels));
                Connection::One(Node::open(place, treatment).await)
            }
            Address::Cluster { seeds, redis } => {
                Connection::Cluster(Cluster::open(seeds, redis, treatment).await)
            }
        })
    }

    /// Sends one command on keys of a slot.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        slot: Slot,
        command: &Cmd,
    ) -> Result<T, LedgerError> {
        self.send(slot, Request::Command(command)).await
    }

    /// Sends several commands on keys of a slot at once.
    pub(super) async fn query_all<T: FromRedisValue>(
        &self,
        slot: Slot,
        commands: &Pipeline,
    ) -> Result<T, LedgerError> {
        self.send(slot, Request::Many(commands)).await
    }

    /// Calls a function of the library, which is loaded where it is missing.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        slot: Slot,
        command: &Cmd,
        verb: Verb,
    ) -> Result<T, LedgerError> {
        self.send(slot, Request::Function(command, verb)).await
    }

    /// Whether all of Redis answers.
    pub(super) async fn ping(&self) -> Result<(), LedgerError> {
        match self {
            Connection::One(node) => {
                let answer = node.send(Request::Command(&cmd("PING")), false).await?;
                answer.map(drop).map_err(fault)
            }
            Connection::Cluster(cluster) => cluster.ping().await,
        }
    }

    async fn send<T: FromRedisValue>(
        &self,
        slot: Slot,
        request: Request<'_>,
    ) -> Result<T, LedgerError> {
        let answer = match self {
            Connection::One(node) => node.send(request, false).await?,
            Connection::Cluster(cluster) => cluster.send(slot, request).await?,
        };
        let unread = |error| LedgerError::Corrupt(RedisError::from(error).to_string());
        from_redis_value(answer.map_err(fault)?).map_err(unread)
    }
}

/// Refusals before the first command of a script: nothing was applied, and it may be sent again.
///
/// The scripts declare themselves (`#!lua`), so that Redis checks memory, disk, role and replicas
/// before it starts one.
const NOT_STARTED: &[&str] = &[
    "OOM",
    "READONLY",
    "LOADING",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "NOAUTH",
    "NOPERM",
    "NOSCRIPT",
    // Transactions only read.
    "EXECABORT",
    // Protected mode.
    "DENIED",
];

/// What a store says to whom it does not serve, without a word of its own for it: it takes no more clients.
const NOT_SERVED: &str = "max number of clients";

/// What an error means for the command that met it.
///
/// Any other refusal by Redis comes from a script that met a value it cannot read: every script reads
/// all before it writes, so that nothing is applied.
pub(super) fn fault(error: RedisError) -> LedgerError {
    let text = error.to_string();
    match (error.code(), error.kind()) {
        (Some(code), _) if NOT_STARTED.contains(&code) => LedgerError::Unavailable(text),
        (Some("ERR"), _) if text.contains(NOT_SERVED) => LedgerError::Unavailable(text),
        (Some(_), _) => LedgerError::Corrupt(text),
        // The first refusal within a transaction, or an answer of another type than expected.
        (None, ErrorKind::Extension | ErrorKind::UnexpectedReturnType) => {
            LedgerError::Corrupt(text)
        }
        // A parsing error that came from a broken stream and one from a value that is not of the
        // expected type look alike; only the former loses the connection.
        (None, ErrorKind::Parse) if !error.is_unrecoverable_error() => LedgerError::Corrupt(text),
        (None, _) => LedgerError::Indeterminate(text),
    }
}

/// Whether a script was refused because the store has no memory for what it may add: nothing was applied.
pub(super) fn is_out_of_memory(error: &LedgerError) -> bool {
    // As redis-rs shows a code that it has no word of its own for.
    matches!(error, LedgerError::Unavailable(text) if text.starts_with("\"OOM\""))
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn a_store_that_takes_no_more_clients_is_out_of_reach_and_holds_nothing_wrong() {
        let refused = |code: &str, detail: &str| {
            let error = format!("-{code} {detail}\r\n");
            let read = redis::parse_redis_value(error.as_bytes()).and_then(Value::extract_error);
            fault(read.expect_err("an error"))
        };
        for (code, detail) in [
            ("ERR", "max number of clients reached"),
            ("ERR", "max number of clients + cluster connections reached"),
            ("DENIED", "Redis is running in protected mode"),
            ("OOM", "command not allowed when used memory > 'maxmemory'."),
        ] {
            let found = refused(code, detail);
            assert!(matches!(found, LedgerError::Unavailable(_)), "{detail}: {found:?}");
            assert_eq!(is_out_of_memory(&found), code == "OOM", "{found:?}");
        }
        let found = refused("ERR", "Missing bytes in input. script: tollgate");
        assert!(matches!(found, LedgerError::Corrupt(_)), "{found:?}");
    }
}
