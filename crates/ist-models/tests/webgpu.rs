//! Every operation with a backward pass of its own as WGSL shaders on Vulkan, in f32, against its generic form on `ndarray`
//! in f64: the form that every backend without one of its own runs.
//!
//! Any Vulkan adapter will do; Mesa's lavapipe is one made of the processor alone. Without an adapter the tests say so and
//! pass, and fail where IST_REQUIRE_WGPU is 1.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::sync::LazyLock;

use common::{LAYERS, Numbers, floats, named, records, relative};
use ist_core::burn::module::{Module, ModuleVisitor, Param};
use ist_core::burn::tensor::wgpu::WgpuBackend;
use ist_core::burn::tensor::{DType, Device, Gradients as Graph, Int, Tensor, TensorData};
use ist_core::gradients::lift;
use ist_core::step::{self, Memory, StepOutput};
use ist_core::{LayerPass, LayerSet, streams};
use ist_models::ops::activate::activate;
use ist_models::ops::activation::Activation;
use ist_models::ops::attention::{AttentionMask, Scores, attention};
use ist_models::ops::cross_entropy::cross_entropy;
use ist_models::ops::gated::gated;
use ist_models::ops::layer_norm::layer_norm;
use ist_models::ops::linear_cross_entropy::{Head, chunk_rows, linear_cross_entropy};
use ist_models::ops::rms_norm::rms_norm;
use ist_models::ops::rope::{Pairs, Rotation};
use ist_peft::frozen_matrix::FrozenMatrix;
use ist_peft::int8::Int8Matrix;
use ist_peft::linear::linear;
use ist_peft::{Adapter, Base, BuiltinAdapter, Dialect, PeftLinear, Place, Site, Weight};
use rand::RngExt;
use serde_json::{Value, json};

/// Of the largest element of the value or of a gradient.
const TOLERANCE: f64 = 1e-5;

/// One device for all tests. The graphics API is fixed: the automatic choice may fall to OpenGL, where it hangs.
static DEVICE: LazyLock<Option<Device>> = LazyLock::new(|| {
    let opened = Device::wgpu_options().graphics_api(WgpuBackend::Vulkan).init();
    let required = std::env::var("IST_REQUIRE_WGPU").is_ok_and(|value| value == "1");
    assert!(opened.is_ok() || !required, "IST_REQUIRE_WGPU is 1, but there is no Vulkan adapter: {:?}", opened.err());
    if let Err(error) = &opened {
        let message = format!("\nSKIPPED: no Vulkan adapter, nothing was run: {error:?}\n\n");
        // Unlike a printed line this one is not held back when the tests pass.
        std::io::stderr().write_all(message.as_bytes()).unwrap();
    }
    opened.ok()
});

fn webgpu() -> Option<Numbers> {
    DEVICE.clone().map(|device| Numbers { device, dtype: DType::F32 })
}

fn exact() -> Numbers {
    Numbers::ndarray(DType::F64)
}

/// A function of flat tensors, whose shapes it knows.
type Formula<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

fn random(name: &str, count: usize, width: f64) -> Vec<f64> {
    let mut rng = streams::stream(3, name);
    (0..count).map(|_| f64::from((width * rng.random_range(-1.0..1.0)) as f32)).collect()
}

fn tensor<const D: usize>(values: Vec<f64>, shape: [usize; D], numbers: &Numbers) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(numbers.dtype), (&numbers.device, numbers.dtype))
}

/// The sum of a value's elements, each times a fixed number.
fn mixed<const D: usize>(value: Tensor<D>, numbers: &Numbers) -> Tensor<1> {
    let (shape, count) = (value.dims(), value.shape().num_elements());
    (value * tensor(random("mixture", count, 1.0), shape, numbers)).sum()
}

/// The value, and the gradient of its mixture for every tracked input: all of them, or one.
fn run(formula: Formula, inputs: &[Vec<f64>], tracked: Option<usize>, numbers: &Numbers) -> Vec<Vec<f64>> {
    let leaves = inputs.iter().enumerate().map(|(at, values)| {
        let plain = tensor(values.clone(), [values.len()], numbers);
        if tracked.is_none_or(|only| only == at) { plain.autodiff().require_grad() } else { plain }
    });
    let leaves: Vec<Tensor<1>> = leaves.collect();
    let value = formula(&leaves);
    let mut graph = mixed(value.clone(), numbers).backward();
    let gradients = leaves.into_iter().filter_map(|leaf| leaf.grad_remove(&mut graph));
    std::iter::once(value.inner()).chain(gradients).map(floats).collect()
}

fn compare(name: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let worst = relative(found, expected);
        println!("{name}, {}: {worst:.1e}", if at == 0 { "value".to_owned() } else { format!("gradient {at}") });
        assert!(worst <= TOLERANCE, "{name}, result {at}: {worst:e}");
    }
}

/// Fails unless the value and the gradients are those of `ndarray`, with all inputs tracked and with each alone.
fn agree(name: &str, formula: Formula, inputs: &[Vec<f64>]) {
    let Some(webgpu) = webgpu() else { return };
    for tracked in std::iter::once(None).chain((0..inputs.len()).map(Some)) {
        let [found, expected] = [&webgpu, &exact()].map(|numbers| run(formula, inputs, tracked, numbers));
        compare(&format!("{name}, tracked {tracked:?}"), &found, &expected);
    }
}

/// Queries, keys, heads, key-value heads, numbers of a head: two blocks of queries.
const SIZES: [usize; 5] = [70, 73, 4, 2, 6];

/// Three rows, of whose keys the first `padding` are none.
fn padded(padding: [usize; 3]) -> AttentionMask {
    let [queries, keys, ..] = SIZES;
    let real: Vec<bool> = padding.iter().flat_map(|&left| (0..keys).map(move |key| key >= left)).collect();
    AttentionMask::causal(&real, queries, keys)
}

fn attention_agrees(name: &str, mask: &AttentionMask, scores: &Scores) {
    let [queries, keys, heads, kv_heads, head_dim] = SIZES;
    let shapes = [[3, queries, heads, head_dim], [3, keys, kv_heads, head_dim], [3, keys, kv_heads, head_dim]];
    let inputs = shapes.map(|shape| random(&format!("{shape:?}"), shape.iter().product(), 1.5));
    let formula = |inputs: &[Tensor<1>]| {
        let [q, k, v] = [0, 1, 2].map(|at| inputs[at].clone().reshape(shapes[at]));
        attention(q, k, v, mask, scores).flatten(0, 3)
    };
    agree(name, &formula, &inputs);
}

#[test]
fn attention_with_grouped_heads_is_the_same() {
    attention_agrees("attention", &padded([0, 0, 0]), &Scores::scaled(6));
}

#[test]
fn attention_with_padding_and_grouped_heads_is_the_same() {
    attention_agrees("padded attention", &padded([0, 9, 30]), &Scores::scaled(6));
}

#[test]
fn attention_with_a_window_bounded_scores_and_linear_biases_is_the_same() {
    let bounded = Scores { soft_cap: Some(1.5), ..Scores::scaled(6) };
    attention_agrees("bounded scores in a window", &padded([0, 9, 30]).within(20), &bounded);
    attention_agrees("linear biases", &padded([0, 9, 30]), &Scores::scaled(6).with_linear_biases(4));
}

#[test]
fn norms_are_the_same() {
    let shaped = |x: &Tensor<1>| x.clone().reshape([2, 7, 40]);
    let inputs = [random("x", 560, 3.0), random("weight", 40, 1.0), random("bias", 40, 1.0)];
    let rms = |inputs: &[Tensor<1>]| rms_norm(shaped(&inputs[0]), inputs[1].clone(), 1e-5).flatten(0, 2);
    agree("RMSNorm", &rms, &inputs[..2]);
    let layer =
        |inputs: &[Tensor<1>]| layer_norm(shaped(&inputs[0]), inputs[1].clone(), inputs[2].clone(), 1e-5).flatten(0, 2);
    agree("LayerNorm", &layer, &inputs);
}

#[test]
fn a_rotation_is_the_same() {
    let frequencies = [1.0, 0.3, 0.1, 0.03];
    let formula = |positions: &[Vec<usize>], pairs, x: &Tensor<1>| {
        let rotation = Rotation::new(&frequencies, positions, x.dtype(), &x.device().inner());
        rotation.with_pairs(pairs).apply(x.clone().reshape([2, 5, 3, 10])).flatten(0, 3)
    };
    let shared = vec![(0..5).collect::<Vec<_>>()];
    let own = vec![(0..5).collect::<Vec<_>>(), (30..35).collect()];
    for (positions, pairs) in [(shared, Pairs::Halves), (own.clone(), Pairs::Halves), (own, Pairs::Neighbours)] {
        agree("rotation", &|inputs| formula(&positions, pairs, &inputs[0]), &[random("x", 300, 2.0)]);
    }
}

#[test]
fn activations_are_the_same_alone_and_as_gates() {
    let shaped = |x: &Tensor<1>| x.clone().reshape([2, 3, 50]);
    // e^400 is not finite in f32.
    for width in [6.0, 400.0] {
        let inputs = [random("x", 300, width), random("up", 300, 2.0)];
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            let alone = |inputs: &[Tensor<1>]| activate(activation, shaped(&inputs[0])).flatten(0, 2);
            agree(&format!("{activation:?} within {width}"), &alone, &inputs[..1]);
            let gate = |inputs: &[Tensor<1>]| gated(activation, shaped(&inputs[0]), shaped(&inputs[1])).flatten(0, 2);
            agree(&format!("gated {activation:?} within {width}"), &gate, &inputs);
        }
    }
}

fn targets(count: usize, vocabulary: usize, like: &Tensor<1>) -> Tensor<1, Int> {
    let ids: Vec<i64> = (0..count).map(|at| ((at * 7 + 3) % vocabulary) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [count]), &like.device().inner())
}

#[test]
fn cross_entropy_is_the_same() {
    let formula = |inputs: &[Tensor<1>]| cross_entropy(inputs[0].clone().reshape([9, 40]), targets(9, 40, &inputs[0]));
    agree("cross-entropy", &formula, &[random("logits", 360, 8.0)]);
}

fn linear_cross_entropy_agrees([rows, hidden, vocabulary]: [usize; 3]) {
    let formula = |inputs: &[Tensor<1>]| {
        let weight = inputs[1].clone().reshape([vocabulary, hidden]).transpose();
        linear_cross_entropy(inputs[0].clone().reshape([rows, hidden]), weight, targets(rows, vocabulary, &inputs[0]))
    };
    let inputs = [random("x", rows * hidden, 2.0), random("weight", vocabulary * hidden, 1.0)];
    agree(&format!("linear cross-entropy, {rows} rows"), &formula, &inputs);
}

#[test]
fn linear_cross_entropy_is_the_same_in_one_chunk_of_rows_and_in_several() {
    linear_cross_entropy_agrees([9, 12, 50]);
    assert!(chunk_rows(8000) < 600, "one chunk would test nothing");
    // Shaders add element by element: longer sums than these are further from the exact ones than the tolerance.
    linear_cross_entropy_agrees([600, 3, 8000]);
}

#[test]
fn bounded_logits_with_a_bias_are_the_same() {
    let formula = |inputs: &[Tensor<1>]| {
        let weight = inputs[1].clone().reshape([50, 12]).transpose();
        let bias = tensor_of("bias", 50, &inputs[0]);
        let head = Head { weight, bias: Some(bias), soft_cap: Some(1.5) };
        linear_cross_entropy(inputs[0].clone().reshape([9, 12]), head, targets(9, 50, &inputs[0]))
    };
    agree("bounded logits", &formula, &[random("x", 108, 2.0), random("weight", 600, 1.0)]);
}

/// A constant of that many numbers on the device and in the type of `like`.
fn tensor_of(name: &str, count: usize, like: &Tensor<1>) -> Tensor<1> {
    let data = TensorData::new(random(name, count, 1.0), [count]).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}

#[test]
fn a_linear_map_is_the_same() {
    let formula = |inputs: &[Tensor<1>]| {
        let weight: Tensor<2> = inputs[1].clone().reshape([36, 24]).transpose();
        linear(inputs[0].clone().reshape([2, 5, 24]), weight).flatten(0, 2)
    };
    agree("linear", &formula, &[random("x", 240, 1.0), random("weight", 864, 1.0)]);
}

/// Value and gradient of a map by the same weight kept as `storage`.
fn run_narrow(numbers: &Numbers, storage: DType) -> Vec<Vec<f64>> {
    let weight = TensorData::new(random("weight", 864, 1.0), [36, 24]);
    let weight = match storage {
        DType::I8 => FrozenMatrix::Int8(Int8Matrix::quantise(&weight, &numbers.device)),
        float => Tensor::<2>::from_data(weight.convert_dtype(float), (&numbers.device, float)).transpose().into(),
    };
    let x = tensor(random("x", 240, 1.0), [2, 5, 24], numbers).autodiff().require_grad();
    let value = linear(x.clone(), weight);
    let mut graph = mixed(value.clone(), numbers).backward();
    vec![floats(value.inner()), floats(x.grad_remove(&mut graph).unwrap())]
}

#[test]
fn a_weight_at_rest_in_a_type_that_the_device_knows_is_read_the_same() {
    let Some(webgpu) = webgpu() else { return };
    // WGSL has f16 as an option, and neither bf16 nor integers of eight bits.
    for storage in [DType::F16, DType::BF16, DType::I8].into_iter().filter(|&it| webgpu.device.supports_dtype(it)) {
        let [found, expected] = [&webgpu, &Numbers::flex()].map(|numbers| run_narrow(numbers, storage));
        compare(&format!("linear, weight in {storage:?}"), &found, &expected);
    }
}

/// Takes the gradients of a module's parameters in order.
struct OfParameters<'a> {
    graph: &'a mut Graph,
    found: Vec<Vec<f64>>,
}

impl ModuleVisitor for OfParameters<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.extend(param.val().grad_remove(self.graph).map(floats));
    }
}

/// A linear module with that method's adapter, from 24 to 36 features.
fn adapted(fields: &Value, numbers: &Numbers) -> PeftLinear<BuiltinAdapter> {
    let config = BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
    let site = Site::linear("model.layers.0.self_attn.q_proj", Some(0), 24, 36).with_bias(true);
    let layout = BuiltinAdapter::file_layout(&config, std::slice::from_ref(&site)).into_iter();
    let values = layout.map(|(key, shape)| {
        let values = random(&key, shape.iter().product(), 0.5);
        TensorData::new(values, shape).convert_dtype(numbers.dtype)
    });
    let weight = Weight::frozen(tensor(random("weight", 864, 1.0), [24, 36], numbers));
    let bias = Weight::frozen(tensor(random("bias", 36, 1.0), [36], numbers));
    let mut module = PeftLinear::new("self_attn.q_proj", weight, Some(bias));
    let place = Place { site, base: Base::Linear(module.base.clone()) };
    module.adapter = BuiltinAdapter::from_file(&config, &[place], values.collect(), &numbers.device).pop();
    module
}

/// Value and gradients of the module, with x tracked and the adapter lifted where asked.
fn run_adapted(fields: &Value, numbers: &Numbers, tracked: bool, trains: bool) -> Vec<Vec<f64>> {
    let module = adapted(fields, numbers);
    let module = if trains { lift(&module) } else { module };
    let x = tensor(random("x", 240, 1.0), [2, 5, 24], numbers);
    let x = if tracked { x.autodiff().require_grad() } else { x };
    let value = module.forward(x.clone(), &LayerPass { response: 0.7, ..LayerPass::training(Some(11)) });
    let mut graph = mixed(value.clone(), numbers).backward();
    let d_x = x.grad_remove(&mut graph).map(floats);
    let mut parameters = OfParameters { graph: &mut graph, found: Vec::new() };
    module.visit(&mut parameters);
    std::iter::once(floats(value.inner())).chain(d_x).chain(parameters.found).collect()
}

#[test]
fn a_linear_module_with_an_adapter_is_the_same() {
    let Some(webgpu) = webgpu() else { return };
    for (fields, parameters) in [
        (json!({"method": "lora", "r": 3, "alpha": 5, "dropout": 0.3}), 2),
        (json!({"method": "dora", "r": 3, "alpha": 5}), 3),
        (json!({"method": "vera", "r": 3}), 2),
        (json!({"method": "full"}), 2),
        (json!({"method": "ia3"}), 1),
        (json!({"method": "parallel", "bottleneck_size": 3}), 2),
    ] {
        for (tracked, trains) in [(true, true), (true, false), (false, true)] {
            let run = |numbers: &Numbers| run_adapted(&fields, numbers, tracked, trains);
            let [found, expected] = [&webgpu, &exact()].map(run);
            assert_eq!(found.len(), 1 + usize::from(tracked) + if trains { parameters } else { 0 }, "{fields}");
            compare(&format!("{fields}, x {tracked}, parameters {trains}"), &found, &expected);
        }
    }
}

/// A step of two of four layers on a padded batch, with LoRA on every module and dropout.
fn step_of_llama(numbers: &Numbers, memory: Memory) -> StepOutput {
    let (model, _) = numbers.lora(&["embed_tokens", "lm_head"], 0.2);
    let chosen = LayerSet::new([1, 3], LAYERS).unwrap();
    step::gradients(&model, &[numbers.batch(&records(5))], &chosen, memory, Some(3))
}

#[test]
fn a_step_of_a_small_llama_has_the_same_loss_and_gradients() {
    let Some(webgpu) = webgpu() else { return };
    for memory in [Memory::Keep, Memory::Recompute] {
        let output = step_of_llama(&webgpu, memory);
        let found = named(&output);
        for numbers in [Numbers::flex(), exact()] {
            let expected = step_of_llama(&numbers, memory);
            assert!((output.loss - expected.loss).abs() <= 1e-6 * expected.loss, "{} {}", output.loss, expected.loss);
            assert!(output.gradients.names().eq(expected.gradients.names()) && found.len() == 2 * (2 * 7 + 2));
            for ((name, found), (_, expected)) in found.iter().zip(named(&expected)) {
                compare(&format!("{memory:?} {name}"), std::slice::from_ref(found), &[expected]);
            }
        }
    }
}
