//! What can be set of the optimizer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// AdamW's constants (Loshchilov & Hutter, arXiv 1711.05101), with PyTorch's names and
/// transformers' defaults.
///
/// With the learning rate lr, a parameter shrinks by the factor 1 - lr · `weight_decay` in each of
/// its updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AdamWSettings {
    /// Decoupled weight decay.
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    #[cfg_attr(feature = "schema", schemars(schema_with = "betas"))]
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub eps: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { weight_decay: 0.0, betas: [0.9, 0.999], eps: 1e-8 }
    }
}

#[cfg(feature = "schema")]
fn betas(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let beta = schemars::json_schema!({"type": "number", "minimum": 0, "exclusiveMaximum": 1});
    schemars::json_schema!({"type": "array", "items": beta, "minItems": 2, "maxItems": 2})
}

/// What happens to the moments of a layer while it rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestingState {
    /// They stay on the device, as in the published code.
    #[default]
    Keep,
    /// They leave the device's memory until the layer is chosen again. No number changes.
    Offload,
    /// They are forgotten and start anew, which departs from IST.
    Drop,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for RestingState {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RestingState".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        crate::schema::choice(&[Self::Keep, Self::Offload, Self::Drop])
    }
}

/// Where [`RestingState::Offload`] puts moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffloadTo {
    /// Host memory, for devices with a memory of their own.
    Host,
    /// Files in that folder, for the CPU, whose memory is the host's.
    Folder(PathBuf),
}
