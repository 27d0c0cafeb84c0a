//! What came of the tries: counts by case, and each failure with the command that repeats it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What came of one try.
#[derive(Debug)]
pub(crate) struct Try {
    /// What was disturbed, for the table.
    pub(crate) case: String,
    /// How many disturbances it was: kills of a chain, else 1.
    pub(crate) count: u64,
    /// What came of it, in a word or two.
    pub(crate) outcome: String,
    /// What is wrong: its kind and what was seen.
    pub(crate) faults: Vec<(&'static str, String)>,
    /// Where its files lie.
    pub(crate) folder: PathBuf,
}

/// A failure.
#[derive(Debug)]
pub(crate) struct Failure {
    case: String,
    kind: &'static str,
    what: String,
    folder: PathBuf,
    again: String,
}

#[derive(Debug, Default)]
struct Row {
    tries: u64,
    outcomes: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
}

/// The tries of one kind.
#[derive(Debug)]
pub(crate) struct Tally {
    kind: &'static str,
    rows: BTreeMap<String, Row>,
    failures: Vec<Failure>,
    failed: u64,
    seconds: f64,
    /// Why nothing was tried.
    skipped: Option<String>,
}

impl Tally {
    /// No try yet.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            rows: BTreeMap::new(),
            failures: Vec::new(),
            failed: 0,
            seconds: 0.0,
            skipped: None,
        }
    }

    /// A kind that cannot be tried on this machine.
    pub(crate) fn skipped(kind: &'static str, why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::new(kind) }
    }

    /// Takes note of a try; `again` is the command that repeats it.
    pub(crate) fn note(&mut self, tried: &Try, again: &str) {
        let row = self.rows.entry(tried.case.clone()).or_default();
        row.tries += tried.count;
        *row.outcomes.entry(tried.outcome.clone()).or_default() += 1;
        self.failed += u64::from(!tried.faults.is_empty());
        for (kind, what) in &tried.faults {
            *row.faults.entry(kind).or_default() += 1;
            self.failures.push(Failure {
                case: tried.case.clone(),
                kind,
                what: what.clone(),
                folder: tried.folder.clone(),
                again: again.to_owned(),
            });
        }
    }

    /// Takes note of how long it took.
    pub(crate) fn took(&mut self, seconds: f64) {
        self.seconds = seconds;
    }

    /// The disturbances so far.
    pub(crate) fn tries(&self) -> u64 {
        self.rows.values().map(|row| row.tries).sum()
    }

    /// The tries of which something was wrong.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// The failures, each with its command.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|failure| {
            let Failure { case, kind, what, folder, again } = failure;
            format!("{case}: {kind}: {what}\n    {again}\n    {}", folder.display())
        })
    }

    /// The table's lines.
    pub(crate) fn table(&self) -> String {
        if let Some(why) = &self.skipped {
            return format!("{}: skipped: {why}\n", self.kind);
        }
        let tries = self.tries();
        let seconds = self.seconds;
        let kind = self.kind;
        let failed = self.failed;
        let mut text = format!("{kind}: {tries} tries, {failed} failures, {seconds:.0} s\n");
        for (case, row) in &self.rows {
            let outcomes = counts(row.outcomes.iter().map(|(name, count)| (name.as_str(), *count)));
            let faults = counts(row.faults.iter().map(|(name, count)| (*name, *count)));
            let faults =
                if faults.is_empty() { String::new() } else { format!("; WRONG {faults}") };
            writeln!(text, "  {case:<44} {:>6}  {outcomes}{faults}", row.tries)
                .expect("strings take text");
        }
        text
    }

    /// The same as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let cases = self.rows.iter().map(|(case, row)| {
            let Row { tries, outcomes, faults } = row;
            json!({"case": case, "tries": tries, "outcomes": outcomes, "faults": faults})
        });
        let failure = |failure: &Failure| {
            json!({"case": failure.case, "kind": failure.kind, "what": failure.what,
                   "folder": failure.folder, "again": failure.again})
        };
        json!({
            "kind": self.kind,
            "tries": self.tries(),
            "failed": self.failed,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "cases": cases.collect::<Vec<_>>(),
            "failures": self.failures.iter().map(failure).collect::<Vec<_>>(),
        })
    }
}

fn counts<'a>(all: impl Iterator<Item = (&'a str, u64)>) -> String {
    all.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_with_two_faults_is_one_failure_and_both_are_told() {
        let mut tally = Tally::new("kills");
        let tried = Try {
            case: "train".to_owned(),
            count: 3,
            outcome: "done".to_owned(),
            faults: vec![("leftover", ".tmp1".to_owned()), ("leftover", ".tmp2".to_owned())],
            folder: PathBuf::from("x"),
        };
        tally.note(&tried, "again");
        assert_eq!((tally.tries(), tally.failed(), tally.failures().count()), (3, 1, 2));
        assert!(tally.table().contains("done 1; WRONG leftover 2"), "{}", tally.table());
        assert_eq!(tally.to_json()["cases"][0]["faults"]["leftover"], 2);
    }
}
