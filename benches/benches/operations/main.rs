//! Each operation with a backward pass of its own against the same formula composed of burn's
//! functions under its automatic differentiation: time forward and backward, bytes kept between the
//! two, and the most bytes above the inputs.
//!
//! Before anything is timed, the two have to agree.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

mod composed;

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times, peak_above};
use ist_benches::table::Table;
use ist_benches::{RANK, Shape, shape};
use ist_core::LayerPass;
use ist_core::burn::tensor::{DType, Device, Distribution, Int, Tensor};
use ist_core::gradients::{for_each_parameter, lift, map_parameters};
use ist_experiments::machine::live_bytes;
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::ops::activation::Activation;
use ist_models::ops::attention::{AttentionMask, Scores, attention};
use ist_models::ops::cross_entropy::cross_entropy;
use ist_models::ops::gated::gated;
use ist_models::ops::linear_cross_entropy::linear_cross_entropy;
use ist_models::ops::rms_norm::rms_norm;
use ist_models::ops::rope::Rotation;
use ist_peft::frozen::linear;
use ist_peft::{Adapter, Base, BuiltinAdapter, Dialect, PeftLinear, Place, Site, Weight};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A forward pass whose inputs are leaves of a new graph; the result is flattened.
type Run = Box<dyn Fn() -> Tensor<1>>;

/// The result from [x, x with dropout], W, [A, B] and, where a method has them, magnitudes; s = 2.
type Formula = fn([Tensor<3>; 2], Tensor<2>, [Tensor<2>; 2], Option<Tensor<1>>) -> Tensor<3>;

/// One operation and its composed form, on the same inputs.
struct Case {
    name: &'static str,
    own: Run,
    composed: Run,
}

impl Case {
    fn new<const D: usize, const E: usize>(
        name: &'static str,
        own: impl Fn() -> Tensor<D> + 'static,
        composed: impl Fn() -> Tensor<E> + 'static,
    ) -> Self {
        Self {
            name,
            own: Box::new(move || flat(own())),
            composed: Box::new(move || flat(composed())),
        }
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

/// A leaf that shares the tensor's memory.
fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().autodiff().require_grad()
}

/// Random inputs of a shape.
struct Inputs {
    shape: Shape,
    device: Device,
}

impl Inputs {
    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &self.device)
    }

    /// `[batch, sequence, width]`.
    fn hidden(&self, width: usize) -> Tensor<3> {
        self.random([self.shape.rows, self.shape.sequence, width])
    }

    /// `[batch, sequence, heads, head_dim]`.
    fn heads(&self) -> Tensor<4> {
        let Shape { rows, sequence, heads, hidden, .. } = self.shape;
        self.random([rows, sequence, heads, hidden / heads])
    }

    /// A weight as files hold it, `[out, in]`, read as `[in, out]`.
    fn weight(&self, d_in: usize, d_out: usize) -> Tensor<2> {
        self.random([d_out, d_in]).transpose()
    }

    fn targets(&self) -> Tensor<1, Int> {
        Tensor::arange(0..self.shape.tokens() as i64, &self.device)
            .remainder_scalar(self.shape.vocabulary as i64)
    }

    fn rms_norm(&self) -> Case {
        let (x, weight) = (self.hidden(self.shape.hidden), self.random([self.shape.hidden]));
        let (again, same) = (x.clone(), weight.clone());
        let own = move || rms_norm(leaf(&x), weight.clone(), 1e-6);
        Case::new("RMSNorm", own, move || composed::rms_norm(leaf(&again), same.clone(), 1e-6))
    }

    fn rotation(&self) -> Case {
        let (x, head_dim) = (self.heads(), self.shape.hidden / self.shape.heads);
        let frequencies: Vec<f64> =
            (0..head_dim / 2).map(|at| 1e4f64.powf(-2.0 * at as f64 / head_dim as f64)).collect();
        let positions = vec![(0..self.shape.sequence).collect()];
        let rotation = Rotation::new(&frequencies, &positions, DType::F32, &self.device);
        let positions =
            Tensor::<1, Int>::arange(0..self.shape.sequence as i64, &self.device).float();
        let frequencies = Tensor::<1>::from_data(
            [frequencies.clone(), frequencies].concat().as_slice(),
            &self.device,
        );
        let angles = positions.unsqueeze_dim::<2>(1) * frequencies.unsqueeze::<2>();
        let [cos, sin] = [angles.clone().cos(), angles.sin()]
            .map(|table| table.reshape([1, -1, 1, head_dim as i32]));
        let again = x.clone();
        let own = move || rotation.apply(leaf(&x));
        Case::new("RoPE", own, move || composed::rotate(leaf(&again), cos.clone(), sin.clone()))
    }

    fn attention(&self) -> Case {
        let Shape { rows, sequence, .. } = self.shape;
        let inputs = [self.heads(), self.heads(), self.heads()];
        let width = self.shape.hidden / self.shape.heads;
        let mask = AttentionMask::causal(&vec![true; rows * sequence], sequence, sequence);
        let hidden = Tensor::<2>::ones([sequence, sequence], &self.device).triu(1).mul_scalar(-6e4);
        let bias: Tensor<4> = hidden.unsqueeze();
        let again = inputs.clone();
        let own = move || {
            let [q, k, v] = inputs.each_ref().map(leaf);
            attention(q, k, v, &mask, &Scores::scaled(width))
        };
        let composed = move || {
            let [q, k, v] = again.each_ref().map(leaf);
            composed::attention(q, k, v, bias.clone())
        };
        Case::new("attention", own, composed)
    }

    fn gated(
        &self,
        name: &'static str,
        activation: Activation,
        composed: fn(Tensor<3>, Tensor<3>) -> Tensor<3>,
    ) -> Case {
        let (gate, up) =
            (self.hidden(self.shape.intermediate), self.hidden(self.shape.intermediate));
        let again = [gate.clone(), up.clone()];
        let own = move || gated(activation, leaf(&gate), leaf(&up));
        Case::new(name, own, move || composed(leaf(&again[0]), leaf(&again[1])))
    }

    fn frozen_linear(&self, name: &'static str, storage: DType) -> Case {
        let Shape { hidden, intermediate, .. } = self.shape;
        let (x, weight) = (self.hidden(hidden), self.weight(hidden, intermediate).cast(storage));
        let (again, same) = (x.clone(), weight.clone());
        let own = move || linear(leaf(&x), weight.clone());
        Case::new(name, own, move || leaf(&again).matmul(same.clone().cast(DType::F32).unsqueeze()))
    }

    /// A method of LoRA's family on one module, and its formula of x, W and the parameters with the
    /// dropout's seed.
    fn low_rank(&self, name: &'static str, method: &str, dropout: f64, formula: Formula) -> Case {
        let Shape { hidden, intermediate, .. } = self.shape;
        let (x, weight) = (self.hidden(hidden), self.weight(hidden, intermediate));
        let fields = json!({"method": method, "r": RANK, "alpha": 2 * RANK, "dropout": dropout});
        let config = BuiltinAdapter::parse(fields.as_object().expect("an object"), Dialect::Toml);
        let config = config.expect("the method is built in").expect("the fields are valid");
        let site = Site::linear("up_proj", Some(0), hidden, intermediate);
        let mut linear = PeftLinear::new("up_proj", Weight::frozen(weight.clone()), None);
        let place = Place { site, base: Base::Linear(linear.base.clone()) };
        linear.adapter =
            BuiltinAdapter::init_all(&config.settings, &[place], 0, &self.device).pop();
        let linear = map_parameters("", linear, &mut |_, value| Some(self.random(value.dims())));
        let mut parameters = Vec::new();
        for_each_parameter("", &linear, &mut |_, value| parameters.push(value));
        let pass = LayerPass::training((dropout > 0.0).then_some(7));
        let (again, seed) = (x.clone(), pass.dropout_of("up_proj"));
        let own = move || lift(&linear).forward(leaf(&x), &pass);
        let composed = move || {
            let x = leaf(&again);
            let dropped = ist_peft::frozen::dropout(x.clone(), dropout, seed);
            let leaves: Vec<_> = parameters.iter().map(leaf).collect();
            let factors = [
                leaves[0].clone().reshape([hidden, RANK]),
                leaves[1].clone().reshape([RANK, intermediate]),
            ];
            formula([x, dropped], weight.clone(), factors, leaves.get(2).cloned())
        };
        Case::new(name, own, composed)
    }

    fn cross_entropy(&self) -> Case {
        let (logits, targets) =
            (self.random([self.shape.tokens(), self.shape.vocabulary]), self.targets());
        let (again, same) = (logits.clone(), targets.clone());
        let own = move || cross_entropy(leaf(&logits), targets.clone());
        Case::new("cross-entropy", own, move || composed::cross_entropy(leaf(&again), same.clone()))
    }

    fn head(&self) -> Case {
        let Shape { hidden, vocabulary, .. } = self.shape;
        let (x, weight) =
            (self.random([self.shape.tokens(), hidden]), self.weight(hidden, vocabulary));
        let (targets, again, same) = (self.targets(), x.clone(), weight.clone());
        let alike = targets.clone();
        let own = move || linear_cross_entropy(leaf(&x), weight.clone(), targets.clone());
        let composed =
            move || composed::cross_entropy(leaf(&again).matmul(same.clone()), alike.clone());
        Case::new("head and cross-entropy", own, composed)
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            self.rms_norm(),
            self.rotation(),
            self.attention(),
            self.gated("SwiGLU", Activation::Silu, composed::swiglu),
            self.gated("GeGLU", Activation::Gelu, composed::geglu),
            self.frozen_linear("frozen linear", DType::F32),
            self.frozen_linear("frozen linear in bf16", DType::BF16),
            self.low_rank("linear with LoRA", "lora", 0.0, composed::lora),
            self.low_rank("linear with LoRA, dropout", "lora", 0.1, composed::lora),
            self.low_rank("linear with DoRA", "dora", 0.0, composed::dora),
            self.low_rank("linear with DoRA, dropout", "dora", 0.1, composed::dora),
            self.cross_entropy(),
            self.head(),
        ]
    }
}

/// Panics when the two forms are not the same function.
fn agree(case: &Case) {
    let [own, composed] = [&case.own, &case.composed].map(|run| run().inner());
    let largest = composed.clone().abs().max().into_scalar::<f32>();
    let difference = (own - composed).abs().max().into_scalar::<f32>();
    assert!(
        difference <= 1e-3 * largest,
        "{}: they differ by {difference} of {largest}",
        case.name
    );
}

/// MiB above the inputs: what is kept for the backward pass, the result included, and the most at
/// any time.
fn bytes(run: &Run) -> [f64; 2] {
    let before = live_bytes::live();
    let (kept, peak) = peak_above(|| {
        let result = run();
        let kept = live_bytes::live().saturating_sub(before);
        drop(result.backward());
        kept
    });
    [kept as f64 / MIB, peak as f64 / MIB]
}

fn operations(criterion: &mut Criterion) {
    let head = [
        "operation",
        "own, ms",
        "composed, ms",
        "ratio",
        "own keeps, MiB",
        "composed keeps",
        "own peak",
        "composed peak",
    ];
    let mut table = Table::new(&head);
    for case in (Inputs { shape: shape(), device: Device::flex() }).cases() {
        agree(&case);
        let [own, composed] =
            [("own", &case.own), ("composed", &case.composed)].map(|(form, run)| {
                let times = Times::default();
                criterion.bench_function(&format!("operations/{}/{form}", case.name), |bencher| {
                    bencher.iter_custom(|count| times.run(count, || run().backward()));
                });
                times.median()
            });
        let Some((own, composed)) = own.zip(composed) else { continue };
        let [[own_keeps, own_peak], [composed_keeps, composed_peak]] =
            [bytes(&case.own), bytes(&case.composed)];
        let figures =
            [own, composed, own / composed, own_keeps, composed_keeps, own_peak, composed_peak];
        table.row(
            [case.name.to_owned()].into_iter().chain(figures.map(|figure| format!("{figure:.2}"))),
        );
    }
    println!("\n{table}");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = operations
}
criterion_main!(benches);
