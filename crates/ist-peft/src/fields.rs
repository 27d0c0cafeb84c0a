//! Reading a method's fields from JSON, collecting every fault before giving up.
//!
//! Our TOML and PEFT's `adapter_config.json` go through the same reader. They differ in what
//! happens to a field nobody asked for: in TOML it is a fault, in PEFT's file it passes when its
//! value is neutral, because PEFT writes some forty fields of which most say "off".

use ist_core::untrusted::{cut, cut_message};
use serde_json::{Map, Value, json};

use crate::site::targets::{Patterns, TargetModules, Targets};

/// Where fields come from, and so how they are spelt and how strictly they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Our `[adapter]` table: `method`, `r`, `alpha`, `dropout`, `targets`, other fields under
    /// PEFT's names. Unknown keys are refused.
    Toml,
    /// PEFT's `adapter_config.json`. Unknown or unsupported fields pass when their value is
    /// neutral.
    Peft,
}

/// One fault in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field.
    pub field: String,
    /// What is wrong, with what was expected and found.
    pub message: String,
}

/// Every fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.iter().map(|fault| format!("`{}` {}", fault.field, fault.message)).collect::<Vec<_>>().join("; "))]
pub struct ConfigError {
    /// The faults in the order of the fields.
    pub faults: Vec<FieldFault>,
}

/// A reader over a configuration's fields.
pub struct Fields<'a> {
    fields: &'a Map<String, Value>,
    dialect: Dialect,
    read: Vec<String>,
    faults: Vec<FieldFault>,
}

impl<'a> Fields<'a> {
    /// A reader that has read nothing yet.
    pub fn new(fields: &'a Map<String, Value>, dialect: Dialect) -> Self {
        Self { fields, dialect, read: Vec::new(), faults: Vec::new() }
    }

    /// Where the fields come from.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The name of a field that our TOML and PEFT's file spell differently.
    pub fn spelt<'b>(&self, toml: &'b str, peft: &'b str) -> &'b str {
        if self.dialect == Dialect::Toml { toml } else { peft }
    }

    /// Marks a field as read whatever its value.
    pub fn skip(&mut self, key: &str) {
        self.read.push(key.to_owned());
    }

    /// Notes a fault of a field.
    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        let field = cut(key).into_owned();
        let message = cut_message(&message.into()).into_owned();
        self.faults.push(FieldFault { field, message });
    }

    /// The value of a field; `None` when it is absent or null.
    pub fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.skip(key);
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// A value that `read` accepts, else a fault that says what was expected.
    pub fn checked<T>(
        &mut self,
        key: &str,
        default: T,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let Some(value) = self.value(key) else { return default };
        read(value).unwrap_or_else(|| {
            self.fault(key, format!("must be {expected}, found {value}"));
            default
        })
    }

    /// An integer of at least 1.
    pub fn count(&mut self, key: &str, default: usize) -> usize {
        self.checked(key, default, "an integer of at least 1", positive)
    }

    /// A finite number above 0.
    pub fn number_above_zero(&mut self, key: &str, default: f64) -> f64 {
        self.checked(key, default, "a number above 0", above_zero)
    }

    /// A probability in [0, 1).
    pub fn probability(&mut self, key: &str, default: f64) -> f64 {
        let read = |value: &Value| value.as_f64().filter(|p| (0.0..1.0).contains(p));
        self.checked(key, default, "a number in [0, 1)", read)
    }

    /// A boolean.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.checked(key, default, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&mut self, key: &str, default: &str) -> String {
        self.checked(key, default.to_owned(), "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A field whose value must be one of `allowed`, or absent.
    pub fn one_of(&mut self, key: &str, allowed: &[Value]) {
        if let Some(value) = self.value(key)
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            self.fault(key, format!("must be one of {}, found {value}", allowed.join(", ")));
        }
    }

    /// Name patterns with ranks.
    pub fn rank_patterns(&mut self, key: &str) -> Patterns<usize> {
        self.patterns(key, "a table of integers of at least 1", positive)
    }

    /// Name patterns with numbers.
    pub fn number_patterns(&mut self, key: &str) -> Patterns<f64> {
        self.patterns(key, "a table of numbers above 0", above_zero)
    }

    fn patterns<T: Clone>(
        &mut self,
        key: &str,
        expected: &str,
        read: fn(&Value) -> Option<T>,
    ) -> Patterns<T> {
        let Some(value) = self.value(key) else { return Patterns::default() };
        let entries = value.as_object().and_then(|table| {
            table
                .iter()
                .map(|(pattern, value)| Some((pattern.clone(), read(value)?)))
                .collect::<Option<Vec<_>>>()
        });
        let Some(entries) = entries else {
            self.fault(key, format!("must be {expected}, found {value}"));
            return Patterns::default();
        };
        Patterns::new(entries).unwrap_or_else(|message| {
            self.fault(key, message);
            Patterns::default()
        })
    }

    /// Target modules (`targets`, in PEFT's file `target_modules`), with `exclude_modules`,
    /// `layers_to_transform` and `layers_pattern`.
    pub fn targets(&mut self) -> Targets {
        let key = self.spelt("targets", "target_modules");
        let modules = self.modules(key);
        let exclude = self.modules("exclude_modules");
        let layers =
            self.checked("layers_to_transform", None, "a layer index or a list of them", |value| {
                layer_list(value).map(|layers| Some(layers).filter(|layers| !layers.is_empty()))
            });
        let patterns =
            self.checked("layers_pattern", Vec::new(), "a string or a list of strings", strings);
        if layers.is_some() && matches!(modules, Some(TargetModules::Pattern(_))) {
            self.fault(
                "layers_to_transform",
                format!("cannot be used when `{key}` is one regular expression"),
            );
        }
        if layers.is_none() && patterns.iter().any(|pattern| !pattern.is_empty()) {
            self.fault("layers_pattern", "has no effect without `layers_to_transform`".to_owned());
        }
        let targets = Targets::new(modules, exclude, layers, patterns).unwrap_or_else(|message| {
            self.fault("layers_pattern", message);
            Targets::default()
        });
        self.with_defaults(targets)
    }

    /// Target modules and `exclude_modules` alone, of a method that PEFT does not narrow to layers.
    pub fn targets_in_every_layer(&mut self) -> Targets {
        let key = self.spelt("targets", "target_modules");
        let (modules, exclude) = (self.modules(key), self.modules("exclude_modules"));
        let targets = Targets::new(modules, exclude, None, Vec::new());
        self.with_defaults(targets.expect("only `layers_pattern` can be wrong"))
    }

    /// The same targets, with the defaults of whoever wrote them where they name no module.
    fn with_defaults(&self, targets: Targets) -> Targets {
        if self.dialect == Dialect::Peft { targets.or_those_of_peft() } else { targets }
    }

    /// Modules by name suffixes or by one regular expression.
    pub fn modules(&mut self, key: &str) -> Option<TargetModules> {
        let value = self.value(key)?;
        let modules = match value {
            Value::String(pattern) => TargetModules::pattern(pattern),
            Value::Array(_) => match strings(value) {
                // To PEFT an empty list names no module, and only null leaves the choice open.
                Some(names) if names.is_empty() && self.dialect == Dialect::Toml => return None,
                Some(names) => Ok(TargetModules::Names(names)),
                None => Err(format!("must be a list of strings, found {value}")),
            },
            _ => Err(format!(
                "must be a list of module names or one regular expression, found {value}"
            )),
        };
        modules.map_err(|message| self.fault(key, message)).ok()
    }

    /// Refuses what was not read: every such key in TOML, those with a value that is not neutral in
    /// PEFT's file. `documented_defaults` are names with values as JSON.
    fn finish(mut self, documented_defaults: &[(&str, &str)]) -> Result<(), ConfigError> {
        for (key, value) in self.fields {
            if self.read.contains(key) {
                continue;
            }
            let is_default = |default: &str| {
                serde_json::from_str::<Value>(default).is_ok_and(|json| json == *value)
            };
            let default = documented_defaults
                .iter()
                .any(|(name, default)| name == key && is_default(default));
            match self.dialect {
                Dialect::Toml => {
                    let known = self.read.join(", ");
                    self.fault(key, format!("is unknown; known are {known}"));
                }
                Dialect::Peft if default || is_neutral(value) => {}
                Dialect::Peft => {
                    self.fault(
                        key,
                        format!("= {value} is not supported; only a neutral value is accepted"),
                    );
                }
            }
        }
        if self.faults.is_empty() { Ok(()) } else { Err(ConfigError { faults: self.faults }) }
    }
}

/// Reads a method's configuration and refuses what it did not ask for.
///
/// # Errors
/// Every fault at once.
pub fn read<C>(
    fields: &Map<String, Value>,
    dialect: Dialect,
    documented_defaults: &[(&str, &str)],
    read: impl FnOnce(&mut Fields) -> C,
) -> Result<C, ConfigError> {
    let mut reader = Fields::new(fields, dialect);
    match dialect {
        Dialect::Toml => reader.skip("method"),
        Dialect::Peft => DESCRIPTIVE.iter().for_each(|key| reader.skip(key)),
    }
    let config = read(&mut reader);
    reader.finish(documented_defaults)?;
    Ok(config)
}

/// Fields of PEFT's file that only describe it. The base model says how its files hold a matrix,
/// and PEFT corrects `fan_in_fan_out` by that. Unsloth leaves marks of its own, which change
/// nothing.
const DESCRIPTIVE: [&str; 11] = [
    "unsloth_fixed",
    "unsloth_version",
    "fan_in_fan_out",
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "auto_mapping",
    "runtime_config",
];

/// A float that PEFT would have written as an integer becomes one again.
pub fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Whether a value says "off": null, false, `{}`, `[]` or `""`.
pub(crate) fn is_neutral(value: &Value) -> bool {
    [Value::Null, json!(false), json!({}), json!([]), json!("")].contains(value)
}

fn positive(value: &Value) -> Option<usize> {
    value.as_u64().filter(|&count| count >= 1).and_then(|count| usize::try_from(count).ok())
}

fn above_zero(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| *number > 0.0 && number.is_finite())
}

pub(crate) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn layer_list(value: &Value) -> Option<Vec<usize>> {
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    match value {
        Value::Array(many) => many.iter().map(index).collect(),
        one => index(one).map(|index| vec![index]),
    }
}
