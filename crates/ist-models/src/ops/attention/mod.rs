//! Causal attention with a padding mask and grouped key-value heads
//! (Ainslie et al., [arXiv 2305.13245](https://arxiv.org/abs/2305.13245)).
//!
//! P = softmax(s · q kᵀ) over the keys a query sees, y = P v, with s = 1 / √`head_dim` in most models; [`Scores`] has what else
//! models do to s · q kᵀ. It is computed for a block of queries at a time, so
//! the matrix of queries × keys never exists in full (as in FlashAttention, Dao et al.,
//! [arXiv 2205.14135](https://arxiv.org/abs/2205.14135)). Kept are q, k, v and the logarithm ℓ of every softmax's
//! denominator, one number a query and head. With the gradient g of y, a block at a time: P = exp(s · q kᵀ - ℓ),
//! D = s · P ⊙ (g vᵀ - rowsum(P ⊙ g vᵀ)), and dq = D k, dk = Σ Dᵀ q, dv = Σ Pᵀ g.

#[cfg(feature = "flex")]
mod heads;
mod mask;
mod scores;

use ist_core::burn;

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, Slice, Tensor, TensorData};
use ist_core::operation::{Operands, Operation, Recorded, apply};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

#[cfg(feature = "cube")]
use super::kernels::attention as tiled;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};

pub use mask::AttentionMask;
pub use scores::{Scores, slopes};

/// Attention of every query over the keys that `mask` lets it see, where `scores` says how much they weigh.
///
/// q `[batch, queries, heads, head_dim]`, k and v `[batch, keys, kv_heads, head_dim]`; the result has q's shape. Query head h
/// reads key-value head h / (heads / `kv_heads`).
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
    scores: &Scores,
) -> Tensor<4> {
    let operands = [q, k, v].map(Tensor::into_dispatch);
    apply(Attention { mask: mask.clone(), scores: scores.clone() }, operands, [])
}

/// Added to a score that must not count. Large enough to vanish in the softmax, small enough to stay finite in f16.
const MASKED: f32 = -6e4;

/// Queries of one block.
pub(crate) const BLOCK: usize = 64;

#[derive(Clone, Debug)]
struct Attention {
    mask: AttentionMask,
    scores: Scores,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn of<B: Backend>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> Self {
        let [batch, _, heads, head_dim] = q.shape().dims::<4>();
        let [_, _, kv_heads, _] = k.shape().dims::<4>();
        Self { batch, heads, kv_heads, head_dim }
    }

    /// The scores' shape with the query heads of a group beside each other: `[batch, kv_heads, heads of a group · queries]`.
    fn grouped(self, queries: usize) -> [usize; 3] {
        [self.batch, self.kv_heads, self.heads / self.kv_heads * queries]
    }
}

/// Some positions of `[batch, positions, heads, width]` as `[batch, heads, positions, width]`.
fn positions<B: Backend>(x: &FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    let [batch, _, heads, width] = x.shape().dims::<4>();
    B::float_swap_dims(
        B::float_slice(x.clone(), &[0..batch, range, 0..heads, 0..width].map(Slice::from)),
        1,
        2,
    )
}

impl Attention {
    /// The ranges of queries that are worked on together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let queries = self.mask.queries();
        (0..queries).step_by(BLOCK).map(move |from| from..(from + BLOCK).min(queries))
    }

    /// What is added to the scores of the block's queries: what the keys' positions weigh, and [`MASKED`] where a key is not
    /// seen; `[batch or 1, heads or 1, queries, keys]`.
    fn bias<B: Backend>(&self, block: &Range<usize>, like: &FloatTensor<B>) -> FloatTensor<B> {
        let (rows, keys) =
            (if self.mask.has_padding() { like.shape()[0] } else { 1 }, self.mask.keys_of(block));
        let slopes = if self.scores.slopes.is_empty() { &[0.0][..] } else { &self.scores.slopes };
        let mut bias = Vec::with_capacity(rows * slopes.len() * block.len() * keys.len());
        for row in 0..rows {
            let positions = self.mask.positions(row);
            for (slope, query) in
                slopes.iter().flat_map(|slope| block.clone().map(move |query| (slope, query)))
            {
                let of = |key| {
                    if self.mask.sees(row, query, key) {
                        slope * positions[key] as f32
                    } else {
                        MASKED
                    }
                };
                bias.extend(keys.clone().map(of));
            }
        }
        let shape = [rows, slopes.len(), block.len(), keys.len()];
        let bias = B::float_from_data(TensorData::new(bias, shape), &like.device());
        let dtype = like.dtype();
        if dtype == DType::F32 { bias } else { B::float_cast(bias, FloatDType::from(dtype)) }
    }

    /// Of one block of queries the scores with the bias, `[batch, heads, queries, keys]`, and t = tanh(s / cap) where they
    /// have a cap.
    fn scores<B: Backend>(
        &self,
        q: &FloatTensor<B>,
        k: &FloatTensor<B>,
        block: &Range<usize>,
    ) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
        let sizes = Sizes::of::<B>(q, k);
        let keys = self.mask.keys_of(block);
        let [batch, kv_heads, tall] = sizes.grouped(block.len());
        let q = B::float_mul_scalar(positions::<B>(q, block.clone()), self.scores.scale.into());
        let q = B::float_reshape(q, Shape::new([batch, kv_heads, tall, sizes.head_dim]));
        let k = B::float_swap_dims(positions::<B>(k, keys.clone()), 2, 3);
        let mut scores = B::float_reshape(
            B::float_matmul(q, k),
            Shape::new([batch, sizes.heads, block.len(), keys.len()]),
        );
        let tanh = self
            .scores
            .soft_cap
            .map(|cap| B::float_tanh(B::float_mul_scalar(scores.clone(), (1.0 / cap).into())));
        if let (Some(cap), Some(tanh)) = (self.scores.soft_cap, &tanh) {
            scores = B::float_mul_scalar(tanh.clone(), cap.into());
        }
        let bias = self.bias::<B>(block, &scores);
        (B::float_add(scores, bias), tanh)
    }

    /// The result `[batch, queries, heads, head_dim]` and ℓ `[batch, heads, queries, 1]`.
    fn compute<B: Backend>(
        &self,
        [q, k, v]: &[FloatTensor<B>; 3],
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let sizes = Sizes::of::<B>(q, k);
        let (mut outputs, mut logs) = (Vec::new(), Vec::new());
        for block in self.blocks() {
            let keys = self.mask.keys_of(&block);
            let (scores, _) = self.scores::<B>(q, k, &block);
            let most = B::float_max_dim(scores.clone(), 3);
            let powers = B::float_exp(B::float_sub(scores, most.clone()));
            let sum = B::float_sum_dim(powers.clone(), 3);
            let weights = B::float_div(powers, sum.clone());
            outputs.push(B::float_swap_dims(
                mix::<B>(weights, positions::<B>(v, keys), sizes),
                1,
                2,
            ));
            logs.push(B::float_add(most, B::float_log(sum)));
        }
        (B::float_cat(outputs, 1), B::float_cat(logs, 2))
    }
}

/// weights `[batch, heads, queries, keys]` times v `[batch, kv_heads, keys, head_dim]`, `[batch, heads, queries, head_dim]`.
fn mix<B: Backend>(weights: FloatTensor<B>, v: FloatTensor<B>, sizes: Sizes) -> FloatTensor<B> {
    let [batch, heads, queries, keys] = weights.shape().dims::<4>();
    let [_, kv_heads, tall] = sizes.grouped(queries);
    let mixed =
        B::float_matmul(B::float_reshape(weights, Shape::new([batch, kv_heads, tall, keys])), v);
    B::float_reshape(mixed, Shape::new([batch, heads, queries, sizes.head_dim]))
}

/// The transpose of a block's `[batch, heads, queries, keys]` times `[batch, heads, queries, head_dim]`, summed over the heads
/// of a group and zero-padded from the block's `keys` to all: `[batch, keys, kv_heads, head_dim]`.
fn spread<B: Backend>(
    block: FloatTensor<B>,
    x: FloatTensor<B>,
    sizes: Sizes,
    (range, all): (&Range<usize>, usize),
) -> FloatTensor<B> {
    let [batch, _, queries, keys] = block.shape().dims::<4>();
    let [_, kv_heads, tall] = sizes.grouped(queries);
    let block = B::float_reshape(block, Shape::new([batch, kv_heads, tall, keys]));
    let x = B::float_reshape(x, Shape::new([batch, kv_heads, tall, sizes.head_dim]));
    let sum = B::float_swap_dims(B::float_matmul(B::float_swap_dims(block, 2, 3), x), 1, 2);
    let (device, dtype) = (sum.device(), FloatDType::from(sum.dtype()));
    let zeros = |count: usize| {
        let shape = Shape::new([batch, count, kv_heads, sizes.head_dim]);
        (count > 0).then(|| B::float_zeros(shape, &device, dtype))
    };
    let parts: Vec<_> =
        [zeros(range.start), Some(sum), zeros(all - range.end)].into_iter().flatten().collect();
    B::float_cat(parts, 1)
}

impl Operation for Attention {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(&inputs.floats()).0
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        _: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        let [q, k, v] = inputs.floats();
        let (output, log) = self.compute::<B>(&[q.clone(), k.clone(), v.clone()]);
        Ok((output, Operands::new(vec![q, k, v, log], Vec::new())))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [q, k, v, log] = saved.floats();
        let (sizes, all) = (Sizes::of::<B>(&q, &k), self.mask.keys());
        let (mut d_q, mut d_k, mut d_v) = (Vec::new(), None, None);
        for block in self.blocks() {
            let keys = self.mask.keys_of(&block);
            let log = B::float_slice(
                log.clone(),
                &[0..sizes.batch, 0..sizes.heads, block.clone(), 0..1].map(Slice::from),
            );
            let (scores, tanh) = self.scores::<B>(&q, &k, &block);
            let weights = B::float_exp(B::float_sub(scores, log));
            let g = positions::<B>(&gradient, block.clone());
            let transposed = B::float_swap_dims(positions::<B>(&v, keys.clone()), 2, 3);
            let [_, kv_heads, tall] = sizes.grouped(block.len());
            let tall_g = B::float_reshape(
                g.clone(),
                Shape::new([sizes.batch, kv_heads, tall, sizes.head_dim]),
            );
            let d_weights = B::float_reshape(B::float_matmul(tall_g, transposed), weights.shape());
            let mean = B::float_sum_dim(B::float_mul(weights.clone(), d_weights.clone()), 3);
            let mut d_scores = B::float_mul(weights.clone(), B::float_sub(d_weights, mean));
            if let Some(tanh) = tanh {
                let square = B::float_mul(tanh.clone(), tanh);
                let slope = B::float_add_scalar(B::float_neg(square), 1.0f64.into());
                d_scores = B::float_mul(d_scores, slope);
            }
            let d_scores = B::float_mul_scalar(d_scores, self.scores.scale.into());
            d_q.push(B::float_swap_dims(
                mix::<B>(d_scores.clone(), positions::<B>(&k, keys.clone()), sizes),
                1,
                2,
            ));
            let place = (&keys, all);
            add::<B>(
                &mut d_k,
                spread::<B>(d_scores, positions::<B>(&q, block.clone()), sizes, place),
            );
            add::<B>(&mut d_v, spread::<B>(weights, g, sizes, place));
        }
        vec![Some(B::float_cat(d_q, 1)), d_k, d_v]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if !flex::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        heads::forward(self, inputs.floats()).0
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        if !flex::all_f32(&inputs.floats) {
            return self.record(inputs, wanted);
        }
        let inputs = inputs.floats().map(flex::contiguous);
        let (output, log) = heads::forward(self, inputs.clone());
        let [q, k, v] = inputs;
        Ok((output, Operands::new(vec![q, k, v, log], Vec::new())))
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        if !flex::all_f32(&saved.floats) {
            return self.backward(saved, gradient, wanted);
        }
        heads::backward(self, saved.floats(), gradient).map(Some).into()
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        if !tiled::can(&inputs.floats) {
            return self.forward(inputs);
        }
        tiled::forward(&self.mask, &self.scores, inputs.floats()).0
    }

    #[cfg(feature = "cube")]
    fn record_cube(
        &self,
        inputs: Operands<CubeBackend>,
        wanted: &[bool],
    ) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
        if !tiled::can(&inputs.floats) {
            return self.record(inputs, wanted);
        }
        let inputs = inputs.floats().map(tiled::readable);
        let (output, logs) = tiled::forward(&self.mask, &self.scores, inputs.clone());
        let [q, k, v] = inputs;
        Ok((output, Operands::new(vec![q, k, v, logs], Vec::new())))
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        if !tiled::can(&saved.floats) {
            return self.backward(saved, gradient, wanted);
        }
        tiled::backward(&self.mask, &self.scores, saved.floats(), gradient).map(Some).into()
    }
}

fn add<B: Backend>(sum: &mut Option<FloatTensor<B>>, term: FloatTensor<B>) {
    *sum = Some(match sum.take() {
        Some(sum) => B::float_add(sum, term),
        None => term,
    });
}
