//! The gated unit on GPUs: one unit an element.

use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};
use ist_core::operation::{Operands, Operation};

use cubecl::prelude::*;

use super::Gated;
use crate::ops::activation::Activation;
use crate::ops::activation::cube::{factor, slope};

/// The value; by the formula where a tensor is not of f32.
pub(super) fn forward(of: &Gated, inputs: Operands<CubeBackend>) -> CubeTensor {
    if !cube::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [gate, up] = inputs.floats().map(cube::contiguous);
    let out = cube::empty_like(&gate);
    let (cubes, units) = cube::elementwise(gate.meta.shape().num_elements());
    let client = out.client.clone();
    let result = out.clone();
    let [gate, up, out] = [gate, up, out].map(CubeTensor::into_tensor_arg);
    forward_kernel::launch(&client, cubes, units, gate, up, out, of.activation);
    result
}

/// Both gradients; by the formula where a tensor is not of f32.
pub(super) fn backward(
    of: &Gated,
    saved: Operands<CubeBackend>,
    gradient: CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    if !cube::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [gate, up] = saved.floats();
    let [gate, up, gradient] = [gate, up, gradient].map(cube::contiguous);
    let found = [cube::empty_like(&gate), cube::empty_like(&gate)];
    let (cubes, units) = cube::elementwise(gate.meta.shape().num_elements());
    let client = gate.client.clone();
    let [gate, up, gradient] = [gate, up, gradient].map(CubeTensor::into_tensor_arg);
    let [d_gate, d_up] = found.clone().map(CubeTensor::into_tensor_arg);
    backward_kernel::launch(&client, cubes, units, gate, up, gradient, d_gate, d_up, of.activation);
    found.map(Some).into()
}

#[cube(launch)]
fn forward_kernel(
    gate: &Tensor<f32>,
    up: &Tensor<f32>,
    out: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    // The last cube has units beyond the last element.
    if at >= out.len() {
        terminate!();
    }
    out[at] = gate[at] * factor(gate[at], activation) * up[at];
}

#[cube(launch)]
fn backward_kernel(
    gate: &Tensor<f32>,
    up: &Tensor<f32>,
    gradient: &Tensor<f32>,
    d_gate: &mut Tensor<f32>,
    d_up: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    if at >= d_gate.len() {
        terminate!();
    }
    let factor = factor(gate[at], activation);
    d_up[at] = gradient[at] * gate[at] * factor;
    d_gate[at] = gradient[at] * up[at] * (factor + gate[at] * slope(gate[at], factor, activation));
}
