#!/usr/bin/env python3
"""compare_training.py - trains with ./train_gpt2 and with PyTorch, and compares every loss.

    tests/compare_training.py --data data/tinyshakespeare --out runs/compare

Both start from the same weights (which the trainer wrote), see the same batches in the same order,
and take the same AdamW steps in float32. Two correct programs then differ by rounding alone:
every loss must agree to --bound, 1e-4. A bug that no look at a loss curve would find, such as
weight decay on the biases, moves it by more. Writes DIR/compare.svg (both curves, and their
distance) and DIR/compare.jsonl.

Needs numpy and PyTorch (1.13 or newer); without them it says so and exits with 77.
"""
import argparse
import glob
import json
import math
import os
import subprocess
import sys
import time

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    print(f"SKIP: {missing} (PyTorch and numpy are needed)")
    sys.exit(77)

import reference


def parse():
    parser = argparse.ArgumentParser(
        description="Trains with ./train_gpt2 and with PyTorch; compares every loss.")
    parser.add_argument("--data", required=True,
                        help="folder with train_*.bin and tokenizer.gguf (data/prepare.py)")
    parser.add_argument("--out", required=True, help="folder to write to; must not hold a run yet")
    parser.add_argument("--trainer", default="./train_gpt2")
    parser.add_argument("--bound", type=float, default=1e-4,
                        help="largest relative difference of a loss")
    for name, value in [("steps", 500), ("layers", 4), ("heads", 4), ("channels", 128),
                        ("context", 256), ("batch", 8), ("warmup", 50), ("threads", 0)]:
        parser.add_argument("--" + name, type=int, default=value)
    for name, value in [("lr", 1e-3), ("min-lr", 1e-4), ("beta1", 0.9), ("beta2", 0.95),
                        ("eps", 1e-8), ("weight-decay", 0.1), ("grad-clip", 1.0)]:
        parser.add_argument("--" + name, type=float, default=value)
    return parser.parse_args()


# ---- the trainer ---------------------------------------------------------------------------------

def run_trainer(o, out, **flags):
    command = [o.trainer, "--out", out, "--train", os.path.join(o.data, "train_*.bin"),
               "--tokenizer", os.path.join(o.data, "tokenizer.gguf"), "--order", "sequential",
               "--schedule", "cosine"]
    shared = ["layers", "heads", "channels", "context", "batch", "warmup", "threads", "lr",
              "min_lr", "beta1", "beta2", "eps", "weight_decay", "grad_clip"]
    for name, value in [*((name, getattr(o, name)) for name in shared), *flags.items()]:
        command += ["--" + name.replace("_", "-"), str(value)]
    subprocess.run(command, check=True)


def trainer_losses(out, steps):
    with open(os.path.join(out, "log.jsonl")) as f:
        losses = {r["step"]: r["loss"] for r in map(json.loads, f) if "loss" in r}
    all_steps = list(range(1, steps + 1))
    assert sorted(losses) == all_steps, f"{out}/log.jsonl lacks some of {steps} steps"
    return [losses[step] for step in all_steps]


# ---- PyTorch -------------------------------------------------------------------------------------

def sequential_batches(o):
    """(inputs, targets), without end: row r of batch s of a shard is tokens (s*B + r)*T and on."""
    B, T = o.batch, o.context
    while True:
        for path in sorted(glob.glob(os.path.join(o.data, "train_*.bin"))):
            tokens = torch.from_numpy(np.fromfile(path, np.uint16, offset=1024).astype(np.int64))
            for s in range((len(tokens) - 1) // (B * T)):
                batch = tokens[s * B * T:(s + 1) * B * T + 1]
                yield batch[:-1].reshape(B, T), batch[1:].reshape(B, T)


def learning_rate(o, step):
    """step counts finished updates."""
    if step < o.warmup:
        return o.lr * (step + 1) / o.warmup
    x = (step - o.warmup) / max(1, o.steps - o.warmup)
    return o.min_lr + 0.5 * (1 + math.cos(math.pi * x)) * (o.lr - o.min_lr)


def pytorch_losses(o, weights_path):
    weights, NH, _ = reference.load_weights(weights_path, torch.float32)
    for w in weights.values():
        w.requires_grad_(True)
    groups = [{"params": [w for w in weights.values() if w.dim() == 2],
               "weight_decay": o.weight_decay},
              {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps)
    losses, start = [], time.time()
    for step, (inputs, targets) in zip(range(o.steps), sequential_batches(o)):
        optimizer.zero_grad()
        logits = reference.gpt2(weights, inputs, NH)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.flatten())
        loss.backward()
        norm = math.sqrt(sum(float((w.grad.double() ** 2).sum()) for w in weights.values()))
        if o.grad_clip > 0 and norm > o.grad_clip:
            for w in weights.values():
                w.grad *= o.grad_clip / norm
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(o, step)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = time.time() - start
            print(f"PyTorch {step + 1}/{o.steps}  loss {losses[-1]:.6f}  {seconds:.0f} s",
                  flush=True)
    return losses


# ---- the plot ------------------------------------------------------------------------------------

def panel(top, height, low, high, ticks, title, curves, log):
    """One set of axes as SVG, 720 wide. curves: (points, colour, width, name)."""
    left, right = 60, 700
    scale = math.log10 if log else float
    last = max(len(points) for points, *_ in curves)

    def y(value):
        share = (scale(value) - scale(low)) / (scale(high) - scale(low))
        return top + height * (1 - min(1, max(0, share)))

    svg = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{title}</text>']
    for tick in ticks:
        svg.append(f'<path d="M{left} {y(tick):.1f}H{right}" stroke="#e4e4e4"/>'
                   f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for i, (points, colour, width, name) in enumerate(curves):
        line = " ".join(f"{left + (right - left) * (n + 1) / last:.1f},{y(p):.1f}"
                        for n, p in enumerate(points))
        svg.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" '
                   f'points="{line}"/><text x="{right}" y="{top - 10 + 16 * i}" '
                   f'fill="{colour}" text-anchor="end">{name}</text>')
    for n in range(0, last + 1, max(1, last // 5)):
        svg.append(f'<text x="{left + (right - left) * n / last:.1f}" y="{top + height + 18}" '
                   f'text-anchor="middle">{n}</text>')
    return "\n".join(svg)


def plot(path, ours, theirs, differences, bound):
    high = math.ceil(max(ours + theirs))
    low = math.floor(min(ours + theirs))
    floor = 1e-8
    with open(path, "w") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 560" '
                'font-family="sans-serif" font-size="12" fill="#444">\n'
                '<rect width="720" height="560" fill="white"/>\n')
        f.write(panel(40, 260, low, high, range(low, high + 1), "loss (nats per token)",
                      [(ours, "#9fc2ff", 4, f"train_gpt2 {ours[-1]:.6f}"),
                       (theirs, "#1c1c1c", 0.8, f"PyTorch {theirs[-1]:.6f}")], False))
        f.write("\n" + panel(370, 150, floor, 1e-3, [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3],
                             "relative difference of the two losses",
                             [([max(d, floor) for d in differences], "#d9480f", 1,
                               f"at most {max(differences):.1e}"),
                              ([bound] * len(ours), "#888", 1, "")], True))
        f.write(f'\n<text x="380" y="550" text-anchor="middle">step</text>\n</svg>\n')


def main():
    o = parse()
    start, run = os.path.join(o.out, "start"), os.path.join(o.out, "run")
    run_trainer(o, start, steps=0)
    weights = os.path.join(start, "model.gguf")
    run_trainer(o, run, steps=o.steps, init=weights)
    ours = trainer_losses(run, o.steps)
    if o.threads:
        torch.set_num_threads(o.threads)
    theirs = pytorch_losses(o, weights)
    differences = [abs(a - b) / b for a, b in zip(ours, theirs)]
    with open(os.path.join(o.out, "compare.jsonl"), "w") as f:
        for step, (a, b) in enumerate(zip(ours, theirs), 1):
            f.write(json.dumps({"step": step, "train_gpt2": a, "pytorch": b}) + "\n")
    plot(os.path.join(o.out, "compare.svg"), ours, theirs, differences, o.bound)
    far = sum(not d <= o.bound for d in differences)
    worst = max(range(o.steps), key=differences.__getitem__)
    print(f"losses {theirs[0]:.4f} to {theirs[-1]:.4f}; largest relative difference "
          f"{differences[worst]:.2e}, at step {worst + 1}; allowed {o.bound:.0e}; "
          f"PyTorch {torch.__version__}")
    print(f"{o.steps - far} passed, {far} failed")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
