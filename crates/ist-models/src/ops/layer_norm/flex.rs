//! Layer normalisation on slices, row by row: each row is read from memory once.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation};

use super::LayerNorm;

/// The value; by the formula where a tensor is not of f32.
pub(super) fn forward(of: &LayerNorm, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [x, weight, bias] = inputs.floats().map(flex::contiguous);
    let source = flex::slice(&x);
    let weight = flex::slice(&weight);
    let bias = flex::slice(&bias);
    let width = weight.len();
    let mut out = vec![0.0; source.len()];
    flex::for_each_row(&mut out, width, |row, out| {
        of.normalise_row(&source[row * width..][..width], out);
        for ((out, weight), bias) in out.iter_mut().zip(weight).zip(bias) {
            *out = *out * weight + bias;
        }
    });
    flex::tensor(out, x.shape())
}

/// The gradient of x; by the formula where a tensor is not of f32, or w or b trains.
pub(super) fn backward(
    of: &LayerNorm,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if wanted[1] || wanted[2] || !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [x, weight] = saved.floats();
    let [x, weight, gradient] = [x, weight, gradient].map(flex::contiguous);
    let source = flex::slice(&x);
    let weight = flex::slice(&weight);
    let gradient = flex::slice(&gradient);
    let width = weight.len();
    let mut out = vec![0.0; source.len()];
    flex::for_each_row(&mut out, width, |row, z| {
        // z is made where the row's gradient goes, which then takes its place.
        let scale = of.normalise_row(&source[row * width..][..width], z);
        let gradient = &gradient[row * width..][..width];
        let mean = flex::dot(gradient, weight) / width as f32;
        let along = weighted_dot(gradient, weight, z) / width as f32;
        for ((z, gradient), weight) in z.iter_mut().zip(gradient).zip(weight) {
            *z = scale * (gradient * weight - mean - *z * along);
        }
    });
    vec![Some(flex::tensor(out, x.shape())), None, None]
}

impl LayerNorm {
    /// Writes z of one row; returns r.
    fn normalise_row(&self, x: &[f32], z: &mut [f32]) -> f32 {
        let width = x.len() as f32;
        let mean = flex::sum(x) / width;
        for (z, x) in z.iter_mut().zip(x) {
            *z = x - mean;
        }
        let scale = 1.0 / (flex::dot(z, z) / width + self.eps as f32).sqrt();
        for z in z {
            *z *= scale;
        }
        scale
    }
}

/// Σ aᵢ bᵢ cᵢ, by way of 64 products at a time, which stay in the cache.
fn weighted_dot(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut products = [0.0; 64];
    let mut sum = 0.0;
    for ((a, b), c) in a.chunks(64).zip(b.chunks(64)).zip(c.chunks(64)) {
        for ((product, a), b) in products.iter_mut().zip(a).zip(b) {
            *product = a * b;
        }
        // The last chunk may be shorter: the products behind it are those of the one before.
        sum += flex::dot(&products[..c.len()], c);
    }
    sum
}
