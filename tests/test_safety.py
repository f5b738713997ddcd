#!/usr/bin/env python3
"""test_safety.py - what a training run must never lose, replace or mistake, seen from outside.

Runs the program that TRAIN names, as test_trainer.py does, on the same tiny models and data, and
borrows its helpers.
"""
import hashlib
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import test_trainer as t
from check import check, run_tests
from test_trainer import (B, T, base, bpe, checkpoints, command, data, execute, floats, gguf,
                          make_data, newest, path, read_shard, refused, resume, same_run, start,
                          train, write_shard)

LONG = 1_000_000   # steps: a run that lasts until it is stopped


def write(name, content):
    with open(name, "wb") as f:
        f.write(content)


def wait_for(what, true):
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            return check(False, f"waited in vain for {what}")
        time.sleep(0.005)
    return True


def running(out, records=3, before=(), **flags):
    """A run that is under way, with so many records in its log."""
    p = start([*before, *command({**base(out), "steps": LONG, "eval_every": 0, **flags})])
    wait_for(f"{out}: {records} records", lambda: p.poll() is not None or
             os.path.exists(path(out, "log.jsonl"))
             and data(out, "log.jsonl").count(b"\n") >= records)
    return p


def stop(p, number=signal.SIGTERM, code=130):
    p.send_signal(number)
    err = p.communicate(timeout=60)[1].decode(errors="replace")
    check(p.returncode == code,
          f"signal {number}: exit code {p.returncode}, expected {code}: {err}")
    return err


# ---- nothing is lost -----------------------------------------------------------------------------

def test_saved_by_time():
    """Without --save-every, checkpoints come as time goes by, so that a kill -9 loses minutes."""
    p = running("timed", save_minutes=1e-4, keep=0)
    wait_for("checkpoints", lambda: len(checkpoints("timed")) >= 3)
    p.kill()
    p.communicate()
    last = checkpoints("timed")[-1]
    _, err = resume("timed", steps=last + 2)
    check(f"resumed after step {last}\n" in err, f"killed, then resumed: {err}")
    train("by_steps", steps=9, save_every=4, save_minutes=1e-9, keep=0)
    check(checkpoints("by_steps") == [4, 8, 9], f"--save-every 4: {checkpoints('by_steps')}")
    train("never", steps=9, save_minutes=0)
    check(checkpoints("never") == [9], "--save-minutes 0 saves the last step alone")
    out, _ = execute([t.TRAIN, "--help"])
    check(re.search(r"--save-minutes X .*\[5\]", out.decode()),
          "--save-minutes is not 5 by default")


def test_signals_in_a_step():
    """A step may take hours: a signal drops what there is of it. nohup's SIGHUP is ignored."""
    flags = dict(total_batch=200_000 * B * T, val=None, schedule="constant", warmup=0)
    p = running("hung_up", records=1, **flags)
    begin = time.monotonic()
    err = stop(p, signal.SIGHUP)
    check(time.monotonic() - begin < 20, "SIGHUP waited for the end of a long step")
    check(checkpoints("hung_up") == [0] and "--resume --out" in err, f"SIGHUP: {err}")
    p = running("nohup", before=["nohup"])
    p.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    check(p.poll() is None, "nohup: SIGHUP ended the run")
    stop(p)


def test_signals_in_a_validation():
    """It may take long as well: it is left, and made up for when the run goes on."""
    times = 40 if "emu" in os.path.basename(t.TRAIN) else 600   # of a second or two
    write_shard(path("long_val.bin"), read_shard(path("val_000.bin")) * times)
    flags = dict(val=path("long_val.bin"), eval_batches=0, eval_every=2, steps=4)
    train("validated", **flags)
    for after in (0, 1):   # in record 0's, and in that of step 2
        out = f"unvalidated{after}"
        p = start(command({**base(out), **flags}))
        wait_for("the log", lambda: os.path.exists(path(out, "log.jsonl"))
                 and data(out, "log.jsonl").count(b"\n") >= 2 * after)
        time.sleep(0.05)
        stop(p)
        check("val_loss" not in t.log(out)[-1], "SIGTERM waited for the end of a long validation")
        resume(out)
        same_run(out, "validated", f"stopped in a validation, record {after}")


def test_begun_again():
    """The same command, whether the run was never begun, ended before its first checkpoint, or has
    checkpoints. What is in the way is kept."""
    again = {**base("again"), "resume": True}
    p = running("again", resume=True)
    p.kill()
    p.communicate()
    check(not checkpoints("again"), "test data: killed before the first checkpoint")
    old = data("again", "log.jsonl")
    _, err = execute(command(again))
    check("log.1.jsonl" in err and data("again", "log.1.jsonl") == old,
          f"a log without a checkpoint was not kept: {err}")
    train("at_once")
    same_run("again", "at_once", "begun again")
    _, err = execute(command(again))
    check("resumed after step 8" in err, f"--resume on a finished run: {err}")
    os.mkdir(path("unsaved"))
    write(path("unsaved", "log.jsonl"), b'{"step":0,"tokens":0}\n')
    write(path("unsaved", "log.1.jsonl"), b"older\n")
    train("unsaved")   # without --resume too
    check(data("unsaved", "log.1.jsonl") == b"older\n"
          and data("unsaved", "log.2.jsonl") == b'{"step":0,"tokens":0}\n', "older logs are kept")
    refused(["--resume", path("none"), "--train"], command({"resume": True, "out": path("none")}))


def test_lock():
    p = running("locked")
    lines = data("locked", "log.jsonl").count(b"\n")
    for flags in (base("locked"), {**base("locked"), "resume": True},
                  {"resume": True, "out": path("locked")}):
        refused(["--out", path("locked"), f"process {p.pid} on "], command(flags))
    check(data("locked", "log.jsonl").count(b"\n") >= lines, "a second trainer cut the log")
    stop(p)
    resume("locked", steps=checkpoints("locked")[-1] + 1)
    # Whoever comes first has it, also where the folder is not there yet.
    both = [start(command(base("raced"))) for _ in range(4)]
    errors = [q.communicate()[1].decode() for q in both]
    codes = sorted(q.returncode for q in both)
    check(codes[0] == 0 and set(codes) <= {0, 1}, f"four starts at once: {codes} {errors}")
    check(codes.count(0) == 1, f"four starts at once: {codes.count(0)} of them trained")
    train("alone")
    same_run("raced", "alone", "one of four starts")


def test_not_ours():
    """Names are no proof: what a run did not make, it does not remove or replace."""
    os.mkdir(path("my"))
    train("another")
    shutil.copyfile(path("another", "model.gguf"), path("my", "model.gguf"))
    before = data("my", "model.gguf")
    for init in (path("my", "model.gguf"), None):
        refused([path("my"), "model.gguf", "another folder"],
                command({**base("my"), "init": init, "tokenizer": None if init else
                         path("tokenizer.gguf")}))
    check(data("my", "model.gguf") == before, "--init and --out in one folder: the model is gone")

    train("notes", steps=3, save_every=1, keep=0)
    os.mkdir(path("notes", "step-by-step.tmp"))
    os.mkdir(path("notes", "step-00000001x"))
    kept = ["step-by-step.tmp/a", "step-00000001x/b", "step-00000002/notes.txt", "model.gguf.tmp",
            "log.jsonl.tmp", "step-.tmp", "model.gguf.old-1.tmp", "model.gguf.2024-11.tmp"]
    for name in kept:
        write(path("notes", name), b"mine")
    resume("notes", steps=8, save_every=1, keep=1)
    check(checkpoints("notes") == [2, 8], f"--keep 1 beside notes: {checkpoints('notes')}")
    for name in kept:
        check(os.path.exists(path("notes", name)) and data("notes", name) == b"mine",
              f"{name}, which is the user's, is gone")
    for name in ("step-00000099", "step-00000007"):
        write(path("notes", name), b"mine")
        refused([path("notes", name), "checkpoint"],
                command({"resume": True, "out": path("notes")}))
        check(data("notes", name) == b"mine", f"a file {name} is gone")
        os.remove(path("notes", name))
    os.mkdir(path("notes", "step-00000099"))
    write(path("notes", "step-00000099", "model.gguf"), b"mine")
    refused([path("notes", "step-00000099"), "checkpoint"],
            command({"resume": True, "out": path("notes")}))
    shutil.rmtree(path("notes", "step-00000099"))
    os.mkdir(path("linked"))
    os.symlink(path("nowhere.gguf"), path("linked", "model.gguf"))
    refused([path("linked"), "model.gguf"], command(base("linked")))
    os.mkdir(path("notes", "step-00000009.tmp"))
    write(path("notes", "step-00000009.tmp", "mine"), b"mine")
    refused([path("notes", "step-00000009.tmp")],
            command({"resume": True, "out": path("notes"), "steps": 9}))
    check(data("notes", "step-00000009.tmp", "mine") == b"mine", "a file in step-9.tmp is gone")

    # What optimizer.gguf says of --out is not obeyed.
    train("moved", steps=2)
    file = path("moved", newest("moved"), "optimizer.gguf")
    state = gguf.read(file)
    gguf.write(file, {**state.keys, "legible.out": ("string", path("elsewhere")),
                      "legible.help": ("string", "1")}, state.tensors)
    resume("moved", steps=3)
    check(checkpoints("moved")[-1] == 3 and not os.path.exists(path("elsewhere")),
          "legible.out in optimizer.gguf moved the run")


def test_log_that_is_none():
    train("folder_log", steps=2)
    os.remove(path("folder_log", "log.jsonl"))
    os.mkdir(path("folder_log", "log.jsonl"))
    refused([path("folder_log", "log.jsonl"), "a folder"],
            command({"resume": True, "out": path("folder_log")}))
    # Losses that no picture can hold to scale, and equal ones too large for their differences.
    for name, losses in (("equal", ["1e17"] * 3), ("steep", ["1e30", "3e38", "2"]),
                         ("tiny", ["0", "0", "0"])):
        train(name, steps=3, val=None)
        with open(path(name, "log.jsonl"), "w") as f:
            for step, loss in enumerate(losses, 1):
                f.write(json.dumps({"step": step, "tokens": 1, "loss": 0}).replace(
                    '"loss": 0', f'"loss":{loss}').replace(" ", "") + "\n")
        resume(name)
        svg = data(name, "loss.svg")
        root = xml.etree.ElementTree.fromstring(svg)
        check(len(svg) < 10_000 and b"nan" not in svg and b"inf" not in svg,
              f"{name} losses: loss.svg has {len(svg)} bytes")
        box = [float(n) for n in root.get("viewBox").split()]
        ys = [float(e.get("y")) for e in root.iter() if e.get("text-anchor") == "end"]
        check(2 <= len(ys) <= 15 and all(0 <= y <= box[3] for y in ys),
              f"{name} losses: {len(ys)} ticks")


# ---- the same run --------------------------------------------------------------------------------

def marked(source, target, sha256):
    """A copy of a shard that names its tokenizer."""
    raw = bytearray(data(source))
    raw[12:44] = bytes.fromhex(sha256)
    write(path(target), raw)


def fingerprint(tokenizer):
    keys = dict(bpe.to_keys(tokenizer))
    raw = b"".join(len(s.encode()).to_bytes(8, "little") + s.encode()
                   for name in ("tokens", "merges") for s in keys["tokenizer.ggml." + name][1])
    return hashlib.sha256(raw).hexdigest()


def test_fingerprints():
    """Shards and tokenizer belong together, at the start and ever after."""
    mine = bpe.from_merges(t.learn_merges())
    other = bpe.from_merges([(ord("a"), ord("n")), (256, ord("d")), (ord("o"), ord("n"))])
    shas = fingerprint(mine), fingerprint(other)
    gguf.write(path("other_tokenizer.gguf"),
               {"general.architecture": ("string", "gpt2"), **bpe.to_keys(other)})
    for split in ("train", "val"):
        for i, sha in enumerate(shas):
            marked(f"{split}_000.bin", f"of_{i}_{split}.bin", sha)
    own = {"train": path("of_0_train.bin"), "val": path("of_0_val.bin")}
    train("own", **own)
    short = [sha[:16] for sha in shas]
    refused(["of_1_train.bin", short[1], "tokenizer.gguf", short[0]],
            command({**base("x"), **own, "train": path("of_1_train.bin")}))
    refused(["of_1_val.bin", short[1], "tokenizer.gguf", short[0]],
            command({**base("x"), **own, "val": path("of_1_val.bin")}))
    refused(["of_0_train.bin", "other_tokenizer.gguf"],
            command({**base("x"), **own, "tokenizer": path("other_tokenizer.gguf")}))
    # A model without a tokenizer: the shards have to agree among themselves.
    file = gguf.read(path("own", "model.gguf"))
    bare = {k: v for k, v in file.keys.items() if not k.startswith("tokenizer.")}
    gguf.write(path("no_tokenizer.gguf"), bare, file.tensors)
    bare = {**base("x"), "init": path("no_tokenizer.gguf"), "tokenizer": None}
    refused(["of_1_val.bin", "of_0_train.bin"],
            command({**bare, **own, "val": path("of_1_val.bin")}))
    # Weights know the tokens that they were trained with, and no others of the same number.
    refused(["other_tokenizer.gguf", "model.gguf"],
            command({**base("x"), "init": path("own", "model.gguf"),
                     "tokenizer": path("other_tokenizer.gguf")}))
    # A tokenizer whose own word for itself is wrong.
    keys = {**bpe.to_keys(mine), "tokenizer.legible.sha256": ("string", shas[1])}
    gguf.write(path("liar.gguf"), {"general.architecture": ("string", "gpt2"), **keys})
    refused(["liar.gguf", "tokenizer.legible.sha256", shas[0]],
            command({**base("x"), "tokenizer": path("liar.gguf")}))
    # optimizer.gguf lists what the run was made from.
    listed = gguf.read(path("own", newest("own"), "optimizer.gguf")).value("legible.sha256")
    expected = [f"tokenizer {shas[0]}"] + [
        f"--{split} of_0_{split}.bin {hashlib.sha256(data(f'of_0_{split}.bin')).hexdigest()}"
        for split in ("train", "val")]
    check(listed == expected, f"legible.sha256: {listed}, expected {expected}")
    for split in ("train", "val"):
        name = f"of_0_{split}.bin"
        raw = data(name)
        write(path(name), raw[:-2] + bytes(2))   # another last token
        sums = [hashlib.sha256(content).hexdigest() for content in (raw, data(name))]
        refused([name, *sums], command({"resume": True, "out": path("own"), "steps": 9}))
        write(path(name), raw)
    folder = path("own", newest("own"))
    model = data("own", newest("own"), "model.gguf")
    swapped = {**{k: v for k, v in file.keys.items() if not k.startswith("tokenizer.")},
               **bpe.to_keys(other)}
    gguf.write(os.path.join(folder, "model.gguf"), swapped, file.tensors)
    refused([folder, "of_0_train.bin"], command({"resume": True, "out": path("own"), "steps": 9}))
    write(os.path.join(folder, "model.gguf"), model)
    resume("own", steps=9)


def test_half_moved_data():
    """prepare.py was killed while it moved new files into a folder: neither start nor resume."""
    train("before_move", steps=2)
    os.mkdir(path(".prepare.tmp"))
    train("while_building", steps=2)
    write(path(".prepare.tmp", "manifest.json"), b"{}")
    for flags in (base("x"), {"resume": True, "out": path("before_move")}):
        refused(["train_000.bin", "prepare.py"], command(flags))
    shutil.rmtree(path(".prepare.tmp"))


def test_tokenizer_in_use():
    """The tokenizer's file may change while the run goes on. One that no shard fits is refused."""
    shutil.copyfile(path("tokenizer.gguf"), path("used.gguf"))
    p = running("used", tokenizer=path("used.gguf"))
    write(path("used.gguf"), os.urandom(os.path.getsize(path("used.gguf"))))   # in place
    stop(p)
    check(gguf.read(path("used", "model.gguf")).value("tokenizer.ggml.tokens")
          == gguf.read(path("tokenizer.gguf")).value("tokenizer.ggml.tokens"),
          "a tokenizer overwritten during the run went into the model")
    resume("used", steps=checkpoints("used")[-1] + 1)
    keys = bpe.to_keys(bpe.from_merges(t.learn_merges()))
    tokens = keys["tokenizer.ggml.tokens"][1]
    tokens += [f"word{i}" for i in range(65537 - len(tokens))]
    keys["tokenizer.ggml.token_type"] = ("i32s", [1] * len(tokens))
    keys.pop("tokenizer.legible.sha256", None)
    gguf.write(path("many.gguf"), {"general.architecture": ("string", "gpt2"), **keys})
    refused(["many.gguf", "65537", "65536"], command({**base("x"), "tokenizer": path("many.gguf")}))


def test_optimizer_fields():
    """What follows from the step is compared with it; the rest has to be possible."""
    train("fields", steps=4, save_every=2)
    folder = path("fields", "step-00000004")
    file = os.path.join(folder, "optimizer.gguf")
    state, whole = gguf.read(file), data("fields", "step-00000004", "optimizer.gguf")

    def changed(words, keys={}, without=None, tensor=None, value=None):
        tensors = []
        for x in state.tensors:
            values = floats(x)
            if x.name == tensor:
                values[5] = value
            tensors.append(x._replace(data=values.tobytes()))
        gguf.write(file, {**{k: v for k, v in state.keys.items() if k != without}, **keys}, tensors)
        refused([file, *words], command({"resume": True, "out": path("fields"), "steps": 5}))

    for key, value in (("step", 2**63 + 5), ("step", 2), ("step", 0), ("tokens", 5),
                       ("epoch", 2**62), ("position", 1), ("position", 2**64 - 1)):
        changed(["legible." + key, value], {"legible." + key: ("u64", value)})
    changed(["legible.lr"], {"legible.lr": ("string", "-1")})
    gguf.write(file, {**state.keys, "legible.heads": ("string", "4")}, state.tensors)
    refused(["--heads 4", "2"], command({"resume": True, "out": path("fields"), "steps": 5}))
    for key in ("lr", "seed", "order", "sha256", "weights_sha256", "rng"):
        changed(["legible." + key, "missing"], without="legible." + key)
    changed(["general.architecture", "gpt2"], {"general.architecture": ("string", "gpt2")})
    changed(["general.architecture", "\\x1b"], {"general.architecture": ("string", "\x1b[31m")})
    for name, value in ((".v", -1e-9), (".v", math.nan), (".v", math.inf), (".m", math.nan),
                        (".m", -math.inf)):
        name = "blk.0.attn_qkv.weight" + name
        changed([name, "element 5"], tensor=name, value=value)
    extra = [*state.tensors, state.tensors[0]._replace(name="blk.7.attn_norm.weight.m")]
    gguf.write(file, state.keys, extra)
    refused([file, "blk.7.attn_norm.weight.m"], command({"resume": True, "out": path("fields")}))
    write(file, whole)
    # The model of one step beside the optimizer of another.
    model = data("fields", "step-00000004", "model.gguf")
    write(os.path.join(folder, "model.gguf"), data("fields", "step-00000002", "model.gguf"))
    refused([file, "model.gguf"], command({"resume": True, "out": path("fields"), "steps": 5}))
    write(os.path.join(folder, "model.gguf"), model)
    resume("fields", steps=5)


def test_broken_by_the_last_step():
    """Weights that the last update made NaN are not saved, though no loss has shown them."""
    flags = dict(steps=2, lr=1000, beta1=0, beta2=0, eps=0, grad_clip=0, weight_decay=1000,
                 warmup=0, schedule="constant", val=None, save_every=1)
    sentence = refused(["step ", "nan", "last good checkpoint: "],
                       command({**base("broken"), **flags}))
    check("-nan" not in sentence, f"a NaN has no sign: {sentence}")
    for out in (["model.gguf"], [newest("broken"), "model.gguf"]) if checkpoints("broken") else ():
        for x in gguf.read(path("broken", *out)).tensors:
            check(all(map(math.isfinite, floats(x))), f"broken: {out}: {x.name} was saved")


def test_samples_on_a_terminal():
    """What a model says is shown there, not obeyed."""
    escape = bpe.from_merges([(0x1b, ord("["))])
    gguf.write(path("escape.gguf"),
               {"general.architecture": ("string", "gpt2"), **bpe.to_keys(escape)})
    write_shard(path("escapes.bin"), ([257] + [256, 0x1b, 7] * 10) * 20)
    primary, secondary = os.openpty()
    p = subprocess.Popen(command({**base("escape"), "train": path("escapes.bin"), "val": None,
                                  "tokenizer": path("escape.gguf"), "steps": 150, "lr": 0.01,
                                  "sample_every": 150}), stdout=secondary,
                         stderr=subprocess.DEVNULL, cwd=t.ROOT)
    p.wait(timeout=60)
    os.close(secondary)
    shown = b""
    while True:
        try:
            part = os.read(primary, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(primary)
    check(p.returncode == 0 and b"\\x1b" in shown and b"\x1b" not in shown and b"\x07" not in shown,
          f"a sample on a terminal: {shown[:200]}")


# ---- files that promise more than they hold ------------------------------------------------------

def test_hostile_models():
    train("two_blocks", steps=1)
    file = gguf.read(path("two_blocks", "model.gguf"))
    init = {**base("x"), "tokenizer": None, "layers": None, "heads": None, "channels": None,
            "context": None}

    def model(name, keys={}, tensors=file.tensors):
        gguf.write(path(name), {**file.keys, **keys}, tensors)
        return {**init, "init": path(name)}

    refused(["one_block.gguf", "blk.1.attn_norm.weight", "block_count"],
            command(model("one_block.gguf", {"gpt2.block_count": ("u32", 1)})))
    for value in (2e-5, 0.0, math.nan):
        key = "gpt2.attention.layer_norm_epsilon"
        refused(["epsilon.gguf", key], command(model("epsilon.gguf", {key: ("f32", value)})))
    # A few bytes that ask for gigabytes: refused by the first tensor that is not there. And memory
    # that the flags ask for, and nobody has.
    huge = {"gpt2.context_length": ("u32", 1 << 20), "gpt2.block_count": ("u32", 1000)}
    small = model("promises.gguf", huge, file.tensors[:1])
    with open(t.TRAIN, "rb") as f:
        if b"__asan_init" in f.read():   # which needs terabytes of addresses for itself
            return
    for flags, word in ((small, b"promises.gguf: tensor position_embd.weight"),
                        ({**base("x"), "channels": 1 << 14, "layers": 8}, b"out of memory")):
        p = subprocess.run(command(flags), capture_output=True, cwd=t.ROOT, preexec_fn=lambda:
                           resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31)))
        check(p.returncode == 1 and word in p.stderr,
              f"more memory than there is: {p.returncode} {p.stderr[-300:]}")


def test_no_regular_files():
    os.mkfifo(path("fifo"))
    for name in ("train", "val", "tokenizer", "init"):
        flags = {**base("x"), name: path("fifo")}
        p = start(command(flags))
        try:
            err = p.communicate(timeout=20)[1].decode()
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            err = "hangs"
        check(p.returncode == 1 and path("fifo") in err and "a pipe" in err,
              f"--{name} FIFO: {err}")
    refused(["/dev/null", "a device"], command({**base("x"), "train": "/dev/null"}))


def test_shard_cut_short():
    """A shard that shrinks while it is mapped: the file is named, and the exit code is 1."""
    write_shard(path("shrinks.bin"), read_shard(path("train_000.bin")) * 60)
    p = running("shrinks", train=path("shrinks.bin"))
    os.truncate(path("shrinks.bin"), 1024)
    err = p.communicate(timeout=60)[1].decode(errors="replace")
    check(p.returncode == 1 and "shrinks.bin" in err and "cut short" in err,
          f"a shard cut short: {p.returncode} {err}")


# ---- a newcomer's command line -------------------------------------------------------------------

def test_command_line():
    out, _ = execute([t.TRAIN, "-h"])
    check(b"--save-minutes" in out, "-h is not --help")
    shards = [path(f"train_00{i}.bin") for i in range(3)]
    refused(["train_001.bin", "quotes"],   # as a shell gives it, without quotes
            [t.TRAIN, "--train", *shards, "--tokenizer", path("tokenizer.gguf"), "--steps", "1"])


def main():
    with tempfile.TemporaryDirectory(prefix="test_safety.") as work:
        t.work = os.path.realpath(work)
        make_data()
        return run_tests([test_saved_by_time, test_signals_in_a_step,
                          test_signals_in_a_validation, test_begun_again, test_lock,
                          test_not_ours, test_log_that_is_none, test_fingerprints,
                          test_half_moved_data, test_tokenizer_in_use, test_optimizer_fields,
                          test_broken_by_the_last_step, test_samples_on_a_terminal,
                          test_hostile_models, test_no_regular_files, test_shard_cut_short,
                          test_command_line])


if __name__ == "__main__":
    sys.exit(main())
