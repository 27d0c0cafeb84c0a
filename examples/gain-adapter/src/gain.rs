//! A gain on every input feature: y = (x ⊙ g) W + b, with g starting at 1.

use ist_core::LayerPass;
use ist_core::burn::{
    self,
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use ist_peft::fields::Fields;
use ist_peft::{Adapter, ConfigError, Dialect, FrozenLinear, MergeError, Site, SiteKind, Targets, TensorSpec};
use serde_json::{Map, Value, json};

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct GainConfig {
    targets: Targets,
}

/// One module's gains.
#[derive(Module, Debug)]
pub struct Gain {
    gain: Param<Tensor<1>>,
    on_input: bool,
}

impl Gain {
    fn new(site: &Site, gain: Tensor<1>) -> Self {
        // Resting: the step lifts the adapters of the layers it chooses.
        let gain = Param::from_tensor(gain).set_require_grad(false);
        Self { gain, on_input: site.kind == SiteKind::Linear }
    }

    /// 1 + f (g - 1): the response factor moves between the frozen model (0) and the full gain (1).
    fn at(&self, response: f64) -> Tensor<1> {
        self.gain.val().sub_scalar(1.0).mul_scalar(response).add_scalar(1.0)
    }
}

fn width(site: &Site) -> usize {
    if site.kind == SiteKind::Linear { site.d_in } else { site.d_out }
}

impl Adapter for Gain {
    type Config = GainConfig;

    fn parse(fields: &Map<String, Value>, dialect: Dialect) -> Option<Result<GainConfig, ConfigError>> {
        let (tag, name, targets) = match dialect {
            Dialect::Toml => ("method", "gain", "targets"),
            Dialect::Peft => ("peft_type", "GAIN", "target_modules"),
        };
        fields.get(tag).is_some_and(|found| found == name).then(|| {
            let mut reader = Fields::new(fields, dialect);
            reader.skip(tag);
            if dialect == Dialect::Peft {
                for key in ["task_type", "base_model_name_or_path", "inference_mode"] {
                    reader.skip(key);
                }
            }
            let config = GainConfig { targets: reader.targets(targets) };
            reader.finish(&[]).map(|()| config)
        })
    }

    fn method(_: &GainConfig) -> &'static str {
        "gain"
    }

    fn peft_fields(config: &GainConfig) -> Map<String, Value> {
        let mut fields = Map::from_iter([("peft_type".to_owned(), json!("GAIN"))]);
        fields.append(&mut config.targets.peft_fields());
        fields
    }

    fn targets(config: &GainConfig) -> &Targets {
        &config.targets
    }

    fn set_targets(config: &mut GainConfig, targets: Targets) {
        config.targets = targets;
    }

    fn layout(_: &GainConfig, site: &Site) -> Vec<TensorSpec> {
        vec![TensorSpec { suffix: "gain", shape: vec![width(site)] }]
    }

    fn init(_: &GainConfig, site: &Site, _seed: u64, device: &Device) -> Self {
        Self::new(site, Tensor::ones([width(site)], device))
    }

    fn from_tensors(_: &GainConfig, site: &Site, mut tensors: Vec<TensorData>, device: &Device) -> Self {
        Self::new(site, Tensor::from_data(tensors.remove(0), device))
    }

    fn tensors(&self) -> Vec<TensorData> {
        vec![self.gain.val().inner().into_data()]
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        base.forward(x * self.at(pass.response).unsqueeze(), pass.response)
    }

    fn embed(&self, base: Tensor<3>, _ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        base * self.at(pass.response).unsqueeze()
    }

    fn merge(&self, weight: Tensor<2>) -> Result<Tensor<2>, MergeError> {
        let (gain, stored_as) = (self.gain.val().inner(), weight.dtype());
        let gain: Tensor<2> = if self.on_input { gain.unsqueeze_dim(1) } else { gain.unsqueeze() };
        Ok((weight.cast(gain.dtype()) * gain).cast(stored_as))
    }
}
