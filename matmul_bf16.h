// matmul_bf16.h - matmul.h's product with inputs rounded to bfloat16, and sums in float32: another
// Kernel for its loops.
//
// A bfloat16 is a float's upper half: 8 bits of exponent, 7 of fraction. Twice as many fit into a
// register, and one instruction multiplies 16 pairs and adds both products of a pair to each sum.
// The rounding is done while panels are packed, so that nothing else of a program knows of it.
#pragma once

#ifdef __AVX512F__   // and whether the processor has AVX512-BF16 is asked when the program starts
#define LEGIBLE_BF16_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512bf16")))

// Rounds `depth` elements of k of W columns to pairs. The last pair may lack its second.
template <int W>
void bfloat16_pack(float* panel, Matrix x, int depth, int width) {
    uint32_t* words = (uint32_t*)panel;
    const int pairs = depth / 2;
    int j = 0;
    if (width < W || depth % 2) memset(panel, 0, sizeof(float) * W * ((depth + 1) / 2));
    if (width == W && x.col == 1) {
        for (int k = 0; k < pairs; k++) {
            const float *low = x.p + 2 * k * x.row, *high = low + x.row;
            for (int i = 0; i < W; i++)
                words[k * W + i] = bfloat16_bits(low[i]) | bfloat16_bits(high[i]) << 16;
        }
        j = W;
    } else if (width == W && x.row == 1 && pairs % 8 == 0) {
        for (; j + 8 <= W; j += 8)
            for (int k = 0; k < pairs; k += 8) {
                uint16_t rounded[8][16];   // 8 columns of 8 pairs, as words in a row
                for (int i = 0; i < 8; i++)
                    for (int e = 0; e < 16; e++)
                        rounded[i][e] = (uint16_t)bfloat16_bits(x.p[(j + i) * x.col + 2 * k + e]);
                transpose8(panel + k * W + j, W, (const float*)rounded, 8);
            }
    }
    for (; j < width; j++)
        for (int k = 0; k < pairs; k++) {
            const float* low = x.p + j * x.col + 2 * k * x.row;
            words[k * W + j] = bfloat16_bits(low[0]) | bfloat16_bits(low[x.row]) << 16;
        }
    if (depth % 2)
        for (int i = 0; i < width; i++)
            words[pairs * W + i] = bfloat16_bits(x.p[i * x.col + (depth - 1) * x.row]);
}

template <int R>
LEGIBLE_BF16_TARGET void bfloat16_rows(int rows, float* c, int64_t ldc, const float* a,
                                       const float* b, int K, const float* begin) {
    if constexpr (R > 1) {
        if (rows < R) return bfloat16_rows<R - 1>(rows, c, ldc, a, b, K, begin);
    }
    Vec sums[R][2];
    for (int i = 0; i < R; i++) {
        const float* from = begin ? begin : c + i * ldc;
        sums[i][0] = vec_load(from);
        sums[i][1] = vec_load(from + VEC);
    }
    for (int k = 0; k < K; k++) {
        __m512bh b0 = (__m512bh)vec_load(b + k * NR), b1 = (__m512bh)vec_load(b + k * NR + VEC);
        for (int i = 0; i < R; i++) {
            __m512bh x = (__m512bh)vec_all(a[k * MR + i]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, b1);
        }
    }
    for (int i = 0; i < R; i++) {
        vec_store(c + i * ldc, sums[i][0]);
        vec_store(c + i * ldc + VEC, sums[i][1]);
    }
}

inline void bfloat16_tile(int rows, int width, float* c, int64_t ldc, const float* a,
                          const float* b, int K, const float* begin) {
    if (width == NR) return bfloat16_rows<MR>(rows, c, ldc, a, b, K, begin);
    float edge[MR * NR] = {};
    for (int i = 0; i < rows; i++)
        memcpy(edge + i * NR, begin ? begin : c + i * ldc, sizeof(float) * width);
    bfloat16_rows<MR>(rows, edge, NR, a, b, K, nullptr);
    for (int i = 0; i < rows; i++) memcpy(c + i * ldc, edge + i * NR, sizeof(float) * width);
}

LEGIBLE_BF16_TARGET inline double bfloat16_flops(int steps) {
    Vec chain[12];
    for (int j = 0; j < 12; j++) chain[j] = vec_all((float)j);
    const __m512bh factor = (__m512bh)vec_all(0.0f);
    for (int i = 0; i < steps; i++)
        for (Vec& x : chain) x = _mm512_dpbf16_ps(x, factor, factor);
    float lanes[VEC], unused = 0;
    for (Vec& x : chain) {
        vec_store(lanes, x);
        unused += 0.0f * lanes[0];
    }
    return 4.0 * VEC * 12 * steps + unused;
}

const Kernel BFLOAT16 = {"bfloat16 by AVX512-BF16", MR, 2, bfloat16_pack<MR>, bfloat16_pack<NR>,
                         bfloat16_tile, bfloat16_flops};

inline const Kernel* bfloat16_kernel() {
    return __builtin_cpu_supports("avx512bf16") ? &BFLOAT16 : nullptr;
}
#else
inline const Kernel* bfloat16_kernel() { return nullptr; }
#endif
