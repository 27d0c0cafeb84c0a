//! Parquet files with pages in gzip, Brotli or Zstandard.
//!
//! The reader's own decoder of Zstandard is a C library, and none of the three has a limit to what
//! a page unpacks to. So such a column chunk is opened as if it were not compressed: its pages come
//! as they are stored and are unpacked here.

use std::sync::Arc;

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{
    ChunkReader, FileReader, RowGroupReader, SerializedFileReader, SerializedPageReader,
};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type as SchemaType;
use ruzstd::decoding::StreamingDecoder;

use super::packed::read_within;

/// The most bytes of a page, which its header counts in 31 bits.
const MOST: u64 = i32::MAX as u64;
/// Bytes that are read at a time.
const BUFFER: usize = 4096;

/// A compression that is unpacked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Gzip,
    Brotli,
    Zstandard,
}

impl Codec {
    /// The codec of a compression, unless the reader unpacks it.
    fn of(compression: Compression) -> Option<Self> {
        match compression {
            Compression::GZIP(_) => Some(Self::Gzip),
            Compression::BROTLI(_) => Some(Self::Brotli),
            Compression::ZSTD(_) => Some(Self::Zstandard),
            _ => None,
        }
    }

    fn unpack(self, packed: &[u8]) -> std::result::Result<Vec<u8>, String> {
        match self {
            Self::Gzip => read_within(MultiGzDecoder::new(packed), "gzip", MOST),
            Self::Brotli => read_within(Decompressor::new(packed, BUFFER), "Brotli", MOST),
            Self::Zstandard => {
                let decoder = StreamingDecoder::new(packed)
                    .map_err(|error| format!("not readable as Zstandard: {error}"))?;
                read_within(decoder, "Zstandard", MOST)
            }
        }
    }
}

/// A Parquet file whose pages may have one of these compressions.
pub(super) struct Reader<R: ChunkReader + 'static> {
    chunks: Arc<R>,
    inner: SerializedFileReader<R>,
}

impl<R: ChunkReader + Clone + 'static> Reader<R> {
    pub(super) fn new(chunks: R) -> Result<Self> {
        let inner = SerializedFileReader::new(chunks.clone())?;
        Ok(Self { chunks: Arc::new(chunks), inner })
    }
}

impl<R: ChunkReader + 'static> FileReader for Reader<R> {
    fn metadata(&self) -> &ParquetMetaData {
        self.inner.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.inner.num_row_groups()
    }

    fn get_row_group(&self, i: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        let metadata = self.metadata().row_group(i);
        let inner = self.inner.get_row_group(i)?;
        Ok(Box::new(Group { chunks: Arc::clone(&self.chunks), metadata, inner }))
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct Group<'a, R: ChunkReader> {
    chunks: Arc<R>,
    metadata: &'a RowGroupMetaData,
    inner: Box<dyn RowGroupReader + 'a>,
}

impl<R: ChunkReader + 'static> RowGroupReader for Group<'_, R> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.inner.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        let column = self.metadata.column(i);
        let Some(codec) = Codec::of(column.compression()) else {
            return self.inner.get_column_page_reader(i);
        };
        let stored =
            column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let rows = usize::try_from(self.metadata.num_rows())?;
        let pages = SerializedPageReader::new(Arc::clone(&self.chunks), &stored, rows, None)?;
        Ok(Box::new(Unpacked { pages, codec }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.inner.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column chunk, unpacked.
struct Unpacked<R: ChunkReader> {
    pages: SerializedPageReader<R>,
    codec: Codec,
}

impl<R: ChunkReader> Iterator for Unpacked<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<R: ChunkReader> PageReader for Unpacked<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.map(|page| unpack(page, self.codec)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

/// The page with its values unpacked. The levels of a page of version 2 stand before its values as
/// they are.
fn unpack(mut page: Page, codec: Codec) -> Result<Page> {
    match &mut page {
        Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => {
            *buf = Bytes::from(bytes(buf, codec)?);
        }
        Page::DataPageV2 {
            buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, ..
        } if *is_compressed => {
            let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
            if levels > buf.len() {
                return Err(ParquetError::General("a page's levels are longer than it".into()));
            }
            let values = bytes(&buf[levels..], codec)?;
            *buf = Bytes::from([&buf[..levels], &values[..]].concat());
            *is_compressed = false;
        }
        Page::DataPageV2 { .. } => {}
    }
    Ok(page)
}

fn bytes(packed: &[u8], codec: Codec) -> Result<Vec<u8>> {
    // A page without a value may have nothing to unpack.
    if packed.is_empty() {
        return Ok(Vec::new());
    }
    codec.unpack(packed).map_err(ParquetError::General)
}
