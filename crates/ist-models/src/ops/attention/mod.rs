//! Causal attention with a padding mask and grouped key-value heads
//! (Ainslie et al., [arXiv 2305.13245](https://arxiv.org/abs/2305.13245)).
//!
//! y = P v with P = softmax(s · q kᵀ) over the keys a query sees, and s = 1 / √`head_dim` in most
//! models. [`Scores`] has what else models do to s · q kᵀ.
//!
//! It is computed for a block of queries at a time, so the matrix of queries × keys never exists in
//! full (as in FlashAttention, Dao et al., [arXiv 2205.14135](https://arxiv.org/abs/2205.14135)).
//! Kept are q, k, v and the logarithm ℓ of every softmax's denominator, one number a query and
//! head. With the gradient g of y, a block at a time:
//!
//! ```text
//! P = exp(s · q kᵀ - ℓ)
//! D = s · P ⊙ (g vᵀ - rowsum(P ⊙ g vᵀ))
//! dq = D k    dk = Σ Dᵀ q    dv = Σ Pᵀ g
//! ```

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
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
use ist_core::plan::tape::{TapeOp, TapeValue};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

pub use mask::AttentionMask;
pub use scores::{Scores, slopes};

/// Attention of every query over the keys that `mask` lets it see, where `scores` says how much
/// they weigh.
///
/// Query head h reads key-value head h / (heads / `kv_heads`).
///
/// # Shapes
/// q and the result `[batch, queries, heads, head_dim]`, k and v
/// `[batch, keys, kv_heads, head_dim]`
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

/// Added to a score that must not count. Large enough to vanish in the softmax, small enough to
/// stay finite in f16.
const MASKED: f32 = -6e4;

/// Queries of one block.
pub(crate) const BLOCK: usize = 64;

/// Matrices of a block's queries × keys that one thread works on in the forward pass: the scores.
const FORWARD_MATRICES: u64 = 1;
/// The same in the backward pass: the weights and the gradient of the scores.
const BACKWARD_MATRICES: u64 = 2;

/// The sizes, in bytes, by which a memory plan counts the attention.
pub(crate) struct AttentionBytes {
    /// q, and the result.
    pub(crate) query: u64,
    /// All keys, and all values.
    pub(crate) keys: u64,
    /// The logarithms of the denominators.
    pub(crate) logs: u64,
    /// One block of queries × all keys, of all threads together.
    pub(crate) block: u64,
    /// Whether scores have a cap, whose slopes the backward pass holds as well.
    pub(crate) capped: bool,
}

/// What a memory plan counts for the attention of `[q, k, v]`.
///
/// The heads are computed apart and put together at the end, in both passes. So the result and the
/// gradients exist twice for a moment.
pub(crate) fn cost(inputs: [TapeValue; 3], bytes: &AttentionBytes) -> TapeOp {
    let AttentionBytes { query, keys, logs, block, capped } = *bytes;
    let slopes = if capped { block } else { 0 };
    TapeOp {
        reads: inputs.to_vec(),
        writes: query,
        keeps: inputs.to_vec(),
        notes: logs,
        forward: query + logs + FORWARD_MATRICES * block,
        backward: query + 2 * keys + BACKWARD_MATRICES * block + slopes,
        ..TapeOp::default()
    }
}

#[derive(Clone, Debug)]
struct Attention {
    mask: AttentionMask,
    scores: Scores,
}

/// Sizes of q and k.
#[derive(Clone, Copy)]
struct HeadSizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl HeadSizes {
    fn of<B: Backend>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> Self {
        let [batch, _, heads, head_dim] = q.shape().dims::<4>();
        let [_, _, kv_heads, _] = k.shape().dims::<4>();
        Self { batch, heads, kv_heads, head_dim }
    }

    /// The scores' shape with the query heads of a group below each other:
    /// `[batch, kv_heads, heads of a group · queries]`.
    ///
    /// So one product serves the group, and keys and values are not repeated for it.
    fn grouped(self, queries: usize) -> [usize; 3] {
        [self.batch, self.kv_heads, self.heads / self.kv_heads * queries]
    }
}

/// Some positions of `[batch, positions, heads, width]` as `[batch, heads, positions, width]`.
fn positions<B: Backend>(x: &FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    let [batch, _, heads, width] = x.shape().dims::<4>();
    let ranges = [0..batch, range, 0..heads, 0..width];
    B::float_swap_dims(B::float_slice(x.clone(), &ranges.map(Slice::from)), 1, 2)
}

/// One block's scores `[batch, heads, queries, keys]`.
struct BlockScores<B: Backend> {
    scores: FloatTensor<B>,
    /// tanh(s · q kᵀ / c) where scores have a cap c, from which follows the cap's derivative.
    tanh: Option<FloatTensor<B>>,
}

/// The result `[batch, queries, heads, head_dim]` and ℓ `[batch, heads, queries, 1]`.
struct Attended<T> {
    output: T,
    logs: T,
}

impl Attention {
    /// The ranges of queries that are worked on together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let queries = self.mask.queries();
        (0..queries).step_by(BLOCK).map(move |from| from..(from + BLOCK).min(queries))
    }

    /// What is added to the scores of the block's queries: what the keys' positions weigh, and
    /// [`MASKED`] where a key is not seen.
    ///
    /// # Shapes
    /// `[batch or 1, heads or 1, queries, keys]`
    fn bias<B: Backend>(&self, block: &Range<usize>, like: &FloatTensor<B>) -> FloatTensor<B> {
        // Rows differ only by their padding, heads only by their slopes.
        let rows = if self.mask.has_padding() { like.shape()[0] } else { 1 };
        let slopes = if self.scores.slopes.is_empty() { &[0.0][..] } else { &self.scores.slopes };
        let keys = self.mask.keys_of(block);
        let mut bias = Vec::with_capacity(rows * slopes.len() * block.len() * keys.len());
        for row in 0..rows {
            let positions = self.mask.positions(row);
            for slope in slopes {
                for query in block.clone() {
                    bias.extend(keys.clone().map(|key| {
                        if self.mask.sees(row, query, key) {
                            slope * positions[key] as f32
                        } else {
                            MASKED
                        }
                    }));
                }
            }
        }
        let shape = [rows, slopes.len(), block.len(), keys.len()];
        let bias = B::float_from_data(TensorData::new(bias, shape), &like.device());
        let dtype = like.dtype();
        if dtype == DType::F32 { bias } else { B::float_cast(bias, FloatDType::from(dtype)) }
    }

    /// The scores of one block of queries, with the bias.
    fn scores<B: Backend>(
        &self,
        q: &FloatTensor<B>,
        k: &FloatTensor<B>,
        block: &Range<usize>,
    ) -> BlockScores<B> {
        let sizes = HeadSizes::of::<B>(q, k);
        let keys = self.mask.keys_of(block);
        let [batch, kv_heads, tall] = sizes.grouped(block.len());
        let q = B::float_mul_scalar(positions::<B>(q, block.clone()), self.scores.scale.into());
        let q = B::float_reshape(q, Shape::new([batch, kv_heads, tall, sizes.head_dim]));
        let k = B::float_swap_dims(positions::<B>(k, keys.clone()), 2, 3);
        let mut scores = B::float_reshape(
            B::float_matmul(q, k),
            Shape::new([batch, sizes.heads, block.len(), keys.len()]),
        );
        let mut tanh = None;
        if let Some(cap) = self.scores.soft_cap {
            let bounded = B::float_tanh(B::float_mul_scalar(scores, (1.0 / cap).into()));
            scores = B::float_mul_scalar(bounded.clone(), cap.into());
            tanh = Some(bounded);
        }
        let bias = self.bias::<B>(block, &scores);
        BlockScores { scores: B::float_add(scores, bias), tanh }
    }

    fn compute<B: Backend>(&self, inputs: &[FloatTensor<B>; 3]) -> Attended<FloatTensor<B>> {
        let [q, k, v] = inputs;
        let sizes = HeadSizes::of::<B>(q, k);
        let mut outputs = Vec::new();
        let mut logs = Vec::new();
        for block in self.blocks() {
            let keys = self.mask.keys_of(&block);
            let scores = self.scores::<B>(q, k, &block).scores;
            let most = B::float_max_dim(scores.clone(), 3);
            let powers = B::float_exp(B::float_sub(scores, most.clone()));
            let sum = B::float_sum_dim(powers.clone(), 3);
            let weights = B::float_div(powers, sum.clone());
            let mixed = mix::<B>(weights, positions::<B>(v, keys), sizes);
            outputs.push(B::float_swap_dims(mixed, 1, 2));
            logs.push(B::float_add(most, B::float_log(sum)));
        }
        Attended { output: B::float_cat(outputs, 1), logs: B::float_cat(logs, 2) }
    }
}

/// What a block's queries make of the values, or of anything of their shape.
///
/// # Shapes
/// weights `[batch, heads, queries, keys]`, v `[batch, kv_heads, keys, head_dim]`, the result
/// `[batch, heads, queries, head_dim]`
fn mix<B: Backend>(weights: FloatTensor<B>, v: FloatTensor<B>, sizes: HeadSizes) -> FloatTensor<B> {
    let [batch, heads, queries, keys] = weights.shape().dims::<4>();
    let [_, kv_heads, tall] = sizes.grouped(queries);
    let mixed =
        B::float_matmul(B::float_reshape(weights, Shape::new([batch, kv_heads, tall, keys])), v);
    B::float_reshape(mixed, Shape::new([batch, heads, queries, sizes.head_dim]))
}

/// Where a block's keys lie among all.
struct KeyRange {
    range: Range<usize>,
    all: usize,
}

/// The transpose of a block's weights times x, summed over the heads of a group, with zeros for the
/// keys that the block does not see.
///
/// # Shapes
/// weights `[batch, heads, queries, keys]`, x `[batch, heads, queries, head_dim]`, the result
/// `[batch, all keys, kv_heads, head_dim]`
fn spread<B: Backend>(
    weights: FloatTensor<B>,
    x: FloatTensor<B>,
    sizes: HeadSizes,
    place: &KeyRange,
) -> FloatTensor<B> {
    let [batch, _, queries, keys] = weights.shape().dims::<4>();
    let [_, kv_heads, tall] = sizes.grouped(queries);
    let weights = B::float_reshape(weights, Shape::new([batch, kv_heads, tall, keys]));
    let x = B::float_reshape(x, Shape::new([batch, kv_heads, tall, sizes.head_dim]));
    // The product runs over all queries of the group, which is the sum over its heads.
    let sum = B::float_swap_dims(B::float_matmul(B::float_swap_dims(weights, 2, 3), x), 1, 2);
    let device = sum.device();
    let dtype = FloatDType::from(sum.dtype());
    let zeros = |count: usize| {
        let shape = Shape::new([batch, count, kv_heads, sizes.head_dim]);
        (count > 0).then(|| B::float_zeros(shape, &device, dtype))
    };
    let before = zeros(place.range.start);
    let after = zeros(place.all - place.range.end);
    B::float_cat(before.into_iter().chain([sum]).chain(after).collect(), 1)
}

impl Operation for Attention {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(&inputs.floats()).output
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        _: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        let [q, k, v] = inputs.floats();
        let Attended { output, logs } = self.compute::<B>(&[q.clone(), k.clone(), v.clone()]);
        Ok((output, Operands::new(vec![q, k, v, logs], Vec::new())))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [q, k, v, logs] = saved.floats();
        let sizes = HeadSizes::of::<B>(&q, &k);
        let mut d_q = Vec::new();
        let mut d_k = None;
        let mut d_v = None;
        for block in self.blocks() {
            let keys = self.mask.keys_of(&block);
            let ranges = [0..sizes.batch, 0..sizes.heads, block.clone(), 0..1];
            let logs = B::float_slice(logs.clone(), &ranges.map(Slice::from));
            let BlockScores { scores, tanh } = self.scores::<B>(&q, &k, &block);
            // The weights as they were, with neither the largest score nor the sum at hand.
            let weights = B::float_exp(B::float_sub(scores, logs));
            let g = positions::<B>(&gradient, block.clone());
            let transposed = B::float_swap_dims(positions::<B>(&v, keys.clone()), 2, 3);
            let [_, kv_heads, tall] = sizes.grouped(block.len());
            let tall_g = B::float_reshape(
                g.clone(),
                Shape::new([sizes.batch, kv_heads, tall, sizes.head_dim]),
            );
            let d_weights = B::float_reshape(B::float_matmul(tall_g, transposed), weights.shape());
            // The softmax's derivative, then the cap's, then the scale's.
            let mean = B::float_sum_dim(B::float_mul(weights.clone(), d_weights.clone()), 3);
            let mut d_scores = B::float_mul(weights.clone(), B::float_sub(d_weights, mean));
            if let Some(tanh) = tanh {
                let square = B::float_mul(tanh.clone(), tanh);
                let slope = B::float_add_scalar(B::float_neg(square), 1.0f64.into());
                d_scores = B::float_mul(d_scores, slope);
            }
            let d_scores = B::float_mul_scalar(d_scores, self.scores.scale.into());
            let d_block = mix::<B>(d_scores.clone(), positions::<B>(&k, keys.clone()), sizes);
            d_q.push(B::float_swap_dims(d_block, 1, 2));
            let place = KeyRange { range: keys, all: self.mask.keys() };
            let q = positions::<B>(&q, block.clone());
            add::<B>(&mut d_k, spread::<B>(d_scores, q, sizes, &place));
            add::<B>(&mut d_v, spread::<B>(weights, g, sizes, &place));
        }
        vec![Some(B::float_cat(d_q, 1)), d_k, d_v]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        flex::forward(self, inputs)
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        flex::record(self, inputs, wanted)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        flex::backward(self, saved, gradient, wanted)
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        cube::forward(self, inputs)
    }

    #[cfg(feature = "cube")]
    fn record_cube(
        &self,
        inputs: Operands<CubeBackend>,
        wanted: &[bool],
    ) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
        cube::record(self, inputs, wanted)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        cube::backward(self, saved, gradient, wanted)
    }
}

/// Adds a term to a sum that has none yet, or some.
fn add<B: Backend>(sum: &mut Option<FloatTensor<B>>, term: FloatTensor<B>) {
    *sum = Some(match sum.take() {
        Some(sum) => B::float_add(sum, term),
        None => term,
    });
}
