//! Full fine-tuning: the modules' own weights train, as LISA does with the layers it draws (Pan et
//! al., [arXiv 2403.17919](https://arxiv.org/abs/2403.17919)). PEFT has no such method. The file is
//! in its form, with `FULL` as the type, and holds the weights themselves, not differences.
//!
//! A weight W₀ is replaced by W₀ + f · (W - W₀) with W a trained copy in f32 and f the response
//! factor, and a bias likewise:
//!
//! - linear `[in, out]`: y = x W + b, and (1 - f) · x W₀ + f · x W + b at other factors than 1, so
//!   that no third matrix exists ([`blended`]). The backward pass keeps x and makes dW = xᵀ g, as
//!   large as W;
//! - embedding `[vocabulary, hidden]`: rows of W. A head that is tied to the table continues to
//!   read W₀. Merging unties it;
//! - norm `[width]`: as [`LayerNormTuning`].
//!
//! As many parameters as the module has: a bias trains with its weight. The copies begin at W₀, so
//! a fresh adapter is the base model. Weight decay pulls them to 0, not to W₀. W₀ stays beside W
//! for the factors of probes.

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::fields::Fields;
use crate::frozen::weight::{cast, is_full};
use crate::frozen::{Base, FrozenLinear, add_bias, blended, linear, lookup};
use crate::method::{
    AdapterModule, EmbeddingAdapter, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo,
    NormAdapter, Place, TensorSpec, TokenCost,
};
use crate::methods::layernorm::{self, LayerNormTuning};
use crate::parameter::{from_file, resting, to_file, transposed, values};
use crate::site::{Roles, Site, SiteKind};

/// The input stays.
const TOKEN_COST: TokenCost =
    TokenCost { keeps_input: true, keeps_output: false, keeps: 0, scratch: 0 };

/// Full fine-tuning's checked configuration, which has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullConfig;

/// The trained copy of one module.
#[derive(Module, Debug)]
pub enum Full {
    /// A linear layer, its weight as the file holds it.
    Linear(FullMatrix),
    /// An embedding table.
    Embedding(FullMatrix),
    /// A normalisation.
    Norm(LayerNormTuning),
}

/// A trained matrix, with the bias of a linear layer that has one.
#[derive(Module, Debug)]
pub struct FullMatrix {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl FullMatrix {
    fn copy_of(base: &Base) -> Self {
        let bias = base.bias().map(|bias| resting(bias.as_parameter()));
        Self { weight: resting(base.matrix().as_parameter()), bias }
    }

    fn merge(&self, base: Base) -> Base {
        let base = base.map_matrix(|_| self.weight.val().inner());
        match &self.bias {
            Some(bias) => base.map_bias(|_| bias.val().inner()),
            None => base,
        }
    }
}

impl LinearAdapter for FullMatrix {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let f = pass.response;
        let dtype = x.dtype();
        let bias = base.bias.as_ref().zip(self.bias.as_ref());
        let bias = bias.map(|(frozen, bias)| frozen.towards(bias.val(), f, dtype));
        // At both ends one product is enough.
        let product = if is_full(f) {
            linear(x, self.weight.val())
        } else if f == 0.0 {
            linear(x, base.weight.matrix(f))
        } else {
            blended(x, base.weight.matrix(f), self.weight.val(), f)
        };
        add_bias(product, bias)
    }
}

impl EmbeddingAdapter for FullMatrix {
    fn embed(&self, frozen: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        let rows = cast(lookup(self.weight.val(), ids), frozen.dtype());
        if is_full(pass.response) {
            return rows;
        }
        frozen.clone() + (rows - frozen).mul_scalar(pass.response)
    }
}

impl MethodConfig for FullConfig {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        [roles.linear, roles.norms].concat()
    }

    fn fits(&self, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Linear | SiteKind::Embedding | SiteKind::Norm)
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        match site.kind {
            SiteKind::Linear => {
                let weight = TensorSpec::new("weight", [site.d_out, site.d_in]);
                let bias = site.bias.then(|| TensorSpec::new("bias", [site.d_out]));
                [weight].into_iter().chain(bias).collect()
            }
            SiteKind::Embedding => vec![TensorSpec::new("weight", [site.d_in, site.d_out])],
            SiteKind::Norm => layernorm::layout(site, "weight", "bias"),
            SiteKind::Attention { .. } => Vec::new(),
        }
    }

    fn token_cost(&self, _: &Site) -> TokenCost {
        TOKEN_COST
    }
}

impl Method for Full {
    const INFO: MethodInfo = MethodInfo {
        takes: "linear modules, embeddings and normalisations",
        ..MethodInfo::new(&["full"], "FULL")
    };
    type Config = FullConfig;

    fn read(_: &mut Fields) -> FullConfig {
        FullConfig
    }

    fn init(_: &FullConfig, place: &Place, _: u64, _: &Device) -> Self {
        match place.site.kind {
            SiteKind::Norm => Self::Norm(LayerNormTuning::copy_of(&place.base)),
            SiteKind::Embedding => Self::Embedding(FullMatrix::copy_of(&place.base)),
            _ => Self::Linear(FullMatrix::copy_of(&place.base)),
        }
    }

    fn from_tensors(
        _: &FullConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        if place.site.kind == SiteKind::Norm {
            return Self::Norm(layernorm::from_tensors(tensors, device));
        }
        let mut tensors = tensors.into_iter();
        let weight = tensors.next().expect("one tensor for each entry of the layout");
        let bias = tensors.next().map(|bias| resting(from_file(bias, device)));
        if place.site.kind == SiteKind::Embedding {
            // A table lies in files as it does here, `[vocabulary, hidden]`.
            let weight = resting(from_file(weight, device));
            return Self::Embedding(FullMatrix { weight, bias });
        }
        Self::Linear(FullMatrix { weight: resting(transposed(weight, device)), bias })
    }
}

impl AdapterModule for Full {
    fn tensors(&self) -> Vec<TensorData> {
        let with_bias = |weight: TensorData, matrix: &FullMatrix| {
            [weight].into_iter().chain(matrix.bias.as_ref().map(values)).collect()
        };
        match self {
            Self::Linear(matrix) => with_bias(to_file(&matrix.weight), matrix),
            Self::Embedding(matrix) => with_bias(values(&matrix.weight), matrix),
            Self::Norm(norm) => norm.tensors(),
        }
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        match self {
            Self::Linear(matrix) | Self::Embedding(matrix) => Ok(matrix.merge(base)),
            Self::Norm(norm) => norm.merge(base),
        }
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        let Self::Linear(matrix) = self else { return None };
        Some(matrix)
    }

    fn as_embedding(&self) -> Option<&dyn EmbeddingAdapter> {
        let Self::Embedding(table) = self else { return None };
        Some(table)
    }

    fn as_norm(&self) -> Option<&dyn NormAdapter> {
        let Self::Norm(norm) = self else { return None };
        Some(norm)
    }

    fn token_cost(&self, _: &Site) -> TokenCost {
        TOKEN_COST
    }
}
