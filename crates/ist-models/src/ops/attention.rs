//! Causal attention with a padding mask and grouped key-value heads
//! (Ainslie et al., [arXiv 2305.13245](https://arxiv.org/abs/2305.13245)).

use ist_core::burn::tensor::{Device, Tensor, TensorData, activation};

/// Added to a score that must not count. Large enough to vanish in the softmax, small enough to stay finite in f16.
const MASKED: f32 = -6e4;

/// softmax(q kᵀ / √`head_dim` + bias) v.
///
/// q `[batch, heads, queries, head_dim]`, k and v `[batch, kv_heads, keys, head_dim]`, bias
/// `[batch or 1, 1, queries, keys]`; the result has q's shape. Query head h reads key-value head h / (heads / `kv_heads`).
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    let [batch, heads, queries, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let grouped = heads / kv_heads * queries;
    // The query heads of one group lie beside each other, so the group is one taller matrix and no key is repeated.
    let q = q.reshape([batch, kv_heads, grouped, head_dim]).mul_scalar(1.0 / (head_dim as f64).sqrt());
    let scores = q.matmul(k.transpose()).reshape([batch, heads, queries, keys]);
    let bias = bias.cast(scores.dtype());
    let weights = activation::softmax(scores + bias, 3);
    let mixed = weights.reshape([batch, kv_heads, grouped, keys]).matmul(v);
    mixed.reshape([batch, heads, queries, head_dim])
}

/// The bias of the last `queries` of `keys` positions: 0 where a query may look, else a large negative number.
///
/// A query sees the real positions up to its own. `mask` holds `keys` flags a row, false at padding. Without padding one row
/// serves the whole batch. Padding before the first real token sees itself, so that its softmax stays defined; other padding
/// sees what a real token in its place would see before it.
pub fn causal_bias(mask: &[bool], queries: usize, keys: usize, device: &Device) -> Tensor<4> {
    let one_row = mask.iter().all(|&real| real);
    let rows: Vec<&[bool]> = mask.chunks(keys.max(1)).take(if one_row { 1 } else { usize::MAX }).collect();
    let mut bias = Vec::with_capacity(rows.len() * queries * keys);
    for row in &rows {
        let first_real = row.iter().position(|&real| real).unwrap_or(keys);
        for query in keys - queries..keys {
            let sees = |key: usize| key <= query && (row[key] || (key == query && query < first_real));
            bias.extend((0..keys).map(|key| if sees(key) { 0.0 } else { MASKED }));
        }
    }
    Tensor::from_data(TensorData::new(bias, [rows.len(), 1, queries, keys]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_real_positions_up_to_its_own() {
        let bias = causal_bias(&[false, true, true, true], 4, 4, &Device::flex());
        let seen: Vec<bool> = bias.into_data().iter::<f32>().map(|value| value == 0.0).collect();
        let expected = [
            [true, false, false, false],
            [false, true, false, false],
            [false, true, true, false],
            [false, true, true, true],
        ];
        assert_eq!(seen, expected.concat());
    }

    #[test]
    fn padding_between_real_tokens_is_seen_by_nobody() {
        let bias = causal_bias(&[true, false, true], 3, 3, &Device::flex());
        let seen: Vec<bool> = bias.into_data().iter::<f32>().map(|value| value == 0.0).collect();
        assert_eq!(seen, [[true, false, false], [true, false, false], [true, false, true]].concat());
    }

    #[test]
    fn a_batch_without_padding_shares_one_row() {
        assert_eq!(causal_bias(&[true; 12], 1, 4, &Device::flex()).dims(), [1, 1, 1, 4]);
    }
}
