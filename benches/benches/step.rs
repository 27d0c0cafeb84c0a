//! One training step: time by criterion, and the most live bytes above the weights, for every kind
//! of draw a policy makes.
//!
//! `cargo bench --workspace --bench step`; `IST_BENCH_SHAPE=small` or `medium` takes a larger
//! model.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times, peak_above};
use ist_benches::table::Table;
use ist_benches::{Recipe, batch, draws, model, shape};
use ist_core::burn::tensor::Device;
use ist_core::step::{self, Memory};
use ist_experiments::machine::live_bytes::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn steps(criterion: &mut Criterion) {
    let (device, shape) = (Device::flex(), shape());
    let (model, batch) = (model(shape, Recipe::default(), &device), [batch(shape, &device)]);
    let mut table = Table::new(&[
        "draw",
        "layers",
        "memory",
        "peak above the weights, MiB",
        "ms",
        "tokens / s",
    ]);
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(shape.tokens() as u64));
    for (name, set) in draws(shape.layers) {
        for memory in [Memory::Keep, Memory::Recompute] {
            let step = || step::gradients(&model, &batch, &set, memory, None);
            let treatment = format!("{memory:?}").to_lowercase();
            let times = Times::default();
            group.bench_function(format!("{name}/{treatment}"), |bencher| {
                bencher.iter_custom(|count| times.run(count, step));
            });
            let Some(milliseconds) = times.median() else { continue };
            let (_, peak) = peak_above(step);
            let cells = [name.to_owned(), format!("{:?}", set.as_slice()), treatment];
            let figures = [peak as f64 / MIB, milliseconds].map(|figure| format!("{figure:.1}"));
            let throughput = format!("{:.0}", shape.tokens() as f64 / milliseconds * 1e3);
            table.row(cells.into_iter().chain(figures).chain([throughput]));
        }
    }
    group.finish();
    println!("\n{table}");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = steps
}
criterion_main!(benches);
