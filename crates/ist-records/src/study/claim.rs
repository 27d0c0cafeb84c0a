//! Claims: that one process at a time executes a member, on whatever machine it runs.
//!
//! Try N of a member belongs to whoever creates `MEMBER.N.json`, which the file system lets only
//! one do, on a network folder as well. Claims are never removed or replaced, so the newest is
//! always the one that counts; a later try is a later file.
//!
//! Whether the owner of the newest claim still lives is told in two ways. Under the same kernel the
//! file's lock says so at once, as the system frees it when a process ends however it ends. From
//! elsewhere, where locks may mean nothing, only the beat does, a number in the file that its owner
//! raises every few seconds: a beat that stands still for [`STALE`], by the observer's own clock,
//! is that of a dead owner. An owner that finds a later claim than its own was taken for dead, and
//! ends at once.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ist_files::{durable, regular};
use serde::{Deserialize, Serialize};

/// Between two beats.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a beat stands still before its owner is taken for dead.
pub const STALE: Duration = Duration::from_mins(1);

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The run is finished.
    Done,
    /// It failed.
    Failed,
    /// It was stopped and can go on.
    Interrupted,
}

/// The content of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The owner's machine, for people.
    pub host: String,
    /// Its kernel since it was started; `None` where that cannot be told, or where files cannot be
    /// locked.
    kernel: Option<String>,
    /// The owner's process.
    pub process: u32,
    /// Raised while the owner lives.
    pub beat: u64,
    /// When it is over.
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// The newest claim of a member, as another process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody ever worked on it.
    Free,
    /// Somebody may be working on it: the try, and the record if it could be read.
    Held(u64, Option<Record>),
    /// Nobody works on it any more: the try and its record; without an outcome its owner died.
    Over(u64, Record),
}

impl Look {
    /// The number of the newest try; 0 before the first.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Held(generation, _) | Self::Over(generation, _) => *generation,
        }
    }
}

fn path(folder: &Path, member: &str, generation: u64) -> PathBuf {
    folder.join(format!("{member}.{generation}.json"))
}

/// The newest claim of a member.
pub fn look(folder: &Path, member: &str) -> Look {
    let mut generation = 0;
    while path(folder, member, generation + 1).exists() {
        generation += 1;
    }
    if generation == 0 {
        return Look::Free;
    }
    let path = path(folder, member, generation);
    let record: Option<Record> =
        regular::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match record {
        Some(record) if record.outcome.is_some() || has_died(&path, &record) => {
            Look::Over(generation, record)
        }
        record => Look::Held(generation, record),
    }
}

/// Whether the owner was a process under this kernel that holds its lock no more.
fn has_died(path: &Path, record: &Record) -> bool {
    record.kernel.is_some()
        && record.kernel == kernel()
        && File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// A member that is this process's to execute.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
    record: Record,
    beating: Option<(Sender<()>, JoinHandle<u64>)>,
}

/// Takes a member, unless somebody else has it. `dead` is a try that the caller has seen stand
/// still for [`STALE`].
///
/// `lost` is called from another thread, once, when a later claim shows up.
pub fn take(folder: &Path, member: &str, dead: Option<u64>, lost: fn()) -> Result<Option<Claim>> {
    regular::own_folder(folder).with_context(|| folder.display().to_string())?;
    durable::create_folder(folder)
        .with_context(|| format!("{}: cannot create", folder.display()))?;
    let generation = match look(folder, member) {
        Look::Held(generation, _) if dead != Some(generation) => return Ok(None),
        seen => seen.generation() + 1,
    };
    let path = path(folder, member, generation);
    let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("{}: cannot create", path.display()));
        }
    };
    // The lock comes before the record that tells others to look at it.
    let kernel = file.lock().ok().and_then(|()| kernel());
    let process = std::process::id();
    let record = Record { host: host(), kernel, process, beat: 0, outcome: None, reason: None };
    let mut claim = Claim { path, file, record, beating: None };
    claim.write().with_context(|| format!("{}: cannot write", claim.path.display()))?;
    durable::sync_folder(folder).with_context(|| folder.display().to_string())?;
    claim.start_beating(self::path(folder, member, generation + 1), HEARTBEAT, lost)?;
    Ok(Some(claim))
}

impl Claim {
    fn write(&mut self) -> std::io::Result<()> {
        overwrite(&mut self.file, &self.record)
    }

    fn start_beating(&mut self, later: PathBuf, every: Duration, lost: fn()) -> Result<()> {
        let (stop, stopped) = channel::<()>();
        let (mut file, mut record) = (self.file.try_clone()?, self.record.clone());
        let beat = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if later.exists() {
                    lost();
                    break;
                }
                record.beat += 1;
                // A folder that cannot be written to now may be there again at the next beat.
                let _ = overwrite(&mut file, &record);
            }
            record.beat
        };
        self.beating = Some((stop, std::thread::spawn(beat)));
        Ok(())
    }

    /// Says what came of it, so that everyone knows that nobody works on the member any more.
    pub fn finish(mut self, outcome: Outcome, reason: Option<String>) -> Result<()> {
        if let Some((stop, thread)) = self.beating.take() {
            drop(stop);
            self.record.beat = thread.join().unwrap_or(self.record.beat) + 1;
        }
        (self.record.outcome, self.record.reason) = (Some(outcome), reason);
        self.write().with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Writes over the file's content, in place: a new file would be without the lock.
fn overwrite(file: &mut File, record: &Record) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(std::io::Error::other)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_data()
}

/// Watches a member for `time`: the try that stood still all the while, if there is one and it did.
pub fn stands_still(folder: &Path, member: &str, time: Duration) -> Option<u64> {
    let (before, began) = (look(folder, member), Instant::now());
    while began.elapsed() < time {
        std::thread::sleep(time / 30);
        if look(folder, member) != before {
            return None;
        }
    }
    if let Look::Held(generation, _) = before { Some(generation) } else { None }
}

/// Writes why a process died that this process had started and that could not say so itself.
pub fn note_death(folder: &Path, member: &str, process: u32, reason: &str) {
    if let Look::Over(generation, record) = look(folder, member)
        && (record.outcome, record.process) == (None, process)
        && record.kernel == kernel()
        && let Ok(mut file) = OpenOptions::new().write(true).open(path(folder, member, generation))
    {
        let record =
            Record { outcome: Some(Outcome::Failed), reason: Some(reason.to_owned()), ..record };
        // Without it the member counts as interrupted, which is near enough.
        let _ = overwrite(&mut file, &record);
    }
}

/// What a running kernel is told by: its number since it was started. Containers share it as they
/// share file locks.
fn kernel() -> Option<String> {
    read_line("/proc/sys/kernel/random/boot_id")
}

/// This machine's name.
fn host() -> String {
    let names = ["HOSTNAME", "COMPUTERNAME"].iter().filter_map(|name| std::env::var(name).ok());
    read_line("/proc/sys/kernel/hostname")
        .into_iter()
        .chain(names)
        .next()
        .unwrap_or_else(|| "unknown".to_owned())
}

fn read_line(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn nothing() {}

    fn taken(folder: &Path) -> Claim {
        take(folder, "a", None, nothing).unwrap().expect("the member is free")
    }

    #[test]
    fn a_member_has_one_owner_until_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let first = taken(folder.path());
        assert!(take(folder.path(), "a", None, nothing).unwrap().is_none());
        assert!(take(folder.path(), "b", None, nothing).unwrap().is_some());
        assert!(matches!(look(folder.path(), "a"), Look::Held(1, Some(_))));
        first.finish(Outcome::Failed, Some("no space".to_owned())).unwrap();
        let Look::Over(1, record) = look(folder.path(), "a") else {
            panic!("{:?}", look(folder.path(), "a"))
        };
        assert_eq!(
            (record.outcome, record.reason.as_deref()),
            (Some(Outcome::Failed), Some("no space"))
        );
        let again = taken(folder.path());
        assert_eq!(look(folder.path(), "a").generation(), 2);
        drop(again);
    }

    #[test]
    fn of_many_that_try_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, got) = (folder.path(), AtomicUsize::new(0));
        for round in 1..20 {
            let claims: Vec<Option<Claim>> = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| take(folder, "a", None, nothing).unwrap()))
                    .collect();
                tries.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            got.fetch_add(claims.iter().flatten().count(), Ordering::SeqCst);
            assert_eq!(got.load(Ordering::SeqCst), round);
            claims
                .into_iter()
                .flatten()
                .for_each(|claim| claim.finish(Outcome::Interrupted, None).unwrap());
        }
    }

    #[test]
    fn the_claim_of_a_dead_process_of_this_kernel_is_over_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut claim = taken(folder.path());
        // What a kill does: the beats end and the lock is freed, and nothing is written.
        let (stop, thread) = claim.beating.take().unwrap();
        drop(stop);
        thread.join().unwrap();
        drop(claim);
        let Look::Over(1, record) = look(folder.path(), "a") else {
            panic!("{:?}", look(folder.path(), "a"))
        };
        assert_eq!(record.outcome, None);
        note_death(folder.path(), "a", record.process + 1, "another's");
        note_death(folder.path(), "a", record.process, "killed");
        let Look::Over(1, record) = look(folder.path(), "a") else {
            panic!("{:?}", look(folder.path(), "a"))
        };
        assert_eq!(
            (record.outcome, record.reason.as_deref()),
            (Some(Outcome::Failed), Some("killed"))
        );
        taken(folder.path());
    }

    /// A claim of a process on another machine.
    fn foreign(folder: &Path, beat: u64) {
        let kernel = Some("another".to_owned());
        let record =
            Record { host: "far".into(), kernel, process: 1, beat, outcome: None, reason: None };
        std::fs::write(path(folder, "a", 1), serde_json::to_vec(&record).unwrap()).unwrap();
    }

    #[test]
    fn the_claim_of_another_machine_holds_until_it_was_seen_to_stand_still() {
        let folder = tempfile::tempdir().unwrap();
        foreign(folder.path(), 3);
        assert!(
            matches!(look(folder.path(), "a"), Look::Held(1, Some(record)) if record.beat == 3)
        );
        assert!(take(folder.path(), "a", None, nothing).unwrap().is_none());
        let claim = take(folder.path(), "a", Some(1), nothing).unwrap().expect("try 1 is dead");
        assert!(
            take(folder.path(), "a", Some(1), nothing).unwrap().is_none(),
            "only one takes over"
        );
        drop(claim);
    }

    #[test]
    fn only_a_beat_that_does_not_move_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let time = Duration::from_millis(300);
        assert_eq!(
            stands_still(folder.path(), "a", Duration::from_millis(30)),
            None,
            "nobody has it"
        );
        foreign(folder.path(), 3);
        assert_eq!(stands_still(folder.path(), "a", time), Some(1));
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| stands_still(folder.path(), "a", time));
            std::thread::sleep(time / 3);
            foreign(folder.path(), 4);
            assert_eq!(watching.join().unwrap(), None);
        });
    }

    #[test]
    fn a_claim_that_is_not_written_yet_is_held() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(path(folder.path(), "a", 1), "").unwrap();
        assert_eq!(look(folder.path(), "a"), Look::Held(1, None));
        assert!(take(folder.path(), "a", None, nothing).unwrap().is_none());
    }

    #[test]
    fn an_owner_that_was_taken_for_dead_is_told() {
        static LOST: AtomicUsize = AtomicUsize::new(0);
        let folder = tempfile::tempdir().unwrap();
        let mut claim = taken(folder.path());
        claim.beating = None;
        let later = path(folder.path(), "a", 2);
        let lost = || {
            LOST.fetch_add(1, Ordering::SeqCst);
        };
        claim.start_beating(later.clone(), Duration::from_millis(1), lost).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let Look::Held(1, Some(record)) = look(folder.path(), "a") else {
            panic!("{:?}", look(folder.path(), "a"))
        };
        assert!(record.beat > 1 && LOST.load(Ordering::SeqCst) == 0, "{record:?}");
        std::fs::write(later, "").unwrap();
        for _ in 0..1000 {
            std::thread::sleep(Duration::from_millis(2));
            if LOST.load(Ordering::SeqCst) == 1 {
                return;
            }
        }
        panic!("the owner was not told");
    }
}
