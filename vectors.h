// vectors.h - what one processor calls its vector of floats, the same names for AVX-512, AVX2 with
// FMA, and 64-bit Arm; transposes by vectors; and buffers for them.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include "files.h"

// One register of them, the one instruction that matters: a * b + c, rounded once; and MR, the rows
// of a product's tile that the registers hold (matmul.h).
#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 Vec;
const int VEC = 16, MR = 12;   // 24 accumulators of the 32 registers
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
#error "vectors.h needs fused multiply-add (AVX2 with FMA, AVX-512, 64-bit Arm): use -march=native"
#endif
typedef float Eight __attribute__((vector_size(32)));

// to[i][j] = from[j][i], 8 x 8, rows to_row and from_row apart. A perfect shuffle of the rows, as
// of two halves of a deck of cards, moves each element's place by one bit; after three, the bits of
// row and column have changed sides.
inline void transpose8(float* to, int64_t to_row, const float* from, int64_t from_row) {
    Eight x[8], y[8];
    for (int i = 0; i < 8; i++) memcpy(&x[i], from + i * from_row, sizeof(Eight));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        memcpy(x, y, sizeof x);
    }
    for (int i = 0; i < 8; i++) memcpy(to + i * to_row, &x[i], sizeof(Eight));
}

// to[i][j] = from[j][i], of any size. Of the matrix whose rows lie further apart, eight rows go to
// their end, so that each of its lines is in the cache once.
inline void transpose(float* to, int64_t to_row, const float* from, int64_t from_row, int rows,
                      int columns) {
    const int i8 = rows / 8 * 8, j8 = columns / 8 * 8;
    const bool by_rows = to_row > from_row;
    for (int outer = 0; outer < (by_rows ? i8 : j8); outer += 8)
        for (int inner = 0; inner < (by_rows ? j8 : i8); inner += 8) {
            const int i = by_rows ? outer : inner, j = by_rows ? inner : outer;
            transpose8(to + i * to_row + j, to_row, from + j * from_row + i, from_row);
        }
    for (int j = 0; j < columns; j++)
        for (int i = j < j8 ? i8 : 0; i < rows; i++) to[i * to_row + j] = from[j * from_row + i];
}

// A buffer that grows when it must and is kept: none is made in a step of training but the first.
struct Scratch {
    float* p = nullptr;
    size_t size = 0;
    float* at_least(size_t n) {
        if (n > size) {
            free(p);
            size = n;
            p = (float*)aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
            if (!p) fail("out of memory: %zu floats for a product", n);
        }
        return p;
    }
    ~Scratch() { free(p); }
};
