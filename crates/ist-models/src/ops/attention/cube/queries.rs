//! The gradient of the queries, a tile of them a cube.
//!
//! With P and dP = g vᵀ of every tile of keys at hand,
//!
//! dq = s · (Σ P ⊙ dP k - D Σ P k) with D = Σ P ⊙ dP.
//!
//! The two sums over the keys run side by side, so D need not be known before them. It is left for
//! the gradients of keys and values. Under a cap both sums are of P times the cap's slope.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::call::{Call, part, parts, place, seen};
use super::pair::add_pair;
use super::products::{add_mixed, put, sum_across, zero_fours, zeros};
use super::scores::{bounded, key, query, score};
use super::tiles::{ACROSS, Four, MEMORY, Rows, SIDE, TileShape, across, down, load, store};

/// `numbers` holds the logarithms of all queries, as many places for D, and the constants.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "the buffers of a launch")]
pub(super) fn queries_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    gradient: &Tensor<Vector<f32, N>>,
    numbers: &mut Tensor<f32>,
    out: &mut Tensor<Vector<f32, N>>,
    call: Call,
    #[comptime] shape: TileShape,
) {
    let parts = parts(&call);
    let part = part(&call, CUBE_POS % parts);
    let queries = part.queries;
    let keys = part.keys;
    let tiles = queries.count.div_ceil(shape.rows());
    if CUBE_POS >= parts * tiles {
        terminate!();
    }
    // The last queries see most keys, and begin first.
    let from = (tiles - 1 - CUBE_POS / parts) * shape.rows();

    let mut memory = Shared::<[Four]>::new_slice(MEMORY);
    // Σ P ⊙ dP k, Σ P k and D.
    let mut weighted = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut plain = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut means = zeros(shape.unit_rows);
    let logs = logs(&*numbers, queries, from, &call, shape);

    let (begin, end) = seen(&call, queries, from, shape);
    let mut tile = begin;
    while tile < end {
        let mut weighing = zeros(comptime!(shape.unit_rows * 4));
        let mut gradients = zeros(comptime!(shape.unit_rows * 4));
        add_pair(
            &mut weighing,
            &mut gradients,
            &mut memory,
            q,
            gradient,
            queries,
            from,
            k,
            v,
            keys,
            tile,
            shape,
        );
        differentiate(
            &mut weighing,
            &mut gradients,
            &mut means,
            &logs,
            &*numbers,
            queries,
            from,
            keys,
            tile,
            &call,
            shape,
        );
        // All units are done with the tiles of `add_pair`, two of which are written over.
        sync_cube();
        put(&mut memory, 0usize, &gradients, shape);
        put(&mut memory, 2usize, &weighing, shape);
        mix(&mut weighted, &mut plain, &mut memory, k, keys, tile, shape);
        tile += SIDE;
    }

    sum_across(&mut means, &mut memory, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        #[unroll]
        for chunk in 0..shape.chunks() {
            let at = comptime!(i * shape.chunks() + chunk);
            weighted[at] = (weighted[at] - plain[at] * Four::new(means[i])) * Four::new(call.scale);
        }
        let row = from + down() + i * shape.units_down;
        if across() == 0 && row < queries.count {
            let count = (call.batch * call.heads * call.queries) as usize;
            numbers[count + place(&call, queries, row)] = means[i];
        }
    }
    store(out, queries, from, &weighted, shape);
}

/// The logarithms of a unit's rows.
#[cube]
fn logs(
    numbers: &Tensor<f32>,
    queries: Rows,
    from: usize,
    call: &Call,
    #[comptime] shape: TileShape,
) -> Array<f32> {
    let mut logs = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        let row = from + down() + i * shape.units_down;
        if row < queries.count {
            logs[i] = numbers[place(call, queries, row)];
        }
    }
    logs
}

/// Turns a unit's products q kᵀ into weights and g vᵀ into weights times it, both times the cap's
/// slope, and adds the latter without it to `means`.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sides of a tile, and what makes its scores")]
fn differentiate(
    weighing: &mut Array<f32>,
    gradients: &mut Array<f32>,
    means: &mut Array<f32>,
    logs: &Array<f32>,
    numbers: &Tensor<f32>,
    queries: Rows,
    from: usize,
    keys: Rows,
    tile: usize,
    call: &Call,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for j in 0..4usize {
        let key = key(call, numbers, keys, tile + across() + j * ACROSS, shape);
        #[unroll]
        for i in 0..shape.unit_rows {
            let query = query(call, numbers, queries, from + down() + i * shape.units_down, shape);
            let at = i * 4 + j;
            let product = weighing[at];
            let bounded = bounded(product, call, shape);
            let weight = f32::exp(score(product, bounded, query, key, call, shape) - logs[i]);
            let slope = 1.0 - bounded * bounded;
            let gradient = weight * gradients[at];
            means[i] += gradient;
            weighing[at] = weight * slope;
            gradients[at] = gradient * slope;
        }
    }
}

/// Adds the tile's keys to both sums, times what tiles 0 and 2 hold.
///
/// Two chunks are read at once. A single one is still there from `add_pair`.
#[cube]
fn mix<N: Size>(
    weighted: &mut Array<Four>,
    plain: &mut Array<Four>,
    memory: &mut Shared<[Four]>,
    k: &Tensor<Vector<f32, N>>,
    keys: Rows,
    tile: usize,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for chunk in 0..shape.chunks() {
        if comptime!(chunk % 2 == 0) {
            sync_cube();
            if comptime!(shape.chunks() > 1) {
                #[unroll]
                for part in 0..comptime!(2.min(shape.chunks() - chunk)) {
                    load(
                        memory,
                        comptime!(1 + 2 * part),
                        k,
                        keys,
                        tile,
                        comptime!(chunk + part),
                        SIDE,
                        shape,
                    );
                }
                sync_cube();
            }
        }
        let place = comptime!(1 + chunk % 2 * 2);
        add_mixed(weighted, chunk, &*memory, 0usize, place, shape);
        add_mixed(plain, chunk, &*memory, 2usize, place, shape);
    }
}
