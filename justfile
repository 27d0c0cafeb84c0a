# Shorthands for the commands of this repository; `just` lists them. Each line also works by itself.

_default:
    @just --list

# The `ist` command, optimised
build:
    cargo build --release --locked

# Every test, with the examples of the documentation
test:
    cargo test --release --workspace

# Formatting and clippy
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked -- -D warnings

# The API's documentation
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked

# The book, into target/book (needs mdbook)
book:
    mdbook build docs

# Fine-tune the built-in model with LoRA and IST
quickstart *ARGS:
    cargo run --release -- train experiments/quickstart.toml {{ARGS}}

# Rewrite the parity fixtures with PyTorch, transformers and PEFT (Python 3.11; nothing else here needs Python)
fixtures:
    python3 -m venv .venv
    .venv/bin/pip install -r crates/ist-models/tests/fixtures/requirements.txt
    .venv/bin/python crates/ist-models/tests/fixtures/generate.py

# Rewrite the built-in world's task data
world:
    cargo run --release -- world --output experiments/data

# Memory and throughput: `just bench`, `just bench -- --quick`; one of them: `cargo bench --workspace --bench step`
bench *ARGS:
    cargo bench --locked --workspace --bench '*' {{ARGS}}

# Our step and PyTorch's in turn (Python 3.11; several GB of packages): `just bench-peer --pairs 3`, `--quick` to try it
bench-peer *ARGS:
    cargo build --release --locked --workspace --bins
    python3 -m venv benches/peer/.venv
    benches/peer/.venv/bin/pip install --quiet -r benches/peer/requirements.txt
    benches/peer/.venv/bin/python benches/peer/compare.py {{ARGS}}

# Loading, scoring and generation of ours and of transformers in turn, as `bench-peer`: `just bench-infer --pairs 3`, `--quick`
bench-infer *ARGS:
    cargo build --release --locked --workspace --bins
    python3 -m venv benches/peer/.venv
    benches/peer/.venv/bin/pip install --quiet -r benches/peer/requirements.txt
    benches/peer/.venv/bin/python benches/peer/compare_infer.py {{ARGS}}

# Kills, failing system calls, a full disk, damaged and hostile files: `just fault-campaign --only kills --tries 10000`
fault-campaign *ARGS:
    cargo build --release --locked --workspace --bin ist --bin ist-campaign
    "${CARGO_TARGET_DIR:-target}/release/ist-campaign" faults --ist "${CARGO_TARGET_DIR:-target}/release/ist" {{ARGS}}

# Mutated files for the reader of a format, or of all: `just fuzz records --tries 10000000`, `just fuzz --list`
fuzz *ARGS:
    cargo build --release --locked --workspace --bin ist --bin ist-campaign
    "${CARGO_TARGET_DIR:-target}/release/ist-campaign" fuzz {{ARGS}}

# One portable Linux binary with all backends (CUDA, Vulkan, CPU), in dist/
dist-gpu:
    .ci/dist-gpu

# Training steps of LLaMA-shaped models on a GPU, and PyTorch's beside them: `just bench-gpu dist/ist cuda`
bench-gpu IST DEVICE="cuda":
    benches/gpu.sh {{IST}} {{DEVICE}}

# Figures of the sources and the prose: `just measure`, `just measure --check`, `just measure --json FILE ../ripgrep`
measure *ARGS:
    cargo run --release --locked --package xtask -- measure {{ARGS}}

# Seconds that cargo needs after one edit: `just rebuild --only policy --tries 1`
rebuild *ARGS:
    cargo run --release --locked --package xtask -- rebuild {{ARGS}}

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# Spelling (needs typos)
typos:
    typos

# Everything that continuous integration runs
ci:
    .ci/run
