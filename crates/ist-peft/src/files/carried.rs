//! Tensors of an adapter's file that take the place of the base model's own.
//!
//! PEFT puts every tensor of a file where its key says, also into the base model: tables that it
//! saved by itself, tables under a LoRA (`base_layer.weight`), biases (`bias = "all"`), and rows of
//! a table (`trainable_token_indices`).

use std::collections::BTreeMap;

use ist_core::burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use crate::files::contents::Contents;
use crate::files::tensor_file::TensorFileError;
use crate::files::{PREFIX, key_of};
use crate::frozen::weight::Weight;
use crate::frozen::{Base, BaseMut};
use crate::model::attach::{PeftModel, Slot};
use crate::model::carried::{BaseTensor, Carried};
use crate::parameter::from_file;
use crate::set::Adapter;
use crate::site::targets::names_site;
use crate::site::{Site, SiteKind};

/// What a key that belongs to no adapter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    /// It replaces a tensor of the base model.
    Replaces(Carried),
    /// PEFT does not read it either.
    Unread,
    /// It fits nothing; why.
    Fault(String),
}

const ROWS: &str = "token_adapter.trainable_tokens_delta";

/// What PEFT does with a tensor whose key is none of the adapters'. `adapted` tells whether a
/// method sits on a module, and `every` are the model's modules.
pub(crate) fn spare(
    name: &str,
    contents: &Contents,
    every: &[Site],
    adapted: impl Fn(&Site) -> bool,
    tokens: Option<&Value>,
) -> Spare {
    let nowhere = || Spare::Fault(format!("{name} belongs to no module the configuration targets"));
    let Some(key) = name.strip_prefix(PREFIX) else { return nowhere() };
    let find = |path: &str| every.iter().find(|site| site.path == path);
    if let Some(site) = key.strip_suffix(&format!(".{ROWS}")).and_then(find) {
        return rows(name, contents, site, tokens);
    }
    if let Some((path, _)) = key.split_once(".original_module.") {
        // The module that a copy to save took the place of.
        return if find(path).is_some() { Spare::Unread } else { nowhere() };
    }
    let Some((module, end)) = key.rsplit_once('.') else { return nowhere() };
    let tensor = match end {
        "weight" => BaseTensor::Weight,
        "bias" => BaseTensor::Bias,
        _ => return nowhere(),
    };
    let under = module.strip_suffix(".base_layer");
    let Some(site) = find(under.unwrap_or(module)) else { return nowhere() };
    match (adapted(site), under.is_some()) {
        // Under an adapter PEFT calls the module's own tensors `base_layer`, and knows no others.
        (true, false) => return Spare::Unread,
        (false, true) => return nowhere(),
        _ => {}
    }
    let Some(expected) = shape_of(site, &tensor) else {
        return Spare::Fault(format!("{name} has no counterpart: the model's module has no {end}"));
    };
    match contents.shape(name) {
        Some(found) if found == expected => {
            Spare::Replaces(Carried { path: site.path.clone(), tensor })
        }
        found => {
            let found = found.unwrap_or_default();
            Spare::Fault(format!("{name} has shape {found:?}, expected {expected:?}"))
        }
    }
}

/// The rows of a table that a file holds, by the configuration's indices.
fn rows(name: &str, contents: &Contents, site: &Site, tokens: Option<&Value>) -> Spare {
    let Some(indices) = tokens.and_then(|tokens| indices_of(tokens, site)) else {
        return Spare::Fault(format!(
            "{name} needs the indices of its rows, which `trainable_token_indices` does not have"
        ));
    };
    let [vocabulary, hidden] = match site.kind {
        SiteKind::Embedding => [site.d_in, site.d_out],
        _ => [site.d_out, site.d_in],
    };
    let expected = vec![indices.len(), hidden];
    let found = contents.shape(name).unwrap_or_default();
    if found != expected {
        return Spare::Fault(format!("{name} has shape {found:?}, expected {expected:?}"));
    }
    match indices.iter().find(|index| **index >= vocabulary) {
        Some(index) => Spare::Fault(format!(
            "`trainable_token_indices` names row {index}, but {} has {vocabulary}",
            site.path
        )),
        None => {
            Spare::Replaces(Carried { path: site.path.clone(), tensor: BaseTensor::Rows(indices) })
        }
    }
}

/// Whether `trainable_token_indices` names rows of that module.
pub(crate) fn names_rows(tokens: &Value, site: &Site) -> bool {
    indices_of(tokens, site).is_some()
}

/// Whether it names the same rows of both.
pub(crate) fn same_rows(tokens: &Value, one: &Site, other: &Site) -> bool {
    indices_of(tokens, one) == indices_of(tokens, other)
}

/// The rows that `trainable_token_indices` names of a table: a list is the embedding's.
fn indices_of(tokens: &Value, site: &Site) -> Option<Vec<usize>> {
    let list = match tokens {
        Value::Array(list) if site.kind == SiteKind::Embedding => list,
        Value::Object(table) => {
            table.iter().find(|(name, _)| names_site(name, site))?.1.as_array()?
        }
        _ => return None,
    };
    list.iter().map(|index| index.as_u64().and_then(|index| usize::try_from(index).ok())).collect()
}

/// The shape of a module's own tensor in files.
fn shape_of(site: &Site, tensor: &BaseTensor) -> Option<Vec<usize>> {
    match (tensor, site.kind) {
        (BaseTensor::Weight, SiteKind::Linear) if site.fan_in_fan_out => {
            Some(vec![site.d_in, site.d_out])
        }
        (BaseTensor::Weight, SiteKind::Linear) => Some(vec![site.d_out, site.d_in]),
        (BaseTensor::Weight, SiteKind::Embedding) => Some(vec![site.d_in, site.d_out]),
        (BaseTensor::Weight, SiteKind::Norm) => Some(vec![site.d_out]),
        (BaseTensor::Bias, SiteKind::Linear | SiteKind::Norm) if site.bias => {
            Some(vec![site.d_out])
        }
        _ => None,
    }
}

/// The values of carried tensors, read before anything is changed.
pub(crate) struct CarriedValues(Vec<(Carried, TensorData)>);

impl CarriedValues {
    /// Reads them by their keys.
    pub(crate) fn read(
        contents: &Contents,
        carried: &BTreeMap<String, Carried>,
    ) -> Result<Self, TensorFileError> {
        let read = |(name, carried): (&String, &Carried)| {
            let shape = contents.shape(name).unwrap_or_default();
            Ok((carried.clone(), contents.floats(name, &shape)?))
        };
        Ok(Self(carried.iter().map(read).collect::<Result<_, TensorFileError>>()?))
    }

    /// Puts them in the place of the model's own, and returns those that changed something. A head
    /// that shares the embedding's table is meant by either name, except that rows of the head
    /// alone are its own.
    pub(crate) fn put<A: Adapter>(
        self,
        model: &mut impl PeftModel<A>,
        device: &Device,
    ) -> Vec<Carried> {
        let mut changed = Vec::new();
        let is_rows = |carried: &Carried| matches!(carried.tensor, BaseTensor::Rows(_));
        let (rows, mut whole): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(carried, _)| is_rows(carried));
        let head = model.shared_head().map(|site| site.path);
        // Where a file holds the one matrix under both names, PEFT puts the head's in place last.
        whole.sort_by_key(|(carried, _)| head.as_ref() == Some(&carried.path));
        for (mut carried, data) in whole {
            let is_shared = head.as_ref() == Some(&carried.path);
            let holder = if is_shared { Holder::Embedding } else { Holder::Named };
            if !replace(model, &carried, data, holder, device) {
                continue;
            }
            if let Some(embedding) = embedding_path(model).filter(|_| is_shared) {
                carried.path = embedding;
            }
            if !changed.contains(&carried) {
                changed.push(carried);
            }
        }
        if rows.iter().any(|(carried, _)| head.as_ref() == Some(&carried.path)) {
            model.untie();
        }
        for (carried, data) in rows {
            replace(model, &carried, data, Holder::Named, device);
            changed.push(carried);
        }
        changed
    }
}

fn embedding_path<A: Adapter>(model: &mut impl PeftModel<A>) -> Option<String> {
    let mut slots = model.slots().into_iter();
    slots.find(|slot| slot.site.kind == SiteKind::Embedding).map(|slot| slot.site.path)
}

/// The module that holds a carried tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The module of the tensor's own path.
    Named,
    /// The embedding, as the tensor is of a head that shares its table.
    Embedding,
}

/// Whether a place is the one that holds the tensor.
fn is_meant<A>(slot: &Slot<'_, A>, carried: &Carried, holder: Holder) -> bool {
    match holder {
        Holder::Named => slot.site.path == carried.path,
        Holder::Embedding => slot.site.kind == SiteKind::Embedding,
    }
}

/// Whether the tensor has another value now.
fn replace<A: Adapter>(
    model: &mut impl PeftModel<A>,
    carried: &Carried,
    data: TensorData,
    holder: Holder,
    device: &Device,
) -> bool {
    let is_meant = |slot: &Slot<'_, A>| is_meant(slot, carried, holder);
    let Some(mut slot) = model.slots().into_iter().find(is_meant) else { return false };
    let before = own_data(&slot.base.get(), &carried.tensor);
    let stored_by_rows = slot.site.fan_in_fan_out || slot.site.kind == SiteKind::Embedding;
    match (&mut slot.base, &carried.tensor) {
        (BaseMut::Linear(linear), BaseTensor::Weight) => {
            let matrix = from_file::<2>(data, device);
            linear.weight =
                stored_as(&linear.weight, if stored_by_rows { matrix } else { matrix.transpose() });
        }
        (BaseMut::Embedding(table), BaseTensor::Weight) => {
            **table = stored_as(table, from_file::<2>(data, device));
        }
        (BaseMut::Norm(norm), BaseTensor::Weight) => {
            norm.weight = stored_as(&norm.weight, from_file::<1>(data, device));
        }
        (BaseMut::Linear(linear), BaseTensor::Bias) => {
            linear.bias = linear.bias.as_ref().map(|bias| stored_as(bias, from_file(data, device)));
        }
        (BaseMut::Norm(norm), BaseTensor::Bias) => {
            norm.bias = norm.bias.as_ref().map(|bias| stored_as(bias, from_file(data, device)));
        }
        (BaseMut::Embedding(table), BaseTensor::Rows(indices)) => {
            let rows = with_rows(table.current(), indices, from_file(data, device));
            **table = stored_as(table, rows);
        }
        (BaseMut::Linear(linear), BaseTensor::Rows(indices)) => {
            let table = linear.weight.current().transpose();
            let rows = with_rows(table, indices, from_file(data, device));
            linear.weight = stored_as(&linear.weight, rows.transpose());
        }
        (BaseMut::Embedding(_), BaseTensor::Bias)
        | (BaseMut::Norm(_), BaseTensor::Rows(_))
        | (BaseMut::Attention, _) => {}
    }
    own_data(&slot.base.get(), &carried.tensor) != before
}

/// The values of one of a module's own tensors.
fn own_data(base: &Base, tensor: &BaseTensor) -> Option<TensorData> {
    match tensor {
        BaseTensor::Weight => Some(weight_data(base, false)),
        BaseTensor::Bias => base.bias().map(|bias| bias.current().into_data()),
        BaseTensor::Rows(indices) => Some(rows_data(base, indices)),
    }
}

/// A frozen weight of that value in the type that another one is kept in.
fn stored_as<const D: usize>(other: &Weight<D>, value: Tensor<D>) -> Weight<D> {
    let dtype = other.dtype();
    Weight::frozen(if value.dtype() == dtype { value } else { value.cast(dtype) })
}

/// A table with other values in some of its rows.
fn with_rows(table: Tensor<2>, indices: &[usize], rows: Tensor<2>) -> Tensor<2> {
    let rows = if rows.dtype() == table.dtype() { rows } else { rows.cast(table.dtype()) };
    let width = table.dims()[1];
    let mut table = table;
    for (at, &index) in indices.iter().enumerate() {
        let row = rows.clone().narrow(0, at, 1);
        table = table.slice_assign([index..index + 1, 0..width], row);
    }
    table
}

/// Key and values of a carried tensor, to write it again.
pub(crate) fn to_file<A: Adapter>(
    model: &mut impl PeftModel<A>,
    carried: &Carried,
) -> Option<(String, TensorData)> {
    let is_shared = model.shared_head().is_some_and(|head| head.path == carried.path);
    let holder = if is_shared { Holder::Embedding } else { Holder::Named };
    let slot = model.slots().into_iter().find(|slot| is_meant(slot, carried, holder))?;
    // Under an adapter PEFT calls the module's own tensors `base_layer`.
    let under = slot.adapter.is_some() && !is_shared;
    let base = slot.base.get();
    let data = match &carried.tensor {
        BaseTensor::Weight => weight_data(&base, slot.site.fan_in_fan_out),
        BaseTensor::Bias => base.bias()?.current().into_data(),
        BaseTensor::Rows(indices) => rows_data(&base, indices),
    };
    let suffix = match (&carried.tensor, under) {
        (BaseTensor::Weight, true) => "base_layer.weight",
        (BaseTensor::Weight, false) => "weight",
        (BaseTensor::Bias, true) => "base_layer.bias",
        (BaseTensor::Bias, false) => "bias",
        (BaseTensor::Rows(_), _) => ROWS,
    };
    let site = Site { path: carried.path.clone(), ..slot.site.clone() };
    Some((key_of(&site, suffix), data))
}

fn weight_data(base: &Base, fan_in_fan_out: bool) -> TensorData {
    match base {
        Base::Linear(linear) if fan_in_fan_out => linear.weight.current().into_data(),
        Base::Norm(norm) => norm.weight.current().into_data(),
        _ => table_of(base).into_data(),
    }
}

fn rows_data(base: &Base, indices: &[usize]) -> TensorData {
    let table = table_of(base);
    let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
    let count = indices.len();
    let indices = Tensor::from_data(TensorData::new(indices, [count]), &table.device());
    table.select(0, indices).into_data()
}

/// The matrix as files hold it: `[out, in]`, or a table's rows.
fn table_of(base: &Base) -> Tensor<2> {
    match base {
        Base::Linear(linear) => linear.weight.current().transpose(),
        other => other.matrix().current(),
    }
}
