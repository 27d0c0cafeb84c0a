"""One measurement of loading, scoring or generating with PyTorch and transformers; prints one line of JSON.

The counterpart of `benches/src/bin/infer_once.rs`: the same flags, the same fields, the same tokens, a fresh process each.
Scoring is what a program on transformers does: the logits of all positions, `log_softmax`, and a `gather`. Generation is
`model.generate`, greedy, with its cache; the time of the first token is a generation of one, and that of the others the
difference to it.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import time
import warnings

from peer import MIB, Process


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["load", "score", "generate"], required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    for name, default in dict(threads=2, rows=1, seq=256, prompt=64, new=64, repeat=3).items():
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--dtype", choices=["f32", "file"], default="f32")
    parser.add_argument("--tag", default="", help="copied to the output")
    return parser.parse_args()


def tokens(row, count, vocabulary):
    return [(row * 31 + t * 17 + t * t * 7) % vocabulary for t in range(count)]


def timed(work):
    """Milliseconds of wall time and of processor time."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - processor)


def medians(times):
    return [round(statistics.median(kind), 2) for kind in zip(*times)]


def mebibytes(size):
    return round(size / MIB, 1)


class Run:
    def __init__(self, torch, options):
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.torch, self.transformers, self.options = torch, transformers, options
        self.figures = {}

    def load(self):
        dtype = self.torch.float32 if self.options.dtype == "f32" else "auto"
        model = self.transformers.AutoModelForCausalLM.from_pretrained(self.options.model, dtype=dtype)
        return model.eval()

    def loading(self):
        file = self.options.model / "model.safetensors"
        file.read_bytes()
        first, _ = timed(self.load)
        at_start = Process.settle()
        Process.reset_peak()
        model = self.load()
        peak = Process.status("VmHWM")
        # A tensor that is only mapped is not loaded yet; the sums read every value.
        touched = timed(lambda: [parameter.sum() for parameter in model.parameters()])
        self.weights(model)
        resident = Process.status("VmRSS")
        del model
        gc.collect()
        reads, loads = [], []
        for _ in range(self.options.repeat):
            reads.append(timed(file.read_bytes))
            loads.append(timed(self.load))
            gc.collect()
        reads.append(timed(file.read_bytes))
        (wall, processor), (read, read_processor) = medians(loads), medians(reads)
        self.figures.update(
            file_MiB=mebibytes(file.stat().st_size), peak_resident_MiB=mebibytes(max(peak, resident) - at_start),
            resident_MiB=mebibytes(resident - at_start), first_ms=round(first, 2), sum_ms=round(touched[0], 2), ms=wall,
            cpu_ms=processor, read_ms=read, read_cpu_ms=read_processor)

    def weights(self, model):
        self.figures["weights_MiB"] = mebibytes(sum(p.numel() * p.element_size() for p in model.parameters()))

    def on_model(self, measure):
        model = self.load()
        self.weights(model)
        self.score_once(model, 1, 8)
        warm = Process.settle()
        Process.reset_peak()
        measure(model)
        self.figures["peak_resident_MiB"] = mebibytes(Process.status("VmHWM") - warm)

    def score_once(self, model, rows, sequence):
        ids = self.torch.tensor([tokens(row, sequence, model.config.vocab_size) for row in range(rows)])
        with self.torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            scores = self.torch.log_softmax(logits.float(), dim=-1)
            return scores.gather(-1, ids[:, 1:, None]).squeeze(-1)

    def score(self, model):
        rows, sequence = self.options.rows, self.options.seq
        scores = self.score_once(model, rows, sequence)
        wall, processor = medians([timed(lambda: self.score_once(model, rows, sequence)) for _ in range(self.options.repeat)])
        self.figures.update(rows=rows, seq=sequence, ms=wall, cpu_ms=processor,
                            tokens_per_s=round(rows * sequence / wall * 1000, 1),
                            mean_log_probability=scores.double().mean().item())

    def generate(self, model):
        """Prompts of unequal lengths are padded on the left."""
        rows, prompt, new = self.options.rows, self.options.prompt, self.options.new
        prompts = [tokens(row, prompt - row * prompt // (2 * rows), model.config.vocab_size) for row in range(rows)]
        padded = self.torch.tensor([[0] * (prompt - len(ids)) + ids for ids in prompts])
        mask = self.torch.tensor([[0] * (prompt - len(ids)) + [1] * len(ids) for ids in prompts])
        outputs = []

        def generate(count):
            with self.torch.no_grad():
                made = model.generate(padded, attention_mask=mask, do_sample=False, min_new_tokens=count,
                                      max_new_tokens=count, pad_token_id=0)
            outputs[:] = made[:, prompt:].tolist()

        generate(new)
        firsts, wholes = [], []
        for _ in range(self.options.repeat):
            firsts.append(timed(lambda: generate(1)))
            wholes.append(timed(lambda: generate(new)))
        first, whole = medians(firsts), medians(wholes)
        wall, processor = [round((all - one) / (new - 1), 2) for all, one in zip(whole, first)]
        self.figures.update(rows=rows, prompt=prompt, new=new, prefill_ms=first[0], prefill_cpu_ms=first[1], ms=wall,
                            cpu_ms=processor, tokens_per_s=round(rows / wall * 1000, 1), outputs=outputs)


def main():
    options = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ.update(CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    run = Run(torch, options)
    {"load": run.loading, "score": lambda: run.on_model(run.score),
     "generate": lambda: run.on_model(run.generate)}[options.what]()
    print(json.dumps({
        "program": "pytorch", "tag": options.tag, "what": options.what, "model": str(options.model),
        "dtype": options.dtype, "threads": options.threads, "repeat": options.repeat, **run.figures,
        "loadavg": os.getloadavg()[0], "torch": torch.__version__,
    }), flush=True)


if __name__ == "__main__":
    main()
