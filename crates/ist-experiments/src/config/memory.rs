//! `[memory]`: what a run may take, and how memory is traded for time.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema::SIZE;

/// `[memory]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// What the whole run may take, weights included, or what a training step keeps for its
    /// backward pass.
    #[schemars(schema_with = "budget")]
    pub budget: Budget,
}

/// What a step keeps for its backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// As much as fits into what the device has free when the run begins.
    #[default]
    Auto,
    /// The graph of every layer that needs one: fastest.
    Keep,
    /// The inputs of those layers alone, running each of them once more: leanest.
    Recompute,
    /// As much as fits into that many bytes, the weights and everything else of the run included.
    Bytes(u64),
}

/// Most bytes TOML can hold.
const MOST: f64 = i64::MAX as f64;

/// Units of a size, in lower case, and their bytes.
const UNITS: [(&str, f64); 10] = [
    ("", 1.0),
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("kib", 1024.0),
    ("mib", 1024.0 * 1024.0),
    ("gib", 1024.0 * 1024.0 * 1024.0),
    ("tib", 1024.0 * 1024.0 * 1024.0 * 1024.0),
];

/// The bytes of a size such as `1.5GiB` or `800 MB`; `None` when the text is none, or less than a
/// byte.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let start = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(start);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let bytes = number.parse::<f64>().ok()? * factor;
    (1.0..MOST).contains(&bytes).then_some(bytes as u64)
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Keep => serializer.serialize_str("keep"),
            Self::Recompute => serializer.serialize_str("recompute"),
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Found {
            Bytes(u64),
            Text(String),
        }
        Ok(match Found::deserialize(deserializer)? {
            Found::Bytes(bytes) => Self::Bytes(bytes),
            Found::Text(text) => match text.as_str() {
                "auto" => Self::Auto,
                "keep" => Self::Keep,
                "recompute" => Self::Recompute,
                size => Self::Bytes(bytes(size).ok_or_else(|| {
                    serde::de::Error::custom(format!("\"{size}\" is not a size"))
                })?),
            },
        })
    }
}

fn budget(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            {"type": "string", "enum": ["auto", "keep", "recompute"]},
            {"type": "string", "format": SIZE},
            {"type": "integer", "minimum": 1, "description": "bytes"},
        ],
        "default": "auto",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_is_a_size() {
        let sizes = [
            ("1.5GiB", 3 << 29),
            ("800MB", 800_000_000),
            ("12 kB", 12_000),
            ("1024", 1024),
            ("300mib", 300 << 20),
            ("7 B", 7),
        ];
        for (text, expected) in sizes {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for other in [
            "GiB",
            "less",
            "1.5Gib2",
            "1..5GB",
            "",
            "0",
            "-1",
            "inf",
            "1e3",
            "99999999TiB",
            "0.5 B",
        ] {
            assert_eq!(bytes(other), None, "{other}");
        }
    }
}
