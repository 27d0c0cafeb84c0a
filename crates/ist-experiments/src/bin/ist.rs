//! The `ist` command with the built-in PEFT methods.

use std::process::ExitCode;

fn main() -> ExitCode {
    ist_experiments::cli::main::<ist_peft::BuiltinAdapter>()
}
