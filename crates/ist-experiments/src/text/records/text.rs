//! Opening a data file: its compression, its container (JSON, JSON Lines, Parquet), its format, its
//! records.
//!
//! Compression and container are told by the content, never by the file's name; the format by the
//! fields of the first record, unless it is forced. Records are read one after the other, so that a
//! file of token ids needs no more memory than its bytes.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use ist_models::batch::Example;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::columns::{Columns, Renaming};
use super::error::{DataError, Place};
use super::json_file::{self, Element, Fault, Fields};
use super::record::{Record, names};
use super::{packed, parquet_file, python_numbers, tokens};

/// What the records of a file are made of (`data.format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Told by the fields of the first record.
    #[default]
    Auto,
    /// `input_ids`, optionally `labels` and `attention_mask`.
    Tokens,
    /// `instruction`, `output`, optionally `input`, `system`, `history`.
    Alpaca,
    /// `messages` or `conversations`, of `role` and `content` or of `from` and `value`; optionally
    /// `system` and `tools`.
    Chat,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text`.
    Text,
}

/// What every format needs, for messages.
const EXPECTED: &str = "`input_ids` (tokens), `messages` or `conversations` (chat), `instruction` \
                        and `output` (alpaca), \
                        `prompt` and `completion` (prompt-completion), or `text` (text)";

impl Format {
    /// The format that a record's fields show. A record that fits several is the richer one: many
    /// Alpaca and chat files also carry their rendered `text` or first `prompt`.
    fn detect(fields: &Fields) -> Option<Self> {
        let has = |name: &str| fields.contains_key(name);
        match () {
            () if has("input_ids") => Some(Self::Tokens),
            () if has("messages") || has("conversations") => Some(Self::Chat),
            () if has("instruction") => Some(Self::Alpaca),
            () if has("prompt") && has("completion") => {
                Some(Self::PromptCompletion.with_turns(fields))
            }
            () if has("text") => Some(Self::Text),
            () => None,
        }
    }

    /// The format itself, but chat where a prompt is a list of turns.
    fn with_turns(self, fields: &Fields) -> Self {
        let has_turns = fields.get("prompt").is_some_and(serde_json::Value::is_array);
        if self == Self::PromptCompletion && has_turns { Self::Chat } else { self }
    }
}

/// How the records are stored.
#[derive(Debug)]
enum Container {
    Lines,
    Array(Vec<Element>),
    Parquet,
}

/// An open data file: its bytes, how they are to be read, and their digest.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    /// Unpacked, and without what JSON has no word for.
    bytes: Bytes,
    container: Container,
    format: Format,
    renaming: Renaming,
    digest: String,
}

type RawRecords<'a> = Box<dyn Iterator<Item = Result<Raw, DataError>> + 'a>;

/// A record's fields under their names, and the keys that had to give way to them.
struct Raw {
    place: Place,
    fields: Fields,
    shadowed: Vec<String>,
}

impl DataFile {
    /// Reads a file and settles its container and, where `format` is [`Format::Auto`], its format.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, holds no record, is neither JSON nor Parquet, or whose first
    /// record fits no format.
    pub fn read(path: &Path, format: Format) -> Result<Self, DataError> {
        Self::read_columns(path, format, &Columns::default())
    }

    /// As [`DataFile::read`], with the names of the file's columns.
    ///
    /// # Errors
    ///
    /// As [`DataFile::read`].
    pub fn read_columns(path: &Path, format: Format, columns: &Columns) -> Result<Self, DataError> {
        let fault = |problem| DataError::File { path: path.to_owned(), problem };
        let bytes = std::fs::read(path)
            .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        let digest = hexadecimal(&Sha256::digest(&bytes));
        let bytes = packed::unpacked(bytes).map_err(fault)?;
        let bytes = if bytes.starts_with(parquet_file::MAGIC) {
            bytes
        } else {
            python_numbers::as_null(bytes)
        };
        let container = container(path, without_mark(&bytes))?;
        let mut file = Self {
            path: path.to_owned(),
            bytes: Bytes::from(bytes),
            container,
            format,
            renaming: Renaming::new(columns),
            digest,
        };
        file.format = file.settle(format)?;
        Ok(file)
    }

    /// The format of the records, never [`Format::Auto`].
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The records of text, in the file's order.
    ///
    /// # Errors
    ///
    /// A record that does not fit the format, by place; a file of token ids.
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record, DataError>>, DataError> {
        if self.format == Format::Tokens {
            let problem =
                "token ids were found where text is expected; give one of the text formats";
            return Err(self.fault(problem.to_owned()));
        }
        Ok(self.raw()?.map(|raw| {
            let Raw { place, fields, shadowed } = raw?;
            let record = Record::read(fields, self.format, place)
                .map_err(|problem| self.at((place, problem)))?;
            Ok(Record { shadowed, ..record })
        }))
    }

    /// The records of token ids, in the file's order, with the place of each.
    pub(super) fn examples(
        &self,
        vocab_size: usize,
    ) -> Result<impl Iterator<Item = Result<(Place, Example), DataError>>, DataError> {
        Ok(self.raw()?.map(move |raw| {
            let Raw { place, fields, .. } = raw?;
            let example = tokens::example(&fields, vocab_size)
                .map_err(|problem| self.at((place, problem)))?;
            Ok((place, example))
        }))
    }

    fn settle(&self, format: Format) -> Result<Format, DataError> {
        let Some(first) = self.raw()?.next() else {
            return Err(self.fault("the file holds no record".to_owned()));
        };
        let Raw { place, fields, .. } = first.map_err(|error| self.explain_one_object(error))?;
        if format != Format::Auto {
            return Ok(format.with_turns(&fields));
        }
        // The fields that the configuration names say more than those that happen to be there.
        let named = self.renaming.named();
        let mut wanted = fields.clone();
        wanted.retain(|name, _| named.contains(&name.as_str()));
        Format::detect(&wanted).or_else(|| Format::detect(&fields)).ok_or_else(|| {
            let problem = format!(
                "fields {} fit no format; expected {EXPECTED}; `data.fields` names other columns",
                names(&fields)
            );
            self.at((place, problem))
        })
    }

    /// Fails where a column that the configuration names was in no record that was read so far.
    pub(super) fn check_columns(&self) -> Result<(), DataError> {
        self.renaming.missing().map_or(Ok(()), |problem| Err(self.fault(problem)))
    }

    /// A file that is one pretty-printed object fails on its first line for a reason worth telling.
    fn explain_one_object(&self, error: DataError) -> DataError {
        match self.container {
            Container::Lines if json_file::is_one_object(without_mark(&self.bytes)) => self.fault(
                "the file is a single JSON object; expected an array of records, or JSON Lines \
                 (one record a line)"
                    .to_owned(),
            ),
            _ => error,
        }
    }

    fn raw(&self) -> Result<RawRecords<'_>, DataError> {
        let bytes = without_mark(&self.bytes);
        let records: Box<dyn Iterator<Item = Result<(Place, Fields), Fault>>> = match &self
            .container
        {
            Container::Lines => Box::new(json_file::lines(bytes)),
            Container::Array(elements) => Box::new(json_file::array(bytes, elements)),
            Container::Parquet => Box::new(
                parquet_file::rows(self.bytes.clone()).map_err(|problem| self.fault(problem))?,
            ),
        };
        Ok(Box::new(records.map(|record| {
            let (place, fields) = record.map_err(|fault| self.at(fault))?;
            let (fields, shadowed) = self.renaming.apply(fields);
            Ok(Raw { place, fields, shadowed })
        })))
    }

    fn fault(&self, problem: String) -> DataError {
        DataError::File { path: self.path.clone(), problem }
    }

    pub(super) fn at(&self, (place, problem): Fault) -> DataError {
        DataError::Record { path: self.path.clone(), place, problem }
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// The bytes after a byte order mark, which some editors write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn container(path: &Path, bytes: &[u8]) -> Result<Container, DataError> {
    let fault = |(place, problem)| DataError::Record { path: path.to_owned(), place, problem };
    if bytes.starts_with(parquet_file::MAGIC) {
        return Ok(Container::Parquet);
    }
    match bytes.trim_ascii_start().first() {
        Some(b'[') => json_file::elements(bytes).map(Container::Array).map_err(fault),
        Some(b'{') | None => Ok(Container::Lines),
        Some(_) => Err(DataError::File {
            path: path.to_owned(),
            problem:
                "neither JSON, JSON Lines nor Parquet; plain text is not read as it is: write \
                      each piece as one \
                      line {\"text\": \"...\"}"
                    .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::alpaca::Instruction;
    use super::super::record::Body;
    use super::super::testing::{file, parquet};
    use super::*;

    fn records(text: &str, format: Format) -> Result<(Format, Vec<Record>), String> {
        let file = file("data.json", text);
        let open = DataFile::read(&file.path, format).map_err(|error| error.to_string())?;
        let records = open.records().map_err(|error| error.to_string())?;
        Ok((open.format(), records.collect::<Result<_, _>>().map_err(|error| error.to_string())?))
    }

    const ALPACA: &str =
        r#"{"instruction": "Add.", "input": "1 2", "output": "3", "answer": "3", "text": "x"}"#;

    #[test]
    fn an_array_and_json_lines_hold_the_same_records() {
        let (format, lines) = records(&format!("{ALPACA}\n\n{ALPACA}"), Format::Auto).unwrap();
        let (_, array) =
            records(&format!("\u{feff}[\n{ALPACA},\n{ALPACA}]"), Format::Auto).unwrap();
        assert_eq!(format, Format::Alpaca);
        assert_eq!(lines.len(), 2);
        for (a, b) in lines.iter().zip(&array) {
            assert_eq!((&a.body, &a.extra), (&b.body, &b.extra));
        }
        assert_eq!(lines[0].extra["answer"], "3");
        assert_eq!(lines[0].output(), "3");
        assert_eq!(array[1].place, Place::Element { record: 2, line: 3 });
    }

    #[test]
    fn a_format_is_told_by_its_fields() {
        let cases = [
            (r#"{"prompt": "a", "completion": "b"}"#, Format::PromptCompletion),
            (r#"{"text": "a"}"#, Format::Text),
            (r#"{"messages": [{"role": "user", "content": "a"}], "prompt": "a"}"#, Format::Chat),
            (r#"{"conversations": [{"from": "human", "value": "a"}]}"#, Format::Chat),
            (r#"{"instruction": "a", "output": "b"}"#, Format::Alpaca),
        ];
        for (text, format) in cases {
            let (found, records) = records(text, Format::Auto).unwrap();
            assert_eq!((found, records[0].format()), (format, format), "{text}");
        }
    }

    #[test]
    fn a_format_can_be_forced() {
        let (format, records) = records(ALPACA, Format::Text).unwrap();
        assert_eq!((format, &records[0].body), (Format::Text, &Body::Text("x".to_owned())));
    }

    #[test]
    fn later_records_must_fit_and_faults_name_the_place() {
        let cases = [
            (
                format!("{ALPACA}\n\n{{\"text\": \"a\"}}"),
                "line 3: field `instruction` is missing; found `text`",
            ),
            (
                format!("[{ALPACA},\n\n{{\"instruction\": \"a\"}}]"),
                "line 3 (record 2): field `output` is missing",
            ),
            (
                format!("{ALPACA}\n{{\"instruction\": 3}}"),
                "line 2: field `instruction` must be a string, found a number",
            ),
            (format!("{ALPACA}\n[1]"), "line 2: a record must be an object"),
            (format!("{ALPACA}\n{{\"instruction\""), "line 2: malformed JSON"),
            (format!("[{ALPACA}"), "line 1: malformed JSON"),
            (format!("{ALPACA}\n{{\"input_ids\": [1]}}"), "line 2: field `instruction` is missing"),
            (
                "{\"question\": \"a\"}".to_owned(),
                "line 1: fields `question` fit no format; expected `input_ids`",
            ),
            ("[]".to_owned(), "holds no record"),
            (String::new(), "holds no record"),
            ("[1, 2]".to_owned(), "line 1 (record 1): a record must be an object"),
            ("Once upon a time".to_owned(), "plain text is not read as it is"),
            ("{\n \"data\": [1]\n}".to_owned(), "a single JSON object"),
            ("{\"input_ids\": [1]}".to_owned(), "token ids were found where text is expected"),
        ];
        for (text, problem) in cases {
            let error = records(&text, Format::Auto).unwrap_err();
            assert!(error.contains("data.json") && error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_read_errors() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("absent.json"), folder.path().to_owned()] {
            let error = DataFile::read(&path, Format::Auto).unwrap_err();
            assert!(matches!(error, DataError::Read { .. }), "{error}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_bytes() {
        let file = file("a.jsonl", "{\"text\": \"a\"}\n");
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        assert_eq!(
            open.digest(),
            "7c24616314d4c7ddcc755cd2cb42baf4e49ac41b1492fa02c30adc34e1cb2e5d"
        );
    }

    #[test]
    fn parquet_rows_are_records() {
        let file = parquet(&[("Add.", Some("3")), ("Sing.", Some("la"))]);
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        let records: Vec<_> = open.records().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(open.format(), Format::Alpaca);
        let body = Body::Instruction(Instruction {
            instruction: "Sing.".into(),
            output: "la".into(),
            ..Instruction::default()
        });
        assert_eq!((&records[1].body, records[1].place), (&body, Place::Row(2)));
        assert_eq!(records[1].extra["id"], 1);
        assert_eq!(records[1].extra["tags"], serde_json::json!(["a", "b"]));
    }

    #[test]
    fn a_null_in_parquet_is_a_missing_field() {
        let file = parquet(&[("Add.", Some("3")), ("Sing.", None)]);
        let open = DataFile::read(&file.path, Format::Auto).unwrap();
        let error = open.records().unwrap().nth(1).unwrap().unwrap_err().to_string();
        assert!(error.contains("record 2: field `output` is missing"), "{error}");
    }

    #[test]
    fn a_truncated_parquet_file_is_refused_at_any_length() {
        let file = parquet(&[("Add.", Some("3")), ("Sing.", Some("la"))]);
        let whole = std::fs::read(&file.path).unwrap();
        for length in 4..whole.len() {
            std::fs::write(&file.path, &whole[..length]).unwrap();
            let error = DataFile::read(&file.path, Format::Auto).unwrap_err().to_string();
            assert!(error.contains("not readable as Parquet"), "{length}: {error}");
        }
    }

    #[test]
    fn a_damaged_parquet_file_never_panics() {
        let file = parquet(&[("Add.", Some("3")), ("Sing.", Some("la"))]);
        let whole = std::fs::read(&file.path).unwrap();
        for (at, flip) in (0..whole.len()).flat_map(|at| [0x01, 0x40, 0xff].map(|flip| (at, flip)))
        {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            std::fs::write(&file.path, &damaged).unwrap();
            let records = DataFile::read(&file.path, Format::Alpaca)
                .map(|open| open.records().map(Iterator::count));
            drop(records);
        }
    }
}
