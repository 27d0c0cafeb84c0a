//! What a run measures besides its loss: exact match on a task, and sample texts.

use std::collections::BTreeMap;

use ist_models::{CausalLm, generate};
use ist_peft::Adapter;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{EvalConfig, RunConfig};
use crate::data::{DataFile, Format, Record};
use crate::failure::{Failure, OrFail};
use crate::text::TextModel;

use super::prepare::{self, Prepared};

/// Prompts generated at once.
const ROWS: usize = 25;

/// One record's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// What the model wrote, trimmed.
    pub prediction: String,
    /// What it should have written.
    pub answer: String,
}

impl Prediction {
    /// Whether the whole trimmed output is the answer.
    pub fn is_correct(&self) -> bool {
        self.prediction == self.answer
    }
}

/// A task's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Every record's outcome, in the file's order.
    pub predictions: Vec<Prediction>,
}

impl Score {
    /// Records answered exactly.
    pub fn correct(&self) -> usize {
        self.predictions.iter().filter(|prediction| prediction.is_correct()).count()
    }

    /// The share of the commonest answer: what always giving it would score.
    pub fn majority_baseline(&self) -> f64 {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for prediction in &self.predictions {
            *counts.entry(&prediction.answer).or_default() += 1;
        }
        counts.values().max().map_or(0.0, |&most| most as f64 / self.predictions.len() as f64)
    }

    /// Counts and rates, without the single predictions.
    pub fn to_json(&self) -> Value {
        let (correct, records) = (self.correct(), self.predictions.len());
        json!({
            "task": "exact-match",
            "correct": correct,
            "records": records,
            "exact_match": correct as f64 / records.max(1) as f64,
            "majority_baseline": self.majority_baseline(),
        })
    }
}

/// The share of records whose greedy continuation is exactly the expected answer.
///
/// The answer is the record's field `answer` where there is one, else its output.
pub fn exact_match<A: Adapter, M: CausalLm<A>>(
    model: &M,
    eval: &EvalConfig,
    config: &RunConfig,
    data: &Prepared,
) -> Result<Score, Failure> {
    let text = data.text()?;
    let records = read_records(&eval.data, eval.limit)?;
    let encoder = text.encoder(config, records[0].format(), model.vocab_size())?;
    let prompts =
        |records: &[Record]| records.iter().map(|record| encoder.prompt_ids(record)).collect::<Result<Vec<_>, _>>();
    score_records(model, text, &records, eval.max_new_tokens, |records| prompts(records).or_input())
}

/// The records of a TEXT file, at most `limit` of them.
pub fn read_records(path: &std::path::Path, limit: Option<usize>) -> Result<Vec<Record>, Failure> {
    let file = DataFile::read(path, Format::Auto).or_input()?;
    let records =
        file.records().or_input()?.take(limit.unwrap_or(usize::MAX)).collect::<Result<Vec<_>, _>>().or_input()?;
    if records.is_empty() {
        return Err(Failure::input(format!("{}: no record to evaluate", path.display())));
    }
    Ok(records)
}

/// Generates greedily for every record and compares.
pub fn score_records<A: Adapter, M: CausalLm<A>>(
    model: &M,
    text: &TextModel,
    records: &[Record],
    max_new_tokens: usize,
    prompts: impl Fn(&[Record]) -> Result<Vec<Vec<u32>>, Failure>,
) -> Result<Score, Failure> {
    let settings =
        generate::Settings { max_new_tokens, end_tokens: text.end_tokens.clone(), ..generate::Settings::default() };
    let mut predictions = Vec::with_capacity(records.len());
    for records in records.chunks(ROWS) {
        let outputs = generate::generate(model, &prompts(records)?, &settings).or_input()?;
        for (record, output) in records.iter().zip(outputs) {
            let prediction = text.decode(&output)?.trim().to_owned();
            predictions.push(Prediction { prediction, answer: answer_of(record) });
        }
    }
    Ok(Score { predictions })
}

fn answer_of(record: &Record) -> String {
    let answer = match record.extra.get("answer") {
        Some(Value::String(answer)) => answer.clone(),
        Some(Value::Null) | None => record.output().to_owned(),
        Some(other) => other.to_string(),
    };
    answer.trim().to_owned()
}

/// A greedy continuation of every `train.sample_prompts`.
pub fn samples<A: Adapter, M: CausalLm<A>>(
    model: &M,
    config: &RunConfig,
    data: &Prepared,
) -> Result<Vec<(String, String)>, Failure> {
    let prompts = &config.train.sample_prompts;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let text = data.text()?;
    let settings = generate::Settings {
        max_new_tokens: config.train.sample_tokens,
        end_tokens: text.end_tokens.clone(),
        ..generate::Settings::default()
    };
    let ids = prepare::sample_prompt_ids(config, text)?;
    let outputs = generate::generate(model, &ids, &settings).or_input()?;
    prompts.iter().zip(outputs).map(|(prompt, output)| Ok((prompt.clone(), text.decode(&output)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(pairs: &[(&str, &str)]) -> Score {
        let predict = |(prediction, answer): &(&str, &str)| Prediction {
            prediction: (*prediction).to_owned(),
            answer: (*answer).to_owned(),
        };
        Score { predictions: pairs.iter().map(predict).collect() }
    }

    #[test]
    fn only_the_whole_answer_counts() {
        let score = score(&[("barn", "barn"), ("barn.", "barn"), ("the barn", "barn"), ("Barn", "barn")]);
        assert_eq!(score.correct(), 1);
        assert!((score.majority_baseline() - 1.0).abs() < 1e-12);
    }
}
