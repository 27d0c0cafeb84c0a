//! Being asked to stop: the step in progress is finished, the run saved, and the command says how
//! to resume.
//!
//! Ctrl-C asks, and so do the signals by which systems end processes: a terminal that is closed, a
//! service that is stopped, a time limit that is near. A signal that the parent told this process
//! to ignore stays ignored, as under `nohup`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::signals;
use crate::terminal::screen;

static ASKED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// Watches for signals, once. A second Ctrl-C ends the process at once.
pub fn install() {
    INSTALLED.get_or_init(|| {
        if let Err(error) = signals::watch() {
            screen::line(format!(
                "warning: cannot watch for Ctrl-C: {error}; it will end the run without saving"
            ));
        }
    });
}

/// Asks as Ctrl-C does.
pub fn ask() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Asks when stdin comes to its end: the pipe to a parent process that ended, however it did.
pub fn ask_at_end_of_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ask();
    });
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
