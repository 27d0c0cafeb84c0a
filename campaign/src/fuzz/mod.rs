//! Fuzzing on the stable compiler: mutated files for the reader of every format, in a process of
//! its own.
//!
//! Execution number I of a target mutates a case of the corpus as the seed, the target and I
//! decide, so that every execution can be repeated without a record of what came before. A worker
//! process executes a range of numbers. It catches panics and goes on. When it dies or hangs, its
//! last number is the culprit, and the next worker continues behind it. What was found is kept as a
//! folder that can be moved into the corpus.

mod cases;
pub(crate) mod corpus;
mod mutate;
mod targets;
pub(crate) mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::process::{End, Job, Outcome, beginning};
use cases::Cases;
use targets::Target;

/// `ist-campaign fuzz`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// The targets; without one, all
    targets: Vec<String>,
    /// List the targets
    #[arg(long)]
    list: bool,
    /// What all mutations come from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Executions of each target
    #[arg(long, default_value_t = 10_000)]
    tries: u64,
    /// Seconds of each target, after which it ends
    #[arg(long)]
    seconds: Option<u64>,
    /// The first execution's number; with --tries 1 it repeats one
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Processes at once for each target
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// The seeds
    #[arg(long, default_value = corpus::FOLDER)]
    corpus: PathBuf,
    /// Where files are mutated; a file system in memory is fastest
    #[arg(long, default_value = "/dev/shm/ist-fuzz")]
    folder: PathBuf,
    /// Where inputs that were found are kept
    #[arg(long, default_value = "/tmp/ist-campaign/found")]
    found: PathBuf,
    /// Write all counts there
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Address space of a worker, beyond which an allocation fails.
const ADDRESS_SPACE: u64 = 6 << 30;
/// Deaths of workers after which a target is left.
const DEATHS: u64 = 25;
/// Longer than any worker lives.
const FOREVER: Duration = Duration::from_hours(24 * 30);

/// What came of a target.
#[derive(Debug, Default)]
struct Found {
    executions: u64,
    seconds: f64,
    /// How often what was seen.
    faults: BTreeMap<String, u64>,
    /// A command that repeats each.
    again: BTreeMap<String, String>,
    given_up: bool,
}

/// Fuzzes; whether nothing was found.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for target in targets::ALL {
            println!("{}", target.name);
        }
        return Ok(true);
    }
    let chosen = chosen(&arguments.targets)?;
    println!("seed {}", arguments.seed);
    let mut documents = Vec::new();
    let mut clean = true;
    for target in chosen {
        let found = fuzz(arguments, target).with_context(|| target.name)?;
        println!("{}", found.line(target.name));
        for (what, again) in &found.again {
            println!("  {} x {what}\n    {again}", found.faults[what]);
        }
        clean &= found.faults.is_empty();
        documents.push(found.to_json(target.name));
    }
    if let Some(path) = &arguments.json {
        let document = json!({"seed": arguments.seed, "targets": documents});
        std::fs::write(path, serde_json::to_string_pretty(&document)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    Ok(clean)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(targets::ALL.iter().collect());
    }
    names.iter().map(|name| named(name)).collect()
}

/// The target of that name.
fn named(name: &str) -> Result<&'static Target> {
    targets::ALL.iter().find(|target| target.name == name).with_context(|| {
        let all: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        format!("no target {name}; there are {}", all.join(", "))
    })
}

/// Fuzzes one target with as many processes as asked for.
fn fuzz(arguments: &Arguments, target: &'static Target) -> Result<Found> {
    let began = Instant::now();
    let jobs = arguments.jobs.max(1);
    let share = arguments.tries.div_ceil(jobs);
    let parts = (0..jobs).map(|job| {
        let from = arguments.first + job * share;
        let until = (from + share).min(arguments.first + arguments.tries);
        (job, from, until)
    });
    let all: Vec<Result<Found>> = std::thread::scope(|scope| {
        let part =
            |(job, from, until)| scope.spawn(move || part(arguments, target, job, from, until));
        let threads: Vec<_> = parts.map(part).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")));
        joined.collect()
    });
    let mut sum = Found::default();
    for found in all {
        sum.add(found?);
    }
    sum.seconds = began.elapsed().as_secs_f64();
    Ok(sum)
}

/// Executes a range of numbers, with a new worker after each that dies.
fn part(
    arguments: &Arguments,
    target: &'static Target,
    job: u64,
    from: u64,
    until: u64,
) -> Result<Found> {
    let began = Instant::now();
    let scratch = arguments.folder.join(format!("{}-{}-{job}", target.name, std::process::id()));
    let mut found = Found::default();
    let mut next = from;
    let mut deaths = 0;
    while next < until {
        let left = arguments.seconds.map(|seconds| {
            Duration::from_secs(seconds).saturating_sub(began.elapsed()).as_secs_f64()
        });
        if left.is_some_and(|left| left <= 0.0) {
            break;
        }
        std::fs::create_dir_all(&scratch)?;
        let outcome = worker(arguments, target, &scratch, next, until, left)?;
        let last = worker::last_number(&scratch)?;
        let summary = serde_json::from_str::<Value>(&outcome.stdout);
        if let (End::Code(0), Ok(summary)) = (outcome.end, summary) {
            found.take(&summary, arguments, target);
            next = until;
        } else {
            let Some(last) = last else {
                bail!("the worker did not begin: {}", outcome.shown());
            };
            found.executions += last + 1 - next;
            found.note(death(&outcome), arguments, target, last);
            Cases::open(&arguments.corpus, target)?.keep(arguments, target, last)?;
            next = last + 1;
            deaths += 1;
        }
        std::fs::remove_dir_all(&scratch)?;
        if deaths == DEATHS {
            found.given_up = true;
            break;
        }
    }
    Ok(found)
}

fn worker(
    arguments: &Arguments,
    target: &Target,
    scratch: &Path,
    from: u64,
    until: u64,
    seconds: Option<f64>,
) -> Result<Outcome> {
    let mut words: Vec<String> = ["worker", target.name].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("seed", arguments.seed.to_string());
    option("from", from.to_string());
    option("until", until.to_string());
    option("corpus", arguments.corpus.display().to_string());
    option("folder", scratch.display().to_string());
    option("found", arguments.found.display().to_string());
    if let Some(seconds) = seconds {
        option("seconds", seconds.to_string());
    }
    let program = std::env::current_exe()?;
    let job = Job::new(&program, &words, Path::new("."));
    job.with_address_space(ADDRESS_SPACE).within(FOREVER).run()
}

/// What killed a worker.
fn death(outcome: &Outcome) -> String {
    let said = outcome.stderr.trim();
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match outcome.end {
        End::Code(worker::HANGS) => "hang".to_owned(),
        End::Code(code) => format!("exit code {code}: {}", beginning(said)),
        End::Signal(signal) => format!("signal {signal}: {}", beginning(said)),
        End::TooLong => "no end".to_owned(),
    }
}

/// The command that repeats an execution.
fn again(arguments: &Arguments, target: &Target, number: u64) -> String {
    let seed = arguments.seed;
    format!("ist-campaign fuzz {} --seed {seed} --first {number} --tries 1", target.name)
}

impl Found {
    /// Takes the summary of a worker that came to its end.
    fn take(&mut self, summary: &Value, arguments: &Arguments, target: &Target) {
        self.executions += summary["executions"].as_u64().unwrap_or_default();
        for fault in summary["faults"].as_array().into_iter().flatten() {
            let what = fault["what"].as_str().unwrap_or_default().to_owned();
            *self.faults.entry(what.clone()).or_default() += fault["count"].as_u64().unwrap_or(1);
            let number = fault["first"].as_u64().unwrap_or_default();
            self.again.entry(what).or_insert_with(|| again(arguments, target, number));
        }
    }

    fn note(&mut self, what: String, arguments: &Arguments, target: &Target, number: u64) {
        *self.faults.entry(what.clone()).or_default() += 1;
        self.again.entry(what).or_insert_with(|| again(arguments, target, number));
    }

    fn add(&mut self, other: Self) {
        self.executions += other.executions;
        self.given_up |= other.given_up;
        for (what, count) in other.faults {
            *self.faults.entry(what).or_default() += count;
        }
        for (what, again) in other.again {
            self.again.entry(what).or_insert(again);
        }
    }

    fn line(&self, name: &str) -> String {
        let rate = self.executions as f64 / self.seconds.max(1e-9);
        let failures: u64 = self.faults.values().sum();
        let kinds = self.faults.len();
        let end = if self.given_up { "; given up after many deaths" } else { "" };
        format!(
            "{name:<16} {:>10} executions, {rate:>7.0} a second, {failures} failures of {kinds} \
             kinds{end}",
            self.executions,
        )
    }

    fn to_json(&self, name: &str) -> Value {
        let faults = self.faults.iter().map(
            |(what, count)| json!({"what": what, "count": count, "again": self.again.get(what)}),
        );
        json!({
            "target": name,
            "executions": self.executions,
            "seconds": self.seconds,
            "given_up": self.given_up,
            "faults": faults.collect::<Vec<_>>(),
        })
    }
}
