//! A number of layers, given as a count or as a fraction of the model.

use serde::{Deserialize, Serialize};

use super::{PolicyError, out_of_range};

/// A number of layers: an integer is a count (`1` is one layer), a float a fraction (`1.0` is all
/// of them).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Share {
    /// That many layers.
    Count(usize),
    /// That fraction of the layers, in (0, 1].
    Fraction(f64),
}

impl Share {
    /// The number of layers this is of `num_layers`: a count as it stands, a fraction rounded down,
    /// at least 1.
    pub fn of(self, num_layers: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Fraction(fraction) => ((fraction * num_layers as f64).floor() as usize).max(1),
        }
    }

    /// [`Share::of`], checked.
    ///
    /// # Errors
    /// Unless 1 ≤ count ≤ `num_layers` or 0 < fraction ≤ 1. The error names the setting `key`.
    pub fn checked(self, key: &'static str, num_layers: usize) -> Result<usize, PolicyError> {
        let fits = match self {
            Self::Count(count) => (1..=num_layers).contains(&count),
            Self::Fraction(fraction) => fraction > 0.0 && fraction <= 1.0 && num_layers > 0,
        };
        if fits {
            return Ok(self.of(num_layers));
        }
        let expected = format!(
            "a count from 1 to {num_layers} (the layers with adapters) or a fraction in (0, 1]"
        );
        Err(out_of_range(key, &expected, &self))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "description": "that many layers"},
            {
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": 1,
                "description": "that fraction of the layers, rounded down"
            }
        ]})
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Fraction(fraction) => write!(f, "{fraction:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_layer_and_one_point_zero_is_all_of_them() {
        assert_eq!(serde_json::from_str::<Share>("1").unwrap().of(8), 1);
        assert_eq!(serde_json::from_str::<Share>("1.0").unwrap().of(8), 8);
    }

    #[test]
    fn a_quarter_of_three_layers_is_one() {
        assert_eq!(Share::Fraction(0.25).checked("layers_updated", 3).unwrap(), 1);
        assert_eq!(Share::Fraction(0.25).of(11), 2);
    }

    #[test]
    fn more_layers_than_the_model_has_are_refused() {
        let error = Share::Count(9).checked("layers_updated", 8).unwrap_err().to_string();
        assert!(error.contains("from 1 to 8") && error.ends_with("but is 9"), "{error}");
        assert!(Share::Fraction(1.5).checked("layers_updated", 8).is_err());
        assert!(Share::Count(0).checked("layers_updated", 8).is_err());
    }
}
