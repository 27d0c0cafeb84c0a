//! The adapters of a model: one of PEFT's folders each, with a method over its own modules.
//!
//! Most models carry one. Several may sit side by side, such as LoRA on attention and a parallel
//! adapter on the MLP, as long as no module carries two. `modules_to_save` names modules that train
//! whole beside a method and are kept in its file.

use ist_files::untrusted::cut_value;
use serde_json::{Map, Value, json};

use crate::fields::{ConfigError, Dialect, FieldFault, is_neutral, strings};
use crate::method::Configured;
use crate::model::attach::{AttachError, matching_sites};
use crate::model::carried::Carried;
use crate::set::Adapter;
use crate::site::{Outline, Site, SiteKind};

/// PEFT's field for modules that train whole.
pub const MODULES_TO_SAVE: &str = "modules_to_save";
/// PEFT's field for biases of the base model that trained beside the method.
const BIAS: &str = "bias";
/// PEFT's field for rows of tables that trained beside the method.
const TOKENS: &str = "trainable_token_indices";
/// PEFT's field for a head and an embedding that stay one matrix while an adapter changes them.
const WEIGHT_TYING: &str = "ensure_weight_tying";
/// The name of an adapter that has none of its own, as in PEFT.
pub const DEFAULT_NAME: &str = "default";

/// One adapter.
#[derive(Clone, Debug)]
pub struct Part<A: Adapter> {
    /// Its name, and that of its folder where there are several.
    pub name: String,
    config: Configured<A::Config>,
    modules_to_save: Vec<String>,
    /// What trains the modules to save: the method for whole weights, on just these.
    whole: Option<Configured<A::Config>>,
    beside: Beside,
}

/// What PEFT's file says of the base model, beside the method.
#[derive(Clone, Debug, Default)]
struct Beside {
    /// Fields that are written as they were read.
    fields: Map<String, Value>,
    /// Whether head and embedding change together where they are one matrix.
    weight_tying: bool,
    /// The tensors of the base model that the file replaced.
    carried: Vec<Carried>,
    /// Whether the file adapts modules that this program has no part of, such as a vision tower.
    partial: bool,
}

/// Every adapter of a model.
#[derive(Clone, Debug)]
pub struct Adapters<A: Adapter> {
    parts: Vec<Part<A>>,
    notes: Vec<String>,
}

impl<A: Adapter> Part<A> {
    /// An adapter of that configuration alone.
    pub fn new(name: &str, config: Configured<A::Config>) -> Self {
        Self {
            name: name.to_owned(),
            config,
            modules_to_save: Vec::new(),
            whole: None,
            beside: Beside::default(),
        }
    }

    /// Reads the fields of one adapter; `None` when they name a method that is not of the set.
    pub fn parse(
        name: &str,
        fields: &Map<String, Value>,
        dialect: Dialect,
    ) -> Option<Result<Self, ConfigError>> {
        let mut fields = fields.clone();
        let saved = fields.shift_remove(MODULES_TO_SAVE).filter(|value| !is_neutral(value));
        let beside = match dialect {
            Dialect::Peft => Beside::take(&mut fields),
            Dialect::Toml => Ok(Beside::default()),
        };
        let config = A::parse(&fields, dialect)?;
        let whole = whole::<A>(saved.as_ref());
        Some(match (config, whole, beside) {
            (Ok(config), Ok(whole), Ok(beside)) => Ok(Self {
                name: name.to_owned(),
                config,
                modules_to_save: whole.names,
                whole: whole.config,
                beside,
            }),
            (config, whole, beside) => {
                let faults = config.err().into_iter().flat_map(|error| error.faults);
                let faults = faults.chain(whole.err()).chain(beside.err().into_iter().flatten());
                Err(ConfigError { faults: faults.collect() })
            }
        })
    }

    /// The method's configuration.
    pub fn config(&self) -> &Configured<A::Config> {
        &self.config
    }

    /// The configurations of its modules: the method's and, with modules to save, that of whole
    /// weights.
    pub fn configs(&self) -> impl Iterator<Item = &Configured<A::Config>> {
        std::iter::once(&self.config).chain(&self.whole)
    }

    fn configs_mut(&mut self) -> impl Iterator<Item = &mut Configured<A::Config>> {
        std::iter::once(&mut self.config).chain(&mut self.whole)
    }

    /// Takes over from `given` what only training knows and the folder this part was read from does
    /// not say.
    ///
    /// # Errors
    /// Fields of `given` that have no effect on an adapter that is loaded.
    pub fn train_as(&mut self, given: &Self) -> Result<(), ConfigError> {
        self.config.train_as(&given.config)
    }

    /// The fields of PEFT's `adapter_config.json`.
    pub fn peft_fields(&self) -> Map<String, Value> {
        let mut fields = self.config.peft_fields();
        let saved =
            if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) };
        fields.insert(MODULES_TO_SAVE.to_owned(), saved);
        fields.extend(self.beside.fields.clone());
        fields
    }

    /// The tensors of the base model that its file replaced.
    pub fn carried(&self) -> &[Carried] {
        &self.beside.carried
    }

    pub(crate) fn set_carried(&mut self, carried: Vec<Carried>) {
        self.beside.carried = carried;
    }

    /// Whether its file also adapts modules that this program has no part of, such as a vision
    /// tower.
    pub fn is_partial(&self) -> bool {
        self.beside.partial
    }

    pub(crate) fn set_partial(&mut self, partial: bool) {
        self.beside.partial = partial;
    }

    /// PEFT's `trainable_token_indices`.
    pub(crate) fn tokens(&self) -> Option<&Value> {
        self.beside.fields.get(TOKENS).filter(|value| !is_neutral(value))
    }

    /// The names of `modules_to_save` that no module's path ends with.
    pub fn unknown_modules_to_save(&self, every: &[Site]) -> Vec<&str> {
        let known = |name: &&String| every.iter().any(|site| site.path.ends_with(name.as_str()));
        self.modules_to_save.iter().filter(|name| !known(name)).map(String::as_str).collect()
    }

    /// The modules of each of its configurations, after filling in the usual targets.
    ///
    /// # Errors
    /// Targets that do not fit the model, and a module that the method adapts and that is to be
    /// saved as well.
    pub fn sites(
        &mut self,
        every: &[Site],
        outline: &Outline,
    ) -> Result<Vec<Vec<Site>>, AttachError> {
        let with_head: Vec<Site> = every.iter().chain(&outline.shared_head).cloned().collect();
        self.keep_together(&with_head, outline);
        self.configs_mut().map(|config| matching_sites::<A>(&with_head, outline, config)).collect()
    }

    /// With PEFT's `ensure_weight_tying`, names head and embedding both where either is named and
    /// they are one matrix. PEFT looks at modules to save first, and at targets only where those
    /// are neither.
    fn keep_together(&mut self, every: &[Site], outline: &Outline) {
        let Some(head) = outline.shared_head.as_ref().filter(|_| self.beside.weight_tying) else {
            return;
        };
        let embeddings = every.iter().filter(|site| site.kind == SiteKind::Embedding);
        let pair: Vec<&Site> = embeddings.chain([head]).collect();
        let names_one = |config: &&mut Configured<A::Config>| {
            pair.iter().any(|site| config.targets.matches(site))
        };
        let whole = self.whole.as_mut().filter(|config| names_one(config));
        let saves_whole = whole.is_some();
        let Some(config) =
            whole.or_else(|| Some(&mut self.config).filter(|config| names_one(config)))
        else {
            return;
        };
        for site in pair {
            if config.targets.matches(site) {
                continue;
            }
            config.targets.include(&site.path);
            if saves_whole {
                self.modules_to_save.push(site.path.clone());
            }
        }
    }
}

impl Beside {
    /// Takes the fields out that say something of the base model.
    fn take(fields: &mut Map<String, Value>) -> Result<Self, Vec<FieldFault>> {
        let mut beside = Self::default();
        let mut faults = Vec::new();
        let mut fault = |field: &str, expected: &str, found: &Value| {
            let message = format!("must be {expected}, found {found}");
            faults.push(FieldFault { field: field.to_owned(), message });
        };
        if let Some(bias) = fields.shift_remove(BIAS) {
            let known = |bias: &str| ["none", "all"].contains(&bias) || bias.ends_with("_only");
            if !bias.is_null() && !bias.as_str().is_some_and(known) {
                fault(BIAS, "\"none\", \"all\" or \"lora_only\"", &bias);
            }
            beside.fields.insert(BIAS.to_owned(), bias);
        }
        if let Some(tokens) = fields.shift_remove(TOKENS) {
            if !is_neutral(&tokens) && !is_token_indices(&tokens) {
                fault(TOKENS, "a list of token ids, or a table of such lists by module", &tokens);
            }
            beside.fields.insert(TOKENS.to_owned(), tokens);
        }
        // Not written again: from here on head and embedding are two, and both are named.
        if let Some(tying) = fields.shift_remove(WEIGHT_TYING) {
            if !tying.is_boolean() && !tying.is_null() {
                fault(WEIGHT_TYING, "true or false", &tying);
            }
            beside.weight_tying = tying == Value::Bool(true);
        }
        if faults.is_empty() { Ok(beside) } else { Err(faults) }
    }
}

fn is_token_indices(value: &Value) -> bool {
    let is_list =
        |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_u64));
    is_list(value) || value.as_object().is_some_and(|table| table.values().all(is_list))
}

/// The modules to save.
struct WholeModules<C> {
    /// Their names.
    names: Vec<String>,
    /// The configuration that trains them, where there are any.
    config: Option<Configured<C>>,
}

/// Reads the modules to save.
fn whole<A: Adapter>(saved: Option<&Value>) -> Result<WholeModules<A::Config>, FieldFault> {
    let fault = |message: String| FieldFault { field: MODULES_TO_SAVE.to_owned(), message };
    let none = WholeModules { names: Vec::new(), config: None };
    let Some(value) = saved else { return Ok(none) };
    let Some(names) = strings(value) else {
        return Err(fault(format!("must be a list of strings, found {}", cut_value(value))));
    };
    if names.is_empty() {
        return Ok(none);
    }
    // PEFT means every module whose path ends with a name, whether or not a dot stands before it.
    let ends: Vec<_> = names.iter().map(|name| fancy_regex::escape(name)).collect();
    let fields = json!({"method": "full", "targets": format!(".*(?:{})", ends.join("|"))});
    match A::parse(fields.as_object().expect("an object was written"), Dialect::Toml) {
        Some(Ok(config)) => Ok(WholeModules { names, config: Some(config) }),
        Some(Err(error)) => Err(fault(format!("cannot be trained whole: {error}"))),
        None => Err(fault(
            "is not supported: this program has no method that trains whole modules".to_owned(),
        )),
    }
}

impl<A: Adapter> Adapters<A> {
    /// One adapter.
    pub fn one(config: Configured<A::Config>) -> Self {
        Self::new(vec![Part::new(DEFAULT_NAME, config)])
    }

    /// Several adapters. Their names differ.
    pub fn new(parts: Vec<Part<A>>) -> Self {
        Self { parts, notes: Vec::new() }
    }

    /// The adapters in order.
    pub fn parts(&self) -> &[Part<A>] {
        &self.parts
    }

    pub(crate) fn parts_mut(&mut self) -> &mut [Part<A>] {
        &mut self.parts
    }

    /// What whoever loads these adapters should know of their files: sentences, each naming its
    /// file.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        self.notes.extend(notes);
    }

    /// The configurations of all adapters in order.
    pub fn configs(&self) -> impl Iterator<Item = &Configured<A::Config>> {
        self.parts.iter().flat_map(Part::configs)
    }

    /// The modules of each configuration, after filling in the usual targets. A head that shares
    /// the embedding's table is among them where it is meant; it has to be given a table of its own
    /// before an adapter can sit on it.
    ///
    /// # Errors
    /// Targets that do not fit the model, and a module that would carry two adapters.
    pub fn sites(
        &mut self,
        every: &[Site],
        outline: &Outline,
    ) -> Result<Vec<Vec<Site>>, AttachError> {
        let mut taken: Vec<(String, String)> = Vec::new();
        let mut all = Vec::new();
        for part in &mut self.parts {
            for sites in part.sites(every, outline)? {
                for site in &sites {
                    if let Some((path, first)) = taken.iter().find(|(path, _)| *path == site.path) {
                        let path = path.clone();
                        let first = first.clone();
                        let second = part.name.clone();
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
