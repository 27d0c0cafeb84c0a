//! The gradients of keys and values, a tile of them a cube, which goes through the queries of every
//! head of the group.
//!
//! The products are those of the queries' gradient with the sides exchanged: a unit's rows are
//! keys. dv = Σ Pᵀ g and dk = s · Σ (P ⊙ (dP - D))ᵀ q.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::call::{Call, part, parts, place, seen_by};
use super::pair::add_pair;
use super::products::{add_mixed, put, zero_fours, zeros};
use super::scores::{bounded, key, query, score};
use super::tiles::{ACROSS, Four, MEMORY, Rows, SIDE, TileShape, across, down, load, store};

/// `numbers` as the queries' kernel leaves them.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "the buffers of a launch")]
pub(super) fn keys_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    gradient: &Tensor<Vector<f32, N>>,
    numbers: &Tensor<f32>,
    d_k: &mut Tensor<Vector<f32, N>>,
    d_v: &mut Tensor<Vector<f32, N>>,
    call: Call,
    #[comptime] shape: TileShape,
) {
    let parts = parts(&call);
    let part = part(&call, CUBE_POS % parts);
    let queries = part.queries;
    let keys = part.keys;
    if CUBE_POS >= parts * keys.count.div_ceil(shape.rows()) {
        terminate!();
    }
    let from = CUBE_POS / parts * shape.rows();

    let mut memory = Shared::<[Four]>::new_slice(MEMORY);
    let mut sums_k = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut sums_v = zero_fours(comptime!(shape.unit_rows * shape.chunks()));

    let (begin, end) = seen_by(&call, part, from, shape);
    let mut tile = begin;
    while tile < end {
        let mut weighing = zeros(comptime!(shape.unit_rows * 4));
        let mut gradients = zeros(comptime!(shape.unit_rows * 4));
        add_pair(
            &mut weighing,
            &mut gradients,
            &mut memory,
            k,
            v,
            keys,
            from,
            q,
            gradient,
            queries,
            tile,
            shape,
        );
        differentiate(
            &mut weighing,
            &mut gradients,
            numbers,
            queries,
            tile,
            keys,
            from,
            &call,
            shape,
        );
        // All units are done with the tiles of `add_pair`, two of which are written over.
        sync_cube();
        put(&mut memory, 0usize, &weighing, shape);
        put(&mut memory, 2usize, &gradients, shape);
        mix(&mut sums_k, &mut sums_v, &mut memory, q, gradient, queries, tile, shape);
        tile += SIDE;
    }

    #[unroll]
    for at in 0..comptime!(shape.unit_rows * shape.chunks()) {
        sums_k[at] *= Four::new(call.scale);
    }
    store(d_k, keys, from, &sums_k, shape);
    store(d_v, keys, from, &sums_v, shape);
}

/// Turns a unit's products k qᵀ into weights, and v gᵀ into the gradient of the former but for the
/// scale.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sides of a tile, and what makes its scores")]
fn differentiate(
    weighing: &mut Array<f32>,
    gradients: &mut Array<f32>,
    numbers: &Tensor<f32>,
    queries: Rows,
    tile: usize,
    keys: Rows,
    from: usize,
    call: &Call,
    #[comptime] shape: TileShape,
) {
    let count = (call.batch * call.heads * call.queries) as usize;
    #[unroll]
    for j in 0..4usize {
        let row = tile + across() + j * ACROSS;
        let query = query(call, numbers, queries, row, shape);
        // A row beyond the last query has a reach of 0: it sees no key and weighs nothing.
        let mut log = 0.0f32;
        let mut mean = 0.0f32;
        if row < queries.count {
            let place = place(call, queries, row);
            log = numbers[place];
            mean = numbers[count + place];
        }
        #[unroll]
        for i in 0..shape.unit_rows {
            let key = key(call, numbers, keys, from + down() + i * shape.units_down, shape);
            let at = i * 4 + j;
            let product = weighing[at];
            let bounded = bounded(product, call, shape);
            let weight = f32::exp(score(product, bounded, query, key, call, shape) - log);
            weighing[at] = weight;
            // tanh' = 1 - tanh², which is 1 without a cap.
            gradients[at] = weight * (gradients[at] - mean) * (1.0 - bounded * bounded);
        }
    }
}

/// Adds the tile's queries and their gradient to both sums, times what tiles 2 and 0 hold.
///
/// A single chunk is still there from `add_pair`, and is not read again.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sums of a side of a tile")]
fn mix<N: Size>(
    sums_k: &mut Array<Four>,
    sums_v: &mut Array<Four>,
    memory: &mut Shared<[Four]>,
    q: &Tensor<Vector<f32, N>>,
    gradient: &Tensor<Vector<f32, N>>,
    queries: Rows,
    tile: usize,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for chunk in 0..shape.chunks() {
        sync_cube();
        if comptime!(shape.chunks() > 1) {
            load(memory, 1usize, q, queries, tile, chunk, SIDE, shape);
            load(memory, 3usize, gradient, queries, tile, chunk, SIDE, shape);
            sync_cube();
        }
        add_mixed(sums_v, chunk, &*memory, 0usize, 3usize, shape);
        add_mixed(sums_k, chunk, &*memory, 2usize, 1usize, shape);
    }
}
