//! Configurations: the one gate through which a TOML file becomes a checked value.
//!
//! Beyond this module nothing re-checks a setting and nothing knows a default: a [`RunConfig`] has
//! every default filled in, every value in its range and every path absolute. The gate collects all
//! faults before it refuses, because an experiment's author should not learn of them one at a time.
//!
//! The typed sections are the only list of keys. Their JSON Schema is derived from them, and the
//! gate checks a file against that very schema; so what an editor completes, what is refused and
//! what is documented cannot drift.
//!
//! | stage | look at |
//! |---|---|
//! | TOML with lines and faults | `document` |
//! | `extends`: one file laid over another | `extends`, `layer` |
//! | `--set KEY=VALUE` | `overrides` |
//! | `[sweep]` and `seeds`: several runs of one file | [`study()`] |
//! | what is not yet available | `later` |
//! | keys, types, ranges against the schema | `check`, `schema`, `words`, `nearest` |
//! | what the method says of `[adapter]` | `method` |
//! | what holds between keys | [`load`] in `run`, [`load_pretrain`] in `pretrain` |
//! | relative paths | `paths`, [`ModelRef`] |
//! | how two configurations differ | [`differences`], [`resume_faults`] |

mod adapter;
mod check;
mod data;
mod difference;
mod document;
mod extends;
mod faults;
mod later;
mod layer;
mod logging;
mod memory;
mod method;
mod model;
mod model_ref;
pub(crate) mod nearest;
mod optimizer;
mod overrides;
mod paths;
mod policy;
mod pretrain;
mod run;
mod schema;
mod study;
#[cfg(test)]
mod tests;
mod train;
mod words;

pub use adapter::{AdapterTable, AdapterTables};
pub use data::{DataConfig, Padding, Source, Sources};
pub use difference::{differences, resume_faults};
pub use faults::{ConfigError, Fault, Place};
pub use ist_core::optimizer::RestingState;
pub use ist_core::policy::PolicyConfig;
pub use ist_core::schedule::Schedule;
pub use logging::LoggingConfig;
pub use memory::{Budget, MemoryConfig};
pub use model::{Dtype, ModelConfig};
pub use model_ref::ModelRef;
pub use optimizer::{OptimizerConfig, OptimizerKind};
pub use pretrain::{
    ModelShape, PretrainConfig, PretrainData, PretrainOptimizer, PretrainSteps, SavedDtype,
    TextSource, TokenizerConfig, load_pretrain,
};
pub use run::{RunConfig, load, load_with, parse_with, read, read_with};
pub use schema::{json_schema, pretrain_json_schema};
pub use study::{Expansion, Member, Study, study};
pub use train::{EvalConfig, LossScaling, TrainConfig};
