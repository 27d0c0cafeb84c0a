//! RMSNorm on slices, row by row: each row is read from memory once and then lies in the cache.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation};

use super::RmsNorm;

/// The value; by the formula where a tensor is not of f32.
pub(super) fn forward(of: &RmsNorm, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [x, weight] = inputs.floats().map(flex::contiguous);
    let source = flex::slice(&x);
    let weights = flex::slice(&weight);
    let width = weights.len();
    let mut out = vec![0.0; source.len()];
    flex::for_each_row(&mut out, width, |row, out| {
        let x = &source[row * width..][..width];
        let scale = of.scale_of_row(x);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
            *out = x * scale * weight;
        }
    });
    flex::tensor(out, x.shape())
}

/// The gradients of x and w; by the formula where a tensor is not of f32.
pub(super) fn backward(
    of: &RmsNorm,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    // The gradient of w first: that of x may be written over the incoming gradient.
    let d_weight = wanted[1].then(|| of.weight_gradient(&saved, gradient.clone()));
    let d_x = wanted[0].then(|| of.input_gradient(saved, gradient));
    vec![d_x, d_weight]
}

impl RmsNorm {
    /// r of one row.
    fn scale_of_row(&self, x: &[f32]) -> f32 {
        1.0 / (flex::dot(x, x) / x.len() as f32 + self.eps as f32).sqrt()
    }

    fn weight_gradient(&self, saved: &Operands<Flex>, gradient: FlexTensor) -> FlexTensor {
        let x = flex::contiguous(saved.floats[0].clone());
        let gradient = flex::contiguous(gradient);
        let width = saved.floats[1].shape()[0];
        let mut sum = vec![0.0; width];
        // One thread, row after row, so that the sum does not depend on how many threads there are.
        for (x, gradient) in flex::slice(&x).chunks(width).zip(flex::slice(&gradient).chunks(width))
        {
            let scale = self.scale_of_row(x);
            for ((sum, x), gradient) in sum.iter_mut().zip(x).zip(gradient) {
                *sum += gradient * x * scale;
            }
        }
        flex::tensor(sum, [width])
    }

    fn input_gradient(&self, saved: Operands<Flex>, gradient: FlexTensor) -> FlexTensor {
        let [x, weight] = saved.floats().map(flex::contiguous);
        let source = flex::slice(&x);
        let weights = flex::slice(&weight);
        let width = weights.len();
        // In the gradient's own memory where nobody else holds it.
        let mut out = flex::into_vec(gradient);
        flex::for_each_row(&mut out, width, |row, gradient| {
            let x = &source[row * width..][..width];
            let scale = self.scale_of_row(x);
            // First g w, which both the mean and the result need.
            for (gradient, weight) in gradient.iter_mut().zip(weights) {
                *gradient *= weight;
            }
            // r² mean(g w x), so that (g w - x mean) r is the formula's dx.
            let mean = flex::dot(gradient, x) / width as f32 * scale * scale;
            for (gradient, x) in gradient.iter_mut().zip(x) {
                *gradient = (*gradient - x * mean) * scale;
            }
        });
        flex::tensor(out, x.shape())
    }
}
