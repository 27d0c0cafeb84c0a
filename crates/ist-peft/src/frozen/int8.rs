//! Weights at rest in eight bits, a scale a block.
//!
//! The weight `[in, out]` is kept as in files, `[out, in]`. Each row is cut into blocks of
//! [`block`] numbers; of a block with the largest magnitude m are kept the scale s = m / 127 and
//! round(w / s) of every w (absolute-maximum quantisation, as in Dettmers et al.,
//! [arXiv 2208.07339](https://arxiv.org/abs/2208.07339), but by blocks). So |w - ŵ| ≤ s / 2 = m /
//! 254, and a weight takes 1 + 4 / block bytes.

use ist_core::burn;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Numbers that share a scale at most.
pub const BLOCK: usize = 64;

/// Numbers that share a scale in rows of `width`: the largest divisor of `width` up to [`BLOCK`];
/// the whole row where that is below 8.
pub fn block(width: usize) -> usize {
    let divisor =
        (1..=BLOCK.min(width.max(1))).rev().find(|size| width.is_multiple_of(*size)).unwrap_or(1);
    if divisor < 8 { width.max(1) } else { divisor }
}

/// A matrix in eight bits.
#[derive(Module, Debug)]
pub struct Int8Matrix {
    /// round(w / s), `[out, in]`.
    pub values: Tensor<2, Int>,
    /// s, `[out, in / block]`.
    pub scales: Tensor<2>,
}

impl Int8Matrix {
    /// The nearest matrix in eight bits to `weight`, which is `[out, in]` as in files.
    pub fn quantise(weight: &TensorData, device: &Device) -> Self {
        let [rows, width] = weight.shape().dims::<2>();
        let size = block(width);
        let numbers: Vec<f32> = weight.iter::<f32>().collect();
        let mut values = Vec::with_capacity(numbers.len());
        let mut scales = Vec::with_capacity(numbers.len() / size);
        for block in numbers.chunks(size) {
            let scale = block.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0;
            // A block of zeros has scale 0, and its numbers stay 0.
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            values.extend(block.iter().map(|w| (w * inverse).round() as i8));
            scales.push(scale);
        }
        Self {
            values: Tensor::from_data(TensorData::new(values, [rows, width]), (device, DType::I8)),
            scales: Tensor::from_data(
                TensorData::new(scales, [rows, width / size]),
                (device, DType::F32),
            ),
        }
    }

    /// The matrix as floats of that type, `[in, out]`.
    pub fn dequantise(&self, dtype: DType) -> Tensor<2> {
        let [rows, width] = self.values.dims();
        let [_, blocks] = self.scales.dims();
        let values =
            self.values.clone().float().cast(dtype).reshape([rows, blocks, width / blocks]);
        (values * self.scales.clone().cast(dtype).unsqueeze_dim(2))
            .reshape([rows, width])
            .transpose()
    }

    /// `[in, out]`.
    pub fn dims(&self) -> [usize; 2] {
        let [rows, width] = self.values.dims();
        [width, rows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_divide_their_rows() {
        assert_eq!([4096, 1376, 2048, 96, 11].map(block), [64, 43, 64, 48, 11]);
        assert_eq!(block(1361), 1361);
    }

    proptest! {
        #[test]
        fn every_number_is_within_half_a_step(
            rows in 1usize..5,
            width in 1usize..200,
            seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 3.0
            };
            let numbers: Vec<f32> = (0..rows * width).map(|_| next()).collect();
            let packed = Int8Matrix::quantise(&TensorData::new(numbers.clone(), [rows, width]), &Device::flex());
            let found: Vec<f32> = packed.dequantise(DType::F32).transpose().into_data().iter::<f32>().collect();
            for (exact, found) in numbers.chunks(block(width)).zip(found.chunks(block(width))) {
                let most = exact.iter().fold(0.0f32, |most, w| most.max(w.abs()));
                for (exact, found) in exact.iter().zip(found) {
                    prop_assert!((exact - found).abs() <= most / 254.0 * 1.0001, "{exact} {found} \
                        {most}");
                }
            }
        }
    }
}
