//! Dynamic loss scaling (Micikevicius et al., [arXiv 1710.03740](https://arxiv.org/abs/1710.03740))
//! for gradients in half precision.
//!
//! Gradients below 6e-8 vanish in f16. The backward pass therefore starts from S · loss, and the
//! parameters' gradients are divided by S afterwards. S is a power of two, so both are exact. A
//! step whose gradients overflow is skipped and halves S. After 2000 good steps in a row S doubles.
//! These are the constants of `torch.amp.GradScaler`. One thing differs: a skipped step counts as a
//! step, for the schedule and for the policy too.

use serde::{Deserialize, Serialize};

/// S of the first step.
const START: f64 = 65_536.0;

/// Good steps in a row after which S doubles.
const INTERVAL: u32 = 2000;

/// Whether a step's gradients were all finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// All were.
    Finite,
    /// At least one was not, so the step was skipped.
    Overflow,
}

/// The factor S and the good steps since it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    scale: f64,
    good_steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: START, good_steps: 0 }
    }
}

impl LossScale {
    /// S.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Whether S can be halved once more. At 1 the scale is not what makes gradients overflow.
    pub fn can_fall(&self) -> bool {
        self.scale > 1.0
    }

    /// The scale of the next step, after one with that outcome.
    #[must_use]
    pub fn after(self, outcome: StepOutcome) -> Self {
        let good_steps = self.good_steps + 1;
        match outcome {
            StepOutcome::Overflow => Self { scale: self.scale / 2.0, good_steps: 0 },
            StepOutcome::Finite if good_steps >= INTERVAL => {
                Self { scale: self.scale * 2.0, good_steps: 0 }
            }
            StepOutcome::Finite => Self { good_steps, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_good_steps(scale: LossScale, steps: usize) -> LossScale {
        (0..steps).fold(scale, |scale, _| scale.after(StepOutcome::Finite))
    }

    #[test]
    fn an_overflow_halves_the_scale_and_two_thousand_good_steps_double_it() {
        let halved = after_good_steps(LossScale::default(), 1).after(StepOutcome::Overflow);
        assert_eq!((halved.scale(), halved.good_steps), (32_768.0, 0));
        let grown = after_good_steps(halved, 2000);
        assert_eq!((grown.scale(), grown.good_steps), (65_536.0, 0));
        assert_eq!(after_good_steps(halved, 1999).scale(), 32_768.0);
    }

    #[test]
    fn it_falls_to_one_and_no_further() {
        let halve = |scale: LossScale, _| scale.after(StepOutcome::Overflow);
        let least = (0..16).fold(LossScale::default(), halve);
        assert_eq!((least.scale(), least.can_fall()), (1.0, false));
    }
}
