// quants.h - the forms in which weights lie in a file, and a product that computes on them as they
// lie: between gguf.h, which knows how many bytes a tensor has, and the runtime.
//
// A row of a weight is a row of blocks, each of which is decoded without its neighbours. Bytes from
// left to right; d, m and the like are halfs; q are small integers, w the weights they stand for:
//
//     F32, F16, BF16   a block is one number
//     Q8_0   32 in 34    d | q[32]                 w = d q           q int8
//     Q4_0   32 in 18    d | nibbles[16]           w = d (q - 8)
//     Q4_1   32 in 20    d | m | nibbles[16]       w = d q + m
//     Q4_K  256 in 144   d | m | s[12] | nibbles[128]              w = (d s) q - (m t)
//     Q5_K  256 in 176   d | m | s[12] | fifth[32] | nibbles[128]  w = (d s) q - (m t)
//     Q6_K  256 in 210   nibbles[128] | upper[64] | s[16] | d      w = (d s) (q - 32),  s int8
//
//     nibbles: a run of 2n weights is n bytes; the lower halves of the bytes are its first n
//     weights, the upper halves its last n. n = 16; 32 in Q4_K and Q5_K; in Q6_K see there.
//     s[12]: of each 32 weights a scale s and a minimum t, 6 bits each:
//
//         byte    0 1 2 3        4 5 6 7        8 9 10 11
//         bits    s0..s3, 6      t0..t3, 6      s4..s7, the lower 4; above them t4..t7's
//                 above: s4..s7's upper 2       above: t4..t7's upper 2
//
// product() on few rows of input gives, bit for bit, dot(inp, dequantize(row)): one sum in float32
// in the order that numerics.h gives dot(), whatever the number of threads and the width of
// vectors. In Q8_0, Q4_0, Q4_1 and Q6_K its definition is another, in integers, as exact: see
// there. And where the user asks for --int8, of any number of rows, and not as exact.
//
// Parts: decoding, once for each format; the product; encoding, the same bytes as ggml's reference.
#pragma once
#include <cmath>
#include <initializer_list>
#include "gguf.h"
#include "matmul.h"

// ---- decoding -----------------------------------------------------------------------------------

// A half at any address, by the processor's instruction where there is one: the same bits.
inline float half_at(const uint8_t* p) {
    uint16_t h;
    memcpy(&h, p, 2);
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    return half_to_float(h);
#endif
}

// 32 bytes at any address.
typedef uint8_t Bytes __attribute__((vector_size(32)));

inline Bytes bytes_at(const uint8_t* p) {
    Bytes b;
    memcpy(&b, p, 32);
    return b;
}

const int VECS = 32 / VEC;   // vectors that hold 32 weights, or a sum's lanes

// What a nibble stands for, d * (nibble - zero) + m; m = -0.0f adds nothing, not even a sign to 0.
struct Nibbles {
    Vec d, zero, m;
};

[[gnu::always_inline]] inline Nibbles nibbles(float d, float zero, float m) {
    return {vec_all(d), vec_all(zero), vec_all(m)};
}

// The instructions that differ between processors:
//     vec_int8     VEC of 32 int8, the v-th
//     vec_nibbles  the weights of VEC bytes' lower nibbles, or of the upper ones (shift 4)
//     vec_halves   VEC halfs
#if defined(__AVX512F__)
// The forms with a mask that leaves nothing out, because g++ 12 warns about those without.
[[gnu::always_inline]] inline __m512i two_halves(__m256i low, __m256i high) {
    return _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);
}
[[gnu::always_inline]] inline Vec vec_int8(Bytes q, int v) {
    const __m128i half = v ? _mm256_extracti128_si256((__m256i)q, 1)
                           : _mm256_castsi256_si128((__m256i)q);
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, half));
}
// All 16 weights that there are form a table, in which one instruction looks up 16 at once, by the
// lower 4 bits of each number. The table's arithmetic is done once for 32 weights.
[[gnu::always_inline]] inline Vec vec_nibbles(Nibbles n, const uint8_t* p, int shift) {
    const Vec count = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const __m512i q = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)p));
    return _mm512_maskz_permutexvar_ps(0xffff, shift ? _mm512_maskz_srli_epi32(0xffff, q, 4) : q,
                                       n.d * (count - n.zero) + n.m);
}
[[gnu::always_inline]] inline Vec vec_halves(const uint8_t* p) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
}
#elif defined(__AVX2__)
[[gnu::always_inline]] inline Vec vec_int8(Bytes q, int v) {
    const __m128i half = v < 2 ? _mm256_castsi256_si128((__m256i)q)
                               : _mm256_extracti128_si256((__m256i)q, 1);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v % 2 ? _mm_srli_si128(half, 8) : half));
}
[[gnu::always_inline]] inline Vec vec_nibbles(Nibbles n, const uint8_t* p, int shift) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
    const __m256i q = _mm256_and_si256(_mm256_srli_epi32(bytes, shift), _mm256_set1_epi32(15));
    return n.d * (_mm256_cvtepi32_ps(q) - n.zero) + n.m;
}
[[gnu::always_inline]] inline Vec vec_halves(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
#else
[[gnu::always_inline]] inline Vec vec_int8(Bytes q, int v) {
    int8_t bytes[32];
    memcpy(bytes, &q, 32);
    const int16x8_t eight = vmovl_s8(vld1_s8(bytes + v / 2 * 8));
    return vcvtq_f32_s32(vmovl_s16(v % 2 ? vget_high_s16(eight) : vget_low_s16(eight)));
}
[[gnu::always_inline]] inline Vec vec_nibbles(Nibbles n, const uint8_t* p, int shift) {
    uint32_t four;
    memcpy(&four, p, 4);
    const uint8x8_t q = vreinterpret_u8_u32(vdup_n_u32(four >> shift & 0x0f0f0f0f));
    return n.d * (vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(q)))) - n.zero) + n.m;
}
[[gnu::always_inline]] inline Vec vec_halves(const uint8_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)p)));
}
#endif

// VEC bfloats. One is the upper half of a float.
[[gnu::always_inline]] inline Vec vec_bfloats(const uint8_t* p) {
    typedef uint16_t Shorts __attribute__((vector_size(2 * VEC)));
    typedef uint32_t Words __attribute__((vector_size(4 * VEC)));
    Shorts upper;
    memcpy(&upper, p, sizeof upper);
    return (Vec)(__builtin_convertvector(upper, Words) << 16);
}

// The weights of piece j of a block, 32 of them: a function for each format.

// A file aligns its tensors to 32 bytes, which may be the middle of a line of the cache: a vector
// of 64 bytes is read by halves, or reading one across two lines would take half the time again.
[[gnu::always_inline]] inline void unpack_f32(Vec* w, const uint8_t* block, int) {
    for (int v = 0; v < VECS; v++) {
        const float* p = (const float*)block + v * VEC;
#if defined(__AVX512F__)
        w[v] = (Vec)two_halves(_mm256_loadu_si256((const __m256i*)p),
                               _mm256_loadu_si256((const __m256i*)(p + 8)));
#else
        w[v] = vec_load(p);
#endif
    }
}

[[gnu::always_inline]] inline void unpack_f16(Vec* w, const uint8_t* block, int) {
    for (int v = 0; v < VECS; v++) w[v] = vec_halves(block + 2 * v * VEC);
}

[[gnu::always_inline]] inline void unpack_bf16(Vec* w, const uint8_t* block, int) {
    for (int v = 0; v < VECS; v++) w[v] = vec_bfloats(block + 2 * v * VEC);
}

[[gnu::always_inline]] inline void unpack_q8_0(Vec* w, const uint8_t* block, int) {
    const Vec d = vec_all(half_at(block));
    for (int v = 0; v < VECS; v++) w[v] = d * vec_int8(bytes_at(block + 2), v);
}

// The first 16 weights are lower nibbles, the last 16 upper ones.
[[gnu::always_inline]] inline void unpack_16_bytes(Vec* w, Nibbles n, const uint8_t* p) {
    for (int v = 0; v < VECS; v++) w[v] = vec_nibbles(n, p + v * VEC % 16, v * VEC / 16 * 4);
}

[[gnu::always_inline]] inline void unpack_q4_0(Vec* w, const uint8_t* block, int) {
    unpack_16_bytes(w, nibbles(half_at(block), 8, -0.0f), block + 2);
}

[[gnu::always_inline]] inline void unpack_q4_1(Vec* w, const uint8_t* block, int) {
    unpack_16_bytes(w, nibbles(half_at(block), 0, half_at(block + 2)), block + 4);
}

// The scale and the minimum of piece j, from the 12 bytes drawn at the top: d s and -m t.
[[gnu::always_inline]] inline void unpack_scales(const uint8_t* block, int j, float* d, float* m) {
    const uint8_t* s = block + 4;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    *d = half_at(block) * (float)scale;
    *m = -(half_at(block + 2) * (float)minimum);
}

// Pieces 2i and 2i+1 are the lower and the upper nibbles of 32 bytes.
[[gnu::always_inline]] inline void unpack_q4_k(Vec* w, const uint8_t* block, int j) {
    float d, m;
    unpack_scales(block, j, &d, &m);
    const uint8_t* p = block + 16 + j / 2 * 32;
    for (int v = 0; v < VECS; v++) w[v] = vec_nibbles(nibbles(d, 0, m), p + v * VEC, j % 2 * 4);
}

// Bit j of byte i of fifth[] is the fifth bit of weight i of piece j.
[[gnu::always_inline]] inline void unpack_q5_k(Vec* w, const uint8_t* block, int j) {
    float d, m;
    unpack_scales(block, j, &d, &m);
    const Bytes fifth = bytes_at(block + 16) >> j & 1;
    const Bytes q = (bytes_at(block + 48 + j / 2 * 32) >> (j % 2 * 4) & 15) | fifth << 4;
    for (int v = 0; v < VECS; v++) w[v] = vec_all(d) * vec_int8(q, v) + vec_all(m);
}

// Half a block is 4 pieces. Their lower 4 bits lie in 64 bytes, in whose lower halves are pieces 0
// and 1 and in the upper ones 2 and 3; the upper 2 bits of weight i of all four share byte i of 32.
// Each 16 weights have a scale.
[[gnu::always_inline]] inline void unpack_q6_k(Vec* w, const uint8_t* block, int j) {
    const float d = half_at(block + 208);
    const int8_t* scale = (const int8_t*)block + 192 + 2 * j;
    const Bytes low = bytes_at(block + j / 4 * 64 + j % 2 * 32) >> (j % 4 / 2 * 4) & 15;
    const Bytes up = bytes_at(block + 128 + j / 4 * 32) >> (j % 4 * 2) & 3;
    for (int v = 0; v < VECS; v++)
        w[v] = vec_all(d * (float)scale[v * VEC / 16]) * vec_int8((low | up << 4) - 32, v);
}

// to[i] = weight i of the blocks at from, for i < n, a whole number of blocks.
template <void (*UNPACK)(Vec*, const uint8_t*, int), int BLOCK, int BYTES>
inline void dequantize_blocks(float* __restrict to, const uint8_t* __restrict from, int64_t n) {
    for (; n > 0; n -= BLOCK, from += BYTES)
#pragma GCC unroll 8
        for (int j = 0; j < BLOCK / 32; j++, to += 32) {
            Vec w[VECS];
            UNPACK(w, from, j);
            for (int v = 0; v < VECS; v++) vec_store(to + v * VEC, w[v]);
        }
}

inline void dequantize_f32(float* to, const uint8_t* from, int64_t n) {
    memcpy(to, from, sizeof(float) * n);
}

inline void dequantize_f16(float* to, const uint8_t* from, int64_t n) {
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC) vec_store(to + i, vec_halves(from + 2 * i));
    for (; i < n; i++) to[i] = half_at(from + 2 * i);
}

inline void dequantize_bf16(float* to, const uint8_t* from, int64_t n) {
    const uint16_t* bits = (const uint16_t*)from;
    for (int64_t i = 0; i < n; i++) to[i] = bfloat16_to_float(bits[i]);
}

// ---- products with few rows ---------------------------------------------------------------------

const int FEW = 17;   // from so many rows of input on, matmul() is faster

// Weights are read once, as a stream, which the processor's own prefetching loses at the end of
// each page of 4 KB. So memory is asked for what comes a page later: 1.4 times as fast in F32.
// Behind a row lies the next one; behind the mapping, asking does nothing.
[[gnu::always_inline]] inline void ask_for(const uint8_t* p, int bytes) {
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

// The first half of the lanes of a and of b in turns, plus the second half: a's and b's sums go on
// in one vector, with half as many lanes each.
[[gnu::always_inline]] inline Vec fold(Vec a, Vec b) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19,
                                   4, 20, 5, 21, 6, 22, 7, 23) +
           __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27,
                                   12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(__AVX2__)
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11) +
           __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return vzip1q_f32(a, b) + vzip2q_f32(a, b);
#endif
}

// Lane r = add_lanes(lanes[r]), of VEC rows, whose last additions are done together: row by row,
// they took a quarter of the time of eight dot products of 768 numbers.
[[gnu::always_inline]] inline Vec add_rows_of_lanes(const float (*lanes)[LANES]) {
    Vec sum[VEC];
    for (int r = 0; r < VEC; r++) {
        Vec x[VECS];
        for (int v = 0; v < VECS; v++) x[v] = vec_load(lanes[r] + v * VEC);
        for (int half = VECS / 2; half >= 1; half /= 2)
            for (int v = 0; v < half; v++) x[v] += x[v + half];
        sum[r] = x[0];
    }
#pragma GCC unroll 4
    for (int half = VEC / 2; half >= 1; half /= 2)
#pragma GCC unroll 8
        for (int r = 0; r < half; r++) sum[r] = fold(sum[r], sum[r + half]);
    return sum[0];
}

// Of a matrix two rows are in work at a time, and with them four rows of input, or eight where 16
// registers can hold their sums: weights are decoded to registers once for all of them, a number of
// input is loaded once for both, and a sum waits less for itself, because there are others.
const int AT_ONCE = VEC == 16 ? 8 : 4;

// Some elements of the rows in work, of which there are n.
struct Piece {
    const float* inp;          // of the first row; the next one is `stride` elements further
    int64_t stride;
    const uint8_t* weights[2];
    int n;
    int64_t ahead;             // so many bytes further lie the weights that come next
    bool goes_on;              // the lanes hold the sums of the elements before
};

// lanes[2 r + k] = the lanes of dot(row r of input, row k of weights), or that added to them. As
// many lanes at a time as half of the registers hold.
template <int ROWS, void (*UNPACK)(Vec*, const uint8_t*, int), int BLOCK, int BYTES>
inline void multiply_blocks(float (*lanes)[LANES], const Piece& p) {
    const int REGISTERS = VEC == 8 ? 16 : 32;
    const int TOGETHER = std::min(VECS, REGISTERS / 2 / (2 * ROWS));
#pragma GCC unroll 8
    for (int first = 0; first < VECS; first += TOGETHER) {
        Vec sum[2 * ROWS][TOGETHER] = {};
        if (p.goes_on)
            for (int k = 0; k < 2 * ROWS; k++)
                for (int v = 0; v < TOGETHER; v++)
                    sum[k][v] = vec_load(lanes[k] + (first + v) * VEC);
        const uint8_t *block0 = p.weights[0], *block1 = p.weights[1];
        for (int i = 0; i < p.n; block0 += BYTES, block1 += BYTES) {
            if (first == 0) {
                ask_for(block0 + p.ahead, BYTES);
                ask_for(block1 + p.ahead, BYTES);
            }
#pragma GCC unroll 8
            for (int j = 0; j < BLOCK / 32; j++, i += 32) {
                Vec w0[VECS], w1[VECS];
                UNPACK(w0, block0, j);
                UNPACK(w1, block1, j);
                for (int v = 0; v < TOGETHER; v++)
                    for (int r = 0; r < ROWS; r++) {
                        Vec x = vec_load(p.inp + r * p.stride + i + (first + v) * VEC);
#if defined(__AVX512F__)
                        asm("" : "+v"(x));   // else g++ loads it for each use: 8% of 8 rows' time
#endif
                        sum[2 * r][v] = vec_fma(x, w0[first + v], sum[2 * r][v]);
                        sum[2 * r + 1][v] = vec_fma(x, w1[first + v], sum[2 * r + 1][v]);
                    }
            }
        }
        for (int k = 0; k < 2 * ROWS; k++)
            for (int v = 0; v < TOGETHER; v++)
                vec_store(lanes[k] + (first + v) * VEC, sum[k][v]);
    }
}

// ---- products in integers -----------------------------------------------------------------------
//
// Decoding to floats is more arithmetic than two cores have time for while memory brings weights of
// 4 to 8 bits. So for these the input, not the weight, changes its form: in each 32 numbers, x
// becomes scale * i with |i| <= 127 * 2^16: 24 bits with the sign, where a float has 25. 22 bits
// would move log-probabilities by 1.3e-4. i has three digits of base 256, each a byte:
//
//     i = 256 upper + low      upper = 256 high + middle      high -127 .. 127, others -128 .. 127
//
// With --int8, i is a single digit, |i| <= 127, as llama.cpp has it. That is two to three times as
// fast where arithmetic decides, and moves log-probabilities by some 1e-1. By as much does the last
// bit of a float before it, since it decides how some number is rounded, which then moves others:
// programs that round to bytes do not agree better, unless all their sums are the same bit for bit.
//
// Weights stay the bytes 0 .. 63, in Q8_0 0 .. 255, that they are. Processors multiply bytes and
// add four products to a 32-bit sum in one instruction (or two, or three), without rounding, and no
// sum runs over: 255 * 127 * 256 * 32 < 2^28. One row of weights with one of input is
//
//     sum = 0;  for each 32 weights:
//         sum = fma(float(sum of i), minimum * scale of i, sum)                  where there is one
//         sum = fma(of (q - zero) i, d * scale of i, sum),  where "of x i" is
//               fma(float(sum of x upper), 256, float(sum of x low))
//
// in Q6_K twice, for 16 weights each, with s * (d * scale of i): the same bits on every processor.
//
// Each row of weights in work has a lane, so that sums never cross lanes, and four bytes of input
// serve all of them:
//
//                       q[0]           q[1]         ...  q[7]
//     lane 0, row 0     weights 0..3   weights 4..7      weights 28..31
//     lane 1, row 1     0..3           4..7              28..31
//     ...
//     input, all lanes  0..3           4..7              28..31
//
// Rows that follow one another in memory lie in the first-level cache together, and are read there
// column by column. What comes from memory is one stream: while these rows are in work, the next
// ones are asked for.

// A register of words with and without a sign.
typedef int32_t IntVec __attribute__((vector_size(4 * VEC)));
typedef uint32_t WordVec __attribute__((vector_size(4 * VEC)));
typedef uint32_t FourWords __attribute__((vector_size(16)));

// x86 without VNNI has no sum of products of two bytes in all their range: there Q8_0's bytes, with
// 16 bits each, are multiplied by input in 16 bits, which upper as a whole fits into.
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
#define WIDE 1
#else
#define WIDE 0
#endif

// 32 numbers of input, as above, with D digits; digits[0] the high ones.
template <int D>
struct alignas(16) Digits {
    int8_t digits[D][32];
#if WIDE
    uint32_t pairs[D / 2 + 1][16];   // upper and low, or i, 16 bits each: 0 and 2, 1 and 3, 4 ...
#endif
    // Of upper and of low, or, with one digit, of i, -8 times the sum: of the first 16 numbers, of
    // the last 16, of all. The zeros of formats are 0 or multiples of 8.
    int32_t sums[D / 2 + 1][3];
    float total, scale;   // total: the sum of all i
};

// The digits of 32 numbers.
template <int D>
inline Digits<D> make_digits(const float* x) {
    Digits<D> to = {};
    const float MOST = D == 1 ? 127 : 127 << 16;
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) {
        const uint32_t magnitude = float_to_bits(x[i]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    const float most = bits_to_float(bits);
    const bool finite = bits < 0x7f800000, some = finite && most > 1e-30f;
    const float inverse = some ? MOST / most : 0;
    to.scale = some ? most / MOST : finite ? 0 : NAN;   // one NaN, and all is
    int32_t left[32], total = 0;
    for (int i = 0; i < 32; i++) left[i] = (int)__builtin_rintf((some ? x[i] : 0) * inverse);
    for (int d = D - 1; d >= 0; d--) {
        int32_t digit[32];
        for (int i = 0; i < 32; i++) {
            digit[i] = ((left[i] + 128) & 255) - 128;
            left[i] = (left[i] - digit[i]) >> 8;
            to.digits[d][i] = (int8_t)digit[i];
        }
        if (d < D - 1) continue;
        for (int part = 0; part <= D / 2; part++) {
            const int32_t* add = part == D / 2 ? digit : left;   // low or i; upper
            int32_t* sums = to.sums[part];
            for (int i = 0; i < 16; i++) sums[0] -= 8 * add[i], sums[1] -= 8 * add[16 + i];
#if WIDE
            for (int i = 0; i < 16; i++) {
                const int32_t* first = add + i / 2 * 4 + i % 2;
                to.pairs[part][i] = (uint16_t)first[0] | (uint32_t)first[2] << 16;
            }
#endif
            sums[2] = sums[0] + sums[1];
            total = total * 256 - sums[2] / 8;
        }
    }
    to.total = (float)total;
    return to;
}

// Q8_0's bytes have a sign, which x86 takes in one of two factors only: there it becomes 128.
#if defined(__AVX2__)
const int Q8_ZERO = 128;
#else
const int Q8_ZERO = 0;
#endif

#if WIDE
// Lane by lane, of the bytes of its word: sum += q[0] x[0] + ... + q[3] x[3], of two pairs of x.
[[gnu::always_inline]] inline void add_products_of_pairs(IntVec& sum, WordVec q,
                                                         const uint32_t* pairs) {
#if defined(__AVX512F__)
    const __m512i even = (__m512i)(q & 0x00ff00ff), odd = _mm512_srli_epi16((__m512i)q, 8);
    sum += (IntVec)_mm512_madd_epi16(even, _mm512_set1_epi32((int)pairs[0]));
    sum += (IntVec)_mm512_madd_epi16(odd, _mm512_set1_epi32((int)pairs[1]));
#else
    const __m256i even = (__m256i)(q & 0x00ff00ff), odd = _mm256_srli_epi16((__m256i)q, 8);
    sum += (IntVec)_mm256_madd_epi16(even, _mm256_set1_epi32((int)pairs[0]));
    sum += (IntVec)_mm256_madd_epi16(odd, _mm256_set1_epi32((int)pairs[1]));
#endif
}
#endif

// Lane by lane, of the bytes of its word: sum += q[0] x[0] + ... + q[3] x[3].
template <int BITS>
[[gnu::always_inline]] inline void add_products(IntVec& sum, WordVec q, const int8_t* x) {
    int32_t four;
    memcpy(&four, x, 4);
#if defined(__AVX512VNNI__)
    sum = (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)q, _mm512_set1_epi32(four));
#elif defined(__AVX512F__)
    const __m512i pairs = _mm512_maddubs_epi16((__m512i)q, _mm512_set1_epi32(four));
    sum += (IntVec)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)q, _mm256_set1_epi32(four));
    sum += (IntVec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    const int8x16_t inp = vreinterpretq_s8_s32(vdupq_n_s32(four));
    sum = (IntVec)vdotq_s32((int32x4_t)sum, (int8x16_t)q, inp);
#else
    const int8x16_t w = (int8x16_t)q, inp = vreinterpretq_s8_s32(vdupq_n_s32(four));
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(inp)), high = vmull_high_s8(w, inp);
    if (BITS == 8)   // two products overflow 16 bits
        sum += (IntVec)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
    else
        sum = (IntVec)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
#endif
}

// What differs between processors: a register from four, two or one part of 16 bytes; of each part
// the lower, or upper, two words of a and b in turns.
template <typename Part>
[[gnu::always_inline]] inline WordVec join(const Part& part) {
#if defined(__AVX512F__)
    return (WordVec)two_halves(_mm256_set_m128i((__m128i)part(1), (__m128i)part(0)),
                               _mm256_set_m128i((__m128i)part(3), (__m128i)part(2)));
#elif defined(__AVX2__)
    return (WordVec)_mm256_set_m128i((__m128i)part(1), (__m128i)part(0));
#else
    return part(0);
#endif
}
#if defined(__AVX512F__)
[[gnu::always_inline]] inline WordVec lower_words(WordVec a, WordVec b) {
    return (WordVec)_mm512_maskz_unpacklo_epi32(0xffff, (__m512i)a, (__m512i)b);
}
[[gnu::always_inline]] inline WordVec upper_words(WordVec a, WordVec b) {
    return (WordVec)_mm512_maskz_unpackhi_epi32(0xffff, (__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
[[gnu::always_inline]] inline WordVec lower_words(WordVec a, WordVec b) {
    return (WordVec)_mm256_unpacklo_epi32((__m256i)a, (__m256i)b);
}
[[gnu::always_inline]] inline WordVec upper_words(WordVec a, WordVec b) {
    return (WordVec)_mm256_unpackhi_epi32((__m256i)a, (__m256i)b);
}
#else
[[gnu::always_inline]] inline WordVec lower_words(WordVec a, WordVec b) {
    return (WordVec)vzip1q_u32((uint32x4_t)a, (uint32x4_t)b);
}
[[gnu::always_inline]] inline WordVec upper_words(WordVec a, WordVec b) {
    return (WordVec)vzip2q_u32((uint32x4_t)a, (uint32x4_t)b);
}
#endif

// A block of each of VEC rows that lie `stride` bytes apart. Of their addresses every fourth is
// kept, and hidden from the compiler: it would compute all of them before a loop, and then lack
// registers to keep them in, which took a fifth of the time.
struct Blocks {
    const uint8_t* every_fourth[VEC / 4];
    int64_t stride;

    Blocks(const uint8_t* first, int64_t stride) : stride(stride) {
        for (const uint8_t*& p : every_fourth) {
            asm("" : "+r"(first));
            p = first;
            first += 4 * stride;
        }
    }
    const uint8_t* row(int r) const { return every_fourth[r / 4] + r % 4 * stride; }
};

// Lane r: the half at byte `from` of row r's block. Four at a time are put together in an ordinary
// register, and the compiler kept from doing it in vectors: their units have enough to do.
[[gnu::always_inline]] inline Vec column_of_halves(const Blocks& blocks, int from) {
    const auto four = [&](int first) {
        uint64_t halves = 0;
        for (int r = first + 3; r >= first; r--) {
            uint16_t half;
            memcpy(&half, blocks.row(r) + from, 2);
            halves = halves << 16 | half;
        }
        asm("" : "+r"(halves));
        return (long long)halves;
    };
#if defined(__AVX512F__)
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_setr_epi64x(four(0), four(4), four(8), four(12)));
#elif defined(__AVX2__)
    return _mm256_cvtph_ps(_mm_set_epi64x(four(4), four(0)));
#else
    return vcvt_f32_f16(vcreate_f16((uint64_t)four(0)));
#endif
}

// q[j], lane r: bytes from + 4 j .. from + 4 j + 3 of row r's block. In each part of a register a
// transpose of 4 x 4, by two of the shuffles that transpose8() has three of.
[[gnu::always_inline]] inline void four_columns(WordVec* q, const Blocks& blocks, int from) {
    WordVec x[4], y[4];
    for (int r = 0; r < 4; r++)
        x[r] = join([&](int part) {
            FourWords sixteen;
            memcpy(&sixteen, blocks.row(4 * part + r) + from, 16);
            return sixteen;
        });
    for (int i = 0; i < 2; i++) {
        y[2 * i] = lower_words(x[i], x[i + 2]);
        y[2 * i + 1] = upper_words(x[i], x[i + 2]);
    }
    for (int i = 0; i < 2; i++) {
        q[2 * i] = lower_words(y[i], y[i + 2]);
        q[2 * i + 1] = upper_words(y[i], y[i + 2]);
    }
}

// 32 weights of VEC rows.
struct Columns {
    WordVec q[8];
    Vec d, minimum, scale[2];
};

// Blocks of Q4_0, whose first 2 bytes are a scale; or of Q4_1, with a scale and a minimum, 4 bytes.
template <int SCALES>
[[gnu::always_inline]] inline void columns_q4(Columns* to, const Blocks& blocks) {
    to->d = column_of_halves(blocks, 0);
    if (SCALES == 4) to->minimum = column_of_halves(blocks, 2);
    four_columns(to->q, blocks, SCALES);
    for (int j = 0; j < 4; j++) {
        to->q[4 + j] = to->q[j] >> 4 & 0x0f0f0f0f;
        to->q[j] &= 0x0f0f0f0f;
    }
}

// Blocks of Q8_0.
[[gnu::always_inline]] inline void columns_q8_0(Columns* to, const Blocks& blocks) {
    to->d = column_of_halves(blocks, 0);
    four_columns(to->q, blocks, 2);
    four_columns(to->q + 4, blocks, 18);
    for (WordVec& q : to->q) q ^= Q8_ZERO * 0x01010101u;
}

// Blocks of Q6_K, eight pieces: unpack_q6_k says where they lie.
[[gnu::always_inline]] inline void columns_q6_k(Columns* to, const Blocks& blocks) {
    for (int k = 0; k < 4; k++) {
        WordVec nibbles[2][4], upper[4];
        const int low = k / 2 * 64 + k % 2 * 16;
        four_columns(nibbles[0], blocks, low);
        four_columns(nibbles[1], blocks, low + 32);
        four_columns(upper, blocks, 128 + 16 * k);
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 4; i++) {
                const WordVec two = j < 2 ? upper[i] << (4 - 2 * j) : upper[i] >> (2 * j - 4);
                to[k / 2 * 4 + j].q[k % 2 * 4 + i] =
                    (nibbles[j % 2][i] >> (j / 2 * 4) & 0x0f0f0f0f) | (two & 0x30303030);
            }
    }
    const Vec d = column_of_halves(blocks, 208);
    WordVec scales[4];
    four_columns(scales, blocks, 192);
    for (int j = 0; j < 8; j++) {
        to[j].d = d;
        for (int h = 0; h < 2; h++)
            to[j].scale[h] = __builtin_convertvector(
                (IntVec)(scales[j / 2] << (24 - 16 * (j % 2) - 8 * h)) >> 24, Vec);
    }
}

// Rows of weights in work at a time: VEC, or twice as many where 32 registers hold them, which then
// share the loads of input. In Q6_K, whose groups have scales of their own, 32 do not.
const int MOST_ROWS_AT_ONCE = VEC == 8 ? VEC : 2 * VEC;

// sum[s] plus the products of 32 weights, those of w[s * step], with 32 numbers of input. MINIMUM:
// weights have one, and no zero. PARTS: 2 where each 16 weights have a scale of their own.
template <int D, int SETS, int BITS, int PARTS, bool MINIMUM>
[[gnu::always_inline]] inline void add_block(Vec* sum, const Columns* w, int step,
                                             const Digits<D>& x) {
    const int ZERO = MINIMUM ? 0 : BITS == 8 ? Q8_ZERO : 1 << (BITS - 1);
    const Vec scale = vec_all(x.scale);
    for (int s = 0; MINIMUM && s < SETS; s++)
        sum[s] = vec_fma(vec_all(x.total), w[s * step].minimum * scale, sum[s]);
    for (int part = 0; part < PARTS; part++) {
        // A chain for each digit: none waits for another. They begin with -zero times the sum of i,
        // the middle one with upper's.
        const int which = PARTS == 1 ? 2 : part;
        IntVec chain[D][SETS] = {};
        for (int d = D / 2; d < D; d++)
            for (int s = 0; s < SETS; s++)
                chain[d][s] = (chain[d][s] + x.sums[d - D / 2][which]) * (ZERO / 8);
#pragma GCC unroll 8
        for (int j = 8 / PARTS * part; j < 8 / PARTS * (part + 1); j++)
            for (int s = 0; s < SETS; s++)
                for (int d = WIDE && BITS == 8 ? D / 2 : 0; d < D; d++) {
#if WIDE
                    if (BITS == 8)   // middle's chain takes all of upper
                        add_products_of_pairs(chain[d][s], w[s * step].q[j],
                                              x.pairs[d - D / 2] + 2 * j);
                    else
#endif
                        add_products<BITS>(chain[d][s], w[s * step].q[j], x.digits[d] + 4 * j);
                }
        for (int s = 0; s < SETS; s++) {
            Vec products = __builtin_convertvector(chain[D - 1][s], Vec);
            if constexpr (D == 3)
                products = vec_fma(__builtin_convertvector((chain[0][s] << 8) + chain[1][s], Vec),
                                   vec_all(256), products);
            const Vec d = w[s * step].d * scale;
            sum[s] = vec_fma(products, PARTS == 1 ? d : w[s * step].scale[part] * d, sum[s]);
        }
    }
}

// As many rows of input share the decoding of a block of weights; their sums, 8 KB, stay in L1.
const int INPUTS_AT_ONCE = 64;

// out[i][r] = the product of row i of input, n of them, with row r of weights, ROWS of them, which
// lie `stride` bytes apart. x: of the first 32 numbers, all rows'; those of the next 32 are `next`
// further. UNPACK decodes PIECES of 32 weights from BYTES.
template <int D, int ROWS, void (*UNPACK)(Columns*, const Blocks&), int PIECES, int BYTES, int BITS,
          int PARTS, bool MINIMUM>
inline void multiply_columns(float (*out)[MOST_ROWS_AT_ONCE], const Digits<D>* x, int64_t next,
                             const uint8_t* rows, int64_t stride, int in, int n) {
    const int SETS = ROWS / VEC;
    Vec sum[INPUTS_AT_ONCE][SETS];
    for (int i = 0; i < n; i++)
        for (int s = 0; s < SETS; s++) sum[i][s] = Vec{};
    const int SOON = ROWS * BYTES / PIECES;
    const uint8_t* soon = rows + ROWS * stride;
    for (int b = 0; b < in / 32 / PIECES; b++) {
        Columns w[SETS * PIECES];
#pragma GCC unroll 2
        for (int s = 0; s < SETS; s++)
            UNPACK(w + s * PIECES, Blocks(rows + s * VEC * stride + (int64_t)b * BYTES, stride));
        for (int piece = 0; piece < PIECES; piece++, x += next, soon += SOON) {
            for (int i = 0; i < SOON; i += 64) __builtin_prefetch(soon + i);
            for (int i = 0; i < n; i++)
                add_block<D, SETS, BITS, PARTS, MINIMUM>(sum[i], w + piece, PIECES, x[i]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int s = 0; s < SETS; s++) vec_store(out[i] + s * VEC, sum[i][s]);
}

// ---- encoding -----------------------------------------------------------------------------------
//
// to = the blocks of n weights. The bytes are those of ggml's reference quantizers
// (ggml-quants.c, the functions named *_ref), so that every rounding counts, and its order.

inline void put_half(uint8_t* to, float x) {
    const uint16_t h = float_to_half(x);
    memcpy(to, &h, 2);
}

inline void quantize_f32(uint8_t* to, const float* x, int64_t n) {
    memcpy(to, x, sizeof(float) * n);
}

inline void quantize_f16(uint8_t* to, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) put_half(to + 2 * i, x[i]);
}

inline void quantize_bf16(uint8_t* to, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint16_t b = (uint16_t)bfloat16_bits(x[i]);
        memcpy(to + 2 * i, &b, 2);
    }
}

// The first of the numbers with the largest magnitude.
inline float largest(const float* x, int n) {
    float found = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(found)) found = x[i];
    return found;
}

// A block of weights so small that 1 / d is infinite has no integers: all become 0.
inline int to_int(float x) { return fabsf(x) < 256 ? (int)x : 0; }

inline void quantize_q8_0(uint8_t* to, const float* x, int64_t n) {
    for (; n > 0; n -= 32, x += 32, to += 34) {
        const float d = fabsf(largest(x, 32)) / 127, inverse = d != 0 ? 1 / d : 0;
        put_half(to, d);
        for (int i = 0; i < 32; i++) to[2 + i] = (uint8_t)to_int(roundf(x[i] * inverse));
    }
}

// The number that is largest in magnitude becomes -8, so that one more step can be used than if the
// range were the same on both sides.
inline void quantize_q4_0(uint8_t* to, const float* x, int64_t n) {
    for (; n > 0; n -= 32, x += 32, to += 18) {
        const float d = largest(x, 32) / -8, inverse = d != 0 ? 1 / d : 0;
        put_half(to, d);
        int q[32];
        for (int i = 0; i < 32; i++) q[i] = std::min(15, to_int(x[i] * inverse + 8.5f));
        for (int i = 0; i < 16; i++) to[2 + i] = (uint8_t)(q[i] | q[16 + i] << 4);
    }
}

const float NO_SCALE = 1e-15f;   // a group whose largest number is below has no scale, all is 0

inline int nearest(float x, int least, int most) {
    return (int)std::max<long>(least, std::min<long>(most, lrintf(x)));
}

// 16 weights as scale * (q - 32), q in 0 .. 63. For given q, the scale with the least squared
// error, each weight's error counted x^2 times, is sum(w x l) / sum(w l l), l = q - 32, w = x^2;
// and the larger sum(w x l)^2 / sum(w l l), the less the error. So 19 ways to scale before rounding
// are tried: the one that makes the largest number -32, and neighbours in steps of 0.1.
inline float quantize_group(uint8_t* q, const float* x) {
    const float max = largest(x, 16);
    memset(q, 0, 16);
    if (fabsf(max) < NO_SCALE) return 0;
    float scale = 0, best = 0;
    for (int i = -10; i <= 9; i++) {
        if (i == 0) continue;   // which comes first, as -10
        const float inverse = -(32 + 0.1f * (float)(i == -10 ? 0 : i)) / max;
        int l[16];
        float xl = 0, ll = 0;
        for (int k = 0; k < 16; k++) {
            l[k] = nearest(inverse * x[k], -32, 31);
            const float w = x[k] * x[k];
            xl += w * x[k] * (float)l[k];
            ll += w * (float)l[k] * (float)l[k];
        }
        if (i > -10 && !(ll > 0 && xl * xl > best * ll)) continue;
        scale = ll != 0 ? xl / ll : 0;
        best = scale * xl;
        for (int k = 0; k < 16; k++) q[k] = (uint8_t)(l[k] + 32);
    }
    return scale;
}

inline void quantize_q6_k(uint8_t* to, const float* x, int64_t n) {
    for (; n > 0; n -= 256, x += 256, to += 210) {
        uint8_t q[256];
        float scale[16];
        for (int g = 0; g < 16; g++) scale[g] = quantize_group(q + 16 * g, x + 16 * g);
        const float max = largest(scale, 16);
        memset(to, 0, 210);
        if (fabsf(max) < NO_SCALE) continue;
        // The scales themselves are rounded to 8 bits, the largest to -128; then all weights are
        // rounded anew by what their scale has become.
        const float inverse = -128 / max;
        put_half(to + 208, 1 / inverse);
        for (int g = 0; g < 16; g++) {
            const int s = nearest(inverse * scale[g], -128, 127);
            const float d = half_at(to + 208) * (float)s;
            to[192 + g] = (uint8_t)s;
            for (int k = 16 * g; d != 0 && k < 16 * g + 16; k++)
                q[k] = (uint8_t)(nearest(x[k] / d, -32, 31) + 32);
        }
        for (int j = 0; j < 8; j++)   // where unpack_q6_k finds them
            for (int i = 0; i < 32; i++) {
                to[j / 4 * 64 + j % 2 * 32 + i] |= (uint8_t)((q[32 * j + i] & 15) << j % 4 / 2 * 4);
                to[128 + j / 4 * 32 + i] |= (uint8_t)(q[32 * j + i] >> 4 << j % 4 * 2);
            }
    }
}

// ---- the table ----------------------------------------------------------------------------------

// multiply_columns() of a format.
template <int D>
using Integers = void(float (*out)[MOST_ROWS_AT_ONCE], const Digits<D>* x, int64_t next,
                      const uint8_t* rows, int64_t stride, int in, int n);

// The formats that can be computed with. Names, and the sizes of blocks, are in ggml_type_facts.
struct Format {
    GgmlType type;
    uint32_t file_type;   // llama.cpp's number for a file of them: the key general.file_type
    void (*dequantize)(float* to, const uint8_t* from, int64_t n);
    // The products in integers, with so many rows of weights at a time, of input with one digit,
    // and with three; or null and then, of few rows, in floats: of 1 to AT_ONCE rows; null where it
    // is faster to decode a row of weights to memory first, once for all.
    int rows;
    Integers<1>* one_digit;
    Integers<3>* three_digits;
    void (*multiply[AT_ONCE])(float (*lanes)[LANES], const Piece& p);
    void (*quantize)(uint8_t* to, const float* from, int64_t n);   // null: only read
};

#define FOUR(...)                                                                      \
    multiply_blocks<1, __VA_ARGS__>, multiply_blocks<2, __VA_ARGS__>,                  \
        multiply_blocks<3, __VA_ARGS__>, multiply_blocks<4, __VA_ARGS__>
#if defined(__AVX512F__)
#define FLOATS(...)                                                                    \
    {FOUR(__VA_ARGS__), multiply_blocks<5, __VA_ARGS__>,                               \
     multiply_blocks<6, __VA_ARGS__>, multiply_blocks<7, __VA_ARGS__>,                 \
     multiply_blocks<8, __VA_ARGS__>}
#else
#define FLOATS(...) {FOUR(__VA_ARGS__)}
#endif
#define TWO(...) {multiply_blocks<1, __VA_ARGS__>, multiply_blocks<2, __VA_ARGS__>}
#define NONE 0, nullptr, nullptr
#define INTEGERS(ROWS, ...)                                                            \
    ROWS, multiply_columns<1, ROWS, __VA_ARGS__>, multiply_columns<3, ROWS, __VA_ARGS__>
#define DECODE(...) dequantize_blocks<__VA_ARGS__>
inline const Format FORMATS[] = {
    {GGML_F32, 0, dequantize_f32, NONE, FLOATS(unpack_f32, 32, 128), quantize_f32},
    {GGML_F16, 1, dequantize_f16, NONE, FLOATS(unpack_f16, 32, 64), quantize_f16},
    {GGML_BF16, 32, dequantize_bf16, NONE, FLOATS(unpack_bf16, 32, 64), quantize_bf16},
    {GGML_Q8_0, 7, DECODE(unpack_q8_0, 32, 34),
     INTEGERS(MOST_ROWS_AT_ONCE, columns_q8_0, 1, 34, 8, 1, false), {}, quantize_q8_0},
    {GGML_Q4_0, 2, DECODE(unpack_q4_0, 32, 18),
     INTEGERS(MOST_ROWS_AT_ONCE, columns_q4<2>, 1, 18, 4, 1, false), {}, quantize_q4_0},
    {GGML_Q4_1, 3, DECODE(unpack_q4_1, 32, 20),
     INTEGERS(MOST_ROWS_AT_ONCE, columns_q4<4>, 1, 20, 4, 1, true), {}, nullptr},
    {GGML_Q4_K, 15, DECODE(unpack_q4_k, 256, 144), NONE, TWO(unpack_q4_k, 256, 144), nullptr},
    {GGML_Q5_K, 17, DECODE(unpack_q5_k, 256, 176), NONE, TWO(unpack_q5_k, 256, 176), nullptr},
    {GGML_Q6_K, 18, DECODE(unpack_q6_k, 256, 210),
     INTEGERS(VEC, columns_q6_k, 8, 210, 6, 2, false), {}, quantize_q6_k}};
#undef FOUR
#undef FLOATS
#undef TWO
#undef NONE
#undef INTEGERS
#undef DECODE

template <int D>
inline Integers<D>* integers_of(const Format& f) {
    if constexpr (D == 1) return f.one_digit;
    else return f.three_digits;
}

// Null for a type that cannot be computed with.
inline const Format* find_format(uint32_t type) {
    for (const Format& f : FORMATS)
        if (f.type == type) return &f;
    return nullptr;
}

inline bool can_compute_with(uint32_t type) { return find_format(type) != nullptr; }

// Of a row of n weights, a multiple of the block.
inline int64_t row_bytes(GgmlType type, int64_t n) {
    const GgmlTypeFacts facts = ggml_type_facts(type);
    return n / (int64_t)facts.block * (int64_t)facts.bytes;
}

// to[i] = weight first + i of a row, for i < count. first and count are multiples of the block.
inline void dequantize(float* to, GgmlType type, const uint8_t* row, int64_t first, int64_t count) {
    find_format(type)->dequantize(to, row + row_bytes(type, first), count);
}

// ---- the product --------------------------------------------------------------------------------

// A matrix (out, in) as it lies in a file's mapping: out rows of in weights. Its type can be
// computed with, and in is a multiple of the block.
struct Weight {
    GgmlType type;
    const uint8_t* data;
    int in, out;
    bool int8 = false;   // products round their input to one digit, where the type allows it
};

// Column o of out, by one thread, where rows are no multiple of 32.
inline void product_of_row(float* out, const float* inp, const Weight& w, const float* bias, int n,
                           int o) {
    static thread_local Scratch scratch;
    float* row = scratch.at_least(w.in);
    dequantize(row, w.type, w.data + o * row_bytes(w.type, w.in), 0, w.in);
    for (int i = 0; i < n; i++)
        out[(int64_t)i * w.out + o] =
            dot(inp + (int64_t)i * w.in, row, w.in) + (bias ? bias[o] : 0);
}

// Columns first .. first + PAIRS - 1 of out, and those `half` further; or as many as there are. Two
// rows of weights that far apart, and not two neighbours: a thread then reads two streams, which
// the processor's prefetching follows, while two that lie within a page of each other made Q8_0,
// then in floats, four times slower. Where the input is more than the first-level cache holds,
// several pairs of rows take a part of it before the next: 8 rows of 3,072 took twice the time that
// their multiplications take.
const int PAIRS = 4;
const int INPUT = 8192;   // floats: 32 KB
inline void product_of_pairs(float* out, const float* inp, const Weight& w, const Format& format,
                             const float* bias, int n, int first, int half) {
    alignas(64) static thread_local float lanes[PAIRS * 2 * AT_ONCE][LANES];
    static thread_local Scratch scratch;
    const int64_t bytes = row_bytes(w.type, w.in);
    const int pairs = std::min(PAIRS, half - first);
    const bool decode = !format.multiply[std::min(AT_ONCE, n) - 1];
    const auto* multiply = decode ? find_format(GGML_F32)->multiply : format.multiply;
    for (int i = 0, rows; i < n; i += rows) {
        rows = std::min(AT_ONCE, n - i);
        const int depth = std::min(w.in, INPUT / rows / 256 * 256);   // whole blocks of any format
        for (int k = 0; k < w.in; k += depth) {
            const uint8_t* data = w.data + (k == 0 ? 0 : row_bytes(w.type, k));
            for (int pair = 0; pair < pairs; pair++) {
                Piece p = {inp + (int64_t)i * w.in + k, w.in, {}, std::min(depth, w.in - k),
                           depth < w.in ? bytes : 4096, k > 0};
                for (int row = 0; row < 2; row++) {   // of an odd number, the last is taken twice
                    const int column = std::min(first + pair + row * half, w.out - 1);
                    p.weights[row] = data + column * bytes;
                    if (!decode) continue;
                    float* to = scratch.at_least((size_t)2 * depth) + row * depth;
                    format.dequantize(to, p.weights[row], p.n);
                    p.weights[row] = (const uint8_t*)to;
                }
                multiply[rows - 1](lanes + 2 * rows * pair, p);
            }
        }
        float sums[PAIRS * 2 * AT_ONCE];
        for (int s = 0; s < 2 * rows * pairs; s += VEC)
            vec_store(sums + s, add_rows_of_lanes(lanes + s));
        for (int pair = 0; pair < pairs; pair++)
            for (int row = 0; row < 2 && first + pair + row * half < w.out; row++) {
                const int column = first + pair + row * half;
                const float begin = bias ? bias[column] : 0;
                for (int r = 0; r < rows; r++)
                    out[(int64_t)(i + r) * w.out + column] =
                        sums[2 * (rows * pair + r) + row] + begin;
            }
    }
}

// Columns o .. o + format.rows - 1 of out, or as many as there are: the rest is computed of zeros.
// x: inp.
template <int D>
inline void product_in_integers(float* out, const Digits<D>* x, const Weight& w,
                                const Format& format, const float* bias, int n, int o) {
    const int at_once = format.rows;
    const int64_t bytes = row_bytes(w.type, w.in);
    const int count = std::min(at_once, w.out - o);
    const uint8_t* rows = w.data + o * bytes;
    static thread_local std::vector<uint8_t> last;
    if (count < at_once) {
        last.assign((size_t)at_once * bytes, 0);
        memcpy(last.data(), rows, (size_t)count * bytes);
        rows = last.data();
    }
    for (int first = 0; first < n; first += INPUTS_AT_ONCE) {
        const int some = std::min(INPUTS_AT_ONCE, n - first);
        float sums[INPUTS_AT_ONCE][MOST_ROWS_AT_ONCE];
        integers_of<D>(format)(sums, x + first, n, rows, bytes, w.in, some);
        for (int i = 0; i < some; i++)
            for (int r = 0; r < count; r++)
                out[(int64_t)(first + i) * w.out + o + r] = sums[i][r] + (bias ? bias[o + r] : 0);
    }
}

// Many rows of input: matmul(), which decodes weights as it packs them.
inline void product_of_matrices(float* out, const float* inp, const Weight& w, const float* bias,
                                int n) {
    const int block = (int)ggml_type_facts(w.type).block;
    const int64_t bytes = row_bytes(w.type, w.in);
    const Decode decode = [&](int first, int width, int k0, int depth) {
        static thread_local Scratch scratch;
        const int from = k0 / block * block, count = round_up(k0 + depth, block) - from;
        float* to = scratch.at_least((size_t)width * count);
        for (int i = 0; i < width; i++)
            dequantize(to + i * count, w.type, w.data + (first + i) * bytes, from, count);
        return Matrix{to + k0 - from, 1, count};
    };
    Finish finish;
    finish.bias = bias;
    const bool floats = w.type == GGML_F32;
    matmul(out, w.out, {inp, w.in, 1}, {floats ? (const float*)w.data : nullptr, 1, w.in}, n, w.out,
           w.in, finish, FLOAT32, floats ? nullptr : &decode);
}

// One of several products of the same input: out (n, w.out) = inp (n, w.in) w^T + bias.
struct Product {
    float* out;
    const Weight* w;
    const float* bias;   // (w.out), or null
};

// All of them, by all threads, which but for matmul() wait for each other only once. Each takes
// ranges of rows that follow one another, so that it reads memory as a stream. Products in integers
// of D digits: three are worth their time for few rows only, one is for any number.
template <int D>
inline void products_with(std::initializer_list<Product> list, const float* inp, int n) {
    int64_t work = 0;   // what is left for the threads below
    const int in = list.begin()->w->in;
    bool integers = false;
    auto by_matmul = [&](const Format& f) { return n >= FEW && !(D == 1 && f.one_digit); };
    for (const Product& p : list) {
        const Format& format = *find_format(p.w->type);
        if (by_matmul(format)) {
            product_of_matrices(p.out, inp, *p.w, p.bias, n);
        } else {
            work += (int64_t)in * p.w->out;
            integers |= integers_of<D>(format) != nullptr;
        }
    }
    if (work == 0) return;
    static std::vector<Digits<D>> digits;
    const int blocks = integers ? in / 32 * n : 0;
    if (digits.size() < (size_t)blocks) digits.resize((size_t)blocks);
    // Small matrices are done before other threads would have begun.
#pragma omp parallel if (work > 1 << 17)
    {
        if (blocks > 0) {   // or threads would wait for nothing
#pragma omp for schedule(static)
            for (int i = 0; i < blocks; i++)
                digits[i] = make_digits<D>(inp + (int64_t)(i % n) * in + i / n * 32);
        }
        for (const Product& p : list) {
            const Weight& w = *p.w;
            const Format& format = *find_format(w.type);
            if (by_matmul(format)) continue;
            const bool by_integers = integers_of<D>(format), two = w.in % 32 == 0;
            const int half = (w.out + 1) / 2;
            const int tasks = by_integers ? (w.out + format.rows - 1) / format.rows
                              : two       ? (half + PAIRS - 1) / PAIRS
                                          : w.out;
            const auto task = [&](int i) {
                if (by_integers)
                    product_in_integers<D>(p.out, digits.data(), w, format, p.bias, n,
                                           i * format.rows);
                else if (two)
                    product_of_pairs(p.out, inp, w, format, p.bias, n, i * PAIRS, half);
                else
                    product_of_row(p.out, inp, w, p.bias, n, i);
            };
            // For a single text, weights that are not quantized wait for memory, of which
            // neighbours may leave one core less than another: who is done takes the next 2 x 32
            // rows, long enough for a stream. Elsewhere arithmetic decides, and halves are alike.
            if (n == 1 && ggml_type_facts(w.type).block == 1) {
#pragma omp for schedule(dynamic, 8) nowait
                for (int i = 0; i < tasks; i++) task(i);
            } else {
#pragma omp for schedule(static) nowait
                for (int i = 0; i < tasks; i++) task(i);
            }
        }
    }
}

// The weights are all of one model, and so is their int8.
inline void products(std::initializer_list<Product> list, const float* inp, int n) {
    (list.begin()->w->int8 ? products_with<1> : products_with<3>)(list, inp, n);
}

inline void product(float* out, const float* inp, const Weight& w, const float* bias, int n) {
    products({{out, &w, bias}}, inp, n);
}
