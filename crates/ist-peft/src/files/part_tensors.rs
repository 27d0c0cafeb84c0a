//! The tensors of one adapter's file, matched against its configuration and its model.

use std::collections::{BTreeMap, BTreeSet};

use ist_core::burn::tensor::TensorData;

use crate::files::carried::{self, CarriedValues, Spare};
use crate::files::contents::Contents;
use crate::files::{AdapterFilesError, CONFIG_FILE, bodies};
use crate::method::Configured;
use crate::model::adapters::Part;
use crate::model::carried::{BaseTensor, Carried};
use crate::set::Adapter;
use crate::site::Site;

/// What one adapter's file holds for a model.
pub(crate) struct Found {
    /// What it holds for each of the adapter's configurations.
    pub(crate) methods: Vec<MethodTensors>,
    pub(crate) carried: CarriedValues,
    pub(crate) partial: bool,
    pub(crate) notes: Vec<String>,
}

/// The modules of one configuration, and the tensors of its adapters on them.
pub(crate) struct MethodTensors {
    pub(crate) sites: Vec<Site>,
    /// In the order of the configuration's layout.
    pub(crate) tensors: Vec<TensorData>,
}

/// The tensors of one adapter. `sites` are the modules of each of its configurations, `every` all
/// of the model's.
pub(crate) fn read_part_tensors<A: Adapter>(
    part: &Part<A>,
    sites: Vec<Vec<Site>>,
    every: &[Site],
    file: &Contents,
) -> Result<Found, AdapterFilesError> {
    let mut unused: BTreeSet<&str> = file.names().collect();
    let mut faults = Vec::new();
    let mut methods = Vec::new();
    for (config, sites) in part.configs().zip(sites) {
        let sites = without_absent_experts(sites, file);
        let mut own = Vec::new();
        for (key, shape) in config.settings.file_layout(&sites) {
            unused.remove(key.as_str());
            match file.shape(&key) {
                None => faults.push(format!("{key} is missing, expected shape {shape:?}")),
                Some(found) if found != shape => {
                    faults.push(format!("{key} has shape {found:?}, expected {shape:?}"));
                }
                Some(_) => own.push(file.floats(&key, &shape)?),
            }
        }
        methods.push(MethodTensors { sites, tensors: own });
    }
    let adapted = |site: &Site| methods.iter().any(|method| method.sites.contains(site));
    let more_than_text = bodies::has_more_than_text(every);
    let mut beside: BTreeMap<String, Carried> = BTreeMap::new();
    let mut unread = Vec::new();
    let mut senses = Vec::new();
    for name in unused {
        if more_than_text && bodies::is_beside_text(name) {
            senses.push(name);
            continue;
        }
        match carried::spare(name, file, every, adapted, part.tokens()) {
            Spare::Replaces(tensor) => {
                beside.insert(name.to_owned(), tensor);
            }
            Spare::Unread => unread.push(name),
            Spare::Fault(fault) => faults.push(fault),
        }
    }
    faults.extend(missing_rows(part, every, &beside));
    if !faults.is_empty() {
        return Err(AdapterFilesError::Faults { path: file.path(), faults });
    }
    let mut notes = file.notes().to_vec();
    let note = |names: &[&str], why: &str| {
        let first = names.first()?;
        let path = file.path();
        Some(format!("{}: {} tensors, such as {first}, {why}", path.display(), names.len()))
    };
    notes.extend(note(
        &unread,
        "were not read, as PEFT does not read them: under an adapter it calls a module's own \
         tensors `base_layer`",
    ));
    notes.extend(note(&senses, "were not read: this program runs the text model alone"));
    notes.extend(unmatched_patterns(part, &methods, file));
    let partial = !senses.is_empty();
    Ok(Found { methods, carried: CarriedValues::read(file, &beside)?, partial, notes })
}

/// Tells of patterns in PEFT's file that mean no module, which PEFT passes over.
fn unmatched_patterns<A: Adapter>(
    part: &Part<A>,
    methods: &[MethodTensors],
    file: &Contents,
) -> Vec<String> {
    let tell = |config: &Configured<A::Config>, method: &MethodTensors| {
        let patterns = config.settings.unmatched_patterns(&method.sites);
        (!patterns.is_empty()).then(|| {
            format!(
                "{}: `rank_pattern` or `alpha_pattern` names {}, which match no module of the \
                 adapter",
                file.path().with_file_name(CONFIG_FILE).display(),
                patterns.join(", ")
            )
        })
    };
    part.configs().zip(methods).filter_map(|(config, method)| tell(config, method)).collect()
}

/// What `trainable_token_indices` asks for and the file lacks. A head that is the embedding may be
/// left out.
fn missing_rows<A: Adapter>(
    part: &Part<A>,
    every: &[Site],
    carried: &BTreeMap<String, Carried>,
) -> Vec<String> {
    let Some(tokens) = part.tokens() else { return Vec::new() };
    let is_there = |site: &Site| {
        carried
            .values()
            .any(|one| one.path == site.path && matches!(one.tensor, BaseTensor::Rows(_)))
    };
    let wanted: Vec<&Site> =
        every.iter().filter(|site| carried::names_rows(tokens, site)).collect();
    let same = wanted.iter().all(|site| carried::same_rows(tokens, wanted[0], site));
    let missing: Vec<&&Site> = wanted.iter().filter(|site| !is_there(site)).collect();
    if wanted.is_empty() {
        return vec![format!(
            "`trainable_token_indices` is {tokens}, which names no table of the model"
        )];
    }
    if same && missing.len() < wanted.len() {
        return Vec::new();
    }
    missing
        .into_iter()
        .map(|site| {
            format!("the rows of {} that `trainable_token_indices` names are missing", site.path)
        })
        .collect()
}

/// The modules without those of experts whose name no expert has in the file: transformers 5 keeps
/// all experts of a layer as one parameter, so a name that means them reaches nothing there.
fn without_absent_experts(sites: Vec<Site>, file: &Contents) -> Vec<Site> {
    // `..experts.E.NAME..`
    let name = |path: &str| path.split_once(".experts.")?.1.split('.').nth(1).map(str::to_owned);
    let held: BTreeSet<String> = file.names().filter_map(name).collect();
    sites
        .into_iter()
        .filter(|site| name(&site.path).is_none_or(|name| held.contains(&name)))
        .collect()
}
