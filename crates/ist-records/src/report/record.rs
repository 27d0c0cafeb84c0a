//! One run as its folder tells it, whatever became of it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ist_files::regular;
use ist_files::untrusted::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::accuracy::{self, Accuracy};
use super::configuration::{self, Flat};
use super::log::{self, Line};
use super::time::Split;
use crate::failure::{Failure, OrFail};
use crate::record::costs::{StepCost, StepTimes};
use crate::record::folder::is_locked;
use crate::record::{importance, plan};

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It did all its steps.
    Finished,
    /// Its validation loss no longer fell.
    StoppedEarly,
    /// A person stopped it.
    Interrupted,
    /// A process works in its folder.
    Running,
    /// It failed, and its folder says why.
    Failed,
    /// No process works on it, and there is no result: it was killed, or failed without a word.
    Unfinished,
}

impl State {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::StoppedEarly => "stopped early",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished (failed or killed)",
        }
    }

    /// Whether it came to its end, so that its figures can be compared with those of others.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Finished | Self::StoppedEarly)
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub step: usize,
    /// The mean loss over its tokens; not a number where the log has none.
    pub loss: f64,
    /// Predicted tokens.
    pub tokens: f64,
    /// Seconds since the run's first step, this one included.
    pub elapsed: f64,
    /// The most live bytes.
    pub peak_bytes: f64,
}

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The step it follows.
    pub step: usize,
    /// The validation loss.
    pub loss: f64,
    /// Seconds of the steps up to it.
    pub elapsed: f64,
}

/// A run.
#[derive(Debug)]
pub struct RunRecord {
    /// How it is called: its folder's name, or more of the path where two are called the same.
    pub name: String,
    /// Its folder as it was named.
    pub folder: PathBuf,
    /// What became of it.
    pub state: State,
    /// Its configuration by dotted key.
    pub configuration: Flat,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Its evaluations.
    pub evaluations: Vec<Evaluation>,
    /// (step, all scores) of every importance update.
    pub updates: Vec<(usize, Vec<f64>)>,
    /// How often each layer was chosen.
    pub selected: Vec<usize>,
    /// Shares of right answers, by task.
    pub accuracies: Vec<Accuracy>,
    /// `plan.json`, or null.
    pub plan: Value,
    /// `result.json`, or null.
    pub result: Value,
    /// The sums of `costs.jsonl` over steps, where its lines tell.
    pub times: Option<StepTimes>,
    /// Seconds of scoring candidates.
    pub scoring_seconds: f64,
    /// What to say of its files.
    pub notes: Vec<String>,
}

/// What a line of a log adds to a record.
type Note = fn(&mut RunRecord, &Line) -> Result<(), Failure>;

/// The logs that tell a run.
pub(crate) const LOGS: [(&str, Note); 4] = [
    ("metrics.jsonl", RunRecord::note_metrics),
    (importance::LOG, RunRecord::note_importance),
    ("selections.jsonl", RunRecord::note_selection),
    (crate::record::costs::LOG, RunRecord::note_cost),
];

impl RunRecord {
    /// Reads a run's folder.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let mut run = Self::without_lines(folder)?;
        for (name, note) in LOGS {
            let path = folder.join(name);
            let log = log::read(&path)?;
            run.notes.extend(log.note);
            for (number, value) in &log.lines {
                note(&mut run, &Line { path: &path, number: *number, value })?;
            }
        }
        let without = run.steps.iter().filter(|step| !step.loss.is_finite()).count();
        if without > 0 {
            let path = folder.join(LOGS[0].0);
            run.notes.push(format!(
                "{}: {without} steps have no finite loss; curves leave them out",
                path.display()
            ));
        }
        let told = run.documents()?;
        run.notes.extend(told);
        Ok(run)
    }

    /// A run of which the configuration alone is read.
    pub(crate) fn without_lines(folder: &Path) -> Result<Self, Failure> {
        Ok(Self::of(folder, configuration::read(&folder.join("config.toml"))?))
    }

    /// A run of that configuration of which nothing else is known.
    pub(super) fn of(folder: &Path, configuration: Flat) -> Self {
        Self {
            name: folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            state: State::Unfinished,
            configuration,
            steps: Vec::new(),
            evaluations: Vec::new(),
            updates: Vec::new(),
            selected: Vec::new(),
            accuracies: Vec::new(),
            plan: Value::Null,
            result: Value::Null,
            times: None,
            scoring_seconds: 0.0,
            notes: Vec::new(),
        }
    }

    /// Reads what is replaced as a whole: plan, result, failure, evaluations, state. What to say of
    /// these files comes back.
    pub(crate) fn documents(&mut self) -> Result<Vec<String>, Failure> {
        let (folder, mut notes) = (self.folder.clone(), Vec::new());
        self.plan = document(&folder.join(plan::FILE), &mut notes)?;
        self.result = document(&folder.join("result.json"), &mut notes)?;
        let failure = document(&folder.join("failure.json"), &mut notes)?;
        self.state = state(&folder, &self.result, &failure);
        if let (State::Failed, Some(reason)) = (self.state, failure["reason"].as_str()) {
            notes.push(format!("{}: {reason}", folder.display()));
        }
        self.accuracies = accuracy::of_run(&folder, &self.result)?;
        Ok(notes)
    }

    /// A step or an evaluation.
    fn note_metrics(&mut self, line: &Line) -> Result<(), Failure> {
        let (step, value) = (line.step()?, line.value);
        let figure = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        if value.get("eval_loss").is_some() {
            let elapsed = self.seconds();
            self.evaluations.push(Evaluation { step, loss: figure("eval_loss"), elapsed });
        }
        if value.get("loss").is_some() {
            if self.steps.last().is_some_and(|last| last.step >= step) {
                return Err(
                    line.broken(&format!("is of step {step}, which stands before it already"))
                );
            }
            let or_zero =
                |key: &str| Some(figure(key)).filter(|value| value.is_finite()).unwrap_or(0.0);
            let elapsed = self.seconds() + or_zero("seconds");
            let (tokens, peak_bytes) = (or_zero("tokens"), or_zero("peak_bytes"));
            self.steps.push(Step { step, loss: figure("loss"), tokens, elapsed, peak_bytes });
        }
        Ok(())
    }

    /// An importance update.
    fn note_importance(&mut self, line: &Line) -> Result<(), Failure> {
        let step = line.step()?;
        let scores: Option<Vec<f64>> =
            line.value["scores"].as_array().and_then(|all| all.iter().map(Value::as_f64).collect());
        let scores = scores.filter(|scores| {
            self.updates.first().is_none_or(|(_, first)| first.len() == scores.len())
        });
        let scores = scores
            .ok_or_else(|| line.broken("has no `scores` that are a number for each layer"))?;
        self.has_layers(scores.len());
        self.updates.push((step, scores));
        Ok(())
    }

    /// The layers of a step.
    fn note_selection(&mut self, line: &Line) -> Result<(), Failure> {
        let chosen: Option<Vec<u64>> =
            line.value["layers"].as_array().and_then(|all| all.iter().map(Value::as_u64).collect());
        let chosen = chosen.filter(|chosen| chosen.iter().all(|layer| *layer < MOST_LAYERS));
        for layer in
            chosen.ok_or_else(|| line.broken("has no `layers` that are layers' numbers"))?
        {
            self.has_layers(layer as usize + 1);
            self.selected[layer as usize] += 1;
        }
        Ok(())
    }

    fn has_layers(&mut self, count: usize) {
        self.selected.resize(self.selected.len().max(count), 0);
    }

    /// The cost of a step.
    fn note_cost(&mut self, line: &Line) -> Result<(), Failure> {
        let cost = StepCost::deserialize(line.value);
        let cost = cost.map_err(|error| line.broken(&format!("is no step's cost: {error}")))?;
        self.scoring_seconds += cost.scoring.map_or(0.0, |scoring| scoring.seconds);
        if let Some(times) = cost.times {
            *self.times.get_or_insert_default() += times;
        }
        Ok(())
    }

    /// Where the time went; `None` where no step tells.
    pub fn split(&self) -> Option<Split> {
        self.times.map(|times| Split::of(times, self.scoring_seconds, self.seconds()))
    }

    /// The layers of its model: as planned, and as the logs name them.
    pub fn layers(&self) -> usize {
        let planned =
            self.plan["layers"].as_u64().filter(|layers| *layers < MOST_LAYERS).unwrap_or_default();
        self.selected.len().max(planned as usize)
    }

    /// The most live bytes that were predicted: of the draws that were made by a run that has
    /// ended, else of the worst draw.
    pub fn predicted_peak_bytes(&self) -> Option<f64> {
        let made = self.result["memory"]["predicted_peak_bytes"].as_f64();
        made.or_else(|| self.plan["peak_bytes"].as_f64())
    }

    /// The evaluation with the least validation loss.
    pub fn best_evaluation(&self) -> Option<&Evaluation> {
        let finite = self.evaluations.iter().filter(|evaluation| evaluation.loss.is_finite());
        finite.min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// A value of the configuration.
    pub fn setting(&self, key: &str) -> &Value {
        self.configuration.get(key).unwrap_or(&Value::Null)
    }

    /// Its seed; a configuration without one has 0.
    pub fn seed(&self) -> u64 {
        self.setting("seed").as_u64().unwrap_or_default()
    }

    /// Seconds of all its steps.
    pub fn seconds(&self) -> f64 {
        self.steps.last().map_or(0.0, |step| step.elapsed)
    }

    /// The most live bytes of any step.
    pub fn peak_bytes(&self) -> f64 {
        self.steps.iter().map(|step| step.peak_bytes).fold(0.0, f64::max)
    }
}

/// Above the layers of any model; a number beyond it is a broken file.
const MOST_LAYERS: u64 = 100_000;

/// A JSON document, or null where there is none that is whole.
fn document(path: &Path, notes: &mut Vec<String>) -> Result<Value, Failure> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    let text = regular::read(path)
        .with_context(|| format!("{}: cannot read", path.display()))
        .or_input()?;
    let read = json::value(&text);
    if let Err(error) = &read {
        let told = json::told(error);
        notes.push(format!("{} is not whole ({told}); it was left out", path.display()));
    }
    Ok(read.unwrap_or_default())
}

fn state(folder: &Path, result: &Value, failure: &Value) -> State {
    if is_locked(folder) {
        return State::Running;
    }
    match result["status"].as_str() {
        Some("finished") => State::Finished,
        Some("stopped early") => State::StoppedEarly,
        _ if failure.is_object() => State::Failed,
        Some("interrupted") => State::Interrupted,
        _ => State::Unfinished,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_run_is_read_from_its_logs() {
        let metrics = "{\"step\":0,\"loss\":2.0,\"tokens\":8,\"seconds\":0.5,\"peak_bytes\":100}\n\
                       {\"step\":1,\"loss\":null,\"tokens\":8,\"seconds\":0.25,\"peak_bytes\":300}\n\
                       {\"step\":1,\"eval_loss\":1.5,\"eval_tokens\":4}\n\
                       {\"step\":1,\"sample\":\"x\"}\n";
        let folder = folder(&[
            ("config.toml", "seed = 3\n"),
            ("metrics.jsonl", metrics),
            ("importance.jsonl", "{\"step\":1,\"scores\":[0.5,-0.5,0.0]}\n"),
            ("selections.jsonl", "{\"step\":0,\"layers\":[1]}\n{\"step\":1,\"layers\":[0,1]}\n"),
        ]);
        let run = RunRecord::read(folder.path()).unwrap();
        assert_eq!((run.state, run.seed(), run.steps.len()), (State::Unfinished, 3, 2));
        assert_eq!((run.seconds(), run.peak_bytes()), (0.75, 300.0));
        assert_eq!(run.evaluations, [Evaluation { step: 1, loss: 1.5, elapsed: 0.75 }]);
        assert_eq!((run.selected, run.updates), (vec![1, 2, 0], vec![(1, vec![0.5, -0.5, 0.0])]));
        assert!(
            run.steps[1].loss.is_nan() && run.notes[0].contains("1 steps have no finite loss"),
            "{:?}",
            run.notes
        );
    }

    #[test]
    fn costs_are_summed_where_lines_tell_times() {
        let line = |step: usize, scoring: &str| {
            format!(
                "{{\"step\":{step},\"predicted_peak_bytes\":null,\"scoring\":{scoring},\"times\":\
                 {{\"forward\":0.25,\"recompute\":0.0,\"backward\":0.5,\"optimizer\":0.125}}}}\n"
            )
        };
        let costs =
            line(0, "null") + &line(1, "{\"seconds\":0.25,\"peak_bytes\":1,\"micro_batch\":1}");
        let metrics = "{\"step\":0,\"loss\":1.0,\"seconds\":1.0}\n\
                       {\"step\":1,\"loss\":1.0,\"seconds\":2.0}\n";
        let told =
            folder(&[("config.toml", ""), ("metrics.jsonl", metrics), ("costs.jsonl", &costs)]);
        let split = RunRecord::read(told.path()).unwrap().split().unwrap();
        assert_eq!(split.parts(), [0.5, 0.0, 1.0, 0.25, 0.25, 1.0]);
        let old = "{\"step\":0,\"predicted_peak_bytes\":null,\"scoring\":null}\n";
        let old = folder(&[("config.toml", ""), ("costs.jsonl", old)]);
        assert_eq!(RunRecord::read(old.path()).unwrap().split(), None, "a log of an older version");
    }

    #[test]
    fn an_empty_run_and_one_that_is_worked_on_are_told_apart() {
        let folder = folder(&[("config.toml", ""), (".lock", "")]);
        assert_eq!(RunRecord::read(folder.path()).unwrap().state, State::Unfinished);
        let lock = File::open(folder.path().join(".lock")).unwrap();
        lock.try_lock().unwrap();
        assert_eq!(RunRecord::read(folder.path()).unwrap().state, State::Running);
    }

    #[test]
    fn a_result_that_is_not_whole_is_left_out_and_a_failure_is_told() {
        let broken = folder(&[("config.toml", ""), ("result.json", "{\"status\": \"finis")]);
        let run = RunRecord::read(broken.path()).unwrap();
        assert!(
            run.state == State::Unfinished && run.notes[0].contains("result.json is not whole"),
            "{:?}",
            run.notes
        );
        let failed = folder(&[("config.toml", ""), ("failure.json", "{\"reason\": \"no space\"}")]);
        let run = RunRecord::read(failed.path()).unwrap();
        assert!(
            run.state == State::Failed && run.notes[0].ends_with(": no space"),
            "{:?}",
            run.notes
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_file_and_line() {
        let cases = [
            (
                "metrics.jsonl",
                "{\"step\":0,\"loss\":1}\n{\"step\":0,\"loss\":1}\n",
                "line 2 is of step 0",
            ),
            ("metrics.jsonl", "{\"loss\":1}\n{\"step\":1}\n", "line 1 has no `step`"),
            (
                "importance.jsonl",
                "{\"step\":0,\"scores\":[1,2]}\n{\"step\":1,\"scores\":[1]}\n",
                "line 2 has no `scores`",
            ),
            (
                "selections.jsonl",
                "{\"step\":0,\"layers\":[99999999999]}\n",
                "line 1 has no `layers`",
            ),
            ("config.toml", "seed = [", "config.toml"),
        ];
        for (name, text, expected) in cases {
            let folder = folder(&[("config.toml", ""), (name, text)]);
            let error = RunRecord::read(folder.path()).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(expected), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
