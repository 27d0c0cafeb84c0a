//! Where the moments of resting layers live: the time of an update of a drawn quarter of the
//! layers, and the live bytes that the optimizer holds between two steps.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times};
use ist_benches::table::Table;
use ist_benches::{RANK, Recipe, SMALL, Shape, model};
use ist_core::burn::tensor::{Device, Distribution, Tensor};
use ist_core::gradients::{for_each_parameter, layer_of, layer_prefix};
use ist_core::optimizer::{AdamWSettings, OffloadTo, Optimizer, RestingState};
use ist_core::policy::Registry;
use ist_core::streams::Streams;
use ist_core::{LayerPolicy, LayerSet, LayeredModel};
use ist_experiments::machine::live_bytes;
use ist_experiments::machine::live_bytes::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Real adapters of eight layers; the vocabulary plays no part.
const SHAPE: Shape = Shape { vocabulary: 64, ..SMALL };

/// Updates after which, in all likelihood, every layer has been drawn.
const SETTLED: usize = 30;

/// An optimizer in use: parameters, their gradients, and the draws.
struct Scene {
    parameters: Vec<(String, Tensor<1>, Tensor<1>)>,
    optimizer: Optimizer,
    policy: Box<dyn LayerPolicy>,
    streams: Streams,
    step: usize,
    device: Device,
}

impl Scene {
    fn new(resting: RestingState, offload: OffloadTo) -> Self {
        let device = Device::flex();
        let model = model(SHAPE, Recipe::default(), &device);
        let mut parameters = Vec::new();
        for (index, layer) in model.layers().iter().enumerate() {
            for_each_parameter(&layer_prefix(index), layer, &mut |name, value| {
                let gradient =
                    Tensor::random(value.shape(), Distribution::Uniform(-1e-3, 1e-3), &device);
                parameters.push((name.to_owned(), value, gradient));
            });
        }
        let layers = LayerSet::all(SHAPE.layers);
        let policy = Registry::default()
            .build("rst", &serde_json::Map::new(), &layers)
            .expect("its defaults are valid");
        let optimizer = Optimizer::new(AdamWSettings::default(), resting, offload);
        let mut scene =
            Self { parameters, optimizer, policy, streams: Streams::new(0), step: 0, device };
        (0..SETTLED).for_each(|_| scene.update());
        scene
    }

    /// One step's work: the resting moments leave, the drawn layers' come back and are used.
    fn update(&mut self) {
        let drawn = self
            .policy
            .select(self.step, &mut self.streams.selection)
            .expect("a quarter can be drawn");
        self.step += 1;
        let trains = |name: &str| layer_of(name).is_some_and(|layer| drawn.contains(layer));
        self.optimizer.rest(&self.device, trains).expect("the folder can be written to");
        for (name, value, gradient) in self.parameters.iter_mut().filter(|(name, ..)| trains(name))
        {
            let updated = self.optimizer.update(name, 1e-4, value.clone(), gradient.clone());
            *value = updated.expect("the folder can be read");
        }
    }
}

/// Live bytes of the optimizer alone, in MiB: those that go when it is dropped.
fn held(scene: Scene) -> f64 {
    let Scene { optimizer, parameters, .. } = scene;
    let before = live_bytes::live();
    drop(optimizer);
    let held = before.saturating_sub(live_bytes::live()) as f64 / MIB;
    drop(parameters);
    held
}

fn resting(criterion: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("ist-bench-moments-{}", std::process::id()));
    let cases = [
        ("keep", RestingState::Keep, OffloadTo::Host),
        ("offload to files", RestingState::Offload, OffloadTo::Folder(folder)),
        ("offload to host memory", RestingState::Offload, OffloadTo::Host),
        ("drop", RestingState::Drop, OffloadTo::Host),
    ];
    let mut table = Table::new(&[
        "resting moments",
        "update of a quarter, ms",
        "live bytes of the optimizer, MiB",
    ]);
    for (name, resting, offload) in cases {
        let mut scene = None;
        let times = Times::default();
        criterion.bench_function(&format!("optimizer/{name}"), |bencher| {
            let scene = scene.get_or_insert_with(|| Scene::new(resting, offload.clone()));
            bencher.iter_custom(|count| times.run(count, || scene.update()));
        });
        if let Some((scene, milliseconds)) = scene.zip(times.median()) {
            table.row([
                name.to_owned(),
                format!("{milliseconds:.2}"),
                format!("{:.2}", held(scene)),
            ]);
        }
    }
    println!("\n{} layers, LoRA of rank {RANK}\n\n{table}", SHAPE.layers);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = resting
}
criterion_main!(benches);
