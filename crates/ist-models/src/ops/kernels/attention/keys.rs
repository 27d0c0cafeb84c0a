//! The gradients of keys and values, a tile of them a cube, which goes through the queries of every head of the group.
//!
//! The products are those of the queries' gradient with the sides exchanged: a unit's rows are keys. dv = Σ Pᵀ g and
//! dk = s · Σ (P ⊙ (dP - D))ᵀ q.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::scores::{Call, bounded, key, query, score};
use super::tiles::{
    ACROSS, Four, Rows, SIDE, STRIDE, Shape, across, add_mixed, add_scores, down, load, put, store, zero_fours, zeros,
};

/// The rows of the queries that see any of the keys `from` .. `to`: the first, and the one after the last.
#[cube]
fn seen_by(call: &Call, from: usize, to: usize, group: usize, #[comptime] shape: Shape) -> (usize, usize) {
    let ahead = (call.keys - call.queries) as usize;
    let first = from - min(from, ahead);
    let mut end = call.queries as usize;
    if comptime!(shape.window) {
        let reach = to + call.window as usize - 1;
        end = min(end, reach - min(reach, ahead));
    }
    (first * group, end * group)
}

/// `numbers` as the queries' kernel leaves them.
#[cube(launch)]
pub(super) fn keys_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    gradient: &Tensor<Vector<f32, N>>,
    numbers: &Tensor<f32>,
    d_k: &mut Tensor<Vector<f32, N>>,
    d_v: &mut Tensor<Vector<f32, N>>,
    call: Call,
    #[comptime] shape: Shape,
) {
    let (kv_heads, heads) = (k.shape(2), q.shape(2));
    let group = heads / kv_heads;
    let parts = q.shape(0) * kv_heads;
    let tiles = (call.keys as usize).div_ceil(shape.rows());
    if CUBE_POS >= parts * tiles {
        terminate!();
    }
    let from = CUBE_POS / parts * shape.rows();
    let (batch, kv_head) = (CUBE_POS % parts / kv_heads, CUBE_POS % parts % kv_heads);
    let queries = Rows { batch, head: kv_head * group, group, count: call.queries as usize * group };
    let keys = Rows { batch, head: kv_head, group: 1usize.runtime(), count: call.keys as usize };

    let mut left = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));
    let mut right = Shared::<[Four]>::new_slice(comptime!(SIDE * STRIDE));
    let mut weights = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));

    let mut sums_k = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut sums_v = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let means_at = q.shape(0) * heads * call.queries as usize;

    let (begin, end) = seen_by(&call, from, min(from + shape.rows(), keys.count), group, shape);
    let mut tile = begin / SIDE * SIDE;
    while tile < end {
        let mut scores = zeros(comptime!(shape.unit_rows * 4));
        let mut gradients = zeros(comptime!(shape.unit_rows * 4));
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut left, k, keys, from, chunk, shape.rows(), shape);
            load(&mut right, q, queries, tile, chunk, SIDE, shape);
            sync_cube();
            add_scores(&mut scores, &left, &right, shape);
        }
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut left, v, keys, from, chunk, shape.rows(), shape);
            load(&mut right, gradient, queries, tile, chunk, SIDE, shape);
            sync_cube();
            add_scores(&mut gradients, &left, &right, shape);
        }
        #[unroll]
        for j in 0..4usize {
            let row = tile + across() + j * ACROSS;
            let query = query(&call, numbers, queries, row, shape);
            let head = batch * heads + queries.head + row % group;
            let at = head * call.queries as usize + row / group;
            let (log, mean) = (numbers[at], numbers[means_at + at]);
            #[unroll]
            for i in 0..shape.unit_rows {
                let key = key(&call, numbers, batch, from + down() + i * shape.units_down, shape);
                let product = scores[i * 4 + j];
                let bounded = bounded(product, &call, shape);
                let weight = f32::exp(score(product, bounded, query, key, &call, shape) - log);
                scores[i * 4 + j] = weight;
                gradients[i * 4 + j] = weight * (gradients[i * 4 + j] - mean) * (1.0 - bounded * bounded);
            }
        }
        sync_cube();
        put(&mut left, &scores, shape);
        put(&mut weights, &gradients, shape);
        #[unroll]
        for chunk in 0..shape.chunks() {
            // Of a single chunk the gradient is still here.
            sync_cube();
            if comptime!(shape.chunks() > 1) {
                load(&mut right, gradient, queries, tile, chunk, SIDE, shape);
                sync_cube();
            }
            add_mixed(&mut sums_v, chunk, &left, &right, shape);
            sync_cube();
            load(&mut right, q, queries, tile, chunk, SIDE, shape);
            sync_cube();
            add_mixed(&mut sums_k, chunk, &weights, &right, shape);
        }
        tile += SIDE;
    }

    let mut factors = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        factors[i] = call.scale;
    }
    store(d_k, keys, from, &sums_k, &factors, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        factors[i] = 1.0;
    }
    store(d_v, keys, from, &sums_v, &factors, shape);
}
