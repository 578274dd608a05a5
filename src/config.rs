//! The settings of `tollgate serve`: flag, environment variable or key of one TOML file, in that order.
//!
//! Each setting is one entry of the list below; flag, variable, key, default and help come from it, so
//! that the three can never differ. All mistakes are found before any is reported. Nothing else in
//! the program reads the environment.

mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::Mailbox;
use toml::de::{DeTable, DeValue};

use crate::charging::catalogue::CountryCode;
use crate::charging::units::Micros;
pub use crate::config::values::{HttpTls, LedgerUrl, Listen, LogFormat};
pub use crate::config::values::{SmtpUrl, TokenKeysFile};
use crate::config::values::{
    collector_or_none, country_or_none, filter, flag, folder_or_off, hours, length, mail_events,
    mailbox_or_none, millis, minutes, money, path_or_none, secrets_file_or_none, secrets_or_none,
    share, size, smtp_url_or_none, token_keys_file_or_none, url_or_none, webhook_events, whole,
    word,
};
use crate::credit_control::signed_grant::TokenKeys;
use crate::notices::kinds::Kinds;
use crate::notices::webhook::{Secrets, check_own};
use crate::security::{self, Security};

/// Declares the settings: the flags, the checked form and the way from one to the other.
macro_rules! settings {
    ($($name:ident: $type:ty = $default:literal, $env:literal, $read:expr, $help:literal;)*) => {
        /// What was given by flag or environment variable; nothing checked.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct Flags {
            $(
                #[doc = $help]
                // Values are hidden: the URL of a ledger may hold a password.
                #[arg(long, env = $env, hide_env_values = true, value_name = "VALUE",
                      help = concat!($help, " [default: ", $default, "]"))]
                pub $name: Option<String>,
            )*
        }

        /// The settings, checked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(
                #[doc = concat!($help, ".")]
                pub $name: $type,
            )*
        }

        /// Every setting.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: stringify!($name), variable: $env, default: $default, help: $help },)*
        ];

        impl Config {
            fn read(mut given: Given, mistakes: &mut Vec<Mistake>) -> Option<Config> {
                $(let $name = given.take(stringify!($name), $env, $default, $read, mistakes);)*
                Some(Config { $($name: $name?,)* })
            }
        }

        impl Config {
            /// Keys of the settings that differ, in the order of the list.
            pub fn differing(&self, other: &Config) -> Vec<&'static str> {
                let all = [$((stringify!($name), self.$name == other.$name),)*];
                all.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
            }
        }

        impl Flags {
            fn into_map(self) -> BTreeMap<&'static str, String> {
                let all = [$((stringify!($name), self.$name),)*];
                all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
            }
        }
    };
}

settings! {
    ledger: LedgerUrl = "memory", "TOLLGATE_LEDGER", values::ledger,
        "Where balances, holds and calls live: memory, file:PATH, redis://HOST:PORT, rediss://HOST:PORT, redis+unix://PATH, redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT";
    listen: Listen = "127.0.0.1:7601", "TOLLGATE_LISTEN", values::listen,
        "Listener for calls: IP:PORT or unix:PATH";
    admin_listen: Listen = "127.0.0.1:7602", "TOLLGATE_ADMIN_LISTEN", values::listen,
        "Listener for administration: IP:PORT or unix:PATH";
    http_listen: Listen = "127.0.0.1:7603", "TOLLGATE_HTTP_LISTEN", values::listen,
        "Listener for HTTP /livez, /readyz and /metrics: IP:PORT or unix:PATH";
    emergency_country: Option<CountryCode> = "none", "TOLLGATE_EMERGENCY_COUNTRY", country_or_none,
        "ISO 3166-1 alpha-2 country whose emergency numbers count when neither payer nor trunk is known; 112 and 911 always do";
    default_grant: Duration = "5m", "TOLLGATE_DEFAULT_GRANT", length(millis(1000), hours(24)),
        "First grant, and each extension, when the caller asks for no length; 1s to 24h";
    max_grant: Duration = "4h", "TOLLGATE_MAX_GRANT", length(millis(1000), hours(24)),
        "Longest grant; a longer request is cut to it; 1s to 24h, at least default_grant";
    ringing_timeout: Duration = "3m", "TOLLGATE_RINGING_TIMEOUT", length(millis(1000), hours(1)),
        "How long a call may ring before its hold expires; 1s to 1h";
    grace: Duration = "60s", "TOLLGATE_GRACE", length(millis(1000), hours(1)),
        "How long after its hard stop a call may settle before its hold expires; 1s to 1h";
    denied_retention: Duration = "10m", "TOLLGATE_DENIED_RETENTION", length(millis(1000), hours(24)),
        "How long a refusal is remembered as the answer to its call_id; 1s to 24h";
    ended_retention: Duration = "24h", "TOLLGATE_ENDED_RETENTION", length(minutes(1), hours(31 * 24)),
        "How long an ended call is remembered; 1m to 744h";
    sweep_interval: Duration = "1s", "TOLLGATE_SWEEP_INTERVAL", length(millis(10), hours(1)),
        "Time between two looks for expired holds; 10ms to 1h";
    sweep_batch: u32 = "128", "TOLLGATE_SWEEP_BATCH", whole(1, 10_000),
        "Most holds that one look lets expire; 1 to 10000";
    ledger_timeout: Duration = "250ms", "TOLLGATE_LEDGER_TIMEOUT", length(millis(10), minutes(1)),
        "How long to wait for the ledger; must be below the callers' deadlines; 10ms to 1m";
    require_ledger_at_start: bool = "false", "TOLLGATE_REQUIRE_LEDGER_AT_START", flag,
        "true: exit when the ledger cannot be reached at start; false: wait for it, answering emergency calls";
    call_threads: u32 = "0", "TOLLGATE_CALL_THREADS", whole(0, MOST_CALL_THREADS),
        "Threads that serve calls, each with its own connection to the ledger; a client's connection stays on one; 0: one for each core where the ledger is in memory, else 1; 0 to 64";
    max_requests_in_flight: u32 = "1024", "TOLLGATE_MAX_REQUESTS_IN_FLIGHT", whole(1, 1_000_000),
        "Most requests served at a time, further ones are shed; 1 to 1000000";
    max_message_size: u32 = "64KiB", "TOLLGATE_MAX_MESSAGE_SIZE", size(4 << 10, 16 << 20),
        "Largest message on the listener for calls; 4KiB to 16MiB";
    shutdown_grace: Duration = "10s", "TOLLGATE_SHUTDOWN_GRACE", length(Duration::ZERO, hours(1)),
        "How long running requests may go on after SIGTERM; 0s to 1h";
    log_format: LogFormat = "text", "TOLLGATE_LOG_FORMAT", word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        "Form of the log on standard error: text or json";
    log_filter: String = "info", "TOLLGATE_LOG_FILTER", filter,
        "What is logged: a level, or targets with levels such as warn,tollgate=debug";
    journal: Option<PathBuf> = "off", "TOLLGATE_JOURNAL", folder_or_off,
        "Directory of this process alone that keeps what it acknowledged, and what it accepts while the ledger is out of reach; off: settles are UNAVAILABLE then";
    journal_keep: Duration = "72h", "TOLLGATE_JOURNAL_KEEP", length(minutes(1), hours(31 * 24)),
        "How long the journal keeps an entry; longer while the ledger has to do it; 1m to 744h";
    journal_size: u32 = "1024MiB", "TOLLGATE_JOURNAL_SIZE", size(1 << 20, 4095 << 20),
        "Most bytes of the journal, the oldest entries go first; 1MiB to 4095MiB";
    degraded_call: Duration = "10m", "TOLLGATE_DEGRADED_CALL", length(minutes(1), hours(1)),
        "Longest call that is granted while the ledger is out of reach, to tenants with continue_capped; 1m to 1h";
    degraded_per_hour: Duration = "60m", "TOLLGATE_DEGRADED_PER_HOUR", length(Duration::ZERO, hours(24)),
        "Most time of all such calls of a tenant in an hour, and how much of each pool is leased for them; needs a journal; 0s: none, else up to 24h";
    degraded_money_per_hour: Micros = "10", "TOLLGATE_DEGRADED_MONEY_PER_HOUR", money(10_000),
        "Most money of such calls of a tenant in an hour, in its currency, and how much is leased for them; 0 to 10000, up to six decimals";
    degraded_lease: Duration = "10m", "TOLLGATE_DEGRADED_LEASE", length(minutes(1), hours(1)),
        "How long such calls are granted out of a lease that was taken before the ledger went away; it is held twice as long; 1m to 1h";
    notices_webhook_url: Option<String> = "none", "TOLLGATE_NOTICES_WEBHOOK_URL", url_or_none,
        "Where webhooks of tenants go that name no receiver of their own: a URL of https, or of http on loopback";
    notices_webhook_secrets_file: Option<Secrets> = "none", "TOLLGATE_NOTICES_WEBHOOK_SECRETS_FILE", secrets_file_or_none,
        "File with what webhooks are signed with, a line each: whsec_BASE64 for all tenants, or TENANT whsec_BASE64; several sign side by side. No webhook is sent without";
    notices_webhook_secrets: Option<Secrets> = "none", "TOLLGATE_NOTICES_WEBHOOK_SECRETS", secrets_or_none,
        "The same without a file, separated by commas";
    notices_webhook_events: Kinds = "default", "TOLLGATE_NOTICES_WEBHOOK_EVENTS", webhook_events,
        "Events that webhooks tell: default, all, or names such as POOL_EXHAUSTED,SHORTFALL";
    notices_private_receivers: bool = "false", "TOLLGATE_NOTICES_PRIVATE_RECEIVERS", flag,
        "true: webhooks may be of http, and those that tenants name may go to loopback and private addresses; false: only https to public ones";
    notices_smtp_url: Option<SmtpUrl> = "none", "TOLLGATE_NOTICES_SMTP_URL", smtp_url_or_none,
        "Relay that mails go through: smtp://HOST, smtps://HOST, or smtp://USER:PASSWORD@HOST:587?tls=required";
    notices_mail_from: Option<Mailbox> = "none", "TOLLGATE_NOTICES_MAIL_FROM", mailbox_or_none,
        "Sender of mails, such as Tollgate <tollgate@contoso.example>; needed with notices_smtp_url";
    notices_mail_events: Kinds = "default", "TOLLGATE_NOTICES_MAIL_EVENTS", mail_events,
        "Events that mails tell: default, all, or names such as POOL_EXHAUSTED,SHORTFALL";
    notices_interval: Duration = "1s", "TOLLGATE_NOTICES_INTERVAL", length(millis(10), minutes(1)),
        "Time between two looks for new events, for each tenant and channel; 10ms to 1m";
    notices_timeout: Duration = "10s", "TOLLGATE_NOTICES_TIMEOUT", length(millis(100), minutes(1)),
        "Longest attempt to send a webhook or the mails of an event; 100ms to 1m";
    notices_lease: Duration = "30s", "TOLLGATE_NOTICES_LEASE", length(millis(1000), hours(1)),
        "How long after a sidecar's end another takes its notices over, in whole seconds; 1s to 1h, at least twice notices_timeout";
    notices_retry_first: Duration = "1s", "TOLLGATE_NOTICES_RETRY_FIRST", length(millis(10), hours(1)),
        "Pause after an attempt that failed, doubled after each further one, with jitter; 10ms to 1h";
    notices_retry_longest: Duration = "5m", "TOLLGATE_NOTICES_RETRY_LONGEST", length(millis(10), hours(24)),
        "Longest such pause, before jitter; 10ms to 24h, at least notices_retry_first";
    notices_keep: Duration = "72h", "TOLLGATE_NOTICES_KEEP", length(minutes(1), hours(31 * 24)),
        "How old an event may become while its receiver fails; after that it is given up, with an error in the log; 1m to 744h";
    token_keys_file: Option<TokenKeysFile> = "none", "TOLLGATE_TOKEN_KEYS_FILE", token_keys_file_or_none,
        "File with what grants are signed with, a line each: ID BASE64 of 32 to 128 bytes; the first signs, all verify. Read again when it changes. Grants carry no token without";
    identities_file: Option<PathBuf> = "none", "TOLLGATE_IDENTITIES_FILE", path_or_none,
        "File (TOML) of callers: how they are known, role, tenants, limits; who is not in it is refused. Read again when it changes. none: everybody may do everything";
    open_health: bool = "false", "TOLLGATE_OPEN_HEALTH", flag,
        "true: health on the gRPC listeners is told to callers that nobody knows too; that of the HTTP listener always is";
    tls_cert: Option<PathBuf> = "none", "TOLLGATE_TLS_CERT", path_or_none,
        "File (PEM) with the certificate of the listeners for calls and administration, those that certify it behind it; unix sockets stay plain. Read again when it changes";
    tls_key: Option<PathBuf> = "none", "TOLLGATE_TLS_KEY", path_or_none,
        "File (PEM) with the private key of tls_cert";
    tls_client_ca: Option<PathBuf> = "none", "TOLLGATE_TLS_CLIENT_CA", path_or_none,
        "File (PEM) with the authorities that a client's certificate must be of; with it no client connects without one";
    tls_http: HttpTls = "off", "TOLLGATE_TLS_HTTP", word(&[("off", HttpTls::Off), ("on", HttpTls::On), ("mutual", HttpTls::Mutual)]),
        "TLS on the HTTP listener: off, which the probes of Kubernetes need; on; or mutual, with tls_client_ca";
    reload_interval: Duration = "10s", "TOLLGATE_RELOAD_INTERVAL", length(millis(100), hours(24)),
        "Time between two looks for changed identities, certificates and settings; 100ms to 24h";
    metrics_survey: Duration = "30s", "TOLLGATE_METRICS_SURVEY", length(Duration::ZERO, hours(1)),
        "Time between two looks at the ledger's open holds and funds for /metrics; 0s: never, else up to 1h";
    metrics_tenants: u32 = "0", "TOLLGATE_METRICS_TENANTS", whole(0, 1000),
        "Of how many tenants, in the order of their names, funds are told one by one at /metrics; 0 to 1000";
    otlp_endpoint: Option<String> = "none", "TOLLGATE_OTLP_ENDPOINT", collector_or_none,
        "OpenTelemetry collector that traces are sent to, and figures by otlp_metrics, by OTLP over gRPC: http://HOST:PORT; none: neither";
    trace_sample: u32 = "0.01", "TOLLGATE_TRACE_SAMPLE", share,
        "Which share of the requests about calls is traced, of those whose caller has no trace; 0 to 1, up to six decimals";
    log_decisions: u32 = "0", "TOLLGATE_LOG_DECISIONS", share,
        "Which share of the allowed decisions is logged at info; refusals always are; 0 to 1, up to six decimals";
    otlp_metrics: Duration = "0s", "TOLLGATE_OTLP_METRICS", length(Duration::ZERO, hours(1)),
        "Time between two reports of all figures to otlp_endpoint; 0s: none, else up to 1h";
}

/// Settings that a running server takes over when its file changes, or at SIGHUP. All others need a restart.
pub const RELOADED: &[&str] = &[
    "max_requests_in_flight",
    "max_message_size",
    "log_filter",
    "token_keys_file",
    "reload_interval",
    "trace_sample",
    "log_decisions",
];

/// Tables of the file: what stands in one has its name before the key, as in `notices_interval`.
const TABLES: &[&str] = &["notices"];

const MOST_CALL_THREADS: u32 = 64;

/// One setting, as it may be given.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file; with dashes, the flag.
    pub key: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// Value when it is not given.
    pub default: &'static str,
    /// Meaning, unit and range.
    pub help: &'static str,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Mistake {
    /// The flag and its variable, or file, line and key.
    pub place: String,
    /// What was expected.
    pub message: String,
}

/// Where the settings of a process come from: read at its start, and again while it runs.
#[derive(Clone, Debug)]
pub struct Source {
    /// Flags and variables, which a process cannot change.
    pub flags: Flags,
    /// The file.
    pub file: Option<PathBuf>,
}

impl Source {
    /// The settings as they are now.
    pub fn load(&self) -> Result<Config, Vec<Mistake>> {
        load(self.flags.clone(), self.file.as_deref())
    }
}

/// Reads the settings: `flags` first, then `file`, then the defaults.
pub fn load(flags: Flags, file: Option<&Path>) -> Result<Config, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut text = String::new();
    if let Some(path) = file {
        match std::fs::read_to_string(path) {
            Ok(read) => text = read,
            Err(error) => {
                let message = format!("cannot be read: {error}");
                mistakes.push(Mistake { place: path.display().to_string(), message });
            }
        }
    }
    let name = file.map(|path| path.display().to_string()).unwrap_or_default();
    resolve(flags, &name, &text, mistakes)
}

fn resolve(
    flags: Flags,
    file_name: &str,
    file: &str,
    mut mistakes: Vec<Mistake>,
) -> Result<Config, Vec<Mistake>> {
    let file = read_file(file_name, file, &mut mistakes);
    let flags = flags.into_map();
    let places = file.iter().filter(|(key, _)| !flags.contains_key(*key));
    let places = places.map(|(key, (place, _))| (*key, place.clone())).collect();
    let config = Config::read(Given { flags, file }, &mut mistakes);
    if let Some(config) = &config {
        mistakes.extend(contradictions(config, &places));
    }
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

/// Settings that are right alone but not together; `places` are those of keys that the file gives.
fn contradictions(config: &Config, places: &BTreeMap<&str, String>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut add = |key: &str, message: &str| {
        let place = places.get(key).map_or(key, String::as_str).to_owned();
        mistakes.push(Mistake { place, message: message.to_owned() });
    };
    if config.default_grant > config.max_grant {
        add("default_grant", "expected at most max_grant");
    }
    if config.admin_listen.collides_with(&config.listen) {
        add("admin_listen", "expected another address than listen");
    }
    if config.http_listen.collides_with(&config.listen)
        || config.http_listen.collides_with(&config.admin_listen)
    {
        add("http_listen", "expected another address than listen and admin_listen");
    }
    if config.notices_webhook_secrets.is_some() && config.notices_webhook_secrets_file.is_some() {
        add("notices_webhook_secrets", "expected none where notices_webhook_secrets_file is set");
    }
    if let Some(url) = &config.notices_webhook_url {
        if config.webhook_secrets().is_none() {
            add("notices_webhook_url", "expected notices_webhook_secrets_file with it");
        }
        if let Err(message) = check_own(url, config.notices_private_receivers) {
            add("notices_webhook_url", &message);
        }
    }
    if config.notices_smtp_url.is_some() && config.notices_mail_from.is_none() {
        add("notices_smtp_url", "expected notices_mail_from with it");
    }
    if config.notices_lease < config.notices_timeout * 2 {
        add("notices_lease", "expected at least twice notices_timeout");
    }
    if config.notices_retry_longest < config.notices_retry_first {
        add("notices_retry_longest", "expected at least notices_retry_first");
    }
    if !config.otlp_metrics.is_zero() && config.otlp_endpoint.is_none() {
        add("otlp_metrics", "expected otlp_endpoint with it");
    }
    if config.tls_cert.is_some() != config.tls_key.is_some() {
        add("tls_cert", "expected tls_key with it, and neither alone");
    }
    if config.tls_client_ca.is_some() && config.tls_cert.is_none() {
        add("tls_client_ca", "expected tls_cert with it");
    }
    if config.tls_http != HttpTls::Off && config.tls_cert.is_none() {
        add("tls_http", "expected tls_cert with it");
    }
    if config.tls_http == HttpTls::Mutual && config.tls_client_ca.is_none() {
        add("tls_http", "expected tls_client_ca with it");
    }
    for (key, error) in Security::problems(&config.security()) {
        add(key, &error.to_string());
    }
    mistakes
}

impl Config {
    /// Who may ask for what.
    pub fn security(&self) -> security::Settings {
        security::Settings {
            identities: self.identities_file.clone(),
            certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_ca: self.tls_client_ca.clone(),
            open_health: self.open_health,
        }
    }

    /// What grants are signed with.
    pub fn token_keys(&self) -> Option<TokenKeys> {
        self.token_keys_file.as_ref().map(|file| file.keys.clone())
    }

    /// How many threads serve calls. Memory is shared by threads at no cost, so that the machine is all there is to
    /// give; Redis takes a core for itself, and a file waits for its disk.
    pub fn threads_for_calls(&self) -> u32 {
        match (self.call_threads, &self.ledger) {
            (0, LedgerUrl::Memory) => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                u32::try_from(cores).unwrap_or(MOST_CALL_THREADS).min(MOST_CALL_THREADS)
            }
            (0, _) => 1,
            (stated, _) => stated,
        }
    }

    /// What webhooks are signed with.
    pub fn webhook_secrets(&self) -> Option<&Secrets> {
        self.notices_webhook_secrets_file.as_ref().or(self.notices_webhook_secrets.as_ref())
    }
}

/// The texts given for settings, with where they came from.
struct Given {
    flags: BTreeMap<&'static str, String>,
    file: BTreeMap<&'static str, (String, String)>,
}

impl Given {
    fn take<T>(
        &mut self,
        key: &'static str,
        variable: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<T> {
        let from_file = self.file.remove(key);
        let (place, text) = match self.flags.remove(key) {
            Some(text) => (format!("--{} or {variable}", key.replace('_', "-")), text),
            None => from_file.unwrap_or_else(|| (key.to_owned(), default.to_owned())),
        };
        read(&text).map_err(|message| mistakes.push(Mistake { place, message })).ok()
    }
}

/// The known keys of the file, with their places; everything else in it is a mistake.
fn read_file(
    name: &str,
    text: &str,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<&'static str, (String, String)> {
    let place_of = |offset: usize| {
        let line = text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
        format!("{name} line {line}")
    };
    // The parser goes on behind an error, so that all are reported.
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut wrong = Vec::new();
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        wrong.push((offset, place_of(offset), error.message().to_owned()));
    }
    let mut known = BTreeMap::new();
    let mut found = Vec::new();
    for (key, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(inner) if TABLES.contains(&key.get_ref().as_ref()) => {
                found.extend(inner.iter().map(|(inner, value)| (Some(key), inner, value)));
            }
            _ => found.push((None, key, value)),
        }
    }
    for (table, key, value) in found {
        let offset = key.span().start;
        let named = |separator| {
            let table = table.map(|table| format!("{}{separator}", table.get_ref()));
            format!("{}{}", table.unwrap_or_default(), key.get_ref())
        };
        let place = format!("{}: {}", place_of(offset), named('.'));
        let of_table = |key: &str| TABLES.iter().any(|table| key.starts_with(&format!("{table}_")));
        let setting = SETTINGS.iter().find(|setting| setting.key == named('_'));
        // One spelling: what belongs in a table is not known outside of it.
        let setting = setting.filter(|setting| of_table(setting.key) == table.is_some());
        let message = match (setting, scalar(value.get_ref())) {
            (Some(setting), Some(text)) => {
                known.insert(setting.key, (place, text));
                continue;
            }
            (Some(_), None) => "expected a text, a whole number, true or false".to_owned(),
            (None, _) => {
                let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
                format!("unknown key, expected one of {}", keys.join(", "))
            }
        };
        wrong.push((offset, place, message));
    }
    wrong.sort();
    mistakes.extend(wrong.into_iter().map(|(_, place, message)| Mistake { place, message }));
    known
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

/// What a fuzzer is let loose on: the text of a file. One that names further files is not read, since what
/// stands there is not ours to say.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed(text: &str) {
    if text.contains("_file") {
        return;
    }
    let read = || resolve(Flags::default(), "tollgate.toml", text, vec![]);
    match read() {
        Ok(config) => assert_eq!(read(), Ok(config)),
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|m| !m.message.is_empty()))
        }
    }
}

#[cfg(test)]
mod tests;
