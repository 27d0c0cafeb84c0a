//! Products with frozen weights in half precision on GPUs: mixed precision.
//!
//! A GPU multiplies bf16 and f16 many times faster than f32. So where a weight rests in one of
//! them, activations in f32 are rounded to its type for the product alone, and gradients in the
//! backward pass. Sums are f32, and so is the result; adapters, norms and the loss stay f32
//! throughout (Micikevicius et al., [arXiv 1710.03740](https://arxiv.org/abs/1710.03740)). On the
//! processor a half type is for storage, and products are those of f32.

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Device;

#[cfg(feature = "cube")]
use burn::backend::TensorMetadata;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeTensor};
#[cfg(feature = "cube")]
use std::any::Any;

/// Whether products with weights in half precision are computed in it on that device.
pub fn is_narrow(device: &Device) -> bool {
    #[cfg(feature = "cube")]
    return cube::is_gpu(device);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        false
    }
}

/// x w in f32 for a matrix x in f32 and w in half precision, where the device multiplies in it;
/// `None` elsewhere.
#[cfg(feature = "cube")]
pub(crate) fn product<B: Backend>(
    x: &FloatTensor<B>,
    w: &FloatTensor<B>,
) -> Option<FloatTensor<B>> {
    use burn::tensor::DType;
    if x.dtype() != DType::F32 || !matches!(w.dtype(), DType::BF16 | DType::F16) {
        return None;
    }
    // The one backend with kernels of its own for this is found by its tensors' type.
    let as_cube =
        |tensor: &FloatTensor<B>| (tensor as &dyn Any).downcast_ref::<CubeTensor>().cloned();
    let product: Box<dyn Any> = Box::new(cube::product(as_cube(x)?, as_cube(w)?));
    product.downcast::<FloatTensor<B>>().ok().map(|product| *product)
}

/// Without a GPU's backend nothing is computed in half precision.
#[cfg(not(feature = "cube"))]
pub(crate) fn product<B: Backend>(
    _: &FloatTensor<B>,
    _: &FloatTensor<B>,
) -> Option<FloatTensor<B>> {
    None
}
