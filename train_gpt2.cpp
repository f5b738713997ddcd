// train_gpt2.cpp - the layers of layers.h on the CPU, and the program ./train_gpt2.
//
// Each layer is the equation in layers.h written as loops; read the two side by side. Work is
// shared out with OpenMP so that the order of no sum depends on the number of threads, and the same
// bits come out for any. Threads share out rows, tiles of a product, or heads of attention; where
// backward adds up over rows, they share out what is not summed over: columns, tokens, positions.
// A sum over everything (grad_norm) has blocks of a fixed size, whose sums are added in order.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "files.h"
#include "layers.h"
#include "matmul.h"
#include "numerics.h"
#include "threads.h"

// ---- the device ---------------------------------------------------------------------------------

static int cpu_threads = 1;

void device_init(int threads) {
    cpu_threads = threads > 0 ? threads : processors();
    use_threads(cpu_threads);
}

const char* device_name() {
    static std::string name;
    const char* s = cpu_threads == 1 ? "" : "s";
    name = text("CPU, %d thread%s, %d floats a vector", cpu_threads, s, VEC);
    return name.c_str();
}

// The best of 10 runs of about 3 ms in which every thread does nothing but multiply-adds,
// on 12 independent chains: enough to keep two units of latency 4 busy, and few enough for
// AVX2's 16 registers.
double device_peak_flops() {
    const int CHAINS = 12, STEPS = 500000;
    double best = 0;
    for (int run = 0; run < 10; run++) {
        double flops = 0;
        auto start = std::chrono::steady_clock::now();
#pragma omp parallel reduction(+ : flops)
        {
            Vec chain[CHAINS];
            // Each of its own, or one would do for all.
            for (int j = 0; j < CHAINS; j++) chain[j] = vec_all((float)j);
            const Vec factor = vec_all(0.999f);
            for (int i = 0; i < STEPS; i++)
                for (Vec& x : chain) x = vec_fma(x, factor, factor);
            float lanes[VEC];
            flops += 2.0 * VEC * CHAINS * STEPS;
            for (Vec& x : chain) {
                vec_store(lanes, x);
                flops += 0.0 * lanes[0];   // 0, but only we know it: the loop has to be run
            }
        }
        std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, flops / seconds.count());
    }
    return best;
}

void* device_alloc(size_t bytes) {
    size_t rounded = (bytes + 63) / 64 * 64;
    void* p = aligned_alloc(64, rounded);
    if (!p)
        fail("out of memory: %.1f MB are not to be had (lower --batch, raise --recompute, or lower "
             "--seq)", bytes / 1e6);
    memset(p, 0, rounded);
    return p;
}

void device_free(void* p) {
    free(p);
}

void to_device(void* device, const void* host, size_t bytes) {
    memcpy(device, host, bytes);
}

void to_host(void* host, const void* device, size_t bytes) {
    memcpy(host, device, bytes);
}

void device_zero(void* device, size_t bytes) {
    memset(device, 0, bytes);
}

// Queries that attention takes at a time.
const int QUERIES = 64;

// For each thread: gemm's packed block, and attention's two tiles of scores.
size_t device_reserve(int, int T, int) {
    return max_threads() * sizeof(float) * (KC * NC + 2 * (size_t)QUERIES * T);
}

// ---- encoder ------------------------------------------------------------------------------------

void encoder_forward(float* out, const int* tokens, const float* wte, const float* wpe,
                     int B, int T, int C) {
#pragma omp parallel for
    for (int n = 0; n < B * T; n++) {
        float* row = out + (int64_t)n * C;
        const float* token = wte + (int64_t)tokens[n] * C;
        const float* position = wpe + (int64_t)(n % T) * C;
        for (int c = 0; c < C; c++) row[c] = token[c] + position[c];
    }
}

void encoder_backward(float* dwte, float* dwpe, const float* dout, const int* tokens,
                      const int* sorted, int B, int T, int C) {
    const int N = B * T;
    // The thread that meets the first row of a token adds all of that token's rows.
#pragma omp parallel for schedule(dynamic, 64)
    for (int i = 0; i < N; i++) {
        int token = tokens[sorted[i]];
        if (i > 0 && tokens[sorted[i - 1]] == token) continue;
        float* row = dwte + (int64_t)token * C;
        for (int j = i; j < N && tokens[sorted[j]] == token; j++) {
            const float* d = dout + (int64_t)sorted[j] * C;
            for (int c = 0; c < C; c++) row[c] += d[c];
        }
    }
#pragma omp parallel for
    for (int t = 0; t < T; t++) {
        float* row = dwpe + (int64_t)t * C;
        for (int b = 0; b < B; b++) {
            const float* d = dout + ((int64_t)b * T + t) * C;
            for (int c = 0; c < C; c++) row[c] += d[c];
        }
    }
}

// ---- layernorm ----------------------------------------------------------------------------------

// sum_i x[i] in the fixed order of numerics.h, and the sum of squared deviations from a mean.
static float sum(const float* x, int n) {
    float lanes[LANES] = {};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += x[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += x[i + j];
    return add_lanes(lanes);
}

static float sum_squared_deviations(const float* x, float mean, int n) {
    float lanes[LANES] = {};
    auto add = [&](int i, int j) {
        float d = x[i + j] - mean;
        lanes[j] = __builtin_fmaf(d, d, lanes[j]);
    };
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) add(i, j);
    for (int j = 0; i + j < n; j++) add(i, j);
    return add_lanes(lanes);
}

void layernorm_forward(float* out, float* mean, float* rstd, const float* inp, const float* weight,
                       const float* bias, int B, int T, int C) {
#pragma omp parallel for
    for (int n = 0; n < B * T; n++) {
        const float* x = inp + (int64_t)n * C;
        float* y = out + (int64_t)n * C;
        float m = sum(x, C) / C;
        // Two passes: sum(x^2) - mean^2 in one would lose all digits where |mean| >> deviation.
        float s = 1.0f / sqrtf(sum_squared_deviations(x, m, C) / C + LAYERNORM_EPS);
        for (int c = 0; c < C; c++) y[c] = __builtin_fmaf((x[c] - m) * s, weight[c], bias[c]);
        mean[n] = m;
        rstd[n] = s;
    }
}

// layernorm's backward with dresidual (null: none) added to dinp: for both layers of the contract.
static void add_layernorm_backward(float* dinp, float* dweight, float* dbias,
                                   const float* dresidual, const float* dout, const float* inp,
                                   const float* weight, const float* mean, const float* rstd,
                                   int N, int C) {
    // The parameters first, since dinp may be dout. Each thread has columns of its own and goes
    // through all rows in order; 16 columns are one cache line, which no two threads share.
    const int COLUMNS = 16;
#pragma omp parallel for
    for (int c0 = 0; c0 < C; c0 += COLUMNS) {
        int width = std::min(COLUMNS, C - c0);
        float dw[COLUMNS] = {}, db[COLUMNS] = {};
        for (int n = 0; n < N; n++) {
            const float* d = dout + (int64_t)n * C + c0;
            const float* x = inp + (int64_t)n * C + c0;
            for (int c = 0; c < width; c++) {
                dw[c] = __builtin_fmaf(d[c], (x[c] - mean[n]) * rstd[n], dw[c]);
                db[c] += d[c];
            }
        }
        for (int c = 0; c < width; c++) {
            dweight[c0 + c] += dw[c];
            dbias[c0 + c] += db[c];
        }
    }
#pragma omp parallel
    {
        std::vector<float> g(C), xhat(C);
#pragma omp for
        for (int n = 0; n < N; n++) {
            const float* d = dout + (int64_t)n * C;
            const float* x = inp + (int64_t)n * C;
            for (int c = 0; c < C; c++) {
                g[c] = d[c] * weight[c];
                xhat[c] = (x[c] - mean[n]) * rstd[n];
            }
            float g_mean = sum(g.data(), C) / C;
            float g_xhat_mean = dot(g.data(), xhat.data(), C) / C;
            float* dx = dinp + (int64_t)n * C;
            const float* skip = dresidual ? dresidual + (int64_t)n * C : nullptr;
            for (int c = 0; c < C; c++) {
                float norm = rstd[n] * (g[c] - g_mean - xhat[c] * g_xhat_mean);
                dx[c] = skip ? skip[c] + norm : norm;
            }
        }
    }
}

void layernorm_backward(float* dinp, float* dweight, float* dbias, const float* dout,
                        const float* inp, const float* weight, const float* mean,
                        const float* rstd, int B, int T, int C) {
    add_layernorm_backward(dinp, dweight, dbias, nullptr, dout, inp, weight, mean, rstd, B * T, C);
}

void residual_layernorm_forward(float* residual, float* out, float* mean, float* rstd,
                                const float* inp1, const float* inp2, const float* weight,
                                const float* bias, int B, int T, int C) {
    int64_t elements = (int64_t)B * T * C;
#pragma omp parallel for
    for (int64_t i = 0; i < elements; i++) residual[i] = inp1[i] + inp2[i];
    layernorm_forward(out, mean, rstd, residual, weight, bias, B, T, C);
}

void residual_layernorm_backward(float* dinp, float* dweight, float* dbias, const float* dresidual,
                                 const float* dout, const float* residual, const float* weight,
                                 const float* mean, const float* rstd, int B, int T, int C) {
    add_layernorm_backward(dinp, dweight, dbias, dresidual, dout, residual, weight, mean, rstd,
                           B * T, C);
}

// ---- matmul -------------------------------------------------------------------------------------

void matmul_forward(float* out, float* pre_gelu, const float* inp, const float* weight,
                    const float* bias, int B, int T, int C, int OC) {
    matmul_nt(pre_gelu ? pre_gelu : out, inp, weight, bias, B * T, C, OC);
    if (pre_gelu) gelu_forward(out, pre_gelu, B, T, OC);
}

void gelu_forward(float* out, const float* inp, int B, int T, int C) {
    int64_t elements = (int64_t)B * T * C;
#pragma omp parallel for simd
    for (int64_t i = 0; i < elements; i++) out[i] = gelu(inp[i]);
}

void matmul_backward(float* dinp, float* dweight, float* dbias, const float* dout, const float* inp,
                     const float* weight, const float* pre_gelu, int B, int T, int C, int OC) {
    const int N = B * T;
    const int64_t elements = (int64_t)N * C;
    if (dinp) {   // dinp (N, C) = dout (N, OC) weight (OC, C)
        memset(dinp, 0, sizeof(float) * elements);
        matmul(dinp, {dout, OC, 1}, {weight, C, 1}, N, C, OC);
    }
    if (dinp && pre_gelu) {
#pragma omp parallel for simd
        for (int64_t i = 0; i < elements; i++) dinp[i] *= gelu_derivative(pre_gelu[i]);
    }
    // dweight (OC, C) += dout^T (OC, N) inp (N, C)
    matmul(dweight, {dout, 1, OC}, {inp, C, 1}, OC, C, N);
    if (!dbias) return;
    const int COLUMNS = 16;   // as in layernorm: columns are split over threads, rows go in order
#pragma omp parallel for
    for (int o0 = 0; o0 < OC; o0 += COLUMNS) {
        int width = std::min(COLUMNS, OC - o0);
        float db[COLUMNS] = {};
        for (int n = 0; n < N; n++)
            for (int o = 0; o < width; o++) db[o] += dout[(int64_t)n * OC + o0 + o];
        for (int o = 0; o < width; o++) dbias[o0 + o] += db[o];
    }
}

// ---- attention ----------------------------------------------------------------------------------
//
// Queries are taken QUERIES at a time, so that scores are matrix products of useful size, and no
// more than QUERIES x T of them exist at once in a thread. A block of queries t0 .. t1-1 needs
// the keys 0 .. t1-1; its last columns, where s > t, are masked.

// scores[i][s] = scale * q[t0+i] . k[s] for s < t1, rows ld apart.
// qkv is the first row of a sequence, at this head.
static void attention_scores(float* scores, int ld, const float* qkv, int t0, int t1, int C,
                             int hs) {
    const int rows = t1 - t0;
    const float scale = 1.0f / sqrtf((float)hs);
    memset(scores, 0, sizeof(float) * rows * ld);
    gemm(scores, ld, {qkv + (int64_t)t0 * 3 * C, 3 * C, 1}, {qkv + C, 1, 3 * C}, rows, t1, hs);
    for (int i = 0; i < rows; i++)
        for (int s = 0; s <= t0 + i; s++) scores[i * ld + s] *= scale;
}

// Row t of the scores, 0 .. t, becomes probabilities, and 0 beyond t. Returns lse, the log of
// the sum of exponentials; the largest score is taken out first, or e^score would overflow.
static float softmax_row(float* row, int t, int t1) {
    float most = row[0];
    for (int s = 1; s <= t; s++) most = row[s] > most ? row[s] : most;
    for (int s = 0; s <= t; s++) row[s] = exp_f(row[s] - most);
    float total = sum(row, t + 1), inverse = 1.0f / total;
    for (int s = 0; s <= t; s++) row[s] *= inverse;
    for (int s = t + 1; s < t1; s++) row[s] = 0;
    return most + (float)log_d(total);
}

void attention_forward(float* out, float* lse, const float* qkv, int B, int T, int C, int NH) {
    const int hs = C / NH;
    const int blocks = (T + QUERIES - 1) / QUERIES;
#pragma omp parallel
    {
        std::vector<float> p((size_t)QUERIES * T);
#pragma omp for collapse(3) schedule(dynamic)
        for (int b = 0; b < B; b++)
            for (int h = 0; h < NH; h++)
                for (int block = 0; block < blocks; block++) {
                    int t0 = block * QUERIES, t1 = std::min(T, t0 + QUERIES), rows = t1 - t0;
                    const float* head = qkv + (int64_t)b * T * 3 * C + h * hs;
                    float* o = out + ((int64_t)b * T + t0) * C + h * hs;
                    attention_scores(p.data(), T, head, t0, t1, C, hs);
                    for (int i = 0; i < rows; i++) {
                        float* p_row = p.data() + (size_t)i * T;
                        lse[((int64_t)b * NH + h) * T + t0 + i] = softmax_row(p_row, t0 + i, t1);
                        memset(o + (int64_t)i * C, 0, sizeof(float) * hs);
                    }
                    // out = p v
                    gemm(o, C, {p.data(), T, 1}, {head + 2 * C, 3 * C, 1}, rows, hs, t1);
                }
    }
}

void attention_backward(float* dqkv, float* D, const float* dout, const float* qkv,
                        const float* out, const float* lse, int B, int T, int C, int NH) {
    const int hs = C / NH;
    const float scale = 1.0f / sqrtf((float)hs);
    // A head of a sequence belongs to one thread: all blocks of queries add to the same dk and dv.
#pragma omp parallel
    {
        std::vector<float> p((size_t)QUERIES * T), dp((size_t)QUERIES * T);
#pragma omp for collapse(2) schedule(dynamic)
        for (int b = 0; b < B; b++)
            for (int h = 0; h < NH; h++) {
                const float* head = qkv + (int64_t)b * T * 3 * C + h * hs;
                float* dhead = dqkv + (int64_t)b * T * 3 * C + h * hs;
                const float* l = lse + ((int64_t)b * NH + h) * T;
                float* d = D + ((int64_t)b * NH + h) * T;
                for (int t = 0; t < T; t++)
                    for (int part = 0; part < 3; part++)
                        memset(dhead + (int64_t)t * 3 * C + part * C, 0, sizeof(float) * hs);
                for (int t0 = 0; t0 < T; t0 += QUERIES) {
                    int t1 = std::min(T, t0 + QUERIES), rows = t1 - t0;
                    int64_t first = ((int64_t)b * T + t0) * C + h * hs;   // of out and dout
                    attention_scores(p.data(), T, head, t0, t1, C, hs);
                    memset(dp.data(), 0, sizeof(float) * rows * T);
                    gemm(dp.data(), T, {dout + first, C, 1}, {head + 2 * C, 1, 3 * C}, rows, t1,
                         hs);
                    for (int i = 0; i < rows; i++) {
                        int t = t0 + i;
                        float* p_row = p.data() + (size_t)i * T;
                        float* dp_row = dp.data() + (size_t)i * T;
                        d[t] = dot(dout + first + (int64_t)i * C, out + first + (int64_t)i * C, hs);
                        for (int s = 0; s <= t; s++) {
                            p_row[s] = exp_f(p_row[s] - l[t]);
                            // From here on scale * dscore.
                            dp_row[s] = scale * p_row[s] * (dp_row[s] - d[t]);
                        }
                        for (int s = t + 1; s < t1; s++) p_row[s] = dp_row[s] = 0;
                    }
                    const Matrix q = {head + (int64_t)t0 * 3 * C, 3 * C, 1};
                    const Matrix k = {head + C, 3 * C, 1};
                    float *dq = dhead + (int64_t)t0 * 3 * C, *dk = dhead + C, *dv = dhead + 2 * C;
                    gemm(dq, 3 * C, {dp.data(), T, 1}, k, rows, hs, t1);
                    gemm(dk, 3 * C, {dp.data(), 1, T}, q, t1, hs, rows);
                    gemm(dv, 3 * C, {p.data(), 1, T}, {dout + first, C, 1}, t1, hs, rows);
                }
            }
    }
}

// ---- classifier ---------------------------------------------------------------------------------

void classifier(float* losses, float* dlogits, const float* logits, const int* targets,
                float dloss, int B, int T, int V, int Vp) {
#pragma omp parallel
    {
        std::vector<float> e(V);
#pragma omp for
        for (int n = 0; n < B * T; n++) {
            const float* x = logits + (int64_t)n * Vp;
            float most = x[0];
            for (int v = 1; v < V; v++) most = x[v] > most ? x[v] : most;
            for (int v = 0; v < V; v++) e[v] = exp_f(x[v] - most);
            float total = sum(e.data(), V);
            losses[n] = (float)(log_d(total) + most - x[targets[n]]);
            if (!dlogits) continue;
            float* d = dlogits + (int64_t)n * Vp;
            float factor = dloss / total;
            for (int v = 0; v < V; v++) d[v] = e[v] * factor;
            d[targets[n]] -= dloss;
            for (int v = V; v < Vp; v++) d[v] = 0;
        }
    }
}

// ---- the optimizer ------------------------------------------------------------------------------

float grad_norm(const float* grads, size_t n) {
    // Blocks of a fixed size, each summed by one thread, then added in order: in double, since
    // a model has a hundred million squares to add.
    const size_t BLOCK = 1 << 16;
    std::vector<double> sums((n + BLOCK - 1) / BLOCK);
#pragma omp parallel for
    for (size_t block = 0; block < sums.size(); block++) {
        size_t begin = block * BLOCK, end = std::min(n, begin + BLOCK);
        double lanes[8] = {};
        for (size_t i = begin; i < end; i++) lanes[i % 8] += (double)grads[i] * grads[i];
        for (double lane : lanes) sums[block] += lane;
    }
    double total = 0;
    for (double s : sums) total += s;
    return (float)sqrt(total);
}

void adamw_update(float* params, float* master, const float* grads, float* m, float* v, size_t n,
                  AdamW a) {
    const float beta1 = (float)a.beta1, rest1 = (float)(1 - a.beta1);
    const float beta2 = (float)a.beta2, rest2 = (float)(1 - a.beta2);
    const float correction1 = (float)(1 - power(a.beta1, a.step));
    const float correction2 = (float)(1 - power(a.beta2, a.step));
    const float lr = (float)a.lr, eps = (float)a.eps, weight_decay = (float)a.weight_decay;
#pragma omp parallel for simd
    for (size_t i = 0; i < n; i++) {
        float g = a.grad_scale * grads[i];
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * g * g;
        float mhat = m[i] / correction1, vhat = v[i] / correction2;
        master[i] -= lr * (mhat / (sqrtf(vhat) + eps) + weight_decay * master[i]);
        params[i] = master[i];
    }
}

#include "trainer.h"
