//! Tables, whatever they are written as.

use serde::Serialize;

use crate::terminal::plain_text;

/// A table of words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Table {
    /// What it shows, for those who do not see it.
    pub(super) caption: String,
    /// How many columns from the left hold words; the others hold numbers.
    pub(super) words: usize,
    pub(super) headers: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(caption: impl Into<String>, words: usize, headers: &[&str]) -> Self {
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        Self { caption: caption.into(), words, headers, rows: Vec::new() }
    }

    /// In Markdown, with what would end a cell made harmless.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            format!(
                "| {} |\n",
                cells.iter().map(|cell| markdown(cell)).collect::<Vec<_>>().join(" | ")
            )
        };
        let rule =
            |column: usize| if column < self.words { "---".to_owned() } else { "---:".to_owned() };
        let rules: Vec<String> = (0..self.headers.len()).map(rule).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}| {} |\n{rows}", line(&self.headers), rules.join(" | "))
    }
}

/// Text that stands for itself in a cell of Markdown.
pub(super) fn markdown(text: &str) -> String {
    const SPECIAL: &str = "|\\`*_<&[]~$#!";
    let special = |c: char| SPECIAL.contains(c);
    let escape = |c: char| if special(c) { format!("\\{c}") } else { c.to_string() };
    plain_text::shown(&text.replace(['\n', '\r', '\t'], " ")).chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_a_table_of_markdown() {
        let mut table = Table::new("", 1, &["name", "loss"]);
        table.rows.push(vec!["a|b <x>\n`c`".to_owned(), "1.5".to_owned()]);
        assert_eq!(
            table.markdown(),
            "| name | loss |\n| --- | ---: |\n| a\\|b \\<x> \\`c\\` | 1.5 |\n"
        );
    }

    #[test]
    fn no_name_is_a_link_a_script_or_a_heading_of_markdown() {
        let cases = [
            ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
            ("![x](http://x)", "\\!\\[x\\](http://x)"),
            ("a\r\n# b", "a  \\# b"),
            ("$x$ ~~y~~", "\\$x\\$ \\~\\~y\\~\\~"),
            ("\x1b[31m\u{202e}", "\\\\x1b\\[31m\\\\u{202e}"),
        ];
        for (text, expected) in cases {
            assert_eq!(markdown(text), expected);
        }
    }
}
