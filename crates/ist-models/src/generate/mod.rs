//! Text generation with a key-value cache: greedy, temperature, top-k, top-p; beam search.
//!
//! [`Generation`] goes token by token, so that a caller can show what there is so far and end a row
//! for reasons of its own; [`generate`] runs it to its end. A [`Conversation`] keeps the cache from
//! one generation to the next: what a prompt shares with what was read before is not read again.
//! [`beam_search`] follows several continuations of a prompt at once.

mod beam;
mod choose;

use ist_core::burn::tensor::Tensor;
use ist_core::streams;
use ist_peft::Adapter;
use rand_chacha::ChaCha8Rng;

use crate::decoder::{Decoder, DecoderCache};
use choose::choose;

pub use beam::{BeamSettings, MOST_BEAMS, beam_search};

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
        Self {
            max_new_tokens: 32,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            seed: 0,
            end_tokens: Vec::new(),
        }
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
    /// More beams than a search has.
    #[error("a search has at most {MOST_BEAMS} beams, found {beams}; ask for fewer")]
    Beams {
        /// The beams that were asked for.
        beams: usize,
    },
    /// Prompt and output do not fit the model's context.
    #[error(
        "a prompt of {prompt} tokens and {new} new ones exceed the model's context of {context} \
         positions"
    )]
    Context {
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Tokens to generate.
        new: usize,
        /// Positions there are for tokens.
        context: usize,
    },
}

/// Continues every prompt. Prompts of unequal length are padded on the left; under greedy decoding
/// each row's result is what it would be alone, but for a prefix that padding pushes out of a
/// sliding window. With a temperature every row draws from a stream of its own place in the batch.
pub fn generate<A: Adapter>(
    model: &Decoder<A>,
    prompts: &[Vec<u32>],
    settings: &Settings,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let mut generation = Generation::new(model, prompts, settings)?;
    while generation.step() {}
    Ok(generation.into_outputs())
}

/// A generation under way: one token of every running row a step.
pub struct Generation<'a, A: Adapter> {
    model: &'a Decoder<A>,
    settings: &'a Settings,
    cache: DecoderCache,
    /// What the next step reads, one list a row, and which of it is real.
    tokens: Vec<Vec<u32>>,
    mask: Vec<Vec<bool>>,
    streams: Vec<ChaCha8Rng>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    output: Vec<u32>,
    ended: bool,
}

impl<'a, A: Adapter> Generation<'a, A> {
    /// The generation that [`generate`] runs, before its first step.
    pub fn new(
        model: &'a Decoder<A>,
        prompts: &[Vec<u32>],
        settings: &'a Settings,
    ) -> Result<Self, GenerateError> {
        check(model, prompts, settings.max_new_tokens)?;
        Ok(Self::over(model, model.new_cache(prompts.len()), prompts, settings))
    }

    /// A generation that reads `prompts` behind what the cache holds.
    fn over(
        model: &'a Decoder<A>,
        cache: DecoderCache,
        prompts: &[Vec<u32>],
        settings: &'a Settings,
    ) -> Self {
        let (tokens, mask) = left_padded(prompts);
        let stream = |row| streams::stream(settings.seed, &format!("generation {row}"));
        let row = Row { output: Vec::new(), ended: settings.max_new_tokens == 0 };
        Self {
            model,
            settings,
            cache,
            tokens,
            mask,
            streams: (0..prompts.len()).map(stream).collect(),
            rows: vec![row; prompts.len()],
        }
    }

    /// Produces a token of every row that has not ended; false once all have, and then nothing is
    /// computed.
    pub fn step(&mut self) -> bool {
        if self.rows.iter().all(|row| row.ended) {
            return false;
        }
        let logits = logits_by_row(self.model.extend(&self.tokens, &self.mask, &mut self.cache));
        for (at, row) in self.rows.iter_mut().enumerate() {
            // A row that has ended is read on, since a batch is rectangular, but decides nothing.
            let next = choose(&logits[at], self.settings, &mut self.streams[at]);
            if !row.ended {
                row.output.push(next);
                row.ended = row.output.len() == self.settings.max_new_tokens
                    || self.settings.end_tokens.contains(&next);
            }
            (self.tokens[at], self.mask[at]) = (vec![next], vec![true]);
        }
        true
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// What a row has produced so far.
    pub fn output(&self, row: usize) -> &[u32] {
        &self.rows[row].output
    }

    /// Whether a row has ended.
    pub fn has_ended(&self, row: usize) -> bool {
        self.rows[row].ended
    }

    /// Ends a row, whatever it produced.
    pub fn end(&mut self, row: usize) {
        self.rows[row].ended = true;
    }

    /// What every row produced.
    pub fn into_outputs(self) -> Vec<Vec<u32>> {
        self.rows.into_iter().map(|row| row.output).collect()
    }
}

/// Generations of one row, each of which goes on where the cache of the one before stopped, if its
/// prompt does.
pub struct Conversation<'a, A: Adapter> {
    model: &'a Decoder<A>,
    /// The tokens that the cache has read.
    read: Vec<u32>,
    cache: Option<DecoderCache>,
}

impl<'a, A: Adapter> Conversation<'a, A> {
    /// A conversation in which nothing was said.
    pub fn new(model: &'a Decoder<A>) -> Self {
        Self { model, read: Vec::new(), cache: None }
    }

    /// How many tokens of `prompt` the cache has read already: all that were read where the prompt
    /// goes on behind them, else none.
    pub fn shared(&self, prompt: &[u32]) -> usize {
        if self.cache.is_some() && prompt.len() > self.read.len() && prompt.starts_with(&self.read)
        {
            self.read.len()
        } else {
            0
        }
    }

    /// Continues the prompt. `each` sees the output so far after every token and says whether to go
    /// on.
    pub fn answer(
        &mut self,
        prompt: &[u32],
        settings: &Settings,
        mut each: impl FnMut(&[u32]) -> bool,
    ) -> Result<Vec<u32>, GenerateError> {
        check(self.model, &[prompt.to_vec()], settings.max_new_tokens)?;
        let shared = self.shared(prompt);
        let cache =
            self.cache.take().filter(|_| shared > 0).unwrap_or_else(|| self.model.new_cache(1));
        let mut generation =
            Generation::over(self.model, cache, &[prompt[shared..].to_vec()], settings);
        while generation.step() {
            if !each(generation.output(0)) {
                generation.end(0);
            }
        }
        // The last token was produced but never read.
        let output = &generation.rows[0].output;
        self.read = [prompt, &output[..output.len().saturating_sub(1)]].concat();
        let output = output.clone();
        self.cache = (!output.is_empty()).then_some(generation.cache);
        Ok(output)
    }
}

fn check<A: Adapter>(
    model: &Decoder<A>,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
) -> Result<(), GenerateError> {
    let (vocabulary, context) = (model.vocab_size(), model.max_position_embeddings());
    for (row, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(GenerateError::Vocabulary { row, id, vocabulary });
        }
        if prompt.len().saturating_add(max_new_tokens) > context {
            return Err(GenerateError::Context {
                prompt: prompt.len(),
                new: max_new_tokens,
                context,
            });
        }
    }
    Ok(())
}

/// The prompts as one rectangle, padded on the left, and which of its places are real.
fn left_padded(prompts: &[Vec<u32>]) -> (Vec<Vec<u32>>, Vec<Vec<bool>>) {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let padding = |prompt: &Vec<u32>| longest - prompt.len();
    let tokens = prompts.iter().map(|p| [vec![0; padding(p)], p.clone()].concat()).collect();
    let mask =
        prompts.iter().map(|p| [vec![false; padding(p)], vec![true; p.len()]].concat()).collect();
    (tokens, mask)
}

fn logits_by_row(logits: Tensor<2>) -> Vec<Vec<f64>> {
    let width = logits.dims()[1];
    let values: Vec<f64> = logits.into_data().iter::<f64>().collect();
    values.chunks(width).map(<[f64]>::to_vec).collect()
}
