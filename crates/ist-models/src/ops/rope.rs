//! Rotary position embedding (Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864)) of R features of every head, which
//! are paired as [`Pairs`] says; the others stay as they are.
//!
//! A pair (a, b) becomes (a cos - b sin, b cos + a sin); the backward pass turns the gradient the other way and keeps
//! nothing but the angles, which all layers share.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Device, Shape, Slice, Tensor, TensorData};
use ist_core::operation::{Operands, Operation, apply};

/// Which features of a head make a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// Feature i and i + R / 2 of the R that are turned, as in GPT-NeoX and LLaMA.
    #[default]
    Halves,
    /// Neighbours, as in the paper and GPT-J.
    Neighbours,
}

/// cos and sin of every position's angles, both `[batch or 1, sequence, 1, pairs]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
    pairs: Pairs,
}

impl Rotation {
    /// The rotation of `positions`, one list a row, by angles position · `inverse_frequencies` (one a pair); features beyond
    /// the pairs stay as they are.
    pub fn new(
        inverse_frequencies: &[f64],
        positions: &[Vec<usize>],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let sequence = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), sequence, 1, inverse_frequencies.len()];
        let table = |function: fn(f64) -> f64| {
            let angles = positions.iter().flatten().flat_map(|&position| {
                inverse_frequencies.iter().map(move |frequency| position as f64 * frequency)
            });
            let values: Vec<f64> = angles.map(function).collect();
            Tensor::from_data(TensorData::new(values, shape), (device, dtype))
        };
        Self { cos: table(f64::cos), sin: table(f64::sin), pairs: Pairs::default() }
    }

    /// The rotations of rows, one after the other; at least one, and alike in all but the angles.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_rows(rows: Vec<Self>) -> Self {
        let pairs = rows[0].pairs;
        let (cos, sin) = rows.into_iter().map(|row| (row.cos, row.sin)).unzip();
        Self { cos: Tensor::cat(cos, 0), sin: Tensor::cat(sin, 0), pairs }
    }

    /// The same with other pairs.
    #[must_use]
    pub fn with_pairs(self, pairs: Pairs) -> Self {
        Self { pairs, ..self }
    }

    /// The same, and what is turned becomes longer by that factor.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        Self { cos: self.cos.mul_scalar(factor), sin: self.sin.mul_scalar(factor), ..self }
    }

    /// Every pair of features of x `[batch, sequence, heads, head_dim]` turned by its position's angle.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().into_dispatch());
        apply(Rotate { forwards: true, pairs: self.pairs }, [x.into_dispatch(), cos, sin], [])
    }
}

#[derive(Clone, Debug)]
struct Rotate {
    forwards: bool,
    pairs: Pairs,
}

/// A range of the last of four dimensions.
fn features<B: Backend>(x: &FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let [batch, sequence, heads, _] = x.shape().dims::<4>();
    B::float_slice(x.clone(), &[0..batch, 0..sequence, 0..heads, range].map(Slice::from))
}

/// The first or the second features of all pairs of x, whose last dimension they are.
fn half<B: Backend>(x: &FloatTensor<B>, pairs: Pairs, second: bool) -> FloatTensor<B> {
    let [batch, sequence, heads, width] = x.shape().dims::<4>();
    if pairs == Pairs::Halves {
        return features::<B>(x, if second { width / 2..width } else { 0..width / 2 });
    }
    let x = B::float_reshape(x.clone(), Shape::new([batch, sequence, heads, width / 2, 2]));
    let at = usize::from(second);
    let one = B::float_slice(
        x,
        &[0..batch, 0..sequence, 0..heads, 0..width / 2, at..at + 1].map(Slice::from),
    );
    B::float_reshape(one, Shape::new([batch, sequence, heads, width / 2]))
}

/// The inverse of [`half`].
fn join<B: Backend>(parts: [FloatTensor<B>; 2], pairs: Pairs) -> FloatTensor<B> {
    if pairs == Pairs::Halves {
        return B::float_cat(parts.into(), 3);
    }
    let [batch, sequence, heads, width] = parts[0].shape().dims::<4>();
    let parts =
        parts.map(|part| B::float_reshape(part, Shape::new([batch, sequence, heads, width, 1])));
    B::float_reshape(B::float_cat(parts.into(), 4), Shape::new([batch, sequence, heads, 2 * width]))
}

impl Rotate {
    fn rotate<B: Backend>(
        &self,
        x: &FloatTensor<B>,
        cos: &FloatTensor<B>,
        sin: &FloatTensor<B>,
    ) -> FloatTensor<B> {
        let (width, turned) = (x.shape()[3], 2 * cos.shape()[3]);
        if turned < width {
            let (part, rest) = (features::<B>(x, 0..turned), features::<B>(x, turned..width));
            return B::float_cat(vec![self.rotate::<B>(&part, cos, sin), rest], 3);
        }
        let sin = if self.forwards { sin.clone() } else { B::float_neg(sin.clone()) };
        let [first, second] = [false, true].map(|second| half::<B>(x, self.pairs, second));
        let turned = |x: &FloatTensor<B>, y: &FloatTensor<B>| {
            (B::float_mul(x.clone(), cos.clone()), B::float_mul(y.clone(), sin.clone()))
        };
        let ((a_cos, b_sin), (b_cos, a_sin)) = (turned(&first, &second), turned(&second, &first));
        join::<B>([B::float_sub(a_cos, b_sin), B::float_add(b_cos, a_sin)], self.pairs)
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
        let back = Self { forwards: !self.forwards, ..self.clone() };
        vec![Some(back.rotate::<B>(&gradient, &cos, &sin)), None, None]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let [x, cos, sin] = inputs.floats();
        self.rotate_flex(x, cos, sin)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        _: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [cos, sin] = saved.floats();
        let back = Self { forwards: !self.forwards, ..self.clone() };
        vec![Some(back.rotate_flex(gradient, cos, sin)), None, None]
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        let [x, cos, sin] = inputs.floats();
        self.rotate_cube(x, cos, sin)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let [cos, sin] = saved.floats();
        let back = Self { forwards: !self.forwards, ..self.clone() };
        vec![Some(back.rotate_cube(gradient, cos, sin)), None, None]
    }
}

#[cfg(feature = "cube")]
use super::kernels;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};

#[cfg(feature = "cube")]
impl Rotate {
    fn rotate_cube(&self, x: CubeTensor, cos: CubeTensor, sin: CubeTensor) -> CubeTensor {
        if !cube::all_f32([&x, &cos, &sin]) {
            return self.rotate::<CubeBackend>(&x, &cos, &sin);
        }
        kernels::rope::rotate(x, cos, sin, if self.forwards { 1.0 } else { -1.0 }, self.pairs)
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
        let [rows, _, _, pairs] = cos.shape().dims::<4>();
        let (cos, sin) = (flex::contiguous(cos), flex::contiguous(sin));
        let (cos, sin) = (flex::slice(&cos), flex::slice(&sin));
        let sign = if self.forwards { 1.0 } else { -1.0 };
        let mut out = flex::into_vec(x);
        flex::for_each_row(&mut out, heads * width, |token, features| {
            let position = if rows == 1 { token % sequence } else { token };
            let angles = position * pairs..(position + 1) * pairs;
            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
            let turn = |(((a, b), cos), sin): (((&mut f32, &mut f32), &f32), &f32)| {
                let (x, y, sin) = (*a, *b, sin * sign);
                *a = x * cos - y * sin;
                *b = y * cos + x * sin;
            };
            for head in features.chunks_exact_mut(width).map(|head| &mut head[..2 * pairs]) {
                if self.pairs == Pairs::Halves {
                    let (first, second) = head.split_at_mut(pairs);
                    first.iter_mut().zip(second).zip(cos).zip(sin).for_each(turn);
                } else {
                    let neighbours = head.chunks_exact_mut(2).map(|pair| {
                        let (first, second) = pair.split_at_mut(1);
                        (&mut first[0], &mut second[0])
                    });
                    neighbours.zip(cos).zip(sin).for_each(turn);
                }
            }
        });
        flex::tensor(out, Shape::from(shape.to_vec()))
    }
}
