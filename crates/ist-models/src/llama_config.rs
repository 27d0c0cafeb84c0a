//! Stand-in.
#![expect(missing_docs, reason = "stand-in")]
use serde_json::{Value, json};
#[derive(Clone, Debug)]
pub struct LlamaConfig { pub vocab_size: usize, pub hidden_size: usize, pub intermediate_size: usize, pub num_hidden_layers: usize, pub num_attention_heads: usize, pub num_key_value_heads: usize, pub head_dim: usize, pub max_position_embeddings: usize, pub rms_norm_eps: f64, pub rope_theta: f64, pub tie_word_embeddings: bool, pub attention_bias: bool, pub mlp_bias: bool }
impl LlamaConfig {
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> { let v: Value = serde_json::from_str(text)?; let u = |k: &str, d: usize| v[k].as_u64().map_or(d, |x| x as usize);
        let heads = u("num_attention_heads", 1);
        Ok(Self { vocab_size: u("vocab_size", 0), hidden_size: u("hidden_size", 0), intermediate_size: u("intermediate_size", 0), num_hidden_layers: u("num_hidden_layers", 0), num_attention_heads: heads, num_key_value_heads: u("num_key_value_heads", heads), head_dim: u("head_dim", u("hidden_size", 0) / heads), max_position_embeddings: u("max_position_embeddings", 0), rms_norm_eps: v["rms_norm_eps"].as_f64().unwrap_or(1e-6), rope_theta: 10000.0, tie_word_embeddings: v["tie_word_embeddings"].as_bool().unwrap_or(false), attention_bias: false, mlp_bias: false }) }
    pub fn inv_freq(&self) -> Vec<f64> { (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64)).collect() }
    pub fn to_json(&self) -> Value { json!({}) }
}
