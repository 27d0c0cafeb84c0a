//! A model's text side: its tokenizer, its end tokens, and how a record becomes token ids.

use anyhow::anyhow;
use tokenizers::Tokenizer;

use crate::config::RunConfig;
use crate::data::{Encoder, EncoderOptions, Template};
use crate::failure::{Failure, OrFail};

/// A tokenizer that fits its model.
#[derive(Clone, Debug)]
pub struct TextModel {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end a text, the first of which is appended to training texts.
    pub end_tokens: Vec<u32>,
}

impl TextModel {
    /// The ids of a prompt, with the special tokens the tokenizer puts around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let encoding = self.tokenizer.encode(text, true).map_err(|error| anyhow!("tokenizer: {error}")).or_run()?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Failure> {
        self.tokenizer.decode(ids, true).map_err(|error| anyhow!("tokenizer: {error}")).or_run()
    }

    /// How a run turns its records into token ids.
    pub fn encoder(&self, config: &RunConfig, vocab_size: usize) -> Result<Encoder, Failure> {
        let options = EncoderOptions {
            template: Template::parse(&config.data.template).or_input()?,
            train_on_inputs: config.data.train_on_inputs,
            cutoff: config.data.cutoff,
            end_tokens: self.end_tokens.clone(),
            vocab_size,
        };
        Ok(Encoder::new(self.tokenizer.clone(), options))
    }
}
