#!/usr/bin/env python3
"""make_unicode_tables.py - writes ../unicode_tables.h: which characters are letters, numbers, ...

Needed only to renew the table (pip install tiktoken); the table itself is committed. GPT-2's
tokenizer cuts text by \\p{L}, \\p{N} and \\s, and a language's own idea of these depends on the
Unicode version that it was built with: Python 3.11 disagrees with tiktoken about 9,272 letters. So
tiktoken itself is asked, one character at a time, and C++ (tokenizer.h) and Python (bpe.py) read
the same answer.

One character is ours to decide: U+FEFF, the byte order mark inside a text. It is white space to
js-tiktoken (JavaScript's \\s), whose ids this project is tested against, and not to tiktoken or
llama.cpp. They differ only where the mark stands beside a space. It counts as white space here.
"""
import itertools
import os

import tiktoken

OUTPUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unicode_tables.h")
HEADER = """\
// unicode_tables.h - the class of every character: L letter, N number, s white space, o anything
// else. Written by data/make_unicode_tables.py, which asks tiktoken; data/bpe.py reads this very
// file.
//
// Runs of equal class from U+0000 to U+10FFFF, the class before the length: o9 s5 o18 s1 ... says
// that U+0000 to U+0008 are other, U+0009 to U+000D white space, and so on.
#pragma once

inline const char UNICODE_RUNS[] =
"""


def members(pattern):
    """All characters that match. With one token for each byte, tiktoken gives tokens for what the
    pattern matches and drops the rest."""
    single_bytes = {bytes([i]): i for i in range(256)}
    e = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={})
    return {c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and e.encode_ordinary(chr(c))}


def main():
    classes = ["o"] * 0x110000
    for name, pattern in (("L", r"\p{L}"), ("N", r"\p{N}"), ("s", r"[\s\x{FEFF}]")):
        for c in members(pattern):
            assert classes[c] == "o", f"U+{c:04X} is in two classes"
            classes[c] = name
    runs = [f"{name}{len(list(group))}" for name, group in itertools.groupby(classes)]
    with open(OUTPUT, "w") as f:
        f.write(HEADER)
        line = ""
        for run in runs:
            if len(line) + len(run) > 92:
                f.write(f'    "{line}"\n')
                line = ""
            line += run
        f.write(f'    "{line}";\n')
    print(f"{os.path.normpath(OUTPUT)}: {len(runs)} runs")


if __name__ == "__main__":
    main()
