//! The text of tokens as they come: never half a character, and nothing of a text that stops the
//! row.

use crate::text::TextModel;
use ist_records::Failure;

/// The text of one row so far, and how much of it was handed out.
#[derive(Debug)]
pub struct TextStream<'a> {
    text: &'a TextModel,
    stops: &'a [String],
    shown: String,
}

/// What a row's tokens come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The text that can be shown now and was not shown before.
    pub new: String,
    /// Whether a stop text has appeared.
    pub stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A row of which nothing was shown. It ends where one of `stops` appears.
    pub fn new(text: &'a TextModel, stops: &'a [String]) -> Self {
        Self { text, stops, shown: String::new() }
    }

    /// Reads all of a row's tokens so far.
    ///
    /// # Errors
    ///
    /// Tokens that the tokenizer cannot decode.
    pub fn read(&mut self, ids: &[u32]) -> Result<Read, Failure> {
        let text = self.text.decode(ids)?;
        let (text, stopped) = cut(&text, self.stops);
        // What looks like a broken character may be the beginning of a whole one.
        let settled =
            if stopped { text } else { before_stop(text.trim_end_matches('\u{fffd}'), self.stops) };
        let new = settled.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned();
        self.shown += &new;
        Ok(Read { new, stopped })
    }

    /// The whole text of a row that has ended, and what of it was not shown yet.
    ///
    /// # Errors
    ///
    /// As [`TextStream::read`].
    pub fn finish(self, ids: &[u32]) -> Result<(String, String), Failure> {
        let text = self.text.decode(ids)?;
        let (text, _) = cut(&text, self.stops);
        let same = text.char_indices().zip(self.shown.chars()).find(|((_, a), b)| a != b);
        let shown = same.map_or(self.shown.len().min(text.len()), |((at, _), _)| at);
        Ok((text.to_owned(), text[shown..].to_owned()))
    }
}

/// The text before the first stop text, and whether there is one.
fn cut<'a>(text: &'a str, stops: &[String]) -> (&'a str, bool) {
    match stops.iter().filter_map(|stop| text.find(stop)).min() {
        Some(at) => (&text[..at], true),
        None => (text, false),
    }
}

/// The text without an end that a stop text may begin with.
fn before_stop<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let may_stop = |at: &usize| stops.iter().any(|stop| stop.starts_with(&text[*at..]));
    let at = text.char_indices().map(|(at, _)| at).find(may_stop);
    &text[..at.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::records::testing::tokenizer;
    use proptest::prelude::*;

    fn model() -> TextModel {
        TextModel { tokenizer: tokenizer(&[]), end_tokens: Vec::new(), chat_template: Ok(None) }
    }

    /// The pieces shown as a text's tokens come one by one, and the whole text.
    fn shown(text: &str, stops: &[&str]) -> (Vec<String>, String) {
        let model = model();
        let ids = model.tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(&model, &stops);
        let mut pieces = Vec::new();
        let mut read = 0;
        for count in 1..=ids.len() {
            read = count;
            let found = stream.read(&ids[..count]).unwrap();
            pieces.push(found.new);
            if found.stopped {
                break;
            }
        }
        let (whole, rest) = stream.finish(&ids[..read]).unwrap();
        pieces.push(rest);
        (pieces, whole)
    }

    #[test]
    fn a_character_is_shown_when_its_last_byte_is_there() {
        let (pieces, _) = shown("aé漢", &[]);
        assert_eq!(pieces, ["a", "", "é", "", "", "漢", ""]);
    }

    #[test]
    fn bytes_that_are_no_character_are_shown_at_the_end() {
        let model = model();
        let ids = model.tokenizer.encode("a漢", false).unwrap().get_ids()[..2].to_vec();
        let mut stream = TextStream::new(&model, &[]);
        assert_eq!(stream.read(&ids).unwrap().new, "a");
        assert_eq!(stream.finish(&ids).unwrap(), ("a\u{fffd}".to_owned(), "\u{fffd}".to_owned()));
    }

    #[test]
    fn nothing_of_a_stop_text_is_shown() {
        assert_eq!(
            shown("one.\n\ntwo", &["\n\n"]),
            (["o", "n", "e", ".", "", "", ""].map(String::from).to_vec(), "one.".into())
        );
        // What only began like one is shown once that is clear.
        assert_eq!(shown("a\nb", &["\n\n"]).0, ["a", "", "\nb", ""]);
        assert_eq!(shown("a\n", &["\n\n"]).0, ["a", "", "\n"]);
        assert_eq!(shown("abcd", &["cd", "bc"]).1, "a");
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(text in "[abé漢🙂]{0,12}", stop in "[abé]{1,2}") {
            let (pieces, whole) = shown(&text, &[&stop]);
            prop_assert_eq!(pieces.concat(), whole.clone());
            prop_assert_eq!(whole, text.split(&stop).next().unwrap_or_default());
        }
    }
}
