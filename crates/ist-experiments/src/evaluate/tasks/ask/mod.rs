//! Asking a model: by what it writes, or by how likely each option is.

mod generate;
mod likelihood;

use std::num::NonZeroUsize;

use ist_models::Decoder;
use ist_peft::Adapter;

use super::predictions::{Log, Prediction};
use super::questions::{Question, Questions};
use crate::text::TextModel;
use crate::text::records::Encoder;
use ist_records::{Failure, OrFail};

/// How a model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// It writes, and the answer is found in what it wrote
    Generate,
    /// Its answer is the likeliest of the options
    Likelihood,
}

impl Way {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Likelihood => "likelihood",
        }
    }
}

/// How questions are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// By what the model answers.
    pub way: Way,
    /// Beams of the search; one is greedy.
    pub beams: NonZeroUsize,
    /// Questions asked at once.
    pub batch: NonZeroUsize,
    /// Tokens a reply may have.
    pub max_new_tokens: usize,
}

/// A model, its text side and how it is asked.
#[derive(Debug)]
pub struct Examiner<'a, A: Adapter> {
    /// The model.
    pub model: &'a Decoder<A>,
    /// Its tokenizer and end tokens.
    pub text: &'a TextModel,
    /// From records to tokens.
    pub encoder: &'a Encoder,
    /// How it is asked.
    pub asking: Asking,
}

impl<A: Adapter> Examiner<'_, A> {
    /// Asks every question that `log` does not know the outcome of. After each batch `progress`
    /// gets how many are done.
    ///
    /// # Errors
    ///
    /// Prompts none of which fits the model's context; records that the template does not fit; a
    /// log that cannot be written.
    pub fn ask(
        &self,
        questions: &Questions,
        log: &mut Log,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Prediction>, Failure> {
        let (mut predictions, mut open) = (Vec::new(), Vec::new());
        for question in questions.all() {
            match log.take(questions.task(), question.index()) {
                Some(known) => predictions.push(known),
                None => open.push(question),
            }
        }
        for batch in open.chunks(self.asking.batch.get()) {
            let new = match self.asking.way {
                Way::Generate => generate::replies(self, questions.task(), batch),
                Way::Likelihood => likelihood::comparisons(self, questions.task(), batch),
            }?;
            new.iter().try_for_each(|prediction| log.write(prediction))?;
            predictions.extend(new);
            progress(predictions.len());
        }
        predictions.sort_by_key(|prediction| prediction.index);
        if predictions.iter().all(|prediction| prediction.too_long) {
            return Err(self.nothing_fits(questions));
        }
        Ok(predictions)
    }

    fn prompt(&self, question: &Question) -> Result<String, Failure> {
        self.encoder.options().template.evaluation_prompt(question.record()).or_input()
    }

    fn nothing_fits(&self, questions: &Questions) -> Failure {
        let (context, new) = (self.model.max_position_embeddings(), self.asking.max_new_tokens);
        let room = match self.asking.way {
            Way::Generate => format!(" and {new} new tokens (--max-new-tokens)"),
            Way::Likelihood => " and its options".to_owned(),
        };
        let task = questions.task();
        Failure::input(format!(
            "task {task}: no prompt{room} fit the model's context of {context} positions"
        ))
    }
}
