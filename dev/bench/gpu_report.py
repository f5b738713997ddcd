#!/usr/bin/env python3
"""gpu_report.py - what dev/gpu_check.sh has found so far, in FOLDER's report.md, gpu_check.json
and logs.txt.

    gpu_report.py WORK FOLDER NAME=VALUE...

WORK/checks.jsonl has a line for each check, the last of a name counts; WORK/logs/NAME.txt is its
output, in which measurements are JSON objects, one a line; WORK/ncu.csv is ncu's. report.md says
what became of each check, and ends with a section for doc/performance.md, headed by the NAME=VALUE:
date, commit, GPU. Exit code 1 if a check failed. One that did not finish counts as failed, but in
the stages that work while there is time.
"""
import csv
import glob
import json
import os
import re
import statistics
import sys

# What ncu is asked for, and what a row of its table is made of.
NCU = {"ns": "gpu__time_duration.sum", "read": "dram__bytes_read.sum",
       "written": "dram__bytes_write.sum",
       "conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
       "busy": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
       "registers": "launch__registers_per_thread"}

WORTH_CHOOSING = 0.02   # of a step: what a choice of algorithms must gain to be built and kept

WHILE_THERE_IS_TIME = ("warm_up", "sanitize")   # stages


# ---- reading -------------------------------------------------------------------------------------

def objects(pattern):
    """The lines that are JSON objects, of files that may not be there, or end within a line."""
    found = []
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                if line.startswith("{") and line.endswith("}\n"):
                    found.append(json.loads(line))
    return found


def kernels(path):
    """{kernel: [a dict of NCU's values for each launch]}. Before its table, ncu may say other
    things; below the names of the columns stands a row of units."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8", errors="replace", newline="") as f:
        lines = f.readlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    launches = {}
    for row in csv.DictReader(lines[begin:]):
        if (row["ID"] or "").isdigit() and all(row.get(metric) for metric in NCU.values()):
            values = {k: float(row[metric].replace(",", "")) for k, metric in NCU.items()}
            launches.setdefault(row["Kernel Name"], []).append(values)
    return launches


# ---- tables --------------------------------------------------------------------------------------

def table(head, rows):
    if not rows:
        return []
    return ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|",
            *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def training_table(training):
    """The ratio is the median of the rounds' own, each against the same round of ours."""
    rows, ms = [], {}
    names = {r["way"]: ", ".join(r["kernels"]) for r in training if "kernels" in r}
    for r in training:
        if "ms" in r:
            ms.setdefault((r["model"], r["dtype"], r["way"]), {})[r["round"]] = r
    for (model, dtype, way), rounds in ms.items():
        ours = ms.get((model, dtype, "legible"), {})
        ratios = [r["ms"] / ours[n]["ms"] for n, r in rounds.items() if n in ours]
        faster = f"{statistics.median(ratios):.2f}" if ratios and way != "legible" else ""
        some = next(iter(rounds.values()))
        rows.append([model, dtype, way, f"{some['B']} x {some['T']}",
                     ", ".join(f"{r['ms']:.2f}" for r in rounds.values()), some["steps"],
                     f"{statistics.median(r['tok_per_s'] for r in rounds.values()):,.0f}", faster,
                     names.get(way.replace("PyTorch ", ""), "")])
    return table(["model", "type", "trained by", "batch", "ms a step (each round)",
                  "steps timed a round", "tok/s", "legible is so many times as fast",
                  "attention's kernels"], rows)


def attention_table(attention, peak):
    rows = []
    for r in attention:
        if "refused" in r:
            continue
        errors = " ".join(f"{e:.1e}" for e in r["errors"].values())
        part = [f"{r[way + '_tflop_per_s'] / peak:.0%}" if peak and r["dtype"] == "bfloat16" else ""
                for way in ("forward", "backward")]
        rows.append([r["hs"], r["dtype"], r["attention"], f"{r['forward_ms']:.3f}", part[0],
                     f"{r['backward_ms']:.3f}", part[1], errors, r["kernel"]])
    return table(["head size", "type", "attention by", "forward ms", "of the product",
                  "backward ms", "of the product", "errors of out, dq, dk, dv", "kernel"], rows)


def layers_table(layers):
    rows, total = [], sum(r["us"] * r["calls"] / 1000 for r in layers)
    for r in sorted(layers, key=lambda r: -r["us"] * r["calls"]):
        ms = r["us"] * r["calls"] / 1000
        what = "copy" if r["bound"] == "bytes" else "product"
        rows.append([r["layer"], f"{r['us']:,.0f}", f"{r['calls']:g}", f"{ms:.2f}",
                     f"{ms / total:.0%}", f"{r['us'] * r['gb_per_s'] / 1000:,.0f}", r["gb_per_s"],
                     r["tflop_per_s"], f"{r['percent']:.0f}% of the {what}"])
    if rows:
        rows.append(["all of these", "", "", f"{total:.2f}", "", "", "", "", ""])
    return table(["layer", "us", "calls a step", "ms a step", "of them", "MB", "GB/s", "TFLOP/s",
                  "reached"], rows)


def products_table(products):
    """Algorithms are counted from 1 in the heuristic's order; training takes the first."""
    rows = []
    for r in sorted(products, key=lambda r: -r["first_ms"] * r["calls"]):
        rows.append([r["product"], f"{r['n']} x {r['m']}", r["k"], r["epilogue"], r["calls"],
                     f"{r['first_ms']:.3f}", f"{r['percent']:.0f}%", f"{r['best_ms']:.3f}",
                     f"{r['best']} of {r['offered']}", f"{gain(r):.2f}"])
    return table(["product", "of", "sums of", "epilogue", "calls a step", "first's ms",
                  "of the product", "best's ms", "which", "would gain, ms a step"], rows)


def gain(r):
    return (r["first_ms"] - r["best_ms"]) * r["calls"]


def choice(step_ms, products):
    """What to do about it."""
    total = sum(map(gain, products))
    part = total / step_ms
    return (f"The best of the algorithms that cuBLASLt offers, for each product, would gain "
            f"{total:.2f} ms of a step of {step_ms:.2f}: {part:.1%}, "
            + (f"less than {WORTH_CHOOSING:.0%}: leave it, and take the first."
               if part < WORTH_CHOOSING else
               f"and {WORTH_CHOOSING:.0%} is enough: time them once for each product, and save the "
               "choice beside the GPU's name and cuBLAS's version."))


def kernels_table(launches, copied):
    """Of all launches of a kernel: GB/s from and to memory, not from caches."""
    rows, everything = [], sum(v["ns"] for some in launches.values() for v in some)
    for name, some in sorted(launches.items(), key=lambda x: -sum(v["ns"] for v in x[1])):
        ns = sum(v["ns"] for v in some)
        bytes = sum(v["read"] + v["written"] for v in some)
        busy = sum(v["busy"] * v["ns"] for v in some) / ns
        rows.append([name[:60], len(some), f"{ns / len(some) / 1000:,.1f}",
                     f"{ns / everything:.1%}", f"{bytes / len(some) / 1e6:,.1f}",
                     f"{bytes / ns:,.0f}",
                     f"{bytes / ns / copied:.0%}" if copied else "", f"{busy:.0f}%",
                     f"{sum(v['conflicts'] for v in some) / len(some):,.0f}",
                     f"{max(v['registers'] for v in some):.0f}"])
    return table(["kernel", "launches", "us each", "of the time", "MB each", "GB/s",
                  "of the measured copy", "multiprocessors busy", "bank conflicts each",
                  "registers"], rows)


def agreement(found):
    """A sentence for each question that gpu_agree.py has answered."""
    for r in found:
        if r["agree"] == "gradients":
            yield (f"{r['dtype']}: loss {r['loss']:.7g}, PyTorch's in float32 "
                   f"{r['torch_loss']:.7g}; of {r['tensors']} gradients the one nearest its bound "
                   f"is {r['worst']}'s, off by {r['error']:.1e} of its length, allowed "
                   f"{r['bound']:.1e}; beyond it: {', '.join(r['bad']) or 'none'}.")
        if r["agree"] == "repeat":
            same = len({r["first"], r["again"], r["resumed"]}) == 1
            yield (f"{r['dtype']}: two runs of four steps, and one stopped and resumed: "
                   f"{'equal bits' if same else 'NOT equal'} (sha256 {r['first'][:12]}, "
                   f"{r['again'][:12]}, {r['resumed'][:12]}).")
        if r["agree"] == "slices":
            yield (f"{r['dtype']}: {r['logits']:,} logits at once and in quarters: losses "
                   f"{r['loss']:.8g} and {r['parts_loss']:.8g}, gradients off by at most "
                   f"{r['error']:.1e} ({r['worst']}), allowed {r['bound']:.1e}.")


def report(about, checks, found, launches):
    ceilings = next((r for r in found["layers"] if r["layer"] == "ceilings"), {})
    layers = [r for r in found["layers"] if r["layer"] != "ceilings"]
    products = [r for r in found["products"] if "first_ms" in r]
    steps = [r["ms"] for r in found["products"] if r.get("product") == "step"]
    copied, peak = ceilings.get("gb_per_s"), ceilings.get("tflop_per_s")
    lines = ["# gpu_check", "", *table(["stage", "check", "verdict", "s"],
                                       [[c["stage"], c["check"], c["verdict"], c["seconds"]]
                                        for c in checks])[1:],
             "", f"### On {about.get('GPU', 'a GPU')}", "",
             "`dev/gpu_check.sh`, " + ", ".join(f"{k} {v}" for k, v in about.items()) + "."]
    if ceilings:
        lines += ["", f"Measured in the same run: {copied:,} GB/s copied, reads and writes "
                  f"counted, and {peak:,} TFLOP/s in a product of large matrices."]
    lines += training_table(found["training"]) + attention_table(found["attention"], peak)
    lines += layers_table(layers) + products_table(products) + kernels_table(launches, copied)
    lines += ["", *(f"- {choice(ms, products)}" for ms in steps if products)]
    lines += [f"- {sentence}" for sentence in agreement(found["agree"])]
    lines += [f"- Not measured: {c['check']} ({c['verdict']})." for c in checks
              if c["verdict"] != "passed"]
    lines += [f"- Not measured: {r['way']} ({r['error']})" for r in found["training"]
              if "error" in r]
    lines += [f"- Not measured: {r['attention']}, heads of {r['hs']} in {r['dtype']} "
              f"({r['refused']})" for r in found["attention"] if "refused" in r]
    return "\n".join(lines) + "\n"


# ---- writing -------------------------------------------------------------------------------------

def write(path, text):
    """In one piece: whoever is killed meanwhile leaves the older report."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".new", path)


def main():
    if sys.argv[1:] == ["--ncu-metrics"]:
        print(",".join(NCU.values()))
        return 0
    work, folder, *about = sys.argv[1:]
    about = dict(pair.split("=", 1) for pair in about)
    checks = list({c["check"]: c for c in objects(os.path.join(work, "checks.jsonl"))}.values())
    found = {name: objects(os.path.join(work, "logs", pattern)) for name, pattern in
             (("layers", "layers_*"), ("products", "products_*"), ("training", "training_*"),
              ("attention", "attention_*"), ("agree", "agree_*"))}
    launches = kernels(os.path.join(work, "ncu.csv"))
    write(os.path.join(folder, "report.md"), report(about, checks, found, launches))
    write(os.path.join(folder, "gpu_check.json"),
          json.dumps({**about, "checks": checks, **found, "kernels": launches}, indent=1))
    logs = []
    for c in checks:
        path = os.path.join(work, "logs", c["check"] + ".txt")
        said = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                said = re.sub(r"\s+$", "", f.read()[-200000:])
        logs.append(f"==== {c['check']}: {c['verdict']}\n{said}\n")
    write(os.path.join(folder, "logs.txt"), "".join(logs))
    return any(c["verdict"] == "failed"
               or (c["verdict"] == "unfinished" and c["stage"] not in WHILE_THERE_IS_TIME)
               for c in checks)


if __name__ == "__main__":
    sys.exit(main())
