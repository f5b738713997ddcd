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
//     L1         What a tile reads of b is a panel: NR columns, packed so that step k + 1 lies
//                behind step k. KC = 384 makes it 48 KB (AVX-512), all of L1, while tiles go down
//                the rows of a. What a's rows push out comes back from L2 at 11 bytes a cycle, a
//                fifth of what L2 can give; shorter panels would stay, but c's tiles would be
//                loaded and stored more often, which costs more.
//     L2         A thread's block of a has 192 rows, 288 KB. The next panel of b, 48 KB, serves
//                16 tiles of 4,608 cycles each: it may come from L3, at less than a byte a cycle.
//     memory     The smaller operand is packed once, by all threads, as much at a time as 4 MB
//                hold. Of the larger a thread reads a block at a time, so that one may wait for
//                memory while another multiplies. a, whose elements are broadcast, is read where
//                it lies, if its steps of k follow each other; and if those of a weight of 9 MB do,
//                for 256 tokens it takes a's place: c^T is made, in L2, and turned when done.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>
#include "files.h"
#include "numerics.h"
#include "threads.h"
#include "vectors.h"

const int NR = 2 * VEC;
const int KC = 384;               // steps of k that a panel holds
const int BLOCK = 192;            // rows or columns that a thread reads at a time
const int GROUP = 1024;           // columns or rows that are packed at a time, or more
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

// Where the chains begin, and what is done to a tile while it is in the cache.
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

// W consecutive columns of x (depth, width) as a panel: W floats for step 0, then for step 1, ...
// Columns beyond width become 0. Rows are asked for ahead: far apart, they are no stream.
template <int W>
inline void pack_panel(float* panel, Matrix x, int depth, int width) {
    if (width < W) memset(panel, 0, sizeof(float) * W * depth);
    if (x.row == 1) return transpose(panel, W, x.p, x.col, depth, width);
    if (width == W && x.col == 1) {
        for (int k = 0; k < depth; k++) {
            for (int j = 0; j < W; j += 16) __builtin_prefetch(x.p + (k + 24) * x.row + j);
            memcpy(panel + k * W, x.p + k * x.row, sizeof(float) * W);
        }
        return;
    }
    for (int j = 0; j < width; j++)
        for (int k = 0; k < depth; k++) panel[k * W + j] = x.p[k * x.row + j * x.col];
}

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
    // A tile of `rows` and `width`, of K words: matmul_edge. Floats of a lie as its strides say.
    void (*tile)(int rows, int width, float* c, int64_t ldc, Matrix a, const float* b, int K,
                 const float* begin);
    // FLOPs of so many steps on 12 chains, with no memory in between: what a thread can do at most.
    double (*flops)(int steps);
};

// The two ways in which a lies, known to the compiler, spare a multiplication for each row.
inline void float32_tile(int rows, int width, float* c, int64_t ldc, Matrix a, const float* b,
                         int K, const float* begin) {
    if (rows < MR || width < NR) return matmul_edge(rows, width, c, ldc, a, b, NR, K, begin);
    if (a.col == 1) return matmul_tile<MR>(c, ldc, {a.p, a.row, 1}, b, NR, K, begin);
    matmul_tile<MR>(c, ldc, {a.p, 1, MR}, b, NR, K, begin);
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

// Makes a part of b that is no floats in memory: `width` columns from `first` on, `depth` elements
// of k from k0 on. What it returns may be written over by the thread's next call.
typedef std::function<Matrix(int first, int width, int k0, int depth)> Decode;

// One of a product's operands, seen from k: its items are a's rows, or b's columns.
struct Side {
    Matrix x;   // (K, size)
    int size, width;   // width of a panel
    void (*pack)(float* panel, Matrix x, int depth, int width);
    const Decode* decode;   // or null

    Matrix items(int first, int some, int k0, int depth) const {
        return decode ? (*decode)(first, some, k0, depth) : part(x, k0, first);
    }
};

struct Range { int from, to; };

// A product, in one of four ways:
//
//                    panels, shared    by each thread         tiles
//     not swapped    of b's columns    a, as it lies          of c
//     swapped        of a's rows       b, packed in panels    of c
//     and in place   none: a is read as it lies, the rest is the same
//     or turned      of a's rows       b, as it lies          of c^T = b^T a^T
// (In the first way a is packed too where its rows are columns in memory, and in bfloat16.)
struct Matmul {
    float* c;
    int64_t ldc;
    int K;
    Finish f;
    const Kernel& kernel;
    bool swapped, in_place, turned;
    Side packed, read;   // in panels that all threads share; by each thread for itself
    int words;           // of K
    int group;           // items whose panels exist at a time,
    float* panels;       // for each KC words of k

    // Elements of k in `words` words from k0 on; the last word may be half empty.
    int steps(int k0, int words) const {
        return std::min(words * kernel.per_word, K - k0 * kernel.per_word);
    }
};

// What f asks of the part of c that begins `at` floats further on, in column n: only the first
// steps of k begin a chain, and only after the last is there something to do with its end.
inline Finish finish_of(const Finish& f, int64_t at, int n, bool first, bool last) {
    return {f.add || !first, f.bias && first ? f.bias + n : nullptr,
            f.gelu && last ? f.gelu + at : nullptr,
            f.pre_gelu && last ? f.pre_gelu + at : nullptr};
}

inline void finish_tile(float* c, int64_t ldc, int rows, int width, const Finish& f) {
    for (int64_t i = 0, at = 0; i < rows; i++, at += ldc) {
        // Four rows below: memory would be asked for them too late.
        for (int64_t j = at + 4 * ldc; j < at + 4 * ldc + width; j += 16) {
            if (f.gelu) __builtin_prefetch(f.gelu + j, 1);
            if (f.pre_gelu) __builtin_prefetch(f.pre_gelu + j);
        }
        if (f.gelu)
            for (int j = 0; j < width; j++) f.gelu[at + j] = gelu(c[at + j]);
        if (f.pre_gelu)
            for (int j = 0; j < width; j++) c[at + j] *= gelu_derivative(f.pre_gelu[at + j]);
    }
}

// c (rows, columns) = or += a b, of `depth` words of k, by one thread. b is in panels; of a each mr
// rows lie `down` floats after the last. Down the rows of a first: the panel of b stays in L1.
inline void matmul_block(const Kernel& kernel, float* c, int64_t ldc, Matrix a, int64_t down,
                         const float* b, int rows, int columns, int depth, const Finish& f) {
    const int mr = kernel.mr;
    for (int n = 0; n < columns; n += NR, b += (int64_t)NR * depth) {
        const int width = std::min(NR, columns - n);
        float begin[NR] = {};
        if (f.bias) memcpy(begin, f.bias + n, sizeof(float) * width);
        for (int m = 0; m < rows; m += mr) {
            const int64_t at = m * ldc + n;
            const int some = std::min(mr, rows - m);
            // What the next tile writes, which memory would be asked for too late.
            for (int i = m + mr; i < std::min(m + 2 * mr, rows); i++)
                for (int j = 0; j < NR; j += 16) __builtin_prefetch(c + i * ldc + n + j, 1);
            kernel.tile(some, width, c + at, ldc, {a.p + m / mr * down, a.row, a.col}, b, depth,
                        f.add ? nullptr : begin);
            if (f.gelu || f.pre_gelu)
                finish_tile(c + at, ldc, some, width, finish_of(f, at, n, true, true));
        }
    }
}

// Items l of what is read with items s of what is packed, of a group that begins with g: the words
// k of K, by one thread.
inline void matmul_task(const Matmul& p, Range k, int g, Range s, Range l) {
    static thread_local Scratch own, aside;
    const Kernel& kernel = p.kernel;
    const bool b_is_own = p.swapped && !p.turned;
    const int count = l.to - l.from;
    const int m = p.swapped ? s.from : l.from, n = p.swapped ? l.from : s.from;
    const int rows = b_is_own ? s.to - s.from : count, columns = b_is_own ? count : s.to - s.from;
    float* c = p.c + m * p.ldc + n;
    const Finish whole = finish_of(p.f, m * p.ldc + n, n, k.from == 0, k.to == p.words);
    float* tiles = p.turned ? aside.at_least((size_t)rows * columns) : c;
    const int64_t ld = p.turned ? columns : p.ldc;
    if (p.turned && whole.add) transpose(tiles, ld, c, p.ldc, rows, columns);
    for (int i = 0; p.turned && !whole.add && i < rows; i++)
        std::fill_n(tiles + i * ld, columns, whole.bias ? whole.bias[i] : 0.0f);
    for (int k0 = k.from; k0 < k.to; k0 += KC) {
        const int depth = std::min(KC, k.to - k0), steps = p.steps(k0, depth);
        const Matrix x = p.read.items(l.from, count, k0 * kernel.per_word, steps);
        const float* shared = p.panels + (int64_t)(k0 - k.from) * p.group +
                              (int64_t)(s.from - g) * depth;
        Matrix a = p.in_place ? part(p.packed.x, k0, s.from) : x;   // seen from k, like x
        int64_t down = kernel.mr * a.col;
        const float* b = shared;
        if (b_is_own || kernel.per_word > 1 || x.row != 1) {
            float* to = own.at_least((size_t)round_up(count, p.read.width) * KC);
            if (b_is_own) b = to;
            if (!p.in_place) a = {b_is_own ? shared : to, kernel.mr, 1}, down = kernel.mr * depth;
            for (int i = 0; i < count; i += p.read.width, to += (int64_t)p.read.width * depth)
                p.read.pack(to, part(x, 0, i), steps, std::min(p.read.width, count - i));
        }
        const Finish f = p.turned ? Finish{true}
                                  : finish_of(whole, 0, 0, k0 == k.from, k0 + depth == k.to);
        matmul_block(kernel, tiles, ld, {a.p, a.col, a.row}, down, b, rows, columns, depth, f);
    }
    if (p.turned) {
        transpose(c, p.ldc, tiles, ld, columns, rows);
        finish_tile(c, p.ldc, columns, rows, whole);
    }
}

// c (M, N), rows ldc apart, = or += a (M, K) b (K, N), by all threads. c overlaps neither a nor b.
// decode: instead of b.
inline void matmul(float* c, int64_t ldc, Matrix a, Matrix b, int M, int N, int K, Finish f = {},
                   const Kernel& kernel = FLOAT32, const Decode* decode = nullptr) {
    static Scratch shared;
    // The smaller operand is packed, or b if it fits into L2. a is not if it fits, and lies well; or
    // c is turned, as often as panels are made anew, if that moves fewer floats than packing b too.
    const int64_t turns = 1 + (int64_t)M * K / SHARED;
    const bool swapped = M <= N && (int64_t)N * K > SHARED / 4, floats = kernel.per_word == 1;
    const bool in_place = swapped && floats && a.col == 1 && b.col == 1 && M <= SHARED / 4 / KC;
    const bool turned = swapped && floats && !in_place && K > M * turns;
    Side rows = {{a.p, a.col, a.row}, M, kernel.mr, kernel.pack_a, nullptr};
    Side columns = {b, N, NR, kernel.pack_b, decode};
    if (turned) std::swap(rows.width, columns.width), std::swap(rows.pack, columns.pack);
    const Side &packed = swapped ? rows : columns, &read = swapped ? columns : rows;
    const int words = round_up((K + kernel.per_word - 1) / kernel.per_word, kernel.multiple);
    // As many items are packed at a time as fit with all of K, or GROUP with as much of K as fits.
    const int group = round_up((int)std::min<int64_t>(packed.size, std::max<int64_t>(
                                   GROUP, SHARED / words)), packed.width);
    const int chunk = std::max(1, (int)(SHARED / group / KC)) * KC;
    const Matmul p = {c, ldc, K, f, kernel, swapped, in_place, turned, packed, read, words,
                      group, shared.at_least((size_t)group * std::min(chunk, words))};
    // Blocks of what is read: three or more for each thread, so that none waits long for the last.
    // Where it does not have as many, what is packed is cut too.
    const int threads = max_threads(), panels = group / packed.width;
    const int block = std::max(read.width, std::min(BLOCK, read.size / (3 * threads)) /
                                               read.width * read.width);
    const int blocks = (read.size + block - 1) / block;
    const int cuts = std::max(1, std::min(panels, 3 * threads / blocks));
    const int piece = (panels + cuts - 1) / cuts * packed.width;
#pragma omp parallel
    for (int g = 0; g < packed.size; g += group) {
        const int end = std::min(packed.size, g + group);
        for (int first = 0; first < words; first += chunk) {
            const int last = std::min(words, first + chunk);
            const int parts = in_place ? 0 : (last - first + KC - 1) / KC;
#pragma omp for schedule(static)
            for (int i = 0; i < parts * panels; i++) {
                const int k0 = first + i / panels * KC, item = g + i % panels * packed.width;
                const int depth = std::min(KC, last - k0), steps = p.steps(k0, depth);
                const int some = std::min(packed.width, end - item);
                float* to = p.panels + (int64_t)(k0 - first) * group + (int64_t)(item - g) * depth;
                if (some > 0)
                    packed.pack(to, packed.items(item, some, k0 * kernel.per_word, steps), steps,
                                some);
            }
#pragma omp for collapse(2) schedule(dynamic)
            for (int s = g; s < end; s += piece)
                for (int l = 0; l < read.size; l += block)
                    matmul_task(p, {first, last}, g, {s, std::min(end, s + piece)},
                                {l, std::min(read.size, l + block)});
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
