//! What LoRA's relatives share, as properties on models of random shapes: DoRA, VeRA, LoRA-FA,
//! PiSSA, OLoRA.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Tiny, largest_difference, parse};
use ist_core::burn::tensor::{DType, Device};
use ist_core::gradients::count_parameters;
use ist_peft::files::{TENSORS_FILE, named_tensors};
use ist_peft::{
    Adapter, Adapters, BuiltinAdapter, Dialect, PeftModel, TensorFile, attach, load, merge,
    restore, save,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Scalars that train on a module, from its d_in, d_out and rank.
type Count = fn(usize, usize, usize) -> usize;

/// The fields of a method and its parameters.
fn methods() -> [(Value, Count); 8] {
    let lora: Count = |d_in, d_out, r| r * (d_in + d_out);
    [
        (json!({"method": "dora"}), |d_in, d_out, r| r * (d_in + d_out) + d_out),
        (json!({"method": "lora", "use_dora": true, "use_rslora": true}), |d_in, d_out, r| {
            r * (d_in + d_out) + d_out
        }),
        (json!({"method": "vera"}), |_, d_out, r| r + d_out),
        (json!({"method": "lora", "freeze_a": true}), |_, d_out, r| r * d_out),
        (json!({"method": "lora", "init_lora_weights": "gaussian"}), lora),
        (json!({"method": "lora", "init_lora_weights": "pissa"}), lora),
        (json!({"method": "lora", "init_lora_weights": "pissa_niter_2", "use_rslora": true}), lora),
        (json!({"method": "lora", "init_lora_weights": "olora"}), lora),
    ]
}

/// One of the methods with targets, rank and the rest.
fn configurations() -> impl Strategy<Value = (Value, Count, usize)> {
    let targets = prop::sample::select(vec![
        json!(["up_proj"]),
        json!(["down_proj", "lm_head"]),
        json!(r".*\.1\.mlp\.(up|down)_proj|lm_head"),
        json!("all-linear"),
    ]);
    (0..methods().len(), targets, 1usize..4, 1u32..40).prop_map(|(method, targets, r, alpha)| {
        let (mut fields, count) = methods()[method].clone();
        (fields["targets"], fields["r"], fields["dropout"]) = (targets, json!(r), json!(0.125));
        if fields["method"] != "vera" {
            fields["alpha"] = json!(f64::from(alpha) / 4.0);
        }
        (fields, count, r)
    })
}

fn is_dora(adapters: &Adapters<BuiltinAdapter>) -> bool {
    adapters.parts()[0].config().name() == "dora"
}

fn adapters(model: &mut Tiny) -> Vec<BuiltinAdapter> {
    model.slots().into_iter().filter_map(|slot| slot.adapter.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fresh_adapter_leaves_the_model_what_it_is(
        (fields, count, r) in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let mut model = Tiny::new(sizes, DType::F32);
        let base = model.forward();
        let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
        let sites = attach(&mut model, &mut config, 1, &Device::flex()).unwrap();
        let scale = base.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        for response in [1.0, 0.25, 0.0] {
            prop_assert!(largest_difference(&model.forward_at(response), &base) <= 2e-6 * scale,
                "{response}");
        }
        for (adapter, site) in adapters(&mut model).iter().zip(&sites) {
            let expected = count(site.d_in, site.d_out, r);
            prop_assert_eq!(count_parameters(adapter), expected);
            prop_assert_eq!(config.parts()[0].config().settings.parameters(site), expected);
            let planned = config.parts()[0].config().settings.token_cost(site);
            prop_assert_eq!(planned, adapter.view().token_cost(site));
        }
    }

    #[test]
    fn a_response_of_zero_is_the_base_model_but_for_doras_magnitudes(
        (fields, ..) in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let mut model = Tiny::new(sizes, DType::F64);
        let base = model.forward();
        let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
        model.adapt(&mut config);
        let difference = largest_difference(&model.forward_at(0.0), &base);
        prop_assert!((difference < 1e-12) != is_dora(&config), "{difference}");
    }

    #[test]
    fn the_response_factor_scales_s_wherever_it_stands(
        (fields, ..) in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        prop_assume!(fields["method"] != "vera"); // has no s
        let mut damped = fields.clone();
        damped["alpha"] = json!(fields["alpha"].as_f64().unwrap() * 0.25);
        let [outputs, expected] = [(fields, 0.25), (damped, 1.0)].map(|(fields, response)| {
            let mut model = Tiny::new(sizes, DType::F64);
            model.adapt(&mut Adapters::one(parse(&fields, Dialect::Toml).unwrap()));
            model.forward_at(response)
        });
        let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        prop_assert!(largest_difference(&outputs, &expected) <= 1e-11 * scale);
    }

    #[test]
    fn merged_equals_unmerged(
        (fields, ..) in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let mut model = Tiny::new(sizes, DType::F64);
        let base = model.forward();
        model.adapt(&mut Adapters::one(parse(&fields, Dialect::Toml).unwrap()));
        let unmerged = model.forward();
        merge(&mut model).unwrap();
        prop_assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
        let scale = unmerged.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        prop_assert!(largest_difference(&model.forward(), &unmerged) <= 1e-11 * scale);
        prop_assert!(largest_difference(&base, &unmerged) > 1e-9, "the adapters must matter");
    }

    #[test]
    fn what_is_saved_is_the_same_adapter_to_readers_and_to_the_run_itself(
        (fields, ..) in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let [mut model, mut read, mut resumed] = [(); 3].map(|()| Tiny::new(sizes, DType::F32));
        let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
        model.adapt(&mut config);
        save(&mut model, &config, folder.path(), "some/base").unwrap();
        let loaded = load(&mut read, folder.path(), &Device::flex()).unwrap();
        restore(&mut resumed, &mut config, folder.path(), &Device::flex()).unwrap();
        prop_assert_eq!(is_dora(&loaded), is_dora(&config));
        let bytes = |model: &mut Tiny, config: &Adapters<BuiltinAdapter>| {
            let tensors = named_tensors(model, config).into_iter();
            tensors.map(|(name, data)| (name, data.shape().to_vec(), data.as_bytes().to_vec())).collect::<Vec<_>>()
        };
        let saved = bytes(&mut model, &config);
        prop_assert_eq!(&bytes(&mut read, &loaded), &saved);
        prop_assert_eq!(&bytes(&mut resumed, &config), &saved);
        prop_assert_eq!(model.forward(), resumed.forward());
        // To a reader, what an adapter is measured from is part of a larger rank, which is summed
        // in another order.
        let found = read.forward();
        let expected = model.forward();
        let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        prop_assert!(largest_difference(&found, &expected) <= 1e-5 * scale);
        let trained = |model: &mut Tiny| adapters(model).iter().map(count_parameters).collect::<Vec<_>>();
        prop_assert_eq!(trained(&mut model), trained(&mut resumed));
        let file = TensorFile::open(&folder.path().join(TENSORS_FILE)).unwrap();
        prop_assert_eq!(file.names().count(), saved.len());
    }
}

#[test]
fn fields_that_belong_to_another_method_are_refused() {
    let cases = [
        (json!({"method": "dora", "use_dora": false}), "use_dora"),
        (json!({"method": "dora", "init_lora_weights": "pissa"}), "init_lora_weights"),
        (json!({"method": "dora", "freeze_a": true}), "freeze_a"),
        (json!({"method": "lora", "freeze_a": true, "init_lora_weights": "olora"}), "freeze_a"),
        (json!({"method": "lora", "init_lora_weights": "pissa_niter_x"}), "init_lora_weights"),
        (json!({"method": "lora", "init_lora_weights": false}), "init_lora_weights"),
        (json!({"method": "lora", "loraplus_lr_ratio": 0}), "loraplus_lr_ratio"),
        (json!({"method": "vera", "alpha": 8}), "alpha"),
        (json!({"method": "vera", "save_projection": false}), "save_projection"),
        (json!({"method": "vera", "projection_prng_key": -1}), "projection_prng_key"),
    ];
    for (fields, field) in cases {
        let error = parse(&fields, Dialect::Toml).unwrap_err();
        assert_eq!(
            error.faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
            [field],
            "{error}"
        );
    }
}

#[test]
fn files_that_only_fit_changed_weights_or_need_another_generator_are_refused_with_the_way_out() {
    for method in ["pissa", "pissa_niter_16", "olora"] {
        for dora in [false, true] {
            let fields =
                json!({"peft_type": "LORA", "use_dora": dora, "init_lora_weights": method});
            let error = parse(&fields, Dialect::Peft).unwrap_err().to_string();
            let parts = [method, "path_initial_model_for_weight_conversion", "`init_lora_weights`"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
    let error = parse(&json!({"peft_type": "VERA", "save_projection": false}), Dialect::Peft)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`save_projection`") && error.contains("PyTorch's generator"),
        "{error}"
    );
}

#[test]
fn vera_takes_the_projections_to_queries_and_values_and_holds_one_copy_of_its_matrices() {
    let mut model = Tiny::new([7, 4, 5], DType::F32);
    let fields = json!({"method": "vera", "r": 3});
    let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
    let sites = attach(&mut model, &mut config, 1, &Device::flex()).unwrap();
    assert_eq!(
        sites.iter().map(ist_peft::Site::name).collect::<Vec<_>>(),
        ["up_proj", "down_proj", "up_proj", "down_proj"]
    );
    let shapes: Vec<_> = named_tensors(&mut model, &config)
        .into_iter()
        .map(|(name, data)| (name, data.shape().to_vec()))
        .collect();
    assert_eq!(shapes[0], ("base_model.vera_A".to_owned(), vec![3, 5]));
    assert_eq!(shapes[1], ("base_model.vera_B".to_owned(), vec![5, 3]));
    assert_eq!(
        shapes[2],
        ("base_model.model.model.layers.0.mlp.up_proj.vera_lambda_b".to_owned(), vec![5])
    );
    assert_eq!(shapes.len(), 10);
}
