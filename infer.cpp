// infer.cpp - the runtime: a model in a GGUF file goes in, text comes out, on the CPU.
//
// The model and forward() are in runtime.h. Here, in reading order:
//
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
#include "perplexity.h"
#include "pressure.h"
#include "tokenizer.h"

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
    std::string program;   // as it was called: messages name it so, infer or ./tale
    std::string model, reference, prompt, ids, file, batch, out, type, chat_template, system,
                runtime, draft, psi_file = "/proc/pressure/memory";
    std::vector<std::string> stop, logit_bias;
    int64_t n = 256, top_k = 40, seed = 1, threads = processors(), top_logprobs = 0, ctx = 0,
            draft_ngram = 0, draft_max = 6, kv_keep = 0, kv_tail = 0, prompt_tokens = 512,
            generate_tokens = 128, rounds = 5;
    double temp = 0.8, top_p = 0.95, min_p = 0.05, repeat_penalty = 1, psi_some = 0;
    bool ignore_eos = false, nul = false, special = false, pure = false, help = false,
         json = false, stats = false, int8 = false;
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

// "-" is stdin.
static std::string read_text(const std::string& path) {
    if (path == "-") return read_all(stdin);
    MappedFile f = map_file(path);
    std::string all((const char*)f.data, f.size);
    unmap_file(f);
    return all;
}

// Without the last newline, which an editor or echo has put there: a prompt is to be continued.
static std::string read_prompt(const std::string& path) {
    std::string all = read_text(path);
    if (!all.empty() && all.back() == '\n') all.pop_back();
    return all;
}

static std::pair<int, float> parse_bias(const std::string& s, int V) {
    const size_t colon = s.find(':');
    const std::vector<int> id = parse_ids(s.substr(0, colon), "--logit-bias", V);
    const std::string number = colon == std::string::npos ? "" : s.substr(colon + 1);
    char* end;
    const double x = strtod(number.c_str(), &end);
    if (id.size() != 1 || number.empty() || end != number.c_str() + number.size() || !(x <= 1e6))
        fail("--logit-bias: \"%s\", expected a token id and what is added to its logit, as in"
             " 13:-2.5 or 13:-inf", gguf_printable(s, 60).c_str());
    return {id[0], (float)x};
}

// ends: the tokens that end a text.
static Sampling sampling_of(const Options& o, const std::vector<int>& ends, int V) {
    const bool greedy = o.given.count("--ids") && !o.given.count("--temp");
    Sampling how = {greedy ? 0 : o.temp, o.top_p, o.min_p, o.repeat_penalty, o.top_k,
                    make_rng((uint64_t)o.seed, RNG_SAMPLE, 0)};
    for (const std::string& s : o.logit_bias) how.bias.push_back(parse_bias(s, V));
    for (int id : ends)
        if (o.ignore_eos && id >= 0) how.bias.push_back({id, -INFINITY});
    return how;
}

static Style style_of(const Options& o, const Model& m, Tokenizer& tokenizer) {
    const bool with_ids = o.given.count("--ids");
    const char* prompt = nullptr;
    for (const char* name : {"-p", "--ids", "-f", "-b"}) {
        if (!o.given.count(name)) continue;
        if (prompt) fail("%s and %s: only one of them can be the prompt", prompt, name);
        prompt = name;
    }
    if (o.top_logprobs && !o.json) fail("--top-logprobs: needs --json, which prints them");
    if (with_ids && !o.stop.empty())
        fail("--stop: with --ids, ids are made and no text in which it could stand");
    for (const std::string& stop : o.stop)
        if (stop.empty()) fail("--stop: is empty, expected the text before which to end");
    if (!with_ids) tokenizer = load_tokenizer(m);
    return {with_ids ? nullptr : &tokenizer, o.json, (int)o.top_logprobs,
            with_ids ? std::vector<int>{m.eot} : tokenizer.ends, o.n, m.d.T};
}

// A text that begins with a prompt; `where` is what messages call it.
static Text new_text(const Options& o, const Model& m, const Style& style,
                     const std::string& prompt, const std::string& where) {
    std::vector<int> ids;
    if (style.tokenizer) {
        ids = encode_prompt(*style.tokenizer, prompt);
        if (ids.empty())
            fail("%s: is empty, and %s begins texts with no token of its own", where.c_str(),
                 o.model.c_str());
        check_length(m, (where + ", with the token that begins a text").c_str(), ids.size());
    } else {
        ids = ids_of_flag(o, m);
    }
    Text t = {ids, ids.size(), 0, sampling_of(o, style.ends, m.d.V), {o.stop}};
    if (!o.json) t.pending = prompt;
    if (o.n == 0) end_text(t, style, "length");
    return t;
}

static State state_of(const Model& m, const Text& t, int64_t n) {
    return new_state(m, (int)std::min<int64_t>(m.d.T, (int64_t)t.prompt + n));
}

// timed: the tokens that passes of the model made in that time; prompts' logits gave the others.
static void print_speed(double load, size_t prompt, double prompt_in, int64_t made, int64_t timed,
                        double bytes_read, double made_in) {
    fprintf(stderr, "load %.2f s | prompt %zu tokens, %.1f tok/s", load, prompt,
            (double)prompt / prompt_in);
    if (timed > 0)
        fprintf(stderr, " | generation %lld tokens, %.1f tok/s, reading %.1f GB/s of weights",
                (long long)made, (double)timed / made_in, bytes_read / made_in / 1e9);
    fprintf(stderr, "\n");
}

static Draft draft_of_flags(const Options& o, const Model& m, int room) {
    const bool model = o.given.count("--draft"), ngram = o.given.count("--draft-ngram");
    if (model && ngram) fail("--draft and --draft-ngram: only one of them can guess");
    for (const char* flag : {"--draft-max", "--stats"})
        if (!model && !ngram && o.given.count(flag))
            fail("%s: needs --draft FILE.gguf or --draft-ngram N", flag);
    Draft draft;
    draft.most = model || ngram ? (int)o.draft_max : 0;
    draft.ngram = (int)o.draft_ngram;
    if (model) draft_from_model(draft, o.draft, m, room);
    return draft;
}

// A token's time beside plain decoding's: the median of five steps without guesses, all at the end
// of the text: its caller has cut it in half, so that its length is that of an average step.
static void print_gain(Draft& draft, const Model& m, Work& w, State& s, Text& t, double token) {
    const size_t length = t.ids.size();
    std::vector<float> rows;
    std::vector<double> plain(5);
    draft.most = 0;
    for (double& x : plain) {
        t.ids.resize(length);
        s.pos = (int)length - 1;
        const double start = seconds_now();
        step(t.ids, rows, m, w, s, draft, t.how);
        x = seconds_now() - start;
    }
    std::sort(plain.begin(), plain.end());
    const double steps = (double)std::max<int64_t>(draft.steps, 1);
    fprintf(stderr, "speculation: %lld steps with %.2f guesses, %.2f accepted | a token %.2f ms,"
            " plain decoding %.2f ms: gain %.2f\n", (long long)draft.steps,
            (double)draft.guesses / steps, (double)draft.accepted / steps, token * 1e3,
            plain[2] * 1e3, plain[2] / token);
}

static PressureWatch watch_of_flags(const Options& o) {
    const char* flags[] = {"--psi-some", "--kv-keep", "--kv-tail", "--psi-file"};
    size_t given = 0;
    for (const char* flag : flags) given += o.given.count(flag);
    if (given > 0 && given < 4 - !o.given.count("--psi-file"))
        fail("--psi-some, --kv-keep and --kv-tail: each needs the other two, and --psi-file"
             " all three");
    PressureWatch watch = {o.psi_file, o.psi_some};
    if (given > 0) memory_pressure(o.psi_file);   // fails at once where there is none
    else watch.again = INFINITY;
    return watch;
}

static void run_batch(const Options& o);

static void run_generate(const Options& o) {
    for (const char* flag : {"--draft", "--draft-ngram", "--psi-some"})
        if (o.given.count("-b") && o.given.count(flag))
            fail("%s and -b: a batch keeps its texts whole, and makes them without guesses", flag);
    if (o.given.count("-b")) return run_batch(o);
    double start = seconds_now();
    Model m = load_model(o.model, o.int8);
    Tokenizer tokenizer;
    const Style style = style_of(o, m, tokenizer);
    Text t = new_text(o, m, style, o.given.count("-f") ? read_prompt(o.file) : o.prompt,
                      "the prompt");
    State s = state_of(m, t, o.n);
    Work w;
    Draft draft = draft_of_flags(o, m, s.room);
    PressureWatch watch = watch_of_flags(o);
    print_utf8(t.pending, false);
    std::vector<float> rows;
    double loaded = seconds_now();

    step(t.ids, rows, m, w, s, draft, t.how);
    double prompted = seconds_now();
    draft.bytes_read = 0;
    for (size_t next = t.prompt;;) {
        for (size_t i = next; i < t.ids.size() && t.end.empty(); i++)
            take_token(t, style, t.ids[i], &rows[(i - next) * m.d.V], m.d.V);
        print_utf8(t.pending, false);   // and flush: the text appears as it is made
        if (!t.end.empty()) break;
        if (watch.is_high(seconds_now()))
            relieve(watch, seconds_now(), m, s, t.ids, (int)o.kv_keep, (int)o.kv_tail, draft);
        next = t.ids.size();
        step(t.ids, rows, m, w, s, draft, t.how);
    }
    print_utf8(t.pending, true);
    if (!o.json) printf("\n");
    fflush(stdout);   // before what stderr says
    if (t.end == "context")
        fprintf(stderr, "stopped: the context length of %d tokens is reached\n", m.d.T);
    const int64_t later = std::max<int64_t>(1, t.made) - 1;   // the first came from the prompt's
    const double made_in = seconds_now() - prompted;
    print_speed(loaded - start, t.prompt, prompted - loaded, t.made, later, draft.bytes_read,
                made_in);
    if (o.stats && later > 0) {
        t.ids.resize(std::max<int64_t>(1, (int64_t)t.ids.size() - later / 2));
        print_gain(draft, m, w, s, t, made_in / (double)later);
    }
}

// So many texts are decoded together. Up to FEW - 1 rows, products give the bits that each row
// alone gives, so that a text does not depend on its neighbours.
const int BATCH = FEW - 1;

// Of a file's prompts, BATCH are in work at a time, each at its own position: one that has ended
// makes room for the next. Line i, counted from 0, is made with seed + i.
static void run_batch(const Options& o) {
    double start = seconds_now();
    Model m = load_model(o.model, o.int8);
    Tokenizer tokenizer;
    const Style style = style_of(o, m, tokenizer);
    const std::string lines = read_prompt(o.batch) + "\n";
    std::vector<Text> texts;
    for (size_t at = 0, end; at < lines.size(); at = end + 1) {
        end = lines.find('\n', at);
        const std::string where = text("%s:%zu", o.batch.c_str(), texts.size() + 1);
        const bool cr = end > at && lines[end - 1] == '\r';
        Text t = new_text(o, m, style, lines.substr(at, end - at - cr), where);
        t.how.rng = make_rng((uint64_t)o.seed + texts.size(), RNG_SAMPLE, 0);
        t.label = text("\"line\": %zu, ", texts.size() + 1);
        if (!o.json) t.pending = "==> " + where + " <==\n" + t.pending;
        texts.push_back(std::move(t));
    }

    struct Running {
        Text* text;
        State state;
    };
    std::vector<Running> running;
    Work w;
    std::vector<float> logit((size_t)BATCH * m.d.V);
    double loaded = seconds_now(), prompt_in = 0, made_in = 0;
    size_t next = 0, printed = 0, prompts = 0;
    int64_t made = 0, timed = 0, passes = 0;
    // The texts first .. of those in work go on by a token, from logits in the same order.
    auto go_on = [&](size_t first) {
#pragma omp parallel for
        for (size_t i = first; i < running.size(); i++) {
            Text& t = *running[i].text;
            const float* row = &logit[(i - first) * m.d.V];
            t.ids.push_back(sample(row, m.d.V, t.ids, t.how));
            take_token(t, style, t.ids.back(), row, m.d.V);
        }
        running.erase(std::remove_if(running.begin(), running.end(),
                                     [](const Running& r) { return !r.text->end.empty(); }),
                      running.end());
    };
    while (printed < texts.size()) {
        const double before = seconds_now();
        while (next < texts.size() && running.size() < (size_t)BATCH) {
            Text& t = texts[next++];
            if (!t.end.empty()) continue;
            running.push_back({&t, state_of(m, t, o.n)});
            forward(m, w, running.back().state, t.ids.data(), (int)t.prompt, 1);
            logits(logit.data(), m, w, 0, 1);
            go_on(running.size() - 1);
            prompts += t.prompt;
        }
        const double prompted = seconds_now();
        prompt_in += prompted - before;
        if (!running.empty()) {
            w.rows.clear();
            for (Running& r : running) w.rows.push_back({&r.state, r.text->ids.back(), 0});
            w.out.resize(running.size() * m.d.C);
            forward_rows(w.out.data(), m, w, (int)running.size());
            logits(logit.data(), m, w, 0, (int)running.size());
            timed += (int64_t)running.size(), passes++;
            go_on(0);
            made_in += seconds_now() - prompted;
        }
        for (; printed < texts.size(); printed++) {   // in order, the first of them as it is made
            print_utf8(texts[printed].pending, !texts[printed].end.empty());
            if (texts[printed].end.empty()) break;
            if (!o.json) printf("\n");
        }
    }
    fflush(stdout);
    for (const Text& t : texts) made += t.made;
    print_speed(loaded - start, prompts, prompt_in, made, timed,
                (double)passes * bytes_per_token(m), made_in);
}

static void run_chat(const Options& o) {
    Model m = load_model(o.model, o.int8);
    Tokenizer tokenizer = load_tokenizer(m);
    Chat chat = new_chat(m.file, tokenizer, m.d.T, o.chat_template,
                         o.given.count("--system") ? &o.system : nullptr);
    const size_t PIECE = 256;   // of a long text, so that Ctrl-C is obeyed soon
    State s = new_state(m, m.d.T);
    Work w;
    Sampling how = sampling_of(o, {}, m.d.V);
    std::vector<float> logit(m.d.V);
    auto next = [&](const std::vector<int>& ids, size_t same) {
        s.pos = (int)same;
        while (true) {
            int n = (int)std::min(PIECE, ids.size() - s.pos);
            forward(m, w, s, &ids[s.pos], n, 1);
            if (chat_interrupted) return -1;
            if ((size_t)s.pos < ids.size()) continue;
            logits(logit.data(), m, w, 0, 1);
            return sample(logit.data(), m.d.V, ids, how);
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
    Model m = load_model(o.model, o.int8);
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

// The text's tokens, and the windows in which they are scored. Without --ctx they are those that
// training would see: what begins a text precedes every document. With it they are llama.cpp's: the
// file is one text, and where the model's key add_bos_token says so, the token that begins texts
// precedes it and replaces the first of each window.
static Windows read_windows(std::vector<int>& ids, const Options& o, const Model& m,
                            const Tokenizer& t, int context) {
    if (!o.ctx) {
        ids = encode_documents(t, read_text(o.file));
        if (ids.size() < 2) fail("%s: has no text, or a single token of it", o.file.c_str());
        return {context, 0, context, -1};
    }
    if (o.ctx < 4 || o.ctx > context)
        fail("--ctx: %lld, expected 4 to %d, the model's context length", (long long)o.ctx,
             context);
    const char* key = "tokenizer.ggml.add_bos_token";
    const int begin = gguf_bool_or(m.file, key, t.kind.bos) ? t.begin : -1, size = (int)o.ctx;
    ids = encode(t, read_prompt(o.file));
    if (begin >= 0) ids.insert(ids.begin(), begin);
    if (ids.size() < (size_t)size)
        fail("%s: %zu tokens, expected %d or more, a window of --ctx", o.file.c_str(), ids.size(),
             size);
    ids.resize(ids.size() / size * size);
    return {size, size / 2, size - 1, begin};
}

static Reader reference_of(const Options& o, const Model& m) {
    Reader ref = new_reader(o.reference);
    if (tokenizer_sha256(ref.m.file) != tokenizer_sha256(m.file) || ref.m.d.V != m.d.V)
        fail("%s: its vocabulary is another than that of %s, expected the same tokens and merges",
             o.reference.c_str(), o.model.c_str());
    return ref;
}

static void run_perplexity(const Options& o) {
    Reader model = new_reader(o.model, o.int8), other = {};
    const Tokenizer tokenizer = load_tokenizer(model.m);
    Reader* ref = nullptr;
    if (o.given.count("--kl")) other = reference_of(o, model.m), ref = &other;
    const int context = ref ? std::min(model.m.d.T, ref->m.d.T) : model.m.d.T;
    std::vector<int> ids;
    const Windows windows = read_windows(ids, o, model.m, tokenizer, context);

    std::vector<Score> scores;
    double sum = 0, start = seconds_now();
    for (size_t at = 0; at + 1 < ids.size(); at += windows.size) {
        const size_t before = scores.size();
        score_window(scores, model, ref, ids, at, windows);
        for (size_t i = before; i < scores.size(); i++) sum += scores[i].surprise;
        const size_t done = std::min(at + windows.size, ids.size() - 1);
        fprintf(stderr, "\r%zu of %zu tokens, %.4f nats/token, %.0f tok/s ", done, ids.size() - 1,
                sum / (double)scores.size(), (double)done / (seconds_now() - start));
    }
    fprintf(stderr, "\n");
    const Mean nats = mean_of(scores, [](const Score& s) { return s.surprise; });
    printf("ppl %.9g +/- %.3g  nats/token %.9g  tokens %zu\n", exp(nats.mean),
           exp(nats.mean) * nats.error, nats.mean, scores.size());
    if (!ref) return;
    const Mean theirs = mean_of(scores, [](const Score& s) { return s.ref_surprise; });
    const Mean kl = mean_of(scores, [](const Score& s) { return s.divergence; });
    const Mean same = mean_of(scores, [](const Score& s) { return s.same_top; });
    double most = 0;
    for (const Score& s : scores) most = std::max(most, s.divergence);
    printf("reference: ppl %.9g +/- %.3g\n", exp(theirs.mean), exp(theirs.mean) * theirs.error);
    printf("kl %.6g +/- %.3g nats/token  largest %.4g  same top token %.2f%% +/- %.2f%%\n", kl.mean,
           kl.error, most, 100 * same.mean, 100 * same.error);
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
    const Model m = load_model(o.model, o.int8);
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

// Writes t as another type. Returns the error's rms as a part of that of the weights.
static double quantize_tensor(AtomicFile& f, const Gguf& g, const GgufTensor& t, GgmlType type) {
    const int64_t n = (int64_t)t.dims[0], rows = (int64_t)t.count / n;
    const int64_t bytes = row_bytes(type, n), from_bytes = row_bytes(t.type, n);
    std::vector<uint8_t> to((size_t)(rows * bytes));
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
        atomic_abandon(f);
        fail("%s: tensor %s: row %" PRId64 " has a number that is %s%s", g.file.path.c_str(),
             t.name.c_str(), r, std::isfinite(squares[r])
                 ? "too large for " : "not finite (did its training diverge?)",
             std::isfinite(squares[r]) ? ggml_type_facts(type).name : "");
    }
    atomic_write(f, to.data(), to.size());
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
    uint64_t before = 0, after = 0;
    for (const GgufTensor& t : g.tensors) {
        const GgmlType type = quantized_type(t, wanted->type, o.pure, tied);
        // To F32 any type is decoded, as products decode it: nothing is rounded once more.
        if (type != t.type && type != GGML_F32 && t.type != GGML_F32 && t.type != GGML_F16 &&
            t.type != GGML_BF16)
            fail("%s: tensor %s: type %s, expected F32, F16 or BF16 to make %s of it (twice"
                 " quantized is twice rounded: take the file it was made from)", o.file.c_str(),
                 t.name.c_str(), ggml_type_facts(t.type).name, ggml_type_facts(type).name);
        gguf_put_tensor(w, t.name, type, {t.dims, t.dims + t.n_dims}, nullptr);
        before += t.bytes, after += w.tensors.back().tensor.bytes;
    }
    AtomicFile f = gguf_begin(w, o.out);   // and then a tensor at a time
    for (size_t i = 0; i < g.tensors.size(); i++) {
        const GgufTensor &t = g.tensors[i], &to = w.tensors[i].tensor;
        double error = 0;
        if (t.type == to.type) atomic_write(f, t.data, t.bytes);
        else error = quantize_tensor(f, g, t, to.type);
        gguf_write_padding(f, to.bytes, w.alignment);
        printf("%-30s %-16s %-4s -> %-4s  rms error %.3g\n", t.name.c_str(), gguf_shape(t).c_str(),
               ggml_type_facts(t.type).name, ggml_type_facts(to.type).name, error);
    }
    atomic_close(f);
    printf("%s: %.1f MB of weights, %.1f MB before\n", o.out.c_str(), (double)after / 1e6,
           (double)before / 1e6);
}

// Where a bundle's runtime is looked for: this program's folder, for a machine such as this one. A
// bundle has it in itself.
static std::string find_runtime() {
    const std::string self = own_path();
    if (self.empty())
        fail("--runtime: needed, since this system does not say where this program lies");
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
    {GENERATE, "", "continue a text (-p) or token ids (--ids), or begin one", run_generate},
    {CHAT, "chat", "answer each line of stdin, as a conversation (/help)", run_chat},
    {TOKENIZE, "tokenize", "text on stdin to ids separated by spaces", run_tokenize},
    {DETOKENIZE, "detokenize",
     "ids on stdin, separated by spaces, commas or newlines, to bytes", run_detokenize},
    {LOGITS, "logits",
     "for each of --ids, a line with the logits of what follows it", run_logits},
    {PERPLEXITY, "perplexity", "how well the model predicts a text (-f)", run_perplexity},
    {BENCH, "bench", "how fast it is, beside what the machine can do", run_bench},
    {SHOW, "show", "the keys and tensors of any GGUF file", run_show},
    {QUANTIZE, "quantize", "the same model with smaller weights", run_quantize},
    {BUNDLE, "bundle", "one executable (-o) of runtime and model; after --, flags baked in",
     run_bundle},
    {EXTRACT, "extract", "the GGUF that is in a bundle, byte for byte", run_extract}};

static std::vector<Flag> flag_table(Options& o) {
    return {
        {"FILE.gguf", "", &o.file, WITH_FILE, "a GGUF file, or a bundle", WITH_FILE},
        {"IN.gguf", "", &o.file, QUANTIZE, "the model; to round it, in F32, F16 or BF16", QUANTIZE},
        {"OUT.gguf", "", &o.out, QUANTIZE, "the file to write", QUANTIZE},
        {"TYPE", "", &o.type, QUANTIZE, "F32, F16, BF16, Q8_0, Q4_0 or Q6_K", QUANTIZE},
        {"-m", "FILE.gguf", &o.model, WITH_MODEL, "the model: a GGUF file, or a bundle",
         WITH_MODEL},
        {"-o", "FILE", &o.out, BUNDLE, "the executable to write", BUNDLE},
        {"-o", "FILE.gguf", &o.out, EXTRACT, "the file to write, if not standard output"},
        {"--runtime", "FILE", &o.runtime, BUNDLE,
         "the program to pack, if not infer-MACHINE from this program's folder"},
        {"-p", "TEXT", &o.prompt, GENERATE, "the text to continue, printed as well"},
        {"--ids", "1,2,3", &o.ids, GENERATE | LOGITS,
         "token ids, taken as they are; no tokenizer is needed", LOGITS},
        {"--template", "NAME", &o.chat_template, CHAT,
         "how turns are written: chatml, llama3 or plain; else as the file says"},
        {"--system", "TEXT", &o.system, CHAT, "what the model is told before the conversation"},
        {"-f", "FILE", &o.file, GENERATE, "the prompt, without its last newline; -: stdin"},
        {"-b", "FILE", &o.batch, GENERATE,
         "a prompt a line, made together; the seed of line i is N + i - 1; -: stdin"},
        {"-f", "FILE", &o.file, PERPLEXITY, "the text to measure; -: stdin", PERPLEXITY},
        {"--ctx", "N", {&o.ctx, 0, 1e9}, PERPLEXITY,
         "as llama-perplexity does: of each N tokens the second half is scored; 0: all are"},
        {"--kl", "REF.gguf", &o.reference, PERPLEXITY,
         "the model before it was quantized: how far the other strays from it"},
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
        {"--logit-bias", "ID:X", &o.logit_bias, SAMPLE,
         "add X to a token's logit; -inf forbids it; repeatable"},
        {"--draft", "FILE.gguf", &o.draft, GENERATE,
         "a smaller model guesses tokens ahead; faster, and the text's law is the same"},
        {"--draft-ngram", "N", {&o.draft_ngram, 1, 64}, GENERATE,
         "or: guess what followed the last N tokens earlier in the text"},
        {"--draft-max", "N", {&o.draft_max, 1, MOST_GUESSES}, GENERATE, "the most guesses a step"},
        {"--stats", "", &o.stats, GENERATE, "how many guesses were right, and what was gained"},
        {"--psi-some", "X", {&o.psi_some, 0, 100}, GENERATE,
         "when some avg10 of --psi-file reaches X, forget the text but for ..."},
        {"--kv-keep", "N", {&o.kv_keep, 0, 1e6}, GENERATE, "... its first N tokens and ..."},
        {"--kv-tail", "N", {&o.kv_tail, 1, 1e6}, GENERATE,
         "... its newest N, and give the memory back"},
        {"--psi-file", "FILE", &o.psi_file, GENERATE, "where Linux says how short memory is"},
        {"--ignore-eos", "", &o.ignore_eos, GENERATE, "never choose end-of-text"},
        {"--stop", "TEXT", &o.stop, GENERATE, "end before this text; repeatable"},
        {"--json", "", &o.json, GENERATE,
         "a JSON object a line: each token made, and at last why the text ended"},
        {"--top-logprobs", "N", {&o.top_logprobs, 0, 1e9}, GENERATE,
         "in --json, the N likeliest tokens beside each, before bias and all samplers"},
        {"-0", "", &o.nul, TOKENIZE, "NUL ends a record; print a line for each"},
        {"--special", "", &o.special, TOKENIZE, "recognise <|endoftext|> in the text"},
        {"--pure", "", &o.pure, QUANTIZE,
         "the same type for all matrices, also for the one that makes logits"},
        {"--int8", "", &o.int8, MODEL,
         "round to 8 bits what Q8_0, Q4_0, Q4_1 and Q6_K weights are multiplied by: faster"},
        {"--threads", "N", {&o.threads, 1, 1024}, MODEL | QUANTIZE, "threads to use"},
        {"--help", "", &o.help, ~0, "print this and exit"},
    };
}

static std::string call_of(const Options& o, const Command& c) {
    return o.program + (*c.name ? " " : "") + c.name;
}

// o holds the defaults, and in a bundle the file.
static void print_help(const Command& command, Options& o) {
    std::vector<Flag> flags = flag_table(o);
    const char *p = o.program.c_str(), *model = (o.model + o.file).empty() ? " -m model.gguf" : "";
    printf("infer - run a GPT-2 or a Llama from a GGUF file\n\n"
           "  %s%s -p \"Once upon a time\" -n 100\n\n"
           "commands (%s COMMAND --help lists the flags of one)\n", p, model, p);
    for (const Command& c : COMMANDS)
        printf("  %-28s %s\n", usage(flags, call_of(o, c), c.bit).c_str(), c.help);
    printf("\nflags of %s\n", call_of(o, command).c_str());
    print_flags(flags, command.bit);
    printf("\nDefaults are in brackets. A text begins with the end-of-text token, as every text did"
           "\nin training, whatever the file's key add_bos_token says; where tokenizer.ggml.pre is"
           "\nsmollm or llama-bpe, the key decides. Samplers work in the order bias, repeat"
           "\npenalty, top-k, top-p, min-p, temperature.\n");
}

// The command that the words begin with, which is taken off them; generate has no word.
static const Command& take_command(std::vector<std::string>& words, const Options& o) {
    if (words.empty() || words[0][0] == '-') return COMMANDS[0];
    const std::string name = words[0];
    words.erase(words.begin());
    for (const Command& c : COMMANDS)
        if (*c.name && c.name == name) return c;
    fail("%s: unknown command (%s --help lists them, and shows how to run a model)",
         gguf_printable(name, 60).c_str(), o.program.c_str());
}

// Fills in the options, and returns the command. In a bundle, the model is the bundle itself, and
// the words that are baked in are a command line of their own: its command is meant where the user
// names none, and its flags are that command's defaults.
static const Command& parse_command_line(Options& o, const Bundle& self,
                                         std::vector<std::string> words) {
    std::vector<std::string> baked = self.words;
    const Command& usual = take_command(baked, o);
    const bool named = !words.empty() && words[0][0] != '-';
    const Command& command = named ? take_command(words, o) : usual;
    if (command.bit == BUNDLE) {
        auto dashes = std::find(words.begin(), words.end(), "--");
        if (dashes != words.end()) o.bake.assign(dashes + 1, words.end());
        words.erase(dashes, words.end());
        Options trial;   // a bundle that does not understand its own words is not written
        trial.program = o.program;
        trial.help = true;   // what the words do not give, the user may
        parse_command_line(trial, Bundle{1, o.bake}, {});
    }
    std::vector<Flag> flags = flag_table(o);
    auto parse = [&](const std::vector<std::string>& part) {
        o.given.merge(parse_flags(flags, part, call_of(o, command), command.bit));
    };
    if (self.gguf_at && (command.bit & WITH_MODEL)) parse({"-m", own_path()});
    if (self.gguf_at && (command.bit & WITH_FILE)) parse({own_path()});
    if (&command == &usual) parse(baked);
    Options defaults = o;
    parse(words);
    if (o.help) o = defaults, o.help = true;   // which --help prints
    else require_flags(flags, o.given, call_of(o, command), command.bit);
    return command;
}

int main(int argc, char** argv) {
    spin_briefly(argv);
    const std::string self = own_path();
    Options o;
    o.program = gguf_printable(argv[0], 200);
    const Command& command =
        parse_command_line(o, access(self.c_str(), R_OK) == 0 ? read_bundle(self) : Bundle(),
                           {argv + 1, argv + argc});
    use_threads((int)o.threads);
    if (o.help) print_help(command, o);
    else command.run(o);
    if (fflush(stdout) != 0 || ferror(stdout)) fail("standard output: cannot be written");
    return 0;
}
