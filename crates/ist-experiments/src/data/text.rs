//! Opening a data file: its container (JSON, JSON Lines, Parquet), its format, its records.
//!
//! The container is told by the content, never by the file's name; the format by the fields of the first record, unless
//! it is forced. Records are read one after the other, so that a file of token ids needs no more memory than its bytes.

use std::path::{Path, PathBuf};

use ist_models::batch::Example;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::chat::Message;
use super::error::{DataError, Place};
use super::json_file::{self, Element, Fault, Fields, kind};
use super::{alpaca, chat, parquet_file, tokens};

/// What the records of a file are made of (`data.format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Told by the fields of the first record.
    #[default]
    Auto,
    /// `input_ids`, optionally `labels` and `attention_mask`.
    Tokens,
    /// `instruction`, `output`, optionally `input`.
    Alpaca,
    /// `messages` of `role` and `content`, or `conversations` of `from` and `value`.
    Chat,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text`.
    Text,
}

/// What every format needs, for messages.
const EXPECTED: &str = "`input_ids` (tokens), `messages` or `conversations` (chat), `instruction` and `output` (alpaca), \
                        `prompt` and `completion` (prompt-completion), or `text` (text)";

impl Format {
    /// The format that a record's fields show. A record that fits several is the richer one: many Alpaca and chat files
    /// also carry their rendered `text` or first `prompt`.
    fn detect(fields: &Fields) -> Option<Self> {
        let has = |name: &str| fields.contains_key(name);
        match () {
            () if has("input_ids") => Some(Self::Tokens),
            () if has("messages") || has("conversations") => Some(Self::Chat),
            () if has("instruction") => Some(Self::Alpaca),
            () if has("prompt") && has("completion") => Some(Self::PromptCompletion),
            () if has("text") => Some(Self::Text),
            () => None,
        }
    }
}

/// One record of text: what it says, and whatever else it carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The fields that training reads.
    pub body: Body,
    /// All other fields, such as `answer` or `id`. Training ignores them, evaluation may read them.
    pub extra: serde_json::Map<String, Value>,
    /// Where the record stands in its file.
    pub place: Place,
}

/// The text of a record in one of the formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An Alpaca record.
    Instruction {
        /// What is asked.
        instruction: String,
        /// Further context, often empty.
        input: String,
        /// The answer.
        output: String,
    },
    /// A prompt that is used as it stands, and its continuation.
    PromptCompletion {
        /// The prompt, with every space that belongs to it.
        prompt: String,
        /// What follows.
        completion: String,
    },
    /// Text without a prompt.
    Text(String),
    /// A conversation.
    Chat(Vec<Message>),
}

impl Record {
    /// What the model is to answer: the output, the completion, the text, or the last assistant's turn.
    pub fn output(&self) -> &str {
        match &self.body {
            Body::Instruction { output, .. } => output,
            Body::PromptCompletion { completion, .. } => completion,
            Body::Text(text) => text,
            Body::Chat(messages) => chat::last_answer(messages),
        }
    }

    /// The record's format.
    pub fn format(&self) -> Format {
        match &self.body {
            Body::Instruction { .. } => Format::Alpaca,
            Body::PromptCompletion { .. } => Format::PromptCompletion,
            Body::Text(_) => Format::Text,
            Body::Chat(_) => Format::Chat,
        }
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
    bytes: Vec<u8>,
    container: Container,
    format: Format,
    digest: String,
}

type RawRecords<'a> = Box<dyn Iterator<Item = Result<(Place, Fields), DataError>> + 'a>;

impl DataFile {
    /// Reads a file and settles its container and, where `format` is [`Format::Auto`], its format.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, holds no record, is neither JSON nor Parquet, or whose first record fits no format.
    pub fn read(path: &Path, format: Format) -> Result<Self, DataError> {
        let bytes = std::fs::read(path)
            .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        let digest = hexadecimal(&Sha256::digest(&bytes));
        let container = container(path, without_mark(&bytes))?;
        let mut file = Self { path: path.to_owned(), bytes, container, format, digest };
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
            let (place, fields) = raw?;
            record(fields, self.format, place).map_err(|problem| self.at((place, problem)))
        }))
    }

    /// The records of token ids, in the file's order, with the place of each.
    pub(super) fn examples(
        &self,
        vocab_size: usize,
    ) -> Result<impl Iterator<Item = Result<(Place, Example), DataError>>, DataError> {
        Ok(self.raw()?.map(move |raw| {
            let (place, fields) = raw?;
            let example = tokens::example(&fields, vocab_size)
                .map_err(|problem| self.at((place, problem)))?;
            Ok((place, example))
        }))
    }

    fn settle(&self, format: Format) -> Result<Format, DataError> {
        let Some(first) = self.raw()?.next() else {
            return Err(self.fault("the file holds no record".to_owned()));
        };
        let (place, fields) = first.map_err(|error| self.explain_one_object(error))?;
        match format {
            Format::Auto => Format::detect(&fields).ok_or_else(|| {
                let problem =
                    format!("fields {} fit no format; expected {EXPECTED}", names(&fields));
                self.at((place, problem))
            }),
            forced => Ok(forced),
        }
    }

    /// A file that is one pretty-printed object fails on its first line for a reason worth telling.
    fn explain_one_object(&self, error: DataError) -> DataError {
        match self.container {
            Container::Lines if json_file::is_one_object(without_mark(&self.bytes)) => self.fault(
                "the file is a single JSON object; expected an array of records, or JSON Lines (one record a line)"
                    .to_owned(),
            ),
            _ => error,
        }
    }

    fn raw(&self) -> Result<RawRecords<'_>, DataError> {
        let bytes = without_mark(&self.bytes);
        let records: Box<dyn Iterator<Item = Result<(Place, Fields), Fault>>> =
            match &self.container {
                Container::Lines => Box::new(json_file::lines(bytes)),
                Container::Array(elements) => Box::new(json_file::array(bytes, elements)),
                Container::Parquet => {
                    Box::new(parquet_file::rows(&self.path).map_err(|problem| self.fault(problem))?)
                }
            };
        Ok(Box::new(records.map(|record| record.map_err(|fault| self.at(fault)))))
    }

    fn fault(&self, problem: String) -> DataError {
        DataError::File { path: self.path.clone(), problem }
    }

    pub(super) fn at(&self, (place, problem): Fault) -> DataError {
        DataError::Record { path: self.path.clone(), place, problem }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
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
            problem: "neither JSON, JSON Lines nor Parquet; plain text is not read as it is: write each piece as one \
                      line {\"text\": \"...\"}"
                .to_owned(),
        }),
    }
}

/// A record of the given format from its fields.
fn record(mut fields: Fields, format: Format, place: Place) -> Result<Record, String> {
    let body = match format {
        Format::Alpaca => alpaca::instruction(&mut fields)?,
        Format::PromptCompletion => alpaca::prompt_completion(&mut fields)?,
        Format::Chat => Body::Chat(chat::messages(&mut fields)?),
        Format::Text => alpaca::text(&mut fields)?,
        Format::Auto | Format::Tokens => {
            return Err("the record holds token ids, not text".to_owned());
        }
    };
    Ok(Record { body, extra: fields, place })
}

/// Takes a field that must be a string. Null counts as missing.
pub(super) fn take(fields: &mut Fields, name: &str) -> Result<String, String> {
    match take_optional(fields, name)? {
        Some(text) => Ok(text),
        None => Err(format!("field `{name}` is missing; found {}", names(fields))),
    }
}

/// Takes a field that must be a string where it is given. Null counts as not given.
pub(super) fn take_optional(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("field `{name}` must be a string, found {}", kind(&other))),
    }
}

fn names(fields: &Fields) -> String {
    if fields.is_empty() {
        return "no other field".to_owned();
    }
    fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
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
            (
                format!("{ALPACA}\n{{\"instruction\": \" \", \"output\": \"\"}}"),
                "line 2: the record is empty",
            ),
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
        let body = Body::Instruction {
            instruction: "Sing.".into(),
            input: String::new(),
            output: "la".into(),
        };
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
