//! AdamW on single parameters, and where the state of a resting layer lives.
//!
//! A step leaves a parameter without a gradient alone: its value, its moments and its step count
//! stay, and no weight decay applies. Bias correction therefore counts a parameter's own updates,
//! as in PyTorch.

mod moments;
mod settings;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::optim::{AdamW, AdamWConfig, Optimizer as _};
use burn::tensor::{Device, Tensor, TensorData};

use moments::{Moments, SUFFIXES, Slot, on_device};

pub use settings::{AdamWSettings, OffloadTo, RestingState};

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

impl Optimizer {
    /// An optimizer without any state yet.
    pub fn new(settings: AdamWSettings, resting: RestingState, offload: OffloadTo) -> Self {
        // burn's AdamW holds its constants in f32.
        let adamw = AdamWConfig::new()
            .with_beta_1(settings.betas[0] as f32)
            .with_beta_2(settings.betas[1] as f32)
            .with_epsilon(settings.eps as f32)
            .with_weight_decay(settings.weight_decay as f32)
            .build();
        Self { adamw, resting, offload, slots: BTreeMap::new() }
    }

    /// Applies the [`RestingState`] to every parameter for which `trains` is false, and brings the
    /// others' moments back.
    ///
    /// Called once a step's layers are known and before its forward pass, so that resting moments
    /// are out of the way.
    ///
    /// # Errors
    /// If a file of the offload folder cannot be written, read or removed.
    pub fn rest(
        &mut self,
        device: &Device,
        trains: impl Fn(&str) -> bool,
    ) -> Result<(), OptimizerError> {
        match self.resting {
            RestingState::Keep => {}
            RestingState::Drop => self.slots.retain(|name, _| trains(name)),
            RestingState::Offload => {
                for (name, slot) in &mut self.slots {
                    if trains(name) {
                        slot.load(device)?;
                    } else {
                        slot.offload(name, &self.offload)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One AdamW update of the flattened parameter `name`. Returns its new value.
    ///
    /// # Errors
    /// If offloaded moments cannot be read back.
    pub fn update(
        &mut self,
        name: &str,
        learning_rate: f64,
        value: Tensor<1>,
        gradient: Tensor<1>,
    ) -> Result<Tensor<1>, OptimizerError> {
        // The state is taken out, so that nothing else holds the moments and they can be updated in
        // place.
        let state = match self.slots.remove(name) {
            Some(mut slot) => {
                slot.load(&value.device())?;
                Some(slot.into_state())
            }
            None => None,
        };
        let (value, state) = self.adamw.step(learning_rate, value, gradient, state);
        let momentum = state.expect("AdamW always returns its state").momentum;
        let slot = Slot::on_device(momentum.time, [momentum.moment_1, momentum.moment_2]);
        self.slots.insert(name.to_owned(), slot);
        Ok(value)
    }

    /// How many updates the parameter has had. 0 when it has no state.
    pub fn updates(&self, name: &str) -> usize {
        self.slots.get(name).map_or(0, |slot| slot.updates)
    }

    /// Parameters whose moments are on the device now.
    pub fn on_device(&self) -> Vec<&str> {
        let resident =
            self.slots.iter().filter(|(_, slot)| matches!(slot.moments, Moments::Device(_)));
        resident.map(|(name, _)| name.as_str()).collect()
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
    ///
    /// # Errors
    /// If a moment is missing, of the wrong shape, or of a parameter that was never updated.
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
            let first = take(SUFFIXES[0])?;
            let second = take(SUFFIXES[1])?;
            if first.shape() != second.shape() || first.shape().rank() != 1 {
                let message =
                    format!("moments have shapes {:?} and {:?}", first.shape(), second.shape());
                return Err(OptimizerError::State { name, message });
            }
            let tensors = [first, second].map(|data| on_device(data, device));
            self.slots.insert(name, Slot::on_device(updates, tensors));
        }
        // Every parameter took its own. What is left over would be lost without a word.
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
        let mut removed = 0;
        for slot in self.slots.values() {
            let Moments::Files(paths) = &slot.moments else { continue };
            removed += paths.iter().filter(|path| std::fs::remove_file(path).is_ok()).count();
        }
        if let OffloadTo::Folder(folder) = &self.offload
            && removed > 0
        {
            // Something else in it means that the folder is not ours alone. Then this fails, and
            // the folder stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
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
        let [b1, b2] = settings.betas;
        let mut m = 0.0;
        let mut v = 0.0;
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
        let mut optimizer = Optimizer::new(AdamWSettings::default(), resting, offload);
        let device = ndarray();
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
