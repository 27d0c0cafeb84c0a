//! The names a model's tensors may have in its files.
//!
//! transformers writes the path of a module; older files leave out the module around all but the
//! head, or call it otherwise, keep a tied pair under either name or both, and hold buffers that
//! are no weights.

use ist_peft::files::bodies;

use crate::decoder::DecoderConfig;
use crate::hub::checkpoint::{Checkpoint, CheckpointError};

/// How the files of one model spell its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    /// What every name of the body begins with, with its dot.
    body: String,
    /// What it begins with in the files.
    body_in_files: String,
    tied: bool,
    embedding: String,
    head: String,
    /// The head as the files call it.
    head_in_files: String,
    /// The head by its module's path, where files call it otherwise.
    module: String,
    /// Whether the files hold modules beside the text model.
    more_than_text: bool,
}

/// Buffers of older files: masks, and frequencies that follow from the configuration.
const BUFFERS: [&str; 8] = [
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    ".causal_mask",
    ".rotary_emb.inv_freq",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
];
/// The head in older files of models that also see.
const OLD_HEAD: &str = "language_model.lm_head.weight";

impl Spelling {
    /// As the checkpoint spells them.
    pub(crate) fn of(config: &DecoderConfig, checkpoint: &Checkpoint) -> Self {
        let names = config.names;
        let embedding = format!("{}.weight", names.in_body(names.embed_tokens));
        let body = format!("{}.", names.body);
        // A tied embedding may be stored as the head alone, so another module tells.
        let norm = format!("{}.weight", names.norm);
        let others = bodies::BODIES.iter().filter(|_| bodies::BODIES.contains(&names.body));
        let others = others.map(|other| format!("{other}."));
        let spellings = [body.clone()].into_iter().chain(others).chain([String::new()]);
        let body_in_files = spellings
            .into_iter()
            .find(|body| checkpoint.contains(&format!("{body}{norm}")))
            .unwrap_or_else(|| body.clone());
        let head = format!("{}.weight", names.head_in_files);
        let old = bodies::BODIES.contains(&names.body) && checkpoint.contains(OLD_HEAD);
        let head_in_files = if old { OLD_HEAD.to_owned() } else { head.clone() };
        let more_than_text =
            config.has_more_than_text() || body_in_files.contains("language_model");
        let (tied, module) = (config.tie_word_embeddings, format!("{}.weight", names.lm_head));
        Self { body, body_in_files, tied, embedding, head, head_in_files, module, more_than_text }
    }

    /// The names that the tensor may have which transformers calls `name`.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let own = self.own(name);
        match name {
            _ if self.tied && name == self.embedding => vec![own, self.head_in_files.clone()],
            _ if name == self.head && self.module != self.head => vec![own, self.module.clone()],
            _ => vec![own],
        }
    }

    /// The name in the files of the tensor that transformers calls `name`.
    pub(crate) fn own(&self, name: &str) -> String {
        if name == self.head {
            return self.head_in_files.clone();
        }
        match name.strip_prefix(&self.body) {
            Some(rest) => format!("{}{rest}", self.body_in_files),
            None => name.to_owned(),
        }
    }

    /// Whether a tensor of that name is known to be no weight of its own.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let buffer = BUFFERS.iter().any(|end| name.ends_with(end));
        let pair = name == self.head_in_files || name == self.own(&self.embedding);
        buffer || self.tied && pair || self.is_beside_text(name)
    }

    /// Whether a tensor of that name is of a module beside the text model.
    pub(crate) fn is_beside_text(&self, name: &str) -> bool {
        self.more_than_text && bodies::is_beside_text(name)
    }

    /// Whether the files hold the head.
    pub(crate) fn has_head(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.contains(&self.head_in_files)
    }

    /// Whether the files hold head and embedding as one matrix, under one name or both.
    pub(crate) fn pairs_up(&self, checkpoint: &Checkpoint) -> Result<bool, CheckpointError> {
        let embedding = self.own(&self.embedding);
        Ok(!checkpoint.differ(&embedding, &self.head_in_files)?)
    }

    /// The names of a pair that should be one matrix and is not.
    pub(crate) fn untied(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Option<(String, String)>, CheckpointError> {
        let embedding = self.own(&self.embedding);
        let differ = self.tied && checkpoint.differ(&embedding, &self.head_in_files)?;
        Ok(differ.then(|| (embedding, self.head_in_files.clone())))
    }
}
