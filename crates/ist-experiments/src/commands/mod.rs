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
pub(crate) mod paths;
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

use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

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
    screen::result(&(text + "\n"))
}
