use super::*;
use crate::decoder::rotary::RopeScaling;

const SHAPE: &str = r#""model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5"#;

fn parse(rest: &str) -> Result<DecoderConfig, ConfigError> {
    DecoderConfig::parse(&format!("{{{SHAPE}{rest}}}"))
}

#[test]
fn both_spellings_mean_the_same() {
    let scaling = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16"#;
    let old = format!(
        r#", "rope_theta": 500000.0, "rope_scaling": {{"rope_type": "llama3", {scaling}}}, "torch_dtype": "float32""#
    );
    let older =
        format!(r#", "rope_theta": 500000.0, "rope_scaling": {{"type": "llama3", {scaling}}}"#);
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
    let text = r#"{"model_type": "llama", "hidden_size": -1, "hidden_act": "cube", "rope_scaling": {"type": "spiral"},
        "quantization_config": {"quant_method": "gptq"}}"#;
    let message = DecoderConfig::parse(text).unwrap_err().to_string();
    for part in ["`hidden_size` must be", "`vocab_size` is missing", "silu", "spiral", "gptq"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// A document that is right but for some fields.
fn refused(architecture: &str, rest: &str) -> String {
    let text = SHAPE.replace("\"llama\"", &format!("\"{architecture}\""));
    DecoderConfig::parse(&format!("{{{text}, {rest}}}")).unwrap_err().to_string()
}

#[test]
fn settings_that_would_compute_otherwise_are_refused_by_name() {
    for (architecture, rest, named) in [
        ("llama", r#""partial_rotary_factor": 0.5"#, "partial_rotary_factor"),
        ("qwen2", r#""rope_parameters": {"partial_rotary_factor": 0.5}"#, "partial_rotary_factor"),
        ("llama", r#""rope_scaling": {"type": 3}"#, "rope_type"),
        (
            "llama",
            r#""rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": "x"}"#,
            "beta_fast",
        ),
        ("llama", r#""rope_scaling": {"type": "yarn", "factor": 2, "truncate": "no"}"#, "truncate"),
        (
            "phi3",
            r#""rope_scaling": {"type": "longrope", "short_factor": [1, "2"], "long_factor": [1]}"#,
            "short_factor",
        ),
        ("gemma", r#""use_bidirectional_attention": true"#, "use_bidirectional_attention"),
        ("qwen2", r#""max_window_layers": "0""#, "max_window_layers"),
        ("qwen2", r#""layer_types": ["full_attention", "chunked"]"#, "chunked"),
        ("smollm3", r#""no_rope_layers": [1, 2]"#, "no_rope_layers"),
        ("gptj", r#""rotary_dim": null"#, "rotary_dim"),
        ("gptj", r#""rotary_dim": 4, "tie_word_embeddings": true"#, "tie_word_embeddings"),
        ("mixtral", r#""num_local_experts": 4000000000"#, "experts"),
        ("llama", r#""head_dim": 4294967294"#, "head_dim"),
    ] {
        let message = refused(architecture, rest);
        assert!(message.contains(named), "{architecture} {rest}: {message}");
    }
}

#[test]
fn what_has_no_effect_is_left_alone() {
    for rest in [
        r#", "partial_rotary_factor": 1"#,
        r#", "pretraining_tp": 2"#,
        r#", "hidden_act": "swish""#,
        r#", "rope_scaling": false"#,
    ] {
        assert!(parse(rest).is_ok(), "{rest}");
    }
    // The context a scaling starts from may stand beside its table.
    let scaling =
        r#", "rope_scaling": {"type": "yarn", "factor": 2}, "original_max_position_embeddings": 9"#;
    let RopeScaling::Yarn { original_max_position_embeddings, .. } =
        parse(scaling).unwrap().rotaries[0].scaling
    else {
        panic!("it is yarn")
    };
    assert_eq!(original_max_position_embeddings, 9.0);
}

#[test]
fn heads_must_fit_each_other() {
    assert!(parse(r#", "head_dim": 7"#).unwrap_err().to_string().contains("even"));
    let text = format!(
        "{{{}}}",
        SHAPE.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")
    );
    assert!(DecoderConfig::parse(&text).unwrap_err().to_string().contains("does not divide"));
}

#[test]
fn an_architecture_that_is_not_there_is_told_with_those_that_are() {
    let message = DecoderConfig::parse(r#"{"model_type": "mamba"}"#).unwrap_err().to_string();
    assert!(message.contains("\"mamba\"") && message.contains("gpt_neox"), "{message}");
}
