//! How often the code is explained where it stands.

use serde::Serialize;

use super::lexer::CommentKind;
use super::sources::Sources;
use super::summary::share;
use crate::table::Table;

/// What is said of plain comments outside tests.
#[derive(Debug, Serialize)]
pub(crate) struct Comments {
    /// `//` lines and `/* */` blocks; documentation does not count.
    pub(crate) plain: usize,
    /// The same for each hundred lines of code.
    pub(crate) per_100_lines: f64,
    /// Plain comments in tests.
    pub(crate) plain_in_tests: usize,
    /// Crates with their comments for each hundred lines of code, the fewest first.
    pub(crate) crates: Vec<(String, f64)>,
}

/// Measures the comments.
pub(crate) fn measure(sources: &Sources) -> Comments {
    let mut total = Count::default();
    let mut in_tests = 0;
    let mut crates = Vec::new();
    for (name, files) in sources.crates() {
        let mut own = Count::default();
        for file in files {
            let plain = file.lexed.comments.iter().filter(|c| c.kind == CommentKind::Plain);
            for comment in plain {
                if file.is_test_line(comment.line) {
                    in_tests += 1;
                } else {
                    own.comments += 1;
                }
            }
            let code = file.lexed.code_lines.iter();
            own.code += code.filter(|line| !file.is_test_line(**line)).count();
        }
        total.comments += own.comments;
        total.code += own.code;
        if own.code > 0 {
            crates.push((name.to_owned(), own.per_100_lines()));
        }
    }
    crates.sort_by(|a, b| a.1.total_cmp(&b.1));
    Comments {
        plain: total.comments,
        per_100_lines: total.per_100_lines(),
        plain_in_tests: in_tests,
        crates,
    }
}

#[derive(Default)]
struct Count {
    comments: usize,
    code: usize,
}

impl Count {
    fn per_100_lines(&self) -> f64 {
        share(self.comments, self.code, 100.0)
    }
}

impl Comments {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Plain comments, documentation not counted");
        table.row("outside tests / in tests", format!("{} / {}", self.plain, self.plain_in_tests));
        table.row("per 100 lines of code outside tests", format!("{:.2}", self.per_100_lines));
        for own in &self.crates {
            table.entry(format!("{:>5.2}  {}", own.1, own.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_comments_outside_tests_are_held_against_the_code() {
        let text = "//! doc\n// one\nfn a() {\n    // two\n    b(); // three\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod tests {\n    // four\n}\n";
        let comments = measure(&Sources::sample(&[("lib", text)]));
        assert_eq!((comments.plain, comments.plain_in_tests), (3, 1));
        assert!(comments.per_100_lines == 75.0, "{}", comments.per_100_lines);
    }
}
