//! The settings of methods, each defined once.
//!
//! A definition serves the reader of our TOML and of PEFT's file, the defaults that a run writes
//! out, and the JSON Schema of a run's configuration.

use std::fmt::Debug;

use serde_json::{Map, Value, json};

use crate::fields::values::{Flag, ValueKind, layer_list, strings};
use crate::site::targets::TargetFields;

/// A setting as programs that know no method see it.
pub trait Described: Debug + Sync {
    /// Its name in our TOML.
    fn name(&self) -> &'static str;
    /// Its JSON Schema, with its documentation and default.
    fn schema(&self) -> Value;
    /// The value that holds where `given` is what a configuration has. `None` where the setting is
    /// left out.
    ///
    /// # Errors
    /// The values it takes, in words.
    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String>;
}

/// A setting with a default.
#[derive(Clone, Copy, Debug)]
pub struct Setting<K: ValueKind> {
    /// Its name in our TOML.
    pub name: &'static str,
    /// Its name in PEFT's file.
    pub peft_name: &'static str,
    /// Its documentation.
    pub about: &'static str,
    /// The values it takes.
    pub kind: K,
    /// Its value where a configuration has none.
    pub default: K::Value,
    /// Its value where PEFT's file has none.
    pub peft_default: K::Value,
}

impl<K: ValueKind> Setting<K>
where
    K::Value: Copy,
{
    /// A setting that our TOML and PEFT's file call the same.
    pub const fn new(name: &'static str, about: &'static str, kind: K, default: K::Value) -> Self {
        Self { name, peft_name: name, about, kind, default, peft_default: default }
    }

    /// The same setting under PEFT's own name for it.
    #[must_use]
    pub const fn called(self, peft_name: &'static str) -> Self {
        Self { peft_name, ..self }
    }

    /// The same setting with PEFT's own default.
    #[must_use]
    pub const fn with_peft_default(self, peft_default: K::Value) -> Self {
        Self { peft_default, ..self }
    }
}

impl<K: ValueKind> Described for Setting<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let mut schema = documented(self.about, self.kind.schema());
        schema["default"] = json!(self.default);
        // The schema's text is compared between versions, and there these stand behind the default.
        if let Some(fields) = schema.as_object_mut() {
            for bound in ["exclusiveMinimum", "exclusiveMaximum"] {
                let bound = fields.shift_remove_entry(bound);
                fields.extend(bound);
            }
        }
        schema
    }

    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String> {
        let Some(given) = given else { return Ok(Some(json!(self.default))) };
        let value = self.kind.read(given).ok_or_else(|| self.kind.expected())?;
        Ok(Some(json!(value)))
    }
}

/// A table of values for modules by name, empty by default.
#[derive(Clone, Copy, Debug)]
pub struct PatternSetting<K> {
    /// Its name, in our TOML and in PEFT's file.
    pub name: &'static str,
    /// Its documentation.
    pub about: &'static str,
    /// The values it takes for a module.
    pub kind: K,
    /// The values in words, behind "must be".
    pub expected: &'static str,
}

impl<K: ValueKind> PatternSetting<K> {
    /// The entries in the table's order, where every value is one of the kind.
    pub(crate) fn read(&self, value: &Value) -> Option<Vec<(String, K::Value)>> {
        let entry =
            |(pattern, value): (&String, &Value)| Some((pattern.clone(), self.kind.read(value)?));
        value.as_object()?.iter().map(entry).collect()
    }
}

impl<K: ValueKind> Described for PatternSetting<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let mut values = self.kind.schema();
        // As the schema has always had it: the numbers of a table have no format.
        if values["type"] == "number" {
            values.as_object_mut().map(|values| values.shift_remove("format"));
        }
        documented(self.about, json!({"type": "object", "additionalProperties": values}))
    }

    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String> {
        let Some(given) = given else { return Ok(None) };
        let mut entries = self.read(given).ok_or_else(|| self.expected.to_owned())?;
        // The first pattern that matches counts, and a configuration's tables are sorted.
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        let table: Map<String, Value> =
            entries.into_iter().map(|(pattern, value)| (pattern, json!(value))).collect();
        Ok(Some(table).filter(|table| !table.is_empty()).map(Value::Object))
    }
}

/// A choice of modules, or none: name suffixes, or one regular expression.
#[derive(Clone, Copy, Debug)]
pub struct NamesSetting {
    /// Its name in our TOML.
    pub name: &'static str,
}

impl Described for NamesSetting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let word = json!({"type": "string", "minLength": 1});
        let list = json!({"type": "array", "items": word, "minItems": 1});
        documented("A list of strings, or one.", json!({"anyOf": [list, word]}))
    }

    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String> {
        let given = given.filter(|given| !given.is_null());
        if given.is_some_and(|given| strings(given).is_none()) {
            return Err("a string or a list of strings".to_owned());
        }
        Ok(given.cloned())
    }
}

/// A choice of layers by index, or none.
#[derive(Clone, Copy, Debug)]
pub struct LayersSetting {
    /// Its name, in our TOML and in PEFT's file.
    pub name: &'static str,
}

impl Described for LayersSetting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let index = json!({"type": "integer", "format": "uint", "minimum": 0});
        let list = json!({"type": "array", "items": index, "minItems": 1});
        documented("A list of layer indices, or one.", json!({"anyOf": [list, index]}))
    }

    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String> {
        let given = given.filter(|given| !given.is_null());
        if given.is_some_and(|given| layer_list(given).is_none()) {
            return Err("a layer index or a list of them".to_owned());
        }
        Ok(given.cloned())
    }
}

/// The modules to adapt: name suffixes, or one regular expression. By default the method's usual
/// ones.
pub(crate) const TARGETS: NamesSetting = NamesSetting { name: "targets" };
/// Modules to leave out: name suffixes, or one regular expression.
pub(crate) const EXCLUDE_MODULES: NamesSetting = NamesSetting { name: "exclude_modules" };
/// The layers to adapt, counted from 0. By default all.
pub(crate) const LAYERS_TO_TRANSFORM: LayersSetting = LayersSetting { name: "layers_to_transform" };
/// Where the layer's index stands in a module's path.
pub(crate) const LAYERS_PATTERN: NamesSetting = NamesSetting { name: "layers_pattern" };

/// The settings that choose a method's modules.
pub fn target_settings(which: TargetFields) -> &'static [&'static dyn Described] {
    match which {
        TargetFields::WithLayers => {
            &[&LAYERS_TO_TRANSFORM, &LAYERS_PATTERN, &TARGETS, &EXCLUDE_MODULES]
        }
        TargetFields::Modules => &[&TARGETS, &EXCLUDE_MODULES],
        TargetFields::None => &[],
    }
}

/// A schema behind its documentation.
pub(crate) fn documented(about: &str, schema: Value) -> Value {
    let mut documented = Map::from_iter([("description".to_owned(), json!(about))]);
    if let Value::Object(schema) = schema {
        documented.extend(schema);
    }
    Value::Object(documented)
}

/// A flag that is off by default.
pub const fn off(name: &'static str, about: &'static str) -> Setting<Flag> {
    Setting::new(name, about, Flag, false)
}
