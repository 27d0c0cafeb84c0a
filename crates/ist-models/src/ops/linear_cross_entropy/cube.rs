//! Head and cross-entropy on GPUs: a kernel between the two products of a chunk.

use ist_core::burn;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::FloatDType;
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};
use ist_core::operation::{Operands, Operation, Recorded};
use ist_peft::frozen::Stored;

use super::{Computed, LinearCrossEntropy, Named, chunks, rows_of, targets_of};
use crate::ops::cross_entropy::Asked;
use crate::ops::cross_entropy::cube::{RowLogits, RowLosses, Wanted, differentiate};

/// The losses; by the formula where x is not of f32.
pub(super) fn forward(of: &LinearCrossEntropy, inputs: Operands<CubeBackend>) -> CubeTensor {
    if cube::all_f32(&inputs.floats[..1]) {
        of.compute_cube(&inputs, Asked::Loss).losses
    } else {
        of.forward(inputs)
    }
}

/// The losses and the gradient of x; by the formula where x is not of f32 or W trains.
pub(super) fn record(
    of: &LinearCrossEntropy,
    inputs: Operands<CubeBackend>,
    wanted: &[bool],
) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
    if wanted[1] || !cube::all_f32(&inputs.floats[..1]) {
        return of.record(inputs, wanted);
    }
    Ok(of.compute_cube(&inputs, Asked::Gradient).recorded())
}

impl LinearCrossEntropy {
    fn compute_cube(&self, inputs: &Operands<CubeBackend>, asked: Asked) -> Computed<CubeBackend> {
        let targets = inputs.ints[0].clone();
        let Named { x, weight, bias } = Named::<CubeBackend>::of(inputs);
        let bias = bias.map(|bias| CubeBackend::float_cast(bias, FloatDType::F32));
        let vocabulary = weight.shape()[1];
        let weight = Stored::<CubeBackend>::Float(weight);
        let mut losses = Vec::new();
        let mut d_x = Vec::new();
        for rows in chunks(x.shape()[0], vocabulary) {
            let x = rows_of::<CubeBackend>(&x, rows.clone());
            let row_logits = RowLogits {
                logits: weight.product(x),
                targets: targets_of::<CubeBackend>(&targets, rows),
                bias: bias.clone(),
                cap: self.soft_cap,
            };
            let wanted = match asked {
                Asked::Loss => Wanted::Losses,
                Asked::Gradient => Wanted::Gradients,
            };
            let RowLosses { losses: found, logits: d_logits } = differentiate(row_logits, wanted);
            losses.push(found);
            if asked == Asked::Gradient {
                d_x.push(weight.transposed_product(d_logits));
            }
        }
        Computed {
            losses: CubeBackend::float_cat(losses, 0),
            d_x: (asked == Asked::Gradient).then(|| CubeBackend::float_cat(d_x, 0)),
        }
    }
}
