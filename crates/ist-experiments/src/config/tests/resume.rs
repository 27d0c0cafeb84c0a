//! What may change between a run and its continuation.

use super::super::{differences, resume_faults};
use super::least_and;

#[test]
fn equal_configurations_do_not_differ() {
    let config = least_and("adapter.r = 4").unwrap();
    assert!(differences(&config, &config).is_empty());
    // Spelling a default out, or an integer for a number, is no difference.
    let (spelt, bare) =
        (least_and("adapter.alpha = 64\ntrain.batch = 16").unwrap(), least_and("").unwrap());
    assert_eq!(differences(&spelt, &bare), [""; 0]);
}

#[test]
fn differing_keys_are_named_with_both_values() {
    let old = least_and("seed = 1\nadapter.r = 4\ndata.validation_records = 3").unwrap();
    let new = least_and("seed = 2\nadapter.targets = ['q_proj']\npolicy.kind = 'rst'").unwrap();
    let mut found = differences(&old, &new);
    found.retain(|line| !line.starts_with("`policy."));
    let expected = [
        "`adapter.r` was 4, is 32",
        "`data.validation_records` was 3, is absent",
        "`seed` was 1, is 2",
        "`adapter.targets` was absent, is [\"q_proj\"]",
    ];
    assert_eq!(found, expected);
    assert!(differences(&old, &new).contains(&"`policy.kind` was \"ist\", is \"rst\"".to_owned()));
}

#[test]
fn a_count_is_not_the_fraction_of_the_same_digits() {
    let [one, all] =
        ["1", "1.0"].map(|share| least_and(&format!("policy.layers_updated = {share}")).unwrap());
    assert_eq!(differences(&one, &all), ["`policy.layers_updated` was 1, is 1.0"]);
}

#[test]
fn only_the_length_of_a_run_may_grow() {
    let steps = |steps: usize| {
        let mut config = least_and("").unwrap();
        config.train.steps = Some(steps);
        config
    };
    assert!(resume_faults(&steps(10), &steps(20)).is_empty());
    assert_eq!(resume_faults(&steps(20), &steps(10)), ["`train.steps` was 20, is 10"]);
    let mut epochs = steps(10);
    (epochs.train.steps, epochs.train.epochs) = (None, Some(3.0));
    assert_eq!(resume_faults(&steps(10), &epochs).len(), 2);
    let mut longer = epochs.clone();
    longer.train.epochs = Some(3.5);
    assert!(resume_faults(&epochs, &longer).is_empty());
    longer.seed = 9;
    assert_eq!(resume_faults(&epochs, &longer), ["`seed` was 0, is 9"]);
}
