//! The gradient of the queries, a tile of them a cube.
//!
//! With P and dP = g vᵀ of every tile of keys at hand, dq = s · (Σ P ⊙ dP k - D Σ P k) and D = Σ P ⊙ dP: two sums over the
//! keys side by side need no D before them, and D is left for the gradients of keys and values. Under a cap both sums are of
//! P times its slope.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::scores::{Call, bounded, first, key, query, reach, score};
use super::tiles::{
    ACROSS, Four, Rows, SIDE, STRIDE, Shape, across, add_mixed, add_scores, down, load, put, store, sum_across,
    zero_fours, zeros,
};

/// `numbers` holds the logarithms of all queries, as many places for D, and the constants.
#[cube(launch)]
pub(super) fn queries_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    gradient: &Tensor<Vector<f32, N>>,
    numbers: &mut Tensor<f32>,
    out: &mut Tensor<Vector<f32, N>>,
    call: Call,
    #[comptime] shape: Shape,
) {
    let (kv_heads, heads) = (k.shape(2), q.shape(2));
    let group = heads / kv_heads;
    let parts = q.shape(0) * kv_heads;
    let count = call.queries as usize * group;
    let tiles = count.div_ceil(shape.rows());
    if CUBE_POS >= parts * tiles {
        terminate!();
    }
    let from = (tiles - 1 - CUBE_POS / parts) * shape.rows();
    let (batch, kv_head) = (CUBE_POS % parts / kv_heads, CUBE_POS % parts % kv_heads);
    let queries = Rows { batch, head: kv_head * group, group, count };
    let keys = Rows { batch, head: kv_head, group: 1usize.runtime(), count: call.keys as usize };

    let mut left = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));
    let mut right = Shared::<[Four]>::new_slice(comptime!(SIDE * STRIDE));
    let mut weights = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(shape.rows() * ACROSS));

    // Σ P ⊙ dP k, Σ P k and D.
    let mut weighted = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut plain = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut means = zeros(shape.unit_rows);
    let mut logs = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        let row = from + down() + i * shape.units_down;
        if row < count {
            let head = batch * heads + queries.head + row % group;
            logs[i] = numbers[head * call.queries as usize + row / group];
        }
    }

    let last = min(from + shape.rows(), count) - 1;
    let end = reach(&call, last / group);
    let mut tile = first(&call, from / group, shape) / SIDE * SIDE;
    while tile < end {
        let mut scores = zeros(comptime!(shape.unit_rows * 4));
        let mut gradients = zeros(comptime!(shape.unit_rows * 4));
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut left, gradient, queries, from, chunk, shape.rows(), shape);
            load(&mut right, v, keys, tile, chunk, SIDE, shape);
            sync_cube();
            add_scores(&mut gradients, &left, &right, shape);
        }
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut left, q, queries, from, chunk, shape.rows(), shape);
            load(&mut right, k, keys, tile, chunk, SIDE, shape);
            sync_cube();
            add_scores(&mut scores, &left, &right, shape);
        }
        #[unroll]
        for j in 0..4usize {
            let key = key(&call, &*numbers, batch, tile + across() + j * ACROSS, shape);
            #[unroll]
            for i in 0..shape.unit_rows {
                let query = query(&call, &*numbers, queries, from + down() + i * shape.units_down, shape);
                let product = scores[i * 4 + j];
                let bounded = bounded(product, &call, shape);
                let weight = f32::exp(score(product, bounded, query, key, &call, shape) - logs[i]);
                let gradient = weight * gradients[i * 4 + j];
                means[i] += gradient;
                let slope = 1.0 - bounded * bounded;
                scores[i * 4 + j] = weight * slope;
                gradients[i * 4 + j] = gradient * slope;
            }
        }
        sync_cube();
        put(&mut left, &gradients, shape);
        put(&mut weights, &scores, shape);
        #[unroll]
        for chunk in 0..shape.chunks() {
            // Of a single chunk the keys are still here.
            sync_cube();
            if comptime!(shape.chunks() > 1) {
                load(&mut right, k, keys, tile, chunk, SIDE, shape);
                sync_cube();
            }
            add_mixed(&mut weighted, chunk, &left, &right, shape);
            add_mixed(&mut plain, chunk, &weights, &right, shape);
        }
        tile += SIDE;
    }

    sum_across(&mut means, &mut scratch, shape);
    let mut factors = zeros(shape.unit_rows);
    let means_at = q.shape(0) * heads * call.queries as usize;
    #[unroll]
    for i in 0..shape.unit_rows {
        factors[i] = call.scale;
        #[unroll]
        for chunk in 0..shape.chunks() {
            let at = comptime!(i * shape.chunks() + chunk);
            weighted[at] = weighted[at] - plain[at] * Four::new(means[i]);
        }
        let row = from + down() + i * shape.units_down;
        if across() == 0 && row < count {
            let head = batch * heads + queries.head + row % group;
            numbers[means_at + head * call.queries as usize + row / group] = means[i];
        }
    }
    store(out, queries, from, &weighted, &factors, shape);
}
