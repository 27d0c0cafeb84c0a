//! Bottleneck adapters in the three forms of LLM-Adapters (Hu et al.,
//! [arXiv 2304.01933](https://arxiv.org/abs/2304.01933)): `series` (Houlsby et al.,
//! [arXiv 1902.00751](https://arxiv.org/abs/1902.00751)), `adapterp` (Pfeiffer et al.,
//! [arXiv 2005.00052](https://arxiv.org/abs/2005.00052)) and `parallel` (He et al.,
//! [arXiv 2110.04366](https://arxiv.org/abs/2110.04366)). PEFT has no such type. The files are
//! those of the published fork, with `peft_type` `BOTTLENECK`.
//!
//! a(z) = f · s · act(dropout(z) D) U, with D `[width, size]`, U `[size, width']`, no biases, the
//! scaling s and the response factor f. Which form a module takes:
//!
//! | form | on | y | parameters |
//! |---|---|---|---|
//! | input | modules that enter the MLP, under `series` and `adapterp` | (x + a(x)) W + b | 2 · size · in |
//! | output | modules that leave it, under `series` and `adapterp` | h + a(h) with h = x W + b | 2 · size · out |
//! | parallel | any, under `parallel` | x W + b + a(x) | size · (in + out) |
//!
//! `series` and `adapterp` differ in their usual targets alone. D is Kaiming-uniform with a = √5, U
//! zero. act lies between D and U, so none of the forms can be merged.

use ist_core::{LayerPass, burn, streams};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation, module};
use serde_json::{Map, Value, json};

use crate::fields::setting::Setting;
use crate::fields::values::{AboveZero, Count, OneOf, Probability};
use crate::fields::{Dialect, Fields};
use crate::frozen::{Base, FrozenLinear, dropout};
use crate::method::{
    AdapterModule, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo, Place, TensorSpec,
    TokenCost,
};
use crate::parameter::{MatrixShape, kaiming_uniform, resting, to_file, transposed};
use crate::site::targets::{Targets, names_site};
use crate::site::{Roles, Site, SiteKind};

/// Names of modules that enter an MLP: LLaMA's and Phi-3's, GPT-J's, BLOOM's and GPT-NeoX's,
/// GPT-2's, Mixtral's.
const ENTER: [&str; 8] =
    ["gate_proj", "up_proj", "gate_up_proj", "fc_in", "dense_h_to_4h", "c_fc", "w1", "w3"];
/// Names of modules that leave one.
const LEAVE: [&str; 5] = ["down_proj", "fc_out", "dense_4h_to_h", "mlp.c_proj", "w2"];
/// The names of the methods in our TOML.
const METHODS: [&str; 3] = ["series", "adapterp", "parallel"];
/// The activations by the names of transformers.
pub const ACTIVATIONS: [&str; 8] =
    ["tanh", "relu", "gelu", "gelu_new", "silu", "swish", "sigmoid", "leaky_relu"];

const BOTTLENECK_SIZE: Setting<Count> =
    Setting::new("bottleneck_size", "The width of the bottleneck.", Count, 256);
const NON_LINEARITY: Setting<OneOf> = Setting::new(
    "non_linearity",
    "The activation between down and up.",
    OneOf(&ACTIVATIONS),
    "tanh",
);
const SCALING: Setting<AboveZero> =
    Setting::new("scaling", "The factor of the branch.", AboveZero, 1.0);
const DROPOUT: Setting<Probability> =
    Setting::new("dropout", "Dropout on the input of the method's branch.", Probability, 0.0)
        .called("adapter_dropout");

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
    pub non_linearity: &'static str,
    /// Dropout on the branch's input, in [0, 1).
    pub adapter_dropout: f64,
    /// The branch's factor.
    pub scaling: f64,
}

/// What the branch reads and writes.
#[derive(Clone, Copy)]
struct Widths {
    d_in: usize,
    d_out: usize,
}

impl BottleneckConfig {
    /// The form on that module. `None` where the method has none.
    fn form(&self, site: &Site) -> Option<Form> {
        match self.method {
            "parallel" => Some(Form::Parallel),
            _ if ENTER.iter().any(|name| names_site(name, site)) => Some(Form::Input),
            _ if LEAVE.iter().any(|name| names_site(name, site)) => Some(Form::Output),
            _ => None,
        }
    }

    /// Width of the branch's input and output.
    fn widths(&self, site: &Site) -> Widths {
        match self.form(site) {
            Some(Form::Input) => Widths { d_in: site.d_in, d_out: site.d_in },
            Some(Form::Output) => Widths { d_in: site.d_out, d_out: site.d_out },
            Some(Form::Parallel) | None => Widths { d_in: site.d_in, d_out: site.d_out },
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
    fn new(config: &BottleneckConfig, site: &Site, down: Tensor<2>, up: Tensor<2>) -> Self {
        let form = config.form(site);
        Self {
            down: resting(down),
            up: resting(up),
            non_linearity: config.non_linearity.to_owned(),
            dropout: config.adapter_dropout,
            scaling: config.scaling,
            on_input: form == Some(Form::Input),
            on_output: form == Some(Form::Output),
        }
    }

    /// a(z).
    fn branch(&self, z: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let inner = module::linear(dropout(z, self.dropout, pass.dropout), self.down.val(), None);
        // The factors act on the narrow side, where there are fewer numbers.
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

impl MethodConfig for BottleneckConfig {
    fn name(&self) -> Option<&'static str> {
        Some(self.method)
    }

    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        match self.method {
            "parallel" => [roles.query, roles.value, roles.key].concat(),
            "adapterp" => roles.mlp_out.to_vec(),
            _ => [roles.mlp_in, roles.mlp_out].concat(),
        }
    }

    fn fits(&self, site: &Site) -> bool {
        site.kind == SiteKind::Linear && self.form(site).is_some()
    }

    fn peft_fields(&self, _targets: &Targets) -> Map<String, Value> {
        let fields = json!({
            "bottleneck_size": self.bottleneck_size,
            "non_linearity": self.non_linearity,
            "adapter_dropout": self.adapter_dropout,
            "scaling": self.scaling,
            "use_parallel_adapter": self.method == "parallel",
            "use_adapterp": self.method == "adapterp",
            "init_weights": "mam_adapter",
            "bias": "none",
        });
        fields.as_object().cloned().unwrap_or_default()
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let Widths { d_in, d_out } = self.widths(site);
        let size = self.bottleneck_size;
        vec![
            TensorSpec::new("adapter_down.weight", [size, d_in]),
            TensorSpec::new("adapter_up.weight", [d_out, size]),
        ]
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        let needs = BottleneckNeeds {
            widths: self.widths(site),
            size: self.bottleneck_size,
            dropout: self.adapter_dropout,
            on_output: self.form(site) == Some(Form::Output),
        };
        needs.cost()
    }
}

impl Method for Bottleneck {
    const INFO: MethodInfo = MethodInfo {
        documented_defaults: &[("bias", "\"none\"")],
        settings: &[&BOTTLENECK_SIZE, &NON_LINEARITY, &SCALING, &DROPOUT],
        ..MethodInfo::new(&METHODS, "BOTTLENECK")
    };
    type Config = BottleneckConfig;

    fn read(fields: &mut Fields) -> BottleneckConfig {
        let non_linearity = fields.get(&NON_LINEARITY);
        if fields.dialect() == Dialect::Peft {
            // How the tensors were initialised. The file holds them as they are.
            fields.one_of("init_weights", &[json!("mam_adapter"), json!("bert")]);
        }
        BottleneckConfig {
            method: method(fields),
            bottleneck_size: fields.get(&BOTTLENECK_SIZE),
            non_linearity,
            adapter_dropout: fields.get(&DROPOUT),
            scaling: fields.get(&SCALING),
        }
    }

    fn init(config: &BottleneckConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let Widths { d_in, d_out } = config.widths(&place.site);
        let size = config.bottleneck_size;
        let mut rng = streams::stream(seed, &place.site.path);
        let shape = MatrixShape { rows: d_in, columns: size };
        let down = kaiming_uniform(&mut rng, shape, device);
        Self::new(config, &place.site, down, Tensor::zeros([size, d_out], device))
    }

    fn from_tensors(
        config: &BottleneckConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let [down, up]: [TensorData; 2] =
            tensors.try_into().expect("one tensor for each entry of the layout");
        Self::new(config, &place.site, transposed(down, device), transposed(up, device))
    }
}

impl AdapterModule for Bottleneck {
    fn tensors(&self) -> Vec<TensorData> {
        [&self.down, &self.up].map(to_file).into()
    }

    fn merge(&self, _: Base) -> Result<Base, MergeError> {
        Err(MergeError::NonLinear { method: "a bottleneck adapter" })
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn token_cost(&self, _: &Site) -> TokenCost {
        let [d_in, size] = self.down.dims();
        let [_, d_out] = self.up.dims();
        let needs = BottleneckNeeds {
            widths: Widths { d_in, d_out },
            size,
            dropout: self.dropout,
            on_output: self.on_output,
        };
        needs.cost()
    }
}

impl LinearAdapter for Bottleneck {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if self.on_input {
            return base.forward(x.clone() + self.branch(x, pass), pass.response);
        }
        let h = base.forward(x.clone(), pass.response);
        if self.on_output { h.clone() + self.branch(h, pass) } else { h + self.branch(x, pass) }
    }
}

/// Which of the methods the fields name.
fn method(fields: &mut Fields) -> &'static str {
    if fields.dialect() == Dialect::Toml {
        let named = fields.value("method").and_then(Value::as_str);
        return METHODS.into_iter().find(|name| Some(*name) == named).unwrap_or(METHODS[0]);
    }
    let is_parallel = fields.flag("use_parallel_adapter", false);
    let is_adapterp = fields.flag("use_adapterp", false);
    match (is_parallel, is_adapterp) {
        (true, _) => "parallel",
        (false, true) => "adapterp",
        (false, false) => "series",
    }
}

/// What the memory of an adapter follows.
#[derive(Clone, Copy)]
struct BottleneckNeeds {
    widths: Widths,
    size: usize,
    dropout: f64,
    on_output: bool,
}

impl BottleneckNeeds {
    /// The branch's input, with dropout a masked copy of it, and the inner activations stay.
    fn cost(self) -> TokenCost {
        let Widths { d_in, d_out } = self.widths;
        let has_own_input = self.on_output || self.dropout > 0.0;
        TokenCost {
            keeps_input: !has_own_input,
            keeps_output: false,
            keeps: 2 * self.size + if has_own_input { d_in } else { 0 },
            scratch: self.size + d_in.max(d_out),
        }
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
            non_linearity: "tanh",
            adapter_dropout: 0.0,
            scaling: 1.0,
        };
        let site = |name: &str| Site::linear(format!("model.layers.0.x.{name}"), Some(0), 5, 7);
        let sizes = |method, name: &str| config(method).parameters(&site(name));
        assert_eq!(sizes("series", "up_proj"), 2 * 3 * 5);
        assert_eq!(sizes("series", "down_proj"), 2 * 3 * 7);
        assert_eq!(sizes("parallel", "down_proj"), 3 * (5 + 7));
        assert!(!config("series").fits(&site("q_proj")));
        assert!(config("parallel").fits(&site("q_proj")));
    }
}
