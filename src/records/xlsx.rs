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
            sheet.write_number(row, column, u32::try_from(length.0).unwrap_or(u32::MAX))?
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
    use std::fs::File;

    use super::*;
    use crate::records::tests::record;

    /// How many worksheets a workbook has: its parts are named in its directory.
    fn sheets(path: &Path) -> usize {
        let bytes = std::fs::read(path).expect("a file");
        let name = b"xl/worksheets/sheet";
        let found = bytes.windows(name.len()).filter(|window| window == name).count();
        // Each part is named before its bytes and in the directory.
        found / 2
    }

    #[test]
    fn a_full_worksheet_is_followed_by_another() {
        let folder = tempfile::tempdir().expect("a folder");
        for (records, expected) in [(0, 1), (3, 1), (4, 2), (7, 3)] {
            let path = folder.path().join("usage.xlsx");
            let mut writer = XlsxWriter::with_sheets_of(3).expect("a workbook");
            for _ in 0..records {
                writer.write(&record()).expect("a row");
            }
            writer.save(&path).expect("a file");
            assert_eq!(sheets(&path), expected, "{records} records");
        }
        let limit = 1_048_576;
        assert_eq!(RECORDS_PER_SHEET + 1, limit, "the rows of a worksheet");
    }

    #[test]
    fn a_text_that_is_longer_than_a_cell_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usage.xlsx");
        let mut writer = XlsxWriter::new().expect("a workbook");
        let long = UsageRecord { display_name: "é".repeat(MAX_CELL + 1), ..record() };
        writer.write(&long).expect("a row");
        writer.save(&path).expect("a file");
        assert!(File::open(&path).expect("a file").metadata().expect("a length").len() > 1000);
    }
}
