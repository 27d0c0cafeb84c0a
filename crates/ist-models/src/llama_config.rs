//! LLaMA's `config.json`, in both spellings.
//!
//! transformers 4 wrote `rope_theta`, `rope_scaling` and `torch_dtype`; transformers 5 writes `rope_parameters` and `dtype`.
//! Fields that do not bear on the computation are left alone; those that would change it and are not supported are refused.

use serde_json::{Map, Value};

/// How rotary frequencies are changed for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// LLaMA 3's: low frequencies divided by `factor`, high ones kept, those between interpolated.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Wavelengths above original / this are scaled.
        low_freq_factor: f64,
        /// Wavelengths below original / this are kept.
        high_freq_factor: f64,
        /// The context the model was first trained for.
        original_max_position_embeddings: f64,
    },
}

/// The shape of a LLaMA decoder, with Hugging Face's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are scaled.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// The document this was read from, for writing it back.
    pub document: Value,
}

/// No size of a real model is larger, and sums of products of such sizes do not overflow.
const LARGEST_SIZE: u64 = u32::MAX as u64;
/// More layers than any model has: a larger number is a broken file.
const MOST_LAYERS: usize = 1 << 16;

/// Every fault of a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.join("; "))]
pub struct LlamaConfigError {
    /// The faults.
    pub faults: Vec<String>,
}

impl LlamaConfig {
    /// Reads the text of a `config.json`.
    pub fn parse(text: &str) -> Result<Self, LlamaConfigError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(document)) => Self::from_json(document),
            Ok(_) => Err(LlamaConfigError { faults: vec!["not a JSON object".to_owned()] }),
            Err(error) => Err(LlamaConfigError { faults: vec![format!("not JSON: {error}")] }),
        }
    }

    /// Reads the document of a `config.json`.
    pub fn from_json(document: Map<String, Value>) -> Result<Self, LlamaConfigError> {
        let mut reader = Reader { document: &document, faults: Vec::new() };
        let (hidden_size, num_attention_heads) =
            (reader.count("hidden_size", None), reader.count("num_attention_heads", None));
        let (rope_theta, rope_scaling) = reader.rope();
        reader.unsupported();
        let config = Self {
            vocab_size: reader.count("vocab_size", None),
            hidden_size,
            intermediate_size: reader.count("intermediate_size", None),
            num_hidden_layers: reader.count("num_hidden_layers", None),
            num_attention_heads,
            num_key_value_heads: reader.count("num_key_value_heads", Some(num_attention_heads)),
            head_dim: reader.count("head_dim", Some(hidden_size / num_attention_heads.max(1))),
            max_position_embeddings: reader.count("max_position_embeddings", Some(2048)),
            rms_norm_eps: reader.number("rms_norm_eps", 1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: reader.flag("tie_word_embeddings"),
            attention_bias: reader.flag("attention_bias"),
            mlp_bias: reader.flag("mlp_bias"),
            document: Value::Null,
        };
        let mut faults = reader.faults;
        if faults.is_empty() {
            faults = config.inconsistencies();
        }
        if faults.is_empty() {
            Ok(Self { document: Value::Object(document), ..config })
        } else {
            Err(LlamaConfigError { faults })
        }
    }

    fn inconsistencies(&self) -> Vec<String> {
        let Self { num_attention_heads: heads, num_key_value_heads: shared, head_dim, .. } = self;
        let mut faults = Vec::new();
        if heads % shared != 0 {
            faults.push(format!("num_key_value_heads {shared} does not divide num_attention_heads {heads}"));
        }
        if head_dim % 2 != 0 {
            faults.push(format!("head_dim is {head_dim}, but rotary positions need an even one"));
        }
        if *head_dim == 0 {
            let hidden = self.hidden_size;
            faults.push(format!("head_dim is 0: num_attention_heads {heads} is more than hidden_size {hidden}"));
        }
        if let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } = self.rope_scaling
            && low_freq_factor >= high_freq_factor
        {
            faults.push(format!("low_freq_factor {low_freq_factor} is not below high_freq_factor {high_freq_factor}"));
        }
        if self.num_hidden_layers > MOST_LAYERS {
            faults.push(format!("num_hidden_layers is {}, expected at most {MOST_LAYERS}", self.num_hidden_layers));
        }
        faults
    }

    /// The angle per position of every pair of features, `[head_dim / 2]`: θ^(-2i / `head_dim`), scaled.
    pub fn inv_freq(&self) -> Vec<f64> {
        let plain = (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64));
        plain.map(|frequency| self.scaled(frequency)).collect()
    }

    fn scaled(&self, frequency: f64) -> f64 {
        match self.rope_scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let turns = original_max_position_embeddings * frequency / (2.0 * std::f64::consts::PI);
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }

    /// `config.json` again, as it was read.
    pub fn to_json(&self) -> Value {
        self.document.clone()
    }
}

struct Reader<'a> {
    document: &'a Map<String, Value>,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.document.get(key).filter(|value| !value.is_null())
    }

    fn count(&mut self, key: &str, default: Option<usize>) -> usize {
        let value = self.value(key).cloned();
        let read = |value: &Value| {
            value.as_u64().filter(|count| (1..=LARGEST_SIZE).contains(count)).map(|count| count as usize)
        };
        match (value, default) {
            (Some(value), _) => read(&value).unwrap_or_else(|| {
                self.faults.push(format!("`{key}` must be an integer from 1 to {LARGEST_SIZE}, found {value}"));
                1
            }),
            (None, Some(default)) => default,
            (None, None) => {
                self.faults.push(format!("`{key}` is missing"));
                1
            }
        }
    }

    fn number(&mut self, key: &str, default: f64) -> f64 {
        number(self.document, key, Some(default), &mut self.faults)
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.value(key).cloned() {
            Some(Value::Bool(flag)) => flag,
            Some(value) => {
                self.faults.push(format!("`{key}` must be true or false, found {value}"));
                false
            }
            None => false,
        }
    }

    /// θ and the scaling, from `rope_parameters` or from `rope_theta` and `rope_scaling`.
    fn rope(&mut self) -> (f64, RopeScaling) {
        for key in ["rope_parameters", "rope_scaling"] {
            if let Some(found) = self.value(key).filter(|value| !value.is_object()).cloned() {
                self.faults.push(format!("`{key}` must be a table or null, found {found}"));
            }
        }
        let table = |key: &str| self.value(key).and_then(Value::as_object).cloned();
        let parameters = table("rope_parameters").or_else(|| table("rope_scaling")).unwrap_or_default();
        let mut theta = self.number("rope_theta", 10_000.0);
        if parameters.contains_key("rope_theta") {
            theta = number(&parameters, "rope_theta", None, &mut self.faults);
        }
        let kind = parameters.get("rope_type").or_else(|| parameters.get("type"));
        let mut number = |key: &str, default| number(&parameters, key, default, &mut self.faults);
        let scaling = match kind.and_then(Value::as_str).unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: number("factor", None) },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor", None),
                low_freq_factor: number("low_freq_factor", None),
                high_freq_factor: number("high_freq_factor", None),
                original_max_position_embeddings: number("original_max_position_embeddings", None),
            },
            other => {
                self.faults
                    .push(format!("rope_type \"{other}\" is not yet available; supported are default, linear, llama3"));
                RopeScaling::Default
            }
        };
        (theta, scaling)
    }

    /// Settings that would change the computation and are not implemented.
    fn unsupported(&mut self) {
        if let Some(activation) = self.value("hidden_act").filter(|value| *value != "silu") {
            self.faults.push(format!("`hidden_act` must be \"silu\", found {activation}"));
        }
        if let Some(found) = self.value("pretraining_tp").filter(|value| **value != 1) {
            self.faults.push(format!("`pretraining_tp` must be 1, found {found}"));
        }
        if let Some(found) = self.value("partial_rotary_factor").filter(|value| value.as_f64() != Some(1.0)).cloned() {
            self.faults.push(format!("`partial_rotary_factor` must be 1, found {found}"));
        }
        if let Some(found) = self.value("quantization_config") {
            let method = found.get("quant_method").unwrap_or(&Value::Null);
            self.faults.push(format!("quantised weights ({method}) are not supported; use the unquantised checkpoint"));
        }
    }
}

fn number(table: &Map<String, Value>, key: &str, default: Option<f64>, faults: &mut Vec<String>) -> f64 {
    let found = table.get(key).filter(|value| !value.is_null());
    let fault = match (found.map(|value| (value, value.as_f64())), default) {
        (Some((_, Some(number))), _) if number > 0.0 => return number,
        (None, Some(default)) => return default,
        (Some((value, _)), _) => format!("`{key}` must be a number above 0, found {value}"),
        (None, None) => format!("`{key}` is missing"),
    };
    faults.push(fault);
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = r#""vocab_size": 10, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5"#;

    fn parse(rest: &str) -> Result<LlamaConfig, LlamaConfigError> {
        LlamaConfig::parse(&format!("{{{SHAPE}{rest}}}"))
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
        let read = |rest: &str| LlamaConfig { document: Value::Null, ..parse(rest).unwrap() };
        assert_eq!(read(&old), read(&new));
        assert_eq!(read(&older), read(&new));
        assert_eq!(read(&new).rope_theta, 500_000.0);
    }

    #[test]
    fn llama3_keeps_fast_and_divides_slow_frequencies() {
        let config = LlamaConfig {
            rope_scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192.0,
            },
            ..parse("").unwrap()
        };
        assert_eq!(config.scaled(1.0), 1.0);
        assert_eq!(config.scaled(1e-5), 1e-5 / 8.0);
        let middle = config.scaled(2.0 * std::f64::consts::PI * 2.0 / 8192.0);
        let expected = 2.0 * std::f64::consts::PI * 2.0 / 8192.0 * ((2.0 / 3.0) / 8.0 + 1.0 / 3.0);
        assert!((middle - expected).abs() < 1e-15);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"{"hidden_size": -1, "hidden_act": "gelu", "rope_scaling": {"type": "yarn"}, "quantization_config": {"quant_method": "gptq"}}"#;
        let message = LlamaConfig::parse(text).unwrap_err().to_string();
        for part in ["`hidden_size` must be", "`vocab_size` is missing", "silu", "yarn", "gptq"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn heads_must_fit_each_other() {
        assert!(parse(r#", "head_dim": 7"#).unwrap_err().to_string().contains("even"));
        let text = format!("{{{}}}", SHAPE.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"));
        assert!(LlamaConfig::parse(&text).unwrap_err().to_string().contains("does not divide"));
    }
}
