//! Documents that are deep, long, or full of numbers that no program expects.

use serde_json::json;

use super::{Bomb, Content};

const TRAIN: &[&str] = &["train", "local.toml", "--output", "fresh"];
const PLAN: &[&str] = &["plan", "run.toml"];
const SCORE: &[&str] =
    &["score", "--model", "builtin:village", "--adapter", "adapter", "--tokens", "train.jsonl"];
const INSPECT: &[&str] = &["inspect", "model"];
const GENERATE: &[&str] =
    &["generate", "--model", "model", "--prompt", "Mira", "--max-new-tokens", "2"];
const REPORT: &[&str] = &["report", "run"];
const TEXTS: &[&str] = &["local.toml", "train.jsonl", "questions.jsonl"];
const ADAPTER: &[&str] = &["train.jsonl", "adapter"];
/// How deep a deep document is.
const DEEP: usize = 100_000;
/// How many pieces a long document has.
const LONG: usize = 64 << 20;

/// All documents.
pub(super) fn all() -> Vec<Bomb> {
    let groups = [records(), configurations(), models(), adapters(), runs(), tensors()];
    groups.into_iter().flatten().collect()
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + &close.repeat(depth)
}

/// A text with ESC in it, which must not reach a terminal.
const CONTROL: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m";

fn records() -> Vec<Bomb> {
    let data = |name: &str, text: String| Bomb::text(name, TEXTS, "train.jsonl", text, TRAIN);
    let long = |name: &str, [begin, piece, end]: [&'static str; 3]| {
        let content = Content::Repeated { begin, piece, count: LONG, end };
        Bomb::file(name, TEXTS, "train.jsonl", content, TRAIN)
    };
    let ids = |ids: &str| format!("{{\"input_ids\": {ids}}}\n");
    vec![
        data("deep record", ids(&nested("[", "]", DEEP))),
        data("deep array of records", nested("[", "]", DEEP)),
        data("deep object", nested("{\"text\":", "}", DEEP)),
        data("open brackets", "[".repeat(DEEP)),
        data("number beyond all", ids("[1e999, 2]")),
        data("id beyond all", ids("[99999999999999999999999999, 2]")),
        data("negative id", ids("[-1, 2, 3]")),
        data("id of 2^32", ids("[4294967296, 2, 3]")),
        data("control codes", format!("{{\"{}\": 1}}\n", CONTROL.escape_default())),
        data("raw control codes", format!("{{\"text\": \"{CONTROL}\"}}\n")),
        long("empty line after line", ["", "\n", ""]),
        long("line without an end", ["{\"text\": \"", "x", ""]),
        long("one long text", ["{\"text\": \"", "x", "\"}\n"]).or_taken(),
        data("one key a thousand times", {
            let keys = "\"text\": \"x\", ".repeat(1000);
            format!("{{{keys}\"text\": \"x\"}}\n")
        }),
        Bomb::file(
            "Parquet of many equal rows",
            TEXTS,
            "train.jsonl",
            Content::Rows(20_000_000),
            TRAIN,
        ),
    ]
}

fn configurations() -> Vec<Bomb> {
    let run = |name: &str, text: String| Bomb::text(name, TEXTS, "run.toml", text, PLAN);
    vec![
        run("deep array in TOML", format!("a = {}", nested("[", "]", DEEP))),
        run("deep table in TOML", format!("a = {}", nested("{a=", "}", DEEP))),
        run("deep key in TOML", format!("{} = 1", vec!["a"; DEEP].join("."))),
        run("deep header in TOML", format!("[{}]", vec!["a"; DEEP].join("."))),
        run("unknown key of a megabyte", format!("{} = 1", "a".repeat(1 << 20))),
        run("control codes in a key", format!("\"{}\" = 1", CONTROL.escape_default())),
        run("control codes raw in a value", "seed = \"\\u001b[31m\"".to_owned()),
        run("a hundred thousand unknown keys", (0..DEEP).map(|n| format!("k{n} = 1\n")).collect()),
        run("extends itself", "extends = \"run.toml\"\n".to_owned()),
    ]
}

fn models() -> Vec<Bomb> {
    let model = |name: &str, file: &str, text: String| {
        Bomb::text(name, &["model"], &format!("model/{file}"), text, GENERATE)
    };
    let shape = |key: &str, value: &str| {
        let fields = [
            ("model_type", "\"llama\""),
            ("architectures", "[\"LlamaForCausalLM\"]"),
            ("hidden_size", "16"),
            ("intermediate_size", "32"),
            ("num_hidden_layers", "2"),
            ("num_attention_heads", "2"),
            ("num_key_value_heads", "2"),
            ("max_position_embeddings", "64"),
            ("vocab_size", "300"),
            ("rms_norm_eps", "1e-5"),
            ("rope_theta", "10000.0"),
            ("tie_word_embeddings", "true"),
        ];
        let value_of =
            |own: &str, old: &str| if own == key { value.to_owned() } else { old.to_owned() };
        let fields: Vec<String> =
            fields.iter().map(|(own, old)| format!("\"{own}\": {}", value_of(own, old))).collect();
        format!("{{{}}}", fields.join(", "))
    };
    let mut all = vec![
        model("deep config.json", "config.json", nested("[", "]", DEEP)),
        model("deep tokenizer.json", "tokenizer.json", nested("{\"a\":", "}", DEEP)),
        model("deep tokenizer_config.json", "tokenizer_config.json", nested("[", "]", DEEP)),
        model("index that leads out", "model.safetensors.index.json", {
            "{\"weight_map\": {\"a\": \"../../x.safetensors\"}}".to_owned()
        }),
        model("index that leads to the root", "model.safetensors.index.json", {
            "{\"weight_map\": {\"a\": \"/etc/passwd\"}}".to_owned()
        }),
        model("end tokens beyond all", "generation_config.json", {
            "{\"eos_token_id\": [18446744073709551615, -1, 1e99]}".to_owned()
        })
        .or_taken(),
    ];
    for key in [
        "num_hidden_layers",
        "hidden_size",
        "vocab_size",
        "num_attention_heads",
        "intermediate_size",
        "num_key_value_heads",
        "max_position_embeddings",
    ] {
        for value in ["0", "-1", "1000000000", "18446744073709551615", "1e400", "null", "\"2\""] {
            let text = shape(key, value);
            for arguments in [INSPECT, GENERATE] {
                let name = format!("{key} = {value}, {}", arguments[0]);
                let bomb =
                    Bomb::text(name, &["model"], "model/config.json", text.clone(), arguments);
                // A description of a large model is no harm, and some keys have defaults.
                all.push(bomb.or_taken());
            }
        }
    }
    all.extend(tokenizers());
    all
}

fn tokenizers() -> Vec<Bomb> {
    let tokenizer = |name: &str, decoder: String, truncation: &str, padding: &str| {
        let model = json!({"type": "WordLevel", "vocab": {"Mira": 0, "b": 5}, "unk_token": "b"});
        let text = format!(
            "{{\"version\": \"1.0\", \"truncation\": {truncation}, \"padding\": {padding}, \
             \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": null, \
             \"post_processor\": null, \"decoder\": {decoder}, \"model\": {model}}}"
        );
        Bomb::text(name, &["model"], "model/tokenizer.json", text, GENERATE).or_taken()
    };
    let sequence = |depth| {
        let open = "{\"type\": \"Sequence\", \"decoders\": [";
        format!("{}{{\"type\": \"Fuse\"}}{}", open.repeat(depth), "]}".repeat(depth))
    };
    let cut = |length: &str, stride: &str| {
        format!(
            "{{\"direction\": \"Right\", \"max_length\": {length}, \"strategy\": \"LongestFirst\", \
             \"stride\": {stride}}}"
        )
    };
    let pad = |length: &str| {
        format!(
            "{{\"strategy\": {{\"Fixed\": {length}}}, \"direction\": \"Right\", \
             \"pad_to_multiple_of\": null, \"pad_id\": 0, \"pad_type_id\": 0, \
             \"pad_token\": \"b\"}}"
        )
    };
    let none = || "null".to_owned();
    vec![
        tokenizer("decoder 60 deep", sequence(60), "null", "null"),
        tokenizer("decoder 200 deep", sequence(200), "null", "null"),
        tokenizer("stride of the length", none(), &cut("4", "4"), "null"),
        tokenizer("stride beyond the length", none(), &cut("0", "9"), "null"),
        tokenizer("truncation beyond all", none(), &cut("1e999", "0"), "null"),
        tokenizer("padding beyond all", none(), "null", &pad("18446744073709551615")),
        tokenizer("padding of a gigabyte", none(), "null", &pad("1000000000")),
    ]
}

fn adapters() -> Vec<Bomb> {
    let adapter = |name: &str, text: String| {
        Bomb::text(name, ADAPTER, "adapter/adapter_config.json", text, SCORE)
    };
    let lora = |key: &str, value: &str| {
        let fields = [
            ("r", "2"),
            ("lora_alpha", "4"),
            ("lora_dropout", "0.1"),
            ("target_modules", "[\"q_proj\"]"),
        ];
        let of = |own: &str, old: &str| if own == key { value.to_owned() } else { old.to_owned() };
        let known: Vec<String> =
            fields.iter().map(|(own, old)| format!("\"{own}\": {}", of(own, old))).collect();
        let extra = if fields.iter().any(|(own, _)| *own == key) {
            String::new()
        } else {
            format!(", \"{key}\": {value}")
        };
        format!("{{\"peft_type\": \"LORA\", {}{extra}}}", known.join(", "))
    };
    let mut all = vec![
        adapter("deep adapter_config.json", nested("[", "]", DEEP)),
        adapter("control codes in a field", lora(&CONTROL.escape_default().to_string(), "1")),
        adapter("pattern that never ends", lora("target_modules", "\"(a*)*b|(.*)*x\"")),
        adapter(
            "pattern that is long",
            lora("target_modules", &format!("\"{}\"", "(a".repeat(5000))),
        ),
        adapter(
            "pattern that repeats",
            lora("target_modules", "\"((a{1,1000}){1,1000}){1,1000}\""),
        ),
    ];
    for value in ["0", "-1", "1000000000", "18446744073709551615", "1e400"] {
        all.push(adapter(&format!("r = {value}"), lora("r", value)));
        all.push(
            adapter(
                &format!("layers_to_transform = {value}"),
                lora("layers_to_transform", &format!("[{value}]")),
            )
            .or_taken(),
        );
        all.push(adapter(&format!("lora_alpha = {value}"), lora("lora_alpha", value)));
    }
    all
}

fn runs() -> Vec<Bomb> {
    let run = |name: &str, file: &str, text: String| {
        // A report leaves out, with a note, what it cannot use.
        Bomb::text(name, &["run"], &format!("run/{file}"), text, REPORT).or_taken()
    };
    let steps = |line: &dyn Fn(u64) -> String| (0..10).map(|step| line(step) + "\n").collect();
    vec![
        run("deep metrics", "metrics.jsonl", nested("[", "]", DEEP)),
        run("deep result", "result.json", nested("{\"a\":", "}", DEEP)),
        run(
            "step beyond all",
            "metrics.jsonl",
            "{\"step\": 18446744073709551615, \"loss\": 1.0}\n".to_owned(),
        ),
        run("negative step", "metrics.jsonl", "{\"step\": -1, \"loss\": 1.0}\n".to_owned()),
        run(
            "loss beyond all",
            "metrics.jsonl",
            steps(&|step| format!("{{\"step\": {step}, \"loss\": 1e308}}")),
        ),
        run(
            "layer beyond all",
            "selections.jsonl",
            steps(&|step| format!("{{\"step\": {step}, \"layers\": [18446744073709551615]}}")),
        ),
        run(
            "layer of a billion",
            "selections.jsonl",
            steps(&|step| format!("{{\"step\": {step}, \"layers\": [1000000000]}}")),
        ),
        run("scores of many layers", "importance.jsonl", {
            let scores = vec![1.0; 2_000_000];
            let line = json!({"step": 0, "records": [], "suppressed": [], "losses": [],
                              "rewards": [], "scores": scores});
            line.to_string() + "\n"
        }),
        run(
            "script in a name",
            "config.toml",
            "[model]\npath = \"<script>alert(1)</script>\"\n".to_owned(),
        ),
        run(
            "many steps",
            "metrics.jsonl",
            (0..400_000).map(|step| format!("{{\"step\": {step}, \"loss\": 1.0}}\n")).collect(),
        ),
    ]
}

fn tensors() -> Vec<Bomb> {
    let file = |name: &str, bytes: Vec<u8>| {
        Bomb::file(name, ADAPTER, "adapter/adapter_model.safetensors", Content::Bytes(bytes), SCORE)
    };
    let with_header = |header: &str, length: u64, data: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let header = |header: &str| with_header(header, header.len() as u64, 0);
    let entry = |shape: &[u64], data_offsets: [u64; 2]| {
        let dtype = "F32";
        json!({"dtype": dtype, "shape": shape, "data_offsets": data_offsets})
    };
    let tensor = |shape: &[u64], offsets| json!({"a": entry(shape, offsets)}).to_string();
    let many = (0..DEEP).map(|n| (format!("t{n}"), entry(&[0], [0, 0]))).collect();
    vec![
        file("header beyond all", with_header("{}", u64::MAX, 0)),
        file("header of 99 MB that is not there", with_header("{}", 99 << 20, 0)),
        file("header of 99 MB of spaces", header(&("{".to_owned() + &" ".repeat(99 << 20) + "}"))),
        file("deep header", header(&nested("{\"a\":", "}", DEEP))),
        file("shape whose product overflows", header(&tensor(&[1 << 32, 1 << 32, 4], [0, 0]))),
        file("offsets beyond all", header(&tensor(&[1], [u64::MAX - 3, u64::MAX]))),
        file("shape of many dimensions", header(&tensor(&vec![0; 1_000_000], [0, 0]))),
        file("a hundred thousand tensors", header(&serde_json::Value::Object(many).to_string())),
    ]
}
