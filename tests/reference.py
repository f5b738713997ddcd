#!/usr/bin/env python3
"""reference.py - what PyTorch says that GPT-2 and Llama compute: the golden values of the tests.

    tests/reference.py           computes everything and writes tests/golden/*.gguf
    tests/reference.py --check   computes everything and compares it with them (make test-torch)

Needs numpy and PyTorch (1.13 or newer). All arithmetic is float64, from float32 inputs; results are
stored as float32. Inputs are random numbers that depend on nothing but a tensor's name, rounded to
bfloat16's 8 bits, so that a backend which computes in bfloat16 starts from the very same numbers.

An output X of a layer comes with X.scale: the layer's formula with every term replaced by
its absolute value. Rounding errors of a sum are proportional to that, and not to the result,
which may be 0 by cancellation; so the tests allow |error| <= (a few roundings) * X.scale,
for each element by itself.

gpt2_logits(path, ids) is the whole model for other tests to import.
"""
import argparse
import math
import os
import sys
import zlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "data"))
import gguf   # noqa: E402  (data/gguf.py)

GOLDEN = os.path.join(HERE, "golden")
NUMPY_TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I32": np.int32}


# ---- inputs and files ----------------------------------------------------------------------------

def to_bfloat16(x):
    """The nearest float32 whose lower 16 bits are 0, halfway cases to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def seeded(name):
    """RandomState, because numpy promises never to change its streams."""
    return np.random.RandomState(zlib.crc32(name.encode()))


class Golden:
    """The contents of one golden file, in the order in which they were put."""

    def __init__(self, keys=None):
        self.keys, self.tensors = dict(keys or {}), []

    def put(self, name, array, type="F32"):
        array = np.ascontiguousarray(array, NUMPY_TYPES[type])
        self.tensors.append((name, type, array.shape[::-1], array))

    def random(self, name, *shape, std=1.0, mean=0.0):
        """A random input, stored in the file, as a float64 tensor that gradients flow back to."""
        array = to_bfloat16(mean + std * seeded(name).normal(size=shape))
        self.put(name, array)
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    def integers(self, name, high, *shape):
        array = seeded(name).randint(high, size=shape)
        self.put(name, array, "I32")
        return torch.tensor(array, dtype=torch.int64)

    def output(self, name, value, scale):
        self.put(name, value.detach().numpy())
        self.put(name + ".scale", scale.detach().expand(value.shape).numpy())


def backward(out, dout):
    """Clears nothing and returns nothing: gradients are then in .grad of the inputs."""
    (out * dout.detach()).sum().backward()


# ---- layers --------------------------------------------------------------------------------------
# Each function computes one case of one layer: inputs, PyTorch's forward, its autograd, scales.

def encoder(g, p, B, T, C, V):
    tokens = g.integers(p + "tokens", V, B, T)
    wte, wpe = g.random(p + "wte", V, C), g.random(p + "wpe", T + 1, C)
    dout = g.random(p + "dout", B, T, C)
    out = F.embedding(tokens, wte) + wpe[:T]
    backward(out, dout)
    g.output(p + "out", out, F.embedding(tokens, wte.abs()) + wpe[:T].abs())
    absolute = torch.zeros(V, C, dtype=torch.float64)
    absolute.index_add_(0, tokens.flatten(), dout.abs().reshape(-1, C))
    g.output(p + "dwte", wte.grad, absolute)
    g.output(p + "dwpe", wpe.grad, F.pad(dout.abs().sum(0), (0, 0, 0, 1)))


def norm_outputs(g, p, x, weight, bias, dout, out, dinp, dresidual):
    """mean, rstd, out and the gradients of a layernorm of x; dresidual, or 0, is added to dinp."""
    C = x.shape[-1]
    x, weight, bias, dout = (t.detach() for t in (x, weight, bias, dout))
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    rstd = 1 / torch.sqrt(var + 1e-5)
    xhat = (x - mean) * rstd
    terms = x.abs() + mean.abs()   # the terms of x - mean
    relative = 1 + ((x - mean).abs() * terms).mean(-1, keepdim=True) / (var + 1e-5)   # of rstd
    xscale = terms * rstd + xhat.abs() * relative
    g.output(p + "mean", mean[..., 0], x.abs().mean(-1))
    g.output(p + "rstd", rstd[..., 0], (rstd * relative)[..., 0])
    g.output(p + "out", out, xscale * weight.abs() + bias.abs())
    gw = (dout * weight).abs()
    dscale = gw + gw.mean(-1, keepdim=True) + xscale * (gw * xhat.abs()).mean(-1, keepdim=True) \
        + xhat.abs() * (gw * xscale).mean(-1, keepdim=True)
    g.output(p + "dinp", dinp, rstd * relative * dscale + dresidual.abs())
    return (dout.abs() * xscale).reshape(-1, C).sum(0), dout.abs().reshape(-1, C).sum(0)


def layernorm(g, p, B, T, C):
    inp, dout = g.random(p + "inp", B, T, C, mean=0.5), g.random(p + "dout", B, T, C)
    weight, bias = g.random(p + "weight", C), g.random(p + "bias", C)
    out = F.layer_norm(inp, (C,), weight, bias, 1e-5)
    backward(out, dout)
    wscale, bscale = norm_outputs(g, p, inp, weight, bias, dout, out, inp.grad, torch.zeros(()))
    g.output(p + "dweight", weight.grad, wscale)
    g.output(p + "dbias", bias.grad, bscale)


def residual_layernorm(g, p, B, T, C):
    inp1, inp2 = g.random(p + "inp1", B, T, C), g.random(p + "inp2", B, T, C)
    dresidual, dout = g.random(p + "dresidual", B, T, C), g.random(p + "dout", B, T, C)
    weight, bias = g.random(p + "weight", C), g.random(p + "bias", C)
    residual = inp1 + inp2
    out = F.layer_norm(residual, (C,), weight, bias, 1e-5)
    (out * dout.detach() + residual * dresidual.detach()).sum().backward()
    assert torch.equal(inp1.grad, inp2.grad)
    g.output(p + "residual", residual, inp1.abs() + inp2.abs())
    wscale, bscale = norm_outputs(g, p, residual, weight, bias, dout, out, inp1.grad, dresidual)
    g.output(p + "dweight", weight.grad, wscale)
    g.output(p + "dbias", bias.grad, bscale)


def gelu(x):
    return F.gelu(x, approximate="tanh")


def matmul(g, p, B, T, C, OC):
    """A plain linear layer, the same with a GELU behind it, and the same behind a GELU."""
    inp, dout = g.random(p + "inp", B, T, C), g.random(p + "dout", B, T, OC)
    weight, bias = g.random(p + "weight", OC, C), g.random(p + "bias", OC)
    out = F.linear(inp, weight, bias)
    backward(out, dout)
    flat = inp.detach().abs().reshape(-1, C), dout.detach().abs().reshape(-1, OC)
    oscale = F.linear(inp.abs(), weight.abs(), bias.abs())
    g.output(p + "out", out, oscale)
    g.output(p + "gelu", gelu(out), 1.2 * oscale)   # gelu' is at most 1.13
    dscale = F.linear(dout.abs(), weight.abs().T)
    g.output(p + "dinp", inp.grad, dscale)
    g.output(p + "dweight", weight.grad, flat[1].T @ flat[0])
    g.output(p + "dbias", bias.grad, flat[1].sum(0))
    pre = g.random(p + "pre_gelu", B, T, C, std=2.0)
    backward(F.linear(gelu(pre), weight.detach(), bias.detach()), dout)
    g.output(p + "dpre_gelu", pre.grad, 2 * dscale)


def causal_attention(qkv, NH):
    """(out, lse, probabilities), from q, k, v side by side in each row."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (t.reshape(B, T, NH, C // NH).transpose(1, 2) for t in qkv.split(C, -1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(C // NH)
    scores = scores.masked_fill(qkv.new_ones(T, T).triu(1).bool(), -math.inf)
    p = torch.softmax(scores, -1)
    return (p @ v).transpose(1, 2).reshape(B, T, C), torch.logsumexp(scores, -1), p


def attention(g, name, B, T, C, NH):
    # A large q in case 3 makes scores of some hundreds: e^score overflows,
    # unless the maximum is subtracted.
    qkv = g.random(name + "qkv", B, T, 3 * C, std=12.0 if name == "attention.3." else 1.0)
    dout = g.random(name + "dout", B, T, C)
    out, lse, p = causal_attention(qkv, NH)
    backward(out, dout)
    hs = C // NH
    q, k, v = (t.detach().abs().reshape(B, T, NH, hs).transpose(1, 2) for t in qkv.split(C, -1))
    d = dout.detach().abs().reshape(B, T, NH, hs).transpose(1, 2)
    p = p.detach()
    terms = (q @ k.transpose(-1, -2) / math.sqrt(hs)).tril().amax(-1, keepdim=True)
    relative = 1 + terms   # of e^score, whose exponent is off by a rounding of its terms
    oscale = p @ v * relative
    g.output(name + "out", out, oscale.transpose(1, 2).reshape(B, T, C))
    g.output(name + "lse", lse, (relative + lse.abs()[..., None])[..., 0])
    ds = p * (d @ v.transpose(-1, -2) + (d * oscale).sum(-1, keepdim=True))
    ds = ds * relative / math.sqrt(hs)
    parts = ds @ k, ds.transpose(-1, -2) @ q, (p * relative).transpose(-1, -2) @ d
    g.output(name + "dqkv", qkv.grad,
             torch.cat([t.transpose(1, 2).reshape(B, T, C) for t in parts], -1))


def classifier(g, p, B, T, V):
    # softmax does not see an offset, but without subtracting the maximum e^logit is infinite or 0.
    offset = np.zeros((B, T, 1))
    offset[0, 0], offset[-1, -1] = 512.0, -512.0
    logits = g.random(p + "logits", B, T, V, std=3.0, mean=offset)
    targets = g.integers(p + "targets", V, B, T)
    dloss = 1.0 / (B * T)
    g.put(p + "dloss", [dloss])
    losses = F.cross_entropy(logits.reshape(-1, V), targets.flatten(), reduction="none")
    losses = losses.reshape(B, T)
    losses.sum().backward()
    lse = torch.logsumexp(logits, -1)
    hot = F.one_hot(targets, V)
    g.output(p + "losses", losses, lse.abs() + logits.abs().amax(-1) + 1)
    dloss = float(np.float32(dloss))
    soft = torch.softmax(logits, -1) * (1 + logits.abs() + lse.abs()[..., None])
    g.output(p + "dlogits", logits.grad * dloss, (soft + hot) * dloss)


def adamw(g, p, n, steps):
    """steps updates; the weights, m and v after the last."""
    lr, beta1, beta2, eps, decay, grad_scale = settings = 3e-3, 0.9, 0.999, 1e-8, 0.1, 0.5
    g.put(p + "settings", settings, "F64")
    master = g.random(p + "master", n)
    grads = [g.random(p + f"grads.{t}", n).detach() * grad_scale for t in range(1, steps + 1)]
    optimizer = torch.optim.AdamW([master], lr=lr, betas=(beta1, beta2), eps=eps,
                                  weight_decay=decay)
    scale, mscale = master.detach().abs().clone(), torch.zeros(n, dtype=torch.float64)
    for t, grad in enumerate(grads, 1):
        master.grad = grad
        optimizer.step()
        mscale = beta1 * mscale + (1 - beta1) * grad.abs()
        v = optimizer.state[master]["exp_avg_sq"]
        vhat = v / (1 - beta2 ** t)
        step = mscale / (1 - beta1 ** t) / (vhat.sqrt() + eps) + decay * master.detach().abs()
        scale = scale + lr * step
    g.output(p + "after", master, scale)
    g.output(p + "m", optimizer.state[master]["exp_avg"], mscale)
    g.output(p + "v", optimizer.state[master]["exp_avg_sq"], v)


LAYERS = [   # sizes in the order of the function's arguments; odd on purpose
    (encoder, [(1, 1, 5, 3), (3, 7, 24, 11), (2, 5, 33, 13)]),
    (layernorm, [(1, 1, 3), (2, 3, 13), (3, 5, 48), (1, 2, 200), (2, 1, 1)]),
    (residual_layernorm, [(1, 1, 3), (2, 3, 13), (3, 5, 48), (1, 2, 200)]),
    (matmul, [(1, 1, 1, 1), (1, 1, 7, 5), (2, 3, 13, 17), (1, 9, 40, 129), (3, 5, 64, 24)]),
    (attention, [(1, 1, 4, 1), (1, 7, 5, 1), (2, 5, 12, 3), (1, 9, 16, 2), (2, 33, 40, 4),
                 (1, 131, 8, 1)]),
    (classifier, [(1, 1, 5), (2, 3, 37), (1, 4, 128), (1, 3, 300)]),
    (adamw, [(37, 5), (1, 1)])]


def layers():
    g = Golden()
    for layer, cases in LAYERS:
        for i, sizes in enumerate(cases):
            g.keys[f"{layer.__name__}.{i}"] = ("i32s", list(sizes))
            layer(g, f"{layer.__name__}.{i}.", *sizes)
    return g


# ---- the model -----------------------------------------------------------------------------------

def gpt2_keys(context, L, NH, C):
    """The keys of a GPT-2's GGUF, but for its tokenizer's."""
    return {"general.architecture": ("string", "gpt2"), "gpt2.context_length": ("u32", context),
            "gpt2.embedding_length": ("u32", C), "gpt2.block_count": ("u32", L),
            "gpt2.feed_forward_length": ("u32", 4 * C), "gpt2.attention.head_count": ("u32", NH),
            "gpt2.attention.layer_norm_epsilon": ("f32", 1e-5)}


def gpt2_shapes(context, V, L, C):
    """{name: shape} of its tensors, in the file's order."""
    shapes = {"token_embd.weight": (V, C), "position_embd.weight": (context, C)}
    for i in range(L):
        for name, shape in [("attn_norm", (C,)), ("attn_qkv", (3 * C, C)), ("attn_output", (C, C)),
                            ("ffn_norm", (C,)), ("ffn_up", (4 * C, C)), ("ffn_down", (C, 4 * C))]:
            shapes[f"blk.{i}.{name}.weight"], shapes[f"blk.{i}.{name}.bias"] = shape, (shape[0],)
    shapes["output_norm.weight"], shapes["output_norm.bias"] = (C,), (C,)
    return shapes


def gpt2(w, tokens, NH, activation=gelu):
    """Logits (B, T, V) of tokens (B, T). w holds the weights under their names in a GGUF."""
    T, C = tokens.shape[1], w["token_embd.weight"].shape[1]
    L = sum(name.endswith("attn_qkv.weight") for name in w)

    def norm(x, name):
        return F.layer_norm(x, (C,), w[name + ".weight"], w[name + ".bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    x = F.embedding(tokens, w["token_embd.weight"]) + w["position_embd.weight"][:T]
    for i in range(L):
        b = f"blk.{i}."
        out, _, _ = causal_attention(linear(norm(x, b + "attn_norm"), b + "attn_qkv"), NH)
        x = x + linear(out, b + "attn_output")
        x = x + linear(activation(linear(norm(x, b + "ffn_norm"), b + "ffn_up")), b + "ffn_down")
    return F.linear(norm(x, "output_norm"), w.get("output.weight", w["token_embd.weight"]))


def fp16_table_gelu(x):
    """llama.cpp's GELU on the CPU: a table of half-precision results for half-precision numbers."""
    half = x.to(torch.float16).to(torch.float64)
    y = gelu(half).to(torch.float16).to(torch.float64)
    return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, y))


def load_weights(path, dtype=torch.float64):
    """({name: tensor}, heads, context) of a GPT-2's GGUF."""
    f = gguf.read(path)
    weights = {}
    for t in f.tensors:
        if t.type == "BF16":
            array = (np.frombuffer(t.data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = np.frombuffer(t.data, NUMPY_TYPES[t.type])
        weights[t.name] = torch.tensor(array.reshape(t.dims[::-1]).astype(np.float64)).to(dtype)
    return weights, f.value("gpt2.attention.head_count"), f.value("gpt2.context_length")


def gpt2_logits(path, ids, fp16_gelu=False):
    """Logits (T, V), a float64 numpy array, of one sequence of T ids.
    fp16_gelu: with llama.cpp's GELU."""
    weights, NH, context = load_weights(path)
    if len(ids) > context:
        raise ValueError(f"{len(ids)} ids, but the context is {context}")
    with torch.no_grad():
        activation = fp16_table_gelu if fp16_gelu else gelu
        return gpt2(weights, torch.tensor([list(ids)]), NH, activation)[0].numpy()


def llama(w, tokens, NH, NKV, eps, base, dims):
    """Logits (B, T, V) of a Llama; w under the names in a GGUF, so rotary pairs are neighbours."""
    B, T = tokens.shape
    C = w["token_embd.weight"].shape[1]
    hs = C // NH
    factors = w.get("rope_freqs.weight", torch.ones(dims // 2, dtype=torch.float64))
    turns = base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims) / factors
    angles = torch.arange(T, dtype=torch.float64)[:, None] * turns
    turn = torch.polar(torch.ones_like(angles), angles)   # e^(i angle): a rotation of the plane

    def norm(x, name):
        return x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + eps) * w[name + ".weight"]

    def heads(x, name, count):
        return F.linear(x, w[name + ".weight"]).view(B, T, count, hs).transpose(1, 2)

    def rotate(x):
        pairs = torch.view_as_complex(x[..., :dims].unflatten(-1, (dims // 2, 2)).contiguous())
        return torch.cat([torch.view_as_real(pairs * turn).flatten(-2), x[..., dims:]], -1)

    x = F.embedding(tokens, w["token_embd.weight"])
    for i in range(sum(name.endswith("attn_q.weight") for name in w)):
        b = f"blk.{i}."
        inp = norm(x, b + "attn_norm")
        q, k = rotate(heads(inp, b + "attn_q", NH)), rotate(heads(inp, b + "attn_k", NKV))
        v = heads(inp, b + "attn_v", NKV)
        k, v = (t.repeat_interleave(NH // NKV, dim=1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(hs)
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
        out = torch.softmax(scores, -1) @ v
        x = x + F.linear(out.transpose(1, 2).reshape(B, T, C), w[b + "attn_output.weight"])
        inp = norm(x, b + "ffn_norm")
        up = F.silu(F.linear(inp, w[b + "ffn_gate.weight"])) * F.linear(inp, w[b + "ffn_up.weight"])
        x = x + F.linear(up, w[b + "ffn_down.weight"])
    return F.linear(norm(x, "output_norm"), w.get("output.weight", w["token_embd.weight"]))


def llama_model(prefix, T, context, V, L, NH, NKV, hs, inner, dims, base, eps, untied=False,
                factors=False):
    """A Llama with random weights, and its logits on one sequence. eps is large enough to show."""
    C = NH * hs
    g = Golden({"general.architecture": ("string", "llama"),
                "llama.context_length": ("u32", context), "llama.embedding_length": ("u32", C),
                "llama.block_count": ("u32", L), "llama.feed_forward_length": ("u32", inner),
                "llama.attention.head_count": ("u32", NH),
                "llama.attention.head_count_kv": ("u32", NKV),
                "llama.attention.layer_norm_rms_epsilon": ("f32", eps),
                "llama.rope.freq_base": ("f32", base), "llama.rope.dimension_count": ("u32", dims)})
    shapes = {"token_embd.weight": (V, C)}
    if factors:
        shapes["rope_freqs.weight"] = (dims // 2,)
    for i in range(L):
        for name, shape in [("attn_norm", (C,)), ("attn_q", (C, C)), ("attn_k", (NKV * hs, C)),
                            ("attn_v", (NKV * hs, C)), ("attn_output", (C, C)), ("ffn_norm", (C,)),
                            ("ffn_gate", (inner, C)), ("ffn_up", (inner, C)),
                            ("ffn_down", (C, inner))]:
            shapes[f"blk.{i}.{name}.weight"] = shape
    shapes["output_norm.weight"] = (C,)
    if untied:
        shapes["output.weight"] = (V, C)
    w, seeds = {}, Golden()
    for name, shape in shapes.items():
        std = 0.5 if "embd" in name else 0.2 if len(shape) == 1 else 1 / math.sqrt(shape[1])
        mean = 3.0 if name == "rope_freqs.weight" else 1.0 if len(shape) == 1 else 0.0
        w[name] = seeds.random(prefix + name, *shape, std=std, mean=mean).detach()
        g.put(name, w[name].numpy())
    tokens = g.integers("test.tokens", V, 1, T)
    eps, base = float(np.float32(eps)), float(np.float32(base))   # as the file has them
    g.put("test.logits", llama(w, tokens, NH, NKV, eps, base, dims).numpy())
    return g


def model(prefix, B, T, context, V, L, NH, C, clip, steps=10):
    """A GPT-2 with random weights (biases and norms too, so that a term left out shows), its
    logits, loss and gradients on the first batch, and the weights after `steps` AdamW steps on
    as many batches."""
    g = Golden({**gpt2_keys(context, L, NH, C), "test.batch": ("i32s", [steps, B, T])})
    seeds = Golden()   # weights get a name of their own as a seed, so that two models differ
    w = {}
    for name, shape in gpt2_shapes(context, V, L, C).items():
        norm = name.endswith("norm.weight")
        std = 0.5 if "embd" in name else 0.2 if len(shape) == 1 else 0.8 / math.sqrt(shape[1])
        w[name] = seeds.random(prefix + name, *shape, std=std, mean=1.0 if norm else 0.0)
        g.put(name, w[name].detach().numpy())
    tokens = g.integers("test.tokens", V, steps, B, T)
    targets = g.integers("test.targets", V, steps, B, T)
    # lr peaks after a warmup of 4 steps and falls; clip is below some of the norms, above others.
    lr = [4e-3 * min((s + 1) / 4, 1 - 0.1 * (s - 3)) for s in range(steps)]
    beta1, beta2, eps, decay = 0.9, 0.95, 1e-8, 0.1
    groups = [{"params": [t for t in w.values() if t.dim() == 2], "weight_decay": decay},
              {"params": [t for t in w.values() if t.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(beta1, beta2), eps=eps)
    losses, norms = [], []
    for s in range(steps):
        optimizer.zero_grad()
        logits = gpt2(w, tokens[s], NH)
        loss = F.cross_entropy(logits.reshape(-1, V), targets[s].flatten())
        loss.backward()
        norm = math.sqrt(sum(float((t.grad ** 2).sum()) for t in w.values()))
        if s == 0:
            g.put("test.logits", logits.detach().numpy())
            for name, t in w.items():
                g.put("grad." + name, t.grad.numpy())
        losses.append(loss.item())
        norms.append(norm)
        for t in w.values():
            t.grad *= min(1.0, clip / norm)
        for group in optimizer.param_groups:
            group["lr"] = lr[s]
        optimizer.step()
    assert min(norms) < clip < max(norms), (clip, norms)
    for name, t in w.items():
        g.put("after." + name, t.detach().numpy())
    g.put("test.losses", losses)
    g.put("test.norms", norms)
    g.put("test.lr", lr, "F64")
    g.put("test.settings", [beta1, beta2, eps, decay, clip], "F64")
    return g


FILES = {
    "layers.gguf": layers,
    "model.gguf":
        lambda: model("model.", B=4, T=11, context=16, V=37, L=2, NH=3, C=24, clip=3.0),
    "model-odd.gguf":
        lambda: model("model-odd.", B=1, T=7, context=7, V=129, L=1, NH=1, C=5, clip=2.25),
    "llama.gguf":
        lambda: llama_model("llama.", T=45, context=64, V=37, L=2, NH=6, NKV=2, hs=8, inner=40,
                            dims=8, base=100.0, eps=0.05),
    "llama-odd.gguf":   # 3 heads of 7 channels, 4 of which turn; pairs with factors of their own
        lambda: llama_model("llama-odd.", T=45, context=64, V=41, L=2, NH=3, NKV=1, hs=7, inner=19,
                            dims=4, base=10000.0, eps=1e-5, untied=True, factors=True)}


# ---- writing and checking ------------------------------------------------------------------------

def same(name, kept, fresh):
    """Problems between a file's tensor and a fresh one. Inputs are equal bit by bit; a result,
    which is float64 rounded to float32, may fall on the other side of a rounding under another
    version of PyTorch."""
    if kept is None or kept.shape != fresh.shape or kept.dtype != fresh.dtype:
        return f"{name}: missing, or of another shape"
    error = np.abs(kept.astype(np.float64) - fresh)
    bound = 2.4e-7 * np.abs(fresh) + 1e-9 * np.abs(fresh).max()
    if kept.dtype == np.int32:
        bound = 0 * error
    worst = np.argmax(error - bound)
    if not (error <= bound).all():
        return f"{name}: {kept.flat[worst]:.9g} at {worst}, PyTorch says {fresh.flat[worst]:.9g}"
    return None


def check(name, golden):
    path = os.path.join(GOLDEN, name)
    f = gguf.read(path)
    problems = []
    for key, (type, value) in golden.keys.items():
        kept = f.value(key, None)
        if kept != value and not (type == "f32" and math.isclose(kept, value, rel_tol=1e-7)):
            problems.append(f"key {key}: {kept!r}, expected {value!r}")
    if [t.name for t in f.tensors] != [t[0] for t in golden.tensors]:
        problems.append("other tensors, or in another order")
    kept = {t.name: np.frombuffer(t.data, NUMPY_TYPES[t.type]).reshape(t.dims[::-1])
            for t in f.tensors}
    problems += filter(None, (same(n, kept.get(n), array) for n, _, _, array in golden.tensors))
    for problem in problems:
        print(f"FAIL: {name}: {problem}")
    return len(golden.tensors), len(problems)


def main():
    parser = argparse.ArgumentParser(description="Golden values by PyTorch.")
    parser.add_argument("--check", action="store_true",
                        help="compare with tests/golden instead of writing it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)   # one order of sums
    os.makedirs(GOLDEN, exist_ok=True)
    compared = failed = 0
    for name, make in FILES.items():
        golden = make()
        if arguments.check:
            tensors, problems = check(name, golden)
            compared, failed = compared + tensors, failed + problems
        else:
            path = os.path.join(GOLDEN, name)
            gguf.write(path, golden.keys, golden.tensors)
            print(f"{name}: {len(golden.tensors)} tensors, {os.path.getsize(path):,} bytes")
    if arguments.check:
        print(f"PyTorch {torch.__version__}: {compared - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
