//! Learning-rate schedules with warm-up, as transformers computes them.

use serde::{Deserialize, Serialize};

/// How the learning rate moves after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Falls linearly to 0 at the last step.
    #[default]
    Linear,
    /// Falls to 0 along half a cosine.
    Cosine,
    /// Stays.
    Constant,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Schedule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        crate::schema::choice(&[Self::Linear, Self::Cosine, Self::Constant])
    }
}

impl Schedule {
    /// The factor on the base rate in optimizer step `step` (0, 1, …) of `total`.
    ///
    /// During warm-up it is `step / warmup`, so the first step's rate is 0. After it, with
    /// p = (step - warmup) / (total - warmup), it is 1 - p (linear), (1 + cos πp) / 2 (cosine) or 1
    /// (constant).
    pub fn factor(self, step: usize, warmup: usize, total: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        // A warm-up may be longer than the run, and a run may go on beyond its schedule's end.
        let span = total.saturating_sub(warmup).max(1);
        let progress = ((step - warmup) as f64 / span as f64).min(1.0);
        match self {
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Self::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_starts_at_zero_and_reaches_the_full_rate() {
        let factors: Vec<f64> = (0..5).map(|step| Schedule::Linear.factor(step, 4, 8)).collect();
        assert_eq!(factors, [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn schedules_end_where_they_say() {
        assert_eq!(Schedule::Linear.factor(7, 4, 8), 0.25);
        assert!((Schedule::Cosine.factor(6, 4, 8) - 0.5).abs() < 1e-15);
        assert_eq!(Schedule::Constant.factor(7, 4, 8), 1.0);
        assert_eq!(Schedule::Linear.factor(9, 4, 8), 0.0);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_divides_by_zero() {
        assert_eq!(Schedule::Linear.factor(3, 10, 4), 0.3);
        assert!(Schedule::Cosine.factor(10, 10, 10).is_finite());
    }
}
