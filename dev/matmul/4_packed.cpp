// Rung 4: packing. A tile of b is copied before it is used, its rows one behind the other.
//
// Now the tile is 32 KB without gaps, which fill L1 evenly and lie in 8 pages of memory, not in
// 32. Copying is cheap because it is done once for all rows of a: a number is moved
// once, for M multiply-adds.
//
// What is left is the traffic between L1 and the registers. A vector of multiply-adds loads a
// vector of b and one of c, and stores one of c: three accesses for one of the two multiply-adds
// that a core could begin in a cycle, and it stores one vector in a cycle at most.
#include "ladder.h"

const int DEPTH = 32, WIDTH = 256;

void packed(float* c, const float* a, const float* b, int M, int N, int K) {
    alignas(64) static float tile[DEPTH][WIDTH];
    memset(c, 0, sizeof(float) * M * N);
    for (int n = 0; n < N; n += WIDTH)
        for (int k0 = 0; k0 < K; k0 += DEPTH) {
            for (int k = 0; k < DEPTH; k++)
                memcpy(tile[k], b + (int64_t)(k0 + k) * N + n, sizeof tile[k]);
            for (int i = 0; i < M; i++) {
                float* row = c + (int64_t)i * N + n;
                for (int k = 0; k < DEPTH; k++) {
                    const float x = a[(int64_t)i * K + k0 + k];
                    for (int j = 0; j < WIDTH; j++) row[j] = __builtin_fmaf(x, tile[k][j], row[j]);
                }
            }
        }
}
