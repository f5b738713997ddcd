#!/usr/bin/env python3
"""bits.py - one run by many builds of the trainer: all must write the same bits.

    make test-bits

matmul.h and layers.h promise that the bits of a run depend neither on the width of the processor's
vectors, nor on the compiler or how hard it optimises, nor on the number of threads. So this builds
the trainer for each kind of processor, compiler and level, takes the same few steps with 1, 2, 3
and 7 threads, and compares the SHA-256 of model.gguf, of the log (losses, norms, validation) and of
the sampled text. Arm is emulated by qemu-user where the machine is none. What cannot be built or
run here is skipped, and says why; fewer than two builds are a failure.

The last build is a control: its compiler may fuse multiplications and additions as it likes. Its
bits must differ, or these steps would not notice that either.
"""
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import test_trainer as t
from check import counts

BUILDS = os.path.join(t.ROOT, "build", "bits")
THREADS = (1, 2, 3, 7)
# Vectors of 8, 16 and 4 floats: the flag that asks for them, and what the machines are called.
KINDS = {"AVX2": ("-march=haswell", ("x86_64",)),
         "AVX-512": ("-march=skylake-avx512", ("x86_64",)),
         "Arm": ("-march=armv8-a", ("aarch64", "arm64"))}
# Sizes that no loop divides evenly: heads of 45 channels, 45 positions, 90 rows, 260 tokens; and
# products over 90, 270, 360 and 384 steps of k, of which one panel of matmul.h holds 192.
# The first norms are clipped, the last is not.
STEPS = dict(steps=4, layers=2, heads=2, channels=90, context=45, batch=2, total_batch=180, lr=0.01,
             warmup=1, weight_decay=0.1, grad_clip=4, eval_every=2, eval_batches=2, sample_every=4,
             seed=7, save_minutes=0)
# Whether a program for that kind of processor can be built, and run here.
PROBE = """
#include <vector>
int main() {
#if defined(__AVX512F__)
    return !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
    return !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma");
#endif
}
"""


class Build:
    def __init__(self, kind, compiler, level, extra=""):
        flag, machines = KINDS[kind]
        self.kind, self.name = kind, " ".join(filter(None, (kind, compiler, level, extra)))
        self.folder = os.path.join(BUILDS, self.name.replace(" ", ""))
        self.compiler, self.emulator = compiler, []
        if platform.machine() not in machines:   # the names that Debian gives
            target = machines[0] + "-linux-gnu"
            self.emulator = ["qemu-" + machines[0], "-L", "/usr/" + target]
            self.compiler = (f"{target}-g++" if compiler == "g++"
                             else f"{compiler} --target={target}")
        self.settings = {"BUILD": self.folder, "BIN": self.folder, "CXX": self.compiler,
                         "NATIVE": flag, "OPTIMIZE": level, "EXTRA": extra}

    def why_not(self):
        """What this machine lacks for it; "" if nothing."""
        probe = os.path.join(self.folder, "probe")
        os.makedirs(self.folder, exist_ok=True)
        with open(probe + ".cpp", "w") as f:
            f.write(PROBE)
        compilation = self.compiler.split() + [self.settings["NATIVE"], "-o", probe, probe + ".cpp"]
        for words, reason in ((compilation, f"{self.compiler} cannot build for it"),
                              (self.emulator + [probe], "this processor has no such instructions")):
            try:
                if subprocess.run(words, capture_output=True).returncode:
                    return reason
            except FileNotFoundError:
                return f"there is no {words[0]}"
        return ""

    def make(self):
        program = os.path.join(self.folder, "train_gpt2")
        # Nothing of a make that started this script: its CXX is not for these builds.
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        p = subprocess.run(["make", program, *(f"{k}={v}" for k, v in self.settings.items())],
                           cwd=t.ROOT, env=outer, capture_output=True, text=True)
        if p.returncode:
            sys.exit(f"{self.name}: {p.stderr}")
        return self.emulator + [program]

    def run(self):
        """For each number of threads, the SHA-256 of each thing that must not differ."""
        begin, program, results = time.monotonic(), self.make(), {}
        for threads in THREADS:
            out = f"{os.path.basename(self.folder)}-{threads}"
            flags = t.command({**t.base(out), **STEPS, "threads": threads})[1:]
            printed, _ = t.execute(program + flags)
            things = {"model.gguf": t.data(out, "model.gguf"), "samples": printed,
                      "log": repr(t.steady(out)).encode()}
            results[threads] = {k: hashlib.sha256(v).hexdigest() for k, v in things.items()}
        print(f"{self.name:36} {time.monotonic() - begin:4.0f} s  model.gguf "
              + " ".join(sorted({r["model.gguf"][:16] for r in results.values()})), flush=True)
        return results


def compare(builds, results):
    """Prints every run whose bits are not those of the first, and returns how many there are."""
    wanted, different = results[0][THREADS[0]], 0
    for build, runs in zip(builds, results):
        for threads, found in runs.items():
            others = [thing for thing in wanted if found[thing] != wanted[thing]]
            if others:
                different += 1
                print(f"FAIL: {build.name}, {threads} threads: other {', '.join(others)} than "
                      f"{builds[0].name} with {THREADS[0]}")
    return different


def main():
    builds = [Build(kind, compiler, level) for kind in KINDS for compiler in ("g++", "clang++")
              for level in ("-O1", "-O3")]
    ready = []
    for build in builds:
        missing = build.why_not()
        if missing:
            print(f"SKIP: {build.name}: {missing}")
        else:
            ready.append(build)
    if len(ready) < 2:
        sys.exit(f"only {len(ready)} of {len(builds)} builds can be had: nothing to compare "
                 "(apt-get install g++ clang libomp-dev g++-aarch64-linux-gnu qemu-user)")
    # Threads wait asleep: there are more of them than cores.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    control = Build(ready[0].kind, ready[0].name.split()[1], "-O3", "-ffp-contract=fast")
    with tempfile.TemporaryDirectory(prefix="bits.") as work:
        t.work = os.path.realpath(work)
        t.make_data()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            *results, fused = pool.map(Build.run, ready + [control])
    failed = compare(ready, results)
    if fused[THREADS[0]] == results[0][THREADS[0]]:
        failed += 1
        print(f"FAIL: {control.name}: the same bits, so a difference would not show")
    print(f"{len(ready)} builds, {len(THREADS)} runs of each: {failed or 'none'} failed")
    return 1 if failed or counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
