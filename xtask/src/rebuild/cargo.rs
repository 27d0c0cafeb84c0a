//! Cargo, timed, and stopped when we are asked to stop.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often it is looked whether cargo has ended: far below what a compilation takes.
const PAUSE: Duration = Duration::from_millis(10);

/// Signals that ask a process to stop: Ctrl-C, `kill`, a terminal that was closed.
#[cfg(unix)]
const STOPS: [i32; 3] =
    [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];

#[cfg(not(unix))]
const STOPS: [i32; 2] = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];

/// Whether somebody asked us to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes the signals, which from now on end nothing by themselves.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in STOPS {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))
                .with_context(|| format!("signal {signal}"))?;
        }
        Ok(stop)
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What cargo is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// `cargo check --release --workspace`
    Check,
    /// `cargo build --release --workspace --bin ist`
    Build,
}

/// Runs cargo in a folder.
#[derive(Debug)]
pub(crate) struct Cargo<'a> {
    /// The root of the repository.
    pub(crate) root: &'a Path,
    /// Features for every call; may be empty.
    pub(crate) features: &'a str,
    /// Asked while cargo runs.
    pub(crate) stop: &'a Stop,
}

impl Cargo<'_> {
    /// The seconds that cargo needs.
    ///
    /// # Errors
    ///
    /// Cargo fails, or we were asked to stop.
    pub(crate) fn seconds(&self, goal: Goal) -> Result<f64> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.current_dir(self.root).args(arguments(goal));
        if !self.features.is_empty() {
            command.args(["--features", self.features]);
        }
        seconds(&mut command, self.stop)
    }
}

fn arguments(goal: Goal) -> &'static [&'static str] {
    match goal {
        Goal::Check => &["check", "--release", "--workspace", "--quiet"],
        Goal::Build => &["build", "--release", "--workspace", "--bin", "ist", "--quiet"],
    }
}

/// Runs a command to its end and measures it. What it says is shown where it fails.
fn seconds(command: &mut Command, stop: &Stop) -> Result<f64> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| shown.clone())?;
    let stderr = child.stderr.take();
    // Read beside the wait, so that cargo never waits for a full pipe.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stderr.map(|mut stderr| stderr.read_to_string(&mut text));
        text
    });
    let succeeded = wait(&mut child, stop)?;
    let seconds = started.elapsed().as_secs_f64();
    let said = reader.join().unwrap_or_default();
    if !succeeded {
        bail!("{shown} failed\n{said}");
    }
    Ok(seconds)
}

fn wait(child: &mut Child, stop: &Stop) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            // A signal to the whole group reaches cargo as well, and cargo may be the first to end.
            if stop.is_asked() {
                bail!("stopped");
            }
            return Ok(status.success());
        }
        if stop.is_asked() {
            let _ = child.kill();
            let _ = child.wait();
            bail!("stopped");
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_is_timed() {
        let time = seconds(&mut shell("sleep 0.1"), &Stop::default()).unwrap();
        assert!(time >= 0.1, "{time}");
    }

    #[test]
    fn a_failure_says_what_the_command_said() {
        let error = seconds(&mut shell("echo why >&2; exit 3"), &Stop::default()).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_request_to_stop_ends_the_command() {
        let stop = Stop::default();
        stop.0.store(true, Ordering::Relaxed);
        let started = Instant::now();
        let error = seconds(Command::new("sleep").arg("60"), &stop).unwrap_err();
        assert_eq!(error.to_string(), "stopped");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
