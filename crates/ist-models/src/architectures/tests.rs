use super::*;
use crate::decoder::rotary::RopeScaling;

const SHAPE: &str = r#""model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5"#;

fn parse(rest: &str) -> Result<DecoderConfig, ConfigError> {
    DecoderConfig::parse(&format!("{{{SHAPE}{rest}}}"))
}

#[test]
fn both_spellings_mean_the_same() {
    let scaling =
        r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16"#;
    let old = format!(
        r#", "rope_theta": 500000.0, "rope_scaling": {{"rope_type": "llama3", {scaling}}}, "torch_dtype": "float32""#
    );
    let older = format!(r#", "rope_theta": 500000.0, "rope_scaling": {{"type": "llama3", {scaling}}}"#);
    let new = format!(
        r#", "rope_parameters": {{"rope_type": "llama3", "rope_theta": 500000.0, {scaling}}}, "dtype": "float32""#
    );
    let read = |rest: &str| DecoderConfig { document: Value::Null, ..parse(rest).unwrap() };
    assert_eq!(read(&old), read(&new));
    assert_eq!(read(&older), read(&new));
    assert_eq!(read(&new).rotaries[0].theta, 500_000.0);
    assert!(matches!(read(&new).rotaries[0].scaling, RopeScaling::Llama3 { .. }));
}

#[test]
fn every_fault_is_told_at_once() {
    let text = r#"{"model_type": "llama", "hidden_size": -1, "hidden_act": "gelu", "rope_scaling": {"type": "spiral"},
        "quantization_config": {"quant_method": "gptq"}}"#;
    let message = DecoderConfig::parse(text).unwrap_err().to_string();
    for part in ["`hidden_size` must be", "`vocab_size` is missing", "silu", "spiral", "gptq"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn heads_must_fit_each_other() {
    assert!(parse(r#", "head_dim": 7"#).unwrap_err().to_string().contains("even"));
    let text = format!("{{{}}}", SHAPE.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"));
    assert!(DecoderConfig::parse(&text).unwrap_err().to_string().contains("does not divide"));
}

#[test]
fn an_architecture_that_is_not_there_is_told_with_those_that_are() {
    let message = DecoderConfig::parse(r#"{"model_type": "mamba"}"#).unwrap_err().to_string();
    assert!(message.contains("\"mamba\"") && message.contains("gpt_neox"), "{message}");
}
