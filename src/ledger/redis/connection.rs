//! One connection to Redis that is always either usable or being made again.
//!
//! A task keeps it: it connects, asks every second whether the store still answers, and connects
//! again when it does not. Commands never wait for that: without a connection they fail at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::ledger::LedgerError;
use crate::ledger::redis::RedisSettings;

/// How often an idle connection is asked whether it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Pauses between attempts to connect: from the first, doubling, to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

pub(super) struct Connection {
    link: Arc<Link>,
    keeper: JoinHandle<()>,
}

struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    live: ArcSwapOption<MultiplexedConnection>,
    /// Why there is none.
    trouble: Mutex<String>,
    /// Wakes the keeper: somebody doubts the connection.
    doubted: Notify,
}

impl Connection {
    /// Connects, or starts trying to.
    pub(super) async fn open(settings: &RedisSettings) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let link = Arc::new(Link {
            client: Client::open(settings.url.as_str())?,
            config,
            connect_timeout: settings.connect_timeout,
            live: ArcSwapOption::empty(),
            trouble: Mutex::new("not connected yet".to_owned()),
            doubted: Notify::new(),
        });
        link.connect().await;
        let keeper = tokio::spawn(keep(link.clone()));
        Ok(Connection { link, keeper })
    }

    /// Sends one command.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LedgerError> {
        self.try_query(command).await?.map_err(fault)
    }

    /// Sends one command; an error is left to the caller.
    pub(super) async fn try_query<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Result<T, RedisError>, LedgerError> {
        let live = self.link.current()?;
        let outcome = command.query_async(&mut MultiplexedConnection::clone(&live)).await;
        Ok(outcome.inspect_err(|error| self.link.consider(error, &live)))
    }

    /// Sends several commands at once.
    pub(super) async fn query_all<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, LedgerError> {
        let live = self.link.current()?;
        let outcome = commands.query_async(&mut MultiplexedConnection::clone(&live)).await;
        outcome.inspect_err(|error| self.link.consider(error, &live)).map_err(fault)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    fn current(&self) -> Result<Arc<MultiplexedConnection>, LedgerError> {
        self.live.load_full().ok_or_else(|| LedgerError::Unavailable(self.trouble()))
    }

    fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self) -> bool {
        let attempt = self.client.get_multiplexed_async_connection_with_config(&self.config);
        let connected = tokio::time::timeout(self.connect_timeout, attempt).await;
        let trouble = match connected {
            Ok(Ok(connection)) => {
                self.live.store(Some(Arc::new(connection)));
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {:?}", self.connect_timeout),
        };
        self.explain(trouble);
        false
    }

    /// Looks at an error of a connection: drops one that is broken, so that nobody else meets the
    /// same, and has the keeper ask one that is late whether it lives.
    fn consider(&self, error: &RedisError, connection: &Arc<MultiplexedConnection>) {
        if error.is_unrecoverable_error() && !error.is_timeout() {
            self.lose(error, connection);
        } else if error.is_io_error() {
            self.doubted.notify_one();
        }
    }

    fn lose(&self, error: &RedisError, connection: &Arc<MultiplexedConnection>) {
        let current = self.live.load();
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            return;
        }
        self.explain(error.to_string());
        self.live.compare_and_swap(&*current, None);
        self.doubted.notify_one();
    }

    fn explain(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Asks whether the store answers, and drops the connection if it does not.
    async fn check(&self) {
        let Some(live) = self.live.load_full() else { return };
        let mut connection = MultiplexedConnection::clone(&live);
        let answer = redis::cmd("PING").query_async::<redis::Value>(&mut connection).await;
        // A refusal, such as LOADING, is an answer too.
        if let Err(error) = answer
            && error.code().is_none()
        {
            tracing::warn!(%error, "redis no longer answers; connecting again");
            self.lose(&error, &live);
        }
    }
}

async fn keep(link: Arc<Link>) {
    let (mut pause, longest) = PAUSES;
    loop {
        if link.live.load().is_none() {
            if link.connect().await {
                pause = PAUSES.0;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            continue;
        }
        let _ = tokio::time::timeout(HEARTBEAT, link.doubted.notified()).await;
        link.check().await;
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
];

/// What an error means for the command that met it.
///
/// Any other refusal by Redis comes from a script that met a value it cannot read: every script reads
/// all before it writes, so that nothing is applied.
pub(super) fn fault(error: RedisError) -> LedgerError {
    let text = error.to_string();
    match (error.code(), error.kind()) {
        (Some(code), _) if NOT_STARTED.contains(&code) => LedgerError::Unavailable(text),
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
