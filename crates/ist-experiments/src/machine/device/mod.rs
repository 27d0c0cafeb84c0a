//! Devices by name. The only place that names a backend: one file for the processor, one for
//! graphics APIs, one for CUDA.
//!
//! A backend is compiled in by a cargo feature of this crate and picked at run time by a name;
//! everything else takes whatever [`Device`] comes out of here. What is asked for and absent is a
//! failure of the input with its reason, never a panic.

mod cpu;
mod cuda;
mod graphics;
mod storage;

use ist_core::burn::tensor::Device;
use serde::Serialize;

use crate::machine::free_memory::on_host;
use ist_records::Failure;

#[cfg(feature = "ndarray")]
pub use cpu::ndarray;
pub use storage::check_storage;

/// One device, whether or not it is there.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// The name `--device` takes.
    pub name: String,
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

impl DeviceInfo {
    /// A device that is there.
    fn present(
        name: impl Into<String>,
        device: &Device,
        detail: String,
        memory_bytes: Option<u64>,
    ) -> Self {
        let dtypes = storage::float_types(device);
        Self { name: name.into(), compiled: true, present: true, detail, dtypes, memory_bytes }
    }

    /// A device that is not, and why.
    fn absent(backend: &Backend, why: String) -> Self {
        let name = backend.name.to_owned();
        Self {
            name,
            compiled: backend.compiled,
            present: false,
            detail: why,
            dtypes: Vec::new(),
            memory_bytes: None,
        }
    }
}

/// A backend: how its devices are opened and described.
struct Backend {
    /// Its name, also that of its cargo feature.
    name: &'static str,
    /// Whether this binary contains it.
    compiled: bool,
    /// Whether it has several devices, `name:1`.
    numbered: bool,
    /// Opens a device by number, or says what is missing.
    open: fn(usize) -> Result<Device, String>,
    /// What there is of it.
    list: fn() -> Result<Vec<DeviceInfo>, String>,
    /// Whether `auto` may take it: whether it is faster than what follows.
    preferred: fn() -> bool,
}

/// Every backend this project knows, the fastest first: the order in which `auto` looks.
const BACKENDS: [Backend; 5] =
    [cuda::CUDA, graphics::VULKAN, graphics::WGPU, cpu::FLEX, cpu::NDARRAY];

/// Opens the device of that name: `cpu` (= `flex`), `flex`, `ndarray`, `wgpu`, `vulkan`, `cuda`,
/// `cuda:1`, or `auto`, the fastest that works here.
pub fn open(name: &str) -> Result<Device, Failure> {
    if name == "auto" {
        return automatic(&BACKENDS);
    }
    let (base, number) =
        name.split_once(':').map_or((name, None), |(base, number)| (base, Some(number)));
    let base = if base == "cpu" { "flex" } else { base };
    let Some(backend) = BACKENDS.iter().find(|backend| backend.name == base) else {
        return Err(Failure::input(format!(
            "unknown device \"{name}\"; available here: {}",
            available()
        )));
    };
    let index = match number {
        None => 0,
        Some(number) => number.parse().ok().filter(|_| backend.numbered).ok_or_else(|| {
            Failure::input(format!(
                "unknown device \"{name}\": only cuda has numbers, as in \"cuda:1\""
            ))
        })?,
    };
    open_on(backend, index).map_err(|why| {
        Failure::input(format!("device \"{name}\" {why}; available here: {}", available()))
    })
}

/// Opens the processor: for work that a GPU does no faster.
pub fn open_host() -> Result<Device, Failure> {
    automatic(&[cpu::FLEX, cpu::NDARRAY]).or_else(|_| open("auto"))
}

/// Bytes that a run may take on the device: what the host has free, or a GPU's memory, of which
/// nobody says what is free.
pub fn free_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if ist_core::operation::cube::is_gpu(device) {
        return ist_core::operation::cube::memory_of(device);
    }
    let _ = device;
    on_host()
}

/// What the device calls itself.
pub fn name_of(device: &Device) -> String {
    #[cfg(feature = "cube")]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    let _ = device;
    "the processor".to_owned()
}

fn automatic(backends: &[Backend]) -> Result<Device, Failure> {
    let mut compiled = backends.iter().filter(|backend| backend.compiled && (backend.preferred)());
    compiled.find_map(|backend| (backend.open)(0).ok()).ok_or_else(|| {
        Failure::input(format!(
            "no device of this build works here; `ist devices` says why; available: {}",
            available()
        ))
    })
}

fn open_on(backend: &Backend, index: usize) -> Result<Device, String> {
    if !backend.compiled {
        return Err(format!("is {}", missing(backend)));
    }
    (backend.open)(index).map_err(|why| format!("cannot be opened: {why}"))
}

/// The devices of every backend.
pub fn list() -> Vec<DeviceInfo> {
    let of = |backend: &Backend| {
        let found = if backend.compiled { (backend.list)() } else { Err(missing(backend)) };
        found.unwrap_or_else(|why| vec![DeviceInfo::absent(backend, why)])
    };
    BACKENDS.iter().flat_map(of).collect()
}

fn available() -> String {
    let names: Vec<String> =
        list().into_iter().filter(|device| device.present).map(|device| device.name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn missing(backend: &Backend) -> String {
    format!("not compiled in: build with the feature `{}`", backend.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_absent_is_refused_with_what_is_available() {
        for name in ["cuda:1", "vulkan"] {
            let failure = open(name).unwrap_err();
            let message = failure.to_string();
            assert!(
                message.contains(name) && message.contains("available here: flex"),
                "{message}"
            );
            assert_eq!(failure.exit_code(), 2);
        }
    }

    #[test]
    fn a_name_that_nothing_has_is_refused() {
        for name in ["tpu", "flex:1", "cuda:first", ""] {
            let message = open(name).unwrap_err().to_string();
            assert!(message.contains("unknown device"), "{message}");
        }
    }

    #[test]
    fn auto_and_the_host_open_something() {
        assert!(open("auto").is_ok());
        assert_eq!(open_host().unwrap(), open("cpu").unwrap());
    }

    #[test]
    fn every_backend_is_listed_once_at_least() {
        let names: Vec<String> = list().into_iter().map(|device| device.name).collect();
        assert_eq!(names[names.len() - 2..], ["flex", "ndarray"]);
        assert!(
            ["wgpu", "vulkan", "cuda"].iter().all(|name| names.iter().any(|known| known == name)),
            "{names:?}"
        );
    }
}
