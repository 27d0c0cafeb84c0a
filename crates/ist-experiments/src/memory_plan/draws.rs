//! Which layers the steps of a run may train: those it begins with, and the set that takes most
//! memory.

use std::collections::BTreeMap;

use ist_core::step::Memory;
use ist_core::streams::Streams;
use ist_core::{LayerPolicy, LayerSet};

use super::Planner;
use crate::train::prepare;
use ist_records::{Failure, OrFail};

/// Steps that are looked at.
const STEPS: usize = 1000;
/// Distinct sets after which no more are looked at.
const SETS: usize = 64;

/// The sets of the first steps and how often each is drawn, as the policy stands before it has
/// learned anything.
pub fn first(planner: &Planner) -> Result<BTreeMap<LayerSet, usize>, Failure> {
    let mut policy = prepare::policy(&planner.config.policy, &planner.layers)?;
    let mut rng = Streams::new(planner.config.seed).selection;
    let (mut drawn, steps) =
        (BTreeMap::new(), planner.config.train.steps.unwrap_or(STEPS).min(STEPS));
    for step in 0..steps {
        // A log to replay ends somewhere; whether it is long enough is the run's to say.
        let set = match policy.select(step, &mut rng) {
            Ok(set) => set,
            Err(_) if step > 0 => break,
            Err(error) => return Err(error).or_input(),
        };
        *drawn.entry(set).or_insert(0) += 1;
        if drawn.len() == SETS {
            break;
        }
    }
    Ok(drawn)
}

/// The mean over the first draws of what `of` says of one.
pub fn mean(drawn: &BTreeMap<LayerSet, usize>, of: impl Fn(&LayerSet) -> u64) -> u64 {
    let total: usize = drawn.values().sum();
    let sum: f64 = drawn.iter().map(|(set, count)| of(set) as f64 * *count as f64).sum();
    (sum / total.max(1) as f64) as u64
}

/// The draw that takes most memory of all that the policy can make.
pub fn worst(planner: &Planner, memory: Memory) -> Result<LayerSet, Failure> {
    let sets = if planner.config.policy.has_given_sets() {
        logged(planner)?
    } else {
        extremes(&planner.layers, planner.largest)
    };
    let size = |set: &LayerSet| planner.estimate(set, memory).peak;
    Ok(sets
        .into_iter()
        .max_by_key(size)
        .unwrap_or_else(|| LayerSet::empty(planner.shape.num_layers)))
}

/// Every set of a policy whose sets are given.
fn logged(planner: &Planner) -> Result<Vec<LayerSet>, Failure> {
    let mut policy: Box<dyn LayerPolicy> =
        prepare::policy(&planner.config.policy, &planner.layers)?;
    let mut rng = Streams::new(planner.config.seed).selection;
    let mut sets: Vec<LayerSet> = (0..planner.config.train.steps.unwrap_or(STEPS))
        .map_while(|step| policy.select(step, &mut rng).ok())
        .collect();
    sets.sort_unstable();
    sets.dedup();
    Ok(sets)
}

/// Of all sets of `size` layers those that can be the worst: some of the lowest, which make all
/// layers above them pass the gradient, and the rest at the top, where most else is held while they
/// are worked on.
fn extremes(layers: &LayerSet, size: usize) -> Vec<LayerSet> {
    let all = layers.as_slice();
    let size = size.min(all.len());
    let set = |lowest: usize| {
        let chosen = all[..lowest].iter().chain(&all[all.len() - (size - lowest)..]).copied();
        LayerSet::new(chosen, layers.num_layers()).expect("layers of the model")
    };
    (1..=size).map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_sets_reach_from_the_lowest_layer_up() {
        let layers = LayerSet::new([1, 3, 4, 6, 7], 8).unwrap();
        let sets: Vec<Vec<usize>> =
            extremes(&layers, 3).iter().map(|set| set.as_slice().to_vec()).collect();
        assert_eq!(sets, [vec![1, 6, 7], vec![1, 3, 7], vec![1, 3, 4]]);
    }

    #[test]
    fn a_mean_counts_every_step() {
        let set = |layer| LayerSet::new([layer], 4).unwrap();
        let drawn = BTreeMap::from([(set(0), 3), (set(2), 1)]);
        assert_eq!(mean(&drawn, |set| 4 * set.as_slice()[0] as u64), 2);
    }
}
