//! The element-wise functions of MLPs, with their derivatives.
//!
//! Each is y = x g(x) with a g between 0 and 1, so y' = g + x g'.

#[cfg(feature = "cube")]
pub(super) mod cube;
#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

#[cfg(feature = "flex")]
pub(super) use flex::{PART, activate, differentiate, differentiate_gated, gated};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x σ(x).
    Silu,
    /// x Φ(x) with the normal distribution's Φ
    /// (Hendrycks & Gimpel, [arXiv 1606.08415](https://arxiv.org/abs/1606.08415)).
    Gelu,
    /// GELU with Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
}

const ROOT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// 1 / √(2π), the normal density at 0.
const DENSITY: f64 = 0.398_942_280_401_432_7;
/// √(2/π).
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const TANH_CUBE: f64 = 0.044_715;

impl Activation {
    /// The value and the derivative at every element.
    pub(super) fn value_and_derivative<B: Backend>(
        self,
        x: &FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let (gate, slope) = self.gate_and_slope::<B>(x);
        // y = x g, y' = g + x g'.
        let derivative = B::float_add(gate.clone(), B::float_mul(x.clone(), slope));
        (B::float_mul(x.clone(), gate), derivative)
    }

    /// The value at every element.
    pub(super) fn value<B: Backend>(self, x: &FloatTensor<B>) -> FloatTensor<B> {
        B::float_mul(x.clone(), self.gate_and_slope::<B>(x).0)
    }

    /// g and g' of y = x g(x).
    fn gate_and_slope<B: Backend>(self, x: &FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let times = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
        let plus = |x: FloatTensor<B>, term: f64| B::float_add_scalar(x, term.into());
        // (1 + t) / 2 and its derivative (1 - t²) / 2 · d, for the tanh t of an argument whose
        // derivative is d.
        let half_of = |t: FloatTensor<B>, d: FloatTensor<B>| {
            let rest = plus(B::float_neg(B::float_mul(t.clone(), t.clone())), 1.0);
            (times(plus(t, 1.0), 0.5), times(B::float_mul(rest, d), 0.5))
        };
        match self {
            // σ(x) = (1 + tanh(x / 2)) / 2.
            Self::Silu => {
                let tanh = B::float_tanh(times(x.clone(), 0.5));
                // The argument's derivative is 1/2 everywhere; a tensor of it comes from any
                // tensor.
                half_of(tanh.clone(), plus(times(tanh, 0.0), 0.5))
            }
            // Φ(x) = (1 + erf(x / √2)) / 2, whose derivative is the normal density.
            Self::Gelu => {
                let gate = times(plus(B::float_erf(times(x.clone(), ROOT_HALF)), 1.0), 0.5);
                let square = B::float_mul(x.clone(), x.clone());
                (gate, times(B::float_exp(times(square, -0.5)), DENSITY))
            }
            Self::GeluTanh => {
                let square = B::float_mul(x.clone(), x.clone());
                let cubic = plus(times(square.clone(), TANH_CUBE), 1.0);
                let inner = times(B::float_mul(x.clone(), cubic), TANH_SCALE);
                let slope = times(plus(times(square, 3.0 * TANH_CUBE), 1.0), TANH_SCALE);
                half_of(B::float_tanh(inner), slope)
            }
        }
    }
}
