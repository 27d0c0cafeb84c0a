//! The two products of tiles, and sums over their rows.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::tiles::{ACROSS, Four, TileShape, across, down, slot};

/// Numbers of zeros for a unit to add to.
#[cube]
pub(super) fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut zeros = Array::<f32>::new(count);
    #[unroll]
    for at in 0..count {
        zeros[at] = 0.0;
    }
    zeros
}

/// The same in fours.
#[cube]
pub(super) fn zero_fours(#[comptime] count: usize) -> Array<Four> {
    let mut zeros = Array::<Four>::new(count);
    #[unroll]
    for at in 0..count {
        zeros[at] = Four::new(0.0);
    }
    zeros
}

/// Adds x yᵀ of two tiles to a unit's sums `[unit_rows, 4]`.
#[cube]
pub(super) fn add_scores(
    sums: &mut Array<f32>,
    memory: &Shared<[Four]>,
    #[comptime] x: usize,
    #[comptime] y: usize,
    #[comptime] shape: TileShape,
) {
    let across = across();
    let down = down();
    // A step reads four fours of y and `unit_rows` of x, and multiplies each with each: the more of
    // them a unit holds, the less it reads for a multiplication.
    for at in 0..ACROSS {
        let mut columns = Array::<Four>::new(4usize);
        #[unroll]
        for j in 0..4usize {
            columns[j] = memory[slot(y, across + j * ACROSS, at)];
        }
        #[unroll]
        for i in 0..shape.unit_rows {
            let row = memory[slot(x, down + i * shape.units_down, at)];
            #[unroll]
            for j in 0..4usize {
                let column = columns[j];
                #[unroll]
                for lane in 0..4usize {
                    sums[i * 4 + j] += row.extract(lane) * column.extract(lane);
                }
            }
        }
    }
}

/// Adds w y of two tiles, y a chunk, to a unit's sums `[unit_rows, chunks]`; w as [`put`] leaves
/// it.
#[cube]
pub(super) fn add_mixed(
    sums: &mut Array<Four>,
    #[comptime] chunk: usize,
    memory: &Shared<[Four]>,
    #[comptime] weights: usize,
    #[comptime] y: usize,
    #[comptime] shape: TileShape,
) {
    let across = across();
    let down = down();
    for at in 0..ACROSS {
        let mut fours = Array::<Four>::new(4usize);
        #[unroll]
        for j in 0..4usize {
            fours[j] = memory[slot(y, at + j * ACROSS, across)];
        }
        #[unroll]
        for i in 0..shape.unit_rows {
            let weights = memory[slot(weights, down + i * shape.units_down, at)];
            #[unroll]
            for j in 0..4usize {
                sums[i * shape.chunks() + chunk] += fours[j] * Four::new(weights.extract(j));
            }
        }
    }
}

/// Puts a unit's numbers `[unit_rows, 4]` into a tile, where the four of a row and unit hold
/// columns [`ACROSS`] apart.
#[cube]
pub(super) fn put(
    memory: &mut Shared<[Four]>,
    #[comptime] tile: usize,
    numbers: &Array<f32>,
    #[comptime] shape: TileShape,
) {
    #[unroll]
    for i in 0..shape.unit_rows {
        let mut four = Four::new(0.0);
        #[unroll]
        for j in 0..4usize {
            four.insert(j, numbers[i * 4 + j]);
        }
        memory[slot(tile, down() + i * shape.units_down, across())] = four;
    }
}

/// The tile that sums over rows go through.
const SHARED: usize = 3;

/// Of every row of a unit, the sum of the numbers that the units of that row hold. The last tile is
/// written over.
#[cube]
pub(super) fn sum_across(
    numbers: &mut Array<f32>,
    memory: &mut Shared<[Four]>,
    #[comptime] shape: TileShape,
) {
    share(numbers, memory, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        let mut sum = 0.0f32;
        #[unroll]
        for at in 0..ACROSS {
            sum += memory[slot(SHARED, down() + i * shape.units_down, at)].extract(0usize);
        }
        numbers[i] = sum;
    }
}

/// The largest of them, as [`sum_across`].
#[cube]
pub(super) fn most_across(
    numbers: &mut Array<f32>,
    memory: &mut Shared<[Four]>,
    #[comptime] shape: TileShape,
) {
    share(numbers, memory, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        #[unroll]
        for at in 0..ACROSS {
            let other = memory[slot(SHARED, down() + i * shape.units_down, at)].extract(0usize);
            numbers[i] = max(numbers[i], other);
        }
    }
}

/// Lets all units of a row see its numbers. The barriers keep those that read the tile apart from
/// those that write it.
#[cube]
fn share(numbers: &mut Array<f32>, memory: &mut Shared<[Four]>, #[comptime] shape: TileShape) {
    sync_cube();
    #[unroll]
    for i in 0..shape.unit_rows {
        memory[slot(SHARED, down() + i * shape.units_down, across())] = Four::new(numbers[i]);
    }
    sync_cube();
}
