//! Log-probabilities of token records, batch by batch: what `ist score` prints and what options are
//! compared by.

use ist_models::{Decoder, Example, TokenBatch};
use ist_peft::Adapter;
use serde::Serialize;

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

/// The figures of every record, in order.
pub fn of_examples<A: Adapter>(model: &Decoder<A>, examples: &[Example]) -> Vec<RecordScore> {
    batches(examples).flat_map(|batch| score_batch(model, batch)).collect()
}

/// Neighbouring records in batches of at most [`POSITIONS`] padded positions, at least one record
/// each.
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

fn score_batch<A: Adapter>(model: &Decoder<A>, examples: &[Example]) -> Vec<RecordScore> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_record_once_and_stay_within_the_bound() {
        let examples: Vec<Example> =
            [900, 900, 900, 5000, 3, 3].map(|n| Example::tokens(vec![1; n])).to_vec();
        let sizes: Vec<usize> = batches(&examples).map(<[Example]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
    }
}
