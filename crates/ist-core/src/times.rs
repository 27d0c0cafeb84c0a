//! Where the time of a step goes.
//!
//! Seconds differ from run to run, so they stand apart from what a step computes: a step's report
//! can be compared with another's as it is.

use std::ops::AddAssign;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Seconds of the parts of one step, as its host sees them: a device that queues its work is waited
/// for where a number is read, which is at the end of the forward pass and where gradients are
/// measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The forward pass up to the loss.
    pub forward: f64,
    /// The second forward pass of layers, or halves of layers, whose graph was not kept.
    pub recompute: f64,
    /// The vector-Jacobian products.
    pub backward: f64,
    /// The gradient norm, clipping, the updates, and moments that come and go.
    pub optimizer: f64,
}

impl Times {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.forward + self.recompute + self.backward + self.optimizer
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.recompute += other.recompute;
        self.backward += other.backward;
        self.optimizer += other.optimizer;
    }
}

/// Does `work` and adds the seconds it took.
pub(crate) fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    *seconds += started.elapsed().as_secs_f64();
    done
}
