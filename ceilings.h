// ceilings.h - what the machine can do at most, measured: what the trainer's and infer's speeds are
// held against.
#pragma once
#include <algorithm>
#include <vector>
#include "matmul.h"
#include "profile.h"

// FLOPs a second, a multiply-add counted as 2: the best of the runs of about a millisecond that fit
// into a fifth of a second, in which every thread does nothing but multiply-adds. The first few are
// slow: threads that were just made share a core until the system spreads them.
inline double peak_flops(const Kernel& kernel) {
    double best = 0;
    const double end = seconds_now() + 0.2;
    do {
        double flops = 0, start = seconds_now();
#pragma omp parallel reduction(+ : flops)
        flops += kernel.flops(500000);
        best = std::max(best, flops / (seconds_now() - start));
    } while (seconds_now() < end);
    return best;
}

// Bytes a second, the best of 10 runs over 4 buffers of 64 MB, more than caches hold: all four
// read, and with `updates` three of them written too, as AdamW does.
inline double memory_bandwidth(bool updates) {
    const int64_t N = 1 << 24;
    std::vector<float> a(N), b(N), c(N), d(N);
    double best = 0;
    for (int run = 0; run < 10; run++) {
        double start = seconds_now(), total = 0;
        if (updates) {
#pragma omp parallel for simd
            for (int64_t i = 0; i < N; i++) {
                float x = a[i];
                b[i] += x, c[i] += x, d[i] += x;
            }
        } else {
#pragma omp parallel for reduction(+ : total)
            for (int64_t i = 0; i < N; i += LANES) {
                float lanes[LANES];
                for (int j = 0; j < LANES; j++)
                    lanes[j] = a[i + j] + b[i + j] + c[i + j] + d[i + j];
                total += lanes[0];
            }
        }
        if (total != 0) fail("memory_bandwidth: zeros have a sum of %g", total);
        best = std::max(best, (updates ? 7.0 : 4.0) * sizeof(float) * N / (seconds_now() - start));
    }
    return best;
}
