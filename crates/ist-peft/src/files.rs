//! Hugging Face PEFT folders, both ways: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A single adapter lies in the folder itself, several lie in a folder each within it, named after them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{Device, TensorData};
use ist_core::untrusted::{cut_message, cut_value, json};
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::adapters::{Adapters, DEFAULT_NAME, Part};
use crate::attach::{AttachError, PeftModel, places, put, targeted_sites};
use crate::fields::ConfigError;
use crate::method::{Dialect, Place};
use crate::site::Site;
use crate::tensor_file::{TensorFile, TensorFileError, write};
use crate::{durable, regular};

/// The configuration's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' file name.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module path.
pub const PREFIX: &str = "base_model.model.";

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
        "{path}: pickled tensors are not read; save them with safetensors (safetensors.torch.save_file(torch.load(..), ..))"
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

/// Reads what adapters a folder holds: one in the folder itself or, as PEFT writes several, one in each subfolder.
pub fn read_config<A: Adapter>(folder: &Path) -> Result<Adapters<A>, AdapterFilesError> {
    let parts = folders(folder)?.into_iter().map(|(name, folder)| read_part(&name, &folder));
    Ok(Adapters::new(parts.collect::<Result<_, _>>()?))
}

/// Whether a folder holds an adapter, or a folder for each of several.
pub fn holds_adapters(folder: &Path) -> bool {
    folders(folder)
        .is_ok_and(|all| all.iter().all(|(_, folder)| folder.join(CONFIG_FILE).is_file()))
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
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join(CONFIG_FILE).is_file());
    let name = |path: PathBuf| Some((path.file_name()?.to_str()?.to_owned(), path));
    let mut inside: Vec<(String, PathBuf)> = paths.filter_map(name).collect();
    inside.sort();
    Ok(if inside.is_empty() { here } else { inside })
}

fn read_part<A: Adapter>(name: &str, folder: &Path) -> Result<Part<A>, AdapterFilesError> {
    let path = folder.join(CONFIG_FILE);
    let text = regular::read_to_string(&path)
        .map_err(|source| AdapterFilesError::Io { path: path.clone(), source })?;
    let fields: Map<String, Value> = json::from_slice(text.as_bytes()).map_err(|error| {
        AdapterFilesError::Json { path: path.clone(), message: json::told(&error) }
    })?;
    match Part::parse(name, &fields, Dialect::Peft) {
        Some(Ok(part)) => Ok(part),
        Some(Err(source)) => Err(AdapterFilesError::Config { path, source }),
        None => {
            let found = fields.get("peft_type").cloned().unwrap_or(Value::Null);
            Err(AdapterFilesError::Method { path, found })
        }
    }
}

/// Loads the adapters of a folder onto a model. The model is untouched when anything does not fit.
pub fn load<A: Adapter>(
    model: &mut impl PeftModel<A>,
    folder: &Path,
    device: &Device,
) -> Result<Adapters<A>, AdapterFilesError> {
    let mut adapters = read_config::<A>(folder)?;
    let folders: Vec<PathBuf> = folders(folder)?.into_iter().map(|(_, folder)| folder).collect();
    fill(model, &mut adapters, &folders, device)?;
    Ok(adapters)
}

/// Loads the tensors of `adapters`, whose configurations are known, from the folder that [`save`] wrote.
pub fn restore<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    folder: &Path,
    device: &Device,
) -> Result<(), AdapterFilesError> {
    let folders = part_folders(adapters, folder);
    fill(model, adapters, &folders, device)
}

/// Puts adapters with the tensors of one folder each on the model.
fn fill<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    folders: &[PathBuf],
    device: &Device,
) -> Result<(), AdapterFilesError> {
    let sites = targeted_sites(model, adapters).map_err(|source| AdapterFilesError::Targets {
        path: folders[0].join(CONFIG_FILE),
        source,
    })?;
    let (mut sites, mut found) = (sites.into_iter(), Vec::new());
    for (part, folder) in adapters.parts().iter().zip(folders) {
        let file = TensorFile::open(&folder.join(TENSORS_FILE))?;
        let configs: Vec<&A::Config> = part.configs().collect();
        let own: Vec<Vec<Site>> = sites
            .by_ref()
            .take(configs.len())
            .map(|sites| without_absent_experts(sites, &file))
            .collect();
        let places: Vec<Vec<Place>> = own.iter().map(|sites| places(model, sites)).collect();
        let read = read_tensors::<A>(&configs, &places, &file, device)?;
        found.extend(own.into_iter().zip(read));
    }
    for (sites, adapters) in found {
        put(model, &sites, adapters);
    }
    Ok(())
}

/// The modules without those of experts whose name no expert has in the file: transformers 5 keeps all experts of a layer as
/// one parameter, so a name that means them reaches nothing there.
fn without_absent_experts(sites: Vec<Site>, file: &TensorFile) -> Vec<Site> {
    // `..experts.E.NAME..`
    let name = |path: &str| path.split_once(".experts.")?.1.split('.').nth(1).map(str::to_owned);
    let held: BTreeSet<String> = file.names().filter_map(name).collect();
    sites
        .into_iter()
        .filter(|site| name(&site.path).is_none_or(|name| held.contains(&name)))
        .collect()
}

/// Where each adapter is kept: a single one in the folder itself.
fn part_folders<A: Adapter>(adapters: &Adapters<A>, folder: &Path) -> Vec<PathBuf> {
    match adapters.parts() {
        [_] => vec![folder.to_owned()],
        parts => parts.iter().map(|part| folder.join(&part.name)).collect(),
    }
}

/// The adapters of each configuration of one file.
fn read_tensors<A: Adapter>(
    configs: &[&A::Config],
    places: &[Vec<Place>],
    file: &TensorFile,
    device: &Device,
) -> Result<Vec<Vec<A>>, AdapterFilesError> {
    let path = file.path().to_owned();
    let sites: Vec<Vec<Site>> = places
        .iter()
        .map(|places| places.iter().map(|place| place.site.clone()).collect())
        .collect();
    // PEFT stores the frozen table of an adapted embedding or head as well; the model has it already.
    let base_weights: Vec<String> =
        sites.iter().flatten().map(|site| key_of(site, "base_layer.weight")).collect();
    let mut unused: Vec<String> =
        file.names().map(str::to_owned).filter(|name| !base_weights.contains(name)).collect();
    let (mut faults, mut tensors) = (Vec::new(), Vec::new());
    for (config, sites) in configs.iter().zip(&sites) {
        let mut own = Vec::new();
        for (key, shape) in A::file_layout(config, sites) {
            unused.retain(|name| *name != key);
            match file.shape(&key) {
                None => faults.push(format!("{key} is missing, expected shape {shape:?}")),
                Some(found) if found != shape => {
                    faults.push(format!("{key} has shape {found:?}, expected {shape:?}"))
                }
                Some(_) => own.push(TensorData::new(file.finite_floats(&key)?, shape)),
            }
        }
        tensors.push(own);
    }
    faults.extend(
        unused
            .into_iter()
            .map(|name| format!("{name} belongs to no module the configuration targets")),
    );
    if !faults.is_empty() {
        return Err(AdapterFilesError::Faults { path, faults });
    }
    let all = configs.iter().zip(places).zip(tensors);
    Ok(all
        .map(|((config, places), tensors)| A::from_file(config, places, tensors, device))
        .collect())
}

/// Writes the model's adapters as PEFT folders: one into `folder` itself, several into a folder each within it. Each file
/// appears whole or not at all.
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
    part.configs().flat_map(|config| config_tensors::<A>(model, config)).collect()
}

fn config_tensors<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &A::Config,
) -> Vec<(String, TensorData)> {
    let (mut sites, mut adapters) = (Vec::new(), Vec::new());
    for slot in model.slots() {
        if let Some(adapter) = slot.adapter
            && A::fits(config, &slot.site)
            && A::targets(config).matches(&slot.site)
        {
            sites.push(slot.site);
            adapters.push(adapter.clone());
        }
    }
    let tensors = A::to_file(config, &sites.iter().zip(&adapters).collect::<Vec<_>>());
    A::file_layout(config, &sites).into_iter().map(|(key, _)| key).zip(tensors).collect()
}

/// The key of one tensor in PEFT's file.
pub fn key_of(site: &Site, suffix: &str) -> String {
    format!("{PREFIX}{}.{suffix}", site.path)
}
