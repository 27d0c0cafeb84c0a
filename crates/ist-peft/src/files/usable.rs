//! Whether an adapter's folder can be used, with or without its model at hand.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::files::contents::Contents;
use crate::files::part_tensors::read_part_tensors;
use crate::files::{self, AdapterFilesError, CONFIG_FILE, PREFIX, read_config};
use crate::model::attach::AttachError;
use crate::set::Adapter;
use crate::site::{Outline, Roles, Site, SiteKind};

/// A model that an adapter is for, with nothing loaded.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// Its modules.
    pub sites: Vec<Site>,
    /// What else it tells of itself.
    pub outline: Outline,
}

/// Reads the adapter in `folder` as [`load`](crate::load) would onto a model of that anatomy.
/// Without one, a model is assumed that has the modules of the file and no others.
///
/// # Errors
/// As of [`load`](crate::load).
pub fn check<A: Adapter>(folder: &Path, model: Option<Anatomy>) -> Result<(), AdapterFilesError> {
    let mut adapters = read_config::<A>(folder)?;
    let mut file = Contents::open(folder)?;
    let known = model.is_some();
    let Anatomy { sites: mut every, outline } = match model {
        Some(model) => model,
        None => assumed(&file, folder)?,
    };
    file.rename(|key| crate::files::bodies::renamed_key(key, &every));
    let sites = match adapters.sites(&every, &outline) {
        // Which modules are meant depends on the architecture.
        Err(AttachError::NoDefault { .. }) if !known => return Ok(()),
        sites => sites.map_err(|source| AdapterFilesError::Targets {
            path: folder.join(CONFIG_FILE),
            source,
        })?,
    };
    every.extend(outline.shared_head);
    let mut sites = sites.into_iter();
    for part in adapters.parts() {
        let own = sites.by_ref().take(part.configs().count()).collect();
        read_part_tensors(part, own, &every, &file)?;
    }
    Ok(())
}

static NO_ROLES: Roles = Roles {
    usual: &[],
    query: &[],
    key: &[],
    value: &[],
    linear: &[],
    mlp_in: &[],
    mlp_out: &[],
    norms: &[],
    final_norm: &[],
    attention: &["self_attn"],
};

/// A model with the modules that the file names.
fn assumed(file: &Contents, folder: &Path) -> Result<Anatomy, AdapterFilesError> {
    let mut parts: Vec<(&str, TensorClue)> =
        file.names().filter_map(|name| part_of(name, file)).collect();
    // A table is known by its LoRA, which may stand behind its weight.
    parts.sort_by_key(|(_, part)| !matches!(part, TensorClue::Table(_)));
    let mut sites: BTreeMap<&str, Site> = BTreeMap::new();
    for (module, part) in parts {
        part.fit(sites.entry(module).or_insert_with(|| part.site(module)));
    }
    let fields = files::read_fields(&folder.join(CONFIG_FILE))?;
    let tying = fields.get("ensure_weight_tying") == Some(&Value::Bool(true));
    let shared_head = if tying { sites.remove("lm_head") } else { None };
    let mut sites: Vec<Site> = sites.into_values().collect();
    sites.extend(attentions(&fields));
    let outline = Outline { model_type: "", roles: &NO_ROLES, num_layers: usize::MAX, shared_head };
    Ok(Anatomy { sites, outline })
}

/// The module of a tensor, and what the tensor tells of it.
fn part_of<'a>(name: &'a str, file: &Contents) -> Option<(&'a str, TensorClue)> {
    let path = name.strip_prefix(PREFIX)?;
    let shape = file.shape(name).unwrap_or_default();
    let sizes = [shape.first().copied().unwrap_or(0), shape.get(1).copied().unwrap_or(0)];
    let shared_input = || file.shape("base_model.vera_A").and_then(|shape| shape.get(1).copied());
    let weight =
        if shape.len() == 1 { TensorClue::Norm(sizes[0]) } else { TensorClue::Matrix(sizes) };
    let ends = [
        (".lora_A.weight", TensorClue::In(sizes[1])),
        (".lora_B.weight", TensorClue::Out(sizes[0])),
        (".lora_embedding_A", TensorClue::Table([sizes[1], 0])),
        (".lora_embedding_B", TensorClue::Table([0, sizes[0]])),
        (".adapter_down.weight", TensorClue::In(sizes[1])),
        (".adapter_up.weight", TensorClue::Out(sizes[0])),
        (".ia3_l", TensorClue::Both(sizes[0].max(sizes[1]))),
        (".vera_lambda_b", TensorClue::Out(sizes[0])),
        (".vera_lambda_d", TensorClue::In(shared_input().unwrap_or(0))),
        (".ln_tuning_layers.weight", TensorClue::Norm(sizes[0])),
        (".token_adapter.trainable_tokens_delta", TensorClue::Rows(sizes[1])),
        (".base_layer.weight", weight),
        (".base_layer.bias", TensorClue::Bias(sizes[0])),
        (".weight", weight),
        (".bias", TensorClue::Bias(sizes[0])),
    ];
    let (module, part) =
        ends.into_iter().find_map(|(end, part)| Some((path.strip_suffix(end)?, part)))?;
    // A bias of B is none of the module's.
    (!module.ends_with(".lora_B")).then_some((module, part))
}

/// How paths of tables of tokens end.
const TABLES: [&str; 4] = ["embed_tokens", "wte", "embed_in", "word_embeddings"];
/// More rows than any table has, of one of which only some are in the file.
const MANY_ROWS: usize = u32::MAX as usize;

/// What one tensor tells of its module.
#[derive(Clone, Copy)]
enum TensorClue {
    In(usize),
    Out(usize),
    Both(usize),
    Matrix([usize; 2]),
    Table([usize; 2]),
    Rows(usize),
    Norm(usize),
    Bias(usize),
}

impl TensorClue {
    fn site(self, path: &str) -> Site {
        let layer = path.split('.').find_map(|part| part.parse().ok());
        match self {
            Self::Norm(width) => Site::norm(path, layer, width),
            Self::Table(_) => Site::embedding(path, 0, 0),
            _ if TABLES.iter().any(|table| path.ends_with(table)) => Site::embedding(path, 0, 0),
            _ => Site::linear(path, layer, 0, 0),
        }
    }

    /// Widens a module to what the tensor needs.
    fn fit(self, site: &mut Site) {
        let is_table = site.kind == SiteKind::Embedding;
        let (d_in, d_out) = match self {
            Self::In(width) => (width, 0),
            Self::Out(width) | Self::Bias(width) => (0, width),
            Self::Both(width) | Self::Norm(width) => (width, width),
            Self::Rows(width) if is_table => (MANY_ROWS, width),
            Self::Rows(width) => (width, MANY_ROWS),
            Self::Matrix([rows, columns]) if is_table => (rows, columns),
            Self::Matrix([rows, columns]) => (columns, rows),
            Self::Table([rows, width]) => (rows, width),
        };
        site.d_in = site.d_in.max(d_in);
        site.d_out = site.d_out.max(d_out);
        site.bias |= matches!(self, Self::Bias(_));
    }
}

/// The attentions that a prefix's configuration speaks of.
fn attentions(fields: &Map<String, Value>) -> Vec<Site> {
    let size = |key: &str| {
        let size = fields.get(key).and_then(Value::as_u64);
        size.and_then(|size| usize::try_from(size).ok()).filter(|size| (1..1 << 20).contains(size))
    };
    let (Some(layers), Some(width), Some(heads)) =
        (size("num_layers"), size("token_dim"), size("num_attention_heads"))
    else {
        return Vec::new();
    };
    let site = |layer: usize| {
        let path = format!("model.layers.{layer}.self_attn");
        Site::attention(path, layer, width, [heads, width / heads])
    };
    (0..layers).map(site).collect()
}
