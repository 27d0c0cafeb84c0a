//! What an adapter on one module computes there.

use ist_core::LayerPass;
use ist_core::burn::module::ParamId;
use ist_core::burn::tensor::{DType, Int, Tensor, TensorData};

use crate::frozen::{Base, FrozenLinear, FrozenNorm, NormValues};
use crate::method::TokenCost;
use crate::site::{Site, SiteKind};

/// Why an adapter cannot be folded into a weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The method is not a linear map of its input.
    #[error("{method} is non-linear in its input and cannot be merged into a weight")]
    NonLinear {
        /// The method.
        method: &'static str,
    },
    /// The method adds something that no weight of the model can hold.
    #[error("{method} cannot be merged: {reason}")]
    NoPlace {
        /// The method.
        method: &'static str,
        /// What has no place.
        reason: &'static str,
    },
}

/// One adapter on one frozen module, whatever its method.
///
/// There is a view for each kind of module. A method has those of the kinds that its configuration
/// [fits](crate::MethodConfig::fits).
pub trait AdapterModule {
    /// The tensors in PEFT's layout.
    fn tensors(&self) -> Vec<TensorData>;

    /// The frozen module with the adapter folded in.
    ///
    /// # Errors
    /// A method that no weight can hold.
    fn merge(&self, base: Base) -> Result<Base, MergeError>;

    /// The adapter of a linear module.
    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        None
    }
    /// The adapter of an embedding.
    fn as_embedding(&self) -> Option<&dyn EmbeddingAdapter> {
        None
    }
    /// The adapter of a normalisation.
    fn as_norm(&self) -> Option<&dyn NormAdapter> {
        None
    }
    /// The adapter of self-attention.
    fn as_prefix(&self) -> Option<&dyn PrefixAdapter> {
        None
    }

    /// Its parameters that do not learn at the base rate, each with its factor.
    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        Vec::new()
    }
    /// What it takes on a linear `site`: the same as its configuration said.
    fn token_cost(&self, site: &Site) -> TokenCost {
        TokenCost::unknown(site)
    }
}

impl dyn AdapterModule + '_ {
    /// Whether it has the view of that kind of module.
    pub fn serves(&self, kind: SiteKind) -> bool {
        match kind {
            SiteKind::Linear => self.as_linear().is_some(),
            SiteKind::Embedding => self.as_embedding().is_some(),
            SiteKind::Norm => self.as_norm().is_some(),
            SiteKind::Attention { .. } => self.as_prefix().is_some(),
        }
    }
}

/// An adapter on a linear module.
pub trait LinearAdapter {
    /// The adapted output.
    ///
    /// `pass.response` scales what the method adds. `pass.dropout` is this module's own seed.
    ///
    /// # Shapes
    /// - x `[batch, sequence, in]`
    /// - result `[batch, sequence, out]`
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3>;
}

/// An adapter on an embedding.
pub trait EmbeddingAdapter {
    /// The adapted output, from the frozen output and the token ids.
    ///
    /// # Shapes
    /// - rows `[batch, sequence, hidden]`, and the result
    /// - ids `[batch, sequence]`
    fn embed(&self, rows: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3>;
}

/// An adapter on a normalisation.
pub trait NormAdapter {
    /// The adapted weight and bias, in the type `dtype`.
    fn values(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues;
}

/// An adapter on self-attention: keys and values in front of all tokens.
pub trait PrefixAdapter {
    /// Keys and values.
    ///
    /// # Shapes
    /// - each `[positions, kv_heads, head_dim]`
    fn prefix(&self, pass: &LayerPass) -> PrefixValues;
    /// Positions that it puts in front.
    fn length(&self) -> usize;
}

/// What a prefix puts in front of a layer's tokens.
#[derive(Clone, Debug)]
pub struct PrefixValues {
    /// Keys, `[positions, kv_heads, head_dim]`.
    pub keys: Tensor<3>,
    /// Values, `[positions, kv_heads, head_dim]`.
    pub values: Tensor<3>,
}
