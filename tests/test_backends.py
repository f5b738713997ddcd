#!/usr/bin/env python3
"""test_backends.py - one training run by train_gpt2.cpp, and by train_gpt2.cu on the emulator.

TRAIN names the first program (default ./train_gpt2). TRAIN_CUDA is what the names of the others
begin with: the same CUDA code built for float32, bfloat16, float16, and for bfloat16 with
cuBLASLt's GELU (default build/train, for build/train_fp32, _bf16, _fp16 and _sm90).
The emulator checks every access to memory on the way.
"""
import os
import re
import shutil
import sys
import tempfile
import time

import test_trainer as t
from check import check, run_tests

CPU = t.TRAIN
CUDA = os.path.abspath(os.environ.get("TRAIN_CUDA", os.path.join(t.ROOT, "build", "train")))
STEPS = 20
# Two orders of float32 additions differ by a few times 1e-7. bfloat16 keeps 8 bits: a correct run
# of these 20 steps from GPT-2's initialisation stays within 6e-4, and one that drops layernorm's
# bias gradients is off by 3.8e-2.
BOUNDS = {"fp32": 1e-5, "bf16": 5e-3, "fp16": 5e-3, "sm90": 5e-3}
FORMS = ("fp32", "bf16", "fp16")


def on(program, function, *arguments, **flags):
    """test_trainer's train() or resume() with another program."""
    t.TRAIN = program
    return function(*arguments, **flags)


def compare(out, reference, bound):
    """Every record's losses, and how far apart they were at most."""
    a, b = t.log(out), t.log(reference)
    check(len(a) == len(b) > 1, f"{out}: {len(a)} records, and {reference} has {len(b)}")
    far = 0
    for x, y in zip(a, b):
        for key in ("loss", "val_loss"):
            check((key in x) == (key in y),
                  f"{out}: record {x['step']}: {key} is in one log only")
            if key in x and key in y:
                apart = abs(float(x[key]) - float(y[key])) / float(y[key])
                check(apart <= bound,
                      f"{out}: record {x['step']}: {key} {x[key]}, on the CPU {y[key]}")
                far = max(far, apart)
        check(x["tokens"] == y["tokens"] and x.get("lr") == y.get("lr"),
              f"{out}: record {x['step']}: tokens or lr")
    print(f"{out}: within {far:.1e} of {reference} (bound {bound:.0e})")


def test_losses():
    on(CPU, t.train, "cpu", steps=STEPS)
    for form, bound in BOUNDS.items():
        begin = time.monotonic()
        on(f"{CUDA}_{form}", t.train, form, steps=STEPS)
        print(f"{form}: {STEPS} steps in {time.monotonic() - begin:.1f} s")
        compare(form, "cpu", bound)


def test_head_size():
    """Heads of 64 channels, as GPT-2 has them."""
    flags = dict(steps=3, channels=128, heads=2)
    on(CPU, t.train, "cpu_64", **flags)
    for form in ("fp32", "bf16"):   # float16 has float32's kernels
        on(f"{CUDA}_{form}", t.train, f"{form}_64", **flags)
        compare(f"{form}_64", "cpu_64", BOUNDS[form])


def test_crossing():
    """A run begun on the CPU, continued under the emulator, and ended on the CPU, against one that
    never left it. In 16 bits too: master weights are float32, so a checkpoint is the same."""
    flags = dict(steps=6, save_every=2, eval_every=2, keep=0, batch=2, total_batch=4 * t.T,
                 schedule="constant")
    on(CPU, t.train, "stayed", **flags)
    on(CPU, t.train, "begun", **{**flags, "steps": 2})
    for form in FORMS:
        shutil.copytree(t.path("begun"), t.path(f"crossed_{form}"))
        for program, steps in ((f"{CUDA}_{form}", 4), (CPU, 6)):
            _, err = on(program, t.resume, f"crossed_{form}", steps=steps)
            check(f"resumed after step {steps - 2}\n" in err, f"crossing: {err}")
        check(t.checkpoints(f"crossed_{form}") == [2, 4, 6],
              f"crossing: {t.checkpoints(f'crossed_{form}')}")
        compare(f"crossed_{form}", "stayed", BOUNDS[form])
    a, b = t.tensors("crossed_fp32", "model.gguf"), t.tensors("stayed", "model.gguf")
    check(sorted(a) == sorted(b), "crossing: other tensors")
    a, b = (t.data(out, "step-00000002", "model.gguf") for out in ("crossed_fp32", "stayed"))
    check(a == b, "crossing: the CPU's own part of the run differs")


def test_same_program():
    """The CUDA trainer has the CPU's flags, and makes the same weights of the same seed."""
    helps = []
    for program in (CPU, *(f"{CUDA}_{form}" for form in FORMS)):
        out, _ = t.execute([program, "--help"])
        helps.append(out.replace(program.encode(), b"PROGRAM"))
    check(len(set(helps)) == 1, "--help differs")
    for form in FORMS:
        on(f"{CUDA}_{form}", t.train, f"initial_{form}", steps=0)
        on(CPU, t.train, f"initial_cpu_{form}", steps=0)
        t.same_file((f"initial_{form}", "model.gguf"), (f"initial_cpu_{form}", "model.gguf"),
                    "initial weights")
    out, _ = on(f"{CUDA}_fp32", t.train, "samples", steps=1, sample_every=1)
    same, _ = on(CPU, t.train, "samples_cpu", steps=1, sample_every=1)
    check(out == same and b"--- sample after step 1" in out,
          f"samples: {out!r}, on the CPU {same!r}")


def with_scale(source, out, scale, steps):
    """A copy of a run whose newest checkpoint says that steps were taken with a loss scale."""
    shutil.copytree(t.path(source), t.path(out))
    file = t.path(out, t.newest(out), "optimizer.gguf")
    state = t.gguf.read(file)
    t.gguf.write(file, {**state.keys, "legible.loss_scale": ("u64", scale),
                        "legible.loss_scale_steps": ("u64", steps)}, state.tensors)


def scale_of(out):
    state = t.gguf.read(t.path(out, t.newest(out), "optimizer.gguf"))
    return state.value("legible.loss_scale"), state.value("legible.loss_scale_steps")


def test_loss_scale():
    """float16: a step whose gradients overflow is not taken, but computed again with half the
    scale, and the run goes on as if nothing had been; after 2,000 steps the scale doubles. All of
    it survives a resume, by a trainer that needs no scale as well."""
    program, flags = f"{CUDA}_fp16", dict(steps=6, batch=2, total_batch=4 * t.T, save_every=1,
                                          keep=0, schedule="constant", val=None)
    on(CPU, t.train, "unscaled", **flags)
    on(program, t.train, "scaled", **{**flags, "steps": 2})
    check(scale_of("scaled") == (65536, 2), f"a run begins with a scale of {scale_of('scaled')}")
    # 2^24 / (4 * T) is more than float16 has.
    with_scale("scaled", "overflow", 1 << 24, 7)
    shutil.copytree(t.path("overflow"), t.path("stopped"))
    _, err = on(program, t.resume, "overflow", steps=6)
    said = re.findall(r"step 3: gradients beyond float16; again, with the loss times (\d+)\n", err)
    halves = [1 << 23 - i for i in range(len(said))]
    check(list(map(int, said)) == halves != [], f"an overflow: {said} in {err}")
    check(scale_of("overflow") == (halves[-1], 4), f"an overflow: then {scale_of('overflow')}")
    compare("overflow", "unscaled", BOUNDS["fp16"])
    for steps in (3, 6):
        on(program, t.resume, "stopped", steps=steps)
    t.same_run("stopped", "overflow", "an overflow, then resumed")
    # It grows.
    with_scale("scaled", "grown", 1024, 1998)
    for last, trainer, expected in ((3, program, (1024, 1999)), (4, CPU, (1024, 1999)),
                                    (5, program, (2048, 0)), (6, program, (2048, 1))):
        on(trainer, t.resume, "grown", steps=last)
        check(scale_of("grown") == expected, f"after step {last}: {scale_of('grown')}")
    compare("grown", "unscaled", BOUNDS["fp16"])


def test_conflicts():
    """No two rows that tensor cores load at once lie in the same banks of shared memory, nor does
    anything else in attention have to wait for a bank."""
    os.environ["EMU_STATS"] = "1"
    for channels, heads in ((128, 1), (128, 2), (40, 2)):   # of 20: the last lanes have no part
        _, err = on(f"{CUDA}_bf16", t.train, f"conflicts_{channels}_{heads}", steps=1,
                    channels=channels, heads=heads)
        stats = re.findall(r"stats of (attention_\w+_kernel)<.*\n((?: {5}.*\n)*)", err)
        check(len(stats) == 3, f"statistics of {len(stats)} kernels, expected 3: {err}")
        for kernel, lines in stats:
            check("; 0 bank conflicts\n" in lines,
                  f"heads of {channels // heads}: {kernel}:\n{lines}")
    del os.environ["EMU_STATS"]


def test_launches():
    """A step is as few launches as it can be: what goes over all tensors is one, however many
    there are, and the sums for a layernorm's weight and bias are one, a block for every 8."""
    os.environ["EMU_STATS"] = "1"
    _, err = on(f"{CUDA}_bf16", t.train, "launches", steps=1, val=None, channels=128, layers=3,
                batch=2, total_batch=2 * 2 * t.T)
    del os.environ["EMU_STATS"]
    stats = {kernel: (int(launches), int(blocks)) for kernel, launches, blocks in re.findall(
        r"stats of (\w+_kernel)\S*: (\d+) launches, (\d+) blocks", err)}
    norms, products = 2 * 3 + 1, 4 * 3
    sums = (norms * 2 * 128 + 3 * (3 + 1 + 4 + 1) * 128) // 8
    for kernel, expected in (("adamw_kernel", 1), ("zero_gradients_kernel", 1),
                             ("sum_losses_kernel", 2),
                             ("add_parts_kernel", 2 * (norms + products))):
        check(stats.get(kernel, (0,))[0] == expected,
              f"{kernel}: {stats.get(kernel)} launches and blocks, expected {expected} launches")
    check(stats["add_parts_kernel"][1] == 2 * sums,
          f"add_parts_kernel: {stats['add_parts_kernel'][1]} blocks, expected {2 * sums}")


def main():
    with tempfile.TemporaryDirectory(prefix="test_backends.") as work:
        t.work = os.path.realpath(work)
        t.make_data()
        return run_tests([test_losses, test_head_size, test_crossing, test_same_program,
                          test_loss_scale, test_conflicts, test_launches])


if __name__ == "__main__":
    sys.exit(main())
