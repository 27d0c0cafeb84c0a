//! What the tests of the command share: a folder with data and a configuration, and the command
//! itself.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A folder with a small data set and a configuration of a run that takes a second or two.
pub(crate) struct Workbench {
    folder: tempfile::TempDir,
}

impl Workbench {
    /// Token records and `run.toml` with `extra` lines at its end.
    pub(crate) fn new(extra: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let record =
            |n: u64| (0..6 + n % 5).map(|t| 300 + (7 * n + 13 * t) % 500).collect::<Vec<_>>();
        let lines: String =
            (0..24).map(|n| format!("{}\n", json!({"input_ids": record(n)}))).collect();
        bench.write("train.jsonl", &lines);
        bench.write(
            "run.toml",
            &format!(
                "seed = 3\n[model]\npath = \"builtin:village\"\n[data]\ntrain = \"train.jsonl\"\n\
                 validation_records = 4\n\
                 [adapter]\nr = 2\nalpha = 4\ndropout = 0.1\n[policy]\nkind = \"ist\"\n\
                 interval = 3\nscore_batch = 4\n\
                 [optimizer]\nlr = 1e-3\nwarmup_steps = 2\n\
                 [train]\nsteps = 10\nbatch = 4\nmicro_batch = 2\neval_every = 4\nsave_every = 3\n\
                 {extra}"
            ),
        );
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command, started in the folder.
    pub(crate) fn ist(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ist"));
        command.args(arguments).current_dir(self.folder.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs the command; fails the test unless it ends with that code.
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> Output {
        let output = self.ist(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "ist {arguments:?}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        output
    }

    /// Runs the command and reads the JSON document on its stdout.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.run(arguments, 0).stdout).unwrap()
    }

    /// Runs the command, expects exit code 2, and returns its message.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments, 2).stderr).unwrap()
    }
}

/// The lines of a log without what differs from run to run.
pub(crate) fn log(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        for key in ["seconds", "peak_bytes"] {
            line.as_object_mut().unwrap().remove(key);
        }
    }
    lines
}
