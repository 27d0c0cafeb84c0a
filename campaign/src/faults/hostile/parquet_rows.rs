//! A small Parquet file of many rows: all have the same text, which stands in it once.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Rows that are written at once.
const CHUNK: usize = 1 << 20;

/// Writes `count` equal rows.
pub(crate) fn write(path: &Path, count: usize) -> Result<()> {
    let schema = Arc::new(parse_message_type("message m { required binary text (UTF8); }")?);
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path)?, schema, properties)?;
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let values = vec![ByteArray::from("The same text, again and again."); CHUNK.min(count)];
        for from in (0..count).step_by(CHUNK) {
            let part = &values[..values.len().min(count - from)];
            column.typed::<ByteArrayType>().write_batch(part, None, None)?;
        }
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}
