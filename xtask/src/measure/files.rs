//! How long files are, and how much code there is.

use serde::Serialize;

use super::sources::Sources;
use super::summary::Summary;
use crate::table::Table;

/// How many of the longest files are listed.
const LISTED: usize = 5;

/// What is said of the files.
#[derive(Debug, Serialize)]
pub(crate) struct Files {
    /// Lines of the files that are not tests, everything counted.
    pub(crate) lines: Summary,
    /// The same with the tests among them left out.
    pub(crate) without_tests: Summary,
    /// How many files are there for tests alone.
    pub(crate) test_files: usize,
    /// Lines of code outside tests; empty lines and comments do not count.
    pub(crate) code: usize,
    /// Lines of code in tests.
    pub(crate) test_code: usize,
    /// The longest files with their lines.
    pub(crate) longest: Vec<(String, usize)>,
    /// Files that could not be read as Rust.
    pub(crate) unread: Vec<String>,
}

/// Measures the files.
pub(crate) fn measure(sources: &Sources) -> Files {
    let mut lengths = Vec::new();
    let mut without_tests = Vec::new();
    let mut code = 0;
    let mut test_code = 0;
    for file in &sources.files {
        let in_tests = file.lexed.code_lines.iter().filter(|line| file.is_test_line(**line));
        let in_tests = in_tests.count();
        test_code += in_tests;
        code += file.lexed.code_lines.len() - in_tests;
        if !file.is_test {
            let lines = 1..=file.text.lines().count();
            without_tests.push(lines.filter(|line| !file.is_test_line(*line)).count());
            lengths.push((file.path.display().to_string(), file.text.lines().count()));
        }
    }
    let lines = Summary::of(lengths.iter().map(|file| file.1));
    lengths.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    lengths.truncate(LISTED);
    Files {
        lines,
        without_tests: Summary::of(without_tests),
        test_files: sources.files.iter().filter(|file| file.is_test).count(),
        code,
        test_code,
        longest: lengths,
        unread: sources.unread.iter().map(|path| path.display().to_string()).collect(),
    }
}

impl Files {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Files");
        table.row(
            "files of sources / of tests",
            format!("{} / {}", self.lines.count, self.test_files),
        );
        table.row("lines of a source", self.lines);
        table.row("lines of a source without its tests", self.without_tests);
        table.row("lines of code, sources / tests", format!("{} / {}", self.code, self.test_code));
        for file in &self.longest {
            table.entry(format!("{:>5}  {}", file.1, file.0));
        }
        if !self.unread.is_empty() {
            table.row("not read, for they are not Rust to `syn`", self.unread.len());
            self.unread.iter().for_each(|path| table.entry(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_sources_and_of_tests_is_counted_apart() {
        let text = "// a\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    // b\n    fn b() {}\n}\n";
        let files = measure(&Sources::sample(&[("lib", text), ("a", "fn c() {}\n")]));
        assert_eq!((files.code, files.test_code), (2, 4));
        assert_eq!(files.lines, Summary { count: 2, median: 1, p90: 8, max: 8 });
        assert_eq!(files.without_tests, Summary { count: 2, median: 1, p90: 3, max: 3 });
        assert_eq!(files.longest[0], ("src/lib.rs".to_owned(), 8));
    }

    #[test]
    fn a_file_of_tests_counts_among_the_tests() {
        let sources = [("lib", "#[cfg(test)]\nmod tests;\n"), ("tests", "fn a() {}\n")];
        let files = measure(&Sources::sample(&sources));
        // The declaration belongs to the tests as well.
        assert_eq!((files.code, files.test_code, files.test_files), (0, 3, 1));
    }
}
