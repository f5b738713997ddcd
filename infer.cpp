// infer.cpp - the runtime: a model in a GGUF file goes in, text comes out, on the CPU.
//
// The model and forward() are in runtime.h. Here, in reading order:
//
//     sampling       from logits to a token
//     text           ids from text, text from ids, UTF-8 that arrives in pieces
//     commands       generate, chat, tokenize, detokenize, logits, perplexity, bench, show,
//                    quantize, bundle, extract
//     command line   one table of flags, from which parsing and --help come
//
// Results go to stdout, everything else to stderr.
#include <cmath>
#include <sys/utsname.h>
#include "bundle.h"
#include "ceilings.h"
#include "chat.h"
#include "flags.h"
#include "runtime.h"
#include "tokenizer.h"

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
    all.reserve(logit.size());
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
    if ((int)tokenizer.tokens.size() != m.d.V)
        fail("%s: key tokenizer.ggml.tokens: %zu tokens, expected %d from token_embd.weight",
             m.file.file.path.c_str(), tokenizer.tokens.size(), m.d.V);
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
    std::string model, prompt, ids, file, out, type, chat_template, system, runtime;
    int64_t n = 256, top_k = 40, seed = 1, threads = processors();
    int64_t prompt_tokens = 512, generate_tokens = 128, rounds = 5;
    double temp = 0.8, top_p = 0.95, min_p = 0.05, repeat_penalty = 1;
    bool ignore_eos = false, nul = false, special = false, pure = false, help = false;
    std::set<std::string> given;     // the flags that were on the command line, or baked in
    std::vector<std::string> bake;   // the words after --
};

static void check_length(const Model& m, const char* what, size_t length) {
    if (length > (size_t)m.d.T)
        fail("%s: %zu tokens, but the model's context length is %d (key %s)", what, length, m.d.T,
             key_of(m.d, "context_length").c_str());
}

static std::vector<int> ids_of_flag(const Options& o, const Model& m) {
    std::vector<int> ids = parse_ids(o.ids, "--ids", m.d.V);
    if (ids.empty()) fail("--ids: no ids, expected some of 0 to %d, as in --ids 1,2,3", m.d.V - 1);
    check_length(m, "--ids", ids.size());
    return ids;
}

static void run_generate(const Options& o) {
    double start = seconds_now();
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
        ids = encode_prompt(tokenizer, o.prompt);
        if (ids.empty())
            fail("%s: texts begin with no token of their own, so the prompt must not be empty",
                 o.model.c_str());
        check_length(m, "the prompt, with the token that begins a text", ids.size());
        pending = o.prompt;
        print_utf8(pending, false);
    }
    size_t prompt = ids.size();
    State s = new_state(m, (int)std::min<int64_t>(m.d.T, (int64_t)prompt + o.n));
    Work w;
    Sampling how = {with_ids && !o.given.count("--temp") ? 0 : o.temp, o.top_p, o.min_p,
                    o.repeat_penalty, o.top_k, make_rng((uint64_t)o.seed, RNG_SAMPLE, 0)};
    std::vector<float> logit(m.d.V);
    double loaded = seconds_now();

    forward(m, w, s, ids.data(), (int)prompt, 1);
    logits(logit.data(), m, w, 0, 1);
    double prompted = seconds_now();

    int64_t made = 0;
    for (; made < o.n; made++) {
        if (made > 0) {
            if (s.pos == m.d.T) {
                fprintf(stderr, "\nstopped: the context length of %d tokens is reached\n", m.d.T);
                break;
            }
            forward(m, w, s, &ids.back(), 1, 1);
            logits(logit.data(), m, w, 0, 1);
        }
        int id = sample(logit, ids, o.ignore_eos ? m.eot : -1, how);
        if (id == m.eot || is_end(tokenizer, id)) break;
        ids.push_back(id);
        if (with_ids) printf("%s%d", made ? " " : "", id);
        else pending += token_bytes(tokenizer, id);
        print_utf8(pending, false);   // and flush: the text appears as it is made
    }
    print_utf8(pending, true);
    printf("\n");
    fflush(stdout);   // before what stderr says

    double made_in = seconds_now() - prompted;
    fprintf(stderr, "load %.2f s | prompt %zu tokens, %.1f tok/s", loaded - start, prompt,
            prompt / (prompted - loaded));
    if (made > 1)   // the first token came from the prompt's logits
        fprintf(stderr, " | generation %lld tokens, %.1f tok/s, reading %.1f GB/s of weights",
                (long long)made, (made - 1) / made_in,
                (made - 1) / made_in * bytes_per_token(m) / 1e9);
    fprintf(stderr, "\n");
}

static void run_chat(const Options& o) {
    Model m = load_model(o.model);
    Tokenizer tokenizer = load_tokenizer(m);
    Chat chat = new_chat(m.file, tokenizer, m.d.T, o.chat_template,
                         o.given.count("--system") ? &o.system : nullptr);
    const size_t PIECE = 256;   // of a long text, so that Ctrl-C is obeyed soon
    State s = new_state(m, m.d.T);
    Work w;
    Sampling how = {o.temp, o.top_p, o.min_p, o.repeat_penalty, o.top_k,
                    make_rng((uint64_t)o.seed, RNG_SAMPLE, 0)};
    std::vector<float> logit(m.d.V);
    auto next = [&](const std::vector<int>& ids, size_t same) {
        s.pos = (int)same;
        while (true) {
            int n = (int)std::min(PIECE, ids.size() - s.pos);
            forward(m, w, s, &ids[s.pos], n, 1);
            if (chat_interrupted) return -1;
            if ((size_t)s.pos < ids.size()) continue;
            logits(logit.data(), m, w, 0, 1);
            return sample(logit, ids, -1, how);
        }
    };
    hold_chat(chat, next, o.n);
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
    Work w;
    forward(m, w, s, ids.data(), n, n);
    std::vector<float> out((size_t)std::min(LOGIT_ROWS, n) * m.d.V);
    for (int first = 0; first < n; first += LOGIT_ROWS) {
        int rows = std::min(LOGIT_ROWS, n - first);
        logits(out.data(), m, w, first, rows);
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < m.d.V; v++)
                printf("%.9g%c", out[(size_t)i * m.d.V + v], v + 1 < m.d.V ? ' ' : '\n');
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
    int most = (int)std::min<int64_t>(m.d.T, total);
    State s = new_state(m, most);
    Work w;
    std::vector<float> out((size_t)std::min(LOGIT_ROWS, most) * m.d.V);
    std::vector<double> nats(LOGIT_ROWS);
    double sum = 0, start = seconds_now();
    for (int64_t window = 0; window < total; window += m.d.T) {
        int n = (int)std::min<int64_t>(m.d.T, total - window);
        s.pos = 0;
        forward(m, w, s, &ids[window], n, n);
        for (int first = 0; first < n; first += LOGIT_ROWS) {
            int rows = std::min(LOGIT_ROWS, n - first);
            logits(out.data(), m, w, first, rows);
#pragma omp parallel for
            for (int i = 0; i < rows; i++)
                nats[i] = surprise(&out[(size_t)i * m.d.V], ids[window + first + i + 1], m.d.V);
            for (int i = 0; i < rows; i++) sum += nats[i];
        }
        double done = (double)(window + n);
        fprintf(stderr, "\r%.0f of %.0f tokens, %.4f nats/token, %.0f tok/s ", done, (double)total,
                sum / done, done / (seconds_now() - start));
    }
    fprintf(stderr, "\n");
    sum /= (double)total;
    printf("ppl %.9g  nats/token %.9g  tokens %" PRId64 "\n", exp(sum), sum, total);
}

// ---- bench --------------------------------------------------------------------------------------

// A row of the table: what was timed in each round, and what one run of it takes.
struct Timing {
    std::string name;
    int tokens;
    bool one_by_one;
    double flops, bytes;
    std::vector<double> speeds;   // tokens a second
};

// Seconds that a text of so many tokens takes, from its first on; none is chosen, so any do.
static double time_text(const Model& m, Work& w, State& s, std::vector<float>& logit,
                        const Timing& t) {
    std::vector<int> ids(t.tokens);
    for (int i = 0; i < t.tokens; i++) ids[i] = (int)(i * 7919LL % m.d.V);
    s.pos = 0;
    const int step = t.one_by_one ? 1 : t.tokens;
    const double start = seconds_now();
    for (int i = 0; i < t.tokens; i += step) {
        forward(m, w, s, &ids[i], step, 1);
        logits(logit.data(), m, w, 0, 1);
    }
    return seconds_now() - start;
}

static void print_timing(const Timing& t, double peak, double bandwidth) {
    const double n = (double)t.speeds.size();
    double mean = 0, squares = 0;
    for (double x : t.speeds) mean += x / n;
    for (double x : t.speeds) squares += (x - mean) * (x - mean);
    const double runs = mean / t.tokens;   // a second
    printf("| %6s | %9.2f | %9.2f | %8.2f | %6.1f%% | %8.1f | %6.1f%% |\n", t.name.c_str(), mean,
           n > 1 ? sqrt(squares / (n - 1)) : 0, runs * t.bytes / 1e9,
           100 * runs * t.bytes / bandwidth, runs * t.flops / 1e9, 100 * runs * t.flops / peak);
}

// llama-bench's two tests, pp (a prompt) and tg (text generation), in turns, after one of each that
// does not count. FLOPs and bytes are those of the weights, each read once for a prompt's 512
// tokens, or for one that is generated; and of attention's products.
static void run_bench(const Options& o) {
    const Model m = load_model(o.model);
    const Description& d = m.d;
    check_length(m, "--prompt", (size_t)o.prompt_tokens);
    check_length(m, "--generate", (size_t)o.generate_tokens);
    const double weights = weights_per_token(m), bytes = bytes_per_token(m);
    if (o.prompt_tokens + o.generate_tokens == 0)
        fail("--prompt 0 --generate 0: nothing to time, expected one of them above 0");
    std::vector<Timing> timings;
    auto add = [&](const char* name, int tokens, bool one_by_one) {
        if (tokens == 0) return;
        const double attention = 2.0 * d.L * d.C * tokens * (tokens + 1);
        const double calls = one_by_one ? tokens : (tokens + MOST_ROWS - 1) / MOST_ROWS;
        const double rows = one_by_one ? tokens : 1, V = (double)d.V * d.C;   // rows of logits
        const double flops = 2 * (weights - V) * tokens + 2 * V * rows + attention;
        timings.push_back({name + std::to_string(tokens), tokens, one_by_one, flops, bytes * calls,
                           {}});
    };
    add("pp", (int)o.prompt_tokens, false);
    add("tg", (int)o.generate_tokens, true);
    State s = new_state(m, (int)std::max(o.prompt_tokens, o.generate_tokens));
    Work w;
    std::vector<float> logit(d.V);
    for (const Timing& t : timings) time_text(m, w, s, logit, t);
    double peak = peak_flops(FLOAT32), bandwidth = memory_bandwidth(false);
    for (int64_t round = 0; round < o.rounds; round++)
        for (Timing& t : timings) t.speeds.push_back(t.tokens / time_text(m, w, s, logit, t));
    peak = std::max(peak, peak_flops(FLOAT32));
    bandwidth = std::max(bandwidth, memory_bandwidth(false));

    printf("%s: %.1f M weights, %.1f MB read a token; %lld threads, %lld rounds\n"
           "ceilings: %.1f GB/s read, %.0f GFLOP/s in float32\n\n", o.model.c_str(), weights / 1e6,
           bytes / 1e6, (long long)o.threads, (long long)o.rounds, bandwidth / 1e9, peak / 1e9);
    printf("| %6s | %9s | %9s | %8s | %7s | %8s | %7s |\n|---|---|---|---|---|---|---|\n", "test",
           "tok/s", "deviation", "GB/s", "of it", "GFLOP/s", "of it");
    for (const Timing& t : timings) print_timing(t, peak, bandwidth);
}

// ---- files --------------------------------------------------------------------------------------

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

// The type that llama.cpp's llama-quantize gives a tensor: its own where it is no matrix of weights
// or must stay exact; else the wanted one, but unless pure, the matrix that makes logits becomes
// Q6_K where the wanted type has fewer bits. Rows that are no multiple of a block take the next
// larger type whose blocks fit.
static GgmlType quantized_type(const GgufTensor& t, GgmlType wanted, bool pure, bool tied) {
    const std::string& name = t.name;
    auto holds = [&](const char* part) { return name.find(part) != std::string::npos; };
    const bool weight = name.size() >= 6 && name.compare(name.size() - 6, 6, "weight") == 0;
    if (!weight || t.count == t.dims[0] || holds("_norm.weight") || holds("position_embd") ||
        holds("ffn_gate_inp.weight"))
        return t.type;
    const uint64_t block = ggml_type_facts(wanted).block;
    if (block == 1) return wanted;
    const bool logits = name == "output.weight" || (tied && name == "token_embd.weight");
    if (logits && !pure && wanted != GGML_Q8_0)
        wanted = t.dims[0] % block == 0 ? GGML_Q6_K : GGML_Q8_0;
    if (t.dims[0] % ggml_type_facts(wanted).block == 0) return wanted;
    return wanted == GGML_Q6_K && t.dims[0] % 32 == 0 ? GGML_Q8_0 : GGML_F16;
}

// to = t as another type. Returns the error's rms as a part of that of the weights.
static double quantize_tensor(std::vector<uint8_t>& to, const Gguf& g, const GgufTensor& t,
                              GgmlType type) {
    const char *path = g.file.path.c_str(), *name = t.name.c_str();
    const char *from = ggml_type_facts(t.type).name, *wanted = ggml_type_facts(type).name;
    if (t.type != GGML_F32 && t.type != GGML_F16 && t.type != GGML_BF16)
        fail("%s: tensor %s: type %s, expected F32, F16 or BF16 to make %s of it (twice quantized"
             " is twice rounded: take the file it was made from)", path, name, from, wanted);
    const int64_t n = (int64_t)t.dims[0], rows = (int64_t)t.count / n;
    const int64_t bytes = row_bytes(type, n), from_bytes = row_bytes(t.type, n);
    to.resize((size_t)(rows * bytes));
    std::vector<double> squares(rows), errors(rows);
#pragma omp parallel
    {
        std::vector<float> x(n), y(n);
#pragma omp for
        for (int64_t r = 0; r < rows; r++) {
            dequantize(x.data(), t.type, t.data + r * from_bytes, 0, n);
            find_format(type)->quantize(&to[r * bytes], x.data(), n);
            dequantize(y.data(), type, &to[r * bytes], 0, n);
            for (int64_t i = 0; i < n; i++) {
                squares[r] += (double)x[i] * x[i];
                errors[r] += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
            }
        }
    }
    double square = 0, error = 0;
    for (int64_t r = 0; r < rows; r++) {
        square += squares[r], error += errors[r];
        if (std::isfinite(squares[r]) && std::isfinite(errors[r])) continue;
        fail("%s: tensor %s: row %" PRId64 " has a number that %s", path, name, r,
             std::isfinite(squares[r]) ? text("is too large for %s", wanted).c_str()
                                       : "is not finite (did its training diverge?)");
    }
    return square > 0 ? sqrt(error / square) : 0;
}

// The input is mapped while the output is written, and rounding cannot be taken back: they must be
// two files, whatever their names.
static void run_quantize(const Options& o) {
    Gguf g = gguf_open(o.file);
    const Format* wanted = nullptr;
    std::string names;
    for (const Format& f : FORMATS) {
        if (!f.quantize) continue;
        const char* name = ggml_type_facts(f.type).name;
        names += std::string(names.empty() ? "" : ", ") + name;
        if (o.type == name) wanted = &f;
    }
    if (!wanted) fail("%s: is no type to quantize to, expected one of %s", o.type.c_str(),
                      names.c_str());
    if (same_file(o.out, o.file))
        fail("%s: is the file %s itself, expected another to write to", o.out.c_str(),
             o.file.c_str());

    GgufWriter w;
    for (const GgufKey& k : g.keys)
        if (k.name != "general.file_type" && k.name != "general.quantization_version")
            gguf_put_key(w, k);
    gguf_put_int(w, "general.file_type", wanted->file_type);
    gguf_put_int(w, "general.quantization_version", 2);
    const bool tied = !gguf_tensor(g, "output.weight");
    std::vector<std::vector<uint8_t>> made(g.tensors.size());   // what will be written, all of it
    uint64_t before = 0, after = 0;
    for (size_t i = 0; i < g.tensors.size(); i++) {
        const GgufTensor& t = g.tensors[i];
        const GgmlType type = quantized_type(t, wanted->type, o.pure, tied);
        const bool same = type == t.type;
        const double error = same ? 0 : quantize_tensor(made[i], g, t, type);
        gguf_put_tensor(w, t.name, type, {t.dims, t.dims + t.n_dims},
                        same ? t.data : made[i].data());
        before += t.bytes, after += w.tensors.back().tensor.bytes;
        printf("%-30s %-16s %-4s -> %-4s  rms error %.3g\n", t.name.c_str(), gguf_shape(t).c_str(),
               ggml_type_facts(t.type).name, ggml_type_facts(type).name, error);
    }
    gguf_write(w, o.out);
    printf("%s: %.1f MB of weights, %.1f MB before\n", o.out.c_str(), (double)after / 1e6,
           (double)before / 1e6);
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
       QUANTIZE = 64, CHAT = 128, BUNDLE = 256, EXTRACT = 512, BENCH = 1024 };
const int SAMPLE = GENERATE | CHAT, MODEL = SAMPLE | LOGITS | PERPLEXITY | BENCH;
const int WITH_MODEL = MODEL | TOKENIZE | DETOKENIZE;   // -m
const int WITH_FILE = SHOW | BUNDLE | EXTRACT;          // FILE.gguf

struct Command {
    int bit;
    const char* name;
    const char* help;
    void (*run)(const Options&);
};

static const Command COMMANDS[] = {
    {GENERATE, "infer", "continue a text (-p) or token ids (--ids), or begin one", run_generate},
    {CHAT, "infer chat", "answer each line of stdin, as a conversation (/help)", run_chat},
    {TOKENIZE, "infer tokenize", "text on stdin to ids separated by spaces", run_tokenize},
    {DETOKENIZE, "infer detokenize",
     "ids on stdin, separated by spaces, commas or newlines, to bytes", run_detokenize},
    {LOGITS, "infer logits",
     "for each of --ids, a line with the logits of what follows it", run_logits},
    {PERPLEXITY, "infer perplexity", "how well the model predicts a text (-f)", run_perplexity},
    {BENCH, "infer bench", "how fast it is, beside what the machine can do", run_bench},
    {SHOW, "infer show", "the keys and tensors of any GGUF file", run_show},
    {QUANTIZE, "infer quantize", "the same model with smaller weights", run_quantize},
    {BUNDLE, "infer bundle", "one executable (-o) of runtime and model; after --, flags baked in",
     run_bundle},
    {EXTRACT, "infer extract", "the GGUF that is in a bundle, byte for byte", run_extract}};

static std::vector<Flag> flag_table(Options& o) {
    return {
        {"FILE.gguf", "", &o.file, WITH_FILE, "a GGUF file, or a bundle", WITH_FILE},
        {"IN.gguf", "", &o.file, QUANTIZE, "the model, in F32, F16 or BF16", QUANTIZE},
        {"OUT.gguf", "", &o.out, QUANTIZE, "the file to write", QUANTIZE},
        {"TYPE", "", &o.type, QUANTIZE, "F16, BF16, Q8_0, Q4_0 or Q6_K", QUANTIZE},
        {"-m", "FILE.gguf", &o.model, WITH_MODEL, "the model: a GGUF file, or a bundle",
         WITH_MODEL},
        {"-o", "FILE", &o.out, BUNDLE, "the executable to write", BUNDLE},
        {"-o", "FILE.gguf", &o.out, EXTRACT, "the file to write, if not standard output"},
        {"--runtime", "FILE", &o.runtime, BUNDLE,
         "the program to pack, if not infer-MACHINE from infer's folder"},
        {"-p", "TEXT", &o.prompt, GENERATE, "the text to continue, printed as well"},
        {"--ids", "1,2,3", &o.ids, GENERATE | LOGITS,
         "token ids, taken as they are; no tokenizer is needed", LOGITS},
        {"--template", "NAME", &o.chat_template, CHAT,
         "how turns are written: chatml, llama3 or plain; else as the file says"},
        {"--system", "TEXT", &o.system, CHAT, "what the model is told before the conversation"},
        {"-f", "FILE", &o.file, PERPLEXITY, "the text to measure", PERPLEXITY},
        {"--prompt", "N", {&o.prompt_tokens, 0, 1e6}, BENCH, "tokens of a prompt; 0: no such row"},
        {"--generate", "N", {&o.generate_tokens, 0, 1e6}, BENCH,
         "tokens to generate; 0: no such row"},
        {"--rounds", "N", {&o.rounds, 1, 1000}, BENCH, "how often each is timed"},
        {"-n", "N", {&o.n, 0, 1e9}, SAMPLE, "the most tokens to make"},
        {"--temp", "X", {&o.temp, 0, 100}, SAMPLE,
         "temperature; 0 takes the likeliest token, and is the default with --ids"},
        {"--top-k", "N", {&o.top_k, 0, 1e9}, SAMPLE,
         "choose among the N likeliest tokens; 0: all"},
        {"--top-p", "X", {&o.top_p, 0, 1}, SAMPLE,
         "choose among the likeliest that together have probability X"},
        {"--min-p", "X", {&o.min_p, 0, 1}, SAMPLE,
         "leave out tokens less likely than X times the likeliest"},
        {"--repeat-penalty", "X", {&o.repeat_penalty, 1e-3, 1e3}, SAMPLE,
         "above 1: make the last 64 tokens less likely"},
        {"--seed", "N", {&o.seed, 0, 9e15}, SAMPLE, "equal seeds give equal texts"},
        {"--ignore-eos", "", &o.ignore_eos, GENERATE, "never choose end-of-text"},
        {"-0", "", &o.nul, TOKENIZE, "NUL ends a record; print a line for each"},
        {"--special", "", &o.special, TOKENIZE, "recognise <|endoftext|> in the text"},
        {"--pure", "", &o.pure, QUANTIZE,
         "the same type for all matrices, also for the one that makes logits"},
        {"--threads", "N", {&o.threads, 1, 1024}, MODEL | QUANTIZE, "threads to use"},
        {"--help", "", &o.help, ~0, "print this and exit"},
    };
}

// o holds the defaults.
static void print_help(const Command& command, Options& o) {
    std::vector<Flag> flags = flag_table(o);
    printf("infer - run a GPT-2 or a Llama from a GGUF file\n\n"
           "  infer -m model.gguf -p \"Once upon a time\" -n 100\n\n"
           "commands (infer COMMAND --help lists the flags of one)\n");
    for (const Command& c : COMMANDS)
        printf("  %-28s %s\n", usage(flags, c.name, c.bit).c_str(), c.help);
    printf("\nflags of %s\n", command.name);
    print_flags(flags, command.bit);
    printf("\nDefaults are in brackets. A text begins with the end-of-text token, as every text did"
           "\nin training, whatever the file's key add_bos_token says; where tokenizer.ggml.pre is"
           "\nsmollm or llama-bpe, the key decides. Samplers work in the order repeat penalty,"
           "\ntop-k, top-p, min-p, temperature.\n");
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
