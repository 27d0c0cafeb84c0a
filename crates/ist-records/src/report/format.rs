//! Numbers as a person reads them.

use super::comparison::Unit;
use crate::report::statistics::{Interval, Moments};
use crate::terminal::human;

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

/// A value in its unit.
pub(super) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Loss => format!("{value:.4}"),
        Unit::Share => format!("{:.1} %", 100.0 * value),
        Unit::Seconds if value.abs() < 10.0 => format!("{value:.2} s"),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Bytes => bytes(value),
        Unit::Steps => format!("{value:.0}"),
    }
}

/// A difference in its unit, with its sign; shares differ by points.
pub(super) fn difference(unit: Unit, of: f64) -> String {
    let sign = if of < 0.0 { "−" } else { "+" };
    match unit {
        Unit::Share => format!("{sign}{:.1} points", 100.0 * of.abs()),
        Unit::Bytes if of == 0.0 => bytes(of),
        unit => format!("{sign}{}", value(unit, of.abs())),
    }
}

/// Mean and standard deviation; the mean alone of one number.
pub(super) fn moments(unit: Unit, of: &Moments) -> String {
    let mean = value(unit, of.mean);
    of.deviation.map_or(mean.clone(), |deviation| format!("{mean} ± {}", value(unit, deviation)))
}

/// An interval of differences.
pub(super) fn interval(unit: Unit, of: Option<Interval>) -> String {
    of.map_or(NONE.to_owned(), |Interval { low, high }| {
        format!("{} to {}", difference(unit, low), difference(unit, high))
    })
}

/// Bytes in a unit that fits.
pub(super) fn bytes(value: f64) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    human(value.max(0.0) as usize)
}

/// A value that may be missing.
pub(super) fn or_none(unit: Unit, of: Option<f64>) -> String {
    of.filter(|number| number.is_finite()).map_or(NONE.to_owned(), |number| value(unit, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_its_sign_and_a_share_points() {
        assert_eq!(difference(Unit::Loss, -0.0125), "−0.0125");
        assert_eq!(difference(Unit::Share, 0.125), "+12.5 points");
        assert_eq!(value(Unit::Share, 0.125), "12.5 %");
        assert_eq!(
            interval(Unit::Seconds, Some(Interval { low: -1.5, high: 20.0 })),
            "−1.50 s to +20.0 s"
        );
        assert_eq!(
            (interval(Unit::Loss, None), or_none(Unit::Loss, Some(f64::NAN))),
            (NONE.to_owned(), NONE.to_owned())
        );
        assert_eq!(moments(Unit::Loss, &Moments::of(&[1.0]).unwrap()), "1.0000");
    }
}
