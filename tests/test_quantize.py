#!/usr/bin/env python3
"""test_quantize.py - infer quantize, from outside: which tensors become what, what stays as it was,
and what is refused.

Where the environment variable LLAMA_QUANTIZE names llama.cpp's llama-quantize, every tensor of
every model here is compared with its, byte by byte. Other models are compared in the same way by

    LLAMA_QUANTIZE=... tests/test_quantize.py MODEL.gguf
"""
import array
import math
import os
import resource
import struct
import subprocess
import sys
import tempfile

from check import check, run_tests
from test_infer import INFER, Model, gguf, largest_difference, logits, refused, run, sanitized

LLAMA = os.environ.get("LLAMA_QUANTIZE")
FILE_TYPES = {"F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q6_K": 18}


def tensors(path):
    """{name: (type, bytes)}; data ends with the file, each tensor padded."""
    found = gguf.read(path, keys_only=True).tensors
    sizes = [int(math.prod(t.dims) * gguf.TYPES[t.type][1]) for t in found]
    with open(path, "rb") as f:
        f.seek(-sum(map(gguf.padded, sizes)), os.SEEK_END)
        return {t.name: (t.type, f.read(gguf.padded(size))) for t, size in zip(found, sizes)}


def read_keys(path):
    return gguf.read(path, keys_only=True)


def quantize(path, to, type, *more):
    out, _ = run("quantize", path, to, type, *more)
    return out.decode()


# ---- what becomes what ---------------------------------------------------------------------------

# Rows that Q6_K's blocks fit, Q4_0's alone, and none; and a matrix of its own for the logits.
MODELS = {"256": dict(C=256, F=512, NH=4, L=1), "64": dict(C=64, F=128, NH=4),
          "24": dict(), "untied": dict(C=256, F=256, NH=2, L=1, untied=True)}
WANTED = {   # (model, type, pure): the types of token_embd, of attn_qkv, of output
    ("256", "Q4_0", False): ("Q6_K", "Q4_0"), ("256", "Q4_0", True): ("Q4_0", "Q4_0"),
    ("256", "Q8_0", False): ("Q8_0", "Q8_0"), ("256", "F16", False): ("F16", "F16"),
    ("64", "Q4_0", False): ("Q8_0", "Q4_0"), ("64", "Q6_K", True): ("Q8_0", "Q8_0"),
    ("24", "Q4_0", False): ("F16", "F16"), ("24", "Q8_0", True): ("F16", "F16"),
    ("24", "BF16", False): ("BF16", "BF16"),
    ("untied", "Q4_0", False): ("Q4_0", "Q4_0", "Q6_K"),
    ("untied", "Q4_0", True): ("Q4_0", "Q4_0", "Q4_0")}


def test_types(folder):
    for (name, type, pure), wanted in WANTED.items():
        path = Model(**MODELS[name]).write(f"{folder}/{name}.gguf", general__name=("string", "x"))
        out = quantize(path, f"{folder}/q.gguf", type, *["--pure"] * pure)
        found = {t.name: t.type for t in read_keys(f"{folder}/q.gguf").tensors}
        said = out.splitlines()
        for tensor, expected in zip(("token_embd", "blk.0.attn_qkv", "output"), wanted):
            check(found[tensor + ".weight"] == expected,
                  f"{name} {type} {pure}: {tensor} is {found[tensor + '.weight']}, not {expected}")
        for tensor in found:
            if "norm" in tensor or tensor.endswith("bias") or tensor == "position_embd.weight":
                check(found[tensor] == "F32", f"{name} {type}: {tensor} is {found[tensor]}")
        check(len(said) == len(found) + 1, f"{name} {type}: {len(said)} lines")
        keys, before = read_keys(f"{folder}/q.gguf").keys, read_keys(path).keys
        check({k: keys.get(k) for k in before} == before, f"{name} {type}: keys are lost")
        check(keys["general.file_type"] == ("u32", FILE_TYPES[type]) and
              keys["general.quantization_version"] == ("u32", 2), f"{name} {type}: {keys}")


def test_exact(folder):
    """The tests' weights are multiples of 1/64, which F16 and BF16 hold; the largest of 32 being
    at most 127/64, Q8_0 errs by less than 1/128."""
    model = Model(C=64, F=128, NH=4, L=1)
    path = model.write(f"{folder}/exact.gguf")
    for type in ("F16", "BF16"):
        quantize(path, f"{folder}/{type}.gguf", type)
        check(logits(f"{folder}/{type}.gguf", [1, 2, 3]) == logits(path, [1, 2, 3]),
              f"{type}: other logits")
        quantize(f"{folder}/{type}.gguf", f"{folder}/again.gguf", "Q4_0")
        quantize(path, f"{folder}/at_once.gguf", "Q4_0", "--threads", 1)
        with open(f"{folder}/again.gguf", "rb") as a, open(f"{folder}/at_once.gguf", "rb") as b:
            check(a.read() == b.read(), f"from {type}: another Q4_0 than from F32")
    quantize(path, f"{folder}/q8.gguf", "Q8_0")
    quantize(f"{folder}/q8.gguf", f"{folder}/floats.gguf", "F32")
    floats = tensors(f"{folder}/floats.gguf")
    check({type for type, _ in floats.values()} == {"F32"}, "not all F32")
    for name, (type, data) in tensors(f"{folder}/q8.gguf").items():
        if type == "Q8_0":   # a scale and 32 bytes with a sign
            blocks = struct.iter_unpack("<e32b", data[:len(data) // 34 * 34])
            data = array.array("f", [d * q for d, *block in blocks for q in block]).tobytes()
        made = floats[name][1]
        check(made == data[:len(made)], f"floats of Q8_0: another {name}")
    difference = largest_difference(*(logits(f"{folder}/{name}.gguf", [1, 2, 3])
                                      for name in ("floats", "q8")))
    check(difference < 1e-5, f"floats of Q8_0: logits that are {difference:.2g} off")


def test_refused(folder):
    path = Model(C=64, F=128, NH=4, L=1).write(f"{folder}/m.gguf")
    with open(path, "rb") as f:
        before = f.read()
    os.link(path, f"{folder}/hard.gguf")
    os.symlink(path, f"{folder}/soft.gguf")
    for other in (path, f"{folder}/hard.gguf", f"{folder}/soft.gguf", f"{folder}/./m.gguf"):
        refused([other, "itself"], "quantize", path, other, "Q8_0")
    with open(path, "rb") as f:
        check(f.read() == before, "the input was written over")
    refused(["Q3_X", "Q8_0"], "quantize", path, f"{folder}/no.gguf", "Q3_X")
    refused(["Q4_1", "Q8_0"], "quantize", path, f"{folder}/no.gguf", "Q4_1")   # only read
    refused(["TYPE"], "quantize", path, f"{folder}/no.gguf")
    quantize(path, f"{folder}/q8.gguf", "Q8_0")
    _, err = run("quantize", f"{folder}/q8.gguf", f"{folder}/no.gguf", "Q4_0", code=1)
    check("type Q8_0" in err, f"what is quantized already: {err}")
    for value, why in ((float("nan"), "not finite"), (float("inf"), "not finite"),
                       (1e9, "too large for F16")):
        model = Model(C=64, F=128, NH=4, L=1)
        model.weights["blk.0.ffn_up.weight"][64 * 5 + 3] = value
        model.write(f"{folder}/wrong.gguf")
        _, err = run("quantize", f"{folder}/wrong.gguf", f"{folder}/no.gguf", "F16", code=1)
        check("blk.0.ffn_up.weight: row 5 " in err and why in err, f"{value}: {err}")
    left = [name for name in os.listdir(folder) if name.startswith("no.gguf")]
    check(not left, f"a refused command has left {left}")


def test_memory(folder):
    """Sixteen tensors of a megabyte, while there is memory for a few: they are made and written
    one after the other, in pieces that end elsewhere than they do."""
    rows = [array.array("f", [i + 1.0]) * (1 << 19) for i in range(16)]
    path, out = f"{folder}/large.gguf", f"{folder}/large-F16.gguf"
    gguf.write(path, {"general.architecture": ("string", "none")},
               [(f"t{i}.weight", "F32", (1 << 9, 1 << 10), row) for i, row in enumerate(rows)])
    small = lambda: resource.setrlimit(resource.RLIMIT_DATA, (12 << 20, 12 << 20))
    p = subprocess.run([INFER, "quantize", path, out, "F16", "--threads", "1"],
                       capture_output=True, preexec_fn=None if sanitized() else small)
    if not check(p.returncode == 0, f"in 12 MB of memory: {p.stderr.decode()}"):
        return
    for i, (name, (type, data)) in enumerate(tensors(out).items()):
        check((name, type, data) == (f"t{i}.weight", "F16", struct.pack("<e", i + 1) * (1 << 19)),
              f"large: {name} is wrong")


# ---- beside llama-quantize -----------------------------------------------------------------------

def compare(path, folder):
    for type in FILE_TYPES:
        for pure in ([], ["--pure"]):
            theirs, ours = f"{folder}/theirs.gguf", f"{folder}/ours.gguf"
            p = subprocess.run([LLAMA, *pure, path, theirs, type], capture_output=True)
            if not check(p.returncode == 0, f"llama-quantize {path} {type}: {p.stderr[-300:]}"):
                continue
            quantize(path, ours, type, *pure)
            a, b = tensors(ours), tensors(theirs)
            check(a.keys() == b.keys(), f"{path} {type} {pure}: other tensors")
            wrong = [name for name in a if a[name] != b.get(name)]
            check(not wrong, f"{path} {type} {pure}: other bytes in {wrong[:5]}")
            print(f"{os.path.basename(path)} {type} {' '.join(pure)}: {len(a)} tensors,"
                  f" {len(wrong)} differ")


def test_llama(folder):
    if not LLAMA:
        print("without llama-quantize: LLAMA_QUANTIZE does not name it")
        return
    for name, sizes in MODELS.items():
        for type in ("F32", "F16", "BF16"):
            compare(Model(**sizes).write(f"{folder}/{name}-{type}.gguf", type), folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        models = [word for word in sys.argv[1:] if word.endswith(".gguf")]
        if models:
            sys.argv[1:] = []
            sys.exit(run_tests([compare], lambda test: [test(m, folder) for m in models]))
        sys.exit(run_tests([test_types, test_exact, test_refused, test_memory, test_llama],
                           lambda test: test(folder)))
