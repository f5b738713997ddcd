// sampling.h - from logits to a token: the distribution that the samplers leave, and a draw from
// it. Speculative decoding (speculate.h) needs the distribution itself, of two models.
#pragma once
#include <algorithm>
#include <vector>
#include "files.h"
#include "numerics.h"

struct Sampling {
    double temp, top_p, min_p, repeat_penalty;
    int64_t top_k;
    int forbidden;   // never chosen; -1: none
    Rng rng;
};

struct Candidate {
    int id;
    float logit;
    float p;
};

// The tokens that may be chosen, likeliest first; their p sum to 1.
typedef std::vector<Candidate> Distribution;

inline bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);   // one order everywhere
}

// Tokens of the last 64 become less likely: their logits shrink towards minus infinity.
// Keskar et al. 2019, arXiv:1909.05858, section 4.1, in the form that serves logits of both signs.
inline void penalize_repeats(Distribution& all, const std::vector<int>& history, float penalty) {
    std::vector<int> recent(history.end() - std::min<size_t>(64, history.size()), history.end());
    std::sort(recent.begin(), recent.end());
    recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
    for (int id : recent) {
        float& logit = all[id].logit;
        logit = logit > 0 ? logit / penalty : logit * penalty;
    }
}

// p = e^((logit - largest) / temp), divided by their sum.
inline void normalize(Distribution& all, double temp) {
    float sum = 0;
    for (Candidate& c : all) sum += c.p = exp_f((float)((c.logit - all[0].logit) / temp));
    for (Candidate& c : all) c.p /= sum;
}

// What may follow `history`, given V logits. The steps and their order are llama.cpp's, so that its
// users' settings mean the same: repeat penalty, top-k, top-p (Holtzman et al. 2019,
// arXiv:1904.09751), min-p (Nguyen et al. 2024, arXiv:2407.01082), temperature; 0 leaves one token.
inline Distribution distribution(const float* logit, int V, const std::vector<int>& history,
                                 const Sampling& how) {
    Distribution all(V);
    for (int id = 0; id < V; id++) all[id] = {id, logit[id], 1};
    if (how.repeat_penalty != 1) penalize_repeats(all, history, (float)how.repeat_penalty);
    if (how.forbidden >= 0) all.erase(all.begin() + how.forbidden);
    if (all.empty()) fail("the only token there is has been forbidden by --ignore-eos");
    if (how.temp == 0) return {*std::min_element(all.begin(), all.end(), is_better)};

    size_t k = how.top_k > 0 ? std::min((size_t)how.top_k, all.size()) : all.size();
    std::partial_sort(all.begin(), all.begin() + k, all.end(), is_better);
    all.resize(k);
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
