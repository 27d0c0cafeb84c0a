//! A run's adapters: fresh ones, or those of a folder in PEFT's layout.

use std::path::Path;

use ist_core::burn::tensor::Device;
use ist_models::Decoder;
use ist_peft::{Adapter, Adapters, Part, attach};
use ist_records::{Failure, OrFail};
use serde_json::{Map, Value, json};

use super::prepare;
use crate::config::RunConfig;
use crate::model_source;

/// Fresh adapters as the configuration says, or those of `adapter.init_from`.
pub(super) fn put_on<A: Adapter>(
    config: &RunConfig,
    model: &mut Decoder<A>,
    device: &Device,
) -> Result<Adapters<A>, Failure> {
    let parts = prepare::parts::<A>(&config.adapter)?;
    let mut adapters = Adapters::new(parts.concat());
    attach(model, &mut adapters, config.seed, device)
        .map_err(|error| Failure::input(format!("`adapter`: {error}")))?;
    let mut fresh = adapters.parts().iter();
    let mut all = Vec::new();
    for (table, parts) in config.adapter.tables().iter().zip(parts) {
        let fresh: Vec<Part<A>> = fresh.by_ref().take(parts.len()).cloned().collect();
        let Some(folder) = &table.init_from else {
            all.extend(fresh);
            continue;
        };
        let mut own = Adapters::new(parts);
        ist_peft::restore(model, &mut own, folder, device).or_input()?;
        agree::<A>(&own, &table.method_fields(), folder)?;
        can_train_on(&own, folder)?;
        model_source::tell(own.notes());
        all.extend(own.parts().to_vec());
    }
    Ok(Adapters::new(all))
}

/// Fails for an adapter of which this program would lose a part, and tells of tensors that stay as
/// they are.
fn can_train_on<A: Adapter>(adapters: &Adapters<A>, folder: &Path) -> Result<(), Failure> {
    let folder = folder.display();
    if adapters.parts().iter().any(Part::is_partial) {
        return Err(Failure::input(format!(
            "{folder} also adapts modules beside the text model, which training here would lose; \
             train from an adapter of \
             the text model alone"
        )));
    }
    let carried: usize = adapters.parts().iter().map(|part| part.carried().len()).sum();
    if carried > 0 {
        model_source::tell(&[format!(
            "{folder}: {carried} tensors take the place of the base model's; they do not train, \
             and are written again with \
             the adapter"
        )]);
    }
    Ok(())
}

/// Fails unless every field given in the configuration is what the loaded adapter has.
fn agree<A: Adapter>(
    loaded: &Adapters<A>,
    given: &Map<String, Value>,
    folder: &Path,
) -> Result<(), Failure> {
    if given.is_empty() {
        return Ok(());
    }
    let [only] = loaded.parts() else {
        let folder = folder.display();
        let message = format!(
            "{folder} holds several adapters; leave the keys beside `adapter.init_from` out"
        );
        return Err(Failure::input(message));
    };
    let (there, given_fields) =
        (only.peft_fields(), prepare::parse_adapter::<A>(given)?.peft_fields());
    let name_in_file = |key: &str| {
        match key {
            "alpha" => "lora_alpha",
            "dropout" => "lora_dropout",
            "targets" => "target_modules",
            "method" => "peft_type",
            other => other,
        }
        .to_owned()
    };
    // Lists of modules are sets: PEFT writes them in any order.
    let value = |fields: &Map<String, Value>, key: &str| match fields.get(&name_in_file(key)) {
        Some(Value::Array(items)) => {
            let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
            items.sort();
            json!(items)
        }
        other => other.cloned().unwrap_or_default(),
    };
    let differs = given.keys().filter(|key| value(&there, key) != value(&given_fields, key));
    let found = |fields: &Map<String, Value>, key: &str| {
        fields.get(&name_in_file(key)).cloned().unwrap_or_default()
    };
    let faults: Vec<String> = differs
        .map(|key| {
            format!("`adapter.{key}` is {}, not {}", found(&there, key), found(&given_fields, key))
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let (folder, faults) = (folder.display(), faults.join("; "));
    Err(Failure::input(format!(
        "the adapter in {folder} differs from the configuration: {faults}; leave these keys out"
    )))
}
