//! What a run writes down is what it ran.

use std::path::PathBuf;

use ist_core::optimizer::{AdamWSettings, RestingState};
use ist_core::policy::{
    AllConfig, FixedConfig, IstConfig, LisaConfig, ReplayConfig, Reward, RstConfig, Share,
};
use ist_core::schedule::Schedule;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::super::check::MOST_OF_ANYTHING;
use super::super::*;
use super::{least_and, read};
use crate::text::records::{Columns, Format, Order};

/// Strings with quotes, newlines, non-ASCII letters and control characters.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,12}", "\\PC{1,8}", Just("a\n\"b\" 'c' \\ \t\u{1}é".to_owned())]
}

fn path() -> impl Strategy<Value = PathBuf> {
    "[a-zA-Z0-9 _'\"é-]{1,10}".prop_map(|name| PathBuf::from("/data").join(name))
}

fn count() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..100, Just(MOST_OF_ANYTHING as usize)]
}

fn positive() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), Just(1e-8), Just(f64::MIN_POSITIVE), Just(1e300), 1e-6..10.0_f64]
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        count().prop_map(Share::Count),
        Just(Share::Fraction(1.0)),
        (1e-3..1.0_f64).prop_map(Share::Fraction)
    ]
}

fn model() -> impl Strategy<Value = ModelConfig> {
    let reference = prop_oneof![
        text().prop_map(ModelRef::Builtin),
        path().prop_map(ModelRef::Folder),
        (of("[a-z]{1,4}/[0-9]"))
            .prop_map(|revision| ModelRef::Hub { id: "no-such/model.name".to_owned(), revision }),
    ];
    let dtype = select(vec![Dtype::Float32, Dtype::Bfloat16, Dtype::Float16, Dtype::Int8]);
    (reference, dtype).prop_map(|(path, dtype)| ModelConfig { path, dtype })
}

fn data() -> impl Strategy<Value = DataConfig> {
    let formats = [
        Format::Auto,
        Format::Tokens,
        Format::Alpaca,
        Format::Chat,
        Format::PromptCompletion,
        Format::Text,
    ];
    let validation = prop_oneof![
        Just((None, None)),
        path().prop_map(|path| (Some(path), None)),
        count().prop_map(|count| (None, Some(count))),
    ];
    let templates = [
        "auto",
        "chat",
        "alpaca",
        "llm-adapters",
        "none",
        "{{ instruction }}\n{% if input %}\"x\"{% endif %}'''",
    ];
    let orders = select(vec![Order::Shuffled, Order::Sequential]);
    let padding = select(vec![Padding::Left, Padding::Right]);
    let template = select(templates.to_vec());
    let rest = (2_usize..9000, any::<bool>(), orders, validation, template, padding);
    let source = (path(), 1e-6..10.0_f64).prop_map(|(path, weight)| Source { path, weight });
    let train = prop_oneof![
        path().prop_map(Sources::from),
        prop::collection::vec(source, 1..4).prop_map(Sources::from),
    ];
    let columns = (of("[a-z ]{1,8}"), of("[a-z ]{1,8}"));
    let fields = of(columns.prop_map(|(instruction, tools)| Columns {
        instruction,
        tools,
        ..Columns::default()
    }));
    (train, fields, select(formats.to_vec()), rest).prop_map(|(train, fields, format, rest)| {
        let (cutoff, train_on_inputs, order, (validation, validation_records), template, padding) =
            rest;
        let template = template.to_owned();
        DataConfig {
            train,
            format,
            fields,
            cutoff,
            train_on_inputs,
            order,
            validation,
            validation_records,
            template,
            padding,
        }
    })
}

fn adapter() -> impl Strategy<Value = AdapterTable> {
    let numbers = (count(), positive(), 0.0..0.99_f64, any::<bool>());
    let names = || of(prop::collection::vec("[a-z_]{1,8}", 1..4));
    let layers = of(prop_oneof![
        (0_usize..50).prop_map(|one| json!(one)),
        prop::collection::vec(0_usize..50, 1..4).prop_map(|many| json!(many)),
    ]);
    let patterns = prop::collection::btree_map("[a-z.0-9]{1,8}", 1_usize..64, 0..3);
    (numbers, names(), names(), layers, patterns, of(path())).prop_map(
        |((r, alpha, dropout, use_rslora), targets, excluded, layers, patterns, init_from)| {
            let numbers = json!({"r": r, "alpha": alpha, "dropout": dropout,
                "use_rslora": use_rslora,
                "loraplus_lr_ratio": 16.0, "freeze_a": !use_rslora,
                "init_lora_weights": "gaussian"});
            let alphas: Map<String, Value> =
                patterns.iter().map(|(k, v)| (k.clone(), json!(*v as f64 / 2.0))).collect();
            let mut fields = numbers.as_object().cloned().unwrap_or_default();
            fields.extend(targets.map(|names| ("targets".to_owned(), json!(names))));
            fields.extend(excluded.map(|names| ("exclude_modules".to_owned(), json!(names))));
            fields.extend(layers.map(|layers| ("layers_to_transform".to_owned(), layers)));
            if !patterns.is_empty() {
                fields.insert("alpha_pattern".to_owned(), json!(alphas));
                fields.insert("rank_pattern".to_owned(), json!(patterns));
            }
            let method = if init_from.is_some() { None } else { Some("lora".to_owned()) };
            AdapterTable { method, name: None, init_from, fields }
        },
    )
}

/// One, or several by name.
fn adapters() -> impl Strategy<Value = AdapterTables> {
    prop::collection::vec(adapter(), 1..3).prop_map(|mut tables| {
        if tables.len() > 1 {
            tables
                .iter_mut()
                .enumerate()
                .for_each(|(at, table)| table.name = Some(format!("adapter-{at}")));
        }
        tables.into()
    })
}

fn policy() -> impl Strategy<Value = PolicyConfig> {
    let rewards = select(vec![Reward::Exp, Reward::Normalized]);
    let candidates = prop_oneof![1_usize..100, Just(4096_usize)];
    let ist = (share(), share(), candidates, 0.0..0.99_f64, count(), positive(), count(), rewards)
        .prop_map(
            |(
                layers_updated,
                layers_suppressed,
                candidates,
                suppression,
                interval,
                importance_lr,
                score_batch,
                reward,
            )| {
                PolicyConfig::Ist(IstConfig {
                    layers_updated,
                    layers_suppressed,
                    candidates,
                    suppression,
                    interval,
                    importance_lr,
                    score_batch,
                    reward,
                })
            },
        );
    prop_oneof![
        Just(PolicyConfig::All(AllConfig {})),
        ist,
        share().prop_map(|layers_updated| PolicyConfig::Rst(RstConfig { layers_updated })),
        (share(), count()).prop_map(|(layers_updated, interval)| PolicyConfig::Lisa(LisaConfig {
            layers_updated,
            interval
        })),
        prop::collection::btree_set(0_usize..99, 1..5).prop_map(|layers| PolicyConfig::Fixed(
            FixedConfig { layers: layers.into_iter().rev().collect() }
        )),
        path().prop_map(|path| PolicyConfig::Replay(ReplayConfig { path })),
    ]
}

fn optimizer() -> impl Strategy<Value = OptimizerConfig> {
    let schedules = select(vec![Schedule::Linear, Schedule::Cosine, Schedule::Constant]);
    let states = select(vec![RestingState::Keep, RestingState::Offload, RestingState::Drop]);
    let numbers = (
        positive(),
        0.0..1.0_f64,
        [0.0..0.9999_f64, 0.0..0.9999],
        positive(),
        0.0..5.0_f64,
        0_usize..999,
    );
    (numbers, schedules, states).prop_map(|(numbers, schedule, resting_state)| {
        let (lr, weight_decay, betas, eps, clip_norm, warmup_steps) = numbers;
        let kind = OptimizerKind::AdamW;
        OptimizerConfig {
            kind,
            lr,
            adamw: AdamWSettings { weight_decay, betas, eps },
            clip_norm,
            schedule,
            warmup_steps,
            resting_state,
        }
    })
}

fn train() -> impl Strategy<Value = TrainConfig> {
    let length = prop_oneof![
        count().prop_map(|steps| (Some(steps), None)),
        positive().prop_map(|n| (None, Some(n)))
    ];
    let prompts = prop::collection::vec(text(), 0..3);
    let batches = (1_usize..64).prop_flat_map(|batch| (Just(batch), 1..=batch));
    let scaling = select(vec![LossScaling::Auto, LossScaling::On, LossScaling::Off]);
    (length, batches, (of(count()), of(count()), count()), prompts, count(), scaling).prop_map(
        |(
            (steps, epochs),
            (batch, micro_batch),
            (eval_every, save_every, keep_last),
            sample_prompts,
            sample_tokens,
            loss_scaling,
        )| {
            let rest = TrainConfig {
                steps,
                epochs,
                batch,
                micro_batch,
                eval_every,
                save_every,
                ..TrainConfig::default()
            };
            TrainConfig { keep_last, sample_prompts, sample_tokens, loss_scaling, ..rest }
        },
    )
}

fn eval() -> impl Strategy<Value = Option<EvalConfig>> {
    let task = select(crate::evaluate::tasks::names()).prop_map(str::to_owned);
    let eval =
        (task, path(), of(count()), count()).prop_map(|(task, data, limit, max_new_tokens)| {
            EvalConfig { task, data, limit, max_new_tokens }
        });
    of(eval)
}

fn run() -> impl Strategy<Value = RunConfig> {
    let sizes = prop_oneof![1..1u64 << 40, Just(i64::MAX as u64)].prop_map(Budget::Bytes);
    let budget = prop_oneof![select(vec![Budget::Auto, Budget::Keep, Budget::Recompute]), sizes];
    let budget = budget.prop_map(|budget| MemoryConfig { budget });
    let seed = prop_oneof![0..10_u64, Just(i64::MAX as u64)];
    let logging = any::<bool>().prop_map(|tensorboard| LoggingConfig { tensorboard });
    let sections =
        (model(), data(), adapters(), policy(), optimizer(), train(), budget, logging, eval());
    (seed, sections, of(count())).prop_map(
        |(
            seed,
            (model, data, adapter, policy, optimizer, mut train, memory, logging, eval),
            early_stopping,
        )| {
            train.early_stopping = early_stopping.filter(|_| data.validates());
            RunConfig {
                seed,
                model,
                data,
                adapter,
                policy,
                optimizer,
                train,
                memory,
                logging,
                eval,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_configuration_that_is_written_is_read_back_equal(config in run()) {
        let written = config.to_toml();
        let again = read(&written).map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
        prop_assert_eq!(&again, &config, "{}", written);
        prop_assert!(differences(&config, &again).is_empty());
    }

    #[test]
    fn no_value_of_any_key_makes_the_gate_panic(
        key in select(schema::keys(&schema::RUN)),
        value in select(vec![
            "0", "-1", "1", "1.0", "nan", "-inf", "9223372036854775807", "''", "'x'", "'~'", "true",
            "[]", "[[]]", "[1, 'x']",
            "[{}]", "[{}, {}]", "{}", "{kind = 3}", "{x = {y = 1}}", "2024-01-01", "['(']", "'('",
        ]),
        second in select(schema::keys(&schema::RUN)),
    ) {
        let overrides = [format!("{key}={value}"), format!("{second}={value}")];
        if let Err(error) = super::read_with(super::LEAST, &[&overrides[0], &overrides[1]]) {
            prop_assert!(!error.faults().is_empty());
            let told = error.faults().iter().all(|fault| !fault.key.is_empty());
            prop_assert!(told, "{}", error);
        }
    }
}

#[test]
fn a_resolved_configuration_reads_well() {
    let written =
        least_and("adapter.rank_pattern = {'layers.0' = 4}\neval.data = 'x'").unwrap().to_toml();
    let sections: Vec<&str> = written.lines().filter(|line| line.starts_with('[')).collect();
    let expected = [
        "[model]",
        "[data]",
        "[adapter]",
        "[adapter.rank_pattern]",
        "[policy]",
        "[optimizer]",
        "[train]",
        "[memory]",
        "[logging]",
        "[eval]",
    ];
    assert_eq!(sections, expected);
    assert!(written.starts_with("seed = 0\n"), "{written}");
    assert!(
        written.contains("path = \"builtin:tiny\"")
            && written.contains("train = \"/base/train.jsonl\""),
        "{written}"
    );
}
