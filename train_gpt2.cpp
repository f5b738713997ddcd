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
#include "ceilings.h"
#include "files.h"
#include "layers.h"
#include "matmul.h"
#include "numerics.h"
#include "profile.h"
#include "threads.h"

// ---- the device ---------------------------------------------------------------------------------

static int cpu_threads = 1;
static const Kernel* products = &FLOAT32;   // what --dtype chose

void device_init(int threads) {
    cpu_threads = threads > 0 ? threads : processors();
    use_threads(cpu_threads);
}

const char* device_name() {
    static std::string name;
    const char* s = cpu_threads == 1 ? "" : "s";
    name = text("CPU, %d thread%s, %d floats a vector, products in %s", cpu_threads, s, VEC,
                products->name);
    return name.c_str();
}

void device_dtype(const char* dtype) {
    if (strcmp(dtype, "fp16") == 0)
        fail("--dtype fp16: the CPU multiplies in fp32 or bf16 (for a GPU: make train_gpt2cu "
             "PRECISION=fp16)");
    products = strcmp(dtype, "bf16") == 0 ? bfloat16_kernel() : &FLOAT32;
    if (!products)
        fail("--dtype bf16: this processor has no bfloat16 instructions (AVX512-BF16)");
}

double device_peak_flops() { return peak_flops(*products); }

bool device_profile() {
    profile.flops = device_peak_flops();
    profile.bandwidth[READS] = memory_bandwidth(false);
    profile.bandwidth[UPDATES] = memory_bandwidth(true);
    return true;
}

void* device_alloc(size_t bytes) {
    const size_t PAGE = bytes < (64 << 20) ? 64 : 2 << 20;
    const size_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    void* p = aligned_alloc(PAGE, rounded);
    if (!p)
        fail("out of memory: %.1f MB are not to be had (lower --batch, raise --recompute, or lower "
             "--seq)", bytes / 1e6);
#ifdef MADV_HUGEPAGE   // a large buffer in pages of 2 MB: fewer of them to look up
    if (PAGE > 64) madvise(p, rounded, MADV_HUGEPAGE);
#endif
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

// Queries that attention takes at a time: lanes of its vectors.
const int QUERIES = 32;

// For each thread: attention's two tiles of scores, and what matmul packs.
size_t device_reserve(int, int T, int) {
    size_t attention = 2 * (size_t)QUERIES * T, block = (BLOCK + NR) * KC;
    return sizeof(float) * (max_threads() * (attention + block) + SHARED);
}

// ---- encoder ------------------------------------------------------------------------------------

void encoder_forward(float* out, const int* tokens, const float* wte, const float* wpe,
                     int B, int T, int C) {
    const Timed timed("encoder forward", 0, 0, (double)B * T * C, 12.0 * B * T * C);
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
    const Timed timed("encoder backward", 0, 0, 2.0 * B * T * C, 24.0 * B * T * C);
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
    const Timed timed("layernorm forward", 0, 0, 8.0 * B * T * C, 8.0 * B * T * C);
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

// to[c] += sum over n of x[n][c]. Each thread has columns of its own and goes through all rows in
// order; 64 columns are four cache lines, which no two threads share.
const int COLUMNS = 64;

static void add_columns(float* to, const float* x, int N, int C) {
#pragma omp parallel for
    for (int c0 = 0; c0 < C; c0 += COLUMNS) {
        const int width = std::min(COLUMNS, C - c0);
        float sums[COLUMNS] = {};
        for (int n = 0; n < N; n++) {
            const float* row = x + (int64_t)n * C + c0;
            if (width == COLUMNS)   // a length that the compiler knows: the sums stay in registers
                for (int c = 0; c < COLUMNS; c++) sums[c] += row[c];
            else
                for (int c = 0; c < width; c++) sums[c] += row[c];
        }
        for (int c = 0; c < width; c++) to[c0 + c] += sums[c];
    }
}

// layernorm's backward with dresidual (null: none) added to dinp: for both layers of the contract.
static void add_layernorm_backward(float* dinp, float* dweight, float* dbias,
                                   const float* dresidual, const float* dout, const float* inp,
                                   const float* weight, const float* mean, const float* rstd,
                                   int N, int C) {
    const Timed timed("layernorm backward", 0, 0, 14.0 * N * C, (dresidual ? 16.0 : 12.0) * N * C);
    // The parameters first, since dinp may be dout.
    add_columns(dbias, dout, N, C);
#pragma omp parallel for
    for (int c0 = 0; c0 < C; c0 += COLUMNS) {
        const int width = std::min(COLUMNS, C - c0);
        float dw[COLUMNS] = {};
        for (int n = 0; n < N; n++) {
            const float* d = dout + (int64_t)n * C + c0;
            const float* x = inp + (int64_t)n * C + c0;
            auto add = [&](int c) {
                dw[c] = __builtin_fmaf(d[c], (x[c] - mean[n]) * rstd[n], dw[c]);
            };
            if (width == COLUMNS)
                for (int c = 0; c < COLUMNS; c++) add(c);
            else
                for (int c = 0; c < width; c++) add(c);
        }
        for (int c = 0; c < width; c++) dweight[c0 + c] += dw[c];
    }
#pragma omp parallel
    {
        static thread_local Scratch scratch;
        float *g = scratch.at_least(2 * C), *xhat = g + C;
#pragma omp for
        for (int n = 0; n < N; n++) {
            const float* d = dout + (int64_t)n * C;
            const float* x = inp + (int64_t)n * C;
            const float m = mean[n], s = rstd[n];
#pragma omp simd
            for (int c = 0; c < C; c++) {
                g[c] = d[c] * weight[c];
                xhat[c] = (x[c] - m) * s;
            }
            float g_mean = sum(g, C) / C;
            float g_xhat_mean = dot(g, xhat, C) / C;
            float* dx = dinp + (int64_t)n * C;
            const float* skip = dresidual ? dresidual + (int64_t)n * C : nullptr;
#pragma omp simd   // dx may be skip or d: c's own element alone, so vectors are right
            for (int c = 0; c < C; c++) {
                float norm = s * (g[c] - g_mean - xhat[c] * g_xhat_mean);
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
    const Timed timed("residual_layernorm forward", 0, 0, 9.0 * B * T * C, 16.0 * B * T * C);
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
    const Timed timed("matmul forward", C, OC, 2.0 * B * T * C * OC,
                      4.0 * ((double)B * T * (C + (pre_gelu ? 2 : 1) * OC) + (double)C * OC));
    Finish finish;
    finish.bias = bias;
    if (pre_gelu) finish.gelu = out;
    matmul(pre_gelu ? pre_gelu : out, OC, {inp, C, 1}, {weight, 1, C}, B * T, OC, C, finish,
           *products);
}

void gelu_forward(float* out, const float* inp, int B, int T, int C) {
    const Timed timed("gelu forward", 0, 0, 16.0 * B * T * C, 8.0 * B * T * C);
    int64_t elements = (int64_t)B * T * C;
#pragma omp parallel for simd
    for (int64_t i = 0; i < elements; i++) out[i] = gelu(inp[i]);
}

void matmul_backward(float* dinp, float* dweight, float* dbias, const float* dout, const float* inp,
                     const float* weight, const float* pre_gelu, int B, int T, int C, int OC,
                     bool add) {
    const int N = B * T;
    Finish finish, sums;
    finish.pre_gelu = pre_gelu;
    sums.add = add;
    const double flops = 2.0 * N * C * OC, bytes = 4.0 * ((double)N * (C + OC) + (double)C * OC);
    if (dinp) {   // dinp (N, C) = dout (N, OC) weight (OC, C), times gelu'(pre_gelu)
        const Timed timed("matmul dinp", C, OC, flops, bytes);
        matmul(dinp, C, {dout, OC, 1}, {weight, C, 1}, N, C, OC, finish, *products);
    }
    {   // dweight (OC, C) = or += dout^T (OC, N) inp (N, C)
        const Timed timed("matmul dweight", C, OC, flops, bytes + (add ? 4.0 * C * OC : 0));
        matmul(dweight, C, {dout, 1, OC}, {inp, C, 1}, OC, C, N, sums, *products);
    }
    if (dbias) {
        const Timed timed("matmul dbias", OC, 0, (double)N * OC, 4.0 * N * OC);
        add_columns(dbias, dout, N, OC);
    }
}

// ---- attention ----------------------------------------------------------------------------------
//
// One head's queries t0 .. t0+31 at a time, each a lane of the vectors: scores lie transposed, row
// s holding key s against the 32 queries, so that softmax goes down the rows with no sum across a
// vector. No more than 32 x T scores exist at once in a thread. Keys beyond the last query are not
// looked at; in the last 32 rows those after each lane's own position are masked. Where the
// sequence ends inside the 32, the lanes that are left over hold zeros, and nothing reads them.

struct HeadBlock {   // 32 queries of one head of one sequence
    int t0, lanes, keys;   // the first query, how many there are, and the keys they may look at
};

static HeadBlock head_block(int t0, int T) {
    int lanes = std::min(QUERIES, T - t0);
    return {t0, lanes, t0 + lanes};
}

// to[i][lane] = scale * rows[lane][i]: queries (or dout) as a matrix's columns. rows are ld apart.
static void transpose_lanes(float* to, const float* rows, int64_t ld, int lanes, int hs,
                            float scale) {
    for (int i = 0; i < hs; i++)
        for (int lane = 0; lane < QUERIES; lane++)
            to[i * QUERIES + lane] = lane < lanes ? scale * rows[lane * ld + i] : 0;
}

// scores[s][lane] = scale * k[s] . q[lane], minus infinity for keys after the query.
static void attention_scores(float* scores, float* columns, const float* qkv, HeadBlock h, int C,
                             int hs) {
    transpose_lanes(columns, qkv + (int64_t)h.t0 * 3 * C, 3 * C, h.lanes, hs,
                    1.0f / sqrtf((float)hs));
    gemm(scores, QUERIES, {qkv + C, 3 * C, 1}, {columns, QUERIES, 1}, h.keys, QUERIES, hs, false);
    for (int s = h.t0 + 1; s < h.keys; s++)
        for (int lane = 0; lane < s - h.t0; lane++) scores[s * QUERIES + lane] = -INFINITY;
}

void attention_forward(float* out, float* lse, const float* qkv, int B, int T, int C, int NH) {
    const Timed timed("attention forward", 0, 0, 2.0 * B * T * T * C, 16.0 * B * T * C);
    const int hs = C / NH;
#pragma omp parallel
    {
        static thread_local Scratch scratch;
        float* p = scratch.at_least((size_t)QUERIES * (T + hs));
        float* columns = p + (size_t)QUERIES * T;
#pragma omp for collapse(3) schedule(dynamic)
        for (int b = 0; b < B; b++)
            for (int head = 0; head < NH; head++)
                for (int t0 = 0; t0 < T; t0 += QUERIES) {
                    const HeadBlock h = head_block(t0, T);
                    const float* first = qkv + (int64_t)b * T * 3 * C + head * hs;
                    attention_scores(p, columns, first, h, C, hs);
                    // softmax: the largest score is taken out first, or e^score would overflow.
                    float most[QUERIES], total[QUERIES] = {};
                    for (int i = 0; i < QUERIES; i++) most[i] = p[i];
                    for (int s = 1; s < h.keys; s++)
                        for (int i = 0; i < QUERIES; i++) {
                            float x = p[s * QUERIES + i];
                            most[i] = x > most[i] ? x : most[i];
                        }
                    for (int s = 0; s < h.keys; s++)
                        for (int i = 0; i < QUERIES; i++) {
                            float e = exp_f(p[s * QUERIES + i] - most[i]);
                            p[s * QUERIES + i] = e;
                            total[i] += e;
                        }
                    // out = p v / total
                    float* o = out + ((int64_t)b * T + t0) * C + head * hs;
                    gemm(o, C, {p, 1, QUERIES}, {first + 2 * C, 3 * C, 1}, h.lanes, hs, h.keys,
                         false);
                    float* l = lse + ((int64_t)b * NH + head) * T + t0;
                    for (int i = 0; i < h.lanes; i++) {
                        float inverse = 1.0f / total[i];
                        for (int c = 0; c < hs; c++) o[(int64_t)i * C + c] *= inverse;
                        l[i] = most[i] + (float)log_d(total[i]);
                    }
                }
    }
}

void attention_backward(float* dqkv, float* D, const float* dout, const float* qkv,
                        const float* out, const float* lse, int B, int T, int C, int NH) {
    const Timed timed("attention backward", 0, 0, 5.0 * B * T * T * C, 32.0 * B * T * C);
    const int hs = C / NH;
    const float scale = 1.0f / sqrtf((float)hs);
    // A head of a sequence belongs to one thread: all blocks of queries add to the same dk and dv.
#pragma omp parallel
    {
        static thread_local Scratch scratch;
        float* p = scratch.at_least((size_t)QUERIES * (2 * T + hs));
        float *dp = p + (size_t)QUERIES * T, *columns = dp + (size_t)QUERIES * T;
#pragma omp for collapse(2) schedule(dynamic)
        for (int b = 0; b < B; b++)
            for (int head = 0; head < NH; head++) {
                const float* first = qkv + (int64_t)b * T * 3 * C + head * hs;
                float* dfirst = dqkv + (int64_t)b * T * 3 * C + head * hs;
                const int64_t row = ((int64_t)b * NH + head) * T;   // of lse and D
                for (int t0 = 0; t0 < T; t0 += QUERIES) {
                    const HeadBlock h = head_block(t0, T);
                    const int64_t at = ((int64_t)b * T + t0) * C + head * hs;   // of out and dout
                    float l[QUERIES] = {}, d[QUERIES] = {};
                    for (int i = 0; i < h.lanes; i++) {
                        l[i] = lse[row + t0 + i];
                        d[i] = dot(dout + at + (int64_t)i * C, out + at + (int64_t)i * C, hs);
                        D[row + t0 + i] = d[i];
                    }
                    attention_scores(p, columns, first, h, C, hs);
                    // dp[s][lane] = v[s] . dout[lane]
                    transpose_lanes(columns, dout + at, C, h.lanes, hs, 1);
                    gemm(dp, QUERIES, {first + 2 * C, 3 * C, 1}, {columns, QUERIES, 1}, h.keys,
                         QUERIES, hs, false);
                    for (int s = 0; s < h.keys; s++)
                        for (int i = 0; i < QUERIES; i++) {
                            float e = exp_f(p[s * QUERIES + i] - l[i]);
                            p[s * QUERIES + i] = e;
                            // From here on scale * dscore.
                            dp[s * QUERIES + i] = scale * e * (dp[s * QUERIES + i] - d[i]);
                        }
                    const float *q = first + (int64_t)t0 * 3 * C, *k = first + C;
                    float* dq = dfirst + (int64_t)t0 * 3 * C;
                    gemm(dq, 3 * C, {dp, 1, QUERIES}, {k, 3 * C, 1}, h.lanes, hs, h.keys, false);
                    // dk and dv: what is new in this block begins here, the keys before it go on.
                    const Matrix dpq = {q, 3 * C, 1}, pdo = {dout + at, C, 1};
                    float *dk = dfirst + C, *dv = dfirst + 2 * C;
                    const int64_t below = (int64_t)t0 * 3 * C;
                    gemm(dk, 3 * C, {dp, QUERIES, 1}, dpq, t0, hs, h.lanes, true);
                    gemm(dv, 3 * C, {p, QUERIES, 1}, pdo, t0, hs, h.lanes, true);
                    const Matrix dp_new = {dp + (size_t)t0 * QUERIES, QUERIES, 1};
                    const Matrix p_new = {p + (size_t)t0 * QUERIES, QUERIES, 1};
                    gemm(dk + below, 3 * C, dp_new, dpq, h.lanes, hs, h.lanes, false);
                    gemm(dv + below, 3 * C, p_new, pdo, h.lanes, hs, h.lanes, false);
                }
            }
    }
}

// ---- classifier ---------------------------------------------------------------------------------

void classifier(float* losses, float* dlogits, const float* logits, const int* targets,
                float dloss, int B, int T, int V, int Vp) {
    const Timed timed(dlogits ? "classifier" : "classifier, loss only", V, 0, 12.0 * B * T * V,
                      (dlogits ? 8.0 : 4.0) * B * T * V);
#pragma omp parallel
    {
        static thread_local Scratch scratch;
        float* e = scratch.at_least(V);
#pragma omp for
        for (int n = 0; n < B * T; n++) {
            const float* x = logits + (int64_t)n * Vp;
            float most = maximum(x, V);
            for (int v = 0; v < V; v++) e[v] = exp_f(x[v] - most);
            float total = sum(e, V);
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

void sum_losses(double* total, const float* losses, int N) {
    *total = 0;
    for (int n = 0; n < N; n++) *total += losses[n];
}

// ---- the optimizer ------------------------------------------------------------------------------

void zero_gradients(float* grads, const Tensor* tensors, int n_tensors) {
    for (const Tensor* t = tensors; t < tensors + n_tensors; t++)
        if (!t->product) device_zero(grads + t->first, t->count * sizeof(float));
}

float grad_norm(const float* grads, size_t n) {
    const Timed timed("grad_norm", 0, 0, 2.0 * n, 4.0 * n);
    // Blocks of a fixed size, each summed by one thread, then added in order: in double, since
    // a model has a hundred million squares to add.
    const size_t BLOCK_SIZE = 1 << 16;
    static std::vector<double> sums;
    sums.assign((n + BLOCK_SIZE - 1) / BLOCK_SIZE, 0);
#pragma omp parallel for
    for (size_t block = 0; block < sums.size(); block++) {
        const float* g = grads + block * BLOCK_SIZE;
        size_t count = std::min(n - block * BLOCK_SIZE, BLOCK_SIZE), i = 0;
        double lanes[LANES] = {};
        for (; i + LANES <= count; i += LANES)
            for (int j = 0; j < LANES; j++) lanes[j] += (double)g[i + j] * g[i + j];
        for (int j = 0; i + j < count; j++) lanes[j] += (double)g[i + j] * g[i + j];
        for (double lane : lanes) sums[block] += lane;
    }
    double total = 0;
    for (double s : sums) total += s;
    return (float)sqrt(total);
}

void adamw_update(float* params, float* master, const float* grads, float* m, float* v, size_t n,
                  AdamW a, const Tensor* tensors, int n_tensors) {
    const Timed timed("adamw", 0, 0, 14.0 * n, 28.0 * n, UPDATES);
    const Tensor all = {0, n, true, false};
    if (!tensors) tensors = &all, n_tensors = 1;
    const float beta1 = (float)a.beta1, rest1 = (float)(1 - a.beta1);
    const float beta2 = (float)a.beta2, rest2 = (float)(1 - a.beta2);
    const float correction1 = (float)(1 / (1 - power(a.beta1, a.step)));
    const float correction2 = (float)(1 / (1 - power(a.beta2, a.step)));
    const float lr = (float)a.lr, eps = (float)a.eps;
    for (const Tensor* t = tensors; t < tensors + n_tensors; t++) {
        const float weight_decay = t->decay ? (float)a.weight_decay : 0;
#pragma omp parallel for simd if (t->count > 1 << 14)
        for (size_t i = t->first; i < t->first + t->count; i++) {
            float g = a.grad_scale * grads[i];
            m[i] = beta1 * m[i] + rest1 * g;
            v[i] = beta2 * v[i] + rest2 * g * g;
            float mhat = m[i] * correction1, vhat = v[i] * correction2;
            master[i] -= lr * (mhat / (sqrtf(vhat) + eps) + weight_decay * master[i]);
            params[i] = master[i];
        }
    }
}

#include "trainer.h"
