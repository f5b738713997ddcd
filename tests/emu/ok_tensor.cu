// Inline PTX as programs write it: ldmatrix, mma and cp.async. That lanes have the elements which
// the PTX manual gives them is checked against fragments that are put together by hand, by its
// formulas, and against plain products.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>
#include <cstdio>
#include "expect.cuh"

// As macros, which much code has for them, and as functions.
#define LDMATRIX_X1(r, address) \
    asm volatile("ldmatrix.sync.aligned.x1.m8n8.shared.b16 {%0}, [%1];\n" : "=r"(r) : "r"(address))
#define LDMATRIX_X2(r0, r1, address)                                     \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n" \
                 : "=r"(r0), "=r"(r1)                                    \
                 : "r"(address))
#define CP_ASYNC_CG(dst, src, bytes)                                     \
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], %2;\n" ::"r"(dst), "l"(src), \
                 "n"(bytes))
static_assert(__LINE__ == 20, "a macro over several lines keeps its lines");

__device__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

template <bool TRANSPOSED> __device__ void ldmatrix_x4(uint32_t (&r)[4], const void* p) {
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(p))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared::cta.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(p)));
}

__device__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void mma_half(float* d, const uint32_t* a, const uint32_t* b, const float* c) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};\n"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// Element (row, column) of the two matrices: small integers, and no two of a matrix's 16 rows or
// columns alike, since 17 is a prime.
__device__ float element_a(int row, int column) { return (row * 7 + column * 3) % 17 - 8; }
__device__ float element_b(int row, int column) { return (row * 5 + column * 9) % 17 - 8; }
__device__ float product(int row, int column) {
    float sum = 0;
    for (int k = 0; k < 16; k++) sum += element_a(row, k) * element_b(k, column);
    return sum;
}

template <class Number> __device__ uint32_t pair(float low, float high) {
    Number x[2] = {(Number)low, (Number)high};
    uint32_t word;
    memcpy(&word, x, sizeof word);
    return word;
}

// The fragments put together by hand, by the manual's formulas for a0 .. a7, b0 .. b3 and c0 .. c3.
template <class Number> __device__ void by_hand(uint32_t (&a)[4], uint32_t (&b)[2]) {
    const int group = threadIdx.x >> 2, member = threadIdx.x % 4;
    for (int i = 0; i < 8; i += 2) {
        int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
        int column = member * 2 + (i < 4 ? 0 : 8);
        a[i / 2] = pair<Number>(element_a(row, column), element_a(row, column + 1));
    }
    for (int i = 0; i < 4; i += 2) {
        int row = member * 2 + (i < 2 ? 0 : 8);
        b[i / 2] = pair<Number>(element_b(row, group), element_b(row + 1, group));
    }
}

__device__ void expect_product(const float (&c)[4], float added) {
    for (int i = 0; i < 4; i++)
        EXPECT(c[i] == product(threadIdx.x / 4 + (i < 2 ? 0 : 8), threadIdx.x % 4 * 2 + i % 2) +
                           added);
}

__global__ void fragments() {
    __shared__ alignas(16) __nv_bfloat16 a[16][24], b[16][8], bt[8][16];
    for (int i = threadIdx.x; i < 256; i += 32) a[i / 16][i % 16] = element_a(i / 16, i % 16);
    for (int i = threadIdx.x; i < 128; i += 32) {
        b[i / 8][i % 8] = element_b(i / 8, i % 8);
        bt[i % 8][i / 8] = element_b(i / 8, i % 8);
    }
    __syncthreads();
    const int lane = threadIdx.x;
    uint32_t hand_a[4], hand_b[2], r[4], two[2], one;
    by_hand<__nv_bfloat16>(hand_a, hand_b);
    ldmatrix_x4<false>(r, &a[lane % 16][lane / 16 * 8]);
    for (int i = 0; i < 4; i++) EXPECT(r[i] == hand_a[i]);
    LDMATRIX_X2(two[0], two[1], shared_address(&bt[lane % 8][lane / 8 % 2 * 8]));
    for (int i = 0; i < 2; i++) EXPECT(two[i] == hand_b[i]);
    LDMATRIX_X1(one, shared_address(&bt[lane % 8][8]));
    EXPECT(one == hand_b[1]);
    // Its transpose: the same from b as it lies. Lanes 16 to 31 give the first matrices again.
    ldmatrix_x4<true>(r, &b[lane % 16][0]);
    for (int i = 0; i < 4; i++) EXPECT(r[i] == hand_b[i % 2]);

    float c[4] = {1, 1, 1, 1}, zero[4] = {}, d[4];
    mma_bf16(c, hand_a, hand_b);
    expect_product(c, 1);
    mma_bf16(c, hand_a, hand_b);      // c is read, and written
    for (float& x : c) x /= 2;
    expect_product(c, 0.5f);
    by_hand<half>(hand_a, hand_b);
    mma_half(d, hand_a, hand_b, zero);
    expect_product(d, 0);
}

// Four tiles of 32 floats through two buffers: while one is summed, the next is on its way. Of the
// last one a part is missing, and becomes 0.
__global__ void pipeline(float* out, const float* in) {
    __shared__ alignas(16) float tile[2][32];
    const int t = threadIdx.x;
    float sum = 0;
    auto fetch = [&](int i) {
        uint32_t dst = shared_address(&tile[i % 2][4 * (t % 8)]);
        if (i == 0 && t < 8) CP_ASYNC_CG(dst, in + 4 * t, 16);
        if (i == 1 && t < 16)      // by the two ways to say how many bytes
            asm volatile("cp.async.ca.shared.global [%0], [%1], 8;"
                         ::"r"(shared_address(&tile[1][2 * t])), "l"(in + 32 + 2 * t) : "memory");
        if (i == 2)
            asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::
                         "r"(shared_address(&tile[0][t])), "l"(in + 64 + t), "n"(4));
        if (i == 3 && t < 8)       // 16 bytes, 8, or none of them
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                         ::"r"(dst), "l"(in + 96 + 4 * t), "r"(t < 4 ? 16 : t == 4 ? 8 : 0));
        asm volatile("cp.async.commit_group;\n" ::);
    };
    fetch(0);
    for (int i = 0; i < 4; i++) {
        if (i < 3) {
            fetch(i + 1);
            asm volatile("cp.async.wait_group %0;\n" ::"n"(1));
        } else {
            asm volatile("cp.async.wait_all;");
        }
        __syncthreads();
        sum += (i + 1) * tile[i % 2][31 - t];
        __syncthreads();
    }
    out[t] = sum;
}

int main() {
    fragments<<<1, 32>>>();
    float host[128], *in, *out, result[32];
    for (int i = 0; i < 128; i++) host[i] = i * i % 17;
    cudaMalloc(&in, 114 * 4);      // and no more: what is not there is not read
    cudaMalloc(&out, 128);
    cudaMemcpy(in, host, 114 * 4, cudaMemcpyHostToDevice);
    pipeline<<<1, 32>>>(out, in);
    cudaMemcpy(result, out, sizeof result, cudaMemcpyDeviceToHost);
    for (int i = 114; i < 128; i++) host[i] = 0;
    for (int t = 0; t < 32; t++) {
        float sum = 0;
        for (int i = 0; i < 4; i++) sum += (i + 1) * host[32 * i + 31 - t];
        if (result[t] != sum) return 2;
    }
    int failed;
    cudaMemcpyFromSymbol(&failed, failures, sizeof failed);
    return failed != 0;
}
