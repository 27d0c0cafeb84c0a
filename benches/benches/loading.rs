//! Loading a model folder against reading the bytes of its file, the file being in the system's
//! cache.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times, peak_above};
use ist_benches::table::Table;
use ist_benches::{Model, Recipe, model, shape};
use ist_core::burn::tensor::{DType, Device};
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::{ModelFiles, registry};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Writes the model that the other benchmarks train.
fn write(folder: &Path, storage: DType) {
    let model = model(shape(), Recipe { storage, ..Recipe::default() }, &Device::flex());
    let config = model.config_json().to_string();
    std::fs::write(folder.join("config.json"), config).expect("the folder can be written");
    ist_peft::files::tensor_file::write(&folder.join("model.safetensors"), &model.weights())
        .expect("so can the weights");
}

fn load(folder: &Path) -> Model {
    let files = ModelFiles::in_folder(folder).expect("the folder was written above");
    let storage = files.dtype().expect("its weights are there");
    registry::load(&files, storage, &Device::flex()).expect("they fit the configuration")
}

fn loading(criterion: &mut Criterion) {
    let mut table = Table::new(&[
        "weights",
        "file, MiB",
        "read, ms",
        "load, ms",
        "load / read",
        "peak / weights",
    ]);
    for (name, storage) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let folder = tempfile::tempdir().expect("there is room for a model");
        write(folder.path(), storage);
        let file = folder.path().join("model.safetensors");
        let (read_times, load_times) = (Times::default(), Times::default());
        criterion.bench_function(&format!("loading/read {name}"), |bencher| {
            bencher.iter_custom(|count| read_times.run(count, || std::fs::read(&file)));
        });
        criterion.bench_function(&format!("loading/load {name}"), |bencher| {
            bencher.iter_custom(|count| load_times.run(count, || load(folder.path())));
        });
        let (Some(read), Some(loaded)) = (read_times.median(), load_times.median()) else {
            continue;
        };
        let size = std::fs::metadata(&file).expect("the file was written above").len() as f64;
        let (_, peak) = peak_above(|| load(folder.path()));
        let figures = [size / MIB, read, loaded, loaded / read, peak as f64 / size]
            .map(|figure| format!("{figure:.2}"));
        table.row([name.to_owned()].into_iter().chain(figures));
    }
    if !table.is_empty() {
        println!("\n{table}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = loading
}
criterion_main!(benches);
