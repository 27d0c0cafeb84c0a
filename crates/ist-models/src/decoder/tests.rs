use super::layout::{parameter_count, sites, tensors};
use super::*;
use ist_peft::{BuiltinAdapter, PeftModel, Site};
use std::collections::BTreeMap;

fn holds(text: &str) {
    let config = DecoderConfig::parse(text).unwrap();
    let mut model = Decoder::<BuiltinAdapter>::random(config.clone(), 0, &Device::flex());
    let weights = model.weights();
    assert_eq!(
        parameter_count(&config),
        weights.iter().map(|(_, data)| data.num_elements()).sum::<usize>()
    );
    let held: BTreeMap<_, _> =
        weights.iter().map(|(name, data)| (name.clone(), data.shape().to_vec())).collect();
    assert_eq!(tensors(&config).collect::<BTreeMap<_, _>>(), held);
    let built: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
    assert_eq!(sites(&config), built);
}

#[test]
fn tensors_and_sites_from_the_configuration_are_those_of_the_model() {
    for (tied, bias) in [(true, false), (false, true)] {
        holds(&format!(
            r#"{{"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6,
            "max_position_embeddings": 64,
            "tie_word_embeddings": {tied}, "attention_bias": {bias}, "mlp_bias": {bias}}}"#
        ));
    }
}
