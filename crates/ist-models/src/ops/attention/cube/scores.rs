//! What a query and a key weigh, and whether the one sees the other.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::call::{Call, first, reach};
use super::tiles::{Rows, TileShape};

/// What a key weighs that is not seen, below every score. WGSL has no -∞.
pub(super) const LOWEST: f32 = -1e30;

/// What a query brings to its scores.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Query {
    first: usize,
    /// No key from here on is seen; 0 for a query that is none.
    reach: usize,
    slope: f32,
}

/// What a key brings to its scores.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Key {
    at: usize,
    /// Whether it is real.
    real: bool,
    /// Whether it is padding that sees itself.
    alone: bool,
    /// Real keys before it.
    position: f32,
}

/// The query of row `row` of `rows`.
#[cube]
pub(super) fn query(
    call: &Call,
    constants: &Tensor<f32>,
    rows: Rows,
    row: usize,
    #[comptime] shape: TileShape,
) -> Query {
    let at = row / rows.group;
    // Rows beyond the last one fill up the tile and see nothing.
    let reach = select(row < rows.count, reach(call, at), 0);
    let first = first(call, at, shape);
    let slope = if comptime!(shape.slopes) {
        constants[call.slopes as usize + rows.head + row % rows.group]
    } else {
        0.0f32.runtime()
    };
    Query { first, reach, slope }
}

/// Key `at` of `keys`.
#[cube]
pub(super) fn key(
    call: &Call,
    constants: &Tensor<f32>,
    keys: Rows,
    at: usize,
    #[comptime] shape: TileShape,
) -> Key {
    if comptime!(shape.padding) {
        // Keys beyond the last one get its mark, and no query reaches them.
        let place = keys.batch * keys.count + min(at, keys.count - 1);
        let mark = constants[call.marks as usize + place] as u32;
        Key { at, real: mark % 4 == 1, alone: mark % 4 == 2, position: (mark / 4) as f32 }
    } else {
        Key { at, real: true.runtime(), alone: false.runtime(), position: at as f32 }
    }
}

/// tanh(s · q kᵀ / c), and 0 without a cap.
#[cube]
pub(super) fn bounded(product: f32, call: &Call, #[comptime] shape: TileShape) -> f32 {
    if comptime!(shape.cap) { f32::tanh(product * call.scale / call.cap) } else { 0.0f32.runtime() }
}

/// The score of a product q kᵀ, whose tanh is `bounded`; [`LOWEST`] where the key is not seen.
#[cube]
pub(super) fn score(
    product: f32,
    bounded: f32,
    query: Query,
    key: Key,
    call: &Call,
    #[comptime] shape: TileShape,
) -> f32 {
    let mut score = product * call.scale;
    if comptime!(shape.cap) {
        score = bounded * call.cap;
    }
    if comptime!(shape.slopes) {
        score += query.slope * key.position;
    }
    let mut seen = key.at < query.reach;
    if comptime!(shape.window) {
        seen = seen && key.at >= query.first;
    }
    if comptime!(shape.padding) {
        seen = seen && (key.real || (key.alone && key.at + 1 == query.reach));
    }
    select(seen, score, LOWEST)
}
