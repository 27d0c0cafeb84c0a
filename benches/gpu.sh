#!/usr/bin/env bash
# Training steps of LLaMA-shaped models on a GPU: ours, and PyTorch's beside it where it is installed.
#
#   benches/gpu.sh IST [DEVICE]
#
# IST is the `ist` binary, the only thing this needs (`just dist-gpu` packs one that runs anywhere); DEVICE is `cuda` unless
# given. Random weights are made on the device, LoRA r 32, batch 16 x 256, frozen weights in bf16. Variables: SHAPES (names of
# `ist bench`, or paths of config.json), POLICIES, MEMORIES, STEPS, DTYPE, BATCH, SEQ; PYTHON, a Python with torch, transformers
# and peft. Lines of JSON are appended to OUT (default runs/gpu); the table goes to stdout. A setting that fails, for lack of
# memory as a rule, is a row that says so.
set -uo pipefail
IST=${1:?usage: benches/gpu.sh IST [DEVICE]}
DEVICE=${2:-cuda}
HERE=$(cd "$(dirname "$0")" && pwd)
SHAPES=${SHAPES:-1b 7b 8b}
POLICIES=${POLICIES:-all rst ist}
MEMORIES=${MEMORIES:-keep recompute}
STEPS=${STEPS:-20}
DTYPE=${DTYPE:-bfloat16}
BATCH=${BATCH:-16}
SEQ=${SEQ:-256}
PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
mkdir -p "$OUT"

"$IST" devices >&2 || exit
"$IST" selftest --device "$DEVICE" >"$OUT/selftest.txt" || { tail -1 "$OUT/selftest.txt" >&2; exit 1; }
tail -1 "$OUT/selftest.txt" >&2

# Dimensions of a named shape as the peer takes them; those of `ist bench --shape`.
dimensions() {
  case $1 in
    1b) echo --dim 2048 --layers 16 --heads 32 --kv-heads 8 --ffn 8192 --vocab 128256 --tied ;;
    7b) echo --dim 4096 --layers 32 --heads 32 --ffn 11008 --vocab 32000 ;;
    8b) echo --dim 4096 --layers 32 --heads 32 --kv-heads 8 --ffn 14336 --vocab 128256 ;;
    *) return 1 ;;
  esac
}

# How ours is told the shape: by name, or by the path of a config.json, which the peer does not know.
shape() { case $1 in *.json) echo --config "$1" ;; *) echo --shape "$1" ;; esac; }

# The value of a number or string field of a line of JSON.
field() { sed -n "s/.*\"$2\": *\"\{0,1\}\([^,\"}]*\).*/\1/p" <<<"$1"; }

row() {
  local program=$1 shape=$2 policy=$3 memory=$4 line=$5
  if [ -z "$line" ]; then
    echo "| $program | $shape | $policy | $memory | failed | | | |"
    return
  fi
  awk -v program="$program" -v shape="$shape" -v policy="$policy" -v memory="$memory" \
    -v speed="$(field "$line" tokens_per_second)" -v step="$(field "$line" step_ms)" -v peak="$(field "$line" peak_bytes)" \
    -v share="$(field "$line" share_of_peak)" \
    'BEGIN { printf "| %s | %s | %s | %s | %.0f | %.1f | %.1f | %s |\n", program, shape, policy, memory, speed, step, peak / 1073741824,
             share == "" ? "" : sprintf("%.0f %%", 100 * share) }'
}

torch=no
if [ "$DEVICE" != "${DEVICE#cuda}" ] && "$PYTHON" -c 'import torch, transformers, peft; assert torch.cuda.is_available()' 2>/dev/null; then
  torch=yes
else
  echo "PyTorch on this card was not found: its rows are left out" >&2
fi

echo "| program | shape | policy | memory | tokens/s | ms a step | GiB at most | of the matmul peak |"
echo "|---|---|---|---|---|---|---|---|"
for shape in $SHAPES; do
  for policy in $POLICIES; do
    for memory in $MEMORIES; do
      # shellcheck disable=SC2046
      line=$("$IST" bench $(shape "$shape") --device "$DEVICE" --policy "$policy" --memory "$memory" --dtype "$DTYPE" \
        --batch "$BATCH" --seq "$SEQ" --steps "$STEPS" --json 2>>"$OUT/errors.txt" | tr -d '\n')
      [ -z "$line" ] || echo "$line" >>"$OUT/ist.jsonl"
      row ist "$shape" "$policy" "$memory" "$line"
      [ "$torch" = yes ] && dimensions "$shape" >/dev/null || continue
      # shellcheck disable=SC2046
      line=$("$PYTHON" "$HERE/peer/peer.py" --device cuda $(dimensions "$shape") --policy "$policy" --memory "$memory" \
        --dtype "$([ "$DTYPE" = bfloat16 ] && echo bf16 || echo f32)" --batch "$BATCH" --seq "$SEQ" --steps "$STEPS" \
        2>>"$OUT/errors.txt")
      [ -z "$line" ] || echo "$line" >>"$OUT/pytorch.jsonl"
      row pytorch "$shape" "$policy" "$memory" "$line"
    done
  done
done
