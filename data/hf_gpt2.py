#!/usr/bin/env python3
"""hf_gpt2.py - a Hugging Face GPT-2 to GGUF, and back. Needs numpy.

    hf_gpt2.py FOLDER OUT.gguf            config.json, model.safetensors, and the tokenizer:
                                          vocab.json and merges.txt, or tokenizer.json
    hf_gpt2.py --to-hf IN.gguf FOLDER     the first four of these, which transformers loads

The two hold the same numbers under other names. Hugging Face's Conv1D keeps its matrices as
[in, out], GGUF as [out][in], so attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj are transposed.

Types: matrices keep theirs, F32, F16 or BF16. Norms, biases and position_embd become F32, because
llama.cpp wants them so. On the way back all take the type of token_embd if that loses nothing, so
that a round trip gives every parameter's name, shape and bytes, whatever type the model had.
"""
import json
import math
import os
import struct
import sys

import bpe
import gguf
from files import (Failure, atomic_open, open_regular, parse_object, parser, read_exactly,
                   read_object, run, shown, visible)

try:
    import numpy as np
except ImportError:
    np = None   # --help needs none

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
    with open_regular(path) as f:
        length = os.fstat(f.fileno()).st_size
        if length < 8:
            raise Failure(f"{path}: {length} bytes, expected more (was it cut short?)")
        size = struct.unpack("<Q", read_exactly(f, 8))[0]
        if size > length - 8:
            raise Failure(f"{path}: the header claims {size} bytes, but {length - 8} follow"
                          " (was it cut short, or is it only a Git LFS pointer?)")
        header = parse_object(f"{path}: the header", read_exactly(f, size))
        header.pop("__metadata__", None)
        return {name: (type, shape, read_exactly(f, n))
                for name, type, shape, n in layout(path, header, length - 8 - size)}


def layout(path, header, length):
    """[(name, type, shape, bytes)] in the order in which they fill the file to its end."""
    for name, row in header.items():
        if not (isinstance(row, dict) and isinstance(row.get("dtype"), str)
                and are_counts(row.get("shape"), 0, 8)
                and are_counts(row.get("data_offsets"), 2, 2)):
            raise Failure(f"{path}: {name}: {shown(row)}, expected a dtype, a shape of up to 8"
                          " counts, and two data_offsets")
    found, at = [], 0
    for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        type, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        if begin != at or end < begin:
            raise Failure(f"{path}: {name}: at bytes {begin} to {end}, expected to begin at {at},"
                          " where the one before ends")
        if type in WIDTHS and end - begin != math.prod(shape) * WIDTHS[type]:
            raise Failure(f"{path}: {name}: {end - begin} bytes, expected"
                          f" {math.prod(shape) * WIDTHS[type]} from {type} {list(shape)}")
        found.append((name, type, shape, end - begin))
        at = end
    if at != length:
        raise Failure(f"{path}: the tensors take {at} bytes, but {length} follow the header (was"
                      " the file cut short, or is there something else in it?)")
    return found


def are_counts(value, least, most):
    """Is it a list of so many integers, none negative, that fit 64 bits?"""
    return (isinstance(value, list) and least <= len(value) <= most
            and all(type(n) is int and 0 <= n < 1 << 63 for n in value))


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
    config = read_object(path)
    for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
        if type(config.get(name)) is not int or config[name] < 1:
            raise Failure(f"{path}: {name} is {shown(config.get(name))}, expected a positive"
                          " integer")
    check_heads(path, "n_head", config["n_head"], config["n_embd"])
    check_epsilon(path, "layer_norm_epsilon", config.setdefault("layer_norm_epsilon", 1e-5))
    for name, default, accepted in (
            ("model_type", "gpt2", ("gpt2",)),
            ("activation_function", "gelu_new", ("gelu_new", "gelu_pytorch_tanh")),
            ("n_inner", None, (None, 4 * config["n_embd"])),
            ("scale_attn_weights", True, (True,)),
            ("scale_attn_by_inverse_layer_idx", False, (False,)),
            ("add_cross_attention", False, (False,)),
            ("tie_word_embeddings", True, (True, False)),
            ("pruned_heads", {}, ({},))):
        if config.setdefault(name, default) not in accepted:
            raise Failure(f"{path}: {name} is {shown(config[name])}, expected"
                          f" {' or '.join(map(shown, accepted))}: this is another arithmetic"
                          " than GPT-2's")
    return config


def check_heads(path, name, heads, C):
    if heads < 1 or C % heads:
        raise Failure(f"{path}: {name} is {heads}, expected a divisor of the channels, {C}")


def check_epsilon(path, name, epsilon):
    """Also what a float32 makes 0 is refused: a constant row would be divided by 0."""
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1 or np.float32(epsilon) == 0:
        raise Failure(f"{path}: {name} is {shown(epsilon)}, expected a float32 between 0 and 1")


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
        if short in tensors:
            raise Failure(f"{path}: {short} is there with and without the prefix {prefix}")
        if short.endswith((".attn.bias", ".attn.masked_bias")):
            continue   # the causal mask, which older files carry along
        if tensor[0] not in WIDTHS:
            raise Failure(f"{path}: {name}: dtype {tensor[0]}, expected F32, F16 or BF16")
        tensors[short] = tensor
    return path, tensors, prefix


def to_gguf(folder, out):
    if not out.endswith(".gguf"):   # it might be one of the files that are read
        raise Failure(f"{out}: expected a name that ends with .gguf")
    if os.path.isfile(folder):
        raise Failure(f"{folder}: is a file, expected a Hugging Face model's folder (the way back"
                      " is --to-hf)")
    config = read_config(os.path.join(folder, "config.json"))
    path, tensors, prefix = read_model(folder, config)
    C, T, V = config["n_embd"], config["n_positions"], config["vocab_size"]
    if config["n_layer"] > len(tensors):
        raise Failure(f"{path}: {len(tensors)} tensors, too few for n_layer {config['n_layer']}")
    head = tensors.pop("lm_head.weight", None)
    rows = parameters(config["n_layer"], C, T, V)
    if not config["tie_word_embeddings"]:
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
        warn(f"{path}: wte.weight has {V} rows for {kept} tokens: the others are left out, because"
             " llama.cpp wants a row for each token")
    written = []
    for ours, theirs, shape, conv1d in rows:
        if theirs not in tensors:
            raise Failure(f"{path}: {theirs}: missing, expected {list(shape)}")
        type, found, data = tensors.pop(theirs)   # so only one is in memory twice
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
        "general.name": ("string", visible(os.path.basename(os.path.abspath(folder)))),
        "general.file_type": ("u32", FILE_TYPES[written[0][1]]),
        "gpt2.context_length": ("u32", T), "gpt2.embedding_length": ("u32", C),
        "gpt2.block_count": ("u32", config["n_layer"]), "gpt2.feed_forward_length": ("u32", 4 * C),
        "gpt2.attention.head_count": ("u32", config["n_head"]),
        "gpt2.attention.layer_norm_epsilon": ("f32", config["layer_norm_epsilon"]),
        PREFIX_KEY: ("string", prefix), **tokenizer}
    gguf.write(out, keys, written)
    print(f"{visible(out)}: {len(written)} tensors, {config['n_layer']} layers, {C} channels,"
          f" {kept} tokens")
    if not tokenizer:
        warn(f"{folder} has neither vocab.json and merges.txt nor tokenizer.json, so {out} has no"
             " tokenizer: it takes and gives ids, but no text")
    if T % 256:
        warn(f"n_positions is {T}: {CONTEXT_HINT}")


def warn(message):
    print("warning: " + visible(message), file=sys.stderr)


def read_tokenizer(folder, V):
    """The keys of a folder's tokenizer, or {}. vocab.json and merges.txt are OpenAI's two files by
    other names; newer models have only tokenizer.json."""
    vocab, merges, whole = (os.path.join(folder, name)
                            for name in ("vocab.json", "merges.txt", "tokenizer.json"))
    if os.path.exists(vocab) and os.path.exists(merges):
        tokenizer = bpe.from_gpt2(merges, vocab)
    elif os.path.exists(whole):
        tokenizer = bpe.from_tokenizer_json(whole)
    else:
        return {}
    if len(tokenizer.tokens) > V:
        raise Failure(f"{folder}: its tokenizer has {len(tokenizer.tokens)} tokens, expected at"
                      f" most vocab_size, {V}")
    return bpe.to_keys(tokenizer)


# ---- to Hugging Face -----------------------------------------------------------------------------

def to_hf(source, folder):
    f = gguf.read(source)
    if f.value("general.architecture", type="string") != "gpt2":
        raise Failure(f"{source}: key general.architecture:"
                      f" {f.value('general.architecture')!r:.60}, expected 'gpt2'")
    C, T, layers = sizes = [f.value(f"gpt2.{name}", type="int") for name in
                            ("embedding_length", "context_length", "block_count")]
    if min(sizes) < 0 or layers > len(f.tensors):
        raise Failure(f"{source}: embedding_length, context_length and block_count are {sizes},"
                      f" expected integers that fit {len(f.tensors)} tensors")
    embd = f.tensor("token_embd.weight")
    V, tied = embd.dims[-1], "output.weight" not in f.by_name
    rows = parameters(layers, C, T, V)
    if not tied:   # llama.cpp before 2025-03 needed the copy, even of a tied model
        tied = f.tensor("output.weight")[1:] == embd[1:]
        rows += [] if tied else [("output.weight", "lm_head.weight", (V, C), False)]
    unknown = sorted(f.by_name.keys() - {"output.weight"} - {row[0] for row in rows})
    if unknown:
        raise Failure(f"{source}: tensor {unknown[0]}: unexpected, the keys describe a model"
                      f" without it (is gpt2.block_count, {layers}, wrong?)")
    prefix = f.value(PREFIX_KEY, "transformer.", type="string")
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
    config, tokenizer = hf_config(f, V, tied, embd.type), hf_tokenizer(f, V)
    # What is there stays; and transformers would read a tokenizer.json in place of our vocab.json.
    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer.json"):
        if os.path.lexists(os.path.join(folder, name)):
            raise Failure(f"{os.path.join(folder, name)}: is there already (choose another folder,"
                          " or move it)")
    os.makedirs(folder, exist_ok=True)   # nothing is written before all has been checked
    write_safetensors(os.path.join(folder, "model.safetensors"), written)
    write_json(folder, "config.json", config)
    if tokenizer:
        vocabulary, merges = tokenizer
        write_json(folder, "vocab.json", vocabulary)
        with atomic_open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as out:
            out.write("\n".join(["#version: 0.2", *merges, ""]))
    print(f"{visible(folder)}: {len(written)} parameters, {layers} layers, {C} channels,"
          f" {V} tokens")


def hf_tokenizer(f, V):
    """({token: id}, merges), or None."""
    if "tokenizer.ggml.tokens" not in f.keys:
        return None
    tokenizer, tokens = bpe.from_gguf(f), f.value("tokenizer.ggml.tokens")
    if len(tokens) != V:
        raise Failure(f"{f.path}: key tokenizer.ggml.tokens: {len(tokens)} tokens, expected {V},"
                      " the rows of token_embd.weight")
    return {token: id for id, token in enumerate(tokens)}, bpe.visible_merges(tokenizer, tokens)


def hf_config(f, V, tied, type):
    def number(name):
        return f.value("gpt2." + name, type="int")

    epsilon = f.value("gpt2.attention.layer_norm_epsilon", type="float")
    check_epsilon(f.path, "gpt2.attention.layer_norm_epsilon", epsilon)
    check_heads(f.path, "gpt2.attention.head_count", number("attention.head_count"),
                number("embedding_length"))
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "n_layer": number("block_count"), "n_head": number("attention.head_count"),
        "n_embd": number("embedding_length"), "vocab_size": V,
        "n_positions": number("context_length"), "n_ctx": number("context_length"),
        "layer_norm_epsilon": float(str(np.float32(epsilon))),   # 1e-05, not 9.999999747378752e-06
        "activation_function": "gelu_new", "tie_word_embeddings": tied,
        "bos_token_id": f.value("tokenizer.ggml.bos_token_id", None, type="int"),
        "eos_token_id": f.value("tokenizer.ggml.eos_token_id", None, type="int"),
        "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[type]}


def write_json(folder, name, value):
    with atomic_open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def main(argv=None):
    p = parser(__doc__)
    p.add_argument("--to-hf", action="store_true", help="from GGUF to Hugging Face")
    p.add_argument("source", metavar="FROM")
    p.add_argument("target", metavar="TO")
    a = p.parse_args(argv)
    if np is None:
        raise Failure("hf_gpt2.py needs numpy (pip install numpy, or apt-get install"
                      " python3-numpy)")
    (to_hf if a.to_hf else to_gguf)(a.source, a.target)


if __name__ == "__main__":
    run(main)
