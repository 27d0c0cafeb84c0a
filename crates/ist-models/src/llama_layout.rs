//! What a LLaMA of a configuration consists of: its tensors and the modules an adapter can sit on, with nothing loaded.

use ist_core::burn::tensor::DType;
use ist_peft::int8::block;
use ist_peft::{Roles, Site};

use crate::llama_config::LlamaConfig;

/// The names of LLaMA's modules by the part they play.
pub static ROLES: Roles = Roles {
    usual: &["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    query: &["q_proj"],
    key: &["k_proj"],
    value: &["v_proj"],
    linear: &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    mlp_in: &["gate_proj", "up_proj"],
    mlp_out: &["down_proj"],
    norms: &["input_layernorm", "post_attention_layernorm"],
    final_norm: &["norm"],
    attention: &["self_attn"],
};

/// The modules of one layer that an adapter can sit on, with input and output width, in the order of the model.
pub(crate) fn layer_modules(config: &LlamaConfig) -> [(&'static str, [usize; 2], bool); 7] {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let (query, key) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let (attention, mlp) = (config.attention_bias, config.mlp_bias);
    [
        ("self_attn.q_proj", [hidden, query], attention),
        ("self_attn.k_proj", [hidden, key], attention),
        ("self_attn.v_proj", [hidden, key], attention),
        ("self_attn.o_proj", [query, hidden], attention),
        ("mlp.gate_proj", [hidden, intermediate], mlp),
        ("mlp.up_proj", [hidden, intermediate], mlp),
        ("mlp.down_proj", [intermediate, hidden], mlp),
    ]
}

/// Every module an adapter can sit on, from the configuration alone.
pub fn sites(config: &LlamaConfig) -> Vec<Site> {
    let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
    let mut sites = vec![Site::embedding("model.embed_tokens", vocabulary, hidden)];
    sites.extend((0..config.num_hidden_layers).flat_map(|layer| layer_sites(config, layer)));
    sites.push(Site::norm("model.norm", None, hidden));
    if !config.tie_word_embeddings {
        sites.push(Site::linear("lm_head", None, hidden, vocabulary));
    }
    sites
}

fn layer_sites(config: &LlamaConfig, layer: usize) -> Vec<Site> {
    let (prefix, hidden) = (format!("model.layers.{layer}."), config.hidden_size);
    let norm = |name: &str| Site::norm(format!("{prefix}{name}"), Some(layer), hidden);
    let heads = [config.num_key_value_heads, config.head_dim];
    let linears = layer_modules(config).map(|(name, [d_in, d_out], bias)| {
        Site::linear(format!("{prefix}{name}"), Some(layer), d_in, d_out).with_bias(bias)
    });
    let (attention, mlp) = linears.split_at(4);
    let before = [norm("input_layernorm"), Site::attention(format!("{prefix}self_attn"), layer, hidden, heads)];
    [&before[..], attention, &[norm("post_attention_layernorm")], mlp].concat()
}

/// Name and shape of every tensor of a checkpoint, from the configuration alone.
pub fn tensors(config: &LlamaConfig) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
    let table = vec![config.vocab_size, config.hidden_size];
    let head = (!config.tie_word_embeddings).then(|| ("lm_head.weight".to_owned(), table.clone()));
    let outer =
        [("model.embed_tokens.weight".to_owned(), table), ("model.norm.weight".to_owned(), vec![config.hidden_size])];
    let layers = (0..config.num_hidden_layers).flat_map(move |index| layer_tensors(config, index));
    outer.into_iter().chain(head).chain(layers)
}

fn layer_tensors(config: &LlamaConfig, index: usize) -> Vec<(String, Vec<usize>)> {
    let name = |module: &str, kind: &str| format!("model.layers.{index}.{module}.{kind}");
    let norm = |module| (name(module, "weight"), vec![config.hidden_size]);
    let mut tensors = vec![norm("input_layernorm"), norm("post_attention_layernorm")];
    for (module, [d_in, d_out], bias) in layer_modules(config) {
        tensors.push((name(module, "weight"), vec![d_out, d_in]));
        tensors.extend(bias.then(|| (name(module, "bias"), vec![d_out])));
    }
    tensors
}

/// Bytes of the whole model's weights kept as `storage`, where i8 stands for the layers' matrices in eight bits.
pub fn weight_bytes(config: &LlamaConfig, storage: DType) -> u64 {
    let all = parameter_count(config) as u128;
    if storage != DType::I8 {
        return u64::try_from(all * storage.size() as u128).unwrap_or(u64::MAX);
    }
    let layer = layer_modules(config).map(|(_, [d_in, d_out], _)| (d_in as u128 * d_out as u128, block(d_in) as u128));
    let layers = config.num_hidden_layers as u128;
    let matrices = layers * layer.iter().map(|(size, _)| size).sum::<u128>();
    let packed = layers * layer.iter().map(|(size, block)| size + size / block * SCALE).sum::<u128>();
    u64::try_from(packed + all.saturating_sub(matrices) * 4).unwrap_or(u64::MAX)
}

/// Bytes of the scale of a block.
const SCALE: u128 = 4;

/// Scalars of the whole model, from the configuration alone.
pub fn parameter_count(config: &LlamaConfig) -> usize {
    let count = |tensors: Vec<(String, Vec<usize>)>| -> u128 {
        tensors.iter().map(|(_, shape)| shape.iter().map(|&size| size as u128).product::<u128>()).sum()
    };
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    let outer = (tables * config.vocab_size as u128 + 1) * config.hidden_size as u128;
    let total = outer + config.num_hidden_layers as u128 * count(layer_tensors(config, 0));
    usize::try_from(total).unwrap_or(usize::MAX)
}
