//! Call detail records of somebody else, a carrier or a session border controller: CSV with columns of any
//! names and in any order, read line by line.
//!
//! Knows what such files look like, and nothing of our own records: see
//! [`reconcile`](crate::records::reconcile).

use std::fmt;
use std::io::Read;

use csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use jiff::Timestamp;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::charging::money::parse_micros;
use crate::charging::units::{Micros, Millis, Seconds};

/// Longest text in a column that is read.
const MAX_TEXT: usize = 512;

/// Longest call, in seconds: a year. What is above is no duration.
const MAX_DURATION: i64 = 366 * 86_400;

/// From here on an epoch is in milliseconds: as seconds it would be the year 5138.
const EPOCH_MILLIS: i64 = 100_000_000_000;

/// A column that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Our name of the call leg.
    CallId,
    /// The SIP Call-ID.
    SipCallId,
    /// The number that was called.
    Called,
    /// When it was answered.
    Start,
    /// How long it was used, in seconds.
    Duration,
    /// What it costs.
    Charge,
    /// The currency of the charge.
    Currency,
}

impl Column {
    /// All of them; a [`Column`] as a number is its place here.
    pub const ALL: [Column; 7] = [
        Column::CallId,
        Column::SipCallId,
        Column::Called,
        Column::Start,
        Column::Duration,
        Column::Charge,
        Column::Currency,
    ];

    /// Names that it commonly has, the likeliest first, without case, blanks and punctuation.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Column::CallId => &["callid", "calllegid", "legid"],
            Column::SipCallId => &["sipcallid", "sipid", "callidheader"],
            Column::Called => &[
                "called",
                "callednumber",
                "calledparty",
                "destinationnumber",
                "destination",
                "callee",
                "bnumber",
                "dst",
                "to",
            ],
            Column::Start => &[
                "starttime",
                "start",
                "startedat",
                "answertime",
                "answeredat",
                "connecttime",
                "calldate",
            ],
            Column::Duration => &[
                "durationseconds",
                "duration",
                "seconds",
                "billsec",
                "billedseconds",
                "billedduration",
                "talktime",
            ],
            Column::Charge => &["charge", "cost", "amount", "price"],
            Column::Currency => &["currency", "currencycode"],
        }
    }
}

/// An ISO 4217 code, three letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads a code, in small letters too.
    pub fn parse(text: &str) -> Option<Currency> {
        let letters: [u8; 3] = text.as_bytes().try_into().ok()?;
        let code = letters.map(|letter| letter.to_ascii_uppercase());
        code.iter().all(u8::is_ascii_uppercase).then_some(Currency(code))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One call of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TheirCall {
    /// The line of the file that it begins on, the header being line 1; of empty lines before it, the first.
    pub line: u64,
    /// Our name of the leg, where they know it; may be empty.
    pub call_id: Box<str>,
    /// May be empty.
    pub sip_call_id: Box<str>,
    /// As they write it; may be empty where the call has an id.
    pub called: Box<str>,
    /// When it was answered.
    pub start: Millis,
    /// In whole seconds, cut; more than 0 and less than 1 is 1, as in our own records.
    pub duration: Seconds,
    /// `None`: they say nothing of money.
    pub charge: Option<Micros>,
    /// `None`: that of the tenant.
    pub currency: Option<Currency>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line of the file, the header being line 1; of empty lines before it, the first.
    pub line: u64,
    /// The column, as the header names it; empty where the whole line is meant.
    pub column: String,
    /// What was expected, and what was found.
    pub reason: String,
    /// Nothing can be read after it.
    pub is_end: bool,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.reason),
            column => write!(f, "line {}, column {column}: {}", self.line, self.reason),
        }
    }
}

/// Reads calls as they come; holds one line.
pub struct CdrReader<R> {
    csv: csv::Reader<R>,
    header: StringRecord,
    /// Where each of [`Column::ALL`] is.
    places: [Option<usize>; Column::ALL.len()],
    row: StringRecord,
}

impl<R: Read> CdrReader<R> {
    /// Reads the header. `named` says what the file calls a column; the others are found by their common
    /// names ([`Column::names`]). Start, duration, and one of the ids or the called number must be there.
    pub fn new(from: R, delimiter: u8, named: &[(Column, &str)]) -> Result<Self, BadLine> {
        let mut csv = ReaderBuilder::new().delimiter(delimiter).from_reader(from);
        let header = csv.headers().cloned().map_err(|error| bad(error, None))?;
        let fault = |reason| BadLine { line: 1, column: String::new(), reason, is_end: true };
        let names: Vec<String> = header.iter().map(plain).collect();
        let mut places = [None; Column::ALL.len()];
        for &(column, name) in named {
            let place = header.iter().position(|found| bare(found) == name).or_else(|| {
                let wanted = plain(name);
                names.iter().position(|found| *found == wanted)
            });
            let Some(place) = place else {
                return Err(fault(format!("expected a column {name:?}, found {}", list(&header))));
            };
            places[column as usize] = Some(place);
        }
        for column in Column::ALL {
            if places[column as usize].is_none() {
                let known = column.names().iter();
                let mut known = known.filter_map(|name| names.iter().position(|n| n == name));
                places[column as usize] = known.find(|place| !places.contains(&Some(*place)));
            }
        }
        let there = |column: Column| places[column as usize].is_some();
        let wanted = match (there(Column::Start), there(Column::Duration)) {
            (false, _) => "a column with the start of the call, such as start_time",
            (_, false) => "a column with the seconds of the call, such as duration",
            _ if there(Column::CallId) || there(Column::SipCallId) || there(Column::Called) => {
                return Ok(CdrReader { csv, header, places, row: StringRecord::new() });
            }
            _ => "a column that tells which call it is: call_id, sip_call_id or called",
        };
        Err(fault(format!("expected {wanted}, found {}", list(&header))))
    }

    /// The next call, or what is wrong with its line; `None` after the last. Empty lines are skipped.
    pub fn next_call(&mut self) -> Option<Result<TheirCall, BadLine>> {
        match self.csv.read_record(&mut self.row) {
            Ok(false) => None,
            Ok(true) => Some(self.call()),
            Err(error) => {
                let at = self.csv.position().clone();
                Some(Err(bad(error, Some(&at))))
            }
        }
    }

    fn call(&self) -> Result<TheirCall, BadLine> {
        let call = TheirCall {
            line: self.line(),
            call_id: self.text(Column::CallId)?.into(),
            sip_call_id: self.text(Column::SipCallId)?.into(),
            called: self.text(Column::Called)?.into(),
            start: self.value(Column::Start, start)?,
            duration: self.value(Column::Duration, duration)?,
            charge: self.optional(Column::Charge, charge)?,
            currency: self.optional(Column::Currency, currency)?,
        };
        if call.call_id.is_empty() && call.sip_call_id.is_empty() && call.called.is_empty() {
            let reason = "expected an id or a called number, found neither".to_owned();
            return Err(BadLine { line: call.line, column: String::new(), reason, is_end: false });
        }
        Ok(call)
    }

    fn line(&self) -> u64 {
        self.row.position().map_or(0, Position::line)
    }

    fn field(&self, column: Column) -> &str {
        let place = self.places[column as usize];
        place.and_then(|place| self.row.get(place)).unwrap_or_default().trim()
    }

    fn text(&self, column: Column) -> Result<&str, BadLine> {
        let text = self.field(column);
        if text.len() > MAX_TEXT {
            let found = format!("expected at most {MAX_TEXT} bytes, found {}", text.len());
            return Err(self.fault(column, found));
        }
        Ok(text)
    }

    fn value<T>(&self, column: Column, read: fn(&str) -> Result<T, String>) -> Result<T, BadLine> {
        let text = self.field(column);
        let shown = |reason| {
            let shown: String = text.chars().take(40).collect();
            self.fault(column, format!("{reason}, found {shown:?}"))
        };
        read(text).map_err(shown)
    }

    fn optional<T>(
        &self,
        column: Column,
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, BadLine> {
        match self.field(column) {
            "" => Ok(None),
            _ => self.value(column, read).map(Some),
        }
    }

    fn fault(&self, column: Column, reason: String) -> BadLine {
        let name = self.places[column as usize].and_then(|place| self.header.get(place));
        let column = bare(name.unwrap_or_default()).to_owned();
        BadLine { line: self.line(), column, reason, is_end: false }
    }
}

/// A name as it stands in the header, without the mark that some programs begin a file with.
fn bare(name: &str) -> &str {
    name.trim_start_matches('\u{feff}').trim()
}

/// A name by its letters and digits: `Start Time`, `start_time` and `startTime` are one.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn list(header: &StringRecord) -> String {
    header.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn bad(error: csv::Error, at: Option<&Position>) -> BadLine {
    let line = error.position().or(at).map_or(1, Position::line);
    let reason = match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} columns as in the header, found {len}")
        }
        ErrorKind::Utf8 { .. } => "expected UTF-8".to_owned(),
        _ => error.to_string(),
    };
    BadLine { line, column: String::new(), reason, is_end: error.is_io_error() }
}

fn start(text: &str) -> Result<Millis, String> {
    let is_epoch = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let found = if is_epoch {
        let epoch = Decimal::from_str_exact(text).ok();
        epoch.and_then(|epoch| match epoch >= Decimal::from(EPOCH_MILLIS) {
            true => epoch.to_i64(),
            false => epoch.checked_mul(Decimal::from(1000))?.to_i64(),
        })
    } else {
        text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
    };
    let expected = "expected an instant as 2026-11-10T12:00:00Z or seconds since 1970";
    found
        .filter(|millis| Timestamp::from_millisecond(*millis).is_ok())
        .map(Millis)
        .ok_or_else(|| expected.to_owned())
}

fn duration(text: &str) -> Result<Seconds, String> {
    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let found = if number { Decimal::from_str_exact(text).ok() } else { None };
    found
        .filter(|seconds| *seconds <= Decimal::from(MAX_DURATION))
        .and_then(|seconds| match seconds.to_i64()? {
            0 if !seconds.is_zero() => Some(Seconds(1)),
            whole => Some(Seconds(whole)),
        })
        .ok_or_else(|| "expected seconds, at most a year of them".to_owned())
}

fn charge(text: &str) -> Result<Micros, String> {
    signed_micros(text).map_err(|error| error.to_string())
}

/// An amount that may be given back: `-0.25`.
pub fn signed_micros(text: &str) -> Result<Micros, crate::charging::money::MoneyError> {
    match text.strip_prefix('-') {
        Some(amount) => parse_micros(amount).map(|amount| Micros(-amount.0)),
        None => parse_micros(text),
    }
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).ok_or_else(|| "expected an ISO 4217 code such as USD".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<TheirCall, BadLine>> {
        let mut reader = CdrReader::new(text.as_bytes(), b',', &[]).expect("a header");
        std::iter::from_fn(|| reader.next_call()).collect()
    }

    #[track_caller]
    fn check_bad(lines: &str, expected: &str) {
        let text = format!("call_id,called,start_time,duration,charge,currency\n{lines}");
        let found: Vec<_> = read(&text).into_iter().filter_map(Result::err).collect();
        let found: Vec<_> = found.iter().map(BadLine::to_string).collect();
        assert_eq!(found, [expected], "{lines}");
    }

    #[test]
    fn a_call_is_read_whatever_its_columns_are_called() {
        let expected = TheirCall {
            line: 2,
            call_id: "leg".into(),
            sip_call_id: "s@h".into(),
            called: "+33123456789".into(),
            start: Millis(1_794_312_000_000),
            duration: Seconds(61),
            charge: Some(Micros(250_000)),
            currency: Currency::parse("USD"),
        };
        for (header, start) in [
            (
                "call_id,sip_call_id,called,start_time,duration,charge,currency",
                "2026-11-10T12:00:00Z",
            ),
            (
                "\u{feff}Call ID,SIP Call-ID,Called Number,Answer Time,billsec,Cost,currency_code",
                "1794312000",
            ),
            (
                "callId,sipCallId,destinationNumber,connectTime,Seconds,Amount,CURRENCY",
                "2026-11-10T13:00:00+01:00",
            ),
            ("legid,sip_id,dst,start,talk_time,price,Currency", "1794312000000"),
            ("call id,sipid,to,calldate,billed-seconds,charge,currency", "1794312000.000"),
        ] {
            let text = format!("{header}\nleg,s@h,+33123456789,{start},61.9,0.25,usd\n");
            assert_eq!(read(&text), [Ok(expected.clone())], "{header}");
        }
    }

    #[test]
    fn columns_are_found_by_the_names_that_are_given() {
        let text = "a;b;start;call_id\n61;+33123456789;1794312000;s@h\n";
        let named =
            [(Column::Duration, "a"), (Column::Called, "B"), (Column::SipCallId, "Call-ID")];
        let mut reader = CdrReader::new(text.as_bytes(), b';', &named).expect("a header");
        let call = reader.next_call().expect("a line").expect("a call");
        assert_eq!((&*call.sip_call_id, &*call.call_id), ("s@h", ""));
        assert_eq!((&*call.called, call.duration), ("+33123456789", Seconds(61)));
    }

    #[test]
    fn a_file_without_what_is_needed_is_refused_with_what_it_has() {
        for (header, named, expected) in [
            ("call_id,duration", None, "with the start of the call"),
            ("call_id,start", None, "with the seconds of the call"),
            ("start,duration", None, "that tells which call it is"),
            ("", None, "with the start of the call"),
            (
                "call_id,start,duration",
                Some((Column::Called, "B party")),
                "\"B party\", found call_id",
            ),
        ] {
            let named: Vec<_> = named.into_iter().collect();
            let found = CdrReader::new(header.as_bytes(), b',', &named).err().expect("no header");
            assert!(found.reason.contains(expected) && found.line == 1, "{found}");
        }
    }

    #[test]
    fn seconds_are_cut_and_less_than_one_is_one() {
        for (text, expected) in
            [("0", 0), ("0.0", 0), ("0.001", 1), ("1", 1), ("60.999", 60), ("061", 61)]
        {
            assert_eq!(duration(text), Ok(Seconds(expected)), "{text}");
        }
    }

    #[test]
    fn bad_lines_are_named_by_line_and_column() {
        let start = "expected an instant as 2026-11-10T12:00:00Z or seconds since 1970";
        for (field, column, expected) in [
            ("a,+33,yesterday,1,,", "start_time", format!("{start}, found \"yesterday\"")),
            (
                "a,+33,2026-11-10T12:00:00,1,,",
                "start_time",
                format!("{start}, found \"2026-11-10T12:00:00\""),
            ),
            ("a,+33,,1,,", "start_time", format!("{start}, found \"\"")),
            (
                "a,+33,1,-1,,",
                "duration",
                "expected seconds, at most a year of them, found \"-1\"".to_owned(),
            ),
            (
                "a,+33,1,99999999999,,",
                "duration",
                "expected seconds, at most a year of them, found \"99999999999\"".to_owned(),
            ),
            (
                "a,+33,1,1:01,,",
                "duration",
                "expected seconds, at most a year of them, found \"1:01\"".to_owned(),
            ),
            (
                "a,+33,1,1,0.0000001,",
                "charge",
                "expected at most 6 decimals, found \"0.0000001\"".to_owned(),
            ),
            (
                "a,+33,1,1,1,Euro",
                "currency",
                "expected an ISO 4217 code such as USD, found \"Euro\"".to_owned(),
            ),
        ] {
            check_bad(field, &format!("line 2, column {column}: {expected}"));
        }
        check_bad(
            "a,+33,1,1,1,USD\na,+33\n",
            "line 3: expected 6 columns as in the header, found 2",
        );
        check_bad(",,1,1,1,USD\n", "line 2: expected an id or a called number, found neither");
        let long = "x".repeat(MAX_TEXT + 1);
        check_bad(
            &format!("{long},,1,1,1,"),
            "line 2, column call_id: expected at most 512 bytes, found 513",
        );
    }

    #[test]
    fn a_line_after_a_bad_one_is_read() {
        let text = "call_id,start,duration\na,x,1\n\"b\nc\",1,1\nd,1,1\n";
        let lines: Vec<_> = read(text).into_iter().map(|call| call.map(|call| call.line)).collect();
        assert!(lines[0].is_err());
        assert_eq!(lines[1..], [Ok(3), Ok(5)]);
        let mut reader =
            CdrReader::new(&b"call_id,start,duration\n\xff,1,1\nb,1,1\n"[..], b',', &[])
                .expect("ok");
        let bad = reader.next_call().expect("a line").expect_err("no UTF-8");
        assert_eq!((bad.to_string().as_str(), bad.is_end), ("line 2: expected UTF-8", false));
        assert!(reader.next_call().expect("a line").is_ok());
    }

    #[test]
    fn money_may_be_given_back() {
        assert_eq!(signed_micros("-0.25"), Ok(Micros(-250_000)));
        assert_eq!(signed_micros("0.25"), Ok(Micros(250_000)));
        assert!(signed_micros("--1").is_err());
    }
}
