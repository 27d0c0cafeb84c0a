//! Checkpoints: everything an exact resume needs, whole or not there.
//!
//! A checkpoint is a folder named after the number of steps done. It is written under another name and renamed when it is
//! complete, so a folder with a number for a name is always whole.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ist_core::burn::tensor::{Device, TensorData};
use ist_core::tuner::TunerState;
use ist_peft::{Adapter, Adapters, PeftModel, TensorFile, whole_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::Position;

/// What a run knows besides the model and the tuner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub steps: usize,
    /// Where the training data stands.
    pub training: Position,
    /// Where the scoring data stands.
    pub scoring: Position,
    /// The least validation loss so far, and the step it belongs to.
    #[serde(with = "exact")]
    pub best: Option<(f64, usize)>,
    /// Evaluations since then.
    pub evaluations_without_improvement: usize,
    /// The exact-match score before training.
    pub score_before: Option<Value>,
}

/// A loss as the bits of its f64: decimal text may lose the last one, and a resumed run must not.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the form serde calls")]
    pub(super) fn serialize<S: Serializer>(
        best: &Option<(f64, usize)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        best.map(|(loss, step)| (loss.to_bits(), step)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<(f64, usize)>, D::Error> {
        let best: Option<(u64, usize)> = Option::deserialize(deserializer)?;
        Ok(best.map(|(bits, step)| (f64::from_bits(bits), step)))
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    progress: Progress,
    tuner: Value,
    inputs: Value,
}

/// How the folder of a checkpoint that is being written begins.
const PARTIAL: &str = ".partial-";

/// Removes what a process that was killed while writing a checkpoint left behind.
pub fn remove_partial(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

/// Writes the checkpoint of `progress.steps` and removes the oldest ones beyond `keep`. `inputs` says what the run reads.
pub fn save<A: Adapter>(
    folder: &Path,
    keep: usize,
    model: &mut impl PeftModel<A>,
    adapters: &Adapters<A>,
    tuner: TunerState,
    progress: &Progress,
    inputs: &Value,
) -> Result<()> {
    let target = folder.join(progress.steps.to_string());
    if target.exists() {
        return Ok(());
    }
    let partial =
        whole_file::begin_folder(folder, PARTIAL).context("cannot create a checkpoint")?;
    ist_peft::save(model, adapters, partial.path(), "")?;
    ist_peft::tensor_file::write(&partial.path().join("optimizer.safetensors"), &tuner.tensors)?;
    let document = serde_json::to_vec(&Document {
        progress: progress.clone(),
        tuner: tuner.document,
        inputs: inputs.clone(),
    })?;
    super::lines::replace(&partial.path().join("state.json"), &document)?;
    let partial = partial.keep();
    std::fs::rename(&partial, &target)
        .with_context(|| format!("{}: cannot rename", partial.display()))?;
    for old in list(folder)?.iter().rev().skip(keep) {
        std::fs::remove_dir_all(folder.join(old.to_string()))
            .with_context(|| format!("checkpoint {old}"))?;
    }
    Ok(())
}

/// The newest checkpoint of fewer than `steps` steps.
pub fn newest_before(folder: &Path, steps: usize) -> Result<Option<PathBuf>> {
    Ok(list(folder)?
        .into_iter()
        .rfind(|&done| done < steps)
        .map(|done| folder.join(done.to_string())))
}

/// A checkpoint that is on the model now.
pub struct Loaded {
    /// The tuner's state.
    pub state: TunerState,
    /// The run's progress.
    pub progress: Progress,
    /// What its run read.
    pub inputs: Value,
    /// Newer checkpoints that are not whole, each with the reason; they were renamed to `broken-STEP`.
    pub set_aside: Vec<String>,
}

/// Loads the newest checkpoint that is whole onto the model with those adapters.
///
/// `None` when there is none at all; an error when there are some and none is whole.
pub fn load_newest<A: Adapter>(
    folder: &Path,
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    device: &Device,
) -> Result<Option<Loaded>> {
    let mut broken = Vec::new();
    for steps in list(folder)?.into_iter().rev() {
        match load::<A>(&folder.join(steps.to_string()), model, adapters, device) {
            Ok(loaded) => {
                return Ok(Some(Loaded { set_aside: set_aside(folder, &broken)?, ..loaded }));
            }
            Err(error) => broken.push((steps, format!("{error:#}"))),
        }
    }
    match broken.first() {
        Some((_, error)) => {
            bail!("{error}\nno checkpoint in {} is whole; start a new run", folder.display())
        }
        None => Ok(None),
    }
}

/// Renames broken checkpoints, over those that were set aside before, and says so.
fn set_aside(folder: &Path, broken: &[(usize, String)]) -> Result<Vec<String>> {
    let rename = |(steps, error): &(usize, String)| {
        let target = folder.join(format!("broken-{steps}"));
        if target.exists() {
            std::fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
        }
        std::fs::rename(folder.join(steps.to_string()), &target)
            .with_context(|| target.display().to_string())?;
        Ok(format!("checkpoint {steps} is broken and set aside: {error}"))
    };
    broken.iter().map(rename).collect()
}

fn load<A: Adapter>(
    folder: &Path,
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    device: &Device,
) -> Result<Loaded> {
    ist_peft::restore(model, adapters, folder, device)?;
    let path = folder.join("state.json");
    let context = || path.display().to_string();
    let Document { progress, tuner, inputs } =
        serde_json::from_slice(&std::fs::read(&path).with_context(context)?)
            .with_context(context)?;
    let file = TensorFile::open(&folder.join("optimizer.safetensors"))?;
    let tensors = file
        .names()
        .map(|name| Ok((name.to_owned(), file.data(name)?)))
        .collect::<Result<Vec<(String, TensorData)>>>()?;
    Ok(Loaded {
        state: TunerState { document: tuner, tensors },
        progress,
        inputs,
        set_aside: Vec::new(),
    })
}

/// The whole checkpoints by number of steps, ascending.
fn list(folder: &Path) -> Result<Vec<usize>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut steps: Vec<usize> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}
