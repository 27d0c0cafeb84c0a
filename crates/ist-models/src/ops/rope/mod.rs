//! Rotary position embedding (Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864)).
//!
//! R features of every head are paired as [`Pairs`] says. The others stay as they are. A pair (a,
//! b) becomes (a cos - b sin, b cos + a sin).
//!
//! A rotation's inverse is its transpose, so the backward pass turns the gradient the other way. It
//! keeps nothing but the angles, which all layers share.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Device, Shape, Slice, Tensor, TensorData};
use ist_core::operation::{Operands, Operation, apply};
use ist_core::plan::tape::{Place, TapeOp, TapeValue};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// Which features of a head make a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// Feature i and i + R / 2 of the R that are turned, as in GPT-NeoX and LLaMA.
    #[default]
    Halves,
    /// Neighbours, as in the paper and GPT-J.
    Neighbours,
}

/// cos and sin of every position's angles.
///
/// # Shapes
/// both `[batch or 1, sequence, 1, pairs]`
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
    pairs: Pairs,
}

impl Rotation {
    /// The rotation of `positions`, one list a row, by angles position · frequency.
    ///
    /// There is one of `inverse_frequencies` a pair. Features beyond the pairs stay as they are.
    pub fn new(
        inverse_frequencies: &[f64],
        positions: &[Vec<usize>],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let sequence = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), sequence, 1, inverse_frequencies.len()];
        // In f64, whatever the tables are of: an angle grows with the position, and f32 would lose
        // digits of its cosine.
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

    /// Every pair of features of x turned by its position's angle.
    ///
    /// # Shapes
    /// x and the result `[batch, sequence, heads, head_dim]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().into_dispatch());
        let operation = Rotate { direction: Direction::Forwards, pairs: self.pairs };
        apply(operation, [x.into_dispatch(), cos, sin], [])
    }
}

/// What a memory plan counts for turning `x`, which writes that many bytes. Both passes turn in
/// place.
pub(crate) fn cost(x: TapeValue, writes: u64) -> TapeOp {
    TapeOp {
        reads: vec![x],
        writes,
        in_place: true,
        gradient: Place::OverIncoming,
        ..TapeOp::default()
    }
}

/// Which way a rotation turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// By the angles.
    Forwards,
    /// By the angles' negatives, as gradients are turned.
    Back,
}

#[derive(Clone, Debug)]
struct Rotate {
    direction: Direction,
    pairs: Pairs,
}

/// Which of a pair's two features.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    First,
    Second,
}

/// A range of the last of four dimensions.
fn features<B: Backend>(x: &FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let [batch, sequence, heads, _] = x.shape().dims::<4>();
    B::float_slice(x.clone(), &[0..batch, 0..sequence, 0..heads, range].map(Slice::from))
}

/// The first or the second features of all pairs of x, whose last dimension they are.
fn half<B: Backend>(x: &FloatTensor<B>, pairs: Pairs, member: Member) -> FloatTensor<B> {
    let [batch, sequence, heads, width] = x.shape().dims::<4>();
    if pairs == Pairs::Halves {
        let range = match member {
            Member::First => 0..width / 2,
            Member::Second => width / 2..width,
        };
        return features::<B>(x, range);
    }
    // Neighbours: a dimension of two behind the pairs, of which one place is taken.
    let x = B::float_reshape(x.clone(), Shape::new([batch, sequence, heads, width / 2, 2]));
    let at = usize::from(member == Member::Second);
    let ranges = [0..batch, 0..sequence, 0..heads, 0..width / 2, at..at + 1];
    let one = B::float_slice(x, &ranges.map(Slice::from));
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
    /// The rotation that undoes this one.
    fn back(&self) -> Self {
        let direction = match self.direction {
            Direction::Forwards => Direction::Back,
            Direction::Back => Direction::Forwards,
        };
        Self { direction, pairs: self.pairs }
    }

    /// What the sines are multiplied with.
    #[cfg(any(feature = "flex", feature = "cube"))]
    fn sign(&self) -> f32 {
        match self.direction {
            Direction::Forwards => 1.0,
            Direction::Back => -1.0,
        }
    }

    fn rotate<B: Backend>(
        &self,
        x: &FloatTensor<B>,
        cos: &FloatTensor<B>,
        sin: &FloatTensor<B>,
    ) -> FloatTensor<B> {
        let width = x.shape()[3];
        let turned = 2 * cos.shape()[3];
        if turned < width {
            let part = features::<B>(x, 0..turned);
            let rest = features::<B>(x, turned..width);
            return B::float_cat(vec![self.rotate::<B>(&part, cos, sin), rest], 3);
        }
        let sin = match self.direction {
            Direction::Forwards => sin.clone(),
            Direction::Back => B::float_neg(sin.clone()),
        };
        let [a, b] = [Member::First, Member::Second].map(|member| half::<B>(x, self.pairs, member));
        let times = |x: &FloatTensor<B>, y: &FloatTensor<B>| B::float_mul(x.clone(), y.clone());
        let first = B::float_sub(times(&a, cos), times(&b, &sin));
        let second = B::float_add(times(&b, cos), times(&a, &sin));
        join::<B>([first, second], self.pairs)
    }
}

impl Operation for Rotate {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, cos, sin] = inputs.floats();
        self.rotate::<B>(&x, &cos, &sin)
    }

    /// The angles; x itself has no part in its gradient.
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
        vec![Some(self.back().rotate::<B>(&gradient, &cos, &sin)), None, None]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let [x, cos, sin] = inputs.floats();
        flex::rotate(self, x, cos, sin)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        _: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [cos, sin] = saved.floats();
        vec![Some(flex::rotate(&self.back(), gradient, cos, sin)), None, None]
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        let [x, cos, sin] = inputs.floats();
        cube::rotate(self, x, cos, sin)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let [cos, sin] = saved.floats();
        vec![Some(cube::rotate(&self.back(), gradient, cos, sin)), None, None]
    }
}
