#!/usr/bin/env python3
"""hf_gpt2.py - a Hugging Face GPT-2 to GGUF, and back. Needs numpy.

    hf_gpt2.py FOLDER OUT.gguf            config.json, model.safetensors; vocab.json, merges.txt
    hf_gpt2.py --to-hf IN.gguf FOLDER     the same files, which transformers loads

The two hold the same numbers under other names. Hugging Face's Conv1D keeps its matrices as
[in, out], GGUF as [out][in], so attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj are transposed.

Types: matrices keep theirs, F32, F16 or BF16. Norms, biases and position_embd become F32, because
llama.cpp wants them so. On the way back all take the type of token_embd if that loses nothing, so
that a round trip gives every parameter's name, shape and bytes, whatever type the model had.
"""
import argparse
import json
import math
import mmap
import os
import struct
import sys

import bpe
import gguf
from files import Failure, atomic_open, run

try:
    import numpy as np
except ImportError:
    sys.exit("error: hf_gpt2.py needs numpy (pip install numpy, or apt-get install python3-numpy)")

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}   # general.file_type
PREFIX_KEY = "legible.hf_prefix"                # "transformer." or "": what the source's names had
CONTEXT_HINT = "llama.cpp needs a context_length that is a multiple of 256"


# ---- names ---------------------------------------------------------------------------------------

def parameters(layers, C, T, V):
    """Every parameter: (GGUF name, Hugging Face name and shape, is it a Conv1D matrix)."""
    rows = [("token_embd.weight", "wte.weight", (V, C), False),
            ("position_embd.weight", "wpe.weight", (T, C), False)]
    for n in range(layers):
        for ours, theirs, shape in (
                ("attn_norm", "ln_1", (C,)), ("attn_qkv", "attn.c_attn", (C, 3 * C)),
                ("attn_output", "attn.c_proj", (C, C)), ("ffn_norm", "ln_2", (C,)),
                ("ffn_up", "mlp.c_fc", (C, 4 * C)), ("ffn_down", "mlp.c_proj", (4 * C, C))):
            ours, theirs = f"blk.{n}.{ours}", f"h.{n}.{theirs}"
            rows.append((ours + ".weight", theirs + ".weight", shape, len(shape) == 2))
            rows.append((ours + ".bias", theirs + ".bias", shape[-1:], False))
    return rows + [("output_norm.weight", "ln_f.weight", (C,), False),
                   ("output_norm.bias", "ln_f.bias", (C,), False)]


# ---- numbers -------------------------------------------------------------------------------------
# numpy has no bfloat16, so arrays hold the bits: uint32 for F32, uint16 for F16 and BF16.

def bits(data, type, shape):
    return np.frombuffer(data, np.uint32 if type == "F32" else np.uint16).reshape(shape)


def to_f32(a, type):
    if type == "F16":
        return a.view(np.float16).astype(np.float32).view(np.uint32)
    return a.astype(np.uint32) << 16 if type == "BF16" else a


def from_f32(a, type):
    """The bits in a smaller type, or None where that would change a value."""
    if type == "F32":
        return a
    with np.errstate(all="ignore"):
        small = (a.view(np.float32).astype(np.float16).view(np.uint16) if type == "F16"
                 else (a >> 16).astype(np.uint16))
    return small if np.array_equal(to_f32(small, type), a) else None


# ---- safetensors ---------------------------------------------------------------------------------
# u64 length of the header; the header, JSON: {name: {dtype, shape, data_offsets}}; the data.

def read_safetensors(path):
    """{name: (type, shape, bytes)}. Offsets and shapes come from outside: each is checked."""
    if os.path.getsize(path) < 8:
        raise Failure(f"{path}: {os.path.getsize(path)} bytes, expected more (was it cut short?)")
    with open(path, "rb") as f:
        data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    size = struct.unpack("<Q", data[:8])[0]
    if size > len(data) - 8:
        raise Failure(f"{path}: the header claims {size} bytes, but {len(data) - 8} follow"
                      " (was it cut short, or is it only a Git LFS pointer?)")
    try:
        header = json.loads(bytes(data[8:8 + size]))
        rows = [(name, row["dtype"], tuple(row["shape"]), *row["data_offsets"])
                for name, row in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise Failure(f"{path}: the header is not {{name: dtype, shape, data_offsets}}: {e!r}")
    data, found = data[8 + size:], {}
    for name, type, shape, begin, end in rows:
        if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
            raise Failure(f"{path}: {name}: shape {shape}, offsets {begin} to {end}: not counts")
        if not isinstance(type, str):
            raise Failure(f"{path}: {name}: dtype {type!r}, expected a string such as F32")
        if end > len(data) or begin > end:
            raise Failure(f"{path}: {name}: at bytes {begin} to {end} of {len(data)} (was the file"
                          " cut short?)")
        if type in WIDTHS and end - begin != math.prod(shape) * WIDTHS[type]:
            raise Failure(f"{path}: {name}: {end - begin} bytes, expected"
                          f" {math.prod(shape) * WIDTHS[type]} from {type} {list(shape)}")
        found[name] = type, shape, data[begin:end]
    return found


def write_safetensors(path, tensors):
    """tensors: [(name, type, bits)]"""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, type, a in tensors:
        header[name] = {"dtype": type, "shape": a.shape, "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with atomic_open(path) as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for _, _, a in tensors:
            f.write(memoryview(np.ascontiguousarray(a)).cast("B"))


# ---- to GGUF -------------------------------------------------------------------------------------

def read_config(path):
    """config.json, refused by name where it describes another arithmetic than GPT-2's."""
    with open(path, encoding="utf-8") as f:
        try:
            config = json.load(f)
        except ValueError as e:
            raise Failure(f"{path}: is not JSON: {e}")
    if not isinstance(config, dict):
        raise Failure(f"{path}: a JSON {type(config).__name__}, expected an object")
    for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise Failure(f"{path}: {name} is {config.get(name)!r}, expected a positive integer")
    if config["n_embd"] % config["n_head"]:
        raise Failure(f"{path}: n_head is {config['n_head']}, expected a divisor of n_embd,"
                      f" {config['n_embd']}")
    epsilon = config.setdefault("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise Failure(f"{path}: layer_norm_epsilon is {epsilon!r}, expected 0 < it < 1")
    for name, default, accepted in (
            ("model_type", "gpt2", ("gpt2",)),
            ("activation_function", "gelu_new", ("gelu_new", "gelu_pytorch_tanh")),
            ("n_inner", None, (None, 4 * config["n_embd"])),
            ("scale_attn_weights", True, (True,)),
            ("scale_attn_by_inverse_layer_idx", False, (False,)),
            ("add_cross_attention", False, (False,)),
            ("pruned_heads", {}, ({},))):
        if config.get(name, default) not in accepted:
            raise Failure(f"{path}: {name} is {json.dumps(config[name])}, expected"
                          f" {' or '.join(map(json.dumps, accepted))}: this is another arithmetic"
                          " than GPT-2's")
    return config


def read_model(folder, config):
    """{name without prefix: (type, shape, bytes)}, and the prefix."""
    path = os.path.join(folder, "model.safetensors")
    if not os.path.exists(path):
        others = [n for n in ("model.safetensors.index.json", "pytorch_model.bin")
                  if os.path.exists(os.path.join(folder, n))]
        hint = f"there is {others[0]}" if others else "is this a Hugging Face model's folder?"
        raise Failure(f"{path}: missing ({hint}; transformers' save_pretrained writes it)")
    found = read_safetensors(path)
    prefix = "transformer." if any(name.startswith("transformer.") for name in found) else ""
    tensors = {}
    for name, tensor in found.items():
        short = name[len(prefix):] if name.startswith(prefix) else name
        if short.endswith((".attn.bias", ".attn.masked_bias")):
            continue   # the causal mask, which older files carry along
        if tensor[0] not in WIDTHS:
            raise Failure(f"{path}: {name}: dtype {tensor[0]}, expected F32, F16 or BF16")
        tensors[short] = tensor
    return path, tensors, prefix


def to_gguf(folder, out):
    config = read_config(os.path.join(folder, "config.json"))
    path, tensors, prefix = read_model(folder, config)
    C, T, V = config["n_embd"], config["n_positions"], config["vocab_size"]
    if config["n_layer"] > len(tensors):
        raise Failure(f"{path}: {len(tensors)} tensors, too few for n_layer {config['n_layer']}")
    head = tensors.pop("lm_head.weight", None)
    rows = parameters(config["n_layer"], C, T, V)
    if not config.get("tie_word_embeddings", True):
        rows.append(("output.weight", "lm_head.weight", (V, C), False))
        tensors.update({"lm_head.weight": head} if head else {})
    elif head and head != tensors.get("wte.weight"):
        raise Failure(f"{path}: lm_head.weight is not wte.weight, but tie_word_embeddings is true")
    unknown = sorted(tensors.keys() - {row[1] for row in rows})
    if unknown:
        raise Failure(f"{path}: {unknown[0]}: no parameter of a GPT-2 with n_layer"
                      f" {config['n_layer']}")

    tokenizer = read_tokenizer(folder, V)
    kept = len(tokenizer["tokenizer.ggml.tokens"][1]) if tokenizer else V
    if kept < V:
        print(f"{path}: wte.weight has {V} rows for {kept} tokens: the others are left out, because"
              " llama.cpp wants a row for each token", file=sys.stderr)
    written = []
    for ours, theirs, shape, conv1d in rows:
        if theirs not in tensors:
            raise Failure(f"{path}: {theirs}: missing, expected {list(shape)}")
        type, found, data = tensors[theirs]
        if found != shape:
            raise Failure(f"{path}: {theirs}: shape {list(found)}, expected {list(shape)} from"
                          " config.json")
        a = bits(data, type, shape)
        if conv1d:
            a = a.T
        elif shape == (V, C) and ours != "position_embd.weight":
            a = a[:kept]
        if len(shape) == 1 or ours == "position_embd.weight":
            a, type = to_f32(a, type), "F32"
        written.append((ours, type, a.shape[::-1], np.ascontiguousarray(a)))
    keys = {
        "general.architecture": ("string", "gpt2"),
        "general.name": ("string", os.path.basename(os.path.abspath(folder))),
        "general.file_type": ("u32", FILE_TYPES[written[0][1]]),
        "gpt2.context_length": ("u32", T), "gpt2.embedding_length": ("u32", C),
        "gpt2.block_count": ("u32", config["n_layer"]), "gpt2.feed_forward_length": ("u32", 4 * C),
        "gpt2.attention.head_count": ("u32", config["n_head"]),
        "gpt2.attention.layer_norm_epsilon": ("f32", config["layer_norm_epsilon"]),
        PREFIX_KEY: ("string", prefix), **tokenizer}
    gguf.write(out, keys, written)
    print(f"{out}: {len(written)} tensors, {config['n_layer']} layers, {C} channels,"
          f" {kept} tokens{'' if tokenizer else ' (no vocab.json and merges.txt: no tokenizer)'}")
    if T % 256:
        print(f"note: n_positions is {T}: {CONTEXT_HINT}", file=sys.stderr)


def read_tokenizer(folder, V):
    """The keys of vocab.json and merges.txt, which are OpenAI's two files by other names; or {}."""
    vocab, merges = (os.path.join(folder, name) for name in ("vocab.json", "merges.txt"))
    if not (os.path.exists(vocab) and os.path.exists(merges)):
        return {}
    tokenizer = bpe.from_gpt2(merges, vocab)
    if len(tokenizer.tokens) > V:
        raise Failure(f"{vocab}: {len(tokenizer.tokens)} tokens, expected at most vocab_size, {V}")
    return bpe.to_keys(tokenizer)


# ---- to Hugging Face -----------------------------------------------------------------------------

def to_hf(source, folder):
    f = gguf.read(source)
    if f.value("general.architecture") != "gpt2":
        raise Failure(f"{source}: key general.architecture: {f.value('general.architecture')!r},"
                      " expected 'gpt2'")
    C, T, layers = sizes = [f.value(f"gpt2.{name}") for name in
                            ("embedding_length", "context_length", "block_count")]
    if not all(isinstance(n, int) for n in sizes) or not 0 <= layers <= len(f.tensors):
        raise Failure(f"{source}: embedding_length, context_length and block_count are {sizes},"
                      f" expected integers that fit {len(f.tensors)} tensors")
    embd = f.tensor("token_embd.weight")
    V, tied = embd.dims[-1], "output.weight" not in f.by_name
    rows = parameters(layers, C, T, V)
    if not tied:   # llama.cpp before 2025-03 needed the copy, even of a tied model
        tied = f.tensor("output.weight")[1:] == embd[1:]
        rows += [] if tied else [("output.weight", "lm_head.weight", (V, C), False)]
    prefix = f.value(PREFIX_KEY, "transformer.")
    written = []
    for ours, theirs, shape, conv1d in rows:
        t = f.tensor(ours)
        dims = shape if conv1d else shape[::-1]   # fastest first; Conv1D is the transpose
        if t.dims != dims or t.type not in WIDTHS:
            raise Failure(f"{source}: tensor {ours}: {t.type} {t.dims}, expected F32, F16 or BF16"
                          f" {dims}")
        a, type = bits(t.data, t.type, dims[::-1]), t.type
        if type == "F32":
            small = from_f32(a, embd.type)
            a, type = (a, type) if small is None else (small, embd.type)
        name = theirs if theirs == "lm_head.weight" else prefix + theirs
        written.append((name, type, a.T if conv1d else a))
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, "model.safetensors"), written)
    write_json(folder, "config.json", hf_config(f, V, tied, embd.type))
    if "tokenizer.ggml.tokens" in f.keys:
        tokens = f.value("tokenizer.ggml.tokens")
        merges = bpe.visible_merges(bpe.from_gguf(f), tokens)
        write_json(folder, "vocab.json", {token: id for id, token in enumerate(tokens)})
        with atomic_open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as out:
            out.write("\n".join(["#version: 0.2", *merges, ""]))
    print(f"{folder}: {len(written)} parameters, {layers} layers, {C} channels, {V} tokens")


def hf_config(f, V, tied, type):
    epsilon = np.float32(f.value("gpt2.attention.layer_norm_epsilon"))
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "n_layer": f.value("gpt2.block_count"), "n_head": f.value("gpt2.attention.head_count"),
        "n_embd": f.value("gpt2.embedding_length"), "vocab_size": V,
        "n_positions": f.value("gpt2.context_length"), "n_ctx": f.value("gpt2.context_length"),
        "layer_norm_epsilon": float(str(epsilon)),   # 1e-05, not 9.999999747378752e-06
        "activation_function": "gelu_new", "tie_word_embeddings": tied,
        "bos_token_id": f.value("tokenizer.ggml.bos_token_id", None),
        "eos_token_id": f.value("tokenizer.ggml.eos_token_id", None),
        "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[type]}


def write_json(folder, name, value):
    with atomic_open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(allow_abbrev=False, description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--to-hf", action="store_true", help="from GGUF to Hugging Face")
    p.add_argument("source", metavar="FROM")
    p.add_argument("target", metavar="TO")
    a = p.parse_args()
    (to_hf if a.to_hf else to_gguf)(a.source, a.target)


if __name__ == "__main__":
    run(main)
