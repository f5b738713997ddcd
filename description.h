// description.h - what a file's keys say of the model in it: the family, the sizes, the constants.
// The one place where they are read and bounded; the trainer (gpt2.h) and the runtime (runtime.h)
// ask for what they can compute with.
#pragma once
#include <cmath>
#include "gguf.h"

// What differs between families, one a row. The key general.architecture holds the row's name, and
// the names of all keys below begin with it: "gpt2.block_count".
struct Family {
    const char* name;
    bool rms_norm;         // RMSNorm, or layernorm
    bool rotary;           // positions turn queries and keys, or are vectors added to the tokens'
    bool gated;            // a feed-forward layer with SwiGLU, or with GELU
    bool biases;           // of norms and linear layers
    bool joint_qkv;        // one tensor holds the matrices of queries, keys and values
    const char* epsilon;   // the key of the norms' constant, and what it usually is
    const char* usual;
};

const Family FAMILIES[] = {
    //        RMSNorm rotary gated biases joint
    {"gpt2",  false,  false, false, true,  true,  "attention.layer_norm_epsilon", "1e-5"},
    {"llama", true,   true,  true,  false, false, "attention.layer_norm_rms_epsilon", "1e-5"}};

struct Description {
    Family family;
    int T;              // context length: the most positions
    int V;              // tokens in the vocabulary
    int L;              // blocks
    int NH;             // heads, that is, of the queries
    int NKV;            // heads of the keys and values: each serves NH / NKV heads
    int hs;             // channels of a head: C / NH
    int C;              // channels
    int F;              // channels inside the feed-forward layer
    float eps;          // of the norms
    int rope_dims;      // channels of a head that rotary positions turn
    double rope_base;   // pair i of them by pos * rope_base^(-2 i / rope_dims)
};

// The family's name for one of its keys.
inline std::string key_of(const Description& d, const char* name) {
    return std::string(d.family.name) + "." + name;
}

// A size, 1 to `most`. The bounds are far above any model's, and keep products of three sizes
// inside 64 bits. usual: its value where the key is missing, 0 if it may not be.
inline int model_size(const Gguf& g, const Description& d, const char* name, uint64_t most,
                      uint64_t usual = 0) {
    const std::string key = key_of(d, name);
    const uint64_t x = usual ? gguf_int_or(g, key, usual) : gguf_int(g, key);
    if (x < 1 || x > most)
        fail("%s: key %s: %" PRIu64 ", expected 1 to %" PRIu64, g.file.path.c_str(), key.c_str(), x,
             most);
    return (int)x;
}

// Rotary positions (Su et al. 2021, arXiv:2104.09864), as far as they are supported.
inline void describe_rotary(const Gguf& g, Description& d) {
    const char* path = g.file.path.c_str();
    d.rope_dims = model_size(g, d, "rope.dimension_count", 1 << 16, d.hs);
    if (d.rope_dims > d.hs || d.rope_dims % 2 != 0)
        fail("%s: key %s: %d, expected an even number up to %d, the channels of a head", path,
             key_of(d, "rope.dimension_count").c_str(), d.rope_dims, d.hs);
    const std::string base = key_of(d, "rope.freq_base");
    d.rope_base = gguf_key(g, base) ? gguf_float(g, base) : 10000;   // that of Llama 1 and 2
    if (!(d.rope_base >= 1 && d.rope_base <= 1e12))
        fail("%s: key %s: %g, expected 1 to 1e12 (Llama 3 has 500000)", path, base.c_str(),
             d.rope_base);
    const std::string type = key_of(d, "rope.scaling.type");
    if (gguf_string_or(g, type, "none") != "none")
        fail("%s: key %s: \"%s\" is not supported, expected \"none\"", path, type.c_str(),
             gguf_printable(gguf_string(g, type), 60).c_str());
    for (const char* name : {"rope.scaling.factor", "rope.scale_linear"})   // the latter: old files
        if (gguf_key(g, key_of(d, name)) && gguf_float(g, key_of(d, name)) != 1)
            fail("%s: key %s: %g, but scaled rotary positions are not supported", path,
                 key_of(d, name).c_str(), gguf_float(g, key_of(d, name)));
}

// Errors: an unknown architecture, a missing key, an impossible value.
inline Description describe_model(const Gguf& g) {
    const char* path = g.file.path.c_str();
    const std::string architecture = gguf_string(g, "general.architecture");
    Description d = {};
    std::string known;
    for (const Family& f : FAMILIES) {
        if (architecture == f.name) d.family = f;
        known += text("%s\"%s\"", known.empty() ? "" : " or ", f.name);
    }
    if (!d.family.name)
        fail("%s: key general.architecture: \"%s\", expected %s", path,
             gguf_printable(architecture, 60).c_str(), known.c_str());
    if (g.tensors.empty())
        fail("%s: has no tensors, expected the weights that its keys, %s.block_count and others,"
             " describe (a tokenizer alone? A run's model is its model.gguf)", path,
             d.family.name);
    d.T = model_size(g, d, "context_length", 1 << 20);
    d.C = model_size(g, d, "embedding_length", 1 << 16);
    d.L = model_size(g, d, "block_count", 1 << 10);
    d.F = model_size(g, d, "feed_forward_length", 1 << 18);
    d.NH = model_size(g, d, "attention.head_count", 1 << 10);
    d.NKV = model_size(g, d, "attention.head_count_kv", 1 << 10, d.NH);
    if (d.F > 64 * d.C)   // so that no activation is much larger than the weights in the file
        fail("%s: key %s: %d, expected at most 64 times %s %d (GPT-2 has 4 times)", path,
             key_of(d, "feed_forward_length").c_str(), d.F, key_of(d, "embedding_length").c_str(),
             d.C);
    if (d.C % d.NH != 0)
        fail("%s: key %s: %d, expected to divide %s %d", path,
             key_of(d, "attention.head_count").c_str(), d.NH,
             key_of(d, "embedding_length").c_str(), d.C);
    if (d.NH % d.NKV != 0)
        fail("%s: key %s: %d, expected to divide %s %d", path,
             key_of(d, "attention.head_count_kv").c_str(), d.NKV,
             key_of(d, "attention.head_count").c_str(), d.NH);
    d.hs = d.C / d.NH;
    for (const char* name : {"attention.key_length", "attention.value_length"})
        if (model_size(g, d, name, 1 << 16, d.hs) != d.hs)
            fail("%s: key %s: %d, expected %d, the channels divided by the heads", path,
                 key_of(d, name).c_str(), model_size(g, d, name, 1 << 16), d.hs);
    d.eps = (float)gguf_float(g, key_of(d, d.family.epsilon));
    if (!(d.eps >= 0 && d.eps < 1))
        fail("%s: key %s: %g, expected 0 to 1 (usual is %s)", path,
             key_of(d, d.family.epsilon).c_str(), d.eps, d.family.usual);
    if (d.family.rotary) describe_rotary(g, d);

    // The vocabulary's size has no key: it is what the embedding's second dimension says.
    const GgufTensor* embd = gguf_tensor(g, "token_embd.weight");
    if (!embd || embd->n_dims != 2 || embd->dims[1] > INT32_MAX)
        fail("%s: tensor token_embd.weight: %s, expected shape {%d, tokens}", path,
             embd ? gguf_shape(*embd).c_str() : "missing", d.C);
    d.V = (int)embd->dims[1];
    return d;
}
