//! Records as CSV: RFC 4180, the names of the columns first (rule 85).

use std::borrow::Cow;
use std::io::{self, Write};

use csv::{Terminator, Writer, WriterBuilder};

use crate::charging::money::format_micros;
use crate::records::{COLUMNS, Cell, UsageRecord, instant};

/// Writes records as they come; holds none of them.
///
/// A text that a spreadsheet would take for a formula is preceded by an apostrophe: a caller chooses what
/// he presents as his number, and a file is opened by a double click.
pub struct CsvWriter<W: Write>(Writer<W>);

impl<W: Write> CsvWriter<W> {
    /// Begins with the header.
    pub fn new(to: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(to);
        writer.write_record(COLUMNS)?;
        Ok(CsvWriter(writer))
    }

    /// One more row.
    pub fn write(&mut self, record: &UsageRecord) -> io::Result<()> {
        for cell in record.cells() {
            self.0.write_field(printed(cell).as_bytes())?;
        }
        Ok(self.0.write_record(None::<&[u8]>)?)
    }

    /// Everything is written.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes a table of texts whole, under the names of its columns, with the same care for spreadsheets.
pub fn write_table<const N: usize>(
    to: impl Write,
    columns: &[&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(to);
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row.iter().map(|text| printed(Cell::Text(text)).into_owned()))?;
    }
    writer.flush()
}

fn printed(cell: Cell<'_>) -> Cow<'_, str> {
    match cell {
        Cell::Text(text) if is_formula(text) => format!("'{text}").into(),
        Cell::Text(text) => text.into(),
        Cell::Instant(at) => instant(at).into(),
        Cell::Length(length) => length.to_string().into(),
        Cell::Amount(amount) => format_micros(amount).into(),
    }
}

/// Whether a spreadsheet would compute it. A telephone number, masked or not, is a number or a text to it.
fn is_formula(text: &str) -> bool {
    let number = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b == b'*' || b == b' ');
    match text.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r', ..] => true,
        [b'+' | b'-', ..] => !number(&text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::record;

    #[track_caller]
    fn check(display_name: &str, expected: &str) {
        let mut csv = vec![];
        let mut writer = CsvWriter::new(&mut csv).expect("a header");
        let named = UsageRecord { display_name: display_name.to_owned(), ..record() };
        writer.write(&named).expect("a row");
        writer.finish().expect("a file");
        let text = String::from_utf8(csv.clone()).expect("UTF-8");
        let row = text.split_once("\r\n").expect("a header").1;
        assert!(row.contains(expected), "{row}");
        // What a reader of RFC 4180 finds is what was written.
        let mut reader = csv::Reader::from_reader(csv.as_slice());
        let found = reader.records().next().expect("a row").expect("a row");
        assert_eq!((found.len(), found[6].trim_start_matches('\'')), (20, display_name));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        check("Alice", ",Alice,");
        check("Example, Alice", ",\"Example, Alice\",");
        check("Alice \"Al\" Example", ",\"Alice \"\"Al\"\" Example\",");
        check("Alice\nExample", ",\"Alice\nExample\",");
        check("Alice\r\nExample", ",\"Alice\r\nExample\",");
        check("Älice", ",Älice,");
    }

    #[test]
    fn a_formula_stays_text_and_a_number_stays_a_number() {
        for formula in ["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+cmd|x", "-2+3", "=1"] {
            check(formula, &format!(",'{formula},"));
        }
        for number in ["+14255550100", "+1425555****", "+123 456789***", "-1", ""] {
            check(number, &format!(",{number},"));
        }
    }
}
