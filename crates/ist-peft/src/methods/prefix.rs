//! Prefix tuning: trained keys and values in front of the tokens of every layer's self-attention
//! (Li & Liang, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190)). PEFT's `PREFIX_TUNING`
//! without a projection.
//!
//! In each layer softmax(q [P_k; k]ᵀ / √`head_dim`) [f · P_v; v], with P_k and P_v
//! `[positions, kv_heads, head_dim]` the same for every row of a batch. Every query sees the whole
//! prefix. It has no queries and no outputs and is not rotated. The tokens' positions begin behind
//! it, so it takes its length of the model's context. 2 · positions · `kv_heads` · `head_dim`
//! parameters a layer, in every layer.
//!
//! The response factor f scales the values alone, which is what the prefix adds. At f = 0 it still
//! takes its part of the attention's weight, so that is not the base model, nor is a fresh prefix.
//! It begins standard normal, or at zero.
//!
//! PEFT keeps all layers in one tensor `prompt_embeddings`
//! `[positions, layers · 2 · kv_heads · head_dim]`: layer l's keys, then its values, behind those
//! of the layers before it.

use ist_core::{LayerPass, burn, streams};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value, json};

use crate::fields::setting::Setting;
use crate::fields::values::{Count, OneOf, ValueKind};
use crate::fields::{ConfigError, Dialect, FieldFault, Fields};
use crate::frozen::Base;
use crate::frozen::weight::is_full;
use crate::method::{
    AdapterModule, MergeError, Method, MethodConfig, MethodInfo, Place, PrefixAdapter,
    PrefixValues, TensorSpec,
};
use crate::parameter::{from_file, resting, row_major, standard_normal, values};
use crate::site::targets::{TargetFields, Targets};
use crate::site::{Roles, Site, SiteKind};

/// The key of the one tensor.
const KEY: &str = "prompt_embeddings";
/// 30 is what the published experiments with LLaMA use.
const NUM_VIRTUAL_TOKENS: Setting<Count> = Setting::new(
    "num_virtual_tokens",
    "Positions of the prefix; the model's context is shorter by them.",
    Count,
    30,
);
const INIT_WEIGHTS: Setting<OneOf> = Setting::new(
    "init_weights",
    "How the prefix begins: standard normal or at zero.",
    OneOf(&["normal", "zero"]),
    "normal",
);

/// Prefix tuning's checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixConfig {
    /// Positions of the prefix, at least 1.
    pub num_virtual_tokens: usize,
    /// Begin at zero instead of standard normal.
    pub zero: bool,
    /// The model it is for, once that is known.
    pub model: Option<PrefixModel>,
}

/// What a prefix must know of its model, as PEFT's file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixModel {
    /// Layers.
    pub num_layers: usize,
    /// Numbers of all key-value heads of a layer together.
    pub token_dim: usize,
    /// Key-value heads.
    pub num_attention_heads: usize,
}

/// The prefix of one layer.
#[derive(Module, Debug)]
pub struct PrefixTuning {
    keys: Param<Tensor<3>>,
    values: Param<Tensor<3>>,
}

impl PrefixTuning {
    fn new(keys: Tensor<3>, values: Tensor<3>) -> Self {
        Self { keys: resting(keys), values: resting(values) }
    }
}

/// Key-value heads and the numbers of one.
#[derive(Clone, Copy)]
struct Heads {
    kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    fn of(site: &Site) -> Self {
        match site.kind {
            SiteKind::Attention { kv_heads, head_dim } => Self { kv_heads, head_dim },
            _ => Self { kv_heads: 0, head_dim: 0 },
        }
    }

    /// Numbers of all heads together.
    fn width(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The shape of that many keys or values.
    fn shape(self, positions: usize) -> [usize; 3] {
        [positions, self.kv_heads, self.head_dim]
    }
}

impl MethodConfig for PrefixConfig {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        roles.attention.to_vec()
    }

    fn fits(&self, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Attention { .. })
    }

    fn peft_fields(&self, _targets: &Targets) -> Map<String, Value> {
        let model = self.model;
        let fields = json!({
            "num_virtual_tokens": self.num_virtual_tokens,
            "num_layers": model.map(|model| model.num_layers),
            "token_dim": model.map(|model| model.token_dim),
            "num_attention_heads": model.map(|model| model.num_attention_heads),
            "encoder_hidden_size": model.map(|model| model.token_dim),
            "num_transformer_submodules": 1,
            "prefix_projection": false,
            "init_weights": self.zero.then_some("zero"),
        });
        fields.as_object().cloned().unwrap_or_default()
    }

    fn settle(&mut self, sites: &[Site]) -> Result<(), ConfigError> {
        let heads = sites.first().map_or(Heads { kv_heads: 0, head_dim: 0 }, Heads::of);
        let found = PrefixModel {
            num_layers: sites.len(),
            token_dim: heads.width(),
            num_attention_heads: heads.kv_heads,
        };
        let said = *self.model.get_or_insert(found);
        let faults = said.differences(found);
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    fn positions_in_front(&self) -> usize {
        self.num_virtual_tokens
    }

    fn starts_at_base(&self) -> bool {
        false
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        let shape = Heads::of(site).shape(self.num_virtual_tokens);
        ["keys", "values"].map(|part| TensorSpec::new(part, shape)).into()
    }

    fn file_layout(&self, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let width = sites.iter().map(|site| 2 * Heads::of(site).width()).sum();
        vec![(KEY.to_owned(), vec![self.num_virtual_tokens, width])]
    }
}

impl PrefixModel {
    /// What a file says of its model and the model does not have.
    fn differences(self, found: Self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        let mut compare = |field: &str, said: usize, found: usize, what: &str| {
            if said != found {
                let message = format!("is {said}, but the {what} are {found}");
                faults.push(FieldFault { field: field.to_owned(), message });
            }
        };
        compare("num_layers", self.num_layers, found.num_layers, "layers of the model");
        compare(
            "token_dim",
            self.token_dim,
            found.token_dim,
            "numbers of a layer's key-value heads together",
        );
        compare(
            "num_attention_heads",
            self.num_attention_heads,
            found.num_attention_heads,
            "key-value heads of the model",
        );
        faults
    }
}

impl Method for PrefixTuning {
    const INFO: MethodInfo = MethodInfo {
        takes: "self-attention",
        // Every layer has the prefix. PEFT's file names no modules.
        target_fields: TargetFields::None,
        settings: &[&NUM_VIRTUAL_TOKENS, &INIT_WEIGHTS],
        ..MethodInfo::new(&["prefix-tuning"], "PREFIX_TUNING")
    };
    type Config = PrefixConfig;

    fn read(fields: &mut Fields) -> PrefixConfig {
        let model = match fields.dialect() {
            Dialect::Toml => None,
            Dialect::Peft => read_model(fields),
        };
        let begins = [json!("zero"), json!("normal")];
        // PEFT's file says `zero` or nothing.
        let allowed = fields.spelt(2, 1);
        fields.one_of(INIT_WEIGHTS.name, &begins[..allowed]);
        PrefixConfig {
            num_virtual_tokens: fields.get(&NUM_VIRTUAL_TOKENS),
            zero: fields.value(INIT_WEIGHTS.name).is_some_and(|value| value == "zero"),
            model,
        }
    }

    fn init(config: &PrefixConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let shape = Heads::of(&place.site).shape(config.num_virtual_tokens);
        let mut rng = streams::stream(seed, &place.site.path);
        let mut fresh = || {
            if config.zero {
                Tensor::zeros(shape, device)
            } else {
                standard_normal(&mut rng, shape, device)
            }
        };
        let keys = fresh();
        let values = fresh();
        Self::new(keys, values)
    }

    fn from_tensors(
        _: &PrefixConfig,
        _: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let [keys, values]: [TensorData; 2] =
            tensors.try_into().expect("one tensor for each entry of the layout");
        Self::new(from_file(keys, device), from_file(values, device))
    }

    fn from_file(
        config: &PrefixConfig,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self> {
        let all = tensors.into_iter().next().expect("the layout of the file has one tensor");
        let all: Tensor<2> = from_file(all, device);
        let mut from = 0;
        let mut next = |heads: Heads| {
            let part = all.clone().narrow(1, from, heads.width());
            from += heads.width();
            row_major(part.reshape(heads.shape(config.num_virtual_tokens)))
        };
        let mut build = |place: &Place| {
            let heads = Heads::of(&place.site);
            let keys = next(heads);
            let values = next(heads);
            Self::new(keys, values)
        };
        places.iter().map(&mut build).collect()
    }

    fn to_file(adapters: &[&Self]) -> Vec<TensorData> {
        let parts = adapters.iter().flat_map(|adapter| [&adapter.keys, &adapter.values]);
        let flat = parts.map(|part| part.val().inner().flatten::<2>(1, 2));
        vec![Tensor::cat(flat.collect(), 1).into_data()]
    }
}

impl AdapterModule for PrefixTuning {
    fn tensors(&self) -> Vec<TensorData> {
        [&self.keys, &self.values].map(values).into()
    }

    fn merge(&self, _: Base) -> Result<Base, MergeError> {
        Err(MergeError::NoPlace {
            method: "prefix-tuning",
            reason: "a model has no place for keys and values of no token",
        })
    }

    fn as_prefix(&self) -> Option<&dyn PrefixAdapter> {
        Some(self)
    }
}

impl PrefixAdapter for PrefixTuning {
    fn prefix(&self, pass: &LayerPass) -> PrefixValues {
        let values = self.values.val();
        let values = if is_full(pass.response) { values } else { values.mul_scalar(pass.response) };
        PrefixValues { keys: self.keys.val(), values }
    }

    fn length(&self) -> usize {
        self.keys.dims()[0]
    }
}

/// What PEFT's file says of the model. `None` where a field is missing, which is a fault.
fn read_model(fields: &mut Fields) -> Option<PrefixModel> {
    if fields.flag("prefix_projection", false) {
        let message = "= true is not supported: the file would hold what comes out of the \
                       projection and not what went in, so it could not go on training; save it \
                       without";
        fields.fault("prefix_projection", message);
    }
    fields.one_of("num_transformer_submodules", &[json!(1)]);
    // The width of a projection that is not there.
    fields.skip("encoder_hidden_size");
    let mut required = |key: &str| {
        let given = fields.value(key).is_some();
        if !given {
            fields.fault(key, "is missing");
        }
        let expected = Count.expected();
        given.then(|| fields.checked(key, 1, &expected, |value| Count.read(value)))
    };
    required(NUM_VIRTUAL_TOKENS.name);
    let [num_layers, token_dim, num_attention_heads] =
        ["num_layers", "token_dim", "num_attention_heads"].map(&mut required);
    Some(PrefixModel {
        num_layers: num_layers?,
        token_dim: token_dim?,
        num_attention_heads: num_attention_heads?,
    })
}
