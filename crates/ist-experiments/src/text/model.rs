//! A model's text side: its tokenizer, its end tokens, its chat template, and how a record becomes
//! token ids.

use std::sync::Arc;

use ist_models::text::text_files::ChatTemplateSource;
use ist_models::text::tokenizer;
use tokenizers::Tokenizer;

use crate::config::RunConfig;
use crate::text::chat_template::ChatTemplate;
use crate::text::records::{Encoder, EncoderOptions, Format, Template};
use ist_records::{Failure, OrFail};

/// A tokenizer that fits its model.
#[derive(Clone, Debug)]
pub struct TextModel {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end a text, the first of which is appended to training texts.
    pub end_tokens: Vec<u32>,
    /// The model's chat template, if it has one, or why it cannot be had.
    pub chat_template: Result<Option<ChatTemplateSource>, String>,
}

impl TextModel {
    /// The ids of a prompt, with the special tokens the tokenizer puts around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let encoding = tokenizer::encode(&self.tokenizer, text, true).or_input()?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Failure> {
        tokenizer::decode(&self.tokenizer, ids).or_input()
    }

    /// The model's chat template, ready to be rendered.
    ///
    /// # Errors
    ///
    /// A template that cannot be used.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, Failure> {
        let source = self.chat_template.as_ref().map_err(Failure::input)?;
        source.as_ref().map(ChatTemplate::new).transpose().or_input()
    }

    /// The template of that name (`data.template`) for records of a format.
    ///
    /// `chat` is the model's chat template; `auto` is that for conversations if the model has one,
    /// else `alpaca`.
    ///
    /// # Errors
    ///
    /// No template of that name; `chat` where the model has none; a chat template that cannot be
    /// used.
    pub fn template(&self, name: &str, format: Format) -> Result<Template, Failure> {
        let chat = match name {
            "chat" => self.chat_template()?,
            "auto" if format == Format::Chat => self.chat_template()?,
            _ => None,
        };
        match (name, chat) {
            (_, Some(template)) => Ok(Template::Chat(Arc::new(template))),
            ("chat", None) => Err(Failure::input(NO_CHAT_TEMPLATE)),
            ("auto", None) => Ok(Template::Alpaca),
            (name, None) => Template::parse(name).or_input(),
        }
    }

    /// How a run turns records of that format into token ids.
    pub fn encoder(
        &self,
        config: &RunConfig,
        format: Format,
        vocab_size: usize,
    ) -> Result<Encoder, Failure> {
        let options = EncoderOptions {
            template: self.template(&config.data.template, format)?,
            train_on_inputs: config.data.train_on_inputs,
            cutoff: config.data.cutoff,
            end_tokens: self.end_tokens.clone(),
            vocab_size,
        };
        Ok(Encoder::new(self.tokenizer.clone(), options))
    }
}

/// The names that mean a template only beside a model.
pub const MODEL_TEMPLATES: [&str; 2] = ["auto", "chat"];

/// Why `chat` cannot be.
pub const NO_CHAT_TEMPLATE: &str = "the model has no chat template (`chat_template` in \
                                    tokenizer_config.json, \
                                    chat_template.jinja or chat_template.json)";
