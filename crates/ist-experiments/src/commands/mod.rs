//! One file a command.

pub mod devices;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod merge;
pub mod plan;
pub mod pretrain;
pub mod schema;
pub mod score;
pub mod train;
pub mod world;

use serde::Serialize;

use crate::failure::{Failure, OrFail};

/// Prints one JSON document on stdout.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).or_run()?;
    print_text(&(text + "\n"))
}

/// Prints text on stdout; a reader that went away is no failure.
fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::run(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}
