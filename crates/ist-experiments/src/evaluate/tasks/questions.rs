//! From a task's file to questions with checked answers: every fault of a file is found before a
//! model is loaded.

use std::path::Path;

use serde_json::Value;

use super::Task;
use crate::text::records::alpaca::Instruction;
use crate::text::records::{Body, DataError, DataFile, DroppedKeys, Format, Record, Template};
use ist_records::{Failure, OrFail};

/// One record of a task's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    index: usize,
    record: Record,
    answer: String,
}

impl Question {
    /// Its place in the file, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What is asked.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The right answer.
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// What there is to choose from.
    pub fn options(&self, task: &Task) -> Vec<String> {
        match &self.record.body {
            Body::Instruction(record) => {
                let Instruction { instruction, input, .. } = record;
                task.answers().options(&format!("{instruction}\n{input}"))
            }
            _ => Vec::new(),
        }
    }
}

/// A task's questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Questions {
    task: &'static Task,
    format: Format,
    digest: String,
    questions: Vec<Question>,
}

impl Questions {
    /// Reads the first `limit` records of a file, or all.
    ///
    /// The right answer is the record's field `answer`; of a task that compares whole replies it
    /// may be its output.
    ///
    /// # Errors
    ///
    /// A file without a record or with one that does not fit the task, by its place and field.
    pub fn read(task: &'static Task, path: &Path, limit: Option<usize>) -> Result<Self, Failure> {
        let file = DataFile::read(path, Format::Auto).or_input()?;
        let mut questions = Vec::new();
        for (index, record) in
            file.records().or_input()?.take(limit.unwrap_or(usize::MAX)).enumerate()
        {
            let record = record.or_input()?;
            let place = record.place;
            let at = |problem| DataError::Record { path: path.to_owned(), place, problem };
            questions.push(question(task, index, record).map_err(at).or_input()?);
        }
        if questions.is_empty() {
            return Err(Failure::input(format!("{}: no record to evaluate", path.display())));
        }
        Ok(Self { task, format: file.format(), digest: file.digest().to_owned(), questions })
    }

    /// The task.
    pub fn task(&self) -> &'static Task {
        self.task
    }

    /// The format of the records.
    pub fn format(&self) -> Format {
        self.format
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The keys that nothing reads where the questions are laid out by `template`.
    pub fn dropped_keys(&self, template: &Template) -> DroppedKeys {
        let mut dropped = DroppedKeys::default();
        self.questions.iter().for_each(|question| dropped.note(&question.record, template));
        dropped.forget_answer();
        dropped
    }

    /// The questions, in the file's order; at least one.
    pub fn all(&self) -> &[Question] {
        &self.questions
    }
}

fn question(task: &Task, index: usize, record: Record) -> Result<Question, String> {
    if record.says_nothing() {
        return Err("the record is empty: there is nothing but white space in it".to_owned());
    }
    let answers = task.answers();
    let whole = answers == super::Answers::Whole;
    if !whole && record.format() != Format::Alpaca {
        return Err(format!(
            "task {task} reads the fields `instruction`, `input`, `output` and `answer`"
        ));
    }
    let answer = match record.extra.get("answer") {
        Some(Value::String(answer)) => answer.trim().to_owned(),
        Some(other @ (Value::Bool(_) | Value::Number(_))) => other.to_string(),
        Some(Value::Null) | None if whole => record.output().trim().to_owned(),
        Some(other) if whole => other.to_string(),
        Some(Value::Null) | None => {
            return Err("field `answer` is missing; it holds the right answer".to_owned());
        }
        Some(_) => return Err("field `answer` must be a string".to_owned()),
    };
    if !whole {
        answers.check(&answer)?;
    }
    let question = Question { index, record, answer };
    let options = question.options(task);
    if !options.is_empty() && !options.contains(&question.answer) {
        let (found, offered) = (&question.answer, options.join(", "));
        return Err(format!("field `answer` is \"{found}\", but the instruction offers {offered}"));
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::super::named;
    use super::*;

    fn read(task: &str, text: &str) -> Result<Questions, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.json");
        std::fs::write(&path, text).unwrap();
        Questions::read(named(task).unwrap(), &path, None).map_err(|failure| failure.to_string())
    }

    fn record(instruction: &str, answer: &str) -> String {
        format!(
            r#"{{"instruction": "{instruction}", "input": "", "output": "", "answer": {answer}}}"#
        )
    }

    #[test]
    fn answers_are_read_as_text_numbers_and_booleans() {
        let all =
            read("gsm8k", &format!("[{},\n{}]", record("1+1?", "2"), record("1+2?", "\" 3.0 \"")))
                .unwrap();
        assert_eq!(all.all().iter().map(Question::answer).collect::<Vec<_>>(), ["2", "3.0"]);
        assert_eq!(read("boolq", &record("So?", "true")).unwrap().all()[0].answer(), "true");
        let world = read("exact-match", r#"{"prompt": "a", "completion": " b"}"#).unwrap();
        assert_eq!(world.all()[0].answer(), "b");
    }

    #[test]
    fn wrong_fields_are_named_with_their_record() {
        let good = record("So?", "\"true\"");
        for (task, text, expected) in [
            (
                "boolq",
                format!("[{good},\n{}]", record("So?", "\"yes\"")),
                "line 2 (record 2): field `answer` must be one of true, false, found \"yes\"",
            ),
            (
                "boolq",
                r#"{"instruction": "a", "output": "true"}"#.to_owned(),
                "line 1: field `answer` is missing",
            ),
            ("boolq", record("So?", "[1]"), "must be a string"),
            ("gsm8k", record("1+1?", "\"two\""), "must be a number, found \"two\""),
            ("AQuA", record("Which?", "\"F\""), "a letter from A to E"),
            (
                "piqa",
                r#"{"prompt": "a", "completion": "b"}"#.to_owned(),
                "`instruction`, `input`, `output` and `answer`",
            ),
            (
                "arc-e",
                record("? Answer format: answer1/answer2", "\"answer3\""),
                "the instruction offers answer1, answer2",
            ),
            (
                "mawps",
                r#"[{"id": 1, "original_text": "a", "ans": 2}]"#.to_owned(),
                "`id`, `original_text`, `ans` fit no format",
            ),
            ("boolq", "[]".to_owned(), "no record"),
        ] {
            let message = read(task, &text).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
