//! Properties of the world as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    facts::Relation,
    forms::forms,
    questions::{Split, TaskRecord, json_lines, majority_answer, split_of, task},
    *,
};

fn splits() -> [(Split, Vec<TaskRecord>); 3] {
    Split::ALL.map(|split| (split, task(SEED, split)))
}

fn sentence_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn data_file(split: Split) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../experiments/data");
    root.join(format!("world-{}.jsonl", split.name()))
}

#[test]
fn the_same_seed_gives_the_same_texts_and_another_seed_others() {
    let texts = |seed| documents(seed).take(200).collect::<Vec<_>>();
    assert_eq!(texts(1), texts(1));
    assert_ne!(texts(1), texts(2));
    assert_eq!(task(1, Split::Train), task(1, Split::Train));
    assert_ne!(task(1, Split::Train), task(2, Split::Train));
}

#[test]
fn texts_hardly_ever_repeat() {
    assert!(documents(1).take(20_000).collect::<BTreeSet<_>>().len() > 19_900);
}

#[test]
fn articles_agree_with_the_next_word() {
    let texts = documents(3)
        .take(5_000)
        .chain(splits().into_iter().flat_map(|(_, list)| list).map(|r| r.input));
    let mut articles = 0;
    for text in texts {
        let words: Vec<&str> = sentence_words(&text).collect();
        for pair in words.windows(2).filter(|pair| ["a", "an", "A", "An"].contains(&pair[0])) {
            assert_eq!(
                pair[1].starts_with(['a', 'e', 'i', 'o', 'u']),
                pair[0].len() == 2,
                "{} {}: {text}",
                pair[0],
                pair[1]
            );
            articles += 1;
        }
    }
    assert!(articles > 5_000);
}

#[test]
fn sentences_are_whole() {
    for text in documents(4).take(5_000) {
        assert!(!text.contains(['{', '}']) && !text.contains("  ") && text.is_ascii(), "{text}");
        assert!(
            text.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '"'),
            "{text}"
        );
        assert_eq!(text.matches('"').count() % 2, 0, "{text}");
    }
}

/// The fixed words around a question template's holes.
fn stems(template: &str) -> Vec<String> {
    template
        .split(['{', '}'])
        .step_by(2)
        .map(|stem| stem.trim().to_owned())
        .filter(|stem| stem.len() > 3)
        .collect()
}

#[test]
fn pre_training_texts_never_use_the_form_of_the_task() {
    let questions: Vec<Vec<String>> =
        Relation::ALL.iter().flat_map(|&r| forms(r).task).map(|template| stems(template)).collect();
    for text in documents(5).take(20_000) {
        assert!(!text.contains("Tell us the") && !text.contains('#'), "{text}");
        for sentence in text.split_inclusive(['?', '.', '\n']) {
            assert!(
                !questions.iter().any(|stems| stems.iter().all(|stem| sentence.contains(stem))),
                "{sentence}"
            );
        }
    }
}

/// The asked pair of a record, read from its question's words.
fn asked(record: &TaskRecord) -> (String, Relation) {
    let found = Relation::ALL.iter().find_map(|&relation| {
        let matches = |template: &&str| {
            let known = stems(template);
            known.iter().all(|stem| record.instruction.contains(stem))
        };
        let template = forms(relation).task.iter().find(|template| matches(template))?;
        let entity = relation
            .entities()
            .iter()
            .find(|entity| sentence_words(&record.instruction).any(|w| w == **entity))?;
        (template.contains("{t}") == (relation == Relation::Count))
            .then(|| ((*entity).to_owned(), relation))
    });
    found.unwrap_or_else(|| panic!("no question of the task: {}", record.instruction))
}

#[test]
fn no_entity_relation_pair_is_asked_in_two_splits() {
    let mut owner: BTreeMap<(String, Relation), Split> = BTreeMap::new();
    for (split, records) in splits() {
        for record in &records {
            let pair = asked(record);
            assert_eq!(split_of(SEED, &pair.0, pair.1), split, "{pair:?}");
            assert_eq!(*owner.entry(pair.clone()).or_insert(split), split, "{pair:?}");
        }
    }
    let count = |split| owner.values().filter(|&&other| other == split).count();
    assert!(count(Split::Train) > 80 && count(Split::Validation) >= 20 && count(Split::Test) >= 20);
}

#[test]
fn the_texts_state_every_fact_that_is_asked_for() {
    let mut stated: BTreeSet<(String, String)> = BTreeSet::new();
    for text in documents(11).take(4000) {
        for sentence in text.split(['.', '?', '!', '\n']) {
            let words: Vec<&str> = sentence_words(sentence).collect();
            let pairs = words.iter().flat_map(|a| words.iter().map(move |b| (*a, *b)));
            stated.extend(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())));
        }
    }
    for record in splits().into_iter().flat_map(|(_, records)| records) {
        let (entity, _) = asked(&record);
        assert!(stated.contains(&(entity, record.answer.clone())), "{record:?}");
    }
}

#[test]
fn texts_tell_the_truth_about_colours() {
    let said =
        |text: &str, colour: &str, object: &str| text.contains(&format!("{colour} {object}"));
    for text in documents(12).take(2000) {
        for object in Relation::Colour.entities() {
            let lies = Relation::Colour
                .values()
                .iter()
                .filter(|colour| Relation::Colour.truth(object) != Some(**colour));
            assert!(!lies.into_iter().any(|colour| said(&text, colour, object)), "{text}");
        }
    }
}

#[test]
fn records_hold_one_word_answers_and_no_question_twice() {
    let records: Vec<TaskRecord> = splits().into_iter().flat_map(|(_, list)| list).collect();
    assert!(
        records.iter().all(|record| record.output == record.answer && !record.answer.contains(' '))
    );
    let distinct: BTreeSet<_> =
        records.iter().map(|record| (&record.instruction, &record.input)).collect();
    assert_eq!(distinct.len(), records.len());
}

#[test]
fn the_majority_answer_is_nearly_always_wrong() {
    let [(_, train), _, (_, test)] = splits();
    let (answer, right) = majority_answer(&train, &test).unwrap();
    println!("majority answer {answer}: {:.1} % of the test records", right * 100.0);
    assert!(right < 0.1);
    assert_eq!(majority_answer(&train, &[]), None);
}

/// Run once with `IST_WRITE_WORLD=1` to write the files after a change of the generator.
#[test]
fn the_committed_task_files_are_what_the_generator_writes() {
    let mut bytes = 0;
    for (split, records) in splits() {
        let path = data_file(split);
        let text = json_lines(&records).unwrap();
        if std::env::var_os("IST_WRITE_WORLD").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        bytes += text.len();
        assert!(
            std::fs::read_to_string(&path).unwrap() == text,
            "{} is out of date",
            path.display()
        );
    }
    assert!(bytes < 700_000, "{bytes} bytes");
}

#[test]
fn every_word_is_one_token_and_lengths_fit_a_window_of_128() {
    let tokenizer = train_tokenizer(VOCABULARY_SIZE, SEED).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), VOCABULARY_SIZE);
    assert_eq!(
        [BEGIN, END, PAD].map(|token| tokenizer.token_to_id(token)),
        [Some(0), Some(1), Some(2)]
    );
    let length = |text: &str| tokenizer.encode(text, false).unwrap().len();
    let broken: Vec<&str> = words().filter(|word| is_told(word) && length(word) != 1).collect();
    assert!(broken.is_empty(), "{broken:?}");
    let unknown =
        |record: &TaskRecord| sentence_words(&prompt(record)).any(|word| length(word) != 1);
    assert!(!splits().iter().flat_map(|(_, list)| list).any(unknown));
    let unknown =
        documents(7).take(4_000).find(|text| sentence_words(text).any(|word| length(word) != 1));
    assert_eq!(unknown, None);
    let texts: Vec<usize> = documents(7).take(4_000).map(|text| length(&text)).collect();
    let prompts: Vec<usize> =
        splits().iter().flat_map(|(_, list)| list).map(|record| length(&prompt(record))).collect();
    for (name, lengths) in [("texts", &texts), ("records", &prompts)] {
        let (sum, max) = (lengths.iter().sum::<usize>(), lengths.iter().max().unwrap());
        println!(
            "{name}: {:.1} tokens on average, at most {max}",
            sum as f64 / lengths.len() as f64
        );
    }
    assert!(texts.iter().all(|&tokens| tokens < 128) && prompts.iter().all(|&tokens| tokens < 100));
}

/// False for a value that is true of nobody, such as the food that nobody eats.
fn is_told(word: &str) -> bool {
    let mut lasting = Relation::LASTING.into_iter();
    let is_value = lasting.clone().any(|relation| relation.values().contains(&word));
    let true_of = |relation: Relation| {
        relation.entities().iter().any(|entity| relation.truth(entity) == Some(word))
    };
    !is_value || lasting.any(true_of)
}

fn prompt(record: &TaskRecord) -> String {
    let TaskRecord { instruction, input, output, .. } = record;
    format!("### Instruction:\n{instruction}{input}\n\n### Response:\n{output}")
}

#[test]
fn the_vocabulary_is_the_same_each_time_and_its_size_is_checked() {
    let text = || train_tokenizer(VOCABULARY_SIZE, SEED).unwrap().to_string(false).unwrap();
    assert_eq!(text(), text());
    let error = |size| train_tokenizer(size, SEED).unwrap_err().to_string();
    assert!(
        error(100).contains("vocab_size: expected 259 to") && error(100).contains("found 100"),
        "{}",
        error(100)
    );
    assert!(error(5000).contains("found 5000"));
}

#[test]
fn a_word_is_the_same_token_in_the_passage_and_behind_a_line_break() {
    let tokenizer = train_tokenizer(VOCABULARY_SIZE, SEED).unwrap();
    let ids = |text: &str, special| tokenizer.encode(text, special).unwrap().get_ids().to_vec();
    let barn = ids(" barn", false);
    assert_eq!(barn.len(), 1);
    assert_eq!(ids("barn", false), barn);
    let prompt = ids("### Response:\n", false);
    assert_eq!(ids("### Response:\nbarn", false), [prompt, barn].concat());
    assert_eq!(ids("barn", true)[0], 0);
}

#[test]
fn any_text_survives_encoding_and_decoding() {
    let tokenizer = train_tokenizer(VOCABULARY_SIZE, SEED).unwrap();
    let mut texts: Vec<String> = documents(8).take(300).collect();
    texts.extend(["Grüße, 世界! 😀\n\n\tx = 3;".to_owned(), String::new()]);
    for text in texts {
        let ids = tokenizer.encode(text.as_str(), true).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), text);
    }
}
