//! What a LLaMA takes of memory on a batch, from its configuration and its adapters alone.
//!
//! `layer` writes the layer's forward pass down operation by operation, in the order of `llama.rs`, with what the
//! operations of `ops/` and the adapters keep; [`tape`](ist_core::plan::tape) plays it. All of it that is an estimate stands
//! in the constants; the rest is what the code keeps.

use ist_core::Footprint;
use ist_core::burn::tensor::DType;
use ist_core::plan::tape::{Operation, Place, Tape, Value};
use ist_core::plan::{LayerCost, LayerFootprint, LossCost, threads};
use ist_peft::SiteKind;
use ist_peft::frozen_matrix::PANEL;

use crate::footprint::{AdaptedSite, BatchShape, Resident};
use crate::llama_config::LlamaConfig;
use crate::llama_layout::layer_modules;
use crate::ops::attention::BLOCK;
use crate::ops::linear_cross_entropy::chunk_rows;

/// Bytes of a token id, of a predicting position and of a target.
const INDEX: u64 = 8;
/// Bytes of a gradient of a parameter.
const GRADIENT: u64 = 4;
/// Bytes of its operands that a matrix product packs at a time.
const PACKED: u64 = 1 << 20;
/// A tensor larger than this counts as this large: sums cannot overflow, and no machine holds it.
const LARGEST: u64 = 1 << 40;
/// Matrices of queries × keys that one thread of the attention works on, in the forward and in the backward pass.
const SCORES: [u64; 2] = [1, 2];

/// The footprint of a batch of that shape.
pub fn footprint(config: &LlamaConfig, resident: Resident, batch: BatchShape) -> Footprint {
    let sizes = Sizes::new(config, resident, batch);
    let per_layer = |index| {
        let modules = modules(config, resident.adapted, index, sizes.narrow[0]);
        let gradients = OtherGradients::of(resident.adapted, index);
        let role = |trains, below_trains| {
            let gradients = if trains { gradients } else { OtherGradients::default() };
            cost(&sizes, &modules, (trains, gradients), below_trains)
        };
        let [attention, mlp] = work(config, batch, &modules);
        LayerFootprint {
            resting: role(false, true),
            chosen: role(true, true),
            lowest: role(true, false),
            work: attention + mlp,
            half_work: mlp,
        }
    };
    Footprint {
        held: sizes.held(),
        hidden: sizes.hidden,
        layers: (0..config.num_hidden_layers).map(per_layer).collect(),
        loss: loss(&sizes, resident.adapted),
    }
}

/// Sizes in bytes.
struct Sizes {
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
    /// Whether the layers' matrices are kept in a narrower type than is computed in, and whether the head is.
    narrow: [bool; 2],
}

impl Sizes {
    fn new(config: &LlamaConfig, resident: Resident, batch: BatchShape) -> Self {
        let (tokens, number) = (batch.tokens() as u64, resident.arithmetic.size() as u64);
        let tensor = |width: usize| product(&[tokens, width as u64, number]);
        let threads = threads().min(batch.rows.saturating_mul(config.num_key_value_heads)) as u64;
        let narrow = resident.storage.size() < resident.arithmetic.size();
        let queries = BLOCK.min(batch.sequence) as u64;
        let key_width = config.num_key_value_heads.saturating_mul(config.head_dim);
        let prefix = prefix_length(resident.adapted);
        let keys = batch.sequence.saturating_add(prefix) as u64;
        Self {
            tokens,
            predicted: batch.predicted as u64,
            number,
            hidden: tensor(config.hidden_size),
            query: tensor(config.num_attention_heads.saturating_mul(config.head_dim)),
            key: tensor(key_width),
            all_keys: product(&[batch.rows as u64, keys, key_width as u64, number]),
            prefix,
            statistics: tensor(config.num_attention_heads),
            scores: product(&[threads, queries, keys, number]),
            angles: product(&[batch.sequence as u64, config.head_dim as u64, number]),
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
        if narrow { product(&[(PANEL as u64).min(product(&[d_in as u64, d_out as u64])), self.number]) } else { 0 }
    }
}

/// Positions of the prefix in front of every layer's keys and values: half of its numbers are keys.
fn prefix_length(adapted: &[AdaptedSite]) -> usize {
    let of = |adapted: &AdaptedSite| match adapted.site.kind {
        SiteKind::Attention { kv_heads, head_dim } => Some(adapted.parameters / (2 * kv_heads * head_dim).max(1)),
        _ => None,
    };
    adapted.iter().find_map(of).unwrap_or(0)
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor)).min(LARGEST)
}

/// One linear module of a layer and its adapter.
struct Module<'a> {
    d_in: usize,
    d_out: usize,
    /// Whether its weight is widened to be read.
    narrow: bool,
    adapter: Option<&'a AdaptedSite>,
}

/// The linear modules of a layer in the model's order.
fn modules<'a>(config: &LlamaConfig, adapted: &'a [AdaptedSite], index: usize, narrow: bool) -> [Module<'a>; 7] {
    let here: Vec<&AdaptedSite> = adapted.iter().filter(|adapted| adapted.site.layer == Some(index)).collect();
    layer_modules(config).map(|(name, [d_in, d_out], _)| {
        let adapter = here.iter().copied().find(|adapted| adapted.site.path.ends_with(name));
        Module { d_in, d_out, narrow, adapter }
    })
}

/// The gradients of a layer's adapters that sit on no linear module, in bytes.
#[derive(Clone, Copy, Default)]
struct OtherGradients {
    /// Of the norms before the attention and before the MLP.
    norms: [u64; 2],
    /// Of the keys and of the values of a prefix.
    prefix: u64,
}

impl OtherGradients {
    fn of(adapted: &[AdaptedSite], index: usize) -> Self {
        let of = |name: &str| {
            let here = adapted.iter().filter(|adapted| adapted.site.layer == Some(index));
            let here = here.filter(|adapted| adapted.site.name() == name);
            here.map(|adapted| product(&[adapted.parameters as u64, GRADIENT])).sum()
        };
        Self { norms: ["input_layernorm", "post_attention_layernorm"].map(of), prefix: of("self_attn") / 2 }
    }
}

/// y = x W with an adapter that trains or rests, for `tokens` rows of x.
fn linear(sizes: &Sizes, module: &Module, trains: bool, x: Value, tokens: u64) -> Operation {
    let cost = module.adapter.map(|adapter| adapter.cost).unwrap_or_default();
    let numbers = |count: usize| product(&[tokens, count as u64, sizes.number]);
    let kept = module.adapter.filter(|_| trains);
    let moment = sizes.panel(module.narrow, module.d_in, module.d_out) + PACKED + numbers(cost.scratch);
    Operation {
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
        ..Operation::default()
    }
}

/// x / rms(x) · w, whose backward pass reads x again. `trains` is the size of w's gradient where it trains.
fn rms_norm(x: Value, writes: u64, trains: u64) -> Operation {
    Operation { reads: vec![x], writes, keeps: vec![x], trains, gradient: Place::OverIncoming, ..Operation::default() }
}

fn rotate(x: Value, writes: u64) -> Operation {
    Operation { reads: vec![x], writes, in_place: true, gradient: Place::OverIncoming, ..Operation::default() }
}

/// Keys or values with a prefix in front. The prefix's gradient is a sum over the rows of a batch.
fn after_prefix(sizes: &Sizes, tokens: Value, trains: u64) -> Operation {
    let backward = sizes.all_keys - sizes.key;
    Operation { reads: vec![tokens], writes: sizes.all_keys, trains, backward, ..Operation::default() }
}

/// Keeps q, k, v and a number a query and head. The heads' results are put together at the end, in both passes.
fn attention(sizes: &Sizes, q: Value, k: Value, v: Value) -> Operation {
    Operation {
        reads: vec![q, k, v],
        writes: sizes.query,
        keeps: vec![q, k, v],
        notes: sizes.statistics,
        forward: sizes.query + sizes.statistics + SCORES[0] * sizes.scores,
        backward: sizes.query + 2 * sizes.all_keys + SCORES[1] * sizes.scores,
        ..Operation::default()
    }
}

/// act(gate) ⊙ up, whose gradients take the place of gate and up.
fn gated(gate: Value, up: Value, writes: u64) -> Operation {
    Operation {
        reads: vec![up, gate],
        writes,
        keeps: vec![gate, up],
        in_place: true,
        gradient: Place::OverKept,
        ..Operation::default()
    }
}

fn residual(x: Value, added: Value, writes: u64) -> Operation {
    Operation { reads: vec![added, x], writes, in_place: true, gradient: Place::Incoming, ..Operation::default() }
}

/// What a layer takes; `trains` says whether its adapters do, with the gradients of those on no linear module.
fn cost(
    sizes: &Sizes,
    modules: &[Module; 7],
    (trains, gradients): (bool, OtherGradients),
    below_trains: bool,
) -> LayerCost {
    let [mut whole, mut second] = [Tape::new(sizes.hidden), Tape::new(sizes.hidden)];
    let attended = attend(&mut whole, sizes, modules, (trains, gradients));
    let first = whole.clone();
    mlp(&mut whole, attended, sizes, modules, (trains, gradients));
    mlp(&mut second, Tape::INPUT, sizes, modules, (trains, gradients));
    LayerCost { half: Some(first.kept_before(&second, below_trains)), ..whole.cost(below_trains) }
}

/// A layer's first half, from its input; what it writes.
fn attend(tape: &mut Tape, sizes: &Sizes, modules: &[Module; 7], (trains, gradients): (bool, OtherGradients)) -> Value {
    let [q_proj, k_proj, v_proj, o_proj, ..] = modules;
    let linear = |module, x| linear(sizes, module, trains, x, sizes.tokens);
    let x = Tape::INPUT;
    let normal = tape.push(rms_norm(x, sizes.hidden, gradients.norms[0]));
    let q = tape.push(linear(q_proj, normal));
    let q = tape.push(rotate(q, sizes.query));
    let k = tape.push(linear(k_proj, normal));
    let k = tape.push(rotate(k, sizes.key));
    let v = tape.push(linear(v_proj, normal));
    let [k, v] = if sizes.prefix > 0 {
        [k, v].map(|tokens| tape.push(after_prefix(sizes, tokens, gradients.prefix)))
    } else {
        [k, v]
    };
    let mixed = tape.push(attention(sizes, q, k, v));
    let attended = tape.push(linear(o_proj, mixed));
    tape.push(residual(x, attended, sizes.hidden))
}

/// A layer's second half, from what the first one wrote.
fn mlp(tape: &mut Tape, x: Value, sizes: &Sizes, modules: &[Module; 7], (trains, gradients): (bool, OtherGradients)) {
    let [.., gate_proj, up_proj, down_proj] = modules;
    let linear = |module, x| linear(sizes, module, trains, x, sizes.tokens);
    let normal = tape.push(rms_norm(x, sizes.hidden, gradients.norms[1]));
    let gate = tape.push(linear(gate_proj, normal));
    let up = tape.push(linear(up_proj, normal));
    let inner = tape.push(gated(gate, up, product(&[sizes.tokens, gate_proj.d_out as u64, sizes.number])));
    let added = tape.push(linear(down_proj, inner));
    tape.push(residual(x, added, sizes.hidden));
}

/// The predicted positions, the final norm and the head with its cross-entropy.
fn loss(sizes: &Sizes, adapted: &[AdaptedSite]) -> LossCost {
    let mut tape = Tape::new(sizes.hidden);
    let rows = product(&[sizes.predicted, sizes.width as u64, sizes.number]);
    let losses = product(&[sizes.predicted, sizes.number]);
    let predicted = tape.push(Operation { reads: vec![Tape::INPUT], writes: rows, ..Operation::default() });
    let normal = tape.push(rms_norm(predicted, rows, 0));
    let head = adapted.iter().find(|adapted| adapted.site.path == "lm_head");
    let logits = match head {
        Some(_) => 2 * logits(sizes, sizes.predicted),
        None => logits(sizes, sizes.predicted.min(chunk_rows(sizes.vocabulary) as u64)),
    };
    if head.is_some() {
        let module = Module { d_in: sizes.width, d_out: sizes.vocabulary, narrow: sizes.narrow[1], adapter: head };
        let logits = tape.push(linear(sizes, &module, true, normal, sizes.predicted));
        tape.push(full_cross_entropy(sizes, logits, losses));
    } else {
        let forward = logits + sizes.panel(sizes.narrow[1], sizes.width, sizes.vocabulary);
        let reads = vec![normal];
        let gradient = Place::OverKept;
        tape.push(Operation { reads, writes: losses, notes: rows, forward, gradient, ..Operation::default() });
    }
    let cost = tape.cost(true);
    let outside = adapted.iter().filter(|adapted| adapted.site.layer.is_none());
    let gradients = outside.map(|adapted| product(&[adapted.parameters as u64, GRADIENT])).sum();
    LossCost { plain: cost.plain, tracked: cost.tracked.max(cost.backward), logits, gradients }
}

fn logits(sizes: &Sizes, rows: u64) -> u64 {
    product(&[rows, sizes.vocabulary as u64, sizes.number])
}

/// The cross-entropy of a head with an adapter: the logits exist in full, and once more in its forward pass.
fn full_cross_entropy(sizes: &Sizes, of: Value, losses: u64) -> Operation {
    let forward = logits(sizes, sizes.predicted);
    Operation {
        reads: vec![of],
        writes: losses,
        keeps: vec![of],
        forward,
        gradient: Place::OverKept,
        ..Operation::default()
    }
}

/// Multiplications a token in the forward pass of a layer's halves, in thousands.
fn work(config: &LlamaConfig, batch: BatchShape, modules: &[Module; 7]) -> [u32; 2] {
    let module = |module: &Module| {
        let adapter = module.adapter.map_or(0, |adapter| adapter.parameters);
        (module.d_in as f64) * (module.d_out as f64) + adapter as f64
    };
    let scores = config.num_attention_heads as f64 * config.head_dim as f64 * batch.sequence as f64;
    let (attention, mlp) = modules.split_at(4);
    let products = [attention, mlp].map(|half| half.iter().map(module).sum::<f64>());
    [products[0] + scores, products[1]].map(|work| (work / 1000.0).ceil() as u32)
}
