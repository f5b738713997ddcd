// mma.h - nvcuda::wmma: a warp multiplies small matrices together, a GPU in its tensor cores.
// A fragment is a warp's common matrix, each lane holding its share of the elements. Which lane
// holds which is not promised, so that programs may only load, multiply, store, fill, and treat all
// elements alike. Here lane l holds the elements l, l + 32, l + 64, ...
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
namespace nvcuda {
namespace wmma {
struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}
inline float __float_to_tf32(float x) {      // 10 bits of fraction
    unsigned u = __float_as_uint(x);
    return __uint_as_float((u + 0x1000) & 0xffffe000);
}
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static_assert((M == 16 && N == 16 && (K == 16 || K == 8)) || (M == 32 && N == 8 && K == 16) ||
                  (M == 8 && N == 32 && K == 16), "wmma: this shape does not exist");
    typedef std::conditional_t<std::is_same_v<T, precision::tf32>, float, T> element_type;
    static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M;
    static constexpr int cols = std::is_same_v<Use, matrix_a> ? K : N;
    static constexpr int num_elements = rows * cols / 32;
    static constexpr int num_storage_elements = num_elements;
    element_type x[num_elements];
};
template <class F>
__forceinline__ void emu_load(F& f, const typename F::element_type* p, unsigned ld, bool by_rows) {
    for (int e = 0; e < F::num_elements; e++) {
        unsigned i = (e * 32 + emu::lane()) / F::cols, j = (e * 32 + emu::lane()) % F::cols;
        f.x[e] = by_rows ? p[i * ld + j] : p[j * ld + i];
    }
    __syncwarp();
}
template <class Use, int M, int N, int K, class T, class Layout, class P>
__forceinline__ void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const P* p,
                                      unsigned ld) {
    emu_load(f, p, ld, std::is_same_v<Layout, row_major>);
}
template <int M, int N, int K, class T>
__forceinline__ void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned ld,
                                      layout_t layout) {
    emu_load(f, p, ld, layout == mem_row_major);
}
template <int M, int N, int K, class T>
__forceinline__ void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f,
                                       unsigned ld, layout_t layout) {
    for (int e = 0; e < f.num_elements; e++) {
        unsigned i = (e * 32 + emu::lane()) / N, j = (e * 32 + emu::lane()) % N;
        p[layout == mem_row_major ? i * ld + j : j * ld + i] = f.x[e];
    }
    __syncwarp();
}
template <class F, class V> __forceinline__ void fill_fragment(F& f, V value) {
    for (int e = 0; e < F::num_elements; e++) f.x[e] = value;
}
// d = a b + c, products exact, sums in float.
template <int M, int N, int K, class T, class U, class V, class LA, class LB>
__forceinline__ void mma_sync(fragment<accumulator, M, N, K, U>& d,
                              const fragment<matrix_a, M, N, K, T, LA>& a,
                              const fragment<matrix_b, M, N, K, T, LB>& b,
                              const fragment<accumulator, M, N, K, V>& c) {
    typename fragment<matrix_a, M, N, K, T, LA>::element_type whole_a[32][M * K / 32],
        whole_b[32][K * N / 32];
    emu::warp_collect(0xffffffff, a.x, sizeof a.x, whole_a);
    emu::warp_collect(0xffffffff, b.x, sizeof b.x, whole_b);
    auto element = [](const auto& whole, unsigned e) { return (float)whole[e % 32][e / 32]; };
    for (int e = 0; e < d.num_elements; e++) {
        unsigned i = (e * 32 + emu::lane()) / N, j = (e * 32 + emu::lane()) % N;
        float sum = c.x[e];
        for (int k = 0; k < K; k++)
            sum = __fmaf_rn(element(whole_a, i * K + k), element(whole_b, k * N + j), sum);
        d.x[e] = sum;
    }
}
}  // namespace wmma
}  // namespace nvcuda
