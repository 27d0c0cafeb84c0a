//! LayerNorm tuning: the normalisations themselves train (Zhao et al.,
//! [arXiv 2312.11420](https://arxiv.org/abs/2312.11420)). PEFT's `LN_TUNING`.
//!
//! A norm's weight w₀ `[width]` is replaced by w₀ + f · (w - w₀), with w a trained copy in f32 and
//! f the response factor. So is its bias where it has one. `width` parameters a norm, twice as many
//! with a bias. The copy begins at w₀, so a fresh adapter is the base model. Weight decay pulls it
//! to 0, not to w₀. Usual are all norms, the one behind the last layer too: it lies outside the
//! layers and trains in every step.

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::fields::Fields;
use crate::frozen::{Base, FrozenNorm, NormValues, Weight};
use crate::method::{
    AdapterModule, MergeError, Method, MethodConfig, MethodInfo, NormAdapter, Place, TensorSpec,
};
use crate::parameter::{from_file, resting, values};
use crate::site::targets::TargetFields;
use crate::site::{Roles, Site, SiteKind};

/// LayerNorm tuning's checked configuration, which has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerNormConfig;

/// The trained copy of one norm.
#[derive(Module, Debug)]
pub struct LayerNormTuning {
    weight: Param<Tensor<1>>,
    bias: Option<Param<Tensor<1>>>,
}

impl LayerNormTuning {
    pub(crate) fn new(weight: Tensor<1>, bias: Option<Tensor<1>>) -> Self {
        Self { weight: resting(weight), bias: bias.map(resting) }
    }

    /// A copy of the norm as it is.
    pub(crate) fn copy_of(base: &Base) -> Self {
        let Base::Norm(norm) = base else { panic!("a copy of a norm is asked of {base:?}") };
        Self::new(norm.weight.as_parameter(), norm.bias.as_ref().map(Weight::as_parameter))
    }
}

impl MethodConfig for LayerNormConfig {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        [roles.norms, roles.final_norm].concat()
    }

    fn fits(&self, site: &Site) -> bool {
        site.kind == SiteKind::Norm
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        layout(site, "ln_tuning_layers.weight", "ln_tuning_layers.bias")
    }
}

impl Method for LayerNormTuning {
    const INFO: MethodInfo = MethodInfo {
        takes: "normalisations",
        target_fields: TargetFields::Modules,
        ..MethodInfo::new(&["layernorm"], "LN_TUNING")
    };
    type Config = LayerNormConfig;

    fn read(_: &mut Fields) -> LayerNormConfig {
        LayerNormConfig
    }

    fn init(_: &LayerNormConfig, place: &Place, _: u64, _: &Device) -> Self {
        Self::copy_of(&place.base)
    }

    fn from_tensors(
        _: &LayerNormConfig,
        _: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        from_tensors(tensors, device)
    }
}

impl AdapterModule for LayerNormTuning {
    /// The copies in the order weight, bias.
    fn tensors(&self) -> Vec<TensorData> {
        [&self.weight].into_iter().chain(&self.bias).map(values).collect()
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let base = base.map_norm(|_| self.weight.val().inner());
        Ok(match &self.bias {
            Some(bias) => base.map_bias(|_| bias.val().inner()),
            None => base,
        })
    }

    fn as_norm(&self) -> Option<&dyn NormAdapter> {
        Some(self)
    }
}

impl NormAdapter for LayerNormTuning {
    fn values(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues {
        let bias = base.bias.as_ref().zip(self.bias.as_ref());
        NormValues {
            weight: base.weight.towards(self.weight.val(), pass.response, dtype),
            bias: bias.map(|(base, bias)| base.towards(bias.val(), pass.response, dtype)),
        }
    }
}

/// The tensors of a norm at `site`, whose file calls them so.
pub(crate) fn layout(site: &Site, weight: &'static str, bias: &'static str) -> Vec<TensorSpec> {
    let bias = site.bias.then(|| TensorSpec::new(bias, [site.d_out]));
    [TensorSpec::new(weight, [site.d_out])].into_iter().chain(bias).collect()
}

/// The copy of a norm from the tensors of [`layout`].
pub(crate) fn from_tensors(tensors: Vec<TensorData>, device: &Device) -> LayerNormTuning {
    let mut tensors = tensors.into_iter().map(|data| from_file(data, device));
    let weight = tensors.next().expect("one tensor for each entry of the layout");
    LayerNormTuning::new(weight, tensors.next())
}
