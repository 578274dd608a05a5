//! `usage`: records are written as they arrive, whatever their number.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::charging::money::parse_signed_micros;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::cli::args::{Output, UsageArgs, UsageFormat};
use crate::cli::client;
use crate::cli::organisation::timestamp;
use crate::cli::output::{Failure, Outcome, Word, counted, instant, length, money, print, rows};
use crate::cli::progress::Progress;
use crate::cli::records::warn_of_trimmed;
use crate::proto::json::to_json_line;
use crate::proto::v1::{self, ExportUsageRequest, ExportUsageResponse, Money};
use crate::records::UsageRecord;
use crate::records::csv::{CsvWriter, write_table};
use crate::records::xlsx::XlsxWriter;

/// Records that one block of a table aligns.
const BLOCK: usize = 200;

/// Carries out `usage`.
pub async fn run(args: UsageArgs, form: Output) -> Outcome {
    let request = ExportUsageRequest {
        tenant_id: args.tenant,
        from: args.from.map(timestamp),
        to: args.to.map(timestamp),
    };
    let answer = client::accounts(&args.server).await?.export_usage(request).await?;
    let mut records = answer.into_inner();
    // Records on a terminal show by themselves how far it is.
    let progress = args.output_file.is_some().then(|| Progress::counting("records"));
    let mut file = UsageFile::open(args.format, args.output_file, form)?;
    loop {
        // The deadline of the request ends with its first answer: this is for each record.
        let next = tokio::time::timeout(args.server.timeout, records.message()).await;
        let next = next.map_err(|_| Failure::new("no further record within the --timeout"))?;
        let Some(message) = next? else { break };
        if message.record.is_none() {
            warn_of_trimmed(message.records_kept_since.as_ref());
            continue;
        }
        match file.write(message) {
            Err(Broken::Reader) => return Ok(ExitCode::SUCCESS),
            written => written?,
        }
        progress.iter().for_each(Progress::one);
    }
    drop(progress);
    match file.finish() {
        Err(Broken::Reader) => {}
        finished => finished?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why no more can be written.
enum Broken {
    /// Who reads standard output has gone away, which is no failure.
    Reader,
    /// A failure.
    File(Failure),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        match broken {
            Broken::Reader => Failure::new("nobody reads the output"),
            Broken::File(failure) => failure,
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            ErrorKind::BrokenPipe => Broken::Reader,
            _ => Broken::File(error.into()),
        }
    }
}

/// What is written, and how many records there were.
struct UsageFile {
    writer: Writer,
    target: Option<Target>,
    records: u64,
}

enum Writer {
    Csv(Box<CsvWriter<Box<dyn Write>>>),
    Xlsx(Box<XlsxWriter>),
    Json(BufWriter<io::Stdout>),
    Table(Vec<v1::UsageRecord>, BufWriter<io::Stdout>),
}

/// A file that has its name once it is whole.
struct Target {
    part: PathBuf,
    path: PathBuf,
}

impl UsageFile {
    fn open(
        format: Option<UsageFormat>,
        path: Option<PathBuf>,
        form: Output,
    ) -> Result<UsageFile, Failure> {
        let format = format.or_else(|| {
            let ending = path.as_ref()?.extension().unwrap_or_default();
            Some(match ending.eq_ignore_ascii_case("xlsx") {
                true => UsageFormat::Xlsx,
                false => UsageFormat::Csv,
            })
        });
        let target = path.map(Target::new);
        let stdout = || BufWriter::new(io::stdout());
        let writer = match (format, form) {
            (Some(UsageFormat::Csv), _) => {
                let to: Box<dyn Write> = match &target {
                    Some(target) => Box::new(BufWriter::new(target.create()?)),
                    None => Box::new(stdout()),
                };
                Writer::Csv(Box::new(CsvWriter::new(to)?))
            }
            (Some(UsageFormat::Xlsx), _) => {
                // Asked before anything is fetched: the workbook itself is written at the end.
                target.as_ref().map(Target::create).transpose()?;
                Writer::Xlsx(Box::new(XlsxWriter::new().map_err(Failure::new)?))
            }
            (None, Output::Json) => Writer::Json(stdout()),
            (None, Output::Table) => Writer::Table(vec![], stdout()),
        };
        Ok(UsageFile { writer, target, records: 0 })
    }

    fn write(&mut self, message: ExportUsageResponse) -> Result<(), Broken> {
        self.records += 1;
        if let Writer::Json(out) = &mut self.writer {
            let line = to_json_line(&message).map_err(|error| Broken::File(error.into()))?;
            return Ok(writeln!(out, "{line}")?);
        }
        let Some(message) = message.record else { return Ok(()) };
        match &mut self.writer {
            Writer::Csv(csv) => csv.write(&record(message).map_err(Broken::File)?)?,
            Writer::Xlsx(xlsx) => {
                let written = xlsx.write(&record(message).map_err(Broken::File)?);
                written.map_err(|error| Broken::File(Failure::new(error)))?;
            }
            Writer::Table(block, out) => {
                block.push(message);
                if block.len() == BLOCK {
                    out.write_all(table(block).as_bytes())?;
                    block.clear();
                }
            }
            Writer::Json(_) => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Broken> {
        match self.writer {
            Writer::Csv(csv) => csv.finish()?,
            Writer::Xlsx(xlsx) => {
                if let Some(target) = &self.target {
                    let saved = xlsx.save(&target.part);
                    saved.map_err(|error| Broken::File(target.failure(&error)))?;
                }
            }
            Writer::Json(mut out) => out.flush()?,
            Writer::Table(block, mut out) => {
                if self.records == 0 {
                    writeln!(out, "no usage")?;
                } else if !block.is_empty() {
                    out.write_all(table(&block).as_bytes())?;
                }
                out.flush()?;
            }
        }
        if let Some(target) = self.target {
            target.keep().map_err(Broken::File)?;
            let written = counted(self.records, "record");
            writeln!(io::stdout(), "{written} in {}", target.path.display())?;
        }
        Ok(())
    }
}

impl Target {
    fn new(path: PathBuf) -> Target {
        let mut part = path.clone().into_os_string();
        part.push(".part");
        Target { part: part.into(), path }
    }

    fn create(&self) -> Result<File, Failure> {
        File::create(&self.part).map_err(|error| self.failure(&error))
    }

    fn keep(&self) -> Result<(), Failure> {
        std::fs::rename(&self.part, &self.path).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(format_args!("{}: {error}", Path::display(&self.path)))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Already renamed where everything went well; else half a file helps nobody.
        let _ = std::fs::remove_file(&self.part);
    }
}

/// Writes a report of texts as CSV, to a file that has its name once it is whole, or to standard output.
pub fn write_report<const N: usize>(
    path: Option<PathBuf>,
    columns: &[&str; N],
    cells: &[[String; N]],
) -> Outcome {
    let Some(target) = path.map(Target::new) else {
        return match write_table(io::stdout().lock(), columns, cells) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    };
    let written = write_table(BufWriter::new(target.create()?), columns, cells);
    written.map_err(|error| target.failure(&error))?;
    target.keep()?;
    let rows = counted(cells.len() as u64, "row");
    print(&format!("{rows} in {}", target.path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A record as it was before it travelled.
fn record(message: v1::UsageRecord) -> Result<UsageRecord, Failure> {
    let at = |at: Option<prost_types::Timestamp>| {
        at.map_or(Millis::ZERO, |at| Millis(at.seconds * 1000 + i64::from(at.nanos / 1_000_000)))
    };
    Ok(UsageRecord {
        start: at(message.start_time),
        end: at(message.end_time),
        duration: Seconds(message.duration.map_or(0, |duration| duration.seconds)),
        connection_fee: amount(message.connection_fee)?,
        charge: amount(message.charge)?,
        decision: None,
        sip_call_id: message.sip_call_id,
        usage_id: message.usage_id,
        call_id: message.call_id,
        conference_id: message.conference_id,
        user_location: message.user_location,
        object_id: message.aad_object_id,
        upn: message.upn,
        display_name: message.user_display_name,
        caller_id: message.caller_id,
        call_type: message.call_type,
        number_type: message.number_type,
        reach: message.domestic_international,
        destination: message.destination_dialed,
        destination_number: message.destination_number,
        currency: message.currency,
        capability: message.capability,
    })
}

fn amount(money: Option<Money>) -> Result<Micros, Failure> {
    let Some(Money { amount, .. }) = money else { return Ok(Micros::ZERO) };
    parse_signed_micros(&amount)
        .map_err(|error| Failure::new(format_args!("{error}, found {amount:?}")))
}

/// A block under a header of its own.
fn table(records: &[v1::UsageRecord]) -> String {
    rows(
        [
            "START",
            ">DURATION",
            "TYPE",
            "USER",
            "CALLER",
            "CALLED",
            "PAID BY",
            ">CHARGE",
            "DECISION",
        ],
        records.iter().map(row).collect(),
    )
}

fn row(record: &v1::UsageRecord) -> [String; 9] {
    [
        instant(record.start_time.as_ref()),
        length(record.duration.as_ref()),
        record.call_type.clone(),
        record.upn.clone(),
        record.caller_id.clone(),
        record.destination_number.clone(),
        record.capability.clone(),
        money(record.charge.as_ref()),
        record.decision().word().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Decision;

    fn usage() -> v1::UsageRecord {
        v1::UsageRecord {
            usage_id: "contoso/1-0".to_owned(),
            upn: "alice@contoso.example".to_owned(),
            call_type: "user_out".to_owned(),
            destination_number: "+33123456***".to_owned(),
            start_time: Some(prost_types::Timestamp { seconds: 1_794_312_000, nanos: 0 }),
            duration: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
            charge: Some(Money { currency_code: "USD".to_owned(), amount: "0.25".to_owned() }),
            capability: "MCOPSTNPP".to_owned(),
            decision: Decision::Allowed.into(),
            ..v1::UsageRecord::default()
        }
    }

    #[test]
    fn a_record_is_one_line_of_a_table() {
        let text = table(&[usage()]);
        let line = text.lines().nth(1).expect("a row");
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = "2026-11-10T12:00:00Z 1m1s user_out alice@contoso.example +33123456*** \
                        MCOPSTNPP 0.25 USD ALLOWED";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_record_travels_unchanged() {
        let record = record(usage()).expect("a record");
        assert_eq!((record.duration, record.charge), (Seconds(61), Micros(250_000)));
        assert_eq!(record.start, Millis(1_794_312_000_000));
        let odd = Some(Money { currency_code: "USD".to_owned(), amount: "much".to_owned() });
        assert!(super::record(v1::UsageRecord { charge: odd, ..usage() }).is_err());
    }

    #[test]
    fn half_a_file_is_not_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usage.csv");
        let message = || ExportUsageResponse { record: Some(usage()), records_kept_since: None };
        let open = || UsageFile::open(None, Some(path.clone()), Output::Table).expect("a file");
        let mut file = open();
        assert!(file.write(message()).is_ok());
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let mut file = open();
        assert!(file.write(message()).is_ok() && file.finish().is_ok());
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.lines().count() == 2 && text.contains(",+33123456***,"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
