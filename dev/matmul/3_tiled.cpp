// Rung 3: tiles, so that what was fetched is used many times.
//
// The loops go over b in tiles of DEPTH x WIDTH, 32 KB. All rows of a meet a tile before the next
// one is looked at: b comes from memory once, not M times, and from a cache after that. For
// the tile's 32 KB, 2 M DEPTH WIDTH FLOPs are done, M / 2 a byte; the bottleneck of rung 2 is gone.
//
// The price is c, which passes by K / DEPTH times. And the tile fits into L1 only in theory:
// its rows are 4 N bytes apart. A cache finds a line's place by some bits of its address, and where
// N is a multiple of 1024 these are the same bits for every row: most of L1 stays empty.
#include "ladder.h"

const int DEPTH = 32, WIDTH = 256;

void tiled(float* c, const float* a, const float* b, int M, int N, int K) {
    memset(c, 0, sizeof(float) * M * N);
    for (int n = 0; n < N; n += WIDTH)
        for (int k0 = 0; k0 < K; k0 += DEPTH)
            for (int i = 0; i < M; i++) {
                float* row = c + (int64_t)i * N + n;
                for (int k = k0; k < k0 + DEPTH; k++) {
                    const float x = a[(int64_t)i * K + k];
                    const float* from = b + (int64_t)k * N + n;
                    for (int j = 0; j < WIDTH; j++) row[j] = __builtin_fmaf(x, from[j], row[j]);
                }
            }
}
