// matmul.h - the CPU's matrix product, for train_gpt2.cpp and infer.cpp. float32 in, float32 out.
//
// Every element of a product is one chain of fused multiply-adds in the order of k, starting from
// what was there before:
//
//     for (k = 0; k < K; k++) c = fma(a[m][k], b[k][n], c);
//
// Tiling changes which elements are computed together, never this chain. So the result has
// the same bits for any number of threads and any vector width, and a test can ask for equality
// with the three loops.
//
// Why it is fast: a tile of MR x NR results stays in registers for a whole run of k.
// Each step of k then reads MR + NR numbers and does MR * NR multiply-adds, 8 x 32 of them
// with AVX-512: reading is no longer what limits it. (Goto and van de Geijn 2008, "Anatomy of
// high-performance matrix multiplication".)
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#include "numerics.h"

// One vector register of floats, and the one instruction that matters: a * b + c, rounded once.
#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 Vec;
const int VEC = 16, MR = 8;    // 16 accumulators of the 32 registers
inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec vec_load(const float* p) { return _mm512_loadu_ps(p); }
inline void vec_store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec vec_all(float x) { return _mm512_set1_ps(x); }
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 Vec;
const int VEC = 8, MR = 6;     // 12 accumulators of the 16 registers
inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec vec_load(const float* p) { return _mm256_loadu_ps(p); }
inline void vec_store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec vec_all(float x) { return _mm256_set1_ps(x); }
#elif defined(__aarch64__)
#include <arm_neon.h>
typedef float32x4_t Vec;
const int VEC = 4, MR = 8;     // 16 accumulators of the 32 registers
inline Vec vec_fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
inline Vec vec_load(const float* p) { return vld1q_f32(p); }
inline void vec_store(float* p, Vec v) { vst1q_f32(p, v); }
inline Vec vec_all(float x) { return vdupq_n_f32(x); }
#else
#error "matmul.h needs fused multiply-add (AVX2 with FMA, AVX-512, 64-bit Arm): use -march=native"
#endif
const int NR = 2 * VEC;

// A matrix seen through two strides: element (i, j) is p[i * row + j * col].
// A transpose is a swap of them.
struct Matrix {
    const float* p;
    int64_t row, col;
};

// c[R][NR] (rows ldc apart) += a[R][K] b[K][NR], b packed: NR floats for k = 0, then NR
// for k = 1, ... R is a template parameter because only loops of a known length keep their
// accumulators in registers.
template <int R>
inline void matmul_tile(float* c, int64_t ldc, Matrix a, const float* b, int K) {
    Vec acc[R][2];
    for (int i = 0; i < R; i++) {
        acc[i][0] = vec_load(c + i * ldc);
        acc[i][1] = vec_load(c + i * ldc + VEC);
    }
    for (int k = 0; k < K; k++) {
        Vec b0 = vec_load(b + k * NR), b1 = vec_load(b + k * NR + VEC);
        const float* column = a.p + k * a.col;
        for (int i = 0; i < R; i++) {
            Vec x = vec_all(column[i * a.row]);
            acc[i][0] = vec_fma(x, b0, acc[i][0]);
            acc[i][1] = vec_fma(x, b1, acc[i][1]);
        }
    }
    for (int i = 0; i < R; i++) {
        vec_store(c + i * ldc, acc[i][0]);
        vec_store(c + i * ldc + VEC, acc[i][1]);
    }
}

// The last rows of a matrix need a tile of fewer than MR rows: find the R that fits.
template <int R>
inline void matmul_rows(int rows, float* c, int64_t ldc, Matrix a, const float* b, int K) {
    if constexpr (R > 1) {
        if (rows < R) return matmul_rows<R - 1>(rows, c, ldc, a, b, K);
    }
    matmul_tile<R>(c, ldc, a, b, K);
}

const int KC = 256, NC = 256;   // of b, what is packed at a time

// One thread's product: c[M][N] (rows ldc apart) += a[M][K] b[K][N]. c overlaps neither a nor b.
//
// b is copied into panels of NR columns, KC rows at a time: then the innermost loop reads it in
// order, from a block (KC x NC floats) that fits the second-level cache and is used for all M rows.
// a is read where it lies: its elements are broadcast one by one, in whatever order it has them.
inline void gemm(float* c, int64_t ldc, Matrix a, Matrix b, int M, int N, int K) {
    static thread_local std::vector<float> buffer;   // KC * NC floats for each thread, kept
    buffer.resize(KC * NC);
    float* packed = buffer.data();
    for (int n0 = 0; n0 < N; n0 += NC) {
        int columns = std::min(NC, N - n0);
        for (int k0 = 0; k0 < K; k0 += KC) {
            int depth = std::min(KC, K - k0);
            for (int n = 0; n < columns; n += NR) {
                float* panel = packed + n * depth;
                int width = std::min(NR, columns - n);
                const float* from = b.p + k0 * b.row + (n0 + n) * b.col;
                if (width < NR) memset(panel, 0, sizeof(float) * NR * depth);
                if (b.col == 1) {
                    for (int k = 0; k < depth; k++)
                        memcpy(panel + k * NR, from + k * b.row, sizeof(float) * width);
                } else {
                    for (int k = 0; k < depth; k++)
                        for (int j = 0; j < width; j++)
                            panel[k * NR + j] = from[k * b.row + j * b.col];
                }
            }
            for (int m = 0; m < M; m += MR) {
                int rows = std::min(MR, M - m);
                Matrix am = {a.p + m * a.row + k0 * a.col, a.row, a.col};
                for (int n = 0; n < columns; n += NR) {
                    float* cm = c + m * ldc + n0 + n;
                    int width = std::min(NR, columns - n);
                    if (width == NR) {
                        matmul_rows<MR>(rows, cm, ldc, am, packed + n * depth, depth);
                        continue;
                    }
                    // The tile would write past the row's end: compute it aside, copy what belongs.
                    float edge[MR * NR] = {};
                    for (int i = 0; i < rows; i++)
                        memcpy(edge + i * NR, cm + i * ldc, sizeof(float) * width);
                    matmul_rows<MR>(rows, edge, NR, am, packed + n * depth, depth);
                    for (int i = 0; i < rows; i++)
                        memcpy(cm + i * ldc, edge + i * NR, sizeof(float) * width);
                }
            }
        }
    }
}

// The same product by all threads: c is cut into blocks, and each block is one thread's.
inline void matmul(float* c, Matrix a, Matrix b, int M, int N, int K) {
    const int BLOCK_N = 256;
    int column_blocks = (N + BLOCK_N - 1) / BLOCK_N;
    // About 32 blocks or more.
    int block_m = column_blocks >= 32 ? M : std::max(64, (M + 31) / 32);
    int row_blocks = (M + block_m - 1) / block_m;
#pragma omp parallel for schedule(dynamic)
    for (int block = 0; block < column_blocks * row_blocks; block++) {
        int n = block / row_blocks * BLOCK_N, m = block % row_blocks * block_m;
        gemm(c + (int64_t)m * N + n, N, {a.p + m * a.row, a.row, a.col},
             {b.p + n * b.col, b.row, b.col}, std::min(block_m, M - m), std::min(BLOCK_N, N - n),
             K);
    }
}

// out (N, OC) = inp (N, C) weight (OC, C)^T + bias (OC, or null for none). 2*N*C*OC FLOPs.
inline void matmul_nt(float* out, const float* inp, const float* weight, const float* bias,
                      int N, int C, int OC) {
#pragma omp parallel for
    for (int n = 0; n < N; n++) {
        float* row = out + (int64_t)n * OC;
        if (bias) memcpy(row, bias, sizeof(float) * OC);
        else memset(row, 0, sizeof(float) * OC);
    }
    matmul(out, {inp, C, 1}, {weight, 1, C}, N, OC, C);
}
