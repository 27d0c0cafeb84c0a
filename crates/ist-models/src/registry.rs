//! From a model's files to a model, or to its shape alone.
//!
//! Which architecture it is, is decided once, by `model_type`;
//! [`architectures`](crate::architectures) lists them.

use ist_core::burn::tensor::{DType, Device};
use ist_peft::Adapter;

use crate::architectures::composite;
use crate::decoder::{Decoder, layout};
use crate::load_error::LoadError;
use crate::model_files::ModelFiles;
use crate::shape::Shape;
use crate::spelling::Spelling;

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

/// The shape of a model, with no weight loaded.
pub fn shape(files: &ModelFiles) -> Result<Shape, LoadError> {
    files.decoder_config().map(Shape::of)
}
