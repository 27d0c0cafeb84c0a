//! JSON Lines logs of a run: appended a line a step, marked at each checkpoint, cut back on resume.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ist_files::regular;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::digests::{self, LogMark};
use super::folder::take_lock;

/// A log that is being written. Every line is handed to the system at once, so a killed run loses
/// none.
#[derive(Debug)]
pub struct LineLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    hasher: Sha256,
}

impl LineLog {
    /// Opens a log to append to; it is created when it does not exist.
    ///
    /// # Errors
    ///
    /// A link or something else that is not a regular file; a file that cannot be read and written.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let file = regular::append_to_own(path).with_context(context)?;
        let mut log = Self { path: path.to_owned(), file, bytes: 0, hasher: Sha256::new() };
        log.digest_anew()?;
        Ok(log)
    }

    /// Keeps other processes that ask for it out until the log is closed; false where another one
    /// has it.
    pub fn lock(&self) -> Result<bool> {
        take_lock(&self.file, &self.path)
    }

    /// Keeps that many bytes.
    pub fn cut(&mut self, bytes: u64) -> Result<()> {
        let context = || format!("{}: cannot cut", self.path.display());
        self.file.set_len(bytes).with_context(context)?;
        self.digest_anew()
    }

    /// Appends one value as one line.
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.append(&line)
    }

    /// Appends bytes as they are.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let context = || format!("{}: cannot write", self.path.display());
        self.file.write_all(bytes).with_context(context)?;
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Syncs what was written, and says how far the log is.
    pub fn mark(&self) -> Result<LogMark> {
        let context = || format!("{}: cannot sync", self.path.display());
        self.file.sync_all().with_context(context)?;
        Ok(LogMark { bytes: self.bytes, sha256: digests::hex(self.hasher.clone()) })
    }

    fn digest_anew(&mut self) -> Result<()> {
        let context = || format!("{}: cannot read", self.path.display());
        self.file.seek(SeekFrom::Start(0)).with_context(context)?;
        self.hasher = Sha256::new();
        self.bytes = digests::feed(&self.file, &mut self.hasher).with_context(context)?;
        Ok(())
    }
}

/// Reads every whole line of a log. A last line that was cut off is left out; a log that does not
/// exist is empty.
///
/// # Errors
///
/// A file that cannot be read; a whole line that is not JSON, by its number.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = regular::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .enumerate()
        .map(|(number, line)| {
            let place = || format!("{}, line {}", path.display(), number + 1);
            serde_json::from_str(line).with_context(place)
        })
        .collect()
}

/// The bytes of the lines whose `step` is below `steps`, for a log that no checkpoint has marked.
///
/// # Errors
///
/// Lines that hold the key `counted` must stand there once for each step, in order.
pub fn bytes_before(path: &Path, steps: usize, counted: Option<&str>) -> Result<u64> {
    if !path.exists() {
        return Ok(0);
    }
    let text = regular::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut bytes = 0;
    let mut next = 0;
    for line in text.split_inclusive('\n') {
        let Ok(value) = serde_json::from_str::<Value>(line) else { break };
        let Some(step) = value["step"].as_u64().filter(|step| (*step as usize) < steps) else {
            break;
        };
        bytes += line.len() as u64;
        if counted.is_some_and(|key| value.get(key).is_some()) {
            if step != next {
                bail!("{}: step {next} is missing before step {step}", path.display());
            }
            next += 1;
        }
    }
    if counted.is_some() && next as usize != steps {
        bail!("{}: ends before step {next}, and {steps} steps were done", path.display());
    }
    Ok(bytes)
}

/// Writes a file so that it appears whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    ist_files::durable::write(path, bytes)
        .with_context(|| format!("{}: cannot write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(folder: &Path, steps: impl IntoIterator<Item = usize>) -> PathBuf {
        let path = folder.join("metrics.jsonl");
        let mut log = LineLog::open(&path).unwrap();
        for step in steps {
            log.write(&json!({"step": step, "loss": 0.5})).unwrap();
        }
        path
    }

    #[test]
    fn a_mark_is_that_of_the_bytes_on_disk_also_after_a_cut_and_a_new_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), 0..2);
        let mark = LineLog::open(&path).unwrap().mark().unwrap();
        assert_eq!(mark.sha256, digests::digest(&path).unwrap());
        let mut longer = LineLog::open(&path).unwrap();
        longer.write(&json!({"step": 2})).unwrap();
        let whole = longer.mark().unwrap();
        assert_eq!(whole.sha256, digests::digest(&path).unwrap());
        longer.cut(mark.bytes).unwrap();
        assert_eq!(longer.mark().unwrap(), mark);
        longer.write(&json!({"step": 2})).unwrap();
        assert_eq!(longer.mark().unwrap(), whole);
    }

    #[test]
    fn a_cut_line_is_left_out_and_a_broken_one_is_told_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), 0..3);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "{\"step\": 3, \"lo";
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap().len(), 3);
        std::fs::write(&path, text.replacen("step\":1", "step:1", 1)).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("metrics.jsonl, line 2"), "{error}");
    }

    #[test]
    fn lines_after_the_checkpoint_and_a_cut_line_are_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), 0..4);
        let two = "{\"step\":0,\"loss\":0.5}\n".len() as u64 * 2;
        assert_eq!(bytes_before(&path, 2, Some("loss")).unwrap(), two);
        assert_eq!(bytes_before(&path, 2, None).unwrap(), two);
        assert_eq!(bytes_before(&folder.path().join("none"), 2, None).unwrap(), 0);
    }

    #[test]
    fn a_gap_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = log(folder.path(), [0, 2]);
        let error = bytes_before(&path, 3, Some("loss")).unwrap_err().to_string();
        assert!(error.contains("step 1 is missing before step 2"), "{error}");
        let short = bytes_before(&path, 1, Some("loss"));
        assert!(short.is_ok() && bytes_before(&path, 4, Some("loss")).is_err());
    }
}
