//! Mutations of files: of bytes, of text, of JSON and of the header of a safetensors file.

mod json;

use crate::dice::Dice;

/// Bytes beyond which a mutated file is cut.
const LARGE: usize = 1 << 16;
/// Bytes beyond which one of many is cut.
const LARGEST: usize = 1 << 20;
/// How rarely a file may be so large.
const RARELY: usize = 200;
/// The most mutations of one file.
const MOST: usize = 4;
/// How often a piece is repeated to make something deep or long.
const REPEATS: [usize; 6] = [2, 3, 16, 200, 2000, 30_000];
/// Numbers that programs stumble over, as text.
const NUMBERS: [&str; 22] = [
    "0",
    "-0.0",
    "-1",
    "1",
    "2",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-1e999",
    "1e-320",
    "NaN",
    "0.1",
];
/// Numbers that programs stumble over, as bytes.
const INTEGERS: [u64; 9] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];
/// Pieces of text with a meaning somewhere.
const PIECES: [&str; 40] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "{% for x in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% set x = ",
    "namespace(",
    "range(",
    " ~ ",
    " * ",
    " ** ",
    "|indent(",
    "|tojson",
    "|sort",
    "|join(",
    "|replace('a', 'aa')",
    ".format(",
    "[::-1]",
    "[0:-1]",
    "null",
    "true",
    "\"",
    "'",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{1b}[31m",
    "\u{feff}",
    "\u{202e}",
    "\u{10ffff}",
    "../../",
    "/",
    "\n",
    "[[",
    "]]",
    "=",
];

/// A mutated file of that name; `others` are files to take pieces from.
pub(crate) fn mutate(name: &str, bytes: &[u8], others: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    let largest = if dice.one_in(RARELY) { LARGEST } else { LARGE.max(bytes.len()) };
    for _ in 0..=dice.below(MOST) {
        mutated = once(name, &mutated, others, dice);
        mutated.truncate(largest);
    }
    mutated
}

fn once(name: &str, bytes: &[u8], others: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    if name.ends_with(".safetensors") && !dice.one_in(4) {
        return tensors(bytes, dice).unwrap_or_else(|| raw(bytes, others, dice));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return raw(bytes, others, dice) };
    match dice.below(10) {
        0 | 1 => raw(bytes, others, dice),
        2..=4 => words(text, dice).into_bytes(),
        _ => match json::mutate(text, dice) {
            Some(text) => text.into_bytes(),
            None => words(text, dice).into_bytes(),
        },
    }
}

/// Changes bytes without a thought of what they mean.
fn raw(bytes: &[u8], others: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if out.is_empty() {
        return dice.pick(&PIECES).as_bytes().to_vec();
    }
    let at = dice.below(out.len());
    let end = (at + 1 + dice.below(64)).min(out.len());
    match dice.below(8) {
        0 => out[at] ^= 1 << dice.below(8),
        1 => out[at] = dice.below(256) as u8,
        2 => out.truncate(at),
        3 => drop(out.drain(at..end)),
        4 => {
            let piece = out[at..end].to_vec();
            let times = *dice.pick(&REPEATS);
            drop(out.splice(at..at, piece.repeat(times)));
        }
        5 => {
            let number = dice.pick(&INTEGERS).to_le_bytes();
            let width = (1 << dice.below(4)).min(out.len() - at);
            out[at..at + width].copy_from_slice(&number[..width]);
        }
        6 => out[at..end].fill(0),
        _ => {
            let other = dice.pick(others);
            if !other.is_empty() {
                let from = dice.below(other.len());
                let to = (from + 1 + dice.below(256)).min(other.len());
                drop(out.splice(at..end, other[from..to].iter().copied()));
            }
        }
    }
    out
}

/// Changes text: numbers, words, lines, pieces with a meaning.
fn words(text: &str, dice: &mut Dice) -> String {
    match dice.below(6) {
        0 | 1 => number(text, dice),
        2 => lines(text, dice),
        3 => {
            let at = boundary(text, dice);
            let end = boundary(text, dice);
            let piece = &text[at.min(end)..at.max(end)];
            let piece: String = piece.chars().take(64).collect();
            let times = *dice.pick(&REPEATS);
            format!("{}{}{}", &text[..at], piece.repeat(times), &text[at..])
        }
        _ => {
            let at = boundary(text, dice);
            let piece =
                dice.pick(&PIECES).repeat(if dice.one_in(8) { *dice.pick(&REPEATS) } else { 1 });
            format!("{}{piece}{}", &text[..at], &text[at..])
        }
    }
}

/// Replaces a run of digits.
fn number(text: &str, dice: &mut Dice) -> String {
    let from = boundary(text, dice);
    let digit = |c: char| c.is_ascii_digit();
    let start = text[from..].find(digit).map(|at| from + at).or_else(|| text.find(digit));
    let Some(start) = start else { return format!("{text}{}", dice.pick(&NUMBERS)) };
    let end = text[start..].find(|c| !digit(c)).map_or(text.len(), |length| start + length);
    format!("{}{}{}", &text[..start], dice.pick(&NUMBERS), &text[end..])
}

/// Loses, doubles or moves a line.
fn lines(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    let at = dice.below(lines.len());
    let line = lines[at];
    match dice.below(3) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, line),
        _ => {
            let to = dice.below(lines.len());
            lines.swap(at, to);
        }
    }
    lines.concat()
}

/// A place between two characters.
fn boundary(text: &str, dice: &mut Dice) -> usize {
    let at = dice.below(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Changes the header of a safetensors file, whose length mostly stays right.
fn tensors(bytes: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header = std::str::from_utf8(rest.get(..length)?).ok()?;
    let header = if dice.one_in(3) { words(header, dice) } else { json::mutate(header, dice)? };
    let claimed = if dice.one_in(10) { *dice.pick(&INTEGERS) } else { header.len() as u64 };
    Some([&claimed.to_le_bytes(), header.as_bytes(), &rest[length..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_is_mutated_and_none_is_too_large() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
        let files: [(&str, &[u8]); 5] = [
            ("a.safetensors", &file),
            ("a.json", br#"{"a": [1, {"b": "c"}], "d": null}"#),
            ("a.jsonl", b"{\"a\": 1}\n{\"a\": 2}\n"),
            ("a.toml", "seed = 3\n[model]\nname = \"\u{e9}\"\n".as_bytes()),
            ("a.bin", &[0xff, 0, 1, 2]),
        ];
        for (name, bytes) in files {
            let mut changed = 0;
            for number in 0..300 {
                let mutated = mutate(name, bytes, &[&file], &mut Dice::new(1, name, number));
                assert!(mutated.len() <= LARGEST);
                changed += usize::from(mutated != bytes);
            }
            assert!(changed > 200, "{name}: {changed} of 300");
        }
    }
}
