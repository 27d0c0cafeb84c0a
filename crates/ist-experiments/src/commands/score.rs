//! `ist score`: log-probabilities and losses of token records.

use std::path::PathBuf;

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_models::{CausalLm, Example, TokenBatch};
use ist_peft::Adapter;
use serde::Serialize;

use super::{ModelArgs, print_json, print_text};
use crate::data::read_tokens;
use crate::device;
use crate::failure::{Failure, OrFail};
use crate::model_source::{self, WithAdapted};

/// `ist score`.
#[derive(Debug, Args)]
pub struct Score {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// JSON Lines of token records
    #[arg(long)]
    pub tokens: PathBuf,
}

/// Token positions scored at once, padding included: bounds the memory of the logits.
const POSITIONS: usize = 2048;

/// One record's figures.
#[derive(Clone, Debug, Serialize)]
pub struct RecordScore {
    /// The mean over the predicted tokens; none when nothing is predicted.
    pub loss: Option<f64>,
    /// Predicted tokens.
    pub tokens: usize,
    /// log p(label) of each predicted position, in order.
    pub token_logprobs: Vec<f64>,
}

/// All records' figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the file's order.
    pub records: Vec<RecordScore>,
    /// The mean over all predicted tokens.
    pub loss: Option<f64>,
    /// All predicted tokens.
    pub tokens: usize,
}

/// Scores.
pub fn run<A: Adapter>(arguments: &Score) -> Result<(), Failure> {
    let device = device::open(&arguments.model.device)?;
    let files = model_source::find_named(&arguments.model.model)?;
    let job = Job { arguments };
    let report = model_source::open::<A, _>(&files, DType::F32, &device, arguments.model.adapter.as_deref(), job)?;
    if arguments.model.json {
        return print_json(&report);
    }
    let row = |(index, record): (usize, &RecordScore)| match record.loss {
        Some(loss) => format!("{index:>6}  {loss:.6}  {} tokens\n", record.tokens),
        None => format!("{index:>6}  -         nothing to predict\n"),
    };
    let rows: String = report.records.iter().enumerate().map(row).collect();
    let loss = report.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.6}"));
    print_text(&format!("{rows}mean loss {loss} over {} tokens\n", report.tokens))
}

struct Job<'a> {
    arguments: &'a Score,
}

impl<A: Adapter> WithAdapted<A> for Job<'_> {
    type Output = Report;

    fn call<M: CausalLm<A>>(self, model: M) -> Result<Report, Failure> {
        let (vocabulary, context) = (model.vocab_size(), model.max_position_embeddings());
        let examples = read_tokens(&self.arguments.tokens, vocabulary, context).or_input()?;
        Ok(report(batches(&examples).flat_map(|batch| score_batch::<A, M>(&model, batch)).collect()))
    }
}

/// Neighbouring records in batches of at most [`POSITIONS`] padded positions, at least one record each.
fn batches(examples: &[Example]) -> impl Iterator<Item = &[Example]> {
    let mut rest = examples;
    std::iter::from_fn(move || {
        let (mut longest, mut count) = (0, 0);
        for example in rest {
            longest = longest.max(example.input_ids.len());
            if count > 0 && longest * (count + 1) > POSITIONS {
                break;
            }
            count += 1;
        }
        let (batch, later) = rest.split_at(count);
        rest = later;
        (count > 0).then_some(batch)
    })
}

fn score_batch<A: Adapter, M: CausalLm<A>>(model: &M, examples: &[Example]) -> Vec<RecordScore> {
    let batch = TokenBatch::new(examples, model.device());
    let mut logprobs: Vec<f64> = Vec::new();
    if batch.predicted_tokens() > 0 {
        logprobs = model.token_log_probabilities(&batch).into_data().iter::<f64>().collect();
    }
    let mut rest = logprobs.as_slice();
    let mut take = |tokens: &usize| {
        let (own, later) = rest.split_at(*tokens);
        rest = later;
        let loss = (*tokens > 0).then(|| -own.iter().sum::<f64>() / *tokens as f64);
        RecordScore { loss, tokens: *tokens, token_logprobs: own.to_vec() }
    };
    batch.predicted.iter().map(&mut take).collect()
}

fn report(records: Vec<RecordScore>) -> Report {
    let tokens: usize = records.iter().map(|record| record.tokens).sum();
    let sum: f64 = records.iter().flat_map(|record| &record.token_logprobs).sum();
    Report { records, loss: (tokens > 0).then(|| -sum / tokens as f64), tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_record_once_and_stay_within_the_bound() {
        let examples: Vec<Example> = [900, 900, 900, 5000, 3, 3].map(|n| Example::tokens(vec![1; n])).to_vec();
        let sizes: Vec<usize> = batches(&examples).map(<[Example]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
    }

    #[test]
    fn the_mean_weighs_tokens_not_records() {
        let record =
            |logprobs: &[f64]| RecordScore { loss: None, tokens: logprobs.len(), token_logprobs: logprobs.to_vec() };
        let report = report(vec![record(&[-1.0]), record(&[]), record(&[-2.0, -3.0])]);
        assert_eq!((report.loss, report.tokens), (Some(2.0), 3));
    }
}
