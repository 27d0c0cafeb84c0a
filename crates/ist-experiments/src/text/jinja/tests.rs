//! Templates that mean harm, each with the reason for which it is refused; and templates that only
//! look like them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ist_models::text::text_files::ChatTemplateSource;
use proptest::prelude::*;

use crate::text::chat_template::ChatTemplate;
use crate::text::records::chat::{Message, Role};

const WORK: &str = "steps of work";
const DEEP: &str = "nests deeper than";

fn messages() -> Vec<Message> {
    let turn = |role, content: &str| Message::new(role, content);
    vec![turn(Role::User, "Hi"), turn(Role::Assistant, "Hello")]
}

fn rendered(source: &str) -> Result<String, String> {
    let source = ChatTemplateSource {
        file: "chat_template.jinja",
        source: source.to_owned(),
        special_tokens: vec![("eos_token".to_owned(), "</s>".to_owned())],
    };
    ChatTemplate::new(&source)
        .and_then(|template| template.render(&messages(), false))
        .map_err(|error| error.to_string())
}

/// Lists of lists, a hundred thousand of one long text, and so on, as an expression named `big`.
fn with_big(expression: &str) -> String {
    format!("{{% set line = 'x' * 1000000 %}}{{% set big = [line] * 100000 %}}{expression}")
}

fn refused_with<S: AsRef<str>>(cases: &[(S, &str)]) {
    for (source, reason) in cases {
        let source = source.as_ref();
        let begin = Instant::now();
        let error = rendered(source).unwrap_err();
        let shown = &source[..source.len().min(100)];
        assert!(error.contains(reason), "{shown}: {error}");
        assert!(error.contains("chat_template.jinja") && error.len() < 1000, "{shown}: {error}");
        let spent = begin.elapsed();
        assert!(spent < Duration::from_secs(30), "{shown}: {spent:?}");
    }
}

#[test]
fn work_without_end_is_refused() {
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}\
                  {% endfor %}{% endfor %}{% endfor %}";
    let recursive = "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}";
    let doubling = "{% set ns = namespace(x='x') %}{% for i in range(99999) %}\
                    {% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let adding = doubling.replace("ns.x ~ ns.x", "ns.x + ns.x");
    let capturing = "{% set ns = namespace(x='x') %}{% for i in range(99999) %}\
                     {% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}";
    let replacing = doubling.replace("ns.x ~ ns.x", "ns.x | replace('x', 'xxxxxxxxxxxxxxxx')");
    let method = doubling.replace("ns.x ~ ns.x", "ns.x.replace('x', 'xxxxxxxxxxxxxxxx')");
    refused_with(&[
        (nested.to_owned(), WORK),
        (recursive.to_owned(), "recursion limit"),
        (doubling.to_owned(), WORK),
        (adding, WORK),
        (capturing.to_owned(), WORK),
        (replacing, WORK),
        (method, WORK),
    ]);
}

#[test]
fn single_calls_that_make_a_huge_text_are_refused() {
    let calls = [
        "{{ 'x\ny' | indent(2000000000) }}",
        "{{ 'x' * 99999999 * 99 }}",
        "{{ messages | tojson(indent=2000000000) }}",
        "{{ messages | tojson(indent=18446744073709551615) }}",
        "{{ '%2000000000d' | format(1) }}",
        "{{ '{:2000000000}'.format(1) }}",
        "{{ '{:>99999999999999999999}'.format(1) }}",
        "{{ '{:.2000000000f}'.format(1.5) }}",
        "{{ ('{0}' * 100000).format('x' * 100000) }}",
        "{{ ('x' * 100000000).split('') | length }}",
        "{{ 'x' | batch(2000000000, 'y') | list }}",
        "{{ ['x' * 1000000] * 1000 }}",
        "{{ (['x' * 1000000] * 1000) ~ '' }}",
        "{{ (['x' * 1000000] * 1000) | join }}",
        "{{ ''.join(['x' * 1000000] * 1000) }}",
        "{{ ('x' * 100000).join(range(99999)) }}",
        "{{ range(99999) | join('x' * 100000) }}",
        "{{ ([1] * 100000000) ~ '' }}",
        "{{ ([1] * 100000000) | string }}",
        "{{ [1] * 100000000 == [1] * 100000000 }}",
        "{{ 'x' is in([1] * 100000000) }}",
        "{{ [1] * 100000000 | sort }}",
        "{{ ([1] * 100000000) | pprint }}",
        "{{ ([1] * 100000000) | tojson }}",
    ];
    let cases: Vec<(String, &str)> = calls.iter().map(|call| ((*call).to_owned(), "")).collect();
    refused_with(&cases);
}

#[test]
fn values_that_share_their_parts_are_weighed_as_often_as_they_stand_there() {
    let nested = "{% set ns = namespace(x=['x']) %}{% for i in range(60) %}\
                  {% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let uses = ["{{ ns.x }}", "{{ ns.x ~ '' }}", "{{ ns.x == [ns.x] }}", "{{ ns.x | tojson }}"];
    let mut cases: Vec<(String, &str)> =
        uses.iter().map(|used| (format!("{nested}{used}"), WORK)).collect();
    for used in
        ["{{ big }}", "{{ big ~ '' }}", "{% set x %}{{ big }}{% endset %}", "{{ big | join }}"]
    {
        cases.push((with_big(used), WORK));
    }
    let mut names = String::from("{% set ns = namespace() %}{% set x = 'x' * 1000000 %}");
    for name in 0..500 {
        write!(names, "{{% set ns.a{name} = x %}}").unwrap();
    }
    for used in
        ["{{ ns }}", "{{ ns ~ '' }}", "{{ ns | string }}", "{{ 'a' is in ns }}{{ ns | tojson }}"]
    {
        cases.push((format!("{names}{used}"), WORK));
    }
    refused_with(&cases);
}

#[test]
fn a_value_can_neither_hold_itself_nor_nest_without_end() {
    let cyclic = "{% set ns = namespace() %}";
    let inside = "a namespace cannot stand in";
    let mut cases = Vec::new();
    for grown in [
        "{% set ns.a = ns %}",
        "{% set ns.a = [ns] %}",
        "{% set ns.a = {'b': ns} %}",
        "{% set ns.a = (ns, 1) %}",
        "{% set ns.a = dict(b=ns) %}",
        "{% set ns.a = namespace(b=ns) %}",
        "{% set ns.a = 0 or ns %}",
        "{% set ns.a = ns if true %}",
        "{% set ns.a = none | default(ns, true) %}",
        "{% set other = namespace() %}{% set other.b = ns %}{% set ns.a = other %}",
        "{% set ns.a, b = ns, 1 %}",
        "{% set list = [ns] %}{% set ns.a = list %}",
    ] {
        for used in ["{{ ns }}", "{{ ns ~ '' }}", "{{ ns | tojson }}", "{{ ns == namespace(a=1) }}"]
        {
            cases.push((format!("{cyclic}{grown}{used}"), inside));
        }
    }
    let deeper = "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{{ ns.x ~ '' }}";
    cases.push((deeper.to_owned(), DEEP));
    cases.push((deeper.replace("[ns.x]", "{'a': ns.x}"), DEEP));
    let straight = format!("{{% set x = [] %}}{}{{{{ x }}}}", "{% set x = [x] %}".repeat(50_000));
    cases.push((straight, DEEP));
    let called = "{% macro m(x) %}{{ m([[[[[[[[x]]]]]]]]) }}{% endmacro %}{{ m([]) }}";
    cases.push((called.to_owned(), DEEP));
    refused_with(&cases);
}

#[test]
fn values_that_are_computed_while_they_are_read_do_not_pile_up() {
    let piled = |step: &str| {
        format!(
            "{{% set ns = namespace(x=[1, 2, [3]]) %}}{{% for i in range(20000) %}}\
             {{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x ~ '' }}}}"
        )
    };
    for step in ["ns.x[0:]", "ns.x[::-1][::-1]", "ns.x + []", "ns.x * 1", "ns.x | reverse | list"] {
        assert_eq!(rendered(&piled(step)).unwrap(), "[1, 2, [3]]", "{step}");
    }
    let mapped = piled("ns.x | map('list') | list").replace("[1, 2, [3]]", "[[1], [2]]");
    assert_eq!(rendered(&mapped).unwrap(), "[[1], [2]]");
}

#[test]
fn a_source_that_nests_too_deep_or_is_too_long_is_refused() {
    let many = |open: &str, close: &str, times: usize| {
        format!("{{{{ {}1{} }}}}", open.repeat(times), close.repeat(times))
    };
    let conditions = "{% elif a %}b".repeat(60_000);
    refused_with(&[
        (many("(", ")", 29_000), DEEP),
        (many("[", "]", 29_000), DEEP),
        (many("not ", "", 29_000), DEEP),
        (many("-", "", 29_000), DEEP),
        (many("1 + ", "", 29_000), DEEP),
        (many("", "|trim", 29_000), DEEP),
        (many("", "[0]", 29_000), DEEP),
        (many("", " if a", 29_000), DEEP),
        (many("(", ")", 200), "recursion"),
        (format!("{{% if a %}}{conditions}{{% endif %}}"), DEEP),
        (format!("{{% set {}a{} = 1 %}}", "(".repeat(29_000), ")".repeat(29_000)), DEEP),
        ("{% if a %}".repeat(29_000), "recursion"),
        ("x".repeat((1 << 20) + 1), "at most 1048576 are read"),
    ]);
}

#[test]
fn a_text_longer_than_anybody_reads_is_refused() {
    refused_with(&[(
        "{{ 'x' * 2000000 }}".to_owned(),
        "renders 7 bytes as a text of 2000000 bytes",
    )]);
}

#[test]
fn an_exception_of_a_megabyte_is_told_in_a_line() {
    refused_with(&[(
        "{{ raise_exception('x' * 1000000) }}".to_owned(),
        "xxx… (1000000 characters)",
    )]);
}

#[test]
fn deep_and_long_templates_that_mean_no_harm_are_rendered() {
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(60), ")".repeat(60));
    assert_eq!(rendered(&brackets).unwrap(), "1");
    let sum = format!("{{{{ {}1 }}}}", "1 + ".repeat(900));
    assert_eq!(rendered(&sum).unwrap(), "901");
    let nots = format!("{{{{ {}true }}}}", "not ".repeat(1800));
    assert_eq!(rendered(&nots).unwrap(), "True");
    let conditions = "{% elif messages | length == 3 %}b".repeat(1500);
    let choice = format!("{{% if not messages %}}a{conditions}{{% else %}}c{{% endif %}}");
    assert_eq!(rendered(&choice).unwrap(), "c");
    let list = format!("{{{{ [{}] | length }}}}", "'item', ".repeat(9000));
    assert_eq!(rendered(&list).unwrap(), "9000");
    let loops = "{% set ns = namespace(n=0) %}{% for a in range(300) %}{% for b in range(300) %}\
                 {% set ns.n = ns.n + 1 %}{% endfor %}{% endfor %}{{ ns.n }}";
    assert_eq!(rendered(loops).unwrap(), "90000");
    let schema = "{% macro m(n) %}[{% if n %}{{ m(n - 1) }}{% endif %}]{% endmacro %}{{ m(40) }}";
    assert_eq!(rendered(schema).unwrap(), format!("{}{}", "[".repeat(41), "]".repeat(41)));
    let nested = format!("{{% set x = [] %}}{}", "{% set x = [x] %}".repeat(150));
    let brackets = format!("{}{}", "[".repeat(151), "]".repeat(151));
    for used in ["{{ x }}", "{{ x ~ '' }}", "{{ x | tojson }}", "{{ x | string }}"] {
        assert_eq!(rendered(&format!("{nested}{used}")).unwrap(), brackets);
    }
    assert_eq!(
        rendered(&format!("{nested}{{{{ x == [x] }}}}{{{{ x == x }}}}")).unwrap(),
        "FalseTrue"
    );
}

#[test]
fn a_conversation_of_megabytes_is_rendered() {
    let source = "{% for m in messages %}{% set content = m.content | trim %}<{{ m.role }}>\
                  {{ content.strip() + eos_token }}{% endfor %}{{ messages[1:] | length }}";
    let source = ChatTemplateSource {
        file: "file",
        source: source.to_owned(),
        special_tokens: vec![("eos_token".to_owned(), "</s>".to_owned())],
    };
    let template = ChatTemplate::new(&source).unwrap();
    let turn = |content: String| Message::new(Role::User, content);
    let long: Vec<Message> = (0..3).map(|_| turn("word ".repeat(1 << 20))).collect();
    assert!(template.render(&long, false).unwrap().len() > 15 << 20);
    let many: Vec<Message> = (0..20_000).map(|n| turn(n.to_string())).collect();
    assert!(template.render(&many, false).unwrap().ends_with("<user>19999</s>19999"));
}

/// Pieces that templates are made of, put together without sense.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{#",
        "#}",
        "{%- ",
        " -%}",
        "set ",
        "ns",
        "x",
        "messages",
        " = ",
        "namespace(x=x)",
        "ns.x",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "'a'",
        "1",
        "2000000000",
        " ~ ",
        " + ",
        " * ",
        " ** ",
        " == ",
        " in ",
        "|",
        "tojson",
        "join",
        "indent",
        "list",
        "string",
        "map('list')",
        "batch",
        "(9)",
        ", ",
        ": ",
        ".",
        "for ",
        "if ",
        "elif ",
        "else",
        "endfor",
        "endif",
        "endset",
        "macro m(x)",
        "endmacro",
        "m(x)",
        "range(99999)",
        "loop",
        "loop(x)",
        "recursive",
        "not ",
        "-",
        "is ",
        "defined",
        "call ",
        "filter ",
        "with ",
        "endwith",
        "generation",
        "raw",
        "endraw",
        "\n",
        "{% set ns = namespace(x=[1]) %}",
        "{% for x in range(99999) %}",
        "{% endfor %}",
        "{% set ns.x = [ns.x, ns] %}",
        "{% set ns.x = ns.x ~ ns.x %}",
        "{{ ns }}",
        "{% set x = x * 9 %}",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn templates_without_sense_neither_panic_nor_hang(
        pieces in prop::collection::vec(piece(), 0..40),
    ) {
        let source = pieces.concat();
        let begin = Instant::now();
        if let Err(error) = rendered(&source) {
            prop_assert!(!error.contains("cannot handle it"), "{source}: {error}");
        }
        prop_assert!(begin.elapsed() < Duration::from_secs(20), "{source}");
    }
}
