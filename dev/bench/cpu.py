#!/usr/bin/env python3
"""cpu.py - `make bench`: the CPU trainer and infer beside their peers, in one interleaved run.

    make bench [ROUNDS=5] [THREADS=2] [WORKS="124M 4x64"] [SVG=build/bench.svg]
               [LLMC=folder] [LLAMA_BENCH=program]

In every round each program does each work once, in turns: an hour in which the machine is slow is
slow for all. Printed is a Markdown table of medians over the rounds; every ratio and every part of
a ceiling is the median of what was found within a round. The ceilings are what the trainer measures
before each work of each round: multiply-adds, and memory read (profile.h).

The data are random tokens, made in a temporary folder of about 2 GB. The trainer and llm.c are
stopped by force after the steps that count, so that nobody writes a checkpoint; llama.cpp gets a
model that the trainer wrote. What is not there is skipped, and says how to get it.
"""
import argparse
import array
import glob
import json
import os
import platform
import pty
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial

from gpu_torch import make_data

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = dict(layers=4, heads=4, channels=128, vocabulary=1024)
GPT2 = dict(layers=12, heads=12, channels=768, vocabulary=50257)
# What is trained; how many steps of it count in a round; whether it is done without being named.
TRAINING = {"124M 4x64": (dict(GPT2, batch=4, seq=64), 4, True),
            "124M 4x1024": (dict(GPT2, batch=4, seq=1024), 1, False),
            "128 channels 8x64": (dict(SMALL, batch=8, seq=64), 60, True),
            "128 channels 8x256": (dict(SMALL, batch=8, seq=256), 20, True)}
# What infer does with the 124M model in float32: a prompt of 512 tokens, then 128 more.
INFERENCE = {"124M F32 prompt 512": 512, "124M F32 generate 128": 128}
LIMIT = 1800   # seconds that a program may take for what is asked of it in a round


class Skip(Exception):
    """Why a program cannot be measured, and what would help."""


def part_of_ceiling(name, tokens_per_s, flops, bandwidth):
    """Training: gpt2.h's flops_per_token. A prompt: the forward third of it, but logits only once.
    Generation reads each weight once a token."""
    work, T = TRAINING[name][0] if name in TRAINING else GPT2, 512
    L, C, V = work["layers"], work["channels"], work["vocabulary"]
    if name in TRAINING:
        return tokens_per_s * (6 * (12 * L * C * C + C * V) + 12 * L * C * work["seq"]) / flops
    if "prompt" in name:
        return tokens_per_s * (2 * 12 * L * C * C + 2 * L * C * T + 2 * C * V / T) / flops
    return tokens_per_s * 4 * (12 * L * C * C + C * V) / bandwidth


def run_until(p, enough, read):
    """Stops p when read() returns enough. Returns that, and the most memory that p had."""
    timer, found, memory = threading.Timer(LIMIT, p.kill), [], None
    timer.start()
    try:
        while len(found) < enough and p.poll() is None:
            found = read()
    finally:
        timer.cancel()
        p.kill()
        if p.returncode is None:
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found, memory


# ---- the programs --------------------------------------------------------------------------------
# Each is a function of a work's name that returns tokens a second, and the most memory or None.

def run(words, **options):
    try:
        p = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skip(str(error))
    if p.returncode:
        raise Skip(f"{words[0]}: {(p.stderr.strip() or 'no reason given')[-300:]}")
    return p.stdout, p.stderr


def step_median(name, seconds):
    """From the seconds of a round's steps, of which the first only warm up."""
    work, count, _ = TRAINING[name]
    return work["batch"] * work["seq"] / statistics.median(seconds[-count:])


def steps_needed(name):
    return TRAINING[name][1] + max(1, TRAINING[name][1] // 4)


class Legible:
    def __init__(self, o):
        self.o, self.model = o, os.path.join(o.work, "124M", "model.gguf")
        for V in SMALL["vocabulary"], GPT2["vocabulary"]:
            make_data(os.path.join(o.work, str(V)), 1 << 18, V)

    def command(self, work, out, **flags):
        data = os.path.join(self.o.work, str(work["vocabulary"]))
        flags = {"train": f"{data}/train_*.bin", "tokenizer": f"{data}/tokenizer.gguf", "out": out,
                 "context": 1024, "threads": self.o.threads, "save-minutes": 0, **flags,
                 **{k: v for k, v in work.items() if k != "vocabulary"}}
        return [self.o.train] + [word for k, v in flags.items() for word in (f"--{k}", str(v))]

    def ceilings(self, dtype):
        """Multiply-adds counted as 2, and bytes read, a second."""
        with tempfile.TemporaryDirectory(dir=self.o.work) as out:
            said = run(self.command(TRAINING["128 channels 8x64"][0], out, steps=1, dtype=dtype)
                       + ["--profile"])[1]
        found = re.search(r"ceilings: ([\d.]+) GFLOP/s, ([\d.]+) GB/s", said)
        return [float(x) * 1e9 for x in found.groups()]

    def train(self, name, dtype="fp32", threads=None):
        with tempfile.TemporaryDirectory(dir=self.o.work) as out:
            log = os.path.join(out, "run", "log.jsonl")

            def steps():
                time.sleep(0.1)
                if not os.path.exists(log):
                    return []
                with open(log) as f:
                    return [float(ms) / 1000 for ms in re.findall(r'"ms": *([\d.e+-]+)', f.read())]

            with open(os.path.join(out, "stderr"), "w+") as errors:
                p = subprocess.Popen(
                    self.command(TRAINING[name][0], os.path.join(out, "run"), steps=10 ** 6,
                                 dtype=dtype, threads=threads or self.o.threads), stderr=errors)
                found, memory = run_until(p, steps_needed(name), steps)
                errors.seek(0)
                if len(found) < steps_needed(name):
                    raise Skip(errors.read().strip()[-300:])
        return step_median(name, found[:steps_needed(name)]), memory

    def write_model(self):
        """For infer and llama.cpp; what else a checkpoint holds is not kept."""
        out = os.path.dirname(self.model)
        run(self.command(dict(GPT2, batch=1, seq=64), out, steps=0))
        for folder in glob.glob(os.path.join(out, "step-*")):
            shutil.rmtree(folder)

    def infer(self, name):
        ids, made = (512, 1) if "prompt" in name else (1, 129)
        said = run([self.o.infer, "-m", self.model, "--ids", ",".join(["1"] * ids), "-n", str(made),
                    "--ignore-eos", "--threads", str(self.o.threads)])[1]
        pattern = "prompt" if "prompt" in name else "generation"
        return float(re.search(pattern + r" \d+ tokens, ([\d.]+) tok/s", said)[1]), None


class Torch:
    def __init__(self, o):
        self.errors = open(os.path.join(o.work, "torch.txt"), "w+")
        self.p = subprocess.Popen([sys.executable, os.path.join(HERE, "cpu_torch.py"),
                                   str(o.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.errors, text=True)
        self.version = self.answer()

    def answer(self):
        line = self.p.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Skip(f"{self.errors.read().strip()[-200:]} ({sys.executable} -m pip install "
                       "torch numpy, or PYTHON=one that has it)")
        answer = json.loads(line)
        if "error" in answer:
            raise Skip(answer["error"])
        return answer

    def train(self, name, dtype, compiled):
        work = dict(TRAINING[name][0])
        work["vocabulary"] = (work["vocabulary"] + 127) // 128 * 128   # as all others pad it
        question = dict(work=work, dtype=dtype, compiled=compiled, steps=steps_needed(name))
        self.p.stdin.write(json.dumps(question) + "\n")
        self.p.stdin.flush()
        return step_median(name, self.answer()), None


class LlmC:
    """Built from its folder. It reads a model and data of fixed names from where it runs."""

    def __init__(self, o):
        self.o, self.folder = o, os.path.join(o.work, "llm.c")
        data = os.path.join(self.folder, "dev", "data", "tinyshakespeare")
        os.makedirs(data)
        run([os.environ.get("CC", "cc"), "-Ofast", "-march=native", "-fno-finite-math-only",
             "-fopenmp", "-DOMP", "-w", "-I", o.llmc, os.path.join(o.llmc, "train_gpt2.c"), "-o",
             os.path.join(self.folder, "train_gpt2"), "-lm"])
        for split in "train", "val":
            shutil.copy(os.path.join(o.work, str(GPT2["vocabulary"]), "train_000.bin"),
                        os.path.join(data, f"tiny_shakespeare_{split}.bin"))
        self.write_model()

    def write_model(self):
        L, C, V, Vp, T = GPT2["layers"], GPT2["channels"], GPT2["vocabulary"], 50304, 1024
        rng = random.Random(1)
        weights = array.array("f", [rng.gauss(0, 0.02) for _ in range(1 << 16)])
        zeros, ones = (array.array("f", [x]) * (1 << 16) for x in (0, 1))
        sizes = [(weights, Vp * C), (weights, T * C), (ones, L * C), (zeros, L * C),
                 (weights, L * 3 * C * C), (zeros, L * 3 * C), (weights, L * C * C), (zeros, L * C),
                 (ones, L * C), (zeros, L * C), (weights, L * 4 * C * C), (zeros, L * 4 * C),
                 (weights, L * 4 * C * C), (zeros, L * C), (ones, C), (zeros, C)]
        with open(os.path.join(self.folder, "gpt2_124M.bin"), "wb") as f:
            header = [20240326, 3, T, V, L, GPT2["heads"], C, Vp]
            f.write(array.array("i", header + [0] * (256 - len(header))).tobytes())
            for values, n in sizes:
                for i in range(0, n, len(values)):
                    f.write(values[:min(len(values), n - i)].tobytes())

    def train(self, name):
        screen, theirs = pty.openpty()   # to a pipe it would write its lines late
        p = subprocess.Popen([os.path.join(self.folder, "train_gpt2")], cwd=self.folder,
                             env={**os.environ, "OMP_NUM_THREADS": str(self.o.threads)},
                             stdout=theirs, stderr=theirs)
        os.close(theirs)
        text = b""

        def steps():
            nonlocal text
            try:
                text += os.read(screen, 4096)
            except OSError:   # it ended
                p.wait()
            return [float(ms) / 1000 for ms in re.findall(rb"took ([\d.]+) ms", text)]

        found, memory = run_until(p, 3, steps)   # so slow that two steps must do
        os.close(screen)
        if len(found) < 3:
            raise Skip(text.decode(errors="replace").strip()[-300:])
        return step_median(name, found[1:]), memory


def llama_bench(o, model, name):
    sizes = ["-p", "512", "-n", "0"] if "prompt" in name else ["-p", "0", "-n", "128"]
    printed = run([o.llama_bench, "-m", model, *sizes, "-t", str(o.threads), "-r", "2", "-ngl", "0",
                   "-o", "json"])[0]
    return json.loads(printed)[0]["avg_ts"], None


# ---- the rounds ----------------------------------------------------------------------------------

def programs(o, legible, skipped):
    """Of all that are here: name, type, works, and the function."""
    training = [w for w in o.works if w in TRAINING]
    inference = [w for w in o.works if w in INFERENCE]
    found = [("legible", "float32", training, legible.train),
             ("legible", "bfloat16", training, partial(legible.train, dtype="bf16"))]
    if o.threads > 1:
        found.append(("legible, 1 thread", "float32", training, partial(legible.train, threads=1)))
    try:
        torch = Torch(o)
        found += [(f"PyTorch {torch.version.split('+')[0]} {way}", dtype, training,
                   partial(torch.train, dtype=dtype, compiled=way == "compiled"))
                  for dtype in ("float32", "bfloat16") for way in ("eager", "compiled")]
    except Skip as why:
        skipped.append(f"PyTorch: {why}")
    if not o.llmc:
        skipped.append("llm.c: LLMC=FOLDER, where its train_gpt2.c is")
    elif "124M 4x64" in o.works:
        found.append(("llm.c", "float32", ["124M 4x64"], LlmC(o).train))
    if inference:
        legible.write_model()
        found.append(("legible", "float32", inference, legible.infer))
    if not o.llama_bench:
        skipped.append("llama.cpp: LLAMA_BENCH=PROGRAM, its llama-bench")
    elif inference:
        found.append(("llama.cpp", "float32", inference, partial(llama_bench, o, legible.model)))
    return found


def measure(o, legible, skipped):
    """results[work][name, type] is, for each round, tokens a second, part of the ceiling and memory;
    the ceilings come with it, by type."""
    results, ceilings, away = {w: {} for w in o.works}, {}, set()
    found = programs(o, legible, skipped)
    for number in range(o.rounds):
        for work in o.works:
            limits = {}
            for dtype, flag in ("float32", "fp32"), ("bfloat16", "bf16"):
                if ("legible", dtype) not in away:
                    try:
                        limits[dtype] = legible.ceilings(flag)
                        ceilings.setdefault(dtype, []).append(limits[dtype])
                    except Skip as why:   # the processor has no such instructions
                        away.add(("legible", dtype))
                        skipped.append(f"legible, {dtype}: {why}")
            turn = [p for p in found if work in p[2]]
            for name, dtype, _, function in turn[number % len(turn):] + turn[:number % len(turn)]:
                if (name, dtype) in away or (name, dtype, work) in away:
                    continue
                try:
                    speed, memory = function(work)
                except Skip as why:
                    away.add((name, dtype, work))
                    skipped.append(f"{name}, {dtype}, {work}: {why}")
                    continue
                part = (part_of_ceiling(work, speed, *limits[dtype])
                        if dtype in limits and "1 thread" not in name else None)
                results[work].setdefault((name, dtype), {})[number] = speed, part, memory
                print(f"round {number + 1} of {o.rounds}  {work:22} {name:24} {dtype:9} "
                      f"{speed:10.1f} tok/s", file=sys.stderr, flush=True)
    return results, ceilings


# ---- the table and the picture -------------------------------------------------------------------

def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    return median(ours[n][0] / theirs[n][0] for n in theirs if n in ours)


def rows_of(work, by_program):
    """Of each program: name, type, tok/s, part, how many times as fast legible is, memory."""
    for (name, dtype), rounds in by_program.items():
        speed, part, memory = (median(r[i] for r in rounds.values()) for i in range(3))
        ours = by_program.get(("legible", dtype), {})
        faster = "" if name == "legible" else ratio(ours, rounds)
        yield name, dtype, speed, part, faster, memory


def table(o, results, ceilings, skipped):
    for dtype, found in ceilings.items():
        flops, reads = (median(column) / 1e9 for column in zip(*found))
        print(f"{o.threads} threads of {processor()}: {flops:.0f} GFLOP/s in {dtype}, {reads:.1f} "
              "GB/s read.")
    print(f"Medians of {o.rounds} rounds.\n\n| work | program | type | ms a step | tok/s | part of "
          "the ceiling | legible is so many times as fast | most memory |\n"
          "|---|---|---|---|---|---|---|---|")
    for work, by_program in results.items():
        for name, dtype, speed, part, faster, memory in rows_of(work, by_program):
            tokens = work in TRAINING and TRAINING[work][0]["batch"] * TRAINING[work][0]["seq"]
            print(f"| {work} | {name} | {dtype} | {f'{1000 * tokens / speed:,.1f}' * bool(tokens)} | "
                  f"{speed:,.{0 if speed >= 1000 else 1}f} | {f'{part:.0%}' if part else ''} | "
                  f"{f'{faster:.2f}' if faster else ''} | "
                  f"{f'{memory / 1e9:.1f} GB' if memory else ''} |")
    for line in skipped:
        print(f"\nNot measured: {line}")


def processor():
    try:
        with open("/proc/cpuinfo") as f:
            names = re.findall(r"model name\s*: (.*)", f.read())
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def picture(o, results):
    """A bar for each program's tokens a second, as long as its share of the work's fastest."""
    svg, y = [], 20
    for work, by_program in results.items():
        rows = list(rows_of(work, by_program))
        svg.append(f'<text x="10" y="{y}" font-weight="bold">{work}</text>')
        for name, dtype, speed, part, *_ in rows:
            y += 20
            width = 330 * speed / max(row[2] for row in rows)
            colour = "#1c6dd0" if name.startswith("legible") else "#9a9a9a"
            note = f"{speed:,.{0 if speed >= 1000 else 1}f} tok/s" + (
                f", {part:.0%} of the ceiling" if part else "")
            svg.append(f'<text x="210" y="{y}" text-anchor="end">{name}, {dtype}</text>'
                       f'<rect x="220" y="{y - 11}" width="{width:.1f}" height="14" '
                       f'fill="{colour}"/><text x="{226 + width:.1f}" y="{y}">{note}</text>')
        y += 36
    os.makedirs(os.path.dirname(o.svg) or ".", exist_ok=True)
    with open(o.svg, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {y}" '
                'font-family="sans-serif" font-size="12" fill="#444">\n'
                f'<rect width="760" height="{y}" fill="white"/>\n' + "\n".join(svg) + "\n</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("train", "./train_gpt2"), ("infer", "./infer"), ("llmc", ""),
                        ("llama-bench", ""), ("svg", "build/bench.svg"), ("works", "")):
        p.add_argument("--" + name, default=value)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    o = p.parse_args()
    known = [*TRAINING, *INFERENCE]
    o.works = [w.strip() for w in o.works.split(",") if w.strip()] or [
        w for w in known if w not in TRAINING or TRAINING[w][2]]
    for work in o.works:
        if work not in known:
            p.error(f'WORKS: "{work}", expected some of "{",".join(known)}"')
    skipped = []
    with tempfile.TemporaryDirectory(prefix="bench.") as o.work:
        results, ceilings = measure(o, Legible(o), skipped)
    table(o, results, ceilings, skipped)
    picture(o, results)
    print(f"picture: {o.svg}", file=sys.stderr)


if __name__ == "__main__":
    main()
