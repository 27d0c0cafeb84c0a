//! The records of one or several files as token records, with what became of each.

use std::path::PathBuf;

use ist_models::batch::Example;
use sha2::{Digest, Sha256};

use super::dropped::DroppedKeys;
use super::encode::{Encoded, Encoder};
use super::error::DataError;
use super::order::{EpochOrder, Order, Share};
use super::record::Record;
use super::split::hold_out;
use super::text::{DataFile, Format, hexadecimal};
use super::tokens::predicted;

/// The records that a run trains on or evaluates.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The records with something to predict.
    pub examples: Vec<Example>,
    /// Of each example, the index of its record, counted from 0 and on from file to file.
    pub source: Vec<usize>,
    /// Of each example, the index of its file.
    file: Vec<usize>,
    /// What became of the records of each file, all of them.
    pub files: Vec<FileCounts>,
    /// SHA-256 of the file, in hexadecimal; of several, that of their digests and weights.
    pub digest: String,
    /// The format of the records, of several files that of the first.
    pub format: Format,
}

/// What became of the records of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileCounts {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// How often an epoch visits each of its records, as a mean.
    pub weight: f64,
    /// The format of its records.
    pub format: Format,
    /// How many records it holds.
    pub records: usize,
    /// How many of them were longer than the cut-off, among them those that were then skipped.
    pub truncated: usize,
    /// How many of them had nothing to predict and were left out.
    pub skipped: usize,
    /// How many answers in them are nothing but white space and are not learned.
    pub blank_answers: usize,
    /// How many of them begin with the beginning token twice.
    pub begin_twice: usize,
    /// Keys that nothing reads.
    pub dropped_keys: DroppedKeys,
}

impl Dataset {
    /// The records of a TOKENS file, cut to `cutoff` tokens.
    ///
    /// # Errors
    ///
    /// A malformed record, or an id of `vocab_size` or above.
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
            dataset.add(Encoded { example, truncated, ..Encoded::default() });
        }
        file.check_columns()?;
        Ok(dataset)
    }

    /// The records of a file of text, encoded.
    ///
    /// # Errors
    ///
    /// A malformed record, or a template that does not fit.
    pub fn from_text(file: &DataFile, encoder: &Encoder) -> Result<Self, DataError> {
        let mut dataset = Self::empty(file);
        let records: Vec<Record> = file.records()?.collect::<Result<_, _>>()?;
        file.check_columns()?;
        for encoded in encoder.encode_all(&records) {
            dataset.add(
                encoded.map_err(|(record, error)| file.at((record.place, error.to_string())))?,
            );
        }
        let counts = dataset.only();
        for record in &records {
            counts.blank_answers += record.blank_answers();
            counts.dropped_keys.note(record, &encoder.options().template);
        }
        Ok(dataset)
    }

    /// Several files as one data set, each with its weight. The digest of a single one of weight 1
    /// is the file's.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn joined(mut parts: Vec<(Self, f64)>) -> Self {
        if let [(_, 1.0)] = parts.as_slice() {
            return parts.swap_remove(0).0;
        }
        let mut joined = Self {
            examples: Vec::new(),
            source: Vec::new(),
            file: Vec::new(),
            files: Vec::new(),
            digest: String::new(),
            format: parts[0].0.format,
        };
        let mut digest = Sha256::new();
        for (part, weight) in parts {
            digest.update(&part.digest);
            digest.update(weight.to_le_bytes());
            let records = joined.records();
            let files = joined.files.len();
            joined.source.extend(part.source.into_iter().map(|record| records + record));
            joined.file.extend(part.file.into_iter().map(|file| files + file));
            joined.examples.extend(part.examples);
            joined.files.extend(part.files.into_iter().map(|file| FileCounts { weight, ..file }));
        }
        joined.digest = hexadecimal(&digest.finalize());
        joined
    }

    /// The data set, unless no record has anything to predict.
    ///
    /// # Errors
    ///
    /// When that is so.
    pub fn or_nothing(self, cutoff: usize) -> Result<Self, DataError> {
        if self.examples.is_empty() {
            let path = self.files.first().map(|file| file.path.clone()).unwrap_or_default();
            return Err(DataError::NothingToPredict { path, records: self.records(), cutoff });
        }
        Ok(self)
    }

    /// Holds `count` examples out, drawn at random by `seed`: the examples to train on and those
    /// held out.
    ///
    /// The counts stay those of the whole files.
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
            file: indices.iter().map(|at| self.file[*at]).collect(),
            files: self.files.clone(),
            digest: self.digest.clone(),
            format: self.format,
        }
    }

    /// An order over the examples at its beginning, in which each file has its weight.
    pub fn epoch_order(&self, order: Order, seed: u64, purpose: &str) -> EpochOrder {
        let share = |file: &FileCounts| Share { records: Vec::new(), weight: file.weight };
        let mut shares: Vec<Share> = self.files.iter().map(share).collect();
        for (example, file) in self.file.iter().enumerate() {
            shares[*file].records.push(example);
        }
        EpochOrder::weighted(shares, order, seed, purpose)
    }

    /// How many records the files hold.
    pub fn records(&self) -> usize {
        self.files.iter().map(|file| file.records).sum()
    }

    /// How many of them were longer than the cut-off.
    pub fn truncated(&self) -> usize {
        self.files.iter().map(|file| file.truncated).sum()
    }

    /// How many of them had nothing to predict and were left out.
    pub fn skipped(&self) -> usize {
        self.files.iter().map(|file| file.skipped).sum()
    }

    /// How many answers are nothing but white space and are not learned.
    pub fn blank_answers(&self) -> usize {
        self.files.iter().map(|file| file.blank_answers).sum()
    }

    /// How many records begin with the beginning token twice.
    pub fn begin_twice(&self) -> usize {
        self.files.iter().map(|file| file.begin_twice).sum()
    }

    /// Keys of all files that nothing reads.
    pub fn dropped_keys(&self) -> DroppedKeys {
        let mut all = DroppedKeys::default();
        self.files.iter().for_each(|file| all.extend(&file.dropped_keys));
        all
    }

    fn empty(file: &DataFile) -> Self {
        let counts = FileCounts {
            path: file.path().to_owned(),
            digest: file.digest().to_owned(),
            weight: 1.0,
            format: file.format(),
            records: 0,
            truncated: 0,
            skipped: 0,
            blank_answers: 0,
            begin_twice: 0,
            dropped_keys: DroppedKeys::default(),
        };
        Self {
            examples: Vec::new(),
            source: Vec::new(),
            file: Vec::new(),
            files: vec![counts],
            digest: file.digest().to_owned(),
            format: file.format(),
        }
    }

    /// The counts of a data set of one file.
    fn only(&mut self) -> &mut FileCounts {
        &mut self.files[0]
    }

    fn add(&mut self, encoded: Encoded) {
        let record = self.records();
        let counts = self.only();
        counts.records += 1;
        counts.truncated += usize::from(encoded.truncated);
        counts.begin_twice += usize::from(encoded.begins_twice);
        match encoded.example {
            None => counts.skipped += 1,
            Some(example) => {
                self.examples.push(example);
                self.source.push(record);
                self.file.push(0);
            }
        }
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
        Dataset::from_tokens(&open, 100, cutoff)
            .and_then(|data| data.or_nothing(cutoff))
            .map_err(|error| error.to_string())
    }

    fn text(text: &str, encoder: &Encoder) -> Result<Dataset, String> {
        let file = file("text.jsonl", text);
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        Dataset::from_text(&open, encoder).map_err(|error| error.to_string())
    }

    const TOKENS: &str = "{\"input_ids\": [1, 2, 3, 4]}\n{\"input_ids\": [5]}\n\n\
                          {\"input_ids\": [6, 7]}\n\
                          {\"input_ids\": [8, 9, 10, 11, 12], \"labels\": [-100, -100, -100, 11, 12]}\n";

    #[test]
    fn cut_and_skipped_token_records_are_counted() {
        let data = tokens(TOKENS, 3).unwrap();
        assert_eq!((data.records(), data.truncated(), data.skipped()), (4, 2, 2));
        assert_eq!(data.source, [0, 2]);
        assert_eq!(data.examples[0].input_ids, [1, 2, 3]);
        assert_eq!(data.format, Format::Tokens);
        let whole = tokens(TOKENS, 5).unwrap();
        assert_eq!((whole.truncated(), whole.skipped(), whole.source), (0, 1, vec![0, 2, 3]));
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
        let lines = "{\"prompt\": \"abc\", \"completion\": \"d\"}\n\
                     {\"prompt\": \"abcdef\", \"completion\": \"g\"}\n\
                     {\"prompt\": \"a\", \"completion\": \"\"}\n\
                     {\"prompt\": \"ab\", \"completion\": \"cdefg\"}";
        let data = text(lines, &encoder("alpaca", 6)).unwrap();
        assert_eq!((data.records(), data.truncated(), data.skipped()), (4, 2, 2));
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

    #[test]
    fn one_blank_record_is_left_out_and_counted() {
        let lines = "{\"text\": \"abc\"}\n{\"text\": \" \"}\n{\"text\": \"def\"}\n";
        let data = text(lines, &encoder("alpaca", 9)).unwrap();
        assert_eq!((data.records(), data.skipped(), data.blank_answers()), (3, 1, 1));
        assert_eq!(data.source, [0, 2]);
    }

    #[test]
    fn keys_that_nothing_reads_are_counted() {
        let lines = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"x\"}, \
                     {\"role\": \"assistant\", \"content\": \"b\", \"weight\": 1, \"reasoning_content\": \"c\"}], \
                     \"id\": 1, \"source\": null, \"tools\": [{}]}\n\
                     {\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"x\"}, \
                     {\"role\": \"assistant\", \"content\": \"b\"}], \"id\": 2, \"system\": \"d\"}";
        let dropped = text(lines, &encoder("alpaca", 99)).unwrap().dropped_keys();
        let expected = "`id` (2 times), `messages[].name` (2 times), \
                        `messages[].reasoning_content` (once), \
                        `tools` (once)";
        assert_eq!(dropped.to_string(), expected);
        let reads = "{% for m in messages %}{% if 'name' in m %}{% endif %}{{ m.content \
                     }}{% if tools %}{% endif %}{% endfor %}";
        let dropped = text(lines, &encoder(reads, 99)).unwrap().dropped_keys();
        assert_eq!(dropped.to_string(), "`id` (2 times), `messages[].reasoning_content` (once)");
    }

    #[test]
    fn several_files_count_on_and_their_weights_are_in_the_digest() {
        let parts = || [tokens(TOKENS, 5).unwrap(), tokens(TOKENS, 5).unwrap()];
        let joined =
            |weights: [f64; 2]| Dataset::joined(parts().into_iter().zip(weights).collect());
        let data = joined([1.0, 2.0]);
        assert_eq!(data.records(), 8);
        assert_eq!(data.source, [0, 2, 3, 4, 6, 7]);
        assert_ne!(data.digest, joined([1.0, 1.0]).digest);
        assert_ne!(data.digest, parts()[0].digest);
        let [one, _] = parts();
        assert_eq!(Dataset::joined(vec![(one.clone(), 1.0)]), one);
        let mut order = data.epoch_order(Order::Sequential, 0, "training");
        assert_eq!(order.next_batch(99), [0, 1, 2, 3, 4, 5, 3, 4, 5]);
        let (train, held_out) = data.split(2, 3).unwrap();
        assert_eq!(train.epoch_order(Order::Shuffled, 0, "training").length(), {
            let second = train.source.iter().filter(|record| **record >= 4).count();
            train.examples.len() + second
        });
        assert_eq!(held_out.examples.len(), 2);
    }
}
