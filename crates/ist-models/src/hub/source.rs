//! Model folders from the Hugging Face hub, or from its cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::registry::PICTURE_FILES;
use crate::text_files::FILES;

/// Why a hub id gives no folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{id}: no folder of that name, no model of that name in the local cache, and it cannot be fetched from the hub: {message}; download it elsewhere and give its folder, or set HF_HOME to a cache that holds it"
)]
pub struct HubError {
    id: String,
    message: String,
}

/// The local folder of `org/name` at `revision` (`main` by default): from the cache when it is whole there, else fetched.
///
/// Only `config.json`, `generation_config.json`, the tokenizer's files, the chat template, the files
/// of a model that also sees and safetensors files are fetched. With `HF_HUB_OFFLINE=1` nothing is.
pub fn snapshot(id: &str, revision: Option<&str>) -> Result<PathBuf, HubError> {
    let revision = revision.unwrap_or("main");
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    if let Some(folder) = cached(&Cache::from_env(), repo.clone()) {
        return Ok(folder);
    }
    let fault = |message: String| HubError { id: id.to_owned(), message };
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !["", "0"].contains(&value.as_str())) {
        return Err(fault("HF_HUB_OFFLINE is set".to_owned()));
    }
    let api = ApiBuilder::from_env().build().map_err(|error| fault(error.to_string()))?;
    fetch(&api.repo(repo)).map_err(fault)
}

/// The snapshot's folder when the cache holds everything a model needs.
fn cached(cache: &Cache, repo: Repo) -> Option<PathBuf> {
    let files = cache.repo(repo);
    let folder = files.get("config.json")?.parent()?.to_owned();
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    let shards = shards(&folder.join("model.safetensors.index.json"))?;
    shards.iter().all(|shard| folder.join(shard).is_file()).then_some(folder)
}

fn fetch(repo: &ApiRepo) -> Result<PathBuf, String> {
    let get = |name: &str| repo.get(name).map_err(|error| format!("{name}: {error}"));
    let config = get("config.json")?;
    let others = ["generation_config.json"].into_iter().chain(PICTURE_FILES);
    for optional in others.chain(FILES) {
        // Not every model has them; one that is needed and missing is named when it is used.
        let _ = repo.get(optional);
    }
    match repo.get("model.safetensors.index.json") {
        Ok(index) => {
            let shards = shards(&index).ok_or("the index of the weights cannot be read")?;
            shards.iter().try_for_each(|shard| get(shard).map(drop))?;
        }
        Err(_) => drop(get("model.safetensors")?),
    }
    config.parent().map(Path::to_owned).ok_or_else(|| "the cache has no folder".to_owned())
}

fn shards(index: &Path) -> Option<BTreeSet<String>> {
    let index: Value = serde_json::from_slice(&std::fs::read(index).ok()?).ok()?;
    index["weight_map"]
        .as_object()?
        .values()
        .map(|shard| shard.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Cache, Repo) {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("models--org--name");
        let snapshot = model.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc").unwrap();
        for (name, text) in files {
            std::fs::write(snapshot.join(name), text).unwrap();
        }
        let cache = Cache::new(folder.path().to_owned());
        (
            folder,
            cache,
            Repo::with_revision("org/name".to_owned(), RepoType::Model, "main".to_owned()),
        )
    }

    #[test]
    fn a_whole_snapshot_is_found_in_the_cache() {
        let (_folder, cache, repo) = fake(&[("config.json", "{}"), ("model.safetensors", "")]);
        assert!(cached(&cache, repo).unwrap().ends_with("snapshots/abc"));
    }

    #[test]
    fn a_snapshot_that_misses_a_shard_is_not_whole() {
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        let (_folder, cache, repo) = fake(&[
            ("config.json", "{}"),
            ("model.safetensors.index.json", index),
            ("one.safetensors", ""),
        ]);
        assert_eq!(cached(&cache, repo), None);
    }
}
