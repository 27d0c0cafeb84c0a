//! Keys and values of later work: refused by name, never "unknown" and never ignored.
//!
//! What becomes available is taken out of here and put into the schema, nothing else.

use toml::Value;

use super::document::{Document, join};
use super::method::keyed;

/// Keys that `ist train` and `ist run` have and `ist pretrain` has not.
const KEYS_OF_PRETRAINING: [&str; 4] = ["extends", "sweep", "seeds", "logging"];

/// PEFT methods that have a name already.
const METHODS: [&str; 5] = ["adalora", "loha", "lokr", "oft", "prompt-tuning"];

/// Refuses what of a run belongs to later work and takes it out, so that nothing else judges it.
pub(super) fn refuse(document: &mut Document) {
    methods(document);
}

/// The same for pre-training.
pub(super) fn refuse_in_pretraining(document: &mut Document) {
    for key in KEYS_OF_PRETRAINING {
        if document.table.contains_key(key) {
            document.fault(key, "is not yet available; remove it");
            document.table.remove(key);
        }
    }
}

/// The fields of another method are not judged: they are right or wrong only when it is there.
fn methods(document: &mut Document) {
    let mut later = Vec::new();
    for (key, table) in keyed(document) {
        if let Some(method) =
            table.get("method").and_then(Value::as_str).filter(|method| METHODS.contains(method))
        {
            later.push((join(&key, "method"), method.to_owned()));
            table.clear();
        }
    }
    for (key, method) in later {
        document.fault(
            &key,
            format!(
                "= \"{method}\" is not yet available; `ist schema` lists the methods there are"
            ),
        );
    }
}
