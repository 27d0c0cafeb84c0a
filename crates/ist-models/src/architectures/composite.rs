//! The text model of a model that also sees: its `config.json` keeps what it says of text under
//! `text_config`.
//!
//! A text is all that such a model gets here, and on texts it computes what its text model does.

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::decoder::DecoderConfig;

/// Where the layers of such a model stand in transformers 5.
pub const BODY: &str = "model.language_model";

/// What an architecture says of its text model.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The `model_type` that its `text_config` has, where it has one.
    pub model_type: &'a str,
    /// Fields that a `text_config` may leave out, with their values.
    pub defaults: &'a [(&'a str, u64)],
    /// Whether head and embedding are one matrix where neither level says.
    pub tied: bool,
    /// Reads the fields of the text model.
    pub read: fn(&mut Fields) -> DecoderConfig,
}

/// Reads the text model's configuration.
pub fn text(fields: &mut Fields, text: Text<'_>) -> DecoderConfig {
    let mut table = match fields.value("text_config") {
        Some(Value::Object(table)) => table.clone(),
        Some(found) => {
            fields.fault(format!("`text_config` must be a table, found {found}"));
            Map::new()
        }
        // Older files have one level for all.
        None => fields.document().clone(),
    };
    if let Some(found) = table.get("model_type").filter(|_| fields.has("text_config"))
        && found != text.model_type
    {
        let expected = text.model_type;
        fields.fault(format!("`text_config.model_type` must be \"{expected}\", found {found}"));
    }
    for (key, value) in text.defaults {
        table.entry((*key).to_owned()).or_insert(Value::from(*value));
    }
    let tied = fields.value("tie_word_embeddings").or_else(|| table.get("tie_word_embeddings"));
    let tied = tied.cloned().unwrap_or(Value::Bool(text.tied));
    table.insert("tie_word_embeddings".to_owned(), tied);
    let mut inner = Fields::new(&table);
    let config = (text.read)(&mut inner);
    inner.refuse_quantised();
    for fault in inner.into_faults() {
        fields.fault(format!("`text_config`: {fault}"));
    }
    config
}

/// Whether a document says if head and embedding are one matrix.
pub fn says_whether_tied(document: &Value) -> bool {
    let says = |table: &Value| table.get("tie_word_embeddings").is_some_and(Value::is_boolean);
    says(document) || document.get("text_config").is_some_and(says)
}
