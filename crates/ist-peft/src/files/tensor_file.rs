//! Reading and writing one `.safetensors` file.
//!
//! Files come from anywhere, so nothing in one is believed: the header is checked against the file
//! before any tensor is read, and every fault names the file and, where there is one, the tensor. A
//! file is mapped into memory for its header and its digest; a tensor's values are read, so that
//! they are in memory once and a file that was cut short is an error. Writing is all or nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ist_core::burn::tensor::{DType, Element, TensorData};
use ist_files::untrusted::{cut, cut_message, json};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use ist_files::durable::PartialFile;
use ist_files::regular;

/// Why a tensor file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The system refuses; on writing also when no space is left. Nothing half-written stays
    /// behind.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no whole and consistent safetensors file.
    #[error("{path}: not a valid safetensors file: {}", cut_message(message))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// There is no such tensor.
    #[error("{path}: tensor {} is missing", cut(name))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The tensor's type is none of the float types.
    #[error("{path}: tensor {} has type {found}; expected F32, F16, BF16 or F64", cut(name))]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type found.
        found: String,
    },
    /// A value is NaN or infinite.
    #[error(
        "{path}: tensor {} holds {value} at flat index {index}; weights must be finite",
        cut(name)
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The value.
        value: f64,
        /// Where, in the flattened tensor.
        index: usize,
    },
}

/// Bytes that are read at a time, few enough to stay in a cache until they are values.
const BUFFER: usize = 1 << 18;

#[derive(Debug)]
enum Bytes {
    /// The map, and the file with the place that it is read at.
    Mapped(Mmap, Mutex<File>),
    Embedded(&'static [u8]),
}

/// An open tensor file whose header has been checked.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
    names: Vec<String>,
}

impl TensorFile {
    /// Opens and checks a file.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let io = |source| TensorFileError::Io { path: path.to_owned(), source };
        let file = regular::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() < 8 {
            return Err(invalid(path, &SafeTensorError::HeaderTooSmall));
        }
        #[expect(
            unsafe_code,
            reason = "a map is the only way to read a tensor without reading the file"
        )]
        // SAFETY: the map is read-only. Another process that cuts the file while it is mapped can
        // end this one; model files are not edited in place, and every checkpoint of ours is
        // replaced by renaming.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::new(path, Bytes::Mapped(map, Mutex::new(file)))
    }

    /// A file that is part of the binary; `origin` names it in messages.
    pub fn embedded(origin: &str, bytes: &'static [u8]) -> Result<Self, TensorFileError> {
        Self::new(Path::new(origin), Bytes::Embedded(bytes))
    }

    fn new(path: &Path, bytes: Bytes) -> Result<Self, TensorFileError> {
        let slice = slice(&bytes);
        SafeTensors::deserialize(slice).map_err(|error| invalid(path, &error))?;
        let (header, metadata) =
            SafeTensors::read_metadata(slice).map_err(|error| invalid(path, &error))?;
        // The library keeps the last of two tensors with one name.
        json::check(&slice[8..8 + header]).map_err(|error| TensorFileError::Invalid {
            path: path.to_owned(),
            message: format!("its header: {}", json::told(&error)),
        })?;
        let names = metadata.offset_keys();
        Ok(Self { path: path.to_owned(), bytes, metadata, start: header + 8, names })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file's bytes.
    pub fn bytes(&self) -> &[u8] {
        slice(&self.bytes)
    }

    /// The tensors' names in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// A tensor's shape; `None` when there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.metadata.info(name).map(|info| info.shape.clone())
    }

    /// A tensor in the type the file holds it in: f32, f16, bf16 or f64.
    pub fn data(&self, name: &str) -> Result<TensorData, TensorFileError> {
        let info = self.metadata.info(name).ok_or_else(|| TensorFileError::Missing {
            path: self.path.clone(),
            name: name.to_owned(),
        })?;
        let (from, to) = info.data_offsets;
        let range = self.start + from..self.start + to;
        let dtype = self.float_type(name, info.dtype)?;
        let data = match dtype {
            DType::F16 => self.values(range, &info.shape, half::f16::from_le_bytes),
            DType::BF16 => self.values(range, &info.shape, half::bf16::from_le_bytes),
            DType::F64 => self.values(range, &info.shape, f64::from_le_bytes),
            _ => self.values(range, &info.shape, f32::from_le_bytes),
        };
        data.map_err(|source| TensorFileError::Io { path: self.path.clone(), source })
    }

    /// The values in a range of the file's bytes. A tensor may begin at any byte, so they are
    /// copied to where they are aligned.
    fn values<const N: usize, T: Element>(
        &self,
        range: Range<usize>,
        shape: &[usize],
        value: impl Fn([u8; N]) -> T,
    ) -> std::io::Result<TensorData> {
        let mut values = Vec::with_capacity(range.len() / N);
        let mut take = |bytes: &[u8]| {
            values.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)));
        };
        match &self.bytes {
            Bytes::Embedded(bytes) => take(&bytes[range]),
            Bytes::Mapped(_, file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(range.start as u64))?;
                let mut buffer = vec![0; BUFFER.min(range.len())];
                for from in range.clone().step_by(BUFFER) {
                    let part = &mut buffer[..BUFFER.min(range.end - from)];
                    file.read_exact(part)?;
                    take(part);
                }
            }
        }
        Ok(TensorData::new(values, shape.to_vec()))
    }

    /// The type of a tensor, or that it is no float.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.metadata.info(name).and_then(|info| self.float_type(name, info.dtype).ok())
    }

    fn float_type(&self, name: &str, dtype: Dtype) -> Result<DType, TensorFileError> {
        match dtype {
            Dtype::F32 => Ok(DType::F32),
            Dtype::F16 => Ok(DType::F16),
            Dtype::BF16 => Ok(DType::BF16),
            Dtype::F64 => Ok(DType::F64),
            other => {
                let path = self.path.clone();
                let name = name.to_owned();
                let found = format!("{other:?}");
                Err(TensorFileError::Dtype { path, name, found })
            }
        }
    }

    /// A tensor in the file's type, every value of which is finite.
    pub fn finite_data(&self, name: &str) -> Result<TensorData, TensorFileError> {
        let data = self.data(name)?;
        let fault = match data.dtype() {
            DType::F16 => not_finite(&data, half::f16::is_finite),
            DType::BF16 => not_finite(&data, half::bf16::is_finite),
            DType::F64 => not_finite(&data, f64::is_finite),
            _ => not_finite(&data, f32::is_finite),
        };
        match fault {
            Some((index, value)) => Err(TensorFileError::NotFinite {
                path: self.path.clone(),
                name: name.to_owned(),
                value,
                index,
            }),
            None => Ok(data),
        }
    }

    /// A tensor as f32, every value of which is finite.
    pub fn finite_floats(&self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        Ok(self.finite_data(name)?.iter::<f32>().collect())
    }

    /// The header's own key-value pairs.
    pub fn metadata(&self) -> HashMap<String, String> {
        self.metadata.metadata().clone().unwrap_or_default()
    }
}

fn slice(bytes: &Bytes) -> &[u8] {
    match bytes {
        Bytes::Mapped(map, _) => map,
        Bytes::Embedded(bytes) => bytes,
    }
}

/// The first value that is not finite, and its index.
fn not_finite<T: Element>(
    data: &TensorData,
    is_finite: impl Fn(T) -> bool,
) -> Option<(usize, f64)> {
    let values = data.as_slice::<T>().expect("the data have the type that was asked for");
    // No end within a part, so that the loop becomes vector instructions.
    if values
        .chunks(BUFFER)
        .all(|part| part.iter().fold(true, |all, value| all & is_finite(*value)))
    {
        return None;
    }
    data.iter::<f64>().enumerate().find(|(_, value)| !value.is_finite())
}

fn invalid(path: &Path, error: &SafeTensorError) -> TensorFileError {
    let message = match error {
        SafeTensorError::HeaderTooSmall => {
            "it is shorter than the 8 bytes of the header's length".to_owned()
        }
        SafeTensorError::HeaderTooLarge => "the header claims more than 100 MB".to_owned(),
        SafeTensorError::InvalidHeaderLength => {
            "the header is longer than the file; is the file cut short?".to_owned()
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the offsets of tensor {name} overlap another or leave a gap")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "the tensors' offsets do not end where the file does; is the file cut short?".to_owned()
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor's offsets do not fit its shape and type".to_owned()
        }
        other => other.to_string(),
    };
    TensorFileError::Invalid { path: path.to_owned(), message }
}

/// Writes tensors with their names. The file is there whole, also after a power cut, or not at all.
///
/// The library's own writer renames a file of its own over the one it is given and syncs nothing,
/// so it makes the header here and no more. Tensors stand in its order: wide types first, then by
/// name.
pub fn write(path: &Path, tensors: &[(String, TensorData)]) -> Result<(), TensorFileError> {
    let io = |source| TensorFileError::Io { path: path.to_owned(), source };
    let mut sorted = tensors
        .iter()
        .map(|(name, data)| Ok((stored_type(path, name, data)?, name, data)))
        .collect::<Result<Vec<_>, TensorFileError>>()?;
    sorted.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(right.1)));
    let header = header(&sorted).map_err(|error| TensorFileError::Invalid {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    let mut file = PartialFile::create(path).map_err(io)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(&header).map_err(io)?;
    for (_, _, data) in sorted {
        file.write_all(data.as_bytes()).map_err(io)?;
    }
    file.commit().map_err(io)
}

/// The JSON before the tensors' bytes, filled up with spaces to a multiple of 8 bytes.
fn header(tensors: &[(Dtype, &String, &TensorData)]) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let infos = tensors
        .iter()
        .map(|(dtype, name, data)| {
            let start = end;
            end += data.as_bytes().len();
            let shape = data.shape().to_vec();
            ((*name).clone(), TensorInfo { dtype: *dtype, shape, data_offsets: (start, end) })
        })
        .collect();
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut bytes = serde_json::to_vec(&Metadata::new(Some(about), infos)?)?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

fn stored_type(path: &Path, name: &str, data: &TensorData) -> Result<Dtype, TensorFileError> {
    file_type(data.dtype()).ok_or_else(|| TensorFileError::Dtype {
        path: path.to_owned(),
        name: name.to_owned(),
        found: format!("{:?}", data.dtype()),
    })
}

fn file_type(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F32 => Some(Dtype::F32),
        DType::F16 => Some(Dtype::F16),
        DType::BF16 => Some(Dtype::BF16),
        DType::F64 => Some(Dtype::F64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<TensorFile, TensorFileError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path)
    }

    #[test]
    fn hostile_files_are_refused_with_the_reason() {
        let tensor = |offsets: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#)
        };
        let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let huge = r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}}"#;
        let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let cases: [(Vec<u8>, &str); 11] = [
            (file(twice, &[0; 8]), "\"a\" stands twice"),
            (Vec::new(), "shorter than the 8 bytes"),
            (vec![1, 0, 0], "shorter than the 8 bytes"),
            ([u64::MAX.to_le_bytes().as_slice(), b"{}"].concat(), "more than 100 MB"),
            ([1000u64.to_le_bytes().as_slice(), b"{}"].concat(), "longer than the file"),
            (file("not json", &[]), "JSON"),
            (file(&tensor("[0,8]"), &[0; 4]), "cut short"),
            (file(&tensor("[0,4]"), &[0; 4]), "do not fit its shape"),
            (file(two, &[0; 12]), "overlap"),
            (file(huge, &[0; 8]), "overflow"),
            (file(r#"{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8]), "JSON"),
        ];
        for (bytes, reason) in cases {
            let message = open(&bytes).unwrap_err().to_string();
            assert!(
                message.contains(reason) && message.contains("model.safetensors"),
                "{message} should say: {reason}"
            );
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_named() {
        let body: Vec<u8> =
            [1.0f32, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect();
        let file = open(&file(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &body))
            .unwrap();
        let message = file.finite_floats("w").unwrap_err().to_string();
        assert!(message.contains("tensor w holds NaN at flat index 1"), "{message}");
    }

    #[test]
    fn integers_are_refused_by_name() {
        let file = open(&file(r#"{"w":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}"#, &[1, 2]))
            .unwrap();
        assert!(file.data("w").unwrap_err().to_string().contains("tensor w has type I8"));
        assert!(file.data("v").unwrap_err().to_string().contains("tensor v is missing"));
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/model.safetensors");
        assert!(write(&path, &[]).is_err());
        assert!(!path.exists());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            values in prop::collection::vec(-1e30f32..1e30, 1..40),
            bf16: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            let dtype = if bf16 { DType::BF16 } else { DType::F32 };
            let data = TensorData::new(values.clone(), [values.len()]).convert_dtype(dtype);
            write(&path, &[("layer.weight".to_owned(), data.clone())]).unwrap();
            let file = TensorFile::open(&path).unwrap();
            prop_assert_eq!(file.dtype("layer.weight"), Some(dtype));
            let read = file.data("layer.weight").unwrap();
            prop_assert_eq!(read.as_bytes(), data.as_bytes());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&bytes);
        }
    }
}
