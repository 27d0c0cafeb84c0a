//! The frame of a record: its length, the length's checksum, the data, the data's checksum, all
//! little-endian.
//!
//! The checksum is CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), rotated by 15 bits and
//! with a constant added, so that a checksum of data that holds checksums is no special case.

/// Bytes in front of the data.
const HEAD: usize = 12;
/// Bytes behind the data.
const TAIL: usize = 4;

/// Checksums of single bytes.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0x82F6_3B78 } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc: u32, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize])
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// The record of `data`.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// The data of the record that `bytes` begin with, and what is behind it; `None` where no whole
/// record is.
pub(super) fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, check) = bytes.get(..HEAD)?.split_at(8);
    if masked(length).to_le_bytes() != check {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let end = HEAD.checked_add(length)?;
    let (data, rest) = (bytes.get(HEAD..end)?, bytes.get(end..)?);
    let (check, rest) = rest.split_at_checked(TAIL)?;
    (masked(data).to_le_bytes() == check).then_some((data, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // The test vectors of appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn records_are_read_back_until_the_first_that_is_not_whole() {
        let bytes = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let (one, rest) = first(&bytes).unwrap();
        let (two, rest) = first(rest).unwrap();
        let (three, rest) = first(rest).unwrap();
        assert_eq!((one, two, three, rest), (&b"one"[..], &b""[..], &b"three"[..], &b""[..]));
        for cut in 0..framed(b"one").len() {
            assert!(first(&bytes[..cut]).is_none(), "{cut}");
            let mut broken = framed(b"one");
            broken[cut] ^= 1;
            assert!(first(&broken).is_none(), "{cut}");
        }
    }
}
