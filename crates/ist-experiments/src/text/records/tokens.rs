//! Records of token ids: `{"input_ids": [..], "labels": [..]?, "attention_mask": [..]?}`.
//!
//! They need no tokenizer and say exactly what a model reads, which is what other programs compare
//! with. A record's own padding stays where it stands; labels are shifted inside the model,
//! position t predicting label t + 1.

use std::path::Path;

use ist_models::batch::{Example, IGNORED_LABEL};
use serde_json::Value;

use super::error::DataError;
use super::json_file::{Fields, kind};
use super::text::{DataFile, Format};

const FIELDS: [&str; 3] = ["input_ids", "labels", "attention_mask"];

/// All records of a TOKENS file, also those with nothing to predict, in the file's order.
///
/// # Errors
///
/// A record that is malformed, holds an id of `vocab_size` or above, or is longer than the model's
/// `context`.
pub fn read_tokens(
    path: &Path,
    vocab_size: usize,
    context: usize,
) -> Result<Vec<Example>, DataError> {
    let file = DataFile::read(path, Format::Tokens)?;
    file.examples(vocab_size)?
        .map(|found| {
            let (place, example) = found?;
            match example.input_ids.len() {
                length if length > context => {
                    let problem = format!(
                        "the record has {length} tokens, but the model's context holds {context}; \
                         shorten the record"
                    );
                    Err(DataError::Record { path: path.to_owned(), place, problem })
                }
                _ => Ok(example),
            }
        })
        .collect()
}

/// How many tokens of a record are predicted: those after the first real one whose label is not
/// [`IGNORED_LABEL`].
pub fn predicted(example: &Example) -> usize {
    example.predicted().count()
}

/// Ignores the labels up to and including the first real token.
///
/// What would predict them attends to nothing: there is no earlier token, or there is only padding.
pub(super) fn ignore_first_real_token(example: &mut Example) {
    let first =
        example.attention_mask.iter().position(|real| *real).unwrap_or(example.labels.len());
    let end = (first + 1).min(example.labels.len());
    example.labels[..end].fill(IGNORED_LABEL);
}

/// One record from its fields. Errors say what was found and what was expected.
pub(super) fn example(fields: &Fields, vocab_size: usize) -> Result<Example, String> {
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!(
            "unknown field `{unknown}`; a token record has `input_ids`, `labels`, `attention_mask`"
        ));
    }
    let Some(ids) = list(fields, "input_ids")? else {
        return Err("field `input_ids` is missing".to_owned());
    };
    if ids.is_empty() {
        return Err("`input_ids` is empty; a record needs at least one token".to_owned());
    }
    let input_ids: Vec<u32> = numbers(ids, "input_ids", |id| id_in(id, vocab_size))?;
    let length = input_ids.len();
    let attention_mask = match same_length(fields, "attention_mask", length)? {
        Some(mask) => numbers(mask, "attention_mask", real)?,
        None => vec![true; length],
    };
    let labels = match same_length(fields, "labels", length)? {
        Some(labels) => numbers(labels, "labels", |label| label_in(label, vocab_size))?,
        None => default_labels(&input_ids, &attention_mask),
    };
    let mut example = Example { input_ids, labels, attention_mask };
    ignore_first_real_token(&mut example);
    Ok(example)
}

fn default_labels(input_ids: &[u32], attention_mask: &[bool]) -> Vec<i64> {
    let pairs = input_ids.iter().zip(attention_mask);
    pairs.map(|(id, real)| if *real { i64::from(*id) } else { IGNORED_LABEL }).collect()
}

/// A field that must be a list where it is given; null counts as not given.
fn list<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a [Value]>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(other) => Err(format!("`{name}` must be a list of integers, found {}", kind(other))),
    }
}

fn same_length<'a>(
    fields: &'a Fields,
    name: &str,
    length: usize,
) -> Result<Option<&'a [Value]>, String> {
    match list(fields, name)? {
        Some(values) if values.len() != length => Err(format!(
            "`{name}` has {} entries, but `input_ids` has {length}; they must be equal",
            values.len()
        )),
        values => Ok(values),
    }
}

/// Reads every entry of a list, naming the one at fault by its index.
fn numbers<T>(
    values: &[Value],
    name: &str,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let entries = values.iter().enumerate();
    entries
        .map(|(at, value)| read(value).map_err(|problem| format!("`{name}`[{at}]: {problem}")))
        .collect()
}

fn id_in(value: &Value, vocab_size: usize) -> Result<u32, String> {
    let Some(id) = value.as_u64() else {
        return Err(format!("expected a token id, an integer from 0 on, found {value}"));
    };
    match u32::try_from(id) {
        Ok(id) if (id as usize) < vocab_size => Ok(id),
        _ => Err(format!("token id {id} is beyond the vocabulary, whose size is {vocab_size}")),
    }
}

fn label_in(value: &Value, vocab_size: usize) -> Result<i64, String> {
    if value.as_i64() == Some(IGNORED_LABEL) {
        return Ok(IGNORED_LABEL);
    }
    id_in(value, vocab_size)
        .map(i64::from)
        .map_err(|problem| format!("{problem} (a label is a token id or -100)"))
}

fn real(value: &Value) -> Result<bool, String> {
    match value.as_u64() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(format!("expected 0 or 1, found {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::file;
    use super::*;

    fn read(text: &str) -> Result<Vec<Example>, String> {
        let file = file("tokens.jsonl", text);
        read_tokens(&file.path, 100, 8).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_default_to_the_ids_and_ignore_padding() {
        let records =
            read("{\"input_ids\": [0, 0, 5, 6, 0], \"attention_mask\": [0, 0, 1, 1, 0]}\n")
                .unwrap();
        assert_eq!(records[0].labels, [-100, -100, -100, 6, -100]);
        assert_eq!(predicted(&records[0]), 1);
    }

    #[test]
    fn an_unpadded_record_predicts_all_but_its_first_token() {
        let records = read("\n{\"input_ids\": [5, 6, 7]}\n\n{\"input_ids\": [9]}").unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((predicted(&records[0]), predicted(&records[1])), (2, 0));
        assert_eq!(records[0].labels[1..], [6, 7]);
        assert_eq!(records[0].attention_mask, [true; 3]);
    }

    #[test]
    fn explicit_labels_are_kept_except_the_one_nothing_can_predict() {
        let text = "{\"input_ids\": [0, 5, 6, 7], \"labels\": [-100, 1, 2, -100], \"attention_mask\": [0, 1, 1, 1]}";
        assert_eq!(read(text).unwrap()[0].labels, [-100, -100, 2, -100]);
        let text = "{\"input_ids\": [5, 6, 7], \"labels\": [1, 2, 3]}";
        assert_eq!(read(text).unwrap()[0].labels[1..], [2, 3]);
    }

    #[test]
    fn a_label_after_right_padding_is_kept() {
        let text =
            "{\"input_ids\": [5, 6, 0], \"labels\": [5, 6, 3], \"attention_mask\": [1, 1, 0]}";
        assert_eq!(read(text).unwrap()[0].labels[1..], [6, 3]);
    }

    #[test]
    fn a_record_of_padding_alone_predicts_nothing() {
        let text = "{\"input_ids\": [5, 6], \"labels\": [5, 6], \"attention_mask\": [0, 0]}";
        assert_eq!(predicted(&read(text).unwrap()[0]), 0);
    }

    #[test]
    fn every_fault_names_file_line_and_cause() {
        let cases = [
            (
                "{\"input_ids\": [1, 2], \"labels\": [1]}",
                "`labels` has 1 entries, but `input_ids` has 2",
            ),
            ("{\"input_ids\": [1, 2], \"attention_mask\": [1]}", "`attention_mask` has 1 entries"),
            (
                "{\"input_ids\": [1, 2.5]}",
                "`input_ids`[1]: expected a token id, an integer from 0 on, found 2.5",
            ),
            ("{\"input_ids\": [1, 2.0]}", "found 2.0"),
            ("{\"input_ids\": [-1]}", "found -1"),
            ("{\"input_ids\": [\"a\"]}", "found \"a\""),
            ("{\"input_ids\": []}", "`input_ids` is empty"),
            ("{\"labels\": [1]}", "`input_ids` is missing"),
            ("{\"input_ids\": 3}", "must be a list of integers, found a number"),
            ("{\"input_ids\": [1], \"label\": [1]}", "unknown field `label`"),
            ("{\"input_ids\": [100]}", "token id 100 is beyond the vocabulary, whose size is 100"),
            ("{\"input_ids\": [4294967297]}", "token id 4294967297 is beyond"),
            ("{\"input_ids\": [1], \"labels\": [-1]}", "(a label is a token id or -100)"),
            ("{\"input_ids\": [1], \"labels\": [100]}", "beyond the vocabulary"),
            ("{\"input_ids\": [1], \"attention_mask\": [2]}", "expected 0 or 1, found 2"),
            (
                "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}",
                "9 tokens, but the model's context holds 8",
            ),
            ("{\"input_ids\": [1", "malformed JSON"),
            ("[1, 2]", "a record must be an object"),
        ];
        for (line, cause) in cases {
            let error = read(&format!("{{\"input_ids\": [1]}}\n\n{line}\n")).unwrap_err();
            assert!(error.contains("tokens.jsonl, line 3: "), "{line}: {error}");
            assert!(error.contains(cause), "{line}: {error}");
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(read("\n \n").unwrap_err().contains("holds no record"));
    }
}
