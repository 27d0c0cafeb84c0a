//! The configuration of LoRA, and what DoRA shares of it, from our TOML and from PEFT's file, and
//! back.

use serde_json::{Map, Value, json};

use crate::fields::setting::{Described, documented};
use crate::fields::{Dialect, Fields, number};
use crate::site::Site;
use crate::site::targets::Patterns;

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

    /// How many times its rank an adapter has in its file. One that started in the weight is
    /// written as a plain LoRA of twice the rank.
    pub(crate) fn stored_ranks(self) -> u32 {
        if self.starts_in_weight() { 2 } else { 1 }
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

/// The settings that LoRA and DoRA share.
pub(crate) mod setting {
    use crate::fields::setting::{PatternSetting, Setting, off};
    use crate::fields::values::{AboveZero, Count, Flag, Probability};

    pub(crate) const R: Setting<Count> =
        Setting::new("r", "The rank.", Count, 32).with_peft_default(8);
    pub(crate) const ALPHA: Setting<AboveZero> = Setting::new(
        "alpha",
        "The scaling's numerator: alpha / r, or alpha / √r with `use_rslora`.",
        AboveZero,
        64.0,
    )
    .called("lora_alpha")
    .with_peft_default(8.0);
    pub(crate) const DROPOUT: Setting<Probability> =
        Setting::new("dropout", "Dropout on the input of the method's branch.", Probability, 0.0)
            .called("lora_dropout");
    pub(crate) const USE_RSLORA: Setting<Flag> = off("use_rslora", "Scale by alpha / √r.");
    pub(crate) const RANK_PATTERN: PatternSetting<Count> = PatternSetting {
        name: "rank_pattern",
        about: "Ranks of modules whose name matches.",
        kind: Count,
        expected: "a table of integers of at least 1",
    };
    pub(crate) const ALPHA_PATTERN: PatternSetting<AboveZero> = PatternSetting {
        name: "alpha_pattern",
        about: "Alphas of modules whose name matches.",
        kind: AboveZero,
        expected: "a table of numbers above 0",
    };
    pub(crate) const LORAPLUS_LR_RATIO: Setting<AboveZero> =
        Setting::new("loraplus_lr_ratio", "B's learning rate beside A's (LoRA+).", AboveZero, 1.0);
    pub(crate) const FREEZE_A: Setting<Flag> =
        off("freeze_a", "Whether A stays as it began (LoRA-FA).");
}

/// The setting of what A and B start from: `true`, or a name that [`LoraInit`] knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartSetting;

impl Described for StartSetting {
    fn name(&self) -> &'static str {
        "init_lora_weights"
    }

    fn schema(&self) -> Value {
        let values =
            json!([{"const": true, "type": "boolean"}, {"type": "string", "minLength": 1}]);
        let mut schema = documented("What A and B start from.", json!({"anyOf": values}));
        schema["default"] = json!(true);
        schema
    }

    fn value(&self, given: Option<&Value>) -> Result<Option<Value>, String> {
        Ok(Some(given.cloned().unwrap_or(json!(true))))
    }
}

/// The settings of a low-rank addition, which LoRA and DoRA share, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankConfig {
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
    /// B's learning rate beside A's (LoRA+), above 0. Not in PEFT's file.
    pub loraplus_lr_ratio: f64,
}

impl LowRankConfig {
    /// Reads the fields.
    pub(crate) fn read(fields: &mut Fields) -> Self {
        Self {
            r: fields.get(&setting::R),
            lora_alpha: fields.get(&setting::ALPHA),
            lora_dropout: fields.get(&setting::DROPOUT),
            use_rslora: fields.get(&setting::USE_RSLORA),
            rank_pattern: fields.patterns(&setting::RANK_PATTERN),
            alpha_pattern: fields.patterns(&setting::ALPHA_PATTERN),
            loraplus_lr_ratio: match fields.dialect() {
                Dialect::Toml => fields.get(&setting::LORAPLUS_LR_RATIO),
                Dialect::Peft => setting::LORAPLUS_LR_RATIO.peft_default,
            },
        }
    }

    /// The rank on that module.
    pub fn rank_of(&self, path: &str) -> usize {
        self.rank_pattern.get(path).unwrap_or(self.r)
    }

    /// s on that module.
    pub fn scaling_of(&self, path: &str) -> f64 {
        let rank = self.rank_of(path) as f64;
        let alpha = self.alpha_pattern.get(path).unwrap_or(self.lora_alpha);
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

    /// The fields of PEFT's file, of an adapter that is stored with `ranks` times its rank.
    pub(crate) fn peft_fields(&self, ranks: u32, form: WrittenForm) -> Map<String, Value> {
        // So that s stays: alpha / r, or alpha / √r.
        let alphas = if self.use_rslora { f64::from(ranks).sqrt() } else { f64::from(ranks) };
        let ranks = ranks as usize;
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("r", json!(self.r * ranks));
        put("lora_alpha", number(self.lora_alpha * alphas));
        put("lora_dropout", json!(self.lora_dropout));
        put("use_rslora", json!(self.use_rslora));
        put("use_dora", json!(form.use_dora));
        put("bias", json!("none"));
        put("lora_bias", json!(form.lora_bias));
        put("fan_in_fan_out", json!(form.fan_in_fan_out));
        put("init_lora_weights", json!(true));
        put("rank_pattern", self.rank_pattern.to_json(|rank| json!(rank * ranks)));
        put("alpha_pattern", self.alpha_pattern.to_json(|alpha| number(*alpha * alphas)));
        fields
    }
}

/// The fields of PEFT's file that LoRA and DoRA fill in differently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenForm {
    pub(crate) use_dora: bool,
    pub(crate) lora_bias: bool,
    pub(crate) fan_in_fan_out: bool,
}

/// LoRA's checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Ranks, scalings and dropout.
    pub low_rank: LowRankConfig,
    /// What A and B start from. Not in PEFT's file, which holds tensors.
    pub init: LoraInit,
    /// Whether A stays as it is (LoRA-FA). Not in PEFT's file.
    pub freeze_a: bool,
    /// Whether B has a bias, as of adapters that were taken from the difference of two models. In
    /// PEFT's file alone.
    pub lora_bias: bool,
}

impl LoraConfig {
    /// Reads the fields. Those that only our TOML or only PEFT's file has are read as such.
    pub(crate) fn read(fields: &mut Fields) -> Self {
        match fields.dialect() {
            Dialect::Toml if fields.flag("use_dora", false) => {
                fields.fault("use_dora", "is another method: \"dora\"");
            }
            Dialect::Toml => {}
            Dialect::Peft => peft_init(fields),
        }
        let mut config = Self {
            low_rank: LowRankConfig::read(fields),
            init: LoraInit::Kaiming,
            freeze_a: false,
            lora_bias: false,
        };
        match fields.dialect() {
            Dialect::Toml => config.read_start(fields),
            Dialect::Peft => config.lora_bias = fields.flag("lora_bias", false),
        }
        config
    }

    fn read_start(&mut self, fields: &mut Fields) {
        let key = StartSetting.name();
        let expected = "true, \"gaussian\", \"pissa\", \"pissa_niter_N\" or \"olora\"";
        self.init = fields.checked(key, LoraInit::Kaiming, expected, LoraInit::parse);
        self.freeze_a = fields.get(&setting::FREEZE_A);
        if self.freeze_a && self.init.starts_in_weight() {
            fields.fault(
                setting::FREEZE_A.name,
                "cannot be used with an initialisation from the weight, which trains A and B",
            );
        }
    }

    /// The rank of that module in its file: A and B beside what they started from, where that is a
    /// part of W.
    pub(crate) fn stored_rank_of(&self, path: &str) -> usize {
        self.low_rank.rank_of(path) * self.init.stored_ranks() as usize
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
            "is {value}: the file holds A and B without what they started from, so it is right \
             only on the changed base \
             weights of that run; convert it with PEFT's \
             save_pretrained(.., path_initial_model_for_weight_conversion=..), which writes a \
             plain LoRA"
        )
    } else if name == "loftq" {
        format!(
            "is {value}: the adapter belongs to the base weights that LoftQ quantised, and is \
             wrong on any others; merge it \
             there and use the merged model"
        )
    } else {
        format!(
            "must be one of true, false, \"gaussian\", \"orthogonal\", \"eva\", \"mica\", found \
             {value}"
        )
    };
    fields.fault("init_lora_weights", message);
}
