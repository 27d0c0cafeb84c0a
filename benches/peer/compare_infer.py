"""Runs loading, scoring and generation of ours and of transformers in turn, on the same model folders with the same threads.

As `compare.py` does for training steps: fresh processes that alternate, medians over the pairs, ratios of the medians, every
measured line appended to `runs/bench-peer/`. Both programs read the same tokens: a mean log-probability that differs ends
the comparison, generated tokens that differ are reported. `just bench-infer` builds and installs what this needs.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys
from dataclasses import dataclass

from compare import ROOT, measure, middle
from make_model import make

PEER = pathlib.Path(__file__).with_name("infer.py")


@dataclass
class Row:
    """One line of the tables."""

    what: str
    model: str
    threads: int
    rows: int = 1
    dtype: str = "f32"

    @property
    def name(self):
        kind = self.what if self.what != "generate" else f"generate{self.rows}"
        return f"{self.model}-{kind}-{self.dtype}-{self.threads}t"

    def flags(self):
        flags = dict(what=self.what, threads=self.threads, rows=self.rows, dtype=self.dtype, tag=self.name)
        return [part for name, value in flags.items() for part in ("--" + name, str(value))]


ROWS = [
    *(Row("load", model, 1, dtype="file") for model in ("s", "m", "m-bf16", "gpt2")),
    Row("load", "m", 2, dtype="file"),
    *(Row("score", model, threads, rows=4) for model in ("s", "m") for threads in (1, 2)),
    *(Row("generate", model, threads, rows) for model in ("s", "m") for rows in (1, 4) for threads in (1, 2)),
    Row("generate", "gpt2", 1),
    Row("generate", "m-bf16", 1, dtype="file"),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3, help="measurements within a process")
    parser.add_argument("--rows", help="names, separated by commas; " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--quick", action="store_true", help="a tiny model and one pair, to try this program")
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--ours", default=pathlib.Path(target) / "release" / "infer_once", help="the built infer_once")
    parser.add_argument("--output", default=ROOT / "runs" / "bench-peer", type=pathlib.Path)
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else [row.name for row in ROWS]
    unknown = set(wanted) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    options.rows = [row for row in ROWS if row.name in wanted]
    if options.quick:
        options.pairs = 1
        for row in options.rows:
            row.model = "tiny"
    return options


def pair(row, options):
    flags = [*row.flags(), "--model", options.output / "models" / row.model, "--repeat", str(options.repeat)]
    return measure([options.ours, *flags], row.threads), measure([sys.executable, PEER, *flags], row.threads)


def check(row, ours, peer):
    """Both programs computed the same."""
    one, other = (line.get("mean_log_probability") for line in (ours, peer))
    if one is not None and abs(one - other) > 1e-5 * abs(other):
        sys.exit(f"{row.name}: the mean log-probability is {one} here and {other} there")
    if ours.get("outputs") != peer.get("outputs"):
        same = sum(a == b for a, b in zip(sum(ours["outputs"], []), sum(peer["outputs"], [])))
        print(f"{row.name}: {same} of {sum(map(len, ours['outputs']))} generated tokens agree", file=sys.stderr)


def against(row, ours, peers, fields):
    """Ours, the peer's and their ratio of each field."""
    cells = []
    for field in fields:
        mine, theirs = (middle(lines, lambda line: line[field]) for lines in (ours, peers))
        digits = 1 if mine < 100 else 0
        cells += [f"{mine:.{digits}f}", f"{theirs:.{digits}f}", f"{mine / max(theirs, 1e-9):.2f}"]
    return cells


def summary(row, pairs):
    """The cells of one row. Time on one thread is processor time, which other programs disturb less."""
    ours, peers = zip(*pairs)
    alone = row.threads == 1
    time = "cpu_ms" if alone else "ms"
    cells = [row.model, str(row.threads)]
    if row.what == "load":
        read = "read_cpu_ms" if alone else "read_ms"
        ratio = middle(ours, lambda line: line[time]) / max(middle(ours, lambda line: line[read]), 1e-9)
        first = middle(ours, lambda line: line["first_ms"] / max(line["read_ms"], 1e-9))
        counted = middle(ours, lambda line: line["peak_counted_over_weights"])
        figures = [f"{middle(ours, lambda line: line[field]):.0f}" for field in ("file_MiB", read, time)]
        sums = middle(peers, lambda line: line[time] + line["sum_ms"])
        return [*cells, *figures, f"{ratio:.2f}", f"{first:.2f}", f"{counted:.2f}",
                f"{middle(peers, lambda line: line[time]):.0f}", f"{sums:.0f}",
                *against(row, ours, peers, ["peak_resident_MiB"])]
    if row.what == "score":
        rate = 1000 * ours[0]["rows"] * ours[0]["seq"] / middle(ours, lambda line: line[time])
        return [*cells, *against(row, ours, peers, [time]), f"{rate:.0f}", *against(row, ours, peers, ["peak_resident_MiB"])]
    rate = 1000 * row.rows / middle(ours, lambda line: line[time])
    fields = ["prefill_cpu_ms" if alone else "prefill_ms", time]
    return [*cells, str(row.rows), *against(row, ours, peers, fields), f"{rate:.0f}",
            *against(row, ours, peers, ["peak_resident_MiB"])]


RATIO = ["PyTorch", "ratio"]
HEADS = {
    "load": ["file", "threads", "MiB", "read, ms", "load, ms", "load / read", "first load / read", "counted peak / weights",
             "PyTorch maps, ms", "and reads, ms", "resident MiB", *RATIO],
    "score": ["model", "threads", "ms", *RATIO, "tokens/s", "resident MiB", *RATIO],
    "generate": ["model", "threads", "rows", "first token, ms", *RATIO, "ms a token", *RATIO, "tokens/s", "resident MiB", *RATIO],
}


def markdown(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def main():
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    for model in {row.model for row in options.rows}:
        make(options.output / "models", model)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    record = options.output / f"{stamp}-infer.jsonl"
    tables = {}
    for row in options.rows:
        pairs = []
        for number in range(options.pairs):
            ours, peer = pair(row, options)
            check(row, ours, peer)
            pairs.append((ours, peer))
            with record.open("a") as file:
                file.writelines(json.dumps({"pair": number, **line}) + "\n" for line in (ours, peer))
            print(f"{row.name}, pair {number + 1} of {options.pairs}: {ours['ms']} ms against {peer['ms']} ms", file=sys.stderr)
        tables.setdefault(row.what, []).append(summary(row, pairs))
    for what, rows in tables.items():
        print(markdown(HEADS[what], rows), end="\n\n")
    print(f"measurements: {record}", file=sys.stderr)


if __name__ == "__main__":
    main()
