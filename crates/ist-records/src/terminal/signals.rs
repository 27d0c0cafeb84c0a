//! The signals that ask a process to stop, and the one that tells it of a file that grew too long.

use std::io;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::interrupt;
use crate::live::terminal;
use crate::terminal::screen;

/// Signals that follow each other faster are one request: `timeout` sends its signal to a process
/// and then to its whole group, and so does a terminal that is closed.
const ONE_REQUEST: Duration = Duration::from_millis(300);

/// What was asked for so far.
#[derive(Default)]
struct Requests {
    first: Option<Instant>,
}

impl Requests {
    /// Notes a signal; true when it asks again, so that the process is to end at once.
    fn note(&mut self, signal: i32) -> bool {
        match self.first {
            None => {
                self.first = Some(Instant::now());
                false
            }
            Some(first) => first.elapsed() > ONE_REQUEST && insists(signal),
        }
    }
}

/// Acts on a signal that was caught.
fn heard(signal: i32, requests: &mut Requests) {
    let again = requests.first.is_some();
    if requests.note(signal) {
        terminal::give_back();
        std::process::exit(130);
    }
    interrupt::ask();
    // A view says it itself.
    if !again && !terminal::is_taken() {
        screen::line(format!("\n{}stopping after this step{} ...", reason(signal), how(signal)));
    }
}

fn how(signal: i32) -> &'static str {
    if signal == SIGINT { " (press Ctrl-C again to stop at once)" } else { "" }
}

#[cfg(unix)]
pub(super) use unix::watch;
#[cfg(unix)]
use unix::{insists, reason};

#[cfg(unix)]
mod unix {
    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGXCPU};
    use signal_hook::iterator::Signals;

    use super::{Requests, SIGINT, SIGTERM, heard, io};

    /// A closed terminal, Ctrl-C, Ctrl-\, a polite end, and the soft limit of CPU time, which comes
    /// some seconds before the hard one.
    const STOP: [i32; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU];

    /// Catches those signals that the parent did not tell this process to ignore.
    pub(in super::super) fn watch() -> io::Result<()> {
        let ignored = super::ignored_by_parent();
        let stop = STOP.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = Signals::new(stop)?;
        let work = move || {
            let mut requests = Requests::default();
            for signal in signals.forever() {
                heard(signal, &mut requests);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(work).map(drop)
    }

    /// Whether a second signal of that kind means to end at once. A closed terminal sends its
    /// signal several times, and the limit of CPU time does so every second.
    pub(super) fn insists(signal: i32) -> bool {
        [SIGINT, SIGQUIT, SIGTERM].contains(&signal)
    }

    /// Why the process stops, where the person at the terminal did not ask for it.
    pub(super) fn reason(signal: i32) -> &'static str {
        match signal {
            SIGHUP => "the terminal was closed: ",
            SIGTERM => "SIGTERM: ",
            SIGXCPU => "the limit of CPU time is reached: ",
            _ => "",
        }
    }
}

/// The signals that are ignored now, as a mask: bit n - 1 stands for signal n.
///
/// Asked before any handler is installed, it tells what the parent chose. Linux says it in
/// `/proc/self/status`; elsewhere there is no safe way to ask, and no signal counts as ignored.
#[cfg(unix)]
fn ignored_by_parent() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status).unwrap_or_default()
}

#[cfg(unix)]
fn ignored_in(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Makes a write beyond the limit on the size of files an error like any other, which is told and
/// kept in `failure.json`. The signal that comes first would end the process without a word.
#[cfg(unix)]
pub fn make_file_size_limit_an_error() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Any handler will do. Where it cannot be installed the signal ends the process, as it does any
    // other.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen);
}

#[cfg(not(unix))]
pub fn make_file_size_limit_an_error() {}

/// Gives an abort the exit code of a failure. The standard library aborts when an allocation fails,
/// after it said how many bytes were asked for, and no code of ours runs any more.
#[cfg(unix)]
pub fn make_abort_a_failure() {
    const FAILED: i32 = 1;
    let always = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let signal = signal_hook::consts::SIGABRT;
    // Where it cannot be installed, the signal ends the process as it does any other.
    let _ = signal_hook::flag::register_conditional_shutdown(signal, FAILED, always);
}

#[cfg(not(unix))]
pub fn make_abort_a_failure() {}

/// Catches Ctrl-C and a polite end. Handlers can do no more than set a flag here, so a thread looks
/// at it.
#[cfg(not(unix))]
pub(super) fn watch() -> io::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let pressed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&pressed))?;
    }
    let work = move || {
        let mut requests = Requests::default();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            if pressed.swap(false, Ordering::SeqCst) {
                heard(SIGINT, &mut requests);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(work).map(drop)
}

#[cfg(not(unix))]
fn insists(_: i32) -> bool {
    true
}

#[cfg(not(unix))]
fn reason(_: i32) -> &'static str {
    ""
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use signal_hook::consts::{SIGHUP, SIGXCPU};

    #[test]
    fn what_the_parent_ignores_stands_in_a_mask() {
        let status = "SigQ:\t1/2\nSigBlk:\t0\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_in(status), Some(0x1001));
        assert_eq!(ignored_in("Name:\tist\n"), None);
    }

    #[test]
    fn only_a_later_request_of_a_person_or_a_manager_ends_at_once() {
        let mut requests = Requests::default();
        assert!(!requests.note(SIGTERM));
        // The copy that `timeout` sends to the group.
        assert!(!requests.note(SIGTERM));
        requests.first = Instant::now().checked_sub(Duration::from_secs(1));
        assert!(!requests.note(SIGHUP) && !requests.note(SIGXCPU));
        assert!(requests.note(SIGTERM) && requests.note(SIGINT));
    }
}
