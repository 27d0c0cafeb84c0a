//! What a configuration is that says the least.

use std::path::PathBuf;

use ist_core::LayerSet;
use ist_core::optimizer::{AdamWSettings, RestingState};
use ist_core::policy::{
    AllConfig, FixedConfig, IstConfig, LisaConfig, Registry, ReplayConfig, Reward, RstConfig, Share,
};
use ist_core::schedule::Schedule;
use serde_json::json;

use super::super::*;
use super::{LEAST, least_and, read};
use crate::text::records::{Format, Order};

#[test]
fn every_default_is_the_documented_one() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.seed, 0);
    assert_eq!(
        config.model,
        ModelConfig { path: ModelRef::Builtin("tiny".into()), dtype: Dtype::Float32 }
    );
    let data = DataConfig {
        train: PathBuf::from("/base/train.jsonl").into(),
        format: Format::Auto,
        fields: None,
        cutoff: 256,
        train_on_inputs: true,
        order: Order::Shuffled,
        validation: None,
        validation_records: None,
        template: "auto".into(),
        padding: Padding::Left,
    };
    assert_eq!(config.data, data);
    let [adapter] = config.adapter.tables() else {
        panic!("one adapter, not {:?}", config.adapter)
    };
    assert_eq!((adapter.method.as_deref(), &adapter.init_from), (Some("lora"), &None));
    let fields = json!({"r": 32, "alpha": 64.0, "dropout": 0.0, "use_rslora": false,
        "loraplus_lr_ratio": 1.0,
        "freeze_a": false, "init_lora_weights": true});
    assert_eq!(json!(adapter.fields), fields);
    let ist = IstConfig {
        layers_updated: Share::Fraction(0.25),
        layers_suppressed: Share::Fraction(0.5),
        candidates: 3,
        suppression: 0.25,
        interval: 10,
        importance_lr: 10.0,
        score_batch: 16,
        reward: Reward::Exp,
    };
    assert_eq!(config.policy, PolicyConfig::Ist(ist));
    let optimizer = OptimizerConfig {
        kind: OptimizerKind::AdamW,
        lr: 2e-4,
        adamw: AdamWSettings { weight_decay: 0.0, betas: [0.9, 0.999], eps: 1e-8 },
        clip_norm: 1.0,
        schedule: Schedule::Linear,
        warmup_steps: 0,
        resting_state: RestingState::Keep,
    };
    assert_eq!(config.optimizer, optimizer);
    let train = TrainConfig {
        steps: Some(10),
        epochs: None,
        batch: 16,
        micro_batch: 16,
        eval_every: None,
        save_every: None,
        keep_last: 2,
        early_stopping: None,
        sample_prompts: Vec::new(),
        sample_tokens: 32,
        loss_scaling: LossScaling::Auto,
    };
    assert_eq!(config.train, train);
    assert_eq!(config.memory.budget, Budget::Auto);
    assert_eq!(config.logging, LoggingConfig { tensorboard: false });
    assert_eq!(config.eval, None);
}

#[test]
fn each_policy_has_its_own_defaults() {
    let policy = |text: &str| least_and(text).unwrap().policy;
    assert_eq!(policy("policy.kind = 'all'"), PolicyConfig::All(AllConfig {}));
    assert_eq!(
        policy("policy.kind = 'rst'"),
        PolicyConfig::Rst(RstConfig { layers_updated: Share::Fraction(0.25) })
    );
    let lisa = LisaConfig { layers_updated: Share::Count(2), interval: 50 };
    assert_eq!(policy("policy.kind = 'lisa'"), PolicyConfig::Lisa(lisa));
    let fixed = policy("policy = {kind = 'fixed', layers = [0, 2]}");
    assert_eq!(fixed, PolicyConfig::Fixed(FixedConfig { layers: vec![0, 2] }));
    let replay = policy("policy = {kind = 'replay', path = 'selections.jsonl'}");
    assert_eq!(
        replay,
        PolicyConfig::Replay(ReplayConfig { path: "/base/selections.jsonl".into() })
    );
}

#[test]
fn every_policy_is_built_from_its_own_section_and_by_its_name() {
    let layers = LayerSet::all(4);
    for text in [
        "kind = 'all'",
        "kind = 'ist'",
        "kind = 'rst'",
        "kind = 'lisa'",
        "kind = 'fixed', layers = [1]",
    ] {
        let policy = least_and(&format!("policy = {{{text}}}")).unwrap().policy;
        assert_eq!(policy.build(&layers).unwrap().name(), policy.kind());
        let mut fields = json!(policy).as_object().unwrap().clone();
        fields.remove("kind");
        let named = Registry::default().build(policy.kind(), &fields, &layers).unwrap();
        assert_eq!(named.name(), policy.kind());
    }
}

#[test]
fn an_integer_is_a_count_and_a_float_a_fraction() {
    let share = |text: &str| match least_and(&format!(
        "policy = {{kind = 'rst', layers_updated = {text}}}"
    ))
    .unwrap()
    .policy
    {
        PolicyConfig::Rst(fields) => fields.layers_updated,
        other => panic!("{other:?}"),
    };
    assert_eq!((share("1"), share("1.0")), (Share::Count(1), Share::Fraction(1.0)));
    assert_eq!((share("1").of(8), share("1.0").of(8), share("0.01").of(8)), (1, 8, 1));
}

#[test]
fn a_micro_batch_is_the_whole_batch_by_default() {
    assert_eq!(least_and("train.batch = 4").unwrap().train.micro_batch, 4);
    assert_eq!(least_and("train = {epochs = 1, batch = 4, micro_batch = 3}".trim()).ok(), None);
    let text =
        LEAST.replace("train.steps = 10", "train = {epochs = 1, batch = 4, micro_batch = 3}");
    let train = read(&text).unwrap().train;
    assert_eq!((train.epochs, train.batch, train.micro_batch), (Some(1.0), 4, 3));
}

#[test]
fn with_an_adapter_to_start_from_only_what_is_given_stands() {
    let adapter =
        least_and("adapter = {init_from = 'old/adapter', alpha = 8}").unwrap().adapter.tables()[0]
            .clone();
    assert_eq!(
        (adapter.method.as_deref(), adapter.init_from),
        (None, Some("/base/old/adapter".into()))
    );
    assert_eq!(json!(adapter.fields), json!({"alpha": 8.0}));
}

#[test]
fn an_evaluation_has_a_task_and_a_length() {
    let eval = least_and("eval.data = 'test.jsonl'").unwrap().eval.unwrap();
    let expected = EvalConfig {
        task: "exact-match".to_owned(),
        data: "/base/test.jsonl".into(),
        limit: None,
        max_new_tokens: 16,
    };
    assert_eq!(eval, expected);
}

#[test]
fn no_clipping_is_a_norm_of_zero() {
    assert_eq!(least_and("").unwrap().optimizer.clip(), Some(1.0));
    assert_eq!(least_and("optimizer.clip_norm = 0").unwrap().optimizer.clip(), None);
}

#[test]
fn a_budget_is_a_word_or_a_size() {
    let budget = |value: &str| {
        super::read_with(super::LEAST, &[&format!("memory.budget={value}")]).unwrap().memory.budget
    };
    assert_eq!(budget("300MiB"), Budget::Bytes(300 << 20));
    assert_eq!(
        (budget("1.5 GB"), budget("4096")),
        (Budget::Bytes(1_500_000_000), Budget::Bytes(4096))
    );
    assert_eq!((budget("auto"), budget("'recompute'")), (Budget::Auto, Budget::Recompute));
}
