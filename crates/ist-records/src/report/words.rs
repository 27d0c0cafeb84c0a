//! What a comparison says, in words that its interval allows.

use std::collections::BTreeSet;

use super::comparison::{At, Comparison, Matched, Row, Unit};
use super::format;
use super::table::Table;

impl At {
    /// Its title.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::End => "At each run's end",
            Self::Steps => "After as many steps",
            Self::Seconds => "After as much time",
            Self::Bytes => "Within as much memory",
        }
    }

    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Steps => "steps",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// The tables of a comparison, one a figure.
pub(super) fn tables(matched: &Matched, baseline: &str) -> Vec<Table> {
    if matched.at == At::Bytes {
        return if matched.budgets.is_empty() {
            Vec::new()
        } else {
            vec![budgets(matched, baseline)]
        };
    }
    matched.comparisons.iter().map(|comparison| table(comparison, baseline)).collect()
}

fn table(comparison: &Comparison, baseline: &str) -> Table {
    let caption = capital(&comparison.figure);
    let difference = format!("difference from {baseline}");
    let headers = [
        "group",
        "reading",
        "seeds",
        "mean ± standard deviation",
        "least",
        "greatest",
        &difference,
        "95 % interval",
        "seeds in common",
    ];
    let mut table = Table::new(caption, 2, &headers);
    let row = |row: &Row| {
        let unit = comparison.unit;
        let extremes =
            [row.moments.least, row.moments.greatest].map(|value| format::value(unit, value));
        let words =
            [row.name.clone(), reading(row, baseline).to_owned(), row.moments.n.to_string()];
        let [difference, interval, common] = compared(row, unit);
        let numbers = [format::moments(unit, &row.moments)].into_iter().chain(extremes);
        words.into_iter().chain(numbers).chain([difference, interval, common]).collect()
    };
    table.rows = comparison.rows.iter().map(row).collect();
    table
}

/// Difference, interval and seeds in common.
fn compared(row: &Row, unit: Unit) -> [String; 3] {
    let none = || [format::NONE, format::NONE, format::NONE].map(str::to_owned);
    row.difference.as_ref().map_or_else(none, |difference| {
        let mean = format::difference(unit, difference.moments.mean);
        [mean, format::interval(unit, difference.interval), difference.moments.n.to_string()]
    })
}

/// What the row allows to say.
fn reading(row: &Row, baseline: &str) -> &'static str {
    match &row.difference {
        None if row.name == baseline => "baseline",
        None => "no seed in common",
        Some(difference) => match difference.sign() {
            None => "one seed: no interval",
            Some(0) => "no difference shown",
            Some(sign) if sign < 0 => "lower",
            Some(_) => "higher",
        },
    }
}

fn budgets(matched: &Matched, baseline: &str) -> Table {
    let difference = format!("difference from {baseline}");
    let headers = [
        "memory",
        "groups within it",
        "best of them",
        "figure",
        "mean ± standard deviation",
        "seeds",
        &difference,
        "95 % interval",
    ];
    let mut table = Table::new("The best group within each group's greatest peak", 4, &headers);
    for budget in &matched.budgets {
        let [difference, interval, _] = compared(&budget.best, Unit::Loss);
        let words = [
            format::bytes(budget.bytes),
            budget.within.join(", "),
            budget.best.name.clone(),
            budget.figure.clone(),
        ];
        let numbers = [
            format::moments(Unit::Loss, &budget.best.moments),
            budget.best.moments.n.to_string(),
            difference,
            interval,
        ];
        table.rows.push(words.into_iter().chain(numbers).collect());
    }
    table
}

/// What is to be known of the intervals of these comparisons: every case that occurs, the fewest
/// seeds first.
pub(super) fn caution(matched: &[Matched], baseline: &str) -> String {
    let comparisons = || matched.iter().flat_map(|matched| &matched.comparisons);
    let seeds: BTreeSet<usize> = comparisons()
        .flat_map(|found| &found.rows)
        .filter_map(|row| row.difference.as_ref())
        .map(|found| found.moments.n)
        .collect();
    if seeds.is_empty() {
        return nothing_compared(comparisons(), baseline);
    }
    let told: BTreeSet<String> = seeds.into_iter().filter_map(caution_of).collect();
    told.into_iter().collect::<Vec<_>>().join(" ")
}

/// Why there is no difference at all.
fn nothing_compared<'a>(
    comparisons: impl Iterator<Item = &'a Comparison>,
    baseline: &str,
) -> String {
    let mut others = false;
    for comparison in comparisons {
        if comparison.rows.iter().any(|row| row.name == baseline) {
            others = false;
            break;
        }
        others |= !comparison.rows.is_empty();
    }
    if others {
        return format!(
            "Nothing is compared yet: no run of the baseline, {baseline}, has come to its end."
        );
    }
    "Nothing is compared: it takes two groups with a seed in common, of runs that came to their \
     end."
        .to_owned()
}

/// What is to be known of an interval of that many differences.
fn caution_of(differences: usize) -> Option<String> {
    let text = match differences {
        1 => {
            "Some groups have a single seed in common with the baseline: such a difference has no \
             interval, and nothing \
             is claimed of it. More seeds would tell."
        }
        2 => {
            "Few seeds: an interval of two differences reaches from one to the other and holds the \
             true mean in half of \
             all cases only, not in 95 %. More seeds would tell."
        }
        3 => {
            "Few seeds: an interval of three differences reaches from the least to the greatest \
             and holds the true mean \
             in three quarters of all cases only, not in 95 %. More seeds would tell."
        }
        4..10 => {
            return Some(format!(
                "Few seeds: with {differences} differences a bootstrap interval is narrower than \
                 it should be for 95 %."
            ));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::statistics::{Moments, differences};

    fn row(name: &str, values: &[f64], baseline: Option<&[f64]>) -> Row {
        let seeds = |values: &[f64]| -> BTreeMap<u64, f64> {
            values.iter().enumerate().map(|(seed, value)| (seed as u64, *value)).collect()
        };
        let difference =
            baseline.and_then(|baseline| differences(&seeds(values), &seeds(baseline)));
        Row {
            group: 0,
            name: name.to_owned(),
            by_seed: seeds(values),
            moments: Moments::of(values).unwrap(),
            difference,
        }
    }

    #[test]
    fn nothing_is_claimed_without_an_interval_that_leaves_out_zero() {
        let baseline = [1.0, 2.0, 3.0, 4.0];
        let cases = [
            (row("all", &baseline, None), "baseline"),
            (row("x", &baseline, None), "no seed in common"),
            (row("x", &[0.0], Some(&baseline)), "one seed: no interval"),
            (row("x", &[0.5, 2.5, 2.5, 4.5], Some(&baseline)), "no difference shown"),
            (row("x", &[0.5, 1.0, 2.5, 3.0], Some(&baseline)), "lower"),
            (row("x", &[1.5, 3.0, 3.5, 5.0], Some(&baseline)), "higher"),
        ];
        for (row, expected) in cases {
            assert_eq!(reading(&row, "all"), expected, "{row:?}");
        }
    }

    #[test]
    fn few_seeds_are_told_of() {
        let matched = |seeds: usize| {
            let values: Vec<f64> = (0..seeds).map(|seed| seed as f64).collect();
            let rows = vec![row("x", &values, Some(&values))];
            let comparisons =
                vec![Comparison { figure: "loss".to_owned(), unit: Unit::Loss, rows }];
            [Matched { at: At::End, budget: String::new(), comparisons, budgets: Vec::new() }]
        };
        for (seeds, expected) in
            [(1, "no interval"), (2, "in half"), (3, "three quarters"), (5, "with 5"), (12, "")]
        {
            let told = caution(&matched(seeds), "all");
            assert!(
                if expected.is_empty() { told.is_empty() } else { told.contains(expected) },
                "{seeds}: {told}"
            );
        }
        // A group with a single seed hides nothing of the others.
        let [one] = matched(1);
        let [two] = matched(2);
        let told = caution(&[one, two], "all");
        assert!(told.contains("no interval") && told.contains("in half"), "{told}");
        assert!(caution(&[], "all").contains("Nothing is compared: it takes two groups"));
    }

    #[test]
    fn a_baseline_that_still_runs_is_told_of() {
        let rows = vec![row("ist", &[1.0, 2.0], None)];
        let comparisons = vec![Comparison { figure: "loss".to_owned(), unit: Unit::Loss, rows }];
        let matched =
            [Matched { at: At::End, budget: String::new(), comparisons, budgets: Vec::new() }];
        let told = caution(&matched, "all");
        assert!(told.contains("no run of the baseline, all, has come to its end"), "{told}");
    }
}
