//! `tollgate serve`: a server on the ledger of the settings, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::app;
use crate::cli::{FAILURE, USAGE};
use crate::config::{Config, LedgerUrl, Source};
use crate::ledger::file;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::redis::{BadRedisUrl, RedisLedger, RedisSettings};
use crate::ledger::{ClockOffset, Ledger};
use crate::ops::{shutdown, telemetry, traces};

/// Longest wait for Redis by those who may wait: administration and the sweeper. Calls wait no longer
/// than `ledger_timeout`.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// However short `ledger_timeout` is: a connection is not given up for a moment's silence.
const SHORTEST_PROBE: Duration = Duration::from_millis(100);

/// Serves by the settings that were read from that source; what goes wrong is told on standard error.
pub fn run(config: &Config, source: Source) -> ExitCode {
    match try_run(config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::from(if error.is::<BadRedisUrl>() { USAGE } else { FAILURE })
        }
    }
}

fn try_run(config: &Config, source: Source) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (format, filter) = (config.log_format, &config.log_filter);
    match &config.otlp_endpoint {
        None => telemetry::init(format, filter)?,
        Some(endpoint) => {
            let _within = runtime.enter();
            telemetry::init_with_traces(format, filter, endpoint, config.trace_sample)?;
        }
    }
    traces::log_decisions(config.log_decisions);
    runtime.block_on(async {
        match &config.ledger {
            LedgerUrl::Memory => {
                tracing::warn!(
                    "the ledger is in memory: tenants, balances and calls end with this process \
                     (--ledger file:PATH keeps them)"
                );
                let ledger = MemoryLedger::new(ClockOffset::default());
                serve(Arc::new(ledger), config, source).await
            }
            LedgerUrl::File(path) => {
                let begun = Instant::now();
                let ledger = file::open(path, ClockOffset::default())?;
                let took = begun.elapsed();
                tracing::info!(file = %path.display(), ?took, "the ledger file is read");
                serve(Arc::new(ledger), config, source).await
            }
            LedgerUrl::Redis(url) => {
                let settings = RedisSettings {
                    url: url.clone(),
                    response_timeout: REDIS_TIMEOUT,
                    connect_timeout: REDIS_TIMEOUT,
                    probe_timeout: config.ledger_timeout.max(SHORTEST_PROBE),
                };
                let ledger = RedisLedger::connect(&settings, ClockOffset::default()).await?;
                serve(Arc::new(ledger), config, source).await
            }
        }
    })
}

async fn serve<L: Ledger>(ledger: Arc<L>, config: &Config, source: Source) -> anyhow::Result<()> {
    // From here on a signal ends the server in order, even while it starts.
    let stop = shutdown::stop_signal().context("cannot listen for signals")?;
    let hang_up = shutdown::hang_up().context("cannot listen for signals")?;
    let running = app::start(ledger, config).await?;
    running.warn_of_open_doors();
    let app::Addresses { calls, administration, http } = running.addresses();
    tracing::info!(ledger = %config.ledger, %calls, %administration, %http, "serving");
    let reloads = tokio::spawn(running.reloads().run(source, config.clone(), hang_up));
    let ended = running.run_until(stop).await;
    reloads.abort();
    ended?;
    tokio::task::spawn_blocking(traces::flush).await?;
    tracing::info!("stopped");
    Ok(())
}
