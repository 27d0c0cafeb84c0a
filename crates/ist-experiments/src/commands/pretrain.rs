//! `ist pretrain`: a small model from scratch.

use ist_peft::Adapter;

use crate::cli::Pretrain;
use crate::failure::{Failure, OrFail};
use crate::{config, device, pretrain};

/// Pre-trains.
pub fn run<A: Adapter>(arguments: &Pretrain, quiet: bool) -> Result<(), Failure> {
    let config = config::load_pretrain(&arguments.config, &arguments.overrides).or_input()?;
    let device = device::open(&arguments.device)?;
    pretrain::run::<A>(&config, &device, quiet)
}
