//! The `ist` command: experiments as TOML, data, training runs, evaluation and records.
//!
//! | to read about | look at |
//! |---|---|
//! | the command line | [`cli`], one file a command in [`commands`] |
//! | what a configuration may say | [`config`] |
//! | from files to token records, chat templates, text as it comes | [`text`] |
//! | a training run | [`train`] |
//! | what a person sees of it | [`display`] |
//! | what a model is scored on | [`evaluate`] |
//! | what a run will take of memory | [`memory_plan`] |
//! | executing the members of a study | [`study`] |
//! | which backend runs it, threads, memory | [`machine`], the only place that names a backend |
//! | the model inside the binary, and its world | [`village`] |
//! | a device held against the reference, and timed | [`lab`] |
//!
//! A run's folder, reports, the live view and the sharing of studies are in [`ist_records`].
//!
//! # Example
//!
//! The whole command line is a function over the set of PEFT methods:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     ist_experiments::cli::main::<ist_peft::BuiltinAdapter>()
//! }
//! ```

pub mod cli;
pub mod commands;
pub mod config;
pub mod display;
pub mod evaluate;
pub mod lab;
pub mod machine;
pub mod memory_plan;
pub mod model_folder;
pub mod model_source;
pub mod study;
pub mod text;
pub mod train;
pub mod village;
