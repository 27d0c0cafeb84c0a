//! The two products of tiles and sums over their rows.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::tiles::{ACROSS, Four, Rows, SIDE, STRIDE, Shape, across, down, load};

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

#[cube]
pub(super) fn zero_fours(#[comptime] count: usize) -> Array<Four> {
    let mut zeros = Array::<Four>::new(count);
    #[unroll]
    for at in 0..count {
        zeros[at] = Four::new(0.0);
    }
    zeros
}

/// x yᵀ of the rows of x from `from` and the [`SIDE`] rows of y from `tile`: a unit's numbers `[unit_rows, 4]`. Both tiles
/// in shared memory are written over.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two sides of three parts, and where to put them")]
pub(super) fn products<N: Size>(
    left: &mut Shared<[Four]>,
    right: &mut Shared<[Four]>,
    x: &Tensor<Vector<f32, N>>,
    x_rows: Rows,
    from: usize,
    y: &Tensor<Vector<f32, N>>,
    y_rows: Rows,
    tile: usize,
    #[comptime] shape: Shape,
) -> Array<f32> {
    let mut sums = zeros(comptime!(shape.unit_rows * 4));
    for chunk in 0..shape.chunks() {
        sync_cube();
        load(left, x, x_rows, from, chunk, shape.rows(), shape);
        load(right, y, y_rows, tile, chunk, SIDE, shape);
        sync_cube();
        add_scores(&mut sums, &*left, &*right, shape);
    }
    sums
}

/// Adds x yᵀ of one chunk to a unit's sums `[unit_rows, 4]`.
#[cube]
fn add_scores(sums: &mut Array<f32>, x: &Shared<[Four]>, y: &Shared<[Four]>, #[comptime] shape: Shape) {
    let (across, down) = (across(), down());
    for at in 0..ACROSS {
        let mut columns = Array::<Four>::new(4usize);
        #[unroll]
        for j in 0..4usize {
            columns[j] = y[(across + j * ACROSS) * STRIDE + at];
        }
        #[unroll]
        for i in 0..shape.unit_rows {
            let row = x[(down + i * shape.units_down) * STRIDE + at];
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

/// Adds w y of one chunk of y to a unit's sums `[unit_rows, chunks]`; w as [`put`] leaves it.
#[cube]
pub(super) fn add_mixed(
    sums: &mut Array<Four>,
    #[comptime] chunk: usize,
    weights: &Shared<[Four]>,
    y: &Shared<[Four]>,
    #[comptime] shape: Shape,
) {
    let (across, down) = (across(), down());
    for at in 0..ACROSS {
        let mut fours = Array::<Four>::new(4usize);
        #[unroll]
        for j in 0..4usize {
            fours[j] = y[(at + j * ACROSS) * STRIDE + across];
        }
        #[unroll]
        for i in 0..shape.unit_rows {
            let weights = weights[(down + i * shape.units_down) * STRIDE + at];
            #[unroll]
            for j in 0..4usize {
                sums[i * shape.chunks() + chunk] += fours[j] * Four::new(weights.extract(j));
            }
        }
    }
}

/// Puts a unit's numbers `[unit_rows, 4]` into a tile, where the four of a row and unit hold columns [`ACROSS`] apart.
#[cube]
pub(super) fn put(tile: &mut Shared<[Four]>, numbers: &Array<f32>, #[comptime] shape: Shape) {
    #[unroll]
    for i in 0..shape.unit_rows {
        let mut four = Four::new(0.0);
        #[unroll]
        for j in 0..4usize {
            four.insert(j, numbers[i * 4 + j]);
        }
        tile[(down() + i * shape.units_down) * STRIDE + across()] = four;
    }
}

/// Of every row of a unit, the sum of the numbers that the units of that row hold.
#[cube]
pub(super) fn sum_across(numbers: &mut Array<f32>, scratch: &mut Shared<[f32]>, #[comptime] shape: Shape) {
    share(numbers, scratch, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        let start = (down() + i * shape.units_down) * ACROSS;
        let mut sum = 0.0f32;
        #[unroll]
        for at in 0..ACROSS {
            sum += scratch[start + at];
        }
        numbers[i] = sum;
    }
}

/// The largest of them, as [`sum_across`].
#[cube]
pub(super) fn most_across(numbers: &mut Array<f32>, scratch: &mut Shared<[f32]>, #[comptime] shape: Shape) {
    share(numbers, scratch, shape);
    #[unroll]
    for i in 0..shape.unit_rows {
        let start = (down() + i * shape.units_down) * ACROSS;
        let mut most = scratch[start];
        #[unroll]
        for at in 1..ACROSS {
            most = max(most, scratch[start + at]);
        }
        numbers[i] = most;
    }
}

#[cube]
fn share(numbers: &mut Array<f32>, scratch: &mut Shared<[f32]>, #[comptime] shape: Shape) {
    sync_cube();
    #[unroll]
    for i in 0..shape.unit_rows {
        scratch[(down() + i * shape.units_down) * ACROSS + across()] = numbers[i];
    }
    sync_cube();
}
