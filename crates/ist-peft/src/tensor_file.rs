//! Stand-in.
#![expect(missing_docs, reason = "stand-in")]
use std::path::{Path, PathBuf};
use ist_core::burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TensorFileError { path: PathBuf, message: String }
#[derive(Debug)]
pub struct TensorFile { path: PathBuf, bytes: Vec<u8>, names: Vec<String> }
impl TensorFile {
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let fault = |message: String| TensorFileError { path: path.to_owned(), message };
        let bytes = std::fs::read(path).map_err(|e| fault(e.to_string()))?;
        let names = SafeTensors::deserialize(&bytes).map_err(|e| fault(e.to_string()))?.names().iter().map(|s| s.to_string()).collect();
        Ok(Self { path: path.to_owned(), bytes, names })
    }
    pub fn names(&self) -> impl Iterator<Item = &str> { self.names.iter().map(String::as_str) }
    fn view(&self, name: &str) -> Option<TensorView<'_>> { SafeTensors::deserialize(&self.bytes).ok()?.tensor(name).ok() }
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> { self.view(name).map(|v| v.shape().to_vec()) }
    pub fn data(&self, name: &str) -> Result<TensorData, TensorFileError> {
        let fault = |message: String| TensorFileError { path: self.path.clone(), message };
        let view = self.view(name).ok_or_else(|| fault(format!("no tensor {name}")))?;
        let dtype = match view.dtype() { Dtype::F32 => DType::F32, Dtype::BF16 => DType::BF16, Dtype::F16 => DType::F16, Dtype::F64 => DType::F64, other => return Err(fault(format!("{name}: {other:?}"))) };
        Ok(TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype))
    }
    pub fn finite_floats(&self, name: &str) -> Result<Vec<f32>, TensorFileError> { Ok(self.data(name)?.iter::<f32>().collect()) }
}
pub fn write(path: &Path, tensors: &[(String, TensorData)]) -> Result<(), TensorFileError> {
    let fault = |message: String| TensorFileError { path: path.to_owned(), message };
    let views: Vec<(String, TensorView<'_>)> = tensors.iter().map(|(n, d)| {
        let dtype = match d.dtype() { DType::F32 => Dtype::F32, DType::BF16 => Dtype::BF16, DType::F16 => Dtype::F16, DType::F64 => Dtype::F64, _ => panic!() };
        (n.clone(), TensorView::new(dtype, d.shape().to_vec(), d.as_bytes()).unwrap()) }).collect();
    let bytes = safetensors::serialize(views, Some(std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]))).map_err(|e| fault(e.to_string()))?;
    std::fs::write(path, bytes).map_err(|e| fault(e.to_string()))
}
