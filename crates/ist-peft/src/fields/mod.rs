//! Reading a method's fields from JSON, collecting every fault before giving up.
//!
//! Our TOML and PEFT's `adapter_config.json` go through the same reader. They differ in what
//! happens to a field nobody asked for: in TOML it is a fault, in PEFT's file it passes when its
//! value is neutral, because PEFT writes some forty fields of which most say "off".

pub mod setting;
pub mod values;

use ist_files::untrusted::{cut, cut_message};
use serde_json::{Map, Value, json};

use crate::fields::setting::{
    EXCLUDE_MODULES, LAYERS_PATTERN, LAYERS_TO_TRANSFORM, PatternSetting, Setting, TARGETS,
};
pub(crate) use crate::fields::values::strings;
use crate::fields::values::{Flag, ValueKind, layer_list};
use crate::site::targets::{Patterns, TargetFields, TargetModules, Targets};

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
        let read: &[&str] = match dialect {
            Dialect::Toml => &["method"],
            Dialect::Peft => &DESCRIPTIVE,
        };
        let read = read.iter().map(ToString::to_string).collect();
        Self { fields, dialect, read, faults: Vec::new() }
    }

    /// Where the fields come from.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What our TOML and PEFT's file spell differently, such as the name of a field.
    pub fn spelt<T>(&self, toml: T, peft: T) -> T {
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

    /// The value of a setting, or its default.
    pub fn get<K: ValueKind>(&mut self, setting: &Setting<K>) -> K::Value {
        let default = self.spelt(&setting.default, &setting.peft_default).clone();
        let key = self.spelt(setting.name, setting.peft_name);
        self.checked(key, default, &setting.kind.expected(), |value| setting.kind.read(value))
    }

    /// A boolean.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.checked(key, default, &Flag.expected(), |value| Flag.read(value))
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

    /// A table of values for modules by name.
    pub fn patterns<K: ValueKind>(&mut self, setting: &PatternSetting<K>) -> Patterns<K::Value> {
        let key = setting.name;
        let Some(value) = self.value(key) else { return Patterns::default() };
        let Some(entries) = setting.read(value) else {
            self.fault(key, format!("must be {}, found {value}", setting.expected));
            return Patterns::default();
        };
        Patterns::new(entries).unwrap_or_else(|message| {
            self.fault(key, message);
            Patterns::default()
        })
    }

    /// The fields that choose a method's modules: `targets`, in PEFT's file `target_modules`, with
    /// `exclude_modules`, `layers_to_transform` and `layers_pattern`.
    pub(crate) fn targets(&mut self, which: TargetFields) -> Targets {
        let targets = match which {
            TargetFields::WithLayers => self.targets_in_layers(),
            TargetFields::Modules => self.targets_in_every_layer(),
            TargetFields::None => return Targets::default(),
        };
        if self.dialect == Dialect::Peft { targets.or_those_of_peft() } else { targets }
    }

    fn targets_in_layers(&mut self) -> Targets {
        let key = self.spelt(TARGETS.name, "target_modules");
        let modules = self.modules(key);
        let exclude = self.modules(EXCLUDE_MODULES.name);
        let layers = self.checked(
            LAYERS_TO_TRANSFORM.name,
            None,
            "a layer index or a list of them",
            |value| {
                layer_list(value).map(|layers| Some(layers).filter(|layers| !layers.is_empty()))
            },
        );
        let patterns =
            self.checked(LAYERS_PATTERN.name, Vec::new(), "a string or a list of strings", strings);
        if layers.is_some() && matches!(modules, Some(TargetModules::Pattern(_))) {
            self.fault(
                LAYERS_TO_TRANSFORM.name,
                format!("cannot be used when `{key}` is one regular expression"),
            );
        }
        if layers.is_none() && patterns.iter().any(|pattern| !pattern.is_empty()) {
            self.fault(
                LAYERS_PATTERN.name,
                "has no effect without `layers_to_transform`".to_owned(),
            );
        }
        Targets::new(modules, exclude, layers, patterns).unwrap_or_else(|message| {
            self.fault(LAYERS_PATTERN.name, message);
            Targets::default()
        })
    }

    fn targets_in_every_layer(&mut self) -> Targets {
        let key = self.spelt(TARGETS.name, "target_modules");
        let modules = self.modules(key);
        let exclude = self.modules(EXCLUDE_MODULES.name);
        Targets::new(modules, exclude, None, Vec::new())
            .expect("only `layers_pattern` can be wrong")
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
    pub(crate) fn finish(
        mut self,
        documented_defaults: &[(&str, &str)],
    ) -> Result<(), ConfigError> {
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
