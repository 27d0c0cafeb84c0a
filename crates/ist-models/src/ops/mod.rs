//! The operations decoders are made of, one a file, each on any backend.

pub mod attention;
pub mod cross_entropy;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
