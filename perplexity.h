// perplexity.h - how well a model predicts a text, and how far another form of it, a quantized one,
// strays from it. At each position of the text, where x is the token that follows:
//
//     surprise      -log p(x)                              nats
//     perplexity    e^mean(surprise)                       its error: the mean's, times itself
//     divergence    sum over all tokens of ref log(ref / p)      of Kullback and Leibler (1951):
//                                                                what p costs if ref is the truth
//
// A text is read in windows, each without what came before it:
//
//     all of it    |==========|==========|=====      an input predicts its successor, the last one
//                                                    the next window's first: each counts once
//     --ctx N      |.....====.|.....====.|           llama.cpp's way: N inputs, of which the second
//                                                    half predict their successors in the window
#pragma once
#include "runtime.h"
#include "sampling.h"

// Logits of a whole text take T * V floats, up to 200 MB: they are computed in groups of rows.
const int LOGIT_ROWS = 64;

struct Reader {
    Model m;
    State s;
    Work w;
    std::vector<float> logit;   // (LOGIT_ROWS, V)
};

inline Reader new_reader(const std::string& path, bool int8 = false) {
    Reader r = {load_model(path, int8), {}, {}, {}};
    r.logit.resize((size_t)LOGIT_ROWS * r.m.d.V);
    return r;
}

// What is scored of each window.
struct Windows {
    int size;        // inputs
    int from, to;    // of them, those that predict
    int begin;       // the first input is replaced by this token; -1: it stays
};

struct Score {
    double surprise, ref_surprise, divergence;
    bool same_top;   // both find the same token likeliest
};

// ref: the other model's logits, or null.
inline Score score(const float* logit, const float* ref, int target, int V) {
    const double total = log_sum_exp(logit, V);
    Score s = {total - logit[target], 0, 0, true};
    if (!ref) return s;
    const double ref_total = log_sum_exp(ref, V);
    s.ref_surprise = ref_total - ref[target];
    s.same_top = std::max_element(logit, logit + V) - logit == std::max_element(ref, ref + V) - ref;
    for (int v = 0; v < V; v++) {
        const double log_ref = ref[v] - ref_total;
        s.divergence += exp_f((float)log_ref) * (log_ref - (logit[v] - total));
    }
    return s;
}

// Appends the scores of the window that begins at ids[at], which is cut where the text ends. ref
// may be null.
inline void score_window(std::vector<Score>& scores, Reader& model, Reader* ref,
                         const std::vector<int>& ids, size_t at, const Windows& windows) {
    const int to = (int)std::min<size_t>(windows.to, ids.size() - 1 - at), from = windows.from;
    std::vector<int> inputs(ids.begin() + at, ids.begin() + at + to);
    if (windows.begin >= 0) inputs[0] = windows.begin;
    for (Reader* r : {&model, ref}) {
        if (!r) continue;
        if (!r->s.cache) r->s = new_state(r->m, windows.size);
        r->s.pos = 0;
        forward(r->m, r->w, r->s, inputs.data(), to, to - from);
    }
    const size_t V = (size_t)model.m.d.V, before = scores.size();
    scores.resize(before + (to - from));
    for (int first = 0; first < to - from; first += LOGIT_ROWS) {
        const int rows = std::min(LOGIT_ROWS, to - from - first);
        for (Reader* r : {&model, ref})
            if (r) logits(r->logit.data(), r->m, r->w, first, rows);
#pragma omp parallel for
        for (int i = 0; i < rows; i++)
            scores[before + first + i] =
                score(&model.logit[i * V], ref ? &ref->logit[i * V] : nullptr,
                      ids[at + from + first + i + 1], (int)V);
    }
}

struct Mean {
    double mean, error;   // the error is the mean's standard deviation
};

template <typename Value>
inline Mean mean_of(const std::vector<Score>& scores, Value value) {
    const double n = (double)scores.size();
    double sum = 0, squares = 0;
    for (const Score& s : scores) sum += value(s);
    for (const Score& s : scores) squares += (value(s) - sum / n) * (value(s) - sum / n);
    return {sum / n, n > 1 ? sqrt(squares / n / (n - 1)) : 0};
}
