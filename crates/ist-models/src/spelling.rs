//! The names a model's tensors may have in its files.
//!
//! transformers writes the path of a module; older files leave out the module around all but the head, keep a tied pair under
//! either name or both, and hold buffers that are no weights.

use crate::decoder::DecoderConfig;
use crate::hub::checkpoint::{Checkpoint, CheckpointError};

/// How the files of one model spell its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    /// What every name of the body begins with, with its dot.
    body: String,
    /// Whether the files leave that out.
    bare: bool,
    tied: bool,
    embedding: String,
    head: String,
    /// The head by its module's path, where files call it otherwise.
    module: String,
}

/// Buffers of older files: masks, and frequencies that follow from the configuration.
const BUFFERS: [&str; 5] = [
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    ".rotary_emb.inv_freq",
];

impl Spelling {
    /// As the checkpoint spells them.
    pub(crate) fn of(config: &DecoderConfig, checkpoint: &Checkpoint) -> Self {
        let names = config.names;
        let embedding = format!("{}.weight", names.in_body(names.embed_tokens));
        let body = format!("{}.", names.body);
        // A tied embedding may be stored as the head alone, so another module tells.
        let norm = format!("{}.weight", names.in_body(names.norm));
        let bare = !checkpoint.contains(&norm)
            && checkpoint.contains(norm.strip_prefix(&body).unwrap_or(&norm));
        let (tied, head) = (config.tie_word_embeddings, format!("{}.weight", names.head_in_files));
        let module = format!("{}.weight", names.lm_head);
        Self { body, bare, tied, embedding, head, module }
    }

    /// The names that the tensor may have which transformers calls `name`.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let own = self.own(name);
        match name {
            _ if self.tied && name == self.embedding => vec![own, self.head.clone()],
            _ if name == self.head && self.module != self.head => vec![own, self.module.clone()],
            _ => vec![own],
        }
    }

    fn own(&self, name: &str) -> String {
        let bare = name.strip_prefix(&self.body).filter(|_| self.bare);
        bare.unwrap_or(name).to_owned()
    }

    /// Whether a tensor of that name is known to be no weight of its own.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let buffer = BUFFERS.iter().any(|end| name.ends_with(end));
        buffer || (self.tied && (name == self.head || name == self.own(&self.embedding)))
    }

    /// The names of a pair that should be one matrix and is not.
    pub(crate) fn untied(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Option<(String, String)>, CheckpointError> {
        let embedding = self.own(&self.embedding);
        let differ = self.tied && checkpoint.differ(&embedding, &self.head)?;
        Ok(differ.then(|| (embedding, self.head.clone())))
    }
}
