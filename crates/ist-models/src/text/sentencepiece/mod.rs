//! SentencePiece models (`tokenizer.model`) as tokenizers.
//!
//! Older LLaMA folders hold a `tokenizer.model` and no `tokenizer.json`. Such a file is one
//! protobuf message of which a dozen fields matter. [`wire`] reads protobuf's wire format and
//! [`model`] those fields; a protobuf crate would bring a code generator and a schema that is not
//! ours for the sake of that dozen. [`convert`] then builds what the same model has as
//! `tokenizer.json`, so that everything behind it knows one kind of tokenizer.

mod convert;
mod model;
mod wire;

pub(crate) use convert::{TokenizerSettings, definition};
pub(crate) use model::SentencePieceModel;
