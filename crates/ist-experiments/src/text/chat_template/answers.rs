//! Which part of a conversation's text is an answer.
//!
//! A template's own `{% generation %}` blocks say it where there are any. Otherwise an answer is
//! what a turn adds to its prompt, or, in a template that writes earlier turns differently, what
//! changes with its content.

use std::ops::Range;

use super::{ChatTemplate, Turns};
use crate::text::records::chat::{Message, Role};
use crate::text::records::{DataError, Segment, Standing};

impl ChatTemplate {
    /// A whole conversation. With `apart` the answers are told from the rest. A turn that is not to
    /// be learned is told from the rest in any case.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`]; a template in whose text an answer cannot be found.
    pub fn conversation<'a>(
        &self,
        turns: impl Into<Turns<'a>>,
        apart: bool,
    ) -> Result<Segment, DataError> {
        let turns = turns.into();
        let standings = self.standings(turns)?;
        if self.marks && (apart || standings.contains(&Standing::Never)) {
            return self.by_marks(turns, &standings, apart);
        }
        let mut segment = Segment::rendered(self.render(turns, false)?, Vec::new());
        for (at, standing) in standings.into_iter().enumerate() {
            if standing == Standing::Never || (apart && standing == Standing::Answer) {
                let bytes = self.turn(&segment.text, turns, at)?;
                segment.mark(bytes, standing);
            }
        }
        Ok(segment)
    }

    /// What each turn's tokens are for.
    fn standings(&self, turns: Turns<'_>) -> Result<Vec<Standing>, DataError> {
        let each = turns.messages.iter().enumerate();
        each.map(|(at, message)| Ok(message.standing(self.prints_calls(turns, at)?))).collect()
    }

    /// A conversation whose answers the template marks. A mark belongs to the assistant's turn of
    /// the same number where there are as many, and else to the turn in whose text it stands.
    fn by_marks(
        &self,
        turns: Turns<'_>,
        standings: &[Standing],
        apart: bool,
    ) -> Result<Segment, DataError> {
        let Marked { text, marks } = self.marked(turns)?;
        let mut segment = Segment { marked: true, ..Segment::rendered(text, Vec::new()) };
        let is_answer = |at: usize| turns.messages[at].role == Role::Assistant;
        let answers: Vec<usize> = (0..standings.len()).filter(|at| is_answer(*at)).collect();
        let paired = answers.len() == marks.len();
        if paired {
            for (at, bytes) in answers.into_iter().zip(marks) {
                segment.mark(bytes, standings[at]);
            }
        } else {
            segment.learned = marks;
        }
        for (at, standing) in standings.iter().enumerate() {
            let settled = match (is_answer(at), standing) {
                (true, Standing::Answer) => true,
                (true, _) => paired,
                (false, Standing::Never) => apart,
                (false, _) => true,
            };
            if !settled {
                let bytes = self.turn(&segment.text, turns, at)?;
                segment.learned.retain(|mark| mark.end <= bytes.start || bytes.end <= mark.start);
                segment.mark(bytes, *standing);
            }
        }
        Ok(segment)
    }

    /// The text of a conversation and the bytes that the template marks.
    fn marked(&self, turns: Turns<'_>) -> Result<Marked, DataError> {
        let [begin, end] = unused_characters(turns.messages).ok_or_else(|| {
            DataError::Template(
                "the conversation holds every character that marks could be".to_owned(),
            )
        })?;
        let signs = [begin, end].map(String::from);
        let rendered = self.render_marked(turns, false, [&signs[0], &signs[1]])?;
        let mut text = String::with_capacity(rendered.len());
        let mut marks = Vec::new();
        let mut start = 0;
        for character in rendered.chars() {
            match character {
                found if found == begin => start = text.len(),
                found if found == end => marks.push(start..text.len()),
                other => text.push(other),
            }
        }
        Ok(Marked { text, marks })
    }

    /// The bytes of `text`, the whole conversation, that are the turn at `at`: an answer with the
    /// end of its turn, of another turn what it says.
    fn turn(&self, text: &str, turns: Turns<'_>, at: usize) -> Result<Range<usize>, DataError> {
        let is_answer = turns.messages[at].role == Role::Assistant;
        let appended = if is_answer { self.appended(text, turns, at) } else { None };
        if let Some(bytes) = appended {
            return Ok(bytes);
        }
        self.exchanged(text, turns, at)?.ok_or_else(|| {
            DataError::Template(format!(
                "the answer in turn {at} cannot be found in what the model's chat template ({}) \
                 renders; set `data.train_on_inputs = true`, end the conversation with that turn, \
                 or use `data.template = \"alpaca\"`",
                self.file
            ))
        })
    }

    /// What a turn adds to its prompt, in a template that only ever appends.
    fn appended(&self, text: &str, turns: Turns<'_>, at: usize) -> Option<Range<usize>> {
        let before = Turns { messages: &turns.messages[..at], ..turns };
        let with = Turns { messages: &turns.messages[..=at], ..turns };
        let prompt = self.render(before, true).ok()?;
        let turn = self.render(with, false).ok()?;
        let appends = turn.starts_with(&prompt) && text.starts_with(&turn);
        appends.then_some(prompt.len()..turn.len())
    }

    /// A turn, found as what changes when its content is another, with as much of what ends it as
    /// stands in `text`.
    ///
    /// Some templates write an earlier turn in another way than the last one, or put the system's
    /// message elsewhere.
    fn exchanged(
        &self,
        text: &str,
        turns: Turns<'_>,
        at: usize,
    ) -> Result<Option<Range<usize>>, DataError> {
        let Some([other, _]) = unused_characters(turns.messages) else { return Ok(None) };
        let mut exchanged = turns.messages.to_vec();
        exchanged[at] = exchanged[at].clone().with_content(other.to_string());
        let whole = self.render(Turns { messages: &exchanged, ..turns }, false)?;
        let last = self.render(Turns { messages: &exchanged[..=at], ..turns }, false)?;
        let (Some((before, after)), Some((_, closing))) =
            (whole.split_once(other), last.split_once(other))
        else {
            return Ok(None);
        };
        if !text.starts_with(before) || !text.ends_with(after) {
            return Ok(None);
        }
        let start = before.len();
        let end = text.len() - after.len() + common_prefix(closing, after);
        Ok((start <= end).then_some(start..end))
    }
}

/// A text and the bytes of it that are marked.
struct Marked {
    text: String,
    marks: Vec<Range<usize>>,
}

/// Two characters that mean nothing to anybody and that no message holds.
pub(super) fn unused_characters(messages: &[Message]) -> Option<[char; 2]> {
    let free =
        |character: &char| messages.iter().all(|message| !message.content.contains(*character));
    let mut free = ('\u{fdd0}'..='\u{fdef}').filter(free);
    Some([free.next()?, free.next()?])
}

/// Bytes of the longest text with which both begin.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}
