//! `ist score`: log-probabilities and losses of token records.

use std::path::PathBuf;

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_peft::Adapter;
use serde::Serialize;

use super::{ModelArgs, print_json};
use crate::evaluate::token_scores;
use crate::evaluate::token_scores::RecordScore;
use crate::machine::device;
use crate::model_source::{self, Opening};
use crate::text::records::read_tokens;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

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
    let model = model_source::open::<A>(Opening {
        files: &files,
        storage: DType::F32,
        device: &device,
        adapter: arguments.model.adapter.as_deref(),
    })?;
    let vocabulary = model.vocab_size();
    let context = model.max_position_embeddings();
    let examples = read_tokens(&arguments.tokens, vocabulary, context).or_input()?;
    let report = report(token_scores::of_examples(&model, &examples));
    if arguments.model.json {
        return print_json(&report);
    }
    let row = |(index, record): (usize, &RecordScore)| match record.loss {
        Some(loss) => format!("{index:>6}  {loss:.6}  {} tokens\n", record.tokens),
        None => format!("{index:>6}  -         nothing to predict\n"),
    };
    let rows: String = report.records.iter().enumerate().map(row).collect();
    let loss = report.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.6}"));
    screen::result(&format!("{rows}mean loss {loss} over {} tokens\n", report.tokens))
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
    fn the_mean_weighs_tokens_not_records() {
        let record = |logprobs: &[f64]| RecordScore {
            loss: None,
            tokens: logprobs.len(),
            token_logprobs: logprobs.to_vec(),
        };
        let report = report(vec![record(&[-1.0]), record(&[]), record(&[-2.0, -3.0])]);
        assert_eq!((report.loss, report.tokens), (Some(2.0), 3));
    }
}
