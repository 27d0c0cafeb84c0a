//! Prefix tuning: trained keys and values in front of the tokens of every layer's self-attention (Li & Liang,
//! [arXiv 2101.00190](https://arxiv.org/abs/2101.00190)); PEFT's `PREFIX_TUNING` without a projection.
//!
//! In each layer softmax(q [P_k; k]ᵀ / √`head_dim`) [f · P_v; v], with P_k and P_v `[positions, kv_heads, head_dim]` the same for
//! every row of a batch. Every query sees the whole prefix. It has no queries and no outputs and is not rotated; the tokens'
//! positions begin behind it, so it takes its length of the model's context. 2 · positions · `kv_heads` · `head_dim` parameters
//! a layer, in every layer.
//!
//! The response factor f scales the values alone, which is what the prefix adds. At f = 0 it still takes its part of the
//! attention's weight, so that is not the base model, nor is a fresh prefix. It begins standard normal, or at zero.
//!
//! PEFT keeps all layers in one tensor `prompt_embeddings` `[positions, layers · 2 · kv_heads · head_dim]`: layer l's keys, then
//! its values, behind those of the layers before it.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ist_core::{LayerPass, streams};
use serde_json::{Map, Value, json};

use crate::fields::Dialect;
use crate::fields::{ConfigError, FieldFault, Fields};
use crate::frozen::Base;
use crate::frozen::weight::is_full;
use crate::method::{MergeError, Method, Place, TensorSpec};
use crate::parameter::{from_file, resting, row_major, standard_normal, values};
use crate::site::targets::Targets;
use crate::site::{Roles, Site, SiteKind};

/// The key of the one tensor.
const KEY: &str = "prompt_embeddings";
/// What the published experiments with LLaMA use.
const POSITIONS: usize = 30;

/// Prefix tuning's checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixConfig {
    /// Positions of the prefix, at least 1.
    pub num_virtual_tokens: usize,
    /// Begin at zero instead of standard normal.
    pub zero: bool,
    /// The model it is for, once that is known.
    pub model: Option<PrefixModel>,
    targets: Targets,
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
    fn new([keys, values]: [Tensor<3>; 2]) -> Self {
        Self { keys: resting(keys), values: resting(values) }
    }
}

/// Key-value heads and the numbers of one.
fn heads(site: &Site) -> [usize; 2] {
    match site.kind {
        SiteKind::Attention { kv_heads, head_dim } => [kv_heads, head_dim],
        _ => [0, 0],
    }
}

impl Method for PrefixTuning {
    const NAME: &'static str = "prefix-tuning";
    const PEFT_TYPE: &'static str = "PREFIX_TUNING";
    const TAKES: &'static str = "self-attention";
    type Config = PrefixConfig;

    fn read(fields: &mut Fields) -> PrefixConfig {
        let model = (fields.dialect() == Dialect::Peft).then(|| read_model(fields));
        let begins = [json!("zero"), json!("normal")];
        fields.one_of(
            "init_weights",
            if fields.dialect() == Dialect::Toml { &begins } else { &begins[..1] },
        );
        PrefixConfig {
            num_virtual_tokens: fields.count("num_virtual_tokens", POSITIONS),
            zero: fields.value("init_weights").is_some_and(|value| value == "zero"),
            model: model.flatten(),
            targets: Targets::default(),
        }
    }

    fn write(config: &PrefixConfig) -> Map<String, Value> {
        let model = config.model;
        let fields = json!({
            "num_virtual_tokens": config.num_virtual_tokens,
            "num_layers": model.map(|model| model.num_layers),
            "token_dim": model.map(|model| model.token_dim),
            "num_attention_heads": model.map(|model| model.num_attention_heads),
            "encoder_hidden_size": model.map(|model| model.token_dim),
            "num_transformer_submodules": 1,
            "prefix_projection": false,
            "init_weights": config.zero.then_some("zero"),
        });
        fields.as_object().cloned().unwrap_or_default()
    }

    fn targets(config: &PrefixConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut PrefixConfig) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(_: &PrefixConfig, roles: &Roles) -> Vec<&'static str> {
        roles.attention.to_vec()
    }

    fn fits(_: &PrefixConfig, site: &Site) -> bool {
        matches!(site.kind, SiteKind::Attention { .. })
    }

    fn settle(config: &mut PrefixConfig, sites: &[Site]) -> Result<(), ConfigError> {
        let [kv_heads, head_dim] = sites.first().map_or([0, 0], heads);
        let found = PrefixModel {
            num_layers: sites.len(),
            token_dim: kv_heads * head_dim,
            num_attention_heads: kv_heads,
        };
        let said = *config.model.get_or_insert(found);
        let each = [
            ("num_layers", said.num_layers, found.num_layers, "layers of the model"),
            (
                "token_dim",
                said.token_dim,
                found.token_dim,
                "numbers of a layer's key-value heads together",
            ),
            (
                "num_attention_heads",
                said.num_attention_heads,
                found.num_attention_heads,
                "key-value heads of the model",
            ),
        ];
        let differs = each.into_iter().filter(|(_, said, found, _)| said != found);
        let fault = |(field, said, found, what): (&str, usize, usize, &str)| FieldFault {
            field: field.to_owned(),
            message: format!("is {said}, but the {what} are {found}"),
        };
        let faults: Vec<FieldFault> = differs.map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    /// Every layer has the prefix; PEFT's file names no modules.
    fn target_fields(_: &PrefixConfig) -> Map<String, Value> {
        Map::new()
    }

    fn positions_in_front(config: &PrefixConfig) -> usize {
        config.num_virtual_tokens
    }

    fn starts_at_base(_: &PrefixConfig) -> bool {
        false
    }

    fn layout(config: &PrefixConfig, site: &Site) -> Vec<TensorSpec> {
        let [kv_heads, head_dim] = heads(site);
        ["keys", "values"]
            .map(|part| TensorSpec::new(part, [config.num_virtual_tokens, kv_heads, head_dim]))
            .into()
    }

    fn init(config: &PrefixConfig, place: &Place, seed: u64, device: &Device) -> Self {
        let [kv_heads, head_dim] = heads(&place.site);
        let shape = [config.num_virtual_tokens, kv_heads, head_dim];
        let mut rng = streams::stream(seed, &place.site.path);
        Self::new([(); 2].map(|()| {
            if config.zero {
                Tensor::zeros(shape, device)
            } else {
                standard_normal(&mut rng, shape, device)
            }
        }))
    }

    fn from_tensors(
        _: &PrefixConfig,
        _: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let parts: Vec<Tensor<3>> =
            tensors.into_iter().map(|data| from_file(data, device)).collect();
        Self::new(parts.try_into().expect("one tensor for each entry of the layout"))
    }

    fn tensors(&self) -> Vec<TensorData> {
        [&self.keys, &self.values].map(values).into()
    }

    fn file_layout(config: &PrefixConfig, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let width = sites.iter().map(|site| 2 * heads(site).iter().product::<usize>()).sum();
        vec![(KEY.to_owned(), vec![config.num_virtual_tokens, width])]
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
        let mut next = |[kv_heads, head_dim]: [usize; 2]| {
            let part = all.clone().narrow(1, from, kv_heads * head_dim);
            from += kv_heads * head_dim;
            row_major(part.reshape([config.num_virtual_tokens, kv_heads, head_dim]))
        };
        places.iter().map(|place| Self::new([(); 2].map(|()| next(heads(&place.site))))).collect()
    }

    fn to_file(_: &PrefixConfig, adapters: &[(&Site, &Self)]) -> Vec<TensorData> {
        let parts = adapters.iter().flat_map(|(_, adapter)| [&adapter.keys, &adapter.values]);
        let flat = parts.map(|part| part.val().inner().flatten::<2>(1, 2));
        vec![Tensor::cat(flat.collect(), 1).into_data()]
    }

    fn prefix(&self, pass: &LayerPass) -> [Tensor<3>; 2] {
        let values = self.values.val();
        let values = if is_full(pass.response) { values } else { values.mul_scalar(pass.response) };
        [self.keys.val(), values]
    }

    fn prefix_length(&self) -> usize {
        self.keys.dims()[0]
    }

    fn merge(&self, _: Base) -> Result<Base, MergeError> {
        Err(MergeError::NoPlace {
            method: Self::NAME,
            reason: "a model has no place for keys and values of no token",
        })
    }
}

/// What PEFT's file says of the model; `None` where a field is missing, which is a fault.
fn read_model(fields: &mut Fields) -> Option<PrefixModel> {
    if fields.flag("prefix_projection", false) {
        let message = "= true is not supported: the file would hold what comes out of the projection and not what went \
                       in, so it could not go on training; save it without";
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
        given.then(|| fields.count(key, 1))
    };
    required("num_virtual_tokens");
    let [num_layers, token_dim, num_attention_heads] =
        ["num_layers", "token_dim", "num_attention_heads"].map(&mut required);
    Some(PrefixModel {
        num_layers: num_layers?,
        token_dim: token_dim?,
        num_attention_heads: num_attention_heads?,
    })
}
