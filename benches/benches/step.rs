//! One training step: time by criterion, and the most live bytes above the weights, for several layer sets.
//!
//! `cargo bench -p ist-benches`

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::{TINY, batch, model};
use ist_core::burn::tensor::Device;
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, Responses};
use ist_experiments::memory::{self, PeakAlloc};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn steps(criterion: &mut Criterion) {
    let device = Device::flex();
    let (model, batch) = (model(TINY, &device), [batch(TINY, &device)]);
    let sets = [
        ("all", LayerSet::all(TINY.layers)),
        ("ist {2,5}", LayerSet::new([2, 5], TINY.layers).expect("layers of the model")),
        ("ist {6,7}", LayerSet::new([6, 7], TINY.layers).expect("layers of the model")),
    ];
    let cases = sets.iter().flat_map(|set| [Memory::Keep, Memory::Recompute].map(|treatment| (set, treatment)));
    for ((name, set), treatment) in cases {
        let name = format!("{name} {treatment:?}").to_lowercase();
        memory::reset_peak();
        let before = memory::live();
        drop(step::gradients(&model, &batch, set, treatment, None));
        eprintln!("{name}: {} above the weights", memory::human(memory::peak().saturating_sub(before)));
        criterion.bench_function(&format!("step/{name}"), |bencher| {
            bencher.iter(|| step::gradients(&model, &batch, set, treatment, None));
        });
    }
}

fn scoring(criterion: &mut Criterion) {
    let device = Device::flex();
    let (model, batch) = (model(TINY, &device), [batch(TINY, &device)]);
    let suppressed = LayerSet::new([0, 2, 4, 6], TINY.layers).expect("layers of the model");
    let responses = Responses::suppressed(&suppressed, 0.25);
    criterion.bench_function("scoring/one candidate", |bencher| {
        bencher.iter(|| step::mean_loss(&model, &batch, &responses));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = steps, scoring
}
criterion_main!(benches);
