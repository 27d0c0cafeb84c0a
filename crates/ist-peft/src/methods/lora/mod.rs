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
//!   ([`init`]). PEFT takes s A₀ B₀ off the weight; here the weight stays,
//!   in whatever type it lies, and y = x W + b + f · s · dropout(x) (A B - A₀ B₀), with A₀ and B₀
//!   constant. Without dropout that is the same function. So f = 0 is the base model, and the file
//!   is what PEFT converts its own to: a plain LoRA of twice the rank on the untouched base.

pub mod config;
pub mod init;

use ist_core::{LayerPass, burn};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData, module};
use serde_json::{Map, Value};
use std::any::Any;

use crate::fields::{ConfigError, Dialect, FieldFault, Fields};
use crate::frozen::dropout::{DropoutMask, dropout};
use crate::frozen::lora_linear::{Factors, LoraLinear};
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::method::{
    AdapterModule, EmbeddingAdapter, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo,
    Place, TensorSpec, TokenCost,
};
use crate::methods::lora::config::{LoraConfig, LoraInit, StartSetting, WrittenForm, setting};
use crate::methods::lora::init::{Start, start};
use crate::parameter::{resting, transposed, values, vector};
use crate::site::targets::Targets;
use crate::site::{Site, SiteKind};

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
        let Start { factors: Factors { a, b }, initial } = start;
        // A that stays is a plain tensor: a visitor of parameters must not find it.
        let (trained_a, frozen_a) = if config.freeze_a { (None, Some(a)) } else { (Some(a), None) };
        let (start_a, start_b) = initial.map(|initial| (initial.a, initial.b)).unzip();
        let is_embedding = site.kind == SiteKind::Embedding;
        Self {
            a: trained_a.map(resting),
            frozen_a,
            b: resting(b),
            b_bias: b_bias.map(resting),
            start_a,
            start_b,
            scaling: config.low_rank.scaling_of(&site.path),
            dropout: config.low_rank.lora_dropout,
            b_ratio: if is_embedding { 1.0 } else { config.low_rank.loraplus_lr_ratio },
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

/// Whether B has a bias on that module. PEFT gives it none on embeddings.
fn has_bias(config: &LoraConfig, site: &Site) -> bool {
    config.lora_bias && site.kind == SiteKind::Linear
}

fn join(tensor: Tensor<2>, with: Option<Tensor<2>>, dimension: usize) -> Tensor<2> {
    match with {
        Some(with) => Tensor::cat(vec![tensor, with], dimension),
        None => tensor,
    }
}

/// A and B of that rank as the file holds them.
pub(crate) fn factors_layout(site: &Site, rank: usize) -> Vec<TensorSpec> {
    let [a, b] = match site.kind {
        SiteKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
        _ => ["lora_A.weight", "lora_B.weight"],
    };
    vec![TensorSpec::new(a, [rank, site.d_in]), TensorSpec::new(b, [site.d_out, rank])]
}

/// The low-rank product stays and, where A trains, the input. What an adapter is measured from has
/// its own product. Dropout needs the masked input for a moment.
#[derive(Clone, Copy, Debug)]
struct LoraNeeds {
    rank: usize,
    /// The rank together with that of the start.
    stored_rank: usize,
    dropout: f64,
    trains_a: bool,
}

impl LoraNeeds {
    fn cost(self, site: &Site) -> TokenCost {
        let masked = if self.dropout > 0.0 { site.d_in } else { 0 };
        TokenCost {
            keeps_input: self.trains_a,
            keeps_output: false,
            keeps: self.rank,
            scratch: self.stored_rank + masked,
        }
    }
}

impl MethodConfig for LoraConfig {
    fn fits(&self, site: &Site) -> bool {
        match site.kind {
            SiteKind::Linear => true,
            SiteKind::Embedding => !self.init.starts_in_weight(),
            SiteKind::Norm | SiteKind::Attention { .. } => false,
        }
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let mut layout = factors_layout(site, self.stored_rank_of(&site.path));
        if has_bias(self, site) {
            layout.push(TensorSpec::new("lora_B.bias", [site.d_out]));
        }
        layout
    }

    fn parameters(&self, site: &Site) -> usize {
        let a = if self.freeze_a { 0 } else { site.d_in };
        let bias = if has_bias(self, site) { site.d_out } else { 0 };
        self.low_rank.rank_of(&site.path) * (a + site.d_out) + bias
    }

    fn peft_fields(&self, targets: &Targets) -> Map<String, Value> {
        let form = WrittenForm {
            use_dora: false,
            lora_bias: self.lora_bias,
            fan_in_fan_out: targets.fan_in_fan_out(),
        };
        self.low_rank.peft_fields(self.init.stored_ranks(), form)
    }

    fn train_as(&mut self, given: &dyn MethodConfig) -> Result<(), ConfigError> {
        let given: &dyn Any = given;
        let Some(given) = given.downcast_ref::<Self>() else { return Ok(()) };
        if given.init != LoraInit::default() {
            let message = "has no effect on an adapter that is loaded; leave it out".to_owned();
            return Err(ConfigError {
                faults: vec![FieldFault { field: "init_lora_weights".to_owned(), message }],
            });
        }
        self.freeze_a = given.freeze_a;
        self.low_rank.loraplus_lr_ratio = given.low_rank.loraplus_lr_ratio;
        Ok(())
    }

    fn unmatched_patterns(&self, sites: &[Site]) -> Vec<String> {
        self.low_rank.unmatched_patterns(sites)
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        let needs = LoraNeeds {
            rank: self.low_rank.rank_of(&site.path),
            stored_rank: self.stored_rank_of(&site.path),
            dropout: self.low_rank.lora_dropout,
            trains_a: !self.freeze_a,
        };
        needs.cost(site)
    }
}

impl Method for Lora {
    const INFO: MethodInfo = MethodInfo {
        takes: "linear modules and embeddings",
        documented_defaults: DEFAULTS,
        settings: &[
            &setting::R,
            &setting::ALPHA,
            &setting::DROPOUT,
            &setting::USE_RSLORA,
            &setting::RANK_PATTERN,
            &setting::ALPHA_PATTERN,
            &setting::LORAPLUS_LR_RATIO,
            &setting::FREEZE_A,
            &StartSetting,
        ],
        ..MethodInfo::new(&["lora"], PEFT_TYPE)
    };
    type Config = LoraConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        let is_dora = fields.get("use_dora") == Some(&Value::Bool(true));
        is_lora(fields, dialect) && !is_dora
    }

    fn read(fields: &mut Fields) -> LoraConfig {
        LoraConfig::read(fields)
    }

    fn init(config: &LoraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let bias = has_bias(config, &place.site).then(|| Tensor::zeros([place.site.d_out], device));
        let start = start(config.init, &config.low_rank, place, seed, device);
        Self::new(config, &place.site, start, bias)
    }

    fn from_tensors(
        config: &LoraConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor for each entry of the layout");
        let a = transposed(next(), device);
        let b = transposed(next(), device);
        let bias = tensors.next().map(|bias| vector(bias, device));
        let start = Start::from_file(config, &place.site, Factors { a, b });
        Self::new(config, &place.site, start, bias)
    }
}

impl AdapterModule for Lora {
    fn tensors(&self) -> Vec<TensorData> {
        [self.down(), self.up()]
            .map(|matrix| matrix.inner().transpose().into_data())
            .into_iter()
            .chain(self.b_bias.as_ref().map(values))
            .collect()
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let delta = self.down().inner().matmul(self.up().inner()).mul_scalar(self.scaling);
        let Some(bias) = &self.b_bias else { return Ok(base.map_matrix(|weight| weight + delta)) };
        if base.bias().is_none() {
            return Err(MergeError::NoPlace {
                method: "lora",
                reason: "`lora_bias` adds a bias, and the model's module has none",
            });
        }
        let bias = bias.val().inner().mul_scalar(self.scaling);
        Ok(base.map_matrix(|weight| weight + delta).map_bias(|own| own + bias))
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn as_embedding(&self) -> Option<&dyn EmbeddingAdapter> {
        Some(self)
    }

    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        if self.b_ratio == 1.0 {
            return Vec::new();
        }
        let bias = self.b_bias.as_ref().map(|bias| bias.id);
        [self.b.id].into_iter().chain(bias).map(|id| (id, self.b_ratio)).collect()
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        let start_rank = self.start_b.as_ref().map_or(0, |start| start.dims()[0]);
        let needs = LoraNeeds {
            rank: self.rank(),
            stored_rank: self.rank() + start_rank,
            dropout: self.dropout,
            trains_a: self.a.is_some(),
        };
        needs.cost(site)
    }
}

impl LinearAdapter for Lora {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.scaling * pass.response;
        if base.weight.trains() {
            // The fused operation has no dW, so a weight that trains itself goes through burn's
            // own.
            let input = dropout(x.clone(), self.dropout, pass.dropout);
            let low = module::linear(input, self.down(), None).mul_scalar(scale);
            let y = base.forward(x, pass.response) + module::linear(low, self.up(), None);
            return self.add_own_bias(y, scale);
        }
        let bias = base.bias_value(x.dtype(), pass.response);
        let weight = base.weight.matrix(pass.response);
        let factors = Factors { a: self.a(), b: self.b.val() };
        let start = self.start_a.clone().zip(self.start_b.clone());
        let start = start.map(|(a, b)| Factors { a, b });
        let mask = DropoutMask::of(self.dropout, pass.dropout);
        let operation = LoraLinear { scale, mask, value: pass.needs_output };
        let y = add_bias(operation.apply(x, weight, factors, start), bias);
        self.add_own_bias(y, scale)
    }
}

impl EmbeddingAdapter for Lora {
    fn embed(&self, rows: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        let low = module::embedding(self.down(), ids).mul_scalar(self.scaling * pass.response);
        rows + module::linear(low, self.up(), None)
    }
}

/// LoRA's and DoRA's `peft_type`.
pub(crate) const PEFT_TYPE: &str = "LORA";

/// Fields of PEFT's file whose default is not neutral by itself.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("bias", "\"none\"")];

/// Whether the fields are those of LoRA or DoRA.
pub(crate) fn is_lora(fields: &Map<String, Value>, dialect: Dialect) -> bool {
    match dialect {
        Dialect::Toml => fields.get("method").is_none_or(|method| method == "lora"),
        Dialect::Peft => fields.get("peft_type").is_some_and(|kind| kind == PEFT_TYPE),
    }
}
