//! A gain on every input feature: y = (x ⊙ g) W + b, with g starting at 1.

use ist_core::LayerPass;
use ist_core::burn::{
    self,
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use ist_peft::{
    AdapterModule, Base, EmbeddingAdapter, Fields, FrozenLinear, LinearAdapter, MergeError, Method,
    MethodConfig, MethodInfo, Place, Site, SiteKind, TensorSpec,
};

/// The settings: a gain has none beside its targets.
#[derive(Clone, Debug)]
pub struct GainConfig;

impl MethodConfig for GainConfig {
    fn fits(&self, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Linear | SiteKind::Embedding)
    }
    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let width = if site.kind == SiteKind::Linear { site.d_in } else { site.d_out };
        vec![TensorSpec::new("gain", [width])]
    }
}

/// One module's gains, `[in]`, of an embedding `[hidden]`.
#[derive(Module, Debug)]
pub struct Gain {
    gain: Param<Tensor<1>>,
}

impl Gain {
    /// A gain that rests: the step lifts the adapters of the layers it chooses.
    fn resting(gain: Tensor<1>) -> Self {
        Self { gain: Param::from_tensor(gain).set_require_grad(false) }
    }

    /// 1 + f (g - 1): the response factor moves between the frozen model (0) and the full gain (1).
    fn at(&self, response: f64) -> Tensor<3> {
        self.gain.val().sub_scalar(1.0).mul_scalar(response).add_scalar(1.0).unsqueeze()
    }
}

impl Method for Gain {
    const INFO: MethodInfo = MethodInfo::new(&["gain"], "GAIN");
    type Config = GainConfig;

    fn read(_: &mut Fields) -> GainConfig {
        GainConfig
    }
    fn init(config: &GainConfig, place: &Place, _seed: u64, device: &Device) -> Self {
        Self::resting(Tensor::ones(config.layout(&place.site).remove(0).shape, device))
    }
    fn from_tensors(
        _: &GainConfig,
        _: &Place,
        mut tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        Self::resting(Tensor::from_data(tensors.remove(0), device))
    }
}

impl AdapterModule for Gain {
    fn tensors(&self) -> Vec<TensorData> {
        vec![self.gain.val().inner().into_data()]
    }
    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let gain = self.gain.val().inner();
        // A linear weight is [in, out], an embedding's table [vocabulary, hidden].
        let gain: Tensor<2> =
            if matches!(base, Base::Linear(_)) { gain.unsqueeze_dim(1) } else { gain.unsqueeze() };
        Ok(base.map_matrix(|weight| weight * gain))
    }
    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }
    fn as_embedding(&self) -> Option<&dyn EmbeddingAdapter> {
        Some(self)
    }
}

impl LinearAdapter for Gain {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        base.forward(x * self.at(pass.response), pass.response)
    }
}

impl EmbeddingAdapter for Gain {
    fn embed(&self, rows: Tensor<3>, _ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        rows * self.at(pass.response)
    }
}
