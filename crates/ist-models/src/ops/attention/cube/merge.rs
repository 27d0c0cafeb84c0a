//! One result of several, each over a share of the keys.
//!
//! A cube for each group of a few queries leaves a large device idle when tokens are generated. So
//! several cubes go through the keys of a group. The softmax over all keys is made of theirs: each
//! weighs as much as its sum.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

/// The result `[batch, queries, heads, head_dim]` and the logarithms `[batch, heads, queries, 1]`
/// of as many of both as there are shares; a unit a number.
#[cube(launch)]
pub(super) fn merge_kernel(
    parts: &Tensor<f32>,
    part_logs: &Tensor<f32>,
    out: &mut Tensor<f32>,
    logs: &mut Tensor<f32>,
    shares: u32,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let queries = out.shape(1);
    let heads = out.shape(2);
    let head_dim = out.shape(3);
    let row = ABSOLUTE_POS / head_dim;
    let head = row % heads;
    let position = row / heads;
    // The results are ordered by position, the logarithms by head.
    let at = (position / queries * heads + head) * queries + position % queries;
    let count = logs.len();
    let shares = shares as usize;
    let mut most = part_logs[at];
    for share in 1..shares {
        most = max(most, part_logs[share * count + at]);
    }
    let mut sum = 0.0f32;
    let mut mixed = 0.0f32;
    for share in 0..shares {
        let weight = f32::exp(part_logs[share * count + at] - most);
        sum += weight;
        mixed += weight * parts[share * out.len() + ABSOLUTE_POS];
    }
    out[ABSOLUTE_POS] = mixed / sum;
    // One unit of every head writes its logarithm.
    if ABSOLUTE_POS.is_multiple_of(head_dim) {
        logs[at] = most + f32::ln(sum);
    }
}
