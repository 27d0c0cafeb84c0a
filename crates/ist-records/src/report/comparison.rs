//! Groups compared: at their ends, after as many steps, after as much time, or within as much
//! memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::groups::Group;
use super::record::{RunRecord, Step};
use crate::report::statistics::{Difference, Moments, differences};

/// Where runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// Each at its own end
    End,
    /// After as many steps as the shortest run has
    Steps,
    /// After as many seconds as the quickest run took
    Seconds,
    /// The best group within each group's memory
    Bytes,
}

impl At {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::End, Self::Steps, Self::Seconds, Self::Bytes];
}

/// What a figure of a run is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nats a token.
    Loss,
    /// A share from 0 to 1.
    Share,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Optimizer steps.
    Steps,
}

/// A figure of runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    EvalLoss,
    TrainLoss,
    Accuracy(String),
    Steps,
    Seconds,
    PeakBytes,
}

impl Measure {
    fn name(&self) -> (String, Unit) {
        match self {
            Self::EvalLoss => ("validation loss".to_owned(), Unit::Loss),
            Self::TrainLoss => {
                ("training loss, mean of the last tenth of the steps".to_owned(), Unit::Loss)
            }
            Self::Accuracy(task) => (format!("accuracy, {task}"), Unit::Share),
            Self::Steps => ("steps done".to_owned(), Unit::Steps),
            Self::Seconds => ("seconds of all steps".to_owned(), Unit::Seconds),
            Self::PeakBytes => ("most live bytes of a step".to_owned(), Unit::Bytes),
        }
    }

    /// Its value of what a run had done within `limit`.
    fn of(&self, run: &RunRecord, limit: Limit) -> Option<f64> {
        let steps = limit.steps(run);
        let value = match self {
            Self::EvalLoss => limit.last_evaluation(run)?,
            Self::TrainLoss => last_tenth(steps)?,
            // What was measured when the run had ended says nothing of it before.
            Self::Accuracy(_) if steps.len() < run.steps.len() => return None,
            Self::Accuracy(task) => {
                run.accuracies.iter().find(|accuracy| accuracy.task == *task)?.accuracy
            }
            Self::Steps => steps.len() as f64,
            Self::Seconds => steps.last()?.elapsed,
            Self::PeakBytes => steps.iter().map(|step| step.peak_bytes).fold(0.0, f64::max),
        };
        value.is_finite().then_some(value)
    }
}

/// How much of a run counts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    None,
    Steps(usize),
    Seconds(f64),
}

impl Limit {
    fn steps(self, run: &RunRecord) -> &[Step] {
        let within = match self {
            Self::None => run.steps.len(),
            Self::Steps(most) => run.steps.iter().take_while(|step| step.step < most).count(),
            Self::Seconds(most) => run.steps.iter().take_while(|step| step.elapsed <= most).count(),
        };
        &run.steps[..within]
    }

    /// The loss of the last evaluation within it.
    fn last_evaluation(self, run: &RunRecord) -> Option<f64> {
        let within = run.evaluations.iter().take_while(|evaluation| match self {
            Self::None => true,
            Self::Steps(most) => evaluation.step < most,
            Self::Seconds(most) => evaluation.elapsed <= most,
        });
        within.last().map(|evaluation| evaluation.loss)
    }
}

/// The mean loss of the last tenth of `steps`, at least of one.
pub(super) fn last_tenth(steps: &[Step]) -> Option<f64> {
    let tenth = &steps[steps.len() - (steps.len() / 10).max(1).min(steps.len())..];
    let losses: Vec<f64> = tenth.iter().map(|step| step.loss).collect();
    Moments::of(&losses).map(|moments| moments.mean)
}

/// A figure of all groups.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The figure.
    pub figure: String,
    /// Its unit.
    pub unit: Unit,
    /// What is told of each group that has it.
    pub rows: Vec<Row>,
}

/// A figure of one group.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The group's place among all groups.
    #[serde(skip)]
    pub group: usize,
    /// The group.
    pub name: String,
    /// (seed, value) of its runs; a seed with several runs has their mean.
    pub by_seed: BTreeMap<u64, f64>,
    /// Over its seeds.
    pub moments: Moments,
    /// To the baseline, over the seeds both have.
    pub difference: Option<Difference>,
}

/// The comparison at one of the places.
#[derive(Clone, Debug, Serialize)]
pub struct Matched {
    /// The place.
    pub at: At,
    /// In words, with the budget.
    pub budget: String,
    /// Figure by figure; for [`At::Bytes`] empty.
    pub comparisons: Vec<Comparison>,
    /// For [`At::Bytes`]: the best group within each budget.
    pub budgets: Vec<Budget>,
}

/// The best group within a budget of memory.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// The budget: what one of the groups takes.
    pub bytes: f64,
    /// Groups that take no more.
    pub within: Vec<String>,
    /// The figure that decides.
    pub figure: String,
    /// The one with the least mean of it.
    pub best: Row,
}

/// The runs that are compared: those that came to their end.
struct Field<'a> {
    groups: &'a [Group],
    runs: &'a [RunRecord],
    baseline: usize,
}

/// The comparisons at one of the places.
pub(super) fn compare(groups: &[Group], runs: &[RunRecord], baseline: usize, at: At) -> Matched {
    let field = Field { groups, runs, baseline };
    let whole = || runs.iter().filter(|run| run.state.is_whole() && !run.steps.is_empty());
    let least = |of: &dyn Fn(&RunRecord) -> f64| whole().map(of).fold(f64::INFINITY, f64::min);
    let (limit, budget) = match at {
        At::End => (Limit::None, "each run at its own end".to_owned()),
        At::Steps => {
            let most =
                least(&|run| run.steps.last().map_or(0, |step| step.step + 1) as f64) as usize;
            (Limit::Steps(most), format!("after {most} steps, as many as the shortest run has"))
        }
        At::Seconds => {
            let most = least(&RunRecord::seconds);
            (
                Limit::Seconds(most),
                format!("after {most:.2} seconds of training, as many as the quickest run took"),
            )
        }
        At::Bytes => (Limit::None, "the best group within the memory of each group".to_owned()),
    };
    if whole().next().is_none() {
        return Matched {
            at,
            budget: "no run has come to its end".to_owned(),
            comparisons: Vec::new(),
            budgets: Vec::new(),
        };
    }
    let budgets = if at == At::Bytes { field.budgets() } else { Vec::new() };
    let measured = if at == At::Bytes { Vec::new() } else { field.measures(at) };
    let comparisons = measured.iter().map(|measure| field.comparison(measure, limit));
    Matched {
        at,
        budget,
        comparisons: comparisons.filter(|found| !found.rows.is_empty()).collect(),
        budgets,
    }
}

impl Field<'_> {
    /// What is compared: of matched budgets what they do not fix.
    fn measures(&self, at: At) -> Vec<Measure> {
        let tasks: BTreeSet<String> = self
            .runs
            .iter()
            .flat_map(|run| run.accuracies.iter().map(|accuracy| accuracy.task.clone()))
            .collect();
        let all = [Measure::EvalLoss, Measure::TrainLoss]
            .into_iter()
            .chain(tasks.into_iter().map(Measure::Accuracy));
        let rest: &[Measure] = match at {
            At::Seconds => &[Measure::Steps, Measure::PeakBytes],
            _ => &[Measure::Seconds, Measure::PeakBytes],
        };
        all.chain(rest.iter().cloned()).collect()
    }

    fn comparison(&self, measure: &Measure, limit: Limit) -> Comparison {
        let (figure, unit) = measure.name();
        let values: Vec<BTreeMap<u64, f64>> =
            self.groups.iter().map(|group| self.by_seed(group, measure, limit)).collect();
        let row = |(group, by_seed): (usize, &BTreeMap<u64, f64>)| {
            let numbers: Vec<f64> = by_seed.values().copied().collect();
            let moments = Moments::of(&numbers)?;
            let difference = if group == self.baseline {
                None
            } else {
                differences(by_seed, &values[self.baseline])
            };
            let name = self.groups[group].name.clone();
            Some(Row { group, name, by_seed: by_seed.clone(), moments, difference })
        };
        Comparison { figure, unit, rows: values.iter().enumerate().filter_map(row).collect() }
    }

    fn by_seed(&self, group: &Group, measure: &Measure, limit: Limit) -> BTreeMap<u64, f64> {
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for run in group.runs.iter().map(|run| &self.runs[*run]).filter(|run| run.state.is_whole())
        {
            if let Some(value) = measure.of(run, limit) {
                values.entry(run.seed()).or_default().push(value);
            }
        }
        values
            .into_iter()
            .map(|(seed, all)| (seed, all.iter().sum::<f64>() / all.len() as f64))
            .collect()
    }

    fn budgets(&self) -> Vec<Budget> {
        let validates = self.runs.iter().any(|run| !run.evaluations.is_empty());
        let measure = if validates { Measure::EvalLoss } else { Measure::TrainLoss };
        let comparison = self.comparison(&measure, Limit::None);
        let taken = self.comparison(&Measure::PeakBytes, Limit::None);
        let bytes = |row: &Row| {
            taken.rows.iter().find(|other| other.group == row.group).map(|row| row.moments.greatest)
        };
        let mut sizes: Vec<f64> = comparison.rows.iter().filter_map(bytes).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        let budget = |size: f64| {
            let within = || {
                comparison.rows.iter().filter(|row| bytes(row).is_some_and(|bytes| bytes <= size))
            };
            let best = within().min_by(|a, b| a.moments.mean.total_cmp(&b.moments.mean))?.clone();
            let within = within().map(|row| row.name.clone()).collect();
            Some(Budget { bytes: size, within, figure: comparison.figure.clone(), best })
        };
        sizes.into_iter().filter_map(budget).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Evaluation, State};
    use super::super::testing;
    use super::*;

    /// Four runs: `all` is slow and large, `ist` quick and small.
    fn runs() -> (Vec<Group>, Vec<RunRecord>) {
        let run = |seed: u64, loss: f64, seconds: f64, bytes: f64, steps: usize| {
            let step = |step: usize| Step {
                step,
                loss: loss + (steps - step) as f64,
                tokens: 10.0,
                elapsed: (step + 1) as f64 * seconds,
                peak_bytes: bytes,
            };
            let evaluations = (0..steps).filter(|step| step % 2 == 1).map(|step| Evaluation {
                step,
                loss: loss + (steps - step) as f64,
                elapsed: (step + 1) as f64 * seconds,
            });
            let mut run = testing::run(&format!("seed = {seed}"), State::Finished);
            (run.steps, run.evaluations) = ((0..steps).map(step).collect(), evaluations.collect());
            run
        };
        let runs = vec![
            run(0, 1.0, 2.0, 200.0, 10),
            run(1, 1.5, 2.0, 210.0, 10),
            run(0, 1.25, 1.0, 100.0, 20),
            run(1, 1.5, 1.0, 120.0, 20),
        ];
        let group =
            |name: &str, runs: [usize; 2]| Group { name: name.to_owned(), runs: runs.to_vec() };
        (vec![group("all", [0, 1]), group("ist", [2, 3])], runs)
    }

    fn means(matched: &Matched, figure: &str) -> Vec<f64> {
        let found =
            matched.comparisons.iter().find(|comparison| comparison.figure == figure).unwrap();
        found.rows.iter().map(|row| row.moments.mean).collect()
    }

    #[test]
    fn equal_steps_take_the_last_evaluation_that_all_have_reached() {
        let (groups, runs) = runs();
        let end = compare(&groups, &runs, 0, At::End);
        assert_eq!(means(&end, "validation loss"), [2.25, 2.375]);
        let matched = compare(&groups, &runs, 0, At::Steps);
        // After 10 steps `ist` stands at step 9 of 20: its loss is 11 above the base.
        assert_eq!(means(&matched, "validation loss"), [2.25, 12.375]);
        let difference = matched.comparisons[0].rows[1].difference.clone().unwrap();
        assert_eq!(difference.by_seed, [(0, 10.25), (1, 10.0)]);
        assert_eq!(means(&matched, "seconds of all steps"), [20.0, 10.0]);
    }

    #[test]
    fn equal_time_lets_the_quicker_go_further() {
        let (groups, mut runs) = runs();
        for run in runs.iter_mut().take(2) {
            run.steps.truncate(6);
        }
        runs[0].evaluations.truncate(3);
        runs[1].evaluations.truncate(3);
        let matched = compare(&groups, &runs, 0, At::Seconds);
        // The slow runs took 12 seconds: six steps, of which `ist` did twelve.
        assert_eq!(means(&matched, "steps done"), [6.0, 12.0]);
        assert!(matched.budget.contains("12.00 seconds"), "{}", matched.budget);
    }

    #[test]
    fn a_larger_budget_never_has_a_worse_best() {
        let (groups, runs) = runs();
        let matched = compare(&groups, &runs, 0, At::Bytes);
        let told: Vec<(f64, usize, &str)> = matched
            .budgets
            .iter()
            .map(|budget| (budget.bytes, budget.within.len(), budget.best.name.as_str()))
            .collect();
        assert_eq!(told, [(120.0, 1, "ist"), (210.0, 2, "all")]);
    }

    #[test]
    fn a_run_that_has_not_ended_is_not_compared() {
        let (groups, mut runs) = runs();
        runs[3].state = State::Running;
        let matched = compare(&groups, &runs, 0, At::End);
        assert_eq!(matched.comparisons[0].rows[1].moments.n, 1);
        for run in &mut runs {
            run.state = State::Unfinished;
        }
        assert!(compare(&groups, &runs, 0, At::Steps).comparisons.is_empty());
    }

    #[test]
    fn the_last_tenth_is_at_least_a_step() {
        let (_, runs) = runs();
        assert_eq!(last_tenth(&runs[0].steps), Some(2.0));
        assert_eq!(last_tenth(&runs[2].steps), Some(1.25 + 1.5));
        assert_eq!(last_tenth(&[]), None);
    }
}
