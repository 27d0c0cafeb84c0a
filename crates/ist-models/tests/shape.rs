//! What a model's configuration tells before any weight is read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use ist_models::{ModelFiles, Shape, registry};

fn shape(model: &str) -> Shape {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(model);
    registry::shape(&ModelFiles::in_folder(&folder).unwrap()).unwrap()
}

/// The modules whose adapters make the input of the lowest layer need a gradient.
fn below_layers(model: &str) -> Vec<String> {
    let shape = shape(model);
    let below = |site: &&ist_peft::Site| shape.trains_below_layers([*site]);
    shape.sites.iter().filter(below).map(|site| site.path.clone()).collect()
}

#[test]
fn the_embedding_is_below_the_layers_whatever_it_is_called() {
    assert_eq!(below_layers("qwen2"), ["model.embed_tokens"]);
    assert_eq!(below_layers("gpt2"), ["transformer.wte"]);
    assert_eq!(below_layers("gpt_neox"), ["gpt_neox.embed_in"]);
    let bloom = ["transformer.word_embeddings", "transformer.word_embeddings_layernorm"];
    assert_eq!(below_layers("bloom"), bloom);
}
