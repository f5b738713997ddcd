// device_functions.h - what a kernel may call: barriers, warps, atomics, arithmetic, memory hints.
// The short ones are written here. Those that wait for other threads or touch memory are in
// ../block.cpp, ../warp.cpp and ../atomics.cpp; wrappers around them are forced inline, so that the
// call comes from the line of the .cu file that a message should name.
#pragma once

// ---- the block's barrier ------------------------------------------------------------------------
void __syncthreads();
int __syncthreads_count(int predicate);
int __syncthreads_and(int predicate);
int __syncthreads_or(int predicate);
// Fences order one thread's own accesses. Threads of a block run in turns here and blocks share the
// host's memory, so the host's fence is enough. A fence is not a barrier: it waits for nobody. The
// race detectors take note of it.
namespace emu { void fence(bool grid); }
inline void __threadfence_block() { emu::fence(false); }
inline void __threadfence() { emu::fence(true); }
inline void __threadfence_system() { emu::fence(true); }

// ---- warps --------------------------------------------------------------------------------------
namespace emu {
enum WarpOp {
    SYNCWARP, SHFL_IDX, SHFL_UP, SHFL_DOWN, SHFL_XOR, BALLOT, ALL, ANY, UNI, MATCH_ANY, MATCH_ALL,
    COLLECT, LDMATRIX, MMA, REDUCE_ADD, REDUCE_MIN, REDUCE_MAX, REDUCE_UMIN, REDUCE_UMAX,
    REDUCE_AND, REDUCE_OR, REDUCE_XOR, ACTIVEMASK
};
// Waits until all lanes of mask have come to the same operation, and returns this lane's result.
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int argument = 0, int width = 32);
void yield();            // lets other threads of the block run: for loops that wait on memory
unsigned lane();
unsigned warp_number();
// Copies the bytes at `mine` of each lane in mask to `all`, lane by lane: one meeting for what
// tensor cores do, or a reduction.
void warp_collect(unsigned mask, const void* mine, size_t bytes, void* all);
// A value as a word, and back.
template <class T> __forceinline__ uint64_t to_word(T value) {
    static_assert(sizeof(T) <= 8, "a warp or an atomic moves at most 8 bytes");
    uint64_t word = 0;
    __builtin_memcpy(&word, (const void*)&value, sizeof(T));
    return word;
}
template <class T> __forceinline__ T from_word(uint64_t word) {
    T value;
    __builtin_memcpy((void*)&value, &word, sizeof(T));
    return value;
}
}  // namespace emu
__forceinline__ void __syncwarp(unsigned mask = 0xffffffff) { emu::warp(emu::SYNCWARP, mask, 0); }
__forceinline__ unsigned __activemask() { return emu::warp(emu::ACTIVEMASK, 0, 0); }
#define EMU_SHUFFLE(name, OP) \
    template <class T> __forceinline__ T name(unsigned mask, T v, int lanes, int width = 32) { \
        return emu::from_word<T>(emu::warp(emu::OP, mask, emu::to_word(v), lanes, width)); \
    }
EMU_SHUFFLE(__shfl_sync, SHFL_IDX) EMU_SHUFFLE(__shfl_up_sync, SHFL_UP)
EMU_SHUFFLE(__shfl_down_sync, SHFL_DOWN) EMU_SHUFFLE(__shfl_xor_sync, SHFL_XOR)
#define EMU_VOTE(T, name, OP) \
    __forceinline__ T name(unsigned mask, int p) { return emu::warp(emu::OP, mask, p != 0); }
EMU_VOTE(unsigned, __ballot_sync, BALLOT) EMU_VOTE(int, __all_sync, ALL)
EMU_VOTE(int, __any_sync, ANY) EMU_VOTE(int, __uni_sync, UNI)
template <class T> __forceinline__ unsigned __match_any_sync(unsigned mask, T v) {
    return emu::warp(emu::MATCH_ANY, mask, emu::to_word(v));
}
template <class T> __forceinline__ unsigned __match_all_sync(unsigned mask, T v, int* all) {
    unsigned same = emu::warp(emu::MATCH_ALL, mask, emu::to_word(v));
    *all = same != 0;
    return same;
}
#define EMU_REDUCE(T, name, OP) \
    __forceinline__ T __reduce_##name##_sync(unsigned mask, T v) { \
        return emu::warp(emu::REDUCE_##OP, mask, v); \
    }
EMU_REDUCE(unsigned, add, ADD) EMU_REDUCE(unsigned, min, UMIN) EMU_REDUCE(unsigned, max, UMAX)
EMU_REDUCE(int, add, ADD) EMU_REDUCE(int, min, MIN) EMU_REDUCE(int, max, MAX)
EMU_REDUCE(unsigned, and, AND) EMU_REDUCE(unsigned, or, OR) EMU_REDUCE(unsigned, xor, XOR)

// ---- atomics ------------------------------------------------------------------------------------
namespace emu {
enum AtomicOp {
    ADD, ADD_FLOAT, ADD_DOUBLE, ADD_HALF, ADD_BF16, ADD_HALF2, ADD_BF162, MIN_SIGNED, MIN_UNSIGNED,
    MAX_SIGNED, MAX_UNSIGNED, AND, OR, XOR, INC, DEC, EXCHANGE, COMPARE_AND_SWAP
};
// *p = op(*p, v), of 2, 4 or 8 bytes, in one step that none comes between; returns what was there.
uint64_t atomic(AtomicOp op, void* p, int bytes, uint64_t v, uint64_t expected = 0);
template <class T> __forceinline__ T atomic_as(AtomicOp op, T* p, T v, T expected = T()) {
    return from_word<T>(atomic(op, (void*)p, sizeof(T), to_word(v), to_word(expected)));
}
}  // namespace emu
// Each exists in CUDA for these types. (_block and _system say how far the atomicity must reach.)
#define EMU_ATOMIC(name, T, op) \
    __forceinline__ T name(T* p, T v) { return emu::atomic_as(emu::op, p, v); } \
    __forceinline__ T name##_block(T* p, T v) { return emu::atomic_as(emu::op, p, v); } \
    __forceinline__ T name##_system(T* p, T v) { return emu::atomic_as(emu::op, p, v); }
#define EMU_ATOMICS(T, min_op, max_op) \
    EMU_ATOMIC(atomicMin, T, min_op) EMU_ATOMIC(atomicMax, T, max_op) \
    EMU_ATOMIC(atomicAnd, T, AND) EMU_ATOMIC(atomicOr, T, OR) EMU_ATOMIC(atomicXor, T, XOR)
#define EMU_CAS(T, name) \
    __forceinline__ T name(T* p, T expected, T v) { \
        return emu::atomic_as(emu::COMPARE_AND_SWAP, p, v, expected); \
    }
#define EMU_CASES(T) EMU_CAS(T, atomicCAS) EMU_CAS(T, atomicCAS_block) EMU_CAS(T, atomicCAS_system)
EMU_ATOMIC(atomicAdd, int, ADD) EMU_ATOMIC(atomicAdd, unsigned, ADD)
EMU_ATOMIC(atomicAdd, unsigned long long, ADD)
EMU_ATOMIC(atomicAdd, float, ADD_FLOAT) EMU_ATOMIC(atomicAdd, double, ADD_DOUBLE)
EMU_ATOMIC(atomicExch, int, EXCHANGE) EMU_ATOMIC(atomicExch, unsigned, EXCHANGE)
EMU_ATOMIC(atomicExch, unsigned long long, EXCHANGE) EMU_ATOMIC(atomicExch, float, EXCHANGE)
EMU_ATOMIC(atomicInc, unsigned, INC) EMU_ATOMIC(atomicDec, unsigned, DEC)
EMU_ATOMICS(int, MIN_SIGNED, MAX_SIGNED) EMU_ATOMICS(unsigned, MIN_UNSIGNED, MAX_UNSIGNED)
EMU_ATOMICS(unsigned long long, MIN_UNSIGNED, MAX_UNSIGNED)
EMU_ATOMIC(atomicMin, long long, MIN_SIGNED) EMU_ATOMIC(atomicMax, long long, MAX_SIGNED)
EMU_CASES(int) EMU_CASES(unsigned) EMU_CASES(unsigned long long) EMU_CASES(unsigned short)
__forceinline__ int atomicSub(int* p, int v) { return atomicAdd(p, -v); }
__forceinline__ unsigned atomicSub(unsigned* p, unsigned v) { return atomicAdd(p, -v); }

// ---- memory -------------------------------------------------------------------------------------
// Caching hints do not change a value, and the emulator has no caches to direct.
#define EMU_LOAD(name) template <class T> __forceinline__ T name(const T* p) { return *p; }
#define EMU_STORE(name) template <class T> __forceinline__ void name(T* p, T v) { *p = v; }
EMU_LOAD(__ldg) EMU_LOAD(__ldca) EMU_LOAD(__ldcg) EMU_LOAD(__ldcs) EMU_LOAD(__ldlu) EMU_LOAD(__ldcv)
EMU_STORE(__stwb) EMU_STORE(__stcg) EMU_STORE(__stcs) EMU_STORE(__stwt)

// ---- control ------------------------------------------------------------------------------------
void __trap();
inline void __nanosleep(unsigned) { emu::yield(); }
long long clock64();
inline unsigned long long __globaltimer() { return clock64(); }

// ---- integers -----------------------------------------------------------------------------------
__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __ffsll(long long x) { return __builtin_ffsll(x); }
__forceinline__ int __clz(int x) { return x ? __builtin_clz(x) : 32; }
__forceinline__ int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
__forceinline__ int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
__forceinline__ unsigned __umul24(unsigned a, unsigned b) {
    return (a & 0xffffff) * (b & 0xffffff);
}
#define EMU_MULTIPLY_HIGH(T, Wide, name) \
    __forceinline__ T name(T a, T b) { return (T)((Wide)a * b >> 8 * sizeof(T)); }
EMU_MULTIPLY_HIGH(int, long long, __mulhi) EMU_MULTIPLY_HIGH(unsigned, uint64_t, __umulhi)
EMU_MULTIPLY_HIGH(long long, __int128, __mul64hi)
EMU_MULTIPLY_HIGH(unsigned long long, unsigned __int128, __umul64hi)
__forceinline__ unsigned __sad(int a, int b, unsigned c) { return (a > b ? a - b : b - a) + c; }
__forceinline__ int __hadd(int a, int b) { return (int)(((long long)a + b) >> 1); }
__forceinline__ unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) << (n & 31) >> 32);
}
__forceinline__ unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}
#define EMU_DOT(T, Byte) \
    inline T __dp4a(T a, T b, T c) { \
        for (int i = 0; i < 4; i++) c += (Byte)(a >> 8 * i) * (Byte)(b >> 8 * i); \
        return c; \
    }
EMU_DOT(int, int8_t) EMU_DOT(unsigned, uint8_t)
// A word as four bytes or two halves, each on its own: __vadd4, __vmaxs2, ...
#define EMU_SIMD(name, T, count, value) \
    inline unsigned name##count(unsigned x, unsigned y) { \
        const int bits = 32 / count; \
        unsigned result = 0; \
        for (int i = 0; i < 32; i += bits) { \
            long a = (T)(x >> i), b = (T)(y >> i); \
            result |= (unsigned)((value) & ((1ul << bits) - 1)) << i; \
        } \
        return result; \
    }
#define EMU_SIMDS(U, S, n) \
    EMU_SIMD(__vadd, U, n, a + b) EMU_SIMD(__vsub, U, n, a - b) \
    EMU_SIMD(__vavgu, U, n, (a + b + 1) >> 1) EMU_SIMD(__vabsdiffu, U, n, a > b ? a - b : b - a) \
    EMU_SIMD(__vminu, U, n, a < b ? a : b) EMU_SIMD(__vmaxu, U, n, a > b ? a : b) \
    EMU_SIMD(__vmins, S, n, a < b ? a : b) EMU_SIMD(__vmaxs, S, n, a > b ? a : b) \
    EMU_SIMD(__vcmpeq, U, n, -(a == b)) EMU_SIMD(__vcmpgtu, U, n, -(a > b))
EMU_SIMDS(uint8_t, int8_t, 4) EMU_SIMDS(uint16_t, int16_t, 2)
__forceinline__ unsigned __vsadu4(unsigned x, unsigned y) {
    return __dp4a(__vabsdiffu4(x, y), 0x01010101u, 0u);
}

// ---- floating point -----------------------------------------------------------------------------
// The fast forms (__expf ...) are rounded better here than on a GPU: a program that needs their
// errors to be as large as CUDA's guide allows has a bug that an emulator will not show.
template <class To, class From> __forceinline__ To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    return emu::from_word<To>(emu::to_word(x));
}
#define EMU_AS(From, from, To, to) \
    __forceinline__ To __##from##_as_##to(From x) { return emu_bits<To>(x); } \
    __forceinline__ From __##to##_as_##from(To x) { return emu_bits<From>(x); }
EMU_AS(int, int, float, float) EMU_AS(unsigned, uint, float, float)
EMU_AS(long long, longlong, double, double)
__forceinline__ int __double2hiint(double x) { return (int)(emu_bits<long long>(x) >> 32); }
__forceinline__ int __double2loint(double x) { return (int)emu_bits<long long>(x); }
__forceinline__ double __hiloint2double(int hi, int lo) {
    return emu_bits<double>((long long)((uint64_t)(unsigned)hi << 32 | (unsigned)lo));
}
#define EMU_UNARY(T, name, value) __forceinline__ T name(T a) { return value; }
#define EMU_BINARY(T, name, value) __forceinline__ T name(T a, T b) { return value; }
EMU_BINARY(float, __fadd_rn, a + b) EMU_BINARY(float, __fsub_rn, a - b)
EMU_BINARY(float, __fmul_rn, a * b) EMU_BINARY(float, __fdiv_rn, a / b)
EMU_BINARY(float, __fdividef, a / b) EMU_BINARY(float, fdividef, a / b)
EMU_BINARY(double, __dadd_rn, a + b) EMU_BINARY(double, __dmul_rn, a * b)
EMU_BINARY(double, __ddiv_rn, a / b) EMU_BINARY(float, __powf, powf(a, b))
EMU_UNARY(float, __fsqrt_rn, __builtin_sqrtf(a)) EMU_UNARY(double, __dsqrt_rn, __builtin_sqrt(a))
EMU_UNARY(float, __frcp_rn, 1 / a) EMU_UNARY(float, rcbrtf, 1 / cbrtf(a))
EMU_UNARY(float, __frsqrt_rn, (float)(1 / __builtin_sqrt((double)a)))
EMU_UNARY(float, rsqrtf, 1 / __builtin_sqrtf(a)) EMU_UNARY(float, rsqrt, 1 / __builtin_sqrtf(a))
EMU_UNARY(double, rsqrt, 1 / __builtin_sqrt(a))
EMU_UNARY(float, __expf, expf(a)) EMU_UNARY(float, __exp10f, powf(10.0f, a))
EMU_UNARY(float, __logf, logf(a)) EMU_UNARY(float, __log2f, log2f(a))
EMU_UNARY(float, __log10f, log10f(a)) EMU_UNARY(float, __tanf, tanf(a))
EMU_UNARY(float, __sinf, sinf(a)) EMU_UNARY(float, __cosf, cosf(a))
EMU_UNARY(float, sinpif, sin(CUDART_PI * a)) EMU_UNARY(float, cospif, cos(CUDART_PI * a))
EMU_UNARY(float, __saturatef, a > 0 ? (a < 1 ? a : 1.0f) : 0.0f)
inline double erfinv(double y) {      // by Newton's method, from Winitzki's guess
    double l = ::log(1 - y * y), t = 4.330746750799873 + l / 2;
    double x = copysign(sqrt(sqrt(t * t - l / 0.147) - t), y);
    for (int i = 0; i < 3 && y > -1 && y < 1; i++)
        x -= (erf(x) - y) * 0.8862269254527580 * exp(x * x);
    return x;
}
EMU_UNARY(float, erfinvf, (float)erfinv(a)) EMU_UNARY(double, erfcinv, erfinv(1 - a))
EMU_UNARY(double, normcdfinv, 1.4142135623730951 * erfinv(2 * a - 1))
EMU_UNARY(float, normcdfinvf, (float)normcdfinv(a))
EMU_UNARY(float, normcdff, 0.5f * erfcf(-a * 0.70710678f))
__forceinline__ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
__forceinline__ double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
__forceinline__ float norm3df(float x, float y, float z) { return sqrtf(x * x + y * y + z * z); }
__forceinline__ void __sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
__forceinline__ void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
// To an integer: to the nearest, towards zero, down or up.
#define EMU_TO_INTEGER(From, from, To, to) \
    __forceinline__ To __##from##2##to##_rn(From x) { return (To)rint(x); } \
    __forceinline__ To __##from##2##to##_rz(From x) { return (To)x; } \
    __forceinline__ To __##from##2##to##_rd(From x) { return (To)floor(x); } \
    __forceinline__ To __##from##2##to##_ru(From x) { return (To)ceil(x); }
#define EMU_TO_INTEGERS(From, from) \
    EMU_TO_INTEGER(From, from, int, int) EMU_TO_INTEGER(From, from, unsigned, uint) \
    EMU_TO_INTEGER(From, from, long long, ll) EMU_TO_INTEGER(From, from, unsigned long long, ull)
EMU_TO_INTEGERS(float, float) EMU_TO_INTEGERS(double, double)
__forceinline__ float __int2float_rn(int x) { return (float)x; }
__forceinline__ float __uint2float_rn(unsigned x) { return (float)x; }
__forceinline__ float __ull2float_rn(unsigned long long x) { return (float)x; }
__forceinline__ float __double2float_rn(double x) { return (float)x; }
// CUDA has min and max without std::, for mixed types of one kind too.
#define EMU_MIN_MAX(T) \
    __forceinline__ constexpr T min(T a, T b) { return b < a ? b : a; } \
    __forceinline__ constexpr T max(T a, T b) { return a < b ? b : a; }
EMU_MIN_MAX(int) EMU_MIN_MAX(unsigned) EMU_MIN_MAX(long) EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long) EMU_MIN_MAX(unsigned long long)
__forceinline__ float min(float a, float b) { return fminf(a, b); }
__forceinline__ float max(float a, float b) { return fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return fmin(a, b); }
__forceinline__ double max(double a, double b) { return fmax(a, b); }
#define EMU_MIXED(name) \
    template <class A, class B, class C = decltype(A() + B()), \
              class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>> \
    __forceinline__ C name(A a, B b) { return name((C)a, (C)b); }
EMU_MIXED(min) EMU_MIXED(max)
