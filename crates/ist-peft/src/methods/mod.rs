//! The PEFT methods of this crate, one file each.

pub mod bitfit;
pub mod bottleneck;
pub mod dora;
pub mod full;
pub mod ia3;
pub mod layernorm;
pub mod lora;
pub mod prefix;
pub mod vera;
