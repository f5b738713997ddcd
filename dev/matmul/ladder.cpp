// ladder.cpp - climbs the ladder: checks each rung against float64, then measures it beside the
// machine's ceilings. `make ladder` builds and runs it; doc/matmul.md explains each rung.
#include <cmath>
#include "../../profile.h"
#include "ladder.h"

// The product of GPT-2 124M's widest layer, for 240 tokens: a number that every MR divides.
const int M = 240, N = 3072, K = 768;
static_assert(M % MR == 0 && N % 256 == 0 && K % KC == 0, "the rungs have no edges");

// Rungs take turns, so that what else the machine does befalls all alike; medians are printed.
const int ROUNDS = 9;

struct Rung {
    const char* name;
    Product* product;   // null: a ceiling, multiply-adds without memory
    int ceiling;        // what it is held against, an index of LADDER
    int rows = M;       // that it is measured on: rung 1 is slow, and needs no more to show it
    double error = 0;   // the largest, in parts of |a| |b|
    std::vector<double> speeds = {};   // FLOPs a second, by rounds
};

enum { ONE_CORE, ALL_CORES, ALL_CORES_BF16, NAIVE };   // the first of LADDER
static Rung LADDER[] = {
    {"ceiling, one core", nullptr, ONE_CORE},
    {"ceiling, all cores", nullptr, ALL_CORES},
    {"ceiling, all cores, bf16", nullptr, ALL_CORES_BF16},
    {"1 naive", naive, ONE_CORE, M / 20},
    {"2 loops reordered", reordered, ONE_CORE},
    {"3 tiled", tiled, ONE_CORE},
    {"4 packed", packed, ONE_CORE},
    {"5 register tile", register_tile, ONE_CORE},
    {"6 threads", threads, ALL_CORES},
    {"7 bf16", bf16, ALL_CORES_BF16},
    {"8 matmul.h", matmul_float32, ALL_CORES},
    {"8 matmul.h, bf16", matmul_bf16, ALL_CORES_BF16},
};

// The largest error of an element of c, in parts of its |a| |b|; infinite if one is not a number.
// In float64, where the product of two floats is exact; with a and b rounded first if `bf16`.
static double error(const float* c, const float* a, const float* b, bool bf16) {
    const auto value = [=](float x) { return bf16 ? bits_to_float(bfloat16_bits(x) << 16) : x; };
    double worst = 0;
#pragma omp parallel for reduction(max : worst)
    for (int i = 0; i < M; i++) {
        std::vector<double> exact(N), magnitude(N);
        for (int k = 0; k < K; k++)
            for (int j = 0; j < N; j++) {
                const double term = (double)value(a[i * K + k]) * value(b[k * N + j]);
                exact[j] += term;
                magnitude[j] += fabs(term);
            }
        for (int j = 0; j < N; j++) {
            const double x = fabs(c[i * N + j] - exact[j]) / magnitude[j];
            worst = std::isnan(x) ? INFINITY : std::max(worst, x);
        }
    }
    return worst;
}

// Runs a rung once. False, with a sentence, if its c is not a b. Rounding the inputs to bfloat16 is
// no fault; the table has its price. All float32 rungs have the bits of rung 1, `first`.
static bool check(Rung& r, float* c, const float* a, const float* b, float* first) {
    const bool bf16 = r.ceiling == ALL_CORES_BF16;
    std::fill(c, c + M * N, NAN);
    r.product(c, a, b, M, N, K);
    if (r.product == naive) memcpy(first, c, sizeof(float) * M * N);
    r.error = error(c, a, b, false);
    const double found = bf16 ? error(c, a, b, true) : r.error;
    const double bound = K * 0x1p-24;   // K additions, each rounded by 2^-24 of it at most
    const bool same = bf16 || memcmp(c, first, sizeof(float) * M * N) == 0;
    if (found <= bound && same) return true;
    printf("FAIL  %s: an error of %.2g |a||b|, expected at most %.2g%s\n", r.name, found, bound,
           same ? "" : " and the bits of rung 1");
    return false;
}

// FLOPs a second, over 30 milliseconds or one run.
static double speed(const Rung& r, float* c, const float* a, const float* b) {
    const Kernel* kernel = r.ceiling == ALL_CORES_BF16 ? bfloat16_kernel() : &FLOAT32;
    double flops = 0, seconds = 0, start = seconds_now();
    for (; seconds < 0.03; seconds = seconds_now() - start)
        if (r.product) {
            r.product(c, a, b, r.rows, N, K);
            flops += 2.0 * r.rows * N * K;
        } else {
#pragma omp parallel reduction(+ : flops)
            flops += kernel->flops(200000);
        }
    return flops / seconds;
}

int main(int argc, char** argv) {
    spin_briefly(argv);
    const bool only_check = argc == 2 && strcmp(argv[1], "check") == 0;
    if (argc > 1 && !only_check) fail("%s: expected `check`, or nothing, to measure too", argv[1]);
    const int cores = max_threads();
    Scratch buffers[4];   // aligned to 64 bytes
    float *a = buffers[0].at_least(M * K), *b = buffers[1].at_least(K * N);
    float *c = buffers[2].at_least(M * N), *first = buffers[3].at_least(M * N);
    Rng rng = {1};
    for (int i = 0; i < M * K; i++) a[i] = 2 * uniform(rng) - 1;
    for (int i = 0; i < K * N; i++) b[i] = 2 * uniform(rng) - 1;
    bool right = true;
    const int rounds = only_check ? 0 : ROUNDS;
    for (int round = -1; round < rounds && right; round++)   // before the first, all are checked
        for (Rung& r : LADDER) {
            if (r.ceiling == ALL_CORES_BF16 && !bfloat16_kernel()) continue;
            use_threads(r.ceiling == ONE_CORE ? 1 : cores);
            if (round >= 0) r.speeds.push_back(speed(r, c, a, b));
            else if (r.product) right &= check(r, c, a, b, first);
        }
    if (!right) return 1;
    if (only_check) return 0;
    printf("c (%d, %d) = a (%d, %d) b (%d, %d), threads: %d\n", M, N, M, K, K, N, cores);
    printf("%-26s %8s %12s %8s\n", "", "GFLOP/s", "of ceiling", "error");
    for (Rung& r : LADDER) std::sort(r.speeds.begin(), r.speeds.end());
    for (const Rung& r : LADDER)
        if (!r.speeds.empty())
            printf("%-26s %8.1f %11.1f%% %8.1g\n", r.name, r.speeds[ROUNDS / 2] / 1e9,
                   100 * r.speeds[ROUNDS / 2] / LADDER[r.ceiling].speeds[ROUNDS / 2], r.error);
    if (!bfloat16_kernel()) printf("no bf16: that takes AVX512-BF16 or AMX\n");
}
