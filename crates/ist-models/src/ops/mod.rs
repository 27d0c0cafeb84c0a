//! The operations decoders are made of, one a file: the formula on any backend, its derivative, and a fast form for `flex`.

pub mod activate;
pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod gated;
#[cfg(feature = "cube")]
mod kernels;
pub mod layer_norm;
pub mod linear_cross_entropy;
pub mod rms_norm;
pub mod rope;
