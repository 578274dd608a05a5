//! What people read: results on standard output, failures on standard error, and the words in both.
//!
//! A reader who goes away (`tollgate calls … | head -1`) is no failure.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, ContentArrangement, presets};
use jiff::Timestamp;
use prost::{Message, Name};

use crate::cli::args::Output;
use crate::proto::json::{JsonError, to_json};
use crate::proto::v1::{
    BlockSource, CallClass, CallState, CallType, Decision, EventType, FinalAction, FundingSource,
    Money, NumberType, PoolCounter, SettleResult,
};

/// What a command comes to: an exit code after a result, or why there is none.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command was not carried out, one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(pub Vec<String>);

impl Failure {
    /// Of one line.
    pub fn new(line: impl Display) -> Self {
        Failure(vec![line.to_string()])
    }

    /// Says it on standard error.
    pub fn print(&self) {
        self.0.iter().for_each(warn);
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(format!("{error:#}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(error)
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Failure::new(error)
    }
}

/// A line on standard error, beside the result.
pub fn warn(line: impl Display) {
    // Nothing can be done about a closed standard error.
    let _ = writeln!(io::stderr(), "tollgate: {line}");
}

/// Prints a result in the form that was asked for: the message as it is, or `table` of it.
pub fn show<M: Message + Name>(
    form: Output,
    message: &M,
    table: impl FnOnce(&M) -> String,
) -> Result<(), Failure> {
    let text = match form {
        Output::Json => to_json(message)?,
        Output::Table => table(message),
    };
    print(text.trim_end())
}

/// Prints a line, or several.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a check passed, in the alphabet of whatever reads standard output.
pub fn mark(passed: bool) -> &'static str {
    match (passed, io::stdout().is_terminal()) {
        (true, true) => "✓",
        (false, true) => "✗",
        (true, false) => "ok",
        (false, false) => "no",
    }
}

/// Rows under a header; a `>` in front of a column's name aligns it to the right.
pub fn rows<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = aligned();
    table.set_header(header.map(|name| name.trim_start_matches('>')));
    table.add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(header) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    printed(table)
}

/// Names and values, one pair a line; pairs without a value are left out.
pub fn fields<const N: usize>(pairs: [(&str, String); N]) -> String {
    let mut table = aligned();
    let named = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    table.add_rows(named.map(|(name, value)| [name.to_owned(), value]));
    printed(table)
}

/// Lines in aligned columns, without a header.
pub fn lines<const N: usize>(lines: Vec<[String; N]>) -> String {
    let mut table = aligned();
    table.add_rows(lines);
    printed(table)
}

/// No borders and no wrapping, so that `grep` and `awk` can read along.
fn aligned() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn printed(mut table: comfy_table::Table) -> String {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let mut text = table.trim_fmt();
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// "1 call", "2 calls".
pub fn counted(count: impl Into<u64>, thing: &str) -> String {
    match count.into() {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

/// `4h0m0s`, `5m0s`, `45s`; empty when absent.
pub fn length(duration: Option<&prost_types::Duration>) -> String {
    let Some(duration) = duration else { return String::new() };
    let sign = if duration.seconds < 0 || duration.nanos < 0 { "-" } else { "" };
    let total = duration.seconds.unsigned_abs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let fraction = match duration.nanos.unsigned_abs() / 1_000_000 {
        0 => String::new(),
        millis => format!(".{millis:03}"),
    };
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}{fraction}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}{fraction}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// `12.5 USD`; empty when absent.
pub fn money(money: Option<&Money>) -> String {
    let Some(Money { currency_code, amount }) = money else { return String::new() };
    format!("{amount} {currency_code}").trim_end().to_owned()
}

/// Whether an amount is worth a line.
pub fn is_some_money(money: Option<&Money>) -> bool {
    money.is_some_and(|money| money.amount != "0")
}

/// Whether a length of time is worth a line.
pub fn is_some_time(duration: Option<&prost_types::Duration>) -> bool {
    duration.is_some_and(|duration| duration.seconds != 0 || duration.nanos != 0)
}

/// RFC 3339 in UTC, cut to seconds; empty when absent.
pub fn instant(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|timestamp| Timestamp::from_second(timestamp.seconds).ok())
        .map(|instant| instant.to_string())
        .unwrap_or_default()
}

/// A value of an enum as people say it: `USER_OUTBOUND`, without the name of its enum.
pub trait Word {
    /// Empty for UNSPECIFIED.
    fn word(&self) -> &'static str;
}

macro_rules! words {
    ($($name:ident: $prefix:literal,)*) => {
        $(impl Word for $name {
            fn word(&self) -> &'static str {
                match self.as_str_name() {
                    concat!($prefix, "UNSPECIFIED") => "",
                    name => name.trim_start_matches($prefix),
                }
            }
        })*
    };
}

words! {
    BlockSource: "BLOCK_SOURCE_",
    CallClass: "CALL_CLASS_",
    CallState: "CALL_STATE_",
    CallType: "CALL_TYPE_",
    Decision: "DECISION_",
    EventType: "EVENT_TYPE_",
    FinalAction: "FINAL_ACTION_",
    FundingSource: "FUNDING_SOURCE_",
    NumberType: "NUMBER_TYPE_",
    PoolCounter: "POOL_COUNTER_",
    SettleResult: "SETTLE_RESULT_",
}

/// A [`Word`] inside a sentence: `user outbound`.
pub fn spoken(word: &impl Word) -> String {
    word.word().to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_length(seconds: i64, nanos: i32, expected: &str) {
        assert_eq!(length(Some(&prost_types::Duration { seconds, nanos })), expected);
    }

    #[test]
    fn lengths_have_units() {
        check_length(0, 0, "0s");
        check_length(45, 0, "45s");
        check_length(300, 0, "5m0s");
        check_length(14_400, 0, "4h0m0s");
        check_length(90_061, 0, "25h1m1s");
        check_length(1, 500_000_000, "1.500s");
        check_length(-61, 0, "-1m1s");
        check_length(i64::MIN, 0, "-2562047788015215h30m8s");
        assert_eq!(length(None), "");
    }

    #[test]
    fn money_has_its_currency_where_one_is_known() {
        let of = |amount: &str, code: &str| {
            money(Some(&Money { currency_code: code.into(), amount: amount.into() }))
        };
        assert_eq!(of("12.5", "USD"), "12.5 USD");
        assert_eq!(of("0", ""), "0");
        assert_eq!(money(None), "");
    }

    #[test]
    fn instants_are_in_utc_to_the_second() {
        let at = |seconds| instant(Some(&prost_types::Timestamp { seconds, nanos: 999_000_000 }));
        assert_eq!(at(1_768_003_200), "2026-01-10T00:00:00Z");
        assert_eq!(at(i64::MAX), "");
        assert_eq!(instant(None), "");
    }

    #[test]
    fn words_are_without_the_name_of_their_enum() {
        assert_eq!(Decision::AllowedFree.word(), "ALLOWED_FREE");
        assert_eq!(CallType::Unspecified.word(), "");
        assert_eq!(spoken(&NumberType::FixedLineOrMobile), "fixed line or mobile");
    }

    #[test]
    fn columns_are_aligned_without_borders_and_trailing_blanks() {
        let text = rows(
            ["POOL", ">LEFT"],
            vec![["a".into(), "5s".into()], ["long".into(), "10m0s".into()]],
        );
        assert_eq!(text, "POOL   LEFT\na        5s\nlong  10m0s\n");
        let text = fields([("grant", "5s".into()), ("empty", String::new()), ("a", "b".into())]);
        assert_eq!(text, "grant  5s\na      b\n");
        assert_eq!(lines::<2>(vec![]), "");
    }

    #[test]
    fn things_are_counted() {
        assert_eq!(counted(1u32, "call"), "1 call");
        assert_eq!(counted(0u32, "call"), "0 calls");
    }
}
