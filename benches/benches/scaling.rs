//! How the peak above the weights and the time of a step grow with the sequence, the layers and the
//! vocabulary.
//!
//! Tables in Markdown instead of criterion's statistics: the growth is the point. The draw is the
//! worst one a policy makes, which the gradient passes all layers for, because that one decides
//! what a run needs. `--quick` takes the small sizes alone.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use ist_benches::measure::{MIB, milliseconds, peak_above};
use ist_benches::table::Table;
use ist_benches::{Recipe, Shape, batch, draws, model};
use ist_core::burn::tensor::Device;
use ist_core::step::{self, Memory};
use ist_experiments::machine::live_bytes::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What the tables vary, one number at a time.
const SMALL: Shape = Shape {
    hidden: 128,
    layers: 4,
    heads: 4,
    intermediate: 344,
    vocabulary: 2048,
    rows: 1,
    sequence: 256,
};

/// One table: a number of the shape, and the values it takes.
struct Axis {
    name: &'static str,
    values: &'static [usize],
    shape: fn(usize) -> Shape,
}

const AXES: [Axis; 3] = [
    Axis {
        name: "sequence",
        values: &[128, 256, 512, 1024, 2048, 4096],
        shape: |sequence| Shape { sequence, ..SMALL },
    },
    Axis { name: "layers", values: &[4, 8, 16, 32, 48], shape: |layers| Shape { layers, ..SMALL } },
    Axis {
        name: "vocabulary",
        values: &[2_000, 8_000, 32_000, 128_000],
        shape: |vocabulary| Shape { vocabulary, ..SMALL },
    },
];

/// MiB above the weights and milliseconds of a step, for one treatment.
fn measure(shape: Shape, memory: Memory, repetitions: usize) -> [f64; 2] {
    let device = Device::flex();
    let (model, batch) = (model(shape, Recipe::default(), &device), [batch(shape, &device)]);
    let worst = &draws(shape.layers)[2].1;
    let step = || step::gradients(&model, &batch, worst, memory, None);
    let (_, peak) = peak_above(step);
    [peak as f64 / MIB, milliseconds(repetitions, step)]
}

/// How the values of a column grow per unit of the axis between its last two rows, in KiB.
fn slope(points: &[(usize, f64)]) -> String {
    match points {
        [.., (from, low), (to, high)] => {
            format!("{:.1}", (high - low) * 1024.0 / (to - from) as f64)
        }
        _ => String::new(),
    }
}

fn table(axis: &Axis, quick: bool) -> Table {
    let mut head = vec![axis.name.to_owned()];
    for memory in ["keep", "recompute"] {
        head.extend(["MiB", "KiB per unit", "ms"].map(|unit| format!("{memory}, {unit}")));
    }
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    let (count, repetitions) = if quick { (2, 1) } else { (axis.values.len(), 3) };
    let mut points = [Vec::new(), Vec::new()];
    for &value in &axis.values[..count] {
        let mut cells = vec![value.to_string()];
        for (memory, points) in [Memory::Keep, Memory::Recompute].into_iter().zip(&mut points) {
            let [peak, milliseconds] = measure((axis.shape)(value), memory, repetitions);
            points.push((value, peak));
            cells.extend([format!("{peak:.1}"), slope(points), format!("{milliseconds:.1}")]);
        }
        table.row(cells);
    }
    table
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let Shape { hidden, layers, sequence, vocabulary, .. } = SMALL;
    println!(
        "dim {hidden}; elsewhere {layers} layers, one row of {sequence} tokens, vocabulary \
         {vocabulary}\n"
    );
    for axis in &AXES {
        println!("{}", table(axis, quick));
    }
}
