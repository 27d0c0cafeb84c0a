//! Attention on GPUs in tiles of 32 × 32, so that no matrix of queries × keys lies in memory
//! (FlashAttention-2; Dao, [arXiv 2307.08691](https://arxiv.org/abs/2307.08691)).
//!
//! A tile is a block of 32 rows and 32 columns that a cube holds in shared memory. The kernels read
//! q, k, v and the gradient in tiles, multiply tiles with each other, and write each number of a
//! result once.
//!
//! The heads of a group lie beside each other as the rows of a tile, query by query. They share
//! what is read of their keys and values, and the gradients of those sum over the group by
//! themselves. A tile of keys that no query of a tile sees is skipped.
//!
//! The result y is not kept for the backward pass, whose D = rowsum(g ⊙ y) it would give. D comes
//! out of the pass that finds dq (`queries`), at the cost of one product in eight. A pass before it
//! would cost two, and y is as large as q.
//!
//! A device must have what WebGPU promises: 16 KiB of shared memory, which four tiles fill, 256
//! units, and eight buffers. One of these is cubecl's, which is why the logarithms, D and the
//! constants share one. There are no operations of planes and no atomics.
//!
//! Loops that meet at barriers turn on the place of the cube and the call's numbers alone. No index
//! relies on being checked: cubecl 0.11 leaves out the checks of tensors that its launches promise.
//!
//! cubecl compiles a kernel for every width of a head and every combination of padding, window, cap
//! and slopes on first use.

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
use ist_core::operation::{Operands, Operation, Recorded};

use cubecl::prelude::*;

use super::{Attended, Attention, AttentionMask, Scores};
use call::CallLaunch;
use tiles::{SIDE, TileShape};

/// The widest head whose sums units hold in registers.
const WIDEST: usize = 256;

/// Cubes that keep a large device busy.
const CUBES: usize = 256;

/// The value; by the formula where the kernels cannot.
pub(super) fn forward(of: &Attention, inputs: Operands<CubeBackend>) -> CubeTensor {
    if !can(&inputs.floats) {
        return of.forward(inputs);
    }
    attend(of, inputs.floats()).output
}

/// The value, and q, k, v with the logarithms for the backward pass.
pub(super) fn record(
    of: &Attention,
    inputs: Operands<CubeBackend>,
    wanted: &[bool],
) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
    if !can(&inputs.floats) {
        return of.record(inputs, wanted);
    }
    // Made readable before they are kept, so that the backward pass need not do it again.
    let inputs = inputs.floats().map(readable);
    let Attended { output, logs } = attend(of, inputs.clone());
    let [q, k, v] = inputs;
    Ok((output, Operands::new(vec![q, k, v, logs], Vec::new())))
}

/// The gradients of q, k and v; by the formula where the kernels cannot.
pub(super) fn backward(
    of: &Attention,
    saved: Operands<CubeBackend>,
    gradient: CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    if !can(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    launch_backward(of, saved.floats(), gradient).map(Some).into()
}

/// Whether the kernels do that attention: f32 and heads of at most 256 numbers.
fn can(tensors: &[CubeTensor]) -> bool {
    cube::all_f32(tensors) && tensors[0].meta.shape()[3] <= WIDEST
}

/// The result `[batch, queries, heads, head_dim]` and the logarithms `[batch, heads, queries, 1]`.
fn attend(of: &Attention, inputs: [CubeTensor; 3]) -> Attended<CubeTensor> {
    let inputs = inputs.map(readable);
    let sizes = CallSizes::of(&inputs[0], &inputs[1]);
    let shape = shape(of, &sizes, sizes.rows(), 1);
    let shares = shares(&sizes, shape);
    let parts = attend_shares(of, inputs, &sizes, shape, shares);
    if shares == 1 { parts } else { merge(&parts, &sizes, shares) }
}

/// The same for every share of the keys.
fn attend_shares(
    of: &Attention,
    inputs: [CubeTensor; 3],
    sizes: &CallSizes,
    shape: TileShape,
    shares: usize,
) -> Attended<CubeTensor> {
    let [q, k, v] = inputs;
    let found = results(&q, sizes, shares);
    let constants = constants(&of.mask, &of.scores, &q);
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
        found.output.clone().into_tensor_arg(),
        found.logs.clone().into_tensor_arg(),
        call(of, sizes, 0),
        shares as u32,
        shape,
    );
    found
}

/// Places for that many results and logarithms.
fn results(like: &CubeTensor, sizes: &CallSizes, shares: usize) -> Attended<CubeTensor> {
    let CallSizes { batch, queries, heads, head_dim, .. } = *sizes;
    Attended {
        output: cube::empty(like, [shares * batch, queries, heads, head_dim]),
        logs: cube::empty(like, [shares * batch, heads, queries, 1]),
    }
}

/// Cubes that go through the keys of one tile of queries, when that is a tile of few.
fn shares(sizes: &CallSizes, shape: TileShape) -> usize {
    if shape.rows() == SIDE {
        return 1;
    }
    // As many as keep the device busy, and each with two tiles of keys at least.
    (CUBES / sizes.parts().max(1)).min(sizes.keys.div_ceil(2 * SIDE)).max(1)
}

/// The results and logarithms of all shares as one.
fn merge(parts: &Attended<CubeTensor>, sizes: &CallSizes, shares: usize) -> Attended<CubeTensor> {
    let found = results(&parts.output, sizes, 1);
    let (cubes, units) = cube::elementwise(found.output.meta.shape().num_elements());
    merge::merge_kernel::launch(
        &found.output.client,
        cubes,
        units,
        parts.output.clone().into_tensor_arg(),
        parts.logs.clone().into_tensor_arg(),
        found.output.clone().into_tensor_arg(),
        found.logs.clone().into_tensor_arg(),
        shares as u32,
    );
    found
}

/// The gradients of q, k and v, by two kernels: that of q first, which leaves D for the other two.
fn launch_backward(
    of: &Attention,
    saved: [CubeTensor; 4],
    gradient: CubeTensor,
) -> [CubeTensor; 3] {
    let [q, k, v, logs] = saved;
    let [q, k, v, gradient] = [q, k, v, gradient].map(readable);
    let sizes = CallSizes::of(&q, &k);
    // One buffer for the logarithms, D and the constants, in this order.
    let count = sizes.batch * sizes.heads * sizes.queries;
    let places = cube::empty(&q, [count]);
    let logs = CubeBackend::float_reshape(logs, [count].into());
    let constants = constants(&of.mask, &of.scores, &q);
    let numbers = CubeBackend::float_cat(vec![logs, places, constants], 0);
    let [d_q, d_k, d_v] = [&q, &k, &v].map(cube::empty_like);
    let width = width(&[&q, &k, &v, &gradient]);
    let client = q.client.clone();
    let queries = shape(of, &sizes, sizes.rows(), 2);
    let keys = shape(of, &sizes, sizes.keys, 2);
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
        call(of, &sizes, 2 * count),
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
        call(of, &sizes, 2 * count),
        keys,
    );
    [d_q, d_k, d_v]
}

/// Sizes of one call.
struct CallSizes {
    batch: usize,
    queries: usize,
    heads: usize,
    head_dim: usize,
    keys: usize,
    kv_heads: usize,
}

impl CallSizes {
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
fn shape(of: &Attention, sizes: &CallSizes, rows: usize, sums: usize) -> TileShape {
    // Of each result a unit holds a four for each of its rows and each chunk of the head. Sixteen
    // fours are 64 registers.
    let held = (16 / (sizes.head_dim.div_ceil(SIDE) * sums)).clamp(1, 4);
    // The rows of units must divide a tile's 32.
    let held = if held == 3 { 2 } else { held };
    // Of a few queries, as when tokens are generated, a tile has only eight.
    let few = rows <= 8;
    TileShape {
        head_dim: sizes.head_dim,
        unit_rows: if few { 1 } else { held },
        units_down: if few { 8 } else { SIDE / held },
        padding: of.mask.has_padding(),
        window: of.mask.has_window(),
        cap: of.scores.soft_cap.is_some(),
        slopes: !of.scores.slopes.is_empty(),
    }
}

/// The call's numbers; `constants` numbers lie before what [`constants`] gives.
fn call(of: &Attention, sizes: &CallSizes, constants: usize) -> CallLaunch {
    let Attention { mask, scores } = of;
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

/// The keys' marks where there is padding and the heads' slopes where there are any, on the device
/// of `like`; never nothing, since a kernel has all its buffers.
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

/// A mark for every key of a row: four times its position, and 1 if it is real, 2 if it is padding
/// that sees itself.
fn marks(mask: &AttentionMask, row: usize) -> Vec<f32> {
    let ahead = mask.keys() - mask.queries();
    let positions = mask.positions(row).into_iter().enumerate();
    positions
        .map(|(key, position)| {
            let sees_itself = || key >= ahead && mask.sees(row, key - ahead, key);
            let kind = if mask.is_real(row, key) { 1 } else { 2 * usize::from(sees_itself()) };
            (4 * position + kind) as f32
        })
        .collect()
}

/// The same with the numbers of a head beside each other, as the kernels read them.
fn readable(x: CubeTensor) -> CubeTensor {
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
