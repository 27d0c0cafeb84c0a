//! Text generation with a key-value cache: greedy, temperature, top-k, top-p.

use ist_core::burn::tensor::Tensor;
use ist_core::streams;
use ist_peft::Adapter;
use rand::{Rng, RngExt};

use crate::causal_lm::CausalLm;

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// 0 is greedy; else logits are divided by it before the softmax.
    pub temperature: f64,
    /// Draw from that many likeliest tokens only.
    pub top_k: Option<usize>,
    /// Draw from the fewest likeliest tokens whose probabilities sum to at least this, in (0, 1].
    pub top_p: Option<f64>,
    /// Fixes the draws.
    pub seed: u64,
    /// Tokens that end a row; the one produced is part of the output.
    pub end_tokens: Vec<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_new_tokens: 32, temperature: 0.0, top_k: None, top_p: None, seed: 0, end_tokens: Vec::new() }
    }
}

/// Why nothing can be generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// A prompt is empty.
    #[error("prompt {row} has no token; give at least one")]
    EmptyPrompt {
        /// Which prompt, counted from 0.
        row: usize,
    },
    /// A token is not in the model's vocabulary.
    #[error("prompt {row}: token {id} is beyond the model's vocabulary of {vocabulary}")]
    Vocabulary {
        /// Which prompt, counted from 0.
        row: usize,
        /// The token.
        id: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// Prompt and output do not fit the model's context.
    #[error("a prompt of {prompt} tokens and {new} new ones exceed the model's context of {context} positions")]
    Context {
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Tokens to generate.
        new: usize,
        /// Positions there are for tokens.
        context: usize,
    },
}

/// Continues every prompt. Prompts of unequal length are padded on the left; under greedy decoding each row's
/// result is what it would be alone. With a temperature every row draws from a stream of its own place in the batch.
pub fn generate<A: Adapter, M: CausalLm<A>>(
    model: &M,
    prompts: &[Vec<u32>],
    settings: &Settings,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    check(model, prompts, settings)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 || settings.max_new_tokens == 0 {
        return Ok(vec![Vec::new(); prompts.len()]);
    }
    let padding = |prompt: &Vec<u32>| longest - prompt.len();
    let mut tokens: Vec<Vec<u32>> = prompts.iter().map(|p| [vec![0; padding(p)], p.clone()].concat()).collect();
    let mut mask: Vec<Vec<bool>> =
        prompts.iter().map(|p| [vec![false; padding(p)], vec![true; p.len()]].concat()).collect();
    let mut streams: Vec<_> =
        (0..prompts.len()).map(|row| streams::stream(settings.seed, &format!("generation {row}"))).collect();
    let mut outputs = vec![Vec::new(); prompts.len()];
    let mut cache = model.new_cache(prompts.len());
    loop {
        let logits = rows(model.extend(&tokens, &mask, &mut cache));
        for (row, output) in outputs.iter_mut().enumerate() {
            let next = choose(&logits[row], settings, &mut streams[row]);
            if !ended(output, settings) {
                output.push(next);
            }
            (tokens[row], mask[row]) = (vec![next], vec![true]);
        }
        if outputs.iter().all(|output| ended(output, settings)) {
            return Ok(outputs);
        }
    }
}

fn check<A: Adapter, M: CausalLm<A>>(
    model: &M,
    prompts: &[Vec<u32>],
    settings: &Settings,
) -> Result<(), GenerateError> {
    let (vocabulary, context) = (model.vocab_size(), model.max_position_embeddings());
    for (row, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(GenerateError::Vocabulary { row, id, vocabulary });
        }
        if prompt.len().saturating_add(settings.max_new_tokens) > context {
            return Err(GenerateError::Context { prompt: prompt.len(), new: settings.max_new_tokens, context });
        }
    }
    Ok(())
}

fn ended(output: &[u32], settings: &Settings) -> bool {
    output.len() == settings.max_new_tokens || output.last().is_some_and(|last| settings.end_tokens.contains(last))
}

fn rows(logits: Tensor<2>) -> Vec<Vec<f64>> {
    let width = logits.dims()[1];
    let values: Vec<f64> = logits.into_data().iter::<f64>().collect();
    values.chunks(width).map(<[f64]>::to_vec).collect()
}

/// The next token: the likeliest when the temperature is 0 (the lowest id among equals), else a draw.
fn choose(logits: &[f64], settings: &Settings, rng: &mut impl Rng) -> u32 {
    let ascending = |a: &usize, b: &usize| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a));
    if settings.temperature == 0.0 {
        return (0..logits.len()).max_by(ascending).map_or(0, |id| id as u32);
    }
    let mut ranked: Vec<usize> = (0..logits.len()).collect();
    ranked.sort_by(|a, b| ascending(b, a));
    ranked.truncate(settings.top_k.unwrap_or(usize::MAX).max(1));
    let peak = logits[ranked[0]];
    let weights: Vec<f64> = ranked.iter().map(|&id| ((logits[id] - peak) / settings.temperature).exp()).collect();
    let kept = nucleus(&weights, settings.top_p.unwrap_or(1.0));
    let mut left = rng.random::<f64>() * weights[..kept].iter().sum::<f64>();
    for (id, weight) in ranked.iter().zip(&weights[..kept]) {
        left -= weight;
        if left < 0.0 {
            return *id as u32;
        }
    }
    ranked[kept - 1] as u32
}

/// How many of the descending `weights` it takes to reach the share `top_p` of their sum.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    let needed = top_p * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= needed
    });
    reached.map_or(weights.len(), |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(settings: &Settings) -> [f64; 4] {
        let mut rng = streams::stream(1, "test");
        let logits = [0.1f64, 0.4, 0.2, 0.3].map(f64::ln);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[choose(&logits, settings, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn close(found: [f64; 4], expected: [f64; 4]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.015)
    }

    #[test]
    fn temperature_one_draws_from_the_softmax() {
        let settings = Settings { temperature: 1.0, ..Settings::default() };
        assert!(close(frequencies(&settings), [0.1, 0.4, 0.2, 0.3]));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let settings = Settings { temperature: 1.0, top_k: Some(2), ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]));
        let settings = Settings { temperature: 1.0, top_p: Some(0.75), ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]));
    }

    #[test]
    fn a_low_temperature_approaches_greedy() {
        let settings = Settings { temperature: 0.02, ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 1.0, 0.0, 0.0]));
        assert_eq!(choose(&[1.0, 3.0, 3.0], &Settings::default(), &mut streams::stream(0, "")), 1);
    }
}
