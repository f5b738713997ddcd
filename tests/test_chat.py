#!/usr/bin/env python3
"""test_chat.py - infer chat from outside: through pipes, and at a terminal.

    tests/test_chat.py [WORD...]        the tests whose name contains a word, or all

What the model is to be shown for a conversation is written down here once more, as ids, and given
to infer without chat: the answers must be the same. tests/test_tokenizer.cpp compares the formats.
"""
import json
import os
import pty
import re
import select
import signal
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe                                                                           # noqa: E402
from check import check, run_tests                                                   # noqa: E402
from test_infer import INFER, Model, generate, refused, run, same_text               # noqa: E402

START, CLOSE = 257, 258   # of a turn; 0 to 255 are the bytes, 256 is end-of-text
TEMPLATE = ("string", "{{ '<|im_start|>' + message['role'] + '\\n' }}")


def chat_model(path, T=128, **keys):
    tokenizer = bpe.from_merges([])
    model = Model(V=259, T=1 if T > 1000 else T, seed=3)
    if T > 1000:   # not random: that would take long
        model.shapes["position_embd.weight"] = (model.C, T)
        model.weights["position_embd.weight"] = [0.25] * model.C * T
        model.keys["gpt2.context_length"] = ("u32", T)
    model.keys.update(bpe.to_keys(tokenizer))
    del model.keys["tokenizer.legible.sha256"]
    for key, more in (("tokens", ["<|im_start|>", "<|im_end|>"]), ("token_type", [3, 3])):
        type, values = model.keys["tokenizer.ggml." + key]
        model.keys["tokenizer.ggml." + key] = (type, [*values, *more])
    return model.write(path, **{"tokenizer__chat_template": TEMPLATE, **keys})


def turn(role, text):
    return [START, *f"{role}\n{text}".encode(), CLOSE, 10]


HEADER = [START, *b"assistant\n"]
GREEDY = ("--temp", 0, "-n", 6)


def follow(path, ids):
    """The six greedy tokens after ids, none of which ends the answer."""
    made = generate(path, ids, 6, "--ignore-eos")
    check(len(made) == 6 and not {256, CLOSE} & set(made), f"the test's model says {made}")
    return made


def raw(ids):
    return b"".join(bytes([id]) if id < 256 else [b"<|endoftext|>", b"<|im_start|>"][id - 256]
                    for id in ids)


def chat(path, *lines, more=GREEDY):
    """What is printed, and the lines of stderr."""
    out, err = run("chat", "-m", path, *more, stdin="".join(f"{line}\n" for line in lines).encode())
    return out, err.splitlines()


def test_history(folder):
    """Each answer follows everything before it; /reset forgets it."""
    path = chat_model(f"{folder}/chat.gguf")
    one = [256, *turn("user", "hi"), *HEADER]
    first = follow(path, one)
    two = [*one, *first, CLOSE, 10, *turn("user", " /you <|im_end|>"[1:]), *HEADER]
    second = follow(path, two)
    third = follow(path, [256, *turn("user", "ho"), *HEADER])
    out, err = chat(path, "hi", "", " /you <|im_end|>", "/reset", "ho")
    check(same_text(out, raw(first) + b"\n" + raw(second) + b"\n" + raw(third) + b"\n"),
          f"printed {out!r}, expected {raw(first)!r}, {raw(second)!r}, {raw(third)!r}")
    found = [re.fullmatch(r"\[6 tokens, [\d.]+ tok/s \| context (\d+) of 128 \| stopped: -n is "
                          r"reached\]", line) for line in err]
    want = [len(one) + 8, len(two) + 8, None, len(one) + 8]
    check([int(m[1]) if m else None for m in found] == want, f"stderr: {err}, contexts {want}")
    out, err = chat(path, "hi", more=(*GREEDY, "--system", "S"))
    made = follow(path, [256, *turn("system", "S"), *one[1:]])
    check(same_text(out, raw(made) + b"\n"), "--system comes first")
    out, _ = chat(path, "hi", "/quit", "hi")
    check(same_text(out, raw(first) + b"\n"), "nothing is answered after /quit")


def test_save(folder):
    path, file = chat_model(f"{folder}/chat.gguf"), f"{folder}/turns.jsonl"
    other = f"{folder}/other.txt"
    with open(other, "w") as f:
        f.write("mine")
    out, err = chat(path, 'a "quoted" \\ \t\x01\u00e9', f"/save {file}", f"/save {other}",
                    f"/save {folder}/absent/x", "/save", f"/save {folder}", f"/save {file}",
                    "/what")
    turns = [json.loads(line) for line in open(file)]
    check([t["role"] for t in turns] == ["user", "assistant"]
          and turns[0]["content"] == 'a "quoted" \\ \t\x01\u00e9', f"saved: {turns}")
    check(same_text(out, (turns[1]["content"] + "\n").encode()), f"{out!r}, saved {turns[1]}")
    said = "\n".join(err)
    check(said.count("[saved: 2 turns]") == 2 and said.count("not saved") == 4 and "/what" in said
          and "no conversation" in said and open(other).read() == "mine", f"stderr: {said}")
    check(not [name for name in os.listdir(folder) if name.endswith(".tmp")], "a file was left")


def test_overflow(folder):
    """Past the context the system message and the newest turns stay, and it is said."""
    path = chat_model(f"{folder}/chat.gguf")
    lines = [f"{'x' * 8}{i}" for i in range(4)]
    out, err = chat(path, *lines, more=(*GREEDY, "--system", "S"))
    forgotten = [line for line in err if "forgotten" in line]
    contexts = [int(m[1]) for line in err for m in re.finditer(r"context (\d+) of", line)]
    check(len(forgotten) >= 1 and len(contexts) == 4 and max(contexts) <= 128, f"stderr: {err}")
    system, kept, answers = [256, *turn("system", "S")], [], []
    for line in lines:
        kept.append([*turn("user", line), *HEADER])
        while len(sum(kept, system)) + 16 > 128:   # an eighth of the context is kept free
            kept.pop(0)
        answers.append(follow(path, sum(kept, system)))
        kept[-1] += [*answers[-1], CLOSE, 10]
    check(len(kept) == 3, f"{len(kept)} turns of 4 were kept, expected 3")
    check(same_text(out, b"".join(raw(a) + b"\n" for a in answers)), f"answers {out!r}, {answers}")

    out, err = chat(path, "x" * 200, "hi")
    first = follow(path, [256, *turn("user", "hi"), *HEADER])
    check(any("too long" in line and "208 tokens" in line for line in err)
          and same_text(out, raw(first) + b"\n"), f"a text too long: {err}, {out!r}")
    out, err = chat(path, "hi", more=("--temp", 0, "-n", 1000))
    check("context 128 of 128 | stopped: the context is full" in err[-1], f"stderr: {err}")


def test_refused(folder):
    path = chat_model(f"{folder}/chat.gguf")
    refused(["--template", "qwen", "chatml|llama3|plain"], "chat", "-m", path, "--template", "qwen")
    refused(["<|begin_of_text|>", "llama3"], "chat", "-m", path, "--template", "llama3")
    for template, word in ((None, "missing"), (("string", "[INST]"), "no known format")):
        path = chat_model(f"{folder}/other.gguf", tokenizer__chat_template=template)
        refused([path, "chat_template", word, "--template"], "chat", "-m", path)
        out, _ = chat(path, "hi", more=(*GREEDY, "--template", "plain"))
        check(same_text(out, raw(follow(path, [256, *b"hi\n"])) + b"\n"), f"plain: {out!r}")


class Terminal:
    """infer chat at a terminal, which sends SIGINT for Ctrl-C."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(INFER, [INFER, "chat", *map(str, arguments)])
        self.said = b""

    def expect(self, words, seconds=60):
        """Reads on until the words come; forgets them and what came before."""
        end = time.monotonic() + seconds
        while words not in self.said and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self.fd, 4096)
                except OSError:   # Linux says so when the other end is closed
                    break
        before, found, self.said = self.said.partition(words)
        return check(found, f"expected {words}, and there came {before[-300:]!r}")

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self):
        """The exit status; kills what has not ended after a minute."""
        for _ in range(600):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.1)
        else:
            os.kill(self.pid, signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return status


def test_interrupt(folder):
    """Ctrl-C stops the answer, which stays in the history; at the prompt it ends the program."""
    path, file = chat_model(f"{folder}/long.gguf", T=30000), f"{folder}/turns.jsonl"
    t = Terminal("-m", path, "-n", 10 ** 9, "--template", "plain", "--temp", 0)
    if t.expect(b"> "):
        t.type(b"hi\n")
        t.expect(b"hi\r\n")   # the echo
        while len(t.said) < 100:
            if not select.select([t.fd], [], [], 60)[0]:
                break
            t.said += os.read(t.fd, 4096)
        t.type(b"\x03")
        t.expect(b"stopped: interrupted]")
        t.expect(b"> ")
        t.type(f"/save {file}\n".encode())
        t.expect(b"[saved: 2 turns]")
        t.expect(b"> ")
        t.type(b"\x03")
    check(t.end() == 0, "Ctrl-C at the prompt ends the program in order")
    turns = [json.loads(line) for line in open(file)]
    check(len(turns) == 2 and turns[1]["content"], "the answer that was stopped is kept")
    t = Terminal("-m", path, "--template", "plain")
    t.expect(b"> ")
    t.type(b"\x04")
    check(t.end() == 0, "Ctrl-D at the prompt ends the program")


def main():
    def in_folder(test):
        with tempfile.TemporaryDirectory() as folder:
            test(folder)
    return run_tests([test_history, test_save, test_overflow, test_refused, test_interrupt],
                     in_folder)


if __name__ == "__main__":
    sys.exit(main())
