//! The fault campaign: everything that may happen to `ist` and to its files, done to them on
//! purpose.
//!
//! `ist-campaign faults` disturbs the binary, `ist-campaign fuzz` feeds the readers of every format
//! with mutated files,
//! in process. The book's page on robustness says how both are used.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod dice;
mod faults;
mod fuzz;
mod process;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ist_experiments::machine::live_bytes::PeakAlloc;

/// Counts what a mutated file makes its reader allocate.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Kills, failing system calls, damaged files, hostile files and fuzzing, against `ist`.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Disturb the `ist` binary and compare what it leaves
    Faults(faults::Arguments),
    /// Feed the readers of every format with mutated files
    Fuzz(fuzz::Arguments),
    /// Make the seeds of fuzzing anew
    Corpus(fuzz::corpus::Arguments),
    /// What `fuzz` starts
    #[command(hide = true)]
    Worker(fuzz::worker::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Corpus(arguments) => fuzz::corpus::make(&arguments).map(|()| true),
        Command::Worker(arguments) => fuzz::worker::run(&arguments).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
