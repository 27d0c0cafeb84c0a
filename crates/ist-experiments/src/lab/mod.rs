//! Measuring a device: whether it computes what the reference does, and how fast it steps.

pub mod bench;
pub mod selftest;
