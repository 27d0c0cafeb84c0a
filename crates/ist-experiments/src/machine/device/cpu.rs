//! The processor: `flex`, the fast backend, and `ndarray`, the reference.

use ist_core::burn::tensor::Device;

use super::{Backend, DeviceInfo};
use crate::machine::free_memory::total_on_host;

/// burn's fast backend for processors.
pub(super) const FLEX: Backend = Backend {
    name: "flex",
    compiled: cfg!(feature = "flex"),
    numbered: false,
    open: open_flex,
    list: || open_flex(0).map(|device| listed("flex", &device, "the fast CPU backend")),
    preferred: || true,
};

/// The reference that the others are held against.
pub(super) const NDARRAY: Backend = Backend {
    name: "ndarray",
    compiled: cfg!(feature = "ndarray"),
    numbered: false,
    open: open_ndarray,
    list: || open_ndarray(0).map(|device| listed("ndarray", &device, "the CPU reference backend")),
    preferred: || true,
};

#[cfg_attr(
    feature = "flex",
    expect(clippy::unnecessary_wraps, reason = "a backend may be missing")
)]
fn open_flex(_: usize) -> Result<Device, String> {
    #[cfg(feature = "flex")]
    return Ok(Device::flex());
    #[cfg(not(feature = "flex"))]
    Err("it is not compiled in".to_owned())
}

#[cfg_attr(
    feature = "ndarray",
    expect(clippy::unnecessary_wraps, reason = "a backend may be missing")
)]
fn open_ndarray(_: usize) -> Result<Device, String> {
    #[cfg(feature = "ndarray")]
    return Ok(ndarray());
    #[cfg(not(feature = "ndarray"))]
    Err("it is not compiled in".to_owned())
}

/// The reference that the others are held against.
#[cfg(feature = "ndarray")]
#[expect(
    deprecated,
    reason = "a separate implementation to check the others against; upstream keeps it for that \
              alone"
)]
pub fn ndarray() -> Device {
    Device::ndarray()
}

fn listed(name: &str, device: &Device, what: &str) -> Vec<DeviceInfo> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    vec![DeviceInfo::present(name, device, format!("{what}, {threads} threads"), total_on_host())]
}
