//! A frozen linear map and LoRA's addition to it as one operation.
//!
//! y = x W + (x ⊙ m) A B · s, with the dropout mask m (1 without dropout). With the gradient g of y
//! and u = s · g Bᵀ: dx = g Wᵀ + (u Aᵀ) ⊙ m, dA = (x ⊙ m)ᵀ u, dB = ((x ⊙ m) A · s)ᵀ g.
//!
//! An adapter that is measured from where it started (PiSSA, OLoRA) has a constant A₀ and -B₀
//! besides, whose product is added in the same way: x̃ A₀ (-B₀) · s to y and s · g (-B₀)ᵀ A₀ᵀ to
//! dx.
//!
//! Kept are the handles of W, A and B; where B trains also the r numbers a token of (x ⊙ m) A · s,
//! and where A does x. The mask is drawn again from its seed. dW does not exist: a weight that
//! trains is no operand of this operation.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, Recorded, apply};

use crate::frozen::dropout::{DropoutMask, masked};
use crate::frozen::matrix::{FrozenMatrix, Stored, cast_like, like, no_value, rows};

/// The factors of a low-rank matrix A B.
#[derive(Clone, Debug)]
pub(crate) struct Factors {
    /// A, `[in, r]`.
    pub(crate) a: Tensor<2>,
    /// B, `[r, out]`.
    pub(crate) b: Tensor<2>,
}

/// The numbers of the operation.
#[derive(Clone, Debug)]
pub(crate) struct LoraLinear {
    /// s.
    pub scale: f64,
    /// The probability and the seed of the mask; `None` switches it off.
    pub mask: Option<DropoutMask>,
    /// Whether y is asked for; zeros with its graph else.
    pub value: bool,
}

impl LoraLinear {
    /// y for x `[batch, sequence, in]`, W `[in, out]` in its storage type, A `[in, r]` and B
    /// `[r, out]`; `start` is A₀ `[in, r]` and -B₀ `[r, out]`, both constant.
    pub(crate) fn apply(
        self,
        x: Tensor<3>,
        weight: impl Into<FrozenMatrix>,
        factors: Factors,
        start: Option<Factors>,
    ) -> Tensor<3> {
        let (weight, values) = weight.into().operands();
        let pairs = [factors].into_iter().chain(start);
        let pairs = pairs.flat_map(|pair| [pair.a.into_dispatch(), pair.b.into_dispatch()]);
        apply(self, [x.into_dispatch(), weight].into_iter().chain(pairs), values)
    }

    /// The result and (x ⊙ m) A · s.
    fn compute<B: Backend>(&self, inputs: Operands<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let LoraInputs { x, weight, a, b, start } = LoraInputs::<B>::from(inputs);
        let input = rows::<B>(masked::<B>(x.clone(), self.mask));
        let shape = x.shape();
        let down = |a| {
            let low = B::float_matmul(input.clone(), cast_like::<B>(a, &x));
            B::float_mul_scalar(low, self.scale.into())
        };
        let up = |low, b| B::float_matmul(low, cast_like::<B>(b, &x));
        let low = down(a);
        // Nobody reads y, but B's gradient reads the low-rank product.
        if !self.value {
            return (no_value::<B>(&x, weight.dims()[1]), low);
        }
        let mut added = up(low.clone(), b);
        if let Some([a, b]) = start {
            added = B::float_add(added, up(down(a), b));
        }
        (B::float_add(weight.product(x.clone()), like::<B>(added, &shape)), low)
    }
}

/// What the backward pass needs of the inputs and of (x ⊙ m) A · s.
fn saved<B: Backend>(inputs: Operands<B>, low: FloatTensor<B>, wanted: &[bool]) -> Operands<B> {
    let LoraInputs { x, weight, a, b, start } = LoraInputs::<B>::from(inputs);
    let trained = wanted[2].then_some(x).into_iter().chain(wanted[3].then_some(low));
    weight.operands([a, b].into_iter().chain(start.into_iter().flatten()).chain(trained))
}

/// The operands by name.
struct LoraInputs<B: Backend> {
    x: FloatTensor<B>,
    weight: Stored<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    /// A₀ and -B₀.
    start: Option<[FloatTensor<B>; 2]>,
}

impl<B: Backend> From<Operands<B>> for LoraInputs<B> {
    fn from(inputs: Operands<B>) -> Self {
        let mut floats = inputs.floats.into_iter();
        let mut next = || floats.next().expect("x, the weight, A and B are always given");
        let x = next();
        let weight = Stored::of(next(), &inputs.ints);
        let a = next();
        let b = next();
        Self { x, weight, a, b, start: floats.next().zip(floats.next()).map(|(a, b)| [a, b]) }
    }
}

/// The same by name.
struct LoraSaved<B: Backend> {
    weight: Stored<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    /// A₀ and -B₀.
    start: Option<[FloatTensor<B>; 2]>,
    /// x, where A trains.
    x: Option<FloatTensor<B>>,
    /// (x ⊙ m) A · s, where B trains.
    low: Option<FloatTensor<B>>,
}

impl<B: Backend> LoraSaved<B> {
    fn new(saved: Operands<B>, wanted: &[bool]) -> Self {
        let mut floats = saved.floats.into_iter();
        let mut next = || floats.next().expect("the weight, A and B are always kept");
        let weight = Stored::of(next(), &saved.ints);
        let a = next();
        let b = next();
        // Of the forward pass's operands all behind the first four.
        let start = (wanted.len() > 4).then(|| [next(), next()]);
        let x = wanted[2].then(&mut next);
        Self { weight, a, b, start, x, low: wanted[3].then(next) }
    }
}

impl Operation for LoraLinear {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(inputs).0
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        wanted: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        let (output, low) = self.compute::<B>(inputs.clone());
        Ok((output, saved(inputs, low, wanted)))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let LoraSaved { weight, a, b, start, x, low } = LoraSaved::<B>::new(saved, wanted);
        let flat = rows::<B>(gradient.clone());
        let up = |b| {
            let up =
                B::float_matmul(flat.clone(), B::float_transpose(cast_like::<B>(b, &gradient)));
            B::float_mul_scalar(up, self.scale.into())
        };
        let back = |up, a| B::float_matmul(up, B::float_transpose(cast_like::<B>(a, &gradient)));
        // u = s · g Bᵀ serves dA and dx both, so the wide gradient is read once for it.
        let own = up(b.clone());
        let d_a = x.map(|x| {
            // The mask is drawn again from its seed instead of being kept beside x.
            let input = rows::<B>(masked::<B>(x, self.mask));
            cast_like::<B>(B::float_matmul(B::float_transpose(input), own.clone()), &a)
        });
        let d_b = low
            .map(|low| cast_like::<B>(B::float_matmul(B::float_transpose(low), flat.clone()), &b));
        let d_x = wanted[0].then(|| {
            let mut through = back(own, a);
            if let Some([a, b]) = start {
                through = B::float_add(through, back(up(b), a));
            }
            // The mask belongs to the branch alone: g Wᵀ reaches x through the base, unmasked.
            let through = masked::<B>(like::<B>(through, &gradient.shape()), self.mask);
            B::float_add(weight.transposed_product(gradient.clone()), through)
        });
        // A₀ and B₀ are constant.
        [d_x, None, d_a, d_b].into_iter().chain(wanted[4..].iter().map(|_| None)).collect()
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if fast(&inputs) { self.compute_flex(&inputs).0 } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        if !fast(&inputs) {
            return self.record(inputs, wanted);
        }
        let (output, low) = self.compute_flex(&inputs);
        Ok((output, saved(inputs, low, wanted)))
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let weight = Stored::of(saved.floats[0].clone(), &saved.ints);
        if fits(&gradient, &weight) && flex::all_f32(&saved.floats[1..]) {
            self.backward_in_place(saved, gradient, wanted)
        } else {
            self.backward(saved, gradient, wanted)
        }
    }
}

#[cfg(feature = "flex")]
use crate::frozen::product::{
    fits, multiply_weight, multiply_weight_transposed, outer, with_width,
};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

#[cfg(feature = "flex")]
fn fast(inputs: &Operands<Flex>) -> bool {
    let weight = Stored::of(inputs.floats[1].clone(), &inputs.ints);
    fits(&inputs.floats[0], &weight) && flex::all_f32(&inputs.floats[2..])
}

/// Every product adds into the result it belongs to.
#[cfg(feature = "flex")]
impl LoraLinear {
    fn compute_flex(&self, inputs: &Operands<Flex>) -> (FlexTensor, FlexTensor) {
        let LoraInputs { x, weight, a, b, start } = LoraInputs::<Flex>::from(inputs.clone());
        let x = flex::contiguous(x);
        let [d_in, d_out] = weight.dims();
        let n = x.shape().num_elements() / d_in;
        let input = flex::contiguous(masked::<Flex>(x.clone(), self.mask));
        let rows = Matrix::new(flex::slice(&input), n, d_in, d_in);
        let mut out = vec![0.0; n * d_out];
        if self.value {
            multiply_weight(&mut out, flex::slice(&x), &weight, false);
        }
        // The scale goes onto the narrow product, and the wide one adds into y where it lies.
        let mut added = |a: FlexTensor, b: FlexTensor| {
            let rank = a.shape()[1];
            let [a, b] = [a, b].map(flex::contiguous);
            let mut low = vec![0.0; n * rank];
            let down = Matrix::new(flex::slice(&a), d_in, rank, rank);
            multiply(
                MatrixMut::new(&mut low, n, rank, rank),
                rows,
                down,
                self.scale as f32,
                false,
                true,
            );
            // Without a value the wide product, which is the dear one, is left out.
            if !self.value {
                return flex::tensor(low, [n, rank]);
            }
            let up = Matrix::new(flex::slice(&b), rank, d_out, d_out);
            multiply(
                MatrixMut::new(&mut out, n, d_out, d_out),
                Matrix::new(&low, n, rank, rank),
                up,
                1.0,
                true,
                true,
            );
            flex::tensor(low, [n, rank])
        };
        let low = added(a, b);
        if let Some([a, b]) = start.filter(|_| self.value) {
            added(a, b);
        }
        (with_width(out, &x, d_out), low)
    }

    fn backward_in_place(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let LoraSaved { weight, a, b, start, x, low } = LoraSaved::<Flex>::new(saved, wanted);
        let gradient = flex::contiguous(gradient);
        let [d_in, d_out] = weight.dims();
        let n = gradient.shape().num_elements() / d_out;
        let g = Matrix::new(flex::slice(&gradient), n, d_out, d_out);
        let up = |b: FlexTensor| {
            let rank = b.shape()[0];
            let b = flex::contiguous(b);
            let mut up = vec![0.0; n * rank];
            let b = Matrix::new(flex::slice(&b), rank, d_out, d_out).transposed();
            multiply(MatrixMut::new(&mut up, n, rank, rank), g, b, self.scale as f32, false, true);
            (up, rank)
        };
        let (own, rank) = up(b);
        let d_a = x.map(|x| {
            let input = flex::contiguous(masked::<Flex>(x, self.mask));
            outer(
                Matrix::new(flex::slice(&input), n, d_in, d_in),
                Matrix::new(&own, n, rank, rank),
                [d_in, rank],
            )
        });
        let d_b =
            low.map(|low| outer(Matrix::new(flex::slice(&low), n, rank, rank), g, [rank, d_out]));
        let d_x = wanted[0].then(|| {
            let mut d_x = vec![0.0; n * d_in];
            let mut back = |(up, rank): &(Vec<f32>, usize), a: FlexTensor, accumulate: bool| {
                let rank = *rank;
                let a = flex::contiguous(a);
                let down = Matrix::new(flex::slice(&a), d_in, rank, rank).transposed();
                let out = MatrixMut::new(&mut d_x, n, d_in, d_in);
                multiply(out, Matrix::new(up, n, rank, rank), down, 1.0, accumulate, true);
            };
            // The first product fills d_x, the start's adds to it.
            back(&(own, rank), a, false);
            if let Some([a, b]) = start {
                back(&up(b), a, true);
            }
            let mut d_x =
                flex::into_vec(masked::<Flex>(with_width(d_x, &gradient, d_in), self.mask));
            // Last, because the mask must not reach g Wᵀ.
            multiply_weight_transposed(&mut d_x, flex::slice(&gradient), &weight, true);
            with_width(d_x, &gradient, d_in)
        });
        // A₀ and B₀ are constant.
        [d_x, None, d_a, d_b].into_iter().chain(wanted[4..].iter().map(|_| None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::dropout::dropout;
    use crate::frozen::testing::{distance, ndarray, random, stored, widened};
    use burn::tensor::{DType, Device, TensorData};

    const SIZES: [usize; 4] = [9, 37, 21, 3]; // tokens, in, out, rank
    const SCALE: f64 = 1.75;

    fn operation(mask: Option<DropoutMask>) -> LoraLinear {
        LoraLinear { scale: SCALE, mask, value: true }
    }

    /// Value and gradients of x, A and B, under the operation or its formula; `tracked` says which
    /// of x, A, B are.
    fn run(
        own: bool,
        tracked: [bool; 3],
        masked: Option<DropoutMask>,
        [device, weight]: [(&Device, DType); 2],
    ) -> Vec<Vec<f64>> {
        let (device, dtype) = device;
        let [tokens, d_in, d_out, rank] = SIZES;
        let leaf = |tensor: Tensor<2>, tracked| {
            if tracked { tensor.autodiff().require_grad() } else { tensor }
        };
        let x = leaf(random("x", [tokens, d_in], device, dtype), tracked[0]);
        let a = leaf(random("a", [d_in, rank], device, dtype), tracked[1]);
        let b = leaf(random("b", [rank, d_out], device, dtype), tracked[2]);
        let weight = stored(random("w", [d_out, d_in], device, DType::F32), weight.1);
        let wide = widened(&weight, dtype);
        let input: Tensor<3> = x.clone().unsqueeze();
        let y = if own {
            operation(masked).apply(input, weight, Factors { a: a.clone(), b: b.clone() }, None)
        } else {
            let probability = masked.map_or(0.0, |mask| mask.probability);
            let seed = masked.map(|mask| mask.seed);
            let low =
                dropout(input.clone(), probability, seed).squeeze_dim::<2>(0).matmul(a.clone());
            (x.clone().matmul(wide) + low.matmul(b.clone()).mul_scalar(SCALE)).unsqueeze()
        };
        let mut graph =
            (y.clone() * random("g", [1, tokens, d_out], device, dtype)).sum().backward();
        let floats = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
        let mut found = vec![floats(y.inner().into_data())];
        found.extend(
            [x, a, b]
                .iter()
                .filter_map(|leaf| leaf.grad_remove(&mut graph))
                .map(|g| floats(g.into_data())),
        );
        found
    }

    #[test]
    fn the_operation_has_the_value_and_the_gradients_of_its_formula() {
        let reference = ndarray();
        let flex = Device::flex();
        let all_tracked =
            [[true; 3], [true, false, false], [false, true, true], [false, false, true]];
        for tracked in all_tracked {
            for masked in [None, Some(DropoutMask { probability: 0.4, seed: 11 })] {
                let exact = [(&reference, DType::F64); 2];
                let expected = run(false, tracked, masked, exact);
                assert!(
                    distance(&run(true, tracked, masked, exact), &expected) < 1e-13,
                    "{tracked:?} {masked:?}"
                );
                let single = run(true, tracked, masked, [(&flex, DType::F32); 2]);
                assert!(distance(&single, &expected) < 2e-6, "{tracked:?} {masked:?}");
            }
        }
    }

    #[test]
    fn a_start_is_a_constant_part_of_a_larger_rank() {
        let [tokens, d_in, d_out, rank] = SIZES;
        for (device, dtype, tolerance) in
            [(ndarray(), DType::F64, 1e-13), (Device::flex(), DType::F32, 2e-6)]
        {
            for masked in [None, Some(DropoutMask { probability: 0.4, seed: 11 })] {
                let run = |joined: bool| {
                    let tensor =
                        |name: &str, shape: [usize; 2]| random(name, shape, &device, dtype);
                    let leaf = |name: &str, shape| tensor(name, shape).autodiff().require_grad();
                    let x = leaf("x", [tokens, d_in]);
                    let a = leaf("a", [d_in, rank]);
                    let b = leaf("b", [rank, d_out]);
                    let start_a = tensor("a0", [d_in, rank]);
                    let start_b = tensor("b0", [rank, d_out]);
                    let weight = stored(random("w", [d_out, d_in], &device, DType::F32), dtype);
                    let input: Tensor<3> = x.clone().unsqueeze();
                    let y = if joined {
                        let a = Tensor::cat(vec![a.clone(), start_a], 1);
                        let b = Tensor::cat(vec![b.clone(), start_b], 0);
                        operation(masked).apply(input, weight, Factors { a, b }, None)
                    } else {
                        let start = Some(Factors { a: start_a, b: start_b });
                        let factors = Factors { a: a.clone(), b: b.clone() };
                        operation(masked).apply(input, weight, factors, start)
                    };
                    let mut graph = (y.clone() * random("g", [1, tokens, d_out], &device, dtype))
                        .sum()
                        .backward();
                    let floats = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
                    let gradients = [x, a, b]
                        .map(|leaf| floats(leaf.grad_remove(&mut graph).unwrap().into_data()));
                    [vec![floats(y.inner().into_data())], gradients.to_vec()].concat()
                };
                assert!(distance(&run(false), &run(true)) < tolerance, "{dtype:?} {masked:?}");
            }
        }
    }

    #[test]
    fn a_narrow_weight_is_the_weight_widened() {
        let reference = ndarray();
        let flex = Device::flex();
        for storage in [DType::BF16, DType::I8] {
            let narrow = [(&flex, DType::F32), (&flex, storage)];
            let expected = run(false, [true; 3], None, narrow);
            assert!(distance(&run(true, [true; 3], None, narrow), &expected) < 2e-6, "{storage:?}");
        }
        let eight_bits = [(&reference, DType::F64), (&reference, DType::I8)];
        let expected = run(false, [true; 3], None, eight_bits);
        assert!(distance(&run(true, [true; 3], None, eight_bits), &expected) < 1e-13);
    }
}
