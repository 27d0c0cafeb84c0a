#!/usr/bin/env bash
# The page of `ist report` in headless Chromium, on a wide and on a narrow screen, light and dark: no message on the console,
# every figure drawn, nothing wider than the screen.
#
# Usage: .ci/report.sh [FOLDER]      FOLDER gets the page and its screenshots; without it the page is looked at and thrown away.
# Chromium is installed with apt where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/ist-target}"

fail() {
  echo "error: $*" >&2
  exit 1
}

if ! command -v chromium >/dev/null; then
  command -v apt-get >/dev/null || fail "no chromium; install one"
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
out=${1:-$scratch}
mkdir -p "$out"

# A small study: three policies, two seeds, and a run whose name would break a page that does not escape it.
cargo build --release --locked --quiet
ist="$CARGO_TARGET_DIR/release/ist"
for seed in 0 1; do
  for policy in all ist rst; do
    name="$policy-$seed"
    [ "$name" = ist-1 ] && name='ist <b>&"1"'
    "$ist" train experiments/quickstart.toml --quiet --output "$scratch/runs/$name" --set "seed=$seed" \
      --set "policy={kind=\"$policy\"}" --set train.steps=40 --set train.eval_every=10 --set eval.limit=25
  done
done
"$ist" report "$scratch/runs" --output "$out/report.html"

# A script looks at a copy of the page and tells what it finds; the page itself has none.
cat >"$scratch/look.html" <<'SCRIPT'
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const found = [];
  const figures = document.querySelectorAll("figure");
  for (const figure of figures) {
    const box = figure.querySelector("svg").getBoundingClientRect();
    if (box.width < 200 || box.height < 60) found.push(figure.id + " is not drawn");
    if (figure.querySelectorAll("svg text").length === 0) found.push(figure.id + " has no text");
  }
  if (figures.length < 12) found.push(figures.length + " figures only");
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push("the page is " + wide + " wide on a screen of " + innerWidth);
  if (document.querySelector("h1 b, th b, td b")) found.push("a name became an element");
  const height = document.documentElement.scrollHeight;
  parent.postMessage(innerWidth + " wide, " + height + " high: " + (found.join("; ") || "as it should be"), "*");
});
</script>
SCRIPT
sed "/<\/body>/{
  r $scratch/look.html
  N
}" "$out/report.html" >"$scratch/looked-at.html"

browse() {
  chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$(mktemp -d -p "$scratch")" "$@"
}

# A window has a least width, a frame has none: $1 is shown in a frame that wide and high.
frame() {
  cat >"$scratch/frame.html" <<FRAME
<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin:0"><iframe src="$1" style="border:0;width:$2px;height:$3px"></iframe>
<p id="found"></p><script>onmessage = (message) => { document.getElementById("found").textContent = message.data; };</script>
FRAME
}

for width in 390 1280; do
  for scheme in light dark; do
    setting=1
    [ "$scheme" = dark ] && setting=0
    frame "file://$scratch/looked-at.html" "$width" 1000
    browse --window-size=1300,1000 --blink-settings=preferredColorScheme=$setting --virtual-time-budget=5000 \
      --enable-logging=stderr --dump-dom "file://$scratch/frame.html" >"$scratch/dom.html" 2>"$scratch/log.txt"
    grep CONSOLE "$scratch/log.txt" && fail "the page says something on the console at $width, $scheme"
    found=$(grep -o '<p id="found">[^<]*' "$scratch/dom.html" | sed 's/.*>//') || fail "the page was not looked at"
    case $found in *"as it should be") ;; *) fail "$scheme: $found" ;; esac
    echo "$scheme, $found"
    height=$(sed 's/.*wide, \([0-9]*\) high.*/\1/' <<<"$found")
    [ -n "${1:-}" ] || continue
    frame "file://$out/report.html" "$width" "$height"
    browse --window-size="$((width < 500 ? 500 : width)),$height" --blink-settings=preferredColorScheme=$setting \
      --screenshot="$out/report-$width-$scheme.png" "file://$scratch/frame.html" 2>/dev/null
  done
done
