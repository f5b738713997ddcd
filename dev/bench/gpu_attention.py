#!/usr/bin/env python3
"""gpu_attention.py - the trainer's attention beside PyTorch's, in one process, taking turns.

    gpu_attention.py LIBRARY [--device cuda] [--batch 32] [--seq 1024] [--channels 768]
                             [--head-sizes 64 128] [--rounds 5]

LIBRARY is gpu_library.cpp linked with train_gpt2.cu, or with train_gpt2.cpp (--device cpu).

Is it right? out, dq, dk and dv of the first and the last sequence beside float64's
(tests/reference.py), as |error| / |value|. Ours may be off by twice as much as the best of PyTorch
in the same type: a wrong mask, scale or stride is off by far more.

How fast is it? The median of the rounds, beside each of PyTorch's backends, pinned, and named by
the kernel that took longest. PyTorch's backward is that of q, k and v alone, without the split.

Prints one JSON object a line. Exit code 1: ours is not right. 77: there is no PyTorch.
"""
import argparse
import ctypes
import json
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    sys.path.insert(0, os.path.join(HERE, os.pardir, os.pardir, "tests"))
    import reference
except ImportError as missing:
    print(f"SKIP: {missing} (PyTorch and numpy are needed)")
    sys.exit(77)

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}
ALONE = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}   # the bound where no backend of PyTorch's can be asked


class Ours:
    """The library's functions on device memory of its own."""

    def __init__(self, library, qkv, dout, NH):
        B, T, C = dout.shape
        self.library, self.size, self.dout = library, (B, T, C, NH), dout
        self.qkv_p, self.dout_p = self.put(qkv), self.put(dout)
        self.out_p, self.dqkv_p = self.room(dout.nbytes), self.room(qkv.nbytes)
        self.lse_p, self.D_p = self.room(4 * B * NH * T), self.room(4 * B * NH * T)

    def room(self, bytes):
        return ctypes.c_void_p(self.library.legible_alloc(ctypes.c_size_t(bytes)))

    def put(self, tensor):
        host, p = tensor.cpu(), self.room(tensor.nbytes)
        self.library.legible_to_device(p, ctypes.c_void_p(host.data_ptr()),
                                       ctypes.c_size_t(host.nbytes))
        return p

    def get(self, p, *shape):
        host = torch.empty(shape, dtype=self.dout.dtype)
        self.library.legible_to_host(ctypes.c_void_p(host.data_ptr()), p,
                                     ctypes.c_size_t(host.nbytes))
        return host

    def forward(self):
        self.library.legible_attention_forward(self.out_p, self.lse_p, self.qkv_p, *self.size)

    def backward(self):
        self.library.legible_attention_backward(self.dqkv_p, self.D_p, self.dout_p, self.qkv_p,
                                                self.out_p, self.lse_p, *self.size)

    def values(self):
        B, T, C, _ = self.size
        return self.get(self.out_p, B, T, C), self.get(self.dqkv_p, B, T, 3 * C)

    def close(self):
        for p in (self.qkv_p, self.dout_p, self.out_p, self.dqkv_p, self.lse_p, self.D_p):
            self.library.legible_free(p)


class Torch:
    """scaled_dot_product_attention by one backend, on views of qkv as a model has them."""

    def __init__(self, backend, qkv, dout, NH):
        B, T, C = dout.shape
        self.backend, self.dout = backend, dout.view(B, T, NH, C // NH).transpose(1, 2)
        self.leaves = [t.view(B, T, NH, C // NH).transpose(1, 2).detach().requires_grad_()
                       for t in qkv.split(C, -1)]

    def forward(self):
        with sdpa_kernel(self.backend):
            self.out = F.scaled_dot_product_attention(*self.leaves, is_causal=True)

    def backward(self):
        self.grads = torch.autograd.grad(self.out, self.leaves, self.dout, retain_graph=True)

    def values(self):
        rows = [t.detach().transpose(1, 2).flatten(2) for t in (self.out, *self.grads)]
        return rows[0], torch.cat(rows[1:], -1)


# ---- is it right? --------------------------------------------------------------------------------

def exact(qkv, dout, NH):
    qkv = qkv.double().requires_grad_()
    out = reference.causal_attention(qkv, NH)[0]
    out.backward(dout.double())
    return out.detach(), qkv.grad


def errors(values, wanted, ends):
    """{name: relative error} of out, dq, dk and dv; NaN stays NaN."""
    (out, dqkv), (want, dwant) = values, wanted
    pairs = [(out, want), *zip(dqkv.chunk(3, -1), dwant.chunk(3, -1))]
    return {name: float(f"{(got[ends].to(want) - want).norm() / want.norm():.3g}")
            for name, (got, want) in zip(("out", "dq", "dk", "dv"), pairs)}


def right(ours, others, bound):
    """For each value, at most twice the best of the others."""
    return all(error <= (2 * min(o[name] for o in others) if others else bound)
               for name, error in ours.items())


# ---- how fast? -----------------------------------------------------------------------------------

def milliseconds(work, device):
    """Of one call, from as many as take 30 ms or more: the last call's end is waited for."""
    def timed(calls):
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / calls
    timed(1)
    return 1000 * timed(max(1, min(100, int(0.03 / timed(1)) + 1)))


def kernel_name(work, device):
    """The kernel that takes longest; "" where PyTorch's profiler is not let in."""
    if device != "cuda":
        return ""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
            work()
            torch.cuda.synchronize()
        return max(p.key_averages(), key=lambda event: event.device_time_total).key[:80]
    except Exception as why:
        print(f"PyTorch's profiler: {why!r}", file=sys.stderr)
        return ""


def compare(o, library, dtype, hs):
    """Measures one head size; whether ours is right."""
    B, T, C, NH = o.batch, o.seq, o.channels, o.channels // hs
    torch.manual_seed(hs)
    qkv = torch.randn(B, T, 3 * C, device=o.device).to(getattr(torch, dtype))
    dout = torch.randn(B, T, C, device=o.device).to(qkv)
    ends = [0, B - 1]
    wanted = exact(qkv[ends], dout[ends], NH)
    ways, rows = {"legible": Ours(library, qkv, dout, NH)}, []
    ways.update({f"PyTorch {name}": Torch(backend, qkv, dout, NH)
                 for name, backend in BACKENDS.items()})
    for name, way in list(ways.items()):
        row = {"attention": name, "dtype": dtype, "hs": hs, "B": B, "T": T, "C": C}
        try:
            way.forward()
            way.backward()
            row.update(errors=errors(way.values(), wanted, ends),
                       kernel=kernel_name(way.forward, o.device))
            rows.append(row)
        except RuntimeError as why:   # a backend that does not take this type, or is not there
            print(json.dumps({**row, "refused": str(why).split("\n", 1)[0][:200]}), flush=True)
            del ways[name]
    times = {name: ([], []) for name in ways}
    for _ in range(o.rounds):
        for name, way in ways.items():
            times[name][0].append(milliseconds(way.forward, o.device))
            times[name][1].append(milliseconds(way.backward, o.device))
    others = [row["errors"] for row in rows if row["attention"] != "legible"]
    ok = right(rows[0]["errors"], others, ALONE[dtype])
    for row in rows:
        for what, found, work in zip(("forward", "backward"), times[row["attention"]], (2, 5)):
            ms = statistics.median(found)
            row.update({f"{what}_ms": round(ms, 4),
                        f"{what}_tflop_per_s": round(work * B * T * T * C / ms / 1e9, 1)})
        print(json.dumps(row), flush=True)
    ways["legible"].close()
    return ok


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("library")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--head-sizes", type=int, nargs="+", default=[64, 128])
    for name, value in (("batch", 32), ("seq", 1024), ("channels", 768), ("rounds", 5)):
        p.add_argument("--" + name, type=int, default=value)
    o = p.parse_args()
    library = ctypes.CDLL(os.path.abspath(o.library))
    library.legible_init.restype = ctypes.c_char_p
    library.legible_alloc.restype = ctypes.c_void_p
    dtype = library.legible_init().decode()
    wrong = [hs for hs in o.head_sizes if not compare(o, library, dtype, hs)]
    for hs in wrong:
        print(f"attention of heads of {hs} in {dtype} is not right: see its errors above")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
