// test_layers.cpp - every layer of layers.h, forward and backward, on the backend that it is
// linked with:
//
//     golden values    of PyTorch, on odd shapes (reference.py; tests/golden/layers.gguf)
//     differences      each element of a gradient against the slope of the layer's own forward
//     the contract     what is overwritten, what is added to, what may alias, what may be null
//     threads          the same bits with 1, 2 and 3 threads
#include "check.h"

static Gguf golden;

// The sizes of case i of a layer; empty after the last. PREFIX is what its tensors' names begin
// with.
static std::vector<int> sizes_of(const char* layer, int i, std::string& prefix) {
    std::string key = text("%s.%d", layer, i);
    prefix = key + ".";
    if (!gguf_key(golden, key)) {
        if (i == 0)
            fail("%s: key %s: missing (run tests/reference.py)", golden.file.path.c_str(),
                 key.c_str());
        return {};
    }
    std::vector<int> sizes;
    for (int64_t size : gguf_ints(golden, key)) sizes.push_back((int)size);
    return sizes;
}

static Floats values(const std::string& name) {
    return golden_floats(golden, name);
}

// The rows 0 .. n-1 ordered by token, as the encoder's backward wants them.
static std::vector<int> sort_rows(const std::vector<int>& tokens) {
    std::vector<int> rows;
    int V = 0;
    for (int token : tokens) V = std::max(V, token + 1);
    for (int v = 0; v < V; v++)
        for (size_t n = 0; n < tokens.size(); n++)
            if (tokens[n] == v) rows.push_back((int)n);
    return rows;
}

// ---- finite differences -------------------------------------------------------------------------

// Compares gradient with the slope of loss(x) in every direction of an axis:
//     f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h + O(h^4)
// h is a power of two, so that x + h is exact; the order 4 allows an h so large that float32's
// rounding, divided by h, stays small. In 16 bits no h is good enough, and golden values must do.
static void differences(const std::string& name, Floats x, const Floats& gradient,
                        const std::function<double(const Floats&)>& loss) {
    if (sizeof(floatX) != sizeof(float)) return;
    const float h = 1.0f / 16;
    double rms = norm(gradient) / sqrt((double)gradient.size());
    for (size_t i = 0; i < x.size(); i++) {
        float kept = x[i];
        double f[5];
        for (int k : {-2, -1, 1, 2}) {
            x[i] = kept + k * h;
            f[k + 2] = loss(x);
        }
        x[i] = kept;
        double slope = (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * (double)h);
        check_error(text("%s[%zu] by differences", name.c_str(), i), fabs(slope - gradient[i]),
                    1e-4 * (rms + fabs(gradient[i])) + 1e-6);
    }
}

// As the backend will hold them.
static Floats rounded(Floats x) {
    for (float& value : x) value = (float)(floatX)value;
    return x;
}

// sum(a * b), the loss whose gradient with respect to a is b.
static double inner(const Floats& a, const Floats& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (double)a[i] * b[i];
    return sum;
}

// ---- encoder ------------------------------------------------------------------------------------

static void test_encoder() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("encoder", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], C = s[2], V = s[3], N = B * T;
        std::vector<int> token_list = golden_ints(golden, p + "tokens");
        int *tokens = put_ints(token_list), *sorted = put_ints(sort_rows(token_list));
        floatX *wte = put(values(p + "wte")), *wpe = put(values(p + "wpe")),
               *dout = put(values(p + "dout"));
        floatX* out = room(N * C);
        encoder_forward(out, tokens, wte, wpe, B, T, C);
        compare(golden, p + "out", get(out, N * C), 2);

        float *dwte = put_floats(Floats(V * C)), *dwpe = put_floats(Floats((T + 1) * C));
        for (int times = 1; times <= 2; times++) {   // the second call adds to the first's result
            encoder_backward(dwte, dwpe, dout, tokens, sorted, B, T, C);
            compare(golden, p + "dwte", get_floats(dwte, V * C), times * N, times);
            compare(golden, p + "dwpe", get_floats(dwpe, (T + 1) * C), times * B, times);
        }
        free_buffers(p);
    }
    report("encoder");
}

static void encoder_differences() {
    const int B = 2, T = 3, C = 5, V = 4, N = B * T;
    std::vector<int> list = {1, 3, 1, 0, 1, 3};
    Floats te = random_floats(1, V * C, 1), pe = random_floats(2, T * C, 1),
           d = random_floats(3, N * C, 1);
    int *tokens = put_ints(list), *sorted = put_ints(sort_rows(list));
    float *dwte = put_floats(Floats(V * C)), *dwpe = put_floats(Floats(T * C));
    floatX *wte = put(te), *wpe = put(pe), *out = room(N * C);
    encoder_backward(dwte, dwpe, put(d), tokens, sorted, B, T, C);
    auto loss = [&](floatX* slot, const Floats& x) {
        set(slot, x);
        encoder_forward(out, tokens, wte, wpe, B, T, C);
        return inner(get(out, N * C), d);
    };
    differences("encoder dwte", te, get_floats(dwte, V * C),
                [&](const Floats& x) { return loss(wte, x); });
    loss(wte, te);
    differences("encoder dwpe", pe, get_floats(dwpe, T * C),
                [&](const Floats& x) { return loss(wpe, x); });
    free_buffers("encoder differences");
    report("encoder, differences");
}

// ---- layernorm ----------------------------------------------------------------------------------

static void test_layernorm() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("layernorm", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], C = s[2], N = B * T;
        floatX *inp = put(values(p + "inp")), *dout = put(values(p + "dout")), *out = room(N * C);
        floatX *weight = put(values(p + "weight")), *bias = put(values(p + "bias"));
        float *mean = room_floats(N), *rstd = room_floats(N);
        layernorm_forward(out, mean, rstd, inp, weight, bias, B, T, C);
        compare(golden, p + "out", get(out, N * C), C);
        compare(golden, p + "mean", get_floats(mean, N), C);
        compare(golden, p + "rstd", get_floats(rstd, N), C);
        floatX* same = put(values(p + "inp"));
        layernorm_forward(same, mean, rstd, same, weight, bias, B, T, C);
        check_same(p + "out == inp", get(same, N * C), get(out, N * C));

        floatX* dinp = room(N * C);
        float *dweight = put_floats(Floats(C)), *dbias = put_floats(Floats(C));
        for (int times = 1; times <= 2; times++) {
            layernorm_backward(dinp, dweight, dbias, dout, inp, weight, mean, rstd, B, T, C);
            compare(golden, p + "dinp", get(dinp, N * C), C);
            compare(golden, p + "dweight", get_floats(dweight, C), times * N, times);
            compare(golden, p + "dbias", get_floats(dbias, C), times * N, times);
        }
        Floats expected = get(dinp, N * C), weight_sum = get_floats(dweight, C);
        float *dweight2 = put_floats(Floats(C)), *dbias2 = put_floats(Floats(C));
        layernorm_backward(dout, dweight2, dbias2, dout, inp, weight, mean, rstd, B, T, C);
        check_same(p + "dinp == dout", get(dout, N * C), expected);
        compare(golden, p + "dweight", get_floats(dweight2, C), N);
        compare(golden, p + "dbias", get_floats(dbias2, C), N);
        free_buffers(p);
    }
    report("layernorm");
}

static void test_residual_layernorm() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("residual_layernorm", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], C = s[2], N = B * T;
        floatX *inp1 = put(values(p + "inp1")), *inp2 = put(values(p + "inp2"));
        floatX *dresidual = put(values(p + "dresidual")), *dout = put(values(p + "dout"));
        floatX *weight = put(values(p + "weight")), *bias = put(values(p + "bias"));
        floatX *residual = room(N * C), *out = room(N * C), *dinp = room(N * C);
        float *mean = room_floats(N), *rstd = room_floats(N);
        residual_layernorm_forward(residual, out, mean, rstd, inp1, inp2, weight, bias, B, T, C);
        compare(golden, p + "residual", get(residual, N * C), 2);
        compare(golden, p + "out", get(out, N * C), C);
        compare(golden, p + "mean", get_floats(mean, N), C);
        compare(golden, p + "rstd", get_floats(rstd, N), C);
        Floats sum = get(residual, N * C), normed = get(out, N * C);

        float *dweight = put_floats(Floats(C)), *dbias = put_floats(Floats(C));
        for (int times = 1; times <= 2; times++) {
            residual_layernorm_backward(dinp, dweight, dbias, dresidual, dout, residual, weight,
                                        mean, rstd, B, T, C);
            compare(golden, p + "dinp", get(dinp, N * C), C);
            compare(golden, p + "dweight", get_floats(dweight, C), times * N, times);
            compare(golden, p + "dbias", get_floats(dbias, C), times * N, times);
        }
        residual_layernorm_backward(dresidual, dweight, dbias, dresidual, dout, residual, weight,
                                    mean, rstd, B, T, C);
        check_same(p + "dinp == dresidual", get(dresidual, N * C), get(dinp, N * C));

        residual_layernorm_forward(inp1, out, mean, rstd, inp1, inp2, weight, bias, B, T, C);
        check_same(p + "residual == inp1", get(inp1, N * C), sum);
        check_same(p + "residual == inp1, out", get(out, N * C), normed);
        floatX* again = put(values(p + "inp1"));
        residual_layernorm_forward(inp2, out, mean, rstd, again, inp2, weight, bias, B, T, C);
        check_same(p + "residual == inp2", get(inp2, N * C), sum);
        free_buffers(p);
    }
    report("residual_layernorm");
}

// residual_layernorm's backward is layernorm's with one more term, so differences of it check both.
static void layernorm_differences() {
    const int B = 2, T = 2, C = 9, N = B * T;
    Floats x1 = random_floats(4, N * C, 1), x2 = random_floats(5, N * C, 1),
           w = random_floats(6, C, 1);
    Floats b = random_floats(7, C, 1), d = random_floats(8, N * C, 1),
           dr = random_floats(9, N * C, 1);
    floatX *inp1 = put(x1), *inp2 = put(x2), *weight = put(w), *bias = put(b);
    floatX *residual = room(N * C), *out = room(N * C), *dinp = room(N * C);
    float *mean = room_floats(N), *rstd = room_floats(N);
    float *dweight = put_floats(Floats(C)), *dbias = put_floats(Floats(C));
    auto loss = [&](floatX* slot, const Floats& x) {
        set(slot, x);
        residual_layernorm_forward(residual, out, mean, rstd, inp1, inp2, weight, bias, B, T, C);
        return inner(get(out, N * C), d) + inner(get(residual, N * C), dr);
    };
    loss(inp1, x1);
    residual_layernorm_backward(dinp, dweight, dbias, put(dr), put(d), residual, weight, mean, rstd,
                                B, T, C);
    differences("layernorm dinp", x1, get(dinp, N * C),
                [&](const Floats& x) { return loss(inp1, x); });
    loss(inp1, x1);
    differences("layernorm dweight", w, get_floats(dweight, C),
                [&](const Floats& x) { return loss(weight, x); });
    loss(weight, w);
    differences("layernorm dbias", b, get_floats(dbias, C),
                [&](const Floats& x) { return loss(bias, x); });
    free_buffers("layernorm differences");
    report("layernorm, differences");
}

// ---- matmul -------------------------------------------------------------------------------------

static void test_matmul() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("matmul", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], C = s[2], OC = s[3], N = B * T;
        floatX *inp = put(values(p + "inp")), *dout = put(values(p + "dout"));
        floatX *weight = put(values(p + "weight")), *bias = put(values(p + "bias"));
        floatX *out = room(N * OC), *pre = room(N * OC), *activated = room(N * OC);
        matmul_forward(out, nullptr, inp, weight, bias, B, T, C, OC);
        compare(golden, p + "out", get(out, N * OC), C);
        matmul_forward(activated, pre, inp, weight, bias, B, T, C, OC);
        compare(golden, p + "out", get(pre, N * OC), C);
        compare(golden, p + "gelu", get(activated, N * OC), C);
        floatX* again = room(N * OC);
        gelu_forward(again, pre, B, T, OC);
        compare(golden, p + "gelu", get(again, N * OC), C);
        floatX *unbiased = room(N * OC), *zero_bias = room(N * OC);
        matmul_forward(unbiased, nullptr, inp, weight, nullptr, B, T, C, OC);
        matmul_forward(zero_bias, nullptr, inp, weight, put(Floats(OC)), B, T, C, OC);
        // A GPU may take another algorithm, with another order of sums, where there is no bias.
        Floats a = get(unbiased, N * OC), b = get(zero_bias, N * OC);
        Floats scale = values(p + "out.scale");
        for (int o = 0; o < N * OC; o++)
            check_error(p + "no bias", fabs((double)a[o] - b[o]),
                        (2 * ROUND_X + 2 * sqrt((double)C) * ROUND_FLOAT) * scale[o]);

        floatX* dinp = room(N * C);
        float *dweight = put_floats(Floats(OC * C, NAN)), *dbias = put_floats(Floats(OC));
        for (int times = 1; times <= 2; times++) {   // the first time, dweight is not read
            matmul_backward(dinp, dweight, dbias, dout, inp, weight, nullptr, B, T, C, OC,
                            times > 1);
            compare(golden, p + "dinp", get(dinp, N * C), OC);
            compare(golden, p + "dweight", get_floats(dweight, OC * C), times * N, times);
            compare(golden, p + "dbias", get_floats(dbias, OC), times * N, times);
        }
        // With inp = gelu(pre_gelu), dinp is pre_gelu's gradient. dweight does not depend on it.
        floatX* dpre = room(N * C);
        float* dweight2 = put_floats(Floats(OC * C));
        matmul_backward(dpre, dweight2, nullptr, dout, inp, weight, put(values(p + "pre_gelu")), B,
                        T, C, OC, true);
        compare(golden, p + "dpre_gelu", get(dpre, N * C), OC);
        compare(golden, p + "dweight", get_floats(dweight2, OC * C), N);
        float *dweight3 = put_floats(Floats(OC * C)), *dbias3 = put_floats(Floats(OC));
        matmul_backward(nullptr, dweight3, dbias3, dout, inp, weight, nullptr, B, T, C, OC, true);
        check_same(p + "dinp null: dweight", get_floats(dweight3, OC * C),
                   get_floats(dweight2, OC * C));
        compare(golden, p + "dbias", get_floats(dbias3, OC), N);
        free_buffers(p);
    }
    report("matmul");
}

static void matmul_differences() {
    const int B = 1, T = 4, C = 6, OC = 5, N = B * T;
    Floats x = random_floats(10, N * C, 1), w = random_floats(11, OC * C, 1),
           b = random_floats(12, OC, 1);
    Floats d = random_floats(13, N * OC, 1), identity(C * C);
    for (int c = 0; c < C; c++) identity[c * C + c] = 1;
    floatX *pre = put(x), *weight = put(w), *bias = put(b), *eye = put(identity);
    floatX *same = room(N * C), *inp = room(N * C), *out = room(N * OC), *dpre = room(N * C);
    float *dweight = put_floats(Floats(OC * C)), *dbias = put_floats(Floats(OC));
    auto loss = [&](floatX* slot, const Floats& x) {
        set(slot, x);
        matmul_forward(inp, same, pre, eye, nullptr, B, T, C, C);   // inp = gelu(pre)
        matmul_forward(out, nullptr, inp, weight, bias, B, T, C, OC);
        return inner(get(out, N * OC), d);
    };
    loss(pre, x);
    matmul_backward(dpre, dweight, dbias, put(d), inp, weight, pre, B, T, C, OC, false);
    Floats got = get(dpre, N * C), dw = get_floats(dweight, OC * C), db = get_floats(dbias, OC);
    differences("matmul dpre_gelu", x, got, [&](const Floats& v) { return loss(pre, v); });
    loss(pre, x);
    differences("matmul dweight", w, dw, [&](const Floats& v) { return loss(weight, v); });
    loss(weight, w);
    differences("matmul dbias", b, db, [&](const Floats& v) { return loss(bias, v); });
    free_buffers("matmul differences");
    report("matmul, differences");
}

// Rows longer than what a block of threads takes at once, with a tail: plain sums in double.
static void test_wide_rows() {
    const int N = 2, NARROW = 3, WIDE = 1100;
    Floats w = rounded(random_floats(40, WIDE * NARROW, 1));
    Floats b = rounded(random_floats(41, WIDE, 1)), x = rounded(random_floats(42, N * NARROW, 1));
    Floats dy = rounded(random_floats(43, N * NARROW, 1));
    Floats pre = rounded(random_floats(44, N * WIDE, 1));
    Floats v = rounded(random_floats(45, NARROW * WIDE, 1));
    floatX *out = room(N * WIDE), *pre_out = room(N * WIDE), *dpre = room(N * WIDE);
    float* dv = put_floats(Floats(NARROW * WIDE));
    matmul_forward(out, pre_out, put(x), put(w), put(b), 1, N, NARROW, WIDE);
    matmul_backward(dpre, dv, nullptr, put(dy), put(pre), put(v), put(pre), 1, N, WIDE, NARROW,
                    false);
    Floats got = get(out, N * WIDE), got_pre = get(pre_out, N * WIDE);
    Floats got_dpre = get(dpre, N * WIDE);
    const double rounding = 4 * ROUND_X + 4 * ROUND_FLOAT;
    for (int i = 0; i < N * WIDE; i++) {
        int n = i / WIDE, o = i % WIDE;
        double sum = b[o], size = fabs(sum), d = 0, d_size = 0;
        for (int c = 0; c < NARROW; c++) {
            sum += (double)x[n * NARROW + c] * w[o * NARROW + c];
            size += fabs((double)x[n * NARROW + c] * w[o * NARROW + c]);
            d += (double)dy[n * NARROW + c] * v[c * WIDE + o];
            d_size += fabs((double)dy[n * NARROW + c] * v[c * WIDE + o]);
        }
        check_error(text("wide out[%d]", i), fabs(got_pre[i] - sum), rounding * size);
        check_error(text("wide gelu[%d]", i), fabs(got[i] - gelu((float)sum)), 2 * rounding * size);
        check_error(text("wide dpre[%d]", i), fabs(got_dpre[i] - d * gelu_derivative(pre[i])),
                    2 * rounding * d_size);
    }
    free_buffers("wide rows");
    report("matmul, wide rows");
}

// Sums of many terms, whose parts a library may add up first: 1024 ones, and 1023 of -1.
// Parts that were rounded to bfloat16 on the way, where 1023 is 1024, would give 0.
static void test_long_sums() {
    const int N = 2, C = 2048, OC = 8;
    Floats w(OC * C);
    for (int i = 0; i < OC * C; i++) w[i] = i % C < C / 2 ? 1.0f : i % C < C - 1 ? -1.0f : 0.0f;
    floatX *inp = put(Floats(N * C, 1)), *out = room(N * OC);
    for (floatX* bias : {put(Floats(OC)), (floatX*)nullptr}) {
        matmul_forward(out, nullptr, inp, put(w), bias, 1, N, C, OC);
        check_same("long sums", get(out, N * OC), Floats(N * OC, 1));
    }
    free_buffers("long sums");
    report("matmul, long sums");
}

// ---- attention ----------------------------------------------------------------------------------

// Attention as layers.h says it, in double, and the scale of each result (check.h).
struct PlainAttention {
    Floats out, lse, dqkv, out_scale, lse_scale, dqkv_scale;
};

static PlainAttention plain_attention(const Floats& qkv, const Floats& dout, int B, int T, int C,
                                      int NH) {
    typedef std::vector<double> Doubles;
    const int N = B * T, hs = C / NH;
    const double root = sqrt((double)hs);
    Doubles out(N * C), lse(N * NH), dqkv(N * 3 * C);
    Doubles out_scale(N * C), lse_scale(N * NH), dqkv_scale(N * 3 * C);
    for (int i = 0; i < N * NH; i++) {   // i counts rows of lse (B, NH, T)
        const int t = i % T, h = i / T % NH, first = i / T / NH * T;   // first row of the sequence
        const size_t q = (size_t)(first + t) * 3 * C + h * hs, o = (size_t)(first + t) * C + h * hs;
        auto k = [&](int s) { return (size_t)(first + s) * 3 * C + C + h * hs; };
        auto v = [&](int s) { return k(s) + C; };
        Doubles p(t + 1);
        double terms = 0, total = 0, D = 0, D_scale = 0;
        for (int s = 0; s <= t; s++) {
            double sizes = 0;
            for (int c = 0; c < hs; c++) {
                p[s] += qkv[q + c] * (double)qkv[k(s) + c] / root;
                sizes += fabs(qkv[q + c] * (double)qkv[k(s) + c]) / root;
            }
            terms = std::max(terms, sizes);
        }
        const double most = *std::max_element(p.begin(), p.end());
        for (double score : p) total += exp(score - most);
        for (double& score : p) score = exp(score - most) / total;
        const double relative = 1 + terms;   // of e^score, whose exponent is off by a rounding
        lse[i] = most + log(total);
        lse_scale[i] = relative + fabs(lse[i]);
        for (int c = 0; c < hs; c++) {
            for (int s = 0; s <= t; s++) {
                out[o + c] += p[s] * qkv[v(s) + c];
                out_scale[o + c] += p[s] * fabs(qkv[v(s) + c]) * relative;
            }
            D += dout[o + c] * out[o + c];
            D_scale += fabs(dout[o + c]) * out_scale[o + c];
        }
        for (int s = 0; s <= t; s++) {
            double dp = 0, dp_scale = 0;
            for (int c = 0; c < hs; c++) {
                dp += dout[o + c] * (double)qkv[v(s) + c];
                dp_scale += fabs(dout[o + c] * (double)qkv[v(s) + c]);
            }
            const double ds = p[s] * (dp - D) / root;
            const double ds_scale = p[s] * (dp_scale + D_scale) * relative / root;
            for (int c = 0; c < hs; c++) {
                dqkv[q + c] += ds * qkv[k(s) + c];
                dqkv[k(s) + c] += ds * qkv[q + c];
                dqkv[v(s) + c] += p[s] * dout[o + c];
                dqkv_scale[q + c] += ds_scale * fabs(qkv[k(s) + c]);
                dqkv_scale[k(s) + c] += ds_scale * fabs(qkv[q + c]);
                dqkv_scale[v(s) + c] += p[s] * relative * fabs(dout[o + c]);
            }
        }
    }
    auto floats = [](const Doubles& x) { return Floats(x.begin(), x.end()); };
    return {floats(out), floats(lse), floats(dqkv),
            floats(out_scale), floats(lse_scale), floats(dqkv_scale)};
}

// The head sizes that models have: 64 is GPT-2's, and of what is above, a GPU has another form.
static void attention_head_sizes() {
    const int B = 1;
    for (int hs : {64, 80, 128})
        for (int T : {1, 63, 65, 131}) {
            const int NH = hs == 80 ? 2 : 1, C = NH * hs, N = B * T, terms = T + hs;
            const std::string name = text("attention, heads of %d, T %d: ", hs, T);
            Floats x = random_floats(60 + T, N * 3 * C, 1), d = random_floats(61 + T, N * C, 1);
            PlainAttention want = plain_attention(x, d, B, T, C, NH);
            floatX *qkv = put(x), *dout = put(d), *out = room(N * C), *dqkv = room(N * 3 * C);
            float *lse = room_floats(N * NH), *D = room_floats(N * NH);
            attention_forward(out, lse, qkv, B, T, C, NH);
            attention_backward(dqkv, D, dout, qkv, out, lse, B, T, C, NH);
            compare_values(name + "out", get(out, N * C), want.out, want.out_scale, terms);
            compare_values(name + "lse", get_floats(lse, N * NH), want.lse, want.lse_scale, terms);
            compare_values(name + "dqkv", get(dqkv, N * 3 * C), want.dqkv, want.dqkv_scale, terms);
            free_buffers(name);
        }
    report("attention, head sizes");
}

static void test_attention() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("attention", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], C = s[2], NH = s[3], N = B * T, terms = T + C / NH;
        PlainAttention plain =
            plain_attention(values(p + "qkv"), values(p + "dout"), B, T, C, NH);
        compare(golden, p + "out", plain.out, 0);   // it stands for PyTorch below
        compare(golden, p + "lse", plain.lse, 0);
        compare(golden, p + "dqkv", plain.dqkv, 0);
        floatX *qkv = put(values(p + "qkv")), *dout = put(values(p + "dout"));
        floatX *out = room(N * C), *dqkv = room(N * 3 * C);
        float *lse = room_floats(N * NH), *D = room_floats(N * NH);
        attention_forward(out, lse, qkv, B, T, C, NH);
        compare(golden, p + "out", get(out, N * C), terms);
        compare(golden, p + "lse", get_floats(lse, N * NH), terms);
        attention_backward(dqkv, D, dout, qkv, out, lse, B, T, C, NH);
        compare(golden, p + "dqkv", get(dqkv, N * 3 * C), terms);
        Floats first = get(dqkv, N * 3 * C);
        attention_backward(dqkv, D, dout, qkv, out, lse, B, T, C, NH);
        check_same(p + "dqkv is overwritten", get(dqkv, N * 3 * C), first);
        free_buffers(p);
    }
    report("attention");
}

static void attention_differences() {
    const int B = 2, T = 4, C = 6, NH = 2, N = B * T;
    Floats x = random_floats(14, N * 3 * C, 1), d = random_floats(15, N * C, 1);
    floatX *qkv = put(x), *out = room(N * C), *dqkv = room(N * 3 * C);
    float *lse = room_floats(N * NH), *D = room_floats(N * NH);
    auto loss = [&](const Floats& x) {
        set(qkv, x);
        attention_forward(out, lse, qkv, B, T, C, NH);
        return inner(get(out, N * C), d);
    };
    loss(x);
    attention_backward(dqkv, D, put(d), qkv, out, lse, B, T, C, NH);
    differences("attention dqkv", x, get(dqkv, N * 3 * C), loss);
    free_buffers("attention differences");
    report("attention, differences");
}

// A position's output must not change by a bit when the future does.
static void attention_is_causal() {
    const int B = 1, T = 70, C = 8, NH = 2;
    Floats x = random_floats(16, T * 3 * C, 1);
    floatX *out = room(T * C), *qkv = put(x);
    float* lse = room_floats(T * NH);
    attention_forward(out, lse, qkv, B, T, C, NH);
    Floats before = get(out, T * C);
    for (int t : {0, 1, 31, 63, 64, 68}) {   // 64 is where blocks of queries end
        Floats changed = x;
        for (size_t i = (t + 1) * 3 * C; i < changed.size(); i++) changed[i] += 1;
        attention_forward(out, lse, put(changed), B, T, C, NH);
        Floats after = get(out, T * C);
        check_same(text("attention: outputs up to position %d", t),
                   Floats(after.begin(), after.begin() + (t + 1) * C),
                   Floats(before.begin(), before.begin() + (t + 1) * C));
        bool differs = memcmp(&after[(t + 1) * C], &before[(t + 1) * C], sizeof(float) * C) != 0;
        check(differs, "attention: position %d does not see itself", t + 1);
    }
    free_buffers("attention is causal");
    report("attention, causality");
}

// ---- classifier ---------------------------------------------------------------------------------

// Logits (N, V) to (N, Vp), with numbers in the padding that must not matter.
static Floats pad_rows(const Floats& x, int N, int V, int Vp, float filler) {
    Floats padded(N * Vp, filler);
    for (int n = 0; n < N; n++) memcpy(&padded[n * Vp], &x[n * V], sizeof(float) * V);
    return padded;
}

static Floats cut_rows(const std::string& name, const Floats& x, int N, int V, int Vp) {
    Floats cut;
    bool zero = true;
    for (int n = 0; n < N; n++) {
        cut.insert(cut.end(), x.begin() + n * Vp, x.begin() + n * Vp + V);
        for (int v = V; v < Vp; v++) zero &= x[n * Vp + v] == 0;
    }
    check(zero, "%s: the padding's gradient is not 0", name.c_str());
    return cut;
}

static void test_classifier() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("classifier", i, p);
        if (s.empty()) break;
        int B = s[0], T = s[1], V = s[2], Vp = (V + 127) / 128 * 128, N = B * T;
        Floats x = pad_rows(values(p + "logits"), N, V, Vp, 8192);   // a number that 16 bits have
        int* targets = put_ints(golden_ints(golden, p + "targets"));
        float dloss = values(p + "dloss")[0];
        floatX *logits = put(x), *dlogits = room(N * Vp);
        float *losses = room_floats(N), *losses2 = room_floats(N), *losses3 = room_floats(N);
        classifier(losses, dlogits, logits, targets, dloss, B, T, V, Vp);
        compare(golden, p + "losses", get_floats(losses, N), V);
        compare(golden, p + "dlogits", cut_rows(p + "dlogits", get(dlogits, N * Vp), N, V, Vp), V);
        check_same(p + "logits are kept", get(logits, N * Vp), x);
        classifier(losses2, nullptr, logits, targets, dloss, B, T, V, Vp);
        check_same(p + "dlogits null", get_floats(losses2, N), get_floats(losses, N));
        classifier(losses3, logits, logits, targets, dloss, B, T, V, Vp);
        check_same(p + "dlogits == logits", get(logits, N * Vp), get(dlogits, N * Vp));
        check_same(p + "dlogits == logits, losses", get_floats(losses3, N), get_floats(losses, N));
        free_buffers(p);
    }
    report("classifier");
}

static void classifier_differences() {
    const int B = 1, T = 3, V = 7, Vp = 128, N = B * T;
    const float dloss = 0.25f;
    Floats x = random_floats(17, N * V, 1);
    int* targets = put_ints({2, 0, 6});
    floatX *logits = put(pad_rows(x, N, V, Vp, 0)), *dlogits = room(N * Vp);
    float* losses = room_floats(N);
    classifier(losses, dlogits, logits, targets, dloss, B, T, V, Vp);
    Floats gradient = cut_rows("classifier", get(dlogits, N * Vp), N, V, Vp);
    differences("classifier dlogits", x, gradient, [&](const Floats& x) {
        set(logits, pad_rows(x, N, V, Vp, 0));
        classifier(losses, nullptr, logits, targets, dloss, B, T, V, Vp);
        return inner(get_floats(losses, N), Floats(N, dloss));
    });
    free_buffers("classifier differences");
    report("classifier, differences");
}

// In double: in float, the last of these would be off in its fourth digit.
static void test_sum_losses() {
    for (int N : {1, 31, 33, 1025, 70000}) {
        Floats losses = random_floats(48, N, 1);
        double want = 0, size = 0, got = NAN;
        for (float& loss : losses) size += fabs(loss += 1000), want += loss;
        double* total = (double*)put_bytes(&got, sizeof got);
        sum_losses(total, put_floats(losses), N);
        to_host(&got, total, sizeof got);
        check_error(text("sum of %d losses", N), fabs(got - want), 1e-13 * size);
        free_buffers("sum_losses");
    }
    report("sum_losses");
}

// ---- the optimizer ------------------------------------------------------------------------------

// Tensors of all kinds, one of them longer than a block.
static const std::vector<Tensor> TENSORS = {{0, 37, true, true},      {64, 100, false, false},
                                            {192, 1, true, false},    {256, 64, false, true},
                                            {320, 40000, true, false}, {40320, 5, false, false}};
static const size_t SPACE = 40320 + 64;

static Tensor* put_tensors() {
    return (Tensor*)put_bytes(TENSORS.data(), sizeof(Tensor) * TENSORS.size());
}

static void test_zero_gradients() {
    Floats want = random_floats(49, SPACE, 1);
    float* grads = put_floats(want);
    zero_gradients(grads, put_tensors(), (int)TENSORS.size());
    for (const Tensor& t : TENSORS)
        if (!t.product) std::fill_n(want.begin() + t.first, t.count, 0.0f);
    check_same("zero_gradients: these tensors and no others", get_floats(grads, SPACE), want);
    free_buffers("zero_gradients");
    report("zero_gradients");
}

// All tensors at once, as if each had been given alone, with weight decay or without.
static void adamw_of_all_tensors() {
    Floats w(SPACE), g(SPACE), want(SPACE);
    const AdamW settings = {1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1};
    auto step = [&](const Floats& w, const Floats& g, AdamW a, const Tensor* table, int n) {
        float* master = put_floats(w);
        adamw_update(sizeof(floatX) == sizeof(float) ? (floatX*)master : room(w.size()), master,
                     put_floats(g), put_floats(Floats(w.size())), put_floats(Floats(w.size())),
                     w.size(), a, table, n);
        return get_floats(master, w.size());
    };
    for (const Tensor& t : TENSORS) {
        Floats tw = random_floats(t.first, t.count, 1), tg = random_floats(t.first + 1, t.count, 1);
        AdamW a = settings;
        if (!t.decay) a.weight_decay = 0;
        Floats after = step(tw, tg, a, nullptr, 0);
        std::copy(tw.begin(), tw.end(), w.begin() + t.first);
        std::copy(tg.begin(), tg.end(), g.begin() + t.first);
        std::copy(after.begin(), after.end(), want.begin() + t.first);
    }
    check_same("adamw of all tensors", step(w, g, settings, put_tensors(), (int)TENSORS.size()),
               want);
    free_buffers("adamw, all tensors");
    report("adamw, all tensors");
}

static void test_grad_norm() {
    for (size_t n : {1, 2, 7, 1000, 65536, 65537, 300001}) {
        Floats x = random_floats(18, n, 3);
        double want = norm(x), got = grad_norm(put_floats(x), n);
        check_error(text("grad_norm of %zu", n), fabs(got - want),
                    want * (2 + 0.01 * sqrt((double)n)) * ROUND_FLOAT);
        free_buffers("grad_norm");
    }
    check(grad_norm(put_floats(Floats(5)), 5) == 0, "grad_norm of zeros is not 0");
    check(std::isnan(grad_norm(put_floats({1, NAN, 2}), 3)), "grad_norm loses a NaN");
    check(std::isinf(grad_norm(put_floats({1, INFINITY}), 2)), "grad_norm loses an infinity");
    free_buffers("grad_norm");
    report("grad_norm");
}

static void test_adamw() {
    std::string p;
    for (int i = 0;; i++) {
        std::vector<int> s = sizes_of("adamw", i, p);
        if (s.empty()) break;
        int n = s[0], steps = s[1];
        std::vector<double> a = golden_doubles(golden, p + "settings");
        bool same_buffer = sizeof(floatX) == sizeof(float) && i % 2 == 0;
        float *master = put_floats(values(p + "master")), *m = put_floats(Floats(n)),
              *v = put_floats(Floats(n));
        floatX* params = same_buffer ? (floatX*)master : room(n);
        for (int step = 1; step <= steps; step++) {
            float* grads = put_floats(values(p + text("grads.%d", step)));
            adamw_update(params, master, grads, m, v, n,
                         {a[0], a[1], a[2], a[3], a[4], (float)a[5], step});
        }
        // All of it is float arithmetic, even where params have 16 bits, and no sum is longer than
        // the steps.
        compare(golden, p + "after", get_floats(master, n), steps);
        compare(golden, p + "m", get_floats(m, n), steps);
        compare(golden, p + "v", get_floats(v, n), steps);
        check_same(p + "params are the rounded master", get(params, n),
                   rounded(get_floats(master, n)));
        free_buffers(p);
    }
    // Each element goes its own way: a long buffer, with a tail, holds the short one many times.
    const int SHORT = 37, LONG = 3001;
    Floats short_w = random_floats(46, SHORT, 1), short_g = random_floats(47, SHORT, 1);
    Floats w(LONG), g(LONG);
    for (int i = 0; i < LONG; i++) w[i] = short_w[i % SHORT], g[i] = short_g[i % SHORT];
    auto step = [](const Floats& weights, const Floats& grads) {
        size_t n = weights.size();
        float* master = put_floats(weights);
        adamw_update(sizeof(floatX) == sizeof(float) ? (floatX*)master : room(n), master,
                     put_floats(grads), put_floats(Floats(n)), put_floats(Floats(n)), n,
                     {1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1});
        return get_floats(master, n);
    };
    Floats short_after = step(short_w, short_g), want(LONG);
    for (int i = 0; i < LONG; i++) want[i] = short_after[i % SHORT];
    check_same("adamw of a long buffer", step(w, g), want);
    free_buffers("adamw, long");
    report("adamw");
}

// ---- uploads ------------------------------------------------------------------------------------

// What the host holds when to_device() is called is what arrives, whatever it holds afterwards:
// also for small uploads, for which a GPU's to_device() does not wait.
static void test_uploads() {
    device_reserve(2, 64, 8);   // says what is small
    for (size_t n : {1, 300, 384, 385, 2000}) {
        std::vector<int> host(n);
        int* places[3];
        for (int*& place : places) place = put_ints(std::vector<int>(n));
        for (int i = 0; i < 3; i++) {
            std::fill(host.begin(), host.end(), i + 1);
            to_device(places[i], host.data(), sizeof(int) * n);
        }
        for (int i = 0; i < 3; i++) {
            to_host(host.data(), places[i], sizeof(int) * n);
            check(host == std::vector<int>(n, i + 1), "upload %d of %zu numbers: %d", i, n,
                  host[0]);
        }
        free_buffers("uploads");
    }
    report("uploads");
}

// ---- threads ------------------------------------------------------------------------------------

// One result after the other, of every layer, on a shape with more rows and columns than any block
// has.
static Floats everything(int B, int T, int C, int NH, int V) {
    const int N = B * T, OC = 3 * C, Vp = (V + 127) / 128 * 128;
    Floats all;
    auto keep = [&](const Floats& x) { all.insert(all.end(), x.begin(), x.end()); };
    std::vector<int> list(N);
    Rng rng = {19};
    for (int& token : list) token = (int)random_below(rng, V);
    int *tokens = put_ints(list), *sorted = put_ints(sort_rows(list));
    floatX *x = put(random_floats(20, N * C, 1)), *x2 = put(random_floats(21, N * C, 1)),
           *out = room(N * C);
    floatX *weight = put(random_floats(22, OC * C, 1)), *bias = put(random_floats(23, OC, 1));
    floatX *wide = room(N * OC), *pre = room(N * OC), *d = put(random_floats(24, N * C, 1)),
           *dinp = room(N * C);
    float *dweight = put_floats(random_floats(25, OC * C, 1)),
          *dbias = put_floats(random_floats(26, OC, 1));
    float *mean = room_floats(N), *rstd = room_floats(N), *lse = room_floats(N * NH),
          *D = room_floats(N * NH);
    float *dwte = put_floats(Floats(V * C)), *losses = room_floats(N);

    encoder_forward(out, tokens, put(random_floats(27, V * C, 1)), put(random_floats(28, T * C, 1)),
                    B, T, C);
    keep(get(out, N * C));
    encoder_backward(dwte, dweight, d, tokens, sorted, B, T, C);
    keep(get_floats(dwte, V * C));
    residual_layernorm_forward(out, dinp, mean, rstd, x, x2, weight, bias, B, T, C);
    keep(get(dinp, N * C));
    residual_layernorm_backward(dinp, dweight, dbias, d, x2, out, weight, mean, rstd, B, T, C);
    keep(get(dinp, N * C));
    matmul_forward(wide, pre, x, weight, bias, B, T, C, OC);
    keep(get(wide, N * OC));
    attention_forward(out, lse, wide, B, T, C, NH);
    keep(get(out, N * C));
    keep(get_floats(lse, N * NH));
    attention_backward(pre, D, d, wide, out, lse, B, T, C, NH);
    keep(get(pre, N * OC));
    matmul_backward(dinp, dweight, dbias, pre, x, weight, x2, B, T, C, OC, true);
    keep(get(dinp, N * C));
    keep(get_floats(dweight, OC * C));
    keep(get_floats(dbias, OC));
    floatX* logits = put(random_floats(29, N * Vp, 2));
    classifier(losses, logits, logits, tokens, 0.5f, B, T, V, Vp);
    keep(get(logits, N * Vp));
    keep(get_floats(losses, N));
    keep({grad_norm(dweight, OC * C)});
    float *m = put_floats(Floats(OC * C)), *v = put_floats(Floats(OC * C));
    float* master = put_floats(random_floats(30, OC * C, 1));
    adamw_update(weight, master, dweight, m, v, OC * C, {1e-3, 0.9, 0.95, 1e-8, 0.1, 0.5f, 1});
    keep(get_floats(master, OC * C));
    free_buffers("threads");
    return all;
}

static void test_threads() {
    for (int shape = 0; shape < 2; shape++) {
        Floats first;
        for (int threads : {1, 2, 3, 1}) {
            device_init(threads);
            Floats now = shape ? everything(3, 67, 60, 3, 300) : everything(1, 5, 8, 2, 9);
            if (first.empty()) first = now;
            check_same(text("every layer, shape %d, with %d threads", shape, threads), now, first);
        }
        bool finite = true;
        for (float x : first) finite &= std::isfinite(x);
        check(finite, "threads: a result is not finite");
    }
    report("threads");
}

int main(int argc, char** argv) {
    golden = gguf_open("tests/golden/layers.gguf");
    device_init(1);   // shapes this small run faster so; test_threads looks at more
    return run_tests(argc, argv,
                     {{"encoder", test_encoder},
                      {"encoder_differences", encoder_differences},
                      {"layernorm", test_layernorm},
                      {"residual_layernorm", test_residual_layernorm},
                      {"layernorm_differences", layernorm_differences},
                      {"matmul", test_matmul},
                      {"matmul_differences", matmul_differences},
                      {"wide_rows", test_wide_rows},
                      {"long_sums", test_long_sums},
                      {"attention", test_attention},
                      {"attention_head_sizes", attention_head_sizes},
                      {"attention_differences", attention_differences},
                      {"attention_is_causal", attention_is_causal},
                      {"classifier", test_classifier},
                      {"classifier_differences", classifier_differences},
                      {"sum_losses", test_sum_losses},
                      {"grad_norm", test_grad_norm},
                      {"zero_gradients", test_zero_gradients},
                      {"adamw", test_adamw},
                      {"adamw_of_all_tensors", adamw_of_all_tensors},
                      {"uploads", test_uploads},
                      {"threads", test_threads}});
}
