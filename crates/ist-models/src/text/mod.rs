//! The text side of a model: its tokenizer, its special tokens, its chat template.

mod sentencepiece;
pub mod text_files;
pub mod tokenizer;

pub use text_files::{ChatTemplateSource, TextFiles};
pub use tokenizer::{Tokenizer, TokenizerError};
