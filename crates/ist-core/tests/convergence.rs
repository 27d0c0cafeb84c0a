//! Consequences of the convergence theorem in `docs/src/convergence.md`, on functions of a few
//! blocks ("layers").
//!
//! Expectations over the drawn set are sums over all sets, each with its exact probability, so an
//! inequality that fails here is wrong and not unlucky.

use ist_core::policy::{Ist, IstConfig, Rst, RstConfig, Share};
use ist_core::{LayerPolicy, LayerSet, sampling, streams};
use proptest::prelude::*;

const BLOCKS: usize = 4;
/// Numbers of a block.
const WIDTH: usize = 2;
const SIZE: usize = BLOCKS * WIDTH;

type Point = [f64; SIZE];

/// A smooth function bounded below: Σ_j ½ (a_j·x - b_j)², or Σ_j cos(a_j·x).
#[derive(Clone, Debug)]
struct Function {
    rows: Vec<(Point, f64)>,
    convex: bool,
}

impl Function {
    fn value(&self, x: &Point) -> f64 {
        let of = |(a, b): &(Point, f64)| {
            if self.convex { 0.5 * (dot(a, x) - b).powi(2) } else { dot(a, x).cos() }
        };
        self.rows.iter().map(of).sum()
    }

    fn gradient(&self, x: &Point) -> Point {
        let mut gradient = [0.0; SIZE];
        for (a, b) in &self.rows {
            let slope = if self.convex { dot(a, x) - b } else { -dot(a, x).sin() };
            gradient.iter_mut().zip(a).for_each(|(sum, a)| *sum += slope * a);
        }
        gradient
    }

    /// M: no second derivative along a unit vector is larger.
    fn smoothness(&self) -> f64 {
        self.rows.iter().map(|(a, _)| dot(a, a)).sum()
    }
}

fn dot(a: &Point, b: &Point) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// ‖∇_i f‖² of block i.
fn square(gradient: &Point, block: usize) -> f64 {
    gradient[block * WIDTH..(block + 1) * WIDTH].iter().map(|g| g * g).sum()
}

/// x with the blocks of `set` moved by -η g.
fn moved(x: &Point, gradient: &Point, set: &[usize], rate: f64) -> Point {
    let mut to = *x;
    for index in set.iter().flat_map(|block| block * WIDTH..(block + 1) * WIDTH) {
        to[index] -= rate * gradient[index];
    }
    to
}

/// Every set of `count` blocks with its probability when blocks are drawn one by one with those
/// weights.
fn law(weights: &[f64], count: usize) -> Vec<(Vec<usize>, f64)> {
    let mut drawn = vec![(Vec::new(), 1.0)];
    for _ in 0..count {
        drawn = drawn
            .into_iter()
            .flat_map(|(set, probability)| {
                let free: Vec<usize> =
                    (0..weights.len()).filter(|block| !set.contains(block)).collect();
                let total: f64 = free.iter().map(|&block| weights[block]).sum();
                free.into_iter()
                    .map(move |block| {
                        ([&set[..], &[block]].concat(), probability * weights[block] / total)
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    drawn
}

/// π_i, the probability that block i is drawn.
fn inclusion(law: &[(Vec<usize>, f64)], block: usize) -> f64 {
    law.iter().filter(|(set, _)| set.contains(&block)).map(|(_, probability)| probability).sum()
}

fn point() -> impl Strategy<Value = Point> {
    prop::array::uniform8(-2.0..2.0)
}

fn function() -> impl Strategy<Value = Function> {
    let rows = prop::collection::vec((prop::array::uniform8(-1.0..1.0), -1.0..1.0), 1..6);
    (rows, any::<bool>()).prop_map(|(rows, convex)| Function { rows, convex })
}

proptest! {
    #[test]
    fn every_law_bounded_away_from_zero_descends_in_expectation(
        function in function(),
        x in point(),
        weights in prop::array::uniform4(0.01..1.0),
        count in 1..=BLOCKS,
        part in 0.01..1.0,
        noise in 0.0..2.0,
    ) {
        let rate = part / function.smoothness().max(1e-9);
        let (gradient, law) = (function.gradient(&x), law(&weights, count));
        // Noise of two signs on every coordinate, with the same sign throughout: mean 0, variance
        // noise² each.
        let mut after = 0.0;
        for (set, probability) in &law {
            for sign in [-1.0, 1.0] {
                let noisy = gradient.map(|g| g + sign * noise);
                after += probability / 2.0 * function.value(&moved(&x, &noisy, set, rate));
            }
        }
        let mut bound = function.value(&x);
        for block in 0..BLOCKS {
            let pi = inclusion(&law, block);
            let variance = WIDTH as f64 * noise * noise;
            bound += -rate / 2.0 * pi * square(&gradient, block) + rate * rate * function.smoothness() / 2.0 * pi * variance;
        }
        prop_assert!(after <= bound + 1e-9 * bound.abs().max(1.0), "{after} > {bound}");
    }

    #[test]
    fn a_block_is_drawn_at_least_as_often_as_it_is_drawn_first(
        weights in prop::array::uniform4(0.001..1.0),
        count in 1..=BLOCKS,
    ) {
        let (law, total) = (law(&weights, count), weights.iter().sum::<f64>());
        let all: f64 = (0..BLOCKS).map(|block| inclusion(&law, block)).sum();
        prop_assert!((all - count as f64).abs() < 1e-12);
        for (block, weight) in weights.iter().enumerate() {
            prop_assert!(inclusion(&law, block) >= weight / total - 1e-12);
        }
    }

    /// The scores of IST grow no faster than a logarithm, so its law is bounded away from 0 by one
    /// over the number of updates.
    #[test]
    fn the_learned_law_is_bounded_away_from_zero(
        seed in 0_u64..1000,
        rate in 0.1..3.0,
        updates in 1_usize..60,
    ) {
        let config = IstConfig { interval: 1, importance_lr: rate, layers_updated: Share::Count(1), ..IstConfig::default() };
        let candidates = config.candidates as f64;
        let mut policy = Ist::new(&LayerSet::all(BLOCKS), config).unwrap();
        let mut rng = streams::stream(seed, "candidates");
        for step in 1..=updates {
            let sets = policy.candidates(step, &mut rng);
            // The losses that drive the first layer as far up as they can.
            let losses: Vec<f64> = sets.iter().map(|set| if set.contains(0) { 0.0 } else { 50.0 }).collect();
            policy.observe(&sets, &losses).unwrap();
            // An advantage is below 1, so one update moves a score by less than c p (1 - p).
            let c = candidates * rate;
            let largest = policy.scores().unwrap().iter().fold(0.0, |most: f64, score| most.max(score.abs()));
            prop_assert!(largest.exp() <= 1.0 + step as f64 * c * c.exp(), "{largest} after {step} \
                updates");
            let weights: Vec<f64> = policy.scores().unwrap().iter().map(|score| sampling::sigmoid(-score)).collect();
            let floor = 1.0 / (2.0 + step as f64 * c * c.exp()) / BLOCKS as f64;
            let law = law(&weights, 1);
            prop_assert!((0..BLOCKS).all(|block| inclusion(&law, block) >= floor));
        }
    }
}

#[test]
fn a_law_that_leaves_a_block_out_does_not_converge() {
    let function = Function {
        rows: vec![([1.0; SIZE], 0.0), ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3.0)],
        convex: true,
    };
    let run = |last: f64| {
        let (mut x, law) = ([0.0; SIZE], law(&[1.0, 1.0, 1.0, last], 1));
        for step in 0..12_000 {
            // The sets in turn, each as often as it is likely.
            let at = (f64::from(step) * 0.618_033_988_75).fract();
            let mut sum = 0.0;
            let (set, _) = law
                .iter()
                .find(|(_, probability)| {
                    sum += probability;
                    at < sum
                })
                .unwrap();
            let gradient = function.gradient(&x);
            x = moved(&x, &gradient, set, 1.0 / function.smoothness());
        }
        dot(&function.gradient(&x), &function.gradient(&x))
    };
    assert!(run(0.05) < 1e-6, "{}", run(0.05));
    assert!(run(0.0) > 1.0, "{}", run(0.0));
}

/// Blocks of equal curvature λ that do not interact: E f(x_T) = (1 - s (1 - (1 - ηλ)²))^T f(x_0)
/// for the share s.
#[test]
fn the_rate_is_in_proportion_to_the_share_of_layers() {
    const LAYERS: usize = 8;
    let (rate, steps, runs) = (0.3, 12, 4000);
    for count in [1, 2, 4, 8] {
        let share = count as f64 / LAYERS as f64;
        let keeps = (1.0 - rate) * (1.0_f64 - rate);
        let expected = (1.0 - share * (1.0 - keeps)).powi(steps);
        let config = RstConfig { layers_updated: Share::Count(count) };
        let mut policy = Rst::new(&LayerSet::all(LAYERS), config).unwrap();
        let mut rng = streams::stream(count as u64, "selection");
        let ends: Vec<f64> = (0..runs)
            .map(|_| {
                let mut squares = [1.0 / LAYERS as f64; LAYERS];
                for step in 0..steps {
                    let drawn = policy.select(step as usize, &mut rng).unwrap();
                    drawn.iter().for_each(|layer| squares[layer] *= keeps);
                }
                squares.iter().sum::<f64>()
            })
            .collect();
        let mean = ends.iter().sum::<f64>() / f64::from(runs);
        let variance =
            ends.iter().map(|end| (end - mean).powi(2)).sum::<f64>() / f64::from(runs - 1);
        let error = (variance / f64::from(runs)).sqrt();
        assert!(
            (mean - expected).abs() <= 5.0 * error + 1e-12,
            "{count} layers: {mean} where {expected} is expected"
        );
    }
}
