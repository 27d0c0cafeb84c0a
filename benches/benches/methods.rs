//! One training step under every PEFT method, beside LoRA's: time by criterion, and the most live
//! bytes above the weights.
//!
//! `cargo bench --workspace --bench methods`; `IST_BENCH_SHAPE=small` or `medium` takes a larger
//! model.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times, peak_above};
use ist_benches::table::Table;
use ist_benches::{adapted_model, batch, draws, shape};
use ist_core::burn::tensor::{DType, Device};
use ist_core::step::{self, Memory};
use ist_experiments::machine::live_bytes::PeakAlloc;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Every method on its usual targets, the low-rank ones and the bottlenecks with the same width;
/// LoRA first.
fn methods() -> Vec<Value> {
    vec![
        json!({"method": "lora", "r": 16}),
        json!({"method": "lora", "r": 16, "freeze_a": true}),
        json!({"method": "dora", "r": 16}),
        json!({"method": "vera", "r": 256}),
        json!({"method": "series", "bottleneck_size": 16}),
        json!({"method": "adapterp", "bottleneck_size": 16}),
        json!({"method": "parallel", "bottleneck_size": 16}),
        json!({"method": "ia3"}),
        json!({"method": "prefix-tuning", "num_virtual_tokens": 30}),
        json!({"method": "layernorm"}),
        json!({"method": "full"}),
    ]
}

fn steps(criterion: &mut Criterion) {
    let (device, shape) = (Device::flex(), shape());
    let batch = [batch(shape, &device)];
    let [(_, all), (_, spread), ..] = draws(shape.layers);
    let mut table = Table::new(&[
        "method",
        "layers",
        "memory",
        "ms",
        "beside LoRA",
        "peak, MiB",
        "beside LoRA",
    ]);
    let mut group = criterion.benchmark_group("methods");
    let mut first: Vec<[f64; 2]> = Vec::new();
    for fields in methods() {
        let model = adapted_model(shape, DType::F32, &fields, &device);
        let cases = [(&all, Memory::Keep), (&spread, Memory::Keep), (&spread, Memory::Recompute)];
        for (number, (set, memory)) in cases.into_iter().enumerate() {
            let step = || step::gradients(&model, &batch, set, memory, None);
            let times = Times::default();
            let name = format!("{fields}/{}/{memory:?}", set.len());
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| times.run(count, step));
            });
            let Some(milliseconds) = times.median() else { continue };
            let figures = [milliseconds, peak_above(step).1 as f64 / MIB];
            if first.len() <= number {
                first.push(figures);
            }
            let beside = |at: usize| format!("{:.2}", figures[at] / first[number][at]);
            let cells = [
                fields.to_string(),
                format!("{:?}", set.as_slice()),
                format!("{memory:?}").to_lowercase(),
            ];
            let [time, peak] = figures.map(|figure| format!("{figure:.1}"));
            table.row(cells.into_iter().chain([time, beside(0), peak, beside(1)]));
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
