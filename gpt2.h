// gpt2.h - the model: its parameters, its memory, and forward(), backward() and update(), which
// call layers.h and exist once for every backend.
//
// GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners") is a stack of
// L blocks over a stream of vectors, one vector of C channels for each position:
//
//     tokens --> encoder --> x, and then L times:
//
//     x --+--> norm -> qkv -> attention -> output --+--> norm -> up -> GELU -> down --+--> x
//         |                                         |                                 |
//         +------------- residual sum --------------+--------- residual sum ----------+
//
// and after the last block: norm -> logits = x times the token embedding -> softmax -> loss.
//
// Tensors are never numbered. Parameters are rows of one table (param_table), and activations
// of another (activation_table); everything that walks over "all tensors" walks over a table.
// This file never dereferences a tensor's pointer: on a GPU it could not.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>
#include "description.h"
#include "files.h"
#include "gguf.h"
#include "layers.h"
#include "numerics.h"
#include "sha256.h"

// ---- configuration ------------------------------------------------------------------------------

struct Config {
    int T;    // context length: positions that the model knows
    int V;    // tokens in the vocabulary
    int Vp;   // V rounded up to a multiple of 128, in memory only: products like round numbers
    int L;    // blocks
    int NH;   // heads
    int C;    // channels
};

inline Config make_config(int T, int V, int L, int NH, int C) {
    return {T, V, (V + 127) / 128 * 128, L, NH, C};
}

// ---- parameters: one table ----------------------------------------------------------------------

// Where each tensor starts, in elements, in each of the buffers params, master, grads, m and v.
struct BlockWeights {
    size_t attn_norm_weight, attn_norm_bias;
    size_t attn_qkv_weight, attn_qkv_bias;
    size_t attn_output_weight, attn_output_bias;
    size_t ffn_norm_weight, ffn_norm_bias;
    size_t ffn_up_weight, ffn_up_bias;
    size_t ffn_down_weight, ffn_down_bias;
};

struct Weights {
    size_t token_embd, position_embd;
    std::vector<BlockWeights> blk;
    size_t output_norm_weight, output_norm_bias;
};

struct Param {
    std::string name;             // its name in a GGUF
    std::vector<uint64_t> dims;   // its shape there, fastest first: a (OC, C) weight has {C, OC}
    float init_std;               // starts as a normal of this deviation, or, if 0, as init_value
    float init_value;
    bool decay;                   // weight decay: matrices and embeddings yes, biases and norms no
    bool product;                 // a weight of a matrix product, whose gradient is one as well
    size_t offset;                // where it starts, in elements
    size_t count;                 // its elements, contiguous; without token_embd's padding rows
};

// The table, in the order of memory and of files. Fills `at` with the offsets. The initialisation
// is GPT-2's: a deviation of 0.02, and 0.02 / sqrt(2L) for the two projections of a block that
// write to the residual stream, since 2L of them add up there (Radford et al. 2019, section 2.3).
inline std::vector<Param> param_table(Config c, Weights& at, size_t& space) {
    std::vector<Param> table;
    const size_t ALIGN = 64;   // elements: every tensor starts on a vector load's boundary
    const float STD = 0.02f, RESIDUAL_STD = 0.02f / sqrtf(2.0f * c.L);
    space = 0;
    auto row = [&](std::string name, size_t& offset, std::vector<uint64_t> dims, float std,
                   float value) {
        size_t count = 1;
        for (uint64_t d : dims) count *= d;
        size_t room = &offset == &at.token_embd ? (size_t)c.Vp * c.C : count;
        offset = space;
        bool matrix = dims.size() == 2, product = matrix && name != "position_embd.weight";
        table.push_back({name, dims, std, value, matrix, product, offset, count});
        space += (room + ALIGN - 1) / ALIGN * ALIGN;
    };
    uint64_t C = c.C;
    at.blk.resize(c.L);
    row("token_embd.weight", at.token_embd, {C, (uint64_t)c.V}, STD, 0);
    row("position_embd.weight", at.position_embd, {C, (uint64_t)c.T}, STD, 0);
    for (int l = 0; l < c.L; l++) {
        BlockWeights& b = at.blk[l];
        std::string blk = text("blk.%d.", l);
        row(blk + "attn_norm.weight", b.attn_norm_weight, {C}, 0, 1);
        row(blk + "attn_norm.bias", b.attn_norm_bias, {C}, 0, 0);
        row(blk + "attn_qkv.weight", b.attn_qkv_weight, {C, 3 * C}, STD, 0);
        row(blk + "attn_qkv.bias", b.attn_qkv_bias, {3 * C}, 0, 0);
        row(blk + "attn_output.weight", b.attn_output_weight, {C, C}, RESIDUAL_STD, 0);
        row(blk + "attn_output.bias", b.attn_output_bias, {C}, 0, 0);
        row(blk + "ffn_norm.weight", b.ffn_norm_weight, {C}, 0, 1);
        row(blk + "ffn_norm.bias", b.ffn_norm_bias, {C}, 0, 0);
        row(blk + "ffn_up.weight", b.ffn_up_weight, {C, 4 * C}, STD, 0);
        row(blk + "ffn_up.bias", b.ffn_up_bias, {4 * C}, 0, 0);
        row(blk + "ffn_down.weight", b.ffn_down_weight, {4 * C, C}, RESIDUAL_STD, 0);
        row(blk + "ffn_down.bias", b.ffn_down_bias, {C}, 0, 0);
    }
    row("output_norm.weight", at.output_norm_weight, {C}, 0, 1);
    row("output_norm.bias", at.output_norm_bias, {C}, 0, 0);
    return table;
}

// ---- activations: one table, with lifetimes -----------------------------------------------------

struct BlockActs {
    floatX* residual;                              // (B,T,C) the stream as it enters the block
    floatX* attn_norm; float *attn_mean, *attn_rstd;
    floatX* qkv;                                   // (B,T,3C)
    floatX* attn; float* lse;                      // (B,T,C), (B,NH,T)
    floatX* attn_output;                           // (B,T,C)
    floatX* residual_mid;                          // (B,T,C) the stream between attention and MLP
    floatX* ffn_norm; float *ffn_mean, *ffn_rstd;
    floatX *ffn_pre, *ffn_up;                      // (B,T,4C) before and after the GELU
    floatX* ffn_down;                              // (B,T,C)
};

struct Acts {
    int *tokens, *sorted, *targets;                // (B,T) each, in one buffer
    std::vector<BlockActs> blk;
    floatX* residual;                              // (B,T,C) the stream after the last block
    floatX* output_norm; float *mean, *rstd;
    floatX* logits;                                // (B,T,Vp), and their gradient, in place
    float* losses; double* loss_sum;               // (B,T), (1)
    floatX *dresidual, *dnorm, *dattn, *dqkv, *dffn_up;
    float* D;                                      // (B,NH,T)
};

// Moments, both included.
struct Span {
    int born, dies;
};

// One row: a buffer, and when it holds something needed: from forward to backward, or, if backward
// computes it once more, in both but not in between.
struct Activation {
    std::string name;
    void** slot;           // the pointer to set
    size_t bytes;
    std::vector<Span> alive;
    size_t offset;         // where the plan puts it
};

inline bool alive_together(const Activation& a, const Activation& b) {
    for (Span x : a.alive)
        for (Span y : b.alive)
            if (x.born <= y.dies && y.born <= x.dies) return true;
    return false;
}

// Moments: 0 the encoder, 1 + 2l the attention half of block l, 2 + 2l its MLP half, 2L + 1 the
// head. Backward walks the same list in reverse: what happened at t is undone at 4L + 3 - t.
//
// A block keeps 16 C numbers for each token until backward. Memory is bought with time (Chen et al.
// 2016, arXiv:1604.06174): with recompute 1, backward makes norms and GELU again, which cost next
// to nothing, and 10 C are kept; with 2 it runs the whole block again, a third more work in all,
// and only the C of the stream are kept.
inline std::vector<Activation> activation_table(Config c, Acts& a, int B, int T, int recompute) {
    std::vector<Activation> table;
    size_t N = (size_t)B * T, C = c.C;
    int head = 2 * c.L + 1, end = 2 * head + 1;
    auto row = [&](std::string name, auto** slot, size_t count, std::vector<Span> alive) {
        table.push_back({name, (void**)slot, count * sizeof(**slot), alive, 0});
    };
    row("tokens, sorted, targets", &a.tokens, 3 * N, {{0, end}});
    a.blk.resize(c.L);
    for (int l = 0; l < c.L; l++) {
        BlockActs& b = a.blk[l];
        std::string blk = text("blk.%d.", l);
        int attn = 1 + 2 * l, mlp = 2 + 2 * l;
        // In backward, the MLP half comes first.
        int attn_undone = end - attn, mlp_undone = end - mlp;
        // Read in forward until `last`; from this level on made again at mlp_undone, where backward
        // enters the block.
        auto kept = [&](int level, int born, int last, int undone) -> std::vector<Span> {
            if (recompute < level) return {{born, undone}};
            return {{born, last}, {mlp_undone, undone}};
        };
        row(blk + "residual", &b.residual, N * C, {{l == 0 ? 0 : attn, attn_undone}});
        row(blk + "attn_norm", &b.attn_norm, N * C, kept(1, attn, attn, attn_undone));
        row(blk + "attn_mean", &b.attn_mean, N, {{attn, attn_undone}});
        row(blk + "attn_rstd", &b.attn_rstd, N, {{attn, attn_undone}});
        row(blk + "qkv", &b.qkv, N * 3 * C, kept(2, attn, attn, attn_undone));
        row(blk + "attn", &b.attn, N * C, kept(2, attn, attn, attn_undone));
        row(blk + "lse", &b.lse, N * c.NH, {{attn, attn_undone}});
        row(blk + "attn_output", &b.attn_output, N * C,
            recompute < 2 ? std::vector<Span>{{attn, mlp}} : kept(2, attn, mlp, mlp_undone));
        row(blk + "residual_mid", &b.residual_mid, N * C, kept(2, mlp, mlp + 1, mlp_undone));
        row(blk + "ffn_norm", &b.ffn_norm, N * C, kept(1, mlp, mlp, mlp_undone));
        row(blk + "ffn_mean", &b.ffn_mean, N, {{mlp, mlp_undone}});
        row(blk + "ffn_rstd", &b.ffn_rstd, N, {{mlp, mlp_undone}});
        row(blk + "ffn_pre", &b.ffn_pre, N * 4 * C, kept(2, mlp, mlp, mlp_undone));
        row(blk + "ffn_up", &b.ffn_up, N * 4 * C, kept(1, mlp, mlp, mlp_undone));
        // Read by the next block's first sum.
        row(blk + "ffn_down", &b.ffn_down, N * C, {{mlp, mlp + 1}});
    }
    row("residual", &a.residual, N * C, {{head, end - head}});
    row("output_norm", &a.output_norm, N * C, {{head, end - head}});
    row("mean", &a.mean, N, {{head, end - head}});
    row("rstd", &a.rstd, N, {{head, end - head}});
    row("logits", &a.logits, N * c.Vp, {{head, end - head}});
    row("losses", &a.losses, N, {{head, end - head}});
    row("loss_sum", &a.loss_sum, 1, {{head, end}});
    row("dresidual", &a.dresidual, N * C, {{end - head, end}});
    row("dnorm", &a.dnorm, N * C, {{end - head, end}});
    row("dattn", &a.dattn, N * C, {{end - head, end}});
    row("dqkv", &a.dqkv, N * 3 * C, {{end - head, end}});
    row("dffn_up", &a.dffn_up, N * 4 * C, {{end - head, end}});
    row("D", &a.D, N * c.NH, {{end - head, end}});
    return table;
}

// Gives every row an offset so that rows alive at the same moment never overlap, and returns
// the bytes needed. Largest first, each at the lowest place where it fits (Pisarchyk and Lee 2020,
// arXiv:2001.03288, "greedy by size").
inline size_t plan_memory(std::vector<Activation>& table) {
    const size_t ALIGN = 256;
    std::vector<Activation*> by_size, placed;
    for (Activation& a : table) by_size.push_back(&a);
    std::stable_sort(by_size.begin(), by_size.end(),
                     [](Activation* x, Activation* y) { return x->bytes > y->bytes; });
    size_t total = 0;
    for (Activation* a : by_size) {
        a->offset = 0;
        // In order of offset: step over whoever is in the way.
        for (const Activation* p : placed) {
            if (alive_together(*p, *a) && a->offset + a->bytes > p->offset &&
                p->offset + p->bytes > a->offset)
                a->offset = (p->offset + p->bytes + ALIGN - 1) / ALIGN * ALIGN;
        }
        total = std::max(total, a->offset + a->bytes);
        auto after = [](const Activation* x, const Activation* y) { return x->offset < y->offset; };
        placed.insert(std::upper_bound(placed.begin(), placed.end(), a, after), a);
    }
    return total;
}

// ---- the model ----------------------------------------------------------------------------------

struct GPT2 {
    Config config;
    Weights at;                        // where each parameter starts
    std::vector<Param> table;
    Tensor* tensors;                   // the same for the layers, on the device
    size_t space;                      // elements in each of the next five, padding included
    floatX* params;                    // what the layers read
    float* master;                     // the weights; where floatX is float, params' own buffer
    float *grads, *m, *v;              // grads: loss_scale times the loss's
    float loss_scale;
    std::vector<Activation> activations;
    Acts acts;
    void* arena;                       // holds all activations
    size_t arena_bytes;
    size_t reserved;                   // bytes that the layers keep for themselves
    int recompute;                     // what backward computes once more: activation_table
    int max_B, max_T;                  // the batch that the arena was planned for
    int B, T;                          // the batch of the last forward()
};

// Allocates a model of this configuration for batches of up to B sequences of T tokens. All zero:
// call gpt2_init or gpt2_load next. recompute: 0 to 2, see activation_table.
inline void gpt2_create(GPT2& model, Config c, int B, int T, int recompute = 0) {
    model.config = c;
    model.recompute = recompute;
    model.loss_scale = 1;
    model.table = param_table(c, model.at, model.space);
    model.master = (float*)device_alloc(model.space * sizeof(float));
    bool same = sizeof(floatX) == sizeof(float);
    model.params =
        same ? (floatX*)model.master : (floatX*)device_alloc(model.space * sizeof(floatX));
    model.grads = (float*)device_alloc(model.space * sizeof(float));
    model.m = (float*)device_alloc(model.space * sizeof(float));
    model.v = (float*)device_alloc(model.space * sizeof(float));
    // For the padding between and within tensors, and for AdamW's first step.
    for (float* p : {model.master, model.grads, model.m, model.v})
        device_zero(p, model.space * sizeof(float));
    if (!same) device_zero(model.params, model.space * sizeof(floatX));
    std::vector<Tensor> tensors;
    for (const Param& p : model.table) tensors.push_back({p.offset, p.count, p.decay, p.product});
    model.tensors = (Tensor*)device_alloc(tensors.size() * sizeof(Tensor));
    to_device(model.tensors, tensors.data(), tensors.size() * sizeof(Tensor));
    model.activations = activation_table(c, model.acts, B, T, recompute);
    model.arena_bytes = plan_memory(model.activations);
    model.arena = device_alloc(model.arena_bytes);
    model.reserved = device_reserve(B, T, c.C);
    for (Activation& a : model.activations) *a.slot = (char*)model.arena + a.offset;
    model.max_B = B;
    model.max_T = T;
    model.B = model.T = 0;
}

inline void gpt2_free(GPT2& model) {
    if ((void*)model.params != (void*)model.master) device_free(model.params);
    for (void* p : {(void*)model.master, (void*)model.grads, (void*)model.m, (void*)model.v,
                    (void*)model.tensors, model.arena})
        device_free(p);
}

inline size_t param_count(const GPT2& model) {
    size_t n = 0;
    for (const Param& p : model.table) n += p.count;
    return n;
}

// FLOPs of training on one token (Chowdhery et al. 2022, arXiv:2204.02311, appendix B):
// 6 for each weight of a matrix product (2 forward, 4 backward), and 12 * L * C * T for attention's
// two products, T the sequence's length.
inline double flops_per_token(Config c, int T) {
    double C = c.C, matrices = 12.0 * c.L * C * C + C * c.V;
    return 6.0 * matrices + 12.0 * c.L * C * T;
}

// Sets one parameter from host floats, in both of its forms.
inline void set_param(GPT2& model, const Param& p, const float* host) {
    to_device(model.master + p.offset, host, p.count * sizeof(float));
    if ((void*)model.params == (void*)model.master) return;
    std::vector<floatX> rounded(p.count);
    for (size_t i = 0; i < p.count; i++) rounded[i] = (floatX)host[i];
    to_device(model.params + p.offset, rounded.data(), p.count * sizeof(floatX));
}

// GPT-2's initialisation, a function of the seed alone: every tensor has a generator of its own,
// and a normal number takes two draws of it, so each thread knows where its elements begin.
inline void gpt2_init(GPT2& model, uint64_t seed) {
    std::vector<float> host;
    uint64_t tensor = 0;
    for (const Param& p : model.table) {
        Rng rng = make_rng(seed, RNG_INIT, tensor++);
        host.resize(p.count);
#pragma omp parallel for
        for (size_t i = 0; i < p.count; i++) {
            Rng at = after_draws(rng, 2 * i);
            host[i] = p.init_std > 0 ? p.init_std * normal(at) : p.init_value;
        }
        set_param(model, p, host.data());
    }
}

// ---- GGUF: load and save ------------------------------------------------------------------------

// The configuration that a GPT-2's GGUF describes. Errors: what describe_model refuses, another
// architecture, and what can be run but not trained here.
inline Config gpt2_config(const Gguf& file) {
    const char* path = file.file.path.c_str();
    const Description d = describe_model(file);
    if (strcmp(d.family.name, "gpt2") != 0)
        fail("%s: key general.architecture: \"%s\", but only \"gpt2\" can be trained", path,
             d.family.name);
    if (d.NKV != d.NH)
        fail("%s: key gpt2.attention.head_count_kv: %d, expected %d as gpt2.attention.head_count",
             path, d.NKV, d.NH);
    if (d.F != 4 * d.C)
        fail("%s: key gpt2.feed_forward_length: %d, expected 4 * %d", path, d.F, d.C);
    if (d.eps != LAYERNORM_EPS)
        fail("%s: key gpt2.attention.layer_norm_epsilon: %g, expected %g", path, d.eps,
             LAYERNORM_EPS);
    if (d.V > 65536)
        fail("%s: tensor token_embd.weight: %d tokens, expected at most 65536", path, d.V);
    return make_config(d.T, d.V, d.L, d.NH, d.C);
}

// Row p of the table in a file, under its name and a suffix (".m" for an optimizer's state).
inline const GgufTensor& find_param(const Gguf& file, const Param& p, const char* suffix) {
    const char* path = file.file.path.c_str();
    std::string name = p.name + suffix, want = "{";
    for (uint64_t d : p.dims)
        want += text("%s%llu", want.size() > 1 ? ", " : "", (unsigned long long)d);
    const GgufTensor* t = gguf_tensor(file, name.c_str());
    if (!t) fail("%s: tensor %s: missing", path, name.c_str());
    bool same = t->n_dims == (int)p.dims.size();
    for (int i = 0; same && i < t->n_dims; i++) same = t->dims[i] == p.dims[i];
    if (!same)
        fail("%s: tensor %s: shape %s, expected %s} (was the file made for another model?)", path,
             name.c_str(), gguf_shape(*t).c_str(), want.c_str());
    if (t->type != GGML_F32 && t->type != GGML_F16 && t->type != GGML_BF16)
        fail("%s: tensor %s: type %s, expected F32, F16 or BF16", path, name.c_str(),
             ggml_type_facts(t->type).name);
    return *t;
}

// That a file holds every parameter of a model, once for each suffix, and nothing else. To be
// called before memory is taken: what a file's keys ask for can be far more than its tensors fill.
inline void check_params(const Gguf& file, const Config& c, std::vector<const char*> suffixes) {
    Weights at;
    size_t space;
    std::set<std::string> known = {"output.weight"};   // a copy; gpt2_load compares it
    for (const Param& p : param_table(c, at, space))
        for (const char* suffix : suffixes) known.insert(find_param(file, p, suffix).name);
    gguf_expect_only(file, known);
}

// Reads row p of the table into host floats, all finite and none below `least`.
inline void read_param(const Gguf& file, const Param& p, const char* suffix,
                       std::vector<float>& host, float least = -INFINITY) {
    host.resize(p.count);
    gguf_to_float(host.data(), file, find_param(file, p, suffix), 0, p.count);
    for (size_t i = 0; i < p.count; i++)
        if (!(host[i] >= least && std::isfinite(host[i])))
            fail("%s: tensor %s%s: element %zu is %g, expected a finite number%s",
                 file.file.path.c_str(), p.name.c_str(), suffix, i, host[i],
                 least == 0 ? " from 0 on" : "");
}

// Weights from a GGUF of F32, F16 or BF16 tensors. An output.weight is accepted where it
// repeats token_embd.weight.
inline void gpt2_load(GPT2& model, const Gguf& file) {
    std::vector<float> host;
    for (const Param& p : model.table) {
        read_param(file, p, "", host);
        set_param(model, p, host.data());
    }
    if (!gguf_tensor(file, "output.weight")) return;
    Param tied = model.table.front();
    std::vector<float> output;
    read_param(file, tied, "", host);
    tied.name = "output.weight";
    read_param(file, tied, "", output);
    if (memcmp(host.data(), output.data(), host.size() * sizeof(float)) != 0)
        fail("%s: output.weight differs from token_embd.weight: untied models cannot be trained "
             "here", file.file.path.c_str());
}

// What tells the weights of one step from those of another: the sha256 of the first 1,024 elements
// of every parameter. All of them move in each step, so all of them need not be read.
inline std::string weights_sha256(const GPT2& model) {
    Sha256 sum;
    float host[1024];
    for (const Param& p : model.table) {
        const size_t bytes = sizeof(float) * std::min<size_t>(p.count, 1024);
        to_host(host, model.master + p.offset, bytes);
        sha256_add(sum, host, bytes);
    }
    return sha256_hex(sum);
}

// Adds every tensor of a buffer (master, m or v) to a file, under its name and a suffix. The file
// is then written with to_host.
inline void put_params(const GPT2& model, GgufWriter& w, const float* buffer, const char* suffix) {
    for (const Param& p : model.table)
        gguf_put_tensor(w, (p.name + suffix).c_str(), GGML_F32, p.dims, buffer + p.offset);
}

// A model that llama.cpp opens as it is: configuration, the tokenizer's keys (none: no tokenizer),
// weights. untied adds output.weight, a copy of token_embd.weight, which llama.cpp required before
// 2025-03.
inline void gpt2_save(const GPT2& model, const GgufWriter& tokenizer, bool untied,
                      const std::string& path) {
    GgufWriter w;
    const Config& c = model.config;
    gguf_put_string(w, "general.architecture", "gpt2");
    gguf_put_int(w, "general.file_type", 0);
    gguf_put_int(w, "gpt2.context_length", c.T);
    gguf_put_int(w, "gpt2.embedding_length", c.C);
    gguf_put_int(w, "gpt2.block_count", c.L);
    gguf_put_int(w, "gpt2.feed_forward_length", 4 * c.C);
    gguf_put_int(w, "gpt2.attention.head_count", c.NH);
    gguf_put_float(w, "gpt2.attention.layer_norm_epsilon", LAYERNORM_EPS);
    gguf_put_keys(w, tokenizer);
    put_params(model, w, model.master, "");
    const Param& wte = model.table.front();
    if (untied)
        gguf_put_tensor(w, "output.weight", GGML_F32, wte.dims, model.master + wte.offset);
    gguf_write(w, path, to_host);
}

// ---- forward ------------------------------------------------------------------------------------

// Block l. The first time, x is complete only in block 0: later the MLP of the block
// before is still to be added to it, and this block's own MLP leaves its sum to the next.
// Again, for backward, x is there, and the MLP's last product is not needed.
inline void block_forward(GPT2& model, int l, bool again) {
    const int C = model.config.C, B = model.B, T = model.T;
    const floatX* w = model.params;
    const BlockWeights& p = model.at.blk[l];
    BlockActs& b = model.acts.blk[l];
    if (l == 0 || again)
        layernorm_forward(b.attn_norm, b.attn_mean, b.attn_rstd, b.residual,
                          w + p.attn_norm_weight, w + p.attn_norm_bias, B, T, C);
    else
        residual_layernorm_forward(b.residual, b.attn_norm, b.attn_mean, b.attn_rstd,
                                   model.acts.blk[l - 1].residual_mid,
                                   model.acts.blk[l - 1].ffn_down, w + p.attn_norm_weight,
                                   w + p.attn_norm_bias, B, T, C);
    matmul_forward(b.qkv, nullptr, b.attn_norm, w + p.attn_qkv_weight, w + p.attn_qkv_bias,
                   B, T, C, 3 * C);
    attention_forward(b.attn, b.lse, b.qkv, B, T, C, model.config.NH);
    matmul_forward(b.attn_output, nullptr, b.attn, w + p.attn_output_weight, w + p.attn_output_bias,
                   B, T, C, C);
    residual_layernorm_forward(b.residual_mid, b.ffn_norm, b.ffn_mean, b.ffn_rstd, b.residual,
                               b.attn_output, w + p.ffn_norm_weight, w + p.ffn_norm_bias, B, T, C);
    matmul_forward(b.ffn_up, b.ffn_pre, b.ffn_norm, w + p.ffn_up_weight, w + p.ffn_up_bias,
                   B, T, C, 4 * C);
    if (again) return;
    matmul_forward(b.ffn_down, nullptr, b.ffn_up, w + p.ffn_down_weight, w + p.ffn_down_bias,
                   B, T, 4 * C, C);
}

// From tokens (B, T) to logits (B, T, Vp) in acts.logits. targets (B, T), for cross_entropy(), may
// be null. Both are on the host.
inline void forward(GPT2& model, const int* tokens, const int* targets, int B, int T) {
    const Config c = model.config;
    const int C = c.C, N = B * T;
    if (T > c.T || N > model.max_B * model.max_T)
        fail("forward: a batch of %d x %d, but the context is %d and there is memory for %d x %d",
             B, T, c.T, model.max_B, model.max_T);
    auto check = [&](const char* what, const int* x) {
        for (int i = 0; i < N; i++)
            if (x[i] < 0 || x[i] >= c.V)
                fail("forward: %s %d at row %d, position %d: expected 0 to %d (was the data made "
                     "with another tokenizer?)", what, x[i], i / T, i % T, c.V - 1);
    };
    check("token", tokens);
    if (targets) check("target", targets);
    model.B = B;
    model.T = T;

    const floatX* w = model.params;
    const Weights& at = model.at;
    Acts& a = model.acts;
    // One upload for the whole batch, before the first layer: a later one would wait for all that
    // was called before it. Between tokens and targets, for encoder_backward: the rows ordered by
    // token, each token's behind those of all smaller ones (a counting sort).
    std::vector<int> batch(tokens, tokens + N), next(c.V + 1);
    for (int i = 0; i < N; i++) next[tokens[i] + 1]++;
    for (int v = 0; v < c.V; v++) next[v + 1] += next[v];
    batch.resize(2 * N);
    for (int i = 0; i < N; i++) batch[N + next[tokens[i]]++] = i;
    if (targets) batch.insert(batch.end(), targets, targets + N);
    to_device(a.tokens, batch.data(), sizeof(int) * batch.size());
    a.sorted = a.tokens + N;
    a.targets = a.sorted + N;

    encoder_forward(a.blk[0].residual, a.tokens, w + at.token_embd, w + at.position_embd, B, T, C);
    for (int l = 0; l < c.L; l++) block_forward(model, l, false);
    const BlockActs& last = a.blk[c.L - 1];
    residual_layernorm_forward(a.residual, a.output_norm, a.mean, a.rstd, last.residual_mid,
                               last.ffn_down, w + at.output_norm_weight, w + at.output_norm_bias,
                               B, T, C);
    matmul_forward(a.logits, nullptr, a.output_norm, w + at.token_embd, nullptr, B, T, C, c.Vp);
}

// The losses of the last forward(), and their sum, for mean_loss(). With dloss not 0, the logits
// become their gradient, ready for backward(), times loss_scale: dloss is 1 / (tokens of the whole
// step), over all its micro-batches.
inline void cross_entropy(GPT2& model, float dloss) {
    const Config& c = model.config;
    Acts& a = model.acts;
    classifier(a.losses, dloss != 0 ? a.logits : nullptr, a.logits, a.targets,
               dloss * model.loss_scale, model.B, model.T, c.V, c.Vp);
    sum_losses(a.loss_sum, a.losses, model.B * model.T);
}

// The mean loss that the last cross_entropy() found. It waits for the device, and is best asked for
// when backward() has been called: a GPU then has something to do meanwhile.
inline float mean_loss(const GPT2& model) {
    double sum;
    to_host(&sum, model.acts.loss_sum, sizeof sum);
    return (float)(sum / (model.B * model.T));
}

// ---- backward -----------------------------------------------------------------------------------

// Before backward enters block l: what forward did not keep.
inline void block_recompute(GPT2& model, int l) {
    const int C = model.config.C, B = model.B, T = model.T;
    const floatX* w = model.params;
    const BlockWeights& p = model.at.blk[l];
    BlockActs& b = model.acts.blk[l];
    if (model.recompute == 1) {
        layernorm_forward(b.attn_norm, b.attn_mean, b.attn_rstd, b.residual,
                          w + p.attn_norm_weight, w + p.attn_norm_bias, B, T, C);
        layernorm_forward(b.ffn_norm, b.ffn_mean, b.ffn_rstd, b.residual_mid,
                          w + p.ffn_norm_weight, w + p.ffn_norm_bias, B, T, C);
        gelu_forward(b.ffn_up, b.ffn_pre, B, T, 4 * C);
    }
    if (model.recompute == 2) block_forward(model, l, true);
}

// The gradients of every parameter, from the gradient that cross_entropy left in the logits: they
// take the place of what grads holds, or, with add, are added to it, for all micro-batches of a
// step but the first. Each call undoes one of forward's, the last first. dresidual is the gradient
// of the stream on its way down.
inline void backward(GPT2& model, bool add) {
    const Config c = model.config;
    const int C = c.C, B = model.B, T = model.T;
    const floatX* w = model.params;
    float* dw = model.grads;
    const Weights& at = model.at;
    Acts& a = model.acts;
    // Products write; all other layers add, to what is a thousandth of the whole.
    if (!add) zero_gradients(dw, model.tensors, (int)model.table.size());
    matmul_backward(a.dnorm, dw + at.token_embd, nullptr, a.logits, a.output_norm,
                    w + at.token_embd, nullptr, B, T, C, c.Vp, add);
    layernorm_backward(a.dresidual, dw + at.output_norm_weight, dw + at.output_norm_bias, a.dnorm,
                       a.residual, w + at.output_norm_weight, a.mean, a.rstd, B, T, C);
    for (int l = c.L - 1; l >= 0; l--) {
        const BlockWeights& p = at.blk[l];
        BlockActs& b = a.blk[l];
        block_recompute(model, l);
        matmul_backward(a.dffn_up, dw + p.ffn_down_weight, dw + p.ffn_down_bias, a.dresidual,
                        b.ffn_up, w + p.ffn_down_weight, b.ffn_pre, B, T, 4 * C, C, add);
        matmul_backward(a.dnorm, dw + p.ffn_up_weight, dw + p.ffn_up_bias, a.dffn_up, b.ffn_norm,
                        w + p.ffn_up_weight, nullptr, B, T, C, 4 * C, add);
        residual_layernorm_backward(a.dresidual, dw + p.ffn_norm_weight, dw + p.ffn_norm_bias,
                                    a.dresidual, a.dnorm, b.residual_mid, w + p.ffn_norm_weight,
                                    b.ffn_mean, b.ffn_rstd, B, T, C);
        matmul_backward(a.dattn, dw + p.attn_output_weight, dw + p.attn_output_bias, a.dresidual,
                        b.attn, w + p.attn_output_weight, nullptr, B, T, C, C, add);
        attention_backward(a.dqkv, a.D, a.dattn, b.qkv, b.attn, b.lse, B, T, C, c.NH);
        matmul_backward(a.dnorm, dw + p.attn_qkv_weight, dw + p.attn_qkv_bias, a.dqkv, b.attn_norm,
                        w + p.attn_qkv_weight, nullptr, B, T, C, 3 * C, add);
        residual_layernorm_backward(a.dresidual, dw + p.attn_norm_weight, dw + p.attn_norm_bias,
                                    a.dresidual, a.dnorm, b.residual, w + p.attn_norm_weight,
                                    b.attn_mean, b.attn_rstd, B, T, C);
    }
    encoder_backward(dw + at.token_embd, dw + at.position_embd, a.dresidual, a.tokens, a.sorted,
                     B, T, C);
}

// ---- loss scaling: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2 ----------------------
// float16 has no number between 0 and 6e-8, but many gradients of activations are smaller. So the
// loss is multiplied by a power of two, and with it, by the chain rule, every gradient. Those of
// parameters are float, and it is taken out of them when they are used: no bit is lost. But beyond
// 65,504 there is only infinity: the largest power that suits a model is found on the way.
struct LossScale {
    float factor = 65536;   // 1 to LARGEST_SCALE
    int steps = 0;          // taken since it changed
};
const int LARGEST_SCALE = 1 << 24, SCALE_STEPS = 2000;

// Given the norm of a step's gradients, the scale for what comes next: after SCALE_STEPS steps,
// twice as much. False if the step must not be taken, since something on the way to its gradients
// was infinite: half as much, and they are to be computed again. (The paper leaves such a step out;
// this way the data, AdamW and the learning rate go by one count of steps, as in float32.) Where
// nothing is left to halve, the scale is not to blame.
inline bool adapt_scale(LossScale& scale, double norm) {
    const bool finite = std::isfinite(norm);
    if (!finite && scale.factor == 1) return true;
    if (finite && ++scale.steps < SCALE_STEPS) return true;
    scale.factor = finite ? std::min<float>(2 * scale.factor, LARGEST_SCALE) : scale.factor / 2;
    scale.steps = 0;
    return finite;
}

// ---- update -------------------------------------------------------------------------------------

// The norm of all gradients, without loss_scale. The host waits for it.
inline float gradients_norm(const GPT2& model) {
    return grad_norm(model.grads, model.space) / model.loss_scale;
}

// Multiplies all gradients by min(1, grad_clip / norm) (grad_clip 0: by 1), and moves every
// parameter one AdamW step. norm is gradients_norm's, which the caller has looked at first:
// a step with a norm that is not finite must not be taken.
inline void update(GPT2& model, AdamW adamw, float norm, float grad_clip) {
    adamw.grad_scale = grad_clip > 0 && norm > grad_clip ? grad_clip / norm : 1.0f;
    adamw.grad_scale /= model.loss_scale;
    adamw_update(model.params, model.master, model.grads, model.m, model.v, model.space, adamw,
                 model.tensors, (int)model.table.size());
}
