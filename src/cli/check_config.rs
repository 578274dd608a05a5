//! `check-config`: the settings as `serve` would read them, with the files that they name.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::cli::args::Output;
use crate::cli::output::{Outcome, counted, print, warn};
use crate::cli::{FAILURE, USAGE};
use crate::config::{Config, LedgerUrl, Listen, Mistake, Source};
use crate::ledger::redis::{RedisLedger, RedisSettings};
use crate::ledger::{ClockOffset, Ledger};

/// Longest wait for the ledger, where it is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out `check-config`. Nothing is bound or opened for writing; of the network Redis alone is asked, and
/// that where `ask_ledger` says so.
pub fn run(source: &Source, ask_ledger: bool, form: Output) -> Outcome {
    let loaded = source.load();
    let warnings = loaded.as_ref().map(warnings).unwrap_or_default();
    let silent = match &loaded {
        Ok(config) if ask_ledger => ask(config)?,
        _ => None,
    };
    let usable = loaded.is_ok();
    let mut mistakes = loaded.err().unwrap_or_default();
    mistakes.extend(silent);
    match form {
        Output::Json => {
            let problem = |m: &Mistake| json!({ "place": m.place, "message": m.message });
            let problems: Vec<_> = mistakes.iter().map(problem).collect();
            let valid = mistakes.is_empty();
            let all = json!({ "valid": valid, "problems": problems, "warnings": warnings });
            print(&all.to_string())?;
        }
        Output::Table => {
            warnings.iter().for_each(|warning| warn(format!("warning: {warning}")));
            mistakes.iter().for_each(warn);
            match u32::try_from(mistakes.len()).unwrap_or(u32::MAX) {
                0 => print("the settings are right")?,
                count => print(&format!("{} in the settings", counted(count, "mistake")))?,
            }
        }
    }
    Ok(match (mistakes.is_empty(), usable) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(FAILURE),
        (false, false) => ExitCode::from(USAGE),
    })
}

/// Asks the ledger whether it answers; why not.
fn ask(config: &Config) -> anyhow::Result<Option<Mistake>> {
    let LedgerUrl::Redis(url) = &config.ledger else { return Ok(None) };
    let settings = RedisSettings {
        url: url.clone(),
        response_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        probe_timeout: PATIENCE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answered = runtime.block_on(async {
        let ledger = RedisLedger::connect(&settings, ClockOffset::default()).await?;
        tokio::time::timeout(PATIENCE, ledger.ping()).await.map_err(anyhow::Error::from)??;
        anyhow::Ok(())
    });
    let silent = |error: anyhow::Error| Mistake {
        place: "ledger".to_owned(),
        message: format!("{} does not answer: {error}", config.ledger),
    };
    Ok(answered.err().map(silent))
}

/// What is allowed, and dangerous.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = vec![];
    if config.identities_file.is_none() {
        warnings.push("identities_file: none: whoever reaches a listener may do everything".into());
    }
    let open = |listen: &Listen| matches!(listen, Listen::Tcp(at) if !at.ip().is_loopback());
    for (key, listen) in [("listen", &config.listen), ("admin_listen", &config.admin_listen)] {
        if open(listen) && config.tls_cert.is_none() {
            warnings.push(format!("{key}: {listen} is not on loopback and not encrypted"));
        }
    }
    if config.emergency_country.is_none() {
        let known = "emergency_country: none: where payer and trunk are unknown, only 112 and 911";
        warnings.push(format!("{known} are emergency numbers"));
    }
    warnings
}
