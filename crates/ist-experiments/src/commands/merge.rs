//! `ist merge`: fold an adapter into its model and save a folder that transformers loads.

use std::path::{Path, PathBuf};

use clap::Args;
use ist_models::CausalLm;
use ist_models::registry::ModelFiles;
use ist_peft::Adapter;

use crate::device;
use crate::failure::{Failure, OrFail};
use crate::model_folder::write_model;
use crate::model_source::{self, WithAdapted};
use crate::run::{lines, whole_folder};

/// `ist merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// The model
    #[arg(long)]
    pub model: String,
    /// The adapter
    #[arg(long)]
    pub adapter: PathBuf,
    /// The folder to write
    #[arg(long)]
    pub output: PathBuf,
}

/// Merges.
pub fn run<A: Adapter>(arguments: &Merge, quiet: bool) -> Result<(), Failure> {
    let output = &arguments.output;
    whole_folder::must_be_free(output)?;
    let device = device::open("auto")?;
    let files = model_source::find_named(&arguments.model)?;
    let job = Job { files: &files, output };
    model_source::open::<A, _>(&files, files.dtype().or_input()?, &device, Some(&arguments.adapter), job)?;
    if !quiet {
        eprintln!("{}", output.display());
    }
    Ok(())
}

struct Job<'a> {
    files: &'a ModelFiles,
    output: &'a Path,
}

impl<A: Adapter> WithAdapted<A> for Job<'_> {
    type Output = ();

    fn call<M: CausalLm<A>>(self, mut model: M) -> Result<(), Failure> {
        ist_peft::merge(&mut model).or_input()?;
        whole_folder::write(self.output, |folder| {
            write_model::<A, M>(&model, &model.config_json(), folder)?;
            for (name, bytes) in self.files.companions().or_run()? {
                lines::replace(&folder.join(name), &bytes).or_run()?;
            }
            Ok(())
        })
    }
}
