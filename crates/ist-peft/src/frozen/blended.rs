//! A linear map that lies between two weights, without a third matrix and without a second result.
//!
//! Probes ask for W₀ + f · (W - W₀) at other factors f than 1. y = (1 - f) · x W₀ + f · x W is the
//! same, and the second product adds into the first one's result.

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use crate::frozen::matrix::{FrozenMatrix, Stored, cast_like, rows};

/// (1 - f) · x W₀ + f · x W for x `[batch, sequence, in]`, W₀ `[in, out]` in its storage type and W
/// `[in, out]`.
///
/// dx = (1 - f) · g W₀ᵀ + f · g Wᵀ and dW = f · xᵀ g for the gradient g; dW₀ does not exist. x is
/// kept only where W trains.
pub fn blended(
    x: Tensor<3>,
    frozen: impl Into<FrozenMatrix>,
    trained: Tensor<2>,
    f: f64,
) -> Tensor<3> {
    let (frozen, values) = frozen.into().operands();
    apply(Blended { f }, [x.into_dispatch(), frozen, trained.into_dispatch()], values)
}

#[derive(Clone, Debug)]
struct Blended {
    f: f64,
}

impl Blended {
    /// (1 - f) · a + f · b.
    fn between<B: Backend>(&self, a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        let a = B::float_mul_scalar(a, (1.0 - self.f).into());
        let b = B::float_mul_scalar(b, self.f.into());
        B::float_add(a, b)
    }
}

impl Operation for Blended {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let ints = inputs.ints.clone();
        let [x, frozen, trained] = inputs.floats();
        let frozen = Stored::<B>::of(frozen, &ints);
        let trained = Stored::<B>::Float(trained);
        self.between::<B>(frozen.product(x.clone()), trained.product(x))
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, wanted: &[bool]) -> Operands<B> {
        let [x, frozen, trained] = inputs.clone().floats();
        Stored::of(frozen, &inputs.ints)
            .operands([trained].into_iter().chain(wanted[2].then_some(x)))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let mut floats = saved.floats.into_iter();
        let mut next = || floats.next().expect("both weights are always kept");
        let frozen = Stored::<B>::of(next(), &saved.ints);
        let trained = next();
        // W₀ has no gradient. x stands behind both weights where W trains.
        let d_trained = floats.next().map(|x| {
            let product =
                B::float_matmul(B::float_transpose(rows::<B>(x)), rows::<B>(gradient.clone()));
            cast_like::<B>(B::float_mul_scalar(product, self.f.into()), &trained)
        });
        let d_x = wanted[0].then(|| {
            let trained = Stored::<B>::Float(trained).transposed_product(gradient.clone());
            self.between::<B>(frozen.transposed_product(gradient), trained)
        });
        vec![d_x, None, d_trained]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let frozen = Stored::of(inputs.floats[1].clone(), &inputs.ints);
        if !fits(&inputs.floats[0], &frozen) || !flex::all_f32(&inputs.floats[2..]) {
            return self.forward(inputs);
        }
        let [x, trained] = [0, 2].map(|at| flex::contiguous(inputs.floats[at].clone()));
        let [d_in, d_out] = frozen.dims();
        let n = x.shape().num_elements() / frozen.dims()[0];
        let mut out = vec![0.0; n * d_out];
        multiply_weight(&mut out, flex::slice(&x), &frozen, false);
        let part = (1.0 - self.f) as f32;
        // Scaling the first result costs less than a scaled copy of W₀, which may be packed.
        for value in &mut out {
            *value *= part;
        }
        let [x_rows, weight] =
            [(&x, n, d_in), (&trained, d_in, d_out)].map(|(tensor, rows, columns)| {
                Matrix::new(flex::slice(tensor), rows, columns, columns)
            });
        multiply(
            MatrixMut::new(&mut out, n, d_out, d_out),
            x_rows,
            weight,
            self.f as f32,
            true,
            true,
        );
        with_width(out, &x, d_out)
    }
}

#[cfg(feature = "flex")]
use crate::frozen::product::{fits, multiply_weight, with_width};
#[cfg(feature = "flex")]
use burn::backend::{Flex, TensorMetadata};
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::frozen::int8::Int8Matrix;
    use burn::tensor::{DType, Device, TensorData};
    use ist_core::streams;
    use rand::RngExt;

    fn random<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
        let mut rng = streams::stream(4, name);
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn a_frozen_weight_in_any_storage_is_blended_as_the_sum_of_both() {
        let x = random("x", [2, 3, 33]);
        let frozen = random("w0", [7, 33]);
        let trained = random("w", [33, 7]);
        let packed = Int8Matrix::quantise(&frozen.to_data(), &Device::flex());
        let stored = [
            FrozenMatrix::Float(frozen.clone().transpose()),
            FrozenMatrix::Float(frozen.cast(DType::BF16).transpose()),
            FrozenMatrix::Int8(packed),
        ];
        for weight in stored {
            let wide = match &weight {
                FrozenMatrix::Float(weight) => weight.clone().cast(DType::F32),
                FrozenMatrix::Int8(packed) => packed.dequantise(DType::F32),
            };
            let sum = wide.mul_scalar(0.75) + trained.clone().mul_scalar(0.25);
            let expected = x.clone().reshape([6, 33]).matmul(sum).reshape([2, 3, 7]);
            let found = blended(x.clone(), weight, trained.clone(), 0.25);
            let worst = (found - expected).abs().max().into_data().iter::<f32>().next().unwrap();
            assert!(worst < 1e-5, "{worst:e}");
        }
    }
}
