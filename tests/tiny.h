// tiny.h - models of random weights, as files, for tests that need some model and no certain one.
#pragma once
#include <map>
#include <tuple>
#include "../gguf.h"
#include "../numerics.h"

struct Tiny {
    int V, C = 8, L = 2, F = 16;
    const char* family = "gpt2";
    int T = 64;
};

inline std::map<std::string, std::string> tiny_files;   // name, path

inline std::string tiny_file(const Tiny& t) {
    const std::string family = t.family, name = text("%s-%d-%d-%d-%d-%d", t.family, t.V, t.C, t.L,
                                                     t.F, t.T);
    const char* folder = getenv("TMPDIR");
    std::string& path = tiny_files[name];
    if (!path.empty()) return path;
    path = text("%s/tiny.%d.%s.gguf", folder ? folder : "/tmp", (int)getpid(), name.c_str());

    const bool gpt2 = family == "gpt2";
    Rng rng = make_rng((uint64_t)t.C, RNG_INIT, 0);
    std::vector<std::vector<float>> weights;
    weights.reserve(1000);
    GgufWriter w;
    gguf_put_string(w, "general.architecture", family);
    gguf_put_int(w, family + ".context_length", t.T);
    gguf_put_int(w, family + ".embedding_length", t.C);
    gguf_put_int(w, family + ".block_count", t.L);
    gguf_put_int(w, family + ".feed_forward_length", t.F);
    gguf_put_int(w, family + ".attention.head_count", 2);
    gguf_put_float(w, family + (gpt2 ? ".attention.layer_norm_epsilon"
                                     : ".attention.layer_norm_rms_epsilon"), 1e-5f);
    auto put = [&](const std::string& tensor, int in, int out, float mean, float deviation) {
        weights.emplace_back((size_t)in * std::max(out, 1));
        for (float& x : weights.back()) x = mean + deviation * normal(rng);
        std::vector<uint64_t> dims = {(uint64_t)in};
        if (out) dims.push_back((uint64_t)out);
        gguf_put_tensor(w, tensor, GGML_F32, dims, weights.back().data());
    };
    auto norm = [&](const std::string& tensor) {
        put(tensor + ".weight", t.C, 0, 1, 0.2f);
        if (gpt2) put(tensor + ".bias", t.C, 0, 0, 0.2f);
    };
    auto linear = [&](const std::string& tensor, int in, int out) {
        put(tensor + ".weight", in, out, 0, 0.5f);
        if (gpt2) put(tensor + ".bias", out, 0, 0, 0.2f);
    };
    put("token_embd.weight", t.C, t.V, 0, 0.5f);
    if (gpt2) put("position_embd.weight", t.C, t.T, 0, 0.5f);
    for (int l = 0; l < t.L; l++) {
        const std::string b = text("blk.%d.", l);
        norm(b + "attn_norm");
        if (gpt2) linear(b + "attn_qkv", t.C, 3 * t.C);
        else for (const char* x : {"attn_q", "attn_k", "attn_v"}) linear(b + x, t.C, t.C);
        linear(b + "attn_output", t.C, t.C);
        norm(b + "ffn_norm");
        if (!gpt2) linear(b + "ffn_gate", t.C, t.F);
        linear(b + "ffn_up", t.C, t.F);
        linear(b + "ffn_down", t.F, t.C);
    }
    norm("output_norm");
    gguf_write(w, path);
    return path;
}

inline void remove_tiny_files() {
    for (const auto& file : tiny_files) unlink(file.second.c_str());
}
