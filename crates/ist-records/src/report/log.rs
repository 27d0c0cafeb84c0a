//! Logs that may still be written, or whose last line a kill cut off.

use std::path::Path;

use anyhow::Context;
use ist_files::regular;
use ist_files::untrusted::{cut_value, json};
use serde_json::Value;

use crate::failure::{Failure, OrFail};

/// The lines of a log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Every line with its number, counted from 1.
    pub(super) lines: Vec<(usize, Value)>,
    /// What to say of a last line that is not whole.
    pub(super) note: Option<String>,
}

/// Reads a log; one that does not exist is empty. Only the last line may be broken.
pub(super) fn read(path: &Path) -> Result<Log, Failure> {
    let shown = path.display();
    if !path.exists() {
        return Ok(Log::default());
    }
    let bytes = regular::read(path).with_context(|| format!("{shown}: cannot read")).or_input()?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.iter().rposition(|line| !line.trim_ascii().is_empty());
    let mut log = Log::default();
    for (index, line) in lines.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
        let number = index + 1;
        match json::value(line) {
            Ok(value) if value.is_object() => log.lines.push((number, value)),
            _ if Some(index) == last => {
                log.note = Some(format!(
                    "{shown}: line {number}, the last, is not whole; it was left out"
                ));
            }
            Ok(value) => {
                return Err(broken(
                    path,
                    number,
                    &format!("holds {}, expected an object", cut_value(&value)),
                ));
            }
            Err(error) => {
                let problem = format!("is not JSON: {}", json::told(&error));
                return Err(broken(path, number, &problem));
            }
        }
    }
    Ok(log)
}

/// A line and where it stands.
pub(crate) struct Line<'a> {
    pub(crate) path: &'a Path,
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) value: &'a Value,
}

impl Line<'_> {
    /// The number of its step.
    pub(super) fn step(&self) -> Result<usize, Failure> {
        let step = self.value["step"].as_u64();
        step.map(|step| step as usize)
            .ok_or_else(|| self.broken("has no `step` that is a whole number"))
    }

    pub(super) fn broken(&self, what: &str) -> Failure {
        broken(self.path, self.number, what)
    }
}

fn broken(path: &Path, number: usize, what: &str) -> Failure {
    let advice = "mend the line, or leave this run out";
    Failure::input(format!("{}: line {number} {what}; {advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(text: &str) -> Result<Log, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn a_last_line_that_is_not_whole_is_left_out_with_a_note() {
        for tail in ["{\"step\": 1, \"lo", "{\"step\": 1, \"lo\n", "\u{1}\n\n", "7\n"] {
            let log = log_of(&format!("{{\"step\": 0}}\n{tail}")).unwrap();
            assert_eq!(log.lines.len(), 1, "{tail}");
            assert!(
                log.note.as_ref().is_some_and(|note| note.contains("line 2, the last")),
                "{tail}: {log:?}"
            );
        }
        assert!(
            log_of("{\"step\": 0}\n{\"step\": 1}").unwrap().note.is_none(),
            "whole but for its end"
        );
        assert!(log_of("").unwrap().lines.is_empty());
    }

    #[test]
    fn a_broken_line_before_the_last_is_refused_with_its_number() {
        for middle in ["{\"step\": ", "[1]", ""] {
            let error =
                log_of(&format!("{{\"step\": 0}}\n{middle}\n{{\"step\": 2}}\n")).unwrap_err();
            assert!(
                error.exit_code() == 2 && error.to_string().contains("metrics.jsonl: line 2"),
                "{error}"
            );
        }
    }
}
