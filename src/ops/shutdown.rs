//! The end: readiness down, then the requests that run, then the process, within a bounded time.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::ops::health::Health;

/// Tells the servers to accept nothing more.
#[derive(Debug, Default)]
pub struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    /// Tells all who wait.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Done once shutdown has begun, or can no longer begin.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut receiver = self.0.subscribe();
        async move {
            // An error means that the sender is gone: the program is ending anyway.
            let _ = receiver.wait_for(|begun| *begun).await;
        }
    }
}

/// How serving ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// The servers stopped by themselves: a failure.
    ByItself(T),
    /// Asked to stop, and every request ran to its end.
    Drained(T),
    /// Asked to stop; requests were still running when the time was over.
    TimeOver,
}

/// SIGTERM or SIGINT, from this call on; the name of the one that came.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// SIGHUP, from this call on: it asks to read files again, and does not end the process any more.
pub fn hang_up() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Runs `servers` until `stop`, then lets them drain for at most `grace`.
pub async fn serve_until<T>(
    stop: impl Future<Output = &'static str>,
    servers: impl Future<Output = T>,
    health: &Health,
    shutdown: &Shutdown,
    grace: Duration,
) -> Ended<T> {
    let mut servers = pin!(servers);
    let reason = tokio::select! {
        ended = &mut servers => return Ended::ByItself(ended),
        reason = stop => reason,
    };
    tracing::info!(reason, ?grace, "draining");
    health.draining().await;
    shutdown.begin();
    match tokio::time::timeout(grace, servers).await {
        Ok(ended) => Ended::Drained(ended),
        Err(_) => Ended::TimeOver,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::ops::health::State;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn servers_are_told_and_may_finish() {
        let (health, shutdown) = (Health::new(&[]).await, Shutdown::default());
        health.ready().await;
        let servers = async {
            shutdown.begun().await;
            health.state().await
        };
        let ended = serve_until(ready("test"), servers, &health, &shutdown, LONG).await;
        // Readiness was down before the listeners closed.
        assert_eq!(ended, Ended::Drained(State::Draining));
    }

    #[tokio::test]
    async fn a_request_that_never_ends_does_not_hold_the_program() {
        let (health, shutdown) = (Health::new(&[]).await, Shutdown::default());
        let ended = serve_until(ready("test"), pending::<()>(), &health, &shutdown, SHORT).await;
        assert_eq!(ended, Ended::TimeOver);
    }

    #[tokio::test]
    async fn a_server_that_fails_ends_the_program() {
        let (health, shutdown) = (Health::new(&[]).await, Shutdown::default());
        let ended = serve_until(pending(), ready("failed"), &health, &shutdown, LONG).await;
        assert_eq!(ended, Ended::ByItself("failed"));
    }

    #[tokio::test]
    async fn who_asks_late_is_told_too() {
        let shutdown = Shutdown::default();
        shutdown.begin();
        shutdown.begun().await;
        let begun = shutdown.begun();
        drop(shutdown);
        begun.await;
    }
}
