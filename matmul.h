// matmul.h - the CPU's matrix product, for train_gpt2.cpp and the runtime. float32 in, float32 out.
//
// Every element of a product is one chain of fused multiply-adds in the order of k, starting from
// 0, from a bias, or from what was there before:
//
//     for (k = 0; k < K; k++) c = fma(a[m][k], b[k][n], c);
//
// Tiling changes which elements are computed together, never this chain. So the result has
// the same bits for any number of threads and any vector width, and a test can ask for equality
// with the three loops.
//
// Why it is fast (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"):
//
//     registers  A tile of MR x NR results stays in registers for KC steps of k. A step reads
//                MR + NR numbers for MR * NR multiply-adds. With AVX-512 these are 12 x 32: 14
//                loads for 24 fma instructions, where a core does two of each in a cycle; and 24
//                chains, of which two units of latency 4 need 8.
//     L1         What a tile reads are two panels: MR rows of a and NR columns of b, packed so that
//                step k + 1 lies behind step k. KC = 384 makes the panel of b 48 KB (AVX-512), all
//                of L1, while tiles go down the rows of a. What a's panels push out comes back
//                from L2 at 11 bytes a cycle, a fifth of what L2 can give; shorter panels would
//                stay, but c's tiles would be loaded and stored more often, which costs more.
//     L2         The panels of a that pass by have 18 KB each, for 4,608 cycles of multiply-adds.
//                A block of b has 128 columns, 192 KB.
//     memory     The smaller operand is packed once, by all threads, as many steps at a time as
//                4 MB hold; the larger one block by block, by the thread that uses the block, so
//                that one thread may wait for memory while another multiplies. Weights that lie in
//                memory in another form are decoded there, a panel at a time, and not before.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>
#include "files.h"
#include "numerics.h"
#include "threads.h"

// One vector register of floats, and the one instruction that matters: a * b + c, rounded once.
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
#error "matmul.h needs fused multiply-add (AVX2 with FMA, AVX-512, 64-bit Arm): use -march=native"
#endif
const int NR = 2 * VEC;
const int KC = 384;               // steps of k that a panel holds
const int BLOCK = 128;            // of the larger operand, that a thread packs at a time
const int64_t SHARED = 1 << 20;   // floats: 4 MB

// A matrix seen through two strides: element (i, j) is p[i * row + j * col].
// A transpose is a swap of them.
struct Matrix {
    const float* p;
    int64_t row, col;
};

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

inline Matrix part(Matrix x, int64_t i, int64_t j) {
    return {x.p + i * x.row + j * x.col, x.row, x.col};
}

// Where the chains begin, and what is done to a tile while it is in the first-level cache.
struct Finish {
    bool add = false;                 // they begin with c: c += a b
    const float* bias = nullptr;      // (N): or with this; else with 0
    float* gelu = nullptr;            // (M, N), rows as far apart as c's: gelu(c) goes there
    const float* pre_gelu = nullptr;  // (M, N), likewise: c is multiplied by gelu'(pre_gelu)
};

// ---- the tile -----------------------------------------------------------------------------------

// c[R][NR] (rows ldc apart) = a[R][K] b[K][NR] + what the chains begin with: c itself, or `begin`
// (NR floats) for every row. Rows of b are ldb apart. R is a template parameter because
// only loops of a known length keep their accumulators in registers.
template <int R>
[[gnu::always_inline]] inline void matmul_tile(float* c, int64_t ldc, Matrix a, const float* b,
                                               int64_t ldb, int K, const float* begin) {
    Vec acc[R][2];
    for (int i = 0; i < R; i++) {
        const float* from = begin ? begin : c + i * ldc;
        acc[i][0] = vec_load(from);
        acc[i][1] = vec_load(from + VEC);
    }
    for (int k = 0; k < K; k++) {
        Vec b0 = vec_load(b + k * ldb), b1 = vec_load(b + k * ldb + VEC);
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
inline void matmul_rows(int rows, float* c, int64_t ldc, Matrix a, const float* b, int64_t ldb,
                        int K, const float* begin) {
    if constexpr (R > 1) {
        if (rows < R) return matmul_rows<R - 1>(rows, c, ldc, a, b, ldb, K, begin);
    }
    matmul_tile<R>(c, ldc, a, b, ldb, K, begin);
}

// A tile of `width` columns, up to NR, by a function of (c, ldc, begin) that computes NR. A narrow
// one would write past the row's end: it is computed aside, and what belongs is copied.
template <typename Tile>
[[gnu::always_inline]] inline void edge_tile(int rows, int width, float* c, int64_t ldc,
                                             const float* begin, Tile tile) {
    if (width == NR) return tile(c, ldc, begin);
    float edge[MR * NR] = {};
    for (int i = 0; i < rows; i++)
        memcpy(edge + i * NR, begin ? begin : c + i * ldc, sizeof(float) * width);
    tile(edge, NR, nullptr);
    for (int i = 0; i < rows; i++) memcpy(c + i * ldc, edge + i * NR, sizeof(float) * width);
}

inline void matmul_edge(int rows, int width, float* c, int64_t ldc, Matrix a, const float* b,
                        int64_t ldb, int K, const float* begin) {
    edge_tile(rows, width, c, ldc, begin, [&](float* to, int64_t ld, const float* from) {
        matmul_rows<MR>(rows, to, ld, a, b, ldb, K, from);
    });
}

// ---- packing ------------------------------------------------------------------------------------

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

// W consecutive columns of x (depth, width) as a panel: W floats for step 0, then for step 1, ...
// Columns beyond width become 0. For a's panels, x is a transposed.
template <int W>
inline void pack_panel(float* panel, Matrix x, int depth, int width) {
    int j = 0;
    if (width < W) {
        memset(panel, 0, sizeof(float) * W * depth);
    } else if (x.col == 1) {
        for (int k = 0; k < depth; k++) memcpy(panel + k * W, x.p + k * x.row, sizeof(float) * W);
        return;
    } else if (x.row == 1 && depth % 8 == 0) {
        for (; j + 8 <= W; j += 8)   // eight columns to their end: each line of memory is read once
            for (int k = 0; k < depth; k += 8)
                transpose8(panel + k * W + j, W, x.p + j * x.col + k, x.col);
    }
    for (; j < width; j++)
        for (int k = 0; k < depth; k++) panel[k * W + j] = x.p[k * x.row + j * x.col];
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

// ---- kinds of products --------------------------------------------------------------------------

// What a product is made with. A panel holds words of 32 bits: a float, or two bfloat16 that follow
// each other in k, of which a bfloat16 instruction takes 16 pairs at a time.
struct Kernel {
    const char* name;
    int mr;          // rows of a tile
    int per_word;    // elements of a word
    int multiple;    // of which the number of words must be one: what is missing is packed as 0
    // Panels of mr or NR columns of x, from `depth` elements of k.
    void (*pack_a)(float* panel, Matrix x, int depth, int width);
    void (*pack_b)(float* panel, Matrix x, int depth, int width);
    // A tile of `rows` and `width`, of K words: matmul_edge.
    void (*tile)(int rows, int width, float* c, int64_t ldc, const float* a, const float* b, int K,
                 const float* begin);
    // FLOPs of so many steps on 12 chains, with no memory in between: what a thread can do at most.
    double (*flops)(int steps);
};

inline void float32_tile(int rows, int width, float* c, int64_t ldc, const float* a, const float* b,
                         int K, const float* begin) {
    matmul_edge(rows, width, c, ldc, {a, 1, MR}, b, NR, K, begin);
}

// Chains of their own, or one would do for all; 12 are enough to keep two units of latency 4 busy,
// and few enough for AVX2's 16 registers.
inline double float32_flops(int steps) {
    Vec chain[12];
    for (int j = 0; j < 12; j++) chain[j] = vec_all((float)j);
    const Vec factor = vec_all(0.999f);
    for (int i = 0; i < steps; i++)
        for (Vec& x : chain) x = vec_fma(x, factor, factor);
    float lanes[VEC], unused = 0;
    for (Vec& x : chain) {
        vec_store(lanes, x);
        unused += 0.0f * lanes[0];   // 0, but only we know it: the loop has to be run
    }
    return 2.0 * VEC * 12 * steps + unused;
}

const Kernel FLOAT32 = {"float32", MR, 1, 1, pack_panel<MR>, pack_panel<NR>, float32_tile,
                        float32_flops};

// ---- the product --------------------------------------------------------------------------------

inline void finish_tile(float* c, int64_t ldc, int rows, int width, const Finish& f, int64_t at) {
    for (int i = 0; i < rows; i++) {
        float* row = c + i * ldc;
        if (f.gelu)
            for (int j = 0; j < width; j++) f.gelu[at + i * ldc + j] = gelu(row[j]);
        if (f.pre_gelu)
            for (int j = 0; j < width; j++) row[j] *= gelu_derivative(f.pre_gelu[at + i * ldc + j]);
    }
}

// A block of c: rows m0 .. m1-1 and columns n0 .. n1-1, steps k0 .. k0+depth-1 of K, all in words.
// pa and pb are the panels from row m0 and column n0 on. Down the rows of a first: the panel of b
// stays in L1.
inline void matmul_block(const Kernel& kernel, float* c, int64_t ldc, const float* pa,
                         const float* pb, int m0, int m1, int n0, int n1, int k0, int depth, int K,
                         const Finish& f) {
    for (int n = n0; n < n1; n += NR) {
        const float* b = pb + (int64_t)(n - n0) * depth;
        const int width = std::min(NR, n1 - n);
        float begin[NR] = {};
        if (f.bias) memcpy(begin, f.bias + n, sizeof(float) * width);
        const bool goes_on = k0 > 0 || f.add;
        for (int m = m0; m < m1; m += kernel.mr) {
            const int64_t at = m * ldc + n;
            const int rows = std::min(kernel.mr, m1 - m);
            // What the next tile reads and writes, which memory would be asked for too late.
            for (int i = m + kernel.mr; i < std::min(m + 2 * kernel.mr, m1); i++)
                for (int64_t j = i * ldc + n; j < i * ldc + n + NR; j += 16) {
                    __builtin_prefetch(c + j, 1);
                    if (f.gelu) __builtin_prefetch(f.gelu + j, 1);
                    if (f.pre_gelu) __builtin_prefetch(f.pre_gelu + j);
                }
            kernel.tile(rows, width, c + at, ldc, pa + (int64_t)(m - m0) * depth, b, depth,
                        goes_on ? nullptr : begin);
            if (k0 + depth == K && (f.gelu || f.pre_gelu))
                finish_tile(c + at, ldc, rows, width, f, at);
        }
    }
}

// Makes a part of b that is no floats in memory: `width` columns from `first` on, `depth` elements
// of k from k0 on. What it returns may be written over by the thread's next call.
typedef std::function<Matrix(int first, int width, int k0, int depth)> Decode;

// One of a product's operands, as panels: of a's rows or of b's columns.
struct Side {
    Matrix x;       // (K, size)
    int size, width;   // width of a panel
    void (*pack)(float* panel, Matrix x, int depth, int width);
    const Decode* decode;   // or null

    // Columns first .. last-1, for `words` words of k from word k0 on; the last may be half empty.
    void pack_panels(float* to, int first, int last, int k0, int words, int K, int per_word) const {
        const int depth = std::min(words * per_word, K - k0 * per_word);
        for (int p = first; p < last; p += width, to += (int64_t)width * words) {
            const int some = std::min(width, last - p), k = k0 * per_word;
            pack(to, decode ? (*decode)(p, some, k, depth) : part(x, k, p), depth, some);
        }
    }
};

// c (M, N), rows ldc apart, = or += a (M, K) b (K, N), by all threads. c overlaps neither a nor b.
// decode: instead of b.
inline void matmul(float* c, int64_t ldc, Matrix a, Matrix b, int M, int N, int K, Finish f = {},
                   const Kernel& kernel = FLOAT32, const Decode* decode = nullptr) {
    static Scratch shared_buffer;
    const Side rows = {{a.p, a.col, a.row}, M, kernel.mr, kernel.pack_a, nullptr};
    const Side columns = {b, N, NR, kernel.pack_b, decode};
    const bool rows_are_less = M <= N;
    const Side &small = rows_are_less ? rows : columns, &large = rows_are_less ? columns : rows;
    const int words = round_up((K + kernel.per_word - 1) / kernel.per_word, kernel.multiple);
    // The smaller operand is packed as much at a time as fits, and at least KC words.
    const int panels = (small.size + small.width - 1) / small.width, padded = panels * small.width;
    const int chunk = KC * (int)std::max<int64_t>(1, SHARED / ((int64_t)padded * KC));
    float* shared = shared_buffer.at_least((size_t)padded * std::min(chunk, round_up(words, KC)));
    // Blocks of the larger dimension: three or more for each thread, so that none waits long for
    // the last. Where that dimension does not have as many, the other is cut too.
    const int tasks = 3 * max_threads();
    const int block = std::max(large.width, std::min(BLOCK, large.size / tasks) /
                                                large.width * large.width);
    const int blocks = (large.size + block - 1) / block;
    const int cuts = std::max(1, std::min(panels, tasks / blocks));
    const int piece = (panels + cuts - 1) / cuts * small.width;
#pragma omp parallel
    {
        static thread_local Scratch own_buffer;
        float* own = own_buffer.at_least((size_t)(block + large.width) * KC);
        for (int first = 0; first < words; first += chunk) {
            const int last = std::min(words, first + chunk);
            const int parts = (last - first + KC - 1) / KC;
            // shared: for each KC words of k all panels of the smaller operand.
#pragma omp for schedule(static)
            for (int i = 0; i < parts * panels; i++) {
                const int k0 = first + i / panels * KC, depth = std::min(KC, last - k0);
                const int p = i % panels * small.width;
                small.pack_panels(shared + (int64_t)(k0 - first) * padded + (int64_t)p * depth, p,
                                  std::min(small.size, p + small.width), k0, depth, K,
                                  kernel.per_word);
            }
#pragma omp for collapse(2) schedule(dynamic)
            for (int s = 0; s < small.size; s += piece)
                for (int l = 0; l < large.size; l += block) {
                    const int s1 = std::min(small.size, s + piece);
                    const int l1 = std::min(large.size, l + block);
                    for (int k0 = first; k0 < last; k0 += KC) {
                        const int depth = std::min(KC, last - k0);
                        const float* theirs =
                            shared + (int64_t)(k0 - first) * padded + (int64_t)s * depth;
                        large.pack_panels(own, l, l1, k0, depth, K, kernel.per_word);
                        if (rows_are_less)
                            matmul_block(kernel, c, ldc, theirs, own, s, s1, l, l1, k0, depth,
                                         words, f);
                        else
                            matmul_block(kernel, c, ldc, own, theirs, l, l1, s, s1, k0, depth,
                                         words, f);
                    }
                }
        }
    }
}

// A small product by one thread, for attention: c (M, N), rows ldc apart, = or += a b, where
// nothing is packed but panels of b that are narrow, or whose columns are not consecutive. a is
// read where it lies: its elements are broadcast one by one, in whatever order it has them.
inline void gemm(float* c, int64_t ldc, Matrix a, Matrix b, int M, int N, int K, bool add) {
    static thread_local Scratch scratch;
    const float zero[NR] = {};
    for (int n = 0; n < N; n += NR) {
        const int width = std::min(NR, N - n);
        const bool pack = width < NR || b.col != 1;
        const float* panel = b.p + n;
        if (pack) {
            float* to = scratch.at_least((size_t)NR * K);
            pack_panel<NR>(to, part(b, 0, n), K, width);
            panel = to;
        }
        for (int m = 0; m < M; m += MR)
            matmul_edge(std::min(MR, M - m), width, c + m * ldc + n, ldc, part(a, m, 0), panel,
                        pack ? NR : b.row, K, add ? nullptr : zero);
    }
}

#include "matmul_bf16.h"
