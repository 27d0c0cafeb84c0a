//! Plain text in aligned columns.

/// Text that grows line by line: headings, labels with values, and lists below them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// A heading with an empty line above it.
    pub(crate) fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(title);
    }

    /// A label and its value.
    pub(crate) fn row(&mut self, label: &str, value: impl std::fmt::Display) {
        self.line(&format!("  {label:<46} {value}"));
    }

    /// One entry of a list below a row.
    pub(crate) fn entry(&mut self, text: impl std::fmt::Display) {
        self.line(&format!("      {text}"));
    }

    /// Rows of cells: the first column to the left, the others to the right.
    pub(crate) fn grid(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let mut line = String::from("  ");
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column] - cell.chars().count());
                if column == 0 {
                    line.push_str(cell);
                    line.push_str(&space);
                } else {
                    line.push_str("  ");
                    line.push_str(&space);
                    line.push_str(cell);
                }
            }
            self.line(line.trim_end());
        }
    }

    /// The text so far.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_grid_are_aligned() {
        let mut table = Table::default();
        table.grid(&[vec!["a".into(), "10".into()], vec!["long".into(), "9".into()]]);
        assert_eq!(table.finish(), "  a     10\n  long   9\n");
    }
}
