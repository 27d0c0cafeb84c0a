//! Activations on GPUs, at one number: what the kernels of [`activate`](crate::ops::activate) and
//! [`gated`](crate::ops::gated) compute with.

use ist_core::operation::cube::cubecl;

use cubecl::prelude::*;

use super::Activation;

const TANH_SCALE: f32 = super::TANH_SCALE as f32;
const TANH_CUBE: f32 = super::TANH_CUBE as f32;
const DENSITY: f32 = super::DENSITY as f32;

/// g of y = x g(x).
#[cube]
pub(in crate::ops) fn factor(x: f32, #[comptime] activation: Activation) -> f32 {
    // The activation is known when a kernel is compiled, so each kernel has one of the branches.
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

/// g' where g is [`factor`] of x.
#[cube]
pub(in crate::ops) fn slope(x: f32, factor: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Silu) {
        factor * (1.0f32 - factor)
    } else if comptime!(activation == Activation::Gelu) {
        comptime!(DENSITY) * (-0.5f32 * x * x).exp()
    } else {
        let inner = comptime!(TANH_SCALE) * (1.0f32 + comptime!(3.0 * TANH_CUBE) * x * x);
        2.0f32 * factor * (1.0f32 - factor) * inner
    }
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}
