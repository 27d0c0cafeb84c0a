//! The operations' kernels for GPUs, one operation a file: f32, each element read from memory as often as the formula needs it.

pub(super) mod attention;
pub(super) mod rms_norm;
