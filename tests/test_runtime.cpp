// test_runtime.cpp - runtime.h's promises that no command of infer needs all of: several texts pass
// through the network together, and a text forgets its end. Bit for bit what each text alone gives.
#include "check.h"
#include "tiny.h"
#include "../pressure.h"

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

// With one layer, a key depends on nothing but its token and position: so a trimmed text is the
// text that was kept, read afresh. Through more layers, positions that cannot be moved are computed
// again, which must give that too.
static void test_trim() {
    const int KEEP = 3, TAIL = 11;
    for (const Tiny& sizes : {Tiny{31, 8, 1, 16, "llama"}, Tiny{31, 8, 3, 16, "gpt2"}}) {
        const Model m = load_model(tiny_file(sizes));
        std::vector<int> ids, kept;
        for (int i = 0; i < 40; i++) ids.push_back((7 * i + i * i) % 31);
        kept.assign(ids.begin(), ids.begin() + KEEP);
        kept.insert(kept.end(), ids.end() - TAIL, ids.end());
        State s = new_state(m, 64);
        Work w;
        forward(m, w, s, ids.data(), 40, 0);
        trim(m, s, ids, KEEP, TAIL);
        check(ids == kept, "%s: the text that is left", sizes.family);
        check(s.pos == (m.d.family.rotary ? KEEP + TAIL : KEEP), "%s: %d positions", sizes.family,
              s.pos);
        trim(m, s, ids, KEEP, TAIL);
        check(ids == kept, "%s: trimmed twice", sizes.family);
        for (int i = 0; i < 5; i++) ids.push_back(i), kept.push_back(i);
        const Floats found = continued(m, w, s, ids), want = alone(m, kept, 0);
        double error = 0;
        for (size_t i = 0; i < 5u * 31; i++)
            error = std::max(error, (double)fabsf(found[found.size() - 1 - i] -
                                                  want[want.size() - 1 - i]));
        check_error(text("%s, trimmed", sizes.family), error, 2e-6);
    }
    report("trim");
}

// The pages of what was dropped go back: they read as zeros afterwards. What is left stays.
static void test_give_back() {
    const int page = (int)sysconf(_SC_PAGESIZE), had = 20 * page / 16, first = 3 * page / 16 + 5;
    const Model m = load_model(tiny_file({31, 8, 2, 16, "llama", 32 * page / 16}));
    const Description& d = m.d;   // 2 heads of 4 channels: a position is 16 bytes of a strip
    State s = new_state(m, d.T - 1);   // so that strips begin anywhere in a page
    const int strips = 2 * d.L * d.NKV;
    const size_t floats = (size_t)strips * s.room * d.hs;
    for (size_t i = 0; i < floats; i++) s.cache.get()[i] = 1;
    const size_t bytes = give_back(s, d, first, had);
    size_t zeros = 0, wrong = 0;
    for (size_t i = 0; i < floats; i++) {
        const int pos = (int)(i / d.hs) % s.room;
        if (s.cache.get()[i] != 0) continue;
        zeros++;
        wrong += pos < first || pos >= had;
    }
    check(wrong == 0, "%zu numbers of positions that stay are gone", wrong);
    check(zeros * sizeof(float) == bytes && bytes >= (size_t)strips * 15 * page,
          "%zu bytes given back, %zu numbers are zero", bytes, zeros);
    check(give_back(s, d, 7, 7) == 0 && give_back(s, d, 9, 7) == 0, "nothing to give back");
    report("give back");
}

static void test_pressure() {
    const char* folder = getenv("TMPDIR");
    const std::string path = text("%s/pressure.%d", folder ? folder : "/tmp", (int)getpid());
    auto write = [&](const std::string& line) {
        FILE* f = fopen(path.c_str(), "w");
        fputs(line.c_str(), f);
        fclose(f);
    };
    write("some avg10=12.50 avg60=1.00 avg300=2.00 total=3\nfull avg10=99.00 avg60=0.00\n");
    check(memory_pressure(path) == 12.5, "pressure: %g", memory_pressure(path));
    PressureWatch watch = {path, 12.5};
    check(watch.is_high(100), "12.5 reaches 12.5");
    check(!watch.is_high(100.2) && watch.is_high(100.3), "a quarter of a second between looks");
    watch.limit = 12.6;
    check(!watch.is_high(101), "12.5 does not reach 12.6");
    for (const char* line : {"", "full avg10=1.00\n", "some avg10=x\n", "some avg10=nan\n",
                             "some avg10=-1\n", "some avg10=101\n"}) {
        write(line);
        expect_error(line, {path, "some avg10=0.00"}, [&] { memory_pressure(path); });
    }
    const Model m = load_model(tiny_file({31}));
    State s = new_state(m, 64);
    Draft draft;
    draft_from_model(draft, tiny_file({31}), m, 64);
    Work w;
    std::vector<int> ids(30, 7);
    for (State* state : {&s, &draft.state}) forward(m, w, *state, ids.data(), 29, 0);
    relieve(watch, 200, m, s, ids, 4, 10, draft);
    check(s.pos == 4 && draft.state.pos == 4 && ids.size() == 15 && watch.again == 210,
          "relieved: %d positions, the draft's %d, %zu tokens", s.pos, draft.state.pos, ids.size());
    unlink(path.c_str());
    expect_error("no such file", {path, "psi=1", "--psi-file"}, [&] { memory_pressure(path); });
    report("pressure");
}

int main(int argc, char** argv) {
    const int result = run_tests(argc, argv,
                                 {{"batch", test_batch}, {"forgetting", test_forgetting},
                                  {"trim", test_trim}, {"give_back", test_give_back},
                                  {"pressure", test_pressure}});
    remove_tiny_files();
    return result;
}
