//! Rotary settings of `config.json`, in both spellings.
//!
//! transformers 4 wrote `rope_theta` and `rope_scaling`; transformers 5 writes `rope_parameters`.

use serde_json::{Map, Value};

use super::fields::{Fields, number};
use crate::decoder::rotary::{RopeScaling, Rotary};
use crate::ops::rope::Pairs;

/// What a model's rotation is unless its file says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeDefaults {
    /// Features of a head.
    pub head_dim: usize,
    /// θ.
    pub theta: f64,
    /// The part of a head that is turned; `None` where the architecture turns all of it whatever
    /// its file says.
    pub partial_rotary_factor: Option<f64>,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// The context it was first trained for, where that stands outside the scaling's table, as it
    /// does in every Phi-3.
    pub original: Option<usize>,
    /// Whether "yarn" means longrope, as in Phi-3's first files.
    pub yarn_is_longrope: bool,
}

/// The rotation that a document describes.
pub(super) fn rotary(fields: &mut Fields, defaults: RopeDefaults) -> Rotary {
    let (old, new) = (fields.table("rope_scaling"), fields.table("rope_parameters"));
    let theta = fields.number("rope_theta", defaults.theta);
    let original = fields.count_or_none("original_max_position_embeddings", defaults.original);
    let whole = defaults.partial_rotary_factor.is_none();
    let partial =
        fields.number("partial_rotary_factor", defaults.partial_rotary_factor.unwrap_or(1.0));
    let partial = if whole && partial == 1.0 { None } else { Some(partial) };
    if whole && partial.is_some() {
        fields.fault(PARTIAL);
    }
    let empty = Map::new();
    let table = old.or(new).unwrap_or(&empty);
    let defaults = RopeDefaults { theta, partial_rotary_factor: partial, original, ..defaults };
    rotary_of(table, defaults, fields.faults_mut())
}

/// The rotation that one table describes.
pub(super) fn rotary_of(
    table: &Map<String, Value>,
    defaults: RopeDefaults,
    faults: &mut Vec<String>,
) -> Rotary {
    let theta = number(table, "rope_theta", Some(defaults.theta), faults);
    let partial = number(
        table,
        "partial_rotary_factor",
        Some(defaults.partial_rotary_factor.unwrap_or(1.0)),
        faults,
    );
    if defaults.partial_rotary_factor.is_none() && partial != 1.0 {
        faults.push(PARTIAL.to_owned());
    }
    let dims = (defaults.head_dim as f64 * partial) as usize;
    // A head_dim of 0 follows from another fault, or is told as one.
    if defaults.head_dim > 0 && (!dims.is_multiple_of(2) || dims == 0 || dims > defaults.head_dim) {
        let head = defaults.head_dim;
        faults.push(format!(
            "rotary positions need an even number of a head's features: {partial} of a head_dim of \
             {head} are {dims}"
        ));
    }
    let reader = Table { table, defaults, dims };
    Rotary { dims, theta, scaling: reader.scaling(faults), pairs: Pairs::Halves }
}

const PARTIAL: &str =
    "`partial_rotary_factor` must be 1 or missing: this architecture turns whole heads";

struct Table<'a> {
    table: &'a Map<String, Value>,
    defaults: RopeDefaults,
    dims: usize,
}

impl Table<'_> {
    fn scaling(&self, faults: &mut Vec<String>) -> RopeScaling {
        let kinds =
            ["rope_type", "type"].map(|key| self.table.get(key).filter(|value| !value.is_null()));
        let kind = kinds.into_iter().flatten().next();
        if let Some(found) = kind.filter(|kind| !kind.is_string()) {
            faults.push(format!("`rope_type` must be a string, found {found}"));
        }
        match kind.and_then(Value::as_str).unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: self.required("factor", faults) },
            "dynamic" => RopeScaling::Dynamic {
                factor: self.required("factor", faults),
                max_position_embeddings: self.defaults.max_position_embeddings as f64,
            },
            "llama3" => self.llama3(faults),
            // Phi-3's first files say "su".
            "yarn" if self.defaults.yarn_is_longrope => self.long_rope(faults),
            "yarn" => self.yarn(faults),
            "longrope" | "su" => self.long_rope(faults),
            other => {
                let known = "default, linear, dynamic, llama3, yarn, longrope";
                faults.push(format!("rope_type \"{other}\" is not known; expected one of {known}"));
                RopeScaling::Default
            }
        }
    }

    fn llama3(&self, faults: &mut Vec<String>) -> RopeScaling {
        let (low, high) =
            (self.required("low_freq_factor", faults), self.required("high_freq_factor", faults));
        if low >= high {
            faults.push(format!("low_freq_factor {low} is not below high_freq_factor {high}"));
        }
        RopeScaling::Llama3 {
            factor: self.required("factor", faults),
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: self.original(faults),
        }
    }

    /// The context the model was first trained for.
    fn original(&self, faults: &mut Vec<String>) -> f64 {
        let default = self.defaults.max_position_embeddings as f64;
        match self.defaults.original {
            Some(original) => original as f64,
            None => number(self.table, "original_max_position_embeddings", Some(default), faults),
        }
    }

    fn factor(&self, original: f64, faults: &mut Vec<String>) -> f64 {
        let default = self.defaults.max_position_embeddings as f64 / original;
        number(self.table, "factor", Some(default), faults)
    }

    /// The factor on queries and keys is 0.1 m ln(s) + 1 for the scaling s, or the ratio of two
    /// such numbers.
    fn yarn(&self, faults: &mut Vec<String>) -> RopeScaling {
        let original = self.original(faults);
        let factor = self.factor(original, faults);
        let grown = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let mut optional = |key| self.optional(key, faults);
        let attention_factor = match (optional("mscale"), optional("mscale_all_dim")) {
            (Some(one), Some(all)) => grown(one) / grown(all),
            _ => grown(1.0),
        };
        let (beta_fast, beta_slow) =
            (optional("beta_fast").unwrap_or(32.0), optional("beta_slow").unwrap_or(1.0));
        RopeScaling::Yarn {
            factor,
            attention_factor: number(
                self.table,
                "attention_factor",
                Some(attention_factor),
                faults,
            ),
            beta_fast,
            beta_slow,
            original_max_position_embeddings: original,
            truncate: self.flag("truncate", true, faults),
        }
    }

    /// A number above 0 that counts as missing when it is 0 or null.
    fn optional(&self, key: &str, faults: &mut Vec<String>) -> Option<f64> {
        let value =
            self.table.get(key).filter(|value| !value.is_null() && value.as_f64() != Some(0.0))?;
        Some(number(self.table, key, None, faults)).filter(|_| value.is_number())
    }

    fn flag(&self, key: &str, default: bool, faults: &mut Vec<String>) -> bool {
        match self.table.get(key).filter(|value| !value.is_null()) {
            Some(Value::Bool(flag)) => *flag,
            Some(found) => {
                faults.push(format!("`{key}` must be true or false, found {found}"));
                default
            }
            None => default,
        }
    }

    /// The factor on queries and keys is √(1 + ln(s) / ln(original)) for the scaling s.
    fn long_rope(&self, faults: &mut Vec<String>) -> RopeScaling {
        let original = self.original(faults);
        let factor = self.factor(original, faults);
        let attention_factor =
            if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        if !attention_factor.is_finite() {
            faults.push(format!(
                "`original_max_position_embeddings` is {original}, from which no factor follows"
            ));
        }
        RopeScaling::LongRope {
            short_factor: self.factors("short_factor", faults),
            long_factor: self.factors("long_factor", faults),
            attention_factor: number(
                self.table,
                "attention_factor",
                Some(attention_factor),
                faults,
            ),
            original_max_position_embeddings: original,
        }
    }

    /// A divisor for every pair.
    fn factors(&self, key: &str, faults: &mut Vec<String>) -> Vec<f64> {
        let list = self.table.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let numbers: Vec<f64> =
            list.iter().filter_map(Value::as_f64).filter(|x| *x > 0.0).collect();
        if numbers.len() != self.dims / 2 || list.len() != numbers.len() {
            let (wanted, found) = (self.dims / 2, numbers.len());
            faults.push(format!(
                "`{key}` must be a list of {wanted} numbers above 0, found {found} of {}",
                list.len()
            ));
        }
        numbers
    }

    fn required(&self, key: &str, faults: &mut Vec<String>) -> f64 {
        number(self.table, key, None, faults)
    }
}
