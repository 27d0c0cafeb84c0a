//! Head and cross-entropy on slices: one buffer of logits serves all chunks.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation, Recorded};
use ist_peft::frozen::Stored;
use ist_peft::frozen::product::{fits, multiply_weight, multiply_weight_transposed};

use super::{Computed, LinearCrossEntropy, Named, chunk_rows, chunks};
use crate::ops::cross_entropy::Asked;
use crate::ops::cross_entropy::flex::{differentiate, host};

/// The losses; by the formula where the operands are not for [`fits`].
pub(super) fn forward(of: &LinearCrossEntropy, inputs: Operands<Flex>) -> FlexTensor {
    if fast(&inputs) { of.compute_flex(&inputs, Asked::Loss).losses } else { of.forward(inputs) }
}

/// The losses and the gradient of x; by the formula where W trains, or as [`forward`].
pub(super) fn record(
    of: &LinearCrossEntropy,
    inputs: Operands<Flex>,
    wanted: &[bool],
) -> Result<Recorded<Flex>, Operands<Flex>> {
    if wanted[1] || !fast(&inputs) {
        return of.record(inputs, wanted);
    }
    Ok(of.compute_flex(&inputs, Asked::Gradient).recorded())
}

fn fast(inputs: &Operands<Flex>) -> bool {
    fits(&inputs.floats[0], &Stored::Float(inputs.floats[1].clone()))
        && flex::all_f32(&inputs.floats[2..])
}

/// [`differentiate`] of c · tanh(logits / c) for one row of logits.
fn differentiate_capped(logits: &mut [f32], target: usize, asked: Asked, cap: f32) -> f32 {
    for logit in &mut *logits {
        *logit = cap * (*logit / cap).tanh();
    }
    // The cap's derivative follows from its value, which the softmax is about to write over.
    let capped = match asked {
        Asked::Loss => Vec::new(),
        Asked::Gradient => logits.to_vec(),
    };
    let loss = differentiate(logits, target, asked);
    for (gradient, capped) in logits.iter_mut().zip(capped) {
        *gradient *= 1.0 - (capped / cap) * (capped / cap);
    }
    loss
}

impl LinearCrossEntropy {
    fn compute_flex(&self, inputs: &Operands<Flex>, asked: Asked) -> Computed<Flex> {
        let targets = host(&inputs.ints[0]);
        let Named { x, weight, bias } = Named::<Flex>::of(inputs);
        let x = flex::contiguous(x);
        let bias = bias.map(flex::contiguous);
        let bias = bias.as_ref().map_or(&[][..], flex::slice);
        let [rows, hidden] = x.shape().dims::<2>();
        let vocabulary = weight.shape()[1];
        let weight = Stored::Float(weight);
        let gradients = asked == Asked::Gradient;
        let mut logits = vec![0.0; chunk_rows(vocabulary).min(rows) * vocabulary];
        let mut losses = vec![0.0; rows];
        let mut d_x = vec![0.0; if gradients { rows * hidden } else { 0 }];
        for range in chunks(rows, vocabulary) {
            // The last chunk may have fewer rows.
            let logits = &mut logits[..range.len() * vocabulary];
            let x = &flex::slice(&x)[range.start * hidden..range.end * hidden];
            multiply_weight(logits, x, &weight, false);
            let targets = &targets[range.clone()];
            let losses = &mut losses[range.clone()];
            flex::for_each_part_pair(logits, losses, [vocabulary, 1], |row, logits, loss| {
                logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
                loss[0] = match self.soft_cap {
                    Some(cap) => differentiate_capped(logits, targets[row], asked, cap as f32),
                    None => differentiate(logits, targets[row], asked),
                };
            });
            if gradients {
                let d_x = &mut d_x[range.start * hidden..range.end * hidden];
                multiply_weight_transposed(d_x, logits, &weight, false);
            }
        }
        Computed {
            losses: flex::tensor(losses, [rows]),
            d_x: gradients.then(|| flex::tensor(d_x, [rows, hidden])),
        }
    }
}
