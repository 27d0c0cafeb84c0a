//! The records of training runs, and what reads them.
//!
//! This crate knows neither tensors nor models. What it knows of a run is its folder.
//!
//! | to read about | look at |
//! |---|---|
//! | the lines and documents of a run's folder, its lock, logs that are cut back on resume | [`record`] |
//! | runs of any state as one page, as tables and as figures | [`report`] |
//! | a run on the whole terminal while it goes on | [`live`] |
//! | many runs that processes and machines share: claims, the schedule, job arrays | [`study`] |
//! | the only way to stdout and stderr, progress, being asked to stop | [`terminal`] |
//! | how a command fails, and with which exit code | [`Failure`] |

mod failure;
pub mod live;
pub mod record;
pub mod report;
pub mod study;
pub mod terminal;

pub use failure::{Failure, OrFail};
