// Headers and functions that courses use: CS149's, complex numbers, SIMD in a word, pipelines.
#include <builtin_types.h>
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuComplex.h>
#include <cuda.h>
#include <cuda_pipeline.h>
#include <driver_functions.h>
#include <cstdio>
#include "expect.cuh"
namespace cg = cooperative_groups;

__global__ void registers() {
    unsigned x, below, from;
    asm("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(below));
    asm("mov.u32 %0, %%lanemask_ge;" : "=r"(from));
    EXPECT(x == blockIdx.x && below == (1u << threadIdx.x % 32) - 1 && from == ~below);
}

__global__ void functions(float* p) {
    __builtin_assume(p != nullptr);
    cuComplex z = cuCmulf(make_cuComplex(1, 2), make_cuFloatComplex(3, -1));
    EXPECT(cuCrealf(z) == 5 && cuCimagf(z) == 5 && cuCabs(make_cuDoubleComplex(3, 4)) == 5);
    cuDoubleComplex w = cuCdiv(make_cuDoubleComplex(5, 5), make_cuDoubleComplex(3, -1));
    EXPECT(fabs(w.x - 1) < 1e-12 && fabs(w.y - 2) < 1e-12);
    EXPECT(__vadd4(0x01ff7f80, 0x01010101) == 0x02008081);
    EXPECT(__vsadu4(0x01ff7f80, 0x01010101) == 254 + 126 + 127);
    EXPECT(__dp4a(0x10ff0203, 0x20014000, 1) == 640 && __dp4a(0x10ff0203u, 0x20014000u, 1u) == 896);
    EXPECT(__vmaxs4(0x01ff7f80, 0x00000000) == 0x01007f00 && __vminu2(0xffff0001, 0x10) == 1);
    EXPECT(__vcmpeq2(0x00010002, 0x00010003) == 0xffff0000 && __vavgu4(0xff, 0) == 0x80);
    EXPECT(fabsf(erfinvf(0.5f) - 0.47693628f) < 1e-6f && erfinv(-1.0) == -INFINITY);
    EXPECT(fabs(normcdfinv(0.975) - 1.959963984540054) < 1e-12);
}

__global__ void pipeline(const float* in, float* out) {
    __shared__ alignas(16) float a[32], b[32];
    int t = threadIdx.x;
    __pipeline_memcpy_async(&a[t], &in[t], 4);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    auto block = cg::this_thread_block();
    cg::memcpy_async(block, b, in, sizeof b);
    cg::wait_prior<0>(block);
    out[t] = a[31 - t] + b[31 - t];
}

int main() {
    float host[32], *in, *out;
    int bad;
    for (int i = 0; i < 32; i++) host[i] = i;
    cudaMalloc(&in, sizeof host);
    cudaMallocManaged(&out, sizeof host);
    cudaMemLocation device = {cudaMemLocationTypeDevice, 0};
    if (cudaMemPrefetchAsync(out, sizeof host, device, 0, 0)) return 1;
    cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice);
    registers<<<3, 64>>>();
    functions<<<1, 1>>>(in);
    pipeline<<<1, 32>>>(in, out);
    cudaMemcpyFromSymbol(&bad, failures, sizeof bad);
    if (bad || out[1] != 60) return 1;
    cudaFree(in);
    cudaFree(out);
    return 0;
}
