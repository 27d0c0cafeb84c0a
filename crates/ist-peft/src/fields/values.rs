//! The kinds of values that settings have: how each is read, and its JSON Schema.

use std::fmt::Debug;

use serde::Serialize;
use serde_json::{Value, json};

/// A kind of values.
pub trait ValueKind: Copy + Debug + Sync {
    /// A value once it is read.
    type Value: Clone + Debug + Serialize + Sync;

    /// The values in words, behind "must be".
    fn expected(self) -> String;
    /// The value, where it is one of them.
    fn read(self, value: &Value) -> Option<Self::Value>;
    /// The values as a JSON Schema.
    fn schema(self) -> Value;
}

/// Integers of at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl ValueKind for Count {
    type Value = usize;

    fn expected(self) -> String {
        "an integer of at least 1".to_owned()
    }

    fn read(self, value: &Value) -> Option<usize> {
        value.as_u64().filter(|&count| count >= 1).and_then(|count| usize::try_from(count).ok())
    }

    fn schema(self) -> Value {
        json!({"type": "integer", "format": "uint", "minimum": 1})
    }
}

/// Integers of at least 0 that seed random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Seed;

impl ValueKind for Seed {
    type Value = u64;

    fn expected(self) -> String {
        "an integer of at least 0".to_owned()
    }

    fn read(self, value: &Value) -> Option<u64> {
        value.as_u64()
    }

    fn schema(self) -> Value {
        json!({"type": "integer", "format": "uint64", "minimum": 0})
    }
}

/// Finite numbers.
#[derive(Clone, Copy, Debug)]
pub struct Finite;

impl ValueKind for Finite {
    type Value = f64;

    fn expected(self) -> String {
        "a number".to_owned()
    }

    fn read(self, value: &Value) -> Option<f64> {
        value.as_f64().filter(|number| number.is_finite())
    }

    fn schema(self) -> Value {
        json!({"type": "number", "format": "double"})
    }
}

/// Finite numbers above 0.
#[derive(Clone, Copy, Debug)]
pub struct AboveZero;

impl ValueKind for AboveZero {
    type Value = f64;

    fn expected(self) -> String {
        "a number above 0".to_owned()
    }

    fn read(self, value: &Value) -> Option<f64> {
        Finite.read(value).filter(|number| *number > 0.0)
    }

    fn schema(self) -> Value {
        json!({"type": "number", "format": "double", "exclusiveMinimum": 0})
    }
}

/// Probabilities in [0, 1).
#[derive(Clone, Copy, Debug)]
pub struct Probability;

impl ValueKind for Probability {
    type Value = f64;

    fn expected(self) -> String {
        "a number in [0, 1)".to_owned()
    }

    fn read(self, value: &Value) -> Option<f64> {
        value.as_f64().filter(|number| (0.0..1.0).contains(number))
    }

    fn schema(self) -> Value {
        json!({"type": "number", "format": "double", "minimum": 0, "exclusiveMaximum": 1})
    }
}

/// True and false.
#[derive(Clone, Copy, Debug)]
pub struct Flag;

impl ValueKind for Flag {
    type Value = bool;

    fn expected(self) -> String {
        "true or false".to_owned()
    }

    fn read(self, value: &Value) -> Option<bool> {
        value.as_bool()
    }

    fn schema(self) -> Value {
        json!({"type": "boolean"})
    }
}

/// One of several words.
#[derive(Clone, Copy, Debug)]
pub struct OneOf(pub &'static [&'static str]);

impl ValueKind for OneOf {
    type Value = &'static str;

    fn expected(self) -> String {
        let words: Vec<String> = self.0.iter().map(|word| format!("\"{word}\"")).collect();
        format!("one of {}", words.join(", "))
    }

    fn read(self, value: &Value) -> Option<&'static str> {
        let given = value.as_str()?;
        self.0.iter().copied().find(|word| *word == given)
    }

    fn schema(self) -> Value {
        json!({"type": "string", "enum": self.0})
    }
}

/// A string or a list of strings, as a list.
pub(crate) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// A layer index or a list of them, as a list.
pub(crate) fn layer_list(value: &Value) -> Option<Vec<usize>> {
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    match value {
        Value::Array(many) => many.iter().map(index).collect(),
        one => index(one).map(|index| vec![index]),
    }
}
