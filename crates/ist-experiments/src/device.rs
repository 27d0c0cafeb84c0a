//! Devices by name. The only file that names a backend.
//!
//! A backend is compiled in by a cargo feature of this crate and picked at run time by a name; everything else takes whatever
//! [`Device`] comes out of here.

use ist_core::burn::tensor::{DType, Device};
use serde::Serialize;

use crate::failure::Failure;
use crate::free_memory::total_on_host;

/// One backend, whether or not it is there.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// The name `--device` takes.
    pub name: &'static str,
    /// Whether this binary contains the backend.
    pub compiled: bool,
    /// Whether it can run here.
    pub present: bool,
    /// What it is, or what is missing.
    pub detail: String,
    /// Float types it computes with.
    pub dtypes: Vec<&'static str>,
    /// Memory in bytes, where it is known.
    pub memory_bytes: Option<u64>,
}

/// Names of backends that later work brings.
const LATER: [&str; 3] = ["wgpu", "vulkan", "cuda"];

/// Opens the device of that name: `cpu` (= `flex`), `flex`, `ndarray` or `auto` (the best that works).
pub fn open(name: &str) -> Result<Device, Failure> {
    match name {
        #[cfg(feature = "flex")]
        "auto" | "cpu" | "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[cfg_attr(feature = "flex", expect(unreachable_patterns, reason = "`auto` is the best backend compiled in"))]
        "auto" | "ndarray" => Ok(ndarray()),
        _ => Err(Failure::input(refusal(name))),
    }
}

fn refusal(name: &str) -> String {
    let available: Vec<&str> = list().into_iter().filter(|device| device.present).map(|device| device.name).collect();
    let available = available.join(", ");
    let base = name.split(':').next().unwrap_or(name);
    if LATER.contains(&base) {
        format!(
            "device \"{name}\" is not yet available: this version has no {base} backend; available here: {available}"
        )
    } else if ["cpu", "flex", "ndarray"].contains(&name) {
        let feature = if name == "cpu" { "flex" } else { name };
        format!("device \"{name}\" is not compiled in: build with the feature `{feature}`; available here: {available}")
    } else {
        format!("unknown device \"{name}\"; available here: {available}")
    }
}

/// Every backend this project knows.
pub fn list() -> Vec<DeviceInfo> {
    let mut devices = vec![flex_info(), ndarray_info()];
    devices.extend(LATER.map(|name| DeviceInfo {
        name,
        compiled: false,
        present: false,
        detail: "not yet available in this version".to_owned(),
        dtypes: Vec::new(),
        memory_bytes: None,
    }));
    devices
}

fn flex_info() -> DeviceInfo {
    let compiled = cfg!(feature = "flex");
    #[cfg(feature = "flex")]
    let dtypes = dtypes(&Device::flex());
    #[cfg(not(feature = "flex"))]
    let dtypes = Vec::new();
    let detail = if compiled { cpu("the fast CPU backend") } else { missing("flex") };
    DeviceInfo { name: "flex", compiled, present: compiled, detail, dtypes, memory_bytes: total_on_host() }
}

fn ndarray_info() -> DeviceInfo {
    let compiled = cfg!(feature = "ndarray");
    #[cfg(feature = "ndarray")]
    let dtypes = dtypes(&ndarray());
    #[cfg(not(feature = "ndarray"))]
    let dtypes = Vec::new();
    let detail = if compiled { cpu("the CPU reference backend") } else { missing("ndarray") };
    DeviceInfo { name: "ndarray", compiled, present: compiled, detail, dtypes, memory_bytes: total_on_host() }
}

#[cfg(feature = "ndarray")]
#[expect(
    deprecated,
    reason = "a separate implementation to check the others against; upstream keeps it for that alone"
)]
fn ndarray() -> Device {
    Device::ndarray()
}

fn missing(feature: &str) -> String {
    format!("not compiled in: build with the feature `{feature}`")
}

fn cpu(what: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{what}, {threads} threads")
}

fn dtypes(device: &Device) -> Vec<&'static str> {
    [(DType::F32, "float32"), (DType::F64, "float64"), (DType::BF16, "bfloat16"), (DType::F16, "float16")]
        .into_iter()
        .filter(|(dtype, _)| device.supports_dtype(*dtype))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_later_work_is_refused_with_what_is_available() {
        let message = open("cuda:1").unwrap_err().to_string();
        assert!(message.contains("not yet available") && message.contains("flex"), "{message}");
        assert_eq!(open("tpu").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn auto_opens_the_best_backend() {
        assert_eq!(open("auto").unwrap(), open("cpu").unwrap());
    }
}
