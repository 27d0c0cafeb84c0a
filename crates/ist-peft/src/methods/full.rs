//! Full fine-tuning: the modules' own weights train, as LISA does with the layers it draws (Pan et al.,
//! [arXiv 2403.17919](https://arxiv.org/abs/2403.17919)). PEFT has no such method; the file is in its form, with `FULL` as the
//! type, and holds the weights themselves, not differences.
//!
//! A weight W₀ is replaced by W₀ + f · (W - W₀) with W a trained copy in f32 and f the response factor, and a bias likewise:
//!
//! - linear `[in, out]`: y = x W + b, and (1 - f) · x W₀ + f · x W + b at other factors than 1, so that no third matrix exists
//!   ([`blended`]).
//!   The backward pass keeps x and makes dW = xᵀ g, as large as W;
//! - embedding `[vocabulary, hidden]`: rows of W. A head that is tied to the table goes on reading W₀; merging unties it;
//! - norm `[width]`: as [`LayerNormTuning`].
//!
//! As many parameters as the module has: a bias trains with its weight. The copies begin at W₀, so a fresh adapter is the base
//! model; weight decay pulls them to 0, not to W₀. W₀ stays beside W for the factors of probes.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ist_core::LayerPass;

use crate::fields::Fields;
use crate::frozen::blended::blended;
use crate::frozen::linear::linear;
use crate::frozen::lookup::lookup;
use crate::frozen::weight::{cast, is_full};
use crate::frozen::{Base, FrozenLinear, FrozenNorm, NormValues, add_bias};
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::methods::layernorm::{self, LayerNormTuning};
use crate::parameter::{from_file, resting, to_file, transposed, values};
use crate::site::targets::Targets;
use crate::site::{Roles, Site, SiteKind};

/// The input stays.
const TOKEN_COST: TokenCost =
    TokenCost { keeps_input: true, keeps_output: false, keeps: 0, scratch: 0 };

/// Full fine-tuning's checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct FullConfig {
    /// The modules to adapt.
    pub targets: Targets,
}

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

    /// x W + b with the response factor.
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let (dtype, f) = (x.dtype(), pass.response);
        let bias = base.bias.as_ref().zip(self.bias.as_ref());
        let bias = bias.map(|(frozen, bias)| frozen.towards(bias.val(), f, dtype));
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

impl Method for Full {
    const NAME: &'static str = "full";
    const PEFT_TYPE: &'static str = "FULL";
    const TAKES: &'static str = "linear modules, embeddings and normalisations";
    type Config = FullConfig;

    fn read(fields: &mut Fields) -> FullConfig {
        FullConfig { targets: fields.targets() }
    }

    fn targets(config: &FullConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut FullConfig) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(_: &FullConfig, roles: &Roles) -> Vec<&'static str> {
        [roles.linear, roles.norms].concat()
    }

    fn fits(_: &FullConfig, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Linear | SiteKind::Embedding | SiteKind::Norm)
    }

    fn layout(_: &FullConfig, site: &Site) -> Vec<TensorSpec> {
        match site.kind {
            SiteKind::Linear => {
                let bias = site.bias.then(|| TensorSpec::new("bias", [site.d_out]));
                [TensorSpec::new("weight", [site.d_out, site.d_in])]
                    .into_iter()
                    .chain(bias)
                    .collect()
            }
            SiteKind::Embedding => vec![TensorSpec::new("weight", [site.d_in, site.d_out])],
            SiteKind::Norm => layernorm::layout(site, ["weight", "bias"]),
            SiteKind::Attention { .. } => Vec::new(),
        }
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
            return Self::Embedding(FullMatrix {
                weight: resting(from_file(weight, device)),
                bias,
            });
        }
        Self::Linear(FullMatrix { weight: resting(transposed(weight, device)), bias })
    }

    fn tensors(&self) -> Vec<TensorData> {
        let (weight, bias) = match self {
            Self::Norm(norm) => return norm.copies(),
            Self::Linear(FullMatrix { weight, bias }) => (to_file(weight), bias),
            Self::Embedding(FullMatrix { weight, bias }) => (values(weight), bias),
        };
        [weight].into_iter().chain(bias.as_ref().map(values)).collect()
    }

    fn token_cost(_: &FullConfig, _: &Site) -> TokenCost {
        TOKEN_COST
    }

    fn token_cost_of(&self, _: &Site) -> TokenCost {
        TOKEN_COST
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let Self::Linear(matrix) = self else { unreachable!("a linear layer has the copy of one") };
        matrix.forward(base, x, pass)
    }

    fn embed(&self, base: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        let Self::Embedding(table) = self else { unreachable!("an embedding has the copy of one") };
        let rows = cast(lookup(table.weight.val(), ids), base.dtype());
        if is_full(pass.response) {
            return rows;
        }
        base.clone() + (rows - base).mul_scalar(pass.response)
    }

    fn norm(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues {
        let Self::Norm(norm) = self else { unreachable!("a normalisation has the copy of one") };
        norm.norm(base, dtype, pass)
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let (Self::Linear(FullMatrix { weight, bias })
        | Self::Embedding(FullMatrix { weight, bias })) = self
        else {
            let Self::Norm(norm) = self else { unreachable!("all else was a matrix") };
            return norm.merge(base);
        };
        let base = base.map_matrix(|_| weight.val().inner());
        Ok(match bias {
            Some(bias) => base.map_bias(|_| bias.val().inner()),
            None => base,
        })
    }
}
