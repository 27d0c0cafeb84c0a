//! A file's records as token records, with what became of each.

use ist_models::batch::Example;

use super::encode::{Encoded, Encoder};
use super::error::DataError;
use super::split::hold_out;
use super::text::{DataFile, Format, Record};
use super::tokens::predicted;

/// The records that a run trains on or evaluates.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The records with something to predict.
    pub examples: Vec<Example>,
    /// Of each example, the index of its record in the file, counted from 0.
    pub source: Vec<usize>,
    /// How many records the file holds.
    pub records: usize,
    /// How many of them were longer than the cut-off, among them those that were then skipped.
    pub truncated: usize,
    /// How many of them had nothing to predict and were left out.
    pub skipped: usize,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The format of the file's records.
    pub format: Format,
}

impl Dataset {
    /// The records of a TOKENS file, cut to `cutoff` tokens.
    ///
    /// # Errors
    ///
    /// A malformed record, an id of `vocab_size` or above, or no record with anything to predict.
    pub fn from_tokens(
        file: &DataFile,
        vocab_size: usize,
        cutoff: usize,
    ) -> Result<Self, DataError> {
        let mut dataset = Self::empty(file);
        for found in file.examples(vocab_size)? {
            let (_, mut example) = found?;
            let truncated = example.input_ids.len() > cutoff;
            cut(&mut example, cutoff);
            let example = (predicted(&example) > 0).then_some(example);
            dataset.add(Encoded { example, truncated });
        }
        dataset.or_nothing(file, cutoff)
    }

    /// The records of a file of text, encoded.
    ///
    /// # Errors
    ///
    /// A malformed record, a template that does not fit, or no record with anything to predict.
    pub fn from_text(file: &DataFile, encoder: &Encoder) -> Result<Self, DataError> {
        let mut dataset = Self::empty(file);
        let records: Vec<Record> = file.records()?.collect::<Result<_, _>>()?;
        for encoded in encoder.encode_all(&records) {
            dataset.add(
                encoded.map_err(|(record, error)| file.at((record.place, error.to_string())))?,
            );
        }
        dataset.or_nothing(file, encoder.options().cutoff)
    }

    /// Holds `count` examples out, drawn at random by `seed`: the examples to train on and those held out.
    ///
    /// The counts stay those of the whole file.
    ///
    /// # Errors
    ///
    /// When no example would remain to train on.
    pub fn split(&self, count: usize, seed: u64) -> Result<(Self, Self), DataError> {
        let (train, held_out) = hold_out(self.examples.len(), count, seed)?;
        Ok((self.subset(&train), self.subset(&held_out)))
    }

    /// The examples at `indices`, in that order.
    ///
    /// # Panics
    ///
    /// When an index is not below the number of examples.
    #[must_use]
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            examples: indices.iter().map(|at| self.examples[*at].clone()).collect(),
            source: indices.iter().map(|at| self.source[*at]).collect(),
            digest: self.digest.clone(),
            ..*self
        }
    }

    fn empty(file: &DataFile) -> Self {
        Self {
            examples: Vec::new(),
            source: Vec::new(),
            records: 0,
            truncated: 0,
            skipped: 0,
            digest: file.digest().to_owned(),
            format: file.format(),
        }
    }

    fn add(&mut self, encoded: Encoded) {
        self.truncated += usize::from(encoded.truncated);
        match encoded.example {
            None => self.skipped += 1,
            Some(example) => {
                self.examples.push(example);
                self.source.push(self.records);
            }
        }
        self.records += 1;
    }

    fn or_nothing(self, file: &DataFile, cutoff: usize) -> Result<Self, DataError> {
        if self.examples.is_empty() {
            return Err(DataError::NothingToPredict {
                path: file.path().to_owned(),
                records: self.records,
                cutoff,
            });
        }
        Ok(self)
    }
}

fn cut(example: &mut Example, cutoff: usize) {
    example.input_ids.truncate(cutoff);
    example.labels.truncate(cutoff);
    example.attention_mask.truncate(cutoff);
}

#[cfg(test)]
mod tests {
    use super::super::encode::EncoderOptions;
    use super::super::template::Template;
    use super::super::testing::{END, file, tokenizer};
    use super::*;

    fn encoder(template: &str, cutoff: usize) -> Encoder {
        let template = Template::parse(template).unwrap();
        let options = EncoderOptions {
            template,
            train_on_inputs: false,
            cutoff,
            end_tokens: vec![END],
            vocab_size: 300,
        };
        Encoder::new(tokenizer(&[]), options)
    }

    fn tokens(text: &str, cutoff: usize) -> Result<Dataset, String> {
        let file = file("tokens.jsonl", text);
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        Dataset::from_tokens(&open, 100, cutoff).map_err(|error| error.to_string())
    }

    fn text(text: &str, encoder: &Encoder) -> Result<Dataset, String> {
        let file = file("text.jsonl", text);
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        Dataset::from_text(&open, encoder).map_err(|error| error.to_string())
    }

    const TOKENS: &str = "{\"input_ids\": [1, 2, 3, 4]}\n{\"input_ids\": [5]}\n\n{\"input_ids\": [6, 7]}\n\
                          {\"input_ids\": [8, 9, 10, 11, 12], \"labels\": [-100, -100, -100, 11, 12]}\n";

    #[test]
    fn cut_and_skipped_token_records_are_counted() {
        let data = tokens(TOKENS, 3).unwrap();
        assert_eq!((data.records, data.truncated, data.skipped), (4, 2, 2));
        assert_eq!(data.source, [0, 2]);
        assert_eq!(data.examples[0].input_ids, [1, 2, 3]);
        assert_eq!(data.format, Format::Tokens);
        let whole = tokens(TOKENS, 5).unwrap();
        assert_eq!((whole.truncated, whole.skipped, whole.source), (0, 1, vec![0, 2, 3]));
    }

    #[test]
    fn a_run_is_refused_only_when_nothing_is_left() {
        let error =
            tokens("{\"input_ids\": [1]}\n{\"input_ids\": [2, 3], \"labels\": [-100, -100]}", 9)
                .unwrap_err();
        assert!(
            error.contains("tokens.jsonl: nothing to train on: none of its 2 records"),
            "{error}"
        );
    }

    #[test]
    fn cut_and_skipped_text_records_are_counted() {
        let lines = "{\"prompt\": \"abc\", \"completion\": \"d\"}\n{\"prompt\": \"abcdef\", \"completion\": \"g\"}\n\
                     {\"prompt\": \"a\", \"completion\": \"\"}\n{\"prompt\": \"ab\", \"completion\": \"cdefg\"}";
        let data = text(lines, &encoder("alpaca", 6)).unwrap();
        assert_eq!((data.records, data.truncated, data.skipped), (4, 2, 2));
        assert_eq!(data.source, [0, 3]);
    }

    #[test]
    fn a_template_that_does_not_fit_names_the_record() {
        let error =
            text("\n{\"prompt\": \"abc\", \"completion\": \"d\"}", &encoder("llm-adapters", 9))
                .unwrap_err();
        assert!(
            error.contains("text.jsonl, line 2: template: llm-adapters takes alpaca records only"),
            "{error}"
        );
    }

    #[test]
    fn a_split_keeps_each_examples_place_in_the_file() {
        let data = tokens(TOKENS, 5).unwrap();
        let (train, held_out) = data.split(1, 7).unwrap();
        assert_eq!((train.examples.len(), held_out.examples.len()), (2, 1));
        for part in [&train, &held_out] {
            for (example, source) in part.examples.iter().zip(&part.source) {
                let at = data.source.iter().position(|of| of == source).unwrap();
                assert_eq!(example, &data.examples[at]);
            }
        }
        assert!(data.split(3, 7).unwrap_err().to_string().contains("only 3 usable records"));
    }
}
