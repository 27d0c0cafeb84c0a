//! Every record's prediction, as a file of JSON Lines that is written while the model is asked.
//!
//! A line is handed to the system as soon as its batch is done, so a killed evaluation loses no
//! more than one batch, and the same command goes on where it stopped. What the predictions came
//! from stands beside them, in `FILE.settings.json`: under other settings the file is refused and
//! not mixed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ist_files::destination::Destination;
use ist_files::untrusted::{cut, cut_value, json};
use ist_files::{destination, durable, regular};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Task;
use ist_records::record::lines::LineLog;
use ist_records::record::{digests, lines};
use ist_records::{Failure, OrFail};

/// One record's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The task's name.
    pub task: String,
    /// The record's place in its file, from 0.
    pub index: usize,
    /// What the model was asked.
    pub prompt: String,
    /// What it wrote, trimmed; none where options were compared.
    pub reply: Option<String>,
    /// The answer in it, or the likeliest option; none where there is none.
    pub extracted: Option<String>,
    /// The right answer.
    pub answer: String,
    /// Whether they agree.
    pub correct: bool,
    /// Whether the prompt does not fit the model's context, so that it was not asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_long: bool,
    /// The reply once more, where it is compared whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<String>,
    /// What was compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionScore>,
}

/// An option and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionScore {
    /// The option.
    pub option: String,
    /// The sum of its tokens' log-probabilities, natural.
    pub log_likelihood: f64,
    /// Its tokens.
    pub tokens: usize,
}

/// By what a log-likelihood is divided before options are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalisation {
    /// 1.
    Sum,
    /// The option's tokens.
    Tokens,
    /// The option's bytes.
    Bytes,
}

impl Prediction {
    /// The outcome of a reply.
    pub fn of_reply(
        task: &Task,
        index: usize,
        prompt: String,
        answer: String,
        reply: &str,
    ) -> Self {
        let reply = reply.trim();
        let extracted = task.answers().extract(reply);
        let correct = extracted
            .as_ref()
            .is_some_and(|extracted| task.answers().is_correct(extracted, &answer));
        let prediction = (task.answers() == super::Answers::Whole).then(|| reply.to_owned());
        let reply = Some(reply.to_owned());
        Self {
            reply,
            extracted,
            correct,
            prediction,
            ..Self::of_nothing(task, index, prompt, answer)
        }
    }

    /// The outcome of a comparison.
    pub fn of_options(
        task: &Task,
        index: usize,
        prompt: String,
        answer: String,
        options: Vec<OptionScore>,
    ) -> Self {
        let mut prediction = Self { options, ..Self::of_nothing(task, index, prompt, answer) };
        prediction.extracted = prediction.best(Normalisation::Sum).cloned();
        prediction.correct = prediction.extracted.as_ref() == Some(&prediction.answer);
        prediction
    }

    /// The outcome of a record that does not fit.
    pub fn of_too_long(task: &Task, index: usize, prompt: String, answer: String) -> Self {
        Self { too_long: true, ..Self::of_nothing(task, index, prompt, answer) }
    }

    fn of_nothing(task: &Task, index: usize, prompt: String, answer: String) -> Self {
        let task = task.name().to_owned();
        let (reply, extracted, prediction) = (None, None, None);
        let (correct, too_long, options) = (false, false, Vec::new());
        Self {
            task,
            index,
            prompt,
            reply,
            extracted,
            answer,
            correct,
            too_long,
            prediction,
            options,
        }
    }

    /// The likeliest option, the first of equals; none where none was compared.
    pub fn best(&self, by: Normalisation) -> Option<&String> {
        let value = |option: &OptionScore| match by {
            Normalisation::Sum => option.log_likelihood,
            Normalisation::Tokens => option.log_likelihood / option.tokens.max(1) as f64,
            Normalisation::Bytes => option.log_likelihood / option.option.len().max(1) as f64,
        };
        let better = |best: &'_ OptionScore, next: &'_ OptionScore| value(next) > value(best);
        let best =
            self.options.iter().reduce(|best, next| if better(best, next) { next } else { best });
        best.map(|option| &option.option)
    }
}

/// Where predictions go.
#[derive(Debug)]
enum Sink {
    /// Into a file that is gone on with.
    Log(LineLog),
    /// Into a device or a pipe, of which nothing can be read again.
    Through(File, PathBuf),
}

impl Sink {
    fn write(&mut self, prediction: &Prediction) -> anyhow::Result<()> {
        let line = with_check(&serde_json::to_string(prediction)?);
        match self {
            Self::Log(log) => log.append(line.as_bytes()),
            Self::Through(file, path) => {
                let written = file.write_all(line.as_bytes());
                written.with_context(|| format!("{}: cannot write", path.display()))
            }
        }
    }
}

/// Predictions that are there, and where the next ones go.
#[derive(Debug, Default)]
pub struct Log {
    sink: Option<Sink>,
    known: HashMap<(String, usize), Prediction>,
}

impl Log {
    /// Nothing is known, and nothing is written.
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens a file to go on with, or a new one; a device or a pipe is written to and not read.
    /// `settings` tells, for every task, what its predictions come from.
    ///
    /// # Errors
    ///
    /// A folder; a file that another evaluation writes; one whose predictions came from other
    /// settings or nobody knows from what; a line that is no prediction, except a last one that was
    /// cut off, which is dropped.
    pub fn open(path: &Path, settings: &Map<String, Value>) -> Result<Self, Failure> {
        let real = match Destination::of(path)? {
            Destination::Through(target) => {
                let file = destination::open(&target);
                let file = file.with_context(|| path.display().to_string()).or_input()?;
                let sink = Some(Sink::Through(file, path.to_owned()));
                return Ok(Self { sink, known: HashMap::new() });
            }
            Destination::Replace(real) => real,
        };
        let beside = settings_path(path);
        let folder = durable::folder_of(path);
        durable::sweep(folder)
            .map_err(|error| Failure::input(format!("{}: {error}", folder.display())))?;
        let mut file = LineLog::open(&real).or_input()?;
        if !file.lock().or_run()? {
            let advice = "let it end, or name another file";
            return Err(Failure::input(format!(
                "{}: another evaluation writes it; {advice}",
                path.display()
            )));
        }
        let held = regular::read_to_string(path);
        let held = held.map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
        let mut all = if held.is_empty() { Map::new() } else { read_settings(path, &beside)? };
        for (task, new) in settings {
            if let Some(old) = all.get(task) {
                agree(path, task, old, new)?;
            }
            all.insert(task.clone(), new.clone());
        }
        let known = read(path, &held)?;
        let text = serde_json::to_string_pretty(&all).or_run()? + "\n";
        lines::replace(&beside, text.as_bytes()).or_run()?;
        let whole = held.rfind('\n').map_or(0, |end| end + 1);
        if whole < held.len() {
            file.cut(whole as u64).or_run()?;
        }
        Ok(Self { sink: Some(Sink::Log(file)), known })
    }

    /// The prediction of a record, if it is known.
    pub fn take(&mut self, task: &Task, index: usize) -> Option<Prediction> {
        self.known.remove(&(task.name().to_owned(), index))
    }

    /// Writes a prediction.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(&mut self, prediction: &Prediction) -> Result<(), Failure> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.write(prediction)).or_run()
    }
}

fn settings_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".settings.json");
    name.into()
}

fn read_settings(path: &Path, beside: &Path) -> Result<Map<String, Value>, Failure> {
    let (shown, beside_shown) = (path.display(), beside.display());
    let remedy = format!("remove {shown} or name another file");
    let text = regular::read_to_string(beside).map_err(|_| {
        Failure::input(format!(
            "{shown} holds something, but {beside_shown}, which tells what from, is not there; \
             {remedy}"
        ))
    })?;
    json::from_slice(text.as_bytes()).map_err(|error| {
        Failure::input(format!("{beside_shown}: {}; {remedy}", json::told(&error)))
    })
}

fn agree(path: &Path, task: &str, old: &Value, new: &Value) -> Result<(), Failure> {
    let keys = new.as_object().into_iter().chain(old.as_object()).flat_map(Map::keys);
    let mut differing: Vec<String> = Vec::new();
    for key in keys.filter(|key| old[key] != new[key]) {
        let before = cut_value(&old[key]);
        let now = cut_value(&new[key]);
        let difference = format!("{} ({before}, now {now})", cut(key));
        if !differing.contains(&difference) {
            differing.push(difference);
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{}: its predictions of {task} came from other settings: {}; remove it or name another \
         file",
        path.display(),
        differing.join(", ")
    )))
}

/// The whole lines of a file of predictions.
fn read(path: &Path, text: &str) -> Result<HashMap<(String, usize), Prediction>, Failure> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(at, line): (usize, &str)| {
        let fault = |what: &dyn std::fmt::Display| {
            let shown = path.display();
            Failure::input(format!("{shown}, line {}: {what}; remove the line or the file", at + 1))
        };
        let Ok(content) = checked(line) else {
            return Err(fault(&"was changed since it was written"));
        };
        let prediction: Prediction = json::from_slice(content.as_bytes())
            .map_err(|error| fault(&format!("no whole prediction: {}", json::told(&error))))?;
        Ok(((prediction.task.clone(), prediction.index), prediction))
    };
    whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

/// How a line ends that says its own digest, before the digits.
const CHECK: &str = ",\"check\":\"";
/// Digits of the digest: enough against chance.
const DIGITS: usize = 16;

/// A line of this object that ends with the beginning of its SHA-256.
fn with_check(object: &str) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    format!("{open}{CHECK}{}\"}}\n", &check(object)[..DIGITS])
}

/// The object of a line, or that it was changed. Lines of earlier versions say no digest.
fn checked(line: &str) -> Result<Cow<'_, str>, ()> {
    let Some(at) = line.rfind(CHECK) else { return Ok(Cow::Borrowed(line)) };
    let object = format!("{}}}", &line[..at]);
    if with_check(&object).trim_end() == line { Ok(Cow::Owned(object)) } else { Err(()) }
}

fn check(object: &str) -> String {
    digests::hex(Sha256::new_with_prefix(object))
}

#[cfg(test)]
mod tests {
    use super::super::named;
    use super::*;
    use serde_json::json;

    fn settings(beams: usize) -> Map<String, Value> {
        json!({"boolq": {"beams": beams, "template": "alpaca"}}).as_object().unwrap().clone()
    }

    fn prediction(index: usize) -> Prediction {
        Prediction::of_reply(
            named("boolq").unwrap(),
            index,
            "So?".to_owned(),
            "true".to_owned(),
            " true ",
        )
    }

    #[test]
    fn a_killed_evaluation_goes_on_behind_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        let mut log = Log::open(&path, &settings(1)).unwrap();
        (0..2).for_each(|index| log.write(&prediction(index)).unwrap());
        drop(log);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"task\":\"boolq\",\"ind")).unwrap();
        let mut log = Log::open(&path, &settings(1)).unwrap();
        let task = named("boolq").unwrap();
        assert_eq!((log.take(task, 1), log.take(task, 2)), (Some(prediction(1)), None));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn predictions_from_other_settings_are_refused_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        Log::open(&path, &settings(1)).unwrap().write(&prediction(0)).unwrap();
        let message = Log::open(&path, &settings(4)).unwrap_err().to_string();
        assert!(message.contains("beams (1, now 4)") && !message.contains("template"), "{message}");
        // Another task may be added.
        let more = json!({"piqa": {"beams": 4}}).as_object().unwrap().clone();
        assert_eq!(Log::open(&path, &more).unwrap().known.len(), 1);
        assert!(Log::open(&path, &settings(1)).is_ok());
        std::fs::remove_file(settings_path(&path)).unwrap();
        assert!(
            Log::open(&path, &settings(1))
                .unwrap_err()
                .to_string()
                .contains("p.jsonl.settings.json")
        );
    }

    #[test]
    fn two_evaluations_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        let first = Log::open(&path, &settings(1)).unwrap();
        let error = Log::open(&path, &settings(1)).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("another evaluation writes it"),
            "{error}"
        );
        drop(first);
        assert!(Log::open(&path, &settings(1)).is_ok());
    }

    #[test]
    fn a_broken_line_among_whole_ones_is_refused_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        let mut log = Log::open(&path, &settings(1)).unwrap();
        (0..2).for_each(|index| log.write(&prediction(index)).unwrap());
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[5..]).unwrap();
        let message = Log::open(&path, &settings(1)).unwrap_err().to_string();
        assert!(message.contains("p.jsonl, line 1: was changed"), "{message}");
        std::fs::write(&path, "{\"task\": 1}\n").unwrap();
        let message = Log::open(&path, &settings(1)).unwrap_err().to_string();
        assert!(message.contains("p.jsonl, line 1: no whole prediction"), "{message}");
    }

    #[test]
    fn no_changed_byte_of_a_line_passes_and_lines_of_earlier_versions_do() {
        let object = serde_json::to_string(&prediction(3)).unwrap();
        assert_eq!(checked(&object), Ok(Cow::Borrowed(object.as_str())));
        let line = with_check(&object);
        let line = line.trim_end();
        assert_eq!(checked(line).unwrap(), object);
        for at in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] ^= 1;
            let text = String::from_utf8(bytes).unwrap();
            let Ok(object) = checked(&text) else { continue };
            // A change that hides the digest leaves the prediction as it was, or none.
            let parsed: Option<Prediction> = serde_json::from_str(&object).ok();
            assert!(parsed.is_none_or(|parsed| parsed == prediction(3)), "{text}");
        }
    }

    #[test]
    fn the_likeliest_option_depends_on_what_is_divided_by() {
        let option = |option: &str, log_likelihood, tokens| OptionScore {
            option: option.to_owned(),
            log_likelihood,
            tokens,
        };
        let options = vec![option("true", -2.0, 1), option("false", -2.2, 2)];
        let prediction = Prediction::of_options(
            named("boolq").unwrap(),
            0,
            String::new(),
            "true".to_owned(),
            options,
        );
        assert!(prediction.correct);
        assert_eq!(prediction.best(Normalisation::Tokens).unwrap(), "false");
        assert_eq!(prediction.best(Normalisation::Bytes).unwrap(), "false");
    }
}
