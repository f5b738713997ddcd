#!/usr/bin/env python3
"""test_llama.py - llama.cpp as the witness: it must make of a model.gguf what infer makes of it.

    tests/test_llama.py [MODEL.gguf]        default: one that it trains itself, in half a minute

    1. llama.cpp loads the file.
    2. The same 64 greedy tokens, end-of-text forbidden on both sides.
    3. All log-probabilities of all those steps within 5e-3 of infer's. llama.cpp's GELU on the CPU
       takes and gives half precision, so that a correct float32 program differs from it by up to
       2e-3.
    4. Within 5e-4 of tests/reference.py, PyTorch in float64 with that GELU: nothing but the GELU
       is different. And infer, with the exact GELU, within 5e-5 of PyTorch.
    5. The same continuation of the same text: both begin with end-of-text, infer always, and
       llama.cpp because the file says add_bos_token true.
    6. Of a Llama with random weights, where no GELU is in the way, the log-probabilities of what
       follows a few texts within 1e-4 of infer's; also where infer's weights are quantized, and
       llama.cpp has what they stand for in F32. (On the quantized file itself llama.cpp rounds each
       product's input to a byte.)

The model must be trained: among random weights the likeliest tokens lie so close that rounding
decides. And it must not be trained to the end: the demo's is so sure of itself that its logits span
40 nats, and the half precision of llama.cpp's GELU then moves them by up to 7e-3, while infer stays
within 2e-5 of PyTorch. Needs the package xllamacpp, a wheel that carries llama.cpp (and for 4.
numpy and torch); without it, it is skipped.
"""
import array
import math
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "data"))
import bpe    # noqa: E402
import gguf   # noqa: E402

INFER = os.path.abspath(os.environ.get("INFER", os.path.join(ROOT, "infer")))
STEPS = 64
PROMPTS = ["", "The", "Once upon a time there was", "What is that?\n"]
counts = {True: 0, False: 0}


def check(ok, what):
    counts[bool(ok)] += 1
    print("ok:  " if ok else "FAIL:", what)


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


# ---- llama.cpp -----------------------------------------------------------------------------------

def start_llama(path):
    """A server inside this process. Keys and values in float32 and no flash attention, whose sums
    are in half precision: what then remains is the arithmetic of the model."""
    p = xllamacpp.CommonParams()
    p.model.path = path
    p.n_ctx, p.n_parallel, p.warmup = 256, 1, False
    p.cpuparams.n_threads = 1   # two spin while they wait, for minutes beside other tests
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(p)


def complete(server, prompt, n, most, forbidden=()):
    """llama.cpp's reply to a text or to ids: n greedy tokens, none of them end-of-text."""
    return server.handle_completions({"prompt": prompt, "n_predict": n, "temperature": 0,
                                      "n_probs": most, "cache_prompt": False, "ignore_eos": True,
                                      "logit_bias": [[id, False] for id in forbidden]})


def ask_llama(server, ids, n, most, forbidden=()):
    """n greedy tokens after ids, and the `most` likeliest of each: {token: log-probability}, where
    what is forbidden has its own."""
    steps = complete(server, ids, n, most, forbidden)["choices"][0]["logprobs"]["content"]
    likeliest = [{t["id"]: t["logprob"] for t in s["top_logprobs"]} for s in steps]
    return [s["id"] for s in steps], likeliest


# ---- ours ----------------------------------------------------------------------------------------

def infer(*arguments, stdin=""):
    p = subprocess.run([INFER, *map(str, arguments)], input=stdin.encode(), capture_output=True,
                       timeout=600)
    if p.returncode != 0:
        sys.exit(f"infer {' '.join(map(str, arguments))}: exit code {p.returncode}: "
                 + p.stderr.decode())
    return p.stdout.decode()


def commas(ids):
    return ",".join(map(str, ids))


def log_softmax(row):
    top = max(row)
    log_sum = top + math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - log_sum for v in row]


def our_logits(path, ids):
    lines = infer("logits", "-m", path, "--ids", commas(ids)).splitlines()
    return [list(map(float, line.split())) for line in lines]


def largest_difference(rows, steps):
    """Of the log-probabilities that rows of logits give, from {token: log-probability}."""
    return max(abs(row[id] - p) for row, step in zip(map(log_softmax, rows), steps)
               for id, p in step.items())


def compare(server, reference, path, ids, end):
    """One prompt: tokens, then all log-probabilities, ours and the reference's."""
    name = f"{len(ids)} ids, {STEPS} tokens"
    vocabulary = len(our_logits(path, [end])[0])
    tokens, steps = ask_llama(server, ids, STEPS, vocabulary)
    words = infer("-m", path, "--ids", commas(ids), "-n", STEPS, "--ignore-eos").split()
    ours = [int(id) for id in words]
    check(len(ours) == STEPS and ours == tokens, f"{name}: the same greedy tokens")
    if ours != tokens:
        first = next((i for i, (a, b) in enumerate(zip(ours, tokens)) if a != b),
                     min(len(ours), len(tokens)))
        print(f"      the first that differs is number {first}: {ours[first:first + 5]} here,"
              f" {tokens[first:first + 5]} there")
    # Only end-of-text, which was forbidden, may be missing from a step.
    check(all(len(step) >= vocabulary - 1 for step in steps),
          f"{name}: all {vocabulary} log-probabilities came")

    text = ids + tokens[:-1]
    rows = our_logits(path, text)[len(ids) - 1:]
    difference = largest_difference(rows, steps)
    check(len(rows) == STEPS and difference < 5e-3,
          f"{name}: infer and llama.cpp differ by {difference:.2g} (5e-3)")
    if not reference:
        return
    same = reference(path, text, fp16_gelu=True)[len(ids) - 1:].tolist()
    difference = largest_difference(same, steps)
    check(difference < 5e-4,
          f"{name}: PyTorch with that GELU and llama.cpp differ by {difference:.2g} (5e-4)")
    exact = [dict(enumerate(log_softmax(row)))
             for row in reference(path, text)[len(ids) - 1:].tolist()]
    difference = largest_difference(rows, exact)
    check(difference < 5e-5,
          f"{name}: infer and PyTorch in float64 differ by {difference:.2g} (5e-5)")


def compare_text(server, path, prompt, ids):
    """A prompt as a user types it, which both programs turn into ids themselves."""
    reply = complete(server, prompt, STEPS, 1)
    check(reply["usage"]["prompt_tokens"] == len(ids),
          f"{prompt!r}: {len(ids)} tokens, end-of-text among them, in llama.cpp too")
    theirs = prompt + reply["choices"][0]["text"]
    ours = infer("-m", path, "-p", prompt, "-n", STEPS, "--temp", 0, "--ignore-eos")
    check(ours == theirs + "\n", f"{prompt!r}: the same text")
    if ours != theirs + "\n":
        print(f"      {ours!r} here, {theirs!r} there")


def random_llama(path):
    """Each key and value head serves three query heads."""
    tokenizer = bpe.from_merges([(ord("t"), ord("h"))])
    V, C, NH, NKV, F, L = len(tokenizer.tokens), 96, 6, 2, 128, 2
    chance = random.Random(1)
    tensors = [("token_embd.weight", (C, V)), ("output_norm.weight", (C,)),
               ("output.weight", (C, V))]
    for i in range(L):
        for name, *dims in [("attn_norm", C), ("attn_q", C, C), ("attn_k", C, C * NKV // NH),
                            ("attn_v", C, C * NKV // NH), ("attn_output", C, C), ("ffn_norm", C),
                            ("ffn_gate", C, F), ("ffn_up", C, F), ("ffn_down", F, C)]:
            tensors.append((f"blk.{i}.{name}.weight", tuple(dims)))
    u32 = {"context_length": 256, "embedding_length": C, "block_count": L, "vocab_size": V,
           "feed_forward_length": F, "attention.head_count": NH, "attention.head_count_kv": NKV,
           "rope.dimension_count": C // NH}
    keys = {"general.architecture": ("string", "llama"), "llama.rope.freq_base": ("f32", 500.0),
            "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-3),
            **{"llama." + name: ("u32", value) for name, value in u32.items()},
            **bpe.to_keys(tokenizer)}
    gguf.write(path, keys, [
        (name, "F32", dims, array.array("f", [
            chance.gauss(1, 0.2) if len(dims) == 1 else chance.gauss(0, 1.5 / math.sqrt(dims[0]))
            for _ in range(math.prod(dims))])) for name, dims in tensors])
    # Of a reply that is no UTF-8, llama.cpp tells nothing.
    return V, [id for id, token in enumerate(tokenizer.tokens) if token[0] >= 128]


def compare_llama(path):
    V, forbidden = random_llama(path)
    for type in ("F32", "Q8_0", "Q4_0"):
        ours, theirs = f"{path}-{type}", f"{path}-{type}-widened"
        for command in ([path, ours, type], [ours, theirs, "F32"]):
            subprocess.run([INFER, "quantize", *command], check=True, stdout=subprocess.DEVNULL)
        server = start_llama(theirs)
        for n in (1, 2, 7, 40, 200):
            chance = random.Random(n)
            ids = [chance.randrange(V - 1) for _ in range(n)]
            _, steps = ask_llama(server, ids, 1, V, forbidden)
            difference = largest_difference(our_logits(ours, ids)[-1:], steps)
            check(len(steps[0]) >= V - 1 and difference < 1e-4,
                  f"a Llama in {type}, {n} ids: infer and llama.cpp differ by {difference:.2g}"
                  " (1e-4)")


def train_model(folder):
    """300 steps on the tales: enough for the greedy choice to be clear."""
    trainer = os.environ.get("TRAIN", f"{ROOT}/train_gpt2")
    for command in ([sys.executable, f"{ROOT}/data/tales.py", "--out", folder],
                    [sys.executable, f"{ROOT}/data/prepare.py", f"{folder}/train.txt",
                     "--out", folder],
                    [trainer, "--train", f"{folder}/train_*.bin",
                     "--tokenizer", f"{folder}/tokenizer.gguf", "--steps", "300",
                     "--lr", "1e-3", "--warmup", "50", "--out", f"{folder}/run"]):
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return f"{folder}/run/model.gguf"


def main(folder):
    compare_llama(f"{folder}/llama.gguf")
    path = sys.argv[1] if len(sys.argv) > 1 else train_model(folder)
    try:
        from reference import gpt2_logits
    except ImportError as e:
        gpt2_logits = None
        print(f"without the part that needs PyTorch: {e}")
    try:
        server = start_llama(path)
        check(True, "llama.cpp loads the file")
    except Exception as e:
        check(False, f"llama.cpp refuses {path}: {e}")
    else:
        begins_with_end = gguf.read(path).value("tokenizer.ggml.add_bos_token", False)
        if len(sys.argv) > 1 and not begins_with_end:
            print("without texts: the file does not say add_bos_token true, as infer acts")
        else:
            check(begins_with_end, "the file says add_bos_token true")
        end = int(infer("tokenize", "-m", path, "--special", stdin="<|endoftext|>"))
        for prompt in PROMPTS:
            ids = [end] + list(map(int, infer("tokenize", "-m", path, stdin=prompt).split()))
            compare(server, gpt2_logits, path, ids, end)
            if begins_with_end:
                compare_text(server, path, prompt, ids)
    print(f"{counts[True]} passed, {counts[False]} failed", flush=True)
    sys.exit(1 if counts[False] else 0)


if __name__ == "__main__":
    try:
        import xllamacpp
    except ImportError:
        skip("llama.cpp is not here (pip install xllamacpp)")
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
