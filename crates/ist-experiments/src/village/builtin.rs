//! Models inside the binary.

use ist_models::ModelFiles;

use ist_records::{Failure, OrFail};

/// The files of one embedded model.
struct Embedded {
    name: &'static str,
    config: &'static str,
    generation_config: &'static str,
    tokenizer: &'static [u8],
    weights: &'static [u8],
}

/// Every model in the binary.
const MODELS: [Embedded; 1] = [Embedded {
    name: "village",
    config: include_str!("../../models/village/config.json"),
    generation_config: include_str!("../../models/village/generation_config.json"),
    tokenizer: include_bytes!("../../models/village/tokenizer.json"),
    weights: include_bytes!("../../models/village/model.safetensors"),
}];

/// The files of `builtin:NAME`.
pub fn files(name: &str) -> Result<ModelFiles, Failure> {
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        return Err(Failure::input(format!(
            "no model `builtin:{name}`; this binary holds builtin:{}",
            names.join(", builtin:")
        )));
    };
    let origin = format!("builtin:{name}");
    ModelFiles::in_memory(
        &origin,
        model.config,
        Some(model.generation_config),
        Some(model.tokenizer),
        model.weights,
    )
    .or_input()
}
