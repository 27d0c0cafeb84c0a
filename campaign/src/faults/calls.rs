//! Kills at, and failures of, the N-th system call of a kind, with strace.
//!
//! strace counts the calls of each thread by itself, so the N-th is the N-th of the first thread
//! that gets so far.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::scenario::Reference;
use super::tally::{Tally, Try};
use super::{Campaign, Kind};
use crate::dice::shuffled;
use crate::process::{End, Outcome};

/// Calls that change files, or that open or lock them.
const CHANGING: [&str; 18] = [
    "openat",
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "ftruncate",
    "flock",
    "fchmod",
    "chmod",
    "linkat",
];
/// Calls that may fail while a program only reads.
const READING: [&str; 4] = ["read", "pread64", "getdents64", "statx"];

/// How often the thread that calls it most calls each system call.
pub(super) type Counts = BTreeMap<String, usize>;

/// The errors that are tried of a call.
fn errors_of(call: &str) -> &'static [&'static str] {
    match call {
        "openat" => &["EMFILE", "EACCES", "EIO", "ENOSPC", "EINTR"],
        "write" | "pwrite64" => &["ENOSPC", "EIO", "EINTR"],
        "fsync" | "fdatasync" => &["EIO", "ENOSPC", "EINTR"],
        "ftruncate" | "read" | "pread64" => &["EIO", "EINTR"],
        "flock" => &["EINTR", "ENOLCK"],
        "getdents64" => &["EIO"],
        "statx" => &["EIO", "EACCES"],
        _ => &["EIO", "ENOSPC", "EACCES"],
    }
}

/// One call that is hit.
#[derive(Clone, Debug)]
struct Hit {
    reference: usize,
    call: String,
    nth: usize,
}

/// How a call fails.
struct Failure<'a> {
    hit: &'a Hit,
    error: &'static str,
    /// Whether all later calls fail as well.
    lasts: bool,
}

/// The failures that are tried of a call. One that is interrupted for ever is tried for ever, and
/// rightly so.
fn failures_of(hit: &Hit) -> impl Iterator<Item = Failure<'_>> {
    let lasting = |error: &'static str| [false, true].map(|lasts| Failure { hit, error, lasts });
    let all = errors_of(&hit.call).iter().flat_map(move |error| lasting(error));
    all.filter(|failure| !(failure.lasts && failure.error == "EINTR"))
}

/// Kills at the N-th call.
pub(super) fn kills(campaign: &Campaign) -> Result<Tally> {
    if let Some(why) = no_strace(campaign)? {
        return Ok(Tally::skipped(Kind::Calls.name(), why));
    }
    let references = campaign.references()?;
    let hits = hits(campaign, &CHANGING, "calls")?;
    campaign.tries(Kind::Calls, |number, name| {
        let Some(hit) = hits.get(number as usize) else { return Ok(None) };
        let reference = &references[hit.reference];
        let inject = format!("{}:signal=SIGKILL:when={}", hit.call, hit.nth);
        let name = name.to_string_lossy();
        let (folder, outcome) = disturbed(campaign, reference, &hit.call, &inject, &name)?;
        let mut faults: Vec<_> =
            outcome.fault().map(|fault| (fault, outcome.shown())).into_iter().collect();
        if outcome.end == End::Signal(KILLED) {
            faults.clear();
        }
        if faults.is_empty() {
            faults = reference.scenario.finish(campaign.bench, &folder, &reference.right)?;
        }
        label(&mut faults, &inject);
        let outcome = if outcome.end == End::Signal(KILLED) { "killed" } else { "not reached" };
        let case = format!("{} at {}", reference.scenario.name, hit.call);
        Ok(Some(Try { case, count: 1, outcome: outcome.to_owned(), faults, folder }))
    })
}

/// SIGKILL.
const KILLED: i32 = 9;

/// Failures of the N-th call, or of all from the N-th on.
pub(super) fn errors(campaign: &Campaign) -> Result<Tally> {
    if let Some(why) = no_strace(campaign)? {
        return Ok(Tally::skipped(Kind::Errors.name(), why));
    }
    let references = campaign.references()?;
    let hits = hits(campaign, &[&CHANGING[..], &READING].concat(), "errors")?;
    let failures: Vec<Failure> = hits.iter().flat_map(failures_of).collect();
    let order = shuffled(failures.len(), campaign.arguments.seed, "errors' order");
    campaign.tries(Kind::Errors, |number, name| {
        let Some(at) = order.get(number as usize) else { return Ok(None) };
        let failure = &failures[*at];
        let Failure { hit, error, lasts } = failure;
        let reference = &references[hit.reference];
        let and_later = if *lasts { "+" } else { "" };
        let inject = format!("{}:error={error}:when={}{and_later}", hit.call, hit.nth);
        let name = name.to_string_lossy();
        let (folder, outcome) = disturbed(campaign, reference, &hit.call, &inject, &name)?;
        let (outcome, mut faults) = judge(campaign, reference, failure, &folder, &outcome)?;
        label(&mut faults, &inject);
        let case = format!("{}, {error} of {}", reference.scenario.name, hit.call);
        Ok(Some(Try { case, count: 1, outcome: outcome.to_owned(), faults, folder }))
    })
}

/// A command whose call failed ends with a message or succeeds, and a restart comes to the right
/// result.
fn judge(
    campaign: &Campaign,
    reference: &Reference,
    failure: &Failure,
    folder: &Path,
    outcome: &Outcome,
) -> Result<(&'static str, Vec<(&'static str, String)>)> {
    if let Some(fault) = outcome.fault() {
        return Ok(("fault", vec![(fault, outcome.shown())]));
    }
    if outcome.is_of_the_loader() {
        return Ok(("not begun", Vec::new()));
    }
    if outcome.end == End::Code(0) {
        let faults = reference.scenario.compare(folder, &reference.right)?;
        let silent = |(_, what)| ("success with wrong files", what);
        return Ok(("succeeded", faults.into_iter().map(silent).collect()));
    }
    let mut faults = Vec::new();
    // Where nothing can be written, nothing can be said.
    let mute = failure.lasts && failure.hit.call == "write";
    if outcome.stderr.trim().is_empty() && !mute {
        faults.push(("no message", outcome.shown()));
    }
    faults.extend(reference.scenario.finish(campaign.bench, folder, &reference.right)?);
    Ok(("refused, then done", faults))
}

fn label(faults: &mut [(&'static str, String)], inject: &str) {
    for (_, what) in faults {
        *what = format!("{inject}: {what}");
    }
}

/// Runs a command, disturbed, in a fresh folder.
fn disturbed(
    campaign: &Campaign,
    reference: &Reference,
    call: &str,
    inject: &str,
    name: &str,
) -> Result<(std::path::PathBuf, Outcome)> {
    let folder = reference.scenario.folder(campaign.bench, name)?;
    let trace = format!("trace={call}");
    let inject = format!("inject={inject}");
    // Not with --seccomp-bpf, which is faster: strace 6.1 then sends no signal.
    let arguments = ["-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let job = reference.scenario.first(campaign.bench, &folder).behind("strace", &arguments);
    Ok((folder, job.run()?))
}

/// Every one of some calls of every command, in an order that the seed decides.
fn hits(campaign: &Campaign, calls: &[&str], purpose: &str) -> Result<Vec<Hit>> {
    let mut hits = Vec::new();
    for (reference, counts) in counts(campaign)?.iter().enumerate() {
        for (call, count) in counts.iter().filter(|(call, _)| calls.contains(&call.as_str())) {
            hits.extend((1..=*count).map(|nth| Hit { reference, call: call.clone(), nth }));
        }
    }
    let order = shuffled(hits.len(), campaign.arguments.seed, purpose);
    Ok(order.iter().map(|at| hits[*at].clone()).collect())
}

/// The calls of every command.
fn counts<'a>(campaign: &'a Campaign) -> Result<&'a [Counts]> {
    if let Some(counts) = campaign.counts.get() {
        return Ok(counts);
    }
    let count = |reference: &Reference| count_calls(campaign, reference);
    let all = campaign.references()?.iter().map(count).collect::<Result<Vec<_>>>()?;
    Ok(campaign.counts.get_or_init(|| all))
}

/// How often the thread that calls it most calls each of some system calls.
fn count_calls(campaign: &Campaign, reference: &Reference) -> Result<Counts> {
    let folder = reference.scenario.folder(campaign.bench, "traced")?;
    let log = folder.with_extension("strace");
    // Not every machine has every call.
    let calls: Vec<String> =
        CHANGING.iter().chain(&READING).map(|call| format!("?{call}")).collect();
    let trace = format!("trace={}", calls.join(","));
    let shown = log.to_string_lossy().into_owned();
    let arguments = ["-f", "--seccomp-bpf", "-qqq", "-o", &shown, "-e", &trace];
    let outcome =
        reference.scenario.first(campaign.bench, &folder).behind("strace", &arguments).run()?;
    if outcome.end != End::Code(0) {
        bail!("strace: {}", outcome.shown());
    }
    let text = std::fs::read_to_string(&log).with_context(|| shown.clone())?;
    std::fs::remove_file(&log)?;
    Ok(most_by_a_thread(&text))
}

fn most_by_a_thread(log: &str) -> BTreeMap<String, usize> {
    let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        // Not the second half of a call that another thread interrupted in the log.
        let name =
            |call: &'_ str| call.trim_start().find('(').filter(|_| !call.contains("resumed>"));
        let call = call.trim_start();
        if let Some(end) = name(call) {
            *by_thread.entry((thread, &call[..end])).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let entry = most.entry(call.to_owned()).or_default();
        *entry = count.max(*entry);
    }
    most
}

/// Why no system call can be hit here.
fn no_strace(campaign: &Campaign) -> Result<Option<String>> {
    let folder = campaign.bench.folder("traced", &[])?;
    let job = campaign.bench.job(&["--version"], &folder);
    let job = job.behind("strace", &["-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null"]);
    Ok(match job.run() {
        Ok(outcome) if outcome.end == End::Code(0) => None,
        Ok(outcome) => Some(format!("strace cannot trace here: {}", outcome.shown())),
        Err(error) => Some(format!("strace is not there: {error:#}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread_and_halves_once() {
        let log = "7 openat(AT_FDCWD, \"a\") = 3\n7 write(3, \"x\", 1 <unfinished ...>\n\
                   8 write(3, \"x\", 1) = 1\n7 <... write resumed>) = 1\n\
                   7 write(3, \"y\", 1) = 1\n";
        let most = most_by_a_thread(log);
        assert_eq!((most["openat"], most["write"], most.len()), (1, 2, 2));
    }
}
