//! Commands that arrive while others are on their way are sent together, as one run of a script.
//!
//! A script run has a price of its own, whatever it does: to read the clock, the tenant and the pool, to
//! write them back, to come and go. A lane, which is what is asked about a tenant's calls, has few runs under
//! way at a time, one or two; what arrives meanwhile waits for the next, in the order of arrival, whatever its verb. So nobody waits
//! while there is nothing to wait for, and the busier a tenant is, the less each of its calls costs. The script decides
//! the commands of a run one after the other, each as if it had come alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{Value, cmd};
use tokio::sync::oneshot;

use crate::charging::ids::TenantId;
use crate::charging::units::Millis;
use crate::ledger::marks::{Lost, Mark, Marks, Regression};
use crate::ledger::redis::cluster::Slot;
use crate::ledger::redis::codec::{RegressedArgs, encode};
use crate::ledger::redis::connection::{Connection, is_out_of_memory};
use crate::ledger::redis::keys::{Key, mark, missing};
use crate::ledger::redis::read_regressed;
use crate::ledger::redis::scripts::{CallVerb, Library, Verb};
use crate::ledger::{ClockOffset, ClockReading, LedgerError};
use crate::metrics;

/// Runs that are under way at a time before a lane has no second one: one is being decided while the next one
/// travels. Where other lanes have theirs under way, the store has enough to do meanwhile, and what waits for the
/// lane's own run costs less together.
const UNDER_WAY: u32 = 2;

/// Most commands of a run, so that other tenants do not wait long for the store.
const MOST: usize = 64;

/// Most commands that wait in a lane. While Redis hangs, those whose caller has left are still there until
/// the run before them has ended.
const MOST_WAITING: usize = 10_000;

/// Where an authorize has what it shares with many others: not sent again where the authorize before it in the run has the same.
const SHARED: usize = 2;

/// How often a run is sent that finds the ledger to have gone back: more than once only where it goes back
/// again and again.
const MOST_REGRESSIONS: usize = 4;

/// Sends scripts to Redis.
pub(super) struct Sender {
    connection: Connection,
    offset: ClockOffset,
    marks: Arc<Marks>,
    lanes: Mutex<Lanes>,
}

type Lane = (Traffic, TenantId);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Traffic {
    /// What callers wait for.
    Live,
    /// What a loss has taken is put back in masses, which nobody is to wait behind.
    PutBack,
}

#[derive(Default)]
struct Lanes {
    /// Those that have runs under way.
    queues: HashMap<Lane, Queue>,
    /// Runs, of all lanes.
    under_way: u32,
}

#[derive(Default)]
struct Queue {
    under_way: u32,
    waiting: VecDeque<Request>,
}

struct Request {
    command: Command,
    /// With the epoch in which it was carried out.
    answer: oneshot::Sender<Result<(Told, u64), LedgerError>>,
}

impl Request {
    /// Whether it asks for a call to end, which always finds memory.
    fn ends(&self) -> bool {
        self.command.verb == CallVerb::End
    }
}

fn refuse(requests: Vec<Request>, error: &LedgerError) {
    for request in requests {
        let _ = request.answer.send(Err(error.clone()));
    }
}

/// What a script is told for a command on a call.
pub(super) struct Command {
    pub(super) verb: CallVerb,
    /// Its packed fields, what the script keeps and does not read, and whatever else its script names; of an authorize
    /// [`SHARED`] at its place.
    pub(super) arguments: Vec<Vec<u8>>,
}

/// What a script answers about a command.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) now: Millis,
    /// A tag, and a detail behind a blank.
    pub(super) said: Vec<u8>,
    /// Empty where there is none to show.
    pub(super) call: Vec<u8>,
}

impl Sender {
    pub(super) fn new(
        connection: Connection,
        offset: ClockOffset,
        marks: Arc<Marks>,
    ) -> Arc<Sender> {
        Arc::new(Sender { connection, offset, marks, lanes: Mutex::default() })
    }

    /// What was acknowledged to this sidecar.
    pub(super) fn marks(&self) -> &Arc<Marks> {
        &self.marks
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
        match <[Value; 1]>::try_from(self.evaluate(verb, tenant, &arguments).await?.0) {
            Ok([answer]) => bytes(verb, answer),
            Err(parts) => Err(unexpected(verb, &Value::Array(parts))),
        }
    }

    /// Carries out a command on a call, together with those of others; its answer.
    ///
    /// Whoever stops waiting before its command was sent has withdrawn it.
    pub(super) async fn run_with_others(
        self: &Arc<Self>,
        tenant: &TenantId,
        command: Command,
    ) -> Result<Told, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let traffic = match command.verb {
            CallVerb::Restore => Traffic::PutBack,
            _ => Traffic::Live,
        };
        let lane = (traffic, tenant.clone());
        let starts = {
            let Lanes { queues, under_way } = &mut *self.lanes();
            let queue = queues.entry(lane.clone()).or_default();
            if queue.waiting.len() >= MOST_WAITING {
                let reason = format!("{MOST_WAITING} commands of tenant {tenant} wait already");
                return Err(LedgerError::Unavailable(reason));
            }
            queue.waiting.push_back(Request { command, answer });
            let starts = queue.under_way == 0 || *under_way < UNDER_WAY;
            queue.under_way += u32::from(starts);
            *under_way += u32::from(starts);
            starts
        };
        if starts {
            // A task of its own, since whoever started it may leave while others wait.
            tokio::spawn(self.clone().serve(lane));
        }
        let lost = || LedgerError::Indeterminate("the run of the script was lost".to_owned());
        let (told, epoch) = answered.await.unwrap_or_else(|_| Err(lost()))?;
        // Again, since it may have lain here while another thread found a loss and replayed it.
        match epoch < self.marks.known(tenant).epoch {
            true => Err(gone_back()),
            false => Ok(told),
        }
    }

    /// Sends what waits in a lane, until nothing does.
    async fn serve(self: Arc<Self>, lane: Lane) {
        while let Some(requests) = self.next(&lane) {
            self.send(&lane.1, requests).await;
        }
    }

    /// The commands of the next run; `None` where there are none, and the lane has one run less.
    fn next(&self, lane: &Lane) -> Option<Vec<Request>> {
        let Lanes { queues, under_way } = &mut *self.lanes();
        let queue = queues.get_mut(lane)?;
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
        *under_way -= 1;
        if queue.under_way == 0 {
            queues.remove(lane);
        }
        None
    }

    /// Sends commands as one run, or as few as can be; each is answered.
    async fn send(&self, tenant: &TenantId, requests: Vec<Request>) {
        let mut groups = vec![requests];
        while let Some(requests) = groups.pop() {
            match self.send_together(tenant, &requests).await {
                Ok((answers, epoch)) => {
                    for (request, answer) in requests.into_iter().zip(answers) {
                        let _ = request.answer.send(Ok((answer, epoch)));
                    }
                }
                // A value that cannot be read is the matter of one of them only, and nothing was written.
                Err(LedgerError::Corrupt(_)) if requests.len() > 1 => {
                    groups.extend(requests.into_iter().rev().map(|request| vec![request]));
                }
                // Calls can end where there is no memory for anything else, and nothing was written.
                Err(error) if is_out_of_memory(&error) && !requests.iter().all(Request::ends) => {
                    let (ends, others): (Vec<_>, Vec<_>) =
                        requests.into_iter().partition(Request::ends);
                    if !ends.is_empty() {
                        groups.push(ends);
                    }
                    refuse(others, &error);
                }
                Err(error) => refuse(requests, &error),
            }
        }
    }

    async fn send_together(
        &self,
        tenant: &TenantId,
        requests: &[Request],
    ) -> Result<(Vec<Told>, u64), LedgerError> {
        let verbs: Vec<u8> = requests.iter().map(|request| request.command.verb as u8).collect();
        let verb = match requests.iter().all(Request::ends) {
            true => Verb::Ends,
            false => Verb::Calls,
        };
        metrics::get().run(verb as usize, verb.script().name, requests.len());
        let clock = self.clock_argument();
        let mut arguments = Vec::with_capacity(2 + 5 * requests.len());
        arguments.extend([clock.as_bytes(), &*verbs]);
        let mut shared: &[u8] = b"";
        for Request { command: Command { verb, arguments: own }, .. } in requests {
            let first = arguments.len();
            arguments.extend(own.iter().map(Vec::as_slice));
            if *verb == CallVerb::Authorize {
                let place = &mut arguments[first + SHARED];
                match *place == shared {
                    true => *place = b"",
                    false => shared = place,
                }
            }
        }
        let (answer, epoch) = self.evaluate(verb, tenant, &arguments).await?;
        let count = answer.len();
        let mut parts = answer.into_iter();
        match parts.next() {
            Some(Value::Int(now)) if count == 1 + 2 * requests.len() => {
                let mut parts = parts.map(|part| bytes(verb, part));
                let mut told = Vec::with_capacity(requests.len());
                while let Some(said) = parts.next() {
                    let call = parts.next().transpose()?.unwrap_or_default();
                    told.push(Told { now: Millis(now), said: said?, call });
                }
                Ok((told, epoch))
            }
            first => Err(unexpected(verb, &Value::Array(first.into_iter().chain(parts).collect()))),
        }
    }

    /// Runs a script; one that is counted only on a ledger that has all that was acknowledged. With the epoch
    /// of its answer; none is above that of what is not counted.
    async fn evaluate(
        &self,
        verb: Verb,
        tenant: &TenantId,
        arguments: &[&[u8]],
    ) -> Result<(Vec<Value>, u64), LedgerError> {
        if !verb.is_counted() {
            return Ok((vec![self.call(verb, tenant, arguments).await?], u64::MAX));
        }
        for _ in 0..MOST_REGRESSIONS {
            let (sidecar, known) = self.marks.sent(tenant);
            let (field, acknowledged) = (mark(&sidecar), known.packed().to_string());
            let counted = [field.as_bytes(), acknowledged.as_bytes()];
            let mut parts = match self.call(verb, tenant, &[arguments, &counted].concat()).await? {
                Value::Array(parts) => parts,
                other => return Err(unexpected(verb, &other)),
            };
            let found = match parts[..] {
                [.., Value::Int(epoch), Value::Int(sequence)] => read_mark(verb, epoch, sequence)?,
                _ => return Err(unexpected(verb, &Value::Array(parts))),
            };
            parts.truncate(parts.len() - 2);
            if parts.is_empty() {
                self.regressed(tenant, Regression { known, found }).await?;
                continue;
            }
            if found.epoch < self.marks.known(tenant).epoch {
                // Of before a loss that was found while it was on its way: nobody knows whether it
                // lasts, and the replay may have looked for it already.
                return Err(gone_back());
            }
            if found.epoch > known.epoch {
                // Somebody has found a loss, perhaps another thread of this sidecar, whose answer is on
                // its way: whoever acts on this one must know of it.
                self.look_for_missing(tenant, &sidecar).await?;
            }
            self.marks.acknowledge(tenant, &sidecar, found);
            return Ok((parts, found.epoch));
        }
        let again = format!("the ledger of tenant {tenant} goes back again and again");
        Err(LedgerError::Unavailable(again))
    }

    /// An error says that it cannot be known; the run behind which this is asked was carried out.
    async fn look_for_missing(&self, tenant: &TenantId, sidecar: &str) -> Result<(), LedgerError> {
        let mut command = cmd("HGET");
        command.arg(Key::Sequence.of(tenant)).arg(missing(sidecar));
        let unknown = |why: String| {
            LedgerError::Indeterminate(format!("what is missing is not known: {why}"))
        };
        let found = self.connection.query(Slot::of(tenant.as_str()), &command).await;
        let found: Option<String> = found.map_err(|error| unknown(error.to_string()))?;
        if let Some(text) = found {
            let lost = Lost::decode(&text);
            let lost = lost.ok_or_else(|| unknown(format!("{text:?} cannot be read")))?;
            self.marks.lose(tenant, lost);
        }
        Ok(())
    }

    /// The ledger has lost something that was acknowledged: says so in it, once for all sidecars, and has
    /// it replayed. From then on commands are carried out again.
    pub(super) async fn regressed(
        &self,
        tenant: &TenantId,
        regression: Regression,
    ) -> Result<(), LedgerError> {
        let (sidecar, keeps) = (self.marks.sidecar(), self.marks.replays());
        let about = self.marks.tell(&regression);
        let Mark { epoch, sequence } = regression.known;
        let args = RegressedArgs { sidecar: &sidecar, epoch, sequence, keeps, about: &about };
        let (verb, clock) = (Verb::Regressed, self.clock_argument());
        let answer = self.call(verb, tenant, &[&encode(&args)?, clock.as_bytes()]).await?;
        let (is_first, is_missing, mark, lost) = read_regressed(&bytes(verb, answer)?)?;
        // Whoever acts on the new epoch must know what is missing: a call that the ledger does not know may come
        // back. So that is known first, also where another thread has said it, and not heard the answer yet.
        match is_missing {
            true => self.marks.lose(tenant, lost),
            false => self.look_for_missing(tenant, &sidecar).await?,
        }
        self.marks.acknowledge(tenant, &sidecar, mark);
        if is_missing {
            tracing::error!(%tenant, is_first, "the ledger went back: {about}");
            metrics::get().regressed();
        }
        Ok(())
    }

    async fn call(
        &self,
        verb: Verb,
        tenant: &TenantId,
        arguments: &[&[u8]],
    ) -> Result<Value, LedgerError> {
        let (script, library) = (verb.script(), Library::get());
        let sequence = verb.is_counted().then_some(&Key::Sequence);
        let keys = || script.keys.iter().chain(sequence);
        let mut command = cmd("FCALL");
        command.arg(library.function(verb)).arg(keys().count());
        for key in keys() {
            command.arg(key.of(tenant));
        }
        command.arg(arguments);
        self.connection.call(Slot::of(tenant.as_str()), &command, verb).await
    }

    /// What `read_clock` of the scripts expects.
    fn clock_argument(&self) -> String {
        match self.clock() {
            ClockReading::Shifted(millis) => millis.to_string(),
            ClockReading::Frozen(instant) => format!("={instant}"),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Nothing that is done under the lock leaves a lane half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone_back() -> LedgerError {
    LedgerError::Indeterminate("the ledger has gone back since".to_owned())
}

fn bytes(verb: Verb, answer: Value) -> Result<Vec<u8>, LedgerError> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(verb, &other)),
    }
}

fn read_mark(verb: Verb, epoch: i64, sequence: i64) -> Result<Mark, LedgerError> {
    match (u64::try_from(epoch), u64::try_from(sequence)) {
        (Ok(epoch), Ok(sequence)) => Ok(Mark { epoch, sequence }),
        _ => Err(unexpected(verb, &Value::Array(vec![Value::Int(epoch), Value::Int(sequence)]))),
    }
}

fn unexpected(verb: Verb, answer: &Value) -> LedgerError {
    LedgerError::Corrupt(format!("{} answered {answer:?}", verb.script().name))
}
