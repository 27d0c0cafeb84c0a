//! Bottleneck adapters in the three forms of LLM-Adapters (Hu et al., [arXiv 2304.01933](https://arxiv.org/abs/2304.01933)):
//! `series` (Houlsby et al., [arXiv 1902.00751](https://arxiv.org/abs/1902.00751)), `adapterp`
//! (Pfeiffer et al., [arXiv 2005.00052](https://arxiv.org/abs/2005.00052)) and `parallel`
//! (He et al., [arXiv 2110.04366](https://arxiv.org/abs/2110.04366)). PEFT has no such type; the files are those of the
//! published fork, with `peft_type` `BOTTLENECK`.
//!
//! a(z) = f · s · act(dropout(z) D) U, with D `[width, size]`, U `[size, width']`, no biases, the scaling s and the response
//! factor f. Which form a module takes:
//!
//! | form | on | y | parameters |
//! |---|---|---|---|
//! | input | modules that enter the MLP, under `series` and `adapterp` | (x + a(x)) W + b | 2 · size · in |
//! | output | modules that leave it, under `series` and `adapterp` | h + a(h) with h = x W + b | 2 · size · out |
//! | parallel | any, under `parallel` | x W + b + a(x) | size · (in + out) |
//!
//! `series` and `adapterp` differ in their usual targets alone. D is Kaiming-uniform with a = √5, U zero. act lies between D
//! and U, so none of the forms can be merged.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation, module};
use ist_core::{LayerPass, streams};
use serde_json::{Map, Value, json};

use crate::fields::Dialect;
use crate::fields::Fields;
use crate::frozen::dropout::dropout;
use crate::frozen::{Base, FrozenLinear};
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{kaiming_uniform, resting, to_file, transposed};
use crate::site::targets::{Targets, names_site};
use crate::site::{Roles, Site, SiteKind};

/// Names of modules that enter an MLP: LLaMA's and Phi-3's, GPT-J's, BLOOM's and GPT-NeoX's, GPT-2's, Mixtral's.
const ENTER: [&str; 8] =
    ["gate_proj", "up_proj", "gate_up_proj", "fc_in", "dense_h_to_4h", "c_fc", "w1", "w3"];
/// Names of modules that leave one.
const LEAVE: [&str; 5] = ["down_proj", "fc_out", "dense_4h_to_h", "mlp.c_proj", "w2"];
/// The names of the methods in our TOML.
const METHODS: [&str; 3] = ["series", "adapterp", "parallel"];
/// The activations by the names of transformers.
pub const ACTIVATIONS: [&str; 8] =
    ["tanh", "relu", "gelu", "gelu_new", "silu", "swish", "sigmoid", "leaky_relu"];

/// Where the adapter's branch leaves and joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Input,
    Output,
    Parallel,
}

/// The checked configuration, with the fork's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct BottleneckConfig {
    /// `series`, `adapterp` or `parallel`.
    pub method: &'static str,
    /// Width of the bottleneck, at least 1.
    pub bottleneck_size: usize,
    /// The activation, one of [`ACTIVATIONS`].
    pub non_linearity: String,
    /// Dropout on the branch's input, in [0, 1).
    pub adapter_dropout: f64,
    /// The branch's factor.
    pub scaling: f64,
    /// The modules to adapt.
    pub targets: Targets,
}

impl BottleneckConfig {
    /// The form on that module; `None` where the method has none.
    fn form(&self, site: &Site) -> Option<Form> {
        match self.method {
            "parallel" => Some(Form::Parallel),
            _ if ENTER.iter().any(|name| names_site(name, site)) => Some(Form::Input),
            _ if LEAVE.iter().any(|name| names_site(name, site)) => Some(Form::Output),
            _ => None,
        }
    }

    /// Width of the branch's input and output.
    fn widths(&self, site: &Site) -> [usize; 2] {
        match self.form(site) {
            Some(Form::Input) => [site.d_in; 2],
            Some(Form::Output) => [site.d_out; 2],
            Some(Form::Parallel) | None => [site.d_in, site.d_out],
        }
    }
}

/// One bottleneck adapter.
#[derive(Module, Debug)]
pub struct Bottleneck {
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
    non_linearity: String,
    dropout: f64,
    scaling: f64,
    /// Whether the branch joins the module's input, or leaves from its output.
    on_input: bool,
    on_output: bool,
}

impl Bottleneck {
    fn new(config: &BottleneckConfig, site: &Site, [down, up]: [Tensor<2>; 2]) -> Self {
        let form = config.form(site);
        Self {
            down: resting(down),
            up: resting(up),
            non_linearity: config.non_linearity.clone(),
            dropout: config.adapter_dropout,
            scaling: config.scaling,
            on_input: form == Some(Form::Input),
            on_output: form == Some(Form::Output),
        }
    }

    /// a(z).
    fn branch(&self, z: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let inner = module::linear(dropout(z, self.dropout, pass.dropout), self.down.val(), None);
        let inner = activate(&self.non_linearity, inner).mul_scalar(self.scaling * pass.response);
        module::linear(inner, self.up.val(), None)
    }
}

/// The activation of that name.
fn activate(name: &str, x: Tensor<3>) -> Tensor<3> {
    match name {
        "tanh" => x.tanh(),
        "relu" => activation::relu(x),
        "gelu" => activation::gelu(x),
        "gelu_new" => activation::gelu_approximate(x),
        "silu" | "swish" => activation::silu(x),
        "sigmoid" => activation::sigmoid(x),
        "leaky_relu" => activation::leaky_relu(x, 0.01),
        _ => unreachable!("the configuration holds one of ACTIVATIONS"),
    }
}

impl Method for Bottleneck {
    const NAME: &'static str = "series";
    const PEFT_TYPE: &'static str = "BOTTLENECK";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] = &[("bias", "\"none\"")];
    type Config = BottleneckConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Toml => fields
                .get("method")
                .and_then(Value::as_str)
                .is_some_and(|name| METHODS.contains(&name)),
            Dialect::Peft => fields.get("peft_type").is_some_and(|kind| kind == Self::PEFT_TYPE),
        }
    }

    fn read(fields: &mut Fields) -> BottleneckConfig {
        let names: Vec<Value> = ACTIVATIONS.map(Value::from).into();
        fields.one_of("non_linearity", &names);
        if fields.dialect() == Dialect::Peft {
            // How the tensors were initialised; the file holds them as they are.
            fields.one_of("init_weights", &[json!("mam_adapter"), json!("bert")]);
        }
        BottleneckConfig {
            method: method(fields),
            bottleneck_size: fields.count("bottleneck_size", 256),
            non_linearity: fields.text("non_linearity", "tanh"),
            adapter_dropout: fields.probability(fields.spelt("dropout", "adapter_dropout"), 0.0),
            scaling: fields.number_above_zero("scaling", 1.0),
            targets: fields.targets(),
        }
    }

    fn write(config: &BottleneckConfig) -> Map<String, Value> {
        let fields = json!({
            "bottleneck_size": config.bottleneck_size,
            "non_linearity": config.non_linearity,
            "adapter_dropout": config.adapter_dropout,
            "scaling": config.scaling,
            "use_parallel_adapter": config.method == "parallel",
            "use_adapterp": config.method == "adapterp",
            "init_weights": "mam_adapter",
            "bias": "none",
        });
        fields.as_object().cloned().unwrap_or_default()
    }

    fn name(config: &BottleneckConfig) -> &'static str {
        config.method
    }

    fn targets(config: &BottleneckConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut BottleneckConfig) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(config: &BottleneckConfig, roles: &Roles) -> Vec<&'static str> {
        match config.method {
            "parallel" => [roles.query, roles.value, roles.key].concat(),
            "adapterp" => roles.mlp_out.to_vec(),
            _ => [roles.mlp_in, roles.mlp_out].concat(),
        }
    }

    fn fits(config: &BottleneckConfig, site: &Site) -> bool {
        site.kind == SiteKind::Linear && config.form(site).is_some()
    }

    fn layout(config: &BottleneckConfig, site: &Site) -> Vec<TensorSpec> {
        let ([d_in, d_out], size) = (config.widths(site), config.bottleneck_size);
        vec![
            TensorSpec::new("adapter_down.weight", [size, d_in]),
            TensorSpec::new("adapter_up.weight", [d_out, size]),
        ]
    }

    fn init(config: &BottleneckConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let ([d_in, d_out], size) = (config.widths(&place.site), config.bottleneck_size);
        let mut rng = streams::stream(seed, &place.site.path);
        let down = kaiming_uniform(&mut rng, [d_in, size], device);
        Self::new(config, &place.site, [down, Tensor::zeros([size, d_out], device)])
    }

    fn from_tensors(
        config: &BottleneckConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let both: Vec<Tensor<2>> =
            tensors.into_iter().map(|data| transposed(data, device)).collect();
        Self::new(
            config,
            &place.site,
            both.try_into().expect("one tensor for each entry of the layout"),
        )
    }

    fn tensors(&self) -> Vec<TensorData> {
        [&self.down, &self.up].map(to_file).into()
    }

    fn token_cost(config: &BottleneckConfig, site: &Site) -> TokenCost {
        let output = config.form(site) == Some(Form::Output);
        token_cost(config.widths(site), config.bottleneck_size, config.adapter_dropout, output)
    }

    fn token_cost_of(&self, _site: &Site) -> TokenCost {
        let ([d_in, size], [_, d_out]) = (self.down.dims(), self.up.dims());
        token_cost([d_in, d_out], size, self.dropout, self.on_output)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if self.on_input {
            return base.forward(x.clone() + self.branch(x, pass), pass.response);
        }
        let h = base.forward(x.clone(), pass.response);
        if self.on_output { h.clone() + self.branch(h, pass) } else { h + self.branch(x, pass) }
    }

    fn merge(&self, _: Base) -> Result<Base, MergeError> {
        Err(MergeError::NonLinear { method: "a bottleneck adapter" })
    }
}

/// Which of the methods the fields name.
fn method(fields: &mut Fields) -> &'static str {
    if fields.dialect() == Dialect::Toml {
        let name = fields.text("method", "series");
        return METHODS.into_iter().find(|method| *method == name).unwrap_or("series");
    }
    let (parallel, adapterp) =
        (fields.flag("use_parallel_adapter", false), fields.flag("use_adapterp", false));
    match (parallel, adapterp) {
        (true, _) => "parallel",
        (false, true) => "adapterp",
        (false, false) => "series",
    }
}

/// The branch's input, with dropout a masked copy of it, and the inner activations stay.
fn token_cost([d_in, d_out]: [usize; 2], size: usize, dropout: f64, output: bool) -> TokenCost {
    let own_input = output || dropout > 0.0;
    TokenCost {
        keeps_input: !own_input,
        keeps_output: false,
        keeps: 2 * size + if own_input { d_in } else { 0 },
        scratch: size + d_in.max(d_out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_sits_where_it_belongs() {
        let config = |method| BottleneckConfig {
            method,
            bottleneck_size: 3,
            non_linearity: "tanh".to_owned(),
            adapter_dropout: 0.0,
            scaling: 1.0,
            targets: Targets::default(),
        };
        let site = |name: &str| Site::linear(format!("model.layers.0.x.{name}"), Some(0), 5, 7);
        let sizes = |method, name: &str| Bottleneck::parameters(&config(method), &site(name));
        assert_eq!(sizes("series", "up_proj"), 2 * 3 * 5);
        assert_eq!(sizes("series", "down_proj"), 2 * 3 * 7);
        assert_eq!(sizes("parallel", "down_proj"), 3 * (5 + 7));
        assert!(!Bottleneck::fits(&config("series"), &site("q_proj")));
        assert!(Bottleneck::fits(&config("parallel"), &site("q_proj")));
    }
}
