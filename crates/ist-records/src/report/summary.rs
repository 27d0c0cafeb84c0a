//! A run in a row: for the page, for CSV and for programs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::accuracy::Accuracy;
use super::comparison::{Unit, last_tenth};
use super::format;
use super::record::{RunRecord, State};
use super::table::Table;
use super::time::Split;

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run: String,
    /// Its folder.
    pub folder: String,
    /// Its group.
    pub group: String,
    /// Its seed.
    pub seed: u64,
    /// What became of it.
    pub state: State,
    /// Optimizer steps done.
    pub steps: usize,
    /// The mean loss of the last tenth of the steps.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub eval_loss: Option<f64>,
    /// The least validation loss.
    pub best_eval_loss: Option<f64>,
    /// The step it follows.
    pub best_step: Option<usize>,
    /// Shares of right answers.
    pub accuracies: Vec<Accuracy>,
    /// Predicted tokens of all steps.
    pub tokens: f64,
    /// Seconds of all steps.
    pub seconds: f64,
    /// The most live bytes of any step.
    pub peak_bytes: f64,
    /// What that was predicted to be.
    pub predicted_peak_bytes: Option<f64>,
    /// Where the time went, where the run tells.
    pub time: Option<Split>,
}

impl Summary {
    pub(super) fn of(run: &RunRecord, group: &str) -> Self {
        let best = run.best_evaluation();
        Self {
            run: run.name.clone(),
            folder: run.folder.display().to_string(),
            group: group.to_owned(),
            seed: run.seed(),
            state: run.state,
            steps: run.steps.len(),
            loss: last_tenth(&run.steps),
            eval_loss: run
                .evaluations
                .last()
                .map(|evaluation| evaluation.loss)
                .filter(|loss| loss.is_finite()),
            best_eval_loss: best.map(|evaluation| evaluation.loss),
            best_step: best.map(|evaluation| evaluation.step),
            accuracies: run.accuracies.clone(),
            tokens: run.steps.iter().map(|step| step.tokens).sum(),
            seconds: run.seconds(),
            peak_bytes: run.peak_bytes(),
            predicted_peak_bytes: run.result["memory"]["predicted_peak_bytes"].as_f64(),
            time: run.split(),
        }
    }

    fn accuracy(&self, task: &str) -> Option<f64> {
        self.accuracies
            .iter()
            .find(|accuracy| accuracy.task == task)
            .map(|accuracy| accuracy.accuracy)
    }
}

/// Every task that one of the runs was evaluated on, in alphabetical order.
pub(super) fn tasks(runs: &[RunRecord]) -> Vec<String> {
    let all =
        runs.iter().flat_map(|run| run.accuracies.iter().map(|accuracy| accuracy.task.clone()));
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// The summary of all runs for people.
pub(super) fn table(summaries: &[Summary], tasks: &[String]) -> Table {
    let mut table = Table::new(
        "Every run in a row",
        4,
        &["run", "group", "seed", "state", "steps", "training loss", "validation loss"],
    );
    table.headers.push("best validation loss".to_owned());
    table.headers.extend(tasks.iter().map(|task| format!("accuracy, {task}")));
    table
        .headers
        .extend(["seconds", "learned tokens/s", "peak memory", "predicted"].map(str::to_owned));
    table.rows = summaries.iter().map(|summary| row(summary, tasks)).collect();
    table
}

fn row(summary: &Summary, tasks: &[String]) -> Vec<String> {
    let or_none = format::or_none;
    let best = match (summary.best_eval_loss, summary.best_step) {
        (Some(loss), Some(step)) => format!("{loss:.4} (step {step})"),
        _ => format::NONE.to_owned(),
    };
    let rate = Some(summary.tokens / summary.seconds).filter(|rate| rate.is_finite());
    let state = summary.state.words().to_owned();
    let words = [
        summary.run.clone(),
        summary.group.clone(),
        summary.seed.to_string(),
        state,
        summary.steps.to_string(),
    ];
    let losses = [or_none(Unit::Loss, summary.loss), or_none(Unit::Loss, summary.eval_loss), best];
    let shares = tasks.iter().map(|task| or_none(Unit::Share, summary.accuracy(task)));
    let costs = [
        or_none(Unit::Seconds, Some(summary.seconds)),
        or_none(Unit::Steps, rate),
        or_none(Unit::Bytes, Some(summary.peak_bytes).filter(|bytes| *bytes > 0.0)),
        or_none(Unit::Bytes, summary.predicted_peak_bytes),
    ];
    words.into_iter().chain(losses).chain(shares).chain(costs).collect()
}

/// The summary of all runs as headers and rows of CSV, with the settings that differ.
pub(super) fn csv(
    summaries: &[Summary],
    runs: &[RunRecord],
    tasks: &[String],
    keys: &[String],
) -> String {
    let flat: Vec<Map<String, Value>> = summaries.iter().map(flat).collect();
    let mut headers: Vec<String> =
        flat.first().map(|row| row.keys().cloned().collect()).unwrap_or_default();
    headers.extend(tasks.iter().map(|task| format!("accuracy.{task}")));
    headers.extend(Split::NAMES.iter().map(|name| format!("seconds.{name}")));
    headers.extend(keys.iter().map(|key| format!("config.{key}")));
    let rows = summaries.iter().zip(runs).zip(flat).map(|((summary, run), flat)| {
        let number =
            |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let mut row: Vec<String> = flat.values().map(cell).collect();
        row.extend(tasks.iter().map(|task| number(summary.accuracy(task))));
        let parts = summary.time.map(|split| split.parts());
        row.extend((0..Split::NAMES.len()).map(|part| number(parts.map(|parts| parts[part]))));
        row.extend(keys.iter().map(|key| cell(run.setting(key))));
        row
    });
    super::csv::document(&headers, rows.collect::<Vec<_>>())
}

/// The figures without lists.
fn flat(summary: &Summary) -> Map<String, Value> {
    let mut flat = json!(summary).as_object().cloned().unwrap_or_default();
    flat.retain(|key, _| !["accuracies", "time"].contains(&key.as_str()));
    flat
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every loss of every run in long form: run, group, seed, kind, step, seconds so far, value.
pub(super) fn curves(summaries: &[Summary], runs: &[RunRecord]) -> String {
    let headers = ["run", "group", "seed", "kind", "step", "seconds", "value"].map(str::to_owned);
    let mut rows = Vec::new();
    for (summary, run) in summaries.iter().zip(runs) {
        let mut row = |kind: &str, step: usize, seconds: f64, value: f64| {
            let words = [
                summary.run.clone(),
                summary.group.clone(),
                summary.seed.to_string(),
                kind.to_owned(),
            ];
            let value = if value.is_finite() { value.to_string() } else { String::new() };
            rows.push(
                words
                    .into_iter()
                    .chain([step.to_string(), seconds.to_string(), value])
                    .collect::<Vec<_>>(),
            );
        };
        run.steps.iter().for_each(|step| row("loss", step.step, step.elapsed, step.loss));
        run.evaluations
            .iter()
            .for_each(|found| row("eval_loss", found.step, found.elapsed, found.loss));
    }
    super::csv::document(&headers, rows)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Evaluation, Step};
    use super::super::testing;
    use super::*;

    #[test]
    fn a_run_is_a_row_and_every_loss_is_one_in_long_form() {
        let mut run = testing::run("seed = 3\noptimizer.lr = 0.5", State::Finished);
        run.steps =
            vec![Step { step: 0, loss: 2.5, tokens: 8.0, elapsed: 0.5, peak_bytes: 2048.0 }];
        run.evaluations = vec![Evaluation { step: 0, loss: f64::NAN, elapsed: 0.5 }];
        run.accuracies =
            vec![Accuracy { task: "a,b".to_owned(), accuracy: 0.5, records: 2, interval: None }];
        let summaries = [Summary::of(&run, "ist")];
        let runs = [run];
        let tasks = tasks(&runs);
        let csv = csv(&summaries, &runs, &tasks, &["optimizer.lr".to_owned()]);
        let expected = "run,folder,group,seed,state,steps,loss,eval_loss,best_eval_loss,best_step,tokens,seconds,\
            peak_bytes,predicted_peak_bytes,\"accuracy.a,b\",seconds.forward,seconds.recompute,seconds.backward,\
            seconds.scoring,seconds.optimizer,seconds.other,config.optimizer.lr\r\n\
            run,run,ist,3,finished,1,2.5,,,,8.0,0.5,2048.0,,0.5,,,,,,,0.5\r\n";
        assert_eq!(csv, expected);
        let curves = curves(&summaries, &runs);
        assert_eq!(
            curves.lines().skip(1).collect::<Vec<_>>(),
            ["run,ist,3,loss,0,0.5,2.5", "run,ist,3,eval_loss,0,0.5,"]
        );
        let row = &table(&summaries, &tasks).rows[0];
        assert_eq!(row[5..9], ["2.5000", "–", "–", "50.0 %"]);
    }
}
