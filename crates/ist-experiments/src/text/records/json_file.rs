//! JSON Lines and JSON arrays, record by record and with the line of each.
//!
//! The records of an array are found by a scan of their own instead of by parsing the whole array,
//! so that a fault can be named by line and only one record is in memory as a tree at a time.

use std::ops::Range;

use ist_files::untrusted::json;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::error::Place;

/// The fields of one record.
pub(super) type Fields = Map<String, Value>;

/// A fault and where it stands.
pub(super) type Fault = (Place, String);

/// The records of JSON Lines; blank lines are skipped.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<(Place, Fields), Fault>> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines.filter_map(|(index, line)| {
        let line = line.trim_ascii();
        let place = Place::Line(index + 1);
        (!line.is_empty()).then(|| record(line, place))
    })
}

/// The records of a JSON array whose elements `elements` has found.
pub(super) fn array<'a>(
    bytes: &'a [u8],
    elements: &'a [Element],
) -> impl Iterator<Item = Result<(Place, Fields), Fault>> + 'a {
    elements.iter().enumerate().map(|(index, element)| {
        record(
            &bytes[element.span.clone()],
            Place::Element { record: index + 1, line: element.line },
        )
    })
}

fn record(text: &[u8], place: Place) -> Result<(Place, Fields), Fault> {
    match json::value(text) {
        Ok(Value::Object(fields)) => Ok((place, fields)),
        Ok(other) => Err((
            place,
            format!("a record must be an object {{\"field\": ...}}, found {}", kind(&other)),
        )),
        Err(error) => Err((place, malformed(&error))),
    }
}

/// A parser's message without its own line number, which counts from the record's start.
fn malformed(error: &serde_json::Error) -> String {
    let message = json::told(error);
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    format!("malformed JSON: {message} (column {})", error.column())
}

/// One element of a JSON array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// Its bytes in the file.
    span: Range<usize>,
    /// The line of its first byte, from 1.
    line: usize,
}

/// The elements of the one JSON array that `bytes` must hold.
pub(super) fn elements(bytes: &[u8]) -> Result<Vec<Element>, Fault> {
    serde_json::from_slice::<IgnoredAny>(bytes)
        .map_err(|error| (Place::Line(error.line()), malformed(&error)))?;
    Ok(scan(bytes))
}

/// Finds the commas of the outermost array. `bytes` are known to be valid JSON.
fn scan(bytes: &[u8]) -> Vec<Element> {
    let (mut found, mut line, mut depth, mut start) = (Vec::new(), 1, 0_usize, None);
    let (mut in_string, mut escaped) = (false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        line += usize::from(byte == b'\n');
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        if depth == 1 && matches!(byte, b',' | b']') {
            found.extend(start.take().map(|(from, line)| Element { span: from..at, line }));
        } else if depth > 0 && start.is_none() && !byte.is_ascii_whitespace() {
            start = Some((at, line));
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// Whether `bytes` are one JSON object, pretty-printed or not.
pub(super) fn is_one_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_carry_the_line_on_which_they_start() {
        let text = b"[\n  {\"a\": \"],{\\\"\"},\n\n  {\n\"b\": [1, {\"c\": 2}]}, 3\n]";
        let found = elements(text).unwrap();
        assert_eq!(found.iter().map(|element| element.line).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(&text[found[0].span.clone()], b"{\"a\": \"],{\\\"\"}");
        let records: Vec<_> = array(text, &found).collect();
        assert!(records[0].is_ok() && records[1].is_ok());
        let (place, problem) = records[2].as_ref().unwrap_err();
        assert_eq!(*place, Place::Element { record: 3, line: 5 });
        assert!(problem.contains("found a number"), "{problem}");
    }

    #[test]
    fn a_broken_array_is_a_fault_with_its_line() {
        let (place, problem) = elements(b"[{\"a\": 1},\n {\"a\" 2}]").unwrap_err();
        assert_eq!(place, Place::Line(2));
        assert!(problem.contains("column 7"), "{problem}");
        assert_eq!(elements(b"[{\"a\": 1}").unwrap_err().0, Place::Line(1));
        assert!(elements(b"[] []").is_err());
    }

    #[test]
    fn blank_lines_keep_the_count() {
        let places: Vec<_> = lines(b"\n{}\r\n   \n{}\n").map(|record| record.unwrap().0).collect();
        assert_eq!(places, [Place::Line(2), Place::Line(4)]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let (place, problem) = lines(b"{}\n{\"a\": }\n").nth(1).unwrap().unwrap_err();
        assert_eq!(place, Place::Line(2));
        assert_eq!(problem, "malformed JSON: expected value (column 7)");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<i32>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scan_finds_what_the_parser_finds(
            values in prop::collection::vec(value(), 0..6),
            pretty: bool,
        ) {
            let whole = Value::Array(values.clone());
            let text = if pretty { serde_json::to_vec_pretty(&whole) } else { serde_json::to_vec(&whole) }.unwrap();
            let found: Vec<Value> = elements(&text)
                .unwrap()
                .iter()
                .map(|element| serde_json::from_slice(&text[element.span.clone()]).unwrap())
                .collect();
            prop_assert_eq!(found, values);
        }
    }
}
