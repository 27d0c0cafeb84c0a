//! What a decoder of a configuration consists of: its tensors and the modules an adapter can sit
//! on, with nothing loaded.

use ist_core::burn::tensor::DType;
use ist_peft::Site;
use ist_peft::frozen::int8::block;

use super::config::{DecoderConfig, HeadNorm, Mlp, Norm, Positions, Projection};

/// A module of a layer by its path within the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartShape {
    /// A linear module.
    Linear(LinearShape),
    /// A norm and its width.
    Norm(String, usize),
    /// Self-attention as a whole.
    Attention(String),
    /// The router of the experts.
    Router(String),
}

/// A linear module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinearShape {
    /// Its path within the layer.
    pub path: String,
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

fn linear(path: String, [d_in, d_out]: [usize; 2], bias: bool) -> LinearShape {
    LinearShape { path, d_in, d_out, bias }
}

/// The modules that make queries, keys and values.
pub(crate) fn projections(config: &DecoderConfig) -> Vec<LinearShape> {
    let (names, hidden, bias) = (config.names, config.hidden_size, config.qkv_bias);
    let (query, key) = (config.query_width(), config.key_width());
    let module = |name, width| linear(names.in_attention(name), [hidden, width], bias);
    match config.projection {
        Projection::Separate => {
            vec![module(names.query, query), module(names.key, key), module(names.value, key)]
        }
        Projection::Blocks | Projection::Heads => {
            vec![module(names.query_key_value, query + 2 * key)]
        }
    }
}

/// The module behind the attention.
pub(crate) fn output(config: &DecoderConfig) -> LinearShape {
    let path = config.names.in_attention(config.names.output);
    linear(path, [config.query_width(), config.hidden_size], config.output_bias)
}

/// The widths of the norms on queries and on keys.
pub(crate) fn head_norms(config: &DecoderConfig) -> Option<[(String, usize); 2]> {
    let [query, key] = [config.names.query_norm, config.names.key_norm]
        .map(|name| config.names.in_attention(name));
    config.head_norm.map(|norm| match norm {
        HeadNorm::Head => [(query, config.head_dim), (key, config.head_dim)],
        HeadNorm::All => [(query, config.query_width()), (key, config.key_width())],
    })
}

/// The modules of an MLP in the order of its data.
pub(crate) fn mlp(config: &DecoderConfig) -> Vec<LinearShape> {
    let (names, hidden, inner) = (config.names, config.hidden_size, config.intermediate_size);
    let module = |name, shape| linear(names.in_mlp(name), shape, config.mlp_bias);
    let down = module(names.down, [inner, hidden]);
    match config.mlp {
        Mlp::Gated => {
            vec![module(names.gate, [hidden, inner]), module(names.up, [hidden, inner]), down]
        }
        Mlp::FusedGated => vec![module(names.gate_up, [hidden, 2 * inner]), down],
        Mlp::Plain => vec![module(names.up, [hidden, inner]), down],
    }
}

/// Gate, up and down of one expert.
pub(crate) fn expert(config: &DecoderConfig, index: usize) -> [LinearShape; 3] {
    let inner = config.experts.map_or(0, |experts| experts.intermediate_size);
    let shapes =
        [[config.hidden_size, inner], [config.hidden_size, inner], [inner, config.hidden_size]];
    let [gate, up, down] = config.names.expert;
    let [a, b, c] = shapes;
    [(gate, a), (up, b), (down, c)]
        .map(|(name, shape)| linear(config.names.in_expert(index, name), shape, false))
}

/// The modules of a layer in the order of the model.
pub(crate) fn layer_parts(config: &DecoderConfig, layer: usize) -> Vec<PartShape> {
    let (names, hidden) = (config.names, config.hidden_size);
    let norm = |name: Option<&str>| name.map(|name| PartShape::Norm(name.to_owned(), hidden));
    let mut parts: Vec<PartShape> = norm(names.before_attention).into_iter().collect();
    parts.push(PartShape::Attention(names.attention.to_owned()));
    parts.extend(projections(config).into_iter().map(PartShape::Linear));
    parts.extend(
        head_norms(config).into_iter().flatten().map(|(path, width)| PartShape::Norm(path, width)),
    );
    parts.push(PartShape::Linear(output(config)));
    parts.extend(norm(names.after_attention).into_iter().chain(norm(names.before_mlp)));
    match config.experts.filter(|_| config.layers[layer].experts) {
        Some(experts) => {
            parts.push(PartShape::Router(names.in_mlp(names.router)));
            parts.extend(
                (0..experts.num_experts)
                    .flat_map(|index| expert(config, index))
                    .map(PartShape::Linear),
            );
        }
        None => parts.extend(mlp(config).into_iter().map(PartShape::Linear)),
    }
    parts.extend(norm(names.after_mlp));
    parts
}

/// Every module an adapter can sit on.
pub fn sites(config: &DecoderConfig) -> Vec<Site> {
    let (names, hidden) = (config.names, config.hidden_size);
    let norm = |name| norm_site(config, names.in_body(name), None, hidden);
    let mut sites =
        vec![Site::embedding(names.in_body(names.embed_tokens), config.vocab_size, hidden)];
    sites.extend(config.embedding_norm.then(|| norm(names.embedding_norm)));
    sites.extend((0..config.num_hidden_layers).flat_map(|layer| layer_sites(config, layer)));
    sites.push(norm(names.norm));
    if !config.tie_word_embeddings {
        sites.push(head(config));
    }
    sites
}

/// The head, where it is the embedding and so is no module of its own.
pub fn shared_head(config: &DecoderConfig) -> Option<Site> {
    config.tie_word_embeddings.then(|| head(config))
}

fn head(config: &DecoderConfig) -> Site {
    Site::linear(config.names.lm_head, None, config.hidden_size, config.vocab_size)
        .with_bias(config.head_bias)
}

fn layer_sites(config: &DecoderConfig, layer: usize) -> Vec<Site> {
    layer_parts(config, layer).into_iter().filter_map(|part| site(config, layer, part)).collect()
}

fn site(config: &DecoderConfig, layer: usize, part: PartShape) -> Option<Site> {
    let at = |path: &str| format!("{}{path}", config.names.layer(layer));
    match part {
        PartShape::Linear(LinearShape { path, d_in, d_out, bias }) => {
            let site = Site::linear(at(&path), Some(layer), d_in, d_out).with_bias(bias);
            Some(site.with_fan_in_fan_out(config.fan_in_fan_out))
        }
        PartShape::Norm(path, width) => Some(norm_site(config, at(&path), Some(layer), width)),
        PartShape::Attention(path) => {
            let heads = [config.num_key_value_heads, config.head_dim];
            Some(Site::attention(at(&path), layer, config.hidden_size, heads))
        }
        PartShape::Router(_) => None,
    }
}

pub(crate) fn norm_site(
    config: &DecoderConfig,
    path: String,
    layer: Option<usize>,
    width: usize,
) -> Site {
    Site::norm(path, layer, width).with_bias(config.norm == Norm::Layer)
}

/// Name and shape of every tensor of a checkpoint.
pub fn tensors(config: &DecoderConfig) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
    let layers = (0..config.num_hidden_layers).flat_map(move |index| layer_tensors(config, index));
    outer_tensors(config).into_iter().chain(layers)
}

fn outer_tensors(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let (names, hidden) = (config.names, config.hidden_size);
    let table = vec![config.vocab_size, hidden];
    let mut tensors =
        vec![(format!("{}.weight", names.in_body(names.embed_tokens)), table.clone())];
    if config.positions == Positions::Learned {
        let positions = vec![config.max_position_embeddings, hidden];
        tensors.push((format!("{}.weight", names.in_body(names.embed_positions)), positions));
    }
    if config.embedding_norm {
        tensors.extend(norm_tensors(config, &names.in_body(names.embedding_norm), hidden));
    }
    tensors.extend(norm_tensors(config, &names.in_body(names.norm), hidden));
    if !config.tie_word_embeddings {
        tensors.push((format!("{}.weight", names.head_in_files), table));
        tensors.extend(
            config
                .head_bias
                .then(|| (format!("{}.bias", names.head_in_files), vec![config.vocab_size])),
        );
    }
    tensors
}

fn norm_tensors(config: &DecoderConfig, path: &str, width: usize) -> Vec<(String, Vec<usize>)> {
    let bias = (config.norm == Norm::Layer).then(|| (format!("{path}.bias"), vec![width]));
    std::iter::once((format!("{path}.weight"), vec![width])).chain(bias).collect()
}

fn layer_tensors(config: &DecoderConfig, layer: usize) -> Vec<(String, Vec<usize>)> {
    let prefix = config.names.layer(layer);
    let of = |part: PartShape| match part {
        PartShape::Linear(LinearShape { path, d_in, d_out, bias }) => {
            let shape = if config.fan_in_fan_out { [d_in, d_out] } else { [d_out, d_in] };
            let bias = bias.then(|| (format!("{prefix}{path}.bias"), vec![d_out]));
            std::iter::once((format!("{prefix}{path}.weight"), shape.to_vec()))
                .chain(bias)
                .collect()
        }
        PartShape::Norm(path, width) => norm_tensors(config, &format!("{prefix}{path}"), width),
        PartShape::Router(path) => {
            let experts = config.experts.map_or(0, |experts| experts.num_experts);
            vec![(format!("{prefix}{path}.weight"), vec![experts, config.hidden_size])]
        }
        PartShape::Attention(_) => Vec::new(),
    };
    layer_parts(config, layer).into_iter().flat_map(of).collect()
}

/// The number of scalars of all layers, where `of` tells that of one: layers of one kind are alike.
fn all_layers(config: &DecoderConfig, of: impl Fn(usize) -> u128) -> u128 {
    let kind = |experts: bool| {
        let alike = config.layers.iter().filter(|layer| layer.experts == experts).count() as u128;
        let first = config.layers.iter().position(|layer| layer.experts == experts);
        first.map_or(0, |first| alike * of(first))
    };
    kind(false) + kind(true)
}

fn scalars(tensors: &[(String, Vec<usize>)]) -> u128 {
    tensors.iter().map(|(_, shape)| shape.iter().map(|&size| size as u128).product::<u128>()).sum()
}

/// Scalars of the whole model.
pub fn parameter_count(config: &DecoderConfig) -> usize {
    let layers = all_layers(config, |layer| scalars(&layer_tensors(config, layer)));
    usize::try_from(scalars(&outer_tensors(config)) + layers).unwrap_or(usize::MAX)
}

/// Bytes of the scale of a block.
const SCALE: u128 = 4;

/// Bytes of the whole model's weights kept as `storage`, where i8 stands for the layers' matrices
/// in eight bits.
pub fn weight_bytes(config: &DecoderConfig, storage: DType) -> u64 {
    let all = parameter_count(config) as u128;
    if storage != DType::I8 {
        return u64::try_from(all * storage.size() as u128).unwrap_or(u64::MAX);
    }
    let matrices = |layer| {
        let shapes = layer_parts(config, layer).into_iter().filter_map(|part| match part {
            PartShape::Linear(shape) => {
                Some((shape.d_in as u128 * shape.d_out as u128, block(shape.d_in) as u128))
            }
            _ => None,
        });
        shapes.collect::<Vec<_>>()
    };
    let packed = all_layers(config, |layer| matrices(layer).iter().map(|(count, _)| count).sum());
    let bytes = all_layers(config, |layer| {
        matrices(layer).iter().map(|(count, block)| count + count / block * SCALE).sum()
    });
    u64::try_from((all - packed) * 4 + bytes).unwrap_or(u64::MAX)
}
