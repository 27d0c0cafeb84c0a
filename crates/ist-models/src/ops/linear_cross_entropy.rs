//! The loss of predicted tokens straight from hidden states: head and cross-entropy in one operation.
//!
//! -log p(target) of every row, p = softmax(z) with z = x W + b, or z = c · tanh((x W + b) / c) where logits have a cap c. The
//! logits of a chunk of rows exist at a time, never those of all rows. In
//! training the same pass computes each row's gradient (p - onehot) Wᵀ, so the logits are computed once; where W trains too,
//! x and W are kept instead and the logits are computed again.

use ist_core::burn;

#[cfg(feature = "cube")]
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Int, Shape, Slice, Tensor};
use ist_core::operation::{Operands, Operation, Recorded, apply};
use ist_peft::frozen::Stored;

use super::cross_entropy::{d_logits, softmax};

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

/// -log p(target) of every row: x `[rows, hidden]`, targets `[rows]`, the result `[rows]`.
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

#[derive(Clone, Debug)]
struct LinearCrossEntropy {
    soft_cap: Option<f64>,
}

/// x, W and b.
fn operands<B: Backend>(
    inputs: &Operands<B>,
) -> (FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>) {
    let mut floats = inputs.floats.iter().cloned();
    let mut next = || floats.next().expect("x and the weight are always given");
    (next(), next(), floats.next())
}

/// Some rows of x and their targets as a column.
fn part<B: Backend>(
    x: &FloatTensor<B>,
    targets: &IntTensor<B>,
    rows: std::ops::Range<usize>,
) -> (FloatTensor<B>, IntTensor<B>) {
    let (width, count) = (x.shape()[1], rows.len());
    let x = B::float_slice(x.clone(), &[Slice::from(rows.clone()), Slice::from(0..width)]);
    let targets = B::int_slice(targets.clone(), &[Slice::from(rows)]);
    (x, B::int_reshape(targets, Shape::new([count, 1])))
}

fn chunks(rows: usize, vocabulary: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = chunk_rows(vocabulary);
    (0..rows).step_by(size).map(move |from| from..(from + size).min(rows))
}

impl LinearCrossEntropy {
    /// z from x W, and tanh((x W + b) / c) where there is a cap.
    fn shape<B: Backend>(
        &self,
        logits: FloatTensor<B>,
        bias: Option<&FloatTensor<B>>,
    ) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
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
                (B::float_mul_scalar(tanh.clone(), cap.into()), Some(tanh))
            }
            None => (logits, None),
        }
    }

    /// All losses, and each row's gradient where `gradients`.
    fn compute<B: Backend>(
        &self,
        inputs: &Operands<B>,
        gradients: bool,
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let targets = inputs.ints[0].clone();
        let (x, weight, bias) = operands::<B>(inputs);
        let (mut losses, mut d_x) = (Vec::new(), Vec::new());
        let (vocabulary, weight) = (weight.shape()[1], Stored::<B>::Float(weight));
        for rows in chunks(x.shape()[0], vocabulary) {
            let (x, targets) = part::<B>(&x, &targets, rows);
            let (logits, tanh) = self.shape::<B>(weight.product(x), bias.as_ref());
            let (loss, probabilities) = softmax::<B>(logits, targets.clone());
            losses.push(loss);
            if gradients {
                let d_logits = through_cap::<B>(d_logits::<B>(probabilities, targets), tanh);
                d_x.push(weight.transposed_product(d_logits));
            }
        }
        let losses = B::float_cat(losses, 0);
        let rows = losses.shape()[0];
        let d_x = if gradients { vec![B::float_cat(d_x, 0)] } else { Vec::new() };
        (B::float_reshape(losses, Shape::new([rows])), d_x)
    }

    /// The gradients of x and W for the rows' gradients `gradient` `[rows, 1]`.
    fn both<B: Backend>(
        &self,
        saved: &Operands<B>,
        gradient: &FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let targets = saved.ints[0].clone();
        let (x, weight, bias) = operands::<B>(saved);
        let (mut d_x, mut d_weight) = (Vec::new(), None);
        let (vocabulary, weight) = (weight.shape()[1], Stored::<B>::Float(weight));
        for rows in chunks(x.shape()[0], vocabulary) {
            let factor =
                B::float_slice(gradient.clone(), &[Slice::from(rows.clone()), Slice::from(0..1)]);
            let (x, targets) = part::<B>(&x, &targets, rows);
            let (logits, tanh) = self.shape::<B>(weight.product(x.clone()), bias.as_ref());
            let (_, probabilities) = softmax::<B>(logits, targets.clone());
            let d_logits = through_cap::<B>(d_logits::<B>(probabilities, targets), tanh);
            let d_logits = B::float_mul(d_logits, factor);
            d_x.push(weight.transposed_product(d_logits.clone()));
            let term = B::float_matmul(B::float_transpose(x), d_logits);
            d_weight = Some(match d_weight {
                Some(sum) => B::float_add(sum, term),
                None => term,
            });
        }
        (B::float_cat(d_x, 0), d_weight.expect("there is a row at least"))
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
        self.compute::<B>(&inputs, false).0
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        wanted: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        if wanted[1] {
            return Err(inputs);
        }
        let (losses, d_x) = self.compute::<B>(&inputs, true);
        Ok((losses, Operands::new(d_x, Vec::new())))
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
            let (d_x, d_weight) = self.both::<B>(&saved, &gradient);
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
        if fast(&inputs) { self.compute_flex(&inputs, false).0 } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        if wanted[1] || !fast(&inputs) {
            return self.record(inputs, wanted);
        }
        let (losses, d_x) = self.compute_flex(&inputs, true);
        Ok((losses, Operands::new(d_x.into_iter().collect(), Vec::new())))
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        if cube::all_f32(&inputs.floats[..1]) {
            self.compute_cube(&inputs, false).0
        } else {
            self.forward(inputs)
        }
    }

    #[cfg(feature = "cube")]
    fn record_cube(
        &self,
        inputs: Operands<CubeBackend>,
        wanted: &[bool],
    ) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
        if wanted[1] || !cube::all_f32(&inputs.floats[..1]) {
            return self.record(inputs, wanted);
        }
        let (losses, d_x) = self.compute_cube(&inputs, true);
        Ok((losses, Operands::new(d_x, Vec::new())))
    }
}

#[cfg(feature = "cube")]
use super::kernels::cross_entropy::{self, Wanted};
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};

/// A kernel between the two products of a chunk.
#[cfg(feature = "cube")]
impl LinearCrossEntropy {
    fn compute_cube(
        &self,
        inputs: &Operands<CubeBackend>,
        gradients: bool,
    ) -> (CubeTensor, Vec<CubeTensor>) {
        let targets = inputs.ints[0].clone();
        let (x, weight, bias) = operands::<CubeBackend>(inputs);
        let bias = bias.map(|bias| CubeBackend::float_cast(bias, FloatDType::F32));
        let (mut losses, mut d_x) = (Vec::new(), Vec::new());
        let (vocabulary, weight) = (weight.shape()[1], Stored::<CubeBackend>::Float(weight));
        for rows in chunks(x.shape()[0], vocabulary) {
            let (x, targets) = part::<CubeBackend>(&x, &targets, rows);
            let (logits, bias) = (weight.product(x), bias.clone());
            let wanted = if gradients { Wanted::Gradients } else { Wanted::Losses };
            let (loss, d_logits) =
                cross_entropy::differentiate(logits, targets, bias, self.soft_cap, wanted);
            losses.push(loss);
            if gradients {
                d_x.push(weight.transposed_product(d_logits));
            }
        }
        let d_x = if gradients { vec![CubeBackend::float_cat(d_x, 0)] } else { Vec::new() };
        (CubeBackend::float_cat(losses, 0), d_x)
    }
}

#[cfg(feature = "flex")]
use super::cross_entropy::{differentiate, host};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};
#[cfg(feature = "flex")]
use ist_peft::frozen::product::{fits, multiply_weight, multiply_weight_transposed};

#[cfg(feature = "flex")]
fn fast(inputs: &Operands<Flex>) -> bool {
    fits(&inputs.floats[0], &Stored::Float(inputs.floats[1].clone()))
        && flex::all_f32(&inputs.floats[2..])
}

/// [`differentiate`] of c · tanh(logits / c) for one row of logits.
#[cfg(feature = "flex")]
fn differentiate_capped(logits: &mut [f32], target: usize, gradients: bool, cap: f32) -> f32 {
    for logit in &mut *logits {
        *logit = cap * (*logit / cap).tanh();
    }
    let capped = if gradients { logits.to_vec() } else { Vec::new() };
    let loss = differentiate(logits, target, gradients);
    for (gradient, capped) in logits.iter_mut().zip(capped) {
        *gradient *= 1.0 - (capped / cap) * (capped / cap);
    }
    loss
}

/// One buffer of logits for all chunks.
#[cfg(feature = "flex")]
impl LinearCrossEntropy {
    fn compute_flex(
        &self,
        inputs: &Operands<Flex>,
        gradients: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let targets = host(&inputs.ints[0]);
        let (x, weight, bias) = operands::<Flex>(inputs);
        let (x, bias) = (flex::contiguous(x), bias.map(flex::contiguous));
        let bias = bias.as_ref().map_or(&[][..], flex::slice);
        let ([rows, hidden], vocabulary) = (x.shape().dims::<2>(), weight.shape()[1]);
        let weight = Stored::Float(weight);
        let mut logits = vec![0.0; chunk_rows(vocabulary).min(rows) * vocabulary];
        let mut losses = vec![0.0; rows];
        let mut d_x = vec![0.0; if gradients { rows * hidden } else { 0 }];
        for range in chunks(rows, vocabulary) {
            let logits = &mut logits[..range.len() * vocabulary];
            multiply_weight(
                logits,
                &flex::slice(&x)[range.start * hidden..range.end * hidden],
                &weight,
                false,
            );
            let (targets, losses) = (&targets[range.clone()], &mut losses[range.clone()]);
            flex::for_each_part_pair(logits, losses, [vocabulary, 1], |row, logits, loss| {
                logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
                loss[0] = match self.soft_cap {
                    Some(cap) => differentiate_capped(logits, targets[row], gradients, cap as f32),
                    None => differentiate(logits, targets[row], gradients),
                };
            });
            if gradients {
                let d_x = &mut d_x[range.start * hidden..range.end * hidden];
                multiply_weight_transposed(d_x, logits, &weight, false);
            }
        }
        let d_x = gradients.then(|| flex::tensor(d_x, [rows, hidden]));
        (flex::tensor(losses, [rows]), d_x)
    }
}
