// cuComplex.h - complex numbers as pairs of floats or doubles.
#pragma once
#include "cuda_runtime.h"
#define EMU_COMPLEX(Complex, T, suffix, hypotenuse) \
    inline Complex make_##Complex(T x, T y) { return {x, y}; } \
    inline T cuCreal##suffix(Complex a) { return a.x; } \
    inline T cuCimag##suffix(Complex a) { return a.y; } \
    inline T cuCabs##suffix(Complex a) { return hypotenuse(a.x, a.y); } \
    inline Complex cuConj##suffix(Complex a) { return {a.x, -a.y}; } \
    inline Complex cuCadd##suffix(Complex a, Complex b) { return {a.x + b.x, a.y + b.y}; } \
    inline Complex cuCsub##suffix(Complex a, Complex b) { return {a.x - b.x, a.y - b.y}; } \
    inline Complex cuCmul##suffix(Complex a, Complex b) { \
        return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x}; \
    } \
    inline Complex cuCdiv##suffix(Complex a, Complex b) { \
        T n = b.x * b.x + b.y * b.y; \
        return {(a.x * b.x + a.y * b.y) / n, (a.y * b.x - a.x * b.y) / n}; \
    } \
    inline Complex cuCfma##suffix(Complex a, Complex b, Complex c) { \
        return cuCadd##suffix(cuCmul##suffix(a, b), c); \
    }
typedef float2 cuFloatComplex;
typedef double2 cuDoubleComplex;
typedef cuFloatComplex cuComplex;
EMU_COMPLEX(cuFloatComplex, float, f, hypotf)
EMU_COMPLEX(cuDoubleComplex, double, , hypot)
inline cuComplex make_cuComplex(float x, float y) { return {x, y}; }
