//! q kᵀ and g vᵀ of a tile, which both gradients begin with.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::products::add_scores;
use super::tiles::{Four, Rows, SIDE, TileShape, load};

/// Adds x yᵀ and x' y'ᵀ of the rows of x and x' from `from` and of y and y' from `tile` to a unit's
/// sums `[unit_rows, 4]`. The tiles hold x, y, x', y' afterwards, their last chunk.
#[cube]
#[expect(clippy::too_many_arguments, reason = "two products of two sides, and where to put them")]
pub(super) fn add_pair<N: Size>(
    sums: &mut Array<f32>,
    other_sums: &mut Array<f32>,
    memory: &mut Shared<[Four]>,
    x: &Tensor<Vector<f32, N>>,
    other_x: &Tensor<Vector<f32, N>>,
    x_rows: Rows,
    from: usize,
    y: &Tensor<Vector<f32, N>>,
    other_y: &Tensor<Vector<f32, N>>,
    y_rows: Rows,
    tile: usize,
    #[comptime] shape: TileShape,
) {
    for chunk in 0..shape.chunks() {
        // There are four tiles, so one chunk of each of the four factors is read at a time.
        sync_cube();
        load(memory, 0usize, x, x_rows, from, chunk, shape.rows(), shape);
        load(memory, 1usize, y, y_rows, tile, chunk, SIDE, shape);
        load(memory, 2usize, other_x, x_rows, from, chunk, shape.rows(), shape);
        load(memory, 3usize, other_y, y_rows, tile, chunk, SIDE, shape);
        sync_cube();
        add_scores(sums, &*memory, 0usize, 1usize, shape);
        add_scores(other_sums, &*memory, 2usize, 3usize, shape);
    }
}
