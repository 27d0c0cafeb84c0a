//! One run as its folder tells it, whatever became of it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::accuracy::{self, Accuracy};
use super::configuration::{self, Flat};
use super::log;
use crate::failure::{Failure, OrFail};

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
    /// The sums of `costs.jsonl` by part, where its lines tell.
    pub times: Option<super::time::Split>,
    /// What to say of its files.
    pub notes: Vec<String>,
}

impl RunRecord {
    /// Reads a run's folder.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        let configuration = configuration::read(&folder.join("config.toml"))?;
        let (steps, evaluations) = metrics(&folder.join("metrics.jsonl"), &mut notes)?;
        let updates = importance(&folder.join("importance.jsonl"), &mut notes)?;
        let result = document(&folder.join("result.json"), &mut notes)?;
        let failure = document(&folder.join("failure.json"), &mut notes)?;
        let state = state(folder, &result, &failure);
        if let (State::Failed, Some(reason)) = (state, failure["reason"].as_str()) {
            notes.push(format!("{}: {reason}", folder.display()));
        }
        let layers = updates.first().map_or(0, |(_, scores): &(usize, Vec<f64>)| scores.len());
        let seconds = steps.last().map_or(0.0, |step: &Step| step.elapsed);
        Ok(Self {
            name: folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            state,
            selected: selections(&folder.join("selections.jsonl"), layers, &mut notes)?,
            accuracies: accuracy::of_run(folder, &result)?,
            plan: document(&folder.join("plan.json"), &mut notes)?,
            times: super::time::read(&folder.join(crate::train::costs::LOG), seconds, &mut notes)?,
            configuration,
            steps,
            evaluations,
            updates,
            result,
            notes,
        })
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

/// Steps and evaluations of `metrics.jsonl`.
fn metrics(path: &Path, notes: &mut Vec<String>) -> Result<(Vec<Step>, Vec<Evaluation>), Failure> {
    let log = log::read(path)?;
    notes.extend(log.note);
    let (mut steps, mut evaluations) = (Vec::<Step>::new(), Vec::new());
    let mut elapsed = 0.0;
    for (number, line) in log.lines {
        let step = log::step(path, number, &line)?;
        let figure = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        if line.get("eval_loss").is_some() {
            evaluations.push(Evaluation { step, loss: figure("eval_loss"), elapsed });
        }
        if line.get("loss").is_some() {
            if steps.last().is_some_and(|last| last.step >= step) {
                return Err(log::broken(path, number, &format!("is of step {step}, which stands before it already")));
            }
            let or_zero = |key: &str| Some(figure(key)).filter(|value| value.is_finite()).unwrap_or(0.0);
            elapsed += or_zero("seconds");
            let (tokens, peak_bytes) = (or_zero("tokens"), or_zero("peak_bytes"));
            steps.push(Step { step, loss: figure("loss"), tokens, elapsed, peak_bytes });
        }
    }
    let without = steps.iter().filter(|step| !step.loss.is_finite()).count();
    if without > 0 {
        notes.push(format!("{}: {without} steps have no finite loss; curves leave them out", path.display()));
    }
    Ok((steps, evaluations))
}

fn importance(path: &Path, notes: &mut Vec<String>) -> Result<Vec<(usize, Vec<f64>)>, Failure> {
    let log = log::read(path)?;
    notes.extend(log.note);
    let mut updates: Vec<(usize, Vec<f64>)> = Vec::new();
    for (number, line) in log.lines {
        let step = log::step(path, number, &line)?;
        let scores: Option<Vec<f64>> =
            line["scores"].as_array().and_then(|all| all.iter().map(Value::as_f64).collect());
        let scores = scores.filter(|scores| updates.first().is_none_or(|(_, first)| first.len() == scores.len()));
        let fault = || log::broken(path, number, "has no `scores` that are a number for each layer");
        updates.push((step, scores.ok_or_else(fault)?));
    }
    Ok(updates)
}

/// How often each layer was chosen; as many layers as `layers`, or as the log names.
fn selections(path: &Path, layers: usize, notes: &mut Vec<String>) -> Result<Vec<usize>, Failure> {
    let log = log::read(path)?;
    notes.extend(log.note);
    let mut counts = vec![0; layers];
    for (number, line) in log.lines {
        let chosen: Option<Vec<u64>> =
            line["layers"].as_array().and_then(|all| all.iter().map(Value::as_u64).collect());
        let chosen = chosen.filter(|chosen| chosen.iter().all(|layer| *layer < MOST_LAYERS));
        let fault = || log::broken(path, number, "has no `layers` that are layers' numbers");
        for layer in chosen.ok_or_else(fault)? {
            let layer = layer as usize;
            counts.resize(counts.len().max(layer + 1), 0);
            counts[layer] += 1;
        }
    }
    Ok(counts)
}

/// Above the layers of any model; a number beyond it is a broken file.
const MOST_LAYERS: u64 = 100_000;

/// A JSON document, or null where there is none that is whole.
fn document(path: &Path, notes: &mut Vec<String>) -> Result<Value, Failure> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    let text = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display())).or_input()?;
    let read = serde_json::from_slice(&text);
    if let Err(error) = &read {
        notes.push(format!("{} is not whole ({error}); it was left out", path.display()));
    }
    Ok(read.unwrap_or_default())
}

fn state(folder: &Path, result: &Value, failure: &Value) -> State {
    if is_worked_on(folder) {
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

/// Whether another process holds the folder's lock.
fn is_worked_on(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(".lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
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
                       {\"step\":1,\"eval_loss\":1.5,\"eval_tokens\":4}\n{\"step\":1,\"sample\":\"x\"}\n";
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
        assert!(run.steps[1].loss.is_nan() && run.notes[0].contains("1 steps have no finite loss"), "{:?}", run.notes);
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
        assert!(run.state == State::Unfinished && run.notes[0].contains("result.json is not whole"), "{:?}", run.notes);
        let failed = folder(&[("config.toml", ""), ("failure.json", "{\"reason\": \"no space\"}")]);
        let run = RunRecord::read(failed.path()).unwrap();
        assert!(run.state == State::Failed && run.notes[0].ends_with(": no space"), "{:?}", run.notes);
    }

    #[test]
    fn what_cannot_be_is_refused_with_file_and_line() {
        let cases = [
            ("metrics.jsonl", "{\"step\":0,\"loss\":1}\n{\"step\":0,\"loss\":1}\n", "line 2 is of step 0"),
            ("metrics.jsonl", "{\"loss\":1}\n{\"step\":1}\n", "line 1 has no `step`"),
            (
                "importance.jsonl",
                "{\"step\":0,\"scores\":[1,2]}\n{\"step\":1,\"scores\":[1]}\n",
                "line 2 has no `scores`",
            ),
            ("selections.jsonl", "{\"step\":0,\"layers\":[99999999999]}\n", "line 1 has no `layers`"),
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
