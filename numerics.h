// numerics.h - the elementary functions and random numbers of training, written so that they give
// the same bits on every machine and under every compiler.
//
// The C library's expf, logf and cos differ in their last bit from one system to the next,
// and one bit is enough for two training runs to drift apart. Here every result is a fixed sequence
// of additions, multiplications, divisions and fused multiply-adds, each of which IEEE 754 rounds
// in one way only. That holds under two conditions, which the Makefile sets: -ffp-contract=off
// (the compiler must not fuse on its own) and no -ffast-math (it must not reorder).
// exp_f and the GELU do not branch and are always inlined, so that loops over them vectorise;
// a vector lane computes what a scalar would.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __FAST_MATH__
#error "numerics.h needs IEEE arithmetic: compile without -ffast-math and -Ofast"
#endif

inline float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// The upper half of a float, rounded to the nearest and halfway to even: a bfloat16's 16 bits. A
// NaN stays one: its quiet bit is set. Without a branch, so that loops over it vectorise.
[[gnu::always_inline]] inline uint32_t bfloat16_bits(float x) {
    uint32_t bits = float_to_bits(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded;
}

// ---- exp and the GELU ---------------------------------------------------------------------------

// e^x, within 1 unit in the last place for -87.33 <= x <= 88.37. Below, 0 (no subnormal numbers);
// above, e^88.37; NaN gives NaN.
//
//     x = n ln2 + r,  n an integer,  |r| <= ln2/2      so that      e^x = 2^n e^r
//
// ln2 is split in two, the first part short enough for n * LN2_HIGH to be exact (Cody and Waite
// 1980). Taylor's series of e^r ends at r^7: the next term is below 0.3466^8 / 8! = 5e-9, a tenth
// of float's rounding. 2^n is made by writing n into a float's exponent field.
[[gnu::always_inline]] inline float exp_f(float x) {
    const float LOG2_E = 1.44269504f, LN2_HIGH = 0.693145752f, LN2_LOW = 1.42860677e-6f;
    const float ROUND = 12582912.0f;   // 1.5 * 2^23: adding it leaves no bit for a fraction
    float y = x > 88.37f ? 88.37f : x < -87.33f ? -87.33f : x;
    float shifted = __builtin_fmaf(y, LOG2_E, ROUND);
    float n = shifted - ROUND;
    float r = __builtin_fmaf(n, -LN2_HIGH, y);
    r = __builtin_fmaf(n, -LN2_LOW, r);
    float p = 1.0f / 5040.0f;
    p = __builtin_fmaf(p, r, 1.0f / 720.0f);
    p = __builtin_fmaf(p, r, 1.0f / 120.0f);
    p = __builtin_fmaf(p, r, 1.0f / 24.0f);
    p = __builtin_fmaf(p, r, 1.0f / 6.0f);
    p = __builtin_fmaf(p, r, 0.5f);
    p = __builtin_fmaf(p, r, 1.0f);
    p = __builtin_fmaf(p, r, 1.0f);
    // The low bits of `shifted` are n itself, so that no conversion to an integer is needed.
    uint32_t two_to_n = (float_to_bits(shifted) - float_to_bits(ROUND) + 127u) << 23;
    float result = p * bits_to_float(two_to_n);
    return x < -87.33f ? 0.0f : result;
}

// GELU in its tanh form (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2; what GPT-2 uses):
//     gelu(x) = x/2 (1 + tanh(u)),   u = sqrt(2/pi) (x + 0.044715 x^3)
// Since (1 + tanh(u)) / 2 = 1 / (1 + e^-2u), it is x times a sigmoid: one exponential, and no
// cancellation where tanh(u) comes near -1.
const float GELU_SCALE = 0.797884561f;   // sqrt(2/pi)
const float GELU_CUBIC = 0.044715f;

[[gnu::always_inline]] inline float gelu_gate(float x) {
    float u = GELU_SCALE * (x + GELU_CUBIC * x * x * x);
    return 1.0f / (1.0f + exp_f(-2.0f * u));
}

[[gnu::always_inline]] inline float gelu(float x) {
    return x * gelu_gate(x);
}

// With s = sigmoid(2u):  gelu'(x) = s + x s (1 - s) 2u',   u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
[[gnu::always_inline]] inline float gelu_derivative(float x) {
    float s = gelu_gate(x);
    float du = GELU_SCALE * (1.0f + 3.0f * GELU_CUBIC * x * x);
    return s + x * s * (1.0f - s) * 2.0f * du;
}

// ---- log, exp and cos, in double: once a row, once a step ---------------------------------------

// ln(x) for a normal x > 0, within 1e-15 relative. With x = 2^e m, sqrt(1/2) <= m < sqrt(2):
//     ln(x) = e ln2 + 2 (s + s^3/3 + s^5/5 + ...),   s = (m - 1) / (m + 1),  |s| <= 0.1716
// As in C: 0 gives -infinity, infinity gives itself, a negative x or NaN gives NaN.
inline double log_d(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    if (!(x > 0) || (bits >> 52) == 0x7ff)
        return x == 0 ? -__builtin_inf() : x > 0 ? x : __builtin_nan("");
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return exponent * 0.6931471805599453 + 2.0 * s * sum;
}

// e^x for |x| <= 700, within 1e-15 relative: exp_f's way, with a longer series. The last term is
// below 0.3466^14 / 14! = 4e-18.
inline double exp_d(double x) {
    const double LOG2_E = 1.4426950408889634, LN2_HIGH = 0.6931471803691238,
                 LN2_LOW = 1.9082149292705877e-10;
    long long n = (long long)(x * LOG2_E + (x < 0 ? -0.5 : 0.5));
    double r = x - (double)n * LN2_HIGH - (double)n * LN2_LOW, sum = 1;
    for (int k = 14; k >= 1; k--) sum = 1.0 + sum * r / k;
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double two_to_n;
    memcpy(&two_to_n, &bits, 8);
    return sum * two_to_n;
}

// cos(x) for |x| <= 1000, within 1e-12; for |x| <= 10^6, within 1e-9. x is reduced to |r| <= pi by
// whole turns; then Taylor's series, whose last term at pi is pi^28/28! = 3e-16.
inline double cos_d(double x) {
    const double TURN = 6.283185307179586;
    double turns = x / TURN;
    double r = x - TURN * (double)(long long)(turns + (turns < 0 ? -0.5 : 0.5));
    double r2 = r * r, sum = 0;
    for (int k = 28; k >= 2; k -= 2) sum = (1.0 + sum) * -r2 / (k * (k - 1));
    return 1.0 + sum;
}

// x^n for n >= 0, by squaring: n = 13 = 8 + 4 + 1 gives x^8 x^4 x.
inline double power(double x, int n) {
    double result = 1;
    for (; n > 0; n /= 2) {
        if (n % 2) result *= x;
        x *= x;
    }
    return result;
}

// ---- random numbers -----------------------------------------------------------------------------

// SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
// figure 17): the state counts up by a fixed odd number, and a hash of it is the output.
// 64 bits hold the whole generator, so a checkpoint keeps it as one integer.
struct Rng {
    uint64_t state;
};

const uint64_t RNG_STEP = 0x9e3779b97f4a7c15ull;

// The generator as it will be when n numbers have been drawn.
inline Rng after_draws(Rng rng, uint64_t n) {
    return {rng.state + n * RNG_STEP};
}

inline uint64_t random_u64(Rng& rng) {
    uint64_t z = rng.state += RNG_STEP;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// What random numbers are for. A generator belongs to one seed, one purpose and one index
// (a tensor, an epoch), so that nothing shifts when another purpose draws more numbers than before.
enum RngPurpose { RNG_INIT = 1, RNG_ORDER = 2, RNG_SAMPLE = 3 };

inline Rng make_rng(uint64_t seed, RngPurpose purpose, uint64_t index) {
    Rng rng = {seed};
    rng.state = random_u64(rng) + purpose;
    rng.state = random_u64(rng) + index;
    rng.state = random_u64(rng);
    return rng;
}

// Uniform in [0, 1): 24 random bits, as many as a float holds, so that no rounding reaches 1.
inline float uniform(Rng& rng) {
    return (float)(random_u64(rng) >> 40) * (1.0f / 16777216.0f);
}

// An integer in 0 .. n-1. A product's high half replaces a division; its bias is below n / 2^64.
inline uint64_t random_below(Rng& rng, uint64_t n) {
    return (uint64_t)(((unsigned __int128)random_u64(rng) * n) >> 64);
}

// Normal, mean 0 and deviation 1 (Box and Muller 1958): sqrt(-2 ln u) cos(2 pi v), u in (0, 1].
inline float normal(Rng& rng) {
    double u = (double)((random_u64(rng) >> 11) + 1) * (1.0 / 9007199254740992.0);
    double v = (double)(random_u64(rng) >> 11) * (1.0 / 9007199254740992.0);
    return (float)(__builtin_sqrt(-2.0 * log_d(u)) * cos_d(6.283185307179586 * v));
}

// ---- sums, and the largest ----------------------------------------------------------------------

// A sum whose order is fixed by the data alone: lane j adds elements j, j+32, j+64, ..., and the
// lanes are then added in pairs. 32 lanes fill the vector registers of every processor
// (2 of AVX-512, 4 of AVX2, 8 of NEON), and the result does not depend on which.
const int LANES = 32;

typedef float Four __attribute__((vector_size(16)));   // what every processor adds at once

inline float add_lanes(const float* lanes) {
    Four s[LANES / 4];
    memcpy(s, lanes, sizeof s);
    for (int half = LANES / 8; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) s[j] += s[j + half];
    return (s[0][0] + s[0][2]) + (s[0][1] + s[0][3]);
}

// The lanes of dot(a, b, n).
inline void dot_lanes(float* to, const float* a, const float* b, int64_t n) {
    float lanes[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] = __builtin_fmaf(a[i + j], b[i + j], lanes[j]);
    for (int j = 0; i + j < n; j++) lanes[j] = __builtin_fmaf(a[i + j], b[i + j], lanes[j]);
    memcpy(to, lanes, sizeof lanes);
}

// sum_i a[i] * b[i]
inline float dot(const float* a, const float* b, int64_t n) {
    float lanes[LANES];
    dot_lanes(lanes, a, b, n);
    return add_lanes(lanes);
}

// The largest of n > 0 numbers, in lanes as well: the order of a maximum does not matter.
inline float maximum(const float* x, int64_t n) {
    float most[LANES], largest = x[0];
    for (float& m : most) m = largest;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (int j = 0; i + j < n; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (float m : most) largest = m > largest ? m : largest;
    return largest;
}
