"""One measurement of LoRA or IST in PyTorch, transformers and PEFT; prints one line of JSON.

The counterpart of `benches/src/bin/step_once.rs`: the same flags, the same fields, a fresh process each. IST here does
what a PyTorch program can do: it switches `requires_grad` of whole layers before a step, so autograd keeps whatever lies
above the lowest chosen layer, and it damps a layer's adapters through their `scaling`.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import statistics
import time
import warnings

MIB = 2**20
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in dict(
        dim=512, layers=8, heads=8, ffn=1376, vocab=2048, batch=4, seq=256, rank=32, alpha=64, threads=2, steps=20,
        warmup=3, score_batch=16, interval=10, seed=0, kv_heads=0,
    ).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--method", choices=["lora", "dora"], default="lora")
    parser.add_argument("--policy", default="all", help="all, ist, rst or fixed:2,5")
    parser.add_argument("--memory", choices=["keep", "recompute"], default="keep",
                        help="recompute switches gradient checkpointing on")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--tied", action="store_true", help="the head is the embedding")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tag", default="", help="copied to the output")
    return parser.parse_args()


class Process:
    """What Linux counts for this process."""

    @staticmethod
    def status(key):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))

    @staticmethod
    def settle():
        """Gives freed memory back to the system, so that it does not hide in the baseline."""
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return Process.status("VmRSS")

    @staticmethod
    def reset_peak():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


class Selection:
    """Which layers train in a step, and the importance scores that IST draws them by."""

    # The published defaults.
    SHARE, DAMPED_SHARE, CANDIDATES, FACTOR, STEP_SIZE = 0.25, 0.5, 3, 0.25, 10.0

    def __init__(self, torch, layers, kind, interval):
        self.torch, self.interval = torch, interval
        self.kind, _, fixed = kind.partition(":")
        self.fixed = [int(index) for index in fixed.split(",") if index]
        self.parameters = [[p for p in layer.parameters() if p.requires_grad] for layer in layers]
        self.adapters = [[m for m in layer.modules() if isinstance(getattr(m, "scaling", None), dict)] for layer in layers]
        self.scores = torch.zeros(len(layers))

    def count(self, share):
        return max(1, int(len(self.parameters) * share))

    def sample(self, weights, count):
        return frozenset(self.torch.multinomial(weights, count).tolist())

    def choose(self):
        """Freezes every layer outside of this step's draw."""
        if self.kind == "all":
            return
        if self.kind == "fixed":
            chosen = self.fixed
        else:
            weights = self.torch.sigmoid(-self.scores) if self.kind == "ist" else self.torch.ones_like(self.scores)
            chosen = self.sample(weights, self.count(self.SHARE))
        for index, parameters in enumerate(self.parameters):
            for parameter in parameters:
                parameter.requires_grad_(index in chosen)

    def due(self, step):
        return self.kind == "ist" and step > 0 and step % self.interval == 0

    def damp(self, layers, factor):
        for index in layers:
            for module in self.adapters[index]:
                for name in module.scaling:
                    module.scaling[name] *= factor

    def score(self, model, batch):
        """Damps one candidate set after the other and moves the scores by the losses."""
        weights = self.torch.sigmoid(self.scores)
        size = self.count(self.DAMPED_SHARE)
        wanted = min(self.CANDIDATES, math.comb(len(self.scores), size))
        candidates = []
        while len(candidates) < wanted:
            candidate = self.sample(weights, size)
            if candidate not in candidates:
                candidates.append(candidate)
        model.eval()
        rewards = []
        for candidate in candidates:
            self.damp(candidate, self.FACTOR)
            with self.torch.inference_mode():
                rewards.append(math.exp(-model(**batch).loss.item()))
            self.damp(candidate, 1 / self.FACTOR)
        model.train()
        mean = statistics.mean(rewards)
        slope = weights * (1 - weights)
        for candidate, reward in zip(candidates, rewards):
            for index in candidate:
                self.scores[index] += self.STEP_SIZE * (reward - mean) * slope[index]


def build(torch, options):
    import peft
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    config = transformers.LlamaConfig(
        hidden_size=options.dim, num_hidden_layers=options.layers, num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads or options.heads, intermediate_size=options.ffn, vocab_size=options.vocab,
        max_position_embeddings=max(2048, options.seq), tie_word_embeddings=options.tied, use_cache=False,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype({"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    with torch.device(options.device):
        base = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    lora = peft.LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules=TARGETS, task_type="CAUSAL_LM",
                           use_dora=options.method == "dora")
    model = peft.get_peft_model(base, lora).to(options.device)
    if options.memory == "recompute":
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


class Run:
    def __init__(self, torch, options):
        self.torch, self.options = torch, options
        self.model = build(torch, options)
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=1e-3, weight_decay=0.0)
        layers = self.model.get_base_model().model.layers
        self.selection = Selection(torch, layers, options.policy, options.interval)
        self.stream = torch.Generator().manual_seed(options.seed + 1)

    def batch(self, rows, tokens=None):
        shape = (rows, tokens or self.options.seq)
        ids = self.torch.randint(self.options.vocab, shape, generator=self.stream).to(self.options.device)
        return {"input_ids": ids, "attention_mask": self.torch.ones_like(ids), "labels": ids.clone()}

    def touch(self):
        """A few tokens forward and backward: loads the libraries' code before anything is measured."""
        self.model(**self.batch(1, 8)).loss.backward()
        self.model.zero_grad(set_to_none=True)

    def settle(self):
        """Waits until the device has nothing left to do."""
        if self.options.device == "cuda":
            self.torch.cuda.synchronize()

    def score(self, step):
        if not self.selection.due(step):
            return None
        start = time.perf_counter()
        self.selection.score(self.model, self.batch(self.options.score_batch))
        self.settle()
        return time.perf_counter() - start

    def step(self, step):
        """Seconds, processor seconds, seconds of scoring or None, and the loss."""
        scoring = self.score(step)
        batch = self.batch(self.options.batch)
        self.settle()
        start, processor = time.perf_counter(), time.process_time()
        self.selection.choose()
        loss = self.model(**batch).loss
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.settle()
        return time.perf_counter() - start, time.process_time() - processor, scoring, loss.item()


def main():
    options = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    run = Run(torch, options)
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    run.touch()
    warm = Process.settle()
    Process.reset_peak()
    steps = [run.step(number) for number in range(options.warmup + options.steps)]
    peak = Process.status("VmHWM")
    on_card = torch.cuda.max_memory_allocated() if options.device == "cuda" else 0
    wall, processor, _, _ = zip(*steps[options.warmup:])
    scorings = [step[2] for step in steps if step[2] is not None]
    tenths = lambda seconds: round(1000 * seconds, 1)
    mebibytes = lambda size: round(size / MIB, 1)
    print(json.dumps({
        "program": "pytorch", "tag": options.tag, "dim": options.dim, "layers": options.layers, "vocab": options.vocab,
        "batch": options.batch, "seq": options.seq, "r": options.rank, "policy": options.policy,
        "memory": options.memory, "dtype": options.dtype, "threads": options.threads, "steps": options.steps,
        "weights_MiB": mebibytes(weights), "peak_above_warm_MiB": mebibytes(peak - warm),
        "step_ms": tenths(statistics.median(wall)), "step_ms_min": tenths(min(wall)),
        "step_cpu_ms": tenths(statistics.median(processor)),
        "score_ms": tenths(statistics.median(scorings)) if scorings else 0.0, "n_score": len(scorings),
        "device": options.device, "peak_bytes": on_card,
        "tokens_per_second": round(options.batch * options.seq / statistics.median(wall)),
        "loss_first": steps[0][3], "loss_last": steps[-1][3], "loadavg": os.getloadavg()[0],
        "torch": torch.__version__,
    }), flush=True)


if __name__ == "__main__":
    main()
