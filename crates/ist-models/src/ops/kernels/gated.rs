//! Activations with and without a second factor: one unit an element.

use ist_core::operation::cube::{self, CubeTensor, cubecl};

use cubecl::prelude::*;

use crate::ops::activation::Activation;

/// g of y = x g(x).
#[cube]
fn gate(x: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Silu) {
        sigmoid(x)
    } else if comptime!(activation == Activation::Gelu) {
        0.5f32 * (1.0f32 + Erf::erf(x * comptime!(std::f32::consts::FRAC_1_SQRT_2)))
    } else {
        // (1 + tanh(u)) / 2 = σ(2u).
        let u = comptime!(TANH_SCALE) * x * (1.0f32 + comptime!(TANH_CUBE) * x * x);
        sigmoid(2.0f32 * u)
    }
}

/// g' where g is [`gate`] of x.
#[cube]
fn slope(x: f32, gate: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Silu) {
        gate * (1.0f32 - gate)
    } else if comptime!(activation == Activation::Gelu) {
        comptime!(DENSITY) * (-0.5f32 * x * x).exp()
    } else {
        let inner = comptime!(TANH_SCALE) * (1.0f32 + comptime!(3.0 * TANH_CUBE) * x * x);
        2.0f32 * gate * (1.0f32 - gate) * inner
    }
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

const TANH_SCALE: f32 = crate::ops::activation::TANH_SCALE as f32;
const TANH_CUBE: f32 = crate::ops::activation::TANH_CUBE as f32;
const DENSITY: f32 = crate::ops::activation::DENSITY as f32;

#[cube(launch)]
fn forward_kernel(
    x: &Tensor<f32>,
    factor: &Tensor<f32>,
    out: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    out[at] = x[at] * gate(x[at], activation) * factor[at];
}

#[cube(launch)]
fn activate_kernel(x: &Tensor<f32>, out: &mut Tensor<f32>, #[comptime] activation: Activation) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    out[at] = x[at] * gate(x[at], activation);
}

#[cube(launch)]
fn backward_kernel(
    x: &Tensor<f32>,
    factor: &Tensor<f32>,
    gradient: &Tensor<f32>,
    d_x: &mut Tensor<f32>,
    d_factor: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    if at >= d_x.len() {
        terminate!();
    }
    let gate = gate(x[at], activation);
    d_factor[at] = gradient[at] * x[at] * gate;
    d_x[at] = gradient[at] * factor[at] * (gate + x[at] * slope(x[at], gate, activation));
}

#[cube(launch)]
fn differentiate_kernel(
    x: &Tensor<f32>,
    gradient: &Tensor<f32>,
    d_x: &mut Tensor<f32>,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS;
    if at >= d_x.len() {
        terminate!();
    }
    let gate = gate(x[at], activation);
    d_x[at] = gradient[at] * (gate + x[at] * slope(x[at], gate, activation));
}

/// a(x) ⊙ factor.
pub(in crate::ops) fn forward(
    activation: Activation,
    x: CubeTensor,
    factor: CubeTensor,
) -> CubeTensor {
    let [x, factor] = [x, factor].map(cube::contiguous);
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let (client, result) = (out.client.clone(), out.clone());
    let args = [x, factor, out].map(CubeTensor::into_tensor_arg);
    let [x, factor, out] = args;
    forward_kernel::launch(&client, cubes, units, x, factor, out, activation);
    result
}

/// g ⊙ factor ⊙ a'(x) and g ⊙ a(x).
pub(in crate::ops) fn backward(
    activation: Activation,
    x: CubeTensor,
    factor: CubeTensor,
    gradient: CubeTensor,
) -> [CubeTensor; 2] {
    let [x, factor, gradient] = [x, factor, gradient].map(cube::contiguous);
    let found = [cube::empty_like(&x), cube::empty_like(&x)];
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let client = x.client.clone();
    let [x, factor, gradient] = [x, factor, gradient].map(CubeTensor::into_tensor_arg);
    let [d_x, d_factor] = found.clone().map(CubeTensor::into_tensor_arg);
    backward_kernel::launch(&client, cubes, units, x, factor, gradient, d_x, d_factor, activation);
    found
}

/// a(x).
pub(in crate::ops) fn activate(activation: Activation, x: CubeTensor) -> CubeTensor {
    let x = cube::contiguous(x);
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let client = x.client.clone();
    activate_kernel::launch(
        &client,
        cubes,
        units,
        x.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        activation,
    );
    out
}

/// g ⊙ a'(x).
pub(in crate::ops) fn differentiate(
    activation: Activation,
    x: CubeTensor,
    gradient: CubeTensor,
) -> CubeTensor {
    let [x, gradient] = [x, gradient].map(cube::contiguous);
    let out = cube::empty_like(&x);
    let (cubes, units) = cube::elementwise(x.meta.shape().num_elements());
    let client = x.client.clone();
    let [x, gradient] = [x, gradient].map(CubeTensor::into_tensor_arg);
    differentiate_kernel::launch(
        &client,
        cubes,
        units,
        x,
        gradient,
        out.clone().into_tensor_arg(),
        activation,
    );
    out
}
