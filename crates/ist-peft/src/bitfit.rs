//! BitFit: the biases train and nothing else (Ben Zaken et al., [arXiv 2106.10199](https://arxiv.org/abs/2106.10199)). PEFT
//! has no such method; the file is in its form, with `BITFIT` as the type.
//!
//! y = x W + b₀ + f · (b - b₀) with b `[out]` a trained copy of the frozen bias b₀ in f32 and f the response factor; the same
//! for the bias of a norm. `out` parameters a module. The copy begins at b₀, so a fresh adapter is the base model; weight
//! decay pulls it to 0, not to b₀. Modules without a bias are left alone, and a model without any is refused.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use ist_core::LayerPass;

use crate::fields::Fields;
use crate::frozen::{Base, FrozenLinear, FrozenNorm, NormValues, add_bias};
use crate::linear::linear_in;
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{from_file, resting, values};
use crate::site::{Roles, Site, SiteKind};
use crate::targets::Targets;
use crate::weight::Weight;

/// BitFit's checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct BitFitConfig {
    /// The modules to adapt.
    pub targets: Targets,
}

/// The trained bias of one module.
#[derive(Module, Debug)]
pub struct BitFit {
    bias: Param<Tensor<1>>,
}

impl BitFit {
    /// b₀ + f · (b - b₀); nothing where the module has no bias.
    fn value(
        &self,
        frozen: Option<&Weight<1>>,
        dtype: DType,
        pass: &LayerPass,
    ) -> Option<Tensor<1>> {
        frozen.map(|frozen| frozen.towards(self.bias.val(), pass.response, dtype))
    }
}

impl Method for BitFit {
    const NAME: &'static str = "bitfit";
    const PEFT_TYPE: &'static str = "BITFIT";
    const TAKES: &'static str = "modules that have a bias";
    type Config = BitFitConfig;

    fn read(fields: &mut Fields) -> BitFitConfig {
        BitFitConfig { targets: fields.targets() }
    }

    fn targets(config: &BitFitConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut BitFitConfig) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(_: &BitFitConfig, roles: &Roles) -> Vec<&'static str> {
        [roles.linear, roles.norms, roles.final_norm].concat()
    }

    fn fits(_: &BitFitConfig, site: &Site) -> bool {
        site.bias && matches!(site.kind, SiteKind::Linear | SiteKind::Norm)
    }

    fn layout(_: &BitFitConfig, site: &Site) -> Vec<TensorSpec> {
        vec![TensorSpec::new("bias", [site.d_out])]
    }

    fn init(_: &BitFitConfig, place: &Place, _: u64, _: &Device) -> Self {
        let bias = place.base.bias().expect("the method fits modules with a bias alone");
        Self { bias: resting(bias.as_parameter()) }
    }

    fn from_tensors(
        _: &BitFitConfig,
        _: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let bias = tensors.into_iter().next().expect("one tensor for each entry of the layout");
        Self { bias: resting(from_file(bias, device)) }
    }

    fn tensors(&self) -> Vec<TensorData> {
        vec![values(&self.bias)]
    }

    /// Nothing stays, and the gradient is a sum over tokens that is made in passing.
    fn token_cost(_: &BitFitConfig, _: &Site) -> TokenCost {
        TokenCost::default()
    }

    fn token_cost_of(&self, _: &Site) -> TokenCost {
        TokenCost::default()
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let bias = self.value(base.bias.as_ref(), x.dtype(), pass);
        add_bias(linear_in(x, base.weight.matrix(pass.response), pass.needs_output), bias)
    }

    fn norm(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues {
        let bias = self.value(base.bias.as_ref(), dtype, pass);
        NormValues { weight: base.weight.value(pass.response, dtype), bias }
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        Ok(base.map_bias(|_| self.bias.val().inner()))
    }
}
