#!/usr/bin/env python3
"""test_hf.py - data/hf_gpt2.py: Hugging Face's GPT-2 to GGUF, and back without losing a bit.

Needs numpy. Extras: the tiny model beside the repository, and transformers.
"""
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("SKIP: numpy is not installed")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, "data", "hf_gpt2.py")
sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

SHARED = os.environ.get("LEGIBLE_SHARED", os.path.join(ROOT, "..", "shared"))
INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))
LAYERS, HEADS, C, T, V = 2, 2, 8, 16, 300
CONFIG = {"model_type": "gpt2", "n_layer": LAYERS, "n_head": HEADS, "n_embd": C, "n_positions": T,
          "vocab_size": V, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}
counts = {True: 0, False: 0}


def check(ok, what):
    counts[bool(ok)] += 1
    if not ok:
        print("FAIL:", what)


def convert(*arguments, code=0, words=()):
    """Runs hf_gpt2.py; its exit code and what it says are checked."""
    p = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    check(p.returncode == code, f"{arguments}: exit {p.returncode}, expected {code}: {p.stderr}")
    check(all(word in p.stderr for word in words), f"expected {words} in {p.stderr!r}")
    check("Traceback" not in p.stderr, p.stderr)


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
    with open(os.path.join(source, "vocab.json"), "w") as f:
        json.dump(tokens, f)
    convert(source, path, code=1, words=["vocab.json", "object"])
    with open(os.path.join(source, "vocab.json"), "w") as f:
        json.dump({token: id for id, token in enumerate(tokens)}, f)
    small = {**CONFIG, "vocab_size": 100}
    with open(os.path.join(source, "config.json"), "w") as f:
        json.dump(small, f)
    convert(source, path, code=1, words=["259 tokens", "100"])


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
    gguf.write(path, {"general.architecture": ("string", "llama")})
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
    if importlib.util.find_spec("transformers") is None:
        print("SKIP: transformers is not installed")
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


def main():
    for test in (test_round_trips, test_output, test_tokenizer, test_refused, test_tiny_model):
        with tempfile.TemporaryDirectory() as folder:
            test(folder)
    print(f"{counts[True]} passed, {counts[False]} failed")
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
