#!/usr/bin/env python3
"""test_trainer.py - a training run from outside: files, flags, errors, and what survives a kill.

Runs the program that the environment variable TRAIN names (default ./train_gpt2), and reads what it
wrote with INFER (default ./infer) and data/gguf.py. Models and data are tiny, so that a run takes
milliseconds.
"""
import array
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

from check import check, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

TRAIN = os.path.abspath(os.environ.get("TRAIN", os.path.join(ROOT, "train_gpt2")))
INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))
TEXT = ("the cat sat on the mat and the dog sat on the cat. " * 3
        + "a bird sang to them, and they slept.\n")
MERGES = 3                             # the tokenizer's: V = 256 + MERGES + end of text
B, T, LAYERS, C = 4, 32, 2, 16         # of the runs below, unless they say otherwise
TRAIN_TOKENS, VAL_TOKENS = (1000, 129, 700), (600,)
BATCHES = sum((n - 1) // (B * T) for n in TRAIN_TOKENS)   # of B x T windows in an epoch
START = {"out", "profile", "resume", "help"}               # flags of one start, not of the run
WHAT_DIFFERS = ("ms", "tok_per_s", "mfu")                 # from run to run: measured times
work = ""                              # the temporary folder


# ---- data ----------------------------------------------------------------------------------------

def write_shard(path, tokens, magic=20240520, version=1):
    header = array.array("i", [magic, version, len(tokens)] + [0] * 253)
    with open(path, "wb") as f:
        f.write(header.tobytes() + array.array("H", tokens).tobytes())


def make_data():
    words = {}
    for word in bpe.split(TEXT):
        words[word.encode()] = words.get(word.encode(), 0) + 1
    tokenizer = bpe.from_merges(learn_merges())
    gguf.write(path("tokenizer.gguf"),
               {"general.architecture": ("string", "gpt2"), **bpe.to_keys(tokenizer)})
    rng = random.Random(3)
    for split, sizes in (("train", TRAIN_TOKENS), ("val", VAL_TOKENS)):
        for i, size in enumerate(sizes):
            ids = []
            while len(ids) < size:
                words = TEXT.split()
                rng.shuffle(words)
                ids += [tokenizer.end_of_text] + tokenizer.encode(" ".join(words))
            write_shard(path(f"{split}_{i:03d}.bin"), ids[:size])
    write_shard(path("one_batch.bin"), read_shard(path("val_000.bin"))[:B * T + 1])


def learn_merges():
    return [(ord("t"), ord("h")), (256, ord("e")), (ord("a"), ord("t"))]


def read_shard(name):
    with open(name, "rb") as f:
        return list(array.array("H", f.read()[1024:]))


def path(*parts):
    return os.path.join(work, *parts)


# ---- running it ----------------------------------------------------------------------------------

def base(out):
    return {"train": path("train_*.bin"), "val": path("val_*.bin"),
            "tokenizer": path("tokenizer.gguf"), "out": path(out),
            "layers": LAYERS, "heads": 2, "channels": C, "context": T, "batch": B,
            "steps": 8, "lr": 0.01, "warmup": 2, "seed": 7, "threads": 1}


def command(flags):
    """The command line of a dict of flags: None leaves one out, True is a switch."""
    words = [TRAIN]
    for name, value in flags.items():
        if value is not None:
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


def start(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))


def execute(words, code=0, cwd=ROOT):
    p = subprocess.run(words, capture_output=True, timeout=120, cwd=cwd)
    err = p.stderr.decode(errors="replace")
    check(p.returncode == code,
          f"{' '.join(words[1:])}: exit code {p.returncode}, expected {code}: {err[-400:]}")
    return p.stdout, err


def train(out, code=0, **flags):
    """A run with the base flags and these; returns stdout and stderr."""
    return execute(command({**base(out), **flags}), code)


def resume(out, code=0, **flags):
    return execute(command({"resume": True, "out": path(out), **flags}), code)


def refused(words, arguments):
    """The trainer must exit with 1 and one sentence, returned, that holds each of the words."""
    out, err = execute(arguments, code=1)
    sentence = err[err.rfind("error: "):]
    check(sentence.startswith("error: ") and sentence.count("\n") == 1
          and all(str(w) in sentence for w in words),
          f"{' '.join(arguments[1:])}: expected an error with {words}, found {err!r}")
    return sentence


def data(*parts):
    with open(path(*parts), "rb") as f:
        return f.read()


def same_file(a, b, what):
    check(data(*a) == data(*b), f"{what}: {'/'.join(a)} and {'/'.join(b)} differ")


def log(out):
    """The records, as dicts of text: what is between the key and the next comma."""
    with open(path(out, "log.jsonl")) as f:
        lines = f.read().split("\n")
    check(lines[-1] == "", f"{out}/log.jsonl: the last line has no end")
    return [dict(json.loads(line, parse_float=str, parse_int=str, parse_constant=str))
            for line in lines[:-1]]


def steady(out):
    """The log without what depends on the clock."""
    return [{k: v for k, v in record.items() if k not in WHAT_DIFFERS} for record in log(out)]


def column(out, key):
    return [float(record[key]) for record in log(out) if key in record]


def checkpoints(out):
    return sorted(int(name[5:]) for name in os.listdir(path(out))
                  if re.fullmatch(r"step-\d{8,}", name))


def newest(out):
    return f"step-{checkpoints(out)[-1]:08d}"


def floats(tensor):
    return array.array("f", bytes(tensor.data))


def tensors(*parts):
    return {t.name: bytes(t.data) for t in gguf.read(path(*parts)).tensors}


def close(a, b, tolerance):
    return abs(a - b) <= tolerance * max(abs(a), abs(b))


# ---- a run's files -------------------------------------------------------------------------------

def model_tensors(V):
    """Names and dims in DESIGN's words, fastest dim first."""
    names = [("token_embd.weight", (C, V)), ("position_embd.weight", (C, T))]
    for i in range(LAYERS):
        for name, dims in (("attn_norm", (C,)), ("attn_qkv", (C, 3 * C)), ("attn_output", (C, C)),
                           ("ffn_norm", (C,)), ("ffn_up", (C, 4 * C)), ("ffn_down", (4 * C, C))):
            names += [(f"blk.{i}.{name}.weight", dims), (f"blk.{i}.{name}.bias", dims[-1:])]
    return names + [("output_norm.weight", (C,)), ("output_norm.bias", (C,))]


def test_files():
    train("files", steps=7, eval_every=2, save_every=3)
    expected = {".lock", "log.jsonl", "loss.svg", "model.gguf", "step-00000006", "step-00000007"}
    check(names("files") == expected, f"files: found {names('files')}")
    for step in ("step-00000006", "step-00000007"):
        check(sorted(os.listdir(path("files", step))) == ["model.gguf", "optimizer.gguf"],
              f"files/{step}")
    same_file(("files", "model.gguf"), ("files", "step-00000007", "model.gguf"),
              "the newest weights")
    test_log(log("files"))
    test_curves("files")
    test_model_file()
    test_optimizer_file()


def test_log(records):
    with open(path("files", "log.jsonl")) as f:
        numbers = re.findall(r':([^,}]*)', f.read())
    check(all(n == "%.9g" % float(n) for n in numbers),
          "log.jsonl: a number is not as %.9g writes it")
    check([r["step"] for r in records] == [str(i) for i in range(8)],
          "log.jsonl: steps are not 0 to 7")
    check([r["tokens"] for r in records] == [str(i * B * T) for i in range(8)], "log.jsonl: tokens")
    for i, r in enumerate(records):
        keys = ["step", "tokens", "loss", "val_loss", "lr", "grad_norm", "ms", "tok_per_s", "mfu"]
        if i == 0:
            keys = ["step", "tokens", "val_loss"]
        elif i not in (2, 4, 6, 7):   # every second, and the last
            keys.remove("val_loss")
        check(list(r) == keys, f"log.jsonl: record {i} has {list(r)}, expected {keys}")
        if i:
            check(close(float(r["tok_per_s"]), B * T / float(r["ms"]) * 1000, 1e-6),
                  f"log.jsonl: tok_per_s of {i}")
            check(0 < float(r["mfu"]) < 1,
                  f"log.jsonl: record {i} claims a part of {r['mfu']} of the peak")
    V = 256 + MERGES + 1
    check(abs(float(records[0]["val_loss"]) - math.log(V)) < 0.1,
          "a new model must know nothing: loss ln V")
    check(float(records[7]["val_loss"]) < float(records[0]["val_loss"]) - 0.1,
          "seven steps must teach something")


def test_curves(out):
    root = xml.etree.ElementTree.fromstring(data(out, "loss.svg"))
    box = [float(n) for n in root.get("viewBox").split()]
    curves = [e for e in root.iter() if e.tag.endswith("polyline")]
    check(len(curves) == 2, f"loss.svg: {len(curves)} curves, expected 2")
    for curve, key in zip(curves, ("loss", "val_loss")):
        points = [tuple(map(float, pair.split(","))) for pair in curve.get("points").split()]
        values = column(out, key)
        check(len(points) == len(values),
              f"loss.svg: {len(points)} points for {len(values)} values of {key}")
        check(all(0 <= x <= box[2] and 0 <= y <= box[3] for x, y in points),
              f"loss.svg: {key} leaves the picture")
        check(all(a[0] < b[0] for a, b in zip(points, points[1:])),
              f"loss.svg: {key} runs backward")
        order = sorted(range(len(values)), key=values.__getitem__)   # y grows downward
        check(all(points[a][1] >= points[b][1] for a, b in zip(order, order[1:])),
              f"loss.svg: {key} is upside down")
    words = " ".join(e.text or "" for e in root.iter())
    check("train" in words and "validation" in words, "loss.svg: the curves have no names")


def test_model_file():
    file, tokenizer = gguf.read(path("files", "model.gguf")), gguf.read(path("tokenizer.gguf"))
    expected = {"general.architecture": ("string", "gpt2"), "general.file_type": ("u32", 0),
                "gpt2.context_length": ("u32", T), "gpt2.embedding_length": ("u32", C),
                "gpt2.block_count": ("u32", LAYERS), "gpt2.feed_forward_length": ("u32", 4 * C),
                "gpt2.attention.head_count": ("u32", 2)}
    keys = dict(file.keys)
    check(abs(keys.pop("gpt2.attention.layer_norm_epsilon", ("f32", 0))[1] - 1e-5) < 1e-11,
          "layer_norm_epsilon")
    expected.update({k: v for k, v in tokenizer.keys.items() if k.startswith("tokenizer.")})
    check(keys == expected,
          f"model.gguf: keys {sorted(set(keys) ^ set(expected))}, or their values")
    found = [(t.name, t.dims) for t in file.tensors]
    check(found == model_tensors(256 + MERGES + 1), f"model.gguf: tensors {found}")
    check(all(t.type == "F32" for t in file.tensors), "model.gguf: a tensor is not F32")
    raw = data("files", "model.gguf")
    for word in (work, ROOT, "train_0", "files/"):
        check(word.encode() not in raw, f"model.gguf: holds {word!r}")
    # The same run from another folder, under other names and later, gives the same bytes; so does
    # --flag=value.
    flags = {**base("unused"), "steps": 7, "eval_every": 2, "save_every": 3, "out": "elsewhere"}
    flags.update({name: os.path.basename(flags[name]) for name in ("train", "val", "tokenizer")})
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    execute([TRAIN] + words, cwd=work)
    same_file(("files", "model.gguf"), ("elsewhere", "model.gguf"),
              "the same run from another folder")


def help_flags():
    out, _ = execute([TRAIN, "--help"])
    return re.findall(r"^  --([a-z0-9-]+)", out.decode(), re.M)


def test_optimizer_file():
    file = gguf.read(path("files", newest("files"), "optimizer.gguf"))
    model = gguf.read(path("files", "model.gguf"))
    names = set(help_flags()) - START
    names |= {"step", "tokens", "epoch", "position", "rng", "sha256", "weights_sha256",
              "loss_scale", "loss_scale_steps"}
    expected = {"legible." + name for name in names} | {"general.architecture"}
    check(set(file.keys) == expected, f"optimizer.gguf: keys {sorted(set(file.keys) ^ expected)}")
    numbers = [file.value("legible." + key) for key in ("step", "tokens", "epoch", "position")]
    check(numbers == [7, 7 * B * T, 7 // BATCHES, 7 % BATCHES * B],
          f"optimizer.gguf: step, tokens, epoch, position {numbers}")
    check(file.value("legible.lr") == "0.01", "optimizer.gguf: --lr")
    check(file.value("legible.val") == path("val_*.bin"), "optimizer.gguf: --val")
    expected = [(t.name + suffix, t.dims, "F32") for suffix in (".m", ".v") for t in model.tensors]
    check([(t.name, t.dims, t.type) for t in file.tensors] == expected,
          "optimizer.gguf: names and dims of m and v")
    check(all(min(floats(t)) >= 0 < max(floats(t)) for t in file.tensors if t.name.endswith(".v")),
          "optimizer.gguf: v is a mean of squares")
    check(all(max(map(abs, floats(t))) > 0 for t in file.tensors if t.name.endswith(".m")),
          "optimizer.gguf: m is 0")


# ---- what the numbers are ------------------------------------------------------------------------

def test_bits():
    for threads in (1, 2, 3):
        train(f"threads{threads}", steps=4, threads=threads, batch=3)
    for threads in (2, 3):
        same_file(("threads1", "model.gguf"), (f"threads{threads}", "model.gguf"),
                  f"1 and {threads} threads")
        check(steady("threads1") == steady(f"threads{threads}"),
              f"1 and {threads} threads: the logs differ")
        names = [(f"threads{n}", "step-00000004", "optimizer.gguf") for n in (1, threads)]
        check(tensors(*names[0]) == tensors(*names[1]), f"1 and {threads} threads: m or v differ")
    train("seed8", steps=4, seed=8, batch=3)
    check(data("seed8", "model.gguf") != data("threads1", "model.gguf"),
          "seeds 7 and 8 give the same weights")
    train("seed7_0", steps=0)
    train("seed8_0", steps=0, seed=8)
    check(data("seed8_0", "model.gguf") != data("seed7_0", "model.gguf"),
          "seeds 7 and 8 give the same initial weights")
    train("order8", steps=1, seed=8, init=path("seed7_0", "model.gguf"), tokenizer=None)
    train("order7", steps=1, seed=7, init=path("seed7_0", "model.gguf"), tokenizer=None)
    check(column("order8", "loss") != column("order7", "loss"),
          "seeds 7 and 8 read the same first batch")


def test_losses():
    """Of which weights `loss` and `val_loss` are, before or after the update, and of which data."""
    train("each", steps=3, save_every=1, keep=0, eval_every=1, train=path("one_batch.bin"))
    values = [float(r["val_loss"]) for r in log("each")]
    for step in range(4):
        flags = {}
        if step:
            flags = {"init": path("each", f"step-{step:08d}", "model.gguf"), "tokenizer": None}
        train(f"each{step}", steps=1, train=path("one_batch.bin"), **flags)
        again = log(f"each{step}")
        check(float(again[0]["val_loss"]) == values[step],
              f"val_loss of record {step} is not of the weights after it")
        if step < 3:
            check(again[1]["loss"] == log("each")[step + 1]["loss"],
                  f"loss of record {step + 1} is not of the weights before it")
    # Over all of the validation data, in order; with --eval-batches over the first of them.
    tokens = read_shard(path("val_000.bin"))
    windows = (len(tokens) - 1) // T
    losses, sizes = [], []
    for first in range(0, windows, B):
        sizes.append(min(B, windows - first))
        part = tokens[first * T:(first + sizes[-1]) * T + 1]
        write_shard(path("part.bin"), part)
        train(f"part{first}", steps=0, val=path("part.bin"))
        losses.append(column(f"part{first}", "val_loss")[0])
    train("all", steps=0, eval_batches=0)
    train("first", steps=0, eval_batches=2)
    train("more", steps=0, eval_batches=len(losses) + 5)
    check(len(losses) > 2 and len(set(losses)) == len(losses) and sizes[-1] < B,
          "test data: several different batches of validation are needed, and a smaller one")
    mean = sum(loss * size for loss, size in zip(losses, sizes)) / windows
    check(close(column("all", "val_loss")[0], mean, 1e-7),
          "val_loss is not the mean over all windows")
    check(close(column("first", "val_loss")[0], sum(losses[:2]) / 2, 1e-7), "--eval-batches 2")
    check(column("more", "val_loss") == column("all", "val_loss"), "--eval-batches beyond the data")
    # By default over about 100,000 tokens, whatever the batch.
    windows = 100000 // T
    tokens = tokens * (100000 // len(tokens) + 2)
    write_shard(path("long.bin"), tokens)
    write_shard(path("bounded.bin"), tokens[:windows * T + 1])
    train("bounded", steps=0, val=path("bounded.bin"), eval_batches=0)
    for batch in (B, 7):
        out = f"default{batch}"
        train(out, steps=0, val=path("long.bin"), batch=batch)
        check(close(column(out, "val_loss")[0], column("bounded", "val_loss")[0], 1e-7),
              f"--batch {batch}: the default validation is not of 100,000 tokens")
    train("again", steps=2, eval_batches=1, eval_every=1, lr=0)
    check(len(set(column("again", "val_loss"))) == 1,
          "--eval-batches: another validation reads other batches")


def test_recompute():
    """Memory is bought with time, and nothing else: the same bits, from less memory."""
    activations = []
    for level in (0, 1, 2):
        _, err = train(f"recompute{level}", steps=4, recompute=level, layers=4)
        activations.append(float(re.search(r"activations ([\d.]+)", err).group(1)))
        same_file((f"recompute{level}", "model.gguf"), ("recompute0", "model.gguf"),
                  f"--recompute {level}")
    check(activations[2] < activations[1] < activations[0],
          f"--recompute: activations of {activations} MB")


def test_accumulation():
    """However a step's batch is cut, it is of the same windows: over the end of every shard and of
    every epoch, in shuffled order. Only the sums' order differs."""
    shared = dict(steps=9, total_batch=8 * T, lr=1e-3)
    train("big", batch=8, **shared)
    train("small", batch=2, **shared)
    a, b = log("big")[1:], log("small")[1:]
    tokens = [str(i * 8 * T) for i in range(1, 10)]
    check([r["tokens"] for r in a] == [r["tokens"] for r in b] == tokens, "--total-batch: tokens")
    batches = sum((n - 1) // (8 * T) for n in TRAIN_TOKENS)   # of an epoch
    check(batches < 9, "test data: the run must see more than one epoch")
    for i in range(9):
        for key in ("loss", "grad_norm"):
            check(close(float(a[i][key]), float(b[i][key]), 1e-4),
                  f"--total-batch: {key} of step {i + 1}: {b[i][key]} by accumulation, "
                  f"{a[i][key]} at once")
    check(column("small", "loss")[0] != column("small", "loss")[1],
          "--total-batch: every step reads the same")


def converted(source, target, type):
    """A copy of a model with its matrices in F16 or BF16."""
    file, out = gguf.read(path(*source)), []
    for t in file.tensors:
        if len(t.dims) < 2 or t.name == "position_embd.weight":
            out.append(t)
        elif type == "F16":
            values = floats(t)
            out.append((t.name, type, t.dims, struct.pack(f"<{len(values)}e", *values)))
        else:
            words = array.array("I", bytes(t.data))
            nearest = array.array("H", [(w + 0x7FFF + (w >> 16 & 1)) >> 16 for w in words])
            out.append((t.name, type, t.dims, nearest.tobytes()))
    gguf.write(path(target), file.keys, out)


def without_tokenizer(source, target):
    """A copy of a model, and its keys."""
    file = gguf.read(path(*source))
    keys = {k: v for k, v in file.keys.items() if not k.startswith("tokenizer.")}
    gguf.write(path(target), keys, file.tensors)
    return keys


def test_init():
    train("first_part", steps=5)
    last = log("first_part")[-1]["val_loss"]
    train("second_part", steps=2, init=path("first_part", "model.gguf"), tokenizer=None,
          layers=None, heads=None, channels=None, context=None)
    check(log("second_part")[0]["val_loss"] == last,
          "--init: the loss is not where the model left off")
    keys = gguf.read(path("first_part", "model.gguf")).keys
    check(gguf.read(path("second_part", "model.gguf")).keys == keys,
          "--init: the keys were not taken over")
    for type, tolerance in (("F16", 1e-3), ("BF16", 1e-2)):
        converted(("first_part", "model.gguf"), type + ".gguf", type)
        train(type, steps=0, init=path(type + ".gguf"), tokenizer=None)
        check(close(column(type, "val_loss")[0], float(last), tolerance),
              f"--init of {type}: {log(type)[0]} after {last}")
        f16, f32 = gguf.read(path(type + ".gguf")), gguf.read(path(type, "model.gguf"))
        for t in f16.tensors:   # each half is exactly one float
            if t.type == "F16":
                values = struct.unpack(f"<{len(t.data) // 2}e", t.data)
                check(list(values) == list(floats(f32.tensor(t.name))), f"--init of F16: {t.name}")
            if t.type == "BF16":
                words = array.array("I", [h << 16 for h in array.array("H", bytes(t.data))])
                check(words.tobytes() == bytes(f32.tensor(t.name).data),
                      f"--init of BF16: {t.name}")
    # A model without a tokenizer can be trained too; only sampling needs one.
    bare = without_tokenizer(("first_part", "model.gguf"), "bare.gguf")
    train("bare", steps=1, init=path("bare.gguf"), tokenizer=None)
    check(gguf.read(path("bare", "model.gguf")).keys == bare,
          "--init without a tokenizer: keys appeared")
    refused(["--sample-every", "--tokenizer"],
            command({**base("bare2"), "init": path("bare.gguf"), "tokenizer": None,
                     "sample_every": 1}))


def test_untied():
    train("tied", steps=3)
    train("untied", steps=3, untied=True)
    tied, untied = tensors("tied", "model.gguf"), tensors("untied", "model.gguf")
    check(untied.pop("output.weight", None) == untied["token_embd.weight"],
          "--untied: output.weight is no copy")
    check(tied == untied, "--untied changed other tensors")
    a, b = (execute([INFER, "logits", "-m", path(out, "model.gguf"), "--ids", "1,2,3"])
            for out in ("tied", "untied"))
    check(a == b, "--untied: other logits")
    train("from_untied", steps=1, init=path("untied", "model.gguf"), tokenizer=None)
    train("from_tied", steps=1, init=path("tied", "model.gguf"), tokenizer=None)
    same_file(("from_untied", "model.gguf"), ("from_tied", "model.gguf"),
              "--init of an untied copy")
    file = gguf.read(path("untied", "model.gguf"))
    changed = [t if t.name != "output.weight" else t._replace(data=bytes(len(t.data)))
               for t in file.tensors]
    gguf.write(path("two_heads.gguf"), file.keys, changed)
    refused(["two_heads.gguf", "output.weight"],
            command({**base("two_heads"), "init": path("two_heads.gguf"), "tokenizer": None}))


def test_epochs():
    train("epochs", steps=None, epochs=2)
    records, state = log("epochs"), gguf.read(path("epochs", newest("epochs"), "optimizer.gguf"))
    check(int(records[-1]["step"]) == 2 * BATCHES,
          f"--epochs 2: {records[-1]['step']} steps, expected {2 * BATCHES}")
    check((state.value("legible.epoch"), state.value("legible.position")) == (2, 0),
          "--epochs 2: where the data stand")
    train("epochs4", steps=None, epochs=1, batch=2, total_batch=4 * B * T)
    batches = sum((n - 1) // (4 * B * T) for n in TRAIN_TOKENS)
    check(int(log("epochs4")[-1]["step"]) == batches,
          "--epochs with accumulation: whole steps that fit")


def learning_rate(schedule, step, steps, warmup, lr, min_lr):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    part = {"constant": 1, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2,
            "wsd": min(1, (steps - step) / (steps / 5))}[schedule]
    return min_lr + part * (lr - min_lr)


def test_schedules():
    for schedule in ("cosine", "linear", "wsd", "constant"):
        for warmup in (0, 4):
            out = f"{schedule}{warmup}"
            train(out, steps=15, warmup=warmup, schedule=schedule, lr=3e-3, min_lr=1e-4, batch=1,
                  val=None)
            expected = [learning_rate(schedule, step, 15, warmup, 3e-3, 1e-4) for step in range(15)]
            found = column(out, "lr")
            check(len(found) == 15 and all(close(x, y, 1e-8) for x, y in zip(found, expected)),
                  f"--schedule {schedule} --warmup {warmup}: {found}, expected {expected}")
    # The log's lr is the one used: AdamW's first step moves every element by nearly lr.
    train("before", steps=0)
    for out, flags, lr in (("plain", {}, 0.01), ("rising", {"warmup": 4}, 0.0025),
                           ("still", {"lr": 0}, 0)):
        train(out, **{"steps": 1, "warmup": 0, "weight_decay": 0, "schedule": "constant", **flags})
        old, new = (gguf.read(path(name, "model.gguf")) for name in ("before", out))
        moved = [abs(a - b) for name in ("output_norm.bias", "blk.0.ffn_up.bias")
                 for a, b in zip(floats(old.tensor(name)), floats(new.tensor(name)))]
        check(all(abs(d - lr) <= 0.01 * lr for d in moved),
              f"--lr: {out}: moved {min(moved)} to {max(moved)}, expected {lr}")
    same_file(("before", "model.gguf"), ("still", "model.gguf"), "--lr 0")


def test_optimizer_flags():
    shared = dict(steps=1, warmup=0, schedule="constant", weight_decay=0)
    norms = {}
    for clip in (0, 1e9, 0.01, 1):
        train(f"clip{clip}", grad_clip=clip, **shared)
        state = gguf.read(path(f"clip{clip}", newest(f"clip{clip}"), "optimizer.gguf"))
        m = math.sqrt(sum(x * x for t in state.tensors if t.name.endswith(".m") for x in floats(t)))
        norms[clip] = m / 0.1, column(f"clip{clip}", "grad_norm")[0]   # m is (1 - beta1) * gradient
    norm = norms[0][1]
    check(norm > 1 and all(n[1] == norm for n in norms.values()),
          f"grad_norm is not the norm before clipping: {norms}")
    for clip, expected in ((0, norm), (1e9, norm), (0.01, 0.01), (1, 1)):
        check(close(norms[clip][0], expected, 1e-4),
              f"--grad-clip {clip}: norm {norms[clip][0]}, expected {expected}")
    same_file(("clip0", "model.gguf"), ("clip1000000000.0", "model.gguf"), "--grad-clip 0 is off")
    # One step from the same weights: decay takes lr * weight_decay * w, and from matrices only.
    train("undecayed", steps=0)
    train("decay", **{**shared, "weight_decay": 0.5, "grad_clip": 0})
    before, plain, decayed = (gguf.read(path(out, "model.gguf"))
                              for out in ("undecayed", "clip0", "decay"))
    for t in before.tensors:
        w, a, b = floats(t), floats(plain.tensor(t.name)), floats(decayed.tensor(t.name))
        rate = 0.01 * 0.5 if len(t.dims) == 2 else 0
        check(all(abs(x - y - rate * z) < 1e-7 for x, y, z in zip(a, b, w)),
              f"--weight-decay: {t.name}")
    for flag, value in (("beta1", 0.8), ("beta2", 0.9), ("eps", 1e-3)):
        out = flag + "_changed"
        train(out, **{**shared, "steps": 2, flag: value})
        train("two_steps_" + flag, **{**shared, "steps": 2})
        check(data(out, "model.gguf") != data("two_steps_" + flag, "model.gguf"),
              f"--{flag} changes nothing")


def test_profile():
    """Rows for what a step consists of; they add up to the step. Weights do not change."""
    words = command({**base("profiled"), "steps": 30, "profile": True})
    if "emu" in os.path.basename(TRAIN):   # a GPU's trainer has nsys and ncu
        refused(["--profile"], words)
        return
    _, err = execute(words)
    train("not_profiled", steps=30)
    same_file(("profiled", "model.gguf"), ("not_profiled", "model.gguf"), "--profile")
    rows = {m[0]: list(map(float, re.findall(r"[\d.]+", m[1]))) for m in
            re.findall(r"^([^\d\n]+(?:\d+(?: x \d+)?)?)  +(\d+ +[\d.]+ .*%)$", err, re.M)}
    rows = {name.strip(): row for name, row in rows.items()}
    V, N = 256 + MERGES + 1, B * T
    flops = {f"matmul forward {C} x {3 * C}": 2 * N * C * 3 * C * LAYERS,
             f"matmul dweight {4 * C} x {C}": 2 * N * C * 4 * C * LAYERS, "adamw": None,
             "attention backward": None, "layernorm backward": None, f"classifier {V}": None,
             "grad_norm": None, "encoder forward": None}
    check(set(flops) <= set(rows), f"--profile: no row for {set(flops) - set(rows)}")
    for name, count in flops.items():
        calls, ms, gflops = rows.get(name, (0, 1, 0))[:3]
        if count:
            check(calls == 30 * LAYERS, f"--profile: {name}: {calls} calls")
            check(abs(gflops * ms * 1e6 - count) < 0.1 * count + 1e5,
                  f"--profile: {name}: {gflops} GFLOP/s in {ms} ms, expected {count} FLOPs")
    total = sum(row[1] for name, row in rows.items() if name != "all layers")
    check(abs(total - rows["all layers"][1]) < 0.02 * total, "--profile: the rows' sum")


def test_dtype():
    """bfloat16 products: another run, by a little; its checkpoint is like any other."""
    words = command({**base("bf16"), "steps": 20, "dtype": "bf16", "save_every": 10})
    p = subprocess.run(words, capture_output=True, cwd=ROOT)
    if p.returncode:   # a processor, or a CUDA trainer, without them
        refused(["--dtype bf16"], words)
        return
    check(b"bfloat16" in p.stderr, "--dtype bf16: the plan does not say what computes")
    train("bf32", steps=20)
    a, b = column("bf16", "loss"), column("bf32", "loss")
    check(a != b and all(close(x, y, 1e-2) for x, y in zip(a, b)), f"--dtype bf16: {a} beside {b}")
    shapes = [[(t.name, t.type, t.dims) for t in gguf.read(path(out, "model.gguf")).tensors]
              for out in ("bf16", "bf32")]
    check(shapes[0] == shapes[1], "--dtype bf16: another file")
    resume("bf16", dtype="fp32", steps=25)
    train("bf16_threads", steps=20, dtype="bf16", threads=3)
    check(column("bf16_threads", "loss") == a, "--dtype bf16: threads change the bits")


def test_order():
    """Without learning, the losses tell which batch was read."""
    shared = dict(steps=2 * BATCHES, lr=0, warmup=0)
    train("sequential", order="sequential", **shared)
    train("shuffled", **shared)
    a, b = column("sequential", "loss"), column("shuffled", "loss")
    check(a[:BATCHES] == a[BATCHES:] and len(set(a)) == BATCHES,
          "--order sequential: the epochs differ")
    check(b[:BATCHES] != b[BATCHES:] and not set(a) & set(b),
          "the default order is not shuffled anew in each epoch")
    for i in (0, BATCHES):
        check(close(sum(b[i:i + BATCHES]), sum(a[:BATCHES]), 1e-6),
              "--order shuffled reads other windows")
    tokens = read_shard(path("train_000.bin"))   # the third batch, exactly
    write_shard(path("third.bin"), tokens[2 * B * T:3 * B * T + 1])
    train("third", steps=1, train=path("third.bin"), order="sequential", lr=0)
    check(column("third", "loss") == a[2:3], "--order sequential: the third batch")


def test_keep():
    for keep, expected in ((0, [1, 2, 3, 4, 5]), (3, [3, 4, 5]), (1, [5])):
        train(f"keep{keep}", steps=5, save_every=1, keep=keep, batch=1)
        check(checkpoints(f"keep{keep}") == expected,
              f"--keep {keep}: {checkpoints(f'keep{keep}')}")
        check(not leftovers(f"keep{keep}"), f"--keep {keep}: left {leftovers(f'keep{keep}')}")
    train("only_last", steps=5, batch=1)
    check(checkpoints("only_last") == [5], "--save-every 0 saves the last step alone")


def test_samples():
    out, _ = train("samples", steps=4, sample_every=2)
    found = re.findall(r"^--- sample after step (\d+)$", out.decode(errors="replace"), re.M)
    check(found == ["2", "4"], f"--sample-every 2: samples after {found}")
    train("no_samples", steps=4)
    same_file(("samples", "model.gguf"), ("no_samples", "model.gguf"),
              "sampling changed the weights")
    train("some_samples", steps=2, sample_every=2, schedule="constant")
    rest, _ = resume("some_samples", steps=4)
    whole, _ = train("all_samples", steps=4, sample_every=2, schedule="constant")
    check(whole.endswith(rest) and rest.startswith(b"--- sample after step 4"),
          "a resumed run draws other samples")


# ---- stopping and going on -----------------------------------------------------------------------

def leftovers(out):
    return [name for _, folders, files in os.walk(path(out)) for name in folders + files
            if ".tmp" in name]


def same_run(out, reference, what):
    """The end of a run that was disturbed, and of one that was not: the same bytes."""
    same_file((out, "model.gguf"), (reference, "model.gguf"), what)
    same_file((out, newest(out), "model.gguf"), (reference, newest(reference), "model.gguf"), what)
    same_file((out, newest(out), "optimizer.gguf"),
              (reference, newest(reference), "optimizer.gguf"), what)
    check(steady(out) == steady(reference), f"{what}: the logs differ")
    check(data(out, "loss.svg") == data(reference, "loss.svg"), f"{what}: the curves differ")
    check(not leftovers(out), f"{what}: left {leftovers(out)}")


def test_resume():
    flags = dict(steps=12, save_every=4, eval_every=3, keep=0)
    train("whole", **flags)
    lines = data("whole", "log.jsonl").split(b"\n")
    for step in (4, 8):   # as if the machine had failed later on
        out = f"resumed{step}"
        shutil.copytree(path("whole"), path(out))
        for later in range(step + 4, 13, 4):
            shutil.rmtree(path(out, f"step-{later:08d}"))
        shutil.copyfile(path("whole", f"step-{step:08d}", "model.gguf"), path(out, "model.gguf"))
        with open(path(out, "log.jsonl"), "wb") as f:
            f.write(b"\n".join(lines[:step + 3]) + b"\n" + lines[step + 3][:17])
        os.mkdir(path(out, f"step-{step + 4:08d}.tmp"))
        for name in (f"step-{step + 4:08d}.tmp/model.gguf.legible-77-0.tmp",
                     "model.gguf.legible-7-0.tmp", "log.jsonl.legible-123456-1.tmp",
                     "loss.svg.legible-1-0.tmp"):
            with open(path(out, name), "wb") as f:
                f.write(b"half")
        _, err = resume(out)
        check(f"step {step}\n" in err, f"resume does not say from where: {err}")
        same_run(out, "whole", f"resumed after step {step}")
    # OUT/model.gguf is replaced after the checkpoint has its name: a crash between leaves the old.
    with open(path("resumed8", "model.gguf"), "wb") as f:
        f.write(data("whole", "step-00000004", "model.gguf"))
    resume("resumed8")
    same_run("resumed8", "whole", "a finished run resumed")
    os.remove(path("resumed8", "log.jsonl"))
    resume("resumed8", steps=13)
    check([r["step"] for r in log("resumed8")] == ["13"],
          "without its log, a run goes on with a new one")


def test_longer():
    """--steps is the total, and may grow; with a constant rate the longer run is the same one."""
    train("longer", schedule="constant", steps=3, eval_every=1)
    resume("longer", steps=7)
    train("long", schedule="constant", steps=7, eval_every=1)
    same_run("longer", "long", "--steps 3, then 7")
    train("nothing", schedule="constant", steps=0, eval_every=1)
    check(checkpoints("nothing") == [0] and len(log("nothing")) == 1,
          "--steps 0 is the initial model, and its loss")
    resume("nothing", steps=7)
    same_run("nothing", "long", "--steps 0, then 7")
    train("accumulated", steps=5, batch=2, total_batch=4 * 2 * T, save_every=3)
    shutil.copytree(path("accumulated"), path("accumulated3"))
    shutil.rmtree(path("accumulated3", "step-00000005"))
    resume("accumulated3")
    same_run("accumulated3", "accumulated", "accumulation, resumed")


def interrupt(out, after, number, **flags):
    """Begins a run and signals it once record `after` is in the log: steps take long enough."""
    p = start(command({**base(out), **flags}))
    deadline = time.monotonic() + 60
    while p.poll() is None and time.monotonic() < deadline:
        if os.path.exists(path(out, "log.jsonl")) and data(out, "log.jsonl").count(b"\n") > after:
            p.send_signal(number)
            break
        time.sleep(0.002)
    err = p.communicate(timeout=60)[1].decode(errors="replace")
    check(p.returncode == 130, f"signal {number}: exit code {p.returncode}, expected 130: {err}")
    steps = checkpoints(out)
    check(steps and after <= steps[-1] < base(out)["steps"],
          f"signal {number}: checkpoints {steps}")
    check("--resume --out " + path(out) in err,
          f"signal {number}: does not say how to go on: {err}")
    check(int(log(out)[-1]["step"]) == steps[-1],
          f"signal {number}: the log is not at the checkpoint's step")
    same_file((out, "model.gguf"), (out, newest(out), "model.gguf"), f"signal {number}")


def test_signals():
    train("pace", steps=1)
    batches = max(1, min(80, int(25 / column("pace", "ms")[0])))   # so that a step takes some time
    flags = dict(total_batch=batches * B * T, eval_every=3)
    train("undisturbed", **flags)
    for out, after, number in (("sigint", 3, signal.SIGINT), ("sigterm", 1, signal.SIGTERM)):
        interrupt(out, after, number, **flags)
        resume(out)
        same_file((out, "model.gguf"), ("undisturbed", "model.gguf"), f"{out}, then resumed")
        same_file((out, newest(out), "optimizer.gguf"),
                  ("undisturbed", newest("undisturbed"), "optimizer.gguf"), out)
        check(steady(out) == steady("undisturbed"), f"{out}, then resumed: the logs differ")


def test_cannot_differ():
    train("fixed", steps=2, save_every=1)
    changed = {   # flag: another value, and the run's
        "train": (path("train_000.bin"), path("train_*.bin")),
        "val": (path("one_batch.bin"), path("val_*.bin")),
        "tokenizer": (path("other.gguf"), path("tokenizer.gguf")),
        "init": (path("bare.gguf"), "none"), "model": ("gpt2", "none"), "layers": ("3", LAYERS),
        "heads": ("4", 2), "channels": ("32", C), "context": ("64", T), "untied": (True, 0),
        "batch": ("2", B), "seq": ("16", 0), "total_batch": ("256", 0), "recompute": ("2", 0),
        "epochs": ("3", 0), "lr": ("0.02", 0.01), "min_lr": ("0.001", 0), "warmup": ("1", 2),
        "schedule": ("linear", "cosine"), "weight_decay": ("0", 0.1), "grad_clip": ("0", 1),
        "beta1": ("0.8", 0.9), "beta2": ("0.9", 0.95), "eps": ("1e-06", "1e-08"),
        "seed": ("8", 7), "order": ("sequential", "shuffled")}
    may = {"steps": 2, "threads": 2, "eval_every": 1, "eval_batches": 1, "sample_every": 1,
           "save_every": 5, "save_minutes": 1, "keep": 9, "dtype": "fp32"}
    for name, (now, then) in changed.items():
        value = "1" if now is True else now
        refused([f"--{name.replace('_', '-')} {value}: ", f"begun with {then},"],
                command({"resume": True, "out": path("fixed"), name: now}))
    named = {n.replace("-", "_") for n in help_flags()} - START
    check(named == set(changed) | set(may),
          f"flags that neither differ nor not: {named ^ (set(changed) | set(may))}")
    before = data("fixed", "model.gguf")
    resume("fixed", **may)
    resume("fixed", lr="1e-2", seed="07", batch=B)   # the same values, given again
    check(data("fixed", "model.gguf") == before, "flags that may differ changed the weights")
    resume("fixed", **{**may, "steps": 4})
    check(len(log("fixed")) == 5 and "val_loss" in log("fixed")[3],
          "--eval-every must be the new one")
    _, err = execute(command({"resume": True, "out": path("fixed"), "steps": 3}))
    check(int(log("fixed")[-1]["step"]) == 4, "--steps below what is done: nothing is left to do")


def test_kill():
    """SIGKILL at random moments while it saves, 20 times: the newest checkpoint always loads, and
    the run ends as if nothing had been. A run that ends before it is killed is compared, and begun
    again."""
    rng, steps = random.Random(11), 50
    flags = dict(steps=steps, save_every=1, eval_every=10, batch=1, val=path("one_batch.bin"))
    again = {**base("killed"), **flags, "resume": True}   # one line, for the first time and others
    begin = time.monotonic()
    train("to_start", **{**flags, "steps": 0})
    middle = time.monotonic()
    train("alive", **flags)
    starting = middle - begin
    period = max(0.001, (time.monotonic() - middle - starting) / steps)
    kills = half = none = 0
    while kills < 20 or (half < 3 and kills < 60):
        p = start(command(again))
        known = names("killed")
        if kills % 4 == 3:   # anywhere, the start included
            time.sleep(rng.random() * (starting + 2 * period))
        else:                # while it saves: from when a new checkpoint begins to show
            new = set()
            while p.poll() is None and not any(name.startswith("step-") for name in new):
                time.sleep(0.0003)
                new = names("killed") - known
            time.sleep(rng.random() * period)
        p.kill()
        err = p.communicate()[1].decode(errors="replace")
        if p.returncode == 0:
            same_run("killed", "alive", f"killed {kills} times")
            shutil.rmtree(path("killed"))
            continue
        if not check(p.returncode == -signal.SIGKILL,
                     f"kill {kills}: the run had ended: {err[-300:]}"):
            return
        kills += 1
        half += bool(leftovers("killed"))
        none += not loadable("killed", kills)
    check(half > 0, "SIGKILL: no kill met a file that was being written")
    execute(command(again))
    same_run("killed", "alive", f"killed {kills} times")
    print(f"killed {kills} times: {half} left something half written, "
          f"{none} came before the first checkpoint")


def names(out):
    return set(os.listdir(path(out))) if os.path.exists(path(out)) else set()


def loadable(out, kill):
    """The newest checkpoint loads; False when there is none."""
    steps = checkpoints(out) if os.path.exists(path(out)) else []
    if not steps:
        return False
    for folder in [f"step-{step:08d}" for step in steps]:
        state = gguf.read(path(out, folder, "optimizer.gguf"))
        check(state.value("legible.step") == int(folder[5:]),
              f"kill {kill}: {folder} is of another step")
    for parts in ((newest(out), "model.gguf"), ("model.gguf",)):
        if os.path.exists(path(out, *parts)):
            text, _ = execute([INFER, "logits", "-m", path(out, *parts), "--ids", "1,2"])
            check(all(map(math.isfinite, map(float, text.split()))),
                  f"kill {kill}: {parts}: logits")
    return True


# ---- errors --------------------------------------------------------------------------------------

def test_not_finite():
    """Absurd decay blows the weights up; a NaN or a loss beyond float is lost from the start."""
    flags = dict(lr=1000, weight_decay=446, warmup=0, grad_clip=1, schedule="constant", steps=40,
                 save_every=1, keep=0, total_batch=2 * B * T)
    for out, extra, where in (("blown", {"val": None}, ["micro-batch ", " of 2"]),
                              ("blown_val", {"eval_every": 1}, [])):
        sentence = refused(["step ", "checkpoint", path(out, "step-")] + where,
                           command({**base(out), **flags, **extra}))
        steps, said = checkpoints(out), re.search(r"step (\d+).*step-(\d{8})", sentence)
        # A checkpoint whose next loss is NaN is complete, but not good; validation comes before it.
        good = steps[-1] if "eval_every" in extra else steps[-2]
        check(said and int(said.group(2)) == good,
              f"{out}: {sentence!r} with checkpoints {steps}, expected {good}")
        again = {**base(f"{out}_again"), **flags, **extra, "tokenizer": None, "steps": 1, "lr": 0}
        execute(command({**again, "init": path(out, f"step-{good:08d}", "model.gguf")}))
        for t in gguf.read(path(out, newest(out), "model.gguf")).tensors:
            check(all(map(math.isfinite, floats(t))),
                  f"{out}: the last good checkpoint has a bad {t.name}")
        check(all(math.isfinite(float(v)) for r in log(out) for v in r.values()),
              f"{out}: the log is not JSON")
        check(not leftovers(out), f"{out}: left {leftovers(out)}")
        execute([INFER, "show", path(out, newest(out), "model.gguf")])
    # With --keep 1 too, the one to fall back on is there, and is the one that is named.
    sentence = refused(["step "], command({**base("keep_good"), **flags, "val": None, "keep": 1}))
    steps = checkpoints("keep_good")
    good = path("keep_good", f"step-{steps[0]:08d}")
    check(len(steps) == 2 and f"checkpoint: {good} " in sentence,
          f"--keep 1: {sentence!r} with checkpoints {steps}")
    train("finite", steps=1)
    file = gguf.read(path("finite", "model.gguf"))
    bad = [t if t.name != "blk.1.ffn_up.bias"
           else t._replace(data=struct.pack("<f", math.nan) + bytes(t.data)[4:])
           for t in file.tensors]
    gguf.write(path("nan.gguf"), file.keys, bad)
    # All weights are finite, but a difference of two logits is more than a float holds.
    def steep(name, values):
        if name == "token_embd.weight":
            rows = range(len(values) // C)
            values[::C] = array.array("f", [3e18 if i % 2 else -3e18 for i in rows])
        if name == "output_norm.bias":
            values[0] = 1e20

    # The loss too is finite, but not its gradient: ffn_up's inputs are large, its weights small.
    def cliff(name, values):
        scale = {"blk.0.ffn_norm.weight": 1e37, "blk.0.ffn_up.weight": 1e-37,
                 "output_norm.weight": 1e6}.get(name, 1)
        values[:] = array.array("f", [scale * x for x in values])

    for name, change in (("inf.gguf", steep), ("cliff.gguf", cliff)):
        changed = []
        for t in file.tensors:
            values = floats(t)
            change(t.name, values)
            changed.append(t._replace(data=values.tobytes()))
        gguf.write(path(name), file.keys, changed)
    refused(["step 1:", "gradient", "inf", "checkpoint: none"],
            command({**base("cliff"), "init": path("cliff.gguf"), "tokenizer": None}))
    check(not checkpoints("cliff"), "cliff: a checkpoint of nothing good")
    refused(["nan.gguf", "blk.1.ffn_up.bias", "element 0"],
            command({**base("nan"), "init": path("nan.gguf"), "tokenizer": None}))
    for name in ("inf",):
        for out, val, words in ((name, None, ["step 1:", "micro-batch 1 of 1"]),
                                (name + "_val", path("val_*.bin"),
                                 ["step 0:", "validation", "batch 0 of --val"])):
            refused(["loss is", name, "checkpoint: none"] + words,
                    command({**base(out), "init": path(name + ".gguf"), "tokenizer": None,
                             "val": val}))
            check(not checkpoints(out) and not os.path.exists(path(out, "model.gguf")),
                  f"{out}: saved nothing good")
            check(all(math.isfinite(float(v)) for r in log(out) for v in r.values()),
                  f"{out}: the log is not JSON")


def test_flag_errors():
    for words, more in (
            (["--ste"], ["--ste", "3"]), (["train"], ["train"]), (["--lr"], ["--lr"]),
            (["--eps", "value"], ["--eps"]), (["--step", "did you mean --steps?"], ["--step=3"]),
            (["--eps: 2 is out of range, expected 0 to 1"], ["--eps=2"]),
            (["--help"], ["--help=1"]), (["--resume"], ["--resume=yes"]),
            (["--keep"], ["--keep"]), (["-x"], ["-x"]), (["--"], ["--"]),
            (["--keep: given twice"], ["--keep", "1", "--keep=2"])):
        refused(words, command(base("x")) + more)
    for name, values in {
            "steps": ("ten", "1.5", "", "1e3", "-1", "99999999999999999999", " "),
            "lr": ("x", "nan", "inf", "1e999", "-0.1", "-1e-9", "1x", ""), "min_lr": ("-1",),
            "batch": ("0", "-4", "1e9"), "layers": ("0", "-1"), "heads": ("0",),
            "channels": ("0",), "context": ("0",), "beta1": ("1", "-0.1", "1.5"), "beta2": ("1",),
            "eps": ("-1",), "weight_decay": ("-0.1",), "grad_clip": ("-1",), "seed": ("-1",),
            "threads": ("-1", "two"), "warmup": ("-1",), "keep": ("-1",),
            "schedule": ("cosinus", "cos", "cosine|linear", "|", ""), "order": ("random", ""),
            "model": ("gpt3",), "epochs": ("-1",), "eval_every": ("-1",), "save_every": ("-1",),
            "total_batch": ("-128", str(B * T << 40))}.items():
        for value in values:
            refused(["--" + name.replace("_", "-")], command({**base("x"), name: value}))
    for words, flags in (
            (["--channels 32", "--heads 3"], {"channels": 32, "heads": 3}),
            (["--seq 33", "32"], {"seq": 33}),
            (["--total-batch 100", "4 x 32"], {"total_batch": 100}),
            (["--total-batch 64"], {"total_batch": 64}), (["--min-lr", "--lr"], {"min_lr": 0.1}),
            (["--train"], {"train": None}), (["--steps"], {"steps": None}),
            (["--tokenizer"], {"tokenizer": None}), (["--epochs", "--steps"], {"epochs": 2}),
            (["--layers", "--model gpt2"], {"model": "gpt2"})):
        refused(words, command({**base("x"), **flags}))
    check(not os.path.exists(path("x")), "a run with wrong flags left a folder")


def test_file_errors():
    tokens = read_shard(path("train_000.bin"))
    write_shard(path("magic.bin"), tokens, magic=1)
    write_shard(path("version.bin"), tokens, version=2)
    write_shard(path("tiny.bin"), tokens[:T])   # not one window
    write_shard(path("foreign.bin"), tokens[:200] + [256 + MERGES + 1] + tokens[201:])
    write_shard(path("end.bin"), tokens[:B * T] + [65535])   # the last target only
    with open(path("cut.bin"), "wb") as f:
        f.write(data("train_000.bin")[:-5])
    with open(path("empty.bin"), "wb") as f:
        f.write(b"")
    for name in ("magic.bin", "version.bin", "tiny.bin", "cut.bin", "empty.bin", "none_*.bin",
                 "foreign.bin", "end.bin"):
        refused([name], command({**base("bad_" + name[:4]), "train": path(name)}))
        refused([name], command({**base("val_" + name[:4]), "val": path(name)}))
    small = bpe.from_merges(learn_merges()[:1])
    gguf.write(path("small.gguf"),
               {"general.architecture": ("string", "gpt2"), **bpe.to_keys(small)})
    gguf.write(path("no_tokens.gguf"), {"general.architecture": ("string", "gpt2")})
    train("fine", steps=1)
    init = {**base("x"), "init": path("fine", "model.gguf"), "tokenizer": None}
    refused(["small.gguf", "fine/model.gguf"],
            command({**init, "tokenizer": path("small.gguf")}))
    without_tokenizer(("fine", "model.gguf"), "no_own.gguf")
    refused(["small.gguf", "258", "260"],
            command({**init, "init": path("no_own.gguf"), "tokenizer": path("small.gguf")}))
    refused(["no_tokens.gguf", "--tokenizer"],
            command({**base("x"), "tokenizer": path("no_tokens.gguf")}))
    refused(["missing.gguf"], command({**base("x"), "tokenizer": path("missing.gguf")}))
    refused(["missing.gguf"], command({**init, "init": path("missing.gguf")}))
    refused(["tokenizer.gguf", "gpt2."], command({**init, "init": path("tokenizer.gguf")}))
    refused(["train_000.bin", "GGUF"], command({**init, "init": path("train_000.bin")}))
    refused(["--layers 3", "2"], command({**init, "layers": 3}))
    refused(["--context 64", "32"], command({**init, "context": 64}))
    file = gguf.read(path("fine", "model.gguf"))
    gguf.write(path("lacks.gguf"), file.keys,
               [t for t in file.tensors if t.name != "blk.1.ffn_up.bias"])
    refused(["lacks.gguf", "blk.1.ffn_up.bias"], command({**init, "init": path("lacks.gguf")}))
    # Places where nothing can be written.
    with open(path("file"), "w") as f:
        f.write("x")
    refused(["--out", path("file")], command({**base("x"), "out": path("file")}))
    refused(["--out", path("file", "sub")], command({**base("x"), "out": path("file", "sub")}))
    refused(["--out"], command({**base("x"), "out": path("n" * 300)}))
    refused(["--out"], command({**base("x"), "out": ""}))
    refused(["--out", path("fine"), "--resume"], command(base("fine")))


def test_resume_errors():
    refused(["--resume", path("nowhere")], command({"resume": True, "out": path("nowhere")}))
    check(not os.path.exists(path("nowhere")), "--resume made a folder")
    train("damaged", steps=4, save_every=2)
    os.mkdir(path("unsaved"))   # killed before its first checkpoint
    shutil.copyfile(path("damaged", "log.jsonl"), path("unsaved", "log.jsonl"))
    refused(["--resume", path("unsaved"), "no checkpoint"],
            command({"resume": True, "out": path("unsaved")}))
    check(checkpoints("damaged") == [2, 4], "checkpoints to damage")
    folder = path("damaged", "step-00000004")
    whole = {name: data("damaged", "step-00000004", name)
             for name in ("model.gguf", "optimizer.gguf")}

    def damaged(words, name, content):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
        refused(words, command({"resume": True, "out": path("damaged")}))
        with open(os.path.join(folder, name), "wb") as f:
            f.write(whole[name])

    for name, content in whole.items():
        where = os.path.join(folder, name)
        damaged([where], name, content[:len(content) // 2])
        damaged([where], name, content[:-100])
        damaged([where], name, b"")
        damaged([where], name, b"GGML" + content[4:])
        os.remove(where)
        refused([where], command({"resume": True, "out": path("damaged")}))
        with open(where, "wb") as f:
            f.write(content)
    state = gguf.read(os.path.join(folder, "optimizer.gguf"))

    def changed(words, key=None, value=None, tensor=None):
        keys = {k: v for k, v in state.keys.items() if k != key}
        if value is not None:
            keys[key] = value
        gguf.write(path("changed.gguf"), keys, [t for t in state.tensors if t.name != tensor])
        damaged(words, "optimizer.gguf", data("changed.gguf"))

    changed(["legible.step"], "legible.step")
    changed(["legible.rng"], "legible.rng")
    changed(["legible.position", "999"], "legible.position", ("u64", 999))
    for key, values in (("loss_scale", (0, 3, 1 << 25, 1 << 63)), ("loss_scale_steps", (2000,))):
        changed(["legible." + key], "legible." + key)
        for value in values:
            changed(["legible." + key, str(value)], "legible." + key, ("u64", value))
    changed(["legible.lr", "fast"], "legible.lr", ("string", "fast"))
    changed(["legible.heads"], "legible.heads", ("string", "-2"))
    changed(["blk.0.attn_qkv.weight.v"], tensor="blk.0.attn_qkv.weight.v")
    resume("damaged", steps=5)
    check(int(log("damaged")[-1]["step"]) == 5, "the checkpoint, mended, goes on")
    train("shrunk", steps=BATCHES - 1)
    os.rename(path("train_002.bin"), path("hidden.bin"))   # data that changed under a run
    refused(["train_002.bin", "data"],
            command({"resume": True, "out": path("shrunk"), "steps": BATCHES}))
    os.rename(path("hidden.bin"), path("train_002.bin"))


def main():
    global work
    with tempfile.TemporaryDirectory(prefix="test_trainer.") as work:
        work = os.path.realpath(work)
        make_data()
        return run_tests([test_files, test_bits, test_losses, test_recompute, test_accumulation,
                          test_init, test_untied, test_epochs, test_schedules,
                          test_optimizer_flags, test_profile, test_dtype, test_order, test_keep,
                          test_samples, test_resume, test_longer, test_signals,
                          test_cannot_differ, test_kill, test_not_finite, test_flag_errors,
                          test_file_errors, test_resume_errors])


if __name__ == "__main__":
    sys.exit(main())
