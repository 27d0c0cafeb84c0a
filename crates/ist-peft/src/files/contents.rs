//! What the tensors' file of a PEFT folder holds, by the keys that PEFT writes today.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ist_core::burn::tensor::TensorData;

use crate::files::keys::{self, Key};
use crate::files::tensor_file::{TensorFile, TensorFileError};
use crate::files::{AdapterFilesError, TENSORS_FILE};

/// The file of pickled tensors that PEFT wrote before safetensors.
const PICKLE_FILE: &str = "adapter_model.bin";

/// Opens the tensors' file of an adapter's folder.
pub(crate) fn open_tensors(folder: &Path) -> Result<TensorFile, AdapterFilesError> {
    let path = folder.join(TENSORS_FILE);
    let pickle = folder.join(PICKLE_FILE);
    if !path.exists() && pickle.exists() {
        return Err(AdapterFilesError::Pickle { path: pickle });
    }
    Ok(TensorFile::open(&path)?)
}

/// An open file of an adapter's tensors.
#[derive(Debug)]
pub(crate) struct Contents {
    file: TensorFile,
    /// The keys of the file by the keys of today.
    stored: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Contents {
    /// Opens the tensors of an adapter's folder.
    ///
    /// # Errors
    /// Pickled tensors, a broken file, and two tensors that are one under the keys of today.
    pub(crate) fn open(folder: &Path) -> Result<Self, AdapterFilesError> {
        Self::of(open_tensors(folder)?)
    }

    fn of(file: TensorFile) -> Result<Self, AdapterFilesError> {
        let mut stored: BTreeMap<String, String> = BTreeMap::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut faults = Vec::new();
        for found in file.names() {
            let Key { name, changes } = keys::current(found);
            // A raw state dictionary may hold a module to save in its wrapper and by its plain key.
            // PEFT takes the latter.
            if name != found && file.shape(&name).is_some() {
                continue;
            }
            for change in changes {
                *counts.entry(change).or_default() += 1;
            }
            if let Some(other) = stored.insert(name, found.to_owned()) {
                faults.push(format!("{found} and {other} are the same tensor of the adapter"));
            }
        }
        if !faults.is_empty() {
            return Err(AdapterFilesError::Faults { path: file.path().to_owned(), faults });
        }
        let path = file.path().display();
        let notes = counts
            .into_iter()
            .map(|(change, count)| format!("{path}: {change} in the names of {count} tensors"))
            .collect();
        Ok(Self { file, stored, notes })
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// What was read otherwise than it stands there, in sentences.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The keys of today.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str)
    }

    /// Reads tensors under other keys where `rename` has one for theirs.
    pub(crate) fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) {
        let mut renamed: BTreeSet<String> = BTreeSet::new();
        let stored = std::mem::take(&mut self.stored).into_iter();
        self.stored = stored
            .map(|(name, found)| match rename(&name) {
                Some(other) => {
                    renamed.insert(name);
                    (other, found)
                }
                None => (name, found),
            })
            .collect();
        if let Some(first) = renamed.first() {
            let path = self.file.path().display();
            let count = renamed.len();
            self.notes.push(format!(
                "{path}: the names of {count} tensors, such as {first}, are those of another \
                 version of the model; they \
                 were read under this model's"
            ));
        }
    }

    /// A tensor's shape, of a vector where older files hold a column.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shape = self.file.shape(self.stored.get(name)?)?;
        let column = name.ends_with(".lora_magnitude_vector") && shape.len() > 1;
        Some(if column { vec![shape.iter().product()] } else { shape })
    }

    /// A tensor as f32, every value of which is finite.
    pub(crate) fn floats(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<TensorData, TensorFileError> {
        Ok(TensorData::new(self.file.finite_floats(self.stored_name(name))?, shape.to_vec()))
    }

    /// A tensor in the file's type, in the shape that [`Contents::shape`] tells.
    pub(crate) fn data(&self, name: &str) -> Result<TensorData, TensorFileError> {
        let data = self.file.data(self.stored_name(name))?;
        let shape = self.shape(name).unwrap_or_else(|| data.shape().to_vec());
        let dtype = data.dtype();
        Ok(TensorData::from_bytes(data.into_bytes(), shape, dtype))
    }

    fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.stored.get(name).map_or(name, String::as_str)
    }
}
