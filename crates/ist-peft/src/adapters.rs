//! The adapters of a model: one of PEFT's folders each, with a method over its own modules.
//!
//! Most models carry one. Several may sit side by side, such as LoRA on attention and a parallel adapter on the MLP, as long
//! as no module carries two. `modules_to_save` names modules that train whole beside a method and are kept in its file.

use ist_core::untrusted::cut_value;
use serde_json::{Map, Value, json};

use crate::ConfigError;
use crate::adapter::Adapter;
use crate::attach::{AttachError, matching_sites};
use crate::fields::{FieldFault, is_neutral, strings};
use crate::method::Dialect;
use crate::site::{Roles, Site};

/// PEFT's field for modules that train whole.
pub const MODULES_TO_SAVE: &str = "modules_to_save";
/// The name of an adapter that has none of its own, as in PEFT.
pub const DEFAULT_NAME: &str = "default";

/// One adapter.
#[derive(Clone, Debug)]
pub struct Part<A: Adapter> {
    /// Its name, and that of its folder where there are several.
    pub name: String,
    config: A::Config,
    modules_to_save: Vec<String>,
    /// What trains the modules to save: the method for whole weights, on just these.
    whole: Option<A::Config>,
}

/// Every adapter of a model.
#[derive(Clone, Debug)]
pub struct Adapters<A: Adapter> {
    parts: Vec<Part<A>>,
}

impl<A: Adapter> Part<A> {
    /// An adapter of that configuration alone.
    pub fn new(name: &str, config: A::Config) -> Self {
        Self { name: name.to_owned(), config, modules_to_save: Vec::new(), whole: None }
    }

    /// Reads the fields of one adapter; `None` when they name a method that is not of the set.
    pub fn parse(
        name: &str,
        fields: &Map<String, Value>,
        dialect: Dialect,
    ) -> Option<Result<Self, ConfigError>> {
        let mut fields = fields.clone();
        let saved = fields.shift_remove(MODULES_TO_SAVE).filter(|value| !is_neutral(value));
        let config = A::parse(&fields, dialect)?;
        let whole = whole::<A>(saved.as_ref());
        Some(match (config, whole) {
            (Ok(config), Ok((modules_to_save, whole))) => {
                Ok(Self { name: name.to_owned(), config, modules_to_save, whole })
            }
            (config, whole) => {
                let faults = config.err().into_iter().flat_map(|error| error.faults);
                Err(ConfigError { faults: faults.chain(whole.err()).collect() })
            }
        })
    }

    /// The method's configuration.
    pub fn config(&self) -> &A::Config {
        &self.config
    }

    /// The configurations of its modules: the method's and, with modules to save, that of whole weights.
    pub fn configs(&self) -> impl Iterator<Item = &A::Config> {
        std::iter::once(&self.config).chain(&self.whole)
    }

    fn configs_mut(&mut self) -> impl Iterator<Item = &mut A::Config> {
        std::iter::once(&mut self.config).chain(&mut self.whole)
    }

    /// Takes over from `given` what only training knows and the folder this part was read from does not say.
    ///
    /// # Errors
    /// Fields of `given` that have no effect on an adapter that is loaded.
    pub fn train_as(&mut self, given: &Self) -> Result<(), ConfigError> {
        A::train_as(&mut self.config, &given.config)
    }

    /// The fields of PEFT's `adapter_config.json`.
    pub fn peft_fields(&self) -> Map<String, Value> {
        let mut fields = A::peft_fields(&self.config);
        let saved =
            if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) };
        fields.insert(MODULES_TO_SAVE.to_owned(), saved);
        fields
    }

    /// The modules of each of its configurations, after filling in the usual targets.
    ///
    /// # Errors
    /// Targets that do not fit the model, and a module that the method adapts and that is to be saved as well.
    pub fn sites(
        &mut self,
        every: &[Site],
        roles: &Roles,
        num_layers: usize,
    ) -> Result<Vec<Vec<Site>>, AttachError> {
        self.configs_mut()
            .map(|config| matching_sites::<A>(every, roles, num_layers, config))
            .collect()
    }
}

/// The names of the modules to save and the configuration that trains them whole.
fn whole<A: Adapter>(
    saved: Option<&Value>,
) -> Result<(Vec<String>, Option<A::Config>), FieldFault> {
    let fault = |message: String| FieldFault { field: MODULES_TO_SAVE.to_owned(), message };
    let Some(value) = saved else { return Ok((Vec::new(), None)) };
    let Some(names) = strings(value) else {
        return Err(fault(format!("must be a list of strings, found {}", cut_value(value))));
    };
    if names.is_empty() {
        return Ok((names, None));
    }
    // PEFT means every module whose path ends with a name, whether or not a dot stands before it.
    let ends: Vec<_> = names.iter().map(|name| fancy_regex::escape(name)).collect();
    let fields = json!({"method": "full", "targets": format!(".*(?:{})", ends.join("|"))});
    match A::parse(fields.as_object().expect("an object was written"), Dialect::Toml) {
        Some(Ok(config)) => Ok((names, Some(config))),
        Some(Err(error)) => Err(fault(format!("cannot be trained whole: {error}"))),
        None => Err(fault(
            "is not supported: this program has no method that trains whole modules".to_owned(),
        )),
    }
}

impl<A: Adapter> Adapters<A> {
    /// One adapter.
    pub fn one(config: A::Config) -> Self {
        Self { parts: vec![Part::new(DEFAULT_NAME, config)] }
    }

    /// Several adapters. Their names differ.
    pub fn new(parts: Vec<Part<A>>) -> Self {
        Self { parts }
    }

    /// The adapters in order.
    pub fn parts(&self) -> &[Part<A>] {
        &self.parts
    }

    /// The configurations of all adapters in order.
    pub fn configs(&self) -> impl Iterator<Item = &A::Config> {
        self.parts.iter().flat_map(Part::configs)
    }

    /// The modules of each configuration, after filling in the usual targets.
    ///
    /// # Errors
    /// Targets that do not fit the model, and a module that would carry two adapters.
    pub fn sites(
        &mut self,
        every: &[Site],
        roles: &Roles,
        num_layers: usize,
    ) -> Result<Vec<Vec<Site>>, AttachError> {
        let mut taken: Vec<(String, String)> = Vec::new();
        let mut all = Vec::new();
        for part in &mut self.parts {
            for sites in part.sites(every, roles, num_layers)? {
                for site in &sites {
                    if let Some((path, first)) = taken.iter().find(|(path, _)| *path == site.path) {
                        let (path, first, second) =
                            (path.clone(), first.clone(), part.name.clone());
                        return Err(AttachError::Twice { path, first, second });
                    }
                    taken.push((site.path.clone(), part.name.clone()));
                }
                all.push(sites);
            }
        }
        Ok(all)
    }
}
