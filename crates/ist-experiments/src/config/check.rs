//! Checks a TOML table against its schema and notes every fault.
//!
//! This is the part of JSON Schema that the configurations use, with two things a general validator
//! does not give: messages that say what to write instead, and TOML's own view of types (`1` is an
//! integer, `1.0` is not, `nan` is no number). A test holds that the schemas use no keyword that is
//! not enforced here.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::document::{Document, join};
use super::schema::{COUNT, REPEATABLE, SIZE, is_default, keys, names, property, variants_of};
use super::words::{allowed, expected, found};
use super::{memory, nearest, words};

/// More than there could be of steps, records or tokens, and little enough that products of two
/// counts and a model's sizes stay within 64 bits.
pub(super) const MOST_OF_ANYTHING: i64 = 1_000_000_000_000;

/// Notes every fault that the schema sees.
pub(super) fn check(schema: &Json, document: &mut Document) {
    let mut checker = Checker { keys: keys(schema), faults: Vec::new() };
    checker.table(schema, &document.table, "");
    for (key, message) in checker.faults {
        document.fault(&key, message);
    }
}

/// Notes every fault of one value.
pub(super) fn value(schema: &Json, value: &Value, key: &str, document: &mut Document) {
    let mut checker = Checker { keys: Vec::new(), faults: Vec::new() };
    checker.value(schema, value, key);
    for (key, message) in checker.faults {
        document.fault(&key, message);
    }
}

struct Checker {
    /// Every valid dotted key.
    keys: Vec<String>,
    faults: Vec<(String, String)>,
}

impl Checker {
    fn fault(&mut self, key: &str, message: String) {
        self.faults.push((key.to_owned(), message));
    }

    fn value(&mut self, schema: &Json, value: &Value, key: &str) {
        let schema = branch_for(schema, value);
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Table(table)) => self.table(schema, table, key),
            (Some("object"), Value::Array(list)) if is_repeated(schema, list) => {
                for (index, table) in list.iter().enumerate() {
                    self.value(schema, table, &format!("{key}[{index}]"));
                }
            }
            (Some("array"), Value::Array(list)) if fits_length(schema, list.len()) => {
                self.list(schema, list, key);
            }
            _ if accepts(schema, value) => self.not_absurd(schema, value, key),
            _ => {
                let hint = closest(schema, value)
                    .map(|near| format!("; did you mean \"{near}\"?"))
                    .unwrap_or_default();
                self.fault(
                    key,
                    format!("must be {}, found {}{hint}", expected(schema), found(value)),
                );
            }
        }
    }

    /// A count that is larger than any could be meant.
    fn not_absurd(&mut self, schema: &Json, value: &Value, key: &str) {
        if let Value::Integer(count) = value
            && schema["format"] == COUNT
            && *count > MOST_OF_ANYTHING
        {
            self.fault(key, format!("must be at most {MOST_OF_ANYTHING}, found {count}"));
        }
    }

    fn list(&mut self, schema: &Json, list: &[Value], key: &str) {
        for (index, value) in list.iter().enumerate() {
            self.value(&schema["items"], value, &format!("{key}[{index}]"));
            if schema["uniqueItems"] == true && list[..index].contains(value) {
                self.fault(&format!("{key}[{index}]"), format!("repeats {}", found(value)));
            }
        }
    }

    fn table(&mut self, schema: &Json, table: &Table, key: &str) {
        match variants_of(schema) {
            Some((tag, variants)) => self.variant(schema, tag, &variants, table, key),
            None => self.keys_of(schema, schema, table, key),
        }
    }

    /// A table whose tag decides which keys it takes.
    fn variant(
        &mut self,
        schema: &Json,
        tag: &str,
        variants: &[(&str, &Json)],
        table: &Table,
        key: &str,
    ) {
        let chosen = match table.get(tag) {
            None => variants.iter().find(|(_, variant)| is_default(variant, tag)),
            Some(value) => variants.iter().find(|(name, _)| value.as_str() == Some(name)),
        };
        if let Some((_, variant)) = chosen {
            return self.keys_of(variant, schema, table, key);
        }
        let one_of =
            serde_json::json!({"enum": variants.iter().map(|(name, _)| *name).collect::<Vec<_>>()});
        self.value(&one_of, &table[tag], &join(key, tag));
        // Whatever was meant, a key of no variant at all is a fault of its own.
        let unknown: Vec<&String> =
            table.keys().filter(|name| property(schema, name).is_none()).collect();
        for name in unknown {
            self.unknown(schema, &join(key, name), key);
        }
    }

    /// The keys of a table: those it has against `schema`, those it lacks, and those that exclude
    /// each other. `family` is the schema with all variants, so that a key of another variant is
    /// told from an unknown one.
    fn keys_of(&mut self, schema: &Json, family: &Json, table: &Table, key: &str) {
        for (name, value) in table {
            let inner = join(key, name);
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => self.value(schema, value, &inner),
                (None, Json::Object(any)) => self.value(&Json::Object(any.clone()), value, &inner),
                (None, _) if property(family, name).is_some() => {
                    self.foreign(schema, family, name, key);
                }
                (None, _) => self.unknown(schema, &inner, key),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(name) {
                self.missing(&schema["properties"][name], &join(key, name));
            }
        }
        self.alternatives(schema, table, key);
    }

    /// A required key that is absent. Of an absent table the required keys are named, not the
    /// table.
    fn missing(&mut self, schema: &Json, key: &str) {
        if schema["type"] == "object" {
            return self.table(schema, &Table::new(), key);
        }
        let description = schema["description"].as_str().unwrap_or_default();
        let sentence = description.lines().next().unwrap_or_default();
        self.fault(
            key,
            format!("is missing; it must be {}. {sentence}", expected(schema))
                .trim_end()
                .to_owned(),
        );
    }

    /// `oneOf` of required keys: exactly one; `not` of required keys: not all.
    fn alternatives(&mut self, schema: &Json, table: &Table, key: &str) {
        let required = |branch: &Json| -> Vec<String> {
            let names = branch["required"].as_array().into_iter().flatten();
            names.filter_map(Json::as_str).map(str::to_owned).collect()
        };
        let quoted = |names: &[String]| -> Vec<String> {
            names.iter().map(|n| format!("`{}`", join(key, n))).collect()
        };
        let branches = schema["oneOf"].as_array().filter(|_| schema.get("discriminator").is_none());
        let one_of: Vec<String> = branches.into_iter().flatten().flat_map(required).collect();
        let given: Vec<String> =
            one_of.iter().filter(|name| table.contains_key(*name)).cloned().collect();
        if given.is_empty() && !one_of.is_empty() {
            self.fault(key, format!("needs one of {}", quoted(&one_of).join(" and ")));
        } else if given.len() > 1 {
            self.fault(
                &join(key, &given[1]),
                format!("conflicts with `{}`; give one of them", join(key, &given[0])),
            );
        }
        let excluded = required(&schema["not"]);
        if excluded.len() == 2 && excluded.iter().all(|name| table.contains_key(name)) {
            let [first, second] = [&excluded[0], &excluded[1]].map(|name| join(key, name));
            self.fault(&second, format!("conflicts with `{first}`; give one of them"));
        }
    }

    /// A key that belongs to another variant of the same table.
    fn foreign(&mut self, schema: &Json, family: &Json, name: &str, key: &str) {
        let Some((tag, variants)) = variants_of(family) else { return };
        let owners: Vec<&str> = variants
            .iter()
            .filter(|(_, variant)| variant["properties"].get(name).is_some())
            .map(|(owner, _)| *owner)
            .collect();
        let (owners, mine) = (owners.join("\", \""), schema["title"].as_str().unwrap_or_default());
        let tag = join(key, tag);
        self.fault(
            &join(key, name),
            format!("belongs to {tag} = \"{owners}\", not to \"{mine}\"; remove it"),
        );
    }

    fn unknown(&mut self, schema: &Json, key: &str, parent: &str) {
        let hint = match nearest::key(key, &self.keys) {
            Some((near, true)) => format!("; did you mean `{near}`?"),
            Some((near, false)) => {
                let table = if parent.is_empty() {
                    "the top level".to_owned()
                } else {
                    format!("[{parent}]")
                };
                format!(
                    "; {table} takes {}, and the nearest key is `{near}`",
                    names(schema).join(", ")
                )
            }
            None => String::new(),
        };
        self.fault(key, format!("is not a known key{hint}"));
    }
}

/// Of a table or a list the one alternative that is meant, if a schema has any, so that its faults
/// are told and not its absence. Of anything else the schema itself.
fn branch_for<'a>(schema: &'a Json, value: &Value) -> &'a Json {
    let is_meant = |branch: &&Json| match value {
        Value::Table(_) => branch["type"] == "object",
        // A list of plain values is judged as one.
        Value::Array(_) => branch["type"] == "array" && branch["items"]["anyOf"].is_array(),
        _ => false,
    };
    let mut branches = schema["anyOf"].as_array().into_iter().flatten();
    branches.find(is_meant).unwrap_or(schema)
}

/// Whether a value is one that the schema allows.
fn accepts(schema: &Json, value: &Value) -> bool {
    if let Some(values) = allowed(schema) {
        return value.as_str().is_some_and(|text| values.contains(&text));
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        return branches.iter().any(|branch| accepts(branch, value));
    }
    match (schema["type"].as_str(), value) {
        (Some("string"), Value::String(text)) if schema["format"] == SIZE => {
            memory::bytes(text).is_some()
        }
        (Some("string"), Value::String(text)) => {
            schema["minLength"].as_u64().is_none_or(|least| text.len() as u64 >= least)
        }
        (Some("boolean"), Value::Boolean(_)) => true,
        (Some("integer" | "number"), Value::Integer(number)) => in_range(schema, *number as f64),
        (Some("number"), Value::Float(number)) => number.is_finite() && in_range(schema, *number),
        (Some("array"), Value::Array(list)) => {
            fits_length(schema, list.len())
                && list.iter().all(|item| accepts(&schema["items"], item))
        }
        _ => false,
    }
}

fn in_range(schema: &Json, number: f64) -> bool {
    let holds = |key: &str, test: fn(&f64, &f64) -> bool| {
        schema[key].as_f64().is_none_or(|bound| test(&number, &bound))
    };
    holds("minimum", f64::ge)
        && holds("maximum", f64::le)
        && holds("exclusiveMinimum", f64::gt)
        && holds("exclusiveMaximum", f64::lt)
}

/// Whether a list stands for a table that may be given several times.
fn is_repeated(schema: &Json, list: &[Value]) -> bool {
    schema[REPEATABLE] == true && !list.is_empty() && list.iter().all(Value::is_table)
}

fn fits_length(schema: &Json, length: usize) -> bool {
    let length = length as u64;
    schema["minItems"].as_u64().is_none_or(|least| length >= least)
        && schema["maxItems"].as_u64().is_none_or(|most| length <= most)
}

fn closest<'a>(schema: &'a Json, value: &Value) -> Option<&'a str> {
    nearest::value(value.as_str()?, &words::allowed(schema)?)
}
