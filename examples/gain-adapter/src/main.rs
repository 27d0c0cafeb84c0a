//! The `ist` command with the built-in PEFT methods and one from this crate.

mod gain;

use std::process::ExitCode;

use ist_core::burn;
use ist_experiments::machine::live_bytes::PeakAlloc;

/// Counts live bytes, for the peaks in a run's records.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

ist_peft::adapter_set! {
    /// The built-in methods and ours.
    pub enum MyAdapter, MyConfig { Lora(ist_peft::Lora), Gain(gain::Gain) }
}

fn main() -> ExitCode {
    ist_experiments::cli::main::<MyAdapter>()
}
