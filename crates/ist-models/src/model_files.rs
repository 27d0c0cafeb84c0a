//! The files of one model, wherever they come from.

use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{DType, TensorData};
use ist_files::regular;
use ist_files::untrusted::json;
use serde_json::Value;

use crate::decoder::DecoderConfig;
use crate::hub::checkpoint::{Checkpoint, CheckpointError};
use crate::load_error::LoadError;
use crate::spelling::Spelling;
use crate::text::text_files::{self, ChatTemplateSource, TextFiles};
use crate::text::tokenizer::{self, Tokenizer, TokenizerError};

/// The files of one model, wherever they come from.
#[derive(Debug)]
pub struct ModelFiles {
    pub(crate) origin: PathBuf,
    config: Value,
    generation_config: Option<Value>,
    text: TextFiles,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Folder(PathBuf),
    Embedded(&'static [u8]),
}

impl ModelFiles {
    /// The files in a folder of Hugging Face layout. The weights are opened when they are needed.
    pub fn in_folder(folder: &Path) -> Result<Self, LoadError> {
        let document = |name: &str| -> Result<Option<Value>, LoadError> {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(None);
            }
            let text = regular::read_to_string(&path)
                .map_err(|source| LoadError::Io { path: path.clone(), source })?;
            json::value(text.as_bytes()).map(Some).map_err(|error| {
                let message = format!("not JSON: {}", json::told(&error));
                LoadError::Config { path, message }
            })
        };
        let missing = || LoadError::Config {
            path: folder.join("config.json"),
            message:
                "does not exist; a model is a folder in Hugging Face layout, builtin:NAME, or \
                      a hub id org/name"
                    .to_owned(),
        };
        Ok(Self {
            origin: folder.to_owned(),
            config: document("config.json")?.ok_or_else(missing)?,
            generation_config: document("generation_config.json")?,
            text: TextFiles::in_folder(folder)?,
            weights: Weights::Folder(folder.to_owned()),
        })
    }

    /// Files that are part of the binary; `origin` names them in messages.
    pub fn in_memory(
        origin: &str,
        config: &str,
        generation_config: Option<&str>,
        tokenizer: Option<&[u8]>,
        weights: &'static [u8],
    ) -> Result<Self, LoadError> {
        let json = |text: &str| {
            serde_json::from_str(text).map_err(|error| LoadError::Config {
                path: origin.into(),
                message: format!("not JSON: {error}"),
            })
        };
        Ok(Self {
            origin: origin.into(),
            config: json(config)?,
            generation_config: generation_config.map(json).transpose()?,
            text: TextFiles::tokenizer_alone(tokenizer.map(<[u8]>::to_vec)),
            weights: Weights::Embedded(weights),
        })
    }

    /// `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The tokenizer, checked against the embedding.
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        let said = self.config["vocab_size"].as_u64().unwrap_or_default() as usize;
        let vocab_size = self.decoder_config().map_or(said, |config| config.vocab_size);
        self.text.tokenizer(&self.origin.display().to_string(), vocab_size)
    }

    /// The chat template, with the special tokens it may use.
    pub fn chat_template(&self) -> Result<Option<ChatTemplateSource>, LoadError> {
        let path = self.origin.clone();
        self.text.chat_template().map_err(|message| LoadError::Config { path, message })
    }

    /// The ids that end a text.
    pub fn end_tokens(&self) -> Vec<u32> {
        let own = tokenizer::end_tokens(self.generation_config.as_ref(), &self.config);
        if own.is_empty() { tokenizer::end_tokens(None, &self.config["text_config"]) } else { own }
    }

    /// The weights.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        match &self.weights {
            Weights::Folder(folder) => Checkpoint::open(folder),
            Weights::Embedded(bytes) => {
                Checkpoint::embedded(&self.origin.display().to_string(), bytes)
            }
        }
    }

    /// The files that travel with a changed model: `tokenizer.json`, `generation_config.json` and
    /// other small ones.
    pub fn companions(&self) -> Result<Vec<(String, Vec<u8>)>, LoadError> {
        let mut files = Vec::new();
        let others = ["generation_config.json"].into_iter().chain(PICTURE_FILES);
        for name in others.chain(text_files::FILES) {
            let path = self.origin.join(name);
            let bytes = match name {
                _ if path.is_file() => {
                    let bytes = regular::read(&path);
                    Some(bytes.map_err(|source| LoadError::Io { path, source })?)
                }
                "tokenizer.json" => self.text.tokenizer_json().map(<[u8]>::to_vec),
                "generation_config.json" => {
                    self.generation_config.as_ref().map(|value| value.to_string().into_bytes())
                }
                _ => None,
            };
            files.extend(bytes.map(|bytes| (name.to_owned(), bytes)));
        }
        Ok(files)
    }

    /// The type the weights are stored in; f32 for f64 ones.
    pub fn dtype(&self) -> Result<DType, CheckpointError> {
        let found = self.checkpoint()?.dtype();
        Ok(found.filter(|dtype| [DType::BF16, DType::F16].contains(dtype)).unwrap_or(DType::F32))
    }

    /// The configuration as the decoder's.
    pub fn decoder_config(&self) -> Result<DecoderConfig, LoadError> {
        let path = self.origin.join("config.json");
        let Some(document) = self.config.as_object().cloned() else {
            return Err(LoadError::Config { path, message: "not a JSON object".to_owned() });
        };
        DecoderConfig::from_json(document)
            .map_err(|error| LoadError::Config { path, message: error.to_string() })
    }
}

/// Files beside a model that say how its pictures are made ready.
pub(crate) const PICTURE_FILES: [&str; 3] =
    ["preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"];

impl ModelFiles {
    /// What whoever loads the model should know: sentences, each naming the files.
    ///
    /// # Errors
    /// A configuration or weights that cannot be read.
    pub fn notes(&self) -> Result<Vec<String>, LoadError> {
        let config = self.decoder_config()?;
        let checkpoint = self.checkpoint()?;
        let spelling = Spelling::of(&config, &checkpoint);
        let beside: Vec<&str> =
            checkpoint.names().filter(|name| spelling.is_beside_text(name)).collect();
        let note = beside.first().map(|first| {
            let origin = self.origin.display();
            let count = beside.len();
            format!(
                "{origin}: {count} tensors, such as {first}, were not read: this program runs the \
                 text model alone"
            )
        });
        Ok(note.into_iter().collect())
    }

    /// The tensors of the whole model: the changed `weights` under the names that these files have
    /// for them, and those of the modules beside its text model as they are.
    ///
    /// # Errors
    /// A configuration or weights that cannot be read.
    pub fn whole(
        &self,
        weights: Vec<(String, TensorData)>,
    ) -> Result<Vec<(String, TensorData)>, LoadError> {
        let config = self.decoder_config()?;
        if !config.has_more_than_text() {
            return Ok(weights);
        }
        let checkpoint = self.checkpoint()?;
        let spelling = Spelling::of(&config, &checkpoint);
        let mut whole: Vec<(String, TensorData)> =
            weights.into_iter().map(|(name, data)| (spelling.own(&name), data)).collect();
        for name in checkpoint.names().filter(|name| spelling.is_beside_text(name)) {
            whole.push((name.to_owned(), checkpoint.data(name)?));
        }
        Ok(whole)
    }
}
