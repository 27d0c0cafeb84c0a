//! Files of adapters: Hugging Face PEFT's folders both ways, safetensors, and other programs'
//! forms.

pub mod bodies;
mod carried;
mod contents;
mod folder;
pub mod foreign;
pub mod gguf;
mod keys;
mod mlx;
mod part_tensors;
pub mod tensor_file;
pub mod usable;

pub(crate) use folder::read_fields;
pub use folder::{
    AdapterFilesError, CONFIG_FILE, TENSORS_FILE, holds_adapters, load, named_tensors,
    open_tensors, read_config, restore, save,
};

pub use crate::method::{PREFIX, key_of};
