//! The fields of each built-in method, as our TOML spells them.
//!
//! Each setting is defined beside its method, with its documentation, range and default. The schema
//! and the defaults that a run writes out are made of those definitions. The method's own reader
//! has the last word.

use std::sync::LazyLock;

use ist_peft::fields::setting::{Described, target_settings};
use ist_peft::{Adapter, BuiltinAdapter, MethodInfo};
use schemars::{Schema, json_schema};
use serde::de::Error;
use serde_json::{Map, Value};

/// A built-in method as the configuration sees it.
pub(in super::super) struct MethodFields {
    /// Its name.
    pub(in super::super) name: &'static str,
    info: &'static MethodInfo,
}

/// The built-in methods. The first is the default.
pub(in super::super) static METHODS: LazyLock<Vec<MethodFields>> = LazyLock::new(|| {
    let named =
        |info: &'static MethodInfo| info.names.iter().map(move |name| MethodFields { name, info });
    BuiltinAdapter::methods().into_iter().flat_map(named).collect()
});

impl MethodFields {
    /// Its own settings, then those that choose its modules.
    fn settings(&self) -> impl Iterator<Item = &'static dyn Described> {
        let targets = target_settings(self.info.target_fields);
        self.info.settings.iter().chain(targets).copied()
    }

    /// The given fields and the defaults of the others, in the order of the settings.
    ///
    /// # Errors
    /// A field that is not the method's, and a value that its setting does not take.
    pub(super) fn complete(
        &self,
        mut given: Map<String, Value>,
    ) -> serde_json::Result<Map<String, Value>> {
        let mut fields = Map::new();
        for setting in self.settings() {
            let name = setting.name();
            let value = setting.value(given.shift_remove(name).as_ref());
            let value = value.map_err(|expected| {
                serde_json::Error::custom(format!("`{name}` must be {expected}"))
            })?;
            fields.extend(value.map(|value| (name.to_owned(), value)));
        }
        match given.keys().next() {
            Some(unknown) => Err(serde_json::Error::custom(format!("unknown field `{unknown}`"))),
            None => Ok(fields),
        }
    }

    /// The schema of its fields.
    pub(super) fn schema(&self) -> Schema {
        let property =
            |setting: &'static dyn Described| (setting.name().to_owned(), setting.schema());
        let properties: Map<String, Value> = self.settings().map(property).collect();
        json_schema!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}
