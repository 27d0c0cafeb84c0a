//! Rotary position embedding (Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864)), in Hugging Face's layout:
//! feature i of a head is paired with feature i + `head_dim` / 2.

use ist_core::burn::tensor::{DType, Device, Tensor, TensorData};

/// cos and sin of every position's angles, both `[batch or 1, 1, sequence, head_dim]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// The rotation of `positions`, one list a row, by angles position · `inverse_frequencies` (`[head_dim / 2]`).
    pub fn new(inverse_frequencies: &[f64], positions: &[Vec<usize>], dtype: DType, device: &Device) -> Self {
        let sequence = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), 1, sequence, 2 * inverse_frequencies.len()];
        let table = |function: fn(f64) -> f64| {
            let angles = positions.iter().flatten().flat_map(|&position| {
                let half = inverse_frequencies.iter().map(move |frequency| position as f64 * frequency);
                half.clone().chain(half)
            });
            let values: Vec<f64> = angles.map(function).collect();
            Tensor::from_data(TensorData::new(values, shape), (device, dtype))
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// x cos + rotate(x) sin with rotate([a, b]) = [-b, a]; x `[batch, heads, sequence, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let rotated = Tensor::cat(vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)], 3);
        x * self.cos.clone() + rotated * self.sin.clone()
    }
}
