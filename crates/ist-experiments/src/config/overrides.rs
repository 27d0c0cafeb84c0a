//! `--set KEY=VALUE`: values of the command line, put into the file's table before anything is
//! checked.
//!
//! They then pass the same gate, so an unknown key or a wrong type is the same fault it would be in
//! the file. Paths among them are relative to the configuration's folder, also where the file
//! extends one of another folder.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::document::{Document, join};
use super::paths;

/// Puts each override into the document, later ones over earlier ones. A table as the value
/// replaces the whole table.
pub(super) fn apply(document: &mut Document, schema: &Json, overrides: &[String]) {
    for text in overrides {
        match parse(text) {
            Some((path, mut value)) => {
                let path = spelt_out(path);
                paths::resolve_at(schema, &path, &mut value, &document.folder);
                set(document, &path, value);
            }
            None => document.override_fault(
                "",
                format!(
                    "\"{text}\" is not KEY=VALUE with a dotted key, as in train.steps=100 or \
                         policy.kind=rst"
                ),
            ),
        }
    }
}

/// What `[sweep]` varies may be quoted or bare; see [`super::study`].
fn spelt_out(path: Vec<String>) -> Vec<String> {
    match path.split_first() {
        Some((first, rest)) if first == "sweep" => {
            let names =
                rest.iter().flat_map(|name| key(name).unwrap_or_else(|| vec![name.clone()]));
            std::iter::once(first.clone()).chain(names).collect()
        }
        _ => path,
    }
}

/// Key and value: split at the first `=` before which a TOML key stands.
fn parse(text: &str) -> Option<(Vec<String>, Value)> {
    text.match_indices('=').find_map(|(at, _)| Some((key(&text[..at])?, value(&text[at + 1..]))))
}

/// The names of a dotted TOML key; TOML's own parser reads it, so quoting works as in the file.
pub(super) fn key(text: &str) -> Option<Vec<String>> {
    let mut table: Table = format!("{text} = 0").parse().ok()?;
    let mut names = Vec::new();
    loop {
        let [(name, value)] =
            <[(String, Value); 1]>::try_from(table.into_iter().collect::<Vec<_>>()).ok()?;
        names.push(name);
        match value {
            Value::Table(inner) => table = inner,
            _ => return Some(names),
        }
    }
}

/// A TOML value, or the text itself as a string. Dates are text too, as no key takes one.
fn value(text: &str) -> Value {
    let parsed: Option<Table> = format!("value = {text}").parse().ok();
    match parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
        Some(Value::Datetime(_)) | None => Value::String(text.trim().to_owned()),
        Some(value) => value,
    }
}

fn set(document: &mut Document, path: &[String], value: Value) {
    let dotted = path.iter().fold(String::new(), |parent, name| join(&parent, name));
    match insert(&mut document.table, path, value) {
        Ok(()) => document.mark_overridden(dotted),
        Err(parent) => {
            document.override_fault(
                &dotted,
                format!("cannot be set, because `{parent}` is not a table"),
            );
        }
    }
}

/// Inserts at `path`; `Err` names the part of the path that is no table.
pub(super) fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let [name, rest @ ..] = path else { return Ok(()) };
    if rest.is_empty() {
        table.insert(name.clone(), value);
        return Ok(());
    }
    let inner = match table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => inner,
        // `[[adapter]]` once is the same as `[adapter]`.
        Value::Array(list) if list.len() == 1 => {
            list[0].as_table_mut().ok_or_else(|| name.clone())?
        }
        _ => return Err(name.clone()),
    };
    insert(inner, rest, value).map_err(|inner| join(name, &inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (String, Value) {
        let (path, value) = parse(text).unwrap();
        (path.join("/"), value)
    }

    #[test]
    fn a_value_is_toml_and_else_a_bare_string() {
        assert_eq!(split("train.steps=100"), ("train/steps".into(), Value::Integer(100)));
        assert_eq!(split("a.b = 1.0"), ("a/b".into(), Value::Float(1.0)));
        assert_eq!(split("policy.kind=rst"), ("policy/kind".into(), Value::String("rst".into())));
        assert_eq!(split("model.path='x y'"), ("model/path".into(), Value::String("x y".into())));
        assert_eq!(split("data.template={{ input }}\n").1, Value::String("{{ input }}".into()));
        assert_eq!(split("policy.layers=[0, 2]").1.as_array().unwrap().len(), 2);
        assert_eq!(split("a=2024-01-01").1, Value::String("2024-01-01".into()));
        assert_eq!(split("a=").1, Value::String(String::new()));
    }

    #[test]
    fn a_quoted_key_may_hold_dots_and_equal_signs() {
        let key = "adapter/rank_pattern/layers.0=x";
        assert_eq!(split("adapter.rank_pattern.\"layers.0=x\"=4"), (key.into(), Value::Integer(4)));
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_second_key() {
        assert_eq!(
            split("seed=1\nmodel = 2"),
            ("seed".into(), Value::String("1\nmodel = 2".into()))
        );
    }

    #[test]
    fn text_without_a_key_is_no_override() {
        for text in ["", "seed", "=1", "#=1", "[train]=1", "a b=1"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
