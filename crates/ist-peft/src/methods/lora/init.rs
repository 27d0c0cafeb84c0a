//! What LoRA's A and B start from.
//!
//! PiSSA and OLoRA start at a part of the frozen weight. In the layout of the code, W `[in, out]`
//! and scaling s:
//!
//! - PiSSA: W = U diag(σ) Vᵀ, A₀ = U_r diag(√(σ / s)), B₀ = diag(√(σ / s)) V_rᵀ of the r largest σ.
//!   So s A₀ B₀ is the best approximation of W of rank r. `pissa_niter_N` takes them from a
//!   subspace of r dimensions found by N iterations from a random one (Halko et al.,
//!   [arXiv 0909.4061](https://arxiv.org/abs/0909.4061)), as PyTorch's `svd_lowrank` does.
//! - OLoRA: Wᵀ = Q R, A₀ = the first r rows of R, transposed, B₀ = the first r columns of Q,
//!   transposed, not divided by s. Those columns depend on the first r columns of Wᵀ alone, and
//!   those rows of R are Q_rᵀ Wᵀ.
//!
//! Signs are arbitrary: row i of B₀ and column i of A₀ may both be negated. Where r exceeds
//! min(in, out), the rest of A₀ and B₀ is zero. Decompositions run in f64.

use ist_core::{burn, streams};

use burn::tensor::{DType, Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use rand::RngExt;

use crate::frozen::lora_linear::Factors;
use crate::method::Place;
use crate::methods::lora::config::{LoraConfig, LoraInit, LowRankConfig};
use crate::parameter::{MatrixShape, kaiming_values, normal};
use crate::site::{Site, SiteKind};

/// What an adapter starts from.
pub(crate) struct Start {
    /// A `[in, r]` and B `[r, out]`.
    pub(crate) factors: Factors,
    /// A₀ and -B₀, where A and B start in the weight.
    pub(crate) initial: Option<Factors>,
}

impl Start {
    /// From A and B as the file has them. There A₀ and -B₀ may stand beside them.
    pub(crate) fn from_file(config: &LoraConfig, site: &Site, stored: Factors) -> Self {
        if !config.init.starts_in_weight() {
            return Self { factors: stored, initial: None };
        }
        let rank = config.low_rank.rank_of(&site.path);
        // Copies, so that none of them is half of a larger tensor.
        let part = |tensor: &Tensor<2>, dimension: usize, from: usize| {
            let part = tensor.clone().narrow(dimension, from, rank);
            Tensor::from_data(part.to_data(), (&part.device(), part.dtype()))
        };
        let factors =
            |from: usize| Factors { a: part(&stored.a, 1, from), b: part(&stored.b, 0, from) };
        Self { factors: factors(0), initial: Some(factors(rank)) }
    }
}

/// A and B as numbers, row by row.
struct FactorValues {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// The sizes of A and B.
#[derive(Clone, Copy)]
struct Sizes {
    d_in: usize,
    rank: usize,
    d_out: usize,
}

/// A pair of matrices whose product is a part of W: `[in, r]` and `[r, out]`.
struct WeightPart {
    down: Mat<f64>,
    up: Mat<f64>,
}

/// What a fresh adapter starts from. `seed` fixes its random numbers.
pub(crate) fn start(
    init: LoraInit,
    config: &LowRankConfig,
    place: &Place,
    seed: u64,
    device: &Device,
) -> Start {
    let site = &place.site;
    let sizes = Sizes { d_in: site.d_in, rank: config.rank_of(&site.path), d_out: site.d_out };
    let Sizes { d_in, rank, d_out } = sizes;
    // A module's numbers depend on its path alone, so they do not change with the other targets.
    let mut rng = streams::stream(seed, &site.path);
    let values = match init {
        // An embedding reads rows of A, so there A is zero and B random.
        _ if site.kind == SiteKind::Embedding => FactorValues {
            a: vec![0.0; d_in * rank],
            b: singles(normals(&mut rng, rank * d_out, 1.0)),
        },
        LoraInit::Kaiming => FactorValues {
            a: kaiming_values(&mut rng, MatrixShape { rows: d_in, columns: rank }),
            b: vec![0.0; rank * d_out],
        },
        LoraInit::Gaussian => FactorValues {
            a: singles(normals(&mut rng, d_in * rank, 1.0 / rank as f64)),
            b: vec![0.0; rank * d_out],
        },
        LoraInit::Pissa { iterations } => {
            let weight = matrix(place);
            let part = match iterations {
                None => apart(|| exact(weight.as_ref(), rank)),
                Some(count) => {
                    let sketch = normals(&mut rng, d_out * rank.min(d_in).min(d_out), 1.0);
                    apart(|| randomised(weight.as_ref(), &sketch, count))
                }
            };
            // s A₀ B₀ is the part, so each factor takes 1 / √s.
            part.values(1.0 / config.scaling_of(&site.path).sqrt(), sizes)
        }
        LoraInit::Olora => {
            let weight = matrix(place);
            apart(|| orthogonal(weight.as_ref(), rank)).values(1.0, sizes)
        }
    };
    let tensor =
        |values: Vec<f32>, shape| Tensor::from_data(TensorData::new(values, shape), device);
    let a: Tensor<2> = tensor(values.a, [d_in, rank]);
    let b: Tensor<2> = tensor(values.b, [rank, d_out]);
    let initial = init.starts_in_weight().then(|| {
        // A copy of A: A₀ must stay where A trains.
        Factors { a: Tensor::from_data(a.to_data(), device), b: b.clone().neg() }
    });
    Start { factors: Factors { a, b }, initial }
}

/// Normal numbers of that deviation.
fn normals(rng: &mut impl RngExt, count: usize, deviation: f64) -> Vec<f64> {
    (0..count).map(|_| deviation * normal(rng)).collect()
}

fn singles(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

/// The result of `work` on a thread of its own. A thread keeps megabytes of workspace once it has
/// multiplied here, and gives them back only when it ends.
fn apart<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(work).join())
        .expect("decompositions of finite numbers do not panic")
}

/// W `[in, out]` in f64.
fn matrix(place: &Place) -> Mat<f64> {
    let weight = place.base.matrix().at_rest(1.0).inner().cast(DType::F32);
    let [d_in, d_out] = weight.dims();
    let values: Vec<f32> = weight.into_data().iter::<f32>().collect();
    Mat::from_fn(d_in, d_out, |row, column| f64::from(values[row * d_out + column]))
}

impl WeightPart {
    /// Both matrices times `scaling`, filled up with zeros to the sizes of A and B.
    fn values(self, scaling: f64, sizes: Sizes) -> FactorValues {
        let down = MatrixShape { rows: sizes.d_in, columns: sizes.rank };
        let up = MatrixShape { rows: sizes.rank, columns: sizes.d_out };
        FactorValues { a: padded(&self.down, scaling, down), b: padded(&self.up, scaling, up) }
    }
}

/// A matrix times `scaling` row by row, filled up with zeros to a shape.
fn padded(matrix: &Mat<f64>, scaling: f64, shape: MatrixShape) -> Vec<f32> {
    let at = |row: usize, column: usize| {
        if row < matrix.nrows() && column < matrix.ncols() {
            (matrix[(row, column)] * scaling) as f32
        } else {
            0.0
        }
    };
    let elements = 0..shape.rows * shape.columns;
    elements.map(|index| at(index / shape.columns, index % shape.columns)).collect()
}

/// U_r diag(√σ) and diag(√σ) V_rᵀ of the r largest singular values.
fn exact(weight: MatRef<f64>, rank: usize) -> WeightPart {
    let decomposed = weight.thin_svd().expect("the decomposition of finite numbers converges");
    let sigma: Vec<f64> = decomposed.S().column_vector().iter().copied().collect();
    halves(decomposed.U(), &sigma, decomposed.V(), rank)
}

/// U diag(√σ) and diag(√σ) Vᵀ of the first r singular values.
fn halves(u: MatRef<f64>, sigma: &[f64], v: MatRef<f64>, rank: usize) -> WeightPart {
    let rank = rank.min(sigma.len());
    // Rounding can leave a singular value of 0 slightly below it.
    let root = |at: usize| sigma[at].max(0.0).sqrt();
    WeightPart {
        down: Mat::from_fn(u.nrows(), rank, |row, at| u[(row, at)] * root(at)),
        up: Mat::from_fn(rank, v.nrows(), |at, column| v[(column, at)] * root(at)),
    }
}

/// The same from a subspace of as many dimensions as the random `sketch` `[out, r]` has columns.
fn randomised(weight: MatRef<f64>, sketch: &[f64], iterations: usize) -> WeightPart {
    let rank = sketch.len() / weight.ncols();
    let sketch = Mat::from_fn(weight.ncols(), rank, |row, column| sketch[row * rank + column]);
    let mut basis = orthonormal((weight * &sketch).as_ref());
    // Every iteration multiplies by W Wᵀ, which separates large singular values from small ones.
    // Without a basis in between, all columns would come to the largest.
    for _ in 0..iterations {
        let other = orthonormal((weight.transpose() * &basis).as_ref());
        basis = orthonormal((weight * &other).as_ref());
    }
    // W ≈ basis · (basisᵀ W), and the second factor is small enough to be decomposed exactly.
    let small = basis.transpose() * weight;
    let decomposed = small.thin_svd().expect("the decomposition of finite numbers converges");
    let sigma: Vec<f64> = decomposed.S().column_vector().iter().copied().collect();
    halves((&basis * decomposed.U()).as_ref(), &sigma, decomposed.V(), rank)
}

/// An orthonormal basis of the columns' span.
fn orthonormal(matrix: MatRef<f64>) -> Mat<f64> {
    matrix.qr().compute_thin_Q()
}

/// R_rᵀ `[in, r]` and Q_rᵀ `[r, out]` of Wᵀ = Q R.
fn orthogonal(weight: MatRef<f64>, rank: usize) -> WeightPart {
    let rank = rank.min(weight.nrows()).min(weight.ncols());
    let q = orthonormal(weight.transpose().subcols(0, rank));
    WeightPart { down: weight * &q, up: q.transpose().to_owned() }
}
