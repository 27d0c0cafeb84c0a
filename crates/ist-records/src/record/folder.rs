//! The folder of one run: where it is, and that only one process works in it.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ist_files::{durable, regular};

use super::{checkpoints, tensorboard};
use crate::failure::{Failure, OrFail};

/// The file that is locked by the process that works in a run's folder.
const LOCK: &str = ".lock";

/// A run's folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Opens the folder of a run that begins (`resume` false) or goes on (`resume` true), and locks
    /// it.
    ///
    /// A folder that holds a run needs `resume`; one that holds none cannot be resumed.
    pub fn open(path: PathBuf, resume: bool) -> Result<Self, Failure> {
        let shown = path.display();
        let held = || path.join("config.toml").exists();
        let must_not_hold_one = || {
            let advice = "add --resume to go on with it, or name another folder with --output";
            let fault = || Failure::input(format!("{shown} already holds a run; {advice}"));
            if held() && !resume { Err(fault()) } else { Ok(()) }
        };
        must_not_hold_one()?;
        let holds_run = held();
        if !holds_run && holds_other_files(&path)? {
            return Err(Failure::input(format!(
                "{shown} holds other files; name a new folder with --output"
            )));
        }
        if resume && !holds_run {
            return Err(Failure::input(format!(
                "{shown} holds no run to resume (it has no config.toml)"
            )));
        }
        for inner in
            [checkpoints::FOLDER, tensorboard::FOLDER, "offload", "adapter", "adapter-best"]
        {
            let inner = path.join(inner);
            regular::own_folder(&inner).with_context(|| inner.display().to_string()).or_input()?;
        }
        durable::create_folder(&path.join(checkpoints::FOLDER))
            .with_context(|| format!("{shown}: cannot create"))
            .or_run()?;
        let lock = lock(&path)?;
        // Another process may have made one before this one had the lock.
        must_not_hold_one()?;
        remove_leftovers(&path).with_context(|| shown.to_string()).or_run()?;
        Ok(Self { path, _lock: lock })
    }

    /// A new folder `runs/NAME-N` with the next free N, counted from 1. Two processes never get the
    /// same one.
    pub fn next(name: &str) -> Result<Self, Failure> {
        durable::create_folder(Path::new("runs")).context("runs: cannot create").or_run()?;
        for number in 1.. {
            let path = PathBuf::from(format!("runs/{name}-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    durable::sync_folder(Path::new("runs"))
                        .context("runs: cannot sync")
                        .or_run()?;
                    return Self::open(path, false);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Failure::run(format!(
                        "{}: cannot create: {error}",
                        path.display()
                    )));
                }
            }
        }
        unreachable!("the numbers do not end")
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes what killed processes left half-written in a run's folder.
fn remove_leftovers(run: &Path) -> anyhow::Result<()> {
    checkpoints::remove_partial(&run.join(checkpoints::FOLDER))?;
    for folder in ["", tensorboard::FOLDER, "adapter", "adapter-best"] {
        let folder = run.join(folder);
        durable::sweep(&folder)?;
        // Several adapters have a folder each.
        for inner in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if inner.file_type()?.is_dir() {
                durable::sweep(&inner.path())?;
            } else if is_old_partial(&inner.file_name()) {
                std::fs::remove_file(inner.path())?;
            }
        }
    }
    Ok(())
}

/// Whether this is how earlier versions called a file that was being written: `.tmp` and six
/// characters.
fn is_old_partial(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let rest = name.strip_prefix(".tmp");
    rest.is_some_and(|rest| {
        rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Whether there is anything in `folder` that a run which was stopped at once does not leave. A
/// file that was being written then still has its temporary name.
fn holds_other_files(folder: &Path) -> Result<bool, Failure> {
    let ours = |name: &OsStr| {
        name == LOCK
            || name == checkpoints::FOLDER
            || durable::is_partial(name)
            || is_old_partial(name)
    };
    match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            Ok(entries.any(|entry| entry.is_ok_and(|entry| !ours(&entry.file_name()))))
        }
        Err(_) if !folder.exists() => Ok(false),
        Err(error) => Err(Failure::input(format!("{}: not a folder: {error}", folder.display()))),
    }
}

fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK);
    let file = open_lock(&path)?;
    // Whoever only looks whether the folder is in use holds the lock for a moment.
    for _ in 0..LOOKS {
        if take_lock(&file, &path).or_run()? {
            return Ok(file);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::input(format!("{} is in use by another process", folder.display())))
}

/// Opens a file to lock it; its content means nothing and stays.
pub fn open_lock(path: &Path) -> Result<File, Failure> {
    match regular::open_own(path) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            Err(Failure::input(format!("{}: {error}", path.display())))
        }
        file => file.with_context(|| format!("{}: cannot create", path.display())).or_run(),
    }
}

/// Keeps other processes that ask for it out until the file is closed; false where another one has
/// it.
pub(super) fn take_lock(file: &File, path: &Path) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{}: cannot lock", path.display()))
        }
    }
}

/// Whether a process under this kernel, or wherever file locks reach, works in the folder.
pub fn is_locked(folder: &Path) -> bool {
    let lock = regular::open(&folder.join(LOCK));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// How often a lock that another process has is tried.
const LOOKS: usize = 11;

/// The newest run of that configuration: `runs/NAME-N` with the largest N.
pub fn newest(name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir("runs").ok()?;
    let number = |path: &PathBuf| {
        let file = path.file_name()?.to_str()?;
        file.strip_prefix(name)?.strip_prefix('-')?.parse::<u64>().ok()
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| number(path).is_some())
        .max_by_key(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_a_run_needs_resume() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        drop(RunFolder::open(path.clone(), false).unwrap());
        std::fs::write(path.join("config.toml"), "").unwrap();
        let error = RunFolder::open(path.clone(), false).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--resume"));
        assert!(RunFolder::open(path, true).is_ok());
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let _first = RunFolder::open(path.clone(), false).unwrap();
        assert!(
            RunFolder::open(path, false)
                .unwrap_err()
                .to_string()
                .contains("in use by another process")
        );
    }

    #[test]
    fn a_run_that_was_killed_while_it_wrote_its_first_file_can_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".tmpAbC123"), "half").unwrap();
        assert!(RunFolder::open(folder.path().to_owned(), false).is_ok());
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        assert_eq!(RunFolder::open(folder.path().to_owned(), false).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_empty_folder_cannot_be_resumed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunFolder::open(folder.path().join("none"), true).unwrap_err().exit_code(), 2);
    }
}
