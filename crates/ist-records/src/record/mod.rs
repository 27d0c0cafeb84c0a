//! A run's folder: its lines and documents, and how a run continues after it was cut off.
//!
//! ```text
//! config.toml        the configuration with every default written out
//! metrics.jsonl      a line per step and per evaluation
//! selections.jsonl   the layers of each step
//! importance.jsonl   each importance update
//! costs.jsonl        seconds and bytes of each step, predicted and measured
//! plan.json          the memory plan
//! result.json        what the run was and what came of it
//! failure.json       why it stopped, until it continues
//! ```

pub mod checkpoints;
pub mod costs;
pub mod digests;
pub mod failed;
pub mod folder;
pub mod importance;
pub mod lines;
pub mod plan;
pub mod result;
pub mod tensorboard;
