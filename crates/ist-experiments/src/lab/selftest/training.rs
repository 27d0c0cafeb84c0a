//! Steps, a whole trajectory of IST, what is saved, and a run that goes on elsewhere.

use ist_core::burn::tensor::{DType, Device, TensorData};
use ist_core::policy::{Ist, IstConfig};
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, Tuner, TunerConfig, streams};
use ist_models::{Decoder, DecoderConfig, Example, IGNORED_LABEL, TokenBatch};
use ist_peft::files::named_tensors;
use ist_peft::model::attach::targeted_sites;
use ist_peft::{Adapter, Adapters, BuiltinAdapter, PeftModel, Slot};
use rand::RngExt;
use serde_json::{Map, Value, json};

use super::methods::config;
use super::numbers::{Numbers, distance, floats, random};
use super::{Check, Found, Outcome};

type Model = Decoder<BuiltinAdapter>;

const LAYERS: usize = 4;
const VOCABULARY: usize = 13;
/// Parameters after twelve steps.
const TRAJECTORY: f64 = 1e-4;
/// Importance scores.
const SCORES: f64 = 1e-5;

/// A step with weights in half precision, in which a device may multiply: a few times the rounding
/// of bf16.
const MIXED: f64 = 2e-2;

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    let mixed_in = |storage, name| {
        let what = format!("a step with weights in {name}: loss and gradients");
        Check::new("training", what, MIXED, move |device| mixed(device, storage, name))
    };
    vec![
        mixed_in(DType::BF16, "bfloat16"),
        mixed_in(DType::F16, "float16"),
        Check::new(
            "training",
            "12 steps of IST: layers drawn and parameters",
            TRAJECTORY,
            trajectory,
        ),
        Check::new("training", "12 steps of IST: importance scores", SCORES, scores),
        Check::new("training", "a saved adapter read on the reference", 0.0, saved),
        Check::new("training", "a run that goes on elsewhere", TRAJECTORY, resumed),
    ]
}

/// Numbers around `middle`, the same in every type.
fn values(name: &str, [middle, width]: [f64; 2], shape: &[usize], numbers: &Numbers) -> TensorData {
    let values = random(name, shape.iter().product(), width)
        .into_iter()
        .map(|value| (middle + value) as f32);
    TensorData::new(values.collect::<Vec<f32>>(), shape.to_vec()).convert_dtype(numbers.dtype)
}

/// A LLaMA of four layers with biases, grouped heads and random adapters of that method.
pub(super) fn tiny(numbers: &Numbers, fields: &Map<String, Value>) -> Result<Model, String> {
    Ok(with_adapters(numbers, fields)?.0)
}

fn with_adapters(
    numbers: &Numbers,
    fields: &Map<String, Value>,
) -> Result<(Model, Adapters<BuiltinAdapter>), String> {
    stored(numbers, fields, numbers.dtype)
}

/// The same with frozen weights rounded to `storage`, and kept in it unless the numbers are the
/// reference's.
fn stored(
    numbers: &Numbers,
    fields: &Map<String, Value>,
    storage: DType,
) -> Result<(Model, Adapters<BuiltinAdapter>), String> {
    let document = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 12, "intermediate_size": 10,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "attention_bias": true,
        "mlp_bias": true,
    });
    let shape = DecoderConfig::parse(&document.to_string()).map_err(|error| error.to_string())?;
    let mut source = |name: &str, shape: &[usize]| {
        let range = if name.contains("norm") { [1.0, 0.3] } else { [0.0, 0.5] };
        values(name, range, shape, numbers).convert_dtype(storage).convert_dtype(numbers.dtype)
    };
    let kept = if numbers.dtype == DType::F64 { DType::F64 } else { storage };
    let mut model = Decoder::build(shape, &mut source, kept, &numbers.device);
    let mut adapters: Adapters<BuiltinAdapter> = Adapters::one(config(fields)?);
    let sites =
        targeted_sites(&mut model, &mut adapters).map_err(|error| error.to_string())?.concat();
    let configured = adapters.configs().next().ok_or("an adapter has a configuration")?;
    let layout = configured.settings.file_layout(&sites).into_iter();
    let tensors = layout.map(|(key, shape)| values(&key, [0.0, 0.4], &shape, numbers)).collect();
    let slots: Vec<_> =
        model.slots().into_iter().filter(|slot| sites.contains(&slot.site)).collect();
    let places: Vec<_> = slots.iter().map(Slot::place).collect();
    let made = BuiltinAdapter::from_file(&configured.settings, &places, tensors, &numbers.device);
    for (slot, adapter) in slots.into_iter().zip(made) {
        *slot.adapter = Some(adapter);
    }
    Ok((model, adapters))
}

fn lora() -> Map<String, Value> {
    let fields = json!({"method": "lora", "r": 2, "alpha": 3, "dropout": 0.1});
    fields.as_object().cloned().unwrap_or_default()
}

/// Four records of unequal length, padded on either side, every third label left out.
fn records(seed: u64) -> Vec<Example> {
    let mut rng = streams::stream(seed, "records");
    let mut record = |count: usize, left: usize, right: usize| {
        let tokens: Vec<u32> =
            (0..count).map(|_| rng.random_range(0..VOCABULARY as u32 - 1)).collect();
        let labels = tokens
            .iter()
            .enumerate()
            .map(|(t, &id)| if t % 3 == 2 { IGNORED_LABEL } else { i64::from(id) })
            .collect();
        Example {
            input_ids: [vec![0; left], tokens, vec![0; right]].concat(),
            labels: [vec![IGNORED_LABEL; left], labels, vec![IGNORED_LABEL; right]].concat(),
            attention_mask: [vec![false; left], vec![true; count], vec![false; right]].concat(),
        }
    };
    vec![record(7, 0, 0), record(5, 2, 0), record(4, 0, 3), record(6, 1, 1)]
}

fn batch(numbers: &Numbers, seed: u64) -> TokenBatch {
    TokenBatch::new(&records(seed), &numbers.device)
}

/// Loss and gradients of a step that trains two of the layers.
pub(super) fn gradients(
    model: &Model,
    numbers: &Numbers,
    memory: Memory,
) -> Result<Vec<Vec<f64>>, String> {
    let chosen = LayerSet::new([1, 3], LAYERS).map_err(|error| error.to_string())?;
    let output = step::gradients(model, &[batch(numbers, 5)], &chosen, memory, Some(3));
    let of = |name: &str| output.gradients.get(name).cloned().map(floats).unwrap_or_default();
    Ok(std::iter::once(vec![output.loss]).chain(output.gradients.names().map(of)).collect())
}

/// Where a run stands.
pub(super) struct Run {
    model: Model,
    adapters: Adapters<BuiltinAdapter>,
    tuner: Tuner,
    drawn: Vec<Vec<usize>>,
    scores: Vec<f64>,
}

impl Run {
    /// Before its first step.
    pub(super) fn begin(numbers: &Numbers) -> Result<Self, String> {
        let (model, adapters) = with_adapters(numbers, &lora())?;
        let settings = IstConfig { interval: 4, ..IstConfig::default() };
        let policy =
            Ist::new(&LayerSet::all(LAYERS), settings).map_err(|error| error.to_string())?;
        let config =
            TunerConfig { learning_rate: 1e-2, clip_norm: Some(1.0), ..TunerConfig::default() };
        let tuner = Tuner::new(config, Box::new(policy), 9);
        Ok(Self { model, adapters, tuner, drawn: Vec::new(), scores: Vec::new() })
    }

    /// The steps from the next one up to `end`.
    pub(super) fn go(mut self, numbers: &Numbers, end: usize) -> Result<Self, String> {
        while self.tuner.next_step() < end {
            let seed = self.tuner.next_step() as u64;
            let candidates = self.tuner.candidates();
            if !candidates.is_empty() {
                let scoring = [batch(numbers, 100 + seed)];
                let update = self
                    .tuner
                    .score(&self.model, &scoring, candidates)
                    .map_err(|error| error.to_string())?;
                self.scores = update.scores;
            }
            let report = self
                .tuner
                .step(&mut self.model, &[batch(numbers, seed)])
                .map_err(|error| error.to_string())?;
            self.drawn.push(report.layers.iter().collect());
        }
        Ok(self)
    }

    fn parameters(&mut self) -> Vec<Vec<f64>> {
        let named = named_tensors(&mut self.model, &self.adapters);
        named.into_iter().map(|(_, data)| data.iter::<f64>().collect()).collect()
    }
}

fn whole(numbers: &Numbers) -> Result<Run, String> {
    Run::begin(numbers)?.go(numbers, 12)
}

fn trajectory(device: &Device) -> Found {
    let (mut found, mut expected) = (whole(&Numbers::single(device))?, whole(&Numbers::exact())?);
    if found.drawn != expected.drawn {
        return Err(format!(
            "layers {:?} were drawn, the reference drew {:?}",
            found.drawn, expected.drawn
        ));
    }
    Ok(Outcome::Distance(distance(&found.parameters(), &expected.parameters())?))
}

fn scores(device: &Device) -> Found {
    let (found, expected) = (whole(&Numbers::single(device))?, whole(&Numbers::exact())?);
    Ok(Outcome::Distance(distance(&[found.scores], &[expected.scores])?))
}

/// Mixed precision against the exact step on the rounded weights.
fn mixed(device: &Device, storage: DType, name: &str) -> Found {
    if !device.supports_dtype(storage) {
        return Ok(Outcome::Skipped(format!("the device has no {name}")));
    }
    let run =
        |numbers: &Numbers| gradients(&stored(numbers, &lora(), storage)?.0, numbers, Memory::Keep);
    Ok(Outcome::Distance(distance(&run(&Numbers::single(device))?, &run(&Numbers::exact())?)?))
}

/// An adapter's file is the same wherever it is read.
fn saved(device: &Device) -> Found {
    let numbers = Numbers::single(device);
    let mut run = whole(&numbers)?;
    let written = run.parameters();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    ist_peft::save(&mut run.model, &run.adapters, folder.path(), "")
        .map_err(|error| error.to_string())?;
    let reference = Numbers { dtype: DType::F32, ..Numbers::exact() };
    let (mut model, _) = with_adapters(&reference, &lora())?;
    let read = ist_peft::load::<BuiltinAdapter>(&mut model, folder.path(), &reference.device);
    let read = read.map_err(|error| error.to_string())?;
    let named = named_tensors(&mut model, &read);
    let found: Vec<Vec<f64>> =
        named.into_iter().map(|(_, data)| data.iter::<f64>().collect()).collect();
    Ok(Outcome::Distance(distance(&found, &written)?))
}

/// Six steps on the device, and six more on the reference from what was saved, against twelve on
/// the reference.
fn resumed(device: &Device) -> Found {
    let numbers = Numbers::single(device);
    let mut first = Run::begin(&numbers)?.go(&numbers, 6)?;
    let state = first.tuner.state().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    ist_peft::save(&mut first.model, &first.adapters, folder.path(), "")
        .map_err(|error| error.to_string())?;
    let exact = Numbers::exact();
    let reference = Numbers { dtype: DType::F32, ..exact.clone() };
    let mut second = Run::begin(&reference)?;
    ist_peft::restore(&mut second.model, &mut second.adapters, folder.path(), &reference.device)
        .map_err(|error| error.to_string())?;
    second.tuner.restore(state, &reference.device).map_err(|error| error.to_string())?;
    let mut second = second.go(&reference, 12)?;
    let mut expected = whole(&exact)?;
    if second.drawn != expected.drawn[6..] {
        return Err(format!(
            "layers {:?} were drawn, the reference drew {:?}",
            second.drawn,
            &expected.drawn[6..]
        ));
    }
    Ok(Outcome::Distance(distance(&second.parameters(), &expected.parameters())?))
}
