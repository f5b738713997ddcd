// sampling.h - from logits to tokens, and from tokens to what people see of them: what all of
// infer's ways of making text have in common. It knows no model, only logits.
//
//     log_sum_exp()          a token's log-probability is its logit less that
//     distribution(), draw() what the settings leave, and one token of it; sample() is both
//     Stops                  text ends before a stop text, and what may become one waits
//     Text, take_token()     a text that is being made: its ids, and its output, as text or JSON
#pragma once
#include <cfloat>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>
#include "numerics.h"
#include "tokenizer.h"

// ---- probabilities ------------------------------------------------------------------------------

inline double log_sum_exp(const float* logit, int V) {
    const float most = maximum(logit, V);
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp_f(logit[v] - most);
    return log_d(sum) + most;
}

struct Candidate {
    int id;
    float logit;
    float p;
};

// Tokens, likeliest first where they have been sorted; where p has been set, it sums to 1.
typedef std::vector<Candidate> Distribution;

inline bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);   // one order everywhere
}

// The k likeliest, in order, of those that are not forbidden. Most of a vocabulary is passed over
// BLOCK tokens at a time: no fewer than k are as likely as the k-th of the blocks' likeliest ones.
inline Distribution best_tokens(const float* logit, int V, size_t k) {
    const int BLOCK = 256;
    std::vector<float> most;
    for (int id = 0; id < V; id += BLOCK)
        most.push_back(maximum(logit + id, std::min(BLOCK, V - id)));
    float least = -FLT_MAX;   // a token that is forbidden has -infinity
    if (k < most.size()) {
        std::vector<float> sorted = most;
        std::nth_element(sorted.begin(), sorted.begin() + k - 1, sorted.end(), std::greater<>());
        least = std::max(least, sorted[k - 1]);
    }
    Distribution best;
    for (int b = 0; b < (int)most.size(); b++)
        for (int id = b * BLOCK; most[b] >= least && id < std::min(b * BLOCK + BLOCK, V); id++)
            if (logit[id] >= least) best.push_back({id, logit[id], 1});
    k = std::min(k, best.size());
    std::partial_sort(best.begin(), best.begin() + k, best.end(), is_better);
    best.resize(k);
    return best;
}

// ---- sampling -----------------------------------------------------------------------------------

struct Sampling {
    double temp, top_p, min_p, repeat_penalty;
    int64_t top_k;
    Rng rng;
    std::vector<std::pair<int, float>> bias = {};   // added to ids' logits; -infinity forbids them
};

// Tokens of the last 64 become less likely: their logits shrink towards minus infinity.
// Keskar et al. 2019, arXiv:1909.05858, section 4.1, in the form that serves logits of both signs.
inline void penalize_repeats(float* logit, const std::vector<int>& history, float penalty) {
    std::vector<int> recent(history.end() - std::min<size_t>(64, history.size()), history.end());
    std::sort(recent.begin(), recent.end());
    recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
    for (int id : recent) logit[id] = logit[id] > 0 ? logit[id] / penalty : logit[id] * penalty;
}

// p = e^((logit - largest) / temp), divided by their sum.
inline void normalize(Distribution& all, double temp) {
    float sum = 0;
    for (Candidate& c : all) sum += c.p = exp_f((float)((c.logit - all[0].logit) / temp));
    for (Candidate& c : all) c.p /= sum;
}

// What may follow `history`, given V logits. The steps and their order are llama.cpp's, so that its
// users' settings mean the same: bias, repeat penalty, top-k, top-p (Holtzman et al. 2019,
// arXiv:1904.09751), min-p (Nguyen et al. 2024, arXiv:2407.01082), temperature; 0 leaves one token.
inline Distribution distribution(const float* logit, int V, const std::vector<int>& history,
                                 const Sampling& how) {
    std::vector<float> own;
    const bool penalty = how.repeat_penalty != 1;
    if (penalty || !how.bias.empty()) {
        own.assign(logit, logit + V);
        for (const auto& [id, x] : how.bias) own[id] += x;
        if (penalty) penalize_repeats(own.data(), history, (float)how.repeat_penalty);
        logit = own.data();
    }
    Distribution all = best_tokens(logit, V, how.temp == 0 ? 1 : how.top_k > 0 ? how.top_k : V);
    if (all.empty()) fail("--logit-bias, --ignore-eos: all tokens there are have been forbidden");
    if (how.temp == 0) return all;

    normalize(all, 1);
    float before = 0;   // the probability of all better candidates
    size_t keep = 0;
    while (keep < all.size() && (keep == 0 || (before < how.top_p &&
                                               all[keep].p >= how.min_p * all[0].p)))
        before += all[keep++].p;
    all.resize(keep);
    normalize(all, how.temp);
    return all;
}

inline int draw(const Distribution& all, Rng& rng) {
    float r = uniform(rng);
    for (const Candidate& c : all)
        if ((r -= c.p) < 0) return c.id;
    return all[0].id;   // rounding left a crumb of r: the likeliest takes it
}

// One token.
inline int sample(const float* logit, int V, const std::vector<int>& history, Sampling& how) {
    const Distribution all = distribution(logit, V, history, how);
    return how.temp == 0 ? all[0].id : draw(all, how.rng);
}

// ---- stop texts ---------------------------------------------------------------------------------

// Text on its way out, byte by byte, so that it ends at one place however tokens cut it: before the
// stop text that is complete first, and of several that end there before the longest.
struct Stops {
    std::vector<std::string> texts;
    std::string held = {};               // the longest end of the text that begins a stop text
    std::string found = {};              // the one that ended it, or ""; nothing follows
};

// What may be shown now that these bytes have been made.
inline std::string pass(Stops& s, const std::string& bytes) {
    std::string out;
    for (size_t i = 0; i < bytes.size() && s.found.empty(); i++) {
        s.held += bytes[i];
        for (const std::string& stop : s.texts)
            if (s.held.size() >= stop.size() && stop.size() > s.found.size() &&
                s.held.compare(s.held.size() - stop.size(), stop.size(), stop) == 0)
                s.found = stop;
        s.held.resize(s.held.size() - s.found.size());
        auto begins_one = [&] {
            for (const std::string& stop : s.texts)
                if (stop.compare(0, s.held.size(), s.held) == 0) return true;
            return false;
        };
        while (!s.held.empty() && (!s.found.empty() || !begins_one())) {
            out += s.held[0];
            s.held.erase(0, 1);
        }
    }
    return out;
}

// ---- JSON ---------------------------------------------------------------------------------------

// A string of ASCII alone, so that no terminal obeys it. A byte that is no part of valid UTF-8 is
// U+FFFD; above U+FFFF stand two surrogates (RFC 8259, section 7).
inline std::string json_string(const std::string& s) {
    std::string out = "\"";
    for (size_t i = 0, length; i < s.size(); i += length) {
        const int c = utf8_character(s, i, &length), high = c - 0x10000;
        if (c < 0) out += "\\ufffd";
        else if (c == '"' || c == '\\') out += {'\\', (char)c};
        else if (c == '\n') out += "\\n";
        else if (c >= 0x20 && c < 0x7f) out += (char)c;
        else if (high < 0) out += text("\\u%04x", c);
        else out += text("\\u%04x\\u%04x", 0xd800 + (high >> 10), 0xdc00 + (high & 0x3ff));
    }
    return out + "\"";
}

// A token without the braces around it. "text" is for reading: a token may be part of a character,
// so that only the bytes of all tokens, one after another, are exactly their text.
inline std::string json_token(const Tokenizer* t, int id, double logprob) {
    std::string out = text("\"id\": %d, ", id);
    if (t) {
        out += "\"text\": " + json_string(token_bytes(*t, id)) + ", \"bytes\": [";
        const char* comma = "";
        for (uint8_t byte : token_bytes(*t, id)) out += text("%s%d", comma, byte), comma = ", ";
        out += "], ";
    }
    return out + text("\"logprob\": %.7g", logprob);
}

// ---- a text that is being made ------------------------------------------------------------------

// What becomes of tokens, for all texts of a call.
struct Style {
    const Tokenizer* tokenizer;   // null: ids come in, and ids go out
    bool json;
    int top;                      // in JSON, that many of the likeliest tokens beside each
    std::vector<int> ends;        // tokens that end a text
    int64_t n;                    // the most tokens to make
    int context;                  // the most that the model takes
};

struct Text {
    std::vector<int> ids;     // of the prompt, then those made
    size_t prompt;            // how many are the prompt's
    int64_t made;             // how many of the others have been taken
    Sampling how;
    Stops stops;
    std::string label = {};   // in JSON, what each object begins with
    std::string pending = {}; // output that is not printed yet
    std::string shown = {};   // in JSON, what was made, as text
    std::string end = {};     // why it has ended; "" while it goes on
};

// The probabilities are the model's own, before any setting of the sampler.
inline std::string json_line(const Text& t, const Style& style, int id, const float* logit, int V) {
    const double total = log_sum_exp(logit, V);
    std::string out = "{" + t.label + json_token(style.tokenizer, id, logit[id] - total);
    if (style.top > 0) {
        out += ", \"top\": [";
        const Distribution best = best_tokens(logit, V, (size_t)style.top);
        for (const Candidate& c : best)
            out += (c.id == best[0].id ? "{" : ", {") +
                   json_token(style.tokenizer, c.id, c.logit - total) + "}";
        out += "]";
    }
    return out + "}\n";
}

inline void end_text(Text& t, const Style& style, const char* why) {
    t.end = why;
    std::string rest;   // what waited in vain
    rest.swap(t.stops.held);
    if (!style.json) {
        t.pending += rest;
        return;
    }
    t.pending += "{" + t.label;
    if (style.tokenizer) t.pending += "\"text\": " + json_string(t.shown + rest) + ", ";
    t.pending += text("\"prompt_tokens\": %zu, \"tokens\": %lld, \"end\": \"%s\"", t.prompt,
                      (long long)t.made, why);
    if (!t.stops.found.empty()) t.pending += ", \"stop\": " + json_string(t.stops.found);
    t.pending += "}\n";
}

// Its next token, which these logits have chosen: the text goes on, or it ends.
inline void take_token(Text& t, const Style& style, int id, const float* logit, int V) {
    if (std::find(style.ends.begin(), style.ends.end(), id) != style.ends.end())
        return end_text(t, style, "eos");
    const bool first = t.made++ == 0;
    std::string shown = text("%s%d", first ? "" : " ", id);
    if (style.tokenizer) shown = pass(t.stops, token_bytes(*style.tokenizer, id));
    if (style.json) t.shown += shown, t.pending += json_line(t, style, id, logit, V);
    else t.pending += shown;
    if (!t.stops.found.empty()) end_text(t, style, "stop");
    else if (t.made == style.n) end_text(t, style, "length");
    else if (t.prompt + t.made > (size_t)style.context) end_text(t, style, "context");
}
