//! From the name of a model to its files: a folder, a model inside the binary, or the hub.

use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{DType, Device};
use ist_models::{Decoder, ModelFiles, hub, registry};
use ist_peft::Adapter;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{Dtype, ModelRef};
use crate::machine::device;
use crate::text::TextModel;
use crate::village::builtin;
use ist_records::terminal::progress::FileProgress;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// Finds the files of a model.
pub fn find(model: &ModelRef) -> Result<ModelFiles, Failure> {
    match model {
        ModelRef::Builtin(name) => builtin::files(name),
        ModelRef::Folder(path) => ModelFiles::in_folder(path).or_input(),
        ModelRef::Hub { id, revision } => {
            let folder = fetch(id, revision.as_deref())?;
            ModelFiles::in_folder(&folder).or_input()
        }
    }
}

/// The folder of a model of the hub. A person sees how far its files have come.
fn fetch(id: &str, revision: Option<&str>) -> Result<PathBuf, Failure> {
    let mut shown: Option<(String, FileProgress)> = None;
    let found = hub::source::snapshot(id, revision, &mut |download| {
        let file = download.file;
        if shown.as_ref().is_none_or(|(name, _)| name != file) {
            finish(shown.take());
            shown = Some((file.to_owned(), FileProgress::new(file, download.total)));
        }
        if let Some((_, progress)) = &mut shown {
            progress.reach(download.done);
        }
    });
    finish(shown);
    found.or_input()
}

fn finish(shown: Option<(String, FileProgress)>) {
    if let Some((_, progress)) = shown {
        progress.finish();
    }
}

/// Finds the files of the model a command names, relative to the current folder.
pub fn find_named(name: &str) -> Result<ModelFiles, Failure> {
    find(&ModelRef::parse(name, Path::new(".")))
}

/// The storage type of a configuration's `model.dtype`.
pub fn storage(dtype: Dtype) -> DType {
    match dtype {
        Dtype::Float32 => DType::F32,
        Dtype::Bfloat16 => DType::BF16,
        Dtype::Float16 => DType::F16,
        Dtype::Int8 => DType::I8,
    }
}

/// What [`open`] makes a model of.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The model's files.
    pub files: &'a ModelFiles,
    /// The type its weights are kept as.
    pub storage: DType,
    /// Where it is put.
    pub device: &'a Device,
    /// The folder of an adapter to put on it.
    pub adapter: Option<&'a Path>,
}

/// Loads a model, and puts an adapter on it where one is given.
///
/// # Errors
/// A storage type that the device cannot hold, files that cannot be read, an adapter that does not
/// fit the model.
pub fn open<A: Adapter>(opening: Opening<'_>) -> Result<Decoder<A>, Failure> {
    let Opening { files, storage, device, adapter } = opening;
    device::check_storage(device, storage)?;
    tell(&files.notes().or_input()?);
    let mut model = registry::load::<A>(files, storage, device).or_input()?;
    if let Some(folder) = adapter {
        let adapters = ist_peft::load::<A>(&mut model, folder, device).or_input()?;
        tell(adapters.notes());
    }
    Ok(model)
}

/// Tells what was read otherwise than it stands in files, one line each on stderr. No `--quiet`
/// hides it: the numbers depend on it.
pub fn tell(notes: &[String]) {
    for note in notes {
        screen::line(format!("note: {note}"));
    }
}

/// The text side of a model: its tokenizer, checked against the embedding, its end tokens and its
/// chat template.
pub fn text(files: &ModelFiles) -> Result<TextModel, Failure> {
    let tokenizer = files.tokenizer().or_input()?;
    let chat_template = files.chat_template().map_err(|error| error.to_string());
    Ok(TextModel {
        tokenizer: tokenizer.into_inner(),
        end_tokens: files.end_tokens(),
        chat_template,
    })
}

/// What a result says of a model: its name, the digest of its weights, its shape.
pub fn describe(name: &str, files: &ModelFiles) -> Result<Value, Failure> {
    let mut digest = Sha256::new();
    files.checkpoint().or_input()?.for_each_file(&mut |bytes| digest.update(bytes));
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let parameters = registry::shape(files).or_input()?.parameters;
    Ok(json!({"path": name, "sha256": digest, "parameters": parameters, "config": files.config()}))
}
