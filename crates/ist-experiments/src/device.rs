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
const LATER: [&str; 2] = ["vulkan", "cuda"];

/// Opens the device of that name: `cpu` (= `flex`), `flex`, `ndarray`, `wgpu`, or `auto`, the fastest that is known to work.
pub fn open(name: &str) -> Result<Device, Failure> {
    match name {
        #[cfg(feature = "flex")]
        "auto" | "cpu" | "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[cfg_attr(feature = "flex", expect(unreachable_patterns, reason = "`auto` is the best backend compiled in"))]
        "auto" | "ndarray" => Ok(ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => wgpu().map_err(|reason| Failure::input(format!("device \"wgpu\" cannot be opened: {reason}"))),
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
    } else if ["cpu", "flex", "ndarray", "wgpu"].contains(&name) {
        let feature = if name == "cpu" { "flex" } else { name };
        format!("device \"{name}\" is not compiled in: build with the feature `{feature}`; available here: {available}")
    } else {
        format!("unknown device \"{name}\"; available here: {available}")
    }
}

/// Every backend this project knows.
pub fn list() -> Vec<DeviceInfo> {
    let mut devices = vec![flex_info(), ndarray_info(), wgpu_info()];
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

/// The reference that the others are held against.
#[cfg(feature = "ndarray")]
#[expect(
    deprecated,
    reason = "a separate implementation to check the others against; upstream keeps it for that alone"
)]
pub fn ndarray() -> Device {
    Device::ndarray()
}

/// The best adapter by WGSL shaders. On Linux the graphics API is Vulkan: the automatic choice may fall to OpenGL, where it
/// hangs. A runtime can be opened once in a process.
#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, String> {
    use ist_core::burn::tensor::wgpu::WgpuBackend;
    use std::sync::OnceLock;
    static OPENED: OnceLock<Result<Device, String>> = OnceLock::new();
    let open = || {
        let api = if cfg!(target_os = "linux") { WgpuBackend::Vulkan } else { WgpuBackend::Auto };
        let opened = Device::wgpu_options().graphics_api(api).init();
        opened.map_err(|error| format!("there is no adapter ({error:?}); install a Vulkan driver"))
    };
    OPENED.get_or_init(open).clone()
}

fn wgpu_info() -> DeviceInfo {
    let (compiled, absent) = (cfg!(feature = "wgpu"), |detail| (false, detail, Vec::new()));
    #[cfg(feature = "wgpu")]
    let (present, detail, dtypes) = match wgpu() {
        Ok(device) => {
            let name = device.identity().map_or_else(|| "an adapter".to_owned(), |identity| identity.name);
            (true, format!("{name}, by WGSL shaders"), dtypes(&device))
        }
        Err(reason) => absent(reason),
    };
    #[cfg(not(feature = "wgpu"))]
    let (present, detail, dtypes) = absent(missing("wgpu"));
    DeviceInfo { name: "wgpu", compiled, present, detail, dtypes, memory_bytes: None }
}

/// Fails when a device cannot keep weights as `storage`.
pub fn check_storage(device: &Device, storage: DType) -> Result<(), Failure> {
    if device.supports_dtype(storage) {
        return Ok(());
    }
    let can: Vec<&str> =
        STORAGE.iter().filter(|(dtype, _)| device.supports_dtype(*dtype)).map(|(_, name)| *name).collect();
    let name = STORAGE.iter().find(|(dtype, _)| *dtype == storage).map_or("this type", |(_, name)| *name);
    Err(Failure::input(format!(
        "the device cannot keep weights in {name}; set `model.dtype` to one of {}",
        can.join(", ")
    )))
}

/// What weights can be kept in.
const STORAGE: [(DType, &str); 4] =
    [(DType::F32, "float32"), (DType::BF16, "bfloat16"), (DType::F16, "float16"), (DType::I8, "int8")];

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
