//! What LoRA's A and B start from.
//!
//! PiSSA and OLoRA start at a part of the frozen weight. In the layout of the code, W `[in, out]` and scaling s:
//!
//! - PiSSA: W = U diag(σ) Vᵀ, A₀ = U_r diag(√(σ / s)), B₀ = diag(√(σ / s)) V_rᵀ of the r largest σ, so s A₀ B₀ is the best
//!   approximation of W of rank r. `pissa_niter_N` takes them from a subspace of r dimensions found by N iterations from a
//!   random one (Halko et al., [arXiv 0909.4061](https://arxiv.org/abs/0909.4061)), as PyTorch's `svd_lowrank` does.
//! - OLoRA: Wᵀ = Q R, A₀ = the first r rows of R, transposed, B₀ = the first r columns of Q, transposed, not divided by s. Those
//!   columns depend on the first r columns of Wᵀ alone, and those rows of R are Q_rᵀ Wᵀ.
//!
//! Signs are arbitrary: row i of B₀ and column i of A₀ may both be negated. Where r exceeds min(in, out), the rest of A₀ and B₀
//! is zero. Decompositions run in f64.

use ist_core::burn;

use burn::tensor::{DType, Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use ist_core::streams;
use rand::RngExt;

use crate::method::Place;
use crate::methods::lora::config::{LoraConfig, LoraInit};
use crate::parameter::normal;
use crate::site::{Site, SiteKind};

/// A, B and, where they start in the weight, [A₀, -B₀].
pub(crate) struct Start {
    /// `[in, r]`.
    pub(crate) a: Tensor<2>,
    /// `[r, out]`.
    pub(crate) b: Tensor<2>,
    /// `[in, r]` and `[r, out]`.
    pub(crate) initial: Option<[Tensor<2>; 2]>,
}

impl Start {
    /// From A and B as the file has them, which there may stand beside A₀ and -B₀.
    pub(crate) fn from_file(config: &LoraConfig, site: &Site, [a, b]: [Tensor<2>; 2]) -> Self {
        if !config.init.starts_in_weight() {
            return Self { a, b, initial: None };
        }
        let rank = config.rank_of(&site.path);
        // Copies, so that none of them is half of a larger tensor.
        let part = |tensor: &Tensor<2>, dimension: usize, from: usize| {
            let part = tensor.clone().narrow(dimension, from, rank);
            Tensor::from_data(part.to_data(), (&part.device(), part.dtype()))
        };
        let initial = Some([part(&a, 1, rank), part(&b, 0, rank)]);
        Self { a: part(&a, 1, 0), b: part(&b, 0, 0), initial }
    }
}

/// What a fresh adapter starts from; `seed` fixes its random numbers.
pub(crate) fn start(config: &LoraConfig, place: &Place, seed: u64, device: &Device) -> Start {
    let site = &place.site;
    let (rank, [d_in, d_out]) = (config.rank_of(&site.path), [site.d_in, site.d_out]);
    let mut rng = streams::stream(seed, &site.path);
    let tensor =
        |values: Vec<f32>, shape| Tensor::from_data(TensorData::new(values, shape), device);
    let mut normals = |count: usize, deviation: f64| -> Vec<f64> {
        (0..count).map(|_| deviation * normal(&mut rng)).collect()
    };
    let singles =
        |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<f32>>();
    let (a, b) = match config.init {
        _ if site.kind == SiteKind::Embedding => {
            (vec![0.0; d_in * rank], singles(normals(rank * d_out, 1.0)))
        }
        LoraInit::Kaiming => {
            let bound = 1.0 / (d_in as f64).sqrt();
            let a = (0..d_in * rank).map(|_| rng.random_range(-bound..bound) as f32).collect();
            (a, vec![0.0; rank * d_out])
        }
        LoraInit::Gaussian => {
            (singles(normals(d_in * rank, 1.0 / rank as f64)), vec![0.0; rank * d_out])
        }
        LoraInit::Pissa { iterations } => {
            let weight = matrix(place);
            let [a, b] = match iterations {
                None => apart(|| exact(weight.as_ref(), rank)),
                Some(count) => {
                    let sketch = normals(d_out * rank.min(d_in).min(d_out), 1.0);
                    apart(|| randomised(weight.as_ref(), &sketch, count))
                }
            };
            let scaling = 1.0 / config.scaling_of(&site.path).sqrt();
            (
                rows(&(a * faer::Scale(scaling)), [d_in, rank]),
                rows(&(b * faer::Scale(scaling)), [rank, d_out]),
            )
        }
        LoraInit::Olora => {
            let weight = matrix(place);
            let [a, b] = apart(|| orthogonal(weight.as_ref(), rank));
            (rows(&a, [d_in, rank]), rows(&b, [rank, d_out]))
        }
    };
    let (a, b) = (tensor(a, [d_in, rank]), tensor(b, [rank, d_out]));
    let initial = config.init.starts_in_weight().then(|| {
        let minus_b = b.clone().neg();
        [Tensor::from_data(a.to_data(), device), minus_b]
    });
    Start { a, b, initial }
}

/// The result of `work` on a thread of its own: a thread keeps megabytes of workspace once it has multiplied here.
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

/// A matrix row by row, filled up with zeros to a shape.
fn rows(matrix: &Mat<f64>, [height, width]: [usize; 2]) -> Vec<f32> {
    let at = |row: usize, column: usize| {
        if row < matrix.nrows() && column < matrix.ncols() {
            matrix[(row, column)] as f32
        } else {
            0.0
        }
    };
    (0..height * width).map(|index| at(index / width, index % width)).collect()
}

/// U_r diag(√σ) and diag(√σ) V_rᵀ of the r largest singular values.
fn exact(weight: MatRef<f64>, rank: usize) -> [Mat<f64>; 2] {
    let decomposed = weight.thin_svd().expect("the decomposition of finite numbers converges");
    halves(
        decomposed.U(),
        &decomposed.S().column_vector().iter().copied().collect::<Vec<_>>(),
        decomposed.V(),
        rank,
    )
}

/// U diag(√σ) and diag(√σ) Vᵀ of the first r singular values.
fn halves(u: MatRef<f64>, sigma: &[f64], v: MatRef<f64>, rank: usize) -> [Mat<f64>; 2] {
    let rank = rank.min(sigma.len());
    let root = |at: usize| sigma[at].max(0.0).sqrt();
    let down = Mat::from_fn(u.nrows(), rank, |row, at| u[(row, at)] * root(at));
    [down, Mat::from_fn(rank, v.nrows(), |at, column| v[(column, at)] * root(at))]
}

/// The same from a subspace of as many dimensions as the random `sketch` `[out, r]` has columns.
fn randomised(weight: MatRef<f64>, sketch: &[f64], iterations: usize) -> [Mat<f64>; 2] {
    let rank = sketch.len() / weight.ncols();
    let sketch = Mat::from_fn(weight.ncols(), rank, |row, column| sketch[row * rank + column]);
    let mut basis = orthonormal((weight * &sketch).as_ref());
    for _ in 0..iterations {
        let other = orthonormal((weight.transpose() * &basis).as_ref());
        basis = orthonormal((weight * &other).as_ref());
    }
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
fn orthogonal(weight: MatRef<f64>, rank: usize) -> [Mat<f64>; 2] {
    let rank = rank.min(weight.nrows()).min(weight.ncols());
    let q = orthonormal(weight.transpose().subcols(0, rank));
    [weight * &q, q.transpose().to_owned()]
}
