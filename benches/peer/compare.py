"""Runs our step and the PyTorch peer in turn, on the same shapes with the same threads, and prints the ratios.

Each measurement is a fresh process. The two programs alternate, so that a machine that slows down slows both; what is
quoted is the median over the pairs and the ratio of the medians. Every line that was measured is appended to
`runs/bench-peer/`. `just bench-peer` builds and installs what this needs.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEER = pathlib.Path(__file__).with_name("peer.py")

TINY = dict(dim=64, heads=2, ffn=128, vocab=256, batch=2, seq=32, rank=8)
SMALL = dict(dim=512, layers=8, heads=8, ffn=1376, vocab=2048, batch=4, seq=256, rank=32, alpha=64)
MEDIUM = dict(dim=768, layers=12, heads=12, ffn=2048, vocab=32000, batch=4, seq=256, rank=32, alpha=64)
# Steps between two scorings by default. A short measurement scores more often; its scorings count as if it did not.
INTERVAL = 10


@dataclass
class Row:
    """One line of the table. The peer keeps everything unless `checkpointing`: that is what it does by default."""

    name: str
    what: str
    shape: dict
    policy: str
    memory: str
    threads: int
    steps: int
    warmup: int = 2
    interval: int = INTERVAL
    checkpointing: bool = False
    method: str = "lora"

    def flags(self, memory):
        flags = dict(self.shape, method=self.method, policy=self.policy, memory=memory, threads=self.threads, steps=self.steps,
                     warmup=self.warmup, interval=self.interval, tag=self.name)
        return [part for name, value in flags.items() for part in ("--" + name, str(value))]


def small(policy, memory, threads, **more):
    kind = "all" if policy == "all" else "ist"
    what = "LoRA, all layers" if policy == "all" else "IST {" + policy.split(":")[1] + "}"
    name = f"s-{kind}-{memory}-{threads}t" + ("-checkpointing" if more else "")
    what = f"S, {what}, {memory}" + (" (peer: checkpointing)" if more else "")
    return Row(name, what, SMALL, policy, memory, threads, steps=8, **more)


def medium(policy, memory, threads=2):
    return Row(f"m-ist-{memory}-{threads}t", f"M, IST {{{policy.split(':')[1]}}}, {memory}", MEDIUM, policy, memory,
               threads, steps=4, warmup=1)


ROWS = [
    *(small(policy, memory, threads) for threads in (1, 2)
      for policy, memory in (("fixed:2,5", "keep"), ("fixed:2,5", "recompute"), ("all", "keep"))),
    small("fixed:2,5", "recompute", 1, checkpointing=True),
    medium("fixed:2,6,9", "keep"),
    medium("fixed:2,6,9", "recompute"),
    *(Row(f"s-{method}-r16-keep-1t", f"S, {name} r 16, all layers, keep", dict(SMALL, rank=16, alpha=32), "all", "keep", 1,
          steps=8, method=method) for method, name in (("lora", "LoRA"), ("dora", "DoRA"))),
    Row("m-run-recompute-2t", "M, IST run with scoring (batch 16), recompute", MEDIUM, "ist", "recompute", 2, steps=9,
        warmup=1, interval=3),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", help="names, separated by commas; " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--quick", action="store_true", help="tiny shapes and one pair, to try this program")
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--ours", default=pathlib.Path(target) / "release" / "step_once", help="the built step_once")
    parser.add_argument("--output", default=ROOT / "runs" / "bench-peer", type=pathlib.Path)
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else [row.name for row in ROWS]
    unknown = set(wanted) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    options.rows = [row for row in ROWS if row.name in wanted]
    if options.quick:
        options.pairs = 1
        for row in options.rows:
            row.shape, row.steps = dict(TINY, layers=row.shape["layers"]), min(row.steps, 4)
    return options


def measure(command, threads):
    """The line of JSON that the program prints."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(map(str, command))}")
    return json.loads(done.stdout.splitlines()[-1])


def pair(row, options):
    ours = measure([options.ours, *row.flags(row.memory)], row.threads)
    peer = measure([sys.executable, PEER, *row.flags("recompute" if row.checkpointing else "keep")], row.threads)
    return ours, peer


def amortised(line, field):
    """A step and its part of the scoring at the default interval."""
    return line[field] + line["score_ms"] / INTERVAL


def middle(lines, figure):
    return statistics.median(figure(line) for line in lines)


def summary(row, pairs):
    """The cells of one row: medians of ours and the peer's, and their ratio."""
    ours, peers = zip(*pairs)
    cells = [row.what, str(row.threads)]
    # PyTorch's baseline is the warm process after its allocator gave back what was free. Ours cannot do that, so its baseline
    # is the process before it had a model, and the weights: what the allocator kept from building the model counts against us.
    peak = lambda line: line.get("peak_resident_above_weights_MiB", line["peak_above_warm_MiB"])
    # Time on several threads is wall time; on one, processor time, which other programs disturb less.
    time = "step_cpu_ms" if row.threads == 1 else "step_ms"
    for figure, digits in ((peak, 0), (lambda line: amortised(line, time), 0)):
        mine, theirs = middle(ours, figure), middle(peers, figure)
        cells += [f"{mine:.{digits}f}", f"{theirs:.{digits}f}", f"{mine / max(theirs, 1e-9):.2f}"]
    cells.insert(2, f"{middle(ours, lambda line: line['peak_above_weights_MiB']):.0f}")
    share = middle(ours, lambda line: line["score_ms"] / INTERVAL / max(amortised(line, "step_ms"), 1e-9))
    theirs = middle(peers, lambda line: line["score_ms"] / INTERVAL / max(amortised(line, "step_ms"), 1e-9))
    cells.append(f"{100 * share:.0f} % / {100 * theirs:.0f} %" if share else "")
    return cells


HEAD = ["what", "threads", "ours, counted MiB", "ours, resident MiB", "PyTorch, resident MiB", "ratio", "ours, ms",
        "PyTorch, ms", "ratio", "share of scoring, ours / PyTorch"]


def markdown(rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [HEAD, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(HEAD), *lines[1:]])


def main():
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    record = options.output / f"{stamp}.jsonl"
    table = []
    for row in options.rows:
        pairs = []
        for number in range(options.pairs):
            ours, peer = pair(row, options)
            pairs.append((ours, peer))
            with record.open("a") as file:
                file.writelines(json.dumps({"pair": number, **line}) + "\n" for line in (ours, peer))
            print(f"{row.name}, pair {number + 1} of {options.pairs}: {ours['step_ms']} ms against {peer['step_ms']} ms, "
                  f"{ours['peak_above_warm_MiB']} MiB against {peer['peak_above_warm_MiB']} MiB", file=sys.stderr)
        table.append(summary(row, pairs))
    print(markdown(table))
    print(f"\nmeasurements: {record}", file=sys.stderr)


if __name__ == "__main__":
    main()
