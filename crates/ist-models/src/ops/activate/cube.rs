//! An activation on GPUs: one unit an element.

use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};
use ist_core::operation::{Operands, Operation};

use cubecl::prelude::*;

use super::Activate;
use crate::ops::activation::Activation;
use crate::ops::activation::cube::{factor, slope};

/// The value; by the formula where x is not of f32.
pub(super) fn forward(of: &Activate, inputs: Operands<CubeBackend>) -> CubeTensor {
    if !cube::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [x] = inputs.floats().map(cube::contiguous);
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let client = x.client.clone();
    let result = out.clone();
    let [x, out] = [x, out].map(CubeTensor::into_tensor_arg);
    forward_kernel::launch(&client, cubes, units, x, out, of.activation);
    result
}

/// The gradient; by the formula where x is not of f32.
pub(super) fn backward(
    of: &Activate,
    saved: Operands<CubeBackend>,
    gradient: CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    if !cube::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [x] = saved.floats();
    let [x, gradient] = [x, gradient].map(cube::contiguous);
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let client = x.client.clone();
    let result = out.clone();
    let [x, gradient, out] = [x, gradient, out].map(CubeTensor::into_tensor_arg);
    backward_kernel::launch(&client, cubes, units, x, gradient, out, of.activation);
    vec![Some(result)]
}

#[cube(launch)]
fn forward_kernel(x: &Tensor<f32>, out: &mut Tensor<f32>, #[comptime] activation: Activation) {
    let at = ABSOLUTE_POS;
    // The last cube has units beyond the last element.
    if at >= out.len() {
        terminate!();
    }
    out[at] = x[at] * factor(x[at], activation);
}

#[cube(launch)]
fn backward_kernel(
    x: &Tensor<f32>,
    gradient: &Tensor<f32>,
    d_x: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    if at >= d_x.len() {
        terminate!();
    }
    let factor = factor(x[at], activation);
    d_x[at] = gradient[at] * (factor + x[at] * slope(x[at], factor, activation));
}
