#!/usr/bin/env python3
"""gpu_agree.py - what a trainer says, beside what it must agree with.

    gpu_agree.py gradients --trainer T --work DIR [flags]   with PyTorch's loss and gradients
    gpu_agree.py repeat    --trainer T --work DIR [flags]   with itself: again, and resumed
    gpu_agree.py slices    --trainer T --work DIR [flags]   with itself: a batch and its quarters
        flags: [--dtype bf16] [--model gpt2] [--batch 32] [--seq 1024] [--device cuda]

The trainer is the program as it is. Its gradients are in the checkpoint after one step without
clipping: with --beta1 0, AdamW's m is the gradient itself.

Prints one JSON object. Exit code 1: they do not agree. 77: PyTorch or numpy are needed, and absent.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys

from gpu_torch import DTYPES, HERE, SIZES, V, VP, add_shape, need_data, run_trainer

sys.path.insert(0, os.path.join(HERE, os.pardir, os.pardir, "tests"))
import gguf   # noqa: E402 (gpu_torch has made data/ known)

# How far apart two orders of the same sums may be, as a part of a gradient's length, and of a loss.
ORDERS = {"fp32": (1e-4, 1e-5), "bf16": (1e-2, 1e-4), "fp16": (1e-2, 1e-4)}


def one_step(o, out, **flags):
    """The loss and {name: gradient} of a trainer's first batch."""
    import numpy as np
    out += "_" + o.dtype   # others may be asked at the same time
    shutil.rmtree(os.path.join(o.work, out), ignore_errors=True)
    flags = {"steps": 1, "beta1": 0, "grad_clip": 0, "order": "sequential", **flags}
    loss = run_trainer(o, out, **flags)[0]["loss"]
    state = gguf.read(os.path.join(o.work, out, "step-00000001", "optimizer.gguf"))
    grads = {t.name[:-len(".m")]: np.frombuffer(t.data, np.float32).astype(np.float64)
             for t in state.tensors if t.name.endswith(".m")}
    shutil.rmtree(os.path.join(o.work, out))
    return loss, grads


def apart(a, b):
    """|a - b| / |b|, of two arrays; NaN stays NaN."""
    return float(f"{((a - b) ** 2).sum() ** 0.5 / (b ** 2).sum() ** 0.5:.3g}")


# ---- gradients -----------------------------------------------------------------------------------

def write_weights(o, path):
    """A GPT-2 of random weights, biases and norms too, so that a term left out shows; all of them
    bfloat16 numbers, so that every program starts from the same."""
    import numpy as np
    import reference
    L, NH, C = SIZES[o.model]
    random, tensors = np.random.RandomState(1), []
    for name, shape in reference.gpt2_shapes(o.seq, V, L, C).items():
        mean, std = (1, 0.1) if name.endswith("norm.weight") else (0, 0.02)
        values = reference.to_bfloat16(mean + std * random.standard_normal(shape))
        tensors.append((name, "F32", shape[::-1], values))
    gguf.write(path, reference.gpt2_keys(o.seq, L, NH, C), tensors)


def torch_step(o, path, dtype):
    """The loss and {name: gradient} of the same batch by tests/reference.py's GPT-2, all of it in a
    type of PyTorch's."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    import reference
    weights, NH, _ = reference.load_weights(path, dtype)
    weights = {name: w.to(o.device).requires_grad_() for name, w in weights.items()}
    shard = np.fromfile(os.path.join(o.work, "data", "train_000.bin"), np.uint16, offset=1024,
                        count=o.batch * o.seq + 1)
    tokens = torch.tensor(shard.astype(np.int64), device=o.device)
    logits = reference.gpt2(weights, tokens[:-1].view(o.batch, o.seq), NH).flatten(0, 1)
    loss = F.cross_entropy(logits.float(), tokens[1:])
    loss.backward()
    return loss.item(), {name: w.grad.double().cpu().numpy().ravel()
                         for name, w in weights.items()}


def gradients(o):
    """Beside PyTorch in float32, every gradient's error: in float32, two orders of sums; in 16 bits
    at most twice that of PyTorch when it computes in the same 16 bits."""
    import torch
    path = os.path.join(o.work, f"init_{o.dtype}.gguf")
    write_weights(o, path)
    exact, wanted = torch_step(o, path, torch.float32)
    loss, found = one_step(o, "agree", init=path, layers=None, heads=None, channels=None,
                           context=None, seq=o.seq)
    bounds = dict.fromkeys(wanted, ORDERS[o.dtype][0])
    said = {"agree": "gradients", "dtype": o.dtype, "tensors": len(wanted), "loss": loss,
            "torch_loss": exact}
    if o.dtype != "fp32":
        theirs, rounded = torch_step(o, path, getattr(torch, DTYPES[o.dtype]))
        bounds = {name: 2 * apart(rounded[name], g) for name, g in wanted.items()}
        said["torch_loss_same_type"] = theirs
    errors = {name: apart(found[name], g) for name, g in wanted.items()}
    worst = max(wanted, key=lambda name: errors[name] / bounds[name])
    bad = [name for name in wanted if not errors[name] <= bounds[name]]
    said.update(worst=worst, error=errors[worst], bound=bounds[worst], bad=bad)
    print(json.dumps(said))
    same_names = sorted(found) == sorted(wanted)
    return same_names and not bad and near(loss, exact, 10 * ORDERS[o.dtype][1])


def near(a, b, bound):
    return abs(a - b) <= bound * abs(b)


# ---- repeat --------------------------------------------------------------------------------------

def fingerprint(o, out):
    """The sha256 of a finished run: its last checkpoint's two files and its losses."""
    sums, folder = hashlib.sha256(), os.path.join(o.work, out, "step-00000004")
    for name in ("model.gguf", "optimizer.gguf"):
        with open(os.path.join(folder, name), "rb") as f:
            for block in iter(lambda: f.read(1 << 24), b""):
                sums.update(block)
    with open(os.path.join(o.work, out, "log.jsonl")) as f:
        for record in map(json.loads, f):
            sums.update(repr((record["step"], record.get("loss"))).encode())
    shutil.rmtree(os.path.join(o.work, out))
    return sums.hexdigest()


def repeat(o):
    """Four steps, the same again, and the same stopped after two and resumed: equal bits. Two
    blocks: every kernel at its real size, and files half as large."""
    found, flags = {}, dict(schedule="constant", lr=1e-3, layers=2)
    for name, stop in (("first", 4), ("again", 4), ("resumed", 2)):
        out = f"{name}_{o.dtype}"
        shutil.rmtree(os.path.join(o.work, out), ignore_errors=True)
        run_trainer(o, out, steps=stop, **flags)
        if stop == 2:
            run_trainer(o, out, steps=4, resume=True, **flags)
        found[name] = fingerprint(o, out)
    print(json.dumps({"agree": "repeat", "dtype": o.dtype, **found}))
    return len(set(found.values())) == 1


# ---- slices --------------------------------------------------------------------------------------

def slices(o):
    """One block of a model, one step of a batch at once and in four quarters. With --batch 64 the
    logits are more than 2^31: an index of 32 bits would spoil the last third of the rows."""
    shape = dict(layers=1, total_batch=o.batch * o.seq)
    loss, grads = one_step(o, "whole", **shape)
    parts_loss, parts = one_step(o, "parts", batch=o.batch // 4, **shape)
    errors = {name: apart(grads[name], g) for name, g in parts.items()}
    worst = max(errors, key=errors.get)
    bound, loss_bound = ORDERS[o.dtype]
    print(json.dumps({"agree": "slices", "dtype": o.dtype, "logits": o.batch * o.seq * VP,
                      "loss": loss, "parts_loss": parts_loss, "worst": worst,
                      "error": errors[worst], "bound": bound}))
    return all(e <= bound for e in errors.values()) and near(loss, parts_loss, loss_bound)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    questions = {q.__name__: q for q in (gradients, repeat, slices)}
    p.add_argument("question", choices=questions)
    add_shape(p)
    o = p.parse_args()
    if not (o.trainer and o.work):
        p.error("--trainer and --work are needed")
    need_data(o)
    try:
        ok = questions[o.question](o)
    except ImportError as missing:
        print(f"SKIP: {missing} (PyTorch and numpy are needed)")
        return 77
    except RuntimeError as why:   # the trainer's words
        print(f"{o.question}: {why}")
        return 1
    if not ok:
        print(f"{o.question}: they do not agree")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
