//! RMSNorm on GPUs: one cube a row.
//!
//! The units of a cube stride over the row side by side, so that neighbours read neighbouring
//! numbers. Each sums its share, and the cube sums those in shared memory.

use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};
use ist_core::operation::{Operands, Operation};

use cubecl::prelude::*;

use super::RmsNorm;

/// The value; by the formula where x is not of f32.
pub(super) fn forward(of: &RmsNorm, inputs: Operands<CubeBackend>) -> CubeTensor {
    let [x, weight] = inputs.floats();
    if !cube::all_f32([&x]) {
        return of.forward(Operands::<CubeBackend>::new(vec![x, weight], Vec::new()));
    }
    launch_forward(x, cube::widened(weight), of.eps)
}

/// The gradient of x; by the formula where x is not of f32 or w trains.
pub(super) fn backward(
    of: &RmsNorm,
    saved: Operands<CubeBackend>,
    gradient: CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    // A weight that trains is rare enough for the generic form.
    if wanted[1] || !cube::all_f32(&saved.floats[..1]) {
        return of.backward(saved, gradient, wanted);
    }
    let [x, weight] = saved.floats();
    vec![Some(launch_backward(x, cube::widened(weight), gradient, of.eps)), None]
}

/// Σ a b of one row, in every unit.
#[cube]
fn dot(
    a: &Tensor<f32>,
    b: &Tensor<f32>,
    row: usize,
    width: usize,
    #[comptime] units: usize,
) -> f32 {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let mut part = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        part += a[row * width + at] * b[row * width + at];
        at += units;
    }
    cube::sum(part, &mut scratch, units)
}

#[cube(launch)]
fn forward_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    out: &mut Tensor<f32>,
    rows: u32,
    eps: f32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    // A launch may have more cubes than rows. All units of a cube leave together, so that none
    // waits for them at a barrier.
    if row >= rows as usize {
        terminate!();
    }
    let width = weight.len();
    let square = dot(x, x, row, width, units);
    let scale = f32::inverse_sqrt(square / width as f32 + eps);
    let mut at = UNIT_POS as usize;
    while at < width {
        out[row * width + at] = x[row * width + at] * scale * weight[at];
        at += units;
    }
}

/// x / √(mean(x²) + eps) · w.
fn launch_forward(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
    let [x, weight] = [x, weight].map(cube::contiguous);
    let width = weight.meta.shape()[0];
    let rows = x.meta.shape().num_elements() / width;
    let units = cube::units(width);
    let out = cube::empty_like(&x);
    let client = out.client.clone();
    forward_kernel::launch(
        &client,
        cube::cubes(rows),
        CubeDim::new_1d(units as u32),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        eps as f32,
        units,
    );
    out
}

#[cube(launch)]
fn backward_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    gradient: &Tensor<f32>,
    out: &mut Tensor<f32>,
    rows: u32,
    eps: f32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let width = weight.len();
    let mut scratch = Shared::<[f32]>::new_slice(units);
    // Σ x² and Σ g w x in one pass over the row.
    let mut square = 0.0f32;
    let mut product = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let value = x[row * width + at];
        square += value * value;
        product += gradient[row * width + at] * weight[at] * value;
        at += units;
    }
    let square = cube::sum(square, &mut scratch, units);
    let product = cube::sum(product, &mut scratch, units);
    let scale = f32::inverse_sqrt(square / width as f32 + eps);
    let mean = product / width as f32 * scale * scale;
    let mut at = UNIT_POS as usize;
    while at < width {
        let index = row * width + at;
        out[index] = (gradient[index] * weight[at] - x[index] * mean) * scale;
        at += units;
    }
}

/// r (g w) - x r³ mean(g w x) with r = 1 / √(mean(x²) + eps).
fn launch_backward(
    x: CubeTensor,
    weight: CubeTensor,
    gradient: CubeTensor,
    eps: f64,
) -> CubeTensor {
    let [x, weight, gradient] = [x, weight, gradient].map(cube::contiguous);
    let width = weight.meta.shape()[0];
    let rows = x.meta.shape().num_elements() / width;
    let units = cube::units(width);
    let out = cube::empty_like(&x);
    let client = out.client.clone();
    backward_kernel::launch(
        &client,
        cube::cubes(rows),
        CubeDim::new_1d(units as u32),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        gradient.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        eps as f32,
        units,
    );
    out
}
