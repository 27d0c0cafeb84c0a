//! Loss scaling on a layer whose gradient passes through f16.

use ist_core::burn::module::{Module, Param};
use ist_core::burn::tensor::{DType, Device, Tensor};
use ist_core::policy::All;
use ist_core::{LayerPass, LayerSet, LayeredModel, Tuner, TunerConfig, TunerError, gradients};

#[derive(Module, Debug)]
struct Gain {
    gain: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Nothing {
    unused: usize,
}

/// y = x · gain, rounded to f16 where `half`; the loss is `factor` · Σ y.
struct Toy {
    outer: Nothing,
    layers: Vec<Gain>,
    half: bool,
    factor: f64,
}

impl Toy {
    fn new(half: bool, factor: f64) -> Self {
        let gain = Param::from_tensor(Tensor::ones([1], &Device::flex())).set_require_grad(false);
        Self { outer: Nothing { unused: 0 }, layers: vec![Gain { gain }], half, factor }
    }

    fn gain(&self) -> f64 {
        gradients::scalar(self.layers[0].gain.val())
    }
}

impl LayeredModel for Toy {
    type Outer = Nothing;
    type Layer = Gain;
    type Batch = Tensor<3>;
    type Context = ();

    fn outer(&self) -> &Nothing {
        &self.outer
    }

    fn outer_mut(&mut self) -> &mut Nothing {
        &mut self.outer
    }

    fn layers(&self) -> &[Gain] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [Gain] {
        &mut self.layers
    }

    fn context(&self, _: &Tensor<3>) {}

    fn predicted_tokens(&self, _: &Tensor<3>) -> usize {
        1
    }

    fn embed(&self, _: &Nothing, batch: &Tensor<3>, _: &LayerPass) -> Tensor<3> {
        batch.clone()
    }

    fn layer(&self, layer: &Gain, x: Tensor<3>, (): &(), _: &LayerPass) -> Tensor<3> {
        let y = x * layer.gain.val().unsqueeze();
        if self.half { y.cast(DType::F16).cast(DType::F32) } else { y }
    }

    fn loss(&self, _: &Nothing, x: Tensor<3>, _: &Tensor<3>, _: &LayerPass) -> Tensor<1> {
        x.sum().mul_scalar(self.factor)
    }
}

fn tuner(loss_scaling: bool) -> Tuner {
    let config = TunerConfig {
        learning_rate: 0.125,
        clip_norm: None,
        loss_scaling,
        ..TunerConfig::default()
    };
    Tuner::new(config, Box::new(All::new(&LayerSet::all(1))), 7)
}

/// One step on one number.
fn step(tuner: &mut Tuner, model: &mut Toy) -> Result<ist_core::tuner::StepReport, TunerError> {
    tuner.step(model, &[Tensor::ones([1, 1, 1], &Device::flex())])
}

#[test]
fn a_gradient_too_small_for_f16_survives() {
    // The least number above 0 in f16 is 6e-8.
    let [mut lost, mut kept] = [Toy::new(true, 1e-8), Toy::new(true, 1e-8)];
    assert_eq!(step(&mut tuner(false), &mut lost).unwrap().grad_norm, 0.0);
    let report = step(&mut tuner(true), &mut kept).unwrap();
    assert!((report.grad_norm / 1e-8 - 1.0).abs() < 1e-3, "{}", report.grad_norm);
    assert!((lost.gain(), report.skipped) == (1.0, false) && kept.gain() < 1.0);
}

#[test]
fn an_overflow_is_skipped_and_the_next_step_is_that_of_half_the_scale() {
    // 65536 is more than f16 holds, 32768 is not.
    let (mut tuner, mut model) = (tuner(true), Toy::new(true, 1.0));
    let first = step(&mut tuner, &mut model).unwrap();
    assert!(first.skipped && !first.grad_norm.is_finite() && model.gain() == 1.0, "{first:?}");
    assert_eq!(
        (first.loss_scale, tuner.next_step(), tuner.optimizer().updates("layers.0.gain")),
        (Some(65_536.0), 1, 0)
    );
    let second = step(&mut tuner, &mut model).unwrap();
    assert_eq!((second.skipped, second.loss_scale, second.grad_norm), (false, Some(32_768.0), 1.0));
    // AdamW's first update moves by the learning rate.
    assert!((model.gain() - 0.875).abs() < 1e-6, "{}", model.gain());
}

#[test]
fn in_single_precision_scaling_changes_no_bit() {
    let [mut plain, mut scaled] = [Toy::new(false, 0.3), Toy::new(false, 0.3)];
    let (mut without, mut with) = (tuner(false), tuner(true));
    for _ in 0..5 {
        let [a, b] =
            [step(&mut without, &mut plain).unwrap(), step(&mut with, &mut scaled).unwrap()];
        assert_eq!((a.loss, a.grad_norm), (b.loss, b.grad_norm));
    }
    assert_eq!(plain.gain(), scaled.gain());
}

#[test]
fn what_overflows_without_a_scale_ends_the_run() {
    let (mut tuner, mut model) = (tuner(true), Toy::new(true, 1e6));
    let error = loop {
        match step(&mut tuner, &mut model) {
            Ok(report) => assert!(report.skipped && report.step < 16),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TunerError::NotFinite { what: "gradient norm", .. }), "{error}");
    assert_eq!((tuner.next_step(), model.gain()), (16, 1.0));
}

#[test]
fn a_restored_tuner_goes_on_with_the_scale_it_had() {
    let (mut first, mut model) = (tuner(true), Toy::new(true, 1.0));
    step(&mut first, &mut model).unwrap();
    let mut second = tuner(true);
    second.restore(first.state().unwrap(), &Device::flex()).unwrap();
    assert_eq!(step(&mut second, &mut model).unwrap().loss_scale, Some(32_768.0));
    let mut without = tuner(false);
    without.restore(first.state().unwrap(), &Device::flex()).unwrap();
    assert_eq!(step(&mut without, &mut Toy::new(false, 1.0)).unwrap().loss_scale, None);
}

#[test]
fn a_step_updates_by_layers_only_where_nothing_needs_all_gradients() {
    let free = TunerConfig { clip_norm: None, ..TunerConfig::default() };
    assert!(free.updates_by_layer(1) && !free.updates_by_layer(2));
    let scaled = TunerConfig { loss_scaling: true, ..free.clone() };
    let clipped = TunerConfig { clip_norm: Some(1.0), ..free };
    assert!(!scaled.updates_by_layer(1) && !clipped.updates_by_layer(1));
}
