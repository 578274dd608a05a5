//! Commands and their arguments.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::charging::money::parse_micros;
use crate::charging::units::Micros;
use crate::cli::loadtest::args::LoadtestArgs;
use crate::config::{Flags, Listen, Source};
use crate::duration;

/// Real-time call authorization for session border controllers.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 carried out (a refused call is an answer), 1 failed, 64 arguments or settings cannot be used. \
                  Of reconcile: 0 nothing differs, 1 something does, 2 failed."
)]
pub struct Cli {
    /// Form of the result on standard output; json is the answer as protobuf JSON
    #[arg(long, global = true, value_enum, env = "TOLLGATE_OUTPUT", default_value = "table")]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum Command {
    /// Serve calls and administration until SIGTERM or SIGINT
    Serve(Box<ServeArgs>),
    /// Play a day of calls on an embedded ledger with the sample organisation, then keep serving
    Demo(DemoArgs),
    /// Measure an installation: calls by the thousand, their latency, and the CPU that they cost
    Loadtest(Box<LoadtestArgs>),
    /// Look into the journal of a server on this machine, whether or not it runs
    Journal(JournalArgs),
    /// Check the settings as serve reads them, with the files that they name; asks no server but by --ask-ledger
    CheckConfig(Box<CheckConfigArgs>),
    /// Print what lets a shell complete commands and flags
    Completions(CompletionsArgs),
    /// Print the manual page of the program, or write those of all commands into a directory
    Man(ManArgs),
    /// Ask a running server.
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

/// The commands that ask a running server.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create or update tenants from an organisation file; nothing is applied when anything in it is wrong
    Apply(ApplyArgs),
    /// Check or activate a rate deck
    Rates(RatesArgs),
    /// Ask whether a call may start, and hold what its grant may cost
    Authorize(Box<AuthorizeArgs>),
    /// Report that a call was answered
    Answer(AnswerArgs),
    /// Report usage so far and ask for a further grant
    Extend(ExtendArgs),
    /// End a call: charge what was used, give back the rest
    Settle(SettleArgs),
    /// End a call that was never answered: give everything back
    Release(ReleaseArgs),
    /// Ask what authorize would decide, and why, holding nothing
    Quote(Box<QuoteArgs>),
    /// Show the pools and credits of a tenant
    Balance(BalanceArgs),
    /// Report what became of a recharge that was asked for
    Recharge(RechargeArgs),
    /// List the open calls of a tenant with what they hold, show one call, or end those of a trunk
    Calls(Box<CallsArgs>),
    /// List decisions, the newest first
    Decisions(DecisionsArgs),
    /// Export usage records: one for each call that was charged and each refusal
    Usage(UsageArgs),
    /// Compare a carrier's or SBC's call detail records with our usage records, and list what differs
    Reconcile(Box<ReconcileArgs>),
    /// Print the events of a tenant, and with --follow those to come
    Events(EventsArgs),
    /// Print the OpenAPI document of what a listener answers in JSON; asks no server
    Openapi(OpenapiArgs),
    /// Erase telephone numbers from records
    Records(RecordsArgs),
    /// Prove the invariants of the ledger; exits with 1 and the first offending key when one is broken
    Audit(AuditArgs),
    /// Correct a balance or a settled call, once per key
    Adjust(AdjustArgs),
    /// List corrections, the newest first
    Adjustments(AdjustmentsArgs),
    /// Block or unblock who pays for calls, or report who is blocked
    Users(UsersArgs),
    /// Report the minute pools of a tenant: total, used and available now, by plan and usage location
    Pools(PoolsArgs),
}

/// Form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// Protobuf JSON.
    Json,
}

/// Where the server is, and how long to wait for it.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// Listener for calls: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(
        long,
        env = "TOLLGATE_ENDPOINT",
        value_name = "ADDRESS",
        default_value = "http://127.0.0.1:7601"
    )]
    pub endpoint: Endpoint,
    /// Listener for administration: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(
        long,
        env = "TOLLGATE_ADMIN_ENDPOINT",
        value_name = "ADDRESS",
        default_value = "http://127.0.0.1:7602"
    )]
    pub admin_endpoint: Endpoint,
    /// How long to wait for an answer
    #[arg(long, env = "TOLLGATE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = length)]
    pub timeout: Duration,
    /// Who the client is, and whom it trusts.
    #[command(flatten)]
    pub trust: Trust,
}

/// What a client shows to a server, and what it expects of it. Files in PEM.
#[derive(Clone, Debug, Default, Args)]
pub struct Trust {
    /// Authorities that certify the server at https://; those of the system without it
    #[arg(long, env = "TOLLGATE_CLIENT_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate that the client shows
    #[arg(long, env = "TOLLGATE_CLIENT_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert
    #[arg(long, env = "TOLLGATE_CLIENT_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File with the bearer token that the client shows; the end of its line is left out
    #[arg(long, env = "TOLLGATE_CLIENT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    Url(String),
    /// A socket of the file system.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let endpoint = match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| Endpoint::Unix(path.into())),
            None => text
                .strip_prefix("http://")
                .or_else(|| text.strip_prefix("https://"))
                .filter(|rest| rest.parse::<axum::http::uri::Authority>().is_ok())
                .map(|_| Endpoint::Url(text.to_owned())),
        };
        endpoint
            .ok_or_else(|| "expected http://HOST:PORT, https://HOST:PORT or unix:PATH".to_owned())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Url(url) => f.write_str(url),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// TOML file with settings; flags and variables win over it
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub flags: Flags,
}

impl ServeArgs {
    /// Where the settings come from.
    pub fn source(self) -> Source {
        Source { flags: self.flags, file: self.config }
    }
}

/// Arguments of `check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Ask the ledger too whether it answers: Redis, its sentinels or its cluster
    #[arg(long)]
    pub ask_ledger: bool,
    /// Where the settings come from.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for tollgate.1, tollgate-serve.1 and so on; left out: the first on standard output
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Listener for calls: IP:PORT or unix:PATH
    #[arg(long, env = "TOLLGATE_LISTEN", default_value = "127.0.0.1:7601")]
    pub listen: Listen,
    /// Listener for administration: IP:PORT or unix:PATH
    #[arg(long, env = "TOLLGATE_ADMIN_LISTEN", default_value = "127.0.0.1:7602")]
    pub admin_listen: Listen,
    /// Listener for HTTP /livez, /readyz and /metrics: IP:PORT or unix:PATH
    #[arg(long, env = "TOLLGATE_HTTP_LISTEN", default_value = "127.0.0.1:7603")]
    pub http_listen: Listen,
    /// Exit after the last call instead of serving on
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The organisation file, YAML; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Check the file and print its warnings, without a server
    #[arg(long)]
    pub dry_run: bool,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `rates`.
#[derive(Debug, Args)]
pub struct RatesArgs {
    /// What to do with the deck.
    #[command(subcommand)]
    pub command: RatesCommand,
}

/// What to do with a deck.
#[derive(Debug, Subcommand)]
pub enum RatesCommand {
    /// List every bad line of a deck, with its number and the reason, without a server
    Check {
        /// The deck, CSV; - reads standard input
        file: PathBuf,
    },
    /// Check a deck whole and let it price the calls that start from now on
    Activate {
        /// Name that tenants use for the deck
        #[arg(long, value_name = "NAME", default_value = "default")]
        deck: String,
        /// The deck, CSV; - reads standard input
        file: PathBuf,
        /// The server.
        #[command(flatten)]
        server: Server,
    },
}

/// Which call.
#[derive(Clone, Debug, Args)]
pub struct CallKey {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Call leg, named by you: 1 to 128 bytes, unique per leg, the same in every message about it
    #[arg(long, value_name = "ID")]
    pub call_id: String,
}

/// The call that is asked about.
#[derive(Clone, Debug, Args)]
pub struct CallFacts {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Call leg, named by you: 1 to 128 bytes, unique per leg; authorize makes one up when it is left out
    #[arg(long, value_name = "ID")]
    pub call_id: Option<String>,
    /// Type of call
    #[arg(
        long = "type",
        value_enum,
        ignore_case = true,
        value_name = "TYPE",
        default_value = "user_outbound"
    )]
    pub call_type: CallType,
    /// Who pays: user, meeting organiser, service number or resource account
    #[arg(long, value_name = "ID")]
    pub payer: String,
    /// Caller's number; may be left out
    #[arg(long, value_name = "NUMBER", default_value = "", hide_default_value = true)]
    pub calling: String,
    /// Number as dialled
    #[arg(long, value_name = "NUMBER")]
    pub called: String,
    /// What the caller dialled, when the SBC itself rewrote it
    #[arg(long, value_name = "NUMBER", default_value = "", hide_default_value = true)]
    pub original_called: String,
    /// Length asked for, such as 10m; the server chooses when it is left out
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub duration: Option<Duration>,
    /// How the call came about
    #[arg(long, value_enum, ignore_case = true, value_name = "ORIGIN", default_value = "direct")]
    pub origin: Origin,
    /// On whose behalf the payer calls
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub on_behalf_of: String,
    /// Conference that the leg belongs to
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub conference_id: String,
    /// SIP Call-ID, for records
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub sip_call_id: String,
    /// Trunk of the SBC
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub trunk: String,
    /// The answer of the call will be reported
    #[arg(long)]
    pub reports_answer: bool,
    /// Number of this attempt, for records
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub attempt: u32,
    /// Label for records; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

/// Type of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CallType {
    /// A user calls out
    UserOutbound,
    /// A conference calls out; the organiser pays
    ConferenceDialOut,
    /// Somebody dials into a conference
    ConferenceDialIn,
    /// Somebody calls a toll-free service number
    TollFreeInbound,
    /// Somebody calls a user
    UserInbound,
}

/// How a call came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Origin {
    /// Dialled
    Direct,
    /// By a transfer
    Transfer,
    /// By forwarding
    Forward,
    /// By adding a party
    AddParty,
    /// For somebody else
    OnBehalf,
}

/// Arguments of `authorize`.
#[derive(Debug, Args)]
pub struct AuthorizeArgs {
    /// The call.
    #[command(flatten)]
    pub call: CallFacts,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `quote`.
#[derive(Debug, Args)]
pub struct QuoteArgs {
    /// The call.
    #[command(flatten)]
    pub call: CallFacts,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `answer`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// Which call.
    #[command(flatten)]
    pub key: CallKey,
    /// When it was answered, RFC 3339; for records
    #[arg(long, value_name = "INSTANT")]
    pub answered_at: Option<Timestamp>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `extend`.
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// Which call.
    #[command(flatten)]
    pub key: CallKey,
    /// Used so far since the answer, such as 4m
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub used: Duration,
    /// Number of this message: higher than that of the one before; left out: newer than any before
    #[arg(long, value_name = "N")]
    pub sequence: Option<u64>,
    /// Length asked for, counted from what is used; the server chooses when it is left out
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub duration: Option<Duration>,
    /// Token of the last grant
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: String,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `settle`.
#[derive(Debug, Args)]
pub struct SettleArgs {
    /// Which call.
    #[command(flatten)]
    pub key: CallKey,
    /// Used since the answer, such as 90s; exactly 0s: never answered
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub used: Duration,
    /// Number of this message: higher than that of the one before; left out: newer than any before
    #[arg(long, value_name = "N")]
    pub sequence: Option<u64>,
    /// Q.850 cause of the end, for records
    #[arg(long, value_name = "CAUSE", value_parser = clap::value_parser!(u32).range(1..=127))]
    pub q850_cause: Option<u32>,
    /// When it was answered, RFC 3339; for records
    #[arg(long, value_name = "INSTANT")]
    pub answered_at: Option<Timestamp>,
    /// When it ended, RFC 3339; for records
    #[arg(long, value_name = "INSTANT")]
    pub ended_at: Option<Timestamp>,
    /// Token of the last grant
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: String,
    /// Label for records; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Which call.
    #[command(flatten)]
    pub key: CallKey,
    /// Q.850 cause of the end, for records
    #[arg(long, value_name = "CAUSE", value_parser = clap::value_parser!(u32).range(1..=127))]
    pub q850_cause: Option<u32>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `balance`.
#[derive(Debug, Args)]
pub struct BalanceArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `recharge`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("outcome").required(true).args(["succeeded", "failed"])))]
pub struct RechargeArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Key of the request, as its RECHARGE_REQUESTED event names it, such as recharge.7
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The money has arrived: add it to the credits
    #[arg(long)]
    pub succeeded: bool,
    /// It has not, and why
    #[arg(long, value_name = "REASON")]
    pub failed: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `calls`: without a command, the open calls of `tenant` are listed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CallsArgs {
    /// What else to do with calls.
    #[command(subcommand)]
    pub command: Option<CallsCommand>,
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID", required = true)]
    pub tenant: Option<String>,
    /// List them again and again, this long apart, until Ctrl-C; each time one JSON line with --output json
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = watching)]
    pub watch: Option<Duration>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// What to do with calls.
#[derive(Debug, Subcommand)]
pub enum CallsCommand {
    /// Show one call, open or ended
    Show {
        /// Which call.
        #[command(flatten)]
        key: CallKey,
        /// The server.
        #[command(flatten)]
        server: Server,
    },
    /// End open calls, each charged its last proven usage; SBCs that watch hang them up
    End(EndCallsArgs),
}

/// Arguments of `calls end`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["call_id", "payer", "trunk", "all"]))]
pub struct EndCallsArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// This call
    #[arg(long, value_name = "ID", conflicts_with = "before")]
    pub call_id: Option<String>,
    /// Calls that this user, service number or resource account pays for
    #[arg(long, value_name = "ID", conflicts_with = "before")]
    pub payer: Option<String>,
    /// Calls of this trunk
    #[arg(long, value_name = "ID")]
    pub trunk: Option<String>,
    /// All calls of the tenant
    #[arg(long, conflicts_with = "before")]
    pub all: bool,
    /// The trunk's SBC restarted at this instant, RFC 3339: ends its calls that started before, and tells
    /// nobody
    #[arg(long, value_name = "INSTANT", requires = "trunk", conflicts_with_all = ["reason", "operator"])]
    pub before: Option<Timestamp>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", required_unless_present = "before")]
    pub reason: Option<String>,
    /// Who ends them, for the record
    #[arg(long, value_name = "NAME", required_unless_present = "before")]
    pub operator: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `decisions`.
#[derive(Debug, Args)]
pub struct DecisionsArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Only those about this call
    #[arg(long, value_name = "ID")]
    pub call_id: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// First instant, RFC 3339, at most 12 months ago; left out: the beginning of the month of --to
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<Timestamp>,
    /// First instant after the last record, RFC 3339; left out: now
    #[arg(long, value_name = "INSTANT")]
    pub to: Option<Timestamp>,
    /// A file with the twenty columns; left out: by the ending of --output-file, else as --output says
    #[arg(long, value_enum, ignore_case = true, value_name = "FORMAT")]
    pub format: Option<UsageFormat>,
    /// Where to write it; left out: standard output
    #[arg(long, value_name = "FILE", required_if_eq("format", "xlsx"))]
    pub output_file: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Form of a usage file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UsageFormat {
    /// RFC 4180, the names of the columns first
    Csv,
    /// Excel workbook
    Xlsx,
}

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Their call detail records, CSV in UTF-8 with a header; - reads standard input
    pub file: PathBuf,
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Compare calls that started from here on, RFC 3339; left out: from the first of theirs on
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<Timestamp>,
    /// Compare calls that started before, RFC 3339; left out: to the last of theirs
    #[arg(long, value_name = "INSTANT")]
    pub to: Option<Timestamp>,
    /// Durations that differ by no more are equal; so far apart may starts be where the number tells which call it is
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = tolerance)]
    pub tolerance: Duration,
    /// Charges that differ by no more are equal
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = amount)]
    pub charge_tolerance: Micros,
    /// A file of the differences; left out: as --output says
    #[arg(long, value_enum, ignore_case = true, value_name = "FORMAT")]
    pub format: Option<ReconcileFormat>,
    /// Character between their columns
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    pub delimiter: u8,
    /// Their column with the call id that we were given, if not named call_id or alike
    #[arg(long, value_name = "NAME")]
    pub call_id_column: Option<String>,
    /// Their column with the SIP Call-ID, if not named sip_call_id or alike
    #[arg(long, value_name = "NAME")]
    pub sip_call_id_column: Option<String>,
    /// Their column with the called number, if not named called, destination_number or alike
    #[arg(long, value_name = "NAME")]
    pub called_column: Option<String>,
    /// Their column with the instant of the answer, RFC 3339 or seconds since 1970, if not named start_time or alike
    #[arg(long, value_name = "NAME")]
    pub start_column: Option<String>,
    /// Their column with the seconds of the call, if not named duration, billsec or alike
    #[arg(long, value_name = "NAME")]
    pub duration_column: Option<String>,
    /// Their column with the charge, if not named charge, cost or alike; need not be there
    #[arg(long, value_name = "NAME")]
    pub charge_column: Option<String>,
    /// Their column with the currency, if not named currency; need not be there
    #[arg(long, value_name = "NAME")]
    pub currency_column: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: JournalCommand,
}

/// What to do with a journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// List what the ledger still has to do, and what it did not do as it was accepted
    List {
        /// The directory
        #[arg(long, env = "TOLLGATE_JOURNAL", value_name = "PATH")]
        journal: PathBuf,
    },
    /// Read every entry; exits with 1 when any cannot be read
    Verify {
        /// The directory
        #[arg(long, env = "TOLLGATE_JOURNAL", value_name = "PATH")]
        journal: PathBuf,
    },
}

/// Form of a file of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReconcileFormat {
    /// RFC 4180, the names of the columns first; the totals are on standard error
    Csv,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Begin after the event with this cursor; left out: at the beginning
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// Go on with events as they happen, until stopped
    #[arg(long)]
    pub follow: bool,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only this tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `adjust`.
#[derive(Debug, Args)]
pub struct AdjustArgs {
    /// What to correct.
    #[command(subcommand)]
    pub command: AdjustCommand,
}

/// What to correct.
#[derive(Debug, Subcommand)]
pub enum AdjustCommand {
    /// Add to a lot or to a pool of this month, or take away
    Balance(Box<AdjustBalanceArgs>),
    /// Correct the usage of a settled call: charge the difference, or give it back
    Settlement(Box<AdjustSettlementArgs>),
}

/// Who corrects what, why and under which key.
#[derive(Clone, Debug, Args)]
pub struct AuthorityArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Name of the correction, made up by you: it is applied once
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who corrects, for the record
    #[arg(long, value_name = "NAME")]
    pub operator: String,
}

/// Arguments of `adjust balance`.
#[derive(Debug, Args)]
#[group(id = "how_much", required = true, multiple = false, args = ["amount", "minutes", "duration"])]
pub struct AdjustBalanceArgs {
    /// Who, why and under which key.
    #[command(flatten)]
    pub authority: AuthorityArgs,
    /// Key of a lot, or pool of this month, as `balance` lists them
    #[arg(long, value_name = "ID")]
    pub bucket: String,
    /// Money to add to a lot, such as 5.00, in the tenant's currency; below zero is taken away
    #[arg(long, value_name = "MONEY", allow_hyphen_values = true)]
    pub amount: Option<String>,
    /// Minutes to add to a pool; below zero are taken away
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-10_000_000_000..=10_000_000_000))]
    pub minutes: Option<i64>,
    /// Length of time to add to a pool, such as 90s or -1h30m; below zero is taken away
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = signed_length)]
    pub duration: Option<i64>,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `users`.
#[derive(Debug, Args)]
pub struct UsersArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UsersCommand,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Refuse the new calls and the extensions of a user until it is unblocked; apply never lifts it
    Block {
        /// Whom.
        #[command(flatten)]
        who: BlockArgs,
        /// Why, for the report: at most 256 bytes
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Lift the block that was set by block
    Unblock {
        /// Whom.
        #[command(flatten)]
        who: BlockArgs,
        /// Why, for the report: at most 256 bytes
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Report who is blocked, or with --include-unblocked who was blocked and unblocked
    Blocked(BlockedArgs),
}

/// Whom to block or unblock.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// User, service number or resource account
    #[arg(value_name = "USER")]
    pub user: String,
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Who does it, for the report
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub operator: String,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `adjust settlement`.
#[derive(Debug, Args)]
pub struct AdjustSettlementArgs {
    /// Who, why and under which key.
    #[command(flatten)]
    pub authority: AuthorityArgs,
    /// Call leg, settled
    #[arg(long, value_name = "ID")]
    pub call_id: String,
    /// Corrected usage since the answer, such as 90s; 0s: the call costs nothing
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub used: Duration,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `adjustments`.
#[derive(Debug, Args)]
pub struct AdjustmentsArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `users blocked`.
#[derive(Debug, Args)]
pub struct BlockedArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// Everything that was blocked and unblocked in a window of time, oldest first
    #[arg(long)]
    pub include_unblocked: bool,
    /// First instant, RFC 3339; left out: the beginning of the month of --to
    #[arg(long, value_name = "INSTANT", requires = "include_unblocked")]
    pub from: Option<Timestamp>,
    /// First instant after the last record, RFC 3339; left out: now
    #[arg(long, value_name = "INSTANT", requires = "include_unblocked")]
    pub to: Option<Timestamp>,
    /// The file.
    #[command(flatten)]
    pub file: ReportFile,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// Whole seconds of a length of time that may be below zero.
fn signed_length(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let length = length(rest)?;
    match i64::try_from(length.as_secs()) {
        Ok(seconds) if length.subsec_nanos() == 0 => Ok(sign * seconds),
        _ => Err("expected whole seconds".to_owned()),
    }
}

/// Arguments of `pools`.
#[derive(Debug, Args)]
pub struct PoolsArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// The file.
    #[command(flatten)]
    pub file: ReportFile,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

/// A report as a file.
#[derive(Debug, Args)]
pub struct ReportFile {
    /// A file instead of --output; csv where --output-file is given
    #[arg(long, value_enum, ignore_case = true, value_name = "FORMAT")]
    pub format: Option<ReportFormat>,
    /// Where to write it; left out: standard output
    #[arg(long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,
}

impl ReportFile {
    /// Whether a file is asked for.
    pub fn wanted(&self) -> bool {
        self.format.is_some() || self.output_file.is_some()
    }
}

/// Form of a report's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// RFC 4180, the names of the columns first
    Csv,
}

/// Arguments of `records`.
#[derive(Debug, Args)]
pub struct RecordsArgs {
    /// What to do with records.
    #[command(subcommand)]
    pub command: RecordsCommand,
}

/// What to do with records.
#[derive(Debug, Subcommand)]
pub enum RecordsCommand {
    /// Erase one telephone number, or everybody's before an instant; charges and balances stay
    Erase(EraseArgs),
}

/// Arguments of `records erase`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct EraseArgs {
    /// Tenant
    #[arg(long, env = "TOLLGATE_TENANT", value_name = "ID")]
    pub tenant: String,
    /// The number, in E.164 such as +4930901820
    #[arg(long, value_name = "NUMBER", group = "what")]
    pub number: Option<String>,
    /// All numbers in records made before this instant, RFC 3339 or YYYY-MM-DD (00:00 UTC)
    #[arg(long, value_name = "INSTANT", group = "what", value_parser = day_or_instant)]
    pub before: Option<Timestamp>,
    /// Why, for the journal; without the number
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Who asks for it, for the journal
    #[arg(
        long,
        env = "TOLLGATE_OPERATOR",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub operator: String,
    /// The server.
    #[command(flatten)]
    pub server: Server,
}

fn day_or_instant(text: &str) -> Result<Timestamp, String> {
    let day = |text: &str| {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let instant = text.parse().ok().or_else(|| day(text));
    instant
        .ok_or_else(|| "expected an instant such as 2026-01-10T00:00:00Z or 2026-01-10".to_owned())
}

/// Shortest time between two looks at open calls.
const SHORTEST_WATCH: Duration = Duration::from_millis(200);

fn watching(text: &str) -> Result<Duration, String> {
    length(text)
        .ok()
        .filter(|length| *length >= SHORTEST_WATCH)
        .ok_or_else(|| "expected a length of time such as 2s, at least 200ms".to_owned())
}

pub(super) fn length(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a length of time such as 90s or 5m".to_owned())
}

/// Longest tolerance: a day.
const MAX_TOLERANCE: Duration = Duration::from_secs(86_400);

fn tolerance(text: &str) -> Result<Duration, String> {
    length(text)
        .ok()
        .filter(|length| *length <= MAX_TOLERANCE)
        .ok_or_else(|| "expected a length of time such as 2s or 1m30s, at most a day".to_owned())
}

fn amount(text: &str) -> Result<Micros, String> {
    parse_micros(text).map_err(|error| error.to_string())
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "\\t" || text == "tab" => Ok(b'\t'),
        [character] if !character.is_ascii_alphanumeric() && *character != b'"' => Ok(*character),
        _ => Err("expected one character such as ; or the word tab".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_commands_are_consistent_and_every_argument_is_explained() {
        fn explained(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|arg| arg.get_id() != "help") {
                let what = format!("{} {}", command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{what}");
            }
            command.get_subcommands().for_each(explained);
        }
        Cli::command().debug_assert();
        explained(&Cli::command());
    }

    fn client(line: &str) -> Result<ClientCommand, clap::Error> {
        match parse(line)? {
            Command::Client(command) => Ok(*command),
            other => panic!("expected a command of a client, found {other:?}"),
        }
    }

    #[test]
    fn a_call_is_read() {
        let line = "tollgate authorize --tenant contoso --call-id a|b --payer alice \
                    --called +14255550100 --type TOLL_FREE_INBOUND --duration 10m --label k=v=w";
        let Ok(ClientCommand::Authorize(authorize)) = client(line) else {
            panic!("expected authorize")
        };
        assert_eq!(authorize.call.call_type, CallType::TollFreeInbound);
        assert_eq!(authorize.call.duration, Some(Duration::from_secs(600)));
        assert_eq!(authorize.call.labels, [("k".to_owned(), "v=w".to_owned())]);
        assert_eq!(authorize.server.endpoint.to_string(), "http://127.0.0.1:7601");
    }

    #[test]
    fn open_calls_are_listed_without_a_command() {
        let Ok(ClientCommand::Calls(calls)) =
            client("tollgate calls --tenant a --endpoint unix:/a")
        else {
            panic!("expected calls")
        };
        assert!(calls.command.is_none());
        assert_eq!(calls.tenant.as_deref(), Some("a"));
        assert_eq!(calls.server.endpoint.to_string(), "unix:/a");

        let Ok(ClientCommand::Calls(calls)) = client("tollgate calls show --tenant a --call-id b")
        else {
            panic!("expected calls")
        };
        assert!(
            matches!(calls.command, Some(CallsCommand::Show { key, .. }) if key.call_id == "b")
        );
        for line in [
            "tollgate calls end --tenant a --trunk b --before 2026-01-10T00:00:00Z",
            "tollgate calls end --tenant a --trunk b --reason r --operator o",
            "tollgate calls end --tenant a --call-id b --reason r --operator o",
            "tollgate calls end --tenant a --all --reason r --operator o",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_correction_may_be_below_zero() {
        let line = "tollgate adjust balance --tenant a --key k --bucket b --reason r --operator o";
        for (more, expected) in [
            ("--amount -5.00", (Some("-5.00"), None, None)),
            ("--minutes -30", (None, Some(-30), None)),
            ("--duration -1h30m", (None, None, Some(-5_400))),
            ("--duration 90s", (None, None, Some(90))),
        ] {
            let Ok(ClientCommand::Adjust(adjust)) = client(&format!("{line} {more}")) else {
                panic!("expected adjust: {more}")
            };
            let AdjustCommand::Balance(args) = adjust.command else { panic!("expected balance") };
            assert_eq!((args.amount.as_deref(), args.minutes, args.duration), expected);
        }
    }

    #[test]
    fn endpoints_are_urls_or_sockets() {
        for text in [
            "http://localhost:7601",
            "https://localhost:7601",
            "http://[::1]:7601",
            "unix:/run/tollgate.sock",
        ] {
            assert_eq!(
                text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "localhost:7601", "ftp://localhost", "http://", "http://a/b", "unix:"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused() {
        for line in [
            "tollgate authorize --call-id a --payer b",
            "tollgate settle --tenant a --call-id b --used ten",
            "tollgate settle --tenant a --call-id b --used 1s --q850-cause 128",
            "tollgate decisions --tenant a --limit 0",
            "tollgate usage --tenant a --format xlsx",
            "tollgate usage --tenant a --from yesterday",
            "tollgate reconcile --tenant a",
            "tollgate reconcile --tenant a --tolerance 2d cdr.csv",
            "tollgate reconcile --tenant a --charge-tolerance much cdr.csv",
            "tollgate reconcile --tenant a --delimiter ab cdr.csv",
            "tollgate calls end --tenant a --trunk b --before noon",
            "tollgate calls end --tenant a --reason r --operator o",
            "tollgate calls end --tenant a --call-id b --payer c --reason r --operator o",
            "tollgate calls end --tenant a --call-id b --reason r",
            "tollgate calls end --tenant a --payer b --before 2026-01-10T00:00:00Z",
            "tollgate calls end --tenant a --trunk b --before 2026-01-10T00:00:00Z --reason r --operator o",
            "tollgate records erase --tenant a",
            "tollgate records erase --tenant a --number +4930901820 --before 2026-01-10",
            "tollgate records erase --tenant a --before yesterday",
            "tollgate balance --tenant a --admin-endpoint nowhere",
            "tollgate recharge --tenant a --key recharge.1",
            "tollgate recharge --tenant a --key recharge.1 --succeeded --failed card",
            "tollgate recharge --tenant a --succeeded",
            "tollgate rates",
            "tollgate adjust balance --tenant a --key k --bucket b --reason r --operator o",
            "tollgate adjust balance --tenant a --key k --bucket b --reason r --operator o --minutes 1 --amount 1",
            "tollgate adjust balance --tenant a --key k --bucket b --reason r --operator o --duration -1.5s",
            "tollgate adjust settlement --tenant a --key k --call-id c --used 1s --reason r",
            "tollgate calls",
            "tollgate demo --listen here",
            "tollgate users",
            "tollgate users block --tenant a alice",
            "tollgate users blocked --tenant a --from 2026-11-01T00:00:00Z",
            "tollgate pools --tenant a --format xlsx",
            "tollgate nothing",
        ] {
            assert!(parse(line).is_err_and(|error| error.use_stderr()), "{line}");
        }
    }
}

/// Arguments of `openapi`.
#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// The listener
    #[arg(value_enum, default_value = "calls")]
    pub listener: Listener,
}

/// A listener that answers in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listener {
    /// For calls.
    Calls,
    /// For administration.
    Administration,
}
