//! Keeps players busy: a closed loop, where each sends when it was answered, or an open one, where
//! requests are due at random instants whether or not the server keeps up.
//!
//! In the open loop latency counts from the instant at which a request was due. A request that had to
//! wait for its turn has waited: nothing is omitted because the server was slow.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::cli::loadtest::measure::{Measured, Step};
use crate::cli::loadtest::random::Random;

/// Longest sleep of an open loop's clock, so that it sees the end.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// One who makes requests, each when the one before is answered.
pub trait Play: Send + 'static {
    /// Makes the next request.
    fn step(&mut self) -> impl Future<Output = Step> + Send;
}

/// Where players play.
pub trait Scene: Send + Sync + 'static {
    /// Connections of one thread.
    type Connections: Send + Sync + 'static;
    /// Who plays on them.
    type Player: Play;

    /// Connects, within the runtime of that thread.
    fn connect(&self, thread: usize) -> impl Future<Output = io::Result<Self::Connections>> + Send;

    /// The player of that number, unique among all threads.
    fn player(
        self: &Arc<Self>,
        connections: &Arc<Self::Connections>,
        number: usize,
    ) -> Self::Player;
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many players, each sending when it was answered.
    Closed {
        /// Requests in flight, at least 1.
        concurrency: usize,
    },
    /// At random instants, so many a second on average.
    Open {
        /// Requests a second, at least 1.
        per_second: u64,
        /// Most in flight; those due beyond it wait, and their latency shows it.
        most_in_flight: usize,
    },
}

/// A load that runs.
pub struct Driven {
    stop: Arc<AtomicBool>,
    threads: Vec<(Arc<Mutex<Measured>>, JoinHandle<()>)>,
}

/// Starts a load on so many threads; an error is a connection that cannot be made.
pub fn start<S: Scene>(scene: &Arc<S>, pace: Pace, threads: usize) -> io::Result<Driven> {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let mut driven = Driven { stop: stop.clone(), threads: vec![] };
    // The gate keeps those that are connected waiting for the others.
    let gate = Arc::new(AtomicBool::new(false));
    for number in 0..threads {
        let share = Share { number, of: threads };
        let measured = Arc::new(Mutex::new(Measured::default()));
        let (scene, measured_there) = (scene.clone(), measured.clone());
        let (stop, gate, tell) = (stop.clone(), gate.clone(), tell.clone());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async move {
                let connections = match scene.connect(number).await {
                    Ok(connections) => Arc::new(connections),
                    Err(error) => return drop(tell.send(Err(error))),
                };
                let _ = tell.send(Ok(()));
                while !gate.load(Ordering::Acquire) && !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let stage = Stage { scene, connections, measured: measured_there, stop, share };
                stage.play(pace).await;
            });
        };
        let spawned = thread::Builder::new().name(format!("load-{number}")).spawn(work)?;
        driven.threads.push((measured, spawned));
    }
    drop(tell);
    for _ in 0..threads {
        if let Err(error) = told.recv().map_err(io::Error::other).and_then(|told| told) {
            driven.finish(Duration::ZERO);
            return Err(error);
        }
    }
    gate.store(true, Ordering::Release);
    Ok(driven)
}

impl Driven {
    /// What was measured since the last time.
    pub fn take(&self) -> Measured {
        let mut all = Measured::default();
        for (measured, _) in &self.threads {
            let part =
                std::mem::take(&mut *measured.lock().unwrap_or_else(PoisonError::into_inner));
            all.add(&part);
        }
        all
    }

    /// Requests answered since the last [`Driven::take`].
    pub fn answered(&self) -> u64 {
        let of = |measured: &Mutex<Measured>| {
            measured.lock().unwrap_or_else(PoisonError::into_inner).all_answered()
        };
        self.threads.iter().map(|(measured, _)| of(measured)).sum()
    }

    /// Begins nothing new, waits for what is in flight, and returns what was measured since the last
    /// [`Driven::take`]. What is not answered within `patience` is given up.
    pub fn finish(self, patience: Duration) -> Measured {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + patience;
        while Instant::now() < until && self.threads.iter().any(|(_, thread)| !thread.is_finished())
        {
            thread::sleep(Duration::from_millis(1));
        }
        self.take()
    }
}

/// Which part of the load a thread has.
#[derive(Clone, Copy)]
struct Share {
    number: usize,
    of: usize,
}

struct Stage<S: Scene> {
    scene: Arc<S>,
    connections: Arc<S::Connections>,
    measured: Arc<Mutex<Measured>>,
    stop: Arc<AtomicBool>,
    share: Share,
}

impl<S: Scene> Stage<S> {
    async fn play(&self, pace: Pace) {
        match pace {
            Pace::Closed { concurrency } => self.closed(concurrency).await,
            Pace::Open { per_second, most_in_flight } => {
                self.open(per_second, most_in_flight).await;
            }
        }
    }

    async fn closed(&self, concurrency: usize) {
        let mut players = JoinSet::new();
        for number in (self.share.number..concurrency).step_by(self.share.of) {
            let mut player = self.scene.player(&self.connections, number);
            let (measured, stop) = (self.measured.clone(), self.stop.clone());
            players.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let step = player.step().await;
                    note(&measured, step, began.elapsed());
                }
            });
        }
        while players.join_next().await.is_some() {}
    }

    async fn open(&self, per_second: u64, most_in_flight: usize) {
        let threads = self.share.of as u64;
        // A thread's arrivals are random too: their sum is the whole rate.
        let rate =
            (per_second / threads) + u64::from((self.share.number as u64) < per_second % threads);
        let Ok(clock) = Clock::new() else { return };
        let permits = Arc::new(Semaphore::new((most_in_flight / self.share.of).max(1)));
        // First come, first served: one that is left waiting in the middle of a call would find it expired.
        let idle: Arc<Mutex<VecDeque<S::Player>>> = Arc::default();
        let mut random = Random::new(self.share.number as u64 + 1);
        let mut players = self.share.number;
        let mut due = Instant::now();
        if rate == 0 {
            return;
        }
        loop {
            due += Duration::from_nanos(random.gap_nanos(rate));
            while Instant::now() < due {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                clock.wait(due.saturating_duration_since(Instant::now()).min(LONGEST_NAP)).await;
            }
            let permit = permits.clone().acquire_owned().await;
            let Ok(permit) = permit else { break };
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let player = free.unwrap_or_else(|| {
                players += self.share.of;
                self.scene.player(&self.connections, players)
            });
            self.send(player, due, permit, idle.clone());
        }
        // All permits are back when all are answered.
        let all = u32::try_from((most_in_flight / self.share.of).max(1)).unwrap_or(u32::MAX);
        let _ = permits.acquire_many(all).await;
    }

    fn send(
        &self,
        mut player: S::Player,
        due: Instant,
        permit: OwnedSemaphorePermit,
        idle: Arc<Mutex<VecDeque<S::Player>>>,
    ) {
        let measured = self.measured.clone();
        tokio::spawn(async move {
            let step = player.step().await;
            note(&measured, step, due.elapsed());
            idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(player);
            drop(permit);
        });
    }
}

fn note(measured: &Mutex<Measured>, step: Step, latency: Duration) {
    measured.lock().unwrap_or_else(PoisonError::into_inner).note(step, latency);
}

/// A clock that wakes to the microsecond; that of the runtime knows only milliseconds.
struct Clock(AsyncFd<OwnedFd>);

impl Clock {
    #[expect(deprecated, reason = "sound for a descriptor that it owns; the replacement is unsafe")]
    fn new() -> io::Result<Clock> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Clock(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    async fn wait(&self, time: Duration) {
        let nanos = time.as_nanos().max(1);
        let once = Timespec {
            tv_sec: (nanos / 1_000_000_000) as _,
            tv_nsec: (nanos % 1_000_000_000) as _,
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let when = Itimerspec { it_interval: never, it_value: once };
        if timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &when).is_err() {
            // Cannot happen with a length of time that is positive.
            return tokio::time::sleep(time).await;
        }
        let Ok(mut ready) = self.0.readable().await else { return };
        let mut expirations = [0; 8];
        let _ = rustix::io::read(&self.0, &mut expirations);
        ready.clear_ready();
    }
}
