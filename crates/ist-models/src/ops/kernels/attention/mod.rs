//! Attention in tiles of 32 × 32, so that no matrix of queries × keys lies in memory
//! (FlashAttention-2; Dao, [arXiv 2307.08691](https://arxiv.org/abs/2307.08691)).
//!
//! The heads of a group lie beside each other as the rows of a tile, query by query: they share what is read of their keys
//! and values, and the gradients of those sum over the group by themselves. A tile of keys that no query of a tile sees is
//! skipped.
//!
//! The result is not kept for the backward pass, whose D = rowsum(g ⊙ y) it would give. D comes out of the pass that finds
//! dq, at the cost of one product in eight (`queries`): the pass before it would be two, and y is as large as q.
//!
//! What a device must have is what WebGPU promises: 16 KiB of shared memory, which four tiles fill, 256 units, and eight
//! buffers, one of them cubecl's, which is why the logarithms, D and the constants share one; no operations of planes, no
//! atomics. Loops that meet at barriers turn on the place of the cube and the call's numbers alone. No index relies on being
//! checked: cubecl 0.11 leaves out the checks of tensors that its launches promise.
//!
//! cubecl compiles a kernel for every width of a head and every combination of padding, window, cap and slopes on first use.

#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what is a handle here is an array of the kernel"
)]

mod call;
mod forward;
mod keys;
mod merge;
mod pair;
mod products;
mod queries;
mod scores;
mod tiles;

use ist_core::burn;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};

use crate::ops::attention::{AttentionMask, Scores};
use cubecl::prelude::*;

use call::CallLaunch;
use tiles::{SIDE, Shape};

/// The widest head whose sums units hold in registers.
const WIDEST: usize = 256;

/// Cubes that keep a large device busy.
const CUBES: usize = 256;

/// Whether the kernels do that attention: f32 and heads of at most 256 numbers.
pub(in crate::ops) fn can(tensors: &[CubeTensor]) -> bool {
    cube::all_f32(tensors) && tensors[0].meta.shape()[3] <= WIDEST
}

/// The result `[batch, queries, heads, head_dim]` and the logarithms `[batch, heads, queries, 1]`.
pub(in crate::ops) fn forward(
    mask: &AttentionMask,
    scores: &Scores,
    inputs: [CubeTensor; 3],
) -> (CubeTensor, CubeTensor) {
    let inputs = inputs.map(readable);
    let sizes = Sizes::of(&inputs[0], &inputs[1]);
    let shape = shape(mask, scores, &sizes, sizes.rows(), 1);
    let shares = shares(&sizes, shape);
    let (parts, logs) = forward_shares(mask, scores, inputs, &sizes, shape, shares);
    if shares == 1 { (parts, logs) } else { merge(&parts, &logs, &sizes, shares) }
}

/// The same for every share of the keys.
fn forward_shares(
    mask: &AttentionMask,
    scores: &Scores,
    [q, k, v]: [CubeTensor; 3],
    sizes: &Sizes,
    shape: Shape,
    shares: usize,
) -> (CubeTensor, CubeTensor) {
    let (out, logs) = results(&q, sizes, shares);
    let constants = constants(mask, scores, &q);
    let client = q.client.clone();
    forward::forward_kernel::launch(
        &client,
        cube::cubes(sizes.parts() * shares * sizes.rows().div_ceil(shape.rows())),
        CubeDim::new_1d(shape.units() as u32),
        width(&[&q, &k, &v]),
        q.into_tensor_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        constants.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        logs.clone().into_tensor_arg(),
        call(mask, scores, sizes, 0),
        shares as u32,
        shape,
    );
    (out, logs)
}

/// Places for that many results and logarithms.
fn results(like: &CubeTensor, sizes: &Sizes, shares: usize) -> (CubeTensor, CubeTensor) {
    let Sizes { batch, queries, heads, head_dim, .. } = *sizes;
    let out = cube::empty(like, [shares * batch, queries, heads, head_dim]);
    (out, cube::empty(like, [shares * batch, heads, queries, 1]))
}

/// Cubes that go through the keys of one tile of queries, when that is a tile of few.
fn shares(sizes: &Sizes, shape: Shape) -> usize {
    if shape.rows() == SIDE {
        return 1;
    }
    (CUBES / sizes.parts().max(1)).min(sizes.keys.div_ceil(2 * SIDE)).max(1)
}

fn merge(
    parts: &CubeTensor,
    part_logs: &CubeTensor,
    sizes: &Sizes,
    shares: usize,
) -> (CubeTensor, CubeTensor) {
    let (out, logs) = results(parts, sizes, 1);
    let (cubes, units) = cube::elementwise(out.meta.shape().num_elements());
    merge::merge_kernel::launch(
        &out.client,
        cubes,
        units,
        parts.clone().into_tensor_arg(),
        part_logs.clone().into_tensor_arg(),
        out.clone().into_tensor_arg(),
        logs.clone().into_tensor_arg(),
        shares as u32,
    );
    (out, logs)
}

/// The gradients of q, k and v.
pub(in crate::ops) fn backward(
    mask: &AttentionMask,
    scores: &Scores,
    [q, k, v, logs]: [CubeTensor; 4],
    gradient: CubeTensor,
) -> [CubeTensor; 3] {
    let [q, k, v, gradient] = [q, k, v, gradient].map(readable);
    let sizes = Sizes::of(&q, &k);
    let count = sizes.batch * sizes.heads * sizes.queries;
    let places = cube::empty(&q, [count]);
    let logs = CubeBackend::float_reshape(logs, [count].into());
    let numbers = CubeBackend::float_cat(vec![logs, places, constants(mask, scores, &q)], 0);
    let [d_q, d_k, d_v] = [&q, &k, &v].map(cube::empty_like);
    let width = width(&[&q, &k, &v, &gradient]);
    let client = q.client.clone();
    let of = |rows| shape(mask, scores, &sizes, rows, 2);
    let (queries, keys) = (of(sizes.rows()), of(sizes.keys));
    queries::queries_kernel::launch(
        &client,
        cube::cubes(sizes.parts() * sizes.rows().div_ceil(queries.rows())),
        CubeDim::new_1d(queries.units() as u32),
        width,
        q.clone().into_tensor_arg(),
        k.clone().into_tensor_arg(),
        v.clone().into_tensor_arg(),
        gradient.clone().into_tensor_arg(),
        numbers.clone().into_tensor_arg(),
        d_q.clone().into_tensor_arg(),
        call(mask, scores, &sizes, 2 * count),
        queries,
    );
    keys::keys_kernel::launch(
        &client,
        cube::cubes(sizes.parts() * sizes.keys.div_ceil(keys.rows())),
        CubeDim::new_1d(keys.units() as u32),
        width,
        q.into_tensor_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        gradient.into_tensor_arg(),
        numbers.into_tensor_arg(),
        d_k.clone().into_tensor_arg(),
        d_v.clone().into_tensor_arg(),
        call(mask, scores, &sizes, 2 * count),
        keys,
    );
    [d_q, d_k, d_v]
}

/// Sizes of one call.
struct Sizes {
    batch: usize,
    queries: usize,
    heads: usize,
    head_dim: usize,
    keys: usize,
    kv_heads: usize,
}

impl Sizes {
    fn of(q: &CubeTensor, k: &CubeTensor) -> Self {
        let [batch, queries, heads, head_dim] = q.shape().dims::<4>();
        let [_, keys, kv_heads, _] = k.shape().dims::<4>();
        Self { batch, queries, heads, head_dim, keys, kv_heads }
    }

    /// Key-value heads of all rows of the batch.
    fn parts(&self) -> usize {
        self.batch * self.kv_heads
    }

    /// Queries of a group.
    fn rows(&self) -> usize {
        self.heads / self.kv_heads * self.queries
    }
}

/// What a kernel is compiled for whose units hold `sums` results of up to `rows` rows.
fn shape(mask: &AttentionMask, scores: &Scores, sizes: &Sizes, rows: usize, sums: usize) -> Shape {
    // Sixteen fours are 64 registers.
    let held = (16 / (sizes.head_dim.div_ceil(SIDE) * sums)).clamp(1, 4);
    let held = if held == 3 { 2 } else { held };
    // Of a few queries, as when tokens are generated, a tile has only eight.
    let few = rows <= 8;
    Shape {
        head_dim: sizes.head_dim,
        unit_rows: if few { 1 } else { held },
        units_down: if few { 8 } else { SIDE / held },
        padding: mask.has_padding(),
        window: mask.has_window(),
        cap: scores.soft_cap.is_some(),
        slopes: !scores.slopes.is_empty(),
    }
}

/// The call's numbers; `constants` of them lie before what [`constants`] gives.
fn call(mask: &AttentionMask, scores: &Scores, sizes: &Sizes, constants: usize) -> CallLaunch {
    let marks = if mask.has_padding() { sizes.batch * sizes.keys } else { 0 };
    CallLaunch::new(
        scores.scale as f32,
        scores.soft_cap.unwrap_or(1.0) as f32,
        mask.window().min(sizes.keys) as u32,
        sizes.batch as u32,
        sizes.queries as u32,
        sizes.heads as u32,
        sizes.keys as u32,
        sizes.kv_heads as u32,
        constants as u32,
        (constants + marks) as u32,
    )
}

/// The keys' marks where there is padding and the heads' slopes where there are any, on the device of `like`; never nothing.
fn constants(mask: &AttentionMask, scores: &Scores, like: &CubeTensor) -> CubeTensor {
    let mut constants = Vec::new();
    if mask.has_padding() {
        (0..like.shape()[0]).for_each(|row| constants.extend(marks(mask, row)));
    }
    constants.extend(scores.slopes.iter());
    if constants.is_empty() {
        return cube::empty(like, [1]);
    }
    let count = constants.len();
    CubeBackend::float_from_data(TensorData::new(constants, [count]), &like.device())
}

/// Of every key of a row four times its position and 1 if it is real, 2 if it is padding that sees itself.
fn marks(mask: &AttentionMask, row: usize) -> Vec<f32> {
    let ahead = mask.keys() - mask.queries();
    let mark = |(key, position): (usize, usize)| {
        let sees_itself = || key >= ahead && mask.sees(row, key - ahead, key);
        let kind = if mask.is_real(row, key) { 1 } else { 2 * usize::from(sees_itself()) };
        (4 * position + kind) as f32
    };
    mask.positions(row).into_iter().enumerate().map(mark).collect()
}

/// The same with the numbers of a head beside each other, as the kernels read them.
pub(in crate::ops) fn readable(x: CubeTensor) -> CubeTensor {
    if x.meta.strides()[3] == 1 && !x.meta.is_tiled() { x } else { cube::contiguous(x) }
}

/// Numbers that are read at once: four where every head begins and ends at a multiple of four.
fn width(tensors: &[&CubeTensor]) -> usize {
    let whole = |x: &&CubeTensor| {
        x.meta.strides()[..3]
            .iter()
            .chain([&x.meta.shape()[3]])
            .all(|count| count.is_multiple_of(4))
    };
    if tensors.iter().all(whole) { 4 } else { 1 }
}
