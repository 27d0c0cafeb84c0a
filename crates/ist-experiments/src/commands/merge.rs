//! `ist merge`: fold an adapter, or a weighted sum of several, into its model and save a folder
//! that transformers loads.

use std::path::{Path, PathBuf};

use clap::Args;
use ist_peft::{Adapter, Adapters, Part, WeightedSum};

use crate::machine::device;
use crate::model_folder::{whole, write_weights};
use crate::model_source::{self, Opening};
use ist_records::record::lines;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// The model
    #[arg(long)]
    pub model: String,
    /// The adapter; several times with --weights
    #[arg(long, required = true)]
    pub adapter: Vec<PathBuf>,
    /// One weight an adapter, of any sign: --weights 0.7,-0.4
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub weights: Vec<f64>,
    /// The folder to write
    #[arg(long)]
    pub output: PathBuf,
}

/// Merges.
pub fn run<A: Adapter>(arguments: &Merge, quiet: bool) -> Result<(), Failure> {
    let Merge { adapter: folders, weights, output, .. } = arguments;
    whole::must_be_free(output)?;
    check_weights(folders.len(), weights)?;
    let device = device::open_host()?;
    let files = model_source::find_named(&arguments.model)?;
    let storage = files.dtype().or_input()?;
    let opening = Opening { files: &files, storage, device: &device, adapter: None };
    let mut model = model_source::open::<A>(opening)?;
    let mut sum = WeightedSum::default();
    for (number, folder) in folders.iter().enumerate() {
        let adapters = ist_peft::load::<A>(&mut model, folder, &device).or_input()?;
        model_source::tell(adapters.notes());
        // Without `--weights` there is one adapter, which is merged as it is.
        let weight = weights.get(number).copied();
        can_be_merged(&adapters, folder, weight)?;
        match weight {
            Some(weight) => sum.add(&mut model, weight).or_input()?,
            None => ist_peft::merge(&mut model).or_input()?,
        }
    }
    sum.fold(&mut model);
    whole::write(output, |folder| {
        let weights = files.whole(model.weights()).or_input()?;
        write_weights(&weights, &model.config_json(), folder)?;
        for (name, bytes) in files.companions().or_input()? {
            lines::replace(&folder.join(name), &bytes).or_run()?;
        }
        Ok(())
    })?;
    if !quiet {
        screen::line(output.display());
    }
    Ok(())
}

/// Fails unless there is a finite weight for each of several adapters.
fn check_weights(adapters: usize, weights: &[f64]) -> Result<(), Failure> {
    let (given, needs) = (weights.len(), adapters > 1);
    if given != adapters && (needs || given > 0) {
        return Err(Failure::input(format!(
            "`--weights` has {given} weights for {adapters} adapters; give one for each"
        )));
    }
    match weights.iter().find(|weight| !weight.is_finite()) {
        Some(weight) => {
            Err(Failure::input(format!("`--weights` must be finite numbers, found {weight}")))
        }
        None => Ok(()),
    }
}

/// Fails for an adapter that no merged model of this program can hold.
fn can_be_merged<A: Adapter>(
    adapters: &Adapters<A>,
    folder: &Path,
    weight: Option<f64>,
) -> Result<(), Failure> {
    let folder = folder.display();
    if adapters.parts().iter().any(Part::is_partial) {
        return Err(Failure::input(format!(
            "{folder} also adapts modules beside the text model, which this program does not \
             merge; merge it with PEFT"
        )));
    }
    let carries = adapters.parts().iter().any(|part| !part.carried().is_empty());
    if carries && weight.is_some() {
        return Err(Failure::input(format!(
            "{folder} holds tensors that take the place of the base model's, of which a weighted \
             sum would be no sum; merge \
             it alone, without `--weights`"
        )));
    }
    Ok(())
}
