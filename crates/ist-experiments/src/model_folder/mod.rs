//! A model as a folder in Hugging Face layout: `config.json` and `model.safetensors`.

pub mod whole;

use std::path::Path;

use ist_core::burn::tensor::{DType, TensorData};
use ist_models::Decoder;
use ist_peft::Adapter;

use ist_records::record::lines;
use ist_records::{Failure, OrFail};

/// Writes `config.json` and `model.safetensors` of a model, in its storage type.
pub fn write_model<A: Adapter>(
    model: &Decoder<A>,
    config: &serde_json::Value,
    folder: &Path,
) -> Result<(), Failure> {
    write_weights(&model.weights(), config, folder)
}

/// Writes `config.json` and `model.safetensors` with these tensors, of which the first tells the
/// storage type.
pub(crate) fn write_weights(
    weights: &[(String, TensorData)],
    config: &serde_json::Value,
    folder: &Path,
) -> Result<(), Failure> {
    ist_peft::files::tensor_file::write(&folder.join("model.safetensors"), weights).or_run()?;
    let mut config = config.clone();
    let dtype = match weights.first().map(|(_, data)| data.dtype()) {
        Some(DType::BF16) => "bfloat16",
        Some(DType::F16) => "float16",
        _ => "float32",
    };
    for key in ["dtype", "torch_dtype"] {
        config[key] = dtype.into();
    }
    let text = serde_json::to_string_pretty(&config).or_run()? + "\n";
    lines::replace(&folder.join("config.json"), text.as_bytes()).or_run()
}
