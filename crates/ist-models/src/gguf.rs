//! LoRA adapters for llama.cpp: its names of a LLaMA's tensors, and its order of rotary dimensions.
//!
//! llama.cpp rotates neighbouring numbers of a head where Hugging Face's LLaMA rotates the halves
//! against each other, so it keeps the rows of the query and key projections in another order, and
//! so the rows of their B.

use std::path::Path;

use ist_files::destination::DestinationError;
use ist_files::regular;
use ist_files::untrusted::json;
use ist_peft::files::gguf::{LowRank, Matrix, write};
use ist_peft::files::{CONFIG_FILE, PREFIX, TENSORS_FILE};
use ist_peft::{AdapterFilesError, Dialect, Lora, LoraConfig, TensorFile, method};
use serde_json::{Map, Value};

use crate::DecoderConfig;
use crate::hub::checkpoint::Checkpoint;

/// Why an adapter cannot be written for llama.cpp.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The adapter's files cannot be read.
    #[error(transparent)]
    Files(#[from] AdapterFilesError),
    /// The adapter is no plain LoRA.
    #[error("{path}: a GGUF adapter holds plain LoRA alone; {found}")]
    Method {
        /// The configuration.
        path: String,
        /// What it is instead.
        found: String,
    },
    /// A tensor has no place in llama.cpp.
    #[error("{name} has no counterpart in llama.cpp's {architecture}: {reason}")]
    Tensor {
        /// The tensor's key.
        name: String,
        /// The architecture.
        architecture: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

const ARCHITECTURE: &str = "llama";

/// Writes the LoRA adapter in `folder`, over a LLaMA of that configuration, as a GGUF file. The
/// weights of the model are read only where the adapter's file holds some of them too, which must
/// be the same.
///
/// # Errors
/// An adapter that is no plain LoRA on modules that llama.cpp has, and a file that cannot be
/// written.
pub fn write_llama_adapter(
    folder: &Path,
    config: &DecoderConfig,
    weights: Option<&Checkpoint>,
    output: &Path,
) -> Result<(), GgufError> {
    let lora = lora_config(folder)?;
    let file = TensorFile::open(&folder.join(TENSORS_FILE)).map_err(AdapterFilesError::from)?;
    for name in file.names().filter(|name| name.ends_with(BASE)) {
        must_be_the_base(name, &file, weights)?;
    }
    let keys: Vec<&str> = file.names().filter(|name| !name.ends_with(BASE)).collect();
    let modules = keys.iter().filter_map(|key| key.strip_suffix(".lora_A.weight"));
    let embeddings = keys.iter().filter_map(|key| key.strip_suffix(".lora_embedding_A"));
    let mut additions = Vec::new();
    for (module, suffixes) in modules
        .map(|module| (module, [".lora_A.weight", ".lora_B.weight"]))
        .chain(embeddings.map(|module| (module, [".lora_embedding_A", ".lora_embedding_B"])))
    {
        let matrix = |suffix: &str| matrix(&file, &format!("{module}{suffix}"));
        let [a, b] = [matrix(suffixes[0])?, matrix(suffixes[1])?];
        additions.push((module.strip_prefix(PREFIX).unwrap_or(module), a, b));
    }
    if 2 * additions.len() != keys.len() {
        let known = |key: &&&str| {
            ["lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B"]
                .iter()
                .any(|end| key.ends_with(end))
        };
        let name = keys.iter().find(|key| !known(key)).unwrap_or(&keys[0]);
        return Err(unplaced(name, "it is no part of a LoRA"));
    }
    let alphas: Vec<f64> = additions
        .iter()
        .map(|(path, a, _)| lora.low_rank.scaling_of(path) * a.shape[0] as f64)
        .collect();
    let common = alphas.first().copied().filter(|first| alphas.iter().all(|alpha| alpha == first));
    let named = additions.into_iter().map(|(path, a, b)| {
        let scale = if common.is_some() { 1.0 } else { lora.low_rank.scaling_of(path) as f32 };
        low_rank(path, a, scaled(b, scale), config)
    });
    let named = named.collect::<Result<Vec<_>, _>>()?;
    write(output, ARCHITECTURE, common.unwrap_or(0.0) as f32, &named)?;
    Ok(())
}

/// What the key of a base model's weight ends with in an adapter's file.
const BASE: &str = ".base_layer.weight";

/// Fails unless a weight in the adapter's file is the model's own.
fn must_be_the_base(
    name: &str,
    file: &TensorFile,
    weights: Option<&Checkpoint>,
) -> Result<(), GgufError> {
    let module = name.strip_suffix(BASE).unwrap_or(name);
    let own = format!("{}.weight", module.strip_prefix(PREFIX).unwrap_or(module));
    let Some(weights) = weights.filter(|weights| weights.contains(&own)) else {
        return Err(unplaced(name, "only the model's weights tell whether it is one of them"));
    };
    let theirs = file.finite_floats(name).map_err(AdapterFilesError::from)?;
    let own = weights.data(&own).map_err(|_| unplaced(name, "the model's own cannot be read"))?;
    if own.iter::<f32>().eq(theirs) {
        return Ok(());
    }
    Err(unplaced(name, "it takes the place of the base model's; merge the adapter instead"))
}

fn lora_config(folder: &Path) -> Result<LoraConfig, GgufError> {
    let path = folder.join(CONFIG_FILE);
    let text = regular::read_to_string(&path)
        .map_err(|source| AdapterFilesError::Io { path: path.clone(), source })?;
    let fields: Map<String, Value> = json::from_slice(text.as_bytes()).map_err(|error| {
        AdapterFilesError::Json { path: path.clone(), message: json::told(&error) }
    })?;
    let refuse = |found: String| GgufError::Method { path: path.display().to_string(), found };
    match method::parse::<Lora>(&fields, Dialect::Peft) {
        Some(Ok(config)) => Ok(config.settings),
        Some(Err(error)) => Err(refuse(error.to_string())),
        None if fields.get("use_dora") == Some(&Value::Bool(true)) => Err(refuse(
            "DoRA's magnitudes have no place in it; merge the adapter instead".to_owned(),
        )),
        None => Err(refuse(format!(
            "`peft_type` is {}",
            fields.get("peft_type").unwrap_or(&Value::Null)
        ))),
    }
}

fn matrix(file: &TensorFile, key: &str) -> Result<Matrix, GgufError> {
    let shape = file.shape(key).unwrap_or_default();
    let Ok(shape) = <[usize; 2]>::try_from(shape) else {
        return Err(unplaced(key, "it is not there or no matrix"));
    };
    Ok(Matrix { shape, values: file.finite_floats(key).map_err(AdapterFilesError::from)? })
}

fn unplaced(name: &str, reason: &'static str) -> GgufError {
    GgufError::Tensor { name: name.to_owned(), architecture: ARCHITECTURE, reason }
}

fn scaled(matrix: Matrix, scale: f32) -> Matrix {
    Matrix { values: matrix.values.into_iter().map(|value| value * scale).collect(), ..matrix }
}

/// The addition to the module at `path` under llama.cpp's name and in its order.
fn low_rank(
    path: &str,
    a: Matrix,
    b: Matrix,
    config: &DecoderConfig,
) -> Result<LowRank, GgufError> {
    let name = llama_name(path).ok_or_else(|| unplaced(path, "no such module"))?;
    if path == "lm_head" && config.tie_word_embeddings {
        return Err(unplaced(path, "the head is tied to the embedding"));
    }
    let (a, b) = match path.rsplit('.').next() {
        Some("q_proj") => (a, interleaved(&b, config.num_attention_heads)),
        Some("k_proj") => (a, interleaved(&b, config.num_key_value_heads)),
        Some("embed_tokens") => (transposed(&a), b),
        _ => (a, b),
    };
    Ok(LowRank { name, a, b })
}

/// llama.cpp's name of the weight of a LLaMA's module.
fn llama_name(path: &str) -> Option<String> {
    match path {
        "model.embed_tokens" => return Some("token_embd.weight".to_owned()),
        "lm_head" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, module) = path.strip_prefix("model.layers.")?.split_once('.')?;
    let name = match module {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{name}.weight"))
}

/// The rows of every head with its two halves interleaved.
fn interleaved(matrix: &Matrix, heads: usize) -> Matrix {
    let [rows, columns] = matrix.shape;
    let half = rows / heads / 2;
    let source = |row: usize| {
        let (head, within) = (row / (2 * half), row % (2 * half));
        head * 2 * half + (within % 2) * half + within / 2
    };
    let values =
        (0..rows).flat_map(|row| matrix.values[source(row) * columns..][..columns].to_vec());
    Matrix { shape: matrix.shape, values: values.collect() }
}

fn transposed(matrix: &Matrix) -> Matrix {
    let [rows, columns] = matrix.shape;
    let values = (0..columns)
        .flat_map(|column| (0..rows).map(move |row| matrix.values[row * columns + column]));
    Matrix { shape: [columns, rows], values: values.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_head_are_interleaved() {
        let matrix = Matrix { shape: [8, 1], values: (0..8).map(|row| row as f32).collect() };
        assert_eq!(interleaved(&matrix, 2).values, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }
}
