//! Importance-aware Sparse Tuning (IST): the algorithm and the memory-lean training step, on any
//! [`burn`] backend.
//!
//! IST fine-tunes a frozen model through PEFT modules and gives gradients, in each optimizer step,
//! to a sampled subset of the layers only, drawn by a learned layer importance (Yao et al.,
//! *Layer-wise Importance Matters*, Findings of EMNLP 2024, [arXiv
//! 2410.11772](https://arxiv.org/abs/2410.11772)). This crate knows layers, not transformers:
//! whatever implements [`LayeredModel`] trains under every policy.
//!
//! | to read about | look at |
//! |---|---|
//! | which layers train | [`policy`], [`LayerSet`], [`policy::sampling`] |
//! | the step that uses that knowledge | [`step`] (the layer walk), [`plan`] (its memory), [`LayeredModel`] |
//! | what moves the parameters | [`optimizer`], [`schedule`] |
//! | all of it together, saved and restored | [`Tuner`] |
//!
//! # Example
//!
//! Two toy layers, each a scalar gain on its input, tuned by plain `all`:
//!
//! ```
//! use ist_core::burn::module::{Module, Param};
//! use ist_core::burn::tensor::{Device, Tensor};
//! use ist_core::{LayerPass, LayerSet, LayeredModel, Tuner, TunerConfig, policy::All};
//!
//! #[derive(Module, Debug)]
//! struct Gain { gain: Param<Tensor<1>> }
//! #[derive(Module, Debug)]
//! struct Nothing { unused: usize }
//! struct Toy { outer: Nothing, layers: Vec<Gain> }
//!
//! impl LayeredModel for Toy {
//!     type Outer = Nothing;
//!     type Layer = Gain;
//!     type Batch = Tensor<3>;
//!     type Context = ();
//!     fn outer(&self) -> &Nothing { &self.outer }
//!     fn outer_mut(&mut self) -> &mut Nothing { &mut self.outer }
//!     fn layers(&self) -> &[Gain] { &self.layers }
//!     fn layers_mut(&mut self) -> &mut [Gain] { &mut self.layers }
//!     fn context(&self, _: &Tensor<3>) {}
//!     fn predicted_tokens(&self, _: &Tensor<3>) -> usize { 1 }
//!     fn embed(&self, _: &Nothing, batch: &Tensor<3>, _: &LayerPass) -> Tensor<3> { batch.clone() }
//!     fn layer(&self, layer: &Gain, x: Tensor<3>, (): &(), pass: &LayerPass) -> Tensor<3> {
//!         x.clone() + x * (layer.gain.val() * pass.response).unsqueeze()
//!     }
//!     fn loss(&self, _: &Nothing, x: Tensor<3>, _: &Tensor<3>, _: &LayerPass) -> Tensor<1> {
//!         (x - 1.0).powi_scalar(2).sum()
//!     }
//! }
//!
//! let device = Device::flex();
//! let gain = || Gain { gain: Param::from_tensor(Tensor::zeros([1], &device)).set_require_grad(false) };
//! let mut model = Toy { outer: Nothing { unused: 0 }, layers: vec![gain(), gain()] };
//! let config = TunerConfig { learning_rate: 0.05, ..TunerConfig::default() };
//! let mut tuner = Tuner::new(config, Box::new(All::new(&LayerSet::all(2))), 7);
//! let batch = Tensor::<3>::ones([1, 1, 1], &device) * 0.5;
//! let first = tuner.step(&mut model, std::slice::from_ref(&batch)).unwrap().loss;
//! for _ in 0..20 { tuner.step(&mut model, std::slice::from_ref(&batch)).unwrap(); }
//! assert!(tuner.step(&mut model, std::slice::from_ref(&batch)).unwrap().loss < 0.1 * first);
//! ```

pub mod gradients;
pub mod layer_set;
pub mod layered;
pub mod operation;
pub mod optimizer;
pub mod plan;
pub mod policy;
pub mod schedule;
#[cfg(feature = "schema")]
pub mod schema;
pub mod step;
pub mod streams;
pub mod times;
pub mod tuner;

/// The exact `burn` every crate of this workspace is built on. Outside crates use this one, so that
/// versions cannot differ.
pub use burn;

pub use gradients::Gradients;
pub use layer_set::{LayerSet, LayerSetError};
pub use layered::{Half, LayerPass, LayeredModel, Responses};
pub use plan::Footprint;
pub use policy::{LayerPolicy, PolicyError, sampling};
pub use times::Times;
pub use tuner::{LossScale, Tuner, TunerConfig, TunerError};
