//! Activations on slices, vectorised.
//!
//! [`vectorized`] compiles a loop once for every instruction set and runs the widest that the
//! processor has. So each activation is a type with an inlined function at one number, and
//! `loop_for!` writes a loop for each of them.

#![expect(
    clippy::inline_always,
    reason = "a loop is compiled for the instruction set it is run with only if it is inlined"
)]

use ist_core::operation::flex::{Loop, exp, vectorized};

use super::{Activation, DENSITY, ROOT_HALF, TANH_CUBE, TANH_SCALE};

/// Elements of one loop: as many as lie in a core's nearest cache with what is read beside them.
pub(in crate::ops) const PART: usize = 4096;

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
    // The approximation is of erf at |x| / √2, so that both halves are as exact.
    let t = 1.0 / (1.0 + 0.327_591_1 * ROOT_HALF as f32 * x.abs());
    let polynomial = t
        * (0.254_829_6
            + t * (-0.284_496_74 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    let tail = 0.5 * polynomial * density;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// A loop for each activation over the given slices.
macro_rules! loop_for {
    (
        $(#[$doc:meta])*
        $name:ident, $kernel:ident($($slice:ident: $type:ty),+), $gate:ident, $body:block
    ) => {
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
    differentiate_gated,
    DifferentiateGatedLoop(gate: &'a mut [f32], up: &'a mut [f32], gradient: &'a [f32]), at, {
    for ((gate, up), gradient) in gate.iter_mut().zip(up).zip(gradient) {
        let (factor, slope) = at(*gate);
        let value = *gate * factor;
        let derivative = factor + *gate * slope;
        *gate = gradient * *up * derivative;
        *up = gradient * value;
    }
});
