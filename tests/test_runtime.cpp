// test_runtime.cpp - runtime.h's promises that no command of infer needs all of: several texts pass
// through the network together, and a text forgets its end. Bit for bit what each text alone gives.
#include "check.h"
#include "../runtime.h"

// A model of tests/golden, without the values that PyTorch adds, as a file of its own.
static Model golden_model(const std::string& name, std::vector<int>& ids) {
    Gguf golden = gguf_open("tests/golden/" + name);
    ids = golden_ints(golden, "test.tokens");
    GgufWriter w;
    for (const GgufKey& k : golden.keys) gguf_put_key(w, k);
    for (const GgufTensor& t : golden.tensors)
        if (t.name.compare(0, 5, "test.") != 0)
            gguf_put_tensor(w, t.name, t.type, {t.dims, t.dims + t.n_dims}, t.data);
    const char* folder = getenv("TMPDIR");
    const std::string path =
        text("%s/test_runtime.%d.gguf", folder ? folder : "/tmp", (int)getpid());
    gguf_write(w, path);
    Model m = load_model(path);
    unlink(path.c_str());   // the mapping keeps it alive
    return m;
}

// The logits after each of the ids that s has not seen yet, fed one by one.
static Floats continued(const Model& m, Work& w, State& s, const std::vector<int>& ids) {
    Floats all;
    while (s.pos < (int)ids.size()) {
        Floats row(m.d.V);
        forward(m, w, s, &ids[s.pos], 1, 1);
        logits(row.data(), m, w, 0, 1);
        all.insert(all.end(), row.begin(), row.end());
    }
    return all;
}

// The same, the first `prompt` of them at once.
static Floats alone(const Model& m, const std::vector<int>& ids, int prompt) {
    State s = new_state(m, (int)ids.size());
    Work w;
    forward(m, w, s, ids.data(), prompt, 0);
    return continued(m, w, s, ids);
}

static void test_batch() {
    for (const char* name : {"llama.gguf", "llama-odd.gguf"}) {
        std::vector<int> ids;
        const Model m = golden_model(name, ids);
        const int TEXTS = 3, STEPS = 6, prompt[TEXTS] = {1, 9, 33};
        std::vector<State> states;
        std::vector<Floats> found(TEXTS);
        Work w;
        for (int t = 0; t < TEXTS; t++) {
            states.push_back(new_state(m, prompt[t] + STEPS));
            forward(m, w, states[t], ids.data(), prompt[t], 0);
        }
        for (int step = 0; step < STEPS; step++) {
            w.rows.clear();
            for (int t = 0; t < TEXTS; t++)
                w.rows.push_back({&states[t], ids[prompt[t] + step], 0});
            w.out.resize((size_t)TEXTS * m.d.C);
            forward_rows(w.out.data(), m, w, TEXTS);
            std::vector<float> rows((size_t)TEXTS * m.d.V);
            logits(rows.data(), m, w, 0, TEXTS);
            for (int t = 0; t < TEXTS; t++)
                found[t].insert(found[t].end(), rows.begin() + t * m.d.V,
                                rows.begin() + (t + 1) * m.d.V);
        }
        for (int t = 0; t < TEXTS; t++) {
            std::vector<int> text_ids(ids.begin(), ids.begin() + prompt[t] + STEPS);
            check_same(text("%s: text %d in a batch", name, t), found[t],
                       alone(m, text_ids, prompt[t]));
        }
    }
    report("batch");
}

static void test_forgetting() {
    std::vector<int> ids;
    const Model m = golden_model("llama.gguf", ids);
    State s = new_state(m, (int)ids.size());
    Work w;
    forward(m, w, s, ids.data(), 30, 1);
    const std::vector<int> others = {1, 2, 3, 4, 5};
    forward(m, w, s, others.data(), 5, 1);
    s.pos = 30;
    check_same("a text that was cut and continued", continued(m, w, s, ids), alone(m, ids, 30));
    report("forgetting");
}

int main(int argc, char** argv) {
    return run_tests(argc, argv, {{"batch", test_batch}, {"forgetting", test_forgetting}});
}
