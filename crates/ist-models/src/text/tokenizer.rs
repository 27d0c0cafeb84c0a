//! Tokenizers of checkpoints, and the ids that end a text.
//!
//! A `tokenizer.json` is a small program from the internet. What can be seen before it runs is
//! looked at first: levels, keys that stand twice, and how much its rules can lengthen a text. What
//! the library panics on becomes an error.

use ist_files::untrusted::{contained, contained_in_pool, cut, cut_message, json};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Encoding, Tokenizer as Inner};

/// Levels that `tokenizer.json` may nest. Real ones have fewer than ten.
const DEEPEST: usize = 32;
/// How many bytes all replacements together may make of one.
const MOST_GROWTH: usize = 256;

/// Why a tokenizer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// There is none.
    #[error("{origin} has neither tokenizer.json nor tokenizer.model; token ids work without one")]
    Missing {
        /// The model.
        origin: String,
    },
    /// The SentencePiece model cannot be used.
    #[error("{origin}: tokenizer.model: {}", cut_message(message))]
    SentencePiece {
        /// The model.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The file cannot be read.
    #[error("{origin}: tokenizer.json: {}", cut_message(message))]
    Invalid {
        /// The model.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// It can produce an id the model has no embedding for.
    #[error(
        "{origin}: the tokenizer has token \"{}\" with id {id}, but the model's vocabulary has \
         {vocab_size} entries",
        cut(token)
    )]
    DoesNotFit {
        /// The model.
        origin: String,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
}

/// Why a text cannot be encoded, or ids cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tokenizer.json: {} failed: {message}; use the model's own tokenizer.json", .work)]
pub struct TokenizerFailed {
    work: &'static str,
    message: String,
}

/// The tokens of a text, with the special tokens around it where `special` says so.
///
/// # Errors
///
/// What the tokenizer reports, or panics with.
pub fn encode(tokenizer: &Inner, text: &str, special: bool) -> Result<Encoding, TokenizerFailed> {
    settle("encoding a text", contained(|| tokenizer.encode(text, special)))
}

/// The tokens of many texts, on all threads; as [`encode`].
///
/// # Errors
///
/// As [`encode`], for the first text that fails.
pub fn encode_all(
    tokenizer: &Inner,
    texts: Vec<&str>,
    special: bool,
) -> Result<Vec<Encoding>, TokenizerFailed> {
    let encoded = contained_in_pool(|| tokenizer.encode_batch(texts, special));
    settle("encoding a text", encoded)
}

/// The text of ids, special tokens left out.
///
/// # Errors
///
/// As [`encode`].
pub fn decode(tokenizer: &Inner, ids: &[u32]) -> Result<String, TokenizerFailed> {
    settle("decoding tokens", contained(|| tokenizer.decode(ids, true)))
}

fn settle<T>(
    work: &'static str,
    outcome: Result<tokenizers::Result<T>, String>,
) -> Result<T, TokenizerFailed> {
    let failed = |message: &str| TokenizerFailed { work, message: cut(message).into_owned() };
    match outcome {
        Ok(result) => result.map_err(|error| failed(&error.to_string())),
        Err(panic) => Err(failed(&panic)),
    }
}

/// A tokenizer that fits its model.
#[derive(Clone, Debug)]
pub struct Tokenizer(Inner);

impl Tokenizer {
    /// Reads `tokenizer.json` and checks every id it can produce against the embedding.
    pub fn from_bytes(
        origin: &str,
        bytes: &[u8],
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        let inner = read(bytes)
            .map_err(|message| TokenizerError::Invalid { origin: origin.to_owned(), message })?;
        let highest = inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match highest {
            Some((token, id)) if id as usize >= vocab_size => {
                Err(TokenizerError::DoesNotFit { origin: origin.to_owned(), token, id, vocab_size })
            }
            _ => Ok(Self(inner)),
        }
    }

    /// The tokenizer itself.
    pub fn into_inner(self) -> Inner {
        self.0
    }
}

/// The tokenizer without the truncation and padding that a file may ask for: transformers asks for
/// its own in every call.
fn read(bytes: &[u8]) -> Result<Inner, String> {
    let levels = json::check(bytes).map_err(|error| error.to_string())?;
    if levels > DEEPEST {
        return Err(format!("nests {levels} levels, and at most {DEEPEST} are read"));
    }
    let rules: Rules = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for (name, rule) in [("normalizer", &rules.normalizer), ("decoder", &rules.decoder)] {
        let growth = growth(rule);
        if growth > MOST_GROWTH {
            return Err(format!(
                "the replacements of `{name}` can make {growth} bytes of one, and at most \
                 {MOST_GROWTH} are taken; use the model's own tokenizer.json"
            ));
        }
    }
    let made = contained(|| {
        let mut inner = Inner::from_bytes(bytes)?;
        inner.with_padding(None);
        inner.with_truncation(None)?;
        tokenizers::Result::Ok(inner)
    });
    match made {
        Ok(Ok(inner)) => Ok(inner),
        Ok(Err(error)) => Err(cut(&error.to_string()).into_owned()),
        Err(panic) => Err(format!("cannot be used: {panic}")),
    }
}

/// The parts of a `tokenizer.json` that make other text of a text.
#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Bytes that a rule can make of one, for rules that replace one text by another again and again.
fn growth(rule: &Value) -> usize {
    if let Some(rules) = rule["normalizers"].as_array().or_else(|| rule["decoders"].as_array()) {
        return rules.iter().map(growth).fold(1, usize::saturating_mul);
    }
    let Some(content) = rule["content"].as_str() else { return 1 };
    match rule["pattern"]["String"].as_str() {
        Some(pattern) if !pattern.is_empty() => content.len().div_ceil(pattern.len()).max(1),
        // What matches nothing puts the content between any two characters.
        _ => content.len() + 1,
    }
}

/// The text of a special token, which a file gives as such or as `{"content": ..}`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// The end tokens: `eos_token_id` of `generation_config.json`, else of `config.json`; one id or a
/// list.
pub fn end_tokens(generation_config: Option<&Value>, config: &Value) -> Vec<u32> {
    let read = |value: &Value| match &value["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
        Value::Number(id) => id.as_u64().map(|id| id as u32).into_iter().collect(),
        _ => Vec::new(),
    };
    let first: Vec<u32> = generation_config.map(read).unwrap_or_default();
    if first.is_empty() { read(config) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TINY: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 5}, "unk_token": "a"}}"#;

    #[test]
    fn a_tokenizer_with_an_id_beyond_the_embedding_is_refused() {
        assert!(Tokenizer::from_bytes("m", TINY.as_bytes(), 6).is_ok());
        let message = Tokenizer::from_bytes("m", TINY.as_bytes(), 5).unwrap_err().to_string();
        assert!(
            message.contains("token \"b\" with id 5") && message.contains("5 entries"),
            "{message}"
        );
    }

    /// [`TINY`] with other values of some keys.
    fn tiny(changes: &[(&str, Value)]) -> Vec<u8> {
        let mut document: Value = serde_json::from_str(TINY).unwrap();
        for (key, value) in changes {
            document[*key] = value.clone();
        }
        document.to_string().into_bytes()
    }

    fn nested(rule: Value, list: &str, levels: usize) -> Value {
        (0..levels).fold(rule, |inner, _| json!({"type": "Sequence", list: [inner]}))
    }

    fn replace(content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": content})
    }

    #[test]
    fn a_file_that_would_break_the_library_is_refused_with_a_reason() {
        let doubled = json!({"type": "Sequence", "normalizers": vec![replace("aa"); 40]});
        let regex = json!({"type": "Replace", "pattern": {"Regex": "("}, "content": "x"});
        let cases = [
            (
                tiny(&[("decoder", nested(json!({"type": "Fuse"}), "decoders", 200))]),
                "recursion limit",
            ),
            (
                tiny(&[("decoder", nested(json!({"type": "Fuse"}), "decoders", 20))]),
                "nests 42 levels",
            ),
            (tiny(&[("normalizer", doubled)]), "`normalizer` can make 1099511627776 bytes of one"),
            (tiny(&[("decoder", replace(&"x".repeat(1 << 20)))]), "`decoder` can make 1048576"),
            (tiny(&[("normalizer", regex)]), ""),
            (TINY.replace("\"b\": 5", "\"b\": 1e999").into_bytes(), "number out of range"),
            (TINY.replace("\"b\": 5", "\"b\": -1").into_bytes(), ""),
            (TINY.replace("\"b\": 5", "\"b\": 5, \"b\": 4").into_bytes(), "\"b\" stands twice"),
            (b"[".repeat(100_000), "recursion limit"),
            (b"{\"model\": \"".to_vec(), "EOF"),
        ];
        for (bytes, reason) in cases {
            let message = Tokenizer::from_bytes("m", &bytes, 6).unwrap_err().to_string();
            assert!(message.starts_with("m: tokenizer.json: "), "{message}");
            assert!(message.contains(reason) && message.len() < 400, "{reason}: {message}");
        }
    }

    #[test]
    fn a_nesting_that_is_read_is_read_at_once() {
        let begin = std::time::Instant::now();
        for (list, key, rule) in [
            ("decoders", "decoder", json!({"type": "Fuse"})),
            ("normalizers", "normalizer", json!({"type": "Lowercase"})),
            ("pretokenizers", "pre_tokenizer", json!({"type": "Whitespace"})),
            (
                "processors",
                "post_processor",
                json!({"type": "ByteLevel", "add_prefix_space": true,
                "trim_offsets": true, "use_regex": true}),
            ),
        ] {
            let bytes = tiny(&[(key, nested(rule, list, 15))]);
            let tokenizer = Tokenizer::from_bytes("m", &bytes, 6).unwrap().into_inner();
            encode(&tokenizer, "a b", true).unwrap();
            decode(&tokenizer, &[0, 5]).unwrap();
        }
        assert!(begin.elapsed().as_secs() < 10);
    }

    #[test]
    fn truncation_and_padding_of_a_file_are_dropped() {
        let truncation = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst",
            "stride": u64::MAX});
        let padding = json!({"strategy": {"Fixed": u32::MAX}, "direction": "Right",
            "pad_to_multiple_of": u32::MAX, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
        let split = json!({"type": "Whitespace"});
        let bytes =
            tiny(&[("truncation", truncation), ("padding", padding), ("pre_tokenizer", split)]);
        let tokenizer = Tokenizer::from_bytes("m", &bytes, 6).unwrap().into_inner();
        assert_eq!(encode(&tokenizer, "a b a b", true).unwrap().get_ids(), [0, 5, 0, 5]);
    }

    #[test]
    fn a_tokenizer_that_panics_fails_with_a_reason() {
        let failed = settle::<()>("decoding tokens", contained(|| panic!("index out of bounds")));
        assert_eq!(
            failed.unwrap_err().to_string(),
            "tokenizer.json: decoding tokens failed: index out of bounds; use the model's own \
             tokenizer.json"
        );
    }

    /// A tokenizer of each kind of part, for changes of single bytes.
    fn varied() -> String {
        let split = json!({"type": "Split", "pattern": {"Regex": "a+|b"}, "behavior": "Isolated",
            "invert": false});
        let normalizers =
            json!([{"type": "NFC"}, {"type": "Prepend", "prepend": "a"}, replace("b")]);
        let decoders = json!([{"type": "ByteFallback"}, {"type": "Strip", "content": " ",
            "start": 1,
            "stop": 0}]);
        let piece = json!({"SpecialToken": {"id": "a", "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = json!({"type": "TemplateProcessing", "single": [piece, text],
            "pair": [text, text], "special_tokens": {"a": {"id": "a", "ids": [0],
            "tokens": ["a"]}}});
        let model = json!({"type": "BPE", "dropout": null, "unk_token": "a", "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": false,
            "ignore_merges": false, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]});
        let changes = [
            ("normalizer", json!({"type": "Sequence", "normalizers": normalizers})),
            ("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split]})),
            ("decoder", json!({"type": "Sequence", "decoders": decoders})),
            ("post_processor", template),
            ("model", model),
        ];
        String::from_utf8(tiny(&changes)).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn no_changed_byte_makes_a_tokenizer_panic(
            places in proptest::collection::vec((0_usize..2000, "[0-9a-z\"{}\\[\\],:e.-]"), 0..4),
        ) {
            let mut text = varied();
            for (place, character) in places {
                let at = place % text.len();
                text.replace_range(at..=at, &character);
            }
            if let Ok(tokenizer) = Tokenizer::from_bytes("m", text.as_bytes(), 6) {
                let tokenizer = tokenizer.into_inner();
                let ids = encode(&tokenizer, "abba cab", true).map(|found| found.get_ids().to_vec());
                let _ = decode(&tokenizer, &ids.unwrap_or_default());
            }
        }
    }

    #[test]
    fn end_tokens_come_from_the_generation_config_first() {
        assert_eq!(
            end_tokens(Some(&json!({"eos_token_id": [1, 2]})), &json!({"eos_token_id": 3})),
            [1, 2]
        );
        assert_eq!(end_tokens(Some(&json!({})), &json!({"eos_token_id": 3})), [3]);
        assert_eq!(end_tokens(None, &json!({"eos_token_id": null})), Vec::<u32>::new());
    }
}
