//! Attention on slices: a key-value head of a row at a time, heads in parallel.

use ist_core::burn;

use std::ops::Range;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};
use ist_core::operation::{Operands, Operation, Recorded};

use super::heads::{Block, KeyHead, gather};
use super::{Attended, Attention, AttentionMask, BLOCK, Scores};

/// The value; by the formula where a tensor is not of f32.
pub(super) fn forward(of: &Attention, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    attend(of, inputs.floats()).output
}

/// The value, and q, k, v with the logarithms for the backward pass.
pub(super) fn record(
    of: &Attention,
    inputs: Operands<Flex>,
    wanted: &[bool],
) -> Result<Recorded<Flex>, Operands<Flex>> {
    if !flex::all_f32(&inputs.floats) {
        return of.record(inputs, wanted);
    }
    // Made contiguous before they are kept, so that the backward pass need not do it again.
    let inputs = inputs.floats().map(flex::contiguous);
    let Attended { output, logs } = attend(of, inputs.clone());
    let [q, k, v] = inputs;
    Ok((output, Operands::new(vec![q, k, v, logs], Vec::new())))
}

fn attend(of: &Attention, inputs: [FlexTensor; 3]) -> Attended<FlexTensor> {
    let [q, k, v] = inputs.map(flex::contiguous);
    let heads = KeyHead::all(&q, &k);
    let shape = q.shape();
    let [batch, queries, count, width] = shape.dims::<4>();
    let slices = [&q, &k, &v].map(flex::slice);
    let parts = flex::tasks(heads.len(), |at| forward_head(of, heads[at], slices));
    let (outputs, logs): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|part| (part.output, part.logs)).unzip();
    let output = gather(&outputs, [batch, queries, count * width]);
    Attended {
        output: flex::tensor(output, shape),
        logs: flex::tensor(logs.concat(), [batch, count, queries, 1]),
    }
}

/// Of one key-value head: the result `[queries, group, head_dim]`, the logarithms
/// `[group, queries]`.
fn forward_head(of: &Attention, head: KeyHead, inputs: [&[f32]; 3]) -> Attended<Vec<f32>> {
    let [q, k, v] = inputs;
    let KeyHead { queries, head_dim, .. } = head;
    let stride = head.group() * head_dim;
    let mut output = vec![0.0; queries * stride];
    let mut logs = vec![0.0; head.group() * queries];
    // The scores of one block, which all blocks share. This is all that exists of the matrix of
    // queries × keys.
    let mut scores = vec![0.0; BLOCK.min(queries) * head.keys];
    for member in 0..head.group() {
        let biases = head.biases(of, member);
        for from in (0..queries).step_by(BLOCK) {
            let block = Block { member, from, count: BLOCK.min(queries - from) };
            let keys = of.mask.keys_of(&block.range());
            let scores = &mut scores[..block.count * keys.len()];
            let size = [block.count, keys.len()];
            score(&of.scores, size, head.queries(q, block), head.keys(k, &keys), scores);
            shape(&of.scores, scores, &biases, &keys);
            let rows = ScoreRows { mask: &of.mask, row: head.row, from, keys: &keys };
            softmax(&rows, scores, &mut logs[member * queries + from..][..block.count]);
            let out = &mut output[from * stride + member * head_dim..];
            let out = MatrixMut::new(out, block.count, head_dim, stride);
            let weights = Matrix::new(scores, block.count, keys.len(), keys.len());
            multiply(out, weights, head.keys(v, &keys), 1.0, false, false);
        }
    }
    Attended { output, logs }
}

/// s · q kᵀ of a block of queries and the keys they can reach.
fn score(of: &Scores, size: [usize; 2], q: Matrix<'_>, k: Matrix<'_>, scores: &mut [f32]) {
    let [queries, keys] = size;
    let out = MatrixMut::new(scores, queries, keys, keys);
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

/// Which queries and keys the rows of a block's scores stand for.
struct ScoreRows<'a> {
    mask: &'a AttentionMask,
    /// The row of the batch.
    row: usize,
    /// The query of the first row of scores.
    from: usize,
    keys: &'a Range<usize>,
}

impl ScoreRows<'_> {
    /// Of row `at` the scores of the keys within its query's reach, those it does not see at -∞.
    /// What lies beyond is set to 0, a weight.
    fn hide<'s>(&self, at: usize, scores: &'s mut [f32]) -> &'s mut [f32] {
        let query = self.from + at;
        let (scores, beyond) = scores.split_at_mut(self.mask.reach(query) - self.keys.start);
        beyond.fill(0.0);
        // Without padding and window a query sees every key within its reach.
        if self.mask.has_padding() || self.mask.has_window() {
            for (key, score) in self.keys.clone().zip(scores.iter_mut()) {
                if !self.mask.sees(self.row, query, key) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        scores
    }
}

/// Turns every row of scores into weights that sum to 1 over the keys its query sees; writes
/// log Σ exp(score).
fn softmax(rows: &ScoreRows<'_>, scores: &mut [f32], logs: &mut [f32]) {
    for ((at, scores), log) in scores.chunks_exact_mut(rows.keys.len()).enumerate().zip(logs) {
        let scores = rows.hide(at, scores);
        let most = flex::max(scores);
        let sum = flex::exp_and_sum(scores, most);
        let factor = 1.0 / sum;
        for weight in scores {
            *weight *= factor;
        }
        *log = most + sum.ln();
    }
}

/// The gradients of q, k and v; by the formula where a tensor is not of f32.
pub(super) fn backward(
    of: &Attention,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [q, k, v, logs] = saved.floats().map(flex::contiguous);
    let gradient = flex::contiguous(gradient);
    let heads = KeyHead::all(&q, &k);
    let kept = KeptSlices {
        q: flex::slice(&q),
        k: flex::slice(&k),
        v: flex::slice(&v),
        logs: flex::slice(&logs),
        gradient: flex::slice(&gradient),
    };
    let parts = flex::tasks(heads.len(), |at| backward_head(of, heads[at], &kept));
    let [batch, queries, count, width] = q.shape().dims::<4>();
    let [_, keys, kv_heads, _] = k.shape().dims::<4>();
    let part = |index: usize| parts.iter().map(|part| part[index].as_slice()).collect::<Vec<_>>();
    let d_q = gather(&part(0), [batch, queries, count * width]);
    let d_k = gather(&part(1), [batch, keys, kv_heads * width]);
    let d_v = gather(&part(2), [batch, keys, kv_heads * width]);
    vec![
        Some(flex::tensor(d_q, q.shape())),
        Some(flex::tensor(d_k, k.shape())),
        Some(flex::tensor(d_v, k.shape())),
    ]
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
struct KeptSlices<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    logs: &'a [f32],
    /// The gradient of the result.
    gradient: &'a [f32],
}

/// Of one key-value head: dq `[queries, group, head_dim]`, dk and dv `[keys, head_dim]`.
fn backward_head(of: &Attention, head: KeyHead, kept: &KeptSlices<'_>) -> [Vec<f32>; 3] {
    let KeyHead { queries, head_dim, .. } = head;
    let stride = head.group() * head_dim;
    let mut d_q = vec![0.0; queries * stride];
    let mut d_k = vec![0.0; head.keys * head_dim];
    let mut d_v = vec![0.0; head.keys * head_dim];
    // Of one block the weights P and D, and where scores are capped the caps' slopes.
    let size = BLOCK.min(queries) * head.keys;
    let mut weights = vec![0.0; size];
    let mut d_scores = vec![0.0; size];
    let mut slopes = vec![0.0; if of.scores.soft_cap.is_some() { size } else { 0 }];
    for member in 0..head.group() {
        let biases = head.biases(of, member);
        let query_head = head.row * head.heads + head.kv_head * head.group() + member;
        let logs = &kept.logs[query_head * queries..][..queries];
        for from in (0..queries).step_by(BLOCK) {
            let block = Block { member, from, count: BLOCK.min(queries - from) };
            let Block { count, .. } = block;
            let keys = of.mask.keys_of(&block.range());
            let width = keys.len();
            let weights = &mut weights[..count * width];
            let d_scores = &mut d_scores[..count * width];
            let q = head.queries(kept.q, block);
            let g = head.queries(kept.gradient, block);

            // The scores again, and g vᵀ, from which D comes.
            score(&of.scores, [count, width], q, head.keys(kept.k, &keys), weights);
            if let Some(cap) = of.scores.soft_cap {
                cap_slopes(&mut slopes[..count * width], weights, cap as f32);
            }
            shape(&of.scores, weights, &biases, &keys);
            let d_weights = MatrixMut::new(d_scores, count, width, width);
            multiply(d_weights, g, head.keys(kept.v, &keys).transposed(), 1.0, false, false);
            let rows = ScoreRows { mask: &of.mask, row: head.row, from, keys: &keys };
            differentiate(&rows, of.scores.scale as f32, weights, d_scores, &logs[from..]);
            slopes.iter().zip(&mut *d_scores).for_each(|(slope, gradient)| *gradient *= slope);

            // dq of the block is whole; dk and dv are sums over blocks and members.
            let weights = Matrix::new(weights, count, width, width);
            let d_scores = Matrix::new(d_scores, count, width, width);
            let out = &mut d_q[from * stride + member * head_dim..];
            let out = MatrixMut::new(out, count, head_dim, stride);
            multiply(out, d_scores, head.keys(kept.k, &keys), 1.0, false, false);
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

/// Turns every row of scores into weights P, and every row of P's gradient into that of q kᵀ
/// without its cap.
fn differentiate(
    rows: &ScoreRows<'_>,
    scale: f32,
    scores: &mut [f32],
    d_weights: &mut [f32],
    logs: &[f32],
) {
    let width = rows.keys.len();
    let each =
        scores.chunks_exact_mut(width).zip(d_weights.chunks_exact_mut(width)).zip(logs).enumerate();
    for (at, ((scores, gradient), log)) in each {
        let weights = rows.hide(at, scores);
        let (gradient, beyond) = gradient.split_at_mut(weights.len());
        beyond.fill(0.0);
        flex::exp_and_sum(weights, *log);
        let mean = flex::dot(weights, gradient);
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = *weight * (*gradient - mean) * scale;
        }
    }
}
