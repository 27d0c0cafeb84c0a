//! The conformance suite: one list of checks of any device against `ndarray` in f64.
//!
//! A backend is right when it computes what the reference does. Values and gradients are compared
//! relative to the largest number of each; a check that holds gives its distance, so that a device
//! that is worse than others can be seen before it is wrong. `ist selftest` runs the list on a
//! user's machine, a test runs it on WGSL.

mod attentions;
mod growth;
mod methods;
mod numbers;
mod operations;
mod storage;
mod training;

use ist_core::burn::tensor::Device;
use ist_files::untrusted::contained_in_pool;
use serde::Serialize;

pub use numbers::Numbers;

/// How far a check is from the reference, why it does not apply, or what went wrong.
pub type Found = Result<Outcome, String>;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The largest distance, relative to the largest number of its kind.
    Distance(f64),
    /// The device does not claim this.
    Skipped(String),
}

/// One check.
pub struct Check {
    /// What it belongs to: operations, methods, training, storage or growth.
    pub group: &'static str,
    /// What it compares.
    pub name: String,
    /// How far it may be from the reference.
    pub tolerance: f64,
    /// Compares a device with the reference.
    run: Box<dyn Fn(&Device) -> Found>,
}

impl Check {
    fn new(
        group: &'static str,
        name: impl Into<String>,
        tolerance: f64,
        run: impl Fn(&Device) -> Found + 'static,
    ) -> Self {
        Self { group, name: name.into(), tolerance, run: Box::new(run) }
    }
}

/// One check's line in a report.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What it belongs to.
    pub group: &'static str,
    /// What it compares.
    pub name: String,
    /// How far it is from the reference.
    pub distance: Option<f64>,
    /// How far it may be.
    pub tolerance: f64,
    /// Whether it holds; a skipped one does.
    pub holds: bool,
    /// Why it was skipped or what went wrong.
    pub detail: Option<String>,
}

/// Every check, the quick ones first.
pub fn checks() -> Vec<Check> {
    [
        operations::checks(),
        storage::checks(),
        methods::checks(),
        training::checks(),
        growth::checks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs one check on a device. A backend that panics has failed the check.
pub fn run(check: &Check, device: &Device) -> Line {
    let found = contained_in_pool(|| (check.run)(device));
    let found = found.unwrap_or_else(|panic| Err(format!("panicked: {panic}")));
    let (distance, holds, detail) = match found {
        Ok(Outcome::Distance(distance)) => (Some(distance), distance <= check.tolerance, None),
        Ok(Outcome::Skipped(why)) => (None, true, Some(why)),
        Err(why) => (None, false, Some(why)),
    };
    Line {
        group: check.group,
        name: check.name.clone(),
        distance,
        tolerance: check.tolerance,
        holds,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(found: impl Fn(&Device) -> Found + 'static) -> Line {
        run(&Check::new("test", "a check", 0.5, found), &Device::flex())
    }

    #[test]
    fn a_check_that_is_too_far_or_panics_does_not_hold() {
        assert!(line(|_| Ok(Outcome::Distance(0.5))).holds);
        assert!(line(|_| Ok(Outcome::Skipped("no such type".to_owned()))).holds);
        assert!(!line(|_| Ok(Outcome::Distance(0.6))).holds);
        assert!(!line(|_| Ok(Outcome::Distance(f64::NAN))).holds);
        assert!(!line(|_| Err("a result is no finite number".to_owned())).holds);
        let panicked = line(|_| panic!("a kernel failed\nat a place"));
        assert_eq!(
            (panicked.holds, panicked.detail.as_deref()),
            (false, Some("panicked: a kernel failed"))
        );
    }

    #[test]
    fn a_number_that_differs_has_a_distance() {
        let (found, expected) = ([vec![1.0, 2.0]], [vec![1.0, 4.0]]);
        assert_eq!(numbers::distance(&found, &expected), Ok(0.5));
        assert!(numbers::distance(&[vec![f64::NAN, 4.0]], &expected).is_err());
        assert!(numbers::distance(&[vec![4.0]], &expected).is_err());
        assert!(numbers::distance(&[vec![0.0]], &[vec![0.0]]).is_err(), "nothing is compared");
    }
}
