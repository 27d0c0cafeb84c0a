//! `[sweep]` and `seeds`: one file, several runs.

use ist_core::policy::{FixedConfig, IstConfig, RstConfig, Share};
use ist_peft::BuiltinAdapter;
use proptest::prelude::*;

use super::super::*;
use super::LEAST;

fn study_of(text: &str, overrides: &[&str]) -> Result<Study, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    study(&path, &overrides)?.members::<BuiltinAdapter>(false)
}

fn names(text: &str) -> Vec<String> {
    study_of(text, &[]).unwrap().members.into_iter().map(|member| member.name).collect()
}

/// The message about the least configuration with these lines before it.
fn faults(text: &str, overrides: &[&str]) -> String {
    study_of(&format!("{LEAST}{text}"), overrides).expect_err(text).to_string()
}

#[test]
fn a_file_without_a_sweep_has_one_run() {
    let study = study_of(LEAST, &[]).unwrap();
    let [member] = study.members.as_slice() else { panic!("{study:?}") };
    assert_eq!((study.name.as_str(), member.name.as_str()), ("many", "seed=0"));
    assert_eq!(names(&format!("seed = 7\n{LEAST}")), ["seed=7"]);
}

#[test]
fn seeds_are_a_list_or_a_count() {
    assert_eq!(names(&format!("seeds = 3\n{LEAST}")), ["seed=0", "seed=1", "seed=2"]);
    let study = study_of(&format!("seed = 5\nseeds = [4, 2]\n{LEAST}"), &[]).unwrap();
    assert_eq!(study.members.iter().map(|member| member.config.seed).collect::<Vec<_>>(), [4, 2]);
    for text in
        ["seeds = 0", "seeds = []", "seeds = [1, 1]", "seeds = [-1]", "seeds = 1.0", "seeds = 'x'"]
    {
        let error = faults(text, &[]);
        assert!(
            error.contains("many.toml:4: `seeds` must be a number of seeds of at least 1"),
            "{error}"
        );
    }
}

#[test]
fn a_sweep_is_every_combination_in_order() {
    let text = format!(
        "seeds = 2\n{LEAST}[sweep]\n\"policy.layers_updated\" = [1, 0.5]\nadapter.r = [4]\n"
    );
    let study = study_of(&text, &[]).unwrap();
    let expected = [
        "adapter.r=4,policy.layers_updated=1,seed=0",
        "adapter.r=4,policy.layers_updated=1,seed=1",
        "adapter.r=4,policy.layers_updated=0.5,seed=0",
        "adapter.r=4,policy.layers_updated=0.5,seed=1",
    ];
    assert_eq!(
        study.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(),
        expected
    );
    let last = &study.members[3].config;
    let PolicyConfig::Ist(ist) = &last.policy else { panic!("{last:?}") };
    assert_eq!(
        (last.seed, ist.layers_updated, &last.adapter.tables()[0].fields["r"]),
        (1, Share::Fraction(0.5), &4.into())
    );
}

#[test]
fn cases_change_several_keys_together() {
    let text = format!(
        "{LEAST}policy = {{interval = 7, layers_updated = 2}}\n[sweep]\n\
         optimizer.lr = [1e-3, 2e-3]\n\
         [[sweep.cases]]\nname = 'ist'\n[[sweep.cases]]\nname = 'random'\npolicy.kind = 'rst'\n\
         [[sweep.cases]]\nname = 'pair'\n\
         policy = {{kind = 'fixed', layers = [1, 3]}}\n\"train.steps\" = 5\n"
    );
    let study = study_of(&text, &[]).unwrap();
    let names: Vec<&str> = study.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names[..2], ["ist,optimizer.lr=0.001,seed=0", "ist,optimizer.lr=0.002,seed=0"]);
    assert_eq!(names[4], "pair,optimizer.lr=0.001,seed=0");
    let policy = |at: usize| study.members[at].config.policy.clone();
    let ist = IstConfig { interval: 7, layers_updated: Share::Count(2), ..IstConfig::default() };
    assert_eq!(policy(0), PolicyConfig::Ist(ist));
    assert_eq!(policy(2), PolicyConfig::Rst(RstConfig { layers_updated: Share::Count(2) }));
    assert_eq!(policy(4), PolicyConfig::Fixed(FixedConfig { layers: vec![1, 3] }));
    assert_eq!(
        (study.members[4].config.train.steps, study.members[2].config.train.steps),
        (Some(5), Some(10))
    );
}

#[test]
fn names_can_be_folders_whatever_the_values_are() {
    let text = format!(
        "{LEAST}[sweep]\n\"model.path\" = ['../a b/c', 'org/name@x']\n\"adapter.targets\" = \
         [['q_proj', 'v_proj'], 'all-linear']\n\
         \"adapter.rank_pattern\" = [{{'layers.0' = 4}}]\n"
    );
    let names = names(&text);
    assert_eq!(names.len(), 4);
    for name in &names {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-=,".contains(c)), "{name}");
    }
    assert!(
        names[0].contains("adapter.targets=q_proj+v_proj")
            && names[0].contains("rank_pattern=layers.0-4"),
        "{names:?}"
    );
}

#[test]
fn runs_with_the_same_name_are_refused() {
    let error = faults("[sweep]\n\"data.template\" = ['a {{ input }}', 'a-{{ input }}']\n", &[]);
    assert!(
        error.contains("gives two runs the name data.template=a----input---,seed=0"),
        "{error}"
    );
    let error = faults("[[sweep.cases]]\nname = 'a'\n[[sweep.cases]]\nname = 'A'\n", &[]);
    assert!(error.contains("many.toml:7: `sweep.cases[1].name` repeats \"A\""), "{error}");
    let long = format!("[sweep]\n\"data.template\" = ['{{{{ input }}}}{}']\n", "x".repeat(300));
    assert!(faults(&long, &[]).contains("bytes, more than 200"));
}

#[test]
fn every_fault_names_its_key_its_line_and_the_runs_that_have_it() {
    let text = "[optimizer]\nlrr = 1\n[sweep]\n\"policy.layers_updated\" = [1, 0, \
                -2]\n\"train.stepz\" = [1]\nseeds = [1]\n";
    let error = faults(text, &[]);
    let lines: Vec<&str> =
        error.lines().map(|line| line.split_once("many.toml:").unwrap().1).collect();
    assert_eq!(lines, ["9: `sweep.seeds` cannot be varied"], "what is swept is judged first");
    let error = faults(&text.replace("seeds = [1]\n", ""), &[]);
    let lines: Vec<&str> =
        error.lines().map(|line| line.split_once("many.toml:").unwrap().1).collect();
    let expected = [
        "5: `optimizer.lrr` is not a known key; did you mean `optimizer.lr`?",
        "7: `policy.layers_updated` must be an integer of at least 1 or a number above 0 and at \
         most 1, found 0 \
         (in policy.layers_updated=0,train.stepz=1,seed=0)",
        "7: `policy.layers_updated` must be an integer of at least 1 or a number above 0 and at \
         most 1, found -2 \
         (in policy.layers_updated=-2,train.stepz=1,seed=0)",
        "8: `train.stepz` is not a known key; did you mean `train.steps`?",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_sweep_that_is_none_is_refused() {
    for (text, expected) in [
        ("[sweep]\n", "`sweep` varies nothing"),
        ("sweep = 3\n", "`sweep` must be a table of keys and lists, found 3"),
        (
            "[sweep]\n\"policy.interval\" = []\n",
            "`sweep.policy.interval` lists no value, so there is no run",
        ),
        (
            "[sweep]\npolicy.interval = 3\n",
            "`sweep.policy.interval` must be the list of the key's values, found 3",
        ),
        ("[sweep]\n\"policy..interval\" = [3]\n", "is not a dotted key"),
        ("[sweep]\ncases = []\n", "`sweep.cases` must be a non-empty list of tables"),
        (
            "[[sweep.cases]]\npolicy.kind = 'rst'\n",
            "`sweep.cases[0].name` must be of letters, digits and . _ + -",
        ),
        ("[[sweep.cases]]\nname = 'a/b'\n", "found the string \"a/b\""),
        ("[sweep]\nextends = ['x']\n", "`sweep.extends` cannot be varied"),
        ("[sweep]\npolicy.interval = [1]\n\"policy.interval\" = [2]\n", "is given by `sweep."),
        (
            "[sweep]\npolicy = [{kind = 'rst'}]\n\"policy.interval\" = [2]\n",
            "is given by `sweep.policy` too",
        ),
        (
            "[sweep]\nseed = [1]\n[[sweep.cases]]\nname = 'a'\nseed = 3\n",
            "`sweep.seed` is given by `sweep.cases[0].seed` too",
        ),
        (
            "[[adapter]]\nr = 3\n[[adapter]]\nname = 'b'\n[sweep]\nadapter.r = [4]\n",
            "is a list of several adapters",
        ),
    ] {
        let error = faults(text, &[]);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(
        faults("sweep = {seed = [1]}\nseeds = 2\n", &[])
            .contains("`sweep.seed` is given by `seeds` too")
    );
    assert!(
        faults("seeds = 2\n[[sweep.cases]]\nname = 'a'\nseed = 3\n", &[])
            .contains("the case \"a\" too")
    );
}

#[test]
fn the_command_line_sets_what_is_not_swept() {
    let text = format!("seeds = 2\n{LEAST}[sweep]\n\"policy.layers_updated\" = [1, 2]\n");
    let study = study_of(&text, &["train.steps=3", "seeds=1"]).unwrap();
    assert_eq!(study.members.len(), 2);
    assert!(study.members.iter().all(|member| member.config.train.steps == Some(3)));
    assert_eq!(
        study_of(&text, &["sweep={\"policy.interval\"=[1,2,3]}", "seeds=1"]).unwrap().members.len(),
        3
    );
    for set in ["sweep.policy.layers_updated=[4]", "sweep.\"policy.layers_updated\"=[4]"] {
        assert_eq!(
            study_of(&text, &[set, "seeds=1"]).unwrap().members[0].name,
            "policy.layers_updated=4,seed=0"
        );
    }
    for set in ["policy.layers_updated=3", "seed=4"] {
        let error = study_of(&text, &[set]).unwrap_err().to_string();
        assert!(
            error.contains("--set: `") && error.contains("is what the sweep varies"),
            "{error}"
        );
    }
}

#[test]
fn many_runs_are_counted_before_they_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.toml");
    let values = (1..=100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let text = format!(
        "seeds = 100\n{LEAST}[sweep]\n\"adapter.r\" = [{values}]\n\"train.batch\" = [{values}]\n"
    );
    std::fs::write(&path, text).unwrap();
    assert_eq!(study(&path, &[]).unwrap().count(), 1_000_000);
}

#[test]
fn a_single_run_refuses_a_file_of_several() {
    let error = super::read(
        "seeds = 3\nmodel.path = 'builtin:tiny'\ndata.train = 'x'\n[train]\nsteps = 1\n[sweep]\n\
         'train.batch' = [1]\n",
    );
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "run.toml:1: `seeds` makes this file several runs; `ist run FILE` executes them\n\
         run.toml:6: `sweep` makes this file several runs; `ist run FILE` executes them"
    );
}

#[test]
fn a_sweep_may_supply_what_the_file_lacks() {
    let text = "model.path = 'builtin:tiny'\ndata.train = 'x'\n[sweep]\n\"train.steps\" = [1, 2]\n";
    assert_eq!(study_of(text, &[]).unwrap().members.len(), 2);
}

proptest! {
    #[test]
    fn members_are_the_product_of_what_varies_and_their_names_differ(
        ranks in prop::collection::btree_set(1..40_i64, 1..4),
        rates in prop::collection::btree_set(1..40_i64, 1..4),
        cases in 0_usize..3,
        seeds in 1_usize..4,
    ) {
        let rates: Vec<f64> = rates.into_iter().map(|rate| rate as f64 * 1e-5).collect();
        let ranks: Vec<i64> = ranks.into_iter().collect();
        let listed: String = (0..cases).map(|at| format!("[[sweep.cases]]\nname = 'c{at}'\n\
            train.batch = {}\n", at + 1)).collect();
        let text = format!("seeds = {seeds}\n{LEAST}[sweep]\n\"adapter.r\" = \
                            {ranks:?}\n\"optimizer.lr\" = {rates:?}\n{listed}");
        let members = study_of(&text, &[]).unwrap().members;
        prop_assert_eq!(members.len(), ranks.len() * rates.len() * cases.max(1) * seeds);
        let names: std::collections::BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
        prop_assert_eq!(names.len(), members.len());
        // The name says what the run is.
        for Member { name, config } in &members {
            for part in [
                format!("adapter.r={}", config.adapter.tables()[0].fields["r"]),
                format!("optimizer.lr={}", config.optimizer.lr),
                format!("seed={}", config.seed),
            ] {
                prop_assert!(name.split(',').any(|found| found == part), "{} lacks {}", name, part);
            }
            let case = format!("c{},", config.train.batch - 1);
            prop_assert!(cases == 0 || name.starts_with(&case), "{}", name);
        }
    }
}
