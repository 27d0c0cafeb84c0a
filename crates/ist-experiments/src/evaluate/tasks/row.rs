//! The scores of several tasks as a row of the published tables: each set, and their mean.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::score::{Accuracy, Score};
use super::{Group, Task};

/// The scores of several tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    scores: Vec<Score>,
    missing: Vec<(&'static Task, PathBuf)>,
    groups: Vec<Group>,
}

/// The unweighted mean of some sets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    accuracy: f64,
    normalised: Option<[f64; 2]>,
    sets: usize,
    of: usize,
}

impl Row {
    /// The scores of the sets that there were, the sets that were missing, and the groups that were
    /// asked for.
    pub fn new(
        scores: Vec<Score>,
        missing: Vec<(&'static Task, PathBuf)>,
        groups: Vec<Group>,
    ) -> Self {
        Self { scores, missing, groups }
    }

    /// The mean of the sets of a group, or of all; none where there is no set.
    fn mean(&self, group: Option<Group>) -> Option<Mean> {
        let belongs = |task: &Task| group.is_none() || task.group() == group;
        let scores: Vec<&Score> =
            self.scores.iter().filter(|score| belongs(score.task())).collect();
        let missing = self.missing.iter().filter(|(task, _)| belongs(task)).count();
        let mean = |shares: Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let normalised: Option<Vec<[Accuracy; 2]>> =
            scores.iter().map(|score| score.normalised()).collect();
        (!scores.is_empty()).then(|| Mean {
            accuracy: mean(scores.iter().map(|score| score.accuracy().share()).collect()),
            normalised: normalised
                .map(|all| [0, 1].map(|at| mean(all.iter().map(|two| two[at].share()).collect()))),
            sets: scores.len(),
            of: scores.len() + missing,
        })
    }

    /// Every score, the means, and what was missing.
    pub fn to_json(&self) -> Value {
        let mut document =
            json!({"tasks": self.scores.iter().map(Score::to_json).collect::<Vec<_>>()});
        if let Some(mean) = self.mean(None) {
            mean.write(&mut document);
        }
        let groups = self.groups.iter().filter_map(|group| {
            let mut document = json!({});
            self.mean(Some(*group))?.write(&mut document);
            Some((group.name().to_owned(), document))
        });
        document["groups"] = groups.collect::<Map<_, _>>().into();
        let missing = self.missing.iter();
        document["missing"] = missing
            .map(|(task, file)| json!({"task": task.name(), "file": file.display().to_string()}))
            .collect();
        document
    }

    /// The row as a table for a person.
    pub fn table(&self) -> String {
        let compared = self.scores.iter().any(|score| score.normalised().is_some());
        let more = if compared { "   per token   per byte" } else { "" };
        let mut table = format!(
            "{:<18} accuracy   95 % interval   correct  records  unanswered  commonest \
             answer{more}\n",
            "set"
        );
        let mut line = |text: String| writeln!(table, "{text}").expect("strings take text");
        self.scores.iter().for_each(|score| line(set_line(score)));
        for group in &self.groups {
            match self.mean(Some(*group)) {
                Some(mean) => line(mean.line(&format!("{} mean", group.name()))),
                None => line(format!("{:<18} no set of it is there", group.name())),
            }
        }
        if self.groups.len() != 1 {
            self.mean(None).into_iter().for_each(|mean| line(mean.line("mean")));
        }
        for (task, file) in &self.missing {
            line(format!("missing: {task}, there is no {}", file.display()));
        }
        let too_long: usize = self.scores.iter().map(Score::too_long).sum();
        if too_long > 0 {
            line(format!(
                "not asked, because they do not fit the model's context, and counted as wrong: \
                 {too_long}"
            ));
        }
        table
    }
}

impl Mean {
    fn write(self, document: &mut Value) {
        document["mean"] = self.accuracy.into();
        for (name, mean) in ["mean_per_token", "mean_per_byte"]
            .into_iter()
            .zip(self.normalised.into_iter().flatten())
        {
            document[name] = mean.into();
        }
        document["sets"] = self.sets.into();
        document["of"] = self.of.into();
    }

    fn line(self, name: &str) -> String {
        let of = if self.sets == self.of {
            format!("{} sets", self.of)
        } else {
            format!("only {} of {} sets", self.sets, self.of)
        };
        let more = self.normalised.map_or(String::new(), |two| {
            format!(
                "   (per token {}, per byte {})",
                percent(two[0]).trim(),
                percent(two[1]).trim()
            )
        });
        format!("{name:<18} {}   mean of {of}{more}", percent(self.accuracy))
    }
}

fn set_line(score: &Score) -> String {
    let [low, high] = score.accuracy().interval().map(|bound| format!("{:.1}", 100.0 * bound));
    let interval = format!("{low} - {high}");
    let more = score.normalised().map_or(String::new(), |two| {
        format!("    {}   {}", percent(two[0].share()), percent(two[1].share()))
    });
    format!(
        "{:<18} {}   {interval:>13}   {:>7}  {:>7}  {:>10}  {:>16}{more}",
        score.task().name(),
        percent(score.accuracy().share()),
        score.correct(),
        score.records(),
        score.unanswered(),
        percent(score.majority_baseline()).trim(),
    )
}

fn percent(share: f64) -> String {
    format!("{:>6.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::super::ask::Way;
    use super::super::{Prediction, named};
    use super::*;

    fn score(task: &str, right: usize, wrong: usize) -> Score {
        let task = named(task).unwrap();
        let answer = task.answers().options("")[0].clone();
        let predict = |index| {
            let reply = if index < right { answer.as_str() } else { "" };
            Prediction::of_reply(task, index, String::new(), answer.clone(), reply)
        };
        Score::of(task, Way::Generate, &(0..right + wrong).map(predict).collect::<Vec<_>>())
    }

    #[test]
    fn the_mean_weighs_sets_and_says_which_are_missing() {
        let missing =
            vec![(named("hellaswag").unwrap(), PathBuf::from("data/hellaswag/test.json"))];
        let row = Row::new(
            vec![score("boolq", 1, 0), score("piqa", 1, 3)],
            missing,
            vec![Group::Commonsense],
        );
        let document = row.to_json();
        assert_eq!(
            (&document["mean"], &document["sets"], &document["of"]),
            (&json!(0.625), &json!(2), &json!(3))
        );
        assert_eq!(document["groups"]["commonsense"]["mean"], 0.625);
        assert_eq!(
            document["missing"],
            json!([{"task": "hellaswag", "file": "data/hellaswag/test.json"}])
        );
        let table = row.table();
        for part in
            ["62.5 %   mean of only 2 of 3 sets", "missing: hellaswag, there is no data", "25.0 %"]
        {
            assert!(table.contains(part), "{part}\n{table}");
        }
    }

    #[test]
    fn each_group_has_its_mean() {
        let row = Row::new(
            vec![score("boolq", 1, 1), score("AQuA", 1, 0)],
            Vec::new(),
            Group::ALL.to_vec(),
        );
        let document = row.to_json();
        assert_eq!(document["groups"]["arithmetic"], json!({"mean": 1.0, "sets": 1, "of": 1}));
        assert_eq!(document["mean"], 0.75);
        assert!(
            row.table().contains("arithmetic mean     100.0 %   mean of 1 sets"),
            "{}",
            row.table()
        );
    }
}
