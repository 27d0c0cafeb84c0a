//! The machine that a command runs on: devices, threads, memory.

pub mod device;
pub mod free_memory;
pub mod live_bytes;
pub mod threads;
