//! One process: started in a folder, watched, ended in time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks at a process.
const TICK: Duration = Duration::from_micros(500);
/// How many times its time a process has that gets no share of the processor.
const PATIENCE: u32 = 5;
/// How much of a text a message shows.
const SHOWN: usize = 400;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with that exit code.
    Code(i32),
    /// By that signal.
    Signal(i32),
    /// Not within its time, so that it was killed.
    TooLong,
}

/// What came of a process.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
    /// The most resident bytes that were seen.
    pub(crate) peak_bytes: u64,
}

impl Outcome {
    /// How it ended, in words, with the beginning of what it said.
    pub(crate) fn shown(&self) -> String {
        let end = match self.end {
            End::Code(code) => format!("exit code {code}"),
            End::Signal(signal) => format!("signal {signal}"),
            End::TooLong => format!("no end after {:.0} s", self.took.as_secs_f64()),
        };
        format!("{end}: {}", beginning(self.stderr.trim()))
    }

    /// Why no program may end like this, if it must not.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self.end {
            _ if self.stderr.contains("panicked at") => Some("panic"),
            // The signal that follows becomes an exit code.
            _ if self.stderr.contains("has overflowed its stack") => Some("stack overflow"),
            End::Signal(_) => Some("signal"),
            End::TooLong => Some("hang"),
            End::Code(code) if ![0, 1, 2, LOADER].contains(&code) => Some("exit code"),
            End::Code(_) => None,
        }
    }

    /// Whether the program never began, because its libraries could not be loaded.
    pub(crate) fn is_of_the_loader(&self) -> bool {
        self.end == End::Code(LOADER)
    }
}

/// The exit code of the dynamic loader.
const LOADER: i32 = 127;

/// The beginning of a text, on a line.
pub(crate) fn beginning(text: &str) -> String {
    let line: String = text.chars().take(SHOWN).collect();
    let more = if line.len() < text.len() { "..." } else { "" };
    format!("{}{more}", line.replace('\n', " / ").escape_debug())
}

/// When a process is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Only when its time is over.
    Never,
    /// After that time; the processes that it started live on.
    Alone(Duration),
    /// After that time, with all that it started.
    WithChildren(Duration),
    /// As soon as that file is there.
    At(PathBuf),
}

/// A process to be started.
#[derive(Debug)]
pub(crate) struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    folder: PathBuf,
    kill: Kill,
    time: Duration,
    address_space: Option<u64>,
}

impl Job {
    /// A program with its arguments, in a folder.
    pub(crate) fn new<S: AsRef<OsStr>>(program: &Path, arguments: &[S], folder: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(|argument| argument.as_ref().to_owned()).collect(),
            folder: folder.to_owned(),
            kill: Kill::Never,
            time: Duration::from_mins(2),
            address_space: None,
        }
    }

    /// The same, killed at a moment.
    pub(crate) fn killed(self, kill: Kill) -> Self {
        Self { kill, ..self }
    }

    /// The same, with a time after which it counts as hanging.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// The same, with a bound on its address space in bytes.
    pub(crate) fn with_address_space(self, bytes: u64) -> Self {
        Self { address_space: Some(bytes), ..self }
    }

    /// The same behind another program, which starts it.
    pub(crate) fn behind<S: AsRef<OsStr>>(mut self, program: &str, arguments: &[S]) -> Self {
        let mut all: Vec<OsString> =
            arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        all.push(std::mem::replace(&mut self.program, program.into()));
        all.append(&mut self.arguments);
        Self { arguments: all, ..self }
    }

    /// The command line, for a person who wants to repeat it.
    pub(crate) fn shown(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let quoted = words.map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
            if word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut stdout = tempfile::tempfile()?;
        let mut stderr = tempfile::tempfile()?;
        let mut child = self.spawn(&stdout, &stderr)?;
        let began = Instant::now();
        let mut peak_bytes = 0;
        let end = loop {
            if let Some(status) = child.try_wait()? {
                break end(status);
            }
            peak_bytes = peak_bytes.max(resident_peak(child.id()));
            let elapsed = began.elapsed();
            let deadline = match &self.kill {
                Kill::Alone(after) | Kill::WithChildren(after) => *after,
                Kill::At(file) if file.exists() => elapsed,
                Kill::At(_) | Kill::Never => self.patience(child.id(), elapsed),
            };
            if elapsed >= deadline {
                let alone = matches!(self.kill, Kill::Alone(_));
                let status = kill(&mut child, alone)?;
                let hangs = matches!(self.kill, Kill::Never | Kill::At(_)) && elapsed >= self.time;
                break if hangs { End::TooLong } else { end(status) };
            }
            std::thread::sleep(TICK.min(deadline.saturating_sub(elapsed)));
        };
        let took = began.elapsed();
        Ok(Outcome {
            end,
            stdout: text(&mut stdout)?,
            stderr: text(&mut stderr)?,
            took,
            peak_bytes,
        })
    }

    /// How long a process may live: its time, or longer where others have the processor.
    fn patience(&self, process: u32, elapsed: Duration) -> Duration {
        if elapsed >= self.time && processor_time(process) < self.time / 2 {
            self.time * PATIENCE
        } else {
            self.time
        }
    }

    fn spawn(&self, stdout: &File, stderr: &File) -> Result<Child> {
        let mut command = match self.address_space {
            None => Command::new(&self.program),
            Some(bytes) => {
                let mut shell = Command::new("sh");
                let kibibytes = bytes / 1024;
                shell.arg("-c").arg(format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\""));
                shell.arg(&self.program);
                shell
            }
        };
        command.args(&self.arguments).current_dir(&self.folder);
        command.env("NO_COLOR", "1").env("RAYON_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1");
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        // A group of its own, so that all of it can be killed.
        command.process_group(0);
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }
}

fn end(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Code(code),
        None => End::Signal(status.signal().unwrap_or_default()),
    }
}

/// Kills a process, alone or with all of its group.
fn kill(child: &mut Child, alone: bool) -> Result<ExitStatus> {
    if !alone {
        let command = format!("kill -KILL -- -{}", child.id());
        // It may have ended by itself meanwhile.
        Command::new("sh").arg("-c").arg(command).stderr(Stdio::null()).status()?;
    }
    child.kill()?;
    Ok(child.wait()?)
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a process used of the processor; 0 where the system does not say.
pub(crate) fn processor_time(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: user's and system's time are the 12th and 13th.
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The most bytes that a process had in memory so far; 0 where the system does not say.
fn resident_peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Job {
        Job::new(Path::new("sh"), &["-c", script], Path::new("/"))
    }

    #[test]
    fn an_end_is_told_from_a_kill_and_from_a_hang() {
        let outcome = shell("echo out; echo err >&2; exit 3").run().unwrap();
        assert_eq!(outcome.end, End::Code(3));
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        let soon = Duration::from_millis(20);
        assert_eq!(shell("sleep 9").killed(Kill::Alone(soon)).run().unwrap().end, End::Signal(9));
        let hanging = shell("sleep 9").within(soon).run().unwrap();
        assert_eq!((hanging.end, hanging.fault()), (End::TooLong, Some("hang")));
    }

    #[test]
    fn the_bound_on_memory_reaches_the_process() {
        let job = shell("ulimit -v").with_address_space(1 << 30);
        assert_eq!(job.run().unwrap().stdout.trim(), (1 << 20).to_string());
    }
}
