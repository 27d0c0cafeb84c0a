//! `ist`: importance-aware sparse tuning (arXiv 2410.11772).
//!
//! Every layer has an importance score I, starting at 0. A high I means that suppressing the
//! layer's PEFT modules is tolerated, so the layer is *less* important. It is suppressed with
//! weight p = σ(I) and updated with weight q = σ(-I).
//!
//! | symbol of the paper | setting |
//! |---|---|
//! | N_u | `layers_updated` |
//! | N_s | `layers_suppressed` |
//! | N_c | `candidates` |
//! | β | `suppression` |
//! | T | `interval` |
//! | μ | `importance_lr` |
//! | B_s | `score_batch` |

use std::collections::{BTreeSet, BinaryHeap};

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sampling::{log_sigmoid, sigmoid};
use super::{
    LayerPolicy, PolicyError, PolicySettings, Scoring, Share, out_of_range, parse_state, sampling,
};
use crate::LayerSet;

/// `kind = "ist"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct IstConfig {
    /// Layers that receive gradients in one optimizer step: a count, or a fraction of the model's.
    pub layers_updated: Share,
    /// Layers suppressed in one candidate: a count, or a fraction of the model's.
    pub layers_suppressed: Share,
    /// Candidate sets per importance update; with 1 the scores never move.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4096)))]
    pub candidates: usize,
    /// The factor on a suppressed layer's PEFT response.
    #[cfg_attr(feature = "schema", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub suppression: f64,
    /// Optimizer steps between two importance updates.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub interval: usize,
    /// The step size of the importance update.
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub importance_lr: f64,
    /// Records of the batch that scores the candidates.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub score_batch: usize,
    /// What a candidate's loss l is worth: exp(-l), or -l in standard deviations over the
    /// candidates.
    pub reward: Reward,
}

/// How the losses of the candidates become their advantages, which sum to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reward {
    /// a_k = r_k - mean r with r_k = exp(-l_k): the published form. The larger the loss, the less a
    /// difference counts.
    #[default]
    Exp,
    /// a_k = (mean l - l_k) / std l, with the standard deviation over the candidates: our variant.
    /// It is the same for every positive affine transformation of the losses. So neither their size
    /// nor how much the adapters do decides how far scores move, only the importance learning rate.
    Normalized,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Reward {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reward".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        crate::schema::choice(&[Self::Exp, Self::Normalized])
    }
}

impl Reward {
    /// The advantages of candidates with these losses, in order.
    fn advantages(self, losses: &[f64]) -> Vec<f64> {
        match self {
            Self::Exp => above_mean(&rewards(losses)),
            Self::Normalized => {
                let negated: Vec<f64> = losses.iter().map(|loss| -loss).collect();
                let below = above_mean(&negated);
                let squares: Vec<f64> = below.iter().map(|a| a * a).collect();
                let deviation = mean(&squares).sqrt();
                let largest = losses.iter().fold(0.0, |largest: f64, loss| largest.max(loss.abs()));
                // While fresh adapters add nothing, all candidates have the same loss except for
                // rounding, and a division by that would make large scores of nothing.
                let tells_apart = deviation.is_finite() && deviation > NOISE * largest;
                below.into_iter().map(|a| if tells_apart { a / deviation } else { 0.0 }).collect()
            }
        }
    }
}

/// The share of the losses below which [`Reward::Normalized`] takes their standard deviation for
/// rounding. A sum in f32 is right to about 1e-7.
const NOISE: f64 = 1e-6;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// How far each value lies above the mean of all.
fn above_mean(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    values.iter().map(|value| value - mean).collect()
}

/// exp(-l) of each loss.
fn rewards(losses: &[f64]) -> Vec<f64> {
    losses.iter().map(|loss| (-loss).exp()).collect()
}

impl Default for IstConfig {
    fn default() -> Self {
        Self {
            layers_updated: Share::Fraction(0.25),
            layers_suppressed: Share::Fraction(0.5),
            candidates: 3,
            suppression: 0.25,
            interval: 10,
            importance_lr: 10.0,
            score_batch: 16,
            reward: Reward::Exp,
        }
    }
}

impl IstConfig {
    /// Checks every range that serde cannot.
    fn check(&self) -> Result<(), PolicyError> {
        if !(1..=MOST_CANDIDATES).contains(&self.candidates) {
            let expected = format!("an integer from 1 to {MOST_CANDIDATES}");
            return Err(out_of_range("candidates", &expected, &self.candidates));
        }
        if self.interval == 0 {
            return Err(out_of_range("interval", "an integer of at least 1", &0));
        }
        if self.score_batch == 0 {
            return Err(out_of_range("score_batch", "an integer of at least 1", &0));
        }
        if !(0.0..1.0).contains(&self.suppression) {
            return Err(out_of_range("suppression", "in [0, 1)", &self.suppression));
        }
        if !(self.importance_lr > 0.0 && self.importance_lr.is_finite()) {
            return Err(out_of_range("importance_lr", "above 0", &self.importance_lr));
        }
        Ok(())
    }
}

impl PolicySettings for IstConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Ist::new(layers, self.clone())?))
    }

    fn scoring(&self) -> Option<Scoring> {
        Some(Scoring { candidates: self.candidates, records: self.score_batch })
    }
}

/// The policy: scores, and the law that draws from them.
#[derive(Debug)]
pub struct Ist {
    config: IstConfig,
    layers_updated: usize,
    layers_suppressed: usize,
    layers: LayerSet,
    scores: Vec<f64>,
}

/// The scores as the bits of their f64. Decimal text may lose the last bit, and a resumed run must
/// not.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "struct State")]
struct IstState {
    score_bits: Vec<u64>,
}

impl Ist {
    /// The policy over `layers`, all scores 0.
    ///
    /// Layers of the model that are not among them are never drawn and stay at 0.
    ///
    /// # Errors
    /// If a setting is out of its range, or there are not as many layers as are to be drawn.
    pub fn new(layers: &LayerSet, config: IstConfig) -> Result<Self, PolicyError> {
        config.check()?;
        let layers_updated = config.layers_updated.checked("layers_updated", layers.len())?;
        let layers_suppressed =
            config.layers_suppressed.checked("layers_suppressed", layers.len())?;
        Ok(Self {
            layers_updated,
            layers_suppressed,
            layers: layers.clone(),
            scores: vec![0.0; layers.num_layers()],
            config,
        })
    }

    /// The logarithm of each layer's weight. For layers that cannot train it is log 0.
    fn log_weights(&self, of_score: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut weights = vec![f64::NEG_INFINITY; self.scores.len()];
        for layer in self.layers.iter() {
            weights[layer] = of_score(self.scores[layer]);
        }
        weights
    }

    /// N_c *distinct* suppressed sets, drawn with weights p. All sets when there are fewer.
    ///
    /// A draw that repeats an earlier set is thrown away. Scores far from 0 can make that take very
    /// long. So after [`DRAWS_PER_CANDIDATE`] draws per candidate the likeliest sets not drawn yet
    /// fill the gap.
    fn draw_candidates(&self, rng: &mut dyn Rng) -> Vec<LayerSet> {
        let log_p = self.log_weights(log_sigmoid);
        let size = self.layers_suppressed;
        // Two equal candidates would count one loss twice.
        let wanted = sampling::subsets_up_to(self.layers.len(), size, self.config.candidates);
        let mut sets: Vec<LayerSet> = Vec::new();
        for _ in 0..DRAWS_PER_CANDIDATE * wanted {
            if sets.len() == wanted {
                return sets;
            }
            let drawn = sampling::without_replacement(&log_p, size, rng);
            if !sets.contains(&drawn) {
                sets.push(drawn);
            }
        }
        fill_with_likeliest(&mut sets, wanted, &log_p, size);
        sets
    }
}

/// The candidates of an update at most. Each is a forward pass over the scoring batch, and repeated
/// draws cost their square.
const MOST_CANDIDATES: usize = 4096;

/// Draws per wanted candidate, after which the likeliest sets replace repeated ones.
const DRAWS_PER_CANDIDATE: usize = 64;

/// Adds the sets of `size` layers with the largest sums of `log_weights` that `sets` lacks, until
/// it holds `wanted`.
///
/// A best-first search over layers ranked by weight. The best set is the first `size` ranks. Every
/// other set is reached from a better one by moving one rank up by one.
fn fill_with_likeliest(sets: &mut Vec<LayerSet>, wanted: usize, log_weights: &[f64], size: usize) {
    // Layers that cannot train have no rank.
    let mut ranked: Vec<usize> =
        (0..log_weights.len()).filter(|&layer| log_weights[layer].is_finite()).collect();
    ranked.sort_by(|&a, &b| log_weights[b].total_cmp(&log_weights[a]).then(a.cmp(&b)));
    let weigh = |ranks: &[usize]| Weight(ranks.iter().map(|&rank| log_weights[ranked[rank]]).sum());
    let first: Vec<usize> = (0..size).collect();
    let mut queue = BinaryHeap::from([(weigh(&first), first.clone())]);
    // A set can be reached by moving its ranks in any order, and must wait in the queue once.
    let mut seen = BTreeSet::from([first]);
    while sets.len() < wanted {
        let Some((_, ranks)) = queue.pop() else { return };
        let set = LayerSet::new(ranks.iter().map(|&rank| ranked[rank]), log_weights.len())
            .expect("ranks are layers");
        if !sets.contains(&set) {
            sets.push(set);
        }
        for position in 0..size {
            let mut next = ranks.clone();
            next[position] += 1;
            // Ranks stay sorted, so a rank may move up only where the next one is not in its way.
            let end = next.get(position + 1).copied().unwrap_or(ranked.len());
            if next[position] < end && seen.insert(next.clone()) {
                queue.push((weigh(&next), next));
            }
        }
    }
}

/// A log weight with the total order a heap needs.
#[derive(PartialEq)]
struct Weight(f64);

impl Eq for Weight {}

impl PartialOrd for Weight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Weight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl LayerPolicy for Ist {
    fn name(&self) -> &'static str {
        "ist"
    }

    fn select(&mut self, _step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        let log_q = self.log_weights(|score| log_sigmoid(-score));
        Ok(sampling::without_replacement(&log_q, self.layers_updated, rng))
    }

    fn candidates(&mut self, step: usize, rng: &mut dyn Rng) -> Vec<LayerSet> {
        // Before the first step no candidate differs from another: fresh adapters add nothing.
        if step > 0 && step.is_multiple_of(self.config.interval) {
            self.draw_candidates(rng)
        } else {
            Vec::new()
        }
    }

    fn suppression(&self) -> f64 {
        self.config.suppression
    }

    /// For every candidate k and every layer i in it, I_i += μ · a_k · p_i · (1 - p_i). The a_k are
    /// the advantages of [`Reward`], and p is from before the update. The answer is exp(-l_k)
    /// whatever the reward.
    fn observe(
        &mut self,
        candidates: &[LayerSet],
        losses: &[f64],
    ) -> Result<Vec<f64>, PolicyError> {
        if losses.len() != candidates.len() || losses.iter().any(|loss| !loss.is_finite()) {
            return Err(PolicyError::Losses {
                candidates: candidates.len(),
                losses: losses.to_vec(),
            });
        }
        let advantages = self.config.reward.advantages(losses);
        // p (1 - p), taken before any score moves, so that the order of candidates does not matter.
        let slopes: Vec<f64> = self.scores.iter().map(|&s| sigmoid(s) * sigmoid(-s)).collect();
        for (set, advantage) in candidates.iter().zip(&advantages) {
            for layer in set.iter() {
                self.scores[layer] += self.config.importance_lr * advantage * slopes[layer];
            }
        }
        Ok(rewards(losses))
    }

    fn scores(&self) -> Option<&[f64]> {
        Some(&self.scores)
    }

    fn largest_set(&self) -> usize {
        self.layers_updated
    }

    fn state(&self) -> Value {
        let score_bits = self.scores.iter().map(|score| score.to_bits()).collect();
        serde_json::to_value(IstState { score_bits }).expect("integers are plain JSON")
    }

    fn restore(&mut self, state: Value) -> Result<(), PolicyError> {
        let bits = parse_state::<IstState>("ist", &state)?.score_bits;
        let scores: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
        if scores.len() != self.scores.len() {
            let message = format!("expected {} scores, found {}", self.scores.len(), scores.len());
            return Err(PolicyError::State { kind: "ist", message });
        }
        self.scores = scores;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn policy(scores: &[f64]) -> Ist {
        let mut policy = Ist::new(&LayerSet::all(scores.len()), IstConfig::default()).unwrap();
        policy.scores = scores.to_vec();
        policy
    }

    fn normalized(scores: &[f64]) -> Ist {
        let mut ist = policy(scores);
        ist.config.reward = Reward::Normalized;
        ist
    }

    fn sets(num_layers: usize, sets: &[&[usize]]) -> Vec<LayerSet> {
        sets.iter().map(|set| LayerSet::new(set.iter().copied(), num_layers).unwrap()).collect()
    }

    #[test]
    fn the_update_equals_the_one_worked_by_hand() {
        let mut ist = policy(&[0.0; 4]);
        ist.observe(&sets(4, &[&[0, 1], &[1, 2], &[2, 3]]), &[2.0, 1.5, 1.8]).unwrap();
        let rewards = [(-2.0f64).exp(), (-1.5f64).exp(), (-1.8f64).exp()];
        let mean = rewards.iter().sum::<f64>() / 3.0;
        let a: Vec<f64> = rewards.iter().map(|r| 10.0 * (r - mean) * 0.25).collect();
        let expected = [a[0], a[0] + a[1], a[1] + a[2], a[2]];
        for (score, expected) in ist.scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-15, "{score} {expected}");
        }
    }

    #[test]
    fn the_normalized_update_equals_the_one_worked_by_hand() {
        let mut ist = normalized(&[0.0; 4]);
        let rewards =
            ist.observe(&sets(4, &[&[0, 1], &[1, 2], &[2, 3]]), &[1.0, 2.0, 6.0]).unwrap();
        // Mean 3, squares of the differences 4, 1 and 9, so a variance of 14 / 3.
        let deviation = (14.0f64 / 3.0).sqrt();
        let a: Vec<f64> =
            [2.0, 1.0, -3.0].iter().map(|below| 10.0 * 0.25 * below / deviation).collect();
        let expected = [a[0], a[0] + a[1], a[1] + a[2], a[2]];
        for (score, expected) in ist.scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-15, "{score} {expected}");
        }
        assert_eq!(
            rewards,
            [1.0f64, 2.0, 6.0].map(|loss| (-loss).exp()),
            "the log's rewards stay exp(-loss)"
        );
    }

    #[test]
    fn rounding_is_not_blown_up_into_advantages() {
        for losses in [[5.0, 5.000_000_4, 4.999_999_7], [0.0; 3], [f64::MAX; 3]] {
            let advantages = Reward::Normalized.advantages(&losses);
            assert_eq!(advantages, [0.0; 3], "{losses:?}");
        }
        assert!(Reward::Normalized.advantages(&[5.0, 5.001, 4.998])[2] > 1.0);
    }

    #[test]
    fn scoring_is_due_every_interval_but_not_before_the_first_step() {
        let mut ist = policy(&[0.0; 8]);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let due: Vec<usize> =
            (0..31).filter(|&step| !ist.candidates(step, &mut rng).is_empty()).collect();
        assert_eq!(due, [10, 20, 30]);
    }

    #[test]
    fn candidates_stay_distinct_and_fast_under_extreme_scores() {
        let scores: Vec<f64> =
            (0..24).map(|layer| if layer < 12 { 300.0 } else { -300.0 }).collect();
        let drawn = policy(&scores).draw_candidates(&mut ChaCha8Rng::seed_from_u64(4));
        assert_eq!(drawn.len(), 3);
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(drawn[0].as_slice(), (0..12).collect::<Vec<_>>());
        for set in &drawn[1..] {
            assert_eq!(
                set.iter().filter(|&layer| layer < 12).count(),
                11,
                "one layer away from the likeliest set"
            );
        }
    }

    #[test]
    fn when_fewer_sets_exist_all_of_them_are_used() {
        let drawn = policy(&[0.0, 0.0]).draw_candidates(&mut ChaCha8Rng::seed_from_u64(4));
        assert_eq!(drawn.len(), 2);
        assert_eq!(policy(&[0.0]).draw_candidates(&mut ChaCha8Rng::seed_from_u64(4)).len(), 1);
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_refused_and_changes_nothing() {
        let mut ist = policy(&[0.1, 0.2]);
        assert!(ist.observe(&sets(2, &[&[0], &[1]]), &[1.0, f64::NAN]).is_err());
        assert_eq!(ist.scores, [0.1, 0.2]);
    }

    #[test]
    fn knobs_out_of_range_are_refused_by_name() {
        let cases = [
            (IstConfig { candidates: 0, ..IstConfig::default() }, "candidates"),
            (IstConfig { interval: 0, ..IstConfig::default() }, "interval"),
            (IstConfig { suppression: 1.0, ..IstConfig::default() }, "suppression"),
            (IstConfig { importance_lr: 0.0, ..IstConfig::default() }, "importance_lr"),
            (
                IstConfig { layers_updated: Share::Count(5), ..IstConfig::default() },
                "layers_updated",
            ),
        ];
        for (config, key) in cases {
            let error = Ist::new(&LayerSet::all(4), config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`policy.{key}`")), "{error}");
        }
    }

    fn candidate_sets() -> impl Strategy<Value = (Vec<f64>, Vec<LayerSet>, Vec<f64>)> {
        let layers = 6;
        let set = prop::sample::subsequence((0..layers).collect::<Vec<_>>(), 3)
            .prop_map(move |set| LayerSet::new(set, layers).unwrap());
        (prop::collection::vec(-3.0f64..3.0, layers), prop::collection::vec(set, 2..5))
            .prop_flat_map(|(scores, sets)| {
                let losses = prop::collection::vec(0.0f64..6.0, sets.len());
                (Just(scores), Just(sets), losses)
            })
    }

    /// Shows the one policy the candidates in their order and the other in the opposite order.
    fn observe_both_ways(forward: &mut Ist, backward: &mut Ist, sets: &[LayerSet], losses: &[f64]) {
        forward.observe(sets, losses).unwrap();
        let sets: Vec<LayerSet> = sets.iter().rev().cloned().collect();
        let losses: Vec<f64> = losses.iter().rev().copied().collect();
        backward.observe(&sets, &losses).unwrap();
    }

    fn agree(a: &Ist, b: &Ist, tolerance: f64) -> bool {
        a.scores.iter().zip(&b.scores).all(|(a, b)| (a - b).abs() < tolerance)
    }

    proptest! {
        #[test]
        fn advantages_sum_to_zero((scores, sets, losses) in candidate_sets()) {
            let rewards = policy(&scores).observe(&sets, &losses).unwrap();
            let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
            prop_assert!(rewards.iter().map(|r| r - mean).sum::<f64>().abs() < 1e-12);
        }

        #[test]
        fn a_layer_in_every_candidate_or_in_none_keeps_its_score(
            (scores, sets, losses) in candidate_sets(),
        ) {
            let mut ist = policy(&scores);
            ist.observe(&sets, &losses).unwrap();
            for (layer, (after, before)) in ist.scores.iter().zip(&scores).enumerate() {
                let times = sets.iter().filter(|set| set.contains(layer)).count();
                if times == 0 || times == sets.len() {
                    prop_assert!((after - before).abs() < 1e-12);
                }
            }
        }

        #[test]
        fn equal_losses_change_nothing((scores, sets, _) in candidate_sets(), loss in 0.0f64..6.0) {
            let mut ist = policy(&scores);
            ist.observe(&sets, &vec![loss; sets.len()]).unwrap();
            prop_assert!(ist.scores.iter().zip(&scores).all(|(a, b)| (a - b).abs() < 1e-12));
        }

        #[test]
        fn the_order_of_candidates_does_not_matter((scores, sets, losses) in candidate_sets()) {
            let mut forward = policy(&scores);
            let mut backward = policy(&scores);
            observe_both_ways(&mut forward, &mut backward, &sets, &losses);
            prop_assert!(agree(&forward, &backward, 1e-12));
        }

        #[test]
        fn normalized_advantages_sum_to_zero_and_have_unit_variance(
            (_, _, losses) in candidate_sets(),
        ) {
            let advantages = Reward::Normalized.advantages(&losses);
            prop_assert!(advantages.iter().sum::<f64>().abs() < 1e-6);
            let squares: f64 = advantages.iter().map(|a| a * a).sum();
            let count = losses.len() as f64;
            prop_assert!((squares - count).abs() < 1e-6 || squares == 0.0, "{}", squares);
        }

        #[test]
        fn normalized_scores_do_not_depend_on_the_scale_or_the_level_of_the_losses(
            (scores, sets, mut losses) in candidate_sets(),
            scale in 0.01f64..100.0,
            level in -50.0f64..50.0,
        ) {
            // Losses that differ by much more than the shift rounds away.
            losses[0] += 1.0 + losses[1..].iter().copied().fold(0.0, f64::max);
            let mut plain = normalized(&scores);
            let mut moved = normalized(&scores);
            plain.observe(&sets, &losses).unwrap();
            let losses: Vec<f64> = losses.iter().map(|loss| scale * loss + level).collect();
            moved.observe(&sets, &losses).unwrap();
            for (a, b) in plain.scores.iter().zip(&moved.scores) {
                prop_assert!((a - b).abs() < 1e-9, "{} {}", a, b);
            }
        }

        #[test]
        fn the_order_of_candidates_does_not_matter_to_normalized_scores(
            (scores, sets, losses) in candidate_sets(),
        ) {
            let mut forward = normalized(&scores);
            let mut backward = normalized(&scores);
            observe_both_ways(&mut forward, &mut backward, &sets, &losses);
            prop_assert!(agree(&forward, &backward, 1e-6));
        }

        #[test]
        fn a_normalized_candidate_that_costs_more_lowers_its_layers(
            cheap in 0.0f64..3.0,
            gap in 0.01f64..3.0,
        ) {
            let mut ist = normalized(&[0.5, 0.5]);
            ist.observe(&sets(2, &[&[0], &[1]]), &[cheap + gap, cheap]).unwrap();
            prop_assert!(ist.scores[0] < 0.5 && ist.scores[1] > 0.5);
            // Two candidates: one standard deviation on either side, whatever the gap.
            let expected = 20.0 * sigmoid(0.5) * sigmoid(-0.5);
            prop_assert!((ist.scores[1] - ist.scores[0] - expected).abs() < 1e-6);
        }

        #[test]
        fn costly_suppression_raises_the_chance_of_an_update(
            score in -3.0f64..3.0,
            cheap in 0.0f64..3.0,
            gap in 0.01f64..3.0,
        ) {
            let mut ist = policy(&[score, score]);
            ist.observe(&sets(2, &[&[0], &[1]]), &[cheap + gap, cheap]).unwrap();
            prop_assert!(ist.scores[0] < score && ist.scores[1] > score);
            prop_assert!(sigmoid(-ist.scores[0]) > sigmoid(-ist.scores[1]));
        }

        #[test]
        fn likeliest_sets_come_in_order(
            weights in prop::collection::vec(-5.0f64..0.0, 5),
            wanted in 1usize..10,
        ) {
            let mut found = Vec::new();
            fill_with_likeliest(&mut found, wanted, &weights, 2);
            let sum = |set: &LayerSet| set.iter().map(|layer| weights[layer]).sum::<f64>();
            let pairs = (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b)));
            let mut every: Vec<f64> = pairs.map(|(a, b)| weights[a] + weights[b]).collect();
            every.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(found.len(), wanted);
            for (set, best) in found.iter().zip(&every) {
                prop_assert!((sum(set) - best).abs() < 1e-12);
            }
        }
    }
}
