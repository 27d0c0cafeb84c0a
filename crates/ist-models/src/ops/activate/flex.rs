//! An activation on slices, in place.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use ist_core::operation::flex::{self, FlexTensor};
use ist_core::operation::{Operands, Operation};

use super::Activate;
use crate::ops::activation::{self, PART};

/// The value; by the formula where x is not of f32.
pub(super) fn forward(of: &Activate, inputs: Operands<Flex>) -> FlexTensor {
    if !flex::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let [x] = inputs.floats();
    let shape = x.shape();
    let mut out = flex::into_vec(x);
    flex::for_each_part(&mut out, PART, |_, x| activation::activate(of.activation, x));
    flex::tensor(out, shape)
}

/// The gradient, where x was kept; by the formula where x is not of f32.
pub(super) fn backward(
    of: &Activate,
    saved: Operands<Flex>,
    gradient: FlexTensor,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    if !flex::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let [x] = saved.floats();
    let shape = x.shape();
    let gradient = flex::contiguous(gradient);
    let gradient = flex::slice(&gradient);
    let mut out = flex::into_vec(x);
    flex::for_each_part(&mut out, PART, |from, x| {
        activation::differentiate(of.activation, x, &gradient[from..]);
    });
    vec![Some(flex::tensor(out, shape))]
}
