//! A decoder as commands use it: logits, log-probabilities, generation with a key-value cache, its
//! weights by name.

use ist_core::{LayerPass, burn};

use burn::tensor::{Device, Int, Tensor, TensorData};
use ist_peft::{Adapter, FrozenLinear, PeftNorm};

use super::attention::LayerCache;
use super::context::DecoderContext;
use super::parts::Part;
use super::{Decoder, layout};
use crate::TokenBatch;
use crate::ops::attention::AttentionMask;

/// What a generation keeps.
#[derive(Clone, Debug)]
pub struct DecoderCache {
    layers: Vec<LayerCache>,
    /// Real and padded positions seen so far, one list a row, a prefix in front.
    mask: Vec<Vec<bool>>,
    /// The tokens seen so far.
    tokens: Vec<Vec<u32>>,
    /// Of every row which sets of frequencies turned its keys.
    regimes: Vec<usize>,
}

impl<A: Adapter> Decoder<A> {
    /// The device the weights are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// Positions there are for tokens: those the model was made for, less those of an adapter's
    /// prefix.
    pub fn max_position_embeddings(&self) -> usize {
        self.config.context().saturating_sub(self.prefix_length())
    }

    /// The logits of the predicting positions, in evaluation mode.
    ///
    /// # Shapes
    /// `[predicted, vocabulary]`
    pub fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        let pass = &LayerPass::EVALUATION;
        self.head(&self.outer, self.last_hidden(batch, pass), pass).squeeze_dim(0)
    }

    /// log p of every predicted token of the batch, in evaluation mode. The logits never exist in
    /// full.
    ///
    /// # Shapes
    /// `[predicted]`
    pub fn token_log_probabilities(&self, batch: &TokenBatch) -> Tensor<1> {
        let pass = &LayerPass::EVALUATION;
        self.token_losses(&self.outer, self.last_hidden(batch, pass), batch, pass).neg()
    }

    /// An empty cache for that many rows.
    pub fn new_cache(&self, rows: usize) -> DecoderCache {
        DecoderCache {
            layers: vec![None; self.layers.len()],
            mask: vec![vec![true; self.prefix_length()]; rows],
            tokens: vec![Vec::new(); rows],
            regimes: vec![0; rows],
        }
    }

    /// Reads tokens behind those in the cache: one list a row, of equal lengths, padded on the left
    /// as `mask` says. Returns the logits behind the last position of each row.
    ///
    /// A row's positions count its real tokens only.
    ///
    /// # Shapes
    /// `[rows, vocabulary]`
    pub fn extend(
        &self,
        tokens: &[Vec<u32>],
        mask: &[Vec<bool>],
        cache: &mut DecoderCache,
    ) -> Tensor<2> {
        for ((row, new), (seen, tokens)) in
            cache.mask.iter_mut().zip(mask).zip(cache.tokens.iter_mut().zip(tokens))
        {
            row.extend(new);
            seen.extend(tokens);
        }
        let regime = |row: &Vec<bool>| {
            self.config.rotaries.iter().map(|rotary| rotary.regime(length_of(row))).sum()
        };
        let regimes: Vec<usize> = cache.mask.iter().map(regime).collect();
        let fits = regimes == cache.regimes || cache.layers.iter().all(Option::is_none);
        cache.regimes = regimes;
        if fits {
            return self.advance(tokens, cache);
        }
        // Keys that were turned otherwise are of no use: all tokens again.
        cache.layers = vec![None; self.layers.len()];
        let all = cache.tokens.clone();
        self.advance(&all, cache)
    }

    /// Makes the cache hold these of its rows, in this order. A row may be named several times, or
    /// not at all.
    pub fn select_rows(&self, rows: &[usize], cache: &mut DecoderCache) {
        if rows.iter().copied().eq(0..cache.mask.len()) {
            return;
        }
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices =
            Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &self.device);
        for layer in &mut cache.layers {
            let select = |tensor: Tensor<4>| tensor.select(0, indices.clone());
            *layer = layer.take().map(|(keys, values)| (select(keys), select(values)));
        }
        cache.mask = rows.iter().map(|&row| cache.mask[row].clone()).collect();
        cache.tokens = rows.iter().map(|&row| cache.tokens[row].clone()).collect();
        cache.regimes = rows.iter().map(|&row| cache.regimes[row]).collect();
    }

    /// The weights under Hugging Face's names and in its layout, in their storage type, without the
    /// adapters.
    pub fn weights(&self) -> Vec<(String, TensorData)> {
        let (names, outer) = (self.config.names, &self.outer);
        let table = outer.embed_tokens.weight.current().into_data();
        let mut weights = vec![(format!("{}.weight", names.in_body(names.embed_tokens)), table)];
        let positions = outer.embed_positions.as_ref().map(|table| table.current().into_data());
        weights.extend(
            positions
                .map(|data| (format!("{}.weight", names.in_body(names.embed_positions)), data)),
        );
        let norm = outer.embedding_norm.as_ref();
        weights.extend(
            norm.into_iter()
                .flat_map(|norm| norm_weights(&names.in_body(names.embedding_norm), norm)),
        );
        for (index, layer) in self.layers.iter().enumerate() {
            let prefix = names.layer(index);
            let parts = layout::layer_parts(&self.config, index).into_iter().zip(layer.parts());
            weights
                .extend(parts.flat_map(|(shape, part)| self.part_weights(&prefix, &shape, &part)));
        }
        weights.extend(norm_weights(&names.in_body(names.norm), &outer.norm));
        let head = outer.lm_head.as_ref();
        weights.extend(
            head.into_iter()
                .flat_map(|head| linear_weights(names.head_in_files, &head.base, false)),
        );
        weights
    }

    /// `config.json` of this model.
    pub fn config_json(&self) -> serde_json::Value {
        self.config.to_json()
    }
}

impl<A: Adapter> Decoder<A> {
    /// The logits behind the last of `tokens`, `[batch, vocabulary]`, which are the last of those
    /// in the cache's lists.
    fn advance(&self, tokens: &[Vec<u32>], cache: &mut DecoderCache) -> Tensor<2> {
        let (queries, keys) = (tokens[0].len(), cache.mask[0].len());
        let mask = AttentionMask::causal(&cache.mask.concat(), queries, keys);
        let positions: Vec<Vec<usize>> = (0..cache.mask.len())
            .map(|row| mask.positions(row).split_off(keys - queries))
            .collect();
        let lengths: Vec<usize> = cache.mask.iter().map(|row| length_of(row)).collect();
        let place = (self.arithmetic, &self.device);
        let context = DecoderContext::new(&self.config, &positions, &lengths, mask, place);
        let ids: Vec<i64> = tokens.iter().flatten().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [tokens.len(), queries]), &self.device);
        let pass = &LayerPass::EVALUATION;
        let embedded = self.embedded(&self.outer, ids, &positions, pass);
        let layers = self.layers.iter().zip(&mut cache.layers);
        let x = layers
            .fold(embedded, |x, (layer, cache)| layer.forward(x, &context, pass, Some(cache)));
        self.head(&self.outer, x.narrow(1, queries - 1, 1), pass).squeeze_dim(1)
    }

    fn part_weights(
        &self,
        prefix: &str,
        shape: &layout::PartShape,
        part: &Part<'_, A>,
    ) -> Vec<(String, TensorData)> {
        match (shape, part) {
            (layout::PartShape::Linear(shape), Part::Linear(linear)) => linear_weights(
                &format!("{prefix}{}", shape.path),
                &linear.base,
                self.config.fan_in_fan_out,
            ),
            (layout::PartShape::Norm(path, _), Part::Norm(norm)) => {
                norm_weights(&format!("{prefix}{path}"), norm)
            }
            (layout::PartShape::Router(path), Part::Router(router)) => {
                vec![(format!("{prefix}{path}.weight"), router.current().transpose().into_data())]
            }
            _ => Vec::new(),
        }
    }
}

fn norm_weights<A: Adapter>(path: &str, norm: &PeftNorm<A>) -> Vec<(String, TensorData)> {
    let weight = (format!("{path}.weight"), norm.base.weight.current().into_data());
    let bias =
        norm.base.bias.as_ref().map(|bias| (format!("{path}.bias"), bias.current().into_data()));
    std::iter::once(weight).chain(bias).collect()
}

/// A file holds `[out, in]`, or `[in, out]` of a `Conv1D`.
fn linear_weights(
    path: &str,
    linear: &FrozenLinear,
    fan_in_fan_out: bool,
) -> Vec<(String, TensorData)> {
    let weight = linear.weight.current();
    let weight = if fan_in_fan_out { weight } else { weight.transpose() };
    let bias =
        linear.bias.as_ref().map(|bias| (format!("{path}.bias"), bias.current().into_data()));
    std::iter::once((format!("{path}.weight"), weight.into_data())).chain(bias).collect()
}

/// The real tokens of a row.
fn length_of(mask: &[bool]) -> usize {
    mask.iter().filter(|&&real| real).count()
}
