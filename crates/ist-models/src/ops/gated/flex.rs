//! The gated unit on slices, in place.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation};

use super::Gated;
use crate::ops::activation::{self, PART};

/// The value; by the formula where a tensor is not of f32.
pub(super) fn forward(of: &Gated, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [gate, up] = inputs.floats();
    let shape = gate.shape();
    let gate = flex::contiguous(gate);
    let gates = flex::slice(&gate);
    // The result takes the place of up where nobody else holds it.
    let mut out = flex::into_vec(up);
    flex::for_each_part(&mut out, PART, |from, up| {
        activation::gated(of.activation, up, &gates[from..]);
    });
    flex::tensor(out, shape)
}

/// Both gradients, where gate and up were kept; by the formula where a tensor is not of f32.
pub(super) fn backward(
    of: &Gated,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [gate, up] = saved.floats();
    let shape = gate.shape();
    let gradient = flex::contiguous(gradient);
    let gradient = flex::slice(&gradient);
    let mut gate = flex::into_vec(gate);
    let mut up = flex::into_vec(up);
    // Both at once, whichever is wanted: they share the activation, which costs most.
    flex::for_each_part_pair(&mut gate, &mut up, [PART; 2], |part, gate, up| {
        activation::differentiate_gated(of.activation, gate, up, &gradient[part * PART..]);
    });
    vec![Some(flex::tensor(gate, shape.clone())), Some(flex::tensor(up, shape))]
}
