//! `ist pretrain`: a small model from scratch.

use std::path::PathBuf;

use clap::Args;
use ist_peft::Adapter;

use super::paths::WrittenDown;
use crate::config;
use crate::machine::device;
use crate::village::pretrain;
use ist_records::{Failure, OrFail};

/// `ist pretrain`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// The configuration
    #[arg(value_parser = WrittenDown)]
    pub config: PathBuf,
    /// Override one key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// Pre-trains.
pub fn run<A: Adapter>(arguments: &Pretrain, quiet: bool) -> Result<(), Failure> {
    let config = config::load_pretrain(&arguments.config, &arguments.overrides).or_input()?;
    let device = device::open(&arguments.device)?;
    pretrain::run::<A>(&config, &device, quiet)
}
