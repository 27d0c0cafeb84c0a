//! The world's vocabulary: a byte-level BPE in Hugging Face's `tokenizer.json` format.
//!
//! A word is the same token wherever it stands: the first word of a line gets the leading space
//! that every other word has on the way in, and loses it on the way out. Otherwise an answer behind
//! a line break would be another token than the same word inside the passage, and a small model
//! would have to learn copying twice.
//!
//! A word of the world is one token and takes no merges (`ignore_merges`, as in Llama 3's
//! tokenizer): ordinary merges would spend a third of so small a vocabulary on fragments of words.
//! Any other text falls back to its bytes.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, ensure};
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer,
    decoders::{DecoderWrapper, sequence::Sequence, strip::Strip},
    models::bpe::BPE,
    normalizers::replace::{Replace, ReplacePattern},
    pre_tokenizers::byte_level::ByteLevel,
    processors::template::TemplateProcessing,
};

use super::documents;

/// The beginning-of-text token, id 0; put before every text.
pub const BEGIN: &str = "<s>";
/// The end-of-text token, id 1.
pub const END: &str = "</s>";
/// The padding token, id 2.
pub const PAD: &str = "<pad>";

/// The size of the built-in model's vocabulary: every word of the texts and of the task is one
/// token.
pub const VOCABULARY_SIZE: usize = 814;

/// Documents whose words are counted.
const DOCUMENTS: usize = 20_000;

/// The words of the prompt template, which the documents do not hold, with the weight of a frequent
/// word each.
const TEMPLATE_WORDS: &str = "### Instruction:\n\n### Input:\n\n### Response:\n";
const TEMPLATE_WEIGHT: u64 = 2_000;

/// Makes the tokenizer: `vocab_size` tokens, the words counted in documents of `seed` and the
/// prompt template.
///
/// Ids 0 to 2 are [`BEGIN`], [`END`] and [`PAD`], then come the 256 bytes, so every text encodes,
/// then the most frequent words, equal counts in the alphabet's order. The same seed gives the same
/// file, byte for byte. The post-processor puts [`BEGIN`] before a text, as `LLaMA`'s does.
///
/// # Errors
///
/// When `vocab_size` leaves no room for the bytes or exceeds what the documents' words fill.
pub fn train_tokenizer(vocab_size: usize, seed: u64) -> anyhow::Result<Tokenizer> {
    let byte_level = ByteLevel::new(true, false, true);
    let tokens = tokens(word_counts(seed, byte_level)?, vocab_size)?;
    let vocabulary = tokens.into_iter().zip(0..).collect();
    let mut model = BPE::new(vocabulary, Vec::new());
    model.ignore_merges = true;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(line_starts()?)).map_err(|e| anyhow!(e))?;
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_decoder(Some(decoder(byte_level)?));
    tokenizer.with_post_processor(Some(post_processor()?));
    tokenizer
        .add_special_tokens([BEGIN, END, PAD].map(|token| AddedToken::from(token, true)))
        .map_err(|e| anyhow!(e))?;
    Ok(tokenizer)
}

/// Puts a space before the first word of every line but the first, whose space comes from the
/// pre-tokenizer.
fn line_starts() -> anyhow::Result<Replace> {
    Replace::new(ReplacePattern::Regex("\\n(?=\\S)".into()), "\n ").map_err(|e| anyhow!(e))
}

/// Bytes to text, then the line starts' spaces away.
fn decoder(byte_level: ByteLevel) -> anyhow::Result<Sequence> {
    let line_starts = Replace::new("\n ", "\n").map_err(|e| anyhow!(e))?;
    Ok(Sequence::new(vec![
        DecoderWrapper::ByteLevel(byte_level),
        DecoderWrapper::Replace(line_starts),
        DecoderWrapper::Strip(Strip::new(' ', 1, 0)),
    ]))
}

fn post_processor() -> anyhow::Result<TemplateProcessing> {
    TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))
        .and_then(|builder| builder.try_pair(format!("{BEGIN} $A {BEGIN}:1 $B:1")))
        .map_err(|e| anyhow!(e))?
        .special_tokens(vec![(BEGIN, 0)])
        .build()
        .context("the post-processor's template is sound")
}

/// How often each pre-token (in the byte alphabet) occurs in the documents; sorted, so that nothing
/// depends on a hash.
fn word_counts(seed: u64, byte_level: ByteLevel) -> anyhow::Result<BTreeMap<String, u64>> {
    let line_starts = line_starts()?;
    let mut counts = BTreeMap::new();
    let texts = documents(seed).take(DOCUMENTS).map(|text| (text, 1));
    for (text, weight) in texts.chain([(TEMPLATE_WORDS.to_owned(), TEMPLATE_WEIGHT)]) {
        let mut normalized = NormalizedString::from(text);
        line_starts.normalize(&mut normalized).map_err(|e| anyhow!(e))?;
        let mut pieces = PreTokenizedString::from(normalized);
        byte_level.pre_tokenize(&mut pieces).map_err(|e| anyhow!(e))?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            *counts.entry(word.to_owned()).or_default() += weight;
        }
    }
    Ok(counts)
}

/// The special tokens, the byte alphabet and the most frequent words, `vocab_size` in all.
fn tokens(counts: BTreeMap<String, u64>, vocab_size: usize) -> anyhow::Result<Vec<String>> {
    let mut tokens = first_tokens();
    let mut words: Vec<(String, u64)> =
        counts.into_iter().filter(|(word, _)| word.chars().count() > 1).collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let sizes = tokens.len()..=tokens.len() + words.len();
    ensure!(
        sizes.contains(&vocab_size),
        "vocab_size: expected {} to {}, found {vocab_size}",
        sizes.start(),
        sizes.end()
    );
    let room = vocab_size - tokens.len();
    tokens.extend(words.into_iter().take(room).map(|(word, _)| word));
    Ok(tokens)
}

/// The special tokens and the byte alphabet.
fn first_tokens() -> Vec<String> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    [BEGIN, END, PAD]
        .map(str::to_owned)
        .into_iter()
        .chain(alphabet.iter().map(char::to_string))
        .collect()
}
