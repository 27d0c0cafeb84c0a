//! `ist merge`: fold an adapter into its model and save a folder that transformers loads.

use std::path::Path;

use ist_core::burn::tensor::DType;
use ist_models::CausalLm;
use ist_models::registry::ModelFiles;
use ist_peft::Adapter;

use crate::cli::Merge;
use crate::device;
use crate::failure::{Failure, OrFail};
use crate::model_source::{self, WithAdapted};
use crate::run::{lines, whole_folder};

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

/// Writes `config.json` and `model.safetensors` of a model, in its storage type.
pub fn write_model<A: Adapter, M: CausalLm<A>>(
    model: &M,
    config: &serde_json::Value,
    folder: &Path,
) -> Result<(), Failure> {
    let weights = model.weights();
    ist_peft::tensor_file::write(&folder.join("model.safetensors"), &weights).or_run()?;
    let mut config = config.clone();
    let dtype = match weights.first().map(|(_, data)| data.dtype()) {
        Some(DType::BF16) => "bfloat16",
        Some(DType::F16) => "float16",
        _ => "float32",
    };
    for key in ["dtype", "torch_dtype"] {
        config[key] = dtype.into();
    }
    let text = serde_json::to_string_pretty(&config).or_run()? + "\n";
    lines::replace(&folder.join("config.json"), text.as_bytes()).or_run()
}
