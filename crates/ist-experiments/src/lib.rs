//! The `ist` command: experiments as TOML, data, training runs, evaluation and records.
//!
//! | to read about | look at |
//! |---|---|
//! | the command line | [`cli`], one file a command in [`commands`] |
//! | what a configuration may say | [`config`] |
//! | from files to token records | [`data`] |
//! | a model's own chat template | [`chat_template`] |
//! | a training run | [`train`] |
//! | what a model is scored on | [`tasks`], [`token_scores`] |
//! | what a run will take of memory | [`plan`], [`free_memory`] |
//! | a run's folder | [`run`] |
//! | many runs of one file, on one machine or several | [`study`] |
//! | runs as tables and figures | [`report`], [`statistics`] |
//! | conversing, showing text as it comes and how far work is | [`dialogue`], [`text_stream`], [`progress`] |
//! | which backend runs it | [`device`], the only place that names one |
//! | the model inside the binary, and its world | [`builtin`], [`world`], [`pretrain`] |
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

pub mod bench;
pub mod builtin;
pub mod chat_template;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod dialogue;
pub mod failure;
pub mod free_memory;
mod jinja;
pub mod live;
pub mod memory;
pub mod model_folder;
pub mod model_source;
mod plain_text;
pub mod plan;
pub mod pretrain;
pub mod progress;
pub mod report;
pub mod run;
pub(crate) mod screen;
pub mod selftest;
pub mod statistics;
pub mod study;
pub mod tasks;
pub mod text;
pub mod text_stream;
pub(crate) mod threads;
pub mod token_scores;
pub mod train;
pub mod world;
