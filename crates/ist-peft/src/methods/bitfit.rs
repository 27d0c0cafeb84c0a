//! BitFit: the biases train and nothing else (Ben Zaken et al.,
//! [arXiv 2106.10199](https://arxiv.org/abs/2106.10199)). PEFT has no such method. The file is in
//! its form, with `BITFIT` as the type.
//!
//! y = x W + b₀ + f · (b - b₀) with b `[out]` a trained copy of the frozen bias b₀ in f32 and f the
//! response factor. The same holds for the bias of a norm. `out` parameters a module. The copy
//! begins at b₀, so a fresh adapter is the base model. Weight decay pulls it to 0, not to b₀.
//! Modules without a bias are left alone, and a model without any is refused.

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::fields::Fields;
use crate::frozen::linear::linear_in;
use crate::frozen::{Base, FrozenLinear, FrozenNorm, NormValues, Weight, add_bias};
use crate::method::{
    AdapterModule, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo, NormAdapter, Place,
    TensorSpec, TokenCost,
};
use crate::parameter::{from_file, resting, values};
use crate::site::{Roles, Site, SiteKind};

/// BitFit's checked configuration, which has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitFitConfig;

/// The trained bias of one module.
#[derive(Module, Debug)]
pub struct BitFit {
    bias: Param<Tensor<1>>,
}

impl BitFit {
    /// b₀ + f · (b - b₀). Nothing where the module has no bias.
    fn value(
        &self,
        frozen: Option<&Weight<1>>,
        dtype: DType,
        pass: &LayerPass,
    ) -> Option<Tensor<1>> {
        frozen.map(|frozen| frozen.towards(self.bias.val(), pass.response, dtype))
    }
}

impl MethodConfig for BitFitConfig {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        [roles.linear, roles.norms, roles.final_norm].concat()
    }

    fn fits(&self, site: &Site) -> bool {
        site.bias && matches!(site.kind, SiteKind::Linear | SiteKind::Norm)
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        vec![TensorSpec::new("bias", [site.d_out])]
    }

    /// Nothing stays, and the gradient is a sum over tokens that is made in passing.
    fn token_cost(&self, _: &Site) -> TokenCost {
        TokenCost::default()
    }
}

impl Method for BitFit {
    const INFO: MethodInfo =
        MethodInfo { takes: "modules that have a bias", ..MethodInfo::new(&["bitfit"], "BITFIT") };
    type Config = BitFitConfig;

    fn read(_: &mut Fields) -> BitFitConfig {
        BitFitConfig
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
}

impl AdapterModule for BitFit {
    fn tensors(&self) -> Vec<TensorData> {
        vec![values(&self.bias)]
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        Ok(base.map_bias(|_| self.bias.val().inner()))
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn as_norm(&self) -> Option<&dyn NormAdapter> {
        Some(self)
    }

    fn token_cost(&self, _: &Site) -> TokenCost {
        TokenCost::default()
    }
}

impl LinearAdapter for BitFit {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let bias = self.value(base.bias.as_ref(), x.dtype(), pass);
        // b's gradient does not read the product, so its value may be left out.
        add_bias(linear_in(x, base.weight.matrix(pass.response), pass.needs_output), bias)
    }
}

impl NormAdapter for BitFit {
    fn values(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues {
        let bias = self.value(base.bias.as_ref(), dtype, pass);
        NormValues { weight: base.weight.value(pass.response, dtype), bias }
    }
}
