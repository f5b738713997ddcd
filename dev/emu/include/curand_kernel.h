// curand_kernel.h - random numbers in kernels. The numbers are good ones, but not cuRAND's own.
#pragma once
#include "cuda_runtime.h"
struct curandStateXORWOW { unsigned long long state, stream; };
typedef curandStateXORWOW curandState, curandState_t, curandStateXORWOW_t,
    curandStatePhilox4_32_10_t, curandStateMRG32k3a_t;
inline unsigned curand(curandState* s) {      // PCG (O'Neill 2014)
    unsigned long long old = s->state;
    s->state = old * 6364136223846793005ull + s->stream;
    unsigned x = (unsigned)((old >> 18 ^ old) >> 27), turn = (unsigned)(old >> 59);
    return x >> turn | x << (-turn & 31);
}
inline void curand_init(unsigned long long seed, unsigned long long sequence,
                        unsigned long long offset, curandState* s) {
    *s = {seed * 0x9e3779b97f4a7c15ull + sequence, sequence << 1 | 1};
    for (unsigned long long i = 0; i < offset + 2; i++) curand(s);
}
inline float curand_uniform(curandState* s) { return (curand(s) >> 8) * 0x1p-24f + 0x1p-25f; }
inline double curand_uniform_double(curandState* s) { return (curand(s) + 0.5) * 0x1p-32; }
inline float curand_normal(curandState* s) {
    float u = curand_uniform(s), v = curand_uniform(s);
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}
inline double curand_normal_double(curandState* s) { return curand_normal(s); }
#define EMU_CURAND_VECTORS(name) \
    inline float2 name##2(curandState* s) { return {name(s), name(s)}; } \
    inline float4 name##4(curandState* s) { return {name(s), name(s), name(s), name(s)}; }
EMU_CURAND_VECTORS(curand_uniform) EMU_CURAND_VECTORS(curand_normal)
