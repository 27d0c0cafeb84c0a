//! A SentencePiece model as the definition of a tokenizer.
//!
//! Merges of a BPE model are not in its file: SentencePiece merges the adjacent pair whose union
//! has the highest score. So the merges are all splits of every piece into two others, ranked by
//! the score of the union. Everything else (normaliser, decoder, special tokens) is what the
//! Hugging Face conversion of such models gives.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tokenizers::normalizers::Precompiled;

use super::model::{Algorithm, Kind, SentencePieceModel};

/// The mark of a space.
const SPACE: &str = "▁";

/// What `tokenizer_config.json` and `added_tokens.json` say beside the model.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenizerSettings<'a> {
    /// `tokenizer_config.json`.
    pub(crate) config: Option<&'a Value>,
    /// `added_tokens.json`.
    pub(crate) added_tokens: Option<&'a Value>,
}

impl TokenizerSettings<'_> {
    fn flag(&self, name: &str) -> Option<bool> {
        self.config?[name].as_bool()
    }

    /// The text of a special token.
    fn token(&self, name: &str) -> Option<&str> {
        crate::text::tokenizer::token_text(&self.config?[name])
    }
}

/// The content of the `tokenizer.json` that the model and its settings come to.
pub(crate) fn definition(
    model: &SentencePieceModel,
    settings: &TokenizerSettings<'_>,
) -> Result<Value, String> {
    let added = added_tokens(model, settings)?;
    let prefix = settings.flag("add_prefix_space").unwrap_or(model.add_dummy_prefix);
    // Without the older behaviour only the text's first stretch gets the prefix, not each one
    // behind a special token.
    let legacy = settings.flag("legacy").unwrap_or(true);
    let scheme = if prefix { "first" } else { "never" };
    let pre_tokenizer = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme,
        "split": false});
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "normalizer": normalizer(model, legacy, prefix)?,
        "pre_tokenizer": if legacy { Value::Null } else { pre_tokenizer },
        "post_processor": post_processor(model, settings, &added)?,
        "decoder": decoder(model, prefix),
        "added_tokens": added.values().collect::<Vec<_>>(),
        "model": match model.algorithm {
            Algorithm::Bpe => bpe(model),
            Algorithm::Unigram => unigram(model),
        },
    }))
}

fn unigram(model: &SentencePieceModel) -> Value {
    let vocab: Vec<(&str, f32)> =
        model.pieces.iter().map(|piece| (piece.text.as_str(), piece.score)).collect();
    json!({"type": "Unigram", "unk_id": model.unknown, "vocab": vocab,
        "byte_fallback": model.byte_fallback})
}

fn bpe(model: &SentencePieceModel) -> Value {
    let vocab: Map<String, Value> = model
        .pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.text.clone(), id.into()))
        .collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": model.pieces[model.unknown].text,
        "fuse_unk": true,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "ignore_merges": false,
        "byte_fallback": model.byte_fallback, "vocab": vocab, "merges": merges(model),
    })
}

/// Every split of a piece into two others, by descending score of the piece, then the longer left
/// part first.
fn merges(model: &SentencePieceModel) -> Vec<[&str; 2]> {
    let normal = model.pieces.iter().filter(|piece| piece.kind == Kind::Normal);
    let scores: HashMap<&str, f32> =
        normal.map(|piece| (piece.text.as_str(), piece.score)).collect();
    let mut merges = Vec::new();
    for piece in model.pieces.iter().filter(|piece| piece.kind == Kind::Normal) {
        for (at, _) in piece.text.char_indices().skip(1) {
            let parts = piece.text.split_at(at);
            if scores.contains_key(parts.0) && scores.contains_key(parts.1) {
                merges.push((piece.score, parts.0.chars().count(), parts));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    merges.into_iter().map(|(_, _, (left, right))| [left, right]).collect()
}

/// The model's own changes of a text, then the marks of spaces.
fn normalizer(model: &SentencePieceModel, legacy: bool, prefix: bool) -> Result<Value, String> {
    let mut steps = Vec::new();
    if !model.character_map.is_empty() {
        let map = Precompiled::from(&model.character_map)
            .map_err(|error| format!("its character map: {error}"))?;
        steps.push(serde_json::to_value(map).map_err(|error| error.to_string())?);
    }
    if model.remove_extra_whitespaces {
        steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    if legacy {
        if prefix {
            steps.push(json!({"type": "Prepend", "prepend": SPACE}));
        }
        steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    }
    Ok(json!({"type": "Sequence", "normalizers": steps}))
}

/// The spaces that the normaliser put in front go again; where it removes extra ones, all that
/// stand in front.
fn decoder(model: &SentencePieceModel, prefix: bool) -> Value {
    let in_front = if model.remove_extra_whitespaces { u16::MAX } else { u16::from(prefix) };
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": in_front, "stop": 0},
    ]})
}

/// The tokens that are found in a text before it is cut into pieces, by id: the model's own, then
/// those the folder adds.
fn added_tokens(
    model: &SentencePieceModel,
    settings: &TokenizerSettings<'_>,
) -> Result<BTreeMap<u64, Value>, String> {
    let token = |id: u64, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special})
    };
    let mut tokens = BTreeMap::new();
    for (id, piece) in (0..).zip(&model.pieces) {
        if matches!(piece.kind, Kind::Unknown | Kind::Control | Kind::UserDefined) {
            tokens.insert(id, token(id, &piece.text, piece.kind != Kind::UserDefined));
        }
    }
    for (content, id) in settings.added_tokens.and_then(Value::as_object).into_iter().flatten() {
        let id = id
            .as_u64()
            .ok_or_else(|| format!("added_tokens.json: \"{content}\" has no id: {id}"))?;
        tokens.insert(id, token(id, content, true));
    }
    let declared = settings.config.and_then(|config| config["added_tokens_decoder"].as_object());
    for (id, declared) in declared.into_iter().flatten() {
        let fault =
            || format!("tokenizer_config.json: `added_tokens_decoder` holds \"{id}\": {declared}");
        let number: u64 = id.parse().map_err(|_| fault())?;
        let content = declared["content"].as_str().ok_or_else(fault)?;
        let mut merged = token(number, content, declared["special"].as_bool().unwrap_or(false));
        for flag in ["single_word", "lstrip", "rstrip", "normalized"] {
            merged[flag] = declared[flag].as_bool().unwrap_or(false).into();
        }
        tokens.insert(number, merged);
    }
    in_sequence(model, tokens)
}

/// Added tokens are either pieces of the model or stand behind them without a gap: nothing else has
/// an id to be found by.
fn in_sequence(
    model: &SentencePieceModel,
    tokens: BTreeMap<u64, Value>,
) -> Result<BTreeMap<u64, Value>, String> {
    let mut next = model.pieces.len();
    for (&id, token) in &tokens {
        let content = token["content"].as_str().unwrap_or_default();
        match model.pieces.get(id as usize) {
            Some(piece) if piece.text == content => {}
            Some(piece) => {
                return Err(format!(
                    "added token \"{content}\" has id {id}, which is the model's piece \"{}\"",
                    piece.text
                ));
            }
            None if id as usize == next => next += 1,
            None => return Err(format!("added token \"{content}\" has id {id}; expected {next}")),
        }
    }
    Ok(tokens)
}

/// The begin and end tokens put around a text: `add_bos_token` (true where it is not given) and
/// `add_eos_token` (false).
fn post_processor(
    model: &SentencePieceModel,
    settings: &TokenizerSettings<'_>,
    added: &BTreeMap<u64, Value>,
) -> Result<Value, String> {
    let piece = |id: i32| {
        usize::try_from(id)
            .ok()
            .and_then(|id| model.pieces.get(id))
            .map(|piece| piece.text.as_str())
    };
    let begin = settings.token("bos_token").or(piece(model.begin));
    let end = settings.token("eos_token").or(piece(model.end));
    let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
    let mut special = Map::new();
    let mut mention = |name: &str, token: Option<&str>| -> Result<Value, String> {
        let token =
            token.ok_or_else(|| format!("`{name}` is to be added to a text, but there is none"))?;
        let known = added.iter().find(|(_, found)| found["content"] == token).map(|(id, _)| *id);
        let id = known.ok_or_else(|| format!("`{name}` \"{token}\" is no token of the model"))?;
        special.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        Ok(json!({"SpecialToken": {"id": token, "type_id": 0}}))
    };
    if settings.flag("add_bos_token").unwrap_or(begin.is_some()) {
        single.insert(0, mention("bos_token", begin)?);
    }
    if settings.flag("add_eos_token").unwrap_or(false) {
        single.push(mention("eos_token", end)?);
    }
    if special.is_empty() {
        return Ok(Value::Null);
    }
    let pair =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
    Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": special}))
}
