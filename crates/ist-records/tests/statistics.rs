//! The statistics of reports against NumPy and SciPy; `fixtures/statistics/generate.py` writes
//! their numbers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ist_records::report::statistics::{Moments, mean_interval, quantile, wilson};
use serde_json::Value;

fn expected(part: &str) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(include_str!("fixtures/statistics/expected.json")).unwrap();
    document[part].as_array().unwrap().clone()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

#[test]
fn moments_and_quantiles_are_numpys() {
    for sample in expected("samples") {
        let mut values = numbers(&sample["values"]);
        let moments = Moments::of(&values).unwrap();
        assert!((moments.mean - number(&sample["mean"])).abs() < 1e-12, "{sample}");
        assert!(
            (moments.deviation.unwrap() - number(&sample["deviation"])).abs() < 1e-12,
            "{sample}"
        );
        values.sort_by(f64::total_cmp);
        for (share, value) in sample["quantiles"].as_object().unwrap() {
            assert!(
                (quantile(&values, share.parse().unwrap()) - number(value)).abs() < 1e-12,
                "{share}: {sample}"
            );
        }
    }
}

/// SciPy's twenty intervals of a sample differ by its draws alone; ours may be as far from them as
/// a fiftieth of the interval.
#[test]
fn bootstrap_intervals_are_scipys_but_for_the_draws() {
    for sample in expected("samples") {
        let interval = mean_interval(&numbers(&sample["values"])).unwrap();
        let others: Vec<Vec<f64>> =
            sample["intervals"].as_array().unwrap().iter().map(numbers).collect();
        for (end, ours) in [interval.low, interval.high].into_iter().enumerate() {
            let ends: Vec<f64> = others.iter().map(|other| other[end]).collect();
            let (least, greatest) = ends
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
            let room = 0.02 * (interval.high - interval.low);
            assert!((least - room..=greatest + room).contains(&ours), "{ours} {ends:?} {sample}");
        }
    }
}

#[test]
fn shares_have_wilsons_interval() {
    for share in expected("shares") {
        let interval = wilson(number(&share["correct"]), number(&share["records"])).unwrap();
        let ends = numbers(&share["interval"]);
        assert!(
            (interval.low - ends[0]).abs() < 1e-12 && (interval.high - ends[1]).abs() < 1e-12,
            "{share}"
        );
    }
}
