#!/usr/bin/env python3
"""test_gpu_check.py - dev/gpu_check.sh and its helpers, as far as they need neither a GPU nor
PyTorch (test_gpu_torch.py has the rest).

The script runs with the CPU trainer (TRAIN, default ./train_gpt2) in place of what it would have
built, and with stand-ins for ncu and compute-sanitizer, which know these programs' flags.
GPU_LAYERS (default build/gpu_layers_sm90) is dev/bench/gpu_layers.cpp on the emulator.
"""
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile

from check import check, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCH = os.path.join(ROOT, "dev", "bench")
sys.path.insert(0, BENCH)
import gpu_report   # noqa: E402
import gpu_torch    # noqa: E402

GPU_LAYERS = os.path.abspath(os.environ.get("GPU_LAYERS",
                                            os.path.join(ROOT, "build", "gpu_layers_sm90")))
TRAIN = os.path.abspath(os.environ.get("TRAIN", os.path.join(ROOT, "train_gpt2")))
work = ""   # the temporary folder

# Takes the flags that ncu and compute-sanitizer have, and runs the program behind them. ncu's table
# has a line of chatter before it, a row of units, and kernels of several launches.
TOOL = '''#!{python}
import subprocess, sys
own = {{"--clock-control": 1, "--csv": 0, "--page": 1, "--print-units": 1, "--print-kernel-base": 1,
       "--log-file": 1, "--metrics": 1, "--tool": 1, "--error-exitcode": 1}}
words, flags = sys.argv[1:], {{}}
while words[0].startswith("-"):
    name, count = words[0], own[words[0]]
    flags[name], words = words[1:1 + count], words[1 + count:]
if "--log-file" in flags:
    metrics = flags["--metrics"][0].split(",")
    rows = [["ID", "Kernel Name"] + metrics, ["", ""] + ["unit"] * len(metrics)]
    launches = [("copy_kernel", 1000), ("copy_kernel", 3000), ("mma", 500)]
    for i, (kernel, ns) in enumerate(launches):
        values = [ns, "1,000,000", 3000000, 0, 50, 168]
        rows.append([i, kernel] + values[:len(metrics)])
    with open(flags["--log-file"][0], "w") as f:
        f.write("==PROF== Connected to process 1\\n")
        f.writelines(",".join('"%s"' % x for x in row) + "\\n" for row in rows)
if flags.get("--tool") == ["{broken}"]:
    sys.exit("========= ERROR SUMMARY: 1 error")
sys.exit(subprocess.run(words).returncode)
'''


def path(*parts):
    return os.path.join(work, *parts)


def program(name, text):
    """An executable script; its path."""
    with open(path(name), "w") as f:
        f.write(text)
    os.chmod(path(name), stat.S_IRWXU)
    return path(name)


def gpu_check(name, stages, compiler="true", **environment):
    """Runs the script with folders of its own; exit code, report and what it printed."""
    p = subprocess.run(["sh", os.path.join(ROOT, "dev", "gpu_check.sh"), path(name + "_out")],
                       capture_output=True, text=True, timeout=120, env={
                           **os.environ, "REHEARSE": "1", "WORK": path(name), "STAGES": stages,
                           "PYTHON": sys.executable, "NVCC": compiler, "FORMS": "bf16",
                           "COMMIT": "0123abc", **environment})
    report = path(name + "_out", "report.md")
    text = ""
    if os.path.exists(report):
        with open(report) as f:
            text = f.read()
    return p.returncode, text, p.stdout + p.stderr


def built(name):
    """A folder in which the script finds what it would have built."""
    os.makedirs(path(name, "bin"))
    os.symlink(TRAIN, path(name, "bin", "train_gpt2cu_bf16"))
    os.symlink(shutil.which("true"), path(name, "bin", "test_layers_bf16"))
    gpu_torch.make_data(path(name, "data"), tokens=1000, V=300)


def trainer(name, change):
    """A trainer that is not what it says: a line of Python changes its words first."""
    return program(name, f"#!{sys.executable}\nimport os, sys\nwords = sys.argv[1:]\n{change}\n"
                         f"os.execv({TRAIN!r}, [{TRAIN!r}] + words)\n")


# ---- the script ----------------------------------------------------------------------------------

def test_command_lines():
    """The command lines that the script writes itself are such as the trainer takes."""
    built("lines")
    tool = program("tool", TOOL.format(python=sys.executable, broken=""))
    code, report, said = gpu_check("lines", "kernels sanitize", NCU=tool, SANITIZER=tool)
    check(code == 0, f"command lines: exit code {code}: {said[-800:]}")
    for name in ("ncu", "memcheck_heads_64", "synccheck_heads_128", "initcheck_layers"):
        check(f"| {name} | passed |" in report, f"command lines: {name}: {report}")
    check("| copy_kernel | 2 | 2.0 | 88.9% | 4.0 | 2,000 |  | 50% | 0 | 168 |" in report,
          f"ncu's table: {report}")
    check("0123abc" in report, "the report does not name the commit")


def test_survives():
    """A part that fails is named, and the rest goes on."""
    built("survives")
    tool = program("broken", TOOL.format(python=sys.executable, broken="racecheck"))
    code, report, said = gpu_check("survives", "kernels sanitize", NCU=path("no_ncu"),
                                   SANITIZER=tool)
    check(code == 1 and "something failed" in said, f"racecheck fails: exit code {code}: {said}")
    for line in ("| kernels | ncu | absent |", "| racecheck_heads_64 | failed |",
                 "| racecheck_layers | failed |", "| synccheck_layers | passed |",
                 "- Not measured: ncu (absent)."):
        check(line in report, f"racecheck fails: no \"{line}\" in {report}")
    built("nothing")   # by an earlier run: not to be taken for what now does not compile
    os.symlink(shutil.which("true"), path("nothing", "bin", "test_model_bf16"))
    code, report, said = gpu_check("nothing", "build tests", compiler="false")
    check(code == 1, f"no compiler: exit code {code}: {said}")
    for line in ("| build | compile_train_bf16 | failed |", "| tests | test_model_bf16 | absent |",
                 "| build | data | passed |"):
        check(line in report, f"no compiler: no \"{line}\" in {report}")


def test_refusals():
    code, _, said = gpu_check("refused", "build training")
    check(code == 1 and 'STAGES: "training"' in said, f"an unknown stage: {code}: {said}")
    code, _, said = gpu_check("refused", "build", compiler=path("no_nvcc"))
    check(code == 1 and "no_nvcc was not found" in said, f"no compiler: {code}: {said}")
    p = subprocess.run(["make", "-s", "nvflags", "PRECISION=fp8"], cwd=ROOT, capture_output=True,
                       text=True)
    check(p.returncode != 0 and "PRECISION=fp8" in p.stderr, f"PRECISION=fp8: {p.stderr}")


def test_precision():
    """What a GPU's tensor cores have is what is built for it, if nothing else is asked for."""
    for words, macro in ((["ARCH=sm_75"], "-DLEGIBLE_FP16"), (["ARCH=sm_80"], "-DLEGIBLE_BF16"),
                         (["ARCH=sm_120"], "-DLEGIBLE_BF16"),
                         (["ARCH=sm_75", "PRECISION=fp32"], None)):
        flags = subprocess.run(["make", "-s", "nvflags", *words], cwd=ROOT, capture_output=True,
                               text=True).stdout.split()
        found = [flag for flag in flags if flag.startswith("-DLEGIBLE")]
        check("-arch=" + words[0][5:] in flags and found == [macro] * bool(macro),
              f"{words}: {flags}")


# ---- the report ----------------------------------------------------------------------------------

def way(name, round_number, ms):
    return {"model": "gpt2", "dtype": "bf16", "B": 32, "T": 1024, "way": name,
            "round": round_number, "ms": ms, "steps": 25, "tok_per_s": round(32768000 / ms)}


FOUND = {
    "layers_bf16": [
        {"model": "gpt2", "layer": "ceilings", "gb_per_s": 4300, "tflop_per_s": 788.0},
        {"model": "gpt2", "layer": "adamw", "calls": 2, "us": 500.0, "gb_per_s": 3010,
         "tflop_per_s": 1.0, "bound": "bytes", "percent": 70.0},
        {"model": "gpt2", "layer": "qkv forward", "calls": 12, "us": 250.0, "gb_per_s": 900,
         "tflop_per_s": 591.0, "bound": "flops", "percent": 75.0}],
    "products_bf16": [
        {"model": "gpt2", "layer": "ceilings", "gb_per_s": 4300, "tflop_per_s": 788.0},
        {"model": "gpt2", "product": "step", "ms": 75.0},
        {"model": "gpt2", "product": "dinp", "epilogue": "", "n": 32768, "m": 768, "k": 2304,
         "calls": 12, "first_ms": 0.2, "percent": 74.0, "offered": 1, "best": 1, "best_ms": 0.2},
        {"model": "gpt2", "product": "forward", "epilogue": "bias", "n": 32768, "m": 2304,
         "k": 768, "calls": 12, "first_ms": 0.25, "percent": 59.0, "offered": 8, "best": 3,
         "best_ms": 0.2}],
    "training_bf16": [way("legible", 0, 80.0), way("PyTorch compiled pure flash", 0, 60.0),
                      way("legible", 1, 100.0), way("PyTorch compiled pure flash", 1, 90.0),
                      {"way": "compiled pure flash", "kernels": ["flash_fwd"]},
                      {"model": "gpt2", "dtype": "bf16", "way": "PyTorch eager pure cudnn",
                       "error": "RuntimeError"}],
    "attention_bf16": [{"attention": "legible", "dtype": "bfloat16", "hs": 64, "kernel": "mine",
                        "errors": {"out": 1e-3, "dq": 2e-3, "dk": 3e-3, "dv": 4e-3},
                        "forward_ms": 0.5, "forward_tflop_per_s": 394.0, "backward_ms": 2.0,
                        "backward_tflop_per_s": 197.0}],
    "agree_repeat_bf16": [{"agree": "repeat", "dtype": "bf16", "first": "aa", "again": "aa",
                           "resumed": "ab"}]}


def write_report(name, verdicts):
    os.makedirs(path(name, "logs"))
    for log, rows in FOUND.items():
        with open(path(name, "logs", log + ".txt"), "w") as f:
            f.write("".join(json.dumps(row) + "\n" for row in rows) + '{"cut sho')
    with open(path(name, "checks.jsonl"), "w") as f:
        for stage, one, verdict in verdicts:
            f.write(json.dumps({"stage": stage, "check": one, "verdict": verdict,
                                "seconds": 1}) + "\n")
    p = subprocess.run([sys.executable, os.path.join(BENCH, "gpu_report.py"), path(name),
                        path(name), "date=2026-01-01", "GPU=An H200"], capture_output=True,
                       text=True)
    with open(path(name, "report.md")) as f:
        return p.returncode, f.read()


def test_report():
    code, report = write_report("report", [("build", "data", "passed"),
                                           ("sanitize", "racecheck", "unfinished"),
                                           ("kernels", "ncu", "failed"),
                                           ("kernels", "ncu", "refused")])
    check(code == 0, f"the report's exit code is {code}: {report}")
    for line in (
            "### On An H200", "date 2026-01-01",
            "4,300 GB/s copied", "788.0 TFLOP/s in a product",
            "| gpt2 | bf16 | legible | 32 x 1024 | 80.00, 100.00 | 25 | 368,640 |  |  |",
            # 60 / 80 and 90 / 100: the median of the rounds' ratios, not the ratio of medians
            "| PyTorch compiled pure flash | 32 x 1024 | 60.00, 90.00 | 25 | 455,111 | 0.82 | "
            "flash_fwd |",
            "| 64 | bfloat16 | legible | 0.500 | 50% | 2.000 | 25% | "
            "1.0e-03 2.0e-03 3.0e-03 4.0e-03 | mine |",
            "| qkv forward | 250 | 12 | 3.00 | 75% | 225 | 900 | 591.0 | 75% of the product |",
            "| adamw | 500 | 2 | 1.00 | 25% | 1,505 | 3010 | 1.0 | 70% of the copy |",
            "| all of these |  |  | 4.00 |",
            # 12 * (0.25 - 0.2)
            "| forward | 32768 x 2304 | 768 | bias | 12 | 0.250 | 59% | 0.200 | 3 of 8 | 0.60 |\n"
            "| dinp | 32768 x 768 | 2304 |  | 12 | 0.200 | 74% | 0.200 | 1 of 1 | 0.00 |",
            "would gain 0.60 ms of a step of 75.00: 0.8%, less than 2%: leave it",
            "stopped and resumed: NOT equal (sha256 aa, aa, ab)",
            "- Not measured: PyTorch eager pure cudnn (RuntimeError)",
            "- Not measured: racecheck (unfinished)."):
        check(line in report, f"no \"{line}\" in {report}")
    check("ncu | failed" not in report, "an older verdict stands beside a newer one")
    said = gpu_report.choice(25.0, FOUND["products_bf16"][2:])
    check("0.60 ms of a step of 25.00: 2.4%, and 2% is enough: time" in said, f"choice: {said}")
    for verdict in (("speed", "training_bf16", "unfinished"), ("tests", "test_layers", "failed")):
        code, _ = write_report(verdict[1], [verdict])
        check(code == 1, f"{verdict}: the report's exit code is {code}")
    check(gpu_report.kernels(path("no.csv")) == {}, "kernels without ncu's file")


# ---- the helpers ---------------------------------------------------------------------------------

def test_zipf():
    """Token k is as frequent as 1 / (k + 1): the harmonic number of 100 is 5.187."""
    tokens = gpu_torch.zipf(20000, 100)
    counts = [tokens.count(k) for k in (0, 1, 9)]
    check(max(tokens) < 100 and min(tokens) == 0, "zipf: tokens that do not exist")
    for count, k in zip(counts, (0, 1, 9)):
        wanted = 20000 / 5.187 / (k + 1)
        check(abs(count - wanted) < 5 * wanted ** 0.5, f"zipf: {count} of {k}, expected {wanted}")
    check(tokens == gpu_torch.zipf(20000, 100), "zipf: other tokens for the same seed")


def test_repeat():
    """Equal bits are equal; another rate in the run that is resumed is noticed, and one that fails
    says why."""
    gpu_torch.make_data(path("repeat", "data"), tokens=2000, V=300)
    changed = trainer("changed", "if '--resume' in words: words[words.index('--batch') + 1] = '3'")
    other = trainer("other", "if 'resumed' in words[words.index('--out') + 1]:\n"
                             "    words[words.index('--lr') + 1] = '0.00101'")
    for name, run, wanted in (("equal", TRAIN, 0), ("another rate", other, 1),
                              ("refused", changed, 1)):
        p = subprocess.run([sys.executable, os.path.join(BENCH, "gpu_agree.py"), "repeat",
                            "--trainer", run, "--work", path("repeat"), "--dtype", "fp32",
                            "--model", "tiny", "--batch", "2", "--seq", "16"],
                           capture_output=True, text=True)
        check(p.returncode == wanted, f"repeat, {name}: exit code {p.returncode}: {p.stdout}"
                                      f"{p.stderr}")
        if name == "refused":
            check("--batch 3: the run was begun with 2" in p.stdout, f"repeat: {p.stdout}")


def test_products():
    """Every product of a step, as often as it is called, and its epilogue; what is offered for it,
    but not what cannot do the epilogue. Times mean nothing here."""
    p = subprocess.run([GPU_LAYERS, *"products tiny 2 16 2 2 16 32".split()], capture_output=True,
                       text=True, timeout=120,
                       env={**os.environ, "EMU_CHECK": "0", "OMP_NUM_THREADS": "1"})
    check(p.returncode == 0, f"products: exit code {p.returncode}: {p.stderr}")
    _, step, *found = map(json.loads, p.stdout.splitlines())
    check(step["product"] == "step" and step["ms"] > 0, f"products: {step}")
    wanted, rows, OC_C = {}, 2 * 16, [(48, 16), (16, 16), (64, 16), (16, 64), (50304, 16)]
    for OC, C in OC_C:
        calls, into, out_of = 2, "bias", ""
        if OC == 50304:
            calls, into = 1, ""
        elif OC == 64:
            into = "bias and gelu"
        elif C == 64:
            out_of = "gelu backward"
        wanted.update({("forward", rows, OC, C): (calls, into),
                       ("dinp", rows, C, OC): (calls, out_of),
                       ("dweight", OC, C, rows): (calls, "")})
    said = {(r["product"], r["n"], r["m"], r["k"]): (r["calls"], r["epilogue"]) for r in found}
    check(len(found) == 15 and said == wanted, f"products: {said}, expected {wanted}")
    for r in found:
        check(r["offered"] == 2 and r["best"] in ((1,) if r["epilogue"] else (1, 2)),
              f"products: which is the best: {r}")
        check(r["first_ms"] > 0 and (r["best"] == 2 or r["best_ms"] == r["first_ms"]),
              f"products: how long: {r}")
    p = subprocess.run([GPU_LAYERS, *"product tiny 2 16 2 2 16 32".split()], capture_output=True,
                       text=True)
    check(p.returncode == 1 and "usage: gpu_layers layers|products" in p.stderr,
          f"product: {p.returncode}: {p.stderr}")


def main():
    global work
    with tempfile.TemporaryDirectory(prefix="test_gpu_check.") as work:
        return run_tests([test_command_lines, test_survives, test_refusals, test_precision,
                          test_report, test_zipf, test_repeat, test_products])


if __name__ == "__main__":
    sys.exit(main())
