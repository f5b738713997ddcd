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
// Every product is one sum in the order that numerics.h gives dot(): 32 lanes, then in pairs. Few
// rows give, bit for bit, dot(inp, dequantize(row)): for any number of threads and any vector.
//
// Why in float32, when int8 by int8 takes fewer instructions: a processor decodes and multiplies 32
// weights in the time that memory takes to bring them, so more would not be faster; and activations
// rounded to 8 bits move log-probabilities by 1e-2.
#pragma once
#include "gguf.h"
#include "matmul.h"

// ---- the formats --------------------------------------------------------------------------------

// A half at any address.
inline float half_at(const uint8_t* p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}

// to[i] = weight i of the blocks at from, for i < n, a whole number of blocks. One for each format.

inline void dequantize_f32(float* to, const uint8_t* from, int64_t n) {
    memcpy(to, from, sizeof(float) * n);
}

inline void dequantize_f16(float* to, const uint8_t* from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = half_at(from + 2 * i);
}

inline void dequantize_bf16(float* to, const uint8_t* from, int64_t n) {
    const uint16_t* bits = (const uint16_t*)from;
    for (int64_t i = 0; i < n; i++) to[i] = bfloat16_to_float(bits[i]);
}

inline void dequantize_q8_0(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 32, to += 32, from += 34) {
        const float d = half_at(from);
        const int8_t* q = (const int8_t*)from + 2;
        for (int i = 0; i < 32; i++) to[i] = d * (float)q[i];
    }
}

inline void dequantize_q4_0(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 32, to += 32, from += 18) {
        const float d = half_at(from);
        for (int i = 0; i < 16; i++) to[i] = d * (float)((from[2 + i] & 15) - 8);
        for (int i = 0; i < 16; i++) to[16 + i] = d * (float)((from[2 + i] >> 4) - 8);
    }
}

inline void dequantize_q4_1(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 32, to += 32, from += 20) {
        const float d = half_at(from), m = half_at(from + 2);
        for (int i = 0; i < 16; i++) to[i] = d * (float)(from[4 + i] & 15) + m;
        for (int i = 0; i < 16; i++) to[16 + i] = d * (float)(from[4 + i] >> 4) + m;
    }
}

// Scale and minimum of the j-th 32 weights, from the 12 bytes drawn at the top.
inline void scale_and_minimum(const uint8_t* s, int j, int* scale, int* minimum) {
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

// Q4_K, and Q5_K where fifth is given: bit j of its byte i is the fifth bit of weight i of the j-th
// 32.
inline void dequantize_super_block(float* to, const uint8_t* block, const uint8_t* fifth,
                                   const uint8_t* nibbles) {
    const float d = half_at(block), m = half_at(block + 2);
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        scale_and_minimum(block + 4, j, &scale, &minimum);
        const float ds = d * (float)scale, mt = m * (float)minimum;
        const uint8_t* q = nibbles + j / 2 * 32;
        const int shift = j % 2 * 4;
        for (int i = 0; i < 32; i++) {
            const int high = fifth ? (fifth[i] >> j & 1) << 4 : 0;
            to[32 * j + i] = ds * (float)((q[i] >> shift & 15) + high) - mt;
        }
    }
}

inline void dequantize_q4_k(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 256, to += 256, from += 144)
        dequantize_super_block(to, from, nullptr, from + 16);
}

inline void dequantize_q5_k(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 256, to += 256, from += 176)
        dequantize_super_block(to, from, from + 16, from + 48);
}

// Half a block is 128 weights in 4 quarters of 32: their lower 4 bits lie in 64 bytes, in whose
// lower halves are quarters 0 and 1 and in the upper ones 2 and 3; the upper 2 bits of weight i of
// all quarters share byte i of 32. Each 16 weights have a scale.
inline void dequantize_q6_k(float* to, const uint8_t* from, int64_t n) {
    for (; n > 0; n -= 256, to += 256, from += 210) {
        const float d = half_at(from + 208);
        for (int j = 0; j < 8; j++) {
            const uint8_t *low = from + j / 4 * 64 + j % 2 * 32, *up = from + 128 + j / 4 * 32;
            const int8_t* s = (const int8_t*)from + 192 + 2 * j;
            const float ds[2] = {d * (float)s[0], d * (float)s[1]};
            const int shift = j % 4 / 2 * 4, up_shift = j % 4 * 2;
            for (int i = 0; i < 32; i++) {
                const int q = (low[i] >> shift & 15) | (up[i] >> up_shift & 3) << 4;
                to[32 * j + i] = ds[i / 16] * (float)(q - 32);
            }
        }
    }
}

// The formats that can be computed with. Names, and the sizes of blocks, are in ggml_type_facts.
struct Format {
    GgmlType type;
    void (*dequantize)(float* to, const uint8_t* from, int64_t n);
};

inline const Format* find_format(uint32_t type) {
    static const Format formats[] = {
        {GGML_F32, dequantize_f32},   {GGML_F16, dequantize_f16},   {GGML_BF16, dequantize_bf16},
        {GGML_Q8_0, dequantize_q8_0}, {GGML_Q4_0, dequantize_q4_0}, {GGML_Q4_1, dequantize_q4_1},
        {GGML_Q4_K, dequantize_q4_k}, {GGML_Q5_K, dequantize_q5_k}, {GGML_Q6_K, dequantize_q6_k}};
    for (const Format& f : formats)
        if (f.type == type) return &f;
    return nullptr;
}

inline bool can_compute_with(uint32_t type) { return find_format(type) != nullptr; }

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
};

// out (n, w.out) = inp (n, w.in) w^T + bias (w.out, or null), by all threads.
inline void product(float* out, const float* inp, const Weight& w, const float* bias, int n) {
    const int64_t bytes = row_bytes(w.type, w.in);
    std::vector<float> weights((size_t)w.in * w.out);
#pragma omp parallel for
    for (int o = 0; o < w.out; o++)
        dequantize(&weights[(size_t)o * w.in], w.type, w.data + o * bytes, 0, w.in);
    if (n >= 8) {
        Finish finish;
        finish.bias = bias;
        matmul(out, w.out, {inp, w.in, 1}, {weights.data(), 1, w.in}, n, w.out, w.in, finish);
        return;
    }
#pragma omp parallel for
    for (int o = 0; o < w.out; o++)
        for (int i = 0; i < n; i++)
            out[(int64_t)i * w.out + o] =
                dot(inp + (int64_t)i * w.in, &weights[(size_t)o * w.in], w.in) +
                (bias ? bias[o] : 0);
}
