//! Every operation with a backward pass of its own against the formula that burn differentiates by
//! itself.
//!
//! In f64 on `ndarray` the generic form must agree to rounding; in f32 on `flex`, where the fast
//! form runs, with the same formula in f64. (The formulas multiply where they could divide by a
//! number: burn's derivative of that division rounds the number to f32.)

use ist_core::{burn, streams};

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use ist_models::ops::activate::activate;
use ist_models::ops::activation::Activation;
use ist_models::ops::attention::{AttentionMask, Scores, attention};
use ist_models::ops::cross_entropy::cross_entropy;
use ist_models::ops::gated::gated;
use ist_models::ops::layer_norm::layer_norm;
use ist_models::ops::linear_cross_entropy::{Head, chunk_rows, linear_cross_entropy};
use ist_models::ops::rms_norm::rms_norm;
use ist_models::ops::rope::{Pairs, Rotation};
use ist_peft::frozen::{blended, linear, lookup};
use proptest::prelude::*;
use rand::RngExt;

/// A function of flat tensors, whose shapes it knows.
type Formula<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

#[expect(deprecated, reason = "a separate implementation to check the others against")]
fn ndarray() -> Device {
    Device::ndarray()
}

fn random(seed: u64, name: &str, count: usize, width: f64) -> Vec<f64> {
    let mut rng = streams::stream(seed, name);
    (0..count).map(|_| f64::from((width * rng.random_range(-1.0..1.0)) as f32)).collect()
}

fn tensor<const D: usize>(
    values: Vec<f64>,
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

fn floats(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The value, and the gradient of its product with fixed numbers for every input: all inputs
/// tracked, or one.
fn run(
    formula: Formula,
    inputs: &[Vec<f64>],
    tracked: Option<usize>,
    device: &Device,
    dtype: DType,
) -> Vec<Vec<f64>> {
    let leaves = inputs.iter().enumerate().map(|(at, values)| {
        let plain = tensor(values.clone(), [values.len()], device, dtype);
        if tracked.is_none_or(|only| only == at) { plain.autodiff().require_grad() } else { plain }
    });
    let leaves: Vec<Tensor<1>> = leaves.collect();
    let value = formula(&leaves);
    let weights = tensor(random(9, "weights", value.dims()[0], 1.0), value.dims(), device, dtype);
    let mut graph = (value.clone() * weights).sum().backward();
    let mut found = vec![floats(value.inner())];
    found.extend(leaves.into_iter().filter_map(|leaf| leaf.grad_remove(&mut graph)).map(floats));
    found
}

fn distance(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let of = |(found, expected): (&Vec<f64>, &Vec<f64>)| {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1e-30f64, |most, value| most.max(value.abs()));
        let pairs = found.iter().zip(expected);
        pairs
            .map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f64::INFINITY })
            .fold(0.0, f64::max)
            / largest
    };
    found.iter().zip(expected).map(of).fold(0.0, f64::max)
}

/// Fails unless both forms of `own` give the value and the gradients of `composed`, with all inputs
/// tracked and with each alone.
fn agree(name: &str, own: Formula, composed: Formula, inputs: &[Vec<f64>], differentiable: usize) {
    for tracked in std::iter::once(None).chain((0..differentiable).map(Some)) {
        let expected = run(composed, inputs, tracked, &ndarray(), DType::F64);
        let exact = distance(&run(own, inputs, tracked, &ndarray(), DType::F64), &expected);
        assert!(exact < 1e-11, "{name}, generic form, tracked {tracked:?}: {exact:e}");
        let single = distance(&run(own, inputs, tracked, &Device::flex(), DType::F32), &expected);
        assert!(single < 5e-6, "{name}, form for flex, tracked {tracked:?}: {single:e}");
    }
}

fn composed_attention([q, k, v]: [Tensor<4>; 3], mask: &AttentionMask, of: &Scores) -> Tensor<4> {
    let [batch, queries, heads, head_dim] = q.dims();
    let [_, keys, kv_heads, _] = k.dims();
    let repeat = |x: Tensor<4>| {
        let x = x.unsqueeze_dim::<5>(3).repeat_dim(3, heads / kv_heads);
        x.reshape([batch, keys, heads, head_dim]).swap_dims(1, 2)
    };
    let sees = (0..batch).flat_map(|row| {
        (0..queries).flat_map(move |query| (0..keys).map(move |key| (row, query, key)))
    });
    let bias =
        sees.map(|(row, query, key)| if mask.sees(row, query, key) { 0.0 } else { -1e9 }).collect();
    let bias = tensor(bias, [batch, 1, queries, keys], &q.device().inner(), q.dtype());
    let mut scores = q.swap_dims(1, 2).matmul(repeat(k).transpose()).mul_scalar(of.scale);
    if let Some(cap) = of.soft_cap {
        scores = scores.mul_scalar(1.0 / cap).tanh().mul_scalar(cap);
    }
    if !of.slopes.is_empty() {
        let place = |row: usize| mask.positions(row).into_iter().map(|at| at as f64);
        let slopes = |row| {
            of.slopes.iter().flat_map(move |slope| place(row).map(move |at| at * f64::from(*slope)))
        };
        let biases = (0..batch).flat_map(slopes).collect();
        scores = scores + tensor(biases, [batch, heads, 1, keys], &v.device().inner(), v.dtype());
    }
    activation::softmax(scores + bias, 3).matmul(repeat(v)).swap_dims(1, 2)
}

fn attention_agrees(
    seed: u64,
    sizes: [usize; 6],
    padding: &[usize],
    window: Option<usize>,
    scores: &Scores,
) {
    let [batch, queries, keys, kv_heads, group, head_dim] = sizes;
    let mask: Vec<bool> =
        (0..batch).flat_map(|row| (0..keys).map(move |key| key >= padding[row])).collect();
    let mask = AttentionMask::causal(&mask, queries, keys);
    let mask = window.map_or(mask.clone(), |window| mask.within(window));
    let shapes = [[batch, queries, kv_heads * group, head_dim], [batch, keys, kv_heads, head_dim]];
    let shapes = [shapes[0], shapes[1], shapes[1]];
    let shaped = |inputs: &[Tensor<1>]| [0, 1, 2].map(|at| inputs[at].clone().reshape(shapes[at]));
    let inputs: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(at, shape)| random(seed, &format!("{at}"), shape.iter().product(), 1.5))
        .collect();
    agree(
        "attention",
        &|inputs| {
            let [q, k, v] = shaped(inputs);
            attention(q, k, v, &mask, scores).flatten(0, 3)
        },
        &|inputs| composed_attention(shaped(inputs), &mask, scores).flatten(0, 3),
        &inputs,
        3,
    );
}

fn composed_activation(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Silu => x.clone() / x.neg().exp().add_scalar(1.0),
        Activation::Gelu => {
            x.clone() * x.mul_scalar(1.0 / 2f64.sqrt()).erf().add_scalar(1.0).mul_scalar(0.5)
        }
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone().powi_scalar(3).mul_scalar(0.044_715))
                .mul_scalar((2.0 / std::f64::consts::PI).sqrt());
            x * inner.tanh().add_scalar(1.0).mul_scalar(0.5)
        }
    }
}

fn composed_losses(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    activation::log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1).neg()
}

fn targets(count: usize, vocabulary: usize, like: &Tensor<1>) -> Tensor<1, Int> {
    let ids: Vec<i64> = (0..count).map(|at| ((at * 7 + 3) % vocabulary) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [count]), &like.device().inner())
}

fn losses_agree(seed: u64, [rows, hidden, vocabulary]: [usize; 3]) {
    let shaped = |inputs: &[Tensor<1>]| {
        let (x, weight) = (
            inputs[0].clone().reshape([rows, hidden]),
            inputs[1].clone().reshape([vocabulary, hidden]),
        );
        (x, weight.transpose(), targets(rows, vocabulary, &inputs[0]))
    };
    agree(
        "linear cross-entropy",
        &|inputs| {
            let (x, weight, targets) = shaped(inputs);
            linear_cross_entropy(x, weight, targets)
        },
        &|inputs| {
            let (x, weight, targets) = shaped(inputs);
            composed_losses(x.matmul(weight), targets)
        },
        &[random(seed, "x", rows * hidden, 2.0), random(seed, "weight", vocabulary * hidden, 1.0)],
        2,
    );
    // With a bias, which is constant, and bounded.
    let bias = |like: &Tensor<1>| {
        tensor(
            random(seed, "bias", vocabulary, 1.0),
            [vocabulary],
            &like.device().inner(),
            like.dtype(),
        )
    };
    agree(
        "linear cross-entropy of bounded logits",
        &|inputs| {
            let (x, weight, targets) = shaped(inputs);
            linear_cross_entropy(
                x,
                Head { weight, bias: Some(bias(&inputs[0])), soft_cap: Some(1.5) },
                targets,
            )
        },
        &|inputs| {
            let (x, weight, targets) = shaped(inputs);
            let logits = x.matmul(weight) + bias(&inputs[0]).unsqueeze();
            composed_losses(logits.mul_scalar(1.0 / 1.5).tanh().mul_scalar(1.5), targets)
        },
        &[random(seed, "x", rows * hidden, 2.0), random(seed, "weight", vocabulary * hidden, 1.0)],
        2,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn attention_has_the_values_and_gradients_of_its_formula(
        seed in 0u64..1000, batch in 1usize..3, queries in 1usize..140, earlier in 0usize..20,
        kv_heads in 1usize..3, group in 1usize..3, half in 1usize..5, padding in prop::collection::vec(0usize..30, 2),
        window in 1usize..100,
    ) {
        let keys = queries + earlier;
        let padding: Vec<usize> = padding.into_iter().map(|left| left.min(keys)).collect();
        let sizes = [batch, queries, keys, kv_heads, group, 2 * half];
        let plain = Scores::scaled(2 * half);
        attention_agrees(seed, sizes, &padding, None, &plain);
        attention_agrees(seed, sizes, &padding, Some(window), &Scores { soft_cap: Some(1.5), ..plain.clone() });
        attention_agrees(seed, sizes, &padding, None, &plain.with_linear_biases(kv_heads * group));
    }

    #[test]
    fn norms_have_the_values_and_gradients_of_their_formulas(
        seed in 0u64..1000,
        rows in 1usize..9,
        width in 8usize..150,
    ) {
        let shaped = |x: &Tensor<1>| x.clone().reshape([1, rows, width]);
        let inputs = [random(seed, "x", rows * width, 3.0), random(seed, "w", width, 1.0), random(seed, "b", width, 1.0)];
        agree(
            "RMSNorm",
            &|inputs| rms_norm(shaped(&inputs[0]), inputs[1].clone(), 1e-5).flatten(0, 2),
            &|inputs| {
                let x = shaped(&inputs[0]);
                let root = x.clone().square().mean_dim(2).add_scalar(1e-5).sqrt();
                (x / root * inputs[1].clone().unsqueeze()).flatten(0, 2)
            },
            &inputs[..2],
            2,
        );
        agree(
            "LayerNorm",
            &|inputs| layer_norm(shaped(&inputs[0]), inputs[1].clone(), inputs[2].clone(), 1e-5).flatten(0, 2),
            &|inputs| {
                let x = shaped(&inputs[0]);
                let centred = x.clone() - x.mean_dim(2);
                let root = centred.clone().square().mean_dim(2).add_scalar(1e-5).sqrt();
                (centred / root * inputs[1].clone().unsqueeze() + inputs[2].clone().unsqueeze()).flatten(0, 2)
            },
            &inputs,
            3,
        );
    }

    #[test]
    fn a_rotation_has_the_values_and_gradients_of_its_formula(
        seed in 0u64..1000, rows in 1usize..3, sequence in 1usize..80, heads in 1usize..4, half in 1usize..9, own in any::<bool>(),
    ) {
        let shape = [rows, sequence, heads, 2 * half];
        let frequencies: Vec<f64> = (0..half).map(|i| 100f64.powf(-(i as f64) / half as f64)).collect();
        let positions = |row: usize| (0..sequence).map(|t| t + row * 3).collect::<Vec<_>>();
        let positions: Vec<_> = (0..if own { rows } else { 1 }).map(positions).collect();
        let rotation = |x: &Tensor<1>| Rotation::new(&frequencies, &positions, x.dtype(), &x.device().inner());
        agree(
            "rotation",
            &|inputs| rotation(&inputs[0]).apply(inputs[0].clone().reshape(shape)).flatten(0, 3),
            &|inputs| {
                let x: Tensor<4> = inputs[0].clone().reshape(shape);
                let angles = positions.iter().flatten().flat_map(|&p| frequencies.iter().map(move |f| p as f64 * f));
                let angles: Vec<f64> = angles.collect();
                let table = |function: fn(f64) -> f64| {
                    let half_table = tensor(angles.iter().copied().map(function).collect(), [positions.len(), sequence, 1, half], &x.device().inner(), x.dtype());
                    Tensor::cat(vec![half_table.clone(), half_table], 3)
                };
                let turned = Tensor::cat(vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)], 3);
                (x.clone() * table(f64::cos) + turned * table(f64::sin)).flatten(0, 3)
            },
            &[random(seed, "x", shape.iter().product(), 2.0)],
            1,
        );
        // Neighbours are halves in another order, and what is not turned stays.
        let wide = [rows, sequence, heads, 2 * half + 3];
        let order: Vec<i64> = (0..2).flat_map(|side| (0..half as i64).map(move |pair| 2 * pair + side)).collect();
        agree(
            "rotation of neighbours",
            &|inputs| {
                let turned = rotation(&inputs[0]).with_pairs(Pairs::Neighbours).times(1.25);
                turned.apply(inputs[0].clone().reshape(wide)).flatten(0, 3)
            },
            &|inputs| {
                let x: Tensor<4> = inputs[0].clone().reshape(wide);
                let ids = |order: Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(order.clone(), [order.len()]), &x.device().inner());
                let halves = x.clone().narrow(3, 0, 2 * half).select(3, ids(order.clone()));
                let turned = rotation(&inputs[0]).apply(halves).mul_scalar(1.25);
                let back = (0..2 * half as i64).map(|at| order.iter().position(|from| *from == at).unwrap_or(0) as i64).collect();
                Tensor::cat(vec![turned.select(3, ids(back)), x.clone().narrow(3, 2 * half, 3)], 3).flatten(0, 3)
            },
            &[random(seed, "x", wide.iter().product(), 2.0)],
            1,
        );
    }

    #[test]
    fn activations_have_the_values_and_gradients_of_their_formulas(
        seed in 0u64..1000,
        rows in 1usize..5,
        width in 1usize..1300,
    ) {
        let shaped = |x: &Tensor<1>| x.clone().reshape([1, rows, width]);
        let inputs = [random(seed, "gate", rows * width, 6.0), random(seed, "up", rows * width, 2.0)];
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            agree(
                &format!("gated {activation:?}"),
                &|inputs| gated(activation, shaped(&inputs[0]), shaped(&inputs[1])).flatten(0, 2),
                &|inputs| (composed_activation(activation, shaped(&inputs[0])) * shaped(&inputs[1])).flatten(0, 2),
                &inputs,
                2,
            );
            agree(
                &format!("{activation:?}"),
                &|inputs| activate(activation, shaped(&inputs[0])).flatten(0, 2),
                &|inputs| composed_activation(activation, shaped(&inputs[0])).flatten(0, 2),
                &inputs[..1],
                1,
            );
        }
    }

    #[test]
    fn losses_have_the_values_and_gradients_of_their_formula(
        // Of few rows and tokens all could be near certain: their losses, and what is left of them
        // in f32, are rounding.
        seed in 0u64..1000, rows in 8usize..40, hidden in 1usize..20, vocabulary in 20usize..200,
    ) {
        losses_agree(seed, [rows, hidden, vocabulary]);
        agree(
            "cross-entropy",
            &|inputs| cross_entropy(inputs[0].clone().reshape([rows, vocabulary]), targets(rows, vocabulary, &inputs[0])),
            &|inputs| composed_losses(inputs[0].clone().reshape([rows, vocabulary]), targets(rows, vocabulary, &inputs[0])),
            &[random(seed, "logits", rows * vocabulary, 8.0)],
            1,
        );
    }

    #[test]
    fn a_linear_map_has_the_values_and_gradients_of_its_formula(
        seed in 0u64..1000,
        rows in 1usize..9,
        d_in in 1usize..40,
        d_out in 1usize..40,
    ) {
        let shaped = |inputs: &[Tensor<1>]| (inputs[0].clone().reshape([1, rows, d_in]), inputs[1].clone().reshape([d_out, d_in]).transpose());
        agree(
            "linear",
            &|inputs| {
                let (x, weight) = shaped(inputs);
                linear(x, weight).flatten(0, 2)
            },
            &|inputs| {
                let (x, weight): (Tensor<3>, Tensor<2>) = shaped(inputs);
                x.squeeze_dim::<2>(0).matmul(weight).flatten(0, 1)
            },
            &[random(seed, "x", rows * d_in, 1.0), random(seed, "w", d_in * d_out, 1.0)],
            2,
        );
    }

    #[test]
    fn a_lookup_has_the_values_and_gradients_of_its_formula(
        seed in 0u64..1000,
        rows in 1usize..30,
        hidden in 1usize..9,
        vocabulary in 2usize..20,
    ) {
        let one_hot = |like: &Tensor<1>| {
            let ids = targets(rows, vocabulary, like).into_data().iter::<i64>().collect::<Vec<_>>();
            let hot = ids.iter().flat_map(|&id| (0..vocabulary).map(move |at| f64::from(u8::from(at as i64 == id))));
            tensor::<2>(hot.collect(), [rows, vocabulary], &like.device().inner(), like.dtype())
        };
        agree(
            "lookup",
            &|inputs| lookup(inputs[0].clone().reshape([vocabulary, hidden]), targets(rows, vocabulary, &inputs[0]).unsqueeze()).flatten(0, 2),
            &|inputs| one_hot(&inputs[0]).matmul(inputs[0].clone().reshape([vocabulary, hidden])).flatten(0, 1),
            &[random(seed, "table", vocabulary * hidden, 1.0)],
            1,
        );
    }

    #[test]
    fn a_map_between_two_weights_has_the_values_and_gradients_of_its_formula(
        seed in 0u64..1000, rows in 1usize..9, d_in in 1usize..40, d_out in 1usize..40, f in 0.1f64..0.9,
    ) {
        let frozen = |like: &Tensor<1>| {
            let frozen = random(seed, "w0", d_in * d_out, 1.0);
            tensor::<2>(frozen, [d_out, d_in], &like.device().inner(), like.dtype()).transpose()
        };
        let shaped = |inputs: &[Tensor<1>]| (inputs[0].clone().reshape([1, rows, d_in]), inputs[1].clone().reshape([d_in, d_out]));
        agree(
            "blended",
            &|inputs| {
                let (x, weight) = shaped(inputs);
                blended(x, frozen(&inputs[0]), weight, f).flatten(0, 2)
            },
            &|inputs| {
                let (x, weight): (Tensor<3>, Tensor<2>) = shaped(inputs);
                let weight = weight.mul_scalar(f) + frozen(&inputs[0]).mul_scalar(1.0 - f);
                x.squeeze_dim::<2>(0).matmul(weight).flatten(0, 1)
            },
            &[random(seed, "x", rows * d_in, 1.0), random(seed, "w", d_in * d_out, 1.0)],
            2,
        );
    }
}

#[test]
fn losses_over_several_chunks_of_rows_have_the_gradients_of_their_formula() {
    let vocabulary = 70_000;
    assert!(chunk_rows(vocabulary) < 100, "one chunk would test nothing");
    losses_agree(1, [100, 3, vocabulary]);
}

#[test]
fn what_is_masked_has_no_weight_even_when_its_score_is_the_largest() {
    let device = Device::flex();
    let mask = AttentionMask::causal(&[true; 2], 2, 2);
    let q = tensor(vec![50.0, 50.0], [1, 2, 1, 1], &device, DType::F32);
    let k = tensor(vec![-50.0, 50.0], [1, 2, 1, 1], &device, DType::F32);
    let v = tensor(vec![1.0, 7.0], [1, 2, 1, 1], &device, DType::F32);
    assert_eq!(
        attention(q, k, v, &mask, &Scores::scaled(1)).into_data().try_to_vec::<f32>().unwrap(),
        [1.0, 7.0]
    );
}
