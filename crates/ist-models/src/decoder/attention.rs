//! The self-attention of one layer.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::Tensor;
use ist_peft::{Adapter, PeftLinear, PeftNorm};

use super::config::{DecoderConfig, HeadNorm, Projection};
use super::context::DecoderContext;
use super::norm::normed;
use crate::ops::attention::attention;

/// The attention of one layer.
#[derive(Module, Debug)]
pub struct DecoderAttention<A: Module> {
    /// To queries; absent where one module projects to all three, as the next two are.
    pub(super) q_proj: Option<PeftLinear<A>>,
    pub(super) k_proj: Option<PeftLinear<A>>,
    pub(super) v_proj: Option<PeftLinear<A>>,
    /// To queries, keys and values.
    pub(super) qkv_proj: Option<PeftLinear<A>>,
    pub(super) q_norm: Option<PeftNorm<A>>,
    pub(super) k_norm: Option<PeftNorm<A>>,
    pub(super) o_proj: PeftLinear<A>,
    /// Keys and values in front of all tokens, where such an adapter is on.
    pub(super) prefix: Option<A>,
}

/// Keys and values of one layer, `[batch, positions, kv_heads, head_dim]`, keys already turned.
pub(super) type LayerCache = Option<(Tensor<4>, Tensor<4>)>;

impl<A: Adapter> DecoderAttention<A> {
    /// What the attention of layer `layer` makes of its input. `last` says whether the layer's
    /// output is this and the residual.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        (layer, last): (usize, bool),
        context: &DecoderContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, sequence, _] = x.dims();
        let config = &*context.config;
        let [q, k, v] = self.project(x, config, pass);
        let [q, k] = [q, k].map(|heads| context.turned(layer, heads));
        // A cache that has seen tokens begins with the prefix already.
        let [k, v] = match self.prefix.as_ref().and_then(|adapter| adapter.view().as_prefix()) {
            Some(prefix) if cache.as_ref().is_none_or(|cache| cache.is_none()) => {
                let own = prefix.prefix(pass);
                in_front([own.keys, own.values], [k, v])
            }
            _ => [k, v],
        };
        let (k, v) = match cache {
            Some(cache) => append(cache, k, v),
            None => (k, v),
        };
        let mixed = attention(q, k, v, &context.mask_of(layer), &context.scores(layer));
        let mixed = mixed.reshape([batch, sequence, config.query_width()]);
        if last { self.o_proj.forward_last(mixed, pass) } else { self.o_proj.forward(mixed, pass) }
    }

    /// Queries, keys and values by head, `[batch, sequence, heads, head_dim]`, not yet turned.
    fn project(&self, x: Tensor<3>, config: &DecoderConfig, pass: &LayerPass) -> [Tensor<4>; 3] {
        let norms = [self.q_norm.as_ref(), self.k_norm.as_ref(), None];
        let all = norms.map(|norm| norm.filter(|_| config.head_norm == Some(HeadNorm::All)));
        let mut parts = match (&self.qkv_proj, &self.q_proj, &self.k_proj, &self.v_proj) {
            (Some(module), ..) => split(module.forward(x, pass), config),
            (None, Some(q), Some(k), Some(v)) => {
                let parts =
                    [q.forward(x.clone(), pass), k.forward(x.clone(), pass), v.forward(x, pass)];
                let mut norms = all.into_iter();
                let parts = parts.map(|part| normed(config, norms.next().flatten(), part, pass));
                heads(parts, config)
            }
            _ => unreachable!("a layer has one projection or three"),
        };
        if config.head_norm == Some(HeadNorm::Head) {
            for (part, norm) in parts.iter_mut().zip(norms) {
                *part = by_head(part.clone(), norm, config, pass);
            }
        }
        parts
    }
}

/// The norm over each head's features.
fn by_head<A: Adapter>(
    x: Tensor<4>,
    norm: Option<&PeftNorm<A>>,
    config: &DecoderConfig,
    pass: &LayerPass,
) -> Tensor<4> {
    let [batch, sequence, heads, width] = x.dims();
    let rows = x.reshape([batch, sequence * heads, width]);
    normed(config, norm, rows, pass).reshape([batch, sequence, heads, width])
}

/// Queries, keys and values `[batch, sequence, width]` by head.
fn heads(parts: [Tensor<3>; 3], config: &DecoderConfig) -> [Tensor<4>; 3] {
    let mut counts =
        [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
            .into_iter();
    parts.map(|part| {
        let [batch, sequence, _] = part.dims();
        let count = counts.next().expect("both lists have three entries");
        part.reshape([batch, sequence, count, config.head_dim])
    })
}

/// Queries, keys and values out of what one module wrote.
fn split(x: Tensor<3>, config: &DecoderConfig) -> [Tensor<4>; 3] {
    let [batch, sequence, _] = x.dims();
    let (query, key, width) = (config.query_width(), config.key_width(), config.head_dim);
    if config.projection == Projection::Heads {
        let x = x.reshape([batch, sequence, config.num_attention_heads, 3 * width]);
        return [0, 1, 2].map(|at| x.clone().narrow(3, at * width, width));
    }
    let parts = [(0, query), (query, key), (query + key, key)];
    heads(parts.map(|(from, width)| x.clone().narrow(2, from, width)), config)
}

/// The prefix `[positions, kv_heads, head_dim]` in front of the tokens of every row.
fn in_front<const N: usize>(prefix: [Tensor<3>; N], tokens: [Tensor<4>; N]) -> [Tensor<4>; N] {
    let mut prefix = prefix.into_iter();
    tokens.map(|tokens| {
        let prefix = prefix.next().expect("both lists have N tensors").cast(tokens.dtype());
        let [positions, heads, width] = prefix.dims();
        let prefix = prefix.unsqueeze::<4>().expand([tokens.dims()[0], positions, heads, width]);
        Tensor::cat(vec![prefix, tokens], 1)
    })
}

/// The cache's keys and values with the new ones behind them.
fn append(cache: &mut LayerCache, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (k, v) = match cache.take() {
        Some((keys, values)) => (Tensor::cat(vec![keys, k], 1), Tensor::cat(vec![values, v], 1)),
        None => (k, v),
    };
    *cache = Some((k.clone(), v.clone()));
    (k, v)
}
