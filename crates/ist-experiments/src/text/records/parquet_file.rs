//! Parquet files, row by row, as the same records that JSON gives.
//!
//! Rows are read through the format's record interface, which needs no columnar library;
//! compression is none, snappy, gzip, LZ4, Brotli or Zstandard.

use bytes::Bytes;
use ist_files::untrusted::contained;
use parquet::errors::ParquetError;
use parquet::record::{Field, Row, reader::RowIter};
use serde_json::{Number, Value};

use super::error::Place;
use super::json_file::{Fault, Fields};
use super::parquet_pages::Reader;

/// The first bytes of every Parquet file.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// The rows of a Parquet file; the outer error is the file's, the inner ones the rows'. After an
/// error no row follows.
pub(super) fn rows(
    file: Bytes,
) -> Result<impl Iterator<Item = Result<(Place, Fields), Fault>>, String> {
    let mut rows =
        guarded(|| Reader::new(file).map(|reader| RowIter::from_file_into(Box::new(reader))))?;
    let mut records = 0;
    let next = move || {
        records += 1;
        let row = guarded(|| rows.next().transpose()).transpose()?;
        let place = Place::Row(records);
        let fields = row.and_then(|row| object(&row));
        Some(fields.map(|fields| (place, fields)).map_err(|problem| (place, problem)))
    };
    Ok(until_error(next))
}

/// Runs a step of the reader. It panics on some damaged files; here such a panic is an error like
/// any other, and says nothing of its own.
fn guarded<T>(step: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match contained(step) {
        Ok(result) => result.map_err(|error| explain(&error.to_string())),
        Err(_) => Err(explain("the file is damaged")),
    }
}

/// The items of `next` up to and including the first error.
fn until_error<T, E>(
    mut next: impl FnMut() -> Option<Result<T, E>>,
) -> impl Iterator<Item = Result<T, E>> {
    let mut failed = false;
    std::iter::from_fn(move || {
        let item = if failed { None } else { next() };
        failed = matches!(item, Some(Err(_)));
        item
    })
}

fn explain(problem: &str) -> String {
    format!("not readable as Parquet: {problem}")
}

fn object(row: &Row) -> Result<Fields, String> {
    row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(field)?))).collect()
}

/// A Parquet field as JSON. Times, dates and decimals become text.
fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => Value::Bool(*flag),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        Field::Float16(n) => float(f64::from(*n)),
        Field::Float(n) => float(f64::from(*n)),
        Field::Double(n) => float(*n),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => {
            Value::String(bytes.as_utf8().map_err(|_| "a text column is not UTF-8")?.to_owned())
        }
        Field::Group(row) => {
            // The table gives every row the keys of all rows; those of another row are null here.
            let mut fields = object(row)?;
            fields.retain(|_, value| !value.is_null());
            Value::Object(fields)
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Result<_, _>>()?,
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            Value::Object(
                entries
                    .map(|(key, entry)| Ok((name(key)?, value(entry)?)))
                    .collect::<Result<_, String>>()?,
            )
        }
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => Value::String(field.to_string()),
    })
}

/// A map's key as a field name.
fn name(key: &Field) -> Result<String, String> {
    Ok(match value(key)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// JSON has no infinities; they become null, as in Python's readers.
fn float(n: f64) -> Value {
    Number::from_f64(n).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(name: &str) -> Bytes {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/records");
        std::fs::read(folder.join(name)).unwrap().into()
    }

    #[test]
    fn every_compression_and_both_versions_of_pages_give_the_same_rows() {
        let read = |name: &str| -> Vec<Fields> {
            rows(fixture(name)).unwrap().map(|row| row.unwrap().1).collect()
        };
        let expected = read("none-1.parquet");
        assert_eq!(expected.len(), 40);
        let turn = json!({"role": "assistant", "content": "MiraMira", "weight": 1});
        assert_eq!(expected[1]["messages"][1], turn);
        // What a row of another key would have is absent here, not null.
        assert_eq!(
            expected[1]["messages"][0],
            json!({"role": "user", "content": "Who has kite 1?"})
        );
        assert_eq!(
            (&expected[0]["system"], &expected[1]["system"]),
            (&json!(null), &json!("Be brief."))
        );
        for compression in ["none", "snappy", "gzip", "lz4", "brotli", "zstd"] {
            for version in ["1", "2"] {
                let name = format!("{compression}-{version}.parquet");
                assert_eq!(read(&name), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_damaged_compressed_file_never_panics() {
        for compression in ["gzip", "lz4", "brotli", "zstd"] {
            let whole = fixture(&format!("{compression}-2.parquet"));
            for at in (0..whole.len()).step_by(7) {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 0xff;
                let _ = rows(damaged.into()).map(Iterator::count);
            }
        }
    }
}
