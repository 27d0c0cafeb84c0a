//! Gemma 3 with pictures, 4B to 27B (Gemma Team, [arXiv
//! 2503.19786](https://arxiv.org/abs/2503.19786)): its text model is [`gemma3_text`].

use super::composite::{self, Text};
use super::fields::Fields;
use super::{Architecture, gemma2, gemma3_text};
use crate::decoder::DecoderConfig;
use crate::decoder::names::Names;

/// Gemma 3 with pictures.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gemma3", read };

static NAMES: Names = Names { body: composite::BODY, ..gemma2::NAMES };

fn read(fields: &mut Fields) -> DecoderConfig {
    // Published files leave out what transformers has as the defaults of its class.
    let defaults = &[
        ("vocab_size", 262_208),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
    ];
    let read = gemma3_text::ARCHITECTURE.read;
    let text = Text { model_type: "gemma3_text", defaults, tied: true, read };
    let config = composite::text(fields, text);
    DecoderConfig { model_type: "gemma3", names: &NAMES, ..config }
}
