//! Methods that are not built in.

use std::path::Path;

use ist_peft::fields::FieldFault;
use serde_json::{Map, Value, json};

use super::super::{ConfigError, RunConfig, extends};
use super::LEAST;

/// A set of methods with one of its own, `mine`, which takes `width`.
fn reader(fields: &Map<String, Value>) -> Option<Vec<FieldFault>> {
    (fields["method"] == "mine" || fields["method"] == "adalora").then(|| {
        let faulty = fields.get("width").is_some_and(|width| width == 0);
        faulty
            .then(|| FieldFault { field: "width".into(), message: "must not be 0".into() })
            .into_iter()
            .collect()
    })
}

fn read(adapter: &str) -> Result<RunConfig, ConfigError> {
    let text = format!("{LEAST}adapter = {adapter}\n");
    let mut document = extends::parse(Path::new("run.toml"), "/base".into(), &text)?;
    super::super::run::gate(&mut document, &[], reader);
    document.finish()
}

#[test]
fn a_method_from_outside_is_read_by_its_own_crate() {
    let adapter = read("{method = 'mine', width = 3, init_from = 'old'}").unwrap().adapter.tables()
        [0]
    .clone();
    assert_eq!(adapter.method.as_deref(), Some("mine"));
    assert_eq!(
        (json!(adapter.fields), adapter.init_from),
        (json!({"width": 3}), Some("/base/old".into()))
    );
    // What is later work here may be there in another set.
    assert_eq!(
        read("{method = 'adalora'}").unwrap().adapter.tables()[0].method.as_deref(),
        Some("adalora")
    );
}

#[test]
fn its_faults_have_their_keys_and_lines() {
    let error = read("{method = 'mine', width = 0}").unwrap_err().to_string();
    assert_eq!(error, "run.toml:4: `adapter.width` must not be 0");
    let error = read("{method = 'mine', init_from = 3}").unwrap_err().to_string();
    assert_eq!(
        error,
        "run.toml:4: `adapter.init_from` must be a string that is not empty, found 3"
    );
}

#[test]
fn a_method_of_no_set_stays_unknown() {
    let error = read("{method = 'yours', width = 3}").unwrap_err().to_string();
    assert!(error.contains("`adapter.method` must be one of \"lora\", "), "{error}");
    assert!(error.contains("found the string \"yours\""), "{error}");
}
