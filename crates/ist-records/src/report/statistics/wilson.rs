//! The interval of a share.

use super::bootstrap::Interval;

/// The normal distribution's 97.5 % point.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % Wilson interval of `correct` out of `records`; `None` of no record.
///
/// (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). It stays within 0 and 1 and is an interval at
/// 0 and 1 too.
pub fn wilson(correct: f64, records: f64) -> Option<Interval> {
    if !(records > 0.0 && (0.0..=records).contains(&correct)) {
        return None;
    }
    let (share, part) = (correct / records, Z * Z / records);
    let middle = share + part / 2.0;
    let half = Z * (share * (1.0 - share) / records + part / (4.0 * records)).sqrt();
    let [low, high] = [middle - half, middle + half].map(|bound| bound / (1.0 + part));
    // Rounding must not put the ends of [0, 1] outside their own intervals.
    Some(Interval { low: low.clamp(0.0, share), high: high.clamp(share, 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_right_or_all_of_them_is_still_an_interval() {
        // At 0 of n the upper end is z² / (n + z²).
        let none = wilson(0.0, 10.0).unwrap();
        assert!(none.low == 0.0 && (none.high - Z * Z / (10.0 + Z * Z)).abs() < 1e-12);
        let all = wilson(10.0, 10.0).unwrap();
        assert!(1.0 - all.high < 1e-12 && (all.low - (1.0 - none.high)).abs() < 1e-12);
        assert!(wilson(1.0, 0.0).is_none() && wilson(3.0, 2.0).is_none());
    }
}
