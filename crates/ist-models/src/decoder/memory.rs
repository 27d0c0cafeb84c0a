//! What a decoder takes of memory on a batch, from its configuration and its adapters alone.
//!
//! `LayerOperations` lists a layer's forward pass operation by operation, in the order of
//! `layer.rs`, and [`tape`](ist_core::plan::tape) plays it. What an operation of
//! [`ops`](crate::ops) keeps, its own `cost` says. The estimates are the constants here and what is
//! said of experts. All else is what the code keeps.

use ist_core::Footprint;
use ist_core::burn::tensor::DType;
use ist_core::plan::tape::{Place, Tape, TapeOp, TapeValue};
use ist_core::plan::{Below, LayerCost, LayerFootprint, LossCost, threads};
use ist_peft::SiteKind;
use ist_peft::frozen::PANEL;

use super::config::{DecoderConfig, Mlp, Norm, Residual};
use super::layout::{self, LinearShape};
use crate::ops::attention::{self, AttentionBytes, BLOCK};
use crate::ops::linear_cross_entropy::{self, LossBytes, chunk_rows};
use crate::ops::{activate, cross_entropy, gated, layer_norm, rms_norm, rope};
use crate::shape::{AdaptedSite, BatchShape, Resident};

/// Bytes of a token id, of a predicting position and of a target.
const INDEX: u64 = 8;
/// Bytes of a gradient of a parameter.
const GRADIENT: u64 = 4;
/// Bytes of its operands that a matrix product packs at a time.
const PACKED: u64 = 1 << 20;
/// A tensor larger than this counts as this large: sums cannot overflow, and no machine holds it.
const LARGEST: u64 = 1 << 40;

/// The footprint of a batch of that shape.
pub fn footprint(config: &DecoderConfig, resident: Resident, batch: BatchShape) -> Footprint {
    let sizes = BatchSizes::new(config, resident, batch);
    let per_layer = |index| {
        let layer = LayerOperations {
            config,
            sizes: &sizes,
            index,
            adapted: here(resident.adapted, index),
        };
        let role = |trains, below_trains| layer.cost(trains, below_trains);
        let [attention, mlp] = layer.work(batch);
        LayerFootprint {
            resting: role(false, true),
            chosen: role(true, true),
            lowest: role(true, false),
            work: attention + mlp,
            half_work: if config.divides() { mlp } else { attention + mlp },
        }
    };
    Footprint {
        held: sizes.held(),
        hidden: sizes.hidden,
        layers: (0..config.num_hidden_layers).map(per_layer).collect(),
        loss: loss(config, &sizes, resident.adapted),
    }
}

fn here(adapted: &[AdaptedSite], index: usize) -> Vec<&AdaptedSite> {
    adapted.iter().filter(|adapted| adapted.site.layer == Some(index)).collect()
}

/// Sizes in bytes.
struct BatchSizes {
    tokens: u64,
    predicted: u64,
    /// Bytes of a number of the arithmetic.
    number: u64,
    hidden: u64,
    query: u64,
    key: u64,
    /// Keys or values of the tokens and of a prefix.
    all_keys: u64,
    /// Positions of a prefix.
    prefix: usize,
    /// The logarithms of the attention's denominators.
    statistics: u64,
    /// One block of queries × all keys, of all threads.
    scores: u64,
    /// The angles of all positions.
    angles: u64,
    width: usize,
    vocabulary: usize,
    /// Whether the layers' matrices are kept in a narrower type than is computed in, and whether
    /// the head is.
    narrow: [bool; 2],
}

impl BatchSizes {
    fn new(config: &DecoderConfig, resident: Resident, batch: BatchShape) -> Self {
        let (tokens, number) = (batch.tokens() as u64, resident.arithmetic.size() as u64);
        let tensor = |width: usize| product(&[tokens, width as u64, number]);
        let threads = threads().min(batch.rows.saturating_mul(config.num_key_value_heads)) as u64;
        let narrow = resident.storage.size() < resident.arithmetic.size();
        let queries = BLOCK.min(batch.sequence) as u64;
        let key_width = config.key_width();
        let prefix = prefix_length(resident.adapted);
        let keys = batch.sequence.saturating_add(prefix) as u64;
        Self {
            tokens,
            predicted: batch.predicted as u64,
            number,
            hidden: tensor(config.hidden_size),
            query: tensor(config.query_width()),
            key: tensor(key_width),
            all_keys: product(&[batch.rows as u64, keys, key_width as u64, number]),
            prefix,
            statistics: tensor(config.num_attention_heads),
            scores: product(&[threads, queries, keys, number]),
            angles: product(&[
                batch.sequence as u64,
                config.rotaries.iter().map(|rotary| rotary.dims).sum::<usize>() as u64,
                number,
            ]),
            width: config.hidden_size,
            vocabulary: config.vocab_size,
            narrow: [narrow, narrow && resident.storage != DType::I8],
        }
    }

    /// The token ids, the predicting positions with their targets, the angles.
    fn held(&self) -> u64 {
        product(&[self.tokens, INDEX]) + 2 * product(&[self.predicted, INDEX]) + self.angles
    }

    /// What widening a part of a weight takes.
    fn panel(&self, narrow: bool, d_in: usize, d_out: usize) -> u64 {
        if narrow {
            product(&[(PANEL as u64).min(product(&[d_in as u64, d_out as u64])), self.number])
        } else {
            0
        }
    }
}

/// Positions of the prefix in front of every layer's keys and values: half of its numbers are keys.
fn prefix_length(adapted: &[AdaptedSite]) -> usize {
    let of = |adapted: &AdaptedSite| match adapted.site.kind {
        SiteKind::Attention { kv_heads, head_dim } => {
            Some(adapted.parameters / (2 * kv_heads * head_dim).max(1))
        }
        _ => None,
    };
    adapted.iter().find_map(of).unwrap_or(0)
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor)).min(LARGEST)
}

/// One linear module and its adapter.
struct Module<'a> {
    d_in: usize,
    d_out: usize,
    /// Whether its weight is widened to be read.
    narrow: bool,
    adapter: Option<&'a AdaptedSite>,
}

/// A layer, and what adapters there are in it.
struct LayerOperations<'a> {
    config: &'a DecoderConfig,
    sizes: &'a BatchSizes,
    index: usize,
    adapted: Vec<&'a AdaptedSite>,
}

impl LayerOperations<'_> {
    fn module(&self, shape: &LinearShape) -> Module<'_> {
        let path = format!("{}{}", self.config.names.layer(self.index), shape.path);
        let adapter = self.adapted.iter().copied().find(|adapted| adapted.site.path == path);
        Module { d_in: shape.d_in, d_out: shape.d_out, narrow: self.sizes.narrow[0], adapter }
    }

    /// The gradients of the adapter of that path within the layer, in bytes.
    fn gradients(&self, path: &str, trains: bool) -> u64 {
        if !trains {
            return 0;
        }
        let path = format!("{}{path}", self.config.names.layer(self.index));
        let here = self.adapted.iter().filter(|adapted| adapted.site.path == path);
        here.map(|adapted| product(&[adapted.parameters as u64, GRADIENT])).sum()
    }

    /// The gradients of the adapters on the modules of that name of all experts, in bytes.
    fn expert_gradients(&self, name: &str) -> u64 {
        let inside = self.config.names.in_mlp("experts.");
        let here = self.adapted.iter().filter(|adapted| adapted.site.name() == name);
        let here = here.filter(|adapted| adapted.site.path.contains(&inside));
        here.map(|adapted| product(&[adapted.parameters as u64, GRADIENT])).sum()
    }

    /// What the layer takes; `trains` says whether its adapters do.
    fn cost(&self, trains: bool, below_trains: bool) -> LayerCost {
        let mut whole = Tape::new(self.sizes.hidden);
        if self.config.residual == Residual::Parallel {
            self.parallel(&mut whole, trains);
            return whole.cost(Below::of(below_trains));
        }
        let attended = self.attend(&mut whole, trains);
        let first = whole.clone();
        self.feed_forward(&mut whole, attended, trains);
        let mut second = Tape::new(self.sizes.hidden);
        self.feed_forward(&mut second, Tape::INPUT, trains);
        LayerCost {
            half: Some(first.kept_before(&second, Below::of(below_trains))),
            ..whole.cost(Below::of(below_trains))
        }
    }

    /// A layer's first half, from its input; what it writes.
    fn attend(&self, tape: &mut Tape, trains: bool) -> TapeValue {
        let (names, x) = (self.config.names, Tape::INPUT);
        let normal = self.norm(tape, names.before_attention, x, trains);
        let attended = self.attention(tape, normal, trains);
        let attended = self.norm(tape, names.after_attention, attended, trains);
        let base = if self.config.residual == Residual::Normalised { normal } else { x };
        tape.push(residual(base, attended, self.sizes.hidden))
    }

    /// A layer's second half, from what the first one wrote.
    fn feed_forward(&self, tape: &mut Tape, x: TapeValue, trains: bool) {
        let names = self.config.names;
        let normal = self.norm(tape, names.before_mlp, x, trains);
        let added = self.mlp(tape, normal, trains);
        let added = self.norm(tape, names.after_mlp, added, trains);
        let base = if self.config.residual == Residual::Normalised { normal } else { x };
        tape.push(residual(base, added, self.sizes.hidden));
    }

    fn parallel(&self, tape: &mut Tape, trains: bool) {
        let (names, x) = (self.config.names, Tape::INPUT);
        let first = self.norm(tape, names.before_attention, x, trains);
        let second = names.before_mlp.map_or(first, |name| self.norm(tape, Some(name), x, trains));
        let attended = self.attention(tape, first, trains);
        let added = self.mlp(tape, second, trains);
        let sum = tape.push(residual(attended, added, self.sizes.hidden));
        tape.push(residual(x, sum, self.sizes.hidden));
    }

    fn norm(&self, tape: &mut Tape, name: Option<&str>, x: TapeValue, trains: bool) -> TapeValue {
        let push =
            |name| tape.push(norm(self.config, x, self.sizes.hidden, self.gradients(name, trains)));
        name.map_or(x, push)
    }

    fn attention(&self, tape: &mut Tape, x: TapeValue, trains: bool) -> TapeValue {
        let (config, sizes) = (self.config, self.sizes);
        let widths = [sizes.query, sizes.key, sizes.key];
        let shapes = layout::projections(config);
        let made: Vec<TapeValue> =
            shapes.iter().map(|shape| self.linear(tape, shape, trains, x)).collect();
        let [q, k, mut v] = match made[..] {
            [fused] => {
                let whole: u64 = widths.iter().sum();
                widths.map(|width| tape.push(part(fused, width, whole)))
            }
            [q, k, v] => [q, k, v],
            _ => unreachable!("a layer has one projection or three"),
        };
        let mut turned =
            [(q, sizes.query, 0), (k, sizes.key, 1)].map(|(mut heads, width, which)| {
                if let Some(norms) = layout::head_norms(config) {
                    heads = tape.push(norm(
                        config,
                        heads,
                        width,
                        self.gradients(&norms[which].0, trains),
                    ));
                }
                if config.layers[self.index].rotary.is_some() {
                    tape.push(rope::cost(heads, width))
                } else {
                    heads
                }
            });
        if sizes.prefix > 0 {
            let gradient = self.gradients(config.names.attention, trains) / 2;
            [turned[1], v] =
                [turned[1], v].map(|tokens| tape.push(after_prefix(sizes, tokens, gradient)));
        }
        let [q, k] = turned;
        let bytes = AttentionBytes {
            query: sizes.query,
            keys: sizes.all_keys,
            logs: sizes.statistics,
            block: sizes.scores,
            capped: config.attention_soft_cap.is_some(),
        };
        let mixed = tape.push(attention::cost([q, k, v], &bytes));
        self.linear(tape, &layout::output(config), trains, mixed)
    }

    fn mlp(&self, tape: &mut Tape, x: TapeValue, trains: bool) -> TapeValue {
        let config = self.config;
        if config.layers[self.index].experts {
            return self.experts(tape, x, trains);
        }
        let shapes = layout::mlp(config);
        let (inner, down) = shapes.split_at(shapes.len() - 1);
        let made: Vec<TapeValue> =
            inner.iter().map(|shape| self.linear(tape, shape, trains, x)).collect();
        let width = self.numbers(config.intermediate_size, self.sizes.tokens);
        let hidden = match (config.mlp, &made[..]) {
            (Mlp::Gated, [gate, up]) => tape.push(gated::cost(*gate, *up, width)),
            (Mlp::FusedGated, [both]) => {
                let [gate, up] = [(); 2].map(|()| tape.push(part(*both, width, 2 * width)));
                tape.push(gated::cost(gate, up, width))
            }
            (_, made) => tape.push(activate::cost(made[0], width)),
        };
        self.linear(tape, &down[0], trains, hidden)
    }

    /// The experts of all tokens as one MLP of k times as many tokens, which is what they keep;
    /// that each runs alone makes its own moment smaller.
    fn experts(&self, tape: &mut Tape, x: TapeValue, trains: bool) -> TapeValue {
        let Some(experts) = self.config.experts else { return x };
        let tokens = self.sizes.tokens.saturating_mul(experts.num_experts_per_tok as u64);
        let [gate, up, down] = layout::expert(self.config, 0);
        let given = tape.push(copy(x, self.numbers(self.config.hidden_size, tokens)));
        // What they keep is one expert's for each token; their gradients are all experts'.
        let push = |tape: &mut Tape, which: usize, shape: &LinearShape, x: TapeValue| {
            let gradients =
                if trains { self.expert_gradients(self.config.names.expert[which]) } else { 0 };
            let operation = linear(self.sizes, &self.module(shape), trains, x, tokens);
            tape.push(TapeOp { trains: gradients, ..operation })
        };
        let [gate, up] =
            [(0, gate), (1, up)].map(|(which, shape)| push(tape, which, &shape, given));
        let inner =
            tape.push(gated::cost(gate, up, self.numbers(experts.intermediate_size, tokens)));
        let made = push(tape, 2, &down, inner);
        let weighted = self.numbers(self.config.hidden_size, tokens);
        let weighted = tape.push(TapeOp {
            reads: vec![made],
            writes: weighted,
            keeps: vec![made],
            ..TapeOp::default()
        });
        tape.push(copy(weighted, self.sizes.hidden))
    }

    fn numbers(&self, width: usize, tokens: u64) -> u64 {
        product(&[tokens, width as u64, self.sizes.number])
    }

    fn linear(
        &self,
        tape: &mut Tape,
        shape: &LinearShape,
        trains: bool,
        x: TapeValue,
    ) -> TapeValue {
        tape.push(linear(self.sizes, &self.module(shape), trains, x, self.sizes.tokens))
    }

    /// Multiplications a token in the forward pass of the layer's halves, in thousands.
    fn work(&self, batch: BatchShape) -> [u32; 2] {
        let config = self.config;
        let of = |shape: &LinearShape| {
            let module = self.module(shape);
            let adapter = module.adapter.map_or(0, |adapter| adapter.parameters);
            (module.d_in as f64) * (module.d_out as f64) + adapter as f64
        };
        let scores = config.query_width() as f64 * batch.sequence as f64;
        let mut attention = layout::projections(config);
        attention.push(layout::output(config));
        let mlp: f64 = match config.experts.filter(|_| config.layers[self.index].experts) {
            Some(experts) => {
                layout::expert(config, 0).iter().map(of).sum::<f64>()
                    * experts.num_experts_per_tok as f64
            }
            None => layout::mlp(config).iter().map(of).sum(),
        };
        let attention: f64 = attention.iter().map(of).sum();
        [attention + scores, mlp].map(|work| (work / 1000.0).ceil() as u32)
    }
}

/// y = x W with an adapter that trains or rests, for `tokens` rows of x.
fn linear(sizes: &BatchSizes, module: &Module, trains: bool, x: TapeValue, tokens: u64) -> TapeOp {
    let cost = module.adapter.map(|adapter| adapter.cost).unwrap_or_default();
    let numbers = |count: usize| product(&[tokens, count as u64, sizes.number]);
    let kept = module.adapter.filter(|_| trains);
    let moment =
        sizes.panel(module.narrow, module.d_in, module.d_out) + PACKED + numbers(cost.scratch);
    TapeOp {
        reads: vec![x],
        writes: numbers(module.d_out),
        keeps: if kept.is_some() && cost.keeps_input { vec![x] } else { Vec::new() },
        keeps_result: kept.is_some() && cost.keeps_output,
        notes: if kept.is_some() { numbers(cost.keeps) } else { 0 },
        trains: kept.map_or(0, |adapter| product(&[adapter.parameters as u64, GRADIENT])),
        forward: moment,
        backward: moment,
        // What is kept serves the adapter's own gradients, which come first.
        gradient: if kept.is_some() { Place::OverKept } else { Place::New },
        ..TapeOp::default()
    }
}

/// A norm of the model's kind. `trains` is the size of its own gradients where it trains.
fn norm(config: &DecoderConfig, x: TapeValue, writes: u64, trains: u64) -> TapeOp {
    let cost = match config.norm {
        Norm::Layer => layer_norm::cost(x, writes),
        Norm::Rms | Norm::RmsPlusOne => rms_norm::cost(x, writes),
    };
    TapeOp { trains, ..cost }
}

/// A part of what one module wrote, whose gradient is as large as all of it.
fn part(of: TapeValue, writes: u64, whole: u64) -> TapeOp {
    TapeOp { reads: vec![of], writes, backward: whole, ..TapeOp::default() }
}

/// Rows of x put together in another order, or summed.
fn copy(x: TapeValue, writes: u64) -> TapeOp {
    TapeOp { reads: vec![x], writes, ..TapeOp::default() }
}

/// Keys or values with a prefix in front. The prefix's gradient is a sum over the rows of a batch.
fn after_prefix(sizes: &BatchSizes, tokens: TapeValue, trains: u64) -> TapeOp {
    let backward = sizes.all_keys - sizes.key;
    TapeOp { reads: vec![tokens], writes: sizes.all_keys, trains, backward, ..TapeOp::default() }
}

/// A sum, which lies where what is added lay. Its gradient is that of both.
fn residual(x: TapeValue, added: TapeValue, writes: u64) -> TapeOp {
    TapeOp {
        reads: vec![added, x],
        writes,
        in_place: true,
        gradient: Place::Incoming,
        ..TapeOp::default()
    }
}

/// The predicted positions, the final norm and the head with its cross-entropy.
fn loss(config: &DecoderConfig, sizes: &BatchSizes, adapted: &[AdaptedSite]) -> LossCost {
    let mut tape = Tape::new(sizes.hidden);
    let rows = product(&[sizes.predicted, sizes.width as u64, sizes.number]);
    let losses = product(&[sizes.predicted, sizes.number]);
    let predicted =
        tape.push(TapeOp { reads: vec![Tape::INPUT], writes: rows, ..TapeOp::default() });
    let normal = tape.push(norm(config, predicted, rows, 0));
    let head = adapted.iter().find(|adapted| adapted.site.path == config.names.lm_head);
    let logits = match head {
        Some(_) => 2 * logits(sizes, sizes.predicted),
        None => logits(sizes, sizes.predicted.min(chunk_rows(sizes.vocabulary) as u64)),
    };
    if head.is_some() {
        let module = Module {
            d_in: sizes.width,
            d_out: sizes.vocabulary,
            narrow: sizes.narrow[1],
            adapter: head,
        };
        let logits = tape.push(linear(sizes, &module, true, normal, sizes.predicted));
        // The logits of a head with an adapter exist in full.
        tape.push(cross_entropy::cost(logits, self::logits(sizes, sizes.predicted), losses));
    } else {
        let chunk = logits + sizes.panel(sizes.narrow[1], sizes.width, sizes.vocabulary);
        tape.push(linear_cross_entropy::cost(normal, &LossBytes { x: rows, losses, chunk }));
    }
    let cost = tape.cost(Below::Trains);
    let outside = adapted.iter().filter(|adapted| adapted.site.layer.is_none());
    let gradients = outside.map(|adapted| product(&[adapted.parameters as u64, GRADIENT])).sum();
    LossCost { plain: cost.plain, tracked: cost.tracked.max(cost.backward), logits, gradients }
}

fn logits(sizes: &BatchSizes, rows: u64) -> u64 {
    product(&[rows, sizes.vocabulary as u64, sizes.number])
}
