//! Chat templates and prompt templates that want all time or all memory.

use super::Bomb;

const CHAT: &[&str] =
    &["generate", "--model", "model", "--chat", "--prompt", "Mira", "--max-new-tokens", "2"];

/// Hostile templates by name.
fn hostile() -> Vec<(&'static str, String)> {
    let double = "{% set x = namespace(v='x') %}{% for i in range(64) %}\
                  {% set x.v = x.v ~ x.v %}{% endfor %}";
    let list = "{% set x = namespace(v=[1]) %}{% for i in range(64) %}\
                {% set x.v = x.v + x.v %}{% endfor %}";
    let cycle = "{% set x = namespace() %}{% set x.me = x %}";
    let nested_macro = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let loops = |depth: usize| {
        let open = "{% for i in range(100000) %}".repeat(depth);
        let close = "{% endfor %}".repeat(depth);
        format!("{open}x{close}")
    };
    vec![
        ("nested ranges", loops(8)),
        ("doubling text", format!("{double}{{{{ x.v | length }}}}")),
        ("doubling list", format!("{list}{{{{ x.v | length }}}}")),
        ("text times a number", "{{ 'x' * 100000000000 }}".to_owned()),
        ("list times a number", "{{ ([1] * 100000000000) | length }}".to_owned()),
        ("indent", "{{ 'a\nb' | indent(2000000000) }}".to_owned()),
        ("center", "{{ 'a' | center(2000000000) }}".to_owned()),
        ("ljust", "{{ 'a'.ljust(20000000000) }}".to_owned()),
        ("zfill", "{{ 'a'.zfill(20000000000) }}".to_owned()),
        ("format", "{{ '%20000000000d' | format(1) }}".to_owned()),
        ("range", "{{ range(10000000000) | list | length }}".to_owned()),
        (
            "replace",
            "{% set x = 'a' * 100000 %}{{ x | replace('a', x) | replace('a', x) }}".to_owned(),
        ),
        ("join", "{{ range(100000) | join('x' * 100000) | length }}".to_owned()),
        ("tojson with a wide indent", "{{ [[1]] | tojson(indent=2000000000) }}".to_owned()),
        ("deep parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(29_000), ")".repeat(29_000))),
        ("deep list", format!("{{{{ {}{} }}}}", "[".repeat(29_000), "]".repeat(29_000))),
        ("deep not", format!("{{{{ {}1 }}}}", "not ".repeat(29_000))),
        ("deep minus", format!("{{{{ {}1 }}}}", "-".repeat(29_000))),
        ("deep if", format!("{}{}", "{% if 1 %}".repeat(29_000), "{% endif %}".repeat(29_000))),
        ("deep filter", format!("{{{{ 1{} }}}}", "|string".repeat(29_000))),
        ("deep attribute", format!("{{{{ a{} }}}}", ".a".repeat(29_000))),
        ("deep sum", format!("{{{{ 1{} }}}}", "+1".repeat(29_000))),
        ("printing itself", format!("{cycle}{{{{ x }}}}")),
        ("itself as JSON", format!("{cycle}{{{{ x | tojson }}}}")),
        ("itself as text", format!("{cycle}{{{{ x | string | length }}}}")),
        ("itself compared", format!("{cycle}{{{{ x == x }}}}")),
        ("itself sorted", format!("{cycle}{{{{ [x, x] | sort }}}}")),
        ("macro without an end", nested_macro.to_owned()),
        ("including itself", "{% include 'chat template' %}".to_owned()),
        ("power", "{{ 9 ** 9 ** 9 }}".to_owned()),
        (
            "large numbers",
            "{{ 99999999999999999999999999999999999999 * 99999999999999999999999 }}".to_owned(),
        ),
        ("control codes", "{{ raise_exception('\u{1b}[31mred') }}".to_owned()),
        ("control codes in an error", "{{ undefined_\u{1b}[31m }}".to_owned()),
    ]
}

/// Each as a model's chat template and as a run's prompt template.
pub(super) fn all() -> Vec<Bomb> {
    let mut all = Vec::new();
    for (name, template) in hostile() {
        let chat = format!("chat template: {name}");
        let path = "model/chat_template.jinja";
        all.push(Bomb::text(chat, &["model"], path, template.clone(), CHAT).or_taken());
        let quoted = serde_json::Value::from(template).to_string();
        let text = format!(
            "[model]\npath = \"builtin:village\"\n[data]\ntrain = \"questions.jsonl\"\n\
             template = {quoted}\n[policy]\nkind = \"all\"\n[train]\nsteps = 1\nbatch = 1\n"
        );
        let prompt = format!("prompt template: {name}");
        let arguments = ["train", "hostile.toml", "--output", "fresh"];
        let needs = &["questions.jsonl"];
        all.push(Bomb::text(prompt, needs, "hostile.toml", text, &arguments).or_taken());
    }
    all
}
