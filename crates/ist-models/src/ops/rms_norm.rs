//! Root-mean-square normalisation (Zhang & Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467)).
//!
//! With r = 1 / √(mean(x²) + eps) and g the gradient of the result: dx = r (g w) - x r³ mean(g w x), dw = Σ g x r. The
//! backward pass keeps x and w and computes r again.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};
use ist_core::operation::{Operands, Operation, apply};

/// x / √(mean(x²) + eps) · w over the last dimension: x `[batch, sequence, hidden]`, w `[hidden]`.
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    apply(RmsNorm { eps }, [x.into_dispatch(), weight.into_dispatch()], [])
}

/// The operation of [`rms_norm`] on x of any rank.
#[derive(Clone, Debug)]
struct RmsNorm {
    eps: f64,
}

impl RmsNorm {
    /// 1 / √(mean(x²) + eps), with a last dimension of 1.
    fn scale<B: Backend>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let last = x.shape().num_dims() - 1;
        let mean = B::float_mean_dim(B::float_mul(x.clone(), x), last);
        B::float_recip(B::float_sqrt(B::float_add_scalar(mean, self.eps.into())))
    }
}

/// A vector as the last dimension of tensors of x's rank.
pub(super) fn broadcast<B: Backend>(vector: FloatTensor<B>, x: &FloatTensor<B>) -> FloatTensor<B> {
    let mut shape = vec![1; x.shape().num_dims()];
    *shape.last_mut().expect("x has a last dimension") = vector.shape()[0];
    B::float_reshape(vector, Shape::from(shape))
}

/// The sum over all dimensions but the last, as a vector.
pub(super) fn sum_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = B::float_reshape(x, Shape::new([shape.num_elements() / width, width]));
    B::float_reshape(B::float_sum_dim(rows, 0), Shape::new([width]))
}

impl Operation for RmsNorm {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, weight] = inputs.floats();
        let scaled = B::float_mul(x.clone(), self.scale::<B>(x.clone()));
        B::float_mul(scaled, broadcast::<B>(weight, &x))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [x, weight] = saved.floats();
        let last = x.shape().num_dims() - 1;
        let scale = self.scale::<B>(x.clone());
        let normal = B::float_mul(x.clone(), scale.clone());
        let d_weight =
            wanted[1].then(|| sum_rows::<B>(B::float_mul(gradient.clone(), normal.clone())));
        let weighted = B::float_mul(gradient, broadcast::<B>(weight, &x));
        let mean = B::float_mean_dim(B::float_mul(weighted.clone(), normal.clone()), last);
        let d_x = B::float_mul(B::float_sub(weighted, B::float_mul(normal, mean)), scale);
        vec![Some(d_x), d_weight]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<burn::backend::Flex>) -> flex::FlexTensor {
        if flex::all_f32(&inputs.floats) { self.forward_rows(inputs) } else { self.forward(inputs) }
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<burn::backend::Flex>,
        gradient: flex::FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<flex::FlexTensor>> {
        if flex::all_f32(&saved.floats) {
            let d_weight = wanted[1].then(|| self.weight_gradient(&saved, gradient.clone()));
            vec![wanted[0].then(|| self.backward_rows(saved, gradient)), d_weight]
        } else {
            self.backward(saved, gradient, wanted)
        }
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        let [x, weight] = inputs.floats();
        if !cube::all_f32([&x]) {
            return self.forward(Operands::<CubeBackend>::new(vec![x, weight], Vec::new()));
        }
        rms_norm::forward(x, cube::widened(weight), self.eps)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        // A weight that trains is rare enough for the generic form.
        if wanted[1] || !cube::all_f32(&saved.floats[..1]) {
            return self.backward(saved, gradient, wanted);
        }
        let [x, weight] = saved.floats();
        vec![Some(rms_norm::backward(x, cube::widened(weight), gradient, self.eps)), None]
    }
}

#[cfg(feature = "cube")]
use super::kernels::rms_norm;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex;

/// Row by row, each read once from memory.
#[cfg(feature = "flex")]
impl RmsNorm {
    fn scale_of_row(&self, x: &[f32]) -> f32 {
        1.0 / (flex::dot(x, x) / x.len() as f32 + self.eps as f32).sqrt()
    }

    fn forward_rows(&self, inputs: Operands<burn::backend::Flex>) -> flex::FlexTensor {
        let [x, weight] = inputs.floats().map(flex::contiguous);
        let (source, weights) = (flex::slice(&x), flex::slice(&weight));
        let width = weights.len();
        let mut out = vec![0.0; source.len()];
        flex::for_each_row(&mut out, width, |row, out| {
            let x = &source[row * width..][..width];
            let scale = self.scale_of_row(x);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
                *out = x * scale * weight;
            }
        });
        flex::tensor(out, x.shape())
    }

    fn weight_gradient(
        &self,
        saved: &Operands<burn::backend::Flex>,
        gradient: flex::FlexTensor,
    ) -> flex::FlexTensor {
        let (x, gradient) = (flex::contiguous(saved.floats[0].clone()), flex::contiguous(gradient));
        let width = saved.floats[1].shape()[0];
        let mut sum = vec![0.0; width];
        for (x, gradient) in flex::slice(&x).chunks(width).zip(flex::slice(&gradient).chunks(width))
        {
            let scale = self.scale_of_row(x);
            for ((sum, x), gradient) in sum.iter_mut().zip(x).zip(gradient) {
                *sum += gradient * x * scale;
            }
        }
        flex::tensor(sum, [width])
    }

    fn backward_rows(
        &self,
        saved: Operands<burn::backend::Flex>,
        gradient: flex::FlexTensor,
    ) -> flex::FlexTensor {
        let [x, weight] = saved.floats().map(flex::contiguous);
        let (source, weights) = (flex::slice(&x), flex::slice(&weight));
        let width = weights.len();
        let mut out = flex::into_vec(gradient);
        flex::for_each_row(&mut out, width, |row, gradient| {
            let x = &source[row * width..][..width];
            let scale = self.scale_of_row(x);
            for (gradient, weight) in gradient.iter_mut().zip(weights) {
                *gradient *= weight;
            }
            let mean = flex::dot(gradient, x) / width as f32 * scale * scale;
            for (gradient, x) in gradient.iter_mut().zip(x) {
                *gradient = (*gradient - x * mean) * scale;
            }
        });
        flex::tensor(out, x.shape())
    }
}
