//! Curves of thousands of steps in a few hundred points.
//!
//! A curve is cut into as many stretches of equal length as it may have points. Of a stretch of the
//! raw losses the least and the greatest stay, so that no spike is lost; of the smoothed losses the
//! last one does.

use super::record::{RunRecord, Step};

/// Points of a curve at most.
pub(super) const POINTS: usize = 240;
/// The part of a run's steps whose losses are averaged for a smoothed one.
const WINDOW: f64 = 0.04;

/// (step, loss) of every step, thinned to the extremes of each stretch.
pub(crate) fn raw(run: &RunRecord) -> Vec<(f64, f64)> {
    stretches(&run.steps, POINTS / 2).flat_map(extremes).collect()
}

/// (step, mean loss of the steps up to it), thinned.
pub(crate) fn smoothed(run: &RunRecord) -> Vec<(f64, f64)> {
    let window = window(run);
    let mean = |end: usize| {
        let within = &run.steps[(end + 1).saturating_sub(window)..=end];
        let finite: Vec<f64> =
            within.iter().map(|step| step.loss).filter(|loss| loss.is_finite()).collect();
        (run.steps[end].step as f64, finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let ends: Vec<usize> = (0..run.steps.len()).collect();
    stretches(&ends, POINTS).filter_map(|stretch| stretch.last().map(|end| mean(*end))).collect()
}

/// How many steps a smoothed loss is the mean of.
pub(super) fn window(run: &RunRecord) -> usize {
    ((run.steps.len() as f64 * WINDOW) as usize).max(5)
}

/// `items` in at most so many stretches of equal length, the last may be shorter.
pub(super) fn stretches<T>(items: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    items.chunks(items.len().div_ceil(most.max(1)).max(1))
}

/// The least and the greatest loss of a stretch in their order; a stretch without a finite one is a
/// gap.
fn extremes(stretch: &[Step]) -> Vec<(f64, f64)> {
    let finite = || stretch.iter().filter(|step| step.loss.is_finite());
    let by = |a: &&Step, b: &&Step| a.loss.total_cmp(&b.loss);
    let Some((least, greatest)) = finite().min_by(by).zip(finite().max_by(by)) else {
        return vec![(stretch[0].step as f64, f64::NAN)];
    };
    let point = |step: &Step| (step.step as f64, step.loss);
    match least.step.cmp(&greatest.step) {
        std::cmp::Ordering::Equal => vec![point(least)],
        std::cmp::Ordering::Less => vec![point(least), point(greatest)],
        std::cmp::Ordering::Greater => vec![point(greatest), point(least)],
    }
}

/// The scores of all layers over time: (first step, step behind the last, scores), thinned to the
/// means of at most so many stretches. Scores begin at 0 and hold from one update to the next.
pub(crate) fn scores(run: &RunRecord, most: usize) -> Vec<(f64, f64, Vec<f64>)> {
    let Some((first, scores)) = run.updates.first() else { return Vec::new() };
    let end = run
        .steps
        .last()
        .map_or(0, |step| step.step + 1)
        .max(run.updates.last().map_or(0, |(step, _)| step + 1));
    let mut held = vec![(0, *first, vec![0.0; scores.len()])];
    let ends = run.updates.iter().skip(1).map(|(step, _)| *step).chain([end]);
    held.extend(
        run.updates.iter().zip(ends).map(|((from, scores), to)| (*from, to, scores.clone())),
    );
    held.retain(|(from, to, _)| from < to);
    stretches(&held, most).map(mean_of).collect()
}

/// The mean over the steps of a stretch.
fn mean_of(stretch: &[(usize, usize, Vec<f64>)]) -> (f64, f64, Vec<f64>) {
    let (from, to) = (stretch[0].0, stretch[stretch.len() - 1].1);
    let mut sums = vec![0.0; stretch[0].2.len()];
    for (from, to, scores) in stretch {
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score * (to - from) as f64);
    }
    (from as f64, to as f64, sums.into_iter().map(|sum| sum / (to - from) as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::super::record::State;
    use super::super::testing;
    use super::*;

    fn run(losses: impl IntoIterator<Item = f64>) -> RunRecord {
        let step =
            |(step, loss)| Step { step, loss, tokens: 1.0, elapsed: step as f64, peak_bytes: 1.0 };
        let mut run = testing::run("", State::Finished);
        run.steps = losses.into_iter().enumerate().map(step).collect();
        run
    }

    #[test]
    fn a_long_curve_keeps_its_spikes() {
        let run = run((0..5000).map(|step| if step == 3333 { 99.0 } else { 1.0 }));
        let raw = raw(&run);
        assert!(raw.len() <= POINTS && raw.contains(&(3333.0, 99.0)), "{}", raw.len());
        assert!(raw.is_sorted_by(|a, b| a.0 < b.0));
        let smoothed = smoothed(&run);
        assert!(smoothed.len() <= POINTS);
        assert_eq!(smoothed.last().unwrap().0, 4999.0);
        // 200 steps, one of them at 99.
        let greatest = smoothed.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
        assert!((greatest - (1.0 + 98.0 / 200.0)).abs() < 1e-9, "{greatest}");
    }

    #[test]
    fn a_short_curve_stands_as_it_is_and_gaps_stay_gaps() {
        let run = run([3.0, f64::NAN, 1.0]);
        let raw = raw(&run);
        assert!(raw.len() == 3 && raw[0] == (0.0, 3.0) && raw[1].1.is_nan());
        assert_eq!(smoothed(&run), [(0.0, 3.0), (1.0, 3.0), (2.0, 2.0)]);
        assert!(smoothed(&testing::run("", State::Running)).is_empty());
    }

    #[test]
    fn scores_hold_until_the_next_update() {
        let mut run = run([1.0; 6]);
        run.updates = vec![(2, vec![1.0]), (4, vec![4.0])];
        assert_eq!(
            scores(&run, 9),
            [(0.0, 2.0, vec![0.0]), (2.0, 4.0, vec![1.0]), (4.0, 6.0, vec![4.0])]
        );
        // Two stretches of two and one: the first is the mean over its four steps.
        assert_eq!(scores(&run, 2), [(0.0, 4.0, vec![0.5]), (4.0, 6.0, vec![4.0])]);
    }
}
