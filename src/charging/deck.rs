//! Rate decks: read from CSV and checked whole, then asked for the rate of a number at an instant.
//!
//! A deck is immutable; a new one is a new version. The longest prefix that is in force wins; the row `*`
//! of a direction answers where no prefix does. This module does not know which deck a tenant uses.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::charging::money::{MoneyError, format_micros, parse_micros};
use crate::charging::rating::{MAX_RATE, Tariff};
use crate::charging::short::Short;
use crate::charging::units::{Micros, Millis, Seconds};

/// The header of a deck, exactly.
pub const HEADER: [&str; 10] = [
    "prefix",
    "destination",
    "rate_per_minute",
    "connection_fee",
    "initial_increment",
    "increment",
    "currency",
    "effective_from",
    "effective_to",
    "direction",
];

/// Largest deck file, 64 MiB.
pub const MAX_BYTES: usize = 64 << 20;

/// Most rows of a deck.
pub const MAX_ROWS: usize = 1_000_000;

/// Most bad lines that are kept in full.
pub const MAX_ERRORS: usize = 1_000;

/// Longest destination text, in characters.
const MAX_DESTINATION: usize = 200;

/// The open end of a row.
const FOREVER: Millis = Millis(i64::MAX);

/// Which way a call goes, as seen from the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Out to the network: matched on the called number.
    Outbound,
    /// In to a toll-free number: matched on the caller's number.
    TollFreeInbound,
    /// In to a toll number: matched on the caller's number.
    TollInbound,
}

impl Direction {
    /// All directions.
    pub const ALL: [Direction; 3] = [Self::Outbound, Self::TollFreeInbound, Self::TollInbound];

    /// Its name in a deck.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::TollFreeInbound => "toll_free_inbound",
            Self::TollInbound => "toll_inbound",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line of a deck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which way the calls go.
    pub direction: Direction,
    /// Leading digits of the number, or `*`.
    pub prefix: Box<str>,
    /// What the deck calls the destination.
    pub destination: Box<str>,
    /// The price.
    pub tariff: Tariff,
    /// First instant in force.
    pub from: Millis,
    /// First instant no longer in force; the end of time if the deck leaves it open.
    pub to: Millis,
    /// Line of the file, from 1.
    pub line: u64,
}

impl Row {
    fn in_force(&self, at: Millis) -> bool {
        (self.from..self.to).contains(&at)
    }

    fn rate(&self) -> Rate<'_> {
        Rate { tariff: self.tariff, destination: &self.destination, prefix: &self.prefix }
    }
}

/// What a deck says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate<'a> {
    /// The price.
    pub tariff: Tariff,
    /// What the deck calls the destination.
    pub destination: &'a str,
    /// The prefix that matched, or `*`.
    pub prefix: &'a str,
}

/// A bad line and everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// Line of the file, from 1.
    pub line: u64,
    /// What was expected.
    pub reason: String,
}

/// Why a file is not a deck: every bad line, up to [`MAX_ERRORS`] of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DeckErrors {
    /// The first bad lines, by line.
    pub errors: Vec<LineError>,
    /// How many bad lines there are in all.
    pub total: u64,
}

impl fmt::Display for DeckErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for LineError { line, reason } in &self.errors {
            writeln!(f, "line {line}: {reason}")?;
        }
        write!(f, "{} bad lines in all", self.total)
    }
}

/// A checked rate deck.
#[derive(Debug)]
pub struct Deck {
    /// By direction, prefix and start.
    rows: Vec<Row>,
    tries: [Trie; 3],
    currency: String,
    version: String,
}

impl Deck {
    /// Reads and checks a whole file; every bad line is reported, not only the first.
    pub fn parse(bytes: &[u8]) -> Result<Deck, DeckErrors> {
        let mut faults = Faults::default();
        if bytes.len() > MAX_BYTES {
            faults.add(1, format!("expected at most {MAX_BYTES} bytes"));
            return Err(faults.into_errors());
        }
        let (mut rows, currency) = read_rows(bytes, &mut faults);
        rows.sort_unstable_by(|a, b| {
            (a.direction, &a.prefix, a.from, a.line).cmp(&(b.direction, &b.prefix, b.from, b.line))
        });
        check_overlaps(&rows, &mut faults);
        if rows.is_empty() && faults.is_empty() {
            faults.add(1, "expected at least one row under the header".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults.into_errors());
        }
        let tries = Direction::ALL.map(|direction| Trie::over(&rows, direction));
        let version = hex::encode(&Sha256::digest(bytes)[..8]);
        Ok(Deck { rows, tries, currency, version })
    }

    /// The rate of a number, in E.164 without the plus: that of the longest prefix in force at `at`, else
    /// that of the direction's row `*`. `None` means unrated.
    pub fn rate(&self, direction: Direction, digits: &str, at: Millis) -> Option<Rate<'_>> {
        let trie = &self.tries[direction as usize];
        let mut node = &trie.nodes[0];
        let mut best = None;
        for byte in digits.bytes() {
            let digit = byte.wrapping_sub(b'0');
            let Some(&child) = node.children.get(usize::from(digit)) else { break };
            if child == 0 {
                break;
            }
            node = &trie.nodes[child as usize];
            if node.rows > 0 {
                best = self.in_force(node, at).or(best);
            }
        }
        best.or_else(|| self.in_force(&trie.nodes[0], at)).map(Row::rate)
    }

    /// The row `*` of a direction.
    pub fn default_rate(&self, direction: Direction, at: Millis) -> Option<Rate<'_>> {
        self.rate(direction, "", at)
    }

    /// The dearest row in force whose prefix starts with `country_prefix` (D24), by rate per minute, then
    /// by connection fee. Reads all rows of the country.
    pub fn dearest(
        &self,
        direction: Direction,
        country_prefix: &str,
        at: Millis,
    ) -> Option<Rate<'_>> {
        let start =
            self.rows.partition_point(|r| (r.direction, &*r.prefix) < (direction, country_prefix));
        self.rows[start..]
            .iter()
            .take_while(|r| r.direction == direction && r.prefix.starts_with(country_prefix))
            .filter(|r| r.in_force(at) && *r.prefix != *"*")
            .max_by_key(|r| (r.tariff.rate_per_minute, r.tariff.connection_fee))
            .map(Row::rate)
    }

    /// ISO 4217 code of all amounts.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// How many rows it has, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a deck is never empty")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// All rows, by direction, prefix and start.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Names the contents: the first 8 bytes of the file's SHA-256 in lower-case hex.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn in_force(&self, node: &Node, at: Millis) -> Option<&Row> {
        let first = node.first as usize;
        self.rows[first..first + node.rows as usize].iter().find(|row| row.in_force(at))
    }
}

/// Prefixes of one direction, one node per digit; the root stands for `*`.
#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
}

/// Indices of the children, 0 for none (the root is nobody's child), and the prefix's rows in the deck.
#[derive(Clone, Debug, Default)]
struct Node {
    children: [u32; 10],
    first: u32,
    rows: u32,
}

impl Trie {
    /// `rows` are sorted, so that those of one prefix lie together.
    fn over(rows: &[Row], direction: Direction) -> Trie {
        let mut nodes = vec![Node::default()];
        for (i, row) in (0u32..).zip(rows) {
            if row.direction != direction {
                continue;
            }
            let mut node = 0;
            for byte in row.prefix.bytes().filter(u8::is_ascii_digit) {
                let digit = usize::from(byte - b'0');
                if nodes[node].children[digit] == 0 {
                    nodes[node].children[digit] = nodes.len() as u32;
                    nodes.push(Node::default());
                }
                node = nodes[node].children[digit] as usize;
            }
            if nodes[node].rows == 0 {
                nodes[node].first = i;
            }
            nodes[node].rows += 1;
        }
        Trie { nodes }
    }
}

/// Bad lines as they are found; several faults of one line become one entry.
#[derive(Default)]
struct Faults {
    kept: BTreeMap<u64, String>,
    dropped: u64,
}

impl Faults {
    fn add(&mut self, line: u64, reason: String) {
        if let Some(kept) = self.kept.get_mut(&line) {
            kept.push_str("; ");
            kept.push_str(&reason);
            return;
        }
        self.kept.insert(line, reason);
        if self.kept.len() > MAX_ERRORS {
            self.kept.pop_last();
            self.dropped += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn into_errors(self) -> DeckErrors {
        let total = self.kept.len() as u64 + self.dropped;
        let errors = self.kept.into_iter().map(|(line, reason)| LineError { line, reason });
        DeckErrors { errors: errors.collect(), total }
    }
}

/// The good rows and the deck's currency; the bad ones go to `faults`.
fn read_rows(bytes: &[u8], faults: &mut Faults) -> (Vec<Row>, String) {
    let mut rows = Vec::new();
    let mut currency: Option<(String, u64)> = None;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    let mut header_seen = false;
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                faults.add(reader.position().line(), error.to_string());
                break;
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        if !header_seen {
            header_seen = true;
            if !record.iter().eq(HEADER.iter().map(|name| name.as_bytes())) {
                faults.add(line, format!("expected the header {}", HEADER.join(",")));
                break;
            }
            continue;
        }
        if rows.len() == MAX_ROWS {
            faults.add(line, format!("expected at most {MAX_ROWS} rows"));
            break;
        }
        match read_row(&record, line, &mut currency) {
            Ok(row) => rows.push(row),
            Err(reason) => faults.add(line, reason),
        }
    }
    if !header_seen && faults.is_empty() {
        faults.add(1, format!("expected the header {}", HEADER.join(",")));
    }
    (rows, currency.map_or(String::new(), |(code, _)| code))
}

/// One row, or all that is wrong with it. The first good currency is that of the deck.
fn read_row(
    record: &csv::ByteRecord,
    line: u64,
    currency: &mut Option<(String, u64)>,
) -> Result<Row, String> {
    let mut fields = [""; HEADER.len()];
    if record.len() != fields.len() {
        return Err(format!("expected {} fields, got {}", fields.len(), record.len()));
    }
    for (field, bytes) in fields.iter_mut().zip(record) {
        *field = std::str::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?;
    }
    let [prefix, destination, rate, fee, initial, step, code, from, to, direction] = fields;

    let mut reasons = Vec::new();
    let mut note = |column: &str, reason: String| reasons.push(format!("{column}: {reason}"));
    if let Err(reason) = check_prefix(prefix) {
        note("prefix", reason);
    }
    if destination.chars().count() > MAX_DESTINATION || destination.contains(char::is_control) {
        note(
            "destination",
            format!(
                "expected at most {MAX_DESTINATION} characters, none a control, found {}",
                Short(destination)
            ),
        );
    }
    let mut amount = |column: &str, text: &str| match parse_micros(text) {
        Ok(amount) if amount <= MAX_RATE => amount,
        Ok(_) | Err(MoneyError::OutOfRange) => {
            let most = format_micros(MAX_RATE);
            note(column, format!("expected an amount from 0 to {most}, found {}", Short(text)));
            Micros::ZERO
        }
        Err(error) => {
            note(column, format!("{error}, found {}", Short(text)));
            Micros::ZERO
        }
    };
    let rate_per_minute = amount("rate_per_minute", rate);
    let connection_fee = amount("connection_fee", fee);
    let mut increment = |column: &str, text: &str| {
        read_increment(text).unwrap_or_else(|| {
            let found = Short(text);
            note(column, format!("expected whole seconds from 1 to 3600, found {found}"));
            Seconds(1)
        })
    };
    let initial_increment = increment("initial_increment", initial);
    let increment = increment("increment", step);
    match currency {
        _ if !is_currency(code) => {
            note("currency", format!("expected an ISO 4217 code, found {}", Short(code)));
        }
        None => *currency = Some((code.to_owned(), line)),
        Some((first, at)) if *first != code => {
            note("currency", format!("expected {first}, as in line {at}, found {code}"));
        }
        Some(_) => {}
    }
    let starts = read_instant(from);
    let ends = if to.is_empty() { Some(FOREVER) } else { read_instant(to) };
    match (starts, ends) {
        (Some(starts), Some(ends)) if starts >= ends => {
            note(
                "effective_to",
                format!("expected a time after effective_from, found {}", Short(to)),
            );
        }
        _ => {
            for (column, text, instant) in
                [("effective_from", from, starts), ("effective_to", to, ends)]
            {
                if instant.is_none() {
                    let found = Short(text);
                    note(column, format!("expected YYYY-MM-DD or an RFC 3339 time, found {found}"));
                }
            }
        }
    }
    let found = Short(direction);
    let direction = Direction::ALL.into_iter().find(|d| d.as_str() == direction);
    if direction.is_none() {
        let expected = "expected outbound, toll_free_inbound or toll_inbound";
        note("direction", format!("{expected}, found {found}"));
    }
    match (direction, starts, ends) {
        (Some(direction), Some(from), Some(to)) if reasons.is_empty() => Ok(Row {
            direction,
            prefix: prefix.into(),
            destination: destination.into(),
            tariff: Tariff { rate_per_minute, connection_fee, initial_increment, increment },
            from,
            to,
            line,
        }),
        _ => Err(reasons.join("; ")),
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    let digits = (1..=15).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
    // No calling code begins with 0: such a row would price nothing, and nobody would notice.
    if (digits && !prefix.starts_with('0')) || prefix == "*" {
        return Ok(());
    }
    let found = Short(prefix);
    Err(format!("expected 1 to 15 digits of E.164, the first 1 to 9, or *, found {found}"))
}

fn read_increment(text: &str) -> Option<Seconds> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| digits)?;
    (1..=3600).contains(&seconds).then_some(Seconds(seconds))
}

fn is_currency(code: &str) -> bool {
    code.len() == 3
        && code.bytes().all(|b| b.is_ascii_uppercase())
        && iso_currency::Currency::from_code(code).is_some()
}

/// `YYYY-MM-DD` (midnight, UTC) or RFC 3339, cut to the millisecond.
fn read_instant(text: &str) -> Option<Millis> {
    let shaped = |pattern: &str| {
        pattern.len() <= text.len()
            && pattern.bytes().zip(text.bytes()).all(|(p, b)| match p {
                b'0' => b.is_ascii_digit(),
                _ => b == p,
            })
    };
    let timestamp: Timestamp = if text.len() == 10 && shaped("0000-00-00") {
        text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()
    } else if shaped("0000-00-00T00:00:00") && is_rest_of_rfc3339(&text[19..]) {
        text.parse().ok()?
    } else {
        return None;
    };
    Some(Millis(timestamp.as_millisecond()))
}

/// What follows the seconds: a fraction or none, then `Z` or an offset such as `+01:00`.
fn is_rest_of_rfc3339(rest: &str) -> bool {
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
            fraction.split_at(end)
        }
        None => ("0", rest),
    };
    let offset = |zone: &[u8]| match zone {
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    !fraction.is_empty() && (zone == "Z" || offset(zone.as_bytes()))
}

/// Two rows of one direction and prefix must not be in force together. `rows` are sorted.
fn check_overlaps(rows: &[Row], faults: &mut Faults) {
    let mut longest: Option<&Row> = None;
    for row in rows {
        let previous = longest.filter(|p| p.direction == row.direction && p.prefix == row.prefix);
        if let Some(previous) = previous.filter(|p| p.to > row.from) {
            let Row { direction, prefix, line, .. } = row;
            let other = previous.line;
            faults.add(
                *line,
                format!("dates overlap line {other}: {direction} {prefix} has one row at a time"),
            );
        }
        longest = match previous {
            Some(previous) if previous.to >= row.to => Some(previous),
            _ => Some(row),
        };
    }
}

#[cfg(test)]
mod tests;
