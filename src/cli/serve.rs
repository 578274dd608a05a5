//! `tollgate serve`: a server on the ledger of the settings, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::app;
use crate::cli::FAILURE;
use crate::config::{Config, LedgerUrl};
use crate::ledger::memory::MemoryLedger;
use crate::ledger::{ClockOffset, Ledger};
use crate::ops::{shutdown, telemetry};

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
            LedgerUrl::Redis(_) => bail!("{}: not part of this build", config.ledger),
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
