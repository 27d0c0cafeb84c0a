//! Ctrl-C: the step in progress is finished, the run saved, and the command says how to resume.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::live::terminal;

static ASKED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<bool> = OnceLock::new();

/// Installs the handler, once. A second Ctrl-C ends the process at once.
pub fn install() {
    INSTALLED.get_or_init(|| {
        ctrlc::set_handler(|| {
            if ASKED.swap(true, Ordering::SeqCst) {
                terminal::give_back();
                std::process::exit(130);
            }
            // A view says it itself.
            if !terminal::is_taken() {
                eprintln!("\nstopping after this step (press Ctrl-C again to stop at once) ...");
            }
        })
        .is_ok()
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
