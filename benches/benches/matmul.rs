//! The matrix products of a training step against the fastest large product of this machine, and
//! the step itself against the sum of its products.
//!
//! The second table is the share of a step's time that its products would take at the peak: what is
//! missing to 100 % is everything that is no product, and products that stay below the peak.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ist_benches::measure::{Times, milliseconds};
use ist_benches::table::Table;
use ist_benches::{RANK, Recipe, Shape, arithmetic, batch, draws, model, shape};
use ist_core::burn::tensor::{Device, Distribution, Tensor};
use ist_core::step::{self, Memory};

/// One product [n, k] · [k, m], with the operands as they lie in memory.
struct Product {
    what: &'static str,
    n: usize,
    k: usize,
    m: usize,
    left: Layout,
    right: Layout,
}

/// Whether a matrix lies in memory row by row or as the transpose of one that does.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Rows,
    Transposed,
}

use Layout::{Rows, Transposed};

/// Frozen weights lie as in the files, `[out, in]`: forward passes read their transpose, backward
/// passes the rows.
fn products(shape: &Shape) -> Vec<Product> {
    let (n, hidden, intermediate) = (shape.tokens(), shape.hidden, shape.intermediate);
    let product = |what, n, k, m, left, right| Product { what, n, k, m, left, right };
    vec![
        product("q, k, v, o", n, hidden, hidden, Rows, Transposed),
        product("gate, up", n, hidden, intermediate, Rows, Transposed),
        product("down", n, intermediate, hidden, Rows, Transposed),
        product("d input of q, k, v, o", n, hidden, hidden, Rows, Rows),
        product("d input of gate, up", n, intermediate, hidden, Rows, Rows),
        product("d input of down", n, hidden, intermediate, Rows, Rows),
        product("x A", n, hidden, RANK, Rows, Rows),
        product("(x A) B", n, RANK, intermediate, Rows, Rows),
        product("g Bᵀ", n, intermediate, RANK, Rows, Transposed),
        product("d A", hidden, n, RANK, Transposed, Rows),
        product("d B", RANK, n, intermediate, Transposed, Rows),
        product("head", n, hidden, shape.vocabulary, Rows, Transposed),
        product("d input of the head", n, shape.vocabulary, hidden, Rows, Rows),
    ]
}

fn matrix([rows, columns]: [usize; 2], layout: Layout, device: &Device) -> Tensor<2> {
    let random = |shape| Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), device);
    if layout == Rows { random([rows, columns]) } else { random([columns, rows]).transpose() }
}

impl Product {
    fn large([n, k, m]: [usize; 3]) -> Self {
        Self { what: "large", n, k, m, left: Rows, right: Rows }
    }

    fn name(&self) -> String {
        format!("{}/{}x{}x{}", self.what, self.n, self.k, self.m)
    }

    fn operations(&self) -> f64 {
        2.0 * (self.n * self.k * self.m) as f64
    }

    /// The most floating-point operations a second, in 10⁹.
    fn measure(&self, criterion: &mut Criterion) -> Option<f64> {
        let device = Device::flex();
        let (left, right) = (
            matrix([self.n, self.k], self.left, &device),
            matrix([self.k, self.m], self.right, &device),
        );
        let times = Times::default();
        let mut group = criterion.benchmark_group("matmul");
        group.throughput(Throughput::Elements(self.operations() as u64));
        group.bench_function(self.name(), |bencher| {
            bencher.iter_custom(|count| times.run(count, || left.clone().matmul(right.clone())));
        });
        times.least().map(|milliseconds| self.operations() / milliseconds / 1e6)
    }
}

/// The machine's peak: the best of several large products. Squares, and a long one whose result is
/// small: burn allocates every result anew, and the first touch of fresh memory takes time that is
/// not the processor's arithmetic.
fn peak(criterion: &mut Criterion) -> f64 {
    let sizes = if quick() {
        [[512; 3], [768; 3], [256, 2048, 256]]
    } else {
        [[1024; 3], [2048; 3], [512, 4096, 512]]
    };
    let rates = sizes.map(|size| Product::large(size).measure(criterion));
    rates.into_iter().flatten().fold(0.0, f64::max)
}

fn quick() -> bool {
    std::env::args().any(|argument| argument == "--test" || argument == "--quick")
}

fn matmul(criterion: &mut Criterion) {
    let (shape, peak) = (shape(), peak(criterion));
    let mut table = Table::new(&["product", "n × k × m", "GF/s", "share of the peak"]);
    for product in products(&shape) {
        let Some(rate) = product.measure(criterion) else { continue };
        let size = format!("{} × {} × {}", product.n, product.k, product.m);
        table.row([
            product.what.to_owned(),
            size,
            format!("{rate:.1}"),
            format!("{:.0} %", 100.0 * rate / peak),
        ]);
    }
    println!("\nmachine's peak: {peak:.1} GF/s\n\n{table}");
    if peak > 0.0 {
        println!("{}", shares(&shape, peak));
    }
}

/// Of every kind of step: its time, the time of its products at `peak` GF/s, and the share.
fn shares(shape: &Shape, peak: f64) -> Table {
    let device = Device::flex();
    let (model, batch) = (model(*shape, Recipe::default(), &device), [batch(*shape, &device)]);
    let mut table =
        Table::new(&["draw", "memory", "step, ms", "its products at the peak, ms", "share"]);
    for (name, set) in draws(shape.layers) {
        for memory in [Memory::Keep, Memory::Recompute] {
            let repetitions = if quick() { 1 } else { 5 };
            let step =
                milliseconds(repetitions, || step::gradients(&model, &batch, &set, memory, None));
            let least = arithmetic::step(shape, RANK, &set, memory) / peak / 1e6;
            let figures = [
                format!("{step:.1}"),
                format!("{least:.1}"),
                format!("{:.0} %", 100.0 * least / step),
            ];
            table.row(
                [name.to_owned(), format!("{memory:?}").to_lowercase()].into_iter().chain(figures),
            );
        }
    }
    table
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = matmul
}
criterion_main!(benches);
