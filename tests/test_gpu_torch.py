#!/usr/bin/env python3
"""test_gpu_torch.py - what dev/gpu_check.sh asks beside PyTorch, asked of the CPU trainer and the
CPU's PyTorch (make test-torch): the same programs, tiny sizes.

TRAIN names the trainer (default ./train_gpt2). CXX compiles the library with its attention.
"""
import json
import os
import subprocess
import sys
import tempfile

from check import check, run_tests
import test_gpu_check as t

try:
    import numpy   # noqa: F401
    import torch
except ImportError as missing:
    print(f"SKIP: {missing} (PyTorch and numpy are needed)")
    sys.exit(77)


def ask(program, *words, code=0):
    """Runs one of dev/bench; the JSON objects that it prints."""
    p = subprocess.run([sys.executable, os.path.join(t.BENCH, program), *map(str, words)],
                       capture_output=True, text=True, timeout=300)
    check(p.returncode == code, f"{program} {' '.join(map(str, words))}: exit code {p.returncode}, "
                                f"expected {code}: {p.stdout[-600:]} {p.stderr[-600:]}")
    return [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{")]


def shape(trainer=t.TRAIN, dtype="fp32", batch=2, seq=32):
    return ["--trainer", trainer, "--work", t.path("torch"), "--dtype", dtype, "--model", "tiny",
            "--batch", batch, "--seq", seq, "--device", "cpu"]


def test_gradients():
    """The trainer agrees; one that starts from other weights, or reads another batch, does not."""
    said, = ask("gpu_agree.py", "gradients", *shape())
    check(said["tensors"] == 28 and said["error"] < 1e-4 and not said["bad"], f"gradients: {said}")
    other = t.trainer("other_init", "at = words.index('--init')\nif words[at + 1:]: del words[at:"
                                    "at + 2]; words += ['--layers', '2', '--heads', '2', "
                                    "'--channels', '128', '--context', '32']")
    said, = ask("gpu_agree.py", "gradients", *shape(other), code=1)
    check(len(said["bad"]) == 28, f"gradients of another model: {said}")
    other = t.trainer("other_batch", "words[words.index('--order') + 1] = 'shuffled'")
    ask("gpu_agree.py", "gradients", *shape(other), code=1)


def test_slices():
    said, = ask("gpu_agree.py", "slices", *shape(batch=4))
    check(said["logits"] == 4 * 32 * 50304 and said["error"] < 1e-5, f"slices: {said}")
    other = t.trainer("other_parts", "if 'parts' in words[words.index('--out') + 1]: "
                                     "words += ['--seed', '2']")
    ask("gpu_agree.py", "slices", *shape(other, batch=4), code=1)


def test_training():
    """Each way has its turn; a backend that is not there is told, and costs nobody else theirs."""
    said = ask("gpu_torch.py", *shape(), "--rounds", 2, "--steps", 2, "--warmup", 1, "--ways",
               "eager pure flash,eager pure cudnn,eager autocast flash")
    found = [(r["way"], r.get("round", "error" in r)) for r in said]
    check(sorted(found) == [("PyTorch eager autocast flash", True), ("PyTorch eager pure cudnn", 1),
                            ("PyTorch eager pure flash", 0), ("PyTorch eager pure flash", 1),
                            ("legible", 0), ("legible", 1)], f"training: {found}")
    failing = t.trainer("failing", "words += ['--channels', '7']")
    said = ask("gpu_torch.py", *shape(failing), "--rounds", 1, "--steps", 1, "--ways",
               "eager pure cudnn", code=1)
    check("--channels" in {r["way"]: r for r in said}["legible"]["error"], f"training: {said}")
    p = subprocess.run([sys.executable, os.path.join(t.BENCH, "gpu_torch.py"), "--work", t.work,
                        "--ways", "eager flash"], capture_output=True, text=True)
    check(p.returncode == 2 and '"eager flash": expected one of' in p.stderr, f"--ways: {p.stderr}")


def test_attention():
    """The CPU's attention beside float64; and what would count as wrong."""
    import gpu_attention
    library = t.path("library.so")
    subprocess.run([os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-march=native", "-fopenmp",
                    "-ffp-contract=off", "-fPIC", "-shared", "-I", t.ROOT, "-o", library,
                    os.path.join(t.ROOT, "train_gpt2.cpp"),
                    os.path.join(t.BENCH, "gpu_library.cpp")], check=True)
    said = ask("gpu_attention.py", library, "--device", "cpu", "--batch", 3, "--seq", 96,
               "--channels", 128, "--rounds", 1)
    for hs in (64, 128):
        rows = {r["attention"]: r for r in said if r["hs"] == hs}
        check("refused" in rows["PyTorch cudnn"], f"attention: {rows}")
        for name in ("legible", "PyTorch flash"):
            check(max(rows[name]["errors"].values()) < 1e-6 and rows[name]["backward_ms"] > 0,
                  f"attention: {rows[name]}")
    fine, off, nan = ({"out": e, "dq": 1e-3} for e in (1.9e-3, 2.1e-3, float("nan")))
    theirs = [{"out": 1e-3, "dq": 1e-3}, {"out": 5e-3, "dq": 1e-3}]
    for ours, others, wanted in ((fine, theirs, True), (off, theirs, False), (nan, theirs, False),
                                 (fine, [], True), (nan, [], False)):
        check(gpu_attention.right(ours, others, 1e-2) == wanted, f"right: {ours}, {others}")


def main():
    tests = [test_gradients, test_slices]
    try:
        from torch.nn.attention import sdpa_kernel   # noqa: F401
        tests += [test_training, test_attention]
    except ImportError:
        print(f"SKIP: training, attention: PyTorch {torch.__version__} cannot choose a backend")
    with tempfile.TemporaryDirectory(prefix="test_gpu_torch.") as t.work:
        return run_tests(tests)


if __name__ == "__main__":
    sys.exit(main())
