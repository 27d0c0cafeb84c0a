//! The memory plan's prediction against the bytes that a step really takes, counted by the
//! allocator.

#![expect(clippy::print_stderr, reason = "a measurement prints what it found")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use ist_core::burn::tensor::{DType, Device, Tensor};
use ist_core::gradients::count_parameters;
use ist_core::plan::Draw;
use ist_core::policy::Fixed;
use ist_core::step::{self, LayerTreatment, Memory};
use ist_core::{LayerSet, LayeredModel, Tuner, TunerConfig};
use ist_experiments::machine::live_bytes;
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::{Decoder, DecoderConfig, Example, TokenBatch, generate};
use ist_peft::{Adapter, Adapters, BuiltinAdapter, Dialect, attach};
use ist_records::terminal::human;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

type Model = Decoder<BuiltinAdapter>;

/// How far the prediction may be from what is measured.
const TOLERANCE: f64 = 0.1;

/// A model with LoRA on it, its shape and adapter as the fields of their configurations.
fn model(shape: &Value, adapter: &Value, storage: DType) -> Model {
    let mut document = json!({"model_type": "llama", "max_position_embeddings": 4096});
    document
        .as_object_mut()
        .expect("an object")
        .extend(shape.as_object().expect("an object").clone());
    let config = DecoderConfig::parse(&document.to_string()).expect("the shape is a valid model");
    let mut model = Model::random(config, 0, &Device::flex()).store_as(storage);
    let fields = adapter.as_object().expect("an object");
    let config = BuiltinAdapter::parse(fields, Dialect::Toml)
        .expect("lora is built in")
        .expect("the fields are valid");
    attach(&mut model, &mut Adapters::one(config), 0, &Device::flex()).expect("the targets exist");
    model
}

fn batch(rows: usize, sequence: usize, vocabulary: usize) -> TokenBatch {
    let row =
        |row: usize| (0..sequence).map(|t| ((row * 31 + t * 17) % vocabulary) as u32).collect();
    TokenBatch::new(
        &(0..rows).map(|at| Example::tokens(row(at))).collect::<Vec<_>>(),
        &Device::flex(),
    )
}

/// Predicted and measured bytes of a step.
fn compare(model: &Model, batches: &[TokenBatch], layers: &[usize], memory: Memory) -> (u64, u64) {
    let chosen =
        LayerSet::new(layers.iter().copied(), model.layers().len()).expect("layers of the model");
    live_bytes::reset_peak();
    let before = live_bytes::live();
    let output = step::gradients(model, batches, &chosen, memory, Some(7));
    (
        output.predicted_bytes.expect("a LLaMA tells its footprint"),
        (live_bytes::peak() - before) as u64,
    )
}

/// Predicted and measured bytes of a second optimizer step that trains every layer, so that the
/// moments are there.
fn compare_step(model: &mut Model, batch: &TokenBatch, clip_norm: Option<f64>) -> (u64, u64) {
    let config = TunerConfig { clip_norm, memory: Memory::Recompute, ..TunerConfig::default() };
    let all = LayerSet::all(model.layers().len());
    let mut tuner = Tuner::new(config, Box::new(Fixed::new(all)), 0);
    let mut step = || {
        let before = live_bytes::live()
            - usize::try_from(tuner.optimizer().bytes_on_device()).expect("they are in memory");
        live_bytes::reset_peak();
        let report = tuner.step(model, std::slice::from_ref(batch)).expect("numbers are finite");
        (
            report.predicted_bytes.expect("a LLaMA tells its footprint"),
            (live_bytes::peak() - before) as u64,
        )
    };
    let first = step();
    let second = step();
    assert!(first.0 <= second.0 + 1, "moments to come are counted: {first:?} {second:?}");
    [first, second].into_iter().max_by_key(|(_, measured)| *measured).expect("there are two")
}

/// The allocator counts for all threads of the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other test counts, and takes what threads keep once they have it.
///
/// The matrix product gives every thread a workspace as large as a cache at its first product.
/// Which thread of the pool computes is chance, so that without this a later pass, which is
/// measured, may take one.
fn alone() -> MutexGuard<'static, ()> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let product = || {
        let square = Tensor::<2>::ones([64, 64], &Device::flex());
        square.clone().matmul(square)
    };
    std::hint::black_box(product());
    rayon::broadcast(|_| std::hint::black_box(product()));
    guard
}

#[test]
fn updating_layer_by_layer_holds_the_gradients_of_one_layer_as_predicted() {
    let _alone = alone();
    let shape = json!({"vocab_size": 512, "hidden_size": 256, "intermediate_size": 688,
        "num_hidden_layers": 12,
        "num_attention_heads": 4});
    let large = json!({"method": "lora", "r": 64, "alpha": 64});
    let (mut model, batch) = (model(&shape, &large, DType::F32), batch(1, 128, 512));
    let [at_end, at_once] =
        [Some(1e9), None].map(|clip_norm| compare_step(&mut model, &batch, clip_norm));
    for (predicted, measured) in [at_end, at_once] {
        let ratio = predicted as f64 / measured as f64;
        assert!((ratio - 1.0).abs() < TOLERANCE, "{predicted} {measured}");
    }
    let parameters: usize = model.layers().iter().map(count_parameters).sum();
    let (saved, others) = (at_end.1 - at_once.1, (4 * parameters / 12 * 11) as u64);
    assert!(saved > others / 10 * 8, "{saved} of {others}");
}

/// Whether any layer is kept in half under that budget.
fn halves(model: &Model, batch: &TokenBatch, layers: &[usize], budget: u64) -> bool {
    let chosen =
        LayerSet::new(layers.iter().copied(), model.layers().len()).expect("layers of the model");
    Draw::of(&chosen)
        .treatments(Memory::Budget(budget), model.footprint(batch).as_ref())
        .contains(&LayerTreatment::KeepHalf)
}

#[test]
fn the_predicted_peak_is_within_a_tenth_of_the_measured_one() {
    let _alone = alone();
    let small = json!({"vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1376,
        "num_hidden_layers": 8, "num_attention_heads": 8});
    let grouped = json!({"vocab_size": 8000, "hidden_size": 256, "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 48});
    let wide = json!({"vocab_size": 32000, "hidden_size": 192, "intermediate_size": 512,
        "num_hidden_layers": 4, "num_attention_heads": 4});
    let usual = json!({"method": "lora", "r": 32, "alpha": 64});
    let every = json!({"method": "lora", "r": 8, "alpha": 16, "dropout": 0.1, "targets":
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]});
    let few = json!({"method": "lora", "r": 4, "alpha": 16, "targets": ["q_proj", "v_proj"]});
    let biased = json!({"vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1376,
        "num_hidden_layers": 6,
        "num_attention_heads": 8, "attention_bias": true, "mlp_bias": true});
    let [norms, biases, full] =
        ["layernorm", "bitfit", "full"].map(|method| json!({"method": method}));
    let some =
        json!({"method": "full", "targets": ["q_proj", "down_proj", "lm_head", "embed_tokens"]});
    let prefix = json!({"method": "prefix-tuning", "num_virtual_tokens": 64});
    let head = json!({"method": "lora", "r": 4, "alpha": 16, "targets": ["v_proj", "lm_head",
        "embed_tokens"]});
    let cases = [
        (&small, &usual, DType::F32, [4, 256, 1]),
        (&small, &usual, DType::BF16, [2, 128, 1]),
        (&small, &every, DType::I8, [1, 256, 1]),
        (&grouped, &every, DType::F32, [4, 128, 2]),
        (&grouped, &few, DType::F32, [1, 512, 1]),
        (&wide, &usual, DType::F32, [2, 256, 1]),
        (&wide, &head, DType::F32, [2, 128, 1]),
        (&small, &norms, DType::F32, [2, 256, 1]),
        (&biased, &biases, DType::F32, [2, 256, 1]),
        (&small, &full, DType::F32, [2, 256, 1]),
        (&small, &full, DType::BF16, [2, 256, 2]),
        (&wide, &some, DType::F32, [2, 128, 1]),
        (&grouped, &prefix, DType::F32, [4, 128, 1]),
    ];
    let (mut faults, mut with_halves) = (Vec::new(), 0);
    for (shape, adapter, storage, sizes) in cases {
        let model = model(shape, adapter, storage);
        let count = model.layers().len();
        let draws = [(0..count).collect(), vec![0, count / 2], vec![2, count - 1], vec![count - 1]];
        with_halves += survey(&model, storage, sizes, &draws, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(with_halves >= 10, "layers are kept in half under {with_halves} budgets only");
}

/// Notes every prediction that is off, for those draws; how many budgets keep layers in half.
fn survey(
    model: &Model,
    storage: DType,
    [rows, sequence, parts]: [usize; 3],
    draws: &[Vec<usize>],
    faults: &mut Vec<String>,
) -> usize {
    let (config, count) = (model.config(), model.layers().len());
    let batches: Vec<_> = (0..parts).map(|_| batch(rows, sequence, config.vocab_size)).collect();
    // The matrix product's threads take their workspace once and keep it.
    compare(model, &batches, &[0], Memory::Recompute);
    let mut with_halves = 0;
    for (number, layers) in draws.iter().enumerate() {
        let lean = compare(model, &batches, layers, Memory::Recompute);
        let full = compare(model, &batches, layers, Memory::Keep);
        let between = |part: u64| lean.0 + (full.0 - lean.0) * part / 4;
        let mut found = vec![("recompute".to_owned(), lean), ("keep".to_owned(), full)];
        // Another budget for each draw: a quarter, half and three quarters of the way.
        let budget = between(1 + number as u64 % 3);
        let kept = if halves(model, &batches[0], layers, budget) { ", halves" } else { "" };
        found.push((
            format!("{budget} bytes{kept}"),
            compare(model, &batches, layers, Memory::Budget(budget)),
        ));
        with_halves += found.iter().filter(|(name, _)| name.ends_with("halves")).count();
        for (name, (predicted, measured)) in found {
            let ratio = predicted as f64 / measured as f64;
            let line = format!(
                "{} {count} layers {storage:?} {rows}x{sequence} {layers:?} {name}: predicted {}, \
                 measured {}, {ratio:.3}",
                config.model_type,
                human(predicted as usize),
                human(measured as usize)
            );
            eprintln!("{line}");
            if (ratio - 1.0).abs() > TOLERANCE {
                faults.push(line);
            }
        }
    }
    with_halves
}

#[test]
fn the_prediction_holds_for_every_kind_of_decoder() {
    let _alone = alone();
    let usual = json!({"method": "lora", "r": 16, "alpha": 32});
    let common = json!({"vocab_size": 2048, "hidden_size": 384, "intermediate_size": 1024,
        "num_hidden_layers": 5,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64});
    let gpt = json!({"vocab_size": 2048, "n_embd": 384, "n_layer": 5, "n_head": 6,
        "n_positions": 512,
        "max_position_embeddings": 512});
    let cases = [
        (&common, json!({"model_type": "mistral", "sliding_window": 48})),
        (&common, json!({"model_type": "qwen3"})),
        (&common, json!({"model_type": "gemma2", "sliding_window": 48})),
        (&common, json!({"model_type": "phi3"})),
        (&common, json!({"model_type": "olmo2"})),
        (
            &common,
            json!({"model_type": "mixtral", "intermediate_size": 512, "num_local_experts": 4}),
        ),
        (&gpt, json!({"model_type": "gpt2"})),
        (&gpt, json!({"model_type": "gptj"})),
        (&gpt, json!({"model_type": "gpt_neox"})),
        (&gpt, json!({"model_type": "bloom"})),
    ];
    let mut faults = Vec::new();
    for (shape, own) in cases {
        let mut shape = shape.clone();
        shape
            .as_object_mut()
            .expect("an object")
            .extend(own.as_object().expect("an object").clone());
        let model = model(&shape, &usual, DType::F32);
        survey(&model, DType::F32, [2, 192, 1], &[vec![1, 3]], &mut faults);
    }
    // Experts that train.
    let mut shape = common.clone();
    let own = json!({"model_type": "mixtral", "intermediate_size": 512, "num_local_experts": 8});
    shape.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
    let experts = json!({"method": "lora", "r": 32, "alpha": 32, "targets": ["w1", "w2", "w3"]});
    survey(
        &model(&shape, &experts, DType::F32),
        DType::F32,
        [2, 192, 1],
        &[vec![1, 3]],
        &mut faults,
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The most live bytes above those before it while `work` runs.
fn above<R>(work: impl FnOnce() -> R) -> u64 {
    live_bytes::reset_peak();
    let before = live_bytes::live();
    std::hint::black_box(work());
    (live_bytes::peak() - before) as u64
}

#[test]
fn passes_without_a_graph_hold_one_layer_beyond_weights_and_cache() {
    let _alone = alone();
    let usual = json!({"method": "lora", "r": 16, "alpha": 32});
    let of = |layers: usize| {
        let shape = json!({"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 688,
            "num_hidden_layers": layers,
            "num_attention_heads": 4});
        let model = model(&shape, &usual, DType::F32);
        let batch = batch(2, 192, 2048);
        // A short prompt: the last token, with all before it in the cache, takes most.
        let prompts: Vec<Vec<u32>> =
            (0..2).map(|row| (0..8).map(|t| row * 7 + t).collect()).collect();
        let settings = generate::Settings { max_new_tokens: 120, ..generate::Settings::default() };
        let score = || above(|| model.token_log_probabilities(&batch));
        let write =
            || above(|| generate::generate(&model, &prompts, &settings).expect("the prompts fit"));
        (score(), write() - (layers * CACHE) as u64)
    };
    let [(few_score, few_write), (many_score, many_write)] = [4, 16].map(of);
    let layer = 2 * 192 * (256 * 4 + 688 * 3) * 4;
    assert!(few_score < layer, "{few_score} of {layer}");
    // Keys and values of one layer stand there twice while a token is put behind them.
    assert!(few_write < 2 * CACHE as u64, "{few_write} of {CACHE}");
    for (few, many) in [(few_score, many_score), (few_write, many_write)] {
        assert!(many as f64 <= few as f64 * 1.1, "{few} under 4 layers, {many} under 16");
    }
}

/// Bytes of keys and values of one layer of that test.
const CACHE: usize = 2 * 2 * (8 + 120 - 1) * 256 * 4;
