//! Cross-entropy on GPUs: one cube a row of logits.
//!
//! A cube reads its row once for the loss, and once more for the gradient, which takes the logits'
//! place.

use ist_core::burn;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use ist_core::operation::cube::{self, CubeBackend, CubeTensor, cubecl};
use ist_core::operation::{Operands, Operation};

use cubecl::ir::{ElemType, IntKind};
use cubecl::prelude::*;

use super::CrossEntropy;

/// The losses; by the formula where the logits are not of f32.
pub(super) fn forward(of: &CrossEntropy, inputs: Operands<CubeBackend>) -> CubeTensor {
    if !cube::all_f32(&inputs.floats) {
        return of.forward(inputs);
    }
    let targets = inputs.ints[0].clone();
    let [logits] = inputs.floats();
    differentiate(RowLogits::plain(logits, targets), Wanted::Losses).losses
}

/// The gradient of the logits; by the formula where they are not of f32.
pub(super) fn backward(
    of: &CrossEntropy,
    saved: Operands<CubeBackend>,
    gradient: CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    if !cube::all_f32(&saved.floats) {
        return of.backward(saved, gradient, wanted);
    }
    let targets = saved.ints[0].clone();
    let [logits] = saved.floats();
    vec![Some(differentiate(RowLogits::plain(logits, targets), Wanted::Times(gradient)).logits)]
}

/// Logits `[rows, vocabulary]` and what follows them.
#[derive(Clone, Debug)]
pub(in crate::ops) struct RowLogits {
    pub(in crate::ops) logits: CubeTensor,
    /// `[rows]`.
    pub(in crate::ops) targets: CubeTensor,
    /// `[vocabulary]`, added to every row.
    pub(in crate::ops) bias: Option<CubeTensor>,
    /// The bound of what the bias was added to.
    pub(in crate::ops) cap: Option<f64>,
}

impl RowLogits {
    /// Logits without bias and cap.
    fn plain(logits: CubeTensor, targets: CubeTensor) -> Self {
        Self { logits, targets, bias: None, cap: None }
    }
}

/// What [`differentiate`] finds.
#[derive(Clone, Debug)]
pub(in crate::ops) struct RowLosses {
    /// `[rows]`.
    pub(in crate::ops) losses: CubeTensor,
    /// The logits, or what was written in their place.
    pub(in crate::ops) logits: CubeTensor,
}

/// What is asked for beside the losses.
#[derive(Clone, Debug)]
pub(in crate::ops) enum Wanted {
    /// Nothing.
    Losses,
    /// The gradient of every row's loss, in the place of its logits.
    Gradients,
    /// That gradient times the row's factor.
    Times(CubeTensor),
}

/// What stands between a logit and the softmax, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shaping {
    /// Whether a bias is added.
    bias: bool,
    /// Whether c · tanh(· / c) follows.
    cap: bool,
    /// Whether the gradient is written, and whether it has a factor.
    gradient: Option<bool>,
}

/// A logit with its bias and its cap.
#[cube]
fn shaped(
    logit: f32,
    bias: &Tensor<f32>,
    at: usize,
    cap: f32,
    #[comptime] shaping: Shaping,
) -> f32 {
    let mut value = logit;
    if comptime!(shaping.bias) {
        value += bias[at];
    }
    if comptime!(shaping.cap) {
        // c · tanh(z / c), by an exponential that cannot overflow.
        let power = (-2.0f32 * (value / cap).abs()).exp();
        let bounded = cap * (1.0f32 - power) / (1.0f32 + power);
        value = select(value < 0.0f32, -bounded, bounded);
    }
    value
}

/// The derivative of [`shaped`] where its value is `value`.
#[cube]
fn through_cap(value: f32, cap: f32, #[comptime] shaping: Shaping) -> f32 {
    let mut slope = 1.0f32;
    if comptime!(shaping.cap) {
        slope = 1.0f32 - (value / cap) * (value / cap);
    }
    slope
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
#[expect(clippy::used_underscore_binding, reason = "the macro reads the type of the targets")]
fn differentiate_kernel<I: Int>(
    logits: &mut Tensor<f32>,
    bias: &Tensor<f32>,
    targets: &Tensor<I>,
    factors: &Tensor<f32>,
    losses: &mut Tensor<f32>,
    rows: u32,
    width: u32,
    cap: f32,
    #[comptime] shaping: Shaping,
    #[comptime] units: usize,
    #[define(I)] _target: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let width = width as usize;
    let start = row * width;
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let target = u32::cast_from(targets[row]) as usize;
    // The target's logit, before any is written over.
    let chosen = shaped(logits[start + target], bias, target, cap, shaping);
    // The softmax's denominator in one pass: every unit keeps the largest value of its share and
    // the sum relative to it, and brings the sum along when a larger value comes.
    let mut high = f32::min_value();
    let mut sum = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let value = shaped(logits[start + at], bias, at, cap, shaping);
        let higher = max(high, value);
        sum = sum * (high - higher).exp() + (value - higher).exp();
        high = higher;
        at += units;
    }
    // Then all shares are brought to the largest value of the row.
    let highest = cube::most(high, &mut scratch, units);
    let sum = cube::sum(sum * (high - highest).exp(), &mut scratch, units);
    if UNIT_POS == 0 {
        losses[row] = sum.ln() + highest - chosen;
    }
    // The second pass over the row. Every unit writes what it alone reads, so no barrier is needed.
    if comptime!(shaping.gradient.is_some()) {
        let mut scale = 1.0f32;
        if comptime!(shaping.gradient == Some(true)) {
            scale = factors[row];
        }
        let mut at = UNIT_POS as usize;
        while at < width {
            let value = shaped(logits[start + at], bias, at, cap, shaping);
            let hit = select(at == target, 1.0f32, 0.0f32);
            let gradient = (value - highest).exp() / sum - hit;
            logits[start + at] = gradient * through_cap(value, cap, shaping) * scale;
            at += units;
        }
    }
}

/// The losses of all rows, and the logits or what is in their place.
pub(in crate::ops) fn differentiate(rows: RowLogits, wanted: Wanted) -> RowLosses {
    let RowLogits { logits, targets, bias, cap } = rows;
    let mut logits = cube::contiguous(logits);
    let targets = cube::contiguous(targets);
    let (gradient, factors) = match wanted {
        Wanted::Losses => (None, None),
        Wanted::Gradients => (Some(false), None),
        Wanted::Times(factors) => (Some(true), Some(factors)),
    };
    // Somebody else holds the logits: the gradient must not take their place.
    if gradient.is_some() && !logits.can_mut() {
        logits = logits.copy();
    }
    let [rows, width] = logits.shape().dims::<2>();
    let losses = cube::empty(&logits, [rows]);
    let shaping = Shaping { bias: bias.is_some(), cap: cap.is_some(), gradient };
    // A kernel has all its buffers, also those that it was compiled not to read.
    let [bias, factors] = [bias, factors]
        .map(|operand| operand.map_or_else(|| cube::empty(&logits, [1]), cube::contiguous));
    let client = logits.client.clone();
    let units = cube::units(width);
    let integer = if targets.dtype == DType::I64 { IntKind::I64 } else { IntKind::I32 };
    differentiate_kernel::launch(
        &client,
        cube::cubes(rows),
        CubeDim::new_1d(units as u32),
        logits.clone().into_tensor_arg(),
        bias.into_tensor_arg(),
        targets.into_tensor_arg(),
        factors.into_tensor_arg(),
        losses.clone().into_tensor_arg(),
        rows as u32,
        width as u32,
        cap.unwrap_or(1.0) as f32,
        shaping,
        units,
        ElemType::Int(integer),
    );
    RowLosses { losses, logits }
}
