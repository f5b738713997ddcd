// test_speculate.cpp - speculative decoding loses nothing: greedy text is plain decoding's token by
// token, and drawn text has the law of plain sampling.
#include "check.h"
#include "tiny.h"
#include "../speculate.h"

static const Sampling GREEDY = {0, 1, 0, 1, 0, {1}, {}}, FREE = {1, 1, 0, 1, 0, {2}, {}},
                      STRICT = {0.7, 0.9, 0.05, 1.5, 4, {3}, {{2, -INFINITY}}};

static Draft draft_of(const std::string& kind, const Model& m, int most, int room) {
    Draft draft;
    draft.most = most;
    if (kind == "model" || kind == "itself") {
        const Tiny sizes = kind == "itself" ? Tiny{m.d.V} : Tiny{m.d.V, 4, 1, 8};
        draft_from_model(draft, tiny_file(sizes), m, room);
    } else {
        draft.ngram = kind[0] - '0';
    }
    return draft;
}

// ids, continued to `length` tokens or a few more.
static void continue_text(std::vector<int>& ids, const Model& m, Work& w, State& s, Draft& draft,
                          Sampling& how, size_t length) {
    std::vector<float> rows;
    while (ids.size() < length) {
        const size_t before = ids.size();
        step(ids, rows, m, w, s, draft, how);
        check(ids.size() > before && ids.size() - before <= (size_t)draft.most + 1 &&
                  s.pos == (int)ids.size() - 1 &&
                  rows.size() >= (ids.size() - before) * m.d.V,
              "a step from %zu tokens to %zu, %d seen", before, ids.size(), s.pos);
    }
}

static void test_greedy() {
    const int LENGTH = 64;
    const Model m = load_model(tiny_file({23}));
    for (double penalty : {1.0, 1.4})
        for (const char* kind : {"model", "itself", "1", "2"})
            for (int most = 0; most <= MOST_GUESSES; most++) {
                Sampling how = GREEDY;
                how.repeat_penalty = penalty;
                std::vector<int> plain = {3, 1, 4, 1, 5}, ids = plain;
                State s = new_state(m, LENGTH), t = new_state(m, LENGTH);
                Work w;
                Draft none, draft = draft_of(kind, m, most, LENGTH);
                continue_text(plain, m, w, s, none, how, LENGTH + 1);
                continue_text(ids, m, w, t, draft, how, LENGTH + 1);
                check(ids == plain, "draft %s, %d guesses: another text than plain decoding's",
                      kind, most);
                check(draft.accepted <= draft.guesses && (most > 0) == (draft.guesses > 0),
                      "draft %s: %d of %d", kind, (int)draft.accepted, (int)draft.guesses);
                // A draft that forgets everything before each step guesses no better.
                Draft fresh = draft_of(kind, m, most, LENGTH);
                std::vector<float> rows;
                for (ids.resize(5), t.pos = 0; (int)ids.size() < LENGTH + 1; fresh.state.pos = 0)
                    step(ids, rows, m, w, t, fresh, how);
                check(fresh.accepted == draft.accepted && fresh.guesses == draft.guesses,
                      "draft %s: %d of %d accepted, afresh %d of %d", kind, (int)draft.accepted,
                      (int)draft.guesses, (int)fresh.accepted, (int)fresh.guesses);
                if (kind == std::string("itself"))
                    check(draft.accepted == draft.guesses, "itself: %d of %d accepted",
                          (int)draft.accepted, (int)draft.guesses);
            }
    report("greedy");
}

// Beside all candidates in order: with equals, with tokens that are forbidden, and more than there
// are. Where k is less than the number of blocks, not all are looked at.
static void test_best_tokens() {
    for (int V : {1, 5, 255, 256, 257, 10000})
        for (int k : {1, 2, 7, 38, 39, 40, 10000}) {
            Floats logit = random_floats(V + k, V, 1);
            for (int i = 0; i < V; i += 3) logit[i] = rintf(logit[i]);
            for (int i = 0; i < V; i += 7) logit[i] = -INFINITY;
            Distribution all;
            for (int i = 0; i < V; i++)
                if (logit[i] != -INFINITY) all.push_back({i, logit[i], 1});
            std::sort(all.begin(), all.end(), is_better);
            all.resize(std::min(all.size(), (size_t)k));
            const Distribution best = best_tokens(logit.data(), V, (size_t)k);
            bool same = best.size() == all.size();
            for (size_t i = 0; same && i < all.size(); i++) same = best[i].id == all[i].id;
            check(same, "the %d best of %d: %zu, expected %zu", k, V, best.size(), all.size());
        }
    report("best tokens");
}

static void test_ngram() {
    struct {
        int n, count;
        std::vector<int> ids, want;
    } cases[] = {{2, 5, {1, 2, 3, 1, 2, 4, 1, 2}, {4, 1, 2, 4, 1}},   // goes round
                 {2, 2, {1, 2, 3, 1, 2, 4, 1, 2}, {4, 1}},
                 {3, 5, {1, 2, 3, 1, 2, 4, 1, 2}, {}},
                 {3, 3, {1, 2, 3, 1, 2, 3}, {1, 2, 3}},   // at the very beginning
                 {1, 3, {7, 7}, {7, 7, 7}},
                 {1, 3, {7}, {}},
                 {9, 3, {7, 7}, {}}};
    for (auto& c : cases) {
        Draft draft;
        draft.ngram = c.n;
        Sampling how = FREE;
        std::vector<int> want = c.ids;
        want.insert(want.end(), c.want.begin(), c.want.end());
        const std::vector<Distribution> q = guess(draft, c.ids, c.count, how);
        check(c.ids == want && q.size() == c.want.size(), "%d-grams: %zu guesses, %zu expected",
              c.n, q.size(), c.want.size());
    }
    report("n-grams");
}

// counts[i]: how often the i-th of the V^3 continuations was drawn.
static void test_law() {
    const int V = 5, MADE = 3, CELLS = V * V * V, DRAWS = 10000;
    const Model m = load_model(tiny_file({V}));
    const std::vector<int> prompt = {1, 2, 0, 3, 1, 2};
    const int n = (int)prompt.size(), room = n + 2 * MADE;
    State s = new_state(m, room);
    Work w;
    for (const Sampling& sampling : {FREE, STRICT}) {
        Floats expected(CELLS, DRAWS), logit(V);
        for (int cell = 0; cell < CELLS; cell++) {
            std::vector<int> ids = prompt;
            s.pos = 0;
            for (int next : {cell / V / V, cell / V % V, cell % V}) {
                forward(m, w, s, &ids[s.pos], (int)ids.size() - s.pos, 1);
                logits(logit.data(), m, w, 0, 1);
                expected[cell] *= probability(distribution(logit.data(), V, ids, sampling), next);
                ids.push_back(next);
            }
        }
        for (const char* kind : {"model", "itself", "1", "2"}) {
            Draft draft = draft_of(kind, m, 2, room);
            Sampling how = sampling;
            Floats counts(CELLS, 0);
            for (int i = 0; i < DRAWS; i++) {
                std::vector<int> ids = prompt;
                s.pos = n - 1, draft.state.pos = 0;
                continue_text(ids, m, w, s, draft, how, prompt.size() + MADE);
                counts[(ids[n] * V + ids[n + 1]) * V + ids[n + 2]]++;
            }
            double chi_squared = 0, rare = 0, rare_counts = 0;
            int cells = 0;
            for (int i = 0; i < CELLS; i++) {
                if (expected[i] < 8) {
                    rare += expected[i], rare_counts += counts[i];
                    continue;
                }
                const double apart = counts[i] - expected[i];
                chi_squared += apart * apart / expected[i];
                cells++;
            }
            const double freedom = cells - 1;   // five deviations above the mean: one in 10^5
            check_error(text("%s, top-k %d: chi-squared", kind, (int)how.top_k), chi_squared,
                        freedom + 5 * sqrt(2 * freedom));
            check(fabs(rare - rare_counts) <= 5 * sqrt(rare) + 1,
                  "%s: rare texts drawn %.0f times, expected %.1f", kind, rare_counts, rare);
            check(cells > 10 && draft.accepted > DRAWS / 10 &&
                      (draft.accepted < draft.guesses) == (kind != std::string("itself")),
                  "%s: %d cells, %d of %d guesses accepted", kind, cells, (int)draft.accepted,
                  (int)draft.guesses);
        }
    }
    report("law");
}

static void test_errors() {
    const Model m = load_model(tiny_file({23}));
    const std::string other = tiny_file({22}), same = tiny_file({23});
    Draft draft;
    expect_error("another vocabulary", {other, "22 tokens", "has 23"},
                 [&] { draft_from_model(draft, other, m, 9); });
    expect_error("a short context", {same, "64 tokens", "may have 65"},
                 [&] { draft_from_model(draft, same, m, 65); });
    report("errors");
}

int main(int argc, char** argv) {
    const int result = run_tests(argc, argv, {{"best", test_best_tokens},
                                              {"greedy", test_greedy}, {"ngram", test_ngram},
                                              {"law", test_law}, {"errors", test_errors}});
    remove_tiny_files();
    return result;
}
