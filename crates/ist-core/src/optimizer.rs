//! AdamW on single parameters, and where the state of a resting layer lives.
//!
//! A parameter without a gradient in a step is not touched: not its value, not its moments, not its
//! step count, and no weight decay. Bias correction therefore counts a parameter's own updates, as
//! in PyTorch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer as _};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// AdamW's constants (Loshchilov & Hutter, arXiv 1711.05101), with PyTorch's names and
/// transformers' defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWSettings {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay: a parameter shrinks by the factor 1 - lr · `weight_decay` in each of
    /// its updates.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// What happens to the moments of a layer while it rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestingState {
    /// They stay on the device, as in the published code.
    #[default]
    Keep,
    /// They leave the device's memory until the layer is chosen again; no number changes.
    Offload,
    /// They are forgotten and start anew, which departs from IST.
    Drop,
}

/// Where [`RestingState::Offload`] puts moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffloadTo {
    /// Host memory; for devices with a memory of their own.
    Host,
    /// Files in that folder; for the CPU, whose memory is the host's.
    Folder(PathBuf),
}

/// Why offloaded moments could not be written or read back, or a saved state does not fit.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// A file of the offload folder failed.
    #[error("optimizer state file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A saved state misses a tensor or holds one of the wrong size.
    #[error("the saved optimizer state of {name} does not fit: {message}")]
    State {
        /// The parameter.
        name: String,
        /// What does not fit.
        message: String,
    },
}

/// The moments of one parameter, flattened, and where they are.
#[derive(Debug)]
enum Moments {
    Device(Box<[Tensor<1>; 2]>),
    Host([TensorData; 2]),
    Files([PathBuf; 2]),
}

#[derive(Debug)]
struct Slot {
    updates: usize,
    moments: Moments,
}

/// AdamW with one state per parameter name.
pub struct Optimizer {
    adamw: AdamW,
    resting: RestingState,
    offload: OffloadTo,
    slots: BTreeMap<String, Slot>,
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optimizer")
            .field("resting", &self.resting)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// The optimizer's state as plain data: update counts and named moments (`NAME.exp_avg`,
/// `NAME.exp_avg_sq`).
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    /// Updates each parameter has had.
    pub updates: BTreeMap<String, usize>,
    /// The moments by name.
    pub moments: Vec<(String, TensorData)>,
}

const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl Optimizer {
    /// An optimizer without any state yet.
    pub fn new(settings: AdamWSettings, resting: RestingState, offload: OffloadTo) -> Self {
        let adamw = AdamWConfig::new()
            .with_beta_1(settings.betas[0] as f32)
            .with_beta_2(settings.betas[1] as f32)
            .with_epsilon(settings.eps as f32)
            .with_weight_decay(settings.weight_decay as f32)
            .build();
        Self { adamw, resting, offload, slots: BTreeMap::new() }
    }

    /// Applies `resting_state` to every parameter for which `trains` is false, and brings the
    /// others' moments back.
    ///
    /// Called once a step's layers are known and before its forward pass, so that resting moments
    /// are out of the way.
    pub fn rest(
        &mut self,
        device: &Device,
        trains: impl Fn(&str) -> bool,
    ) -> Result<(), OptimizerError> {
        if self.resting == RestingState::Drop {
            self.slots.retain(|name, _| trains(name));
        }
        if self.resting == RestingState::Offload {
            for (name, slot) in &mut self.slots {
                if trains(name) {
                    slot.load(device)?;
                } else {
                    slot.offload(name, &self.offload)?;
                }
            }
        }
        Ok(())
    }

    /// One AdamW update of the flattened parameter `name`.
    pub fn update(
        &mut self,
        name: &str,
        learning_rate: f64,
        value: Tensor<1>,
        gradient: Tensor<1>,
    ) -> Result<Tensor<1>, OptimizerError> {
        let state = match self.slots.remove(name) {
            Some(mut slot) => {
                slot.load(&value.device())?;
                Some(slot.into_state())
            }
            None => None,
        };
        let (value, state) = self.adamw.step(learning_rate, value, gradient, state);
        let momentum = state.expect("AdamW always returns its state").momentum;
        let moments = Moments::Device(Box::new([momentum.moment_1, momentum.moment_2]));
        self.slots.insert(name.to_owned(), Slot { updates: momentum.time, moments });
        Ok(value)
    }

    /// How many updates the parameter has had; 0 when it has no state.
    pub fn updates(&self, name: &str) -> usize {
        self.slots.get(name).map_or(0, |slot| slot.updates)
    }

    /// Parameters whose moments are on the device now.
    pub fn on_device(&self) -> Vec<&str> {
        let resident = |slot: &Slot| matches!(slot.moments, Moments::Device(_));
        self.slots
            .iter()
            .filter(|(_, slot)| resident(slot))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Bytes of the moments that are on the device now.
    pub fn bytes_on_device(&self) -> u64 {
        let bytes = |slot: &Slot| match &slot.moments {
            Moments::Device(moments) => {
                moments.iter().map(|m| (m.dims()[0] * m.dtype().size()) as u64).sum()
            }
            Moments::Host(_) | Moments::Files(_) => 0,
        };
        self.slots.values().map(bytes).sum()
    }

    /// The whole state, wherever it lives.
    pub fn state(&self) -> Result<OptimizerState, OptimizerError> {
        let mut state = OptimizerState::default();
        for (name, slot) in &self.slots {
            state.updates.insert(name.clone(), slot.updates);
            for (suffix, data) in SUFFIXES.iter().zip(slot.data()?) {
                state.moments.push((format!("{name}.{suffix}"), data));
            }
        }
        Ok(state)
    }

    /// Takes over a state that [`Optimizer::state`] wrote, on `device`.
    pub fn restore(
        &mut self,
        state: OptimizerState,
        device: &Device,
    ) -> Result<(), OptimizerError> {
        let mut moments: BTreeMap<String, TensorData> = state.moments.into_iter().collect();
        self.slots.clear();
        for (name, updates) in state.updates {
            let mut take = |suffix: &str| {
                moments.remove(&format!("{name}.{suffix}")).ok_or_else(|| OptimizerError::State {
                    name: name.clone(),
                    message: format!("tensor {name}.{suffix} is missing"),
                })
            };
            let [first, second] = [take(SUFFIXES[0])?, take(SUFFIXES[1])?];
            if first.shape() != second.shape() || first.shape().rank() != 1 {
                let message =
                    format!("moments have shapes {:?} and {:?}", first.shape(), second.shape());
                return Err(OptimizerError::State { name, message });
            }
            let on_device =
                |data: TensorData| Tensor::from_data(data.clone(), (device, data.dtype()));
            let moments = Moments::Device(Box::new([on_device(first), on_device(second)]));
            self.slots.insert(name, Slot { updates, moments });
        }
        match moments.into_keys().next() {
            Some(tensor) => Err(OptimizerError::State {
                message: format!("tensor {tensor} belongs to no parameter that was updated"),
                name: tensor,
            }),
            None => Ok(()),
        }
    }
}

/// Offloaded moments are of no use without their optimizer: their files go with it.
impl Drop for Optimizer {
    fn drop(&mut self) {
        let files = self.slots.values().flat_map(|slot| {
            if let Moments::Files(paths) = &slot.moments { &paths[..] } else { &[] }
        });
        let removed = files.filter(|path| std::fs::remove_file(path).is_ok()).count();
        if let (OffloadTo::Folder(folder), 1..) = (&self.offload, removed) {
            // Not ours alone when something else is in it: then it stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Slot {
    fn into_state(self) -> AdamWState<1> {
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

    fn data(&self) -> Result<[TensorData; 2], OptimizerError> {
        match &self.moments {
            Moments::Device(tensors) => Ok((**tensors).clone().map(Tensor::into_data)),
            Moments::Host(data) => Ok(data.clone()),
            Moments::Files([first, second]) => Ok([read(first)?, read(second)?]),
        }
    }

    fn load(&mut self, device: &Device) -> Result<(), OptimizerError> {
        if !matches!(self.moments, Moments::Device(_)) {
            let data = self.data()?;
            let tensors = data.map(|data| Tensor::from_data(data.clone(), (device, data.dtype())));
            if let Moments::Files(paths) =
                std::mem::replace(&mut self.moments, Moments::Device(Box::new(tensors)))
            {
                for path in paths {
                    std::fs::remove_file(&path)
                        .map_err(|source| OptimizerError::File { path, source })?;
                }
            }
        }
        Ok(())
    }

    fn offload(&mut self, name: &str, to: &OffloadTo) -> Result<(), OptimizerError> {
        if matches!(self.moments, Moments::Device(_)) {
            let data = self.data()?;
            self.moments = match to {
                OffloadTo::Host => Moments::Host(data),
                OffloadTo::Folder(folder) => {
                    let name = file_name(name);
                    let path = |suffix| folder.join(format!("{name}.{suffix}.bin"));
                    let paths = [path(SUFFIXES[0]), path(SUFFIXES[1])];
                    for (path, data) in paths.iter().zip(data) {
                        write(path, &data)?;
                    }
                    Moments::Files(paths)
                }
            };
        }
        Ok(())
    }
}

/// A parameter's name as part of a file's name. A restored state may come from anywhere, and what
/// it calls a parameter must not lead out of the folder.
fn file_name(parameter: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let escaped = |c: char| if plain(c) { c.to_string() } else { format!("%{:x}", u32::from(c)) };
    parameter.chars().map(escaped).collect()
}

/// The optimizer's own files: a length-prefixed JSON header (dtype, shape) and the bytes as they
/// are in memory.
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
    let cut =
        || fault(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file is cut short"));
    let bytes = std::fs::read(path).map_err(fault)?;
    let (length, rest) = bytes.split_at_checked(8).ok_or_else(cut)?;
    let length =
        u64::from_le_bytes(length.try_into().expect("eight bytes were split off")) as usize;
    let (header, values) = rest.split_at_checked(length).ok_or_else(cut)?;
    let (dtype, shape): (burn::tensor::DType, Vec<usize>) =
        serde_json::from_slice(header).map_err(|error| fault(error.into()))?;
    if values.len() != shape.iter().product::<usize>() * dtype.size() {
        return Err(cut());
    }
    Ok(TensorData::from_bytes_vec(values.to_vec(), shape, dtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;

    #[expect(deprecated, reason = "a separate implementation to check the others against")]
    fn ndarray() -> Device {
        Device::ndarray()
    }

    /// AdamW as PyTorch documents it, in f64.
    fn reference(settings: AdamWSettings, lr: f64, mut value: f64, gradients: &[f64]) -> f64 {
        let ([b1, b2], mut m, mut v) = (settings.betas, 0.0, 0.0);
        for (t, g) in (1i32..).zip(gradients) {
            value -= lr * settings.weight_decay * value;
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            value -=
                lr * (m / (1.0 - b1.powi(t))) / ((v / (1.0 - b2.powi(t))).sqrt() + settings.eps);
        }
        value
    }

    fn scalar(value: f64) -> Tensor<1> {
        Tensor::from_data(TensorData::from([value]), (&ndarray(), DType::F64))
    }

    fn value(tensor: Tensor<1>) -> f64 {
        crate::gradients::scalar(tensor)
    }

    #[test]
    fn updates_equal_pytorchs_formula() {
        let settings = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        let mut optimizer = Optimizer::new(settings, RestingState::Keep, OffloadTo::Host);
        let gradients = [0.3, -0.2, 0.05, 1.0];
        let mut parameter = scalar(0.7);
        for gradient in gradients {
            parameter = optimizer.update("p", 0.01, parameter, scalar(gradient)).unwrap();
        }
        assert!((value(parameter) - reference(settings, 0.01, 0.7, &gradients)).abs() < 1e-7);
        assert_eq!(optimizer.updates("p"), 4);
    }

    fn run(resting: RestingState, offload: OffloadTo) -> ([f64; 2], Vec<usize>) {
        let (mut optimizer, device) =
            (Optimizer::new(AdamWSettings::default(), resting, offload), ndarray());
        let mut parameters = [scalar(0.5), scalar(-0.5)];
        let mut resident = Vec::new();
        for step in 0..9 {
            let chosen = usize::from(step % 3 == 0);
            optimizer.rest(&device, |name| name == format!("layers.{chosen}.p")).unwrap();
            resident.push(optimizer.on_device().len());
            let name = format!("layers.{chosen}.p");
            let moved = optimizer
                .update(&name, 0.1, parameters[chosen].clone(), scalar(0.1 * f64::from(step)))
                .unwrap();
            parameters[chosen] = moved;
        }
        (parameters.map(value), resident)
    }

    #[test]
    fn offloading_changes_no_number() {
        let folder = std::env::temp_dir().join(format!("ist-offload-{}", std::process::id()));
        let (kept, resident_kept) = run(RestingState::Keep, OffloadTo::Host);
        let (host, resident_host) = run(RestingState::Offload, OffloadTo::Host);
        let (file, resident_file) = run(RestingState::Offload, OffloadTo::Folder(folder.clone()));
        assert_eq!(kept, host);
        assert_eq!(kept, file);
        assert_eq!(resident_kept[8], 2);
        assert!(resident_host.iter().chain(&resident_file).all(|&count| count <= 1));
        assert!(!folder.exists(), "the files go with their optimizer");
    }

    #[test]
    fn dropping_restarts_a_resting_layer() {
        let ([first, second], _) = run(RestingState::Drop, OffloadTo::Host);
        let ([kept_first, kept_second], _) = run(RestingState::Keep, OffloadTo::Host);
        assert_ne!(first, kept_first);
        assert_ne!(second, kept_second);
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        let new = || Optimizer::new(AdamWSettings::default(), RestingState::Keep, OffloadTo::Host);
        let mut optimizer = new();
        let moved = optimizer.update("p", 0.1, scalar(1.0), scalar(0.3)).unwrap();
        let mut again = new();
        again.restore(optimizer.state().unwrap(), &ndarray()).unwrap();
        let expected = value(optimizer.update("p", 0.1, moved.clone(), scalar(0.2)).unwrap());
        assert_eq!(value(again.update("p", 0.1, moved, scalar(0.2)).unwrap()), expected);
    }

    #[test]
    fn a_state_without_its_moments_is_refused_by_name() {
        let mut optimizer =
            Optimizer::new(AdamWSettings::default(), RestingState::Keep, OffloadTo::Host);
        let state = OptimizerState { updates: [("p".to_owned(), 1)].into(), moments: Vec::new() };
        let error = optimizer.restore(state, &ndarray()).unwrap_err().to_string();
        assert!(error.contains("p.exp_avg is missing"), "{error}");
    }

    #[test]
    fn a_parameter_whose_name_is_a_path_is_offloaded_inside_the_folder() {
        let outer = std::env::temp_dir().join(format!("ist-offload-name-{}", std::process::id()));
        let folder = outer.join("offload");
        let name = "../../x/y";
        let to = OffloadTo::Folder(folder.clone());
        let mut optimizer = Optimizer::new(AdamWSettings::default(), RestingState::Offload, to);
        optimizer.update(name, 0.1, scalar(1.0), scalar(0.3)).unwrap();
        optimizer.rest(&ndarray(), |_| false).unwrap();
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|file| file.file_name().to_string_lossy().contains("%2f")));
        drop(optimizer);
        std::fs::remove_dir(outer).unwrap();
    }

    #[test]
    fn moments_that_no_parameter_takes_are_refused_by_name() {
        let new = || Optimizer::new(AdamWSettings::default(), RestingState::Keep, OffloadTo::Host);
        let mut optimizer = new();
        optimizer.update("p", 0.1, scalar(1.0), scalar(0.3)).unwrap();
        let mut state = optimizer.state().unwrap();
        let surplus = state.moments[0].1.clone();
        state.moments.push(("q.exp_avg".to_owned(), surplus));
        let error = new().restore(state, &ndarray()).unwrap_err().to_string();
        assert!(error.contains("q.exp_avg belongs to no parameter"), "{error}");
    }
}
