//! Beam search: of every prompt the best few continuations are followed at once.
//!
//! A continuation's score is the sum of its tokens' log-probabilities. It is the search of
//! transformers 5 (`generate(num_beams=K, early_stopping=False)`): a step looks at the best (1 + E)
//! · K continuations by one token, at least 2 · K, where E is the number of end tokens; those among
//! the best K that end are kept with their score over their length to the power of
//! `length_penalty`, and the best K that do not end go on. A prompt is done when K have ended and
//! the best that goes on, scored at its present length, does not beat the worst of them.

use std::num::NonZeroUsize;

use ist_peft::Adapter;

use super::{GenerateError, check, left_padded, logits_by_row};
use crate::decoder::Decoder;

/// Beams of a search at most: each has a cache of its own, and every step ranks all continuations
/// of all.
pub const MOST_BEAMS: usize = 4096;

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSettings {
    /// Continuations of a prompt that are followed, K.
    pub beams: NonZeroUsize,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// The power of the length by which an ended continuation's score is divided: 0 prefers short
    /// ones, 1 compares means.
    pub length_penalty: f64,
    /// Tokens that end a continuation; the one produced is part of the output.
    pub end_tokens: Vec<u32>,
}

impl BeamSettings {
    /// Continuations by one token that a step looks at.
    fn candidates(&self) -> usize {
        self.beams.get() * (1 + self.end_tokens.len()).max(2)
    }

    /// An ended continuation's score.
    fn normalised(&self, score: f64, length: usize) -> f64 {
        score / (length as f64).powf(self.length_penalty)
    }
}

/// The best continuation of every prompt. Prompts of unequal length are padded on the left, and
/// each row's result is what it would be alone.
///
/// # Errors
///
/// More than [`MOST_BEAMS`], an empty prompt, a token beyond the vocabulary, a prompt that leaves
/// no room for the new tokens.
pub fn beam_search<A: Adapter>(
    model: &Decoder<A>,
    prompts: &[Vec<u32>],
    settings: &BeamSettings,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let beams = settings.beams.get();
    if beams > MOST_BEAMS {
        return Err(GenerateError::Beams { beams });
    }
    check(model, prompts, settings.max_new_tokens)?;
    let mut searches = vec![Search::new(settings); prompts.len()];
    let (mut tokens, mut mask) = left_padded(prompts);
    let mut cache = model.new_cache(prompts.len());
    while searches.iter().any(|search| search.open) {
        let scores: Vec<Vec<f64>> = logits_by_row(model.extend(&tokens, &mask, &mut cache))
            .into_iter()
            .map(log_softmax)
            .collect();
        let rows = step(&mut searches, &scores, settings);
        let last = |search: &Search| {
            search.running.iter().filter_map(|beam| beam.tokens.last().copied()).collect()
        };
        let open = searches.iter().filter(|search| search.open);
        tokens =
            open.flat_map(|search| -> Vec<u32> { last(search) }).map(|token| vec![token]).collect();
        mask = vec![vec![true]; tokens.len()];
        if !rows.is_empty() {
            model.select_rows(&rows, &mut cache);
        }
    }
    Ok(searches.into_iter().map(Search::best).collect())
}

/// One step of every open search; the rows of the cache that those still open go on from.
fn step(searches: &mut [Search], scores: &[Vec<f64>], settings: &BeamSettings) -> Vec<usize> {
    let (mut first, mut rows) = (0, Vec::new());
    for search in searches.iter_mut().filter(|search| search.open) {
        let width = search.running.len();
        let parents = search.step(&scores[first..first + width], settings);
        if search.open {
            rows.extend(parents.into_iter().map(|parent| first + parent));
        }
        first += width;
    }
    rows
}

/// A continuation and its score: a sum of log-probabilities, or that over the length once it has
/// ended.
#[derive(Clone, Debug, PartialEq)]
struct Beam {
    tokens: Vec<u32>,
    score: f64,
}

/// The search for one prompt's continuation.
#[derive(Clone, Debug, PartialEq)]
struct Search {
    /// Those that go on, best first.
    running: Vec<Beam>,
    /// Those that have ended, best first, K at most.
    ended: Vec<Beam>,
    open: bool,
}

/// A running beam's continuation by one token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    parent: usize,
    token: u32,
    score: f64,
}

impl Search {
    fn new(settings: &BeamSettings) -> Self {
        let start = Beam { tokens: Vec::new(), score: 0.0 };
        Self { running: vec![start], ended: Vec::new(), open: settings.max_new_tokens > 0 }
    }

    /// Continues every running beam by a token, given log p of each; returns the beam that each of
    /// the new ones continues.
    fn step(&mut self, scores: &[Vec<f64>], settings: &BeamSettings) -> Vec<usize> {
        let (beams, length) = (settings.beams.get(), self.running[0].tokens.len() + 1);
        let ends =
            |token: &u32| length == settings.max_new_tokens || settings.end_tokens.contains(token);
        let candidates = candidates(&self.running, scores, settings.candidates());
        let continued = |candidate: &Candidate| {
            [&self.running[candidate.parent].tokens[..], &[candidate.token]].concat()
        };
        let ending = candidates.iter().take(beams).filter(|candidate| ends(&candidate.token));
        self.ended.extend(ending.map(|candidate| Beam {
            tokens: continued(candidate),
            score: settings.normalised(candidate.score, length),
        }));
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.ended.truncate(beams);
        let going = || candidates.iter().filter(|candidate| !ends(&candidate.token)).take(beams);
        let parents = going().map(|candidate| candidate.parent).collect();
        self.running = going()
            .map(|candidate| Beam { tokens: continued(candidate), score: candidate.score })
            .collect();
        self.open = self.running.first().is_some_and(|best| {
            self.ended.len() < beams
                || self
                    .ended
                    .last()
                    .is_some_and(|worst| settings.normalised(best.score, length) > worst.score)
        });
        parents
    }

    fn best(self) -> Vec<u32> {
        self.ended.into_iter().next().map(|beam| beam.tokens).unwrap_or_default()
    }
}

/// The best `count` continuations of all running beams, best first; among equals the one of the
/// better beam, then of the lower token.
fn candidates(running: &[Beam], scores: &[Vec<f64>], count: usize) -> Vec<Candidate> {
    let descending = |a: &Candidate, b: &Candidate| {
        b.score.total_cmp(&a.score).then((a.parent, a.token).cmp(&(b.parent, b.token)))
    };
    let mut all = Vec::new();
    for (parent, (beam, scores)) in running.iter().zip(scores).enumerate() {
        let each = scores.iter().enumerate();
        let mut own: Vec<Candidate> = each
            .map(|(token, score)| Candidate {
                parent,
                token: token as u32,
                score: beam.score + score,
            })
            .collect();
        if count < own.len() {
            own.select_nth_unstable_by(count, descending);
            own.truncate(count);
        }
        all.extend(own);
    }
    all.sort_unstable_by(descending);
    all.truncate(count);
    all
}

/// log softmax of one row of logits.
fn log_softmax(logits: Vec<f64>) -> Vec<f64> {
    let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = logits.iter().map(|logit| (logit - peak).exp()).sum::<f64>().ln() + peak;
    logits.into_iter().map(|logit| logit - total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ist_core::streams;
    use rand::RngExt;

    fn settings(beams: usize, max_new_tokens: usize, length_penalty: f64) -> BeamSettings {
        let beams = NonZeroUsize::new(beams).unwrap();
        BeamSettings { beams, max_new_tokens, length_penalty, end_tokens: vec![0] }
    }

    /// Every continuation of up to three tokens of a made-up model, by enumeration.
    fn best_of_all(next: &impl Fn(&[u32]) -> Vec<f64>, settings: &BeamSettings) -> Vec<u32> {
        let mut open = vec![Beam { tokens: Vec::new(), score: 0.0 }];
        let mut best = Beam { tokens: Vec::new(), score: f64::NEG_INFINITY };
        while let Some(beam) = open.pop() {
            for (token, score) in next(&beam.tokens).into_iter().enumerate() {
                let tokens = [&beam.tokens[..], &[token as u32]].concat();
                let score = beam.score + score;
                if token == 0 || tokens.len() == settings.max_new_tokens {
                    let score = settings.normalised(score, tokens.len());
                    if score > best.score {
                        best = Beam { tokens, score };
                    }
                } else {
                    open.push(Beam { tokens, score });
                }
            }
        }
        best.tokens
    }

    /// Log-probabilities over four tokens that depend on all that came before.
    fn made_up(seed: u64) -> impl Fn(&[u32]) -> Vec<f64> {
        move |tokens| {
            let mut rng = streams::stream(seed, &format!("{tokens:?}"));
            log_softmax((0..4).map(|_| 5.0 * rng.random::<f64>()).collect())
        }
    }

    fn searched(next: &impl Fn(&[u32]) -> Vec<f64>, settings: &BeamSettings) -> Vec<u32> {
        let mut search = Search::new(settings);
        while search.open {
            let scores: Vec<Vec<f64>> =
                search.running.iter().map(|beam| next(&beam.tokens)).collect();
            search.step(&scores, settings);
        }
        search.best()
    }

    #[test]
    fn as_many_beams_as_there_are_continuations_find_the_best_of_all() {
        for seed in 0..200 {
            let (next, settings) = (made_up(seed), settings(64, 3, 1.0));
            assert_eq!(searched(&next, &settings), best_of_all(&next, &settings), "seed {seed}");
        }
    }

    #[test]
    fn one_beam_is_greedy_as_long_as_the_greedy_token_is_no_end() {
        for seed in 0..50 {
            let next = made_up(seed);
            let mut greedy = Vec::new();
            for _ in 0..5 {
                let scores = next(&greedy);
                greedy.push(
                    (0..4)
                        .max_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]))
                        .unwrap(),
                );
            }
            if !greedy.contains(&0) {
                let settings = BeamSettings { end_tokens: Vec::new(), ..settings(1, 5, 1.0) };
                assert_eq!(searched(&next, &settings), greedy);
            }
        }
    }

    #[test]
    fn the_length_penalty_decides_between_short_and_long() {
        // Ending costs ln 0.4 at once; going on costs ln 0.6 and then nothing.
        let next = |tokens: &[u32]| {
            if tokens.is_empty() {
                vec![0.4f64.ln(), 0.6f64.ln()]
            } else {
                vec![0.9f64.ln(), 0.1f64.ln()]
            }
        };
        assert_eq!(searched(&next, &settings(2, 3, 1.0)), [1, 0]);
        let next = |_: &[u32]| vec![0.5f64.ln(), 0.5f64.ln()];
        assert_eq!(searched(&next, &settings(2, 3, 0.0)), [0]);
        assert_eq!(searched(&next, &settings(2, 3, 2.0)).len(), 3);
    }

    #[test]
    fn no_new_token_is_an_empty_continuation() {
        assert!(searched(&made_up(1), &settings(3, 0, 1.0)).is_empty());
    }
}
