//! GGUF files of LoRA adapters, as llama.cpp loads them (`--lora`).
//!
//! The format ([specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)): magic,
//! version 3, counts, then key-value pairs, then a description of each tensor with its dimensions
//! from the innermost, then the data, each tensor on a multiple of 32 bytes; everything
//! little-endian. An adapter has `general.type` `adapter`, `adapter.type` `lora` and, for each
//! adapted tensor `t`, `t.lora_a` `[r, in]` and `t.lora_b` `[out, r]`; llama.cpp scales by
//! `adapter.lora.alpha` / r, or by 1 where that is 0.

use std::path::Path;

use ist_files::destination;
use ist_files::destination::DestinationError;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// The type of a value that is a string, and of one that is a f32.
const STRING: u32 = 8;
const FLOAT32: u32 = 6;
/// The type of a tensor of f32.
const F32: u32 = 0;

/// A matrix in PyTorch's layout, rows first.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The elements, row after row.
    pub values: Vec<f32>,
}

/// The low-rank addition to one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// llama.cpp's name of the tensor, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// A, `[r, in]`.
    pub a: Matrix,
    /// B, `[out, r]`.
    pub b: Matrix,
}

/// Writes an adapter for models of that architecture; `alpha` is 0 where the scaling is part of B.
///
/// # Errors
/// A path that cannot be written to; what the system says of it.
pub fn write(
    path: &Path,
    architecture: &str,
    alpha: f32,
    additions: &[LowRank],
) -> Result<(), DestinationError> {
    let named = |addition: &LowRank| {
        [("lora_a", addition.a.clone()), ("lora_b", addition.b.clone())]
            .map(|(suffix, matrix)| (format!("{}.{suffix}", addition.name), matrix))
    };
    let tensors: Vec<(String, Matrix)> = additions.iter().flat_map(named).collect();
    destination::write(path, &bytes(architecture, alpha, &tensors))
}

fn bytes(architecture: &str, alpha: f32, tensors: &[(String, Matrix)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(4u64.to_le_bytes());
    for (key, value) in [
        ("general.architecture", architecture),
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
    ] {
        string(&mut out, key);
        out.extend(STRING.to_le_bytes());
        string(&mut out, value);
    }
    string(&mut out, "adapter.lora.alpha");
    out.extend(FLOAT32.to_le_bytes());
    out.extend(alpha.to_le_bytes());
    let mut offset = 0usize;
    for (name, matrix) in tensors {
        string(&mut out, name);
        out.extend(2u32.to_le_bytes());
        let [rows, columns] = matrix.shape;
        for size in [columns, rows] {
            out.extend((size as u64).to_le_bytes());
        }
        out.extend(F32.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += (matrix.values.len() * size_of::<f32>()).next_multiple_of(ALIGNMENT);
    }
    for (_, matrix) in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        matrix.values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
