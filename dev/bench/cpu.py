#!/usr/bin/env python3
"""cpu.py - `make bench`: the CPU trainer and infer beside their peers, in one interleaved run.

    make bench [ROUNDS=5] [THREADS=2] [WORKS="124M 4x64"] [SVG=build/bench.svg]
               [LLMC=folder] [LLAMA_BENCH=program]

In every round each program does each work once, in turns: an hour in which the machine is slow is
slow for all. Printed is a Markdown table of medians over the rounds; every ratio and every part of
a ceiling is the median of what was found within a round. The ceilings are what the trainer measures
before each work of each round: multiply-adds, and memory read (profile.h).

Data are random tokens, in a temporary folder of about 2 GB. The trainer and llm.c are stopped by
force after the steps that count, so that none is spent on a checkpoint; infer and llama.cpp get a
model of random weights. What is not there is skipped, and says how to get it.
"""
import argparse
import array
import glob
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from statistics import median

from gpu_torch import make_data

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = dict(layers=4, heads=4, channels=128, vocabulary=1024)
GPT2 = dict(layers=12, heads=12, channels=768, vocabulary=50257)
# What is trained; how many steps of a round warm up, and how many count; whether also if not named.
TRAINING = {"124M 4x64": (dict(GPT2, batch=4, seq=64), 1, 4, True),
            "124M 4x1024": (dict(GPT2, batch=4, seq=1024), 1, 1, False),
            "128 channels 8x64": (dict(SMALL, batch=8, seq=64), 15, 60, True),
            "128 channels 8x256": (dict(SMALL, batch=8, seq=256), 5, 20, True)}
INFERENCE = ("124M F32 prompt 512", "124M F32 generate 128")   # tokens
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}   # PyTorch's names, and the trainer's
LIMIT = 1800   # seconds that a program may take for what is asked of it in a round


class Skip(Exception):   # why a program cannot be measured, and what would help
    pass


def part_of_ceiling(name, tokens_per_s, flops, bandwidth):
    """Training: gpt2.h's flops_per_token. A prompt: the forward third of it, with one row of logits
    and half of attention. Generation reads each weight once a token."""
    work, T = TRAINING[name][0] if name in TRAINING else GPT2, 512
    L, _, C, V, *_ = work.values()
    if name in TRAINING:
        return tokens_per_s * (6 * (12 * L * C * C + C * V) + 12 * L * C * work["seq"]) / flops
    if "prompt" in name:
        return tokens_per_s * (2 * (12 * L * C * C + C * V / T) + 2 * L * C * T) / flops
    return tokens_per_s * 4 * (12 * L * C * C + C * V) / bandwidth


# ---- the programs --------------------------------------------------------------------------------
# Each is in the end a function of a work's name that returns tokens a second, and its most memory
# in bytes, 0 if unknown.

def run(words):
    try:
        p = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skip(str(error))
    if p.returncode:
        raise Skip(f"{words[0]}: exit code {p.returncode}: {p.stderr.strip()[-300:]}")
    return p.stdout, p.stderr


def train(name, words, folder, log, pattern):
    """Starts a trainer in a folder, and stops it by force once its log has the milliseconds of
    enough steps. What it says goes to said.txt there."""
    work, drop, count, _ = TRAINING[name]
    ms, memory, end = [], 0, time.monotonic() + LIMIT
    log = os.path.join(folder, log)
    with open(os.path.join(folder, "said.txt"), "w") as f:
        p = subprocess.Popen(words, cwd=folder, stdout=f, stderr=f)
    try:
        while len(ms) < drop + count and p.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            ms = [float(x) for x in re.findall(pattern, text_of(log))]
    finally:
        p.kill()
        if p.returncode is None:
            _, p.returncode, usage = os.wait4(p.pid, 0)
            memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if len(ms) < drop + count:
        raise Skip(text_of(os.path.join(folder, "said.txt")).strip()[-300:])
    return work["batch"] * work["seq"] * 1000 / median(ms[drop:drop + count]), memory


def text_of(path):
    """"": there is no such file, or not yet."""
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as f:
        return f.read()


class Legible:
    def __init__(self, o):
        self.o, self.model = o, os.path.join(o.folder, "124M", "model.gguf")
        for V in SMALL["vocabulary"], GPT2["vocabulary"]:
            make_data(os.path.join(o.folder, str(V)), 1 << 18, V)

    def command(self, work, out, **flags):
        data = os.path.join(self.o.folder, str(work["vocabulary"]))
        flags = {"train": f"{data}/train_*.bin", "tokenizer": f"{data}/tokenizer.gguf", "out": out,
                 "context": 1024, "threads": self.o.threads, "save-minutes": 0, **flags,
                 **{k: v for k, v in work.items() if k != "vocabulary"}}
        return [self.o.train] + [word for k, v in flags.items() for word in (f"--{k}", str(v))]

    def ceilings(self, dtype):
        """Multiply-adds counted as 2, and bytes read, a second."""
        with tempfile.TemporaryDirectory(dir=self.o.folder) as out:
            words = self.command(dict(SMALL, batch=1, seq=64), out, steps=1, dtype=DTYPES[dtype])
            said = run(words + ["--profile"])[1]
        found = re.search(r"ceilings: ([\d.]+) GFLOP/s, ([\d.]+) GB/s", said)
        return [float(x) * 1e9 for x in found.groups()]

    def train(self, name, dtype="float32", threads=None):
        with tempfile.TemporaryDirectory(dir=self.o.folder) as folder:
            words = self.command(TRAINING[name][0], os.path.join(folder, "run"), steps=10 ** 6,
                                 dtype=DTYPES[dtype], threads=threads or self.o.threads)
            return train(name, words, folder, "run/log.jsonl", r'"ms": *([\d.e+-]+)')

    def write_model(self):
        """For infer and llama.cpp; what else a checkpoint holds is not kept."""
        out = os.path.dirname(self.model)
        run(self.command(dict(GPT2, batch=1, seq=64), out, steps=0))
        for checkpoint in glob.glob(os.path.join(out, "step-*")):
            shutil.rmtree(checkpoint)

    def infer(self, name):
        ids, made, what = (512, 1, "prompt") if "prompt" in name else (1, 129, "generation")
        said = run([self.o.infer, "-m", self.model, "--ids", ",".join(["1"] * ids), "-n", str(made),
                    "--ignore-eos", "--threads", str(self.o.threads)])[1]
        return float(re.search(what + r" \d+ tokens, ([\d.]+) tok/s", said)[1]), 0


class Torch:
    """cpu_torch.py, which stays and is asked."""

    def __init__(self, o):
        self.said = os.path.join(o.folder, "torch.txt")
        words = [sys.executable, os.path.join(HERE, "cpu_torch.py"), str(o.threads)]
        with open(self.said, "w") as f:
            self.p = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=f, text=True, bufsize=1)
        self.version = self.answer()

    def answer(self):
        line = self.p.stdout.readline()
        if not line:
            raise Skip(text_of(self.said).strip().splitlines()[-1]
                       + " (pip install torch numpy, or PYTHON=one that has them)")
        answer = json.loads(line)
        if "error" in answer:
            raise Skip(answer["error"])
        return answer

    def train(self, name, dtype, compiled):
        work, drop, count, _ = TRAINING[name]
        shape = dict(work, vocabulary=(work["vocabulary"] + 127) // 128 * 128)   # as all pad it
        print(json.dumps(dict(work=shape, dtype=dtype, compiled=compiled,
                              steps=drop + count)), file=self.p.stdin)
        return work["batch"] * work["seq"] / median(self.answer()[drop:]), 0


def build_llmc(o):
    """llm.c in a folder of its own, where it reads a model and data of fixed names."""
    if not o.llmc:
        raise Skip("LLMC=FOLDER, where its train_gpt2.c is")
    folder = os.path.join(o.folder, "llm.c")
    data = os.path.join(folder, "dev", "data", "tinyshakespeare")
    os.makedirs(data)
    run([os.environ.get("CC", "cc"), "-Ofast", "-march=native", "-fno-finite-math-only", "-fopenmp",
         "-DOMP", "-w", "-I", o.llmc, os.path.join(o.llmc, "train_gpt2.c"), "-o",
         os.path.join(folder, "train_gpt2"), "-lm"])
    for split in "train", "val":
        shutil.copy(os.path.join(o.folder, str(GPT2["vocabulary"]), "train_000.bin"),
                    os.path.join(data, f"tiny_shakespeare_{split}.bin"))
    L, NH, C, V, Vp, T = *GPT2.values(), 50304, 1024
    # Any values do, but for some so small that the processor stumbles over them.
    values = array.array("f", [random.uniform(-0.1, 0.1) for _ in range(1 << 16)]).tobytes()
    size = 4 * (Vp * C + T * C + L * (12 * C * C + 13 * C) + 2 * C)
    with open(os.path.join(folder, "gpt2_124M.bin"), "wb") as f:
        f.write(array.array("i", [20240326, 3, T, V, L, NH, C, Vp] + [0] * 248).tobytes())
        for i in range(0, size, len(values)):
            f.write(values[:size - i])
    words = ["env", f"OMP_NUM_THREADS={o.threads}", "stdbuf", "-oL", "./train_gpt2"]
    return lambda name: train(name, words, folder, "said.txt", r"took ([\d.]+) ms")


def llama_bench(o, model, name):
    if not o.llama_bench:
        raise Skip("LLAMA_BENCH=PROGRAM, its llama-bench")
    sizes = ["-p", "512", "-n", "0"] if "prompt" in name else ["-p", "0", "-n", "128"]
    printed = run([o.llama_bench, "-m", model, *sizes, "-t", str(o.threads), "-r", "2", "-ngl", "0",
                   "-o", "json"])[0]
    return json.loads(printed)[0]["avg_ts"], 0


# ---- the rounds ----------------------------------------------------------------------------------

def programs(o, legible, dtypes, skipped):
    """Of all that are here: name, type, works, and the function."""
    training = [w for w in o.works if w in TRAINING]
    inference = [w for w in o.works if w in INFERENCE]
    found = [("legible", dtype, training, partial(legible.train, dtype=dtype)) for dtype in dtypes]
    if o.threads > 1:
        found.append(("legible, 1 thread", "float32", training, partial(legible.train, threads=1)))
    try:
        torch = Torch(o)
        found += [(f"PyTorch {torch.version.split('+')[0]} {way}", dtype, training,
                   partial(torch.train, dtype=dtype, compiled=way == "compiled"))
                  for dtype in DTYPES for way in ("eager", "compiled")]
    except Skip as why:
        skipped.append(f"PyTorch: {why}")
    try:
        found.append(("llm.c", "float32", {"124M 4x64"} & {*o.works}, build_llmc(o)))
    except Skip as why:
        skipped.append(f"llm.c: {why}")
    if inference:
        legible.write_model()
        found.append(("legible", "float32", inference, legible.infer))
        found.append(("llama.cpp", "float32", inference, partial(llama_bench, o, legible.model)))
    return [(name, dtype, list(works), function) for name, dtype, works, function in found]


def measure(o):
    """results[work][name, type][round] is tokens a second, part of the ceiling and memory.
    ceilings[type] has those of each round and work."""
    legible, skipped, results, ceilings = Legible(o), [], {w: {} for w in o.works}, {"float32": []}
    try:
        legible.ceilings("bfloat16")
        ceilings["bfloat16"] = []
    except Skip as why:
        skipped.append(f"legible, bfloat16: {why}")
    found = programs(o, legible, ceilings, skipped)
    for number in range(o.rounds):
        for work in o.works:
            for dtype in ceilings:
                ceilings[dtype].append(legible.ceilings(dtype))
            turn = [program for program in found if work in program[2]]
            first = number % max(1, len(turn))
            for name, dtype, works, function in turn[first:] + turn[:first]:
                try:
                    speed, memory = function(work)
                except Skip as why:
                    skipped.append(f"{name}, {dtype}, {work}: {why}")
                    works.remove(work)
                    continue
                part = (part_of_ceiling(work, speed, *ceilings[dtype][-1])
                        if dtype in ceilings and "1 thread" not in name else 0)
                results[work].setdefault((name, dtype), {})[number] = speed, part, memory
                print(f"round {number + 1} of {o.rounds}  {work:22} {name:24} {dtype:9} "
                      f"{speed:10.1f} tok/s", file=sys.stderr, flush=True)
    return results, ceilings, skipped


# ---- the table and the picture -------------------------------------------------------------------

def rows_of(by_program):
    """Of each program: name, type, tok/s, part, memory, how many times as fast legible is."""
    for (name, dtype), rounds in by_program.items():
        ours = by_program.get(("legible", dtype), {}) if name != "legible" else {}
        faster = [ours[n][0] / rounds[n][0] for n in rounds if n in ours]
        yield name, dtype, *map(median, zip(*rounds.values())), median(faster or [0])


def print_table(o, results, ceilings, skipped):
    for dtype, found in ceilings.items():
        flops, reads = (median(column) / 1e9 for column in zip(*found))
        print(f"- {o.threads} threads, {dtype}: {flops:.0f} GFLOP/s, {reads:.1f} GB/s read")
    names = re.findall(r"model name\s*: (.*)", text_of("/proc/cpuinfo")) + [platform.machine()]
    print(f"\nMedians of {o.rounds} rounds on {names[0]}.\n\n| work | program | type | ms a step "
          "| tok/s | part of the ceiling | legible is so many times as fast | most memory |\n"
          + "|---" * 8 + "|")
    for work, by_program in results.items():
        for name, dtype, speed, part, memory, faster in rows_of(by_program):
            step = work in TRAINING and TRAINING[work][0]["batch"] * TRAINING[work][0]["seq"]
            cells = [work, name, dtype, f"{1000 * step / speed:,.1f}" if step else "",
                     f"{speed:,.1f}", f"{part:.0%}" if part else "",
                     f"{faster:.2f}" if faster else "", f"{memory / 1e9:.1f} GB" if memory else ""]
            print(f"| {' | '.join(cells)} |")
    for line in skipped:
        print(f"\nNot measured: {line}")


def draw(o, results):
    """A bar for each program's tokens a second, as long as its share of the work's fastest."""
    svg, y = [], 20
    for work, by_program in results.items():
        svg.append(f'<text x="10" y="{y}" font-weight="bold">{work}</text>')
        rows = sorted(rows_of(by_program), key=lambda row: -row[2])
        for name, dtype, speed, part, *_ in rows:
            y += 20
            width = 330 * speed / rows[0][2]
            colour = "#1c6dd0" if name.startswith("legible") else "#9a9a9a"
            note = f", {part:.0%} of the ceiling" if part else ""
            svg.append(f'<text x="240" y="{y}" text-anchor="end">{name}, {dtype}</text>'
                       f'<path fill="{colour}" d="M250 {y - 11}h{width:.1f}v14H250z"/>'
                       f'<text x="{256 + width:.1f}" y="{y}">{speed:,.1f} tok/s{note}</text>')
        y += 36
    os.makedirs(os.path.dirname(o.svg) or ".", exist_ok=True)
    with open(o.svg, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 {y}" '
                'font-family="sans-serif" font-size="12" fill="#444">\n'
                f'<rect width="780" height="{y}" fill="white"/>\n' + "\n".join(svg) + "\n</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("train", "./train_gpt2"), ("infer", "./infer"), ("llmc", ""),
                        ("llama-bench", ""), ("svg", "build/bench.svg"), ("works", "")):
        p.add_argument("--" + name, default=value)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    o = p.parse_args()
    o.train, o.infer = os.path.abspath(o.train), os.path.abspath(o.infer)
    usual = [w for w in TRAINING if TRAINING[w][3]] + list(INFERENCE)
    o.works = o.works.split(",") if o.works else usual
    if not {*o.works} <= {*TRAINING, *INFERENCE}:
        p.error(f'WORKS: expected some of "{",".join([*TRAINING, *INFERENCE])}"')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # not without tidying up
    with tempfile.TemporaryDirectory(prefix="bench.") as o.folder:
        results, ceilings, skipped = measure(o)
    print_table(o, results, ceilings, skipped)
    draw(o, results)
    print(f"picture: {o.svg}", file=sys.stderr)


if __name__ == "__main__":
    main()
