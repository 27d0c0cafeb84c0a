//! What leaves the program for whoever started it: lines for a person on stderr, results on stdout.
//!
//! `eprintln!` and `println!` panic when nobody reads any more: behind `2>&1 | head -1`, after a
//! `tee` that died, on a terminal that was closed. A run must survive that and save what it has
//! learned, so the lints refuse those macros and every line goes through here. What the lines quote
//! may come from anywhere, so control codes are escaped here as well.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::failure::Failure;
use crate::terminal::plain_text;

/// A line for a person, on stderr. If it cannot be written there is nobody left to say so to.
pub fn line(text: impl Display) {
    // In one call, so that lines of several processes do not mix.
    let line = format!("{text}\n");
    let _ = io::stderr().write_all(plain_text::shown(&line).as_bytes());
}

/// Text for a person on stderr, without an end of line.
pub fn text(text: impl Display) {
    let text = text.to_string();
    let _ = io::stderr().write_all(plain_text::shown(&text).as_bytes());
}

/// A result on stdout, at once. A reader that went away is not a failure. A terminal sees no
/// control codes of what a model or a file says; a file or a pipe gets the text as it is.
///
/// # Errors
///
/// Exit code 1 where stdout cannot be written for another reason, such as a full disk.
pub fn result(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    let text = if stdout.is_terminal() { plain_text::shown(text) } else { text.into() };
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.or_else(|error| stdout_failure(&error).map_or(Ok(()), Err))
}

/// The failure that an error of stdout is; `None` where its reader went away.
pub fn stdout_failure(error: &io::Error) -> Option<Failure> {
    (!reader_is_gone(error)).then(|| Failure::run(format!("stdout: {error}")))
}

/// Whether a write to stdout failed because its reader ended: a closed pipe, or a closed terminal.
fn reader_is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
        || (is_input_output_error(error) && stdout_is_a_terminal())
}

/// What a terminal says once it was closed, and what a broken disk says as well.
#[cfg(unix)]
fn is_input_output_error(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Asked of the file's type: a terminal that was closed no longer answers what terminals are asked.
#[cfg(unix)]
fn stdout_is_a_terminal() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let copy = io::stdout().as_fd().try_clone_to_owned();
    let metadata = copy.and_then(|copy| std::fs::File::from(copy).metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_input_output_error(_: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn stdout_is_a_terminal() -> bool {
    false
}
