//! Every operation with a backward pass of its own.

use ist_core::burn::tensor::{Int, Tensor};
use ist_models::ops::activate::activate;
use ist_models::ops::activation::Activation;
use ist_models::ops::cross_entropy::cross_entropy;
use ist_models::ops::gated::gated;
use ist_models::ops::layer_norm::layer_norm;
use ist_models::ops::linear_cross_entropy::{Head, linear_cross_entropy};
use ist_models::ops::rms_norm::rms_norm;
use ist_models::ops::rope::{Pairs, Rotation};
use ist_peft::frozen::{blended, linear, lookup};

use super::numbers::{compare, constant, random, targets};
use super::{Check, attentions};

/// Of the largest element of a value or of a gradient.
const TOLERANCE: f64 = 1e-5;

pub(super) fn check(
    name: &str,
    inputs: Vec<Vec<f64>>,
    formula: impl Fn(&[Tensor<1>]) -> Tensor<1> + 'static,
) -> Check {
    Check::new("operations", name, TOLERANCE, move |device| compare(&formula, &inputs, device))
}

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    [attentions::checks(), norms(), rotations(), activations(), losses(), products()]
        .into_iter()
        .flatten()
        .collect()
}

fn norms() -> Vec<Check> {
    let inputs = vec![random("x", 560, 3.0), random("weight", 40, 1.0), random("bias", 40, 1.0)];
    let shaped = |x: &Tensor<1>| x.clone().reshape([2, 7, 40]);
    vec![
        check("RMSNorm", inputs[..2].to_vec(), move |inputs| {
            rms_norm(shaped(&inputs[0]), inputs[1].clone(), 1e-5).flatten(0, 2)
        }),
        check("LayerNorm", inputs, move |inputs| {
            layer_norm(shaped(&inputs[0]), inputs[1].clone(), inputs[2].clone(), 1e-5).flatten(0, 2)
        }),
    ]
}

fn rotations() -> Vec<Check> {
    let shared = vec![(0..5).collect::<Vec<usize>>()];
    let own = vec![(0..5).collect::<Vec<_>>(), (30..35).collect()];
    let cases = [
        ("rotation", shared, Pairs::Halves),
        ("rotation, positions by row", own.clone(), Pairs::Halves),
        ("rotation of neighbours", own, Pairs::Neighbours),
    ];
    let of = |(name, positions, pairs): (&'static str, Vec<Vec<usize>>, Pairs)| {
        check(name, vec![random("x", 300, 2.0)], move |inputs| {
            let x = &inputs[0];
            let rotation =
                Rotation::new(&[1.0, 0.3, 0.1, 0.03], &positions, x.dtype(), &x.device().inner());
            rotation.with_pairs(pairs).apply(x.clone().reshape([2, 5, 3, 10])).flatten(0, 3)
        })
    };
    cases.into_iter().map(of).collect()
}

fn activations() -> Vec<Check> {
    let shaped = |x: &Tensor<1>| x.clone().reshape([2, 3, 50]);
    let mut checks = Vec::new();
    // e^400 is not finite in f32.
    for width in [6.0, 400.0] {
        let inputs = vec![random("x", 300, width), random("up", 300, 2.0)];
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            let name = format!("{activation:?} within {width}");
            checks.push(check(&name, inputs[..1].to_vec(), move |inputs| {
                activate(activation, shaped(&inputs[0])).flatten(0, 2)
            }));
            checks.push(check(&format!("gated {name}"), inputs.clone(), move |inputs| {
                gated(activation, shaped(&inputs[0]), shaped(&inputs[1])).flatten(0, 2)
            }));
        }
    }
    checks
}

fn losses() -> Vec<Check> {
    let linear_check = |name: &str, [rows, hidden, vocabulary]: [usize; 3]| {
        let inputs =
            vec![random("x", rows * hidden, 2.0), random("weight", vocabulary * hidden, 1.0)];
        check(name, inputs, move |inputs| {
            let weight = inputs[1].clone().reshape([vocabulary, hidden]).transpose();
            let x = inputs[0].clone().reshape([rows, hidden]);
            linear_cross_entropy(x, weight, targets(rows, vocabulary, &inputs[0]))
        })
    };
    vec![
        check("cross-entropy", vec![random("logits", 360, 8.0)], |inputs| {
            cross_entropy(inputs[0].clone().reshape([9, 40]), targets(9, 40, &inputs[0]))
        }),
        linear_check("linear cross-entropy", [9, 12, 50]),
        // Shaders add element by element: longer sums than these are further from the exact ones
        // than the tolerance.
        linear_check("linear cross-entropy, several chunks", [600, 3, 8000]),
        check(
            "linear cross-entropy, bounded logits",
            vec![random("x", 108, 2.0), random("w", 600, 1.0)],
            |inputs| {
                let weight = inputs[1].clone().reshape([50, 12]).transpose();
                let head = Head {
                    weight,
                    bias: Some(constant("bias", 50, &inputs[0])),
                    soft_cap: Some(1.5),
                };
                linear_cross_entropy(
                    inputs[0].clone().reshape([9, 12]),
                    head,
                    targets(9, 50, &inputs[0]),
                )
            },
        ),
    ]
}

fn products() -> Vec<Check> {
    vec![
        check("linear", vec![random("x", 240, 1.0), random("weight", 864, 1.0)], |inputs| {
            let weight: Tensor<2> = inputs[1].clone().reshape([36, 24]).transpose();
            linear(inputs[0].clone().reshape([2, 5, 24]), weight).flatten(0, 2)
        }),
        check("lookup", vec![random("table", 240, 1.0)], |inputs| {
            let ids: Tensor<2, Int> = targets(10, 24, &inputs[0]).reshape([2, 5]);
            lookup(inputs[0].clone().reshape([24, 10]), ids).flatten(0, 2)
        }),
        check("blended", vec![random("x", 240, 1.0), random("master", 864, 1.0)], |inputs| {
            let frozen: Tensor<2> = constant("frozen", 864, &inputs[0]).reshape([24, 36]);
            let master = inputs[1].clone().reshape([24, 36]);
            blended(inputs[0].clone().reshape([2, 5, 24]), frozen, master, 0.7).flatten(0, 2)
        }),
    ]
}
