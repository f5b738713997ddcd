// Rung 5: a tile of results that stays in registers.
//
// MR x NR sums (12 x 32 with AVX-512) are kept in 24 vector registers for KC steps of k. A step
// loads a vector pair of b and broadcasts MR numbers of a, for 2 MR vectors of multiply-adds: 14
// loads and no store for 24, where rung 4 had 48 loads and 24 stores. The traffic to L1, the last
// bottleneck of a core, is gone.
//
// Each number has a reason (matmul.h derives them). Two units that take 4 cycles for a multiply-add
// need 8 independent chains, and 24 are more; 24 sums, 2 vectors of b and one of a are 27 of 32
// registers. A step reads one row of the panel, so b is packed in panels of NR columns,
// one step behind the other. KC = 384 steps make a panel of 48 KB, which comes from L1 and L2 while
// tiles go down the rows of a. The sums pass by memory K / KC times, not K / 32 times.
#include "ladder.h"

const int WIDTH = 256;   // columns packed at a time, with KC rows: 384 KB of L2

// c[MR][NR] += a[MR][KC] panel[KC][NR]; rows of c are N apart, those of a K. It starts at 0 if
// `first`.
static void tile(float* c, int64_t N, const float* a, int64_t K, const float* panel, bool first) {
    Vec sums[MR][2];
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < 2; v++) sums[i][v] = first ? vec_all(0) : vec_load(c + i * N + v * VEC);
    for (int k = 0; k < KC; k++) {
        const Vec b0 = vec_load(panel + k * NR), b1 = vec_load(panel + k * NR + VEC);
        for (int i = 0; i < MR; i++) {
            const Vec x = vec_all(a[i * K + k]);
            sums[i][0] = vec_fma(x, b0, sums[i][0]);
            sums[i][1] = vec_fma(x, b1, sums[i][1]);
        }
    }
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < 2; v++) vec_store(c + i * N + v * VEC, sums[i][v]);
}

void register_tile_columns(float* c, const float* a, const float* b, int M, int N, int K, int n0,
                           int n1) {
    alignas(64) static thread_local float panels[WIDTH / NR][KC][NR];
    for (int n = n0; n < n1; n += WIDTH)
        for (int k0 = 0; k0 < K; k0 += KC) {
            for (int k = 0; k < KC; k++)
                for (int p = 0; p < WIDTH / NR; p++)
                    memcpy(panels[p][k], b + (int64_t)(k0 + k) * N + n + p * NR,
                           sizeof panels[p][k]);
            for (int p = 0; p < WIDTH / NR; p++)
                for (int m = 0; m < M; m += MR)
                    tile(c + (int64_t)m * N + n + p * NR, N, a + (int64_t)m * K + k0, K,
                         panels[p][0], k0 == 0);
        }
}

void register_tile(float* c, const float* a, const float* b, int M, int N, int K) {
    register_tile_columns(c, a, b, M, N, K, 0, N);
}
