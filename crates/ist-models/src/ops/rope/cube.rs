//! Rotary positions on GPUs: one unit an element, which reads its partner itself.

use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};

use cubecl::prelude::*;

use super::{Pairs, Rotate};

/// Every pair of x turned by its angle; by the formula where a tensor is not of f32.
///
/// # Shapes
/// x `[batch, sequence, heads, head_dim]`, cos and sin `[batch or 1, sequence, 1, pairs]`
pub(super) fn rotate(of: &Rotate, x: CubeTensor, cos: CubeTensor, sin: CubeTensor) -> CubeTensor {
    if !cube::all_f32([&x, &cos, &sin]) {
        return of.rotate::<CubeBackend>(&x, &cos, &sin);
    }
    let [x, cos, sin] = [x, cos, sin].map(cube::contiguous);
    let x_shape = x.meta.shape().clone();
    let angles = cos.meta.shape().clone();
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x_shape.num_elements());
    let client = out.client.clone();
    rotate_kernel::launch(
        &client,
        cubes,
        units,
        x.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        (angles[0] * angles[1]) as u32,
        (x_shape[2] * x_shape[3]) as u32,
        x_shape[3] as u32,
        angles[3] as u32,
        of.sign(),
        of.pairs,
    );
    out
}

/// The other feature of `feature`'s pair among the first 2 · `pairs` features.
#[cube]
fn partner(feature: usize, pairs: usize, #[comptime] of: Pairs) -> usize {
    let second = is_second(feature, pairs, of);
    let step = if comptime!(of == Pairs::Halves) { pairs } else { 1usize.runtime() };
    select(second, feature - step, feature + step)
}

/// Whether a feature is the second of its pair.
#[cube]
fn is_second(feature: usize, pairs: usize, #[comptime] of: Pairs) -> bool {
    if comptime!(of == Pairs::Halves) { feature >= pairs } else { feature % 2 == 1 }
}

/// Which pair a feature belongs to.
#[cube]
fn pair(feature: usize, pairs: usize, #[comptime] of: Pairs) -> usize {
    if comptime!(of == Pairs::Halves) { feature % pairs } else { feature / 2 }
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
fn rotate_kernel(
    x: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    out: &mut Tensor<f32>,
    positions: u32,
    features: u32,
    width: u32,
    pairs: u32,
    sign: f32,
    #[comptime] of: Pairs,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let pairs = pairs as usize;
    let token = at / features as usize;
    let feature = at % width as usize;
    let value = x[at];
    if feature < 2 * pairs {
        // One row of angles serves all rows of the batch, or each has its own: `positions` is the
        // number of all positions that have angles.
        let angle = (token % positions as usize) * pairs + pair(feature, pairs, of);
        // Both units of a pair read both features. No unit writes what another reads.
        let other = x[at - feature + partner(feature, pairs, of)];
        let turned = other * sin[angle] * sign;
        out[at] = value * cos[angle] + select(is_second(feature, pairs, of), turned, -turned);
    } else {
        out[at] = value;
    }
}
