//! Dynamic loss scaling (Micikevicius et al., [arXiv 1710.03740](https://arxiv.org/abs/1710.03740)) for gradients in half precision.
//!
//! Gradients below 6e-8 vanish in f16. The backward pass starts from S · loss, so that they do not, and the parameters'
//! gradients are divided by S afterwards. S is a power of two, so both are exact. A step whose gradients overflow is skipped and
//! halves S; after 2000 good steps in a row S doubles: the constants of `torch.amp.GradScaler`. What differs: a skipped step
//! counts as a step, of the schedule and of the policy too.

use serde::{Deserialize, Serialize};

const START: f64 = 65_536.0;
const INTERVAL: u32 = 2000;

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

    /// Whether S can be halved once more: below 1 it is not the scale that makes gradients overflow.
    pub fn can_fall(&self) -> bool {
        self.scale > 1.0
    }

    /// What the next step is to be scaled by, after one whose gradients were all `finite` or not.
    #[must_use]
    pub fn after(self, finite: bool) -> Self {
        match (finite, self.good_steps + 1) {
            (false, _) => Self { scale: self.scale / 2.0, good_steps: 0 },
            (true, INTERVAL..) => Self { scale: self.scale * 2.0, good_steps: 0 },
            (true, good_steps) => Self { good_steps, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_halves_the_scale_and_two_thousand_good_steps_double_it() {
        let halved = LossScale::default().after(true).after(false);
        assert_eq!((halved.scale(), halved.good_steps), (32_768.0, 0));
        let grown = (0..2000).fold(halved, |scale, _| scale.after(true));
        assert_eq!((grown.scale(), grown.good_steps), (65_536.0, 0));
        assert_eq!((0..1999).fold(halved, |scale, _| scale.after(true)).scale(), 32_768.0);
    }

    #[test]
    fn it_falls_to_one_and_no_further() {
        let least = (0..16).fold(LossScale::default(), |scale, _| scale.after(false));
        assert_eq!((least.scale(), least.can_fall()), (1.0, false));
    }
}
