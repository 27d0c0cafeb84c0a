//! The configuration that LoRA and DoRA share, from our TOML and from PEFT's file, and back.

use serde_json::{Map, Value, json};

use crate::fields::Dialect;
use crate::fields::{ConfigError, FieldFault, Fields, number};
use crate::site::Site;
use crate::site::targets::{Patterns, Targets};

/// What A and B start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoraInit {
    /// A Kaiming-uniform, B zero.
    #[default]
    Kaiming,
    /// A normal with deviation 1 / r, B zero.
    Gaussian,
    /// The largest singular values and vectors of W; `iterations` of a randomised decomposition, or
    /// the exact one.
    Pissa {
        /// Subspace iterations.
        iterations: Option<usize>,
    },
    /// The first columns of W's QR decomposition.
    Olora,
}

impl LoraInit {
    /// Whether A and B start at a part of W, which their product is measured from.
    pub fn starts_in_weight(self) -> bool {
        matches!(self, Self::Pissa { .. } | Self::Olora)
    }

    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(true) => Some(Self::Kaiming),
            Value::String(name) => match name.as_str() {
                "gaussian" => Some(Self::Gaussian),
                "pissa" => Some(Self::Pissa { iterations: None }),
                "olora" => Some(Self::Olora),
                other => {
                    let iterations = other.strip_prefix("pissa_niter_")?.parse().ok()?;
                    Some(Self::Pissa { iterations: Some(iterations) })
                }
            },
            _ => None,
        }
    }
}

/// LoRA's and DoRA's checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank, at least 1.
    pub r: usize,
    /// The scaling's numerator, above 0.
    pub lora_alpha: f64,
    /// Dropout on the low-rank branch's input, in [0, 1).
    pub lora_dropout: f64,
    /// s = alpha / √r instead of alpha / r.
    pub use_rslora: bool,
    /// Ranks of modules whose name matches.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of modules whose name matches.
    pub alpha_pattern: Patterns<f64>,
    /// What A and B start from. Not in PEFT's file, which holds tensors.
    pub init: LoraInit,
    /// Whether A stays as it is (LoRA-FA). Not in PEFT's file.
    pub freeze_a: bool,
    /// Whether B has a bias, as of adapters that were taken from the difference of two models. In
    /// PEFT's file alone.
    pub lora_bias: bool,
    /// B's learning rate beside A's (LoRA+), above 0. Not in PEFT's file.
    pub loraplus_lr_ratio: f64,
    /// The modules to adapt.
    pub targets: Targets,
}

impl LoraConfig {
    /// The rank on that module.
    pub fn rank_of(&self, path: &str) -> usize {
        self.rank_pattern.get(path).unwrap_or(self.r)
    }

    /// s on that module.
    pub fn scaling_of(&self, path: &str) -> f64 {
        let (rank, alpha) =
            (self.rank_of(path) as f64, self.alpha_pattern.get(path).unwrap_or(self.lora_alpha));
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// The keys of both patterns that match none of these modules.
    pub(crate) fn unmatched_patterns(&self, sites: &[Site]) -> Vec<String> {
        let ranks = self.rank_pattern.unmatched(sites);
        let alphas = self.alpha_pattern.unmatched(sites);
        let mut all: Vec<String> = Vec::new();
        for pattern in ranks.into_iter().chain(alphas) {
            if !all.iter().any(|known| known == pattern) {
                all.push(pattern.to_owned());
            }
        }
        all
    }

    /// Takes over from `given` what is not in PEFT's file.
    pub(crate) fn train_as(&mut self, given: &Self) -> Result<(), ConfigError> {
        if given.init != LoraInit::default() {
            let message = "has no effect on an adapter that is loaded; leave it out".to_owned();
            return Err(ConfigError {
                faults: vec![FieldFault { field: "init_lora_weights".to_owned(), message }],
            });
        }
        (self.freeze_a, self.loraplus_lr_ratio) = (given.freeze_a, given.loraplus_lr_ratio);
        Ok(())
    }

    /// The rank of that module in its file: A and B beside what they started from, where that is a
    /// part of W.
    pub(crate) fn stored_rank_of(&self, path: &str) -> usize {
        self.rank_of(path) * if self.init.starts_in_weight() { 2 } else { 1 }
    }

    /// The dropout of a pass, as operations take it.
    pub(crate) fn dropout_of(probability: f64, seed: Option<u64>) -> Option<(f64, u64)> {
        seed.map(|seed| (probability, seed)).filter(|_| probability > 0.0)
    }
}

/// The fields of LoRA; those that only LoRA has are read as such.
pub(crate) fn read(fields: &mut Fields) -> LoraConfig {
    let dialect = fields.dialect();
    match dialect {
        Dialect::Toml if fields.flag("use_dora", false) => {
            fields.fault("use_dora", "is another method: \"dora\"");
        }
        Dialect::Toml => {}
        Dialect::Peft => peft_init(fields),
    }
    let mut config = read_shared(fields);
    if dialect == Dialect::Peft {
        config.lora_bias = fields.flag("lora_bias", false);
    }
    if dialect == Dialect::Toml {
        let expected = "true, \"gaussian\", \"pissa\", \"pissa_niter_N\" or \"olora\"";
        config.init =
            fields.checked("init_lora_weights", LoraInit::Kaiming, expected, LoraInit::parse);
        config.freeze_a = fields.flag("freeze_a", false);
        if config.freeze_a && config.init.starts_in_weight() {
            fields.fault(
                "freeze_a",
                "cannot be used with an initialisation from the weight, which trains A and B",
            );
        }
    }
    config
}

/// The fields that LoRA and DoRA have in common.
pub(crate) fn read_shared(fields: &mut Fields) -> LoraConfig {
    // PEFT's own defaults differ from our TOML's.
    let toml = fields.dialect() == Dialect::Toml;
    let (r_default, alpha_default) = if toml { (32, 64.0) } else { (8, 8.0) };
    LoraConfig {
        r: fields.count("r", r_default),
        lora_alpha: fields.number_above_zero(fields.spelt("alpha", "lora_alpha"), alpha_default),
        lora_dropout: fields.probability(fields.spelt("dropout", "lora_dropout"), 0.0),
        use_rslora: fields.flag("use_rslora", false),
        rank_pattern: fields.rank_patterns("rank_pattern"),
        alpha_pattern: fields.number_patterns("alpha_pattern"),
        init: LoraInit::Kaiming,
        freeze_a: false,
        lora_bias: false,
        loraplus_lr_ratio: if toml {
            fields.number_above_zero("loraplus_lr_ratio", 1.0)
        } else {
            1.0
        },
        targets: fields.targets(),
    }
}

/// Initialisations after which the file is a plain LoRA on the weights as they were.
const PLAIN_INITS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// Settings of initialisations and of other programs' forms. None matters once A and B are in the
/// file, or while the field that switches its form on is off, which is read for itself.
const UNUSED: [&str; 6] = [
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
    "qalora_group_size",
    "megatron_core",
];

/// Refuses initialisations after which PEFT's file is no plain LoRA.
pub(crate) fn peft_init(fields: &mut Fields) {
    for key in UNUSED {
        fields.skip(key);
    }
    let Some(value) = fields.value("init_lora_weights") else { return };
    let name = value.as_str().unwrap_or_default();
    if value.is_boolean() || PLAIN_INITS.contains(&name) {
        return;
    }
    let changes_weights = LoraInit::parse(value).is_some_and(LoraInit::starts_in_weight)
        || ["corda", "lora_ga"].contains(&name);
    let message = if changes_weights {
        format!(
            "is {value}: the file holds A and B without what they started from, so it is right only on the changed base \
             weights of that run; convert it with PEFT's \
             save_pretrained(.., path_initial_model_for_weight_conversion=..), which writes a plain LoRA"
        )
    } else if name == "loftq" {
        format!(
            "is {value}: the adapter belongs to the base weights that LoftQ quantised, and is wrong on any others; merge it \
             there and use the merged model"
        )
    } else {
        format!(
            "must be one of true, false, \"gaussian\", \"orthogonal\", \"eva\", \"mica\", found {value}"
        )
    };
    fields.fault("init_lora_weights", message);
}

/// The fields of PEFT's file. An adapter that started in the weight is written as a plain one of
/// twice the rank.
pub(crate) fn write(config: &LoraConfig, use_dora: bool) -> Map<String, Value> {
    let ranks = if config.init.starts_in_weight() { 2 } else { 1 };
    // So that s stays: alpha / r, or alpha / √r.
    let alphas =
        if config.use_rslora { f64::from(ranks as u32).sqrt() } else { f64::from(ranks as u32) };
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("r", json!(config.r * ranks));
    put("lora_alpha", number(config.lora_alpha * alphas));
    put("lora_dropout", json!(config.lora_dropout));
    put("use_rslora", json!(config.use_rslora));
    put("use_dora", json!(use_dora));
    put("bias", json!("none"));
    put("lora_bias", json!(config.lora_bias));
    put("fan_in_fan_out", json!(config.targets.fan_in_fan_out()));
    put("init_lora_weights", json!(true));
    put("rank_pattern", config.rank_pattern.to_json(|rank| json!(rank * ranks)));
    put("alpha_pattern", config.alpha_pattern.to_json(|alpha| number(*alpha * alphas)));
    fields
}
