//! The protocol buffer `Event`, as far as scalars need it.
//!
//! ```text
//! Event:   1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary (Summary)
//! Summary: 1 value (Value, repeated)
//! Value:   1 tag (string), 2 simple_value (float)
//! ```

/// Wire types.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const COUNTED: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The event that a file begins with. `seconds` since 1970.
pub(super) fn version(seconds: f64) -> Vec<u8> {
    let mut event = wall_time(seconds);
    counted(&mut event, 3, b"brain.Event:2");
    event
}

/// The event of a step's scalars, in this order. `seconds` since 1970.
pub(super) fn scalars(seconds: f64, step: usize, values: &[(String, f64)]) -> Vec<u8> {
    let mut event = wall_time(seconds);
    key(&mut event, 2, VARINT);
    varint(&mut event, step as u64);
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        counted(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, FOUR_BYTES);
        entry.extend((*value as f32).to_le_bytes());
        counted(&mut summary, 1, &entry);
    }
    counted(&mut event, 5, &summary);
    event
}

/// The step of an event that [`scalars`] wrote; `None` of one without.
pub(super) fn step_of(event: &[u8]) -> Option<usize> {
    // Behind the wall time, a key and eight bytes.
    let [key, rest @ ..] = event.get(9..)? else { return None };
    if u64::from(*key) != (2 << 3 | VARINT) {
        return None;
    }
    let mut step = 0_u64;
    for (place, byte) in rest.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7F).checked_shl(7 * place as u32)?;
        if byte & 0x80 == 0 {
            return usize::try_from(step).ok();
        }
    }
    None
}

fn wall_time(seconds: f64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, EIGHT_BYTES);
    event.extend(seconds.to_le_bytes());
    event
}

fn key(bytes: &mut Vec<u8>, field: u64, wire: u64) {
    varint(bytes, field << 3 | wire);
}

fn counted(bytes: &mut Vec<u8>, field: u64, content: &[u8]) {
    key(bytes, field, COUNTED);
    varint(bytes, content.len() as u64);
    bytes.extend(content);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_again() {
        for step in [0, 1, 127, 128, 16_383, 16_384, usize::MAX >> 1] {
            assert_eq!(step_of(&scalars(1.5, step, &[("a".to_owned(), 2.0)])), Some(step));
        }
        assert_eq!(step_of(&version(1.5)), None);
        assert_eq!(step_of(&[]), None);
    }
}
