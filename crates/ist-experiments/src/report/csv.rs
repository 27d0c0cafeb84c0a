//! Comma-separated values, as RFC 4180 has them.

/// A document of a line of headers and lines of values.
pub(super) fn document(headers: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n"
    };
    let rows: String = rows.into_iter().map(|row| line(&row)).collect();
    line(headers) + &rows
}

/// A value, quoted where it holds what ends one.
fn quoted(value: &str) -> String {
    if value.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_commas_quotes_and_lines_stay_one_value() {
        let row = ["a,b", "say \"x\"", "two\nlines", "plain"].map(str::to_owned).to_vec();
        let expected = "h\r\n\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",plain\r\n";
        assert_eq!(document(&["h".to_owned()], [row]), expected);
    }
}
