//! What a command left behind, without what may differ from run to run, and how two such pictures
//! differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Keys whose values are times, bytes of memory or the machine's.
const VARYING: [&str; 6] = [
    "seconds",
    "peak_bytes",
    "time",
    "budget_bytes",
    "measured_peak_bytes",
    "predicted_to_measured",
];
/// The part of the time that scoring took, which has a common name.
const SHARE_OF_TIME: &str = "scoring";
/// Files that must be there, whatever they hold: times and bytes of memory, or digests of such.
const CONTENT_VARIES: [&str; 3] = ["costs.jsonl", "plan.json", "digests.json"];
/// Folders and files that tell how often was tried.
const LEFT_OUT: [&str; 5] = ["claims", "logs", "tensorboard", ".lock", ".manifest.lock"];

/// Files by their paths.
pub(crate) type Picture = BTreeMap<String, Vec<u8>>;

/// One difference of two pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The file is not there.
    Missing(String),
    /// The file should not be there.
    LeftOver(String),
    /// The file holds something else.
    Differs(String),
}

impl Difference {
    /// What kind of fault it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing file",
            Self::LeftOver(_) => "leftover",
            Self::Differs(_) => "different bytes",
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &str {
        match self {
            Self::Missing(name) | Self::LeftOver(name) | Self::Differs(name) => name,
        }
    }
}

/// The files below `results` of a folder.
pub(crate) fn picture(folder: &Path, results: &[&str]) -> Result<Picture> {
    let mut files = Picture::new();
    for result in results {
        add(folder, result, &mut files)?;
    }
    // What a killed process leaves beside its results.
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".tmp") || name.starts_with(".partial") {
            files.insert(name, Vec::new());
        }
    }
    Ok(files)
}

fn add(folder: &Path, name: &str, files: &mut Picture) -> Result<()> {
    let path = folder.join(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if LEFT_OUT.contains(&last) {
        return Ok(());
    }
    if path.is_dir() {
        for entry in fs::read_dir(&path)? {
            let inside = entry?.file_name().to_string_lossy().into_owned();
            add(folder, &format!("{name}/{inside}"), files)?;
        }
        // An empty folder counts as well.
        files.insert(format!("{name}/"), Vec::new());
    } else if path.exists() {
        let bytes = if CONTENT_VARIES.contains(&last) {
            Vec::new()
        } else {
            fs::read(&path).with_context(|| path.display().to_string())?
        };
        files.insert(name.to_owned(), without_varying(folder, last, &bytes));
    }
    Ok(())
}

/// The bytes of a file without times, and with `@` for the folder.
fn without_varying(folder: &Path, name: &str, bytes: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let text = text.replace(&*folder.to_string_lossy(), "@");
    let strip = |part: &str| match serde_json::from_str::<Value>(part) {
        Ok(mut value) => {
            remove_varying(&mut value);
            value.to_string()
        }
        Err(_) => part.to_owned(),
    };
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("json") => strip(&text).into_bytes(),
        Some("jsonl") => text.split('\n').map(strip).collect::<Vec<_>>().join("\n").into_bytes(),
        _ => text.into_bytes(),
    }
}

fn remove_varying(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !VARYING.contains(&key.as_str()));
            if let Some(Value::Object(scoring)) = fields.get_mut(SHARE_OF_TIME) {
                scoring.shift_remove("share");
            }
            fields.values_mut().for_each(remove_varying);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_varying),
        _ => {}
    }
}

/// The same picture with only the number of older checkpoints of each run.
///
/// A member of a study saves at the step it has reached when the study is killed. So it may keep
/// other old checkpoints than an undisturbed run. Their number and the newest one stay the same.
pub(crate) fn without_older_checkpoints(picture: Picture) -> Picture {
    let mut steps: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for name in picture.keys() {
        if let Some((run, step)) = checkpoint(name) {
            steps.entry(run.to_owned()).or_default().insert(step);
        }
    }
    let older = |name: &str| {
        let (run, step) = checkpoint(name)?;
        let place = steps[run].iter().rev().position(|other| *other == step)?;
        (place > 0).then(|| format!("{run}{CHECKPOINTS}older-{place}/"))
    };
    let rename = |(name, bytes): (String, Vec<u8>)| match older(&name) {
        Some(placeholder) => (placeholder, Vec::new()),
        None => (name, bytes),
    };
    picture.into_iter().map(rename).collect()
}

/// The run and the step of the checkpoint that a file belongs to.
fn checkpoint(name: &str) -> Option<(&str, usize)> {
    let (run, rest) = name.split_once(CHECKPOINTS)?;
    let (step, _) = rest.split_once('/')?;
    Some((run, step.parse().ok()?))
}

/// The folder of a run's checkpoints, as it stands inside a path.
const CHECKPOINTS: &str = "/checkpoints/";

/// How `found` differs from `right`.
pub(crate) fn differences(right: &Picture, found: &Picture) -> Vec<Difference> {
    let mut all = Vec::new();
    for (name, bytes) in right {
        match found.get(name) {
            None => all.push(Difference::Missing(name.clone())),
            Some(other) if other != bytes => all.push(Difference::Differs(name.clone())),
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|name| !right.contains_key(*name));
    all.extend(surplus.map(|name| Difference::LeftOver(name.clone())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Picture) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace('@', &folder.path().to_string_lossy())).unwrap();
        }
        let picture = picture(folder.path(), &["run"]).unwrap();
        (folder, picture)
    }

    #[test]
    fn times_and_places_are_no_difference_and_figures_are() {
        let log = |loss: f64, seconds: f64| format!("{{\"loss\":{loss},\"seconds\":{seconds}}}\n");
        let (_one, one) = folder(&[("run/m.jsonl", &log(1.5, 0.1)), ("run/c.toml", "a = '@/x'")]);
        let (_two, two) = folder(&[("run/m.jsonl", &log(1.5, 0.2)), ("run/c.toml", "a = '@/x'")]);
        assert_eq!(differences(&one, &two), []);
        let (_three, three) = folder(&[("run/m.jsonl", &log(1.25, 0.1)), ("run/.tmp1", "")]);
        let expected = [
            Difference::Missing("run/c.toml".to_owned()),
            Difference::Differs("run/m.jsonl".to_owned()),
            Difference::LeftOver("run/.tmp1".to_owned()),
        ];
        assert_eq!(differences(&one, &three), expected);
    }

    #[test]
    fn of_older_checkpoints_only_the_number_counts() {
        let run = |steps: &[&str]| {
            let names: Vec<String> =
                steps.iter().map(|step| format!("run/m/checkpoints/{step}/state.json")).collect();
            let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "{}")).collect();
            without_older_checkpoints(folder(&files).1)
        };
        assert_eq!(differences(&run(&["2", "10"]), &run(&["3", "10"])), []);
        assert_eq!(differences(&run(&["2", "10"]), &run(&["10"])).len(), 1);
        assert_eq!(differences(&run(&["2", "10"]), &run(&["2", "3", "10"])).len(), 1);
        assert_ne!(differences(&run(&["2", "10"]), &run(&["2", "9"])), []);
    }

    #[test]
    fn a_temporary_file_beside_the_results_is_left_over() {
        let (folder, right) = folder(&[("run/a", "1")]);
        fs::write(folder.path().join(".partial-7"), "").unwrap();
        let found = picture(folder.path(), &["run"]).unwrap();
        assert_eq!(differences(&right, &found), [Difference::LeftOver(".partial-7".to_owned())]);
    }
}
