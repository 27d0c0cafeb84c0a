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

use ist_core::burn;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData, module};
use ist_core::LayerPass;
use serde_json::{Map, Value};

use crate::fields::Dialect;
use crate::fields::{ConfigError, Fields};
use crate::frozen::dora_linear::{dora_linear, gains};
use crate::frozen::dora_norm::column_norms;
use crate::frozen::dropout::dropout;
use crate::frozen::linear::linear;
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::methods::lora::config::{LoraConfig, peft_init, read_shared, write};
use crate::methods::lora::init::start;
use crate::methods::lora::{DEFAULTS, Lora, is_lora};
use crate::parameter::{resting, to_file, transposed, values, vector};
use crate::site::Site;
use crate::site::targets::Targets;

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
    fn new(config: &LoraConfig, site: &Site, [a, b]: [Tensor<2>; 2], magnitude: Tensor<1>) -> Self {
        Self {
            a: resting(a),
            b: resting(b),
            magnitude: resting(magnitude),
            scaling: config.scaling_of(&site.path),
            dropout: config.lora_dropout,
            ratio: config.loraplus_lr_ratio,
        }
    }

    /// The formula on a weight that trains itself.
    fn composed(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let (scale, dtype) = (self.scaling * pass.response, x.dtype());
        let weight = base.weight.value(pass.response, dtype);
        let norms = column_norms(weight.clone().inner().into(), self.a.val(), self.b.val(), scale);
        let gain = gains(self.magnitude.val(), norms).unsqueeze::<3>();
        let input = dropout(x.clone(), self.dropout, pass.dropout);
        let low = module::linear(input.clone(), self.a.val(), None).mul_scalar(scale);
        let plain = linear(input, weight.clone());
        let added = (plain.clone() + module::linear(low, self.b.val(), None)) * gain - plain;
        add_bias(linear(x, weight) + added, base.bias_value(dtype, pass.response))
    }
}

impl Method for Dora {
    const NAME: &'static str = "dora";
    const PEFT_TYPE: &'static str = "LORA";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] = DEFAULTS;
    type Config = LoraConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        let named = dialect == Dialect::Toml
            && fields.get("method").is_some_and(|method| method == Self::NAME);
        let asked = fields.get("use_dora").is_some_and(|dora| *dora == Value::Bool(true));
        named || asked && is_lora(fields, dialect)
    }

    fn read(fields: &mut Fields) -> LoraConfig {
        if !fields.flag("use_dora", true) {
            fields.fault("use_dora", "must be true where `method` is \"dora\"");
        }
        if fields.dialect() == Dialect::Peft {
            peft_init(fields);
        }
        read_shared(fields)
    }

    fn write(config: &LoraConfig) -> Map<String, Value> {
        write(config, true)
    }

    fn targets(config: &LoraConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut LoraConfig) -> &mut Targets {
        &mut config.targets
    }

    fn train_as(config: &mut LoraConfig, given: &LoraConfig) -> Result<(), ConfigError> {
        config.train_as(given)
    }

    fn unmatched_patterns(config: &LoraConfig, sites: &[Site]) -> Vec<String> {
        config.unmatched_patterns(sites)
    }

    fn layout(config: &LoraConfig, site: &Site) -> Vec<TensorSpec> {
        let mut layout = Lora::layout(config, site);
        layout.push(TensorSpec::new("lora_magnitude_vector", [site.d_out]));
        layout
    }

    fn init(config: &LoraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let start = start(config, place, seed, device);
        let norms =
            column_norms(place.base.matrix().matrix(1.0), start.a.clone(), start.b.clone(), 0.0);
        Self::new(config, &place.site, [start.a, start.b], norms)
    }

    fn from_tensors(
        config: &LoraConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let [a, b, magnitude]: [TensorData; 3] =
            tensors.try_into().expect("one tensor for each entry of the layout");
        Self::new(
            config,
            &place.site,
            [a, b].map(|data| transposed(data, device)),
            vector(magnitude, device),
        )
    }

    fn tensors(&self) -> Vec<TensorData> {
        vec![to_file(&self.a), to_file(&self.b), values(&self.magnitude)]
    }

    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        // LoRA+ in PEFT: all of one dimension learns as fast as B.
        let fast = [self.b.id, self.magnitude.id].map(|id| (id, self.ratio));
        if self.ratio == 1.0 { Vec::new() } else { fast.into() }
    }

    fn token_cost(config: &LoraConfig, site: &Site) -> TokenCost {
        token_cost(config.rank_of(&site.path), config.lora_dropout, site)
    }

    fn token_cost_of(&self, site: &Site) -> TokenCost {
        token_cost(self.a.dims()[1], self.dropout, site)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if base.weight.trains() {
            return self.composed(base, x, pass);
        }
        let dropout = LoraConfig::dropout_of(self.dropout, pass.dropout);
        let bias = base.bias_value(x.dtype(), pass.response);
        let (weight, scale) = (base.weight.matrix(pass.response), self.scaling * pass.response);
        let factors = [self.a.val(), self.b.val()];
        add_bias(dora_linear(x, weight, factors, self.magnitude.val(), scale, dropout), bias)
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let (a, b, magnitude) =
            (self.a.val().inner(), self.b.val().inner(), self.magnitude.val().inner());
        Ok(base.map_matrix(|weight| {
            let sum = weight + a.matmul(b).mul_scalar(self.scaling);
            let norms = sum.clone().square().sum_dim(0).sqrt().squeeze_dim::<1>(0);
            sum * gains(magnitude, norms).unsqueeze::<2>()
        }))
    }
}

/// The low-rank product, the input and the output stay: with dropout, or where a bias makes another
/// output of it, an output of its own. Dropout needs the masked input and one more output for a
/// moment.
fn token_cost(rank: usize, dropout: f64, site: &Site) -> TokenCost {
    let (masked, own) = if dropout > 0.0 { (site.d_in + site.d_out, true) } else { (0, site.bias) };
    TokenCost {
        keeps_input: true,
        keeps_output: !own,
        keeps: rank + if own { site.d_out } else { 0 },
        scratch: rank + masked,
    }
}
