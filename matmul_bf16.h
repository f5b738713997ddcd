// matmul_bf16.h - matmul.h's product with inputs rounded to bfloat16, and sums in float32: two more
// Kernels for its loops.
//
// A bfloat16 is a float's upper half: 8 bits of exponent, 7 of fraction. Two that follow each other
// in k make one word of a panel. AVX512-BF16 multiplies 16 pairs at a time and adds both products
// of a pair to each sum; AMX does so for whole tiles, 16 x 16 sums and 16 pairs of k in one
// instruction. The rounding is done while panels are packed: nothing else of a program knows of it.
// Which of the two runs is decided when the program starts.
#pragma once
#include "matmul.h"

#ifdef __AVX512F__
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
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
        for (; j < W; j += 8)   // the last eight of 12 begin before the first have ended
            for (int k = 0, from = std::min(j, W - 8); k < pairs; k += 8) {
                uint16_t rounded[8][16];   // 8 columns of 8 pairs, as words in a row
                for (int i = 0; i < 8; i++)
                    for (int e = 0; e < 16; e++)
                        rounded[i][e] =
                            (uint16_t)bfloat16_bits(x.p[(from + i) * x.col + 2 * k + e]);
                transpose8(panel + k * W + from, W, (const float*)rounded, 8);
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

inline void bfloat16_tile(int rows, int width, float* c, int64_t ldc, Matrix a,
                          const float* b, int K, const float* begin) {
    edge_tile(rows, width, c, ldc, begin, [&](float* to, int64_t ld, const float* from) {
        bfloat16_rows<MR>(rows, to, ld, a.p, b, K, from);
    });
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

const Kernel BFLOAT16 = {"bfloat16 by AVX512-BF16", MR, 2, 1, bfloat16_pack<MR>, bfloat16_pack<NR>,
                         bfloat16_tile, bfloat16_flops};

// ---- AMX ----------------------------------------------------------------------------------------
//
// A core has 8 tiles of 16 rows of 64 bytes. Four hold 32 x 32 sums, two a's rows, two b's columns;
// 16 pairs of k take 4 loads and 4 multiplications:
//
//     a's rows   tile 4   sums 0   sums 1          a tile of a: 16 rows, each 16 pairs of k
//                tile 5   sums 2   sums 3          a tile of b: 16 pairs of k, each 16 columns
//                         tile 6   tile 7          (which is how panels of b lie anyway)
//                         b's columns

#ifdef LEGIBLE_AMX_IN_SOFTWARE   // tests/test_numerics.cpp: the same on any processor
#include "tests/amx.h"
#else
#define LEGIBLE_AMX_TARGET __attribute__((target("amx-tile,amx-bf16")))
struct AmxShape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
LEGIBLE_AMX_TARGET inline void amx_begin() {
    static thread_local bool ready = false;   // tiles belong to a thread
    const AmxShape shape;
    if (!ready) _tile_loadconfig(&shape);
    ready = true;
}
#define amx_load(tile, p, stride) _tile_loadd(tile, p, stride)
#define amx_store(tile, p, stride) _tile_stored(tile, p, stride)
#define amx_multiply(sums, a, b) _tile_dpbf16ps(sums, a, b)
#endif

const int AMX_ROWS = 32, AMX_WORDS = 16;
static_assert(NR == 32 && KC % AMX_WORDS == 0, "a panel of b is two tiles wide");

// Panels of a: for each 16 words of k, 32 rows of 16 words. x is a transposed, as in pack_panel.
inline void amx_pack_a(float* panel, Matrix x, int depth, int width) {
    uint16_t* to = (uint16_t*)panel;
    for (int k = 0; k < depth; k += 2 * AMX_WORDS)
        for (int i = 0; i < AMX_ROWS; i++)
            for (int e = 0; e < 2 * AMX_WORDS; e++, to++)
                *to = i < width && k + e < depth
                          ? (uint16_t)bfloat16_bits(x.p[i * x.col + (k + e) * x.row]) : 0;
}

inline void amx_pack_b(float* panel, Matrix x, int depth, int width) {
    const int words = (depth + 1) / 2, whole = round_up(words, AMX_WORDS);
    memset(panel + words * NR, 0, sizeof(float) * NR * (whole - words));
    bfloat16_pack<NR>(panel, x, depth, width);
}

LEGIBLE_AMX_TARGET inline void amx_tile(int rows, int width, float* c, int64_t ldc, Matrix panel,
                                        const float* b, int K, const float* begin) {
    const float* a = panel.p;
    float edge[AMX_ROWS * NR];
    const bool whole = rows == AMX_ROWS && width == NR;
    float* to = whole ? c : edge;
    const int64_t ld = whole ? ldc : NR, stride = ld * (int64_t)sizeof(float);
    if (!whole)
        for (int i = 0; i < rows; i++)
            memcpy(edge + i * NR, begin ? begin : c + i * ldc, sizeof(float) * width);
    // All rows begin with the same: a stride of 0 reads it 16 times.
    const float* from = begin && whole ? begin : to;
    const int64_t step = begin && whole ? 0 : stride, down = begin && whole ? 0 : 16 * ld;
    amx_begin();
    amx_load(0, from, step);
    amx_load(1, from + 16, step);
    amx_load(2, from + down, step);
    amx_load(3, from + down + 16, step);
    for (int k = 0; k < K; k += AMX_WORDS) {
        amx_load(4, a + k * AMX_ROWS, 64);
        amx_load(5, a + k * AMX_ROWS + 16 * AMX_WORDS, 64);
        amx_load(6, b + k * NR, NR * 4);
        amx_load(7, b + k * NR + 16, NR * 4);
        amx_multiply(0, 4, 6);
        amx_multiply(1, 4, 7);
        amx_multiply(2, 5, 6);
        amx_multiply(3, 5, 7);
    }
    amx_store(0, to, stride);
    amx_store(1, to + 16, stride);
    amx_store(2, to + 16 * ld, stride);
    amx_store(3, to + 16 * ld + 16, stride);
    if (!whole)
        for (int i = 0; i < rows; i++) memcpy(c + i * ldc, edge + i * NR, sizeof(float) * width);
}

// A tile's multiplication takes 16 cycles, whatever it follows: four chains of them.
LEGIBLE_AMX_TARGET inline double amx_flops(int steps) {
    const float zeros[16 * 16] = {};
    amx_begin();
    amx_load(4, zeros, 64);
    amx_load(6, zeros, 64);
    for (int i = 0; i < steps / 4; i++) {
        amx_multiply(0, 4, 6);
        amx_multiply(1, 4, 6);
        amx_multiply(2, 4, 6);
        amx_multiply(3, 4, 6);
    }
    return 2.0 * 16 * 16 * 32 * 4 * (steps / 4);
}

const Kernel BFLOAT16_AMX = {"bfloat16 by AMX", AMX_ROWS, 2, AMX_WORDS, amx_pack_a, amx_pack_b,
                             amx_tile, amx_flops};

// AMX has to be in the processor, and Linux has to be asked for room to keep a thread's tiles.
inline bool amx_usable() {
    unsigned a, b, c, d;
    const unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE))
        return false;
#ifdef SYS_arch_prctl
    const int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

// The best there is, or null for none.
inline const Kernel* bfloat16_kernel() {
    if (amx_usable()) return &BFLOAT16_AMX;
    return __builtin_cpu_supports("avx512bf16") ? &BFLOAT16 : nullptr;
}
#else
inline const Kernel* bfloat16_kernel() { return nullptr; }
#endif
