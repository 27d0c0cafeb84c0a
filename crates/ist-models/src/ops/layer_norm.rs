//! Layer normalisation (Ba et al., [arXiv 1607.06450](https://arxiv.org/abs/1607.06450)).
//!
//! With z = (x - mean(x)) r, r = 1 / √(var(x) + eps), y = z w + b, and g the gradient of y:
//! dx = r (g w - mean(g w) - z mean(g w z)), dw = Σ g z, db = Σ g. The backward pass keeps x and w and computes z again.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use super::rms_norm::{broadcast, sum_rows};

/// (x - mean(x)) / √(var(x) + eps) · w + b over the last dimension: x `[batch, sequence, hidden]`, w and b `[hidden]`.
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    apply(LayerNorm { eps }, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], [])
}

#[derive(Clone, Debug)]
struct LayerNorm {
    eps: f64,
}

impl LayerNorm {
    /// z and r, the latter with a last dimension of 1.
    fn normalise<B: Backend>(&self, x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let last = x.shape().num_dims() - 1;
        let centred = B::float_sub(x.clone(), B::float_mean_dim(x, last));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), last);
        let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, self.eps.into())));
        (B::float_mul(centred, scale.clone()), scale)
    }
}

impl Operation for LayerNorm {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, weight, bias] = inputs.floats();
        let (weight, bias) = (broadcast::<B>(weight, &x), broadcast::<B>(bias, &x));
        B::float_add(B::float_mul(self.normalise::<B>(x).0, weight), bias)
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, _: &[bool]) -> Operands<B> {
        Operands::new(inputs.floats[..2].to_vec(), Vec::new())
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [x, weight] = saved.floats();
        let last = x.shape().num_dims() - 1;
        let weight = broadcast::<B>(weight, &x);
        let (z, scale) = self.normalise::<B>(x);
        let d_weight = wanted[1].then(|| sum_rows::<B>(B::float_mul(gradient.clone(), z.clone())));
        let d_bias = wanted[2].then(|| sum_rows::<B>(gradient.clone()));
        let weighted = B::float_mul(gradient, weight);
        let along = B::float_mean_dim(B::float_mul(weighted.clone(), z.clone()), last);
        let centred = B::float_sub(weighted.clone(), B::float_mean_dim(weighted, last));
        let d_x = B::float_mul(B::float_sub(centred, B::float_mul(z, along)), scale);
        vec![Some(d_x), d_weight, d_bias]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if flex::all_f32(&inputs.floats) { self.forward_rows(inputs) } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        if flex::all_f32(&saved.floats) && !wanted[1] && !wanted[2] {
            vec![Some(self.backward_rows(saved, gradient)), None, None]
        } else {
            self.backward(saved, gradient, wanted)
        }
    }
}

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

/// Row by row, each read once from memory.
#[cfg(feature = "flex")]
impl LayerNorm {
    /// z of one row, and r.
    fn normalise_row(&self, x: &[f32], z: &mut [f32]) -> f32 {
        let width = x.len() as f32;
        let mean = flex::sum(x) / width;
        for (z, x) in z.iter_mut().zip(x) {
            *z = x - mean;
        }
        let scale = 1.0 / (flex::dot(z, z) / width + self.eps as f32).sqrt();
        for z in z {
            *z *= scale;
        }
        scale
    }

    fn forward_rows(&self, inputs: Operands<Flex>) -> FlexTensor {
        let [x, weight, bias] = inputs.floats().map(flex::contiguous);
        let (source, weight, bias) = (flex::slice(&x), flex::slice(&weight), flex::slice(&bias));
        let width = weight.len();
        let mut out = vec![0.0; source.len()];
        flex::for_each_row(&mut out, width, |row, out| {
            self.normalise_row(&source[row * width..][..width], out);
            for ((out, weight), bias) in out.iter_mut().zip(weight).zip(bias) {
                *out = *out * weight + bias;
            }
        });
        flex::tensor(out, x.shape())
    }

    fn backward_rows(&self, saved: Operands<Flex>, gradient: FlexTensor) -> FlexTensor {
        let [x, weight, gradient] = {
            let [x, weight] = saved.floats();
            [x, weight, gradient].map(flex::contiguous)
        };
        let (source, weight, gradient) =
            (flex::slice(&x), flex::slice(&weight), flex::slice(&gradient));
        let width = weight.len();
        let mut out = vec![0.0; source.len()];
        flex::for_each_row(&mut out, width, |row, z| {
            let scale = self.normalise_row(&source[row * width..][..width], z);
            let gradient = &gradient[row * width..][..width];
            let mean = flex::dot(gradient, weight) / width as f32;
            let along = weighted_dot(gradient, weight, z) / width as f32;
            for ((z, gradient), weight) in z.iter_mut().zip(gradient).zip(weight) {
                *z = scale * (gradient * weight - mean - *z * along);
            }
        });
        flex::tensor(out, x.shape())
    }
}

/// Σ aᵢ bᵢ cᵢ.
#[cfg(feature = "flex")]
fn weighted_dot(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut products = [0.0; 64];
    let mut sum = 0.0;
    for ((a, b), c) in a.chunks(64).zip(b.chunks(64)).zip(c.chunks(64)) {
        for ((product, a), b) in products.iter_mut().zip(a).zip(b) {
            *product = a * b;
        }
        sum += flex::dot(&products[..c.len()], c);
    }
    sum
}
