//! Files that extend others.

use ist_core::policy::{IstConfig, LisaConfig, ReplayConfig, RstConfig, Share};

use super::super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn read_in(
    folder: &tempfile::TempDir,
    name: &str,
    overrides: &[&str],
) -> Result<RunConfig, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    super::super::read(&folder.path().join(name), &overrides)
}

const BASE: &str = "seed = 4\nmodel.path = 'builtin:tiny'\n[data]\ntrain = 'train.jsonl'\n\
                    cutoff = 64\n\
                    [policy]\nkind = 'ist'\nlayers_updated = 3\ninterval = 5\n[train]\nsteps = 10\n\
                    batch = 8\n";

#[test]
fn a_nearer_file_wins_key_by_key_through_a_chain() {
    let files = [
        ("base.toml", BASE),
        ("middle.toml", "extends = 'base.toml'\ntrain.steps = 20\noptimizer.lr = 1e-3\n"),
        ("near.toml", "extends = 'middle.toml'\nseed = 9\noptimizer.lr = 2e-3\n"),
    ];
    let config = read_in(&folder(&files), "near.toml", &["train.batch=4"]).unwrap();
    assert_eq!((config.seed, config.train.steps, config.train.batch), (9, Some(20), 4));
    assert_eq!((config.optimizer.lr, config.data.cutoff), (2e-3, 64));
}

#[test]
fn paths_stay_relative_to_the_file_that_says_them() {
    let files = [
        ("deep/base.toml", BASE),
        ("near.toml", "extends = 'deep/base.toml'\ndata.validation = 'held-out.jsonl'\n"),
        ("deep/train.jsonl", ""),
        ("other.jsonl", ""),
    ];
    let folder = folder(&files);
    let root = folder.path().canonicalize().unwrap();
    let config = read_in(&folder, "near.toml", &[]).unwrap();
    assert_eq!(config.data.train, root.join("deep/train.jsonl").into());
    assert_eq!(config.data.validation.unwrap().file_name().unwrap(), "held-out.jsonl");
    let config = read_in(&folder, "near.toml", &["data.train=other.jsonl"]).unwrap();
    assert_eq!(
        config.data.train,
        root.join("other.jsonl").into(),
        "--set is relative to the file that is named"
    );
    let list = "data.train=['other.jsonl', {path = 'deep/train.jsonl', weight = 2}]";
    let config = read_in(&folder, "near.toml", &[list]).unwrap();
    let paths: Vec<_> = config.data.train.all().iter().map(|source| source.path.clone()).collect();
    assert_eq!(paths, [root.join("other.jsonl"), root.join("deep/train.jsonl")]);
    let config =
        read_in(&folder, "near.toml", &["policy={kind='replay', path='other.jsonl'}"]).unwrap();
    assert_eq!(
        config.policy,
        PolicyConfig::Replay(ReplayConfig { path: root.join("other.jsonl") })
    );
}

#[test]
fn another_kind_keeps_the_keys_that_it_takes() {
    let files = [
        ("base.toml", BASE),
        ("rst.toml", "extends = 'base.toml'\npolicy.kind = 'rst'\n"),
        ("lisa.toml", "extends = 'base.toml'\npolicy.kind = 'lisa'\n"),
        ("same.toml", "extends = 'base.toml'\npolicy = {kind = 'ist', candidates = 4}\n"),
        ("wrong.toml", "extends = 'base.toml'\npolicy = {kind = 'rst', interval = 4}\n"),
    ];
    let folder = folder(&files);
    let policy = |name: &str| read_in(&folder, name, &[]).unwrap().policy;
    assert_eq!(
        policy("rst.toml"),
        PolicyConfig::Rst(RstConfig { layers_updated: Share::Count(3) })
    );
    assert_eq!(
        policy("lisa.toml"),
        PolicyConfig::Lisa(LisaConfig { layers_updated: Share::Count(3), interval: 5 })
    );
    let ist = IstConfig {
        layers_updated: Share::Count(3),
        interval: 5,
        candidates: 4,
        ..IstConfig::default()
    };
    assert_eq!(policy("same.toml"), PolicyConfig::Ist(ist));
    let error = read_in(&folder, "wrong.toml", &[]).unwrap_err().to_string();
    assert!(error.contains("wrong.toml:2: `policy.interval` belongs to"), "{error}");
}

#[test]
fn an_adapter_in_double_brackets_is_extended_as_one_in_single_ones() {
    let files = [
        ("base.toml", &*format!("{BASE}[[adapter]]\nr = 3\nalpha = 5\n")),
        ("near.toml", "extends = 'base.toml'\nadapter.alpha = 7\n"),
        ("dora.toml", "extends = 'base.toml'\nadapter.method = 'dora'\n"),
        ("series.toml", "extends = 'base.toml'\nadapter.method = 'series'\n"),
    ];
    let folder = folder(&files);
    let fields =
        |name: &str| read_in(&folder, name, &[]).unwrap().adapter.tables()[0].fields.clone();
    assert_eq!(
        (&fields("near.toml")["r"], &fields("near.toml")["alpha"]),
        (&3.into(), &7.0.into())
    );
    assert_eq!(fields("dora.toml")["r"], 3);
    assert!(!fields("series.toml").contains_key("r"));
}

#[test]
fn faults_name_the_file_that_has_them() {
    let files = [
        ("base.toml", "sed = 1\n[model]\npath = 'builtin:tiny'\n[train]\nsteps = 0\n"),
        ("near.toml", "extends = 'base.toml'\n[data]\ntrain = 3\n"),
    ];
    let folder = folder(&files);
    let error = read_in(&folder, "near.toml", &["seed=-1"]).unwrap_err();
    let root = folder.path().display();
    let expected = [
        format!(
            "{root}/near.toml:3: `data.train` must be a string that is not empty or a non-empty \
             list of strings or tables, found 3"
        ),
        format!("{root}/base.toml:1: `sed` is not a known key; did you mean `seed`?"),
        format!("{root}/base.toml:5: `train.steps` must be an integer of at least 1, found 0"),
        "--set: `seed` must be an integer of at least 0, found -1".to_owned(),
    ];
    assert_eq!(error.to_string().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_circle_is_refused_with_the_chain() {
    let files = [
        ("a.toml", "extends = 'b.toml'\n"),
        ("b.toml", "extends = './c.toml'\n"),
        ("c.toml", "extends = 'a.toml'\n"),
        ("self.toml", "extends = 'self.toml'\n"),
    ];
    let folder = folder(&files);
    let error = read_in(&folder, "a.toml", &[]).unwrap_err().to_string();
    let chain = ["a.toml", "b.toml", "c.toml", "a.toml"]
        .map(|name| folder.path().canonicalize().unwrap().join(name));
    let chain =
        chain.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" -> ");
    assert!(
        error.contains("c.toml:1: `extends` goes in a circle") && error.contains(&chain),
        "{error}"
    );
    assert!(read_in(&folder, "self.toml", &[]).unwrap_err().to_string().contains("circle"));
}

#[test]
fn a_base_that_cannot_be_read_is_a_fault_of_the_key() {
    let files = [
        ("missing.toml", "\nextends = 'none.toml'\n"),
        ("empty.toml", "extends = ''\n"),
        ("number.toml", "extends = 3\n"),
        ("broken.toml", "extends = 'syntax.toml'\n"),
        ("syntax.toml", "seed = \n"),
        ("set.toml", BASE),
    ];
    let folder = folder(&files);
    for (name, expected) in [
        ("missing.toml", "missing.toml:2: `extends` names "),
        ("empty.toml", "`extends` must be the path of a configuration, found the string \"\""),
        ("number.toml", "`extends` must be the path of a configuration, found 3"),
        ("broken.toml", "syntax.toml:1: not valid TOML"),
    ] {
        let error = read_in(&folder, name, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = read_in(&folder, "set.toml", &["extends=missing.toml"]).unwrap_err().to_string();
    assert!(error.contains("`extends` stands in a file; it cannot be set"), "{error}");
}

#[test]
fn what_was_read_of_a_chain_is_told_by_one_digest() {
    let files = [("base.toml", BASE), ("near.toml", "extends = 'base.toml'\nseed = 9\n")];
    let folder = folder(&files);
    let digest = |name: &str| {
        study(&folder.path().join(name), &[])
            .unwrap()
            .members::<ist_peft::BuiltinAdapter>(false)
            .unwrap()
            .digest
    };
    let (before, base) = (digest("near.toml"), digest("base.toml"));
    assert_ne!(before, base);
    std::fs::write(folder.path().join("base.toml"), BASE.replace("cutoff = 64", "cutoff = 65"))
        .unwrap();
    assert_ne!(digest("near.toml"), before);
    std::fs::write(folder.path().join("base.toml"), BASE).unwrap();
    assert_eq!(digest("near.toml"), before);
}

#[test]
fn a_nearer_sweep_replaces_and_adds_keys_however_they_are_spelt() {
    let files = [
        ("base.toml", &*format!("{BASE}[sweep]\n\"train.batch\" = [1, 2]\nadapter.r = [3]\n")),
        (
            "near.toml",
            "extends = 'base.toml'\nseeds = 2\n[sweep]\ntrain.batch = [4]\n'adapter.r' = [5, 6]\n",
        ),
    ];
    let folder = folder(&files);
    let study = study(&folder.path().join("near.toml"), &[])
        .unwrap()
        .members::<ist_peft::BuiltinAdapter>(false)
        .unwrap();
    let names: Vec<&str> = study.members.iter().map(|member| member.name.as_str()).collect();
    let expected = ["adapter.r=5,train.batch=4,seed=0", "adapter.r=5,train.batch=4,seed=1"];
    assert_eq!((names.len(), &names[..2]), (4, &expected[..]));
}
