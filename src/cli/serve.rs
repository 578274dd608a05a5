//! `tollgate serve`: a server on the ledger of the settings, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::app;
use crate::cli::FAILURE;
use crate::config::{Config, LedgerUrl};
use crate::ledger::memory::MemoryLedger;
use crate::ledger::redis::{RedisLedger, RedisSettings};
use crate::ledger::{ClockOffset, Ledger};
use crate::ops::{shutdown, telemetry};

/// Least time for a connection to the ledger to come about: with TLS it takes several round trips.
const CONNECT_AT_LEAST: Duration = Duration::from_secs(1);

/// Serves; what goes wrong is told on standard error.
pub fn run(config: &Config) -> ExitCode {
    match try_run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn try_run(config: &Config) -> anyhow::Result<()> {
    telemetry::init(config.log_format, &config.log_filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &config.ledger {
            LedgerUrl::Memory => {
                tracing::warn!(
                    "the ledger is in memory: tenants, balances and calls end with this process"
                );
                serve(Arc::new(MemoryLedger::new(ClockOffset::default())), config).await
            }
            LedgerUrl::Redis(url) => {
                let settings = RedisSettings {
                    url: url.clone(),
                    response_timeout: config.ledger_timeout,
                    connect_timeout: config.ledger_timeout.max(CONNECT_AT_LEAST),
                };
                let ledger = RedisLedger::connect(&settings, ClockOffset::default()).await?;
                serve(Arc::new(ledger), config).await
            }
        }
    })
}

async fn serve<L: Ledger>(ledger: Arc<L>, config: &Config) -> anyhow::Result<()> {
    // From here on a signal ends the server in order, even while it starts.
    let stop = shutdown::stop_signal().context("cannot listen for signals")?;
    let running = app::start(ledger, config).await?;
    let app::Addresses { calls, administration, http } = running.addresses();
    tracing::info!(ledger = %config.ledger, %calls, %administration, %http, "serving");
    running.run_until(stop).await?;
    tracing::info!("stopped");
    Ok(())
}
