//! Hugging Face PEFT folders, both ways: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{Device, TensorData};
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::attach::{AttachError, PeftModel, places, put, targeted_sites};
use crate::fields::ConfigError;
use crate::method::{Dialect, Place};
use crate::site::Site;
use crate::tensor_file::{TensorFile, TensorFileError, write};
use crate::whole_file;

/// The configuration's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' file name.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module path.
const PREFIX: &str = "base_model.model.";

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
    #[error("{path}: `peft_type` {found} is not supported")]
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
    /// The tensors' file is broken.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// Tensors are missing, surplus or of the wrong shape.
    #[error("{path}: the tensors do not fit the model and {CONFIG_FILE}:{}", faults.iter().map(|f| format!("\n  {f}")).collect::<String>())]
    Faults {
        /// The file.
        path: PathBuf,
        /// Every fault, naming its tensor.
        faults: Vec<String>,
    },
}

/// Reads `adapter_config.json` of a PEFT folder.
pub fn read_config<A: Adapter>(folder: &Path) -> Result<A::Config, AdapterFilesError> {
    let path = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| AdapterFilesError::Io { path: path.clone(), source })?;
    let fields: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| AdapterFilesError::Json { path: path.clone(), message: error.to_string() })?;
    match A::parse(&fields, Dialect::Peft) {
        Some(Ok(config)) => Ok(config),
        Some(Err(source)) => Err(AdapterFilesError::Config { path, source }),
        None => {
            let found = fields.get("peft_type").cloned().unwrap_or(Value::Null);
            Err(AdapterFilesError::Method { path, found })
        }
    }
}

/// Loads a PEFT folder onto a model; returns its configuration. The model is untouched when anything does not fit.
pub fn load<A: Adapter>(
    model: &mut impl PeftModel<A>,
    folder: &Path,
    device: &Device,
) -> Result<A::Config, AdapterFilesError> {
    let mut config = read_config::<A>(folder)?;
    load_as(model, &mut config, folder, device)?;
    Ok(config)
}

/// Loads the tensors of a PEFT folder as adapters of a configuration that is known otherwise.
///
/// A run goes on from its own files that way: what only training knows (which matrix is frozen, what an adapter started from)
/// is not in PEFT's configuration.
pub fn load_as<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &mut A::Config,
    folder: &Path,
    device: &Device,
) -> Result<(), AdapterFilesError> {
    let sites = targeted_sites(model, config)
        .map_err(|source| AdapterFilesError::Targets { path: folder.join(CONFIG_FILE), source })?;
    let adapters = read_tensors::<A>(config, &places(model, &sites), folder, device)?;
    put(model, &sites, adapters);
    Ok(())
}

fn read_tensors<A: Adapter>(
    config: &A::Config,
    places: &[Place],
    folder: &Path,
    device: &Device,
) -> Result<Vec<A>, AdapterFilesError> {
    let path = folder.join(TENSORS_FILE);
    let file = TensorFile::open(&path)?;
    let sites: Vec<Site> = places.iter().map(|place| place.site.clone()).collect();
    // PEFT stores the frozen table of an adapted embedding or head as well; the model has it already.
    let base_weights: Vec<String> = sites.iter().map(|site| key_of(site, "base_layer.weight")).collect();
    let mut unused: Vec<String> = file.names().map(str::to_owned).filter(|name| !base_weights.contains(name)).collect();
    let (mut faults, mut tensors) = (Vec::new(), Vec::new());
    for (key, shape) in A::file_layout(config, &sites) {
        unused.retain(|name| *name != key);
        match file.shape(&key) {
            None => faults.push(format!("{key} is missing, expected shape {shape:?}")),
            Some(found) if found != shape => faults.push(format!("{key} has shape {found:?}, expected {shape:?}")),
            Some(_) => tensors.push(TensorData::new(file.finite_floats(&key)?, shape)),
        }
    }
    faults.extend(unused.into_iter().map(|name| format!("{name} belongs to no module the configuration targets")));
    if faults.is_empty() {
        Ok(A::from_file(config, places, tensors, device))
    } else {
        Err(AdapterFilesError::Faults { path, faults })
    }
}

/// Writes the model's adapters as a PEFT folder. Each file appears whole or not at all.
pub fn save<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &A::Config,
    folder: &Path,
    base_model: &str,
) -> Result<(), AdapterFilesError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| AdapterFilesError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let mut fields = A::peft_fields(config);
    fields.insert("task_type".to_owned(), json!("CAUSAL_LM"));
    fields.insert("base_model_name_or_path".to_owned(), json!(base_model));
    fields.insert("inference_mode".to_owned(), json!(true));
    let path = folder.join(CONFIG_FILE);
    let text = serde_json::to_string_pretty(&fields).expect("JSON values are always written") + "\n";
    whole_file::write(&path, text.as_bytes()).map_err(io(&path))?;
    write(&folder.join(TENSORS_FILE), &named_tensors(model, config))?;
    Ok(())
}

/// The model's adapter tensors under PEFT's keys, in its layout.
pub fn named_tensors<A: Adapter>(model: &mut impl PeftModel<A>, config: &A::Config) -> Vec<(String, TensorData)> {
    let (mut sites, mut adapters) = (Vec::new(), Vec::new());
    for slot in model.slots() {
        if let Some(adapter) = slot.adapter {
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
