//! What predictions come to: accuracy with Wilson's interval, and what stands beside it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Task;
use super::ask::Way;
use super::predictions::{Normalisation, Prediction};
use ist_records::report::statistics::wilson;

/// A count of right answers among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accuracy {
    correct: usize,
    records: usize,
}

impl Accuracy {
    /// So many of so many; at least one record.
    pub fn new(correct: usize, records: usize) -> Self {
        Self { correct, records }
    }

    /// The share of right answers.
    pub fn share(self) -> f64 {
        self.correct as f64 / self.records.max(1) as f64
    }

    /// Wilson's 95 % score interval of the share; all of [0, 1] without a record.
    pub fn interval(self) -> [f64; 2] {
        wilson(self.correct as f64, self.records as f64)
            .map_or([0.0, 1.0], |interval| [interval.low, interval.high])
    }
}

/// A task's outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    task: &'static Task,
    way: Way,
    accuracy: Accuracy,
    /// By log-likelihood per token and per byte, where options were compared.
    normalised: Option<[Accuracy; 2]>,
    unanswered: usize,
    too_long: usize,
    majority: usize,
}

impl Score {
    /// Counts predictions; there is at least one.
    pub fn of(task: &'static Task, way: Way, predictions: &[Prediction]) -> Self {
        let records = predictions.len();
        let count = |holds: &dyn Fn(&Prediction) -> bool| {
            predictions.iter().filter(|one| holds(one)).count()
        };
        let normalised = (way == Way::Likelihood).then(|| {
            [Normalisation::Tokens, Normalisation::Bytes]
                .map(|by| Accuracy::new(count(&|one| one.best(by) == Some(&one.answer)), records))
        });
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        for prediction in predictions {
            *answers.entry(&prediction.answer).or_default() += 1;
        }
        Self {
            task,
            way,
            accuracy: Accuracy::new(count(&|one| one.correct), records),
            normalised,
            unanswered: count(&|one| one.extracted.is_none()),
            too_long: count(&|one| one.too_long),
            majority: answers.into_values().max().unwrap_or_default(),
        }
    }

    /// The task.
    pub fn task(&self) -> &'static Task {
        self.task
    }

    /// Its accuracy.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// Its accuracy by log-likelihood per token and per byte, where options were compared.
    pub fn normalised(&self) -> Option<[Accuracy; 2]> {
        self.normalised
    }

    /// Right answers.
    pub fn correct(&self) -> usize {
        self.accuracy.correct
    }

    /// All records.
    pub fn records(&self) -> usize {
        self.accuracy.records
    }

    /// Records in whose reply no answer was found; they count as wrong.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Records that do not fit the model's context; they were not asked and are among the
    /// unanswered.
    pub fn too_long(&self) -> usize {
        self.too_long
    }

    /// The share of the commonest answer: what always giving it would score.
    pub fn majority_baseline(&self) -> f64 {
        Accuracy::new(self.majority, self.records()).share()
    }

    /// Counts and rates, without the single predictions.
    pub fn to_json(&self) -> Value {
        let share = self.accuracy.share();
        let mut document =
            json!({"task": self.task.name(), "correct": self.correct(), "records": self.records()});
        if self.task.answers() == super::Answers::Whole {
            document["exact_match"] = share.into();
        }
        document["majority_baseline"] = self.majority_baseline().into();
        document["by"] = self.way.name().into();
        document["accuracy"] = share.into();
        document["interval"] = self.accuracy.interval().to_vec().into();
        for (name, accuracy) in
            ["per_token", "per_byte"].into_iter().zip(self.normalised.into_iter().flatten())
        {
            document[format!("accuracy_{name}")] = accuracy.share().into();
            document[format!("interval_{name}")] = accuracy.interval().to_vec().into();
        }
        document["unanswered"] = self.unanswered.into();
        document["too_long"] = self.too_long.into();
        document
    }
}

#[cfg(test)]
mod tests {
    use super::super::named;
    use super::*;

    /// By generation: reply and answer.
    fn score(task: &str, pairs: &[(&str, &str)]) -> Score {
        let task = named(task).unwrap();
        let predict = |(index, (reply, answer)): (usize, &(&str, &str))| {
            Prediction::of_reply(task, index, String::new(), (*answer).to_owned(), reply)
        };
        Score::of(task, Way::Generate, &pairs.iter().enumerate().map(predict).collect::<Vec<_>>())
    }

    #[test]
    fn only_the_whole_answer_counts_where_replies_are_compared_whole() {
        let score = score(
            "exact-match",
            &[
                ("barn", "barn"),
                ("barn.", "barn"),
                (" barn\n", "barn"),
                ("Barn", "barn"),
                ("", "barn"),
            ],
        );
        assert_eq!((score.correct(), score.unanswered(), score.records()), (2, 1, 5));
        assert!((score.majority_baseline() - 1.0).abs() < 1e-12);
        assert_eq!(score.to_json()["exact_match"], 0.4);
    }

    #[test]
    fn a_reply_without_an_answer_is_wrong_and_counted() {
        let score = score("boolq", &[("true", "true"), ("", "true"), ("perhaps", "false")]);
        assert_eq!((score.correct(), score.unanswered()), (1, 2));
        let document = score.to_json();
        assert!(
            document.get("exact_match").is_none() && document.get("accuracy_per_token").is_none(),
            "{document}"
        );
    }

    #[test]
    fn the_interval_stays_within_0_and_1_and_holds_the_share() {
        for records in [1, 7, 3270] {
            for correct in 0..=records {
                let accuracy = Accuracy::new(correct, records);
                let [low, high] = accuracy.interval();
                assert!(
                    (0.0..=1.0).contains(&low)
                        && low <= accuracy.share()
                        && accuracy.share() <= high
                        && high <= 1.0
                );
            }
        }
        let [low, high] = Accuracy::new(8, 10).interval();
        // Newcombe (1998), and any table of Wilson's interval.
        assert!((low - 0.4902).abs() < 5e-5 && (high - 0.9433).abs() < 5e-5, "{low} {high}");
    }
}
