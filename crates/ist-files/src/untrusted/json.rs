//! JSON in which each key stands once in its object.
//!
//! `serde_json` keeps the last of two values with one key, other readers keep the first. A file
//! that two programs read differently is refused by the name of the key. Objects and lists may nest
//! [`DEEPEST`] levels, which is the limit of `serde_json` itself.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use super::cut;

/// Levels of objects and lists that a file may nest.
pub const DEEPEST: usize = 127;

/// The value of a document.
///
/// # Errors
///
/// Text that is not JSON, nests too deep, or has a key twice in one object.
pub fn value(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Once>(bytes).map(|Once(value)| value)
}

/// A typed value of a document.
///
/// # Errors
///
/// As [`value`]; a value of another type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    check(bytes)?;
    serde_json::from_slice(bytes)
}

/// Looks at a document without keeping it, and returns the levels that it nests.
///
/// # Errors
///
/// As [`value`].
pub fn check(bytes: &[u8]) -> serde_json::Result<usize> {
    let mut deepest = 0;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Look { depth: 0, deepest: &mut deepest }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(deepest)
}

/// What an error says, without the long texts that a file may have put into it; its line and column
/// stay.
pub fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (problem, place) = match text.rfind(" at line ") {
        Some(at) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    if problem.chars().count() <= LONGEST_PROBLEM {
        return text;
    }
    format!("{}{place}", cut(problem))
}

/// Characters of a message of `serde_json` that holds no long text.
const LONGEST_PROBLEM: usize = 300;

fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("the key \"{}\" stands twice in one object", cut(key)))
}

/// A value whose objects have each key once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(Self)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(twice(&key));
            }
            let Once(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads a value and forgets it.
struct Look<'a> {
    depth: usize,
    deepest: &'a mut usize,
}

impl Look<'_> {
    fn inside(&mut self) -> Look<'_> {
        let depth = self.depth + 1;
        *self.deepest = (*self.deepest).max(depth);
        Look { depth, deepest: self.deepest }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut inside = self.inside();
        while items.next_element_seed(inside.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut inside = self.inside();
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(twice(&key));
            }
            keys.insert(key);
            entries.next_value_seed(inside.again())?;
        }
        Ok(())
    }
}

impl Look<'_> {
    fn again(&mut self) -> Look<'_> {
        Look { depth: self.depth, deepest: self.deepest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_stands_twice_is_refused_by_name() {
        let cases = [
            (r#"{"r": 8, "r": 16}"#, "\"r\" stands twice in one object at line 1"),
            ("{\"a\": [1,\n {\"b\": 1, \"b\": 1}]}", "\"b\" stands twice in one object at line 2"),
            (r#"{"a": 1, "\u0061": 2}"#, "\"a\" stands twice"),
        ];
        for (text, problem) in cases {
            for error in [
                value(text.as_bytes()).unwrap_err(),
                check(text.as_bytes()).unwrap_err(),
                from_slice::<Value>(text.as_bytes()).unwrap_err(),
            ] {
                assert!(error.to_string().contains(problem), "{text}: {error}");
            }
        }
        let apart = r#"[{"a": 1}, {"a": {"a": 2}}]"#;
        assert_eq!(value(apart.as_bytes()).unwrap(), json!([{"a": 1}, {"a": {"a": 2}}]));
    }

    #[test]
    fn a_key_of_a_megabyte_is_named_in_a_line() {
        let key = "k".repeat(1 << 20);
        let error = value(format!("{{\"{key}\": 1, \"{key}\": 2}}").as_bytes()).unwrap_err();
        assert!(error.to_string().len() < 250, "{error}");
    }

    #[test]
    fn a_value_of_a_megabyte_is_told_in_a_line() {
        let text = format!("{{\"r\":\n \"{}\"}}", "8".repeat(1 << 20));
        let error = from_slice::<std::collections::HashMap<String, u32>>(text.as_bytes());
        let told = told(&error.unwrap_err());
        assert!(told.starts_with("invalid type: string \"888"), "{told}");
        assert!(told.ends_with(" at line 2 column 1048579") && told.len() < 250, "{told}");
    }

    #[test]
    fn the_levels_of_a_document_are_counted_and_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(b"3").unwrap(), 0);
        assert_eq!(check(br#"{"a": [1, {"b": 2}], "c": {}}"#).unwrap(), 3);
        assert_eq!(check(nested(DEEPEST).as_bytes()).unwrap(), DEEPEST);
        for levels in [DEEPEST + 1, 100_000] {
            let text = nested(levels);
            assert!(value(text.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
            assert!(check(text.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_is_what_serde_json_reads(bytes in "[\\[\\]{}\",:a1.e-]{0,24}") {
            let plain = serde_json::from_str::<Value>(&bytes);
            match value(bytes.as_bytes()) {
                Ok(found) => proptest::prop_assert_eq!(found, plain.unwrap()),
                Err(error) => proptest::prop_assert!(
                    plain.is_err() || error.to_string().contains("stands twice")
                ),
            }
            proptest::prop_assert_eq!(
                check(bytes.as_bytes()).is_ok(),
                value(bytes.as_bytes()).is_ok()
            );
        }
    }
}
