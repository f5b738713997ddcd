// What nvcc does with the language beyond kernels: variable templates on the device, and functions
// that are compiled twice, with __CUDA_ARCH__ only in the device's.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "expect.cuh"

template <class T> __device__ T total;
template <typename T, int N = 4>
__constant__ T weights[N];
template <class T> static __device__ T three = T(3);

__host__ __device__ inline int place(int x) {
#ifdef __CUDA_ARCH__
    return x + 1;
#else
    return x + 100 * abs(-1);
#endif
}
struct Pair {
    int a;
    __host__ __device__ Pair() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700
        a = 1;
#else
        a = 2;
#endif
    }
    template <class T> __host__ __device__ T get(T t) const
    {
        static_assert(__LINE__ == 31, "lines stay where they are");
#ifndef __CUDA_ARCH__
        static_assert(__LINE__ == 33, "in the host's body, too");
        return t;
#else
        return t * 2;
#endif
    }
};
static const char* name() {
#ifdef __CUDA_ARCH__
    return "device";
#else
    return "host";
#endif
}
__device__ int arch() {
#if __CUDA_ARCH__ >= 600
    return __CUDA_ARCH__;
#else
    return 0;
#endif
}
__device__ int ticket() {
    static int count, first[2] = {0, 1};      // on the device, as nvcc has it
    return atomicAdd(&count, 1) + first[0];
}
template <class T> __global__ void add(T* out) {
    static_assert(__LINE__ == 59, "and behind them");
    atomicAdd(&total<T>, weights<T>[threadIdx.x % 4] * three<T>);
    EXPECT(place(1) == 2 && Pair().a == 1 && Pair().get(5) == 10 && arch() >= 600);
    EXPECT(ticket() < 32);
    __syncthreads();
    if (threadIdx.x == 0) *out = total<T>;
}
int main() {
    float w[4] = {1, 2, 3, 4}, zero = 0, *out, sum, copy;
    cudaMemcpyToSymbol(weights<float>, w, sizeof w);
    cudaMemcpyToSymbol(total<float>, &zero, sizeof zero);
    cudaMalloc(&out, sizeof(float));
    add<<<1, 32>>>(out);
    cudaMemcpy(&sum, out, sizeof sum, cudaMemcpyDeviceToHost);
    cudaMemcpyFromSymbol(&copy, total<float>, sizeof copy);
    int failed;
    cudaMemcpyFromSymbol(&failed, failures, sizeof failed);
    if (sum != 240 || copy != 240 || place(1) != 101 || Pair().a != 2 || Pair().get(5) != 5 ||
        strcmp(name(), "host")) {
        printf("%g %g %d %d %d %s\n", sum, copy, place(1), Pair().a, Pair().get(5), name());
        return 1;
    }
    cudaFree(out);
    return failed != 0;
}
