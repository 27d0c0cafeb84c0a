//! Every PEFT method: one module by itself, and a step of a small model.

use ist_core::LayerPass;
use ist_core::burn::module::{Module, ModuleVisitor, Param};
use ist_core::burn::tensor::{Gradients as Graph, Tensor, TensorData};
use ist_core::gradients::lift;
use ist_core::step::Memory;
use ist_peft::{
    Adapter, Base, BuiltinAdapter, BuiltinConfig, Configured, Dialect, PeftLinear, Place, Site,
    Weight,
};
use serde_json::{Map, Value, json};

use super::numbers::{Numbers, distance, floats, mixed, random};
use super::training::{gradients, tiny};
use super::{Check, Found, Outcome};

/// Of the largest element of a value or of a gradient.
const TOLERANCE: f64 = 1e-5;
/// The same through a whole model.
const STEP: f64 = 2e-5;

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    let alone = [
        json!({"method": "lora", "r": 3, "alpha": 5, "dropout": 0.3}),
        json!({"method": "dora", "r": 3, "alpha": 5}),
        json!({"method": "dora", "r": 3, "alpha": 5, "dropout": 0.3}),
        json!({"method": "vera", "r": 3}),
        json!({"method": "full"}),
        json!({"method": "ia3"}),
        json!({"method": "parallel", "bottleneck_size": 3}),
    ];
    let alone = alone.into_iter().map(|fields| {
        let fields = table(fields);
        Check::new(
            "methods",
            format!("a module with {}", name(&fields)),
            TOLERANCE,
            move |device| compare_module(&fields, &Numbers::single(device)),
        )
    });
    let steps = [
        json!({"method": "lora", "r": 2, "alpha": 3, "dropout": 0.2}),
        json!({"method": "dora", "r": 2, "alpha": 3}),
        json!({"method": "vera", "r": 2}),
        json!({"method": "ia3"}),
        json!({"method": "prefix-tuning", "num_virtual_tokens": 3}),
        json!({"method": "series", "bottleneck_size": 3}),
        json!({"method": "parallel", "bottleneck_size": 3}),
        json!({"method": "layernorm"}),
        json!({"method": "bitfit"}),
        json!({"method": "full"}),
    ];
    let steps = steps.into_iter().map(|fields| {
        let fields = table(fields);
        Check::new("methods", format!("a step with {}", name(&fields)), STEP, move |device| {
            compare_step(&fields, &Numbers::single(device))
        })
    });
    alone.chain(steps).collect()
}

fn table(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn name(fields: &Map<String, Value>) -> String {
    let method = fields["method"].as_str().unwrap_or_default();
    if fields.contains_key("dropout") { format!("{method} and dropout") } else { method.to_owned() }
}

/// The checked configuration of fields that are right.
pub(super) fn config(fields: &Map<String, Value>) -> Result<Configured<BuiltinConfig>, String> {
    let parsed =
        BuiltinAdapter::parse(fields, Dialect::Toml).ok_or("the method is not built in")?;
    parsed.map_err(|error| error.to_string())
}

/// Takes the gradients of a module's parameters in order.
struct OfParameters<'a> {
    graph: &'a mut Graph,
    found: Vec<Vec<f64>>,
}

impl ModuleVisitor for OfParameters<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.extend(param.val().grad_remove(self.graph).map(floats));
    }
}

/// A linear module with that method's adapter, from 24 to 36 features.
fn adapted(
    fields: &Map<String, Value>,
    numbers: &Numbers,
) -> Result<PeftLinear<BuiltinAdapter>, String> {
    let config = config(fields)?;
    let site = Site::linear("model.layers.0.self_attn.q_proj", Some(0), 24, 36).with_bias(true);
    let layout = config.settings.file_layout(std::slice::from_ref(&site)).into_iter();
    let values = layout.map(|(key, shape)| {
        let values = random(&key, shape.iter().product(), 0.5);
        TensorData::new(values, shape).convert_dtype(numbers.dtype)
    });
    let weight = Weight::frozen(numbers.tensor(random("weight", 864, 1.0), [24, 36]));
    let bias = Weight::frozen(numbers.tensor(random("bias", 36, 1.0), [36]));
    let mut module = PeftLinear::new("self_attn.q_proj", weight, Some(bias));
    let place = Place { site, base: Base::Linear(module.base.clone()) };
    module.adapter =
        BuiltinAdapter::from_file(&config.settings, &[place], values.collect(), &numbers.device)
            .pop();
    Ok(module)
}

/// Value and gradients of the module, with x tracked and the adapter lifted where asked.
fn run_module(
    fields: &Map<String, Value>,
    numbers: &Numbers,
    (tracked, trains): (bool, bool),
) -> Result<Vec<Vec<f64>>, String> {
    let module = adapted(fields, numbers)?;
    let module = if trains { lift(&module) } else { module };
    let x = numbers.tensor(random("x", 240, 1.0), [2, 5, 24]);
    let x = if tracked { x.autodiff().require_grad() } else { x };
    let value =
        module.forward(x.clone(), &LayerPass { response: 0.7, ..LayerPass::training(Some(11)) });
    let mut graph = mixed(value.clone(), numbers).backward();
    let d_x = if tracked { x.grad_remove(&mut graph).map(floats) } else { None };
    let mut parameters = OfParameters { graph: &mut graph, found: Vec::new() };
    module.visit(&mut parameters);
    Ok(std::iter::once(floats(value.inner())).chain(d_x).chain(parameters.found).collect())
}

fn compare_module(fields: &Map<String, Value>, numbers: &Numbers) -> Found {
    let mut worst = 0.0f64;
    for asked in [(true, true), (true, false), (false, true)] {
        let expected = run_module(fields, &Numbers::exact(), asked)?;
        worst = worst.max(distance(&run_module(fields, numbers, asked)?, &expected)?);
    }
    Ok(Outcome::Distance(worst))
}

fn compare_step(fields: &Map<String, Value>, numbers: &Numbers) -> Found {
    let mut worst = 0.0f64;
    for memory in [Memory::Keep, Memory::Recompute] {
        let of = |numbers: &Numbers| gradients(&tiny(numbers, fields)?, numbers, memory);
        worst = worst.max(distance(&of(numbers)?, &of(&Numbers::exact())?)?);
    }
    Ok(Outcome::Distance(worst))
}
