// Rung 1: the three loops, the definition of a product.
//
// 2 M N K FLOPs: each of the M N results is a chain of K multiply-adds, and each of these is two
// operations. The data is small beside them, 4 (M K + K N + M N) bytes, so arithmetic
// should be all that counts.
//
// It is not. Each multiply-add waits 4 cycles for the one before it, where a core could begin two
// vectors of 16 in every cycle: 1/128 of what it can do. And b is read down a column: each step
// fetches a line of 64 bytes, and uses 4 of them.
#include "ladder.h"

void naive(float* c, const float* a, const float* b, int M, int N, int K) {
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++)
                sum = __builtin_fmaf(a[(int64_t)i * K + k], b[(int64_t)k * N + j], sum);
            c[(int64_t)i * N + j] = sum;
        }
}
