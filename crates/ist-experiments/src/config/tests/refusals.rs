//! Later work is refused by name.

use super::{LEAST, faults_of, least_and, read, read_with};

#[test]
fn later_work_is_not_yet_available_rather_than_unknown() {
    let mut cases = Vec::new();
    let methods = ["adalora", "loha", "lokr", "oft", "prompt-tuning"];
    cases.extend(methods.map(|method| {
        (format!("adapter = {{method = '{method}', bottleneck_size = 3}}"), "adapter.method")
    }));
    for (text, key) in cases {
        let error = least_and(&text).expect_err(&text);
        let [fault] = error.faults() else { panic!("{text}: {error}") };
        assert_eq!(fault.key, key);
        assert!(fault.message.contains("not yet available"), "{error}");
        assert!(!error.to_string().contains("known key"), "{error}");
    }
}

#[test]
fn later_work_hides_no_other_fault() {
    let error = read(
        "logging.wandb = true\nmodel = {path = 'builtin:tiny', dtyp = 1}\n\
                      adapter = {method = 'loha'}\n",
    )
    .unwrap_err();
    let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["logging.wandb", "model.dtyp", "adapter.method", "data.train", "train"]);
}

#[test]
fn an_override_cannot_reach_later_work() {
    let error = read_with(LEAST, &["adapter.method=loha"]).unwrap_err().to_string();
    assert!(
        error.starts_with("--set: `adapter.method` = \"loha\" is not yet available"),
        "{error}"
    );
}

#[test]
fn one_adapter_in_double_brackets_is_one_adapter() {
    let config = least_and("[[adapter]]\nr = 3\n").unwrap();
    assert_eq!(config, least_and("[adapter]\nr = 3\n").unwrap());
    assert_eq!(
        read_with(&format!("{LEAST}[[adapter]]\nr = 3\n"), &["adapter.r=5"])
            .unwrap()
            .adapter
            .tables()[0]
            .fields["r"],
        5
    );
}

#[test]
fn an_unknown_method_is_not_later_work() {
    let error = faults_of("adapter.method = 'lora2'");
    assert!(error.contains("found the string \"lora2\"; did you mean \"lora\"?"), "{error}");
}

#[test]
fn several_adapters_are_checked_each_under_its_own_key() {
    let two =
        |second: &str| format!("[[adapter]]\nr = 3\ntargets = ['q_proj']\n[[adapter]]\n{second}");
    let config =
        least_and(&two("method = 'parallel'\nbottleneck_size = 8\ntargets = ['down_proj']"))
            .unwrap();
    let methods: Vec<_> =
        config.adapter.tables().iter().map(|table| table.method.as_deref()).collect();
    assert_eq!(methods, [Some("lora"), Some("parallel")]);
    let error = faults_of(&two("method = 'parallel'\nr = 8"));
    assert!(
        error.contains("run.toml:9: `adapter[1].r` belongs to adapter[1].method = \"lora\""),
        "{error}"
    );
    let error = faults_of(&two("r = 5"));
    assert!(
        error.contains("`adapter[1].name` must differ from those of the other adapters; \"lora\""),
        "{error}"
    );
    assert!(least_and(&two("r = 5\nname = 'other'")).is_ok());
    let error = faults_of(&two("name = 'a/b'"));
    assert!(error.contains("`adapter[1].name` must be of letters"), "{error}");
    let error = faults_of("adapter.name = 'mine'");
    assert!(error.contains("`adapter.name` has no effect on a single adapter"), "{error}");
    assert!(faults_of("adapter = [3]").contains("`adapter` must be"), "a list of no tables");
}
