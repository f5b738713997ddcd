#!/usr/bin/env python3
"""The emulator's tests: tests/emu/ok_*.cu run clean in every form; tests/emu/fault_*.cu are caught
at the right line.

A faulty program says in its first line what the message must hold, and marks the line or lines that
the message must name by FAULT (and FAULT2). Built with -DFIXED it is its own correct twin, and must
run clean. Arguments: names to run.
"""
import concurrent.futures
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
EMUCC = [sys.executable, os.path.join(os.path.dirname(HERE), "dev", "emu", "emucc")]
SEEDS = ["0", "1", "2"]


def run(command, **environment):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                          env=dict(os.environ, **environment))
    return done.returncode, done.stdout.decode(errors="replace")


def build(path, output, flags, **environment):
    code, text = run(EMUCC + [path, "-o", output] + flags, **environment)
    if code or "warning" in text:
        raise AssertionError("does not compile:\n" + text)


def runs_clean(program, **environment):
    code, text = run([program], **environment)
    if code or re.search(r"^emu: (?!note: \d+ allocations)", text, re.M):      # many free nothing
        raise AssertionError("%s: exit code %d:\n%s" % (environment or "as it is", code, text))


def test_ok(path, folder):
    with open(path) as f:
        flags = re.findall(r"^// flags: (.*)$", f.read(), re.M)
    flags = flags[0].split() if flags else []
    program = os.path.join(folder, os.path.basename(path)[:-3])
    build(path, program, flags)
    for seed in SEEDS:
        runs_clean(program, EMU_SEED=seed)
    for cxx in ["g++", "clang++"]:
        if shutil.which(cxx):
            build(path, program, flags, EMU_CHECK="0", CXX=cxx)
            runs_clean(program)


def test_fault(path, folder):
    with open(path) as f:
        lines = f.read().split("\n")
    expected = lines[0].split("expect: ")[1]
    expected_code = 0 if "/note_" in path else 66
    marks = [i + 1 for i, line in enumerate(lines) if re.search(r"// FAULT2?$", line)]
    main = [i + 1 for i, line in enumerate(lines) if re.search(r"// FAULT$", line)]
    program = os.path.join(folder, os.path.basename(path)[:-3])
    build(path, program, [])
    for seed in SEEDS:
        code, text = run([program], EMU_SEED=seed)
        file = re.escape(os.path.basename(path))
        named = re.findall(file + r":(\d+) in ", text)
        named += re.findall(r"at .*" + file + r":(\d+)\)?$", text, re.M)
        named = [int(n) for n in named if int(n) in marks]
        if code != expected_code or expected not in text or not (set(main) & set(named)):
            raise AssertionError("seed %s: exit code %d, expected '%s' at line %s:\n%s"
                                 % (seed, code, expected, main, text))
    if "race" in expected or "same global memory" in expected:
        code, text = run([program], EMU_ALLOW="races")
        if "emu: note: race" not in text or code not in (0, 66):
            raise AssertionError("EMU_ALLOW: exit code %d:\n%s" % (code, text))
    build(path, program, ["-DFIXED"])
    for seed in SEEDS:
        runs_clean(program, EMU_SEED=seed)


def test_stats(path, folder):
    program = os.path.join(folder, "stats")
    build(path, program, [])
    code, text = run([program], EMU_STATS="1")
    flat = re.sub(r"\s+", " ", text)
    launch = "1 launches, 4 blocks, 1024 threads global loads 4096 bytes"
    matrices = ("matrices<%d>: 1 launches, 1 blocks, 32 threads global stores 128 bytes in 4"
                " sectors (100%% of their bytes used) shared requests of warps: 1 loads, 16 stores,"
                " 0 atomics; ")
    for part in ["coalesced: " + launch + " in 128 sectors (100% of their bytes used)"
                 " global stores 4096 bytes in 128 sectors",
                 "strided: " + launch + " in 1024 sectors (12%",
                 "shared requests of warps: 1 loads, 32 stores, 0 atomics; 31 bank conflicts"
                 " barriers 1", matrices % 64 + "28 bank conflicts",
                 matrices % 72 + "0 bank conflicts",
                 "global loads 256 bytes in 8 sectors (100% of their bytes used)"
                 " global stores 128 bytes in 4 sectors (100% of their bytes used)"
                 " shared requests of warps: 1 loads, 1 stores, 0 atomics; 0 bank conflicts"]:
        if code or part not in flat:
            raise AssertionError("expected '%s' in:\n%s" % (part, text))


def test_report(path, folder):
    """What a grader reads: the exit code, EMU_REPORT, EMU_TIMEOUT and the notes at exit."""
    program, report = os.path.join(folder, "report"), os.path.join(folder, "report.json")
    build(path, program, [])

    def check(name, ok, *said):
        if not ok:
            raise AssertionError("%s: %s" % (name, said))
    for mode, code, timeout in (("fault", 66, "0"), ("endless", 66, "0.5"), ("host", 66, "0.5"),
                                ("notes", 1, "9")):
        found, text = run([program, mode], EMU_REPORT=report, EMU_TIMEOUT=timeout)
        with open(report) as f:
            data = json.load(f)
        check(mode, found == code, found, text)
        check(mode, data["result"] == ("fault" if code == 66 else "clean"), data)
        launches, message = data["launches"], data["messages"][0]
        check(mode, launches[0]["kernel"] == "good" and launches[0]["grid"] == [2, 1, 1]
              and launches[0]["stores"]["global_bytes"] == 256, launches)
        kind = {"fault": "out-of-bounds", "notes": "launch-error"}.get(mode, "timeout")
        check(mode, message["kind"] == kind, data)
        with open(path) as f:
            marked = [i for i, line in enumerate(f, 1) if "// " + mode in line]
        if mode == "notes":
            check(mode, message["launched"]["line"] in marked, message)
            leak = data["messages"][1]
            check(mode, leak["kind"] == "never-freed" and leak["lines"][0]["line"] in marked, leak)
            check(mode, "4 bytes of dynamic shared memory" in text and "2048" in text, text)
            check(mode, text.index("the host") < text.index("print 1"), text)
            check(mode, "print 2" not in text and data["messages"][2]["kernel"] == "print", data)
        else:
            check(mode, message["lines"][0]["line"] in marked, message)
        if mode == "fault":
            check(mode, message["block"] == [1, 0, 0] and message["thread"] == [5, 0, 0]
                  and message["kernel"] == "bad" and message["lines"][0]["function"] == "bad",
                  message)


LOAD = """import ctypes, sys
mode, beyond, libraries = sys.argv[1], int(sys.argv[2]), [
    ctypes.CDLL(path, getattr(ctypes, sys.argv[3])) for path in sys.argv[4:]]
for library in libraries + libraries[::-1]:      # each once more, when all have run
    x = (ctypes.c_float * 100)(*range(100))
    library.run(x, 100, beyond)
    assert list(x) == [2 * i for i in range(100)], list(x)
    library.divide_by_zero()
    print("right")
if mode == "mixed":
    libraries[0].allocate.restype = ctypes.c_void_p
    libraries[1].use(ctypes.c_void_p(libraries[0].allocate()))
"""


def test_library(path, folder):
    """Libraries made by --shared, in Python's process: one, two, and memory of one in the other."""
    with open(path) as f:
        fault = [i for i, line in enumerate(f, 1) if "// FAULT" in line][0]
    libraries = [os.path.join(folder, name) for name in ("one.so", "two.so")]
    report = os.path.join(folder, "library.json")
    for library in libraries:
        build(path, library, ["--shared", "-Xcompiler", "-fPIC"])
    for mode, beyond, load, paths, code, said in (
            ("one", 0, "RTLD_LOCAL", libraries[:1], 0, "right\nright\n"),
            ("two", 0, "RTLD_LOCAL", libraries, 0, "right\nright\n"),
            ("two", 0, "RTLD_GLOBAL", libraries, 0, "right\nright\n"),
            ("one", 1, "RTLD_LOCAL", libraries[:1], 66, "0 bytes past the end of an allocation"),
            ("mixed", 0, "RTLD_LOCAL", libraries, 66, "a kernel touches host memory")):
        found, text = run([sys.executable, "-u", "-c", LOAD, mode, str(beyond), load] + paths,
                          EMU_REPORT=report)
        flat = text.replace("from the kernel\n", "") if code == 0 else text
        flat = re.sub(r"^emu: .*\n(     .*\n)*", "", flat, flags=re.M) if code == 0 else flat
        notes = text.count("emu: note: integer division by zero"), text.count("were never freed")
        if found != code or said not in flat or (code == 0 and notes != (len(paths),) * 2):
            raise AssertionError("%s, %s: exit code %d:\n%s" % (mode, load, found, text))
        if beyond:
            with open(report) as f:
                message = json.load(f)["messages"][-1]
            if message["level"] != "fault" or message["lines"][0]["line"] != fault:
                raise AssertionError("expected a fault at line %d: %s" % (fault, message))


def test_refused(path, folder):
    """What the emulator does not have, and what nvcc refuses, is an error by line that names it.
    With -D and each word after #ifdef or #elif defined there is one such line; without, the
    file compiles."""
    with open(path) as f:
        lines = f.read().split("\n")
    object_file = os.path.join(folder, "refused.o")
    forms = re.findall(r"^#(?:ifdef|elif defined)\W+(\w+)", "\n".join(lines), re.M)
    if forms:
        build(path, object_file, ["-c"])
    texts = [run(EMUCC + [path, "-c", "-o", object_file] + flags)
             for flags in [["-D" + form] for form in forms] or [[]]]
    said = "".join(text for code, text in texts if code)
    for number, line in enumerate(lines, 1):
        for name in re.findall(r"// refused: (.*)$", line):
            if not re.search(r":%d:.*%s" % (number, re.escape(name)), said):
                raise AssertionError("expected '%s' at line %d:\n%s" % (name, number, said))


def main():
    version = shutil.which("g++") and run(["g++", "--version"])[1]
    if not version or "clang" in version:
        print("SKIP: the emulator's checks need g++ (sudo apt-get install g++)")
        return 77
    paths = sorted(glob.glob(os.path.join(HERE, "emu", "*.cu")))
    words = sys.argv[1:] or [""]
    paths = [p for p in paths if any(word in os.path.basename(p) for word in words)]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        first = os.path.join(HERE, "emu", "ok_basics.cu")
        run(EMUCC + [first, "-o", os.path.join(folder, "first")])

        def test(path):
            try:
                kind = os.path.basename(path).split("_")[0]
                {"ok": test_ok, "fault": test_fault, "note": test_fault, "stats": test_stats,
                 "refused": test_refused, "report": test_report,
                 "library": test_library}[kind](path, folder)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                return "%s: %s" % (os.path.basename(path), error)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for message in pool.map(test, paths):
                if message:
                    print("FAILED", message)
                    failed += 1
    print("%d passed, %d failed" % (len(paths) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
