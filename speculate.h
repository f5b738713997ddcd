// speculate.h - speculative decoding: a draft guesses the next K tokens, and the model looks at all
// of them in one pass, which reads its weights once instead of K + 1 times.
//
//     text          ... once there was a
//     draft                                 little  brown  mouse  who      x(i), q(i)
//     model, in one pass                    little  brown  bear            p(i)
//                                           =       =      x
//     text          ... once there was a    little  brown  bear            two guesses, one its own
//
// The model's row i says what follows the text and x(1) .. x(i-1). Guess x is accepted with
// probability min(1, p(x) / q(x)); the first that is not gives way to a token drawn from
// r = max(0, p - q) / sum of max(0, p - q), and those after it are forgotten. If all are accepted,
// row K + 1 gives one more. So each step makes 1 to K + 1 tokens.
// Leviathan et al. 2023, arXiv:2211.17192, section 2; Chen et al. 2023, arXiv:2302.01318.
//
// Nothing is lost: the text has the law of plain sampling. Write m for min(p, q).
//     x is guessed and accepted with probability q(x) min(1, p(x) / q(x)) = m(x);
//     some guess is refused with probability 1 - sum of m = sum of (p - m) = sum of max(0, p - q);
//     so x is chosen with probability m(x) + sum of max(0, p - q) * r(x) = m(x) + p(x) - m(x).
// p and q are what the samplers leave (sampling.h), at temperature 0 a single token: then a guess
// is accepted if it is the model's own choice.
//
// K + 1 < FEW rows, of one text, give the bits that each gives alone (quants.h, plan_attention), so
// at temperature 0 the text is plain decoding's, token by token, with no exception for ties.
#pragma once
#include "runtime.h"
#include "sampling.h"

const int MOST_GUESSES = FEW - 2;

// Who guesses: a small model, or the text itself. With most = 0 nobody does, and a step is plain
// decoding.
struct Draft {
    int most = 0;                   // guesses a step
    int ngram = 0;                  // guess what followed the last so many tokens; 0: ask the model
    std::unique_ptr<Model> model;   // where ngram is 0
    State state = {};
    Work work;
    int64_t steps = 0, guesses = 0, accepted = 0;   // steps: those with guesses
    double bytes_read = 0;                          // of the weights of both
};

// A smaller model of the same vocabulary guesses; the text may have up to `room` tokens.
inline void draft_from_model(Draft& draft, const std::string& path, const Model& m, int room) {
    draft.model = std::make_unique<Model>(load_model(path, m.int8));
    const Description& d = draft.model->d;
    if (d.V != m.d.V)
        fail("%s: a vocabulary of %d tokens, but %s has %d (a draft must share the model's)",
             path.c_str(), d.V, m.file.file.path.c_str(), m.d.V);
    if (d.T < room)
        fail("%s: a context length of %d tokens, but the text may have %d (choose a smaller -n, or"
             " another draft)", path.c_str(), d.T, room);
    draft.state = new_state(*draft.model, room);
}

// Where the text's last n tokens stood before, the newest such place: the index of what followed
// them. 0: nowhere.
inline size_t after_earlier_place(const std::vector<int>& ids, size_t n) {
    for (size_t end = ids.size() - 1; end >= n; end--)
        if (std::equal(ids.end() - n, ids.end(), ids.begin() + (end - n))) return end;
    return 0;
}

// Appends up to `count` guesses to ids. Returns the distribution that each was drawn from.
inline std::vector<Distribution> guess(Draft& draft, std::vector<int>& ids, int count,
                                       Sampling& how) {
    std::vector<Distribution> q;
    if (count <= 0) return q;
    if (draft.ngram) {
        size_t next = after_earlier_place(ids, draft.ngram);
        for (; next && (int)q.size() < count; next++) {   // may run into the guesses: a cycle
            const int id = ids[next];
            ids.push_back(id);
            q.push_back({{id, 0, 1}});
        }
        return q;
    }
    const int V = draft.model->d.V;
    std::vector<float> logit(V);
    while ((int)q.size() < count) {
        const int fed = draft.state.pos;
        forward(*draft.model, draft.work, draft.state, &ids[fed], (int)ids.size() - fed, 1);
        logits(logit.data(), *draft.model, draft.work, 0, 1);
        draft.bytes_read += bytes_per_token(*draft.model);
        q.push_back(distribution(logit.data(), V, ids, how));
        ids.push_back(draw(q.back(), how.rng));
    }
    return q;
}

inline float probability(const Distribution& all, int id) {
    for (const Candidate& c : all)
        if (c.id == id) return c.p;
    return 0;
}

// max(0, p - q) / its sum. Where rounding leaves nothing of it, p are no numbers, and draw() takes
// the model's likeliest.
inline Distribution residual(Distribution p, const Distribution& q, int V) {
    std::vector<float> of_draft(V);
    for (const Candidate& c : q) of_draft[c.id] = c.p;
    float sum = 0;
    for (Candidate& c : p) sum += c.p = std::max(0.0f, c.p - of_draft[c.id]);
    for (Candidate& c : p) c.p /= sum;
    return p;
}

// One pass of the model: whatever of ids it has not seen, and guesses. ids grows by the tokens that
// were decided, and `rows` gets the logits that decided them, V each.
// The caller sees to it that ids is not empty and has room.
inline void step(std::vector<int>& ids, std::vector<float>& rows, const Model& m, Work& w, State& s,
                 Draft& draft, Sampling& how) {
    const int before = (int)ids.size(), unseen = before - s.pos, V = m.d.V;
    std::vector<Distribution> q;
    if (unseen == 1) q = guess(draft, ids, std::min(draft.most, s.room - before), how);
    const int K = (int)q.size();
    forward(m, w, s, &ids[s.pos], unseen + K, K + 1);
    draft.bytes_read += bytes_per_token(m);
    rows.resize((size_t)(K + 1) * V);
    logits(rows.data(), m, w, 0, K + 1);

    const std::vector<int> guesses(ids.begin() + before, ids.end());
    ids.resize(before);
    bool accepted = true;
    for (int i = 0; i <= K && accepted; i++) {
        const Distribution p = distribution(&rows[(size_t)i * V], V, ids, how);
        if (i == K) {
            ids.push_back(draw(p, how.rng));
            break;
        }
        const int x = guesses[i];
        accepted = uniform(how.rng) * probability(q[i], x) < probability(p, x);
        ids.push_back(accepted ? x : draw(residual(p, q[i], V), how.rng));
        draft.accepted += accepted;
    }
    draft.steps += K > 0;
    draft.guesses += K;
    s.pos = (int)ids.size() - 1;   // forgets what was refused
    draft.state.pos = std::min(draft.state.pos, s.pos);
}
