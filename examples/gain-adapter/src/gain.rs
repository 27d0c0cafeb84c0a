//! A gain on every input feature: y = (x ⊙ g) W + b, with g starting at 1.

use ist_core::LayerPass;
use ist_core::burn::{
    self,
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use ist_peft::{
    Base, Fields, FrozenLinear, MergeError, Method, Place, Site, SiteKind, Targets, TensorSpec,
};

/// One module's gains, `[in]`; of an embedding `[hidden]`.
#[derive(Module, Debug)]
pub struct Gain {
    gain: Param<Tensor<1>>,
}

impl Gain {
    /// 1 + f (g - 1): the response factor moves between the frozen model (0) and the full gain (1).
    fn at(&self, response: f64) -> Tensor<3> {
        self.gain.val().sub_scalar(1.0).mul_scalar(response).add_scalar(1.0).unsqueeze()
    }
}

/// A gain that rests: the step lifts the adapters of the layers it chooses.
fn resting(gain: Tensor<1>) -> Gain {
    Gain { gain: Param::from_tensor(gain).set_require_grad(false) }
}

impl Method for Gain {
    const NAME: &'static str = "gain";
    const PEFT_TYPE: &'static str = "GAIN";
    type Config = Targets;

    fn read(fields: &mut Fields) -> Targets {
        fields.targets()
    }
    fn targets(config: &Targets) -> &Targets {
        config
    }
    fn targets_mut(config: &mut Targets) -> &mut Targets {
        config
    }
    fn fits(_: &Targets, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Linear | SiteKind::Embedding)
    }
    fn layout(_: &Targets, site: &Site) -> Vec<TensorSpec> {
        let width = if site.kind == SiteKind::Linear { site.d_in } else { site.d_out };
        vec![TensorSpec::new("gain", [width])]
    }
    fn init(config: &Targets, place: &Place, _seed: u64, device: &Device) -> Self {
        resting(Tensor::ones(Self::layout(config, &place.site).remove(0).shape, device))
    }
    fn from_tensors(_: &Targets, _: &Place, mut tensors: Vec<TensorData>, device: &Device) -> Self {
        resting(Tensor::from_data(tensors.remove(0), device))
    }
    fn tensors(&self) -> Vec<TensorData> {
        vec![self.gain.val().inner().into_data()]
    }
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        base.forward(x * self.at(pass.response), pass.response)
    }
    fn embed(&self, base: Tensor<3>, _ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        base * self.at(pass.response)
    }
    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let gain = self.gain.val().inner();
        // A linear weight is [in, out], an embedding's table [vocabulary, hidden].
        let gain: Tensor<2> =
            if matches!(base, Base::Linear(_)) { gain.unsqueeze_dim(1) } else { gain.unsqueeze() };
        Ok(base.map_matrix(|weight| weight * gain))
    }
}
