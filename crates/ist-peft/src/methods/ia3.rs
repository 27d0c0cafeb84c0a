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

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value, json};

use crate::fields::Fields;
use crate::fields::setting::NamesSetting;
use crate::frozen::weight::is_full;
use crate::frozen::{Base, FrozenLinear};
use crate::method::{
    AdapterModule, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo, Place, TensorSpec,
    TokenCost,
};
use crate::parameter::{resting, vector};
use crate::site::targets::{TargetFields, TargetModules, Targets};
use crate::site::{Roles, Site};

/// The modules that leave an MLP, whose input is scaled where the configuration does not say:
/// PEFT's choice by architecture.
const FEEDFORWARD: [&str; 5] = ["down_proj", "fc_out", "dense_4h_to_h", "mlp.c_proj", "fc2"];

/// The targets whose input is scaled instead of their output. By default those that leave an MLP.
const FEEDFORWARD_MODULES: NamesSetting = NamesSetting { name: "feedforward_modules" };

/// The checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct Ia3Config {
    /// The targets whose input is scaled.
    pub feedforward_modules: Option<TargetModules>,
}

impl Ia3Config {
    fn scales_input(&self, site: &Site) -> bool {
        self.feedforward_modules.as_ref().is_some_and(|modules| modules.matches(site))
    }

    /// PEFT wants a part of the targets. A name here may be the end of one there.
    fn feedforward_json(&self, targets: &Targets) -> Value {
        match (&self.feedforward_modules, targets.names()) {
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
        if is_full(response) {
            return scale.unsqueeze();
        }
        scale.sub_scalar(1.0).mul_scalar(response).add_scalar(1.0).unsqueeze()
    }
}

impl MethodConfig for Ia3Config {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        [roles.key, roles.value, roles.mlp_out].concat()
    }

    fn peft_fields(&self, targets: &Targets) -> Map<String, Value> {
        Map::from_iter([
            (FEEDFORWARD_MODULES.name.to_owned(), self.feedforward_json(targets)),
            ("fan_in_fan_out".to_owned(), json!(targets.fan_in_fan_out())),
        ])
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let shape = if self.scales_input(site) { [1, site.d_in] } else { [site.d_out, 1] };
        vec![TensorSpec::new("ia3_l", shape)]
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.scales_input(site), site)
    }
}

impl Method for Ia3 {
    const INFO: MethodInfo = MethodInfo {
        target_fields: TargetFields::Modules,
        documented_defaults: &[("init_ia3_weights", "true")],
        settings: &[&FEEDFORWARD_MODULES],
        ..MethodInfo::new(&["ia3"], "IA3")
    };
    type Config = Ia3Config;

    fn read(fields: &mut Fields) -> Ia3Config {
        // PEFT's own defaults by architecture are these names as well.
        let usual = || TargetModules::Names(FEEDFORWARD.iter().map(ToString::to_string).collect());
        let given = fields.modules(FEEDFORWARD_MODULES.name);
        Ia3Config { feedforward_modules: Some(given.unwrap_or_else(usual)) }
    }

    fn init(config: &Ia3Config, place: &Place, _seed: u64, device: &Device) -> Self {
        let width = config.parameters(&place.site);
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
}

impl AdapterModule for Ia3 {
    fn tensors(&self) -> Vec<TensorData> {
        let scale = self.scale.val().inner();
        let scale: Tensor<2> =
            if self.on_input { scale.unsqueeze() } else { scale.unsqueeze_dim(1) };
        vec![scale.into_data()]
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let scale = self.scale.val().inner();
        if self.on_input {
            // (x ⊙ l) W = x (l ⊙ W): the rows of W `[in, out]` are scaled and the bias is not.
            return Ok(base.map_matrix(|weight| weight * scale.unsqueeze_dim(1)));
        }
        let bias_scale = scale.clone();
        Ok(base.map_matrix(|weight| weight * scale.unsqueeze()).map_bias(|bias| bias * bias_scale))
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.on_input, site)
    }
}

impl LinearAdapter for Ia3 {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.at(pass.response);
        if self.on_input {
            base.forward(x * scale, pass.response)
        } else {
            base.forward(x, pass.response) * scale
        }
    }
}

/// The gradient of the scale needs what it multiplied.
fn token_cost(on_input: bool, site: &Site) -> TokenCost {
    if on_input {
        return TokenCost { keeps_input: true, scratch: site.d_in, ..TokenCost::default() };
    }
    TokenCost { keeps: site.d_out, scratch: site.d_out, ..TokenCost::default() }
}
