//! GPUs through a graphics API: `wgpu` by WGSL shaders, `vulkan` by SPIR-V.
//!
//! One runtime serves both, and the build decides which language it writes: with the feature
//! `vulkan` every Vulkan adapter is given SPIR-V, whichever name it was opened by. Adapters made of
//! the processor (Mesa's lavapipe) crash on that SPIR-V, so such a build refuses them.

#[cfg(not(feature = "wgpu"))]
use ist_core::burn::tensor::Device;

use super::{Backend, DeviceInfo};

/// Any GPU, by WGSL.
pub(super) const WGPU: Backend = Backend {
    name: "wgpu",
    compiled: cfg!(feature = "wgpu"),
    numbered: false,
    open: |_| open("wgpu"),
    list: || list("wgpu"),
    preferred: is_hardware,
};

/// A GPU with a Vulkan driver, by SPIR-V.
pub(super) const VULKAN: Backend = Backend {
    name: "vulkan",
    compiled: cfg!(feature = "vulkan"),
    numbered: false,
    open: |_| open("vulkan"),
    list: || list("vulkan"),
    preferred: is_hardware,
};

#[cfg(feature = "wgpu")]
use adapter::{is_hardware, list, open};

#[cfg(feature = "wgpu")]
mod adapter {
    use std::sync::OnceLock;

    use ist_core::burn::tensor::Device;
    use ist_core::burn::tensor::wgpu::{WgpuBackend, wgpu};
    use ist_core::operation::cube::memory_of;

    use super::DeviceInfo;

    /// The adapter of this process; a runtime can be opened once.
    #[derive(Clone)]
    struct Adapter {
        device: Device,
        info: wgpu::AdapterInfo,
    }

    impl Adapter {
        fn is_software(&self) -> bool {
            self.info.device_type == wgpu::DeviceType::Cpu
        }

        fn by_spirv(&self) -> bool {
            cfg!(feature = "vulkan") && self.info.backend == wgpu::Backend::Vulkan
        }
    }

    /// The best adapter. On Linux the graphics API is Vulkan: the automatic choice may fall to
    /// OpenGL, where it hangs.
    fn adapter() -> Result<Adapter, String> {
        static OPENED: OnceLock<Result<Adapter, String>> = OnceLock::new();
        let open = || {
            let vulkan = cfg!(feature = "vulkan") || cfg!(target_os = "linux");
            let api = if vulkan { WgpuBackend::Vulkan } else { WgpuBackend::Auto };
            let (device, setup) =
                Device::wgpu_options().graphics_api(api).init_with_setup().map_err(|error| {
                    format!("there is no adapter ({error:?}); install a Vulkan driver")
                })?;
            Ok(Adapter { device, info: setup.adapter.get_info() })
        };
        OPENED.get_or_init(open).clone()
    }

    /// The adapter, if it can be used under that name.
    fn usable(name: &str) -> Result<Adapter, String> {
        let found = adapter()?;
        if found.is_software() && found.by_spirv() {
            return Err(format!(
                "the only adapter is {}, which is made of the processor and crashes on SPIR-V; use \
                 a real GPU, or build \
                 with the feature `wgpu` and without `vulkan`",
                found.info.name
            ));
        }
        if name == "vulkan" && !found.by_spirv() {
            return Err(format!("{} is no Vulkan adapter; use \"wgpu\"", found.info.name));
        }
        Ok(found)
    }

    pub(super) fn open(name: &str) -> Result<Device, String> {
        usable(name).map(|adapter| adapter.device)
    }

    /// Whether there is an adapter that is no software.
    pub(super) fn is_hardware() -> bool {
        adapter().is_ok_and(|adapter| !adapter.is_software())
    }

    pub(super) fn list(name: &str) -> Result<Vec<DeviceInfo>, String> {
        let found = usable(name)?;
        let language = if found.by_spirv() { "SPIR-V" } else { "WGSL" };
        let wgpu::AdapterInfo { name: adapter, driver, driver_info, .. } = &found.info;
        let detail = format!("{adapter}, driver {driver} {driver_info}, by {language}");
        Ok(vec![DeviceInfo::present(name, &found.device, detail, memory_of(&found.device))])
    }
}

#[cfg(not(feature = "wgpu"))]
fn open(_: &str) -> Result<Device, String> {
    Err("it is not compiled in".to_owned())
}

#[cfg(not(feature = "wgpu"))]
fn list(_: &str) -> Result<Vec<DeviceInfo>, String> {
    Err("it is not compiled in".to_owned())
}

#[cfg(not(feature = "wgpu"))]
fn is_hardware() -> bool {
    false
}
