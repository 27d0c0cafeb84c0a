//! Later work is refused by name.

use super::{LEAST, faults_of, least_and, read, read_with};

#[test]
fn later_work_is_not_yet_available_rather_than_unknown() {
    let mut cases = vec![
        ("extends = 'base.toml'".to_owned(), "extends"),
        ("seeds = [1, 2]".to_owned(), "seeds"),
        ("sweep = {'policy.kind' = ['ist', 'rst']}".to_owned(), "sweep"),
        ("logging.wandb = true".to_owned(), "logging"),
        ("[[adapter]]\nmethod = 'lora'\n[[adapter]]\nr = 3".to_owned(), "adapter"),
        ("adapter.use_dora = true".to_owned(), "adapter.use_dora"),
    ];
    let methods =
        ["dora", "ia3", "prefix-tuning", "series", "parallel", "adapterp", "vera", "bitfit", "layernorm", "full"];
    cases.extend(
        methods.map(|method| (format!("adapter = {{method = '{method}', bottleneck_size = 3}}"), "adapter.method")),
    );
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
    let error =
        read("seeds = [1]\nmodel = {path = 'builtin:tiny', dtyp = 1}\nadapter = {method = 'dora'}\n").unwrap_err();
    let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["seeds", "model.dtyp", "adapter.method", "data.train", "train"]);
}

#[test]
fn an_override_cannot_reach_later_work() {
    let error = read_with(LEAST, &["adapter.method=dora"]).unwrap_err().to_string();
    assert!(error.starts_with("--set: `adapter.method` = \"dora\" is not yet available"), "{error}");
}

#[test]
fn one_adapter_in_double_brackets_is_one_adapter() {
    let config = least_and("[[adapter]]\nr = 3\n").unwrap();
    assert_eq!(config, least_and("[adapter]\nr = 3\n").unwrap());
    assert_eq!(read_with(&format!("{LEAST}[[adapter]]\nr = 3\n"), &["adapter.r=5"]).unwrap().adapter.fields["r"], 5);
}

#[test]
fn an_unknown_method_is_not_later_work() {
    let error = faults_of("adapter.method = 'lora2'");
    assert!(error.contains("must be \"lora\", found the string \"lora2\"; did you mean \"lora\"?"), "{error}");
}
