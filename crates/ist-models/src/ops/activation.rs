//! The element-wise functions of MLPs, with their derivatives.

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x σ(x).
    Silu,
    /// x Φ(x) with the normal distribution's Φ (Hendrycks & Gimpel, [arXiv 1606.08415](https://arxiv.org/abs/1606.08415)).
    Gelu,
    /// GELU with Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
}

const ROOT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// 1 / √(2π), the normal density at 0.
pub(super) const DENSITY: f64 = 0.398_942_280_401_432_7;
/// √(2/π).
pub(super) const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
pub(super) const TANH_CUBE: f64 = 0.044_715;

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
        // (1 + t) / 2 and its derivative (1 - t²) / 2 · d for the tanh t of an argument whose derivative is d.
        let half_of = |t: FloatTensor<B>, d: FloatTensor<B>| {
            let rest = plus(B::float_neg(B::float_mul(t.clone(), t.clone())), 1.0);
            (times(plus(t, 1.0), 0.5), times(B::float_mul(rest, d), 0.5))
        };
        match self {
            // σ(x) = (1 + tanh(x / 2)) / 2.
            Self::Silu => {
                let tanh = B::float_tanh(times(x.clone(), 0.5));
                half_of(tanh.clone(), plus(times(tanh, 0.0), 0.5))
            }
            Self::Gelu => {
                let gate = times(plus(B::float_erf(times(x.clone(), ROOT_HALF)), 1.0), 0.5);
                let square = B::float_mul(x.clone(), x.clone());
                (gate, times(B::float_exp(times(square, -0.5)), DENSITY))
            }
            Self::GeluTanh => {
                let square = B::float_mul(x.clone(), x.clone());
                let inner = times(
                    B::float_mul(x.clone(), plus(times(square.clone(), TANH_CUBE), 1.0)),
                    TANH_SCALE,
                );
                half_of(
                    B::float_tanh(inner),
                    times(plus(times(square, 3.0 * TANH_CUBE), 1.0), TANH_SCALE),
                )
            }
        }
    }
}

#[cfg(feature = "flex")]
pub(super) use slices::{activate, differentiate, differentiate_gated, gated};

/// The same on slices.
#[cfg(feature = "flex")]
mod slices {
    #![expect(
        clippy::inline_always,
        reason = "a loop is compiled for the instruction set it is run with only if it is inlined"
    )]

    use ist_core::operation::flex::{Loop, exp, vectorized};

    use super::{Activation, DENSITY, ROOT_HALF, TANH_CUBE, TANH_SCALE};

    /// y = x g(x): g and g' at one number.
    trait Gate {
        /// Always inlined into a loop that is compiled for an instruction set.
        fn at(x: f32) -> (f32, f32);
    }

    #[inline(always)]
    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + exp(-x))
    }

    struct Silu;

    impl Gate for Silu {
        #[inline(always)]
        fn at(x: f32) -> (f32, f32) {
            let gate = sigmoid(x);
            (gate, gate * (1.0 - gate))
        }
    }

    struct Gelu;

    impl Gate for Gelu {
        #[inline(always)]
        fn at(x: f32) -> (f32, f32) {
            let density = exp(-0.5 * x * x);
            (normal_distribution(x, density), DENSITY as f32 * density)
        }
    }

    struct GeluTanh;

    impl Gate for GeluTanh {
        /// (1 + tanh(u)) / 2 = σ(2u).
        #[inline(always)]
        fn at(x: f32) -> (f32, f32) {
            let gate = sigmoid(2.0 * TANH_SCALE as f32 * x * (1.0 + TANH_CUBE as f32 * x * x));
            let slope = 2.0 * TANH_SCALE as f32 * (1.0 + 3.0 * TANH_CUBE as f32 * x * x);
            (gate, gate * (1.0 - gate) * slope)
        }
    }

    /// Φ(x) from e^(-x²/2) within 8e-8 (Abramowitz & Stegun 7.1.26).
    #[inline(always)]
    fn normal_distribution(x: f32, density: f32) -> f32 {
        let t = 1.0 / (1.0 + 0.327_591_1 * ROOT_HALF as f32 * x.abs());
        let polynomial = t
            * (0.254_829_6
                + t * (-0.284_496_74 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
        let tail = 0.5 * polynomial * density;
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    /// A loop for each activation over the given slices.
    macro_rules! loop_for {
        ($(#[$doc:meta])* $name:ident, $kernel:ident($($slice:ident: $type:ty),+), $gate:ident, $body:block) => {
            struct $kernel<'a, G>($($type,)+ std::marker::PhantomData<G>);

            impl<G: Gate> Loop for $kernel<'_, G> {
                type Output = ();

                #[inline(always)]
                fn run(self) {
                    let Self($($slice,)+ _) = self;
                    let $gate = G::at;
                    $body
                }
            }

            $(#[$doc])*
            pub(in crate::ops) fn $name<'a>(activation: Activation, $($slice: $type),+) {
                use std::marker::PhantomData;
                match activation {
                    Activation::Silu => vectorized($kernel::<Silu>($($slice,)+ PhantomData)),
                    Activation::Gelu => vectorized($kernel::<Gelu>($($slice,)+ PhantomData)),
                    Activation::GeluTanh => vectorized($kernel::<GeluTanh>($($slice,)+ PhantomData)),
                }
            }
        };
    }

    loop_for!(
        /// x becomes a(x).
        activate, ActivateLoop(values: &'a mut [f32]), at, {
        for x in values {
            *x *= at(*x).0;
        }
    });

    loop_for!(
        /// x becomes g a'(x).
        differentiate, DifferentiateLoop(values: &'a mut [f32], gradient: &'a [f32]), at, {
        for (x, gradient) in values.iter_mut().zip(gradient) {
            let (gate, slope) = at(*x);
            *x = gradient * (gate + *x * slope);
        }
    });

    loop_for!(
        /// up becomes a(gate) up.
        gated, GatedLoop(up: &'a mut [f32], gate: &'a [f32]), at, {
        for (up, gate) in up.iter_mut().zip(gate) {
            *up *= gate * at(*gate).0;
        }
    });

    loop_for!(
        /// gate becomes g up a'(gate) and up becomes g a(gate).
        differentiate_gated, DifferentiateGatedLoop(gate: &'a mut [f32], up: &'a mut [f32], gradient: &'a [f32]), at, {
        for ((gate, up), gradient) in gate.iter_mut().zip(up).zip(gradient) {
            let (factor, slope) = at(*gate);
            let (value, derivative) = (*gate * factor, factor + *gate * slope);
            *gate = gradient * *up * derivative;
            *up = gradient * value;
        }
    });
}
