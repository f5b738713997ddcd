#!/usr/bin/env python3
"""gpu_report.py - what dev/gpu_check.sh has found so far, in FOLDER's report.md, gpu_check.json
and logs.txt.

    gpu_report.py WORK FOLDER GPU SECONDS

WORK/checks.jsonl has a line for each check, and WORK/logs/NAME.txt its output; those of `layers`
and `training_MODEL` hold the measurements, one JSON object a line. Exit code 1 if a check failed.
One that did not finish counts as failed, but for sanitizers, which work while there is time.
"""
import glob
import json
import os
import statistics
import sys


def objects(pattern):
    """The lines that are JSON objects, of files that may not be there, or end within a line."""
    found = []
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                if line.startswith("{") and line.endswith("}\n"):
                    found.append(json.loads(line))
    return found


def table(head, rows):
    return ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|",
            *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def report(gpu, seconds, checks, layers, training):
    lines = [f"# gpu_check: {gpu}", "", f"{seconds} seconds so far."]
    for c in (c for c in layers if c["layer"] == "ceilings"):
        lines += ["", f"Ceilings measured: {c['gb_per_s']} GB/s copied, {c['tflop_per_s']} TFLOP/s "
                  "in matrix products."]
    columns = {"layer": "layer", "us": "us", "gb_per_s": "GB/s", "tflop_per_s": "TFLOP/s",
               "bound": "bound by", "percent": "% of that ceiling"}
    lines += table(columns.values(), [[r[c] for c in columns] for r in layers
                                      if r["layer"] != "ceilings"])
    rows = []
    for model, way in dict.fromkeys((r["model"], r["way"]) for r in training):
        mine = [r for r in training if (r["model"], r["way"]) == (model, way)]
        good = [r for r in mine if "ms" in r]
        speed = round(statistics.median(r["tok_per_s"] for r in good)) if good else ""
        rows.append([model, way, ", ".join(str(r["ms"]) for r in good), speed,
                     " ".join(r["error"] for r in mine if "error" in r)])
    lines += table(["model", "trained by", "ms a step (each round)", "tok/s (median)", "error"],
                   rows)
    lines += table(["stage", "check", "verdict", "s"],
                   [[c["stage"], c["check"], c["verdict"], c["seconds"]] for c in checks])
    return "\n".join(lines) + "\n"


def write(path, text):
    """In one piece: whoever is killed meanwhile leaves the older report."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".new", path)


def main():
    work, folder, gpu, seconds = sys.argv[1:]
    checks = objects(os.path.join(work, "checks.jsonl"))
    layers, training = (objects(os.path.join(work, "logs", name + ".txt"))
                        for name in ("layers", "training_*"))
    write(os.path.join(folder, "report.md"), report(gpu, seconds, checks, layers, training))
    write(os.path.join(folder, "gpu_check.json"),
          json.dumps({"gpu": gpu, "seconds": int(seconds), "checks": checks, "layers": layers,
                      "training": training}, indent=1))
    logs = []
    for c in checks:
        with open(os.path.join(work, "logs", c["check"] + ".txt"), encoding="utf-8",
                  errors="replace") as f:
            logs.append(f"==== {c['check']}: {c['verdict']}\n{f.read()[-200000:]}\n")
    write(os.path.join(folder, "logs.txt"), "".join(logs))
    return any(c["verdict"] == "failed"
               or (c["verdict"] == "unfinished" and c["stage"] != "sanitizers") for c in checks)


if __name__ == "__main__":
    sys.exit(main())
