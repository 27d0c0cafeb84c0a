//! A run's logs as they grow.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::failure::{Failure, OrFail};
use crate::report::{LOGS, Line, RunRecord};

/// Between two looks at the files that are replaced as a whole.
const LOOK: Duration = Duration::from_secs(1);

/// Brings a record up to date with its run's files.
pub(super) struct Follower {
    folder: PathBuf,
    /// How far each log was read.
    tails: [Tail; LOGS.len()],
    looked: Option<Instant>,
    /// What is wrong with files as they are now.
    fault: Option<String>,
    /// The first broken line of the logs that were read.
    broken: Option<String>,
}

/// How far a log was read.
#[derive(Clone, Default)]
struct Tail {
    bytes: u64,
    lines: usize,
    /// The line before it, by which a log is known that was cut back and has grown again.
    last: Vec<u8>,
}

impl Follower {
    /// Nothing is read yet.
    pub(super) fn new(folder: &Path) -> Self {
        let tails = std::array::from_fn(|_| Tail::default());
        Self { folder: folder.to_owned(), tails, looked: None, fault: None, broken: None }
    }

    /// What is wrong with the files.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref().or(self.broken.as_deref())
    }

    /// Adds what was written since the last call. Logs that were cut back, by a run that goes on,
    /// are read again.
    pub(super) fn follow(&mut self, run: &mut RunRecord) {
        let read = self.look(run).and_then(|()| self.read(run));
        self.fault = read.err().map(|failure| failure.to_string());
    }

    /// Reads what is replaced as a whole, when that is due.
    fn look(&mut self, run: &mut RunRecord) -> Result<(), Failure> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            run.notes = run.documents()?;
            self.looked = Some(Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, run: &mut RunRecord) -> Result<(), Failure> {
        let mut found = self.grown()?;
        if found.iter().any(Option::is_none) {
            let mut fresh = Self::new(&self.folder);
            let mut again = RunRecord::without_lines(&self.folder)?;
            fresh.look(&mut again)?;
            found = fresh.grown()?;
            (*self, *run) = (fresh, again);
        }
        for (log, bytes) in found.into_iter().enumerate() {
            self.note(log, &bytes.unwrap_or_default(), run);
        }
        Ok(())
    }

    fn path(&self, log: usize) -> PathBuf {
        self.folder.join(LOGS[log].0)
    }

    /// The bytes of each log behind those that were read; `None` of a log that does not go on where
    /// it was left.
    fn grown(&self) -> Result<[Option<Vec<u8>>; LOGS.len()], Failure> {
        let mut found = std::array::from_fn(|_| None);
        for (log, tail) in self.tails.iter().enumerate() {
            let path = self.path(log);
            let read = behind(&path, tail.bytes - tail.last.len() as u64);
            let bytes =
                read.with_context(|| format!("{}: cannot read", path.display())).or_input()?;
            found[log] = bytes.strip_prefix(tail.last.as_slice()).map(<[u8]>::to_vec);
        }
        Ok(found)
    }

    /// Adds the whole lines. A broken one is told and passed over.
    fn note(&mut self, log: usize, bytes: &[u8], run: &mut RunRecord) {
        let (path, tail) = (self.path(log), &mut self.tails[log]);
        for text in
            bytes.split_inclusive(|byte| *byte == b'\n').filter(|text| text.ends_with(b"\n"))
        {
            (tail.bytes, tail.lines) = (tail.bytes + text.len() as u64, tail.lines + 1);
            tail.last = text.to_vec();
            let value: Value = serde_json::from_slice(text).unwrap_or_default();
            let line = Line { path: &path, number: tail.lines, value: &value };
            if let Err(failure) = LOGS[log].1(run, &line) {
                self.broken.get_or_insert_with(|| failure.to_string());
            }
        }
    }
}

/// What stands behind that many bytes; nothing of a file that does not exist.
fn behind(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => {
            let mut file = opened?;
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(folder: &Path, name: &str, text: &str) {
        let file = File::options().create(true).append(true).open(folder.join(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn begun() -> (tempfile::TempDir, Follower, RunRecord) {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), "config.toml", "seed = 1\n");
        let (follower, run) =
            (Follower::new(folder.path()), RunRecord::without_lines(folder.path()).unwrap());
        (folder, follower, run)
    }

    #[test]
    fn what_follows_is_what_a_report_reads() {
        let (folder, mut follower, mut run) = begun();
        follower.follow(&mut run);
        assert!(run.steps.is_empty() && follower.fault().is_none());
        append(
            folder.path(),
            "metrics.jsonl",
            "{\"step\":0,\"loss\":2.0,\"seconds\":0.5}\n{\"step\":1,\"lo",
        );
        follower.follow(&mut run);
        assert_eq!(run.steps.len(), 1, "a line that is not whole waits");
        append(
            folder.path(),
            "metrics.jsonl",
            "ss\":1.0,\"seconds\":0.5}\n{\"step\":1,\"eval_loss\":3.0}\n",
        );
        append(folder.path(), "selections.jsonl", "{\"step\":0,\"layers\":[2]}\n");
        append(folder.path(), "importance.jsonl", "{\"step\":0,\"scores\":[0.0,1.0,2.0]}\n");
        follower.follow(&mut run);
        let read = RunRecord::read(folder.path()).unwrap();
        assert_eq!((&run.steps, &run.evaluations), (&read.steps, &read.evaluations));
        assert_eq!((&run.selected, &run.updates), (&read.selected, &read.updates));
        assert_eq!(run.steps.len(), 2);
    }

    #[test]
    fn logs_that_were_cut_back_are_read_again() {
        let (folder, mut follower, mut run) = begun();
        let line = |step: usize, loss: f64| format!("{{\"step\":{step},\"loss\":{loss}}}\n");
        append(
            folder.path(),
            "metrics.jsonl",
            &(0..3).map(|step| line(step, 1.5)).collect::<String>(),
        );
        follower.follow(&mut run);
        let losses = |run: &RunRecord| run.steps.iter().map(|step| step.loss).collect::<Vec<_>>();
        std::fs::write(folder.path().join("metrics.jsonl"), line(0, 2.5)).unwrap();
        follower.follow(&mut run);
        assert_eq!(losses(&run), [2.5]);
        // One that has grown beyond what was read by the time it is looked at again.
        std::fs::write(
            folder.path().join("metrics.jsonl"),
            line(0, 3.5) + &line(1, 3.5) + &line(2, 3.5),
        )
        .unwrap();
        follower.follow(&mut run);
        assert_eq!((losses(&run), follower.fault()), (vec![3.5; 3], None));
    }

    #[test]
    fn a_broken_line_is_told_and_passed_over() {
        let (folder, mut follower, mut run) = begun();
        append(folder.path(), "metrics.jsonl", "what\n{\"step\":1,\"loss\":1.5}\n");
        follower.follow(&mut run);
        assert!(
            follower.fault().is_some_and(|fault| fault.contains("line 1")),
            "{:?}",
            follower.fault()
        );
        assert_eq!(run.steps.len(), 1);
        follower.looked = None;
        follower.follow(&mut run);
        assert!(follower.fault().is_some(), "as long as the line stands there");
    }
}
