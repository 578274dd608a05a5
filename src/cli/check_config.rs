//! `check-config`: the settings as `serve` would read them, with the files that they name.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::USAGE;
use crate::cli::args::Output;
use crate::cli::output::{Outcome, counted, print, warn};
use crate::config::{Config, Listen, Mistake, Source};

/// Carries out `check-config`. Nothing is bound, opened for writing or asked of a network.
pub fn run(source: &Source, form: Output) -> Outcome {
    let loaded = source.load();
    let warnings = loaded.as_ref().map(warnings).unwrap_or_default();
    let mistakes = loaded.err().unwrap_or_default();
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
    Ok(if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
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
