//! The loss of predicted tokens straight from hidden states: head and cross-entropy in one
//! operation.
//!
//! The loss of a row is -log p(target) with p = softmax(z) and z = x W + b. Where logits have a cap
//! c, z = c · tanh((x W + b) / c).
//!
//! The logits of a chunk of rows exist at a time, never those of all rows. In training the same
//! pass computes each row's gradient (p - onehot) Wᵀ, so the logits are computed once. Where W
//! trains too, x and W are kept instead and the logits are computed again.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Int, Shape, Slice, Tensor};
use ist_core::operation::{Operands, Operation, Recorded, apply};
use ist_core::plan::tape::{Place, TapeOp, TapeValue};
use ist_peft::frozen::Stored;

use super::cross_entropy::{Asked, Softmax, d_logits, softmax};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// What stands between x and the softmax.
#[derive(Clone, Debug)]
pub struct Head {
    /// W, `[hidden, vocabulary]`, in any float type.
    pub weight: Tensor<2>,
    /// b, `[vocabulary]`, which is constant.
    pub bias: Option<Tensor<1>>,
    /// c.
    pub soft_cap: Option<f64>,
}

impl From<Tensor<2>> for Head {
    fn from(weight: Tensor<2>) -> Self {
        Self { weight, bias: None, soft_cap: None }
    }
}

/// -log p(target) of every row.
///
/// # Shapes
/// x `[rows, hidden]`, targets and the result `[rows]`
pub fn linear_cross_entropy(
    x: Tensor<2>,
    head: impl Into<Head>,
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    let Head { weight, bias, soft_cap } = head.into();
    let floats = [x.into_dispatch(), weight.into_dispatch()]
        .into_iter()
        .chain(bias.map(Tensor::into_dispatch));
    apply(LinearCrossEntropy { soft_cap }, floats, [targets.into_dispatch()])
}

/// Bytes of the logits that exist at a time, as far as [`LEAST_ROWS`] allow.
pub const CHUNK_BYTES: usize = 16 << 20;

/// Rows of a chunk at least: fewer read the head's weight too often.
pub const LEAST_ROWS: usize = 64;

/// Rows whose logits exist at a time.
pub fn chunk_rows(vocabulary: usize) -> usize {
    (CHUNK_BYTES / 4 / vocabulary.max(1)).max(LEAST_ROWS)
}

/// What a memory plan counts for the losses of `x`.
pub(crate) struct LossBytes {
    /// The size of x, and of its gradient.
    pub(crate) x: u64,
    /// The size of the losses.
    pub(crate) losses: u64,
    /// The size of a chunk's logits, and of what reading W takes for a moment.
    pub(crate) chunk: u64,
}

/// The losses of `x`: kept is x's gradient, as a note of the forward pass.
pub(crate) fn cost(x: TapeValue, bytes: &LossBytes) -> TapeOp {
    TapeOp {
        reads: vec![x],
        writes: bytes.losses,
        notes: bytes.x,
        forward: bytes.chunk,
        gradient: Place::OverKept,
        ..TapeOp::default()
    }
}

#[derive(Clone, Debug)]
struct LinearCrossEntropy {
    soft_cap: Option<f64>,
}

/// The operands by their names.
struct Named<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
}

impl<B: Backend> Named<B> {
    fn of(inputs: &Operands<B>) -> Self {
        let mut floats = inputs.floats.iter().cloned();
        let mut next = || floats.next().expect("x and the weight are always given");
        let x = next();
        let weight = next();
        Self { x, weight, bias: floats.next() }
    }
}

/// Some rows of x `[rows, hidden]`.
fn rows_of<B: Backend>(x: &FloatTensor<B>, rows: Range<usize>) -> FloatTensor<B> {
    let width = x.shape()[1];
    B::float_slice(x.clone(), &[Slice::from(rows), Slice::from(0..width)])
}

/// The targets of some rows as a column.
fn targets_of<B: Backend>(targets: &IntTensor<B>, rows: Range<usize>) -> IntTensor<B> {
    let count = rows.len();
    let targets = B::int_slice(targets.clone(), &[Slice::from(rows)]);
    B::int_reshape(targets, Shape::new([count, 1]))
}

/// The chunks of rows whose logits exist together.
fn chunks(rows: usize, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
    let size = chunk_rows(vocabulary);
    (0..rows).step_by(size).map(move |from| from..(from + size).min(rows))
}

impl LinearCrossEntropy {
    /// z from x W.
    fn shape<B: Backend>(
        &self,
        logits: FloatTensor<B>,
        bias: Option<&FloatTensor<B>>,
    ) -> Shaped<B> {
        let logits = match bias {
            Some(bias) => {
                let row = B::float_reshape(bias.clone(), Shape::new([1, bias.shape()[0]]));
                let dtype = FloatDType::from(logits.dtype());
                B::float_add(logits, B::float_cast(row, dtype))
            }
            None => logits,
        };
        match self.soft_cap {
            Some(cap) => {
                let tanh = B::float_tanh(B::float_mul_scalar(logits, (1.0 / cap).into()));
                Shaped { z: B::float_mul_scalar(tanh.clone(), cap.into()), tanh: Some(tanh) }
            }
            None => Shaped { z: logits, tanh: None },
        }
    }

    /// All losses `[rows]`, and where they are asked for each row's gradient by x.
    fn compute<B: Backend>(&self, inputs: &Operands<B>, asked: Asked) -> Computed<B> {
        let targets = inputs.ints[0].clone();
        let Named { x, weight, bias } = Named::<B>::of(inputs);
        let vocabulary = weight.shape()[1];
        let weight = Stored::<B>::Float(weight);
        let mut losses = Vec::new();
        let mut d_x = Vec::new();
        for rows in chunks(x.shape()[0], vocabulary) {
            let x = rows_of::<B>(&x, rows.clone());
            let targets = targets_of::<B>(&targets, rows);
            let Shaped { z, tanh } = self.shape::<B>(weight.product(x), bias.as_ref());
            let softmax = softmax::<B>(z, targets.clone());
            losses.push(softmax.losses);
            if asked == Asked::Gradient {
                let d_z = d_logits::<B>(softmax.probabilities, targets);
                d_x.push(weight.transposed_product(through_cap::<B>(d_z, tanh)));
            }
        }
        let losses = B::float_cat(losses, 0);
        let rows = losses.shape()[0];
        Computed {
            losses: B::float_reshape(losses, Shape::new([rows])),
            d_x: (asked == Asked::Gradient).then(|| B::float_cat(d_x, 0)),
        }
    }

    /// The gradients of x and W for the rows' gradients `gradient` `[rows, 1]`.
    fn both<B: Backend>(
        &self,
        saved: &Operands<B>,
        gradient: &FloatTensor<B>,
    ) -> [FloatTensor<B>; 2] {
        let targets = saved.ints[0].clone();
        let Named { x, weight, bias } = Named::<B>::of(saved);
        let vocabulary = weight.shape()[1];
        let weight = Stored::<B>::Float(weight);
        let mut d_x = Vec::new();
        let mut d_weight: Option<FloatTensor<B>> = None;
        for rows in chunks(x.shape()[0], vocabulary) {
            let factor = rows_of::<B>(gradient, rows.clone());
            let x = rows_of::<B>(&x, rows.clone());
            let targets = targets_of::<B>(&targets, rows);
            let Shaped { z, tanh } = self.shape::<B>(weight.product(x.clone()), bias.as_ref());
            let Softmax { probabilities, .. } = softmax::<B>(z, targets.clone());
            let d_z = through_cap::<B>(d_logits::<B>(probabilities, targets), tanh);
            let d_z = B::float_mul(d_z, factor);
            d_x.push(weight.transposed_product(d_z.clone()));
            // W's gradient is a sum over all rows, so over all chunks.
            let term = B::float_matmul(B::float_transpose(x), d_z);
            d_weight = Some(match d_weight {
                Some(sum) => B::float_add(sum, term),
                None => term,
            });
        }
        [B::float_cat(d_x, 0), d_weight.expect("there is a row at least")]
    }
}

/// The logits behind bias and cap.
struct Shaped<B: Backend> {
    z: FloatTensor<B>,
    /// tanh((x W + b) / c) where there is a cap, from which follows the cap's derivative.
    tanh: Option<FloatTensor<B>>,
}

/// What one pass over all chunks finds.
struct Computed<B: Backend> {
    /// `[rows]`.
    losses: FloatTensor<B>,
    /// The gradient of each row's loss by x, `[rows, hidden]`, where it was asked for.
    d_x: Option<FloatTensor<B>>,
}

impl<B: Backend> Computed<B> {
    /// The losses, and these gradients for the backward pass, which needs nothing else.
    fn recorded(self) -> Recorded<B> {
        (self.losses, Operands::new(self.d_x.into_iter().collect(), Vec::new()))
    }
}

/// The gradient of x W + b from that of z.
fn through_cap<B: Backend>(
    gradient: FloatTensor<B>,
    tanh: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    match tanh {
        Some(tanh) => {
            let square = B::float_mul(tanh.clone(), tanh);
            B::float_mul(gradient, B::float_add_scalar(B::float_neg(square), 1.0f64.into()))
        }
        None => gradient,
    }
}

impl Operation for LinearCrossEntropy {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(&inputs, Asked::Loss).losses
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        wanted: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        // The gradient of W depends on the losses' own gradients, which are not known yet.
        if wanted[1] {
            return Err(inputs);
        }
        Ok(self.compute::<B>(&inputs, Asked::Gradient).recorded())
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let rows = gradient.shape()[0];
        let gradient = B::float_reshape(gradient, Shape::new([rows, 1]));
        if wanted[1] {
            let dtype = FloatDType::from(saved.floats[1].dtype());
            let [d_x, d_weight] = self.both::<B>(&saved, &gradient);
            let found = [wanted[0].then_some(d_x), Some(B::float_cast(d_weight, dtype))];
            return found.into_iter().chain(wanted[2..].iter().map(|_| None)).collect();
        }
        let [d_x] = saved.floats();
        std::iter::once(Some(B::float_mul(d_x, gradient)))
            .chain(wanted[1..].iter().map(|_| None))
            .collect()
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        flex::forward(self, inputs)
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        flex::record(self, inputs, wanted)
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        cube::forward(self, inputs)
    }

    #[cfg(feature = "cube")]
    fn record_cube(
        &self,
        inputs: Operands<CubeBackend>,
        wanted: &[bool],
    ) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
        cube::record(self, inputs, wanted)
    }
}
