//! What a schema allows and what a value is, in words.

use serde_json::Value as Json;
use toml::Value;

use super::schema::SIZE;

/// The longest excerpt of a value in a message.
const EXCERPT: usize = 60;

/// What a schema allows: "an integer of at least 1", "a list of strings", "one of \"a\", \"b\"".
pub(super) fn expected(schema: &Json) -> String {
    if let Some(values) = allowed(schema) {
        let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        return if quoted.len() == 1 {
            quoted.concat()
        } else {
            format!("one of {}", quoted.join(", "))
        };
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        return branches.iter().map(expected).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => list(schema),
        Some("object") => {
            match schema.get("additionalProperties").filter(|inner| inner.is_object()) {
                Some(inner) => format!("a table of {}", plural(inner)),
                None => "a table".to_owned(),
            }
        }
        Some("boolean") => "true or false".to_owned(),
        Some("string") if schema["format"] == SIZE => {
            "a size such as \"1.5GiB\" or \"800MB\"".to_owned()
        }
        Some("string") if schema.get("minLength").is_some() => {
            "a string that is not empty".to_owned()
        }
        Some("string") => "a string".to_owned(),
        Some("integer") => format!("an integer{}", range(schema)),
        Some("number") => format!("a number{}", range(schema)),
        _ => "a value".to_owned(),
    }
}

/// The values of a schema that lists them: `enum`, `const`, or `oneOf` of constants.
pub(super) fn allowed(schema: &Json) -> Option<Vec<&str>> {
    if let Some(only) = schema["const"].as_str() {
        return Some(vec![only]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(Json::as_str).collect());
    }
    let branches = schema["oneOf"].as_array()?;
    let values: Option<Vec<Vec<&str>>> = branches.iter().map(allowed).collect();
    values.map(|values| values.concat())
}

fn list(schema: &Json) -> String {
    let items = plural(&schema["items"]);
    match (schema["minItems"].as_u64(), schema["maxItems"].as_u64()) {
        (Some(least), Some(most)) if least == most => format!("a list of {least} {items}"),
        (Some(1), None) => format!("a non-empty list of {items}"),
        (Some(least), _) => format!("a list of at least {least} {items}"),
        _ => format!("a list of {items}"),
    }
}

/// "strings", "integers of at least 1".
fn plural(schema: &Json) -> String {
    if let Some(branches) = schema["anyOf"].as_array() {
        return branches.iter().map(plural).collect::<Vec<_>>().join(" or ");
    }
    if schema["type"] == "string" && allowed(schema).is_none() {
        return "strings".to_owned();
    }
    let words = expected(schema);
    let words = words.strip_prefix("an ").or_else(|| words.strip_prefix("a ")).unwrap_or(&words);
    match words.split_once(' ') {
        Some((noun, rest)) => format!("{noun}s {rest}"),
        None => format!("{words}s"),
    }
}

fn range(schema: &Json) -> String {
    let bound =
        |key: &str, words: &str| schema.get(key).map(|bound| format!(" {words} {}", plain(bound)));
    let lower = bound("minimum", "of at least").or_else(|| bound("exclusiveMinimum", "above"));
    let upper = bound("maximum", "at most").or_else(|| bound("exclusiveMaximum", "below"));
    match (lower, upper) {
        (Some(lower), Some(upper)) => format!("{lower} and{upper}"),
        (Some(lower), None) => lower,
        (None, Some(upper)) => upper,
        (None, None) => String::new(),
    }
}

/// A bound without a trailing `.0`.
fn plain(bound: &Json) -> String {
    let text = bound.to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// What a value is: "the string \"ten\"", "0", "a table".
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string {}", excerpt(&format!("{text:?}"))),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => format!("the list {}", excerpt(&value.to_string())),
        Value::Table(_) => "a table".to_owned(),
    }
}

fn excerpt(text: &str) -> String {
    if text.chars().count() <= EXCERPT {
        return text.to_owned();
    }
    text.chars().take(EXCERPT).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_read_as_words() {
        for (schema, words) in [
            (json!({"type": "integer", "minimum": 1}), "an integer of at least 1"),
            (json!({"type": "number", "exclusiveMinimum": 0}), "a number above 0"),
            (
                json!({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}),
                "a number of at least 0 and below 1",
            ),
            (json!({"type": "array", "items": {"type": "string"}}), "a list of strings"),
            (
                json!({"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}),
                "a non-empty list of integers of at least 0",
            ),
            (json!({"enum": ["a", "b"]}), "one of \"a\", \"b\""),
            (json!({"oneOf": [{"const": "a"}, {"enum": ["b"]}]}), "one of \"a\", \"b\""),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "boolean"}]}),
                "a string or true or false",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "number",
                    "exclusiveMinimum": 0}}),
                "a table of numbers above 0",
            ),
        ] {
            assert_eq!(expected(&schema), words);
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let text = found(&Value::String("x".repeat(500)));
        assert!(text.chars().count() < 80 && text.ends_with('…'), "{text}");
    }
}
