//! (IA)³: element-wise scales of keys, values and the MLP's inner activations
//! (Liu et al., [arXiv 2205.05638](https://arxiv.org/abs/2205.05638)); PEFT's `IA3`.
//!
//! With a trained vector l, starting at ones, and l_f = 1 + f (l - 1) at the response factor f:
//!
//! - on most modules the output is scaled, y = (x W + b) ⊙ l_f, with l `[out]`;
//! - on `feedforward_modules` the input is, y = (x ⊙ l_f) W + b, with l `[in]`.
//!
//! `out` (or `in`) parameters a module. The response factor is our extension: published IST knows
//! none for (IA)³. There is no dropout and no scaling.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ist_core::LayerPass;
use serde_json::{Map, Value, json};

use crate::fields::Fields;
use crate::frozen::{Base, FrozenLinear};
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{resting, vector};
use crate::site::targets::{TargetModules, Targets};
use crate::site::{Roles, Site};

/// The modules that leave an MLP, whose input is scaled where the configuration does not say:
/// PEFT's choice by architecture.
const FEEDFORWARD: [&str; 5] = ["down_proj", "fc_out", "dense_4h_to_h", "mlp.c_proj", "fc2"];

/// The checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct Ia3Config {
    /// The modules to adapt.
    pub targets: Targets,
    /// Those among them whose input is scaled.
    pub feedforward_modules: Option<TargetModules>,
}

impl Ia3Config {
    fn scales_input(&self, site: &Site) -> bool {
        self.feedforward_modules.as_ref().is_some_and(|modules| modules.matches(site))
    }

    /// PEFT wants a part of the targets; a name here may be the end of one there.
    fn feedforward_json(&self) -> Value {
        match (&self.feedforward_modules, self.targets.names()) {
            (Some(TargetModules::Names(names)), Some(targets)) => {
                let ends = |target: &&String, name: &String| {
                    *target == name || target.ends_with(&format!(".{name}"))
                };
                let chosen =
                    targets.iter().filter(|target| names.iter().any(|name| ends(target, name)));
                json!(chosen.collect::<Vec<_>>())
            }
            (modules, _) => modules.as_ref().map_or(json!([]), TargetModules::to_json),
        }
    }
}

/// The scales of one module.
#[derive(Module, Debug)]
pub struct Ia3 {
    scale: Param<Tensor<1>>,
    on_input: bool,
}

impl Ia3 {
    fn new(config: &Ia3Config, site: &Site, scale: Tensor<1>) -> Self {
        Self { scale: resting(scale), on_input: config.scales_input(site) }
    }

    /// l_f, which multiplies the last dimension.
    fn at(&self, response: f64) -> Tensor<3> {
        let scale = self.scale.val();
        let full = (response - 1.0).abs() < f64::EPSILON;
        let scale =
            if full { scale } else { scale.sub_scalar(1.0).mul_scalar(response).add_scalar(1.0) };
        scale.unsqueeze()
    }
}

impl Method for Ia3 {
    const NAME: &'static str = "ia3";
    const PEFT_TYPE: &'static str = "IA3";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("init_ia3_weights", "true")];
    type Config = Ia3Config;

    fn read(fields: &mut Fields) -> Ia3Config {
        // PEFT's own defaults by architecture are these names as well.
        let usual = FEEDFORWARD.iter().map(ToString::to_string).collect();
        let given = fields.modules("feedforward_modules");
        Ia3Config {
            targets: fields.targets_in_every_layer(),
            feedforward_modules: given.or(Some(TargetModules::Names(usual))),
        }
    }

    fn write(config: &Ia3Config) -> Map<String, Value> {
        Map::from_iter([
            ("feedforward_modules".to_owned(), config.feedforward_json()),
            ("fan_in_fan_out".to_owned(), json!(config.targets.fan_in_fan_out())),
        ])
    }

    /// PEFT's configuration of this method knows no layers.
    fn target_fields(config: &Ia3Config) -> Map<String, Value> {
        config.targets.module_fields()
    }

    fn targets(config: &Ia3Config) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut Ia3Config) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(_: &Ia3Config, roles: &Roles) -> Vec<&'static str> {
        [roles.key, roles.value, roles.mlp_out].concat()
    }

    fn layout(config: &Ia3Config, site: &Site) -> Vec<TensorSpec> {
        let shape = if config.scales_input(site) { [1, site.d_in] } else { [site.d_out, 1] };
        vec![TensorSpec::new("ia3_l", shape)]
    }

    fn init(config: &Ia3Config, place: &Place, _seed: u64, device: &Device) -> Self {
        let width = Self::parameters(config, &place.site);
        Self::new(config, &place.site, Tensor::ones([width], device))
    }

    fn from_tensors(
        config: &Ia3Config,
        place: &Place,
        mut tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        Self::new(config, &place.site, vector(tensors.remove(0), device))
    }

    fn tensors(&self) -> Vec<TensorData> {
        let scale = self.scale.val().inner();
        let scale: Tensor<2> =
            if self.on_input { scale.unsqueeze() } else { scale.unsqueeze_dim(1) };
        vec![scale.into_data()]
    }

    fn token_cost(config: &Ia3Config, site: &Site) -> TokenCost {
        token_cost(config.scales_input(site), site)
    }

    fn token_cost_of(&self, site: &Site) -> TokenCost {
        token_cost(self.on_input, site)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.at(pass.response);
        if self.on_input {
            base.forward(x * scale, pass.response)
        } else {
            base.forward(x, pass.response) * scale
        }
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let scale = self.scale.val().inner();
        if self.on_input {
            return Ok(base.map_matrix(|weight| weight * scale.unsqueeze_dim(1)));
        }
        let bias_scale = scale.clone();
        Ok(base.map_matrix(|weight| weight * scale.unsqueeze()).map_bias(|bias| bias * bias_scale))
    }
}

/// The gradient of the scale needs what it multiplied.
fn token_cost(on_input: bool, site: &Site) -> TokenCost {
    if on_input {
        TokenCost { keeps_input: true, keeps_output: false, keeps: 0, scratch: site.d_in }
    } else {
        TokenCost {
            keeps_input: false,
            keeps_output: false,
            keeps: site.d_out,
            scratch: site.d_out,
        }
    }
}
