//! Generation step by step, a cache that goes on from one prompt to the next, and beam search as
//! transformers searches.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::num::NonZeroUsize;

use ist_core::burn::tensor::Device;
use ist_models::generate::{
    BeamSettings, Conversation, Generation, Settings, beam_search, generate,
};
use ist_models::{Decoder, DecoderConfig};
use ist_peft::BuiltinAdapter;

fn model() -> Decoder<BuiltinAdapter> {
    let config = DecoderConfig::parse(
        r#"{"model_type": "llama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5}"#,
    )
    .unwrap();
    Decoder::random(config, 5, &Device::flex())
}

fn drawn(max_new_tokens: usize) -> Settings {
    // At random weights the likeliest token soon repeats itself; draws do not.
    Settings { max_new_tokens, temperature: 1.0, seed: 9, ..Settings::default() }
}

#[test]
fn steps_come_to_what_generate_gives() {
    let (model, settings) = (model(), drawn(7));
    let prompts = [vec![3, 5, 7], vec![11], vec![2, 4, 6, 8, 10]];
    let whole = generate(&model, &prompts, &settings).unwrap();
    let mut generation = Generation::new(&model, &prompts, &settings).unwrap();
    let mut steps = 0;
    while generation.step() {
        steps += 1;
        for (row, output) in whole.iter().enumerate() {
            assert_eq!(generation.output(row), &output[..steps.min(output.len())]);
        }
    }
    assert_eq!((steps, generation.into_outputs()), (7, whole));
}

#[test]
fn a_row_that_is_ended_stops_and_the_others_go_on() {
    let (model, settings) = (model(), drawn(6));
    let prompts = [vec![3, 5, 7], vec![11, 12]];
    let whole = generate(&model, &prompts, &settings).unwrap();
    let mut generation = Generation::new(&model, &prompts, &settings).unwrap();
    while generation.step() {
        if generation.output(0).len() == 2 {
            generation.end(0);
        }
    }
    assert_eq!(generation.into_outputs(), [whole[0][..2].to_vec(), whole[1].clone()]);
    let mut generation = Generation::new(&model, &prompts, &settings).unwrap();
    (0..2).for_each(|row| generation.end(row));
    assert!(!generation.step() && generation.has_ended(0));
}

#[test]
fn an_end_token_ends_its_own_row_alone() {
    let model = model();
    let prompts = [vec![3, 5, 7], vec![11, 12]];
    let whole = generate(&model, &prompts, &drawn(8)).unwrap();
    let end = *whole[0].iter().find(|id| !whole[1].contains(id)).unwrap();
    let settings = Settings { end_tokens: vec![end], ..drawn(8) };
    let at = whole[0].iter().position(|id| *id == end).unwrap();
    assert_eq!(
        generate(&model, &prompts, &settings).unwrap(),
        [whole[0][..=at].to_vec(), whole[1].clone()]
    );
}

#[test]
fn a_conversation_reads_only_what_is_new_and_answers_the_same() {
    let (model, settings) = (model(), drawn(5));
    let mut conversation = Conversation::new(&model);
    let first = conversation.answer(&[3, 5, 7], &settings, |_| true).unwrap();
    assert_eq!(first, generate(&model, &[vec![3, 5, 7]], &settings).unwrap()[0]);
    let longer = [&[3, 5, 7][..], &first, &[1, 2]].concat();
    assert_eq!(conversation.shared(&longer), 3 + first.len() - 1);
    let second = conversation.answer(&longer, &settings, |_| true).unwrap();
    assert_eq!(second, generate(&model, std::slice::from_ref(&longer), &settings).unwrap()[0]);
    // Another beginning, or nothing new, is read from the start.
    for other in [[&[4], &longer[1..], &second, &[8]].concat(), longer[..3].to_vec()] {
        assert_eq!(conversation.shared(&other), 0);
        let answer = conversation.answer(&other, &settings, |_| true).unwrap();
        assert_eq!(answer, generate(&model, &[other], &settings).unwrap()[0]);
    }
}

#[test]
fn a_conversation_goes_on_after_an_answer_that_was_ended_or_refused() {
    let (model, settings) = (model(), drawn(5));
    let mut conversation = Conversation::new(&model);
    let first = conversation.answer(&[3, 5, 7], &settings, |output| output.len() < 2).unwrap();
    assert_eq!(first.len(), 2);
    assert!(
        conversation.answer(&[61], &settings, |_| true).unwrap_err().to_string().contains("61")
    );
    assert!(
        conversation
            .answer(&[1; 60], &settings, |_| true)
            .unwrap_err()
            .to_string()
            .contains("64 positions")
    );
    let longer = [&[3, 5, 7][..], &first, &[1]].concat();
    assert_eq!(conversation.shared(&longer), 4);
    let second = conversation.answer(&longer, &settings, |_| true).unwrap();
    assert_eq!(second, generate(&model, &[longer], &settings).unwrap()[0]);
}

/// The settings of a case of `fixtures/beam_search`.
fn beam_settings(case: &serde_json::Value) -> BeamSettings {
    let count = |key: &str| case[key].as_u64().unwrap() as usize;
    BeamSettings {
        beams: NonZeroUsize::new(count("beams")).unwrap(),
        max_new_tokens: count("max_new_tokens"),
        length_penalty: case["length_penalty"].as_f64().unwrap(),
        end_tokens: serde_json::from_value(case["end_tokens"].clone()).unwrap(),
    }
}

#[test]
fn beam_search_finds_what_transformers_finds_alone_and_in_a_batch() {
    let text =
        std::fs::read_to_string(fixture::folder("beam_search").join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let model = fixture::model(expected["base_model"].as_str().unwrap());
    let prompts: Vec<Vec<u32>> = serde_json::from_value(expected["prompts"].clone()).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let settings = beam_settings(case);
        let continuations: Vec<Vec<u32>> =
            serde_json::from_value(case["continuations"].clone()).unwrap();
        assert_eq!(
            beam_search(&model, &prompts, &settings).unwrap(),
            continuations,
            "{settings:?}"
        );
        for (prompt, continuation) in prompts.iter().zip(&continuations) {
            let alone = beam_search(&model, std::slice::from_ref(prompt), &settings).unwrap();
            assert_eq!(alone, std::slice::from_ref(continuation), "{settings:?}");
        }
    }
}

#[test]
fn one_beam_without_an_end_is_greedy() {
    let (model, prompts) = (model(), [vec![3, 5, 7], vec![11, 12]]);
    let one = BeamSettings {
        beams: NonZeroUsize::MIN,
        max_new_tokens: 6,
        length_penalty: 1.0,
        end_tokens: Vec::new(),
    };
    let greedy = Settings { max_new_tokens: 6, ..Settings::default() };
    assert_eq!(
        beam_search(&model, &prompts, &one).unwrap(),
        generate(&model, &prompts, &greedy).unwrap()
    );
    assert!(beam_search(&model, &[vec![99]], &one).unwrap_err().to_string().contains("99"));
}
