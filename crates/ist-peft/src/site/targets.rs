//! Which modules an adapter sits on, by PEFT's rules.
//!
//! A list names modules by suffix, a string is one regular expression over the whole path,
//! `all-linear` is every linear layer but the output head. `layers_to_transform` keeps only those
//! layers of a list's matches; a module that the list names by its whole path stays.

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use crate::site::{Site, SiteKind};

/// PEFT's word for every linear layer but the head.
pub const ALL_LINEAR: &str = "all-linear";

/// A choice of modules by name.
#[derive(Clone, Debug)]
pub enum TargetModules {
    /// Modules whose path is one of these or ends in `.` and one of these.
    Names(Vec<String>),
    /// Modules whose whole path matches; the source is kept for writing and comparing.
    Pattern(Pattern),
    /// Every linear layer but the output head.
    AllLinear,
}

/// A regular expression with its source.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl PartialEq for TargetModules {
    /// A list is a set, as in PEFT, so its order does not count.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Names(a), Self::Names(b)) => sorted(a) == sorted(b),
            (Self::Pattern(a), Self::Pattern(b)) => a == b,
            (Self::AllLinear, Self::AllLinear) => true,
            _ => false,
        }
    }
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    names.dedup();
    names
}

impl TargetModules {
    /// One regular expression over whole paths, or `all-linear`.
    pub fn pattern(source: &str) -> Result<Self, String> {
        if source == ALL_LINEAR {
            return Ok(Self::AllLinear);
        }
        let regex = compile(&format!("^(?:{source})$"), source)?;
        Ok(Self::Pattern(Pattern { source: source.to_owned(), regex }))
    }

    /// Whether the module is one of them.
    pub fn matches(&self, site: &Site) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| names_site(name, site)),
            Self::Pattern(pattern) => pattern.regex.is_match(&site.path).unwrap_or(false),
            Self::AllLinear => site.kind == SiteKind::Linear && !site.path.ends_with("lm_head"),
        }
    }

    /// As PEFT's file spells them.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Names(names) => json!(names),
            Self::Pattern(pattern) => json!(pattern.source),
            Self::AllLinear => json!(ALL_LINEAR),
        }
    }
}

/// Whether `name` is the site's path or a suffix of it after a dot.
pub(crate) fn names_site(name: &str, site: &Site) -> bool {
    site.path == name || site.path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// The fields of a configuration that choose the modules of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFields {
    /// Modules by name, and some layers alone: `layers_to_transform` and `layers_pattern`.
    WithLayers,
    /// Modules by name. PEFT's configuration of such a method knows no layers.
    Modules,
    /// None: the method sits on every module that it fits.
    None,
}

/// Target modules and what narrows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    modules: Option<TargetModules>,
    exclude: Option<TargetModules>,
    layers: Option<Vec<usize>>,
    layers_pattern: Vec<String>,
    /// Whether files hold the modules' matrices `[in, out]`. The model says so.
    fan_in_fan_out: bool,
    /// Whether PEFT's defaults are meant where no module is named.
    peft_defaults: bool,
}

impl Targets {
    /// Targets from PEFT's `target_modules`, `exclude_modules`, `layers_to_transform` and
    /// `layers_pattern`. Without modules the architecture's usual ones are meant.
    pub fn new(
        modules: Option<TargetModules>,
        exclude: Option<TargetModules>,
        layers: Option<Vec<usize>>,
        layers_pattern: Vec<String>,
    ) -> Result<Self, String> {
        // An empty name means any list of layers, as no name does.
        let layers_pattern: Vec<String> =
            layers_pattern.into_iter().filter(|pattern| !pattern.is_empty()).collect();
        for pattern in &layers_pattern {
            compile(pattern, pattern)?;
        }
        Ok(Self {
            modules,
            exclude,
            layers,
            layers_pattern,
            fan_in_fan_out: false,
            peft_defaults: false,
        })
    }

    /// The same targets, with PEFT's own choice for the architecture where they name no module.
    #[must_use]
    pub(crate) fn or_those_of_peft(self) -> Self {
        Self { peft_defaults: self.modules.is_none(), ..self }
    }

    /// Whether no module is named and PEFT's own choice for the architecture is meant.
    pub(crate) fn leaves_the_choice_to_peft(&self) -> bool {
        self.peft_defaults
    }

    /// Adds the module at `path`, whatever else is named.
    pub(crate) fn include(&mut self, path: &str) {
        match &mut self.modules {
            Some(TargetModules::Names(names)) => names.push(path.to_owned()),
            Some(TargetModules::Pattern(pattern)) => {
                let source = format!("(?:{})|{}", pattern.source, fancy_regex::escape(path));
                self.modules = TargetModules::pattern(&source).ok();
            }
            // `all-linear` cannot name one more module, and no name at all is filled in before.
            Some(TargetModules::AllLinear) | None => {}
        }
    }

    /// The names of a list; `None` where one regular expression or nothing is given.
    pub fn names(&self) -> Option<&[String]> {
        match &self.modules {
            Some(TargetModules::Names(names)) => Some(names),
            _ => None,
        }
    }

    /// PEFT's `fan_in_fan_out`: whether the base model's files hold the modules' matrices `[in,
    /// out]`, as GPT-2's.
    pub fn fan_in_fan_out(&self) -> bool {
        self.fan_in_fan_out
    }

    /// Takes over from the modules that are meant how files hold them.
    pub(crate) fn settle(&mut self, sites: &[Site]) {
        self.fan_in_fan_out = sites.iter().any(|site| site.fan_in_fan_out);
    }

    /// Names modules where none is named.
    pub fn default_to(&mut self, names: &[&str]) {
        self.modules.get_or_insert_with(|| {
            TargetModules::Names(names.iter().map(ToString::to_string).collect())
        });
        self.peft_defaults = false;
    }

    /// Whether an adapter sits on `site`.
    pub fn matches(&self, site: &Site) -> bool {
        let chosen = self.modules.as_ref().is_some_and(|modules| modules.matches(site));
        let excluded = self.exclude.as_ref().is_some_and(|modules| modules.matches(site));
        chosen && !excluded && (self.names_whole_path(site) || self.layer_matches(site))
    }

    /// The names of a list that no module of the model has. PEFT passes over them; who wrote the
    /// list may have meant another.
    pub fn unknown_names(&self, every: &[Site]) -> Vec<&str> {
        let Some(TargetModules::Names(names)) = &self.modules else { return Vec::new() };
        let known = |name: &String| every.iter().any(|site| names_site(name, site));
        names.iter().filter(|name| !known(name)).map(String::as_str).collect()
    }

    /// The layers that `layers_to_transform` names and the model lacks.
    pub fn layers_beyond(&self, num_layers: usize) -> Vec<usize> {
        self.layers.iter().flatten().copied().filter(|&layer| layer >= num_layers).collect()
    }

    /// A module named by its whole path is adapted whatever its layer.
    fn names_whole_path(&self, site: &Site) -> bool {
        matches!(&self.modules, Some(TargetModules::Names(names)) if names.contains(&site.path))
    }

    fn layer_matches(&self, site: &Site) -> bool {
        let Some(layers) = &self.layers else { return true };
        let found = if self.layers_pattern.is_empty() {
            layer_index(r"^.*\.[^.]*\.(\d+)\.", &site.path)
        } else {
            self.layers_pattern
                .iter()
                .find_map(|name| layer_index(&format!(r"^.*\.{name}\.(\d+)\."), &site.path))
        };
        found.is_some_and(|layer| layers.contains(&layer))
    }

    /// What the targets ask for, in words.
    pub fn describe(&self) -> String {
        self.fields(TargetFields::WithLayers)
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| format!("{k} {v}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Those of its fields that PEFT's `adapter_config.json` has for the method.
    pub fn fields(&self, which: TargetFields) -> Map<String, Value> {
        let modules = |modules: &Option<TargetModules>| {
            modules.as_ref().map_or(Value::Null, TargetModules::to_json)
        };
        let mut fields = Map::new();
        if which == TargetFields::None {
            return fields;
        }
        fields.insert("target_modules".to_owned(), modules(&self.modules));
        fields.insert("exclude_modules".to_owned(), modules(&self.exclude));
        if which == TargetFields::WithLayers {
            let layers = self.layers.as_ref().map_or(Value::Null, |layers| json!(layers));
            let patterns = Some(&self.layers_pattern).filter(|patterns| !patterns.is_empty());
            let patterns = patterns.map_or(Value::Null, |patterns| json!(patterns));
            fields.insert("layers_to_transform".to_owned(), layers);
            fields.insert("layers_pattern".to_owned(), patterns);
        }
        fields
    }
}

fn layer_index(pattern: &str, path: &str) -> Option<usize> {
    Regex::new(pattern).ok()?.captures(path).ok()??.get(1)?.as_str().parse().ok()
}

fn compile(pattern: &str, shown: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("\"{shown}\" is no regular expression: {error}"))
}

/// Values for modules by name: PEFT's `rank_pattern` and `alpha_pattern`. The first pattern that
/// matches counts.
#[derive(Clone, Debug)]
pub struct Patterns<T>(Vec<(String, Regex, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> PartialEq for Patterns<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| a.0 == b.0 && a.2 == b.2)
    }
}

impl<T: Clone> Patterns<T> {
    /// Patterns in order. Each is a regular expression over the end of a path, after a dot or from
    /// its start.
    pub fn new(entries: Vec<(String, T)>) -> Result<Self, String> {
        let compiled = entries.into_iter().map(|(source, value)| {
            let regex = compile(&format!(r"^(?:.*\.)?(?:{source})$"), &source)?;
            Ok((source, regex, value))
        });
        Ok(Self(compiled.collect::<Result<_, String>>()?))
    }

    /// The value for the module at `path`.
    pub fn get(&self, path: &str) -> Option<T> {
        self.0
            .iter()
            .find(|(_, regex, _)| regex.is_match(path).unwrap_or(false))
            .map(|(_, _, value)| value.clone())
    }

    /// The patterns that no module of `sites` matches.
    pub fn unmatched(&self, sites: &[Site]) -> Vec<&str> {
        let matches =
            |regex: &Regex| sites.iter().any(|site| regex.is_match(&site.path).unwrap_or(false));
        self.0
            .iter()
            .filter(|(_, regex, _)| !matches(regex))
            .map(|(source, _, _)| source.as_str())
            .collect()
    }

    /// The table as JSON.
    pub fn to_json(&self, value: impl Fn(&T) -> Value) -> Value {
        Value::Object(self.0.iter().map(|(source, _, v)| (source.clone(), value(v))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> TargetModules {
        TargetModules::Names(names.iter().map(ToString::to_string).collect())
    }

    fn site(path: &str) -> Site {
        Site::linear(path, None, 2, 2)
    }

    #[test]
    fn names_match_whole_path_parts_only() {
        let targets =
            Targets::new(Some(names(&["q_proj", "mlp.up_proj"])), None, None, Vec::new()).unwrap();
        assert!(targets.matches(&site("model.layers.0.self_attn.q_proj")));
        assert!(targets.matches(&site("model.layers.0.mlp.up_proj")));
        assert!(!targets.matches(&site("model.layers.0.self_attn.xq_proj")));
        assert!(!targets.matches(&site("model.layers.0.other.up_proj")));
    }

    #[test]
    fn a_pattern_must_match_the_whole_path() {
        let targets = |source| {
            Targets::new(Some(TargetModules::pattern(source).unwrap()), None, None, Vec::new())
                .unwrap()
        };
        assert!(targets(r".*\.(q|v)_proj").matches(&site("model.layers.0.self_attn.q_proj")));
        assert!(!targets(r"(q|v)_proj").matches(&site("model.layers.0.self_attn.q_proj")));
    }

    #[test]
    fn layers_to_transform_narrows_a_list() {
        let targets =
            Targets::new(Some(names(&["q_proj"])), None, Some(vec![1, 12]), Vec::new()).unwrap();
        assert!(targets.matches(&site("model.layers.12.self_attn.q_proj")));
        assert!(!targets.matches(&site("model.layers.2.self_attn.q_proj")));
        assert!(!targets.matches(&site("attention.q_proj")));
        let other =
            Targets::new(Some(names(&["q_proj"])), None, Some(vec![1]), vec!["h".to_owned()])
                .unwrap();
        assert!(
            other.matches(&site("model.h.1.q_proj"))
                && !other.matches(&site("model.layers.1.q_proj"))
        );
    }

    #[test]
    fn a_whole_path_is_adapted_whatever_its_layer() {
        let modules = names(&["q_proj", "lm_head", "model.layers.3.self_attn.v_proj"]);
        let targets =
            Targets::new(Some(modules), None, Some(vec![1]), vec![String::new()]).unwrap();
        let chosen =
            ["lm_head", "model.layers.3.self_attn.v_proj", "model.layers.1.self_attn.q_proj"];
        assert!(chosen.iter().all(|path| targets.matches(&site(path))));
        assert!(!targets.matches(&site("model.layers.3.self_attn.q_proj")));
    }

    #[test]
    fn all_linear_leaves_the_head_out() {
        let targets =
            Targets::new(Some(TargetModules::pattern(ALL_LINEAR).unwrap()), None, None, Vec::new())
                .unwrap();
        assert!(targets.matches(&site("model.layers.0.mlp.up_proj")));
        assert!(!targets.matches(&site("lm_head")));
        assert!(!targets.matches(&Site::embedding("model.embed_tokens", 4, 2)));
    }

    #[test]
    fn excluded_modules_are_left_out() {
        let targets = Targets::new(
            Some(names(&["q_proj"])),
            Some(names(&["layers.1.self_attn.q_proj"])),
            None,
            Vec::new(),
        )
        .unwrap();
        assert!(targets.matches(&site("model.layers.0.self_attn.q_proj")));
        assert!(!targets.matches(&site("model.layers.1.self_attn.q_proj")));
    }

    #[test]
    fn the_first_matching_pattern_counts() {
        let patterns =
            Patterns::new(vec![("layers.1.*q_proj".to_owned(), 2), ("q_proj".to_owned(), 3)])
                .unwrap();
        assert_eq!(patterns.get("model.layers.1.self_attn.q_proj"), Some(2));
        assert_eq!(patterns.get("model.layers.2.self_attn.q_proj"), Some(3));
        assert_eq!(patterns.get("model.layers.2.self_attn.k_proj"), None);
        assert!(Patterns::new(vec![("(".to_owned(), 1)]).is_err());
    }
}
