//! The `ist` command with the built-in PEFT methods.

use std::process::ExitCode;

use ist_experiments::machine::live_bytes::PeakAlloc;

/// Counts live bytes, for the peaks in a run's records.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    ist_experiments::cli::main::<ist_peft::BuiltinAdapter>()
}
