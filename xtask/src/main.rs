//! Measures of the house: what the sources look like, and how long a change takes to compile.
//!
//! `measure` reads the sources of this repository, or of another checkout of Rust code, so that the
//! same figures exist for the projects that we compare with. `rebuild` edits one file at a time and
//! measures what cargo needs afterwards. Neither depends on a crate of the project, so both compile
//! in seconds.

mod measure;
mod rebuild;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures of the sources, and of the time to rebuild them
#[derive(Debug, Parser)]
#[command(name = "xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the sources and the prose of a checkout
    Measure(measure::Arguments),
    /// Measure how long cargo needs after an edit
    Rebuild(rebuild::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Measure(arguments) => measure::run(&arguments),
        Command::Rebuild(arguments) => rebuild::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Writes a result to stdout. A reader that went away, such as `head`, is not an error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
