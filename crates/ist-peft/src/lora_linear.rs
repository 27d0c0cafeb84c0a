//! A frozen linear map and LoRA's addition to it as one operation.
//!
//! y = x W + (x ⊙ m) A B · s, with the dropout mask m (1 without dropout). With the gradient g of y and u = s · g Bᵀ:
//! dx = g Wᵀ + (u Aᵀ) ⊙ m, dA = (x ⊙ m)ᵀ u, dB = ((x ⊙ m) A · s)ᵀ g.
//!
//! Kept are the handles of W, A and B; where A or B trains also x and the r numbers a token of (x ⊙ m) A · s. The mask is
//! drawn again from its seed.
//! dW does not exist: a weight that trains is no operand of this operation.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Tensor, TensorData};
use ist_core::operation::{Operands, Operation, apply};

use crate::dropout::mask;
use crate::linear::{cast_like, like, product, rows, transposed_product};

/// x W + s · dropout(x) A B for x `[batch, sequence, in]`, W `[in, out]` in any float type, A `[in, r]`, B `[r, out]`.
///
/// `dropout` is the probability and the seed of the mask; `None` switches it off.
pub(crate) fn lora_linear(
    x: Tensor<3>,
    weight: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
    dropout: Option<(f64, u64)>,
) -> Tensor<3> {
    let operands = [x.into_dispatch(), weight.into_dispatch(), a.into_dispatch(), b.into_dispatch()];
    apply(LoraLinear { scale, dropout }, operands, [])
}

#[derive(Clone, Debug)]
struct LoraLinear {
    scale: f64,
    dropout: Option<(f64, u64)>,
}

impl LoraLinear {
    /// x ⊙ m.
    fn masked<B: Backend>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let Some((probability, seed)) = self.dropout else { return x };
        let mask = TensorData::new(mask(x.shape().num_elements(), probability, seed), x.shape());
        let mask = B::float_from_data(mask, &x.device());
        B::float_mul(cast_like::<B>(mask, &x), x)
    }

    /// The result and (x ⊙ m) A · s.
    fn compute<B: Backend>(&self, inputs: Operands<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let [x, weight, a, b] = inputs.floats();
        let input = rows::<B>(self.masked::<B>(x.clone()));
        let low = B::float_mul_scalar(B::float_matmul(input, cast_like::<B>(a, &x)), self.scale.into());
        let shape = x.shape();
        let added = B::float_matmul(low.clone(), cast_like::<B>(b, &x));
        (B::float_add(product::<B>(x, weight), like::<B>(added, &shape)), low)
    }
}

/// What the backward pass needs of the inputs and of (x ⊙ m) A · s.
fn saved<B: Backend>(inputs: Operands<B>, low: FloatTensor<B>, wanted: &[bool]) -> Operands<B> {
    let [x, weight, a, b] = inputs.floats();
    let mut floats = vec![weight, a, b];
    if wanted[2] || wanted[3] {
        floats.extend([x, low]);
    }
    Operands::new(floats, Vec::new())
}

/// The same by name.
struct Saved<B: Backend> {
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    /// x and (x ⊙ m) A · s.
    trained: Option<[FloatTensor<B>; 2]>,
}

impl<B: Backend> From<Operands<B>> for Saved<B> {
    fn from(saved: Operands<B>) -> Self {
        let mut floats = saved.floats.into_iter();
        let mut next = || floats.next().expect("the weight, A and B are always kept");
        let (weight, a, b) = (next(), next(), next());
        Self { weight, a, b, trained: floats.next().zip(floats.next()).map(|(x, low)| [x, low]) }
    }
}

impl Operation for LoraLinear {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(inputs).0
    }

    fn record<B: Backend>(&self, inputs: Operands<B>, wanted: &[bool]) -> (FloatTensor<B>, Operands<B>) {
        let (output, low) = self.compute::<B>(inputs.clone());
        (output, saved(inputs, low, wanted))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let Saved { weight, a, b, trained } = Saved::<B>::from(saved);
        let flat = rows::<B>(gradient.clone());
        let up = B::float_matmul(flat.clone(), B::float_transpose(cast_like::<B>(b.clone(), &gradient)));
        let up = B::float_mul_scalar(up, self.scale.into());
        let (d_a, d_b) = trained.map_or((None, None), |[x, low]| {
            let input = rows::<B>(self.masked::<B>(x));
            let d_a = B::float_matmul(B::float_transpose(input), up.clone());
            let d_b = B::float_matmul(B::float_transpose(low), flat);
            (Some(cast_like::<B>(d_a, &a)), Some(cast_like::<B>(d_b, &b)))
        });
        let d_x = wanted[0].then(|| {
            let through = B::float_matmul(up, B::float_transpose(cast_like::<B>(a, &gradient)));
            let through = self.masked::<B>(like::<B>(through, &gradient.shape()));
            B::float_add(transposed_product::<B>(gradient, weight), through)
        });
        vec![d_x, None, d_a, d_b]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if fast(&inputs.floats) { self.compute_flex(&inputs.floats).0 } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn record_flex(&self, inputs: Operands<Flex>, wanted: &[bool]) -> (FlexTensor, Operands<Flex>) {
        if !fast(&inputs.floats) {
            return self.record(inputs, wanted);
        }
        let (output, low) = self.compute_flex(&inputs.floats);
        (output, saved(inputs, low, wanted))
    }

    #[cfg(feature = "flex")]
    fn backward_flex(&self, saved: Operands<Flex>, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        if readable(&saved.floats[0]) && flex::all_f32(saved.floats[1..].iter().chain([&gradient])) {
            self.backward_in_place(saved, gradient, wanted)
        } else {
            self.backward(saved, gradient, wanted)
        }
    }
}

#[cfg(feature = "flex")]
use crate::frozen_product::{multiply_weight, multiply_weight_transposed, readable};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

#[cfg(feature = "flex")]
fn fast(floats: &[FlexTensor]) -> bool {
    crate::linear::fits(&floats[0], &floats[1]) && flex::all_f32(&floats[2..])
}

/// Every product adds into the result it belongs to.
#[cfg(feature = "flex")]
impl LoraLinear {
    fn compute_flex(&self, floats: &[FlexTensor]) -> (FlexTensor, FlexTensor) {
        let [x, a, b] = [0, 2, 3].map(|at| flex::contiguous(floats[at].clone()));
        let ([d_in, rank], d_out) = (a.shape().dims::<2>(), b.shape()[1]);
        let n = x.shape().num_elements() / d_in;
        let input = flex::contiguous(self.masked::<Flex>(x.clone()));
        let mut low = vec![0.0; n * rank];
        let (input, down) = (Matrix::new(flex::slice(&input), n, d_in, d_in), Matrix::new(flex::slice(&a), d_in, rank, rank));
        multiply(MatrixMut::new(&mut low, n, rank, rank), input, down, self.scale as f32, false, true);
        let mut out = vec![0.0; n * d_out];
        multiply_weight(&mut out, flex::slice(&x), &floats[1], false);
        let up = Matrix::new(flex::slice(&b), rank, d_out, d_out);
        multiply(MatrixMut::new(&mut out, n, d_out, d_out), Matrix::new(&low, n, rank, rank), up, 1.0, true, true);
        let mut shape = x.shape().to_vec();
        *shape.last_mut().expect("x has a last dimension") = d_out;
        (flex::tensor(out, shape), flex::tensor(low, [n, rank]))
    }

    fn backward_in_place(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let Saved { weight, a, b, trained } = Saved::<Flex>::from(saved);
        let [a, b, gradient] = [a, b, gradient].map(flex::contiguous);
        let ([d_in, rank], d_out) = (a.shape().dims::<2>(), b.shape()[1]);
        let n = gradient.shape().num_elements() / d_out;
        let g = Matrix::new(flex::slice(&gradient), n, d_out, d_out);
        let mut up = vec![0.0; n * rank];
        let b = Matrix::new(flex::slice(&b), rank, d_out, d_out);
        multiply(MatrixMut::new(&mut up, n, rank, rank), g, b.transposed(), self.scale as f32, false, true);
        let up = Matrix::new(&up, n, rank, rank);
        let (d_a, d_b) = trained.map_or((None, None), |[x, low]| {
            let input = flex::contiguous(self.masked::<Flex>(x));
            let d_a = outer(Matrix::new(flex::slice(&input), n, d_in, d_in), up, [d_in, rank]);
            (Some(d_a), Some(outer(Matrix::new(flex::slice(&low), n, rank, rank), g, [rank, d_out])))
        });
        let d_x = wanted[0].then(|| {
            let mut d_x = vec![0.0; n * d_in];
            let down = Matrix::new(flex::slice(&a), d_in, rank, rank).transposed();
            multiply(MatrixMut::new(&mut d_x, n, d_in, d_in), up, down, 1.0, false, true);
            let mut shape = gradient.shape().to_vec();
            *shape.last_mut().expect("the gradient has a last dimension") = d_in;
            let d_x = self.masked::<Flex>(flex::tensor(d_x, shape.clone()));
            let mut d_x = flex::into_vec(d_x);
            multiply_weight_transposed(&mut d_x, flex::slice(&gradient), &weight, true);
            flex::tensor(d_x, shape)
        });
        vec![d_x, None, d_a, d_b]
    }
}

/// aᵀ b.
#[cfg(feature = "flex")]
fn outer(a: Matrix, b: Matrix, shape: [usize; 2]) -> FlexTensor {
    let mut out = vec![0.0; shape[0] * shape[1]];
    multiply(MatrixMut::new(&mut out, shape[0], shape[1], shape[1]), a.transposed(), b, 1.0, false, true);
    flex::tensor(out, shape)
}
