//! JSON Lines logs of a run: appended a line a step, cut back on resume.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::folder::take_lock;

/// A log that is being written. Every line is handed to the system at once, so a killed run loses none.
#[derive(Debug)]
pub struct LineLog {
    path: PathBuf,
    file: File,
}

impl LineLog {
    /// Opens a log to append to; it is created when it does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Keeps other processes that ask for it out until the log is closed; false where another one has it.
    pub fn lock(&self) -> Result<bool> {
        take_lock(&self.file, &self.path)
    }

    /// Keeps that many bytes.
    pub fn cut(&self, bytes: usize) -> Result<()> {
        self.file
            .set_len(bytes as u64)
            .with_context(|| format!("{}: cannot cut", self.path.display()))
    }

    /// Appends one value as one line.
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Reads every whole line of a log. A last line that was cut off is left out; a log that does not exist is empty.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// Keeps the lines whose `step` is below `steps`, and drops a last line that was cut off.
///
/// The log is replaced as a whole, so being killed here loses nothing.
pub fn keep_before(path: &Path, steps: usize) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let before = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        value.and_then(|value| value["step"].as_u64()).is_some_and(|step| (step as usize) < steps)
    };
    let kept: String = text.lines().filter(before).flat_map(|line| [line, "\n"]).collect();
    replace(path, kept.as_bytes())
}

/// Writes a file so that it appears whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    ist_peft::whole_file::write(path, bytes)
        .with_context(|| format!("{}: cannot write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_after_the_checkpoint_and_a_cut_line_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = LineLog::open(&path).unwrap();
        for step in 0..4 {
            log.write(&json!({"step": step, "loss": 0.5})).unwrap();
        }
        log.file.write_all(b"{\"step\": 4, \"lo").unwrap();
        keep_before(&path, 2).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"step\":0,\"loss\":0.5}\n{\"step\":1,\"loss\":0.5}\n"
        );
        assert_eq!(read(&path).unwrap().len(), 2);
    }
}
