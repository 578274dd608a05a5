//! Arguments of `loadtest`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use crate::cli::args::{Server, length};
use crate::cli::loadtest::play::Mix;
use crate::cli::loadtest::process::Named;

/// Arguments of `loadtest`.
#[derive(Debug, Args)]
pub struct LoadtestArgs {
    /// First make tenants for the test; refused where a tenant of that name was made by somebody else
    #[arg(long)]
    pub setup: bool,
    /// Tenants of the test: PREFIX-1 and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    pub tenants: u32,
    /// Users of each tenant who call: user-1 and so on; users of all tenants together at most 10000000
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=200_000))]
    pub users: u32,
    /// Begin of the tenants' names
    #[arg(long, value_name = "PREFIX", default_value = "loadtest", value_parser = prefix)]
    pub prefix: String,
    /// With --setup: least size of each tenant's pool in minutes; users who never call make it up
    #[arg(long, value_name = "MINUTES", default_value_t = 3_000_000, value_parser = value_parser!(u32).range(0..=100_000_000), requires = "setup")]
    pub minutes: u32,
    /// With --setup: prefixes of the rate deck that prices the calls
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=500_000), requires = "setup")]
    pub deck_prefixes: u32,
    /// Requests that each caller makes before it begins anew: AUTHORIZE:EXTEND:SETTLE
    #[arg(long, value_name = "MIX", default_value = "1:1:1")]
    pub mix: Mix,
    /// Exponent of Zipf's law by which users are drawn: 0 evenly, at most 4
    #[arg(long, value_name = "S", default_value = "1", value_parser = hundredths)]
    pub zipf: u32,
    /// Length that is asked for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = length)]
    pub requested: Duration,
    /// Usage that is reported at the end
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = length)]
    pub used: Duration,
    /// Closed loop: so many callers, each sending when it was answered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// Open loop instead: so many requests a second at random instants, latency from the instant due
    #[arg(long, value_name = "PER_SECOND", value_parser = value_parser!(u64).range(1..=1_000_000), conflicts_with = "concurrency")]
    pub rate: Option<u64>,
    /// Open loop: most requests in flight; those due beyond it wait, which their latency shows
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub max_in_flight: u32,
    /// Connections, shared out among the threads
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Threads of this program, at most one a core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Time before the first round, which is not measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = length)]
    pub warm_up: Duration,
    /// Length of a round
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = length)]
    pub duration: Duration,
    /// Rounds; the medians over them are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Processes of this machine whose CPU per request is told, by id or program name, such as tollgate,redis-server
    #[arg(long, value_name = "PROCESS", value_delimiter = ',')]
    pub cpu_of: Vec<Named>,
    /// With --setup: file with the bearer token that makes the tenants, where --token-file may only make calls
    #[arg(long, env = "TOLLGATE_CLIENT_SETUP_TOKEN_FILE", value_name = "FILE", requires = "setup")]
    pub setup_token_file: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Names of tenants begin with it.
fn prefix(text: &str) -> Result<String, String> {
    match text.len() <= 64 && crate::charging::ids::TenantId::new(text).is_ok() {
        true => Ok(text.to_owned()),
        false => Err("expected a tenant's name of at most 64 bytes".to_owned()),
    }
}

/// A number with at most two decimals.
fn hundredths(text: &str) -> Result<u32, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let known = digits(whole) && digits(decimals) && whole.len() == 1 && decimals.len() <= 2;
    let padded = format!("{whole}{decimals:0<2}");
    match padded.parse() {
        Ok(hundredths @ 0..=400) if known => Ok(hundredths),
        _ => {
            Err("expected a number from 0 to 4 with at most two decimals, such as 0.99".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_read_in_hundredths() {
        for (text, expected) in
            [("0", 0), ("1", 100), ("0.9", 90), ("0.99", 99), ("1.05", 105), ("4", 400)]
        {
            assert_eq!(hundredths(text), Ok(expected), "{text}");
        }
        for text in ["", "-1", "4.01", "1.", ".5", "1.234", "one", "10"] {
            assert!(hundredths(text).is_err(), "{text:?}");
        }
    }
}
