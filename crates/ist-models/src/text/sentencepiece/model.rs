//! The fields of a SentencePiece model that a tokenizer is made of, with the defaults of
//! `sentencepiece_model.proto`.

use super::wire::{WireFields, WireValue};

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A piece of text.
    Normal,
    /// What stands for text that no piece covers.
    Unknown,
    /// A token that no text gives, such as the begin and the end token.
    Control,
    /// A text that is one token always.
    UserDefined,
    /// One byte, `<0xNN>`, for text that no piece covers.
    Byte,
}

/// An entry of the vocabulary; its id is its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: Kind,
}

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The likeliest cut.
    Unigram,
    /// Pairs are merged, that with the highest score first.
    Bpe,
}

/// A SentencePiece model.
#[derive(Clone, Debug)]
pub(crate) struct SentencePieceModel {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) algorithm: Algorithm,
    pub(crate) byte_fallback: bool,
    pub(crate) unknown: usize,
    /// The ids of the begin and the end token; negative where there is none.
    pub(crate) begin: i32,
    pub(crate) end: i32,
    /// What characters are replaced by before anything else, compiled; empty replaces nothing.
    pub(crate) character_map: Vec<u8>,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    /// Reads `tokenizer.model`.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            unknown: 0,
            begin: 1,
            end: 2,
            character_map: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        for field in WireFields::of(bytes) {
            match field? {
                (1, message) => model.pieces.push(piece(message.bytes()?)?),
                (2, message) => model.trainer(message.bytes()?)?,
                (3, message) => model.normalizer(message.bytes()?)?,
                (5, message) => refuse_denormalizer(message.bytes()?)?,
                _ => {}
            }
        }
        if model.unknown >= model.pieces.len() {
            return Err(format!(
                "it holds {} pieces, and the unknown one is to be {}",
                model.pieces.len(),
                model.unknown
            ));
        }
        Ok(model)
    }

    fn trainer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in WireFields::of(message) {
            match field? {
                (3, value) => self.algorithm = algorithm(value)?,
                (24, value) if value.boolean()? => {
                    return Err("`treat_whitespace_as_suffix` is not supported".to_owned());
                }
                (35, value) => self.byte_fallback = value.boolean()?,
                (40, value) => {
                    self.unknown =
                        usize::try_from(value.integer()?).map_err(|_| "it has no unknown piece")?;
                }
                (41, value) => self.begin = value.integer()?,
                (42, value) => self.end = value.integer()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in WireFields::of(message) {
            match field? {
                (2, value) => self.character_map = value.bytes()?.to_vec(),
                (3, value) => self.add_dummy_prefix = value.boolean()?,
                (4, value) => self.remove_extra_whitespaces = value.boolean()?,
                (5, value) if !value.boolean()? => {
                    return Err("`escape_whitespaces = false` is not supported".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn algorithm(value: WireValue<'_>) -> Result<Algorithm, String> {
    match value.integer()? {
        1 => Ok(Algorithm::Unigram),
        2 => Ok(Algorithm::Bpe),
        other => {
            Err(format!("model type {other} is not supported; expected 1 (unigram) or 2 (bpe)"))
        }
    }
}

fn piece(message: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    for field in WireFields::of(message) {
        match field? {
            (1, value) => value.text()?.clone_into(&mut piece.text),
            (2, value) => piece.score = value.float()?,
            (3, value) => piece.kind = kind(value)?,
            _ => {}
        }
    }
    if piece.text.is_empty() || !piece.score.is_finite() {
        return Err(format!(
            "piece \"{}\" has score {}; expected a text and a finite score",
            piece.text, piece.score
        ));
    }
    Ok(piece)
}

fn kind(value: WireValue<'_>) -> Result<Kind, String> {
    match value.integer()? {
        1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        6 => Ok(Kind::Byte),
        other => Err(format!("a piece of type {other} is not supported")),
    }
}

fn refuse_denormalizer(message: &[u8]) -> Result<(), String> {
    for field in WireFields::of(message) {
        if let (2, value) = field?
            && !value.bytes()?.is_empty()
        {
            return Err("a denormalizer is not supported".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let piece = [0x0a, 3, 0x0a, 1, b'a'];
        assert_eq!(SentencePieceModel::read(&piece).unwrap().pieces[0].text, "a");
        let cases: [(&[u8], &str); 7] = [
            (&[], "0 pieces"),
            (&[0x0a, 0], "expected a text"),
            (&[0x0a, 2, 0x18, 5], "type 5"),
            (&[0x12, 2, 0x18, 3], "model type 3"),
            (&[0x12, 3, 0xc0, 1, 1], "treat_whitespace_as_suffix"),
            (&[0x1a, 2, 0x28, 0], "escape_whitespaces"),
            (&[0x2a, 3, 0x12, 1, 0], "denormalizer"),
        ];
        for (rest, problem) in cases {
            let prefix: &[u8] = if rest.is_empty() { &[] } else { &piece };
            let error = SentencePieceModel::read(&[prefix, rest].concat()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
