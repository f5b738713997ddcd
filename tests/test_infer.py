#!/usr/bin/env python3
"""test_infer.py - the runtime, from outside: its commands, its errors, and its arithmetic.

Runs the program that the environment variable INFER names (default ./infer) on small models with
random weights. What a GPT-2 computes is written down a second time here, in plain Python and
double precision; what a Llama computes, PyTorch has said (tests/golden/).
"""
import array
import fractions
import json
import math
import os
import pty
import random
import re
import resource
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tty

from check import check, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))


# ---- running it ----------------------------------------------------------------------------------

def run(*arguments, stdin=b"", code=0):
    """stdout and stderr of infer; its exit code is one of the checks."""
    command = [INFER, *map(str, arguments)]
    try:
        p = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        check(False, f"{' '.join(command[1:])}: did not end within a minute")
        return b"", ""
    err = p.stderr.decode(errors="replace")
    check(p.returncode == code,
          f"{' '.join(command[1:])}: exit code {p.returncode}, expected {code}: {err}")
    return p.stdout, err


def refused(words, *arguments, stdin=b""):
    """infer must exit with 1, print no result, and say each of the words."""
    out, err = run(*arguments, stdin=stdin, code=1)
    check(out == b"" and err.startswith("error: ") and all(word in err for word in words),
          f"{arguments}: expected an error with {words}, found {err!r} and output {out[:40]!r}")


def writes(*arguments):
    """What each write(2) of infer's carried: a socket of datagrams keeps them apart."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    p = subprocess.Popen([INFER, *map(str, arguments)], stdout=its, stderr=subprocess.DEVNULL)
    parts = []
    while select.select([ours], [], [], 0 if p.poll() is not None else 0.1)[0] or p.poll() is None:
        if select.select([ours], [], [], 0)[0]:
            parts.append(ours.recv(1 << 16))
    check(p.returncode == 0, f"{arguments}: exit code {p.returncode}")
    ours.close()
    its.close()
    return parts


def on_terminal(*arguments, stdin=b""):
    """What infer writes when its output is a terminal."""
    master, slave = pty.openpty()
    tty.setraw(slave)   # or it would turn \n into \r\n
    p = subprocess.Popen([INFER, *map(str, arguments)], stdin=subprocess.PIPE, stdout=slave,
                         stderr=subprocess.DEVNULL)
    os.close(slave)
    p.stdin.write(stdin)
    p.stdin.close()
    out = b""
    try:
        while part := os.read(master, 4096):
            out += part
    except OSError:   # Linux says so when the other end is closed
        pass
    os.close(master)
    check(p.wait() == 0, f"{arguments}: exit code {p.returncode}")
    return out


def sanitized():
    """Whether infer is built with the address sanitizer, which needs terabytes of addresses."""
    with open(INFER, "rb") as f:
        return b"__asan_init" in f.read()


def commas(ids):
    return ",".join(map(str, ids))


def generate(path, ids, n, *more):
    out, _ = run("-m", path, "--ids", commas(ids), "-n", n, *more)
    return [int(word) for word in out.split()]


def logits(path, ids, *more):
    out, _ = run("logits", "-m", path, "--ids", commas(ids), *more)
    lines = out.decode().split("\n")
    check(lines.pop() == "" and len(lines) == len(ids),
          f"logits of {len(ids)} ids: {len(lines)} lines")
    return [[float(word) for word in line.split(" ")] for line in lines]


# ---- models --------------------------------------------------------------------------------------

# data/gguf.py reads no quantized files, but for their keys: it learns here how long tensors are.
for name, number, block, size in (("Q4_0", 2, 32, 18), ("Q8_0", 8, 32, 34), ("Q6_K", 14, 256, 210)):
    gguf.TYPES[name] = (number, fractions.Fraction(size, block))
    gguf.TYPE_NAMES[number] = name


def shapes(L, C, F, T, V, untied):
    """{name: dims}, fastest first"""
    s = {"token_embd.weight": (C, V), "position_embd.weight": (C, T)}
    for i in range(L):
        for name, dims in [("attn_norm", (C,)), ("attn_qkv", (C, 3 * C)), ("attn_output", (C, C)),
                           ("ffn_norm", (C,)), ("ffn_up", (C, F)), ("ffn_down", (F, C))]:
            s[f"blk.{i}.{name}.weight"] = dims
            s[f"blk.{i}.{name}.bias"] = dims[-1:]
    s["output_norm.weight"] = s["output_norm.bias"] = (C,)
    if untied:
        s["output.weight"] = (C, V)
    return s


class Model:
    """Random weights, each a multiple of 1/64 below 2, so that F16 and BF16 hold them exactly.
    Without a seed they are 0, and the norms' 1."""

    def __init__(self, L=2, NH=3, C=24, F=96, T=24, V=61, untied=False, seed=1, eps=1e-5):
        self.eps = eps
        self.L, self.NH, self.C, self.F, self.T, self.V = L, NH, C, F, T, V
        chance = random.Random(seed)

        def weights(name, n):
            mean = 1.0 if "norm.weight" in name else 0.0
            if seed is None:
                return [mean] * n
            return [max(-127, min(127, round(64 * chance.gauss(mean, 0.35)))) / 64
                    for _ in range(n)]
        self.shapes = shapes(L, C, F, T, V, untied)
        self.weights = {name: weights(name, math.prod(dims)) for name, dims in self.shapes.items()}
        self.keys = {"general.architecture": ("string", "gpt2"), "gpt2.context_length": ("u32", T),
                     "gpt2.embedding_length": ("u32", C), "gpt2.block_count": ("u32", L),
                     "gpt2.feed_forward_length": ("u32", F),
                     "gpt2.attention.head_count": ("u32", NH),
                     "gpt2.attention.layer_norm_epsilon": ("f32", eps)}

    def write(self, path, type="F32", without=(), shape={}, types={}, **keys):
        """keys: gpt2__block_count=("u32", 3) replaces that key, None leaves it out."""
        all_keys = dict(self.keys)
        for name, key in keys.items():
            all_keys[name.replace("__", ".")] = key
        tensors = []
        for name, dims in self.shapes.items():
            if name in without:
                continue
            is_matrix = len(dims) == 2 and name != "position_embd.weight"
            t = types.get(name, type if is_matrix else "F32")
            tensors.append((name, t, shape.get(name, dims), pack(self.weights[name], t)))
        gguf.write(path, {name: key for name, key in all_keys.items() if key}, tensors)
        return path

    def logits(self, ids, int8=False):
        """GPT-2 for one sequence, in double precision: (T, V). int8: what is multiplied by a matrix
        is rounded to whole 127ths of the largest of each 32 numbers."""
        w, C, hs = self.weights, self.C, self.C // self.NH

        def norm(x, name):
            mean = sum(x) / C
            rstd = 1 / math.sqrt(sum((v - mean) ** 2 for v in x) / C + self.eps)
            return [(v - mean) * rstd * g + b
                    for v, g, b in zip(x, w[name + ".weight"], w[name + ".bias"])]

        def product(x, matrix):
            n = len(x)
            if int8:
                steps = [max(map(abs, x[i // 32 * 32:i // 32 * 32 + 32])) / 127 for i in range(n)]
                x = [round(v / step) * step for v, step in zip(x, steps)]
            return [sum(map(float.__mul__, x, matrix[o:o + n])) for o in range(0, len(matrix), n)]

        def linear(x, name):
            return [a + b for a, b in zip(product(x, w[name + ".weight"]), w[name + ".bias"])]

        def gelu(x):
            return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

        cache = [[] for _ in range(self.L)]   # of each layer: the qkv of all tokens so far
        rows = []
        for t, id in enumerate(ids):
            x = [a + b for a, b in zip(w["token_embd.weight"][id * C:(id + 1) * C],
                                       w["position_embd.weight"][t * C:(t + 1) * C])]
            for i in range(self.L):
                b = f"blk.{i}."
                cache[i].append(linear(norm(x, b + "attn_norm"), b + "attn_qkv"))
                out = []
                for h in range(0, C, hs):
                    q = cache[i][t][h:h + hs]
                    keys = [past[C + h:C + h + hs] for past in cache[i]]
                    p = [math.exp(sum(map(float.__mul__, q, k)) / math.sqrt(hs)) for k in keys]
                    values = [past[2 * C + h:2 * C + h + hs] for past in cache[i]]
                    out += [sum(map(float.__mul__, p, v)) / sum(p) for v in zip(*values)]
                x = [a + b for a, b in zip(x, linear(out, b + "attn_output"))]
                up = [gelu(v) for v in linear(norm(x, b + "ffn_norm"), b + "ffn_up")]
                x = [a + b for a, b in zip(x, linear(up, b + "ffn_down"))]
            rows.append(product(norm(x, "output_norm"),
                                w.get("output.weight", w["token_embd.weight"])))
        return rows


def pack(values, type):
    if type == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    if type == "F64":
        return array.array("d", values).tobytes()
    if type == "Q8_0":   # in 64ths, which hold the weights exactly
        q = array.array("b", [round(64 * v) for v in values]).tobytes()
        return b"".join(struct.pack("<e", 1 / 64) + q[i:i + 32] for i in range(0, len(q), 32))
    floats = array.array("f", values)
    if type == "BF16":   # the upper half of each float
        return b"".join(floats[i:i + 1].tobytes()[2:] for i in range(len(floats)))
    return floats.tobytes()


def random_ids(model, n, seed=5):
    chance = random.Random(seed)
    return [chance.randrange(model.V) for _ in range(n)]


# ---- the arithmetic ------------------------------------------------------------------------------

def largest_difference(a, b):
    return max(abs(x - y) for row_a, row_b in zip(a, b) for x, y in zip(row_a, row_b))


def test_logits(folder):
    for sizes in [{}, {"untied": True}, {"NH": 1, "C": 7, "F": 11, "V": 5, "L": 1},
                  {"NH": 24, "V": 1, "T": 9}, {"eps": 0.25},
                  {"NH": 1, "C": 4, "F": 4, "V": 5, "L": 1, "T": 600}]:   # 512 rows at a time
        model = Model(**sizes)
        path = model.write(f"{folder}/model.gguf")
        ids = random_ids(model, model.T)
        want = model.logits(ids)
        for n in {1, 3, 7, 8, model.T}:   # one row at a time up to 7, a matrix product from 8 on
            difference = largest_difference(logits(path, ids[:n]), want[:n])
            check(difference < 2e-5, f"logits of {sizes}, {n} ids: off by {difference:.2g}")
            check(want[n - 1][generate(path, ids[:n], 1)[0]] > max(want[n - 1]) - 1e-4,
                  f"{sizes}, {n} ids: another token is likelier")
    report("logits are those of the second implementation")


def test_int8(folder):
    """--int8: the reference's logits where it rounds as well; nothing changes where all is float;
    guesses change nothing; and perplexity --kl says what it costs."""
    tokenizer = bpe.from_merges([(ord("t"), ord("h"))])
    model = Model(NH=2, C=64, F=96, T=40, V=len(tokenizer.tokens), seed=3)
    model.keys.update(bpe.to_keys(tokenizer))
    floats, path = (model.write(f"{folder}/{type}.gguf", type) for type in ("F32", "Q8_0"))
    ids = random_ids(model, model.T)
    exact, want = model.logits(ids), model.logits(ids, True)
    for n in (1, 5, 16, 17, model.T):
        got = logits(path, ids[:n], "--int8")
        difference = largest_difference(got, want[:n])
        check(difference < 1e-4, f"{n} ids: off by {difference:.2g}")
        difference = largest_difference(got, exact[:n])
        check(0.01 < difference < 3, f"{n} ids: {difference:.2g} from those without --int8")
        check(largest_difference(logits(path, ids[:n]), exact[:n]) < 1e-4, f"{n} ids: not exact")
        check(logits(floats, ids[:n], "--int8") == logits(floats, ids[:n]), f"{n} ids in F32")
    plain = generate(path, ids[:3], 30, "--int8")
    check(generate(path, ids[:3], 30, "--int8", "--draft", path) == plain, "--draft")
    check(generate(path, ids[:3], 30, "--int8", "--draft-ngram", 1) == plain, "--draft-ngram")
    for i, id in enumerate(plain):
        rows = logits(path, ids[:3] + plain[:i], "--int8")
        check(rows[-1][id] > max(rows[-1]) - 1e-4, f"token {i}: {id} is not the likeliest")
    with open(f"{folder}/text.txt", "w") as f:
        f.write("the cat that sat there\n")
    text = ["perplexity", "-m", path, "-f", f"{folder}/text.txt"]
    alone, rounded = (run(*text, *flag)[0].split()[1] for flag in ((), ("--int8",)))
    words = run(*text, "--int8", "--kl", path)[0].split()
    check(alone != rounded and words[1] == rounded
          and words[words.index(b"reference:") + 2] == alone, f"--int8 --kl: {words}")
    report("input rounded to 8 bits")


def golden(name, path, without=(), keys={}, more=()):
    """Writes a model of tests/golden to path, altered; its ids, and the logits PyTorch has."""
    f = gguf.read(f"{ROOT}/tests/golden/{name}")
    given = {**f.keys, **keys}
    gguf.write(path, {key: value for key, value in given.items() if value},
               [t for t in f.tensors if not t.name.startswith("test.") and t.name not in without]
               + list(more))
    ids = array.array("i", f.tensor("test.tokens").data).tolist()
    numbers = array.array("f", f.tensor("test.logits").data).tolist()
    V = len(numbers) // len(ids)
    return ids, [numbers[i:i + V] for i in range(0, len(numbers), V)]


def test_llama_family(folder):
    """Rotary positions, shared keys and values, RMSNorm and SwiGLU, beside PyTorch's."""
    path = f"{folder}/llama.gguf"
    for name in ("llama.gguf", "llama-odd.gguf"):
        ids, want = golden(name, path)
        for n in (1, 3, 8, 33, len(ids)):   # row by row, a block of queries, more than one
            for threads in (1, 2):
                found = logits(path, ids[:n], "--threads", threads)
                difference = largest_difference(found, want[:n])
                check(difference < 2e-5, f"{name}, {n} ids: off by {difference:.2g}")
        for n in (1, 9, 40):   # one at a time, with the cache
            made = generate(path, ids[:n], 12, "--ignore-eos")
            rows = logits(path, ids[:n] + made[:-1])[n - 1:]
            check(all(row[id] > max(row) - 1e-4 for row, id in zip(rows, made)),
                  f"{name}: {made} after {n} ids are not the likeliest")
    report("a Llama's logits are PyTorch's")


def test_wrong_llamas(folder):
    path = f"{folder}/wrong.gguf"

    def wrong(words, name="llama.gguf", keys={}, **how):
        keys = {"llama." + key.replace("__", "."): value for key, value in keys.items()}
        golden(name, path, keys=keys, **how)
        refused([path, *words], "logits", "-m", path, "--ids", "1")

    kv, dims, base = "attention__head_count_kv", "rope__dimension_count", "rope__freq_base"
    for n, words in [(0, "1 to 1024"), (4, "divide"), (5, "divide"), (12, "divide"),
                     (4000000000, "1 to 1024")]:   # of 6 heads
        wrong(["llama.attention.head_count_kv", str(n), words], keys={kv: ("u32", n)})
    wrong(["llama.attention.head_count_kv", str(2 ** 64 - 2)], keys={kv: ("u64", 2 ** 64 - 2)})
    wrong(["blk.0.attn_k.weight", "{48, 16}", "{48, 24}", "llama.attention.head_count_kv 3"],
          keys={kv: ("u32", 3)})
    wrong(["blk.0.attn_k.weight", "{48, 48}"], keys={kv: None})   # as many as there are heads
    for n in (0, 5, 10, 2 ** 31):
        wrong(["llama.rope.dimension_count", str(n)], keys={dims: ("u32", n)})
    wrong(["rope.dimension_count", str(2 ** 64 - 2)], keys={dims: ("u64", 2 ** 64 - 2)})
    wrong(["dimension_count", "7", "even"], name="llama-odd.gguf", keys={dims: None})
    for x in (math.nan, math.inf, 0.0, -1.0, 0.5):
        wrong(["llama.rope.freq_base", "1e12"], keys={base: ("f32", x)})
    for x in (math.nan, -1e-5, 1.0):
        wrong(["layer_norm_rms_epsilon"],
              keys={"attention__layer_norm_rms_epsilon": ("f32", x)})
    wrong(["rope.scaling.type", '"yarn"'], keys={"rope__scaling__type": ("string", "yarn")})
    wrong(["rope.scaling.factor", "4"], keys={"rope__scaling__factor": ("f32", 4.0)})
    wrong(["attention.key_length", "16", "8"], keys={"attention__key_length": ("u32", 16)})
    wrong(["block_count", str(2 ** 63)], keys={"block_count": ("u64", 2 ** 63)})
    wrong(["context_length", str(2 ** 64 - 1)], keys={"context_length": ("u64", 2 ** 64 - 1)})

    file = gguf.read(f"{ROOT}/tests/golden/llama.gguf")
    for t in file.tensors:
        if not t.name.startswith("test."):
            wrong([t.name, "missing"], without=[t.name])
    for name, dims in [("blk.0.attn_q.bias", (48,)), ("blk.0.attn_qkv.weight", (48, 80)),
                       ("position_embd.weight", (48, 64)), ("blk.2.ffn_norm.weight", (48,))]:
        wrong([name, "unexpected"], more=[(name, "F32", dims, bytes(4 * math.prod(dims)))])
    for factor in (0.0, math.nan, -1.0, 1e9):
        wrong(["rope_freqs.weight", "element 0"],
              more=[("rope_freqs.weight", "F32", (4,), array.array("f", [factor] * 4))])
    wrong(["rope_freqs.weight", "{5}", "{4}"],
          more=[("rope_freqs.weight", "F32", (5,), bytes(20))])
    golden("llama.gguf", path, keys={"llama.rope.scaling.type": ("string", "none"),
                                     "llama.rope.scaling.factor": ("f32", 1.0)})
    run("logits", "-m", path, "--ids", "1")
    report("Llamas that are wrong")


def test_bits(folder):
    for untied in (False, True):
        model = Model(untied=untied)
        ids = commas(random_ids(model, model.T))
        results = set()
        for type in ("F32", "F16", "BF16"):
            path = model.write(f"{folder}/{type}.gguf", type)
            for threads in (1, 2, 3):
                results.add(run("logits", "-m", path, "--ids", ids, "--threads", threads)[0])
        check(len(results) == 1,
              f"untied={untied}: the same bits for F32, F16, BF16 and 1, 2, 3 threads")
    types = dict.fromkeys(model.shapes, "F16")   # the norms, biases and positions too
    path = model.write(f"{folder}/all.gguf", types=types)
    check({run("logits", "-m", path, "--ids", ids)[0]} == results, "all tensors in F16")
    report("F32, F16 and BF16 agree, for any number of threads")


def test_cache(folder):
    """Tokens made one at a time, with the cache, are those that the whole text's logits name."""
    for threads in (1, 2):
        model = Model(seed=2)
        path = model.write(f"{folder}/model.gguf")
        for n in (1, 9):
            ids = random_ids(model, n)
            made = generate(path, ids, model.T, "--threads", threads)
            check(len(made) == model.T - n + 1,
                  f"{n} ids: {len(made)} made, expected {model.T - n + 1}")
            rows = logits(path, (ids + made)[:model.T])[n - 1:]
            for i, (row, id) in enumerate(zip(rows, made)):
                check(row[id] > max(row) - 1e-4,
                      f"token {i}: {id} has logit {row[id]}, the best {max(row)}")
    report("decoding with the cache equals computing anew")


def test_sampling(folder):
    model = Model(seed=3)
    path = model.write(f"{folder}/model.gguf")
    ids = random_ids(model, 4)
    greedy = generate(path, ids, 12)
    check(greedy == generate(path, ids, 12, "--temp", 0), "--temp 0 is the default with --ids")
    for name, value in [("--top-k", 1), ("--top-p", 0), ("--min-p", 1), ("--temp", "1e-6")]:
        more = (name, value) if name == "--temp" else ("--temp", 1, name, value)
        check(generate(path, ids, 12, *more, "--seed", 9) == greedy, f"{name} {value} is greedy")
    free = lambda **more: [f"--{name.replace('_', '-')}={value}" for name, value in
                           {"temp": 1, "top_k": 0, "top_p": 1, "min_p": 0, **more}.items()]
    a, b, c = (generate(path, ids, 12, *free(seed=seed)) for seed in (7, 7, 8))
    check(a == b and a != c, f"seeds: {a} twice, and {c}")

    # What is drawn for 300 seeds: the right tokens, about as often as they should be.
    row = logits(path, ids)[-1]
    order = sorted(range(model.V), key=lambda id: -row[id])
    drawn = lambda **more: [generate(path, ids, 1, *free(seed=seed, **more))[0]
                            for seed in range(300)]
    p = [math.exp(v) / sum(map(math.exp, row)) for v in row]
    some = drawn()
    for id in order[:3]:
        expected, deviation = 300 * p[id], math.sqrt(300 * p[id] * (1 - p[id]))
        check(abs(some.count(id) - expected) < 4 * deviation + 1,
              f"token {id}: drawn {some.count(id)} times of 300, expected {expected:.1f}")
    check(set(drawn(top_k=3)) == set(order[:3]), "--top-k 3 draws the three likeliest")
    mass, keep = 0, 0
    while mass < 0.6:
        mass, keep = mass + p[order[keep]], keep + 1
    check(set(drawn(top_p=0.6, temp=4)) == set(order[:keep]),
          f"--top-p 0.6 draws from {keep}")
    above = {id for id in order if p[id] >= 0.3 * p[order[0]]}
    check(set(drawn(min_p=0.3, temp=4)) == above, f"--min-p 0.3 draws from {len(above)}")

    # The penalty, followed step by step; then with all logits lower by 20, so that they are
    # negative: the last channel is made 1 for every token.
    below = Model(seed=3, untied=True)
    below.weights["output_norm.weight"][-1], below.weights["output_norm.bias"][-1] = 0, 1
    below.weights["output.weight"][below.C - 1::below.C] = [-20] * below.V
    for path in (path, below.write(f"{folder}/below.gguf")):
        text = list(ids)
        for _ in range(10):
            row = logits(path, text)[-1]
            row = [(v / 1.5 if v > 0 else v * 1.5) if id in text else v for id, v in enumerate(row)]
            text.append(row.index(max(row)))
        check(generate(path, ids, 10, "--repeat-penalty", 1.5) == text[4:], "--repeat-penalty 1.5")
    check(max(map(max, logits(path, text))) < 0, "all logits are negative")
    report("sampling")


def test_end_of_text(folder):
    model = Model(seed=3)
    path = model.write(f"{folder}/model.gguf")
    ids = random_ids(model, 4)
    greedy = generate(path, ids, 6)
    path = model.write(f"{folder}/eot.gguf", tokenizer__ggml__eos_token_id=("u32", greedy[0]))
    check(generate(path, ids, 6) == [], "stops at end-of-text")
    row = logits(path, ids)[-1]
    second = sorted(range(model.V), key=lambda id: -row[id])[1]
    forbidden = generate(path, ids, 20, "--ignore-eos")
    check(len(forbidden) == 20 and forbidden[0] == second and greedy[0] not in forbidden,
          "--ignore-eos")
    report("end of text")


def test_context(folder):
    model = Model()
    path = model.write(f"{folder}/model.gguf")
    ids = random_ids(model, model.T)
    out, err = run("-m", path, "--ids", commas(ids), "-n", 5)
    check(len(out.split()) == 1 and "the context length of 24 tokens is reached" in err,
          f"full: {out} {err}")
    out, err = run("-m", path, "--ids", commas(ids[:3]), "-n", 0)
    check(out == b"\n", "-n 0 makes nothing")
    refused(["--ids", "25 tokens", "context length is 24"], "-m", path, "--ids", commas(ids + [0]))
    refused(["--ids", "25 tokens", "24"], "logits", "-m", path, "--ids", commas(ids + [0]))
    for command in ([], ["logits"]):
        for bad, words in [("1,61", ["token id 61", "0 to 60"]),
                           ("1,-1", ['"-1" is not a token id']),
                           ("99999999999999999999", ["out of range"]), ("1,x", ['"x"']),
                           ("", ["no ids"]), (" , ", ["no ids"]), ("1;2", ['"1;2"']),
                           ("1.0", ['"1.0"'])]:
            refused(["--ids", *words], *command, "-m", path, "--ids", bad)
    lines = run("logits", "-m", path, "--ids", " 1 2\n")[0].splitlines()
    check(logits(path, [1, 2]) == [[float(v) for v in line.split()] for line in lines], "spaces")
    report("the context's end, and ids out of range")


def test_bench(folder):
    model = Model(L=2, NH=2, C=24, F=96, T=24, V=61)
    path = model.write(f"{folder}/bench.gguf")
    for prompt, tokens, rounds in ((16, 8, 1), (24, 0, 3), (0, 24, 2)):
        out, _ = run("bench", "-m", path, "--prompt", prompt, "--generate", tokens, "--rounds",
                     rounds, "--threads", 1)
        lines = out.decode().splitlines()
        weights = 2 * (4 * 24 * 24 + 2 * 24 * 96) + 61 * 24
        check(f"{weights / 1e6:.1f} M weights, {weights * 4 / 1e6:.1f} MB" in lines[0]
              and "GB/s" in lines[1], f"bench: {lines[:2]}")
        rows = [line.strip("|").split("|") for line in lines[5:]]
        want = [f"pp{prompt}"] * (prompt > 0) + [f"tg{tokens}"] * (tokens > 0)
        check([row[0].strip() for row in rows] == want, f"bench: {rows}, expected {want}")
        for row in rows:
            name, speed, deviation, read, _, flops, _ = (word.strip(" %") for word in row)
            n, one = int(name[2:]), name[:2] == "tg"
            speed = float(speed)
            # The same from the shapes: bytes and FLOPs of a run, times runs a second.
            work = 2 * (weights - 61 * 24) * n + 2 * 61 * 24 * (n if one else 1)
            work += 2 * 2 * 24 * n * (n + 1)
            check(speed > 0 and (float(deviation) > 0 or rounds == 1)
                  and abs(float(read) - 4 * weights * speed * (1 if one else 1 / n) / 1e9) < 0.006
                  and abs(float(flops) - work * speed / n / 1e9) < 0.06, f"bench: {row}")
    refused(["--prompt", "25 tokens", "24"], "bench", "-m", path, "--prompt", 25)
    refused(["nothing to time"], "bench", "-m", path, "--prompt", 0, "--generate", 0)
    refused(["--generate", "24"], "bench", "-m", path, "--prompt", 1, "--generate", 25)
    report("bench")


# ---- text ----------------------------------------------------------------------------------------

def text_model(folder, T=24, seed=4):
    tokenizer = bpe.from_merges([(ord("t"), ord("h")), (256, ord("e")), (ord(" "), 257)])
    model = Model(V=len(tokenizer.tokens), T=T, seed=seed)
    model.keys.update(bpe.to_keys(tokenizer))
    return tokenizer, model, model.write(f"{folder}/text.gguf")


def test_text(folder):
    tokenizer, model, path = text_model(folder)
    end = tokenizer.end_of_text
    for prompt in ("the hat", "", "h\u00e9 \u4e16"):
        ids = [end] + tokenizer.encode(prompt)
        made = generate(path, ids, 8, "--ignore-eos")
        raw = prompt.encode() + tokenizer.decode(made)
        out, err = run("-m", path, "-p", prompt, "-n", 8, "--temp", 0, "--ignore-eos")
        check(out.endswith(b"\n"), "text ends with a newline")
        check(same_text(out[:-1], raw), f"-p {prompt!r}: printed {out!r}, expected {raw!r}")
        check("load" in err and "prompt" in err and "tok/s" in err and "generation 8" in err,
              f"timings: {err}")
    out, _ = run("-m", path, "-n", 4, "--temp", 0, "--ignore-eos")
    check(same_text(out[:-1], tokenizer.decode(generate(path, [end], 4, "--ignore-eos"))),
          "without -p, a text begins after end-of-text")
    for seed in range(20):   # bytes drawn at random, but what is printed is UTF-8
        out, _ = run("-m", path, "-p", "x", "-n", 23, "--temp", 100, "--top-k", 0, "--top-p", 1,
                     "--min-p", 0, "--seed", seed)
        try:
            out.decode()
            check(True, "")
        except UnicodeDecodeError as e:
            check(False, f"seed {seed}: {e}")
    refused(["the prompt", "25 tokens", "24"], "-m", path, "-p", "x" * 24)
    ids_only = model.write(f"{folder}/ids.gguf", tokenizer__ggml__tokens=None)
    refused([ids_only, "no tokenizer", "--ids"], "-m", ids_only, "-p", "x")
    refused(["only one"], "-m", path, "-p", "x", "--ids", "1")
    report("text")


def chain_model(path, successor, tokens=(), types=()):
    """A model of bytes, and of more tokens, in which one token follows another, always."""
    tokenizer = bpe.from_merges([])
    V = len(tokenizer.tokens) + len(tokens)
    model = Model(L=1, NH=1, C=V, F=1, T=64, V=V, untied=True, seed=None)
    for id in range(V):
        model.weights["token_embd.weight"][id * V + id] = 1.0
        model.weights["output.weight"][successor.get(id, id) * V + id] = 1.0
    model.keys.update(bpe.to_keys(tokenizer))
    for key, more in (("tokens", tokens), ("token_type", types)):
        type, values = model.keys["tokenizer.ggml." + key]
        model.keys["tokenizer.ggml." + key] = (type, [*values, *more])
    return model.write(path)


def cycle(raw):
    """{byte: the next one}, around"""
    assert len(set(raw)) == len(raw)
    return dict(zip(raw, raw[1:] + raw[:1]))


def test_streaming(folder):
    """A character that takes several tokens is printed in one piece, and each as it is made."""
    path, greedy = f"{folder}/chain.gguf", ("-n", 12, "--temp", 0)
    for character in ("\u00e9", "\u4e16", "\U0001f999"):
        raw = character.encode()
        chain_model(path, cycle(raw))
        parts = writes("-m", path, "-p", character, *greedy)
        check(b"".join(parts) == raw + (raw * 12)[:12] + b"\n" and
              parts == [raw] + [raw] * (12 // len(raw)) + [b"\n"], f"{character}: written {parts}")
    chain_model(path, cycle("\u4e16".encode()))
    out, _ = run("-m", path, "-p", "\u4e16", "-n", 2, "--temp", 0)
    check(out.decode().rstrip("\n") in ("\u4e16\ufffd", "\u4e16\ufffd\ufffd"),
          f"a text that ends within a character: {out!r}")
    long = "a" * 2000000   # a token; going over all of it for each character would take 40 s
    chain_model(path, {97: 257}, [long], [1])
    start = time.time()
    out, _ = run("-m", path, "-p", "a", "-n", 1, "--temp", 0)
    check(out.decode() == "a" + long + "\n" and time.time() - start < 10,
          f"a token of 2 MB: {len(out)} bytes in {time.time() - start:.1f} s")
    report("text that arrives in pieces")


def test_terminal(folder):
    """A model's text may hold what a terminal obeys. There it is shown; in a pipe it stays."""
    raw = b"\x1b[2J\xc2\x9b\xe2\x80\xae\n\t\r\x7f\xc3\xa9"
    shown = b"\\x1b[2J\\xc2\\x9b\\xe2\\x80\\xae\n\t\\x0d\\x7f\xc3\xa9"
    path = chain_model(f"{folder}/chain.gguf", cycle(b"a" + raw))
    command = ["-m", path, "-p", "a", "-n", len(raw), "--temp", 0]
    check(run(*command)[0] == b"a" + raw + b"\n", "in a pipe, text is as it is")
    out = on_terminal(*command)
    check(out == b"a" + shown + b"\n", f"on a terminal: {out!r}")
    ids = " ".join(map(str, raw)).encode()
    check(run("detokenize", "-m", path, stdin=ids)[0] == raw, "detokenize gives the bytes")
    out = on_terminal("detokenize", "-m", path, stdin=ids)
    check(out == shown, f"detokenize on a terminal: {out!r}")
    report("text on a terminal")


def same_text(printed, raw):
    """What is printed is the bytes where they are UTF-8, and U+FFFD for those that are not.
    How many stand for a broken sequence is a matter of taste, so runs of them count as one."""
    squeeze = lambda s: re.sub("\ufffd+", "\ufffd", s)
    return squeeze(printed.decode()) == squeeze(raw.decode(errors="replace"))


def test_tokenize(folder):
    tokenizer, model, path = text_model(folder)
    alone = f"{folder}/tokenizer.gguf"
    gguf.write(alone, {"general.architecture": ("string", "gpt2"), **bpe.to_keys(tokenizer)})
    for m in (path, alone):
        for raw in (b"", b"the thing", b"a\nb\n", "na\u00efve \u4e16\u754c".encode(),
                    bytes(range(256)), b"\xff\xfe the"):
            out, _ = run("tokenize", "-m", m, stdin=raw)
            check(re.fullmatch(rb"(\d+( \d+)*)?\n", out), f"tokenize {raw!r}: {out!r}")
            for ids in (out, out.replace(b" ", b","), out.replace(b" ", b"\n"),
                        out.replace(b" ", b", ")):
                check(run("detokenize", "-m", m, stdin=ids)[0] == raw,
                      f"{raw!r} comes back from {ids[:40]!r}")
    ids = lambda s: " ".join(map(str, tokenizer.encode(s))).encode() + b"\n"
    records = {b"": b"", b"the\0a b": ids("the") + ids("a b"),
               b"the\0a b\0": ids("the") + ids("a b"), b"\0the\n\0\0": b"\n" + ids("the\n") + b"\n"}
    for raw, want in records.items():
        check(run("tokenize", "-m", alone, "-0", stdin=raw)[0] == want, f"tokenize -0 {raw!r}")
    text, end = b"a<|endoftext|>", tokenizer.end_of_text
    check(run("tokenize", "-m", alone, stdin=text)[0] == ids(text.decode()),
          "special tokens are plain text")
    check(run("tokenize", "-m", alone, "--special", stdin=text)[0] == f"97 {end}\n".encode(),
          "--special")
    refused([alone, "no tensors", "model.gguf"], "-m", alone, "-p", "x")
    for bad in (str(len(tokenizer.tokens)), "-1", "x"):
        refused(["standard input", bad], "detokenize", "-m", alone, stdin=bad.encode())
    bare = Model().write(f"{folder}/bare.gguf")
    refused([bare, "tokenizer"], "tokenize", "-m", bare)

    # Types: 3 is found with --special, 4 (user defined) always, 5 (unused) never.
    path = chain_model(f"{folder}/types.gguf", {}, ["<c>", "\u00e9\u2713 u", "<n>"], [3, 4, 5])
    for raw, plain, special in [("a<c>", "97 60 99 62", "97 257"),
                                ("b\u00e9\u2713 u!", "98 258 33", "98 258 33"),
                                ("<n>", "60 110 62", "60 110 62")]:
        for flags, ids in (([], plain), (["--special"], special)):
            out, _ = run("tokenize", "-m", path, *flags, stdin=raw.encode())
            check(out.decode() == ids + "\n", f"{raw!r} {flags}: {out!r}, expected {ids}")
            back, _ = run("detokenize", "-m", path, stdin=out)
            check(back.decode() == raw, f"{raw!r} comes back as {back!r}")
    report("tokenize and detokenize")


def test_perplexity(folder):
    tokenizer, model, path = text_model(folder)
    text = "the cat that sat there, then the other one: they thought the thing through together.\n"
    for text in (text, "x", text[:23] + "!", text * 3):
        with open(f"{folder}/text.txt", "w", encoding="utf-8") as f:
            f.write(text)
        ids = [tokenizer.end_of_text] + tokenizer.encode(text)
        nats = 0
        for i in range(0, len(ids) - 1, model.T):
            window = ids[i:i + model.T + 1]
            for row, target in zip(logits(path, window[:model.T][:len(window) - 1]), window[1:]):
                nats += math.log(sum(map(math.exp, row))) - row[target]
        nats /= len(ids) - 1
        out, err = run("perplexity", "-m", path, "-f", f"{folder}/text.txt")
        m = re.fullmatch(rb"ppl (\S+) \+/- \S+  nats/token (\S+)  tokens (\d+)\n", out)
        check(m, f"perplexity: {out!r}")
        if m:
            check(abs(float(m[2]) - nats) < 1e-5 and abs(float(m[1]) / math.exp(nats) - 1) < 1e-5
                  and int(m[3]) == len(ids) - 1,
                  f"perplexity: {out!r}, expected {nats} of {len(ids) - 1}")
        check("tok/s" in err, "progress on stderr")
    refused(["absent.txt", "No such file"], "perplexity", "-m", path, "-f", f"{folder}/absent.txt")
    with open(f"{folder}/white.txt", "w") as f:
        f.write(" \n<|endoftext|>\n\t")
    refused(["white.txt", "no text"], "perplexity", "-m", path, "-f", f"{folder}/white.txt")
    report("perplexity")


def test_documents(folder):
    """perplexity sees the tokens that training sees: those of the shard that prepare.py makes."""
    tokenizer, model, path = text_model(folder)
    gguf.write(f"{folder}/tokenizer.gguf", {"general.architecture": ("string", "gpt2"),
                                            **bpe.to_keys(tokenizer)})
    end = "<|endoftext|>"
    text = (f"\ufeff{end}\n\n the cat\n\n{end}\r\n \t\n{end}\n{end}\nthat{end}hat\n {end}\n{end} \n"
            f"the\n{end}\nthere \u4e16\n\n{end}\r")
    with open(f"{folder}/documents.txt", "w", encoding="utf-8", newline="") as f:
        f.write(text)
    subprocess.run([sys.executable, f"{ROOT}/data/prepare.py", f"{folder}/documents.txt", "--val",
                    f"{folder}/documents.txt", "--tokenizer", f"{folder}/tokenizer.gguf",
                    "--out", f"{folder}/shards"], check=True, capture_output=True)
    with open(f"{folder}/shards/val_000.bin", "rb") as f:
        ids = list(array.array("H", f.read()[1024:]))
    check(ids.count(tokenizer.end_of_text) == 3, f"three documents: {ids}")
    nats = 0
    for i in range(0, len(ids) - 1, model.T):
        window = ids[i:i + model.T + 1]
        for row, target in zip(logits(path, window[:-1]), window[1:]):
            nats += math.log(sum(map(math.exp, row))) - row[target]
    out, _ = run("perplexity", "-m", path, "-f", f"{folder}/documents.txt")
    m = re.search(rb"nats/token (\S+)  tokens (\d+)\n", out)
    check(m and int(m[2]) == len(ids) - 1 and abs(float(m[1]) - nats / (len(ids) - 1)) < 1e-5,
          f"documents: {out!r}, expected {nats / (len(ids) - 1)} of {len(ids) - 1}")
    report("perplexity reads documents as prepare.py does")


def test_show(folder):
    tokenizer, model, path = text_model(folder)
    out = run("show", path)[0].decode()
    for words in ("GGUF version 3, 16 keys, 28 tensors", "gpt2.attention.layer_norm_epsilon  f32",
                  f"({len(tokenizer.tokens)})", "{24, 72}", '"gpt2"', "9.99999975e-06",
                  "blk.1.ffn_down.weight     F32    {96, 24}          9216 bytes"):
        check(words in out, f"show: {words!r} is not in\n{out}")
    check(max(map(len, out.split("\n"))) < 200, "long arrays are cut short")

    # One long name pads no other row, and nothing reaches the terminal that it obeys.
    keys = {"a" * 60000: ("u32", 1), "escapes": ("string", "\x1b[2J \x9b31m \u202e \x7f \u00e9"),
            **{f"key{i}": ("u32", i) for i in range(200)}}
    gguf.write(path, keys)
    out = run("show", path)[0]
    check(len(out) < 2 * os.path.getsize(path) + 10000, f"show: {len(out)} bytes")
    check('"\\x1b[2J \\xc2\\x9b31m \\xe2\\x80\\xae \\x7f \u00e9"' in out.decode(), "show: escapes")
    refused(["infer show", "FILE.gguf"], "show")
    refused(["absent.gguf"], "show", f"{folder}/absent.gguf")
    report("show")

# ---- how texts are made and shown ----------------------------------------------------------------

def stop_where(raw, stops):
    """The text before the stop text that is complete first; of several, before the longest."""
    for end in range(1, len(raw) + 1):
        here = [stop for stop in stops if raw[:end].endswith(stop)]
        if here:
            return raw[:end - max(map(len, here))]
    return raw


def test_stop(folder):
    """Wherever tokens are cut, a text ends at the same place; what waits in vain is shown."""
    raw = "abc\u00e9!x\u4e16d\n".encode()   # no byte twice, so that each can be a token
    twice = b"ababacabadaba"
    cuts = [(raw, range(1, len(raw))), (raw, []), (twice, [])]
    cuts += [(text, [i]) for text in (raw, twice) for i in range(1, len(text))]
    cuts += [(text, [i, i + 3]) for text in (raw, twice) for i in range(1, len(text) - 3, 3)]
    sets = [["bc"], ["\u00e9"], ["bc\u00e9!"], ["\u4e16d"], ["d\n"], ["zz"], ["bd"], ["\u4e16x"],
            ["c\u00e9?", "!x\u4e17"], ["c", "bc"], ["bcd", "bc", "c"], ["a"], ["\n", raw.decode()],
            ["abac"], ["abad", "abb"], ["ada", "adab"], ["abaa"], ["ba"]]
    for n, (text, cut) in enumerate(cuts):
        edges = [0, *cut, len(text)]
        parts = [text[a:b] for a, b in zip(edges, edges[1:])]
        if len(set(parts)) < len(parts):
            continue
        path, greedy = byte_model(f"{folder}/stop.gguf", parts), ("-n", len(parts), "--temp", 0)
        for stops in sets if n < 3 else sets[n % 6::6]:
            flags = [word for stop in stops for word in ("--stop", stop)]
            want = stop_where(text, [stop.encode() for stop in stops])
            out, _ = run("-m", path, *greedy, *flags)
            check(out == want + b"\n", f"{parts} {stops}: {out!r}, expected {want!r}")
        last = json_lines("-m", path, *greedy, "--json", *flags)[-1]
        check(last["text"].encode() == want and
              (last["end"], last.get("stop") in stops) ==
              (("length", False) if want == text else ("stop", True)), f"{parts} {stops}: {last}")
    refused(["--stop", "empty"], "-m", path, "--stop", "")
    refused(["--stop", "--ids"], "-m", path, "--ids", 1, "--stop", "x")
    report("stop texts")


def byte_model(path, parts):
    """After end-of-text come these byte strings, a token each. None may stand twice."""
    tokenizer = bpe.from_merges([])
    visible = bpe.to_keys(tokenizer)["tokenizer.ggml.tokens"][1]
    new = ["".join(visible[byte] for byte in part) for part in parts if len(part) > 1]
    ids, free = [], len(tokenizer.tokens)
    for part in parts:
        ids.append(part[0] if len(part) == 1 else free)
        free += len(part) > 1
    return chain_model(path, dict(zip([tokenizer.end_of_text, *ids], ids)), new, [1] * len(new))


def json_lines(*arguments, stdin=b""):
    out, _ = run(*arguments, stdin=stdin)
    check(out.isascii(), f"{arguments}: JSON of other characters than ASCII")
    return [json.loads(line) for line in out.decode().splitlines()]


def test_json(folder):
    tokenizer, model, path = text_model(folder)
    for n, prompt in ((6, "the hat"), (3, "h\u00e9 \u4e16"), (0, "x")):
        ids = [tokenizer.end_of_text] + tokenizer.encode(prompt)
        own = ["--ignore-eos", "--logit-bias", "3:-1"]   # which change no probability shown
        made = generate(path, ids, n, *own)
        common = ["-n", n, "--json", "--temp", 0, *own]
        *lines, last = json_lines("-m", path, "-p", prompt, "--top-logprobs", 5, *common)
        check([line["id"] for line in lines] == made, f"ids: {lines}, expected {made}")
        check(b"".join(bytes(line["bytes"]) for line in lines) == tokenizer.decode(made), "bytes")
        for line in lines:
            check(same_text(line["text"].encode(), bytes(line["bytes"])), f"text: {line}")
        check(last["end"] == "length" and last["tokens"] == n and
              last["prompt_tokens"] == len(ids) and
              same_text(last["text"].encode(), tokenizer.decode(made)), f"last: {last}")
        rows = logits(path, (ids + made)[:len(ids) + n - 1])[len(ids) - 1:] if n else []
        for row, line in zip(rows, lines):
            total = math.log(sum(map(math.exp, row)))
            order = sorted(range(model.V), key=lambda id: (-row[id], id))[:5]
            check([c["id"] for c in line["top"]] == order, f"top: {line['top']}")
            check(all(abs(c["logprob"] - (row[c["id"]] - total)) < 1e-4
                      for c in [line, *line["top"]]), f"log-probabilities: {line}")
        everything = json_lines("-m", path, "-p", prompt, "--top-logprobs", 10 ** 9, *common)[:-1]
        for line in everything:
            p = [math.exp(c["logprob"]) for c in line["top"]]
            check(len(p) == model.V and abs(sum(p) - 1) < 1e-4 and p == sorted(p)[::-1],
                  "all tokens' probabilities are in order and add up to 1")
        check(b'"id"' not in run("-m", path, "-p", prompt, "-n", 1, "--temp", 0)[0], "no --json")
    *lines, last = json_lines("-m", path, "--ids", "1,2", "-n", 30, "--json", "--ignore-eos")
    check([line["id"] for line in lines] == generate(path, [1, 2], 30, "--ignore-eos") and
          last == {"prompt_tokens": 2, "tokens": 23, "end": "context"} and
          all(line.keys() == {"id", "logprob"} for line in lines), f"--ids: {last}")
    raw = b'"\\\n\t\x00\x7f\xff/ \xe4'
    path = byte_model(f"{folder}/raw.gguf", [raw, "\u00e9\u2028\U0001f999\U0001f680".encode()])
    a, b, last = json_lines("-m", path, "-n", 2, "--temp", 0, "--json", "--top-logprobs", 1)
    check(a["text"] == '"\\\n\t\0\x7f\ufffd/ \ufffd' and bytes(a["bytes"]) == raw and
          a["top"][0]["text"] == a["text"] and
          b["text"] == "\u00e9\u2028\U0001f999\U0001f680", f"{a} {b}")
    path = chain_model(f"{folder}/end.gguf", {97: 98, 98: 256})
    check(json_lines("-m", path, "-p", "a", "--temp", 0, "--json")[-1] ==
          {"text": "b", "prompt_tokens": 2, "tokens": 1, "end": "eos"}, "end of text")
    refused(["--top-logprobs", "--json"], "-m", path, "-p", "a", "--top-logprobs", 3)
    report("JSON")


def test_logit_bias(folder):
    model = Model(seed=3)
    path = model.write(f"{folder}/model.gguf")
    ids = random_ids(model, 4)
    bias = lambda *words: [word for w in words for word in ("--logit-bias", w)]
    row = logits(path, ids)[-1]
    order = sorted(range(model.V), key=lambda id: -row[id])
    a, b, c = order[:3]
    check(generate(path, ids, 1, *bias(f"{a}:-inf", f"{b}:-inf")) == [c], "forbidden tokens")
    check(generate(path, ids, 1, *bias(f"{order[-1]}:1000")) == [order[-1]], "a token that must be")
    check(generate(path, ids, 1, *bias(f"{c}:{row[a] - row[c] + 0.01}")) == [c] and
          generate(path, ids, 1, *bias(f"{c}:{row[a] - row[c] - 0.01}")) == [a], "just enough")
    check(generate(path, ids, 1, *bias(f"{a}:-1e6"), "--repeat-penalty", 2) != [a], "and penalty")
    refused(["all tokens", "forbidden"], "-m", path, "--ids", 1,
            *bias(*(f"{id}:-inf" for id in range(model.V))))
    for bad in ("", "3", "3:", ":1", "3:x", "3:nan", "3:inf", "3:1e7", "1,2:1", "3:1 "):
        refused(["--logit-bias", "expected a token id"], "-m", path, "--ids", 1, *bias(bad))
    for bad in ("61:1", "-1:1", "x:1"):
        refused(["--logit-bias", "token id"], "-m", path, "--ids", 1, *bias(bad))
    report("logit bias")


def test_prompt_files(folder):
    _, _, path = text_model(folder)
    file, more = f"{folder}/prompt.txt", ("-n", 5, "--temp", 0, "--ignore-eos")
    for prompt in ("the hat", "the\n\u4e16\n"):
        with open(file, "w", encoding="utf-8") as f:
            f.write(prompt + "\n")
        want = run("-m", path, "-p", prompt, *more)[0]
        check(run("-m", path, "-f", file, *more)[0] == want, f"-f: {prompt!r}")
        check(run("-m", path, "-f", "-", *more, stdin=prompt.encode() + b"\n")[0] == want,
              f"-f -: {prompt!r}")
    for flags in (["-p", "x", "-f", file], ["-f", file, "-b", file], ["--ids", 1, "-f", file],
                  ["-p", "x", "-b", file]):
        refused(["only one of them", flags[0], flags[2]], "-m", path, *flags)
    refused(["absent.txt"], "-m", path, "-f", f"{folder}/absent.txt")
    refused(["the prompt", "24"], "-m", path, "-f", "-", stdin=b"x" * 24)
    report("prompts from files")


def test_batch(folder):
    """Each text of a batch is what it is alone, with any number of neighbours, on any seed."""
    _, _, path = text_model(folder, T=40)
    chance = random.Random(8)
    prompts = ["".join(chance.choice("the cat") for _ in range(chance.randrange(1, 30)))
               for _ in range(37)] + ["", "\u4e16"]
    file = f"{folder}/prompts.txt"
    for sampler in (["--temp", 0], ["--temp", 1.5, "--top-k", 0]):
        for more in (["-n", 14, "--stop", "a", "--stop", "\u00e9"], ["-n", 3, "--ignore-eos"]):
            alone, lines = [], []
            for i, prompt in enumerate(prompts):
                own = ["-m", path, "-p", prompt, *sampler, *more, "--seed", 11 + i]
                alone.append(f"==> {file}:{i + 1} <==\n" + run(*own)[0].decode())
                lines.append([{"line": i + 1, **line} for line in json_lines(*own, "--json")])
            for n in (1, 8, len(prompts)):
                with open(file, "w", encoding="utf-8", newline="") as f:
                    f.write("\r\n".join(prompts[:n]) + "\n" * (n < 9))
                command = ["-m", path, "-b", file, *sampler, *more, "--seed", 11]
                out = run(*command)[0].decode()
                check(out == "".join(alone[:n]), f"{n} {sampler} {more}: {out!r}")
                check(json_lines(*command, "--json") == sum(lines[:n], []),
                      f"{n} {sampler} {more}: other JSON")
    check(run("-m", path, "-b", "-", "-n", 2, stdin=b"the\ncat\n")[0].count(b"==> -:") == 2, "-b -")
    with open(file, "w") as f:
        f.write("the\n" + "x" * 40 + "\n")
    refused([f"{file}:2", "41 tokens", "40"], "-m", path, "-b", file)
    report("batches")


def test_windows(folder):
    """perplexity --ctx as llama-perplexity has it, and --kl."""
    tokenizer, model, path = text_model(folder)
    file = f"{folder}/text.txt"
    text = "the cat that sat there, then the other one: they thought the thing through.\n" * 2
    with open(file, "w") as f:
        f.write(text)
    for ctx in (4, 7, 24):
        for begins in (True, False):
            model.write(path, tokenizer__ggml__add_bos_token=("bool", begins))
            ids = [tokenizer.end_of_text] * begins + tokenizer.encode(text[:-1])
            surprises = []
            for at in range(0, len(ids) - ctx + 1, ctx):
                window = ids[at:at + ctx]
                if begins:
                    window[0] = tokenizer.end_of_text
                rows = logits(path, window)
                for i in range(ctx // 2, ctx - 1):
                    surprises.append(math.log(sum(map(math.exp, rows[i]))) - rows[i][window[i + 1]])
            n, mean = len(surprises), sum(surprises) / len(surprises)
            error = math.sqrt(sum((x - mean) ** 2 for x in surprises) / n / (n - 1))
            out, _ = run("perplexity", "-m", path, "-f", file, "--ctx", ctx)
            m = re.fullmatch(rb"ppl (\S+) \+/- (\S+)  nats/token (\S+)  tokens (\d+)\n", out)
            check(m and abs(float(m[1]) / math.exp(mean) - 1) < 1e-5 and int(m[4]) == n and
                  abs(float(m[2]) / (error * math.exp(mean)) - 1) < 1e-2,
                  f"--ctx {ctx} {begins}: {out!r}, expected {math.exp(mean)} of {n}, {error}")
    for bad in (3, 25):
        refused(["--ctx", str(bad), "4 to 24"], "perplexity", "-m", path, "-f", file, "--ctx", bad)
    refused(["-: ", "24 or more"], "perplexity", "-m", path, "-f", "-", "--ctx", 24, stdin=b"the")

    pattern = (rb"ppl .*\nreference: ppl (\S+) \+/- \S+\nkl (\S+) \+/- (\S+) nats/token  largest"
               rb" (\S+)  same top token (\S+)% \+/- (\S+)%\n")
    out, _ = run("perplexity", "-m", path, "-f", file, "--kl", path)
    m = re.fullmatch(pattern, out)
    check(m and [float(x) for x in m.groups()[1:]] == [0, 0, 0, 100, 0], f"with itself: {out!r}")
    other = Model(V=model.V, seed=5)
    other.keys = model.keys
    other_path = other.write(f"{folder}/other.gguf")
    ids, kl, same = [tokenizer.end_of_text] + tokenizer.encode(text), [], []
    for at in range(0, len(ids) - 1, 24):
        window = ids[at:at + 24][:len(ids) - 1 - at]
        for row, ref in zip(logits(path, window), logits(other_path, window)):
            a, b = (math.log(sum(map(math.exp, r))) for r in (row, ref))
            kl.append(sum(math.exp(y - b) * (y - b - x + a) for x, y in zip(row, ref)))
            same.append(row.index(max(row)) == ref.index(max(ref)))
    out, _ = run("perplexity", "-m", path, "-f", file, "--kl", other_path)
    m = re.fullmatch(pattern, out)
    alone = run("perplexity", "-m", other_path, "-f", file)[0].split()[1]
    check(m and m[1] == alone and abs(float(m[2]) / (sum(kl) / len(kl)) - 1) < 1e-3 and
          abs(float(m[4]) / max(kl) - 1) < 1e-3 and
          abs(float(m[5]) - 100 * sum(same) / len(same)) < 0.01, f"{out!r}, expected {sum(kl)}")
    keys = bpe.to_keys(bpe.from_merges([(ord("t"), ord("h")), (256, ord("i")), (ord(" "), 257)]))
    other.keys = {**model.keys, **keys}
    other.write(other_path)
    refused([other_path, path, "vocabulary"], "perplexity", "-m", path, "-f", file, "--kl",
            other_path)
    report("windows and divergence")


# ---- what must be refused ------------------------------------------------------------------------

def test_flags(folder):
    path = Model().write(f"{folder}/model.gguf")
    base = ["-m", path, "--ids", "1"]
    refused(["infer: needs -m FILE.gguf"])
    refused(["-m FILE.gguf"], "tokenize")
    refused(["--ids"], "logits", "-m", path)
    refused(["-f FILE"], "perplexity", "-m", path)
    refused(["--frobnicate", "unknown flag"], *base, "--frobnicate", 1)
    refused(["frobnicate", "unknown command"], "frobnicate", *base)
    refused(["upon", "quotes"], "-m", path, "-p", "Once", "upon", "a", "time")
    refused(["--temp", f"not a flag of {INFER} tokenize"], "tokenize", "-m", path, "--temp", 1)
    refused(["--temp", "needs a value"], *base, "--temp")
    refused(["-n: given twice"], *base, "-n", 1, "-n=2")
    refused(["--ignore-eos", "takes no value"], *base, "--ignore-eos=1")
    refused(["--tmp", "did you mean --temp?"], *base, "--tmp", 1)
    refused(["other.gguf", "is no flag"], "show", path, "other.gguf")
    same = [run(*base, *more)[0] for more in (["-n", 3, "--temp", 0.5], ["-n=3", "--temp=0.5"])]
    check(same[0] == same[1] and len(same[0].split()) == 3, f"--flag=value: {same}")
    for flag, bad in [("-n", "x"), ("-n", ""), ("-n", "1.5"), ("--temp", "hot"), ("--temp", "1x"),
                      ("--top-k", "3,")]:
        refused([flag, f'"{bad}"', "is not"], *base, flag, bad)
    for flag, bad in [("-n", -1), ("--temp", -0.1), ("--temp", "nan"), ("--temp", "inf"),
                      ("--top-p", 1.01), ("--top-k", -1), ("--min-p", 2), ("--repeat-penalty", 0),
                      ("--seed", -1), ("--threads", 0), ("--threads", 10 ** 6), ("-n", 10 ** 30),
                      ("--seed", 2 ** 63)]:
        refused([flag, "out of range", "expected"], *base, flag, bad)
    commands = ("tokenize", "detokenize", "logits", "perplexity", "show FILE.gguf")
    for arguments, words, absent in (
            (["--help"], ("--repeat-penalty", "--ignore-eos", "[0.8]"), "--special"),
            (["-m", "none.gguf", "-h"], ("--repeat-penalty",), "--special"),
            (["tokenize", "--help"], ("-0", "--special"), "--repeat-penalty"),
            (["show", "-h"], ("FILE.gguf",), "--special")):
        out = run(*arguments)[0].decode()
        for word in [f"infer {command} " for command in commands] + list(words):
            check(word in out, f"{arguments}: {word} is not in the help")
        check(absent not in out, f"{arguments}: {absent} is another command's")
    report("flags")


def test_wrong_models(folder):
    model, path = Model(untied=True), f"{folder}/wrong.gguf"
    command = ["logits", "-m", path, "--ids", "1"]

    def wrong(words, **changes):
        model.write(path, **changes)
        refused([path, *words], *command)

    u32 = lambda x: ("u32", x)
    wrong(["general.architecture", '"bert"', '"gpt2" or "llama"'],
          general__architecture=("string", "bert"))
    wrong(["llama.context_length", "missing"], general__architecture=("string", "llama"))
    wrong(["general.architecture", "missing"], general__architecture=None)
    for key in ("context_length", "embedding_length", "block_count", "feed_forward_length",
                "attention.head_count", "attention.layer_norm_epsilon"):
        wrong(["gpt2." + key, "missing"], **{"gpt2__" + key.replace(".", "__"): None})
    wrong(["gpt2.block_count", "0", "expected 1"], gpt2__block_count=u32(0))
    wrong(["gpt2.block_count", "-2"], gpt2__block_count=("i32", -2))
    wrong(["gpt2.context_length", "string"], gpt2__context_length=("string", "24"))
    wrong(["gpt2.embedding_length", "4000000000"], gpt2__embedding_length=u32(4000000000))
    wrong(["head_count", "5", "24"], gpt2__attention__head_count=u32(5))
    wrong(["feed_forward_length", "1537", "64 times", "24"], gpt2__feed_forward_length=u32(1537))
    wrong(["blk.1.attn_norm.weight", "unexpected", "block_count"], gpt2__block_count=u32(1))
    wrong(["general.architecture", "\\x1b[2J\\xc2\\x9b"],
          general__architecture=("string", "\x1b[2J\x9b"))
    wrong(["layer_norm_epsilon", "nan"], gpt2__attention__layer_norm_epsilon=("f32", math.nan))
    wrong(["blk.2.attn_norm.weight", "missing"], gpt2__block_count=u32(3))
    wrong(["blk.0.ffn_up.weight", "{24, 96}", "{24, 95}", "gpt2.feed_forward_length 95"],
          gpt2__feed_forward_length=u32(95))
    wrong(["position_embd.weight", "{24, 24}", "{24, 48}", "gpt2.context_length 48"],
          gpt2__context_length=u32(48))
    wrong(["token_embd.weight", "{24, 61}", "{48, 61}", "gpt2.embedding_length 48"],
          gpt2__embedding_length=u32(48))
    wrong(["eos_token_id", "61", "0 to 60"], tokenizer__ggml__eos_token_id=u32(61))
    for name in model.shapes:
        if name != "output.weight":
            wrong([name, "missing"], without=[name])
    wrong(["output.weight", "{61, 24}", "{24, 61}"], shape={"output.weight": (61, 24)})
    wrong(["blk.1.attn_qkv.weight", "{1728}"], shape={"blk.1.attn_qkv.weight": (24 * 72,)})
    wrong(["blk.0.attn_norm.bias", "F64", "F32, F16, BF16"],
          types={"blk.0.attn_norm.bias": "F64"})
    wrong(["head_count_kv", "2", "to divide gpt2.attention.head_count 3"],
          gpt2__attention__head_count_kv=u32(2))

    _, model, good = text_model(folder)
    for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre"):
        model.write(path, **{key.replace(".", "__"): ("string", "\x1b[2J\x9b")})
        refused([path, key, "\\x1b[2J\\xc2\\x9b"], "tokenize", "-m", path)
    model.V += 1
    model.shapes["token_embd.weight"] = (model.C, model.V)
    model.weights["token_embd.weight"] += [0] * model.C
    model.write(path)
    refused(["tokenizer.ggml.tokens", "260 tokens", "261"], "-m", path, "-p", "x")

    with open(good, "rb") as f:
        data = f.read()
    chance = random.Random(6)
    for _ in range(60):   # cut short, or with a few bytes changed: any answer but a crash
        damaged = bytearray(data)
        if chance.random() < 0.4:
            del damaged[chance.randrange(1, len(data)):]
        else:
            for _ in range(3):
                damaged[chance.randrange(5000)] = chance.randrange(256)
        with open(path, "wb") as f:
            f.write(damaged)
        p = subprocess.run([INFER, "-m", path, "-p", "x", "-n", "2"], capture_output=True,
                           timeout=60)
        check(p.returncode in (0, 1), f"a damaged model: exit code {p.returncode} {p.stderr!r}")
        check(p.returncode == 0 or p.stderr.startswith(b"error: "),
              f"a damaged model: {p.stderr!r}")
    report("models that are wrong")


def test_not_finite(folder):
    """No command prints NaN or infinity: the weight that is at fault is named."""
    _, model, path = text_model(folder)
    with open(f"{folder}/text.txt", "w") as f:
        f.write("the hat")
    commands = [["-m", path, "--ids", "1"], ["-m", path, "-p", "x"],
                ["logits", "-m", path, "--ids", "1,2"],
                ["perplexity", "-m", path, "-f", f"{folder}/text.txt"]]

    def wrong(words, **how):
        model.write(path, **how)
        for command in commands:
            out, err = run(*command, code=1)
            check(all(word in err for word in [path, *words]) and out in (b"", b"x"),
                  f"{command}: {out[:40]!r} {err!r}, expected {words}")

    for name in ("blk.1.ffn_up.weight", "output_norm.bias"):
        good = model.weights[name][7]
        for bad in (math.nan, math.inf, -math.inf):
            model.weights[name][7] = bad
            for type in ("F32", "F16", "BF16"):
                wrong([f"tensor {name}: element 7 is", str(abs(bad)), "finite"], type=type)
        model.weights[name][7] = good
    model.weights["output_norm.weight"][3] = 3e38
    model.weights["output_norm.bias"][3] = 3e38
    model.weights["token_embd.weight"] = [8 * v for v in model.weights["token_embd.weight"]]
    wrong(["a logit of", "all weights are finite"])
    report("weights that are not finite")


def peak_memory(*arguments):
    """Bytes, and the exit code."""
    p = subprocess.Popen([INFER, *map(str, arguments)], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), p.returncode


def test_memory(folder):
    """A context of a million positions in 500 blocks is a cache of 4 GB, but only if it is used."""
    model = Model(L=500, NH=1, C=1, F=1, T=1000000, V=2)
    path = model.write(f"{folder}/deep.gguf", types={"position_embd.weight": "F16"})
    usual, _ = peak_memory("-m", Model().write(f"{folder}/model.gguf"), "--ids", 1, "-n", 2)
    peak, code = peak_memory("-m", path, "--ids", 1, "-n", 2)
    check(code == 0 and peak - usual < 100e6,
          f"a deep model of {os.path.getsize(path)} bytes takes {peak - usual} bytes")

    if sys.platform == "linux" and not sanitized():
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
        path = Model(L=1, NH=1, C=1, F=1, T=64, V=2000000).write(f"{folder}/wide.gguf", "F16")
        p = subprocess.run([INFER, "logits", "-m", path, "--ids", commas([1] * 64)],
                           capture_output=True, preexec_fn=limit)
        check(p.returncode == 1 and p.stdout == b"" and b"out of memory" in p.stderr,
              f"logits of 512 MB where there are 400: exit code {p.returncode}, {p.stderr!r}")
    report("memory follows what is used")


def test_hostile_files(folder):
    """What is no regular file is refused at once; what is cut short while it is read is named."""
    model = Model(C=96, F=384, V=5000, T=4096)
    path, pipe = model.write(f"{folder}/model.gguf"), f"{folder}/pipe"
    os.mkfifo(pipe)
    for command in (["show", pipe], ["-m", pipe, "-p", "x"], ["tokenize", "-m", pipe],
                    ["perplexity", "-m", text_model(folder)[2], "-f", pipe]):
        refused([pipe, "is a pipe", "regular file"], *command)
    refused([folder, "is a folder"], "show", folder)
    refused(["/dev/null", "is a device"], "show", "/dev/null")

    p = subprocess.Popen([INFER, "-m", path, "--ids", "1", "-n", "4000"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdout.read(1)   # it is at work
    os.truncate(path, 8192)
    _, err = p.communicate(timeout=60)
    check(p.returncode == 1 and b"error: " + path.encode() in err and b"cut short" in err,
          f"a model cut short: exit code {p.returncode}, {err!r}")
    report("files that are no files, or change")


def report(what):
    print(what)


def main():
    if not os.access(INFER, os.X_OK):
        sys.exit(f"{INFER}: is not a program (build it with make, or set INFER)")
    with tempfile.TemporaryDirectory() as folder:
        return run_tests([test_logits, test_int8, test_llama_family, test_wrong_llamas, test_bits,
                          test_cache, test_sampling, test_bench, test_end_of_text, test_context,
                          test_text, test_streaming, test_terminal, test_tokenize, test_perplexity,
                          test_documents, test_stop, test_json, test_logit_bias, test_prompt_files,
                          test_batch, test_windows, test_show, test_flags, test_wrong_models,
                          test_not_finite, test_memory, test_hostile_files],
                         lambda test: test(folder))


if __name__ == "__main__":
    sys.exit(main())
