//! Attention on the `flex` backend: a key-value head of a row at a time, heads in parallel.
//!
//! The products read q, k, v and the gradient where they lie, `[batch, positions, heads, head_dim]`; nothing is transposed.

use ist_core::burn;

use burn::backend::TensorMetadata;
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

use super::{Attention, AttentionMask, BLOCK, Scores};
use std::ops::Range;

/// The tensors' sizes and one head of one row within them.
#[derive(Clone, Copy)]
struct Head {
    row: usize,
    kv_head: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    queries: usize,
    keys: usize,
}

impl Head {
    /// The heads of all rows, in order.
    fn all(q: &FlexTensor, k: &FlexTensor) -> Vec<Self> {
        let [batch, queries, heads, head_dim] = q.shape().dims::<4>();
        let [_, keys, kv_heads, _] = k.shape().dims::<4>();
        let head = |at| Self {
            row: at / kv_heads,
            kv_head: at % kv_heads,
            heads,
            kv_heads,
            head_dim,
            queries,
            keys,
        };
        (0..batch * kv_heads).map(head).collect()
    }

    /// Query heads that read this key-value head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Queries `from` .. `from + count` of member `member` of the group, from a tensor of q's shape.
    fn queries(self, q: &[f32], member: usize, from: usize, count: usize) -> Matrix<'_> {
        let stride = self.heads * self.head_dim;
        let head = self.kv_head * self.group() + member;
        let start = (self.row * self.queries + from) * stride + head * self.head_dim;
        Matrix::new(&q[start..], count, self.head_dim, stride)
    }

    /// Some keys, from a tensor of k's shape.
    fn keys<'a>(self, k: &'a [f32], keys: &Range<usize>) -> Matrix<'a> {
        let stride = self.kv_heads * self.head_dim;
        let start = (self.row * self.keys + keys.start) * stride + self.kv_head * self.head_dim;
        Matrix::new(&k[start..], keys.len(), self.head_dim, stride)
    }

    /// Of member `member` of the group, what each key's position adds to its score; empty where nothing is added.
    fn biases(self, of: &Attention, member: usize) -> Vec<f32> {
        let slope = of.scores.slopes.get(self.kv_head * self.group() + member);
        let positions = slope
            .map(|slope| of.mask.positions(self.row).into_iter().map(move |at| slope * at as f32));
        positions.into_iter().flatten().collect()
    }
}

/// The result `[batch, queries, heads, head_dim]` and the logarithms `[batch, heads, queries, 1]`.
pub(super) fn forward(of: &Attention, inputs: [FlexTensor; 3]) -> (FlexTensor, FlexTensor) {
    let [q, k, v] = inputs.map(flex::contiguous);
    let heads = Head::all(&q, &k);
    let shape = q.shape();
    let [batch, queries, count, width] = shape.dims::<4>();
    let (q, k, v) = (flex::slice(&q), flex::slice(&k), flex::slice(&v));
    let parts = flex::tasks(heads.len(), |at| forward_head(of, heads[at], q, k, v));
    let (outputs, logs): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let output = gather(&outputs, batch, queries, count * width);
    (flex::tensor(output, shape), flex::tensor(logs.concat(), [batch, count, queries, 1]))
}

/// Of one key-value head: the result `[queries, group, head_dim]` and the logarithms `[group, queries]`.
fn forward_head(
    of: &Attention,
    head: Head,
    q: &[f32],
    k: &[f32],
    v: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mask = &of.mask;
    let Head { queries, head_dim, .. } = head;
    let stride = head.group() * head_dim;
    let mut output = vec![0.0; queries * stride];
    let mut logs = vec![0.0; head.group() * queries];
    let mut scores = vec![0.0; BLOCK.min(queries) * head.keys];
    for member in 0..head.group() {
        let biases = head.biases(of, member);
        for from in (0..queries).step_by(BLOCK) {
            let count = BLOCK.min(queries - from);
            let keys = mask.keys_of(&(from..from + count));
            let scores = &mut scores[..count * keys.len()];
            score(&of.scores, head, [q, k], (member, from), &keys, scores);
            shape(&of.scores, scores, &biases, &keys);
            let logs = &mut logs[member * queries + from..][..count];
            softmax(mask, head.row, from, scores, &keys, logs);
            let out = MatrixMut::new(
                &mut output[from * stride + member * head_dim..],
                count,
                head_dim,
                stride,
            );
            let weights = Matrix::new(scores, count, keys.len(), keys.len());
            multiply(out, weights, head.keys(v, &keys), 1.0, false, false);
        }
    }
    (output, logs)
}

/// s · q kᵀ of a block of queries, which begins at `from`, and the keys they can reach.
fn score(
    of: &Scores,
    head: Head,
    [q, k]: [&[f32]; 2],
    (member, from): (usize, usize),
    keys: &Range<usize>,
    scores: &mut [f32],
) {
    let count = BLOCK.min(head.queries - from);
    let out = MatrixMut::new(scores, count, keys.len(), keys.len());
    let (q, k) = (head.queries(q, member, from, count), head.keys(k, keys));
    multiply(out, q, k.transposed(), of.scale as f32, false, false);
}

/// Caps the scores and adds what the keys' positions weigh.
fn shape(of: &Scores, scores: &mut [f32], biases: &[f32], keys: &Range<usize>) {
    if let Some(cap) = of.soft_cap {
        let cap = cap as f32;
        for score in &mut *scores {
            *score = cap * (*score / cap).tanh();
        }
    }
    if !biases.is_empty() {
        for row in scores.chunks_exact_mut(keys.len()) {
            row.iter_mut().zip(&biases[keys.clone()]).for_each(|(score, bias)| *score += bias);
        }
    }
}

/// Turns every row of scores into weights that sum to 1 over the keys its query sees; writes log Σ exp(score).
fn softmax(
    mask: &AttentionMask,
    row: usize,
    from: usize,
    scores: &mut [f32],
    keys: &Range<usize>,
    logs: &mut [f32],
) {
    for ((at, scores), log) in scores.chunks_exact_mut(keys.len()).enumerate().zip(logs) {
        let scores = hide(mask, row, from + at, keys, scores);
        let most = flex::max(scores);
        let sum = flex::exp_and_sum(scores, most);
        let factor = 1.0 / sum;
        for weight in scores {
            *weight *= factor;
        }
        *log = most + sum.ln();
    }
}

/// The scores of the keys within the query's reach, those it does not see at -∞; what lies beyond is set to 0, a weight.
fn hide<'a>(
    mask: &AttentionMask,
    row: usize,
    query: usize,
    keys: &Range<usize>,
    scores: &'a mut [f32],
) -> &'a mut [f32] {
    let (scores, beyond) = scores.split_at_mut(mask.reach(query) - keys.start);
    beyond.fill(0.0);
    if mask.has_padding() || mask.has_window() {
        for (key, score) in keys.clone().zip(scores.iter_mut()) {
            if !mask.sees(row, query, key) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
    scores
}

/// The gradients of q, k and v.
pub(super) fn backward(
    of: &Attention,
    saved: [FlexTensor; 4],
    gradient: FlexTensor,
) -> [FlexTensor; 3] {
    let [q, k, v, log] = saved.map(flex::contiguous);
    let gradient = flex::contiguous(gradient);
    let (heads, q_shape, k_shape) = (Head::all(&q, &k), q.shape(), k.shape());
    let inputs = [&q, &k, &v, &gradient].map(flex::slice);
    let log = flex::slice(&log);
    let parts = flex::tasks(heads.len(), |at| backward_head(of, heads[at], inputs, log));
    let [batch, queries, count, width] = q_shape.dims::<4>();
    let [_, keys, kv_heads, _] = k_shape.dims::<4>();
    let part = |index: usize| parts.iter().map(|part| part[index].as_slice()).collect::<Vec<_>>();
    [
        flex::tensor(gather(&part(0), batch, queries, count * width), q_shape),
        flex::tensor(gather(&part(1), batch, keys, kv_heads * width), k_shape.clone()),
        flex::tensor(gather(&part(2), batch, keys, kv_heads * width), k_shape),
    ]
}

/// Of one key-value head: dq `[queries, group, head_dim]`, dk and dv `[keys, head_dim]`.
fn backward_head(
    of: &Attention,
    head: Head,
    [q, k, v, gradient]: [&[f32]; 4],
    log: &[f32],
) -> [Vec<f32>; 3] {
    let mask = &of.mask;
    let Head { queries, head_dim, .. } = head;
    let stride = head.group() * head_dim;
    let mut d_q = vec![0.0; queries * stride];
    let (mut d_k, mut d_v) = (vec![0.0; head.keys * head_dim], vec![0.0; head.keys * head_dim]);
    let size = BLOCK.min(queries) * head.keys;
    let (mut weights, mut d_scores) = (vec![0.0; size], vec![0.0; size]);
    // The slopes of capped scores.
    let mut slopes = vec![0.0; if of.scores.soft_cap.is_some() { size } else { 0 }];
    for member in 0..head.group() {
        let biases = head.biases(of, member);
        let log = &log[(head.row * head.heads + head.kv_head * head.group() + member) * queries..]
            [..queries];
        for from in (0..queries).step_by(BLOCK) {
            let count = BLOCK.min(queries - from);
            let keys = mask.keys_of(&(from..from + count));
            let (width, size) = (keys.len(), count * keys.len());
            let (weights, d_scores) = (&mut weights[..size], &mut d_scores[..size]);
            score(&of.scores, head, [q, k], (member, from), &keys, weights);
            if let Some(cap) = of.scores.soft_cap {
                cap_slopes(&mut slopes[..size], weights, cap as f32);
            }
            shape(&of.scores, weights, &biases, &keys);
            let g = head.queries(gradient, member, from, count);
            let d_weights = MatrixMut::new(d_scores, count, width, width);
            multiply(d_weights, g, head.keys(v, &keys).transposed(), 1.0, false, false);
            differentiate(of, head, (from, &keys), weights, d_scores, &log[from..]);
            slopes.iter().zip(&mut *d_scores).for_each(|(slope, gradient)| *gradient *= slope);
            let (weights, d_scores) = (
                Matrix::new(weights, count, width, width),
                Matrix::new(d_scores, count, width, width),
            );
            let out = MatrixMut::new(
                &mut d_q[from * stride + member * head_dim..],
                count,
                head_dim,
                stride,
            );
            multiply(out, d_scores, head.keys(k, &keys), 1.0, false, false);
            let q = head.queries(q, member, from, count);
            let sums = [&mut d_k, &mut d_v].map(|sum| &mut sum[keys.start * head_dim..]);
            let [d_k, d_v] = sums.map(|sum| MatrixMut::new(sum, width, head_dim, head_dim));
            multiply(d_k, d_scores.transposed(), q, 1.0, true, false);
            multiply(d_v, weights.transposed(), g, 1.0, true, false);
        }
    }
    [d_q, d_k, d_v]
}

/// 1 - tanh²(score / cap).
fn cap_slopes(slopes: &mut [f32], scores: &[f32], cap: f32) {
    for (slope, score) in slopes.iter_mut().zip(scores) {
        let tanh = (score / cap).tanh();
        *slope = 1.0 - tanh * tanh;
    }
}

/// Turns every row of scores into weights P and every row of P's gradient into that of q kᵀ without its cap.
fn differentiate(
    of: &Attention,
    head: Head,
    (from, keys): (usize, &Range<usize>),
    scores: &mut [f32],
    d_weights: &mut [f32],
    log: &[f32],
) {
    let scale = of.scores.scale as f32;
    let rows =
        scores.chunks_exact_mut(keys.len()).zip(d_weights.chunks_exact_mut(keys.len())).zip(log);
    for (at, ((scores, gradient), log)) in rows.enumerate() {
        let weights = hide(&of.mask, head.row, from + at, keys, scores);
        let (gradient, beyond) = gradient.split_at_mut(weights.len());
        beyond.fill(0.0);
        flex::exp_and_sum(weights, *log);
        let mean = flex::dot(weights, gradient);
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = *weight * (*gradient - mean) * scale;
        }
    }
}

/// The heads' parts `[positions, width of a part]` beside each other: `[batch, positions, width]`.
fn gather<P: AsRef<[f32]> + Sync>(
    parts: &[P],
    batch: usize,
    positions: usize,
    width: usize,
) -> Vec<f32> {
    let heads = parts.len() / batch.max(1);
    let part = width / heads.max(1);
    let mut out = vec![0.0; batch * positions * width];
    flex::for_each_row(&mut out, width, |at, out| {
        let (row, position) = (at / positions, at % positions);
        for (head, out) in out.chunks_exact_mut(part).enumerate() {
            out.copy_from_slice(&parts[row * heads + head].as_ref()[position * part..][..part]);
        }
    });
    out
}
