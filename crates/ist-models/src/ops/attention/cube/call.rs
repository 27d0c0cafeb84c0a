//! The numbers of a call, and the part of the work that a cube does.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::tiles::{Rows, SIDE, TileShape};

/// The numbers of a call.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Call {
    pub(super) scale: f32,
    pub(super) cap: f32,
    pub(super) window: u32,
    pub(super) batch: u32,
    pub(super) queries: u32,
    pub(super) heads: u32,
    pub(super) keys: u32,
    pub(super) kv_heads: u32,
    /// Where among the constants the keys' marks begin.
    pub(super) marks: u32,
    /// Where among them the heads' slopes begin.
    pub(super) slopes: u32,
}

/// A key-value head of a row of the batch: the queries of its group, and its keys.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct HeadGroup {
    pub(super) queries: Rows,
    pub(super) keys: Rows,
}

/// How many parts there are.
#[cube]
pub(super) fn parts(call: &Call) -> usize {
    (call.batch * call.kv_heads) as usize
}

/// The one at place `at`.
#[cube]
pub(super) fn part(call: &Call, at: usize) -> HeadGroup {
    let kv_heads = call.kv_heads as usize;
    let batch = at / kv_heads;
    let kv_head = at % kv_heads;
    let group = call.heads as usize / kv_heads;
    let queries =
        Rows { batch, head: kv_head * group, group, count: call.queries as usize * group };
    let keys = Rows { batch, head: kv_head, group: 1usize.runtime(), count: call.keys as usize };
    HeadGroup { queries, keys }
}

/// Where the logarithm of row `row` of `queries` is in `[batch, heads, queries]`.
#[cube]
pub(super) fn place(call: &Call, queries: Rows, row: usize) -> usize {
    let head = queries.batch * call.heads as usize + queries.head + row % queries.group;
    head * call.queries as usize + row / queries.group
}

/// Keys, from the first, that a query sees at most.
#[cube]
pub(super) fn reach(call: &Call, query: usize) -> usize {
    (call.keys - call.queries) as usize + query + 1
}

/// The first key that a query may see.
#[cube]
pub(super) fn first(call: &Call, query: usize, #[comptime] shape: TileShape) -> usize {
    if comptime!(shape.window) {
        let reach = reach(call, query);
        reach - min(reach, call.window as usize)
    } else {
        0usize.runtime()
    }
}

/// The keys that a tile of queries from row `from` sees: the first of their first tile, and the
/// end.
#[cube]
pub(super) fn seen(
    call: &Call,
    queries: Rows,
    from: usize,
    #[comptime] shape: TileShape,
) -> (usize, usize) {
    let last = min(from + shape.rows(), queries.count) - 1;
    let first = first(call, from / queries.group, shape);
    (first / SIDE * SIDE, reach(call, last / queries.group))
}

/// The rows of the queries that see any of a tile of keys from `from`: the first of their first
/// tile, and the end.
#[cube]
pub(super) fn seen_by(
    call: &Call,
    part: HeadGroup,
    from: usize,
    #[comptime] shape: TileShape,
) -> (usize, usize) {
    // Keys that came before the first query, as a cache holds them. Key `from` is first seen by
    // query `from - ahead`, which came with it.
    let ahead = (call.keys - call.queries) as usize;
    let first = (from - min(from, ahead)) * part.queries.group;
    let mut end = call.queries as usize;
    if comptime!(shape.window) {
        // A query a window or more behind the tile's last key sees none of it.
        let reach = min(from + shape.rows(), part.keys.count) + call.window as usize - 1;
        end = min(end, reach - min(reach, ahead));
    }
    (first / SIDE * SIDE, end * part.queries.group)
}
