//! Root-mean-square normalisation
//! (Zhang & Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467)).
//!
//! y = x r w with r = 1 / √(mean(x²) + eps). With the gradient g of y:
//!
//! dx = r (g w) - x r³ mean(g w x), and dw = Σ g x r.
//!
//! The backward pass keeps x and w. It computes r again, which costs one pass over x and saves a
//! tensor.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};
use ist_core::plan::tape::{Place, TapeOp, TapeValue};

use super::rows::{broadcast, sum_rows};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// x / √(mean(x²) + eps) · w over the last dimension.
///
/// # Shapes
/// x and the result `[batch, sequence, hidden]`, w `[hidden]`
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    apply(RmsNorm { eps }, [x.into_dispatch(), weight.into_dispatch()], [])
}

/// What a memory plan counts for the norm of `x`, which writes that many bytes.
///
/// The gradient of x is computed in the place of the incoming one.
pub(crate) fn cost(x: TapeValue, writes: u64) -> TapeOp {
    TapeOp {
        reads: vec![x],
        writes,
        keeps: vec![x],
        gradient: Place::OverIncoming,
        ..TapeOp::default()
    }
}

/// The operation of [`rms_norm`] on x of any rank.
#[derive(Clone, Debug)]
struct RmsNorm {
    eps: f64,
}

impl RmsNorm {
    /// r, with a last dimension of 1.
    fn scale<B: Backend>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let last = x.shape().num_dims() - 1;
        let mean = B::float_mean_dim(B::float_mul(x.clone(), x), last);
        B::float_recip(B::float_sqrt(B::float_add_scalar(mean, self.eps.into())))
    }
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
        // With n = x r the gradient of x is r (g w - n mean(g w n)): r³ never stands alone.
        let normal = B::float_mul(x.clone(), scale.clone());
        let d_weight =
            wanted[1].then(|| sum_rows::<B>(B::float_mul(gradient.clone(), normal.clone())));
        let weighted = B::float_mul(gradient, broadcast::<B>(weight, &x));
        let mean = B::float_mean_dim(B::float_mul(weighted.clone(), normal.clone()), last);
        let d_x = B::float_mul(B::float_sub(weighted, B::float_mul(normal, mean)), scale);
        vec![Some(d_x), d_weight]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        flex::forward(self, inputs)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        flex::backward(self, saved, gradient, wanted)
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        cube::forward(self, inputs)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        cube::backward(self, saved, gradient, wanted)
    }
}
