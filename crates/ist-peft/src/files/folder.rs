//! Hugging Face PEFT folders, both ways: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A single adapter lies in the folder itself, several lie in a folder each within it, named after
//! them.

use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{Device, TensorData};
use ist_files::untrusted::{cut_message, cut_value, json};
use serde_json::{Map, Value, json};

use crate::fields::{ConfigError, Dialect};
use crate::files::contents::{self, Contents};
use crate::files::part_tensors::{MethodTensors, read_part_tensors};
use crate::files::tensor_file::{TensorFile, TensorFileError, write};
use crate::files::{bodies, carried, mlx};
use crate::method::{Configured, key_of};
use crate::model::adapters::{Adapters, DEFAULT_NAME, Part};
use crate::model::attach::{AttachError, PeftModel, places, put, untie_for};
use crate::set::Adapter;
use crate::site::{Outline, Site, SiteKind};
use ist_files::{durable, regular};

/// The configuration's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' file name.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";

/// Why a PEFT folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFilesError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The configuration is no JSON object.
    #[error("{path}: not a JSON object: {message}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// The method is not supported.
    #[error("{path}: `peft_type` {} is not supported", cut_value(found))]
    Method {
        /// The file.
        path: PathBuf,
        /// The value found.
        found: Value,
    },
    /// The folder is another program's.
    #[error(
        "{path}: the adapter is {program}'s and not PEFT's; convert it with `ist convert --adapter \
         {} --to peft --output NEW`",
        path.parent().unwrap_or(path).display()
    )]
    OtherProgram {
        /// The configuration.
        path: PathBuf,
        /// The program.
        program: &'static str,
    },
    /// Fields are wrong or unsupported.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault.
        source: ConfigError,
    },
    /// The targets do not fit the model.
    #[error("{path}: {source}")]
    Targets {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: AttachError,
    },
    /// The tensors are in a pickle.
    #[error(
        "{path}: pickled tensors are not read, since a pickle can run any program; convert the \
         file in Python where you trust \
         it: safetensors.torch.save_file(torch.load(\"adapter_model.bin\", map_location=\"cpu\"), \
         \"adapter_model.safetensors\")"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The tensors' file is broken.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// Tensors are missing, surplus or of the wrong shape.
    #[error("{path}: the tensors do not fit the model and {CONFIG_FILE}:{}", faults.iter().map(|fault| format!("\n  {}", cut_message(fault))).collect::<String>())]
    Faults {
        /// The file.
        path: PathBuf,
        /// Every fault, naming its tensor.
        faults: Vec<String>,
    },
}

/// Reads what adapters a folder holds: one in the folder itself or, as PEFT writes several, one in
/// each subfolder.
pub fn read_config<A: Adapter>(folder: &Path) -> Result<Adapters<A>, AdapterFilesError> {
    let parts = folders(folder)?.into_iter().map(|(name, folder)| read_part(&name, &folder));
    Ok(Adapters::new(parts.collect::<Result<_, _>>()?))
}

/// Opens the tensors' file of one adapter's folder.
///
/// # Errors
/// Pickled tensors, and a file that is missing or broken.
pub fn open_tensors(folder: &Path) -> Result<TensorFile, AdapterFilesError> {
    contents::open_tensors(folder)
}

/// Whether a folder holds an adapter, or a folder for each of several.
pub fn holds_adapters(folder: &Path) -> bool {
    folders(folder).is_ok_and(|all| all.iter().all(|(_, folder)| folder.join(CONFIG_FILE).exists()))
}

/// The adapters' folders by name, in the order of the names.
fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, AdapterFilesError> {
    let here = vec![(DEFAULT_NAME.to_owned(), folder.to_owned())];
    if folder.join(CONFIG_FILE).exists() {
        return Ok(here);
    }
    let entries = std::fs::read_dir(folder)
        .map_err(|source| AdapterFilesError::Io { path: folder.join(CONFIG_FILE), source })?;
    let paths =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join(CONFIG_FILE).exists());
    let name = |path: PathBuf| Some((path.file_name()?.to_str()?.to_owned(), path));
    let mut inside: Vec<(String, PathBuf)> = paths.filter_map(name).collect();
    inside.sort();
    Ok(if inside.is_empty() { here } else { inside })
}

/// The fields of a configuration's file.
pub(crate) fn read_fields(path: &Path) -> Result<Map<String, Value>, AdapterFilesError> {
    let text = regular::read_to_string(path)
        .map_err(|source| AdapterFilesError::Io { path: path.to_owned(), source })?;
    json::from_slice(text.as_bytes()).map_err(|error| AdapterFilesError::Json {
        path: path.to_owned(),
        message: json::told(&error),
    })
}

fn read_part<A: Adapter>(name: &str, folder: &Path) -> Result<Part<A>, AdapterFilesError> {
    let path = folder.join(CONFIG_FILE);
    let fields = read_fields(&path)?;
    match Part::parse(name, &fields, Dialect::Peft) {
        Some(Ok(part)) => Ok(part),
        Some(Err(source)) => Err(AdapterFilesError::Config { path, source }),
        None if mlx::is_adapter(&fields) => {
            Err(AdapterFilesError::OtherProgram { path, program: mlx::PROGRAM })
        }
        None => {
            let found = fields.get("peft_type").cloned().unwrap_or(Value::Null);
            Err(AdapterFilesError::Method { path, found })
        }
    }
}

/// Loads the adapters of a folder onto a model. The model is untouched when anything does not fit.
///
/// As in PEFT, tensors of the file may also take the place of the base model's own
/// ([`Part::carried`]); tables of another length resize the model's vocabulary. [`Adapters::notes`]
/// says what was read otherwise than it stands in the files.
///
/// # Errors
/// Files that cannot be read, fields that are wrong or not supported, and tensors that do not fit.
pub fn load<A: Adapter>(
    model: &mut impl PeftModel<A>,
    folder: &Path,
    device: &Device,
) -> Result<Adapters<A>, AdapterFilesError> {
    let mut adapters = read_config::<A>(folder)?;
    let folders: Vec<PathBuf> = folders(folder)?.into_iter().map(|(_, folder)| folder).collect();
    fill(model, &mut adapters, &folders, Vocabulary::MayChange, device)?;
    Ok(adapters)
}

/// Loads the tensors of `adapters`, whose configurations are known, from the folder that [`save`]
/// wrote. The vocabulary stays as long as it is.
///
/// # Errors
/// As of [`load`].
pub fn restore<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    folder: &Path,
    device: &Device,
) -> Result<(), AdapterFilesError> {
    let folders = part_folders(adapters, folder);
    fill(model, adapters, &folders, Vocabulary::Stays, device)
}

/// Whether an adapter's file may change the length of the model's tables of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vocabulary {
    MayChange,
    Stays,
}

/// Puts adapters with the tensors of one folder each on the model.
fn fill<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    folders: &[PathBuf],
    vocabulary: Vocabulary,
    device: &Device,
) -> Result<(), AdapterFilesError> {
    let mut every: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
    let mut outline = model.outline();
    let mut files =
        folders.iter().map(|path| Contents::open(path)).collect::<Result<Vec<_>, _>>()?;
    for file in &mut files {
        file.rename(|key| bodies::renamed_key(key, &every));
    }
    let rows =
        other_vocabulary(&every, &outline, &files).filter(|_| vocabulary == Vocabulary::MayChange);
    if let Some(rows) = rows {
        resize_sites(&mut every, &mut outline, rows);
    }
    let sites = adapters.sites(&every, &outline).map_err(|source| AdapterFilesError::Targets {
        path: folders[0].join(CONFIG_FILE),
        source,
    })?;
    let all: Vec<Site> = every.iter().chain(&outline.shared_head).cloned().collect();
    let mut sites = sites.into_iter();
    let mut found = Vec::new();
    for (part, file) in adapters.parts().iter().zip(&files) {
        let own = sites.by_ref().take(part.configs().count()).collect();
        found.push(read_part_tensors(part, own, &all, file)?);
    }
    // Everything fits: from here on the model changes.
    if let Some(rows) = rows {
        model.resize_vocabulary(rows);
        adapters.note([format!(
            "{}: the vocabulary has {rows} tokens, as the adapter's tables",
            files[0].path().display()
        )]);
    }
    for (index, found) in found.into_iter().enumerate() {
        let changed = found.carried.put(model, device);
        let sites: Vec<Vec<Site>> =
            found.methods.iter().map(|method| method.sites.clone()).collect();
        untie_for(model, &sites);
        let part = &mut adapters.parts_mut()[index];
        part.set_carried(changed);
        part.set_partial(found.partial);
        for (config, method) in part.configs().zip(found.methods) {
            let MethodTensors { sites, tensors } = method;
            let places = places(model, &sites);
            put(model, &sites, A::from_file(&config.settings, &places, tensors, device));
        }
        adapters.note(found.notes);
    }
    Ok(())
}

/// The rows of the tables of tokens that files hold, where all of them agree on another number than
/// the model's.
fn other_vocabulary(every: &[Site], outline: &Outline, files: &[Contents]) -> Option<usize> {
    let embedding = every.iter().find(|site| site.kind == SiteKind::Embedding)?;
    let is_head = |site: &&Site| {
        let shape = [site.d_in, site.d_out];
        site.layer.is_none()
            && site.kind == SiteKind::Linear
            && shape == [embedding.d_out, embedding.d_in]
    };
    let rows_of = |site: &Site| {
        let shape = |file: &Contents| {
            ["weight", "base_layer.weight"].iter().find_map(|end| file.shape(&key_of(site, end)))
        };
        match files.iter().find_map(shape)?.as_slice() {
            [rows, width] if *width == embedding.d_out => Some(*rows),
            _ => None,
        }
    };
    let shared = || outline.shared_head.as_ref().and_then(rows_of);
    let rows = rows_of(embedding).or_else(shared);
    let rows = rows.filter(|rows| *rows != embedding.d_in && *rows > 0)?;
    every.iter().find(is_head).is_none_or(|head| rows_of(head) == Some(rows)).then_some(rows)
}

/// The modules as they are with a vocabulary of that many tokens.
fn resize_sites(every: &mut [Site], outline: &mut Outline, rows: usize) {
    let Some(before) =
        every.iter().find(|site| site.kind == SiteKind::Embedding).map(|site| site.d_in)
    else {
        return;
    };
    for site in every.iter_mut().chain(&mut outline.shared_head) {
        match site.kind {
            SiteKind::Embedding => site.d_in = rows,
            SiteKind::Linear if site.layer.is_none() && site.d_out == before => site.d_out = rows,
            _ => {}
        }
    }
}

/// Where each adapter is kept: a single one in the folder itself.
fn part_folders<A: Adapter>(adapters: &Adapters<A>, folder: &Path) -> Vec<PathBuf> {
    match adapters.parts() {
        [_] => vec![folder.to_owned()],
        parts => parts.iter().map(|part| folder.join(&part.name)).collect(),
    }
}

/// Writes the model's adapters as PEFT folders: one into `folder` itself, several into a folder
/// each within it. Each file appears whole or not at all.
pub fn save<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &Adapters<A>,
    folder: &Path,
    base_model: &str,
) -> Result<(), AdapterFilesError> {
    for (part, folder) in adapters.parts().iter().zip(part_folders(adapters, folder)) {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AdapterFilesError::Io { path, source }
        };
        durable::create_folder(&folder).map_err(io(&folder))?;
        let mut fields = part.peft_fields();
        fields.insert("task_type".to_owned(), json!("CAUSAL_LM"));
        fields.insert("base_model_name_or_path".to_owned(), json!(base_model));
        fields.insert("inference_mode".to_owned(), json!(true));
        let path = folder.join(CONFIG_FILE);
        let text =
            serde_json::to_string_pretty(&fields).expect("JSON values are always written") + "\n";
        durable::write(&path, text.as_bytes()).map_err(io(&path))?;
        write(&folder.join(TENSORS_FILE), &part_tensors(model, part))?;
    }
    Ok(())
}

/// The adapters' tensors under PEFT's keys, in its layout.
pub fn named_tensors<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &Adapters<A>,
) -> Vec<(String, TensorData)> {
    adapters.parts().iter().flat_map(|part| part_tensors(model, part)).collect()
}

fn part_tensors<A: Adapter>(
    model: &mut impl PeftModel<A>,
    part: &Part<A>,
) -> Vec<(String, TensorData)> {
    let mut tensors: Vec<_> =
        part.configs().flat_map(|config| config_tensors::<A>(model, config)).collect();
    tensors.extend(part.carried().iter().filter_map(|carried| carried::to_file(model, carried)));
    tensors
}

fn config_tensors<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &Configured<A::Config>,
) -> Vec<(String, TensorData)> {
    let mut sites = Vec::new();
    let mut adapters = Vec::new();
    for slot in model.slots() {
        if let Some(adapter) = slot.adapter
            && config.settings.fits(&slot.site)
            && config.targets.matches(&slot.site)
        {
            sites.push(slot.site);
            adapters.push(adapter.clone());
        }
    }
    let keys = config.settings.file_layout(&sites).into_iter().map(|(key, _)| key);
    keys.zip(A::to_file(&config.settings, &adapters)).collect()
}
