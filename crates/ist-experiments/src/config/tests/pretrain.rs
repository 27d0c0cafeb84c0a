//! The gate of `ist pretrain`.

use ist_core::optimizer::AdamWSettings;

use super::super::*;
use super::read_pretrain;

const LEAST: &str = "output = 'model'\ntokenizer.vocab_size = 512\ntrain.steps = 100\n\
    data.tokens = 100000\n\
    [model]\nhidden_size = 64\nintermediate_size = 128\nnum_hidden_layers = 2\n\
    num_attention_heads = 4\n\
    max_position_embeddings = 128\n";

#[test]
fn every_default_is_the_documented_one() {
    let config = read_pretrain(LEAST).unwrap();
    let model = ModelShape {
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 128,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        dtype: SavedDtype::Bfloat16,
    };
    let data = PretrainData {
        source: TextSource::World,
        tokens: Some(100_000),
        validation_tokens: None,
        sequence_length: 128,
    };
    let optimizer = PretrainOptimizer {
        kind: OptimizerKind::AdamW,
        lr: 3e-3,
        min_lr_ratio: 0.1,
        adamw: AdamWSettings { weight_decay: 0.0, betas: [0.9, 0.999], eps: 1e-8 },
        clip_norm: 1.0,
        schedule: Schedule::Cosine,
        warmup_steps: 0,
    };
    let train = PretrainSteps {
        steps: 100,
        batch: 16,
        eval_every: None,
        sample_prompts: Vec::new(),
        sample_tokens: 32,
    };
    let tokenizer = TokenizerConfig { vocab_size: 512 };
    let expected = PretrainConfig {
        seed: 0,
        output: "/base/model".into(),
        model,
        tokenizer,
        data,
        optimizer,
        train,
    };
    assert_eq!(config, expected);
    assert_eq!(read_pretrain(&config.to_toml()).unwrap(), expected);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "output = ''\nextends = 'x'\n[model]\nhidden_size = 60\nintermediate_size = 0\n\
        num_hidden_layers = 2\n\
        num_attention_heads = 8\nnum_key_value_heads = 3\nmax_position_embeddings = 64\n\
        [tokeniser]\nvocab_size = 5\n\
        [data]\nvalidation_tokens = 5\n";
    let error = read_pretrain(text).unwrap_err().to_string();
    for expected in [
        "pretrain.toml:1: `output` must be a string that is not empty",
        "pretrain.toml:2: `extends` is not yet available",
        "pretrain.toml:4: `model.hidden_size` must give each of the 8 heads an even width, so a \
         multiple of 16, found 60",
        "pretrain.toml:5: `model.intermediate_size` must be an integer of at least 1, found 0",
        "pretrain.toml:8: `model.num_key_value_heads` must divide the 8 query heads, found 3",
        "pretrain.toml:10: `tokeniser` is not a known key; did you mean `tokenizer`?",
        "`data.sequence_length` must be at most `model.max_position_embeddings`, which is 64, \
         found 128",
        "`data.validation_tokens` must be at least one row of `data.sequence_length` = 128 tokens, \
         found 5",
        "`data.tokens` is missing",
        "`tokenizer.vocab_size` is missing",
        "`train.steps` is missing",
    ] {
        assert!(error.contains(expected), "{expected}\n---\n{error}");
    }
    assert_eq!(error.lines().count(), 11, "{error}");
}

#[test]
fn a_text_file_needs_no_number_of_tokens() {
    let text = LEAST.replace("data.tokens = 100000", "data.source = 'text.txt'");
    assert_eq!(
        read_pretrain(&text).unwrap().data.source,
        TextSource::File("/base/text.txt".into())
    );
}
