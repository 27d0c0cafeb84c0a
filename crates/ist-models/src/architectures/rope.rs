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
    /// The part of a head that is turned.
    pub partial_rotary_factor: f64,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// The context it was first trained for, where the architecture keeps that outside the scaling's table.
    pub original: Option<usize>,
}

/// The rotation that a document describes.
pub(super) fn rotary(fields: &mut Fields, defaults: RopeDefaults) -> Rotary {
    let (old, new) = (fields.table("rope_scaling"), fields.table("rope_parameters"));
    let theta = fields.number("rope_theta", defaults.theta);
    let partial = fields.number("partial_rotary_factor", defaults.partial_rotary_factor);
    let empty = Map::new();
    let table = old.or(new).unwrap_or(&empty);
    rotary_of(table, RopeDefaults { theta, partial_rotary_factor: partial, ..defaults }, fields.faults_mut())
}

/// The rotation that one table describes.
pub(super) fn rotary_of(table: &Map<String, Value>, defaults: RopeDefaults, faults: &mut Vec<String>) -> Rotary {
    let theta = number(table, "rope_theta", Some(defaults.theta), faults);
    let partial = number(table, "partial_rotary_factor", Some(defaults.partial_rotary_factor), faults);
    let dims = (defaults.head_dim as f64 * partial) as usize;
    if !dims.is_multiple_of(2) || dims == 0 || dims > defaults.head_dim {
        let head = defaults.head_dim;
        faults.push(format!(
            "rotary positions need an even number of a head's features: {partial} of a head_dim of {head} are {dims}"
        ));
    }
    let reader = Table { table, defaults, dims };
    Rotary { dims, theta, scaling: reader.scaling(faults), pairs: Pairs::Halves }
}

struct Table<'a> {
    table: &'a Map<String, Value>,
    defaults: RopeDefaults,
    dims: usize,
}

impl Table<'_> {
    fn scaling(&self, faults: &mut Vec<String>) -> RopeScaling {
        let kind = self.table.get("rope_type").or_else(|| self.table.get("type"));
        match kind.and_then(Value::as_str).unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: self.required("factor", faults) },
            "dynamic" => RopeScaling::Dynamic {
                factor: self.required("factor", faults),
                max_position_embeddings: self.defaults.max_position_embeddings as f64,
            },
            "llama3" => self.llama3(faults),
            // Phi-3's first files say "su".
            "yarn" if self.defaults.original.is_some() => self.long_rope(faults),
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
        let (low, high) = (self.required("low_freq_factor", faults), self.required("high_freq_factor", faults));
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

    /// The factor on queries and keys is 0.1 m ln(s) + 1 for the scaling s, or the ratio of two such numbers.
    fn yarn(&self, faults: &mut Vec<String>) -> RopeScaling {
        let original = self.original(faults);
        let factor = self.factor(original, faults);
        let grown = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let optional = |key| self.table.get(key).and_then(Value::as_f64).filter(|value| *value != 0.0);
        let attention_factor = match (optional("mscale"), optional("mscale_all_dim")) {
            (Some(one), Some(all)) => grown(one) / grown(all),
            _ => grown(1.0),
        };
        RopeScaling::Yarn {
            factor,
            attention_factor: number(self.table, "attention_factor", Some(attention_factor), faults),
            beta_fast: optional("beta_fast").unwrap_or(32.0),
            beta_slow: optional("beta_slow").unwrap_or(1.0),
            original_max_position_embeddings: original,
            truncate: self.table.get("truncate").and_then(Value::as_bool).unwrap_or(true),
        }
    }

    /// The factor on queries and keys is √(1 + ln(s) / ln(original)) for the scaling s.
    fn long_rope(&self, faults: &mut Vec<String>) -> RopeScaling {
        let original = self.original(faults);
        let factor = self.factor(original, faults);
        let attention_factor = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        RopeScaling::LongRope {
            short_factor: self.factors("short_factor", faults),
            long_factor: self.factors("long_factor", faults),
            attention_factor: number(self.table, "attention_factor", Some(attention_factor), faults),
            original_max_position_embeddings: original,
        }
    }

    /// A divisor for every pair.
    fn factors(&self, key: &str, faults: &mut Vec<String>) -> Vec<f64> {
        let list = self.table.get(key).and_then(Value::as_array);
        let numbers: Vec<f64> = list.into_iter().flatten().filter_map(Value::as_f64).filter(|x| *x > 0.0).collect();
        if numbers.len() == self.dims / 2 {
            return numbers;
        }
        faults.push(format!("`{key}` must be a list of {} numbers above 0, found {}", self.dims / 2, numbers.len()));
        vec![1.0; self.dims / 2]
    }

    fn required(&self, key: &str, faults: &mut Vec<String>) -> f64 {
        number(self.table, key, None, faults)
    }
}
