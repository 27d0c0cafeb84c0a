//! Layer normalisation (Ba et al., [arXiv 1607.06450](https://arxiv.org/abs/1607.06450)).
//!
//! y = z w + b with z = (x - mean(x)) r and r = 1 / √(var(x) + eps). With the gradient g of y:
//!
//! dx = r (g w - mean(g w) - z mean(g w z)), dw = Σ g z, and db = Σ g.
//!
//! The backward pass keeps x and w, and computes z again.

#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};
use ist_core::plan::tape::{TapeOp, TapeValue};

use super::rows::{broadcast, sum_rows};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// (x - mean(x)) / √(var(x) + eps) · w + b over the last dimension.
///
/// # Shapes
/// x and the result `[batch, sequence, hidden]`, w and b `[hidden]`
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    apply(LayerNorm { eps }, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], [])
}

/// What a memory plan counts for the norm of `x`, which writes that many bytes.
///
/// The gradient of x is a tensor of its own: z is computed where it goes.
pub(crate) fn cost(x: TapeValue, writes: u64) -> TapeOp {
    TapeOp { reads: vec![x], writes, keeps: vec![x], ..TapeOp::default() }
}

/// The operation of [`layer_norm`] on x of any rank.
#[derive(Clone, Debug)]
struct LayerNorm {
    eps: f64,
}

/// z and r, the latter with a last dimension of 1.
struct Normalised<B: Backend> {
    z: FloatTensor<B>,
    scale: FloatTensor<B>,
}

impl LayerNorm {
    fn normalise<B: Backend>(&self, x: FloatTensor<B>) -> Normalised<B> {
        let last = x.shape().num_dims() - 1;
        let centred = B::float_sub(x.clone(), B::float_mean_dim(x, last));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), last);
        let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, self.eps.into())));
        Normalised { z: B::float_mul(centred, scale.clone()), scale }
    }
}

impl Operation for LayerNorm {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, weight, bias] = inputs.floats();
        let weight = broadcast::<B>(weight, &x);
        let bias = broadcast::<B>(bias, &x);
        B::float_add(B::float_mul(self.normalise::<B>(x).z, weight), bias)
    }

    /// x and w; no gradient depends on b.
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
        let Normalised { z, scale } = self.normalise::<B>(x);
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
}
