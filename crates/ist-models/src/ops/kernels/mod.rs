//! The operations' kernels for GPUs, one operation a file: in f32, with every element read as seldom as the formula allows.

pub(super) mod attention;
pub(super) mod cross_entropy;
pub(super) mod gated;
pub(super) mod rms_norm;
pub(super) mod rope;
