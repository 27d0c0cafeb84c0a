//! Conversations: `generate --chat`, stop texts, several prompts, `ist chat`, and training on
//! conversations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::Workbench;
use serde_json::{Value, json};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}### {{ m.role | title }}:\n\
                        {{ m.content }}\
                        {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\
                        {{ '\n\n' }}{% endfor %}\
                        {% if add_generation_prompt %}### Assistant:\n{{ '' }}{% endif %}";

/// A bench with the built-in model in the folder `model`, with a chat template.
fn bench() -> Workbench {
    let bench = Workbench::new("");
    std::fs::create_dir(bench.path("model")).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/village");
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(model.join(name), bench.path("model").join(name)).unwrap();
    }
    let config =
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE});
    bench.write("model/tokenizer_config.json", &config.to_string());
    bench
}

fn generate(bench: &Workbench, rest: &[&str]) -> Value {
    bench.json(
        &[&["generate", "--model", "model", "--max-new-tokens", "12", "--json"][..], rest].concat(),
    )
}

/// What `ist chat` writes to stdout and stderr when it is given these lines.
fn chat(bench: &Workbench, arguments: &[&str], lines: &[&str], code: i32) -> (String, String) {
    let mut command = bench.ist(&[&["chat"][..], arguments].concat());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that was refused no longer reads.
    let _ = child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    (stdout, stderr)
}

const MODEL: [&str; 4] = ["--model", "model", "--max-new-tokens", "12"];

#[test]
fn a_chat_prompt_is_what_the_template_renders() {
    let bench = bench();
    let prompt = "### User:\nWho has a kite?\n\n### Assistant:\n";
    let chatted = generate(&bench, &["--chat", "--prompt", "Who has a kite?"]);
    assert_eq!(chatted, generate(&bench, &["--prompt", prompt]));
    assert_eq!(chatted["prompt_ids"].as_array().unwrap().iter().filter(|id| **id == 0).count(), 1);
    let system =
        generate(&bench, &["--chat", "--system", "Be brief.", "--prompt", "Who has a kite?"]);
    let prompt = format!("### System:\nBe brief.\n\n{prompt}");
    assert_eq!(system["prompt_ids"], generate(&bench, &["--prompt", &prompt])["prompt_ids"]);
}

#[test]
fn a_stop_text_ends_the_text_before_it() {
    let bench = bench();
    let whole = generate(&bench, &["--prompt", "Mira has a kite."]);
    let text = whole["text"].as_str().unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let stop = format!(" {}", words[3]);
    let stopped = generate(
        &bench,
        &["--prompt", "Mira has a kite.", "--stop", "never written", "--stop", &stop],
    );
    assert_eq!(stopped["text"], text.split(&stop).next().unwrap());
    let ids = |document: &Value| document["output_ids"].as_array().unwrap().clone();
    assert!(ids(&stopped).len() < ids(&whole).len() && ids(&whole).starts_with(&ids(&stopped)));
}

#[test]
fn several_prompts_give_what_each_gives_alone() {
    let bench = bench();
    let prompts = ["Mira has a kite.", "The baker", "Where is the small brown dog of the miller?"];
    let each: Vec<Value> =
        prompts.iter().map(|prompt| generate(&bench, &["--prompt", prompt])).collect();
    let arguments: Vec<&str> = prompts.iter().flat_map(|prompt| ["--prompt", prompt]).collect();
    let mut together = generate(&bench, &arguments);
    let outputs = together.as_object_mut().unwrap().remove("outputs").unwrap();
    assert_eq!(together, each[0]);
    assert_eq!(outputs, json!(each));
    let plain =
        [&["generate", "--model", "model", "--max-new-tokens", "12"][..], &arguments].concat();
    let stdout = String::from_utf8(bench.run(&plain, 0).stdout).unwrap();
    let texts: Vec<&str> = each.iter().map(|output| output["text"].as_str().unwrap()).collect();
    assert_eq!(stdout, texts.join("\n---\n") + "\n");
}

#[test]
fn a_conversation_answers_as_its_laid_out_text_is_continued() {
    let bench = bench();
    let (answers, notes) =
        chat(&bench, &[&MODEL[..], &["-v"]].concat(), &["Who has a kite?", "And who else?"], 0);
    let first = generate(&bench, &["--chat", "--prompt", "Who has a kite?"]);
    let first_text = first["text"].as_str().unwrap();
    let end =
        if first["output_ids"].as_array().unwrap().last() == Some(&json!(1)) { "" } else { "</s>" };
    assert_eq!(end, "</s>", "this test wants an answer that was cut");
    let prompt = format!(
        "### User:\nWho has a kite?\n\n### Assistant:\n{first_text}</s>\n\n### User:\n\
         And who else?\n\n### Assistant:\n"
    );
    let second = generate(&bench, &["--prompt", &prompt]);
    assert_eq!(answers, format!("{first_text}\n{}\n", second["text"].as_str().unwrap()));
    // The first answer's last token was produced but not read.
    let read = first["prompt_ids"].as_array().unwrap().len()
        + first["output_ids"].as_array().unwrap().len()
        - 1;
    let of = second["prompt_ids"].as_array().unwrap().len();
    assert!(notes.contains(&format!("({read} of {of} tokens were read before)")), "{notes}");
    assert!(
        notes.contains("the model's chat template") && notes.contains("(cut after 12 tokens)"),
        "{notes}"
    );
}

#[test]
fn reset_forgets_the_turns_and_keeps_the_system() {
    let bench = bench();
    let lines = [
        "/system Be brief.",
        "Who has a kite?",
        "And who else?",
        "",
        "/reset",
        "Who has a kite?",
        "/exit",
        "no",
    ];
    let (answers, _) = chat(&bench, &MODEL, &lines, 0);
    let alone =
        generate(&bench, &["--chat", "--system", "Be brief.", "--prompt", "Who has a kite?"]);
    let first = alone["text"].as_str().unwrap().to_owned() + "\n";
    assert!(
        answers.starts_with(&first) && answers.ends_with(&first) && answers.len() > 2 * first.len(),
        "{answers}"
    );
    let system = [&MODEL[..], &["--system", "Be brief."]].concat();
    assert_eq!(chat(&bench, &system, &lines[1..2], 0).0, first);
}

#[test]
fn draws_differ_from_turn_to_turn_and_not_from_run_to_run() {
    let bench = bench();
    let drawn = [&MODEL[..], &["--temperature", "1.0", "--seed", "3"]].concat();
    let lines = ["Who has a kite?", "/reset", "Who has a kite?"];
    let answer = |seed: &str| {
        let arguments = ["--chat", "--prompt", lines[0], "--temperature", "1.0", "--seed", seed];
        generate(&bench, &arguments)["text"].as_str().unwrap().to_owned() + "\n"
    };
    assert_eq!(chat(&bench, &drawn, &lines, 0).0, answer("3") + &answer("4"));
    assert_ne!(answer("3"), answer("4"));
}

#[test]
fn a_model_without_a_chat_template_converses_in_the_default_layout() {
    let bench = Workbench::new("");
    let (answers, notes) = chat(
        &bench,
        &["--model", "builtin:village", "--max-new-tokens", "12"],
        &["Who has a kite?"],
        0,
    );
    assert!(
        notes.contains("the default layout (### User:), since the model has no chat template"),
        "{notes}"
    );
    let prompt = "### User:\nWho has a kite?\n\n### Assistant:\n";
    let arguments = ["--model", "builtin:village", "--max-new-tokens", "12", "--prompt", prompt];
    let generated = bench.run(&[&["generate"][..], &arguments].concat(), 0).stdout;
    assert_eq!(answers, String::from_utf8(generated).unwrap());
    let quiet = ["--model", "builtin:village", "--max-new-tokens", "1", "--quiet"];
    assert_eq!(chat(&bench, &quiet, &["Hi"], 0).1, "");
}

#[test]
fn a_full_context_forgets_the_oldest_turns() {
    let bench = bench();
    let line = "the kite of the baker ".repeat(20);
    let long = ["--model", "model", "--max-new-tokens", "100"];
    let (answers, notes) = chat(&bench, &long, &[line.as_str(); 5], 0);
    assert!(answers.lines().count() >= 5);
    assert!(
        notes.contains("context of 512 positions is full: the oldest 2 turns were forgotten"),
        "{notes}"
    );
    let (_, message) = chat(&bench, &long, &[&"the kite of the baker ".repeat(200)], 2);
    assert!(
        message.contains("context of 512 positions is to leave 100 for the answer"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_is_told_with_exit_code_2() {
    let bench = bench();
    let model = ["generate", "--model", "model"];
    let cases: [(&[&str], &str); 8] = [
        (
            &["generate", "--model", "builtin:village", "--chat", "--prompt", "Hi"],
            "has no chat template",
        ),
        (&["generate", "--model", "model", "--prompt", "Hi", "--system", "x"], "--chat"),
        (&["generate", "--model", "model", "--chat", "--input-ids", "5"], "--input-ids"),
        (
            &["generate", "--model", "model", "--prompt", "Hi", "--stop", ""],
            "--stop must not be empty",
        ),
        (&["generate", "--model", "model"], "--prompt"),
        (&["chat", "--model", "model", "--max-new-tokens", "0"], "--max-new-tokens"),
        (&["chat", "--model", "model", "--temperature", "-1"], "--temperature"),
        (&["chat"], "--model"),
    ];
    for (arguments, reason) in cases {
        let message = bench.refused(arguments);
        assert!(message.contains(reason), "{arguments:?} should say {reason}: {message}");
    }
    assert!(chat(&bench, &MODEL, &["/quit"], 2).1.contains("unknown command /quit"));
    let refusing = "{{ raise_exception('Not today') }}";
    for (template, reason) in [
        (refusing, "Not today"),
        ("{% for", "syntax error"),
        ("{{ messages.nothing.at_all }}", "undefined"),
    ] {
        bench.write("model/chat_template.jinja", template);
        let message = bench.refused(&[&model[..], &["--chat", "--prompt", "Hi"]].concat());
        assert!(message.contains("chat_template.jinja") && message.contains(reason), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        chat(&bench, &MODEL, &["Hi"], 2);
    }
}

/// A run on conversations: its notes on stderr and the template in its resolved configuration.
fn train(bench: &Workbench, name: &str, settings: &[&str]) -> (String, String) {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> =
        ["train", "run.toml", "--output", name].into_iter().chain(settings).collect();
    let notes = String::from_utf8(bench.run(&arguments, 0).stderr).unwrap();
    let config = bench.read(&format!("{name}/config.toml"));
    let template = config.lines().find(|line| line.starts_with("template")).unwrap().to_owned();
    (notes, template)
}

#[test]
fn conversations_are_trained_on_in_the_models_own_template() {
    let bench = bench();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let record = |n: usize| {
        let turns = [
            ("user", "Who has a kite?"),
            ("assistant", "Mira"),
            ("user", "And who else?"),
            ("assistant", "Otto"),
        ];
        let turns = turns.map(|(role, content)| turn(role, &format!("{content} {n}")));
        json!({"messages": turns}).to_string() + "\n"
    };
    bench.write("chat.jsonl", &(0..12).map(record).collect::<String>());
    let common = ["data.train=\"chat.jsonl\"", "train.steps=2", "data.train_on_inputs=false"];
    let settings = |extra: &'static [&'static str]| [&common[..], extra].concat();
    let (notes, template) = train(&bench, "own", &settings(&["model.path=\"model\""]));
    assert!(notes.contains("the model's chat template (tokenizer_config.json)"), "{notes}");
    assert_eq!(template, "template = \"chat\"");
    bench.run(&["train", "own/config.toml", "--output", "again", "--quiet"], 0);
    let logs = ["own", "again"].map(|name| common::log(&bench.path(name), "metrics.jsonl"));
    assert_eq!(logs[0], logs[1]);
    let (notes, template) = train(&bench, "default", &settings(&[]));
    assert!(
        notes.contains("default layout (### User:); the model has no chat template"),
        "{notes}"
    );
    assert_eq!(template, "template = \"alpaca\"");
    let alpaca = settings(&["model.path=\"model\"", "data.template=alpaca"]);
    assert!(train(&bench, "alpaca", &alpaca).0.contains("not the model's chat template"));
    let refused =
        bench.refused(&["train", "run.toml", "--set", common[0], "--set", "data.template=chat"]);
    assert!(refused.contains("has no chat template"), "{refused}");
}
