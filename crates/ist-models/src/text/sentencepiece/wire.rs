//! Protobuf's wire format: a message is a sequence of fields, each a number and a value.

/// A field's value as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireValue<'a> {
    /// Integers, booleans and enumerations.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes: `float` among others.
    Fixed32(u32),
    /// Texts, bytes and messages.
    Bytes(&'a [u8]),
}

impl<'a> WireValue<'a> {
    fn kind(self) -> &'static str {
        match self {
            Self::Varint(_) => "an integer",
            Self::Fixed64(_) => "eight bytes",
            Self::Fixed32(_) => "four bytes",
            Self::Bytes(_) => "bytes",
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(format!("expected bytes, found {}", other.kind())),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    pub(super) fn float(self) -> Result<f32, String> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            other => Err(format!("expected a float, found {}", other.kind())),
        }
    }

    /// A 32-bit integer; negative ones are written with 64 bits.
    pub(super) fn integer(self) -> Result<i32, String> {
        match self {
            Self::Varint(value) => Ok(value as i32),
            other => Err(format!("expected an integer, found {}", other.kind())),
        }
    }

    pub(super) fn boolean(self) -> Result<bool, String> {
        Ok(self.integer()? != 0)
    }
}

/// The fields of a message, in the order of the bytes; ends after the first fault.
pub(super) struct WireFields<'a>(&'a [u8]);

impl<'a> WireFields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("the file ends inside a field")?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    fn field(&mut self) -> Result<(u64, WireValue<'a>), String> {
        let key = self.varint()?;
        let little_endian =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(little_endian(self.take(8)?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Fixed32(little_endian(self.take(4)?) as u32),
            other => return Err(format!("unknown wire type {other}")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for WireFields<'a> {
    type Item = Result<(u64, WireValue<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_is_read() {
        let bytes = [
            0x08, 0x96, 0x01, 0x15, 0, 0, 0x80, 0x3f, 0x1a, 2, b'h', b'i', 0x21, 1, 0, 0, 0, 0, 0,
            0, 0,
        ];
        let fields: Vec<_> = WireFields::of(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields[0], (1, WireValue::Varint(150)));
        assert_eq!(fields[1].1.float().unwrap(), 1.0);
        assert_eq!(fields[2].1.text().unwrap(), "hi");
        assert_eq!(fields[3], (4, WireValue::Fixed64(1)));
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(WireFields::of(&minus_one).next().unwrap().unwrap().1.integer().unwrap(), -1);
    }

    #[test]
    fn damaged_bytes_are_a_fault_and_the_end() {
        for bytes in [
            &[0x08][..],
            &[0x0a, 5, 1],
            &[0x0b, 0],
            &[0xff; 12],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            let mut fields = WireFields::of(bytes);
            assert!(fields.next().unwrap().is_err(), "{bytes:?}");
            assert!(fields.next().is_none());
        }
    }
}
