// runtime.h - the model that infer runs: its weights, which stay in the file's mapping, and
// forward(), for one token or thousands, of one text or of several at once.
//
// Two families, one forward(). x is a token's vector of C channels, the residual stream:
//
//         GPT-2                                 switch         Llama
//
//         token_embd[id] + position_embd[pos]   rotary         token_embd[id]
//         |                                                    |
//    L x: x--+                                                 x--+
//         |  layernorm (weight, bias)           rms_norm       |  RMSNorm (weight)
//         |  q, k, v: NH heads each             NKV            |  q: NH heads; k, v: NKV heads
//         |  |                                  rotary         |  q, k: pairs turned by pos
//         |  k, v --> the cache                                |  k, v --> the cache
//         |  attention: q over the cache        NKV            |  NH / NKV heads of q share a k, v
//         |  output                                            |  output
//         +--+                                                 +--+
//         x--+                                                 x--+
//         |  layernorm                          rms_norm       |  RMSNorm
//         |  up, GELU                           gated          |  gate, up: silu(gate) * up
//         |  down                                              |  down
//         +--+                                                 +--+
//         |                                                    |
//         layernorm                                            RMSNorm
//         output: token_embd again ("tied"), or a matrix of its own: V logits
//
// Linear layers have biases in GPT-2 and none in Llama. The switches are description.h's Family.
//
// Radford et al. 2019 (GPT-2), section 2.3; Touvron et al. 2023, arXiv:2302.13971 (Llama), section
// 2.2. It shares no code with training but products and elementary functions, so that each can be
// checked against the other.
//
// Parts: the model, found in a file; the layers; the cache; attention; forward(); logits().
#pragma once
#include <memory>
#include <new>
#include <set>
#include "description.h"
#include "matmul.h"
#include "numerics.h"
#include "quants.h"
#include "threads.h"

// ---- the model ----------------------------------------------------------------------------------

struct Norm {
    const float* weight;   // (C)
    const float* bias;     // (C), or null for none
};

// out = weight inp + bias
struct Linear {
    Weight weight;
    const float* bias;     // (out), or null for none
};

struct Block {
    Norm attn_norm;
    Linear attn_q;         // C -> C: NH heads
    Linear attn_k;         // C -> NKV hs
    Linear attn_v;
    Linear attn_output;    // C -> C
    Norm ffn_norm;
    Linear ffn_gate;       // C -> F, where gated
    Linear ffn_up;         // C -> F
    Linear ffn_down;       // F -> C
};

struct Model {
    Gguf file;
    Description d;
    bool int8;                      // products round their input to 8 bits where they can
    int eot;                        // the end-of-text token, -1 if the file names none
    Weight token_embd;              // (V, C)
    Weight position_embd;           // (T, C), where not rotary
    std::vector<double> turns;      // where rotary: of each pair of channels, radians a position
    std::vector<Block> blocks;      // L
    Norm output_norm;
    Linear output;                  // C -> V: token_embd once more, or a matrix of its own
    std::vector<std::vector<float>> converted;   // norms and biases of other types than F32
    std::set<std::string> names;                 // of the tensors that are used
};

// A tensor that must be there. from_key explains the expected shape; {in, out} as GGUF writes it,
// out = 0 for a vector. The weights stay where they are, in the mapping.
inline Weight load_tensor(Model& m, const std::string& name, int in, int out,
                          const char* from_key) {
    const char* path = m.file.file.path.c_str();
    const GgufTensor* t = gguf_tensor(m.file, name);
    m.names.insert(name);
    const std::string key = key_of(m.d, from_key);
    const std::string expected = out ? text("{%d, %d}", in, out) : text("{%d}", in);
    const std::string because =
        gguf_key(m.file, key) ? expected + text(" from %s %" PRIu64, key.c_str(),
                                                gguf_int(m.file, key)) : expected;
    if (!t)
        fail("%s: tensor %s: missing, expected shape %s (is the file complete?)", path,
             name.c_str(), because.c_str());
    if (gguf_shape(*t) != expected)
        fail("%s: tensor %s: shape %s, expected %s (was the file made for another model?)", path,
             name.c_str(), gguf_shape(*t).c_str(), because.c_str());
    if (!can_compute_with(t->type))
        fail("%s: tensor %s: type %s, expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K or"
             " Q6_K (others are not supported)", path, name.c_str(), ggml_type_facts(t->type).name);
    return {t->type, t->data, in, std::max(out, 1), m.int8};
}

// A norm's weights or a bias, as floats: few, so they are converted here where they are no floats.
inline const float* load_vector(Model& m, const std::string& name, int size, const char* from_key) {
    const Weight w = load_tensor(m, name, size, 0, from_key);
    if (w.type == GGML_F32) return (const float*)w.data;
    m.converted.emplace_back(size);
    dequantize(m.converted.back().data(), w.type, w.data, 0, size);
    return m.converted.back().data();
}

inline Norm load_norm(Model& m, const std::string& name) {
    const char* C = "embedding_length";
    const float* weight = load_vector(m, name + ".weight", m.d.C, C);
    return {weight, m.d.family.biases ? load_vector(m, name + ".bias", m.d.C, C) : nullptr};
}

inline Linear load_linear(Model& m, const std::string& name, int in, int out,
                          const char* from_key) {
    const Weight weight = load_tensor(m, name + ".weight", in, out, from_key);
    return {weight,
            m.d.family.biases ? load_vector(m, name + ".bias", out, from_key) : nullptr};
}

// A matrix's rows first .. first+count-1 as a matrix.
inline Linear rows_of(const Linear& l, int first, int count) {
    const Weight& w = l.weight;
    return {{w.type, w.data + first * row_bytes(w.type, w.in), w.in, count, w.int8},
            l.bias ? l.bias + first : nullptr};
}

inline Block load_block(Model& m, const std::string& name) {
    const Description& d = m.d;
    const char *C = "embedding_length", *F = "feed_forward_length";
    const int kv = d.NKV * d.hs;
    Block b = {};
    b.attn_norm = load_norm(m, name + "attn_norm");
    if (d.family.joint_qkv) {
        const Linear all = load_linear(m, name + "attn_qkv", d.C, d.C + 2 * kv, C);
        b.attn_q = rows_of(all, 0, d.C);
        b.attn_k = rows_of(all, d.C, kv);
        b.attn_v = rows_of(all, d.C + kv, kv);
    } else {
        b.attn_q = load_linear(m, name + "attn_q", d.C, d.C, C);
        b.attn_k = load_linear(m, name + "attn_k", d.C, kv, "attention.head_count_kv");
        b.attn_v = load_linear(m, name + "attn_v", d.C, kv, "attention.head_count_kv");
    }
    b.attn_output = load_linear(m, name + "attn_output", d.C, d.C, C);
    b.ffn_norm = load_norm(m, name + "ffn_norm");
    if (d.family.gated) b.ffn_gate = load_linear(m, name + "ffn_gate", d.C, d.F, F);
    b.ffn_up = load_linear(m, name + "ffn_up", d.C, d.F, F);
    b.ffn_down = load_linear(m, name + "ffn_down", d.F, d.C, F);
    return b;
}

// Pair i turns by rope_base^(-2 i / rope_dims) a position; a Llama 3.1 divides that by a factor of
// its own, so that slow pairs reach further (the tensor rope_freqs.weight).
inline void load_turns(Model& m) {
    const Description& d = m.d;
    const int pairs = d.rope_dims / 2;
    for (int i = 0; i < pairs; i++)
        m.turns.push_back(exp_d(-2.0 * i / d.rope_dims * log_d(d.rope_base)));
    const char* name = "rope_freqs.weight";
    if (!gguf_tensor(m.file, name)) return;
    const float* factor = load_vector(m, name, pairs, "rope.dimension_count");
    for (int i = 0; i < pairs; i++) {
        if (!(factor[i] >= 1e-3 && factor[i] <= 1e6))
            fail("%s: tensor %s: element %d is %g, expected 0.001 to 1000000",
                 m.file.file.path.c_str(), name, i, factor[i]);
        m.turns[i] /= factor[i];
    }
}

inline Model load_model(const std::string& path, bool int8 = false) {
    Model m;
    m.int8 = int8;
    m.file = gguf_open(path);
    const Gguf& g = m.file;
    m.d = describe_model(g);
    const Description& d = m.d;
    const uint64_t eot = gguf_int_or(g, "tokenizer.ggml.eos_token_id", UINT64_MAX);
    if (eot != UINT64_MAX && eot >= (uint64_t)d.V)
        fail("%s: key tokenizer.ggml.eos_token_id: %" PRIu64 ", expected 0 to %d", path.c_str(),
             eot, d.V - 1);
    m.eot = (int)eot;

    m.token_embd = load_tensor(m, "token_embd.weight", d.C, d.V, "embedding_length");
    if (d.family.rotary) load_turns(m);
    else m.position_embd = load_tensor(m, "position_embd.weight", d.C, d.T, "context_length");
    for (int l = 0; l < d.L; l++) m.blocks.push_back(load_block(m, text("blk.%d.", l)));
    m.output_norm = load_norm(m, "output_norm");
    m.output = {m.token_embd, nullptr};
    if (gguf_tensor(g, "output.weight"))
        m.output.weight = load_tensor(m, "output.weight", d.C, d.V, "embedding_length");
    gguf_expect_only(g, m.names);
    populate(g.file);
    return m;
}

// The sum of f(w) over the matrices that a token is multiplied by.
template <typename F>
inline double sum_over_products(const Model& m, F f) {
    double sum = f(m.output.weight);
    for (const Block& b : m.blocks)
        for (const Linear* l : {&b.attn_q, &b.attn_k, &b.attn_v, &b.attn_output, &b.ffn_gate,
                                &b.ffn_up, &b.ffn_down})
            if (l->weight.data) sum += f(l->weight);
    return sum;
}

inline double weights_per_token(const Model& m) {
    return sum_over_products(m, [](const Weight& w) { return (double)w.in * w.out; });
}

// Bytes of weights that one token makes the processor read.
inline double bytes_per_token(const Model& m) {
    return sum_over_products(m, [](const Weight& w) {
        return (double)row_bytes(w.type, w.in) * w.out;
    });
}

// ---- the layers ---------------------------------------------------------------------------------
//
// Each works on n rows, one a token. A row's numbers are summed by one thread in a fixed order, so
// results do not depend on the number of threads. Below so many multiply-adds, or elements, one
// thread is done before others would have begun:
[[maybe_unused]] const int64_t WORTH_THREADS = 1 << 17;   // without OpenMP, none are

// The sum of term(0) .. term(n-1), in lanes as dot() has them, but of doubles.
template <typename Term>
inline double sum_lanes(int n, Term term) {
    double lanes[LANES] = {}, sum = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += term(i + j);
    for (int j = 0; i + j < n; j++) lanes[j] += term(i + j);
    for (double lane : lanes) sum += lane;
    return sum;
}

// layernorm  out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias
// RMSNorm    out = x / sqrt(mean(x^2) + eps) * weight         Zhang and Sennrich 2019, section 3
inline void norm_row(float* out, const float* x, Norm norm, const Description& d) {
    const int C = d.C;
    float mean = 0;
    if (!d.family.rms_norm) mean = (float)(sum_lanes(C, [&](int c) { return (double)x[c]; }) / C);
    const double squares = sum_lanes(C, [&](int c) {
        const double difference = x[c] - mean;
        return difference * difference;
    });
    const float rstd = (float)(1 / sqrt(squares / C + d.eps));
    for (int c = 0; c < C; c++) out[c] = (x[c] - mean) * rstd * norm.weight[c];
    if (norm.bias)
        for (int c = 0; c < C; c++) out[c] += norm.bias[c];
}

// What a layer found joins the stream, and the next layer's norm of it: x += more (unless that is
// null), out = norm(x). All (n, C); out may be more.
inline void add_and_norm(float* out, float* x, const float* more, Norm norm, const Description& d,
                         int n) {
    const int64_t C = d.C;
#pragma omp parallel for if (n * C > WORTH_THREADS)
    for (int i = 0; i < n; i++) {
        float* row = x + i * C;
        for (int c = 0; more && c < C; c++) row[c] += more[i * C + c];
        norm_row(out + i * C, row, norm, d);
    }
}

inline Product into(float* out, const Linear& l) { return {out, &l.weight, l.bias}; }

// out (n, weight.out) = inp (n, weight.in) weight^T + bias
inline void linear(float* out, const float* inp, const Linear& l, int n) {
    products({into(out, l)}, inp, n);
}

// Between the feed-forward layer's products, count elements: up = gelu(up), or, where there is a
// gate, silu(gate) * up with silu(x) = x / (1 + e^-x) (Shazeer 2020, arXiv:2002.05202, section 2).
inline void activate(float* up, const float* gate, int64_t count) {
    if (gate) {
#pragma omp parallel for if (8 * count > WORTH_THREADS)
        for (int64_t i = 0; i < count; i++) up[i] *= gate[i] / (1 + exp_f(-gate[i]));
    } else {
#pragma omp parallel for if (8 * count > WORTH_THREADS)
        for (int64_t i = 0; i < count; i++) up[i] = gelu(up[i]);
    }
}

// ---- the cache ----------------------------------------------------------------------------------

struct Unmap {
    size_t bytes;
    void operator()(float* p) const { munmap(p, bytes); }
};

// A text's past: the keys and values of all its tokens so far, so that each token passes through
// the network once. For each layer NKV strips of keys and NKV of values, each (room, hs), so that
// attention reads a head's past in one go. To forget the last tokens, lower pos.
// The strips lie in memory mapped here and not taken before it is written to, so that a large room
// costs nothing until it is used, and a trimmed strip's pages can be given back (madvise). Huge
// pages are declined: each strip would begin with 2 MB.
struct State {
    int pos;    // tokens so far
    int room;   // the most there may be
    std::unique_ptr<float[], Unmap> cache;
};

inline State new_state(const Model& m, int room) {
    const Description& d = m.d;
    const size_t bytes = sizeof(float) * 2 * d.L * d.NKV * d.hs * (size_t)room;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        fail("out of memory: a cache for %d tokens is %zu bytes: %s", room, bytes, strerror(errno));
#ifdef MADV_NOHUGEPAGE
    madvise(p, bytes, MADV_NOHUGEPAGE);
#endif
    return {0, room, std::unique_ptr<float[], Unmap>((float*)p, Unmap{bytes})};
}

enum { KEYS, VALUES };

inline float* strip(const State& s, const Description& d, int layer, int what, int head) {
    return s.cache.get() + ((2 * layer + what) * (int64_t)d.NKV + head) * s.room * d.hs;
}

// One token on its way through the network.
struct Row {
    State* text;
    int id;
    int pos;   // forward() fills it in: the text's next
};

// ---- activations --------------------------------------------------------------------------------

// Queries `row` .. row+count-1, which follow one another in one text, of one head; a single row's
// are those of all heads that share the keys and values of `head`.
struct Task {
    int row, count, head;
    bool together;
};

// Memory for std::vector that begins with a line of the cache: a product reads each row of input
// many times, and a register's worth that lies across two lines takes two reads.
template <typename T>
struct Aligned {
    typedef T value_type;
    T* allocate(size_t n) { return (T*)::operator new(n * sizeof(T), std::align_val_t(64)); }
    void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    bool operator==(Aligned) const { return true; }
    bool operator!=(Aligned) const { return false; }
};
typedef std::vector<float, Aligned<float>> AlignedFloats;

// Buffers for the rows of a call; they grow when they must. One serves any number of texts.
struct Work {
    std::vector<Row> rows;
    std::vector<Task> tasks;          // of attention
    AlignedFloats x;                  // (n, C)    the residual stream
    AlignedFloats norm;               // (n, C)    its norm; also what a layer adds to it
    AlignedFloats q;                  // (n, C)
    AlignedFloats k, v;               // (n, NKV hs)
    AlignedFloats heads;              // (n, C)    what attention's heads found
    AlignedFloats gate;               // (n, F)    where gated
    AlignedFloats up;                 // (n, F)
    AlignedFloats angles;             // (n, rope_dims)   of each pair its cosine and sine
    AlignedFloats out;                // (wanted, C)      final vectors, for logits()
};

inline void make_room(Work& w, const Description& d, int n) {
    auto at_least = [&](AlignedFloats& buffer, int64_t columns) {
        if (buffer.size() < (size_t)(n * columns)) buffer.resize((size_t)(n * columns));
    };
    for (AlignedFloats* buffer : {&w.x, &w.norm, &w.q, &w.heads}) at_least(*buffer, d.C);
    for (AlignedFloats* buffer : {&w.k, &w.v}) at_least(*buffer, d.NKV * d.hs);
    at_least(w.up, d.F);
    if (d.family.gated) at_least(w.gate, d.F);
    at_least(w.angles, d.rope_dims);
}

// ---- positions ----------------------------------------------------------------------------------

// The rows' cosines and sines, the same for all layers. Both by numerics.h: sin x = cos(x - pi/2).
inline void find_angles(Work& w, const Model& m, int n) {
    const int dims = m.d.rope_dims;
#pragma omp parallel for if ((int64_t)n * dims * 64 > WORTH_THREADS)
    for (int i = 0; i < n; i++)
        for (int pair = 0; pair < dims / 2; pair++) {
            const double angle = w.rows[i].pos * m.turns[pair];
            float* to = &w.angles[(size_t)i * dims + 2 * pair];
            to[0] = (float)cos_d(angle);
            to[1] = (float)cos_d(angle - 1.5707963267948966);
        }
}

// Turns the first channels of each head, pair by pair. A pair is two neighbours: GGUF files of
// Llama hold the rows of q's and k's matrices in that order. (Others pair channels i and i + hs/2.)
// The fused operations are written out: of a c - b s beside a s + b c gcc makes them by itself
// (vfmaddsub), even under -ffp-contract=off, and other compilers' bits would differ.
inline void rotate(float* x, const float* angles, int heads, const Description& d) {
    for (int h = 0; h < heads; h++, x += d.hs)
        for (int c = 0; c < d.rope_dims; c += 2) {
            const float cosine = angles[c], sine = angles[c + 1], a = x[c], b = x[c + 1];
            x[c] = __builtin_fmaf(a, cosine, -(b * sine));
            x[c + 1] = __builtin_fmaf(a, sine, b * cosine);
        }
}

// The rows' keys and values go to their texts' caches; before that, rotary positions.
// Queries are turned from row `first` on: nobody asks for those before.
inline void remember(Work& w, const Description& d, int layer, int first, int n) {
    const int64_t kv = d.NKV * d.hs;
#pragma omp parallel for if (n * (d.C + 2 * kv) > WORTH_THREADS)
    for (int i = 0; i < n; i++) {
        float *k = &w.k[(size_t)(i * kv)], *v = &w.v[(size_t)(i * kv)];
        if (d.family.rotary) {
            const float* angles = &w.angles[(size_t)i * d.rope_dims];
            rotate(k, angles, d.NKV, d);
            if (i >= first) rotate(&w.q[(size_t)i * d.C], angles, d.NH, d);
        }
        const Row& row = w.rows[i];
        for (int h = 0; h < d.NKV; h++) {
            const int64_t at = (int64_t)row.pos * d.hs;
            memcpy(strip(*row.text, d, layer, KEYS, h) + at, k + h * d.hs, sizeof(float) * d.hs);
            memcpy(strip(*row.text, d, layer, VALUES, h) + at, v + h * d.hs, sizeof(float) * d.hs);
        }
    }
}

// ---- attention ----------------------------------------------------------------------------------
//
// A query at position t looks back at positions up to its own:
//     score[s] = q . k[s] / sqrt(hs)     p = softmax(score)     out = sum over s of p[s] v[s]
// Heads of q come in NKV groups of NH / NKV neighbours; a group shares the keys and values of one
// head (Ainslie et al. 2023, arXiv:2305.13245). With NKV = NH each group is one head.

// p = softmax(p), n numbers. The largest is taken out first, or e^p would overflow.
inline void softmax(float* p, int n) {
    const float largest = maximum(p, n);
    float sum[LANES] = {};
    for (int i = 0; i < n; i += LANES)
        for (int j = 0; j < std::min(LANES, n - i); j++)
            sum[j] += p[i + j] = exp_f(p[i + j] - largest);
    const float inverse = 1 / add_lanes(sum);
    for (int i = 0; i < n; i++) p[i] *= inverse;
}

// One row's queries of a whole group, which read each key and value once. q, out: (group, hs)
inline void attend_group(float* out, const float* q, const float* keys, const float* values,
                         int count, int group, int hs) {
    static thread_local Scratch scratch;
    const int64_t room = round_up(count, VEC);
    float* p = scratch.at_least(group * room);
    const Vec scale = vec_all(1 / sqrtf((float)hs));
    alignas(64) static thread_local float lanes[VEC][LANES];
    for (int s = 0; s < count; s += VEC)
        for (int g = 0; g < group; g++) {
            for (int i = 0; i < std::min(VEC, count - s); i++) {
                const int64_t at = (int64_t)(s + i) * hs;
                if (g == 0) {
                    ask_for((const uint8_t*)(keys + at + VEC * hs), 4 * hs);
                    ask_for((const uint8_t*)(values + at), 4 * hs);
                }
                dot_lanes(lanes[i], q + (int64_t)g * hs, keys + at, hs);
            }
            vec_store(p + g * room + s, add_rows_of_lanes(lanes) * scale);
        }
    for (int g = 0; g < group; g++) softmax(p + g * room, count);
    gemm(out, hs, {p, room, 1}, {values, hs, 1}, group, hs, count, false);
}

// Up to 32 queries of one head, which follow one another, each a lane of the vectors: the scores
// lie transposed, p[s] holding key s against all queries, so that both products are gemm's and
// softmax has no sum across a vector. q, out: (lanes, hs), rows C apart; the first query looks back
// at `count` positions, its own among them, and each later one at one more.
inline void attend_block(float* out, const float* q, const float* keys, const float* values,
                         int count, int lanes, int hs, int C) {
    static thread_local Scratch scratch;
    const int most = count + lanes - 1;   // positions that the last query looks at
    float* p = scratch.at_least((size_t)LANES * (most + hs));
    float* columns = p + (size_t)LANES * most;
    const float scale = 1 / sqrtf((float)hs);
    for (int c = 0; c < hs; c++)
        for (int j = 0; j < LANES; j++)
            columns[c * LANES + j] = j < lanes ? q[(int64_t)j * C + c] * scale : 0;
    gemm(p, LANES, {keys, hs, 1}, {columns, LANES, 1}, most, LANES, hs, false);
    for (int s = count; s < most; s++)   // what lies after a query is hidden from it
        for (int j = 0; j <= s - count; j++) p[(int64_t)s * LANES + j] = -INFINITY;

    float largest[LANES], sum[LANES] = {};
    memcpy(largest, p, sizeof largest);
    for (int s = 1; s < most; s++)
        for (int j = 0; j < LANES; j++) {
            const float x = p[(int64_t)s * LANES + j];
            largest[j] = x > largest[j] ? x : largest[j];
        }
    for (int s = 0; s < most; s++)
        for (int j = 0; j < LANES; j++) {
            const float e = exp_f(p[(int64_t)s * LANES + j] - largest[j]);
            p[(int64_t)s * LANES + j] = e;
            sum[j] += e;
        }
    gemm(out, C, {p, 1, LANES}, {values, hs, 1}, lanes, hs, most, false);
    for (int j = 0; j < lanes; j++)
        for (int c = 0; c < hs; c++) out[(int64_t)j * C + c] *= 1 / sum[j];
}

// How the queries of rows first .. n-1 are shared out: those of a text in blocks, head by head, or,
// where it has few, row by row: a quarter of a block's lanes must be used for it to be faster.
inline void plan_attention(Work& w, const Description& d, int first, int n) {
    w.tasks.clear();
    for (int row = first, end; row < n; row = end) {
        for (end = row + 1; end < n && w.rows[end].text == w.rows[row].text;) end++;
        if (end - row >= FEW) {
            for (int head = 0; head < d.NH; head++)
                for (int r = row; r < end; r += LANES)
                    w.tasks.push_back({r, std::min(LANES, end - r), head, false});
        } else {
            for (int r = row; r < end; r++)
                for (int head = 0; head < d.NKV; head++) w.tasks.push_back({r, 1, head, true});
        }
    }
}

// heads = what the queries q of the planned rows find in layer's keys and values.
inline void attention(Work& w, const Description& d, int layer) {
    const int group = d.NH / d.NKV, hs = d.hs;
    [[maybe_unused]] int64_t products = 0;   // without OpenMP, nobody asks
    for (const Task& t : w.tasks)
        products += (int64_t)t.count * (w.rows[t.row].pos + 1) * hs * (t.together ? group : 1);
#pragma omp parallel for schedule(dynamic) if (2 * products > WORTH_THREADS)
    for (size_t i = 0; i < w.tasks.size(); i++) {
        const Task& t = w.tasks[i];
        const Row& row = w.rows[t.row];
        const int head = t.together ? t.head * group : t.head, shared = head / group;
        const int64_t at = (int64_t)t.row * d.C + (int64_t)head * hs;
        const float* keys = strip(*row.text, d, layer, KEYS, shared);
        const float* values = strip(*row.text, d, layer, VALUES, shared);
        if (t.together)
            attend_group(&w.heads[at], &w.q[at], keys, values, row.pos + 1, group, hs);
        else
            attend_block(&w.heads[at], &w.q[at], keys, values, row.pos + 1, t.count, hs, d.C);
    }
}

// ---- forward() ----------------------------------------------------------------------------------

inline void embed(Work& w, const Model& m, int n) {
    const Weight &token = m.token_embd, &position = m.position_embd;
    const int64_t C = m.d.C;
    std::vector<float> vector((size_t)C);
    for (int i = 0; i < n; i++) {
        float* x = &w.x[(size_t)(i * C)];
        dequantize(x, token.type, token.data + w.rows[i].id * row_bytes(token.type, C), 0, C);
        if (m.d.family.rotary) continue;
        const uint8_t* row = position.data + w.rows[i].pos * row_bytes(position.type, C);
        dequantize(vector.data(), position.type, row, 0, C);
        for (int c = 0; c < C; c++) x[c] += vector[c];
    }
    if (m.d.family.rotary) find_angles(w, m, n);
}

// w.rows pass through the network: each is the next token of its text, and rows of one text stand
// side by side. Of the last `wanted` rows the final vectors go to out (wanted, C), for logits();
// the others only leave their keys and values, so the last layer ends early for them.
// The caller sees to it that ids are in 0 .. V-1, and that no text outgrows its room.
inline void forward_rows(float* out, const Model& m, Work& w, int wanted) {
    const Description& d = m.d;
    const int n = (int)w.rows.size();
    const int64_t C = d.C;
    make_room(w, d, n);
    for (Row& row : w.rows) row.pos = row.text->pos++;
    embed(w, m, n);
    plan_attention(w, d, 0, n);
    const float* more = nullptr;   // what the layer before adds to the stream
    for (int l = 0; l < d.L; l++) {
        const Block& b = m.blocks[l];
        add_and_norm(w.norm.data(), w.x.data(), more, b.attn_norm, d, n);
        const int first = l == d.L - 1 ? n - wanted : 0, left = n - first;
        float *x = w.x.data() + first * C, *norm = w.norm.data() + first * C;
        const Product q = into(w.q.data() + first * C, b.attn_q);
        const Product k = into(w.k.data(), b.attn_k), v = into(w.v.data(), b.attn_v);
        if (left == n) {
            products({q, k, v}, norm, n);
        } else {
            products({k, v}, w.norm.data(), n);
            if (left > 0) products({q}, norm, left);
        }
        remember(w, d, l, first, n);
        if (left == 0) return;
        if (first > 0) plan_attention(w, d, first, n);
        attention(w, d, l);
        linear(norm, w.heads.data() + first * C, b.attn_output, left);

        add_and_norm(norm, x, norm, b.ffn_norm, d, left);
        const Product up = into(w.up.data(), b.ffn_up);
        if (d.family.gated) products({up, into(w.gate.data(), b.ffn_gate)}, norm, left);
        else products({up}, norm, left);
        activate(w.up.data(), d.family.gated ? w.gate.data() : nullptr, (int64_t)left * d.F);
        linear(norm, w.up.data(), b.ffn_down, left);
        more = norm;
    }
    const int64_t first = n - wanted;
    add_and_norm(out, w.x.data() + first * C, more, m.output_norm, d, wanted);
}

// So many tokens pass through the network at a time: enough for products at full speed, and what
// lies between two layers stays in the caches.
const int MOST_ROWS = 512;

// The next n tokens of one text. w.out then holds the final vectors of the last `wanted` of them.
inline void forward(const Model& m, Work& w, State& s, const int* ids, int n, int wanted) {
    w.out.resize((size_t)wanted * m.d.C);
    float* out = w.out.data();
    for (int first = 0; first < n; first += MOST_ROWS) {
        const int end = std::min(n, first + MOST_ROWS);
        const int some = std::max(0, std::min(end - first, end - (n - wanted)));
        w.rows.clear();
        for (int i = first; i < end; i++) w.rows.push_back({&s, ids[i], 0});
        forward_rows(out, m, w, some);
        out += (int64_t)some * m.d.C;
    }
}

// ---- logits() -----------------------------------------------------------------------------------

// A logit is not finite: names the first weight that is not.
[[noreturn]] inline void fail_not_finite(const Model& m, int id, float logit) {
    const char* path = m.file.file.path.c_str();
    for (const GgufTensor& t : m.file.tensors) {
        std::vector<float> row(t.dims[0]);
        for (uint64_t first = 0; first < t.count; first += t.dims[0]) {
            const int64_t count = (int64_t)t.dims[0];
            dequantize(row.data(), t.type, t.data + row_bytes(t.type, (int64_t)first), 0, count);
            for (uint64_t i = 0; i < t.dims[0]; i++)
                if (!std::isfinite(row[i]))
                    fail("%s: tensor %s: element %" PRIu64 " is %g, expected a finite number (did"
                         " its training diverge?)", path, t.name.c_str(), first + i, row[i]);
        }
    }
    fail("%s: token %d has a logit of %g, though all weights are finite (are some too large?)",
         path, id, logit);
}

// out (rows, V): the logits of what follows, for final vectors first .. first+rows-1 of w.out.
inline void logits(float* out, const Model& m, const Work& w, int first, int rows) {
    linear(out, &w.out[(size_t)first * m.d.C], m.output, rows);
    const int64_t count = (int64_t)rows * m.d.V;
    int bad = 0;
    for (int64_t i = 0; i < count; i++)   // without a branch, so that it vectorises
        bad |= (float_to_bits(out[i]) & 0x7f800000) == 0x7f800000;
    for (int64_t i = 0; bad && i < count; i++)
        if (!std::isfinite(out[i])) fail_not_finite(m, (int)(i % m.d.V), out[i]);
}
