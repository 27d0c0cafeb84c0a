//! Cross-entropy on slices: a row of logits at a time, in its own place.

use ist_core::burn;

use burn::backend::tensor::IntTensor;
use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation};

use super::{Asked, CrossEntropy};

/// The losses; by the formula where the logits are not of f32.
pub(super) fn forward(of: &CrossEntropy, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let targets = host(&inputs.ints[0]);
    let [logits] = inputs.floats();
    let [rows, vocabulary] = logits.shape().dims::<2>();
    // The exponentials are written over the logits, or over a copy where a graph holds these.
    let mut logits = flex::into_vec(logits);
    let mut losses = vec![0.0; rows];
    flex::for_each_part_pair(&mut logits, &mut losses, [vocabulary, 1], |row, logits, loss| {
        loss[0] = differentiate(logits, targets[row], Asked::Loss);
    });
    flex::tensor(losses, [rows])
}

/// The gradient of the logits; by the formula where they are not of f32.
pub(super) fn backward(
    of: &CrossEntropy,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let targets = host(&saved.ints[0]);
    let [logits] = saved.floats();
    let [rows, vocabulary] = logits.shape().dims::<2>();
    let gradient = flex::contiguous(gradient);
    let gradient = flex::slice(&gradient);
    let mut logits = flex::into_vec(logits);
    flex::for_each_row(&mut logits, vocabulary, |row, logits| {
        differentiate(logits, targets[row], Asked::Gradient);
        for value in logits {
            *value *= gradient[row];
        }
    });
    vec![Some(flex::tensor(logits, [rows, vocabulary]))]
}

/// The targets as indices.
pub(in crate::ops) fn host(targets: &IntTensor<Flex>) -> Vec<usize> {
    targets.clone().into_data().iter::<i64>().map(|id| id as usize).collect()
}

/// The loss of one row of logits, which are written over: with p - onehot(target) where the
/// gradient is asked for.
pub(in crate::ops) fn differentiate(logits: &mut [f32], target: usize, asked: Asked) -> f32 {
    let most = flex::max(logits);
    // Read before the exponentials take its place.
    let chosen = logits[target];
    let sum = flex::exp_and_sum(logits, most);
    if asked == Asked::Gradient {
        let factor = 1.0 / sum;
        for probability in &mut *logits {
            *probability *= factor;
        }
        logits[target] -= 1.0;
    }
    sum.ln() + most - chosen
}
