#!/usr/bin/env python3
"""gpu_torch.py - train_gpt2cu beside PyTorch, on the same GPU, in one run, taking turns.

    gpu_torch.py --trainer ./train_gpt2cu --work DIR
                 [--model gpt2|gpt2-medium|tiny] [--batch 32] [--seq 1024] [--rounds 2]

Three ways to train the same GPT-2 on the same shapes: this project's trainer; PyTorch as one writes
it (eager); and PyTorch under torch.compile. Both of PyTorch's use bfloat16 autocast over float32
weights, flash attention (scaled_dot_product_attention), the fused AdamW and the padded vocabulary
of 50304: the usual fast set-up. They take turns, so that a GPU that slows down when it is warm
slows down for all. Prints one JSON object a line: for each round, model and way, the median of ms
for a step and tokens per second. Exit code 1 if the trainer fails; where PyTorch does, it is told.

    gpu_torch.py --data DIR   only writes random token shards and a tokenizer of 50257 tokens there
"""
import argparse
import array
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, os.pardir, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

# Blocks, heads and channels. The tiny one is there to try this program.
SIZES = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "tiny": (2, 2, 64)}
V, VP = 50257, 50304
STEPS, WARMUP = 15, 5


def make_data(folder, tokens=1 << 20, V=V):
    """Random tokens: speed does not depend on what they say."""
    os.makedirs(folder, exist_ok=True)
    pairs = [(a, b) for a in range(224) for b in range(224)][:V - 257]
    keys = bpe.to_keys(bpe.from_merges(pairs))
    gguf.write(os.path.join(folder, "tokenizer.gguf"),
               {"general.architecture": ("string", "gpt2"), **keys})
    rng = random.Random(1)
    header = array.array("i", [20240520, 1, tokens] + [0] * 253)
    with open(os.path.join(folder, "train_000.bin"), "wb") as f:
        f.write(header.tobytes())
        f.write(array.array("H", [rng.randrange(V) for _ in range(tokens)]).tobytes())


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

    def __init__(self, size, batch, T, compiled):
        import torch
        self.torch, self.batch, self.T = torch, batch, T
        self.model = torch_model(*SIZES[size], VP, T).cuda()
        self.step_model = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self):
        torch = self.torch
        tokens = torch.randint(V, (self.batch, self.T + 1), device="cuda")
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.step_model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1000

    def round(self):
        times = [self.step() for _ in range(STEPS)][WARMUP:]
        self.torch.cuda.empty_cache()   # the trainer, another process, has its turn next
        return times


def trainer_round(trainer, work, size, batch, T):
    L, NH, C = SIZES[size]
    out, data = os.path.join(work, "run"), os.path.join(work, "data")
    shutil.rmtree(out, ignore_errors=True)
    p = subprocess.run([trainer, "--train", os.path.join(data, "train_*.bin"),
                        "--tokenizer", os.path.join(data, "tokenizer.gguf"), "--layers", str(L),
                        "--heads", str(NH), "--channels", str(C), "--context", str(T),
                        "--batch", str(batch), "--steps", str(STEPS), "--lr", "1e-4",
                        "--save-minutes", "0", "--out", out], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr[-500:])
    with open(os.path.join(out, "log.jsonl")) as f:
        times = [json.loads(line)["ms"] for line in f if '"loss"' in line]
    shutil.rmtree(out)
    return times[WARMUP:]


def report(model, way, round_number, tokens, times):
    ms = statistics.median(times)
    print(json.dumps({"model": model, "way": way, "round": round_number, "ms": round(ms, 2),
                      "tok_per_s": round(tokens / ms * 1000)}), flush=True)


def compare(args, size):
    ok = True
    ways = {"trainer": lambda: trainer_round(args.trainer, args.work, size, args.batch, args.seq)}
    for name, compiled in (("torch eager", False), ("torch.compile", True)):
        try:
            ways[name] = Torch(size, args.batch, args.seq, compiled).round
        except Exception as e:   # no PyTorch, or no compiler for it: the others still count
            print(json.dumps({"model": size, "way": name, "error": repr(e)[:300]}), flush=True)
    for number in range(args.rounds):
        for name, run in list(ways.items()):
            try:
                report(size, name, number, args.batch * args.seq, run())
            except Exception as e:
                print(json.dumps({"model": size, "way": name, "error": repr(e)[-300:]}), flush=True)
                del ways[name]
                ok = ok and name != "trainer"
    return ok


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data")
    p.add_argument("--trainer")
    p.add_argument("--work")
    p.add_argument("--model", choices=SIZES, default="gpt2")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--seq", type=int, default=1024)
    p.add_argument("--rounds", type=int, default=2)
    args = p.parse_args()
    if args.data:
        make_data(args.data)
        return 0
    if not (args.trainer and args.work):
        p.error("--trainer and --work are needed")
    if not os.path.exists(os.path.join(args.work, "data", "train_000.bin")):
        make_data(os.path.join(args.work, "data"))
    return 0 if compare(args, args.model) else 1


if __name__ == "__main__":
    sys.exit(main())
