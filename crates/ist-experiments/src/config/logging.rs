//! `[logging]`: what a run writes for other programs to look at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[logging]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// Whether the run's folder gets a TensorBoard event file, in `tensorboard/`.
    pub tensorboard: bool,
}
