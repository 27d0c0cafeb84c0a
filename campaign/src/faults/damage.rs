//! Damaged files: a bit, a block, a line or an end is lost, and then the file is used.
//!
//! What a run wrote for itself must be used rightly or refused with its name. A file from outside,
//! such as an adapter for `ist score`, may be another valid input after the damage: then only the
//! way it ends is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::compare::{self, Difference, Picture};
use super::tally::{Tally, Try};
use super::workbench::{Workbench, copy};
use super::{Campaign, Kind, scenario};
use crate::dice::Dice;
use crate::process::{End, Outcome, beginning};

/// Files that are damaged, and the command that then uses them.
struct Patient {
    name: &'static str,
    needs: &'static [&'static str],
    /// Inputs under another name than in the workbench.
    renamed: &'static [(&'static str, &'static str)],
    damaged: &'static [&'static str],
    arguments: &'static [&'static str],
    results: &'static [&'static str],
    /// Whether the files are the run's own, so that no damage may change a result.
    own: bool,
    /// Whether a run is made of the inputs first, and killed.
    half_a_run: bool,
}

const RESUME: &[&str] = &["train", "run.toml", "--output", "run", "--resume"];
const RUN: &[&str] = &["run.toml"];
const LOCAL: &[&str] = &["local.toml", "train.jsonl", "questions.jsonl"];

const PATIENTS: [Patient; 10] = [
    Patient {
        name: "half a run, train --resume",
        needs: RUN,
        renamed: &[("half", "run")],
        damaged: &["run"],
        arguments: RESUME,
        results: &["run"],
        own: true,
        half_a_run: false,
    },
    Patient {
        name: "inputs of half a run, train --resume",
        needs: LOCAL,
        renamed: &[],
        damaged: LOCAL,
        arguments: &["train", "local.toml", "--output", "run", "--resume"],
        results: &["run"],
        own: true,
        half_a_run: true,
    },
    Patient {
        name: "a whole run, train --resume",
        needs: &["run.toml", "run"],
        renamed: &[],
        damaged: &["run"],
        arguments: RESUME,
        results: &["run"],
        own: true,
        half_a_run: false,
    },
    Patient {
        name: "a whole run, report",
        needs: &["run"],
        renamed: &[],
        damaged: &["run"],
        arguments: scenario::REPORT.start,
        results: scenario::REPORT.results,
        own: true,
        half_a_run: false,
    },
    Patient {
        name: "a study, run",
        needs: &["study.toml", "studies"],
        renamed: &[],
        damaged: &["studies"],
        arguments: scenario::RUN.start,
        results: scenario::RUN.results,
        own: true,
        half_a_run: false,
    },
    Patient {
        name: "predictions, eval",
        needs: &["questions.jsonl", "adapter"],
        renamed: &[
            ("half-predictions.jsonl", "predictions.jsonl"),
            ("half-predictions.jsonl.settings.json", "predictions.jsonl.settings.json"),
        ],
        damaged: &["predictions.jsonl", "predictions.jsonl.settings.json"],
        arguments: scenario::EVAL.start,
        results: scenario::EVAL.results,
        own: true,
        half_a_run: false,
    },
    Patient {
        name: "an adapter, score",
        needs: &["train.jsonl", "adapter"],
        renamed: &[],
        damaged: &["adapter"],
        arguments: &[
            "score",
            "--model",
            "builtin:village",
            "--adapter",
            "adapter",
            "--tokens",
            "train.jsonl",
        ],
        results: &[],
        own: false,
        half_a_run: false,
    },
    Patient {
        name: "an adapter, merge",
        needs: &["adapter"],
        renamed: &[],
        damaged: &["adapter"],
        arguments: scenario::MERGE.start,
        results: &["merged"],
        own: false,
        half_a_run: false,
    },
    Patient {
        name: "a model, generate",
        needs: &["model"],
        renamed: &[],
        damaged: &["model"],
        arguments: &[
            "generate",
            "--model",
            "model",
            "--prompt",
            "Mira eats",
            "--max-new-tokens",
            "4",
            "--json",
        ],
        results: &[],
        own: false,
        half_a_run: false,
    },
    Patient {
        name: "inputs, train",
        needs: LOCAL,
        renamed: &[],
        damaged: LOCAL,
        arguments: &["train", "local.toml", "--output", "run"],
        results: &["run"],
        own: false,
        half_a_run: false,
    },
];

/// Lines of predictions that are there before the evaluation continues.
const KNOWN: usize = 4;

/// Damages files.
pub(super) fn run(campaign: &Campaign) -> Result<Tally> {
    let bench = campaign.bench;
    half_an_evaluation(bench)?;
    let mut rights = Vec::new();
    for patient in &PATIENTS {
        let folder = patient.folder(bench, "reference")?;
        let outcome = bench.job(patient.arguments, &folder).run()?;
        ensure!(outcome.end == End::Code(0), "{}: {}", patient.name, outcome.shown());
        rights.push(patient.picture(&folder, &outcome)?);
    }
    campaign.tries(Kind::Damage, |number, name| {
        let at = number as usize % PATIENTS.len();
        let mut dice = Dice::new(campaign.arguments.seed, "damage", number);
        let name = name.to_string_lossy();
        attempt(bench, &PATIENTS[at], &rights[at], &mut dice, &name).map(Some)
    })
}

/// `half-predictions.jsonl`: an evaluation that was killed.
fn half_an_evaluation(bench: &Workbench) -> Result<()> {
    let folder = scenario::EVAL.folder(bench, "reference")?;
    let outcome = scenario::EVAL.first(bench, &folder).run()?;
    ensure!(outcome.end == End::Code(0), "eval: {}", outcome.shown());
    let inputs = bench.inputs();
    let text = fs::read_to_string(folder.join("predictions.jsonl"))?;
    let half: String = text.split_inclusive('\n').take(KNOWN).collect();
    fs::write(inputs.join("half-predictions.jsonl"), half)?;
    let settings = "predictions.jsonl.settings.json";
    copy(&folder.join(settings), &inputs.join(format!("half-{settings}")))
}

fn attempt(
    bench: &Workbench,
    patient: &Patient,
    right: &Picture,
    dice: &mut Dice,
    name: &str,
) -> Result<Try> {
    let folder = patient.folder(bench, name)?;
    let mut files = Vec::new();
    for damaged in patient.damaged {
        list(&folder, damaged, &mut files)?;
    }
    files.sort();
    let file = dice.pick(&files).clone();
    let path = folder.join(&file);
    let whole = fs::read(&path)?;
    let (kind, bytes) = damage(&whole, dice);
    fs::write(&path, &bytes)?;
    let outcome = bench.job(patient.arguments, &folder).run()?;
    let damaged = Damaged { file: &file, bytes: &bytes };
    let (outcome, faults) = judge(patient, right, &folder, &damaged, &outcome)?;
    let label = |(fault, what)| (fault, format!("{kind} in {file}: {what}"));
    let faults = faults.into_iter().map(label).collect();
    let case = format!("{}: {}", patient.name, without_numbers(&file));
    Ok(Try { case, count: 1, outcome: outcome.to_owned(), faults, folder })
}

/// The file that was damaged, and what it then held.
struct Damaged<'a> {
    file: &'a str,
    bytes: &'a [u8],
}

impl Damaged<'_> {
    /// Whether a difference is the damage itself, which nothing read or wrote.
    fn lies_as_it_was(&self, folder: &Path, difference: &Difference) -> bool {
        let same = |bytes: Vec<u8>| bytes == self.bytes;
        difference.file() == self.file && fs::read(folder.join(self.file)).is_ok_and(same)
    }

    /// Whether a message names the file, or the one that it tells of.
    fn is_named_in(&self, message: &str) -> bool {
        let last = self.file.rsplit('/').next().unwrap_or(self.file);
        message.contains(last.strip_suffix(".settings.json").unwrap_or(last))
    }
}

type Judgement = (&'static str, Vec<(&'static str, String)>);

fn judge(
    patient: &Patient,
    right: &Picture,
    folder: &Path,
    damaged: &Damaged,
    outcome: &Outcome,
) -> Result<Judgement> {
    if let Some(fault) = outcome.fault() {
        return Ok((fault, vec![(fault, outcome.shown())]));
    }
    if outcome.end == End::Code(0) {
        let found = patient.picture(folder, outcome)?;
        let mut differences = compare::differences(right, &found);
        // A broken checkpoint is kept under another name.
        differences.retain(|difference| !is_set_aside(difference));
        return Ok(match (differences.as_slice(), patient.own) {
            ([], _) => ("right", Vec::new()),
            ([only], _) if damaged.lies_as_it_was(folder, only) => ("not used", Vec::new()),
            (_, false) => ("another input", Vec::new()),
            (all, true) => {
                let files: Vec<&str> = all.iter().map(Difference::file).collect();
                let said = beginning(&outcome.stderr);
                let what = format!("{} differ; it said: {said}", files.join(", "));
                ("silent difference", vec![("silent difference", what)])
            }
        });
    }
    if !damaged.is_named_in(&outcome.stderr) {
        return Ok(("refused", vec![("not named", outcome.shown())]));
    }
    Ok((if outcome.end == End::Code(2) { "refused" } else { "refused with 1" }, Vec::new()))
}

fn is_set_aside(difference: &Difference) -> bool {
    matches!(difference, Difference::LeftOver(name) if name.contains("/broken-"))
}

impl Patient {
    fn folder(&self, bench: &Workbench, name: &str) -> Result<PathBuf> {
        let folder = bench.folder(name, self.needs)?;
        for (from, to) in self.renamed {
            copy(&bench.inputs().join(from), &folder.join(to))?;
        }
        if self.half_a_run {
            bench.half_a_run(&folder, "local.toml", "run")?;
        }
        Ok(folder)
    }

    /// What the command wrote, stdout included.
    fn picture(&self, folder: &Path, outcome: &Outcome) -> Result<Picture> {
        let mut picture = compare::picture(folder, self.results)?;
        picture.insert("stdout".to_owned(), outcome.stdout.clone().into_bytes());
        Ok(picture)
    }
}

/// The files below `name` of a folder that hold anything.
fn list(folder: &Path, name: &str, files: &mut Vec<String>) -> Result<()> {
    let path = folder.join(name);
    if path.is_dir() {
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let inside = entry?.file_name().to_string_lossy().into_owned();
            list(folder, &format!("{name}/{inside}"), files)?;
        }
        return Ok(());
    }
    if !path.is_file() {
        bail!("{}: is not there to be damaged", path.display());
    }
    if path.metadata()?.len() > 0 {
        files.push(name.to_owned());
    }
    Ok(())
}

/// Damages bytes, of which there must be one; what was done to them.
fn damage(whole: &[u8], dice: &mut Dice) -> (String, Vec<u8>) {
    let mut bytes = whole.to_vec();
    let at = dice.below(bytes.len());
    match dice.below(10) {
        0 => {
            bytes.truncate(at);
            (format!("end at {at}"), bytes)
        }
        1 | 2 => {
            let end = (at + 1 + dice.below(512)).min(bytes.len());
            bytes[at..end].fill(0);
            (format!("zeros from {at} to {end}"), bytes)
        }
        3 => {
            let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
            let lost = dice.below(lines.len());
            let kept = lines.iter().enumerate().filter(|(line, _)| *line != lost);
            (format!("line {} lost", lost + 1), kept.flat_map(|(_, line)| line.to_vec()).collect())
        }
        _ => {
            let bit = dice.below(8);
            bytes[at] ^= 1 << bit;
            (format!("bit {bit} of byte {at} flipped"), bytes)
        }
    }
}

/// A path with N for what is a number, such as a checkpoint's.
fn without_numbers(path: &str) -> String {
    let part = |part: &str| {
        let number = part.chars().all(|c| c.is_ascii_digit());
        if number { "N".to_owned() } else { part.to_owned() }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_changes_the_bytes_and_says_what_it_did() {
        let whole = b"one\ntwo\nthree\n";
        for number in 0..200 {
            let mut dice = Dice::new(1, "test", number);
            let (kind, bytes) = damage(whole, &mut dice);
            assert!(bytes != whole, "{kind}");
        }
    }
}
