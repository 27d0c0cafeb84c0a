//! What is frozen: weights in their storage type, the modules that hold them, and the operations on
//! them, each with a backward pass of its own.

mod base;
pub(crate) mod blended;
pub(crate) mod dora_linear;
pub(crate) mod dora_norm;
pub(crate) mod dropout;
pub mod half;
pub mod int8;
pub(crate) mod linear;
pub(crate) mod lookup;
pub(crate) mod lora_linear;
pub(crate) mod matrix;
#[cfg(feature = "flex")]
pub mod product;
pub(crate) mod rescaled;
#[cfg(test)]
mod testing;
pub(crate) mod weight;

pub(crate) use base::add_bias;
pub use base::{Base, BaseMut, FrozenLinear, FrozenNorm, NormValues};
pub use blended::blended;
pub use dropout::dropout;
pub use int8::Int8Matrix;
pub use linear::linear;
pub use lookup::lookup;
pub use matrix::{FrozenMatrix, PANEL, Stored};
pub use weight::Weight;
