//! The campaign against the `ist` binary: what disturbs it, how long, and what came of it.
//!
//! | kind | what is done |
//! |---|---|
//! | `kills` | SIGKILL at random moments, again and again, until the command is done |
//! | `calls` | SIGKILL at the N-th system call of a kind |
//! | `errors` | the N-th system call of a kind fails |
//! | `full` | the disk is full, then it has room again |
//! | `damage` | a bit, a block, a line or the end of a file is lost |
//! | `bombs` | hostile files and arguments |
//!
//! After a disturbance the command is started again as a user would start it. Then everything it
//! writes is compared, byte for byte, with what an undisturbed run wrote.

mod bombs;
mod calls;
mod compare;
mod damage;
mod full;
mod hostile;
mod kills;
mod scenario;
mod tally;
mod workbench;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use scenario::Reference;
use tally::{Tally, Try};
pub(crate) use workbench::Workbench;

/// What is done to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Kills at random moments
    Kills,
    /// Kills at the N-th system call
    Calls,
    /// System calls that fail
    Errors,
    /// A full disk
    Full,
    /// Damaged files
    Damage,
    /// Hostile files and arguments
    Bombs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kills => "kills",
            Self::Calls => "calls",
            Self::Errors => "errors",
            Self::Full => "full",
            Self::Damage => "damage",
            Self::Bombs => "bombs",
        }
    }
}

/// `ist-campaign faults`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The binary
    #[arg(long)]
    ist: PathBuf,
    /// Only these kinds
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// What all random choices come from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Tries of each kind; without it and without --seconds all that can be counted, and 1000 of
    /// the others
    #[arg(long)]
    tries: Option<u64>,
    /// Seconds of each kind, after which no new try begins
    #[arg(long)]
    seconds: Option<u64>,
    /// The first try's number
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Just the try of that number, to repeat it
    #[arg(long)]
    number: Option<u64>,
    /// Tries at once
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Where the work is done and failing cases are kept
    #[arg(long, default_value = "/tmp/ist-campaign")]
    folder: PathBuf,
    /// Write all counts and failures there
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Tries of a kind without an end of its own.
const TRIES: u64 = 1000;
/// Failures that are shown of a kind.
const SHOWN: usize = 20;

/// What all kinds share.
pub(crate) struct Campaign<'a> {
    bench: &'a Workbench,
    arguments: &'a Arguments,
    references: OnceLock<Vec<Reference>>,
    counts: OnceLock<Vec<calls::Counts>>,
}

/// Runs the campaign; whether nothing failed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let all = [Kind::Kills, Kind::Calls, Kind::Errors, Kind::Full, Kind::Damage, Kind::Bombs];
    let kinds = if arguments.only.is_empty() { &all[..] } else { &arguments.only };
    println!("seed {}", arguments.seed);
    let bench = Workbench::new(&arguments.ist, &arguments.folder)?;
    let campaign =
        Campaign { bench: &bench, arguments, references: OnceLock::new(), counts: OnceLock::new() };
    let mut tallies = Vec::new();
    for kind in kinds {
        let tally = match kind {
            Kind::Kills => kills::run(&campaign),
            Kind::Calls => calls::kills(&campaign),
            Kind::Errors => calls::errors(&campaign),
            Kind::Full => full::run(&campaign),
            Kind::Damage => damage::run(&campaign),
            Kind::Bombs => bombs::run(&campaign),
        }
        .with_context(|| kind.name())?;
        print!("{}", tally.table());
        tally.failures().take(SHOWN).for_each(|failure| println!("  {failure}"));
        tallies.push(tally);
    }
    if let Some(path) = &arguments.json {
        let kinds: Vec<_> = tallies.iter().map(Tally::to_json).collect();
        let document = json!({"seed": arguments.seed, "kinds": kinds});
        std::fs::write(path, serde_json::to_string_pretty(&document)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    let failed: u64 = tallies.iter().map(Tally::failed).sum();
    let tried: u64 = tallies.iter().map(Tally::tries).sum();
    println!("{tried} tries, {failed} failures");
    Ok(failed == 0)
}

impl Campaign<'_> {
    /// All commands with their undisturbed results.
    fn references(&self) -> Result<&[Reference]> {
        if let Some(references) = self.references.get() {
            return Ok(references);
        }
        let all = scenario::ALL.iter().map(|scenario| Reference::new(self.bench, scenario));
        let all = all.collect::<Result<Vec<_>>>()?;
        Ok(self.references.get_or_init(|| all))
    }

    /// Makes one try after the other until there are enough, time is over, or `attempt` has none of
    /// that number.
    ///
    /// The folder of a try that failed is kept.
    fn tries(
        &self,
        kind: Kind,
        attempt: impl Fn(u64, &Path) -> Result<Option<Try>> + Sync,
    ) -> Result<Tally> {
        let began = Instant::now();
        let tally = Mutex::new(Tally::new(kind.name()));
        let next = AtomicU64::new(self.arguments.number.unwrap_or(self.arguments.first));
        let over = AtomicBool::new(false);
        let work = || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let folder = PathBuf::from(format!("{}-{number}", kind.name()));
                let Some(tried) = attempt(number, &folder)? else {
                    over.store(true, Ordering::Relaxed);
                    break;
                };
                if tried.faults.is_empty() && tried.folder.exists() {
                    std::fs::remove_dir_all(&tried.folder)?;
                }
                let Ok(mut tally) = tally.lock() else { bail!("another thread panicked") };
                tally.note(&tried, &self.again(kind, number));
                let enough = tally.tries() >= self.enough(kind);
                let late = self.time().is_some_and(|time| began.elapsed() >= time);
                if enough || late || self.arguments.number.is_some() {
                    over.store(true, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> =
                (0..self.arguments.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok(ended) => ended?,
                    Err(_) => bail!("a thread of the campaign panicked"),
                }
            }
            Ok(())
        })?;
        let Ok(mut tally) = tally.into_inner() else { bail!("a thread of the campaign panicked") };
        tally.took(began.elapsed().as_secs_f64());
        Ok(tally)
    }

    fn enough(&self, kind: Kind) -> u64 {
        let ends = [Kind::Calls, Kind::Errors, Kind::Bombs].contains(&kind);
        match (self.arguments.tries, self.arguments.seconds) {
            (Some(tries), _) => tries,
            (None, None) if !ends => TRIES,
            (None, _) => u64::MAX,
        }
    }

    fn time(&self) -> Option<Duration> {
        self.arguments.seconds.map(Duration::from_secs)
    }

    /// The command that repeats a try.
    fn again(&self, kind: Kind, number: u64) -> String {
        format!(
            "ist-campaign faults --ist {} --only {} --seed {} --number {number}",
            self.bench.ist.display(),
            kind.name(),
            self.arguments.seed
        )
    }
}
