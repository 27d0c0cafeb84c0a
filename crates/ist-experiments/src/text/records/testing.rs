//! What the tests of this module share: files that vanish, and a small byte-level tokenizer.

use std::path::PathBuf;
use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use super::error::Place;
use super::json_file::Fields;
use super::record::{Body, Record};

/// A file in a folder that is removed with it.
pub(super) struct TestFile {
    pub(super) path: PathBuf,
    _folder: TempDir,
}

pub(super) fn file(name: &str, text: &str) -> TestFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    TestFile { path, _folder: folder }
}

/// A record on the first line of a file.
pub(super) fn record(body: Body) -> Record {
    Record { body, extra: Fields::new(), shadowed: Vec::new(), place: Place::Line(1) }
}

/// A snappy-compressed Parquet file of instructions and outputs, each row with its number as `id`
/// and the tags a and b.
pub(super) fn parquet(rows: &[(&str, Option<&str>)]) -> TestFile {
    let file = file("data.parquet", "");
    let schema = "message records \
                  { required binary instruction (UTF8); optional binary output (UTF8); required int64 id; \
                  required group tags (LIST) \
                  { repeated group list { required binary element (UTF8); } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let compressed =
        WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let target = std::fs::File::create(&file.path).unwrap();
    let mut writer = SerializedFileWriter::new(target, schema, Arc::new(compressed)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut number = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        write_column(column.untyped(), number, rows);
        column.close().unwrap();
        number += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
    file
}

fn write_column(column: &mut ColumnWriter<'_>, number: usize, rows: &[(&str, Option<&str>)]) {
    let bytes = |text: &str| ByteArray::from(text);
    match (column, number) {
        (ColumnWriter::ByteArrayColumnWriter(column), 0) => {
            let values: Vec<_> = rows.iter().map(|(instruction, _)| bytes(instruction)).collect();
            column.write_batch(&values, None, None).unwrap();
        }
        (ColumnWriter::ByteArrayColumnWriter(column), 1) => {
            let values: Vec<_> = rows.iter().filter_map(|(_, output)| output.map(bytes)).collect();
            let levels: Vec<i16> =
                rows.iter().map(|(_, output)| i16::from(output.is_some())).collect();
            column.write_batch(&values, Some(&levels), None).unwrap();
        }
        (ColumnWriter::Int64ColumnWriter(column), _) => {
            let values: Vec<i64> = (0..).take(rows.len()).collect();
            column.write_batch(&values, None, None).unwrap();
        }
        (ColumnWriter::ByteArrayColumnWriter(column), _) => {
            let values: Vec<_> = rows.iter().flat_map(|_| ["a", "b"].map(bytes)).collect();
            let repetition: Vec<i16> = rows.iter().flat_map(|_| [0, 1]).collect();
            column.write_batch(&values, Some(&vec![1; values.len()]), Some(&repetition)).unwrap();
        }
        _ => unreachable!("the schema has no other column"),
    }
}

/// Ids of the test tokenizer: the special tokens, then one token per byte, then the merges.
pub(crate) const BEGIN: u32 = 0;
pub(crate) const END: u32 = 1;

/// A byte-level tokenizer that puts `<s>` before a text and merges the given pairs of its byte
/// characters (`Ġ` is the space, `Ċ` the newline).
pub(crate) fn tokenizer(merges: &[(&str, &str)]) -> Tokenizer {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let joined = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let names = ["<s>", "</s>"]
        .into_iter()
        .map(String::from)
        .chain(alphabet.iter().map(char::to_string))
        .chain(joined);
    let vocab: serde_json::Map<_, _> =
        names.enumerate().map(|(id, name)| (name, json!(id))).collect();
    let special = |id: u32, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
               "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(BEGIN, "<s>"), special(END, "</s>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A",
            "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B",
            "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}}
        },
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false,
                  "vocab": vocab, "merges": merges}
    });
    Tokenizer::from_bytes(definition.to_string()).unwrap()
}
