#!/usr/bin/env python3
"""tokenizer_golden.py - writes tests/golden/tokenizer.gguf: hard texts and tiktoken's ids for them.

Needed only to renew the file (pip install tiktoken); test_tokenizer.cpp and test_data.py read it.
Keys: tokenizer.* as in any model, golden.texts, and for each way to cut words, CUT being a name in
tokenizer.ggml.pre: golden.CUT.counts (ids of each text) and golden.CUT.ids (all).

The vocabulary is made to give mistakes away: its merges were learned on the texts without cutting
them into words, so it is full of pairs that lie across a cut. A wrong cut lets one of them through.
"""
import os
import random
import sys

import tiktoken

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "data"))
import bpe   # noqa: E402
import gguf  # noqa: E402

# smollm cuts out each number first and then cuts the rest as GPT-2 does, for which a number is
# therefore the end of the text; that is the same as this one pattern.
PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "smollm": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                 r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}
CHOSEN = [
    "", " ", "  ", "\n", "\r\n\r\n", "it's 42!", "I'LL we'll they'd've", "''s 's  's",
    "a  b   c\n\n\nd  ", "x\u00a0y \u00a0z\u2003\u2003w", "\x1c\x1d \x1e\x1f", "\x85a \x85",
    "e\u0301te\u0301 \u00e9t\u00e9", "\u0661\u0662\u0663 \u2167 \u00bd\u00b2x",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u4f60\u597d\u3002", "\u3000\u3000\u5b57 \u1680\u1680x",
    "\U0001f999 \U0001f468\u200d\U0001f469\u200d\U0001f467!!", "a\u200bb \u00adc \u2060",
    "\U00010400\U0001d54f \U0001fbf0\U00010140", "<|endoftext|> <|endoftext|>", "\x00\x00 \x7f",
    "1 22  333   4444 a1 1a\u0661\u0662\u0663\u0664 '1'", "x.\n\n y!?\r\n\r\nz \n \n  w\t\tv",
    "'ll 'LL\n'Ve", "I'\u017f 'RE"]


def random_text(r):
    """Neighbours that real text rarely has. U+FEFF is left out: make_unicode_tables.py says why."""
    spaces = [c for c in bpe.WHITESPACE if c != "\ufeff"]
    out = ""
    for _ in range(r.randrange(1, 40)):
        kind = r.random()
        if kind < 0.2:
            out += r.choice(" \n\t'  ")
        elif kind < 0.3:
            out += r.choice(spaces)
        elif kind < 0.4:
            out += r.choice(["'s", "'re", "'LL", "'d", "'ve", "n't", " '"])
        elif kind < 0.6:
            out += chr(r.randrange(33, 127))
        else:
            c = r.randrange(0x80, 0x3000 if kind < 0.8 else 0x20000)
            out += "x" if 0xD800 <= c < 0xE000 or c == 0xFEFF else chr(c)
    return out


def main():
    r = random.Random(20240520)
    texts = CHOSEN + [random_text(r) for _ in range(300)]
    merges = bpe.train({text: 1 for text in texts * 2}, 600)
    tokenizer = bpe.from_merges(merges)
    keys = {"general.architecture": ("string", "gpt2"), **bpe.to_keys(tokenizer),
            "golden.texts": ("strings", texts)}
    ranks = {token: id for id, token in enumerate(tokenizer.tokens[:-1])}
    for cut, pattern in PATTERNS.items():
        peer = tiktoken.Encoding(cut, pat_str=pattern, special_tokens={}, mergeable_ranks=ranks)
        ids = [peer.encode_ordinary(text) for text in texts]
        keys[f"golden.{cut}.counts"] = ("i32s", [len(row) for row in ids])
        keys[f"golden.{cut}.ids"] = ("i32s", [id for row in ids for id in row])
    path = os.path.join(HERE, "golden", "tokenizer.gguf")
    gguf.write(path, keys)
    print(f"{path}: {len(texts)} texts, {len(merges)} merges, ids in {len(PATTERNS)} ways")


if __name__ == "__main__":
    main()
