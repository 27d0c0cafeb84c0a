//! The result, a tile of queries a cube: the softmax of the keys so far is kept with its largest score and its sum, and what
//! was mixed with it is scaled when a larger score comes.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::scores::{Call, LOWEST, bounded, first, key, query, reach, score};
use super::tiles::{
    ACROSS, Four, Rows, SIDE, STRIDE, Shape, across, add_mixed, add_scores, down, load, most_across, put, store,
    sum_across, zero_fours, zeros,
};

#[cube(launch)]
pub(super) fn forward_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    constants: &Tensor<f32>,
    out: &mut Tensor<Vector<f32, N>>,
    logs: &mut Tensor<f32>,
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
    // The last queries see most keys, and begin first.
    let from = (tiles - 1 - CUBE_POS / parts) * shape.rows();
    let (batch, kv_head) = (CUBE_POS % parts / kv_heads, CUBE_POS % parts % kv_heads);
    let queries = Rows { batch, head: kv_head * group, group, count };
    let keys = Rows { batch, head: kv_head, group: 1usize.runtime(), count: call.keys as usize };

    let mut left = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));
    let mut right = Shared::<[Four]>::new_slice(comptime!(SIDE * STRIDE));
    let mut weights = Shared::<[Four]>::new_slice(comptime!(shape.rows() * STRIDE));
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(shape.rows() * ACROSS));

    let mut mixed = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut sums = zeros(shape.unit_rows);
    let mut most = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        // An unseen key's score is so far below that its weight is 0.
        most[i] = LOWEST / 2.0;
    }

    let last = min(from + shape.rows(), count) - 1;
    let end = reach(&call, last / group);
    let mut tile = first(&call, from / group, shape) / SIDE * SIDE;
    while tile < end {
        let mut scores = zeros(comptime!(shape.unit_rows * 4));
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut left, q, queries, from, chunk, shape.rows(), shape);
            load(&mut right, k, keys, tile, chunk, SIDE, shape);
            sync_cube();
            add_scores(&mut scores, &left, &right, shape);
        }
        let mut largest = zeros(shape.unit_rows);
        #[unroll]
        for i in 0..shape.unit_rows {
            largest[i] = most[i];
        }
        #[unroll]
        for j in 0..4usize {
            let key = key(&call, constants, batch, tile + across() + j * ACROSS, shape);
            #[unroll]
            for i in 0..shape.unit_rows {
                let query = query(&call, constants, queries, from + down() + i * shape.units_down, shape);
                let product = scores[i * 4 + j];
                let score = score(product, bounded(product, &call, shape), query, key, &call, shape);
                scores[i * 4 + j] = score;
                largest[i] = max(largest[i], score);
            }
        }
        most_across(&mut largest, &mut scratch, shape);
        #[unroll]
        for i in 0..shape.unit_rows {
            let scale = f32::exp(most[i] - largest[i]);
            most[i] = largest[i];
            sums[i] *= scale;
            #[unroll]
            for j in 0..4usize {
                let weight = f32::exp(scores[i * 4 + j] - largest[i]);
                scores[i * 4 + j] = weight;
                sums[i] += weight;
            }
            #[unroll]
            for chunk in 0..shape.chunks() {
                mixed[i * shape.chunks() + chunk] *= Four::new(scale);
            }
        }
        put(&mut weights, &scores, shape);
        #[unroll]
        for chunk in 0..shape.chunks() {
            sync_cube();
            load(&mut right, v, keys, tile, chunk, SIDE, shape);
            sync_cube();
            add_mixed(&mut mixed, chunk, &weights, &right, shape);
        }
        tile += SIDE;
    }

    sum_across(&mut sums, &mut scratch, shape);
    let mut factors = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        factors[i] = 1.0 / sums[i];
        let row = from + down() + i * shape.units_down;
        if across() == 0 && row < count {
            let head = batch * heads + queries.head + row % group;
            logs[head * call.queries as usize + row / group] = most[i] + f32::ln(sums[i]);
        }
    }
    store(out, queries, from, &mixed, &factors, shape);
}
