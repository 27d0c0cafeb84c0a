//! SentencePiece models against SentencePiece and transformers (`fixtures/sentencepiece`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use ist_models::text::text_files::TextFiles;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

const UNKNOWN: u32 = 0;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    decoded: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentencepiece")
}

fn cases(section: &str) -> Vec<(String, Vec<Case>)> {
    let text = std::fs::read_to_string(fixtures().join("expected.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let section = document[section].as_object().unwrap();
    section
        .iter()
        .map(|(name, cases)| (name.clone(), serde_json::from_value(cases.clone()).unwrap()))
        .collect()
}

fn tokenizer(folder: &Path) -> Result<Tokenizer, String> {
    let files = TextFiles::in_folder(folder).map_err(|error| error.to_string())?;
    files
        .tokenizer("model", 1000)
        .map(ist_models::text::tokenizer::Tokenizer::into_inner)
        .map_err(|error| error.to_string())
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

/// A folder with a model and what `tokenizer_config.json` says.
fn folder(model: &[u8], config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.model"), model).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

fn model(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name).join("tokenizer.model")).unwrap()
}

#[test]
fn a_text_gets_the_ids_that_sentencepiece_gives_it() {
    for (name, cases) in cases("cases") {
        let tokenizer = tokenizer(&fixtures().join(&name)).unwrap();
        for case in cases {
            assert_eq!(ids(&tokenizer, &case.text, false), case.ids, "{name}: {:?}", case.text);
        }
    }
}

#[test]
fn ids_give_the_text_that_sentencepiece_gives_them() {
    for (name, cases) in cases("cases") {
        let tokenizer = tokenizer(&fixtures().join(&name)).unwrap();
        // The unknown token has a text of its own there, and none here.
        for case in cases.iter().filter(|case| !case.ids.contains(&UNKNOWN)) {
            assert_eq!(
                tokenizer.decode(&case.ids, true).unwrap(),
                case.decoded,
                "{name}: {:?}",
                case.text
            );
        }
    }
}

#[test]
fn special_tokens_in_a_text_are_found_as_transformers_finds_them() {
    for (name, cases) in cases("transformers") {
        let tokenizer = tokenizer(&fixtures().join(&name)).unwrap();
        for case in cases {
            assert_eq!(ids(&tokenizer, &case.text, true), case.ids, "{name}: {:?}", case.text);
        }
    }
}

#[test]
fn begin_and_end_tokens_are_added_as_the_folder_says() {
    let ends = |config: Value| {
        let folder = folder(&model("bpe"), &config);
        let ids = ids(&tokenizer(folder.path()).unwrap(), "Mira", true);
        (ids.first() == Some(&1), ids.last() == Some(&2))
    };
    assert_eq!(ends(json!({})), (true, false));
    assert_eq!(ends(json!({"add_bos_token": false, "add_eos_token": true})), (false, true));
}

#[test]
fn a_folder_adds_tokens_behind_the_models_pieces() {
    let next = tokenizer(&fixtures().join("bpe")).unwrap().get_vocab_size(true);
    let added =
        json!({"added_tokens_decoder": {next.to_string(): {"content": "<turn>", "special": true}}});
    let with = folder(&model("bpe"), &added);
    let tokenizer_with = tokenizer(with.path()).unwrap();
    assert_eq!(ids(&tokenizer_with, "<turn>", false), [next as u32]);
    std::fs::write(with.path().join("tokenizer_config.json"), "{}").unwrap();
    std::fs::write(with.path().join("added_tokens.json"), json!({"<turn>": next}).to_string())
        .unwrap();
    assert_eq!(ids(&tokenizer(with.path()).unwrap(), "<turn>", false), [next as u32]);
    for (id, problem) in
        [(next + 1, format!("expected {next}")), (5, "is the model's piece".to_owned())]
    {
        std::fs::write(with.path().join("added_tokens.json"), json!({"<turn>": id}).to_string())
            .unwrap();
        let error = tokenizer(with.path()).unwrap_err();
        assert!(error.contains(&problem), "{error}");
    }
}

#[test]
fn a_tokenizer_json_comes_before_the_model() {
    let folder = folder(b"no model at all", &json!({}));
    let error = tokenizer(folder.path()).unwrap_err();
    assert!(error.contains("model: tokenizer.model:"), "{error}");
    let json = tokenizer(&fixtures().join("bpe")).unwrap().to_string(false).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    assert!(tokenizer(folder.path()).is_ok());
}

#[test]
fn a_damaged_model_never_panics() {
    let whole = model("unigram");
    for length in 0..whole.len() {
        drop(tokenizer(folder(&whole[..length], &json!({})).path()));
    }
    for (at, flip) in
        (0..whole.len()).step_by(3).flat_map(|at| [0x01, 0x40, 0xff].map(|flip| (at, flip)))
    {
        let mut damaged = whole.clone();
        damaged[at] ^= flip;
        drop(tokenizer(folder(&damaged, &json!({})).path()));
    }
}
