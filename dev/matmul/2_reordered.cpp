// Rung 2: the same loops in another order, i k j for i j k.
//
// Now the innermost loop goes along a row of b and a row of c. Every byte of a cache line is used,
// neighbours in j are independent chains, and the compiler makes vectors of them. The bottlenecks
// of rung 1, waiting and wasted lines, are gone.
//
// What is left: for each row of a, all of b passes by, 4 K N bytes for 2 K N FLOPs. Half a FLOP a
// byte: where b does not fit into a cache, this is as slow as memory is.
#include "ladder.h"

void reordered(float* c, const float* a, const float* b, int M, int N, int K) {
    for (int i = 0; i < M; i++) {
        float* row = c + (int64_t)i * N;
        memset(row, 0, sizeof(float) * N);
        for (int k = 0; k < K; k++) {
            const float x = a[(int64_t)i * K + k];
            const float* from = b + (int64_t)k * N;
            for (int j = 0; j < N; j++) row[j] = __builtin_fmaf(x, from[j], row[j]);
        }
    }
}
