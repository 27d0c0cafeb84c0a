//! What is refused, and in which words.

use super::super::{Place, load};
use super::{LEAST, faults_of, least_and, read, read_with};

#[test]
fn all_faults_are_told_at_once_with_file_line_and_key() {
    let text = "sed = 1\n\
                [model]\ndtype = 'float8'\n\
                [data]\ntrain = 3\ncutof = 128\n\
                [policy]\nkind = 'rst'\ninterval = 5\nlayers_updated = 1.5\n\
                [adapter]\nr = 0\nlora_alpha = 8\n\
                [optimizer]\nlr = 'fast'\nbetas = [0.9, 1.0]\n\
                [train]\nsteps = 10\nepochs = 1\n";
    let error = read_with(text, &["polcy.kind=ist", "seed=-1"]).unwrap_err().to_string();
    let expected = "\
run.toml:1: `sed` is not a known key; did you mean `seed`?
run.toml:2: `model.path` is missing; it must be a string that is not empty. The base model: a folder in Hugging Face layout, `builtin:NAME`, or a hub id `org/name[@revision]`.
run.toml:3: `model.dtype` must be one of \"float32\", \"bfloat16\", \"float16\", \"int8\", found the string \"float8\"; did you mean \"float32\"?
run.toml:5: `data.train` must be a string that is not empty or a non-empty list of strings or tables, found 3
run.toml:6: `data.cutof` is not a known key; did you mean `data.cutoff`?
run.toml:9: `policy.interval` belongs to policy.kind = \"ist\", \"lisa\", not to \"rst\"; remove it
run.toml:10: `policy.layers_updated` must be an integer of at least 1 or a number above 0 and at most 1, found 1.5
run.toml:12: `adapter.r` must be an integer of at least 1, found 0
run.toml:13: `adapter.lora_alpha` is not a known key; did you mean `adapter.alpha`?
run.toml:15: `optimizer.lr` must be a number above 0, found the string \"fast\"
run.toml:16: `optimizer.betas[1]` must be a number of at least 0 and below 1, found 1.0
run.toml:19: `train.epochs` conflicts with `train.steps`; give one of them
--set: `polcy` is not a known key; did you mean `policy`?
--set: `seed` must be an integer of at least 0, found -1";
    let (found, expected): (Vec<&str>, Vec<&str>) =
        (error.lines().collect(), expected.lines().collect());
    assert_eq!(found, expected);
}

#[test]
fn an_empty_file_names_every_required_key() {
    let error = read("").unwrap_err();
    let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["model.path", "data.train", "train"]);
    assert!(
        error.to_string().contains("`train` needs one of `train.steps` and `train.epochs`"),
        "{error}"
    );
}

#[test]
fn each_value_out_of_range_is_refused_with_the_range() {
    for (text, key, expected) in [
        ("seed = 1.0", "seed", "an integer of at least 0, found 1.0"),
        ("data.cutoff = 1", "data.cutoff", "an integer of at least 2, found 1"),
        ("data.validation_records = 0", "data.validation_records", "at least 1"),
        (
            "data.train_on_inputs = 'yes'",
            "data.train_on_inputs",
            "true or false, found the string \"yes\"",
        ),
        ("data.fields = {question = 'a'}", "data.fields.question", "is not a known key"),
        ("data.fields.output = ''", "data.fields.output", "a string that is not empty"),
        ("data.padding = 'centre'", "data.padding", "one of \"left\", \"right\""),
        ("adapter.alpha = 0", "adapter.alpha", "a number above 0, found 0"),
        ("adapter.alpha = nan", "adapter.alpha", "a number above 0, found nan"),
        (
            "adapter.dropout = 1.0",
            "adapter.dropout",
            "a number of at least 0 and below 1, found 1.0",
        ),
        ("adapter.targets = []", "adapter.targets", "a non-empty list of strings"),
        (
            "adapter.rank_pattern = {q_proj = 0}",
            "adapter.rank_pattern.q_proj",
            "an integer of at least 1, found 0",
        ),
        (
            "adapter.layers_to_transform = [-1]",
            "adapter.layers_to_transform",
            "found the list [-1]",
        ),
        ("policy.layers_updated = 0", "policy.layers_updated", "found 0"),
        ("policy.layers_updated = 0.0", "policy.layers_updated", "found 0.0"),
        ("policy.candidates = 0", "policy.candidates", "at least 1"),
        ("policy.suppression = 1.0", "policy.suppression", "below 1"),
        ("policy.importance_lr = inf", "policy.importance_lr", "above 0, found inf"),
        ("policy = {kind = 'fixed', layers = []}", "policy.layers", "a non-empty list of integers"),
        ("policy = {kind = 'fixed', layers = [1, 1]}", "policy.layers[1]", "repeats 1"),
        ("policy.kind = 'fixed'", "policy.layers", "is missing"),
        ("policy.kind = 'replay'", "policy.path", "is missing"),
        ("optimizer.lr = 0", "optimizer.lr", "above 0, found 0"),
        ("optimizer.betas = [0.9]", "optimizer.betas", "a list of 2 numbers"),
        ("optimizer.weight_decay = -0.1", "optimizer.weight_decay", "at least 0, found -0.1"),
        ("train.batch = 0", "train.batch", "at least 1, found 0"),
        (
            "train.micro_batch = 17",
            "train.micro_batch",
            "at most `train.batch`, which is 16, found 17",
        ),
        ("train.early_stopping = 3", "train.early_stopping", "needs a validation loss"),
        ("train.sample_prompts = 'one'", "train.sample_prompts", "a list of strings"),
        ("train.sample_prompts = ['one', 2]", "train.sample_prompts[1]", "a string, found 2"),
        (
            "memory.budget = 'less'",
            "memory.budget",
            "one of \"auto\", \"keep\", \"recompute\" or a size such as \"1.5GiB\"",
        ),
        ("memory.budget = '1.5Gigs'", "memory.budget", "found the string \"1.5Gigs\""),
        ("memory.budget = 0", "memory.budget", "an integer of at least 1, found 0"),
        ("memory.budget = 1.5", "memory.budget", "found 1.5"),
        ("eval.limit = 3", "eval.data", "is missing"),
        ("eval = {data = 'x', task = 'bolq'}", "eval.task", "one of \"boolq\", \"piqa\""),
        ("eval = 'exact-match'", "eval", "must be a table, found the string"),
        (
            "data = {train = 'x', validation = 'y', validation_records = 3}",
            "data.validation_records",
            "conflicts with",
        ),
    ] {
        let least: Vec<&str> = LEAST
            .lines()
            .filter(|line| !text.starts_with("data = ") || !line.starts_with("data"))
            .collect();
        let error = read(&format!("{}\n{text}\n", least.join("\n"))).expect_err(text);
        let [fault] = error.faults() else { panic!("{text}: {error}") };
        assert_eq!(fault.key, key, "{text}");
        assert!(fault.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_nearest_key_is_named_wherever_it_stands() {
    for (text, near) in [
        ("stepz = 3", "train.steps"),
        ("lr = 1e-3", "optimizer.lr"),
        ("train.lr = 1e-3", "optimizer.lr"),
        ("train.batchsize = 3", "train.batch"),
        ("train.max_steps = 3", "train.steps"),
        ("adapter.target_modules = ['q_proj']", "adapter.targets"),
        ("policy.layers_update = 2", "policy.layers_updated"),
        ("optimiser.lr = 1e-3", "optimizer"),
        ("data.max_length = 3", "data.cutoff"),
    ] {
        let error = faults_of(text);
        if text.starts_with("data") {
            // Nothing is close: the table's keys are listed.
            assert!(error.contains("[data] takes train, format, fields, cutoff"), "{error}");
        } else {
            assert!(error.contains(&format!("`{near}`")), "{text}: {error}");
        }
    }
}

#[test]
fn a_key_of_an_unknown_kind_is_still_checked_for_existence() {
    let error = faults_of("policy = {kind = 'isst', interval = 3, gamma = 1}");
    assert!(error.contains("`policy.kind` must be one of \"all\", \"ist\""), "{error}");
    assert!(
        error.contains("did you mean \"ist\"?")
            && error.contains("`policy.gamma` is not a known key"),
        "{error}"
    );
    assert!(!error.contains("interval` "), "{error}");
}

#[test]
fn the_methods_own_reader_has_the_last_word() {
    let error = faults_of("adapter.targets = 'q_(proj'");
    assert!(error.contains("run.toml:4: `adapter.targets`"), "{error}");
    let error = faults_of("adapter = {targets = 'q_proj', layers_to_transform = [1]}");
    assert!(error.contains("`adapter.layers_to_transform` cannot be used"), "{error}");
}

#[test]
fn a_template_is_parsed_at_the_gate() {
    assert!(faults_of("data.template = 'alpacca'").contains("`data.template` is no template"));
    assert!(
        faults_of("data.template = '{{ instruction '").contains("`data.template` is no template")
    );
    assert!(least_and("data.template = '{{ instruction }} = '").is_ok());
}

#[test]
fn every_syntax_error_has_its_line() {
    let error = read("seed = \n[model\npath = 'x'\n[data]\ntrain = 'a' 'b'\n").unwrap_err();
    let lines: Vec<Place> = error.faults().iter().map(|fault| fault.place).collect();
    assert!(lines.contains(&Place::Line(1)) && lines.contains(&Place::Line(5)), "{error}");
    assert!(error.to_string().starts_with("run.toml:1: not valid TOML: "), "{error}");
}

#[test]
fn of_a_file_that_is_no_toml_at_all_the_first_errors_are_told() {
    let error = read(&"no TOML\n".repeat(30_000)).unwrap_err().to_string();
    let lines = error.lines().count();
    assert!(lines < 60, "{lines} lines");
    assert!(error.contains("run.toml:50: not valid TOML"), "{error}");
    assert!(error.contains("29950 more such errors"), "{error}");
}

#[test]
fn a_number_too_large_for_toml_is_a_fault_with_its_line() {
    let error = read("model.path = 'x'\nseed = 99999999999999999999\n").unwrap_err().to_string();
    assert!(error.starts_with("run.toml:2: "), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(std::path::Path::new("/nowhere/run.toml"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/run.toml: the configuration cannot be read: "), "{error}");
}

#[test]
fn faults_in_a_list_of_files_name_the_entry() {
    for (value, key, expected) in [
        ("['a', {path = 'b', wieght = 2}]", "data.train[1].wieght", "is not a known key"),
        (
            "[{path = 'b', weight = 0}]",
            "data.train[0].weight",
            "a number above 0 and at most 1000, found 0",
        ),
        ("[{weight = 2}]", "data.train[0].path", "is missing"),
        ("{path = 'a'}", "data.train", "found a table"),
        ("[]", "data.train", "a non-empty list of strings or tables"),
        ("['']", "data.train[0]", "a string that is not empty or a table"),
    ] {
        let error = read_with(LEAST, &[&format!("data.train={value}")]).unwrap_err();
        let [fault] = error.faults() else { panic!("{value}: {error}") };
        assert_eq!(fault.key, key, "{value}");
        assert!(fault.message.contains(expected), "{value}: {}", fault.message);
    }
}

#[test]
fn files_that_are_named_and_not_there_are_faults_of_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(folder.path().join("there.jsonl"), "").unwrap();
    let text = "model.path = './missing'\ndata.train = 'there.jsonl'\n\
                data.validation = 'gone.jsonl'\ntrain.steps = 1\n\
                adapter.init_from = 'adapter'\n";
    std::fs::write(&path, text).unwrap();
    let error = load(&path, &[]).unwrap_err();
    let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["model.path", "data.validation", "adapter.init_from"], "{error}");
    let list = ["data.train=['there.jsonl', 'away.jsonl', {path = 'lost.jsonl'}, '.']".to_owned()];
    let error = load(&path, &list).unwrap_err();
    let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
    assert!(
        ["data.train[1]", "data.train[2].path"].iter().all(|key| keys.contains(key)),
        "{error}"
    );
    assert!(!keys.contains(&"data.train[3]"), "{error}");
    let error = load(&path, &[]).unwrap_err();
    let gone = folder.path().join("gone.jsonl");
    assert!(
        error.to_string().contains(&format!("names no file: {} does not exist", gone.display())),
        "{error}"
    );
    super::super::read(&path, &[]).unwrap();
}

#[test]
fn an_override_is_checked_like_the_file() {
    let config = read_with(
        LEAST,
        &["train.steps=99", "policy.kind=rst", "adapter.rank_pattern.\"layers.0\"=4"],
    )
    .unwrap();
    assert_eq!((config.train.steps, config.policy.kind()), (Some(99), "rst"));
    assert_eq!(config.adapter.tables()[0].fields["rank_pattern"]["layers.0"], 4);
    for (text, expected) in [
        ("train.step=3", "--set: `train.step` is not a known key; did you mean `train.steps`?"),
        (
            "train.steps=many",
            "--set: `train.steps` must be an integer of at least 1, found the string \"many\"",
        ),
        ("seed.x=3", "--set: `seed.x` cannot be set, because `seed` is not a table"),
        ("train.steps", "--set: \"train.steps\" is not KEY=VALUE"),
    ] {
        let error = read_with(&format!("seed = 0\n{LEAST}"), &[text]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn an_override_may_replace_a_whole_table() {
    let text = format!("{LEAST}policy = {{interval = 5}}\n");
    assert!(
        read_with(&text, &["policy.kind=rst"])
            .unwrap_err()
            .to_string()
            .contains("belongs to policy.kind = \"ist\"")
    );
    assert_eq!(read_with(&text, &["policy={kind='rst'}"]).unwrap().policy.kind(), "rst");
}
