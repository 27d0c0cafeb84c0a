//! The result, a tile of queries a cube, which goes through the keys tile by tile.
//!
//! The softmax needs no second pass over the keys. For the keys so far each row keeps its largest
//! score, the sum of the exponentials relative to it, and the values mixed with these. When a
//! larger score comes, sum and mixture are scaled down to it. The division by the sum comes last.
//!
//! Where queries are few, several cubes share the keys, and `merge` makes one result of theirs.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::call::{Call, part, parts, place, seen};
use super::products::{add_mixed, add_scores, most_across, put, sum_across, zero_fours, zeros};
use super::scores::{LOWEST, bounded, key, query, score};
use super::tiles::{ACROSS, Four, MEMORY, Rows, SIDE, TileShape, across, down, load, store};

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "the buffers of a launch")]
pub(super) fn forward_kernel<N: Size>(
    q: &Tensor<Vector<f32, N>>,
    k: &Tensor<Vector<f32, N>>,
    v: &Tensor<Vector<f32, N>>,
    constants: &Tensor<f32>,
    out: &mut Tensor<Vector<f32, N>>,
    logs: &mut Tensor<f32>,
    call: Call,
    shares: u32,
    #[comptime] shape: TileShape,
) {
    let parts = parts(&call);
    let shares = shares as usize;
    let part = part(&call, CUBE_POS % parts);
    let queries = part.queries;
    let keys = part.keys;
    let tiles = queries.count.div_ceil(shape.rows());
    if CUBE_POS >= parts * shares * tiles {
        terminate!();
    }
    let share = CUBE_POS / parts % shares;
    // The last queries see most keys, and begin first.
    let from = (tiles - 1 - CUBE_POS / parts / shares) * shape.rows();

    let mut memory = Shared::<[Four]>::new_slice(MEMORY);
    let mut mixed = zero_fours(comptime!(shape.unit_rows * shape.chunks()));
    let mut sums = zeros(shape.unit_rows);
    let mut most = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        // An unseen key's score is so far below that its weight is 0.
        most[i] = LOWEST / 2.0;
    }

    let (begin, end) = seen(&call, queries, from, shape);
    // Each share has as many whole tiles; the last ones may have none.
    let length = (end - begin).div_ceil(SIDE).div_ceil(shares) * SIDE;
    let mut tile = begin + share * length;
    let end = min(end, tile + length);
    while tile < end {
        let mut scores = products(&mut memory, q, queries, from, k, keys, tile, shape);
        weigh_up(&mut scores, constants, queries, from, keys, tile, &call, shape);
        // A row's 32 scores lie with eight units, which agree on their largest.
        let mut largest = largest(&scores, &most, shape);
        most_across(&mut largest, &mut memory, shape);
        soften(&mut scores, &mut mixed, &mut sums, &mut most, &largest, shape);
        // The weights go into shared memory, since every unit of a row needs all of them.
        put(&mut memory, 0usize, &scores, shape);
        mix(&mut mixed, &mut memory, v, keys, tile, shape);
        tile += SIDE;
    }

    sum_across(&mut sums, &mut memory, shape);
    // The shares lie behind each other like batches.
    let batch = share * call.batch as usize + queries.batch;
    let queries = Rows { batch, head: queries.head, group: queries.group, count: queries.count };
    #[unroll]
    for i in 0..shape.unit_rows {
        // The largest score weighs 1; a share without a seen key has no sum.
        let any = sums[i] > 0.5;
        let sum = max(sums[i], 0.5);
        let row = from + down() + i * shape.units_down;
        if across() == 0 && row < queries.count {
            logs[place(&call, queries, row)] = select(any, most[i] + f32::ln(sum), LOWEST);
        }
        #[unroll]
        for chunk in 0..shape.chunks() {
            mixed[i * shape.chunks() + chunk] *= Four::new(1.0 / sum);
        }
    }
    store(out, queries, from, &mixed, shape);
}

/// q kᵀ of a tile: a unit's numbers `[unit_rows, 4]`. Two chunks are read at once where their
/// number is even.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sides of three parts, and where to put them")]
fn products<N: Size>(
    memory: &mut Shared<[Four]>,
    q: &Tensor<Vector<f32, N>>,
    queries: Rows,
    from: usize,
    k: &Tensor<Vector<f32, N>>,
    keys: Rows,
    tile: usize,
    #[comptime] shape: TileShape,
) -> Array<f32> {
    let mut sums = zeros(comptime!(shape.unit_rows * 4));
    let step = comptime!(2 - shape.chunks() % 2);
    for at in 0..comptime!(shape.chunks() / step) {
        sync_cube();
        #[unroll]
        for part in 0..step {
            load(
                memory,
                comptime!(2 * part),
                q,
                queries,
                from,
                at * step + part,
                shape.rows(),
                shape,
            );
            load(memory, comptime!(2 * part + 1), k, keys, tile, at * step + part, SIDE, shape);
        }
        sync_cube();
        #[unroll]
        for part in 0..step {
            add_scores(&mut sums, &*memory, comptime!(2 * part), comptime!(2 * part + 1), shape);
        }
    }
    sums
}

/// Adds w v of a tile, w in tile 0, to a unit's sums `[unit_rows, chunks]`.
#[cube]
fn mix<N: Size>(
    sums: &mut Array<Four>,
    memory: &mut Shared<[Four]>,
    v: &Tensor<Vector<f32, N>>,
    keys: Rows,
    tile: usize,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for chunk in 0..shape.chunks() {
        // Three chunks at once, beside the weights in tile 0.
        if comptime!(chunk % 3 == 0) {
            sync_cube();
            #[unroll]
            for part in 0..comptime!(3.min(shape.chunks() - chunk)) {
                load(
                    memory,
                    comptime!(1 + part),
                    v,
                    keys,
                    tile,
                    comptime!(chunk + part),
                    SIDE,
                    shape,
                );
            }
            sync_cube();
        }
        add_mixed(sums, chunk, &*memory, 0usize, comptime!(1 + chunk % 3), shape);
    }
}

/// Turns a unit's products into scores.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sides of a tile, and what makes its scores")]
fn weigh_up(
    scores: &mut Array<f32>,
    constants: &Tensor<f32>,
    queries: Rows,
    from: usize,
    keys: Rows,
    tile: usize,
    call: &Call,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for j in 0..4usize {
        let key = key(call, constants, keys, tile + across() + j * ACROSS, shape);
        #[unroll]
        for i in 0..shape.unit_rows {
            let query =
                query(call, constants, queries, from + down() + i * shape.units_down, shape);
            let product = scores[i * 4 + j];
            scores[i * 4 + j] =
                score(product, bounded(product, call, shape), query, key, call, shape);
        }
    }
}

/// The largest of a unit's scores and of those before, row by row.
#[cube]
fn largest(scores: &Array<f32>, most: &Array<f32>, #[comptime] shape: TileShape) -> Array<f32> {
    let mut largest = zeros(shape.unit_rows);
    #[unroll]
    for i in 0..shape.unit_rows {
        largest[i] = most[i];
        #[unroll]
        for j in 0..4usize {
            largest[i] = max(largest[i], scores[i * 4 + j]);
        }
    }
    largest
}

/// Turns a unit's scores into weights relative to `largest`, to which all that was summed before is
/// brought.
#[cube]
fn soften(
    scores: &mut Array<f32>,
    mixed: &mut Array<Four>,
    sums: &mut Array<f32>,
    most: &mut Array<f32>,
    largest: &Array<f32>,
    #[comptime] shape: TileShape,
) {
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
}
