//! The event file of a run.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ist_files::{durable, regular};
use serde_json::Value;

use super::{event, frame};
use crate::record::importance::ImportanceLine;
use crate::record::lines::{self, LineLog};

/// The folder in a run's folder that the file is in.
pub const FOLDER: &str = "tensorboard";
/// The file. TensorBoard takes every file whose name holds `tfevents`; one name lets a run that
/// goes on find it.
const FILE: &str = "events.out.tfevents.0.ist";

/// The event file of a run that is going on. Every event is handed to the system at once, as the
/// lines of the logs are.
#[derive(Debug)]
pub struct EventLog {
    log: LineLog,
    note: Option<String>,
}

impl EventLog {
    /// Opens the file in the run's folder. Of one that is there the events of steps below `steps`
    /// are kept, so that each step stands once; a last event that was cut off goes.
    pub fn open(run: &Path, steps: usize) -> Result<Self> {
        let folder = run.join(FOLDER);
        durable::create_folder(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(FILE);
        let context = || path.display().to_string();
        let before =
            if path.exists() { regular::read(&path).with_context(context)? } else { Vec::new() };
        let kept = kept(&before, steps);
        lines::replace(&path, &kept)?;
        let next = steps_in(&kept);
        let note = (next < steps).then(|| {
            format!(
                "{} ends before step {next}; figures of steps {next} to {} are in the other logs \
                 only",
                path.display(),
                steps - 1
            )
        });
        Ok(Self { log: LineLog::open(&path)?, note })
    }

    /// What is missing of the steps before, if anything is.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Syncs what was written.
    pub fn sync(&self) -> Result<()> {
        self.log.mark().map(drop)
    }

    /// Writes the figures of a line of `metrics.jsonl`.
    pub fn metrics(&mut self, line: &Value) -> Result<()> {
        let named = [
            ("loss", "train/loss"),
            ("lr", "train/learning_rate"),
            ("grad_norm", "train/grad_norm"),
            ("peak_bytes", "memory/peak_bytes"),
            ("eval_loss", "validation/loss"),
        ];
        let figure = |(key, tag): (&str, &str)| Some((tag.to_owned(), line[key].as_f64()?));
        let rate =
            line["tokens"].as_f64().zip(line["seconds"].as_f64().filter(|seconds| *seconds > 0.0));
        let rate =
            rate.map(|(tokens, seconds)| ("train/tokens_per_second".to_owned(), tokens / seconds));
        let values: Vec<_> = named.into_iter().filter_map(figure).chain(rate).collect();
        self.write(line["step"].as_u64().map(|step| step as usize), &values)
    }

    /// Writes the scores of a line of `importance.jsonl`, a tag for each layer.
    pub fn importance(&mut self, line: &ImportanceLine) -> Result<()> {
        // Equal widths, so that TensorBoard's order is that of the layers.
        let width = line.scores.len().saturating_sub(1).to_string().len();
        let tag =
            |(layer, score): (usize, &f64)| (format!("importance/layer_{layer:0width$}"), *score);
        let finite = line.scores.iter().enumerate().filter(|(_, score)| score.is_finite());
        let values: Vec<(String, f64)> = finite.map(tag).collect();
        self.write(Some(line.step), &values)
    }

    fn write(&mut self, step: Option<usize>, values: &[(String, f64)]) -> Result<()> {
        let Some(step) = step.filter(|_| !values.is_empty()) else {
            return Ok(());
        };
        let event = frame::framed(&event::scalars(now(), step, values));
        self.log.append(&event)
    }
}

/// What is kept of a file, or the beginning of a new one.
fn kept(mut bytes: &[u8], steps: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some((data, rest)) = frame::first(bytes) {
        if event::step_of(data).is_none_or(|step| step < steps) {
            kept.extend(&bytes[..bytes.len() - rest.len()]);
        }
        bytes = rest;
    }
    if kept.is_empty() { frame::framed(&event::version(now())) } else { kept }
}

/// The steps that a file tells of: the last one and those before it.
fn steps_in(mut bytes: &[u8]) -> usize {
    let mut steps = 0;
    while let Some((data, rest)) = frame::first(bytes) {
        steps = event::step_of(data).map_or(steps, |step| step + 1);
        bytes = rest;
    }
    steps
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(run: &Path) -> Vec<u8> {
        std::fs::read(run.join(FOLDER).join(FILE)).unwrap()
    }

    fn steps(run: &Path) -> Vec<Option<usize>> {
        let bytes = bytes(run);
        let (mut rest, mut steps) = (&bytes[..], Vec::new());
        while let Some((data, behind)) = frame::first(rest) {
            steps.push(event::step_of(data));
            rest = behind;
        }
        assert!(rest.is_empty());
        steps
    }

    fn scores(step: usize) -> ImportanceLine {
        ImportanceLine {
            step,
            records: Vec::new(),
            suppressed: Vec::new(),
            losses: Vec::new(),
            rewards: Vec::new(),
            scores: vec![0.5, -0.5],
        }
    }

    #[test]
    fn a_run_that_goes_on_has_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), 0).unwrap();
        for step in 0..4 {
            log.importance(&scores(step)).unwrap();
            log.metrics(&json!({"step": step, "loss": 2.0, "tokens": 8, "seconds": 0.5})).unwrap();
        }
        log.metrics(&json!({"step": 3, "sample": "a text has no figure"})).unwrap();
        let before = bytes(folder.path());
        log.log.append(&before[..30]).unwrap();
        drop(log);
        let mut log = EventLog::open(folder.path(), 2).unwrap();
        assert!(
            before.starts_with(&bytes(folder.path())),
            "what is kept is kept as it was, times included"
        );
        assert_eq!(log.note(), None);
        log.metrics(&json!({"step": 2, "loss": 2.0})).unwrap();
        assert_eq!(steps(folder.path()), [None, Some(0), Some(0), Some(1), Some(1), Some(2)]);
        drop(log);
        let note = EventLog::open(folder.path(), 5).unwrap().note().map(str::to_owned);
        assert!(note.is_some_and(|note| note.contains("figures of steps 3 to 4")));
        drop(EventLog::open(folder.path(), 0).unwrap());
        assert_eq!(steps(folder.path()), [None]);
    }
}
