//! A run's folder: what is written, when, and how a run goes on after it was cut off.

pub mod checkpoint;
pub mod digests;
pub mod failed;
pub mod folder;
pub mod lines;
pub mod result;
pub mod tensorboard;
pub mod whole_folder;
