//! What operations share in their form for GPUs: tensors as a kernel takes them, the size of its
//! launch and sums over a cube.
//!
//! A kernel is a function in Rust that cubecl compiles for the device at hand on first use: to
//! CUDA's C++, SPIR-V or WGSL. A crate that writes one has `use ist_core::operation::cube::cubecl;`
//! in scope, which the macro `#[cube]` refers to. No kernel may rely on its indices being checked:
//! cubecl leaves checks out of what a launch promises.

mod reduce;

pub use burn_cubecl::{CubeBackend, tensor::CubeTensor};
pub use cubecl;
pub use reduce::{most, sum};

use burn::backend::{DispatchDevice, TensorMetadata};
use burn::tensor::{DType, Device, Shape};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::prelude::{CubeCount, CubeDim};

use super::{Operands, Operation};

/// Units of a cube at most: what every device can do.
pub const UNITS: usize = 256;

/// Cubes in one dimension of a launch at most: what every device can do.
const MOST_CUBES: usize = 65_535;

/// Whether all tensors hold f32, which is what the kernels are written for.
pub fn all_f32<'a>(tensors: impl IntoIterator<Item = &'a CubeTensor>) -> bool {
    tensors.into_iter().all(|tensor| tensor.dtype == DType::F32)
}

/// The same tensor with its elements in row-major order, copied only if they are not.
#[must_use]
pub fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// The same numbers in f32.
#[must_use]
pub fn widened(tensor: CubeTensor) -> CubeTensor {
    if tensor.dtype == DType::F32 { tensor } else { cast(tensor, DType::F32) }
}

/// A contiguous tensor on the device of `like` and in its type, whose elements are not set.
#[must_use]
pub fn empty(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        like.dtype,
    )
}

/// A place for a kernel's result in the shape of `like` too.
#[must_use]
pub fn empty_like(like: &CubeTensor) -> CubeTensor {
    empty(like, like.shape())
}

/// At least `count` cubes, in two dimensions where one does not hold them; a cube beyond `count`
/// has nothing to do.
pub fn cubes(count: usize) -> CubeCount {
    let wide = count.clamp(1, MOST_CUBES);
    CubeCount::Static(wide as u32, count.div_ceil(wide).max(1) as u32, 1)
}

/// Units that share a row of `width` elements: a power of two, as [`sum`] and [`most`] need.
pub fn units(width: usize) -> usize {
    width.next_power_of_two().clamp(32, UNITS)
}

/// The device as cubecl knows it; nothing of a device that is no GPU.
fn cube_device(device: &Device) -> Option<cubecl::Device> {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        _ => None,
    }
}

/// Whether the device is one that these kernels run on.
pub fn is_gpu(device: &Device) -> bool {
    cube_device(device).is_some()
}

/// a b in f32 of matrices a in f32 and b in half precision: a is rounded to b's type, sums are f32.
///
/// # Panics
/// If the device has no kernel for it, as burn's own product.
#[must_use]
pub fn product(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let a = cast(a, b.dtype);
    matmul(a, b, None, MatmulStrategy::default(), DType::F32)
        .expect("a device with the type has a product for it")
}

/// Bytes that the device may be asked to hold, where its runtime has a figure; nothing of a device
/// that is no GPU.
pub fn memory_of(device: &Device) -> Option<u64> {
    cube_device(device)?.client().properties().memory.max_memory()
}

/// One unit an element: the cubes and the units of each.
pub fn elementwise(count: usize) -> (CubeCount, CubeDim) {
    (cubes(count.div_ceil(UNITS)), CubeDim::new_1d(UNITS as u32))
}
