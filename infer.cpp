// infer.cpp - the runtime: a GPT-2 in a GGUF file goes in, text comes out, on the CPU.
//
// Its network shares no code with training's but the matrix product and the elementary functions,
// so that each can be checked against the other; gguf.h and tokenizer.h are both programs'. The
// parts, in reading order:
//
//     the model      what a GPT-2 consists of, and how it is found in a file
//     the layers     layernorm, linear, attention
//     forward()      the network, for one token or many, with a cache of keys and values (KV cache)
//     sampling       from logits to a token
//     text           ids from text, text from ids, UTF-8 that arrives in pieces
//     commands       generate, tokenize, detokenize, logits, perplexity, show, bundle, extract
//     command line   one table of flags, from which parsing and --help come
//
// Results go to stdout, everything else to stderr.
#include <chrono>
#include <cmath>
#include <sys/utsname.h>
#include "bundle.h"
#include "flags.h"
#include "gguf.h"
#include "matmul.h"
#include "numerics.h"
#include "threads.h"
#include "tokenizer.h"

// ---- the model ----------------------------------------------------------------------------------
//
// Sizes: L layers, NH heads of hs = C/NH channels, C channels, F channels inside the feed-forward
// layer (4C in every GPT-2 released), T positions, V tokens.

struct Norm {
    const float* weight;   // (C)
    const float* bias;     // (C)
};

// out = weight inp + bias
struct Linear {
    const float* weight;   // (out, in)
    const float* bias;     // (out), or null for none
    int in, out;
};

struct Block {
    Norm attn_norm;
    Linear attn_qkv;       // C -> 3C: the queries, keys and values
    Linear attn_output;    // C -> C
    Norm ffn_norm;
    Linear ffn_up;         // C -> F
    Linear ffn_down;       // F -> C
};

struct Model {
    Gguf file;
    int L, NH, C, F, T, V;
    float eps;                    // of the layernorms
    int eot;                      // the end-of-text token, -1 if the file names none
    const float* token_embd;      // (V, C)
    const float* position_embd;   // (T, C)
    std::vector<Block> blocks;    // L
    Norm output_norm;
    Linear output;                // C -> V: token_embd once more ("tied"), or a matrix of its own
    std::vector<std::vector<float>> converted;   // what the file holds in another type than F32
    std::set<std::string> names;                 // of the tensors that are used
};

// A size of the model, from its key. The bound keeps products of three of them inside 64 bits.
static int load_size(const Gguf& g, const char* key) {
    uint64_t x = gguf_int(g, key);
    if (x < 1 || x > 1 << 20)
        fail("%s: key %s: %" PRIu64 ", expected 1 to %d", g.file.path.c_str(), key, x, 1 << 20);
    return (int)x;
}

// The tensor's floats: in the mapping where they are F32 already, else converted once, here.
// from_key explains the expected shape; {in, out} as GGUF writes it, out = 0 for a vector.
static const float* load_tensor(Model& m, const std::string& name, int in, int out,
                                const char* from_key) {
    const char* path = m.file.file.path.c_str();
    const GgufTensor* t = gguf_tensor(m.file, name);
    m.names.insert(name);
    std::string expected = out ? text("{%d, %d}", in, out) : text("{%d}", in);
    std::string because = text("%s from %s %" PRIu64, expected.c_str(), from_key,
                               gguf_int_or(m.file, from_key, 0));
    if (!t)
        fail("%s: tensor %s: missing, expected shape %s (is the file complete?)", path,
             name.c_str(), because.c_str());
    if (gguf_shape(*t) != expected)
        fail("%s: tensor %s: shape %s, expected %s (was the file made for another model?)", path,
             name.c_str(), gguf_shape(*t).c_str(), because.c_str());
    if (t->type == GGML_F32) return (const float*)t->data;
    if (t->type != GGML_F16 && t->type != GGML_BF16)
        fail("%s: tensor %s: type %s, expected F32, F16 or BF16 (other formats are not supported)",
             path, name.c_str(), ggml_type_facts(t->type).name);
    m.converted.emplace_back(t->count);
    float* floats = m.converted.back().data();
    const int64_t CHUNK = 1 << 16, count = (int64_t)t->count;
#pragma omp parallel for
    for (int64_t i = 0; i < count; i += CHUNK)
        gguf_to_float(floats + i, m.file, *t, i, std::min(CHUNK, count - i));
    return floats;
}

static Norm load_norm(Model& m, const std::string& name) {
    const char* C = "gpt2.embedding_length";
    return {load_tensor(m, name + ".weight", m.C, 0, C), load_tensor(m, name + ".bias", m.C, 0, C)};
}

static Linear load_linear(Model& m, const std::string& name, int in, int out,
                          const char* from_key) {
    return {load_tensor(m, name + ".weight", in, out, from_key),
            load_tensor(m, name + ".bias", out, 0, from_key), in, out};
}

static Model load_model(const std::string& path) {
    Model m;
    m.file = gguf_open(path);
    const Gguf& g = m.file;
    std::string architecture = gguf_string(g, "general.architecture");
    if (architecture != "gpt2")
        fail("%s: key general.architecture: \"%s\", expected \"gpt2\"", path.c_str(),
             gguf_printable(architecture, 60).c_str());
    if (g.tensors.empty())
        fail("%s: has no tensors, expected a model's weights (a tokenizer alone? A run's model is"
             " its model.gguf)", path.c_str());
    m.L = load_size(g, "gpt2.block_count");
    m.NH = load_size(g, "gpt2.attention.head_count");
    m.C = load_size(g, "gpt2.embedding_length");
    m.F = load_size(g, "gpt2.feed_forward_length");
    m.T = load_size(g, "gpt2.context_length");
    if (m.F > 64 * m.C)   // so that no activation is much larger than the weights in the file
        fail("%s: key gpt2.feed_forward_length: %d, expected at most 64 times"
             " gpt2.embedding_length %d (GPT-2 has 4 times)", path.c_str(), m.F, m.C);
    m.eps = (float)gguf_float(g, "gpt2.attention.layer_norm_epsilon");
    if (m.C % m.NH != 0)
        fail("%s: key gpt2.attention.head_count: %d, expected to divide gpt2.embedding_length %d",
             path.c_str(), m.NH, m.C);
    if (!(m.eps >= 0 && m.eps < 1))
        fail("%s: key gpt2.attention.layer_norm_epsilon: %g, expected 0 to 1 (GPT-2 has 1e-5)",
             path.c_str(), m.eps);

    // The vocabulary's size has no key: it is what the embedding's second dimension says.
    const GgufTensor* embd = gguf_tensor(g, "token_embd.weight");
    if (!embd || embd->n_dims != 2 || embd->dims[1] > INT32_MAX)
        fail("%s: tensor token_embd.weight: %s, expected shape {%d, tokens}", path.c_str(),
             embd ? gguf_shape(*embd).c_str() : "missing", m.C);
    m.V = (int)embd->dims[1];
    uint64_t eot = gguf_int_or(g, "tokenizer.ggml.eos_token_id", UINT64_MAX);
    if (eot != UINT64_MAX && eot >= (uint64_t)m.V)
        fail("%s: key tokenizer.ggml.eos_token_id: %" PRIu64 ", expected 0 to %d", path.c_str(),
             eot, m.V - 1);
    m.eot = (int)eot;

    const char *C = "gpt2.embedding_length", *F = "gpt2.feed_forward_length";
    m.token_embd = load_tensor(m, "token_embd.weight", m.C, m.V, C);
    m.position_embd = load_tensor(m, "position_embd.weight", m.C, m.T, "gpt2.context_length");
    for (int l = 0; l < m.L; l++) {
        std::string name = "blk." + std::to_string(l) + ".";
        Block b;
        b.attn_norm = load_norm(m, name + "attn_norm");
        b.attn_qkv = load_linear(m, name + "attn_qkv", m.C, 3 * m.C, C);
        b.attn_output = load_linear(m, name + "attn_output", m.C, m.C, C);
        b.ffn_norm = load_norm(m, name + "ffn_norm");
        b.ffn_up = load_linear(m, name + "ffn_up", m.C, m.F, F);
        b.ffn_down = load_linear(m, name + "ffn_down", m.F, m.C, F);
        m.blocks.push_back(b);
    }
    m.output_norm = load_norm(m, "output_norm");
    m.output = {m.token_embd, nullptr, m.C, m.V};
    if (gguf_tensor(g, "output.weight"))
        m.output.weight = load_tensor(m, "output.weight", m.C, m.V, C);
    gguf_expect_only(g, m.names);
    return m;
}

// ---- the layers ---------------------------------------------------------------------------------
//
// Each works on n rows, one a token. A row's numbers are summed by one thread in a fixed order, so
// results do not depend on the number of threads. Below so many multiply-adds, or elements, one
// thread is done before others would have begun:
[[maybe_unused]] const int64_t WORTH_THREADS = 1 << 17;   // without OpenMP, none are

// out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, each row x of inp. inp, out (n, C)
static void layernorm(float* out, const float* inp, Norm norm, float eps, int n, int C) {
#pragma omp parallel for if ((int64_t)n * C > WORTH_THREADS)
    for (int i = 0; i < n; i++) {
        const float* x = inp + (int64_t)i * C;
        float* o = out + (int64_t)i * C;
        double sum = 0, squares = 0;
        for (int c = 0; c < C; c++) sum += x[c];
        float mean = (float)(sum / C);
        for (int c = 0; c < C; c++) squares += (double)(x[c] - mean) * (x[c] - mean);
        float rstd = (float)(1 / sqrt(squares / C + eps));
        for (int c = 0; c < C; c++) o[c] = (x[c] - mean) * rstd * norm.weight[c] + norm.bias[c];
    }
}

// out (n, w.out) = inp (n, w.in) weight^T + bias
// Many rows are a matrix product, bound by arithmetic. For few, as when one token is made, it is
// reading the weights that takes time: each is read once, in order, and used for all rows.
static void linear(float* out, const float* inp, const Linear& w, int n) {
    if (n >= 8) {
        Finish finish;
        finish.bias = w.bias;
        matmul(out, w.out, {inp, w.in, 1}, {w.weight, 1, w.in}, n, w.out, w.in, finish);
        return;
    }
#pragma omp parallel for if ((int64_t)w.in * w.out > WORTH_THREADS)
    for (int o = 0; o < w.out; o++) {
        const float* row = w.weight + (int64_t)o * w.in;
        for (int i = 0; i < n; i++)
            out[(int64_t)i * w.out + o] =
                dot(inp + (int64_t)i * w.in, row, w.in) + (w.bias ? w.bias[o] : 0);
    }
}

// The n tokens at positions pos .. pos+n-1 look back, head by head, at positions up to their own:
//     score[s] = q[t] . k[s] / sqrt(hs)     p = softmax(score)     out[t] = sum over s of p[s] v[s]
// qkv (n, 3C), a row holding q, k and v;  out (n, C);  keys, values: of each head (pos, hs), which
// the n tokens' own make longer. What a head had beyond pos is forgotten.
static void attention(float* out, std::vector<float>* keys, std::vector<float>* values,
                      const float* qkv, int pos, int n, int NH, int hs) {
    int C = NH * hs;
#pragma omp parallel if ((int64_t)n * (pos + n) * C > WORTH_THREADS)
    {
#pragma omp for
        for (int h = 0; h < NH; h++) {
            keys[h].resize((size_t)pos * hs);
            values[h].resize((size_t)pos * hs);
            for (int t = 0; t < n; t++) {
                const float *k = qkv + (int64_t)t * 3 * C + C + h * hs, *v = k + C;
                keys[h].insert(keys[h].end(), k, k + hs);
                values[h].insert(values[h].end(), v, v + hs);
            }
        }   // all keys and values are in place before any thread goes on
        std::vector<float> p(pos + n);
        float scale = 1 / sqrtf((float)hs);
#pragma omp for collapse(2) schedule(dynamic, 8)
        for (int h = 0; h < NH; h++)
            for (int t = 0; t < n; t++) {
                const float* q = qkv + (int64_t)t * 3 * C + h * hs;
                const float *k = keys[h].data(), *v = values[h].data();
                float* o = out + (int64_t)t * C + h * hs;
                int count = pos + t + 1;
                float max = -INFINITY, sum = 0;
                for (int s = 0; s < count; s++) {
                    p[s] = dot(q, k + (int64_t)s * hs, hs) * scale;
                    if (p[s] > max) max = p[s];
                }
                memset(o, 0, hs * sizeof(float));
                for (int s = 0; s < count; s++) p[s] = exp_f(p[s] - max);
                for (int s = 0; s < count; s++) {
                    sum += p[s];
                    for (int i = 0; i < hs; i++)
                        o[i] = __builtin_fmaf(p[s], v[(int64_t)s * hs + i], o[i]);
                }
                for (int i = 0; i < hs; i++) o[i] /= sum;
            }
    }
}

// ---- forward() ----------------------------------------------------------------------------------

// What a text needs beside the weights: the keys and values of all its tokens so far, so that each
// token passes through the network once, and the activations of up to `most` tokens at a time.
struct State {
    int pos;                    // tokens so far
    std::vector<std::vector<float>> keys, values;   // of L * NH heads, each (pos, hs)
    std::vector<float> x;       // (most, C)   the residual stream
    std::vector<float> norm;    // (most, C)   its layernorm; also what a layer adds to it
    std::vector<float> qkv;     // (most, 3C)
    std::vector<float> heads;   // (most, C)   what attention's heads found
    std::vector<float> up;      // (most, F)
};

static State new_state(const Model& m, int most) {
    State s;
    s.pos = 0;
    s.keys.resize((size_t)m.L * m.NH);
    s.values.resize((size_t)m.L * m.NH);
    s.x.resize((size_t)most * m.C);
    s.norm.resize((size_t)most * m.C);
    s.qkv.resize((size_t)most * 3 * m.C);
    s.heads.resize((size_t)most * m.C);
    s.up.resize((size_t)most * m.F);
    return s;
}

static void add(std::vector<float>& x, const std::vector<float>& y, int64_t count) {
#pragma omp parallel for if (count > WORTH_THREADS)
    for (int64_t i = 0; i < count; i++) x[i] += y[i];
}

// Radford et al. 2019, section 2.3. Appends n tokens to what the model has seen; s.norm (n, C) then
// holds their final vectors, which logits() turns into predictions of each one's successor.
// The caller sees to it that ids are in 0 .. V-1, that s.pos + n <= T, and n <= the state's most.
static void forward(const Model& m, State& s, const int* ids, int n) {
    int C = m.C, F = m.F;
    for (int i = 0; i < n; i++)
        for (int c = 0; c < C; c++)
            s.x[(size_t)i * C + c] = m.token_embd[(size_t)ids[i] * C + c] +
                                     m.position_embd[(size_t)(s.pos + i) * C + c];
    for (int l = 0; l < m.L; l++) {
        const Block& b = m.blocks[l];
        std::vector<float>* keys = &s.keys[(size_t)l * m.NH];
        std::vector<float>* values = &s.values[(size_t)l * m.NH];

        layernorm(s.norm.data(), s.x.data(), b.attn_norm, m.eps, n, C);
        linear(s.qkv.data(), s.norm.data(), b.attn_qkv, n);
        attention(s.heads.data(), keys, values, s.qkv.data(), s.pos, n, m.NH, C / m.NH);
        linear(s.norm.data(), s.heads.data(), b.attn_output, n);
        add(s.x, s.norm, (int64_t)n * C);

        layernorm(s.norm.data(), s.x.data(), b.ffn_norm, m.eps, n, C);
        linear(s.up.data(), s.norm.data(), b.ffn_up, n);
#pragma omp parallel for if ((int64_t)n * F > WORTH_THREADS)
        for (int64_t i = 0; i < (int64_t)n * F; i++) s.up[i] = gelu(s.up[i]);
        linear(s.norm.data(), s.up.data(), b.ffn_down, n);
        add(s.x, s.norm, (int64_t)n * C);
    }
    layernorm(s.norm.data(), s.x.data(), m.output_norm, m.eps, n, C);
    s.pos += n;
}

// A logit is not finite: names the first weight that is not.
[[noreturn]] static void fail_not_finite(const Model& m, int id, float logit) {
    const char* path = m.file.file.path.c_str();
    for (const GgufTensor& t : m.file.tensors)
        for (uint64_t i = 0; i < t.count; i++) {
            float weight;
            gguf_to_float(&weight, m.file, t, i, 1);
            if (!std::isfinite(weight))
                fail("%s: tensor %s: element %" PRIu64 " is %g, expected a finite number (did its"
                     " training diverge?)", path, t.name.c_str(), i, weight);
        }
    fail("%s: token %d has a logit of %g, though all weights are finite (are some too large?)",
         path, id, logit);
}

// out (rows, V): the logits after tokens first .. first+rows-1 of those last given to forward().
static void logits(float* out, const Model& m, const State& s, int first, int rows) {
    linear(out, &s.norm[(size_t)first * m.C], m.output, rows);
    for (int64_t i = 0; i < (int64_t)rows * m.V; i++)
        if (!std::isfinite(out[i])) fail_not_finite(m, (int)(i % m.V), out[i]);
}

// Logits of a whole text take T * V floats, up to 200 MB: they are computed in groups of rows.
const int LOGIT_ROWS = 64;

// ---- sampling -----------------------------------------------------------------------------------

struct Sampling {
    double temp, top_p, min_p, repeat_penalty;
    int64_t top_k;
    Rng rng;
};

struct Candidate {
    int id;
    float logit;
    float p;
};

static bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);   // one order everywhere
}

// Tokens of the last 64 become less likely: their logits shrink towards minus infinity.
// Keskar et al. 2019, arXiv:1909.05858, section 4.1, in the form that serves logits of both signs.
static void penalize_repeats(std::vector<float>& logit, const std::vector<int>& history,
                             float penalty) {
    std::vector<int> recent(history.end() - std::min<size_t>(64, history.size()), history.end());
    std::sort(recent.begin(), recent.end());
    recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
    for (int id : recent) logit[id] = logit[id] > 0 ? logit[id] / penalty : logit[id] * penalty;
}

// One token. The steps and their order are llama.cpp's, so that its users' settings mean the same:
// repeat penalty, top-k, top-p (Holtzman et al. 2019, arXiv:1904.09751), min-p (Nguyen et al. 2024,
// arXiv:2407.01082), temperature. `forbidden` is never chosen (-1: none).
static int sample(std::vector<float>& logit, const std::vector<int>& history, int forbidden,
                  Sampling& how) {
    if (how.repeat_penalty != 1) penalize_repeats(logit, history, (float)how.repeat_penalty);
    std::vector<Candidate> all;
    for (int id = 0; id < (int)logit.size(); id++)
        if (id != forbidden) all.push_back({id, logit[id], 0});
    if (all.empty()) fail("the only token there is has been forbidden by --ignore-eos");
    if (how.temp == 0) return std::min_element(all.begin(), all.end(), is_better)->id;

    size_t k = how.top_k > 0 ? std::min((size_t)how.top_k, all.size()) : all.size();
    std::partial_sort(all.begin(), all.begin() + k, all.end(), is_better);
    all.resize(k);
    float sum = 0;
    for (Candidate& c : all) sum += c.p = exp_f(c.logit - all[0].logit);

    float before = 0;   // the probability of all better candidates
    size_t keep = 0;
    while (keep < all.size() && (keep == 0 || (before < how.top_p * sum &&
                                               all[keep].p >= how.min_p * all[0].p)))
        before += all[keep++].p;
    all.resize(keep);

    sum = 0;
    for (Candidate& c : all) sum += c.p = exp_f((float)((c.logit - all[0].logit) / how.temp));
    float r = uniform(how.rng) * sum;
    for (const Candidate& c : all)
        if ((r -= c.p) < 0) return c.id;
    return all[0].id;   // rounding left a crumb of r: the likeliest takes it
}

// ---- text ---------------------------------------------------------------------------------------

static Tokenizer load_tokenizer(const Model& m) {
    if (!tokenizer_present(m.file))
        fail("%s: has no tokenizer, so it takes no text (give token ids: --ids 1,2,3)",
             m.file.file.path.c_str());
    Tokenizer tokenizer = tokenizer_from_gguf(m.file);
    if ((int)tokenizer.tokens.size() != m.V)
        fail("%s: key tokenizer.ggml.tokens: %zu tokens, expected %d from token_embd.weight",
             m.file.file.path.c_str(), tokenizer.tokens.size(), m.V);
    return tokenizer;
}

// Ids separated by commas, spaces or newlines; `where` is what messages call them.
static std::vector<int> parse_ids(const std::string& s, const char* where, int V) {
    std::vector<int> ids;
    for (size_t i = 0; i < s.size();) {
        size_t end = std::min(s.find_first_of(", \t\r\n", i), s.size());
        if (end > i) {
            std::string word = s.substr(i, end - i);
            if (word.find_first_not_of("0123456789") != std::string::npos)
                fail("%s: \"%s\" is not a token id", where, gguf_printable(word, 40).c_str());
            long id = word.size() < 10 ? atol(word.c_str()) : V;
            if (id >= V)
                fail("%s: token id %s: out of range, expected 0 to %d", where,
                     gguf_printable(word, 40).c_str(), V - 1);
            ids.push_back((int)id);
        }
        i = end + 1;
    }
    return ids;
}

static std::string read_all(FILE* stream) {
    std::string all;
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stream)) > 0;) all.append(buffer, n);
    if (ferror(stream)) fail("standard input: cannot be read: %s", strerror(errno));
    return all;
}

// ---- commands -----------------------------------------------------------------------------------

// What the flags say. The initial values are the defaults, which --help prints.
struct Options {
    std::string model, prompt, ids, file, out, runtime;
    int64_t n = 256, top_k = 40, seed = 1, threads = processors();
    double temp = 0.8, top_p = 0.95, min_p = 0.05, repeat_penalty = 1;
    bool ignore_eos = false, nul = false, special = false, help = false;
    std::set<std::string> given;   // the flags that were on the command line, or baked in
    std::vector<std::string> bake;   // the words after --
};

static double seconds() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

static void check_length(const Model& m, const char* what, size_t length) {
    if (length > (size_t)m.T)
        fail("%s: %zu tokens, but the model's context length is %d (key gpt2.context_length)", what,
             length, m.T);
}

static std::vector<int> ids_of_flag(const Options& o, const Model& m) {
    std::vector<int> ids = parse_ids(o.ids, "--ids", m.V);
    if (ids.empty()) fail("--ids: no ids, expected some of 0 to %d, as in --ids 1,2,3", m.V - 1);
    check_length(m, "--ids", ids.size());
    return ids;
}

// Bytes of weights that one token makes the processor read.
static double bytes_per_token(const Model& m) {
    double floats = (double)m.V * m.C;
    for (const Block& b : m.blocks)
        for (const Linear* w : {&b.attn_qkv, &b.attn_output, &b.ffn_up, &b.ffn_down})
            floats += (double)w->in * w->out;
    return floats * sizeof(float);
}

static void run_generate(const Options& o) {
    double start = seconds();
    Model m = load_model(o.model);
    bool with_ids = o.given.count("--ids");
    if (with_ids && o.given.count("-p")) fail("--ids and -p: only one of them can be the prompt");
    Tokenizer tokenizer;
    std::vector<int> ids;
    std::string pending;   // text that is not printed yet
    if (with_ids) {
        ids = ids_of_flag(o, m);
    } else {
        tokenizer = load_tokenizer(m);
        ids = encode(tokenizer, o.prompt);
        ids.insert(ids.begin(), tokenizer.eot);   // it preceded every document in training
        check_length(m, "the prompt, with the end-of-text token before it", ids.size());
        pending = o.prompt;
        print_utf8(pending, false);
    }
    size_t prompt = ids.size();
    State s = new_state(m, (int)prompt);
    Sampling how = {with_ids && !o.given.count("--temp") ? 0 : o.temp, o.top_p, o.min_p,
                    o.repeat_penalty, o.top_k, make_rng((uint64_t)o.seed, RNG_SAMPLE, 0)};
    std::vector<float> logit(m.V);
    double loaded = seconds();

    forward(m, s, ids.data(), (int)prompt);
    logits(logit.data(), m, s, (int)prompt - 1, 1);
    double prompted = seconds();

    int64_t made = 0;
    for (; made < o.n; made++) {
        if (made > 0) {
            if (s.pos == m.T) {
                fprintf(stderr, "\nstopped: the context length of %d tokens is reached\n", m.T);
                break;
            }
            forward(m, s, &ids.back(), 1);
            logits(logit.data(), m, s, 0, 1);
        }
        int id = sample(logit, ids, o.ignore_eos ? m.eot : -1, how);
        if (id == m.eot) break;
        ids.push_back(id);
        if (with_ids) printf("%s%d", made ? " " : "", id);
        else pending += token_bytes(tokenizer, id);
        print_utf8(pending, false);   // and flush: the text appears as it is made
    }
    print_utf8(pending, true);
    printf("\n");
    fflush(stdout);   // before what stderr says

    double made_in = seconds() - prompted;
    fprintf(stderr, "load %.2f s | prompt %zu tokens, %.1f tok/s", loaded - start, prompt,
            prompt / (prompted - loaded));
    if (made > 1)   // the first token came from the prompt's logits
        fprintf(stderr, " | generation %lld tokens, %.1f tok/s, reading %.1f GB/s of weights",
                (long long)made, (made - 1) / made_in,
                (made - 1) / made_in * bytes_per_token(m) / 1e9);
    fprintf(stderr, "\n");
}

static void print_ids(const std::vector<int>& ids) {
    for (size_t i = 0; i < ids.size(); i++) printf("%s%d", i ? " " : "", ids[i]);
    printf("\n");
}

static void run_tokenize(const Options& o) {
    Gguf g = gguf_open(o.model);
    Tokenizer tokenizer = tokenizer_from_gguf(g);
    std::string input = read_all(stdin);
    if (!o.nul) return print_ids(encode(tokenizer, input, o.special));
    for (size_t i = 0; i < input.size();) {   // a NUL ends a record; the last one may do without
        size_t end = std::min(input.find('\0', i), input.size());
        print_ids(encode(tokenizer, input.substr(i, end - i), o.special));
        i = end + 1;
    }
}

static void run_detokenize(const Options& o) {
    Gguf g = gguf_open(o.model);
    Tokenizer tokenizer = tokenizer_from_gguf(g);
    int V = (int)tokenizer.tokens.size();
    std::string bytes = decode(tokenizer, parse_ids(read_all(stdin), "standard input", V));
    if (isatty(STDOUT_FILENO)) print_utf8(bytes, true);
    else fwrite(bytes.data(), 1, bytes.size(), stdout);
}

static void run_logits(const Options& o) {
    Model m = load_model(o.model);
    std::vector<int> ids = ids_of_flag(o, m);
    int n = (int)ids.size();
    State s = new_state(m, n);
    forward(m, s, ids.data(), n);
    std::vector<float> out((size_t)std::min(LOGIT_ROWS, n) * m.V);
    for (int first = 0; first < n; first += LOGIT_ROWS) {
        int rows = std::min(LOGIT_ROWS, n - first);
        logits(out.data(), m, s, first, rows);
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < m.V; v++)
                printf("%.9g%c", out[(size_t)i * m.V + v], v + 1 < m.V ? ' ' : '\n');
    }
}

// -log softmax(logit)[target], in nats
static double surprise(const float* logit, int target, int V) {
    float max = *std::max_element(logit, logit + V);
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp_f(logit[v] - max);
    return log_d(sum) + max - logit[target];
}

// The file's tokens are those that training would see: end-of-text precedes every document. Windows
// of T inputs follow one another without overlap, and each input predicts its successor, the last
// one the next window's first. So every token but the first end-of-text is predicted exactly once.
static void run_perplexity(const Options& o) {
    Model m = load_model(o.model);
    Tokenizer tokenizer = load_tokenizer(m);
    MappedFile f = map_file(o.file);
    std::vector<int> ids = encode_documents(tokenizer, std::string((const char*)f.data, f.size));
    if (ids.empty()) fail("%s: has no text, only white space", o.file.c_str());
    unmap_file(f);

    int64_t total = (int64_t)ids.size() - 1;
    int most = (int)std::min<int64_t>(m.T, total);
    State s = new_state(m, most);
    std::vector<float> out((size_t)std::min(LOGIT_ROWS, most) * m.V);
    std::vector<double> nats(LOGIT_ROWS);
    double sum = 0, start = seconds();
    for (int64_t window = 0; window < total; window += m.T) {
        int n = (int)std::min<int64_t>(m.T, total - window);
        s.pos = 0;
        forward(m, s, &ids[window], n);
        for (int first = 0; first < n; first += LOGIT_ROWS) {
            int rows = std::min(LOGIT_ROWS, n - first);
            logits(out.data(), m, s, first, rows);
#pragma omp parallel for
            for (int i = 0; i < rows; i++)
                nats[i] = surprise(&out[(size_t)i * m.V], ids[window + first + i + 1], m.V);
            for (int i = 0; i < rows; i++) sum += nats[i];
        }
        double done = (double)(window + n);
        fprintf(stderr, "\r%.0f of %.0f tokens, %.4f nats/token, %.0f tok/s ", done, (double)total,
                sum / done, done / (seconds() - start));
    }
    fprintf(stderr, "\n");
    sum /= (double)total;
    printf("ppl %.9g  nats/token %.9g  tokens %" PRId64 "\n", exp(sum), sum, total);
}

// Names longer than this stand out of their column: one of 60,000 bytes would pad all rows to that.
const size_t NAME_COLUMN = 40;

static void run_show(const Options& o) {
    Gguf g = gguf_open(o.file);
    printf("%s: GGUF version %" PRIu32 ", %zu keys, %zu tensors, %" PRIu64 " bytes\n",
           o.file.c_str(), g.version, g.keys.size(), g.tensors.size(), g.file.size);
    size_t name = 0, type = 0, shape = 0;
    for (const GgufKey& k : g.keys) {
        name = std::max(name, std::min(k.name.size(), NAME_COLUMN));
        type = std::max(type, gguf_type_text(k).size());
    }
    if (!g.keys.empty()) printf("\nkeys\n");
    for (const GgufKey& k : g.keys)
        printf("  %-*s  %-*s  %s\n", (int)name, k.name.c_str(), (int)type,
               gguf_type_text(k).c_str(), gguf_value_text(k).c_str());

    name = 0;
    uint64_t elements = 0;
    for (const GgufTensor& t : g.tensors) {
        name = std::max(name, std::min(t.name.size(), NAME_COLUMN));
        shape = std::max(shape, gguf_shape(t).size());
        elements += t.count;
    }
    if (!g.tensors.empty())
        printf("\ntensors (fastest dimension first), %" PRIu64 " elements\n", elements);
    for (const GgufTensor& t : g.tensors)
        printf("  %-*s  %-5s  %-*s  %11" PRIu64 " bytes\n", (int)name, t.name.c_str(),
               ggml_type_facts(t.type).name, (int)shape, gguf_shape(t).c_str(), t.bytes);
}

// Where a bundle's runtime is looked for: this program's folder, for a machine such as this one. A
// bundle has it in itself.
static std::string find_runtime() {
    const std::string self = own_path();
    if (self.empty())
        fail("--runtime: needed, since this system does not say where infer lies");
    if (read_bundle(self).gguf_at) return self;
    utsname machine;
    uname(&machine);
    const std::string path = parent_folder(self) + "/infer-" + machine.machine;
    if (access(path.c_str(), F_OK) != 0)
        fail("%s: is not there; `make runtime` builds it (or name one: --runtime FILE)",
             path.c_str());
    return path;
}

// What this runtime cannot load, it does not pack either.
static void run_bundle(const Options& o) {
    const std::string runtime = o.runtime.empty() ? find_runtime() : o.runtime;
    for (const std::string& input : {runtime, o.file})
        if (same_file(o.out, input))
            fail("%s: is what is to be packed, expected another file to write", o.out.c_str());
    Model m = load_model(o.file);
    const MappedFile& gguf = m.file.file;
    const uint64_t program = write_bundle(o.out, runtime, o.bake, gguf);
    printf("%s: %.1f MB of program and %.1f MB of model\n", o.out.c_str(), (double)program / 1e6,
           (double)gguf.size / 1e6);
}

static void run_extract(const Options& o) {
    Gguf g = gguf_open(o.file);
    if (!o.out.empty()) {
        if (same_file(o.out, o.file))
            fail("%s: is the bundle itself, expected another file to write", o.out.c_str());
        AtomicFile f = atomic_open(o.out);
        atomic_write(f, g.file.data, g.file.size);
        atomic_close(f);
    } else if (isatty(STDOUT_FILENO)) {
        fail("standard output: is a terminal, which takes no GGUF (-o FILE.gguf, or > FILE.gguf)");
    } else {
        fwrite(g.file.data, 1, g.file.size, stdout);
    }
}

// ---- command line -------------------------------------------------------------------------------

enum { GENERATE = 1, TOKENIZE = 2, DETOKENIZE = 4, LOGITS = 8, PERPLEXITY = 16, SHOW = 32,
       BUNDLE = 64, EXTRACT = 128 };
const int WITH_MODEL = GENERATE | TOKENIZE | DETOKENIZE | LOGITS | PERPLEXITY;   // -m
const int WITH_FILE = SHOW | BUNDLE | EXTRACT;                                   // FILE.gguf

struct Command {
    int bit;
    const char* name;
    const char* help;
    void (*run)(const Options&);
};

static const Command COMMANDS[] = {
    {GENERATE, "infer", "continue a text (-p) or token ids (--ids), or begin one", run_generate},
    {TOKENIZE, "infer tokenize", "text on stdin to ids separated by spaces", run_tokenize},
    {DETOKENIZE, "infer detokenize",
     "ids on stdin, separated by spaces, commas or newlines, to bytes", run_detokenize},
    {LOGITS, "infer logits",
     "for each of --ids, a line with the logits of what follows it", run_logits},
    {PERPLEXITY, "infer perplexity", "how well the model predicts a text (-f)", run_perplexity},
    {SHOW, "infer show", "the keys and tensors of any GGUF file", run_show},
    {BUNDLE, "infer bundle", "one executable (-o) of runtime and model; after --, flags baked in",
     run_bundle},
    {EXTRACT, "infer extract", "the GGUF that is in a bundle, byte for byte", run_extract}};

static std::vector<Flag> flag_table(Options& o) {
    return {
        {"FILE.gguf", "", &o.file, WITH_FILE, "a GGUF file, or a bundle", WITH_FILE},
        {"-m", "FILE.gguf", &o.model, WITH_MODEL, "the model: a GGUF file, or a bundle",
         WITH_MODEL},
        {"-o", "FILE", &o.out, BUNDLE, "the executable to write", BUNDLE},
        {"-o", "FILE.gguf", &o.out, EXTRACT, "the file to write, if not standard output"},
        {"--runtime", "FILE", &o.runtime, BUNDLE,
         "the program to pack, if not infer-MACHINE from infer's folder"},
        {"-p", "TEXT", &o.prompt, GENERATE, "the text to continue, printed as well"},
        {"--ids", "1,2,3", &o.ids, GENERATE | LOGITS,
         "token ids, taken as they are; no tokenizer is needed", LOGITS},
        {"-f", "FILE", &o.file, PERPLEXITY, "the text to measure", PERPLEXITY},
        {"-n", "N", {&o.n, 0, 1e9}, GENERATE, "the most tokens to make"},
        {"--temp", "X", {&o.temp, 0, 100}, GENERATE,
         "temperature; 0 takes the likeliest token, and is the default with --ids"},
        {"--top-k", "N", {&o.top_k, 0, 1e9}, GENERATE,
         "choose among the N likeliest tokens; 0: all"},
        {"--top-p", "X", {&o.top_p, 0, 1}, GENERATE,
         "choose among the likeliest that together have probability X"},
        {"--min-p", "X", {&o.min_p, 0, 1}, GENERATE,
         "leave out tokens less likely than X times the likeliest"},
        {"--repeat-penalty", "X", {&o.repeat_penalty, 1e-3, 1e3}, GENERATE,
         "above 1: make the last 64 tokens less likely"},
        {"--seed", "N", {&o.seed, 0, 9e15}, GENERATE, "equal seeds give equal texts"},
        {"--ignore-eos", "", &o.ignore_eos, GENERATE, "never choose end-of-text"},
        {"-0", "", &o.nul, TOKENIZE, "NUL ends a record; print a line for each"},
        {"--special", "", &o.special, TOKENIZE, "recognise <|endoftext|> in the text"},
        {"--threads", "N", {&o.threads, 1, 1024}, GENERATE | LOGITS | PERPLEXITY,
         "threads to use"},
        {"--help", "", &o.help, ~0, "print this and exit"},
    };
}

// o holds the defaults.
static void print_help(const Command& command, Options& o) {
    std::vector<Flag> flags = flag_table(o);
    printf("infer - run a GPT-2 from a GGUF file with F32, F16 or BF16 weights\n\n"
           "  infer -m model.gguf -p \"Once upon a time\" -n 100\n\n"
           "commands (infer COMMAND --help lists the flags of one)\n");
    for (const Command& c : COMMANDS)
        printf("  %-28s %s\n", usage(flags, c.name, c.bit).c_str(), c.help);
    printf("\nflags of %s\n", command.name);
    print_flags(flags, command.bit);
    printf("\nDefaults are in brackets. A text begins with the end-of-text token, as every text did"
           "\nin training, whatever the file's key add_bos_token says. Samplers work in the order"
           "\nrepeat penalty, top-k, top-p, min-p, temperature.\n");
}

// The command that the words begin with, which is taken off them; generate has no word.
static const Command& take_command(std::vector<std::string>& words) {
    if (words.empty() || words[0][0] == '-') return COMMANDS[0];
    const std::string name = words[0];
    words.erase(words.begin());
    for (const Command& c : COMMANDS)
        if (c.name == "infer " + name) return c;
    fail("%s: unknown command (infer --help lists them; to run a model:"
         " infer -m FILE.gguf -p \"Once upon a time\")", gguf_printable(name, 60).c_str());
}

// Fills in the options, and returns the command. In a bundle, the model is the bundle itself, and
// the words that are baked in are a command line of their own: its command is meant where the user
// names none, and its flags are that command's defaults.
static const Command& parse_command_line(Options& o, const Bundle& self,
                                         std::vector<std::string> words) {
    std::vector<std::string> baked = self.words;
    const Command& usual = take_command(baked);
    const bool named = !words.empty() && words[0][0] != '-';
    const Command& command = named ? take_command(words) : usual;
    if (command.bit == BUNDLE) {
        auto dashes = std::find(words.begin(), words.end(), "--");
        if (dashes != words.end()) o.bake.assign(dashes + 1, words.end());
        words.erase(dashes, words.end());
        Options trial;   // a bundle that does not understand its own words is not written
        trial.help = true;   // what the words do not give, the user may
        parse_command_line(trial, Bundle{1, o.bake}, {});
    }
    std::vector<Flag> flags = flag_table(o);
    auto parse = [&](const std::vector<std::string>& part) {
        o.given.merge(parse_flags(flags, part, command.name, command.bit));
    };
    if (self.gguf_at && (command.bit & WITH_MODEL)) parse({"-m", own_path()});
    if (self.gguf_at && (command.bit & WITH_FILE)) parse({own_path()});
    if (&command == &usual) parse(baked);
    Options defaults = o;
    parse(words);
    if (o.help) o = defaults, o.help = true;   // which --help prints
    else require_flags(flags, o.given, command.name, command.bit);
    return command;
}

int main(int argc, char** argv) {
    spin_briefly(argv);
    const std::string self = own_path();
    Options o;
    const Command& command =
        parse_command_line(o, access(self.c_str(), R_OK) == 0 ? read_bundle(self) : Bundle(),
                           {argv + 1, argv + argc});
    use_threads((int)o.threads);
    if (o.help) print_help(command, o);
    else command.run(o);
    if (fflush(stdout) != 0 || ferror(stdout)) fail("standard output: cannot be written");
    return 0;
}
