#!/usr/bin/env python3
"""make.py - writes the inputs that tests/fuzz.cpp begins with, beside itself: small and correct, so
that a change of a few bytes still gets past the first checks.

    tests/fuzz/make.py
"""
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "data"), os.path.join(HERE, "..")]
import bpe                       # noqa: E402
import gguf                      # noqa: E402
from test_infer import Model     # noqa: E402

TEMPLATE = "{{'<|im_start|>system\nBe kind.<|im_end|>\n' + '<|im_start|>' + message['role']}}"


def path(target, name):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    return os.path.join(HERE, target, name)


def write(target, name, content):
    with open(path(target, name), "wb") as f:
        f.write(content)


def models():
    sizes = dict(L=1, NH=2, C=4, F=8, T=8, V=5)
    for type in ("F32", "F16", "BF16"):
        Model(**sizes).write(path("gguf", type.lower()), type=type)
    Model(**sizes, untied=True).write(path("gguf", "untied"))
    gguf.write(path("gguf", "keys"), {
        "general.architecture": ("string", "gpt2"), "u8": ("u8", 1), "bool": ("bool", True),
        "f64": ("f64", 0.5), "i32s": ("i32s", [1, -2]), "strings": ("strings", ["a", "\u4e16"])})


def small_vocabulary():
    """Only smollm does without tokens for all bytes."""
    tokens = ["a", "b", "\u0120", "1", "ab", "\u0120a", "<|im_start|>", "<|im_end|>", "  "]
    return {"general.architecture": ("string", "llama"), "tokenizer.ggml.model": ("string", "gpt2"),
            "tokenizer.ggml.pre": ("string", "smollm"),
            "tokenizer.ggml.tokens": ("strings", tokens),
            "tokenizer.ggml.token_type": ("i32s", [1] * 6 + [3, 3, 4]),
            "tokenizer.ggml.merges": ("strings", ["a b", "\u0120 a"]),
            "tokenizer.ggml.bos_token_id": ("u32", 6), "tokenizer.ggml.eos_token_id": ("u32", 7),
            "tokenizer.ggml.eot_token_id": ("u32", 7),
            "tokenizer.ggml.add_bos_token": ("bool", True),
            "tokenizer.chat_template": ("string", TEMPLATE)}


def tokenizers():
    file = path("tokenizer", "smollm")
    gguf.write(file, small_vocabulary())
    with open(file, "ab") as f:
        f.write(b"a ab 11  <|im_start|>b \xe4\xb8\x96\n")
    merges = [(ord("t"), ord("h")), (256, ord("e")), (ord(" "), 257)]
    for pre in ("gpt-2", "llama-bpe"):
        keys = bpe.to_keys(bpe.from_merges(merges))
        file = path("tokenizer", pre)
        gguf.write(file, {**keys, "tokenizer.ggml.pre": ("string", pre)})
        with open(file, "ab") as f:
            f.write("the the 'LL 1234\r\n\n  x\u00e9\u00a0!\n<|endoftext|>\nthe".encode())


def texts():
    write("text", "ids", b"1, 22 333\t4\n999,")
    write("text", "english", b"It's the 1st of  May, 2024...\r\n\n\tWE'LL see!  \n")
    write("text", "unicode", "\u0645\u0631\u062d \u4f60\u597d\u3002 \U0001f468\u200d\U0001f469"
          " e\u0301 '\u017f \u00bd\u0661\ufeff \u2003\u00a0x".encode())
    write("text", "invalid", b"\xc3( \xe4\xbd \xf0\x9f\xa6 \xed\xa0\x80 \xff\xc0\x80 \x1b[2J\x9b")
    write("text", "documents", b"\xef\xbb\xbfa\n<|endoftext|>\r\n \n<|endoftext|>\nb<|endoftext|>")
    write("text", "template", TEMPLATE.encode())


def shards():
    chance = random.Random(1)
    for name, count in (("small", 40), ("large", 300)):
        tokens = [chance.randrange(257) for _ in range(count)]
        write("shard", name, struct.pack("<3i", 20240520, 1, count) + bytes(1012)
              + struct.pack(f"<{count}H", *tokens))


if __name__ == "__main__":
    models()
    tokenizers()
    texts()
    shards()
