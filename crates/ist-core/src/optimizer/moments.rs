//! The moments of one parameter, and where they are while its layer rests.

use std::path::{Path, PathBuf};

use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{OffloadTo, OptimizerError};

/// The endings of the two moments' names.
pub(super) const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// The moments of one parameter, flattened, and where they are.
#[derive(Debug)]
pub(super) enum Moments {
    Device(Box<[Tensor<1>; 2]>),
    Host([TensorData; 2]),
    Files([PathBuf; 2]),
}

/// The state of one parameter.
#[derive(Debug)]
pub(super) struct Slot {
    /// Updates it has had.
    pub updates: usize,
    pub moments: Moments,
}

impl Slot {
    /// A slot whose moments are on the device.
    pub(super) fn on_device(updates: usize, moments: [Tensor<1>; 2]) -> Self {
        Self { updates, moments: Moments::Device(Box::new(moments)) }
    }

    /// The state as burn's AdamW takes it. Its moments have to be on the device.
    pub(super) fn into_state(self) -> AdamWState<1> {
        let Moments::Device(moments) = self.moments else {
            unreachable!("load() was called before")
        };
        let [moment_1, moment_2] = *moments;
        AdamWState::new(AdaptiveMomentumState {
            time: self.updates,
            moment_1,
            moment_2,
            max_moment_2: None,
        })
    }

    /// A copy of the moments, wherever they are.
    pub(super) fn data(&self) -> Result<[TensorData; 2], OptimizerError> {
        match &self.moments {
            Moments::Device(tensors) => Ok((**tensors).clone().map(Tensor::into_data)),
            Moments::Host(data) => Ok(data.clone()),
            Moments::Files([first, second]) => Ok([read(first)?, read(second)?]),
        }
    }

    /// Brings the moments to the device.
    pub(super) fn load(&mut self, device: &Device) -> Result<(), OptimizerError> {
        if matches!(self.moments, Moments::Device(_)) {
            return Ok(());
        }
        let tensors = self.data()?.map(|data| on_device(data, device));
        let before = std::mem::replace(&mut self.moments, Moments::Device(Box::new(tensors)));
        // Only now that they are on the device are their files of no more use.
        if let Moments::Files(paths) = before {
            for path in paths {
                std::fs::remove_file(&path)
                    .map_err(|source| OptimizerError::File { path, source })?;
            }
        }
        Ok(())
    }

    /// Takes the moments of the parameter `name` from the device.
    pub(super) fn offload(&mut self, name: &str, to: &OffloadTo) -> Result<(), OptimizerError> {
        if !matches!(self.moments, Moments::Device(_)) {
            return Ok(());
        }
        let data = self.data()?;
        self.moments = match to {
            OffloadTo::Host => Moments::Host(data),
            OffloadTo::Folder(folder) => {
                let name = file_name(name);
                let paths = SUFFIXES.map(|suffix| folder.join(format!("{name}.{suffix}.bin")));
                for (path, data) in paths.iter().zip(data) {
                    write(path, &data)?;
                }
                Moments::Files(paths)
            }
        };
        Ok(())
    }
}

/// Saved moments as a tensor, in the type they were saved in.
pub(super) fn on_device(data: TensorData, device: &Device) -> Tensor<1> {
    let dtype = data.dtype();
    Tensor::from_data(data, (device, dtype))
}

/// A parameter's name as part of a file's name.
///
/// A restored state may come from anywhere, and the names in it must not lead out of the folder.
fn file_name(parameter: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let escaped = |c: char| if plain(c) { c.to_string() } else { format!("%{:x}", u32::from(c)) };
    parameter.chars().map(escaped).collect()
}

/// Writes one of the optimizer's own files: a length-prefixed JSON header (dtype, shape) and the
/// bytes as they are in memory.
fn write(path: &Path, data: &TensorData) -> Result<(), OptimizerError> {
    let fault = |source| OptimizerError::File { path: path.to_owned(), source };
    let header = serde_json::to_vec(&(data.dtype(), data.shape().as_slice()))
        .map_err(|error| fault(error.into()))?;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(data.as_bytes());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    std::fs::write(path, bytes).map_err(fault)
}

fn read(path: &Path) -> Result<TensorData, OptimizerError> {
    let fault = |source| OptimizerError::File { path: path.to_owned(), source };
    let cut = || {
        let kind = std::io::ErrorKind::UnexpectedEof;
        fault(std::io::Error::new(kind, "the file is cut short"))
    };
    let bytes = std::fs::read(path).map_err(fault)?;
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = u64::from_le_bytes(*length) as usize;
    let (header, values) = rest.split_at_checked(length).ok_or_else(cut)?;
    let (dtype, shape): (DType, Vec<usize>) =
        serde_json::from_slice(header).map_err(|error| fault(error.into()))?;
    // A file that was cut short must not become moments of another size.
    if values.len() != shape.iter().product::<usize>() * dtype.size() {
        return Err(cut());
    }
    Ok(TensorData::from_bytes_vec(values.to_vec(), shape, dtype))
}
