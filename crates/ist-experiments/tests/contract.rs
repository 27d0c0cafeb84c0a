//! What programs outside this repository rely on: the schema, the help, and what a run leaves.
//!
//! Everything is compared with `fixtures/contract/`. A change there is a change of the contract:
//! add, don't change, and note it in CHANGELOG.md. Where a change is intended, this writes the
//! fixtures again, and git shows what changed:
//!
//! ```sh
//! IST_RENEW_CONTRACT=1 cargo test --release --workspace --test contract
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::Workbench;
use serde_json::Value;

/// Set to anything, it makes the tests write the fixtures instead of reading them.
const RENEW: &str = "IST_RENEW_CONTRACT";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract")
}

/// Fails unless a text is that of its fixture.
fn hold(name: &str, text: &str) {
    let path = fixtures().join(name);
    if std::env::var_os(RENEW).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{name} is not what it was:\n{}\nWhere this is intended: {RENEW}=1 cargo test --release \
         --workspace --test contract, and a note in CHANGELOG.md",
        difference(&kept, text)
    );
}

/// Lines that are gone and lines that are new.
fn difference(old: &str, new: &str) -> String {
    let is_in = |text: &str, line: &str| text.lines().any(|other| other == line);
    let gone = old.lines().filter(|line| !is_in(new, line)).map(|line| format!("- {line}"));
    let added = new.lines().filter(|line| !is_in(old, line)).map(|line| format!("+ {line}"));
    let lines: Vec<String> = gone.chain(added).collect();
    if lines.is_empty() { "the order of its lines".into() } else { lines.join("\n") }
}

fn stdout(bench: &Workbench, arguments: &[&str]) -> String {
    String::from_utf8(bench.run(arguments, 0).stdout).unwrap()
}

/// The commands that the help lists, without `help` itself.
fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        // What a description continues with is indented further.
        let line = line.strip_prefix("  ")?;
        if line.starts_with(' ') { None } else { line.split_whitespace().next() }
    });
    names.filter(|name| *name != "help").collect()
}

/// Every file below a folder, as paths within it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    collect(folder, "", &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, before: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{before}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

/// The types of the values at each place of some documents.
#[derive(Default)]
struct Shape(BTreeMap<String, BTreeSet<String>>);

impl Shape {
    fn insert(&mut self, place: &str, kind: &str) {
        self.0.entry(place.to_owned()).or_default().insert(kind.to_owned());
    }

    fn add(&mut self, place: &str, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.insert(place, kind);
        match value {
            Value::Array(values) => {
                for value in values {
                    self.add(&format!("{place}[]"), value);
                }
            }
            Value::Object(entries) => {
                for (key, value) in entries {
                    self.add(&format!("{place}/{}", without_numbers(key)), value);
                }
            }
            _ => {}
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (place, kinds) in &self.0 {
            let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
            let place = if place.is_empty() { "/" } else { place };
            writeln!(text, "  {place}: {}", kinds.join(" or ")).unwrap();
        }
        text
    }
}

/// `layers.3.mlp` as `layers.*.mlp`: which layers a run chose hangs on the last bit of a loss, and
/// another processor may choose others.
fn without_numbers(key: &str) -> String {
    let part = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { "*".to_owned() } else { part.to_owned() }
    };
    key.split('.').map(part).collect::<Vec<String>>().join(".")
}

/// Names and types of the tensors of a safetensors file, from the JSON at its beginning.
fn add_tensors(shape: &mut Shape, bytes: &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    for (name, tensor) in header.as_object().unwrap() {
        let Some(dtype) = tensor["dtype"].as_str() else {
            shape.add(name, tensor);
            continue;
        };
        let dimensions = tensor["shape"].as_array().unwrap().len();
        shape.insert(&without_numbers(name), &format!("{dtype}, {dimensions} dimensions"));
    }
}

/// What a file of a run looks like; nothing for files of other kinds.
fn shape(path: &Path) -> Shape {
    let bytes = std::fs::read(path).unwrap();
    let mut shape = Shape::default();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => shape.add("", &serde_json::from_slice(&bytes).unwrap()),
        Some("jsonl") => {
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                shape.add("", &serde_json::from_str(line).unwrap());
            }
        }
        Some("toml") => {
            let value: Value = toml::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap();
            shape.add("", &value);
        }
        Some("safetensors") => add_tensors(&mut shape, &bytes),
        _ => {}
    }
    shape
}

#[test]
fn the_schemas_are_those_of_the_contract() {
    let bench = Workbench::new("");
    hold("schema.json", &sorted(&stdout(&bench, &["schema"])));
    hold("schema-pretrain.json", &sorted(&stdout(&bench, &["schema", "--pretrain"])));
}

/// A document with the keys of its objects sorted: their order means nothing in JSON.
fn sorted(document: &str) -> String {
    let mut value: Value = serde_json::from_str(document).unwrap();
    value.sort_all_objects();
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

#[test]
fn the_help_of_every_command_is_that_of_the_contract() {
    let bench = Workbench::new("");
    let help = stdout(&bench, &["--help"]);
    hold("help/ist.txt", &help);
    let commands = commands(&help);
    assert!(commands.len() > 10 && commands.contains(&"train"), "{commands:?}");
    let mut expected: Vec<String> = vec!["ist.txt".into()];
    for command in commands {
        let name = format!("{command}.txt");
        hold(&format!("help/{name}"), &stdout(&bench, &[command, "--help"]));
        expected.push(name);
    }
    // A command that is gone leaves its fixture behind.
    expected.sort();
    assert_eq!(files(&fixtures().join("help")), expected);
}

/// Linux alone says how much memory is free, which decides what a plan holds.
#[cfg(target_os = "linux")]
#[test]
fn a_run_leaves_the_files_and_keys_of_the_contract() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let folder = bench.path("run");
    let mut text = String::new();
    for name in files(&folder) {
        writeln!(text, "{name}").unwrap();
        text.push_str(&shape(&folder.join(&name)).text());
    }
    hold("run.txt", &text);
}

#[test]
fn a_shape_holds_types_and_no_values() {
    let mut shape = Shape::default();
    shape.add("", &serde_json::json!({"a": [1, {"layers.3.b": 2.0}], "c": null}));
    shape.add("", &serde_json::json!({"c": "text"}));
    let expected = "  /: object\n  /a: array\n  /a[]: integer or object\n  \
                    /a[]/layers.*.b: float\n  /c: null or string\n";
    assert_eq!(shape.text(), expected);
}

#[test]
fn a_difference_names_the_lines_that_differ() {
    assert_eq!(difference("a\nb\n", "b\nc\n"), "- a\n+ c");
    assert_eq!(difference("a\nb\n", "b\na\n"), "the order of its lines");
}
