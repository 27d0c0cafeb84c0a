//! LLaMA (Touvron et al., [arXiv 2302.13971](https://arxiv.org/abs/2302.13971)): pre-norm decoder with rotary positions,
//! grouped-query attention and a SwiGLU MLP. Also LLaMA 2 and 3.
//!
//! Per layer, with h the input: h' = h + o(attention(rope(q), rope(k), v)) of rms(h), then
//! h'' = h' + down(silu(gate) ⊙ up) of rms(h').

use ist_core::burn;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ist_core::{Footprint, Half, LayerPass, LayeredModel, streams};
use ist_peft::int8::Int8Matrix;
use ist_peft::linear::linear;
use ist_peft::parameter::normal;
use ist_peft::{
    Adapter, BaseMut, FrozenLinear, PeftEmbedding, PeftLinear, PeftModel, PeftNorm, Roles, Site, Slot, Weight,
};

use crate::TokenBatch;
use crate::causal_lm::CausalLm;
use crate::footprint::{AdaptedSite, BatchShape, Resident};
use crate::llama_config::LlamaConfig;
use crate::llama_layout::{ROLES, layer_modules, sites};
use crate::llama_memory;
use crate::ops::activation::Activation;
use crate::ops::attention::{AttentionMask, attention};
use crate::ops::cross_entropy::cross_entropy;
use crate::ops::gated::gated;
use crate::ops::linear_cross_entropy::linear_cross_entropy;
use crate::ops::rms_norm::rms_norm;
use crate::ops::rope::Rotation;

/// Where weights come from: name and shape in Hugging Face's layout to the values. A source that has no such tensor notes
/// the fault and answers with zeros.
pub type WeightSource<'a> = dyn FnMut(&str, &[usize]) -> TensorData + 'a;

/// The attention of one layer.
#[derive(Module, Debug)]
pub struct LlamaAttention<A: Module> {
    q_proj: PeftLinear<A>,
    k_proj: PeftLinear<A>,
    v_proj: PeftLinear<A>,
    o_proj: PeftLinear<A>,
    /// Keys and values in front of all tokens, where such an adapter is on.
    prefix: Option<A>,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
}

/// The gated MLP of one layer.
#[derive(Module, Debug)]
pub struct LlamaMlp<A: Module> {
    gate_proj: PeftLinear<A>,
    up_proj: PeftLinear<A>,
    down_proj: PeftLinear<A>,
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct LlamaLayer<A: Module> {
    input_layernorm: PeftNorm<A>,
    self_attn: LlamaAttention<A>,
    post_attention_layernorm: PeftNorm<A>,
    mlp: LlamaMlp<A>,
    rms_norm_eps: f64,
}

/// What stands outside the layers.
#[derive(Module, Debug)]
pub struct LlamaOuter<A: Module> {
    embed_tokens: PeftEmbedding<A>,
    norm: PeftNorm<A>,
    /// Absent when the head is the embedding.
    lm_head: Option<PeftLinear<A>>,
}

/// A LLaMA decoder with adapters of the set `A`.
#[derive(Clone, Debug)]
pub struct Llama<A: Adapter = ist_peft::BuiltinAdapter> {
    config: LlamaConfig,
    outer: LlamaOuter<A>,
    layers: Vec<LlamaLayer<A>>,
    inverse_frequencies: Vec<f64>,
    device: Device,
    arithmetic: DType,
}

/// What all layers share of a batch.
#[derive(Clone, Debug)]
pub struct LlamaContext {
    rotation: Rotation,
    mask: AttentionMask,
}

/// Keys and values of one layer, `[batch, positions, kv_heads, head_dim]`, keys already rotated.
type LayerCache = Option<(Tensor<4>, Tensor<4>)>;

/// What a generation keeps.
#[derive(Clone, Debug)]
pub struct LlamaCache {
    layers: Vec<LayerCache>,
    /// Real and padded positions seen so far, one list a row.
    mask: Vec<Vec<bool>>,
}

impl<A: Adapter> LlamaAttention<A> {
    fn forward(
        &self,
        x: Tensor<3>,
        context: &LlamaContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, sequence, _] = x.dims();
        let heads = |x: Tensor<3>, count| x.reshape([batch, sequence, count, self.head_dim]);
        let q = context.rotation.apply(heads(self.q_proj.forward(x.clone(), pass), self.num_attention_heads));
        let k = context.rotation.apply(heads(self.k_proj.forward(x.clone(), pass), self.num_key_value_heads));
        let v = heads(self.v_proj.forward(x, pass), self.num_key_value_heads);
        // A cache that has seen tokens begins with the prefix already.
        let [k, v] = match &self.prefix {
            Some(prefix) if cache.as_ref().is_none_or(|cache| cache.is_none()) => in_front(prefix.prefix(pass), [k, v]),
            _ => [k, v],
        };
        let (k, v) = match cache {
            Some(cache) => append(cache, k, v),
            None => (k, v),
        };
        let mixed = attention(q, k, v, &context.mask);
        let width = self.num_attention_heads * self.head_dim;
        self.o_proj.forward(mixed.reshape([batch, sequence, width]), pass)
    }
}

/// The prefix `[positions, kv_heads, head_dim]` in front of the tokens of every row.
fn in_front<const N: usize>(prefix: [Tensor<3>; N], tokens: [Tensor<4>; N]) -> [Tensor<4>; N] {
    let mut prefix = prefix.into_iter();
    tokens.map(|tokens| {
        let prefix = prefix.next().expect("both lists have N tensors").cast(tokens.dtype());
        let [positions, heads, width] = prefix.dims();
        let prefix = prefix.unsqueeze::<4>().expand([tokens.dims()[0], positions, heads, width]);
        Tensor::cat(vec![prefix, tokens], 1)
    })
}

/// The cache's keys and values with the new ones behind them.
fn append(cache: &mut LayerCache, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (k, v) = match cache.take() {
        Some((keys, values)) => (Tensor::cat(vec![keys, k], 1), Tensor::cat(vec![values, v], 1)),
        None => (k, v),
    };
    *cache = Some((k.clone(), v.clone()));
    (k, v)
}

impl<A: Adapter> LlamaMlp<A> {
    fn forward(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let (gate, up) = (self.gate_proj.forward(x.clone(), pass), self.up_proj.forward(x, pass));
        let hidden = gated(Activation::Silu, gate, up);
        self.down_proj.forward_last(hidden, pass)
    }
}

impl<A: Adapter> LlamaLayer<A> {
    fn forward(
        &self,
        x: Tensor<3>,
        context: &LlamaContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        self.feed_forward(self.attend(x, context, pass, cache), pass)
    }

    /// The layer's output at the predicting positions alone, `[1, predicted, hidden]`, which are all that the MLP sees.
    fn finish(&self, x: Tensor<3>, batch: &TokenBatch, context: &LlamaContext, pass: &LayerPass) -> Tensor<3> {
        self.feed_forward(predicting(self.attend(x, context, pass, None), batch), pass)
    }

    /// The first half: attention with its residual.
    fn attend(
        &self,
        x: Tensor<3>,
        context: &LlamaContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let attended = self.self_attn.forward(self.norm(&x, &self.input_layernorm, pass), context, pass, cache);
        x + attended
    }

    /// The second half: the MLP with its residual.
    fn feed_forward(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let added = self.mlp.forward(self.norm(&x, &self.post_attention_layernorm, pass), pass);
        x + added
    }

    fn norm(&self, x: &Tensor<3>, norm: &PeftNorm<A>, pass: &LayerPass) -> Tensor<3> {
        rms_norm(x.clone(), norm.values(x.dtype(), pass).weight, self.rms_norm_eps)
    }

    /// The linear modules by their path within the layer.
    fn linears_mut(&mut self) -> [&mut PeftLinear<A>; 7] {
        let (attention, mlp) = (&mut self.self_attn, &mut self.mlp);
        [
            &mut attention.q_proj,
            &mut attention.k_proj,
            &mut attention.v_proj,
            &mut attention.o_proj,
            &mut mlp.gate_proj,
            &mut mlp.up_proj,
            &mut mlp.down_proj,
        ]
    }

    fn linears(&self) -> [&PeftLinear<A>; 7] {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        [
            &attention.q_proj,
            &attention.k_proj,
            &attention.v_proj,
            &attention.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ]
    }

    /// The adapters in the order of [`LlamaLayer::slots`].
    fn adapters(&self) -> [Option<&A>; 10] {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        [
            self.input_layernorm.adapter.as_ref(),
            attention.prefix.as_ref(),
            attention.q_proj.adapter.as_ref(),
            attention.k_proj.adapter.as_ref(),
            attention.v_proj.adapter.as_ref(),
            attention.o_proj.adapter.as_ref(),
            self.post_attention_layernorm.adapter.as_ref(),
            mlp.gate_proj.adapter.as_ref(),
            mlp.up_proj.adapter.as_ref(),
            mlp.down_proj.adapter.as_ref(),
        ]
    }

    /// The same layer with every weight training.
    fn train(mut self) -> Self {
        for linear in self.linears_mut() {
            train_linear(&mut linear.base);
        }
        train_norm(&mut self.input_layernorm);
        train_norm(&mut self.post_attention_layernorm);
        self
    }

    /// The places of the layer at `prefix`, in the model's order.
    fn slots(&mut self, prefix: &str, index: usize) -> Vec<Slot<'_, A>> {
        let LlamaLayer { input_layernorm, self_attn, post_attention_layernorm, mlp, .. } = self;
        let LlamaAttention { q_proj, k_proj, v_proj, o_proj, prefix: in_front, .. } = self_attn;
        let hidden = input_layernorm.base.weight.dims()[0];
        let heads = [self_attn.num_key_value_heads, self_attn.head_dim];
        let attention = Site::attention(format!("{prefix}self_attn"), index, hidden, heads);
        let linear = |module| linear_slot(prefix, Some(index), module);
        let mut slots = vec![
            norm_slot(format!("{prefix}input_layernorm"), Some(index), input_layernorm),
            Slot { site: attention, base: BaseMut::Attention, adapter: in_front },
        ];
        slots.extend([q_proj, k_proj, v_proj, o_proj].map(linear));
        let norm = format!("{prefix}post_attention_layernorm");
        slots.push(norm_slot(norm, Some(index), post_attention_layernorm));
        slots.extend([&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj].map(linear));
        slots
    }
}

/// The predicting positions of x `[batch, sequence, hidden]`: `[1, predicted, hidden]`.
fn predicting(x: Tensor<3>, batch: &TokenBatch) -> Tensor<3> {
    let [rows, sequence, hidden] = x.dims();
    x.reshape([rows * sequence, hidden]).select(0, batch.rows.clone()).unsqueeze()
}

fn train_norm<A: Adapter>(norm: &mut PeftNorm<A>) {
    norm.base.weight = norm.base.weight.clone().train();
}

fn train_linear(linear: &mut FrozenLinear) {
    linear.weight = linear.weight.clone().train();
    linear.bias = linear.bias.take().map(Weight::train);
}

/// Builds the modules of one model from a source of weights.
struct Builder<'a, 'b> {
    source: &'a mut WeightSource<'b>,
    /// Of the layers' matrices.
    storage: DType,
    device: &'a Device,
}

impl Builder<'_, '_> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let dtype = if self.storage == DType::I8 { DType::F32 } else { self.storage };
        Tensor::from_data((self.source)(name, &shape).convert_dtype(dtype), (self.device, dtype))
    }

    fn vector(&mut self, name: &str, size: usize) -> Weight<1> {
        Weight::frozen(self.tensor(name, [size]))
    }

    fn norm<A: Adapter>(&mut self, name: &str, size: usize) -> PeftNorm<A> {
        PeftNorm::new(self.vector(&format!("{name}.weight"), size), None)
    }

    /// The linear module at `prefix` + `name`; files hold `[out, in]`.
    fn linear<A: Adapter>(&mut self, prefix: &str, name: &str, shape: [usize; 2], bias: bool) -> PeftLinear<A> {
        let [d_in, d_out] = shape;
        let path = format!("{prefix}{name}.weight");
        let weight = if self.storage == DType::I8 && !prefix.is_empty() {
            Weight::int8(Int8Matrix::quantise(&(self.source)(&path, &[d_out, d_in]), self.device))
        } else {
            Weight::frozen(self.tensor(&path, [d_out, d_in]).transpose())
        };
        let bias = bias.then(|| self.vector(&format!("{prefix}{name}.bias"), d_out));
        PeftLinear::new(name, weight, bias)
    }

    fn layer<A: Adapter>(&mut self, config: &LlamaConfig, index: usize) -> LlamaLayer<A> {
        let prefix = format!("model.layers.{index}.");
        let modules = layer_modules(config);
        let [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj] =
            modules.map(|(name, shape, bias)| self.linear(&prefix, name, shape, bias));
        let self_attn = LlamaAttention {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            prefix: None,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        let mlp = LlamaMlp { gate_proj, up_proj, down_proj };
        let hidden = config.hidden_size;
        LlamaLayer {
            input_layernorm: self.norm(&format!("{prefix}input_layernorm"), hidden),
            self_attn,
            post_attention_layernorm: self.norm(&format!("{prefix}post_attention_layernorm"), hidden),
            mlp,
            rms_norm_eps: config.rms_norm_eps,
        }
    }

    fn outer<A: Adapter>(&mut self, config: &LlamaConfig) -> LlamaOuter<A> {
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        let table = self.tensor("model.embed_tokens.weight", [vocabulary, hidden]);
        LlamaOuter {
            embed_tokens: PeftEmbedding::new(Weight::frozen(table)),
            norm: self.norm("model.norm", hidden),
            lm_head: (!config.tie_word_embeddings).then(|| self.linear("", "lm_head", [hidden, vocabulary], false)),
        }
    }
}

impl<A: Adapter> Llama<A> {
    /// The model whose weights `source` gives, kept as `storage`: f32, bf16, f16 or f64, or i8 for the layers' matrices in
    /// eight bits and all else in f32. Arithmetic is f32, or f64 for f64.
    pub fn build(config: LlamaConfig, source: &mut WeightSource<'_>, storage: DType, device: &Device) -> Self {
        let mut builder = Builder { source, storage, device };
        let outer = builder.outer(&config);
        let layers = (0..config.num_hidden_layers).map(|index| builder.layer(&config, index)).collect();
        let arithmetic = if storage == DType::F64 { DType::F64 } else { DType::F32 };
        let inverse_frequencies = config.inv_freq();
        Self { config, outer, layers, inverse_frequencies, device: device.clone(), arithmetic }
    }

    /// A model with random weights: matrices normal with deviation 0.02, output projections of the residual branches smaller
    /// by √(2 layers), norms 1, biases 0.
    pub fn random(config: LlamaConfig, seed: u64, device: &Device) -> Self {
        let residual = 0.02 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let mut source = |name: &str, shape: &[usize]| {
            let mut rng = streams::stream(seed, name);
            let deviation = if name.contains("o_proj") || name.contains("down_proj") { residual } else { 0.02 };
            let values: Vec<f32> = match shape.len() {
                1 => vec![if name.ends_with("bias") { 0.0 } else { 1.0 }; shape[0]],
                _ => (0..shape.iter().product()).map(|_| (deviation * normal(&mut rng)) as f32).collect(),
            };
            TensorData::new(values, shape.to_vec())
        };
        Self::build(config, &mut source, DType::F32, device)
    }

    /// The same model with every weight training, for pre-training.
    #[must_use]
    pub fn train_everything(mut self) -> Self {
        self.outer.embed_tokens.weight = self.outer.embed_tokens.weight.train();
        train_norm(&mut self.outer.norm);
        if let Some(head) = &mut self.outer.lm_head {
            train_linear(&mut head.base);
        }
        self.layers = self.layers.into_iter().map(LlamaLayer::train).collect();
        self
    }

    /// The model with its weights as they are now, frozen and kept as `storage`; adapters are left out.
    #[must_use]
    pub fn store_as(&self, storage: DType) -> Self {
        let mut weights: std::collections::HashMap<String, TensorData> = self.weights().into_iter().collect();
        let mut source = |name: &str, shape: &[usize]| {
            weights.remove(name).unwrap_or_else(|| TensorData::zeros::<f32, _>(shape.to_vec()))
        };
        Self::build(self.config.clone(), &mut source, storage, &self.device)
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The modules with adapters and what those take.
    fn adapted_sites(&self) -> Vec<AdaptedSite> {
        let outer = &self.outer;
        let mut adapters = vec![outer.embed_tokens.adapter.as_ref()];
        adapters.extend(self.layers.iter().flat_map(LlamaLayer::adapters));
        adapters.push(outer.norm.adapter.as_ref());
        adapters.extend(outer.lm_head.iter().map(|head| head.adapter.as_ref()));
        let adapted = sites(&self.config).into_iter().zip(adapters);
        adapted.filter_map(|(site, adapter)| Some(AdaptedSite::of(adapter?, site))).collect()
    }

    /// Positions in front of all tokens: those of a prefix, which every layer has or none.
    fn prefix_length(&self) -> usize {
        self.layers.iter().find_map(|layer| layer.self_attn.prefix.as_ref()).map_or(0, A::prefix_length)
    }

    /// Final norm and head, `[.., hidden]` to `[.., vocabulary]`.
    fn head(&self, outer: &LlamaOuter<A>, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let x = self.norm(outer, x, pass);
        match &outer.lm_head {
            Some(head) => head.forward(x, pass),
            None => linear(x, outer.embed_tokens.head_weight(pass.response)),
        }
    }

    /// The last layer's output at the predicting positions, `[1, predicted, hidden]`.
    fn last_hidden(&self, batch: &TokenBatch, context: &LlamaContext, pass: &LayerPass) -> Tensor<3> {
        let embedded = self.embed(&self.outer, batch, pass);
        match self.layers.split_last() {
            Some((last, layers)) => {
                let x = layers.iter().fold(embedded, |x, layer| layer.forward(x, context, pass, None));
                last.finish(x, batch, context, pass)
            }
            None => predicting(embedded, batch),
        }
    }

    fn norm(&self, outer: &LlamaOuter<A>, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let weight = outer.norm.values(x.dtype(), pass).weight;
        rms_norm(x, weight, self.config.rms_norm_eps)
    }

    /// -log p of every predicted token, `[predicted]`, from the last layer's output at the predicting positions
    /// `[1, predicted, hidden]`.
    ///
    /// Under an adapter of its own the head's logits exist in full.
    fn token_losses(&self, outer: &LlamaOuter<A>, x: Tensor<3>, batch: &TokenBatch, pass: &LayerPass) -> Tensor<1> {
        let x = self.norm(outer, x, pass);
        let weight = match &outer.lm_head {
            Some(head) if head.adapter.is_some() || head.base.bias.is_some() => {
                return cross_entropy(head.forward(x, pass).squeeze_dim(0), batch.targets.clone());
            }
            Some(head) => head.base.weight.at_rest(pass.response),
            None => outer.embed_tokens.head_weight(pass.response),
        };
        linear_cross_entropy(x.squeeze_dim(0), weight, batch.targets.clone())
    }
}

impl<A: Adapter> LayeredModel for Llama<A> {
    type Outer = LlamaOuter<A>;
    type Layer = LlamaLayer<A>;
    type Batch = TokenBatch;
    type Context = LlamaContext;

    fn outer(&self) -> &LlamaOuter<A> {
        &self.outer
    }

    fn outer_mut(&mut self) -> &mut LlamaOuter<A> {
        &mut self.outer
    }

    fn layers(&self) -> &[LlamaLayer<A>] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [LlamaLayer<A>] {
        &mut self.layers
    }

    fn context(&self, batch: &TokenBatch) -> LlamaContext {
        let prefix = self.prefix_length();
        let positions = vec![(prefix..prefix + batch.input_ids.dims()[1]).collect()];
        LlamaContext {
            rotation: Rotation::new(&self.inverse_frequencies, &positions, self.arithmetic, &self.device),
            mask: batch.mask.after_prefix(prefix),
        }
    }

    fn predicted_tokens(&self, batch: &TokenBatch) -> usize {
        batch.predicted_tokens()
    }

    fn embed(&self, outer: &LlamaOuter<A>, batch: &TokenBatch, pass: &LayerPass) -> Tensor<3> {
        outer.embed_tokens.forward(batch.input_ids.clone(), self.arithmetic, pass)
    }

    fn layer(&self, layer: &LlamaLayer<A>, x: Tensor<3>, context: &LlamaContext, pass: &LayerPass) -> Tensor<3> {
        layer.forward(x, context, pass, None)
    }

    fn half(
        &self,
        half: Half,
        layer: &LlamaLayer<A>,
        x: Tensor<3>,
        context: &LlamaContext,
        pass: &LayerPass,
    ) -> Tensor<3> {
        match half {
            Half::First => layer.attend(x, context, pass, None),
            Half::Second => layer.feed_forward(x, pass),
        }
    }

    fn loss(&self, outer: &LlamaOuter<A>, x: Tensor<3>, batch: &TokenBatch, pass: &LayerPass) -> Tensor<1> {
        if batch.predicted_tokens() == 0 {
            return Tensor::zeros([1], (&self.device, self.arithmetic));
        }
        self.token_losses(outer, predicting(x, batch), batch, pass).sum()
    }

    fn last_layer_loss(
        &self,
        layer: &LlamaLayer<A>,
        x: Tensor<3>,
        batch: &TokenBatch,
        context: &LlamaContext,
        pass: &LayerPass,
    ) -> Tensor<1> {
        if batch.predicted_tokens() == 0 {
            return Tensor::zeros([1], (&self.device, self.arithmetic));
        }
        let x = layer.finish(x, batch, context, pass);
        self.token_losses(&self.outer, x, batch, &LayerPass::EVALUATION).sum()
    }

    /// `None` where weights themselves train.
    fn footprint(&self, batch: &TokenBatch) -> Option<Footprint> {
        let packed = self.layers.iter().any(|layer| layer.self_attn.q_proj.base.weight.is_int8());
        let storage = if packed { DType::I8 } else { self.outer.embed_tokens.weight.dtype() };
        let adapted = self.adapted_sites();
        let resident = Resident { adapted: &adapted, storage, arithmetic: self.arithmetic };
        let frozen = !self.outer.norm.base.weight.trains();
        frozen.then(|| llama_memory::footprint(&self.config, resident, BatchShape::from(batch)))
    }
}

impl<A: Adapter> PeftModel<A> for Llama<A> {
    fn slots(&mut self) -> Vec<Slot<'_, A>> {
        let LlamaOuter { embed_tokens, norm, lm_head } = &mut self.outer;
        let [vocabulary, hidden] = embed_tokens.weight.dims();
        let site = Site::embedding("model.embed_tokens", vocabulary, hidden);
        let base = BaseMut::Embedding(&mut embed_tokens.weight);
        let mut slots = vec![Slot { site, base, adapter: &mut embed_tokens.adapter }];
        for (index, layer) in self.layers.iter_mut().enumerate() {
            slots.extend(layer.slots(&format!("model.layers.{index}."), index));
        }
        slots.push(norm_slot("model.norm".to_owned(), None, norm));
        slots.extend(lm_head.as_mut().map(|head| linear_slot("", None, head)));
        slots
    }

    fn roles(&self) -> &'static Roles {
        &ROLES
    }

    fn num_layers(&self) -> usize {
        self.layers.len()
    }

    fn untie(&mut self) {
        if self.outer.lm_head.is_none() {
            let head = self.outer.embed_tokens.weight.current().transpose();
            self.outer.lm_head = Some(PeftLinear::new("lm_head", Weight::frozen(head), None));
            self.config.tie_word_embeddings = false;
            self.config.document["tie_word_embeddings"] = false.into();
        }
    }
}

fn linear_site<A: Adapter>(prefix: &str, layer: Option<usize>, linear: &PeftLinear<A>) -> Site {
    let [d_in, d_out] = linear.base.weight.dims();
    Site::linear(format!("{prefix}{}", linear.name), layer, d_in, d_out).with_bias(linear.base.bias.is_some())
}

fn linear_slot<'a, A: Adapter>(prefix: &str, layer: Option<usize>, linear: &'a mut PeftLinear<A>) -> Slot<'a, A> {
    let site = linear_site(prefix, layer, linear);
    Slot { site, base: BaseMut::Linear(&mut linear.base), adapter: &mut linear.adapter }
}

fn norm_slot<A: Adapter>(path: String, layer: Option<usize>, norm: &mut PeftNorm<A>) -> Slot<'_, A> {
    let site = Site::norm(path, layer, norm.base.weight.dims()[0]);
    Slot { site, base: BaseMut::Norm(&mut norm.base), adapter: &mut norm.adapter }
}

impl<A: Adapter> CausalLm<A> for Llama<A> {
    type Cache = LlamaCache;

    fn device(&self) -> &Device {
        &self.device
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.max_position_embeddings.saturating_sub(self.prefix_length())
    }

    fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        let context = self.context(batch);
        let pass = &LayerPass::EVALUATION;
        let x = self.last_hidden(batch, &context, pass);
        self.head(&self.outer, x, pass).squeeze_dim(0)
    }

    fn token_log_probabilities(&self, batch: &TokenBatch) -> Tensor<1> {
        let context = self.context(batch);
        let pass = &LayerPass::EVALUATION;
        let x = self.last_hidden(batch, &context, pass);
        self.token_losses(&self.outer, x, batch, pass).neg()
    }

    fn new_cache(&self, rows: usize) -> LlamaCache {
        LlamaCache { layers: vec![None; self.layers.len()], mask: vec![vec![true; self.prefix_length()]; rows] }
    }

    fn extend(&self, tokens: &[Vec<u32>], mask: &[Vec<bool>], cache: &mut LlamaCache) -> Tensor<2> {
        let (queries, seen) = (tokens[0].len(), cache.mask[0].len());
        for (row, new) in cache.mask.iter_mut().zip(mask) {
            row.extend(new);
        }
        let positions: Vec<Vec<usize>> = cache.mask.iter().map(|row| positions_of(row).split_off(seen)).collect();
        let context = LlamaContext {
            rotation: Rotation::new(&self.inverse_frequencies, &positions, self.arithmetic, &self.device),
            mask: AttentionMask::causal(&cache.mask.concat(), queries, seen + queries),
        };
        let ids: Vec<i64> = tokens.iter().flatten().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [tokens.len(), queries]), &self.device);
        let pass = &LayerPass::EVALUATION;
        let embedded = self.outer.embed_tokens.forward(ids, self.arithmetic, pass);
        let layers = self.layers.iter().zip(&mut cache.layers);
        let x = layers.fold(embedded, |x, (layer, cache)| layer.forward(x, &context, pass, Some(cache)));
        self.head(&self.outer, x.narrow(1, queries - 1, 1), pass).squeeze_dim(1)
    }

    fn weights(&self) -> Vec<(String, TensorData)> {
        let mut weights =
            vec![("model.embed_tokens.weight".to_owned(), self.outer.embed_tokens.weight.current().into_data())];
        for (index, layer) in self.layers.iter().enumerate() {
            let prefix = format!("model.layers.{index}.");
            for linear in layer.linears() {
                weights.extend(linear_weights(&prefix, linear));
            }
            let norms = [
                ("input_layernorm", &layer.input_layernorm),
                ("post_attention_layernorm", &layer.post_attention_layernorm),
            ];
            weights.extend(norms.map(|(name, norm)| (format!("{prefix}{name}.weight"), norm_weight(norm))));
        }
        weights.push(("model.norm.weight".to_owned(), norm_weight(&self.outer.norm)));
        weights.extend(self.outer.lm_head.iter().flat_map(|head| linear_weights("", head)));
        weights
    }

    fn config_json(&self) -> serde_json::Value {
        self.config.to_json()
    }
}

fn norm_weight<A: Adapter>(norm: &PeftNorm<A>) -> TensorData {
    norm.base.weight.current().into_data()
}

fn linear_weights<A: Adapter>(prefix: &str, linear: &PeftLinear<A>) -> Vec<(String, TensorData)> {
    let name = format!("{prefix}{}", linear.name);
    let mut weights = vec![(format!("{name}.weight"), linear.base.weight.current().transpose().into_data())];
    weights.extend(linear.base.bias.as_ref().map(|bias| (format!("{name}.bias"), bias.current().into_data())));
    weights
}

/// A row's positions: cumulative count of its real tokens minus one, at least 0.
fn positions_of(mask: &[bool]) -> Vec<usize> {
    let mut real = 0usize;
    mask.iter()
        .map(|&token| {
            real += usize::from(token);
            real.saturating_sub(1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llama_layout::{parameter_count, tensors};
    use ist_peft::BuiltinAdapter;
    use std::collections::BTreeMap;

    fn config(tied: bool, bias: bool) -> LlamaConfig {
        let text = format!(
            r#"{{"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "max_position_embeddings": 64,
            "tie_word_embeddings": {tied}, "attention_bias": {bias}, "mlp_bias": {bias}}}"#
        );
        LlamaConfig::parse(&text).unwrap()
    }

    #[test]
    fn tensors_and_sites_from_the_configuration_are_those_of_the_model() {
        for (tied, bias) in [(true, false), (false, true)] {
            let config = config(tied, bias);
            let mut model = Llama::<BuiltinAdapter>::random(config.clone(), 0, &Device::flex());
            let weights = model.weights();
            assert_eq!(parameter_count(&config), weights.iter().map(|(_, data)| data.num_elements()).sum::<usize>());
            let held = weights.iter().map(|(name, data)| (name.clone(), data.shape().to_vec()));
            let held: BTreeMap<_, _> = held.collect();
            assert_eq!(tensors(&config).collect::<BTreeMap<_, _>>(), held);
            let built: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
            assert_eq!(sites(&config), built);
        }
    }

    #[test]
    fn positions_count_real_tokens() {
        assert_eq!(positions_of(&[false, false, true, true, true]), [0, 0, 0, 1, 2]);
    }
}
