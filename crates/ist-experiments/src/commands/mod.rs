//! One file a command: what it takes and what it does.

pub mod bench;
pub mod chat;
pub mod convert;
pub mod devices;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod list;
pub mod merge;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod run;
pub mod sampling;
pub mod schema;
pub mod score;
pub mod selftest;
pub mod train;
pub mod watch;
pub mod world;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, OrFail};
use crate::plain_text;

/// A model, an optional adapter and a device.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A model folder, `builtin:NAME`, or a hub id `org/name[@revision]`
    #[arg(long)]
    pub model: String,
    /// A folder in Hugging Face PEFT layout
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Only `--json`.
#[derive(Debug, Args)]
pub struct Json {
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Prints one JSON document on stdout.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).or_run()?;
    print_text(&(text + "\n"))
}

/// Prints text on stdout at once, not only when a line is full.
fn show(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    print_text(text)?;
    match std::io::stdout().flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints text on stdout; a reader that went away is no failure. A terminal sees no control codes of what a model wrote.
fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, IsTerminal, Write};
    let mut stdout = std::io::stdout();
    let text = if stdout.is_terminal() { plain_text::shown(text) } else { text.into() };
    match stdout.write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}
