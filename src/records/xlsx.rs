//! Records as an Excel workbook, row by row: what is written waits in a temporary file, not in memory.

use std::path::Path;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};

use crate::charging::units::Micros;
use crate::records::{COLUMNS, Cell, UsageRecord, instant};

/// Rows that a worksheet has, less its header; what is more goes on in the next worksheet.
pub const RECORDS_PER_SHEET: u32 = 1_048_575;

/// Longest text of a cell, in characters; a longer one is cut.
const MAX_CELL: usize = 32_767;

/// Writes records as they come. Needs room for the rows in the folder for temporary files.
///
/// Texts are text whatever they begin with; durations and amounts are numbers, instants ISO 8601 texts.
pub struct XlsxWriter {
    workbook: Workbook,
    per_sheet: u32,
    sheet: usize,
    /// Records in the sheet.
    records: u32,
}

impl XlsxWriter {
    /// Begins with the header.
    pub fn new() -> Result<Self, XlsxError> {
        XlsxWriter::with_sheets_of(RECORDS_PER_SHEET)
    }

    fn with_sheets_of(per_sheet: u32) -> Result<Self, XlsxError> {
        let mut workbook = Workbook::new();
        begin_sheet(&mut workbook)?;
        Ok(XlsxWriter { workbook, per_sheet, sheet: 0, records: 0 })
    }

    /// One more row.
    pub fn write(&mut self, record: &UsageRecord) -> Result<(), XlsxError> {
        if self.records == self.per_sheet {
            begin_sheet(&mut self.workbook)?;
            self.sheet += 1;
            self.records = 0;
        }
        let sheet = self.workbook.worksheet_from_index(self.sheet)?;
        self.records += 1;
        for (column, cell) in (0..).zip(record.cells()) {
            write_cell(sheet, self.records, column, cell)?;
        }
        Ok(())
    }

    /// Writes the file.
    pub fn save(mut self, path: &Path) -> Result<(), XlsxError> {
        self.workbook.save(path)
    }
}

fn begin_sheet(workbook: &mut Workbook) -> Result<(), XlsxError> {
    let bold = Format::new().set_bold();
    let sheet = workbook.add_worksheet_with_constant_memory()?;
    sheet.set_freeze_panes(1, 0)?;
    for (column, name) in (0..).zip(COLUMNS) {
        sheet.set_column_width(column, 20)?;
        sheet.write_string_with_format(0, column, name, &bold)?;
    }
    Ok(())
}

fn write_cell(
    sheet: &mut Worksheet,
    row: u32,
    column: u16,
    cell: Cell<'_>,
) -> Result<(), XlsxError> {
    match cell {
        Cell::Text("") => return Ok(()),
        Cell::Text(text) => match text.char_indices().nth(MAX_CELL) {
            Some((end, _)) => sheet.write_string(row, column, &text[..end])?,
            None => sheet.write_string(row, column, text)?,
        },
        Cell::Instant(at) => sheet.write_string(row, column, instant(at))?,
        Cell::Length(length) => {
            sheet.write_number(row, column, i32::try_from(length.0).unwrap_or(i32::MAX))?
        }
        Cell::Amount(amount) => write_amount(sheet, row, column, amount)?,
    };
    Ok(())
}

/// Amounts have at most 14 digits, of which a spreadsheet keeps 15.
fn write_amount(
    sheet: &mut Worksheet,
    row: u32,
    column: u16,
    amount: Micros,
) -> Result<&mut Worksheet, XlsxError> {
    match Decimal::new(amount.0, 6).normalize().to_f64() {
        Some(number) => sheet.write_number(row, column, number),
        None => sheet.write_string(row, column, amount.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use calamine::{Data, Reader, Xlsx, open_workbook};

    use super::*;
    use crate::charging::units::Seconds;
    use crate::records::tests::record;

    /// Every worksheet of a workbook of these records, as an independent reader finds it.
    fn read_back(per_sheet: u32, records: &[UsageRecord]) -> Vec<Vec<Vec<Data>>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usage.xlsx");
        let mut writer = XlsxWriter::with_sheets_of(per_sheet).expect("a workbook");
        for record in records {
            writer.write(record).expect("a row");
        }
        writer.save(&path).expect("a file");
        let mut workbook: Xlsx<_> = open_workbook(&path).expect("a workbook");
        let sheets = workbook.worksheets().into_iter();
        sheets.map(|(_, range)| range.rows().map(<[Data]>::to_vec).collect()).collect()
    }

    #[test]
    fn a_correction_is_a_number_below_zero() {
        let of = UsageRecord { duration: Seconds(-71), charge: Micros(-150_000), ..record() };
        let row = &read_back(3, &[of])[0][1];
        assert_eq!((&row[15], &row[17]), (&Data::Float(-71.0), &Data::Float(-0.15)));
    }

    #[test]
    fn a_full_worksheet_is_followed_by_another_with_the_header_again() {
        for (records, expected) in [(0, vec![0]), (3, vec![3]), (4, vec![3, 1]), (7, vec![3, 3, 1])]
        {
            let sheets = read_back(3, &vec![record(); records]);
            let rows: Vec<usize> = sheets.iter().map(|rows| rows.len() - 1).collect();
            assert_eq!(rows, expected);
            for sheet in sheets {
                assert_eq!(sheet[0], COLUMNS.map(|name| Data::String(name.to_owned())));
            }
        }
        let limit = 1_048_576;
        assert_eq!(RECORDS_PER_SHEET + 1, limit, "the rows of a worksheet");
    }

    #[test]
    fn texts_are_texts_and_amounts_are_numbers() {
        let evil = "=cmd|' /C calc'!A0";
        let record = UsageRecord { display_name: evil.to_owned(), ..record() };
        let sheets = read_back(RECORDS_PER_SHEET, &[record]);
        let row = &sheets[0][1];
        let text = |of: &str| Data::String(of.to_owned());
        assert_eq!((&row[0], &row[6]), (&text("contoso/7-0"), &text(evil)));
        assert_eq!((&row[2], &row[7]), (&Data::Empty, &text("+14255550100")));
        assert_eq!(row[14], text("2026-11-10T12:00:00Z"));
        let numbers: Vec<String> = row[15..18].iter().map(ToString::to_string).collect();
        assert!(row[15..18].iter().all(|cell| matches!(cell, Data::Float(_))), "{row:?}");
        assert_eq!(numbers, ["61", "0.05", "0.25"]);
    }

    #[test]
    fn a_text_that_is_longer_than_a_cell_is_cut() {
        let long = UsageRecord { display_name: "é".repeat(MAX_CELL + 1), ..record() };
        let sheets = read_back(RECORDS_PER_SHEET, &[long]);
        assert_eq!(sheets[0][1][6], Data::String("é".repeat(MAX_CELL)));
    }
}
