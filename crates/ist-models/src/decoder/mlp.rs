//! The MLP of one layer.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::Tensor;
use ist_peft::{Adapter, PeftLinear};

use super::config::DecoderConfig;
use crate::ops::activate::activate;
use crate::ops::gated::gated;

/// The MLP of one layer.
#[derive(Module, Debug)]
pub struct DecoderMlp<A: Module> {
    /// To the gate, where it has a module of its own.
    pub(super) gate_proj: Option<PeftLinear<A>>,
    /// To what is gated, or into an MLP without a gate.
    pub(super) up_proj: Option<PeftLinear<A>>,
    /// To both at once.
    pub(super) gate_up_proj: Option<PeftLinear<A>>,
    pub(super) down_proj: PeftLinear<A>,
}

impl<A: Adapter> DecoderMlp<A> {
    /// What the MLP makes of its input. `last` says whether the layer's output is this and the
    /// residual.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        config: &DecoderConfig,
        last: bool,
        pass: &LayerPass,
    ) -> Tensor<3> {
        let inner = self.inner(x, config, pass);
        if last {
            self.down_proj.forward_last(inner, pass)
        } else {
            self.down_proj.forward(inner, pass)
        }
    }

    fn inner(&self, x: Tensor<3>, config: &DecoderConfig, pass: &LayerPass) -> Tensor<3> {
        let act = config.hidden_act;
        match (&self.gate_up_proj, &self.gate_proj, &self.up_proj) {
            (Some(both), ..) => {
                let width = config.intermediate_size;
                let both = both.forward(x, pass);
                gated(act, both.clone().narrow(2, 0, width), both.narrow(2, width, width))
            }
            (None, Some(gate), Some(up)) => {
                gated(act, gate.forward(x.clone(), pass), up.forward(x, pass))
            }
            (None, None, Some(up)) => activate(act, up.forward(x, pass)),
            _ => unreachable!("an MLP has a way in"),
        }
    }
}
