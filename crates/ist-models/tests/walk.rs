//! The layer walk on a tiny LLaMA: the gradients are those of one graph, and what rests does not
//! move.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use common::{LAYERS, Model, Numbers, VOCABULARY, floats, named, padded, records, relative};
use ist_core::burn::module::{Module, ModuleVisitor, Param};
use ist_core::burn::tensor::{DType, Device, Gradients as Graph, Tensor, TensorData};
use ist_core::gradients::{self, OUTER, layer_of, layer_prefix, lift};
use ist_core::optimizer::{AdamWSettings, RestingState};
use ist_core::plan::{self, Draw, KeptCost, LayerCost, LayerFootprint};
use ist_core::policy::{Fixed, Registry};
use ist_core::step::{self, LayerTreatment, Memory, StepOutput};
use ist_core::tuner::{StepReport, TunerState};
use ist_core::{
    Footprint, Gradients, Half, LayerPass, LayerPolicy, LayerSet, LayeredModel, Responses, Tuner,
    TunerConfig, TunerError, burn, streams,
};
use ist_models::{Example, TokenBatch};
use ist_peft::{Adapters, BuiltinAdapter};
use proptest::prelude::*;
use serde_json::json;

const OUTSIDE: [&str; 2] = ["embed_tokens", "lm_head"];
const EXACT: f64 = 1e-11;
const SINGLE: f64 = 1e-5;

/// Reads every parameter's gradient out of one graph.
struct OneGraph {
    path: Vec<String>,
    graph: Graph,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for OneGraph {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(&self.graph) {
            self.found.insert(self.path.join("."), floats(gradient));
        }
    }
}

/// Loss and gradients with every module lifted, everything in one graph and one backward pass over
/// all micro-batches.
fn one_graph(
    model: &Model,
    batches: &[TokenBatch],
    dropout: Option<u64>,
) -> (f64, BTreeMap<String, Vec<f64>>) {
    let (outer, layers) =
        (lift(model.outer()), model.layers().iter().map(lift).collect::<Vec<_>>());
    let pass = LayerPass::training;
    let losses = batches.iter().enumerate().map(|(number, batch)| {
        let seed = dropout.map(|seed| streams::mix(seed, number as u64));
        let (context, embedded) = (model.context(batch), model.embed(&outer, batch, &pass(seed)));
        let x = layers.iter().enumerate().fold(embedded, |x, (index, layer)| {
            let seed = seed.map(|seed| streams::mix(seed, 1 + index as u64));
            model.layer(layer, x, &context, &pass(seed))
        });
        model.loss(&outer, x, batch, &pass(seed))
    });
    let tokens: usize = batches.iter().map(TokenBatch::predicted_tokens).sum();
    let mean = losses.reduce(|a, b| a + b).unwrap().mul_scalar(1.0 / tokens as f64);
    let loss = gradients::scalar(mean.clone().inner());
    let mut reader =
        OneGraph { path: vec![OUTER.to_owned()], graph: mean.backward(), found: BTreeMap::new() };
    outer.visit(&mut reader);
    for (index, layer) in layers.iter().enumerate() {
        reader.path = vec![layer_prefix(index)];
        layer.visit(&mut reader);
    }
    (loss, reader.found)
}

/// A model of whose layers a budget can only keep the first halves.
struct Halved {
    model: Model,
    halves: Cell<usize>,
}

/// What a whole graph takes of it.
const TOO_MUCH: u64 = 1 << 40;

impl Halved {
    const HALVES: Memory = Memory::Budget(TOO_MUCH - 1);

    fn of(model: &Model) -> Self {
        Self { model: model.clone(), halves: Cell::new(0) }
    }
}

impl LayeredModel for Halved {
    type Outer = <Model as LayeredModel>::Outer;
    type Layer = <Model as LayeredModel>::Layer;
    type Batch = TokenBatch;
    type Context = <Model as LayeredModel>::Context;

    fn outer(&self) -> &Self::Outer {
        self.model.outer()
    }

    fn outer_mut(&mut self) -> &mut Self::Outer {
        self.model.outer_mut()
    }

    fn layers(&self) -> &[Self::Layer] {
        self.model.layers()
    }

    fn layers_mut(&mut self) -> &mut [Self::Layer] {
        self.model.layers_mut()
    }

    fn context(&self, batch: &TokenBatch) -> Self::Context {
        self.model.context(batch)
    }

    fn predicted_tokens(&self, batch: &TokenBatch) -> usize {
        self.model.predicted_tokens(batch)
    }

    fn embed(&self, outer: &Self::Outer, batch: &TokenBatch, pass: &LayerPass) -> Tensor<3> {
        self.model.embed(outer, batch, pass)
    }

    fn layer(
        &self,
        layer: &Self::Layer,
        x: Tensor<3>,
        context: &Self::Context,
        pass: &LayerPass,
    ) -> Tensor<3> {
        self.model.layer(layer, x, context, pass)
    }

    fn half(
        &self,
        half: Half,
        layer: &Self::Layer,
        x: Tensor<3>,
        context: &Self::Context,
        pass: &LayerPass,
    ) -> Tensor<3> {
        self.halves.set(self.halves.get() + 1);
        self.model.half(half, layer, x, context, pass)
    }

    fn loss(
        &self,
        outer: &Self::Outer,
        x: Tensor<3>,
        batch: &TokenBatch,
        pass: &LayerPass,
    ) -> Tensor<1> {
        self.model.loss(outer, x, batch, pass)
    }

    fn footprint(&self, _: &TokenBatch) -> Option<Footprint> {
        let half = Some(KeptCost::default());
        let cost = LayerCost {
            graph: TOO_MUCH,
            tracked: TOO_MUCH,
            backward: TOO_MUCH,
            half,
            ..LayerCost::default()
        };
        let layer =
            LayerFootprint { resting: cost, chosen: cost, lowest: cost, work: 2, half_work: 1 };
        Some(Footprint { layers: vec![layer; LAYERS], ..Footprint::default() })
    }
}

#[test]
fn a_layer_kept_in_half_runs_its_first_half_once_and_its_second_half_twice() {
    let numbers = Numbers::flex();
    let (model, batches) = (Halved::of(&numbers.lora(&[], 0.3).0), [numbers.batch(&records(2))]);
    for mask in 1..1 << LAYERS {
        model.halves.set(0);
        step::gradients(&model, &batches, &set(mask), Halved::HALVES, Some(1));
        let lowest = set(mask).iter().next().unwrap();
        assert_eq!(model.halves.get(), 3 * (LAYERS - lowest));
    }
}

/// The walk has exactly the gradients of the chosen layers and of what lies outside, and they are
/// the one graph's, whether graphs are kept, kept in half, recomputed, or kept as far as a budget
/// allows.
fn assert_walk(
    model: &Model,
    batches: &[TokenBatch],
    chosen: &LayerSet,
    dropout: Option<u64>,
    tolerance: f64,
) {
    let (loss, mut expected) = one_graph(model, batches, dropout);
    expected.retain(|name, _| layer_of(name).is_none_or(|layer| chosen.contains(layer)));
    let halved = step::gradients(&Halved::of(model), batches, chosen, Halved::HALVES, dropout);
    let whole = [Memory::Keep, Memory::Recompute, Memory::Budget(between(model, batches, chosen))];
    let whole = whole.map(|memory| {
        (format!("{memory:?}"), step::gradients(model, batches, chosen, memory, dropout))
    });
    for (memory, output) in whole.into_iter().chain([("halves".to_owned(), halved)]) {
        assert!(
            (output.loss - loss).abs() <= tolerance * loss,
            "{memory} {} against {loss}",
            output.loss
        );
        assert!(
            output.gradients.names().eq(expected.keys().map(String::as_str)),
            "{memory} {chosen:?}"
        );
        for (name, gradient) in named(&output) {
            let worst = relative(&gradient, &expected[&name]);
            assert!(worst <= tolerance, "{memory} {chosen:?} {name}: {worst:e}");
        }
    }
}

/// A budget half way between what recomputing everything and what keeping everything takes.
fn between(model: &Model, batches: &[TokenBatch], chosen: &LayerSet) -> u64 {
    let draw = Draw::of(chosen);
    let footprints = batches.iter().map(|batch| model.footprint(batch).unwrap());
    let half = footprints.map(|footprint| {
        let [lean, full] = [LayerTreatment::Recompute, LayerTreatment::Keep]
            .map(|all| plan::peak(&footprint, &draw, &draw.uniform(all)));
        lean.midpoint(full)
    });
    half.max().unwrap()
}

fn set(mask: usize) -> LayerSet {
    LayerSet::new((0..LAYERS).filter(|layer| mask >> layer & 1 == 1), LAYERS).unwrap()
}

#[test]
fn every_draw_has_the_gradients_of_one_graph() {
    let numbers = Numbers::ndarray(DType::F64);
    let batches = records(1).chunks(2).map(|records| numbers.batch(records)).collect::<Vec<_>>();
    for outside in [&OUTSIDE[..], &OUTSIDE[..1], &OUTSIDE[1..], &[]] {
        let (model, _) = numbers.lora(outside, 0.3);
        for mask in 0..1 << LAYERS {
            let output = step::gradients(&model, &batches, &set(mask), Memory::Keep, Some(7));
            assert_eq!(output.gradients.len(), 14 * set(mask).len() + 2 * outside.len());
            if !output.gradients.is_empty() {
                assert_walk(&model, &batches, &set(mask), Some(7), EXACT);
            }
        }
    }
}

#[test]
fn a_budget_keeps_some_graphs_and_changes_no_gradient() {
    let numbers = Numbers::ndarray(DType::F64);
    let ((model, _), batches) = (numbers.lora(&[], 0.3), [numbers.batch(&records(4))]);
    let (chosen, footprint) = (set(0b1011), model.footprint(&batches[0]).unwrap());
    let budget = between(&model, &batches, &chosen);
    let treatments = Draw::of(&chosen).treatments(Memory::Budget(budget), Some(&footprint));
    assert!(
        treatments.contains(&LayerTreatment::Keep)
            && treatments.contains(&LayerTreatment::Recompute),
        "{treatments:?}"
    );
    let run = |memory| step::gradients(&model, &batches, &chosen, memory, Some(9));
    let (kept, planned) = (run(Memory::Keep), run(Memory::Budget(budget)));
    assert!(
        planned.predicted_bytes.unwrap() <= budget
            && planned.predicted_bytes < kept.predicted_bytes
    );
    for ((name, planned), (_, kept)) in named(&planned).into_iter().zip(named(&kept)) {
        assert!(relative(&planned, &kept) <= EXACT, "{name}");
    }
}

#[test]
fn chosen_layers_without_adapters_of_their_own_pass_the_gradient_on() {
    let numbers = Numbers::ndarray(DType::F64);
    let batches = [numbers.batch(&records(2))];
    for targets in [
        &["q_proj", "down_proj"][..],
        &["v_proj"],
        &["o_proj", "k_proj"],
        &["up_proj"],
        &["gate_proj"],
    ] {
        let fields = json!({"r": 2, "alpha": 3, "targets": targets, "layers_to_transform": [0, 2]});
        let (model, _) = numbers.adapted(numbers.base(false, |_, data| data), &fields);
        for mask in [0b0101, 0b1010, 0b1111, 0b0110] {
            let output = step::gradients(&model, &batches, &set(mask), Memory::Keep, None);
            let trained = 2 * targets.len() * (mask & 0b0101usize).count_ones() as usize;
            assert_eq!(output.gradients.len(), trained);
            if trained > 0 {
                assert_walk(&model, &batches, &set(mask), None, EXACT);
            }
        }
    }
}

#[test]
fn dropout_differs_between_layers_modules_and_micro_batches() {
    let numbers = Numbers::ndarray(DType::F64);
    let batches = vec![numbers.batch(&records(1)); 2];
    let loss = |model: &Model, batches: &[TokenBatch], seed| {
        step::gradients(model, batches, &set(1), Memory::Keep, seed).loss
    };
    let (model, _) = numbers.lora(&OUTSIDE, 0.3);
    let (both, one) = (loss(&model, &batches, Some(3)), loss(&model, &batches[..1], Some(3)));
    assert_ne!(both, one, "the second micro-batch has a mask of its own");
    assert_ne!(one, loss(&model, &batches[..1], Some(4)));
    assert_eq!(loss(&model, &batches, None), loss(&model, &batches[..1], None));
}

/// Four to eight distinct tokens. Equal ones make queries that attend to nothing but equals, whose
/// gradients are noise.
fn distinct_tokens() -> impl Strategy<Value = Vec<u32>> {
    let all = Just((0..VOCABULARY).collect::<Vec<u32>>()).prop_shuffle();
    (all, 4usize..9).prop_map(|(tokens, count)| tokens[..count].to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_draw_has_the_gradients_of_one_graph_in_single_precision(
        mask in 1usize..1 << LAYERS, outside in any::<bool>(), seed in prop::option::of(any::<u64>()), split in 1usize..4,
        rows in prop::collection::vec((distinct_tokens(), 0usize..4, 0usize..4), 3),
    ) {
        let (model, _) = Numbers::flex().lora(if outside { &OUTSIDE } else { &[] }, 0.2);
        let records: Vec<Example> = rows.iter().map(|(tokens, left, right)| padded(tokens, *left, *right)).collect();
        let batches: Vec<_> = records.chunks(split).map(|records| Numbers::flex().batch(records)).collect();
        assert_walk(&model, &batches, &set(mask), seed, SINGLE);
    }

    #[test]
    fn micro_batches_have_the_gradients_of_the_whole_batch(
        mask in 1usize..1 << LAYERS, seed in 0u64..99,
    ) {
        for size in 1..4 {
            let (parts, whole) = split_and_whole(&Numbers::ndarray(DType::F64), &set(mask), seed, size);
            prop_assert!((parts.loss - whole.loss).abs() <= EXACT * whole.loss);
            for ((name, part), (_, whole)) in named(&parts).into_iter().zip(named(&whole)) {
                prop_assert!(relative(&part, &whole) <= EXACT, "{} {:e}", name, relative(&part,
                    &whole));
            }
            // The order of a sum is another. What that rounds away is as large in a gradient that
            // cancels out as in others.
            let (parts, whole) = split_and_whole(&Numbers::flex(), &set(mask), seed, size);
            prop_assert!((parts.loss - whole.loss).abs() <= SINGLE * whole.loss);
            let worst = relative(&joined(&parts), &joined(&whole));
            prop_assert!(worst <= SINGLE, "{worst:e}");
        }
    }
}

/// A step on `records` in micro-batches of `size`, and in one.
fn split_and_whole(
    numbers: &Numbers,
    chosen: &LayerSet,
    seed: u64,
    size: usize,
) -> (StepOutput, StepOutput) {
    let ((model, _), records) = (numbers.lora(&OUTSIDE, 0.0), records(seed));
    let run = |size| {
        let batches: Vec<_> = records.chunks(size).map(|records| numbers.batch(records)).collect();
        step::gradients(&model, &batches, chosen, Memory::Keep, Some(1))
    };
    let (parts, whole) = (run(size), run(records.len()));
    assert_eq!(parts.tokens, whole.tokens);
    (parts, whole)
}

/// All gradients in a row.
fn joined(output: &StepOutput) -> Vec<f64> {
    named(output).into_iter().flat_map(|(_, gradient)| gradient).collect()
}

#[derive(Module, Debug)]
struct Nothing {
    unused: usize,
}

#[derive(Module, Debug)]
struct WatchedLayer {
    index: usize,
    gain: Param<Tensor<1>>,
}

/// A stack of gains that looks at what it is given.
struct Watched {
    outer: Nothing,
    layers: Vec<WatchedLayer>,
    chosen: LayerSet,
    calls: Cell<usize>,
    /// The first pass over the layers is plain, the second goes downwards with graphs.
    recompute: bool,
}

impl LayeredModel for Watched {
    type Outer = Nothing;
    type Layer = WatchedLayer;
    type Batch = Tensor<3>;
    type Context = ();

    fn outer(&self) -> &Nothing {
        &self.outer
    }

    fn outer_mut(&mut self) -> &mut Nothing {
        &mut self.outer
    }

    fn layers(&self) -> &[WatchedLayer] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [WatchedLayer] {
        &mut self.layers
    }

    fn context(&self, _: &Tensor<3>) {}

    fn predicted_tokens(&self, _: &Tensor<3>) -> usize {
        1
    }

    fn embed(&self, _: &Nothing, batch: &Tensor<3>, _: &LayerPass) -> Tensor<3> {
        batch.clone()
    }

    fn layer(&self, layer: &WatchedLayer, x: Tensor<3>, (): &(), _: &LayerPass) -> Tensor<3> {
        let lowest = self.chosen.iter().next().unwrap_or(self.layers.len());
        let graph = !self.recompute || self.calls.get() >= self.layers.len();
        let trains = graph && self.chosen.contains(layer.index);
        assert_eq!(layer.gain.val().is_tracked(), trains, "layer {}", layer.index);
        assert_eq!(
            x.is_tracked(),
            graph && layer.index > lowest,
            "the input of layer {}",
            layer.index
        );
        self.calls.set(self.calls.get() + 1);
        x * layer.gain.val().unsqueeze()
    }

    fn loss(&self, _: &Nothing, x: Tensor<3>, _: &Tensor<3>, _: &LayerPass) -> Tensor<1> {
        assert_eq!(x.is_tracked(), !self.chosen.is_empty(), "the input of the loss");
        x.square().sum()
    }
}

#[test]
fn recomputing_runs_the_layers_above_the_lowest_once_more_and_holds_no_graph_meanwhile() {
    let device = Device::flex();
    let gain = || Param::from_tensor(Tensor::full([1], 1.5, &device)).set_require_grad(false);
    for mask in 1..1 << LAYERS {
        let layers = (0..LAYERS).map(|index| WatchedLayer { index, gain: gain() }).collect();
        let calls = Cell::new(0);
        let model = Watched {
            outer: Nothing { unused: 0 },
            layers,
            chosen: set(mask),
            calls,
            recompute: true,
        };
        let batch = [Tensor::ones([1, 2, 2], &device)];
        let StepOutput { gradients, .. } =
            step::gradients(&model, &batch, &set(mask), Memory::Recompute, None);
        let lowest = set(mask).iter().next().unwrap();
        assert_eq!(
            (gradients.len(), model.calls.get()),
            (set(mask).len(), LAYERS + LAYERS - lowest)
        );
    }
}

#[test]
fn below_the_lowest_chosen_layer_there_is_no_graph() {
    let device = Device::flex();
    let gain = || Param::from_tensor(Tensor::full([1], 1.5, &device)).set_require_grad(false);
    for mask in 0..1 << LAYERS {
        let layers = (0..LAYERS).map(|index| WatchedLayer { index, gain: gain() }).collect();
        let model = Watched {
            outer: Nothing { unused: 0 },
            layers,
            chosen: set(mask),
            calls: Cell::new(0),
            recompute: false,
        };
        let batches = [Tensor::ones([1, 2, 2], &device), Tensor::ones([1, 3, 2], &device)];
        let StepOutput { gradients, .. } =
            step::gradients(&model, &batches, &set(mask), Memory::Keep, None);
        assert_eq!((gradients.len(), model.calls.get()), (set(mask).len(), 2 * LAYERS));
    }
}

#[test]
fn candidates_share_the_layers_up_to_which_they_agree() {
    let numbers = Numbers::flex();
    let (model, _) = numbers.lora(&OUTSIDE, 0.2);
    let batches: Vec<_> = records(12).chunks(3).map(|records| numbers.batch(records)).collect();
    let candidates = [set(0b0011), set(0b0110), set(0b0011), set(0b1000), set(0)];
    let expected = candidates
        .iter()
        .map(|set| step::mean_loss(&model, &batches, &Responses::suppressed(set, 0.25)).0);
    let found = step::candidate_losses(&model, &batches, &candidates, 0.25);
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert!(found[0] != found[1] && found[0] == found[2]);

    let device = Device::flex();
    let gain = || Param::from_tensor(Tensor::full([1], 1.5, &device)).set_require_grad(false);
    let layers = (0..LAYERS).map(|index| WatchedLayer { index, gain: gain() }).collect();
    let (outer, calls) = (Nothing { unused: 0 }, Cell::new(0));
    let model = Watched { outer, layers, chosen: set(0), calls, recompute: false };
    step::candidate_losses(
        &model,
        &[Tensor::ones([1, 2, 2], &device)],
        &[set(0b0100), set(0b1000)],
        0.25,
    );
    assert_eq!(model.calls.get(), 2 + 2 * 2, "two layers together, two each for itself");
}

/// Every parameter's bytes by name.
fn bytes(model: &Model) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut note = |name: &str, value: Tensor<1>| {
        found.insert(name.to_owned(), value.into_data().as_bytes().to_vec());
    };
    gradients::for_each_parameter(OUTER, model.outer(), &mut note);
    for (index, layer) in model.layers().iter().enumerate() {
        gradients::for_each_parameter(&layer_prefix(index), layer, &mut note);
    }
    found
}

fn weights(model: &Model) -> Vec<(String, Vec<u8>)> {
    model.weights().into_iter().map(|(name, data)| (name, data.as_bytes().to_vec())).collect()
}

fn tuner(policy: Box<dyn LayerPolicy>, resting_state: RestingState, seed: u64) -> Tuner {
    let adamw = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
    Tuner::new(
        TunerConfig { learning_rate: 0.02, adamw, resting_state, ..TunerConfig::default() },
        policy,
        seed,
    )
}

/// Runs that many steps, each on two micro-batches of its own.
fn drive(tuner: &mut Tuner, model: &mut Model, steps: usize) -> Vec<StepReport> {
    let micro_batches = |seed: usize| {
        records(seed as u64).chunks(2).map(|r| Numbers::flex().batch(r)).collect::<Vec<_>>()
    };
    let step = |_| {
        let candidates = tuner.candidates();
        if !candidates.is_empty() {
            tuner.score(model, &micro_batches(1000 + tuner.next_step()), candidates).unwrap();
        }
        let batches = micro_batches(tuner.next_step());
        tuner.step(model, &batches).unwrap()
    };
    (0..steps).map(step).collect()
}

#[test]
fn resting_layers_are_bitwise_unchanged_and_have_no_optimizer_movement() {
    let (mut model, _) = Numbers::flex().lora(&OUTSIDE, 0.1);
    let (parameters, frozen) = (bytes(&model), weights(&model));
    let mut tuner = tuner(Box::new(Fixed::new(set(0b0110))), RestingState::Keep, 1);
    drive(&mut tuner, &mut model, 3);
    let state = tuner.state().unwrap();
    for (name, after) in bytes(&model) {
        let trains = layer_of(&name).is_none_or(|layer| set(0b0110).contains(layer));
        assert_eq!(after != parameters[&name], trains, "{name}");
        assert_eq!(tuner.optimizer().updates(&name), if trains { 3 } else { 0 }, "{name}");
        assert_eq!(
            state.tensors.iter().filter(|(key, _)| key.starts_with(&name)).count(),
            if trains { 2 } else { 0 }
        );
    }
    assert!(frozen == weights(&model), "no base weight moves");
}

#[test]
fn updates_count_the_draws_of_a_layer() {
    let (mut model, _) = Numbers::flex().lora(&OUTSIDE, 0.0);
    let policy = Registry::default()
        .build("rst", json!({"layers_updated": 2}).as_object().unwrap(), &LayerSet::all(LAYERS))
        .unwrap();
    let mut tuner = tuner(policy, RestingState::Keep, 3);
    let reports = drive(&mut tuner, &mut model, 6);
    for name in bytes(&model).keys() {
        let drawn = reports
            .iter()
            .filter(|report| layer_of(name).is_none_or(|layer| report.layers.contains(layer)));
        assert_eq!(tuner.optimizer().updates(name), drawn.count(), "{name}");
    }
}

/// Every policy, with intervals short enough to matter; the folder holds the log to replay.
fn policies(folder: &std::path::Path) -> Vec<Box<dyn LayerPolicy>> {
    let log: String = (0..9)
        .map(|step| format!("{{\"step\": {step}, \"layers\": [{}, 3]}}\n", step % 3))
        .collect();
    std::fs::write(folder.join("log.jsonl"), log).unwrap();
    let cases = [
        ("all", json!({})),
        ("ist", json!({"interval": 2, "layers_updated": 2})),
        ("rst", json!({"layers_updated": 2})),
        ("lisa", json!({"interval": 3})),
        ("fixed", json!({"layers": [0, 2]})),
        ("replay", json!({"path": folder.join("log.jsonl")})),
    ];
    cases
        .iter()
        .map(|(kind, fields)| {
            Registry::default()
                .build(kind, fields.as_object().unwrap(), &LayerSet::all(LAYERS))
                .unwrap()
        })
        .collect()
}

/// The run's adapters, read back from files, and the tuner's state, read back from text, on a fresh
/// model and tuner.
fn reopened(
    model: &mut Model,
    config: &Adapters<BuiltinAdapter>,
    tuner: &Tuner,
    mut fresh: Tuner,
) -> (Model, Tuner) {
    let folder = tempfile::tempdir().unwrap();
    ist_peft::save(model, config, folder.path(), "").unwrap();
    let mut again = Numbers::flex().base(false, |_, data| data);
    ist_peft::load(&mut again, folder.path(), &Device::flex()).unwrap();
    let TunerState { document, tensors } = tuner.state().unwrap();
    let document = serde_json::from_str(&document.to_string()).unwrap();
    fresh.restore(TunerState { document, tensors }, &Device::flex()).unwrap();
    (again, fresh)
}

#[test]
fn a_run_restored_in_the_middle_ends_bitwise_where_the_whole_one_does() {
    let folder = tempfile::tempdir().unwrap();
    for resting in [RestingState::Keep, RestingState::Offload, RestingState::Drop] {
        for (policy, again) in policies(folder.path()).into_iter().zip(policies(folder.path())) {
            let (kind, (mut model, config)) = (policy.name(), Numbers::flex().lora(&OUTSIDE, 0.2));
            let mut whole = tuner(policy, resting, 7);
            drive(&mut whole, &mut model, 4);
            let (mut other, mut resumed) =
                reopened(&mut model, &config, &whole, tuner(again, resting, 99));
            assert_eq!(
                drive(&mut whole, &mut model, 5),
                drive(&mut resumed, &mut other, 5),
                "{kind} {resting:?}"
            );
            assert!(bytes(&model) == bytes(&other), "{kind} {resting:?}");
            assert_eq!(
                whole.state().unwrap().document,
                resumed.state().unwrap().document,
                "{kind} {resting:?}"
            );
        }
    }
}

#[test]
fn offloaded_moments_change_no_number_and_dropped_ones_do() {
    let run = |resting| {
        let (mut model, _) = Numbers::flex().lora(&OUTSIDE, 0.2);
        let policy = Registry::default()
            .build("ist", json!({"interval": 2}).as_object().unwrap(), &LayerSet::all(LAYERS))
            .unwrap();
        drive(&mut tuner(policy, resting, 5), &mut model, 9);
        bytes(&model)
    };
    let kept = run(RestingState::Keep);
    assert!(kept == run(RestingState::Offload));
    assert!(kept != run(RestingState::Drop));
}

#[test]
fn updating_layer_by_layer_changes_no_bit() {
    let numbers = Numbers::flex();
    for (outside, memory) in [
        (&OUTSIDE[..], Memory::Keep),
        (&OUTSIDE[1..], Memory::Recompute),
        (&[], Memory::Recompute),
        (&[], Memory::Keep),
    ] {
        let run = |at_once: bool| {
            let (mut model, _) = numbers.lora(outside, 0.2);
            let policy = Registry::default()
                .build(
                    "rst",
                    json!({"layers_updated": 2}).as_object().unwrap(),
                    &LayerSet::all(LAYERS),
                )
                .unwrap();
            let config = TunerConfig {
                learning_rate: 0.02,
                clip_norm: None,
                memory,
                ..TunerConfig::default()
            };
            let mut tuner = Tuner::new(config, policy, 3);
            let step = |number: u64| {
                let batch = [numbers.batch(&records(number))];
                if at_once {
                    return tuner.step(&mut model, &batch).unwrap();
                }
                let (report, gradients) = tuner.compute(&model, &batch).unwrap();
                tuner.apply(&mut model, &report, gradients).unwrap();
                report
            };
            let reports =
                (0..5).map(step).map(|report| StepReport { predicted_bytes: None, ..report });
            (reports.collect::<Vec<_>>(), bytes(&model), tuner.state().unwrap().document)
        };
        assert!(run(true) == run(false), "{outside:?} {memory:?}");
    }
}

#[test]
fn layer_by_layer_only_one_layers_gradients_exist() {
    let (mut model, _) = Numbers::flex().lora(&OUTSIDE, 0.0);
    let config = |clip_norm| TunerConfig { clip_norm, ..TunerConfig::default() };
    let mut seen = |clip_norm, rows: usize| {
        let mut tuner = Tuner::new(config(clip_norm), Box::new(Fixed::new(set(0b1010))), 3);
        let batches: Vec<_> =
            records(1).chunks(rows).map(|records| Numbers::flex().batch(records)).collect();
        let mut seen = Vec::new();
        let mut watch =
            |found: &Gradients| seen.push(found.names().map(layer_of).collect::<BTreeSet<_>>());
        tuner.watched_step(&mut model, &batches, &mut watch).unwrap();
        seen
    };
    let [none, first, second, third] =
        [BTreeSet::new(), [None].into(), [Some(1)].into(), [Some(3)].into()];
    // The embedding trains, so the gradient passes all layers.
    assert_eq!(seen(None, 4), [third, none.clone(), second, none, first]);
    let all = [BTreeSet::from([None, Some(1), Some(3)])];
    assert_eq!([seen(Some(1.0), 4), seen(None, 2)], [all.clone(), all]);
}

#[test]
fn a_gradient_that_is_no_number_ends_a_step_that_updated_the_layers_above_it() {
    let device = Device::flex();
    // The product of all gains and the input is 1, so the loss is fine; d loss / d gain of the
    // first is 8e30.
    let gain =
        |value: f32| Param::from_tensor(Tensor::full([1], value, &device)).set_require_grad(false);
    let batch = [Tensor::ones([1, 2, 2], &device) * 1e30];
    for (mask, updated) in [(0b0101, vec![2]), (0b0001, vec![])] {
        let layers = (0..LAYERS)
            .map(|index| WatchedLayer { index, gain: gain([1e-30, 1.0][index.min(1)]) })
            .collect();
        let (outer, calls) = (Nothing { unused: 0 }, Cell::new(0));
        let mut model = Watched { outer, layers, chosen: set(mask), calls, recompute: false };
        let config = TunerConfig { clip_norm: None, ..TunerConfig::default() };
        let mut tuner = Tuner::new(config, Box::new(Fixed::new(set(mask))), 1);
        let error = tuner.step(&mut model, &batch).unwrap_err();
        let moved = model
            .layers
            .iter()
            .filter(|layer| ![1e-30, 1.0].contains(&(gradients::scalar(layer.gain.val()) as f32)));
        assert_eq!(moved.map(|layer| layer.index).collect::<Vec<_>>(), updated);
        assert_eq!(tuner.optimizer().updates("layers.0.gain"), 0);
        match error {
            TunerError::NotFiniteBelow { place, updated: found, .. } => {
                assert_eq!((place.as_str(), found), ("layer 0", updated));
            }
            other => assert!(
                matches!(other, TunerError::NotFinite { .. }) && updated.is_empty(),
                "{other}"
            ),
        }
    }
}

#[test]
fn a_loss_that_is_no_number_changes_no_parameter() {
    let poison = |name: &str, data: TensorData| {
        let mut values: Vec<f32> = data.iter::<f32>().collect();
        if name == "model.embed_tokens.weight" {
            *values.last_mut().unwrap() = f32::NAN;
        }
        TensorData::new(values, data.shape())
    };
    let numbers = Numbers::flex();
    let fields = json!({"r": 2, "alpha": 4, "targets": ["q_proj", "embed_tokens"]});
    let (mut model, _) = numbers.adapted(numbers.base(false, poison), &fields);
    let mut tuner = tuner(Box::new(Fixed::new(set(0b1001))), RestingState::Keep, 1);
    drive(&mut tuner, &mut model, 2);
    let (parameters, moments) = (bytes(&model), tuner.state().unwrap().tensors.len());
    let batches =
        [numbers.batch(&records(1)), numbers.batch(&[padded(&[1, VOCABULARY - 1, 2], 0, 0)])];
    let error = tuner.step(&mut model, &batches).unwrap_err();
    assert!(matches!(error, TunerError::NotFinite { what: "loss", step: 2, .. }), "{error}");
    assert!(parameters == bytes(&model) && tuner.next_step() == 2);
    assert_eq!(tuner.state().unwrap().tensors.len(), moments);
    assert!(parameters.keys().all(|name| tuner.optimizer().updates(name) <= 2));
}
