//! Shares of right answers: of a run's own task, and of the evaluations that lie beside its files.
//!
//! An evaluation is a document `NAME.eval.json` with `task`, `accuracy` (0 to 1) and `records`, and
//! `interval` where its writer told one; a document of several tasks has a list of such under
//! `tasks`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ist_files::regular;
use ist_files::untrusted::json;
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, OrFail};
use crate::report::statistics::{Interval, wilson};

/// A task's outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// The task.
    pub task: String,
    /// The share of records answered rightly.
    pub accuracy: f64,
    /// The records.
    pub records: u64,
    /// The 95 % interval of the share over records like these.
    pub interval: Option<Interval>,
}

/// How the file of an evaluation ends.
const ENDING: &str = ".eval.json";

/// Those of a run: after training as `result.json` tells, and of every evaluation in its folder.
pub(super) fn of_run(folder: &Path, result: &Value) -> Result<Vec<Accuracy>, Failure> {
    let mut found: Vec<Accuracy> = outcome(&result["eval"]["after"]).into_iter().collect();
    for path in documents(folder)? {
        let context = || format!("{}: cannot read", path.display());
        let text = regular::read(&path).with_context(context).or_input()?;
        let document = json::value(&text)
            .map_err(|error| anyhow::Error::msg(json::told(&error)))
            .with_context(context)
            .or_input()?;
        let several = document["tasks"].as_array();
        let each = several.map_or_else(|| vec![&document], |all| all.iter().collect());
        for outcome_of in each {
            let fault = || {
                "has no `task`, `accuracy` from 0 to 1 and `records`; mend it, or take \
                            it out of the run's folder"
            };
            let outcome = outcome(outcome_of)
                .with_context(|| format!("{} {}", path.display(), fault()))
                .or_input()?;
            // The newer file of a task replaces what the run itself measured.
            found.retain(|before| before.task != outcome.task);
            found.push(outcome);
        }
    }
    Ok(found)
}

fn documents(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: cannot read", folder.display()))
        .or_input()?;
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ENDING))
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    Ok(paths)
}

fn outcome(document: &Value) -> Option<Accuracy> {
    let share = document["accuracy"].as_f64().or_else(|| document["exact_match"].as_f64());
    let accuracy = share.filter(|share| (0.0..=1.0).contains(share))?;
    let records = document["records"].as_u64()?;
    let told = || {
        Some(Interval {
            low: document["interval"][0].as_f64()?,
            high: document["interval"][1].as_f64()?,
        })
    };
    let interval = told().or_else(|| wilson(accuracy * records as f64, records as f64));
    Some(Accuracy { task: document["task"].as_str()?.to_owned(), accuracy, records, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_runs_own_task_and_documents_beside_it_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        };
        write(
            "boolq.eval.json",
            json!({"task": "boolq", "accuracy": 0.5, "interval": [0.4, 0.6], "records": 100}),
        );
        write(
            "all.eval.json",
            json!({"tasks": [{"task": "piqa", "accuracy": 1.0, "records": 4}], "mean": 1.0}),
        );
        write("other.json", json!(3));
        let result =
            json!({"eval": {"after": {"task": "exact-match", "exact_match": 0.25, "records": 8}}});
        let found = of_run(folder.path(), &result).unwrap();
        let tasks: Vec<&str> = found.iter().map(|accuracy| accuracy.task.as_str()).collect();
        assert_eq!(tasks, ["exact-match", "piqa", "boolq"]);
        assert_eq!(found[0].interval, wilson(2.0, 8.0));
        assert_eq!(found[2].interval, Some(Interval { low: 0.4, high: 0.6 }));
        write("wrong.eval.json", json!({"task": "x", "accuracy": 71.5, "records": 3}));
        let error = of_run(folder.path(), &result).unwrap_err().to_string();
        assert!(error.contains("wrong.eval.json") && error.contains("from 0 to 1"), "{error}");
    }
}
