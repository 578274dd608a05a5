//! Commands that arrive while others are on their way are sent together, as one run of a script.
//!
//! A script run has a price of its own, whatever it does: to read the clock, the tenant and the pool, to
//! write them back, to come and go. A lane, which is a verb on a tenant, has few runs under way at a time;
//! what arrives meanwhile waits for the next, in the order of arrival. So nobody waits while there is
//! nothing to wait for, and the busier a tenant is, the less each of its calls costs. The script decides the
//! commands of a run one after the other, each as if it had come alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{Value, cmd};
use tokio::sync::oneshot;

use crate::charging::ids::TenantId;
use crate::ledger::redis::cluster::Slot;
use crate::ledger::redis::connection::Connection;
use crate::ledger::redis::scripts::{Library, Verb};
use crate::ledger::{ClockOffset, ClockReading, LedgerError};
use crate::metrics;

/// Runs of a lane that are under way at a time: one is being decided while the next one travels.
const UNDER_WAY: u32 = 2;

/// Most commands of a run, so that other tenants do not wait long for the store.
const MOST: usize = 64;

/// Most commands that wait in a lane. While Redis hangs, those whose caller has left are still there until
/// the run before them has ended.
const MOST_WAITING: usize = 10_000;

/// Sends scripts to Redis.
pub(super) struct Sender {
    connection: Connection,
    offset: ClockOffset,
    lanes: Mutex<HashMap<Lane, Queue>>,
}

type Lane = (Verb, TenantId);

#[derive(Default)]
struct Queue {
    under_way: u32,
    waiting: VecDeque<Request>,
}

struct Request {
    args: Vec<u8>,
    opaque: Vec<u8>,
    answer: oneshot::Sender<Result<Told, LedgerError>>,
}

/// What a script answers about a command: what it says, and the call.
pub(super) type Told = [Vec<u8>; 2];

impl Sender {
    pub(super) fn new(connection: Connection, offset: ClockOffset) -> Arc<Sender> {
        Arc::new(Sender { connection, offset, lanes: Mutex::default() })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where the ledger's clock stands.
    pub(super) fn clock(&self) -> ClockReading {
        self.offset.reading()
    }

    /// Runs a script that takes one command, and perhaps bytes that it keeps; its answer.
    pub(super) async fn run(
        &self,
        verb: Verb,
        tenant: &TenantId,
        args: &[u8],
        opaque: &[&[u8]],
    ) -> Result<Vec<u8>, LedgerError> {
        let clock = self.clock_argument();
        let arguments = [&[args, clock.as_bytes()], opaque].concat();
        bytes(verb, self.evaluate(verb, tenant, &arguments).await?)
    }

    /// Runs a script that takes many commands on one of them, together with those of others; its answer.
    ///
    /// Whoever stops waiting before its command was sent has withdrawn it.
    pub(super) async fn run_with_others(
        self: &Arc<Self>,
        verb: Verb,
        tenant: &TenantId,
        args: Vec<u8>,
        opaque: Vec<u8>,
    ) -> Result<Told, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let lane = (verb, tenant.clone());
        let starts = {
            let mut lanes = self.lanes();
            let queue = lanes.entry(lane.clone()).or_default();
            if queue.waiting.len() >= MOST_WAITING {
                let reason = format!("{MOST_WAITING} commands of tenant {tenant} wait already");
                return Err(LedgerError::Unavailable(reason));
            }
            queue.waiting.push_back(Request { args, opaque, answer });
            let starts = queue.under_way < UNDER_WAY;
            queue.under_way += u32::from(starts);
            starts
        };
        if starts {
            // A task of its own, since whoever started it may leave while others wait.
            tokio::spawn(self.clone().serve(lane));
        }
        let lost = || LedgerError::Indeterminate("the run of the script was lost".to_owned());
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Sends what waits in a lane, until nothing does.
    async fn serve(self: Arc<Self>, lane: Lane) {
        while let Some(requests) = self.next(&lane) {
            self.send(&lane, requests).await;
        }
    }

    /// The commands of the next run; `None` where there are none, and the lane has one run less.
    fn next(&self, lane: &Lane) -> Option<Vec<Request>> {
        let mut lanes = self.lanes();
        let queue = lanes.get_mut(lane)?;
        let mut requests = vec![];
        while requests.len() < MOST
            && let Some(request) = queue.waiting.pop_front()
        {
            if !request.answer.is_closed() {
                requests.push(request);
            }
        }
        if !requests.is_empty() {
            return Some(requests);
        }
        queue.under_way -= 1;
        if queue.under_way == 0 {
            lanes.remove(lane);
        }
        None
    }

    async fn send(&self, lane: &Lane, requests: Vec<Request>) {
        match self.send_together(lane, &requests).await {
            Ok(answers) => {
                for (request, answer) in requests.into_iter().zip(answers) {
                    let _ = request.answer.send(Ok(answer));
                }
            }
            // A value that cannot be read is the matter of one of them only, and nothing was written.
            Err(LedgerError::Corrupt(_)) if requests.len() > 1 => {
                for request in requests {
                    let alone = std::slice::from_ref(&request);
                    let answers = self.send_together(lane, alone).await;
                    let answer = answers.map(|mut answers| answers.pop().unwrap_or_default());
                    let _ = request.answer.send(answer);
                }
            }
            Err(error) => {
                for request in requests {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn send_together(
        &self,
        (verb, tenant): &Lane,
        requests: &[Request],
    ) -> Result<Vec<Told>, LedgerError> {
        metrics::get().run(*verb as usize, verb.script().name, requests.len());
        let clock = self.clock_argument();
        let mut arguments = Vec::with_capacity(1 + 2 * requests.len());
        arguments.push(clock.as_bytes());
        for request in requests {
            arguments.extend([&*request.args, &*request.opaque]);
        }
        match self.evaluate(*verb, tenant, &arguments).await? {
            Value::Array(parts) if parts.len() == 2 * requests.len() => {
                let mut parts = parts.into_iter().map(|part| bytes(*verb, part));
                let mut told = Vec::with_capacity(requests.len());
                while let Some(said) = parts.next() {
                    let call = parts.next().transpose()?.unwrap_or_default();
                    told.push([said?, call]);
                }
                Ok(told)
            }
            other => Err(unexpected(*verb, &other)),
        }
    }

    async fn evaluate(
        &self,
        verb: Verb,
        tenant: &TenantId,
        arguments: &[&[u8]],
    ) -> Result<Value, LedgerError> {
        let (script, library) = (verb.script(), Library::get());
        let mut command = cmd("FCALL");
        command.arg(library.function(verb)).arg(script.keys.len());
        for key in script.keys {
            command.arg(key.of(tenant));
        }
        command.arg(arguments);
        self.connection.call(Slot::of(tenant.as_str()), &command, script.writes()).await
    }

    /// What `read_clock` of the scripts expects.
    fn clock_argument(&self) -> String {
        match self.clock() {
            ClockReading::Shifted(millis) => millis.to_string(),
            ClockReading::Frozen(instant) => format!("={instant}"),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Queue>> {
        // Nothing that is done under the lock leaves a lane half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(verb: Verb, answer: Value) -> Result<Vec<u8>, LedgerError> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(verb, &other)),
    }
}

fn unexpected(verb: Verb, answer: &Value) -> LedgerError {
    LedgerError::Corrupt(format!("{} answered {answer:?}", verb.script().name))
}
