//! NVIDIA's GPUs through CUDA.
//!
//! Nothing of CUDA is linked: the driver and NVRTC, which compiles the kernels, are looked up when
//! the program runs, and the headers of the toolkit are read from `$CUDA_PATH/include`. Each is
//! asked for before burn is, which panics where one is missing.

#[cfg(not(feature = "cuda"))]
use ist_core::burn::tensor::Device;

use super::{Backend, DeviceInfo};

/// CUDA.
pub(super) const CUDA: Backend = Backend {
    name: "cuda",
    compiled: cfg!(feature = "cuda"),
    numbered: true,
    open,
    list,
    preferred: || true,
};

#[cfg(feature = "cuda")]
use cards::{list, open};

#[cfg(feature = "cuda")]
mod cards {
    use std::sync::OnceLock;

    use ist_core::burn::tensor::{Device, DeviceType, Tensor};
    use ist_core::operation::cube::{cubecl, memory_of};
    use ist_files::untrusted::contained_in_pool;

    use super::DeviceInfo;

    /// The header that every kernel in half precision includes.
    const HEADER: &str = "include/cuda_fp16.h";

    pub(super) fn open(index: usize) -> Result<Device, String> {
        let count = cards()?;
        if index >= count {
            let last = count - 1;
            return Err(format!("there is no card {index}: the cards here are 0 to {last}"));
        }
        let device = Device::cuda(index);
        contained_in_pool(|| computes(&device))
            .map_err(|why| format!("the card does not compute: {why}"))?;
        Ok(device)
    }

    pub(super) fn list() -> Result<Vec<DeviceInfo>, String> {
        let of = |index: usize| {
            let name = if index == 0 { "cuda".to_owned() } else { format!("cuda:{index}") };
            let device = open(index)?;
            let card =
                device.identity().map_or_else(|| "a card".to_owned(), |identity| identity.name);
            Ok(DeviceInfo::present(name, &device, card, memory_of(&device)))
        };
        (0..cards()?).map(of).collect()
    }

    /// How many cards there are, if all that CUDA needs is there.
    fn cards() -> Result<usize, String> {
        static FOUND: OnceLock<Result<usize, String>> = OnceLock::new();
        FOUND.get_or_init(look).clone()
    }

    fn look() -> Result<usize, String> {
        let count = Device::enumerate(DeviceType::Cuda).into_vec().len();
        if count == 0 {
            return Err("there is no NVIDIA card, or no driver for it (libcuda.so.1)".to_owned());
        }
        let headers =
            cubecl::cuda::install::cuda_path().is_some_and(|path| path.join(HEADER).exists());
        if !headers {
            return Err(format!(
                "CUDA's headers are missing: set CUDA_PATH to the folder that has {HEADER}"
            ));
        }
        contained_in_pool(|| {
            cudarc::nvrtc::compile_ptx("extern \"C\" __global__ void nothing() {}").map(|_| ())
        })
        .and_then(|compiled| compiled.map_err(|error| format!("{error:?}")))
        .map_err(|why| format!("NVRTC (libnvrtc.so) is missing or does not work: {why}"))?;
        Ok(count)
    }

    /// Runs a kernel and reads its result.
    fn computes(device: &Device) {
        let sum = Tensor::<1>::ones([8], device).sum().into_data();
        assert_eq!(sum.iter::<f32>().next(), Some(8.0), "a sum is wrong");
    }
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize) -> Result<Device, String> {
    Err("it is not compiled in".to_owned())
}

#[cfg(not(feature = "cuda"))]
fn list() -> Result<Vec<DeviceInfo>, String> {
    Err("it is not compiled in".to_owned())
}
