//! Qwen2.5-VL (Bai et al., [arXiv 2502.13923](https://arxiv.org/abs/2502.13923)): its text model is
//! [`qwen2`], turned by the three positions of a place in a picture. A token of a text has the same
//! position three times, so there that is one rotation.

use serde_json::{Map, Value, json};

use super::composite::{self, Text};
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::{Architecture, qwen2};
use crate::decoder::DecoderConfig;
use crate::decoder::names::Names;

/// Qwen2.5-VL.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "qwen2_5_vl", read };

static NAMES: Names = Names { body: composite::BODY, ..Names::LLAMA };

fn read(fields: &mut Fields) -> DecoderConfig {
    let text = Text { model_type: "qwen2_5_vl_text", defaults: &[], tied: false, read: read_text };
    let config = composite::text(fields, text);
    DecoderConfig { model_type: "qwen2_5_vl", names: &NAMES, ..config }
}

fn read_text(fields: &mut Fields) -> DecoderConfig {
    let document = one_rotation(fields.document());
    let mut inner = Fields::new(&document);
    let defaults = Defaults {
        eps: 1e-5,
        theta: 1e6,
        max_position_embeddings: qwen2::CONTEXT,
        kv_heads: Some(8),
        ..Defaults::default()
    };
    let config = llama::base(&mut inner, defaults);
    let config = qwen2::windows(&mut inner, DecoderConfig { qkv_bias: true, ..config });
    for fault in inner.into_faults() {
        fields.fault(fault);
    }
    config
}

/// The document with the rotation of a text in the place of the one of a picture.
fn one_rotation(document: &Map<String, Value>) -> Map<String, Value> {
    let mut document = document.clone();
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(table) = document.get_mut(key).and_then(Value::as_object_mut) else { continue };
        for kind in ["type", "rope_type"] {
            if let Some(kind) = table.get_mut(kind).filter(|kind| **kind == "mrope") {
                *kind = json!("default");
            }
        }
    }
    document.entry("max_window_layers").or_insert(json!(80));
    document
}
