//! Tokenizers of checkpoints, and the ids that end a text.

use serde_json::Value;
use tokenizers::Tokenizer as Inner;

/// Why a tokenizer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// There is none.
    #[error("{origin} has neither tokenizer.json nor tokenizer.model; token ids work without one")]
    Missing {
        /// The model.
        origin: String,
    },
    /// The SentencePiece model cannot be used.
    #[error("{origin}: tokenizer.model: {message}")]
    SentencePiece {
        /// The model.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The file cannot be read.
    #[error("{origin}: tokenizer.json: {message}")]
    Invalid {
        /// The model.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// It can produce an id the model has no embedding for.
    #[error(
        "{origin}: the tokenizer has token \"{token}\" with id {id}, but the model's vocabulary has {vocab_size} entries"
    )]
    DoesNotFit {
        /// The model.
        origin: String,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
}

/// A tokenizer that fits its model.
#[derive(Clone, Debug)]
pub struct Tokenizer(Inner);

impl Tokenizer {
    /// Reads `tokenizer.json` and checks every id it can produce against the embedding.
    pub fn from_bytes(
        origin: &str,
        bytes: &[u8],
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        let inner = Inner::from_bytes(bytes).map_err(|error| TokenizerError::Invalid {
            origin: origin.to_owned(),
            message: error.to_string(),
        })?;
        let highest = inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match highest {
            Some((token, id)) if id as usize >= vocab_size => {
                Err(TokenizerError::DoesNotFit { origin: origin.to_owned(), token, id, vocab_size })
            }
            _ => Ok(Self(inner)),
        }
    }

    /// The tokenizer itself.
    pub fn into_inner(self) -> Inner {
        self.0
    }
}

/// The text of a special token, which a file gives as such or as `{"content": ..}`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// The end tokens: `eos_token_id` of `generation_config.json`, else of `config.json`; one id or a list.
pub fn end_tokens(generation_config: Option<&Value>, config: &Value) -> Vec<u32> {
    let read = |value: &Value| match &value["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
        Value::Number(id) => id.as_u64().map(|id| id as u32).into_iter().collect(),
        _ => Vec::new(),
    };
    let first: Vec<u32> = generation_config.map(read).unwrap_or_default();
    if first.is_empty() { read(config) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TINY: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 5}, "unk_token": "a"}}"#;

    #[test]
    fn a_tokenizer_with_an_id_beyond_the_embedding_is_refused() {
        assert!(Tokenizer::from_bytes("m", TINY.as_bytes(), 6).is_ok());
        let message = Tokenizer::from_bytes("m", TINY.as_bytes(), 5).unwrap_err().to_string();
        assert!(
            message.contains("token \"b\" with id 5") && message.contains("5 entries"),
            "{message}"
        );
    }

    #[test]
    fn end_tokens_come_from_the_generation_config_first() {
        assert_eq!(
            end_tokens(Some(&json!({"eos_token_id": [1, 2]})), &json!({"eos_token_id": 3})),
            [1, 2]
        );
        assert_eq!(end_tokens(Some(&json!({})), &json!({"eos_token_id": 3})), [3]);
        assert_eq!(end_tokens(None, &json!({"eos_token_id": null})), Vec::<u32>::new());
    }
}
