#!/usr/bin/env python3
"""test_bundle.py - one file of runtime and model: `infer bundle`, and what it writes.

Packs small random models with infer-MACHINE, which `make runtime` puts beside infer (INFER, default
./infer), and runs the bundles: in an empty folder, by each form, damaged. With qemu-user also on
processors that this machine has not, and, with a compiler for it, on 64-bit Arm.
"""
import os
import platform
import pty
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import test_infer as t
from check import check, run_tests

MACHINE = platform.machine()
RUNTIME = os.path.join(os.path.dirname(t.INFER), "infer-" + MACHINE)
PAGE = 65536
PROMPT = ("-p", "the ", "--temp", 0, "-n", 12, "--ignore-eos")


def run(program, *arguments, code=0, stdin=b"", **more):
    """stdout and stderr of a program, or of a command that ends with one."""
    command = [*([program] if isinstance(program, str) else program), *map(str, arguments)]
    p = subprocess.run(command, input=stdin, capture_output=True, timeout=600, **more)
    err = p.stderr.decode(errors="replace")
    check(p.returncode == code, f"{command}: exit code {p.returncode}, expected {code}: {err}")
    return p.stdout, err


def refused(words, program, *arguments, **more):
    out, err = run(program, *arguments, code=1, **more)
    err = "\n".join(line for line in err.split("\n") if not line.startswith("qemu-"))
    check(out == b"" and err.startswith("error: ") and err.count("\n") == 1
          and all(word in err for word in words),
          f"{arguments}: expected a sentence with {words}, found {err!r} and output {out[:40]!r}")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, 0o755)
    return path


def bundle(folder, *words, name="tale", runtime=()):
    """(path of a bundle, path of its model); words are baked in."""
    model, tale = t.text_model(folder)[2], f"{folder}/{name}"
    run(t.INFER, "bundle", model, "-o", tale, *runtime, *(["--", *words] if words else []))
    return tale, model


def test_extract(folder):
    before = os.umask(0o027)
    tale, model = bundle(folder)
    os.umask(before)
    data, gguf = read(tale), read(model)
    check(os.stat(tale).st_mode & 0o777 == 0o750, f"mode {os.stat(tale).st_mode:o}, expected 750")
    check(data.endswith(gguf) and (len(data) - len(gguf)) % PAGE == 0, "the GGUF begins a page")
    check(data.startswith(read(RUNTIME)), "the runtime comes first, as it is")
    check(not [name for name in os.listdir(folder) if name.endswith(".tmp")], "nothing else stays")

    # By luck smaller pages would do for one size of what comes before, but not for both.
    longer, _ = bundle(folder, "-p", "x" * 5000, name="longer")
    check((len(read(longer)) - len(gguf)) % PAGE == 0, "the GGUF begins a page, behind long words")

    check(run(tale, "extract")[0] == gguf, "extract to stdout")
    run(tale, "extract", "-o", f"{folder}/out.gguf")
    check(read(f"{folder}/out.gguf") == gguf, "extract to a file")
    check(run(t.INFER, "extract", tale)[0] == gguf, "extract from another's bundle")
    check(run(tale, "extract", model)[0] == gguf, "and of a GGUF file")
    refused([tale, "itself"], tale, "extract", "-o", tale)
    check(read(tale) == data, "which left the bundle as it was")
    master, slave = pty.openpty()
    p = subprocess.run([tale, "extract"], stdout=slave, stderr=subprocess.PIPE)
    check(p.returncode == 1 and b"is a terminal" in p.stderr, f"on a terminal: {p.stderr!r}")
    os.close(master)
    os.close(slave)


def test_runs(folder):
    """A bundle does all that infer does, and infer takes a bundle for its model."""
    tale, model = bundle(folder)
    for command in ([], ["logits"], ["tokenize"], ["detokenize"], ["perplexity"]):
        write(f"{folder}/text", b"the cat and the dog " * 4)
        flags = {"": PROMPT, "logits": ("--ids", "1,2,3"), "perplexity": ("-f", f"{folder}/text")}
        words = [*command, *flags.get("".join(command), ())]
        stdin = b"the 1 2" if command == ["tokenize"] else b"1 2 3"
        wanted, _ = run(t.INFER, *command, "-m", model, *words[len(command):], stdin=stdin)
        check(run(tale, *words, stdin=stdin)[0] == wanted, f"{words}: the same as infer's")
        check(run(t.INFER, *command, "-m", tale, *words[len(command):], stdin=stdin)[0] == wanted,
              f"{words}: infer, with the bundle as its model")
    wanted = run(t.INFER, "show", model)[0].split(b"\n", 1)[1]
    for shown in (run(tale, "show")[0], run(t.INFER, "show", tale)[0]):
        check(shown.startswith(tale.encode()) and shown.split(b"\n", 1)[1] == wanted, "show")
    check(run(tale, "-m", model, *PROMPT)[0] == run(tale, *PROMPT)[0], "-m names another model")
    os.symlink(tale, f"{folder}/link")
    check(run(["sh", "-c", "cd / && PATH=$0 exec link \"$@\"", folder], *PROMPT)[0]
          == run(tale, *PROMPT)[0], "by a link, found by PATH")

    # A bundle packs others, with itself as the runtime, and takes a bundle for a model.
    again = f"{folder}/again"
    run(tale, "bundle", "-o", again, "--", "-n", 3)
    check(run(again, "extract")[0] == read(model), "a bundle of a bundle")
    check(len(read(again)) == len(read(tale)), "carries what it needs once")

    # OpenMP reads how long to spin after the program has set it: without a second start.
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    _, err = run(tale, "--ids", 1, "-n", 1, env={**outer, "OMP_DISPLAY_ENV": "VERBOSE"})
    check(err.count("OPENMP DISPLAY ENVIRONMENT BEGIN") == err.count("GOMP_SPINCOUNT = '2000'") < 2,
          f"OpenMP's settings: {err}")

    fastest = min(first_token(tale) for _ in range(5))
    check(fastest < 0.05, f"the first token takes {1000 * fastest:.1f} ms")
    print(f"from the start to the first token {1000 * fastest:.1f} ms")


def first_token(tale):
    begin = time.monotonic()
    p = subprocess.Popen([tale, "--ids", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.read(1)
    took = time.monotonic() - begin
    p.stdout.read()
    p.wait()
    return took


def test_chroot(folder):
    """In an otherwise empty folder: no /proc, no library, no /tmp."""
    tale, _ = bundle(folder)
    root = f"{folder}/root"
    os.makedirs(root)
    shutil.copy(tale, root)
    prefix = ["chroot", root] if os.geteuid() == 0 else ["unshare", "-r", "chroot", root]
    try:
        possible = subprocess.run([*prefix, "/tale", "--help"], capture_output=True).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        print(f"SKIP: an empty chroot ({' '.join(prefix[:-1])} does not work here)")
        return
    wanted = run(tale, *PROMPT)[0]
    for name in ("/tale", "./tale"):
        check(run([*prefix, name], *PROMPT)[0] == wanted, f"{name} in an empty folder")
    run([*prefix, "/tale"], "extract", "-o", "/out.gguf")
    check(read(f"{root}/out.gguf") == run(tale, "extract")[0], "extract there")
    write(f"{root}/cut", read(tale)[:-1])
    refused(["/cut", "damaged bundle"], [*prefix, "/cut"])


def test_baked(folder):
    wanted = run(t.INFER, "-m", t.text_model(folder)[2], *PROMPT)[0]
    tale, model = bundle(folder, *PROMPT)
    check(run(tale)[0] == wanted, "flags that are baked in")
    user = ("--temp", 0, "-n", 3, "--ignore-eos", "-p", "an")
    check(run(tale, "-n=3", "-p", "an")[0] == run(t.INFER, "-m", model, *user)[0],
          "the user's own override them")
    ids = run(t.INFER, "tokenize", "-m", model, stdin=b"the ")[0]
    check(run(tale, "tokenize", stdin=b"the ")[0] == ids, "they are not another command's")
    out = run(tale, "--help")[0].decode()
    check("tokens to make [12]" in out, f"--help shows them: {out}")
    check(run(tale, "--help", "-n", 3)[0].decode() == out, "as the defaults")
    refused(["--temp", "given twice"], tale, "--temp", 1, "--temp", 2)

    tale, _ = bundle(folder, "tokenize", "-0")
    check(run(tale, stdin=b"the \0the \0")[0] == 2 * ids, "a command that is baked in")
    check(run(tale, "logits", "--ids", 1)[0] != b"", "the user's comes before it")
    tale, _ = bundle(folder, "logits")
    check(run(tale, "--ids", 1) == run(t.INFER, "logits", "-m", model, "--ids", 1), "and its flags")
    refused(["--ids"], tale)
    tale, _ = bundle(folder, "-p", "", "-n", 2, "--temp", 0, "--ignore-eos")
    run(tale)   # a word without a letter
    tale, _ = bundle(folder, "-p", "x" * 70000, "-n", 0)
    refused(["context length"], tale)   # words of more than a page

    for words, said in ((["--tempp", 1], ["--tempp", "--temp"]), (["--temp", 1000], ["0 to 100"]),
                        (["tell"], ["tell", "unknown command"]), (["--temp"], ["needs a value"])):
        refused(said, t.INFER, "bundle", model, "-o", f"{folder}/no", "--", *words)
        check(not os.path.exists(f"{folder}/no"), f"{words}: nothing is written")


def test_names(folder):
    """Messages and --help name the program as it was called."""
    tale, model = bundle(folder)
    for words, call in ((["soup"], ""), (["--soup"], ""), (["chat", "--soup"], " chat"),
                        (["quantize"], " quantize"), (["bundle", "-o", "no", "--", "--soup"], "")):
        refused([f"{tale}{call} --help "], tale, *words)
    out = run("./tale", "chat", "--help", cwd=folder)[0].decode()
    for said in ("  ./tale -p ", "  ./tale tokenize  ", "\nflags of ./tale chat\n"):
        check(said in out, f"--help of ./tale chat has no {said!r}: {out}")
    check(f"  {t.INFER} -m model.gguf -p " in run(t.INFER, "--help")[0].decode(), "infer's own")


def test_damaged(folder):
    """A bundle that is cut or changed says so, to whoever reads it, and so when it is run."""
    tale, model = bundle(folder, "-n", 5)
    data = read(tale)
    program, gguf = len(read(RUNTIME)), len(data) - len(read(model))
    header = gguf - PAGE
    check(data[header:header + 16] == b"legible bundle 1", "where the header is expected")

    def damaged(changed, what, words=("damaged bundle",), runs=True):
        path = write(f"{folder}/damaged", changed)
        refused([path, *words], t.INFER, "show", path)
        if runs:   # what is cut within the program is for the kernel to refuse
            refused(["damaged bundle"] if words[0] == "damaged bundle" else ["-m"], path)

    for length in (header + 32, header + 34, header + 36, gguf - 1, gguf,
                   gguf + 1, gguf + PAGE // 2, len(data) - 1):
        if length < len(data):
            damaged(data[:length], f"cut to {length}")
    for length in (program, program + 1, header, header + 15, header + 31):
        damaged(data[:length], f"cut to {length}", ["not a GGUF file"])
    for length in (1, 63, 64, 4096, program - 1):
        damaged(data[:length], f"cut to {length}", runs=False,
                words=["not a GGUF file" if length > 3 else "needs 4 bytes"])
    damaged(data + b"\0", "one byte longer")

    def patched(at, form, value):
        return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form):]
    size, words = len(data) - gguf, 5
    check(data[header + 16:header + 32] == struct.pack("<QQ", words, size), "the header's sizes")
    for value in (0, size - 1, size + 1, 1 << 32, 1 << 63, 2**64 - PAGE, 2**64 - 1):
        damaged(patched(header + 24, "<Q", value), f"{value} bytes of GGUF")
    for value in (4, PAGE, size, len(data), 1 << 63, 2**64 - 33, 2**64 - 32, 2**64 - 1):
        damaged(patched(header + 16, "<Q", value), f"{value} bytes of words")
    damaged(patched(header + 32 + words - 1, "<B", 7), "words that do not end")
    damaged(patched(gguf, "<B", 0), "GGUF", ["not a GGUF file"], runs=False)
    for at, form, values in ((40, "<Q", (0, len(data), 1 << 63, 2**64 - 64, 2**64 - 1)),
                             (58, "<H", (65535,)), (60, "<H", (0, 65535))):
        for value in values:
            damaged(patched(at, form, value), f"ELF header, byte {at}: {value}",
                    ["not a GGUF file"])
    damaged(patched(header, "<B", 0), "another header", ["not a GGUF file"])


def test_refused(folder):
    tale, model = bundle(folder)
    runtime = shutil.copy(RUNTIME, f"{folder}/runtime")
    os.link(model, f"{folder}/other name")
    for out, more in ((model, ()), (f"{folder}/other name", ()), (runtime, ("--runtime", runtime)),
                      (RUNTIME, ())):
        refused([out, "another file"], t.INFER, "bundle", model, "-o", out, *more)
    check(read(runtime) == read(RUNTIME) and read(model).startswith(b"GGUF"), "inputs stay")
    refused(["-o"], t.INFER, "bundle", model)
    refused(["FILE.gguf"], t.INFER, "bundle", "-o", tale)
    refused([model, "no program"], t.INFER, "bundle", model, "-o", f"{folder}/no", "--runtime",
            model)
    program = read(RUNTIME)
    for at in (len(program), 1 << 63, 2**64 - 64, 2**64 - 1):   # where the section headers are
        write(runtime, program[:40] + struct.pack("<Q", at) + program[48:])
        refused([runtime, "no program"], t.INFER, "bundle", model, "-o", f"{folder}/no",
                "--runtime", runtime)
    alone = shutil.copy(t.INFER, f"{folder}/infer")
    refused([f"infer-{MACHINE}", "is not there", "make runtime"], alone, "bundle", model, "-o",
            f"{folder}/no")
    shutil.copy(RUNTIME, folder)
    run(alone, "bundle", model, "-o", f"{folder}/yes")
    check(read(f"{folder}/yes") == read(tale), "the runtime is found in infer's folder")
    tokenizer = f"{folder}/tokenizer.gguf"
    t.gguf.write(tokenizer, {"general.architecture": ("string", "gpt2")})
    refused([tokenizer, "no tensors"], t.INFER, "bundle", tokenizer, "-o", f"{folder}/no")

    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, PAGE))
    before, names = read(tale), sorted(os.listdir(folder))
    refused([tale, "cannot be written"], ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh", t.INFER],
            "bundle", model, "-o", tale, preexec_fn=small)
    check(read(tale) == before and sorted(os.listdir(folder)) == names, "a full disk harms nothing")


def forms(tale):
    """The names of those that can be run here, the best first."""
    _, err = run(tale, code=1, env={**os.environ, "LEGIBLE_FORM": "?"})
    return err.split("expected one of ")[1].strip().split(", ")


def test_forms(folder):
    tale, _ = bundle(folder)
    bytes_path, bytes_tale = f"{folder}/q8.gguf", f"{folder}/q8"
    t.Model(NH=2, C=64, F=96, seed=3).write(bytes_path, "Q8_0")
    run(t.INFER, "bundle", bytes_path, "-o", bytes_tale)
    words = ["logits", "--ids", "1,2,3,4,5,6,7,8,9"]
    asked = [[tale, *words], [bytes_tale, *words], [bytes_tale, *words, "--int8"]]
    wanted = [run(*ask)[0] for ask in asked]
    here = forms(tale)
    if MACHINE == "x86_64":
        with open("/proc/cpuinfo") as f:
            flags = set(next(line for line in f if line.startswith("flags")).split())
        best = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
                "avx512_vnni"} <= flags
        check(here == ["avx512"] * best + ["avx2"], f"forms {here}")
    for form in here:
        for ask, want in zip(asked, wanted):
            out, _ = run(*ask, env={**os.environ, "LEGIBLE_FORM": form})
            check(out == want, f"{form}: the same bits")
        # What a form's constructors install is there: the sentence for a lack of memory.
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (48 << 20, 48 << 20))
        refused(["out of memory"], tale, "tokenize", stdin=bytes(64 << 20), preexec_fn=limit,
                env={**os.environ, "LEGIBLE_FORM": form})

    if MACHINE != "x86_64" or not shutil.which("qemu-x86_64"):
        print("SKIP: processors without AVX-512, or AVX2 (no qemu-x86_64)")
        return
    haswell = ["qemu-x86_64", "-cpu", "Haswell", tale]
    check(run(haswell, *words)[0] == wanted[0], "on a Haswell")
    refused(["LEGIBLE_FORM", "one of avx2"], haswell,
            env={**os.environ, "LEGIBLE_FORM": "avx512"})
    refused(["this processor", "AVX2"], ["qemu-x86_64", "-cpu", "Nehalem", tale])


def test_arm(folder):
    missing = [tool for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64") if not shutil.which(tool)]
    if missing or MACHINE == "aarch64":
        print("SKIP: 64-bit Arm (" + (f"no {missing[0]})" if missing else "this machine is one)"))
        return
    arm = os.path.join(t.ROOT, "build", "arm")
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    run("make", "-s", "runtime", "CXX=aarch64-linux-gnu-g++", f"BUILD={arm}", f"BIN={arm}",
        "OPTIMIZE=-O1", cwd=t.ROOT, env=outer)
    wanted = run(bundle(folder)[0], *PROMPT)[0]
    tale, model = bundle(folder, runtime=["--runtime", f"{arm}/infer-aarch64"])
    check(run(["qemu-aarch64", tale], *PROMPT)[0] == wanted, "the same text")
    check(run(["qemu-aarch64", tale], "extract")[0] == read(model), "and the same file")


def main():
    if not os.access(t.INFER, os.X_OK):
        sys.exit(f"{t.INFER}: is not a program (build it with make, or set INFER)")
    if not os.path.exists(RUNTIME):
        print(f"{RUNTIME}: is not there (make runtime needs static libraries of C++ and OpenMP)")
        return 77
    tests = [test_extract, test_runs, test_chroot, test_baked, test_names, test_damaged,
             test_refused, test_forms, test_arm]

    def in_folder(test):
        with tempfile.TemporaryDirectory() as folder:
            test(os.path.realpath(folder))
    return run_tests(tests, in_folder)


if __name__ == "__main__":
    sys.exit(main())
