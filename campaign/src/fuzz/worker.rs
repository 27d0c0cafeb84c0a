//! The process that executes a target: it reads the cases as they are, then their mutations, and
//! keeps what goes wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ist_experiments::machine::live_bytes;
use serde_json::json;

use super::cases::{self, Cases, Files};
use super::named;
use super::targets::{Target, World};
use crate::process::processor_time;

/// `ist-campaign worker`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    target: String,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    from: u64,
    #[arg(long)]
    until: u64,
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long)]
    corpus: PathBuf,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    found: PathBuf,
}

/// How often a fault was seen.
struct Seen {
    count: u64,
    first: u64,
}

/// The exit code of a worker that ended itself because an execution does not end.
pub(crate) const HANGS: i32 = 97;
/// The processor's time of an execution after which it counts as hanging.
const TIME: Duration = Duration::from_secs(10);
/// The time of an execution that may be waiting for the processor.
const STILL: Duration = Duration::from_mins(2);
/// Bytes that an execution may allocate at most beyond those that were live.
const MEMORY: usize = 512 << 20;
/// The file in which the number in progress stands.
const NUMBER: &str = "number";

/// The last panic, by what it said and where.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Executes the numbers and prints a summary as JSON.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    panic::set_hook(Box::new(|information| {
        let place = information.location().map(ToString::to_string).unwrap_or_default();
        // From the crate's folder on, wherever that lies.
        let place = place.rsplit_once("/src/").map_or(place.as_str(), |(before, _)| {
            &place[before.rfind('/').map_or(0, |at| at + 1)..]
        });
        let said = information.payload_as_str().unwrap_or_default();
        // The same panic says something else of every input.
        let said = said.split(|c: char| c.is_ascii_digit() || "(\"'`".contains(c)).next();
        let what = format!("panic at {place}: {}", said.unwrap_or_default().trim());
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }));
    let target = named(&arguments.target)?;
    let cases = Cases::open(&arguments.corpus, target)?;
    let world = World::new(&arguments.corpus)?;
    let mut bench = Bench::new(&arguments.folder, target, &cases)?;
    let watched = watch();
    let number_file = File::create(arguments.folder.join(NUMBER))?;
    let began = Instant::now();
    let mut faults: BTreeMap<String, Seen> = BTreeMap::new();
    let mut executions = 0;
    for number in arguments.from..arguments.until {
        if arguments.seconds.is_some_and(|seconds| began.elapsed().as_secs_f64() >= seconds) {
            break;
        }
        let input = cases.input(arguments.seed, number);
        let folder = bench.lay(input.case, &input.changed)?;
        number_file.write_all_at(&number.to_le_bytes(), 0)?;
        watched.store(number + 1, Ordering::Relaxed);
        let fault = execute(target, &world, &folder);
        watched.store(0, Ordering::Relaxed);
        executions += 1;
        if let Some(what) = fault {
            let seen = faults.entry(what).or_insert(Seen { count: 0, first: number });
            seen.count += 1;
            if seen.count == 1 {
                cases.keep_in(&arguments.found, target, arguments.seed, number)?;
            }
        }
    }
    let faults: Vec<_> = faults
        .iter()
        .map(|(what, seen)| json!({"what": what, "count": seen.count, "first": seen.first}))
        .collect();
    println!("{}", json!({"executions": executions, "faults": faults}));
    Ok(())
}

/// Executes a target once; what is wrong, if anything is.
fn execute(target: &Target, world: &World, folder: &Path) -> Option<String> {
    live_bytes::reset_peak();
    let before = live_bytes::live();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.read)(world, folder)));
    let more = live_bytes::peak().saturating_sub(before);
    if result.is_err() {
        let mut last = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        return Some(last.take().unwrap_or_else(|| "panic".to_owned()));
    }
    (more > MEMORY).then(|| "memory beyond the bound".to_owned())
}

/// Watches that executions end; the number in progress plus one, or 0, is told through what comes
/// back.
fn watch() -> Arc<AtomicU64> {
    let watched = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&watched);
    let own = std::process::id();
    std::thread::spawn(move || {
        let mut since = Instant::now();
        let mut used = processor_time(own);
        let mut last = 0;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = seen.load(Ordering::Relaxed);
            if now != last || now == 0 {
                last = now;
                since = Instant::now();
                used = processor_time(own);
            } else if since.elapsed() > STILL || processor_time(own).saturating_sub(used) > TIME {
                std::process::exit(HANGS);
            }
        }
    });
    watched
}

/// The number that a worker had begun last.
pub(crate) fn last_number(folder: &Path) -> Result<Option<u64>> {
    let path = folder.join(NUMBER);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(bytes.try_into().ok().map(u64::from_le_bytes))
}

/// The folders in which cases lie while they are read. Of a target that only reads, each case keeps
/// its folder, and only files that were changed are written again.
struct Bench<'a> {
    root: PathBuf,
    target: &'a Target,
    cases: &'a Cases,
    changed: Option<(usize, Files)>,
    laid: Vec<bool>,
}

impl<'a> Bench<'a> {
    fn new(root: &Path, target: &'a Target, cases: &'a Cases) -> Result<Self> {
        std::fs::create_dir_all(root)?;
        let laid = cases.whole().map(|_| false).collect();
        Ok(Self { root: root.to_owned(), target, cases, changed: None, laid })
    }

    /// Puts a case with its changes where it can be read; the folder.
    fn lay(&mut self, case: usize, changed: &Files) -> Result<PathBuf> {
        let folder = self.root.join(case.to_string());
        if self.target.writes {
            if self.laid[case] {
                std::fs::remove_dir_all(&folder)?;
            }
            cases::write(&folder, self.cases.files(case))?;
        } else {
            if let Some((before, files)) = self.changed.take() {
                self.restore(before, &files)?;
            }
            if !self.laid[case] {
                cases::write(&folder, self.cases.files(case))?;
            }
            self.changed = Some((case, changed.clone()));
        }
        self.laid[case] = true;
        cases::write(&folder, changed)?;
        Ok(folder)
    }

    fn restore(&self, case: usize, changed: &Files) -> Result<()> {
        let is_changed = |name: &String| changed.iter().any(|(other, _)| other == name);
        let whole = self.cases.files(case).iter().filter(|(name, _)| is_changed(name));
        cases::write(&self.root.join(case.to_string()), &whole.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::super::{corpus, targets};
    use super::*;

    /// Held by whoever looks at the bytes of the whole process.
    static ALONE: Mutex<()> = Mutex::new(());

    /// What was found once is a case, and so it is read here.
    #[test]
    fn no_case_of_the_corpus_panics_or_floods_the_memory() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = Path::new(corpus::FOLDER);
        let world = World::new(root).unwrap();
        for target in &targets::ALL {
            let cases = Cases::open(root, target).unwrap();
            for (name, files) in cases.whole() {
                let folder = tempfile::tempdir().unwrap();
                cases::write(folder.path(), files).unwrap();
                let fault = execute(target, &world, folder.path());
                assert_eq!(fault, None, "{}: {name}", target.name);
            }
        }
    }

    #[test]
    fn a_panic_is_a_fault_and_an_error_is_none() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = Path::new(corpus::FOLDER);
        let world = World::new(root).unwrap();
        let target = |read| Target { name: "test", corpus: "test", read, writes: false };
        let panics = target(|_, _| panic!("on purpose"));
        assert!(execute(&panics, &world, Path::new("/")).is_some());
        let floods = target(|_, _| drop(std::hint::black_box(vec![1u8; MEMORY + 1])));
        assert_eq!(execute(&floods, &world, Path::new("/")).unwrap(), "memory beyond the bound");
        assert_eq!(execute(&target(|_, _| ()), &world, Path::new("/")), None);
    }

    #[test]
    fn a_case_is_whole_again_after_its_mutation() {
        let root = Path::new(corpus::FOLDER);
        let target = named("adapter").unwrap();
        let cases = Cases::open(root, target).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(scratch.path(), target, &cases).unwrap();
        for number in 0..50 {
            let input = cases.input(1, number);
            let folder = bench.lay(input.case, &input.changed).unwrap();
            for (name, whole) in cases.files(input.case) {
                let changed = input.changed.iter().find(|(other, _)| other == name);
                let expected = changed.map_or(whole, |(_, bytes)| bytes);
                assert!(&std::fs::read(folder.join(name)).unwrap() == expected, "{name}");
            }
        }
    }
}
