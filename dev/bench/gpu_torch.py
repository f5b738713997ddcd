#!/usr/bin/env python3
"""gpu_torch.py - train_gpt2cu beside PyTorch, on the same GPU, in one run, taking turns.

    gpu_torch.py --trainer ./train_gpt2cu --work DIR [--dtype bf16] [--ways "WAY,WAY,..."]
                 [--model gpt2|gpt2-medium|tiny] [--batch 32] [--seq 1024] [--rounds 2]
                 [--steps 25] [--warmup 5] [--device cuda]

The trainer trains a GPT-2 on the same shapes as PyTorch does in each WAY, three words:
    eager | compiled             as one writes it, or torch.compile
    autocast | pure              autocast to --dtype over float32 weights; or all in --dtype, also
                                 AdamW's state, which in 16 bits learns less well
    flash | cudnn | efficient    the one backend that scaled_dot_product_attention may take
Fair to PyTorch: the fused AdamW, the padded vocabulary of 50304, tokens that are on the GPU before
the clock starts. Tokens are Zipf-distributed, as a text's are: uniform ones would spare the
embedding's gradient its crowded rows. In each round every way has its turn, so that a GPU that
slows down when it is warm slows down for all, and gives its memory back for the next.

Prints one JSON object a line: for each round and way, the median of ms for a step and tokens per
second, and once the kernels of a step that are attention's, by name. Exit code 1 if the trainer
fails; where PyTorch does, it is told. Without --trainer, only PyTorch: what it compiles is kept on
disk, so a call with one step makes a later one's start short.

    gpu_torch.py --data DIR   only writes token shards and a tokenizer of 50257 tokens there
"""
import argparse
import array
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, os.pardir, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

# Blocks, heads and channels. The tiny one is there to try this program.
SIZES = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "tiny": (2, 2, 128)}
V, VP = 50257, 50304
WAYS = ["eager autocast flash", "compiled autocast flash", "compiled pure flash",
        "compiled autocast cudnn", "compiled pure cudnn", "eager pure flash"]
HOW, TYPES = ("eager", "compiled"), ("autocast", "pure")
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION",
            "efficient": "EFFICIENT_ATTENTION"}   # PyTorch's names
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}   # the trainer's, PyTorch's


def zipf(count, V, seed=1):
    """Random tokens; token k is as frequent as 1 / (k + 1), which is nearly so in any text."""
    weights = itertools.accumulate(1 / (k + 1) for k in range(V))
    return random.Random(seed).choices(range(V), cum_weights=list(weights), k=count)


def make_data(folder, tokens=1 << 20, V=V):
    os.makedirs(folder, exist_ok=True)
    pairs = [(a, b) for a in range(224) for b in range(224)][:V - 257]
    keys = bpe.to_keys(bpe.from_merges(pairs))
    gguf.write(os.path.join(folder, "tokenizer.gguf"),
               {"general.architecture": ("string", "gpt2"), **keys})
    header = array.array("i", [20240520, 1, tokens] + [0] * 253)
    with open(os.path.join(folder, "train_000.bin"), "wb") as f:
        f.write(header.tobytes() + array.array("H", zipf(tokens, V)).tobytes())


def trainer_words(o, out, **flags):
    """The command line of o.trainer on a model of o's sizes, with these flags too: None leaves one
    out, True is a switch."""
    L, NH, C = SIZES[o.model]
    data = os.path.join(o.work, "data")
    flags = {"train": f"{data}/train_*.bin", "tokenizer": f"{data}/tokenizer.gguf", "layers": L,
             "heads": NH, "channels": C, "context": o.seq, "batch": o.batch, "dtype": o.dtype,
             "save_minutes": 0, "out": os.path.join(o.work, out), **flags}
    words = [o.trainer]
    for name, value in flags.items():
        if value is not None:
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


def run_trainer(o, out, **flags):
    """Its log's records of steps."""
    p = subprocess.run(trainer_words(o, out, **flags), capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"exit code {p.returncode}: {p.stderr.strip()[-500:]}")
    return steps_of(o, out)


def steps_of(o, out):
    """What a log has of finished steps by now; its last line may be half written."""
    path = os.path.join(o.work, out, "log.jsonl")
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f if '"loss"' in line and line.endswith("}\n")]


def torch_model(L, NH, C, V, T):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.qkv, self.output = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

        def forward(self, x):
            B = x.shape[0]
            qkv = self.qkv(self.norm1(x)).split(C, -1)
            q, k, v = (t.view(B, T, NH, C // NH).transpose(1, 2) for t in qkv)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(y.transpose(1, 2).reshape(B, T, C))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
            self.blocks, self.norm = nn.ModuleList([Block() for _ in range(L)]), nn.LayerNorm(C)
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens, targets):
            x = self.wte(tokens) + self.wpe(torch.arange(T, device=tokens.device))
            for block in self.blocks:
                x = block(x)
            logits = F.linear(self.norm(x), self.wte.weight)
            return F.cross_entropy(logits.view(-1, V), targets.view(-1))

    return Model()


class Torch:
    """A model and its optimizer, kept between rounds so that it is compiled once."""

    def __init__(self, o, way):
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        how, types, backend = way.split()
        self.torch, self.o, self.way = torch, o, way
        self.device_type, self.named = torch.device(o.device).type, False
        self.dtype = getattr(torch, DTYPES[o.dtype])
        self.autocast, self.sdpa = types == "autocast", partial(
            sdpa_kernel, getattr(SDPBackend, BACKENDS[backend]))
        torch.manual_seed(1)
        self.model = torch_model(*SIZES[o.model], VP, o.seq).to(o.device)
        if types == "pure":
            self.model.to(self.dtype)
        elif o.dtype == "fp32":
            raise ValueError("autocast is for 16 bits")
        compiled = how == "compiled"
        self.step_model = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        shape = (-1, o.batch, o.seq + 1)
        count = 8 * o.batch * (o.seq + 1)   # eight batches, one after the other
        self.batches = torch.tensor(zipf(count, V), device=o.device).view(shape)
        self.steps = 0

    def wait(self):
        if self.device_type == "cuda":
            self.torch.cuda.synchronize()

    def step(self):
        torch = self.torch
        tokens = self.batches[self.steps % len(self.batches)]
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        self.steps += 1
        self.wait()
        start = time.perf_counter()
        with self.sdpa(), torch.autocast(self.device_type, self.dtype, enabled=self.autocast):
            loss = self.step_model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.wait()
        return (time.perf_counter() - start) * 1000

    def name_kernels(self):
        """Which attention it was, from one step under PyTorch's profiler, where that is let in."""
        activity = self.torch.profiler.ProfilerActivity
        with self.torch.profiler.profile(activities=[activity.CUDA]) as p:
            self.step()
        names = [e.key[:80] for e in p.key_averages()   # not what the compiler made, by its source
                 if re.search("^(?!triton).*(flash|fmha|sdpa|attention|cudnn)", e.key)]
        print(json.dumps({"way": self.way, "kernels": names}), flush=True)

    def round(self):
        times = [self.step() for _ in range(self.o.warmup + self.o.steps)][self.o.warmup:]
        if self.device_type == "cuda":
            if not self.named:
                self.name_kernels()
            self.torch.cuda.empty_cache()   # the trainer, another process, has its turn next
        self.named = True
        return times


def trainer_round(o):
    """Stopped by force after the steps that count, so that none of the time goes into a checkpoint:
    the others write none."""
    out, said = os.path.join(o.work, "run"), os.path.join(o.work, "run.txt")
    shutil.rmtree(out, ignore_errors=True)
    count, records = o.warmup + o.steps, []
    with open(said, "w") as f:
        p = subprocess.Popen(trainer_words(o, "run", steps=10 ** 6, lr=1e-4), stdout=f, stderr=f)
    try:
        while len(records) < count and p.poll() is None:
            time.sleep(0.1)
            records = steps_of(o, "run")
    finally:
        p.kill()
        p.wait()
    if len(records) < count:
        with open(said, errors="replace") as f:
            raise RuntimeError(f.read().strip()[-250:])
    shutil.rmtree(out)
    return [record["ms"] for record in records][o.warmup:count]


def compare(o):
    ok, ways = True, {"legible": partial(trainer_round, o)} if o.trainer else {}
    about = {"model": o.model, "dtype": o.dtype, "B": o.batch, "T": o.seq}

    def say(way, **found):
        print(json.dumps({**about, "way": way, **found}), flush=True)

    for way in o.ways:
        try:
            ways["PyTorch " + way] = Torch(o, way).round
        except Exception as e:   # no PyTorch, or no such backend: the others still count
            say("PyTorch " + way, error=repr(e)[:300])
    for number in range(o.rounds):
        for way, run in list(ways.items()):
            try:
                ms = statistics.median(run())
                say(way, round=number, ms=round(ms, 2), steps=o.steps,
                    tok_per_s=round(o.batch * o.seq / ms * 1000))
            except Exception as e:
                say(way, error=repr(e)[:300])
                del ways[way]
                ok = ok and way != "legible"
    return ok


def add_shape(p):
    """The flags that say what is trained, and where: gpu_agree.py's too."""
    p.add_argument("--trainer")
    p.add_argument("--work")
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    p.add_argument("--model", choices=SIZES, default="gpt2")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--seq", type=int, default=1024)
    p.add_argument("--device", default="cuda")


def need_data(o):
    if not os.path.exists(os.path.join(o.work, "data", "train_000.bin")):
        make_data(os.path.join(o.work, "data"))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape(p)
    p.add_argument("--data")
    p.add_argument("--ways", type=lambda text: [way.strip() for way in text.split(",")],
                   default=WAYS)
    for name, value in (("rounds", 2), ("steps", 25), ("warmup", 5)):
        p.add_argument("--" + name, type=int, default=value)
    o = p.parse_args()
    if o.data:
        make_data(o.data)
        return 0
    if not o.work:
        p.error("--work is needed")
    for way in o.ways:
        words = way.split()
        if len(words) != 3 or not all(word in known for word, known in
                                      zip(words, (HOW, TYPES, BACKENDS))):
            p.error(f"--ways: \"{way}\": expected one of {' '.join(HOW)}, one of "
                    f"{' '.join(TYPES)}, and one of {' '.join(BACKENDS)}")
    need_data(o)
    return 0 if compare(o) else 1


if __name__ == "__main__":
    sys.exit(main())
