//! One connection to one Redis that is always either usable or being made again.
//!
//! A task keeps it: it connects, asks every second whether the store still answers, and connects
//! again when it does not. Commands never wait for that: without a connection they fail at once.
//! So a store that hangs holds up those who ask while nobody knows, and nobody afterwards; the
//! attempts to connect are the probes that find it back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisError, RedisResult, Value,
    cmd, pipe,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::ledger::LedgerError;
use crate::ledger::redis::scripts::{Library, Verb};
use crate::ledger::redis::sentinels::{Sentinels, follow};
use crate::ledger::redis::{RedisSettings, money};

/// How often an idle connection is asked whether it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Pauses between attempts to connect: from the first, doubling, to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// Longest pause, and longest attempt, where another Redis may have taken over meanwhile.
const FAILOVER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    /// One of the library's functions, by its verb.
    Function(&'a Cmd, Verb),
    /// One after the other, or as a transaction.
    Many(&'a Pipeline),
}

/// Who must have what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replicas {
    /// How many; none as a rule.
    pub(super) number: u32,
    /// Only what [money] was moved by.
    pub(super) for_money: bool,
}

impl Replicas {
    /// Whether a function is waited for, whatever it answers.
    fn are_always_asked(self, request: Request<'_>) -> bool {
        self.number > 0
            && !self.for_money
            && matches!(request, Request::Function(_, verb) if verb.script().writes())
    }

    /// Whether it is waited for where it answers this.
    fn are_asked_now(self, request: Request<'_>, answer: &Value) -> bool {
        self.number > 0
            && self.for_money
            && matches!(request, Request::Function(_, verb) if money::is_moved(verb, answer))
    }
}

/// How a node is treated.
#[derive(Clone)]
pub(super) struct Treatment {
    pub(super) settings: RedisSettings,
    /// So many replicas must have what a function wrote before it counts as answered.
    pub(super) replicas: Replicas,
    /// Whether it belongs to a cluster, whose refusals must be told apart.
    pub(super) of_cluster: bool,
}

/// See the module.
pub(super) struct Node {
    link: Arc<Link>,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) struct Link {
    place: Place,
    config: AsyncConnectionConfig,
    treatment: Treatment,
    live: ArcSwapOption<Live>,
    /// Why there is none.
    trouble: Mutex<String>,
    /// Wakes the keeper: somebody doubts the connection.
    doubted: Notify,
}

/// Where to connect.
pub(super) enum Place {
    At(Box<ConnectionInfo>),
    /// Where these say.
    Named(Arc<Sentinels>),
}

struct Live {
    connection: MultiplexedConnection,
    /// Host and port, or path.
    at: String,
    /// Becomes true when it is given up: whoever waits for an answer need not wait longer.
    over: watch::Sender<bool>,
}

impl Node {
    /// Connects, or starts trying to.
    pub(super) async fn open(place: Place, treatment: Treatment) -> Node {
        let RedisSettings { connect_timeout, response_timeout, .. } = treatment.settings;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(Some(response_timeout));
        let link = Arc::new(Link {
            place,
            config,
            treatment,
            live: ArcSwapOption::empty(),
            trouble: Mutex::new("not connected yet".to_owned()),
            doubted: Notify::new(),
        });
        link.connect().await;
        let mut tasks = vec![tokio::spawn(keep(link.clone()))];
        if let Place::Named(sentinels) = &link.place {
            tasks.push(tokio::spawn(follow(sentinels.clone(), link.clone())));
        }
        Node { link, tasks }
    }

    /// Whether it has a connection.
    pub(super) fn is_live(&self) -> bool {
        self.link.live.load().is_some()
    }

    /// Sends one request; an error that Redis gave is left to the caller. `asking` is for a key that is on
    /// its way to this node.
    pub(super) async fn send(
        &self,
        request: Request<'_>,
        asking: bool,
    ) -> Result<Result<Value, RedisError>, LedgerError> {
        match self.exchange(request, asking).await? {
            Err(error) if is_unknown_function(&error) => {
                let mut load = cmd("FUNCTION");
                load.arg("LOAD").arg("REPLACE").arg(&Library::get().text);
                match self.exchange(Request::Command(&load), false).await? {
                    Ok(_) => self.exchange(request, asking).await,
                    refused => Ok(refused),
                }
            }
            known => Ok(known),
        }
    }

    async fn exchange(
        &self,
        request: Request<'_>,
        asking: bool,
    ) -> Result<Result<Value, RedisError>, LedgerError> {
        let live = self.link.current()?;
        let mut over = live.over.subscribe();
        let answer = answer(live.connection.clone(), request, asking, &self.link.treatment);
        tokio::pin!(answer);
        let late = tokio::time::sleep(self.link.treatment.settings.probe_timeout / 2);
        tokio::pin!(late);
        let mut is_late = false;
        loop {
            tokio::select! {
                biased;
                outcome = &mut answer => {
                    return outcome.map(|outcome| {
                        outcome.inspect_err(|error| self.link.consider(error, &live))
                    });
                }
                _ = over.wait_for(|over| *over) => {
                    return Err(LedgerError::Indeterminate(self.link.trouble()));
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.link.doubted.notify_one();
                }
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Sends, and waits for the answer, and for replicas where that answer must not be lost.
async fn answer(
    mut connection: MultiplexedConnection,
    request: Request<'_>,
    asking: bool,
    treatment: &Treatment,
) -> Result<Result<Value, RedisError>, LedgerError> {
    let answer = ask(connection.clone(), request, asking, treatment).await?;
    let Ok(told) = &answer else { return Ok(answer) };
    let replicas = treatment.replicas;
    if !replicas.are_asked_now(request, told) {
        return Ok(answer);
    }
    // Behind it on the same connection: what is told of is in it.
    let mut wait = cmd("WAIT");
    wait.arg(replicas.number).arg(replica_limit(&treatment.settings));
    let copies = wait.query_async::<Value>(&mut connection).await;
    // It was carried out, whatever becomes of the copies.
    let unknown = |error: RedisError| LedgerError::Indeterminate(error.to_string());
    confirmed(copies.map_err(unknown)?, replicas).map(|()| answer)
}

fn confirmed(copies: Value, replicas: Replicas) -> Result<(), LedgerError> {
    let number = replicas.number;
    match copies {
        Value::Int(copies) if copies >= i64::from(number) => Ok(()),
        copies => Err(LedgerError::Indeterminate(format!(
            "{number} replicas were to have it, {copies:?} have"
        ))),
    }
}

async fn ask(
    mut connection: MultiplexedConnection,
    request: Request<'_>,
    asking: bool,
    treatment: &Treatment,
) -> Result<Result<Value, RedisError>, LedgerError> {
    let waits = treatment.replicas.are_always_asked(request);
    let as_one = !asking && !waits;
    match request {
        Request::Command(command) | Request::Function(command, _) if as_one => {
            return Ok(command.query_async(&mut connection).await);
        }
        Request::Many(commands) if as_one && !treatment.of_cluster => {
            return Ok(commands.query_async(&mut connection).await);
        }
        _ => {}
    }
    // Spelt out, so that each refusal is seen as it was given.
    let (mut all, mut wanted) = (pipe(), 1);
    if asking {
        all.cmd("ASKING");
    }
    match request {
        Request::Command(command) | Request::Function(command, _) => {
            all.add_command(command.clone());
        }
        Request::Many(commands) if commands.is_transaction() => {
            all.cmd("MULTI");
            commands.cmd_iter().for_each(|command| add(&mut all, command));
            all.cmd("EXEC");
        }
        Request::Many(commands) => {
            wanted = commands.len();
            commands.cmd_iter().for_each(|command| add(&mut all, command));
        }
    }
    if waits {
        all.cmd("WAIT").arg(treatment.replicas.number).arg(replica_limit(&treatment.settings));
    }
    let answers: RedisResult<Vec<Value>> = all.ignore_errors().query_async(&mut connection).await;
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(error) => return Ok(Err(error)),
    };
    let copies = waits.then(|| answers.pop()).flatten();
    let first = answers.len().saturating_sub(wanted);
    let is_many = matches!(request, Request::Many(commands) if !commands.is_transaction());
    let read = answers.into_iter().map(Value::extract_error).collect::<RedisResult<Vec<_>>>();
    let answer = match read {
        Ok(mut answers) => {
            let mut last = answers.split_off(first);
            if is_many { Value::Array(last) } else { last.pop().unwrap_or(Value::Nil) }
        }
        Err(error) => return Ok(Err(error)),
    };
    copies.map_or(Ok(()), |copies| confirmed(copies, treatment.replicas))?;
    Ok(Ok(answer))
}

fn add(all: &mut Pipeline, command: &Cmd) {
    all.add_command(command.clone());
}

/// Longest wait for replicas, in milliseconds: the caller waits for the answer itself, too.
fn replica_limit(settings: &RedisSettings) -> u128 {
    (settings.probe_timeout / 2).as_millis().max(1)
}

impl Link {
    fn current(&self) -> Result<Arc<Live>, LedgerError> {
        self.live.load_full().ok_or_else(|| LedgerError::Unavailable(self.trouble()))
    }

    fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn may_fail_over(&self) -> bool {
        self.treatment.of_cluster || matches!(self.place, Place::Named(_))
    }

    async fn connect(&self) -> bool {
        let limit = match self.may_fail_over() {
            true => self.treatment.settings.connect_timeout.min(FAILOVER.1),
            false => self.treatment.settings.connect_timeout,
        };
        let trouble = match tokio::time::timeout(limit, self.reach()).await {
            Ok(Ok(live)) => {
                self.live.store(Some(Arc::new(live)));
                return true;
            }
            Ok(Err(trouble)) => trouble,
            Err(_) => format!("no connection within {limit:?}"),
        };
        self.explain(trouble);
        false
    }

    async fn reach(&self) -> Result<Live, String> {
        let place = match &self.place {
            Place::At(place) => (**place).clone(),
            Place::Named(sentinels) => sentinels.master().await?,
        };
        let at = place.addr().to_string();
        let trouble = |error: RedisError| format!("{at}: {error}");
        // A run is sent while the answer to another is awaited: without this it would wait for that one's
        // acknowledgement, which the other side may put off for 40 ms (RFC 1122, section 4.2.3.2).
        let tcp = place.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(place.set_tcp_settings(tcp)).map_err(trouble)?;
        let connected = client.get_multiplexed_async_connection_with_config(&self.config).await;
        let mut connection = connected.map_err(trouble)?;
        if matches!(self.place, Place::Named(_)) {
            // Sentinels may not know yet that it has become a replica, or it may not know itself.
            let role = cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await;
            match role.map_err(trouble)?.first() {
                Some(Value::BulkString(role)) if role == b"master" => {}
                role => return Err(format!("{at} is no master: {role:?}")),
            }
        }
        Ok(Live { connection, at, over: watch::Sender::new(false) })
    }

    /// Looks at an error of a connection: drops one that is broken, so that nobody else meets the
    /// same, and has the keeper ask one that is late whether it lives.
    fn consider(&self, error: &RedisError, live: &Arc<Live>) {
        let is_no_master = error.code() == Some("READONLY") && self.may_fail_over();
        if is_no_master || error.is_unrecoverable_error() && !error.is_timeout() {
            self.lose(&error.to_string(), live);
        } else if error.is_io_error() {
            self.doubted.notify_one();
        }
    }

    /// Gives up a connection that is not to where the master is.
    pub(super) fn follow(&self, master: &str) {
        if let Some(live) = self.live.load_full()
            && live.at != master
        {
            tracing::warn!(from = live.at, to = master, "another redis has become the master");
            self.lose("another redis has become the master", &live);
        }
    }

    fn lose(&self, trouble: &str, live: &Arc<Live>) {
        let current = self.live.load();
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            return;
        }
        self.explain(trouble.to_owned());
        self.live.compare_and_swap(&*current, None);
        live.over.send_replace(true);
        self.doubted.notify_one();
    }

    fn explain(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Asks whether the store answers, and drops the connection if it does not.
    async fn check(&self) {
        let Some(live) = self.live.load_full() else { return };
        let mut connection = live.connection.clone();
        let limit = self.treatment.settings.probe_timeout;
        let ping = cmd("PING");
        let asked = ping.query_async::<Value>(&mut connection);
        let trouble = match tokio::time::timeout(limit, asked).await {
            // A refusal, such as LOADING, is an answer too.
            Ok(Err(error)) if error.code().is_none() => error.to_string(),
            Ok(_) => return,
            Err(_) => format!("no answer within {limit:?}"),
        };
        tracing::warn!(at = live.at, trouble, "redis no longer answers; connecting again");
        self.lose(&trouble, &live);
    }
}

async fn keep(link: Arc<Link>) {
    let (mut pause, mut longest) = PAUSES;
    if link.may_fail_over() {
        longest = FAILOVER.0;
    }
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

/// Whether Redis does not have this version's library: a new one, or one that was flushed.
fn is_unknown_function(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error.detail().is_some_and(|text| text.contains("Function not found"))
}
