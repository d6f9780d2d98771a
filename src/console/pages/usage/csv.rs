//! Tables for spreadsheets (RFC 4180). Pure.

/// A table, row by row.
#[derive(Debug, Default)]
pub(super) struct Csv(String);

impl Csv {
    /// Adds a row.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        for (at, cell) in cells.into_iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            self.cell(cell);
        }
        self.0.push_str("\r\n");
    }

    fn cell(&mut self, cell: &str) {
        // A spreadsheet takes what begins so for a formula, which may send other cells away (OWASP, "CSV Injection").
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
        let guard = if is_formula { "'" } else { "" };
        if cell.contains([',', '"', '\r', '\n', ';', '\t']) || is_formula {
            self.0.push('"');
            self.0.push_str(guard);
            self.0.push_str(&cell.replace('"', "\"\""));
            self.0.push('"');
        } else {
            self.0.push_str(cell);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_a_formula() {
        let table = [
            ("", ""),
            ("MY/CARS", "MY/CARS"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=HYPERLINK(\"http://evil.test\")", "\"'=HYPERLINK(\"\"http://evil.test\"\")\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("a=b", "a=b"),
            ("ümläut", "ümläut"),
        ];
        for (cell, written) in table {
            let mut csv = Csv::default();
            csv.row([cell, "1"]);
            assert_eq!(csv.into_text(), format!("{written},1\r\n"), "{cell:?}");
        }
    }
}
