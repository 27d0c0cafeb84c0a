//! The float types that a device knows.

use ist_core::burn::tensor::{DType, Device};

use ist_records::Failure;

/// What weights can be kept in.
const STORAGE: [(DType, &str); 4] = [
    (DType::F32, "float32"),
    (DType::BF16, "bfloat16"),
    (DType::F16, "float16"),
    (DType::I8, "int8"),
];

/// Fails when a device cannot keep weights as `storage`.
pub fn check_storage(device: &Device, storage: DType) -> Result<(), Failure> {
    if device.supports_dtype(storage) {
        return Ok(());
    }
    let can: Vec<&str> = STORAGE
        .iter()
        .filter(|(dtype, _)| device.supports_dtype(*dtype))
        .map(|(_, name)| *name)
        .collect();
    let name =
        STORAGE.iter().find(|(dtype, _)| *dtype == storage).map_or("this type", |(_, name)| *name);
    Err(Failure::input(format!(
        "the device cannot keep weights in {name}; set `model.dtype` to one of {}",
        can.join(", ")
    )))
}

/// Float types that the device computes with.
pub(super) fn float_types(device: &Device) -> Vec<&'static str> {
    [
        (DType::F32, "float32"),
        (DType::F64, "float64"),
        (DType::BF16, "bfloat16"),
        (DType::F16, "float16"),
    ]
    .into_iter()
    .filter(|(dtype, _)| device.supports_dtype(*dtype))
    .map(|(_, name)| name)
    .collect()
}
