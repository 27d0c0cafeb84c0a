//! Comma-separated values, as RFC 4180 has them.
//!
//! Spreadsheet programs compute a cell that begins like a formula, and names in a report come from
//! files. So a text that begins like one gets an apostrophe in front, as OWASP advises. Numbers
//! stay numbers.

/// A document of a line of headers and lines of values.
pub(super) fn document(headers: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n"
    };
    let rows: String = rows.into_iter().map(|row| line(&row)).collect();
    line(headers) + &rows
}

/// What a formula begins with, or what programs skip before they look for one.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A value, quoted where it holds what ends one.
fn quoted(value: &str) -> String {
    let formula = value.starts_with(FORMULA) && value.parse::<f64>().is_err();
    let value = if formula { format!("'{value}") } else { value.to_owned() };
    if value.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
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

    #[test]
    fn no_text_is_a_formula_and_numbers_stay_numbers() {
        let cases = [
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("＝1", "'＝1"),
            ("-0.5", "-0.5"),
            ("-1e-7", "-1e-7"),
            ("+3", "+3"),
            ("a=b", "a=b"),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(document(&["=h".to_owned()], []), "'=h\r\n");
    }
}
