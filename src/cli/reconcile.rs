//! `reconcile`: a file of somebody else's call detail records beside ours, which are streamed.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use csv::{Terminator, WriterBuilder};
use serde_json::{Map, Value, json};

use crate::charging::money::format_micros;
use crate::charging::units::{Millis, Seconds};
use crate::cli::args::{Output, ReconcileArgs, ReconcileFormat};
use crate::cli::client;
use crate::cli::output::{Failure, Outcome, counted, fields, print, rows, warn};
use crate::cli::records::warn_of_trimmed;
use crate::proto::v1::{Decision, ExportUsageRequest, UsageRecord};
use crate::records::cdr::{CdrReader, Column, Currency, signed_micros};
use crate::records::instant;
use crate::records::reconcile::{
    Difference, Kind, OurRecord, Reconciliation, Report, Settings, Side,
};

/// The comparison was not made.
pub const NOT_COMPARED: u8 = 2;

/// Bad lines that are printed; the others are counted.
const SHOWN: usize = 20;

/// How long after its start a call may still be charged: the longest call, and what is settled late.
const CHARGED_WITHIN: Seconds = Seconds(8 * 86_400);

/// How far their clock and the ledger's may be apart.
const CLOCK_SLACK: Seconds = Seconds(300);

/// Differences of a kind that a table shows; files have them all.
const TABLE_ROWS: usize = 1000;

const COLUMNS: [&str; 14] = [
    "kind",
    "call_id",
    "sip_call_id",
    "called",
    "start_time",
    "our_seconds",
    "their_seconds",
    "difference_seconds",
    "our_charge",
    "their_charge",
    "our_currency",
    "their_currency",
    "line",
    "first_line",
];

/// Carries out `reconcile`.
pub async fn run(args: ReconcileArgs, form: Output) -> Outcome {
    match compare(&args).await.and_then(|report| show(&report, args.format, form)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Stopped::Differs) => Ok(ExitCode::FAILURE),
        Err(Stopped::Failed(failure)) => {
            failure.print();
            Ok(ExitCode::from(NOT_COMPARED))
        }
    }
}

/// Why the exit code is not 0.
enum Stopped {
    Differs,
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Stopped {
    fn from(failure: F) -> Stopped {
        Stopped::Failed(failure.into())
    }
}

async fn compare(args: &ReconcileArgs) -> Result<Report, Stopped> {
    let millis = |at: jiff::Timestamp| Millis(at.as_millisecond());
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(Failure::new("expected --from before --to").into());
    }
    let settings = Settings {
        tolerance: Millis(i64::try_from(args.tolerance.as_millis()).unwrap_or(i64::MAX)),
        charge_tolerance: args.charge_tolerance,
        from: args.from.map(millis),
        to: args.to.map(millis),
    };
    let mut reconciliation = Reconciliation::new(settings);
    read(args, &mut reconciliation)?;
    let Some((from, to)) = reconciliation.window() else {
        return Err(Failure::new(format!("{}: expected calls", args.file.display())).into());
    };
    ask(args, from, to, &mut reconciliation).await?;
    Ok(reconciliation.finish())
}

/// Their calls, or every bad line.
fn read(args: &ReconcileArgs, into: &mut Reconciliation) -> Result<(), Failure> {
    let name = args.file.display();
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{name}: {error}"));
    let from: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(|error| failed(&error))?),
    };
    let named = [
        (Column::CallId, &args.call_id_column),
        (Column::SipCallId, &args.sip_call_id_column),
        (Column::Called, &args.called_column),
        (Column::Start, &args.start_column),
        (Column::Duration, &args.duration_column),
        (Column::Charge, &args.charge_column),
        (Column::Currency, &args.currency_column),
    ];
    let named: Vec<_> = named
        .iter()
        .filter_map(|(column, name)| name.as_deref().map(|name| (*column, name)))
        .collect();
    let mut calls = CdrReader::new(from, args.delimiter, &named).map_err(|error| failed(&error))?;
    let (mut lines, mut bad) = (vec![], 0_u64);
    while let Some(call) = calls.next_call() {
        match call {
            Ok(call) if bad == 0 => into.add_theirs(call),
            Ok(_) => {}
            Err(error) => {
                bad += 1;
                if lines.len() < SHOWN {
                    lines.push(format!("{name}: {error}"));
                }
                if error.is_end {
                    break;
                }
            }
        }
    }
    if bad == 0 {
        return Ok(());
    }
    lines.push(format!("{name}: {} in all; nothing was compared", counted(bad, "bad line")));
    Err(Failure(lines))
}

/// Our records that calls of the window may have, as they come.
async fn ask(
    args: &ReconcileArgs,
    from: Millis,
    to: Millis,
    into: &mut Reconciliation,
) -> Result<(), Failure> {
    let timestamp = |at: Millis| prost_types::Timestamp {
        seconds: at.0.div_euclid(1000),
        nanos: i32::try_from(at.0.rem_euclid(1000)).unwrap_or_default() * 1_000_000,
    };
    let first = Millis(from.0 - CLOCK_SLACK.0 * 1000);
    let request = ExportUsageRequest {
        tenant_id: args.tenant.clone(),
        from: Some(timestamp(first)),
        to: Some(timestamp(to.after(CHARGED_WITHIN))),
    };
    let answer = client::accounts(&args.server).await?.export_usage(request).await?;
    let mut records = answer.into_inner();
    loop {
        let next = tokio::time::timeout(args.server.timeout, records.message()).await;
        let next = next.map_err(|_| Failure::new("no further record within the --timeout"))?;
        let Some(message) = next? else { return Ok(()) };
        if let Some(record) = message.record {
            into.add_ours(&our_record(&record)?);
        } else {
            warn_of_trimmed(message.records_kept_since.as_ref());
        }
    }
}

fn our_record(record: &UsageRecord) -> Result<OurRecord<'_>, Failure> {
    let charge = record.charge.as_ref().map_or("0", |charge| charge.amount.as_str());
    let start = record.start_time.unwrap_or_default();
    let allowed = matches!(
        record.decision(),
        Decision::Unspecified
            | Decision::Allowed
            | Decision::AllowedFree
            | Decision::AllowedEmergency
            | Decision::AllowedDegraded
    );
    Ok(OurRecord {
        call_id: &record.call_id,
        sip_call_id: &record.sip_call_id,
        called: &record.destination_number,
        start: Millis(start.seconds * 1000 + i64::from(start.nanos / 1_000_000)),
        duration: Seconds(record.duration.map_or(0, |duration| duration.seconds)),
        charge: signed_micros(charge)
            .map_err(|error| Failure::new(format!("{error}, found {charge:?}")))?,
        currency: Currency::parse(&record.currency),
        refused: !allowed,
    })
}

fn show(report: &Report, format: Option<ReconcileFormat>, form: Output) -> Result<(), Stopped> {
    match (format, form) {
        (Some(ReconcileFormat::Csv), _) => {
            let written = write_csv(report, io::stdout().lock());
            if let Err(error) = written
                && error.kind() != ErrorKind::BrokenPipe
            {
                return Err(error.into());
            }
            totals(report).lines().for_each(warn);
        }
        (None, Output::Json) => {
            let text = serde_json::to_string_pretty(&as_json(report)).map_err(Failure::new)?;
            print(&text)?;
        }
        (None, Output::Table) => print(table(report).trim_end())?,
    }
    if report.differences.is_empty() { Ok(()) } else { Err(Stopped::Differs) }
}

fn write_csv(report: &Report, to: impl Write) -> io::Result<()> {
    let mut csv = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(to);
    csv.write_record(COLUMNS)?;
    for difference in &report.differences {
        csv.write_record(cells(difference))?;
    }
    csv.flush()
}

/// The values of [`COLUMNS`].
fn cells(of: &Difference) -> [String; 14] {
    let seconds = |side: Option<Side>| side.map_or(String::new(), |s| s.duration.to_string());
    let charge =
        |side: Option<Side>| side.and_then(|s| s.charge).map_or(String::new(), format_micros);
    let currency = |side: Option<Side>| {
        side.and_then(|side| side.currency).map_or(String::new(), |code| code.to_string())
    };
    let line = |line: Option<u64>| line.map_or(String::new(), |line| line.to_string());
    [
        of.kind.word().to_owned(),
        safe(&of.call_id),
        safe(&of.sip_call_id),
        safe(&of.called),
        instant(of.start),
        seconds(of.ours),
        seconds(of.theirs),
        apart(of).map_or(String::new(), |apart| apart.to_string()),
        charge(of.ours),
        charge(of.theirs),
        currency(of.ours),
        currency(of.theirs),
        line(of.line),
        line(of.first_line),
    ]
}

/// A text that a spreadsheet would compute has an apostrophe in front.
fn safe(text: &str) -> String {
    let number = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b == b'*' || b == b' ');
    match text.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r', ..] => format!("'{text}"),
        [b'+' | b'-', ..] if !number(&text[1..]) => format!("'{text}"),
        _ => text.to_owned(),
    }
}

/// Theirs less ours, of calls that both have.
fn apart(of: &Difference) -> Option<Seconds> {
    Some(of.theirs?.duration - of.ours?.duration)
}

/// As protobuf JSON would have it: durations and amounts are texts, what is empty is left out.
fn as_json(report: &Report) -> Value {
    let side = |side: Side| {
        let mut value = Map::new();
        value.insert("duration".to_owned(), json!(format!("{}s", side.duration)));
        if let Some(charge) = side.charge {
            let currency = side.currency.map_or(String::new(), |code| code.to_string());
            let money = json!({ "currencyCode": currency, "amount": format_micros(charge) });
            value.insert("charge".to_owned(), money);
        }
        Value::Object(value)
    };
    let difference = |of: &Difference| {
        let texts =
            [("callId", &of.call_id), ("sipCallId", &of.sip_call_id), ("called", &of.called)];
        let mut value = Map::new();
        value.insert("kind".to_owned(), of.kind.word().into());
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        value.extend(texts.map(|(name, text)| (name.to_owned(), text.to_string().into())));
        value.insert("startTime".to_owned(), instant(of.start).into());
        let sides = [("ours", of.ours), ("theirs", of.theirs)];
        let sides = sides.into_iter().filter_map(|(name, of)| Some((name, side(of?))));
        value.extend(sides.map(|(name, side)| (name.to_owned(), side)));
        if let Some(apart) = apart(of) {
            value.insert("difference".to_owned(), format!("{apart}s").into());
        }
        let lines = [("line", of.line), ("firstLine", of.first_line)];
        let lines = lines.into_iter().filter_map(|(name, line)| Some((name, line?)));
        value.extend(lines.map(|(name, line)| (name.to_owned(), line.into())));
        Value::Object(value)
    };
    let totals = &report.totals;
    let money: Vec<_> = totals
        .money
        .iter()
        .map(|(currency, money)| {
            json!({
                "currencyCode": currency.map_or(String::new(), |code| code.to_string()),
                "ours": format_micros(money.ours),
                "theirs": format_micros(money.theirs),
            })
        })
        .collect();
    let kinds = Kind::ALL.map(|kind| (kind.word().to_owned(), count(report, kind).into()));
    json!({
        "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        "counts": Value::Object(kinds.into_iter().collect()),
        "totals": {
            "matched": totals.matched,
            "ourCalls": totals.ours.calls,
            "theirCalls": totals.theirs.calls,
            "ourDuration": format!("{}s", totals.ours.duration),
            "theirDuration": format!("{}s", totals.theirs.duration),
            "money": money,
            "unanswered": totals.unanswered,
            "outsideWindow": totals.outside,
        },
    })
}

fn count(report: &Report, kind: Kind) -> usize {
    report.differences.iter().filter(|difference| difference.kind == kind).count()
}

fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::OnlyTheirs => "only in theirs: calls that nobody asked us about",
        Kind::Refused => "refused by us, and carried",
        Kind::OnlyOurs => "only in ours",
        Kind::Duration => "the duration differs",
        Kind::Charge => "the charge differs",
        Kind::Duplicate => "twice in theirs",
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let found = count(report, kind);
        if found == 0 {
            continue;
        }
        let shown = report.differences.iter().filter(|difference| difference.kind == kind);
        let shown = shown.take(TABLE_ROWS).map(row).collect();
        text += &format!("{}: {}\n", heading(kind), counted(found as u64, "call"));
        text += &rows(
            [
                "START",
                "CALL",
                "CALLED",
                ">OURS",
                ">THEIRS",
                ">APART",
                ">OUR CHARGE",
                ">THEIR CHARGE",
                ">LINE",
            ],
            shown,
        );
        if found > TABLE_ROWS {
            text += &format!("and {} more: --format csv has them all\n", found - TABLE_ROWS);
        }
        text.push('\n');
    }
    if text.is_empty() {
        text += "nothing differs\n\n";
    }
    text + &totals(report)
}

fn row(of: &Difference) -> [String; 9] {
    let seconds = |side: Option<Side>| side.map_or(String::new(), |s| format!("{}s", s.duration));
    let charge = |side: Option<Side>| {
        let Some(Side { charge: Some(charge), currency, .. }) = side else { return String::new() };
        let currency = currency.map_or(String::new(), |code| format!(" {code}"));
        format!("{}{currency}", format_micros(charge))
    };
    let call = if of.call_id.is_empty() { &of.sip_call_id } else { &of.call_id };
    let line = match (of.line, of.first_line) {
        (Some(line), Some(first)) => format!("{line} as {first}"),
        (Some(line), None) => line.to_string(),
        _ => String::new(),
    };
    [
        instant(of.start),
        printable(call),
        printable(&of.called),
        seconds(of.ours),
        seconds(of.theirs),
        apart(of).map_or(String::new(), |apart| format!("{apart}s")),
        charge(of.ours),
        charge(of.theirs),
        line,
    ]
}

/// Without what a terminal would obey: the file is somebody else's.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn totals(report: &Report) -> String {
    let totals = &report.totals;
    let side = |sum: &crate::records::reconcile::Sum, thing| {
        format!("{}, {}s", counted(sum.calls, thing), sum.duration)
    };
    let mut text = fields([
        ("matched", counted(totals.matched, "call")),
        ("ours", side(&totals.ours, "call")),
        ("theirs", side(&totals.theirs, "line")),
        (
            "never answered",
            match totals.unanswered {
                0 => String::new(),
                lines => counted(lines, "line"),
            },
        ),
        (
            "outside the window",
            match totals.outside {
                0 => String::new(),
                lines => counted(lines, "line"),
            },
        ),
    ]);
    for (currency, money) in &totals.money {
        let currency = currency.map_or(String::new(), |code| format!(" {code}"));
        let (ours, theirs) = (format_micros(money.ours), format_micros(money.theirs));
        text += &format!("charged: ours {ours}{currency}, theirs {theirs}{currency}\n");
    }
    text
}
