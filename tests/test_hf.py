#!/usr/bin/env python3
"""test_hf.py - data/hf_gpt2.py: Hugging Face's GPT-2 to GGUF, and back without losing a bit.

Needs numpy. Extras: the tiny model beside the repository, and transformers.
"""
import contextlib
import importlib.util
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, "data", "hf_gpt2.py")
try:
    import numpy as np
except ImportError:
    for arguments, code, word in ((["--help"], 0, "--to-hf"), (["a", "b"], 1, "needs numpy")):
        p = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
        if p.returncode != code or word not in p.stdout + p.stderr:
            sys.exit(f"FAIL: hf_gpt2.py {arguments} without numpy: {p.stdout}{p.stderr}")
    print("SKIP: numpy is not installed")
    sys.exit(77)

sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe         # noqa: E402
import gguf        # noqa: E402
import hf_gpt2     # noqa: E402
from files import Failure   # noqa: E402
from check import check, run_tests   # noqa: E402
from test_data import (change, check_cut_short, damage, in_a_folder,   # noqa: E402
                       tokenizer_json)

SHARED = os.environ.get("LEGIBLE_SHARED", os.path.join(ROOT, "..", "shared"))
INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))
LAYERS, HEADS, C, T, V = 2, 2, 8, 16, 300
CONFIG = {"model_type": "gpt2", "n_layer": LAYERS, "n_head": HEADS, "n_embd": C, "n_positions": T,
          "vocab_size": V, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}


def convert(*arguments, code=0, words=()):
    """Runs hf_gpt2.py in this process; whether it fails (code None: either will do) and what it
    says are checked."""
    said, failed = io.StringIO(), 0
    if arguments[0] == "--to-hf" and code != 1:   # where it may succeed, what it wrote before goes
        shutil.rmtree(arguments[2], ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            hf_gpt2.main(arguments)
        except Failure as e:
            failed = 1
            said.write(str(e))
        except Exception as e:   # it would be a traceback
            failed = repr(e)
    said = said.getvalue()
    check(failed in ([0, 1] if code is None else [code]), f"{arguments}: {failed}: {said}")
    check((code is None and not failed) or all(word in said for word in words),
          f"expected {words} in {said!r}")


def run_program(*arguments, code, words):
    """The same, but in a process of its own, as a user does."""
    p = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True,
                       timeout=60)
    check(p.returncode == code, f"{arguments}: exit {p.returncode}, expected {code}: {p.stderr}")
    check(all(word in p.stderr for word in words), f"expected {words} in {p.stderr!r}")
    check(all(c.isprintable() or c == "\n" for c in p.stdout + p.stderr), "control characters")
    check(p.stderr.count("\n") <= 1, f"an error of several lines: {p.stderr!r}")


# ---- models to convert, written here without hf_gpt2.py's help -----------------------------------

def weights(kind, prefix="transformer."):
    """{name: (kind, shape, bytes)} with random values."""
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    for n in range(LAYERS):
        for name, shape in (("ln_1", (C,)), ("attn.c_attn", (C, 3 * C)), ("attn.c_proj", (C, C)),
                            ("ln_2", (C,)), ("mlp.c_fc", (C, 4 * C)), ("mlp.c_proj", (4 * C, C))):
            shapes[f"h.{n}.{name}.weight"] = shape
            shapes[f"h.{n}.{name}.bias"] = shape[-1:]
    r = np.random.RandomState(1)
    tensors = {}
    for name, shape in shapes.items():
        values = r.standard_normal(shape).astype(np.float32)
        if kind == "F16":
            values = values.astype(np.float16)
        if kind == "BF16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        tensors[prefix + name] = kind, shape, values.tobytes()
    return tensors


def write_folder(folder, tensors, config=CONFIG):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    write_safetensors(folder, json.dumps(header).encode(), data)
    return folder


def write_safetensors(folder, header, data):
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + data)


def read_safetensors(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    return {name: (row["dtype"], tuple(row["shape"]), data[slice(*row["data_offsets"])])
            for name, row in header.items() if name != "__metadata__"}


# ---- tests ---------------------------------------------------------------------------------------

def test_round_trips(folder):
    path, back = os.path.join(folder, "m.gguf"), os.path.join(folder, "back")
    mask = {f"transformer.h.0.attn.{name}": ("F32", (1, 1, 2, 2), bytes(16))
            for name in ("bias", "masked_bias")}
    for kind, prefix, extra in (("F32", "transformer.", mask), ("F32", "", {}), ("F16", "", {}),
                                ("BF16", "transformer.", {})):
        what, tensors = f"{kind} with prefix {prefix!r}", weights(kind, prefix)
        source = write_folder(os.path.join(folder, "hf"), {**tensors, **extra})
        convert(source, path)
        f = gguf.read(path)
        types = {t.name: t.type for t in f.tensors}
        small = {name for name, type in types.items() if type == kind}
        check(set(types.values()) <= {kind, "F32"}, f"{what}: types {set(types.values())}")
        if kind != "F32":
            matrices = {"attn_qkv", "attn_output", "ffn_up", "ffn_down"}
            want = {f"blk.{n}.{m}.weight" for n in range(LAYERS) for m in matrices}
            check(small == want | {"token_embd.weight"}, f"{what}: {kind} tensors are {small}")
        t = f.tensor("blk.1.attn_qkv.weight")
        ours = np.frombuffer(t.data, np.uint32 if kind == "F32" else np.uint16).reshape(3 * C, C)
        theirs = np.frombuffer(tensors[prefix + "h.1.attn.c_attn.weight"][2], ours.dtype)
        check(t.dims == (C, 3 * C), f"{what}: dims of attn_qkv are {t.dims}")
        check(np.array_equal(ours, theirs.reshape(C, 3 * C).T), f"{what}: attn_qkv's order")
        convert("--to-hf", path, back)
        check(read_safetensors(back) == tensors, f"{what}: another name, shape or byte came back")
        with open(os.path.join(back, "config.json")) as g:
            config = json.load(g)
        check(all(config[name] == value for name, value in CONFIG.items()), f"{what}: {config}")


def test_output(folder):
    """lm_head: left out when it is the embedding, kept when it is its own."""
    path, back = os.path.join(folder, "m.gguf"), os.path.join(folder, "back")
    tensors = weights("F32")
    same = {**tensors, "lm_head.weight": tensors["transformer.wte.weight"]}
    convert(write_folder(os.path.join(folder, "tied"), same), path)
    check("output.weight" not in gguf.read(path).by_name, "a tied model has an output.weight")
    other = {**tensors, "lm_head.weight": ("F32", (V, C), bytes(4 * V * C))}
    convert(write_folder(os.path.join(folder, "bad"), other), path, code=1,
            words=["lm_head.weight"])
    untied = {**CONFIG, "tie_word_embeddings": False}
    convert(write_folder(os.path.join(folder, "untied"), other, untied), path)
    check(gguf.read(path).tensor("output.weight").dims == (C, V), "dims of output.weight")
    convert("--to-hf", path, back)
    check(read_safetensors(back) == other, "an untied model does not come back")
    convert(write_folder(os.path.join(folder, "lost"), tensors, untied), path, code=1,
            words=["lm_head.weight", "missing"])
    f = gguf.read(path)   # a copy of the embedding, for llama.cpp before 2025-03
    copy = f.tensor("token_embd.weight")._replace(name="output.weight")
    gguf.write(path, f.keys, [t for t in f.tensors if t.name != "output.weight"] + [copy])
    convert("--to-hf", path, back)
    check(read_safetensors(back) == tensors, "a copied output.weight is not left out")


def test_tokenizer(folder):
    path, back = os.path.join(folder, "m.gguf"), os.path.join(folder, "back")
    source = write_folder(os.path.join(folder, "hf"), weights("F32"))
    keys = bpe.to_keys(bpe.from_merges([(97, 98), (256, 99)]))
    tokens, merges = keys["tokenizer.ggml.tokens"][1], keys["tokenizer.ggml.merges"][1]
    with open(os.path.join(source, "vocab.json"), "w") as f:
        json.dump({token: id for id, token in enumerate(tokens)}, f)
    with open(os.path.join(source, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    convert(source, path, words=["300 rows for 259 tokens"])
    f = gguf.read(path)
    own = {name: key for name, key in f.keys.items() if name.startswith("tokenizer.")}
    check(own == keys, "the tokenizer's keys")
    check(f.tensor("token_embd.weight").dims == (C, 259), "rows of token_embd equal the tokens")
    convert("--to-hf", path, back)
    for name in ("vocab.json", "merges.txt"):
        with open(os.path.join(source, name)) as a, open(os.path.join(back, name)) as b:
            same = json.load(a) == json.load(b) if name == "vocab.json" else a.read() == b.read()
            check(same, f"{name} does not come back")
    f = gguf.read(path)
    gguf.write(path, {**f.keys, **bpe.to_keys(bpe.from_merges([(97, 98)]))}, f.tensors)
    os.remove(os.path.join(back, "config.json"))
    convert("--to-hf", path, back, code=1, words=["258 tokens", "259", "token_embd.weight"])
    check(not os.path.exists(os.path.join(back, "config.json")), "refused, but written")
    with open(os.path.join(source, "vocab.json"), "w") as f:
        json.dump(tokens, f)
    convert(source, path, code=1, words=["vocab.json", "object"])
    with open(os.path.join(source, "vocab.json"), "w") as f:
        json.dump({token: id for id, token in enumerate(tokens)}, f)
    small = {**CONFIG, "vocab_size": 100}
    with open(os.path.join(source, "config.json"), "w") as f:
        json.dump(small, f)
    convert(source, path, code=1, words=["259 tokens", "100"])


def test_tokenizer_json(folder):
    path = os.path.join(folder, "m.gguf")
    source = write_folder(os.path.join(folder, "hf"), weights("F32"))
    convert(source, path, words=["warning: ", "tokenizer.json", "no tokenizer"])
    check("tokenizer.ggml.tokens" not in gguf.read(path).keys, "a tokenizer from nowhere")
    whole = tokenizer_json([(97, 98), (256, 99)], as_pairs=True)
    with open(os.path.join(source, "tokenizer.json"), "w") as f:
        json.dump(whole, f)
    convert(source, path, words=["300 rows for 260 tokens"])
    tokenizer = bpe.from_gguf(gguf.read(path))
    check(tokenizer.encode("abc<pad>")[0] == 257 and tokenizer.tokens[259] == b"<pad>",
          "the tokenizer of tokenizer.json")
    whole["model"]["type"] = "Unigram"
    with open(os.path.join(source, "tokenizer.json"), "w") as f:
        json.dump(whole, f)
    convert(source, path, code=1, words=["tokenizer.json", "model.type", "Unigram", "BPE"])


def test_odd_values(folder):
    """Fields of the wrong type, range or number, in all the files that are read."""
    path, hf = os.path.join(folder, "m.gguf"), os.path.join(folder, "hf")
    tensors = weights("F32")
    for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
        for value in ("8", [8], 8.0, True, -8, 0, None, 10**300):
            convert(write_folder(hf, tensors, {**CONFIG, name: value}), path, code=1,
                    words=["n_layer" if name == "n_layer" else hf])
    for value in (float("nan"), True, 0, 1, -1e-5, 1e-60, 10**400, [1e-5], None):
        convert(write_folder(hf, tensors, {**CONFIG, "layer_norm_epsilon": value}), path, code=1,
                words=["NaN" if value != value else "layer_norm_epsilon"])
    for name, value in (("tie_word_embeddings", "no"), ("model_type", "\x1b[2J"), ("n_inner", {}),
                        ("activation_function", [[]])):
        convert(write_folder(hf, tensors, {**CONFIG, name: value}), path, code=1, words=[name])
    for content, word in (("[" * 100000, "JSON"), ('{"n_layer": %s}' % ("1" * 5000), "config.json"),
                          ('{"a": 1, "a": 2}', "twice"), ("\udcff", "utf-8")):
        with open(os.path.join(hf, "config.json"), "w", errors="surrogateescape") as f:
            f.write(content)
        convert(hf, path, code=1, words=["config.json", word])
    write_folder(hf, tensors)
    header = {name: {"dtype": kind, "shape": shape, "data_offsets": None}
              for name, (kind, shape, _) in tensors.items()}
    data, at = b"".join(raw for _, _, raw in tensors.values()), 0
    for name, row in header.items():
        row["data_offsets"] = [at, at + len(tensors[name][2])]
        at = row["data_offsets"][1]
    one = "transformer.ln_f.bias"
    first, last = header[one]["data_offsets"]

    def bad(words, change={}, tail=b"", **new):
        text = json.dumps({**header, **change, one: {**header[one], **new}}).encode()
        write_safetensors(hf, text, data + tail)
        convert(hf, path, code=1, words=["model.safetensors", *words])

    for offsets in ([first, last, last], [first], "ab", [first, str(last)], [first, True],
                    [float(first), last], {"0": 1}, None, [-1, 3], [10**30, 10**30]):
        bad([one], data_offsets=offsets)
    for shape in ("8", [C, -1], [[C]], [8.0], [True], [1] * 9, [10**4000], None):
        bad([one], shape=shape)
    for dtype in (1, None, ["F32"]):
        bad([one], dtype=dtype)
    bad(["expected to begin"], data_offsets=[0, last - first])      # over another, and a hole
    bad([str(at + 3), "something else"], tail=b"abc")
    bad(["\x1b[2J"], tail=bytes(4),
        change={"\x1b[2J": {"dtype": "F32", "shape": [], "data_offsets": [at, at + 4]}})
    run_program(hf, path, code=1, words=["model.safetensors", "\\x1b[2J"])
    bad(["wpe.weight", "with and without"], tail=bytes(4),
        change={"wpe.weight": {"dtype": "F32", "shape": [1], "data_offsets": [at, at + 4]}})
    text = json.dumps(header)
    for content, word in (
            (text.replace('{"transformer.wte', '{"a": 1, "a": 2, "transformer.wte', 1), "twice"),
            (text.replace("[0, ", "[%s, " % ("1" * 5000), 1), "header"), ('{"a":' * 10**5, "JSON")):
        write_safetensors(hf, content.encode(), data)
        convert(hf, path, code=1, words=["model.safetensors", word])
    for name in ("model.safetensors", "config.json"):
        write_folder(hf, tensors)
        os.remove(os.path.join(hf, name))
        os.mkfifo(os.path.join(hf, name))
        convert(hf, path, code=1, words=[name, "is not a regular file"])
        os.remove(os.path.join(hf, name))
    check(not os.path.exists(path), "a refused model leaves no file")

    write_folder(hf, tensors)
    for name in ("model.safetensors", "config.json"):
        convert(hf, os.path.join(hf, name), code=1, words=[name, ".gguf"])
    convert(hf, path)
    f, back = gguf.read(path), os.path.join(folder, "back")
    copy = os.path.join(folder, "copy.gguf")
    for name, values in {
            "attention.head_count": (("string", "abc"), ("u32", 0), ("u32", 3), ("f32", 2.0),
                                     ("u32s", [2]), ("i32", -2)),
            "attention.layer_norm_epsilon": (("f32", float("nan")), ("f32", 0.0), ("u32", 1),
                                             ("f32", float("inf")), ("string", "1e-5"),
                                             ("f32", -1e-5), ("f64", 1e-60)),
            "block_count": (("bool", True), ("string", "2"), ("i32", -1), ("u64", 2**63)),
            "embedding_length": (("f32", 8.0), ("i32", -8), ("u32", 0)),
            "context_length": (("f32", 16.0), ("i32", -16), ("strings", ["16"]))}.items():
        for value in values:
            gguf.write(copy, {**f.keys, "gpt2." + name: value}, f.tensors)
            convert("--to-hf", copy, back, code=1, words=[copy])
    for name, value in (("general.architecture", ("u32", 1)), ("legible.hf_prefix", ("u32", 1)),
                        ("tokenizer.ggml.bos_token_id", ("string", "1"))):
        gguf.write(copy, {**f.keys, name: value}, f.tensors)
        convert("--to-hf", copy, back, code=1, words=[copy, name])
    gguf.write(copy, {**f.keys, "gpt2.block_count": ("u32", 1)}, f.tensors)
    convert("--to-hf", copy, back, code=1, words=[copy, "blk.1.attn_norm.bias", "block_count"])
    gguf.write(copy, f.keys, [*f.tensors, ("rope_freqs.weight", "F32", (1,), bytes(4))])
    convert("--to-hf", copy, back, code=1, words=[copy, "rope_freqs.weight: unexpected"])
    os.mkfifo(os.path.join(folder, "pipe.gguf"))
    convert("--to-hf", os.path.join(folder, "pipe.gguf"), back, code=1,
            words=["is not a regular file"])
    check(not os.path.exists(back), "a refused model leaves no folder")


def test_folder_in_use(folder):
    """--to-hf replaces nothing, nor does it leave beside its files what would be read instead."""
    hf, path, back = (os.path.join(folder, name) for name in ("hf", "m.gguf", "back"))
    convert(write_folder(hf, weights("F32")), path)
    for name in ("model.safetensors", "tokenizer.json"):
        os.makedirs(back)
        with open(os.path.join(back, name), "w") as g:
            g.write("mine")
        convert("--to-hf", path, back, code=1, words=[os.path.join(back, name), "there already"])
        check(os.listdir(back) == [name], f"beside {name}: {os.listdir(back)}")
        shutil.rmtree(back)


def test_cut_short(folder):
    write_folder(folder, {name: ("F16", (1 << 20,), b"ab" * (1 << 20)) for name in "xy"})
    check_cut_short(os.path.join(folder, "model.safetensors"), "hf_gpt2.read_safetensors",
                    2 * (1 << 20) * (ord("a") + ord("b")))


def test_odd_inputs(folder):
    """Whatever the input, there is a result or a Failure: many more, without a process for each."""
    r = random.Random(1)
    hf, path, copy = (os.path.join(folder, name) for name in ("hf", "m.gguf", "copy.gguf"))
    back = os.path.join(folder, "back")
    convert(write_folder(hf, weights("F32")), path)
    f = gguf.read(path)
    with open(os.path.join(hf, "model.safetensors"), "rb") as g:
        size, = struct.unpack("<Q", g.read(8))
        header, data = g.read(size), g.read()
    for trial in range(int(os.environ.get("TRIALS", 200))):
        config = json.dumps(change(CONFIG, r)).encode()
        with open(os.path.join(hf, "config.json"), "wb") as g:
            g.write(damage(config, r) if trial % 4 == 0 else config)
        tables = json.dumps(change(json.loads(header), r)).encode()
        if trial % 2:
            write_safetensors(hf, damage(header, r) if trial % 3 else tables, data)
        with open(os.path.join(hf, "tokenizer.json"), "w") as g:
            json.dump(change(tokenizer_json([]), r), g)
        keys = {name: r.choice(list(f.keys.values())) if r.random() < 0.1 else key
                for name, key in f.keys.items()}
        gguf.write(copy, keys, f.tensors)
        for arguments in ((hf, path), ("--to-hf", copy, back)):
            convert(*arguments, code=None, words=[arguments[-2]])


def test_refused(folder):
    path, hf = os.path.join(folder, "m.gguf"), os.path.join(folder, "hf")
    tensors = weights("F32")
    for name, value in (
            ("activation_function", "gelu"), ("activation_function", "relu"), ("n_inner", 100),
            ("scale_attn_by_inverse_layer_idx", True), ("scale_attn_weights", False),
            ("add_cross_attention", True), ("model_type", "llama"), ("n_head", 3), ("n_head", 0),
            ("n_layer", 10**12), ("n_embd", None), ("layer_norm_epsilon", "x")):
        convert(write_folder(hf, tensors, {**CONFIG, name: value}), path, code=1, words=[name])
    convert(write_folder(hf, tensors, [1]), path, code=1, words=["config.json"])
    lost = {name: t for name, t in tensors.items() if "h.1.mlp.c_fc.bias" not in name}
    convert(write_folder(hf, lost), path, code=1, words=["h.1.mlp.c_fc.bias", "missing"])
    for name, t, word in (("transformer.wpe.weight", ("F32", (C, T), bytes(4 * T * C)), "shape"),
                          ("transformer.odd", ("F32", (1,), bytes(4)), "transformer"),
                          ("transformer.ln_f.bias", ("F64", (C,), bytes(8 * C)), "F64"),
                          ("transformer.ln_f.bias", ("F32", (C,), bytes(4)), "bytes")):
        convert(write_folder(hf, {**tensors, name: t}), path, code=1,
                words=[name.split(".", 1)[1], word if word != "transformer" else "no parameter"])
    write_folder(hf, tensors)
    with open(os.path.join(hf, "model.safetensors"), "rb") as f:
        raw = f.read()
    size, = struct.unpack_from("<Q", raw)
    for cut in (0, 7, 8, 100, size, len(raw) - 1):
        with open(os.path.join(hf, "model.safetensors"), "wb") as f:
            f.write(raw[:cut])
        convert(hf, path, code=1, words=["model.safetensors"])
    for header in (b"[]", b"{", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}', b"\xff",
                   b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
                   b'{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}',
                   b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
                   b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
                   b'{"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}',
                   b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 9999]}}'):
        write_safetensors(hf, header, bytes(16))
        convert(hf, path, code=1, words=["model.safetensors"])
    os.remove(os.path.join(hf, "model.safetensors"))
    convert(hf, path, code=1, words=["model.safetensors", "missing"])
    check(not os.path.exists(path), "a refused model leaves no file")
    convert("--to-hf", hf, folder, code=1, words=[hf, "is a folder, expected a file"])
    gguf.write(path, {"general.architecture": ("string", "llama")})
    convert(path, os.path.join(folder, "n.gguf"), code=1, words=[path, "is a file", "--to-hf"])
    convert("--to-hf", path, hf, code=1, words=["general.architecture", "llama"])
    gguf.write(path, {
        "general.architecture": ("string", "gpt2"), "gpt2.embedding_length": ("u32", 8),
        "gpt2.context_length": ("u32", 8), "gpt2.block_count": ("u32", 2**31)})
    convert("--to-hf", path, hf, code=1, words=[path, "block_count"])


def test_tiny_model(folder):
    """Hugging Face's tiny model: every parameter comes back, and infer continues as theirs does."""
    source = os.path.join(SHARED, "fixtures", "tiny-random-gpt2")
    if not os.path.isdir(source):
        print(f"SKIP: Hugging Face's tiny model: no folder {source}")
        return
    path, back = os.path.join(folder, "m.gguf"), os.path.join(folder, "back")
    convert(source, path)
    convert("--to-hf", path, back)
    check(read_safetensors(back) == read_safetensors(source), "the tiny model does not come back")
    with open(os.path.join(source, "expected.json")) as f:
        cases = json.load(f)["cases"]
    if os.path.exists(INFER):
        for case in cases:
            prompt, n = ",".join(map(str, case["prompt"])), str(len(case["next"]))
            p = subprocess.run([INFER, "-m", path, "--ids", prompt, "-n", n, "--temp", "0"],
                               capture_output=True, text=True)
            got = [int(id) for id in p.stdout.replace(",", " ").split()]
            check(got == case["next"], f"infer continues {prompt} with {got}, not {case['next']}")
    else:
        print(f"SKIP: infer's continuations: no program {INFER}")
    if not all(map(importlib.util.find_spec, ("transformers", "torch"))):
        print("SKIP: transformers and torch are not installed")
        return
    import torch
    import transformers
    model, info = transformers.GPT2LMHeadModel.from_pretrained(back, output_loading_info=True)
    check(not any(info.values()), f"transformers loads it with complaints: {info}")
    for case in cases:
        ids = list(case["prompt"])
        for _ in case["next"]:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        check(ids[len(case["prompt"]):] == case["next"], f"transformers continues with {ids}")


if __name__ == "__main__":
    sys.exit(run_tests([test_round_trips, test_output, test_tokenizer, test_tokenizer_json,
                        test_odd_values, test_folder_in_use, test_cut_short, test_odd_inputs,
                        test_refused, test_tiny_model], in_a_folder))
