#!/usr/bin/env python3
"""test_draft.py - infer's flags that guess ahead (--draft) and that give memory back (--psi-some).

    tests/test_draft.py [WORD...]        the tests whose name contains a word, or all

That guessing loses nothing is seen in test_speculate.cpp, what a trimmed cache holds in
test_runtime.cpp.
"""
import os
import re
import sys
import tempfile

from check import check, run_tests
from test_infer import INFER, Model, chain_model, commas, cycle, generate, golden, random_ids
from test_infer import refused, run


def stats(err):
    found = re.search(r"speculation: (\d+) steps with ([\d.]+) guesses, ([\d.]+) accepted \| a"
                      r" token [\d.]+ ms, plain decoding [\d.]+ ms: gain [\d.]+\n$", err)
    check(found, f"--stats: {err!r}")
    return [float(x) for x in found.groups()] if found else [0, 0, 0]


def test_draft(folder):
    model = Model(T=48, seed=3)
    path = model.write(f"{folder}/model.gguf")
    small = Model(L=1, C=6, F=12, T=48, seed=4).write(f"{folder}/small.gguf")
    ids = random_ids(model, 5)
    plain = generate(path, ids, 30)
    for how in (("--draft", small), ("--draft", path), ("--draft-ngram", 1)):
        for most in (1, 4, 6):
            more = (*how, "--draft-max", most)
            check(generate(path, ids, 30, *more) == plain, f"{more}: not plain decoding's tokens")
    check(len(generate(path, ids, 1000, "--draft", path)) == 48 - 5 + 1, "up to the context's end")
    check(generate(path, ids, 0, "--draft", path) == [], "-n 0")
    for threads in (1, 2):
        drawn = [generate(path, ids, 30, "--draft", small, "--temp", 1, "--seed", seed,
                          "--threads", threads) for seed in (1, 1, 2)]
        check(drawn[0] == drawn[1] != drawn[2], "seeds")

    # A text that goes round: after its first round, all guesses are right.
    round_and_round = chain_model(f"{folder}/chain.gguf", cycle(b"abcdefgh"))
    for how in (("--draft", round_and_round), ("--draft-ngram", 3)):
        out, err = run("-m", round_and_round, "-p", "abcdefghabcd", "-n", 41, "--temp", 0, *how,
                       "--draft-max", 4, "--stats")
        check(out == b"abcdefghabcd" + b"efghabcd" * 5 + b"e\n", f"{how}: {out}")
        check(stats(err) == [8, 4, 4], f"{how}: {err!r}")
    _, err = run("-m", round_and_round, "-p", "z", "-n", 5, "--draft-ngram", 9, "--stats")
    check(stats(err) == [0, 0, 0], f"nothing to guess: {err!r}")

    other = Model(V=60, T=48).write(f"{folder}/other.gguf")
    refused([other, path, "60", "61"], "-m", path, "--ids", 1, "--draft", other)
    short = Model(T=24).write(f"{folder}/short.gguf")
    refused([short, "24", "25"], "-m", path, "--ids", 1, "-n", 24, "--draft", short)
    run("-m", path, "--ids", 1, "-n", 23, "--draft", short)
    refused(["--draft and --draft-ngram"], "-m", path, "--ids", 1, "--draft", small,
            "--draft-ngram", 2)
    for flag in (("--stats",), ("--draft-max", 2)):
        refused([flag[0], "--draft-ngram N"], "-m", path, "--ids", 1, *flag)
    refused(["--draft-max", "1 to"], "-m", path, "--ids", 1, "--draft", small, "--draft-max", 99)
    with open(f"{folder}/lines", "w") as f:
        f.write("a\nb\n")
    refused(["--draft-ngram and -b"], "-m", round_and_round, "-b", f"{folder}/lines",
            "--draft-ngram", 2)
    print("drafts")


def test_pressure(folder):
    psi = f"{folder}/psi"

    def pressure(x):
        with open(psi, "w") as f:
            f.write(f"some avg10={x} avg60=0.00 avg300=0.00 total=0\n")

    def trimmed(path, ids, n, *more):
        out, err = run("-m", path, "--ids", commas(ids), "-n", n, "--psi-some", 10, "--kv-keep", 2,
                       "--kv-tail", 6, "--psi-file", psi, "--ignore-eos", *more)
        return [int(word) for word in out.split()], err

    model = Model(T=48, seed=3)
    gpt2 = model.write(f"{folder}/model.gguf")
    llama = f"{folder}/llama.gguf"
    golden("llama.gguf", llama)
    for path in (gpt2, llama):
        ids = [id % 37 for id in random_ids(model, 20)]   # 37: the Llama's vocabulary
        plain = generate(path, ids, 12, "--ignore-eos")
        pressure("9.99")
        check(trimmed(path, ids, 12)[0] == plain, "too little pressure")
        pressure("10.00")
        made, err = trimmed(path, ids, 12)
        said = "memory pressure 10.00%, limit 10: kept the first 2 and the newest 6 of 20 positions"
        check(err.count(said) == 1 and "MB given back" in err, f"{path}: {err!r}")
        check(made[0] == plain[0], f"{path}: the first token comes before")
        if path == gpt2:   # which reads what is kept afresh
            check(made[1:] == generate(path, ids[:2] + ids[-6:] + made[:1], 11, "--ignore-eos"),
                  f"{made}: other tokens than after the text that is kept")
            for most in (1, 6):
                some, err = trimmed(path, ids, 12, "--draft", path, "--draft-max", most, "--stats")
                check(some == made, "with a draft")
                _, guesses, accepted = stats(err)
                check(guesses == accepted > 0, "the draft's cache is another text's")
    pressure("50.00")
    many = random_ids(model, 8)
    check("kept" not in trimmed(gpt2, many[:7], 2)[1], "nothing to trim")

    flags = {"--psi-some": 10, "--kv-keep": 2, "--kv-tail": 6}
    for missing in flags:
        for file in ((), ("--psi-file", psi)):
            rest = [str(word) for flag in flags.items() for word in flag if flag[0] != missing]
            refused(["--psi-some, --kv-keep and --kv-tail"], "-m", gpt2, "--ids", 1, *rest, *file)
    refused(["--psi-file"], "-m", gpt2, "--ids", 1, "--psi-file", psi)
    every = [str(word) for flag in flags.items() for word in flag]
    refused([f"{folder}/none", "psi=1"], "-m", gpt2, "--ids", 1, *every, "--psi-file",
            f"{folder}/none")
    refused(["--psi-some and -b"], "-m", gpt2, "-b", psi, *every, "--psi-file", psi)
    pressure("x")
    refused([psi, "avg10=x", "expected"], "-m", gpt2, "--ids", 1, *every, "--psi-file", psi)
    print("pressure")


def main():
    if not os.access(INFER, os.X_OK):
        sys.exit(f"{INFER}: is not a program (build it with make, or set INFER)")
    with tempfile.TemporaryDirectory() as folder:
        return run_tests([test_draft, test_pressure], lambda test: test(folder))


if __name__ == "__main__":
    sys.exit(main())
