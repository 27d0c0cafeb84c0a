//! Model folders from the Hugging Face hub, or from its cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ist_files::untrusted::json;
use ist_files::{FileName, regular};

use super::cache::{Cache, ModelCache};
use super::checkpoint::ShardIndex;
use super::client::{Client, Fault, FileOfHub, HubSettings};
use super::download::{self, Download};
use crate::model_files::PICTURE_FILES;
use crate::text::text_files::FILES;

/// Why a hub id gives no folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{id}: no folder of that name, no model of that name in the local cache, and it cannot be \
     fetched from the hub: {message}; download it elsewhere and give its folder, or set HF_HOME to \
     a cache that holds it"
)]
pub struct HubError {
    id: String,
    message: String,
}

/// The local folder of `org/name` at `revision` (`main` by default): from the cache when it is
/// whole there, else fetched.
///
/// Only `config.json`, `generation_config.json`, the tokenizer's files, the chat template, the
/// files of a model that also sees and safetensors files are fetched. With `HF_HUB_OFFLINE=1`
/// nothing is. `progress` is called while bytes come.
pub fn snapshot(
    id: &str,
    revision: Option<&str>,
    progress: &mut dyn FnMut(Download),
) -> Result<PathBuf, HubError> {
    let cache = Cache::from_env().model(id, revision.unwrap_or(MAIN));
    if let Some(folder) = cached(&cache) {
        return Ok(folder);
    }
    let fault = |message: String| HubError { id: id.to_owned(), message };
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !["", "0"].contains(&value.as_str())) {
        return Err(fault("HF_HUB_OFFLINE is set".to_owned()));
    }
    let client = HubSettings::from_env().and_then(Client::new).map_err(fault)?;
    let source = HubModel { client, cache, id, revision: revision.unwrap_or(MAIN) };
    source.fetch(progress).map_err(|found| fault(found.into()))
}

/// The revision that is meant where none is named.
const MAIN: &str = "main";

/// The snapshot's folder when the cache holds everything a model needs.
pub(super) fn cached(cache: &ModelCache) -> Option<PathBuf> {
    let folder = cache.file("config.json")?.parent()?.to_owned();
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    let shards = shards(&folder.join("model.safetensors.index.json")).ok()?;
    shards.iter().all(|shard| folder.join(shard).is_file()).then_some(folder)
}

/// A model of the hub and where its files go.
pub(super) struct HubModel<'a> {
    pub(super) client: Client,
    pub(super) cache: ModelCache,
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
}

impl HubModel<'_> {
    pub(super) fn fetch(&self, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, Fault> {
        let (config, commit) = self.get(self.revision, "config.json", progress)?;
        // The rest comes from the same commit, even when somebody moves the branch now.
        let mut get = |name: &str| self.get(&commit, name, progress);
        let others = ["generation_config.json"].into_iter().chain(PICTURE_FILES);
        for optional in others.chain(FILES) {
            // Not every model has them; one that is needed and missing is named when it is used.
            unless_missing(get(optional))?;
        }
        match unless_missing(get("model.safetensors.index.json"))? {
            Some((index, _)) => {
                let shards = shards(&index).map_err(Fault::Other)?;
                shards.iter().try_for_each(|shard| get(shard.as_str()).map(drop))?;
            }
            None => drop(get("model.safetensors")?),
        }
        let folder = config.parent().map(Path::to_owned);
        folder.ok_or_else(|| Fault::Other("the cache has no folder".to_owned()))
    }

    fn get(
        &self,
        revision: &str,
        name: &str,
        progress: &mut dyn FnMut(Download),
    ) -> Result<(PathBuf, String), Fault> {
        let id = self.id.to_owned();
        let file = FileOfHub { id, revision: revision.to_owned(), name: name.to_owned() };
        download::fetch(&self.client, &self.cache, &file, progress)
    }
}

/// A file that the model need not have.
fn unless_missing<T>(found: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match found {
        Err(Fault::NoSuchFile(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// The files that an index names. They become parts of paths, so each must be a plain name.
fn shards(index: &Path) -> Result<BTreeSet<FileName>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", index.display());
    let bytes = regular::read(index).map_err(|error| said(&error))?;
    let ShardIndex { weight_map } =
        json::from_slice(&bytes).map_err(|error| said(&json::told(&error)))?;
    Ok(weight_map.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, ModelCache) {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("models--org--name");
        let snapshot = model.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc").unwrap();
        for (name, text) in files {
            std::fs::write(snapshot.join(name), text).unwrap();
        }
        let cache = Cache::new(folder.path().to_owned()).model("org/name", MAIN);
        (folder, cache)
    }

    #[test]
    fn a_whole_snapshot_is_found_in_the_cache() {
        let (_folder, cache) = fake(&[("config.json", "{}"), ("model.safetensors", "")]);
        assert!(cached(&cache).unwrap().ends_with("snapshots/abc"));
    }

    #[test]
    fn a_shard_that_leads_elsewhere_is_never_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        for name in ["../../x", "/etc/passwd", "a/b.safetensors", ".."] {
            let text = serde_json::json!({"weight_map": {"a": "one.safetensors", "b": name}});
            std::fs::write(&path, text.to_string()).unwrap();
            let error = shards(&path).unwrap_err();
            assert!(error.contains("not a plain file name"), "{error}");
        }
    }

    #[test]
    fn a_snapshot_that_misses_a_shard_is_not_whole() {
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        let (_folder, cache) = fake(&[
            ("config.json", "{}"),
            ("model.safetensors.index.json", index),
            ("one.safetensors", ""),
        ]);
        assert_eq!(cached(&cache), None);
    }
}
