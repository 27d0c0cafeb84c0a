//! Rotary positions on slices: in place, a token at a time.

use ist_core::burn;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use ist_core::operation::flex::{self, FlexTensor};

use super::{Pairs, Rotate};

/// Every pair of x turned by its angle; by the formula where a tensor is not of f32.
pub(super) fn rotate(of: &Rotate, x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
    if !flex::all_f32([&x, &cos, &sin]) {
        return of.rotate::<Flex>(&x, &cos, &sin);
    }
    let shape = x.shape();
    let [_, sequence, heads, width] = shape.dims::<4>();
    let [rows, _, _, pairs] = cos.shape().dims::<4>();
    let [cos, sin] = [cos, sin].map(flex::contiguous);
    let cos = flex::slice(&cos);
    let sin = flex::slice(&sin);
    let sign = of.sign();
    let mut out = flex::into_vec(x);
    flex::for_each_row(&mut out, heads * width, |token, features| {
        // One row of angles serves all rows of the batch, or each has its own.
        let position = if rows == 1 { token % sequence } else { token };
        let angles = position * pairs..(position + 1) * pairs;
        let cos = &cos[angles.clone()];
        let sin = &sin[angles];
        for head in features.chunks_exact_mut(width).map(|head| &mut head[..2 * pairs]) {
            match of.pairs {
                Pairs::Halves => turn_halves(head, cos, sin, sign),
                Pairs::Neighbours => turn_neighbours(head, cos, sin, sign),
            }
        }
    });
    flex::tensor(out, Shape::from(shape.to_vec()))
}

/// Turns the pairs of one head whose first features come before all second ones.
fn turn_halves(head: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        turn(a, b, *cos, sin * sign);
    }
}

/// Turns the pairs of one head whose features are neighbours.
fn turn_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (first, second) = pair.split_at_mut(1);
        turn(&mut first[0], &mut second[0], *cos, sin * sign);
    }
}

fn turn(a: &mut f32, b: &mut f32, cos: f32, sin: f32) {
    let x = *a;
    let y = *b;
    *a = x * cos - y * sin;
    *b = y * cos + x * sin;
}
