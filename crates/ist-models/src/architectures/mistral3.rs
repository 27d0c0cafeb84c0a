//! Mistral Small 3.1 and later with pictures: their text model is [`mistral`].

use super::composite::{self, Text};
use super::fields::Fields;
use super::{Architecture, mistral};
use crate::decoder::DecoderConfig;
use crate::decoder::names::Names;

/// Mistral with pictures.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "mistral3", read };

static NAMES: Names = Names { body: composite::BODY, ..Names::LLAMA };

fn read(fields: &mut Fields) -> DecoderConfig {
    let read = mistral::ARCHITECTURE.read;
    let text = Text { model_type: "mistral", defaults: &[], tied: true, read };
    let config = composite::text(fields, text);
    DecoderConfig { model_type: "mistral3", names: &NAMES, ..config }
}
