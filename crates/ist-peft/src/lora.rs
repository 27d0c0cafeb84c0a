//! LoRA: a low-rank addition to a frozen weight (Hu et al., [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)); with
//! `use_rslora` scaled by alpha / √r (Kalajdzievski, [arXiv 2312.03732](https://arxiv.org/abs/2312.03732)).
//!
//! y = x W + b + f · s · (dropout(x) A) B, with A `[in, r]`, B `[r, out]`, s = alpha / r (or alpha / √r) and f the response
//! factor. It is computed on the activation side: the sum W + s A B never exists. r · (in + out) parameters a module.
//! A is Kaiming-uniform with a = √5, so uniform within ±1/√in; B is zero. On an embedding A is zero and B standard normal,
//! as in PEFT.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, module};
use ist_core::{LayerPass, streams};
use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::dropout::dropout;
use crate::fields::{Fields, number};
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::lora_linear::lora_linear;
use crate::method::{Dialect, MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{normal, row_major};
use crate::site::{Site, SiteKind};
use crate::targets::{Patterns, Targets};

/// LoRA's checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank, at least 1.
    pub r: usize,
    /// The scaling's numerator, above 0.
    pub lora_alpha: f64,
    /// Dropout on the low-rank branch's input, in [0, 1).
    pub lora_dropout: f64,
    /// s = alpha / √r instead of alpha / r.
    pub use_rslora: bool,
    /// Ranks of modules whose name matches.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of modules whose name matches.
    pub alpha_pattern: Patterns<f64>,
    /// The modules to adapt.
    pub targets: Targets,
}

impl LoraConfig {
    /// The rank on that module.
    pub fn rank_of(&self, path: &str) -> usize {
        self.rank_pattern.get(path).unwrap_or(self.r)
    }

    /// s on that module.
    pub fn scaling_of(&self, path: &str) -> f64 {
        let (rank, alpha) = (self.rank_of(path) as f64, self.alpha_pattern.get(path).unwrap_or(self.lora_alpha));
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }
}

/// One LoRA module.
#[derive(Module, Debug)]
pub struct Lora {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    scaling: f64,
    dropout: f64,
}

impl Lora {
    fn new(config: &LoraConfig, site: &Site, a: Tensor<2>, b: Tensor<2>) -> Self {
        let resting = |tensor| Param::from_tensor(tensor).set_require_grad(false);
        let scaling = config.scaling_of(&site.path);
        Self { a: resting(a), b: resting(b), scaling, dropout: config.lora_dropout }
    }
}

impl Method for Lora {
    const NAME: &'static str = "lora";
    const PEFT_TYPE: &'static str = "LORA";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("bias", "\"none\""), ("megatron_core", "\"megatron.core\""), ("qalora_group_size", "16")];
    const TAKES: &'static str = "linear modules and embeddings";
    type Config = LoraConfig;

    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Toml => fields.get("method").is_none_or(|method| method == Self::NAME),
            Dialect::Peft => fields.get("peft_type").is_some_and(|kind| kind == Self::PEFT_TYPE),
        }
    }

    fn read(fields: &mut Fields) -> LoraConfig {
        read(fields)
    }

    fn write(config: &LoraConfig) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("r", json!(config.r));
        put("lora_alpha", number(config.lora_alpha));
        put("lora_dropout", json!(config.lora_dropout));
        put("use_rslora", json!(config.use_rslora));
        put("use_dora", json!(false));
        put("bias", json!("none"));
        put("fan_in_fan_out", json!(false));
        put("init_lora_weights", json!(true));
        put("rank_pattern", config.rank_pattern.to_json(|rank| json!(rank)));
        put("alpha_pattern", config.alpha_pattern.to_json(|alpha| number(*alpha)));
        fields
    }

    fn targets(config: &LoraConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut LoraConfig) -> &mut Targets {
        &mut config.targets
    }

    fn fits(_: &LoraConfig, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Linear | SiteKind::Embedding)
    }

    fn layout(config: &LoraConfig, site: &Site) -> Vec<TensorSpec> {
        let rank = config.rank_of(&site.path);
        let [a, b] = match site.kind {
            SiteKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
            _ => ["lora_A.weight", "lora_B.weight"],
        };
        vec![TensorSpec::new(a, [rank, site.d_in]), TensorSpec::new(b, [site.d_out, rank])]
    }

    fn init(config: &LoraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let site = &place.site;
        let rank = config.rank_of(&site.path);
        let mut rng = streams::stream(seed, &site.path);
        let (a, b) = if site.kind == SiteKind::Embedding {
            let b = (0..rank * site.d_out).map(|_| normal(&mut rng) as f32).collect();
            (vec![0.0; site.d_in * rank], b)
        } else {
            let bound = 1.0 / (site.d_in as f64).sqrt();
            let a = (0..site.d_in * rank).map(|_| rng.random_range(-bound..bound) as f32).collect();
            (a, vec![0.0; rank * site.d_out])
        };
        let tensor = |values: Vec<f32>, shape| Tensor::from_data(TensorData::new(values, shape), device);
        Self::new(config, site, tensor(a, [site.d_in, rank]), tensor(b, [rank, site.d_out]))
    }

    fn from_tensors(config: &LoraConfig, place: &Place, tensors: Vec<TensorData>, device: &Device) -> Self {
        let mut tensors = tensors.into_iter().map(|data| {
            let dtype = data.dtype();
            row_major(Tensor::<2>::from_data(data, (device, dtype)).transpose())
        });
        let mut next = || tensors.next().expect("one tensor for each entry of the layout");
        let (a, b) = (next(), next());
        Self::new(config, &place.site, a, b)
    }

    fn tensors(&self) -> Vec<TensorData> {
        [&self.a, &self.b].map(|param| param.val().inner().transpose().into_data()).into()
    }

    fn token_cost(config: &LoraConfig, site: &Site) -> TokenCost {
        token_cost(config.rank_of(&site.path), config.lora_dropout, site)
    }

    fn token_cost_of(&self, site: &Site) -> TokenCost {
        token_cost(self.a.dims()[1], self.dropout, site)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let scale = self.scaling * pass.response;
        if base.weight.trains() {
            let input = dropout(x.clone(), self.dropout, pass.dropout);
            let low = module::linear(input, self.a.val(), None).mul_scalar(scale);
            return base.forward(x, pass.response) + module::linear(low, self.b.val(), None);
        }
        let dropout = pass.dropout.map(|seed| (self.dropout, seed)).filter(|_| self.dropout > 0.0);
        let bias = base.bias_value(x.dtype(), pass.response);
        add_bias(lora_linear(x, base.weight.matrix(pass.response), self.a.val(), self.b.val(), scale, dropout), bias)
    }

    fn embed(&self, base: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3> {
        let low = module::embedding(self.a.val(), ids).mul_scalar(self.scaling * pass.response);
        base + module::linear(low, self.b.val(), None)
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let delta = self.a.val().inner().matmul(self.b.val().inner()).mul_scalar(self.scaling);
        Ok(base.map_matrix(|weight| weight + delta))
    }
}

/// The input and the low-rank product stay; dropout needs the masked input for a moment.
fn token_cost(rank: usize, dropout: f64, site: &Site) -> TokenCost {
    let masked = if dropout > 0.0 { site.d_in } else { 0 };
    TokenCost { keeps_input: true, keeps: rank, scratch: rank + masked }
}

fn read(fields: &mut Fields) -> LoraConfig {
    // PEFT's own defaults differ from our TOML's.
    let (r_default, alpha_default) = if fields.dialect() == Dialect::Toml { (32, 64.0) } else { (8, 8.0) };
    if fields.dialect() == Dialect::Peft {
        fields.one_of("init_lora_weights", &[json!(true), json!(false), json!("gaussian"), json!("orthogonal")]);
    }
    LoraConfig {
        r: fields.count("r", r_default),
        lora_alpha: fields.number_above_zero(fields.spelt("alpha", "lora_alpha"), alpha_default),
        lora_dropout: fields.probability(fields.spelt("dropout", "lora_dropout"), 0.0),
        use_rslora: fields.flag("use_rslora", false),
        rank_pattern: fields.rank_patterns("rank_pattern"),
        alpha_pattern: fields.number_patterns("alpha_pattern"),
        targets: fields.targets(),
    }
}
