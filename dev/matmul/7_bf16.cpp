// Rung 7: bfloat16 inputs, float32 sums.
//
// Now the multiply-add units are busy, and what is left is to let each do more. A bfloat16 is a
// float's upper half: the same range, 8 bits of precision for 24. A register holds 32 of them, and
// vdpbf16ps multiplies 16 pairs and adds both products of a pair to one float32 sum: 64 FLOPs in
// place of 32. Products of bfloat16 are exact in float32, so all that is lost is lost in rounding
// the inputs, 1/256 of each at most.
//
// A pair is two steps of k side by side in a word of 32 bits. a's rows have them so once they are
// rounded; in b's panels two rows are woven into one. Rounding is done while packing, once for each
// number of b and M multiply-adds. K counts words from here on: K / 2 of them.
#include "ladder.h"

#ifdef __AVX512F__
const int WIDTH = 256, WORDS = KC / 2;

static uint32_t pair(float low, float high) {
    return bfloat16_bits(low) | bfloat16_bits(high) << 16;
}

// Rung 5's tile, of words.
LEGIBLE_BF16_TARGET static void tile(float* c, int64_t N, const uint32_t* a, int64_t K,
                                     const uint32_t* panel, bool first) {
    Vec sums[MR][2];
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < 2; v++) sums[i][v] = first ? vec_all(0) : vec_load(c + i * N + v * VEC);
    for (int k = 0; k < WORDS; k++) {
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel + k * NR);
        const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + k * NR + VEC);
        for (int i = 0; i < MR; i++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i * K + k]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, b1);
        }
    }
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < 2; v++) vec_store(c + i * N + v * VEC, sums[i][v]);
}

static void columns(float* c, const uint32_t* a, const float* b, int M, int N, int K) {
    alignas(64) static thread_local uint32_t panels[WIDTH / NR][WORDS][NR];
    for (int k0 = 0; k0 < K; k0 += WORDS) {
        for (int k = 0; k < WORDS; k++) {
            const float *low = b + (int64_t)2 * (k0 + k) * N, *high = low + N;
            for (int p = 0; p < WIDTH / NR; p++)
                for (int j = 0; j < NR; j++)
                    panels[p][k][j] = pair(low[p * NR + j], high[p * NR + j]);
        }
        for (int p = 0; p < WIDTH / NR; p++)
            for (int m = 0; m < M; m += MR)
                tile(c + (int64_t)m * N + p * NR, N, a + (int64_t)m * K + k0, K, panels[p][0],
                     k0 == 0);
    }
}

void bf16(float* c, const float* a, const float* b, int M, int N, int K) {
    static std::vector<uint32_t> rounded;
    rounded.resize((size_t)M * K / 2);
#pragma omp parallel
    {
#pragma omp for
        for (int64_t i = 0; i < (int64_t)M * K / 2; i++) rounded[i] = pair(a[2 * i], a[2 * i + 1]);
#pragma omp for schedule(dynamic)
        for (int n = 0; n < N; n += WIDTH) columns(c + n, rounded.data(), b + n, M, N, K / 2);
    }
}
#else
void bf16(float*, const float*, const float*, int, int, int) {
    fail("bf16: this program was not compiled for AVX-512");
}
#endif
