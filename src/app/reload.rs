//! Settings that change while the process runs: read again as a whole and judged like those of a start.
//! Where anything in them is wrong, all stays as it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::app::message_size;
use crate::config::{Config, RELOADED, Source};
use crate::credit_control::SharedKeys;
use crate::grpc::gate::Gate;
use crate::metrics::{self, Reloaded};
use crate::ops::{telemetry, traces};
use crate::security::Security;

/// What reads files again, and hands on what it finds.
pub struct Reloads {
    pub(super) security: Arc<Security>,
    pub(super) gate: Arc<Gate>,
    pub(super) interval: Arc<watch::Sender<Duration>>,
    pub(super) most_bytes: Arc<AtomicUsize>,
    pub(super) keys: SharedKeys,
}

impl Reloads {
    /// Looks for changed identities, certificates, keys of grants and settings for ever, each `reload_interval`, and at
    /// once at that signal. `config` is what the process was started with, from that source.
    pub async fn run(self, source: Source, config: Config, mut hang_up: Signal) {
        let mut current = config;
        let mut seen = digests(&source, &current).await;
        loop {
            let next = Instant::now() + current.reload_interval;
            let on_demand = tokio::select! {
                () = sleep_until(next) => false,
                Some(()) = hang_up.recv() => true,
            };
            if on_demand {
                tracing::info!("asked to read settings, identities and certificates again");
                self.security.reload().await;
            }
            let now = digests(&source, &current).await;
            if now == seen && !on_demand {
                continue;
            }
            // What is written from here on is seen by the next look, and read once more.
            seen = now;
            if let Some(new) = read(&source).await {
                self.take_over(&mut current, new);
            }
        }
    }

    /// Puts in force what can be while the process runs, and says what cannot.
    fn take_over(&self, current: &mut Config, new: Config) {
        let differing = current.differing(&new);
        let (now, later): (Vec<&str>, Vec<&str>) =
            differing.into_iter().partition(|key| RELOADED.contains(key));
        let changed = now.join(", ");
        tracing::info!(changed, "the settings are read again");
        if current.log_filter != new.log_filter {
            // It was judged before; an error is that there is no log to hear of it.
            let _ = telemetry::set_filter(&new.log_filter);
            // The first line may not have been told by the old one.
            tracing::info!(changed, filter = new.log_filter, "the log has another filter");
        }
        traces::log_decisions(new.log_decisions);
        traces::trace(new.trace_sample);
        if current.max_requests_in_flight != new.max_requests_in_flight {
            let (gate, most) = (self.gate.clone(), new.max_requests_in_flight);
            // Requests that are inside may take their time.
            tokio::spawn(async move { gate.set_most(most).await });
        }
        if current.token_keys_file != new.token_keys_file {
            let keys = new.token_keys();
            tracing::info!(?keys, "grants are signed by the first of these keys from now on");
            self.keys.set(keys);
        }
        self.most_bytes.store(message_size(&new), Ordering::Relaxed);
        self.interval.send_replace(new.reload_interval);
        if !later.is_empty() {
            let settings = later.join(", ");
            tracing::warn!(settings, "these settings have changed and need a restart");
        }
        // What needs a restart is compared with what is in force.
        current.max_requests_in_flight = new.max_requests_in_flight;
        current.max_message_size = new.max_message_size;
        current.token_keys_file = new.token_keys_file;
        current.log_filter = new.log_filter;
        current.reload_interval = new.reload_interval;
        current.trace_sample = new.trace_sample;
        current.log_decisions = new.log_decisions;
    }
}

async fn read(source: &Source) -> Option<Config> {
    let source = source.clone();
    let loaded = tokio::task::spawn_blocking(move || source.load()).await.ok()?;
    metrics::get().reloaded(Reloaded::Settings, loaded.is_ok());
    match loaded {
        Ok(config) => Some(config),
        Err(mistakes) => {
            for mistake in mistakes {
                tracing::error!(%mistake, "the new settings cannot be used; the old stay");
            }
            None
        }
    }
}

/// Of the configuration file, and of that of the keys that sign grants.
async fn digests(source: &Source, current: &Config) -> [Option<[u8; 32]>; 2] {
    let keys = current.token_keys_file.as_ref().map(|file| file.path.as_path());
    [digest(source.file.as_deref()).await, digest(keys).await]
}

/// Contents are compared, as links of Kubernetes keep their times; `None` where it cannot be read.
async fn digest(file: Option<&Path>) -> Option<[u8; 32]> {
    let bytes = tokio::fs::read(file?).await.ok()?;
    Some(Sha256::digest(bytes).into())
}
