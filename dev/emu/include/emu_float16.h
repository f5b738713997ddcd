// emu_float16.h - the two 16-bit floats, by their bits: no compiler of today has both types.
// Each operation goes through float and is rounded once, to nearest even. That is exact: float
// holds the product or sum of two such numbers with more than twice the bits that are kept.
#pragma once
#include "cuda_runtime.h"
namespace emu {
inline uint16_t bf16_bits(float x) {
    uint32_t u = emu_bits<uint32_t>(x);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;                      // CUDA's NaN
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
inline float bf16_value(uint16_t h) { return emu_bits<float>((uint32_t)h << 16); }
inline uint16_t half_bits(float x) {
    uint32_t u = emu_bits<uint32_t>(x), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return 0x7fff;
    if (u >= 0x47800000) return (uint16_t)(sign | 0x7c00);  // 65536 and more: infinity
    if (u < 0x38800000) {                                   // subnormal: let the adder round
        float magic = emu_bits<float>(u) + 0.5f;
        return (uint16_t)(sign | (emu_bits<uint32_t>(magic) - 0x3f000000));
    }
    return (uint16_t)(sign | ((u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13));
}
inline float half_value(uint16_t h) {
    uint32_t u = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    float x =
        (h & 0x7c00) == 0x7c00 ? emu_bits<float>(u | 0x7f800000) : emu_bits<float>(u) * 0x1p112f;
    return emu_bits<float>(emu_bits<uint32_t>(x) | sign);
}
}  // namespace emu
// The same list for both types: H and H2 are the scalar and the pair, functions spell them NAME.
#define EMU_FLOAT16_OPERATOR(H, H2, op) \
    __forceinline__ H operator op(H a, H b) { return H((float)a op (float)b); } \
    __forceinline__ H& operator op##=(H& a, H b) { return a = a op b; } \
    __forceinline__ H2 operator op(H2 a, H2 b) { return H2(a.x op b.x, a.y op b.y); } \
    __forceinline__ H2& operator op##=(H2& a, H2 b) { return a = a op b; }
#define EMU_FLOAT16_COMPARE(H, op, name) \
    __forceinline__ bool operator op(H a, H b) { return (float)a op (float)b; } \
    __forceinline__ bool name(H a, H b) { return (float)a op (float)b; }
#define EMU_FLOAT16_BINARY(H, H2, name, expression) \
    __forceinline__ H name(H p, H q) { float a = p, b = q; return H(expression); } \
    __forceinline__ H2 name##2(H2 p, H2 q) { return H2(name(p.x, q.x), name(p.y, q.y)); }
#define EMU_FLOAT16_UNARY(H, H2, suffix, expression) \
    __forceinline__ H h##suffix(H p) { float a = p; return H(expression); } \
    __forceinline__ H2 h2##suffix(H2 p) { return H2(h##suffix(p.x), h##suffix(p.y)); }
#define EMU_FLOAT16(H, H2, NAME, ATOMIC, to_bits, to_value) \
    struct H##_raw { unsigned short x; }; \
    struct H { \
        unsigned short bits; \
        H() = default; \
        H(H##_raw raw) : bits(raw.x) {} \
        template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> \
        __forceinline__ H(T x) : bits(to_bits((float)x)) {} \
        __forceinline__ operator float() const { return to_value(bits); } \
        operator H##_raw() const { return {bits}; } \
        template <class T> \
        __forceinline__ std::enable_if_t<std::is_arithmetic_v<T>, H&> operator=(T x) { \
            bits = to_bits((float)x); \
            return *this; \
        } \
        __forceinline__ H operator-() const { \
            return H(H##_raw{(unsigned short)(bits ^ 0x8000)}); \
        } \
    }; \
    struct alignas(4) H2 { \
        H x, y; \
        H2() = default; \
        __forceinline__ H2(H x, H y) : x(x), y(y) {} \
    }; \
    EMU_FLOAT16_OPERATOR(H, H2, +) EMU_FLOAT16_OPERATOR(H, H2, -) \
    EMU_FLOAT16_OPERATOR(H, H2, *) EMU_FLOAT16_OPERATOR(H, H2, /) \
    EMU_FLOAT16_COMPARE(H, ==, __heq) EMU_FLOAT16_COMPARE(H, !=, __hne) \
    EMU_FLOAT16_COMPARE(H, <, __hlt) EMU_FLOAT16_COMPARE(H, >, __hgt) \
    EMU_FLOAT16_COMPARE(H, <=, __hle) EMU_FLOAT16_COMPARE(H, >=, __hge) \
    EMU_FLOAT16_BINARY(H, H2, __hadd, a + b) EMU_FLOAT16_BINARY(H, H2, __hsub, a - b) \
    EMU_FLOAT16_BINARY(H, H2, __hmul, a * b) EMU_FLOAT16_BINARY(H, H2, __hdiv, a / b) \
    EMU_FLOAT16_BINARY(H, H2, __hadd_rn, a + b) EMU_FLOAT16_BINARY(H, H2, __hmul_rn, a * b) \
    EMU_FLOAT16_BINARY(H, H2, __hmin, fminf(a, b)) EMU_FLOAT16_BINARY(H, H2, __hmax, fmaxf(a, b)) \
    EMU_FLOAT16_UNARY(H, H2, exp, expf(a)) EMU_FLOAT16_UNARY(H, H2, exp2, exp2f(a)) \
    EMU_FLOAT16_UNARY(H, H2, log, logf(a)) EMU_FLOAT16_UNARY(H, H2, log2, log2f(a)) \
    EMU_FLOAT16_UNARY(H, H2, sqrt, sqrtf(a)) EMU_FLOAT16_UNARY(H, H2, rsqrt, 1 / sqrtf(a)) \
    EMU_FLOAT16_UNARY(H, H2, rcp, 1 / a) EMU_FLOAT16_UNARY(H, H2, sin, sinf(a)) \
    EMU_FLOAT16_UNARY(H, H2, cos, cosf(a)) EMU_FLOAT16_UNARY(H, H2, tanh, tanhf(a)) \
    EMU_FLOAT16_UNARY(H, H2, floor, floorf(a)) EMU_FLOAT16_UNARY(H, H2, ceil, ceilf(a)) \
    EMU_FLOAT16_UNARY(H, H2, trunc, truncf(a)) EMU_FLOAT16_UNARY(H, H2, rint, rintf(a)) \
    __forceinline__ H __habs(H a) { return H(H##_raw{(unsigned short)(a.bits & 0x7fff)}); } \
    __forceinline__ H2 __habs2(H2 a) { return H2(__habs(a.x), __habs(a.y)); } \
    __forceinline__ H __hneg(H a) { return -a; } \
    __forceinline__ H2 __hneg2(H2 a) { return H2(-a.x, -a.y); } \
    __forceinline__ H __hfma(H a, H b, H c) { return H(fma((double)a, (double)b, (double)c)); } \
    __forceinline__ H2 __hfma2(H2 a, H2 b, H2 c) { \
        return H2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); \
    } \
    __forceinline__ bool __hisnan(H a) { return std::isnan((float)a); } \
    __forceinline__ int __hisinf(H a) { return std::isinf((float)a); } \
    __forceinline__ H __ushort_as_##NAME(unsigned short x) { return H(H##_raw{x}); } \
    __forceinline__ H __short_as_##NAME(short x) { return H(H##_raw{(unsigned short)x}); } \
    __forceinline__ unsigned short __##NAME##_as_ushort(H x) { return x.bits; } \
    __forceinline__ short __##NAME##_as_short(H x) { return (short)x.bits; } \
    __forceinline__ H __float2##NAME(float x) { return H(x); } \
    __forceinline__ H __float2##NAME##_rn(float x) { return H(x); } \
    __forceinline__ H __double2##NAME(double x) { return H((float)x); } \
    __forceinline__ float __##NAME##2float(H x) { return (float)x; } \
    __forceinline__ H __int2##NAME##_rn(int x) { return H((float)x); } \
    __forceinline__ int __##NAME##2int_rn(H x) { return (int)rintf(x); } \
    __forceinline__ int __##NAME##2int_rz(H x) { return (int)(float)x; } \
    __forceinline__ H2 __##NAME##2##NAME##2(H x) { return H2(x, x); } \
    __forceinline__ H2 __halves2##NAME##2(H x, H y) { return H2(x, y); } \
    __forceinline__ H2 make_##NAME##2(H x, H y) { return H2(x, y); } \
    __forceinline__ H2 __float2##NAME##2_rn(float x) { return H2(H(x), H(x)); } \
    __forceinline__ H2 __floats2##NAME##2_rn(float x, float y) { return H2(H(x), H(y)); } \
    __forceinline__ H2 __float22##NAME##2_rn(float2 v) { return H2(H(v.x), H(v.y)); } \
    __forceinline__ float2 __##NAME##22float2(H2 v) { return {(float)v.x, (float)v.y}; } \
    __forceinline__ float __low2float(H2 v) { return v.x; } \
    __forceinline__ float __high2float(H2 v) { return v.y; } \
    __forceinline__ H __low2##NAME(H2 v) { return v.x; } \
    __forceinline__ H __high2##NAME(H2 v) { return v.y; } \
    __forceinline__ H2 __lowhigh2highlow(H2 v) { return H2(v.y, v.x); } \
    __forceinline__ H2 __low2##NAME##2(H2 v) { return H2(v.x, v.x); } \
    __forceinline__ H2 __high2##NAME##2(H2 v) { return H2(v.y, v.y); } \
    __forceinline__ bool __hbeq2(H2 a, H2 b) { return a.x == b.x && a.y == b.y; } \
    __forceinline__ H atomicAdd(H* p, H v) { return emu::atomic_as(emu::ADD_##ATOMIC, p, v); } \
    __forceinline__ H2 atomicAdd(H2* p, H2 v) { return emu::atomic_as(emu::ADD_##ATOMIC##2, p, v); }
