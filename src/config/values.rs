//! Single settings: text in, checked value or what was expected out.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use rust_decimal::Decimal;
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::charging::catalogue::CountryCode;
use crate::charging::money::parse_micros;
use crate::charging::units::Micros;
use crate::credit_control::signed_grant::TokenKeys;
use crate::duration;
use crate::ledger::redis::check_url;
use crate::notices::kinds::Kinds;
use crate::notices::webhook::Secrets;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address of TCP; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A socket of the file system.
    Unix(PathBuf),
}

impl Listen {
    /// Whether both cannot be bound at once.
    pub(super) fn collides_with(&self, other: &Listen) -> bool {
        !matches!(self, Listen::Tcp(address) if address.port() == 0) && self == other
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let listen = match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| Listen::Unix(path.into())),
            None => text.parse().ok().map(Listen::Tcp),
        };
        listen.ok_or_else(|| "expected IP:PORT such as 127.0.0.1:7601, or unix:PATH".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which ledger.
#[derive(Clone, PartialEq, Eq)]
pub enum LedgerUrl {
    /// The embedded one; gone when the program ends.
    Memory,
    /// The embedded one, kept in a file.
    File(PathBuf),
    /// A Redis server, by its URL.
    Redis(String),
}

/// Without the user and password that a URL may hold.
impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self {
            LedgerUrl::Memory => return f.write_str("memory"),
            LedgerUrl::File(path) => return write!(f, "file:{}", path.display()),
            LedgerUrl::Redis(url) => url,
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
        // A query may hold a password too (redis+unix://PATH?pass=...), and so may, against the rules, what
        // stands before a question mark in a user's.
        let place = rest.split_once('?').map_or(rest, |(place, _)| place);
        let address = match place.rsplit_once('@') {
            Some((_, address)) => address,
            None if rest.contains('@') => "",
            None => place,
        };
        write!(f, "{scheme}://{address}")
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerUrl({self})")
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// TLS on the HTTP listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpTls {
    /// Plain.
    Off,
    /// Clients need no certificate.
    On,
    /// They do.
    Mutual,
}

/// The text itself is not repeated: it may hold a password.
pub(super) fn ledger(text: &str) -> Result<LedgerUrl, String> {
    let expected = "expected memory, file:PATH, redis://HOST:PORT, rediss://HOST:PORT, redis+unix://PATH, \
                    redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT";
    if text == "memory" {
        return Ok(LedgerUrl::Memory);
    }
    match text.split_once(':') {
        // Not file://PATH, which would be another path than meant.
        Some(("file", path)) if !path.is_empty() && !path.starts_with("//") => {
            Ok(LedgerUrl::File(PathBuf::from(path)))
        }
        Some((
            scheme @ ("redis" | "rediss" | "redis+unix" | "redis+sentinel" | "redis+cluster"),
            rest,
        )) if rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty())
            && (!matches!(scheme, "redis" | "rediss") || is_one_server(text)) =>
        {
            if matches!(scheme, "redis+sentinel" | "redis+cluster") {
                check_url(text).map_err(|error| error.to_string())?;
            }
            Ok(LedgerUrl::Redis(text.to_owned()))
        }
        _ => Err(expected.to_owned()),
    }
}

/// Host, port and the number of a database.
fn is_one_server(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let database = url.path().trim_start_matches('/');
    url.has_host() && (database.is_empty() || database.parse::<u32>().is_ok())
}

pub(super) fn listen(text: &str) -> Result<Listen, String> {
    text.parse().map_err(|expected| format!("{expected}, found {text:?}"))
}

pub(super) fn country_or_none(text: &str) -> Result<Option<CountryCode>, String> {
    if text == "none" {
        return Ok(None);
    }
    CountryCode::parse(text).map(Some).ok_or_else(|| {
        format!("expected an ISO 3166-1 alpha-2 country code such as US, or none, found {text:?}")
    })
}

/// The URL of an SMTP relay.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl(String);

impl SmtpUrl {
    /// All of it, with the password that it may hold.
    pub fn whole(&self) -> &str {
        &self.0
    }
}

/// Without user and password.
impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.0).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        write!(f, "SmtpUrl({host})")
    }
}

/// The text itself is not repeated: it may hold a password.
pub(super) fn smtp_url_or_none(text: &str) -> Result<Option<SmtpUrl>, String> {
    if text == "none" {
        return Ok(None);
    }
    let expected =
        "expected smtp://HOST, smtps://HOST, or smtp://USER:PASSWORD@HOST:587?tls=required";
    let url = Url::parse(text).map_err(|_| expected.to_owned())?;
    let readable = AsyncSmtpTransport::<Tokio1Executor>::from_url(text).is_ok();
    if !readable || !matches!(url.scheme(), "smtp" | "smtps") || !url.has_host() {
        return Err(expected.to_owned());
    }
    let encrypted = url.scheme() == "smtps"
        || url.query_pairs().any(|pair| pair == ("tls".into(), "required".into()));
    if url.password().is_some() && !encrypted {
        return Err("expected smtps:// or ?tls=required with a password, which anybody could read"
            .to_owned());
    }
    Ok(Some(SmtpUrl(text.to_owned())))
}

pub(super) fn mailbox_or_none(text: &str) -> Result<Option<Mailbox>, String> {
    if text == "none" {
        return Ok(None);
    }
    let mailbox = text.parse::<Mailbox>().ok().filter(|_| !text.chars().any(char::is_control));
    mailbox.map(Some).ok_or_else(|| {
        format!(
            "expected a mail address such as Tollgate <tollgate@contoso.example>, found {text:?}"
        )
    })
}

/// The text itself is not repeated: a path may be a secret.
pub(super) fn url_or_none(text: &str) -> Result<Option<String>, String> {
    if text == "none" {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) if url.has_host() => Ok(Some(text.to_owned())),
        _ => Err("expected a URL such as https://contoso.example/tollgate".to_owned()),
    }
}

pub(super) fn secrets_or_none(text: &str) -> Result<Option<Secrets>, String> {
    if text == "none" {
        return Ok(None);
    }
    Secrets::parse(text).map(Some)
}

pub(super) fn secrets_file_or_none(text: &str) -> Result<Option<Secrets>, String> {
    if text == "none" {
        return Ok(None);
    }
    let read = std::fs::read_to_string(text);
    let read = read.map_err(|error| format!("cannot read {text:?}: {error}"))?;
    Secrets::parse(&read).map(Some)
}

/// The file of keys that sign grants, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeysFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub keys: TokenKeys,
}

pub(super) fn token_keys_file_or_none(text: &str) -> Result<Option<TokenKeysFile>, String> {
    if text == "none" {
        return Ok(None);
    }
    let read = std::fs::read_to_string(text);
    let read = read.map_err(|error| format!("cannot read {text:?}: {error}"))?;
    TokenKeys::parse(&read).map(|keys| Some(TokenKeysFile { path: PathBuf::from(text), keys }))
}

pub(super) fn webhook_events(text: &str) -> Result<Kinds, String> {
    Kinds::parse(text, Kinds::of_webhooks())
}

pub(super) fn mail_events(text: &str) -> Result<Kinds, String> {
    Kinds::parse(text, Kinds::of_mails())
}

pub(super) const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

pub(super) const fn minutes(number: u64) -> Duration {
    Duration::from_secs(number * 60)
}

pub(super) const fn hours(number: u64) -> Duration {
    Duration::from_secs(number * 3600)
}

pub(super) fn length(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        duration::parse(text).filter(|length| (least..=most).contains(length)).ok_or_else(|| {
            format!(
                "expected a length of time from {} to {}, found {text:?}",
                shown(least),
                shown(most)
            )
        })
    }
}

fn shown(length: Duration) -> String {
    SignedDuration::try_from(length).map_or_else(|_| String::new(), |length| format!("{length:#}"))
}

pub(super) fn whole(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            format!("expected a whole number from {least} to {most}, found {text:?}")
        })
    }
}

/// Money from nothing to so many units of any currency.
pub(super) fn money(most: i64) -> impl Fn(&str) -> Result<Micros, String> {
    move |text| {
        let amount = parse_micros(text).ok().filter(|amount| amount.0 <= most * 1_000_000);
        amount.ok_or_else(|| {
            format!("expected an amount of money from 0 to {most} such as 12.5, found {text:?}")
        })
    }
}

/// A share from 0 to 1 with up to six decimals, in parts of a million.
pub(super) fn share(text: &str) -> Result<u32, String> {
    let expected = || format!("expected a share from 0 to 1 such as 0.01, found {text:?}");
    let share = Decimal::from_str(text).map_err(|_| expected())?;
    let millionths = share.checked_mul(Decimal::from(1_000_000)).filter(Decimal::is_integer);
    let millionths = millionths.and_then(|share| u32::try_from(share).ok());
    millionths.filter(|share| *share <= 1_000_000).ok_or_else(expected)
}

/// A collector: nothing but an address, since there is no encryption on the way to it.
pub(super) fn collector_or_none(text: &str) -> Result<Option<String>, String> {
    if text == "none" {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.has_host() && url.username().is_empty() => {
            Ok(Some(text.to_owned()))
        }
        _ => Err("expected http://HOST:PORT such as http://127.0.0.1:4317".to_owned()),
    }
}

/// Bytes: a whole number, or one with KiB or MiB.
pub(super) fn size(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let (number, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
            (Some(number), _) => (number, 1 << 10),
            (_, Some(number)) => (number, 1 << 20),
            _ => (text, 1),
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .filter(|bytes| (least..=most).contains(bytes))
            .ok_or_else(|| {
                format!(
                    "expected a size from {least} to {most} bytes such as 64KiB, found {text:?}"
                )
            })
    }
}

pub(super) fn folder_or_off(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "off" => Ok(None),
        "" => Err("expected off, or the path of a directory".to_owned()),
        path => Ok(Some(path.into())),
    }
}

pub(super) fn path_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "none" => Ok(None),
        "" => Err("expected none, or the path of a file".to_owned()),
        path => Ok(Some(path.into())),
    }
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    word(&[("true", true), ("false", false)])(text)
}

pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("expected one of {}, found {text:?}", words.join(", "))
        })
    }
}

pub(super) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "expected a level such as info, or targets with levels such as warn,tollgate=debug, found {text:?}"
        )),
    }
}
