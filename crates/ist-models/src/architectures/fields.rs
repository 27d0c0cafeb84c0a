//! Reading `config.json`, with every fault collected.
//!
//! Fields that do not bear on the computation are left alone; those that would change it and are
//! not supported are refused.

use ist_files::untrusted::cut_message;
use serde_json::{Map, Value};

use crate::ops::activation::Activation;

/// No size of a real model is larger, and sums of products of such sizes do not overflow.
const LARGEST_SIZE: u64 = u32::MAX as u64;
/// More layers than any model has: a larger number is a broken file.
pub(super) const MOST_LAYERS: usize = 1 << 16;
/// More experts, in all layers together, than any model has.
pub(super) const MOST_EXPERTS: usize = 1 << 18;
/// A wider head than any model has.
pub(super) const WIDEST_HEAD: usize = 1 << 16;

/// Every fault of a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.join("; "))]
pub struct ConfigError {
    /// The faults.
    pub faults: Vec<String>,
}

/// A document, and the faults found in it so far.
#[derive(Debug)]
pub struct Fields<'a> {
    document: &'a Map<String, Value>,
    faults: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Fields of a document.
    pub fn new(document: &'a Map<String, Value>) -> Self {
        Self { document, faults: Vec::new() }
    }

    /// The faults.
    pub fn into_faults(self) -> Vec<String> {
        self.faults.iter().map(|fault| cut_message(fault).into_owned()).collect()
    }

    /// Notes a fault.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Whether the document has the key, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.document.contains_key(key)
    }

    /// The value of a key that is there and not null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.document.get(key).filter(|value| !value.is_null())
    }

    /// The first of several spellings of a key that is there.
    fn first<'k>(&self, keys: &[&'k str]) -> (&'k str, Option<&'a Value>) {
        let found = keys.iter().find(|key| self.value(key).is_some()).unwrap_or(&keys[0]);
        (found, self.value(found))
    }

    /// A size of at least 1 under the first of the keys that is there.
    pub fn count(&mut self, keys: &[&str], default: Option<usize>) -> usize {
        let (key, value) = self.first(keys);
        match (value, default) {
            (Some(value), _) => self.size(key, value),
            (None, Some(default)) => default,
            (None, None) => {
                self.fault(format!("`{key}` is missing"));
                1
            }
        }
    }

    /// An integer of at least 0.
    pub fn index(&mut self, key: &str, default: usize) -> usize {
        let Some(value) = self.value(key) else { return default };
        if let Some(found) = value.as_u64().filter(|found| *found <= LARGEST_SIZE) {
            return found as usize;
        }
        self.fault(format!("`{key}` must be an integer from 0 to {LARGEST_SIZE}, found {value}"));
        default
    }

    /// A size that is `absent` when the key is, and `None` when it is null.
    pub fn count_or_none(&mut self, key: &str, absent: Option<usize>) -> Option<usize> {
        if !self.has(key) {
            return absent;
        }
        self.value(key).map(|value| self.size(key, value))
    }

    fn size(&mut self, key: &str, value: &Value) -> usize {
        if let Some(count) = value.as_u64().filter(|count| (1..=LARGEST_SIZE).contains(count)) {
            return count as usize;
        }
        self.fault(format!("`{key}` must be an integer from 1 to {LARGEST_SIZE}, found {value}"));
        1
    }

    /// A number above 0.
    pub fn number(&mut self, key: &str, default: f64) -> f64 {
        number(self.document, key, Some(default), &mut self.faults)
    }

    /// A number above 0 that is `absent` when the key is, and `None` when it is null.
    pub fn number_or_none(&mut self, key: &str, absent: Option<f64>) -> Option<f64> {
        if !self.has(key) {
            return absent;
        }
        self.value(key).map(|_| number(self.document, key, None, &mut self.faults))
    }

    /// True or false.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.value(key) {
            Some(Value::Bool(flag)) => *flag,
            Some(value) => {
                self.fault(format!("`{key}` must be true or false, found {value}"));
                default
            }
            None => default,
        }
    }

    /// An activation by transformers' name for it.
    pub fn activation(&mut self, key: &str, default: Activation) -> Activation {
        let Some(value) = self.value(key) else { return default };
        match value.as_str().unwrap_or_default() {
            "silu" | "swish" => Activation::Silu,
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate"
            | "gelu_fast" => Activation::GeluTanh,
            _ => {
                self.fault(format!(
                    "`{key}` must be silu, gelu, gelu_new or gelu_pytorch_tanh, found {value}"
                ));
                default
            }
        }
    }

    /// A list of strings, one a layer.
    pub fn words(&mut self, key: &str, layers: usize) -> Option<Vec<String>> {
        let words = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let value = self.value(key)?;
        let found = words(value).filter(|words| words.len() == layers);
        if found.is_none() {
            self.fault(format!("`{key}` must be a list of {layers} strings, one a layer"));
        }
        found
    }

    /// A list of integers of at least 0.
    pub fn integers(&mut self, key: &str) -> Option<Vec<usize>> {
        let value = self.value(key)?;
        let found = value
            .as_array()
            .and_then(|list| list.iter().map(|v| v.as_u64().map(|v| v as usize)).collect());
        if found.is_none() {
            self.fault(format!("`{key}` must be a list of integers, found {value}"));
        }
        found
    }

    /// Notes a fault unless the key is missing, null or has that value.
    pub fn expect(&mut self, key: &str, only: &Value) {
        if let Some(found) = self.value(key).filter(|value| *value != only) {
            self.fault(format!("`{key}` must be {only}, found {found}"));
        }
    }

    /// The document.
    pub fn document(&self) -> &'a Map<String, Value> {
        self.document
    }

    /// A table, where the key has one. False stands for none in some files.
    pub fn table(&mut self, key: &str) -> Option<&'a Map<String, Value>> {
        let value = self.value(key).filter(|value| **value != Value::Bool(false))?;
        if value.as_object().is_none() {
            self.fault(format!("`{key}` must be a table or null, found {value}"));
        }
        value.as_object()
    }

    /// The faults, for what reads a table within the document.
    pub fn faults_mut(&mut self) -> &mut Vec<String> {
        &mut self.faults
    }

    /// Weights in a form that is not read.
    pub fn refuse_quantised(&mut self) {
        if let Some(found) = self.value("quantization_config") {
            let method = found.get("quant_method").unwrap_or(&Value::Null);
            self.fault(format!(
                "quantised weights ({method}) are not supported; use the unquantised checkpoint"
            ));
        }
    }
}

/// A number above 0 of a table.
pub(super) fn number(
    table: &Map<String, Value>,
    key: &str,
    default: Option<f64>,
    faults: &mut Vec<String>,
) -> f64 {
    let found = table.get(key).filter(|value| !value.is_null());
    let fault = match (found.map(|value| (value, value.as_f64())), default) {
        (Some((_, Some(number))), _) if number > 0.0 => return number,
        (None, Some(default)) => return default,
        (Some((value, _)), _) => format!("`{key}` must be a number above 0, found {value}"),
        (None, None) => format!("`{key}` is missing"),
    };
    faults.push(fault);
    1.0
}
