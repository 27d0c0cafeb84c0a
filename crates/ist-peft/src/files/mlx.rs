//! Adapters of mlx-lm, in PEFT's form.
//!
//! mlx-lm writes `adapters.safetensors` beside its own `adapter_config.json`. With A `[in, r]`, B
//! `[r, out]` and a scale s it computes y = x W + s · (x A) B, and with DoRA the same quotient of
//! norms as PEFT; so A and B are turned round, and `lora_alpha` is s · r.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ist_core::burn::tensor::TensorData;
use serde_json::{Map, Value, json};

use crate::fields::number;
use crate::files::tensor_file::TensorFile;
use crate::files::{AdapterFilesError, CONFIG_FILE, PREFIX};

/// The program's name.
pub(crate) const PROGRAM: &str = "mlx-lm";
/// The tensors' file name.
const MLX_TENSORS_FILE: &str = "adapters.safetensors";

/// Whether an `adapter_config.json` is mlx-lm's.
pub(crate) fn is_adapter(fields: &Map<String, Value>) -> bool {
    !fields.contains_key("peft_type")
        && ["lora_parameters", "fine_tune_type"].iter().any(|key| fields.contains_key(*key))
}

/// An adapter in PEFT's form: its configuration and its tensors.
pub(crate) struct Converted {
    pub(crate) fields: Map<String, Value>,
    pub(crate) tensors: Vec<(String, TensorData)>,
}

/// Reads the adapter folder `from`, whose configuration has these fields.
///
/// # Errors
/// Whole weights, settings that are wrong, and tensors that PEFT has no place for.
pub(crate) fn read(
    from: &Path,
    fields: &Map<String, Value>,
) -> Result<Converted, AdapterFilesError> {
    let config = from.join(CONFIG_FILE);
    let file = TensorFile::open(&from.join(MLX_TENSORS_FILE))?;
    let refuse = |path: PathBuf, faults: Vec<String>| AdapterFilesError::Faults { path, faults };
    let kind = fields.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
    if !["lora", "dora"].contains(&kind) {
        let fault = format!("`fine_tune_type` is \"{kind}\": the file holds no LoRA or DoRA");
        return Err(refuse(config, vec![fault]));
    }
    let parameters = fields.get("lora_parameters").and_then(Value::as_object);
    let parameter = |key: &str| parameters.and_then(|table| table.get(key)).and_then(Value::as_f64);
    let Some(scale) = parameter("scale").filter(|scale| scale.is_finite() && *scale > 0.0) else {
        let fault = "`lora_parameters.scale` must be a number above 0".to_owned();
        return Err(refuse(config, vec![fault]));
    };
    let mut modules = BTreeSet::new();
    let mut ranks = BTreeMap::new();
    let mut tensors = Vec::new();
    let mut faults = Vec::new();
    for name in file.names() {
        let Some((module, end)) = name.rsplit_once('.') else {
            faults.push(format!("{name} is no tensor of a LoRA"));
            continue;
        };
        let shape = file.shape(name).unwrap_or_default();
        let end = match (end, shape.as_slice()) {
            ("lora_a" | "lora_b", _) if module.ends_with("embed_tokens") => {
                faults.push(format!(
                    "{name}: mlx-lm's LoRA on an embedding changes a tied head too, which PEFT's \
                     does not; fuse it there"
                ));
                continue;
            }
            ("lora_a", [_, rank]) => {
                ranks.insert(module.to_owned(), *rank);
                "lora_A.weight"
            }
            ("lora_b", [_, _]) => "lora_B.weight",
            ("m", [_]) if kind == "dora" => "lora_magnitude_vector",
            _ => {
                faults.push(format!("{name} of shape {shape:?} has no place in PEFT's LoRA"));
                continue;
            }
        };
        modules.insert(module.to_owned());
        let data = file.finite_data(name)?;
        let data = if shape.len() == 2 { turned(&data) } else { data };
        tensors.push((format!("{PREFIX}{module}.{end}"), data));
    }
    let rank = ranks.values().copied().max().unwrap_or_default();
    if rank == 0 {
        faults.push("the file holds no `lora_a`".to_owned());
    }
    if !faults.is_empty() {
        return Err(refuse(from.join(MLX_TENSORS_FILE), faults));
    }
    let others = ranks.iter().filter(|(_, own)| **own != rank);
    let patterns: Map<String, Value> =
        others.clone().map(|(module, own)| (module.clone(), json!(own))).collect();
    // The scale is the same for all, and PEFT divides by a module's own rank.
    let alphas: Map<String, Value> =
        others.map(|(module, own)| (module.clone(), number(scale * *own as f64))).collect();
    let document = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": fields.get("model"),
        "inference_mode": true,
        "r": rank,
        "lora_alpha": number(scale * rank as f64),
        "lora_dropout": parameter("dropout").unwrap_or(0.0),
        "use_dora": kind == "dora",
        "bias": "none",
        "init_lora_weights": true,
        "rank_pattern": patterns,
        "alpha_pattern": alphas,
        "target_modules": modules.into_iter().collect::<Vec<_>>(),
    });
    let fields = document.as_object().cloned().expect("an object was written");
    Ok(Converted { fields, tensors })
}

/// A matrix with rows and columns exchanged, in the same type.
fn turned(data: &TensorData) -> TensorData {
    let [rows, columns] = data.shape().dims::<2>();
    let size = data.dtype().size();
    let bytes = data.as_bytes();
    let mut turned = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            turned.extend_from_slice(&bytes[(row * columns + column) * size..][..size]);
        }
    }
    TensorData::from_bytes_vec(turned, [columns, rows], data.dtype())
}
