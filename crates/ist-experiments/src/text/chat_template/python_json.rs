//! JSON in Python's spelling: `", "` and `": "` between things.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The arguments of `json.dumps`.
#[derive(Clone, Debug, Default)]
pub(super) struct Spelling {
    /// Spaces of a level; without it all stands on one line.
    pub(super) indent: Option<usize>,
    /// Whether characters beyond ASCII are escaped.
    pub(super) ensure_ascii: bool,
    /// What stands between items and behind a key.
    pub(super) separators: Option<[String; 2]>,
}

const SPACES: [u8; 64] = [b' '; 64];

/// Bytes up to a limit. More are an error.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.bytes.len()) {
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Python {
    indent: Option<usize>,
    separators: [String; 2],
    level: usize,
    empty: bool,
}

impl Python {
    fn open<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if !self.empty {
            self.new_line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn item<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            writer.write_all(self.separators[0].as_bytes())?;
        }
        self.new_line(writer)
    }

    fn new_line<W: Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        match self.indent {
            Some(width) => {
                writer.write_all(b"\n")?;
                // A template says how wide, so it is written in pieces, and the writer stops where
                // it is too much.
                let mut spaces = width.saturating_mul(self.level);
                while spaces > 0 {
                    let piece = spaces.min(SPACES.len());
                    writer.write_all(&SPACES[..piece])?;
                    spaces -= piece;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Formatter for Python {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.separators[1].as_bytes())
    }
}

/// `json.dumps(value, ..)` of at most `limit` bytes. An error of writing means that there are more.
pub(super) fn dumps(
    value: &impl Serialize,
    spelling: &Spelling,
    limit: usize,
) -> serde_json::Result<String> {
    let between = if spelling.indent.is_some() { "," } else { ", " };
    let separators =
        spelling.separators.clone().unwrap_or_else(|| [between, ": "].map(str::to_owned));
    let formatter = Python { indent: spelling.indent, separators, level: 0, empty: true };
    let mut written = Limited { bytes: Vec::new(), limit };
    value.serialize(&mut Serializer::with_formatter(&mut written, formatter))?;
    let text = String::from_utf8_lossy(&written.bytes).into_owned();
    Ok(if spelling.ensure_ascii { escaped(&text) } else { text })
}

/// Characters beyond ASCII, which stand in strings only, as their UTF-16 units.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_spelt_as_python_spells_it() {
        let value = json!({"a": [1, 2.5, "é<🙂"], "b": null, "c": {}, "d": []});
        let spelt = |spelling: Spelling| dumps(&value, &spelling, usize::MAX).unwrap();
        let plain = Spelling::default();
        assert_eq!(spelt(plain.clone()), r#"{"a": [1, 2.5, "é<🙂"], "b": null, "c": {}, "d": []}"#);
        let tight = Spelling { separators: Some([",", ":"].map(str::to_owned)), ..plain.clone() };
        assert_eq!(spelt(tight), r#"{"a":[1,2.5,"é<🙂"],"b":null,"c":{},"d":[]}"#);
        let ascii = Spelling { ensure_ascii: true, ..plain.clone() };
        assert_eq!(
            spelt(ascii),
            r#"{"a": [1, 2.5, "\u00e9<\ud83d\ude42"], "b": null, "c": {}, "d": []}"#
        );
        let indented = "{\n  \"a\": [\n    1,\n    2.5,\n    \"é<🙂\"\n  ],\n  \"b\": null,\n  \"c\": {},\n  \"d\": []\n}";
        assert_eq!(spelt(Spelling { indent: Some(2), ..plain }), indented);
    }

    #[test]
    fn a_text_beyond_the_limit_is_never_written() {
        let value = json!([[1]]);
        let wide = Spelling { indent: Some(usize::MAX), ..Spelling::default() };
        assert!(dumps(&value, &wide, 1 << 20).unwrap_err().is_io());
        assert!(dumps(&value, &Spelling::default(), 4).unwrap_err().is_io());
        assert_eq!(dumps(&value, &Spelling::default(), 5).unwrap(), "[[1]]");
    }
}
