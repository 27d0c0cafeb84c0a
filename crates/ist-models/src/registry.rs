//! The architectures, and the way from a model's files to a model.
//!
//! Which architecture it is, is decided once, here, by `model_type`;
//! [`architectures`](crate::architectures) lists them.

use std::path::{Path, PathBuf};

use ist_core::Footprint;
use ist_core::burn::tensor::{DType, Device, TensorData};
use ist_core::untrusted::json;
use ist_peft::{Adapter, Outline, Roles, Site, regular};
use serde_json::Value;

use crate::architectures::composite;
use crate::decoder::{Decoder, DecoderConfig, layout, memory};
use crate::footprint::{BatchShape, Resident};
use crate::hub::checkpoint::{Checkpoint, CheckpointError};
use crate::load_error::LoadError;
use crate::spelling::Spelling;
use crate::text_files::{self, ChatTemplateSource, TextFiles};
use crate::tokenizer::{self, Tokenizer, TokenizerError};

/// The files of one model, wherever they come from.
#[derive(Debug)]
pub struct ModelFiles {
    origin: PathBuf,
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
        let missing = || {
            LoadError::Config {
            path: folder.join("config.json"),
            message: "does not exist; a model is a folder in Hugging Face layout, builtin:NAME, or a hub id org/name"
                .to_owned(),
        }
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
                "{origin}: {count} tensors, such as {first}, were not read: this program runs the text model alone"
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

/// Loads a model, its weights kept as `storage`.
///
/// # Errors
/// Files that cannot be read, a configuration that is wrong, and tensors that do not fit it.
pub fn load<A: Adapter>(
    files: &ModelFiles,
    storage: DType,
    device: &Device,
) -> Result<Decoder<A>, LoadError> {
    let mut config = files.decoder_config()?;
    let checkpoint = files.checkpoint()?;
    let mut spelling = Spelling::of(&config, &checkpoint);
    // Where a model that also sees does not say, its files do: some versions of transformers leave
    // out the one answer, some the other.
    if config.has_more_than_text() && !composite::says_whether_tied(&config.document) {
        let head_is_there = spelling.has_head(&checkpoint);
        let tied = !head_is_there || spelling.pairs_up(&checkpoint)?;
        config.set_tied(tied);
        spelling = Spelling::of(&config, &checkpoint);
    }
    let known = |name: &str| spelling.knows(name);
    // Every shape first: a configuration that does not fit the file must not decide how much memory
    // is asked for.
    let mut shapes = checkpoint.loader();
    let misfits = layout::tensors(&config)
        .filter(|(name, shape)| !shapes.expect(&spelling.names(name), shape));
    let misfits = misfits.take(FAULTS_SHOWN).count();
    if misfits < FAULTS_SHOWN {
        shapes.ignore(known);
    } else {
        shapes.ignore(|_| true);
    }
    shapes.finish()?;
    if let Some((embedding, head)) = spelling.untied(&checkpoint)? {
        let message = format!(
            "`tie_word_embeddings` is true, but {head} is not {embedding}; set it to false"
        );
        return Err(LoadError::Config { path: files.origin.join("config.json"), message });
    }
    let mut loader = checkpoint.loader();
    let mut source = |name: &str, shape: &[usize]| loader.take(&spelling.names(name), shape);
    let model = Decoder::build(config, &mut source, storage, device);
    loader.ignore(known);
    loader.finish()?;
    Ok(model)
}

/// Tensors that do not fit after which no more are looked for.
const FAULTS_SHOWN: usize = 50;

/// What a model is, from its `config.json` alone.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Layers.
    pub num_layers: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Scalars of the whole model.
    pub parameters: usize,
    /// Modules an adapter can sit on.
    pub sites: Vec<Site>,
    /// The names of its modules by the part they play.
    pub roles: &'static Roles,
    config: DecoderConfig,
    /// Whether head and embedding are two modules that share one table.
    shares_table: bool,
}

impl Shape {
    /// What it tells of itself to whoever puts adapters on it.
    pub fn outline(&self) -> Outline {
        Outline {
            model_type: self.config.model_type,
            roles: self.roles,
            num_layers: self.num_layers,
            shared_head: layout::shared_head(&self.config),
        }
    }

    /// The shape with a module of its own for a head that is the embedding. Their frozen table
    /// stays one.
    #[must_use]
    pub fn untied(&self) -> Self {
        let mut config = self.config.clone();
        config.set_tied(false);
        Self { parameters: self.parameters, shares_table: true, ..Self::of(config) }
    }

    /// The shape of a model of that configuration.
    pub fn of(config: DecoderConfig) -> Self {
        Self {
            num_layers: config.num_hidden_layers,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.context(),
            parameters: layout::parameter_count(&config),
            sites: layout::sites(&config),
            roles: config.roles,
            config,
            shares_table: false,
        }
    }

    /// Bytes of the weights kept as `storage`, where i8 stands for the layers' matrices in eight
    /// bits.
    pub fn weight_bytes(&self, storage: DType) -> u64 {
        if !self.shares_table {
            return layout::weight_bytes(&self.config, storage);
        }
        let mut config = self.config.clone();
        config.set_tied(true);
        layout::weight_bytes(&config, storage)
    }

    /// Whether one of the modules with adapters lies below the layers: the embedding, or a norm
    /// behind it.
    ///
    /// Then the input of the lowest layer needs a gradient too.
    pub fn trains_below_layers<'s>(&self, adapted: impl IntoIterator<Item = &'s Site>) -> bool {
        // The modules stand in the order of the forward pass.
        let below = self.sites.iter().take_while(|site| site.layer.is_none());
        let below: Vec<&str> = below.map(|site| site.path.as_str()).collect();
        adapted.into_iter().any(|site| below.contains(&site.path.as_str()))
    }

    /// What a batch takes of memory, on a model that need not exist.
    pub fn footprint(&self, resident: Resident, batch: BatchShape) -> Footprint {
        memory::footprint(&self.config, resident, batch)
    }
}

/// The shape of a model, with no weight loaded.
pub fn shape(files: &ModelFiles) -> Result<Shape, LoadError> {
    files.decoder_config().map(Shape::of)
}
