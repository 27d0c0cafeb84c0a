//! The weights of a model folder: one safetensors file, or shards with an index.
//!
//! A loader takes the tensors it needs by name and shape. What is missing, surplus or of the wrong
//! shape is collected, so that one error tells everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ist_core::burn::tensor::{DType, TensorData};
use ist_files::untrusted::{cut, cut_message, json};
use ist_files::{FileName, regular};
use ist_peft::{TensorFile, TensorFileError};
use serde::Deserialize;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Why weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder holds no safetensors weights.
    #[error("{folder}: no weights: expected {SINGLE} or {INDEX}{}", found.as_ref().map_or(String::new(), |found| format!("; found {found}, but only safetensors are read")))]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// Weights in a format that is not read.
        found: Option<String>,
    },
    /// The index is wrong.
    #[error("{path}: {}", cut_message(message))]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file is broken.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Tensors are missing, surplus or of the wrong shape.
    #[error("{origin}: the weights do not fit config.json:{}", faults.iter().map(|fault| format!("\n  {}", cut_message(fault))).collect::<String>())]
    Faults {
        /// The folder.
        origin: PathBuf,
        /// Every fault, naming its tensor.
        faults: Vec<String>,
    },
}

/// The open weights of one model.
#[derive(Debug)]
pub struct Checkpoint {
    origin: PathBuf,
    files: Vec<TensorFile>,
    /// Each tensor's file.
    tensors: BTreeMap<String, usize>,
}

/// `model.safetensors.index.json`: of every tensor the file that holds it.
#[derive(Deserialize)]
pub(super) struct ShardIndex {
    pub(super) weight_map: BTreeMap<String, FileName>,
}

impl Checkpoint {
    /// Opens the weights in `folder`. Nothing but headers is read.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        if folder.join(INDEX).is_file() {
            return Self::sharded(folder);
        }
        let path = folder.join(SINGLE);
        if path.is_file() {
            return Ok(Self::single(folder, TensorFile::open(&path)?));
        }
        Err(CheckpointError::NoWeights { folder: folder.to_owned(), found: other_weights(folder) })
    }

    /// Weights that are part of the binary.
    pub fn embedded(origin: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Ok(Self::single(Path::new(origin), TensorFile::embedded(origin, bytes)?))
    }

    fn single(origin: &Path, file: TensorFile) -> Self {
        let tensors = file.names().map(|name| (name.to_owned(), 0)).collect();
        Self { origin: origin.to_owned(), files: vec![file], tensors }
    }

    fn sharded(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(INDEX);
        let fault = |message: String| CheckpointError::Index { path: path.clone(), message };
        let text = regular::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        let ShardIndex { weight_map } =
            json::from_slice(text.as_bytes()).map_err(|error| fault(json::told(&error)))?;
        let shards: BTreeSet<&FileName> = weight_map.values().collect();
        let mut files = Vec::new();
        for shard in &shards {
            if !folder.join(shard).is_file() {
                return Err(fault(format!("shard {shard} does not exist in the folder")));
            }
            files.push(TensorFile::open(&folder.join(shard))?);
        }
        let mut tensors = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if tensors.insert(name.to_owned(), number).is_some() {
                    return Err(fault(format!("tensor {} stands in two shards", cut(name))));
                }
            }
        }
        for (name, shard) in &weight_map {
            let found = tensors.get(name).map(|&number| files[number].path());
            if found != Some(folder.join(shard).as_path()) {
                return Err(fault(format!("tensor {} is not in shard {}", cut(name), shard)));
            }
        }
        Ok(Self { origin: folder.to_owned(), files, tensors })
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensors' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as its file holds it.
    ///
    /// # Errors
    /// A tensor that cannot be read, or is none of floats.
    pub fn data(&self, name: &str) -> Result<TensorData, CheckpointError> {
        let file = self.tensors.get(name).and_then(|&file| self.files.get(file));
        let file = file.ok_or_else(|| CheckpointError::Faults {
            origin: self.origin.clone(),
            faults: vec![format!("{name} is missing")],
        })?;
        Ok(file.data(name)?)
    }

    /// Whether both tensors are there and hold different values.
    pub fn differ(&self, one: &str, other: &str) -> Result<bool, CheckpointError> {
        if !self.contains(one) || !self.contains(other) {
            return Ok(false);
        }
        let data = |name: &str| self.files[self.tensors[name]].data(name);
        Ok(data(one)?.as_bytes() != data(other)?.as_bytes())
    }

    /// The type of the first tensor: what the checkpoint is stored in.
    pub fn dtype(&self) -> Option<DType> {
        self.tensors.iter().find_map(|(name, &file)| self.files[file].dtype(name))
    }

    /// The files' bytes, for a digest.
    pub fn for_each_file(&self, with: &mut dyn FnMut(&[u8])) {
        self.files.iter().for_each(|file| with(file.bytes()));
    }

    /// A loader that takes tensors and notes faults.
    pub fn loader(&self) -> Loader<'_> {
        Loader { checkpoint: self, taken: BTreeSet::new(), faults: Vec::new(), error: None }
    }
}

/// One pass over a checkpoint's tensors.
#[derive(Debug)]
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    taken: BTreeSet<String>,
    faults: Vec<String>,
    error: Option<TensorFileError>,
}

impl Loader<'_> {
    /// The tensor of the first of `names` that exists, of exactly that shape and with finite
    /// values; zeros, and a noted fault, when there is none.
    pub fn take(&mut self, names: &[impl AsRef<str>], shape: &[usize]) -> TensorData {
        match self.find(names, shape) {
            Some(data) => data,
            None => TensorData::zeros::<f32, _>(shape.to_vec()),
        }
    }

    /// Notes a fault unless the first of `names` that exists has that shape; reads no value. False
    /// when it noted one.
    pub fn expect(&mut self, names: &[impl AsRef<str>], shape: &[usize]) -> bool {
        self.locate(names, shape).is_some()
    }

    fn find(&mut self, names: &[impl AsRef<str>], shape: &[usize]) -> Option<TensorData> {
        let name = self.locate(names, shape)?;
        let file = &self.checkpoint.files[self.checkpoint.tensors[name]];
        match file.finite_data(name) {
            Ok(data) => Some(data),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }

    fn locate<'n>(&mut self, names: &'n [impl AsRef<str>], shape: &[usize]) -> Option<&'n str> {
        let mut spellings = names.iter().map(AsRef::as_ref);
        let Some(name) = spellings.find(|name| self.checkpoint.contains(name)) else {
            let all: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
            self.faults.push(format!("{} is missing, expected shape {shape:?}", all.join(" or ")));
            return None;
        };
        self.taken.insert(name.to_owned());
        let file = &self.checkpoint.files[self.checkpoint.tensors[name]];
        let found = file.shape(name).unwrap_or_default();
        if found != shape {
            self.faults.push(format!("{name} has shape {found:?}, expected {shape:?}"));
            return None;
        }
        Some(name)
    }

    /// Marks tensors as known that are not read.
    pub fn ignore(&mut self, known: impl Fn(&str) -> bool) {
        self.taken.extend(self.checkpoint.tensors.keys().filter(|name| known(name)).cloned());
    }

    /// Ends the pass: every fault and every tensor nobody took, or nothing.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let unused = self.checkpoint.tensors.keys().filter(|name| !self.taken.contains(*name));
        self.faults.extend(unused.map(|name| format!("{name} belongs to no module of the model")));
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Faults { origin: self.checkpoint.origin.clone(), faults: self.faults })
    }
}

/// A file of weights in a format that is not read.
fn other_weights(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    let ends = |name: &&String| {
        [".bin", ".pt", ".pth", ".gguf", ".ckpt"].iter().any(|end| name.ends_with(end))
    };
    names.iter().find(ends).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ist_peft::files::tensor_file::write;

    fn tensor(name: &str, shape: [usize; 2]) -> (String, TensorData) {
        (name.to_owned(), TensorData::ones::<f32, _>(shape))
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join(SINGLE), &[tensor("a", [2, 3]), tensor("extra", [1, 1])])
            .unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let mut loader = checkpoint.loader();
        loader.take(&["a"], &[3, 2]);
        loader.take(&["b"], &[1]);
        let message = loader.finish().unwrap_err().to_string();
        for part in
            ["a has shape [2, 3], expected [3, 2]", "b is missing", "extra belongs to no module"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    fn index(folder: &Path, map: &str) {
        std::fs::write(folder.join(INDEX), format!("{{\"weight_map\": {map}}}")).unwrap();
    }

    #[test]
    fn shards_are_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("one.safetensors"), &[tensor("a", [2, 3])]).unwrap();
        write(&folder.path().join("two.safetensors"), &[tensor("b", [1, 2])]).unwrap();
        index(folder.path(), r#"{"a": "one.safetensors", "b": "two.safetensors"}"#);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let mut loader = checkpoint.loader();
        loader.take(&["a"], &[2, 3]);
        loader.take(&["c", "b"], &[1, 2]);
        loader.finish().unwrap();
    }

    #[test]
    fn a_wrong_index_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("one.safetensors"), &[tensor("a", [2, 3])]).unwrap();
        let cases = [
            (r#"{"a": "../one.safetensors"}"#, "not a plain file name"),
            (r#"{"a": "three.safetensors"}"#, "does not exist"),
            (r#"{"a": "one.safetensors", "b": "one.safetensors"}"#, "tensor b is not in shard"),
        ];
        for (map, reason) in cases {
            index(folder.path(), map);
            let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn pickled_weights_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pytorch_model.bin"), b"x").unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("pytorch_model.bin") && message.contains("only safetensors"),
            "{message}"
        );
    }
}
