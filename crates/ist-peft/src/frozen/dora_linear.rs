//! DoRA on a frozen linear map as one operation.
//!
//! y = k ⊙ v with v = x W + s · x A B, k = m / n and n_c = ‖W_c + s A B_c‖, which is a constant in
//! the backward pass (arXiv 2402.09353, section 4.3). With dropout's mask d, and x̃ = x ⊙ d, as in
//! PEFT: y = x W + k ⊙ v - x̃ W, where v = x̃ W + s · x̃ A B; so what is added sees x̃ and the base
//! keeps x, for two products with W instead of one.
//!
//! With the gradient g of y, h = k ⊙ g and u = s · h Bᵀ: dA = x̃ᵀ u, dB = (s · x̃ A)ᵀ h, dm = Σ g ⊙
//! v / n, and dx = h Wᵀ + u Aᵀ, or g Wᵀ + d ⊙ (h Wᵀ - g Wᵀ + u Aᵀ).
//!
//! Kept are the handles of W, A and B, and k; where the adapter trains also m, x, the r numbers a
//! token of s · x̃ A, and for dm the result itself, as v / n = y / m: attention and gated units
//! keep it anyway. With dropout v is kept instead.
//!
//! A column of zeros has n = 0; its k is finite here, and what it adds is 0. PEFT divides by 0
//! there. A magnitude of exactly 0 counts as [`TINY`], so that v / n can be told from y.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};
use ist_core::operation::{Operands, Operation, Recorded, apply};

use crate::frozen::dora_norm::norms;
use crate::frozen::dropout::{DropoutMask, masked};
use crate::frozen::lora_linear::Factors;
use crate::frozen::matrix::{FrozenMatrix, Stored, cast_like, like, rows};

/// What a magnitude of 0 counts as.
const TINY: f64 = 1e-20;
/// What a norm of 0 counts as.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// k = m / n of magnitudes and norms, with the operation's care for zeros.
pub(crate) fn gains(magnitude: Tensor<1>, norms: Tensor<1>) -> Tensor<1> {
    magnitude / norms.clamp_min(SMALLEST)
}

/// The numbers of the operation.
#[derive(Clone, Debug)]
pub(crate) struct DoraLinear {
    /// s.
    pub(crate) scale: f64,
    /// The mask of the input of all that is added.
    pub(crate) mask: Option<DropoutMask>,
}

impl DoraLinear {
    /// y without the bias.
    ///
    /// # Shapes
    /// - x `[batch, sequence, in]`
    /// - W `[in, out]` in its storage type
    /// - A `[in, r]`, B `[r, out]`, magnitudes m `[out]`
    pub(crate) fn apply(
        self,
        x: Tensor<3>,
        weight: FrozenMatrix,
        factors: Factors,
        magnitude: Tensor<1>,
    ) -> Tensor<3> {
        let (weight, values) = weight.operands();
        let floats = [
            x.into_dispatch(),
            weight,
            factors.a.into_dispatch(),
            factors.b.into_dispatch(),
            magnitude.into_dispatch(),
        ];
        apply(self, floats, values)
    }
}

/// A forward pass.
struct DoraComputed<B: Backend> {
    /// y.
    output: FloatTensor<B>,
    /// k, in A's type.
    gain: FloatTensor<B>,
    /// s · x̃ A.
    low: FloatTensor<B>,
    /// v, with dropout alone.
    before: Option<FloatTensor<B>>,
}

impl<B: Backend> DoraComputed<B> {
    /// The result, and what the backward pass needs.
    fn record(self, inputs: Operands<B>, wanted: &[bool]) -> Recorded<B> {
        let ints = inputs.ints.clone();
        let [x, weight, a, b, magnitude] = inputs.floats();
        let kept = self.before.unwrap_or_else(|| self.output.clone());
        let trained = wanted[2..].contains(&true).then_some([magnitude, x, self.low, kept]);
        let kept = [a, b, self.gain].into_iter().chain(trained.into_iter().flatten());
        (self.output, Stored::of(weight, &ints).operands(kept))
    }
}

/// What the backward pass gets, by name.
struct DoraSaved<B: Backend> {
    weight: Stored<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    gain: FloatTensor<B>,
    trained: Option<DoraTrained<B>>,
}

struct DoraTrained<B: Backend> {
    magnitude: FloatTensor<B>,
    x: FloatTensor<B>,
    low: FloatTensor<B>,
    /// y, or v with dropout.
    kept: FloatTensor<B>,
}

impl<B: Backend> From<Operands<B>> for DoraSaved<B> {
    fn from(saved: Operands<B>) -> Self {
        let mut floats = saved.floats.into_iter();
        let mut next = || floats.next().expect("the weight, A, B and k are always kept");
        let weight = Stored::of(next(), &saved.ints);
        let a = next();
        let b = next();
        let gain = next();
        let rest: Vec<_> = floats.collect();
        let trained = <[_; 4]>::try_from(rest).ok();
        Self {
            weight,
            a,
            b,
            gain,
            trained: trained.map(|[magnitude, x, low, kept]| DoraTrained {
                magnitude,
                x,
                low,
                kept,
            }),
        }
    }
}

/// m, or [`TINY`] where it is 0.
fn not_zero<B: Backend>(magnitude: FloatTensor<B>) -> FloatTensor<B> {
    let size = B::float_clamp_min(B::float_abs(magnitude.clone()), TINY.into());
    // The sign is ±1, and 0 where m is 0 alone. So 1 - sign² picks out the zeros without a mask.
    let sign = B::float_div(magnitude.clone(), size);
    let zero = B::float_add_scalar(B::float_neg(B::float_mul(sign.clone(), sign)), 1.0f64.into());
    B::float_add(magnitude, B::float_mul_scalar(zero, TINY.into()))
}

/// A vector `[out]` as a row in x's type.
fn row<B: Backend>(vector: FloatTensor<B>, x: &FloatTensor<B>) -> FloatTensor<B> {
    let width = vector.shape().num_elements();
    B::float_reshape(cast_like::<B>(vector, x), Shape::new([1, width]))
}

impl DoraLinear {
    fn compute<B: Backend>(&self, inputs: Operands<B>) -> DoraComputed<B> {
        let ints = inputs.ints.clone();
        let [x, weight, a, b, magnitude] = inputs.floats();
        let weight = Stored::<B>::of(weight, &ints);
        let norms = B::float_clamp_min(norms::<B>(&weight, &a, &b, self.scale), SMALLEST.into());
        let gain = B::float_div(not_zero::<B>(cast_like::<B>(magnitude, &a)), norms);
        // All that is added sees the masked input, also the rescaling of x W.
        let input = masked::<B>(x.clone(), self.mask);
        let low = B::float_matmul(rows::<B>(input.clone()), cast_like::<B>(a, &x));
        let low = B::float_mul_scalar(low, self.scale.into());
        let plain = rows::<B>(weight.product(input));
        let before =
            B::float_add(plain.clone(), B::float_matmul(low.clone(), cast_like::<B>(b, &x)));
        let mut output = B::float_mul(before.clone(), row::<B>(gain.clone(), &x));
        if self.mask.is_some() {
            output =
                B::float_add(output, B::float_sub(rows::<B>(weight.product(x.clone())), plain));
        }
        let before = self.mask.map(|_| before);
        DoraComputed { output: like::<B>(output, &x.shape()), gain, low, before }
    }

    /// dm from the gradient and what was kept, both `[n, out]`.
    fn magnitude_gradient<B: Backend>(
        &self,
        gradient: FloatTensor<B>,
        trained: &DoraTrained<B>,
        gain: &FloatTensor<B>,
    ) -> FloatTensor<B> {
        let sum = B::float_sum_dim(B::float_mul(gradient, rows::<B>(trained.kept.clone())), 0);
        let sum = B::float_reshape(cast_like::<B>(sum, gain), gain.shape());
        // Without dropout the result y = k ⊙ v was kept, and v / n = y / m. With it v was kept, so
        // k is still missing: v / n = v ⊙ k / m.
        let sum = if self.mask.is_some() { B::float_mul(sum, gain.clone()) } else { sum };
        let d_magnitude =
            B::float_div(sum, not_zero::<B>(cast_like::<B>(trained.magnitude.clone(), gain)));
        cast_like::<B>(d_magnitude, &trained.magnitude)
    }
}

impl Operation for DoraLinear {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        self.compute::<B>(inputs).output
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        wanted: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        Ok(self.compute::<B>(inputs.clone()).record(inputs, wanted))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let DoraSaved { weight, a, b, gain, trained } = DoraSaved::<B>::from(saved);
        let flat = rows::<B>(gradient.clone());
        let scaled = B::float_mul(flat.clone(), row::<B>(gain.clone(), &gradient));
        let up = B::float_matmul(
            scaled.clone(),
            B::float_transpose(cast_like::<B>(b.clone(), &gradient)),
        );
        let up = B::float_mul_scalar(up, self.scale.into());
        let d_m = trained.as_ref().map(|trained| self.magnitude_gradient(flat, trained, &gain));
        let (d_a, d_b) = trained.map_or((None, None), |DoraTrained { x, low, .. }| {
            let input = rows::<B>(masked::<B>(x, self.mask));
            let d_a = B::float_matmul(B::float_transpose(input), up.clone());
            let d_b = B::float_matmul(B::float_transpose(low), scaled.clone());
            (Some(cast_like::<B>(d_a, &a)), Some(cast_like::<B>(d_b, &b)))
        });
        let d_x = wanted[0].then(|| {
            let through = B::float_matmul(up, B::float_transpose(cast_like::<B>(a, &gradient)));
            let scaled = weight.transposed_product(like::<B>(scaled, &gradient.shape()));
            let added = B::float_add(scaled, like::<B>(through, &gradient.shape()));
            if self.mask.is_none() {
                return added;
            }
            // dx = g Wᵀ + d ⊙ (h Wᵀ + u Aᵀ - g Wᵀ): the mask falls on the difference.
            let base = weight.transposed_product(gradient);
            B::float_add(base.clone(), masked::<B>(B::float_sub(added, base), self.mask))
        });
        vec![d_x, None, d_a, d_b, d_m]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if fast(&inputs) { self.compute_flex(&inputs).output } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        if fast(&inputs) {
            Ok(self.compute_flex(&inputs).record(inputs, wanted))
        } else {
            self.record(inputs, wanted)
        }
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
            self.backward_in_place(saved.into(), gradient, wanted)
        } else {
            self.backward(saved, gradient, wanted)
        }
    }
}

#[cfg(feature = "flex")]
use crate::frozen::dora_norm::norms_flex;
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

#[cfg(feature = "flex")]
fn not_zero_flex(magnitude: f32) -> f32 {
    if magnitude == 0.0 { TINY as f32 } else { magnitude }
}

/// Every product adds into the result it belongs to, and gradients are scaled where they lie.
#[cfg(feature = "flex")]
impl DoraLinear {
    fn compute_flex(&self, inputs: &Operands<Flex>) -> DoraComputed<Flex> {
        let [x, a, b, magnitude] =
            [0, 2, 3, 4].map(|at| flex::contiguous(inputs.floats[at].clone()));
        let weight = Stored::of(inputs.floats[1].clone(), &inputs.ints);
        let [d_in, rank] = a.shape().dims::<2>();
        let d_out = b.shape()[1];
        let n = x.shape().num_elements() / d_in;
        let norms = norms_flex(&weight, &a, &b, self.scale as f32);
        let gain = flex::slice(&magnitude).iter().zip(norms);
        let gain: Vec<f32> =
            gain.map(|(m, norm)| not_zero_flex(*m) / norm.max(SMALLEST as f32)).collect();
        let input = flex::contiguous(masked::<Flex>(x.clone(), self.mask));
        let mut low = vec![0.0; n * rank];
        let down = Matrix::new(flex::slice(&a), d_in, rank, rank);
        let rows = Matrix::new(flex::slice(&input), n, d_in, d_in);
        multiply(
            MatrixMut::new(&mut low, n, rank, rank),
            rows,
            down,
            self.scale as f32,
            false,
            true,
        );
        let mut before = vec![0.0; n * d_out];
        multiply_weight(&mut before, flex::slice(&input), &weight, false);
        // With dropout y = x W - x̃ W + k ⊙ v, so both products with W exist for a moment.
        let mut output = self.mask.map(|_| {
            let mut output = vec![0.0; n * d_out];
            multiply_weight(&mut output, flex::slice(&x), &weight, false);
            flex::for_each_part(&mut output, d_out, |from, output| {
                subtract(output, &before[from..]);
            });
            output
        });
        let up = Matrix::new(flex::slice(&b), rank, d_out, d_out);
        let added = MatrixMut::new(&mut before, n, d_out, d_out);
        multiply(added, Matrix::new(&low, n, rank, rank), up, 1.0, true, true);
        match &mut output {
            Some(output) => {
                flex::for_each_part(output, d_out, |from, output| {
                    add_scaled(output, &before[from..], &gain);
                });
            }
            None => flex::for_each_row(&mut before, d_out, |_, row| scale(row, &gain)),
        }
        let before = with_width(before, &x, d_out);
        let (output, before) = match output {
            Some(output) => (with_width(output, &x, d_out), Some(before)),
            None => (before, None),
        };
        DoraComputed {
            output,
            gain: flex::tensor(gain, [d_out]),
            low: flex::tensor(low, [n, rank]),
            before,
        }
    }

    fn backward_in_place(
        &self,
        saved: DoraSaved<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let DoraSaved { weight, a, b, gain, trained } = saved;
        let [a, b, gain] = [a, b, gain].map(flex::contiguous);
        let [d_in, rank] = a.shape().dims::<2>();
        let d_out = b.shape()[1];
        let n = gradient.shape().num_elements() / d_out;
        let mut shape = gradient.shape().to_vec();
        let gradient = flex::into_vec(gradient);
        *shape.last_mut().expect("a gradient has a last dimension") = d_in;
        let d_m =
            trained.as_ref().map(|trained| self.magnitude_gradient_flex(&gradient, trained, &gain));
        // g Wᵀ is needed with dropout alone, and before g is scaled where it lies.
        let base = (wanted[0] && self.mask.is_some()).then(|| {
            let mut base = vec![0.0; n * d_in];
            multiply_weight_transposed(&mut base, &gradient, &weight, false);
            base
        });
        // h = k ⊙ g takes the gradient's own memory: nothing below reads g again.
        let mut scaled = gradient;
        flex::for_each_row(&mut scaled, d_out, |_, row| scale(row, flex::slice(&gain)));
        let h = Matrix::new(&scaled, n, d_out, d_out);
        let mut up = vec![0.0; n * rank];
        let b = Matrix::new(flex::slice(&b), rank, d_out, d_out);
        multiply(
            MatrixMut::new(&mut up, n, rank, rank),
            h,
            b.transposed(),
            self.scale as f32,
            false,
            true,
        );
        let up = Matrix::new(&up, n, rank, rank);
        let (d_a, d_b) = trained.map_or((None, None), |DoraTrained { x, low, .. }| {
            let input = flex::contiguous(masked::<Flex>(x, self.mask));
            let d_a = outer(Matrix::new(flex::slice(&input), n, d_in, d_in), up, [d_in, rank]);
            (
                Some(d_a),
                Some(outer(Matrix::new(flex::slice(&low), n, rank, rank), h, [rank, d_out])),
            )
        });
        let d_x = wanted[0].then(|| {
            let mut d_x = vec![0.0; n * d_in];
            multiply_weight_transposed(&mut d_x, &scaled, &weight, false);
            let down = Matrix::new(flex::slice(&a), d_in, rank, rank).transposed();
            multiply(MatrixMut::new(&mut d_x, n, d_in, d_in), up, down, 1.0, true, true);
            let Some(base) = base else { return flex::tensor(d_x, shape) };
            flex::for_each_part(&mut d_x, d_in, |from, d_x| subtract(d_x, &base[from..]));
            let mut d_x =
                flex::into_vec(masked::<Flex>(flex::tensor(d_x, shape.clone()), self.mask));
            flex::for_each_part(&mut d_x, d_in, |from, d_x| add(d_x, &base[from..]));
            flex::tensor(d_x, shape)
        });
        vec![d_x, None, d_a, d_b, d_m]
    }

    /// dm; the gradient is `[n, out]`.
    fn magnitude_gradient_flex(
        &self,
        gradient: &[f32],
        trained: &DoraTrained<Flex>,
        gain: &FlexTensor,
    ) -> FlexTensor {
        let kept = flex::contiguous(trained.kept.clone());
        let magnitude = flex::contiguous(trained.magnitude.clone());
        let kept = flex::slice(&kept);
        let gain = flex::slice(gain);
        let d_out = gain.len();
        let rows = (gradient.len() / d_out).div_ceil(TASKS).max(1) * d_out;
        let parts = flex::tasks(gradient.len().div_ceil(rows), |part| {
            let mut sums = vec![0.0f32; d_out];
            let part = part * rows..gradient.len().min((part + 1) * rows);
            for (g, kept) in
                gradient[part.clone()].chunks_exact(d_out).zip(kept[part].chunks_exact(d_out))
            {
                for ((sum, g), kept) in sums.iter_mut().zip(g).zip(kept) {
                    *sum += g * kept;
                }
            }
            sums
        });
        let of = |(column, magnitude): (usize, &f32)| {
            let sum: f32 = parts.iter().map(|part| part[column]).sum();
            let sum = if self.mask.is_some() { sum * gain[column] } else { sum };
            sum / not_zero_flex(*magnitude)
        };
        flex::tensor(flex::slice(&magnitude).iter().enumerate().map(of).collect(), [d_out])
    }
}

/// Parts of a sum over tokens. Their number does not follow the threads', so neither does the sum.
#[cfg(feature = "flex")]
const TASKS: usize = 16;

#[cfg(feature = "flex")]
fn scale(row: &mut [f32], gain: &[f32]) {
    for (value, gain) in row.iter_mut().zip(gain) {
        *value *= gain;
    }
}

#[cfg(feature = "flex")]
fn add(row: &mut [f32], other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value += other;
    }
}

#[cfg(feature = "flex")]
fn subtract(row: &mut [f32], other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value -= other;
    }
}

#[cfg(feature = "flex")]
fn add_scaled(row: &mut [f32], other: &[f32], gain: &[f32]) {
    for ((value, other), gain) in row.iter_mut().zip(other).zip(gain) {
        *value += other * gain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::dora_norm::column_norms;
    use crate::frozen::dropout::dropout;
    use crate::frozen::testing::{distance, ndarray, random, stored, widened};
    use burn::tensor::{DType, Device, TensorData};

    const SIZES: [usize; 4] = [9, 37, 21, 3]; // tokens, in, out, rank
    const SCALE: f64 = 1.75;

    /// What a case varies.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        /// Whether the operation or burn's functions compute.
        own: bool,
        /// Whether x is tracked, and whether the adapter is.
        tracked: [bool; 2],
        masked: Option<DropoutMask>,
        dtype: DType,
        storage: DType,
    }

    /// Value and gradients of x, A, B and m.
    fn run(case: Case, device: &Device) -> Vec<Vec<f64>> {
        let [tokens, d_in, d_out, rank] = SIZES;
        let dtype = case.dtype;
        let leaf = |tensor: Tensor<2>, tracked| {
            if tracked { tensor.autodiff().require_grad() } else { tensor }
        };
        let x = leaf(random("x", [tokens, d_in], device, dtype), case.tracked[0]);
        let a = leaf(random("a", [d_in, rank], device, dtype), case.tracked[1]);
        let b = leaf(random("b", [rank, d_out], device, dtype), case.tracked[1]);
        let magnitude = leaf(random("m", [1, d_out], device, dtype), case.tracked[1]);
        let weight = stored(random("w", [d_out, d_in], device, DType::F32), case.storage);
        let wide = widened(&weight, dtype);
        let input: Tensor<3> = x.clone().unsqueeze();
        let y = if case.own {
            let operation = DoraLinear { scale: SCALE, mask: case.masked };
            let factors = Factors { a: a.clone(), b: b.clone() };
            operation.apply(input, weight, factors, magnitude.clone().squeeze_dim(0))
        } else {
            let probability = case.masked.map_or(0.0, |mask| mask.probability);
            let seed = case.masked.map(|mask| mask.seed);
            let input = dropout(input, probability, seed).squeeze_dim::<2>(0);
            let sum = wide.clone() + a.clone().inner().matmul(b.clone().inner()).mul_scalar(SCALE);
            let gain = magnitude.clone() / sum.square().sum_dim(0).sqrt();
            let plain = input.clone().matmul(wide.clone());
            let low = input.matmul(a.clone()).matmul(b.clone()).mul_scalar(SCALE);
            (x.clone().matmul(wide) + plain * (gain.clone() - 1.0) + low * gain).unsqueeze()
        };
        let mut graph =
            (y.clone() * random("g", [1, tokens, d_out], device, dtype)).sum().backward();
        let floats = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
        let mut found = vec![floats(y.inner().into_data())];
        found.extend(
            [x, a, b, magnitude]
                .iter()
                .filter_map(|leaf| leaf.grad_remove(&mut graph))
                .map(|g| floats(g.into_data())),
        );
        found
    }

    #[test]
    fn the_operation_has_the_value_and_the_gradients_of_its_formula() {
        let exact = ndarray();
        let flex = Device::flex();
        for tracked in [[true; 2], [true, false], [false, true]] {
            for masked in [None, Some(DropoutMask { probability: 0.4, seed: 11 })] {
                let case =
                    Case { own: true, tracked, masked, dtype: DType::F64, storage: DType::F64 };
                let expected = run(Case { own: false, ..case }, &exact);
                assert_eq!(
                    expected.len(),
                    1 + usize::from(tracked[0]) + 3 * usize::from(tracked[1])
                );
                let double = distance(&run(case, &exact), &expected);
                assert!(double < 1e-13, "{tracked:?} {masked:?}: {double:e}");
                let single = run(Case { dtype: DType::F32, storage: DType::F32, ..case }, &flex);
                let single = distance(&single, &expected);
                assert!(single < 3e-6, "{tracked:?} {masked:?}: {single:e}");
            }
        }
    }

    #[test]
    fn a_narrow_weight_is_the_weight_widened() {
        let exact = ndarray();
        let flex = Device::flex();
        let case = Case {
            own: true,
            tracked: [true; 2],
            masked: None,
            dtype: DType::F32,
            storage: DType::BF16,
        };
        for storage in [DType::BF16, DType::I8] {
            let expected = run(Case { own: false, storage, ..case }, &flex);
            let found = distance(&run(Case { storage, ..case }, &flex), &expected);
            assert!(found < 3e-6, "{storage:?}: {found:e}");
        }
        let case = Case { dtype: DType::F64, storage: DType::I8, ..case };
        assert!(distance(&run(case, &exact), &run(Case { own: false, ..case }, &exact)) < 1e-13);
    }

    #[test]
    fn a_magnitude_of_zero_has_its_gradient_and_a_column_of_zeros_none() {
        for (device, dtype) in [(ndarray(), DType::F64), (Device::flex(), DType::F32)] {
            let tensor = |values: &[f64], shape: [usize; 2]| {
                Tensor::<2>::from_data(
                    TensorData::new(values.to_vec(), shape).convert_dtype(dtype),
                    (&device, dtype),
                )
            };
            // The second column of W is zero and B leaves it so; the first has a magnitude of zero.
            let weight = tensor(&[3.0, 0.0, 4.0, 0.0], [2, 2]);
            let a = tensor(&[1.0, 1.0], [2, 1]);
            let b = tensor(&[0.0, 0.0], [1, 2]);
            let norms = column_norms(weight.clone().into(), a.clone(), b.clone(), 1.0);
            assert_eq!(norms.into_data().iter::<f64>().collect::<Vec<_>>(), [5.0, 0.0]);
            let magnitude =
                tensor(&[0.0, 0.0], [1, 2]).squeeze_dim::<1>(0).autodiff().require_grad();
            let x: Tensor<3> = tensor(&[1.0, 2.0], [1, 2]).unsqueeze();
            let operation = DoraLinear { scale: 1.0, mask: None };
            let y = operation.apply(x, weight.into(), Factors { a, b }, magnitude.clone());
            let gradient = magnitude.grad(&y.clone().sum().backward()).unwrap();
            let floats = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
            assert!(floats(y.inner().into_data()).iter().all(|value| value.abs() < 1e-18));
            let [first, second]: [f64; 2] = floats(gradient.into_data()).try_into().unwrap();
            assert!((first - 11.0 / 5.0).abs() < 1e-6 && second == 0.0, "{first} {second}");
        }
    }
}
