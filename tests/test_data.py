#!/usr/bin/env python3
"""test_data.py - the Python side of the data: GGUF files, BPE, token shards.

What is fast in data/ is written down here a second time, slowly and obviously, and must agree. Uses
the standard library; tiktoken and the files beside the repository are extras.
"""
import array
import bz2
import collections
import contextlib
import copy
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import math
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

from check import check, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "data")
sys.path.insert(0, DATA)
import bpe        # noqa: E402
import download   # noqa: E402
import files      # noqa: E402
import gguf       # noqa: E402
import prepare    # noqa: E402

SHARED = os.environ.get("LEGIBLE_SHARED", os.path.join(ROOT, "..", "shared"))
INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))
GOLDEN = os.path.join(ROOT, "tests", "golden", "tokenizer.gguf")
TRIALS = int(os.environ.get("TRIALS", 400))   # of odd inputs


def check_equal(got, want, what):
    check(got == want, f"{what}: {got!r:.200}, expected {want!r:.200}")


def refused(words, function, *arguments):
    """The call must raise a Failure that says each of the words."""
    try:
        function(*arguments)
    except files.Failure as e:
        check(all(word in str(e) for word in words), f"expected an error with {words}, found: {e}")
    else:
        check(False, f"expected an error with {words}, found none")


def write(path, content):
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


# ---- gguf.py -------------------------------------------------------------------------------------

def test_gguf(folder):
    path = os.path.join(folder, "a.gguf")
    keys = {"general.architecture": ("string", "é"), "u8": ("u8", 255), "i8": ("i8", -128),
            "u16": ("u16", 65535), "i16": ("i16", -5), "u32": ("u32", 2**32 - 1),
            "i32": ("i32", -7), "u64": ("u64", 2**64 - 1), "i64": ("i64", -2**63),
            "f32": ("f32", 0.5), "f64": ("f64", 0.1), "bool": ("bool", True),
            "strings": ("strings", ["", "x y"]), "i32s": ("i32s", [1, -1]),
            "f32s": ("f32s", [0.25]), "bools": ("bools", [False, True]), "none": ("u64s", [])}
    tensors = [("a", "F32", (2, 3), array.array("f", range(6))),
               ("b", "F16", (3,), bytes(range(6))), ("d", "BF16", (1,), b"\x80\x3f"),
               ("c", "F64", (1, 1, 2, 1), array.array("d", [1, 2])),
               ("e", "I32", (2,), array.array("i", [5, -5]))]
    gguf.write(path, keys, tensors)
    f = gguf.read(path)
    check_equal(f.keys, keys, "keys read back")
    check_equal([(t.name, t.type, t.dims, bytes(t.data)) for t in f.tensors],
                [(name, type, dims, bytes(data)) for name, type, dims, data in tensors], "tensors")
    check_equal(f.value("u16"), 65535, "a value")
    check_equal(f.value("nothing", 3), 3, "a fallback")
    refused([path, "nothing", "missing"], f.value, "nothing")
    refused([path, "nothing", "missing"], f.tensor, "nothing")
    first = read(path)
    gguf.write(path, f.keys, f.tensors)
    check(read(path) == first, "equal content gives equal bytes")
    check(struct.unpack_from("<IQQ", first, 4) == (3, 5, 17), "version and counts in the header")

    kinds = {"general.architecture": "string", "f32": "float", "f64": "float", "bool": "bool",
             "strings": "strings", "i32s": "ints", "none": "ints", "f32s": "floats",
             "bools": "bools"}
    for name in keys:
        for kind in {"int", *kinds.values()}:
            if kind == kinds.get(name, "int"):
                check_equal(f.value(name, type=kind), keys[name][1], f"{name} as {kind}")
            else:
                refused([path, name, kind], lambda: f.value(name, type=kind))

    refused(["u8", "256"], gguf.write, path, {"u8": ("u8", 256)})
    refused(["word"], gguf.write, path, {"x": ("word", 1)})
    refused(["a", "fill"], gguf.write, path, {}, [("a", "F32", (3,), bytes(8))])
    refused(["a", "twice"], gguf.write, path, {}, [("a", "F16", (1,), bytes(2))] * 2)
    check(read(path) == first and os.listdir(folder) == ["a.gguf"], "a failed write")

    damaged = os.path.join(folder, "b.gguf")
    end = len(first) - 24   # the last tensor's padding may go
    for cut in range(0, end, 5):
        refused([damaged], gguf.read, write(damaged, first[:cut]))
    r = random.Random(1)
    surprises = 0
    for _ in range(600):
        raw = bytearray(first)
        for _ in range(r.randrange(1, 4)):
            raw[r.randrange(len(raw))] = r.choice((0, 1, 255, r.randrange(256)))
        try:
            gguf.read(write(damaged, bytes(raw)))
        except files.Failure as e:
            surprises += damaged not in str(e)
        except Exception as e:   # a traceback is what this looks for
            surprises += 1
            print("FAIL: damaged GGUF:", repr(e))
    check(surprises == 0, f"{surprises} damaged files got no sentence that names them")


def test_atomic(folder):
    path = write(os.path.join(folder, "x"), "old")
    with contextlib.suppress(ZeroDivisionError):
        with files.atomic_open(path) as f:
            f.write(b"half")
            raise ZeroDivisionError
    check_equal((read(path), os.listdir(folder)), (b"old", ["x"]), "an interrupted write")
    with files.atomic_open(path) as f:
        f.write(b"new")
        f.flush()
        check_equal(read(path), b"old", "until the end the old file is there")
    check_equal((read(path), os.listdir(folder)), (b"new", ["x"]), "a finished write")
    mask = os.umask(0)
    os.umask(mask)
    check_equal(stat.S_IMODE(os.stat(path).st_mode), 0o666 & ~mask, "a new file's mode")
    mine, victim = write(path + ".tmp", "mine"), write(os.path.join(folder, "victim"), "victim")
    names = iter(["taken", "link"])
    write(path + ".taken.tmp", "mine")
    os.symlink(victim, path + ".link.tmp")
    files.secrets.token_hex, token_hex = lambda n: next(names), files.secrets.token_hex
    for _ in range(2):
        with contextlib.suppress(FileExistsError):
            with files.atomic_open(path) as f:
                f.write(b"lost")
    files.secrets.token_hex = token_hex
    check_equal([read(p) for p in (mine, victim, path + ".taken.tmp", path)],
                [b"mine", b"victim", b"mine", b"new"], "files and links that were there before")
    check(os.path.islink(path + ".link.tmp"), "a link that was there before")


def test_messages(folder):
    """What comes from outside is seen in a message, and does nothing to the terminal."""
    odd = "\x1b]0;owned\x07 \x9b31m \x7f \u202eabc\u2066 \ud800 \r\n"
    check(all(c.isprintable() for c in files.visible(odd)), "characters that act on a terminal")
    check_equal(files.visible("\x1bé \U0001f999"), "\\x1bé \U0001f999", "what is shown")
    out = os.path.join(folder, "out")
    name = os.path.join(os.fsencode(folder), b"\x1b[31m\xff.jsonl")
    keys = bpe.to_keys(bpe.from_merges([]))
    own = os.path.join(folder, "own.gguf")
    gguf.write(own, {"general.name": ("string", odd.replace("\ud800", "")), **keys})
    good = write(os.path.join(folder, "good.txt"), "some text\n" * 50)
    for code, words, arguments in (
            (1, ["\\x1b[31m\\udcff", "no field 'text'", "\\x07"],
             [write(name, json.dumps({odd: 1}))]),
            (1, ["--\\x1b[2J"], [good, "--\x1b[2J"]),
            (1, ["No such file", "\\x1b"], [folder + "/\x1b"]),
            (0, ["\\x1b]0;owned"], [good, "--tokenizer", own])):
        command = [sys.executable, os.path.join(DATA, "prepare.py"), *arguments, "--out", out]
        p = subprocess.run(command, capture_output=True)
        said = (p.stdout + p.stderr).decode()
        check(p.returncode == code and all(word in said for word in words),
              f"exit {p.returncode}, expected {code} and {words}: {said!r}")
        check(all(c.isprintable() or c == "\n" for c in said), f"control characters: {said!r}")
        check(code == 0 or said.count("\n") == 1, f"an error of several lines: {said!r}")


def test_regular_files(folder):
    """Whatever is no regular file is named, and never waited for."""
    out = os.path.join(folder, "out")
    good = write(os.path.join(folder, "good.txt"), "text\n" * 50)
    pipes = [os.path.join(folder, name) for name in ("a.txt", "a.jsonl", "a.gguf")]
    for pipe in pipes:
        os.mkfifo(pipe)
    for arguments in ([pipes[0]], [pipes[1]], [good, "--val", pipes[0]],
                      [good, "--tokenizer", pipes[2]], ["/dev/zero"], ["/dev/stdin"],
                      ["tinyshakespeare.py", "--from", pipes[0]]):
        script = arguments.pop(0) if arguments[0].endswith(".py") else "prepare.py"
        command = [sys.executable, os.path.join(DATA, script), *arguments, "--out", out]
        try:
            p = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.PIPE)
            check(p.returncode == 1 and b"is not a regular file" in p.stderr
                  and arguments[-1].encode() in p.stderr, f"{arguments}: {p.stderr.decode()}")
        except subprocess.TimeoutExpired:
            check(False, f"{arguments}: still waiting after 20 s")


# A program that reads argv[1] with argv[3], a module's function, while another cuts it short: while
# its tensors' sizes are computed, if argv[4] says so, and certainly afterwards.
CUT_SHORT = """
import importlib, math, os, sys
sys.path.insert(0, sys.argv[2])
module, function = sys.argv[3].split(".")
import files
prod = math.prod
def cut(dims=()):
    os.truncate(sys.argv[1], 300_000)
    return prod(dims)
def main():
    if sys.argv[4] == "while":
        math.prod = cut
    found = getattr(importlib.import_module(module), function)(sys.argv[1])
    cut()
    tensors = found.values() if function == "read_safetensors" else found.tensors
    print(sum(sum(bytes(tensor[-1])) for tensor in tensors))
files.run(main)
"""


def check_cut_short(path, function, total):
    """What has been read is in memory, and the rest of a file that ends too early is an error: a
    mapping would end in a SIGBUS without a word. The bytes of path's tensors add up to total."""
    content = read(path)
    for when, code, said in (("after", 0, f"{total}\n"), ("while", 1, "")):
        write(path, content)
        p = subprocess.run([sys.executable, "-c", CUT_SHORT, path, DATA, function, when],
                           capture_output=True, text=True)
        check_equal((p.returncode, p.stdout), (code, said), f"{function}: cut short {when} reading")
        check(code == 0 or path in p.stderr and "cut short" in p.stderr, f"message: {p.stderr!r}")


def test_cut_short(folder):
    path = os.path.join(folder, "a.gguf")
    gguf.write(path, {}, [(name, "F16", (1 << 20,), b"ab" * (1 << 20)) for name in "xy"])
    check_cut_short(path, "gguf.read", 2 * (1 << 20) * (ord("a") + ord("b")))


# ---- bpe.py --------------------------------------------------------------------------------------

def slow_train(word_counts, merge_count):
    """All pairs of all words, counted anew for each merge; ties go to the smallest ids."""
    words = {word: list(word.encode()) for word in word_counts}
    merges = []
    while len(merges) < merge_count:
        pairs = collections.Counter()
        for word, ids in words.items():
            for pair in zip(ids, ids[1:]):
                pairs[pair] += word_counts[word]
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for word, ids in words.items():
            words[word] = slow_replace(ids, best, 256 + len(merges))
        merges.append(best)
    return merges


def slow_replace(ids, pair, new):
    i = 0
    while i + 1 < len(ids):
        if (ids[i], ids[i + 1]) == pair:
            ids = ids[:i] + [new] + ids[i + 2:]
        i += 1
    return ids


def slow_encode(tokenizer, word):
    ids = [tokenizer.byte_ids[byte] for byte in word.encode()]
    while True:
        ranked = [(tokenizer.merges[pair][0], i) for i, pair in enumerate(zip(ids, ids[1:]))
                  if pair in tokenizer.merges]
        if not ranked:
            return ids
        i = min(ranked)[1]
        ids = ids[:i] + [tokenizer.merges[ids[i], ids[i + 1]][1]] + ids[i + 2:]


def test_bpe(_):
    for text, words in (
            ("it's 42!", ["it", "'s", " 42", "!"]), ("I'LL we'll", ["I", "'", "LL", " we", "'ll"]),
            ("a  b\n\n c  ", ["a", " ", " b", "\n\n", " c", "  "]), ("x\xa0y", ["x", "\xa0", "y"]),
            ("\x1c\x1d a", ["\x1c\x1d", " a"]), ("e\u0301t", ["e", "\u0301", "t"]), ("", []),
            ("\U0001d54f\U0001f999 \u0661\u2167", ["\U0001d54f", "\U0001f999", " \u0661\u2167"])):
        check_equal(bpe.split(text), words, f"words of {text!r}")
    r = random.Random(2)
    for trial in range(30):
        letters = "ab" if trial < 10 else "abcdé "
        words = ["".join(r.choice(letters) for _ in range(r.randrange(1, 12))) for _ in range(60)]
        word_counts = collections.Counter(r.choice(words) for _ in range(200))
        merges = bpe.train(word_counts, 40)
        check_equal(merges, slow_train(word_counts, 40), "merges, fast and slow")
        tokenizer = bpe.from_merges(merges)
        for word in words + ["a" * 50, "ab" * 20]:
            check_equal(tokenizer.encode_word(word.encode()), slow_encode(tokenizer, word),
                        f"ids of {word!r}, fast and slow")
    check_equal(bpe.train({"aaa": 1}, 5), [(97, 97)], "a pair that occurs once is not merged")
    check_equal(bpe.train({}, 5), [], "no words, no merges")
    long = "ab" * 200_000
    check_equal(bpe.from_merges([(97, 98)]).encode(long), [256] * 200_000, "a long word")

    f = gguf.read(GOLDEN)
    tokenizer, at = bpe.from_gguf(f), 0
    for text, n in zip(f.value("golden.texts"), f.value("golden.gpt-2.counts")):
        ids = f.value("golden.gpt-2.ids")[at:at + n]
        at += n
        check_equal(tokenizer.encode(text), ids, f"tiktoken's ids of {text!r}")
        check_equal(tokenizer.decode(ids), text.encode(), f"decoded {text!r}")


def test_gpt2_vectors(_):
    folder = os.path.join(SHARED, "fixtures", "gpt2-tokenizer")
    if not os.path.isdir(folder):
        print(f"SKIP: GPT-2's vocabulary and vectors: no folder {folder}")
        return
    paths = [os.path.join(folder, name) for name in ("vocab.bpe", "encoder.json")]
    tokenizer = bpe.from_gpt2(*paths)
    other = bpe.from_gguf(gguf.read(os.path.join(folder, "ggml-vocab-gpt-2.gguf")))
    check((other.tokens, other.merges, other.end_of_text)
          == (tokenizer.tokens, tokenizer.merges, tokenizer.end_of_text), "the same from GGUF")
    texts = read(os.path.join(folder, "llama-cpp-vectors.inp")).decode()
    rows = read(os.path.join(folder, "llama-cpp-vectors.out")).decode().split("\n")
    for text, row in zip(texts.split("\n__ggml_vocab_test__\n"), rows):
        check_equal(tokenizer.encode(text), [int(id) for id in row.split()], f"llama.cpp: {text!r}")
    lines = read(os.path.join(folder, "tiktoken-vectors.jsonl")).decode().split("\n")[:-1]
    check_equal(len(lines), 400, "tiktoken: vectors")
    for vector in map(json.loads, lines):
        text, ids = vector["text"], vector["ids"]
        check_equal(tokenizer.encode(text), ids, f"tiktoken: {text!r}")
        check_equal(tokenizer.decode(ids), text.encode(), f"tiktoken: decoded {text!r}")


def test_refused_tokenizers(folder):
    """Python and C++ refuse the same vocabularies, and name the same key."""
    good = bpe.to_keys(bpe.from_merges([(97, 98)]))
    tokens, key = good["tokenizer.ggml.tokens"][1], "tokenizer.ggml."
    cases = {
        "model": ("string", "llama"), "pre": ("string", "qwen2"), "eos_token_id": ("u32", 258),
        "token_type": ("i32s", [1, 1]), "merges": ("strings", ["a c"])}
    cases = [({**good, key + name: value}, name) for name, value in cases.items()]
    cases.append(({**good, key + "token_type": ("i32s", [1] * 256 + [3, 3])}, "merge"))
    for name in ("model", "tokens", "merges", "eos_token_id"):
        cases.append(({k: v for k, v in good.items() if k != key + name}, name))
    for token, word in (("xyz", "99"), ("b", "twice")):
        changed = tokens[:99] + [token] + tokens[100:]
        cases.append(({**good, key + "tokens": ("strings", changed)}, word))
    path = os.path.join(folder, "bad.gguf")
    if not os.path.exists(INFER):
        print(f"SKIP: the C++ tokenizer: no program {INFER}")
    for keys, word in cases:
        gguf.write(path, {"general.architecture": ("string", "gpt2"), **keys})
        refused([path, word], lambda: bpe.from_gguf(gguf.read(path)))
        if os.path.exists(INFER):
            p = subprocess.run([INFER, "tokenize", "-m", path], input=b"x", capture_output=True)
            said = p.stderr.decode(errors="replace")
            check(p.returncode == 1 and path in said and word in said and not p.stdout,
                  f"infer tokenize: exit {p.returncode} without a good {word}: {said}")
    for name, value in (("tokens", ("u8s", [1])), ("tokens", ("string", "a")), ("pre", ("u32", 1)),
                        ("merges", ("i32s", [1])), ("token_type", ("strings", ["1"] * 258)),
                        ("eos_token_id", ("f32", 1.0)), ("eos_token_id", ("bool", True)),
                        ("model", ("strings", ["gpt2"])), ("token_type", ("i32s", [3] * 258))):
        gguf.write(path, {**good, key + name: value})
        refused([path, name if value[1] != [3] * 258 else "byte 33"],
                lambda: bpe.from_gguf(gguf.read(path)))
    gguf.write(path, {**good, key + "token_type": ("i32s", [1] * 256 + [4, 3])})
    refused([path, "token_type", "token 256", "user defined"],
            lambda: bpe.from_gguf(gguf.read(path)))
    for value in (("string", "0" * 64), ("u32", 1)):
        gguf.write(path, {**good, "tokenizer.legible.sha256": value})
        refused([path, "tokenizer.legible.sha256"], lambda: bpe.from_gguf(gguf.read(path)))
    ids = {token: id for id, token in enumerate(tokens)}
    merges = write(os.path.join(folder, "vocab.bpe"), "#version: 0.2\r\na b\r\n")
    vocab = write(os.path.join(folder, "encoder.json"), json.dumps(ids))
    check_equal(bpe.from_gpt2(merges, vocab).encode("ab"), [256], "OpenAI's two files")
    for content in ('{"a": 0.0}', '{"a": [1]}', "[1]", '{"a": %s}' % ("1" * 5000), "[" * 100000,
                    json.dumps({**ids, "\ud800": 258}), json.dumps({**ids, "\x01": True}),
                    '{"a": 0, "a": 0}', b"\xff"):
        refused([vocab], bpe.from_gpt2, merges, write(vocab, content))
    refused([merges], bpe.from_gpt2, write(merges, b"\xff"), write(vocab, json.dumps(ids)))


def tokenizer_json(merges, as_pairs=False):
    """As Hugging Face's tokenizers write GPT-2's, with one more special token."""
    keys = bpe.to_keys(bpe.from_merges(merges))
    visible, pairs = (keys["tokenizer.ggml." + name][1] for name in ("tokens", "merges"))
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
               "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [
                {"id": len(visible) - 1, "content": "<|endoftext|>", **special},
                {"id": len(visible), "content": "<pad>", **special}],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": byte_level,
            "decoder": byte_level, "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                "ignore_merges": False, "vocab": {token: id for id, token in enumerate(visible)},
                "merges": [pair.split(" ") for pair in pairs] if as_pairs else pairs}}


def test_tokenizer_json(folder):
    path = os.path.join(folder, "tokenizer.json")
    pairs = bpe.train(collections.Counter(bpe.split("a tale of an old owl and a mole " * 9)), 20)
    want, end = bpe.from_merges(pairs), 256 + len(pairs)
    for as_pairs in (False, True):
        got = bpe.from_tokenizer_json(write(path, json.dumps(tokenizer_json(pairs, as_pairs))))
        check_equal((got.tokens[:-1], got.merges), (want.tokens, want.merges), "tokenizer.json")
        check_equal((got.end_of_text, got.control, got.tokens[-1]), (end, {end, end + 1}, b"<pad>"),
                    "its special tokens")
    types = bpe.to_keys(got)["tokenizer.ggml.token_type"][1]
    check_equal([id for id, type in enumerate(types) if type == 3], [end, end + 1], "for GGUF")
    gguf.write(os.path.join(folder, "t.gguf"), bpe.to_keys(got))
    again = bpe.from_gguf(gguf.read(os.path.join(folder, "t.gguf")))
    check_equal((again.tokens, again.merges, again.control), (got.tokens, got.merges, got.control),
                "through GGUF and back")

    def bad(words, *where_and_value):
        *where, name, value = where_and_value
        whole = node = tokenizer_json(pairs)
        for step in where:
            node = node[step]
        node[name] = value
        refused([path, *words], bpe.from_tokenizer_json, write(path, json.dumps(whole)))

    for kind in ("WordPiece", "Unigram", "WordLevel"):
        bad(["model.type", kind], "model", "type", kind)
    bad(["pre_tokenizer.type", "Sequence"], "pre_tokenizer", {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(?i:'s)"}}, {"type": "ByteLevel"}]})
    bad(["pre_tokenizer.type", "Metaspace"], "pre_tokenizer", "type", "Metaspace")
    bad(["pre_tokenizer.type", "null"], "pre_tokenizer", None)
    bad(["use_regex"], "pre_tokenizer", "use_regex", False)
    bad(["add_prefix_space"], "pre_tokenizer", "add_prefix_space", True)
    bad(["normalizer", "NFC"], "normalizer", {"type": "NFC"})
    for name, value in (("byte_fallback", True), ("ignore_merges", True), ("dropout", 0.1),
                        ("continuing_subword_prefix", "##"), ("end_of_word_suffix", "</w>")):
        bad(["model." + name, str(value).lower()], "model", name, value)
    bad(["number 0", "foo"], "added_tokens", 0, {"id": 278, "content": "foo", "special": False})
    bad(["number 1", "7"], "added_tokens", 1, {"id": 7, "content": "a", "special": True})
    for name, value in (("vocab", []), ("merges", {}), ("vocab", None)):
        bad(["model.vocab", "model.merges"], "model", name, value)
    for merge in ("ab", "a b c", ["a"], ["a b", "c"], ["a", 1], 1, None):
        bad(["model.merges", "number 3"], "model", "merges", 3, merge)
    bad(["not 0 to"], "model", "vocab", "a", 10**6)
    whole = tokenizer_json(pairs)
    whole["added_tokens"] = []
    bpe.from_tokenizer_json(write(path, json.dumps(whole)))   # the vocabulary has it as well
    del whole["model"]["vocab"]["<|endoftext|>"]
    refused([path, "<|endoftext|>"], bpe.from_tokenizer_json, write(path, json.dumps(whole)))
    refused([path, "JSON"], bpe.from_tokenizer_json, write(path, "{" * 100000))
    refused([path, "JSON", "appears twice"], bpe.from_tokenizer_json,
            write(path, '{"model": 1, "model": 2}'))


# ---- prepare.py ----------------------------------------------------------------------------------

def slow_fingerprint(path):
    """Of the tokens and merges as they lie in the file, which must say the same of itself."""
    raw, both = read(path), b""
    for name in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges"):
        at = raw.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
        kind, element, count = struct.unpack_from("<IIQ", raw, at)
        check_equal((kind, element), (9, 8), f"{name} is an array of strings")
        first = at = at + 16
        for _ in range(count):
            at += 8 + struct.unpack_from("<Q", raw, at)[0]
        both += raw[first:at]
    digest = hashlib.sha256(both).hexdigest()
    key = gguf.read(path).keys["tokenizer.legible.sha256"]
    check_equal(key, ("string", digest), f"the fingerprint in {path}")
    return digest


class Prepared:
    """What prepare.py wrote into a folder, checked on the way."""

    def __init__(self, out):
        self.manifest = json.loads(read(os.path.join(out, "manifest.json")))
        self.tokenizer = bpe.from_gguf(gguf.read(os.path.join(out, "tokenizer.gguf")))
        self.tokens = {"train": [], "val": []}
        fingerprint = slow_fingerprint(os.path.join(out, "tokenizer.gguf"))
        check_equal(self.manifest["tokenizer"]["fingerprint"], fingerprint, "in the manifest")
        names = [n for n in sorted(os.listdir(out)) if n.endswith(".bin")]
        shards = {row["file"]: row for row in self.manifest["shards"]}
        check_equal(names, sorted(shards), "shards in the folder and in the manifest")
        for name in names:
            raw = read(os.path.join(out, name))
            tokens = array.array("H", raw[1024:])
            check_equal(struct.unpack_from("<3i", raw), (20240520, 1, len(tokens)), f"{name}")
            check_equal(raw[12:44].hex(), fingerprint, f"the tokenizer's fingerprint in {name}")
            check(not any(raw[44:1024]), f"the rest of the header of {name}")
            check_equal(shards[name]["tokens"], len(tokens), f"tokens of {name} in the manifest")
            sha256 = hashlib.sha256(raw).hexdigest()
            check_equal(shards[name]["sha256"], sha256, f"sha256 of {name}")
            self.tokens[name.split("_")[0]] += tokens
        for name, tokens in self.tokens.items():
            check_equal(self.manifest[name]["tokens"], len(tokens), f"{name} in the manifest")
        sha256 = hashlib.sha256(read(os.path.join(out, "tokenizer.gguf"))).hexdigest()
        check_equal(self.manifest["tokenizer"]["sha256"], sha256, "sha256 of tokenizer.gguf")

    def documents(self, name):
        """The texts again. Every document begins with the end-of-text token."""
        end, rows = self.tokenizer.end_of_text, []
        for token in self.tokens[name]:
            if token == end:
                rows.append([])
            else:
                rows[-1].append(token)
        for row in rows:
            text = self.tokenizer.decode(row).decode()
            check_equal(row, self.tokenizer.encode(text), "a document's pieces have its ids")
        return [self.tokenizer.decode(row).decode() for row in rows]


def run_prepare(*arguments):
    """Runs it in this process; what it says on stdout and stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        prepare.main([str(a) for a in arguments])
    return said.getvalue()


def test_documents(folder):
    out = os.path.join(folder, "out")
    odd = "\n\n first é\n \n\nsecond\U0001f999 line  \n\n"
    path = write(os.path.join(folder, "a.txt"),
                 f"{odd}<|endoftext|>\nx <|endoftext|>\n y\n<|endoftext|>\n \n"
                 "<|endoftext|>\r\nlast")
    want = [odd, "x <|endoftext|>\n y\n", "last"]
    texts = ["one", "", " two\n\n ", "thr\u00e9e \"\\ \U0001f999", "x" * 100, "half \ud800 pair"]
    clean = [t.replace("\ud800", "\ufffd") for t in texts if t]
    forms = {
        "b.json": json.dumps(texts), "c.json": json.dumps(texts, ensure_ascii=True, indent=3),
        "d.jsonl": "\n\n".join(map(json.dumps, texts)) + "\n",
        "e.json": json.dumps([{"id": [1, {"a": 2}], "text": t} for t in texts]),
        "f.jsonl": "\ufeff" + "\r\n".join(json.dumps({"text": t}) for t in texts),
        "g.json": "\n".join(map(json.dumps, texts))}
    block = prepare.BLOCK
    for prepare.BLOCK in (block, 1, 7):   # small blocks cut it everywhere, characters too
        run_prepare(path, "--out", out, "--val-fraction", 0, "--tokenizer", GOLDEN)
        check_equal(Prepared(out).documents("train"), want, f"text, blocks of {prepare.BLOCK}")
        for name, content in forms.items():
            form = write(os.path.join(folder, name), content)
            run_prepare(form, "--out", out, "--val-fraction", 0, "--tokenizer", "bytes")
            got = Prepared(out).documents("train")
            check_equal(got, clean, f"{name}, blocks of {prepare.BLOCK}")
    prepare.BLOCK = block
    run_prepare(write(os.path.join(folder, "h.jsonl"), '{"story": "s"}'), "--field", "story",
                "--out", out, "--val-fraction", 0, "--tokenizer", "bytes")
    check_equal(Prepared(out).documents("train"), ["s"], "--field")


def test_split(folder):
    out = os.path.join(folder, "out")
    lines = [f"line {i} of a lone document\n" for i in range(1000)]
    path = write(os.path.join(folder, "lone.txt"), "".join(lines))
    for fraction, block in ((0.1, 1 << 20), (0.25, 1000), (0.001, 1 << 20)):
        prepare.BLOCK = block
        run_prepare(path, "--out", out, "--val-fraction", fraction, "--tokenizer", "bpe:300")
        p = Prepared(out)
        train, val = p.documents("train"), p.documents("val")
        check_equal((len(train), len(val)), (1, 1), "documents of a lone one that was split")
        check_equal(train[0] + val[0], "".join(lines), "nothing is lost where it was split")
        check(train[0].endswith("\n"), "it is split at a line break")
        error = abs(len(train[0]) - (1 - fraction) * len("".join(lines)))
        check(error <= len(lines[-1]) / 2 + 1, f"split {error} characters from the place asked for")
    prepare.BLOCK = 1 << 20
    documents = [f"document {i}" for i in range(100)]
    path = write(os.path.join(folder, "many.json"), json.dumps(documents))
    run_prepare(path, "--out", out, "--val-fraction", 0.2, "--tokenizer", "bytes")
    p = Prepared(out)
    train, val = p.documents("train"), p.documents("val")
    check_equal((len(train), len(val)), (80, 20), "documents in train and val")
    check_equal(sorted(train + val), sorted(documents), "every document once")
    other = write(os.path.join(folder, "val.txt"), "other")
    run_prepare(path, other, "--val", other, "--out", out, "--tokenizer", "bytes")
    p = Prepared(out)
    check_equal(p.documents("train"), documents + ["other"], "train beside --val")
    check_equal(p.documents("val"), ["other"], "--val")
    check_equal([row["file"] for row in p.manifest["inputs"]], [path, other, other], "inputs")
    check_equal(p.manifest["inputs"][0]["sha256"], hashlib.sha256(read(path)).hexdigest(), "sha256")


def test_shards(folder):
    out = os.path.join(folder, "out")
    text = "".join(f"word{i % 37} and {i}\n" for i in range(2000))
    path = write(os.path.join(folder, "a.txt"), text)
    said = run_prepare(path, "--out", out, "--shard-tokens", 5000, "--tokenizer", "bpe:270",
                       "--licence", "mine")
    p = Prepared(out)
    sizes = [row["tokens"] for row in p.manifest["shards"] if row["file"].startswith("train")]
    check(len(sizes) > 1 and set(sizes[:-1]) == {5000} and 0 < sizes[-1] <= 5000, f"shards {sizes}")
    check_equal((p.manifest["licence"], len(p.tokenizer.tokens)), ("mine", 270), "the manifest")
    marks = p.manifest["marks_nats_per_token"]
    for name, n in (("bigram", 2), ("trigram", 3)):
        want = slow_entropy(n, 270, p.tokens["train"], p.tokens["val"])
        check(abs(marks[name] - want) < 1e-9, f"{name} {marks[name]}, expected {want}")
        check(f"{name} {want:.4f}" in said, f"{name} is not printed: {said}")

    run_prepare(path, "--out", out, "--tokenizer", os.path.join(out, "tokenizer.gguf"))
    q = Prepared(out)   # also checks that no shard of the run before is left
    check_equal(q.tokens, p.tokens, "the same ids from its own tokenizer.gguf, in one shard")
    first = read(os.path.join(out, "train_000.bin")), read(os.path.join(out, "tokenizer.gguf"))
    run_prepare(path, "--out", out, "--tokenizer", "bpe:270")
    again = read(os.path.join(out, "train_000.bin")), read(os.path.join(out, "tokenizer.gguf"))
    check(first == again, "equal runs give equal bytes")
    said = run_prepare(path, "--out", out, "--tokenizer", "bpe:20000")
    n = len(Prepared(out).tokenizer.tokens)
    check("ran out" in said and str(n) in said, f"merges that run out are announced: {said}")
    run_prepare(path, "--out", out, "--tokenizer", "bytes")
    p = Prepared(out)
    check_equal(p.tokens["train"][:6], [256, *b"word0"], "bytes")
    if os.path.exists(INFER):   # the merge that llama.cpp insists on changes nothing
        text = b"<|endoftext|> bytes \xff"
        command = [INFER, "tokenize", "-m", os.path.join(out, "tokenizer.gguf")]
        ids = subprocess.run(command, input=text, capture_output=True).stdout
        check_equal(ids.split(), [b"%d" % byte for byte in text], "bytes, by infer tokenize")


def slow_entropy(n, V, train, val):
    grams = collections.Counter(tuple(train[i:i + n]) for i in range(len(train) - n + 1))
    contexts = collections.Counter(tuple(train[i:i + n - 1]) for i in range(len(train) - n + 1))
    nats = []
    for i in range(len(val) - n + 1):
        gram = tuple(val[i:i + n])
        nats.append(-math.log((grams[gram] + 0.1) / (contexts[gram[:-1]] + 0.1 * V)))
    return math.fsum(nats) / len(nats)


def run_main(*arguments):
    """run_prepare, with the system's errors as run() words them."""
    try:
        run_prepare(*arguments)
    except OSError as e:
        raise files.Failure(f"{e.filename}: {e.strerror}")


def test_refused(folder):
    out = os.path.join(folder, "out")
    good = write(os.path.join(folder, "good.txt"), "some text\n" * 50)
    run_prepare(good, "--out", out, "--tokenizer", "bytes")
    before = {name: read(os.path.join(out, name)) for name in os.listdir(out)}

    def bad(words, content, name="bad.txt", *flags):
        path = write(os.path.join(folder, name), content)
        refused([path, *words], run_prepare, path, "--out", out, *flags)

    bad(["byte 7", "0xe9"], b"caf\xc3\xa9 \n\xe9t")
    bad(["byte 1048577", "0xc3"], b"x" * 1048577 + b"\xc3")
    bad(["no text"], "\n \n")
    bad(["line break", "--val"], "one line")
    bad(["line 3", "JSON"], '"a"\n"b"\nc\n', "bad.jsonl")
    bad(["document 2", "story"], '{"text": "a"}\n{"story": "b"}', "bad.jsonl")
    bad(["document 1", "42"], "42", "bad.jsonl")
    bad(["element 2", "is not JSON"], '["a", b]', "bad.json")
    bad(["element 2", "cut short"], '["a", ', "bad.json")
    bad(["element 1", "JSON"], '["a', "bad.json")
    bad(["element 1", "comma"], '["a" "b"]', "bad.json")
    bad(["end of the file"], '["a"] x', "bad.json")
    bad(["nested"], "[" + "[" * 100000, "bad.json")
    digits = "1" * 5000
    bad(["1"], digits, "bad.jsonl")   # Python 3.9 reads it, and 3.11 does not: either is refused
    bad(["2"], '["a", %s]' % digits, "bad.json")
    bad(["document 1", "no text"], "[" * 800 + "]" * 800, "bad.jsonl")
    bad(["document 1", "no text"], '{"text": {"a": [1]}}', "bad.jsonl")
    bad(["byte 4", "NUL", "text at all"], b"\x7fELF\0\0\0\xff\xfe")
    bad(["byte 9998", "NUL", "tr -d '\\000'"], b"some text\n" * 999 + b"some tex\0\0")
    bad(["byte 1048577", "NUL"], b"x" * 1048577 + b"\0")
    bad(["byte 10", "NUL", "text at all"], b"some text\n\0\0\0\0\0" * 9)
    bad(["byte 1", "UTF-16", "iconv -f utf-16le"], "hi".encode("utf-16-le"))
    text = "caf\u00e9 au lait\n" * 30
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as z:
        z.writestr("a.txt", text)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as t:
        t.add(good)
    russian = "\u0421\u043a\u0430\u0437\u043a\u0430 \u043e \u0440\u044b\u0431\u0435\n" * 300
    check(russian.encode("utf-16-le").decode("utf-8"), "which is UTF-8 as well")
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        short = name.replace("-le", "le").replace("-be", "be")
        bad(["NUL", name[:6].upper(), f"iconv -f {short}"], russian.encode(name))
        bad(["NUL", name[:6].upper(), f"iconv -f {short}"], russian.encode(name), "bad.jsonl")
    for content, words in (
            (text.encode("utf-16"), ["UTF-16", "iconv -f utf-16 -t utf-8"]),
            (b"\xfe\xff" + text.encode("utf-16-be"), ["UTF-16", "iconv -f utf-16 -t utf-8"]),
            (text.encode("utf-32"), ["UTF-32", "iconv -f utf-32 -t utf-8"]),
            (text.encode("utf-16-le"), ["UTF-16", "iconv -f utf-16le"]),
            (text.encode("utf-16-be"), ["UTF-16", "iconv -f utf-16be"]),
            (text.encode("utf-32-le"), ["UTF-32", "iconv -f utf-32le"]),
            (text.encode("utf-32-be"), ["UTF-32", "iconv -f utf-32be"]),
            (gzip.compress(text.encode()), ["gzip", "gunzip -c"]),
            (bz2.compress(text.encode()), ["bzip2", "bunzip2 -c"]),
            (lzma.compress(text.encode()), ["xz", "xz -dc"]),
            (b"\x28\xb5\x2f\xfd\x04\x00", ["zstd", "zstd -dc"]),
            (tarred.getvalue(), ["tar archive", "tar -xOf"]),
            (zipped.getvalue(), ["zip", "unzip -p"]), (b"%PDF-1.7\n%\xe2", ["PDF", "pdftotext"])):
        for name in ("a copy.txt", "a.json", "a.jsonl"):
            path = write(os.path.join(folder, name), content)
            words_and_path = [*words, f"'{path}'" if " " in path else path]
            refused(words_and_path, run_prepare, path, "--out", out)
    many = ["x" * i for i in range(300)]
    bad(["element 200"], json.dumps(many).replace('"%s",' % many[199], "oops,", 1), "bad.json")
    for words, flags in (
            (["bpe:256", "257"], ["--tokenizer", "bpe:256"]),
            (["bpe:65537", "65536"], ["--tokenizer", "bpe:65537"]),
            (["word", "bpe:N"], ["--tokenizer", "word"]),
            (["--val-fraction", "1.5"], ["--val-fraction", "1.5"]),
            (["--val-fraction", "nan"], ["--val-fraction", "nan"]),
            (["--shard-tokens", "0"], ["--shard-tokens", "0"]),
            (["--shard-tokens", str(2**31)], ["--shard-tokens", str(2**31)]),
            (["bpe:111", "bpe:N"], ["--tokenizer", "bpe:" + digits]),
            (["--val"], ["--val", good, "--val-fraction", "0.1"]),
            (["vocab.bpe"], ["--tokenizer", "gpt2", "--gpt2-dir", folder])):
        refused(words, run_prepare, good, "--out", out, *flags)
    write(os.path.join(folder, "vocab.bpe"), "not it")
    refused(["vocab.bpe", "sha256"], run_prepare, good, "--out", out, "--tokenizer", "gpt2",
            "--gpt2-dir", folder)
    for flags in (["--unknown", "1"], ["--tok", "bytes"], ["--val-fraction", "much"]):
        command = [sys.executable, os.path.join(DATA, "prepare.py"), good, "--out", out, *flags]
        p = subprocess.run(command, capture_output=True)
        check(p.returncode != 0 and flags[0] in p.stderr.decode(), f"{flags}: not refused by name")
    command = [sys.executable, os.path.join(DATA, "prepare.py"), "missing.txt", "--out", out]
    p = subprocess.run(command, capture_output=True)
    check_equal((p.returncode, p.stderr), (1, b"error: missing.txt: No such file or directory\n"),
                "a file that is not there")
    for arguments in ([folder], [good, "--val", folder]):
        refused([f"{folder}: is a folder, expected files", f"{folder}/*.txt"], run_prepare,
                *arguments, "--out", out)
    for function in (gguf.read, files.read_object, files.sha256_file):
        refused([f"{folder}: is a folder, expected a file"], function, folder)
    after = {name: read(os.path.join(out, name)) for name in os.listdir(out)}
    check(before == after, "a refused run leaves the old files as they were")


def snapshot(folder):
    """Everything below a folder, so that any change shows."""
    return {path: os.readlink(path) if os.path.islink(path) else
            read(path) if os.path.isfile(path) else None
            for parent, folders, names in os.walk(folder)
            for path in (os.path.join(parent, name) for name in folders + names)}


def test_replaced(folder):
    """Only what a manifest lists, as it lists it, is replaced or deleted."""
    out, text = os.path.join(folder, "out"), write(os.path.join(folder, "a.txt"), "a b c\n" * 400)
    flags = ["--out", out, "--tokenizer", "bytes"]
    run_prepare(text, *flags, "--shard-tokens", 500)
    path = {name: os.path.join(out, name) for name in (
        "train_000.bin", "train_001.bin", "train_007.bin", "train_mine.bin", "val_1.bin",
        "tokenizer.gguf", "manifest.json", ".prepare.tmp")}

    def kept(words, *arguments):
        before = snapshot(folder)
        refused(words, run_prepare, *arguments)
        check(snapshot(folder) == before, f"refused with {words}, something was changed")

    for name in ("train_007.bin", "train_mine.bin", "val_1.bin"):
        write(path[name], "mine")
        kept([path[name], "manifest.json"], text, *flags)
        os.remove(path[name])
        os.symlink(text, path[name])
        kept([path[name]], text, *flags)
        os.remove(path[name])
    for name in ("train_001.bin", "tokenizer.gguf"):
        ours = read(path[name])
        write(path[name], ours[:-1] + b"!")
        kept([path[name], "manifest.json"], text, *flags)
        write(path[name], ours)
    ours = read(path["manifest.json"])
    for mine in ('{"a": 1}', "mine", '{"tokenizer": 1, "shards": [2]}', "[" * 100000):
        write(path["manifest.json"], mine)
        kept([path["manifest.json"]], text, *flags)
    os.remove(path["manifest.json"])
    kept([path["tokenizer.gguf"]], text, *flags)
    write(path["manifest.json"], ours)
    for mine in (path["manifest.json"], os.path.join(folder, "link.json")):
        if not os.path.exists(mine):
            os.symlink(path["manifest.json"], mine)
        kept([mine, "is read"], mine, *flags)
        kept([mine, "is read"], text, "--val", mine, *flags)
    write(path[".prepare.tmp"], "mine")
    refused([".prepare.tmp"], lambda: run_main(text, *flags))
    check_equal(read(path[".prepare.tmp"]), b"mine", "a file where prepare.py works")
    os.remove(path[".prepare.tmp"])
    os.mkdir(path[".prepare.tmp"])
    write(os.path.join(path[".prepare.tmp"], "notes.txt"), "mine")
    kept(["notes.txt"], text, *flags)
    os.rename(path[".prepare.tmp"], os.path.join(folder, "elsewhere"))
    os.symlink(os.path.join(folder, "elsewhere"), path[".prepare.tmp"])
    kept([".prepare.tmp", "link"], text, *flags)
    os.remove(path[".prepare.tmp"])
    fd = os.open(out, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    kept([out, "another"], text, *flags)
    os.close(fd)
    run_prepare(text, *flags)   # also deletes the shards that are no longer needed
    Prepared(out)
    check(not os.path.exists(path["train_001.bin"]), "a shard of its own that it no longer needs")


def test_moves(folder):
    """Stopped before any of the moves, and before any deletion that belongs to them, the marker
    says that the folder holds a mixture, and the next run goes on; before the first nothing has
    changed."""
    texts = [write(os.path.join(folder, f"{i}.txt"), f"text {i} again\n" * 400) for i in range(2)]
    out = os.path.join(folder, "out")
    marker = os.path.join(out, ".prepare.tmp", "manifest.json")
    run_prepare(texts[0], "--out", out, "--tokenizer", "bytes", "--shard-tokens", 1000)
    old = snapshot(out)
    run_prepare(texts[1], "--out", out, "--tokenizer", "bpe:260", "--shard-tokens", 1500)
    new = snapshot(out)
    check(len(old) > len(new), "the first run has more shards")
    calls = {name: getattr(os, name) for name in ("replace", "remove", "rmdir")}
    for stop in range(1, 30):
        shutil.rmtree(out)
        os.mkdir(out)
        for path, content in old.items():
            write(path, content)
        done = 0

        def stopping(call, *arguments):
            nonlocal done
            done += 1
            if done >= stop:   # and no clean-up succeeds either, as after a SIGKILL
                raise OSError("stopped")
            return call(*arguments)

        for name, call in calls.items():
            setattr(os, name, lambda *arguments, call=call: stopping(call, *arguments))
        with contextlib.suppress(OSError):
            run_prepare(texts[1], "--out", out, "--tokenizer", "bpe:260", "--shard-tokens", 1500)
        for name, call in calls.items():
            setattr(os, name, call)
        state = {path: raw for path, raw in snapshot(out).items() if "/.prepare" not in path}
        check(os.path.exists(marker) or state in (old, new), f"stopped at call {stop}: a mixture")
        if os.path.exists(marker):   # any run goes on, even one that is refused
            refused(["no text"], run_prepare, write(os.path.join(folder, "x"), ""), "--out", out)
            state = snapshot(out)
            check_equal(sorted(state), sorted(new), f"files after stop {stop}")
            same = (state[path] == new[path] for path in new if "manifest" not in path)
            check(all(same), f"bytes after stop {stop}")
        if done < stop:
            break
    check(10 < stop < 29 and state.keys() == new.keys(), f"{stop} calls were stopped")

    def die(*_):
        if os.path.exists(marker):
            raise KeyboardInterrupt

    files.sync_folder, sync_folder = die, files.sync_folder   # the manifest has its name just now
    before = snapshot(out)
    with contextlib.suppress(KeyboardInterrupt):
        run_prepare(texts[0], "--out", out, "--tokenizer", "bytes")
    check(snapshot(out) == before, "interrupted before the moves, something was changed")
    def mkdir(path, *mode):
        calls["mkdir"](path, *mode)
        raise KeyboardInterrupt

    calls["mkdir"], os.mkdir = os.mkdir, mkdir
    with contextlib.suppress(KeyboardInterrupt):
        run_prepare(texts[0], "--out", out, "--tokenizer", "bytes")
    os.mkdir = calls["mkdir"]
    check(snapshot(out) == before, "interrupted where its folder was made, something was left")
    removed = []
    prepare.os.remove, remove = lambda path: removed.append(path) or die(), os.remove
    with contextlib.suppress(KeyboardInterrupt):
        run_prepare(texts[0], "--out", out, "--tokenizer", "bytes")
    prepare.os.remove, files.sync_folder = remove, sync_folder
    check_equal(removed[-1:], [marker], "what is deleted first when a run is given up")


def test_stopped(folder):
    """SIGTERM and SIGHUP clean up like Ctrl-C. A full disk is named."""
    lines = [f"word{i} and so on\n" for i in range(40000)]
    text = write(os.path.join(folder, "a.txt"), "".join(lines))
    out = os.path.join(folder, "out")
    run_prepare(text, "--out", out, "--tokenizer", "bytes")
    before = snapshot(out)
    command = [sys.executable, os.path.join(DATA, "prepare.py"), text, "--out", out]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        def listen():   # a shell's background jobs ignore SIGINT, and nohup's SIGHUP
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=listen)
        while p.poll() is None and not os.path.exists(os.path.join(out, ".prepare.tmp")):
            time.sleep(0.01)
        p.send_signal(number)
        said = p.communicate()[1].decode()
        check(p.returncode == 128 + number and said == "\ninterrupted\n",
              f"exit {p.returncode}: {said}")
        check(snapshot(out) == before, f"signal {number} left something behind")
    for limit, name in ((100_000, "train_000.bin"), (2000, "tokenizer.gguf")):
        short = write(os.path.join(folder, "b.txt"), "ab\n" * 100 if limit == 2000 else read(text))
        p = subprocess.run([*command[:2], short, "--out", out, "--tokenizer", "bytes"],
                           capture_output=True, preexec_fn=lambda: resource.setrlimit(
                               resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
        said = p.stderr.decode()
        check(p.returncode == 1 and name in said and "too large" in said, f"a full disk: {said}")
        check(snapshot(out) == before, "a full disk left something behind")


def test_marks(folder):
    """On a small text triples are seen too seldom: the mark is the better of the two."""
    r = random.Random(4)
    out = os.path.join(folder, "out")
    for name, content in (("bigram", "".join(r.choices("abcdefgh\n", k=2000))),
                          ("trigram", "aab" * 2000 + "\n" + "aab" * 100)):
        said = run_prepare(write(os.path.join(folder, "a.txt"), content), "--out", out,
                           "--tokenizer", "bytes")
        manifest = Prepared(out).manifest
        marks = manifest["marks_nats_per_token"]
        check_equal(min(marks, key=marks.get), name, "the better mark")
        check_equal(manifest["mark"], name, "the mark in the manifest")
        check(f"the mark to pass is the {name}'s, {marks[name]:.4f}" in said, f"the mark: {said}")
    run_prepare(os.path.join(folder, "a.txt"), "--out", out, "--val-fraction", 0)
    check_equal(Prepared(out).manifest["mark"], None, "the mark without validation")


def change(value, r):
    """A JSON value with one part of it, wherever it is, replaced by something unexpected."""
    if isinstance(value, (dict, list)) and value and r.random() < 0.8:
        value = copy.copy(value)
        at = r.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if r.random() < 0.2:
            del value[at]
        else:
            value[at] = change(value[at], r)
        return value
    return r.choice([None, True, False, -1, 0, 1, 1.5, 10**30, 1e308, float("nan"), "", "x y",
                     "\ud800", "\x1b[2J", [], {}, [[]], ["a", "b", "c"], [0, 1, 2],
                     {"type": "BPE"}])


def damage(raw, r):
    raw = bytearray(raw)
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(len(raw) + 1)
        raw[at:at + r.randrange(3)] = r.choice((
            b"", b'"', b"[", b"{", b"}", b"1" * 5000, b"\xff", b"\0", b"NaN", b"\\ud800", b"-",
            b"e9999", b"[" * 2000))
    return bytes(raw)


def test_odd_inputs(folder):
    """Whatever the input, there is a result or a Failure that names the file."""
    r = random.Random(5)
    keys = bpe.to_keys(bpe.from_merges([(97, 98)]))
    path = {name: os.path.join(folder, name) for name in (
        "tokenizer.json", "a.json", "a.jsonl", "manifest.json", "a.part.json", "a.part", "a.gguf")}
    manifest = {"tokenizer": {"file": "tokenizer.gguf", "sha256": "0"},
                "shards": [{"file": "train_000.bin", "sha256": "1"}]}
    documents = [{"text": "a b", "id": [1, {}]}, "c"]

    def read_documents(path):
        return list(prepare.pieces(path, "text"))

    sources = {
        "tokenizer.json": (tokenizer_json([(97, 98)]), bpe.from_tokenizer_json),
        "a.json": (documents, read_documents), "a.jsonl": (documents[0], read_documents),
        "manifest.json": (manifest, lambda _: prepare.listed(folder)),
        "a.part.json": ({"etag": '"1"', "sha256": "0"},
                        lambda record: download.resumable(path["a.part"], record))}
    write(path["a.part"], "")
    for trial in range(TRIALS):
        name = r.choice(list(sources))
        value, function = sources[name]
        content = json.dumps(change(value, r)).encode()
        write(path[name], damage(content, r) if trial % 2 else content)
        survives(function, path[name], path[name])
        kinds = {key: (kind, change(value, r)) if r.random() < 0.1 else
                 r.choice(list(keys.values())) if r.random() < 0.05 else (kind, value)
                 for key, (kind, value) in keys.items()}
        with contextlib.suppress(files.Failure, TypeError, AttributeError):   # no GGUF can hold it
            gguf.write(path["a.gguf"], kinds)
            survives(lambda name: bpe.from_gguf(gguf.read(name)), path["a.gguf"], "a.gguf")


def survives(function, path, name):
    try:
        function(path)
        check(True, name)
    except files.Failure as e:
        check(name in str(e), f"a message that does not name {name}: {e}")
    except Exception as e:   # a traceback is what this looks for
        check(False, f"{name}: {e!r:.200} of {read(path)[:200]!r}")


def test_killed(folder):
    """SIGKILL at any moment leaves the old files or the new ones, and the next run works."""
    out = os.path.join(folder, "out")
    r = random.Random(3)
    paths = [write(os.path.join(folder, f"{i}.txt"), "".join(
        f"word{r.randrange(500 + i)} " + "\n" * (r.random() < 0.1) for _ in range(20000)))
        for i in range(2)]
    results = []
    for path in paths:
        run_prepare(path, "--out", out, "--tokenizer", "bpe:400")
        results.append({name: read(os.path.join(out, name)) for name in os.listdir(out)})
    mixed = 0
    marker = os.path.join(out, ".prepare.tmp", "manifest.json")
    for trial in range(10):   # each tries to replace what paths[1] gave by what paths[0] gives
        command = [sys.executable, os.path.join(DATA, "prepare.py"), paths[0], "--out", out]
        p = subprocess.Popen([*command, "--tokenizer", "bpe:400"], stdout=subprocess.DEVNULL)
        time.sleep(r.random() * 0.5)
        p.send_signal(signal.SIGKILL)
        p.wait()
        now = {name: read(os.path.join(out, name)) for name in results[0]}
        mixed += not os.path.exists(marker) and now not in results
    check(mixed == 0, "a killed run left a mixture without a marker, or half a file")
    run_prepare(paths[0], "--out", out, "--tokenizer", "bpe:400")
    check_equal(sorted(os.listdir(out)), sorted(results[0]), "files after a killed and a good run")
    check_equal(read(os.path.join(out, "train_000.bin")), results[0]["train_000.bin"], "its shard")


def test_tiktoken(_):
    try:
        import tiktoken   # noqa: F401
    except ImportError:
        print("SKIP: tiktoken is not installed, so its ids were not compared")
        return
    text = " ".join(gguf.read(GOLDEN).value("golden.texts"))
    tokenizer = bpe.from_merges(bpe.train(collections.Counter(bpe.split(text * 3)), 300))
    encode, name = prepare.fastest_encoder(tokenizer, text)
    check(name.startswith("tiktoken"), f"tiktoken is installed, but {name} is used")
    check_equal(encode(text), tokenizer.encode(text), "ids by tiktoken")
    merges = list(tokenizer.merges)
    merges[0], merges[1] = merges[1], merges[0]   # ids that do not follow the order of the merges
    table = {pair: (rank, tokenizer.merges[pair][1]) for rank, pair in enumerate(merges)}
    odd = bpe.Tokenizer(tokenizer.tokens, table, tokenizer.end_of_text)
    check_equal(prepare.fastest_encoder(odd, text)[1], "bpe.py", "for an unordered vocabulary")


def in_a_folder(test):
    """Runs a test with a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        test(folder)


def main():
    os.fsync = lambda fd: None   # no power cut is tested, and on a busy disk each takes long
    return run_tests([test_gguf, test_atomic, test_messages, test_regular_files, test_cut_short,
                      test_refused_tokenizers, test_tokenizer_json, test_documents, test_split,
                      test_shards, test_refused, test_replaced, test_moves, test_stopped,
                      test_marks, test_odd_inputs, test_killed, test_bpe, test_gpt2_vectors,
                      test_tiktoken], in_a_folder)


if __name__ == "__main__":
    sys.exit(main())
