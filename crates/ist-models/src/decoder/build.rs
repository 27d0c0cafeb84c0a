//! From weights to a decoder.

use ist_core::burn;

use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use ist_peft::frozen::Int8Matrix;
use ist_peft::{PeftEmbedding, PeftLinear, PeftNorm, Weight};

use super::DecoderOuter;
use super::attention::DecoderAttention;
use super::config::{DecoderConfig, Norm, Positions};
use super::experts::{DecoderExpert, DecoderExperts};
use super::layer::DecoderLayer;
use super::layout::{self, LinearShape};
use super::mlp::DecoderMlp;

/// Where weights come from: name and shape in Hugging Face's layout to the values. A source that
/// has no such tensor notes the fault and answers with zeros.
pub type WeightSource<'a> = dyn FnMut(&str, &[usize]) -> TensorData + 'a;

/// Where the tensors of a model come from.
pub(super) enum TensorSource<'a, 'b> {
    /// Values, which are brought to the device.
    Values(&'a mut WeightSource<'b>),
    /// Random numbers, which are made there: matrices normal with deviation 0.02, vectors ones.
    Device,
}

/// Builds the modules of one model from a source of weights.
pub(super) struct Builder<'a, 'b> {
    pub config: &'a DecoderConfig,
    pub source: TensorSource<'a, 'b>,
    /// Of the layers' matrices.
    pub storage: DType,
    pub device: &'a Device,
}

impl Builder<'_, '_> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let dtype = if self.storage == DType::I8 { DType::F32 } else { self.storage };
        match &mut self.source {
            TensorSource::Values(source) => {
                Tensor::from_data(source(name, &shape).convert_dtype(dtype), (self.device, dtype))
            }
            TensorSource::Device if D == 1 => Tensor::ones(shape, (self.device, dtype)),
            TensorSource::Device => {
                let normal: Tensor<D> =
                    Tensor::random(shape, Distribution::Normal(0.0, 0.02), self.device);
                normal.cast(dtype)
            }
        }
    }

    fn vector(&mut self, name: &str, size: usize) -> Weight<1> {
        Weight::frozen(self.tensor(name, [size]))
    }

    fn norm<A: Module>(&mut self, path: &str, size: usize) -> PeftNorm<A> {
        let weight = self.vector(&format!("{path}.weight"), size);
        let bias =
            (self.config.norm == Norm::Layer).then(|| self.vector(&format!("{path}.bias"), size));
        PeftNorm { base: ist_peft::FrozenNorm { weight, bias }, adapter: None }
    }

    /// A matrix of a layer, `[in, out]`. Its columns lie in one piece, whichever way a file holds
    /// them.
    fn matrix(&mut self, name: &str, [d_in, d_out]: [usize; 2]) -> Weight<2> {
        let TensorSource::Values(source) = &mut self.source else {
            return Weight::frozen(self.tensor(name, [d_out, d_in]).transpose());
        };
        let data = if self.config.fan_in_fan_out {
            let data = source(name, &[d_in, d_out]);
            let dtype = data.dtype();
            let stored: Tensor<2> = Tensor::from_data(data, (self.device, dtype));
            stored.transpose().into_data()
        } else {
            source(name, &[d_out, d_in])
        };
        if self.storage == DType::I8 {
            return Weight::int8(Int8Matrix::quantise(&data, self.device));
        }
        let stored: Tensor<2> =
            Tensor::from_data(data.convert_dtype(self.storage), (self.device, self.storage));
        Weight::frozen(stored.transpose())
    }

    /// A linear module of the layer at `prefix`.
    fn linear<A: Module>(&mut self, prefix: &str, shape: LinearShape) -> PeftLinear<A> {
        let LinearShape { path, d_in, d_out, bias } = shape;
        let weight = self.matrix(&format!("{prefix}{path}.weight"), [d_in, d_out]);
        let bias = bias.then(|| self.vector(&format!("{prefix}{path}.bias"), d_out));
        PeftLinear { name: path, base: ist_peft::FrozenLinear { weight, bias }, adapter: None }
    }

    /// Layer `index`.
    pub(super) fn layer<A: Module>(&mut self, index: usize) -> DecoderLayer<A> {
        let (names, hidden) = (self.config.names, self.config.hidden_size);
        let prefix = names.layer(index);
        let norm = |builder: &mut Self, name: Option<&str>| {
            name.map(|name| builder.norm(&format!("{prefix}{name}"), hidden))
        };
        let before_attention = norm(self, names.before_attention);
        let self_attn = self.attention(&prefix);
        let after_attention = norm(self, names.after_attention);
        let before_mlp = norm(self, names.before_mlp);
        let routed = self.config.layers[index].experts;
        let mlp = (!routed).then(|| self.mlp(&prefix));
        let experts = routed.then(|| self.experts(&prefix));
        let after_mlp = norm(self, names.after_mlp);
        DecoderLayer {
            index,
            before_attention,
            self_attn,
            after_attention,
            before_mlp,
            mlp,
            experts,
            after_mlp,
        }
    }

    fn attention<A: Module>(&mut self, prefix: &str) -> DecoderAttention<A> {
        let mut projections: Vec<PeftLinear<A>> = layout::projections(self.config)
            .into_iter()
            .map(|shape| self.linear(prefix, shape))
            .collect();
        let fused = (projections.len() == 1).then(|| projections.remove(0));
        let mut separate = projections.into_iter();
        let norms = layout::head_norms(self.config);
        let [q_norm, k_norm] = match norms {
            Some(norms) => {
                norms.map(|(path, width)| Some(self.norm(&format!("{prefix}{path}"), width)))
            }
            None => [None, None],
        };
        DecoderAttention {
            q_proj: separate.next(),
            k_proj: separate.next(),
            v_proj: separate.next(),
            qkv_proj: fused,
            q_norm,
            k_norm,
            o_proj: self.linear(prefix, layout::output(self.config)),
            prefix: None,
        }
    }

    fn mlp<A: Module>(&mut self, prefix: &str) -> DecoderMlp<A> {
        use super::config::Mlp;
        let shapes = layout::mlp(self.config);
        let mut modules: Vec<PeftLinear<A>> =
            shapes.into_iter().map(|shape| self.linear(prefix, shape)).collect();
        let down_proj = modules.pop().expect("an MLP has a module behind it");
        let mut modules = modules.into_iter();
        let (mut gate_proj, mut up_proj, mut gate_up_proj) = (None, None, None);
        match self.config.mlp {
            Mlp::Gated => (gate_proj, up_proj) = (modules.next(), modules.next()),
            Mlp::FusedGated => gate_up_proj = modules.next(),
            Mlp::Plain => up_proj = modules.next(),
        }
        DecoderMlp { gate_proj, up_proj, gate_up_proj, down_proj }
    }

    fn experts<A: Module>(&mut self, prefix: &str) -> DecoderExperts<A> {
        let count = self.config.experts.map_or(0, |experts| experts.num_experts);
        let path = self.config.names.in_mlp(self.config.names.router);
        let router: Tensor<2> =
            self.tensor(&format!("{prefix}{path}.weight"), [count, self.config.hidden_size]);
        let expert = |index| {
            let [gate_proj, up_proj, down_proj] =
                layout::expert(self.config, index).map(|shape| self.linear(prefix, shape));
            DecoderExpert { gate_proj, up_proj, down_proj }
        };
        DecoderExperts {
            experts: (0..count).map(expert).collect(),
            router: Weight::frozen(router.transpose()),
        }
    }

    /// Everything outside the layers.
    pub(super) fn outer<A: Module>(&mut self) -> DecoderOuter<A> {
        let (config, names) = (self.config, self.config.names);
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        let table = |builder: &mut Self, path: &str, rows| {
            Weight::frozen(builder.tensor(&format!("{path}.weight"), [rows, hidden]))
        };
        let embed_tokens = table(self, &names.in_body(names.embed_tokens), vocabulary);
        let learned = config.positions == Positions::Learned;
        let embed_positions = learned.then(|| {
            table(self, &names.in_body(names.embed_positions), config.max_position_embeddings)
        });
        let embedding_norm =
            config.embedding_norm.then(|| self.norm(&names.in_body(names.embedding_norm), hidden));
        let norm = self.norm(&names.in_body(names.norm), hidden);
        let lm_head = (!config.tie_word_embeddings).then(|| {
            let weight: Tensor<2> =
                self.tensor(&format!("{}.weight", names.head_in_files), [vocabulary, hidden]);
            let bias = config
                .head_bias
                .then(|| self.vector(&format!("{}.bias", names.head_in_files), vocabulary));
            let base = ist_peft::FrozenLinear { weight: Weight::frozen(weight.transpose()), bias };
            PeftLinear { name: names.lm_head.to_owned(), base, adapter: None }
        });
        let embed_tokens = PeftEmbedding { weight: embed_tokens, adapter: None };
        DecoderOuter { embed_tokens, embed_positions, embedding_norm, norm, lm_head }
    }
}
