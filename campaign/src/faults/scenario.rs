//! The commands that are disturbed: how each is started, how a user starts it again, and what it
//! leaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::compare::{self, Difference, Picture};
use super::workbench::Workbench;
use crate::process::{End, Job, Outcome};

/// One command.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// The inputs it reads.
    pub(crate) needs: &'static [&'static str],
    /// Its arguments.
    pub(crate) start: &'static [&'static str],
    /// The file that shows that there is something to continue with `--resume`.
    resumable: Option<&'static str>,
    /// What is whole as soon as it is there; the command is then not to be started again.
    whole: Option<&'static str>,
    /// What it writes.
    pub(crate) results: &'static [&'static str],
    /// Whether it starts processes of its own.
    pub(crate) has_children: bool,
}

/// Another command that is like this one, but for what is given.
const PLAIN: Scenario = Scenario {
    name: "",
    needs: &[],
    start: &[],
    resumable: None,
    whole: None,
    results: &[],
    has_children: false,
};

/// A training run.
pub(crate) const TRAIN: Scenario = Scenario {
    name: "train",
    needs: &["run.toml"],
    start: &["train", "run.toml", "--output", "run"],
    resumable: Some("run/config.toml"),
    results: &["run"],
    ..PLAIN
};

/// A study of two runs.
pub(crate) const RUN: Scenario = Scenario {
    name: "run",
    needs: &["study.toml"],
    start: &["run", "study.toml", "--output", "studies"],
    results: &["studies"],
    has_children: true,
    ..PLAIN
};

/// An evaluation that keeps its predictions.
pub(crate) const EVAL: Scenario = Scenario {
    name: "eval",
    needs: &["questions.jsonl", "adapter"],
    start: &[
        "eval",
        "--model",
        "builtin:village",
        "--adapter",
        "adapter",
        "--task",
        "exact-match",
        "--data",
        "questions.jsonl",
        "--batch",
        "1",
        "--max-new-tokens",
        "8",
        "--predictions",
        "predictions.jsonl",
    ],
    results: &["predictions.jsonl", "predictions.jsonl.settings.json"],
    ..PLAIN
};

/// A model with its adapter folded in.
pub(crate) const MERGE: Scenario = Scenario {
    name: "merge",
    needs: &["adapter"],
    start: &[
        "merge",
        "--model",
        "builtin:village",
        "--adapter",
        "adapter",
        "--output",
        "merged",
        "--quiet",
    ],
    whole: Some("merged"),
    results: &["merged"],
    ..PLAIN
};

/// An adapter for llama.cpp.
pub(crate) const GGUF: Scenario = Scenario {
    name: "convert --to gguf",
    needs: &["adapter"],
    start: &[
        "convert",
        "--adapter",
        "adapter",
        "--to",
        "gguf",
        "--model",
        "builtin:village",
        "--output",
        "adapter.gguf",
    ],
    whole: Some("adapter.gguf"),
    results: &["adapter.gguf"],
    ..PLAIN
};

/// An adapter in PEFT's form of today.
pub(crate) const PEFT: Scenario = Scenario {
    name: "convert --to peft",
    needs: &["adapter"],
    start: &["convert", "--adapter", "adapter", "--to", "peft", "--output", "converted"],
    whole: Some("converted"),
    results: &["converted"],
    ..PLAIN
};

/// A run's report.
pub(crate) const REPORT: Scenario = Scenario {
    name: "report",
    needs: &["run"],
    start: &[
        "report",
        "run",
        "--output",
        "report.html",
        "--csv",
        "report.csv",
        "--curves",
        "curves.csv",
        "--markdown",
        "report.md",
    ],
    results: &["report.html", "report.csv", "curves.csv", "report.md"],
    ..PLAIN
};

/// A model from scratch.
pub(crate) const PRETRAIN: Scenario = Scenario {
    name: "pretrain",
    needs: &["pretrain.toml", "text.txt"],
    start: &["pretrain", "pretrain.toml"],
    whole: Some("model"),
    results: &["model"],
    ..PLAIN
};

/// Every command that writes files.
pub(crate) const ALL: [&Scenario; 8] =
    [&TRAIN, &RUN, &EVAL, &MERGE, &GGUF, &PEFT, &REPORT, &PRETRAIN];

/// Starts after which a command that nothing disturbs must be done.
const STARTS: usize = 3;

impl Scenario {
    /// The command as it is started first.
    pub(crate) fn first(&self, bench: &Workbench, folder: &Path) -> Job {
        bench.job(self.start, folder)
    }

    /// The command as a user starts it again; `None` where its result is there.
    pub(crate) fn again(&self, bench: &Workbench, folder: &Path) -> Option<Job> {
        if self.whole.is_some_and(|whole| folder.join(whole).exists()) {
            return None;
        }
        let mut arguments = self.start.to_vec();
        if self.resumable.is_some_and(|file| folder.join(file).exists()) {
            arguments.push("--resume");
        }
        Some(bench.job(&arguments, folder))
    }

    /// A fresh folder with its inputs.
    pub(crate) fn folder(&self, bench: &Workbench, name: &str) -> Result<PathBuf> {
        bench.folder(name, self.needs)
    }

    /// Starts it again, undisturbed, until it is done; what is wrong then.
    pub(crate) fn finish(
        &self,
        bench: &Workbench,
        folder: &Path,
        right: &Picture,
    ) -> Result<Vec<(&'static str, String)>> {
        for start in 1..=STARTS {
            let Some(job) = self.again(bench, folder) else { break };
            let outcome = job.run()?;
            if outcome.end == End::Code(0) && outcome.fault().is_none() {
                break;
            }
            let last = start == STARTS;
            if let Some(fault) = outcome.fault() {
                return Ok(vec![(fault, format!("after the restart: {}", outcome.shown()))]);
            }
            // A study that counts a killed member as failed tries it again at the next start.
            if last || !self.has_children {
                return Ok(vec![("not restarted", outcome.shown())]);
            }
        }
        self.compare(folder, right)
    }

    /// What it left in a folder.
    fn picture(&self, folder: &Path) -> Result<Picture> {
        let picture = compare::picture(folder, self.results)?;
        Ok(if self.has_children { compare::without_older_checkpoints(picture) } else { picture })
    }

    /// How the results in a folder differ from the right ones.
    pub(crate) fn compare(
        &self,
        folder: &Path,
        right: &Picture,
    ) -> Result<Vec<(&'static str, String)>> {
        let found = self.picture(folder)?;
        let fault = |difference: &Difference| (difference.kind(), difference.file().to_owned());
        Ok(compare::differences(right, &found).iter().map(fault).collect())
    }
}

/// A command with its undisturbed result.
#[derive(Debug)]
pub(crate) struct Reference {
    /// The command.
    pub(crate) scenario: &'static Scenario,
    /// What it leaves.
    pub(crate) right: Picture,
    /// How long it takes.
    pub(crate) took: Duration,
}

impl Reference {
    /// Runs a command undisturbed, twice: what differs then cannot be compared.
    pub(crate) fn new(bench: &Workbench, scenario: &'static Scenario) -> Result<Self> {
        let run = || -> Result<(Outcome, Picture)> {
            let folder = scenario.folder(bench, "reference")?;
            let outcome = scenario.first(bench, &folder).run()?;
            let done = outcome.end == End::Code(0);
            ensure!(done, "ist {}: {}", scenario.start.join(" "), outcome.shown());
            Ok((outcome, scenario.picture(&folder)?))
        };
        let (outcome, right) = run()?;
        let (_, again) = run()?;
        let differences = compare::differences(&right, &again);
        ensure!(
            differences.is_empty(),
            "two undisturbed runs of `ist {}` differ: {differences:?}",
            scenario.start.join(" ")
        );
        Ok(Self { scenario, right, took: outcome.took })
    }
}
