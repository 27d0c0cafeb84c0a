//! Compressed data files: gzip and Zstandard, told by the content.
//!
//! A few kilobytes can unpack to more than a machine holds, so what comes out is counted and the
//! file refused beyond a limit.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::machine::free_memory;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTANDARD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The most bytes that a file may unpack to.
const MOST: u64 = 16 << 30;

/// A file's bytes, unpacked where they are packed.
pub(super) fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    // A quarter of what is free: the text grows by doubling, and the records take memory too.
    let free = free_memory::on_host().map_or(MOST, |free| free / 4);
    unpacked_within(bytes, MOST.min(free))
}

fn unpacked_within(bytes: Vec<u8>, limit: u64) -> Result<Vec<u8>, String> {
    if bytes.starts_with(GZIP) {
        return read_within(MultiGzDecoder::new(bytes.as_slice()), "gzip", limit);
    }
    if bytes.starts_with(ZSTANDARD) {
        return frames_within(&bytes, limit);
    }
    Ok(bytes)
}

/// The frames of a Zstandard file, one behind the other.
fn frames_within(mut bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let frame = StreamingDecoder::new(&mut bytes)
            .map_err(|error| format!("not readable as Zstandard: {error}"))?;
        let left = limit - all.len() as u64;
        all.extend(read_within(frame, "Zstandard", left)?);
    }
    Ok(all)
}

/// Everything that a decoder gives, up to a limit.
pub(super) fn read_within(decoder: impl Read, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    decoder
        .take(limit.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("not readable as {name}: {error}"))?;
    if unpacked.len() as u64 > limit {
        let most = ist_records::terminal::human(usize::try_from(limit).unwrap_or(usize::MAX));
        return Err(format!(
            "the {name} file unpacks to more than {most}, the most that is read here; \
             split it into several files"
        ));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn packed_bytes_come_back_and_others_stay() {
        let text = b"{\"text\": \"a\"}\n".repeat(300);
        for packed in [gzip(&text), zstandard(&text), text.clone()] {
            assert_eq!(unpacked(packed.clone()).unwrap(), text);
        }
        // Files that were put one behind the other are one file.
        for pack in [gzip, zstandard] {
            let both = [pack(&text), pack(&text)].concat();
            assert_eq!(unpacked(both).unwrap(), text.repeat(2));
        }
    }

    #[test]
    fn a_file_that_unpacks_to_too_much_is_refused() {
        let zeros = vec![0; 1 << 20];
        for packed in [gzip(&zeros), zstandard(&zeros)] {
            assert!(packed.len() < 4096, "{}", packed.len());
            let error = unpacked_within(packed.clone(), (1 << 20) - 1).unwrap_err();
            assert!(error.contains("unpacks to more than"), "{error}");
            assert_eq!(unpacked_within(packed, 1 << 20).unwrap().len(), 1 << 20);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_never_panics() {
        for packed in [gzip(&b"{\"text\": \"abcdef\"}".repeat(9)), zstandard(&b"abc".repeat(99))] {
            for length in 4..packed.len() {
                let _ = unpacked(packed[..length].to_vec()).unwrap_err();
            }
            for at in 4..packed.len() {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x55;
                let _ = unpacked(damaged);
            }
        }
    }
}
