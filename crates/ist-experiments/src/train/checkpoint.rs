//! Checkpoints: everything an exact resume needs, whole or not there.
//!
//! A checkpoint is a folder named after the number of steps done. It is written under another name,
//! synced and renamed when it is complete, so a folder with a number for a name was whole when it
//! was saved. What happened to it since is told by its digests.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ist_core::burn::tensor::{Device, TensorData};
use ist_core::tuner::TunerState;
use ist_files::durable::PartialFolder;
use ist_files::regular;
use ist_peft::{Adapter, Adapters, PeftModel, TensorFile, TensorFileError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::records::Position;
use ist_records::record::checkpoints::{FOLDER, list, remove_oldest, set_aside};
use ist_records::record::digests::{self, Digests, Fault, LogMarks};
use ist_records::record::lines::{self, bytes_before};
use ist_records::{Failure, OrFail};

/// The optimizer's moments and the policy's tensors.
const OPTIMIZER: &str = "optimizer.safetensors";
/// The rest.
const STATE: &str = "state.json";

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

/// `state.json`.
#[derive(Serialize, Deserialize)]
struct Document {
    /// How a checkpoint is laid out; 0 for those of versions that wrote no digests.
    #[serde(default)]
    format: u32,
    progress: Progress,
    tuner: Value,
    inputs: Value,
}

/// The format that is written: files and logs have digests.
const FORMAT: u32 = 1;

/// What a checkpoint is made of.
pub struct Content<'a, A: Adapter> {
    /// The adapters on the model.
    pub adapters: &'a Adapters<A>,
    /// The tuner's state.
    pub tuner: TunerState,
    /// The run's progress.
    pub progress: &'a Progress,
    /// What the run reads.
    pub inputs: &'a Value,
    /// How far its logs are; they are synced.
    pub logs: LogMarks,
    /// The bytes that it may take.
    pub budget: Option<u64>,
}

/// Writes the checkpoint of `progress.steps` and removes the oldest ones beyond `keep`.
///
/// # Errors
///
/// A disk that is full or fails. What was saved before is whole then.
pub fn save<A: Adapter>(
    folder: &Path,
    keep: usize,
    model: &mut impl PeftModel<A>,
    content: Content<A>,
) -> Result<()> {
    let Content { adapters, tuner, progress, inputs, logs, budget } = content;
    let target = folder.join(progress.steps.to_string());
    if target.exists() {
        return Ok(());
    }
    let partial = PartialFolder::create(&target).context("cannot create a checkpoint")?;
    ist_peft::save(model, adapters, partial.path(), "")?;
    ist_peft::files::tensor_file::write(&partial.path().join(OPTIMIZER), &tuner.tensors)?;
    let document = serde_json::to_vec(&Document {
        format: FORMAT,
        progress: progress.clone(),
        tuner: tuner.document,
        inputs: inputs.clone(),
    })?;
    lines::replace(&partial.path().join(STATE), &document)?;
    Digests::write(partial.path(), logs, budget).context("cannot write a checkpoint's digests")?;
    partial.commit().with_context(|| format!("{}: cannot write", target.display()))?;
    remove_oldest(folder, keep)
}

/// A checkpoint that is on the model now.
pub struct Loaded {
    /// The tuner's state.
    pub state: TunerState,
    /// The run's progress.
    pub progress: Progress,
    /// What its run read.
    pub inputs: Value,
    /// The bytes that the run could take; `None` in checkpoints of earlier versions, which do not
    /// tell.
    pub budget: Option<Option<u64>>,
    /// Where each log of the run is to be cut.
    pub logs: BTreeMap<String, u64>,
    /// What the user should know: newer checkpoints that are not whole, which were renamed to
    /// `broken-STEP`, each with the reason.
    pub notes: Vec<String>,
}

/// Where a run is and which logs it continues.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The run's folder.
    pub run: &'a Path,
    /// Names of its logs.
    pub logs: &'a [&'a str],
}

impl Place<'_> {
    fn checkpoints(&self) -> PathBuf {
        self.run.join(FOLDER)
    }
}

/// Loads the newest checkpoint that is whole onto the model with those adapters.
///
/// `None` when there is none at all.
///
/// # Errors
///
/// Input: there are some and none is whole. Run: the newest cannot be read now. It may be whole, so
/// nothing is renamed.
pub fn load_newest<A: Adapter>(
    place: Place,
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    device: &Device,
) -> Result<Option<Loaded>, Failure> {
    let folder = place.checkpoints();
    let mut broken = Vec::new();
    for steps in list(&folder).or_run()?.into_iter().rev() {
        match load::<A>(&folder.join(steps.to_string()), place, model, adapters, device) {
            Ok(mut loaded) => {
                loaded.notes.extend(set_aside(&folder, &broken).or_run()?);
                return Ok(Some(loaded));
            }
            Err(Fault::Broken(reason)) => broken.push((steps, reason)),
            Err(Fault::Unreadable(error)) => {
                let what = format!("checkpoint {steps} cannot be used now; nothing was changed");
                return Err(Failure::Run(error.context(what)));
            }
        }
    }
    match broken.first() {
        Some((steps, reason)) => Err(Failure::input(format!(
            "checkpoint {steps} is broken: {reason}\n\
             no checkpoint in {} is whole; restore what was changed, or start \
             a new run",
            folder.display()
        ))),
        None => Ok(None),
    }
}

fn load<A: Adapter>(
    folder: &Path,
    place: Place,
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    device: &Device,
) -> Result<Loaded, Fault> {
    let digests = Digests::check(folder)?;
    let document = document(&folder.join(STATE))?;
    if document.format > FORMAT {
        return Err(Fault::Unreadable(anyhow!(
            "{}: has format {}, this version reads {FORMAT}; use a newer version",
            folder.join(STATE).display(),
            document.format
        )));
    }
    let mut notes = Vec::new();
    let budget = digests.as_ref().map(|digests| digests.budget);
    let logs = match digests {
        Some(digests) => {
            digests::check_logs(place.run, place.logs, &digests.logs)?;
            let marks = digests.logs.into_iter();
            marks.map(|(name, mark)| (name.into(), mark.bytes)).collect()
        }
        None if document.format > 0 => {
            let path = folder.join(digests::FILE);
            return Err(Fault::Broken(format!("{} is missing", path.display())));
        }
        None => {
            let steps = document.progress.steps;
            notes.push(format!(
                "checkpoint {steps} is of an earlier version and has no digests: it is used \
                 unchecked"
            ));
            unmarked(place, steps)?
        }
    };
    // What has the bytes that were saved is not broken, whatever else keeps it from being used.
    let fault = if document.format > 0 { Fault::Unreadable } else { of_error };
    ist_peft::restore(model, adapters, folder, device).map_err(|error| fault(error.into()))?;
    let tensors = tensors(&folder.join(OPTIMIZER)).map_err(|error| fault(error.into()))?;
    let state = TunerState { document: document.tuner, tensors };
    let Document { progress, inputs, .. } = document;
    Ok(Loaded { state, progress, inputs, budget, logs, notes })
}

fn document(path: &Path) -> Result<Document, Fault> {
    let bytes = regular::read(path).map_err(|error| Fault::of_reading(path, error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Fault::Broken(format!("{}: {error}", path.display())))
}

fn tensors(path: &Path) -> Result<Vec<(String, TensorData)>, TensorFileError> {
    let file = TensorFile::open(path)?;
    file.names().map(|name| Ok((name.to_owned(), file.data(name)?))).collect()
}

/// Where logs are cut that have no marks.
fn unmarked(place: Place, steps: usize) -> Result<BTreeMap<String, u64>, Fault> {
    let cut = |name: &&str| {
        let counted = match *name {
            "metrics.jsonl" => Some("loss"),
            "selections.jsonl" => Some("layers"),
            _ => None,
        };
        let bytes = bytes_before(&place.run.join(name), steps, counted).map_err(of_error)?;
        Ok(((*name).to_owned(), bytes))
    };
    place.logs.iter().map(cut).collect()
}

/// The fault that an error stands for: only what the system refuses may pass.
fn of_error(error: anyhow::Error) -> Fault {
    let system = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let proven = [ErrorKind::NotFound, ErrorKind::InvalidInput, ErrorKind::InvalidData];
    match system.map(std::io::Error::kind) {
        Some(kind) if kind != ErrorKind::UnexpectedEof && !proven.contains(&kind) => {
            Fault::Unreadable(error)
        }
        _ => Fault::Broken(format!("{error:#}")),
    }
}
