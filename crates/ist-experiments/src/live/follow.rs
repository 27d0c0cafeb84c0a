//! A run's logs as they grow.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::Failure;
use crate::report::{LOGS, Line, RunRecord};

/// Between two looks at the files that are replaced as a whole.
const LOOK: Duration = Duration::from_secs(1);

/// Brings a record up to date with its run's files.
pub(super) struct Follower {
    folder: PathBuf,
    /// How far each log was read.
    tails: [Tail; LOGS.len()],
    looked: Option<Instant>,
    /// What is wrong with the files, as of now.
    pub(super) fault: Option<String>,
}

/// How far a log was read.
#[derive(Clone, Copy, Default)]
struct Tail {
    bytes: u64,
    lines: usize,
}

impl Follower {
    /// Nothing is read yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), tails: Default::default(), looked: None, fault: None }
    }

    /// Adds what was written since the last call. Logs that were cut back, by a run that goes on, are read again.
    pub(super) fn follow(&mut self, run: &mut RunRecord) {
        self.fault = self.read(run).err().map(|failure| failure.to_string()).or_else(|| self.fault.take());
    }

    fn read(&mut self, run: &mut RunRecord) -> Result<(), Failure> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.fault = None;
            run.documents()?;
        }
        if (0..LOGS.len()).any(|log| length(&self.path(log)) < self.tails[log].bytes) {
            self.tails = Default::default();
            let documents = (std::mem::take(&mut run.plan), std::mem::take(&mut run.result), run.state);
            *run = RunRecord::without_lines(&self.folder)?;
            (run.plan, run.result, run.state) = documents;
        }
        (0..LOGS.len()).try_for_each(|log| self.read_log(log, run))
    }

    fn path(&self, log: usize) -> PathBuf {
        self.folder.join(LOGS[log].0)
    }

    /// The whole lines behind those that were read. A broken one is told and passed over.
    fn read_log(&mut self, log: usize, run: &mut RunRecord) -> Result<(), Failure> {
        let (path, tail) = (self.path(log), &mut self.tails[log]);
        let bytes = behind(&path, tail.bytes).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        tail.bytes += whole as u64;
        let mut result = Ok(());
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            tail.lines += 1;
            let value: Value = serde_json::from_slice(line).unwrap_or_default();
            let line = Line { path: &path, number: tail.lines, value: &value };
            result = result.and(LOGS[log].1(run, &line));
        }
        result
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn behind(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
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
        let (follower, run) = (Follower::new(folder.path()), RunRecord::without_lines(folder.path()).unwrap());
        (folder, follower, run)
    }

    #[test]
    fn what_follows_is_what_a_report_reads() {
        let (folder, mut follower, mut run) = begun();
        follower.follow(&mut run);
        assert!(run.steps.is_empty() && follower.fault.is_none());
        append(folder.path(), "metrics.jsonl", "{\"step\":0,\"loss\":2.0,\"seconds\":0.5}\n{\"step\":1,\"lo");
        follower.follow(&mut run);
        assert_eq!(run.steps.len(), 1, "a line that is not whole waits");
        append(folder.path(), "metrics.jsonl", "ss\":1.0,\"seconds\":0.5}\n{\"step\":1,\"eval_loss\":3.0}\n");
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
        append(folder.path(), "metrics.jsonl", &(0..3).map(|step| line(step, 1.5)).collect::<String>());
        follower.follow(&mut run);
        std::fs::write(folder.path().join("metrics.jsonl"), line(0, 2.5)).unwrap();
        follower.follow(&mut run);
        assert_eq!(run.steps.iter().map(|step| step.loss).collect::<Vec<_>>(), [2.5]);
    }

    #[test]
    fn a_broken_line_is_told_and_passed_over() {
        let (folder, mut follower, mut run) = begun();
        append(folder.path(), "metrics.jsonl", "what\n{\"step\":1,\"loss\":1.5}\n");
        follower.follow(&mut run);
        assert!(follower.fault.as_ref().is_some_and(|fault| fault.contains("line 1")), "{:?}", follower.fault);
        assert_eq!(run.steps.len(), 1);
        follower.follow(&mut run);
        assert!(follower.fault.is_some(), "it is seen for a while");
    }
}
