//! DoRA: LoRA with the magnitude of every output apart from its direction (Liu et al.,
//! [arXiv 2402.09353](https://arxiv.org/abs/2402.09353)). PEFT's `use_dora` of the type `LORA`.
//!
//! y = (m / n) ⊙ (x W + f · s · x A B) + b, with A `[in, r]`, B `[r, out]`, m `[out]`, s as for
//! LoRA, f the response factor and n_c = ‖W_c + f · s · A B_c‖ the norms of the columns, constants
//! in the backward pass. Dropout acts on x in all that is added to x W, its rescaling by m / n - 1
//! included. r · (in + out) + out parameters a module. A and B start as LoRA's, m at the norms of
//! W, so a fresh adapter changes nothing.
//!
//! f multiplies s wherever s stands, as in the published IST: f = 0 leaves (m / ‖W‖) ⊙ x W, which
//! is the base model only as long as m has not moved.

use std::any::Any;

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData, module};
use serde_json::{Map, Value};

use crate::fields::{ConfigError, Dialect, Fields};
use crate::frozen::dora_linear::{DoraLinear, gains};
use crate::frozen::dora_norm::column_norms;
use crate::frozen::dropout::{DropoutMask, dropout};
use crate::frozen::lora_linear::Factors;
use crate::frozen::{Base, FrozenLinear, add_bias, linear};
use crate::method::{
    AdapterModule, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo, Place, TensorSpec,
    TokenCost,
};
use crate::methods::lora::config::{LoraInit, LowRankConfig, WrittenForm, peft_init, setting};
use crate::methods::lora::init::start;
use crate::methods::lora::{DEFAULTS, PEFT_TYPE, factors_layout, is_lora};
use crate::parameter::{resting, to_file, transposed, values, vector};
use crate::site::Site;
use crate::site::targets::Targets;

/// DoRA's checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DoraConfig {
    /// Ranks, scalings and dropout, as of LoRA.
    pub low_rank: LowRankConfig,
}

/// One DoRA module.
#[derive(Module, Debug)]
pub struct Dora {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    magnitude: Param<Tensor<1>>,
    scaling: f64,
    dropout: f64,
    ratio: f64,
}

impl Dora {
    fn new(config: &DoraConfig, site: &Site, factors: Factors, magnitude: Tensor<1>) -> Self {
        Self {
            a: resting(factors.a),
            b: resting(factors.b),
            magnitude: resting(magnitude),
            scaling: config.low_rank.scaling_of(&site.path),
            dropout: config.low_rank.lora_dropout,
            ratio: config.low_rank.loraplus_lr_ratio,
        }
    }

    /// The formula on a weight that trains itself.
    fn composed(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.scaling * pass.response;
        let dtype = x.dtype();
        let weight = base.weight.value(pass.response, dtype);
        // The norms are constants in the backward pass, so they see the weight without its graph.
        let norms = column_norms(weight.clone().inner().into(), self.a.val(), self.b.val(), scale);
        let gain = gains(self.magnitude.val(), norms).unsqueeze::<3>();
        let input = dropout(x.clone(), self.dropout, pass.dropout);
        let low = module::linear(input.clone(), self.a.val(), None).mul_scalar(scale);
        let plain = linear(input, weight.clone());
        let added = (plain.clone() + module::linear(low, self.b.val(), None)) * gain - plain;
        add_bias(linear(x, weight) + added, base.bias_value(dtype, pass.response))
    }
}

impl MethodConfig for DoraConfig {
    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let mut layout = factors_layout(site, self.low_rank.rank_of(&site.path));
        layout.push(TensorSpec::new("lora_magnitude_vector", [site.d_out]));
        layout
    }

    fn peft_fields(&self, targets: &Targets) -> Map<String, Value> {
        let form = WrittenForm {
            use_dora: true,
            lora_bias: false,
            fan_in_fan_out: targets.fan_in_fan_out(),
        };
        self.low_rank.peft_fields(1, form)
    }

    fn train_as(&mut self, given: &dyn MethodConfig) -> Result<(), ConfigError> {
        let given: &dyn Any = given;
        if let Some(given) = given.downcast_ref::<Self>() {
            self.low_rank.loraplus_lr_ratio = given.low_rank.loraplus_lr_ratio;
        }
        Ok(())
    }

    fn unmatched_patterns(&self, sites: &[Site]) -> Vec<String> {
        self.low_rank.unmatched_patterns(sites)
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.low_rank.rank_of(&site.path), self.low_rank.lora_dropout, site)
    }
}

impl Method for Dora {
    const INFO: MethodInfo = MethodInfo {
        documented_defaults: DEFAULTS,
        settings: &[
            &setting::R,
            &setting::ALPHA,
            &setting::DROPOUT,
            &setting::USE_RSLORA,
            &setting::RANK_PATTERN,
            &setting::ALPHA_PATTERN,
            &setting::LORAPLUS_LR_RATIO,
        ],
        ..MethodInfo::new(&["dora"], PEFT_TYPE)
    };
    type Config = DoraConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        let is_named =
            dialect == Dialect::Toml && fields.get("method").is_some_and(|method| method == "dora");
        let is_asked_for = fields.get("use_dora") == Some(&Value::Bool(true));
        is_named || is_asked_for && is_lora(fields, dialect)
    }

    fn read(fields: &mut Fields) -> DoraConfig {
        if !fields.flag("use_dora", true) {
            fields.fault("use_dora", "must be true where `method` is \"dora\"");
        }
        if fields.dialect() == Dialect::Peft {
            peft_init(fields);
        }
        DoraConfig { low_rank: LowRankConfig::read(fields) }
    }

    fn init(config: &DoraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let factors = start(LoraInit::default(), &config.low_rank, place, seed, device).factors;
        // At scale 0 these are the norms of W alone.
        let weight = place.base.matrix().matrix(1.0);
        let norms = column_norms(weight, factors.a.clone(), factors.b.clone(), 0.0);
        Self::new(config, &place.site, factors, norms)
    }

    fn from_tensors(
        config: &DoraConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let [a, b, magnitude]: [TensorData; 3] =
            tensors.try_into().expect("one tensor for each entry of the layout");
        let factors = Factors { a: transposed(a, device), b: transposed(b, device) };
        Self::new(config, &place.site, factors, vector(magnitude, device))
    }
}

impl AdapterModule for Dora {
    fn tensors(&self) -> Vec<TensorData> {
        vec![to_file(&self.a), to_file(&self.b), values(&self.magnitude)]
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let a = self.a.val().inner();
        let b = self.b.val().inner();
        let magnitude = self.magnitude.val().inner();
        Ok(base.map_matrix(|weight| {
            let sum = weight + a.matmul(b).mul_scalar(self.scaling);
            let norms = sum.clone().square().sum_dim(0).sqrt().squeeze_dim::<1>(0);
            sum * gains(magnitude, norms).unsqueeze::<2>()
        }))
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        if self.ratio == 1.0 {
            return Vec::new();
        }
        // LoRA+ in PEFT: every parameter of one dimension learns as fast as B.
        [self.b.id, self.magnitude.id].map(|id| (id, self.ratio)).into()
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.a.dims()[1], self.dropout, site)
    }
}

impl LinearAdapter for Dora {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if base.weight.trains() {
            return self.composed(base, x, pass);
        }
        let bias = base.bias_value(x.dtype(), pass.response);
        let weight = base.weight.matrix(pass.response);
        let factors = Factors { a: self.a.val(), b: self.b.val() };
        let operation = DoraLinear {
            scale: self.scaling * pass.response,
            mask: DropoutMask::of(self.dropout, pass.dropout),
        };
        add_bias(operation.apply(x, weight, factors, self.magnitude.val()), bias)
    }
}

/// The low-rank product, the input and the output stay. With dropout, or where a bias makes another
/// output of it, the output is one of its own. Dropout needs the masked input and one more output
/// for a moment.
fn token_cost(rank: usize, dropout: f64, site: &Site) -> TokenCost {
    let is_masked = dropout > 0.0;
    let has_own_output = is_masked || site.bias;
    TokenCost {
        keeps_input: true,
        keeps_output: !has_own_output,
        keeps: rank + if has_own_output { site.d_out } else { 0 },
        scratch: rank + if is_masked { site.d_in + site.d_out } else { 0 },
    }
}
