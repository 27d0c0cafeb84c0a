//! LoRA: a low-rank addition to a frozen weight (Hu et al., [arXiv
//! 2106.09685](https://arxiv.org/abs/2106.09685)); with `use_rslora` scaled by alpha / √r
//! (Kalajdzievski, [arXiv 2312.03732](https://arxiv.org/abs/2312.03732)).
//!
//! y = x W + b + f · s · (dropout(x) A) B, with A `[in, r]`, B `[r, out]`, s = alpha / r (or alpha
//! / √r) and f the response factor. It is computed on the activation side: the sum W + s A B never
//! exists. r · (in + out) parameters a module. A is Kaiming-uniform with a = √5, so uniform within
//! ±1/√in, or normal with deviation 1/r (`init_lora_weights = "gaussian"`); B is zero. On an
//! embedding A is zero and B standard normal, as in PEFT.
//!
//! With PEFT's `lora_bias`, in a loaded file, B has a bias c: f · s · c is added, r · (in + out) +
//! out parameters.
//!
//! Three variants are LoRA with a difference in training; their files are plain LoRA:
//!
//! - LoRA-FA (`freeze_a`; Zhang et al., [arXiv 2308.03303](https://arxiv.org/abs/2308.03303)): A
//!   stays, r · out parameters train, and the r numbers a token of x A are kept instead of x. AdamW
//!   is plain; PEFT's `create_lorafa_optimizer` rescales B's gradient besides.
//! - LoRA+ (`loraplus_lr_ratio`; Hayou et al., [arXiv
//!   2402.12354](https://arxiv.org/abs/2402.12354)): B learns at that multiple of A's rate, except
//!   on embeddings.
//! - PiSSA (Meng et al., [arXiv 2404.02948](https://arxiv.org/abs/2404.02948)) and OLoRA
//!   (Büyükakyüz, [arXiv 2406.01775](https://arxiv.org/abs/2406.01775)), `init_lora_weights =
//!   "pissa"`, `"pissa_niter_N"` or `"olora"`: A and B start at a part A₀ B₀ of the weight
//!   ([`lora_init`](crate::lora_init)). PEFT takes s A₀ B₀ off the weight; here the weight stays,
//!   in whatever type it lies, and y = x W + b + f · s · dropout(x) (A B - A₀ B₀), with A₀ and B₀
//!   constant. Without dropout that is the same function. So f = 0 is the base model, and the file
//!   is what PEFT converts its own to: a plain LoRA of twice the rank on the untouched base.

use ist_core::burn;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, module};
use ist_core::LayerPass;
use serde_json::{Map, Value};

use crate::dropout::dropout;
use crate::fields::{ConfigError, Fields};
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::lora_config::{LoraConfig, read, write};
use crate::lora_init::{Start, start};
use crate::lora_linear::LoraLinear;
use crate::method::{Dialect, MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{resting, transposed, values, vector};
use crate::site::{Site, SiteKind};
use crate::targets::Targets;

/// One LoRA module.
#[derive(Module, Debug)]
pub struct Lora {
    /// Where A trains.
    a: Option<Param<Tensor<2>>>,
    /// A where it does not.
    frozen_a: Option<Tensor<2>>,
    b: Param<Tensor<2>>,
    /// B's bias, `[out]`.
    b_bias: Option<Param<Tensor<1>>>,
    /// A₀.
    start_a: Option<Tensor<2>>,
    /// -B₀.
    start_b: Option<Tensor<2>>,
    scaling: f64,
    dropout: f64,
    b_ratio: f64,
}

impl Lora {
    fn new(config: &LoraConfig, site: &Site, start: Start, b_bias: Option<Tensor<1>>) -> Self {
        let Start { a, b, initial } = start;
        let (trained, frozen_a) = if config.freeze_a { (None, Some(a)) } else { (Some(a), None) };
        let (start_a, start_b) = initial.map(|[a, minus_b]| (a, minus_b)).unzip();
        Self {
            a: trained.map(resting),
            frozen_a,
            b: resting(b),
            b_bias: b_bias.map(resting),
            start_a,
            start_b,
            scaling: config.scaling_of(&site.path),
            dropout: config.lora_dropout,
            b_ratio: if site.kind == SiteKind::Embedding { 1.0 } else { config.loraplus_lr_ratio },
        }
    }

    fn a(&self) -> Tensor<2> {
        self.a
            .as_ref()
            .map(Param::val)
            .or_else(|| self.frozen_a.clone())
            .expect("A trains or is frozen")
    }

    /// A, or [A, A₀].
    fn down(&self) -> Tensor<2> {
        join(self.a(), self.start_a.clone(), 1)
    }

    /// B, or B above -B₀.
    fn up(&self) -> Tensor<2> {
        join(self.b.val(), self.start_b.clone(), 0)
    }

    fn rank(&self) -> usize {
        self.b.dims()[0]
    }

    /// y + scale · B's bias, or y without one.
    fn add_own_bias(&self, y: Tensor<3>, scale: f64) -> Tensor<3> {
        add_bias(y, self.b_bias.as_ref().map(|bias| bias.val().mul_scalar(scale)))
    }
}

/// Whether B has a bias on that module; PEFT gives it none on embeddings.
fn has_bias(config: &LoraConfig, site: &Site) -> bool {
    config.lora_bias && site.kind == SiteKind::Linear
}

fn join(tensor: Tensor<2>, with: Option<Tensor<2>>, dimension: usize) -> Tensor<2> {
    match with {
        Some(with) => Tensor::cat(vec![tensor, with], dimension),
        None => tensor,
    }
}

impl Method for Lora {
    const NAME: &'static str = "lora";
    const PEFT_TYPE: &'static str = "LORA";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] = DEFAULTS;
    const TAKES: &'static str = "linear modules and embeddings";
    type Config = LoraConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        is_lora(fields, dialect)
            && !fields.get("use_dora").is_some_and(|dora| *dora == Value::Bool(true))
    }

    fn read(fields: &mut Fields) -> LoraConfig {
        read(fields)
    }

    fn write(config: &LoraConfig) -> Map<String, Value> {
        write(config, false)
    }

    fn targets(config: &LoraConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut LoraConfig) -> &mut Targets {
        &mut config.targets
    }

    fn fits(config: &LoraConfig, site: &Site) -> bool {
        site.kind == SiteKind::Linear
            || site.kind == SiteKind::Embedding && !config.init.starts_in_weight()
    }

    fn train_as(config: &mut LoraConfig, given: &LoraConfig) -> Result<(), ConfigError> {
        config.train_as(given)
    }

    fn unmatched_patterns(config: &LoraConfig, sites: &[Site]) -> Vec<String> {
        config.unmatched_patterns(sites)
    }

    fn layout(config: &LoraConfig, site: &Site) -> Vec<TensorSpec> {
        let rank = config.stored_rank_of(&site.path);
        let [a, b] = match site.kind {
            SiteKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
            _ => ["lora_A.weight", "lora_B.weight"],
        };
        let bias = has_bias(config, site).then(|| TensorSpec::new("lora_B.bias", [site.d_out]));
        [TensorSpec::new(a, [rank, site.d_in]), TensorSpec::new(b, [site.d_out, rank])]
            .into_iter()
            .chain(bias)
            .collect()
    }

    fn parameters(config: &LoraConfig, site: &Site) -> usize {
        let a = if config.freeze_a { 0 } else { site.d_in };
        let bias = if has_bias(config, site) { site.d_out } else { 0 };
        config.rank_of(&site.path) * (a + site.d_out) + bias
    }

    fn init(config: &LoraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let bias = has_bias(config, &place.site).then(|| Tensor::zeros([place.site.d_out], device));
        Self::new(config, &place.site, start(config, place, seed, device), bias)
    }

    fn from_tensors(
        config: &LoraConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor for each entry of the layout");
        let factors = [transposed(next(), device), transposed(next(), device)];
        let bias = tensors.next().map(|bias| vector(bias, device));
        let start = Start::from_file(config, &place.site, factors);
        Self::new(config, &place.site, start, bias)
    }

    fn tensors(&self) -> Vec<TensorData> {
        [self.down(), self.up()]
            .map(|matrix| matrix.inner().transpose().into_data())
            .into_iter()
            .chain(self.b_bias.as_ref().map(values))
            .collect()
    }

    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        if self.b_ratio == 1.0 {
            return Vec::new();
        }
        let bias = self.b_bias.as_ref().map(|bias| bias.id);
        [self.b.id].into_iter().chain(bias).map(|id| (id, self.b_ratio)).collect()
    }

    fn token_cost(config: &LoraConfig, site: &Site) -> TokenCost {
        let ranks = [config.rank_of(&site.path), config.stored_rank_of(&site.path)];
        token_cost(ranks, config.lora_dropout, !config.freeze_a, site)
    }

    fn token_cost_of(&self, site: &Site) -> TokenCost {
        let stored = self.rank() + self.start_b.as_ref().map_or(0, |start| start.dims()[0]);
        token_cost([self.rank(), stored], self.dropout, self.a.is_some(), site)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.scaling * pass.response;
        if base.weight.trains() {
            let input = dropout(x.clone(), self.dropout, pass.dropout);
            let low = module::linear(input, self.down(), None).mul_scalar(scale);
            let y = base.forward(x, pass.response) + module::linear(low, self.up(), None);
            return self.add_own_bias(y, scale);
        }
        let dropout = LoraConfig::dropout_of(self.dropout, pass.dropout);
        let bias = base.bias_value(x.dtype(), pass.response);
        let (weight, factors) = (base.weight.matrix(pass.response), [self.a(), self.b.val()]);
        let start = self.start_a.clone().zip(self.start_b.clone()).map(|(a, b)| [a, b]);
        let operation = LoraLinear { scale, dropout, value: pass.needs_output };
        let y = add_bias(operation.apply(x, weight, factors, start), bias);
        self.add_own_bias(y, scale)
    }

    fn embed(&self, base: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        let low = module::embedding(self.down(), ids).mul_scalar(self.scaling * pass.response);
        base + module::linear(low, self.up(), None)
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let delta = self.down().inner().matmul(self.up().inner()).mul_scalar(self.scaling);
        let Some(bias) = &self.b_bias else { return Ok(base.map_matrix(|weight| weight + delta)) };
        if base.bias().is_none() {
            return Err(MergeError::NoPlace {
                method: Self::NAME,
                reason: "`lora_bias` adds a bias, and the model's module has none",
            });
        }
        let bias = bias.val().inner().mul_scalar(self.scaling);
        Ok(base.map_matrix(|weight| weight + delta).map_bias(|own| own + bias))
    }
}

/// Fields of PEFT's file whose default is not neutral by itself.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("bias", "\"none\"")];

/// Whether the fields are those of LoRA or DoRA.
pub(crate) fn is_lora(fields: &Map<String, Value>, dialect: Dialect) -> bool {
    match dialect {
        Dialect::Toml => fields.get("method").is_none_or(|method| method == Lora::NAME),
        Dialect::Peft => fields.get("peft_type").is_some_and(|kind| kind == Lora::PEFT_TYPE),
    }
}

/// The low-rank product stays and, where A trains, the input. What an adapter is measured from has
/// its own product; dropout needs the masked input for a moment.
fn token_cost([rank, stored]: [usize; 2], dropout: f64, trains_a: bool, site: &Site) -> TokenCost {
    let masked = if dropout > 0.0 { site.d_in } else { 0 };
    TokenCost { keeps_input: trains_a, keeps_output: false, keeps: rank, scratch: stored + masked }
}
