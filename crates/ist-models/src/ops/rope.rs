//! Rotary position embedding (Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864)), in Hugging Face's layout:
//! feature i of a head is paired with feature i + `head_dim` / 2.
//!
//! A pair (a, b) becomes (a cos - b sin, b cos + a sin); the backward pass turns the gradient the other way and keeps
//! nothing but the angles, which all layers share.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Device, Shape, Slice, Tensor, TensorData};
use ist_core::operation::{Operands, Operation, apply};

/// cos and sin of every position's angles, both `[batch or 1, sequence, 1, head_dim / 2]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// The rotation of `positions`, one list a row, by angles position · `inverse_frequencies` (`[head_dim / 2]`).
    pub fn new(inverse_frequencies: &[f64], positions: &[Vec<usize>], dtype: DType, device: &Device) -> Self {
        let sequence = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), sequence, 1, inverse_frequencies.len()];
        let table = |function: fn(f64) -> f64| {
            let angles = positions
                .iter()
                .flatten()
                .flat_map(|&position| inverse_frequencies.iter().map(move |frequency| position as f64 * frequency));
            let values: Vec<f64> = angles.map(function).collect();
            Tensor::from_data(TensorData::new(values, shape), (device, dtype))
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Every pair of features of x `[batch, sequence, heads, head_dim]` turned by its position's angle.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().into_dispatch());
        apply(Rotate { forwards: true }, [x.into_dispatch(), cos, sin], [])
    }
}

#[derive(Clone, Debug)]
struct Rotate {
    forwards: bool,
}

/// The first or second half of the last of four dimensions.
fn half<B: Backend>(x: &FloatTensor<B>, second: bool) -> FloatTensor<B> {
    let [batch, sequence, heads, width] = x.shape().dims::<4>();
    let range = if second { width / 2..width } else { 0..width / 2 };
    B::float_slice(x.clone(), &[0..batch, 0..sequence, 0..heads, range].map(Slice::from))
}

impl Rotate {
    fn rotate<B: Backend>(&self, x: &FloatTensor<B>, cos: &FloatTensor<B>, sin: &FloatTensor<B>) -> FloatTensor<B> {
        let sin = if self.forwards { sin.clone() } else { B::float_neg(sin.clone()) };
        let (first, second) = (half::<B>(x, false), half::<B>(x, true));
        let turned = |x: &FloatTensor<B>, y: &FloatTensor<B>| {
            (B::float_mul(x.clone(), cos.clone()), B::float_mul(y.clone(), sin.clone()))
        };
        let ((a_cos, b_sin), (b_cos, a_sin)) = (turned(&first, &second), turned(&second, &first));
        B::float_cat(vec![B::float_sub(a_cos, b_sin), B::float_add(b_cos, a_sin)], 3)
    }
}

impl Operation for Rotate {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, cos, sin] = inputs.floats();
        self.rotate::<B>(&x, &cos, &sin)
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, _: &[bool]) -> Operands<B> {
        Operands::new(inputs.floats[1..].to_vec(), Vec::new())
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [cos, sin] = saved.floats();
        let back = Self { forwards: !self.forwards };
        vec![Some(back.rotate::<B>(&gradient, &cos, &sin)), None, None]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let [x, cos, sin] = inputs.floats();
        self.rotate_flex(x, cos, sin)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(&self, saved: Operands<Flex>, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [cos, sin] = saved.floats();
        let back = Self { forwards: !self.forwards };
        vec![Some(back.rotate_flex(gradient, cos, sin)), None, None]
    }
}

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

/// In place, a token at a time.
#[cfg(feature = "flex")]
impl Rotate {
    fn rotate_flex(&self, x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        if !flex::all_f32([&x, &cos, &sin]) {
            return self.rotate::<Flex>(&x, &cos, &sin);
        }
        let shape = x.shape();
        let [_, sequence, heads, width] = shape.dims::<4>();
        let [rows, ..] = cos.shape().dims::<4>();
        let (cos, sin) = (flex::contiguous(cos), flex::contiguous(sin));
        let (cos, sin) = (flex::slice(&cos), flex::slice(&sin));
        let sign = if self.forwards { 1.0 } else { -1.0 };
        let mut out = flex::into_vec(x);
        flex::for_each_row(&mut out, heads * width, |token, features| {
            let position = if rows == 1 { token % sequence } else { token };
            let angles = position * (width / 2)..(position + 1) * (width / 2);
            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
            for head in features.chunks_exact_mut(width) {
                let (first, second) = head.split_at_mut(width / 2);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let (x, y, sin) = (*a, *b, sin * sign);
                    *a = x * cos - y * sin;
                    *b = y * cos + x * sin;
                }
            }
        });
        flex::tensor(out, Shape::from(shape.to_vec()))
    }
}
