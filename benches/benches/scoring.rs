//! What scoring costs: one candidate by itself, and a policy's three candidates with the layers
//! they share, against a training step of an average draw.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use criterion::{Criterion, criterion_group, criterion_main};
use ist_benches::measure::{MIB, Times, peak_above};
use ist_benches::table::Table;
use ist_benches::{Model, Recipe, Shape, batch, draws, model, shape};
use ist_core::burn::tensor::Device;
use ist_core::policy::{Ist, IstConfig};
use ist_core::step::{self, Memory, StepOutput};
use ist_core::{LayerPolicy, LayerSet, Responses, streams};
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::TokenBatch;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Draws of candidates that are scored in turn: how many layers they share differs from draw to
/// draw.
const DRAWS: usize = 8;

/// The model and what is done with it.
struct Scene {
    model: Model,
    /// A micro-batch of training.
    batch: TokenBatch,
    draws: Vec<Vec<LayerSet>>,
    shape: Shape,
}

impl Scene {
    fn new(shape: Shape) -> Self {
        let device = Device::flex();
        let config = IstConfig::default();
        let interval = config.interval;
        let mut policy =
            Ist::new(&LayerSet::all(shape.layers), config).expect("the defaults suit every model");
        let mut stream = streams::stream(0, "candidates");
        let draws =
            (1..=DRAWS).map(|draw| policy.candidates(draw * interval, &mut stream)).collect();
        Self {
            model: model(shape, Recipe::default(), &device),
            batch: batch(shape, &device),
            draws,
            shape,
        }
    }

    fn train(&self, memory: Memory) -> StepOutput {
        step::gradients(
            &self.model,
            std::slice::from_ref(&self.batch),
            &draws(self.shape.layers)[1].1,
            memory,
            None,
        )
    }

    /// One candidate on as many records as a training batch has.
    fn one(&self) -> f64 {
        let responses = Responses::suppressed(&self.draws[0][0], IstConfig::default().suppression);
        step::mean_loss(&self.model, [&self.batch], &responses).0
    }

    /// All candidates of draw `draw` on `batches` times as many.
    fn all(&self, draw: usize, batches: usize) -> Vec<f64> {
        let batches = vec![self.batch.clone(); batches];
        step::candidate_losses(
            &self.model,
            &batches,
            &self.draws[draw % DRAWS],
            IstConfig::default().suppression,
        )
    }
}

/// Times and peak of one piece of work, when the harness did not leave it out.
fn measure<T>(
    criterion: &mut Criterion,
    name: &str,
    mut work: impl FnMut() -> T,
) -> Option<(f64, f64)> {
    let times = Times::default();
    criterion.bench_function(&format!("scoring/{name}"), |bencher| {
        bencher.iter_custom(|count| times.run(count, &mut work));
    });
    let milliseconds = times.median()?;
    let (_, peak) = peak_above(work);
    Some((milliseconds, peak as f64 / MIB))
}

fn scoring(criterion: &mut Criterion) {
    let scene = Scene::new(shape());
    let IstConfig { interval, score_batch, candidates, .. } = IstConfig::default();
    let Some((step, step_peak)) = measure(criterion, "training step", || scene.train(Memory::Keep))
    else {
        return;
    };
    let mut table =
        Table::new(&["what", "records", "ms", "peak, MiB", "of a step", "share of a run's time"]);
    let mut row = |what: &str,
                   records: usize,
                   (milliseconds, peak): (f64, f64),
                   share: Option<f64>| {
        let share = share.map_or_else(String::new, |share| format!("{:.1} %", 100.0 * share));
        let figures =
            [milliseconds, peak, milliseconds / step].map(|figure| format!("{figure:.2}"));
        table.row([what.to_owned(), records.to_string()].into_iter().chain(figures).chain([share]));
    };
    let rows = scene.shape.rows;
    row("a training step", rows, (step, step_peak), None);
    if let Some(figures) = measure(criterion, "one candidate", || scene.one()) {
        row("one candidate", rows, figures, None);
    }
    // A batch as large as that of training, and the default one.
    for batches in [1, score_batch / rows] {
        let mut draw = 0;
        let name = format!("{candidates} candidates, {} records", batches * rows);
        let work = || {
            draw += 1;
            scene.all(draw, batches)
        };
        if let Some(figures) = measure(criterion, &name, work) {
            let share = figures.0 / (figures.0 + interval as f64 * step);
            row(&format!("{candidates} candidates"), batches * rows, figures, Some(share));
        }
    }
    println!("\n{table}");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = scoring
}
criterion_main!(benches);
