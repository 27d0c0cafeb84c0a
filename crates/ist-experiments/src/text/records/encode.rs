//! From text to tokens: prompt, output, end token, and which of them are learned.
//!
//! A record's text is tokenised in one piece, prompt and output together, as the model will see it:
//! tokenising the prompt alone can split the border differently. Which tokens are output is then
//! told by their offsets.

use std::ops::Range;

use ist_models::batch::{Example, IGNORED_LABEL};
use ist_models::text::tokenizer;
use tokenizers::{Encoding, Tokenizer};

use super::chat::Message;
use super::error::DataError;
use super::record::Record;
use super::template::{Segment, Template};
use super::tokens::ignore_first_real_token;

/// What an [`Encoder`] does with a record.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// The prompt.
    pub template: Template,
    /// Whether prompt tokens are learned too.
    pub train_on_inputs: bool,
    /// The most tokens of a record, end token included; what is beyond is cut.
    pub cutoff: usize,
    /// The model's end tokens. The first is appended; a text that already ends with one of them
    /// gets no other.
    pub end_tokens: Vec<u32>,
    /// The rows of the model's embedding; no token may be beyond it.
    pub vocab_size: usize,
}

/// Turns records of text into token records.
#[derive(Clone, Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    options: EncoderOptions,
}

/// A record's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The token record, or `None` where nothing is left to predict.
    pub example: Option<Example>,
    /// Whether something was cut, be it only the end token.
    pub truncated: bool,
    /// Whether it begins with a special token twice: one that the text holds, and one that the
    /// tokenizer adds.
    pub begins_twice: bool,
}

/// What a token is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Prompt,
    Output,
    /// What closes an output.
    End,
    /// What is not learned even where prompts are.
    Never,
}

type Token = (u32, Part);

/// How many texts are tokenised at once, on all threads.
const CHUNK: usize = 256;

impl Encoder {
    /// An encoder with a tokenizer of its own. The truncation and padding that a `tokenizer.json`
    /// may ask for are switched off: they would cut and fill records unseen.
    pub fn new(mut tokenizer: Tokenizer, options: EncoderOptions) -> Self {
        tokenizer.with_padding(None);
        // Switching off cannot fail: only parameters are checked.
        let _ = tokenizer.with_truncation(None);
        Self { tokenizer, options }
    }

    /// The options given.
    pub fn options(&self) -> &EncoderOptions {
        &self.options
    }

    /// A record's tokens: the template's text with the special tokens that the tokenizer adds, then
    /// an end token.
    ///
    /// With `train_on_inputs` off, labels are [`IGNORED_LABEL`] except on the output's tokens and
    /// the end token. A token belongs to the output if it carries any of its characters: one that
    /// merges the prompt's last characters with the output's first is learned, so that no part of
    /// the output goes unlearned. (Of what a chat template marks, the last token is the first that
    /// carries the last character, as in transformers.) A record whose answers are blank has
    /// nothing to predict.
    ///
    /// # Errors
    ///
    /// A template that does not fit the record; a token beyond the vocabulary.
    pub fn encode(&self, record: &Record) -> Result<Encoded, DataError> {
        if record.is_blank() {
            return Ok(Encoded::default());
        }
        let segments = self.segments(record)?;
        let first = self.first(&segments)?;
        self.assemble(&segments, first)
    }

    /// [`Encoder::encode`] of many records, on all threads. Errors name the file's place, not the
    /// file.
    pub(super) fn encode_all<'a>(
        &'a self,
        records: &'a [Record],
    ) -> impl Iterator<Item = Result<Encoded, (&'a Record, DataError)>> + 'a {
        records.chunks(CHUNK).flat_map(move |chunk| self.encode_chunk(chunk))
    }

    fn encode_chunk<'a>(
        &self,
        records: &'a [Record],
    ) -> Vec<Result<Encoded, (&'a Record, DataError)>> {
        // A record that is blank has no segment, and so nothing to predict.
        let segments: Vec<_> = records
            .iter()
            .map(|record| if record.is_blank() { Ok(Vec::new()) } else { self.segments(record) })
            .collect();
        let firsts =
            segments.iter().map(|found| found.as_ref().ok().and_then(|segments| segments.first()));
        // Records of one format are alike in this.
        let special = firsts.clone().flatten().all(|first| first.special_tokens);
        let mut encodings = match self.pieces(firsts.clone().flatten(), special) {
            Ok(encodings) => encodings.into_iter(),
            // One text failed: find it by taking them one by one.
            Err(_) => {
                return records
                    .iter()
                    .map(|record| self.encode(record).map_err(|error| (record, error)))
                    .collect();
            }
        };
        let firsts: Vec<_> = firsts.map(|first| first.and_then(|_| encodings.next())).collect();
        let all = records.iter().zip(segments).zip(firsts);
        all.map(|((record, segments), first)| {
            segments
                .and_then(|segments| self.assemble(&segments, first))
                .map_err(|error| (record, error))
        })
        .collect()
    }

    /// The ids that a record's answer follows in evaluation: the evaluation prompt, tokenised as in
    /// training.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn prompt_ids(&self, record: &Record) -> Result<Vec<u32>, DataError> {
        self.open_ids(&self.options.template.prompt_segments(record, false)?)
    }

    /// A record's evaluation prompt with `lead` and `answer` behind it, tokenised in one piece, no
    /// end token behind that. Labels are [`IGNORED_LABEL`] except on tokens that carry any
    /// character of `answer`.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn continuation(
        &self,
        record: &Record,
        lead: &str,
        answer: &str,
    ) -> Result<Example, DataError> {
        let mut segments = self.options.template.prompt_segments(record, false)?;
        if let Some(last) = segments.last_mut() {
            let start = last.text.len() + lead.len();
            last.text = format!("{}{lead}{answer}", last.text);
            last.learned = std::iter::once(start..last.text.len()).collect();
            last.marked = false;
        }
        let first = self.first(&segments)?;
        let mut tokens = self.tokens(&segments, first)?;
        while tokens.last().is_some_and(|(_, part)| *part == Part::Prompt) {
            tokens.pop();
        }
        self.within_vocabulary(&tokens)?;
        Ok(example_of(&tokens, false))
    }

    /// The ids that an answer to a conversation follows.
    ///
    /// # Errors
    ///
    /// A template that refuses the conversation; a token beyond the vocabulary.
    pub fn answer_prompt_ids(&self, messages: &[Message]) -> Result<Vec<u32>, DataError> {
        self.open_ids(&self.options.template.answer_prompt(messages.into())?)
    }

    fn open_ids(&self, segments: &[Segment]) -> Result<Vec<u32>, DataError> {
        let first = self.first(segments)?;
        let mut tokens = self.tokens(segments, first)?;
        // An end token that the tokenizer itself put behind the prompt would close it.
        let added = segments.first().is_some_and(|first| first.special_tokens);
        while added && tokens.last().is_some_and(|(id, _)| self.options.end_tokens.contains(id)) {
            tokens.pop();
        }
        self.within_vocabulary(&tokens)?;
        Ok(tokens.into_iter().map(|(id, _)| id).collect())
    }

    fn segments(&self, record: &Record) -> Result<Vec<Segment>, DataError> {
        self.options.template.segments(record, !self.options.train_on_inputs)
    }

    /// The first segment's tokens, with those that the tokenizer adds to a text's ends.
    fn first(&self, segments: &[Segment]) -> Result<Option<Encoding>, DataError> {
        let special = segments.first().is_some_and(|first| first.special_tokens);
        Ok(self.pieces(segments.first().into_iter(), special)?.pop())
    }

    fn pieces<'a>(
        &self,
        segments: impl Iterator<Item = &'a Segment>,
        special: bool,
    ) -> Result<Vec<Encoding>, DataError> {
        let texts: Vec<&str> = segments.map(|segment| segment.text.as_str()).collect();
        let encodings = tokenizer::encode_all(&self.tokenizer, texts, special);
        encodings.map_err(|error| DataError::Template(error.to_string()))
    }

    fn assemble(
        &self,
        segments: &[Segment],
        first: Option<Encoding>,
    ) -> Result<Encoded, DataError> {
        let mut tokens = self.tokens(segments, first)?;
        self.within_vocabulary(&tokens)?;
        let truncated = tokens.len() > self.options.cutoff;
        let begins_twice = self.begins_twice(&tokens);
        tokens.truncate(self.options.cutoff);
        let learned = |part: Part| match part {
            Part::Output => true,
            Part::Prompt | Part::End => self.options.train_on_inputs,
            Part::Never => false,
        };
        let example = tokens
            .iter()
            .skip(1)
            .any(|(_, part)| learned(*part))
            .then(|| example_of(&tokens, self.options.train_on_inputs));
        Ok(Encoded { example, truncated, begins_twice })
    }

    /// Whether the first two tokens are the same special one.
    fn begins_twice(&self, tokens: &[Token]) -> bool {
        let [(first, _), (second, _), ..] = tokens else { return false };
        let added = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        first == second && added.get(first).is_some_and(|token| token.special)
    }

    /// The tokens of all segments; only the first gets what the tokenizer adds to a text's ends.
    fn tokens(
        &self,
        segments: &[Segment],
        first: Option<Encoding>,
    ) -> Result<Vec<Token>, DataError> {
        let rest = self.pieces(segments.iter().skip(1), false)?;
        let mut tokens = Vec::new();
        for (segment, encoding) in segments.iter().zip(first.into_iter().chain(rest)) {
            tokens.extend(parts(segment, &encoding));
            if segment.ends {
                self.end(&mut tokens, end_of(segment));
            }
        }
        Ok(tokens)
    }

    fn end(&self, tokens: &mut Vec<Token>, part: Part) {
        let Some(end) = self.options.end_tokens.first() else { return };
        match tokens.last_mut().filter(|(id, _)| self.options.end_tokens.contains(id)) {
            Some((_, found)) => *found = part,
            None => tokens.push((*end, part)),
        }
    }

    fn within_vocabulary(&self, tokens: &[Token]) -> Result<(), DataError> {
        let size = self.options.vocab_size;
        match tokens.iter().find(|(id, _)| *id as usize >= size) {
            None => Ok(()),
            Some((id, _)) => Err(DataError::Template(format!(
                "the tokenizer gives token id {id}, but the model's vocabulary has {size} entries; \
                 use the model's own \
                 tokenizer.json"
            ))),
        }
    }
}

/// A token record whose labels are the output's tokens, and the prompt's too where they are
/// learned.
fn example_of(tokens: &[Token], prompt_is_learned: bool) -> Example {
    let label = |(id, part): &Token| match part {
        Part::Prompt if !prompt_is_learned => IGNORED_LABEL,
        Part::Never => IGNORED_LABEL,
        _ => i64::from(*id),
    };
    let mut example = Example {
        input_ids: tokens.iter().map(|(id, _)| *id).collect(),
        labels: tokens.iter().map(label).collect(),
        attention_mask: vec![true; tokens.len()],
    };
    ignore_first_real_token(&mut example);
    example
}

/// What the end token behind a segment is part of: what closes an output, and with one that is not
/// learned neither.
fn end_of(segment: &Segment) -> Part {
    let stands_last =
        |ranges: &[Range<usize>]| ranges.last().is_some_and(|last| last.end == segment.text.len());
    match segment {
        Segment { learned, .. } if stands_last(learned) => Part::End,
        Segment { never, .. } if stands_last(never) => Part::Never,
        _ => Part::Prompt,
    }
}

/// A segment's tokens and what each is part of. Tokens that the tokenizer added stand outside the
/// text: those before it count as prompt, and so do those behind it unless [`Encoder::end`] finds
/// an end token in the last place.
fn parts(segment: &Segment, encoding: &Encoding) -> impl Iterator<Item = Token> {
    let added = encoding.get_special_tokens_mask();
    let spans = encoding.get_offsets();
    let mut outputs: Vec<bool> =
        (0..spans.len()).map(|at| added[at] == 0 && carries(&segment.learned, spans[at])).collect();
    if segment.marked {
        for range in &segment.learned {
            behind_the_last_character(spans, range).for_each(|at| outputs[at] = false);
        }
    }
    encoding.get_ids().iter().enumerate().map(move |(at, id)| {
        let part = if outputs[at] {
            Part::Output
        } else if added[at] == 0 && carries(&segment.never, spans[at]) {
            Part::Never
        } else {
            Part::Prompt
        };
        (*id, part)
    })
}

/// Whether a token carries any byte of some ranges. A token trimmed to nothing at the very start of
/// a range consists of the prompt's last spaces.
fn carries(ranges: &[Range<usize>], (start, end): (usize, usize)) -> bool {
    ranges.iter().any(|range| start < range.end && end > range.start)
}

/// The tokens that carry the last character of a range beside the first that does.
fn behind_the_last_character(spans: &[(usize, usize)], range: &Range<usize>) -> Range<usize> {
    let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
        return 0..0;
    };
    let holds = |(start, end): &(usize, usize)| *start <= last && last < *end;
    let Some(first) = spans.iter().position(holds) else { return 0..0 };
    let more = spans[first + 1..].iter().take_while(|span| holds(span)).count();
    first + 1..first + 1 + more
}

#[cfg(test)]
mod tests {
    use super::super::alpaca::Instruction;
    use super::super::chat::Role;
    use super::super::chat::tests::conversation;
    use super::super::error::Place;
    use super::super::record::Body;
    use super::super::testing::{BEGIN, END, record, tokenizer};
    use super::super::text::Format;
    use super::*;
    use crate::text::chat_template::ChatTemplate;
    use ist_models::text::text_files::ChatTemplateSource;
    use proptest::prelude::*;
    use serde_json::json;

    const VOCAB_SIZE: usize = 300;

    fn options(template: Template, train_on_inputs: bool, cutoff: usize) -> EncoderOptions {
        EncoderOptions {
            template,
            train_on_inputs,
            cutoff,
            end_tokens: vec![END],
            vocab_size: VOCAB_SIZE,
        }
    }

    fn encoder(merges: &[(&str, &str)], options: EncoderOptions) -> Encoder {
        Encoder::new(tokenizer(merges), options)
    }

    fn completion(prompt: &str, completion: &str) -> Record {
        record(Body::PromptCompletion {
            prompt: prompt.to_owned(),
            completion: completion.to_owned(),
        })
    }

    fn encode(merges: &[(&str, &str)], train_on_inputs: bool, record: &Record) -> Example {
        let encoder = encoder(merges, options(Template::Alpaca, train_on_inputs, 10_000));
        encoder.encode(record).unwrap().example.unwrap()
    }

    /// The text of the ids that are labels.
    fn learned(example: &Example) -> String {
        let ids: Vec<u32> =
            example.labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect();
        tokenizer(&[]).decode(&ids, false).unwrap()
    }

    #[test]
    fn a_record_is_prompt_output_and_end_token() {
        let example = encode(&[], true, &completion("ab", "cd"));
        assert_eq!(
            (example.input_ids.len(), example.input_ids[0], example.input_ids[5]),
            (6, BEGIN, END)
        );
        assert_eq!(
            example.labels[1..],
            example.input_ids[1..].iter().map(|id| i64::from(*id)).collect::<Vec<_>>()
        );
        assert_eq!(learned(&example), "abcd</s>");
        assert_eq!(learned(&encode(&[], false, &completion("ab", "cd"))), "cd</s>");
    }

    #[test]
    fn a_continuation_predicts_the_answers_tokens_alone() {
        for (merges, expected) in [(&[][..], "true"), (&[("Ġ", "t")][..], " true")] {
            // Whether prompts are trained on does not matter.
            let encoder = encoder(merges, options(Template::Alpaca, true, 3));
            let example = encoder.continuation(&completion("ab", "cd"), "so ", "true").unwrap();
            let ids: Vec<u32> =
                example.labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect();
            assert_eq!(tokenizer(merges).decode(&ids, false).unwrap(), expected);
            assert_eq!(
                tokenizer(merges).decode(&example.input_ids, false).unwrap(),
                "<s>abso true"
            );
        }
    }

    #[test]
    fn a_text_is_learned_whole() {
        for train_on_inputs in [true, false] {
            assert_eq!(
                learned(&encode(&[], train_on_inputs, &record(Body::Text("abc".into())))),
                "abc</s>"
            );
        }
    }

    #[test]
    fn a_text_that_ends_with_an_end_token_gets_no_other() {
        let example = encode(&[], false, &completion("ab", "cd</s>"));
        assert_eq!(example.input_ids.len(), 6);
        assert_eq!(learned(&example), "cd</s>");
        let mut options = options(Template::Alpaca, true, 99);
        options.end_tokens = Vec::new();
        let without =
            encoder(&[], options).encode(&completion("ab", "cd")).unwrap().example.unwrap();
        assert_eq!(learned(&without), "abcd");
    }

    #[test]
    fn a_token_across_the_border_is_learned() {
        let example = encode(&[("b", "c")], false, &completion("ab", "cd"));
        assert_eq!(example.input_ids.len(), 5);
        assert_eq!(example.labels.iter().filter(|label| **label != IGNORED_LABEL).count(), 3);
    }

    #[test]
    fn trimmed_offsets_do_not_count_the_prompts_last_spaces_as_output() {
        let spaces = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ")];
        let mut definition: serde_json::Value =
            serde_json::from_str(&tokenizer(&spaces).to_string(false).unwrap()).unwrap();
        let mut trimming = definition["decoder"].clone();
        trimming["trim_offsets"] = true.into();
        definition["post_processor"] = trimming;
        let tokenizer = Tokenizer::from_bytes(definition.to_string()).unwrap();
        let encoder = Encoder::new(tokenizer, options(Template::Alpaca, false, 99));
        let example = encoder.encode(&completion("ab    ", "cd")).unwrap().example.unwrap();
        assert_eq!(example.input_ids.len(), 6);
        assert_eq!(learned(&example), "cd</s>");
    }

    #[test]
    fn a_cut_record_keeps_its_prefix_and_has_no_end_token() {
        let whole = encode(&[], false, &completion("ab", "cde"));
        let cut = |cutoff| {
            encoder(&[], options(Template::Alpaca, false, cutoff))
                .encode(&completion("ab", "cde"))
                .unwrap()
        };
        let exact = cut(7);
        assert_eq!((exact.truncated, exact.example), (false, Some(whole.clone())));
        let without_end = cut(6);
        assert!(without_end.truncated);
        assert_eq!(learned(&without_end.example.unwrap()), "cde");
        let cut_output = cut(5);
        assert_eq!(cut_output.example.unwrap().input_ids, whole.input_ids[..5]);
        assert_eq!(cut(3), Encoded { truncated: true, ..Encoded::default() });
    }

    #[test]
    fn a_blank_answer_is_left_out_whether_inputs_are_learned_or_not() {
        let user = Message::new(Role::User, "ab");
        let said_nothing = vec![user.clone(), Message::new(Role::Assistant, " ")];
        for train_on_inputs in [true, false] {
            let encoder = encoder(&[], options(Template::Alpaca, train_on_inputs, 999));
            let example = |record: &Record| encoder.encode(record).unwrap().example;
            assert_eq!(example(&completion("ab", "")), None);
            assert_eq!(example(&record(Body::Text(" \n".into()))), None);
            assert_eq!(example(&record(Body::Chat(said_nothing.clone().into()))), None);
            let more = [&said_nothing[..], &conversation()[1..3]].concat();
            let found = example(&record(Body::Chat(more.into()))).unwrap();
            let expected = if train_on_inputs {
                "### User:\nab\n\n### Assistant:\n\n\n### User:\nHi\n\n### Assistant:\nHello</s>"
            } else {
                "Hello</s>"
            };
            assert_eq!(learned(&found), expected);
        }
    }

    #[test]
    fn a_turn_of_weight_zero_is_not_learned_whether_inputs_are_or_not() {
        let turns = json!([
            {"role": "user", "content": "Hi", "weight": 0},
            {"role": "assistant", "content": "Bad", "weight": 0},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4"},
        ]);
        let messages: Vec<Message> = serde_json::from_value(turns).unwrap();
        let chat = record(Body::Chat(messages.into()));
        for (template, train_on_inputs, expected) in [
            (Template::Alpaca, false, "4</s>"),
            (
                Template::Alpaca,
                true,
                "### User:\n\n\n### Assistant:\n\n\n### User:\n2+2?\n\n### Assistant:\n4</s>",
            ),
            (chat_template(), false, "4</s>"),
            (chat_template(), true, "user:assistant:user:2+2?</s>assistant:4</s>"),
        ] {
            let encoder = encoder(&[], options(template, train_on_inputs, 999));
            assert_eq!(learned(&encoder.encode(&chat).unwrap().example.unwrap()), expected);
        }
    }

    #[test]
    fn a_beginning_token_given_twice_is_noticed() {
        let encoder = encoder(&[], options(Template::None, true, 99));
        for (prompt, twice) in [("<s>ab", true), ("ab", false), ("aab", false), ("", false)] {
            let encoded = encoder.encode(&completion(prompt, "aa")).unwrap();
            assert_eq!(encoded.begins_twice, twice, "{prompt}");
        }
    }

    #[test]
    fn earlier_exchanges_of_an_instruction_are_answered_in_the_same_wording() {
        let body = json!({
            "instruction": "And?", "output": "Otto", "system": "Be brief.", "history": [["Who?",
            "Mira"]],
        });
        let fields = body.as_object().unwrap().clone();
        let found = Record::read(fields, Format::Alpaca, Place::Line(1)).unwrap();
        let example = encode(&[], false, &found);
        assert_eq!(learned(&example), "Mira</s>Otto</s>");
        let text = tokenizer(&[]).decode(&example.input_ids, false).unwrap();
        let expected = "<s>Be brief.\n\n### Instruction:\nWho?\n\n### Response:\nMira</s>\n\n\
                        ### Instruction:\nAnd?\n\n\
                        ### Response:\nOtto</s>";
        assert_eq!(text, expected);
        let plain = encoder(&[], options(Template::None, false, 99)).encode(&found).unwrap();
        assert_eq!(learned(&plain.example.unwrap()), "MiraOtto</s>");
        let turns = encoder(&[], options(chat_template(), false, 99)).encode(&found).unwrap();
        assert_eq!(learned(&turns.example.unwrap()), "Mira</s>Otto</s>");
    }

    #[test]
    fn in_a_conversation_the_assistants_turns_are_learned() {
        let chat = record(Body::Chat(conversation().into()));
        let example = encode(&[], false, &chat);
        assert_eq!(learned(&example), "Hello</s>4</s>");
        assert_eq!(example.input_ids.iter().filter(|id| **id == BEGIN).count(), 1);
        let ids = encoder(&[], options(Template::Alpaca, false, 9999)).prompt_ids(&chat).unwrap();
        assert_eq!(ids, example.input_ids[..ids.len()]);
        assert_eq!(example.input_ids.len() - ids.len(), 2);
        let plain = encoder(&[], options(Template::None, false, 9999))
            .encode(&chat)
            .unwrap()
            .example
            .unwrap();
        assert_eq!(learned(&plain), "Hello4</s>");
    }

    #[test]
    fn a_conversation_without_an_answer_is_nothing_to_predict() {
        let question = record(Body::Chat(conversation()[..2].to_vec().into()));
        assert_eq!(
            encoder(&[], options(Template::Alpaca, false, 99)).encode(&question).unwrap().example,
            None
        );
        assert_ne!(encode(&[], true, &question).input_ids.last(), Some(&END));
    }

    /// The template `<s>ROLE:CONTENT` with an end token behind every turn.
    fn chat_template() -> Template {
        let source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ \
                      eos_token }}{% endfor %}\
                      {% if add_generation_prompt %}assistant:{% endif %}";
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let special_tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
        let source = ChatTemplateSource { file: "file", source: source.to_owned(), special_tokens };
        Template::Chat(ChatTemplate::new(&source).unwrap().into())
    }

    #[test]
    fn a_chat_template_writes_every_special_token_itself() {
        let chat = record(Body::Chat(conversation().into()));
        let encoder = encoder(&[], options(chat_template(), false, 999));
        let example = encoder.encode(&chat).unwrap().example.unwrap();
        assert_eq!(learned(&example), "Hello</s>4</s>");
        let text =
            "<s>system:Be brief.</s>user:Hi</s>assistant:Hello</s>user:2+2?</s>assistant:4</s>";
        let tokenizer = tokenizer(&[]);
        assert_eq!(example.input_ids, tokenizer.encode(text, false).unwrap().get_ids());
        let prompt = text.strip_suffix("4</s>").unwrap();
        assert_eq!(
            encoder.prompt_ids(&chat).unwrap(),
            tokenizer.encode(prompt, false).unwrap().get_ids()
        );
        let chunk: Vec<_> =
            encoder.encode_all(std::slice::from_ref(&chat)).map(Result::unwrap).collect();
        assert_eq!(chunk[0].example.as_ref(), Some(&example));
    }

    #[test]
    fn under_a_chat_template_an_instruction_is_a_users_turn() {
        let [instruction, input, output] = ["Add.", "1 2", "3"].map(str::to_owned);
        let alpaca = record(Body::Instruction(Instruction {
            instruction,
            input,
            output,
            ..Instruction::default()
        }));
        let encoder = encoder(&[], options(chat_template(), false, 999));
        let example = encoder.encode(&alpaca).unwrap().example.unwrap();
        assert_eq!(learned(&example), "3</s>");
        let text = tokenizer(&[]).decode(&example.input_ids, false).unwrap();
        assert_eq!(text, "<s>user:Add.\n1 2</s>assistant:3</s>");
        let plain = encoder.encode(&completion("ab", "cd")).unwrap().example.unwrap();
        assert_eq!(plain, encode(&[], false, &completion("ab", "cd")));
    }

    #[test]
    fn truncation_and_padding_of_the_tokenizer_file_are_switched_off() {
        let mut tokenizer = tokenizer(&[]);
        let cut = tokenizers::TruncationParams { max_length: 3, ..Default::default() };
        tokenizer.with_truncation(Some(cut)).unwrap();
        let strategy = tokenizers::PaddingStrategy::Fixed(50);
        tokenizer.with_padding(Some(tokenizers::PaddingParams { strategy, ..Default::default() }));
        let encoder = Encoder::new(tokenizer, options(Template::Alpaca, true, 99));
        let example = encoder.encode(&completion("abcd", "efgh")).unwrap().example.unwrap();
        assert_eq!(example.input_ids.len(), 10);
    }

    #[test]
    fn a_token_beyond_the_vocabulary_is_refused() {
        let mut options = options(Template::Alpaca, true, 99);
        options.vocab_size = 3;
        let error = encoder(&[], options).encode(&completion("a", "b")).unwrap_err().to_string();
        assert!(error.contains("vocabulary has 3 entries"), "{error}");
    }

    #[test]
    fn many_records_are_encoded_as_one_by_one() {
        let records: Vec<_> = (0..600)
            .map(|n| match n % 3 {
                0 => completion(&"a".repeat(n % 7), &format!("{n}")),
                1 => record(Body::Chat(conversation().into())),
                _ => record(Body::Text(format!("text {n}"))),
            })
            .collect();
        let encoder = encoder(&[("a", "a")], options(Template::Alpaca, false, 40));
        let all: Vec<_> = encoder
            .encode_all(&records)
            .map(|encoded| encoded.map_err(|(_, error)| error))
            .collect();
        assert_eq!(all.len(), 600);
        for (record, encoded) in records.iter().zip(all) {
            assert_eq!(encoded.unwrap(), encoder.encode(record).unwrap());
        }
    }

    proptest! {
        #[test]
        fn masking_covers_exactly_the_prompt(
            prompt in "[ -~é漢\\n]{0,30}",
            output in "[ -~é漢\\n]{1,30}",
        ) {
            // The text of a special token is that token, here as in transformers, and not one token
            // a byte.
            prop_assume!(!["<s>", "</s>"].iter().any(|special| format!("{prompt}{output}").contains(special)));
            // A blank output is left out.
            prop_assume!(!output.trim().is_empty());
            let record = completion(&prompt, &output);
            let example = encode(&[], false, &record);
            prop_assert_eq!(learned(&example), format!("{output}</s>"));
            let ignored = example.labels.iter().filter(|label| **label == IGNORED_LABEL).count();
            prop_assert_eq!(ignored, 1 + prompt.len());
            prop_assert_eq!(encode(&[], true, &record).input_ids, example.input_ids);
        }

        #[test]
        fn the_whole_output_is_learned_and_at_most_one_token_of_the_prompt(
            prompt in "[ab \\n]{0,12}",
            output in "[ab \\n]{2,12}",
        ) {
            let merges = [("a", "b"), ("Ġ", "a"), ("Ċ", "Ċ"), ("b", "Ġ"), ("Ġ", "Ġ"), ("ab", "ab")];
            let record = completion(&prompt, &output);
            let encoder = encoder(&merges, options(Template::Alpaca, false, 999));
            let Some(example) = encoder.encode(&record).unwrap().example else { return Ok(()) };
            let ids: Vec<u32> = example.labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect();
            let text = tokenizer(&merges).decode(&ids, false).unwrap();
            let text = text.strip_suffix("</s>").unwrap();
            prop_assert!(text.ends_with(&output));
            prop_assert!(text.len() - output.len() < "abab".len());
        }

        #[test]
        fn a_cut_changes_nothing_before_it(
            prompt in "[a-e]{0,20}",
            output in "[a-e]{1,20}",
            cutoff in 2_usize..50,
        ) {
            let record = completion(&prompt, &output);
            let whole = encode(&[], true, &record);
            let cut = encoder(&[], options(Template::Alpaca, true, cutoff)).encode(&record).unwrap();
            let kept = cutoff.min(whole.input_ids.len());
            prop_assert_eq!(cut.truncated, whole.input_ids.len() > cutoff);
            let example = cut.example.unwrap();
            prop_assert_eq!(&example.input_ids[..], &whole.input_ids[..kept]);
            prop_assert_eq!(&example.labels[..], &whole.labels[..kept]);
        }
    }
}
