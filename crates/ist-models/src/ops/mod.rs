//! The operations that decoders are made of, one a room.
//!
//! Each room holds all forms of its operation. `mod.rs` has the formula on any backend, its
//! derivative, and what a memory plan counts for it. `flex.rs` has the form for the processor,
//! which works on slices. `cube.rs` has the kernels for GPUs. A form that a room lacks is the
//! formula.

pub mod activate;
pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod gated;
pub mod layer_norm;
pub mod linear_cross_entropy;
pub mod rms_norm;
pub mod rope;
mod rows;
