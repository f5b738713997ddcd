// test_model.cpp - the whole model of gpt2.h, on the backend that it is linked with:
//
//     golden values    logits, loss, every gradient, and ten AdamW steps of PyTorch (reference.py)
//     differences      each tensor's gradient against the loss's slope along directions
//     the machinery    accumulation, weight decay, initialisation, files, threads, the memory plan
#include "check.h"
#include "../gpt2.h"

const bool FLOAT32 = sizeof(floatX) == sizeof(float);

// A golden model, ready to run.
struct Golden {
    Gguf file;
    std::string name;
    GPT2 model;
    int steps, B, T;
    std::vector<int> tokens, targets;   // (steps, B, T)
};

static Golden open_golden(const std::string& name) {
    Golden g;
    g.file = gguf_open("tests/golden/" + name);
    g.name = name;
    std::vector<int64_t> batch = gguf_ints(g.file, "test.batch");
    g.steps = (int)batch[0], g.B = (int)batch[1], g.T = (int)batch[2];
    g.tokens = golden_ints(g.file, "test.tokens");
    g.targets = golden_ints(g.file, "test.targets");
    gpt2_create(g.model, gpt2_config(g.file), g.B, g.T);
    gpt2_load(g.model, g.file);
    return g;
}

static void close_golden(Golden& g) {
    gpt2_free(g.model);
    gguf_close(g.file);
}

// One tensor of master, grads, m or v.
static Floats tensor(const float* buffer, const Param& p) {
    return get_floats(buffer + p.offset, p.count);
}

// The loss and all gradients of a batch, whatever grads holds.
static float loss_and_gradients(GPT2& model, const int* tokens, const int* targets, int B, int T) {
    forward(model, tokens, targets, B, T);
    cross_entropy(model, 1.0f / (B * T));
    backward(model, false);
    return mean_loss(model);
}

// The last batch's loss with the precision that differences need: a sum in double over the
// positions.
static double exact_loss(GPT2& model, const int* tokens, const int* targets, int B, int T) {
    forward(model, tokens, targets, B, T);
    cross_entropy(model, 0);
    double sum = 0;
    for (float loss : get_floats(model.acts.losses, B * T)) sum += loss;
    return sum / (B * T);
}

static double largest(const Floats& x, size_t begin, size_t end) {
    double most = 0;
    for (size_t i = begin; i < end; i++) most = std::max(most, (double)fabsf(x[i]));
    return most;
}

static double largest_error(const Floats& a, const Floats& b, size_t begin, size_t end) {
    double most = 0;
    for (size_t i = begin; i < end; i++) {
        double error = fabs((double)a[i] - b[i]);
        if (!(error <= most)) most = error;   // a NaN stays
        if (error != error) break;
    }
    return most;
}

static bool is_qkv_bias(const Param& p) {
    return p.name.find("attn_qkv.bias") != std::string::npos;
}

// The parts of a tensor that are judged by their own size: q, k and v for attn_qkv, whole tensors
// elsewhere. Adding one number to all keys changes no probability, so the key third of
// attn_qkv.bias has a gradient of 0 in mathematics and of rounding noise here.
static int parts_of(const Param& p) {
    return p.name.find("attn_qkv") != std::string::npos ? 3 : 1;
}

// ---- golden values ------------------------------------------------------------------------------

static void test_forward_backward(Golden& g) {
    const Config c = g.model.config;
    const int N = g.B * g.T;
    float loss = loss_and_gradients(g.model, g.tokens.data(), g.targets.data(), g.B, g.T);
    Floats losses = golden_floats(g.file, "test.losses");
    check_error(g.name + ": loss", fabs((double)loss - losses[0]), 16 * ROUND_X * losses[0]);

    for (const Param& p : g.model.table) {
        Floats got = tensor(g.model.grads, p), want = golden_floats(g.file, "grad." + p.name);
        if (!check(got.size() == want.size(), "%s: %s: another size", g.name.c_str(),
                   p.name.c_str()))
            continue;
        size_t part = p.count / parts_of(p);
        for (size_t begin = 0; begin < p.count; begin += part) {
            bool keys = is_qkv_bias(p) && begin == part;
            double scale = largest(want, keys ? 0 : begin, keys ? p.count : begin + part);
            check_error(text("%s: gradient of %s", g.name.c_str(), p.name.c_str()),
                        largest_error(got, want, begin, begin + part), 40 * ROUND_X * scale);
        }
    }
    // The classifier has written over the logits: compute them again.
    forward(g.model, g.tokens.data(), nullptr, g.B, g.T);
    Floats got = get(g.model.acts.logits, (size_t)N * c.Vp),
           want = golden_floats(g.file, "test.logits"), used;
    bool zero = true;
    for (int n = 0; n < N; n++) {
        used.insert(used.end(), &got[(size_t)n * c.Vp], &got[(size_t)n * c.Vp] + c.V);
        for (int v = c.V; v < c.Vp; v++) zero &= got[(size_t)n * c.Vp + v] == 0;
    }
    check(zero, "%s: logits of the padding rows are not 0", g.name.c_str());
    check_error(g.name + ": logits", largest_error(used, want, 0, used.size()),
                16 * ROUND_X * largest(want, 0, want.size()));
    report("logits, loss, gradients");
}

// Adam divides a gradient by its own size, and so can turn the rounding noise of a very small one
// into a step of lr. Hence the bound is relative to a tensor's largest weight; and the key biases,
// which are nothing but noise, may wander as far as ten steps reach.
static void test_ten_steps(Golden& g) {
    std::vector<double> s = golden_doubles(g.file, "test.settings"),
                        lr = golden_doubles(g.file, "test.lr");
    Floats losses = golden_floats(g.file, "test.losses"),
           norms = golden_floats(g.file, "test.norms");
    double reach = 0;
    for (int step = 1; step <= g.steps; step++) {
        const int* tokens = &g.tokens[(size_t)(step - 1) * g.B * g.T];
        const int* targets = &g.targets[(size_t)(step - 1) * g.B * g.T];
        float loss = loss_and_gradients(g.model, tokens, targets, g.B, g.T);
        float norm = grad_norm(g.model.grads, g.model.space);
        check_error(text("%s: loss of step %d", g.name.c_str(), step),
                    fabs((double)loss - losses[step - 1]),
                    (FLOAT32 ? 2e-6 : 1e-2) * losses[step - 1]);
        check_error(text("%s: norm of step %d", g.name.c_str(), step),
                    fabs((double)norm - norms[step - 1]),
                    (FLOAT32 ? 5e-6 : 3e-2) * norms[step - 1]);
        update(g.model, {lr[step - 1], s[0], s[1], s[2], s[3], 1, step}, norm, (float)s[4]);
        reach += lr[step - 1];
    }
    for (const Param& p : g.model.table) {
        Floats got = tensor(g.model.master, p), want = golden_floats(g.file, "after." + p.name);
        Floats start = golden_floats(g.file, p.name);
        size_t part = p.count / parts_of(p);
        for (size_t begin = 0; begin < p.count; begin += part) {
            bool keys = is_qkv_bias(p) && begin == part;
            std::string what =
                text("%s: %s after %d steps", g.name.c_str(), p.name.c_str(), g.steps);
            double error = largest_error(got, want, begin, begin + part);
            if (keys)
                check(error <= 1.1 * reach, "%s: key biases moved by %g", what.c_str(), error);
            else if (FLOAT32) check_error(what, error, 5e-6 * largest(want, begin, begin + part));
            else check_error(what, error, 0.5 * largest_error(start, want, begin, begin + part));
        }
    }
    report("ten AdamW steps");
}

// ---- differences --------------------------------------------------------------------------------

// Each tensor is moved along two directions of length 1e-2, a random one and its gradient's, and
//     loss(w + d) - loss(w - d) = 2 gradient . d
// must hold to 1e-3 |gradient| |d|. Element by element, float32's noise would be larger than the
// slope.
static void test_directions(Golden& g) {
    if (!FLOAT32) return;   // 16 bits cannot hold w + d: golden values must do
    const int *tokens = g.tokens.data(), *targets = g.targets.data();
    const double length = 1e-2;
    loss_and_gradients(g.model, tokens, targets, g.B, g.T);
    std::vector<Floats> gradients;
    for (const Param& p : g.model.table) gradients.push_back(tensor(g.model.grads, p));
    for (size_t k = 0; k < g.model.table.size(); k++) {
        const Param& p = g.model.table[k];
        Floats weights = golden_floats(g.file, p.name), moved(p.count);
        double size = norm(gradients[k]);
        check(size > 1e-3, "%s: the gradient of %s is %g", g.name.c_str(), p.name.c_str(), size);
        for (int along = 0; along < 2; along++) {
            Floats d = along ? gradients[k] : random_floats(40 + k, p.count, 1);
            double shrink = length / norm(d), slope = 0, loss[2];
            for (int side = 0; side < 2; side++) {
                for (size_t i = 0; i < p.count; i++)
                    moved[i] = (float)(weights[i] + (side ? shrink : -shrink) * d[i]);
                set_param(g.model, p, moved.data());
                loss[side] = exact_loss(g.model, tokens, targets, g.B, g.T);
            }
            for (size_t i = 0; i < p.count; i++) slope += shrink * d[i] * gradients[k][i];
            check_error(text("%s: slope along %s", g.name.c_str(), p.name.c_str()),
                        fabs((loss[1] - loss[0]) / 2 - slope), 1e-3 * size * length);
        }
        set_param(g.model, p, weights.data());
    }
    report("directional differences");
}

// ---- the machinery ------------------------------------------------------------------------------

// Two micro-batches of half the rows give one batch's gradients.
static void test_accumulation(Golden& g) {
    if (g.B % 2 != 0) return;
    const int half = g.B / 2, *tokens = g.tokens.data(), *targets = g.targets.data();
    loss_and_gradients(g.model, tokens, targets, g.B, g.T);
    Floats whole = get_floats(g.model.grads, g.model.space);
    for (int i = 0; i < 2; i++) {
        forward(g.model, tokens + i * half * g.T, targets + i * half * g.T, half, g.T);
        cross_entropy(g.model, 1.0f / (g.B * g.T));
        backward(g.model, i > 0);
    }
    Floats sum = get_floats(g.model.grads, g.model.space);
    for (const Param& p : g.model.table) {
        size_t end = p.offset + p.count;
        check_error(text("accumulated gradient of %s", p.name.c_str()),
                    largest_error(sum, whole, p.offset, end),
                    40 * ROUND_X * largest(whole, p.offset, end));
    }
    report("accumulation");
}

// A model gives the same bits for a batch whatever it has computed before, and a smaller batch fits
// in.
static void test_batches(Golden& g) {
    const int *tokens = g.tokens.data(), *targets = g.targets.data();
    int T = g.T - 2;
    loss_and_gradients(g.model, tokens, targets, g.B, g.T);
    loss_and_gradients(g.model, tokens, targets, 1, T);
    Floats after = get_floats(g.model.grads, g.model.space);
    GPT2 fresh;
    gpt2_create(fresh, g.model.config, 1, T);
    gpt2_load(fresh, g.file);
    loss_and_gradients(fresh, tokens, targets, 1, T);
    check_same("a batch after another", after, get_floats(fresh.grads, fresh.space));
    gpt2_free(fresh);
    report("batches");
}

// With no gradient, a step moves matrices and embeddings by -lr * weight_decay * weight, and
// nothing else. Clipping scales gradients by clip / norm, and only where the norm is larger.
static void test_decay_and_clipping(Golden& g) {
    GPT2& model = g.model;
    update(model, {0.01, 0.9, 0.95, 1e-8, 0.5, 1, 1}, 0, 1);
    for (const Param& p : model.table) {
        Floats before = golden_floats(g.file, p.name), after = tensor(model.master, p);
        if (p.dims.size() == 1)
            check_same(text("%s is not decayed", p.name.c_str()), after, before);
        for (float& x : before) x *= 0.995f;
        if (p.dims.size() == 2)
            check_error(text("%s is decayed", p.name.c_str()),
                        largest_error(after, before, 0, p.count),
                        4 * ROUND_FLOAT * largest(before, 0, p.count));
    }
    const Param& p = model.table.back();
    for (float norm : {4.0f, 0.5f, 2.0f}) {
        gpt2_load(model, g.file);
        device_zero(model.m, model.space * sizeof(float));
        to_device(model.grads + p.offset, Floats(p.count, 0.125f).data(), p.count * sizeof(float));
        update(model, {0.01, 0.5, 0.5, 1e-8, 0, 1, 1}, norm, 2.0f);
        float want = 0.5f * 0.125f * (norm > 2 ? 2 / norm : 1);
        check(tensor(model.m, p)[0] == want, "clipping: m is %g, expected %g, for a norm of %g",
              tensor(model.m, p)[0], want, norm);
        update(model, {0.01, 0, 0.5, 1e-8, 0, 1, 1}, norm, 0.0f);
        check(tensor(model.m, p)[0] == 0.125f, "clipping: not off for a clip of 0");
    }
    report("decay, clipping");
}

// A loss that is 4,096 times as large has gradients 4,096 times as large; their norm is the same,
// and so is the step. In float and bfloat16 that is so bit for bit; float16 also loses less.
static void test_loss_scale(Golden& g) {
    GPT2& model = g.model;
    Floats grads[2], after[2];
    float norms[2];
    for (int scaled = 0; scaled < 2; scaled++) {
        gpt2_load(model, g.file);
        for (float* p : {model.m, model.v}) device_zero(p, model.space * sizeof(float));
        model.loss_scale = scaled ? 4096 : 1;
        float loss = loss_and_gradients(model, g.tokens.data(), g.targets.data(), g.B, g.T);
        check(loss < 10, "%s: the loss itself is scaled: %g", g.name.c_str(), loss);
        grads[scaled] = get_floats(model.grads, model.space);
        norms[scaled] = gradients_norm(model);
        update(model, {0.01, 0.9, 0.95, 1e-8, 0.1, 1, 1}, norms[scaled], norms[0] / 2);
        after[scaled] = get_floats(model.m, model.space);   // a tenth of the clipped gradient
    }
    for (float& x : grads[0]) x *= 4096;
    check_error(g.name + ": norm of a scaled loss", fabs(norms[1] - norms[0]),
                PRECISION == FP16 ? 4 * ROUND_X * norms[0] : 1e-37);
    for (const Param& p : model.table) {
        size_t end = p.offset + p.count;
        for (Floats* pair : {grads, after}) {
            double most = largest(pair[0], p.offset, end);
            check_error(g.name + ": scaled gradient of " + p.name,
                        largest_error(pair[1], pair[0], p.offset, end),
                        PRECISION == FP16 ? 4 * ROUND_X * most : 1e-37);
        }
    }
    report("loss scale");
}

// The scale after each of some steps, of which some have gradients that are not finite.
static void test_adapt_scale() {
    LossScale s;
    auto good = [&](int steps) {
        bool all = true;
        for (int i = 0; i < steps; i++) all &= adapt_scale(s, 1);
        return all;
    };
    auto expect = [&](const char* what, bool as_expected, float factor, int steps) {
        check(as_expected && s.factor == factor && s.steps == steps,
              "%s: a scale of %g for %d steps", what, s.factor, s.steps);
    };
    expect("at the start", true, 65536, 0);
    expect("one step before it grows", good(SCALE_STEPS - 1), 65536, SCALE_STEPS - 1);
    expect("an overflow then", !adapt_scale(s, INFINITY), 32768, 0);
    expect("and another", !adapt_scale(s, NAN), 16384, 0);
    expect("one step before it grows again", good(SCALE_STEPS - 1), 16384, SCALE_STEPS - 1);
    expect("it grows", good(1), 32768, 0);
    s = {(float)LARGEST_SCALE, 0};
    expect("at its largest", good(2 * SCALE_STEPS), LARGEST_SCALE, 0);
    s = {2, 7};
    expect("at its smallest", !adapt_scale(s, NAN), 1, 0);
    expect("there, an infinity is the caller's affair", adapt_scale(s, INFINITY), 1, 0);
    report("adapt_scale");
}

static bool padding_is_zero(const GPT2& model) {
    const Config& c = model.config;
    size_t begin = model.at.token_embd + (size_t)c.V * c.C,
           end = model.at.token_embd + (size_t)c.Vp * c.C;
    Floats params = get(model.params, model.space), master = get_floats(model.master, model.space);
    return largest(params, begin, end) == 0 && largest(master, begin, end) == 0;
}

static void test_padding(Golden& g) {
    loss_and_gradients(g.model, g.tokens.data(), g.targets.data(), g.B, g.T);
    check(padding_is_zero(g.model), "%s: padding rows are not 0 after loading", g.name.c_str());
    update(g.model, {0.01, 0.9, 0.95, 1e-8, 0.5, 1, 1}, grad_norm(g.model.grads, g.model.space), 1);
    check(padding_is_zero(g.model), "%s: padding rows are not 0 after a step", g.name.c_str());
    report("padding");
}

// A new model is all zeros, whatever its memory held for another.
static void test_memory_of_others() {
    for (int i = 0; i < 3; i++) {
        GPT2 model;
        gpt2_create(model, make_config(4, 10, 1, 1, 8), 1, 4);
        const Floats zeros(model.space), dirt(model.space, NAN);
        check_same("a new model's params", get(model.params, model.space), zeros);
        for (float* p : {model.master, model.grads, model.m, model.v}) {
            check_same("a new model", get_floats(p, model.space), zeros);
            to_device(p, dirt.data(), sizeof(float) * dirt.size());
        }
        set(model.params, dirt);
        gpt2_free(model);
    }
    report("memory of others");
}

static void test_initialisation() {
    const Config c = make_config(64, 300, 3, 4, 64);
    GPT2 model;
    gpt2_create(model, c, 1, 4);
    gpt2_init(model, 7);
    for (const Param& p : model.table) {
        Floats x = tensor(model.master, p);
        bool residual = p.name.find("attn_output.weight") != std::string::npos ||
                        p.name.find("ffn_down.weight") != std::string::npos;
        if (p.dims.size() == 1) {
            float want = p.name.find("norm.weight") != std::string::npos ? 1 : 0;
            check_same(p.name + " at the start", x, Floats(p.count, want));
            continue;
        }
        double want = residual ? 0.02 / sqrt(2.0 * c.L) : 0.02, sum = 0;
        for (float v : x) sum += v;
        double n = (double)p.count, deviation = norm(x) / sqrt(n);
        check_error(p.name + ": deviation", fabs(deviation - want),
                    5 * want / sqrt(2 * n));   // 5 standard errors
        check_error(p.name + ": mean", fabs(sum / n), 5 * want / sqrt(n));
    }
    check(padding_is_zero(model), "padding rows are not 0 at the start");
    Floats first = get_floats(model.master, model.space);
    gpt2_init(model, 7);
    check_same("the same seed", get_floats(model.master, model.space), first);
    gpt2_init(model, 8);
    Floats other = get_floats(model.master, model.space);
    for (const Param& p : model.table) {
        bool same = memcmp(&other[p.offset], &first[p.offset], p.count * sizeof(float)) == 0;
        check(same == (p.dims.size() == 1), "%s: seeds 7 and 8 give %s weights", p.name.c_str(),
              same ? "the same" : "different");
    }
    // No two tensors draw the same numbers.
    for (const Param& p : model.table)
        for (const Param& q : model.table)
            if (&p != &q && p.dims.size() == 2 && q.dims.size() == 2)
                check(other[p.offset] / p.init_std != other[q.offset] / q.init_std,
                      "%s starts like %s", p.name.c_str(), q.name.c_str());
    gpt2_free(model);
    report("initialisation");
}

// One step of training with batches of several blocks, as bits.
static Floats step_bits(int threads) {
    device_init(threads);
    const int B = 3, T = 70;
    GPT2 model;
    gpt2_create(model, make_config(T, 150, 2, 2, 40), B, T);
    gpt2_init(model, 3);
    std::vector<int> tokens(B * T), targets(B * T);
    Rng rng = {5};
    for (int i = 0; i < B * T; i++) {
        tokens[i] = (int)random_below(rng, 150);
        targets[i] = (int)random_below(rng, 150);
    }
    float loss = loss_and_gradients(model, tokens.data(), targets.data(), B, T);
    float norm = grad_norm(model.grads, model.space);
    update(model, {0.01, 0.9, 0.95, 1e-8, 0.1, 1, 1}, norm, 1);
    Floats bits = get_floats(model.master, model.space),
           grads = get_floats(model.grads, model.space);
    bits.insert(bits.end(), grads.begin(), grads.end());
    bits.push_back(loss);
    bits.push_back(norm);
    gpt2_free(model);
    return bits;
}

static void test_threads() {
    Floats one = step_bits(1);
    for (int threads : {2, 3, 1})
        check_same(text("a step with %d threads", threads), step_bits(threads), one);
    check(std::isfinite(norm(one)), "a step with threads is not finite");
    report("threads");
}

// ---- the memory plan ----------------------------------------------------------------------------

static size_t test_plan_offsets(Config c, int B, int T, int recompute) {
    GPT2 model;
    gpt2_create(model, c, B, T, recompute);
    size_t sum = 0;
    for (const Activation& a : model.activations) {
        sum += a.bytes;
        check(a.offset + a.bytes <= model.arena_bytes && a.offset % 64 == 0,
              "plan: %s is outside, or not aligned", a.name.c_str());
        std::vector<Span> s = a.alive;
        bool ordered = s.size() == 1 || (s.size() == 2 && s[0].dies < s[1].born);
        check(ordered && s[0].born <= s[0].dies && s.back().born <= s.back().dies && a.bytes > 0,
              "plan: %s lives from %d to %d", a.name.c_str(), s[0].born, s.back().dies);
        for (const Activation& b : model.activations) {
            bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
            check(&a == &b || !alive_together(a, b) || !overlap,
                  "plan: %s and %s share bytes while both live", a.name.c_str(), b.name.c_str());
        }
    }
    // Rounding up to 256 bytes is all that could be lost; with 5 layers, some buffers find
    // another's place.
    check(model.arena_bytes < sum + 256 * model.activations.size(), "plan: %zu bytes for %zu",
          model.arena_bytes, sum);
    if (c.L == 5)
        check(model.arena_bytes < sum, "plan: nothing is shared: %zu of %zu", model.arena_bytes,
              sum);
    size_t arena = model.arena_bytes;
    gpt2_free(model);
    return arena;
}

// The lifetimes themselves: with a buffer of its own for every activation, filled with NaN, a step
// has the same bits. A lifetime that is too short would have let another activation write over this
// one; one that is born too late would read a NaN here.
static void test_plan_lifetimes(Golden& g) {
    const int *tokens = g.tokens.data(), *targets = g.targets.data();
    loss_and_gradients(g.model, tokens, targets, g.B, g.T);
    Floats planned = get_floats(g.model.grads, g.model.space);
    GPT2 apart;
    gpt2_create(apart, g.model.config, g.B, g.T);
    gpt2_load(apart, g.file);
    for (Activation& a : apart.activations)
        *a.slot = put_bytes(Floats(a.bytes / 4 + 1, NAN).data(), a.bytes);
    loss_and_gradients(apart, tokens, targets, g.B, g.T);
    check_same("gradients without sharing memory", get_floats(apart.grads, apart.space), planned);
    free_buffers("activations");
    gpt2_free(apart);
}

// What backward computes again has the bits that forward threw away. Only in 16 bits may GELU
// differ, by one rounding, where forward's came from a product's epilogue.
static void test_recompute(Golden& g) {
    const int *tokens = g.tokens.data(), *targets = g.targets.data();
    loss_and_gradients(g.model, tokens, targets, g.B, g.T);
    Floats want = get_floats(g.model.grads, g.model.space);
    for (int recompute = 1; recompute <= 2; recompute++) {
        GPT2 model;
        gpt2_create(model, g.model.config, g.B, g.T, recompute);
        gpt2_load(model, g.file);
        loss_and_gradients(model, tokens, targets, g.B, g.T);
        Floats got = get_floats(model.grads, model.space);
        std::string what = text("gradients with recompute %d", recompute);
        if (sizeof(floatX) == sizeof(float) || recompute == 2) check_same(what, got, want);
        else
            check_error(what, largest_error(got, want, 0, want.size()),
                        40 * ROUND_X * largest(want, 0, want.size()));
        gpt2_free(model);
    }
}

static void test_plan(Golden& g) {
    size_t before = SIZE_MAX;
    for (int recompute = 0; recompute <= 2; recompute++) {
        test_plan_offsets(make_config(16, 37, 2, 3, 24), 4, 11, recompute);
        test_plan_offsets(make_config(8, 5, 1, 1, 3), 1, 1, recompute);
        size_t arena = test_plan_offsets(make_config(64, 500, 5, 2, 32), 2, 64, recompute);
        check(arena < before, "plan: recompute %d needs %zu bytes", recompute, arena);
        before = arena;
    }
    test_plan_lifetimes(g);
    test_recompute(g);
    report("memory plan");
}

// ---- files --------------------------------------------------------------------------------------

static void test_files(Golden& g) {
    const bool untied = g.B % 2 == 0;   // one of the two models
    const char* folder = getenv("TMPDIR");
    std::string path = text("%s/test_model.%d.gguf", folder ? folder : "/tmp", (int)getpid());
    gpt2_save(g.model, GgufWriter(), untied, path);
    Gguf file = gguf_open(path);
    GPT2 model;
    gpt2_create(model, gpt2_config(file), 1, 1);
    gpt2_load(model, file);
    check_same("saved and loaded", get_floats(model.master, model.space),
               get_floats(g.model.master, g.model.space));
    check_same("saved and loaded, params", get(model.params, model.space),
               get(g.model.params, g.model.space));
    const Config a = model.config, b = g.model.config;
    check(a.T == b.T && a.V == b.V && a.Vp == b.Vp && a.L == b.L && a.NH == b.NH && a.C == b.C,
          "configs differ");
    check(file.tensors.size() == g.model.table.size() + untied, "%zu tensors in the file",
          file.tensors.size());
    check(golden_tensor(file, "token_embd.weight").dims[1] == (uint64_t)b.V,
          "padding rows were written");
    gguf_close(file);
    gpt2_free(model);
    unlink(path.c_str());
    report("files");
}

// A test on both golden models, each as its file has it.
static std::function<void()> golden(void (*test)(Golden&)) {
    return [test] {
        for (const char* name : {"model.gguf", "model-odd.gguf"}) {
            Golden g = open_golden(name);
            test(g);
            close_golden(g);
        }
    };
}

int main(int argc, char** argv) {
    device_init(1);   // models this small run faster so; test_threads looks at more
    return run_tests(argc, argv,
                     {{"forward_backward", golden(test_forward_backward)},
                      {"ten_steps", golden(test_ten_steps)},
                      {"directions", golden(test_directions)},
                      {"padding", golden(test_padding)},
                      {"accumulation", golden(test_accumulation)},
                      {"batches", golden(test_batches)},
                      {"decay_and_clipping", golden(test_decay_and_clipping)},
                      {"loss_scale", golden(test_loss_scale)},
                      {"adapt_scale", test_adapt_scale},
                      {"plan", golden(test_plan)},
                      {"files", golden(test_files)},
                      {"memory_of_others", test_memory_of_others},
                      {"initialisation", test_initialisation},
                      {"threads", test_threads}});
}
