//! What a run measures besides its loss: the score on a task, and sample texts.

use std::num::NonZeroUsize;

use ist_models::{Decoder, generate};
use ist_peft::Adapter;

use crate::config::{EvalConfig, RunConfig};
use crate::evaluate::tasks;
use crate::evaluate::tasks::Score;
use crate::evaluate::tasks::ask::{Asking, Examiner, Way};
use crate::evaluate::tasks::predictions::Log;
use crate::evaluate::tasks::questions::Questions;
use ist_records::{Failure, OrFail};

use super::prepare::{self, Prepared};

/// Prompts generated at once.
const ROWS: NonZeroUsize = NonZeroUsize::new(25).expect("25 is not 0");

/// The score of the configured task, by greedy replies.
pub fn score<A: Adapter>(
    model: &Decoder<A>,
    eval: &EvalConfig,
    config: &RunConfig,
    data: &Prepared,
) -> Result<Score, Failure> {
    let text = data.text()?;
    let questions = Questions::read(tasks::named(&eval.task)?, &eval.data, eval.limit)?;
    let encoder = text.encoder(config, questions.format(), model.vocab_size())?;
    let (beams, max_new_tokens) = (NonZeroUsize::MIN, eval.max_new_tokens);
    let asking = Asking { way: Way::Generate, beams, batch: ROWS, max_new_tokens };
    let examiner = Examiner { model, text, encoder: &encoder, asking };
    let predictions = examiner.ask(&questions, &mut Log::none(), |_| ())?;
    Ok(Score::of(questions.task(), Way::Generate, &predictions))
}

/// A greedy continuation of every `train.sample_prompts`.
pub fn samples<A: Adapter>(
    model: &Decoder<A>,
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
    prompts
        .iter()
        .zip(outputs)
        .map(|(prompt, output)| Ok((prompt.clone(), text.decode(&output)?)))
        .collect()
}
