//! The files of a model that bear on text: tokenizer, special tokens, chat template.

use std::path::Path;

use ist_files::regular;
use ist_files::untrusted::{contained, json};
use serde_json::Value;

use super::sentencepiece::{self, SentencePieceModel};
use super::tokenizer::{Tokenizer, TokenizerError, token_text};
use crate::load_error::LoadError;

/// What of these files a model has.
#[derive(Clone, Debug, Default)]
pub struct TextFiles {
    /// `tokenizer.json`.
    tokenizer: Option<Vec<u8>>,
    /// `tokenizer.model`, read only where there is no `tokenizer.json`.
    sentence_piece: Option<Vec<u8>>,
    config: Option<Value>,
    special_tokens_map: Option<Value>,
    added_tokens: Option<Value>,
    /// `chat_template.jinja` or `chat_template.json`, with the file's name.
    template: Option<(&'static str, String)>,
}

/// A model's chat template, as its files have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplateSource {
    /// The file it stands in.
    pub file: &'static str,
    /// The template, in Jinja's language.
    pub source: String,
    /// Variables beside the messages: `bos_token`, `eos_token` and so on, with their texts.
    pub special_tokens: Vec<(String, String)>,
}

/// The files beside `tokenizer.json` that travel with a model.
pub(crate) const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

impl TextFiles {
    /// Those in a folder.
    pub fn in_folder(folder: &Path) -> Result<Self, LoadError> {
        let bytes = |name: &str| -> Result<Option<Vec<u8>>, LoadError> {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(None);
            }
            regular::read(&path).map(Some).map_err(|source| LoadError::Io { path, source })
        };
        let document = |name: &str| -> Result<Option<Value>, LoadError> {
            let value = bytes(name)?.map(|bytes| json::value(&bytes)).transpose();
            value.map_err(|error| LoadError::Config {
                path: folder.join(name),
                message: format!("not JSON: {}", json::told(&error)),
            })
        };
        let tokenizer = bytes("tokenizer.json")?;
        Ok(Self {
            sentence_piece: if tokenizer.is_none() { bytes("tokenizer.model")? } else { None },
            tokenizer,
            config: document("tokenizer_config.json")?,
            special_tokens_map: document("special_tokens_map.json")?,
            added_tokens: document("added_tokens.json")?,
            template: template(
                folder,
                bytes("chat_template.jinja")?,
                document("chat_template.json")?,
            )?,
        })
    }

    /// A tokenizer and nothing else.
    pub fn tokenizer_alone(tokenizer: Option<Vec<u8>>) -> Self {
        Self { tokenizer, ..Self::default() }
    }

    /// `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.tokenizer.as_deref()
    }

    /// The tokenizer, checked against an embedding of `vocab_size` rows: `tokenizer.json`, else
    /// `tokenizer.model`.
    pub fn tokenizer(&self, origin: &str, vocab_size: usize) -> Result<Tokenizer, TokenizerError> {
        if let Some(bytes) = &self.tokenizer {
            return Tokenizer::from_bytes(origin, bytes, vocab_size);
        }
        let Some(bytes) = &self.sentence_piece else {
            return Err(TokenizerError::Missing { origin: origin.to_owned() });
        };
        let settings = sentencepiece::TokenizerSettings {
            config: self.config.as_ref(),
            added_tokens: self.added_tokens.as_ref(),
        };
        let definition = contained(|| {
            SentencePieceModel::read(bytes)
                .and_then(|model| sentencepiece::definition(&model, &settings))
        });
        let definition = definition.and_then(|made| made);
        let definition = definition.map_err(|message| TokenizerError::SentencePiece {
            origin: origin.to_owned(),
            message,
        })?;
        Tokenizer::from_bytes(origin, definition.to_string().as_bytes(), vocab_size)
    }

    /// The chat template: `chat_template.jinja`, else `chat_template.json`, else `chat_template` of
    /// `tokenizer_config.json`; of several the one named `default`.
    ///
    /// # Errors
    ///
    /// A template that is neither text nor a list of named ones, or several of which none is the
    /// default.
    pub fn chat_template(&self) -> Result<Option<ChatTemplateSource>, String> {
        let source = if let Some((file, source)) = &self.template {
            Some((*file, source.clone()))
        } else {
            let file = "tokenizer_config.json";
            let value =
                self.config.as_ref().map_or(&Value::Null, |config| &config["chat_template"]);
            default_template(value)
                .map_err(|problem| format!("{file}: {problem}"))?
                .map(|source| (file, source))
        };
        Ok(source.map(|(file, source)| ChatTemplateSource {
            file,
            source,
            special_tokens: self.special_tokens(),
        }))
    }

    /// The special tokens by name: those of `tokenizer_config.json`, then those that only
    /// `special_tokens_map.json` has, then the begin, end and unknown tokens of a SentencePiece
    /// model.
    fn special_tokens(&self) -> Vec<(String, String)> {
        let mut tokens: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, text: &str| {
            if !tokens.iter().any(|(known, _)| known == name) {
                tokens.push((name.to_owned(), text.to_owned()));
            }
        };
        let files = [&self.config, &self.special_tokens_map]
            .into_iter()
            .flatten()
            .filter_map(Value::as_object);
        for (name, value) in files.flatten().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(text) = token_text(value) {
                add(name, text);
            }
        }
        let model =
            self.sentence_piece.as_ref().and_then(|bytes| SentencePieceModel::read(bytes).ok());
        if let Some(model) = model {
            let unknown = i32::try_from(model.unknown).unwrap_or(-1);
            for (name, id) in
                [("bos_token", model.begin), ("eos_token", model.end), ("unk_token", unknown)]
            {
                if let Some(piece) = usize::try_from(id).ok().and_then(|id| model.pieces.get(id)) {
                    add(name, &piece.text);
                }
            }
        }
        tokens
    }
}

fn template(
    folder: &Path,
    jinja: Option<Vec<u8>>,
    json: Option<Value>,
) -> Result<Option<(&'static str, String)>, LoadError> {
    let fault =
        |name: &str, message: String| LoadError::Config { path: folder.join(name), message };
    if let Some(bytes) = jinja {
        let name = "chat_template.jinja";
        let text = String::from_utf8(bytes).map_err(|_| fault(name, "is not UTF-8".to_owned()))?;
        return Ok(Some((name, text)));
    }
    let Some(json) = json else { return Ok(None) };
    let name = "chat_template.json";
    let found = default_template(&json["chat_template"]).map_err(|problem| fault(name, problem))?;
    let missing = || fault(name, "has no `chat_template`".to_owned());
    found.map(|text| Some((name, text))).ok_or_else(missing)
}

/// The template itself, or of a list of `name` and `template` that named `default`, or the only
/// one.
fn default_template(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(entries) => {
            let named = |entry: &Value| {
                Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()))
            };
            let entries: Option<Vec<_>> = entries.iter().map(named).collect();
            let mut entries =
                entries.ok_or("`chat_template` is a list, but not of `name` and `template`")?;
            let default = entries.iter().position(|(name, _)| name == "default");
            if let Some(at) = default.or((entries.len() == 1).then_some(0)) {
                return Ok(Some(entries.swap_remove(at).1));
            }
            let names: Vec<_> = entries.into_iter().map(|(name, _)| name).collect();
            Err(format!("`chat_template` holds {}, but none named default", names.join(", ")))
        }
        _ => Err("`chat_template` is neither a text nor a list of them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn template_of(files: &[(&str, &str)]) -> Result<Option<ChatTemplateSource>, String> {
        let folder = folder(files);
        TextFiles::in_folder(folder.path()).map_err(|error| error.to_string())?.chat_template()
    }

    #[test]
    fn a_file_of_its_own_comes_before_the_tokenizers_configuration() {
        let config = ("tokenizer_config.json", r#"{"chat_template": "a"}"#);
        let json = ("chat_template.json", r#"{"chat_template": "b"}"#);
        let jinja = ("chat_template.jinja", "c");
        let source = |files: &[(&str, &str)]| {
            template_of(files).unwrap().map(|found| (found.file, found.source))
        };
        assert_eq!(source(&[]), None);
        assert_eq!(source(&[config]), Some(("tokenizer_config.json", "a".to_owned())));
        assert_eq!(source(&[config, json]), Some(("chat_template.json", "b".to_owned())));
        assert_eq!(source(&[config, json, jinja]), Some(("chat_template.jinja", "c".to_owned())));
    }

    #[test]
    fn of_several_templates_the_default_one_is_taken() {
        let named = |names: &[&str]| {
            let list: Vec<_> =
                names.iter().map(|name| json!({"name": name, "template": name})).collect();
            let text = json!({"chat_template": list}).to_string();
            template_of(&[("tokenizer_config.json", &text)]).map(|found| found.unwrap().source)
        };
        assert_eq!(named(&["rag", "default"]).unwrap(), "default");
        assert_eq!(named(&["rag"]).unwrap(), "rag");
        assert!(named(&["rag", "tool_use"]).unwrap_err().contains("rag, tool_use"));
        for wrong in [r#"{"chat_template": 3}"#, r#"{"chat_template": ["x"]}"#] {
            assert!(
                template_of(&[("tokenizer_config.json", wrong)])
                    .unwrap_err()
                    .contains("`chat_template` is")
            );
        }
        assert!(
            template_of(&[("chat_template.json", "{}")])
                .unwrap_err()
                .contains("chat_template.json")
        );
    }

    #[test]
    fn a_models_text_files_travel_with_it() {
        let files = [
            ("config.json", "{}"),
            ("chat_template.jinja", "x"),
            ("tokenizer.model", "y"),
            ("other.txt", "z"),
        ];
        let folder = folder(&files);
        let companions =
            crate::model_files::ModelFiles::in_folder(folder.path()).unwrap().companions().unwrap();
        let expected = [("tokenizer.model", "y"), ("chat_template.jinja", "x")];
        assert_eq!(
            companions,
            expected.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        );
    }

    #[test]
    fn special_tokens_are_texts_or_objects() {
        let config = r#"{"chat_template": "x", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#;
        let map = r#"{"eos_token": "other", "unk_token": "<unk>"}"#;
        let found =
            template_of(&[("tokenizer_config.json", config), ("special_tokens_map.json", map)])
                .unwrap()
                .unwrap();
        let expected = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
        assert_eq!(
            found.special_tokens,
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }
}
